//! `metadata.managedFields` as a value. PURE.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, Time};

use super::fields::FieldSet;

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Server-side apply: what it no longer says, it gives up.
    Apply,
    /// A plain write or patch.
    Update,
}

/// One manager's fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    /// `status`, or empty.
    pub subresource: String,
    pub time: Option<Time>,
    pub fields: FieldSet,
}

/// Every manager of one object, in the order of the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagedFields {
    pub owners: Vec<Owner>,
}

impl ManagedFields {
    /// Reads an object's metadata. Entries that are not field sets own nothing and are dropped, as
    /// Kubernetes does with what it cannot read.
    pub fn of(meta: &ObjectMeta) -> Self {
        let owners = meta.managed_fields.iter().flatten().filter_map(read).collect();
        Self { owners }
    }

    /// The form of `metadata.managedFields`; `None` where nobody owns anything.
    pub fn to_entries(&self) -> Option<Vec<ManagedFieldsEntry>> {
        let entries: Vec<_> = self.owners.iter().filter(|owner| !owner.fields.is_empty()).map(write).collect();
        (!entries.is_empty()).then_some(entries)
    }

    /// What a manager owns by one kind of operation on the object itself.
    pub fn fields(&self, manager: &str, operation: Operation) -> Option<&FieldSet> {
        let mut own = self.owners.iter().filter(|it| it.manager == manager && it.operation == operation && it.subresource.is_empty());
        own.next().map(|it| &it.fields)
    }

    /// What a manager applied, in whatever version.
    pub(super) fn applied(&self, manager: &str, subresource: &str) -> Option<&Owner> {
        self.owners.iter().find(|it| it.manager == manager && it.operation == Operation::Apply && it.subresource == subresource)
    }

    /// The entry of the same name: plain writes have one a version (Kubernetes' `BuildManagerIdentifier`).
    pub(super) fn find(&self, owner: &Owner) -> Option<usize> {
        self.owners.iter().position(|it| {
            let same_version = owner.operation == Operation::Apply || it.api_version == owner.api_version;
            same_version && it.manager == owner.manager && it.operation == owner.operation && it.subresource == owner.subresource
        })
    }

    /// Sets what a manager owns; an empty set removes the manager.
    pub(super) fn set(&mut self, owner: Owner) {
        match self.find(&owner) {
            Some(index) if owner.fields.is_empty() => {
                self.owners.remove(index);
            }
            Some(index) if self.owners[index].fields == owner.fields && self.owners[index].api_version == owner.api_version => {}
            Some(index) => self.owners[index] = owner,
            None if owner.fields.is_empty() => {}
            None => self.owners.push(owner),
        }
    }

    /// Whether a manager applied this object.
    pub fn is_applied_by(meta: &ObjectMeta, manager: &str) -> bool {
        meta.managed_fields
            .iter()
            .flatten()
            .any(|entry| entry.manager.as_deref() == Some(manager) && entry.operation.as_deref() == Some("Apply"))
    }
}

fn read(entry: &ManagedFieldsEntry) -> Option<Owner> {
    let operation = match entry.operation.as_deref()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    Some(Owner {
        manager: entry.manager.clone()?,
        operation,
        api_version: entry.api_version.clone().unwrap_or_default(),
        subresource: entry.subresource.clone().unwrap_or_default(),
        time: entry.time.clone(),
        fields: FieldSet::from_json(&entry.fields_v1.as_ref()?.0).ok()?,
    })
}

fn write(owner: &Owner) -> ManagedFieldsEntry {
    let operation = match owner.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    ManagedFieldsEntry {
        api_version: Some(owner.api_version.clone()),
        fields_type: Some("FieldsV1".to_owned()),
        fields_v1: Some(FieldsV1(owner.fields.to_json())),
        manager: Some(owner.manager.clone()),
        operation: Some(operation.to_owned()),
        subresource: (!owner.subresource.is_empty()).then(|| owner.subresource.clone()),
        time: owner.time.clone(),
    }
}
