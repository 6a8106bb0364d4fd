//! Reviews: what somebody may do (`kubectl auth can-i`), and who the caller is (`kubectl auth whoami`).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode, header};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReviewSpec, SubjectAccessReviewSpec,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::authorise::{Attempt, may_node, node_asks, rbac};
use super::fault::Fault;
use super::render::json_response;
use super::request::Verb;
use super::{Identity, ServerState, body};
use crate::model::Kind;
use crate::model::rights::{Act, On};
use crate::store::Snapshot;

/// Of a review.
const LIMIT: usize = 64 * 1024;
const AUTHORIZATION: &str = "authorization.k8s.io/v1";

/// `POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews`
pub async fn review_self(State(state): State<Arc<ServerState>>, Extension(who): Extension<Identity>, request: Request<Body>) -> Response {
    let reviewed = async {
        let (mut review, asked) = read::<SelfSubjectAccessReviewSpec>("SelfSubjectAccessReview", request).await?;
        let asked = Asked { resource: asked.resource_attributes, path: asked.non_resource_attributes };
        review["status"] = judge(&who, &asked, &state.store.snapshot())?;
        Ok(answer("SelfSubjectAccessReview", AUTHORIZATION, review))
    };
    reviewed.await.unwrap_or_else(Fault::into_response)
}

/// `POST /apis/authorization.k8s.io/v1/subjectaccessreviews`
pub async fn review(State(state): State<Arc<ServerState>>, request: Request<Body>) -> Response {
    reviewed(&state, "SubjectAccessReview", None, request).await.unwrap_or_else(Fault::into_response)
}

/// `POST /apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews`
pub async fn review_local(State(state): State<Arc<ServerState>>, Path(namespace): Path<String>, request: Request<Body>) -> Response {
    reviewed(&state, "LocalSubjectAccessReview", Some(&namespace), request).await.unwrap_or_else(Fault::into_response)
}

async fn reviewed(state: &ServerState, kind: &'static str, namespace: Option<&str>, request: Request<Body>) -> Result<Response, Fault> {
    let (mut review, asked) = read::<SubjectAccessReviewSpec>(kind, request).await?;
    let wrong = |what: &str| Fault::new(422, "Invalid", format!("{kind}.authorization.k8s.io \"\" is invalid: {what}"));
    let groups = asked.groups.unwrap_or_default();
    let user = asked.user.unwrap_or_default();
    if user.is_empty() && groups.is_empty() {
        return Err(wrong("spec.user: Invalid value: \"\": at least one of user or group must be specified"));
    }
    if let Some(namespace) = namespace {
        let of = asked.resource_attributes.as_ref().and_then(|it| it.namespace.as_deref()).unwrap_or_default();
        if asked.non_resource_attributes.is_some() || of != namespace {
            return Err(wrong("spec.resourceAttributes.namespace: must be the namespace of the request"));
        }
    }
    let who = Identity { user, groups, uid: asked.uid, extra: asked.extra.unwrap_or_default() };
    let asked = Asked { resource: asked.resource_attributes, path: asked.non_resource_attributes };
    review["status"] = judge(&who, &asked, &state.store.snapshot())?;
    Ok(answer(kind, AUTHORIZATION, review))
}

/// `POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews`: every rule that holds for the caller in a namespace.
pub async fn rules(State(state): State<Arc<ServerState>>, Extension(who): Extension<Identity>, request: Request<Body>) -> Response {
    let reviewed = async {
        let (mut review, asked) = read::<BTreeMap<String, String>>("SelfSubjectRulesReview", request).await?;
        let namespace = asked.get("namespace").filter(|namespace| !namespace.is_empty());
        let namespace = namespace.ok_or_else(|| Fault::bad_request("no namespace on request"))?;
        let snapshot = state.store.snapshot();
        let held = rbac::held(&who, namespace, &snapshot);
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in &held.rules {
            let on_paths = rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty());
            if on_paths { &mut paths } else { &mut resources }.push(json!(rule));
        }
        // What a node may do with what is its own is no list of rules.
        let incomplete = who.node_name().is_some() || !held.unknown.is_empty();
        review["status"] = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
        if !held.unknown.is_empty() {
            review["status"]["evaluationError"] = held.unknown.join(", ").into();
        }
        Ok(answer("SelfSubjectRulesReview", AUTHORIZATION, review))
    };
    reviewed.await.unwrap_or_else(Fault::into_response)
}

