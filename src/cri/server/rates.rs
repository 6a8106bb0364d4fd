//! How much of the CPU somebody uses, from two looks at how much he has used: `usage_nano_cores` of CRI, as containerd and
//! the kubelet's cAdvisor have it. PURE.

use std::collections::BTreeMap;

const SECOND_NANOS: i64 = 1_000_000_000;
/// Looks that are closer to each other tell more of the clock than of him.
const LEAST_NANOS: i64 = SECOND_NANOS;
/// Whoever is not asked about for so long has gone, or what he did then is no use any more.
const MOST_NANOS: i64 = 600 * SECOND_NANOS;

#[derive(Debug, Clone, Copy)]
struct Look {
    at: i64,
    used: u64,
    rate: Option<u64>,
}

/// The last look at each container and pod.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<String, Look>);

impl Rates {
    /// At `at` (nanoseconds) he has used so many: billionths of a CPU since the look before; none at the first.
    pub fn look(&mut self, id: &str, at: i64, used: u64) -> Option<u64> {
        // Of two who ask at once, the later may come in first: only a clock that was set back makes more of it.
        self.0.retain(|_, look| (-LEAST_NANOS..MOST_NANOS).contains(&at.saturating_sub(look.at)));
        let Some(last) = self.0.get_mut(id) else {
            self.0.insert(id.to_owned(), Look { at, used, rate: None });
            return None;
        };
        let passed = at - last.at;
        if passed >= LEAST_NANOS {
            // Who was started anew has used less.
            let more = u128::from(used.saturating_sub(last.used)) * SECOND_NANOS.unsigned_abs() as u128;
            let rate = u64::try_from(more / passed.unsigned_abs() as u128).unwrap_or(u64::MAX);
            *last = Look { at, used, rate: Some(rate) };
        }
        last.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_takes_two_looks_and_a_while_between() {
        let mut rates = Rates::default();
        let mut look = |id: &str, tenths: i64, used_millis: u64| rates.look(id, tenths * SECOND_NANOS / 10, used_millis * 1_000_000);
        assert_eq!(look("a", 100, 5000), None);
        assert_eq!(look("a", 101, 5100), None, "too soon");
        assert_eq!(look("b", 102, 0), None, "another");
        assert_eq!(look("a", 120, 6000), Some(500_000_000));
        assert_eq!(look("a", 121, 9000), Some(500_000_000), "too soon: what was known");
        assert_eq!(look("a", 119, 6000), Some(500_000_000), "who asked a moment earlier comes in later");
        assert_eq!(look("b", 120, 900), Some(500_000_000), "and what is known of others stays");
        assert_eq!(look("a", 140, 6000), Some(0));
        assert_eq!(look("a", 150, 10), Some(0), "it began anew");
        assert_eq!(look("a", 160, 3010), Some(3_000_000_000), "on three CPUs");
        assert_eq!(look("a", 100, 3010), None, "the clock was set back");
        assert_eq!(look("a", 100 + 6001, 3010), None, "long ago");
    }

    #[test]
    fn who_has_gone_is_forgotten() {
        let mut rates = Rates::default();
        for number in 0..100 {
            rates.look(&format!("c{number}"), 1, 1);
        }
        rates.look("new", MOST_NANOS + 2, 1);
        assert_eq!(rates.0.len(), 1);
    }
}
