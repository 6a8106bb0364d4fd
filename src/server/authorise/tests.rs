//! One row a right, by name.

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::*;
use crate::model::local_volume::{HOME, LOCAL_PATH, PROVISIONED_BY};

fn state() -> Snapshot {
    let mut state = Snapshot::default();
    let mine = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine", "namespace": "web"},
        "spec": {
            "nodeName": "n1", "serviceAccountName": "runner", "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "volume"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected"}}]}},
                {"name": "c", "configMap": {"name": "volume"}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ],
            "containers": [{"name": "c", "image": "i",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
                        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "k"}}}],
                "envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "from"}}]}],
            "initContainers": [{"name": "i", "image": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "init", "key": "k"}}}]}],
        },
    });
    let other = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other", "namespace": "web"},
        "spec": {"nodeName": "n2", "volumes": [{"name": "a", "secret": {"secretName": "theirs"}}], "containers": [{"name": "c", "image": "i"}]},
    });
    for (claim, volume) in [("data", "disk"), ("theirs", "other-disk")] {
        let claim = json!({"metadata": {"name": claim, "namespace": "web"}, "spec": {"volumeName": volume}});
        state.insert(Object::from_value(Kind::PersistentVolumeClaim, claim).unwrap());
    }
    for (name, home) in [("here", "n1"), ("elsewhere", "n2")] {
        let meta = json!({"name": name, "labels": {(HOME): home}, "annotations": {(PROVISIONED_BY): LOCAL_PATH}});
        state.insert(Object::from_value(Kind::PersistentVolume, json!({"metadata": meta})).unwrap());
    }
    let labelled = json!({"metadata": {"name": "labelled", "labels": {(HOME): "n1"}}});
    state.insert(Object::from_value(Kind::PersistentVolume, labelled).unwrap());
    for pod in [mine, other] {
        state.insert(Object::from_value(Kind::Pod, pod).unwrap());
    }
    state
}

/// `VERB resource[/sub] [namespace/]name [node=N] [home=N] [name=N]`
fn attempt(text: &str) -> Attempt<'_> {
    let mut words = text.split_whitespace();
    let verb = match words.next().unwrap() {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        other => panic!("no verb {other}"),
    };
    let resource = words.next().unwrap();
    let (plural, subresource) = resource.split_once('/').map_or((resource, None), |(plural, sub)| (plural, Some(sub)));
    let kind = Kind::of_word(plural).unwrap();
    let mut attempt =
        Attempt { verb, kind, namespace: "", name: None, subresource, selected_node: None, selected_name: None, selected_home: None };
    for word in words {
        if let Some(node) = word.strip_prefix("node=") {
            attempt.selected_node = Some(node);
        } else if let Some(home) = word.strip_prefix("home=") {
            attempt.selected_home = Some(home);
        } else if let Some(name) = word.strip_prefix("name=") {
            attempt.selected_name = Some(name);
        } else if let Some((namespace, name)) = word.split_once('/') {
            attempt.namespace = namespace;
            attempt.name = Some(name).filter(|name| !name.is_empty());
        } else {
            attempt.name = Some(word);
        }
    }
    attempt
}

