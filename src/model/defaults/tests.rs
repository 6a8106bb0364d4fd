use proptest::prelude::*;
use serde_json::{Value, json};

use super::apply;
use crate::model::{Kind, Object};

fn defaulted(kind: Kind, value: Value) -> Value {
    let mut typed = Object::from_value(kind, value).expect("of its kind").typed().clone();
    apply(&mut typed);
    Object::from_typed(typed).value()
}

/// Every entry of `part` is in `whole`.
fn contains(whole: &Value, part: &Value, path: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                contains(whole.get(name).unwrap_or(&Value::Null), value, &format!("{path}.{name}"));
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{path}");
            for (index, (whole, part)) in whole.iter().zip(part).enumerate() {
                contains(whole, part, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(whole, part, "{path}"),
    }
}

#[test]
fn an_autoscaler_gets_kubernetes_defaults() {
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let it = defaulted(
        Kind::HorizontalPodAutoscaler,
        json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "scaleTargetRef": reference}}),
    );
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
    contains(&it["spec"], &json!({"minReplicas": 1, "metrics": [cpu]}), "spec");
    assert_eq!(it["spec"]["behavior"], Value::Null, "what is not there means the same");
    let behavior = json!({"scaleDown": {"selectPolicy": "Min"}});
    let spec = json!({"maxReplicas": 3, "scaleTargetRef": reference, "behavior": behavior});
    let it = defaulted(Kind::HorizontalPodAutoscaler, json!({"metadata": {"name": "a"}, "spec": spec}));
    let of = |type_: &str, value: i32| json!({"type": type_, "value": value, "periodSeconds": 15});
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [of("Pods", 4), of("Percent", 100)]});
    let down = json!({"selectPolicy": "Min", "policies": [of("Percent", 100)]});
    assert_eq!(it["spec"]["behavior"], json!({"scaleUp": up, "scaleDown": down}));
}

#[test]
fn a_pod_gets_kubernetes_defaults() {
    let pod = defaulted(
        Kind::Pod,
        json!({"metadata": {"name": "a"}, "spec": {
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "h", "hostPath": {"path": "/x"}}],
            "containers": [{"name": "c", "image": "nginx:1.27", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.5"}}}]}}),
    );
    contains(
        &pod,
        &json!({"spec": {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler", "enableServiceLinks": true, "securityContext": {},
        "volumes": [{"emptyDir": {}}, {"secret": {"defaultMode": 420}}, {"hostPath": {"type": ""}}],
        "containers": [{
            "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"protocol": "TCP"}],
            "livenessProbe": {"httpGet": {"path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3},
            "env": [{"valueFrom": {"fieldRef": {"apiVersion": "v1"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}
        }]}}),
        "",
    );
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, latest) in [
        ("nginx", true),
        ("nginx:latest", true),
        ("nginx:1", false),
        ("host:5000/a/b", true),
        ("host:5000/a/b:2", false),
        ("a@sha256:00", false),
        ("a:latest@sha256:00", true),
    ] {
        assert_eq!(super::pod::image_is_latest(image), latest, "{image}");
    }
}

#[test]
fn workloads_get_kubernetes_defaults() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"limits": {"cpu": "1"}}}]}});
    let deployment = defaulted(Kind::Deployment, json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": template}}));
    contains(
        &deployment,
        &json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"spec": {"restartPolicy": "Always", "containers": [{"imagePullPolicy": "Always"}]}}}}),
        "",
    );
    // Requests follow limits in pods only, so that a template stays as written.
    assert_eq!(deployment.pointer("/spec/template/spec/containers/0/resources/requests"), None);
    let recreate = json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "strategy": {"type": "Recreate"}, "template": {}}});
    assert_eq!(defaulted(Kind::Deployment, recreate).pointer("/spec/strategy/rollingUpdate"), None);
    contains(
        &defaulted(Kind::Job, json!({"metadata": {"name": "j"}, "spec": {"template": template}})),
        &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6,
            "completionMode": "NonIndexed", "suspend": false, "podReplacementPolicy": "TerminatingOrFailed"}}),
        "",
    );
    let queue = defaulted(Kind::Job, json!({"metadata": {"name": "j"}, "spec": {"parallelism": 3, "template": {}}}));
    assert_eq!(queue.pointer("/spec/completions"), None, "a work queue has no completions");
}

