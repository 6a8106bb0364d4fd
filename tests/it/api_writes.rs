//! Writes as clients of Kubernetes expect them: ownership, options, preconditions, the words of a "no".

use http::{Request, StatusCode};
use podbay::server::Identity;
use serde_json::{Value, json};

use crate::api::{DEPLOYMENTS, MAPS, PODS, deployment, map, pod, words};
use crate::rig::{Rig, json as body_of};

const APPLY: &str = "application/apply-patch+yaml";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

async fn apply(rig: &Rig, path: &str, query: &str, body: Value) -> (StatusCode, Value) {
    rig.ask_as(&Identity::admin(), "PATCH", &format!("{path}?{query}"), APPLY, body).await
}

/// `manager operation subresource` of each entry.
fn entries(object: &Value) -> Vec<String> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    let all = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut all: Vec<String> =
        all.iter().map(|it| ["manager", "operation", "subresource"].map(|field| text(it, field)).join(" ")).collect();
    all.sort();
    all
}

fn causes(answer: &Value, field: &str) -> Vec<String> {
    let all = answer["details"]["causes"].as_array().cloned().unwrap_or_default();
    all.iter().map(|cause| cause[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn the_status_is_applied_and_owned_by_itself() {
    let rig = Rig::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut both = deployment("web");
    both["status"] = json!({"replicas": 1});
    apply(&rig, &path, "fieldManager=git", both).await;
    let status = format!("{path}/status");
    let condition = |word: &str| json!({"type": "Fine", "status": word, "reason": "R", "message": ""});
    let wanted = |word: &str| json!({"spec": {"replicas": 9}, "status": {"conditions": [condition(word)]}});
    let (code, answer) = apply(&rig, &status, "fieldManager=judge", wanted("True")).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!((&answer["spec"]["replicas"], &answer["status"]["conditions"][0]["status"]), (&json!(2), &json!("True")));
    assert_eq!(entries(&answer), ["git Apply -", "judge Apply status"]);
    let again = apply(&rig, &status, "fieldManager=judge", wanted("True")).await.1;
    assert_eq!(again["metadata"]["resourceVersion"], answer["metadata"]["resourceVersion"], "applying again changes nothing");

    let (code, conflict) = apply(&rig, &status, "fieldManager=other", wanted("False")).await;
    assert_eq!((code, causes(&conflict, "field")), (StatusCode::CONFLICT, vec![".status.conditions[type=\"Fine\"].status".to_owned()]));
    assert_eq!(causes(&conflict, "message"), ["conflict with \"judge\" with subresource \"status\""]);
    let (code, taken) = apply(&rig, &status, "fieldManager=other&force=true", wanted("False")).await;
    assert_eq!((code, entries(&taken).len()), (StatusCode::OK, 3));
    // Who gives up the last of a field takes it away.
    for manager in ["other", "judge"] {
        apply(&rig, &status, &format!("fieldManager={manager}"), json!({})).await;
    }
    let left = rig.get(&path).await;
    assert_eq!((entries(&left), left["status"].get("conditions")), (vec!["git Apply -".to_owned()], None), "{left}");
    let missing = format!("{DEPLOYMENTS}/none/status");
    assert_eq!(apply(&rig, &missing, "fieldManager=a", json!({"status": {}})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_plain_write_of_the_status_is_owned_too() {
    let rig = Rig::start().await;
    rig.ask("POST", DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web/status?fieldManager=controller");
    let (_, written) = rig.ask("PATCH", &path, json!({"status": {"replicas": 2}})).await;
    assert_eq!(entries(&written), ["controller Update status", "unknown Update -"]);
    let node = Identity::node("n1");
    rig.ask("POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    rig.ask("POST", PODS, pod("p", Some("n1"))).await;
    let forged = json!({"metadata": {"managedFields": []}, "status": {"phase": "Running"}});
    let (code, answer) = rig.ask_as(&node, "PATCH", &format!("{PODS}/p/status"), "application/merge-patch+json", forged).await;
    assert_eq!((code, entries(&answer)), (StatusCode::OK, vec!["unknown Update -".to_owned()]), "a node leaves ownership alone");
}

/// Kubernetes: Server-Side Apply, Clearing managedFields.
#[tokio::test]
async fn labels_and_annotations_are_written_with_the_status() {
    let rig = Rig::start().await;
    rig.ask("POST", PODS, pod("p", Some("n1"))).await;
    rig.ask("POST", DEPLOYMENTS, deployment("web")).await;
    let said =
        json!({"metadata": {"labels": {"new": "l"}, "annotations": {"new": "a"}, "finalizers": ["a.b/c"]}, "spec": {"paused": true}});
    let rows = [(format!("{PODS}/p"), json!("l")), (format!("{DEPLOYMENTS}/web"), Value::Null)];
    for (path, label) in &rows {
        let (code, answer) = rig.ask("PATCH", &format!("{path}/status"), said.clone()).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        let (meta, stored) = (&answer["metadata"], rig.get(path).await);
        assert_eq!((&meta["labels"]["new"], &meta["annotations"]["new"]), (label, &json!("a")), "{path}");
        assert_eq!((meta.get("finalizers"), answer["spec"].get("paused")), (None, None), "{path}: {answer}");
        assert_eq!(stored["metadata"]["annotations"]["new"], "a", "{path}: {stored}");
    }
    let odd = json!({"metadata": {"annotations": {"a b/c/d": ""}}});
    assert_eq!(rig.ask("PATCH", &format!("{}/status", rows[0].0), odd).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    // A node may say how a pod is, not what it is called.
    let path = format!("{}/status", rows[0].0);
    for (body, code) in [(json!({"metadata": {"annotations": {"k": "v"}}}), 200), (json!({"metadata": {"labels": {"k": "v"}}}), 403)] {
        let answer = rig.ask_as(&Identity::node("n1"), "PATCH", &path, "application/merge-patch+json", body).await;
        assert_eq!(answer.0, code, "{}", answer.1);
    }
}

#[tokio::test]
async fn a_binding_is_of_one_pod_and_brings_along_what_was_chosen() {
    let rig = Rig::start().await;
    let mut asked = pod("p", None);
    asked["spec"]["schedulerName"] = json!("packer");
    let uid = rig.ask("POST", PODS, asked).await.1["metadata"]["uid"].clone();
    let path = format!("{PODS}/p/binding");
    let to = |meta: Value, kind: &str| json!({"metadata": meta, "target": {"kind": kind, "name": "n1"}});
    let rows = [
        (to(json!({"name": "other"}), "Node"), 400),
        (to(json!({"name": "p", "uid": "zz"}), "Node"), 409),
        (to(json!({"name": "p", "resourceVersion": "1"}), "Node"), 409),
        (to(json!({"name": "p"}), "Pod"), 422),
        (to(json!({"name": "p", "uid": uid, "annotations": {"gpu": "1"}, "labels": {"zone": "z"}}), "Node"), 201),
    ];
    for (body, code) in rows {
        let answer = rig.ask("POST", &path, body.clone()).await;
        assert_eq!(answer.0, code, "{body}: {}", answer.1);
    }
    let bound = rig.get(&format!("{PODS}/p")).await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["gpu"]), (&json!("n1"), &json!("1")));
    assert_eq!(bound["metadata"]["labels"]["zone"], "z");
}

#[tokio::test]
async fn what_is_not_there_yet_reads_as_in_kubernetes() {
    let rig = Rig::start().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = rig.ask("POST", "/api/v1/namespaces/default/services", service).await.1;
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
}

/// What is not to be taken over unseen is not, and what no path of Kubernetes deletes stays.
#[tokio::test]
async fn some_requests_are_too_bold() {
    let rig = Rig::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |meta: Value, holder: &str| json!({"metadata": meta, "spec": {"holderIdentity": holder}});
    let made = rig.ask("POST", leases, lease(json!({"name": "l"}), "one")).await.1;
    let path = format!("{leases}/l");
    let (code, answer) = rig.ask("PUT", &path, lease(json!({"name": "l"}), "two")).await;
    assert_eq!((code.as_u16(), causes(&answer, "field")), (422, vec!["metadata.resourceVersion".to_owned()]), "{answer}");
    let seen = json!({"name": "l", "resourceVersion": made["metadata"]["resourceVersion"]});
    assert_eq!(rig.ask("PUT", &path, lease(seen, "two")).await.0, StatusCode::OK);
    rig.ask("POST", MAPS, map("m", json!({}))).await;
    for everything in ["/api/v1/configmaps", "/api/v1/namespaces", "/api/v1/pods?labelSelector=no%3Dpod"] {
        assert_eq!(rig.ask("DELETE", everything, Value::Null).await.0, StatusCode::METHOD_NOT_ALLOWED, "{everything}");
    }
    rig.get(&format!("{MAPS}/m")).await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R"});
    assert_eq!(rig.ask("POST", "/api/v1/namespaces/default/events", event).await.1["source"], json!({}));
}

#[tokio::test]
async fn who_owns_what_can_be_forgotten() {
    let rig = Rig::start().await;
    let path = format!("{MAPS}/m");
    let merge = "application/merge-patch+json";
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let patches = [
        (merge, reset.clone()),
        ("application/strategic-merge-patch+json", reset.clone()),
        ("application/json-patch+json", json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])),
    ];
    let patch = async |kind: &str, path: &str, body: &Value| {
        let (code, answer) = rig.ask_as(&Identity::admin(), "PATCH", &format!("{path}?fieldManager=me"), kind, body.clone()).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
        answer
    };
    for (index, (kind, body)) in patches.iter().enumerate() {
        apply(&rig, &path, "fieldManager=git&force=true", json!({"data": {"a": index.to_string()}})).await;
        assert_eq!(entries(&patch(merge, &path, &json!({"metadata": {"managedFields": []}})).await), ["git Apply -"], "none is no wish");
        let forgotten = patch(kind, &path, body).await;
        assert_eq!(forgotten["metadata"].get("managedFields"), None, "{kind}: {forgotten}");
        assert_eq!((&rig.get(&path).await["metadata"], &forgotten["data"]["a"]), (&forgotten["metadata"], &json!(index.to_string())));
    }
    // What else is written becomes the writer's; without a wish nobody loses a thing.
    apply(&rig, &path, "fieldManager=git", json!({"data": {"a": "2"}})).await;
    let more = |entries: Value, value: &str| json!({"metadata": {"managedFields": entries}, "data": {"b": value}});
    let shared = ["before-first-apply Update -", "git Apply -", "me Update -"];
    assert_eq!(entries(&patch(merge, &path, &more(json!([]), "1")).await), shared);
    assert_eq!(entries(&patch(merge, &path, &more(json!([{}]), "2")).await), ["me Update -"]);
    let mut whole = rig.get(&path).await;
    whole["metadata"]["managedFields"] = json!([{}]);
    let (code, put) = rig.ask("PUT", &path, whole).await;
    assert_eq!((code, entries(&put)), (StatusCode::OK, vec![]));
    // Who writes the status says nothing of the rest.
    rig.ask("POST", &format!("{DEPLOYMENTS}?fieldManager=made"), deployment("web")).await;
    let mut status = reset;
    status["status"] = json!({"replicas": 2});
    let written = patch(merge, &format!("{DEPLOYMENTS}/web/status"), &status).await;
    assert_eq!(entries(&written), ["made Update -", "me Update status"]);
}

/// What nobody is known to own is not overwritten without a word.
#[tokio::test]
async fn the_first_apply_meets_what_was_there_before() {
    let rig = Rig::start().await;
    let path = format!("{MAPS}/m");
    apply(&rig, &path, "fieldManager=made", json!({"data": {"a": "1"}})).await;
    let reset = json!({"metadata": {"managedFields": [{}]}});
    rig.ask_as(&Identity::admin(), "PATCH", &path, "application/merge-patch+json", reset).await;
    let (code, conflict) = apply(&rig, &path, "fieldManager=git", json!({"data": {"a": "2"}})).await;
    assert_eq!((code, causes(&conflict, "field")), (StatusCode::CONFLICT, vec![".data.a".to_owned()]));
    assert!(causes(&conflict, "message")[0].contains("before-first-apply"), "{conflict}");
    let (code, more) = apply(&rig, &path, "fieldManager=git", json!({"data": {"b": "2"}})).await;
    assert_eq!((code, entries(&more)), (StatusCode::OK, vec!["before-first-apply Update -".to_owned(), "git Apply -".to_owned()]));
}

/// Of what is written all the time nobody's fields are noted.
#[tokio::test]
async fn what_has_no_managers_is_applied_again() {
    let rig = Rig::start().await;
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s";
    for address in ["192.0.2.1", "192.0.2.2"] {
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": [address]}]});
        let (code, answer) = apply(&rig, path, "fieldManager=me", slice).await;
        assert!(code.is_success(), "{answer}");
    }
}

/// `kubectl create --dry-run=client -o yaml` writes fields that say nothing.
#[tokio::test]
async fn two_who_apply_the_same_have_no_conflict() {
    let rig = Rig::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut said = deployment("web");
    said["spec"]["strategy"] = json!({});
    said["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    said["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
    for manager in ["one", "two", "one"] {
        let (code, answer) = apply(&rig, &path, &format!("fieldManager={manager}"), said.clone()).await;
        assert!(code.is_success(), "{manager}: {answer}");
    }
}

#[tokio::test]
async fn conflicts_name_their_managers_as_kubernetes_does() {
    let rig = Rig::start().await;
    let path = format!("{MAPS}/m");
    rig.ask("POST", &format!("{MAPS}?fieldManager=made"), map("m", json!({"a": "1", "b": "1"}))).await;
    let (_, one) = apply(&rig, &path, "fieldManager=git", json!({"data": {"a": "2"}})).await;
    assert_eq!(one["message"], "Apply failed with 1 conflict: conflict with \"made\" using v1: .data.a");
    apply(&rig, &path, "fieldManager=third", json!({"data": {"c": "1"}})).await;
    let (_, more) = apply(&rig, &path, "fieldManager=git", json!({"data": {"a": "2", "b": "2", "c": "2"}})).await;
    let text =
        "Apply failed with 3 conflicts: conflicts with \"made\" using v1:\n- .data.a\n- .data.b\nconflicts with \"third\":\n- .data.c";
    assert_eq!(more["message"], text);
    assert_eq!(causes(&more, "reason"), ["FieldManagerConflict"; 3]);
    // The same name for plain writes is another manager.
    assert_eq!(apply(&rig, &path, "fieldManager=made", json!({"data": {"a": "2"}})).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn what_is_applied_has_to_be_declared() {
    let rig = Rig::start().await;
    let body = json!({"data": {"a": "1"}, "date": {}});
    let (code, answer) = apply(&rig, &format!("{MAPS}/m"), "fieldManager=git&fieldValidation=Ignore", body).await;
    let text = "failed to create typed patch object (default/m; v1, Kind=ConfigMap): .date: field not declared in schema";
    assert_eq!((code, answer["message"].as_str()), (StatusCode::BAD_REQUEST, Some(text)));
}

#[tokio::test]
async fn a_wrong_type_is_told_with_its_field() {
    let rig = Rig::start().await;
    rig.ask("POST", DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut quoted = deployment("web");
    quoted["spec"]["replicas"] = json!("3");
    let mut number = map("m", json!({"a.b": 1}));
    number["apiVersion"] = json!("v1");
    let replicas =
        "Deployment in version \"v1\" cannot be handled as a Deployment: spec.replicas must be an integer, not a string, remove the quotes";
    let data = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: data[a.b] must be a string, not a number, put it in quotes";
    let rows = [
        ("POST", DEPLOYMENTS, &quoted, replicas),
        ("PUT", &path, &quoted, replicas),
        ("PATCH", &path, &json!({"spec": {"replicas": "3"}}), replicas),
        ("POST", MAPS, &number, data),
    ];
    for (method, path, body, message) in rows {
        let (code, answer) = rig.ask(method, path, body.clone()).await;
        assert_eq!((code, answer["message"].as_str()), (StatusCode::BAD_REQUEST, Some(message)), "{method} {path}");
    }
    // What is applied is looked at before anybody is asked whose it is.
    let (code, answer) = apply(&rig, &path, "fieldManager=git", json!({"spec": {"replicas": "3"}})).await;
    let message = "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.replicas must be an integer, not a string, remove the quotes";
    assert_eq!((code, answer["message"].as_str()), (StatusCode::BAD_REQUEST, Some(message)));
    let (code, answer) = apply(&rig, &format!("{MAPS}/n"), "fieldManager=git", json!({"data": {"a": null}})).await;
    assert_eq!((code, &answer["data"]["a"]), (StatusCode::CREATED, &json!("")), "{answer}");
}

#[tokio::test]
async fn fields_that_are_there_twice_are_told() {
    let rig = Rig::start().await;
    let post = |mode: &str| {
        let request = Request::post(format!("{MAPS}?fieldValidation={mode}&dryRun=All")).header("content-type", "application/json");
        let request = request.body(r#"{"metadata": {"name": "a", "labels": {"x": "1", "x": "2"}}}"#.to_owned()).unwrap();
        let rig = &rig;
        async move { rig.send(&Identity::admin(), request).await }
    };
    let warned = post("Warn").await;
    assert_eq!(warned.status(), StatusCode::CREATED);
    assert_eq!(warned.headers()["warning"], r#"299 - "duplicate field \"metadata.labels.x\"""#);
    assert!(!post("Ignore").await.headers().contains_key("warning"));
    let refused = post("Strict").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(body_of(refused).await["message"].as_str().unwrap().ends_with("strict decoding error: duplicate field \"metadata.labels.x\""));
}

#[tokio::test]
async fn some_kinds_are_made_by_an_update() {
    let rig = Rig::start().await;
    let service = json!({"spec": {"ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/default/services/web";
    let (code, made) = rig.ask("PUT", path, service.clone()).await;
    assert_eq!((code, made["metadata"]["name"].as_str()), (StatusCode::CREATED, Some("web")), "{made}");
    let mut again = made.clone();
    again["metadata"]["resourceVersion"] = "0".into();
    assert_eq!(rig.ask("PUT", path, again).await.0, StatusCode::OK, "0 is any version");
    let mut versioned = service;
    versioned["metadata"] = json!({"resourceVersion": "1"});
    assert_eq!(rig.ask("PUT", "/api/v1/namespaces/default/services/other", versioned).await.0, StatusCode::NOT_FOUND);
    assert_eq!(rig.ask("PUT", &format!("{MAPS}/a"), json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn deletions_take_their_options_from_query_and_body() {
    let rig = Rig::start().await;
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    let path = format!("{MAPS}/a");
    for (body, code) in [
        (json!({"propagationPolicy": "Sideways"}), 422),
        (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422),
        (json!({"dryRun": ["Some"]}), 422),
        (json!({"dryRun": ["All"]}), 200),
    ] {
        assert_eq!(rig.ask("DELETE", &path, body.clone()).await.0.as_u16(), code, "{body}");
    }
    let (code, list) = rig.ask("DELETE", MAPS, json!({"dryRun": ["All"]})).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let version = rig.get(&path).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (code, answer) = rig.ask("DELETE", &path, json!({"preconditions": {"resourceVersion": "1"}})).await;
    let why = format!(
        "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({version}). The object might have been modified"
    );
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(answer["message"], format!("Operation cannot be fulfilled on configmaps \"a\": {why}"));
    let (code, gone) = rig.ask("DELETE", &path, Value::Null).await;
    assert_eq!((code, gone["status"].as_str(), gone["details"]["kind"].as_str()), (StatusCode::OK, Some("Success"), Some("configmaps")));
    rig.ask("POST", PODS, pod("p", None)).await;
    assert_eq!(rig.ask("DELETE", &format!("{PODS}/p"), Value::Null).await.1["kind"], "Pod", "some kinds answer with what they were");
}

#[tokio::test]
async fn a_job_keeps_its_pods_unless_told_otherwise() {
    let rig = Rig::start().await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    for (body, left, warns) in [(Value::Null, true, true), (json!({"propagationPolicy": "Background"}), false, false)] {
        let (code, job) = rig.ask("POST", JOBS, json!({"metadata": {"name": "j"}, "spec": {"template": template}})).await;
        assert_eq!(code, StatusCode::CREATED, "{job}");
        let mut child = map("child", json!({}));
        child["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": job["metadata"]["uid"], "controller": true}]);
        rig.ask("POST", MAPS, child).await;
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::delete(format!("{JOBS}/j")).header("content-type", "application/json").body(text).unwrap();
        let response = rig.send(&Identity::admin(), request).await;
        assert_eq!((response.status(), response.headers().contains_key("warning")), (StatusCode::OK, warns));
        let owners = rig.get(&format!("{MAPS}/child")).await["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
        assert_eq!(owners == 0, left, "{body}");
        rig.ask("DELETE", &format!("{MAPS}/child"), Value::Null).await;
    }
}

#[tokio::test]
async fn who_takes_the_last_finalizer_is_answered_with_the_object() {
    let rig = Rig::start().await;
    for (name, method) in [("patched", "PATCH"), ("put", "PUT"), ("dry", "PATCH")] {
        let path = format!("{MAPS}/{name}");
        let mut held = map(name, json!({"a": "1"}));
        held["metadata"]["finalizers"] = json!(["a.b/c"]);
        rig.ask("POST", MAPS, held).await;
        rig.ask("DELETE", &path, Value::Null).await;
        let before = rig.get(&path).await;
        // A body that says as little as it may.
        let mut body = map(name, json!({"a": "2"}));
        body["metadata"]["finalizers"] = Value::Null;
        let dry = if name == "dry" { "?dryRun=All" } else { "" };
        let (code, answer) = rig.ask(method, &format!("{path}{dry}"), body).await;
        assert_eq!((code, &answer["kind"], &answer["data"]["a"]), (StatusCode::OK, &json!("ConfigMap"), &json!("2")), "{name}: {answer}");
        for same in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
            assert_eq!(answer["metadata"][same], before["metadata"][same], "{name}: {same}");
        }
        assert_eq!(answer["metadata"].get("finalizers"), None, "{name}");
        let gone = rig.ask("GET", &path, Value::Null).await.0;
        assert_eq!(gone, if dry.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK });
    }
}

#[tokio::test]
async fn a_refusal_has_kubernetes_words_and_causes() {
    let rig = Rig::start().await;
    let mut wrong = deployment("web");
    wrong["spec"]["replicas"] = json!(-1);
    let (code, answer) = rig.ask("POST", DEPLOYMENTS, wrong).await;
    assert_eq!((code, words(&answer).1.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"));
    assert!(answer["message"].as_str().unwrap().starts_with("Deployment.apps \"web\" is invalid: spec.replicas: "), "{answer}");
    assert_eq!((causes(&answer, "reason"), causes(&answer, "field")), (vec!["FieldValueInvalid".into()], vec!["spec.replicas".into()]));
    rig.ask("POST", "/api/v1/namespaces", json!({"metadata": {"name": "going"}})).await;
    rig.ask("DELETE", "/api/v1/namespaces/going", Value::Null).await;
    let (code, answer) = rig.ask("POST", "/api/v1/namespaces/going/configmaps", map("a", json!({}))).await;
    assert_eq!((code, causes(&answer, "reason")), (StatusCode::FORBIDDEN, vec!["NamespaceTerminating".to_owned()]), "{answer}");
}

#[tokio::test]
async fn a_running_pod_is_given_ephemeral_containers() {
    let rig = Rig::start().await;
    let debugger = |name: &str| json!({"name": name, "image": "busybox", "stdin": true, "tty": true, "targetContainerName": "main"});
    let mut with = pod("early", None);
    with["spec"]["ephemeralContainers"] = json!([debugger("look")]);
    let (code, answer) = rig.ask("POST", PODS, with).await;
    assert_eq!((code, causes(&answer, "field")), (StatusCode::UNPROCESSABLE_ENTITY, vec!["spec.ephemeralContainers".to_owned()]));
    rig.ask("POST", PODS, pod("p", None)).await;
    let path = format!("{PODS}/p");
    let patch = json!({"spec": {"nodeName": "elsewhere", "ephemeralContainers": [debugger("look")]}});
    let (code, answer) = rig.ask("PATCH", &path, patch.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "not without the subresource: {answer}");
    let sub = format!("{path}/ephemeralcontainers");
    let admin = Identity::admin();
    let strategic = "application/strategic-merge-patch+json";
    let (code, answer) = rig.ask_as(&admin, "PATCH", &sub, strategic, patch).await;
    assert_eq!((code, answer["spec"].get("nodeName")), (StatusCode::OK, None), "{answer}");
    assert_eq!(answer["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"], "File", "it has its defaults");
    assert_eq!(answer["metadata"]["generation"], 2);
    assert_eq!(entries(&answer), ["unknown Update -", "unknown Update ephemeralcontainers"]);
    let second = json!({"spec": {"ephemeralContainers": [debugger("more")]}});
    let (_, answer) = rig.ask_as(&admin, "PATCH", &sub, strategic, second).await;
    assert_eq!(answer["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2), "{answer}");
    assert_eq!(rig.get(&sub).await, answer);
    // The pod can still be written as before.
    let (code, answer) = rig.ask("PATCH", &path, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    for (wrong, field) in [
        (json!([debugger("look")]), "spec.ephemeralContainers"),
        (json!([{"name": "look", "image": "other"}, debugger("more")]), "spec.ephemeralContainers"),
        (json!([debugger("look"), debugger("more"), debugger("main")]), "spec.ephemeralContainers[2].name"),
        (
            json!([debugger("look"), debugger("more"), {"name": "x", "image": "i", "targetContainerName": "y"}]),
            "spec.ephemeralContainers[2].targetContainerName",
        ),
        (
            json!([debugger("look"), debugger("more"), {"name": "x", "image": "i", "ports": [{"containerPort": 1}]}]),
            "spec.ephemeralContainers[2].ports",
        ),
    ] {
        let (code, answer) = rig.ask("PATCH", &sub, json!({"spec": {"ephemeralContainers": wrong}})).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(causes(&answer, "field").contains(&field.to_owned()), "{field}: {answer}");
    }
    assert_eq!(rig.ask("PATCH", &format!("{MAPS}/x/ephemeralcontainers"), json!({})).await.0, StatusCode::NOT_FOUND);
    let mut template = deployment("web");
    template["spec"]["template"]["spec"]["ephemeralContainers"] = json!([debugger("look")]);
    assert_eq!(rig.ask("POST", DEPLOYMENTS, template).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_pod_is_given_other_resources_through_resize_only() {
    let rig = Rig::start().await;
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Mi"}, "limits": {"memory": "2Mi"}});
    let mut sized = pod("p", None);
    sized["spec"]["containers"][0]["resources"] = resources("1");
    rig.ask("POST", PODS, sized).await;
    let (path, admin, strategic) = (format!("{PODS}/p"), Identity::admin(), "application/strategic-merge-patch+json");
    let of = |resources: Value| json!({"spec": {"containers": [{"name": "main", "image": "other", "resources": resources}]}});
    let (code, _) = rig.ask_as(&admin, "PATCH", &path, strategic, of(resources("2"))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let (code, answer) = rig.ask_as(&admin, "PATCH", &format!("{path}/resize"), strategic, of(resources("2"))).await;
    let main = &answer["spec"]["containers"][0];
    assert_eq!((code, &main["resources"]["requests"]["cpu"], &main["image"]), (StatusCode::OK, &json!("2"), &json!("busybox")), "{answer}");
    assert_eq!(answer["metadata"]["generation"], 2);
    for (wrong, field) in [
        (json!({"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}}), "spec"),
        (json!({"requests": {"memory": "1Mi", "cpu": null}, "limits": {"memory": "2Mi"}}), "spec.containers[0].resources.requests"),
        (json!({"limits": {"ephemeral-storage": "1Gi"}}), "spec.containers[0].resources.limits"),
    ] {
        let (code, answer) = rig.ask_as(&admin, "PATCH", &format!("{path}/resize"), strategic, of(wrong)).await;
        assert_eq!((code, causes(&answer, "field").contains(&field.to_owned())), (StatusCode::UNPROCESSABLE_ENTITY, true), "{answer}");
    }
}

/// Kubernetes' `registry/core/node/strategy.go`, `PrepareForCreate`.
#[tokio::test]
async fn a_node_is_registered_with_its_status() {
    let rig = Rig::start().await;
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""});
    let status = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}], "conditions": [ready], "capacity": {"cpu": "2"}});
    for (who, name) in [(Identity::admin(), "n1"), (Identity::node("n2"), "n2")] {
        let body = json!({"metadata": {"name": name}, "status": status});
        let (code, made) = rig.ask_as(&who, "POST", "/api/v1/nodes", "application/json", body).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        for field in ["addresses", "conditions", "capacity"] {
            assert_eq!(rig.get(&format!("/api/v1/nodes/{name}")).await["status"][field], status[field], "{made}");
        }
    }
    let (_, made) = rig
        .ask(
            "POST",
            PODS,
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}, "status": {"phase": "Running"}}),
        )
        .await;
    assert_eq!(made["status"]["phase"], "Pending", "of nothing else it is taken: {made}");
}

#[tokio::test]
async fn what_is_valid_and_hardly_meant_is_told() {
    let rig = Rig::start().await;
    let mut web = deployment("web");
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "64m"}});
    let ask = async |method: &str, path: &str, body: &Value| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json").body(body.to_string());
        let response = rig.send(&Identity::admin(), request.unwrap()).await;
        assert!(response.status().is_success(), "{method} {path}: {response:?}");
        response.headers().get_all("warning").iter().map(|it| it.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let memory =
        "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \\\"64m\\\" is invalid, must be an integer";
    let memory = format!("299 - \"{memory}\"");
    assert_eq!(ask("POST", DEPLOYMENTS, &web).await, std::slice::from_ref(&memory));
    let path = format!("{DEPLOYMENTS}/web");
    assert_eq!(ask("PUT", &path, &web).await, [""; 0], "it stays as it is");
    web["spec"]["replicas"] = json!(7);
    assert_eq!(ask("PUT", &path, &web).await, [memory]);
    assert_eq!(ask("PUT", &format!("{path}/status"), &web).await, [""; 0]);
}
