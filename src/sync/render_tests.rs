//! What a tree's files mean to a source, seen from the objects that are there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use serde_json::json;

use super::render::{Cache, OBJECTS, Options, render};
use super::source::Tree;
use super::tests::{World, config};
use crate::model::custom::Definitions;
use crate::model::{Key, Kind, Object, SourceStatus};
use crate::store::transaction::{Precondition, Write};

/// A source that leaves out what is not served.
fn skipping() -> World {
    let mut world = World::new();
    world.source("web", |spec| spec.unsupported = Some("skip".to_owned()));
    world
}

fn errors(status: &SourceStatus) -> String {
    status.errors.join("\n")
}

/// `unsupported: skip` is for kinds that are not served. A slip in a kind must not read as "no
/// longer wanted".
#[test]
fn a_mistyped_kind_never_deletes_what_runs() {
    for slip in [
        config("keep", "1").replace("ConfigMap", "ConfgMap"),
        config("keep", "1").replace("ConfigMap", "CM"),
        config("keep", "1").replace("v1", "app/v1"),
        config("keep", "1").replace("v1", "v11"),
    ] {
        let mut world = skipping();
        world.put("web", "r1", &[("a.yaml", &config("keep", "1")), ("b.yaml", &config("other", "1"))]);
        let status = world.put("web", "r2", &[("a.yaml", &slip), ("b.yaml", &config("other", "1"))]);
        assert!(errors(&status).contains("is not served"), "{slip}: {status:?}");
        assert!(world.has(Kind::ConfigMap, "default", "keep"), "{slip}");
    }
}

/// A document that is left out and has the kind and name of what the source holds keeps it.
#[test]
fn what_a_document_names_that_is_left_out_is_not_pruned() {
    let mut world = skipping();
    world.put("web", "r1", &[("a.yaml", &config("keep", "1")), ("b.yaml", &config("go", "1"))]);
    let foreign = config("keep", "1").replace("v1", "example.com/v1");
    let status = world.put("web", "r2", &[("a.yaml", &foreign), ("c.yaml", &config("other", "1"))]);
    assert_eq!(errors(&status), "");
    assert!(world.has(Kind::ConfigMap, "default", "keep") && !world.has(Kind::ConfigMap, "default", "go"));
    // It is still the source's: once git says nothing of it, it goes.
    world.put("web", "r3", &[("c.yaml", &config("other", "1"))]);
    assert!(!world.has(Kind::ConfigMap, "default", "keep"));
}

fn list(field: &str) -> String {
    format!("apiVersion: v1\nkind: List\n{field}:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {{name: l}}\n")
}

#[test]
fn a_list_without_its_items_is_refused() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(list("items") + "---\n" + &config("a", "1")))]);
    for (text, said) in [
        (list("item"), "a.yaml:3:1: unknown field `item` in List, did you mean `items`?"),
        ("apiVersion: v1\nkind: List\n".to_owned(), "a.yaml:1:1: this List has no `items`"),
        ("apiVersion: v1\nkind: List\nitems:\n".to_owned(), "a.yaml:3:1: `items` of a List is a list of objects"),
        ("apiVersion: v1\nkind: ConfigMapList\n".to_owned(), "a.yaml:1:1: this ConfigMapList has no `items`"),
    ] {
        let status = world.put("web", "r2", &[("a.yaml", &(text + "---\n" + &config("a", "1")))]);
        assert!(errors(&status).contains(said), "{status:?}");
        assert!(world.has(Kind::ConfigMap, "default", "l"));
    }
}

#[test]
fn every_kind_of_list_is_a_list() {
    let mut world = World::with("web");
    let typed = "apiVersion: v1\nkind: ConfigMapList\nmetadata: {resourceVersion: \"\"}\nitems:\n- metadata: {name: a}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n";
    let nested = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: SecretList\n  items:\n  - metadata: {name: c}\n- {apiVersion: v1, kind: List, items: []}\n";
    let status = world.put("web", "r1", &[("a.yaml", typed), ("b.yaml", nested)]);
    assert_eq!(errors(&status), "");
    for (kind, name) in [(Kind::ConfigMap, "a"), (Kind::ConfigMap, "b"), (Kind::Secret, "c")] {
        assert!(world.has(kind, "default", name), "{name}");
    }
}

fn secret(said: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{said}\n---\n")
}

