//! What containers have written into their own root file systems: counted now and then, not for each question.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::engine::Inner;
use crate::cri::FilesystemUsage;
use crate::footprint::{Footprint, footprint};

/// As often as the kubelet asks, and containerd counts.
const INTERVAL: Duration = Duration::from_secs(10);
/// A count that takes long is made again no sooner than after so many times as long: a twentieth of a core at the most.
const REST: u32 = 20;
/// A container's writable layer, when it was counted last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    used: Footprint,
    again_at: Instant,
}

pub(super) type Layers = BTreeMap<String, Counted>;

impl Inner {
    /// Counts what has not been counted for a while. Whoever comes while another counts makes do with what is known.
    pub fn count_layers(&self) {
        let Ok(_one_at_a_time) = self.counting.try_lock() else { return };
        let running = self.all_running();
        let due: Vec<_> = {
            let mut known = self.layers();
            known.retain(|id, _| running.iter().any(|record| record.id == *id));
            let now = Instant::now();
            running.into_iter().filter(|record| known.get(&record.id).is_none_or(|counted| counted.again_at <= now)).collect()
        };
        for record in due {
            let start = Instant::now();
            // Gone meanwhile: nobody asks any more.
            let Ok(used) = footprint(&self.dir_of(&record).join("upper"), &mut || ()) else { continue };
            let rest = INTERVAL.max(start.elapsed() * REST);
            self.layers().insert(record.id, Counted { used, again_at: Instant::now() + rest });
        }
    }

    /// As it was counted last.
    pub fn layer(&self, id: &str) -> Option<FilesystemUsage> {
        let used = self.layers().get(id)?.used;
        Some(FilesystemUsage { mount_point: self.options.root_dir.clone(), used_bytes: used.bytes, inodes_used: used.files })
    }
}
