//! A value without what is wrong with it, so that the rest can be looked at. PURE.

use serde_json::Value;

use crate::model::schema::{Fault, Finding};

/// Takes every value of a wrong type out, and gives the paths of the fields of which nothing more
/// need be said: those, and the ones that an unknown field was probably meant to be.
pub(super) fn without(value: &mut Value, findings: &[Finding]) -> Vec<String> {
    let mut faulty = Vec::new();
    for finding in findings {
        match &finding.fault {
            Fault::Unknown { container, suggestion, .. } => {
                let above = finding.pointer.rsplit_once('/').map_or("", |(above, _)| above);
                let written = |name: &str| value.pointer(above).is_some_and(|fields| fields.get(name).is_some());
                let dot = if container.is_empty() { "" } else { "." };
                faulty.extend(suggestion.iter().filter(|meant| !written(meant)).map(|meant| format!("{container}{dot}{meant}")));
            }
            Fault::WrongType { .. } => {
                take_out(value, &finding.pointer);
                faulty.push(finding.path.clone());
            }
        }
    }
    faulty
}

/// The field at or above a pointer: an item cannot go without moving those behind it.
fn take_out(value: &mut Value, pointer: &str) {
    let mut rest = pointer;
    while let Some((above, name)) = rest.rsplit_once('/') {
        if let Some(Value::Object(fields)) = value.pointer_mut(above) {
            fields.remove(&name.replace("~1", "/").replace("~0", "~"));
            return;
        }
        rest = above;
    }
}
