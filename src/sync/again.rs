//! When a wanted object that is gone is created again, and when not; when one that never comes to rest is written again. PURE.
//!
//! - a Job that has finished and was removed by its `ttlSecondsAfterFinished` runs once for what its
//!   manifest says
//! - an object that somebody else keeps deleting is created again at once, then later and later
//! - so is one put back that somebody else, or a webhook, makes another of each time

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::identity::{self, Digest};
use super::render::Desired;
use crate::model::{InventoryEntry, Key, Timestamp, Typed};
use crate::plan::{Reason, Wait};

/// Between two turns about one object, before they count as one quarrel.
const QUARREL_SECONDS: i64 = 600;
/// How often an object is put back at once: a commit, and some hands that were in it.
const PUT_BACK: u32 = 3;
/// How often one that was deleted is created at once.
const CREATED: u32 = 1;
/// Reason of the wait for an object that somebody else changes again and again.
pub const CHANGED_AGAIN: &str = "ChangedAgain";
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

/// Whether somebody else changes an object again and again.
pub fn is_changed(wait: &Wait) -> bool {
    wait.reason.code == CHANGED_AGAIN
}

/// What a source wrote and did not find so, by key. All of it can be lost.
#[derive(Clone, Debug, Default)]
pub struct Quarrels(BTreeMap<Key, Quarrel>);

#[derive(Clone, Debug)]
struct Quarrel {
    /// What was wanted the last time.
    wanted: Digest,
    /// The UID of what was gone the last time.
    gone: String,
    times: u32,
    /// Turns without delay.
    free: u32,
    at: Timestamp,
}

impl Quarrel {
    /// When the next turn may be: so often at once, then after 1, 2, 4 … seconds.
    fn next(&self) -> Timestamp {
        let delay = self.times.checked_sub(self.free).map_or(0, |more| (1_i64 << more.min(16)).min(LONGEST_SECONDS));
        self.at.checked_add(delay.seconds()).unwrap_or(self.at)
    }

    fn is_near(&self, now: Timestamp) -> bool {
        self.next().checked_add(QUARREL_SECONDS.seconds()).is_ok_and(|end| now <= end)
    }
}

/// An object that is put back again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fight {
    pub key: Key,
    /// How often in a row.
    pub times: u32,
    /// When it is over unless it is put back once more.
    pub until: Timestamp,
}

/// A turn that is not yet: when it is, and the how manieth in a row.
pub type Turn = (Timestamp, u32);

impl Quarrels {
    /// The object of this UID is gone: counts that it is created again, once; or when it will be, and why.
    pub fn deleted(&mut self, key: &Key, uid: &str, now: Timestamp) -> Option<(Timestamp, Reason)> {
        let wanted = Digest::default();
        if uid.is_empty() || self.0.get(key).is_some_and(|last| last.gone == uid) {
            return None;
        }
        let Some((until, times)) = self.waits(key, &wanted, now) else {
            self.count(key, Quarrel { wanted, gone: uid.to_owned(), times: 1, free: CREATED, at: now });
            return None;
        };
        let message = format!("somebody else has deleted it {times} times in a row; it is created again at {}", seconds(until));
        Some((until, Reason::new("DeletedAgain", message)))
    }

    /// The turn for which an object that is not as wanted has to wait.
    pub fn waits(&self, key: &Key, wanted: &Digest, now: Timestamp) -> Option<Turn> {
        let last = self.0.get(key).filter(|last| last.wanted == *wanted)?;
        Some((last.next(), last.times.saturating_add(1))).filter(|(until, _)| *until > now)
    }

    /// Counts that an object was put back.
    pub fn put_back(&mut self, key: &Key, wanted: Digest, now: Timestamp) {
        self.count(key, Quarrel { wanted, gone: String::new(), times: 1, free: PUT_BACK, at: now });
    }

    /// Whose turns count still, also while the object is as it is wanted: the next change may come any time.
    pub fn fights(&self, wanted: impl Fn(&Key) -> Option<Digest>, now: Timestamp) -> Vec<Fight> {
        let fought = self.0.iter().filter(|(key, last)| last.times > last.free && wanted(key) == Some(last.wanted));
        let all = fought.map(|(key, last)| {
            let until = last.at.checked_add(QUARREL_SECONDS.seconds()).unwrap_or(last.at);
            Fight { key: key.clone(), times: last.times, until }
        });
        all.filter(|fight| now < fight.until).collect()
    }

    fn count(&mut self, key: &Key, next: Quarrel) {
        let before = self.0.get(key).filter(|last| last.wanted == next.wanted && last.is_near(next.at)).map_or(0, |last| last.times);
        self.0.insert(key.clone(), Quarrel { times: before.saturating_add(1), ..next });
    }

    /// The source itself deletes it, or wants it no more.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Of those that have stayed quiet nothing is kept.
    pub fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|_, last| last.is_near(now));
    }
}

/// Why an object is left as webhooks made it.
pub fn rewritten((until, times): Turn) -> Reason {
    let message = format!(
        "a webhook has made something else of it {times} times in a row, each time another; it is written again at {}",
        seconds(until)
    );
    Reason::new("RewrittenAgain", message)
}

/// Why an object is left as somebody else made it. `who`: `"kubectl" has changed spec.replicas`.
pub fn changed((until, times): Turn, who: &str) -> Reason {
    Reason::new(CHANGED_AGAIN, format!("{who} {times} times in a row; it is put back at {}", seconds(until)))
}

pub(super) fn seconds(until: Timestamp) -> Timestamp {
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

    #[test]
    fn what_is_put_back_again_and_again_is_so_later_and_later() {
        let (mut changes, key) = (Quarrels::default(), Key::new(Kind::Pod, "web", "a"));
        let (mut now, mut delays) = (Timestamp::UNIX_EPOCH, Vec::new());
        for _ in 0..14 {
            let wait = changes.waits(&key, &[1; 32], now);
            assert_eq!(changes.waits(&key, &[1; 32], now), wait, "asked again, it counts nothing");
            assert_eq!(changes.waits(&key, &[2; 32], now), None, "what is wanted anew is another matter");
            let until = wait.map_or(now, |(until, _)| until);
            delays.push(until.duration_since(now).as_secs());
            now = until;
            changes.put_back(&key, [1; 32], now);
        }
        assert_eq!(delays, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        changes.forget_old(now.checked_add(900.seconds()).unwrap());
        assert_eq!(changes.waits(&key, &[1; 32], now).map(|(_, times)| times), Some(15));
        changes.forget_old(now.checked_add(901.seconds()).unwrap());
        assert!(changes.0.is_empty());
    }
}
