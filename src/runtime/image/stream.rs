//! Streams with a bound, with a hash, and out of a compression.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::{Digest as _, Sha256};

use super::error::ImageError;

/// Whatever a stream begins with decides: media types lie, magic numbers seldom.
pub(super) fn decompress<'a>(stream: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    let start = stream.fill_buf().map_err(ImageError::io("read the layer"))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    // A frame of data, or one to be skipped.
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || (start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(stream).map_err(ImageError::io("read zstd"))?;
        // 128 MiB: a frame cannot ask for more memory than that.
        decoder.window_log_max(27).map_err(ImageError::io("read zstd"))?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(stream))
}

/// Gives an error instead of more than `limit` bytes.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    exceeded: bool,
}

impl<R> Bounded<R> {
    pub fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit, exceeded: false }
    }
    pub fn exceeded(&self) -> bool {
        self.exceeded
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            self.exceeded = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than the limit"));
        };
        self.left = left;
        Ok(count)
    }
}

/// Hashes what passes, in either direction.
pub(super) struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new() }
    }
    pub fn inner(&mut self) -> &mut T {
        &mut self.inner
    }
    pub fn take_hash(&mut self) -> Sha256 {
        std::mem::take(&mut self.hash)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Of the pieces that go from one thread to the next: they stay in the processor's cache.
const PIECE: usize = 256 << 10;
/// Pieces on the way.
const AHEAD: usize = 6;

/// Where one thread puts what another reads. Buffers go round.
pub(super) struct Source {
    pieces: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

/// The reading end.
pub(super) struct Pieces {
    pieces: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

/// A bounded pipe between two threads.
pub(super) fn pipe() -> (Source, Pieces) {
    let (pieces, received) = sync_channel(AHEAD);
    let (returned, empty) = channel();
    (Source { pieces, empty }, Pieces { pieces: received, empty: returned, current: Vec::new(), at: 0 })
}

impl Source {
    /// Moves everything there is to the other end; an error goes there too. Ends early when nobody
    /// reads any more.
    pub fn pump(self, mut from: impl Read) {
        loop {
            let mut piece = self.empty.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let mut filled = 0;
            let mut failed = None;
            while filled < PIECE {
                match from.read(&mut piece[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let whole = filled == PIECE;
            piece.truncate(filled);
            if filled > 0 && self.pieces.send(Ok(piece)).is_err() {
                return;
            }
            if let Some(error) = failed {
                let _ = self.pieces.send(Err(error));
                return;
            }
            if !whole {
                return;
            }
        }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            let next = match self.pieces.recv() {
                Ok(piece) => piece?,
                // The other end is done.
                Err(_) => Vec::new(),
            };
            let used = std::mem::replace(&mut self.current, next);
            self.at = 0;
            if used.capacity() > 0 {
                let _ = self.empty.send(used);
            }
        }
        Ok(&self.current[self.at..])
    }
    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.current.len());
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gives_what_went_in_and_then_its_error() {
        let content: Vec<u8> = (0..3 * PIECE + 5).map(|at| (at % 251) as u8).collect();
        let (source, mut pieces) = pipe();
        let broken = io::Error::other("broken");
        std::thread::scope(|scope| {
            let input = content.as_slice().chain(Failing(Some(broken)));
            scope.spawn(move || source.pump(input));
            let mut got = Vec::new();
            let error = pieces.read_to_end(&mut got).expect_err("the other end failed");
            assert_eq!((got.len(), error.to_string().as_str()), (content.len(), "broken"));
            assert!(got == content);
        });
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_writer() {
        let (source, pieces) = pipe();
        drop(pieces);
        source.pump(io::repeat(7));
    }

    struct Failing(Option<io::Error>);
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.take().map_or(Ok(0), Err)
        }
    }
}
