//! Whole pods: sandbox, network, container; run, stop, remove. One by one, turn by turn beside `podman kube play` and
//! containerd behind the CRI; then a hundred at once, with the memory of what stands around them.
//!
//! Everybody gives a pod an address on a bridge, the default seccomp profile and no grace. Ours is measured called
//! directly, as the agent does, and through its own CRI socket, as containerd is.
#![allow(clippy::unwrap_used)] // a panic is how a bench fails

#[path = "../tests/real/cri/containerd.rs"]
#[allow(dead_code)]
mod containerd;
#[path = "../tests/real/hosts.rs"]
#[allow(dead_code)]
mod hosts;
#[path = "../tests/real/layer.rs"]
#[allow(dead_code)]
mod layer;
#[path = "stage/mod.rs"]
mod stage;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd::{BUSYBOX, Containerd, PAUSE, pause};
use podbay::cri::client::Client;
use podbay::cri::contract::Subject;
use podbay::cri::fake::FakeImages;
use podbay::cri::server;
use podbay::network::{Linux, NodeNetwork as _, Options, Wanted};
use podbay::runtime::Remains;
use stage::memory::{self, Process, SLEEP};
use stage::podman::Podman;
use stage::{Stage, figures, hide_the_hybrid_layout};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 20;
const WARM_UP: usize = 3;
const MANY: usize = 100;
/// Shims rest after a second without anything to do.
const REST: Duration = Duration::from_millis(2500);

fn main() {
    hide_the_hybrid_layout();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run());
}

/// Who makes pods.
enum Maker {
    Runtime(Subject),
    Podman(Podman),
}

struct Row {
    name: &'static str,
    maker: Maker,
    until_running: Vec<Duration>,
    whole: Vec<Duration>,
}

async fn run() {
    let scratch = tempfile::tempdir().unwrap();
    let network = network(scratch.path()).await;
    let stage = Stage::with(Arc::new(network.clone())).await;
    let end = CancellationToken::new();
    let socket = serve(&stage, scratch.path(), end.clone()).await;
    let containerd = Containerd::start(7).await;
    let archive = |name: &str| scratch.path().join(name);
    hosts::sh(&format!("examples/build-image {BUSYBOX} {}", archive("busybox.tar").display()));
    pause(&archive("pause.tar"));
    let podman = Podman::open(&archive("busybox.tar"), &archive("pause.tar"), PAUSE);
    let row = |name, maker| Row { name, maker, until_running: Vec::new(), whole: Vec::new() };
    let direct = Subject {
        runtime: stage.subject.runtime.clone(),
        image: "busybox".into(),
        logs: stage.subject.logs.clone(),
        host_network: false,
        handler: String::new(),
    };
    let mut rows = [
        row("podbay", Maker::Runtime(direct)),
        row("podbay by its CRI socket", Maker::Runtime(socket)),
        row("containerd by its CRI socket", Maker::Runtime(containerd.subject(containerd.client().await))),
        row("podman kube play", Maker::Podman(podman)),
    ];
    for round in 0..ROUNDS + WARM_UP {
        for row in &mut rows {
            let (running, whole) = row.maker.once(&format!("pod{round}")).await;
            if round >= WARM_UP {
                row.until_running.push(running);
                row.whole.push(whole);
            }
        }
    }
    one_by_one(&mut rows);
    println!("{MANY} pods at once: seconds until all run; KiB a pod of what stands around its container (PSS)");
    let mut ours = None;
    for row in &rows {
        let names: Vec<String> = (0..MANY).map(|number| format!("many{number}")).collect();
        let took = row.maker.start_all(&names).await;
        tokio::time::sleep(REST).await;
        let around = match &row.maker {
            Maker::Podman(podman) => memory::theirs("conmon", podman.path()),
            Maker::Runtime(_) if row.name.starts_with("containerd") => memory::theirs("containerd-shim", containerd.path()),
            Maker::Runtime(_) => our_processes(&stage),
        };
        let kib = memory::sums(&around).0 / MANY as u64;
        row.maker.remove_all().await;
        let (first, least) = *ours.get_or_insert((took, kib));
        println!(
            "  {:<30} {:>7.2} s   {kib:>6} KiB   podbay takes {:.2} of the time, {:.2} of the memory",
            row.name,
            took.as_secs_f64(),
            first.as_secs_f64() / took.as_secs_f64(),
            least as f64 / kib as f64
        );
    }
    drop(rows);
    end.cancel();
    stage.close().await;
    network.remove_all().await.unwrap();
}

