//! The node's agent: what the kubelet is to Kubernetes. Above it the REST API, below it the runtime and
//! the network of this host.
//!
//! - `plan` (pure): one pod, what is seen of it, the next steps and the status; `observed` is its input,
//!   `backoff` and `status` its parts
//! - `config`, `env`, `resources`, `security`, `dns` (pure): what the runtime is asked for
//! - `network_plan` (pure): the cluster's objects as this node's network
//! - `options` (pure): everything host-global

pub mod backoff;
pub mod config;
pub mod dns;
pub mod env;
pub mod network_plan;
pub mod observed;
pub mod options;
pub mod plan;
pub mod resources;
pub mod security;
pub mod status;

pub use options::Options;

pub mod identity;