const NODE_MAY: &[&str] = &[
    "get persistentvolumeclaims web/data",
    "get persistentvolumeclaims web/mine-e",
    "get persistentvolumes disk",
    "get persistentvolumes here",
    "patch persistentvolumes here",
    "list persistentvolumes home=n1",
    "watch persistentvolumes home=n1",
    "get secrets web/volume",
    "get secrets web/projected",
    "get secrets web/env",
    "get secrets web/from",
    "get secrets web/init",
    "get secrets web/pull",
    "watch secrets web/ name=volume",
    "get configmaps web/volume",
    "get configmaps web/projected",
    "get configmaps web/env",
    "get configmaps web/from",
    "get configmaps kube-system/podbay-cluster",
    "watch configmaps kube-system/ name=podbay-cluster",
    "get serviceaccounts web/runner",
    "create serviceaccounts/token web/runner",
    "list services",
    "watch services",
    "get services web/x",
    "list endpointslices",
    "watch endpointslices",
    "list nodes",
    "watch nodes",
    "get nodes n2",
    "list pods node=n1",
    "watch pods node=n1",
    "get pods web/mine",
    "delete pods web/mine",
    "update pods/status web/mine",
    "patch pods/status web/mine",
    "create certificatesigningrequests",
    "watch certificatesigningrequests",
    "create nodes",
    "update nodes n1",
    "patch nodes n1",
    "update nodes/status n1",
    "patch nodes/status n1",
    "create leases kube-node-lease/",
    "get leases kube-node-lease/n1",
    "update leases kube-node-lease/n1",
    "patch leases kube-node-lease/n1",
    "delete leases kube-node-lease/n1",
    "create csinodes",
    "get csinodes n1",
    "update csinodes n1",
    "patch csinodes n1",
    "delete csinodes n1",
    "list csidrivers",
    "watch csidrivers",
    "get csidrivers x",
    "create pods web/",
    "create pods/eviction web/mine",
    "create events web/",
    "patch events web/x",
];

const NODE_MAY_NOT: &[&str] = &[
    "get persistentvolumeclaims web/theirs",
    "get persistentvolumeclaims other/data",
    "update persistentvolumeclaims web/data",
    "list persistentvolumeclaims",
    "get persistentvolumes other-disk",
    "get persistentvolumes elsewhere",
    "get persistentvolumes labelled",
    "patch persistentvolumes elsewhere",
    "patch persistentvolumes disk",
    "patch persistentvolumes labelled",
    "patch persistentvolumes none",
    "update persistentvolumes here",
    "delete persistentvolumes here",
    "patch persistentvolumes/status here",
    "list persistentvolumes",
    "list persistentvolumes home=n2",
    "watch persistentvolumes",
    "delete persistentvolumes disk",
    "get storageclasses x",
    "get secrets web/theirs",
    "get secrets web/none",
    "get secrets kube-system/volume",
    "list secrets web/",
    "list secrets",
    "watch secrets",
    "watch secrets web/ name=theirs",
    "create secrets web/",
    "update secrets web/volume",
    "patch secrets web/volume",
    "delete secrets web/volume",
    "list configmaps",
    "list configmaps kube-system/",
    "update configmaps kube-system/podbay-cluster",
    "get configmaps web/other",
    "get serviceaccounts web/default",
    "create serviceaccounts/token web/default",
    "create serviceaccounts/token web/",
    "list serviceaccounts web/",
    "list pods",
    "watch pods",
    "list pods node=n2",
    "watch pods web/",
    "get pods web/other",
    "get pods web/none",
    "delete pods web/other",
    "update pods/status web/other",
    "patch pods/status web/other",
    "update pods web/mine",
    "patch pods web/mine",
    "create pods/binding web/mine",
    "create pods/exec web/mine",
    "get pods/exec web/mine",
    "get pods/log web/mine",
    "get pods/portforward web/mine",
    "create pods/eviction web/other",
    "deletecollection pods web/",
    "update nodes n2",
    "patch nodes n2",
    "update nodes/status n2",
    "patch nodes/status n2",
    "update certificatesigningrequests/approval x",
    "delete certificatesigningrequests x",
    "delete nodes n1",
    "delete nodes n2",
    "update leases kube-node-lease/n2",
    "patch leases kube-node-lease/n2",
    "create leases web/",
    "patch leases kube-system/n1",
    "delete leases kube-node-lease/n2",
    "get csinodes n2",
    "update csinodes n2",
    "delete csinodes n2",
    "list csinodes",
    "watch csinodes",
    "deletecollection csinodes",
    "create csidrivers",
    "delete csidrivers x",
    "list leases",
    "list events",
    "delete events web/x",
    "update services web/x",
    "create services web/",
    "update endpointslices web/x",
    "list deployments",
    "create deployments web/",
    "get replicasets web/x",
    "get jobs web/x",
    "create namespaces",
    "delete namespaces web",
    "list sources",
    "get sources web",
    "patch sources web",
    "create sources",
];

