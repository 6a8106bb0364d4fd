//! The `kube` crate's watcher and reflector against the server: through watches that end, through a history that has moved
//! on, through connections that are cut anywhere, and through a server that is killed and started anew.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use podbay::clock::SystemClock;
use podbay::server::{Identity, local_client};
use podbay::store::disk::{DiskStore, Options};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::api::{MAPS, map, outrun_history};
use crate::rig::Rig;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The reflector's store becomes what the server has, whatever happens to the watch.
async fn follows(config: watcher::Config, prefix: &str) {
    let rig = Rig::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(local_client(rig.router.clone(), Identity::admin()));
    let (reader, writer) = reflector::store();
    // The server ends each watch after a second.
    let mut stream = pin!(reflector(writer, watcher(maps, config.timeout(1))).default_backoff());
    let mut becomes = async |wanted: &[&str]| {
        let names = || reader.state().iter().map(|it| it.name_any()).collect::<BTreeSet<String>>();
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while names() != set(wanted) {
            let next = tokio::time::timeout_at(end, stream.next()).await;
            assert!(next.is_ok(), "{prefix}: {:?} does not become {wanted:?}", names());
        }
    };
    rig.ask("POST", MAPS, map("a", json!({}))).await;
    becomes(&["a"]).await;
    for name in ["b", "c"] {
        rig.ask("POST", MAPS, map(name, json!({}))).await;
    }
    becomes(&["a", "b", "c"]).await;
    // More than one watch long nothing but bookmarks; then what changed while nobody looked, and is forgotten.
    rig.ask("DELETE", &format!("{MAPS}/b"), Value::Null).await;
    outrun_history(&rig, prefix).await;
    rig.ask("POST", MAPS, map("d", json!({}))).await;
    becomes(&["a", "c", "d"]).await;
    rig.ask("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    becomes(&["c", "d"]).await;
}

#[tokio::test]
async fn a_reflector_that_lists_in_pages_keeps_up() {
    follows(watcher::Config::default().page_size(1), "l").await;
}

#[tokio::test]
async fn a_reflector_that_watches_from_the_start_keeps_up() {
    follows(watcher::Config::default().streaming_lists(), "s").await;
}

/// A server on a store on the disk, with a runtime of its own: when that goes, so does all of it at once.
struct Life {
    rig: Rig,
    runtime: Runtime,
}

impl Life {
    async fn begin(directory: &Arc<tempfile::TempDir>) -> Self {
        let (runtime, directory) = (Runtime::new().unwrap(), Arc::clone(directory));
        let rig = runtime.spawn(async move {
            let options = Options { reserve_bytes: 1 << 20, low_bytes: 1 << 20, ..Options::default() };
            let store = DiskStore::open(directory.path().join("store"), options, Arc::new(SystemClock)).unwrap();
            Rig::at(directory, Arc::new(store)).await
        });
        Self { rig: rig.await.unwrap(), runtime }
    }

    fn address(&self) -> SocketAddr {
        self.rig.url.trim_start_matches("https://").parse().unwrap()
    }

    async fn kill(self) {
        let Self { rig, runtime } = self;
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
        drop(rig);
    }
}

/// Passes connections on to wherever the server is, and cuts each after some bytes of its answers: a little later each time,
/// so that there is an end to it.
struct Line {
    address: SocketAddr,
    server: watch::Sender<SocketAddr>,
    cuts: Arc<AtomicUsize>,
}

impl Line {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cuts) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (sender, server) = watch::channel(server);
        let counted = Arc::clone(&cuts);
        tokio::spawn(async move {
            for connection in 1.. {
                let (client, _) = listener.accept().await.unwrap();
                let server = *server.borrow();
                tokio::spawn(pass_on(client, server, 1_500 * connection, Arc::clone(&counted)));
            }
        });
        Self { address, server: sender, cuts }
    }
}

async fn pass_on(mut client: TcpStream, server: SocketAddr, bytes: u64, cuts: Arc<AtomicUsize>) {
    // Nobody is there between two lives.
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (from_server, mut to_server)) = (client.split(), server.split());
    let mut bounded = tokio::io::AsyncReadExt::take(from_server, bytes);
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut bounded, &mut to_client) => {
            cuts.fetch_add(usize::from(bounded.limit() == 0), Ordering::SeqCst);
        }
    }
    to_client.shutdown().await.ok();
}

/// A client of the server behind the line, by the kubeconfig that it left.
async fn client(life: &Life, line: &Line) -> kube::Client {
    let mut config: Value = serde_json::from_slice(&std::fs::read(life.rig.kubeconfig()).unwrap()).unwrap();
    config["clusters"][0]["cluster"]["server"] = format!("https://{}", line.address).into();
    let config = serde_json::from_value(config).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// The reflector's store becomes what the server has, however often connections break and servers die.
async fn survives(config: watcher::Config) {
    podbay::tls::install_provider();
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut life = Life::begin(&directory).await;
    let line = Line::to(life.address()).await;
    let (reader, writer) = reflector::store();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&life, &line).await);
    let mut stream = pin!(reflector(writer, watcher(maps, config)));
    let mut wanted = BTreeSet::new();
    for round in 0..4 {
        for number in 0..12 {
            let name = format!("m-{round}-{number}");
            let (status, answer) = life.rig.ask("POST", MAPS, map(&name, json!({"text": "x".repeat(300)}))).await;
            assert!(status.is_success(), "{answer}");
            wanted.insert(name);
        }
        let oldest = wanted.pop_first().unwrap();
        life.rig.ask("DELETE", &format!("{MAPS}/{oldest}"), Value::Null).await;
        let names = || reader.state().iter().map(|it| it.name_any()).collect::<BTreeSet<String>>();
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while names() != wanted {
            // What went wrong is tried again at the next look.
            let next = tokio::time::timeout_at(end, stream.next()).await;
            assert!(next.is_ok(), "round {round}: {:?} does not become {wanted:?}", names());
        }
        if round % 2 == 1 {
            life.kill().await;
            life = Life::begin(&directory).await;
            line.server.send_replace(life.address());
        }
    }
    let cuts = line.cuts.load(Ordering::SeqCst);
    assert!(cuts > 5, "only {cuts} connections were cut");
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_that_lists_in_pages_survives_cuts_and_restarts() {
    survives(watcher::Config::default().page_size(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_that_watches_from_the_start_survives_cuts_and_restarts() {
    survives(watcher::Config::default().streaming_lists()).await;
}
