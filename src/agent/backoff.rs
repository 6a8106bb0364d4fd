//! How long to wait before the next attempt. PURE.
//!
//! The delay of a crashing container is written on the container itself, so it survives the agent: a
//! container carries the wait that follows its own end, and its successor carries twice that.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Container;
use sha2::{Digest, Sha256};

use super::observed::{CONTAINER_HASH, Failure, RESTART_DELAY};
use crate::cri::ContainerStatus;
use crate::model::Timestamp;

/// First wait, seconds.
pub const FIRST: u32 = 10;
/// Longest wait, seconds.
pub const LONGEST: u32 = 300;
/// A container that ran this long has recovered, seconds.
pub const RECOVERED: i64 = 600;

/// What a restart has to respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Not before then.
    pub at: Timestamp,
    /// The wait in seconds that this is; 0: none.
    pub delay: u32,
    /// What the new container carries.
    pub next: u32,
}

/// The restart after `dead`; `hash` is the digest of what is wanted now.
pub fn restart(dead: &ContainerStatus, hash: &str) -> Restart {
    let ended = dead.finished_at.or(dead.started_at).unwrap_or(dead.created_at);
    let began = dead.started_at.unwrap_or(ended);
    let changed = dead.annotations.get(CONTAINER_HASH).is_some_and(|old| old != hash);
    let recovered = ended.duration_since(began).as_secs() >= RECOVERED;
    let carried = dead.annotations.get(RESTART_DELAY).and_then(|text| text.parse().ok()).unwrap_or(0);
    let delay: u32 = if changed || recovered { 0 } else { carried };
    Restart { at: later(ended, delay), delay, next: (delay * 2).clamp(FIRST, LONGEST) }
}

/// When to try again after this many failures in a row: 10 s doubling to 300 s for what asks others
/// (pulls, sandboxes, starts), and every 10 s for what waits for a person's object.
pub fn retry_at(failure: &Failure) -> Timestamp {
    later(failure.at, retry_delay(failure))
}

/// The same in seconds.
pub fn retry_delay(failure: &Failure) -> u32 {
    match failure.reason.as_str() {
        "CreateContainerConfigError" | "FailedMount" | "ErrImageNeverPull" => FIRST,
        _ => FIRST.saturating_mul(1u32.checked_shl(failure.count.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST),
    }
}

fn later(at: Timestamp, seconds: u32) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(at)
}

/// The digest of what a running container depends on: its name and image, as the kubelet's.
pub fn hash(container: &Container) -> String {
    let text = format!("{}\n{}", container.name, container.image.as_deref().unwrap_or_default());
    hex::encode(&Sha256::digest(text.as_bytes())[..4])
}

/// `10s`, `1m20s`, `5m0s`: how Kubernetes prints a wait.
pub fn print(seconds: u32) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
