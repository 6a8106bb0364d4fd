//! A whole cluster in this process: the real server, sync, controllers and scheduler over the memory
//! store, and an agent a node on the in-memory runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use podbay::agent::{self, Options};
use podbay::assemble::{Asked, LivePreviews};
use podbay::clock::{Clock, SystemClock, VirtualClock};
use podbay::cri::fake::{FakeImages, FakeRuntime};
use podbay::model::{Key, Kind, Object, Source, SourceSpec, Timestamp, pod};
use podbay::network::fake::Network;
use podbay::plan::Controller;
use podbay::schedule::Scheduler;
use podbay::server::hooks::CommitsAsked;
use podbay::server::{Identity, InProcessNode, Mint, NodeConnector, local_client};
use podbay::store::memory::MemoryStore;
use podbay::store::{Snapshot, Store};
use podbay::sync::look::{Look, Memory, decide};
use podbay::sync::open::Places;
use podbay::sync::source::{Fetch, Fetched, OpenSource};
use podbay::{control, driver, sync};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

/// See the module.
pub struct Cluster {
    pub rig: Rig,
    runtimes: Vec<Arc<FakeRuntime>>,
    controllers: Vec<Arc<dyn Controller>>,
    places: Arc<OnRequest>,
    /// What sync would remember, to know whether it has anything left to do.
    memories: BTreeMap<String, Memory>,
    down: CancellationToken,
    _data: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.down.cancel();
    }
}

impl Cluster {
    pub async fn start(nodes: &[String]) -> Self {
        podbay::tls::install_provider();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        // What is made or becomes ready in a session does so in the same second: which pod is the oldest, and goes
        // last, is not left to this machine's speed.
        let second = clock.now().as_second();
        let stopped: Arc<dyn Clock> = Arc::new(VirtualClock::new(Timestamp::from_second(second).unwrap()));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(stopped.clone()));
        let data = tempfile::tempdir().unwrap();
        let real = Arc::new(Places::new(sync::git::Options::new(data.path().join("git"))));
        let places = Arc::new(OnRequest { places: Arc::clone(&real), seen: Mutex::default() });
        let mut controllers = control::all(control::Options::new(clock.now()));
        controllers.push(Arc::new(Scheduler::new()));

        let mut ways: Vec<Arc<InProcessNode>> = Vec::new();
        for name in nodes {
            let next = ways.last().map(|way| Arc::clone(way) as Arc<dyn NodeConnector>);
            ways.push(Arc::new(InProcessNode::new(name, next)));
        }
        let connector: Arc<dyn NodeConnector> = match ways.last() {
            Some(last) => Arc::clone(last) as _,
            None => Arc::new(InProcessNode::new("none", None)),
        };
        let webhooks = Arc::new(Asked(CommitsAsked::new(Arc::clone(&store), clock.clone())));
        let previews = Arc::new(LivePreviews::new(Arc::clone(&store), real, webhooks.clone(), controllers.clone(), clock.clone()));
        let rig = Rig::over(Arc::clone(&store), clock.clone(), |_| connector, |state| state.with_previews(previews)).await;

        let down = CancellationToken::new();
        controllers.push(Arc::new(Mint(Arc::clone(&rig.pki))));
        tokio::spawn(driver::run(Arc::clone(&store), controllers.clone(), clock.clone(), down.clone()));
        tokio::spawn(sync::run(store, places.clone(), webhooks, clock, down.clone()));
        let mut runtimes = Vec::new();
        for (index, (name, way)) in nodes.iter().zip(&ways).enumerate() {
            let runtime = Arc::new(FakeRuntime::default());
            let mut options = Options::new(name, data.path().join(name));
            options.node_addresses = vec![format!("192.0.2.{}", index + 1).parse().unwrap()];
            options.capacity = [("cpu", "4"), ("memory", "8Gi")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            options.lease_interval = Duration::from_secs(1);
            way.attach(agent::node_api::router(runtime.clone(), &options));
            let client = local_client(rig.router.clone(), Identity::node(name));
            let (images, network) = (Arc::new(FakeImages::default()), Arc::new(Network::new()));
            let here = Arc::clone(&network);
            runtime.set_addresses(move |number| {
                let range = here.wanted().and_then(|wanted| wanted.pod_range).expect("pods start once the node has its range");
                std::net::Ipv4Addr::from(u32::from(range.base) + 1 + u32::from(number)).to_string()
            });
            tokio::spawn(agent::run_with_clock(client, (runtime.clone(), images, network), stopped.clone(), options, down.clone()));
            runtimes.push(runtime);
        }
        let mut cluster = Self { rig, runtimes, controllers, places, memories: BTreeMap::new(), down, _data: data };
        cluster.rest(nodes.len()).await;
        cluster
    }

    pub fn snapshot(&self) -> Snapshot {
        self.rig.store.snapshot()
    }

    /// What a server does at its start with the sources of its configuration.
    pub async fn configure(&self, sources: &BTreeMap<String, SourceSpec>) {
        self.rig.store.commit(sync::configured::plan(&self.snapshot(), sources)).await.unwrap();
    }

