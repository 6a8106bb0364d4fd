use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{Kind, LAST_APPLIED};

fn deployment(replicas: i64, containers: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"app": "a"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": containers}}}})
}

#[test]
fn field_sets_are_written_as_kubernetes_writes_them() {
    let value = json!({"metadata": {"name": "a", "labels": {"app": "a"}, "finalizers": ["x/y"]},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": {"spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "v"}]}],
            "tolerations": [{"key": "k"}], "volumes": [{"name": "v", "emptyDir": {}}]}}}});
    let set = FieldSet::of(Kind::Deployment, &value);
    let expected = json!({"f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
        "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}}},
            "f:tolerations": {}, "f:volumes": {"k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}}}}}});
    assert_eq!(set.to_json(), expected);
    assert_eq!(FieldSet::from_json(&expected), Ok(set));
    assert!(FieldSet::from_json(&json!({"x:a": {}})).is_err());
}

#[test]
fn lists_have_kubernetes_types() {
    let rows: &[(Kind, Value, &[&str])] = &[
        (
            Kind::Service,
            json!({"spec": {"ports": [{"port": 80, "protocol": "UDP"}]}}),
            &[
                ".spec.ports[port=80,protocol=\"UDP\"]",
                ".spec.ports[port=80,protocol=\"UDP\"].port",
                ".spec.ports[port=80,protocol=\"UDP\"].protocol",
            ],
        ),
        (Kind::Service, json!({"spec": {"selector": {"a": "b"}}}), &[".spec.selector"]),
        (Kind::Pod, json!({"spec": {"nodeSelector": {"a": "b"}, "tolerations": []}}), &[".spec.nodeSelector", ".spec.tolerations"]),
        (Kind::ConfigMap, json!({"data": {"a": "b", "c": "d"}}), &[".data.a", ".data.c"]),
        (
            Kind::Pod,
            json!({"spec": {"hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a"]}]}}),
            &[".spec.hostAliases[ip=\"1.1.1.1\"]", ".spec.hostAliases[ip=\"1.1.1.1\"].hostnames", ".spec.hostAliases[ip=\"1.1.1.1\"].ip"],
        ),
        // A key that is there twice: the list is a whole.
        (
            Kind::Pod,
            json!({"spec": {"containers": [{"name": "c", "env": [{"name": "E"}, {"name": "E"}]}]}}),
            &[".spec.containers[name=\"c\"]", ".spec.containers[name=\"c\"].env", ".spec.containers[name=\"c\"].name"],
        ),
    ];
    for (kind, value, paths) in rows {
        let mut found = FieldSet::of(*kind, value).paths();
        found.sort();
        let mut expected = paths.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{value}");
    }
}

#[test]
fn what_a_manager_no_longer_says_goes() {
    let none = ManagedFields::default();
    let first = deployment(2, json!([{"name": "c", "image": "a"}, {"name": "d", "image": "b"}]));
    let (live, owners) = apply(Kind::Deployment, None, &none, &first, "git", false).unwrap();
    let second = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "x"}]}}}});
    let (live, owners) = apply(Kind::Deployment, Some(&live), &owners, &second, "git", false).unwrap();
    assert_eq!(live["spec"], json!({"template": {"spec": {"containers": [{"name": "d", "image": "x"}]}}}));
    assert_eq!(live["metadata"], json!({"name": "a"}));
    assert_eq!(owners.owners.len(), 1);
}

