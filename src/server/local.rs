//! A kube client in the same process: the same handlers, no socket.

use axum::Router;
use axum::body::Body;
use http::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt as _};

use super::Identity;
use crate::tls::connection::{Patience, serve_stream};

/// Bytes that a connection in the process may hold before its reader reads.
const BUFFER: usize = 64 * 1024;

/// A client that acts as `identity`.
pub fn local_client(router: Router, identity: Identity) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (router, identity) = (router.clone(), identity.clone());
        async move {
            let request = request.map(Body::new);
            if request.headers().contains_key(header::UPGRADE) {
                upgrade(router, identity, request).await
            } else {
                plain(router, identity, request).await
            }
        }
    });
    kube::Client::new(service, "default")
}

async fn plain(router: Router, identity: Identity, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    request.extensions_mut().insert(identity);
    match router.oneshot(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// An upgrade takes over a connection, so it gets one: a pipe with HTTP on both ends.
async fn upgrade(router: Router, identity: Identity, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (near, far) = tokio::io::duplex(BUFFER);
    let extend = move |extensions: &mut http::Extensions| {
        extensions.insert(identity.clone());
    };
    tokio::spawn(serve_stream(far, router, Patience::KNOWN, CancellationToken::new(), extend));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection.with_upgrades());
    if !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("podbay"));
    }
    Ok(sender.send_request(request).await?.map(Body::new))
}
