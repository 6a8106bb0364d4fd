//! HorizontalPodAutoscalers as the real kubectl makes and shows them, scaled by made-up figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use podbay::clock::SystemClock;
use podbay::control::autoscaler::{self, fake::Figures};
use podbay::model::usage::{Amounts, PodUsage};
use podbay::model::{Key, Kind, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::{DEPLOYMENTS, PODS, deployment};
use crate::rig::Rig;

const AUTOSCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const HOUR_AGO_SECONDS: i64 = 3600;

/// A Deployment of two pods, each of which uses 80 thousandths of a core of the 100 it requests.
async fn busy(rig: &Rig, figures: &Figures) {
    let requests = json!({"requests": {"cpu": "100m"}});
    let mut web = deployment("web");
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = requests.clone();
    assert_eq!(rig.ask("POST", DEPLOYMENTS, web).await.0, StatusCode::CREATED);
    let now = jiff::Timestamp::now();
    let before: Timestamp = Timestamp::from_second(now.as_second() - HOUR_AGO_SECONDS).unwrap();
    let mut usage = BTreeMap::new();
    for name in ["a", "b"] {
        let container = json!({"name": "main", "image": "busybox", "resources": requests});
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": "n1", "containers": [container]}});
        let (code, made) = rig.ask("POST", PODS, pod).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": before.to_string()});
        let status = json!({"status": {"phase": "Running", "startTime": before.to_string(), "conditions": [ready]}});
        assert_eq!(rig.ask("PATCH", &format!("{PODS}/{name}/status"), status).await.0, StatusCode::OK);
        let containers = [("main".to_owned(), Amounts { cpu_nanos: 80_000_000, memory_bytes: 1 << 20 })].into();
        let figures = PodUsage { at: now, window: Duration::from_secs(15), containers };
        usage.insert(made["metadata"]["uid"].as_str().unwrap().to_owned(), figures);
    }
    figures.set(usage);
}

/// Waits until what is stored under the key is as wanted.
async fn becomes(rig: &Rig, key: &Key, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut watch = rig.store.watch(rig.store.snapshot().revision()).unwrap();
    loop {
        let now = rig.store.snapshot().get(key).map(|object| object.value()).unwrap_or_default();
        if wanted(&now) {
            return now;
        }
        tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap_or_else(|_| panic!("{key} stays {now}")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_kubectl_autoscales() {
    let (rig, figures, end) = (Rig::start().await, Arc::new(Figures::default()), CancellationToken::new());
    tokio::spawn(autoscaler::run(Arc::clone(&rig.store), figures.clone(), Arc::new(SystemClock), end.clone()));
    let node = json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "4", "memory": "1Gi", "pods": "9"}}});
    rig.ask("POST", "/api/v1/nodes", node).await;
    busy(&rig, &figures).await;

    let said = rig.kubectl_ok("autoscale deployment web --min=2 --max=5 --cpu=50%").await;
    assert!(said.contains("horizontalpodautoscaler.autoscaling/web autoscaled"), "{said}");
    let web = becomes(&rig, &Key::new(Kind::Deployment, "default", "web"), |it| it["spec"]["replicas"] == 4).await;
    assert!(web["metadata"]["managedFields"].to_string().contains("podbay-autoscaler"), "{web}");
    let it = becomes(&rig, &Key::new(Kind::HorizontalPodAutoscaler, "default", "web"), |it| it["status"]["desiredReplicas"] == 4).await;
    assert_eq!(it["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50, "{it}");

    let table = rig.kubectl_ok("get hpa").await;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]);
    assert_eq!(words[1][..7], ["web", "Deployment/web", "cpu:", "80%/50%", "2", "5", "2"], "{table}");
    let told = rig.kubectl_ok("describe hpa web").await;
    for part in [
        "80% (80m) / 50%",
        "AbleToScale",
        "SucceededRescale",
        "ScalingActive",
        "ValidMetricFound",
        "Min replicas:",
        "2 current / 4 desired",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    becomes_told(&rig, "SuccessfulRescale").await;
    assert!(rig.kubectl_ok("get all").await.contains("horizontalpodautoscaler.autoscaling/web"));
    assert!(rig.kubectl_ok("explain hpa.spec.behavior").await.contains("scaleDown"));
    rig.kubectl_ok("patch hpa web -p {\"spec\":{\"maxReplicas\":6}}").await;
    assert_eq!(rig.get(&format!("{AUTOSCALERS}/web")).await["spec"]["maxReplicas"], 6);
    rig.kubectl_ok("delete hpa web").await;
    end.cancel();
}

/// Waits for an event of this reason about the autoscaler.
async fn becomes_told(rig: &Rig, reason: &str) {
    let mut watch = rig.store.watch(rig.store.snapshot().revision()).unwrap();
    let is_told = || rig.store.snapshot().list(Kind::Event).any(|event| event.value()["reason"] == reason);
    while !is_told() {
        tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("an event").unwrap();
    }
    assert!(rig.kubectl_ok("describe hpa web").await.contains(reason));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_nobody_serves_are_refused() {
    let rig = Rig::start().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let metric =
        json!({"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "10"}}});
    let it = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target, "metrics": [metric]}});
    let (code, answer) = rig.ask("POST", AUTOSCALERS, it).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["message"].as_str().unwrap().contains("no API for custom or external metrics is served"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_kind_with_a_scale_is_autoscaled() {
    let (rig, figures, end) = (Rig::start().await, Arc::new(Figures::default()), CancellationToken::new());
    tokio::spawn(autoscaler::run(Arc::clone(&rig.store), figures.clone(), Arc::new(SystemClock), end.clone()));
    let node = json!({"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": "4", "memory": "1Gi", "pods": "9"}}});
    rig.ask("POST", "/api/v1/nodes", node).await;
    busy(&rig, &figures).await;
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}});
    let scale = json!({"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.pods"});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}, "scale": scale}});
    let definition = json!({"metadata": {"name": "widgets.shop.example.com"}, "spec": {"group": "shop.example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": [version]}});
    let (code, answer) = rig.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let of = |value: Value| {
        let mut whole = json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
        for (name, value) in value.as_object().unwrap() {
            whole[name] = value.clone();
        }
        whole
    };
    const WIDGETS: &str = "/apis/shop.example.com/v1/namespaces/default/widgets";
    assert_eq!(rig.ask("POST", WIDGETS, of(json!({"spec": {"size": 2}}))).await.0, StatusCode::CREATED);

    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let target = json!({"apiVersion": "shop.example.com/v1", "kind": "Widget", "name": "w"});
    let it =
        json!({"metadata": {"name": "w"}, "spec": {"minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": target, "metrics": [metric]}});
    assert_eq!(rig.ask("POST", AUTOSCALERS, it).await.0, StatusCode::CREATED);
    // Whose controller has not said yet which its pods are.
    let key = Key::new(Kind::HorizontalPodAutoscaler, "default", "w");
    becomes(&rig, &key, |it| it["status"]["conditions"].to_string().contains("InvalidSelector")).await;
    let said = json!({"status": {"size": 2, "pods": "app=web"}});
    let (code, answer) = rig.ask("PATCH", &format!("{WIDGETS}/w/status"), said).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    rig.kubectl_ok("annotate hpa w look=again").await;
    let kind = rig.store.snapshot().definitions().kind_of("shop.example.com/v1", "Widget").unwrap();
    becomes(&rig, &Key::new(kind, "default", "w"), |it| it["spec"]["size"] == 4).await;
    assert!(rig.kubectl_ok("get hpa w").await.contains("Widget/w"));
    end.cancel();
}
