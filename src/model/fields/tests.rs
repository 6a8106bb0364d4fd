use serde_json::{Value, json};

use super::{Rule, refusals, rule};
use crate::model::{Kind, Object, defaults, schema};

/// Paths of the schema that hold no others.
fn leaves(kind: Kind) -> Vec<String> {
    let paths = schema::field_paths(kind);
    let holds_others = |path: &String| {
        let below = [format!("{path}."), format!("{path}[")];
        paths.iter().any(|other| below.iter().any(|it| other.starts_with(it)))
    };
    paths.iter().filter(|path| !holds_others(path)).cloned().collect()
}

#[test]
fn every_field_of_every_kind_has_a_rule() {
    let mut missing = Vec::new();
    for row in Kind::all() {
        let leaves = leaves(row.kind);
        assert!(leaves.len() > 10, "{}: the schema has fields", row.name);
        missing.extend(leaves.into_iter().filter(|path| rule(row.kind, path).is_none()).map(|path| format!("{} {path}", row.name)));
    }
    assert!(missing.is_empty(), "fields without a rule:\n{}", missing.join("\n"));
}

/// A row that names no field of the schema is a slip.
#[test]
fn every_row_names_a_field() {
    fn walk(node: &super::Node, path: &str, known: &[String], wrong: &mut Vec<String>) {
        let open_map = known.iter().any(|it| *it == format!("{path}.*"));
        for (step, child) in &node.children {
            let below = match (*step, path) {
                ("[]", _) => format!("{path}[]"),
                (_, "") => (*step).to_owned(),
                _ => format!("{path}.{step}"),
            };
            let holds = format!("{below}[");
            let inside = format!("{below}.");
            if !open_map && !known.iter().any(|it| *it == below || it.starts_with(&holds) || it.starts_with(&inside)) {
                wrong.push(below.clone());
            }
            walk(child, &below, known, wrong);
        }
    }
    for row in Kind::all() {
        let mut wrong = Vec::new();
        walk(super::table(row.kind), "", &schema::field_paths(row.kind), &mut wrong);
        assert!(wrong.is_empty(), "{}: rows for no field: {wrong:?}", row.name);
    }
}

fn refused(kind: Kind, value: &Value) -> Vec<String> {
    refusals(kind, value).iter().map(ToString::to_string).collect()
}

fn template(spec: &Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

/// What `kubectl get -o yaml` adds to a manifest must not stand in its way.
#[test]
fn exported_manifests_are_harmless() {
    let meta = json!({"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:x": {}}}],
        "annotations": {"deployment.kubernetes.io/revision": "1"}});
    let pod = json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
        "livenessProbe": {"httpGet": {"port": 80}}, "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}],
        "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "serviceAccount": "default", "serviceAccountName": "default",
        "automountServiceAccountToken": true, "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "affinity": {}, "hostUsers": true,
        "topologySpreadConstraints": [], "os": {"name": "linux"}, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}});
    let labelled = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}, "spec": pod});
    for (kind, value) in [
        (Kind::Pod, json!({"metadata": meta, "spec": pod, "status": {"phase": "Running", "conditions": [{"type": "Ready"}]}})),
        (
            Kind::Deployment,
            json!({"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": labelled}, "status": {"replicas": 1}}),
        ),
        (Kind::ReplicaSet, json!({"metadata": meta, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": labelled}})),
        (Kind::Job, json!({"metadata": meta, "spec": {"template": labelled}})),
        (Kind::Service, json!({"metadata": meta, "spec": {"ports": [{"port": 80}], "type": "NodePort"}, "status": {"loadBalancer": {}}})),
        (Kind::Secret, json!({"metadata": meta, "stringData": {"a": "b"}})),
        (Kind::ConfigMap, json!({"metadata": meta, "data": {"a": "b"}})),
        (Kind::Namespace, json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})),
    ] {
        assert_eq!(refused(kind, &value), Vec::<String>::new(), "{kind} as written");
        let mut typed = Object::from_value(kind, value).expect("of its kind").typed().clone();
        defaults::apply(&mut typed);
        assert_eq!(refused(kind, &Object::from_typed(typed).value()), Vec::<String>::new(), "{kind} with its defaults");
    }
}

