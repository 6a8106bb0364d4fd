//! Event of `events.k8s.io/v1`, which is stored as `v1`'s. PURE.
//!
//! It is the same object under other names (`pkg/apis/events/v1/conversion.go`): what it is about, what is said, and by
//! whom; what only the older writers say is called deprecated.

use serde_json::Value;

use super::{Conversion, Unread};

pub(in crate::model) const CONVERSION: Conversion = Conversion { to_stored, from_stored, place, selected };

/// The name of a field in `events.k8s.io/v1` and in `v1`. The others are the same.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_stored(value: &mut Value) -> Vec<Unread> {
    rename(value, NAMES.map(|(new, old)| (new, old)));
    Vec::new()
}

fn from_stored(value: &mut Value) {
    rename(value, NAMES.map(|(new, old)| (old, new)));
}

fn rename(value: &mut Value, names: [(&str, &str); 7]) {
    let Some(fields) = value.as_object_mut() else { return };
    for (from, to) in names {
        // What has that name already is of another version: nobody's here.
        fields.remove(to);
        if let Some(field) = fields.remove(from) {
            fields.insert(to.to_owned(), field);
        }
    }
}

/// A path of fields, its first one called by another name.
fn renamed(path: &str, of: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    of(&path[..end]).map(|name| format!("{name}{}", &path[end..]))
}

fn place(path: &str, _: &Value) -> Option<String> {
    renamed(path, |name| NAMES.iter().find(|(_, old)| *old == name).map(|(new, _)| *new))
}

fn selected(field: &str) -> Option<String> {
    let is_stored = NAMES.iter().any(|(_, old)| field.split('.').next() == Some(old));
    if is_stored {
        return None;
    }
    let stored = renamed(field, |name| NAMES.iter().find(|(new, _)| *new == name).map(|(_, old)| *old));
    Some(stored.unwrap_or_else(|| field.to_owned()))
}
