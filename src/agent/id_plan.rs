//! Which ids of the host are whose, for pods with a user namespace of their own. PURE.
//!
//! As the kubelet's: every pod has 65536 ids, from a multiple of that on. A host that gives the user `kubelet` a range in
//! /etc/subuid and /etc/subgid is taken at its word; else everything from 65536 on is there to be taken, but for what those
//! files give to others.

use std::collections::BTreeSet;

use crate::cri::IdRange;

/// Ids of one pod.
pub const LENGTH: u32 = 65_536;
/// Beyond this the ids of 32 bits with a sign end.
const LAST: u64 = i32::MAX as u64;
const USER: &str = "kubelet";

/// Where pods' ranges may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// First id and number of ids.
    range: (u64, u64),
    /// Ranges of others in it.
    foreign: Vec<(u64, u64)>,
}

/// A host's subordinate ids are nothing to choose from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("the user {USER} has other ranges in /etc/subuid than in /etc/subgid: they have to be the same one")]
    Different,
    #[error("the user {USER} has {0} ranges in /etc/subuid: one is what can be used")]
    Several(usize),
    #[error("the range {0}:{1} of the user {USER} in /etc/subuid is not from a multiple of {LENGTH} on, above 0, or not as long as one")]
    Crooked(u64, u64),
}

/// Lines of subuid(5) or subgid(5): `name:first:count`.
fn lines(text: &str) -> impl Iterator<Item = (&str, (u64, u64))> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        Some((name, (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))
    })
}

/// What the host's files leave to pods.
///
/// # Errors
/// They say something about the user `kubelet` that makes no sense.
pub fn pool(subuid: &str, subgid: &str) -> Result<Pool, PoolError> {
    let of_user = |text| lines(text).filter(|(name, _)| *name == USER).map(|(_, range)| range).collect::<Vec<_>>();
    let (uids, gids) = (of_user(subuid), of_user(subgid));
    if uids != gids {
        return Err(PoolError::Different);
    }
    match uids.as_slice() {
        [] => {
            let foreign = lines(subuid).chain(lines(subgid)).map(|(_, range)| range).collect();
            Ok(Pool { range: (u64::from(LENGTH), LAST - u64::from(LENGTH)), foreign })
        }
        [(first, count)] if *first > 0 && first % u64::from(LENGTH) == 0 && *count >= u64::from(LENGTH) => {
            Ok(Pool { range: (*first, *count), foreign: Vec::new() })
        }
        [(first, count)] => Err(PoolError::Crooked(*first, *count)),
        several => Err(PoolError::Several(several.len())),
    }
}

impl Pool {
    /// The first range that nobody has.
    pub fn free(&self, taken: &BTreeSet<u32>) -> Option<IdRange> {
        let length = u64::from(LENGTH);
        let (first, count) = self.range;
        let overlaps = |at: u64| self.foreign.iter().any(|(other, count)| at < other.saturating_add(*count) && *other < at + length);
        let starts = (0..count / length).map(|index| first + index * length).take_while(|at| at + length - 1 <= LAST);
        let mut free = starts.filter(|at| !overlaps(*at)).filter_map(|at| u32::try_from(at).ok()).filter(|at| !taken.contains(at));
        free.next().map(|host| IdRange { host, length: LENGTH })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(pool: &Pool, taken: &[u32]) -> Option<u32> {
        pool.free(&taken.iter().copied().collect()).map(|range| range.host)
    }

    #[test]
    fn every_pod_has_a_range_that_nobody_has() {
        let pool = pool("", "").unwrap();
        assert_eq!(starts(&pool, &[]), Some(65_536));
        assert_eq!(starts(&pool, &[65_536, 131_072, 262_144]), Some(196_608));
        let mut taken = BTreeSet::new();
        while let Some(range) = pool.free(&taken) {
            assert!(range.host >= LENGTH && range.host % LENGTH == 0 && range.host.checked_add(LENGTH).is_some());
            assert!(taken.insert(range.host), "{range:?} twice");
            if taken.len() > 100 {
                return;
            }
        }
        panic!("a hundred pods have room");
    }

    #[test]
    fn what_the_host_gave_to_others_is_theirs() {
        let file = "# rootless\nann:100000:65536\nbroken\nbob:x:1\ncarl:231072:1\n";
        assert_eq!(starts(&pool(file, "").unwrap(), &[]), Some(262_144));
        assert_eq!(starts(&pool("", file).unwrap(), &[]), Some(262_144));
    }

    #[test]
    fn a_range_of_the_kubelets_is_the_one_that_is_used() {
        let own = "ann:100000:65536\nkubelet:131072:131072\n";
        let two = pool(own, own).unwrap();
        assert_eq!((starts(&two, &[]), starts(&two, &[131_072])), (Some(131_072), Some(196_608)));
        assert_eq!(starts(&two, &[131_072, 196_608]), None, "no more than that");
        assert_eq!(pool(own, ""), Err(PoolError::Different));
        for (line, error) in [
            ("kubelet:100000:65536", PoolError::Crooked(100_000, 65_536)),
            ("kubelet:0:65536", PoolError::Crooked(0, 65_536)),
            ("kubelet:65536:1000", PoolError::Crooked(65_536, 1000)),
            ("kubelet:65536:65536\nkubelet:262144:65536", PoolError::Several(2)),
        ] {
            assert_eq!(pool(line, line), Err(error));
        }
        let beyond = "kubelet:4294901760:131072";
        assert_eq!(starts(&pool(beyond, beyond).unwrap(), &[]), None);
    }
}