fn secret_of(world: &World) -> Secret {
    world.state.get(&Key::new(Kind::Secret, "default", "s")).unwrap().get::<Secret>().unwrap().clone()
}

fn keys(world: &World) -> Vec<String> {
    secret_of(world).data.unwrap_or_default().into_keys().collect()
}

#[test]
fn a_key_renamed_in_string_data_goes() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(secret("stringData: {password: hunter2}") + &config("a", "1")))]);
    assert_eq!(keys(&world), ["password"]);
    world.put("web", "r2", &[("a.yaml", &(secret("stringData: {other: x}\ndata: {third: eA==}") + &config("a", "1")))]);
    assert_eq!(keys(&world), ["other", "third"]);
    let rest = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), rest);
    world.put("web", "r3", &[("a.yaml", &(secret("") + &config("a", "1")))]);
    assert_eq!(keys(&world), [""; 0]);
}

/// Written by a version that kept `stringData` among the fields a source owns.
#[test]
fn an_older_record_of_string_data_is_understood() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(secret("stringData: {password: hunter2}") + &config("a", "1")))]);
    let live = world.state.get(&Key::new(Kind::Secret, "default", "s")).unwrap().clone();
    let old = live.clone().edit_meta(|meta| {
        for entry in meta.managed_fields.iter_mut().flatten() {
            entry.fields_v1 = Some(FieldsV1(json!({"f:stringData": {"f:password": {}}})));
        }
    });
    world.write("admin", Write::Update(old, Precondition::exists()));
    world.put("web", "r2", &[("a.yaml", &(secret("stringData: {other: x}") + &config("a", "1")))]);
    assert_eq!(keys(&world), ["other"]);
    let owned = secret_of(&world).metadata.managed_fields.unwrap();
    assert_eq!(owned[0].fields_v1.as_ref().unwrap().0, json!({"f:data": {"f:other": {}}}));
}

