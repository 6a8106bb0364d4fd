//! Snapshot files: a cluster's objects for offline previews. PURE.
//!
//! `{"version":1,"revision":N,"objects":[…]}`, as `GET /podbay/v1/snapshot` writes it: Secret values
//! are left out.

use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde_json::Value;

use crate::model::Object;
use crate::store::snapshot::Snapshot;
use crate::sync::render::Rendered;

/// The version this program reads and writes.
pub const VERSION: u32 = 1;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Why a file is not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("not a snapshot file: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the snapshot file has version {0}, this program reads {VERSION}: save it again with `podbay snapshot`")]
    Version(u32),
    #[error("object {index} of the snapshot file: {message}")]
    Object { index: usize, message: String },
}

#[derive(Deserialize)]
struct File {
    version: u32,
    revision: u64,
    objects: Vec<Value>,
}

/// Reads a snapshot file's content.
///
/// # Errors
/// See [`SavedError`].
pub fn read(bytes: &[u8]) -> Result<Snapshot, SavedError> {
    let file: File = serde_json::from_slice(bytes)?;
    if file.version != VERSION {
        return Err(SavedError::Version(file.version));
    }
    let mut snapshot = Snapshot::default();
    for (index, value) in file.objects.into_iter().enumerate() {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        // Definitions come before what they define, as snapshots list objects.
        let kind = snapshot.definitions().kind_of(text("apiVersion"), text("kind"));
        let kind =
            kind.ok_or_else(|| SavedError::Object { index, message: format!("{} {} is not served", text("apiVersion"), text("kind")) })?;
        let object = Object::from_value(kind, value).map_err(|error| SavedError::Object { index, message: error.to_string() })?;
        snapshot.insert(object);
    }
    Ok(snapshot.at_revision(file.revision))
}

/// A snapshot file has the keys of its Secrets and no values: each counts as the value that is wanted,
/// so that a preview shows no change it cannot know of. Which Secrets those are, a line each.
pub fn assume_values(snapshot: &mut Snapshot, wanted: &Rendered) -> Vec<String> {
    let mut notes = Vec::new();
    for desired in wanted.desired.values() {
        let Some(values) = desired.object.get::<Secret>().and_then(|secret| secret.data.as_ref()) else { continue };
        let Some(live) = snapshot.get(desired.object.key()) else { continue };
        let mut unknown = 0;
        let filled = live.edit::<Secret>(|secret| {
            for (key, value) in secret.data.iter_mut().flatten().filter(|(_, value)| value.0.is_empty()) {
                if let Some(wanted) = values.get(key) {
                    value.clone_from(wanted);
                    unknown += 1;
                }
            }
            // kubectl's copy of the values is left out as they are.
            if let Some(copy) = desired.object.annotation(LAST_APPLIED) {
                secret.metadata.annotations.get_or_insert_default().entry(LAST_APPLIED.to_owned()).or_insert_with(|| copy.to_owned());
            }
        });
        if let Some(filled) = filled.filter(|_| unknown > 0) {
            notes.push(format!("{}: the snapshot file has no Secret values, they were not compared", filled.key()));
            snapshot.insert(filled);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Kind};

    #[test]
    fn a_file_becomes_a_snapshot_or_says_why_not() {
        let file = br#"{"version":1,"revision":7,"objects":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"web"}}]}"#;
        let snapshot = read(file).unwrap();
        assert_eq!(snapshot.revision(), 7);
        assert!(snapshot.get(&Key::cluster(Kind::Namespace, "web")).is_some());
        assert!(read(br#"{"version":9,"revision":7,"objects":[]}"#).unwrap_err().to_string().contains("version 9"));
        let odd = read(br#"{"version":1,"revision":1,"objects":[{"apiVersion":"v1","kind":"Pizza"}]}"#).unwrap_err();
        assert!(odd.to_string().contains("object 0") && odd.to_string().contains("Pizza"), "{odd}");
    }
}
