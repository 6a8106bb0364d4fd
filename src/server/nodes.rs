//! Nodes join, renew their certificates, and are removed.
//!
//! For each node the server keeps a record of the certificates it accepts (a Secret in
//! `kube-system`): the newest and the one before it. Removing a node removes the record, so that its
//! certificate is refused from the next request on; joining anew replaces it.
//!
//! A name can be joined again while its Node exists only by the holder of the same key (a join that
//! was interrupted), or with `rejoin` once the node has fallen silent: a stolen token cannot take the
//! place of a node that runs.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{Request, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::authorise::LEASE_NAMESPACE;
use super::bootstrap::SYSTEM;
use super::fault::Fault;
use super::identity::{NODE_PREFIX, NODES};
use super::render::json_response;
use super::tokens::{self, field, secret};
use super::{Identity, ServerState, body};
use crate::model::{Key, Kind, Object, Timestamp, pod};
use crate::store::{Precondition, Snapshot, Transaction, Write};
use crate::tls::{Issued, Order, Peer, Pki, node_host};

/// Of a node's certificate; renewed between two thirds and nine tenths of it.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is known besides of who proved to be a node by a certificate: its serial number, hexadecimal. What it asks for goes
/// with that certificate: when another host has the name, it is nobody's.
pub const SERIAL: &str = "podbay.dev/certificate-serial";
/// A node whose lease is younger runs.
const SILENT_AFTER: i64 = 40;
const PREFIX: &str = "podbay-node-";
const TYPE: &str = "podbay.dev/node-certificate";
const REQUEST_LIMIT: usize = 64 * 1024;

/// `POST /podbay/v1/join`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    pub token: String,
    pub node: String,
    /// PEM.
    pub csr: String,
    #[serde(default)]
    pub rejoin: bool,
}

/// `POST /podbay/v1/renew`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewRequest {
    pub csr: String,
}

/// `POST /podbay/v1/nodes/{name}/remove`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// Though it is ready and pods run on it.
    #[serde(default)]
    pub force: bool,
}

/// What joining and renewing answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateAnswer {
    pub certificate: String,
    pub authority: String,
}

/// Where the certificates of a node are written down.
pub fn record_key(node: &str) -> Key {
    Key::new(Kind::Secret, SYSTEM, format!("{PREFIX}{node}"))
}

/// Whether a record names this certificate.
pub fn accepts(record: &Object, serial: &str) -> bool {
    !serial.is_empty() && ["serial", "previous"].iter().any(|name| field(record, name) == Some(serial))
}

/// Whether a node's certificate is to be believed.
pub fn is_accepted(snapshot: &Snapshot, node: &str, serial: &str) -> bool {
    snapshot.get(&record_key(node)).is_some_and(|record| accepts(record, serial))
}

/// The same, for what was asked with that certificate a while ago.
///
/// # Errors
/// The sentence for who asked.
pub(super) fn holds(snapshot: &Snapshot, node: &str, serial: &str) -> Result<(), String> {
    let gone = || format!("node {node} was removed or joined anew since this was asked for");
    is_accepted(snapshot, node, serial).then_some(()).ok_or_else(gone)
}

/// A DNS name that fits into a host name of ours.
fn is_node_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 200 && name.split('.').all(label)
}

pub async fn join(State(state): State<Arc<ServerState>>, request: Request<Body>) -> Response {
    joined(&state, request.into_body()).await.unwrap_or_else(Fault::into_response)
}

async fn joined(state: &ServerState, body: Body) -> Result<Response, Fault> {
    let pki = pki(state)?;
    let bytes = body::read(body, REQUEST_LIMIT).await?;
    let wanted: JoinRequest = serde_json::from_slice(&bytes).map_err(|error| Fault::bad_request(format!("the join request: {error}")))?;
    let now = state.clock.now();
    let snapshot = state.store.snapshot();
    tokens::check(&snapshot, &wanted.token, now)?;
    if !is_node_name(&wanted.node) {
        return Err(Fault::bad_request(format!("{:?} is not a node name: lower-case letters, digits, dashes and dots", wanted.node)));
    }
    let (issued, key) = sign(pki, &wanted.node, &wanted.csr, now)?;
    let record = snapshot.get(&record_key(&wanted.node));
    if record.is_none_or(|record| field(record, "key") != Some(key.as_str())) {
        may_take_name(&snapshot, &wanted.node, Some(wanted.rejoin), state.clock.steady(), state.started)?;
    }
    write_record(state, record, &wanted.node, &[("serial", issued.serial.clone()), ("previous", String::new()), ("key", key)]).await?;
    tracing::info!(node = %wanted.node, until = %issued.not_after, "node joined");
    Ok(answer(pki, issued))
}

