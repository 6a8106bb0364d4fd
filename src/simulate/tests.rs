//! What the controllers and the scheduler come to, scenario by scenario.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::settle::{Settled, settle};
use super::world::World;
use crate::control::{self, Options};
use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::plan::Controller;
use crate::schedule::Scheduler;
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Transaction, Write};

pub fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

pub fn controllers() -> Vec<Arc<dyn Controller>> {
    let mut all = control::all(Options::new(start()));
    all.push(Arc::new(Scheduler::new()));
    all
}

pub fn object(kind: Kind, value: Value) -> Object {
    Object::from_value(kind, value).expect("an object")
}

pub fn node(name: &str) -> Object {
    object(
        Kind::Node,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    )
}

pub fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

pub fn deployment(name: &str, replicas: i32, image: &str, strategy: Value) -> Object {
    object(
        Kind::Deployment,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "web"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, image),
                "strategy": strategy, "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600}}),
    )
}

pub fn job(name: &str, spec: Value) -> Object {
    let mut spec = spec;
    let mut template = template(name, "worker");
    template["spec"]["restartPolicy"] = json!("Never");
    spec["template"] = template;
    object(Kind::Job, json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "web"}, "spec": spec}))
}

/// A cluster with two namespaces, some nodes and the given objects.
pub fn cluster(nodes: usize, objects: Vec<Object>) -> Snapshot {
    let mut world = World::new(Snapshot::default(), &[], start());
    let mut transaction = Transaction::new("admin");
    for name in crate::admit::LASTING_NAMESPACES.into_iter().chain(["web"]) {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}});
        transaction = transaction.with(Write::Create(object(Kind::Namespace, namespace)));
    }
    for index in 0..nodes {
        transaction = transaction.with(Write::Create(node(&format!("n{index}"))));
    }
    for object in objects {
        transaction = transaction.with(Write::Create(object));
    }
    world.commit(transaction).expect("a cluster");
    with_node_status(world.state)
}

/// Admission drops the status of a new object: nodes report theirs afterwards.
fn with_node_status(mut state: Snapshot) -> Snapshot {
    let nodes: Vec<Object> = state.list(Kind::Node).cloned().collect();
    for found in nodes {
        let status = node(&found.key().name).get::<Node>().and_then(|node| node.status.clone());
        state.insert(found.edit(|node: &mut Node| node.status = status).expect("a node"));
    }
    state
}

pub fn write(state: &Snapshot, writes: Vec<Write>) -> Snapshot {
    let mut world = World::new(state.clone(), &[], start());
    world.commit(Transaction { writes, ..Transaction::new("admin") }).expect("a write");
    world.state
}

pub fn edit<T: crate::model::ApiType>(state: &Snapshot, key: &Key, change: impl FnOnce(&mut T)) -> Snapshot {
    let after = state.get(key).expect("stored").edit(change).expect("of that kind");
    write(state, vec![Write::Update(after, Precondition::exists())])
}

pub fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, "web", name)
}

fn run(state: Snapshot) -> Settled {
    let settled = settle(state, &controllers(), start());
    assert!(!settled.stuck, "the controllers do not come to rest");
    assert!(settled.refused.is_empty(), "{:?}", settled.refused);
    replans_to_nothing(&settled.state, start());
    settled
}

/// Every controller, asked about every object, has nothing to do.
pub fn replans_to_nothing(state: &Snapshot, now: Timestamp) {
    replan_to_nothing(controllers().iter(), state, now);
}

pub fn replan_to_nothing<'c>(controllers: impl Iterator<Item = &'c Arc<dyn Controller>>, state: &Snapshot, now: Timestamp) {
    for controller in controllers {
        let keys: std::collections::BTreeSet<Key> = state.iter().flat_map(|object| controller.keys(state, object)).collect();
        for key in keys {
            let plan = controller.plan(state, &key, now);
            let ops: Vec<String> = plan.ops.iter().map(ToString::to_string).collect();
            assert!(ops.is_empty(), "{} plans again for {key}: {ops:?}", controller.name());
        }
    }
}

