//! The API server by itself: time to /readyz, memory, and what clients get from it, with the shapes and numbers by which a
//! Kubernetes API server is measured. `make bench` says where the programs are (PODBAY_BIN); kubectl is the real one, on PATH.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

const CLIENTS: usize = 16;
const PODS: usize = 10_000;
const MAPS: usize = 2_000;
const WATCHERS: usize = 1_000;
const EVENTS: usize = 50;
const OBJECTS: usize = 400;

/// A server on a directory of its own.
struct Server {
    child: Child,
    dir: PathBuf,
    ready: Duration,
}

fn program() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_podbay"));
    std::env::var_os("PODBAY_BIN").map_or_else(built, |dir| PathBuf::from(dir).join("podbay"))
}

impl Server {
    fn start(dir: &Path) -> Self {
        let config = dir.join("podbay.toml");
        let text = format!(
            "data-dir = \"{0}/data\"\nrun-dir = \"{0}/run\"\n[server]\nlisten = \"127.0.0.1:17743\"\npod-range = \"10.83.0.0/16\"\nservice-range = \"10.99.0.0/16\"\n",
            dir.display()
        );
        std::fs::write(&config, text).expect("write podbay.toml");
        let log = std::fs::File::create(dir.join("log")).expect("make a log");
        let started = Instant::now();
        let child =
            Command::new(program()).args(["server", "--config"]).arg(&config).stderr(Stdio::from(log)).spawn().expect("start podbay");
        let ready = loop {
            let asked =
                Command::new("curl").args(["-sfk", "--max-time", "1", "https://127.0.0.1:17743/readyz"]).stdout(Stdio::null()).status();
            if asked.expect("run curl").success() {
                break started.elapsed();
            }
            assert!(started.elapsed() < Duration::from_secs(60), "the server never became ready: see {}/log", dir.display());
        };
        Self { child, dir: dir.to_owned(), ready }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("data/admin.kubeconfig")
    }

    /// Megabytes: resident, and of these anonymous.
    fn memory(&self) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("read /proc");
        let of = |field: &str| {
            let line = text.lines().find(|line| line.starts_with(field)).expect("the field");
            line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).expect("a number") / 1024.0
        };
        format!("{:.1} MiB resident, {:.1} MiB anonymous", of("VmRSS:"), of("RssAnon:"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn client(server: &Server) -> kube::Client {
    let text = Kubeconfig::read_from(server.kubeconfig()).expect("read the kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()).await.expect("a configuration");
    kube::Client::try_from(config).expect("a client")
}

fn pod(index: usize) -> Pod {
    let container = json!({"name": "main", "image": "registry.example.org/team/app:1.2.3", "command": ["/bin/serve", "--port=8080"],
        "env": [{"name": "MODE", "value": "bench"}], "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}});
    let value = json!({"metadata": {"name": format!("pod-{index:05}"), "labels": {"app": format!("app-{}", index % 100)}},
        "spec": {"containers": [container]}});
    serde_json::from_value(value).expect("a pod")
}

fn map(index: usize, text: &str) -> ConfigMap {
    let value = json!({"metadata": {"name": format!("map-{index:05}")}, "data": {"key": text, "more": "x".repeat(200)}});
    serde_json::from_value(value).expect("a map")
}

/// Does `count` requests with 16 clients, each with a connection of its own, and says how many a second.
async fn rate<F, R>(server: &Server, count: usize, request: F) -> f64
where
    F: Fn(kube::Client, usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(server).await);
    }
    let started = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let (next, request) = (Arc::clone(&next), request.clone());
            tokio::spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    request(client.clone(), index).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the requests");
    }
    count as f64 / started.elapsed().as_secs_f64()
}

async fn maps(server: &Server) {
    let create = rate(server, MAPS, |client, index| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        api.create(&PostParams::default(), &map(index, "first")).await.expect("create a map");
    });
    let create = create.await;
    let patch = rate(server, MAPS, |client, index| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let change = Patch::Merge(json!({"data": {"key": "second"}}));
        api.patch(&format!("map-{index:05}"), &PatchParams::default(), &change).await.expect("patch a map");
    });
    let patch = patch.await;
    let get = rate(server, MAPS, |client, index| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        api.get(&format!("map-{index:05}")).await.expect("get a map");
    });
    println!("ConfigMaps with {CLIENTS} clients, create / patch / get: {create:.0} / {patch:.0} / {:.0} a second", get.await);
}

