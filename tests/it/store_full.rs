//! A store that is short of space, seen through the REST API.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use podbay::clock::{Clock, SystemClock};
use podbay::server::InProcessNode;
use podbay::store::disk::{DiskStore, FreeSpace, Options};
use podbay::sync::fake::{FakePlaces, FakeWebhooks};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::rig::Rig;

const MIB: u64 = 1 << 20;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NODES: &str = "/api/v1/nodes";

/// A disk that says what the test wants.
struct SaidSpace(AtomicU64);

impl FreeSpace for SaidSpace {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::SeqCst))
    }
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

/// A server on a disk store, and the space that its disk seems to have.
async fn server(directory: &Path) -> (Rig, Arc<SaidSpace>) {
    let space = Arc::new(SaidSpace(AtomicU64::new(1024 * MIB)));
    let options = Options { reserve_bytes: MIB, low_bytes: 64 * MIB, space: Arc::clone(&space) as _ };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(DiskStore::open(directory.join("store"), options, Arc::clone(&clock)).unwrap());
    let rig = Rig::over(store, clock, |_| Arc::new(InProcessNode::new("none", None)), |state| state).await;
    (rig, space)
}

/// Waits until the store has seen by itself that there is space again.
fn resumed(rig: &Rig) {
    let begun = Instant::now();
    while let Some(reason) = rig.store.degraded() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the store does not look at its disk: {reason}");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_answers_507_and_takes_deletes_and_status() {
    let directory = tempfile::tempdir().unwrap();
    let (rig, space) = server(directory.path()).await;
    for name in ["one", "two"] {
        assert_eq!(rig.ask("POST", MAPS, map(name)).await.0, StatusCode::CREATED);
    }
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    assert_eq!(rig.ask("POST", NODES, node).await.0, StatusCode::CREATED);

    space.0.store(8 * MIB, Ordering::SeqCst);
    let (code, status) = rig.ask("POST", MAPS, map("three")).await;
    assert_eq!(code, StatusCode::INSUFFICIENT_STORAGE, "{status}");
    assert_eq!((&status["kind"], &status["status"], &status["code"]), (&json!("Status"), &json!("Failure"), &json!(507)));
    assert_eq!(status["reason"], "InsufficientStorage");
    let message = status["message"].as_str().unwrap();
    for part in ["8 MiB free in", "free space there or delete objects", "deletes and status"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let (code, _) = rig.ask("PATCH", &format!("{MAPS}/one"), json!({"data": {"a": "c"}})).await;
    assert_eq!(code, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(rig.get(&format!("{MAPS}/one")).await["data"]["a"], "b", "what was refused changed nothing");

    // A node can still say how it is, and room can be made.
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]}});
    assert_eq!(rig.ask("PATCH", &format!("{NODES}/n1/status"), ready).await.0, StatusCode::OK);
    assert_eq!(rig.get(&format!("{NODES}/n1")).await["status"]["conditions"][0]["status"], "True");
    assert_eq!(rig.ask("DELETE", &format!("{MAPS}/two"), Value::Null).await.0, StatusCode::OK);
    assert_eq!(rig.get(MAPS).await["items"].as_array().unwrap().iter().filter(|it| it["metadata"]["name"] == "two").count(), 0);

    // The same to a person: kubectl prints the message.
    let output = rig.kubectl("create configmap three --from-literal=a=b").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("free space there or delete objects"), "{said}");

    space.0.store(1024 * MIB, Ordering::SeqCst);
    resumed(&rig);
    assert_eq!(rig.ask("POST", MAPS, map("three")).await.0, StatusCode::CREATED, "it resumes by itself");
    assert_eq!(rig.ask("PATCH", &format!("{MAPS}/one"), json!({"data": {"a": "c"}})).await.0, StatusCode::OK);
}

const SOURCE: &str = "/apis/podbay.dev/v1/sources/shop";

