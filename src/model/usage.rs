//! What a pod was measured to use. PURE.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Timestamp;

/// One pod's figures: CPU on the average of a window, memory at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// The window's end.
    pub at: Timestamp,
    /// The longest of its containers: one that began within it is counted from its start.
    pub window: Duration,
    /// By the container's name; one of which nothing is known is left out.
    pub containers: BTreeMap<String, Amounts>,
}

/// What one container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// CPU in billionths of a core.
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
}
