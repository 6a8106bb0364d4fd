//! The node API: the kubelet's paths for logs, exec, attach, port-forward, health and figures.
//!
//! Who may call it is the TLS layer's work: only the server's client certificate gets here. Where the server is not Podbay's,
//! `callers` asks it about everybody else. Pods and containers are found in the runtime, so it answers while the server is
//! away; of pods that have ended the logs are found without it, as `podbay down` leaves nothing else of them.
//!
//! - `rights` (pure), `callers`: which right a request takes, and who has it
//! - `figures` (pure): what the node and its pods use, in the kubelet's two forms
//! - `logs`: reading and following log files
//! - `stream`: exec, attach and port-forward, over SPDY and over WebSockets

pub mod callers;
mod figures;
pub mod logs;
mod rights;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use self::figures::Figures;
use super::config::Layout;
use super::observed::{LABEL_POD_UID, has_ended, is_running, uid};
use super::record;
use crate::cri::{ContainerState, ContainerStatus, CriError, PodSandbox, Runtime, SandboxState};
use crate::model::Timestamp;
use crate::model::pod::{any_container, is_terminal, restartable};

/// What the handlers work with.
pub struct NodeApi {
    pub runtime: Arc<dyn Runtime>,
    pub layout: Layout,
    pub node_name: String,
}

/// Every path of the node API.
pub fn router(runtime: Arc<dyn Runtime>, options: &super::Options) -> Router {
    let layout = Layout { data_dir: options.data_dir.clone() };
    let api = Arc::new(NodeApi { runtime, layout, node_name: options.node_name.clone() });
    Router::new()
        .route("/healthz", get(healthz))
        .route("/pods", get(pods))
        .route("/stats/summary", get(summary))
        .route("/metrics/resource", get(resource))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .route("/exec/{namespace}/{pod}/{container}", any(stream::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(stream::attach))
        .route("/portForward/{namespace}/{pod}", any(stream::forward))
        .with_state(api)
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub struct Refusal(StatusCode, String);

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(status, message.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

impl From<CriError> for Refusal {
    fn from(error: CriError) -> Self {
        let status = match &error {
            CriError::NotFound(_) => StatusCode::NOT_FOUND,
            CriError::Invalid(_) => StatusCode::BAD_REQUEST,
            CriError::Unreachable(_) | CriError::Exhausted(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl NodeApi {
    /// The newest sandbox of that name and all sandboxes of the same pod.
    async fn sandboxes(&self, namespace: &str, pod: &str) -> Result<Vec<PodSandbox>, Refusal> {
        let mut all = self.runtime.list_pod_sandboxes().await?;
        all.retain(|sandbox| sandbox.metadata.namespace == namespace && sandbox.metadata.name == pod);
        all.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, sandbox.metadata.attempt)));
        let Some(uid) = all.first().map(|sandbox| sandbox.metadata.uid.clone()) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("pod {namespace}/{pod} is not on this node or has not started")));
        };
        all.retain(|sandbox| sandbox.metadata.uid == uid);
        Ok(all)
    }

    /// Containers of that name from the newest to the oldest.
    async fn containers(&self, namespace: &str, pod: &str, name: &str) -> Result<Vec<ContainerStatus>, Refusal> {
        let sandboxes = self.sandboxes(namespace, pod).await?;
        let mut all = self.runtime.list_containers().await?;
        all.retain(|c| c.metadata.name == name && sandboxes.iter().any(|sandbox| sandbox.id == c.sandbox_id));
        all.sort_by_key(|c| std::cmp::Reverse((c.metadata.attempt, c.created_at)));
        Ok(all)
    }

    async fn running(&self, namespace: &str, pod: &str, name: &str) -> Result<ContainerStatus, Refusal> {
        let found = self.containers(namespace, pod, name).await?.into_iter().next();
        match found {
            Some(found) if is_running(&found) => Ok(found),
            Some(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("container {name} of pod {namespace}/{pod} is not running"))),
            None => Err(Refusal::new(StatusCode::NOT_FOUND, format!("container {name} of pod {namespace}/{pod} has not started"))),
        }
    }

    /// Whether a container that has ended is started again; of a pod that is not known: it is.
    fn is_started_again(&self, ended: &ContainerStatus) -> bool {
        let of_it = ended.labels.get(LABEL_POD_UID);
        let pod = record::load(&self.layout.records()).into_iter().find(|pod| pod.metadata.uid.as_ref() == of_it);
        pod.and_then(|pod| pod.spec).is_none_or(|spec| restartable(&spec, &ended.metadata.name, ended.exit_code))
    }

    /// The log of a pod that has ended and that the runtime does not have any more.
    fn kept_log(&self, namespace: &str, pod: &str, name: &str, previous: bool) -> Option<PathBuf> {
        let is_it = |found: &Pod| {
            let (meta, spec) = (&found.metadata, found.spec.as_ref());
            meta.namespace.as_deref() == Some(namespace)
                && meta.name.as_deref() == Some(pod)
                && is_terminal(found)
                && spec.is_some_and(|spec| any_container(spec, name).is_some())
        };
        let ended = record::load(&self.layout.records()).into_iter().filter(is_it);
        let ended = ended.max_by_key(|found| found.metadata.creation_timestamp.as_ref().map(|time| time.0))?;
        let logs = logs::kept(&self.layout.logs(namespace, pod, uid(&ended)).join(name)).ok()?;
        logs.into_iter().nth(usize::from(previous))
    }

    async fn ready_sandbox(&self, namespace: &str, pod: &str) -> Result<String, Refusal> {
        let all = self.sandboxes(namespace, pod).await?;
        let ready = all.into_iter().find(|sandbox| sandbox.state == SandboxState::Ready);
        let ready = ready.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, format!("pod {namespace}/{pod} is not running")))?;
        Ok(ready.id)
    }
}

