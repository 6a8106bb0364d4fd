//! How things end: namespaces, owners, finished jobs, and nodes that fall silent.

use jiff::ToSpan;
use k8s_openapi::api::core::v1::{Namespace, Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::settle::{rest, settle};
use super::tests::{cluster, controllers, deployment, edit, job, key, object, start, write};
use super::world::World;
use crate::control::node_health::plan::{NOT_READY, OUT_OF_SERVICE, UNREACHABLE};
use crate::control::{self, Options};
use crate::model::custom::Definitions;
use crate::model::{Key, Kind, Object, Source, SourceSpec, Timestamp, pod};
use crate::plan::Controller;
use crate::schedule::Scheduler;
use crate::simulate::kubelet::Kubelet;
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{CommitError, Precondition, Transaction, Write};
use crate::sync::look::{Look, Memory, decide};
use crate::sync::source::Tree;

fn at(seconds: i64) -> Timestamp {
    start().checked_add(seconds.seconds()).expect("a time")
}

fn config(name: &str) -> Object {
    object(Kind::ConfigMap, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "web"}}))
}

fn delete(key: Key) -> Write {
    Write::Delete { key, precondition: Precondition::exists(), grace_seconds: None }
}

fn namespace(name: &str) -> Key {
    Key::cluster(Kind::Namespace, name)
}

fn in_web(state: &Snapshot) -> Vec<String> {
    state.iter().filter(|object| object.key().namespace == "web").map(|object| object.key().to_string()).collect()
}

fn settled(state: Snapshot) -> Snapshot {
    let settled = settle(state, &controllers(), start());
    assert!(!settled.stuck && settled.refused.is_empty(), "{:?}", settled.refused);
    settled.state
}

/// Every state on the way to rest, with ideal nodes.
fn every_step(state: Snapshot, mut look: impl FnMut(&Snapshot)) -> Snapshot {
    let mut all = controllers();
    all.push(std::sync::Arc::new(Kubelet));
    let mut world = World::new(state, &all, start());
    while let Some(at) = world.busy().first().copied() {
        let key = world.pop(at).expect("busy");
        if world.step(at, &key) {
            look(&world.state);
        }
    }
    world.state
}

#[test]
fn a_namespace_goes_after_everything_in_it() {
    let state = settled(cluster(2, vec![deployment("nginx", 3, "nginx:1", json!({})), config("conf")]));
    let state = write(&state, vec![delete(namespace("web"))]);
    let phase = state.get(&namespace("web")).and_then(|it| it.get::<Namespace>()?.status.as_ref()?.phase.clone());
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let after = every_step(state, |state| {
        let (there, content) = (state.get(&namespace("web")).is_some(), in_web(state));
        assert!(there || content.is_empty(), "the namespace is gone and left {content:?}");
    });
    assert!(after.get(&namespace("web")).is_none());
    assert_eq!(in_web(&after), Vec::<String>::new());
    assert!(after.get(&namespace("default")).is_some());
}

#[test]
fn a_namespace_that_is_going_takes_nothing_new() {
    let state = write(&cluster(1, vec![config("conf")]), vec![delete(namespace("web"))]);
    let mut world = World::new(state, &[], start());
    let refused = world.commit(Transaction::new("admin").with(Write::Create(config("late"))));
    let Err(CommitError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.to_string().contains("because it is being terminated"), "{why}");
    // What is there can still be changed: a finalizer's owner has to be able to finish.
    let found = world.state.get(&key(Kind::ConfigMap, "conf")).expect("stored").clone();
    let labelled = found.edit_meta(|meta| meta.labels = Some([("a".to_owned(), "b".to_owned())].into()));
    world.commit(Transaction::new("admin").with(Write::Update(labelled, Precondition::exists()))).expect("a change");
}