#[test]
fn other_kinds_get_kubernetes_defaults() {
    contains(
        &defaulted(Kind::Service, json!({"metadata": {"name": "s"}, "spec": {"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}})),
        &json!({"spec": {"type": "ClusterIP", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "ports": [{"protocol": "TCP", "targetPort": 80}]}}),
        "",
    );
    contains(
        &defaulted(Kind::Service, json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}})),
        &json!({"spec": {"clusterIPs": ["None"]}}),
        "",
    );
    let secret = defaulted(Kind::Secret, json!({"metadata": {"name": "s"}, "data": {"a": "MQ==", "b": "MQ=="}, "stringData": {"a": "2"}}));
    contains(&secret, &json!({"type": "Opaque", "data": {"a": "Mg==", "b": "MQ=="}}), "");
    assert_eq!(secret.pointer("/stringData"), None);
    contains(
        &defaulted(Kind::Namespace, json!({"metadata": {"name": "n"}})),
        &json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "n"}}}),
        "",
    );
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "Always", "Never", "ClusterIP", "NodePort", "ClientIP", "None", "Recreate", "10.96.0.9"])
        .prop_map(str::to_owned)
}

/// Objects of every kind with fields present, absent and empty.
fn any_object() -> impl Strategy<Value = Object> {
    let port =
        (0..3i32, prop::option::of(word())).prop_map(|(port, name)| json!({"port": port, "containerPort": port, "targetPort": name}));
    let parts = (prop::collection::vec(any::<bool>(), 16), prop::collection::vec(word(), 8), prop::collection::vec(port, 0..3));
    parts.prop_map(|(on, words, ports)| {
        let pick = |index: usize, value: Value| if on[index] { value } else { Value::Null };
        let container = json!({"name": words[0], "image": pick(0, json!("a:latest")), "ports": ports,
            "imagePullPolicy": pick(1, json!(words[1])), "livenessProbe": pick(2, json!({"timeoutSeconds": 0, "httpGet": {"port": 1}})),
            "lifecycle": pick(3, json!({"preStop": {"httpGet": {"port": 1}}})),
            "resources": pick(4, json!({"limits": {"cpu": "0.1", "memory": "x"}})),
            "env": pick(5, json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]))});
        let pod = json!({"containers": [container], "initContainers": pick(6, json!([container])), "hostNetwork": pick(7, json!(true)),
            "serviceAccount": pick(8, json!(words[2])), "serviceAccountName": pick(9, json!(words[3])), "restartPolicy": words[4],
            "volumes": pick(10, json!([{"name": "a"}, {"name": "b", "emptyDir": {"sizeLimit": "1024Ki"}}]))});
        let template = json!({"metadata": {"labels": pick(11, json!({"job-name": "j", "a": "b"}))}, "spec": pod});
        let meta = json!({"name": "x", "namespace": "y"});
        let all = [
            (Kind::Pod, json!({"metadata": meta, "spec": pod})),
            (
                Kind::Deployment,
                json!({"metadata": meta, "spec": {"selector": {}, "strategy": pick(12, json!({"type": words[5]})), "template": template}}),
            ),
            (Kind::ReplicaSet, json!({"metadata": meta, "spec": {"selector": {}, "template": pick(12, template.clone())}})),
            (Kind::Job, json!({"metadata": meta, "spec": {"parallelism": pick(12, json!(2)), "template": template}})),
            (
                Kind::Service,
                json!({"metadata": meta, "spec": pick(12, json!({"ports": ports, "type": words[6], "clusterIP": words[7],
                "sessionAffinity": words[5], "clusterIPs": pick(13, json!([words[4]]))}))}),
            ),
            (Kind::Secret, json!({"metadata": meta, "type": words[1], "stringData": pick(12, json!({"a": "b"}))})),
            (Kind::Namespace, json!({"metadata": {"name": words[0]}})),
            (Kind::Node, json!({"metadata": meta, "spec": {"podCIDR": words[7]}, "status": pick(13, json!({"capacity": {"cpu": "1"}}))})),
            (Kind::EndpointSlice, json!({"metadata": meta, "addressType": "IPv4", "endpoints": [], "ports": ports})),
            (Kind::ConfigMap, json!({"metadata": meta})),
        ];
        let index = usize::from(on[14]) * 4 + usize::from(on[15]) * 2 + usize::from(on[13]) + words[0].len();
        let (kind, value) = all[index % all.len()].clone();
        Object::from_value(kind, without_nulls(value)).expect("of its kind")
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, it)| !it.is_null()).map(|(name, it)| (name, without_nulls(it))).collect(),
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

proptest! {
    #[test]
    fn twice_is_once(object in any_object()) {
        let mut once = object.typed().clone();
        apply(&mut once);
        let mut twice = once.clone();
        apply(&mut twice);
        prop_assert_eq!(once, twice);
    }
}
