//! `autoscaling/v1 Scale` on the wire. PURE.

use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};

use super::fault::Fault;
use crate::model::custom::Definitions;
use crate::model::{Errors, Kind, Object, Path, scale};

/// The scale of an object, by the version of its kind that was asked for.
pub fn read(kind: Kind, object: &Object, served: &Definitions) -> Result<Value, Fault> {
    let scale = scale::read(kind, object, served).ok_or_else(Fault::no_such_path)?;
    let meta = object.meta();
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta.name, "namespace": meta.namespace, "uid": meta.uid,
            "resourceVersion": meta.resource_version, "creationTimestamp": meta.creation_timestamp,
        },
        "spec": {"replicas": scale.wanted.unwrap_or(0)},
        "status": {"replicas": scale.current, "selector": scale.selector},
    }))
}

/// What a `Scale` says, checked as an object of its kind is.
#[derive(Debug)]
pub struct Wanted {
    pub replicas: i32,
    /// Fields that a `Scale` does not have.
    pub warnings: Vec<String>,
}

/// Reads a `Scale` that was sent for the object of this name.
///
/// # Errors
/// 400 for what is no `Scale` or one of another object, 422 for a size that no object can have.
pub fn wanted(name: &str, value: &Value) -> Result<Wanted, Fault> {
    let wrong = |cause: String| Fault::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {cause}"));
    if !value.is_object() {
        return Err(wrong("the body is not an object".to_owned()));
    }
    let mut filled = value.clone();
    for (field, expected) in [("apiVersion", "autoscaling/v1"), ("kind", "Scale")] {
        match filled[field].as_str() {
            None | Some("") => filled[field] = expected.into(),
            Some(_) => {}
        }
    }
    if filled["metadata"].is_null() {
        filled["metadata"] = json!({});
    }
    let scale: Scale = serde_json::from_value(filled).map_err(|error| wrong(error.to_string()))?;
    if let Some(other) = scale.metadata.name.filter(|other| !other.is_empty() && other != name) {
        return Err(Fault::bad_request(format!("the name of the object ({other}) does not match the name on the URL ({name})")));
    }
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    if replicas < 0 {
        let mut errors = Errors::default();
        errors.invalid(&Path::root("spec.replicas"), &replicas, "must be greater than or equal to 0");
        return Err(Fault::invalid_value("Scale", "autoscaling", name, &errors.into_vec()));
    }
    Ok(Wanted { replicas, warnings: unknown(value) })
}

fn unknown(value: &Value) -> Vec<String> {
    let tables: [(&str, &[&str]); 3] =
        [("", &["apiVersion", "kind", "metadata", "spec", "status"]), ("spec", &["replicas"]), ("status", &["replicas", "selector"])];
    let mut found = Vec::new();
    for (part, known) in tables {
        let fields = if part.is_empty() { value.as_object() } else { value[part].as_object() };
        for field in fields.into_iter().flat_map(|fields| fields.keys()).filter(|field| !known.contains(&field.as_str())) {
            let path = if part.is_empty() { field.clone() } else { format!("{part}.{field}") };
            found.push(format!("unknown field \"{path}\""));
        }
    }
    found
}

/// The object at this size.
pub fn write(kind: Kind, object: &Object, replicas: i32, served: &Definitions) -> Result<Object, Fault> {
    scale::write(kind, object, replicas, served).ok_or_else(Fault::no_such_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_that_is_none_is_refused_and_scales_nothing() {
        let code = |value: Value| wanted("web", &value).unwrap_err().code;
        assert_eq!(code(json!({"spec": {"replicas": "5"}})), 400);
        assert_eq!(code(json!({"spec": {"replicas": 2.5}})), 400);
        assert_eq!(code(json!({"spec": {"replicas": 3_000_000_000_i64}})), 400);
        assert_eq!(code(json!({"spec": [5]})), 400);
        assert_eq!(code(json!([1])), 400);
        assert_eq!(code(json!("5")), 400);
        assert_eq!(code(json!({"kind": "Deployment", "spec": {"replicas": 5}})), 400);
        assert_eq!(code(json!({"metadata": {"name": "other"}, "spec": {"replicas": 5}})), 400);
        assert_eq!(code(json!({"spec": {"replicas": -1}})), 422);
    }

    #[test]
    fn an_unknown_field_is_told() {
        let scale = wanted("web", &json!({"spec": {"replica": 5}, "x": 1})).unwrap();
        assert_eq!(
            (scale.replicas, scale.warnings),
            (0, vec!["unknown field \"x\"".to_owned(), "unknown field \"spec.replica\"".to_owned()])
        );
        let scale = wanted("web", &json!({"kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 5}})).unwrap();
        assert_eq!((scale.replicas, scale.warnings.len()), (5, 0));
    }
}
