use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use serde_json::{Value, json};

use super::normalise;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::store::CommitError;
use crate::store::snapshot::{Applied, Snapshot};
use crate::store::transaction::{Precondition, Stamp, Transaction, Write};

fn object(kind: Kind, value: Value) -> Object {
    Object::from_value(kind, value).expect("of its kind")
}

fn now() -> Timestamp {
    "2026-05-01T10:00:00.7Z".parse().expect("a time")
}

/// A small cluster under test: each write is a transaction of its own.
struct Cluster {
    state: Snapshot,
    uids: u64,
    writer: &'static str,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self { state: Snapshot::default(), uids: 0, writer: "admin" };
        cluster.create(Kind::Namespace, json!({"metadata": {"name": "web"}}));
        cluster
    }

    fn apply(&mut self, write: Write) -> Result<Option<Object>, CommitError> {
        let Applied { snapshot, results, .. } = self.transact(Transaction::new(self.writer).with(write))?;
        self.state = snapshot;
        Ok(results.into_iter().next().flatten())
    }

    fn transact(&mut self, transaction: Transaction) -> Result<Applied, CommitError> {
        let uids = &mut self.uids;
        let mut uid = || {
            *uids += 1;
            format!("uid-{uids}")
        };
        let revision = self.state.revision() + 1;
        self.state.apply(&transaction, revision, &mut Stamp { now: now(), uid: &mut uid })
    }

    fn create(&mut self, kind: Kind, value: Value) -> Object {
        self.apply(Write::Create(object(kind, value))).expect("admitted").expect("there")
    }

    fn update(&mut self, object: Object) -> Option<Object> {
        self.apply(Write::Update(object, Precondition::exists())).expect("admitted")
    }

    fn update_status(&mut self, object: Object) -> Option<Object> {
        self.apply(Write::UpdateStatus(object, Precondition::exists())).expect("admitted")
    }

    fn delete(&mut self, key: &Key, grace_seconds: Option<i64>) -> Option<Object> {
        self.apply(Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds }).expect("admitted")
    }

    fn refusal(&mut self, write: Write) -> String {
        self.apply(write).expect_err("refused").to_string()
    }
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "web"}, "spec": {"serviceAccountName": "default", "containers": [{"name": "c", "image": "i:1"}]}})
}

fn bound(name: &str) -> Value {
    let mut value = pod(name);
    value["spec"]["nodeName"] = json!("n1");
    value
}

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "web"}, "spec": spec})
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d", "namespace": "web"}, "spec": {"selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn a_new_object_gets_what_the_system_gives() {
    let mut cluster = Cluster::new();
    let mut value = pod("a");
    value["metadata"]["uid"] = json!("chosen");
    value["metadata"]["generation"] = json!(9);
    value["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    value["status"] = json!({"phase": "Running"});
    let got = cluster.create(Kind::Pod, value).value();
    for (pointer, expected) in [
        ("/metadata/uid", json!("uid-2")),
        ("/metadata/generation", json!(1)),
        ("/metadata/creationTimestamp", json!("2026-05-01T10:00:00Z")),
        ("/metadata/deletionTimestamp", Value::Null),
        ("/metadata/resourceVersion", json!("2")),
        ("/status", json!({"phase": "Pending", "qosClass": "BestEffort"})),
        ("/spec/restartPolicy", json!("Always")),
    ] {
        assert_eq!(got.pointer(pointer).cloned().unwrap_or(Value::Null), expected, "{pointer}");
    }
    let stored = cluster.state.get(&Key::new(Kind::Pod, "web", "a")).expect("stored");
    let again = Object::from_json(Kind::Pod, &stored.json()).expect("decodes");
    assert_eq!(*stored, again, "what is stored is what is written");
}

#[test]
fn generated_names_follow_from_the_uid() {
    let value = json!({"metadata": {"generateName": "a-", "namespace": "web"}});
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut cluster = Cluster::new();
        let first = cluster.create(Kind::ConfigMap, value.clone()).key().name.clone();
        let second = cluster.create(Kind::ConfigMap, value.clone()).key().name.clone();
        assert_ne!(first, second);
        assert!(first.starts_with("a-") && first.len() == 7, "{first}");
        names.push((first, second));
    }
    assert_eq!(names[0], names[1], "the same UIDs give the same names");
    let mut cluster = Cluster::new();
    let first = cluster.create(Kind::ConfigMap, value.clone());
    cluster.uids -= 1;
    let second = cluster.create(Kind::ConfigMap, value);
    assert_ne!(first.key(), second.key(), "a name that is taken is passed over");
}

