//! When a wanted object that is gone is created again, and when not. PURE.
//!
//! - a Job that has finished and was removed by its `ttlSecondsAfterFinished` runs once for what its
//!   manifest says
//! - an object that somebody else keeps deleting is created again at once, then later and later

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::identity;
use super::render::Desired;
use crate::model::{InventoryEntry, Key, Timestamp, Typed};
use crate::plan::Reason;

/// Between two deletions of one object by somebody else, before they count as one quarrel.
const QUARREL_SECONDS: i64 = 600;
/// The longest wait before it is created again.
const LONGEST_SECONDS: i64 = 300;

/// The digest an entry keeps of what its manifest says: of a Job that goes when it has finished.
pub fn digest(desired: &Desired) -> String {
    match desired.object.typed() {
        Typed::Job(job) if job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished.is_some()) => {
            hex::encode(identity::of_value(&desired.applied))
        }
        _ => String::new(),
    }
}

/// It has run to its end as its manifest says it now.
pub fn has_finished(entry: &InventoryEntry, desired: &Desired) -> bool {
    entry.finished && !entry.digest.is_empty() && entry.digest == digest(desired)
}

/// What a source created and found deleted, by key. All of it can be lost.
#[derive(Clone, Debug, Default)]
pub struct Losses(BTreeMap<Key, Loss>);

#[derive(Clone, Debug)]
struct Loss {
    /// Of the object that was there last.
    uid: String,
    times: u32,
    at: Timestamp,
}

impl Loss {
    /// At once, then after 1, 2, 4 … seconds.
    fn delay(&self) -> i64 {
        match self.times {
            0 | 1 => 0,
            times => (1_i64 << (times - 2).min(16)).min(LONGEST_SECONDS),
        }
    }
}

impl Losses {
    /// Counts that the object of this UID is gone, once; until when its successor must wait, and why.
    pub fn wait(&mut self, key: &Key, uid: &str, now: Timestamp) -> Option<(Timestamp, Reason)> {
        if uid.is_empty() {
            return None;
        }
        let loss = self.0.entry(key.clone()).or_insert_with(|| Loss { uid: String::new(), times: 0, at: now });
        if loss.uid != uid {
            let quarrel = loss.at.checked_add((QUARREL_SECONDS + loss.delay()).seconds()).is_ok_and(|end| now <= end);
            *loss = Loss { uid: uid.to_owned(), times: if quarrel { loss.times.saturating_add(1) } else { 1 }, at: now };
        }
        let until = loss.at.checked_add(loss.delay().seconds()).ok().filter(|until| *until > now)?;
        let seconds = Timestamp::from_second(until.as_second()).unwrap_or(until);
        let message = format!("somebody else has deleted it {} times in a row; it is created again at {seconds}", loss.times);
        Some((until, Reason::new("DeletedAgain", message)))
    }

    /// The source itself deletes it, or wants it no more.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn what_is_deleted_again_and_again_comes_back_later_and_later() {
        let (mut losses, key) = (Losses::default(), Key::new(Kind::Pod, "web", "a"));
        let mut now = Timestamp::UNIX_EPOCH;
        let mut delays = Vec::new();
        for index in 0..12 {
            let uid = format!("u{index}");
            let wait = losses.wait(&key, &uid, now);
            assert_eq!(losses.wait(&key, &uid, now), wait, "asked again, it counts nothing");
            let until = wait.map_or(now, |(until, _)| until);
            delays.push(until.duration_since(now).as_secs());
            now = until;
            assert_eq!(losses.wait(&key, &uid, now), None);
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let later = now.checked_add(901.seconds()).unwrap();
        assert_eq!(losses.wait(&key, "later", later), None);
        assert!(losses.wait(&key, "again", later).is_some_and(|(_, reason)| reason.message.contains("2 times")));
        losses.forget(&key);
        assert_eq!(losses.wait(&key, "new", later), None);
    }
}
