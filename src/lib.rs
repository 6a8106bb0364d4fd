//! Podbay: Kubernetes manifests straight from git on plain Linux hosts.

pub mod admit;
pub mod agent;
pub mod assemble;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod cri;
pub mod driver;
pub mod model;
pub mod network;
pub mod plan;
pub mod runtime;
pub mod schedule;
pub mod server;
pub mod simulate;
pub mod store;
pub mod sync;
pub mod tls;
