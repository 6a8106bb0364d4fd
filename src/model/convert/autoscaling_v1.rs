//! HorizontalPodAutoscaler of `autoscaling/v1`, which is stored as `autoscaling/v2`. PURE.
//!
//! `v1` has one field for the metric it knows, the pods' use of CPU, and one for what was measured of it. All else of `v2`
//! is JSON in annotations there, as Kubernetes keeps it (`pkg/apis/autoscaling/v1/conversion.go` and `annotations.go`,
//! v1.33):
//!
//! | `v2` | `v1` |
//! |---|---|
//! | a metric `Resource` of `cpu` with a target of type `Utilization`: the last | `spec.targetCPUUtilizationPercentage` |
//! | all other metrics | annotation [`METRICS`], in `v1`'s flat form |
//! | `spec.behavior` | annotation [`BEHAVIOR`], with the names of Go's fields |
//! | `status.currentMetrics` | annotation [`CURRENT`], in the flat form; of CPU also `status.currentCPUUtilizationPercentage` |
//! | `status.conditions` | annotation [`CONDITIONS`] |
//!
//! The metric of the field comes behind those of the annotation, as in Kubernetes: that order is all that is lost. What
//! Kubernetes loses (all targets for CPU but one, of which it takes the first) goes into the annotation here.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Conversion, Unread};

pub const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
pub const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
pub const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
pub const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

const TARGET: &str = "targetCPUUtilizationPercentage";
const MEASURED: &str = "currentCPUUtilizationPercentage";

pub(in crate::model) const CONVERSION: Conversion = Conversion { to_stored, from_stored, place, selected: |field| Some(field.to_owned()) };

/// `v1`'s name of a field and the way to it in `v2`; `*` is `target` of what is wanted, `current` of what was measured.
type Row = (&'static str, &'static [&'static str]);

const NAME: Row = ("name", &["name"]);
const METRIC_NAME: Row = ("metricName", &["metric", "name"]);
const UTILIZATION: Row = ("*AverageUtilization", &["*", "averageUtilization"]);
const AVERAGE: Row = ("*AverageValue", &["*", "averageValue"]);
const VALUE: Row = ("*Value", &["*", "value"]);

/// The fields of each source of a metric, by the name under which a metric has it.
const SOURCES: [(&str, &[Row]); 5] = [
    ("resource", &[NAME, UTILIZATION, AVERAGE]),
    ("containerResource", &[NAME, ("container", &["container"]), UTILIZATION, AVERAGE]),
    ("pods", &[METRIC_NAME, ("selector", &["metric", "selector"]), AVERAGE]),
    (
        "object",
        &[
            ("target", &["describedObject"]),
            METRIC_NAME,
            ("selector", &["metric", "selector"]),
            VALUE,
            ("averageValue", &["*", "averageValue"]),
        ],
    ),
    ("external", &[METRIC_NAME, ("metricSelector", &["metric", "selector"]), VALUE, AVERAGE]),
];

/// What a metric is about: what is wanted of it, or what was measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Spec,
    Status,
}

impl Of {
    fn word(self) -> &'static str {
        if self == Self::Spec { "target" } else { "current" }
    }
}

/// The metric that is a field of its own in `v1`.
fn cpu(percent: &Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn to_stored(value: &mut Value) -> Vec<Unread> {
    let mut notes = Notes::take(value);
    let mut metrics = notes.list::<MetricSpec>(METRICS, |metric| nested(metric, Of::Spec)).unwrap_or_default();
    let behavior = notes.one::<HorizontalPodAutoscalerBehavior>(BEHAVIOR);
    if let Some(spec) = part(value, "spec") {
        // Of another version: nobody's here.
        spec.remove("metrics");
        spec.remove("behavior");
        metrics.extend(spec.remove(TARGET).filter(|percent| !percent.is_null()).map(|percent| cpu(&percent)));
    }
    if !metrics.is_empty() {
        put(value, "spec", "metrics", metrics.into());
    }
    if let Some(behavior) = behavior {
        put(value, "spec", "behavior", behavior);
    }
    let mut measured = None;
    if let Some(status) = part(value, "status") {
        status.remove("currentMetrics");
        status.remove("conditions");
        let percent = status.remove(MEASURED).filter(|percent| !percent.is_null());
        measured = percent
            .map(|percent| vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})]);
    }
    // The annotation knows more of them.
    let current = notes.list::<MetricStatus>(CURRENT, |metric| nested(metric, Of::Status)).or(measured);
    let conditions = notes.list::<HorizontalPodAutoscalerCondition>(CONDITIONS, |condition| condition);
    for (field, list) in [("currentMetrics", current), ("conditions", conditions)] {
        if let Some(list) = list {
            put(value, "status", field, list.into());
        }
    }
    notes.unread
}

