//! What every request passes first: who is it, is what proves that still good, and may they ask for this path?

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Request;

use super::accounts::check;
use super::accounts::claims::ISSUER;
use super::audit::Caller;
use super::authorise::{node_asks, rbac};
use super::fault::Fault;
use super::impersonate::impersonated;
use super::{Identity, ServerState, nodes, spot};
use crate::model::NODE_REMOVED;
use crate::tls::Peer;
use crate::tls::connection::Trust;

/// Paths for those who are nobody yet, whatever the roles say.
const OPEN: [&str; 6] = ["/healthz", "/livez", "/readyz", "/version", "/version/", "/podbay/v1/join"];
/// Where nodes renew their certificates: looks itself who asks.
const RENEW: &str = "/podbay/v1/renew";

/// Who acts as the [`Identity`] of a request, where that is somebody else.
#[derive(Clone)]
pub struct Actor(pub Identity);

/// Puts the [`Identity`] into the request, or answers 401; 403 for who may not act as somebody else.
pub async fn gate(State(state): State<Arc<ServerState>>, mut request: Request<Body>, next: Next) -> Response {
    let identity = match identify(&state, &request) {
        Ok(identity) => identity.authenticated(),
        Err(_) if OPEN.contains(&request.uri().path()) => Identity::anonymous(),
        Err(fault) => return fault.into_response(),
    };
    let identity = match impersonated(&identity, request.headers(), &state.store.snapshot()) {
        Ok(None) => identity,
        Ok(Some(other)) => {
            // What the caller's certificate proves is not what it acts as.
            request.extensions_mut().remove::<Peer>();
            request.extensions_mut().insert(Actor(identity));
            other
        }
        Err(fault) => {
            request.extensions().get::<Caller>().inspect(|caller| caller.is(&identity, None));
            return fault.into_response();
        }
    };
    if let Some(caller) = request.extensions().get::<Caller>() {
        caller.is(&identity, request.extensions().get::<Actor>().map(|actor| &actor.0));
    }
    request.extensions_mut().insert(identity);
    next.run(request).await
}

/// Answers 403 for what the caller may not. Objects are looked at where they are known; everything else here.
pub async fn rights(State(state): State<Arc<ServerState>>, request: Request<Body>, next: Next) -> Response {
    let refused = match request.extensions().get::<Identity>() {
        Some(identity) => may_pass(&state, identity, &request).err(),
        None => Some(Fault::unauthorized("Unauthorized")),
    };
    match refused {
        Some(fault) => fault.into_response(),
        None => next.run(request).await,
    }
}

fn may_pass(state: &ServerState, identity: &Identity, request: &Request<Body>) -> Result<(), Fault> {
    let path = request.uri().path();
    if OPEN.contains(&path) || path == RENEW {
        return Ok(());
    }
    let snapshot = state.store.snapshot();
    match spot::act(request.method(), request.uri(), snapshot.definitions()) {
        Some(act) if node_asks(identity, &act) => Ok(()),
        Some(act) => rbac::authorise(identity, &act, &snapshot).map_err(Fault::forbidden),
        None => Ok(()),
    }
}

/// Who asks: as the process, the certificate or the token says, else nobody.
fn identify(state: &ServerState, request: &Request<Body>) -> Result<Identity, Fault> {
    if let Some(identity) = request.extensions().get::<Identity>() {
        return Ok(identity.clone());
    }
    if let Some(peer) = request.extensions().get::<Peer>() {
        return certified(state, peer);
    }
    let Some(token) = check::bearer(request.headers()) else { return Ok(Identity::anonymous()) };
    let (identity, _) = check::check(state, &token, &[ISSUER]).ok_or_else(|| Fault::unauthorized("Unauthorized"))?;
    if let Some(trust) = request.extensions().get::<Trust>() {
        trust.prove(&identity.user);
    }
    Ok(identity)
}

/// Who a verified certificate stands for, if it is still to be believed.
fn certified(state: &ServerState, peer: &Peer) -> Result<Identity, Fault> {
    let now = state.clock.now();
    if now > peer.not_after {
        return Err(Fault::unauthorized(format!("the certificate of {} expired at {}", peer.common_name, peer.not_after)));
    }
    let mut identity = Identity { user: peer.common_name.clone(), groups: peer.organisations.clone(), ..Identity::default() };
    if let Some(node) = identity.node_name() {
        if !nodes::is_accepted(&state.store.snapshot(), node, &peer.serial) {
            return Err(Fault::new(401, NODE_REMOVED, format!("node {node} was removed or joined anew: its certificate is refused")));
        }
        identity.extra.insert(nodes::SERIAL.to_owned(), vec![peer.serial.clone()]);
    }
    Ok(identity)
}
