//! From kubectl's client-side apply to its server-side apply, and back. PURE.
//!
//! Client-side apply is a plain write of another manager, which keeps what was applied in an annotation. When the manager
//! `kubectl` (and no other) applies, what that annotation says and the object still has is no conflict; and the
//! annotation, where there is one, follows, so that a later client-side apply knows what to take away. The rules are those
//! of Kubernetes' `apimachinery/pkg/util/managedfields/internal/lastappliedmanager.go` and `lastappliedupdater.go`.

use serde_json::Value;

use super::apply::written;
use super::fields::FieldSet;
use super::merge::changed;
use super::shape::Shapes;
use crate::model::{ANNOTATIONS_LIMIT, LAST_APPLIED};

/// kubectl's name when it applies and is not told another.
pub(super) const MANAGER: &str = "kubectl";

/// The fields that were applied last and are as they were; `None` where that is not known for this version.
pub(super) fn unchanged(shapes: Shapes<'_>, live: &Value, subresource: &str) -> Option<FieldSet> {
    let last: Value = serde_json::from_str(live["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()?;
    if last["apiVersion"] != shapes.kind.api_version() {
        return None;
    }
    let last = written(shapes.kind, last, subresource);
    let said = FieldSet::of(shapes, &last);
    Some(said.difference(&changed(shapes, &mut Vec::new(), live, &last, &said)))
}

/// With the annotation, where there is one, as client-side apply would write it; without it where there is no room for it.
pub(super) fn renewed(mut value: Value, applied: &Value) -> Value {
    let annotations = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations.filter(|all| all.get(LAST_APPLIED).is_some_and(|last| last != "")) else { return value };
    let mut applied = applied.clone();
    if let Some(own) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.to_owned(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(name, text)| name.len() + text.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS_LIMIT {
        annotations.remove(LAST_APPLIED);
    }
    value
}
