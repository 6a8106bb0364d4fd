//! What a plan is known by, and how another differs from it. PURE.
//!
//! - [`id`]: what a person approves
//! - [`keep`]: the plans that wait, and waited, for approval, as the status of their source keeps them: the last few, of each
//!   what happens to which object, without what any object says
//! - [`difference`]: what one of them does and the other does not

use std::collections::BTreeMap;

use super::identity::{self, Sum};
use super::op::SyncOp;
use super::plan::SyncPlan;
use crate::model::{Kind, Source, WaitingPlan};
use crate::store::snapshot::Snapshot;

/// Plans that are kept of a source.
const PLANS: usize = 4;
/// Ops that are kept of a plan.
const OPS: usize = 100;
/// Ops that are named in one message, of each sort.
const NAMED: usize = 10;
/// Between an op and the digest of what it makes of its object.
const DIGEST: &str = " #";

/// Over source, commit and the sorted ops: key, UID and digest of what is replaced or deleted,
/// digest of the result; key and UID of what goes along. Not of what a controller made: pods come and go by themselves.
pub(super) fn id(plan: &SyncPlan, state: &Snapshot) -> String {
    let mut sum = Sum::default();
    sum.add("podbay plan 1").add(&plan.source).add(&plan.revision);
    let mut ops: Vec<&SyncOp> = plan.ops.iter().collect();
    ops.sort_unstable_by(|left, right| (left.key(), left.action).cmp(&(right.key(), right.action)));
    for op in ops {
        sum.add(op.action.mark()).add(op.key().to_string());
        said(op, &mut sum);
        for taken in op.takes.iter().filter_map(|key| state.get(key)).filter(|taken| taken.controller().is_none()) {
            sum.add("takes").add(taken.key().to_string()).add(taken.uid());
        }
    }
    sum.finish()
}

/// What it replaces or deletes, and what it makes.
fn said(op: &SyncOp, sum: &mut Sum) {
    match &op.before {
        Some(before) => sum.add(before.uid()).add(identity::of_object(before)),
        None => sum.add("").add(""),
    };
    sum.add(op.after.as_ref().map(identity::of_object).unwrap_or_default());
}

/// Enough of an id to tell it from others.
pub fn short(id: &str) -> String {
    id.chars().filter(|letter| letter.is_ascii_alphanumeric()).take(12).collect()
}

/// Puts a plan that waits before those that did.
pub(super) fn keep(plans: &mut Vec<WaitingPlan>, plan: &SyncPlan) {
    plans.retain(|other| other.id != plan.id);
    plans.insert(0, noted(plan));
    plans.truncate(PLANS);
}

/// What is kept of a plan. Of a Secret no digest: it would tell whoever guesses right that they do.
pub(super) fn noted(plan: &SyncPlan) -> WaitingPlan {
    let mut ops: Vec<(String, &SyncOp)> = plan.ops.iter().map(|op| (op.key().to_string(), op)).collect();
    ops.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let more = ops.len().saturating_sub(OPS);
    let line = |(_, op): &(String, &SyncOp)| {
        if op.key().kind == Kind::Secret {
            return op.to_string();
        }
        let mut sum = Sum::default();
        said(op, &mut sum);
        format!("{op}{DIGEST}{}", &sum.finish()[..8])
    };
    let ops = ops.iter().take(OPS).map(line).collect();
    WaitingPlan { id: plan.id.clone(), revision: plan.revision.clone(), ops, more }
}

/// The plan of a source that has waited, or does, whose id begins so.
pub fn known<'s>(source: &'s Source, id: &str) -> Option<&'s WaitingPlan> {
    source.status.as_ref()?.waiting_plans.iter().find(|plan| plan.id.starts_with(id))
}

