//! The agent on the in-memory runtime, against the real API server in the same process.

mod events;
mod images;

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use podbay::agent::{self, Options};
use podbay::clock::{Clock, SystemClock};
use podbay::cri::fake::{Behaviour, FakeImages, FakeRuntime};
use podbay::cri::{CriError, ExecOutput, Images, Runtime};
use podbay::model::NODE_REMOVED;
use podbay::network::NodeNetwork;
use podbay::network::fake::Network;
use podbay::server::{self, Identity, InProcessNode, ServerState, local_client};
use podbay::store::Store;
use podbay::store::memory::MemoryStore;
use podbay::{control, driver};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt};

/// A server, and a node whose agent can be stopped, started and cut off.
struct World {
    router: Router,
    admin: Client,
    node_api: Arc<InProcessNode>,
    runtime: Arc<FakeRuntime>,
    images: Arc<FakeImages>,
    network: Arc<Network>,
    dir: tempfile::TempDir,
    /// While this is cancelled the agent does not reach the server.
    link: Arc<Mutex<CancellationToken>>,
    refusal: Arc<Refusal>,
    asked: Arc<Mutex<Asked>>,
    agent: Option<(CancellationToken, JoinHandle<()>)>,
    image_gc: agent::image_plan::Policy,
    lost_hold: Duration,
    down: CancellationToken,
}

/// The paths that the agent asked for: those that reached the server, and those that were asked in vain while it was cut off.
#[derive(Default)]
struct Asked {
    reached: Vec<String>,
    failed: Vec<String>,
}

/// The reason of the 401 that the agent gets to whatever it asks, and how often it did.
#[derive(Default)]
struct Refusal {
    reason: Mutex<Option<&'static str>>,
    count: AtomicUsize,
}

impl Refusal {
    fn answer(&self) -> Option<Response<Body>> {
        let reason = (*self.reason.lock().unwrap())?;
        self.count.fetch_add(1, Ordering::SeqCst);
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401, "reason": reason, "message": "refused"});
        Some(Response::builder().status(401).header("content-type", "application/json").body(Body::from(status.to_string())).unwrap())
    }
}

