//! A pod that runs is given other resources, and the daemon's end takes nothing back.

use serde_json::Value;

use crate::hosts::{Hosts, text};
use crate::pods::Place;
use crate::runtimes::Kind;

/// The share of the processors that the pod's container has by its cgroup.
const SHARE: &str = "cat /sys/fs/cgroup/cpu.weight 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.shares";

#[test]
fn a_pod_has_what_it_was_given_and_no_more_than_its_node() {
    let hosts = Hosts::new(&Kind::Engine.prefix("pbs"), &["one"]);
    let mut place = Place::start(&hosts, Kind::Engine);
    place.pod("p", "  containers:\n  - {name: main, command: [sleep, '1000'], resources: {requests: {cpu: 100m}}, IMAGE}\n");
    let container = |pod: &Value| text(pod, "/status/containerStatuses/0/containerID").to_owned();
    let made = container(&place.ready("p"));
    let small = place.inside("p", SHARE);

    resize(&place, "200m");
    has(&place, "200m", None);
    let large = place.inside("p", SHARE);
    assert_ne!(small, large);
    resize(&place, "9999");
    has(&place, "200m", Some("Infeasible"));
    assert_eq!(place.inside("p", SHARE), large);
    told(&place, "ResizeCompleted ResizeInfeasible ResizeStarted");

    // Another daemon knows what the container has, and still gives it no more.
    place.kill_daemon();
    place.up();
    resize(&place, "9998");
    has(&place, "200m", Some("Infeasible"));
    assert_eq!(place.inside("p", SHARE), large);
    resize(&place, "100m");
    has(&place, "100m", None);
    assert_eq!(place.inside("p", SHARE), small);
    assert_eq!(container(&place.get("p").unwrap()), made, "it never started anew");
    told(&place, "ResizeCompleted ResizeCompleted ResizeInfeasible ResizeInfeasible ResizeStarted ResizeStarted");
}

/// Waits until these reasons were told of resizes.
fn told(place: &Place<'_>, reasons: &str) {
    place.admin.wait(reasons, || {
        let all = place.admin.kubectl_ok(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
        let mut resizes: Vec<&str> = all.split_whitespace().filter(|reason| reason.starts_with("Resize")).collect();
        resizes.sort_unstable();
        (resizes.join(" ") == reasons).then_some(())
    });
}

fn resize(place: &Place<'_>, cpu: &str) {
    let patch = format!(r#"{{"spec":{{"containers":[{{"name":"main","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}"#);
    place.admin.kubectl_ok(&["patch", "pod", "p", "--subresource", "resize", "-p", &patch]);
}

/// Waits until the pod says what it has and why it has no more, of its spec as it is now.
fn has(place: &Place<'_>, cpu: &str, pending: Option<&str>) {
    place.admin.wait(&format!("{cpu}, {pending:?}"), || {
        let pod = place.get("p")?;
        let conditions = pod["status"]["conditions"].as_array()?;
        let of = |name: &str| conditions.iter().find(|it| it["type"] == name);
        let so = pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
            && text(&pod, "/status/containerStatuses/0/resources/requests/cpu") == cpu
            && of("PodResizePending").map(|it| text(it, "/reason")) == pending
            && of("PodResizeInProgress").is_none();
        so.then_some(())
    });
}
