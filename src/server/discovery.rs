//! What is served: groups, resources and verbs, from the kind registry and the custom kinds.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::fault::Fault;
use super::render::json_response;
use super::request::Form;
use super::{ServerState, usage};
use crate::model::custom::{Definitions, age};
use crate::model::{Kind, KindInfo};

/// The Kubernetes whose API this is.
const VERSION: (&str, &str) = ("1", "37");
const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Namespaces go one by one.
const VERBS_ONE_BY_ONE: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];
/// Of what is proxied with any method.
const CONNECT: [&str; 5] = ["create", "delete", "get", "patch", "update"];

fn verbs(info: &KindInfo) -> &'static [&'static str] {
    if info.kind == Kind::Namespace { &VERBS_ONE_BY_ONE } else { &VERBS }
}

/// `GET /version`
pub async fn version() -> Response {
    let (major, minor) = VERSION;
    let version = json!({
        "major": major, "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+podbay{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    });
    json_response(StatusCode::OK, version.to_string())
}

/// `GET /`: the paths that are served, as Kubernetes lists them.
pub async fn paths(State(state): State<Arc<ServerState>>) -> Response {
    let snapshot = state.store.snapshot();
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version", super::metrics::PATH]
            .map(str::to_owned)
            .into();
    for (group, versions) in all_groups(snapshot.definitions()).into_iter().chain(answered_groups()) {
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.extend(versions.iter().map(|version| format!("{root}/{version}")));
        paths.push(root);
    }
    paths.sort_unstable();
    paths.dedup();
    json_response(StatusCode::OK, json!({ "paths": paths }).to_string())
}

/// A subresource: name, the kind it speaks (with group and version where they are not the parent's), verbs.
struct Sub {
    name: &'static str,
    kind: &'static str,
    group_version: Option<(&'static str, &'static str)>,
    verbs: &'static [&'static str],
}

const fn sub(
    name: &'static str,
    kind: &'static str,
    group_version: Option<(&'static str, &'static str)>,
    verbs: &'static [&'static str],
) -> Sub {
    Sub { name, kind, group_version, verbs }
}

fn subresources(info: &KindInfo, served: &Definitions) -> Vec<Sub> {
    let mut subs = Vec::new();
    if info.has_status {
        subs.push(sub("status", info.name, None, &["get", "patch", "update"]));
    }
    match info.kind.stored() {
        Kind::Pod => subs.extend([
            sub("attach", "PodAttachOptions", None, &["create", "get"]),
            sub("binding", "Binding", None, &["create"]),
            sub("ephemeralcontainers", "Pod", None, &["get", "patch", "update"]),
            sub("eviction", "Eviction", Some(("policy", "v1")), &["create"]),
            sub("exec", "PodExecOptions", None, &["create", "get"]),
            sub("log", "Pod", None, &["get"]),
            sub("portforward", "PodPortForwardOptions", None, &["create", "get"]),
            sub("proxy", "PodProxyOptions", None, &CONNECT),
            sub("resize", "Pod", None, &["get", "patch", "update"]),
        ]),
        Kind::Node => subs.push(sub("proxy", "NodeProxyOptions", None, &CONNECT)),
        Kind::Service => subs.push(sub("proxy", "ServiceProxyOptions", None, &CONNECT)),
        Kind::Deployment | Kind::ReplicaSet => {
            subs.push(sub("scale", "Scale", Some(("autoscaling", "v1")), &["get", "patch", "update"]));
        }
        Kind::CertificateSigningRequest => subs.push(sub("approval", info.name, None, &["get", "patch", "update"])),
        Kind::ServiceAccount => subs.push(sub("token", "TokenRequest", Some(("authentication.k8s.io", "v1")), &["create"])),
        Kind::Custom(_) if served.version(info.kind).is_some_and(|version| version.scale.is_some()) => {
            subs.push(sub("scale", "Scale", Some(("autoscaling", "v1")), &["get", "patch", "update"]));
        }
        Kind::Namespace => subs.push(sub("finalize", "Namespace", None, &["update"])),
        _ => {}
    }
    subs
}

/// A group and its versions, the one that clients prefer first.
pub(super) type Group = (&'static str, Vec<&'static str>);

/// Plural, singular, kind, and whether it is in a namespace.
type Resource = (&'static str, &'static str, &'static str, bool);

/// A version of a group whose resources are answered and not stored, and their verbs.
type Answered = (&'static str, &'static str, &'static [&'static str], &'static [Resource]);

const ANSWERED: [Answered; 3] = [
    (
        "authentication.k8s.io",
        "v1",
        &["create"],
        &[("selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", false), ("tokenreviews", "tokenreview", "TokenReview", false)],
    ),
    (
        "authorization.k8s.io",
        "v1",
        &["create"],
        &[
            ("localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview", true),
            ("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview", false),
            ("selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview", false),
            ("subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", false),
        ],
    ),
    (usage::GROUP_VERSION.0, usage::GROUP_VERSION.1, &["get", "list"], &usage::RESOURCES),
];

fn answered(group: &str, version: &str) -> Option<&'static Answered> {
    ANSWERED.iter().find(|(name, its, ..)| (*name, *its) == (group, version))
}

fn answered_groups() -> impl Iterator<Item = Group> {
    ANSWERED.iter().map(|(group, version, ..)| (*group, vec![*version]))
}

/// Every group, the core group first.
pub(super) fn all_groups(served: &Definitions) -> Vec<Group> {
    let mut all: Vec<Group> = Vec::new();
    for info in served.rows() {
        match all.iter_mut().find(|(group, _)| *group == info.group) {
            Some((_, versions)) if versions.contains(&info.version) => {}
            Some((_, versions)) => versions.push(info.version),
            None => all.push((info.group, vec![info.version])),
        }
    }
    all.iter_mut().for_each(|(_, versions)| versions.sort_by(|a, b| age(b).cmp(&age(a))));
    all
}