fn from_stored(value: &mut Value) {
    // Whatever they say, they are made below.
    let _ = Notes::take(value);
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = part(value, "spec") {
        if let Some(Value::Array(mut metrics)) = spec.remove("metrics") {
            let percent = |metric: &Value| metric.pointer("/resource/target/averageUtilization").cloned();
            let known = metrics.iter().rposition(|metric| percent(metric).is_some_and(|percent| cpu(&percent) == *metric));
            if let Some(percent) = known.and_then(|known| percent(&metrics.remove(known))) {
                spec.insert(TARGET.to_owned(), percent);
            }
            notes.push((METRICS, metrics.into_iter().map(|metric| flat(metric, Of::Spec)).collect()));
        }
        notes.extend(spec.remove("behavior").map(|behavior| (BEHAVIOR, renamed(behavior, str::to_ascii_uppercase))));
    }
    if let Some(status) = part(value, "status") {
        for always in ["currentReplicas", "desiredReplicas"] {
            status.entry(always).or_insert_with(|| 0.into());
        }
        if let Some(Value::Array(current)) = status.remove("currentMetrics") {
            let of_cpu = current.iter().filter(|metric| metric.pointer("/resource/name") == Some(&"cpu".into()));
            let percent = of_cpu.filter_map(|metric| metric.pointer("/resource/current/averageUtilization")).next_back().cloned();
            status.extend(percent.map(|percent| (MEASURED.to_owned(), percent)));
            notes.push((CURRENT, current.into_iter().map(|metric| flat(metric, Of::Status)).collect()));
        }
        notes.extend(status.remove("conditions").map(|conditions| (CONDITIONS, conditions)));
    }
    let is_something = |note: &Value| !note.is_null() && note.as_array().is_none_or(|list| !list.is_empty());
    for (name, note) in notes.into_iter().filter(|(_, note)| is_something(note)) {
        let Some(metadata) = value.as_object_mut().map(|fields| fields.entry("metadata").or_insert_with(|| json!({}))) else { return };
        if metadata["annotations"].is_null() {
            metadata["annotations"] = json!({});
        }
        if let Some(annotations) = metadata["annotations"].as_object_mut() {
            annotations.insert(name.to_owned(), note.to_string().into());
        }
    }
}

/// Where `v1` says the metrics and the behaviour.
fn place(path: &str, written: &Value) -> Option<String> {
    let annotation = |name: &str| Some(format!("metadata.annotations[{name}]"));
    let has = |name: &str| written["metadata"]["annotations"][name].is_string();
    if path.starts_with("spec.behavior") && has(BEHAVIOR) {
        return annotation(BEHAVIOR);
    }
    let index = path.strip_prefix("spec.metrics")?;
    let index = index.strip_prefix('[').and_then(|rest| rest.split(']').next()).and_then(|index| index.parse::<usize>().ok());
    let noted =
        Notes::take(&mut written.clone()).list::<MetricSpec>(METRICS, |metric| nested(metric, Of::Spec)).map_or(0, |list| list.len());
    match index {
        Some(index) if index < noted => annotation(METRICS),
        None if has(METRICS) => annotation(METRICS),
        _ => Some(format!("spec.{TARGET}")),
    }
}

/// One of the object's own parts, where it is there.
fn part<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Map<String, Value>> {
    value.get_mut(name).and_then(Value::as_object_mut)
}

fn put(value: &mut Value, name: &str, field: &str, what: Value) {
    let Some(fields) = value.as_object_mut() else { return };
    if let Some(part) = fields.entry(name).or_insert_with(|| json!({})).as_object_mut() {
        part.insert(field.to_owned(), what);
    }
}

