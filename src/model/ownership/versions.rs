//! Owners who speak of another version of the kind than the one that is written. PURE.
//!
//! What is theirs stays in the words of their version, as in Kubernetes (structured-merge-diff's `merge/update.go`): what a
//! write changes is looked at in each version anew. Only where it has to be known what they own in the version that is
//! written (who keeps a field that its applier gives up) it is simpler here: it is what the fields that they own hold now,
//! converted.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::FieldSet;
use super::managed::{ManagedFields, Owner};
use super::merge::{compare, remove};
use super::shape::Shapes;
use crate::model::{Kind, convert};

/// The kind in the version that an owner speaks of, where that is another one.
fn other(kind: Kind, owner: &Owner) -> Option<Kind> {
    kind.versions().find(|it| it.api_version() == owner.api_version).filter(|it| !it.is_version(kind))
}

/// What a write changes, as each owner has it.
pub(super) struct Changes<'a> {
    kind: Kind,
    before: &'a Value,
    after: &'a Value,
    /// In the version that is written.
    fields: &'a FieldSet,
}

impl<'a> Changes<'a> {
    pub fn new(kind: Kind, before: &'a Value, after: &'a Value, fields: &'a FieldSet) -> Self {
        Self { kind, before, after, fields }
    }

    /// In the words of an owner.
    pub fn of(&self, owner: &Owner) -> Cow<'a, FieldSet> {
        let Some(theirs) = other(self.kind, owner) else { return Cow::Borrowed(self.fields) };
        let [before, after] = [self.before, self.after].map(|value| convert::between(value.clone(), self.kind, theirs));
        let (changed, gone) = compare(theirs.into(), &before, &after);
        Cow::Owned(changed.union(&gone))
    }
}

impl ManagedFields {
    /// What everybody owns of `live`, in the words of its version: for whoever looks at it, not for writing.
    pub fn spoken<'s>(mut self, shapes: impl Into<Shapes<'s>>, live: &Value) -> Self {
        let shapes = shapes.into();
        self.owners.iter_mut().for_each(|owner| owner.fields = spoken(shapes, owner, Some(live)));
        self
    }
}

/// What an owner has in the version of these shapes; of another version: what its fields say of `live`.
pub(super) fn spoken(shapes: Shapes<'_>, owner: &Owner, live: Option<&Value>) -> FieldSet {
    let (Some(theirs), Some(live)) = (other(shapes.kind, owner), live) else { return owner.fields.clone() };
    let live = convert::between(live.clone(), shapes.kind, theirs);
    let rest = FieldSet::of(theirs, &live).difference(&owner.fields);
    let own = remove(theirs.into(), &mut Vec::new(), live, &rest, &owner.fields).unwrap_or_default();
    FieldSet::of(shapes, &convert::between(own, theirs, shapes.kind))
}
