//! Tests that need no root: whole parts against what they must do.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod agent;
mod api;
mod api_writes;
mod autoscale;
mod certificates;
mod custom_resources;
mod described;
mod elsewhere;
mod every_request;
mod hooks;
mod hostile;
mod join;
mod kubectl_says;
mod kubelet;
mod manifest;
mod proxied;
mod reflected;
mod released;
mod rig;
mod rights;
mod scripts;
mod source_hooks;
mod store_full;
mod store_kill;
mod strangers;
mod tidy;
mod usage;
mod versions;
