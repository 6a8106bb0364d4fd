//! A tar reader that trusts nothing: every size it acts on is bounded before memory is taken.
//!
//! The `tar` crate reads long names and extended headers whole, whatever their size, and splits
//! binary attribute values at newlines; so only its header fields are used.

use std::io::{self, BufRead, Read, Write};

use super::error::{ImageError, Refusal};

pub(super) const BLOCK: u64 = 512;
/// Of one extended header or long name.
const EXTENDED_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Device,
    Fifo,
    Other,
}

/// One entry's header, extended headers taken in.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryKind,
    /// Of its content.
    pub size: u64,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub seconds: i64,
    pub nanos: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where its content begins in the archive.
    pub offset: u64,
}

impl Entry {
    pub fn refuse(&self, why: Refusal) -> ImageError {
        refuse(&self.path, why)
    }
}

fn refuse(path: &[u8], why: Refusal) -> ImageError {
    let mut entry = String::from_utf8_lossy(path).into_owned();
    if entry.len() > 200 {
        let cut = (0..=200).rev().find(|at| entry.is_char_boundary(*at)).unwrap_or(0);
        entry.truncate(cut);
        entry.push('…');
    }
    ImageError::Refused { entry, why }
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

/// Reads entries one after the other. [`Read`] gives the current entry's content.
pub(super) struct TarReader<R> {
    inner: R,
    position: u64,
    /// Of the current entry's content.
    left: u64,
    /// Behind the content, up to a whole block.
    padding: u64,
    current: Vec<u8>,
    done: bool,
}

impl<R: Read> TarReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, position: 0, left: 0, padding: 0, current: Vec::new(), done: false }
    }

    /// The next entry; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut extended = Extended::default();
        let mut headers = 0;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let raw_path = header.path_bytes().into_owned();
            let size = header.entry_size().map_err(|_| refuse(&raw_path, Refusal::Header))?;
            let flag = header.as_bytes()[156];
            match flag {
                b'L' | b'K' | b'x' | b'g' => {
                    headers += 1;
                    if headers > 16 || size > EXTENDED_MAX {
                        return Err(refuse(&raw_path, Refusal::ExtendedHeader));
                    }
                    let content = self.small(size, &raw_path)?;
                    match flag {
                        b'L' => extended.path = Some(until_nul(content)),
                        b'K' => extended.link = Some(until_nul(content)),
                        b'x' => read_pax(&content, &mut extended).ok_or_else(|| refuse(&raw_path, Refusal::ExtendedHeader))?,
                        _ => {}
                    }
                }
                _ => return self.entry(&header, flag, size, extended).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &tar::Header, flag: u8, size: u64, extended: Extended) -> Result<Entry, ImageError> {
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |why| refuse(&path, why);
        if extended.sparse || flag == b'S' {
            return Err(fail(Refusal::Sparse));
        }
        let kind = match flag {
            0 | b'0' | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => EntryKind::File,
            b'1' => EntryKind::Hardlink,
            b'2' => EntryKind::Symlink,
            b'3' | b'4' => EntryKind::Device,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => EntryKind::Other,
        };
        // As in Go's reader: what has no content has none, whatever its header says.
        let size = if matches!(kind, EntryKind::File | EntryKind::Other) { extended.size.unwrap_or(size) } else { 0 };
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
        self.current.clone_from(&path);
        // Some writers leave numbers out: an empty field is 0, as for Go's reader.
        let empty = |field: std::ops::Range<usize>| header.as_bytes()[field].iter().all(|byte| matches!(byte, 0 | b' '));
        let number = |field: io::Result<u64>, over: Option<u64>, empty: bool| over.or(field.ok()).or(empty.then_some(0));
        let uid = number(header.uid(), extended.uid, empty(108..116)).ok_or_else(|| fail(Refusal::Owner))?;
        let gid = number(header.gid(), extended.gid, empty(116..124)).ok_or_else(|| fail(Refusal::Owner))?;
        let mode = if empty(100..108) { 0 } else { header.mode().map_err(|_| fail(Refusal::Header))? & 0o7777 };
        let (seconds, nanos) =
            extended.mtime.unwrap_or_else(|| (header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0), 0));
        let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
        Ok(Entry { link, kind, size, mode, uid, gid, seconds, nanos, xattrs: extended.xattrs, offset: self.position, path })
    }

    /// Reads to the end of the stream, so that everything went through its hash.
    pub fn drain(&mut self) -> Result<(), ImageError> {
        self.skip_rest()?;
        io::copy(&mut self.inner, &mut io::sink()).map(drop).map_err(ImageError::io("read the end of the layer"))
    }

    fn header(&mut self) -> Result<Option<tar::Header>, ImageError> {
        if self.done {
            return Ok(None);
        }
        self.skip_rest()?;
        let mut block = [0; BLOCK as usize];
        let read = self.fill(&mut block)?;
        if read == 0 || block.iter().all(|byte| *byte == 0) {
            self.done = true;
            return Ok(None);
        }
        if read < block.len() {
            return Err(refuse(&self.current, Refusal::Truncated));
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(refuse(&header.path_bytes(), Refusal::Header));
        }
        Ok(Some(header))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::io("read the archive")(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Content of bounded size, with its padding.
    fn small(&mut self, size: u64, path: &[u8]) -> Result<Vec<u8>, ImageError> {
        let whole = size.div_ceil(BLOCK) * BLOCK;
        // At most EXTENDED_MAX: both fit.
        let mut content = vec![0; usize::try_from(whole).unwrap_or(0)];
        if self.fill(&mut content)? < content.len() {
            return Err(refuse(path, Refusal::Truncated));
        }
        content.truncate(usize::try_from(size).unwrap_or(0));
        Ok(content)
    }

    fn skip_rest(&mut self) -> Result<(), ImageError> {
        let mut buffer = [0; 8192];
        let mut rest = self.left + self.padding;
        while rest > 0 {
            let want = usize::try_from(rest.min(buffer.len() as u64)).unwrap_or(buffer.len());
            let read = self.fill(&mut buffer[..want])?;
            if read == 0 {
                // Some writers leave the last padding out.
                if rest <= self.padding {
                    break;
                }
                return Err(refuse(&self.current, Refusal::Truncated));
            }
            rest -= read as u64;
        }
        self.left = 0;
        self.padding = 0;
        Ok(())
    }
}

impl TarReader<super::archive::Section> {
    /// Passes over the current content without reading it.
    pub fn seek_past(&mut self) {
        let rest = self.left + self.padding;
        self.inner.skip(rest);
        self.position += rest;
        self.left = 0;
        self.padding = 0;
    }
}

impl<R: BufRead> TarReader<R> {
    /// The rest of the current content to a file, without a copy on the way.
    pub fn copy_content(&mut self, file: &mut impl Write) -> io::Result<u64> {
        let mut copied = 0;
        while self.left > 0 {
            let there = self.inner.fill_buf()?;
            if there.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file"));
            }
            let count = there.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            file.write_all(&there[..count])?;
            self.inner.consume(count);
            self.left -= count as u64;
            self.position += count as u64;
            copied += count as u64;
        }
        Ok(copied)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a file"));
        }
        self.left -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// `LENGTH KEY=VALUE\n`, where VALUE may hold anything; `None` when it is damaged.
fn read_pax(mut rest: &[u8], into: &mut Extended) -> Option<()> {
    while !rest.is_empty() {
        let space = rest.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        rest = &rest[length..];
        let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            b"path" => into.path = Some(value.to_vec()),
            b"linkpath" => into.link = Some(value.to_vec()),
            b"size" => into.size = Some(number()?),
            b"uid" => into.uid = Some(number()?),
            b"gid" => into.gid = Some(number()?),
            b"mtime" => into.mtime = Some(pax_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => into.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    into.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Some(())
}

fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_newlines() {
        let mut extended = Extended::default();
        let value = b"a\nb\0c";
        let mut record = b"33 SCHILY.xattr.user.key=".to_vec();
        record.extend_from_slice(value);
        record.push(b'\n');
        let length = record.len();
        record[..2].copy_from_slice(length.to_string().as_bytes());
        assert!(read_pax(&record, &mut extended).is_some());
        assert_eq!(extended.xattrs, [(b"user.key".to_vec(), value.to_vec())]);
    }

    #[test]
    fn times_before_the_epoch_keep_their_fraction() {
        assert_eq!(pax_time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"7"), Some((7, 0)));
        assert_eq!(pax_time(b"x"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes: Vec<u8>) {
            let mut reader = TarReader::new(bytes.as_slice());
            while let Ok(Some(_)) = reader.next_entry() {}
            let _ = read_pax(&bytes, &mut Extended::default());
        }
    }
}