fn pods(state: &Snapshot) -> Vec<(String, String)> {
    let pod = |object: &Object| {
        let it = object.get::<Pod>().expect("a pod");
        (object.key().name.clone(), pod::node_name(it).unwrap_or("-").to_owned())
    };
    state.list(Kind::Pod).map(pod).collect()
}

#[test]
fn a_deployment_becomes_ready_pods_on_nodes() {
    let settled = run(cluster(2, vec![deployment("nginx", 3, "nginx:1", json!({}))]));
    let pods = pods(&settled.state);
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|(_, node)| node.starts_with('n')), "{pods:?}");
    let deployment = settled.state.get(&key(Kind::Deployment, "nginx")).expect("stored");
    let status = deployment.get::<Deployment>().and_then(|it| it.status.clone()).expect("a status");
    assert_eq!((status.replicas, status.updated_replicas, status.available_replicas), (Some(3), Some(3), Some(3)));
    let conditions: Vec<_> =
        status.conditions.iter().flatten().map(|it| (it.type_.clone(), it.status.clone(), it.reason.clone())).collect();
    let some = |text: &str| Some(text.to_owned());
    assert!(conditions.contains(&(some("Available"), some("True"), some("MinimumReplicasAvailable"))), "{conditions:?}");
    assert!(conditions.contains(&(some("Progressing"), some("True"), some("NewReplicaSetAvailable"))), "{conditions:?}");
    assert_eq!(deployment.annotation("deployment.kubernetes.io/revision"), Some("1"));
    assert!(settled.waits.is_empty(), "{:?}", settled.waits);
}

#[test]
fn the_same_state_settles_to_the_same_names() {
    let state = cluster(3, vec![deployment("a", 4, "a:1", json!({})), deployment("b", 2, "b:1", json!({}))]);
    assert_eq!(pods(&run(state.clone()).state), pods(&run(state).state));
}

#[test]
fn a_new_template_rolls_and_the_history_is_bounded() {
    let mut state = run(cluster(2, vec![deployment("nginx", 3, "nginx:0", json!({}))])).state;
    for version in 1..5 {
        state = edit(&state, &key(Kind::Deployment, "nginx"), |it: &mut Deployment| {
            let spec = it.spec.template.spec.as_mut().expect("a pod spec");
            spec.containers[0].image = Some(format!("nginx:{version}"));
        });
        state = run(state).state;
    }
    let images: Vec<_> = state
        .list(Kind::Pod)
        .map(|it| it.get::<Pod>().and_then(|it| it.spec.as_ref()?.containers[0].image.clone()).expect("an image"))
        .collect();
    assert_eq!(images, ["nginx:4", "nginx:4", "nginx:4"]);
    assert_eq!(state.list(Kind::ReplicaSet).count(), 3, "the newest and two of the history");
    let deployment = state.get(&key(Kind::Deployment, "nginx")).expect("stored");
    assert_eq!(deployment.annotation("deployment.kubernetes.io/revision"), Some("5"));
    // Back to a template of the history: its set is used again under a new revision.
    let back = edit(&state, &key(Kind::Deployment, "nginx"), |it: &mut Deployment| {
        it.spec.template.spec.as_mut().expect("a pod spec").containers[0].image = Some("nginx:3".to_owned());
    });
    let back = run(back).state;
    assert_eq!(back.list(Kind::ReplicaSet).count(), 3);
    let revisions: Vec<_> = back.list(Kind::ReplicaSet).filter_map(|set| set.annotation("deployment.kubernetes.io/revision")).collect();
    assert!(revisions.contains(&"6"), "{revisions:?}");
}

