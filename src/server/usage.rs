//! `metrics.k8s.io/v1beta1`: what nodes and their pods use, for `kubectl top` and autoscalers.
//!
//! Nobody measures beforehand: the nodes are asked when somebody wants to know, through the node API's
//! `/stats/summary`. A rate needs two looks at one node; the one before serves where it is not long ago. A container that
//! began after the first of the two is shown from its own start: so a pod is in the list as soon as it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fault::Fault;
use super::render::json_response;
use super::request::Query;
use super::select::Selection;
use super::{ServerState, proxy};
use crate::model::usage::{Amounts, PodUsage};
use crate::model::{Key, Kind, Object, Timestamp, pod};

/// The group, its version, and that of every path below it.
pub const GROUP_VERSION: (&str, &str) = ("metrics.k8s.io", "v1beta1");
pub const PATHS: &str = "/apis/metrics.k8s.io/v1beta1/{*path}";

/// (plural, singular, kind, namespaced) of what the group serves.
pub const RESOURCES: [(&str, &str, &str, bool); 2] = [("nodes", "", "NodeMetrics", false), ("pods", "", "PodMetrics", true)];

/// Figures as young as this are told again.
const FRESH: Duration = Duration::from_secs(5);
/// Between the two looks at a node that nobody has looked at for a while.
const WINDOW: Duration = Duration::from_secs(1);
/// An earlier look that is older says nothing of now: twice the 15 s of metrics-server (`--metric-resolution` of its
/// release's manifest) and of an autoscaler, whose every look so has the one before it to compare with.
const OLD: Duration = Duration::from_secs(30);
/// A silent node that nobody has asked about for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that did not answer is not asked again for so long: less than an autoscaler's 15 s between two looks, more than
/// the patience that each of them would spend.
const SILENCE: Duration = Duration::from_secs(10);
/// What it may say.
const SUMMARY_LIMIT: usize = 16 * 1024 * 1024;
/// Nodes asked at once.
const PARALLEL: usize = 16;

/// The parts of the kubelet's `stats/v1alpha1 Summary` that are read.
#[derive(Deserialize)]
struct Summary {
    node: Measured,
    #[serde(default)]
    pods: Vec<PodFigures>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodFigures {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<Named>,
}

#[derive(Deserialize)]
struct PodRef {
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    start_time: Option<Timestamp>,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Deserialize)]
struct Measured {
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Option<Timestamp>,
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

/// CPU time until now, and memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    cpu_nanos: u64,
    memory_bytes: u64,
}

impl From<&Measured> for Figures {
    fn from(it: &Measured) -> Self {
        Self { cpu_nanos: it.cpu.usage_core_nano_seconds.unwrap_or(0), memory_bytes: it.memory.working_set_bytes.unwrap_or(0) }
    }
}

/// One container's, with what says how long it took to spend them: both times are of the node's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spent {
    figures: Figures,
    started: Option<Timestamp>,
    counted: Option<Timestamp>,
}

impl From<&Named> for Spent {
    fn from(it: &Named) -> Self {
        Self { figures: Figures::from(&it.measured), started: it.start_time, counted: it.measured.cpu.time }
    }
}

/// One look at a node. Containers by the pod's UID and their name.
#[derive(Debug)]
struct Look {
    at: Instant,
    time: Timestamp,
    node: Figures,
    containers: BTreeMap<(String, String), Spent>,
}

/// Two looks at a node, the older first.
type Pair = (Arc<Look>, Arc<Look>);

/// The last looks at a node. Who holds it may ask the node; the others wait and hear what it heard.
type Slot = Arc<tokio::sync::Mutex<Option<Pair>>>;

/// The last looks at each node.
#[derive(Default)]
pub struct Looks {
    slots: Mutex<BTreeMap<String, Slot>>,
    /// Nodes that did not answer when they were asked last, and when that was: told once, however often somebody asks.
    silent: Mutex<BTreeMap<String, Instant>>,
}