impl World {
    /// Without an agent.
    async fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let settings = server::ClusterSettings {
            service_range: "10.96.0.0/16".parse().unwrap(),
            pod_range: "10.80.0.0/16".parse().unwrap(),
            node_prefix: 24,
        };
        server::bootstrap(&*store, &settings).await.unwrap();
        let node_api = Arc::new(InProcessNode::new("n1", None));
        let router = server::router(Arc::new(ServerState::new(store.clone(), clock.clone(), node_api.clone())));
        let down = CancellationToken::new();
        let controllers = control::all(control::Options::new(clock.now()));
        tokio::spawn(driver::run(store, controllers, clock, down.clone()));
        Self {
            admin: local_client(router.clone(), Identity::admin()),
            router,
            node_api,
            runtime: Arc::default(),
            images: Arc::default(),
            network: Arc::new(Network::new()),
            dir: tempfile::tempdir().unwrap(),
            link: Arc::new(Mutex::new(CancellationToken::new())),
            refusal: Arc::default(),
            asked: Arc::default(),
            agent: None,
            image_gc: agent::image_plan::Policy::default(),
            lost_hold: Duration::from_secs(60),
            down,
        }
    }

    /// With one that is registered.
    async fn started() -> Self {
        let mut world = Self::new().await;
        world.start();
        world
    }

    fn options(&self) -> Options {
        let mut options = Options::new("n1", self.dir.path());
        options.node_addresses = vec!["192.0.2.1".parse().unwrap()];
        options.lease_interval = Duration::from_secs(1);
        options.refresh_interval = Duration::from_millis(100);
        options.resync_interval = Duration::from_millis(500);
        options.start_grace = Duration::from_secs(2);
        options.lost_hold = self.lost_hold;
        // What is told twice is seen to be.
        options.event_interval = Duration::ZERO;
        options.pull_progress_interval = Duration::from_millis(20);
        options.image_gc = self.image_gc;
        options.parallel_pulls = 1;
        options.image_gc_interval = Duration::from_millis(200);
        options
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let options = self.options();
        let runtime: Arc<dyn Runtime> = self.runtime.clone();
        self.node_api.attach(agent::node_api::router(runtime.clone(), &options));
        let images: Arc<dyn Images> = self.images.clone();
        let network: Arc<dyn NodeNetwork> = self.network.clone();
        let task = tokio::spawn(agent::run(self.agent_client(), runtime, images, network, options, stop.clone()));
        self.agent = Some((stop, task));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.agent.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    /// As if killed: nothing is finished.
    async fn kill(&mut self) {
        let (_, task) = self.agent.take().unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// The agent's way to the server, which ends in the middle of a watch too.
    fn agent_client(&self) -> Client {
        let (router, link, refusal, asked) = (self.router.clone(), self.link.clone(), self.refusal.clone(), self.asked.clone());
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (router, link, refused) = (router.clone(), link.lock().unwrap().clone(), refusal.answer());
            {
                let mut asked = asked.lock().unwrap();
                let all = if link.is_cancelled() { &mut asked.failed } else { &mut asked.reached };
                all.push(request.uri().to_string());
            }
            async move {
                if link.is_cancelled() {
                    return Err::<_, BoxError>("the link is cut".into());
                }
                let response = match refused {
                    Some(refused) => refused,
                    None => {
                        let mut request = request.map(Body::new);
                        request.extensions_mut().insert(Identity::node("n1"));
                        router.oneshot(request).await.unwrap_or_else(|never| match never {})
                    }
                };
                let cut = async move { link.cancelled().await };
                Ok(response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(cut)))))
            }
        });
        Client::new(service, "default")
    }

    fn cut(&self) {
        self.link.lock().unwrap().cancel();
    }

    /// From now on the server refuses the agent, whose watches end.
    fn refuse(&self, reason: &'static str) {
        *self.refusal.reason.lock().unwrap() = Some(reason);
        self.cut();
        self.heal();
    }

    fn heal(&self) {
        *self.link.lock().unwrap() = CancellationToken::new();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), "default")
    }

    async fn create(&self, name: &str, spec: Value) -> Pod {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "img:1"}]}});
        for (field, value) in spec.as_object().unwrap() {
            pod["spec"][field] = value.clone();
        }
        // The node has to be there before a pod is bound to it.
        let nodes: Api<Node> = Api::all(self.admin.clone());
        until("the node to register", async || nodes.get_opt("n1").await.unwrap()).await;
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    async fn pod(&self, name: &str, what: &str, test: impl Fn(&Pod) -> bool) -> Pod {
        let api = self.pods();
        until(&format!("pod {name} to be {what}"), async || api.get_opt(name).await.unwrap().filter(|pod| test(pod))).await
    }

    async fn ready(&self, name: &str) -> Pod {
        self.pod(name, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    async fn gone(&self, name: &str) {
        let api = self.pods();
        until(&format!("pod {name} to go"), async || api.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }

    fn started_calls(&self) -> usize {
        self.runtime.calls().iter().filter(|call| call.starts_with("start_container")).count()
    }

    async fn sandboxes(&self) -> Vec<String> {
        let mut names: Vec<String> = self.runtime.list_pod_sandboxes().await.unwrap().into_iter().map(|s| s.metadata.name).collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.down.cancel();
        if let Some((stop, task)) = self.agent.take() {
            stop.cancel();
            task.abort();
        }
    }
}

/// Asks until there is an answer; the limit is only there for a test that fails.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

fn condition(pod: &Pod, type_: &str) -> String {
    let all = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.into_iter().find(|condition| condition.type_ == type_).map(|condition| condition.status.clone()).unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn main_status(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == "main")
}

fn container_id(pod: &Pod) -> String {
    main_status(pod).and_then(|status| status.container_id.clone()).unwrap_or_default()
}

fn waiting(pod: &Pod) -> String {
    let state = main_status(pod).and_then(|status| status.state.as_ref()?.waiting.as_ref());
    state.and_then(|waiting| waiting.reason.clone()).unwrap_or_default()
}

fn restarts(pod: &Pod) -> i32 {
    main_status(pod).map_or(0, |status| status.restart_count)
}

#[tokio::test]
async fn a_node_registers_and_a_pod_runs() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    let pod = world.ready("web").await;
    assert_eq!(phase(&pod), "Running");
    let status = pod.status.unwrap();
    assert_eq!((status.host_ip.as_deref(), status.qos_class.as_deref()), (Some("192.0.2.1"), Some("BestEffort")));
    assert!(status.pod_ip.unwrap().starts_with("10.80."));

    let node = Api::<Node>::all(world.admin.clone()).get("n1").await.unwrap();
    let ready = node.status.unwrap().conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
    assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/os"], "linux");
    let images = |node: Node| node.status.unwrap().images.filter(|all| all[0].names.as_ref().unwrap().contains(&"img:1".to_owned()));
    until("the pod's image", async || images(Api::<Node>::all(world.admin.clone()).get("n1").await.unwrap())).await;
    let leases: Api<Lease> = Api::namespaced(world.admin.clone(), "kube-node-lease");
    until("the lease", async || leases.get_opt("n1").await.unwrap()).await;
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    until("the event of the start", async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.items.into_iter().find(|event| event.reason.as_deref() == Some("Started"))
    })
    .await;
    assert_eq!(world.network.wanted().unwrap().pod_range.map(|range| range.to_string()), Some("10.80.0.0/24".to_owned()));
}

