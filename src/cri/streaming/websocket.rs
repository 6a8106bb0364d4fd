//! The same over WebSockets (RFC 6455): exec, attach and ports in channels, and port-forward's SPDY in binary messages.
//!
//! Messages begin with a channel byte. Of a command: 0 stdin, 1 stdout, 2 stderr, 3 the outcome as a Status, 4 the
//! terminal's size; in `v5.channel.k8s.io` also 255, which closes the channel named by the byte after it. Of ports:
//! for the i-th channel 2i carries data and 2i+1 an error; each begins with the port, little-endian.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::request::Parts;
use http::{StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lane::{Feed, Inlet, Lane, Outlet, PIECE_BYTES, Shared, Tasks, Word, inlet, room};
use super::session::{Ends, Report};
use super::{Remote, Wanted, forward, listed, refuse, remote};
use crate::cri::Runtime;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const OUTCOME: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

const REMOTE: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PORTS: &str = "v4.channel.k8s.io";
/// Channels are numbered in a byte, two for each.
const PORTS_LIMIT: usize = 120;
/// Kubectl sends 32 KiB at a time; clients of other languages send what they have as one.
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Answers the request and serves what is wanted.
pub async fn upgrade(runtime: Arc<dyn Runtime>, wanted: Wanted, mut parts: Parts) -> Response {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.max_message_size(MESSAGE_LIMIT_BYTES).max_frame_size(MESSAGE_LIMIT_BYTES),
        Err(refusal) => return refusal.into_response(),
    };
    // What came with the request stays until its session has ended.
    let known = match wanted {
        Wanted::Remote(_) => REMOTE,
        Wanted::Forward { .. } => [TUNNEL, PORTS],
    };
    let upgrade = upgrade.protocols(known);
    let offered = listed(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL.as_str());
    // Who offers none is one of the old ones, and is spoken to as they were (Kubernetes' `wsstream` knows the empty name).
    if upgrade.selected_protocol().is_none() && !offered.is_empty() {
        return refuse(StatusCode::FORBIDDEN, &format!("unable to upgrade: client supports {offered:?}, server accepts {known:?}"));
    }
    match wanted {
        Wanted::Remote(remote) => upgrade.on_upgrade(move |socket| async move {
            serve_remote(socket, &*runtime, remote).await;
            drop(parts);
        }),
        Wanted::Forward { sandbox, ports } => {
            let tunnelled = upgrade.selected_protocol().is_some_and(|protocol| protocol.as_bytes() == TUNNEL.as_bytes());
            if tunnelled {
                return upgrade.on_upgrade(move |socket| async move {
                    serve_tunnel(socket, &runtime, &sandbox).await;
                    drop(parts);
                });
            }
            if ports.is_empty() || ports.len() > PORTS_LIMIT {
                return refuse(StatusCode::BAD_REQUEST, "query parameter \"port\" has to name ports");
            }
            upgrade.on_upgrade(move |socket| async move {
                serve_ports(socket, &runtime, &sandbox, &ports).await;
                drop(parts);
            })
        }
    }
}

/// A close without a status reads as a failure to kubectl (RFC 6455, section 7.4.1: 1000 is the normal end).
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

async fn write(mut socket: SplitSink<WebSocket, Message>, mut words: mpsc::Receiver<Word>, gone: CancellationToken) {
    while let Some(word) = words.recv().await {
        let message = match word {
            Word::Frame(bytes) => Message::Binary(bytes),
            // Nobody answers one that was not asked for (RFC 6455, section 5.5.3).
            Word::Nothing => Message::Pong(Bytes::new()),
            Word::End => break,
        };
        if socket.send(message).await.is_err() {
            gone.cancel();
            return;
        }
    }
    // The caller may have left already.
    socket.send(goodbye()).await.ok();
}

/// The lanes into which messages go.
#[derive(Default)]
pub(super) struct Feeds(BTreeMap<u8, Feed>);

impl Feeds {
    pub fn open(&mut self, channel: u8, room: &Arc<Semaphore>) -> Inlet {
        let (feed, inlet) = inlet(room, None);
        self.0.insert(channel, feed);
        inlet
    }

    pub async fn hear(&mut self, data: Bytes, output: &mpsc::Sender<Word>) {
        match data.split_first() {
            Some((&CLOSE, [channel])) => drop(self.0.remove(channel)),
            Some((channel, bytes)) => {
                if let Some(feed) = self.0.get(channel) {
                    for piece in bytes.chunks(PIECE_BYTES) {
                        // Copied: the message holds on to the whole buffer that it was read into.
                        feed.push(Bytes::copy_from_slice(piece), Some(output)).await;
                    }
                }
            }
            _ => {}
        }
    }
}