async fn healthz(State(api): State<Arc<NodeApi>>) -> Response {
    let broken: Vec<String> = api
        .runtime
        .status()
        .await
        .into_iter()
        .filter(|condition| !condition.ok && condition.kind.ends_with("Ready"))
        .map(|condition| format!("{}: {}", condition.kind, condition.message))
        .collect();
    match broken.is_empty() {
        true => "ok".into_response(),
        false => (StatusCode::INTERNAL_SERVER_ERROR, broken.join("\n")).into_response(),
    }
}

async fn pods(State(api): State<Arc<NodeApi>>) -> axum::Json<Value> {
    let items = record::load(&api.layout.records());
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

impl NodeApi {
    async fn figures(&self) -> Result<Figures, CriError> {
        let stats = self.runtime.container_stats().await?;
        let containers = self.runtime.list_containers().await?.into_iter();
        let starts = containers.map(|it| (it.id, it.started_at.unwrap_or(it.created_at))).collect();
        let sandboxes = self.runtime.list_pod_sandboxes().await?;
        Ok(Figures::new(Timestamp::now(), super::machine::usage(), sandboxes, &starts, stats))
    }
}

/// CPU and memory of containers and pods, in the kubelet's form.
async fn summary(State(api): State<Arc<NodeApi>>) -> Result<axum::Json<Value>, Refusal> {
    Ok(axum::Json(api.figures().await?.summary(&api.node_name)))
}

/// The same as metrics-server asks for it. An error is a figure too.
async fn resource(State(api): State<Arc<NodeApi>>) -> Response {
    let text = match api.figures().await {
        Ok(figures) => figures.resource(),
        Err(error) => {
            tracing::warn!(%error, "no figures of this node's pods");
            figures::failed()
        }
    };
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// `GET /containerLogs/…`: the query as the API server passes it on.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<usize>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    limit_bytes: Option<u64>,
}

fn flag(value: &Option<String>) -> bool {
    matches!(value.as_deref(), Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE"))
}

impl LogQuery {
    fn wanted(&self) -> Result<logs::Wanted, Refusal> {
        let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
        let since = match (&self.since_time, self.since_seconds) {
            (Some(text), _) => Some(text.parse().map_err(|_| bad(format!("sinceTime {text:?} is not a time")))?),
            (None, Some(seconds)) => Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
            (None, None) => None,
        };
        Ok(logs::Wanted {
            follow: flag(&self.follow),
            tail_lines: self.tail_lines,
            since,
            timestamps: flag(&self.timestamps),
            limit_bytes: self.limit_bytes,
        })
    }
}

async fn container_logs(
    State(api): State<Arc<NodeApi>>,
    Path((namespace, pod, name)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let wanted = query.wanted()?;
    let all = match api.containers(&namespace, &pod, &name).await {
        Err(Refusal(StatusCode::NOT_FOUND, why)) => {
            let (of, previous) = (Arc::clone(&api), flag(&query.previous));
            let (namespace, pod, container) = (namespace.clone(), pod.clone(), name.clone());
            let found = tokio::task::spawn_blocking(move || of.kept_log(&namespace, &pod, &container, previous)).await;
            let path = found.ok().flatten().ok_or(Refusal(StatusCode::NOT_FOUND, why))?;
            return told(&name, path, wanted, None).await;
        }
        all => all?,
    };
    let mut all = all.into_iter().filter(|c| c.state != ContainerState::Created);
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let newest = all.next();
    let container = if flag(&query.previous) {
        // Waiting for its restart, the newest one is the previous one.
        let waits = newest.filter(|newest| has_ended(newest) && api.is_started_again(newest));
        waits.or_else(|| all.next()).ok_or_else(|| bad(format!("previous terminated container \"{name}\" in pod \"{pod}\" not found")))?
    } else {
        // What it waits for is in its status, which the server has.
        let waits = || Refusal::new(StatusCode::NOT_FOUND, format!("container \"{name}\" in pod \"{pod}\" is waiting to start"));
        newest.ok_or_else(waits)?
    };
    let follow = wanted.follow.then(|| (api.runtime.clone(), container.id.clone()));
    told(&name, container.log_path.clone(), wanted, follow).await
}

/// The log of a container as an answer.
async fn told(name: &str, path: PathBuf, wanted: logs::Wanted, follow: Option<(Arc<dyn Runtime>, String)>) -> Result<Response, Refusal> {
    let reader = tokio::task::spawn_blocking(move || logs::Reader::open(&path, wanted)).await;
    let failed = |cause: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("read the log of container {name}: {cause}"));
    let reader = reader.map_err(|panic| failed(panic.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let body = Body::from_stream(stream(reader, follow));
    Ok(([(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// How often a followed log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The log in pieces; with `follow` until the container has ended and all is read.
fn stream(
    reader: logs::Reader,
    follow: Option<(Arc<dyn Runtime>, String)>,
) -> impl futures::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send {
    futures::stream::try_unfold((reader, follow, false), |(mut reader, follow, mut last)| async move {
        loop {
            let (back, piece) = tokio::task::spawn_blocking(move || {
                let piece = reader.read();
                (reader, piece)
            })
            .await
            .map_err(std::io::Error::other)?;
            reader = back;
            match (piece?, &follow) {
                (None, _) => return Ok(None),
                (Some(piece), _) if !piece.is_empty() => return Ok(Some((piece.into(), (reader, follow, last)))),
                (Some(_), None) => return Ok(None),
                (Some(_), Some(_)) if last => return Ok(None),
                (Some(_), Some((runtime, id))) => {
                    // Once it has ended, one more look finds what it wrote last.
                    last = runtime.container_status(id).await.map_or(true, |found| !is_running(&found));
                    if !last {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
            }
        }
    })
}

/// All values of a query parameter, and flags as the kubelet reads them.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn of(RawQuery(query): &RawQuery) -> Self {
        let query = query.as_deref().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(name), unescape(value))
        });
        Self(pairs.collect())
    }
    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }
    fn flag(&self, names: [&str; 2]) -> bool {
        self.0.iter().any(|(known, value)| names.contains(&known.as_str()) && matches!(value.as_str(), "1" | "true"))
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()));
        match (first, hex.flatten()) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', None) => {
                bytes.push(b' ');
                rest = after;
            }
            (other, None) => {
                bytes.push(other);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::SystemClock;
    use crate::cri::fake::FakeRuntime;
    use crate::cri::{ContainerConfig, ContainerMetadata, PodSandboxConfig, PodSandboxMetadata};

    #[tokio::test]
    async fn figures_say_since_when_they_count() {
        let runtime: Arc<dyn Runtime> = Arc::new(FakeRuntime::new(Arc::new(SystemClock)));
        let metadata = PodSandboxMetadata { namespace: "web".into(), name: "a".into(), uid: "u".into(), attempt: 0 };
        let sandbox = runtime.run_pod_sandbox(&PodSandboxConfig { metadata, ..PodSandboxConfig::default() }).await.unwrap();
        let metadata = ContainerMetadata { name: "main".into(), attempt: 0 };
        let config = ContainerConfig { metadata, image: "i".into(), ..ContainerConfig::default() };
        let container = runtime.create_container(&sandbox, &config).await.unwrap();
        runtime.start_container(&container).await.unwrap();
        let started = runtime.container_status(&container).await.unwrap().started_at.unwrap();
        let options = super::super::Options::new("n1", "/nowhere");
        let request = http::Request::get("/stats/summary").body(Body::empty()).unwrap();
        let answer = router(runtime, &options).oneshot(request).await.unwrap();
        let told: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let told = &told["pods"][0]["containers"][0];
        assert_eq!((&told["name"], &told["startTime"]), (&json!("main"), &json!(started.to_string())), "{told}");
        assert!(told["cpu"]["time"].as_str().is_some_and(|time| time.parse::<Timestamp>().is_ok_and(|time| time >= started)), "{told}");
    }

    #[tokio::test]
    async fn metrics_server_gets_what_it_asks_for() {
        let runtime: Arc<dyn Runtime> = Arc::new(FakeRuntime::new(Arc::new(SystemClock)));
        let options = super::super::Options::new("n1", "/nowhere");
        let request = http::Request::get("/metrics/resource").body(Body::empty()).unwrap();
        let answer = router(runtime, &options).oneshot(request).await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap();
        assert_eq!((answer.status(), kind), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
        let told = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(told.contains("\nnode_cpu_usage_seconds_total ") && told.ends_with("\nresource_scrape_error 0\n"), "{told}");
    }

    #[tokio::test]
    async fn a_pod_that_has_ended_has_its_logs_though_the_runtime_has_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        let pod = |uid: &str, phase: &str, created: &str| {
            let pod = json!({"metadata": {"name": "job", "namespace": "web", "uid": uid, "creationTimestamp": created},
                "spec": {"containers": [{"name": "main"}]}, "status": {"phase": phase}});
            record::save(&layout.records(), &serde_json::from_value(pod).unwrap()).unwrap();
            std::fs::create_dir_all(layout.logs("web", "job", uid).join("main")).unwrap();
        };
        let log = |uid: &str, file: &str, text: &str| {
            let path = layout.logs("web", "job", uid).join("main").join(file);
            std::fs::write(path, format!("2026-01-02T03:04:05.000000006Z stdout F {text}\n")).unwrap();
        };
        let runtime: Arc<dyn Runtime> = Arc::new(FakeRuntime::new(Arc::new(SystemClock)));
        let options = super::super::Options::new("n1", dir.path());
        let get = async |path: &str| {
            let request = http::Request::get(format!("/containerLogs/web/{path}")).body(Body::empty()).unwrap();
            let answer = router(Arc::clone(&runtime), &options).oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
        };
        pod("running", "Running", "2026-01-01T00:00:03Z");
        log("running", "0.log", "begun");
        assert_eq!(get("job/main").await.0, 404, "what runs has its log by the runtime");
        pod("first", "Succeeded", "2026-01-01T00:00:01Z");
        log("first", "0.log", "another");
        pod("second", "Failed", "2026-01-01T00:00:02Z");
        for (file, text) in [("9.log", "nine"), ("10.log", "ten"), ("10.log.1", "before"), ("x.log", "strange")] {
            log("second", file, text);
        }
        assert_eq!(get("job/main?follow=true").await, (200, "before\nten\n".to_owned()));
        assert_eq!(get("job/main?previous=true").await, (200, "nine\n".to_owned()));
        for nothing in ["job/other", "job/..%2Fmain", "other/main"] {
            assert_eq!(get(nothing).await.0, 404, "{nothing}");
        }
    }

    #[test]
    fn queries_are_read_as_the_kubelet_does() {
        let query = Parameters::of(&RawQuery(Some("command=sh&command=-c&command=echo%20a%2Bb+c&input=1&tty=0&output=true".into())));
        assert_eq!(query.all("command"), ["sh", "-c", "echo a+b c"]);
        assert!(query.flag(["input", "stdin"]) && query.flag(["output", "stdout"]) && !query.flag(["tty", "tty"]));
        assert_eq!(unescape("%zz%"), "%zz%");
    }
}
