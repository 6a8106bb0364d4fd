//! The node's agent: what the kubelet is to Kubernetes. Above it the REST API, below it the runtime and
//! the network of this host.
//!
//! - `plan` (pure): one pod, what is seen of it, the next steps and the status; `observed` is its input,
//!   `backoff` and `status` its parts
//! - `config`, `env`, `resources`, `security`, `dns` (pure): what the runtime is asked for
//! - `network_plan` (pure): the cluster's objects as this node's network
//! - `options` (pure): everything host-global

pub mod auth;
pub mod backoff;
pub mod config;
pub mod dns;
pub mod env;
pub mod events;
pub mod machine;
pub mod network_plan;
pub mod node_plan;
pub mod observed;
pub mod options;
pub mod plan;
pub mod probe;
pub mod record;
pub mod references;
pub mod resources;
pub mod security;
pub mod status;
pub mod volume;

pub use options::Options;

pub mod identity;
