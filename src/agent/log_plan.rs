//! When a container's log becomes an older one, for runtimes that leave that to the kubelet. PURE.

use std::collections::BTreeSet;

/// What the logs of one container may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A log that has reached this much is rotated.
    pub max_bytes: u64,
    /// Together with the one that is written; at least 2.
    pub max_files: u32,
}

impl Default for Limits {
    /// The kubelet's `containerLogMaxSize` and `containerLogMaxFiles`, and our engine's.
    fn default() -> Self {
        Self { max_bytes: 10 << 20, max_files: 5 }
    }
}

/// The log of a running container as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// None: there is no log.
    pub bytes: Option<u64>,
    /// The numbers of older ones: `0.log.1` is the last before `0.log`.
    pub older: BTreeSet<u32>,
}

/// Files by number, of which the log that is written has 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Remove(u32),
    /// To the next number.
    Age(u32),
    /// The runtime writes on into a new file.
    Reopen,
}

/// Decides what is to be done.
pub fn plan(seen: &Seen, limits: Limits) -> Vec<Step> {
    let Some(bytes) = seen.bytes else {
        // Moved away by whoever did not come to the end of it.
        return vec![Step::Reopen];
    };
    let last = limits.max_files.max(2) - 1;
    let is_full = bytes >= limits.max_bytes;
    // A gap ends it: what is older may stay where it is. So where nothing is rotated after all, nothing goes in the next round.
    let run = (1..last).take_while(|number| seen.older.contains(number)).last().unwrap_or(0);
    let too_many = |number: &&u32| **number > last || (**number == last && is_full && run == last - 1);
    let mut steps: Vec<Step> = seen.older.iter().rev().filter(too_many).map(|number| Step::Remove(*number)).collect();
    if is_full {
        steps.extend((0..=run).rev().map(Step::Age));
        steps.push(Step::Reopen);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 100, max_files: 3 };

    fn planned(bytes: Option<u64>, older: &[u32]) -> Vec<Step> {
        plan(&Seen { bytes, older: older.iter().copied().collect() }, LIMITS)
    }

    #[test]
    fn a_log_is_rotated_when_it_is_full() {
        assert_eq!(planned(Some(99), &[1, 2]), []);
        assert_eq!(planned(Some(100), &[]), [Step::Age(0), Step::Reopen]);
        assert_eq!(planned(Some(100), &[1]), [Step::Age(1), Step::Age(0), Step::Reopen]);
        assert_eq!(planned(Some(100), &[1, 2]), [Step::Remove(2), Step::Age(1), Step::Age(0), Step::Reopen]);
    }

    #[test]
    fn what_was_left_half_done_is_finished() {
        assert_eq!(planned(None, &[1]), [Step::Reopen]);
        assert_eq!(planned(Some(100), &[2]), [Step::Age(0), Step::Reopen], "there is room for both");
        assert_eq!(planned(Some(0), &[1, 2, 3, 7]), [Step::Remove(7), Step::Remove(3)], "fewer are wanted now");
    }

    proptest::proptest! {
        /// However it began, rotating again and again leaves no more files than may be, and nothing is written over.
        #[test]
        fn files_are_bounded_and_none_is_lost_early(older in proptest::collection::btree_set(1u32..9, 0..6), max_files in 0u32..6) {
            let limits = Limits { max_bytes: 1, max_files };
            let mut files = older;
            for _ in 0..3 {
                for step in plan(&Seen { bytes: Some(1), older: files.clone() }, limits) {
                    match step {
                        Step::Remove(number) => assert!(files.remove(&number)),
                        Step::Age(number) => {
                            assert!(number == 0 || files.remove(&number));
                            assert!(files.insert(number + 1), "{number} is written over another");
                        }
                        Step::Reopen => {}
                    }
                }
                assert!(files.len() < max_files.max(2) as usize && files.contains(&1), "{files:?}");
            }
        }
    }
}
