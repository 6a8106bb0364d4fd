//! The rest of a request that was answered before it had all come.
//!
//! Over HTTP/1 a body is read to its end before the next request is: a server that closes instead takes the answer from
//! clients that are still sending, which see a broken connection where they were told what is wrong. So what a handler
//! leaves is read and forgotten, as far as Go's `net/http`, and so kube-apiserver, does it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};

/// Of a body that nobody wants: more is not waited for (Go's `net/http`, `maxPostHandlerReadBytes`).
const LIMIT_BYTES: usize = 256 << 10;
const LIMIT: Duration = Duration::from_secs(5);

/// A body whose rest is read when it is dropped.
pub struct Unread<B: Rest>(Option<B>);

/// What can be read on after its reader has gone.
pub trait Rest: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static {}
impl<B: Body<Data = Bytes, Error: Send> + Send + Unpin + 'static> Rest for B {}

impl<B: Rest> Unread<B> {
    pub fn new(body: B) -> Self {
        Self(Some(body))
    }
}

impl<B: Rest> Body for Unread<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Rest> Drop for Unread<B> {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|body| !body.is_end_stream());
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { tokio::time::timeout(LIMIT, forget(rest)).await.ok() });
        }
    }
}

async fn forget<B: Rest>(mut rest: B) {
    let mut left = LIMIT_BYTES;
    while let Some(Ok(frame)) = rest.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::any;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;

    use crate::tls::connection::{Patience, serve_stream};

    /// A request whose answer comes before its body is sent; then another one.
    async fn second_answer(body: usize) -> String {
        let (client, server) = tokio::io::duplex(1 << 20);
        let router = Router::new().route("/", any(|| async { (http::StatusCode::BAD_REQUEST, "no") }));
        tokio::spawn(serve_stream(server, router, Patience::KNOWN, CancellationToken::new(), |_| {}));
        let (mut from, mut to) = tokio::io::split(client);
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {body}\r\n\r\n");
        to.write_all(head.as_bytes()).await.expect("the head is sent");
        let mut answer = vec![0; 1024];
        let length = from.read(&mut answer).await.expect("the first answer");
        assert!(answer[..length].starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer[..length]));
        to.write_all(&vec![b'x'; body]).await.ok();
        to.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok();
        let mut second = String::new();
        from.read_to_string(&mut second).await.ok();
        second.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn who_is_answered_early_may_finish_and_ask_again() {
        assert_eq!(second_answer(200 << 10).await, "HTTP/1.1 400 Bad Request");
    }
}
