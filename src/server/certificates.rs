//! Certificates for who asks for one by a CertificateSigningRequest: who may have which, and signing what is approved.
//!
//! Three of Kubernetes' signers are here: nodes' certificates as clients and as servers, and those of other clients. A
//! node's request for its certificate as a client is approved at once where a role lets its asker have that
//! (`certificatesigningrequests/nodeclient`, `/selfnodeclient`); a person decides about every other one.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::authorise::rbac;
use super::identity::{ADMINS, NODE_PREFIX, NODES};
use super::{Identity, ServerState, nodes};
use crate::model::rights::{Act, On};
use crate::model::{Key, Kind, Object, Timestamp};
use crate::store::{CommitError, Conflict, Precondition, Transaction, Write};
use crate::tls::request::Wish;
use crate::tls::{Order, Pki, SERVER_CLIENT, SERVER_NAME, node_host};

const GROUP: &str = "certificates.k8s.io";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const NODE_SERVER: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const SIGNERS: [&str; 3] = [NODE_CLIENT, NODE_SERVER, CLIENT];
/// The longest that a certificate of somebody else is good.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Kubernetes' least.
const SHORTEST: Duration = Duration::from_secs(600);
/// Steps from asking to having.
const STEPS: usize = 8;

/// Settles every request: at the start, for those whose writer went without an answer. What goes wrong is told and left.
pub async fn settle_all(state: &ServerState) {
    let keys: Vec<Key> = state.store.snapshot().list(Kind::CertificateSigningRequest).map(|object| object.key().clone()).collect();
    for key in keys {
        if let Err(error) = settle(state, &key).await {
            tracing::warn!(%key, %error, "settle a request for a certificate");
        }
    }
}

