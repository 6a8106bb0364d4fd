//! OpenAPI: schemas for `kubectl explain`, and the paths by which clients find out that the server
//! validates fields itself. Made anew for each request: clients keep it by its hash.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::discovery::all_groups;
use super::fault::Fault;
use super::render::json_response;
use super::{ServerState, custom, openapi_v2};
use crate::model::custom::{Definitions, Version};
use crate::model::schema::document;
use crate::model::{Kind, KindInfo};

/// Follows what the documents are made of: clients keep them by it.
static HASH: LazyLock<String> = LazyLock::new(|| document::digest(env!("CARGO_PKG_VERSION")));

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Changes with every release, and with the custom kinds of the group, or of all.
fn hash_of(served: &Definitions, group: Option<&str>) -> String {
    let custom = served.iter().filter(|definition| group.is_none_or(|group| definition.storage().kind.info().group == group));
    custom.fold(HASH.to_owned(), |hash, definition| format!("{hash}-{}", definition.hash))
}

fn group_versions(served: &Definitions) -> impl Iterator<Item = (&'static str, &'static str)> {
    all_groups(served).into_iter().flat_map(|(group, versions)| versions.into_iter().map(move |version| (group, version)))
}

/// `GET /openapi/v3`
pub async fn index(State(state): State<Arc<ServerState>>) -> Response {
    let snapshot = state.store.snapshot();
    let served = snapshot.definitions();
    let paths: BTreeMap<String, Value> = group_versions(served)
        .map(|(group, version)| {
            let path = path_of(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", hash_of(served, Some(group)));
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    json_response(StatusCode::OK, json!({ "paths": paths }).to_string())
}

/// `GET /openapi/v3/apis/{group}/{version}`
pub async fn document(State(state): State<Arc<ServerState>>, Path(path): Path<String>, headers: HeaderMap) -> Response {
    let snapshot = state.store.snapshot();
    let served = snapshot.definitions();
    let found = group_versions(served).find(|(group, version)| path_of(group, version) == path);
    let Some((group, version)) = found else { return Fault::no_such_path().into_response() };
    let hash = hash_of(served, Some(group));
    let mut response = match has_it(&headers, &hash) {
        true => status_only(StatusCode::NOT_MODIFIED),
        false => json_response(StatusCode::OK, describe(served, group, version).to_string()),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    tagged(response, &hash)
}

/// `GET /openapi/v2`: clients older than 1.27 validate by it, newer ones what v3 does not know;
/// nothing here contradicts them. In protobuf where that is asked for.
pub async fn v2(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let in_protobuf = accept.split(',').any(|range| PROTOBUF.contains(&range.trim()));
    if !in_protobuf && !accept.contains("json") && !accept.contains("*/*") {
        return Fault::not_acceptable(accept).into_response();
    }
    let snapshot = state.store.snapshot();
    let served = snapshot.definitions();
    let hash = format!("{}{}", hash_of(served, None), if in_protobuf { "-protobuf" } else { "" });
    let mut response = match (has_it(&headers, &hash), in_protobuf) {
        (true, _) => status_only(StatusCode::NOT_MODIFIED),
        (false, true) => {
            let document = openapi_v2::encode(TITLE, env!("CARGO_PKG_VERSION"), &all_definitions(served));
            let mut response = Response::new(Body::from(document));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF[0]));
            response
        }
        (false, false) => {
            let document = json!({"swagger": "2.0", "info": info(), "paths": {}, "definitions": all_definitions(served)});
            json_response(StatusCode::OK, document.to_string().replace(document::REFERENCE, "#/definitions/"))
        }
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    tagged(response, &hash)
}

/// The schemas of all kinds, custom ones too, as far as OpenAPI 2 has words for them.
fn all_definitions(served: &Definitions) -> Map<String, Value> {
    let mut definitions = definitions();
    for version in served.iter().flat_map(|definition| &definition.versions).filter(|version| version.served) {
        let mut schema = custom::open_api(version);
        custom::as_v2(&mut schema);
        schema["x-kubernetes-group-version-kind"] = json!([gvk(version.kind.info())]);
        definitions.insert(custom::definition_name(version.kind), schema);
    }
    definitions
}

/// Every kind that is not custom, in each of its versions.
fn of_the_table() -> impl Iterator<Item = &'static KindInfo> {
    Kind::all().iter().chain(Kind::editions())
}

/// The schemas of all kinds.
fn definitions() -> Map<String, Value> {
    let document = document::read();
    let kinds: Vec<(&KindInfo, String)> = of_the_table().filter_map(|info| Some((info, document.name_of(info.kind)?.to_owned()))).collect();
    let mut schemas = document.take(&kinds.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>());
    for (info, name) in kinds {
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(info)]);
        }
    }
    schemas
}