impl Looks {
    /// Whether it is news that a node answers, or does not.
    fn hear(&self, node: &str, answers: bool) -> bool {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.retain(|_, at| at.elapsed() < FORGOTTEN);
        if answers { silent.remove(node).is_some() } else { silent.insert(node.to_owned(), Instant::now()).is_none() }
    }

    /// Whether it did not answer just now.
    fn is_silent(&self, node: &str) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(node).is_some_and(|at| at.elapsed() < SILENCE)
    }

    fn slot(&self, node: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(node.to_owned()).or_default().clone()
    }

    /// Lets go of what is too old to serve and nobody waits for: nodes go, too.
    fn tidy(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let serves = |slot: &Slot| slot.try_lock().is_ok_and(|last| recent(last.as_ref()).is_some());
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || serves(slot));
    }
}

/// The newer of two looks, where it is not too old to be compared with.
fn recent(last: Option<&Pair>) -> Option<&Arc<Look>> {
    last.map(|(_, newer)| newer).filter(|look| look.at.elapsed() < OLD)
}

/// Every path of the group. Who may read it the roles say.
pub async fn serve(State(state): State<Arc<ServerState>>, Path(path): Path<String>, uri: Uri) -> Response {
    match served(&state, &path, &uri).await {
        Ok(value) => json_response(StatusCode::OK, value.to_string()),
        Err(fault) => fault.into_response(),
    }
}

async fn served(state: &ServerState, path: &str, uri: &Uri) -> Result<Value, Fault> {
    let query = Query::parse(uri)?;
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let snapshot = state.store.snapshot();
    let of = |kind: Kind, namespace: &str| -> Result<Vec<Object>, Fault> {
        let selection = Selection::parse(snapshot.definitions(), kind, &query)?;
        let found = super::read::candidates(&snapshot, kind, namespace, &selection);
        Ok(found.filter(|object| selection.matches(object)).cloned().collect())
    };
    let one = |kind: Kind, namespace: &str, name: &str| -> Result<Vec<Object>, Fault> {
        let found = snapshot.get(&Key::new(kind, namespace, name)).cloned();
        Ok(vec![found.ok_or_else(|| unknown(kind, namespace, name))?])
    };
    let single = |mut items: Vec<Value>, kind: Kind, namespace: &str, name: &str| items.pop().ok_or_else(|| unknown(kind, namespace, name));
    match steps.as_slice() {
        ["nodes"] => Ok(list("NodeMetricsList", of_nodes(state, of(Kind::Node, "")?).await)),
        ["nodes", name] => single(of_nodes(state, one(Kind::Node, "", name)?).await, Kind::Node, "", name),
        ["pods"] => Ok(list("PodMetricsList", of_pods(state, of(Kind::Pod, "")?).await)),
        ["namespaces", namespace, "pods"] => Ok(list("PodMetricsList", of_pods(state, of(Kind::Pod, namespace)?).await)),
        ["namespaces", namespace, "pods", name] => {
            single(of_pods(state, one(Kind::Pod, namespace, name)?).await, Kind::Pod, namespace, name)
        }
        _ => Err(Fault::no_such_path()),
    }
}

/// Nothing is measured of an object of that name.
fn unknown(kind: Kind, namespace: &str, name: &str) -> Fault {
    let (resource, name) = if kind == Kind::Pod { ("pods", format!("{namespace}/{name}")) } else { ("nodes", name.to_owned()) };
    let details = json!({"name": name, "group": GROUP_VERSION.0, "kind": resource});
    Fault { details, ..Fault::new(404, "NotFound", format!("{resource}.{} \"{name}\" not found", GROUP_VERSION.0)) }
}

fn api_version() -> String {
    format!("{}/{}", GROUP_VERSION.0, GROUP_VERSION.1)
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": api_version(), "metadata": {}, "items": items})
}