#[test]
fn recreate_ends_the_old_pods_first() {
    let state = run(cluster(1, vec![deployment("db", 2, "db:1", json!({"type": "Recreate"}))])).state;
    let state = edit(&state, &key(Kind::Deployment, "db"), |it: &mut Deployment| {
        it.spec.template.spec.as_mut().expect("a pod spec").containers[0].image = Some("db:2".to_owned());
    });
    // Without its kubelet the node keeps the old pods: nothing new may start.
    let mut world = World::new(state.clone(), &controllers(), start());
    assert!(super::settle::rest(&mut world));
    let images: Vec<_> =
        world.state.list(Kind::Pod).filter_map(|it| it.get::<Pod>().and_then(|it| it.spec.as_ref()?.containers[0].image.clone())).collect();
    assert!(images.iter().all(|image| image == "db:1") || world.state.list(Kind::Pod).all(|it| !it.is_deleting()), "{images:?}");
    assert_eq!(run(state).state.list(Kind::Pod).count(), 2);
}

#[test]
fn scaling_and_pausing() {
    let state = run(cluster(2, vec![deployment("nginx", 3, "nginx:1", json!({}))])).state;
    let more = edit(&state, &key(Kind::Deployment, "nginx"), |it: &mut Deployment| it.spec.replicas = Some(5));
    assert_eq!(run(more.clone()).state.list(Kind::Pod).count(), 5);
    let none = edit(&run(more).state, &key(Kind::Deployment, "nginx"), |it: &mut Deployment| it.spec.replicas = Some(0));
    assert_eq!(run(none).state.list(Kind::Pod).count(), 0);
    let paused = edit(&state, &key(Kind::Deployment, "nginx"), |it: &mut Deployment| {
        it.spec.paused = Some(true);
        it.spec.template.spec.as_mut().expect("a pod spec").containers[0].image = Some("nginx:2".to_owned());
    });
    let settled = run(paused);
    assert_eq!(settled.state.list(Kind::ReplicaSet).count(), 1, "a paused rollout starts nothing");
}

#[test]
fn what_does_not_fit_waits_with_its_reason() {
    let settled = run(cluster(1, vec![deployment("big", 50, "big:1", json!({}))]));
    // 4 cpus hold 40 pods of 100m.
    let placed = pods(&settled.state).iter().filter(|(_, node)| node == "n0").count();
    assert_eq!(placed, 40);
    let waits: Vec<String> = settled.waits.iter().map(|wait| wait.reason.to_string()).collect();
    assert!(waits.contains(&"Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.".to_owned()), "{waits:?}");
    assert!(waits.iter().any(|wait| wait.contains("40 of 50 updated replicas are available")), "{waits:?}");
}

#[test]
fn a_service_lists_its_ready_pods() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nginx", "namespace": "web"},
        "spec": {"selector": {"app": "nginx"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}});
    let settled = run(cluster(3, vec![object(Kind::Service, service), deployment("nginx", 105, "nginx:1", json!({}))]));
    let slices: Vec<&EndpointSlice> = settled.state.list(Kind::EndpointSlice).filter_map(Object::get).collect();
    let sizes: Vec<usize> = slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 105);
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    assert!(
        slices.iter().flat_map(|it| it.endpoints.iter().flatten()).all(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true))
    );
    assert_eq!(slices[0].ports.as_ref().and_then(|ports| ports[0].port), Some(8080));
    // Without pods one empty slice stays.
    let none = edit(&settled.state, &key(Kind::Deployment, "nginx"), |it: &mut Deployment| it.spec.replicas = Some(0));
    let none = run(none).state;
    let left: Vec<&EndpointSlice> = none.list(Kind::EndpointSlice).filter_map(Object::get).collect();
    assert!(left.len() == 1 && left[0].endpoints.as_ref().is_none_or(Vec::is_empty));
    let gone =
        write(&none, vec![Write::Delete { key: key(Kind::Service, "nginx"), precondition: Precondition::exists(), grace_seconds: None }]);
    assert_eq!(run(gone).state.list(Kind::EndpointSlice).count(), 0);
}

