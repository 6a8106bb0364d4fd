//! Asking a webhook: one POST on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::place::Place;
use super::trust::Roots;
use crate::tls::{TlsError, connect};

/// Of an answer: as large as a request's body may be.
const ANSWER_LIMIT: usize = 3 << 20;

/// Why there is no answer, as Kubernetes words it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("failed to call webhook: Post {url:?}: context deadline exceeded")]
    Late { url: String },
    #[error("failed to call webhook: Post {url:?}: {why}")]
    Failed { url: String, why: String },
}

/// Sends the question and gives the body of the answer.
///
/// # Errors
/// No connection, no answer in time, or one that is none.
pub async fn ask(roots: &Roots, place: &Place, bundle: Option<&[u8]>, question: String, patience: Duration) -> Result<Bytes, CallError> {
    let url = place.url.clone();
    let failed = |why: String| CallError::Failed { url: place.url.clone(), why };
    let config = roots.config(bundle).map_err(failed)?;
    match tokio::time::timeout(patience, post(place, config, question, patience)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(CallError::Late { url }),
    }
}

async fn post(place: &Place, config: Arc<ClientConfig>, question: String, patience: Duration) -> Result<Bytes, String> {
    let stream = open(place, config, patience).await.map_err(|error| error.to_string())?;
    let request = Request::post(place.path.as_str())
        .header(header::HOST, place.host.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("podbay/", env!("CARGO_PKG_VERSION")))
        .body(Body::from(question))
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = Running(tokio::spawn(async move {
        // What went wrong is told where the answer is awaited.
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("the server answered with {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(|error| {
        match error.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => format!("the answer is larger than {ANSWER_LIMIT} bytes"),
            None => error.to_string(),
        }
    })?;
    drop(connection);
    Ok(body.to_bytes())
}

/// The first address that takes a connection, from one of them on: the load is spread. None of several may take all the
/// time, which an answer needs too.
async fn open(place: &Place, config: Arc<ClientConfig>, patience: Duration) -> Result<TlsStream<TcpStream>, TlsError> {
    let mut fault = TlsError::Address(place.url.clone());
    let share = match place.addresses.len() {
        0 => return Err(fault),
        1 => Duration::MAX,
        2 => patience / 3,
        _ => patience / 4,
    };
    let (before, from) = place.addresses.split_at(rand::random_range(0..place.addresses.len()));
    for address in from.iter().chain(before) {
        match tokio::time::timeout(share, connect::open(address, &place.name, Arc::clone(&config))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => fault = error,
            Err(_) => fault = TlsError::Slow(address.clone()),
        }
    }
    Err(fault)
}

/// A connection that ends with whoever needs it, also where that was not waited for.
struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