/// A pod's account has two names, and what one of them says the other has by default.
#[test]
fn an_account_that_is_no_longer_said_goes_under_both_its_names() {
    let spec = |account: &Value| json!({"spec": {"template": {"spec": account}}});
    let none = json!({"dnsPolicy": "Default"});
    let said = |name: &str, account: &str| json!({"dnsPolicy": "Default", name: account});
    let [name, alias] = ["serviceAccountName", "serviceAccount"];
    let both = json!({"dnsPolicy": "Default", name: "sa", alias: "sa"});
    // What is said first, what another manager says, what is said then; what is left.
    let rows = [
        (said(name, "sa"), None, none.clone(), none.clone()),
        (said(alias, "sa"), None, none.clone(), none.clone()),
        (both.clone(), None, none.clone(), none.clone()),
        (both.clone(), None, said(name, "sa"), said(name, "sa")),
        (said(name, "sa"), None, said(alias, "sa"), said(alias, "sa")),
        (said(name, "sa"), None, said(name, "sa"), both.clone()),
        (said(name, "sa"), Some(said(name, "sa")), none.clone(), said(name, "sa")),
        (said(name, "sa"), Some(said(alias, "sa")), none.clone(), said(alias, "sa")),
        (none.clone(), None, none.clone(), both.clone()),
        // As a pod without an account has.
        (said(name, "default"), None, none.clone(), said(alias, "default")),
    ];
    for (first, other, then, left) in rows {
        for kind in [Kind::Deployment, Kind::ReplicaSet, Kind::Job] {
            let (_, mut owners) = apply(kind, None, &ManagedFields::default(), &spec(&first), "git", false).unwrap();
            let account = first.get(name).or(first.get(alias)).unwrap_or(&both[name]).clone();
            let live = spec(&json!({"dnsPolicy": "Default", name: account, alias: account}));
            if let Some(other) = &other {
                owners = apply(kind, Some(&live), &owners, &spec(other), "other", false).unwrap().1;
            }
            let (after, owners) = apply(kind, Some(&live), &owners, &spec(&then), "git", false).unwrap();
            assert_eq!(after["spec"]["template"]["spec"], left, "{kind:?}: {first} {other:?} {then}");
            let again = apply(kind, Some(&after), &owners, &spec(&then), "git", false).unwrap();
            assert_eq!(again, (after, owners), "{kind:?}: {first} {other:?} {then}");
        }
    }
    let (live, owners) = (json!({"spec": both}), ManagedFields::default());
    let (_, owners) = apply(Kind::Pod, None, &owners, &json!({"spec": said(name, "sa")}), "git", false).unwrap();
    assert_eq!(apply(Kind::Pod, Some(&live), &owners, &json!({"spec": none}), "git", false).unwrap().0["spec"], none);
}

#[test]
fn a_conflict_is_refused_or_taken() {
    let none = ManagedFields::default();
    let (live, owners) = apply(Kind::Deployment, None, &none, &deployment(2, json!([])), "git", false).unwrap();
    let scale = json!({"spec": {"replicas": 5}});
    let conflicts = apply(Kind::Deployment, Some(&live), &owners, &scale, "hand", false).unwrap_err();
    assert_eq!(conflicts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["conflict with \"git\": .spec.replicas"]);
    let (live, owners) = apply(Kind::Deployment, Some(&live), &owners, &scale, "hand", true).unwrap();
    assert_eq!(live["spec"]["replicas"], 5);
    assert!(!owners.fields("git", Operation::Apply).unwrap().paths().contains(&".spec.replicas".to_owned()));
    // The same value is shared without a conflict.
    let (_, owners) = apply(Kind::Deployment, Some(&live), &owners, &scale, "other", false).unwrap();
    assert!(owners.fields("hand", Operation::Apply).is_some() && owners.fields("other", Operation::Apply).is_some());
}