#[test]
fn namespaces_must_be_there_and_stay() {
    let mut cluster = Cluster::new();
    let config = |namespace: &str| object(Kind::ConfigMap, json!({"metadata": {"name": "c", "namespace": namespace}}));
    assert_eq!(cluster.refusal(Write::Create(config("gone"))), "namespaces \"gone\" not found");
    cluster.create(Kind::ConfigMap, config("default").value());
    cluster.create(Kind::ConfigMap, config("web").value());
    cluster.delete(&Key::cluster(Kind::Namespace, "web"), None);
    let mut other = config("web").value();
    other["metadata"]["name"] = json!("d");
    assert_eq!(
        cluster.refusal(Write::Create(object(Kind::ConfigMap, other))),
        "ConfigMap web/d is forbidden: unable to create new content in namespace web because it is being terminated"
    );
    let default = Key::cluster(Kind::Namespace, "default");
    cluster.create(Kind::Namespace, json!({"metadata": {"name": "default"}}));
    assert_eq!(
        cluster.refusal(Write::Delete { key: default, precondition: Precondition::exists(), grace_seconds: None }),
        "Namespace default is forbidden: this namespace may not be deleted"
    );
}

#[test]
fn a_namespace_goes_when_it_is_empty() {
    let mut cluster = Cluster::new();
    let key = Key::cluster(Kind::Namespace, "web");
    let config = cluster.create(Kind::ConfigMap, json!({"metadata": {"name": "c", "namespace": "web"}}));
    let marked = cluster.delete(&key, None).expect("marked");
    assert_eq!(marked.value().pointer("/status/phase"), Some(&json!("Terminating")));
    assert!(cluster.delete(&key, None).is_some_and(|it| it.revision() == marked.revision()), "once is enough");
    let without = |cluster: &Cluster| {
        let namespace = cluster.state.get(&key).expect("there");
        namespace.edit(|it: &mut Namespace| it.spec.as_mut().expect("a spec").finalizers = None).expect("a namespace")
    };
    let early = without(&cluster);
    assert_eq!(cluster.update(early).map(|it| it.revision()), Some(marked.revision()), "not while something is left");
    cluster.delete(config.key(), None);
    let last = without(&cluster);
    assert_eq!(cluster.update(last), None);
    assert!(cluster.state.get(&key).is_none());
}

#[test]
fn broken_rules_are_all_told() {
    let mut cluster = Cluster::new();
    let mut value = deployment();
    value["spec"]["replicas"] = json!(-1);
    value["spec"]["template"]["spec"]["priorityClassName"] = json!("high");
    value["spec"]["template"]["spec"]["containers"][0]["name"] = json!("");
    assert_eq!(
        cluster.refusal(Write::Create(object(Kind::Deployment, value.clone()))),
        "Deployment web/d is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0; \
         spec.template.spec.containers[0].name: Required value; \
         spec.template.spec.priorityClassName: Forbidden: pod priorities are not supported yet"
    );
    let errors = normalise(&object(Kind::Deployment, value), &crate::model::custom::Definitions::default()).expect_err("refused");
    assert_eq!(errors.len(), 3);
    let good = normalise(&object(Kind::Deployment, deployment()), &crate::model::custom::Definitions::default()).expect("fine");
    assert_eq!(good.value().pointer("/spec/replicas"), Some(&json!(1)));
}