/// How a plan differs from one that was asked for, in a clause.
pub fn difference(asked: Option<&WaitingPlan>, now: Option<&WaitingPlan>) -> String {
    let (Some(asked), Some(now)) = (asked, now) else { return "that plan is not known any more".to_owned() };
    let (before, after) = (by_object(asked), by_object(now));
    // Of the rest nothing is known.
    let ends = [(asked, &before), (now, &after)];
    let end = ends.iter().filter(|(plan, _)| plan.more > 0).filter_map(|(_, ops)| ops.keys().next_back()).min().copied();
    let is_known = |object: &str| end.is_none_or(|end| object <= end);
    let of = |ops: &BTreeMap<&str, (&str, &str)>, is: &dyn Fn(&str, (&str, &str)) -> bool| {
        ops.iter()
            .filter(|(object, op)| is_known(object) && is(object, **op))
            .map(|(object, (mark, _))| format!("{mark} {object}"))
            .collect()
    };
    let mark = |ops: &BTreeMap<&str, (&str, &str)>, object: &str| ops.get(object).map(|(mark, _)| (*mark).to_owned());
    let parts: [(&str, Vec<String>); 3] = [
        ("new in it", of(&after, &|object, (its, _)| mark(&before, object).as_deref() != Some(its))),
        ("no longer in it", of(&before, &|object, (its, _)| mark(&after, object).as_deref() != Some(its))),
        (
            "with another content",
            of(&after, &|object, (its, digest)| before.get(object).is_some_and(|(mark, old)| *mark == its && *old != digest)),
        ),
    ];
    let mut told: Vec<String> =
        parts.iter().filter(|(_, ops)| !ops.is_empty()).map(|(what, ops)| format!("{what}: {}", few(ops))).collect();
    if told.is_empty() {
        let deletes = after.values().any(|(mark, _)| mark.starts_with('-'));
        told.push("it does the same to the same objects".to_owned());
        if deletes {
            told.push("what goes along with those it deletes may be another".to_owned());
        }
        let of_secrets = after.keys().any(|object| object.starts_with("Secret "));
        if of_secrets {
            told.push("what Secrets say is not compared".to_owned());
        }
    }
    if asked.revision != now.revision {
        told.push(format!("it is of revision {}, not {}", revision(&now.revision), revision(&asked.revision)));
    }
    if end.is_some() {
        told.push(format!("of more than {OPS} objects, only the first are compared"));
    }
    told.join("; ")
}

fn revision(id: &str) -> String {
    short(id.strip_prefix("sha256:").unwrap_or(id))
}

/// Mark and digest of each op, by its object.
fn by_object(plan: &WaitingPlan) -> BTreeMap<&str, (&str, &str)> {
    plan.ops.iter().filter_map(|op| parts(op)).collect()
}

/// `~ ConfigMap web/a #01` as `ConfigMap web/a`, `~` and `01`.
fn parts(op: &str) -> Option<(&str, (&str, &str))> {
    let (mark, rest) = op.split_once(' ')?;
    let (object, digest) = rest.split_once(DIGEST).unwrap_or((rest, ""));
    Some((object, (mark, digest)))
}

fn few(ops: &[String]) -> String {
    let named = ops.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match ops.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(revision: &str, ops: &[&str]) -> WaitingPlan {
        let ops = ops.iter().map(|op| (*op).to_owned()).collect();
        WaitingPlan { id: "1".to_owned(), revision: revision.to_owned(), ops, more: 0 }
    }

    #[test]
    fn a_plan_differs_by_what_it_does_to_what() {
        let a = ["- ConfigMap web/a #01", "~ ConfigMap web/b #02", "+ Secret web/s"];
        let rows: [(&[&str], &str, &str); 7] = [
            (
                &a,
                "r1",
                "it does the same to the same objects; what goes along with those it deletes may be another; what Secrets say is not compared",
            ),
            (&a[..2], "r1", "no longer in it: + Secret web/s"),
            (&["- ConfigMap web/a #01", "~ ConfigMap web/b #03", "+ Secret web/s"], "r1", "with another content: ~ ConfigMap web/b"),
            (
                &["~ ConfigMap web/a #04", "~ ConfigMap web/b #02", "+ Secret web/s", "-/+ Job web/j #05"],
                "sha256:0123456789abcdef",
                "new in it: ~ ConfigMap web/a, -/+ Job web/j; no longer in it: - ConfigMap web/a; it is of revision 0123456789ab, not r1",
            ),
            (
                &a,
                "r2",
                "it does the same to the same objects; what goes along with those it deletes may be another; what Secrets say is not compared; it is of revision r2, not r1",
            ),
            (&[], "r1", "no longer in it: - ConfigMap web/a, ~ ConfigMap web/b, + Secret web/s"),
            (&["nonsense", ""], "r1", "no longer in it: - ConfigMap web/a, ~ ConfigMap web/b, + Secret web/s"),
        ];
        for (now, revision, told) in rows {
            assert_eq!(difference(Some(&plan("r1", &a)), Some(&plan(revision, now))), told);
        }
        assert_eq!(difference(None, Some(&plan("r1", &a))), "that plan is not known any more");
    }

    #[test]
    fn what_is_told_of_large_plans_is_bounded() {
        let all: Vec<String> = (0..OPS + 20).map(|index| format!("- ConfigMap web/c{index:03}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let cut = |ops: &[&str], more: usize| WaitingPlan { more, ..plan("r1", ops) };
        // One more at the start of the list pushes another out at its end, of which nothing is known then.
        let (before, after) = (cut(&all[1..=OPS], 19), cut(&all[..OPS], 20));
        let told = difference(Some(&before), Some(&after));
        assert_eq!(told, "new in it: - ConfigMap web/c000; of more than 100 objects, only the first are compared");
        let told = difference(Some(&cut(&[], 0)), Some(&after));
        assert!(told.starts_with("new in it: - ConfigMap web/c000, ") && told.contains("c009 and 90 more; of more"), "{told}");
    }
}
