//! Admission webhooks are asked about what a source's commits write, and about previews of them.

use std::sync::Arc;

use base64::Engine as _;
use http::StatusCode;
use podbay::assemble::{Asked, LivePreviews};
use podbay::clock::{Clock, SystemClock};
use podbay::control;
use podbay::model::{Key, Kind, Object, Source, SourceStatus};
use podbay::server::InProcessNode;
use podbay::server::hooks::CommitsAsked;
use podbay::store::Snapshot;
use podbay::store::memory::MemoryStore;
use podbay::sync::fake::FakePlaces;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::hooks::{Judge, MUTATING, Reply, VALIDATING, configure, no, patch, until, yes};
use crate::rig::Rig;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PREVIEWS: &str = "/apis/podbay.dev/v1/previews";
const SHOP: &str = "/apis/podbay.dev/v1/sources/shop";

/// A server, and the source `shop`, which is followed.
struct Shop {
    rig: Rig,
    places: Arc<FakePlaces>,
    _end: DropGuard,
}

impl Shop {
    async fn open() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (store, places, end) = (Arc::new(MemoryStore::new(Arc::clone(&clock))), Arc::<FakePlaces>::default(), CancellationToken::new());
        let webhooks = Arc::new(Asked(CommitsAsked::new(store.clone(), Arc::clone(&clock))));
        let controllers = control::all(control::Options::new(clock.now()));
        let previews = LivePreviews::new(store.clone(), places.clone(), webhooks.clone(), controllers, Arc::clone(&clock));
        let nodes = |_: &podbay::tls::Pki| Arc::new(InProcessNode::new("none", None)) as _;
        let rig = Rig::over(store, clock, nodes, |state| state.with_previews(Arc::new(previews))).await;
        tokio::spawn(podbay::sync::run(Arc::clone(&rig.store), places.clone(), webhooks, Arc::new(SystemClock), end.clone()));
        Self { rig, places, _end: end.drop_guard() }
    }

    /// The source has this commit, and looks at it.
    async fn commit(&self, revision: &str, manifests: &str) {
        self.places.place("shop").put(revision, &[("a.yaml", manifests)]);
        let source = json!({"apiVersion": "podbay.dev/v1", "kind": "Source", "metadata": {"name": "shop"},
            "spec": {"directory": "/srv", "intervalSeconds": 3600}});
        if self.rig.ask("POST", "/apis/podbay.dev/v1/sources", source).await.0 == StatusCode::CONFLICT {
            self.annotate("podbay.dev/reconcile-requested-at", revision).await;
        }
    }

    async fn annotate(&self, name: &str, value: &str) {
        let (status, answer) = self.rig.ask("PATCH", SHOP, json!({"metadata": {"annotations": {name: value}}})).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    async fn until(&self, what: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        until(&self.rig, |state| status(state).is_some_and(|it| what(&it))).await;
        status(&self.rig.store.snapshot()).expect("it has one")
    }

    async fn accepted(&self, revision: &str) {
        self.until(|it| it.accepted_revision.as_deref() == Some(revision) && it.errors.is_empty()).await;
    }

    async fn preview(&self, manifests: &str) -> Value {
        let files = json!({"a.yaml": base64::engine::general_purpose::STANDARD.encode(manifests)});
        let (status, preview) = self.rig.ask("POST", PREVIEWS, json!({"source": "shop", "files": files})).await;
        assert_eq!(status, StatusCode::OK, "{preview}");
        preview
    }

    fn value(&self, name: &str) -> Option<String> {
        let object = self.rig.store.snapshot().get(&Key::new(Kind::ConfigMap, "default", name)).cloned()?;
        object.value()["data"]["key"].as_str().map(str::to_owned)
    }
}

fn status(state: &Snapshot) -> Option<SourceStatus> {
    state.get(&Key::cluster(Kind::Source, "shop"))?.get::<Source>()?.status.clone()
}

fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: \"{value}\"}}\n---\n")
}

