//! `autoscaling/v1 Scale` of Deployments and ReplicaSets. PURE.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::fault::Fault;
use crate::model::selector::Selector;
use crate::model::{Object, Typed};

/// The scale of an object.
pub fn read(object: &Object) -> Result<Value, Fault> {
    let (wanted, current, selector) = match object.typed() {
        Typed::Deployment(it) => {
            let spec = &it.spec;
            (spec.replicas, it.status.as_ref().and_then(|status| status.replicas), &spec.selector)
        }
        Typed::ReplicaSet(it) => {
            let spec = &it.spec;
            (spec.replicas, it.status.as_ref().map(|status| status.replicas), &spec.selector)
        }
        _ => return Err(Fault::no_such_path()),
    };
    let meta = object.meta();
    let selector = Selector::of(selector).map(|selector| selector.to_string()).unwrap_or_default();
    Ok(json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta.name, "namespace": meta.namespace, "uid": meta.uid,
            "resourceVersion": meta.resource_version, "creationTimestamp": meta.creation_timestamp,
        },
        "spec": {"replicas": wanted.unwrap_or(1)},
        "status": {"replicas": current.unwrap_or(0), "selector": selector},
    }))
}

/// The object at the size a `Scale` wants.
pub fn write(object: &Object, scale: &Value) -> Result<Object, Fault> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let replicas = i32::try_from(replicas).ok().filter(|&replicas| replicas >= 0);
    let replicas = replicas.ok_or_else(|| Fault::new(422, "Invalid", "spec.replicas: Invalid value: must be a number of replicas"))?;
    let scaled = match object.typed() {
        Typed::Deployment(_) => object.edit::<Deployment>(|it| it.spec.replicas = Some(replicas)),
        Typed::ReplicaSet(_) => object.edit::<ReplicaSet>(|it| it.spec.replicas = Some(replicas)),
        _ => None,
    };
    scaled.ok_or_else(Fault::no_such_path)
}