/// As the server does to the pods of a node that it has not heard of, which may be back before anything broke.
#[tokio::test]
async fn a_status_that_others_wrote_over_is_written_again() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    let mut conditions = world.ready("web").await.status.unwrap().conditions.unwrap();
    let ready = conditions.iter_mut().find(|condition| condition.type_ == "Ready").unwrap();
    (ready.status, ready.reason) = ("False".to_owned(), Some("NodeNotReady".to_owned()));
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    let cut = world.pods().patch_status("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(condition(&cut, "Ready"), "False");
    world.ready("web").await;
}

#[tokio::test]
async fn a_node_that_was_removed_ends_its_pods() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    world.ready("web").await;
    // Who is refused for another reason is only cut off.
    world.refuse("Unauthorized");
    let asked = || world.refusal.count.load(Ordering::SeqCst);
    until("the agent to ask in vain", async || (asked() > 20).then_some(())).await;
    assert_eq!(world.sandboxes().await, ["web"]);
    world.refuse(NODE_REMOVED);
    until("the pods to end", async || world.sandboxes().await.is_empty().then_some(())).await;
    assert!(world.runtime.calls().iter().any(|call| call.starts_with("stop_container")), "{:?}", world.runtime.calls());
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_not_this_nodes_problem() {
    let world = World::started().await;
    world.network.break_routes("route 10.80.9.0/24 via 203.0.113.7: Network is unreachable");
    world.create("web", json!({})).await;
    world.ready("web").await;
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    until("the event about the route", async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.items.into_iter().find(|event| event.message.as_ref().is_some_and(|text| text.contains("203.0.113.7")))
    })
    .await;
    let node = Api::<Node>::all(world.admin.clone()).get("n1").await.unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().all(|condition| condition.type_ != "NetworkUnavailable" || condition.status == "False"), "{conditions:?}");
}

#[tokio::test]
async fn services_reach_the_nodes_network() {
    let world = World::started().await;
    world
        .create("web", json!({"containers": [{"name": "main", "image": "img:1", "ports": [{"name": "http", "containerPort": 8080}]}]}))
        .await;
    let service: Service = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}))
    .unwrap();
    Api::<Service>::namespaced(world.admin.clone(), "default").create(&PostParams::default(), &service).await.unwrap();
    let ip = world.ready("web").await.status.unwrap().pod_ip.unwrap();
    until("the endpoint", async || {
        let wanted = world.network.wanted()?;
        let port = wanted.services.into_iter().find(|port| port.name == "web")?;
        port.endpoints.into_iter().find(|(address, port)| address.to_string() == ip && *port == 8080)
    })
    .await;
}

