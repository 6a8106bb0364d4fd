//! Podbay's own endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use http::{Request, StatusCode};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::fault::Fault;
use super::render::json_response;
use super::{ServerState, body};
use crate::model::{LAST_APPLIED, Object};
use crate::store::Snapshot;
use crate::sync::select::TREE_BYTES;
use crate::sync::source::Tree;

/// Files of a preview: every tree that can be applied, in base64 (four bytes for three), and the names.
const TREE_LIMIT: usize = TREE_BYTES as usize / 3 * 4 + 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreviewRequest {
    source: Option<String>,
    /// Path to base64.
    files: Option<BTreeMap<String, String>>,
    /// What whoever read the files left out.
    #[serde(default)]
    notes: Vec<String>,
    /// Whether there is the path that the source reads; said where there is not.
    path_exists: Option<bool>,
    #[serde(default)]
    adopt: bool,
}

/// `POST /apis/podbay.dev/v1/previews`
pub async fn preview(State(state): State<Arc<ServerState>>, request: Request<axum::body::Body>) -> Response {
    match previewed(&state, request).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    }
}

async fn previewed(state: &ServerState, request: Request<axum::body::Body>) -> Result<Response, Fault> {
    let previews = state.previews.as_ref().ok_or_else(|| Fault::unavailable("this server computes no previews"))?;
    let bytes = body::read(request.into_body(), TREE_LIMIT).await?;
    let wanted: PreviewRequest =
        serde_json::from_slice(&bytes).map_err(|error| Fault::bad_request(format!("the preview request: {error}")))?;
    let decode = |(path, text): (String, String)| match base64::engine::general_purpose::STANDARD.decode(&text) {
        Ok(bytes) => Ok((path, bytes)),
        Err(error) => Err(Fault::bad_request(format!("files[{path:?}]: {error}"))),
    };
    let files = wanted.files.map(|files| files.into_iter().map(decode).collect::<Result<BTreeMap<_, _>, _>>()).transpose()?;
    let path_exists = wanted.path_exists.unwrap_or(true);
    let tree = files.map(|files| Tree { files, notes: wanted.notes, path_exists, ..Tree::default() });
    let preview = previews.preview(wanted.source, tree, wanted.adopt).await.map_err(|error| Fault::new(422, "Invalid", error))?;
    Ok(json_response(StatusCode::OK, preview.to_string()))
}

/// `GET /podbay/v1/snapshot`
pub async fn snapshot(State(state): State<Arc<ServerState>>) -> Response {
    json_response(StatusCode::OK, snapshot_file(&state.store.snapshot()))
}

/// Every object, Secret values left out: the file of offline previews.
pub fn snapshot_file(snapshot: &Snapshot) -> Vec<u8> {
    let mut out = format!("{{\"version\":1,\"revision\":{},\"objects\":[", snapshot.revision()).into_bytes();
    for (index, object) in snapshot.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",\n" } else { b"\n" });
        out.extend_from_slice(&without_secrets(object).json());
    }
    out.extend_from_slice(b"\n]}\n");
    out
}

fn without_secrets(object: &Object) -> Object {
    let blank = object.edit::<Secret>(|secret| {
        secret.data.iter_mut().flatten().for_each(|(_, value)| *value = ByteString(Vec::new()));
        secret.string_data.iter_mut().flatten().for_each(|(_, value)| value.clear());
        secret.metadata.annotations.iter_mut().for_each(|annotations| {
            annotations.remove(LAST_APPLIED);
        });
    });
    blank.unwrap_or_else(|| object.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use serde_json::json;

    #[test]
    fn a_snapshot_holds_no_secret_value() {
        let mut snapshot = Snapshot::default();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "namespace": "web", "annotations": {LAST_APPLIED: "hunter2", "kept": "yes"}},
            "data": {"password": "aHVudGVyMg=="}, "stringData": {"other": "hunter2"},
        });
        snapshot.insert(Object::from_value(Kind::Secret, secret).unwrap());
        let text = String::from_utf8(snapshot_file(&snapshot)).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(file["objects"][0]["data"], json!({"password": ""}));
        assert_eq!(file["objects"][0]["metadata"]["annotations"], json!({"kept": "yes"}));
    }
}
