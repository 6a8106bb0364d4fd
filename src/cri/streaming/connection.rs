//! A SPDY/3.1 connection over any bytes that go both ways: streams that the other side opens, or that we open.
//!
//! Windows are not waited for, and announced by a server only: Kubernetes' own implementation (moby/spdystream) has none.
//! What may be held for a caller is bounded all the same: see `lane`.
//!
//! A client sends nothing of its own accord. A server that has said everything closes at once, and what reaches a closed
//! socket resets it, which takes what is still on its way (RFC 1122, section 4.2.2.13).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frame::{self, Decoder, Frame};
use super::headers::{Deflate, Headers, Inflate};
use super::lane::{Feed, Inlet, Lane, Outlet, PIECE_BYTES, Shared, Tasks, Word, inlet, room};

/// Open at once on a connection: each forwarded connection takes two.
const STREAMS: usize = 1024;
/// Streams that are there and were not looked at yet.
const NEW_STREAMS: usize = 8;
/// A connection on which nothing comes or goes is given up, as the kubelet does.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// For an answer to a stream of ours.
const REPLY: Duration = Duration::from_secs(30);

/// Who opens streams: their numbers are odd for the client, even for the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

/// A stream that is open.
pub struct Stream {
    pub id: u32,
    /// None of a stream that we have opened.
    pub headers: Headers,
    pub inlet: Inlet,
    pub outlet: Outlet,
    /// Comes when the other side gives the stream up, or with the connection's end.
    pub given_up: oneshot::Receiver<()>,
}

impl Stream {
    /// Empty: it has no such header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Streams whose other end may still send or give them up.
#[derive(Default)]
struct Table(BTreeMap<u32, Entry>);

struct Entry {
    /// None: it sends no more.
    feed: Option<Feed>,
    /// Waits for the answer to a stream of ours.
    reply: Option<oneshot::Sender<()>>,
    /// Dropped with the entry.
    given_up: oneshot::Sender<()>,
}

impl Entry {
    fn matters(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| !feed.is_closed()) || !self.given_up.is_closed()
    }
}

type Open = Arc<Mutex<Table>>;

fn lock(open: &Open) -> MutexGuard<'_, Table> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection; everything on it ends when it is dropped.
pub struct Connection {
    tasks: Tasks,
    incoming: mpsc::Receiver<Stream>,
    open: Open,
    room: Arc<Semaphore>,
    deflate: Deflate,
    next: u32,
}

impl Connection {
    pub fn start<T: AsyncRead + AsyncWrite + Send + 'static>(io: T, side: Side) -> Self {
        let (input, output) = tokio::io::split(io);
        let (shared, words) = Shared::new();
        let (streams, incoming) = mpsc::channel(NEW_STREAMS);
        let (open, room, busy) = (Open::default(), room(), Arc::new(AtomicBool::new(false)));
        let listener = Listener {
            side,
            shared: shared.clone(),
            open: Arc::clone(&open),
            room: Arc::clone(&room),
            incoming: Some(streams),
            decoder: Decoder::default(),
            inflate: Inflate::default(),
            deflate: Deflate::default(),
            last: 0,
        };
        let writer = tokio::spawn(write(output, words, shared.gone.clone(), Arc::clone(&busy)));
        let reader = tokio::spawn(listener.run(input, busy));
        Self { tasks: Tasks { shared, reader, writer }, incoming, open, room, deflate: Deflate::default(), next: 1 }
    }

    /// The next stream that the other side opens; `None`: no more will come.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Takes no more streams.
    pub fn refuse_more(&mut self) {
        self.incoming.close();
    }

    /// Cancelled when the other side has left.
    pub fn gone(&self) -> CancellationToken {
        self.tasks.shared.gone.clone()
    }

    /// Opens a stream; `None`: the other side does not want it.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> Option<Stream> {
        let id = self.next;
        self.next += 2;
        let outlet = self.tasks.shared.outlet(Lane::Stream(id));
        let (feed, inlet) = inlet(&self.room, None);
        let (reply, answered) = oneshot::channel();
        let (giving_up, given_up) = oneshot::channel();
        lock(&self.open).0.insert(id, Entry { feed: Some(feed), reply: Some(reply), given_up: giving_up });
        let syn = frame::syn_stream(id, &self.deflate.write(headers));
        self.tasks.shared.output.send(Word::Frame(syn)).await.ok()?;
        tokio::select! {
            // Who has answered may have said everything and left.
            biased;
            answer = tokio::time::timeout(REPLY, answered) => answer.ok()?.ok()?,
            () = self.tasks.shared.gone.cancelled() => return None,
        }
        Some(Stream { id, headers: Headers::new(), inlet, outlet, given_up })
    }

    /// Sends what is still to be sent, says good-bye and waits a moment for the other side.
    pub async fn end(mut self) {
        self.incoming.close();
        self.tasks.shared.output.send(Word::Frame(frame::go_away(0))).await.ok();
        self.tasks.end().await;
    }
}

