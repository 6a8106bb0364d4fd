//! What a definition's status should say, and what still has to go with it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::admit::{Ending, end_definition, settle_definition};
use crate::control::garbage::plan::{Standing, is_collected, standing};
use crate::model::custom::CustomResourceDefinition;
use crate::model::{Kind, Object, Timestamp};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

/// A definition and the objects of its kind.
pub struct Observed<'a> {
    pub state: &'a Snapshot,
    pub object: &'a Object,
    pub content: Vec<Object>,
    /// Objects that are still to go after owners of its kind. Once the kind is gone nobody could tell that their owners are.
    /// Looked for only where all of `content` is gone.
    pub forsaken: usize,
}

/// Whether an object waits to be judged because an owner of this kind is gone.
pub fn is_forsaken(state: &Snapshot, object: &Object, kind: Kind) -> bool {
    let of_kind = |owner: &OwnerReference| state.definitions().of_any_version(&owner.api_version, &owner.kind) == Some(kind);
    let mut owners = object.meta().owner_references.iter().flatten();
    let is_judged = is_collected(object.kind()) && !object.is_deleting();
    is_judged && owners.any(|owner| of_kind(owner) && matches!(standing(state, object, owner), Standing::Gone))
}

pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if !seen.object.is_deleting() {
        let settled = seen.object.edit::<CustomResourceDefinition>(|it| settle_definition(it, seen.state, now));
        let status = |object: &Object| object.get::<CustomResourceDefinition>().and_then(|it| it.status.clone());
        let changed = settled.filter(|after| status(after) != status(seen.object));
        plan.ops.extend(changed.map(|after| Op::UpdateStatus { before: seen.object.clone(), after }));
        return plan;
    }
    if !seen.content.is_empty() {
        let ending = seen.object.edit::<CustomResourceDefinition>(|it| end_definition(it, Ending::Begun, now));
        let changed = ending.filter(|after| after.value() != seen.object.value());
        plan.ops.extend(changed.map(|after| Op::UpdateStatus { before: seen.object.clone(), after }));
    }
    for object in seen.content.iter().filter(|object| !object.is_deleting()) {
        plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
    }
    if !seen.content.is_empty() {
        let left = format!("{} objects of its kind have to go first", seen.content.len());
        plan.wait(seen.object.key(), Reason::new("InstanceDeletionInProgress", left));
    } else if seen.forsaken > 0 {
        let left = format!("{} objects have to go after their owners of its kind", seen.forsaken);
        plan.wait(seen.object.key(), Reason::new("InstanceDeletionInProgress", left));
    } else if seen.object.has_finalizer(CustomResourceDefinition::FINALIZER) {
        let after = seen.object.without_finalizer(CustomResourceDefinition::FINALIZER);
        plan.ops.push(Op::Update { before: seen.object.clone(), after });
    }
    plan
}
