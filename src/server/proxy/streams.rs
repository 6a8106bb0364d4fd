//! Logs, exec, attach and port-forward: passed on to the node's API, which is the kubelet's.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::super::fault::Fault;
use super::super::hooks::plan::Operation;
use super::super::options::check_log;
use super::super::read::find;
use super::super::request::{Call, Query, Target};
use super::super::{ServerState, hooks};
use super::headers::without_token;
use super::{ask, switched};
use crate::model::{Key, Kind, pod};

/// The four streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Logs,
    Exec,
    Attach,
    PortForward,
}

impl Stream {
    pub fn of(target: &Target) -> Option<Self> {
        match (target.kind, target.subresource.as_deref()) {
            (Kind::Pod, Some("log")) => Some(Self::Logs),
            (Kind::Pod, Some("exec")) => Some(Self::Exec),
            (Kind::Pod, Some("attach")) => Some(Self::Attach),
            (Kind::Pod, Some("portforward")) => Some(Self::PortForward),
            _ => None,
        }
    }
}

/// Asks the webhooks whether somebody may connect to a pod, with `v1 PodExecOptions` and its like.
///
/// # Errors
/// A webhook's no.
pub async fn ask_hooks(state: &ServerState, call: &Call, stream: Stream) -> Result<(), Fault> {
    let kind = match stream {
        Stream::Logs => return Ok(()),
        Stream::Exec => "PodExecOptions",
        Stream::Attach => "PodAttachOptions",
        Stream::PortForward => "PodPortForwardOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if stream == Stream::PortForward {
        let ports: Vec<i64> = call.query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok()).collect();
        options["ports"] = ports.into();
    } else {
        for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| call.query.flag(name)) {
            options[name] = true.into();
        }
        let command: Vec<&str> = call.query.all("command").collect();
        for (name, value) in [("container", json!(call.query.get("container"))), ("command", json!(command))] {
            if !value.is_null() && value != json!([]) {
                options[name] = value;
            }
        }
    }
    hooks::plain(state, call, Operation::Connect, ["", "v1", kind], options, Value::Null).await.map(drop)
}

/// Passes a request on to the node of its pod and the answer back.
pub async fn forward(state: &ServerState, call: &Call, stream: Stream, mut request: Request<Body>) -> Result<Response, Fault> {
    if stream == Stream::Logs {
        check_log(&call.query, call.target.name.as_deref().unwrap_or_default())?;
    }
    let pod = find(state, call)?;
    let pod = pod.get::<Pod>().ok_or_else(Fault::no_such_path)?;
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
    let name = call.target.name.clone().unwrap_or_default();
    let Some(node_name) = node_name else {
        // Of its containers none has said anything yet, as with Kubernetes (`pkg/registry/core/pod`, `LogLocation`).
        if stream == Stream::Logs {
            container(call, pod)?;
            return Ok(([(header::CONTENT_TYPE, "text/plain")], Body::empty()).into_response());
        }
        return Err(Fault::bad_request(format!("pod {name} does not have a host assigned")));
    };
    let node = state.store.snapshot().get(&Key::cluster(Kind::Node, &*node_name)).cloned();
    let node = node.ok_or_else(|| Fault::not_found(Kind::Node, &node_name))?;
    let node = node.get::<Node>().ok_or_else(Fault::no_such_path)?;
    let path = node_path(call, stream, pod)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    if stream != Stream::Logs && !wants_upgrade {
        return Err(Fault::bad_request("Upgrade request required"));
    }
    let mut outbound = Request::builder()
        .method(request.method().clone())
        .uri(path)
        .body(Body::empty())
        .map_err(|error| Fault::internal(error.to_string()))?;
    *outbound.headers_mut() = passed_on(request.headers(), wants_upgrade);
    let mut answer = ask(state, node, outbound).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switched(upgrade, &mut answer);
    }
    if stream == Stream::Logs && answer.status() == StatusCode::NOT_FOUND {
        // The node has nothing of it; whether there is such a pod is known here, as of now.
        let pod = find(state, call)?;
        let pod = pod.get::<Pod>().ok_or_else(Fault::no_such_path)?;
        return Err(Fault::bad_request(no_log(pod, &container(call, pod)?, call.query.flag("previous"))));
    }
    if !answer.status().is_success() {
        return Err(refusal(answer).await);
    }
    let mut response = answer.map(Body::new);
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(response)
}

