use super::*;
use k8s_openapi::ByteString;
use serde_json::json;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}, "annotations": {"a/b": "c"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "x", "resources": {"limits": {"memory": "64Mi"}}}]}
    }))
    .unwrap()
}

fn services() -> Vec<Service> {
    serde_json::from_value(json!([
        {"metadata": {"name": "my-db", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "sql", "port": 5432}, {"port": 9, "protocol": "UDP"}]}},
        {"metadata": {"name": "headless", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {"metadata": {"name": "other", "namespace": "elsewhere"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}},
        {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}}
    ]))
    .unwrap()
}

fn references() -> References {
    let config: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "conf"}, "data": {"MODE": "fast", "bad=key": "x"}})).unwrap();
    let secret = Secret { data: Some([("PASS".to_owned(), ByteString(b"s3".to_vec()))].into()), ..Secret::default() };
    References { config_maps: [("conf".to_owned(), config)].into(), secrets: [("cred".to_owned(), secret)].into(), ..References::default() }
}

fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
    run_in(&pod(), container)
}

fn run_in(pod: &Pod, container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
    let container: Container = serde_json::from_value(container).unwrap();
    let (references, services) = (references(), services());
    let machine = resources::Machine { cpu_millis: 2000, memory_bytes: 1 << 30, storage_bytes: 0, ..Default::default() };
    let around = Surroundings {
        pod,
        references: &references,
        services: &services,
        pod_ips: &["10.80.0.5".to_owned()],
        host_ips: &["192.0.2.1".to_owned()],
        allocatable: &machine,
    };
    environment(&container, &around)
}

fn get<'a>(all: &'a [(String, String)], name: &str) -> Option<&'a str> {
    all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn expansion_is_kubernetes_own() {
    let table = [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(NO)", "$(NO)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$()", "$()"),
        ("", ""),
    ];
    for (text, want) in table {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "B" => Some("2".to_owned()),
            _ => None,
        };
        assert_eq!(expand(text, lookup), want, "{text:?}");
    }
}

#[test]
fn references_are_followed() {
    let all = run(json!({"name": "main", "env": [
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "MODE"}}},
        {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "cred", "key": "PASS"}}},
        {"name": "URL", "value": "db://$(PASS)@$(MY_DB_SERVICE_HOST)"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a/b']"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k", "optional": true}}},
        {"name": "EMPTY", "value": ""}
    ]}))
    .unwrap();
    for (name, want) in [
        ("MODE", Some("fast")),
        ("PASS", Some("s3")),
        ("URL", Some("db://s3@10.96.0.7")),
        ("NODE", Some("n1")),
        ("APP", Some("web")),
        ("NOTE", Some("c")),
        ("IP", Some("10.80.0.5")),
        ("NONE", None),
        ("EMPTY", Some("")),
    ] {
        assert_eq!(get(&all, name), want, "{name}");
    }
}

#[test]
fn env_from_comes_first_and_is_overridden_in_place() {
    let all = run(json!({"name": "main",
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "conf"}}, {"secretRef": {"name": "cred"}}, {"configMapRef": {"name": "absent", "optional": true}}],
        "env": [{"name": "PASS", "value": "mine"}, {"name": "COPY", "value": "$(C_MODE)"}]}))
    .unwrap();
    assert_eq!(all[0], ("C_MODE".to_owned(), "fast".to_owned()));
    assert_eq!(all[1], ("PASS".to_owned(), "mine".to_owned()));
    assert_eq!(get(&all, "COPY"), Some("$(C_MODE)"), "the kubelet does not expand what envFrom defines");
    assert_eq!(get(&all, "C_bad=key"), None);
}

#[test]
fn what_is_missing_is_named() {
    let table = [
        (json!({"configMapKeyRef": {"name": "absent", "key": "k"}}), "configmap \"absent\" not found"),
        (json!({"configMapKeyRef": {"name": "conf", "key": "k"}}), "couldn't find key k in ConfigMap conf"),
        (json!({"secretKeyRef": {"name": "absent", "key": "k"}}), "secret \"absent\" not found"),
        (json!({"secretKeyRef": {"name": "cred", "key": "k"}}), "couldn't find key k in Secret cred"),
        (json!({"fieldRef": {"fieldPath": "spec.nonsense"}}), "environment variable V: unsupported fieldPath: spec.nonsense"),
    ];
    for (from, want) in table {
        let error = run(json!({"name": "main", "env": [{"name": "V", "valueFrom": from}]})).unwrap_err();
        assert_eq!(error.to_string(), want);
        assert!(!error.to_string().contains("s3"), "no secret value in an error");
    }
    assert!(run(json!({"name": "main", "envFrom": [{"secretRef": {"name": "absent"}}]})).is_err());
}

#[test]
fn services_of_the_namespace_are_variables() {
    let all = run(json!({"name": "main"})).unwrap();
    for (name, want) in [
        ("MY_DB_SERVICE_HOST", Some("10.96.0.7")),
        ("MY_DB_SERVICE_PORT", Some("5432")),
        ("MY_DB_SERVICE_PORT_SQL", Some("5432")),
        ("MY_DB_PORT", Some("tcp://10.96.0.7:5432")),
        ("MY_DB_PORT_5432_TCP_ADDR", Some("10.96.0.7")),
        ("MY_DB_PORT_9_UDP_PROTO", Some("udp")),
        ("KUBERNETES_SERVICE_PORT_HTTPS", Some("443")),
        ("HEADLESS_SERVICE_HOST", None),
        ("OTHER_SERVICE_HOST", None),
    ] {
        assert_eq!(get(&all, name), want, "{name}");
    }
    let mut alone = pod();
    alone.spec.as_mut().unwrap().enable_service_links = Some(false);
    let all = run_in(&alone, json!({"name": "main"})).unwrap();
    assert_eq!(get(&all, "MY_DB_SERVICE_HOST"), None);
    assert_eq!(get(&all, "KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
}

#[test]
fn command_words_see_every_variable() {
    let variables = [("A".to_owned(), "1".to_owned())];
    assert_eq!(expand_all(&["x$(A)".to_owned(), "$(B)".to_owned()], &variables), ["x1", "$(B)"]);
}