#[tokio::test]
async fn a_pod_runs_to_its_end() {
    let world = World::started().await;
    let job = |command: &str| json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "img:1", "command": ["sh", "-c", command]}]});
    world.create("good", job("exit 0")).await;
    world.create("bad", job("exit 3")).await;
    let good = world.pod("good", "over", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(main_status(&good).unwrap().state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
    let bad = world.pod("bad", "over", |pod| phase(pod) == "Failed").await;
    assert_eq!(main_status(&bad).unwrap().state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    // Its log stays readable.
    world.create("says", job("echo hello")).await;
    world.pod("says", "over", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(world.pods().logs("says", &LogParams::default()).await.unwrap(), "hello\n");
}

#[tokio::test]
async fn a_crash_is_restarted_and_counted() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    world.ready("web").await;
    assert!(world.runtime.end("main", 1));
    let pod = world.pod("web", "restarted", |pod| restarts(pod) == 1 && condition(pod, "Ready") == "True").await;
    let last = main_status(&pod).unwrap().last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    // The second end is waited for.
    assert!(world.runtime.end("main", 1));
    world.pod("web", "backing off", |pod| waiting(pod) == "CrashLoopBackOff").await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let world = World::started().await;
    world.images.fail_pulls("no:1", Some(CriError::Pull { reference: "no:1".into(), cause: "no such image".into() }));
    world.create("pull", json!({"containers": [{"name": "main", "image": "no:1"}]})).await;
    world.pod("pull", "failing", |pod| matches!(waiting(pod).as_str(), "ErrImagePull" | "ImagePullBackOff")).await;
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]);
    world.create("env", json!({"containers": [{"name": "main", "image": "img:1", "env": env}]})).await;
    let pod = world.pod("env", "failing", |pod| waiting(pod) == "CreateContainerConfigError").await;
    let message = main_status(&pod).unwrap().state.as_ref().unwrap().waiting.as_ref().unwrap().message.clone().unwrap();
    assert!(message.contains("configmap \"absent\" not found"), "{message}");
    world.create("non-root", json!({"containers": [{"name": "main", "image": "img:1", "securityContext": {"runAsNonRoot": true}}]})).await;
    world.pod("non-root", "failing", |pod| waiting(pod) == "CreateContainerConfigError").await;
    world.runtime.behave("broken", Behaviour { create_error: Some("no rootfs".into()), ..Behaviour::default() });
    world.create("create", json!({"containers": [{"name": "broken", "image": "img:1"}]})).await;
    let api = world.pods();
    until("the failure", async || {
        let pod = api.get("create").await.unwrap();
        let text = serde_json::to_string(&pod.status).unwrap();
        text.contains("CreateContainerError").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failed_start_is_told_without_the_runtimes_ids() {
    let world = World::started().await;
    world.runtime.behave("img:1", Behaviour { start_error: Some("no such file".into()), ..Behaviour::default() });
    world.create("web", json!({"containers": [{"name": "main", "image": "img:1"}]})).await;
    let told = event(&world, "Failed", "no such file").await;
    assert_eq!(told.message.as_deref(), Some("Error: start container main: no such file"));
    world.runtime.fail_sandboxes(Some("open /run/0123456789abcdef0123456789abcdef/shm: no room"));
    world.create("small", json!({})).await;
    let told = event(&world, "FailedCreatePodSandBox", "no room").await;
    assert_eq!(told.message.as_deref(), Some("create sandbox of pod small: open /run/ID/shm: no room"));
}

#[tokio::test]
async fn nothing_starts_that_would_get_another_signal_than_its_own() {
    let world = World::started().await;
    world.runtime.behave("deaf:1", Behaviour { without_stop_signal: true, ..Behaviour::default() });
    let container = |image: &str| json!([{"name": "main", "image": image, "lifecycle": {"stopSignal": "SIGUSR1"}}]);
    let spec = |image: &str| json!({"os": {"name": "linux"}, "containers": container(image)});
    // As long as it is not known it is not started either, though the container is there.
    world.runtime.fail_container_status(Some("it is away"));
    world.create("deaf", spec("deaf:1")).await;
    event(&world, "Failed", "it is away").await;
    world.pod("deaf", "failing", |pod| waiting(pod) == "RunContainerError").await;
    assert_eq!((world.started_calls(), world.runtime.list_containers().await.unwrap().len()), (0, 1));
    world.runtime.fail_container_status(None);
    event(&world, "Failed", "stopSignal: this node's runtime takes no notice of it").await;
    assert_eq!(world.started_calls(), 0);
    world.create("hears", spec("img:1")).await;
    world.ready("hears").await;
}

#[tokio::test]
async fn a_deleted_pod_leaves_nothing() {
    let world = World::started().await;
    world
        .create(
            "web",
            json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "main", "image": "img:1",
        "volumeMounts": [{"name": "v", "mountPath": "/v"}], "lifecycle": {"preStop": {"exec": {"command": ["true"]}}}}]}),
        )
        .await;
    let pod = world.ready("web").await;
    let uid = pod.metadata.uid.unwrap();
    let volumes = world.dir.path().join("pods").join(&uid);
    let record = world.dir.path().join(format!("agent/pods/{uid}.json"));
    assert!(volumes.join("volumes/v").is_dir() && record.is_file());
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.gone("web").await;
    until("the last of it to go", async || {
        let left = volumes.exists() || record.exists() || !world.sandboxes().await.is_empty();
        (!left).then_some(())
    })
    .await;
    let calls = world.runtime.calls();
    let at = |call: &str| calls.iter().position(|known| known.starts_with(call)).unwrap();
    assert!(at("exec_sync") < at("stop_container"), "preStop comes first");
    assert!(at("stop_container") < at("stop_pod_sandbox") && at("stop_pod_sandbox") < at("remove_pod_sandbox"));
}