/// Does with a request whatever there is to do: approves it, signs it, or says why not.
///
/// # Errors
/// A store that takes no writes.
pub(super) async fn settle(state: &ServerState, key: &Key) -> Result<(), CommitError> {
    let Some(pki) = state.pki.as_deref() else { return Ok(()) };
    for _ in 0..STEPS {
        let snapshot = state.store.snapshot();
        let Some(object) = snapshot.get(key) else { break };
        let writes = next(state, pki, object, state.clock.now());
        if writes.is_empty() {
            break;
        }
        match state.store.commit(Transaction { writes, ..Transaction::new("podbay") }).await {
            Ok(_) | Err(CommitError::Conflict(Conflict::Revision { .. } | Conflict::Exists(_) | Conflict::NotFound(_))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next step of one request.
fn next(state: &ServerState, pki: &Pki, object: &Object, now: Timestamp) -> Vec<Write> {
    let Some(request) = object.get::<CertificateSigningRequest>() else { return Vec::new() };
    let spec = &request.spec;
    if has(request, "Denied") || has(request, "Failed") || is_issued(request) || !SIGNERS.contains(&spec.signer_name.as_str()) {
        return Vec::new();
    }
    let wish = || Wish::read_pem(&spec.request.0).unwrap_or_default();
    let writes = if has(request, "Approved") {
        sign(state, pki, object, request, &wish(), now)
    } else if spec.signer_name == NODE_CLIENT && approves_itself(state, pki, spec, &wish()) {
        let message = "The requester may have a node's certificate";
        vec![write(object, |request| mark(request, "Approved", "AutoApproved", message, now))]
    } else {
        Vec::new()
    };
    writes.into_iter().flatten().collect()
}

fn status(request: &CertificateSigningRequest) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    request.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

fn has(request: &CertificateSigningRequest, condition: &str) -> bool {
    status(request).any(|it| it.type_ == condition && it.status != "False")
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|certificate| !certificate.0.is_empty())
}

fn write(object: &Object, change: impl FnOnce(&mut CertificateSigningRequest)) -> Option<Write> {
    object.edit(change).map(|changed| Write::UpdateStatus(changed, Precondition::seen(object)))
}

fn mark(request: &mut CertificateSigningRequest, type_: &str, reason: &str, message: &str, now: Timestamp) {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

/// Who asked.
fn asker(spec: &CertificateSigningRequestSpec) -> Identity {
    Identity {
        user: spec.username.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        uid: spec.uid.clone(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

/// The certificate with which a node asks for itself, by its serial number; empty where none proved it.
fn asked_with<'a>(spec: &'a CertificateSigningRequestSpec, wish: &Wish) -> Option<&'a str> {
    let of_itself = spec.username.as_deref() == Some(wish.common_name.as_str());
    let serial = spec.extra.as_ref().and_then(|extra| extra.get(nodes::SERIAL)?.first());
    of_itself.then(|| serial.map(String::as_str).unwrap_or_default())
}

fn approves_itself(state: &ServerState, pki: &Pki, spec: &CertificateSigningRequestSpec, wish: &Wish) -> bool {
    if fits(spec, wish, pki.names()).is_err() {
        return false;
    }
    let who = asker(spec);
    let subresource = if who.user == wish.common_name { "selfnodeclient" } else { "nodeclient" };
    let on = On::Resource { group: GROUP, resource: "certificatesigningrequests", subresource, namespace: "", name: "" };
    rbac::authorise(&who, &Act { verb: "create", on }, &state.store.snapshot()).is_ok()
}

/// Whether a request is one that its signer signs. `servers`: the names and addresses of this server.
fn fits(spec: &CertificateSigningRequestSpec, wish: &Wish, servers: &[String]) -> Result<(), String> {
    let usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    let only = |allowed: &[&str], needed: &str| {
        let known = usages.iter().all(|usage| allowed.contains(usage) || matches!(*usage, "digital signature" | "key encipherment"));
        if known && usages.contains(&needed) { Ok(()) } else { Err(format!("usages: {needed:?} is needed, and others are not given")) }
    };
    let is_node = wish.organisations == [NODES] && wish.common_name.len() > NODE_PREFIX.len() && wish.common_name.starts_with(NODE_PREFIX);
    let named = !wish.names.is_empty() || wish.other_names;
    match spec.signer_name.as_str() {
        NODE_CLIENT | NODE_SERVER if !is_node => Err(format!("the subject is not O={NODES}, CN={NODE_PREFIX}NAME")),
        NODE_CLIENT if named => Err("a client has no names of a server".to_owned()),
        NODE_CLIENT => only(&["client auth"], "client auth"),
        NODE_SERVER if wish.other_names || wish.names.is_empty() => Err("a server has DNS names or addresses, and no others".to_owned()),
        NODE_SERVER if spec.username.as_deref() != Some(wish.common_name.as_str()) => Err("a node asks for itself only".to_owned()),
        NODE_SERVER if wish.names.iter().any(|name| is_taken(name, servers) && *name != node_host(own_name(wish))) => {
            Err("nobody else has the names of the server and of other nodes".to_owned())
        }
        NODE_SERVER => only(&["server auth"], "server auth"),
        _ if wish.common_name == SERVER_CLIENT => Err("that name is the server's".to_owned()),
        _ if wish.organisations.iter().any(|it| it == ADMINS || it == NODES) => Err("nobody becomes a node or an admin so".to_owned()),
        _ if wish.organisations.len() > 1 => Err("certificates here have one organisation".to_owned()),
        _ if wish.common_name.is_empty() || named => Err("a client has a common name and no names of a server".to_owned()),
        _ => only(&["client auth"], "client auth"),
    }
}

fn own_name(wish: &Wish) -> &str {
    wish.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default()
}

/// Whether a name is one by which the server is found, or by which it and nodes know each other.
fn is_taken(name: &str, servers: &[String]) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let address = |text: &str| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    if let Some(wanted) = address(&name) {
        return wanted.is_loopback() || wanted.is_unspecified() || servers.iter().any(|own| address(own) == Some(wanted));
    }
    // Whatever the cluster's domain is.
    let of_service = name == "kubernetes" || name == "kubernetes.default" || name.starts_with("kubernetes.default.");
    let of_server = name == SERVER_NAME || servers.iter().any(|own| own.trim_end_matches('.').eq_ignore_ascii_case(&name));
    of_service || of_server || name.ends_with(".podbay") || name.contains('*')
}

/// The writes by which an approved request has its certificate, or the reason why it never will.
fn sign(
    state: &ServerState,
    pki: &Pki,
    object: &Object,
    request: &CertificateSigningRequest,
    wish: &Wish,
    now: Timestamp,
) -> Vec<Option<Write>> {
    let spec = &request.spec;
    let wanted = spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let life = wanted.unwrap_or(nodes::CERTIFICATE_LIFE).clamp(SHORTEST, LONGEST);
    let order = Order {
        common_name: wish.common_name.clone(),
        organisation: wish.organisations.first().cloned(),
        names: if spec.signer_name == NODE_SERVER { wish.names.clone() } else { Vec::new() },
        life,
    };
    let pem = String::from_utf8_lossy(&spec.request.0);
    let signed = fits(spec, wish, pki.names())
        .and_then(|()| pki.authority().sign_request(&order, &pem, now).map_err(|error| error.to_string()))
        .and_then(|(issued, key)| {
            let (node, asked_with) = (own_name(wish), asked_with(spec, wish));
            let record = match spec.signer_name.as_str() {
                NODE_CLIENT => Some(nodes::record(state, node, asked_with, &issued, &key)?),
                NODE_SERVER => nodes::holds(&state.store.snapshot(), node, asked_with.unwrap_or_default()).map(|()| None)?,
                _ => None,
            };
            Ok((issued, record))
        });
    match signed {
        Ok((issued, record)) => {
            let issue = write(object, |request| {
                request.status.get_or_insert_default().certificate = Some(ByteString(issued.pem.into_bytes()));
            });
            vec![record, issue]
        }
        Err(why) => vec![write(object, |request| mark(request, "Failed", "SignerValidationFailure", &why, now))],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::server::InProcessNode;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    fn spec(signer: &str, user: &str, usage: &str) -> CertificateSigningRequestSpec {
        let value = json!({"request": "", "signerName": signer, "username": user, "usages": [usage]});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_never_has_a_name_of_the_server() {
        let servers = ["server.podbay", "localhost", "127.0.0.1", "::1", "Host1", "192.0.2.1", "10.96.0.1"].map(str::to_owned);
        let spec = spec(NODE_SERVER, "system:node:n1", "server auth");
        let said = |name: &str| {
            let names = vec!["n1".to_owned(), name.to_owned()];
            let wish = Wish { common_name: "system:node:n1".to_owned(), organisations: vec![NODES.to_owned()], names, other_names: false };
            fits(&spec, &wish, &servers)
        };
        for good in ["n1.example.org", "192.0.2.7", "n1.node.podbay", "kubernetes.example.org", "kubernetes.defaults.example.org"] {
            assert_eq!(said(good), Ok(()), "{good}");
        }
        for bad in [
            "server.podbay",
            "localhost",
            "127.0.0.1",
            "127.0.0.7",
            "::1",
            "0.0.0.0",
            "::ffff:192.0.2.1",
            "192.0.2.1",
            "10.96.0.1",
            "host1",
            "HOST1.",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "Kubernetes.Default.svc.cluster.example.",
            "n2.node.podbay",
            "*.example.org",
        ] {
            assert!(said(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_was_approved_before_the_start_is_signed_at_the_start() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&clock)));
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path(), &[], clock.now()).unwrap();
        let state = ServerState::new(Arc::clone(&store), clock, Arc::new(InProcessNode::new("none", None))).with_pki(pki);
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let mut spec = spec(CLIENT, "jane", "client auth");
        spec.request = ByteString(pem.into_bytes());
        let object = Object::from_value(Kind::CertificateSigningRequest, json!({"metadata": {"name": "jane"}, "spec": spec})).unwrap();
        let key = object.key().clone();
        store.commit(Transaction::new("test").with(Write::Create(object))).await.unwrap();
        let issued = || is_issued(store.snapshot().get(&key).unwrap().get::<CertificateSigningRequest>().unwrap());
        settle_all(&state).await;
        assert!(!issued(), "nobody approved it");
        let object = store.snapshot().get(&key).cloned().unwrap();
        let approve = write(&object, |request| mark(request, "Approved", "ByHand", "", Timestamp::UNIX_EPOCH)).unwrap();
        store.commit(Transaction::new("test").with(approve)).await.unwrap();
        settle_all(&state).await;
        assert!(issued());
        let revision = store.snapshot().revision();
        settle_all(&state).await;
        assert_eq!(store.snapshot().revision(), revision, "again writes nothing");
    }
}
