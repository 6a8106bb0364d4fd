//! HorizontalPodAutoscaler. PURE.

use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{SPEC, names, one_of};
use crate::model::quantity::Quantity;
use crate::model::rule::{Errors, Path};

/// Kubernetes' bounds (`autoscaling/v2` API reference): an hour, and half of one.
const LONGEST_WINDOW: i32 = 3600;
const LONGEST_PERIOD: i32 = 1800;

const METRIC_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const POLICY_TYPES: [&str; 2] = ["Percent", "Pods"];
const SELECT_POLICIES: [&str; 3] = ["Disabled", "Max", "Min"];
const RAW_OR_SHARE: &str = "must set either a target raw value or a target utilization";

pub(super) fn autoscaler(it: &HorizontalPodAutoscaler, errors: &mut Errors) {
    let spec = &it.spec;
    if let Some(fewest) = spec.min_replicas.filter(|it| *it < 1) {
        errors.invalid(&SPEC.child("minReplicas"), &fewest, "must be greater than or equal to 1");
    }
    let most = SPEC.child("maxReplicas");
    if spec.max_replicas < 1 {
        errors.invalid(&most, &spec.max_replicas, "must be greater than 0");
    }
    if spec.min_replicas.is_some_and(|fewest| spec.max_replicas < fewest) {
        errors.invalid(&most, &spec.max_replicas, "must be greater than or equal to `minReplicas`");
    }
    target_ref(&spec.scale_target_ref, &SPEC.child("scaleTargetRef"), errors);
    for (index, it) in spec.metrics.iter().flatten().enumerate() {
        metric(it, &SPEC.child("metrics").index(index), errors);
    }
    if let Some(behavior) = &spec.behavior {
        let at = SPEC.child("behavior");
        rules(behavior.scale_up.as_ref(), &at.child("scaleUp"), errors);
        rules(behavior.scale_down.as_ref(), &at.child("scaleDown"), errors);
    }
}

fn target_ref(it: &CrossVersionObjectReference, path: &Path<'_>, errors: &mut Errors) {
    for (field, value) in [("kind", &it.kind), ("name", &it.name)] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.all(&path.child(field), value, names::path_segment(value));
        }
    }
    let version = it.api_version.as_deref().unwrap_or_default();
    let at = path.child("apiVersion");
    match version.split('/').collect::<Vec<_>>().as_slice() {
        [group, version] if !group.is_empty() && !version.is_empty() => {}
        // Everything that can be scaled is in a group.
        [_] => errors.invalid(&at, version, "must specify an API group, as `apps/v1` does"),
        _ => errors.invalid(&at, version, "must be a group and a version, as `apps/v1`"),
    }
}

fn metric(it: &MetricSpec, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("type");
    let expected = match it.type_.as_str() {
        "" => return errors.required(&at, "must specify a metric source type"),
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        other => return errors.unsupported(&at, other, &METRIC_TYPES),
    };
    let present = [
        ("containerResource", it.container_resource.is_some()),
        ("external", it.external.is_some()),
        ("object", it.object.is_some()),
        ("pods", it.pods.is_some()),
        ("resource", it.resource.is_some()),
    ];
    for (source, is_there) in present {
        if source == expected && !is_there {
            errors.required(&path.child(source), "must populate information for the given metric source");
        } else if source != expected && is_there {
            errors.forbidden(&path.child(source), "must populate the given metric source only");
        }
    }
    if let Some(it) = &it.resource {
        resource(&it.name, &it.target, &path.child("resource"), errors);
    }
    if let Some(it) = &it.container_resource {
        let at = path.child("containerResource");
        resource(&it.name, &it.target, &at, errors);
        if it.container.is_empty() {
            errors.required(&at.child("container"), "must specify a container");
        } else {
            errors.all(&at.child("container"), &it.container, names::path_segment(&it.container));
        }
    }
}

fn resource(name: &str, target: &MetricTarget, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    let at = path.child("target");
    metric_target(target, &at, errors);
    match (target.average_utilization, &target.average_value) {
        (None, None) => errors.required(&at.child("averageUtilization"), RAW_OR_SHARE),
        (Some(_), Some(_)) => errors.forbidden(&at.child("averageValue"), "may not set both a target raw value and a target utilization"),
        _ => {}
    }
}

fn metric_target(it: &MetricTarget, path: &Path<'_>, errors: &mut Errors) {
    match it.type_.as_str() {
        "" => errors.required(&path.child("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => errors.invalid(&path.child("type"), other, "must be either Utilization, Value, or AverageValue"),
    }
    for (field, amount) in [("value", &it.value), ("averageValue", &it.average_value)] {
        if let Some(amount) = amount
            && !Quantity::parse(&amount.0).is_ok_and(|it| !it.is_zero() && !it.is_negative())
        {
            errors.invalid(&path.child(field), &amount.0, "must be positive");
        }
    }
    if let Some(share) = it.average_utilization.filter(|it| *it < 1) {
        errors.invalid(&path.child("averageUtilization"), &share, "must be greater than 0");
    }
}

fn rules(it: Option<&HPAScalingRules>, path: &Path<'_>, errors: &mut Errors) {
    let Some(it) = it else { return };
    let at = path.child("stabilizationWindowSeconds");
    match it.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => errors.invalid(&at, &seconds, "must be greater than or equal to zero"),
        Some(seconds) if seconds > LONGEST_WINDOW => errors.invalid(&at, &seconds, "must be less than or equal to 3600"),
        _ => {}
    }
    one_of(it.select_policy.as_deref(), &SELECT_POLICIES, &path.child("selectPolicy"), errors);
    tolerance(it.tolerance.as_ref(), &path.child("tolerance"), errors);
    let list = path.child("policies");
    if it.policies.as_ref().is_some_and(Vec::is_empty) {
        errors.required(&list, "must specify at least one Policy");
    }
    for (index, policy) in it.policies.iter().flatten().enumerate() {
        let at = list.index(index);
        if !POLICY_TYPES.contains(&policy.type_.as_str()) {
            errors.unsupported(&at.child("type"), &policy.type_, &POLICY_TYPES);
        }
        for (field, value) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
            if value <= 0 {
                errors.invalid(&at.child(field), &value, "must be greater than zero");
            }
        }
        if policy.period_seconds > LONGEST_PERIOD {
            errors.invalid(&at.child("periodSeconds"), &policy.period_seconds, "must be less than or equal to 1800");
        }
    }
}