fn said(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let tree = Tree { files, path_exists: true, ..Tree::default() };
    let options = Options { namespace: "default".to_owned(), skip_unsupported: false };
    match render(&tree, &options, &Definitions::default(), &mut Cache::default()) {
        Ok(_) => Vec::new(),
        Err(broken) => broken.problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_tree_has_a_bound_of_objects() {
    let text: String = (0..=OBJECTS).map(|index| config(&format!("c{index}"), "")).collect();
    let half = text.len() / 2;
    let cut = half + text[half..].find("---\n").unwrap() + 4;
    let found = said(&[("a.yaml", &text[..cut]), ("b.yaml", &text[cut..])]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("b.yaml:") && found[0].ends_with("a source has at most 20000 objects: split it into several"),
        "{found:?}"
    );
}

/// Go's decoder makes an empty text of a null in a map of texts, and zero of a null quantity.
#[test]
fn null_in_a_map_is_what_it_is_to_kubernetes() {
    let mut world = World::with("web");
    let config =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  annotations: {x: }\n  labels: {tier: null}\ndata: {k: ~, l: m}\n---\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  nodeSelector: {n: }\n  containers:\n  - {name: c, image: i, resources: {limits: {cpu: }}}\n---\n";
    let status = world.put("web", "r1", &[("a.yaml", &(config.to_owned() + pod + &secret("data: {k: }\nstringData: {l: }")))]);
    assert_eq!(errors(&status), "");
    assert_eq!(world.data("a"), BTreeMap::from([("k".to_owned(), String::new()), ("l".to_owned(), "m".to_owned())]));
    let live = world.state.get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap();
    assert_eq!((live.annotation("x"), live.labels()["tier"].as_str()), (Some(""), ""));
    assert_eq!(keys(&world), ["k", "l"]);
    let rest = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), rest);
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replica: 3\n  replicas: -3\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: Bad_Name\n        imag: i\n        args: [1]\n        ports: [{containerPort: \"80\"}]\n---\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n---\n";
    let found = said(&[
        ("a.yaml", &(deployment.to_owned() + service + &config("Bad_Name", "1") + &config("twin", "1"))),
        ("b.yaml", &config("twin", "1").replace("\ndata", "\ndatta")),
    ]);
    assert_eq!(
        said(&[("a.yaml", &config("a", "1").replace("metadata", "metadatta"))]),
        ["a.yaml:3:1: unknown field `metadatta` in ConfigMap, did you mean `metadata`?"]
    );
    let lines: Vec<&str> = found.iter().map(|line| line.split(", ").next().unwrap_or_default()).collect();
    let expected = [
        "a.yaml:5:3: unknown field `replica` in Deployment.spec",
        "a.yaml:6:3: Deployment.spec.replicas: Invalid value: -3: must be greater than or equal to 0",
        "a.yaml:12:9: Deployment.spec.template.spec.containers[0].name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'",
        "a.yaml:13:9: unknown field `imag` in Deployment.spec.template.spec.containers[0]",
        "a.yaml:14:16: Deployment.spec.template.spec.containers[0].args[0] must be a string",
        "a.yaml:15:33: Deployment.spec.template.spec.containers[0].ports[0].containerPort must be an integer",
        "a.yaml:20:16: Service.spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535",
        "a.yaml:20:17: Service.spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535",
        "a.yaml:24:12: ConfigMap.metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters",
        "b.yaml:3:12: ConfigMap default/twin is given twice",
        "b.yaml:4:1: unknown field `datta` in ConfigMap",
    ];
    assert_eq!(lines, expected, "{}", found.join("\n"));
}

#[test]
fn the_same_object_twice_names_both_files() {
    let text = |namespace: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n{namespace}");
    assert_eq!(
        said(&[("x/a.yaml", &text("")), ("y/b.yaml", &text("  namespace: default\n"))]),
        ["y/b.yaml:4:3: ConfigMap default/a is given twice, first in x/a.yaml:1"]
    );
    assert_eq!(said(&[("a.yaml", &text("")), ("b.yaml", &text("  namespace: other\n"))]), [""; 0]);
}

const EXPORTED: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: p
  namespace: default
  uid: 6f5c1d1e-0000-4000-8000-000000000000
  resourceVersion: "7"
  creationTimestamp: "2026-01-01T00:00:00Z"
spec:
  nodeName: minikube
  serviceAccountName: default
  containers:
  - name: c
    image: i
    volumeMounts:
    - mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      name: kube-api-access-abcde
      readOnly: true
    - mountPath: /data
      name: data
  volumes:
  - name: kube-api-access-abcde
    projected:
      defaultMode: 420
      sources:
      - serviceAccountToken: {expirationSeconds: 3607, path: token}
      - configMap:
          items: [{key: ca.crt, path: ca.crt}]
          name: kube-root-ca.crt
      - downwardAPI:
          items:
          - fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}
            path: namespace
  - name: data
    emptyDir: {}
status:
  phase: Running
  fieldOfTomorrow: {a: 1}
  startTime: not a time
"#;

#[test]
fn an_exported_pod_is_harmless() {
    let mut world = World::with("web");
    let status = world.put("web", "r1", &[("p.yaml", EXPORTED)]);
    assert_eq!(errors(&status), "");
    let pod = world.state.get(&Key::new(Kind::Pod, "default", "p")).unwrap().get::<Pod>().unwrap().spec.clone().unwrap();
    let volumes: Vec<String> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    let mounts: Vec<String> = pod.containers[0].volume_mounts.clone().unwrap().into_iter().map(|mount| mount.name).collect();
    assert_eq!((volumes.join(","), mounts.join(",")), ("data".to_owned(), "data".to_owned()));
    assert_eq!(pod.node_name, None);
    assert_eq!(
        status.skipped,
        [
            "p.yaml:10: Pod default/p: `nodeName: minikube` is left out: this Pod is an export, its node was chosen by the cluster it is from"
        ]
    );
    // Somebody's own choice of a node stands.
    let own = EXPORTED.replace("  uid: 6f5c1d1e-0000-4000-8000-000000000000\n", "").replace("name: p\n", "name: q\n");
    world.put("web", "r2", &[("p.yaml", &own)]);
    let pod = world.state.get(&Key::new(Kind::Pod, "default", "q")).unwrap().get::<Pod>().unwrap().spec.clone().unwrap();
    assert_eq!(pod.node_name.as_deref(), Some("minikube"));
    // Places are those of the file, not of what is left of it.
    let bad = EXPORTED.replace("emptyDir: {}", "csi: {driver: x}");
    assert_eq!(said(&[("p.yaml", &bad)]), ["p.yaml:35:5: Pod.spec.volumes[0].csi: Forbidden: csi volumes are not supported yet"]);
    // A token somebody asks for stands.
    let asked = EXPORTED.replace("kube-api-access-abcde", "token");
    assert!(said(&[("p.yaml", &asked)]).is_empty());
}

#[test]
fn an_object_of_git_has_no_owner() {
    let owned = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata:\n  name: web-1\n  ownerReferences:\n  - {apiVersion: apps/v1, kind: Deployment, name: web, uid: 1-2-3, controller: true}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n";
    assert_eq!(
        said(&[("r.yaml", owned)]),
        [
            "r.yaml:5:3: ReplicaSet.metadata.ownerReferences: Forbidden: it belongs to Deployment web of the cluster it was exported from and would be deleted at once: commit the owner instead, or remove `ownerReferences`"
        ]
    );
}

/// A template may say what none of its pods may: nobody would hear of it later.
#[test]
fn a_template_is_checked_as_its_pods_are() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: \" x\"}]}\n";
    assert_eq!(
        said(&[("a.yaml", text)]),
        [
            "a.yaml:8:35: Deployment.spec.template.spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace"
        ]
    );
}