#[test]
fn what_says_nothing_is_no_conflict() {
    let rows = [
        // What one applies, what the object then is, what another one applies without a conflict.
        (json!({"strategy": {}}), json!({"strategy": {"type": "Recreate"}}), json!({"strategy": {}})),
        (json!({"strategy": {"type": "Recreate"}}), json!({"strategy": {"type": "Recreate"}}), json!({"strategy": {}})),
        (json!({"strategy": {}}), json!({"strategy": {}}), json!({"strategy": {"type": "Recreate"}})),
        (
            json!({"template": {"metadata": {"creationTimestamp": null}}}),
            json!({"template": {"metadata": {}}}),
            json!({"template": {"metadata": {"creationTimestamp": null}}}),
        ),
        (json!({"replicas": 2, "paused": null}), json!({"replicas": 2}), json!({"replicas": 2, "paused": null})),
    ];
    for (first, live, other) in rows {
        let spec = |spec: &Value| json!({"spec": spec});
        let (_, owners) = apply(Kind::Deployment, None, &ManagedFields::default(), &spec(&first), "a", false).unwrap();
        for said in [&other, &first] {
            let again = apply(Kind::Deployment, Some(&spec(&live)), &owners, &spec(said), "b", false);
            assert!(again.is_ok(), "{said}: {:?}", again.unwrap_err());
        }
    }
    // Who gives up the last entry of a map that another one says, empty, takes nothing from him.
    let map = |data: Value| json!({"data": data});
    let (live, owners) = apply(Kind::ConfigMap, None, &ManagedFields::default(), &map(json!({})), "a", false).unwrap();
    let (live, owners) = apply(Kind::ConfigMap, Some(&live), &owners, &map(json!({"k": "v"})), "b", false).unwrap();
    let (live, owners) = apply(Kind::ConfigMap, Some(&live), &owners, &map(json!({})), "b", false).unwrap();
    assert_eq!(live, map(json!({})));
    assert!(["a", "b"].iter().all(|who| owners.fields(who, Operation::Apply).is_some()), "{owners:?}");
    // A list that is a whole is changed by the empty one.
    let rules = |verbs: Value| json!({"rules": verbs});
    let (live, owners) = apply(Kind::Role, None, &ManagedFields::default(), &rules(json!([{"verbs": ["get"]}])), "a", false).unwrap();
    assert!(apply(Kind::Role, Some(&live), &owners, &rules(json!([])), "b", false).is_err());
}

#[test]
fn a_plain_write_moves_ownership() {
    let none = ManagedFields::default();
    let (live, owners) = apply(Kind::Deployment, None, &none, &deployment(2, json!([])), "git", false).unwrap();
    let mut edited = live.clone();
    edited["spec"]["replicas"] = json!(7);
    edited["metadata"]["labels"] = json!({});
    let owners = update(Kind::Deployment, Some(&live), &edited, &owners, "kubectl", "");
    assert_eq!(owners.fields("kubectl", Operation::Update).unwrap().paths(), [".metadata.labels", ".spec.replicas"]);
    let left = owners.fields("git", Operation::Apply).unwrap().paths();
    assert_eq!(left, [".spec.template.spec.containers"]);
}

/// What `kubectl apply` makes of a manifest, and who owns it then.
fn applied_by_the_client(kind: Kind, manifest: &Value) -> (Value, ManagedFields) {
    let mut live = manifest.clone();
    live["metadata"]["annotations"][LAST_APPLIED] = json!(format!("{manifest}\n"));
    let live = string_data_is_data(live);
    let owners = update(kind, None, &live, &ManagedFields::default(), "kubectl-client-side-apply", "");
    (live, owners)
}