#[test]
fn a_finalizer_holds_a_namespace_and_is_named() {
    let held = config("held").edit_meta(|meta| meta.finalizers = Some(vec!["example.org/backup".to_owned()]));
    let state = cluster(1, vec![held, config("free")]);
    let waiting = settle(write(&state, vec![delete(namespace("web"))]), &controllers(), start());
    assert_eq!(in_web(&waiting.state), ["ConfigMap web/held"]);
    let waits: Vec<String> = waiting.waits.iter().map(|wait| format!("{}: {}", wait.subject, wait.reason)).collect();
    assert_eq!(waits, ["Namespace web: NamespaceContentRemaining: still holds 1 configmaps"]);
    let held = waiting.state.get(&key(Kind::ConfigMap, "held")).expect("held").clone();
    let freed = held.edit_meta(|meta| meta.finalizers = None);
    let after = settled(write(&waiting.state, vec![Write::Update(freed, Precondition::exists())]));
    assert!(after.get(&namespace("web")).is_none() && in_web(&after).is_empty());
}

#[test]
fn in_a_foreground_deletion_the_owner_goes_last() {
    let state = settled(cluster(2, vec![deployment("nginx", 3, "nginx:1", json!({}))]));
    let found = state.get(&key(Kind::Deployment, "nginx")).expect("stored").clone();
    let held = found.edit_meta(|meta| meta.finalizers = Some(vec!["foregroundDeletion".to_owned()]));
    let state = write(&state, vec![Write::Update(held, Precondition::exists())]);
    let state = write(&state, vec![delete(key(Kind::Deployment, "nginx"))]);
    let after = every_step(state, |state| {
        let count = |kind| state.list(kind).count();
        let (owners, sets, pods) = (count(Kind::Deployment), count(Kind::ReplicaSet), count(Kind::Pod));
        assert!(sets > 0 || pods == 0, "{pods} pods outlive their ReplicaSet");
        assert!(owners > 0 || sets == 0, "{sets} sets outlive their Deployment");
        assert!(pods <= 3, "a new pod while its owner goes");
    });
    assert_eq!(after.list(Kind::Deployment).count() + after.list(Kind::ReplicaSet).count() + after.list(Kind::Pod).count(), 0);
}

#[test]
fn an_orphaning_deletion_leaves_the_pods_running() {
    let state = settled(cluster(2, vec![deployment("nginx", 3, "nginx:1", json!({}))]));
    let uids = |state: &Snapshot| state.list(Kind::Pod).map(|pod| pod.uid().to_owned()).collect::<Vec<_>>();
    let found = state.get(&key(Kind::Deployment, "nginx")).expect("stored").clone();
    let held = found.edit_meta(|meta| meta.finalizers = Some(vec!["orphan".to_owned()]));
    let before = uids(&state);
    let state = write(&state, vec![Write::Update(held, Precondition::exists())]);
    let after = every_step(write(&state, vec![delete(key(Kind::Deployment, "nginx"))]), |state| {
        assert_eq!(uids(state), before, "no pod may stop on the way");
    });
    assert!(after.get(&key(Kind::Deployment, "nginx")).is_none());
    assert!(after.list(Kind::ReplicaSet).count() == 1 && after.list(Kind::ReplicaSet).all(|set| set.controller().is_none()));
}

#[test]
fn a_finished_job_goes_when_its_time_is_over() {
    let lasting = json!({"completions": 1, "parallelism": 1, "backoffLimit": 0, "ttlSecondsAfterFinished": 60});
    let state = settled(cluster(1, vec![job("sum", lasting), job("kept", json!({"completions": 1, "parallelism": 1}))]));
    let done: Vec<Write> = state
        .list(Kind::Pod)
        .filter_map(|it| {
            it.edit(|it: &mut k8s_openapi::api::core::v1::Pod| it.status.get_or_insert_default().phase = Some("Succeeded".to_owned()))
        })
        .map(|it| Write::UpdateStatus(it, Precondition::exists()))
        .collect();
    let finished = settle(write(&state, done), &controllers(), start());
    assert_eq!(finished.state.list(Kind::Job).count(), 2);
    let early = settle(finished.state.clone(), &controllers(), at(59));
    assert_eq!(early.state.list(Kind::Job).count(), 2);
    let late = settle(finished.state, &controllers(), at(60)).state;
    let left: Vec<String> = late.list(Kind::Job).chain(late.list(Kind::Pod)).map(|it| it.key().name.clone()).collect();
    assert!(late.list(Kind::Job).count() == 1 && left.iter().all(|name| name.starts_with("kept")), "{left:?}");
}

