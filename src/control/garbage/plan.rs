//! Who still has an owner.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::model::custom::CustomResourceDefinition;
use crate::model::{Kind, Object};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What an owner is to its dependent.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'s> {
    /// There, or of a kind that is not served here, or in no namespace that could be told: it cannot be judged.
    Solid,
    /// There until it is finished.
    Deleting(&'s Object),
    /// Deleted in the foreground: its dependents go first.
    Waiting(&'s Object),
    Gone,
}

pub fn standing<'s>(state: &'s Snapshot, object: &Object, owner: &OwnerReference) -> Standing<'s> {
    let Some(kind) = state.definitions().of_any_version(&owner.api_version, &owner.kind) else { return Standing::Solid };
    // One without a namespace cannot say in which its owner is. Kubernetes does not collect it either (its documentation, "Owners and
    // Dependents", on cluster-scoped dependents, since 1.20).
    if kind.info().namespaced && object.key().namespace.is_empty() {
        return Standing::Solid;
    }
    let namespace = if kind.info().namespaced { object.key().namespace.as_str() } else { "" };
    match state.find(kind, namespace, &owner.name).filter(|found| found.uid() == owner.uid) {
        None => Standing::Gone,
        Some(found) if !found.is_deleting() => Standing::Solid,
        Some(found) if found.has_finalizer(FOREGROUND) => Standing::Waiting(found),
        Some(found) => Standing::Deleting(found),
    }
}

/// Whether objects of this kind are judged when they change: not those that come and change all the time.
pub fn is_collected(kind: Kind) -> bool {
    !matches!(kind, Kind::Event | Kind::Lease)
}

/// Whether an object says that it has an owner of the kind that is defined.
pub fn has_owner_of(object: &Object, definition: &CustomResourceDefinition) -> bool {
    let (group, kind) = (&definition.spec.group, &definition.names().kind);
    let is_of = |owner: &OwnerReference| owner.kind == *kind && owner.api_version.split_once('/').is_some_and(|(it, _)| it == group);
    object.meta().owner_references.iter().flatten().any(is_of)
}

pub fn plan(state: &Snapshot, object: &Object) -> Plan {
    let mut plan = Plan::default();
    if object.is_deleting() {
        finish_deletion(state, object, &mut plan);
    } else {
        judge(state, object, &mut plan);
    }
    plan
}

fn without_finalizer(object: &Object, finalizer: &str) -> Op {
    Op::Update { before: object.clone(), after: object.without_finalizer(finalizer) }
}

fn without_owners(object: &Object, gone: &[&str]) -> Op {
    let after = object.clone().edit_meta(|meta| {
        if let Some(owners) = &mut meta.owner_references {
            owners.retain(|owner| !gone.contains(&owner.uid.as_str()));
        }
        meta.owner_references = meta.owner_references.take().filter(|owners| !owners.is_empty());
    });
    Op::Update { before: object.clone(), after }
}

fn finish_deletion(state: &Snapshot, object: &Object, plan: &mut Plan) {
    if object.has_finalizer(ORPHAN) {
        // One that owns itself goes, whatever it says.
        let others = state.owned_by(object.uid()).filter(|dependent| dependent.key() != object.key());
        let freed = others.map(|dependent| without_owners(dependent, &[object.uid()]));
        plan.ops.extend(freed);
        plan.ops.push(without_finalizer(object, ORPHAN));
        return;
    }
    if object.has_finalizer(FOREGROUND) {
        let blocking = blocking(state, object).filter(|dependent| !waits_for(state, dependent, object)).count();
        if blocking == 0 {
            plan.ops.push(without_finalizer(object, FOREGROUND));
        } else {
            plan.wait(object.key(), Reason::new("ForegroundDeletion", format!("{blocking} dependents have to go first")));
        }
    }
}

/// The dependents without which an object that is deleted in the foreground does not go.
fn blocking<'s>(state: &'s Snapshot, object: &Object) -> impl Iterator<Item = &'s Object> {
    let uid = object.uid().to_owned();
    state.owned_by(object.uid()).filter(move |dependent| {
        // Who has its UID but names another, or is in another namespace, is not its dependent: that one's owner is gone.
        let is_its =
            |owner: &OwnerReference| matches!(standing(state, dependent, owner), Standing::Waiting(found) if found.uid() == uid.as_str());
        let mut owners = dependent.meta().owner_references.iter().flatten();
        owners.any(|owner| owner.block_owner_deletion == Some(true) && is_its(owner))
    })
}

/// Whether a dependent in its turn goes only after `object`: those who own each other in a circle would wait for ever.
fn waits_for(state: &Snapshot, dependent: &Object, object: &Object) -> bool {
    let (mut known, mut next) = (BTreeSet::new(), vec![dependent]);
    while let Some(it) = next.pop() {
        if it.uid() == object.uid() {
            return true;
        }
        if it.is_deleting() && it.has_finalizer(FOREGROUND) && known.insert(it.uid()) {
            next.extend(blocking(state, it));
        }
    }
    false
}

fn judge(state: &Snapshot, object: &Object, plan: &mut Plan) {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    let (mut gone, mut waiting, mut solid) = (Vec::new(), Vec::new(), 0);
    for owner in owners {
        match standing(state, object, owner) {
            Standing::Gone => gone.push(owner.uid.as_str()),
            Standing::Waiting(_) => waiting.push(owner.uid.as_str()),
            Standing::Solid | Standing::Deleting(_) => solid += 1,
        }
    }
    if gone.is_empty() && waiting.is_empty() {
        return;
    }
    if solid > 0 {
        gone.extend(waiting);
        plan.ops.push(without_owners(object, &gone));
        return;
    }
    let has_dependents = state.owned_by(object.uid()).next().is_some();
    if !waiting.is_empty() && has_dependents && !object.has_finalizer(FOREGROUND) {
        // Its own dependents go first as well.
        let after = object.clone().edit_meta(|meta| meta.finalizers.get_or_insert_with(Vec::new).push(FOREGROUND.to_owned()));
        plan.ops.push(Op::Update { before: object.clone(), after });
        return;
    }
    plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_has_no_namespace_is_not_judged_by_an_owner_in_one() {
        let state = Snapshot::default();
        let owned = |kind: Kind, metadata: &serde_json::Value| Object::from_value(kind, json!({"metadata": metadata})).unwrap();
        let owners = |kind: &str| json!([{"apiVersion": "v1", "kind": kind, "name": "gone", "uid": "1"}]);
        for (object, goes) in [
            (owned(Kind::ClusterRole, &json!({"name": "a", "ownerReferences": owners("ConfigMap")})), false),
            (owned(Kind::ClusterRole, &json!({"name": "a", "ownerReferences": owners("Namespace")})), true),
            (owned(Kind::ConfigMap, &json!({"name": "a", "namespace": "web", "ownerReferences": owners("ConfigMap")})), true),
        ] {
            assert_eq!(!plan(&state, &object).ops.is_empty(), goes, "{:?}", object.meta().owner_references);
        }
    }
}
