//! Built-in kinds in a version that is not the one they are stored in: `autoscaling/v1`, and `events.k8s.io/v1`, whose events are
//! stored as those of `v1`.

use http::{Request, StatusCode, header};
use podbay::server::Identity;
use serde_json::{Value, json};

use crate::api::Lines;
use crate::hooks::{Judge, MUTATING, VALIDATING, configure, patch, yes};
use crate::rig::{self, Rig};

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const TARGET: &str = "targetCPUUtilizationPercentage";

fn target() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"})
}

fn old(name: &str, percent: i32) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {"scaleTargetRef": target(), "maxReplicas": 5, TARGET: percent}})
}

fn resource(name: &str, percent: i32) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}})
}

/// One that `v1` has no fields for: another metric, a behaviour, conditions.
async fn rich(rig: &Rig, name: &str) {
    let new = json!({"metadata": {"name": name}, "spec": {"scaleTargetRef": target(), "maxReplicas": 5,
        "metrics": [resource("memory", 70), resource("cpu", 60)], "behavior": {"scaleUp": {"selectPolicy": "Disabled"}}}});
    let (status, answer) = rig.ask("POST", V2, new).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let conditions = json!([{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "yes"}]);
    let status = json!({"status": {"currentReplicas": 1, "desiredReplicas": 2, "conditions": conditions}});
    assert_eq!(rig.ask("PATCH", &format!("{V2}/{name}/status"), status).await.0, StatusCode::OK);
}

fn note(object: &Value, name: &str) -> Value {
    serde_json::from_str(object["metadata"]["annotations"][name].as_str().unwrap_or("null")).unwrap()
}