/// A cluster whose nodes renew their leases, or fall silent, while time passes.
struct Hours {
    world: World,
}

impl Hours {
    fn new(nodes: usize, objects: Vec<Object>) -> Self {
        Self::started(settled(cluster(nodes, objects)), start())
    }

    /// A server that starts at this time on what is stored.
    fn started(state: Snapshot, now: Timestamp) -> Self {
        let mut all = control::all(Options::new(now));
        all.push(std::sync::Arc::new(Scheduler::new()) as std::sync::Arc<dyn Controller>);
        Self { world: World::new(state, &all, now) }
    }

    /// Second by second; the nodes named renew, and those pods run that they have.
    fn pass(&mut self, from: i64, to: i64, alive: &[&str]) {
        for second in from..=to {
            self.world.now = at(second);
            alive.iter().for_each(|name| self.renew(name));
            self.world.advance_to(at(second));
            assert!(rest(&mut self.world), "no rest");
            self.run_pods(alive);
            assert!(rest(&mut self.world), "no rest");
        }
    }

    fn renew(&mut self, name: &str) {
        let value = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"renewTime": format!("{:.6}", self.world.now), "holderIdentity": name, "leaseDurationSeconds": 40}});
        let lease = object(Kind::Lease, value);
        let known = self.world.state.get(lease.key()).is_some();
        let lease = if known { Write::Update(lease, Precondition::exists()) } else { Write::Create(lease) };
        self.write(lease);
        let found = self.world.state.get(&Key::cluster(Kind::Node, name)).expect("a node").clone();
        let healthy = found.edit(|node: &mut Node| {
            let conditions = node.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
            conditions.for_each(|condition| condition.status = "True".to_owned());
        });
        if let Some(healthy) = healthy.filter(|healthy| *healthy != found) {
            self.write(Write::UpdateStatus(healthy, Precondition::exists()));
        }
    }

    fn run_pods(&mut self, alive: &[&str]) {
        for name in alive {
            for found in self.world.state.pods_on(name).cloned().collect::<Vec<_>>() {
                let plan = Kubelet.plan(&self.world.state, found.key(), self.world.now);
                plan.ops.iter().for_each(|op| self.write(op.write()));
            }
        }
    }

    fn write(&mut self, write: Write) {
        self.world.commit(Transaction::new("admin").with(write)).expect("a write");
    }

    fn taints(&self, node: &str) -> Vec<(String, String)> {
        let node = self.world.state.get(&Key::cluster(Kind::Node, node)).and_then(|it| it.get::<Node>()).expect("a node");
        node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).map(|it| (it.key.clone(), it.effect.clone())).collect()
    }

    fn ready(&self, node: &str) -> String {
        let node = self.world.state.get(&Key::cluster(Kind::Node, node)).and_then(|it| it.get::<Node>()).expect("a node");
        let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.find(|condition| condition.type_ == "Ready").map(|condition| condition.status.clone()).expect("a condition")
    }

    /// Names of the pods on a node that nobody has told to go.
    fn pods(&self, node: &str) -> Vec<String> {
        self.world.state.pods_on(node).filter(|pod| !pod.is_deleting()).map(|pod| pod.key().name.clone()).collect()
    }
}

fn tolerant(name: &str, toleration: serde_json::Value) -> Object {
    deployment(name, 1, "app:1", json!({}))
        .edit(|it: &mut k8s_openapi::api::apps::v1::Deployment| {
            let spec = it.spec.template.spec.as_mut().expect("a spec");
            spec.node_selector = Some([("kubernetes.io/hostname".to_owned(), "n0".to_owned())].into());
            spec.tolerations = Some(vec![serde_json::from_value(toleration).expect("a toleration")]);
        })
        .expect("a deployment")
}

