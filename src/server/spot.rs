//! What a request wants to do, in the words of rules: read from its method and path alone, whether or not anybody
//! serves it. PURE.

use http::{Method, Uri};

use super::request::{Query, Target};
use crate::model::custom::Definitions;
use crate::model::rights::{Act, On};

/// The right that a request needs, where it is not the object API, which finds out for itself (it knows what a node
/// may do with which object).
pub fn act<'a>(method: &'a Method, uri: &'a Uri, served: &Definitions) -> Option<Act<'a>> {
    let path = uri.path();
    if Target::parse(path, served).is_some() {
        return None;
    }
    Some(resource(method, uri).unwrap_or(Act { verb: word(method), on: On::Path(path) }))
}

fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

/// `/api/VERSION/RESOURCE…` and `/apis/GROUP/VERSION/RESOURCE…`; whatever is shorter is a path like any other.
fn resource<'a>(method: &Method, uri: &'a Uri) -> Option<Act<'a>> {
    let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", ""),
        [resource, name] => (*resource, *name, ""),
        [resource, name, subresource, ..] => (*resource, *name, *subresource),
        [] => return None,
    };
    let watches = || Query::parse(uri).is_ok_and(|query| query.flag("watch"));
    let verb = match *method {
        Method::GET | Method::HEAD if !name.is_empty() => "get",
        Method::GET | Method::HEAD if watches() => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => word(method),
    };
    Some(Act { verb, on: On::Resource { group, resource, subresource, namespace, name } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_rights() {
        let row = |method: Method, path: &'static str| {
            let uri = Uri::from_static(path);
            act(&method, &uri, &Definitions::default()).map(|act| match act.on {
                On::Path(path) => format!("{} {path}", act.verb),
                On::Resource { group, resource, subresource, namespace, name } => {
                    format!("{} {group}:{resource}/{subresource} {namespace}/{name}", act.verb)
                }
            })
        };
        for (method, path, expected) in [
            (Method::GET, "/metrics", Some("get /metrics")),
            (Method::POST, "/podbay/v1/tokens", Some("post /podbay/v1/tokens")),
            (Method::GET, "/apis/apps/v1", Some("get /apis/apps/v1")),
            (Method::GET, "/api/v1/namespaces/web/pods", None),
            (Method::GET, "/api/v1/namespaces/web/nothings", Some("list :nothings/ web/")),
            (Method::GET, "/apis/a.b/v1/things?watch=1", Some("watch a.b:things/ /")),
            (Method::DELETE, "/apis/a.b/v1/things/x", Some("delete a.b:things/ /x")),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/namespaces/web/localsubjectaccessreviews",
                Some("create authorization.k8s.io:localsubjectaccessreviews/ web/"),
            ),
            (Method::POST, "/apis/podbay.dev/v1/previews", Some("create podbay.dev:previews/ /")),
        ] {
            assert_eq!(row(method, path).as_deref(), expected, "{path}");
        }
    }
}
