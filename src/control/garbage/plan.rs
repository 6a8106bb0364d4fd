//! Who still has an owner.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::model::Object;
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What an owner is to its dependent.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'s> {
    /// There, or of a kind that is not served here and cannot be judged.
    Solid,
    /// There until it is finished.
    Deleting(&'s Object),
    /// Deleted in the foreground: its dependents go first.
    Waiting(&'s Object),
    Gone,
}

pub fn standing<'s>(state: &'s Snapshot, object: &Object, owner: &OwnerReference) -> Standing<'s> {
    let Some(kind) = state.definitions().of_any_version(&owner.api_version, &owner.kind) else { return Standing::Solid };
    let namespace = if kind.info().namespaced { object.key().namespace.as_str() } else { "" };
    match state.find(kind, namespace, &owner.name).filter(|found| found.uid() == owner.uid) {
        None => Standing::Gone,
        Some(found) if !found.is_deleting() => Standing::Solid,
        Some(found) if found.has_finalizer(FOREGROUND) => Standing::Waiting(found),
        Some(found) => Standing::Deleting(found),
    }
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
        let freed = state.owned_by(object.uid()).map(|dependent| without_owners(dependent, &[object.uid()]));
        plan.ops.extend(freed);
        plan.ops.push(without_finalizer(object, ORPHAN));
        return;
    }
    if object.has_finalizer(FOREGROUND) {
        let blocks = |dependent: &&Object| {
            let owners = dependent.meta().owner_references.iter().flatten();
            owners.into_iter().any(|owner| owner.uid == object.uid() && owner.block_owner_deletion == Some(true))
        };
        let blocking = state.owned_by(object.uid()).filter(blocks).count();
        if blocking == 0 {
            plan.ops.push(without_finalizer(object, FOREGROUND));
        } else {
            plan.wait(object.key(), Reason::new("ForegroundDeletion", format!("{blocking} dependents have to go first")));
        }
    }
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