fn pki(state: &ServerState) -> Result<&Pki, Fault> {
    state.pki.as_deref().ok_or_else(|| Fault::unavailable("this server has no CA: nobody can join"))
}

/// Of the request only the key counts: a node cannot choose what its certificate says.
fn sign(pki: &Pki, node: &str, csr: &str, now: Timestamp) -> Result<(Issued, String), Fault> {
    let order = Order {
        common_name: format!("{NODE_PREFIX}{node}"),
        organisation: Some(NODES.to_owned()),
        names: vec![node_host(node)],
        life: CERTIFICATE_LIFE,
    };
    pki.authority().sign_request(&order, csr, now).map_err(|error| Fault::bad_request(error.to_string()))
}

fn answer(pki: &Pki, issued: Issued) -> Response {
    let answer = CertificateAnswer { certificate: issued.pem, authority: pki.authority().pem().to_owned() };
    json_response(StatusCode::OK, json!(answer).to_string())
}

/// `rejoin`: whether it says to be the same host; `None`: it cannot say so. Times are steady ones, as the stamps of leases are.
fn may_take_name(snapshot: &Snapshot, node: &str, rejoin: Option<bool>, now: Timestamp, started: Timestamp) -> Result<(), Fault> {
    if snapshot.get(&Key::cluster(Kind::Node, node)).is_none() {
        return Ok(());
    }
    let lease = snapshot.get(&Key::new(Kind::Lease, LEASE_NAMESPACE, node)).and_then(|lease| lease.get::<Lease>());
    // One from before this server's start may be of a clock that was wrong.
    let last = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)).filter(|last| *last <= now);
    let runs = last.is_some_and(|last| now.as_second() - last.as_second() < SILENT_AFTER);
    let refuse = |message: String| Err(Fault::new(409, "Conflict", message));
    match (runs, rejoin) {
        (true, _) => refuse(format!(
            "a node called {node} runs: choose another name with --node-name, or remove that one first with `podbay node remove {node}`"
        )),
        (false, None) => refuse(format!("a node called {node} joined before: remove it first with `podbay node remove {node}`")),
        (false, Some(false)) => refuse(format!(
            "a node called {node} joined before: say --rejoin if this is the same host, or remove it first with `podbay node remove {node}`"
        )),
        // Heartbeats are not kept over a restart: until now the node had no time to give another.
        (false, Some(true)) if now.as_second() - started.as_second() < SILENT_AFTER => {
            refuse(format!("this server has just started and cannot know yet whether {node} runs: try again in {SILENT_AFTER} s"))
        }
        (false, Some(true)) => Ok(()),
    }
}

fn record_write(current: Option<&Object>, node: &str, fields: &[(&str, String)]) -> Write {
    let record = secret(&record_key(node).name, TYPE, fields);
    match current {
        Some(current) => Write::Update(record, Precondition::seen(current)),
        None => Write::Create(record),
    }
}

/// The write by which a certificate that a node asked for by a CertificateSigningRequest is accepted. `asked_with`: the one
/// before it where the node asked itself, which stays good until the next.
///
/// # Errors
/// A name that another node has, or that none can have.
pub(super) fn record(state: &ServerState, node: &str, asked_with: Option<&str>, issued: &Issued, key: &str) -> Result<Write, String> {
    if !is_node_name(node) {
        return Err(format!("{node:?} is not a node name: lower-case letters, digits, dashes and dots"));
    }
    let snapshot = state.store.snapshot();
    let record = snapshot.get(&record_key(node));
    match asked_with {
        Some(serial) => holds(&snapshot, node, serial)?,
        None if record.is_none_or(|record| field(record, "key") != Some(key)) => {
            may_take_name(&snapshot, node, None, state.clock.steady(), state.started).map_err(|fault| fault.message)?;
        }
        None => {}
    }
    let previous = record.filter(|_| asked_with.is_some()).and_then(|record| field(record, "serial")).unwrap_or_default().to_owned();
    Ok(record_write(record, node, &[("serial", issued.serial.clone()), ("previous", previous), ("key", key.to_owned())]))
}

async fn write_record(state: &ServerState, current: Option<&Object>, node: &str, fields: &[(&str, String)]) -> Result<(), Fault> {
    state.store.commit(Transaction::new("podbay").with(record_write(current, node, fields))).await?;
    Ok(())
}

/// A new certificate for the node that asks with its current one, which stays good until the next renewal.
pub async fn renew(State(state): State<Arc<ServerState>>, Extension(identity): Extension<Identity>, request: Request<Body>) -> Response {
    renewed(&state, &identity, request).await.unwrap_or_else(Fault::into_response)
}

