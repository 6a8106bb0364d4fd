//! Fields that no schema has, in the words of Kubernetes' strict decoder. PURE.

use serde_json::Value;

use crate::model::{Kind, schema};

/// One sentence a field: `unknown field "spec.replica", did you mean "replicas"?`
pub fn unknown_fields(kind: Kind, value: &Value) -> Vec<String> {
    let sentence = |field: schema::UnknownField| match field.suggestion {
        Some(meant) => format!("unknown field \"{}\", did you mean \"{meant}\"?", field.path),
        None => format!("unknown field \"{}\"", field.path),
    };
    schema::unknown_fields(kind, value).into_iter().map(sentence).collect()
}