#[tokio::test]
async fn pods_outlive_the_agent() {
    let mut world = World::started().await;
    let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    world.create("web", json!({"containers": [{"name": "main", "image": "img:1", "readinessProbe": probe}]})).await;
    let before = world.ready("web").await;
    world.stop().await;
    let started = world.started_calls();
    world.start();
    world.create("other", json!({})).await;
    world.ready("other").await;
    world.kill().await;
    world.start();
    world.create("third", json!({})).await;
    world.ready("third").await;
    let after = world.ready("web").await;
    assert_eq!(container_id(&after), container_id(&before));
    assert_eq!(restarts(&after), 0);
    assert_eq!(world.started_calls(), started + 2, "only the new pods were started");
    let since = |pod: &Pod| {
        let conditions = pod.status.clone().unwrap().conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().last_transition_time
    };
    assert_eq!(since(&after), since(&before), "it was ready all the time");
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "and nothing else was said of it meanwhile");
}

#[tokio::test]
async fn while_the_server_is_away_pods_go_on() {
    let mut world = World::started().await;
    world.create("web", json!({})).await;
    world.create("doomed", json!({})).await;
    world.ready("web").await;
    world.ready("doomed").await;
    world.cut();
    // Deleted behind the agent's back, for good.
    world.pods().delete("doomed", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.gone("doomed").await;
    // A new start of the agent without the server: it knows its pods, and restarts by policy.
    world.kill().await;
    world.start();
    let started = world.started_calls();
    until("web's container", async || world.runtime.end("main", 1).then_some(())).await;
    until("the restart", async || (world.started_calls() == started + 1).then_some(())).await;
    assert_eq!(world.sandboxes().await, ["doomed", "web"], "nothing is deleted");
    // A pod that was bound here meanwhile starts only when the lost one has stopped.
    let created = world.create("fresh", json!({})).await;
    assert_eq!(phase(&created), "Pending");
    world.heal();
    world.ready("fresh").await;
    let calls = world.runtime.calls();
    let run = calls.iter().rposition(|call| call == "run_pod_sandbox fresh").unwrap();
    let stop = calls.iter().position(|call| call.starts_with("stop_container")).unwrap();
    assert!(stop < run, "the lost pod is stopped first: {calls:?}");
    until("the lost pod to go", async || (world.sandboxes().await == ["fresh", "web"]).then_some(())).await;
    let pod = world.ready("web").await;
    assert_eq!(world.started_calls(), started + 2);
    assert!(restarts(&pod) <= 1);
}

#[tokio::test]
async fn probes_decide_over_readiness_and_life() {
    let world = World::started().await;
    let answer = |code| Ok(ExecOutput { exit_code: code, ..ExecOutput::default() });
    world.runtime.answer_exec("main", &["ready"], answer(1));
    world.runtime.answer_exec("main", &["live"], answer(0));
    let probe = |command: &str| json!({"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": 1});
    world
        .create(
            "web",
            json!({"containers": [{"name": "main", "image": "img:1", "readinessProbe": probe("ready"), "livenessProbe": probe("live")}]}),
        )
        .await;
    world.pod("web", "running and not ready", |pod| phase(pod) == "Running" && condition(pod, "Ready") == "False").await;
    world.runtime.answer_exec("main", &["ready"], answer(0));
    world.ready("web").await;
    world.runtime.answer_exec("main", &["live"], answer(1));
    world.pod("web", "restarted", |pod| restarts(pod) == 1).await;
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    until("the event", async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.items.into_iter().find(|event| event.reason.as_deref() == Some("Unhealthy"))
    })
    .await;
}

