//! The simulator: a second, tiny driver over the same plans.
//!
//! - `world`: a copy of the state, a virtual clock, the controllers' queues
//! - `kubelet`: the ideal node
//! - `settle`: runs until only time or a process exit can change anything
//! - `faults` (tests): crashes, silence, stale views and lost writes by seed

#[cfg(test)]
mod faults;
pub mod kubelet;
pub mod settle;
#[cfg(test)]
mod tests;
pub mod world;

pub use settle::{Settled, settle};