/// An exported Secret for a token has another cluster's: the cluster's controller and the source would write it in turns.
#[test]
fn what_the_cluster_puts_into_a_token_secret_is_not_gits() {
    let mut world = World::with("web");
    let text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: t\n  annotations: {kubernetes.io/service-account.name: bot, kubernetes.io/service-account.uid: other}\n\
                type: kubernetes.io/service-account-token\ndata: {ca.crt: AAAA, namespace: AAAA, token: AAAA, more: AAAA}\n";
    let status = world.put("web", "r1", &[("a.yaml", text)]);
    assert_eq!(errors(&status), "");
    let secret = world.state.find(Kind::Secret, "default", "t").and_then(|it| it.get::<Secret>()).unwrap().clone();
    assert_eq!(secret.data.unwrap_or_default().into_keys().collect::<Vec<_>>(), ["more"]);
    let notes: Vec<String> = secret.metadata.annotations.unwrap_or_default().into_keys().collect();
    assert!(notes.iter().any(|name| name == "kubernetes.io/service-account.name") && !notes.iter().any(|name| name.ends_with(".uid")));
}

/// What a cluster writes by itself is in every export, and is not git's: both would write it in turns.
#[test]
fn what_the_cluster_writes_is_left_unsaid() {
    let deployment = |notes: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, annotations: {{{notes}}}}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  \
             template:\n    metadata: {{labels: {{a: b}}}}\n    spec: {{containers: [{{name: c, image: i}}]}}\n---\n"
        )
    };
    let set = deployment("deployment.kubernetes.io/desired-replicas: '1', deployment.kubernetes.io/max-replicas: '2'")
        .replace("kind: Deployment", "kind: ReplicaSet");
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: all}\naggregationRule: {clusterRoleSelectors: [{matchLabels: {to: all}}]}\nrules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n---\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n0\n  labels: {kubernetes.io/os: windows, kubernetes.io/arch: s390x, kubernetes.io/hostname: x, disk: ssd}\n  annotations: {podbay.dev/volumes: /x}\nspec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}]}\n---\n";
    let text = deployment("deployment.kubernetes.io/revision: '7', mine: x") + &set + role + node;
    let mut world = World::with("web");
    let status = world.put("web", "r1", &[("a.yaml", &text)]);
    assert_eq!(errors(&status), "");
    assert_eq!(
        status.skipped,
        [
            "Deployment default/web: its annotations deployment.kubernetes.io/* are the cluster's to say",
            "ReplicaSet default/web: its annotations deployment.kubernetes.io/* are the cluster's to say",
            "ClusterRole all: its rules, which it gathers, are the cluster's to say",
            "Node n0: its labels kubernetes.io/os, kubernetes.io/arch and kubernetes.io/hostname are the cluster's to say",
            "Node n0: its annotation podbay.dev/volumes is the cluster's to say",
            "Node n0: its taints node.kubernetes.io/* and node.cloudprovider.kubernetes.io/* are the cluster's to say",
        ]
    );
    let of = |world: &World, kind: Kind, namespace: &str, name: &str| world.state.find(kind, namespace, name).unwrap().value();
    assert_eq!(of(&world, Kind::Deployment, "default", "web")["metadata"]["annotations"], json!({"mine": "x"}));
    assert!(of(&world, Kind::ReplicaSet, "default", "web")["metadata"]["annotations"].is_null());
    assert!(of(&world, Kind::ClusterRole, "", "all")["rules"].as_array().is_none_or(Vec::is_empty));
    let found = of(&world, Kind::Node, "", "n0");
    assert_eq!(found["metadata"]["labels"], json!({"disk": "ssd"}));
    assert!(found["metadata"]["annotations"].is_null() && found["spec"]["taints"].is_null(), "{found}");
    // Whatever the cluster says then stays.
    for (kind, namespace, name, path, said) in [
        (Kind::Deployment, "default", "web", "/metadata/annotations", json!({"mine": "x", "deployment.kubernetes.io/revision": "2"})),
        (Kind::ClusterRole, "", "all", "/rules", json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}])),
        (Kind::Node, "", "n0", "/metadata/labels", json!({"disk": "ssd", "kubernetes.io/os": "linux"})),
    ] {
        let mut value = of(&world, kind, namespace, name);
        let (above, field) = path.rsplit_once('/').unwrap();
        value.pointer_mut(above).unwrap()[field] = said.clone();
        world.write("controller:it", Write::Update(Object::from_value(kind, value).unwrap(), Precondition::exists()));
        world.again("web");
        assert_eq!(of(&world, kind, namespace, name).pointer(path), Some(&said));
    }
    // A role that gathers nothing says its rules, and a ConfigMap may be annotated as it likes.
    let plain = role.replace("aggregationRule: {clusterRoleSelectors: [{matchLabels: {to: all}}]}\n", "").replace("name: all", "name: one");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, annotations: {deployment.kubernetes.io/revision: '1'}}\n";
    let status = world.put("web", "r2", &[("a.yaml", &(text + &plain + map))]);
    assert_eq!((errors(&status).as_str(), status.skipped.len()), ("", 6));
    assert_eq!(of(&world, Kind::ClusterRole, "", "one")["rules"][0]["verbs"], json!(["get"]));
    assert_eq!(of(&world, Kind::ConfigMap, "default", "c")["metadata"]["annotations"], json!({"deployment.kubernetes.io/revision": "1"}));
}