async fn read(mut socket: SplitStream<WebSocket>, mut feeds: Feeds, shared: Shared) {
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(data) => feeds.hear(data, &shared.output).await,
            // Kubernetes looks at no frame's kind, and its Python client sends what is text as such.
            Message::Text(text) => feeds.hear(Bytes::copy_from_slice(text.as_bytes()), &shared.output).await,
            Message::Close(_) => break,
            _ => {}
        }
    }
    drop(feeds);
    shared.gone.cancel();
}

fn start(socket: WebSocket, feeds: Feeds, (shared, words): (Shared, mpsc::Receiver<Word>)) -> Tasks {
    let (sender, receiver) = socket.split();
    let writer = tokio::spawn(write(sender, words, shared.gone.clone()));
    let reader = tokio::spawn(read(receiver, feeds, shared.clone()));
    Tasks { shared, reader, writer }
}

async fn serve_remote(socket: WebSocket, runtime: &dyn Runtime, remote: Remote) {
    let (shared, words) = Shared::new();
    let (room, mut feeds, request) = (room(), Feeds::default(), &remote.request);
    let lane = |channel| shared.outlet(Lane::Channel(channel));
    let ends = Ends {
        stdin: request.stdin.then(|| feeds.open(STDIN, &room)),
        stdout: request.stdout.then(|| lane(STDOUT)),
        stderr: request.stderr.then(|| lane(STDERR)),
        resize: request.tty.then(|| feeds.open(RESIZE, &room)),
        outcome: lane(OUTCOME),
        report: Report::Status,
        silent: Vec::new(),
    };
    // An empty message first: the streams are there.
    lane(if request.stdout { STDOUT } else { STDERR }).announce().await;
    let mut tasks = start(socket, feeds, (shared.clone(), words));
    tokio::select! {
        () = remote::join(runtime, &remote, ends) => tasks.end().await,
        // Its input ends, and with it whoever reads it.
        () = shared.gone.cancelled() => {}
    }
}

async fn serve_ports(socket: WebSocket, runtime: &Arc<dyn Runtime>, sandbox: &str, ports: &[u16]) {
    let (shared, words) = Shared::new();
    let (room, mut feeds) = (room(), Feeds::default());
    let mut connections = JoinSet::new();
    for (number, port) in (0u8..).zip(ports.iter().copied()) {
        let inlet = feeds.open(number * 2, &room);
        let (data, error) = (shared.outlet(Lane::Channel(number * 2)), shared.outlet(Lane::Channel(number * 2 + 1)));
        connections.spawn(serve_port(Arc::clone(runtime), sandbox.to_owned(), port, inlet, data, error));
    }
    let mut tasks = start(socket, feeds, (shared.clone(), words));
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => tasks.end().await,
        () = shared.gone.cancelled() => {}
    }
}

async fn serve_port(runtime: Arc<dyn Runtime>, sandbox: String, port: u16, mut inlet: Inlet, data: Outlet, error: Outlet) {
    for announced in [&data, &error] {
        announced.send(&port.to_le_bytes()).await;
    }
    let failed = match runtime.port_forward(&sandbox, port).await {
        Ok(wire) => forward::copy(wire, &mut inlet, &data).await.err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(cause) = failed {
        error.send(format!("forward to port {port}: {cause}").as_bytes()).await;
    }
}

/// What one end of the tunnel writes the other reads; the messages' borders mean nothing.
async fn serve_tunnel(socket: WebSocket, runtime: &Arc<dyn Runtime>, sandbox: &str) {
    let (near, far) = tokio::io::duplex(4 * PIECE_BYTES);
    let (sender, receiver) = socket.split();
    let (out_of, into) = tokio::io::split(far);
    let inward = async {
        carry_in(receiver, into).await;
        std::future::pending().await
    };
    // Who cannot be reached has left, though what he sent may still wait.
    let left = CancellationToken::new();
    let outward = async {
        if !carry_out(out_of, sender).await {
            left.cancel();
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(forward::serve(near, runtime, sandbox), outward) } => {}
        () = inward => {}
        () = left.cancelled() => {}
    }
}

async fn carry_in(mut socket: SplitStream<WebSocket>, mut into: tokio::io::WriteHalf<DuplexStream>) {
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) if into.write_all(&bytes).await.is_ok() => {}
            Message::Binary(_) | Message::Close(_) => break,
            _ => {}
        }
    }
    into.shutdown().await.ok();
}

/// Says whether all of it could be sent.
async fn carry_out(mut out_of: tokio::io::ReadHalf<DuplexStream>, mut socket: SplitSink<WebSocket, Message>) -> bool {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count) = out_of.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        if socket.send(Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
            return false;
        }
    }
    socket.send(goodbye()).await.is_ok()
}
