//! The same of the images that containers wait for.

use super::*;
use crate::agent::observed::record_failure;

#[test]
fn pull_policies() {
    let none = || ObservedPod { images: Default::default(), ..seen(true) };
    let table: Vec<(&str, Value, bool, &[&str])> = vec![
        ("img:1", json!(null), true, &["create main#0 s0 +0"]),
        ("img:1", json!(null), false, &["pull img:1 for main#0"]),
        ("img", json!(null), true, &["pull img for main#0"]),
        ("img:latest", json!(null), true, &["pull img:latest for main#0"]),
        ("localhost:5000/img", json!(null), true, &["pull localhost:5000/img for main#0"]),
        ("img@sha256:ab", json!(null), true, &["create main#0 s0 +0"]),
        ("img:1", json!("Always"), true, &["pull img:1 for main#0"]),
        ("img:1", json!("Never"), true, &["create main#0 s0 +0"]),
        ("img:1", json!("Never"), false, &[]),
    ];
    for (image, policy, present, want) in table {
        let pod = pod(json!({"containers": [{"name": "main", "image": image, "imagePullPolicy": policy}]}));
        let mut seen = none();
        if present {
            seen.images.insert(image.to_owned());
        }
        let got = plan(&pod, false, &seen, at(0));
        assert_eq!(short(&got), want, "{image} {policy} {present}");
        if want.is_empty() {
            assert_eq!(state(&got.status, "main"), "waiting ErrImageNeverPull");
        }
    }
    let pod = pod(json!({"containers": [{"name": "main", "image": "img:1", "imagePullPolicy": "Always"}]}));
    let mut pulled = seen(true);
    pulled.memory.pulled.insert(("main".into(), 0));
    check(&pod, &pulled, 0, &["create main#0 s0 +0"]);
}

#[test]
fn an_image_that_is_mounted_is_waited_for_too() {
    let volume = |policy: &str| {
        pod(json!({"volumes": [{"name": "data", "image": {"reference": "data:1", "pullPolicy": policy}}],
            "containers": [{"name": "main", "image": "img:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
                {"name": "other", "image": "img:1"}]}))
    };
    let mut now = seen(true);
    let other = "create other#0 s0 +0";
    check(&volume("IfNotPresent"), &now, 5, &["pull data:1 for volume/data#0", other]);
    let plan = check(&volume("Never"), &now, 5, &[other]);
    let waiting = plan.status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.message.as_deref(), Some("Container image \"data:1\" is not present with pull policy of Never"));
    record_failure(&mut now.memory, Subject::Image("volume/data".into()), at(5), "ErrImagePull", "no such image".into());
    let plan = check(&volume("IfNotPresent"), &now, 6, &[other]);
    let waiting = plan.status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("ImagePullBackOff"));
    now.memory.failures.clear();
    now.images.insert("data:1".into());
    let main = "create main#0 s0 +0";
    check(&volume("IfNotPresent"), &now, 5, &[main, other]);
    check(&volume("Always"), &now, 5, &["pull data:1 for volume/data#0", other]);
    now.memory.pulled.insert(("volume/data".into(), 0));
    check(&volume("Always"), &now, 5, &[main, other]);
}

#[test]
fn who_was_made_has_its_image() {
    let pod = pod(json!({"containers": [{"name": "main", "image": "img:1", "imagePullPolicy": "Never"}]}));
    // Nobody asks for the image of one that runs, and until its start has ended it counts as made only.
    let seen = with(ObservedPod { images: Default::default(), ..seen(true) }, [c("main", 0, "img:1").0]);
    let got = plan(&pod, false, &seen, at(2));
    assert_eq!(state(&got.status, "main"), "waiting ContainerCreating");
}