/// Whether the client keeps what would be sent (RFC 9110, 13.1.2).
fn has_it(headers: &HeaderMap, hash: &str) -> bool {
    let kept = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kept.split(',').any(|tag| tag.trim().trim_start_matches("W/").trim_matches('"') == hash)
}

fn tagged(mut response: Response, hash: &str) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn status_only(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The names by which clients ask for gnostic's `openapi.v2.Document`; the first is a proper media type.
const PROTOBUF: [&str; 2] =
    ["application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];

const TITLE: &str = "Podbay";

fn info() -> Value {
    json!({"title": TITLE, "version": env!("CARGO_PKG_VERSION")})
}

fn describe(definitions: &Definitions, group: &str, version: &str) -> Value {
    let document = document::read();
    let served: Vec<_> = of_the_table().filter(|info| info.group == group && info.version == version).collect();
    let names: Vec<String> = served.iter().filter_map(|info| document.name_of(info.kind)).map(str::to_owned).collect();
    let custom = definitions.iter().flat_map(|definition| &definition.versions);
    let custom: Vec<&Version> =
        custom.filter(|it| it.served && (it.kind.info().group, it.kind.info().version) == (group, version)).collect();
    let metadata = (!custom.is_empty()).then_some(custom::METADATA);
    let mut schemas = document.take(&names.iter().map(String::as_str).chain(metadata).collect::<Vec<_>>());
    let mut paths = Map::new();
    for version in custom {
        let name = custom::definition_name(version.kind);
        let mut schema = custom::open_api(version);
        schema["x-kubernetes-group-version-kind"] = json!([gvk(version.kind.info())]);
        add_paths(&mut paths, version.kind.info(), &name);
        schemas.insert(name, schema);
    }
    for (info, name) in served.into_iter().zip(&names) {
        add_paths(&mut paths, info, name);
        if let Some(schema) = schemas.get_mut(name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(info)]);
        }
    }
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}})
}

fn gvk(info: &KindInfo) -> Value {
    json!({"group": info.group, "version": info.version, "kind": info.name})
}

/// The operations of a kind, with what they take.
fn add_paths(paths: &mut Map<String, Value>, info: &KindInfo, schema: &str) {
    let scope = if info.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{scope}/{}", path_of(info.group, info.version), info.plural);
    let object = json!({"$ref": format!("#/components/schemas/{schema}")});
    let operation = |action: &str, parameters: &[(&str, &str)], body: Option<Value>| {
        let mut operation = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(info),
            "parameters": parameters.iter().map(|(name, kind)| query(name, kind)).collect::<Vec<_>>(),
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": object}}}},
        });
        if let Some(content) = body {
            operation["requestBody"] = json!({"content": content, "required": action != "delete"});
        }
        operation
    };
    let whole = || Some(json!({"application/json": {"schema": object}}));
    let patches = PATCHES.map(|(media, kind)| (media.to_owned(), json!({"schema": {"type": kind}}))).into_iter().collect::<Map<_, _>>();
    let options = json!({"application/json": {"schema": {"type": "object"}}});
    let mut of_one = json!({
        "get": operation("get", &[("resourceVersion", "string")], None),
        "put": operation("put", &WRITES, whole()),
        "patch": operation("patch", &[&WRITES[..], &[("force", "boolean")]].concat(), Some(Value::Object(patches))),
        "delete": operation("delete", &DELETES, Some(options)),
    });
    let mut of_all = json!({"get": operation("list", &LISTS, None), "post": operation("post", &WRITES, whole())});
    let namespace = info.namespaced.then_some("namespace");
    of_one["parameters"] = namespace.into_iter().chain(["name"]).map(in_path).collect();
    of_all["parameters"] = namespace.into_iter().map(in_path).collect();
    paths.insert(format!("{collection}/{{name}}"), of_one);
    paths.insert(collection, of_all);
}

/// Query parameters with their types.
const WRITES: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const DELETES: [(&str, &str); 3] = [("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")];
const LISTS: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

/// Media types of patches with the type of their bodies. Not the strategic merge, which is taken as well: kubectl would
/// make it from the schemas then, in which it would miss the keys of lists, rather than from the types that it knows.
const PATCHES: [(&str, &str); 3] =
    [("application/apply-patch+yaml", "object"), ("application/json-patch+json", "array"), ("application/merge-patch+json", "object")];

fn query(name: &str, kind: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
}