#[tokio::test]
async fn a_mounted_configmap_is_updated_in_place() {
    let world = World::started().await;
    let maps: Api<ConfigMap> = Api::namespaced(world.admin.clone(), "default");
    let map = |text: &str| serde_json::from_value::<ConfigMap>(json!({"metadata": {"name": "conf"}, "data": {"key": text}})).unwrap();
    maps.create(&PostParams::default(), &map("old")).await.unwrap();
    let pod = world
        .create(
            "web",
            json!({"volumes": [{"name": "v", "configMap": {"name": "conf"}}], "containers": [{"name": "main", "image": "img:1",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "env": [{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "key"}}}]}]}),
        )
        .await;
    world.ready("web").await;
    let file = world.dir.path().join("pods").join(pod.metadata.uid.unwrap()).join("volumes/v/key");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    let config = world.runtime.configs().into_values().next().unwrap();
    assert!(config.envs.contains(&("KEY".to_owned(), "old".to_owned())));
    maps.patch("conf", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "new"}}))).await.unwrap();
    until("the new text", async || (std::fs::read_to_string(&file).unwrap() == "new").then_some(())).await;
    assert_eq!(world.started_calls(), 1, "no restart for that");
}

#[tokio::test]
async fn a_new_image_restarts_the_container() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    world.ready("web").await;
    let patch = json!({"spec": {"containers": [{"name": "main", "image": "img:2"}]}});
    world.pods().patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    let pod =
        world.pod("web", "on the new image", |pod| main_status(pod).is_some_and(|status| status.image == "img:2" && status.ready)).await;
    assert_eq!(restarts(&pod), 1);
}

/// Waits for an event of a pod.
async fn told(world: &World, reason: &str, message: &str) {
    let events: Api<Event> = Api::namespaced(world.admin.clone(), "default");
    until(&format!("the event {reason}: {message}"), async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.items.into_iter().find(|event| event.reason.as_deref() == Some(reason) && event.message.as_deref() == Some(message))
    })
    .await;
}

#[tokio::test]
async fn where_an_image_comes_from_is_told() {
    let world = World::started().await;
    world.images.add("docker.io/library/here:1");
    let never = |image: &str| json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": "Never"}]});
    world.create("here", never("docker.io/library/here:1")).await;
    told(&world, "Pulled", "Container image \"docker.io/library/here:1\" already present on machine").await;
    world.create("missing", never("docker.io/library/missing:1")).await;
    told(&world, "ErrImageNeverPull", "Container image \"docker.io/library/missing:1\" is not present with pull policy of Never").await;
}

#[tokio::test]
async fn a_dead_sandbox_is_replaced() {
    let world = World::started().await;
    let pod = world.create("web", json!({})).await;
    let before = world.ready("web").await;
    world.runtime.break_sandbox(&pod.metadata.uid.unwrap());
    let after = world.pod("web", "up again", |pod| restarts(pod) == 1 && condition(pod, "Ready") == "True").await;
    assert_ne!(container_id(&after), container_id(&before));
    told(&world, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.").await;
    let slices: Api<EndpointSlice> = Api::namespaced(world.admin.clone(), "default");
    assert!(slices.list(&ListParams::default()).await.is_ok());
}

#[tokio::test]
async fn commands_run_in_containers() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    world.ready("web").await;
    let pods = world.pods();
    let mut echo = pods.exec("web", ["echo", "hi there"], &AttachParams::default().stderr(false)).await.unwrap();
    let mut said = String::new();
    echo.stdout().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hi there\n");
    let status = echo.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));

    let mut failing = pods.exec("web", ["sh", "-c", "exit 7"], &AttachParams::default()).await.unwrap();
    let status = failing.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert_eq!(status.details.unwrap().causes.unwrap()[0].message.as_deref(), Some("7"));

    let mut cat = pods.exec("web", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await.unwrap();
    let mut input = cat.stdin().unwrap();
    input.write_all(b"to and fro").await.unwrap();
    let mut back = vec![0; 10];
    cat.stdout().unwrap().read_exact(&mut back).await.unwrap();
    assert_eq!(back, b"to and fro");
    assert!(pods.exec("web", ["x"], &AttachParams::default().container("nope")).await.is_err());
}

#[tokio::test]
async fn ports_are_forwarded() {
    let world = World::started().await;
    world.create("web", json!({})).await;
    world.ready("web").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let mut forward = world.pods().portforward("web", &[port]).await.unwrap();
    let mut stream = forward.take_stream(port).unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

async fn event(world: &World, reason: &str, part: &str) -> Event {
    let events: Api<Event> = Api::all(world.admin.clone());
    until(&format!("the event {reason}"), async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        let meant =
            |event: &Event| event.reason.as_deref() == Some(reason) && event.message.as_ref().is_some_and(|text| text.contains(part));
        all.items.into_iter().find(meant)
    })
    .await
}
