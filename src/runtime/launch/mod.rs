//! From an OCI spec to a running process: `plan` makes the list of steps, the shim carries it out.

pub mod plan;