async fn of_nodes(state: &ServerState, nodes: Vec<Object>) -> Vec<Value> {
    let looks = looks_at(state, nodes.iter().map(|node| node.key().name.clone()).collect()).await;
    let row = |node: &Object| {
        let (older, newer) = looks.get(&node.key().name)?;
        let window = newer.at - older.at;
        let mut row = head("NodeMetrics", node, newer.time, window);
        row["usage"] = resource_list(between(older.node, newer.node, window));
        Some(row)
    };
    nodes.iter().filter_map(row).collect()
}

async fn of_pods(state: &ServerState, pods: Vec<Object>) -> Vec<Value> {
    let measured = measured(state, &pods).await;
    let row = |object: &Object| {
        let usage = measured.get(object.uid())?;
        let containers: Vec<Value> =
            usage.containers.iter().map(|(name, amounts)| json!({"name": name, "usage": resource_list(*amounts)})).collect();
        let mut row = head("PodMetrics", object, usage.at, usage.window);
        row["containers"] = json!(containers);
        Some(row)
    };
    pods.iter().filter_map(row).collect()
}

/// What these pods use, by UID. A pod without a node, or on one that does not answer, is left out.
pub async fn measured(state: &ServerState, pods: &[Object]) -> BTreeMap<String, PodUsage> {
    let node_of = |object: &Object| object.get::<Pod>().and_then(pod::node_name).map(str::to_owned);
    let nodes: BTreeSet<String> = pods.iter().filter_map(node_of).collect();
    let looks = looks_at(state, nodes.into_iter().collect()).await;
    let of_pod = |object: &Object| {
        let (older, newer) = looks.get(&node_of(object)?)?;
        let mut usage = PodUsage { at: newer.time, window: Duration::ZERO, containers: BTreeMap::new() };
        for (key, now) in newer.containers.iter().filter(|((uid, _), _)| uid == object.uid()) {
            let Some((amounts, window)) = rate(older.containers.get(key), now, newer.at - older.at) else { continue };
            usage.window = usage.window.max(window);
            usage.containers.insert(key.1.clone(), amounts);
        }
        (!usage.containers.is_empty()).then(|| (object.uid().to_owned(), usage))
    };
    pods.iter().filter_map(of_pod).collect()
}