#[test]
fn what_a_deployment_owns_goes_with_it() {
    let state = run(cluster(1, vec![deployment("nginx", 3, "nginx:1", json!({}))])).state;
    let delete = Write::Delete { key: key(Kind::Deployment, "nginx"), precondition: Precondition::exists(), grace_seconds: None };
    let after = run(write(&state, vec![delete])).state;
    assert_eq!((after.list(Kind::ReplicaSet).count(), after.list(Kind::Pod).count()), (0, 0));
}

#[test]
fn orphans_stay_and_are_adopted_again() {
    let state = run(cluster(1, vec![deployment("nginx", 3, "nginx:1", json!({}))])).state;
    let names = pods(&state);
    let finalizer = |it: &mut Deployment| it.metadata.finalizers = Some(vec!["orphan".to_owned()]);
    let state = edit(&state, &key(Kind::Deployment, "nginx"), finalizer);
    let deleted = state.get(&key(Kind::Deployment, "nginx")).expect("stored").clone();
    let marked = deleted.edit_meta(|meta| meta.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(start())));
    let mut state = state;
    state.insert(marked);
    let settled = settle(state, &controllers(), start());
    let mut after = settled.state;
    assert!(after.list(Kind::ReplicaSet).all(|set| set.controller().is_none()));
    assert_eq!(pods(&after), names);
    if after.get(&key(Kind::Deployment, "nginx")).is_some() {
        let delete = Write::Delete { key: key(Kind::Deployment, "nginx"), precondition: Precondition::exists(), grace_seconds: None };
        after = write(&after, vec![delete]);
    }
    let again = write(&after, vec![Write::Create(deployment("nginx", 3, "nginx:1", json!({})))]);
    let again = run(again).state;
    assert_eq!(pods(&again), names, "the orphans serve again");
    assert!(again.list(Kind::ReplicaSet).all(|set| set.controller().is_some()));
}

#[test]
fn pods_of_a_lost_node_are_replaced_elsewhere() {
    let state = run(cluster(2, vec![deployment("nginx", 4, "nginx:1", json!({}))])).state;
    let delete = Write::Delete { key: Key::cluster(Kind::Node, "n0"), precondition: Precondition::exists(), grace_seconds: None };
    let mut state = write(&state, vec![delete]);
    for pod in state.list(Kind::Pod).cloned().collect::<Vec<_>>() {
        let long_ago = "2025-12-31T00:00:00Z".parse().expect("a time");
        let old = pod.edit_meta(|meta| meta.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(long_ago)));
        state.insert(old);
    }
    let after = pods(&run(state).state);
    assert!(after.len() == 4 && after.iter().all(|(_, node)| node == "n1"), "{after:?}");
}

#[test]
fn nodes_get_ranges_of_their_own() {
    let settled = run(cluster(3, vec![]));
    let ranges: Vec<_> = settled
        .state
        .list(Kind::Node)
        .map(|it| it.get::<Node>().and_then(|it| it.spec.as_ref()?.pod_cidr.clone()).unwrap_or_default())
        .collect();
    assert_eq!(ranges, ["10.80.0.0/24", "10.80.1.0/24", "10.80.2.0/24"]);
}

/// Ends the job's running pods as told.
fn finish(state: &Snapshot, phase: &str, count: usize) -> Snapshot {
    let running = |it: &&Object| it.get::<Pod>().is_some_and(|it| pod::phase(it) == "Running");
    let ended: Vec<Write> = state
        .list(Kind::Pod)
        .filter(running)
        .take(count)
        .filter_map(|it| it.edit(|it: &mut Pod| it.status.get_or_insert_with(Default::default).phase = Some(phase.to_owned())))
        .map(|it| Write::UpdateStatus(it, Precondition::exists()))
        .collect();
    write(state, ended)
}

fn job_status(state: &Snapshot, name: &str) -> (i32, i32, i32, Vec<String>) {
    let status = state.get(&key(Kind::Job, name)).and_then(|it| it.get::<Job>()?.status.clone()).unwrap_or_default();
    let conditions = status.conditions.iter().flatten().filter(|it| it.status == "True").map(|it| it.type_.clone()).collect();
    (status.active.unwrap_or(0), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0), conditions)
}