fn labelled(state: &Snapshot) -> Snapshot {
    let mut state = state.clone();
    for found in state.list(Kind::Node).cloned().collect::<Vec<_>>() {
        let name = found.key().name.clone();
        state.insert(found.edit_meta(|meta| meta.labels = Some([("kubernetes.io/hostname".to_owned(), name)].into())));
    }
    state
}

#[test]
fn a_silent_node_is_tainted_after_the_grace_and_emptied_after_the_tolerated_time() {
    let mut hours = Hours::new(3, vec![deployment("web", 6, "web:1", json!({}))]);
    hours.pass(0, 10, &["n0", "n1", "n2"]);
    let there = hours.pods("n0");
    assert_eq!(there.len(), 2);
    // Last heard of at second 10.
    hours.pass(11, 49, &["n1", "n2"]);
    assert_eq!((hours.ready("n0").as_str(), hours.taints("n0")), ("True", vec![]));
    hours.pass(50, 50, &["n1", "n2"]);
    let unreachable = |effect: &str| (UNREACHABLE.to_owned(), effect.to_owned());
    assert_eq!(hours.ready("n0"), "Unknown");
    assert_eq!(hours.taints("n0"), [unreachable("NoSchedule"), unreachable("NoExecute")]);
    let is_ready = |pod: &Object| pod.get().is_some_and(pod::is_ready);
    assert!(!hours.world.state.pods_on("n0").any(is_ready), "its pods leave their Services at once");
    // Kubernetes' default toleration: 300 s from the taint on.
    hours.pass(51, 349, &["n1", "n2"]);
    assert_eq!(hours.pods("n0"), there);
    hours.pass(350, 350, &["n1", "n2"]);
    assert_eq!(hours.pods("n0"), Vec::<String>::new());
    assert_eq!(hours.pods("n1").len() + hours.pods("n2").len(), 6, "they are replaced elsewhere");
    // Back again: the taints go, and what was replaced stays replaced.
    hours.pass(351, 352, &["n0", "n1", "n2"]);
    assert_eq!((hours.ready("n0").as_str(), hours.taints("n0")), ("True", vec![]));
    assert_eq!(hours.world.state.list(Kind::Pod).count(), 6);
}

#[test]
fn a_pod_stays_as_long_as_it_tolerates_the_taint() {
    let short = tolerant("short", json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}));
    let ever = tolerant("ever", json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}));
    let state = settled(labelled(&cluster(3, vec![short, ever])));
    let mut hours = Hours::started(state, start());
    hours.pass(0, 0, &["n0", "n1", "n2"]);
    hours.pass(1, 59, &["n1", "n2"]);
    assert_eq!(hours.pods("n0").len(), 2);
    hours.pass(60, 60, &["n1", "n2"]);
    assert!(hours.pods("n0").iter().all(|name| name.starts_with("ever")) && hours.pods("n0").len() == 1, "{:?}", hours.pods("n0"));
    hours.pass(61, 700, &["n1", "n2"]);
    assert_eq!(hours.pods("n0").len(), 1);
}

#[test]
fn a_taint_that_somebody_puts_on_a_node_sends_its_pods_away() {
    let tolerated =
        |seconds: serde_json::Value| json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": "web"},
        "spec": {"nodeName": "n0", "containers": [{"name": "c", "image": "bare:1"}]}});
    let objects = vec![
        tolerant("short", tolerated(json!(20))),
        tolerant("ever", tolerated(json!(null))),
        deployment("web", 3, "web:1", json!({})),
        object(Kind::Pod, bare),
    ];
    let mut hours = Hours::started(settled(labelled(&cluster(3, objects))), start());
    let nodes = ["n0", "n1", "n2"];
    hours.pass(0, 4, &nodes);
    let of = |hours: &Hours, app: &str| hours.pods("n0").into_iter().filter(|name| name.starts_with(app)).collect::<Vec<_>>();
    let (short, ever) = (of(&hours, "short"), of(&hours, "ever"));
    assert_eq!((short.len(), ever.len(), of(&hours, "bare").len()), (1, 1, 1));
    let node = hours.world.state.get(&Key::cluster(Kind::Node, "n0")).expect("a node").clone();
    let tainted = node.edit(|node: &mut Node| {
        let taint = Taint { key: "k".to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
        node.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
    });
    hours.write(Write::Update(tainted.expect("a node"), Precondition::exists()));
    hours.pass(5, 24, &nodes);
    assert_eq!((of(&hours, "short"), of(&hours, "ever")), (short.clone(), ever.clone()));
    assert_eq!((of(&hours, "web"), of(&hours, "bare")), (vec![], vec![]), "whoever made them");
    assert_eq!(hours.pods("n1").len() + hours.pods("n2").len(), 3);
    hours.pass(25, 26, &nodes);
    assert!(!of(&hours, "short").contains(&short[0]), "its time is over");
    assert_eq!(of(&hours, "ever"), ever);
}