async fn list(server: &Server, path: &str, what: &str) {
    let client = client(server).await;
    let mut times = Vec::new();
    let mut size = 0;
    for _ in 0..9 {
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let started = Instant::now();
        size = client.request_text(request).await.expect("list pods").len();
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("list of {what} ({:.1} MB): {:.0} ms (median of 9)", size as f64 / 1e6, times[4]);
}

async fn watchers(server: &Server) {
    let seen = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let client = client(server).await;
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let from = api.get("map-00000").await.expect("get a map").metadata.resource_version.expect("its version");
    let mut tasks = Vec::new();
    for _ in 0..WATCHERS {
        let (api, from) = (api.clone(), from.clone());
        let (seen, open) = (Arc::clone(&seen), Arc::clone(&open));
        tasks.push(tokio::spawn(async move {
            let stream = api.watch(&WatchParams::default().timeout(290), &from).await.expect("watch maps");
            open.fetch_add(1, Ordering::Relaxed);
            let mut stream = stream.boxed();
            while let Ok(Some(event)) = stream.try_next().await {
                if let WatchEvent::Modified(object) = event
                    && object.data.is_some_and(|data| data.get("key").is_some_and(|text| text.starts_with("busy")))
                {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    reach(&open, WATCHERS).await;
    println!("with {WATCHERS} watchers: {}", server.memory());
    let started = Instant::now();
    for index in 0..EVENTS {
        let change = Patch::Merge(json!({"data": {"key": format!("busy {index}")}}));
        api.patch("map-00000", &PatchParams::default(), &change).await.expect("patch a map");
    }
    reach(&seen, WATCHERS * EVENTS).await;
    let seconds = started.elapsed().as_secs_f64();
    println!("{EVENTS} changes told to {WATCHERS} watchers: {:.0} events a second", (WATCHERS * EVENTS) as f64 / seconds);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn reach(counter: &AtomicUsize, wanted: usize) {
    let started = Instant::now();
    while counter.load(Ordering::Relaxed) < wanted {
        assert!(started.elapsed() < Duration::from_secs(120), "{} of {wanted} after two minutes", counter.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// `kubectl apply` of 400 objects, as people have them: Deployments, Services, ConfigMaps, Secrets.
fn apply(server: &Server) {
    let file = server.dir.join("objects.yaml");
    let text: String = (0..OBJECTS / 4).map(objects).collect();
    std::fs::write(&file, text).expect("write manifests");
    let run = |flags: &[&str]| {
        let started = Instant::now();
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--kubeconfig").arg(server.kubeconfig()).args(["apply", "-f"]).arg(&file).args(flags).stdout(Stdio::null());
        assert!(kubectl.status().expect("run kubectl").success(), "kubectl apply {flags:?}");
        started.elapsed().as_secs_f64()
    };
    let (first, second, third, _) = (run(&[]), run(&[]), run(&["--openapi-patch=false"]), run(&["--server-side", "--force-conflicts"]));
    let fourth = run(&["--server-side", "--force-conflicts"]);
    println!(
        "kubectl apply of {OBJECTS} objects, first / no-op / no-op with --openapi-patch=false / server-side no-op: \
         {first:.1} / {second:.1} / {third:.1} / {fourth:.1} s"
    );
}

fn objects(index: usize) -> String {
    let name = format!("app-{index:03}");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: \"1\"}}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{b: \"2\"}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 0\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: a, image: \"example.org/a:1\"}}]}}\n---\n"
    )
}

#[tokio::main]
async fn main() {
    let dir = PathBuf::from("/var/tmp/podbay-bench-api");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("make a directory");
    drop(Server::start(&dir));
    let mut times: Vec<f64> = (0..5).map(|_| Server::start(&dir).ready.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    println!("server start to /readyz: {:.0} ms (median of 5, curl's start included)", times[2]);

    let server = Server::start(&dir);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("idle, empty: {}", server.memory());
    maps(&server).await;
    watchers(&server).await;
    apply(&server);

    let create = rate(&server, PODS, |client, index| async move {
        let api: Api<Pod> = Api::default_namespaced(client);
        api.create(&PostParams::default(), &pod(index)).await.expect("create a pod");
    });
    println!("pods created with {CLIENTS} clients: {:.0} a second", create.await);
    println!("with {PODS} pods: {}", server.memory());
    list(&server, "/api/v1/namespaces/default/pods?limit=2000", "2,000 pods").await;
    list(&server, "/api/v1/pods", "10,000 pods").await;
    drop(server);
    let _ = std::fs::remove_dir_all(&dir);
}
