mod custom;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::ToSpan;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::fake::Figures;
use super::pace::Memory;
use super::plan::{Decision, Observed, Times, plan};
use super::{Autoscalers, Measures, observe, run};
use crate::clock::VirtualClock;
use crate::driver::{Next, Reconciler as _, Recorder};
use crate::model::ownership::{self, ManagedFields};
use crate::model::usage::{Amounts, PodUsage};
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Op};
use crate::simulate::settle::settle;
use crate::store::memory::MemoryStore;
use crate::store::snapshot::Snapshot;
use crate::store::transaction::Stamp;
use crate::store::watch::Extent;
use crate::store::{CommitError, Committed, Store, TooOld, Transaction, Watch, Write};

fn start() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a time")
}

fn key() -> Key {
    Key::new(Kind::HorizontalPodAutoscaler, "web", "shop")
}

fn autoscaler(spec: &Value) -> Value {
    let mut whole = json!({"minReplicas": 1, "maxReplicas": 10, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]});
    for (name, value) in spec.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    json!({"metadata": {"name": "shop", "namespace": "web"}, "spec": whole})
}

fn deployment(replicas: i32) -> Value {
    let container = json!({"name": "main", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "100M"}}});
    json!({"metadata": {"name": "shop", "namespace": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "shop"}},
        "template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [container]}}}})
}

/// What a pod does, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Ready for an hour, and uses so many thousandths of a core.
    Uses(u64),
    /// Ready, and nothing is known of it.
    Missing,
    Pending,
    /// Not ready since its start a minute ago, busy with it.
    Starting(u64),
    /// Was ready and is not any more, with its use.
    Unready(u64),
}

