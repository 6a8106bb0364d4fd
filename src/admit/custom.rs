//! Objects of custom kinds: pruned, defaulted and checked by the schema of their version, and kept in
//! the one that stores. PURE.

use super::Refused;
use crate::model::custom::{Custom, Definitions, Schema, default, prune, rules, validate};
use crate::model::rule::{Errors, FieldError};
use crate::model::{Kind, Object, Typed};

/// Makes of an object what is stored of it (`old`: what was stored before); every rule of its schema that it breaks.
///
/// # Errors
/// When its kind, or the version it is written in, is not served.
pub(super) fn complete(it: &mut Custom, served: &Definitions, old: Option<&Custom>) -> Result<Vec<FieldError>, Refused> {
    let key = |it: &Custom| Object::from_typed(Typed::Custom(Box::new(it.clone()))).key().clone();
    let refused = |it: &Custom, message: String| Err(Refused::Forbidden { key: key(it), message, at: "" });
    let Some(definition) = served.get(Kind::Custom(it.kind)) else {
        return refused(it, format!("no CustomResourceDefinition serves {} of {}", it.kind.names().kind, it.api_version));
    };
    if old.is_none() && definition.is_deleting {
        return Err(Refused::Ending { key: key(it) });
    }
    let name = it.api_version.split_once('/').map_or("", |(_, version)| version);
    // What is stored in a version that is there no more is an object still: it may be let go, scaled, moved on.
    let stored = old.filter(|old| old.api_version == it.api_version).map(|_| definition.storage());
    let Some(version) = definition.version(name).or(stored) else {
        return refused(it, format!("{} has no version {name:?}", definition.name));
    };
    let mut content = serde_json::Value::Object(std::mem::take(&mut it.content));
    prune::prune(&version.schema, &mut content);
    let is_filled = default::apply(&version.schema, &mut content);
    if let serde_json::Value::Object(content) = content {
        it.content = content;
    }
    if !is_filled {
        return refused(it, "the defaults of its schema make it larger than an object may be".to_owned());
    }
    let mut errors = Errors::default();
    if let Ok(whole) = it.value() {
        validate::validate(&version.schema, &whole, &mut errors);
        if version.has_rules && errors.is_empty() {
            let before = old.and_then(|old| read_by(&version.schema, old).value().ok());
            rules::check(&version.schema, &whole, before.as_ref(), &mut errors);
        }
    }
    let storage = definition.storage().kind;
    if let Kind::Custom(kind) = storage {
        it.kind = kind;
        it.api_version = storage.api_version();
    }
    Ok(errors.into_vec())
}

/// A stored object as it is read: what its schema has had since then is in it.
fn read_by(schema: &Schema, stored: &Custom) -> Custom {
    let mut content = serde_json::Value::Object(stored.content.clone());
    prune::prune(schema, &mut content);
    default::apply(schema, &mut content);
    match content {
        serde_json::Value::Object(content) => Custom { content, ..stored.clone() },
        _ => stored.clone(),
    }
}

/// The object as its kind is now: what was stored before may know less of it.
pub(super) fn refresh(it: &mut Custom, served: &Definitions) {
    let name = it.api_version.split_once('/').map_or("", |(_, version)| version);
    if let Some(Kind::Custom(kind)) = served.get(Kind::Custom(it.kind)).and_then(|found| found.version(name)).map(|found| found.kind) {
        it.kind = kind;
    }
}

/// Whether the part that `generation` counts is the same.
pub(super) fn same_spec(new: &Custom, stored: &Custom, served: &Definitions) -> bool {
    let old = served.get(Kind::Custom(new.kind)).map(|definition| read_by(&definition.storage().schema, stored));
    let old = old.as_ref().unwrap_or(stored);
    if new.kind.info().has_status { new.said().eq(old.said()) } else { new.content == old.content }
}
