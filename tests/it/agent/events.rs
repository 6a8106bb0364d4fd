//! What the agent tells of resizes, and of the pods that it stops once it is back.

use super::*;

async fn all_events(world: &World) -> Vec<Event> {
    Api::all(world.admin.clone()).list(&ListParams::default()).await.unwrap().items
}

/// Reason, type and the message's end of the events that tell of resizes, in the order of their telling.
async fn of_resizes(world: &World) -> Vec<(String, String, String)> {
    let mut all: Vec<Event> = all_events(world).await;
    all.retain(|event| event.reason.as_ref().is_some_and(|reason| reason.starts_with("Resize")));
    // They are written one after the other.
    all.sort_by_key(|event| event.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap());
    assert!(all.iter().all(|event| event.count == Some(1)), "{all:?}");
    all.into_iter().map(|event| (event.reason.unwrap(), event.type_.unwrap(), event.message.unwrap())).collect()
}

async fn resize(world: &World, cpu: &str) {
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]}});
    world.pods().patch_subresource("resize", "web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

fn resized(cpu: &str, generation: i64, error: &str) -> String {
    let error = if error.is_empty() { String::new() } else { format!(r#","error":"{error}""#) };
    format!(r#"{{"containers":[{{"name":"main","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}],"generation":{generation}{error}}}"#)
}

/// Waits until these resizes were told and no others.
async fn were_told(world: &World, expected: &[(&str, &str, String)]) {
    let expected: Vec<(String, String, String)> =
        expected.iter().map(|(reason, type_, message)| ((*reason).to_owned(), (*type_).to_owned(), message.clone())).collect();
    until(&format!("{expected:?}"), async || (of_resizes(world).await.len() >= expected.len()).then_some(())).await;
    assert_eq!(of_resizes(world).await, expected);
}

#[tokio::test]
async fn each_change_of_a_resize_is_told_once() {
    let mut world = World::started().await;
    let container = json!({"name": "main", "image": "img:1", "resources": {"requests": {"cpu": "1m"}}});
    world.create("web", json!({"containers": [container]})).await;
    world.ready("web").await;

    resize(&world, "2m").await;
    let mut expected = vec![
        ("ResizeStarted", "Normal", format!("Pod resize started: {}", resized("2m", 2, ""))),
        ("ResizeCompleted", "Normal", format!("Pod resize completed: {}", resized("2m", 2, ""))),
    ];
    were_told(&world, &expected).await;

    // The runtime fails. Another size is tried at once, whatever failed.
    world.runtime.fail_resizes(Some("no such cgroup"));
    resize(&world, "3m").await;
    let cause = "container main: change the limits of container main: no such cgroup";
    expected.push(("ResizeStarted", "Normal", format!("Pod resize started: {}", resized("3m", 3, ""))));
    expected.push(("ResizeError", "Warning", format!("Pod resize error: {}", resized("3m", 3, cause))));
    were_told(&world, &expected).await;
    // Another field is no other size.
    let patch = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 86400}}));
    world.pods().patch("web", &PatchParams::default(), &patch).await.unwrap();
    let observed = |pod: &Pod| pod.status.as_ref().and_then(|status| status.observed_generation) == Some(4);
    world.pod("web", "seen to have a deadline", observed).await;
    // Nor is it to an agent that begins anew, which carries on with what it was told of before.
    world.kill().await;
    let patch = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 80000}}));
    world.pods().patch("web", &PatchParams::default(), &patch).await.unwrap();
    world.runtime.fail_resizes(None);
    world.start();
    expected.push(("ResizeCompleted", "Normal", format!("Pod resize completed: {}", resized("3m", 5, ""))));
    were_told(&world, &expected).await;
    resize(&world, "4m").await;
    expected.push(("ResizeStarted", "Normal", format!("Pod resize started: {}", resized("4m", 6, ""))));
    expected.push(("ResizeCompleted", "Normal", format!("Pod resize completed: {}", resized("4m", 6, ""))));
    were_told(&world, &expected).await;

    // More than the node will ever have, also to an agent that begins anew.
    resize(&world, "9999").await;
    let node = Api::<Node>::all(world.admin.clone()).get("n1").await.unwrap();
    let offered = node.status.unwrap().allocatable.unwrap()["cpu"].0.clone();
    let millis = offered.strip_suffix('m').map_or_else(|| offered.parse::<u64>().unwrap() * 1000, |millis| millis.parse().unwrap());
    let cause = format!("Node didn't have enough capacity: cpu, requested: 9999000, capacity: {millis}");
    expected.push(("ResizeInfeasible", "Warning", format!("Pod resize Infeasible: {}", resized("9999", 7, &cause))));
    were_told(&world, &expected).await;
    world.pod("web", "told so", |pod| condition(pod, "PodResizePending") == "True").await;
    world.kill().await;
    world.start();
    world.create("other", json!({})).await;
    world.ready("other").await;
    resize(&world, "2m").await;
    expected.push(("ResizeStarted", "Normal", format!("Pod resize started: {}", resized("2m", 8, ""))));
    expected.push(("ResizeCompleted", "Normal", format!("Pod resize completed: {}", resized("2m", 8, ""))));
    were_told(&world, &expected).await;
}