fn pod(index: usize, state: State) -> Value {
    let hour_ago = "2026-01-01T11:00:00Z";
    let (phase, ready, started, changed) = match state {
        State::Uses(_) | State::Missing => ("Running", "True", hour_ago, "2026-01-01T11:00:20Z"),
        State::Pending => ("Pending", "False", hour_ago, hour_ago),
        State::Starting(_) => ("Running", "False", "2026-01-01T11:59:00Z", "2026-01-01T11:59:00Z"),
        State::Unready(_) => ("Running", "False", hour_ago, "2026-01-01T11:30:00Z"),
    };
    let container = json!({"name": "main", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "100M"}}});
    json!({"metadata": {"name": format!("shop-{index}"), "namespace": "web", "uid": format!("pod-{index}"), "labels": {"app": "shop"}},
        "spec": {"containers": [container], "nodeName": "n1"},
        "status": {"phase": phase, "startTime": started, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": changed}]}})
}

/// A namespace with a Deployment, its pods and its autoscaler.
struct World {
    state: Snapshot,
    usage: BTreeMap<String, PodUsage>,
    memory: Memory,
    now: Timestamp,
    steady: Timestamp,
}

impl World {
    fn new(replicas: i32, spec: &Value) -> Self {
        let mut state = Snapshot::default();
        let object = |kind, value| Object::from_value(kind, value).expect("of its kind");
        state.insert(object(Kind::Namespace, json!({"metadata": {"name": "web", "uid": "web"}})));
        let mut world = Self { state, usage: BTreeMap::new(), memory: Memory::default(), now: start(), steady: start() };
        for (kind, value) in [(Kind::Deployment, deployment(replicas)), (Kind::HorizontalPodAutoscaler, autoscaler(spec))] {
            world.commit(&Transaction::new("admin").with(Write::Create(object(kind, value))));
        }
        world
    }

    fn with_pods(mut self, pods: &[State]) -> Self {
        self.pods(pods);
        self
    }

    fn pods(&mut self, pods: &[State]) {
        self.usage.clear();
        for (index, state) in pods.iter().enumerate() {
            self.state.insert(Object::from_value(Kind::Pod, pod(index, *state)).expect("a pod"));
            if let State::Uses(cpu) | State::Starting(cpu) | State::Unready(cpu) = *state {
                let amounts = Amounts { cpu_nanos: cpu * 1_000_000, memory_bytes: cpu * 1_000_000 };
                let usage = PodUsage { at: self.now, window: Duration::from_secs(15), containers: [("main".to_owned(), amounts)].into() };
                self.usage.insert(format!("pod-{index}"), usage);
            }
        }
    }

    fn commit(&mut self, transaction: &Transaction) {
        let mut number = self.state.revision();
        let mut uid = || {
            number += 1;
            format!("uid-{number}")
        };
        let mut stamp = Stamp { now: self.now, uid: &mut uid };
        let applied = self.state.apply(transaction, self.state.revision() + 1, &mut stamp).expect("admitted");
        self.state = applied.snapshot;
    }

    fn decide(&self) -> Decision {
        let object = self.state.get(&key()).expect("the autoscaler");
        let target = observe::target(&self.state, object);
        let seen = Observed { state: &self.state, object, target, usage: self.usage.clone(), blocked: None };
        let decision = plan(&seen, &self.memory, Times { now: self.now, steady: self.steady });
        assert_eq!(decision.plan.violations(&self.state), [""; 0]);
        decision
    }

    /// Decides and carries it out.
    fn step(&mut self) -> Decision {
        let decision = self.decide();
        if !decision.plan.is_empty() {
            self.commit(&decision.plan.transaction("controller:test"));
        }
        self.memory = decision.memory.clone();
        decision
    }

    fn later(&mut self, seconds: i64) {
        self.set_clock(seconds);
        self.steady = self.steady.checked_add(seconds.seconds()).expect("a time");
    }

    /// Somebody sets the wall clock; no time passes.
    fn set_clock(&mut self, by_seconds: i64) {
        self.now = self.now.checked_add(by_seconds.seconds()).expect("a time");
    }

    fn replicas(&self) -> i32 {
        let found = self.state.find(Kind::Deployment, "web", "shop").and_then(|it| it.get::<Deployment>()?.spec.replicas);
        found.expect("a size")
    }

    /// `True ReadyForNewScale`, of a condition.
    fn says(&self, type_: &str) -> String {
        let it = self.state.get(&key()).and_then(|object| object.get::<HorizontalPodAutoscaler>()).expect("the autoscaler");
        let status = it.status.clone().unwrap_or_default();
        let found = status.conditions.unwrap_or_default().into_iter().find(|it| it.type_ == type_);
        found.map(|it| format!("{} {}", it.status, it.reason.unwrap_or_default())).unwrap_or_default()
    }

    fn status(&self) -> Value {
        self.state.get(&key()).expect("the autoscaler").value()["status"].clone()
    }
}

fn at_once() -> Value {
    let policies = json!([{"type": "Percent", "value": 1000, "periodSeconds": 15}]);
    json!({"scaleUp": {"policies": policies}, "scaleDown": {"stabilizationWindowSeconds": 0}})
}

#[test]
fn a_size_follows_the_average() {
    use State::{Missing, Pending, Starting, Unready, Uses};
    let cases: &[(&[State], i32)] = &[
        // Half of 100m is wanted of each.
        (&[Uses(50), Uses(50)], 2),
        (&[Uses(100), Uses(100)], 4),
        (&[Uses(10), Uses(10), Uses(10), Uses(10)], 1),
        (&[Uses(0), Uses(0)], 1),
        // Within a tenth nothing is done; beyond it is.
        (&[Uses(55), Uses(55)], 2),
        (&[Uses(45), Uses(45)], 2),
        (&[Uses(56), Uses(56)], 3),
        (&[Uses(500), Uses(500)], 10),
        // A pod that is not known counts as idle where more are called for ...
        (&[Uses(200), Missing], 4),
        (&[Uses(80), Missing], 2),
        // ... and as busy as it may be where fewer are.
        (&[Uses(10), Uses(10), Missing], 3),
        (&[Uses(10), Missing], 2),
        // One that starts or waits is idle upwards, and is not there downwards.
        (&[Uses(200), Starting(900)], 4),
        (&[Uses(80), Pending], 2),
        (&[Uses(20), Uses(20), Pending], 1),
        // One that was ready once counts with what it uses.
        (&[Uses(100), Unready(100)], 4),
    ];
    for (pods, wanted) in cases {
        let mut world = World::new(i32::try_from(pods.len()).unwrap(), &json!({"behavior": at_once()})).with_pods(pods);
        world.step();
        assert_eq!(world.replicas(), *wanted, "{pods:?}: {}", world.status());
    }
}

#[test]
fn other_targets_are_averages_too() {
    let amount = |name: &str, value: &str| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "AverageValue", "averageValue": value}}});
    let of = |container: &str| json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": container, "target": {"type": "Utilization", "averageUtilization": 50}}});
    for (metrics, wanted, active) in [
        (json!([amount("cpu", "20m")]), 10, "True ValidMetricFound"),
        (json!([amount("memory", "50M")]), 4, "True ValidMetricFound"),
        (json!([of("main")]), 4, "True ValidMetricFound"),
        (json!([of("other")]), 2, "False FailedGetContainerResourceMetric"),
        // The most of all, also where one of them cannot be told.
        (json!([amount("memory", "100M"), of("main")]), 4, "True ValidMetricFound"),
        (json!([of("other"), amount("memory", "50M")]), 4, "True ValidMetricFound"),
        // But fewer pods need all of them.
        (json!([of("other"), amount("memory", "1G")]), 2, "False FailedGetContainerResourceMetric"),
        (json!([amount("memory", "1G")]), 1, "True ValidMetricFound"),
    ] {
        let spec = json!({"metrics": metrics, "behavior": at_once()});
        let mut world = World::new(2, &spec).with_pods(&[State::Uses(100), State::Uses(100)]);
        world.step();
        assert_eq!((world.replicas(), world.says("ScalingActive").as_str()), (wanted, active), "{metrics}");
    }
}

