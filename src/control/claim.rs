//! Whose object is it: adoption of orphans a selector matches, release of what it no longer does. PURE.

use crate::control::naming::owner_reference;
use crate::model::selector::{Selector, Test};
use crate::model::{Key, Kind, Object};
use crate::plan::{Op, Plan};
use crate::store::snapshot::Snapshot;

/// The objects of a kind an owner controls, and those it could adopt.
#[derive(Clone, Debug, Default)]
pub struct Claims<'a> {
    /// Controlled by the owner's UID.
    pub owned: Vec<&'a Object>,
    /// Matched by the selector and controlled by nobody.
    pub orphans: Vec<&'a Object>,
}

/// Objects without a controller that are looked at one by one.
const FEW: usize = 32;

/// Reads the claims of an owner.
pub fn claims<'a>(state: &'a Snapshot, owner: &'a Object, kind: Kind, selector: &Selector) -> Claims<'a> {
    let owned = owned(state, owner, kind).collect();
    Claims { owned, orphans: orphans(state, kind, &owner.key().namespace, selector) }
}

/// The objects of a kind an owner controls.
pub fn owned<'a>(state: &'a Snapshot, owner: &'a Object, kind: Kind) -> impl Iterator<Item = &'a Object> {
    let uid = owner.uid();
    let found = (!uid.is_empty()).then(|| state.owned_by(uid));
    found
        .into_iter()
        .flatten()
        .filter(move |object| object.kind() == kind && object.controller().is_some_and(|controller| controller.uid == uid))
}

fn orphans<'a>(state: &'a Snapshot, kind: Kind, namespace: &str, selector: &Selector) -> Vec<&'a Object> {
    // Most have a controller: seldom are there more than a few to look at.
    let mut found: Vec<&Object> = state.uncontrolled_in(kind, namespace).take(FEW).collect();
    if found.len() == FEW {
        found = matching(state, kind, namespace, selector);
    }
    let is_orphan = |object: &&Object| object.controller().is_none() && !object.is_deleting() && selector.matches(object.labels());
    found.into_iter().filter(is_orphan).collect()
}

/// The objects of a kind in a namespace that a selector matches, found by its rarest label.
pub fn matching<'a>(state: &'a Snapshot, kind: Kind, namespace: &str, selector: &Selector) -> Vec<&'a Object> {
    let labels: Vec<String> = selector
        .requirements()
        .iter()
        .filter_map(|requirement| match &requirement.test {
            Test::In(values) if values.len() == 1 => Some(format!("{}={}", requirement.key, values.first()?)),
            _ => None,
        })
        .collect();
    if labels.is_empty() {
        return state.list_in(kind, namespace).filter(|object| selector.matches(object.labels())).collect();
    }
    // All indexes side by side: the first to end is the shortest.
    let mut found: Vec<(_, Vec<&Object>)> = labels.iter().map(|label| (state.labelled_in(kind, namespace, label), Vec::new())).collect();
    loop {
        for (index, objects) in &mut found {
            match index.next() {
                Some(object) => objects.push(object),
                None => return objects.iter().copied().filter(|object| selector.matches(object.labels())).collect(),
            }
        }
    }
}

/// Adopts and releases. The owner plans on only when there is nothing to claim.
pub fn settle(owner: &Object, claims: &Claims<'_>, selector: &Selector, plan: &mut Plan) {
    for object in &claims.owned {
        if !selector.matches(object.labels()) && !object.is_deleting() {
            let after = (*object).clone().edit_meta(|meta| {
                if let Some(owners) = &mut meta.owner_references {
                    owners.retain(|reference| reference.uid != owner.uid());
                }
            });
            plan.ops.push(Op::Update { before: (*object).clone(), after });
        }
    }
    if owner.is_deleting() {
        return;
    }
    for object in &claims.orphans {
        let after = (*object).clone().edit_meta(|meta| {
            let owners = meta.owner_references.get_or_insert_with(Vec::new);
            owners.retain(|reference| reference.uid != owner.uid());
            owners.push(owner_reference(owner));
        });
        plan.ops.push(Op::Update { before: (*object).clone(), after });
    }
}

/// The owners of a kind whose selector matches an object that nobody controls.
pub fn adopters(state: &Snapshot, kind: Kind, orphan: &Object, selector: impl Fn(&Object) -> Option<Selector>) -> Vec<Key> {
    state
        .list_in(kind, &orphan.key().namespace)
        .filter(|owner| selector(owner).is_some_and(|selector| selector.matches(orphan.labels())))
        .map(|owner| owner.key().clone())
        .collect()
}
