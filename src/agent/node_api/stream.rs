//! Exec, attach and port-forward by the kubelet's paths; how the streams go is `cri::streaming`'s affair.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{Request, StatusCode};

use super::{NodeApi, Parameters, Refusal};
use crate::cri::ExecRequest;
use crate::cri::streaming::{Remote, Verb, Wanted, serve};

type Container = Path<(String, String, String)>;

pub async fn exec(State(api): State<Arc<NodeApi>>, path: Container, query: RawQuery, request: Request<Body>) -> Result<Response, Refusal> {
    let command = Parameters::of(&query).all("command");
    if command.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify at least one command for the container"));
    }
    join(&api, path, &query, request, (Verb::Exec, command)).await
}

pub async fn attach(
    State(api): State<Arc<NodeApi>>,
    path: Container,
    query: RawQuery,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    join(&api, path, &query, request, (Verb::Attach, Vec::new())).await
}

async fn join(
    api: &NodeApi,
    Path((namespace, pod, container)): Container,
    query: &RawQuery,
    request: Request<Body>,
    (verb, command): (Verb, Vec<String>),
) -> Result<Response, Refusal> {
    let query = Parameters::of(query);
    let tty = query.flag(["tty", "tty"]);
    let wanted = ExecRequest {
        command,
        tty,
        stdin: query.flag(["input", "stdin"]),
        stdout: query.flag(["output", "stdout"]),
        stderr: query.flag(["error", "stderr"]) && !tty,
    };
    wanted.check()?;
    let found = api.running(&namespace, &pod, &container).await?;
    let remote = Remote { verb, container: found.id, request: wanted };
    Ok(serve(Arc::clone(&api.runtime), Wanted::Remote(remote), request).await)
}

pub async fn forward(
    State(api): State<Arc<NodeApi>>,
    Path((namespace, pod)): Path<(String, String)>,
    query: RawQuery,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let query = Parameters::of(&query);
    let words: Vec<String> = query.all("port").into_iter().chain(query.all("ports")).collect();
    let ports: Option<Vec<u16>> =
        words.iter().flat_map(|word| word.split(',')).map(|word| word.parse().ok().filter(|port| *port > 0)).collect();
    let ports = ports.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "query parameter \"port\" has to name ports"))?;
    let sandbox = api.ready_sandbox(&namespace, &pod).await?;
    Ok(serve(Arc::clone(&api.runtime), Wanted::Forward { sandbox, ports }, request).await)
}
