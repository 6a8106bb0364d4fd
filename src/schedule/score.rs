//! Which node is best: the one with the largest share of cpu and memory left. PURE.

use super::filter::Asked;
use super::table::{CPU, MEMORY, Row};

/// Shares are counted in millionths: kube-scheduler's hundredths make ties of small pods.
const WHOLE: i64 = 1_000_000;

/// Higher is better. Placing a pod never raises a score.
pub fn score(row: &Row, asked: &Asked<'_>) -> i32 {
    let share = |offered: i64, used: i64| {
        if offered <= 0 {
            return 0;
        }
        let left = (offered - used).max(0);
        match left.checked_mul(WHOLE) {
            Some(scaled) => scaled / offered,
            // Above 9 TB: the wide division, which costs ten times as much.
            None => i64::try_from(i128::from(left) * i128::from(WHOLE) / i128::from(offered)).unwrap_or(0),
        }
    };
    let (cpu, memory) = asked.demand.weighed;
    let free = share(row.offered.get(CPU), row.weighed.0.saturating_add(cpu))
        + share(row.offered.get(MEMORY), row.weighed.1.saturating_add(memory));
    let score = free / 2 - i64::try_from(asked.advised_against(row)).unwrap_or(0) * 2 * WHOLE;
    // From 0 to a million, less two for each taint.
    i32::try_from(score).unwrap_or(i32::MIN)
}