/// The source `shop`, which has this manifest, followed until the guard is dropped.
async fn follow(rig: &Rig, manifest: &str) -> (Arc<FakePlaces>, DropGuard) {
    let (places, end) = (Arc::<FakePlaces>::default(), CancellationToken::new());
    places.place("shop").put("r1", &[("a.yaml", manifest)]);
    let webhooks = Arc::<FakeWebhooks>::default();
    tokio::spawn(podbay::sync::run(Arc::clone(&rig.store), places.clone(), webhooks, Arc::new(SystemClock), end.clone()));
    let source = json!({"apiVersion": "podbay.dev/v1", "kind": "Source", "metadata": {"name": "shop"}, "spec": {"directory": "/srv"}});
    assert_eq!(rig.ask("POST", "/apis/podbay.dev/v1/sources", source).await.0, StatusCode::CREATED);
    (places, end.drop_guard())
}

/// A commit that does not fit is told on its Source, by whom nothing but the status is written; once there is space it
/// is carried out, and told no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_for_which_there_is_no_space_is_told_on_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let (rig, space) = server(directory.path()).await;
    let config = |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: told}}\ndata: {{a: {value}}}\n");
    let (places, _end) = follow(&rig, &config("one")).await;
    let ready = async |status: &str, reason: &str| {
        let begun = Instant::now();
        loop {
            let source = rig.get(SOURCE).await;
            let conditions = source["status"]["conditions"].as_array().cloned().unwrap_or_default();
            match conditions.into_iter().find(|it| it["type"] == "Ready" && it["status"] == status && it["reason"] == reason) {
                Some(ready) => return (source, ready),
                None => assert!(begun.elapsed() < Duration::from_secs(60), "not {reason}: {source}"),
            }
            tokio::task::yield_now().await;
        }
    };
    ready("True", "Synced").await;

    space.0.store(8 * MIB, Ordering::SeqCst);
    places.place("shop").put("r2", &[("a.yaml", &config("two"))]);
    let (source, full) = ready("False", "StoreFull").await;
    let message = full["message"].as_str().unwrap();
    assert!(message.starts_with("nothing of the newest look is written, the store is short of space: 8 MiB free in"), "{message}");
    assert_eq!(
        (&source["status"]["acceptedRevision"], &rig.get(&format!("{MAPS}/told")).await["data"]["a"]),
        (&json!("r1"), &json!("one"))
    );
    let mut podbay = tokio::process::Command::new(env!("CARGO_BIN_EXE_podbay"));
    let listed = podbay.args(["source", "list"]).env("KUBECONFIG", rig.kubeconfig()).output().await.unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(&format!("Store full: {message}")), "{listed}");

    space.0.store(1024 * MIB, Ordering::SeqCst);
    let (source, _) = ready("True", "Synced").await;
    assert_eq!(
        (&source["status"]["acceptedRevision"], &rig.get(&format!("{MAPS}/told")).await["data"]["a"]),
        (&json!("r2"), &json!("two"))
    );
}

/// What it created cannot be noted for a source of its name: that is not in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_removed_where_there_is_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let (rig, space) = server(directory.path()).await;
    // Packed as the accepted set they take less than the note would.
    let map = |index| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: told-{index}}}\n---\n");
    let (_places, _end) = follow(&rig, &(0..30).map(map).collect::<String>()).await;
    let begun = Instant::now();
    while rig.ask("GET", SOURCE, Value::Null).await.1["status"]["acceptedRevision"] != "r1" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not accepted");
        tokio::task::yield_now().await;
    }

    space.0.store(8 * MIB, Ordering::SeqCst);
    assert_eq!(rig.ask("DELETE", SOURCE, Value::Null).await.0, StatusCode::OK);
    let begun = Instant::now();
    while rig.ask("GET", SOURCE, Value::Null).await.0 != StatusCode::NOT_FOUND {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not gone");
        tokio::task::yield_now().await;
    }
    let maps = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps");
    let left = rig.get(&maps("kube-system")).await["items"].as_array().unwrap().clone();
    assert!(left.iter().all(|map| map["metadata"]["labels"][podbay::sync::left::LABEL].is_null()), "{left:?}");
    assert_eq!(rig.get(&format!("{}/told-29", maps("default"))).await["metadata"]["name"], "told-29");
}