#[test]
fn the_status_says_what_was_seen_and_done() {
    let mut world = World::new(2, &json!({"behavior": at_once()})).with_pods(&[State::Uses(100), State::Uses(100)]);
    let decision = world.step();
    let told: Vec<String> = decision.plan.notes.iter().map(|note| note.reason.to_string()).collect();
    assert_eq!(told, ["SuccessfulRescale: New size: 4; reason: cpu resource utilization (percentage of request) above target"]);
    let status = world.status();
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"], &status["observedGeneration"]), (&json!(2), &json!(4), &json!(1)));
    let current = json!({"averageUtilization": 100, "averageValue": "100m"});
    assert_eq!(status["currentMetrics"], json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]));
    assert_eq!(status["lastScaleTime"], "2026-01-01T12:00:00Z");
    assert_eq!(world.says("AbleToScale"), "True SucceededRescale");
    assert_eq!(world.says("ScalingLimited"), "False DesiredWithinRange");
    let owner = world.state.find(Kind::Deployment, "web", "shop").unwrap().value()["metadata"]["managedFields"][0].clone();
    assert_eq!(owner["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}), "who scales owns the size: {owner}");
    // Only figures differ: such a write may be lost.
    world.pods(&[State::Uses(50), State::Uses(50), State::Uses(50), State::Uses(50)]);
    assert!(!world.step().only_figures, "the size is news");
    world.pods(&[State::Uses(60), State::Uses(50), State::Uses(50), State::Uses(50)]);
    let decision = world.step();
    assert!(decision.only_figures && decision.plan.ops.len() == 1, "{:?}", decision.plan.ops);
    assert!(world.step().plan.is_empty(), "and the same figures are no write");
}

#[test]
fn what_wavers_under_a_steady_load_may_be_lost() {
    let mut world = World::new(4, &json!({})).with_pods(&[State::Uses(50); 4]);
    assert!(!world.step().only_figures, "a first status is news");
    for (uses, able) in [(30, "True ScaleDownStabilized"), (50, "True ReadyForNewScale"), (0, "True ScaleDownStabilized")] {
        world.later(15);
        world.pods(&[State::Uses(uses); 4]);
        let decision = world.step();
        assert_eq!(world.says("AbleToScale"), able, "{uses}");
        assert!(decision.only_figures, "{uses}: {:?}", decision.plan.ops);
    }
}

#[test]
fn a_target_without_replicas_is_left_alone_and_bounds_hold_without_figures() {
    for (replicas, wanted, active) in [(0, 0, "False ScalingDisabled"), (2, 3, ""), (20, 10, "")] {
        let mut world = World::new(replicas, &json!({"minReplicas": 3}));
        world.step();
        assert_eq!((world.replicas(), world.says("ScalingActive").as_str()), (wanted, active), "{replicas}");
    }
    let mut world = World::new(4, &json!({}));
    assert_eq!(world.step().plan.notes.len(), 1);
    assert_eq!((world.replicas(), world.says("ScalingActive").as_str()), (4, "False FailedGetResourceMetric"));
    world.later(15);
    let again = world.step().plan;
    assert!(again.is_empty() && again.notes.is_empty(), "what is known is no news: {again:?}");
}

#[test]
fn a_preview_holds_the_bounds_where_nobody_else_says_the_size() {
    let twin = |bounds: Value| {
        let mut other = autoscaler(&bounds);
        other["metadata"]["name"] = json!("twin");
        Object::from_value(Kind::HorizontalPodAutoscaler, other).unwrap()
    };
    let controllers: [Arc<dyn Controller>; 1] = [Arc::new(Bounds)];
    for (current, wanted) in [(0, 0), (1, 3), (3, 3), (5, 5), (9, 5)] {
        let mut world = World::new(current, &json!({"minReplicas": 3, "maxReplicas": 5}));
        let settled = settle(world.state.clone(), &controllers, start());
        assert_eq!((replicas(&settled.state), settled.stuck), (Some(wanted), false), "{current}");
        // As the autoscaler itself does it.
        world.step();
        assert_eq!(world.replicas(), wanted, "{current}");
        // Two that never agree are not played against each other.
        let mut world = World::new(current, &json!({"minReplicas": 3, "maxReplicas": 5}));
        world.state.insert(twin(json!({"minReplicas": 7, "maxReplicas": 8})));
        let settled = settle(world.state, &controllers, start());
        assert_eq!((replicas(&settled.state), settled.stuck), (Some(current), false), "{current}");
    }
}

#[test]
fn who_cannot_be_scaled_is_told_why() {
    let target = |kind: &str, version: &str, name: &str| json!({"scaleTargetRef": {"apiVersion": version, "kind": kind, "name": name}});
    for (spec, word) in [
        (target("Deployment", "apps/v1", "gone"), "does not exist"),
        (target("StatefulSet", "apps/v1", "shop"), "not served"),
        (target("Job", "batch/v1", "shop"), "does not exist"),
        (target("HorizontalPodAutoscaler", "autoscaling/v2", "shop"), "cannot be scaled"),
    ] {
        let mut world = World::new(2, &spec);
        let notes = world.step().plan.notes;
        assert_eq!(world.says("AbleToScale"), "False FailedGetScale", "{spec}");
        assert!(notes[0].warning && notes[0].reason.message.contains(word), "{spec}: {notes:?}");
    }
    let mut world = World::new(2, &json!({})).with_pods(&[State::Uses(100), State::Uses(100)]);
    let mut other = autoscaler(&json!({}));
    other["metadata"]["name"] = json!("twin");
    world.state.insert(Object::from_value(Kind::HorizontalPodAutoscaler, other).unwrap());
    world.step();
    assert_eq!((world.replicas(), world.says("ScalingActive").as_str()), (2, "False AmbiguousSelector"));
}

#[test]
fn a_size_that_git_says_is_left_to_git() {
    let mut world = World::new(2, &json!({"behavior": at_once()})).with_pods(&[State::Uses(100), State::Uses(100)]);
    let owned = json!([{"manager": "podbay:site", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let set = |world: &mut World, owned: &Value| {
        let mut value = world.state.find(Kind::Deployment, "web", "shop").unwrap().value();
        value["metadata"]["managedFields"] = owned.clone();
        world.state.insert(Object::from_value(Kind::Deployment, value).unwrap());
    };
    set(&mut world, &owned);
    let uid = world.state.find(Kind::Deployment, "web", "shop").unwrap().uid().to_owned();
    let entry = json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "web", "name": "shop", "uid": uid, "created": true, "file": "a/shop.yaml"});
    let mut source = json!({"metadata": {"name": "site", "uid": "site"}, "spec": {"directory": "/x"}, "status": {"inventory": [entry]}});
    world.state.insert(Object::from_value(Kind::Source, source.clone()).unwrap());
    let notes = world.step().plan.notes;
    assert_eq!((world.replicas(), world.says("AbleToScale").as_str()), (2, "False ReplicasFromSource"));
    assert!(notes.len() == 1 && notes[0].reason.message.starts_with("a/shop.yaml of source site says"), "{notes:?}");
    assert_eq!(world.status()["desiredReplicas"], 4, "what would be is told");
    // It holds the size with git: a manifest that does not say it any more leaves it alone.
    let live = world.state.find(Kind::Deployment, "web", "shop").unwrap().clone();
    let (managed, said) = (ManagedFields::of(live.meta()), json!({"spec": {"minReadySeconds": 1}}));
    let (after, _) = ownership::apply(Kind::Deployment, Some(&live.value()), &managed, &said, "podbay:site", true).unwrap();
    assert_eq!(after["spec"]["replicas"], 2, "{after}");
    assert_eq!((live.meta().generation, world.decide().plan.ops), (Some(1), vec![]), "once, and nothing rolls");
    assert!(world.step().plan.notes.is_empty());
    source["spec"]["suspend"] = true.into();
    world.state.insert(Object::from_value(Kind::Source, source).unwrap());
    let notes = world.step().plan.notes;
    assert!(notes.len() == 1 && notes[0].reason.message.contains("is put back once it is resumed: leave"), "{notes:?}");
    // Without that field in the manifest it may.
    set(&mut world, &json!([{"manager": "podbay:site", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}}]));
    world.step();
    assert_eq!((world.replicas(), world.says("AbleToScale").as_str()), (4, "True SucceededRescale"));
}

#[test]
fn policies_bound_what_is_done_in_a_period() {
    let busy = [State::Uses(500); 4];
    let mut world = World::new(4, &json!({"maxReplicas": 100})).with_pods(&busy);
    // Four more or twice as many, whichever is more.
    for (after, replicas) in [(0, 8), (5, 8), (5, 8), (5, 16)] {
        world.later(after);
        world.step();
        assert_eq!((world.replicas(), world.says("ScalingLimited").as_str()), (replicas, "True ScaleUpLimit"));
    }
    // Where nothing is said of it, a few first become four, and not four more.
    for (behavior, replicas) in [(Value::Null, [4, 8, 16]), (json!({"scaleDown": {"selectPolicy": "Disabled"}}), [5, 10, 20])] {
        let mut world = World::new(1, &json!({"maxReplicas": 100, "behavior": behavior})).with_pods(&[State::Uses(5000)]);
        for wanted in replicas {
            world.step();
            assert_eq!(world.replicas(), wanted, "{behavior}");
            world.later(15);
        }
    }
    let one_a_minute = json!([{"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]);
    for (select, fewest) in [("Max", 2), ("Min", 3), ("Disabled", 4)] {
        let down = json!({"stabilizationWindowSeconds": 0, "policies": one_a_minute, "selectPolicy": select});
        let mut world = World::new(4, &json!({"behavior": {"scaleDown": down}})).with_pods(&[State::Uses(0); 4]);
        for after in [0, 30] {
            world.later(after);
            world.step();
            assert_eq!((world.replicas(), world.says("ScalingLimited").as_str()), (fewest, "True ScaleDownLimit"), "{select}");
        }
    }
}

#[test]
fn a_size_goes_down_when_nothing_more_was_wanted_for_a_while() {
    let mut world = World::new(4, &json!({})).with_pods(&[State::Uses(0); 4]);
    for _ in 0..19 {
        world.step();
        assert_eq!((world.replicas(), world.says("AbleToScale").as_str()), (4, "True ScaleDownStabilized"));
        world.later(15);
    }
    // The most that was called for since counts.
    world.pods(&[State::Uses(25); 4]);
    world.step();
    world.later(15);
    world.pods(&[State::Uses(0); 4]);
    world.step();
    assert_eq!(world.replicas(), 2);
    // And upwards the least, where a window is asked for.
    let mut world = World::new(2, &json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 30}}})).with_pods(&[State::Uses(100); 2]);
    for (after, replicas, able) in [(0, 2, "True ScaleUpStabilized"), (15, 2, "True ScaleUpStabilized"), (15, 4, "True SucceededRescale")] {
        world.later(after);
        world.step();
        assert_eq!((world.replicas(), world.says("AbleToScale").as_str()), (replicas, able));
    }
}