fn tolerance(it: Option<&ApiQuantity>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(it) = it
        && !Quantity::parse(&it.0).is_ok_and(|it| !it.is_negative())
    {
        errors.invalid(path, &it.0, "must be greater than or equal to zero");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{Kind, Object, defaults, validate};

    /// What is wrong with a good autoscaler in which the value at this pointer is another one.
    fn errors(pointer: &str, value: &Value) -> Vec<String> {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let up = json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]});
        let mut it = json!({"metadata": {"name": "a", "namespace": "web"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}], "behavior": {"scaleUp": up}}});
        if let Some(at) = it.pointer_mut(&format!("/spec{pointer}")) {
            *at = value.clone();
        } else {
            let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
            it.pointer_mut(&format!("/spec{parent}")).expect("a parent")[last] = value.clone();
        }
        let mut typed = Object::from_value(Kind::HorizontalPodAutoscaler, it).expect("of its kind").typed().clone();
        defaults::apply(&mut typed);
        validate::validate(&typed).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_rule_can_be_broken() {
        assert_eq!(errors("/maxReplicas", &json!(2)), [""; 0]);
        let cases = [
            ("/minReplicas", json!(0), "spec.minReplicas: Invalid value: 0"),
            ("/maxReplicas", json!(1), "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"),
            ("/scaleTargetRef/kind", json!(""), "spec.scaleTargetRef.kind: Required value"),
            ("/scaleTargetRef/name", json!("a/b"), "spec.scaleTargetRef.name: Invalid value"),
            ("/scaleTargetRef/apiVersion", json!("v1"), "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": must specify an API group"),
            ("/scaleTargetRef/apiVersion", json!("a/b/c"), "spec.scaleTargetRef.apiVersion: Invalid value: \"a/b/c\": must be a group"),
            ("/metrics/0/type", json!(""), "spec.metrics[0].type: Required value"),
            ("/metrics/0/type", json!("Load"), "spec.metrics[0].type: Unsupported value: \"Load\""),
            (
                "/metrics/0/containerResource",
                json!({"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 1}}),
                "spec.metrics[0].containerResource: Forbidden",
            ),
            ("/metrics/0/resource/name", json!(""), "spec.metrics[0].resource.name: Required value"),
            (
                "/metrics/0/resource/target/averageUtilization",
                json!(0),
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0",
            ),
            (
                "/metrics/0/resource/target/averageUtilization",
                json!(null),
                "spec.metrics[0].resource.target.averageUtilization: Required value",
            ),
            ("/metrics/0/resource/target/averageValue", json!("1"), "spec.metrics[0].resource.target.averageValue: Forbidden"),
            (
                "/metrics/0/resource/target",
                json!({"type": "AverageValue", "averageValue": "0"}),
                "spec.metrics[0].resource.target.averageValue: Invalid value",
            ),
            ("/metrics/0/resource/target/type", json!("Most"), "spec.metrics[0].resource.target.type: Invalid value"),
            (
                "/behavior/scaleUp/stabilizationWindowSeconds",
                json!(-1),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: -1",
            ),
            (
                "/behavior/scaleUp/stabilizationWindowSeconds",
                json!(3601),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601",
            ),
            ("/behavior/scaleUp/selectPolicy", json!("Most"), "spec.behavior.scaleUp.selectPolicy: Unsupported value"),
            ("/behavior/scaleUp/tolerance", json!("-1"), "spec.behavior.scaleUp.tolerance: Invalid value"),
            ("/behavior/scaleUp/policies", json!([]), "spec.behavior.scaleUp.policies: Required value"),
            ("/behavior/scaleUp/policies/0/type", json!("Most"), "spec.behavior.scaleUp.policies[0].type: Unsupported value"),
            ("/behavior/scaleUp/policies/0/value", json!(0), "spec.behavior.scaleUp.policies[0].value: Invalid value: 0"),
            (
                "/behavior/scaleUp/policies/0/periodSeconds",
                json!(1801),
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801",
            ),
        ];
        for (pointer, value, wanted) in cases {
            let found = errors(pointer, &value);
            assert!(found.len() == 1 && found[0].starts_with(wanted), "{pointer} {value}: {found:?}");
        }
        let other = errors("/metrics/0/type", &json!("ContainerResource"));
        let starts = ["spec.metrics[0].containerResource: Required", "spec.metrics[0].resource: Forbidden"];
        assert!(other.len() == 2 && other.iter().zip(starts).all(|(it, start)| it.starts_with(start)), "{other:?}");
        assert_eq!(errors("/maxReplicas", &json!(0)).len(), 2, "none at all, and fewer than the fewest");
    }
}