/// `POST /apis/authentication.k8s.io/v1/selfsubjectreviews`
pub async fn who(Extension(identity): Extension<Identity>) -> Response {
    answer("SelfSubjectReview", "authentication.k8s.io/v1", json!({"metadata": {}, "status": {"userInfo": user_info(&identity)}}))
}

/// `authentication.k8s.io/v1 UserInfo`
pub fn user_info(identity: &Identity) -> Value {
    let mut user = json!({"username": identity.user, "groups": identity.groups});
    if let Some(uid) = &identity.uid {
        user["uid"] = uid.as_str().into();
    }
    if !identity.extra.is_empty() {
        user["extra"] = json!(identity.extra);
    }
    user
}

/// A review with its kind said.
pub fn answer(kind: &str, version: &str, mut review: Value) -> Response {
    (review["kind"], review["apiVersion"]) = (kind.into(), version.into());
    json_response(StatusCode::CREATED, review.to_string())
}

/// A review's body, and its spec understood.
pub async fn read<T: DeserializeOwned>(kind: &str, request: Request<Body>) -> Result<(Value, T), Fault> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let bytes = body::read(request.into_body(), LIMIT).await?;
    let review = body::decode(&content_type, &bytes)?.filter(Value::is_object);
    let mut review = review.ok_or_else(|| Fault::bad_request(format!("the request has no {kind}")))?;
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    let spec = match &review["spec"] {
        Value::Null => json!({}),
        spec => spec.clone(),
    };
    let spec = serde_json::from_value(spec).map_err(|error| Fault::bad_request(format!("{kind}: {error}")))?;
    Ok((review, spec))
}

/// What a review asks about.
struct Asked {
    resource: Option<ResourceAttributes>,
    path: Option<NonResourceAttributes>,
}

/// The review's status.
fn judge(who: &Identity, asked: &Asked, state: &Snapshot) -> Result<Value, Fault> {
    fn text(field: &Option<String>) -> &str {
        field.as_deref().unwrap_or_default()
    }
    let (act, for_node) = match (&asked.resource, &asked.path) {
        (Some(it), None) => {
            let (group, resource, subresource) = (text(&it.group), text(&it.resource), text(&it.subresource));
            let on = On::Resource { group, resource, subresource, namespace: text(&it.namespace), name: text(&it.name) };
            (Act { verb: text(&it.verb), on }, attempt(it))
        }
        (None, Some(it)) => (Act { verb: text(&it.verb), on: On::Path(text(&it.path)) }, None),
        _ => return Err(Fault::new(422, "Invalid", "spec: exactly one of resourceAttributes and nonResourceAttributes is needed")),
    };
    if node_asks(who, &act) || for_node.is_some_and(|attempt| may_node(who, &attempt, state)) {
        return Ok(json!({"allowed": true}));
    }
    Ok(match rbac::judge(who, &act, state) {
        Ok(()) => json!({"allowed": true}),
        Err(unknown) if unknown.is_empty() => json!({"allowed": false}),
        Err(unknown) => json!({"allowed": false, "reason": unknown}),
    })
}

/// What the node authoriser would be asked.
fn attempt(asked: &ResourceAttributes) -> Option<Attempt<'_>> {
    fn text(field: &Option<String>) -> Option<&str> {
        field.as_deref().filter(|text| !text.is_empty())
    }
    let (group, plural) = (text(&asked.group).unwrap_or_default(), text(&asked.resource)?);
    let info = Kind::all().iter().chain(Kind::editions()).find(|info| info.plural == plural && info.group == group)?;
    Some(Attempt {
        verb: Verb::of_word(text(&asked.verb)?)?,
        kind: info.kind,
        namespace: text(&asked.namespace).unwrap_or_default(),
        name: text(&asked.name),
        subresource: text(&asked.subresource),
        selected_node: selected(asked, "spec.nodeName"),
        selected_name: selected(asked, "metadata.name"),
        selected_home: None,
    })
}

/// What a list is asked to have in one field, and nothing else.
fn selected<'a>(asked: &'a ResourceAttributes, field: &str) -> Option<&'a str> {
    let selector = asked.field_selector.as_ref()?;
    let mut required = selector.requirements.iter().flatten().filter(|it| it.key == field && it.operator == "In");
    if let Some([value]) = required.next().and_then(|it| it.values.as_deref()) {
        return Some(value);
    }
    let raw = selector.raw_selector.as_deref().unwrap_or_default();
    let mut terms = raw.split(',').filter_map(|term| term.split_once('='));
    terms.find(|(name, _)| name.trim() == field).map(|(_, value)| value.trim_start_matches('=').trim())
}