#[test]
fn kubectl_comes_from_client_side_apply_without_conflicts_with_itself() {
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
    let first = map(json!({"a": "1", "b": "1"}));
    let (live, owners) = applied_by_the_client(Kind::ConfigMap, &first);
    let mut edited = live.clone();
    edited["data"]["b"] = json!("by hand");
    edited["data"]["c"] = json!("by hand");
    let others = update(Kind::ConfigMap, Some(&live), &edited, &owners, "hand", "");
    let mut elsewhere = live.clone();
    elsewhere["metadata"]["annotations"][LAST_APPLIED] = json!(first.to_string().replace("\"v1\"", "\"v2\""));
    let mut broken = live.clone();
    broken["metadata"]["annotations"][LAST_APPLIED] = json!("no JSON");
    let rows: &[(&str, &Value, &ManagedFields, Value, &[&str])] = &[
        ("kubectl", &live, &owners, json!({"a": "2", "b": "2"}), &[]),
        ("git", &live, &owners, json!({"a": "2", "b": "2"}), &[".data.a", ".data.b"]),
        ("kubectl", &elsewhere, &owners, json!({"a": "2"}), &[".data.a"]),
        ("kubectl", &broken, &owners, json!({"a": "2"}), &[".data.a"]),
        // What has changed since, or came by somebody else, is not its own; and then nothing is taken.
        ("kubectl", &edited, &others, json!({"a": "2", "b": "2", "c": "2"}), &[".data.b", ".data.c"]),
        ("kubectl", &edited, &others, json!({"a": "2", "b": "by hand"}), &[]),
    ];
    for (manager, live, owners, data, expected) in rows {
        let applied = map(data.clone());
        let outcome = apply(Kind::ConfigMap, Some(live), owners, &applied, manager, false);
        let found = outcome.as_ref().map_or_else(|conflicts| conflicts.iter().map(|it| it.path.as_str()).collect(), |_| Vec::new());
        assert_eq!(found, *expected, "{manager} {live} {data}");
        if let Ok((after, owners)) = outcome {
            let mine = owners.fields(manager, Operation::Apply).unwrap().paths();
            assert_eq!((&after["data"]["a"], mine.contains(&".data.a".to_owned())), (&data["a"], true));
        }
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "1"}});
    let (live, owners) = applied_by_the_client(Kind::Secret, &secret);
    let mut second = secret;
    second["stringData"]["a"] = json!("2");
    let (after, _) = apply(Kind::Secret, Some(&live), &owners, &second, "kubectl", false).unwrap();
    assert_eq!(after["data"]["a"], "Mg==", "what is kept otherwise than it was written is its own too");
}

#[test]
fn the_annotation_of_client_side_apply_follows_kubectl_and_nobody_else() {
    let map = |data: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "annotations": {"x": "y"}}, "data": {"a": data}});
    let (live, owners) = applied_by_the_client(Kind::ConfigMap, &map("1"));
    let annotation = |live: &Value, said: &Value, manager: &str, force| {
        let (after, _) = apply(Kind::ConfigMap, Some(live), &owners, said, manager, force).unwrap();
        after["metadata"]["annotations"].get(LAST_APPLIED).cloned()
    };
    assert_eq!(annotation(&live, &map("2"), "kubectl", false), Some(json!(format!("{}\n", map("2")))));
    assert_eq!(annotation(&live, &map("2"), "git", true), Some(json!(format!("{}\n", map("1")))));
    let mut without = live.clone();
    without["metadata"]["annotations"] = json!({});
    assert_eq!(annotation(&without, &map("1"), "kubectl", true), None, "there was none");
    let mut telling = map("2");
    telling["metadata"]["annotations"][LAST_APPLIED] = json!("itself");
    assert_eq!(annotation(&live, &telling, "kubectl", true), Some(json!(format!("{}\n", map("2")))));
    assert_eq!(annotation(&live, &map(&"x".repeat(256 * 1024)), "kubectl", false), None, "no room");
}

/// A kind that is stored in another version, a target for CPU, and owners by manager and version.
fn autoscaler(version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": spec})
}

fn autoscaling_v1() -> Kind {
    Kind::of("autoscaling/v1", "HorizontalPodAutoscaler").unwrap()
}

