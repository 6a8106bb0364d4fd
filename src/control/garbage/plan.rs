//! Who still has an owner.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::model::{Key, Kind, Object};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Where an owner is stored; `None` for a kind that is not served here and cannot be judged.
pub fn owner_key(object: &Object, owner: &OwnerReference) -> Option<Key> {
    let kind = Kind::of(&owner.api_version, &owner.kind)?;
    let namespace = if kind.info().namespaced { object.key().namespace.clone() } else { String::new() };
    Some(Key::new(kind, namespace, owner.name.clone()))
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
        let Some(key) = owner_key(object, owner) else {
            solid += 1;
            continue;
        };
        match state.get(&key).filter(|found| found.uid() == owner.uid) {
            None => gone.push(owner.uid.as_str()),
            Some(found) if found.is_deleting() && found.has_finalizer(FOREGROUND) => waiting.push(owner.uid.as_str()),
            Some(_) => solid += 1,
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
