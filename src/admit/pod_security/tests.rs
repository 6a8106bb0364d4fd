use serde_json::{Value, json};

use super::*;

fn found(level: Level, spec: Value) -> Vec<String> {
    let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
    violations(level, &ObjectMeta::default(), &spec)
}

/// One container `a` with this security context.
fn with(context: Value) -> Value {
    json!({"containers": [{"name": "a", "securityContext": context}]})
}

fn strict() -> Value {
    json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})
}

#[test]
fn a_plain_pod_is_of_the_baseline() {
    assert_eq!(found(Level::Baseline, with(json!({}))), [""; 0]);
    assert_eq!(found(Level::Restricted, with(strict())), [""; 0]);
    assert_eq!(
        found(Level::Restricted, with(json!({}))),
        [
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"])",
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ]
    );
}

#[test]
fn the_baseline_forbids_what_reaches_the_host() {
    let table = [
        (json!({"containers": [], "hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"v\")"),
        (with(json!({"privileged": true})), "privileged (container \"a\" must not set securityContext.privileged=true)"),
        (
            with(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}})),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}),
            "hostPort (container \"a\" uses hostPort 8080)",
        ),
        (
            with(json!({"seccompProfile": {"type": "Unconfined"}})),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (with(json!({"procMount": "Unmasked"})), "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")"),
        (
            json!({"containers": [], "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"},
                {"name": "kernel.msgmax", "value": "1"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"containers": [], "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            with(json!({"seLinuxOptions": {"type": "spc_t"}})),
            "seLinuxOptions (pod or containers set forbidden securityContext.seLinuxOptions)",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 80, "host": "127.0.0.1"}}}]}),
            "probe or lifecycle host (container \"a\" must not set a host in a probe or lifecycle handler)",
        ),
    ];
    for (spec, wanted) in table {
        assert_eq!(found(Level::Privileged, spec.clone()), [""; 0]);
        assert_eq!(found(Level::Baseline, spec), [wanted]);
    }
}

#[test]
fn what_the_pod_says_holds_for_containers_that_say_nothing() {
    let pod = json!({"runAsNonRoot": true, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}});
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let spec = |own: Value| {
        let mut context = context.clone();
        context.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
        json!({"securityContext": pod, "containers": [{"name": "a", "securityContext": context}]})
    };
    assert_eq!(found(Level::Restricted, spec(json!({}))), [""; 0]);
    assert_eq!(found(Level::Restricted, spec(json!({"runAsNonRoot": false}))).len(), 1);
    assert_eq!(found(Level::Restricted, spec(json!({"runAsUser": 0}))), ["runAsUser=0 (container \"a\" must not set runAsUser=0)"]);
    assert_eq!(found(Level::Restricted, spec(json!({"seccompProfile": {"type": "Unconfined"}}))).len(), 1);
}

#[test]
fn the_pod_itself_says_nothing_that_is_forbidden() {
    let spec = |pod: Value| json!({"securityContext": pod, "containers": [{"name": "a", "securityContext": strict()}]});
    for (pod, wanted) in [
        (
            json!({"seccompProfile": {"type": "Unconfined"}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (json!({"runAsNonRoot": false}), "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)"),
        (json!({"runAsUser": 0}), "runAsUser=0 (pod must not set runAsUser=0)"),
    ] {
        assert_eq!(found(Level::Restricted, spec(pod)), [wanted]);
    }
}

#[test]
fn root_of_the_pods_own_users_is_no_root() {
    let context = json!({"allowPrivilegeEscalation": false, "runAsUser": 0, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}});
    let mut spec = with(context);
    assert_eq!(found(Level::Restricted, spec.clone()).len(), 2);
    spec["hostUsers"] = json!(false);
    assert_eq!(found(Level::Restricted, spec), [""; 0]);
}

#[test]
fn init_and_ephemeral_containers_count_and_are_named_together() {
    let spec = json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}], "containers": [{"name": "a"}],
        "ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}]});
    assert_eq!(found(Level::Baseline, spec), ["privileged (containers \"i\", \"e\" must not set securityContext.privileged=true)"]);
}

#[test]
fn only_volumes_of_the_pod_itself_are_restricted_ones() {
    let spec = |volume: Value| {
        let mut spec = with(strict());
        spec["volumes"] = json!([volume]);
        spec
    };
    assert_eq!(found(Level::Restricted, spec(json!({"name": "v", "emptyDir": {}}))), [""; 0]);
    assert_eq!(
        found(Level::Restricted, spec(json!({"name": "v", "nfs": {"path": "/", "server": "a"}}))),
        ["restricted volume types (volume \"v\" uses a restricted volume type)"]
    );
}

fn namespace(labels: Value) -> Object {
    Object::from_value(Kind::Namespace, json!({"metadata": {"name": "web", "labels": labels}})).expect("a namespace")
}

fn pod(spec: Value) -> Object {
    Object::from_value(Kind::Pod, json!({"metadata": {"name": "p", "namespace": "web"}, "spec": spec})).expect("a pod")
}

#[test]
fn labels_of_the_namespace_decide() {
    let mut state = Snapshot::default();
    state
        .insert(namespace(json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/warn": "restricted"})));
    let plain = pod(with(json!({})));
    assert_eq!(admit(plain.get().expect("a pod"), &state), Ok(()));
    assert!(warnings(&plain, None, &state)[0].starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"));
    let privileged = pod(with(json!({"privileged": true})));
    let refused = admit(privileged.get().expect("a pod"), &state).expect_err("refused");
    assert!(refused.starts_with("violates PodSecurity \"baseline:v1.30\": privileged (container \"a\""), "{refused}");
}

#[test]
fn a_word_that_is_no_level_leaves_nothing_open() {
    let mut state = Snapshot::default();
    state.insert(namespace(json!({"pod-security.kubernetes.io/enforce": "strict"})));
    assert!(admit(pod(with(json!({}))).get().expect("a pod"), &state).is_err());
}

#[test]
fn who_tightens_a_namespace_hears_which_pods_break_it() {
    let mut state = Snapshot::default();
    let (open, tight) = (namespace(json!({})), namespace(json!({"pod-security.kubernetes.io/enforce": "baseline"})));
    state.insert(open.clone());
    state.insert(pod(with(json!({"privileged": true}))));
    assert_eq!(
        warnings(&tight, Some(&open), &state),
        ["existing pods in namespace \"web\" violate the new PodSecurity enforce level \"baseline:latest\"", "p: privileged"]
    );
    assert_eq!(warnings(&open, Some(&tight), &state), [""; 0]);
}
