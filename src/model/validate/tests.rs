use proptest::prelude::*;
use serde_json::{Value, json};

use super::{validate, validate_update};
use crate::model::{Kind, Object, Typed, defaults};

fn typed(kind: Kind, value: Value) -> Typed {
    let mut typed = Object::from_value(kind, value).expect("of its kind").typed().clone();
    defaults::apply(&mut typed);
    typed
}

fn errors(kind: Kind, value: Value) -> Vec<String> {
    validate(&typed(kind, value)).iter().map(ToString::to_string).collect()
}

fn update(kind: Kind, old: Value, new: Value) -> Vec<String> {
    validate_update(&typed(kind, new), &typed(kind, old)).iter().map(ToString::to_string).collect()
}

/// A copy with the value at a JSON pointer replaced (null: removed).
fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut copy = base.clone();
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let at = copy.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} exists"));
    match at {
        Value::Array(list) => list[last.parse::<usize>().expect("an index")] = value,
        Value::Object(map) if value.is_null() => {
            map.remove(last);
        }
        Value::Object(map) => {
            map.insert(last.to_owned(), value);
        }
        _ => panic!("{parent} holds nothing"),
    }
    copy
}

fn pod() -> Value {
    json!({"metadata": {"name": "a", "namespace": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d", "namespace": "web"}, "spec": {"selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn job() -> Value {
    json!({"metadata": {"name": "j", "namespace": "web"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
}

fn service() -> Value {
    json!({"metadata": {"name": "s", "namespace": "web"}, "spec": {"ports": [{"port": 80}]}})
}

fn runtime_class() -> Value {
    json!({"metadata": {"name": "light"}, "handler": "runc", "overhead": {"podFixed": {"memory": "8Mi"}},
        "scheduling": {"nodeSelector": {"oci": "yes"}, "tolerations": [{"key": "oci", "operator": "Exists"}]}})
}

#[test]
fn runtime_classes_are_checked() {
    for (pointer, value, expected) in [
        ("/handler", json!("Not/One"), "handler: Invalid value: \"Not/One\": a lowercase RFC 1123 label must consist of"),
        ("/overhead/podFixed/memory", json!("-1"), "overhead.podFixed[memory]: Invalid value: \"-1\": must be greater than or equal to 0"),
        ("/scheduling/nodeSelector/oci", json!("a b"), "scheduling.nodeSelector: Invalid value: \"a b\": a valid label must be"),
        ("/scheduling/tolerations/0/operator", json!("x"), "scheduling.tolerations[0].operator:"),
    ] {
        let got = errors(Kind::RuntimeClass, with(&runtime_class(), pointer, value));
        assert!(got.len() == 1 && got[0].starts_with(expected), "{pointer}: {got:?}");
    }
    let other = with(&runtime_class(), "/handler", json!("crun"));
    let got = update(Kind::RuntimeClass, runtime_class(), other);
    assert_eq!(got, ["handler: Invalid value: \"crun\": field is immutable"]);
}

#[test]
fn plain_objects_are_valid() {
    let namespaced = json!({"metadata": {"name": "a", "namespace": "web"}});
    let cluster = json!({"metadata": {"name": "a"}});
    for (kind, value) in [
        (Kind::Pod, pod()),
        (Kind::Deployment, deployment()),
        (Kind::ReplicaSet, deployment()),
        (Kind::Job, job()),
        (Kind::Service, service()),
        (Kind::Namespace, cluster.clone()),
        (Kind::Node, cluster.clone()),
        (Kind::ConfigMap, with(&namespaced, "/data", json!({"a.b": "c"}))),
        (Kind::Secret, with(&namespaced, "/stringData", json!({"a": "b"}))),
        (Kind::ServiceAccount, namespaced.clone()),
        (Kind::RuntimeClass, runtime_class()),
        (Kind::Lease, with(&namespaced, "/spec", json!({"leaseDurationSeconds": 40}))),
        (
            Kind::EndpointSlice,
            json!({"metadata": {"name": "a", "namespace": "web"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        ),
        (Kind::Event, json!({"metadata": {"name": "a", "namespace": "web"}, "involvedObject": {"namespace": "web"}})),
        (Kind::Source, json!({"metadata": {"name": "a"}, "spec": {"directory": "/srv"}})),
    ] {
        assert_eq!(errors(kind, value), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn newer_events_say_who_did_what() {
    let with_time = |fields: &[(&str, &str)]| {
        let mut event = json!({"metadata": {"name": "a", "namespace": "kube-system"}, "eventTime": "2026-01-01T00:00:00.000000Z", "involvedObject": {},
            "reportingComponent": "example.org/c", "reportingInstance": "c-1", "action": "Binding", "reason": "Scheduled"});
        fields.iter().for_each(|(field, text)| event[*field] = json!(text));
        errors(Kind::Event, event)
    };
    assert_eq!(with_time(&[]), Vec::<String>::new());
    let empty = ["reportingComponent", "reportingInstance", "action", "reason"];
    assert_eq!(with_time(&empty.map(|field| (field, ""))), empty.map(|field| format!("{field}: Required value")));
    let long = "x".repeat(1025);
    let told = with_time(&[("reportingComponent", "a/b/c"), ("reportingInstance", &long), ("action", &long), ("message", &long)]);
    assert!(told[0].starts_with("reportingComponent: Invalid value: \"a/b/c\": a qualified name must consist of"), "{told:?}");
    let most = |field: &str, most: u32| format!("{field}: Invalid value: \"\": can have at most {most} characters");
    assert_eq!(told[1..], [most("reportingInstance", 128), most("action", 128), most("message", 1024)]);
}

#[test]
fn metadata_rules() {
    let long = "x".repeat(262_145);
    for (pointer, value, expected) in [
        ("/metadata/name", json!(null), "metadata.name: Required value: name or generateName is required"),
        (
            "/metadata/name",
            json!("A"),
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        ("/metadata/namespace", json!(null), "metadata.namespace: Required value"),
        (
            "/metadata/labels",
            json!({"a": "-"}),
            "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            "/metadata/labels",
            json!({"a/": "b"}),
            "metadata.labels: Invalid value: \"a/\": name part must be non-empty; metadata.labels: Invalid value: \"a/\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        ("/metadata/annotations", json!({"a": long}), "metadata.annotations: Too long: may not be more than 262144 bytes"),
        (
            "/metadata/finalizers",
            json!(["x"]),
            "metadata.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        (
            "/metadata/ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]),
            "metadata.ownerReferences[0].uid: Invalid value: \"\": uid must not be empty",
        ),
    ] {
        assert_eq!(errors(Kind::Pod, with(&pod(), pointer, value)).join("; "), expected);
    }
    let node = json!({"metadata": {"name": "n", "namespace": "x"}});
    assert_eq!(errors(Kind::Node, node), ["metadata.namespace: Forbidden: not allowed on this type"]);
    let generated = json!({"metadata": {"generateName": "a-", "namespace": "web"}, "data": {}});
    assert_eq!(errors(Kind::ConfigMap, generated), Vec::<String>::new());
}

/// A valid pod, one value changed (null: taken away), and what is said of it.
const POD_RULES: &[(&str, &str, &str)] = &[
    ("/spec/containers", r#"[]"#, "spec.containers: Required value"),
    (
        "/spec/containers/0/name",
        r#""C""#,
        "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    ),
    ("/spec/containers/0/image", r#"null"#, "spec.containers[0].image: Required value"),
    (
        "/spec/containers/0/image",
        r#"" i""#,
        "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
    ),
    ("/spec/initContainers", r#"[{"name": "c", "image": "i"}]"#, "spec.initContainers[0].name: Duplicate value: \"c\""),
    (
        "/spec/initContainers",
        r#"[{"name": "d", "image": "i", "livenessProbe": {"exec": {"command": ["a"]}}}]"#,
        "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
    ),
    (
        "/spec/initContainers",
        r#"[{"name": "d", "image": "i", "restartPolicy": "Never"}]"#,
        "spec.initContainers[0].restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
    ),
    (
        "/spec/containers/0/restartPolicy",
        r#""Always""#,
        "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers",
    ),
    (
        "/spec/containers/0/volumeMounts",
        r#"[{"name": "v", "mountPath": "/x"}]"#,
        "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
    ),
    (
        "/spec/containers/0/ports",
        r#"[{"containerPort": 70000}]"#,
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        "/spec/containers/0/ports",
        r#"[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]"#,
        "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
    ),
    (
        "/spec/containers/0/ports",
        r#"[{"containerPort": 1, "protocol": "tcp"}]"#,
        "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
    ),
    ("/spec/containers/0/livenessProbe", r#"{}"#, "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
    (
        "/spec/containers/0/livenessProbe",
        r#"{"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}"#,
        "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
    ),
    (
        "/spec/containers/0/livenessProbe",
        r#"{"exec": {"command": ["a"]}, "successThreshold": 2}"#,
        "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
    ),
    (
        "/spec/containers/0/readinessProbe",
        r#"{"httpGet": {"port": 0}}"#,
        "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
    ),
    (
        "/spec/containers/0/ports",
        r#"[{"containerPort": 80, "hostPort": 8080, "hostIP": "here"}, {"containerPort": 81, "hostPort": 70000}]"#,
        "spec.containers[0].ports[0].hostIP: Invalid value: \"here\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff); spec.containers[0].ports[1].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        "/spec/containers/0/ports",
        r#"[{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8080}]"#,
        "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\"",
    ),
    (
        "/spec/containers/0/env",
        r#"[{"name": "A=B"}]"#,
        "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
    ),
    (
        "/spec/containers/0/env",
        r#"[{"name": "A", "value": "x", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]"#,
        "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
    ),
    (
        "/spec/containers/0/env",
        r#"[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]"#,
        "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.x\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
    ),
    (
        "/spec/containers/0/envFrom",
        r#"[{}]"#,
        "spec.containers[0].envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"limits": {"cpu": "100m"}, "requests": {"cpu": "200m"}}"#,
        "spec.containers[0].resources.requests: Invalid value: \"200m\": must be less than or equal to cpu limit of 100m",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "2Mi"}}"#,
        "spec.containers[0].resources.requests: Invalid value: \"2Mi\": must be equal to hugepages-2Mi limit of 4Mi",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"limits": {"hugepages-2Mi": "4Mi"}}"#,
        "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}}"#,
        "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"requests": {"example.com/dongle": "4"}}"#,
        "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"limits": {"example.com/dongle": "4"}, "requests": {"example.com/dongle": "2"}}"#,
        "spec.containers[0].resources.requests: Invalid value: \"2\": must be equal to example.com/dongle limit of 4",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"limits": {"example.com/dongle": "500m"}}"#,
        "spec.containers[0].resources.limits[example.com/dongle]: Invalid value: \"500m\": must be an integer; spec.containers[0].resources.requests[example.com/dongle]: Invalid value: \"500m\": must be an integer",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"limits": {"cpu": "lots"}, "requests": {"cpu": "1"}}"#,
        "spec.containers[0].resources.limits[cpu]: Invalid value: \"lots\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ),
    (
        "/spec/containers/0/resources",
        r#"{"requests": {"disk": "1"}}"#,
        "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
    ),
    (
        "/spec/containers/0/imagePullPolicy",
        r#""Sometimes""#,
        "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
    ),
    (
        "/spec/containers/0/securityContext",
        r#"{"runAsUser": -1}"#,
        "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
    ),
    (
        "/spec/containers/0/securityContext",
        r#"{"privileged": true, "allowPrivilegeEscalation": false}"#,
        "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    ),
    (
        "/spec/containers/0/lifecycle",
        r#"{"preStop": {"sleep": {"seconds": 31}}}"#,
        "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
    ),
    (
        "/spec/containers/0/lifecycle",
        r#"{"stopSignal": "SIGQUIT"}"#,
        "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
    ),
    (
        "/spec/containers/0/livenessProbe",
        r#"{"grpc": {"port": 0, "mode": "tls"}}"#,
        "spec.containers[0].livenessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive; spec.containers[0].livenessProbe.grpc.mode: Unsupported value: \"tls\": supported values: \"Plaintext\", \"TLS\"",
    ),
    (
        "/spec/restartPolicy",
        r#""always""#,
        "spec.restartPolicy: Unsupported value: \"always\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    ),
    ("/spec/dnsPolicy", r#""None""#, "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
    ("/spec/volumes", r#"[{"name": "v"}, {"name": "v"}]"#, "spec.volumes[1].name: Duplicate value: \"v\""),
    (
        "/spec/volumes",
        r#"[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]"#,
        "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "image": {"pullPolicy": "Sometimes"}}, {"name": "w", "image": {"reference": "i"}, "emptyDir": {}}]"#,
        "spec.volumes[0].image.pullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"; spec.volumes[1].image: Forbidden: may not specify more than 1 volume type; spec.volumes[0].image.reference: Required value",
    ),
    ("/spec/volumes", r#"[{"name": "v", "secret": {}}]"#, "spec.volumes[0].secret.secretName: Required value"),
    (
        "/spec/volumes",
        r#"[{"name": "v", "configMap": {"name": "c", "defaultMode": 644}}]"#,
        "spec.volumes[0].configMap.defaultMode: Invalid value: 644: must be a number between 0 and 0777 (octal), both inclusive",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]"#,
        "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "hostPath": {"path": "/a/../b"}}]"#,
        "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "downwardAPI": {"defaultMode": 512, "items": [{"path": "/x", "fieldRef": {"fieldPath": "spec.nodeName"}}]}}]"#,
        "spec.volumes[0].downwardAPI.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive; spec.volumes[0].downwardAPI.path: Invalid value: \"/x\": must be a relative path; spec.volumes[0].downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}, {"path": "b"}]}}]"#,
        "spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value; spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "2"}}]}}]"#,
        "spec.volumes[0].downwardAPI.resourceFieldRef.divisor: Invalid value: \"cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "projected": {"sources": [{"secret": {"items": [{"key": "k", "path": "x"}]}}, {"configMap": {"name": "m", "items": [{"key": "k", "path": "x"}]}, "downwardAPI": {"items": []}}]}}]"#,
        "spec.volumes[0].projected.sources[0].secret.name: Required value; spec.volumes[0].projected.sources[1]: Forbidden: may not specify more than 1 volume type; spec.volumes[0].projected: Invalid value: \"m\": conflicting duplicate paths",
    ),
    (
        "/spec/volumes",
        r#"[{"name": "v", "projected": {"sources": []}, "emptyDir": {}}]"#,
        "spec.volumes[0].projected: Forbidden: may not specify more than 1 volume type",
    ),
    (
        "/spec/tolerations",
        r#"[{"operator": "Equal", "value": "x"}]"#,
        "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
    ),
    (
        "/spec/tolerations",
        r#"[{"key": "k", "operator": "Exists", "value": "x"}]"#,
        "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
    ),
    ("/spec/activeDeadlineSeconds", r#"0"#, "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
    (
        "/spec/terminationGracePeriodSeconds",
        r#"-1"#,
        "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        "/spec/affinity",
        r#"{"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}"#,
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least \
         one node selector term",
    ),
    (
        "/spec/hostAliases",
        r#"[{"ip": "x"}]"#,
        "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    ),
    (
        "/spec/securityContext",
        r#"{"seccompProfile": {"type": "Localhost"}}"#,
        "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
    ),
    (
        "/spec/securityContext",
        r#"{"seccompProfile": {"type": "Localhost", "localhostProfile": "/a/../b"}}"#,
        "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"/a/../b\": must be a relative path; spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"/a/../b\": must not contain '..'",
    ),
    (
        "/spec/securityContext",
        r#"{"appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}"#,
        "spec.securityContext.appArmorProfile.localhostProfile: Invalid value: \" x\": must not be padded with whitespace",
    ),
    (
        "/spec/containers/0/securityContext",
        r#"{"appArmorProfile": {"type": "Localhost"}}"#,
        "spec.containers[0].securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
    ),
    (
        "/spec/containers/0/securityContext",
        r#"{"procMount": "Unmasked"}"#,
        "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
    ),
];

#[test]
fn a_user_namespace_goes_with_no_other_namespace_of_the_hosts() {
    let own = with(&pod(), "/spec/hostUsers", json!(false));
    assert_eq!(errors(Kind::Pod, own.clone()), Vec::<String>::new());
    let unmasked = with(&own, "/spec/containers/0/securityContext", json!({"procMount": "Unmasked"}));
    assert_eq!(errors(Kind::Pod, unmasked), Vec::<String>::new());
    for name in ["hostNetwork", "hostPID", "hostIPC"] {
        let both = with(&own, &format!("/spec/{name}"), json!(true));
        assert_eq!(errors(Kind::Pod, both), [format!("spec.{name}: Forbidden: when `pod.Spec.HostUsers` is false")]);
    }
    // Nor with devices of the host's.
    let volumes = json!([{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]);
    let devices = json!([{"name": "disk", "devicePath": "/dev/xvda"}]);
    let with_disk = with(&own, "/spec/volumes", volumes);
    let in_main = with(&with_disk, "/spec/containers/0/volumeDevices", devices.clone());
    let refusal = |list: &str| format!("spec.{list}[0].volumeDevices: Forbidden: when `pod.Spec.HostUsers` is false");
    assert_eq!(errors(Kind::Pod, in_main.clone()), [refusal("containers")]);
    assert_eq!(errors(Kind::Pod, with(&in_main, "/spec/hostUsers", json!(true))), Vec::<String>::new());
    let init = json!([{"name": "init", "image": "i", "volumeDevices": devices}]);
    assert_eq!(errors(Kind::Pod, with(&with_disk, "/spec/initContainers", init)), [refusal("initContainers")]);
}

#[test]
fn pod_rules() {
    for (pointer, value, expected) in POD_RULES {
        let value: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!(errors(Kind::Pod, with(&pod(), pointer, value.clone())).join("; "), *expected, "{pointer} = {value}");
    }
    let mounted = with(&pod(), "/spec/volumes", json!([{"name": "v"}]));
    let twice = json!([{"name": "v", "mountPath": "/x"}, {"name": "v", "mountPath": "/x", "subPath": "/a"}]);
    assert_eq!(
        errors(Kind::Pod, with(&mounted, "/spec/containers/0/volumeMounts", twice)),
        [
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
            "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"/a\": must be a relative path"
        ]
    );
}

#[test]
fn workload_rules() {
    for (pointer, value, expected) in [
        ("/spec/selector", json!({}), "spec.selector: Required value: empty selector is invalid for deployment"),
        (
            "/spec/template/metadata/labels",
            json!({"app": "y"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`",
        ),
        ("/spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "/spec/strategy",
            json!({"type": "Blue"}),
            "spec.strategy.type: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": "x"}}),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ),
        ("/spec/minReadySeconds", json!(600), "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        ("/spec/template/spec/containers/0/name", json!(""), "spec.template.spec.containers[0].name: Required value"),
        (
            "/spec/template/spec/activeDeadlineSeconds",
            json!(3),
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
        ),
    ] {
        assert_eq!(errors(Kind::Deployment, with(&deployment(), pointer, value)).join("; "), expected);
    }
    for (pointer, value, expected) in [
        (
            "/spec/template/spec/restartPolicy",
            json!(null),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        ("/spec/parallelism", json!(-1), "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
        (
            "/spec/selector",
            json!({"matchLabels": {"a": "b"}}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated",
        ),
        (
            "/spec/completionMode",
            json!("indexed"),
            "spec.completionMode: Unsupported value: \"indexed\": supported values: \"Indexed\", \"NonIndexed\"",
        ),
    ] {
        assert_eq!(errors(Kind::Job, with(&job(), pointer, value)).join("; "), expected);
    }
}

#[test]
fn service_rules() {
    for (pointer, value, expected) in [
        ("/spec/ports", json!([]), "spec.ports: Required value"),
        (
            "/spec/ports",
            json!([{"port": 0, "targetPort": 1}]),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        ("/spec/ports", json!([{"port": 1, "name": "a"}, {"port": 2}]), "spec.ports[1].name: Required value"),
        (
            "/spec/ports",
            json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
            "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
        ),
        (
            "/spec/ports",
            json!([{"port": 1, "nodePort": 30000}]),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            "/spec/type",
            json!("Cluster"),
            "spec.type: Unsupported value: \"Cluster\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            "/spec/clusterIP",
            json!("10.0.0"),
            "spec.clusterIPs[0]: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "/metadata/name",
            json!("1a"),
            "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ),
    ] {
        assert_eq!(errors(Kind::Service, with(&service(), pointer, value)).join("; "), expected);
    }
    let headless = json!({"metadata": {"name": "s", "namespace": "web"}, "spec": {"clusterIP": "None"}});
    assert_eq!(errors(Kind::Service, headless), Vec::<String>::new());
    let slice = json!({"metadata": {"name": "a", "namespace": "web"}, "addressType": "IPv4", "endpoints": [{"addresses": ["x"]}, {"addresses": []}]});
    assert_eq!(
        errors(Kind::EndpointSlice, slice),
        [
            "endpoints[0].addresses[0]: Invalid value: \"x\": must be a valid IPv4 address",
            "endpoints[1].addresses: Required value: must contain at least 1 address"
        ]
    );
}

/// A Service without a selector must not lead to the sender's own host, or to its cloud's metadata.
#[test]
fn endpoints_are_not_the_senders_own() {
    let addresses = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "192.168.0.1"];
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    let slice = json!({"metadata": {"name": "a", "namespace": "web"}, "addressType": "IPv4", "endpoints": endpoints});
    assert_eq!(
        errors(Kind::EndpointSlice, slice),
        [
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "endpoints[1].addresses[0]: Invalid value: \"169.254.169.254\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            "endpoints[2].addresses[0]: Invalid value: \"224.0.0.1\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
            "endpoints[3].addresses[0]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
        ]
    );
}

/// Charts write both.
#[test]
fn slips_of_charts_are_told_as_kubernetes_tells_them() {
    let nameless = with(&pod(), "/spec/imagePullSecrets", json!([{"name": ""}, {}]));
    assert_eq!(errors(Kind::Pod, nameless), Vec::<String>::new());
    let limit = with(&pod(), "/spec/containers/0/resources", json!({"limits": {"cpu": "much"}}));
    let found = errors(Kind::Pod, limit);
    assert!(found.len() == 1 && found[0].starts_with("spec.containers[0].resources.limits[cpu]: "), "{found:?}");
}

#[test]
fn rules_of_the_other_kinds() {
    let secret = |type_: &str, data: Value| json!({"metadata": {"name": "s", "namespace": "web"}, "type": type_, "stringData": data});
    let source = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    let config = json!({"metadata": {"name": "s", "namespace": "web"}, "data": {"a/b": "", "c": ""}, "binaryData": {"c": ""}});
    for (kind, value, expected) in [
        (
            Kind::ConfigMap,
            config,
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+'); data[c]: Invalid value: \"c\": duplicate of key present in binaryData",
        ),
        (Kind::Secret, secret("kubernetes.io/tls", json!({"tls.crt": "x"})), "data[tls.key]: Required value"),
        (
            Kind::Secret,
            secret("kubernetes.io/service-account-token", json!({})),
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        ),
        (
            Kind::Secret,
            secret("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "geheim"})),
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character in JSON",
        ),
        (
            Kind::Node,
            json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "k", "effect": "NoWay"}]}}),
            "spec.taints[0].effect: Unsupported value: \"NoWay\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ),
        (Kind::Source, source(json!({})), "spec: Required value: must specify one of: `directory` or `git`"),
        (Kind::Source, source(json!({"directory": "x"})), "spec.directory: Invalid value: \"x\": must be an absolute path"),
        (
            Kind::Source,
            source(json!({"git": {"url": "git@host:a.git"}})),
            "spec.git.knownHostsFile: Required value: a host is trusted by its key only",
        ),
        (
            Kind::Source,
            source(json!({"git": {"url": "https://me:geheim@host/a"}})),
            "spec.git.url: Invalid value: \"<redacted>\": must not contain a password: use `tokenFile` or `sshKeyFile`",
        ),
        (
            Kind::Source,
            source(json!({"git": {"url": "https://host/a"}, "path": "../x"})),
            "spec.path: Invalid value: \"../x\": must not contain '..'",
        ),
    ] {
        assert_eq!(errors(kind, value).join("; "), expected, "{kind}");
    }
    let big = json!({"metadata": {"name": "c", "namespace": "web"}, "data": {"a": "x".repeat(1_048_577)}});
    assert_eq!(errors(Kind::ConfigMap, big), ["data: Too long: may not be more than 1048576 bytes"]);
}

#[test]
fn a_git_url_may_name_a_user_and_a_port() {
    for (url, is_good) in [
        ("ssh://git@host:2222/a", true),
        ("ssh://git@[::1]:2222/a", true),
        ("ssh://host:2222/a@b:c", true),
        ("git@host:a", true),
        ("https://me@host:8443/a", true),
        ("https://host:8443/a", true),
        ("https://me:geheim@host:8443/a", false),
        ("https://:geheim@host/a", false),
        ("ssh://git:geheim@[::1]/a", false),
        ("https://me:ge@heim@host?a", false),
    ] {
        let git = json!({"url": url, "knownHostsFile": "/k"});
        let source = json!({"metadata": {"name": "s"}, "spec": {"git": git}});
        let said = errors(Kind::Source, source).join("; ");
        assert_eq!(said.is_empty(), is_good, "{url}: {said}");
        assert!(!said.contains("heim"), "{said}");
    }
}

#[test]
fn updates_keep_what_is_immutable() {
    let config = json!({"metadata": {"name": "c", "namespace": "web"}, "data": {"a": "b"}, "immutable": true});
    let secret = json!({"metadata": {"name": "c", "namespace": "web"}, "type": "a/b"});
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.80.1.0/24"}});
    let fixed = with(&service(), "/spec/clusterIP", json!("10.96.0.7"));
    let relabelled =
        with(&with(&deployment(), "/spec/selector/matchLabels/app", json!("y")), "/spec/template/metadata/labels/app", json!("y"));
    for (kind, old, new, expected) in [
        (Kind::Deployment, deployment(), relabelled, "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"),
        (Kind::Job, job(), with(&job(), "/spec/completions", json!(3)), "spec.completions: Invalid value: 3: field is immutable"),
        (
            Kind::ConfigMap,
            config.clone(),
            with(&config, "/data/a", json!("c")),
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
        (
            Kind::ConfigMap,
            config.clone(),
            with(&config, "/immutable", json!(null)),
            "immutable: Forbidden: field is immutable when `immutable` is set",
        ),
        (Kind::Secret, secret.clone(), with(&secret, "/type", json!("a/c")), "type: Invalid value: \"a/c\": field is immutable"),
        (
            Kind::Service,
            fixed.clone(),
            with(&fixed, "/spec/clusterIP", json!("10.96.0.8")),
            "spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set",
        ),
        (
            Kind::Node,
            node.clone(),
            with(&node, "/spec/podCIDR", json!("10.80.2.0/24")),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
        ),
        (
            Kind::Node,
            node.clone(),
            with(&node, "/metadata/uid", json!("other")),
            "metadata.uid: Invalid value: \"other\": field is immutable",
        ),
        (Kind::Pod, pod(), with(&pod(), "/spec/hostNetwork", json!(true)), &format!("spec: Forbidden: {}", super::update::POD)),
        (
            Kind::Pod,
            with(&pod(), "/spec/nodeName", json!("n1")),
            with(&pod(), "/spec/nodeName", json!("n2")),
            &format!("spec: Forbidden: {}", super::update::POD),
        ),
        (Kind::Pod, pod(), with(&pod(), "/spec/nodeName", json!("n1")), ""),
        (Kind::Pod, pod(), with(&pod(), "/spec/containers/0/image", json!("j:1")), &format!("spec: Forbidden: {}", super::update::POD)),
        (Kind::Pod, with(&pod(), "/spec/containers/0/image", json!("i:1")), with(&pod(), "/spec/containers/0/image", json!("i:2")), ""),
        (Kind::Pod, pod(), with(&pod(), "/spec/tolerations", json!([{"operator": "Exists"}])), ""),
        (Kind::Pod, pod(), with(&pod(), "/spec/activeDeadlineSeconds", json!(5)), ""),
        (
            Kind::Pod,
            with(&pod(), "/spec/activeDeadlineSeconds", json!(5)),
            with(&pod(), "/spec/activeDeadlineSeconds", json!(6)),
            "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value 5",
        ),
        (Kind::Deployment, deployment(), with(&deployment(), "/spec/replicas", json!(5)), ""),
    ] {
        assert_eq!(update(kind, old, new).join("; "), expected, "{kind}");
    }
    let doomed = json!({"metadata": {"name": "c", "namespace": "web", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
    assert_eq!(
        update(Kind::ConfigMap, doomed.clone(), with(&doomed, "/metadata/finalizers", json!(["a/b", "c/d"]))),
        ["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers [\"c/d\"]"]
    );
}

proptest! {
    /// Whatever text stands in a name, validation answers and an object is valid against itself.
    #[test]
    fn never_panics(text in "\\PC{0,20}", number in any::<i32>(), other in "[a-z.%/=-]{0,12}") {
        let mut value = deployment();
        value["metadata"]["name"] = json!(text);
        value["metadata"]["labels"] = json!({&text: &other});
        value["spec"]["replicas"] = json!(number);
        value["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": other}});
        value["spec"]["template"]["spec"]["volumes"] = json!([{"name": text, "hostPath": {"path": other}}]);
        value["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": other, "value": text}]);
        value["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": text, "mountPath": other, "subPath": other}]);
        value["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": other}, "requests": {&other: "1"}});
        let object = typed(Kind::Deployment, value);
        let _ = validate(&object);
        prop_assert_eq!(validate_update(&object, &object), vec![]);
    }
}
