use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::autoscaling_v1::{BEHAVIOR, CONDITIONS, CURRENT, METRICS};
use super::between;
use crate::model::{Kind, Object};

const V2: Kind = Kind::HorizontalPodAutoscaler;

fn v1() -> Kind {
    Kind::of("autoscaling/v1", "HorizontalPodAutoscaler").unwrap()
}

fn to_v1(value: &Value) -> Value {
    between(value.clone(), V2, v1())
}

fn to_v2(value: &Value) -> Value {
    between(value.clone(), v1(), V2)
}

fn whole(version: &str, annotations: Value, spec: Value) -> Value {
    let mut it = json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"}, "spec": spec});
    if !annotations.is_null() {
        it["metadata"]["annotations"] = annotations;
    }
    it
}

/// Each metric of `v2` and what `v1`'s annotation has of it, as Kubernetes writes it.
fn metrics() -> Vec<(Value, Value)> {
    let selector = json!({"matchLabels": {"verb": "GET"}});
    let metric = json!({"name": "requests", "selector": selector});
    let target = json!({"apiVersion": "v1", "kind": "Service", "name": "web"});
    vec![
        (
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 70}}}),
            json!({"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}}),
        ),
        (
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "100m"}}}),
            json!({"type": "Resource", "resource": {"name": "cpu", "targetAverageValue": "100m"}}),
        ),
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app",
                "target": {"type": "Utilization", "averageUtilization": 60}}}),
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app", "targetAverageUtilization": 60}}),
        ),
        (
            json!({"type": "Pods", "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "1k"}}}),
            json!({"type": "Pods", "pods": {"metricName": "requests", "selector": selector, "targetAverageValue": "1k"}}),
        ),
        (
            json!({"type": "Object", "object": {"describedObject": target, "metric": metric, "target": {"type": "Value", "value": "2k"}}}),
            json!({"type": "Object", "object": {"target": target, "metricName": "requests", "selector": selector, "targetValue": "2k"}}),
        ),
        (
            json!({"type": "Object", "object": {"describedObject": target, "metric": {"name": "requests"},
                "target": {"type": "AverageValue", "averageValue": "3"}}}),
            json!({"type": "Object", "object": {"target": target, "metricName": "requests", "averageValue": "3"}}),
        ),
        (
            json!({"type": "External", "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "30"}}}),
            json!({"type": "External", "external": {"metricName": "requests", "metricSelector": selector, "targetAverageValue": "30"}}),
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "30"}}}),
            json!({"type": "External", "external": {"metricName": "queue", "targetValue": "30"}}),
        ),
    ]
}

/// The same of what was measured.
fn measures() -> Vec<(Value, Value)> {
    vec![
        (
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 71, "averageValue": "71m"}}}),
            json!({"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 71, "currentAverageValue": "71m"}}),
        ),
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "app", "current": {"averageValue": "1Mi"}}}),
            json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "app", "currentAverageValue": "1Mi"}}),
        ),
        (
            json!({"type": "Pods", "pods": {"metric": {"name": "requests"}, "current": {"averageValue": "9"}}}),
            json!({"type": "Pods", "pods": {"metricName": "requests", "currentAverageValue": "9"}}),
        ),
        (
            json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "web"}, "metric": {"name": "requests"},
                "current": {"value": "8", "averageValue": "4"}}}),
            json!({"type": "Object", "object": {"target": {"kind": "Service", "name": "web"}, "metricName": "requests", "currentValue": "8",
                "averageValue": "4"}}),
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "queue"}, "current": {"value": "7", "averageValue": "1"}}}),
            json!({"type": "External", "external": {"metricName": "queue", "currentValue": "7", "currentAverageValue": "1"}}),
        ),
    ]
}

fn cpu(percent: i32) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