#[test]
fn a_node_may_do_exactly_this() {
    let state = state();
    let node = Identity::node("n1");
    for row in NODE_MAY {
        assert_eq!(authorise(&node, &attempt(row), &state), Ok(()), "{row}");
    }
    for row in NODE_MAY_NOT {
        let refusal = authorise(&node, &attempt(row), &state).expect_err(row);
        assert!(refusal.contains("is forbidden: User \"system:node:n1\" cannot"), "{row}: {refusal}");
    }
}

#[test]
fn an_admin_may_do_everything_and_nobody_else_anything() {
    let state = state();
    let strangers =
        [Identity::new("someone", &[]), Identity::new("system:node:n1", &[]), Identity::new("someone", &[super::super::identity::NODES])];
    for row in NODE_MAY.iter().chain(NODE_MAY_NOT) {
        assert_eq!(authorise(&Identity::admin(), &attempt(row), &state), Ok(()), "{row}");
        for stranger in &strangers {
            assert!(authorise(stranger, &attempt(row), &state).is_err(), "{row} as {stranger:?}");
        }
    }
}

fn node(value: serde_json::Value) -> Object {
    let mut whole = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    json_patch::merge(&mut whole, &value);
    Object::from_value(Kind::Node, whole).unwrap()
}

#[test]
fn a_node_says_of_itself_only_what_a_node_may() {
    let identity = Identity::node("n1");
    let current = node(json!({"metadata": {"labels": {"disk": "slow"}}, "spec": {"podCIDR": "10.80.0.0/24"}}));
    let create = |value| content(&identity, None, None, &node(value), &Snapshot::default());
    let update = |value| {
        let mut whole = current.value();
        json_patch::merge(&mut whole, &value);
        content(&identity, None, Some(&current), &Object::from_value(Kind::Node, whole).unwrap(), &Snapshot::default())
    };
    assert_eq!(create(json!({"metadata": {"labels": {"kubernetes.io/hostname": "n1", "disk": "fast"}}})), Ok(()));
    assert_eq!(create(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})), Ok(()));
    assert!(create(json!({"metadata": {"name": "n2"}})).is_err());
    assert!(create(json!({"spec": {"podCIDR": "10.80.0.0/24"}})).is_err());
    assert!(create(json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}})).is_err());
    assert!(create(json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})).is_err());
    assert_eq!(update(json!({"metadata": {"labels": {"kubernetes.io/arch": "amd64"}, "annotations": {"a": "b"}}})), Ok(()));
    assert!(update(json!({"metadata": {"labels": {"disk": "fast"}}})).is_err());
    assert!(update(json!({"metadata": {"labels": {"disk": null}}})).is_err());
    assert!(update(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})).is_err());
    assert!(update(json!({"spec": {"podCIDR": "10.80.1.0/24"}})).is_err());
    assert!(update(json!({"spec": {"unschedulable": true}})).is_err());
    assert!(update(json!({"metadata": {"finalizers": ["a/b"]}})).is_err());
    assert!(content(&identity, Some("status"), None, &node(json!({"metadata": {"name": "n2"}})), &Snapshot::default()).is_err());
    let labelled = |labels| {
        content(
            &identity,
            Some("status"),
            Some(&current),
            &node(json!({"metadata": {"labels": labels}, "spec": {"podCIDR": "10.80.0.0/24"}})),
            &Snapshot::default(),
        )
    };
    assert_eq!(labelled(json!({"disk": "slow", "kubernetes.io/os": "linux"})), Ok(()));
    assert!(labelled(json!({"disk": "fast"})).is_err());
    let marked = current.edit(|node: &mut Node| {
        let time_added = "2026-05-01T10:00:00.7Z".parse().ok().map(Time);
        let taint = Taint { key: "node.kubernetes.io/not-ready".into(), effect: "NoExecute".into(), time_added, ..Taint::default() };
        node.spec.get_or_insert_default().taints = Some(vec![taint]);
    });
    let marked = marked.expect("a node");
    let again = Object::from_value(Kind::Node, marked.value()).unwrap();
    assert_eq!(content(&identity, Some("status"), Some(&marked), &again, &Snapshot::default()), Ok(()));
    let csi = |name: &str| Object::from_value(Kind::CSINode, json!({"metadata": {"name": name}, "spec": {"drivers": []}})).unwrap();
    assert_eq!(content(&identity, None, None, &csi("n1"), &Snapshot::default()), Ok(()));
    assert!(content(&identity, None, None, &csi("n2"), &Snapshot::default()).is_err());
}