#[test]
fn when_most_nodes_fall_silent_at_once_nobody_is_evicted() {
    let mut hours = Hours::new(5, vec![deployment("web", 10, "web:1", json!({}))]);
    hours.pass(0, 5, &["n0", "n1", "n2", "n3", "n4"]);
    let before: Vec<String> = hours.world.state.list(Kind::Pod).map(|pod| pod.uid().to_owned()).collect();
    hours.pass(6, 1200, &["n4"]);
    let after: Vec<String> = hours.world.state.list(Kind::Pod).map(|pod| pod.uid().to_owned()).collect();
    assert_eq!(after, before);
    assert!(!hours.world.state.list(Kind::Pod).any(Object::is_deleting));
    assert_eq!(hours.taints("n0"), [(UNREACHABLE.to_owned(), "NoSchedule".to_owned())], "nothing new goes there, nothing leaves");
    assert!(hours.world.waits().iter().any(|wait| wait.reason.code == "MostNodesSilent"), "{:?}", hours.world.waits());
    hours.pass(1201, 1203, &["n0", "n1", "n2", "n3", "n4"]);
    assert!(["n0", "n1", "n2", "n3"].iter().all(|node| hours.taints(node).is_empty()));
}

/// The last ones to go to may be too few, and for one of one there is none at all.
#[test]
fn a_majority_of_few_nodes_is_no_few_silent_nodes() {
    for (nodes, silent, evicted) in [(1, 1, false), (2, 1, true), (2, 2, false), (3, 1, true), (3, 2, false)] {
        let mut hours = Hours::new(nodes, vec![deployment("web", 6, "web:1", json!({}))]);
        let names: Vec<String> = (0..nodes).map(|node| format!("n{node}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        hours.pass(0, 5, &names);
        let before: Vec<String> = hours.world.state.list(Kind::Pod).map(|pod| pod.uid().to_owned()).collect();
        hours.pass(6, 400, &names[silent..]);
        let after: Vec<String> = hours.world.state.list(Kind::Pod).map(|pod| pod.uid().to_owned()).collect();
        assert_eq!(after != before, evicted, "{silent} of {nodes}");
    }
}

#[test]
fn after_a_server_start_every_node_has_a_full_grace_period() {
    let mut hours = Hours::new(3, vec![deployment("web", 6, "web:1", json!({}))]);
    hours.pass(0, 5, &["n0", "n1", "n2"]);
    // The server was down for an hour; n0 comes back at the last moment, n1 too late, n2 at once.
    let mut hours = Hours::started(hours.world.state, at(3600));
    hours.pass(3600, 3639, &["n2"]);
    assert!(["n0", "n1"].iter().all(|node| hours.ready(node) == "True" && hours.taints(node).is_empty()));
    hours.renew("n0");
    hours.pass(3640, 3640, &["n0", "n2"]);
    assert_eq!((hours.ready("n0").as_str(), hours.ready("n1").as_str()), ("True", "Unknown"));
    assert_eq!(hours.pods("n1").len(), 2, "silence before the start counts for nothing");
}

#[test]
fn an_out_of_service_node_gives_up_its_pods_by_force() {
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": "web"},
        "spec": {"nodeName": "n0", "containers": [{"name": "c", "image": "bare:1"}]}});
    let state = settled(cluster(3, vec![deployment("web", 6, "web:1", json!({})), object(Kind::Pod, bare)]));
    let out = |state: &Snapshot| {
        edit(state, &Key::cluster(Kind::Node, "n0"), |node: &mut Node| {
            let taint = Taint {
                key: OUT_OF_SERVICE.to_owned(),
                effect: "NoExecute".to_owned(),
                value: Some("nodeshutdown".to_owned()),
                time_added: None,
            };
            node.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        })
    };
    // A healthy node is not emptied: somebody is mistaken.
    let mistaken = settled(out(&state));
    let there = state.pods_on("n0").count();
    assert!(there > 1 && mistaken.pods_on("n0").count() == there);

    let mut hours = Hours::started(state, start());
    hours.pass(0, 0, &["n0", "n1", "n2"]);
    hours.pass(1, 45, &["n1", "n2"]);
    assert_eq!(hours.pods("n0").len(), there);
    let node = out(&hours.world.state).get(&Key::cluster(Kind::Node, "n0")).expect("a node").clone();
    hours.write(Write::Update(node, Precondition::exists()));
    hours.pass(46, 47, &["n1", "n2"]);
    assert_eq!(hours.world.state.pods_on("n0").count(), 0, "gone without the node's word, the bare one too");
    assert_eq!(hours.pods("n1").len() + hours.pods("n2").len(), 6);
}