/// What both kinds begin with.
fn head(kind: &str, object: &Object, at: Timestamp, window: Duration) -> Value {
    let seconds = window.as_secs_f64();
    let mut metadata = json!({"name": object.key().name, "creationTimestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    if !object.key().namespace.is_empty() {
        metadata["namespace"] = object.key().namespace.clone().into();
    }
    if !object.labels().is_empty() {
        metadata["labels"] = json!(object.labels());
    }
    let timestamp = metadata["creationTimestamp"].clone();
    json!({
        "kind": kind, "apiVersion": api_version(), "metadata": metadata,
        "timestamp": timestamp, "window": format!("{seconds:.3}s"),
    })
}

/// What a container uses, and in which time it was counted: between two looks, or since its start where that was later.
fn rate(before: Option<&Spent>, now: &Spent, window: Duration) -> Option<(Amounts, Duration)> {
    let same = before.filter(|before| before.started == now.started && before.figures.cpu_nanos <= now.figures.cpu_nanos);
    if let Some(before) = same {
        return Some((between(before.figures, now.figures, window), window));
    }
    let age = Duration::try_from(now.counted?.duration_since(now.started?)).ok()?;
    // What is spent at once on a start is no rate.
    let age = age.max(WINDOW);
    Some((between(Figures::default(), now.figures, age), age))
}

/// What was spent in a window, as a rate; memory at its end.
fn between(before: Figures, now: Figures, window: Duration) -> Amounts {
    let spent = u128::from(now.cpu_nanos.saturating_sub(before.cpu_nanos));
    let rate = spent * 1_000_000_000 / window.as_nanos().max(1);
    Amounts { cpu_nanos: u64::try_from(rate).unwrap_or(u64::MAX), memory_bytes: now.memory_bytes }
}

/// A ResourceList: CPU in billionths of a core, memory in KiB.
fn resource_list(it: Amounts) -> Value {
    json!({"cpu": format!("{}n", it.cpu_nanos), "memory": format!("{}Ki", it.memory_bytes / 1024)})
}

/// What is known of each of these nodes; one that does not answer is left out.
async fn looks_at(state: &ServerState, nodes: Vec<String>) -> BTreeMap<String, Pair> {
    let snapshot = state.store.snapshot();
    // A pod may name whatever it likes as its node: of what is none, nothing is kept or told.
    let is_asked = |node: &String| snapshot.get(&Key::cluster(Kind::Node, node.as_str())).is_some() && !state.looks.is_silent(node);
    let asked: Vec<String> = nodes.into_iter().filter(is_asked).collect();
    state.looks.tidy();
    let all = futures::stream::iter(asked).map(|node| async move {
        let pair = look_at(state, &node).await?;
        Some((node, pair))
    });
    all.buffer_unordered(PARALLEL).filter_map(futures::future::ready).collect().await
}

/// What is known of a node; asks it where that is not fresh, however many want to know no more than once.
async fn look_at(state: &ServerState, node: &str) -> Option<Pair> {
    let slot = state.looks.slot(node);
    let mut last = slot.lock().await;
    if state.looks.is_silent(node) {
        return None;
    }
    if let Some(pair) = last.as_ref().filter(|(_, newer)| newer.at.elapsed() < FRESH) {
        return Some(pair.clone());
    }
    let pair = look_again(state, node, recent(last.as_ref()).cloned()).await;
    let is_news = state.looks.hear(node, pair.is_ok());
    match &pair {
        Err(fault) if is_news => tracing::warn!(node, cause = fault.message, "the node's figures are not known"),
        Ok(_) if is_news => tracing::info!(node, "the node's figures are known again"),
        _ => {}
    }
    *last = pair.ok();
    last.clone()
}

async fn look_again(state: &ServerState, node: &str, before: Option<Arc<Look>>) -> Result<Pair, Fault> {
    let older = match before {
        Some(look) => look,
        None => {
            let first = look(state, node).await?;
            tokio::time::sleep(WINDOW).await;
            first
        }
    };
    Ok((older, look(state, node).await?))
}

/// Asks a node.
async fn look(state: &ServerState, name: &str) -> Result<Arc<Look>, Fault> {
    let object = state.store.snapshot().get(&Key::cluster(Kind::Node, name)).cloned();
    let object = object.ok_or_else(|| Fault::not_found(Kind::Node, name))?;
    let node = object.get::<Node>().ok_or_else(Fault::no_such_path)?;
    let request = Request::get("/stats/summary").body(Body::empty()).map_err(|error| Fault::internal(error.to_string()))?;
    let asked = async {
        let answer = proxy::ask(state, node, request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), SUMMARY_LIMIT).collect().await;
        let body = body.map_err(|error| Fault::unavailable(format!("node {name}: {error}")))?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(Fault::of_node(status.as_u16(), &String::from_utf8_lossy(&body))) }
    };
    let late = |_| Fault::unavailable(format!("node {name} did not answer within {} s", PATIENCE.as_secs()));
    let body = tokio::time::timeout(PATIENCE, asked).await.map_err(late)??;
    let summary: Summary =
        serde_json::from_slice(&body).map_err(|error| Fault::unavailable(format!("node {name}: the summary of its figures: {error}")))?;
    let containers = summary.pods.iter().flat_map(|pod| {
        let figures = |it: &Named| ((pod.pod_ref.uid.clone(), it.name.clone()), Spent::from(it));
        pod.containers.iter().map(figures).collect::<Vec<_>>()
    });
    let (at, time) = (Instant::now(), state.clock.now());
    Ok(Arc::new(Look { at, time, node: Figures::from(&summary.node), containers: containers.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_answer_is_told_once() {
        let looks = Looks::default();
        let told = [true, false, false, true, true].map(|answers| looks.hear("n1", answers));
        assert_eq!(told, [false, true, false, true, false]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_left_in_peace_for_a_while() {
        let looks = Looks::default();
        let was_silent = |node: &str, ago: Duration| {
            looks.silent.lock().unwrap().insert(node.to_owned(), Instant::now() - ago);
        };
        looks.hear("n1", false);
        assert!(looks.is_silent("n1") && !looks.is_silent("n2"));
        was_silent("n1", SILENCE);
        assert!(!looks.is_silent("n1"), "it is asked again");
        looks.hear("n1", false);
        assert!(looks.is_silent("n1"));
        looks.hear("n1", true);
        assert!(!looks.is_silent("n1"), "it answers again");
        was_silent("n1", FORGOTTEN);
        looks.hear("n2", false);
        assert_eq!(looks.silent.lock().unwrap().keys().collect::<Vec<_>>(), ["n2"], "who is not asked any more is forgotten");
    }

    #[test]
    fn a_look_serves_while_it_is_young() {
        let ago = |age: Duration| {
            let at = Instant::now() - age;
            Arc::new(Look { at, time: Timestamp::UNIX_EPOCH, node: Figures::default(), containers: BTreeMap::new() })
        };
        let looks = Looks::default();
        for (node, age) in [("young", FRESH), ("old", OLD)] {
            *looks.slot(node).try_lock().unwrap() = Some((ago(OLD), ago(age)));
        }
        let asked = looks.slot("asked");
        looks.slot("left");
        let serves = |node: &str| recent(looks.slot(node).try_lock().unwrap().as_ref()).is_some();
        assert!(serves("young") && !serves("old") && !serves("asked"));
        looks.tidy();
        assert_eq!(looks.slots.lock().unwrap().keys().collect::<Vec<_>>(), ["asked", "young"], "somebody waits for the one");
        drop(asked);
    }

    #[test]
    fn a_container_that_began_in_between_is_counted_from_its_start() {
        let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
        let spent = |seconds: u64, started, counted| Spent {
            figures: Figures { cpu_nanos: seconds * 1_000_000_000, memory_bytes: 7 },
            started,
            counted,
        };
        let (second, ten) = (Duration::from_secs(1), Duration::from_secs(10));
        let old = spent(4, at(100), at(190));
        let cases = [
            ("it was there before", Some(old), spent(5, at(100), at(200)), Some((100_000_000, ten))),
            ("it is new", None, spent(2, at(196), at(200)), Some((500_000_000, second * 4))),
            ("it began anew and has spent more", Some(old), spent(8, at(184), at(200)), Some((500_000_000, second * 16))),
            ("its counter began anew", Some(old), spent(3, at(100), at(200)), Some((30_000_000, second * 100))),
            ("it has just begun", None, spent(1, at(200), at(200)), Some((1_000_000_000, second))),
            ("no start is told", None, spent(1, None, at(200)), None),
            ("counted before it began", None, spent(1, at(201), at(200)), None),
            ("no start was ever told", Some(spent(4, None, None)), spent(5, None, None), Some((100_000_000, ten))),
        ];
        for (what, before, now, told) in cases {
            let found = rate(before.as_ref(), &now, ten);
            assert_eq!(found.map(|(amounts, window)| (amounts.cpu_nanos, window)), told, "{what}");
            assert!(found.is_none_or(|(amounts, _)| amounts.memory_bytes == 7), "{what}");
        }
    }

    #[test]
    fn a_rate_is_what_was_spent_in_between() {
        let figures = |cpu_nanos, memory_bytes| Figures { cpu_nanos, memory_bytes };
        let told = between(figures(1_000_000_000, 0), figures(1_500_000_000, 3 << 20), Duration::from_secs(2));
        assert_eq!(resource_list(told), json!({"cpu": "250000000n", "memory": "3072Ki"}));
        assert_eq!(between(figures(5, 0), figures(4, 0), Duration::ZERO).cpu_nanos, 0, "a counter that began anew");
    }
}