#[test]
fn a_node_says_of_a_volume_only_that_its_directory_is_removed() {
    let volume = |home: &str, going: bool| {
        let going = going.then_some("2026-01-01T00:00:00Z");
        let value = json!({"metadata": {"name": "pvc-1", "labels": {(HOME): home}, "annotations": {(PROVISIONED_BY): LOCAL_PATH},
            "finalizers": ["a/b", LOCAL_PATH], "deletionTimestamp": going, "resourceVersion": "7"}, "spec": {"local": {"path": "/v/pvc-1"}}});
        Object::from_value(Kind::PersistentVolume, value).unwrap()
    };
    let write = |current: &Object, change: fn(&mut serde_json::Value)| {
        let mut wanted = current.value();
        change(&mut wanted);
        let wanted = Object::from_value(Kind::PersistentVolume, wanted).unwrap();
        content(&Identity::node("n1"), None, Some(current), &wanted, &Snapshot::default()).is_ok()
    };
    let removed = |it: &mut serde_json::Value| it["metadata"]["finalizers"] = json!(["a/b"]);
    let here = volume("n1", true);
    assert!(write(&here, removed));
    let last = here.without_finalizer("a/b");
    assert!(write(&last, |it| it["metadata"]["finalizers"] = json!([])) && write(&last, |it| it["metadata"]["finalizers"] = json!(null)));
    let wrong: [fn(&mut serde_json::Value); 5] = [
        |_| (),
        |it| it["metadata"]["finalizers"] = json!([LOCAL_PATH]),
        |it| it["metadata"]["finalizers"] = json!([]),
        |it| {
            it["metadata"]["finalizers"] = json!(["a/b"]);
            it["metadata"]["labels"] = json!({(HOME): "n2"});
        },
        |it| {
            it["metadata"]["finalizers"] = json!(["a/b"]);
            it["spec"]["local"]["path"] = json!("/etc");
        },
    ];
    assert!(wrong.iter().all(|change| !write(&here, *change)));
    assert!(!write(&volume("n1", false), removed), "nobody deletes it");
    assert!(!write(&volume("n2", true), removed), "it is another's");
    assert!(content(&Identity::node("n1"), None, None, &here, &Snapshot::default()).is_err(), "nor is it made");
}

#[test]
fn a_node_makes_pods_only_as_mirrors_of_its_own() {
    let mut state = state();
    state.insert(Object::from_value(Kind::Node, json!({"metadata": {"name": "n1", "uid": "u1"}})).unwrap());
    let owner = || json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1", "controller": true});
    let create = |change: fn(&mut serde_json::Value)| {
        let mut pod = json!({"metadata": {"name": "p-n1", "namespace": "kube-system",
            "annotations": {"kubernetes.io/config.mirror": "hash"}, "ownerReferences": [owner()]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        change(&mut pod);
        let pod = Object::from_value(Kind::Pod, pod).unwrap();
        content(&Identity::node("n1"), None, None, &pod, &state)
    };
    assert_eq!(create(|_| ()), Ok(()));
    let wrong: [fn(&mut serde_json::Value); 13] = [
        |it| it["metadata"]["annotations"] = json!({}),
        |it| it["spec"]["nodeName"] = json!("n2"),
        |it| it["spec"]["nodeName"] = json!(null),
        |it| it["metadata"]["ownerReferences"] = json!([]),
        |it| it["metadata"]["ownerReferences"][0]["uid"] = json!("u2"),
        |it| it["metadata"]["ownerReferences"][0]["name"] = json!("n2"),
        |it| it["metadata"]["ownerReferences"][0]["controller"] = json!(null),
        |it| it["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = json!(true),
        |it| it["spec"]["serviceAccountName"] = json!("default"),
        |it| it["spec"]["serviceAccount"] = json!("default"),
        |it| it["spec"]["volumes"][0] = json!({"name": "v", "secret": {"secretName": "s"}}),
        |it| it["spec"]["volumes"][0] = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}),
        |it| it["spec"]["volumes"][0] = json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
    ];
    for (row, change) in wrong.into_iter().enumerate() {
        assert!(create(change).is_err(), "row {row}");
    }
}

fn event(value: serde_json::Value) -> Object {
    let mut whole = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "web"},
        "involvedObject": {"kind": "Pod", "namespace": "web", "name": "mine"}, "reason": "Started",
        "source": {"component": "kubelet", "host": "n1"}, "reportingComponent": "kubelet", "reportingInstance": "n1",
    });
    json_patch::merge(&mut whole, &value);
    Object::from_value(Kind::Event, whole).unwrap()
}

