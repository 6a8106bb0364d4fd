//! `kubectl auth can-i` and `whoami`: what the caller may do, and who it is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode, header};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReviewSpec};
use serde_json::{Value, json};

use super::authorise::{Attempt, authorise};
use super::fault::Fault;
use super::render::json_response;
use super::request::Verb;
use super::{Identity, ServerState, body};
use crate::model::Kind;
use crate::store::Snapshot;

/// `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews`
pub async fn review(State(state): State<Arc<ServerState>>, Extension(identity): Extension<Identity>, request: Request<Body>) -> Response {
    reviewed(&state, &identity, request).await.unwrap_or_else(Fault::into_response)
}

async fn reviewed(state: &ServerState, identity: &Identity, request: Request<Body>) -> Result<Response, Fault> {
    let spec = read(request).await?.get_mut("spec").map(Value::take).unwrap_or_default();
    let asked: SelfSubjectAccessReviewSpec =
        serde_json::from_value(spec.clone()).map_err(|error| Fault::bad_request(format!("SelfSubjectAccessReview: {error}")))?;
    let verdict = match (&asked.resource_attributes, &asked.non_resource_attributes) {
        (Some(resource), None) => may(identity, resource, &state.store.snapshot()),
        (None, Some(path)) => may_ask(identity, path.path.as_deref().unwrap_or_default()),
        _ => return Err(Fault::new(422, "Invalid", "spec: exactly one of resourceAttributes and nonResourceAttributes is needed")),
    };
    let mut status = json!({"allowed": verdict.is_ok()});
    if let Err(reason) = verdict {
        status["reason"] = reason.into();
    }
    let review = json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": spec, "status": status,
    });
    Ok(json_response(StatusCode::CREATED, review.to_string()))
}

/// `POST /apis/authentication.k8s.io/v1/selfsubjectreviews`
pub async fn who(Extension(identity): Extension<Identity>) -> Response {
    let user = json!({"username": identity.user, "groups": identity.groups});
    let review = json!({
        "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "status": {"userInfo": user},
    });
    json_response(StatusCode::CREATED, review.to_string())
}

async fn read(request: Request<Body>) -> Result<Value, Fault> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bytes = body::read(request.into_body(), 64 * 1024).await?;
    body::decode(&content_type, &bytes)?.ok_or_else(|| Fault::bad_request("the request has no body"))
}

fn may(identity: &Identity, asked: &ResourceAttributes, state: &Snapshot) -> Result<(), String> {
    if identity.is_admin() {
        return Ok(());
    }
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let group = text(&asked.group).unwrap_or_default();
    let kind = text(&asked.resource).and_then(|plural| {
        let found = Kind::all().iter().find(|info| info.plural == plural && info.group == group);
        found.map(|info| info.kind)
    });
    let verb = text(&asked.verb).and_then(|word| Verb::of_word(&word));
    let (Some(kind), Some(verb)) = (kind, verb) else { return Err("a node may not".to_owned()) };
    let (name, subresource) = (text(&asked.name), text(&asked.subresource));
    let attempt = Attempt {
        verb,
        kind,
        namespace: asked.namespace.as_deref().unwrap_or_default(),
        name: name.as_deref(),
        subresource: subresource.as_deref(),
        selected_node: None,
        selected_name: None,
    };
    authorise(identity, &attempt, state)
}

/// Paths beside the objects: what is no secret.
fn may_ask(identity: &Identity, path: &str) -> Result<(), String> {
    let open = ["/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz", "/version"];
    let below = |root: &&str| path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if identity.is_admin() || open.iter().any(below) { Ok(()) } else { Err("a node may not".to_owned()) }
}