#[test]
fn a_job_runs_to_completion() {
    let settled = run(cluster(1, vec![job("sum", json!({"completions": 5, "parallelism": 2, "backoffLimit": 6}))]));
    assert_eq!(job_status(&settled.state, "sum"), (2, 0, 0, vec![]));
    assert!(settled.waits.iter().any(|wait| wait.reason.message == "0 of 5 pods succeeded, 2 active"), "{:?}", settled.waits);
    let mut state = settled.state;
    for succeeded in [2, 4] {
        state = run(finish(&state, "Succeeded", 2)).state;
        assert_eq!(job_status(&state, "sum"), (if succeeded == 4 { 1 } else { 2 }, succeeded, 0, vec![]));
    }
    state = run(finish(&state, "Succeeded", 1)).state;
    let (active, succeeded, failed, conditions) = job_status(&state, "sum");
    assert_eq!((active, succeeded, failed), (0, 5, 0));
    assert!(conditions.contains(&"Complete".to_owned()), "{conditions:?}");
}

#[test]
fn a_job_that_fails_backs_off_and_gives_up() {
    let mut state = run(cluster(1, vec![job("bad", json!({"completions": 1, "parallelism": 1, "backoffLimit": 2}))])).state;
    let mut now = start();
    for failed in 1..=3 {
        state = finish(&state, "Failed", 1);
        let settled = settle(state, &controllers(), now);
        assert_eq!(job_status(&settled.state, "bad").2, failed);
        state = settled.state;
        if failed < 3 {
            assert_eq!(job_status(&state, "bad").0, 0, "the next pod waits");
            let later = settled.again_at.expect("a time to try again");
            assert!(later > now);
            now = later;
            state = settle(state, &controllers(), now).state;
            assert_eq!(job_status(&state, "bad").0, 1);
        }
    }
    let (active, _, _, conditions) = job_status(&state, "bad");
    assert_eq!(active, 0);
    assert!(conditions.contains(&"Failed".to_owned()), "{conditions:?}");
}

#[test]
fn a_suspended_job_runs_nothing_and_loses_nothing() {
    let state = run(cluster(1, vec![job("sum", json!({"completions": 3, "parallelism": 3, "backoffLimit": 0}))])).state;
    assert_eq!(state.list(Kind::Pod).count(), 3);
    let suspended = edit(&state, &key(Kind::Job, "sum"), |it: &mut Job| {
        it.spec.as_mut().expect("a spec").suspend = Some(true);
    });
    let state = run(suspended).state;
    let (active, succeeded, failed, conditions) = job_status(&state, "sum");
    assert_eq!((active, succeeded, failed), (0, 0, 0), "{conditions:?}");
    let resumed = edit(&state, &key(Kind::Job, "sum"), |it: &mut Job| it.spec.as_mut().expect("a spec").suspend = Some(false));
    assert_eq!(job_status(&run(resumed).state, "sum").0, 3);
}

#[test]
fn a_replica_set_gives_up_pending_pods_first() {
    let state = run(cluster(1, vec![deployment("big", 45, "big:1", json!({}))])).state;
    let pending: Vec<String> = pods(&state).into_iter().filter(|(_, node)| node == "-").map(|(name, _)| name).collect();
    assert_eq!(pending.len(), 5);
    let less = edit(&state, &key(Kind::Deployment, "big"), |it: &mut Deployment| it.spec.replicas = Some(40));
    let left: Vec<String> = pods(&run(less).state).into_iter().map(|(name, _)| name).collect();
    assert!(left.len() == 40 && pending.iter().all(|name| !left.contains(name)));
    let sets: Vec<_> = state.list(Kind::ReplicaSet).filter_map(|it| it.get::<ReplicaSet>()?.status.clone()).collect();
    assert_eq!(sets[0].available_replicas, Some(40));
}