fn metric(name: &str, percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn owned_paths(managed: &ManagedFields, manager: &str) -> Vec<(String, Vec<String>)> {
    let own = managed.owners.iter().filter(|owner| owner.manager == manager);
    own.map(|owner| (owner.api_version.trim_start_matches("autoscaling/").to_owned(), owner.fields.paths())).collect()
}

#[test]
fn owners_keep_the_words_of_their_version() {
    let (v1, v2) = (autoscaling_v1(), Kind::HorizontalPodAutoscaler);
    let as_v1 = |value: &Value| crate::model::convert::between(value.clone(), v2, v1);
    let said = autoscaler("v1", json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
    let (old, managed) = apply(v1, None, &ManagedFields::default(), &said, "old", false).unwrap();
    let target = || [".spec.maxReplicas", ".spec.targetCPUUtilizationPercentage"].map(str::to_owned).to_vec();
    assert_eq!(owned_paths(&managed, "old"), [("v1".to_owned(), target())]);

    // Another metric changes nothing that is the first one's, whose version has a field for its own.
    let live = crate::model::convert::between(old, v1, v2);
    let more = autoscaler("v2", json!({"maxReplicas": 3, "metrics": [metric("memory", 70), metric("cpu", 50)]}));
    let managed = update(v2, Some(&live), &more, &managed, "new", "");
    assert_eq!(owned_paths(&managed, "old"), [("v1".to_owned(), target())]);
    assert_eq!(owned_paths(&managed, "new"), [("v2".to_owned(), vec![".spec.metrics".to_owned()])]);

    // Another target for CPU is.
    let other = autoscaler("v2", json!({"maxReplicas": 3, "metrics": [metric("memory", 70), metric("cpu", 60)]}));
    let taken = update(v2, Some(&more), &other, &managed, "new", "");
    assert_eq!(owned_paths(&taken, "old"), [("v1".to_owned(), vec![".spec.maxReplicas".to_owned()])]);

    // Nor may the first one change what is the second one's now without a word.
    let conflicts = apply(v1, Some(&as_v1(&other)), &taken, &said, "old", false).unwrap_err();
    let told: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["conflict with \"new\" using autoscaling/v2: .spec.metrics"]);
    let (_, forced) = apply(v1, Some(&as_v1(&other)), &taken, &said, "old", true).unwrap();
    assert_eq!((owned_paths(&forced, "old"), owned_paths(&forced, "new")), (vec![("v1".to_owned(), target())], vec![]));
}

#[test]
fn what_another_version_owns_is_not_taken_out() {
    let (v1, v2) = (autoscaling_v1(), Kind::HorizontalPodAutoscaler);
    let as_v1 = |value: &Value| crate::model::convert::between(value.clone(), v2, v1);
    let metrics = autoscaler("v2", json!({"metrics": [metric("cpu", 50)]}));
    let (live, managed) = apply(v2, None, &ManagedFields::default(), &metrics, "new", false).unwrap();
    let said = autoscaler("v1", json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
    let (both, managed) = apply(v1, Some(&as_v1(&live)), &managed, &said, "old", false).unwrap();
    assert_eq!(both["spec"], said["spec"]);
    let less = autoscaler("v1", json!({"maxReplicas": 3}));
    let (kept, managed) = apply(v1, Some(&both), &managed, &less, "old", false).unwrap();
    assert_eq!(kept["spec"], said["spec"], "the other still says it");

    // The same manager in another version gives up what it said in the first.
    let (live, managed) = (crate::model::convert::between(kept, v1, v2), managed);
    let bounds = autoscaler("v2", json!({"minReplicas": 2}));
    let (after, managed) = apply(v2, Some(&live), &managed, &bounds, "old", false).unwrap();
    assert_eq!(after["spec"], json!({"minReplicas": 2, "metrics": [metric("cpu", 50)]}));
    assert_eq!(owned_paths(&managed, "old"), [("v2".to_owned(), vec![".spec.minReplicas".to_owned()])]);
    let (after, _) = apply(v1, Some(&as_v1(&after)), &managed, &autoscaler("v1", json!({"maxReplicas": 4})), "new", false).unwrap();
    assert_eq!(after["spec"], json!({"minReplicas": 2, "maxReplicas": 4}), "nobody says the metrics any more");
}

#[test]
fn a_plain_writer_has_an_entry_for_each_version() {
    let (v1, v2) = (autoscaling_v1(), Kind::HorizontalPodAutoscaler);
    let before = autoscaler("v2", json!({"maxReplicas": 3, "metrics": [metric("cpu", 50)]}));
    let managed = update(v2, None, &before, &ManagedFields::default(), "me", "");
    let was = crate::model::convert::between(before, v2, v1);
    let is = autoscaler("v1", json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 60}));
    let managed = update(v1, Some(&was), &is, &managed, "me", "");
    let entry = |version: &str, path: &str| (version.to_owned(), vec![path.to_owned()]);
    assert_eq!(owned_paths(&managed, "me"), [entry("v2", ".spec.maxReplicas"), entry("v1", ".spec.targetCPUUtilizationPercentage")]);
}

