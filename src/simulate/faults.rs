//! Random clusters under random faults, by seed: stale views, lost writes, crashing pods, dying
//! nodes, people who change things. In the end everything comes to rest where it should.
//!
//! Wide storms have guests among the workloads: volumes (`storage`) and custom kinds (`custom`).

mod custom;
mod storage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::ToSpan;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use super::kubelet;
use super::tests::{cluster, controllers, deployment, job, key, object, replan_to_nothing, replans_to_nothing, start};
use super::world::World;
use crate::control::deployment::rolling::resolve;
use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::{Op, Plan, woken};
use crate::store::snapshot::{Change, Snapshot};
use crate::store::transaction::{Precondition, Transaction, Write};

/// SplitMix64: one seed, one run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

struct Chaos {
    world: World,
    dice: Dice,
    /// Recent states, for views that lag.
    recent: VecDeque<Snapshot>,
    dead: BTreeSet<String>,
    seed: u64,
    /// There are volumes and custom kinds too.
    is_wide: bool,
}

const DEPLOYMENTS: usize = 2;

impl Chaos {
    fn new(seed: u64, is_wide: bool) -> Self {
        let mut dice = Dice(seed);
        let mut objects = Vec::new();
        for index in 0..DEPLOYMENTS {
            let strategy = match dice.below(4) {
                0 => json!({"type": "Recreate"}),
                1 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
                2 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}),
                _ => json!({}),
            };
            objects.push(deployment(&format!("d{index}"), dice.below(6) as i32, "app:0", strategy));
        }
        objects.push(job("j", json!({"completions": 3, "parallelism": 2, "backoffLimit": 3})));
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "web"},
            "spec": {"selector": {"app": "d0"}, "ports": [{"port": 80, "protocol": "TCP"}]}});
        objects.push(object(Kind::Service, service));
        let nodes = 3 + dice.below(3);
        let world = World::new(cluster(nodes, objects), &controllers(), start());
        let mut chaos = Self { world, dice, recent: VecDeque::new(), dead: BTreeSet::new(), seed, is_wide };
        chaos.renew();
        if is_wide {
            // A namespace has its account before it can have pods.
            assert!(super::settle::rest(&mut chaos.world), "seed {seed}: comes to rest");
            chaos.has_storage();
            chaos.has_custom_kinds();
        }
        chaos
    }

    fn write(&mut self, write: Write) {
        let before = self.world.state.clone();
        // People and nodes may be refused too: then nothing happens.
        let _ = self.world.commit(Transaction::new("admin").with(write));
        self.nobody_sleeps_on(&before);
    }

    /// It is made where it is not there, and where it is sometimes deleted.
    fn comes_or_goes(&mut self, object: Object) {
        let goes = self.dice.percent(50);
        match self.world.state.get(object.key()) {
            Some(_) if !goes => {}
            Some(_) => self.is_asked_to_go(object.key()),
            None => self.write(Write::Create(object)),
        }
    }

    fn is_asked_to_go(&mut self, key: &Key) {
        self.write(Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds: None });
    }

    fn is_edited(&mut self, key: &Key, change: impl FnOnce(Object) -> Object) {
        let Some(found) = self.world.state.get(key).cloned() else { return };
        let after = change(found.clone());
        if after != found {
            self.write(Write::Update(after, Precondition::exists()));
        }
    }

    /// Every living node renews its lease and says that it is ready.
    fn renew(&mut self) {
        let nodes: Vec<Object> = self.world.state.list(Kind::Node).cloned().collect();
        let alive: Vec<Object> = nodes.into_iter().filter(|node| !self.dead.contains(&node.key().name)).collect();
        for found in alive {
            let name = found.key().name.clone();
            let value = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {"renewTime": format!("{:.6}", self.world.now), "holderIdentity": name, "leaseDurationSeconds": 40}});
            let lease = object(Kind::Lease, value);
            let write = match self.world.state.get(lease.key()) {
                Some(_) => Write::Update(lease, Precondition::exists()),
                None => Write::Create(lease),
            };
            self.write(write);
            let healthy = found.edit(|node: &mut Node| {
                for condition in node.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten()) {
                    condition.status = "True".to_owned();
                    condition.reason = Some("KubeletReady".to_owned());
                }
            });
            if let Some(healthy) = healthy.filter(|healthy| *healthy != found) {
                self.write(Write::UpdateStatus(healthy, Precondition::exists()));
            }
        }
    }

    /// One controller takes one key, perhaps with an old view, perhaps in vain.
    fn control(&mut self) {
        let busy = self.world.busy();
        let Some(at) = busy.get(self.dice.below(busy.len())).copied() else { return };
        let index = self.dice.below(8);
        let Some(key) = self.world.pop_nth(at, index) else { return };
        let fresh = self.world.state.clone();
        let stale = self.dice.percent(15) && !self.recent.is_empty();
        let view = if stale { self.recent[self.dice.below(self.recent.len())].clone() } else { fresh.clone() };
        let plan = self.world.plan(at, &key, &view);
        assert_eq!(plan.violations(&view), Vec::<String>::new(), "seed {}: {} for {key}", self.seed, self.world.controller(at).name());
        self.check(at, &view, &plan);
        if self.dice.percent(5) {
            self.world.push(at, key); // lost on the way
            return;
        }
        self.world.carry_out(at, &key, plan);
        self.nobody_sleeps_on(&fresh);
        if stale {
            self.world.push(at, key); // the newer event is still to come
        }
        self.recent.push_back(fresh);
        if self.recent.len() > 6 {
            self.recent.pop_front();
        }
    }

    /// Who was not woken by what has changed since `before` has nothing new to do.
    fn nobody_sleeps_on(&self, before: &Snapshot) {
        let (state, now) = (&self.world.state, self.world.now);
        let change = |key: &Key| Change { before: before.get(key).cloned(), after: state.get(key).cloned() };
        let changes: Vec<Change> = state.differing(before).map(change).collect();
        for controller in (0..self.world.controllers()).map(|at| self.world.controller(at)) {
            let objects = changes.iter().flat_map(|change| change.before.iter().chain(&change.after));
            let mut asleep: BTreeSet<Key> = objects.flat_map(|object| controller.keys(state, object)).collect();
            for woken in changes.iter().flat_map(|change| woken(controller.as_ref(), state, change)) {
                asleep.remove(&woken);
            }
            for key in asleep {
                let was = controller.plan(before, &key, now);
                // What it had to do before it still has: it is awake since then.
                if was.is_empty() {
                    let is = controller.plan(state, &key, now);
                    let ops: Vec<String> = is.ops.iter().map(Op::to_string).collect();
                    let what = format!("seed {}: {} sleeps on {key}", self.seed, controller.name());
                    assert_eq!((ops, is.waits, is.again_at), (Vec::new(), was.waits, was.again_at), "{what}");
                }
            }
        }
    }

    fn check(&self, at: usize, view: &Snapshot, plan: &Plan) {
        match self.world.controller(at).name() {
            "scheduler" => {
                for op in plan.ops.iter().filter(|op| op.key().kind == Kind::Pod) {
                    let Op::Update { after, .. } = op else { continue };
                    let name = after.get::<Pod>().and_then(pod::node_name).expect("bound");
                    let node = view.get(&Key::cluster(Kind::Node, name)).and_then(|it| it.get::<Node>()).expect("a node");
                    let ready = node
                        .status
                        .iter()
                        .flat_map(|it| it.conditions.iter().flatten())
                        .any(|it| it.type_ == "Ready" && it.status == "True");
                    assert!(ready, "seed {}: {op} onto {name}, which is not ready", self.seed);
                }
            }
            "deployment" => rollout_bounds(self.seed, view, plan),
            _ => {}
        }
    }

    /// One pod takes a step on its node.
    fn node_acts(&mut self, kind: usize) {
        let bound: Vec<Object> = self
            .world
            .state
            .list(Kind::Pod)
            .filter(|it| it.get::<Pod>().and_then(pod::node_name).is_some_and(|node| !self.dead.contains(node)))
            .cloned()
            .collect();
        let Some(found) = bound.get(self.dice.below(bound.len())) else { return };
        self.pod_steps(found, kind);
    }

    fn pod_steps(&mut self, found: &Object, kind: usize) {
        let it = found.get::<Pod>().expect("a pod");
        let node = self.world.state.get(&Key::cluster(Kind::Node, pod::node_name(it).unwrap_or_default())).cloned();
        let Some(node) = node.as_ref().and_then(|node| node.get::<Node>()) else { return };
        if pod::is_deleting(it) {
            if !pod::is_terminal(it) {
                let ended = found.edit(|it: &mut Pod| it.status.get_or_insert_with(Default::default).phase = Some("Failed".to_owned()));
                self.write(Write::UpdateStatus(ended.expect("a pod"), Precondition::seen(found)));
            }
            let precondition = Precondition { uid: Some(found.uid().to_owned()), revision: None };
            return self.write(Write::Delete { key: found.key().clone(), precondition, grace_seconds: Some(0) });
        }
        if pod::is_terminal(it) {
            return;
        }
        let mut status = kubelet::running(found, it, node, self.world.now);
        let is_job = found.controller().is_some_and(|owner| owner.kind == "Job");
        let ready = status.conditions.iter_mut().flatten().find(|condition| condition.type_ == "Ready").expect("made above");
        match kind {
            0 => ready.status = "False".to_owned(), // slow, or crashed
            1 if is_job => status.phase = Some("Failed".to_owned()),
            2 | 3 if is_job => status.phase = Some("Succeeded".to_owned()),
            _ => {}
        }
        if it.status.as_ref() != Some(&status) {
            let after = Object::new(Pod { status: Some(status), ..it.clone() });
            self.write(Write::UpdateStatus(after, Precondition::seen(found)));
        }
    }

    fn person_acts(&mut self) {
        let name = format!("d{}", self.dice.below(DEPLOYMENTS));
        let Some(found) = self.world.state.get(&key(Kind::Deployment, &name)).cloned() else { return };
        let (dice, version) = (self.dice.below(4), self.dice.below(4));
        let after = found.edit(|it: &mut Deployment| match dice {
            0 => it.spec.replicas = Some(version as i32 * 2),
            1 => it.spec.paused = Some(version == 0),
            _ => it.spec.template.spec.as_mut().expect("a spec").containers[0].image = Some(format!("app:{version}")),
        });
        if let Some(after) = after.filter(|after| *after != found) {
            self.write(Write::Update(after, Precondition::exists()));
        }
        if self.dice.percent(30) {
            let pods: Vec<Key> = self.world.state.list(Kind::Pod).map(|it| it.key().clone()).collect();
            if let Some(pod) = pods.get(self.dice.below(pods.len())) {
                self.write(Write::Delete { key: pod.clone(), precondition: Precondition::exists(), grace_seconds: None });
            }
        }
    }

    fn node_dies_or_heals(&mut self) {
        let nodes: Vec<String> = self.world.state.list(Kind::Node).map(|it| it.key().name.clone()).collect();
        let Some(name) = nodes.get(self.dice.below(nodes.len())) else { return };
        if !self.dead.remove(name) {
            self.dead.insert(name.clone());
        }
    }

    fn later(&mut self, seconds: usize) {
        let now = self.world.now.checked_add((seconds as i64).seconds()).expect("a time");
        self.world.now = now;
        self.renew();
        self.world.advance_to(now);
    }

    fn storm(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.dice.below(100) {
                51..55 if self.is_wide => self.custom_kinds_change(),
                55..60 if self.is_wide => self.storage_changes(),
                0..60 => self.control(),
                60..62 if self.is_wide => self.directories_go(),
                60..85 => {
                    let kind = self.dice.below(8);
                    self.node_acts(kind);
                }
                85..90 => self.person_acts(),
                90..92 => self.node_dies_or_heals(),
                _ => {
                    let seconds = 1 + self.dice.below(30);
                    self.later(seconds);
                }
            }
        }
    }

    /// All have done what they could, on the state as it is: nobody who was not woken would do more.
    fn rests(&mut self) {
        assert!(super::settle::rest(&mut self.world), "seed {}: the controllers do not come to rest", self.seed);
        // What it does also depends on whether other nodes are silent: that it looks at by its timer.
        replan_to_nothing(controllers().iter().filter(|it| it.name() != "node-health"), &self.world.state, self.world.now);
    }

    /// The guests leave.
    fn guests_go(&mut self) {
        self.rests();
        self.nobody_holds_guests();
        self.rests();
        self.definitions_come();
        self.rests();
        self.custom_kinds_end();
        self.storage_ends();
    }

    /// The faults end: nodes heal, pods become ready, jobs succeed, time passes.
    fn calm(&mut self) {
        self.dead.clear();
        self.renew();
        for index in 0..DEPLOYMENTS {
            let key = key(Kind::Deployment, &format!("d{index}"));
            let found = self.world.state.get(&key).expect("stored").clone();
            let after = found.edit(|it: &mut Deployment| it.spec.paused = Some(false)).expect("a deployment");
            if after != found {
                self.write(Write::Update(after, Precondition::exists()));
            }
        }
        for _ in 0..400 {
            assert!(super::settle::rest(&mut self.world), "seed {}: the controllers do not come to rest", self.seed);
            let before = self.world.state.revision();
            for pod in self.world.state.list(Kind::Pod).cloned().collect::<Vec<_>>() {
                self.pod_steps(&pod, 2);
            }
            self.directories_go();
            let waits = self.world.next_timer().filter(|at| *at > self.world.now);
            if self.world.state.revision() == before && self.world.busy().is_empty() {
                match waits {
                    // Only leases and long-past deadlines are left.
                    None => return,
                    Some(_) if self.is_done() => return,
                    Some(at) => {
                        self.world.now = at;
                        self.renew();
                        self.world.advance_to(at);
                    }
                }
            }
        }
        panic!("seed {}: no end in sight: {:?}\n{}", self.seed, self.world.waits(), self.picture());
    }

    /// The workloads, for the message of a failure.
    fn picture(&self) -> String {
        let shown = [Kind::Deployment, Kind::ReplicaSet, Kind::Pod, Kind::Job];
        let shown = self.world.state.iter().filter(|object| shown.contains(&object.kind()));
        shown.map(|object| format!("{}\n", String::from_utf8_lossy(&object.json()))).collect()
    }

    fn is_done(&self) -> bool {
        self.world.waits().is_empty()
    }
}