#[test]
fn an_update_keeps_what_is_not_the_writers() {
    let mut cluster = Cluster::new();
    let created = cluster.create(Kind::Deployment, deployment());
    let mut status = created.value();
    status["status"] = json!({"replicas": 1});
    status["spec"]["replicas"] = json!(7);
    let after = cluster.update_status(object(Kind::Deployment, status)).expect("there");
    assert_eq!(after.value().pointer("/status/replicas"), Some(&json!(1)));
    assert_eq!(after.value().pointer("/spec/replicas"), Some(&json!(1)), "a status write is only that");
    assert_eq!(after.meta().generation, Some(1));
    let same = cluster.update(object(Kind::Deployment, deployment())).expect("there");
    assert_eq!(same.revision(), after.revision(), "the manifest again changes nothing");
    let mut scaled = deployment();
    scaled["spec"]["replicas"] = json!(3);
    scaled["metadata"]["generation"] = json!(40);
    scaled["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    scaled["status"] = json!({"replicas": 9});
    let scaled = cluster.update(object(Kind::Deployment, scaled)).expect("there");
    assert_eq!(scaled.meta().generation, Some(2));
    assert_eq!(scaled.meta().creation_timestamp, created.meta().creation_timestamp);
    assert_eq!(scaled.uid(), created.uid());
    assert_eq!(scaled.value().pointer("/status/replicas"), Some(&json!(1)));
    let labelled = scaled.clone().edit_meta(|meta| meta.labels = Some([("a".to_owned(), "b".to_owned())].into()));
    let labelled = cluster.update(labelled).expect("there");
    assert!(labelled.revision() > scaled.revision());
    assert_eq!(labelled.meta().generation, Some(2), "labels are no part of the spec");
    let mut other = deployment();
    other["spec"]["selector"]["matchLabels"] = json!({"app": "y"});
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "y"});
    assert_eq!(
        cluster.refusal(Write::Update(object(Kind::Deployment, other), Precondition::exists())),
        "Deployment web/d is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"
    );
    let foreign = labelled.edit_meta(|meta| meta.uid = Some("other".to_owned()));
    assert!(
        cluster
            .refusal(Write::Update(foreign, Precondition::exists()))
            .contains("metadata.uid: Invalid value: \"other\": field is immutable")
    );
}

#[test]
fn ownership_counts_but_its_time_does_not() {
    let mut cluster = Cluster::new();
    let entry = |time: &str, field: &str| json!([{"manager": "m", "operation": "Apply", "time": time, "fieldsV1": {field: {}}}]);
    let config = |entries: Value| object(Kind::ConfigMap, json!({"metadata": {"name": "c", "namespace": "web", "managedFields": entries}}));
    let created = cluster.create(Kind::ConfigMap, config(entry("2026-01-01T00:00:00Z", "f:a")).value());
    let later = cluster.update(config(entry("2026-02-01T00:00:00Z", "f:a"))).expect("there");
    assert_eq!(later.revision(), created.revision());
    let silent = cluster.update(object(Kind::ConfigMap, json!({"metadata": {"name": "c", "namespace": "web"}}))).expect("there");
    assert_eq!(silent.revision(), created.revision());
    let other = cluster.update(config(entry("2026-02-01T00:00:00Z", "f:b"))).expect("there");
    assert!(other.revision() > created.revision());
}

#[test]
fn a_bound_pod_ends_with_grace() {
    let mut cluster = Cluster::new();
    let loose = cluster.create(Kind::Pod, pod("loose"));
    assert_eq!(cluster.delete(loose.key(), None), None, "nothing runs of an unbound pod");
    let key = cluster.create(Kind::Pod, bound("a")).key().clone();
    let marked = cluster.delete(&key, None).expect("marked");
    assert_eq!(marked.meta().deletion_grace_period_seconds, Some(30));
    assert_eq!(marked.value().pointer("/metadata/deletionTimestamp"), Some(&json!("2026-05-01T10:00:30Z")));
    assert_eq!(marked.meta().generation, Some(2));
    assert_eq!(cluster.delete(&key, Some(60)).map(|it| it.revision()), Some(marked.revision()), "never longer");
    let sooner = cluster.delete(&key, Some(5)).expect("there");
    assert_eq!(sooner.value().pointer("/metadata/deletionTimestamp"), Some(&json!("2026-05-01T10:00:05Z")));
    assert!(cluster.update(object(Kind::Pod, bound("a"))).is_some_and(|it| it.is_deleting()), "no update takes it back");
    assert_eq!(cluster.delete(&key, Some(0)), None);
    let key = cluster.create(Kind::Pod, bound("b")).key().clone();
    let mut done = bound("b");
    done["status"] = json!({"phase": "Succeeded"});
    cluster.update_status(object(Kind::Pod, done));
    assert_eq!(cluster.delete(&key, None), None, "a finished pod goes at once");
}

