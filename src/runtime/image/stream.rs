//! Streams with a bound, with a hash, and out of a compression.

use std::io::{self, BufRead, BufReader, Read, Write};

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
