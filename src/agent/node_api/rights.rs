//! Which right a request to the node API takes, and what is remembered of who has which. PURE.

use std::collections::BTreeMap;

use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::model::Timestamp;

/// How long a server's word holds, as the kubelet's defaults have it (`authentication.webhook.cacheTTL`,
/// `authorization.webhook.cacheAuthorizedTTL`, `cacheUnauthorizedTTL`).
pub const KNOWN: SignedDuration = SignedDuration::from_secs(120);
pub const ALLOWED: SignedDuration = SignedDuration::from_secs(300);
pub const DENIED: SignedDuration = SignedDuration::from_secs(30);

/// What is asked of the server: one of these subresources of this node, by this verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub verb: &'static str,
    /// The narrowest first.
    pub subresources: Vec<&'static str>,
}

/// As the kubelet reads a request (`pkg/kubelet/server/auth.go`, with the finer names of 1.33). What runs something in a
/// container or reaches into it takes `create`, however it is asked: of a WebSocket the method is GET, and who may read is
/// not meant to run programs.
pub fn need(method: &Method, path: &str) -> Need {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let runs = ["/exec", "/attach", "/portForward", "/run"].into_iter().any(below);
    let verb = match *method {
        _ if runs => "create",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let subresources = match () {
        () if below("/stats") => vec!["stats"],
        () if below("/metrics") => vec!["metrics"],
        () if below("/logs") => vec!["log"],
        () if below("/checkpoint") => vec!["checkpoint"],
        () if below("/healthz") => vec!["healthz", "proxy"],
        () if below("/configz") => vec!["configz", "proxy"],
        () if below("/pods") || below("/runningpods") => vec!["pods", "proxy"],
        () => vec!["proxy"],
    };
    Need { verb, subresources }
}

/// Who asks, as a TokenReview or a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    /// The same with what else is known, in the form of a SubjectAccessReview.
    spec: Value,
}

impl Caller {
    /// Of a certificate.
    pub fn of_certificate(name: &str, organisations: &[String]) -> Self {
        let groups: Vec<&str> = organisations.iter().map(String::as_str).chain(["system:authenticated"]).collect();
        Self { user: name.to_owned(), spec: json!({"user": name, "groups": groups}) }
    }

    /// Of a TokenReview that came back; `None`: the token is nobody's.
    pub fn of_review(review: &Value) -> Option<Self> {
        let status = &review["status"];
        let user = status["user"]["username"].as_str().filter(|_| status["authenticated"] == true)?;
        let mut spec = json!({"user": user});
        for field in ["uid", "groups", "extra"] {
            let value = &status["user"][field];
            if !value.is_null() {
                spec[field] = value.clone();
            }
        }
        Some(Self { user: user.to_owned(), spec })
    }

    /// The SubjectAccessReview to ask with.
    pub fn review(&self, node: &str, verb: &str, subresource: &str) -> Value {
        let mut spec = self.spec.clone();
        spec["resourceAttributes"] = json!({"verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": node});
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
    }
}

/// The TokenReview to ask with.
pub fn token_review(token: &str) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}})
}

/// By what something is remembered: no token stays in memory.
pub type Print = [u8; 32];

pub fn print(text: &str) -> Print {
    Sha256::digest(text).into()
}

/// Answers for as long as they hold, and no more than so many.
pub struct Recent<T> {
    bound: usize,
    known: BTreeMap<Print, (Timestamp, T)>,
}

impl<T: Clone> Recent<T> {
    pub fn new(bound: usize) -> Self {
        Self { bound, known: BTreeMap::new() }
    }

    pub fn get(&self, print: &Print, now: Timestamp) -> Option<T> {
        self.known.get(print).filter(|(until, _)| now < *until).map(|(_, value)| value.clone())
    }

    /// Where there is no room, what would be forgotten first is forgotten now.
    pub fn insert(&mut self, print: Print, value: T, until: Timestamp) {
        if self.known.len() >= self.bound
            && !self.known.contains_key(&print)
            && let Some(first) = self.known.iter().min_by_key(|(_, (until, _))| *until).map(|(print, _)| *print)
        {
            self.known.remove(&first);
        }
        self.known.insert(print, (until, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_takes_the_right_that_the_kubelets_has() {
        let rows: [(&str, &str, &str, &[&str]); 16] = [
            ("GET", "/metrics/resource", "get", &["metrics"]),
            ("GET", "/metrics", "get", &["metrics"]),
            ("GET", "/metricsx", "get", &["proxy"]),
            ("GET", "/stats/summary", "get", &["stats"]),
            ("POST", "/stats/summary", "create", &["stats"]),
            ("GET", "/logs/", "get", &["log"]),
            ("POST", "/checkpoint/a/b/c", "create", &["checkpoint"]),
            ("HEAD", "/healthz", "get", &["healthz", "proxy"]),
            ("GET", "/configz", "get", &["configz", "proxy"]),
            ("GET", "/pods", "get", &["pods", "proxy"]),
            ("GET", "/runningpods/", "get", &["pods", "proxy"]),
            ("GET", "/containerLogs/a/b/c", "get", &["proxy"]),
            ("POST", "/exec/a/b/c", "create", &["proxy"]),
            ("GET", "/exec/a/b/c", "create", &["proxy"]),
            ("GET", "/attach/a/b/c", "create", &["proxy"]),
            ("GET", "/portForward/a/b", "create", &["proxy"]),
        ];
        for (method, path, verb, subresources) in rows {
            let wanted = Need { verb, subresources: subresources.to_vec() };
            assert_eq!(need(&method.parse().unwrap(), path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn who_asks_is_passed_on_as_it_is_known() {
        let user = json!({"username": "u", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}});
        let caller = Caller::of_review(&json!({"status": {"authenticated": true, "user": user}})).unwrap();
        let review = caller.review("n1", "get", "metrics");
        assert_eq!(
            review["spec"],
            json!({"user": "u", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}, "resourceAttributes":
                {"verb": "get", "version": "v1", "resource": "nodes", "subresource": "metrics", "name": "n1"}})
        );
        for status in [json!({"authenticated": false, "user": {"username": "u"}}), json!({"user": {"username": "u"}}), Value::Null] {
            assert_eq!(Caller::of_review(&json!({"status": status})), None, "{status}");
        }
        let spec = &Caller::of_certificate("c", &["o".to_owned()]).review("n1", "get", "proxy")["spec"];
        assert_eq!((&spec["user"], &spec["groups"]), (&json!("c"), &json!(["o", "system:authenticated"])));
    }

    #[test]
    fn what_is_remembered_ends_and_has_a_bound() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut recent = Recent::new(2);
        recent.insert(print("a"), 1, at(20));
        recent.insert(print("b"), 2, at(10));
        assert_eq!((recent.get(&print("a"), at(19)), recent.get(&print("a"), at(20))), (Some(1), None));
        recent.insert(print("a"), 3, at(30));
        assert_eq!((recent.get(&print("a"), at(9)), recent.get(&print("b"), at(9))), (Some(3), Some(2)), "it has its place already");
        recent.insert(print("c"), 4, at(15));
        let left = ["a", "b", "c"].map(|name| recent.get(&print(name), at(0)));
        assert_eq!(left, [Some(3), None, Some(4)]);
    }
}
