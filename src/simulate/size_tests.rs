//! Numbers that nobody means: the largest ones must neither end the server nor fill its memory. And
//! pods that admission refuses.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::settle::{Settled, settle, settle_within};
use super::tests::{cluster, controllers, deployment, edit, job, key, object, replans_to_nothing, start, template};
use crate::control::naming::WAITING;
use crate::model::{Kind, Object};
use crate::store::snapshot::Snapshot;

const MOST: i32 = i32::MAX;

fn run(state: Snapshot) -> Settled {
    let settled = settle(state, &controllers(), start());
    assert!(!settled.stuck && !settled.too_many && settled.refused.is_empty(), "{:?}", settled.refused);
    replans_to_nothing(&settled.state, start());
    settled
}

fn pods(settled: &Settled) -> usize {
    settled.state.list(Kind::Pod).count()
}

fn says(settled: &Settled, subject: Kind, code: &str) -> String {
    let wait = settled.waits.iter().find(|wait| wait.subject.kind == subject && wait.reason.code == code);
    wait.unwrap_or_else(|| panic!("{subject:?} {code}: {:?}", settled.waits)).reason.message.clone()
}

#[test]
fn the_largest_number_of_replicas_makes_a_bounded_number_of_pods() {
    for surge in [json!(0), json!("100%"), json!(MOST)] {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1}});
        let settled = run(cluster(0, vec![deployment("web", MOST, "nginx:1", strategy)]));
        assert_eq!(pods(&settled), WAITING);
        assert!(says(&settled, Kind::ReplicaSet, "PodsWaitForNodes").contains("1000 of its pods have no node; 2147482647 more"));
        // Another template, another scale: no sum overflows.
        let other = edit(&settled.state, &key(Kind::Deployment, "web"), |it: &mut Deployment| {
            it.spec.template.spec.as_mut().unwrap().containers[0].image = Some("nginx:2".to_owned());
        });
        let rolled = settle(other, &controllers(), start());
        assert!(pods(&rolled) <= 2 * WAITING && !rolled.stuck);
        let scaled = edit(&rolled.state, &key(Kind::Deployment, "web"), |it: &mut Deployment| it.spec.replicas = Some(MOST - 1));
        assert!(!settle(scaled, &controllers(), start()).stuck);
    }
}

#[test]
fn the_largest_parallelism_makes_a_bounded_number_of_pods() {
    let settled = run(cluster(0, vec![job("many", json!({"parallelism": MOST, "completions": MOST}))]));
    assert_eq!(pods(&settled), WAITING);
    says(&settled, Kind::Job, "PodsWaitForNodes");
}

#[test]
fn pods_that_find_nodes_are_made_all_the_same() {
    let spec = json!({"replicas": 1200, "selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    let set = object(Kind::ReplicaSet, json!({"metadata": {"name": "a", "namespace": "web"}, "spec": spec}));
    assert_eq!(pods(&run(cluster(11, vec![set]))), 1200);
}

#[test]
fn a_simulation_gives_up_before_it_fills_the_memory() {
    let state = cluster(0, vec![deployment("web", 900, "nginx:1", Value::Null)]);
    let most = state.len() + 100;
    let settled = settle_within(state, &controllers(), start(), most);
    assert!(settled.too_many && !settled.stuck);
    assert!(settled.state.len() < most + 600);
}

fn message(object: &Object, type_: &str) -> Option<String> {
    let conditions = object.value()["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|it| it["type"] == type_)?;
    found["message"].as_str().map(str::to_owned)
}

/// A template that is laxer than a pod: blanks before an image's name.
fn blank() -> Object {
    deployment("web", 2, " x", Value::Null)
}

#[test]
fn what_admission_refuses_a_set_is_told_on_all_that_stand_above() {
    let settled = run(cluster(1, vec![blank()]));
    assert_eq!(pods(&settled), 0);
    let set = settled.state.list(Kind::ReplicaSet).next().unwrap();
    for object in [set, settled.state.get(&key(Kind::Deployment, "web")).unwrap()] {
        let message = message(object, "ReplicaFailure").unwrap();
        assert!(message.starts_with("Error creating: ") && message.contains("image"), "{message}");
    }
    says(&settled, Kind::ReplicaSet, "FailedCreate");
    let notes: Vec<_> = settled.notes.iter().filter(|note| note.warning && note.reason.code == "FailedCreate").collect();
    assert_eq!(notes.len(), 1, "once a message: {notes:?}");
    let good = edit(&settled.state, &key(Kind::Deployment, "web"), |it: &mut Deployment| {
        it.spec.template.spec.as_mut().unwrap().containers[0].image = Some("x".to_owned());
    });
    let healed = run(good);
    assert_eq!(message(healed.state.get(&key(Kind::Deployment, "web")).unwrap(), "ReplicaFailure"), None);
    assert_eq!(pods(&healed), 2);
}

#[test]
fn a_set_that_cannot_be_made_is_told_on_its_deployment() {
    let name = "n".repeat(250);
    let long = object(
        Kind::Deployment,
        json!({"metadata": {"name": name, "namespace": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}},
            "template": template("a", "i")}}),
    );
    let settled = run(cluster(1, vec![long]));
    assert_eq!(settled.state.list(Kind::ReplicaSet).count(), 0);
    let told = message(settled.state.get(&key(Kind::Deployment, &name)).unwrap(), "Progressing").unwrap();
    assert!(told.starts_with("Failed to create new replica set: "), "{told}");
    assert_eq!(settled.notes.iter().filter(|note| note.reason.code == "ReplicaSetCreateError").count(), 1);
}

#[test]
fn a_pod_that_a_job_may_not_make_is_told() {
    let mut blank = job("once", json!({}));
    blank = blank
        .edit::<k8s_openapi::api::batch::v1::Job>(|job| {
            job.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(" x".to_owned());
        })
        .unwrap();
    let settled = run(cluster(1, vec![blank]));
    assert!(says(&settled, Kind::Job, "FailedCreate").contains("image"));
    assert!(settled.notes.iter().any(|note| note.warning && note.reason.code == "FailedCreate"));
}

#[test]
fn a_scale_to_nothing_ends_the_largest_set() {
    let settled = run(cluster(0, vec![deployment("web", MOST, "nginx:1", Value::Null)]));
    let name = settled.state.list(Kind::ReplicaSet).next().unwrap().key().clone();
    let down = edit(&settled.state, &key(Kind::Deployment, "web"), |it: &mut Deployment| it.spec.replicas = Some(0));
    let ended = run(down);
    assert_eq!(ended.state.get(&name).unwrap().get::<ReplicaSet>().unwrap().spec.replicas, Some(0));
    assert_eq!(pods(&ended), 0);
}
