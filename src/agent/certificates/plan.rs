//! What a node asks for by a CertificateSigningRequest, and what the answer says. PURE.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The group of nodes, and what is before a node's name in the name of its user.
pub const NODES: &str = "system:nodes";
pub const USER: &str = "system:node:";
/// Where requests are.
pub const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// The first and the longest pause before the same is asked again …
const SHORTEST: Duration = Duration::from_millis(500);
pub const LONGEST: Duration = Duration::from_secs(30);
/// … and the longest before it is looked whether a certificate is due.
pub const LOOK: Duration = Duration::from_secs(600);

/// A certificate that a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub node: String,
    /// DNS names and addresses of one to serve with; none: one to ask with.
    pub names: Vec<String>,
}

impl Wanted {
    /// One to ask the server with.
    pub fn client(node: &str) -> Self {
        Self { node: node.to_owned(), names: Vec::new() }
    }

    /// The subject's common name.
    pub fn user(&self) -> String {
        format!("{USER}{}", self.node)
    }

    /// In an error.
    pub fn what(&self) -> String {
        let to = if self.names.is_empty() { "ask" } else { "serve" };
        format!("a certificate of node {} to {to} with", self.node)
    }

    fn signer(&self) -> (&'static str, &'static str) {
        match self.names.is_empty() {
            true => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
            false => ("kubernetes.io/kubelet-serving", "server auth"),
        }
    }

    /// The name of the request for this key (DER of its public part): the same again is found again.
    pub fn name(&self, key: &[u8]) -> String {
        let mut hash = Sha256::new();
        for part in [key, self.signer().0.as_bytes(), self.node.as_bytes(), self.names.join(" ").as_bytes()] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        format!("node-csr-{}", hex::encode(&hash.finalize()[..20]))
    }

    /// The object. `request`: PKCS #10, PEM.
    pub fn object(&self, name: &str, request: &str) -> Value {
        let (signer, usage) = self.signer();
        json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name},
            "spec": {"request": STANDARD.encode(request), "signerName": signer, "usages": ["digital signature", usage]},
        })
    }
}

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// For somebody to approve it.
    Waiting,
    /// For its signer.
    Approved,
    /// The certificate, PEM.
    Issued(String),
    /// It never will be: why not.
    Refused(String),
}

/// What a request's status says.
pub fn progress(object: &Value) -> Progress {
    let conditions = object["status"]["conditions"].as_array();
    let refused = conditions.into_iter().flatten().find_map(|condition| {
        let how = match condition["type"].as_str() {
            Some("Denied") => "was denied",
            Some("Failed") => "failed",
            _ => return None,
        };
        let said: Vec<&str> =
            ["reason", "message"].iter().filter_map(|field| condition[*field].as_str()).filter(|it| !it.is_empty()).collect();
        Some(format!("{how} ({})", if said.is_empty() { "nothing is said of why".to_owned() } else { said.join(": ") }))
    });
    let issued = || {
        let bytes = STANDARD.decode(object["status"]["certificate"].as_str()?).ok()?;
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    };
    let approved = conditions.into_iter().flatten().any(|condition| condition["type"] == "Approved");
    match refused {
        Some(why) => Progress::Refused(why),
        None => issued().map_or(if approved { Progress::Approved } else { Progress::Waiting }, Progress::Issued),
    }
}

/// How long to wait until a certificate is looked at again that is due in so many seconds; `None`: it was not got, or is due
/// as soon as it was, so that asking at once would never end. `failed`: how often in a row.
pub fn until_next(due: Option<u64>, failed: &mut u32) -> Duration {
    *failed = if due.is_some() { 0 } else { failed.saturating_add(1) };
    due.map_or_else(|| pause(*failed, LOOK), |seconds| Duration::from_secs(seconds).min(LOOK))
}

/// How long to wait after so many tries: longer each time, to a bound.
pub fn pause(tries: u32, bound: Duration) -> Duration {
    SHORTEST.saturating_mul(1 << tries.min(16)).min(bound)
}

