//! OCI runtimes (the Open Container Initiative's runtime specification), both ways round.
//!
//! - `bundle` (pure): a container's spec as another runtime wants it
//! - `handler`: drives another runtime (runc, crun) by its command line, for pods whose RuntimeClass names one
//! - `life`: is such a runtime for others (podman, containerd): `podbay oci`; `config` (pure): what a bundle asks for, `access` (pure): of devices;
//!   `state`: what is kept between its commands
//!
//! A container of another runtime differs from ours in one point: its process is started by that runtime's commands,
//! which a child of the pod's shim runs. The shim is the subreaper, so the process becomes its child, and logs, exit
//! records and the survival of the agent are as with ours. What the runtime knows of its containers is below the
//! sandbox's run directory and goes with it.

mod access;
pub(super) mod bundle;
pub mod config;
pub(super) mod handler;
pub mod life;
pub mod state;