#[test]
fn the_target_for_cpu_is_a_field() {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let old = whole(
        "v1",
        Value::Null,
        json!({"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}),
    );
    let new = whole("v2", Value::Null, json!({"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 5, "metrics": [cpu(60)]}));
    assert_eq!(to_v2(&old), new);
    assert_eq!(to_v1(&new), old);
    let bare = whole("v1", json!({"a": "b"}), json!({"maxReplicas": 5}));
    assert_eq!(to_v2(&bare)["spec"], json!({"maxReplicas": 5}), "what is not said is the defaults' to say");
    assert_eq!(to_v2(&bare)["metadata"], bare["metadata"]);
}

#[test]
fn other_metrics_are_annotations() {
    for (new, old) in metrics() {
        let v2 = whole("v2", Value::Null, json!({"maxReplicas": 5, "metrics": [new]}));
        let v1 = to_v1(&v2);
        let said: Value = serde_json::from_str(v1["metadata"]["annotations"][METRICS].as_str().unwrap()).unwrap();
        assert_eq!((said, &v1["spec"]), (json!([old]), &json!({"maxReplicas": 5})));
        assert_eq!(to_v2(&v1), v2);
    }
    // The last of two targets for CPU is the field; the order of the rest stays.
    let mut all: Vec<Value> = metrics().into_iter().map(|(new, _)| new).collect();
    all.splice(1..1, [cpu(90), cpu(50)]);
    let v1 = to_v1(&whole("v2", Value::Null, json!({ "metrics": all })));
    assert_eq!(v1["spec"], json!({"targetCPUUtilizationPercentage": 50}));
    all.remove(2);
    all.push(cpu(50));
    assert_eq!(to_v2(&v1)["spec"]["metrics"], json!(all));
}

#[test]
fn behaviour_is_an_annotation_with_gos_names() {
    let rules = |percent: i32| {
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "0.05",
        "policies": [{"type": "Percent", "value": percent, "periodSeconds": 15}]})
    };
    let behavior = json!({"scaleUp": rules(100), "scaleDown": rules(10)});
    let v2 = whole("v2", Value::Null, json!({"metrics": [cpu(50)], "behavior": behavior}));
    let v1 = to_v1(&v2);
    let said: Value = serde_json::from_str(v1["metadata"]["annotations"][BEHAVIOR].as_str().unwrap()).unwrap();
    assert_eq!(said["ScaleDown"]["Policies"], json!([{"Type": "Percent", "Value": 10, "PeriodSeconds": 15}]));
    assert_eq!(to_v2(&v1), v2);
    // As a person writes it, and as Kubernetes does, with what says nothing.
    for text in
        [behavior.to_string(), r#"{"ScaleUp":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max"},"ScaleDown":null}"#.to_owned()]
    {
        let stored = to_v2(&whole("v1", json!({BEHAVIOR: text}), json!({})));
        assert_eq!(stored["spec"]["behavior"]["scaleUp"]["selectPolicy"], "Max", "{text}");
        assert!(stored["metadata"].get("annotations").is_none());
    }
}

#[test]
fn a_status_is_a_field_and_annotations() {
    let (new, old): (Vec<Value>, Vec<Value>) = measures().into_iter().unzip();
    let condition = json!([{"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "so it is",
        "lastTransitionTime": "2026-11-27T10:00:00Z"}]);
    let status =
        json!({"observedGeneration": 3, "desiredReplicas": 2, "currentReplicas": 0, "currentMetrics": new, "conditions": condition});
    let mut v2 = whole("v2", json!({"a": "b"}), json!({"metrics": [cpu(50)]}));
    v2["status"] = status;
    let v1 = to_v1(&v2);
    let read = |name: &str| serde_json::from_str::<Value>(v1["metadata"]["annotations"][name].as_str().unwrap()).unwrap();
    assert_eq!((read(CURRENT), read(CONDITIONS)), (json!(old), condition));
    assert_eq!(
        v1["status"],
        json!({"observedGeneration": 3, "desiredReplicas": 2, "currentReplicas": 0, "currentCPUUtilizationPercentage": 71})
    );
    assert_eq!(to_v2(&v1), v2);
    // Without the annotation the field is all that is known.
    let mut bare = whole("v1", Value::Null, json!({}));
    bare["status"] = json!({"currentReplicas": 1, "desiredReplicas": 1, "currentCPUUtilizationPercentage": 9});
    let measured = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 9}}}]);
    assert_eq!(to_v2(&bare)["status"]["currentMetrics"], measured);
}