/// A webhook that puts `mirror/` before what a ConfigMap says, and one that wants no `bad`.
async fn policy() -> Judge {
    Judge::start(|path, request| {
        let said = request["object"]["data"]["key"].as_str().unwrap_or_default();
        match path {
            "mirror" if !said.is_empty() && !said.starts_with("mirror/") => {
                patch(json!([{"op": "replace", "path": "/data/key", "value": format!("mirror/{said}")}]))
            }
            "judge" if said == "mirror/bad" => no("no bad ones"),
            "judge" if request["operation"] == "DELETE" && request["name"] == "dear" => no("it is dear to me"),
            _ => yes(),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_passes_the_webhooks_or_is_refused_whole() {
    let shop = Shop::open().await;
    let judge = policy().await;
    configure(&shop.rig, MUTATING, "mirror", json!([judge.hook("mirror", &json!({}))])).await;
    configure(&shop.rig, VALIDATING, "judge", json!([judge.hook("judge", &json!({}))])).await;
    let bad = config("a", "1") + &config("b", "bad");
    let why = "a.yaml:6:1: ConfigMap default/b: admission webhook \"judge.hooks.example.com\" denied the request: no bad ones";
    let foretold = shop.preview(&bad).await;
    assert_eq!(foretold["refusals"], json!([why]), "{foretold}");
    assert!(judge.asked().iter().all(|(_, request)| request["dryRun"] == true && request["options"]["dryRun"] == json!(["All"])));

    shop.commit("r1", &bad).await;
    let told = shop.until(|it| !it.errors.is_empty()).await;
    assert_eq!((told.errors, shop.value("a")), (vec![why.to_owned()], None));
    let asked = judge.asked();
    assert_eq!(asked[0].1["userInfo"], json!({"username": "podbay:source:shop", "groups": ["system:authenticated"]}));
    let options =
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "podbay:shop", "fieldValidation": "Strict"});
    assert_eq!((&asked[0].1["options"], &asked[0].1["dryRun"]), (&options, &json!(false)));

    let good = config("a", "1") + &config("b", "2") + &config("dear", "3");
    let foretold = shop.preview(&good).await;
    assert_eq!(foretold["objects"][0]["fields"], json!([{"mark": "+", "path": "data.key", "after": "mirror/1"}]), "{foretold}");
    shop.commit("r2", &good).await;
    shop.accepted("r2").await;
    assert_eq!(["a", "b", "dear"].map(|name| shop.value(name)), ["mirror/1", "mirror/2", "mirror/3"].map(|it| Some(it.to_owned())));
    assert_eq!(shop.preview(&good).await["sum"], "no change, 3 as they should be");

    // Somebody else's hand is put back, and that is asked about too.
    judge.asked();
    let (code, _) = shop.rig.ask("PATCH", &format!("{MAPS}/a"), json!({"data": {"key": "hand"}})).await;
    assert_eq!(code, StatusCode::OK);
    until(&shop.rig, |_| shop.value("a").as_deref() == Some("mirror/1")).await;
    let is_it =
        |request: &Value| request["userInfo"]["username"] == "podbay:source:shop" && request["oldObject"]["data"]["key"] == "mirror/hand";
    let put_back = judge.asked().into_iter().find(|(_, request)| is_it(request)).expect("asked");
    let options = json!({"kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "podbay:shop",
        "fieldValidation": "Strict", "force": true});
    assert_eq!((&put_back.1["operation"], &put_back.1["options"]), (&json!("UPDATE"), &options));

    // What goes is asked about.
    let why = "a.yaml: ConfigMap default/dear: admission webhook \"judge.hooks.example.com\" denied the request: it is dear to me";
    shop.commit("r3", &config("a", "4")).await;
    assert_eq!(shop.until(|it| !it.errors.is_empty()).await.errors, [why]);
    assert_eq!(shop.value("a").as_deref(), Some("mirror/1"));
    let (code, _) = shop.rig.ask("DELETE", &format!("{VALIDATING}/judge"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    shop.accepted("r3").await;
    assert_eq!((shop.value("a").as_deref(), shop.value("dear")), (Some("mirror/4"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_webhooks_warn_of_is_told() {
    let shop = Shop::open().await;
    let judge = Judge::start(|_, request| {
        let is_old = request["object"]["data"]["key"] == "old";
        let warnings = if is_old { json!(["say something new", "x".repeat(300)]) } else { json!([]) };
        Reply::Review(json!({"allowed": true, "warnings": warnings}))
    })
    .await;
    configure(&shop.rig, VALIDATING, "judge", json!([judge.hook("judge", &json!({}))])).await;
    let files = config("a", "old") + &config("b", "1");
    let told = ["ConfigMap default/a: say something new".to_owned(), format!("ConfigMap default/a: {}", "x".repeat(256))];
    assert_eq!(shop.preview(&files).await["warnings"], json!(told));
    shop.commit("r1", &files).await;
    shop.accepted("r1").await;
    assert_eq!(status(&shop.rig.store.snapshot()).expect("it has one").warnings, told);
    shop.commit("r2", &config("a", "new")).await;
    shop.accepted("r2").await;
    assert_eq!(status(&shop.rig.store.snapshot()).expect("it has one").warnings, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_source_created_is_asked_about() {
    let shop = Shop::open().await;
    let judge = policy().await;
    configure(&shop.rig, VALIDATING, "judge", json!([judge.hook("judge", &json!({}))])).await;
    shop.commit("r1", &(config("a", "1") + &config("dear", "2"))).await;
    shop.accepted("r1").await;
    judge.asked();
    shop.annotate("podbay.dev/prune", "true").await;
    let (code, answer) = shop.rig.ask("DELETE", SHOP, Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let why = "ConfigMap default/dear: admission webhook \"judge.hooks.example.com\" denied the request: it is dear to me";
    assert_eq!(shop.until(|it| !it.errors.is_empty()).await.errors, [why]);
    assert_eq!(["a", "dear"].map(|name| shop.value(name)), ["1", "2"].map(|it| Some(it.to_owned())));
    let deleted = |request: &Value| request["operation"] == "DELETE" && request["kind"]["kind"] == "ConfigMap";
    let asked = judge.asked().into_iter().map(|(_, request)| request).find(deleted).expect("asked");
    assert_eq!((&asked["userInfo"]["username"], &asked["dryRun"]), (&json!("podbay:source:shop"), &json!(false)));

    // Without the webhook nobody is against it.
    let (code, _) = shop.rig.ask("DELETE", &format!("{VALIDATING}/judge"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    until(&shop.rig, |state| state.get(&Key::cluster(Kind::Source, "shop")).is_none()).await;
    assert_eq!(["a", "dear"].map(|name| shop.value(name)), [None, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_approved_is_what_was_foretold() {
    let shop = Shop::open().await;
    let judge = policy().await;
    configure(&shop.rig, MUTATING, "mirror", json!([judge.hook("mirror", &json!({}))])).await;
    let many: String = (0..8).map(|at| config(&format!("c{at}"), "1")).collect();
    shop.commit("r1", &many).await;
    shop.accepted("r1").await;
    shop.places.place("shop").put("r2", &[("a.yaml", &config("c0", "2"))]);
    let (_, foretold) = shop.rig.ask("POST", PREVIEWS, json!({"source": "shop"})).await;
    assert_eq!(foretold["approvals"].as_array().map(Vec::len), Some(1), "{foretold}");
    let changes = &foretold["objects"][0]["fields"][0];
    assert_eq!((&changes["before"], &changes["after"]), (&json!("mirror/1"), &json!("mirror/2")), "{foretold}");
    shop.annotate("podbay.dev/approve", foretold["planId"].as_str().expect("an id")).await;
    shop.accepted("r2").await;
    assert_eq!((shop.value("c0").as_deref(), shop.value("c1")), (Some("mirror/2"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_as_good_as_its_policy_says() {
    let shop = Shop::open().await;
    let judge = Judge::start(|_, _| yes()).await;
    // Nobody listens there.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let down = |policy: &str| json!({"failurePolicy": policy, "clientConfig": {"url": format!("https://{nobody}/down")}});
    configure(&shop.rig, VALIDATING, "ignored", json!([judge.hook("ignored", &down("Ignore"))])).await;
    shop.commit("r1", &config("a", "1")).await;
    shop.accepted("r1").await;
    configure(&shop.rig, VALIDATING, "down", json!([judge.hook("down", &down("Fail"))])).await;
    let why = "ConfigMap default/a: failed calling webhook \"down.hooks.example.com\": failed to call webhook: Post \"https://";
    let foretold = shop.preview(&config("a", "2")).await;
    assert!(foretold["refusals"][0].as_str().is_some_and(|line| line.starts_with(&format!("a.yaml:1:1: {why}"))), "{foretold}");
    shop.commit("r2", &config("a", "2")).await;
    let told = shop.until(|it| !it.errors.is_empty()).await;
    assert!(told.errors[0].starts_with(&format!("a.yaml:1:1: {why}")), "{:?}", told.errors);
    assert_eq!((told.accepted_revision.as_deref(), shop.value("a").as_deref()), (Some("r1"), Some("1")));

    // What was accepted is held in place as far as the webhooks let it be.
    shop.commit("r1", &config("a", "1")).await;
    shop.until(|it| it.errors.is_empty()).await;
    let object = shop.rig.store.snapshot().get(&Key::new(Kind::ConfigMap, "default", "a")).cloned().expect("it is there");
    let mut value = object.value();
    value["data"]["key"] = "hand".into();
    let changed = Object::from_value(Kind::ConfigMap, value).expect("a ConfigMap");
    let write = podbay::store::Write::Update(changed, podbay::store::Precondition::exists());
    shop.rig.store.commit(podbay::store::Transaction::new("somebody").with(write)).await.expect("written");
    let told = shop.until(|it| !it.errors.is_empty()).await;
    assert!(told.errors[0].starts_with(why) && told.errors[0].ends_with(" (a.yaml:1)"), "{:?}", told.errors);
    assert_eq!(shop.value("a").as_deref(), Some("hand"));
    let (code, _) = shop.rig.ask("DELETE", &format!("{VALIDATING}/down"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    shop.accepted("r1").await;
    until(&shop.rig, |_| shop.value("a").as_deref() == Some("1")).await;
}

/// Namespaces and kinds that a commit brings itself: webhooks see them as they will be.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_brings_counts_when_webhooks_are_chosen() {
    let shop = Shop::open().await;
    let judge = Judge::start(|path, request| match path {
        "after" => yes(),
        "parts" => {
            patch(json!([{"op": "add", "path": "/spec/colour", "value": "red"}, {"op": "add", "path": "/spec/unknown", "value": 1}]))
        }
        _ => no(&format!("not {}", request["name"])),
    })
    .await;
    let only_front = json!({"namespaceSelector": {"matchLabels": {"tier": "front"}}});
    configure(&shop.rig, VALIDATING, "front", json!([judge.hook("front", &only_front)])).await;
    let rules = json!({"rules": [{"operations": ["*"], "apiGroups": ["shop.example.com"], "apiVersions": ["*"], "resources": ["parts"]}]});
    configure(&shop.rig, MUTATING, "parts", json!([judge.hook("parts", &rules), judge.hook("after", &rules)])).await;
    let home =
        |name: &str, tier: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{tier: {tier}}}}}\n---\n");
    let inside = |namespace: &str| config("a", "1").replace("{name: a}", &format!("{{name: a, namespace: {namespace}}}"));
    let kind = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: parts.shop.example.com}\nspec:\n  group: shop.example.com\n  scope: Namespaced\n  names: {plural: parts, singular: part, kind: Part}\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}, colour: {type: string}}}}}}\n---\napiVersion: shop.example.com/v1\nkind: Part\nmetadata: {name: p}\nspec: {size: 1}\n---\n";
    shop.commit("r1", &(home("front", "front") + &home("back", "back") + &inside("front") + &inside("back"))).await;
    let told = shop.until(|it| !it.errors.is_empty()).await;
    let why = "a.yaml:9:1: ConfigMap front/a: admission webhook \"front.hooks.example.com\" denied the request: not \"a\"";
    assert_eq!(told.errors, [why]);
    shop.commit("r2", &(home("back", "back") + &inside("back") + kind)).await;
    shop.accepted("r2").await;
    let part = shop.rig.get("/apis/shop.example.com/v1/namespaces/default/parts/p").await;
    assert_eq!(part["spec"], json!({"size": 1, "colour": "red"}));
    let asked = judge.asked();
    let (_, after) = asked.iter().find(|(path, _)| path == "after").expect("asked");
    assert_eq!(after["object"]["spec"], part["spec"], "without what the kind does not have");
}

/// Of many questions in one go, nobody waits for each.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_late_once_is_not_waited_for_again() {
    let shop = Shop::open().await;
    let judge = Judge::start(|_, _| Reply::Silence).await;
    configure(&shop.rig, VALIDATING, "slow", json!([judge.hook("slow", &json!({"timeoutSeconds": 1}))])).await;
    let many: String = (0..60).map(|at| config(&format!("c{at}"), "1")).collect();
    let foretold = shop.preview(&many).await;
    let refusals = foretold["refusals"].as_array().expect("a list");
    let late = |line: &Value| line.as_str().is_some_and(|line| line.ends_with("?timeout=1s\": context deadline exceeded"));
    assert!(refusals.len() == 60 && refusals.iter().all(late), "{foretold}");
    let asked = judge.asked().len();
    assert!((1..60).contains(&asked), "{asked} of 60 were asked");
}