/// The four annotations of an object, taken out of it.
#[derive(Default)]
struct Notes {
    found: Vec<(&'static str, String)>,
    unread: Vec<Unread>,
}

impl Notes {
    fn take(value: &mut Value) -> Self {
        let mut notes = Self::default();
        let Some(metadata) = part(value, "metadata") else { return notes };
        let Some(Value::Object(annotations)) = metadata.get_mut("annotations") else { return notes };
        for name in [METRICS, BEHAVIOR, CURRENT, CONDITIONS] {
            // What is no text is told of by whoever reads the object.
            if annotations.get(name).is_some_and(Value::is_string)
                && let Some(Value::String(text)) = annotations.remove(name)
            {
                notes.found.push((name, text));
            }
        }
        if !notes.found.is_empty() && annotations.is_empty() {
            metadata.remove("annotations");
        }
        notes
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let at = self.found.iter().position(|(found, _)| *found == name)?;
        Some(self.found.swap_remove(at).1)
    }

    fn is_unread(&mut self, name: &str, what: &str) {
        let message = format!("must be the JSON of {what} as autoscaling/v1 has it");
        self.unread.push(Unread { path: format!("metadata.annotations[{name}]"), message });
    }

    /// A list of these, each as `change` makes it; none where there is nothing in it.
    fn list<T: DeserializeOwned>(&mut self, name: &str, change: impl Fn(Value) -> Value) -> Option<Vec<Value>> {
        let text = self.text(name)?;
        let items = serde_json::from_str::<Option<Vec<Value>>>(&text).ok();
        let items: Option<Vec<Value>> = items.map(|items| items.unwrap_or_default().into_iter().map(change).collect());
        match items.filter(|items| items.iter().all(is_one::<T>)) {
            Some(items) => Some(items).filter(|items| !items.is_empty()),
            None => {
                self.is_unread(name, "a list");
                None
            }
        }
    }

    /// One of these, with the names of its fields as `v2` has them.
    fn one<T: DeserializeOwned>(&mut self, name: &str) -> Option<Value> {
        let text = self.text(name)?;
        let value = serde_json::from_str::<Value>(&text).ok().map(|value| renamed(value, str::to_ascii_lowercase));
        match value.filter(|value| value.is_null() || is_one::<T>(value)) {
            Some(value) => Some(value).filter(|value| value.as_object().is_some_and(|fields| !fields.is_empty())),
            None => {
                self.is_unread(name, "an object");
                None
            }
        }
    }
}

fn is_one<T: DeserializeOwned>(value: &Value) -> bool {
    serde_json::from_value::<T>(value.clone()).is_ok()
}

/// The same with another first letter of each field's name; fields that say nothing are left out.
fn renamed(value: Value, case: fn(&str) -> String) -> Value {
    match value {
        Value::Object(fields) => {
            let named = |name: String| match name.get(..1) {
                Some(first) => case(first) + &name[1..],
                None => name,
            };
            fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (named(name), renamed(value, case))).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| renamed(item, case)).collect(),
        other => other,
    }
}

/// A metric of `v2` in the form of `v1`, whose sources have their fields side by side.
fn flat(metric: Value, of: Of) -> Value {
    each_source(metric, |rows, source| {
        let mut made = Map::new();
        for (name, way) in rows {
            let found = way.iter().try_fold(&source, |at, step| at.get(spoken(step, of)));
            if let Some(found) = found.filter(|found| !found.is_null()) {
                made.insert(spoken(name, of), found.clone());
            }
        }
        Value::Object(made)
    })
}

/// A metric of `v1` in the form of `v2`.
fn nested(metric: Value, of: Of) -> Value {
    each_source(metric, |rows, source| {
        let mut made = json!({});
        if of == Of::Spec {
            made["target"] = json!({"type": "AverageValue"});
        }
        for (name, way) in rows {
            if let Some(found) = source.get(spoken(name, of)).filter(|found| !found.is_null()) {
                *way.iter().fold(&mut made, |at, step| &mut at[spoken(step, of)]) = found.clone();
            }
        }
        if let Some(target) = part(&mut made, "target") {
            // `v1` says 0 where an average is wanted of an object's metric.
            if target.contains_key("averageValue") {
                target.remove("value");
            }
            if let Some((_, type_)) =
                [("averageUtilization", "Utilization"), ("value", "Value")].iter().find(|(it, _)| target.contains_key(*it))
            {
                target.insert("type".to_owned(), (*type_).into());
            }
        }
        made
    })
}

/// `*` is the word for what is wanted or was measured.
fn spoken(name: &str, of: Of) -> String {
    name.replace('*', of.word())
}

fn each_source(mut metric: Value, change: impl Fn(&[Row], Value) -> Value) -> Value {
    for (source, rows) in SOURCES {
        if let Some(found) = metric.get_mut(source).filter(|found| found.is_object()) {
            *found = change(rows, found.take());
        }
    }
    metric
}
