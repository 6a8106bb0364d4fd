//! When a wanted object that is gone is created again, and when not; when one that never comes to rest is written again. PURE.
//!
//! - a Job that has finished and was removed by its `ttlSecondsAfterFinished` runs once for what its
//!   manifest says
//! - an object that somebody else keeps deleting is created again at once, then later and later
//! - so is one written that a webhook makes another of each time

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::identity;
use super::render::Desired;
use crate::model::{InventoryEntry, Key, Timestamp, Typed};
use crate::plan::Reason;

/// Between two turns about one object, before they count as one quarrel.
const QUARREL_SECONDS: i64 = 600;
/// How often an object is written at once of which webhooks make another: a commit, and some hands that were in it.
const REWRITES: u32 = 3;
/// The longest wait before it is written again.
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

/// What a source wrote and did not find so, by key. All of it can be lost.
#[derive(Clone, Debug, Default)]
pub struct Quarrels(BTreeMap<Key, Quarrel>);

#[derive(Clone, Debug)]
struct Quarrel {
    /// What was wanted and what was there, the last time.
    wanted: String,
    found: String,
    times: u32,
    at: Timestamp,
}

impl Quarrel {
    /// So often at once, then after 1, 2, 4 … seconds.
    fn delay(&self, free: u32) -> i64 {
        match self.times.checked_sub(free + 1) {
            None => 0,
            Some(more) => (1_i64 << more.min(16)).min(LONGEST_SECONDS),
        }
    }
}

impl Quarrels {
    /// Counts that the object of this UID is gone, once; until when its successor must wait, and why.
    pub fn deleted(&mut self, key: &Key, uid: &str, now: Timestamp) -> Option<(Timestamp, Reason)> {
        let (until, times) = self.turn((key, "", uid), 1, now)?;
        let message = format!("somebody else has deleted it {times} times in a row; it is created again at {}", seconds(until));
        Some((until, Reason::new("DeletedAgain", message)))
    }

    /// Counts that webhooks make once more of what is wanted something else than what is there; until when it is left as
    /// it is, and why.
    pub fn rewritten(&mut self, key: &Key, wanted: &str, found: &str, now: Timestamp) -> Option<(Timestamp, Reason)> {
        let (until, times) = self.turn((key, wanted, found), REWRITES, now)?;
        let message = format!(
            "a webhook has made something else of it {times} times in a row, each time another; it is written again at {}",
            seconds(until)
        );
        Some((until, Reason::new("RewrittenAgain", message)))
    }

    /// `free`: turns without delay.
    fn turn(&mut self, (key, wanted, found): (&Key, &str, &str), free: u32, now: Timestamp) -> Option<(Timestamp, u32)> {
        if found.is_empty() {
            return None;
        }
        let new = || Quarrel { wanted: wanted.to_owned(), found: String::new(), times: 0, at: now };
        let last = self.0.entry(key.clone()).or_insert_with(new);
        if last.found != found || last.wanted != wanted {
            let is_near = last.at.checked_add((QUARREL_SECONDS + last.delay(free)).seconds()).is_ok_and(|end| now <= end);
            let times = if is_near && last.wanted == wanted { last.times.saturating_add(1) } else { 1 };
            *last = Quarrel { found: found.to_owned(), times, ..new() };
        }
        let until = last.at.checked_add(last.delay(free).seconds()).ok().filter(|until| *until > now)?;
        Some((until, last.times))
    }

    /// The source itself deletes it, or wants it no more.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }
}

fn seconds(until: Timestamp) -> Timestamp {
    Timestamp::from_second(until.as_second()).unwrap_or(until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn what_is_deleted_again_and_again_comes_back_later_and_later() {
        let (mut losses, key) = (Quarrels::default(), Key::new(Kind::Pod, "web", "a"));
        let mut now = Timestamp::UNIX_EPOCH;
        let mut delays = Vec::new();
        for index in 0..12 {
            let uid = format!("u{index}");
            let wait = losses.deleted(&key, &uid, now);
            assert_eq!(losses.deleted(&key, &uid, now), wait, "asked again, it counts nothing");
            let until = wait.map_or(now, |(until, _)| until);
            delays.push(until.duration_since(now).as_secs());
            now = until;
            assert_eq!(losses.deleted(&key, &uid, now), None);
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let later = now.checked_add(901.seconds()).unwrap();
        assert_eq!(losses.deleted(&key, "later", later), None);
        assert!(losses.deleted(&key, "again", later).is_some_and(|(_, reason)| reason.message.contains("2 times")));
        losses.forget(&key);
        assert_eq!(losses.deleted(&key, "new", later), None);
    }
}
