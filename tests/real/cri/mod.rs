//! The CRI on the kernel: the same suites on containerd, and on our engine behind its socket.

pub mod containerd;
mod daemons;

use std::sync::Arc;

use podbay::cri::client::Client;
use podbay::cri::contract::{
    Subject, attach_suite, image_suite, inside_socket_suite, inside_stream_suite, inside_suite, newer_suite, our_socket_suite,
    socket_suite, stream_suite, suite,
};
use podbay::cri::{ContainerState, Resources, Runtime, server};
use podbay::runtime::cgroup::Tree;
use podbay::runtime::image::{self, ImageStore};
use podbay::runtime::{Engine, Options, Remains, reset};
use tokio_util::sync::CancellationToken;

use crate::engine::{NoNetwork, cgroup_root, shim};
use crate::hosts::sh;
use containerd::{BUSYBOX, Containerd};

#[tokio::test]
async fn containerd_keeps_the_contract() {
    let containerd = Containerd::start(1).await;
    let client = containerd.client().await;
    assert!(client.version().starts_with("containerd://1."), "{}", client.version());
    let subject = containerd.subject(client.clone());
    suite(&subject).await;
    inside_suite(&subject).await;
    stream_suite(&subject).await;
    inside_stream_suite(&subject).await;
    attach_suite(&subject).await;
    socket_suite(&containerd.endpoint(), &subject).await;
    inside_socket_suite(&containerd.endpoint(), &subject).await;
    image_suite(&*client, BUSYBOX).await;
}

/// Our engine on a socket, with an image store of its own.
struct Served {
    dir: tempfile::TempDir,
    options: Options,
    network: Arc<NoNetwork>,
    images: Arc<ImageStore>,
    end: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Served {
    fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-cri-").tempdir().unwrap();
        let archive = dir.path().join("busybox.tar");
        sh(&format!("examples/build-image {BUSYBOX} {}", archive.display()));
        let images = ImageStore::open(&dir.path().join("images"), image::Options::default()).unwrap();
        images.import(&archive, None).unwrap();
        let mut options = Options::new(dir.path().join("root"), dir.path().join("run"));
        options.cgroup_root = cgroup_root(name, &dir);
        options.shim_path = shim();
        let (network, images) = (Arc::default(), Arc::new(images));
        Self { dir, options, network, images, end: CancellationToken::new(), server: None }
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.dir.path().join("cri.sock").display())
    }

    async fn engine(&self) -> Engine {
        Engine::open(self.options.clone(), self.images.clone(), self.network.clone()).await.unwrap()
    }

    async fn start(&mut self) {
        let listener = server::bind(&self.dir.path().join("cri.sock")).unwrap();
        let engine = Arc::new(self.engine().await);
        self.end = CancellationToken::new();
        let streams = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = server::serve(listener, streams, engine, self.images.clone(), self.end.clone());
        self.server = Some(tokio::spawn(async move { serve.await.unwrap() }));
    }

    async fn stop(&mut self) {
        self.end.cancel();
        self.server.take().unwrap().await.unwrap();
    }

    async fn client(&self) -> Arc<Client> {
        Arc::new(Client::connect(&self.endpoint(), &self.dir.path().join("client")).await.unwrap())
    }

    fn subject(&self, runtime: Arc<dyn Runtime>) -> Subject {
        let logs = self.dir.path().join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        Subject { runtime, image: BUSYBOX.into(), logs, host_network: false, handler: String::new() }
    }

    async fn leaves_nothing(self) {
        reset(&self.options, &*self.network).await.unwrap();
        assert_eq!(Remains::look(&self.options).unwrap(), Remains::default());
        let files = |dir: &str| std::fs::read_dir(self.dir.path().join(dir)).map(Iterator::count).unwrap_or(0);
        assert_eq!(files("client"), 0);
    }
}

#[tokio::test]
async fn our_engine_keeps_the_contract_directly() {
    let served = Served::new("direct");
    let subject = served.subject(Arc::new(served.engine().await));
    suite(&subject).await;
    inside_suite(&subject).await;
    stream_suite(&subject).await;
    inside_stream_suite(&subject).await;
    attach_suite(&subject).await;
    newer_suite(&subject).await;
    image_suite(&*served.images, BUSYBOX).await;
    drop(subject);
    served.leaves_nothing().await;
}

#[tokio::test]
async fn our_engine_keeps_the_contract_over_its_socket() {
    let mut served = Served::new("socket");
    served.start().await;
    let client = served.client().await;
    assert_eq!(client.version(), concat!("podbay://", env!("CARGO_PKG_VERSION")));
    let subject = served.subject(client.clone());
    suite(&subject).await;
    inside_suite(&subject).await;
    stream_suite(&subject).await;
    inside_stream_suite(&subject).await;
    attach_suite(&subject).await;
    socket_suite(&served.endpoint(), &subject).await;
    our_socket_suite(&served.endpoint(), &subject).await;
    inside_socket_suite(&served.endpoint(), &subject).await;
    newer_suite(&subject).await;
    image_suite(&*client, BUSYBOX).await;
    drop((subject, client));
    served.stop().await;
    served.leaves_nothing().await;
}

