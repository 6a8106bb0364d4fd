//! How far each set may grow or shrink: surge, unavailability, proportional scaling. PURE.

use k8s_openapi::api::apps::v1::RollingUpdateDeployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{MAX, Rollout, Set};

fn settings<'a>(rollout: &'a Rollout<'_>) -> Option<&'a RollingUpdateDeployment> {
    let strategy = rollout.spec.strategy.as_ref();
    if strategy.and_then(|it| it.type_.as_deref()) == Some("Recreate") {
        return None;
    }
    strategy.and_then(|it| it.rolling_update.as_ref())
}

fn is_rolling(rollout: &Rollout<'_>) -> bool {
    rollout.spec.strategy.as_ref().and_then(|it| it.type_.as_deref()) != Some("Recreate")
}

/// A count or a percentage of the replicas.
pub fn resolve(value: Option<&IntOrString>, replicas: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return (*count).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok()).unwrap_or(0),
        None => 25,
    };
    let product = i64::from(replicas).saturating_mul(percent.max(0));
    let count = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// (surge, unavailable): never both zero, for then nothing could move.
fn fences(rollout: &Rollout<'_>) -> (i32, i32) {
    if !is_rolling(rollout) {
        return (0, 0);
    }
    let settings = settings(rollout);
    let replicas = rollout.replicas();
    let surge = resolve(settings.and_then(|it| it.max_surge.as_ref()), replicas, true);
    let unavailable = resolve(settings.and_then(|it| it.max_unavailable.as_ref()), replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Pods beyond the wanted number that may exist during a rollout.
pub fn max_surge(rollout: &Rollout<'_>) -> i32 {
    fences(rollout).0
}

/// Pods of the wanted number that may be unavailable during a rollout.
pub fn max_unavailable(rollout: &Rollout<'_>) -> i32 {
    fences(rollout).1.min(rollout.replicas())
}

/// The replicas of all sets. All sums of replicas saturate: any one may be the largest number.
pub fn total(rollout: &Rollout<'_>) -> i32 {
    rollout.sets.iter().map(Set::replicas).fold(0, i32::saturating_add)
}

/// How large the newest set may be now.
pub fn new_set_size(rollout: &Rollout<'_>, at: usize) -> i32 {
    let (replicas, own) = (rollout.replicas(), rollout.sets[at].replicas());
    if own >= replicas {
        return replicas;
    }
    let room = replicas.saturating_add(max_surge(rollout)).saturating_sub(total(rollout));
    own + room.clamp(0, replicas - own)
}

/// One step: grow the newest set as far as the surge allows, else shrink the old ones as far as
/// availability allows.
pub fn roll(rollout: &mut Rollout<'_>) {
    let Some(at) = rollout.newest else { return };
    let created_now = rollout.sets[at].before.is_none();
    let size = new_set_size(rollout, at);
    if size != rollout.sets[at].replicas() {
        rollout.sets[at].scale(size);
        return;
    }
    if !created_now {
        shrink_old(rollout, at);
    }
}

fn shrink_old(rollout: &mut Rollout<'_>, newest: usize) {
    let old = rollout.old();
    if old.iter().all(|at| rollout.sets[*at].replicas() == 0) {
        return;
    }
    let least = rollout.replicas() - max_unavailable(rollout);
    let new_unavailable = rollout.sets[newest].replicas() - rollout.sets[newest].available();
    let mut may_go = total(rollout).saturating_sub(least).saturating_sub(new_unavailable);
    // Pods that serve nobody go first, whatever their age.
    for at in &old {
        let set = &mut rollout.sets[*at];
        let idle = (set.replicas() - set.available()).clamp(0, may_go.max(0));
        may_go -= idle;
        set.scale(set.replicas() - idle);
    }
    let available = rollout.sets.iter().map(Set::available).fold(0, i32::saturating_add);
    let mut may_go = may_go.min(available - least);
    for at in &old {
        let set = &mut rollout.sets[*at];
        let going = set.replicas().clamp(0, may_go.max(0));
        may_go -= going;
        set.scale(set.replicas() - going);
    }
}

/// Sizes all sets for a changed number of replicas: one active set gets all; during a rollout each
/// gets its share, so that a bad new template does not take the whole scale-up.
pub fn proportional(rollout: &mut Rollout<'_>) {
    let replicas = rollout.replicas();
    let active: Vec<usize> = (0..rollout.sets.len()).filter(|at| rollout.sets[*at].replicas() > 0).collect();
    let only = match active.as_slice() {
        [] => rollout.newest.or_else(|| rollout.sets.len().checked_sub(1)),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(at) = only {
        rollout.sets[at].scale(replicas);
        return;
    }
    if rollout.new_set().is_some_and(|set| set.replicas() == replicas && set.pods.available == replicas) {
        for at in rollout.old() {
            rollout.sets[at].scale(0);
        }
        return;
    }
    if is_rolling(rollout) {
        share(rollout, active);
    }
}

fn share(rollout: &mut Rollout<'_>, mut active: Vec<usize>) {
    let replicas = rollout.replicas();
    let allowed = if replicas > 0 { replicas.saturating_add(max_surge(rollout)) } else { 0 };
    let to_add = allowed.saturating_sub(total(rollout));
    let reported = rollout.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    // Largest first; growing favours the newer of equals, shrinking the older.
    active.sort_unstable_by_key(|at| {
        let age = *at as i64;
        (-rollout.sets[*at].replicas(), if to_add > 0 { -age } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for at in &active {
        let set = &rollout.sets[*at];
        let left = to_add.saturating_sub(added);
        let fraction = fraction(set, replicas, allowed, reported);
        let part = if to_add > 0 { fraction.clamp(0, left.max(0)) } else { fraction.clamp(left.min(0), 0) };
        added = i32::saturating_add(added, part);
        sizes.push(set.replicas().saturating_add(part));
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = largest.saturating_add(to_add.saturating_sub(added));
    }
    for (at, size) in active.into_iter().zip(sizes) {
        rollout.sets[at].scale(size.max(0));
    }
}

/// How much a set's fair share of the new total differs from its size.
fn fraction(set: &Set<'_>, replicas: i32, allowed: i32, reported: i32) -> i32 {
    let size = i64::from(set.replicas());
    if replicas == 0 {
        return -set.replicas();
    }
    let base = set.annotation(MAX).and_then(|text| text.parse::<i64>().ok()).filter(|max| *max > 0).unwrap_or(i64::from(reported));
    if base <= 0 {
        return 0;
    }
    let wanted = size * i64::from(allowed);
    let rounded = (2 * wanted + base) / (2 * base);
    i32::try_from(rounded - size).unwrap_or(0)
}