#[test]
fn a_clock_that_is_set_changes_no_memory() {
    for by_seconds in [-3600, 3600] {
        let mut world = World::new(4, &json!({})).with_pods(&[State::Uses(0); 4]);
        world.step();
        world.set_clock(by_seconds);
        world.later(15);
        world.step();
        assert_eq!(world.replicas(), 4, "{by_seconds}: what was called for holds for its 300 s");
        world.later(285);
        world.step();
        assert_eq!(world.replicas(), 1, "{by_seconds}: and no longer");
    }
}

fn states() -> impl Strategy<Value = Vec<State>> {
    let one = prop_oneof![
        4 => (0_u64..400).prop_map(State::Uses),
        1 => Just(State::Missing),
        1 => Just(State::Pending),
        1 => (0_u64..400).prop_map(State::Starting),
        1 => (0_u64..400).prop_map(State::Unready),
    ];
    proptest::collection::vec(one, 1..8)
}

proptest! {
    #[test]
    fn a_decision_holds_within_the_bounds(pods in states(), fewest in 1_i32..4, more in 0_i32..8, at_once_ in any::<bool>()) {
        let most = fewest + more;
        let current = i32::try_from(pods.len()).unwrap().clamp(fewest, most);
        let behavior = if at_once_ { at_once() } else { json!({}) };
        let mut world = World::new(current, &json!({"minReplicas": fewest, "maxReplicas": most, "behavior": behavior})).with_pods(&pods);
        world.step();
        let size = world.replicas();
        prop_assert!((fewest..=most).contains(&size), "{size} in {fewest}..={most}");
        let again = world.step().plan;
        prop_assert!(!again.ops.iter().any(|op| matches!(op, Op::Update { .. })), "it would scale again: {again:?}");
        prop_assert_eq!(world.step().plan.ops, vec![]);
    }

    #[test]
    fn more_load_never_takes_pods_away(uses in proptest::collection::vec(0_u64..300, 1..8), more in 1_u64..300) {
        let size = |extra: u64| {
            let pods: Vec<State> = uses.iter().map(|cpu| State::Uses(cpu + extra)).collect();
            let mut world = World::new(i32::try_from(uses.len()).unwrap(), &json!({"behavior": at_once()})).with_pods(&pods);
            world.step();
            world.replicas()
        };
        prop_assert!(size(0) <= size(more));
    }
}