#[test]
fn a_node_that_says_it_is_not_ready_gets_nothing_new_and_keeps_what_it_has() {
    let mut hours = Hours::new(3, vec![deployment("web", 6, "web:1", json!({}))]);
    hours.pass(0, 1, &["n0", "n1", "n2"]);
    let node = hours.world.state.get(&Key::cluster(Kind::Node, "n0")).expect("a node").clone();
    let ill = node.edit(|node: &mut Node| {
        let conditions = node.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        conditions.for_each(|condition| {
            condition.status = "False".to_owned();
            condition.last_transition_time = Some(Time(at(1)));
        });
    });
    hours.write(Write::UpdateStatus(ill.expect("a node"), Precondition::exists()));
    assert!(rest(&mut hours.world));
    assert_eq!(hours.taints("n0"), [(NOT_READY.to_owned(), "NoSchedule".to_owned())]);
    assert_eq!(hours.pods("n0").len(), 2);
}

/// A source that has a Node, and its worker.
struct Fleet {
    memory: Memory,
    look: Look,
}

impl Fleet {
    fn new(hours: &mut Hours) -> Self {
        let spec = SourceSpec { directory: Some("/srv".to_owned()), adopt: Some(true), ..SourceSpec::default() };
        hours.write(Write::Create(Object::new(Source::new("fleet", spec))));
        Self { memory: Memory::default(), look: Look::Unread }
    }

    /// What git says of `n0` from now on.
    fn says(&mut self, revision: &str, spec: &str) {
        let text = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: n0, labels: {{of: git}}}}\nspec: {spec}\n");
        let tree = Tree {
            revision: revision.to_owned(),
            files: [("n0.yaml".to_owned(), text.into_bytes())].into(),
            path_exists: true,
            ..Tree::default()
        };
        self.look = Look::of(tree, &SourceSpec::default(), &Definitions::default(), &mut self.memory);
    }

    /// The worker and the controllers until neither has anything to do; how many objects the worker wrote.
    fn go(&mut self, hours: &mut Hours) -> usize {
        let mut ops = 0;
        for round in 0..20 {
            let revision = hours.world.state.revision();
            let mut uid = || format!("fleet-{revision}-{round}");
            let step = decide(&hours.world.state, "fleet", &self.look, None, &mut self.memory, &mut uid, hours.world.now);
            if step.transaction.writes.is_empty() {
                return ops;
            }
            ops += step.ops;
            hours.world.commit(step.transaction).expect("a step");
            assert!(rest(&mut hours.world), "no rest");
        }
        panic!("they write in turns: {ops} times");
    }

    fn pass(&mut self, hours: &mut Hours, from: i64, to: i64, alive: &[&str]) -> usize {
        (from..=to).fold(0, |ops, second| {
            hours.pass(second, second, alive);
            ops + self.go(hours)
        })
    }
}

