//! Kinds of Kubernetes that nobody serves here and that a tool lists all the same, in no discovery: there is none of them. PURE.
//!
//! `kubectl cluster-info dump` asks for these by heart and gives up where a path is not there.

use http::{Method, Uri};
use serde_json::{Value, json};

use super::request::Query;

/// Where the group is, the resource, the kind.
const KINDS: [(&str, &str, &str); 2] =
    [("/api/v1", "replicationcontrollers", "ReplicationController"), ("/apis/apps/v1", "daemonsets", "DaemonSet")];

/// The empty list that a request asks for; `None`: something else.
pub fn list(method: &Method, uri: &Uri, revision: u64) -> Option<Value> {
    if !matches!(*method, Method::GET | Method::HEAD) || Query::parse(uri).is_ok_and(|query| query.flag("watch")) {
        return None;
    }
    let (group, _, kind) = KINDS.iter().find(|(group, resource, _)| {
        let rest = uri.path().strip_prefix(group).and_then(|rest| rest.strip_suffix(resource));
        let rest: Option<Vec<&str>> = rest.map(|rest| rest.split('/').collect());
        matches!(rest.as_deref(), Some(["", ""] | ["", "namespaces", _, ""]))
    })?;
    let version = group.trim_start_matches("/apis/").trim_start_matches("/api/");
    Some(json!({"kind": format!("{kind}List"), "apiVersion": version, "metadata": {"resourceVersion": revision.to_string()}, "items": []}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_are_empty() {
        let version = |method: Method, path: &'static str| list(&method, &Uri::from_static(path), 7).map(|list| list["apiVersion"].clone());
        for (path, expected) in [
            ("/api/v1/replicationcontrollers", Some("v1")),
            ("/apis/apps/v1/namespaces/web/daemonsets?limit=500", Some("apps/v1")),
            ("/apis/apps/v1/daemonsets?watch=true", None),
            ("/apis/apps/v1/namespaces/web/daemonsets/x", None),
            ("/apis/apps/v1/namespaces/web/x/daemonsets", None),
            ("/apis/apps/v1/mydaemonsets", None),
            ("/api/v1/daemonsets", None),
        ] {
            assert_eq!(version(Method::GET, path), expected.map(Value::from), "{path}");
        }
        assert_eq!(version(Method::POST, "/apis/apps/v1/namespaces/web/daemonsets"), None);
    }
}
