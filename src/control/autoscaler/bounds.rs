//! What the bounds of autoscalers alone make of their targets, for previews. PURE.
//!
//! `minReplicas` and `maxReplicas` are no load: what they call for is known beforehand. Where a server runs, its
//! autoscalers hold them with all else.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::{observe, plan};
use crate::model::{Key, Kind, Object, Timestamp, scale};
use crate::plan::{Controller, Op, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Bounds;

impl Controller for Bounds {
    fn name(&self) -> &'static str {
        "autoscaler-bounds"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        let is_one = object.kind() == Kind::HorizontalPodAutoscaler;
        let all = state.list_in(Kind::HorizontalPodAutoscaler, &object.key().namespace);
        all.filter(|it| is_one || names(it, object)).map(|it| it.key().clone()).collect()
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let op = state.get(key).and_then(|object| bounded(state, object, now));
        Plan { ops: op.into_iter().collect(), ..Plan::default() }
    }
}

/// Whether it may be what an autoscaler scales. Whether it has a scale is a matter of the version that the autoscaler names.
fn names(autoscaler: &Object, object: &Object) -> bool {
    let reference = autoscaler.get::<HorizontalPodAutoscaler>().map(|it| &it.spec.scale_target_ref);
    reference.is_some_and(|it| it.name == object.key().name && it.kind == object.kind().name())
}

/// Brings a target within the bounds, where nobody else says its size: with two who do it would swing between them.
fn bounded(state: &Snapshot, object: &Object, now: Timestamp) -> Option<Op> {
    let it = object.get::<HorizontalPodAutoscaler>().filter(|_| !object.is_deleting())?;
    let (kind, target, size) = observe::scaled(state, object).ok()?;
    let is_owned = target.meta().owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
    if target.is_deleting() || is_owned || observe::said_by(state, kind, &target).is_some() {
        return None;
    }
    let scales_it = |other: &Object| observe::scaled(state, other).is_ok_and(|(_, its, _)| its.key() == target.key());
    let others = state.list_in(Kind::HorizontalPodAutoscaler, &object.key().namespace).filter(|other| other.key() != object.key());
    let current = i32::try_from(size.wanted?).ok()?;
    let replicas = plan::bound(&it.spec, current).filter(|replicas| *replicas != current)?;
    if others.into_iter().any(scales_it) {
        return None;
    }
    let after = scale::write(kind, &target, replicas, state.definitions())?;
    let after = plan::owned(&target, after, state, now);
    Some(Op::Update { before: target, after })
}
