//! Kinds that a CustomResourceDefinition makes, by the real kubectl and on the wire.

use std::time::Duration;

use http::{Request, StatusCode};
use podbay::model::Key;
use podbay::server::Identity;
use podbay::store::{Precondition, Transaction, Write};
use serde_json::{Value, json};

use crate::rig::{Rig, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

/// The documentation's CronTab, with every subresource and two versions.
fn definition() -> Value {
    let schema = json!({"type": "object", "description": "A line of a cron table.", "properties": {
        "spec": {"type": "object", "required": ["cronSpec"], "description": "What runs when.", "properties": {
            "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "description": "When it runs."},
            "image": {"type": "string", "default": "busybox"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
            "zone": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "zone is immutable"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}},
    }});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector"}},
        "selectableFields": [{"jsonPath": ".spec.image"}],
        "additionalPrinterColumns": [
            {"name": "Spec", "type": "string", "description": "When it runs", "jsonPath": ".spec.cronSpec"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Image", "type": "string", "priority": 1, "jsonPath": ".spec.image"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [version("v1", true), version("v1beta1", false)]}})
}

fn tab(name: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name, "namespace": "default"},
        "spec": {"cronSpec": "* * * * */5", "image": "my-awesome-cron-image"}})
}

async fn defined() -> Rig {
    let rig = Rig::start().await;
    let (status, answer) = rig.ask("POST", DEFINITIONS, definition()).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    rig
}

fn write(rig: &Rig, name: &str, value: &Value) {
    std::fs::write(rig.directory.path().join(name), value.to_string()).unwrap();
}

async fn says(rig: &Rig, line: &str) -> String {
    let output = rig.kubectl(line).await;
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_works_with_a_custom_kind() {
    let rig = Rig::start().await;
    write(&rig, "crd.json", &definition());
    write(&rig, "tab.json", &tab("a"));
    rig.kubectl_ok("apply -f crd.json").await;
    rig.kubectl_ok("wait --for condition=established --timeout=10s crd/crontabs.stable.example.com").await;
    rig.kubectl_ok("apply --server-side -f tab.json").await;
    let table = rig.kubectl_ok("get ct").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "SPEC", "REPLICAS", "AGE"], "{table}");
    assert_eq!(&lines[1][..7], ["a", "*", "*", "*", "*", "*/5", "1"], "{table}");
    assert!(rig.kubectl_ok("get crontabs -o wide").await.contains("my-awesome-cron-image"));
    assert!(rig.kubectl_ok("get all").await.contains("crontab.stable.example.com/a"));
    let explained = rig.kubectl_ok("explain crontab.spec").await;
    assert!(explained.contains("When it runs.") && explained.contains("cronSpec"), "{explained}");
    assert!(rig.kubectl_ok("explain crontab --recursive").await.contains("ownerReferences"));
    let older = rig.kubectl_ok("explain crontab.spec --output=plaintext-openapiv2").await;
    assert!(older.contains("What runs when.") && older.contains("cronSpec\t<string> -required-"), "{older}");
    assert!(rig.kubectl_ok("explain crontab --recursive --output=plaintext-openapiv2").await.contains("ownerReferences"));
    rig.kubectl_ok("scale ct/a --replicas=3").await;
    assert_eq!(rig.get(&format!("{TABS}/a")).await["spec"]["replicas"], 3);
    rig.kubectl_ok("patch ct a --subresource=status --type=merge -p {\"status\":{\"replicas\":2}}").await;
    let scale = rig.get(&format!("{TABS}/a/scale")).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(3), &json!(2)));
    rig.kubectl_ok("label ct a tier=front").await;
    rig.kubectl_ok("annotate ct a note=x").await;
    assert!(rig.kubectl_ok("describe ct a").await.contains("Cron Spec"));
    let other = rig.kubectl_ok("get crontabs.v1beta1.stable.example.com a -o jsonpath={.apiVersion}").await;
    assert_eq!(other, "stable.example.com/v1beta1");
    let mut changed = tab("a");
    changed["spec"]["cronSpec"] = json!("* * * *");
    write(&rig, "tab.json", &changed);
    let refused = says(&rig, "apply --server-side -f tab.json").await;
    assert!(refused.contains("spec.cronSpec in body should match"), "{refused}");
    changed["spec"] = json!({"cronSpec": "* * * * *", "imagee": "x"});
    write(&rig, "tab.json", &changed);
    let refused = says(&rig, "apply -f tab.json --validate=strict").await;
    assert!(refused.contains("unknown field \"spec.imagee\""), "{refused}");
    rig.kubectl_ok("delete ct a").await;
    assert!(says(&rig, "get ct").await.contains("No resources found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_pruned_filled_in_and_checked() {
    let rig = defined().await;
    let mut one = tab("a");
    one["spec"].as_object_mut().unwrap().remove("image");
    one["spec"]["someRandomField"] = json!(42);
    one["status"] = json!({"replicas": 7});
    let (status, created) = rig.ask("POST", TABS, one.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    assert_eq!(created["spec"], json!({"cronSpec": "* * * * */5", "image": "busybox", "replicas": 1}));
    assert_eq!((&created["status"], &created["metadata"]["generation"]), (&Value::Null, &json!(1)));
    let (status, refused) = rig.ask("POST", &format!("{TABS}?fieldValidation=Strict"), one).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["message"].as_str().unwrap().contains("unknown field \"spec.someRandomField\""), "{refused}");
    let mut bad = tab("b");
    bad["spec"] = json!({"replicas": 15});
    let (status, refused) = rig.ask("POST", TABS, bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<&str> = refused["details"]["causes"].as_array().unwrap().iter().map(|it| it["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["spec.cronSpec", "spec.replicas"], "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn generation_counts_the_spec_and_status_has_its_own_endpoint() {
    let rig = defined().await;
    rig.ask("POST", TABS, tab("a")).await;
    let path = format!("{TABS}/a");
    let (_, after) = rig.ask("PATCH", &path, json!({"spec": {"replicas": 2}, "status": {"replicas": 9}})).await;
    assert_eq!((&after["metadata"]["generation"], &after["status"]), (&json!(2), &Value::Null));
    let (_, after) = rig.ask("PATCH", &format!("{path}/status"), json!({"spec": {"replicas": 5}, "status": {"replicas": 9}})).await;
    assert_eq!(
        (&after["metadata"]["generation"], &after["status"]["replicas"], &after["spec"]["replicas"]),
        (&json!(2), &json!(9), &json!(2))
    );
    rig.ask("PATCH", &path, json!({"spec": {"zone": "a"}})).await;
    let (status, refused) = rig.ask("PATCH", &path, json!({"spec": {"zone": "b"}})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("spec.zone: Invalid value: \"b\": zone is immutable"), "{refused}");
    let (status, _) = rig.ask("PATCH", &format!("{path}/status"), json!({"status": {"replicas": "many"}})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let strategic = "application/strategic-merge-patch+json";
    let (status, _) = rig.ask_as(&Identity::admin(), "PATCH", &path, strategic, json!({"spec": {}})).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_merge_by_the_schemas_keys() {
    let rig = defined().await;
    let apply = "application/apply-patch+yaml";
    for (manager, name, port) in [("one", "http", 80), ("two", "https", 443), ("one", "http", 8080)] {
        let mut wanted = tab("a");
        wanted["spec"]["ports"] = json!([{"name": name, "port": port}]);
        let path = format!("{TABS}/a?fieldManager={manager}");
        let (status, answer) = rig.ask_as(&Identity::admin(), "PATCH", &path, apply, wanted).await;
        assert!(status.is_success(), "{answer}");
    }
    let ports = rig.get(&format!("{TABS}/a")).await["spec"]["ports"].clone();
    assert_eq!(ports, json!([{"name": "http", "port": 8080}, {"name": "https", "port": 443}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_shows_the_same_object() {
    let rig = defined().await;
    let beta = TABS.replace("/v1/", "/v1beta1/");
    let mut one = tab("a");
    one["apiVersion"] = json!("stable.example.com/v1beta1");
    let (status, created) = rig.ask("POST", &beta, one).await;
    assert_eq!((status, &created["apiVersion"]), (StatusCode::CREATED, &json!("stable.example.com/v1beta1")), "{created}");
    assert_eq!(rig.get(&format!("{TABS}/a")).await["apiVersion"], "stable.example.com/v1");
    let list = rig.get(&beta).await;
    assert_eq!((&list["kind"], &list["items"][0]["apiVersion"]), (&json!("CronTabList"), &json!("stable.example.com/v1beta1")));
    let (status, changed) = rig.ask("PATCH", &format!("{beta}/a"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!((status, &changed["spec"]["replicas"]), (StatusCode::OK, &json!(4)), "{changed}");
    let found = rig.get(&format!("{TABS}?fieldSelector=spec.image%3Dmy-awesome-cron-image")).await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    let found = rig.get(&format!("{TABS}?fieldSelector=spec.image%3Dother")).await;
    assert_eq!(found["items"].as_array().map(Vec::len), Some(0));
    assert_eq!(rig.ask("GET", &format!("{TABS}?fieldSelector=spec.cronSpec%3Dx"), Value::Null).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_follows_the_definitions() {
    let rig = Rig::start().await;
    assert_eq!(rig.ask("GET", TABS, Value::Null).await.0, StatusCode::NOT_FOUND);
    let hash = |index: Value| index["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].clone();
    assert_eq!(hash(rig.get("/openapi/v3").await), Value::Null);
    rig.ask("POST", DEFINITIONS, definition()).await;
    let first = hash(rig.get("/openapi/v3").await);
    assert!(first.is_string());
    let group = rig.get("/apis/stable.example.com").await;
    assert_eq!(group["preferredVersion"]["version"], "v1", "{group}");
    let resources = rig.get("/apis/stable.example.com/v1").await;
    let names: Vec<&str> = resources["resources"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["crontabs", "crontabs/status", "crontabs/scale"]);
    let document = rig.get(first.as_str().unwrap()).await;
    assert!(document["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["metadata"].is_object(), "{document}");
    let older = rig.get("/openapi/v2").await;
    let metadata = &older["definitions"]["com.example.stable.v1.CronTab"]["properties"]["metadata"]["allOf"][0]["$ref"];
    assert_eq!(metadata, "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut changed = rig.get(&path).await;
    changed["spec"] = definition()["spec"].clone();
    changed["spec"]["versions"][1]["served"] = json!(false);
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = json!("Another text.");
    let (status, answer) = rig.ask("PUT", &path, changed).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_ne!(hash(rig.get("/openapi/v3").await), first);
    assert_eq!(rig.ask("GET", &TABS.replace("/v1/", "/v1beta1/"), Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_comes_of_a_kind_that_is_on_its_way_out() {
    let rig = defined().await;
    let mut held = tab("held");
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    rig.ask("POST", TABS, held).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let (status, gone) = rig.ask("DELETE", &path, Value::Null).await;
    assert_eq!((status, &gone["metadata"]["finalizers"][0]), (StatusCode::OK, &json!("customresourcecleanup.apiextensions.k8s.io")));
    let (status, refused) = rig.ask("POST", TABS, tab("late")).await;
    assert_eq!((status, &refused["reason"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("MethodNotAllowed")));
    assert_eq!(refused["message"], "create not allowed while custom resource definition is terminating");
    let wait = format!("wait --for condition=terminating --timeout=30s crd/{}", "crontabs.stable.example.com");
    rig.kubectl_ok(&wait).await;
    assert_eq!(rig.ask("PATCH", &format!("{TABS}/held"), json!({"metadata": {"finalizers": null}})).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_cannot_be_served_is_refused() {
    let rig = Rig::start().await;
    let mut bad = definition();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "quantity(self.spec.size).isGreaterThan(quantity('1'))"}]);
    bad["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}});
    let (status, refused) = rig.ask("POST", DEFINITIONS, bad).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let text = refused["message"].as_str().unwrap();
    assert!(text.contains("undeclared reference to 'quantity'") && text.contains("webhooks that convert objects"), "{text}");
    let mut odd = definition();
    odd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["patern"] = json!("x");
    let (status, refused) = rig.ask("POST", &format!("{DEFINITIONS}?fieldValidation=Strict"), odd).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(refused["message"].as_str().unwrap().contains("properties.spec.patern"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_definition_is_seen_at_once() {
    let rig = defined().await;
    rig.ask("POST", TABS, tab("a")).await;
    let (one, path) = (format!("{TABS}/a"), format!("{DEFINITIONS}/crontabs.stable.example.com"));
    let watch = Request::builder().uri(format!("{TABS}?watch=true")).body(String::new()).unwrap();
    let watch = rig.send(&Identity::admin(), watch).await;
    // Nobody takes a kind off the API by what is said of it.
    let (status, answer) = rig.ask("PATCH", &format!("{path}/status"), json!({"status": {"conditions": []}})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(rig.get(&one).await["spec"]["image"], "my-awesome-cron-image");
    let mut changed = rig.get(&path).await;
    changed["spec"] = definition()["spec"].clone();
    for version in changed["spec"]["versions"].as_array_mut().unwrap() {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] = json!({"type": "integer", "default": 7});
        version["selectableFields"] = json!([]);
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object_mut().unwrap().remove("image");
    }
    changed["spec"]["versions"][1]["subresources"] = json!({"status": {}});
    let (status, answer) = rig.ask("PUT", &path, changed).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let seen = tokio::time::timeout(Duration::from_secs(20), json(watch)).await.expect("the watch ends");
    assert_eq!(seen["object"]["spec"]["image"], "my-awesome-cron-image");
    assert_eq!(rig.get(&one).await["spec"], json!({"cronSpec": "* * * * */5", "replicas": 1, "size": 7}));
    // What the schema says is nothing that anybody changed.
    let (_, labelled) = rig.ask("PATCH", &one, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((&labelled["metadata"]["generation"], &labelled["spec"]["size"]), (&json!(1), &json!(7)));
    assert_eq!(rig.ask("GET", &format!("{one}/scale"), Value::Null).await.0, StatusCode::OK);
    let beta = one.replace("/v1/", "/v1beta1/");
    assert_eq!(rig.ask("GET", &format!("{beta}/scale"), Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_in_a_version_that_went_can_go_too() {
    let rig = defined().await;
    let mut one = tab("a");
    one["metadata"]["finalizers"] = json!(["example.com/hold"]);
    rig.ask("POST", TABS, one).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut changed = rig.get(&path).await;
    changed["spec"]["versions"][0]["storage"] = json!(false);
    changed["spec"]["versions"][1]["storage"] = json!(true);
    let (status, answer) = rig.ask("PUT", &path, changed.clone()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, answer) = rig.ask("PATCH", &format!("{path}/status"), json!({"status": {"storedVersions": ["v1beta1"]}})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    changed["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let (status, answer) = rig.ask("PATCH", &path, json!({"spec": changed["spec"]})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    // As those write it who know it as it is stored.
    let key = Key::new(rig.store.snapshot().definitions().kind_of("stable.example.com/v1beta1", "CronTab").unwrap(), "default", "a");
    let stored = rig.store.snapshot().get(&key).unwrap().clone();
    assert_eq!(stored.value()["apiVersion"], "stable.example.com/v1");
    let beta = format!("{}/a", TABS.replace("/v1/", "/v1beta1/"));
    rig.ask("DELETE", &beta, Value::Null).await;
    let stored = rig.store.snapshot().get(&key).unwrap().clone();
    let free = Write::Update(stored.without_finalizer("example.com/hold"), Precondition::seen(&stored));
    rig.store.commit(Transaction::new("controller").with(free)).await.unwrap();
    assert_eq!(rig.ask("GET", &beta, Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_lists_have_the_schemas_defaults() {
    let rig = Rig::start().await;
    let mut of_ports = definition();
    for version in of_ports["spec"]["versions"].as_array_mut().unwrap() {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["ports"] = json!({"type": "array",
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object", "required": ["port"],
            "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "UDP"}}}});
    }
    rig.ask("POST", DEFINITIONS, of_ports).await;
    for (manager, ports) in
        [("one", json!([{"port": 53}])), ("one", json!([{"port": 53}])), ("two", json!([{"port": 53, "protocol": "TCP"}]))]
    {
        let mut wanted = tab("a");
        wanted["spec"]["ports"] = ports;
        let path = format!("{TABS}/a?fieldManager={manager}");
        let (status, answer) = rig.ask_as(&Identity::admin(), "PATCH", &path, "application/apply-patch+yaml", wanted).await;
        assert!(status.is_success(), "{answer}");
    }
    let mut ports = rig.get(&format!("{TABS}/a")).await["spec"]["ports"].as_array().unwrap().clone();
    ports.sort_by_key(Value::to_string);
    assert_eq!(json!(ports), json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_at_once_is_not_told_whole() {
    let rig = defined().await;
    let mut odd = tab("a");
    (0..5_000).for_each(|n| odd["spec"][format!("odd{n}")] = json!(n));
    let request = Request::builder().method("POST").uri(TABS).header("content-type", "application/json").body(odd.to_string()).unwrap();
    let answer = rig.send(&Identity::admin(), request).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let warnings = answer.headers().get_all("warning").iter().count();
    assert!((1..=100).contains(&warnings), "{warnings}");
}