/// Whose certificate this is, by its common name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This node: it can renew it.
    Node,
    Another(&'a str),
    /// No node's: it is used as it is.
    Somebody,
}

/// Who has a certificate with this common name, seen from `node`.
pub fn owner<'a>(common_name: &'a str, node: &str) -> Owner<'a> {
    match common_name.strip_prefix(USER) {
        Some(name) if name == node => Owner::Node,
        Some(other) => Owner::Another(other),
        None => Owner::Somebody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(names: &[&str]) -> Wanted {
        Wanted { node: "n1".to_owned(), names: names.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn a_request_is_as_kubernetes_signers_want_it() {
        let client = Wanted::client("n1").object("x", "PEM");
        assert_eq!(client["spec"]["signerName"], "kubernetes.io/kube-apiserver-client-kubelet");
        assert_eq!(client["spec"]["usages"], json!(["digital signature", "client auth"]));
        assert_eq!((&client["metadata"]["name"], &client["spec"]["request"]), (&json!("x"), &json!("UEVN")));
        let server = serving(&["n1"]).object("x", "PEM");
        assert_eq!(server["spec"]["signerName"], "kubernetes.io/kubelet-serving");
        assert_eq!(server["spec"]["usages"], json!(["digital signature", "server auth"]));
    }

    #[test]
    fn what_is_asked_again_has_the_same_name_and_nothing_else_has() {
        let all = [
            Wanted::client("n1").name(b"k"),
            Wanted::client("n1").name(b"l"),
            Wanted::client("n2").name(b"k"),
            serving(&["a", "b"]).name(b"k"),
            serving(&["a"]).name(b"k"),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], Wanted::client("n1").name(b"k"));
        assert!(
            all.iter().all(|name| name.len() == 49 && name.bytes().all(|it| it == b'-' || it.is_ascii_lowercase() || it.is_ascii_digit()))
        );
    }

    #[test]
    fn an_answer_is_read() {
        let of = |status: Value| progress(&json!({"status": status}));
        let condition = |type_: &str, reason: &str| json!([{"type": "Other"}, {"type": type_, "reason": reason, "message": ""}]);
        assert_eq!(of(Value::Null), Progress::Waiting);
        assert_eq!(of(json!({"conditions": condition("Approved", "ByHand"), "certificate": ""})), Progress::Approved);
        assert_eq!(of(json!({"conditions": condition("Approved", "ByHand"), "certificate": "UEVN"})), Progress::Issued("PEM".to_owned()));
        assert_eq!(of(json!({"conditions": condition("Denied", "No")})), Progress::Refused("was denied (No)".to_owned()));
        assert_eq!(of(json!({"conditions": condition("Failed", "")})), Progress::Refused("failed (nothing is said of why)".to_owned()));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let seconds: Vec<u64> = (0..9).map(|tries| pause(tries, LONGEST).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!((pause(0, LOOK), pause(u32::MAX, LOOK)), (SHORTEST, LOOK));
    }

    #[test]
    fn what_is_due_as_soon_as_it_is_there_is_asked_for_ever_more_seldom() {
        let mut failed = 0;
        let mut seconds = |due| until_next(due, &mut failed).as_secs();
        assert_eq!([None, None, None, None].map(&mut seconds), [1, 2, 4, 8]);
        assert_eq!([Some(7), Some(u64::MAX), None].map(&mut seconds), [7, LOOK.as_secs(), 1], "a good one is a new beginning");
        assert_eq!((0..20).map(|_| seconds(None)).last(), Some(LOOK.as_secs()));
    }

    #[test]
    fn a_certificate_is_a_nodes_by_its_name() {
        let rows = [("system:node:n1", Owner::Node), ("system:node:n2", Owner::Another("n2")), ("admin", Owner::Somebody)];
        for (name, expected) in rows {
            assert_eq!(owner(name, "n1"), expected, "{name}");
        }
    }
}