#[test]
fn order_is_the_applied_one_and_strangers_keep_their_place() {
    let none = ManagedFields::default();
    let live = json!({"spec": {"containers": [{"name": "s"}, {"name": "a"}, {"name": "t"}, {"name": "b"}]}});
    let applied = json!({"spec": {"containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}]}});
    let (merged, _) = apply(Kind::Pod, Some(&live), &none, &applied, "git", false).unwrap();
    let names: Vec<_> = merged["spec"]["containers"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["s", "b", "n", "a", "t"]);
}

#[test]
fn strategic_merge_knows_its_directives() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}],
        "tolerations": [{"key": "k"}]}}}});
    let rows = [
        (
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}}),
            "/spec/template/spec/containers/0",
            json!({"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}]}),
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}}}),
            "/spec/template/spec/containers",
            json!([{"name": "b"}]),
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}}}),
            "/spec/template/spec/containers",
            json!([{"name": "z"}]),
        ),
        (
            json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}}}}),
            "/spec/template/spec/containers/1",
            json!({"name": "c"}),
        ),
        (json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}), "/spec/strategy", json!({"type": "Recreate"})),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), "/metadata/finalizers", json!(["b"])),
        (json!({"metadata": {"finalizers": ["c"]}}), "/metadata/finalizers", json!(["a", "b", "c"])),
        (
            json!({"spec": {"template": {"spec": {"tolerations": [{"key": "q"}]}}}}),
            "/spec/template/spec/tolerations",
            json!([{"key": "q"}]),
        ),
        (json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}), "/spec/strategy", json!({"type": "Recreate"})),
        (json!({"spec": {"strategy": null}}), "/spec/strategy", Value::Null),
    ];
    for (patch, pointer, expected) in rows {
        let merged = strategic_merge(Kind::Deployment, &live, &patch).unwrap();
        assert_eq!(merged.pointer(pointer).cloned().unwrap_or(Value::Null), expected, "{patch}");
    }
    for wrong in
        [json!({"$what": 1}), json!({"spec": {"$patch": "x"}}), json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}})]
    {
        assert!(strategic_merge(Kind::Deployment, &live, &wrong).is_err(), "{wrong}");
    }
}

/// A piece of a Deployment's manifest: some labels, some containers with some fields, replicas or not.
fn manifest() -> impl Strategy<Value = Value> {
    let label = prop::collection::btree_map("[a-c]", "[xy]", 0..3);
    let env = prop::collection::btree_map("[A-C]", "[xy]", 0..3);
    let container = (prop::option::of("[xy]"), env);
    let containers = prop::collection::btree_map("[a-c]", container, 0..3);
    (label, containers, prop::option::of(0..3_i64), prop::collection::btree_set("[f-h]", 0..2)).prop_map(
        |(labels, containers, replicas, finalizers)| {
            let mut value = json!({"metadata": {"name": "a"}});
            if !labels.is_empty() {
                value["metadata"]["labels"] = json!(labels);
            }
            if !finalizers.is_empty() {
                value["metadata"]["finalizers"] = json!(finalizers);
            }
            if let Some(replicas) = replicas {
                value["spec"]["replicas"] = json!(replicas);
            }
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env))| {
                    let mut container = json!({"name": name});
                    if let Some(image) = image {
                        container["image"] = json!(image);
                    }
                    if !env.is_empty() {
                        container["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                    }
                    container
                })
                .collect();
            if !containers.is_empty() {
                value["spec"]["template"]["spec"]["containers"] = json!(containers);
            }
            value
        },
    )
}