#[test]
fn a_node_whose_taints_git_says_is_given_up_as_any_other() {
    let mut hours = Hours::new(3, vec![deployment("web", 6, "web:1", json!({}))]);
    hours.pass(0, 0, &["n0", "n1", "n2"]);
    let mut fleet = Fleet::new(&mut hours);
    fleet.says("r1", "{taints: [{key: dedicated, value: db, effect: PreferNoSchedule}]}");
    assert!(fleet.go(&mut hours) > 0);
    let taint = |key: &str, effect: &str| (key.to_owned(), effect.to_owned());
    let own = taint("dedicated", "PreferNoSchedule");
    let lost = [own.clone(), taint(UNREACHABLE, "NoSchedule"), taint(UNREACHABLE, "NoExecute")];
    assert_eq!(hours.taints("n0"), std::slice::from_ref(&own));
    assert_eq!(fleet.pass(&mut hours, 1, 10, &["n0", "n1", "n2"]), 0);
    // Last heard of at second 10.
    assert_eq!(fleet.pass(&mut hours, 11, 349, &["n1", "n2"]), 0, "nothing is put back");
    assert_eq!(hours.taints("n0"), lost);
    assert_eq!(hours.pods("n0").len(), 2);
    assert_eq!(fleet.pass(&mut hours, 350, 351, &["n1", "n2"]), 0);
    assert_eq!(hours.pods("n0"), Vec::<String>::new(), "as long after the taint as without git");
    // What git says is put back, beside what the cluster says.
    let found = hours.world.state.get(&Key::cluster(Kind::Node, "n0")).expect("a node").clone();
    let since = |hours: &Hours| {
        let node = hours.world.state.get(&Key::cluster(Kind::Node, "n0")).and_then(|it| it.get::<Node>()).expect("a node").clone();
        let mut taints = node.spec.into_iter().flat_map(|spec| spec.taints.unwrap_or_default());
        taints.find(|taint| taint.key == UNREACHABLE && taint.effect == "NoExecute").and_then(|taint| taint.time_added)
    };
    let before = since(&hours);
    let without = found.edit(|node: &mut Node| {
        let taints = node.spec.as_mut().and_then(|spec| spec.taints.as_mut()).expect("taints");
        taints.retain(|taint| taint.key != "dedicated");
    });
    hours.write(Write::Update(without.expect("a node"), Precondition::exists()));
    assert_eq!(fleet.go(&mut hours), 1);
    assert_eq!(hours.taints("n0"), lost);
    // What git no longer says goes, and nothing else of the list.
    fleet.says("r2", "{}");
    fleet.go(&mut hours);
    assert_eq!(hours.taints("n0"), lost[1..]);
    assert_eq!(since(&hours), before);
    // Back again, with what an export of the lost node has.
    fleet.says("r3", "{taints: [{key: node.kubernetes.io/unreachable, effect: NoSchedule}, {key: dedicated, effect: NoSchedule}]}");
    fleet.go(&mut hours);
    fleet.pass(&mut hours, 352, 360, &["n0", "n1", "n2"]);
    assert_eq!((hours.ready("n0").as_str(), hours.taints("n0")), ("True", vec![taint("dedicated", "NoSchedule")]));
    assert_eq!(fleet.pass(&mut hours, 361, 370, &["n0", "n1", "n2"]), 0);
    let source = hours.world.state.get(&Key::cluster(Kind::Source, "fleet")).and_then(|it| it.get::<Source>()).expect("the source").clone();
    let skipped = source.status.unwrap_or_default().skipped;
    assert_eq!(skipped, ["Node n0: its taints node.kubernetes.io/* and node.cloudprovider.kubernetes.io/* are the cluster's to say"]);
    // Git says nothing more of its taints.
    fleet.says("r4", "{}");
    fleet.go(&mut hours);
    assert_eq!(hours.taints("n0"), []);
}
