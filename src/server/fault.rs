//! An API error as Kubernetes words it: a `Status` object with code, reason, message and causes.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::admit::{FieldError, Refused};
use crate::model::{Key, Kind};
use crate::store::{CommitError, Conflict};

/// Why a request got no object.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub code: u16,
    /// Kubernetes' machine-readable reason: `NotFound`, `Conflict`.
    pub reason: Cow<'static, str>,
    pub message: String,
    /// `Status.details`; null where there are none.
    pub details: Value,
    /// Where a list can be gone on with all the same: `Status.metadata.continue`.
    pub next: Option<String>,
}

/// Fields in conflict, under the managers that own them.
fn by_manager(conflicts: &[(String, String)]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut before = "";
    for (manager, field) in conflicts {
        if before != manager {
            lines.push(format!("conflicts with {manager}:"));
        }
        lines.push(format!("- {field}"));
        before = manager;
    }
    lines.join("\n")
}

fn details(kind: Kind, name: &str) -> Value {
    let info = kind.info();
    let mut details = json!({"name": name, "kind": info.plural});
    if !info.group.is_empty() {
        details["group"] = info.group.into();
    }
    details
}

impl Fault {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: Value::Null, next: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "Unauthorized", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// The same, about an object or all of its kind.
    pub fn forbidden_object(kind: Kind, name: &str, message: impl Into<String>) -> Self {
        Self { details: details(kind, name), ..Self::forbidden(message) }
    }

    /// A path nobody serves.
    pub fn no_such_path() -> Self {
        // kubectl looks into the details without asking whether there are any.
        Self { details: json!({}), ..Self::new(404, "NotFound", "the server could not find the requested resource") }
    }

    pub fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self { details: details(kind, name), ..Self::new(404, "NotFound", message) }
    }

    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn not_acceptable(accept: &str) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!("application/json is served, of objects application/yaml too, and the request accepts only {accept}"),
        )
    }

    pub fn conflict(kind: Kind, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self { details: details(kind, name), ..Self::new(409, "Conflict", message) }
    }

    /// Another field manager (`"kubectl" using v1`) owns what this apply wants to set; one cause a field.
    pub fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(
                |(manager, field)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field}),
            )
            .collect();
        let message = match conflicts {
            [(manager, field)] => format!("Apply failed with 1 conflict: conflict with {manager}: {field}"),
            _ => format!("Apply failed with {} conflicts: {}", conflicts.len(), by_manager(conflicts)),
        };
        Self { details: json!({ "causes": causes }), ..Self::new(409, "Conflict", message) }
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A revision that is not there yet; clients ask again.
    pub fn too_new(wanted: u64, newest: u64) -> Self {
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let message = format!("Too large resource version: {wanted}, current: {newest}");
        Self { details: json!({"causes": [cause], "retryAfterSeconds": 1}), ..Self::new(504, "Timeout", message) }
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("the request's body, or the object it makes, is larger than {limit} bytes"))
    }

    pub fn unsupported_media_type(given: &str, taken: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format ({given}) - accepted media types include: {taken}"),
        )
    }

    pub fn invalid(kind: Kind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_value(kind.name(), kind.info().group, name, errors)
    }

    /// The same for what is no object of ours: options, a `Scale`.
    pub fn invalid_value(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> Self {
        let causes: Vec<Value> =
            errors.iter().map(|error| json!({"reason": error.reason.cause(), "message": error.message, "field": error.path})).collect();
        let listed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let listed = if listed.len() == 1 { listed.concat() } else { format!("[{}]", listed.join(", ")) };
        let mut details = json!({"name": name, "kind": kind, "causes": causes});
        let mut qualified = kind.to_owned();
        if !group.is_empty() {
            details["group"] = group.into();
            qualified = format!("{kind}.{group}");
        }
        Self { details, ..Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {listed}")) }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// What a node's API answered, which is text.
    pub fn of_node(code: u16, text: &str) -> Self {
        let reason = match code {
            400 => "BadRequest",
            403 => "Forbidden",
            404 => "NotFound",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        Self { details: json!({}), ..Self::new(code, reason, text.trim()) }
    }

    /// The `Status` object, also sent as the object of a watch's ERROR event.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if let Some(next) = &self.next {
            status["metadata"]["continue"] = next.clone().into();
        }
        status
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.status().to_string()));
        *response.status_mut() = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.code == 401 {
            // The connection's certificate is what was refused: the next one may bring a newer one.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

impl From<Conflict> for Fault {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Exists(Key { kind, name, .. }) => {
                let message = format!("{} \"{name}\" already exists", kind.qualified());
                Self { details: details(kind, &name), ..Self::new(409, "AlreadyExists", message) }
            }
            Conflict::NotFound(key) => Self::not_found(key.kind, &key.name),
            Conflict::Revision { key, .. } => Self::conflict(key.kind, &key.name, MODIFIED),
            Conflict::Uid { key, wanted, found } => {
                let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
                Self::conflict(key.kind, &key.name, why)
            }
        }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid { key, errors } => Self::invalid(key.kind, &key.name, &errors),
            Refused::Forbidden { key, message, .. } => {
                let text = format!("{} \"{}\" is forbidden: {message}", key.kind.qualified(), key.name);
                Self { details: details(key.kind, &key.name), ..Self::forbidden(text) }
            }
            Refused::Terminating { key } => {
                let namespace = &key.namespace;
                let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
                let mut details = details(key.kind, &key.name);
                let message = format!("namespace {namespace} is being terminated");
                details["causes"] = json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
                Self { details, ..Self::forbidden(format!("{} \"{}\" is forbidden: {why}", key.kind.qualified(), key.name)) }
            }
            Refused::Ending { ref key } => {
                Self { details: details(key.kind, &key.name), ..Self::new(405, "MethodNotAllowed", refused.to_string()) }
            }
            Refused::NoNamespace(name) => Self::not_found(Kind::Namespace, &name),
        }
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(conflict) => conflict.into(),
            CommitError::Refused(refused) => refused.into(),
            CommitError::Full(why) => {
                let what = "free space there or delete objects, and writes are taken again by themselves";
                Self::new(507, "InsufficientStorage", format!("the store is short of space: {why}; {what}"))
            }
            CommitError::Io(why) => Self::internal(format!("write to the store: {why}")),
        }
    }
}