#[test]
fn a_node_tells_only_its_own_events_about_itself_and_its_pods() {
    let (identity, state) = (Identity::node("n1"), state());
    let create = |value| content(&identity, None, None, &event(value), &state);
    let update = |current, value| content(&identity, None, Some(&event(current)), &event(value), &state);
    assert_eq!(create(json!({})), Ok(()));
    assert_eq!(create(json!({"source": null})), Ok(()));
    assert_eq!(create(json!({"reportingInstance": null})), Ok(()));
    assert_eq!(create(json!({"involvedObject": {"kind": "Node", "name": "n1"}})), Ok(()));
    assert_eq!(update(json!({}), json!({"count": 2})), Ok(()));
    let may_not = [
        ("about another node's pod", json!({"involvedObject": {"name": "other"}})),
        ("about a pod that is not there", json!({"involvedObject": {"name": "none"}})),
        ("about a pod elsewhere", json!({"involvedObject": {"namespace": "kube-system"}})),
        ("about another node", json!({"involvedObject": {"kind": "Node", "name": "n2"}})),
        ("about anything else", json!({"involvedObject": {"kind": "Deployment", "name": "mine"}})),
        ("in another node's name", json!({"source": {"host": "n2"}})),
        ("in another reporter's name", json!({"reportingInstance": "n2"})),
        ("in nobody's name", json!({"source": null, "reportingInstance": null})),
        ("as a controller", json!({"source": {"component": "deployment", "host": null}, "reportingInstance": null})),
    ];
    for (what, value) in may_not {
        assert!(create(value.clone()).is_err(), "{what}");
        assert!(update(value, json!({})).is_err(), "take over one {what}");
    }
}

#[test]
fn a_pods_address_is_of_its_nodes_range_or_its_nodes_own() {
    let (identity, mut state) = (Identity::node("n1"), state());
    state.insert(node(
        json!({"spec": {"podCIDR": "10.80.0.0/24"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}}),
    ));
    let pod = |host_network: bool, address: &str| {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine", "namespace": "web"},
            "spec": {"nodeName": "n1", "hostNetwork": host_network, "containers": [{"name": "c", "image": "i"}]},
            "status": {"podIP": address, "podIPs": [{"ip": address}]},
        });
        Object::from_value(Kind::Pod, value).unwrap()
    };
    let update = |current: Object, wanted: Object| content(&identity, Some("status"), Some(&current), &wanted, &state);
    assert_eq!(update(pod(false, ""), pod(false, "10.80.0.5")), Ok(()));
    assert_eq!(update(pod(true, ""), pod(true, "192.0.2.7")), Ok(()));
    assert_eq!(update(pod(false, "10.90.0.1"), pod(false, "10.90.0.1")), Ok(()), "from before a change of ranges");
    let theirs = pod(false, "10.80.0.5").edit::<k8s_openapi::api::core::v1::Pod>(|pod| {
        pod.spec.get_or_insert_default().node_name = Some("n2".to_owned());
    });
    assert!(update(theirs.unwrap(), pod(false, "10.80.0.5")).is_err(), "made anew on another node");
    for (host_network, address) in [(false, "192.0.2.2"), (false, "10.80.1.5"), (false, "192.0.2.7"), (false, "x"), (true, "192.0.2.2")] {
        assert!(update(pod(host_network, ""), pod(host_network, address)).is_err(), "{address}");
    }
}