async fn renewed(state: &ServerState, identity: &Identity, request: Request<Body>) -> Result<Response, Fault> {
    let node = identity.node_name().ok_or_else(|| Fault::forbidden("only nodes renew their certificates here"))?;
    let pki = pki(state)?;
    let peer = request.extensions().get::<Peer>().cloned();
    let bytes = body::read(request.into_body(), REQUEST_LIMIT).await?;
    let wanted: RenewRequest =
        serde_json::from_slice(&bytes).map_err(|error| Fault::bad_request(format!("the request to renew: {error}")))?;
    let (issued, key) = sign(pki, node, &wanted.csr, state.clock.now())?;
    let snapshot = state.store.snapshot();
    // The name may have gone to another host while the body was on its way.
    let record = snapshot.get(&record_key(node)).filter(|record| peer.is_none_or(|peer| accepts(record, &peer.serial)));
    let record = record.ok_or_else(|| Fault::unauthorized(format!("node {node} was removed or joined anew")))?;
    let previous = field(record, "serial").unwrap_or_default().to_owned();
    write_record(state, Some(record), node, &[("serial", issued.serial.clone()), ("previous", previous), ("key", key)]).await?;
    tracing::info!(node, until = %issued.not_after, "node certificate renewed");
    Ok(answer(pki, issued))
}

/// `POST /podbay/v1/nodes/{name}/remove`: its certificate is refused from now on, its Node and leases
/// go, and with the Node its pod range.
pub async fn remove(State(state): State<Arc<ServerState>>, Path(name): Path<String>, request: Request<Body>) -> Response {
    removed(&state, &name, request.into_body()).await.unwrap_or_else(Fault::into_response)
}

async fn removed(state: &ServerState, name: &str, body: Body) -> Result<Response, Fault> {
    let bytes = body::read(body, REQUEST_LIMIT).await?;
    let wanted: RemoveRequest = match bytes.is_empty() {
        true => RemoveRequest::default(),
        false => serde_json::from_slice(&bytes).map_err(|error| Fault::bad_request(format!("the request to remove: {error}")))?,
    };
    let snapshot = state.store.snapshot();
    may_remove(state, &snapshot, name, wanted.force)?;
    let mut keys = vec![record_key(name), Key::cluster(Kind::Node, name), Key::new(Kind::Lease, LEASE_NAMESPACE, name)];
    keys.retain(|key| snapshot.get(key).is_some());
    if keys.is_empty() {
        return Err(Fault::not_found(Kind::Node, name));
    }
    // One transaction each: a renewal or heartbeat in between must not keep the node in.
    for key in keys {
        let write = Write::Delete { key, precondition: Precondition::exists(), grace_seconds: None };
        match state.store.commit(Transaction::new("podbay").with(write)).await {
            Ok(_) | Err(crate::store::CommitError::Conflict(crate::store::Conflict::NotFound(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    tracing::info!(node = name, "node removed");
    Ok(json_response(StatusCode::OK, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}).to_string()))
}

/// Removing ends the node's pods: not of the server's own node, and of one that runs only when meant.
fn may_remove(state: &ServerState, snapshot: &Snapshot, name: &str, force: bool) -> Result<(), Fault> {
    let refuse = |message: String| Err(Fault::new(409, "Conflict", message));
    let node = snapshot.get(&Key::cluster(Kind::Node, name)).and_then(|node| node.get::<Node>());
    if node.is_some() && state.nodes.here() == Some(name) {
        return refuse(format!(
            "{name} runs in this daemon and would be back at once: `podbay node drain {name}` moves its pods away, \
             `podbay down` and `podbay reset` on that host end it"
        ));
    }
    let ready = node
        .and_then(|node| node.status.as_ref()?.conditions.as_ref())
        .is_some_and(|conditions| conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
    let running = snapshot.pods_on(name).filter(|object| object.get::<Pod>().is_some_and(|pod| !pod::is_terminal(pod))).count();
    if ready && running > 0 && !force {
        return refuse(format!(
            "{name} is ready and runs {running} pods, which its agent would end: `podbay node drain {name}` first, or say --force"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CertificateSigningRequest has no word for it.
    #[test]
    fn the_way_to_the_name_of_a_silent_node_is_one_there_is() {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        let mut state = Snapshot::default();
        state.insert(Object::from_value(Kind::Node, node).unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        let told = |rejoin| may_take_name(&state, "n1", rejoin, at(1000), at(0)).map_err(|fault| fault.message);
        let remove = "remove it first with `podbay node remove n1`";
        assert_eq!(told(None), Err(format!("a node called n1 joined before: {remove}")));
        assert_eq!(told(Some(false)), Err(format!("a node called n1 joined before: say --rejoin if this is the same host, or {remove}")));
        assert_eq!(told(Some(true)), Ok(()));
    }

    #[test]
    fn node_names_are_dns_names() {
        for good in ["n1", "host-1.example.org", "1"] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "N1", "-a", "a-", "a..b", "a/b", "a_b", "server.podbay/", &"a".repeat(64)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }
}
