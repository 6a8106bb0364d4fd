//! Images that pods need: who may pull them, and when they go.

use super::*;

async fn pull_secret(world: &World, name: &str, type_: &str, user: &str) {
    let config = json!({"auths": {"registry.test": {"username": user, "password": "p"}}}).to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": type_,
        "stringData": {".dockerconfigjson": config}});
    let api: Api<Secret> = Api::namespaced(world.admin.clone(), "default");
    api.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
}

#[tokio::test]
async fn pull_secrets_are_tried_until_one_is_taken() {
    let world = World::started().await;
    let (image, kind) = ("registry.test/app:1", "kubernetes.io/dockerconfigjson");
    world.images.demand(image, "right");
    for (name, type_, user) in [("a", kind, "wrong"), ("b", kind, "right"), ("c", "Opaque", "right")] {
        pull_secret(&world, name, type_, user).await;
    }
    let pod = |secrets: Value| json!({"containers": [{"name": "main", "image": image}], "imagePullSecrets": secrets});
    // Of no use are one that is not there, one of another type, and a wrong password; each is told.
    world.create("denied", pod(json!([{"name": "a"}, {"name": "c"}, {"name": "gone"}]))).await;
    let told = event(&world, "FailedToRetrieveImagePullSecret", "secret \"gone\": it does not exist").await;
    assert!(told.message.unwrap().contains("secret \"c\": its type is Opaque"));
    event(&world, "Failed", "denied to \"wrong\"").await;
    event(&world, "BackOff", "Back-off pulling image").await;
    world.create("served", pod(json!([{"name": "a"}, {"name": "b"}]))).await;
    world.ready("served").await;
    event(&world, "Pulled", "including waiting). Image size: 1048576 bytes").await;
    assert!(world.images.pulls().len() >= 3, "{:?}", world.images.pulls());
}

#[tokio::test]
async fn an_image_that_is_mounted_is_pulled_as_its_pods_own() {
    let world = World::started().await;
    let image = "registry.test/data:1";
    world.images.demand(image, "right");
    pull_secret(&world, "b", "kubernetes.io/dockerconfigjson", "right").await;
    let mount = |path: &str, sub: &str| json!({"name": "data", "mountPath": path, "subPathExpr": sub});
    let pod = |secrets: Value, sub: &str| {
        json!({"imagePullSecrets": secrets, "volumes": [{"name": "data", "image": {"reference": image}}],
            "containers": [{"name": "main", "image": "img:1", "env": [{"name": "PART", "value": "etc"}, {"name": "OUT", "value": "../x"}],
                "volumeMounts": [mount("/all", ""), mount("/part", sub)]}]})
    };
    world.create("denied", pod(json!([]), "")).await;
    world.pod("denied", "without its image", |pod| matches!(waiting(pod).as_str(), "ErrImagePull" | "ImagePullBackOff")).await;
    event(&world, "Failed", "Failed to pull image \"registry.test/data:1\"").await;
    world.create("served", pod(json!([{"name": "b"}]), "$(PART)")).await;
    world.ready("served").await;
    event(&world, "Pulled", "Successfully pulled image \"registry.test/data:1\"").await;
    let made = world.runtime.configs().into_values().next().unwrap().mounts;
    let parts: Vec<_> = made.iter().filter_map(|mount| Some((mount.readonly, mount.image.as_ref()?))).collect();
    assert_eq!(
        parts.iter().map(|(only, volume)| (*only, volume.image.as_str(), volume.sub_path.to_str().unwrap())).collect::<Vec<_>>(),
        [(true, image, ""), (true, image, "etc")]
    );
    world.create("out", pod(json!([]), "$(OUT)")).await;
    event(&world, "Failed", "subPath \"../x\" is not valid").await;
}

#[tokio::test]
async fn pods_of_one_image_share_its_pull() {
    let world = World::started().await;
    let same = || json!({"containers": [{"name": "main", "image": "same:1"}]});
    for name in ["a", "b", "c", "d"] {
        world.create(name, same()).await;
    }
    for name in ["a", "b", "c", "d"] {
        world.ready(name).await;
    }
    assert_eq!(world.images.pulls(), ["same:1"]);
}

#[tokio::test]
async fn a_long_pull_says_how_far_it_is() {
    let world = World::started().await;
    let held = world.images.hold_pulls("registry.test/large:1");
    world.create("slow", json!({"containers": [{"name": "main", "image": "registry.test/large:1"}]})).await;
    event(&world, "Pulling", "Pulling image \"registry.test/large:1\": 28 of 58 MiB").await;
    held.notify_one();
    world.ready("slow").await;
    event(&world, "Pulled", "Successfully pulled image \"registry.test/large:1\"").await;
}

#[tokio::test]
async fn a_pod_pulls_with_the_secrets_of_its_account() {
    let world = World::started().await;
    world.images.demand("registry.test/app:1", "right");
    pull_secret(&world, "b", "kubernetes.io/dockerconfigjson", "right").await;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}, "imagePullSecrets": [{"name": "b"}]});
    let api: Api<ServiceAccount> = Api::namespaced(world.admin.clone(), "default");
    api.create(&PostParams::default(), &serde_json::from_value(account).unwrap()).await.unwrap();
    let spec = json!({"containers": [{"name": "main", "image": "registry.test/app:1"}], "serviceAccountName": "builder"});
    world.create("app", spec).await;
    world.ready("app").await;
}

#[tokio::test]
async fn unused_images_go_when_the_disk_is_full() {
    let mut world = World::started().await;
    for name in ["unused:1", "unused:2", "unused:3"] {
        world.images.add(name);
    }
    world.create("web", json!({})).await;
    world.ready("web").await;
    world.stop().await;
    // Whatever disk this runs on, it is over such marks.
    world.image_gc = agent::image_plan::Policy { high_percent: 0, low_percent: 0, minimum_age_seconds: 0 };
    world.start();
    // None of them is on this disk: nothing comes free, and the next one goes all the same.
    event(&world, "ImageGCRemoved", "3 unused images were removed").await;
    assert!(world.images.image_status("unused:1").await.unwrap().is_none());
    event(&world, "FreeDiskSpaceFailed", "Failed to garbage collect required amount of images").await;
    assert!(world.images.image_status("img:1").await.unwrap().is_some(), "it is in use");
}