#[test]
fn what_cannot_be_read_is_left_out_and_told() {
    for (name, text) in [
        (METRICS, "[{"),
        (METRICS, r#"{"type":"Resource"}"#),
        (METRICS, r#"[{"type":"Resource","resource":{"name":7}}]"#),
        (METRICS, r#"[{"type":"Resource","resource":"cpu"}]"#),
        (BEHAVIOR, r#"{"scaleUp":[]}"#),
        (BEHAVIOR, "[]"),
        (CURRENT, "17"),
        (CONDITIONS, r#"[{"type":7}]"#),
    ] {
        let old = whole("v1", json!({name: text, "a": "b"}), json!({"maxReplicas": 2, "targetCPUUtilizationPercentage": 9}));
        let (stored, unread) = v1().conversion().unwrap().stored(old, v1());
        assert_eq!(stored, whole("v2", json!({"a": "b"}), json!({"maxReplicas": 2, "metrics": [cpu(9)]})), "{name}: {text}");
        assert_eq!(unread.iter().map(|it| it.path.clone()).collect::<Vec<_>>(), [format!("metadata.annotations[{name}]")], "{text}");
        assert!(!unread[0].message.contains(text));
    }
    for nothing in ["null", "[]"] {
        let (stored, unread) = v1().conversion().unwrap().stored(whole("v1", json!({METRICS: nothing}), json!({})), v1());
        assert_eq!((stored, unread), (whole("v2", Value::Null, json!({})), Vec::new()));
    }
}

#[test]
fn fields_of_the_other_version_are_nobodys() {
    let mut old = whole("v1", Value::Null, json!({"maxReplicas": 2, "metrics": [cpu(9)], "behavior": {}}));
    old["status"] = json!({"currentMetrics": [], "conditions": [], "desiredReplicas": 1});
    let new = to_v2(&old);
    assert_eq!((&new["spec"], &new["status"]), (&json!({"maxReplicas": 2}), &json!({"desiredReplicas": 1})));
    // Nor does an annotation of `v1` say anything in `v2`.
    let lies = json!({METRICS: "[]", CONDITIONS: "[]"});
    assert!(to_v1(&whole("v2", lies, json!({"metrics": [cpu(9)]})))["metadata"].get("annotations").is_none());
}

#[test]
fn a_rule_is_told_where_it_was_broken() {
    let conversion = v1().conversion().unwrap();
    let (one, two) = (metrics()[0].1.clone(), metrics()[1].1.clone());
    let noted = whole("v1", json!({METRICS: json!([one, two]).to_string(), BEHAVIOR: "{}"}), json!({"targetCPUUtilizationPercentage": 9}));
    let bare = whole("v1", Value::Null, json!({"targetCPUUtilizationPercentage": 9}));
    let annotation = |name: &str| Some(format!("metadata.annotations[{name}]"));
    let field = || Some("spec.targetCPUUtilizationPercentage".to_owned());
    for (path, written, place) in [
        ("spec.metrics[0].resource.target.averageUtilization", &bare, field()),
        ("spec.metrics[0].resource.target.averageUtilization", &noted, annotation(METRICS)),
        ("spec.metrics[1]", &noted, annotation(METRICS)),
        ("spec.metrics[2].resource", &noted, field()),
        ("spec.metrics", &noted, annotation(METRICS)),
        ("spec.behavior.scaleUp.policies[0]", &noted, annotation(BEHAVIOR)),
        ("spec.maxReplicas", &noted, None),
    ] {
        assert_eq!(conversion.place(path, written), place, "{path}");
    }
}

#[test]
fn what_is_no_object_stays_what_it_is() {
    for value in [Value::Null, json!([1]), json!("a"), json!({"metadata": 7, "spec": [], "status": "x"})] {
        let named = |kind: Kind| match value.is_object() {
            true => json!({"metadata": 7, "spec": [], "status": "x", "apiVersion": kind.api_version()}),
            false => value.clone(),
        };
        assert_eq!((to_v1(&value), to_v2(&value)), (named(v1()), named(V2)));
    }
}

/// An autoscaler as it may be stored.
fn stored() -> impl Strategy<Value = Value> {
    let others: Vec<Value> = metrics().into_iter().map(|(new, _)| new).chain([cpu(30), cpu(40)]).collect();
    let metric = proptest::sample::select(others);
    let behavior = proptest::option::of(proptest::sample::select(vec![
        json!({"scaleUp": {"selectPolicy": "Disabled"}}),
        json!({"scaleDown": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 9}]}}),
    ]));
    let measures = proptest::sample::subsequence(measures().into_iter().map(|(new, _)| new).collect::<Vec<_>>(), 0..=5);
    (proptest::collection::vec(metric, 1..5), behavior, measures, any::<bool>(), proptest::option::of("[a-z]{1,5}")).prop_map(
        |(metrics, behavior, measures, has_conditions, note)| {
            let mut it = whole(
                "v2",
                note.map_or(Value::Null, |note| json!({ note: "x" })),
                json!({"maxReplicas": 4, "metrics": metrics,
                "scaleTargetRef": {"kind": "Deployment", "name": "web"}}),
            );
            if let Some(behavior) = behavior {
                it["spec"]["behavior"] = behavior;
            }
            it["status"] = json!({"currentReplicas": 1, "desiredReplicas": 2});
            if !measures.is_empty() {
                it["status"]["currentMetrics"] = measures.into();
            }
            if has_conditions {
                it["status"]["conditions"] = json!([{"type": "A", "status": "True"}]);
            }
            it
        },
    )
}

#[test]
fn an_event_has_other_names_in_its_own_group() {
    let (new, old) = (Kind::of("events.k8s.io/v1", "Event").unwrap(), Kind::Event);
    let about = json!({"kind": "Pod", "name": "web"});
    let stored = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": about, "message": "m",
        "reportingComponent": "c", "source": {"host": "h"}, "firstTimestamp": "1", "lastTimestamp": "2", "count": 3,
        "series": {"count": 4}, "related": about, "eventTime": "5"});
    let said = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "regarding": about, "note": "m",
        "reportingController": "c", "deprecatedSource": {"host": "h"}, "deprecatedFirstTimestamp": "1", "deprecatedLastTimestamp": "2",
        "deprecatedCount": 3, "series": {"count": 4}, "related": about, "eventTime": "5"});
    assert_eq!(between(stored.clone(), old, new), said);
    assert_eq!(between(said.clone(), new, old), stored);
    assert_eq!((between(stored.clone(), old, old), between(said.clone(), new, new)), (stored, said));
    let strange = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "message": "of the other", "note": null});
    assert_eq!(between(strange, new, old), json!({"apiVersion": "v1", "kind": "Event", "message": null}));
    let conversion = new.conversion().unwrap();
    let rows = [("involvedObject.namespace", Some("regarding.namespace")), ("message", Some("note")), ("reason", None)];
    rows.into_iter().for_each(|(stored, place)| assert_eq!(conversion.place(stored, &json!(null)).as_deref(), place, "{stored}"));
}

proptest! {
    /// To the other version and back nothing is lost but where the target for CPU stood.
    #[test]
    fn round_trips_lose_nothing(it in stored()) {
        let old = to_v1(&it);
        let mut back = to_v2(&old);
        prop_assert_eq!(to_v1(&back), old, "the second time it is the same");
        let sorted = |value: &mut Value| {
            let metrics = value["spec"]["metrics"].as_array_mut().unwrap();
            metrics.sort_by_key(Value::to_string);
        };
        let mut it = it;
        sorted(&mut it);
        sorted(&mut back);
        prop_assert_eq!(back, it);
    }

    /// What is decoded from the other version is the object that was stored.
    #[test]
    fn an_object_is_read_in_either_version(it in stored()) {
        let object = Object::from_value(V2, it).unwrap();
        let again = Object::from_value(v1(), object.value_in(v1())).unwrap();
        let count = |object: &Object| object.get::<HorizontalPodAutoscaler>().unwrap().spec.metrics.as_ref().map(Vec::len);
        prop_assert_eq!(count(&again), count(&object));
        prop_assert_eq!(again.key(), object.key());
        prop_assert_eq!(again.kind().info().version, "v2");
    }
}
