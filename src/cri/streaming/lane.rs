//! The lanes of a connection: what comes on one, what goes on one, and what all of them may hold at once.
//!
//! A lane is a stream of SPDY or a channel of a WebSocket. What has come and was not taken yet has a bound for the
//! whole connection: beyond it nothing more is read, so whoever sends has to wait.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::frame;

/// Of what was sent to us and nobody has taken, for all lanes of a connection.
pub const ROOM_BYTES: usize = 256 << 10;
/// What a piece takes besides its bytes.
const PIECE_COST_BYTES: usize = 256;
/// What is sent at a time.
pub const PIECE_BYTES: usize = 16 << 10;
/// Frames that wait for the connection.
const FRAMES: usize = 8;
/// A sender that counts is told after so much: half of what SPDY/3.1 lets it send at first (section 2.6.8).
const CREDIT_BYTES: usize = 32 << 10;
/// While nothing is read, whether the other side is still there is found out by writing.
const KNOCK_EVERY: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// For the other side to close once it has everything: closing first could take from it what it has not read yet.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What the writer of a connection is given.
#[derive(Debug)]
pub enum Word {
    Frame(Bytes),
    /// Means nothing: that it cannot be sent is how one learns that nobody is there.
    Nothing,
    /// Nothing comes after it.
    End,
}

/// Where a lane leads.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// A stream of SPDY.
    Stream(u32),
    /// A channel of a WebSocket: each message begins with its number.
    Channel(u8),
}

/// What goes out on a lane.
#[derive(Clone, Debug)]
pub struct Outlet {
    pub lane: Lane,
    pub output: mpsc::Sender<Word>,
}

impl Outlet {
    /// Says whether somebody still listens.
    pub async fn send(&self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(PIECE_BYTES) {
            if !self.put(self.frame(piece)).await {
                return false;
            }
        }
        true
    }

    /// An empty message on a channel: it is there.
    pub async fn announce(&self) {
        self.put(self.frame(&[])).await;
    }

    fn frame(&self, piece: &[u8]) -> Bytes {
        match self.lane {
            Lane::Stream(id) => frame::data(id, false, piece),
            Lane::Channel(number) => {
                let mut message = BytesMut::with_capacity(1 + piece.len());
                message.put_u8(number);
                message.extend_from_slice(piece);
                message.freeze()
            }
        }
    }

    /// Nothing more comes on it. Channels have no such word.
    pub async fn finish(&self) {
        if let Lane::Stream(id) = self.lane {
            self.put(frame::data(id, true, &[])).await;
        }
    }

    /// It is given up.
    pub async fn reset(&self) {
        if let Lane::Stream(id) = self.lane {
            self.put(frame::rst_stream(id, frame::PROTOCOL_ERROR)).await;
        }
    }

    async fn put(&self, frame: Bytes) -> bool {
        self.output.send(Word::Frame(frame)).await.is_ok()
    }
}

struct Piece {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// What comes in on a lane.
pub struct Inlet {
    pieces: mpsc::UnboundedReceiver<Piece>,
    /// Who is told of what was taken, and how much it was not told yet.
    credit: Option<Outlet>,
    taken: usize,
}

impl Inlet {
    /// `None`: its end, or the connection's.
    pub async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        self.taken += piece.bytes.len();
        if let Some(Outlet { lane: Lane::Stream(id), output }) = &self.credit
            && self.taken >= CREDIT_BYTES
            && let Ok(place) = output.try_reserve()
        {
            place.send(Word::Frame(frame::window_update(*id, u32::try_from(self.taken).unwrap_or(0))));
            self.taken = 0;
        }
        Some(piece.bytes)
    }
}

/// Where what has come is put.
#[derive(Clone)]
pub struct Feed {
    pieces: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
}

impl Feed {
    /// Waits until there is room. What nobody takes any more is dropped. `output` is the connection's, on which nothing is
    /// read meanwhile; without it nobody is asked whether they are still there.
    pub async fn push(&self, bytes: Bytes, output: Option<&mpsc::Sender<Word>>) {
        let cost = (bytes.len() + PIECE_COST_BYTES).min(ROOM_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(cost).unwrap_or(1));
        let knock = async {
            let Some(output) = output else { return pending().await };
            loop {
                tokio::time::sleep(KNOCK_EVERY).await;
                // Full: then something is being written.
                if let Err(TrySendError::Closed(_)) = output.try_send(Word::Nothing) {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            Ok(room) = room => {
                // Nobody takes it: then the room is free again.
                self.pieces.send(Piece { bytes, _room: room }).ok();
            }
            () = self.pieces.closed() => {}
            () = knock => {}
        }
    }

    pub fn is_closed(&self) -> bool {
        self.pieces.is_closed()
    }
}

/// The room of one connection.
pub fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM_BYTES))
}

/// A lane's way in.
pub fn inlet(room: &Arc<Semaphore>, credit: Option<Outlet>) -> (Feed, Inlet) {
    let (pieces, receiver) = mpsc::unbounded_channel();
    (Feed { pieces, room: Arc::clone(room) }, Inlet { pieces: receiver, credit, taken: 0 })
}

/// What the two tasks of a connection, its reader and its writer, have in common.
#[derive(Clone)]
pub struct Shared {
    pub output: mpsc::Sender<Word>,
    /// The other side has left, or cannot be reached.
    pub gone: CancellationToken,
}

impl Shared {
    /// And what the writer is given.
    pub fn new() -> (Self, mpsc::Receiver<Word>) {
        let (output, words) = mpsc::channel(FRAMES);
        (Self { output, gone: CancellationToken::new() }, words)
    }

    pub fn outlet(&self, lane: Lane) -> Outlet {
        Outlet { lane, output: self.output.clone() }
    }
}

/// A connection's two tasks; they end with it.
pub struct Tasks {
    pub shared: Shared,
    pub reader: JoinHandle<()>,
    pub writer: JoinHandle<()>,
}

impl Tasks {
    /// Sends what is still to be sent, then waits a moment for the other side.
    pub async fn end(&mut self) {
        if self.shared.output.send(Word::End).await.is_ok() {
            tokio::select! {
                _ = &mut self.writer => {}
                () = self.shared.gone.cancelled() => return,
            }
            tokio::time::timeout(LAST_WORDS, self.shared.gone.cancelled()).await.ok();
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}