#[tokio::test]
async fn who_comes_back_says_what_it_stops_and_what_waits() {
    let mut world = World::started().await;
    // Whose end takes as long as the test lets it.
    let hook = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = json!({"preStop": {"httpGet": {"host": "127.0.0.1", "port": hook.local_addr().unwrap().port()}}});
    let doomed = json!({"containers": [{"name": "main", "image": "img:1", "lifecycle": asked}]});
    world.create("web", json!({})).await;
    world.create("doomed", doomed).await;
    world.ready("web").await;
    world.ready("doomed").await;
    world.cut();
    world.pods().delete("doomed", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.gone("doomed").await;
    world.kill().await;
    world.start();
    world.create("fresh", json!({})).await;
    world.heal();
    let (asking, _) = hook.accept().await.unwrap();
    event(&world, "WaitingForOldPods", "are stopped first").await;
    drop(asking);
    world.ready("fresh").await;
    let told = event(&world, "StoppingOldPods", "default/doomed").await;
    assert_eq!(told.message.as_deref(), Some("a pod that the server no longer has is stopped before any other starts: default/doomed"));
    assert_eq!((told.involved_object.kind.as_deref(), told.involved_object.uid.as_deref()), (Some("Node"), Some("n1")));
    // A pod that ends in its own time is none of them.
    world.pods().delete("fresh", &DeleteParams::default()).await.unwrap();
    world.gone("fresh").await;
    world.cut();
    world.heal();
    world.create("third", json!({})).await;
    world.ready("third").await;
    let all = all_events(&world).await;
    assert_eq!(all.iter().filter(|event| event.reason.as_deref() == Some("StoppingOldPods")).count(), 1, "{all:?}");
}

/// Waits for the start of a pod's container to be told: whatever was told before is written by then.
async fn start_is_told(world: &World, name: &str) {
    let of = |event: &Event| event.reason.as_deref() == Some("Started") && event.involved_object.name.as_deref() == Some(name);
    until(&format!("the start of {name}"), async || all_events(world).await.into_iter().find(of)).await;
}

/// Cuts the agent off until it knows that, and lets it list its pods anew.
async fn lists_anew(world: &World) {
    world.cut();
    let seen = world.asked.lock().unwrap().failed.len();
    let renews = |path: &String| path.ends_with("/n1") || path.ends_with("/n1/status");
    until("a renewal to fail", async || world.asked.lock().unwrap().failed[seen..].iter().any(renews).then_some(())).await;
    let seen = world.asked.lock().unwrap().reached.len();
    world.heal();
    let lists = |path: &String| path.contains("/api/v1/pods?") && !path.contains("watch=");
    until("its pods to be listed", async || world.asked.lock().unwrap().reached[seen..].iter().any(lists).then_some(())).await;
}

#[tokio::test]
async fn who_does_not_stop_is_told_of_once_and_waited_for_no_longer() {
    let mut world = World::new().await;
    world.lost_hold = Duration::ZERO;
    world.start();
    world.runtime.behave("stuck", Behaviour { stop_error: Some("its shim hangs".into()), ..Behaviour::default() });
    let stuck = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "stuck", "image": "img:1"}]});
    world.create("doomed", stuck).await;
    world.ready("doomed").await;
    world.cut();
    world.pods().delete("doomed", &DeleteParams::default().grace_period(0)).await.unwrap();
    world.gone("doomed").await;
    for name in ["fresh", "third"] {
        lists_anew(&world).await;
        // It is bound here after the list that names the lost pod once more, and so waits for it.
        world.create(name, json!({})).await;
        world.ready(name).await;
        start_is_told(&world, name).await;
        assert!(world.sandboxes().await.contains(&"doomed".to_owned()));
    }
    let all = all_events(&world).await;
    let told: Vec<&Event> = all.iter().filter(|event| event.reason.as_deref() == Some("OldPodDoesNotStop")).collect();
    let [told] = told[..] else { panic!("{told:?}") };
    let message = "a pod that the server no longer has does not stop: others start all the same: default/doomed";
    assert_eq!((told.message.as_deref(), told.type_.as_deref(), told.count), (Some(message), Some("Warning"), Some(1)));
    assert_eq!(told.involved_object.kind.as_deref(), Some("Node"));
}