/// The world's objects of these kinds in a store, where they have other UIDs; what its pods use, if they are among them.
async fn made(world: &World, store: &dyn Store, kinds: &[Kind]) -> BTreeMap<String, PodUsage> {
    let create = |object: &Object| Write::Create(object.clone().edit_meta(|meta| meta.resource_version = None));
    let writes = kinds.iter().flat_map(|kind| world.state.list(*kind).map(create).collect::<Vec<_>>()).collect();
    let made = store.commit(Transaction { writes, ..Transaction::new("admin") }).await.expect("made");
    let mut usage = BTreeMap::new();
    for pod in made.results.iter().flatten().filter(|object| object.kind() == Kind::Pod) {
        let before = world.state.get(pod.key()).expect("it is of the world");
        usage.extend(world.usage.get(before.uid()).map(|of_pod| (pod.uid().to_owned(), of_pod.clone())));
        let status = before.get::<Pod>().and_then(|it| it.status.clone());
        let told = pod.edit::<Pod>(|it| it.status = status).expect("a pod");
        let write = Write::UpdateStatus(told, crate::store::Precondition::exists());
        store.commit(Transaction::new("node").with(write)).await.expect("told");
    }
    usage
}

fn memory_store() -> (Arc<VirtualClock>, Arc<dyn Store>) {
    let clock = Arc::new(VirtualClock::new(start()));
    (clock.clone(), Arc::new(MemoryStore::new(clock)))
}

