//! Server-side apply, and what a plain write does to ownership. PURE.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::fields::FieldSet;
use super::managed::{ManagedFields, Operation, Owner};
use super::merge::{changed, compare, merge, remove};
use crate::model::Kind;

/// Another manager owns a field that would change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("conflict with \"{manager}\": {path}")]
pub struct Conflict {
    pub manager: String,
    /// `.spec.replicas`
    pub path: String,
}

/// Server-side apply: `live` with what `applied` says, without what this manager said before and
/// no longer says and nobody else owns.
///
/// The result's `metadata.managedFields` is not touched: the caller writes the second value there.
///
/// # Errors
/// Every field that would change and that another manager owns, unless `force`, which takes it.
pub fn apply(
    kind: Kind,
    live: Option<&Value>,
    managed: &ManagedFields,
    applied: &Value,
    manager: &str,
    force: bool,
) -> Result<(Value, ManagedFields), Vec<Conflict>> {
    let mut owners = managed.clone();
    let folded;
    let applied = if kind == Kind::Secret {
        owners.owners.iter_mut().for_each(|owner| owner.fields.rename("stringData", "data"));
        folded = string_data_is_data(applied.clone());
        &folded
    } else {
        applied
    };
    let said = FieldSet::of(kind, applied);
    let merged = match live {
        Some(live) => {
            let changing = changed(kind, &mut Vec::new(), live, applied, &said);
            let conflicts = conflicts(&owners, manager, &changing);
            if !conflicts.is_empty() && !force {
                return Err(conflicts);
            }
            if !conflicts.is_empty() {
                take(&mut owners, manager, &changing);
            }
            merge(kind, &mut Vec::new(), live, applied)
        }
        None => applied.clone(),
    };
    let before = owners.fields(manager, Operation::Apply).cloned().unwrap_or_default();
    let gone = before.difference(&said);
    let result = if gone.is_empty() {
        merged
    } else {
        let mut kept = said.clone();
        for owner in owners.owners.iter().filter(|owner| !is(owner, manager)) {
            kept = kept.union(&owner.fields);
        }
        remove(kind, &mut Vec::new(), merged, &gone, &kept).unwrap_or(Value::Null)
    };
    owners.set(Owner {
        manager: manager.to_owned(),
        operation: Operation::Apply,
        api_version: kind.api_version(),
        subresource: String::new(),
        time: None,
        fields: said,
    });
    Ok((result, owners))
}

/// A Secret keeps what `stringData` says in `data`: who says the one owns the other.
pub fn string_data_is_data(mut secret: Value) -> Value {
    let plain = secret.as_object_mut().and_then(|fields| fields.remove("stringData"));
    let Some(Value::Object(plain)) = plain.filter(|plain| plain.as_object().is_some_and(|plain| !plain.is_empty())) else { return secret };
    if !secret["data"].is_object() {
        secret["data"] = Value::Object(Map::new());
    }
    for (name, value) in plain {
        if let Some(text) = value.as_str() {
            secret["data"][name] = Value::from(STANDARD.encode(text));
        }
    }
    secret
}

fn is(owner: &Owner, manager: &str) -> bool {
    owner.manager == manager && owner.operation == Operation::Apply && owner.subresource.is_empty()
}

fn conflicts(owners: &ManagedFields, manager: &str, changing: &FieldSet) -> Vec<Conflict> {
    let mut found = Vec::new();
    for owner in owners.owners.iter().filter(|owner| owner.manager != manager) {
        let paths = owner.fields.intersection(changing).paths();
        found.extend(paths.into_iter().map(|path| Conflict { manager: owner.manager.clone(), path }));
    }
    found.sort();
    found.dedup();
    found
}

/// Everybody else gives up these fields.
fn take(owners: &mut ManagedFields, manager: &str, fields: &FieldSet) {
    for owner in &mut owners.owners {
        if owner.manager != manager {
            owner.fields = owner.fields.difference(fields);
        }
    }
    owners.owners.retain(|owner| !owner.fields.is_empty());
}

/// What a plain write (create, update, patch) makes of ownership: the writer owns what it changed
/// or added, everybody else gives that up, and nobody owns what is gone.
pub fn update(
    kind: Kind,
    before: Option<&Value>,
    after: &Value,
    managed: &ManagedFields,
    manager: &str,
    subresource: &str,
) -> ManagedFields {
    let nothing = Value::Object(Map::new());
    let (changing, gone) = compare(kind, before.unwrap_or(&nothing), after);
    let mut owners = managed.clone();
    if changing.is_empty() && gone.is_empty() {
        return owners;
    }
    let mut mine =
        owners.find(manager, Operation::Update, subresource).map(|index| owners.owners[index].fields.clone()).unwrap_or_default();
    take(&mut owners, "", &changing.union(&gone));
    mine = mine.difference(&gone).union(&changing);
    owners.set(Owner {
        manager: manager.to_owned(),
        operation: Operation::Update,
        api_version: kind.api_version(),
        subresource: subresource.to_owned(),
        time: None,
        fields: mine,
    });
    owners
}