/// (sum of the sets' sizes, pods that stay available at those sizes) of a Deployment.
fn sizes(view: &Snapshot, deployment: &Object, sized: &BTreeMap<Key, i32>, now_created: i32) -> (i32, i32) {
    let (mut total, mut available) = (now_created, 0);
    for set in view.owned_by(deployment.uid()) {
        let replicas = sized.get(set.key()).copied().or(set.get::<ReplicaSet>().and_then(|it| it.spec.replicas)).unwrap_or(1);
        let ready = |it: &&Object| it.get::<Pod>().is_some_and(|it| pod::is_active(it) && pod::is_ready(it));
        let ready = view.owned_by(set.uid()).filter(ready).count() as i32;
        total += replicas;
        available += replicas.min(ready);
    }
    (total, available)
}

/// A step of a rolling update never exceeds the surge nor takes available pods below the least.
fn rollout_bounds(seed: u64, view: &Snapshot, plan: &Plan) {
    let sets = || plan.ops.iter().filter(|op| op.key().kind == Kind::ReplicaSet);
    let Some(owner) = sets().find_map(|op| match op {
        Op::Create(it) | Op::Update { after: it, .. } => it.controller().map(|owner| owner.name.clone()),
        _ => None,
    }) else {
        return;
    };
    let Some(object) = view.get(&key(Kind::Deployment, &owner)) else { return };
    let spec = &object.get::<Deployment>().expect("a deployment").spec;
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|it| it.type_.as_deref()) == Some("Recreate") || object.is_deleting() {
        return;
    }
    let replicas = spec.replicas.unwrap_or(1);
    let wanted = replicas.to_string();
    let resized = view.owned_by(object.uid()).any(|set| {
        let active = set.get::<ReplicaSet>().and_then(|it| it.spec.replicas).unwrap_or(0) > 0;
        active && set.annotation("deployment.kubernetes.io/desired-replicas") != Some(&wanted)
    });
    if resized || spec.paused == Some(true) {
        return; // a person changed the size: shares are recomputed at once
    }
    let rolling = strategy.and_then(|it| it.rolling_update.as_ref());
    let surge = resolve(rolling.and_then(|it| it.max_surge.as_ref()), replicas, true);
    let mut unavailable = resolve(rolling.and_then(|it| it.max_unavailable.as_ref()), replicas, false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    let mut sized = BTreeMap::new();
    let mut created = 0;
    for op in sets() {
        match op {
            Op::Create(it) => created += it.get::<ReplicaSet>().and_then(|it| it.spec.replicas).unwrap_or(0),
            Op::Update { after, .. } => {
                sized.insert(after.key().clone(), after.get::<ReplicaSet>().and_then(|it| it.spec.replicas).unwrap_or(0));
            }
            _ => {}
        }
    }
    let (total_before, available_before) = sizes(view, object, &BTreeMap::new(), 0);
    let (total, available) = sizes(view, object, &sized, created);
    assert!(total <= (replicas + surge).max(total_before), "seed {seed}: {owner} grows to {total} of {replicas}+{surge}");
    let least = replicas - unavailable;
    assert!(available >= least.min(available_before), "seed {seed}: {owner} falls to {available} available of at least {least}");
}

