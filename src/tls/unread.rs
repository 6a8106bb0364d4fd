//! The rest of a request that was answered before it had all come.
//!
//! Over HTTP/1 a body is read to its end before the next request is: a server that closes instead takes the answer from
//! clients that are still sending, which see a broken connection where they were told what is wrong. So what a handler
//! leaves is read and forgotten, as far as Go's `net/http`, and so kube-apiserver, does it.
//!
//! Over HTTP/2 the other requests of the connection need no such care, and a stream is reset behind its answer with
//! `NO_ERROR` (RFC 9113, 8.1), which there are clients that take for a failure all the same (curl 7.88: error 92). So a
//! body is read as far there, too.

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
    use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
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

    /// Kinds of frames (RFC 9113, 6).
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// Kind and flags of the next frame.
    async fn next(from: &mut (impl AsyncReadExt + Unpin)) -> (u8, u8) {
        let mut head = [0; 9];
        from.read_exact(&mut head).await.expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        from.read_exact(&mut payload).await.expect("what is in it");
        (head[3], head[4])
    }

    /// A request over HTTP/2 whose body is sent once it is answered: whether its stream is reset.
    async fn is_reset(body: usize) -> bool {
        let (client, server) = tokio::io::duplex(4 << 20);
        let router = Router::new().route("/", any(|| async { (http::StatusCode::BAD_REQUEST, "no") }));
        tokio::spawn(serve_stream(server, router, Patience::KNOWN, CancellationToken::new(), |_| {}));
        let (mut from, mut to) = tokio::io::split(client);
        // POST, http, / and the authority x (RFC 7541, A); its headers end, the stream does not.
        let head = frame(HEADERS, 4, 1, b"\x83\x86\x84\x01\x01x");
        to.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..], &head].concat())
            .await
            .expect("the head is sent");
        loop {
            if let (DATA | HEADERS, flags) = next(&mut from).await
                && flags & 1 == 1
            {
                break;
            }
        }
        let pieces = vec![b'x'; body];
        for piece in pieces.chunks(16 << 10) {
            to.write_all(&frame(DATA, 0, 1, piece)).await.expect("a piece is sent");
        }
        to.write_all(&[frame(DATA, 1, 1, b""), frame(PING, 0, 0, &[0; 8])].concat()).await.expect("the end is sent");
        loop {
            match next(&mut from).await {
                (RST_STREAM, _) => return true,
                (PING, 1) => return false,
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn a_stream_whose_answer_came_early_is_not_reset() {
        assert!(!is_reset(200 << 10).await);
    }

    #[tokio::test]
    async fn who_is_answered_early_may_finish_and_ask_again() {
        assert_eq!(second_answer(200 << 10).await, "HTTP/1.1 400 Bad Request");
    }
}