/// The strategic merge patch that makes one manifest of another, as kubectl computes it.
fn two_way(from: &Value, to: &Value) -> Value {
    let (before, after) = (from.as_object().unwrap(), to.as_object().unwrap());
    let mut patch = serde_json::Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        match (before.get(name), value) {
            (Some(same), value) if same == value => {}
            (Some(old @ Value::Object(_)), Value::Object(_)) => {
                patch.insert(name.clone(), two_way(old, value));
            }
            (Some(Value::Array(old)), Value::Array(new)) if matches!(name.as_str(), "containers" | "env") => {
                let of = |items: &[Value], name: &Value| items.iter().find(|item| item["name"] == *name).cloned();
                let order: Vec<Value> = new.iter().map(|item| json!({"name": item["name"]})).collect();
                let mut items: Vec<Value> = Vec::new();
                for item in new {
                    let mut change = of(old, &item["name"]).map_or_else(|| item.clone(), |old| two_way(&old, item));
                    change["name"] = item["name"].clone();
                    items.push(change);
                }
                let gone = old.iter().filter(|item| of(new, &item["name"]).is_none());
                items.extend(gone.map(|item| json!({"$patch": "delete", "name": item["name"]})));
                patch.insert(name.clone(), items.into());
                patch.insert(format!("$setElementOrder/{name}"), order.into());
            }
            (Some(Value::Array(old)), Value::Array(new)) if name == "finalizers" => {
                let gone: Vec<&Value> = old.iter().filter(|item| !new.contains(item)).collect();
                let added: Vec<&Value> = new.iter().filter(|item| !old.contains(item)).collect();
                patch.insert(format!("$deleteFromPrimitiveList/{name}"), json!(gone));
                patch.insert(name.clone(), json!(added));
                patch.insert(format!("$setElementOrder/{name}"), value.clone());
            }
            (_, value) => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

proptest! {
    #[test]
    fn a_patch_of_the_difference_gives_the_target(from in manifest(), to in manifest()) {
        let patch = two_way(&from, &to);
        prop_assert_eq!(strategic_merge(Kind::Deployment, &from, &patch).unwrap(), to, "{}", patch);
    }

    /// Whoever applies the status and whoever applies the object have nothing to do with each other.
    #[test]
    fn subresources_are_apart(first in manifest(), replicas in 0..5_i64, second in manifest()) {
        let none = ManagedFields::default();
        let judge = Applier { manager: "a", subresource: "status", force: false };
        let status = |value: i64| json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 7}, "status": {"replicas": value}});
        let (live, owners) = apply(Kind::Deployment, None, &none, &first, "a", false).unwrap();
        let spec = live.clone();
        let (live, owners) = apply_as(Kind::Deployment, Some(&live), &owners, &status(replicas), &judge).unwrap();
        prop_assert_eq!((&live["spec"], &live["metadata"]), (&spec["spec"], &spec["metadata"]));
        let mut both = second.clone();
        both["status"] = json!({"replicas": 99});
        let (live, owners) = apply(Kind::Deployment, Some(&live), &owners, &both, "a", false).unwrap();
        prop_assert_eq!(&live["status"]["replicas"], &json!(replicas));
        let (live, owners) = apply_as(Kind::Deployment, Some(&live), &owners, &json!({}), &judge).unwrap();
        prop_assert_eq!((live.get("status"), owners.owners.iter().any(|owner| !owner.subresource.is_empty())), (None, false));
    }

    /// Whatever is applied next, kubectl has no conflict with itself, and one with whoever changed what it applied.
    #[test]
    fn client_side_apply_is_taken_over(first in manifest(), second in manifest()) {
        let versioned = |mut value: Value| {
            value["apiVersion"] = json!("apps/v1");
            value
        };
        let (first, mut second) = (versioned(first), versioned(second));
        let (live, owners) = applied_by_the_client(Kind::Deployment, &first);
        let (after, left) = apply(Kind::Deployment, Some(&live), &owners, &second, "kubectl", false).unwrap();
        prop_assert_eq!(&after["metadata"]["annotations"][LAST_APPLIED], &json!(format!("{second}\n")));
        let again = apply(Kind::Deployment, Some(&after), &left, &second, "kubectl", false).unwrap();
        prop_assert_eq!(again, (after, left));
        let mut edited = live.clone();
        edited["spec"]["replicas"] = json!(7);
        let owners = update(Kind::Deployment, Some(&live), &edited, &owners, "hand", "");
        second["spec"]["replicas"] = json!(8);
        let conflicts = apply(Kind::Deployment, Some(&edited), &owners, &second, "kubectl", false).unwrap_err();
        let told: Vec<_> = conflicts.iter().map(|it| (it.manager.as_str(), it.path.as_str())).collect();
        prop_assert_eq!(told, [("hand", ".spec.replicas")]);
    }

    #[test]
    fn applying_twice_changes_nothing(first in manifest(), second in manifest()) {
        let none = ManagedFields::default();
        let (live, owners) = apply(Kind::Deployment, None, &none, &first, "a", false).unwrap();
        let (live, owners) = apply(Kind::Deployment, Some(&live), &owners, &second, "b", true).unwrap();
        let again = apply(Kind::Deployment, Some(&live), &owners, &second, "b", false).unwrap();
        prop_assert_eq!(again, (live, owners));
    }

    /// What a second manager adds and takes back leaves the object as the first one made it,
    /// wherever the two did not disagree.
    #[test]
    fn applying_and_giving_up_restores(first in manifest(), second in manifest()) {
        let none = ManagedFields::default();
        let (live, owners) = apply(Kind::Deployment, None, &none, &first, "a", false).unwrap();
        if let Ok((both, shared)) = apply(Kind::Deployment, Some(&live), &owners, &second, "b", false) {
            let empty = json!({"metadata": {"name": "a"}});
            let (after, left) = apply(Kind::Deployment, Some(&both), &shared, &empty, "b", false).unwrap();
            prop_assert_eq!(FieldSet::of(Kind::Deployment, &after), FieldSet::of(Kind::Deployment, &first));
            prop_assert_eq!(left.owners, owners.owners);
        }
    }

    #[test]
    fn managers_never_lose_fields_without_a_conflict(first in manifest(), second in manifest(), third in manifest()) {
        let none = ManagedFields::default();
        let (live, owners) = apply(Kind::Deployment, None, &none, &first, "a", false).unwrap();
        if let Ok((live, owners)) = apply(Kind::Deployment, Some(&live), &owners, &second, "b", false)
            && let Ok((live, owners)) = apply(Kind::Deployment, Some(&live), &owners, &third, "b", false)
        {
            let mine = FieldSet::of(Kind::Deployment, &first);
            prop_assert_eq!(owners.fields("a", Operation::Apply).cloned().unwrap_or_default(), mine.clone());
            prop_assert!(mine.difference(&FieldSet::of(Kind::Deployment, &live)).is_empty());
        }
    }

    #[test]
    fn sets_obey_the_laws_of_sets(first in manifest(), second in manifest()) {
        let (a, b) = (FieldSet::of(Kind::Deployment, &first), FieldSet::of(Kind::Deployment, &second));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(FieldSet::from_json(&a.to_json()).unwrap(), a);
    }
}