    /// Ends a running container of this name, as if its process had, and waits until its node has told.
    pub async fn end_container(&self, name: &str, code: i32) {
        let mut watch = self.rig.store.watch(self.snapshot().revision()).unwrap();
        let before = ends(&self.snapshot(), name);
        assert!(self.runtimes.iter().any(|runtime| runtime.end(name, code)), "no container {name} runs");
        while ends(&self.snapshot(), name) == before {
            tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("the node tells of the end").unwrap();
        }
    }

    /// Waits until nobody has anything to do and `nodes` nodes are ready.
    pub async fn rest(&mut self, nodes: usize) -> Snapshot {
        let mut watch = self.rig.store.watch(self.snapshot().revision()).unwrap();
        let mut busy = String::new();
        let resting = async {
            loop {
                let state = self.snapshot();
                match self.busy(&state, nodes) {
                    None => return state,
                    Some(why) => busy = why,
                }
                watch.next().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), resting).await {
            Ok(state) => state,
            Err(_) => panic!("the cluster does not come to rest: {busy}"),
        }
    }

    /// Who has something left to do.
    fn busy(&mut self, state: &Snapshot, nodes: usize) -> Option<String> {
        let now = SystemClock.now();
        let ready = state.list(Kind::Node).filter(|node| node.get::<Node>().is_some_and(is_ready)).count();
        if ready < nodes {
            return Some(format!("{ready} of {nodes} nodes are ready"));
        }
        if let Some(pod) = state.list(Kind::Pod).find(|pod| !is_settled(pod)) {
            return Some(format!("{} is on its way: {}", pod.key(), pod.value()["status"]));
        }
        if let Some(going) = state.iter().find(|object| object.is_deleting()) {
            return Some(format!("{} is going", going.key()));
        }
        for controller in &self.controllers {
            let keys: BTreeSet<Key> = state.iter().flat_map(|object| controller.keys(state, object)).collect();
            if let Some(op) = keys.iter().find_map(|key| controller.plan(state, key, now).ops.into_iter().next()) {
                return Some(format!("{} plans {op}", controller.name()));
            }
        }
        state.list(Kind::Source).find_map(|source| self.sync_is_busy(state, source))
    }

    fn sync_is_busy(&mut self, state: &Snapshot, object: &Object) -> Option<String> {
        let source = object.get::<Source>()?;
        if source.spec.suspend == Some(true) {
            return None;
        }
        let name = object.key().name.clone();
        let memory = self.memories.entry(name.clone()).or_default();
        let Some(fetched) = self.places.seen(&name) else { return Some(format!("source {name} was not looked at")) };
        let look = match fetched {
            Fetched::Tree(tree) => Look::of(tree, &source.spec, state.definitions(), memory),
            Fetched::Refused { revision, why } => Look::refused(revision, why),
            Fetched::Unreachable(why) => Look::unreachable(why),
        };
        let step = decide(state, &name, &look, None, memory, &mut || "new".to_owned(), SystemClock.now());
        if !step.questions.is_empty() {
            // What they say is told with the revision.
            let (Look::Read(revision), told) = (&look, source.status.as_ref().and_then(|it| it.fetched_revision.as_ref())) else {
                return None;
            };
            return (told != Some(&revision.id)).then(|| format!("webhooks are asked about source {name}"));
        }
        (!step.transaction.writes.is_empty()).then(|| format!("sync plans {:?}", step.transaction.writes))
    }
}

/// How many containers of this name are known to have ended.
fn ends(state: &Snapshot, name: &str) -> usize {
    let pods = state.list(Kind::Pod).filter_map(|object| object.get::<Pod>()?.status.as_ref()?.container_statuses.as_ref());
    let ended = pods.flatten().filter(|status| status.name == name);
    ended.filter(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some())).count()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Its node has nothing more to report: it runs and is ready, it ended, it cannot start, or it has no node.
fn is_settled(object: &Object) -> bool {
    let Some(it) = object.get::<Pod>() else { return true };
    let waits = |reason: &str| !matches!(reason, "ContainerCreating" | "PodInitializing");
    let containers = it.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let stuck = containers.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()).any(waits);
    pod::node_name(it).is_none() || pod::is_terminal(it) || pod::is_ready(it) || stuck
}

/// The real places, read only when a `podbay reconcile` asks: a session decides when a change is seen.
pub struct OnRequest {
    places: Arc<Places>,
    seen: Mutex<BTreeMap<String, Arc<Once>>>,
}

struct Once {
    place: Arc<dyn Fetch>,
    fetched: OnceCell<Fetched>,
}

impl OnRequest {
    /// What sync saw last at this source's place.
    fn seen(&self, name: &str) -> Option<Fetched> {
        self.seen.lock().unwrap().get(name)?.fetched.get().cloned()
    }
}

impl OpenSource for OnRequest {
    fn open(&self, name: &str, spec: &SourceSpec) -> Result<Arc<dyn Fetch>, String> {
        let once = Arc::new(Once { place: self.places.open(name, spec)?, fetched: OnceCell::new() });
        self.seen.lock().unwrap().insert(name.to_owned(), Arc::clone(&once));
        Ok(once)
    }
}

#[async_trait]
impl Fetch for Once {
    async fn fetch(&self) -> Fetched {
        self.fetched.get_or_init(|| self.place.fetch()).await.clone()
    }
}