#[tokio::test]
async fn pods_outlive_the_server() {
    let mut served = Served::new("restart");
    served.start().await;
    let client = served.client().await;
    let subject = served.subject(client.clone());
    let sandbox = client.run_pod_sandbox(&subject.pod("outlives")).await.unwrap();
    let running = subject.start(&sandbox, &subject.container("runs", &["sleep", "100000"])).await.unwrap();
    let ended = subject.start(&sandbox, &subject.container("ends", &["sh", "-c", "exit 3"])).await.unwrap();
    subject.until_exited(&ended).await;
    let look =
        || async { (client.list_pod_sandboxes().await, client.container_status(&running).await, client.container_status(&ended).await) };
    let before = look().await;
    served.stop().await;
    assert!(client.list_containers().await.is_err(), "nobody answers");
    served.start().await;
    let after = look().await;
    assert_eq!(before.0.unwrap(), after.0.unwrap());
    assert_eq!((before.1.unwrap(), before.2.unwrap()), (after.1.unwrap(), after.2.unwrap()));
    client.remove_pod_sandbox(&sandbox).await.unwrap();
    drop((subject, client));
    served.stop().await;
    served.leaves_nothing().await;
}

#[tokio::test]
async fn a_pod_is_in_the_cgroup_that_its_kubelet_made_for_it() {
    let mut served = Served::new("kubelet");
    served.start().await;
    let client = served.client().await;
    let subject = served.subject(client.clone());
    let tree = Tree::detect(&served.options.cgroup_root).unwrap();
    let kubepods = format!("/{}-kubepods", served.options.cgroup_root);
    let theirs = format!("{kubepods}/besteffort/poduid-kubelet");
    tree.create(&theirs, &Resources { pids_limit: 500, ..Resources::default() }).unwrap();
    let limit = || sh(&format!("cat /sys/fs/cgroup/pids{theirs}/pids.max 2>/dev/null || cat /sys/fs/cgroup{theirs}/pids.max"));
    let mut pod = subject.pod("kubelet");
    pod.cgroup_parent = theirs.clone();
    // The sum of those of its containers that have any: no limit of the others.
    pod.resources = Resources { memory_limit_bytes: 64 << 20, cpu_quota: 5000, cpu_period: 100_000, ..Resources::default() };
    let sandbox = client.run_pod_sandbox(&pod).await.unwrap();
    let id = subject.start(&sandbox, &subject.container("main", &["sleep", "100000"])).await.unwrap();
    let own = format!("{theirs}/poduid-kubelet");
    assert_eq!(tree.processes(&format!("{own}/{id}")).len(), 1, "the container");
    assert!(tree.processes("").is_empty(), "not even the shim is elsewhere");
    assert_eq!(limit().trim(), "500", "their limits are theirs");
    let changed = Resources { memory_limit_bytes: 32 << 20, ..Resources::default() };
    client.update_pod_sandbox_resources(&sandbox, &changed).await.unwrap();
    let none = format!("cat /sys/fs/cgroup/cpu{own}/cpu.cfs_quota_us 2>/dev/null || cut -d ' ' -f 1 /sys/fs/cgroup{own}/cpu.max");
    assert!(matches!(sh(&none).trim(), "-1" | "max"), "{}", sh(&none));
    let memory = format!("cat /sys/fs/cgroup/memory{own}/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup{own}/memory.max");
    assert!(sh(&memory).trim().parse().map_or(true, |limit: u64| limit > 1 << 40), "{}", sh(&memory));
    assert!(client.container_stats().await.unwrap().iter().any(|one| one.id == id && one.usage.memory_usage_bytes > 0));
    served.stop().await;
    served.start().await;
    assert_eq!(client.container_status(&id).await.unwrap().state, ContainerState::Running);
    client.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(tree.processes(&kubepods).is_empty());
    // They find theirs empty, and take it away.
    tree.remove_if_empty(&theirs);
    // What nobody has stopped goes with a reset.
    let sandbox = client.run_pod_sandbox(&pod).await.unwrap();
    subject.start(&sandbox, &subject.container("main", &["sleep", "100000"])).await.unwrap();
    drop((subject, client));
    served.stop().await;
    assert!(!Remains::look(&served.options).unwrap().processes.is_empty());
    reset(&served.options, &*served.network).await.unwrap();
    assert_eq!(Remains::look(&served.options).unwrap(), Remains::default());
    assert!(tree.processes(&kubepods).is_empty());
    tree.remove(&kubepods).unwrap();
}