#[test]
fn a_selector_names_nothing_that_is_written() {
    let named = |text: &str| match attempt(text).act().on {
        crate::model::rights::On::Resource { name, .. } => name.to_owned(),
        crate::model::rights::On::Path(_) => "a path".to_owned(),
    };
    assert_eq!(named("list secrets web/ name=mine"), "mine");
    assert_eq!(named("create secrets web/ name=mine"), "");
    assert_eq!(named("deletecollection secrets web/ name=mine"), "");
}

/// Somebody who may write roles and holds `get pods`.
fn writer_of_roles() -> (Identity, Snapshot) {
    let mut state = state();
    for (kind, value) in [
        (
            Kind::ClusterRole,
            json!({"metadata": {"name": "writer"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        (
            Kind::ClusterRoleBinding,
            json!({"metadata": {"name": "writer"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "writer"},
                "subjects": [{"kind": "User", "name": "jane"}]}),
        ),
    ] {
        state.insert(Object::from_value(kind, value).unwrap());
    }
    (Identity::new("jane", &[]), state)
}

#[test]
fn a_label_by_which_a_role_is_gathered_is_a_grant() {
    let (jane, state) = writer_of_roles();
    let role = |labels: serde_json::Value, verb: &str| {
        let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]);
        Object::from_value(Kind::ClusterRole, json!({"metadata": {"name": "a", "labels": labels}, "rules": rules})).unwrap()
    };
    let label = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    let write = |old: &Object, new: &Object| content(&jane, None, Some(old), new, &state);
    assert_eq!(write(&role(json!({}), "delete"), &role(json!({}), "delete")), Ok(()), "nothing is granted");
    assert!(write(&role(json!({}), "delete"), &role(label.clone(), "delete")).is_err());
    assert_eq!(write(&role(json!({}), "get"), &role(label, "get")), Ok(()), "what she holds she may pass on");
    let gathers = json!({"metadata": {"name": "a"}, "aggregationRule": {"clusterRoleSelectors": []}});
    let gathers = Object::from_value(Kind::ClusterRole, gathers).unwrap();
    assert!(write(&gathers, &role(json!({}), "get")).is_err());
}

#[test]
fn a_node_asks_who_somebody_is_and_what_they_may() {
    let asks = |who: &Identity, verb: &str, group: &str, resource: &str, subresource: &str| {
        node_asks(who, &Act { verb, on: On::Resource { group, resource, subresource, namespace: "", name: "" } })
    };
    let (node, jane) = (Identity::node("n1"), Identity::new("jane", &[]));
    for (group, resource) in [
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
    ] {
        assert!(asks(&node, "create", group, resource, ""), "{resource}");
        assert!(!asks(&node, "get", group, resource, "") && !asks(&node, "create", group, resource, "x"), "{resource}");
        assert!(!asks(&node, "create", "example.org", resource, "") && !asks(&jane, "create", group, resource, ""), "{resource}");
    }
    assert!(!asks(&node, "create", "podbay.dev", "previews", ""));
    assert!(!node_asks(&node, &Act { verb: "get", on: On::Path("/metrics") }));
}

#[test]
fn a_default_binding_to_another_role_is_left_alone() {
    let state = |role: &str| {
        let value = json!({"metadata": {"name": "system:discovery"}, "subjects": [{"kind": "User", "name": "jane"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}});
        let mut state = Snapshot::default();
        state.insert(Object::from_value(Kind::ClusterRoleBinding, value).unwrap());
        state
    };
    let writes = |role: &str| {
        let key = Key::cluster(Kind::ClusterRoleBinding, "system:discovery");
        roles::reconcile(&state(role)).iter().filter(|write| *write.key() == key).count()
    };
    assert_eq!((writes("system:discovery"), writes("cluster-admin")), (1, 0));
}