const ALL: [Kind; 4] = [Kind::Namespace, Kind::Deployment, Kind::Pod, Kind::HorizontalPodAutoscaler];

fn replicas(state: &Snapshot) -> Option<i32> {
    state.find(Kind::Deployment, "web", "shop").and_then(|it| it.get::<Deployment>()?.spec.replicas)
}

#[tokio::test]
async fn who_is_new_is_looked_at_and_who_is_gone_is_forgotten() {
    let world = World::new(2, &json!({"behavior": at_once()})).with_pods(&[State::Uses(100); 2]);
    let (clock, store) = memory_store();
    let figures = Arc::new(Figures::default());
    let end = CancellationToken::new();
    let task = tokio::spawn(run(Arc::clone(&store), figures.clone(), clock, end.clone()));
    let mut watch = store.watch(store.snapshot().revision()).expect("a watch");
    figures.set(made(&world, store.as_ref(), &ALL[..3]).await);
    made(&world, store.as_ref(), &ALL[3..]).await;
    while replicas(&store.snapshot()) != Some(4) {
        tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("it is scaled").expect("no history is lost");
    }
    end.cancel();
    task.await.expect("it ends");
}

fn autoscalers(store: &Arc<dyn Store>, clock: &Arc<VirtualClock>, figures: &Arc<Figures>) -> Autoscalers {
    let recorder = Recorder::start(Arc::clone(store), clock.clone(), CancellationToken::new());
    Autoscalers::new(Arc::clone(store), figures.clone(), clock.clone(), recorder)
}

