//! The simulator: a second, tiny driver over the same plans.
//!
//! - `world`: a copy of the state, a virtual clock, the controllers' queues
//! - `kubelet`: the ideal node
//! - `settle`: runs until only time or a process exit can change anything
//! - `saved`: snapshot files
//! - `preview`: what a source's revision will do: the plan, settled, and the difference
//! - `faults` (tests): crashes, silence, stale views and lost writes by seed

#[cfg(test)]
mod faults;
pub mod kubelet;
#[cfg(test)]
mod lifecycle_tests;
pub mod preview;
pub mod saved;
pub mod settle;
#[cfg(test)]
mod size_tests;
#[cfg(test)]
mod tests;
pub mod world;

pub use preview::{Preview, preview};
pub use settle::{Settled, settle};
