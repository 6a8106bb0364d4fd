//! What needs root and a real kernel: one binary, run as root.

// A test fails by panicking; so do the functions it calls.
#![allow(clippy::unwrap_used)]

mod agent_volumes;
mod api_access;
mod attacks;
mod autoscale;
mod cluster;
mod cri;
mod elsewhere;
mod engine;
mod foretold;
mod fuzz;
mod git;
mod hostile_registry;
mod hosts;
mod image;
mod layer;
mod lives;
mod loopback;
mod mounts;
mod network;
mod oci;
mod old_shim;
mod one_node;
mod persistent;
mod pods;
mod private_tls;
mod provisioned;
mod pull_command;
mod registry;
mod replaced;
mod resized;
mod runtimes;
mod small_disk;
mod start_checks;
mod store_full;
mod terminals;
mod verbs;
mod webhooks;