#[tokio::test]
async fn a_moments_load_is_none() {
    let world = World::new(2, &json!({"behavior": at_once()})).with_pods(&[State::Uses(100); 2]);
    let (clock, store) = memory_store();
    let figures = Arc::new(Figures::default());
    let mut usage = made(&world, store.as_ref(), &ALL).await;
    let subject = autoscalers(&store, &clock, &figures);
    for (seconds, next, size) in [(1, 5, 2), (5, 15, 4)] {
        usage.values_mut().for_each(|it| it.window = Duration::from_secs(seconds));
        figures.set(usage.clone());
        let told = subject.reconcile(&key()).await.expect("a look");
        assert_eq!((told, replicas(&store.snapshot())), (Next::After(Duration::from_secs(next)), Some(size)), "{seconds} s");
    }
}

#[tokio::test]
async fn bounds_hold_before_any_load_is_known() {
    let world = World::new(2, &json!({"minReplicas": 3})).with_pods(&[State::Uses(100); 2]);
    let (clock, store) = memory_store();
    let figures = Arc::new(Figures::default());
    let mut usage = made(&world, store.as_ref(), &ALL).await;
    usage.values_mut().for_each(|it| it.window = Duration::from_secs(1));
    figures.set(usage);
    autoscalers(&store, &clock, &figures).reconcile(&key()).await.expect("a look");
    assert_eq!(replicas(&store.snapshot()), Some(3));
}

/// A store that takes nothing but statuses.
struct FullStore(Arc<dyn Store>);

#[async_trait::async_trait]
impl Store for FullStore {
    fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let is_status = |write: &Write| matches!(write, Write::UpdateStatus(..));
        if transaction.writes.iter().all(is_status) {
            self.0.commit(transaction).await
        } else {
            Err(CommitError::Full("7 MiB free".to_owned()))
        }
    }

    fn watch(&self, from: u64) -> Result<Watch, TooOld> {
        self.0.watch(from)
    }

    fn size_bytes(&self) -> u64 {
        0
    }

    fn history(&self) -> Extent {
        self.0.history()
    }
}

#[tokio::test]
async fn on_a_full_store_it_says_so() {
    let world = World::new(2, &json!({"behavior": at_once()})).with_pods(&[State::Uses(100); 2]);
    let (clock, inner) = memory_store();
    let figures = Arc::new(Figures::default());
    figures.set(made(&world, inner.as_ref(), &ALL).await);
    let store: Arc<dyn Store> = Arc::new(FullStore(Arc::clone(&inner)));
    let subject = autoscalers(&store, &clock, &figures);
    for _ in 0..2 {
        subject.reconcile(&key()).await.expect("a look");
        let status = inner.snapshot().get(&key()).expect("the autoscaler").value()["status"].clone();
        let able = status["conditions"].as_array().and_then(|all| all.iter().find(|it| it["type"] == "AbleToScale")).expect("it is told");
        assert_eq!((replicas(&inner.snapshot()), able["reason"].as_str()), (Some(2), Some("FailedUpdateScale")), "{status}");
        assert_eq!(able["message"], "New size: 4: the server's store is short of space");
    }
    // With room again it is done, as if nothing had been.
    let memory = subject.memory(inner.snapshot().get(&key()).expect("the autoscaler"));
    let subject = autoscalers(&inner, &clock, &figures);
    subject.remember(inner.snapshot().get(&key()).expect("the autoscaler"), memory);
    subject.reconcile(&key()).await.expect("a look");
    assert_eq!(replicas(&inner.snapshot()), Some(4));
}

/// Nodes that never answer.
#[derive(Default)]
struct Silence(tokio::sync::Notify);

#[async_trait::async_trait]
impl Measures for Silence {
    async fn of(&self, _: &[Object]) -> BTreeMap<String, PodUsage> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_end_waits_for_no_node() {
    let world = World::new(2, &json!({})).with_pods(&[State::Missing; 2]);
    let (clock, store) = memory_store();
    made(&world, store.as_ref(), &ALL).await;
    let (silence, end) = (Arc::new(Silence::default()), CancellationToken::new());
    let task = tokio::spawn(run(store, silence.clone(), clock, end.clone()));
    silence.0.notified().await;
    end.cancel();
    tokio::time::timeout(Duration::from_secs(60), task).await.expect("it ends").expect("no panic");
}