fn kinds_of(served: &Definitions, group: &str, version: &str) -> Vec<&'static KindInfo> {
    served.rows().filter(|info| info.group == group && info.version == version).collect()
}

fn form(headers: &HeaderMap) -> Form {
    Form::negotiate(headers).unwrap_or(Form::Object)
}

/// `GET /api`
pub async fn core(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Response {
    if form(&headers) == Form::Discovery {
        let snapshot = state.store.snapshot();
        let core = all_groups(snapshot.definitions()).into_iter().filter(|(group, _)| group.is_empty());
        return aggregated(snapshot.definitions(), &core.collect::<Vec<_>>());
    }
    let versions = json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
    json_response(StatusCode::OK, versions.to_string())
}

/// `GET /apis`
pub async fn groups(State(state): State<Arc<ServerState>>, headers: HeaderMap) -> Response {
    let snapshot = state.store.snapshot();
    let named: Vec<Group> = all_groups(snapshot.definitions()).into_iter().filter(|(group, _)| !group.is_empty()).collect();
    let named: Vec<Group> = named.into_iter().chain(answered_groups()).collect();
    if form(&headers) == Form::Discovery {
        return aggregated(snapshot.definitions(), &named);
    }
    let groups: Vec<Value> = named.iter().map(group_value).collect();
    json_response(StatusCode::OK, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}).to_string())
}

fn group_value((group, versions): &Group) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version})).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

/// `GET /apis/{group}`
pub async fn group(State(state): State<Arc<ServerState>>, Path(group): Path<String>) -> Response {
    let found = all_groups(state.store.snapshot().definitions())
        .into_iter()
        .chain(answered_groups())
        .find(|(name, _)| !name.is_empty() && *name == group);
    match found {
        Some(found) => {
            let mut value = group_value(&found);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            json_response(StatusCode::OK, value.to_string())
        }
        None => Fault::no_such_path().into_response(),
    }
}

/// `GET /api/v1`
pub async fn core_resources(State(state): State<Arc<ServerState>>, Path(version): Path<String>) -> Response {
    resources(state.store.snapshot().definitions(), "", &version)
}

/// `GET /apis/{group}/{version}`
pub async fn group_resources(State(state): State<Arc<ServerState>>, Path((group, version)): Path<(String, String)>) -> Response {
    resources(state.store.snapshot().definitions(), &group, &version)
}

fn resources(served: &Definitions, group: &str, version: &str) -> Response {
    let kinds = kinds_of(served, group, version);
    if let Some((_, _, verbs, resources)) = answered(group, version) {
        let resource = |(plural, singular, kind, namespaced): &Resource| json!({"name": plural, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": verbs});
        return resource_list(group, version, resources.iter().map(resource).collect());
    }
    if kinds.is_empty() {
        return Fault::no_such_path().into_response();
    }
    let mut list = Vec::new();
    for info in kinds {
        let mut resource = json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced, "kind": info.name, "verbs": verbs(info),
        });
        if !info.short.is_empty() {
            resource["shortNames"] = json!(info.short);
        }
        if !info.categories.is_empty() {
            resource["categories"] = json!(info.categories);
        }
        list.push(resource);
        for sub in subresources(info, served) {
            let name = format!("{}/{}", info.plural, sub.name);
            let mut resource =
                json!({"name": name, "singularName": "", "namespaced": info.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if let Some((group, version)) = sub.group_version {
                resource["group"] = json!(group);
                resource["version"] = json!(version);
            }
            list.push(resource);
        }
    }
    resource_list(group, version, list)
}

fn resource_list(group: &str, version: &str, list: Vec<Value>) -> Response {
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list});
    json_response(StatusCode::OK, list.to_string())
}

/// Every group in one answer, as clients since 1.27 ask for it.
fn aggregated(served: &Definitions, groups: &[Group]) -> Response {
    let items: Vec<Value> = groups.iter().map(|group| aggregated_group(served, group)).collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    let mut response = json_response(StatusCode::OK, list.to_string());
    let content = HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    response
}

fn aggregated_group(served: &Definitions, (group, versions): &Group) -> Value {
    let versions: Vec<Value> = versions.iter().map(|version| aggregated_version(served, group, version)).collect();
    json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
}

fn aggregated_version(served: &Definitions, group: &str, version: &str) -> Value {
    let mut resources: Vec<Value> = kinds_of(served, group, version)
        .into_iter()
        .map(|info| {
            let subs: Vec<Value> = subresources(info, served)
                .into_iter()
                .map(|sub| {
                    let (group, version) = sub.group_version.unwrap_or((info.group, info.version));
                    json!({
                        "subresource": sub.name, "verbs": sub.verbs,
                        "responseKind": {"group": group, "version": version, "kind": sub.kind},
                    })
                })
                .collect();
            json!({
                "resource": info.plural, "singularResource": info.singular, "verbs": verbs(info),
                "responseKind": {"group": info.group, "version": info.version, "kind": info.name},
                "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
                "shortNames": info.short, "categories": info.categories, "subresources": subs,
            })
        })
        .collect();
    if let Some((_, _, verbs, answered)) = answered(group, version) {
        let resource = |(plural, singular, kind, namespaced): &Resource| {
            json!({
                "resource": plural, "singularResource": singular, "verbs": verbs,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "scope": if *namespaced { "Namespaced" } else { "Cluster" },
            })
        };
        resources = answered.iter().map(resource).collect();
    }
    json!({"version": version, "freshness": "Current", "resources": resources})
}
