//! How long a pod that the server no longer has keeps others from starting. PURE.

use std::time::Duration;

use crate::model::Timestamp;

/// Of one pod, for the life of its worker.
#[derive(Debug, Default)]
pub struct Lost {
    /// When this process first heard of it.
    since: Option<Timestamp>,
    told: bool,
}

impl Lost {
    /// Whether others wait for its end: `longest` beyond its grace, and no longer. To be asked from the moment on at which it
    /// is known to be lost.
    pub fn holds_others(&mut self, grace_seconds: i64, longest: Duration, now: Timestamp) -> bool {
        let since = *self.since.get_or_insert(now);
        let longest = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
        now.duration_since(since).as_secs() <= grace_seconds.max(0).saturating_add(longest)
    }

    /// Whether nobody was told yet that it does not stop; now somebody is.
    pub fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_wait_for_a_while_from_the_first_word_on() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (grace, after, holds) in
            [(30, 0, true), (30, 90, true), (30, 91, false), (0, 60, true), (0, 61, false), (-5, 61, false), (i64::MAX, 9999, true)]
        {
            let mut lost = Lost::default();
            assert!(lost.holds_others(grace, Duration::from_secs(60), at(1000)));
            assert_eq!(lost.holds_others(grace, Duration::from_secs(60), at(1000 + after)), holds, "grace {grace}, after {after} s");
        }
    }
}