fn run(seed: u64) {
    let mut chaos = Chaos::new(seed, false);
    chaos.storm(250);
    ends_in_order(chaos);
}

fn run_wide(seed: u64) {
    let mut chaos = Chaos::new(seed, true);
    chaos.storm(400);
    chaos.guests_go();
    let chaos = ends_in_order(chaos);
    assert_eq!(chaos.guests_left(), Vec::<String>::new(), "seed {seed}: guests are left");
    for kind in storage::KINDS {
        let left: Vec<String> = chaos.world.state.list(kind).map(|it| it.value().to_string()).collect();
        assert_eq!(left, Vec::<String>::new(), "seed {seed}: storage is left");
    }
}

fn ends_in_order(mut chaos: Chaos) -> Chaos {
    let seed = chaos.seed;
    chaos.calm();
    let (state, now) = (&chaos.world.state, chaos.world.now);
    for index in 0..DEPLOYMENTS {
        let object = state.get(&key(Kind::Deployment, &format!("d{index}"))).expect("stored");
        let it = object.get::<Deployment>().expect("a deployment");
        let wanted = it.spec.replicas.unwrap_or(1);
        let status = it.status.clone().unwrap_or_default();
        let counts = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
        assert_eq!(counts, (wanted, wanted, wanted), "seed {seed}: d{index}");
    }
    let job = state.get(&key(Kind::Job, "j")).and_then(|it| it.get::<k8s_openapi::api::batch::v1::Job>()).expect("stored");
    let end = job.status.as_ref().and_then(crate::control::job::plan::finish).map(|it| it.type_.clone());
    let counted = job.status.as_ref().map(|it| (it.succeeded.unwrap_or(0), it.failed.unwrap_or(0))).unwrap_or_default();
    assert!(end.is_some(), "seed {seed}: the job did not end: {counted:?}");
    let enough = if end.as_deref() == Some("Complete") { counted.0 >= 3 } else { counted.1 > 3 };
    assert!(enough, "seed {seed}: {end:?} with {counted:?}");
    let ready = state.list(Kind::Pod).filter(|it| it.labels().get("app").is_some_and(|app| app == "d0")).count();
    let listed: usize = state
        .list(Kind::EndpointSlice)
        .filter_map(|it| it.get::<k8s_openapi::api::discovery::v1::EndpointSlice>()?.endpoints.as_ref().map(Vec::len))
        .sum();
    assert_eq!(listed, ready, "seed {seed}: endpoints");
    let _: Timestamp = now;
    replans_to_nothing(state, now);
    chaos
}

/// Four tests, so that they run side by side.
#[test]
fn every_storm_ends_in_order() {
    (0..300).for_each(run);
}

#[test]
fn every_storm_ends_in_order_2() {
    (300..600).for_each(run);
}

#[test]
fn every_storm_ends_in_order_3() {
    (600..900).for_each(run);
}

#[test]
fn every_storm_ends_in_order_4() {
    (900..1200).for_each(run);
}

#[test]
fn every_wide_storm_ends_in_order() {
    (0..100).for_each(run_wide);
}

#[test]
fn every_wide_storm_ends_in_order_2() {
    (100..200).for_each(run_wide);
}