fn one_by_one(rows: &mut [Row]) {
    println!("a pod with a network and one container, {ROUNDS} rounds, median (90th percentile), microseconds");
    let (mut ours, mut ours_whole) = (None, None);
    for row in rows {
        let ((median, tail), (whole, whole_tail)) = (figures(&mut row.until_running), figures(&mut row.whole));
        let (first, first_whole) = (*ours.get_or_insert(median), *ours_whole.get_or_insert(whole));
        println!(
            "  {:<30} until it runs {median:>7} ({tail}), podbay takes {:.2} of it; until it is gone again {whole:>7} ({whole_tail}), {:.2}",
            row.name,
            first as f64 / median as f64,
            first_whole as f64 / whole as f64
        );
    }
}

/// A node's network of its own, as the agent makes it.
async fn network(dir: &Path) -> Linux {
    let mut options = Options::new(dir.join("network"));
    (options.bridge, options.table) = ("pbbench0".into(), "podbay-bench-pod".into());
    let network = Linux::open(options).unwrap();
    let range = |text: &str| Some(text.parse().unwrap());
    let wanted = Wanted { pod_range: range("10.84.0.0/24"), cluster_range: range("10.84.0.0/16"), ..Wanted::default() };
    network.sync(&wanted).await.unwrap();
    network
}

/// The same engine on a socket.
async fn serve(stage: &Stage, dir: &Path, end: CancellationToken) -> Subject {
    let socket = dir.join("cri.sock");
    let listener = server::bind(&socket).unwrap();
    let streams = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(server::serve(listener, streams, stage.subject.runtime.clone(), Arc::new(FakeImages::default()), end));
    let client = Client::connect(socket.to_str().unwrap(), &dir.join("client")).await.unwrap();
    Subject {
        runtime: Arc::new(client),
        image: "busybox".into(),
        logs: stage.subject.logs.clone(),
        host_network: false,
        handler: String::new(),
    }
}

fn our_processes(stage: &Stage) -> Vec<Process> {
    memory::ours(Remains::look(&stage.options).unwrap().processes)
}

impl Maker {
    /// How long a pod takes until it runs, and until nothing of it is left.
    async fn once(&self, name: &str) -> (Duration, Duration) {
        let start = Instant::now();
        match self {
            Self::Runtime(subject) => {
                let (sandbox, container) = start_pod(subject, name).await;
                let running = start.elapsed();
                remove_pod(subject, &sandbox, &container).await;
                (running, start.elapsed())
            }
            Self::Podman(podman) => {
                let names = [name.to_owned()];
                let manifest = podman.manifest(BUSYBOX, &names);
                let start = Instant::now();
                podman.play(&manifest);
                let running = start.elapsed();
                podman.remove(name);
                (running, start.elapsed())
            }
        }
    }

    /// All at once, as the agent's workers do; podman from one manifest.
    async fn start_all(&self, names: &[String]) -> Duration {
        match self {
            Self::Runtime(subject) => {
                let start = Instant::now();
                let starts = names.iter().map(|name| {
                    let subject = Subject {
                        runtime: subject.runtime.clone(),
                        image: subject.image.clone(),
                        logs: subject.logs.clone(),
                        host_network: false,
                        handler: String::new(),
                    };
                    let name = name.clone();
                    tokio::spawn(async move { start_pod(&subject, &name).await })
                });
                for started in futures::future::join_all(starts.collect::<Vec<_>>()).await {
                    started.unwrap();
                }
                start.elapsed()
            }
            Self::Podman(podman) => {
                let manifest = podman.manifest(BUSYBOX, names);
                let start = Instant::now();
                podman.play(&manifest);
                start.elapsed()
            }
        }
    }

    async fn remove_all(&self) {
        match self {
            Self::Podman(podman) => podman.remove_all(),
            Self::Runtime(subject) => {
                for container in subject.runtime.list_containers().await.unwrap() {
                    remove_pod(subject, &container.sandbox_id, &container.id).await;
                }
            }
        }
    }
}

/// Sandbox and container, by their ids.
async fn start_pod(subject: &Subject, name: &str) -> (String, String) {
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod(name)).await.unwrap();
    let container = subject.start(&sandbox, &subject.container("main", &SLEEP)).await.unwrap();
    (sandbox, container)
}

async fn remove_pod(subject: &Subject, sandbox: &str, container: &str) {
    let runtime = &subject.runtime;
    runtime.stop_container(container, Duration::ZERO).await.unwrap();
    runtime.stop_pod_sandbox(sandbox).await.unwrap();
    runtime.remove_container(container).await.unwrap();
    runtime.remove_pod_sandbox(sandbox).await.unwrap();
}
