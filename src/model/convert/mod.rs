//! Kinds that are served in more groups and versions than the one they are stored in: what becomes of a value on its way from one to
//! another. PURE.
//!
//! A further version is a row of the registry (`model::kind`) and a [`Conversion`] here; whoever reads or writes objects
//! in a version calls [`between`] and knows no kind.
//!
//! Invariants of a conversion: to the stored version and back is the same value again; from the stored one and back says the
//! same, though lists may be in another order where the conversion says so. Both ways take parts of objects, too: what is
//! not there is not made up.

pub mod autoscaling_v1;
pub mod events_v1;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::Kind;

/// How values get from a version to the stored one and back.
pub struct Conversion {
    /// To the stored version. What it cannot read it leaves out, and tells.
    to_stored: fn(&mut Value) -> Vec<Unread>,
    from_stored: fn(&mut Value),
    /// Where a value of the version says what the stored form has at this path; `None`: at the same one.
    place: fn(&str, &Value) -> Option<String>,
    /// What the stored form calls a field that objects are selected by; `None`: the version has no such field.
    selected: fn(&str) -> Option<String>,
}

/// Something that has no meaning in the stored version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Where it is written: `metadata.annotations[a.example.com/b]`.
    pub path: String,
    pub message: String,
}

impl Conversion {
    /// A value of this version in the stored one of its kind, and what is lost on the way.
    pub fn stored(&self, mut value: Value, kind: Kind) -> (Value, Vec<Unread>) {
        let unread = if value.is_object() { (self.to_stored)(&mut value) } else { Vec::new() };
        (named(value, kind.stored()), unread)
    }

    /// Where `written` says what its stored form has at a path: a rule is told where somebody broke it.
    pub fn place(&self, path: &str, written: &Value) -> Option<String> {
        (self.place)(path, written)
    }

    /// The stored form's name of a field to select by.
    pub fn selected(&self, field: &str) -> Option<String> {
        (self.selected)(field)
    }
}

/// A value of one version of a kind, as another version of the same kind has it.
pub fn between(value: Value, from: Kind, to: Kind) -> Value {
    let (source, target) = (from.conversion(), to.conversion());
    let is_custom = to.place().is_none();
    if (source.is_none() && target.is_none() && !is_custom) || (source.is_some() && from.is_version(to)) {
        return value;
    }
    let mut value = match source {
        Some(conversion) => conversion.stored(value, from).0,
        None => value,
    };
    if let Some(conversion) = target.filter(|_| value.is_object()) {
        (conversion.from_stored)(&mut value);
    }
    // Versions of a custom kind differ in nothing else.
    named(value, to)
}

fn named(mut value: Value, kind: Kind) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), kind.api_version().into());
    }
    value
}