/// Writes frames until the last one or until nobody reads them.
async fn write<T: AsyncWrite>(mut output: WriteHalf<T>, mut words: mpsc::Receiver<Word>, gone: CancellationToken, busy: Arc<AtomicBool>) {
    while let Some(word) = words.recv().await {
        let frame = match word {
            Word::Frame(frame) => frame,
            Word::Nothing => frame::nothing(),
            Word::End => break,
        };
        let flush = words.is_empty();
        let written = async {
            output.write_all(&frame).await?;
            if flush { output.flush().await } else { Ok(()) }
        };
        if written.await.is_err() {
            gone.cancel();
            return;
        }
        busy.store(true, Ordering::Relaxed);
    }
    // However it goes, nothing comes after it.
    output.flush().await.ok();
    output.shutdown().await.ok();
}

/// Reads frames and brings what they carry to the streams.
struct Listener {
    side: Side,
    shared: Shared,
    open: Open,
    room: Arc<Semaphore>,
    /// None: no more streams are taken.
    incoming: Option<mpsc::Sender<Stream>>,
    decoder: Decoder,
    inflate: Inflate,
    deflate: Deflate,
    /// The number of the last stream that was opened to us.
    last: u32,
}

impl Listener {
    async fn run<T: AsyncRead>(mut self, mut input: ReadHalf<T>, busy: Arc<AtomicBool>) {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match tokio::time::timeout(IDLE, input.read(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 => {
                    self.decoder.push(&buffer[..count]);
                    if let Err(cause) = self.hear_all().await {
                        tracing::debug!(cause, "a streaming connection ends");
                        break;
                    }
                }
                // Only our side talks.
                Err(_) if busy.swap(false, Ordering::Relaxed) => {}
                _ => break,
            }
        }
        lock(&self.open).0.clear();
        self.shared.gone.cancel();
    }

    async fn hear_all(&mut self) -> Result<(), &'static str> {
        while let Some(frame) = self.decoder.take()? {
            self.hear(frame).await?;
        }
        Ok(())
    }

    async fn send(&self, frame: Bytes) -> Result<(), &'static str> {
        self.shared.output.send(Word::Frame(frame)).await.map_err(|_| "nothing can be sent any more")
    }

    async fn hear(&mut self, frame: Frame) -> Result<(), &'static str> {
        match frame {
            Frame::SynStream { id, fin, block } => return self.opened(id, fin, &block).await,
            Frame::SynReply { id, fin, block } => {
                self.inflate.read(&block)?;
                let reply = lock(&self.open).0.get_mut(&id).and_then(|entry| entry.reply.take());
                if let Some(reply) = reply {
                    // Whoever asked may have gone.
                    reply.send(()).ok();
                }
                self.ended(id, fin);
            }
            Frame::Headers { id, fin, block } => {
                // Nothing in it matters; what comes later builds on it.
                self.inflate.read(&block)?;
                self.ended(id, fin);
            }
            Frame::Data { id, fin, bytes } => {
                let feed = lock(&self.open).0.get(&id).and_then(|entry| entry.feed.clone());
                if let Some(feed) = feed.filter(|_| !bytes.is_empty()) {
                    feed.push(bytes, (self.side == Side::Server).then_some(&self.shared.output)).await;
                }
                self.ended(id, fin);
            }
            Frame::RstStream { id } => drop(lock(&self.open).0.remove(&id)),
            // Our own would have come back.
            Frame::Ping { id } if (id % 2 == 1) == (self.side == Side::Server) => return self.send(frame::ping(id)).await,
            Frame::GoAway => self.incoming = None,
            Frame::Ping { .. } | Frame::Other => {}
        }
        Ok(())
    }

    fn ended(&self, id: u32, fin: bool) {
        if fin {
            let mut open = lock(&self.open);
            if let Some(entry) = open.0.get_mut(&id) {
                entry.feed = None;
                if !entry.matters() {
                    open.0.remove(&id);
                }
            }
        }
    }

    async fn opened(&mut self, id: u32, fin: bool, block: &[u8]) -> Result<(), &'static str> {
        let headers = self.inflate.read(block)?;
        if id.is_multiple_of(2) || id <= self.last {
            return Err("a SPDY stream has a number that cannot be");
        }
        self.last = id;
        let incoming = self.incoming.clone().filter(|incoming| !incoming.is_closed() && self.side == Side::Server);
        let outlet = self.shared.outlet(Lane::Stream(id));
        let (feed, inlet) = inlet(&self.room, Some(outlet.clone()));
        let Some(incoming) = incoming.filter(|_| self.has_place()) else {
            return self.send(frame::rst_stream(id, frame::REFUSED_STREAM)).await;
        };
        let reply = frame::syn_reply(id, &self.deflate.write(&[]));
        self.send(reply).await?;
        let (giving_up, given_up) = oneshot::channel();
        lock(&self.open).0.insert(id, Entry { feed: (!fin).then_some(feed), reply: None, given_up: giving_up });
        // Else nobody wants streams any more, and this one has ended before it began.
        incoming.send(Stream { id, headers, inlet, outlet, given_up }).await.ok();
        Ok(())
    }

    /// Those that nobody listens to any more make room.
    fn has_place(&self) -> bool {
        let mut open = lock(&self.open);
        if open.0.len() >= STREAMS {
            open.0.retain(|_, entry| entry.matters());
        }
        open.0.len() < STREAMS
    }
}