/// The same with whole objects: they are neither made, nor taken over, nor put back, nor pruned.
#[test]
fn what_is_the_clusters_own_is_left_out() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-root-ca.crt, namespace: web}\ndata: {ca.crt: other}\n---\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes}\nspec: {ports: [{port: 443, targetPort: 8443}]}\n---\n";
    let slice =
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: kubernetes}\naddressType: IPv4\nendpoints: []\n---\n";
    let mut world = World::with("web");
    let namespace = json!({"metadata": {"name": "web"}});
    world.write("admin", Write::Create(Object::from_value(Kind::Namespace, namespace).unwrap()));
    let own = json!({"metadata": {"name": "kube-root-ca.crt", "namespace": "web"}, "data": {"ca.crt": "ours"}});
    world.write("controller:furnish", Write::Create(Object::from_value(Kind::ConfigMap, own).unwrap()));
    let files = [config("a", "1"), map.to_owned(), service.to_owned(), slice.to_owned()].concat();
    let status = world.put("web", "r1", &[("a.yaml", &files)]);
    assert_eq!(errors(&status), "");
    assert_eq!(
        status.skipped,
        [
            "a.yaml:6: ConfigMap web/kube-root-ca.crt: it is the cluster's own",
            "a.yaml:11: Service default/kubernetes: it is the cluster's own",
            "a.yaml:16: EndpointSlice default/kubernetes: it is the cluster's own",
        ]
    );
    assert_eq!(world.state.find(Kind::ConfigMap, "web", "kube-root-ca.crt").unwrap().value()["data"], json!({"ca.crt": "ours"}));
    assert!(!world.has(Kind::Service, "default", "kubernetes"));
    assert_eq!(status.inventory.len(), 1);
    // Another Service of that name is as any other.
    let other = service.replace("name: kubernetes", "name: kubernetes, namespace: web");
    world.put("web", "r2", &[("a.yaml", &(files + &other))]);
    assert!(world.has(Kind::Service, "web", "kubernetes"));
    world.put("web", "r3", &[("a.yaml", &config("a", "1"))]);
    assert!(world.has(Kind::ConfigMap, "web", "kube-root-ca.crt"));
}