/// Why there is no log of a container, in the kubelet's words (`pkg/kubelet/kubelet_pods.go`, `validateContainerLogStatus`).
fn no_log(pod: &Pod, container: &str, previous: bool) -> String {
    let which = format!("container {container:?} in pod {:?}", pod.metadata.name.as_deref().unwrap_or_default());
    if previous {
        return format!("previous terminated {which} not found");
    }
    let state = pod::any_status(pod, container).and_then(|status| status.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref()).map(|waiting| waiting.reason.as_deref().unwrap_or_default());
    match waiting {
        Some("") => format!("{which} is waiting to start - no logs yet"),
        Some("ErrImagePull") => format!("{which} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{which} is waiting to start: trying and failing to pull image"),
        Some(reason) => format!("{which} is waiting to start: {reason}"),
        None if state.is_some_and(|state| state.terminated.is_some()) => format!("{which} is terminated"),
        None => format!("{which} is not available"),
    }
}

/// What a node says when it refuses, and how long that may take.
const REFUSAL_LIMIT: usize = 16 * 1024;
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);

/// A node refuses in plain text; clients expect a `Status`.
async fn refusal(answer: http::Response<Incoming>) -> Fault {
    let code = answer.status().as_u16();
    let text = tokio::time::timeout(REFUSAL_PATIENCE, Limited::new(answer.into_body(), REFUSAL_LIMIT).collect()).await;
    let text = text.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim() {
        "" => Fault::of_node(code, &format!("the node answered with {code}")),
        text => Fault::of_node(code, text),
    }
}

/// The node API's path for a stream.
fn node_path(call: &Call, stream: Stream, pod: &Pod) -> Result<String, Fault> {
    let (namespace, name) = (&call.target.namespace, call.target.name.as_deref().unwrap_or_default());
    let query = |pairs: Vec<(&str, String)>| {
        let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        if text.is_empty() { String::new() } else { format!("?{}", text.join("&")) }
    };
    match stream {
        Stream::PortForward => {
            let ports = call.query.all("ports").map(|port| ("port", port.to_owned())).collect();
            Ok(format!("/portForward/{namespace}/{name}{}", query(ports)))
        }
        Stream::Logs => {
            let container = container(call, pod)?;
            let known = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
            let pairs = known.iter().filter_map(|name| call.query.get(name).map(|value| (*name, value.to_owned()))).collect();
            Ok(format!("/containerLogs/{namespace}/{name}/{container}{}", query(pairs)))
        }
        Stream::Exec | Stream::Attach => {
            let container = container(call, pod)?;
            let word = if stream == Stream::Exec { "exec" } else { "attach" };
            Ok(format!("/{word}/{namespace}/{name}/{container}{}", query(streams(&call.query))))
        }
    }
}

/// The kubelet's names for the streams.
fn streams(query: &Query) -> Vec<(&'static str, String)> {
    let mut pairs: Vec<(&'static str, String)> = query.all("command").map(|word| ("command", word.to_owned())).collect();
    for (theirs, kubelets) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(theirs) {
            pairs.push((kubelets, "1".to_owned()));
        }
    }
    pairs
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// kubectl's annotation for pods with several containers.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The container that is meant: named, the only one, or the annotated one.
fn container(call: &Call, of: &Pod) -> Result<String, Fault> {
    let spec = of.spec.clone().unwrap_or_default();
    let name = call.target.name.as_deref().unwrap_or_default();
    let main: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    if let Some(wanted) = call.query.get("container") {
        let known = pod::any_container(&spec, wanted).is_some();
        return if known {
            Ok(wanted.to_owned())
        } else {
            Err(Fault::bad_request(format!("container {wanted} is not valid for pod {name}")))
        };
    }
    let annotated = of.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    match (main.as_slice(), annotated) {
        (_, Some(wanted)) if main.contains(&wanted.as_str()) => Ok(wanted.clone()),
        ([only], _) => Ok((*only).to_owned()),
        _ => Err(Fault::bad_request(format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" ")))),
    }
}

/// Headers that mean something to the node.
fn passed_on(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        let text = name.as_str();
        let upgrades =
            upgrade && (text == "connection" || text == "upgrade" || text.starts_with("sec-websocket-") || text.starts_with("x-stream-"));
        if upgrades || text == "user-agent" {
            passed.append(name.clone(), value.clone());
        }
    }
    without_token(&mut passed);
    passed
}
