//! One change that a source makes, and how many of each there are. PURE.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::{Key, Object};
use crate::store::transaction::{Precondition, Write};

/// What happens to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Create,
    Update,
    /// Deleted and created: a field changes that cannot be changed in place.
    Replace,
    Delete,
}

impl Action {
    /// Terraform's marks.
    pub fn mark(self) -> &'static str {
        match self {
            Action::Create => "+",
            Action::Update => "~",
            Action::Replace => "-/+",
            Action::Delete => "-",
        }
    }
}

/// One change a source makes.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncOp {
    pub action: Action,
    pub before: Option<Object>,
    /// What is written, before admission.
    pub after: Option<Object>,
    /// What admission makes of it.
    pub result: Option<Object>,
    /// Of a new object that webhooks have changed: what it says, without defaults.
    pub told: Option<Object>,
    pub wave: i32,
    /// Where the manifest is; where it was, for a deletion.
    pub file: String,
    /// What goes with a deleted object.
    pub takes: BTreeSet<Key>,
}

impl SyncOp {
    pub fn key(&self) -> &Key {
        match (&self.after, &self.before) {
            (Some(object), _) | (None, Some(object)) => object.key(),
            (None, None) => unreachable!("an op has a before or an after: `plan` makes no other"),
        }
    }

    /// The writes that carry it out, refused when the object is no longer the one seen.
    pub fn writes(&self) -> Vec<Write> {
        let delete =
            |before: &Object| Write::Delete { key: before.key().clone(), precondition: Precondition::seen(before), grace_seconds: None };
        match (self.action, &self.before, &self.after) {
            (Action::Update, Some(before), Some(after)) => vec![Write::Update(after.clone(), Precondition::seen(before))],
            (Action::Replace, Some(before), Some(after)) => vec![delete(before), Write::Create(after.clone())],
            (Action::Delete, Some(before), _) => vec![delete(before)],
            (_, _, Some(after)) => vec![Write::Create(after.clone())],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for SyncOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.mark(), self.key())
    }
}

/// How many of each: the one-line sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub create: usize,
    pub update: usize,
    pub replace: usize,
    pub delete: usize,
    /// What goes with the deleted.
    pub taken: usize,
    pub unchanged: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.create + self.update + self.replace + self.delete == 0 {
            return write!(f, "no change, {} as they should be", self.unchanged);
        }
        write!(f, "{} to create, {} to update", self.create, self.update)?;
        if self.replace > 0 {
            write!(f, ", {} to replace", self.replace)?;
        }
        write!(f, ", {} to delete", self.delete)?;
        if self.taken > 0 {
            write!(f, " with {} more", self.taken)?;
        }
        write!(f, ", {} unchanged", self.unchanged)
    }
}
