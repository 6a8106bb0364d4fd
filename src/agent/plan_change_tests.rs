//! What changes of a pod that runs: containers that are added for a look at it, and other resources.

use serde_json::json;

use super::*;
use crate::agent::observed::{Memory, RESOURCES, Sizing};
use crate::agent::resize_plan;

fn is_resizing(plan: &PodPlan) -> bool {
    plan.status.conditions.iter().flatten().any(|condition| condition.type_ == crate::model::pod::RESIZING && condition.status == "True")
}

#[test]
fn ephemeral_containers_begin_beside_their_target_and_only_once() {
    let debugged = pod(json!({"ephemeralContainers": [
        {"name": "look", "image": "img:2", "targetContainerName": "main"}, {"name": "free", "image": "img:2"},
    ]}));
    // The target has to run; who has none does not wait for it, nor for init containers.
    check(&debugged, &seen(true), 2, &["create free#0 s0 +0", "create main#0 s0 +0"]);
    let main = || c("main", 0, "img:1").running();
    check(&debugged, &with(seen(true), [main(), c("free", 0, "img:2").running()]), 2, &["create look#0 s0 +0"]);
    let mut ended = with(seen(true), [main(), c("free", 0, "img:2").exited(1, 1, 2), c("look", 0, "img:2").running()]);
    let plan = check(&debugged, &ended, 3, &[]);
    let states: Vec<_> = plan.status.ephemeral_container_statuses.clone().unwrap_or_default();
    let told: Vec<(bool, bool, i32)> = states
        .iter()
        .map(|it| it.state.clone().unwrap_or_default())
        .map(|it| (it.running.is_some(), it.waiting.is_some(), it.terminated.map_or(0, |end| end.exit_code)))
        .collect();
    assert_eq!(told, [(true, false, 0), (false, false, 1)], "what has ended does not wait for another start");
    phase_is(&plan, "Running");
    assert!(condition(&plan.status, "Ready").0 == "True" && states.iter().all(|it| !it.ready));
    // The runtime lost them: they were.
    ended.last_status = plan.status;
    ended.containers.truncate(1);
    check(&debugged, &ended, 4, &[]);
}

#[test]
fn other_resources_are_given_to_what_runs() {
    let sized = |cpu: &str, policy: &str| {
        let resources = json!({"requests": {"cpu": cpu}});
        let rule = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
        pod(json!({"containers": [{"name": "main", "image": "img:1", "resources": resources, "resizePolicy": rule}]}))
    };
    let made = |pod: &Pod| {
        let mut main = c("main", 0, "img:1").running();
        main.annotations.insert(RESOURCES.to_owned(), resources::told(&pod.spec.as_ref().unwrap().containers[0]));
        main
    };
    let (small, large) = (sized("1", "NotRequired"), sized("2", "NotRequired"));
    let mut world = with(seen(true), [made(&small)]);
    let plan = check(&small, &world, 2, &[]);
    assert!(!is_resizing(&plan));
    let plan = check(&large, &world, 2, &["resize main-0"]);
    assert!(is_resizing(&plan));
    let has = |plan: &PodPlan| plan.status.container_statuses.as_ref().unwrap()[0].allocated_resources.clone().unwrap()["cpu"].0.clone();
    assert_eq!(has(&plan), "1", "what it has, not what it is to have");
    world.last_status = plan.status;
    world.memory.resized.insert("main-0".to_owned(), resources::told(&large.spec.as_ref().unwrap().containers[0]));
    let plan = check(&large, &world, 3, &[]);
    assert!(!is_resizing(&plan) && has(&plan) == "2");
    let world = with(seen(true), [made(&small)]);
    check(&sized("2", "RestartContainer"), &world, 2, &["stop main-0 30s Resized"]);
    // One of an earlier version is left as it is.
    check(&large, &with(seen(true), [c("main", 0, "img:1").running()]), 2, &[]);
}

#[test]
fn what_there_is_no_room_for_is_not_given_and_told() {
    let sized = |cpu: &str| {
        let container =
            |name: &str, cpu: &str| json!({"name": name, "image": "img:1", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let mut pod = pod(json!({"containers": [container("main", cpu), container("other", "1")]}));
        pod.metadata.generation = Some(7);
        pod
    };
    let (small, large) = (sized("1"), sized("2"));
    let made = |name: &str, index: usize| {
        let mut it = c(name, 0, "img:1").running();
        it.annotations.insert(RESOURCES.to_owned(), resources::told(&small.spec.as_ref().unwrap().containers[index]));
        it
    };
    let mut world = with(seen(true), [made("main", 0), made("other", 1)]);
    assert_eq!(resize_plan::as_it_is(&small, &world), None);
    let as_it_is = resize_plan::as_it_is(&large, &world).unwrap();
    assert_eq!(as_it_is, small, "the other one is as it is to be");
    world.memory.sizing = Sizing::Waits(Reason::new("Deferred", "no room"));
    let plan = check(&as_it_is, &world, 2, &[]);
    let told = |plan: &PodPlan| {
        let all = plan.status.conditions.clone().unwrap_or_default();
        all.into_iter()
            .find(|it| it.type_ == "PodResizePending")
            .map(|it| (it.status, it.reason.unwrap(), it.message.unwrap(), it.observed_generation))
    };
    assert_eq!(told(&plan), Some(("True".to_owned(), "Deferred".to_owned(), "no room".to_owned(), Some(7))));
    assert!(!is_resizing(&plan));
    // As long as nobody knows what room there is, what was said stays said.
    world.last_status = plan.status;
    world.memory.sizing = Sizing::Unknown;
    let plan = check(&as_it_is, &world, 2, &[]);
    assert_eq!(told(&plan).unwrap().1, "Deferred");
    // There is room now.
    world.last_status = plan.status;
    world.memory.sizing = Sizing::Accepted;
    let plan = check(&large, &world, 3, &["resize main-0"]);
    assert!(told(&plan).is_none() && is_resizing(&plan));
    let unknown =
        ObservedPod { last_status: plan.status, memory: Memory { sizing: Sizing::Unknown, ..Memory::default() }, ..world.clone() };
    assert!(is_resizing(&check(&as_it_is, &unknown, 3, &[])), "it was given more, and may still be");
    // One that starts anew meanwhile starts with what it had.
    world.memory.sizing = Sizing::Waits(Reason::new("Deferred", "no room"));
    world.containers.retain(|it| it.metadata.name != "main");
    let mut ended = made("main", 0);
    (ended.state, ended.exit_code) = (ContainerState::Exited, 1);
    world.containers.push(ended);
    assert_eq!(resize_plan::as_it_is(&large, &world), Some(small));
}