#[tokio::test]
async fn discovery_has_both_versions_and_prefers_the_stored_one() {
    let rig = Rig::start().await;
    let group = rig.get("/apis/autoscaling").await;
    let versions: Vec<&str> = group["versions"].as_array().unwrap().iter().map(|it| it["version"].as_str().unwrap()).collect();
    assert_eq!((versions, &group["preferredVersion"]["version"]), (vec!["v2", "v1"], &json!("v2")));
    for version in ["v1", "v2"] {
        let list = rig.get(&format!("/apis/autoscaling/{version}")).await;
        let names: Vec<&Value> = list["resources"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["horizontalpodautoscalers", "horizontalpodautoscalers/status"], "{version}");
        assert_eq!(list["resources"][0]["shortNames"], json!(["hpa"]));
    }
    let request = Request::get("/apis").header(header::ACCEPT, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let all = rig::json(rig.send(&Identity::admin(), request.body(String::new()).unwrap()).await).await;
    let group = all["items"].as_array().unwrap().iter().find(|it| it["metadata"]["name"] == "autoscaling").unwrap();
    let kinds: Vec<(&Value, &Value)> =
        group["versions"].as_array().unwrap().iter().map(|it| (&it["version"], &it["resources"][0]["responseKind"]["version"])).collect();
    assert_eq!(kinds, [(&json!("v2"), &json!("v2")), (&json!("v1"), &json!("v1"))]);
    assert!(rig.get("/openapi/v3").await["paths"]["apis/autoscaling/v1"].is_object());
    let document = rig.get("/openapi/v3/apis/autoscaling/v1").await;
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let spec = &schemas["io.k8s.api.autoscaling.v1.HorizontalPodAutoscalerSpec"]["properties"];
    assert!(spec[TARGET].is_object() && spec["metrics"].is_null(), "{spec}");
    assert!(!schemas.keys().any(|name| name.contains("autoscaling.v2")));
    let both = rig.get("/openapi/v2").await;
    let of = |version: &str| {
        both["definitions"][format!("io.k8s.api.autoscaling.{version}.HorizontalPodAutoscaler")]["x-kubernetes-group-version-kind"][0]["version"].clone()
    };
    assert_eq!((of("v1"), of("v2")), (json!("v1"), json!("v2")));
}

#[tokio::test]
async fn what_is_written_in_one_version_is_read_in_the_other() {
    let rig = Rig::start().await;
    let (status, made) = rig.ask("POST", V1, old("web", 60)).await;
    assert_eq!((status, &made["apiVersion"], &made["spec"][TARGET]), (StatusCode::CREATED, &json!("autoscaling/v1"), &json!(60)), "{made}");
    let new = rig.get(&format!("{V2}/web")).await;
    assert_eq!((&new["apiVersion"], &new["spec"]["metrics"]), (&json!("autoscaling/v2"), &json!([resource("cpu", 60)])));
    assert_eq!(new["metadata"]["uid"], made["metadata"]["uid"], "it is the same object");
    let (status, answer) = rig.ask("POST", V2, json!({"metadata": {"name": "web"}, "spec": new["spec"]})).await;
    assert_eq!((status, &answer["reason"]), (StatusCode::CONFLICT, &json!("AlreadyExists")));

    rich(&rig, "rich").await;
    let rich = rig.get(&format!("{V1}/rich")).await;
    assert_eq!(rich["spec"], json!({"scaleTargetRef": target(), "minReplicas": 1, "maxReplicas": 5, TARGET: 60}));
    assert_eq!(note(&rich, METRICS), json!([{"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}}]));
    assert_eq!(
        (&note(&rich, BEHAVIOR)["ScaleUp"]["SelectPolicy"], &note(&rich, CONDITIONS)[0]["type"]),
        (&json!("Disabled"), &json!("AbleToScale"))
    );
    assert_eq!(rich["status"], json!({"currentReplicas": 1, "desiredReplicas": 2}));

    // Read and written again nothing is lost, whatever the annotation says of the status by then.
    let before = rig.get(&format!("{V2}/rich")).await;
    let mut again = rich.clone();
    again["spec"]["maxReplicas"] = json!(6);
    again["metadata"]["annotations"][CONDITIONS] = json!("[]");
    let (status, answer) = rig.ask("PUT", &format!("{V1}/rich"), again).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let after = rig.get(&format!("{V2}/rich")).await;
    let mut wanted = before["spec"].clone();
    wanted["maxReplicas"] = json!(6);
    assert_eq!((&after["spec"], &after["status"]), (&wanted, &before["status"]));
    assert!(after["metadata"].get("annotations").is_none());
    let (status, gone) = rig.ask("DELETE", &format!("{V1}/rich"), Value::Null).await;
    assert_eq!((status, &gone["status"]), (StatusCode::OK, &json!("Success")), "{gone}");
    assert_eq!(rig.ask("GET", &format!("{V2}/rich"), Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_watches_tables_and_metadata_are_of_the_version() {
    let rig = Rig::start().await;
    rich(&rig, "rich").await;
    let list = rig.get(V1).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("HorizontalPodAutoscalerList"), &json!("autoscaling/v1")));
    assert_eq!((&list["items"][0]["apiVersion"], &list["items"][0]["spec"][TARGET]), (&json!("autoscaling/v1"), &json!(60)));
    let path = format!("{V1}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut watch = Lines::open(&rig, &path).await;
    let first = watch.next().await.unwrap();
    assert_eq!((&first["type"], &first["object"]["spec"][TARGET]), (&json!("ADDED"), &json!(60)));
    let mark = watch.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["apiVersion"]), (&json!("BOOKMARK"), &json!("autoscaling/v1")));
    assert_eq!(mark["object"]["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
    rig.ask("PATCH", &format!("{V2}/rich"), json!({"spec": {"metrics": [resource("cpu", 30)]}})).await;
    let changed = watch.next().await.unwrap();
    assert_eq!((&changed["type"], &changed["object"]["spec"][TARGET]), (&json!("MODIFIED"), &json!(30)));

    let accept = |form: &str| format!("application/json;as={form};v=v1;g=meta.k8s.io");
    let shown = async |path: &str, form: &str| {
        let request = Request::get(path).header(header::ACCEPT, accept(form)).body(String::new()).unwrap();
        rig::json(rig.send(&Identity::admin(), request).await).await
    };
    let (one, other) = (shown(V1, "Table").await, shown(V2, "Table").await);
    assert_eq!((&one["columnDefinitions"], &one["rows"][0]["cells"]), (&other["columnDefinitions"], &other["rows"][0]["cells"]));
    assert_eq!(one["columnDefinitions"][2]["name"], "Targets");
    let bare = shown(&format!("{V1}/rich"), "PartialObjectMetadata").await;
    assert!(note(&bare, BEHAVIOR).is_object(), "{bare}");
    assert!(note(&shown(&format!("{V2}/rich"), "PartialObjectMetadata").await, BEHAVIOR).is_null());
}

#[tokio::test]
async fn patches_of_every_kind_are_of_the_version() {
    let rig = Rig::start().await;
    rich(&rig, "rich").await;
    let path = format!("{V1}/rich");
    let admin = Identity::admin();
    for (percent, kind, body) in [
        (51, "application/merge-patch+json", json!({"spec": {TARGET: 51}})),
        (52, "application/strategic-merge-patch+json", json!({"spec": {TARGET: 52}})),
        (53, "application/json-patch+json", json!([{"op": "replace", "path": format!("/spec/{TARGET}"), "value": 53}])),
        (54, "application/apply-patch+yaml", old("rich", 54)),
    ] {
        let path = if kind.contains("apply") { format!("{path}?fieldManager=me&force=true") } else { path.clone() };
        let (status, answer) = rig.ask_as(&admin, "PATCH", &path, kind, body).await;
        assert_eq!((status, &answer["spec"][TARGET]), (StatusCode::OK, &json!(percent)), "{kind}: {answer}");
        let new = rig.get(&format!("{V2}/rich")).await;
        assert_eq!(new["spec"]["metrics"], json!([resource("memory", 70), resource("cpu", percent)]), "{kind}");
        assert_eq!(new["spec"]["behavior"]["scaleUp"]["selectPolicy"], "Disabled");
        assert_eq!(new["status"]["conditions"][0]["type"], "AbleToScale");
    }
    // A status in the words of the version, and nothing else with it.
    let status = json!({"spec": {TARGET: 9}, "status": {"desiredReplicas": 3}});
    let (code, answer) = rig.ask("PATCH", &format!("{path}/status"), status).await;
    assert_eq!((code, &answer["status"]["desiredReplicas"], &answer["spec"][TARGET]), (StatusCode::OK, &json!(3), &json!(54)), "{answer}");
    assert_eq!(note(&answer, CONDITIONS)[0]["type"], "AbleToScale");
}

#[tokio::test]
async fn who_applies_in_one_version_meets_who_writes_in_the_other() {
    let rig = Rig::start().await;
    let admin = Identity::admin();
    let apply = async |manager: &str, it: Value| {
        let path = format!("{V1}/web?fieldManager={manager}");
        rig.ask_as(&admin, "PATCH", &path, "application/apply-patch+yaml", it).await
    };
    let (status, made) = apply("git", old("web", 60)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        apply("git", old("web", 60)).await.1["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"],
        "nothing is written twice"
    );
    rig.ask("PATCH", &format!("{V2}/web?fieldManager=hand"), json!({"spec": {"metrics": [resource("cpu", 70)]}})).await;
    let live = rig.get(&format!("{V2}/web")).await;
    let entries: Vec<(&str, &str, String)> = live["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["manager"].as_str().unwrap(), it["apiVersion"].as_str().unwrap(), it["fieldsV1"]["f:spec"].to_string()))
        .collect();
    let (git, hand) = (r#"{"f:maxReplicas":{},"f:scaleTargetRef":{"f:apiVersion":{},"f:kind":{},"f:name":{}}}"#, r#"{"f:metrics":{}}"#);
    assert_eq!(entries, [("git", "autoscaling/v1", git.to_owned()), ("hand", "autoscaling/v2", hand.to_owned())]);
    let (status, answer) = apply("git", old("web", 60)).await;
    assert_eq!((status, &answer["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    assert!(answer["message"].as_str().unwrap().contains("conflict with \"hand\" using autoscaling/v2"), "{answer}");
}

#[tokio::test]
async fn fields_are_checked_against_the_version() {
    let rig = Rig::start().await;
    let mut wrong = old("web", 60);
    wrong["spec"]["metrics"] = json!([resource("cpu", 50)]);
    wrong["spec"]["targetCPUUtilisationPercentage"] = json!(7);
    let (status, answer) = rig.ask("POST", &format!("{V1}?fieldValidation=Strict"), wrong.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("HorizontalPodAutoscaler in version \"v1\"") && message.contains("unknown field \"spec.metrics\""),
        "{message}"
    );
    assert!(message.contains("did you mean \"targetCPUUtilizationPercentage\"?"), "{message}");
    let (status, made) = rig.ask("POST", &format!("{V1}?fieldValidation=Ignore"), wrong).await;
    assert_eq!((status, &made["spec"][TARGET]), (StatusCode::CREATED, &json!(60)), "what it does not have says nothing: {made}");
    for (change, code, part) in [
        (json!({"spec": {TARGET: "60"}}), 400, "spec.targetCPUUtilizationPercentage must be an integer, not a string"),
        (json!({"spec": {TARGET: 0}}), 422, "must be greater than 0"),
        (
            json!({"metadata": {"annotations": {METRICS: r#"[{"type":"Pods","pods":{"metricName":"a","targetAverageValue":"1"}}]"#}}}),
            422,
            "no API for custom",
        ),
        (json!({"apiVersion": "autoscaling/v2"}), 400, "does not match the expected one (autoscaling/v1)"),
    ] {
        let (status, answer) = rig.ask("PATCH", &format!("{V1}/web"), change.clone()).await;
        assert_eq!(status.as_u16(), code, "{change}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{change}: {answer}");
    }
    let mut applied = old("web", 60);
    applied["spec"]["behavior"] = json!({});
    let (status, answer) =
        rig.ask_as(&Identity::admin(), "PATCH", &format!("{V1}/web?fieldManager=me"), "application/apply-patch+yaml", applied).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["message"].as_str().unwrap().contains("spec.behavior: field not declared in schema"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_knows_another_version_of_a_built_in_kind() {
    let rig = Rig::start().await;
    let judge = Judge::start(|path, request| {
        if path != "old" {
            return yes();
        }
        patch(json!([
            {"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 40},
            {"op": "add", "path": "/spec/metrics", "value": request["object"]["kind"]},
        ]))
    })
    .await;
    let of = |version: &str, policy: &str| {
        json!({"matchPolicy": policy, "rules": [{"operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": [version],
            "resources": ["horizontalpodautoscalers"]}]})
    };
    configure(&rig, MUTATING, "old", json!([judge.hook("old", &of("v1", "Equivalent"))])).await;
    let hooks = json!([judge.hook("new", &of("v2", "Equivalent")), judge.hook("exact", &of("v1", "Exact"))]);
    configure(&rig, VALIDATING, "new", hooks).await;

    let new = json!({"metadata": {"name": "web"}, "spec": {"scaleTargetRef": target(), "maxReplicas": 3,
        "metrics": [resource("memory", 70), resource("cpu", 60)]}});
    let (status, made) = rig.ask("POST", V2, new).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["metrics"], json!([resource("memory", 70), resource("cpu", 40)]));
    let asked = judge.asked();
    assert_eq!(asked.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["old", "new"], "of v1 and no other is not of v2");
    let (old, new) = (&asked[0].1, &asked[1].1);
    assert_eq!((&old["kind"]["version"], &old["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!((&old["resource"]["version"], &old["requestResource"]["version"]), (&json!("v1"), &json!("v2")));
    let object = &old["object"];
    assert_eq!((&object["apiVersion"], &object["spec"]["targetCPUUtilizationPercentage"]), (&json!("autoscaling/v1"), &json!(60)));
    assert!(object["metadata"]["annotations"][METRICS].as_str().unwrap().contains("memory"));
    assert_eq!((&new["object"]["apiVersion"], &new["object"]["spec"]["metrics"][1]), (&json!("autoscaling/v2"), &resource("cpu", 40)));

    // And the other way round: what is asked for in v1 is shown in v2 to whoever knows that one.
    let (status, made) = rig.ask("PATCH", &format!("{V1}/web"), json!({"spec": {"maxReplicas": 4}})).await;
    assert_eq!((status, &made["apiVersion"]), (StatusCode::OK, &json!("autoscaling/v1")), "{made}");
    let mut asked = judge.asked();
    asked[1..].sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(asked.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["old", "exact", "new"]);
    assert_eq!((&asked[2].1["kind"]["version"], &asked[2].1["requestKind"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(asked[2].1["oldObject"]["spec"]["metrics"][0], resource("memory", 70));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_kubectl_speaks_either_version() {
    let rig = Rig::start().await;
    let explained = rig.kubectl_ok("explain --api-version=autoscaling/v1 hpa.spec").await;
    assert!(explained.contains("VERSION:    v1") && explained.contains(TARGET) && !explained.contains("behavior"), "{explained}");
    assert!(rig.kubectl_ok("explain hpa.spec").await.contains("behavior"), "v2 is preferred");
    let manifest = |percent: i32| std::fs::write(rig.directory.path().join("web.json"), old("web", percent).to_string()).unwrap();
    manifest(60);
    rig.kubectl_ok("create --save-config -f web.json").await;
    manifest(65);
    assert_eq!(rig.kubectl_ok("apply -f web.json").await, "horizontalpodautoscaler.autoscaling/web configured\n");
    assert_eq!(rig.kubectl_ok("apply -f web.json").await, "horizontalpodautoscaler.autoscaling/web unchanged\n");
    manifest(70);
    rig.kubectl_ok("apply --server-side --force-conflicts -f web.json").await;
    rig.kubectl_ok(
        "patch hpa.v2.autoscaling web --type=merge -p {\"spec\":{\"behavior\":{\"scaleDown\":{\"selectPolicy\":\"Disabled\"}}}}",
    )
    .await;
    let yaml = rig.kubectl_ok("get horizontalpodautoscalers.v1.autoscaling web -o yaml").await;
    for part in ["apiVersion: autoscaling/v1", "targetCPUUtilizationPercentage: 70", BEHAVIOR, "Disabled"] {
        assert!(yaml.contains(part), "{part}: {yaml}");
    }
    // What was read is taken as it is.
    std::fs::write(rig.directory.path().join("read.yaml"), yaml).unwrap();
    rig.kubectl_ok("replace -f read.yaml").await;
    let new = rig.get(&format!("{V2}/web")).await;
    assert_eq!(
        (&new["spec"]["metrics"], &new["spec"]["behavior"]["scaleDown"]["selectPolicy"]),
        (&json!([resource("cpu", 70)]), &json!("Disabled"))
    );
    assert!(rig.kubectl_ok("get horizontalpodautoscalers.v1.autoscaling").await.contains("cpu: <unknown>/70%"));
    assert!(rig.kubectl_ok("describe horizontalpodautoscalers.v1.autoscaling web").await.contains("70%"));
    rig.kubectl_ok("delete -f read.yaml").await;
}

const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const OLD: &str = "/api/v1/namespaces/default/events";

/// As the newer recorder of client-go writes one (`tools/events`).
fn recorded(name: &str) -> Value {
    json!({"metadata": {"name": name}, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.org/c",
        "reportingInstance": "c-1", "action": "Binding", "reason": "Scheduled", "type": "Normal", "note": "hello",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "web"}})
}

#[tokio::test]
async fn an_event_is_the_same_in_either_group() {
    let rig = Rig::start().await;
    let (status, made) = rig.ask("POST", NEW, recorded("new")).await;
    assert_eq!((status, &made["apiVersion"]), (StatusCode::CREATED, &json!("events.k8s.io/v1")), "{made}");
    assert_eq!((&made["note"], &made["message"], &made["metadata"]["managedFields"]), (&json!("hello"), &Value::Null, &Value::Null));
    let old = rig.get(&format!("{OLD}/new")).await;
    assert_eq!((&old["apiVersion"], &old["metadata"]["uid"]), (&json!("v1"), &made["metadata"]["uid"]));
    assert_eq!((&old["message"], &old["involvedObject"]), (&json!("hello"), &made["regarding"]));
    assert_eq!((&old["reportingComponent"], &old["action"], &old["note"]), (&json!("example.org/c"), &json!("Binding"), &Value::Null));
    assert_eq!(rig.ask("POST", OLD, json!({"metadata": {"name": "new"}, "involvedObject": {}})).await.0, StatusCode::CONFLICT);

    // It happened again: that recorder patches.
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}});
    let strategic = "application/strategic-merge-patch+json";
    let (status, patched) = rig.ask_as(&Identity::admin(), "PATCH", &format!("{NEW}/new"), strategic, series.clone()).await;
    assert_eq!((status, &patched["series"], &patched["note"]), (StatusCode::OK, &series["series"], &json!("hello")), "{patched}");
    let mut again = patched.clone();
    again["note"] = json!("hello again");
    assert_eq!(rig.ask("PUT", &format!("{NEW}/new"), again).await.0, StatusCode::OK);
    assert_eq!(rig.get(&format!("{OLD}/new")).await["message"], "hello again");

    let legacy = json!({"metadata": {"name": "old"}, "involvedObject": {"kind": "Node", "name": "n1"}, "message": "hi", "reason": "Ready",
        "count": 3, "source": {"component": "kubelet", "host": "n1"}, "type": "Warning",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z"});
    assert_eq!(rig.ask("POST", OLD, legacy.clone()).await.0, StatusCode::CREATED);
    let new = rig.get(&format!("{NEW}/old")).await;
    let names =
        ["regarding", "note", "deprecatedSource", "deprecatedCount", "deprecatedFirstTimestamp", "deprecatedLastTimestamp", "reason"];
    let told = ["involvedObject", "message", "source", "count", "firstTimestamp", "lastTimestamp", "reason"].map(|name| &legacy[name]);
    assert_eq!(names.map(|name| &new[name]), told);

    let names = async |query: &str| {
        let list = rig.get(&format!("{NEW}?fieldSelector={query}")).await;
        assert_eq!(list["apiVersion"], "events.k8s.io/v1");
        list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((names("regarding.name=web").await, names("type=Warning").await), (vec!["new".to_owned()], vec!["old".to_owned()]));
    let (status, answer) = rig.ask("GET", &format!("{NEW}?fieldSelector=involvedObject.name=web"), Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let mut unknown = recorded("other");
    unknown["message"] = json!("x");
    let (status, answer) = rig.ask("POST", &format!("{NEW}?fieldValidation=Strict"), unknown).await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == StatusCode::BAD_REQUEST && message.contains("unknown field \"message\""), "{answer}");
    let mut elsewhere = recorded("other");
    elsewhere["regarding"]["namespace"] = json!("web");
    let (status, answer) = rig.ask("POST", NEW, elsewhere).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");

    assert_eq!(rig.ask("DELETE", &format!("{NEW}/old"), Value::Null).await.0, StatusCode::OK);
    assert_eq!(rig.ask("GET", &format!("{OLD}/old"), Value::Null).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn kubectl_and_watchers_see_events_of_the_newer_group() {
    let rig = Rig::start().await;
    let path = format!("{NEW}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut watch = Lines::open(&rig, &path).await;
    let mark = watch.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["regarding"]), (&json!("BOOKMARK"), &json!({})));
    assert_eq!(rig.ask("POST", NEW, recorded("new")).await.0, StatusCode::CREATED);
    let seen = watch.next().await.unwrap();
    assert_eq!((&seen["object"]["apiVersion"], &seen["object"]["note"]), (&json!("events.k8s.io/v1"), &json!("hello")));

    let list = rig.get("/apis/events.k8s.io/v1").await;
    assert_eq!((&list["resources"][0]["name"], &list["resources"][0]["shortNames"]), (&json!("events"), &json!(["ev"])));
    let document = rig.get("/openapi/v3/apis/events.k8s.io/v1").await;
    let event = &document["components"]["schemas"]["io.k8s.api.events.v1.Event"];
    assert!(event["properties"]["regarding"].is_object() && event["properties"]["involvedObject"].is_null(), "{event}");
    assert_eq!(event["x-kubernetes-group-version-kind"][0]["group"], "events.k8s.io");
    for resource in ["events", "ev", "events.events.k8s.io"] {
        let shown = rig.kubectl_ok(&format!("get {resource}")).await;
        let cells: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells[1..], ["Normal", "Scheduled", "pod/web", "hello"], "{shown}");
    }
    let whole = rig.kubectl_ok("get events.events.k8s.io/new -o jsonpath={.apiVersion},{.note}").await;
    assert_eq!(whole, "events.k8s.io/v1,hello");
    assert!(rig.kubectl_ok("explain event.regarding --api-version=events.k8s.io/v1").await.contains("resourceVersion"));
    rig.kubectl_ok("delete events.events.k8s.io new").await;
    assert!(rig.get(OLD).await["items"].as_array().unwrap().is_empty());
}
