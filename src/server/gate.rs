//! What every request passes first: who is it, and is that certificate still good?

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Request;

use super::fault::Fault;
use super::{Identity, ServerState, nodes};
use crate::tls::Peer;

/// Paths for those who have no certificate yet.
const OPEN: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/podbay/v1/join"];

/// Puts the [`Identity`] into the request, or answers 401.
pub async fn gate(State(state): State<Arc<ServerState>>, mut request: Request<Body>, next: Next) -> Response {
    if request.extensions().get::<Identity>().is_none() {
        match request.extensions().get::<Peer>().map(|peer| identify(&state, peer)) {
            Some(Ok(identity)) => {
                request.extensions_mut().insert(identity);
            }
            _ if OPEN.contains(&request.uri().path()) => {}
            Some(Err(fault)) => return fault.into_response(),
            None => return Fault::unauthorized("Unauthorized: a client certificate is needed").into_response(),
        }
    }
    let path = request.uri().path();
    let ours = path.starts_with("/podbay/") || matches!(path, "/apis/podbay.dev/v1/previews" | super::metrics::PATH);
    let for_nodes = matches!(path, "/podbay/v1/join" | "/podbay/v1/renew");
    if ours && !for_nodes {
        match request.extensions().get::<Identity>() {
            Some(identity) if identity.is_admin() => {}
            Some(identity) => {
                return Fault::forbidden(format!("{path} is forbidden: User \"{}\" is no admin", identity.user)).into_response();
            }
            None => return Fault::unauthorized("Unauthorized").into_response(),
        }
    }
    next.run(request).await
}

/// Who a verified certificate stands for, if it is still to be believed.
fn identify(state: &ServerState, peer: &Peer) -> Result<Identity, Fault> {
    let now = state.clock.now();
    if now > peer.not_after {
        return Err(Fault::unauthorized(format!("the certificate of {} expired at {}", peer.common_name, peer.not_after)));
    }
    let identity = Identity { user: peer.common_name.clone(), groups: peer.organisations.clone() };
    if let Some(node) = identity.node_name()
        && !nodes::is_accepted(&state.store.snapshot(), node, &peer.serial)
    {
        return Err(Fault::unauthorized(format!("node {node} was removed or joined anew: its certificate is refused")));
    }
    Ok(identity)
}