#[test]
fn a_grace_beyond_the_calendar_is_a_long_one_and_not_none() {
    let mut cluster = Cluster::new();
    let key = cluster.create(Kind::Pod, bound("a")).key().clone();
    let marked = cluster.delete(&key, Some(i64::MAX)).expect("marked");
    let end = marked.value().pointer("/metadata/deletionTimestamp").and_then(Value::as_str).unwrap().to_owned();
    assert!(end.starts_with("2036-"), "{end}");
    let sooner = cluster.delete(&key, Some(5)).expect("there");
    assert_eq!(sooner.value().pointer("/metadata/deletionTimestamp"), Some(&json!("2026-05-01T10:00:05Z")));
}

#[test]
fn finalizers_hold() {
    let mut cluster = Cluster::new();
    let mut value = bound("a");
    value["metadata"]["finalizers"] = json!(["a/b"]);
    let key = cluster.create(Kind::Pod, value).key().clone();
    let free = |object: &Object| object.clone().edit_meta(|meta| meta.finalizers = None);
    let marked = cluster.delete(&key, None).expect("marked");
    let running = cluster.update(free(&marked)).expect("its agent still runs it");
    assert_eq!(running.meta().finalizers, None);
    assert_eq!(cluster.delete(&key, Some(0)), None);

    let mut value = json!({"metadata": {"name": "c", "namespace": "web", "finalizers": ["a/b"]}});
    let key = cluster.create(Kind::ConfigMap, value.clone()).key().clone();
    let marked = cluster.delete(&key, None).expect("marked");
    assert_eq!(cluster.delete(&key, None).map(|it| it.revision()), Some(marked.revision()));
    value["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
    assert!(cluster.refusal(Write::Update(object(Kind::ConfigMap, value), Precondition::exists())).contains("no new finalizers"));
    assert_eq!(cluster.update(free(&marked)), None, "the last finalizer was all that held it");
}

#[test]
fn a_pod_is_bound_once() {
    let mut cluster = Cluster::new();
    cluster.create(Kind::Pod, pod("a"));
    cluster.writer = "scheduler";
    let to = |node: &str| {
        let mut value = pod("a");
        value["spec"]["nodeName"] = json!(node);
        object(Kind::Pod, value)
    };
    let got = cluster.update(to("n1")).expect("there");
    assert_eq!(got.get::<Pod>().and_then(|it| it.spec.as_ref()?.node_name.clone()).as_deref(), Some("n1"));
    assert_eq!(got.meta().generation, Some(2));
    assert!(
        cluster.refusal(Write::Update(to("n2"), Precondition::exists())).contains("spec: Forbidden: pod updates may not change fields")
    );
}

#[test]
fn a_pod_gets_what_its_runtime_class_says() {
    let mut cluster = Cluster::new();
    let class = json!({"metadata": {"name": "light"}, "handler": "runc", "overhead": {"podFixed": {"memory": "8Mi"}},
        "scheduling": {"nodeSelector": {"oci": "yes"}, "tolerations": [{"key": "oci", "operator": "Exists"}]}});
    cluster.create(Kind::RuntimeClass, class);
    cluster.create(Kind::RuntimeClass, json!({"metadata": {"name": "plain"}, "handler": "crun"}));
    let with = |name: &str, class: &str, change: &[(&str, Value)]| {
        let mut value = pod(name);
        value["spec"]["runtimeClassName"] = json!(class);
        change.iter().for_each(|(field, to)| value["spec"][*field] = to.clone());
        value
    };
    let own = [("nodeSelector", json!({"disk": "fast"})), ("tolerations", json!([{"key": "oci", "operator": "Exists"}]))];
    let made = cluster.create(Kind::Pod, with("a", "light", &own)).value();
    assert_eq!(made["spec"]["overhead"], json!({"memory": "8Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "fast", "oci": "yes"}));
    assert_eq!(made["spec"]["tolerations"].as_array().map(|all| all.iter().filter(|one| one["key"] == "oci").count()), Some(1));
    cluster.create(Kind::Pod, with("b", "light", &[("overhead", json!({"memory": "8192Ki"}))]));
    for (class, change, expected) in [
        ("none", vec![], "pod rejected: RuntimeClass \"none\" not found"),
        ("light", vec![("overhead", json!({"memory": "9Mi"}))], "Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
        ("plain", vec![("overhead", json!({"memory": "9Mi"}))], "Pod Overhead set without corresponding RuntimeClass defined Overhead"),
        ("", vec![("overhead", json!({"memory": "9Mi"}))], "Pod Overhead set without corresponding RuntimeClass defined Overhead"),
        ("light", vec![("nodeSelector", json!({"oci": "no"}))], "conflict: runtimeClass.scheduling.nodeSelector[oci] = yes; pod.spec"),
    ] {
        let refusal = cluster.refusal(Write::Create(object(Kind::Pod, with("c", class, &change))));
        assert!(refusal.contains(expected), "{class}: {refusal}");
    }
}

#[test]
fn a_pod_gets_the_pull_secrets_of_its_account() {
    let mut cluster = Cluster::new();
    for (name, secrets) in
        [("default", json!([{"name": "common"}])), ("builder", json!([{"name": "a"}, {"name": "b"}])), ("bare", json!([]))]
    {
        let metadata = json!({"name": name, "namespace": "web"});
        cluster.create(Kind::ServiceAccount, json!({"metadata": metadata, "imagePullSecrets": secrets}));
    }
    let mut secrets = |name: &str, account: Value, own: Value| {
        let mut value = pod(name);
        value["spec"]["serviceAccountName"] = account;
        value["spec"]["imagePullSecrets"] = own;
        let created = cluster.create(Kind::Pod, value).value();
        let names = created["spec"]["imagePullSecrets"].as_array().cloned().unwrap_or_default();
        names.iter().map(|secret| secret["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(secrets("one", Value::Null, Value::Null), ["common"]);
    assert_eq!(secrets("two", json!("builder"), Value::Null), ["a", "b"]);
    assert_eq!(secrets("three", json!("builder"), json!([{"name": "own"}])), ["own"]);
    assert_eq!(secrets("four", json!("bare"), Value::Null), Vec::<String>::new());
    let mut value = pod("five");
    value["spec"]["serviceAccountName"] = json!("nobody");
    let refused = cluster.refusal(Write::Create(object(Kind::Pod, value)));
    assert_eq!(refused, "Pod web/five is forbidden: error looking up service account web/nobody: serviceaccount \"nobody\" not found");
}

/// Its node would get the account's tokens.
#[test]
fn nobody_shows_a_kubelets_own_pod_with_an_account() {
    let mut cluster = Cluster::new();
    cluster.create(Kind::ServiceAccount, json!({"metadata": {"name": "default", "namespace": "web"}}));
    let mirror = |change: Value| {
        let mut value = pod("shown");
        value["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
        value["spec"]["serviceAccountName"] = Value::Null;
        json_patch::merge(&mut value, &change);
        Write::Create(object(Kind::Pod, value))
    };
    for name in ["serviceAccountName", "serviceAccount"] {
        let refused = cluster.refusal(mirror(json!({"spec": {name: "default"}})));
        assert_eq!(refused, "Pod web/shown is forbidden: a mirror pod may not reference service accounts");
    }
    let shown = cluster.apply(mirror(json!({}))).expect("admitted").expect("there").value();
    assert!(shown["spec"]["serviceAccountName"].is_null(), "{shown}");
}

#[test]
fn services_get_addresses_of_their_own() {
    let mut cluster = Cluster::new();
    let address = |it: &Object| it.get::<Service>().and_then(|it| it.spec.as_ref()?.cluster_ip.clone()).unwrap_or_default();
    let ports = json!({"ports": [{"port": 80}]});
    let first = cluster.create(Kind::Service, service("a", ports.clone()));
    assert!(address(&first).starts_with("10.96."), "{}", address(&first));
    let again = cluster.update(object(Kind::Service, service("a", ports.clone()))).expect("there");
    assert_eq!(again.revision(), first.revision(), "the manifest without an address is the same Service");
    let taken = json!({"ports": [{"port": 80}], "clusterIP": address(&first)});
    assert_eq!(
        cluster.refusal(Write::Create(object(Kind::Service, service("b", taken.clone())))),
        format!(
            "Service web/b is invalid: spec.clusterIPs: Invalid value: [\"{0}\"]: failed to allocate IP {0}: provided IP is already allocated",
            address(&first)
        )
    );
    let outside = json!({"ports": [{"port": 80}], "clusterIP": "192.0.2.1"});
    assert!(cluster.refusal(Write::Create(object(Kind::Service, service("b", outside)))).ends_with(
        "failed to allocate IP 192.0.2.1: the provided IP (192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
    ));
    cluster.delete(first.key(), None);
    cluster.create(Kind::Service, service("b", taken));
    let next = cluster.create(Kind::Service, service("a", ports));
    assert_ne!(address(&next), address(&first), "its first choice is taken now");
    let headless = cluster.create(Kind::Service, service("h", json!({"clusterIP": "None"})));
    assert_eq!(address(&headless), "None");
}

#[test]
fn the_service_range_is_a_setting() {
    let mut cluster = Cluster::new();
    let settings = json!({"metadata": {"name": "podbay-cluster", "namespace": "kube-system"}, "data": {"serviceRange": "10.7.0.0/29"}});
    cluster.create(Kind::ConfigMap, settings);
    let mut seen = std::collections::BTreeSet::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let created = cluster.create(Kind::Service, service(name, json!({"ports": [{"port": 80}]})));
        let address = created.get::<Service>().and_then(|it| it.spec.as_ref()?.cluster_ip.clone()).expect("an address");
        assert!(address.starts_with("10.7.0.") && seen.insert(address.clone()), "{address}");
    }
    let full = cluster.refusal(Write::Create(object(Kind::Service, service("g", json!({"ports": [{"port": 80}]})))));
    assert!(full.ends_with("range 10.7.0.0/29 is full"), "{full}");
}

#[test]
fn node_ports_are_given_kept_and_returned() {
    let mut cluster = Cluster::new();
    let port = |it: &Object| it.get::<Service>().and_then(|it| it.spec.as_ref()?.ports.as_ref()?[0].node_port);
    let node_port = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let first = cluster.create(Kind::Service, service("a", node_port.clone()));
    let given = port(&first).expect("a port");
    assert!((30_000..=32_767).contains(&given));
    let same = cluster.update(object(Kind::Service, service("a", node_port))).expect("there");
    assert_eq!(same.revision(), first.revision());
    let chosen = |number: i32| service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]}));
    assert!(cluster.refusal(Write::Create(object(Kind::Service, chosen(given)))).ends_with("provided port is already allocated"));
    assert!(cluster.refusal(Write::Create(object(Kind::Service, chosen(80)))).ends_with("The range of valid ports is 30000-32767"));
    let mut plain = first.value();
    plain["spec"]["type"] = json!("ClusterIP");
    plain["spec"]["externalTrafficPolicy"] = Value::Null;
    let plain = cluster.update(object(Kind::Service, plain)).expect("there");
    assert_eq!(port(&plain), None, "another type has none");
    assert_eq!(port(&cluster.create(Kind::Service, chosen(given))), Some(given));
}

#[test]
fn a_job_is_told_from_all_others() {
    let mut cluster = Cluster::new();
    let value = json!({"metadata": {"name": "j", "namespace": "web"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let created = cluster.create(Kind::Job, value.clone());
    let spec = created.get::<Job>().and_then(|it| it.spec.clone()).expect("a spec");
    let uid = created.uid().to_owned();
    let expected = [
        ("batch.kubernetes.io/controller-uid".to_owned(), uid.clone()),
        ("batch.kubernetes.io/job-name".to_owned(), "j".to_owned()),
        ("controller-uid".to_owned(), uid.clone()),
        ("job-name".to_owned(), "j".to_owned()),
    ];
    assert_eq!(spec.template.metadata.and_then(|it| it.labels), Some(expected.into()));
    let selector = spec.selector.and_then(|it| it.match_labels).expect("a selector");
    assert_eq!(selector, [("batch.kubernetes.io/controller-uid".to_owned(), uid)].into());
    let again = cluster.update(object(Kind::Job, value.clone())).expect("there");
    assert_eq!(again.revision(), created.revision(), "the manifest without selector is the same Job");
    let mut other = value;
    other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
    assert!(cluster.refusal(Write::Update(object(Kind::Job, other), Precondition::exists())).contains("spec.template: Invalid value"));
}

#[test]
fn secrets_are_merged_and_never_told() {
    let mut cluster = Cluster::new();
    let value = json!({"metadata": {"name": "s", "namespace": "web"}, "data": {"a": "MQ=="}, "stringData": {"b": "geheim"}});
    let created = cluster.create(Kind::Secret, value.clone());
    let secret = created.get::<Secret>().expect("a secret");
    assert_eq!(secret.string_data, None);
    assert_eq!(secret.data.as_ref().map(std::collections::BTreeMap::len), Some(2));
    assert_eq!(cluster.update(object(Kind::Secret, value)).map(|it| it.revision()), Some(created.revision()));
    let bad = json!({"metadata": {"name": "t", "namespace": "web"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": "geheim", "a/b": "geheim"}});
    let refusal = cluster.refusal(Write::Create(object(Kind::Secret, bad)));
    assert!(!refusal.contains("geheim") && !refusal.contains("Z2VoZWlt"), "{refusal}");
}

#[test]
fn a_node_keeps_its_range_and_its_first_status() {
    let mut cluster = Cluster::new();
    let node = json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "4"}}});
    let created = cluster.create(Kind::Node, node.clone());
    assert_eq!(created.value().pointer("/status/allocatable/cpu"), Some(&json!("4")));
    let mut ranged = created.value();
    ranged["spec"] = json!({"podCIDR": "10.80.1.0/24"});
    let ranged = cluster.update(object(Kind::Node, ranged)).expect("there");
    let again = cluster.update(object(Kind::Node, node)).expect("there");
    assert_eq!(again.revision(), ranged.revision(), "an agent that registers again takes nothing away");
    assert_eq!(cluster.delete(created.key(), None), None);
}

#[test]
fn a_status_is_refused_where_there_is_none() {
    let mut cluster = Cluster::new();
    let config = cluster.create(Kind::ConfigMap, json!({"metadata": {"name": "c", "namespace": "web"}}));
    assert!(cluster.refusal(Write::UpdateStatus(config, Precondition::exists())).ends_with("ConfigMap has no status"));
}

#[test]
fn a_volume_says_how_it_is_mounted_in_its_field() {
    let mut cluster = Cluster::new();
    let mut value = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/srv"}, "mountOptions": ["ro"]}});
    value["metadata"]["annotations"] = json!({"volume.beta.kubernetes.io/mount-options": "ro"});
    let refused = cluster.refusal(Write::Create(object(Kind::PersistentVolume, value.clone())));
    let why = "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type";
    assert!(refused.contains(why), "{refused}");
    value["metadata"]["annotations"] = json!({});
    assert_eq!(cluster.create(Kind::PersistentVolume, value).value()["spec"]["mountOptions"], json!(["ro"]));
}

#[test]
fn a_bound_claim_does_not_grow() {
    let mut cluster = Cluster::new();
    let claim = cluster.create(
        Kind::PersistentVolumeClaim,
        json!({"metadata": {"name": "c", "namespace": "web"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "x",
            "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    let with = |pointer: &str, value: Value| {
        let mut whole = claim.value();
        *whole.pointer_mut(pointer).expect("it is there") = value;
        object(Kind::PersistentVolumeClaim, whole)
    };
    cluster.update_status(with("/status", json!({"phase": "Bound", "capacity": {"storage": "1Gi"}})));
    let refused = |cluster: &mut Cluster, size: &str| {
        let larger = with("/spec/resources/requests/storage", json!(size));
        cluster.apply(Write::Update(larger, Precondition::exists())).expect_err("refused").to_string()
    };
    assert_eq!(
        refused(&mut cluster, "2Gi"),
        "PersistentVolumeClaim web/c is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions \
         the pvc must support resize"
    );
    assert!(refused(&mut cluster, "1Mi").contains("is invalid: spec.resources.requests.storage"));
    cluster.update(with("/spec/resources/requests/storage", json!("1024Mi")));
}
