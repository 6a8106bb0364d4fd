//! Objects to bytes in the form the caller asked for. PURE.
//!
//! An object's own JSON is copied as it is stored; only tables and bare metadata are encoded anew.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::ServerState;
use super::columns::{cells, columns};
use super::custom::View;
use super::request::{Call, Form};
use crate::model::{Kind, Object, Timestamp, convert};

/// How objects are shown.
#[derive(Clone, Debug)]
pub struct Renderer {
    form: Form,
    include: Include,
    now: Timestamp,
    /// Of a custom kind.
    view: Option<View>,
    /// A kind that is shown in another version than it is stored in.
    edition: Option<Kind>,
}

/// `includeObject`: what a table's rows carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

/// The metadata of a list.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub revision: u64,
    pub next: Option<String>,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            meta["continue"] = json!(next);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }
}

impl Renderer {
    /// As a call asks for it.
    pub fn of(state: &ServerState, call: &Call) -> Self {
        let view = View::of(call.target.kind, &state.store.snapshot());
        let include = match call.query.get("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        let edition = call.target.kind.conversion().map(|_| call.target.kind);
        Self { form: call.form, include, now: state.clock.now(), view, edition }
    }

    /// Ages are told as of then: a watch goes on for longer than what it said first is true.
    pub fn look_at(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Of a custom kind.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// One object.
    pub fn one(&self, object: &Object) -> Bytes {
        match self.form {
            Form::Table => self.table(
                object.kind(),
                &ListMeta { revision: object.revision(), ..ListMeta::default() },
                std::slice::from_ref(object),
                true,
            ),
            Form::Metadata => self.bare(object).to_string().into(),
            Form::Object | Form::Discovery => self.json(object),
        }
    }

    fn json(&self, object: &Object) -> Bytes {
        match (&self.view, self.edition) {
            (Some(view), _) => view.json(object),
            (None, Some(kind)) => object.value_in(kind).to_string().into(),
            (None, None) => object.json(),
        }
    }

    /// Its metadata: a version may say things in annotations that another has fields for.
    fn bare(&self, object: &Object) -> Value {
        let metadata = self.edition.map_or_else(|| json!(object.meta()), |kind| object.value_in(kind)["metadata"].take());
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
    }

    /// A list of one kind.
    pub fn list(&self, kind: Kind, meta: &ListMeta, objects: &[Object]) -> Bytes {
        if self.form == Form::Table {
            return self.table(kind, meta, objects, true);
        }
        let metadata = self.form == Form::Metadata;
        let (list, version) = if metadata {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            let list = self.view.as_ref().map(|view| view.list_kind().to_owned());
            (list.unwrap_or_else(|| format!("{}List", kind.name())), kind.api_version())
        };
        let mut out = Vec::with_capacity(256 + objects.len() * 1024);
        out.extend_from_slice(format!(r#"{{"kind":"{list}","apiVersion":"{version}","metadata":{},"items":["#, meta.value()).as_bytes());
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if metadata {
                out.extend_from_slice(self.bare(object).to_string().as_bytes())
            } else {
                out.extend_from_slice(&self.json(object))
            }
        }
        out.extend_from_slice(b"]}");
        out.into()
    }

    /// One line of a watch. `first`: a table names its columns only once.
    pub fn event(&self, word: &str, object: &Object, first: bool) -> Vec<u8> {
        let bytes = match self.form {
            Form::Table => {
                let meta = ListMeta { revision: object.revision(), ..ListMeta::default() };
                self.table(object.kind(), &meta, std::slice::from_ref(object), first)
            }
            Form::Metadata => self.bare(object).to_string().into(),
            Form::Object | Form::Discovery => self.json(object),
        };
        line(word, &bytes)
    }

    /// Says up to which revision a watch has seen everything.
    pub fn bookmark(&self, kind: Kind, revision: u64, initial_end: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Table => {
                let row =
                    json!({"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}});
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
                    "columnDefinitions": null, "rows": [row]})
            }
            Form::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
            Form::Object | Form::Discovery => skeleton(kind, metadata),
        };
        line("BOOKMARK", object.to_string().as_bytes())
    }

    fn table(&self, kind: Kind, meta: &ListMeta, objects: &[Object], headed: bool) -> Bytes {
        let definitions = match (&self.view, headed) {
            (_, false) => Value::Null,
            (Some(view), true) => view.columns(),
            (None, true) => columns(kind).split(", ").map(definition).collect(),
        };
        let mut out = format!(
            r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":{definitions},"rows":["#,
            meta.value()
        )
        .into_bytes();
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let cells = self.view.as_ref().map_or_else(|| cells(object, self.now), |view| view.cells(object, self.now));
            let cells = Value::from(cells);
            out.extend_from_slice(format!(r#"{{"cells":{cells},"object":"#).as_bytes());
            match self.include {
                Include::None => out.extend_from_slice(b"null"),
                Include::Metadata => out.extend_from_slice(self.bare(object).to_string().as_bytes()),
                Include::Object => out.extend_from_slice(&self.json(object)),
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        out.into()
    }
}

fn definition(column: &str) -> Value {
    let name = column.trim_end_matches('*');
    let format = if name == "Name" { "name" } else { "" };
    let number = matches!(name, "Data" | "Secrets" | "Desired" | "Current" | "Up-to-date" | "Available" | "Count" | "Objects" | "Webhooks");
    let kind = if number { "integer" } else { "string" };
    json!({"name": name, "type": kind, "format": format, "description": "", "priority": i32::from(column.ends_with('*'))})
}

/// An object of a kind with nothing but metadata and what its type requires.
fn skeleton(kind: Kind, metadata: Value) -> Value {
    let stored = kind.stored();
    let mut object = json!({"kind": kind.name(), "apiVersion": stored.api_version(), "metadata": metadata});
    match stored {
        Kind::Pod => object["spec"] = json!({"containers": null}),
        Kind::Deployment | Kind::ReplicaSet => {
            object["spec"] = json!({"selector": null, "template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": null}}});
        }
        Kind::Job => object["spec"] = json!({"template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": null}}}),
        Kind::HorizontalPodAutoscaler => {
            object["spec"] = json!({"scaleTargetRef": {"kind": "", "name": ""}, "maxReplicas": 0});
            object["status"] = json!({"desiredReplicas": 0, "currentMetrics": null});
        }
        Kind::EndpointSlice => {
            object["addressType"] = json!("");
            object["endpoints"] = Value::Null;
            object["ports"] = Value::Null;
        }
        Kind::Event => {
            object["involvedObject"] = json!({});
        }
        Kind::StorageClass => object["provisioner"] = json!(""),
        Kind::CSIDriver => object["spec"] = json!({}),
        Kind::CSINode => object["spec"] = json!({"drivers": null}),
        Kind::CertificateSigningRequest => object["spec"] = json!({"request": null, "signerName": ""}),
        Kind::ClusterRoleBinding | Kind::RoleBinding => object["roleRef"] = json!({"apiGroup": "", "kind": "", "name": ""}),
        _ => {}
    }
    convert::between(object, stored, kind)
}

/// `{"type":…,"object":…}` and a line feed.
pub fn line(word: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(br#"","object":"#);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out
}

/// A JSON answer.
pub fn json_response(code: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
