//! What an exported Pod carries of the cluster it is from. PURE.
//!
//! The volume with the API's token, which Kubernetes adds to every Pod, and the node that a
//! scheduler chose. Neither is anybody's wish, and neither exists here.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use super::position::{Inside, Position, Spot};
use crate::model::defaults::api_access;

/// Takes both out of a Pod and out of the places of its parts, so that places stay right.
pub(super) fn strip_pod(value: &mut Value, spot: &mut Spot, mut note: impl FnMut(Position, String)) {
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    let Some(spec) = value.get_mut("spec") else { return };
    if !text("uid").is_empty()
        && let Some(node) = spec.get("nodeName").and_then(Value::as_str).filter(|node| !node.is_empty())
    {
        let slash = if text("namespace").is_empty() { "" } else { "/" };
        let what = format!(
            "Pod {}{slash}{}: `nodeName: {node}` is left out: this Pod is an export, its node was chosen by the cluster it is from",
            text("namespace"),
            text("name")
        );
        note(spot.find("spec.nodeName", true), what);
        spec.as_object_mut().map(|spec| spec.remove("nodeName"));
    }
    let projects = |volumes: &Vec<Value>| volumes.iter().any(|volume| volume.get("projected").is_some());
    if !spec.get("volumes").and_then(Value::as_array).is_some_and(projects) {
        return;
    }
    let Some(name) = serde_json::from_value::<PodSpec>(spec.clone()).ok().and_then(|spec| api_access(&spec)) else { return };
    let Some(spots) = spot.field_mut("spec") else { return };
    drop_items(spec, spots, "volumes", |volume| volume["name"] == name);
    for list in ["containers", "initContainers"] {
        let (Some(Value::Array(containers)), Some(Spot { inside: Inside::Items(spots), .. })) = (spec.get_mut(list), spots.field_mut(list))
        else {
            continue;
        };
        for (container, spot) in containers.iter_mut().zip(spots) {
            drop_items(container, spot, "volumeMounts", |mount| mount["name"] == name);
        }
    }
}

fn drop_items(value: &mut Value, spot: &mut Spot, field: &str, is_gone: impl Fn(&Value) -> bool) {
    let (Some(Value::Array(items)), Some(Spot { inside: Inside::Items(spots), .. })) = (value.get_mut(field), spot.field_mut(field)) else {
        return;
    };
    if items.len() == spots.len() {
        let mut stays = items.iter().map(|item| !is_gone(item)).collect::<Vec<_>>().into_iter();
        spots.retain(|_| stays.next().unwrap_or(true));
        items.retain(|item| !is_gone(item));
    }
}