#[test]
fn what_is_not_served_is_refused_with_a_reason() {
    let pod = |spec: Value| json!({"spec": spec});
    let container = |value: Value| json!({"spec": {"containers": [{"name": "a"}, value]}});
    for (kind, value, expected) in [
        (
            Kind::Pod,
            pod(json!({"volumes": [{"name": "v", "csi": {"driver": "d"}}, {"name": "w", "persistentVolumeClaim": {"claimName": "c"}}]})),
            "spec.volumes[0].csi: Forbidden: csi volumes are not supported yet",
        ),
        (
            Kind::Pod,
            pod(json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"creationTimestamp": null, "labels": {"a": "b"}, "name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}]})),
            "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: the template of a claim has labels and annotations only",
        ),
        (
            Kind::Deployment,
            template(&json!({"priorityClassName": "high"})),
            "spec.template.spec.priorityClassName: Forbidden: pod priorities are not supported yet",
        ),
        (
            Kind::Pod,
            pod(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}}),
            ),
            "spec.affinity: Forbidden: affinity is not supported yet: use `nodeSelector` and tolerations",
        ),
        (
            Kind::Pod,
            container(json!({"livenessProbe": {"httpGet": {"port": 1, "protocol": "h2c"}}})),
            "spec.containers[1].livenessProbe.httpGet.protocol: Forbidden: probes speak HTTP/1.1",
        ),
        (
            Kind::Pod,
            container(json!({"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1", "hugepages-16Mi": "16Mi"}}})),
            "spec.containers[1].resources.limits[hugepages-16Mi]: Forbidden: only `cpu`, `memory`, `ephemeral-storage`, huge pages (`hugepages-2Mi`) and what nodes advertise (`example.com/dongle`) are supported yet",
        ),
        (Kind::Job, json!({"spec": {"completionMode": "Indexed"}}), "spec.completionMode: Forbidden: indexed Jobs are not supported yet"),
        (
            Kind::Service,
            pod(json!({"type": "LoadBalancer"})),
            "spec.type: Forbidden: load balancers are not supported yet: use type NodePort",
        ),
        (Kind::Service, pod(json!({"ipFamilies": ["IPv6"]})), "spec.ipFamilies: Forbidden: IPv6 is not supported yet"),
        (
            Kind::Service,
            pod(json!({"internalTrafficPolicy": "Local"})),
            "spec.internalTrafficPolicy: Forbidden: only the traffic policy `Cluster` is supported yet",
        ),
    ] {
        assert_eq!(refused(kind, &value).join("; "), expected);
    }
}

#[test]
fn what_pods_do_not_get_has_a_reason() {
    let pod = |spec: Value| json!({"spec": spec});
    let container = |value: Value| json!({"spec": {"containers": [{"name": "a"}, value]}});
    for (kind, value, expected) in [
        (
            Kind::Pod,
            container(
                json!({"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}, {"containerPort": 80, "hostPort": 80, "hostIP": "::1"}]}),
            ),
            "spec.containers[1].ports[1].hostIP: Forbidden: IPv6 is not supported yet",
        ),
        (
            Kind::Pod,
            pod(
                json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Floppy"}}, {"name": "w", "emptyDir": {"medium": "HugePages-2Mi"}}]}),
            ),
            "spec.volumes[0].emptyDir.medium: Forbidden: an emptyDir is on the node's disk, in memory (`Memory`) or in huge pages (`HugePages`, `HugePages-2Mi`)",
        ),
        (
            Kind::Pod,
            pod(json!({"volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "m", "items": [{"key": "k", "path": "p", "user": 7}]}}]}}]})),
            "spec.volumes[0].projected.sources[1].configMap.items[0].user: Forbidden: owners of single files are not supported yet",
        ),
    ] {
        assert_eq!(refused(kind, &value).join("; "), expected);
    }
}

#[test]
fn some_fields_depend_on_others() {
    let pod = |spec: Value| json!({"spec": spec});
    let sysctl = refused(Kind::Pod, &pod(json!({"securityContext": {"sysctls": [{"name": "kernel.panic", "value": "1"}]}})));
    assert!(sysctl[0].starts_with("spec.securityContext.sysctls[0].name: Forbidden: sysctl \"kernel.panic\" is not one of"), "{sysctl:?}");
}

#[test]
fn rules_can_be_asked_for() {
    assert!(matches!(rule(Kind::Deployment, "spec.template.spec.containers[].image"), Some(Rule::Acts)));
    assert!(matches!(rule(Kind::Pod, "spec.affinity.nodeAffinity"), Some(Rule::Refused(_))));
    assert!(matches!(rule(Kind::Pod, "status.phase"), Some(Rule::Harmless)));
    assert!(rule(Kind::Pod, "spec.nothing").is_none());
}

#[test]
fn only_what_is_measured_scales() {
    let with = |metric: Value| refused(Kind::HorizontalPodAutoscaler, &json!({"spec": {"maxReplicas": 3, "metrics": [metric]}}));
    let share = json!({"type": "Utilization", "averageUtilization": 50});
    assert_eq!(with(json!({"type": "Resource", "resource": {"name": "cpu", "target": share}})), [""; 0]);
    let whole = json!({"type": "Value", "value": "1"});
    for (metric, paths) in [
        (json!({"type": "Pods", "pods": {"metric": {"name": "requests"}}}), vec!["spec.metrics[0].pods", "spec.metrics[0].type"]),
        (json!({"type": "External", "external": {"metric": {"name": "queue"}}}), vec!["spec.metrics[0].external", "spec.metrics[0].type"]),
        (json!({"type": "Resource", "resource": {"name": "nvidia.com/gpu", "target": share}}), vec!["spec.metrics[0].resource.name"]),
        (
            json!({"type": "Resource", "resource": {"name": "cpu", "target": whole}}),
            vec!["spec.metrics[0].resource.target.type", "spec.metrics[0].resource.target.value"],
        ),
    ] {
        let found = with(metric.clone());
        let told: Vec<&str> = found.iter().map(|it| it.split(':').next().unwrap_or_default()).collect();
        assert_eq!(told, paths, "{metric}: {found:?}");
    }
}
