//! The REST API as clients know it: verbs, watches, errors, tables, streams.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use podbay::clock::{Clock as _, SystemClock};
use podbay::server::{Identity, InProcessNode, local_client};
use podbay::store::Transaction;
use serde_json::{Value, json};

use crate::rig::{Rig, json};

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}, "data": data})
}

pub fn pod(name: &str, node: Option<&str>) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "main", "image": "busybox"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}},
        },
    })
}

pub fn words(value: &Value) -> (u64, String) {
    (value["code"].as_u64().unwrap_or(0), value["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn an_object_lives_and_dies_by_the_verbs() {
    let rig = Rig::start().await;
    let client = local_client(rig.router.clone(), Identity::admin());
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let new: ConfigMap = serde_json::from_value(map("a", json!({"x": "1"}))).unwrap();
    let made = maps.create(&PostParams::default(), &new).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.resource_version.is_some());
    let mut edited = made.clone();
    edited.data = Some([("x".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("a", &PostParams::default(), &edited).await.unwrap();
    assert_ne!(replaced.metadata.resource_version, made.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &edited).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"y": "3"}}))).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    assert_eq!(maps.list(&ListParams::default().labels("app=a")).await.unwrap().items.len(), 1);
    assert_eq!(maps.list(&ListParams::default().labels("app notin (a)")).await.unwrap().items.len(), 0);
    assert!(maps.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn errors_carry_kubernetes_codes_and_reasons() {
    let rig = Rig::start().await;
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    let table: Vec<(&str, String, Value, u64, &str)> = vec![
        ("GET", format!("{MAPS}/none"), Value::Null, 404, "NotFound"),
        ("GET", "/api/v1/nothings".into(), Value::Null, 404, "NotFound"),
        ("GET", "/apis/apps/v2/deployments".into(), Value::Null, 404, "NotFound"),
        ("POST", MAPS.into(), map("a", json!({})), 409, "AlreadyExists"),
        ("POST", MAPS.into(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}}), 400, "BadRequest"),
        ("POST", MAPS.into(), json!({"metadata": {"name": "b", "namespace": "other"}}), 400, "BadRequest"),
        ("POST", MAPS.into(), Value::Null, 400, "BadRequest"),
        ("POST", MAPS.into(), json!({"metadata": {"name": "b", "resourceVersion": "1"}}), 400, "BadRequest"),
        ("PUT", format!("{MAPS}/a"), json!({"metadata": {"name": "b"}}), 400, "BadRequest"),
        ("PUT", format!("{MAPS}/none"), json!({"metadata": {"name": "none"}}), 404, "NotFound"),
        ("PUT", format!("{MAPS}/a"), json!({"metadata": {"name": "a", "uid": "another"}}), 409, "Conflict"),
        ("PUT", MAPS.into(), json!({}), 405, "MethodNotAllowed"),
        ("POST", format!("{MAPS}/a"), json!({}), 405, "MethodNotAllowed"),
        ("DELETE", format!("{MAPS}/a"), json!({"preconditions": {"uid": "another"}}), 409, "Conflict"),
        ("GET", format!("{MAPS}?labelSelector=a%20b"), Value::Null, 400, "BadRequest"),
        ("GET", format!("{PODS}?fieldSelector=spec.image=x"), Value::Null, 400, "BadRequest"),
        ("GET", format!("{MAPS}?limit=many"), Value::Null, 400, "BadRequest"),
        ("GET", format!("{MAPS}?resourceVersion=999999"), Value::Null, 504, "Timeout"),
        ("GET", format!("{MAPS}?continue=nonsense"), Value::Null, 400, "BadRequest"),
        ("POST", format!("{MAPS}?dryRun=Some"), map("b", json!({})), 422, "Invalid"),
        ("POST", format!("{MAPS}?fieldValidation=Most"), map("b", json!({})), 422, "Invalid"),
        ("GET", format!("{MAPS}?resourceVersionMatch=Exact"), Value::Null, 422, "Invalid"),
        ("GET", format!("{MAPS}/a?resourceVersion=999999"), Value::Null, 504, "Timeout"),
        ("GET", format!("{PODS}/none/log"), Value::Null, 404, "NotFound"),
    ];
    for (method, path, body, code, reason) in table {
        let (status, answer) = rig.ask(method, &path, body).await;
        assert_eq!((u64::from(status.as_u16()), words(&answer)), (code, (code, reason.to_owned())), "{method} {path}: {answer}");
        assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Failure")), "{method} {path}");
    }
    let admin = Identity::admin();
    let protobuf = rig.ask_as(&admin, "POST", MAPS, "application/cbor", json!({})).await;
    assert_eq!(words(&protobuf.1), (415, "UnsupportedMediaType".into()));
    let accept = Request::get(MAPS).header("accept", "application/cbor").body(String::new()).unwrap();
    assert_eq!(rig.send(&admin, accept).await.status(), StatusCode::NOT_ACCEPTABLE);
    let large = Request::post(MAPS).header("content-type", "application/json").body(" ".repeat(4 << 20)).unwrap();
    assert_eq!(rig.send(&admin, large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let (_, missing) = rig.ask("GET", &format!("{DEPLOYMENTS}/none"), Value::Null).await;
    assert_eq!(missing["message"], "deployments.apps \"none\" not found");
    assert_eq!(missing["details"], json!({"name": "none", "kind": "deployments", "group": "apps"}));
}

#[tokio::test]
async fn lists_come_in_pages_of_one_state() {
    let rig = Rig::start().await;
    for index in 0..5 {
        rig.ask("POST", MAPS, map(&format!("m{index}"), json!({}))).await;
    }
    let counted = rig.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!((counted["kind"].as_str(), counted["metadata"]["remainingItemCount"].as_u64()), (Some("ConfigMapList"), Some(3)));
    let first = rig.get(&format!("{MAPS}?limit=2&labelSelector=app")).await;
    assert_eq!(first["metadata"].get("remainingItemCount"), None, "what is selected is not counted");
    rig.ask("DELETE", &format!("{MAPS}/m3"), Value::Null).await;
    let mut names: Vec<String> = Vec::new();
    let mut page = first.clone();
    loop {
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"], "all pages are of one state");
        let Some(next) = page["metadata"]["continue"].as_str() else { break };
        page = rig.get(&format!("{MAPS}?limit=2&labelSelector=app&continue={next}")).await;
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"], "the deletion in between does not show");
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let again = rig.get(&format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={version}")).await;
    assert_eq!(again["items"].as_array().unwrap().len(), 5, "a state that has passed");
    // A server that no longer has that state says so, and how to go on without it.
    let next = first["metadata"]["continue"].as_str().unwrap();
    for index in 0..40 {
        rig.ask("POST", MAPS, map(&format!("n{index}"), json!({}))).await;
        rig.get(&format!("{MAPS}?limit=1")).await;
    }
    assert_eq!(rig.get(&format!("{MAPS}?limit=500&continue={next}")).await["items"][0]["metadata"]["name"], "m2", "the history knows it");
    outrun_history(&rig, "x").await;
    let (status, answer) = rig.ask("GET", &format!("{MAPS}?limit=2&continue={next}"), Value::Null).await;
    assert_eq!((status, words(&answer)), (StatusCode::GONE, (410, "Expired".into())));
    let next = answer["metadata"]["continue"].as_str().unwrap();
    let page = rig.get(&format!("{MAPS}?limit=2&continue={next}")).await;
    let names: Vec<&str> = page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["m2", "m4"], "it goes on in the newest state");
}

#[tokio::test]
async fn a_list_of_a_past_revision_is_what_was_there_then() {
    let rig = Rig::start().await;
    let mut states: Vec<(String, Value)> = Vec::new();
    let steps = [
        ("POST", MAPS.to_owned(), map("a", json!({"x": "1"}))),
        ("POST", MAPS.to_owned(), map("b", json!({}))),
        ("PATCH", format!("{MAPS}/a"), json!({"data": {"x": "2"}, "metadata": {"labels": {"app": "other"}}})),
        ("DELETE", format!("{MAPS}/b"), Value::Null),
        ("POST", MAPS.to_owned(), map("b", json!({"y": "1"}))),
        ("DELETE", format!("{MAPS}/a"), Value::Null),
    ];
    for (method, path, body) in steps {
        rig.ask(method, &path, body).await;
        let list = rig.get(MAPS).await;
        states.push((list["metadata"]["resourceVersion"].as_str().unwrap().to_owned(), list));
    }
    for (version, list) in states {
        assert_eq!(rig.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await, list);
        assert_eq!(rig.get(&format!("{MAPS}?resourceVersion={version}&limit=500")).await, list, "as it was before there was a match");
    }
    let (_, late) = rig.ask("GET", &format!("{MAPS}?resourceVersion=999999"), Value::Null).await;
    assert_eq!(late["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{late}");
}

/// More changes than the history keeps.
pub async fn outrun_history(rig: &Rig, prefix: &str) {
    for round in 0..6 {
        let mut transaction = Transaction::new("test");
        for index in 0..10_000 {
            let object = podbay::model::Object::from_value(
                podbay::model::Kind::ConfigMap,
                json!({"metadata": {"name": format!("{prefix}-{round}-{index}"), "namespace": "kube-system"}}),
            )
            .unwrap();
            transaction.writes.push(podbay::store::Write::Create(object));
        }
        rig.store.commit(transaction).await.unwrap();
    }
}

/// The lines of a watch.
pub struct Lines {
    body: Body,
    rest: Vec<u8>,
}

impl Lines {
    pub async fn open(rig: &Rig, path: &str) -> Self {
        Self::open_as(rig, path, "application/json").await
    }

    pub async fn open_as(rig: &Rig, path: &str, accept: &str) -> Self {
        let request = Request::get(path).header(header::ACCEPT, accept).body(String::new()).unwrap();
        let response = rig.send(&Identity::admin(), request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Self { body: response.into_body(), rest: Vec::new() }
    }

    /// The next line, or `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await.expect("an event comes")?;
            self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    async fn word(&mut self) -> (String, String) {
        let line = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&line["type"]), text(&line["object"]["metadata"]["name"]))
    }
}

fn event(word: &str, name: &str) -> (String, String) {
    (word.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_shows_what_selectors_let_through() {
    let rig = Rig::start().await;
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    let mut all = Lines::open(&rig, &format!("{MAPS}?watch=1")).await;
    assert_eq!(all.word().await, event("ADDED", "a"), "without a version it begins with what is there");
    let version = rig.get(MAPS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut selected = Lines::open(&rig, &format!("{MAPS}?watch=1&resourceVersion={version}&labelSelector=app=b")).await;
    let mut elsewhere =
        Lines::open(&rig, &format!("/api/v1/namespaces/kube-system/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=1")).await;
    rig.ask("POST", MAPS, map("b", json!({}))).await;
    rig.ask("PATCH", &format!("{MAPS}/b"), json!({"data": {"x": "1"}})).await;
    rig.ask("PATCH", &format!("{MAPS}/b"), json!({"metadata": {"labels": {"app": "left"}}})).await;
    rig.ask("PATCH", &format!("{MAPS}/b"), json!({"metadata": {"labels": {"app": "b"}}})).await;
    rig.ask("DELETE", &format!("{MAPS}/b"), Value::Null).await;
    for wanted in ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"] {
        assert_eq!(selected.word().await, event(wanted, "b"), "an object that leaves the selector is deleted for it");
    }
    for wanted in ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"] {
        assert_eq!(all.word().await, event(wanted, "b"));
    }
    assert_eq!(elsewhere.next().await, None, "it ends at its timeout and saw nothing");
}

#[tokio::test]
async fn a_watched_table_tells_ages_as_of_each_event() {
    let clock = Arc::new(podbay::clock::VirtualClock::new(podbay::model::Timestamp::now()));
    let rig = Rig::with_clock(Arc::clone(&clock) as _).await;
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    let accept = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let mut watch = Lines::open_as(&rig, &format!("{MAPS}?watch=1&fieldSelector=metadata.name=a"), accept).await;
    let mut age = async || watch.next().await.expect("an event")["object"]["rows"][0]["cells"][2].clone();
    assert_eq!(age().await, "0s");
    for (minutes, told) in [(3, "3m"), (60, "63m")] {
        clock.advance_to(clock.now() + jiff::SignedDuration::from_mins(minutes));
        rig.ask("PATCH", &format!("{MAPS}/a"), json!({"data": {"x": told}})).await;
        assert_eq!(age().await, told);
    }
}

#[tokio::test]
async fn a_watch_that_cannot_go_on_says_expired() {
    let rig = Rig::start().await;
    for version in ["1", "99999"] {
        // 1 is before the first commit of a fresh history only if it is gone: make it so.
        outrun_history(&rig, &format!("v{version}")).await;
        let mut watch = Lines::open(&rig, &format!("{MAPS}?watch=1&resourceVersion={version}")).await;
        let line = watch.next().await.unwrap();
        assert_eq!((line["type"].as_str(), words(&line["object"])), (Some("ERROR"), (410, "Expired".into())), "from {version}");
        assert_eq!(watch.next().await, None);
    }
}

#[tokio::test]
async fn a_watch_list_ends_its_initial_events_with_a_bookmark() {
    let rig = Rig::start().await;
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion=";
    let mut watch = Lines::open(&rig, &format!("{MAPS}?{query}")).await;
    assert_eq!(watch.word().await, event("ADDED", "a"));
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let (status, _) = rig.ask("GET", &format!("{MAPS}?watch=1&sendInitialEvents=true"), Value::Null).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let client = local_client(rig.router.clone(), Identity::admin());
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let events: Vec<_> = maps.watch(&WatchParams::default().timeout(1), "0").await.unwrap().try_collect().await.unwrap();
    assert!(matches!(events.as_slice(), [WatchEvent::Added(map), WatchEvent::Bookmark(_)] if map.metadata.name.as_deref() == Some("a")));
}

#[tokio::test]
async fn patches_of_every_kind() {
    let rig = Rig::start().await;
    let (status, made) = rig.ask("POST", DEPLOYMENTS, deployment("web")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let path = format!("{DEPLOYMENTS}/web");
    let admin = Identity::admin();
    let send = |kind: &'static str, query: &'static str, body: Value| {
        let path = format!("{path}{query}");
        let (rig, admin) = (&rig, &admin);
        async move { rig.ask_as(admin, "PATCH", &path, kind, body).await }
    };
    let env = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}});
    let (_, strategic) = send("application/strategic-merge-patch+json", "", env).await;
    assert_eq!(strategic["spec"]["template"]["spec"]["containers"][0]["image"], "busybox", "lists merge by their key: {strategic}");
    assert_eq!(strategic["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"], "1");
    let (_, patched) = send("application/json-patch+json", "", json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])).await;
    assert_eq!(patched["spec"]["replicas"], 3);
    let (status, failed) = send("application/json-patch+json", "", json!([{"op": "test", "path": "/spec/replicas", "value": 9}])).await;
    assert_eq!((status.as_u16(), words(&failed).1), (422, "Invalid".into()));
    let (status, _) = send("application/json", "", json!({})).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let pinned = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1}});
    assert_eq!(send("application/merge-patch+json", "", pinned).await.0, StatusCode::CONFLICT);

    let apply = "application/apply-patch+yaml";
    assert_eq!(send(apply, "", deployment("web")).await.0, StatusCode::UNPROCESSABLE_ENTITY, "an apply names its manager");
    let (status, conflict) = send(apply, "?fieldManager=git", deployment("web")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let fields: Vec<&str> = conflict["details"]["causes"].as_array().unwrap().iter().filter_map(|it| it["field"].as_str()).collect();
    assert_eq!(fields, [".spec.replicas"], "{conflict}");
    let (status, applied) = send(apply, "?fieldManager=git&force=true", deployment("web")).await;
    assert_eq!((status, &applied["spec"]["replicas"]), (StatusCode::OK, &json!(2)));
    let again = send(apply, "?fieldManager=git", deployment("web")).await.1;
    assert_eq!(again["metadata"]["resourceVersion"], applied["metadata"]["resourceVersion"], "applying again changes nothing");
    let (status, made) = rig.ask_as(&admin, "PATCH", &format!("{MAPS}/new?fieldManager=git"), apply, map("new", json!({"a": "1"}))).await;
    assert_eq!(status, StatusCode::CREATED, "an apply creates what is not there: {made}");
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored() {
    let rig = Rig::start().await;
    let body = json!({"metadata": {"name": "a"}, "date": {"x": "1"}}).to_string();
    for (mode, code, warns) in [("Strict", 400, false), ("Warn", 201, true), ("Ignore", 201, false)] {
        let request = Request::post(format!("{MAPS}?fieldValidation={mode}&dryRun=All"))
            .header("content-type", "application/json")
            .body(body.clone());
        let response = rig.send(&Identity::admin(), request.unwrap()).await;
        assert_eq!(response.status().as_u16(), code, "{mode}");
        let warning = response.headers().get("warning").map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
        assert_eq!(warning.contains(r#"unknown field \"date\""#), warns, "{mode}: {warning}");
        let text = json(response).await.to_string();
        assert_eq!(text.contains("strict decoding error"), mode == "Strict", "{text}");
    }
    assert_eq!(rig.ask("GET", &format!("{MAPS}/a"), Value::Null).await.0, StatusCode::NOT_FOUND, "a dry run stores nothing");
}

#[tokio::test]
async fn bodies_may_be_yaml() {
    let rig = Rig::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: \"1\"\n";
    let request = Request::post(MAPS).header("content-type", "application/yaml").body(yaml.to_owned()).unwrap();
    let response = rig.send(&Identity::admin(), request).await;
    let (status, answer) = (response.status(), json(response).await);
    assert_eq!((status, &answer["data"]["a"]), (StatusCode::CREATED, &json!("1")), "{answer}");
    let wrong = Request::post(MAPS).header("content-type", "application/yaml").body("a: [".to_owned()).unwrap();
    assert_eq!(rig.send(&Identity::admin(), wrong).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn subresources_write_their_part_only() {
    let rig = Rig::start().await;
    rig.ask("POST", DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 5, "observedGeneration": 1}});
    let (status, answer) = rig.ask("PATCH", &format!("{path}/status"), both.clone()).await;
    assert_eq!((status, &answer["spec"]["replicas"], &answer["status"]["replicas"]), (StatusCode::OK, &json!(2), &json!(5)), "{answer}");
    let (_, answer) = rig.ask("PATCH", &path, json!({"spec": {"replicas": 3}, "status": {"replicas": 9}})).await;
    assert_eq!((&answer["spec"]["replicas"], &answer["status"]["replicas"]), (&json!(3), &json!(5)));
    let scale = rig.get(&format!("{path}/scale")).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!("Scale"), &json!(3), &json!(5)));
    assert_eq!(scale["status"]["selector"], "app=web");
    let (status, scaled) = rig.ask("PATCH", &format!("{path}/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!((status, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(4)));
    assert_eq!(rig.get(&path).await["spec"]["replicas"], 4);

    rig.ask("POST", PODS, pod("p", None)).await;
    let target = json!({"target": {"kind": "Node", "name": "n1"}});
    let (status, answer) = rig.ask("POST", &format!("{PODS}/p/binding"), target.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(rig.get(&format!("{PODS}/p")).await["spec"]["nodeName"], "n1");
    assert_eq!(rig.ask("POST", &format!("{PODS}/p/binding"), target).await.0, StatusCode::CONFLICT);
    assert_eq!(rig.get(&format!("{PODS}?fieldSelector=spec.nodeName=n1")).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(rig.ask("POST", &format!("{PODS}/p/eviction"), json!({})).await.0, StatusCode::CREATED);
    assert_eq!(rig.ask("GET", &format!("{MAPS}/a/nothing"), Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn deleting_looks_after_dependents() {
    let rig = Rig::start().await;
    for policy in ["Orphan", "Foreground"] {
        let (_, owner) = rig.ask("POST", MAPS, map("owner", json!({}))).await;
        let mut child = map("child", json!({}));
        child["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
        rig.ask("POST", MAPS, child).await;
        let (status, _) = rig.ask("DELETE", &format!("{MAPS}/owner"), json!({"propagationPolicy": policy})).await;
        assert_eq!(status, StatusCode::OK, "{policy}");
        if policy == "Orphan" {
            assert_eq!(rig.ask("GET", &format!("{MAPS}/owner"), Value::Null).await.0, StatusCode::NOT_FOUND);
            assert!(rig.get(&format!("{MAPS}/child")).await["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty));
        }
        rig.ask("DELETE", &format!("{MAPS}?labelSelector=app%3Dchild"), Value::Null).await;
        assert_eq!(
            rig.ask("GET", &format!("{MAPS}/child"), Value::Null).await.0,
            StatusCode::NOT_FOUND,
            "{policy}: the collection is deleted"
        );
    }
}

#[tokio::test]
async fn a_name_can_be_generated() {
    let rig = Rig::start().await;
    let body = json!({"metadata": {"generateName": "gen-"}});
    let names =
        [rig.ask("POST", MAPS, body.clone()).await.1, rig.ask("POST", MAPS, body).await.1].map(|it| it["metadata"]["name"].to_string());
    assert!(names[0].starts_with("\"gen-") && names[0].len() == "\"gen-12345\"".len() && names[0] != names[1], "{names:?}");
}

#[tokio::test]
async fn tables_and_metadata_are_served_on_request() {
    let rig = Rig::start().await;
    rig.ask("POST", DEPLOYMENTS, deployment("web")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let request = Request::get(DEPLOYMENTS).header("accept", table).body(String::new()).unwrap();
    let answer = json(rig.send(&Identity::admin(), request).await).await;
    let names: Vec<&str> = answer["columnDefinitions"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector"]);
    assert_eq!(answer["rows"][0]["cells"][1], "0/2");
    assert_eq!(answer["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let request = Request::get(DEPLOYMENTS).header("accept", partial).body(String::new()).unwrap();
    let answer = json(rig.send(&Identity::admin(), request).await).await;
    assert_eq!((&answer["kind"], &answer["items"][0]["spec"]), (&json!("PartialObjectMetadataList"), &Value::Null));
    let mut watch = Lines::open_as(&rig, &format!("{DEPLOYMENTS}?watch=1"), table).await;
    assert_eq!(watch.next().await.unwrap()["object"]["columnDefinitions"].as_array().unwrap().len(), 8);
    rig.ask("PATCH", &format!("{DEPLOYMENTS}/web"), json!({"spec": {"replicas": 1}})).await;
    let second = watch.next().await.unwrap();
    assert_eq!((&second["type"], &second["object"]["columnDefinitions"]), (&json!("MODIFIED"), &Value::Null), "columns are named once");
}

#[tokio::test]
async fn every_kind_has_its_columns_filled() {
    for info in podbay::model::Kind::all() {
        let skeleton = match info.name {
            "Deployment" | "ReplicaSet" => json!({"spec": {"selector": {}, "template": {}}, "status": {"replicas": 0}}),
            "Job" => json!({"spec": {"template": {}}}),
            "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
            "Event" => json!({"involvedObject": {}}),
            _ => json!({}),
        };
        let mut value = json!({"apiVersion": info.kind.api_version(), "kind": info.name, "metadata": {"name": "x"}});
        json_patch::merge(&mut value, &skeleton);
        let object = podbay::model::Object::from_value(info.kind, value).unwrap();
        let cells = podbay::server::columns::cells(&object, podbay::model::Timestamp::UNIX_EPOCH);
        assert_eq!(cells.len(), podbay::server::columns::columns(info.kind).split(", ").count(), "{}", info.name);
    }
}

#[tokio::test]
async fn leases_are_stamped_by_the_server() {
    let rig = Rig::start().await;
    let node = Identity::node("n1");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let body = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "renewTime": "2001-01-01T00:00:00.000000Z"}});
    let (status, made) = rig.ask_as(&node, "POST", leases, "application/json", body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let year = &podbay::model::Timestamp::now().to_string()[..4];
    assert!(made["spec"]["renewTime"].as_str().unwrap().starts_with(year), "{made}");
    let mut body = body;
    body["metadata"] = made["metadata"].clone();
    let (_, renewed) = rig.ask_as(&node, "PUT", &format!("{leases}/n1"), "application/json", body).await;
    assert!(renewed["spec"]["renewTime"].as_str().unwrap().starts_with(year), "{renewed}");
}

#[tokio::test]
async fn a_lease_is_as_old_as_time_has_passed_whoever_sets_the_clock() {
    use podbay::control::node_health::{NodeHealth, plan::Settings};
    use podbay::model::{Key, Kind, Timestamp};
    use podbay::plan::Controller as _;
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let clock = Arc::new(podbay::clock::VirtualClock::new(Timestamp::now()));
    let began = clock.steady();
    let rig = Rig::with_clock(Arc::clone(&clock) as _).await;
    let body = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let (status, made) = rig.ask("POST", "/api/v1/nodes", body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let mut lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let (status, made) = rig.ask_as(&Identity::node("n1"), "POST", leases, "application/json", lease.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    lease = made;
    let health = NodeHealth { settings: Settings { grace_seconds: 40, eviction_seconds: 300, started_at: began } };
    let silent = || {
        let plan = health.plan(&rig.store.snapshot(), &Key::cluster(Kind::Node, "n1"), clock.steady());
        plan.notes.iter().any(|note| note.reason.code == "NodeNotReady")
    };
    let mut passed = 0;
    for (second, set_to) in [(39, "2036-01-01T00:00:00Z"), (60, "2016-01-01T00:00:00Z"), (90, "2026-01-01T00:00:00Z")] {
        clock.set(at(set_to));
        clock.advance_to(clock.now() + jiff::SignedDuration::from_secs(second - passed));
        passed = second;
        assert!(!silent(), "{second} s after the first, {set_to}");
        lease["spec"]["renewTime"] = json!(format!("20{second}-01-01T00:00:00.000000Z"));
        let (status, renewed) = rig.ask_as(&Identity::node("n1"), "PUT", &format!("{leases}/n1"), "application/json", lease.clone()).await;
        assert_eq!(status, StatusCode::OK, "{renewed}");
        lease = renewed;
    }
    clock.set(at("2016-01-01T00:00:00Z"));
    clock.advance_to(clock.now() + jiff::SignedDuration::from_secs(41));
    assert!(silent());
}

#[tokio::test]
async fn leases_of_others_are_left_as_they_are() {
    let rig = Rig::start().await;
    let body = json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "x", "renewTime": "2001-01-01T00:00:00.000000Z"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let (status, made) = rig.ask("POST", leases, body).await;
    assert_eq!((status, &made["spec"]["renewTime"]), (StatusCode::CREATED, &json!("2001-01-01T00:00:00.000000Z")), "{made}");
}

/// A node API that answers logs and echoes upgrades.
fn node_api() -> Router {
    use axum::extract::ws::{CloseFrame, Message};
    use axum::extract::{Path, RawQuery, WebSocketUpgrade};
    use axum::routing::any;
    let logs = |Path((namespace, pod, container)): Path<(String, String, String)>, RawQuery(query): RawQuery| async move {
        format!("{namespace}/{pod}/{container} {}\n", query.unwrap_or_default())
    };
    let exec = |Path(_): Path<(String, String, String)>, RawQuery(query): RawQuery, upgrade: WebSocketUpgrade| async move {
        upgrade.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"]).on_upgrade(move |mut socket| async move {
            let query = query.unwrap_or_default();
            let mut stdout = vec![1];
            stdout.extend_from_slice(query.as_bytes());
            let mut status = vec![3];
            status.extend_from_slice(json!({"metadata": {}, "status": "Success"}).to_string().as_bytes());
            for frame in [stdout, status] {
                socket.send(Message::Binary(frame.into())).await.unwrap();
            }
            let _ = socket.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await;
        })
    };
    Router::new().route("/containerLogs/{namespace}/{pod}/{container}", any(logs)).route("/exec/{namespace}/{pod}/{container}", any(exec))
}

async fn rig_with_node() -> Rig {
    let node = InProcessNode::new("n1", None);
    node.attach(node_api());
    let rig = Rig::with_nodes(Arc::new(SystemClock), |_| Arc::new(node)).await;
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let (status, made) = rig.ask("POST", PODS, pod("p", Some("n1"))).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_exec_are_passed_on_to_the_node() {
    let rig = rig_with_node().await;
    let pods: Api<Pod> = Api::default_namespaced(local_client(rig.router.clone(), Identity::admin()));
    let params = LogParams { tail_lines: Some(3), ..LogParams::default() };
    assert_eq!(pods.logs("p", &params).await.unwrap(), "default/p/main tailLines=3\n");
    let missing = LogParams { container: Some("other".into()), ..LogParams::default() };
    assert!(pods.logs("p", &missing).await.is_err());
    let attach = kube::api::AttachParams { stdout: true, stderr: false, ..kube::api::AttachParams::default() };
    let mut process = pods.exec("p", ["echo", "a b"], &attach).await.unwrap();
    let out = tokio_util::io::ReaderStream::new(process.stdout().unwrap());
    let out: Vec<u8> = out.map(|chunk| chunk.unwrap().to_vec()).concat().await;
    assert_eq!(String::from_utf8(out).unwrap(), "command=echo&command=a%20b&output=1");
    let status = process.take_status();
    drop(status);
    let (status, answer) = rig.ask("GET", &format!("{PODS}/p/exec?command=ls"), Value::Null).await;
    assert_eq!((status, answer["message"].as_str()), (StatusCode::BAD_REQUEST, Some("Upgrade request required")));
    let (status, answer) = rig.ask("GET", &format!("{PODS}/p/log?tailLines=-1"), Value::Null).await;
    assert_eq!((status, answer["details"]["causes"][0]["field"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("tailLines")));
    rig.ask("POST", PODS, pod("unbound", None)).await;
    assert_eq!(rig.ask("GET", &format!("{PODS}/unbound/log"), Value::Null).await, (StatusCode::OK, json!("")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_kubectl_works() {
    let rig = rig_with_node().await;
    let manifest = rig.directory.path().join("web.yaml");
    let write = |replicas: u32| {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: c, image: busybox}}]}}\n"
        );
        std::fs::write(&manifest, text).unwrap();
    };
    write(2);
    assert_eq!(rig.kubectl_ok("apply -f web.yaml").await, "deployment.apps/web created\n");
    assert_eq!(rig.kubectl_ok("apply -f web.yaml").await, "deployment.apps/web unchanged\n");
    write(3);
    let diff = rig.kubectl("diff -f web.yaml").await;
    let text = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(diff.status.code() == Some(1) && text.contains("-  replicas: 2") && text.contains("+  replicas: 3"), "{text}");
    assert_eq!(rig.kubectl_ok("apply --server-side --force-conflicts -f web.yaml").await, "deployment.apps/web serverside-applied\n");
    assert_eq!(rig.kubectl_ok("scale deploy web --replicas=1").await, "deployment.apps/web scaled\n");
    assert_eq!(rig.kubectl_ok("get deploy web -o jsonpath={.spec.replicas}").await, "1");
    let wide = rig.kubectl_ok("get deploy -o wide").await;
    assert!(wide.starts_with("NAME   READY   UP-TO-DATE   AVAILABLE   AGE") && wide.contains("SELECTOR"), "{wide}");
    rig.kubectl_ok("label deploy web tier=front").await;
    rig.kubectl_ok("annotate deploy web note=x").await;
    assert_eq!(rig.kubectl_ok("get deploy -l tier=front -o name").await, "deployment.apps/web\n");
    assert!(rig.kubectl_ok("describe deploy web").await.contains("StrategyType:"));
    assert!(rig.kubectl_ok("explain deployment.spec.replicas").await.contains("FIELD: replicas <integer>"));
    let older = rig.kubectl_ok("explain deployment.spec --output=plaintext-openapiv2").await;
    assert!(older.contains("RESOURCE: spec <Object>") && older.contains("strategy\t<Object>"), "{older}");
    assert!(rig.kubectl_ok("api-resources").await.contains("sources"));
    assert_eq!(rig.kubectl_ok("logs p --tail=2").await, "default/p/main tailLines=2\n");
    assert_eq!(rig.kubectl_ok("exec p -- ls -l").await, "command=ls&command=-l&output=1&error=1");
    rig.kubectl_ok("create configmap made --from-literal=a=1").await;
    rig.kubectl_ok("create namespace other").await;
    rig.kubectl_ok("create secret generic hidden --from-literal=a=1").await;
    rig.kubectl_ok("create deployment made --image=busybox --replicas=2 --port=80").await;
    rig.kubectl_ok("create service clusterip made --tcp=80:8080").await;
    rig.kubectl_ok("create job made --image=busybox -- true").await;
    assert_eq!(rig.kubectl_ok("get configmap made -o jsonpath={.data.a}").await, "1");
    assert_eq!(rig.kubectl_ok("get secret hidden -o jsonpath={.data.a}").await, "MQ==");
    assert_eq!(rig.kubectl_ok("get svc made -o jsonpath={.spec.ports[0].targetPort}").await, "8080");
    assert_eq!(rig.kubectl_ok("get deploy made -o jsonpath={.spec.template.spec.containers[0].ports[0].containerPort}").await, "80");
    rig.kubectl_ok("patch deploy web -p {\"spec\":{\"paused\":true}}").await;
    rig.kubectl_ok("wait --for=jsonpath={.spec.paused}=true deploy/web --timeout=30s").await;
    assert!(rig.kubectl_ok("delete -f web.yaml").await.contains("\"web\" deleted"));
    let gone = rig.kubectl("get deploy web").await;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("(NotFound): deployments.apps \"web\" not found"));
}

#[tokio::test]
async fn documents_of_openapi_are_kept_by_their_tag() {
    let rig = Rig::start().await;
    let index = rig.get("/openapi/v3").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    for path in [url.as_str(), "/openapi/v2"] {
        let ask = |tag: Option<String>| {
            let request = Request::get(path).header("accept", "application/json");
            let request = tag.into_iter().fold(request, |request, tag| request.header("if-none-match", tag));
            let rig = &rig;
            async move { rig.send(&Identity::admin(), request.body(String::new()).unwrap()).await }
        };
        let first = ask(None).await;
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        assert!(url.ends_with(tag.trim_matches('"')), "{url} {tag}");
        assert_eq!(ask(Some(tag)).await.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(ask(Some("\"other\"".to_owned())).await.status(), StatusCode::OK);
    }
    let document = rig.get("/openapi/v2").await;
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    let spec = pod["properties"]["spec"].to_string();
    assert!(spec.contains("#/definitions/io.k8s.api.core.v1.PodSpec") && !document.to_string().contains("#/components/"), "{spec}");
}

#[tokio::test]
async fn objects_are_shown_in_yaml_to_who_wants_it() {
    let rig = rig_with_node().await;
    let ask = async |method: &str, path: &str, accept: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header("accept", accept).header("content-type", "application/yaml");
        let response = rig.send(&Identity::admin(), request.body(body.to_owned()).unwrap()).await;
        let media = response.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
        let (status, bytes) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
        (status, media, String::from_utf8(bytes.to_vec()).unwrap())
    };
    const YAML: &str = "application/yaml";
    let made = ask("POST", MAPS, YAML, "metadata: {name: m}\ndata: {word: 'yes', number: '012', text: \"a: b\\n\"}\n").await;
    assert_eq!((made.0, made.1.as_str()), (StatusCode::CREATED, YAML));
    for word in ["word: \"yes\"", "number: \"012\"", "text: |\n    a: b\n"] {
        assert!(made.2.contains(word), "who reads YAML 1.1 reads no text in {word}: {}", made.2);
    }
    let (path, json) = (format!("{MAPS}/m"), rig.get(&format!("{MAPS}/m")).await);
    let (_, _, shown) = ask("GET", &path, "application/yaml;q=0.9, application/json", "").await;
    assert_eq!(serde_yaml::from_str::<Value>(&shown).unwrap(), json);
    assert_eq!(ask("PUT", &path, "application/json", &shown).await.0, StatusCode::OK);
    let (_, media, list) = ask("GET", MAPS, "application/yaml;as=Table;v=v1;g=meta.k8s.io", "").await;
    assert!(media == YAML && list.contains("kind: Table\n"), "{media}: {list}");
    let (status, media, fault) = ask("GET", &format!("{MAPS}/none"), YAML, "").await;
    assert!(status == StatusCode::NOT_FOUND && media == YAML && fault.contains("reason: NotFound\n"), "{status} {media}: {fault}");
    assert_eq!(ask("GET", &path, "application/json, application/yaml", "").await.1, "application/json");
    // What others say is passed on as they say it, and events have no YAML.
    assert_ne!(ask("GET", &format!("{PODS}/p/log"), YAML, "").await.1, YAML);
    assert_eq!(ask("GET", &format!("{MAPS}?watch=1"), YAML, "").await.0, StatusCode::NOT_ACCEPTABLE);
}
