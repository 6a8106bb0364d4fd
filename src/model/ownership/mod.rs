//! Who owns which field: server-side apply's field sets and merges. PURE.
//!
//! - `fields`: [`FieldSet`], read from and written as Kubernetes' `FieldsV1`
//! - `shape`: which lists merge by which keys, which maps are one value (Kubernetes'
//!   `x-kubernetes-list-type`, `-list-map-keys` and `-map-type`, for the kinds Podbay serves)
//! - `managed`: `metadata.managedFields` as a value
//! - `versions`: owners who speak of another version of the kind than the one that is written
//! - `apply`: server-side apply; [`update`] is what a plain write does to ownership
//! - `last_applied`: the way from kubectl's client-side apply to its server-side apply
//! - `changes`: what differs between two values, field by field
//! - `strategic`: strategic merge patches, over the same table
//!
//! Invariants: applying twice changes nothing the second time; a manager that says less gives up
//! exactly what it no longer says, under each of its names; nobody's set shrinks but by a conflict that was forced.

mod apply;
mod changes;
mod fields;
mod last_applied;
mod managed;
mod merge;
mod shape;
mod strategic;
mod versions;

pub use apply::{Applier, Conflict, apply, apply_as, string_data_is_data, update};
pub use changes::{FieldChange, changes};
pub use fields::{Element, FieldSet, FieldsError};
pub use managed::{ManagedFields, Operation, Owner};
pub use shape::Shapes;
pub use strategic::{PatchError, strategic_merge};

#[cfg(test)]
mod tests;
