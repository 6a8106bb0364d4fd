//! Container logs: lines in CRI's format, over rotated files, followed without losing a line.
//!
//! `2026-01-02T03:04:05.000000006Z stdout F text`; `P` instead of `F`: the line goes on in the next entry.
//!
//! A container may have the log directory mounted (whatever ships logs has): no link in it is followed, and
//! an entry has a largest size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::agent::beneath;
use crate::model::Timestamp;

/// Longer than any entry the shim writes; what is longer is read in pieces.
const LONGEST_ENTRY: u64 = 32 << 10;
/// `logs/POD/CONTAINER/0.log`: from the second of these on containers may have a say.
const OWN_LEVELS: usize = 2;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub follow: bool,
    pub tail_lines: Option<usize>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub time: &'a str,
    pub stream: &'a str,
    pub partial: bool,
    pub text: &'a [u8],
}

/// Reads an entry; `None` when it is not one.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    let text = parts.next().unwrap_or_default();
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    (time.len() >= 20 && matches!(stream, "stdout" | "stderr")).then_some(Entry { time, stream, partial, text })
}

/// The directory of a log, opened through no link.
pub struct Folder {
    pub directory: OwnedFd,
    pub name: String,
}

impl Folder {
    /// # Errors
    /// It is not there, or behind a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bad = || io::Error::from(io::ErrorKind::InvalidInput);
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(bad)?.to_owned();
        let parent = path.parent().ok_or_else(bad)?;
        let all = parent.ancestors().nth(OWN_LEVELS).unwrap_or(Path::new("/"));
        let below = parent.strip_prefix(all).map_err(|_| bad())?;
        Ok(Self { directory: beneath::directory(beneath::top(all)?, below)?, name })
    }

    fn file(&self, name: &str) -> io::Result<File> {
        beneath::file(&self.directory, Path::new(name))
    }

    fn inode(&self, name: &str) -> Option<u64> {
        rustix::fs::statat(&self.directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
    }

    /// The files of the log from the oldest to the newest: `0.log.3`, `0.log.2`, … , `0.log`, and CRI-style
    /// `0.log.20260102-030405`. Compressed ones are left out.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn files(&self) -> io::Result<Vec<String>> {
        let entries = beneath::entries(&self.directory)?;
        let names: Vec<String> = entries.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect();
        let newest = names.contains(&self.name).then(|| self.name.clone());
        let prefix = format!("{}.", self.name);
        let mut rotated: Vec<(bool, u64, String)> = names
            .into_iter()
            .filter_map(|file| {
                let suffix = file.strip_prefix(&prefix)?.to_owned();
                let digits: String = suffix.chars().filter(char::is_ascii_digit).collect();
                let dated = suffix.contains('-');
                let plain = suffix.chars().all(|c| c.is_ascii_digit() || c == '-');
                plain.then(|| digits.parse().ok().map(|number| (dated, number, file)))?
            })
            .collect();
        // Numbers count from the newest, dates from the oldest.
        rotated.sort_by_key(|(dated, number, _)| if *dated { (1, *number) } else { (0, u64::MAX - *number) });
        Ok(rotated.into_iter().map(|(_, _, file)| file).chain(newest).collect())
    }
}

/// The logs of a container that are there, by its attempts, the newest first.
///
/// # Errors
/// The directory cannot be read, or is behind a link.
pub fn kept(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(folder) = if_there(Folder::open(&directory.join("0.log")))? else { return Ok(Vec::new()) };
    let names = beneath::entries(&folder.directory)?.into_iter().filter_map(|(name, _)| name.into_string().ok());
    let mut attempts: Vec<u32> = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    attempts.sort_unstable_by_key(|attempt| std::cmp::Reverse(*attempt));
    Ok(attempts.into_iter().map(|attempt| directory.join(format!("{attempt}.log"))).collect())
}

/// No log yet is an empty one.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A position in a log that survives its rotation: files are known by their inode.
pub struct Reader {
    path: PathBuf,
    current: Option<Open>,
    wanted: Wanted,
    written: u64,
    /// The entry before went on: no new timestamp.
    within_line: bool,
}

struct Open {
    file: BufReader<File>,
    inode: u64,
    /// An entry whose end is not written yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Starts where `wanted` says.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn open(path: &Path, wanted: Wanted) -> io::Result<Self> {
        let mut reader = Self { path: path.to_owned(), current: None, wanted, written: 0, within_line: false };
        if let Some(lines) = reader.wanted.tail_lines {
            reader.seek_tail(lines)?;
        }
        Ok(reader)
    }

    /// Skips all but the last lines: whole lines, counted from the end, file by file.
    fn seek_tail(&mut self, lines: usize) -> io::Result<()> {
        let Some(folder) = if_there(Folder::open(&self.path))? else { return Ok(()) };
        let mut missing = lines;
        let mut start = None;
        for (index, name) in folder.files()?.into_iter().rev().enumerate() {
            if missing == 0 && index > 0 {
                break;
            }
            let mut file = folder.file(&name)?;
            let (offset, found) = tail_offset(&mut file, missing)?;
            missing -= found.min(missing);
            start = Some((file, offset));
        }
        if let Some((mut file, offset)) = start {
            file.seek(SeekFrom::Start(offset))?;
            self.current = Some(Open { inode: file.metadata()?.ino(), file: BufReader::new(file), rest: Vec::new() });
        }
        Ok(())
    }

    /// What there is to send now, up to about 64 KiB; empty at the present end. `None`: the limit is reached.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.len() < 64 << 10 {
            if self.wanted.limit_bytes.is_some_and(|limit| self.written >= limit) {
                return Ok(Some(out).filter(|out| !out.is_empty()));
            }
            if !self.step(&mut out)? {
                break;
            }
        }
        Ok(Some(out))
    }

    /// One entry more; false at the end of all files.
    fn step(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(open) = &mut self.current else { return self.next_file() };
        let room = LONGEST_ENTRY.saturating_sub(open.rest.len() as u64);
        let read = open.file.by_ref().take(room).read_until(b'\n', &mut open.rest)?;
        if !open.rest.ends_with(b"\n") && (open.rest.len() as u64) < LONGEST_ENTRY {
            // At the end, or in the middle of an entry that is being written.
            return if read == 0 { self.next_file() } else { Ok(true) };
        }
        let line = std::mem::take(&mut open.rest);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let before = out.len();
        self.print(line, out);
        self.limit(before, out);
        Ok(true)
    }

    fn print(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(entry) = parse(line) else {
            out.extend_from_slice(line);
            out.push(b'\n');
            return;
        };
        if let Some(since) = self.wanted.since
            && entry.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.wanted.timestamps && !self.within_line {
            out.extend_from_slice(entry.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        self.within_line = entry.partial;
        if !entry.partial {
            out.push(b'\n');
        }
    }

    fn limit(&mut self, before: usize, out: &mut Vec<u8>) {
        let added = u64::try_from(out.len() - before).unwrap_or(u64::MAX);
        let room = self.wanted.limit_bytes.map_or(u64::MAX, |limit| limit - self.written);
        let kept = added.min(room);
        out.truncate(before + usize::try_from(kept).unwrap_or(usize::MAX));
        self.written += kept;
    }

    /// Goes on with the file after this one, wherever rotation has moved both; false when this is the newest.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(folder) = if_there(Folder::open(&self.path))? else { return Ok(false) };
        let current = self.current.as_ref().map(|open| open.inode);
        if current.is_some() && folder.inode(&folder.name) == current {
            return Ok(false);
        }
        let all = folder.files()?;
        let place = current.and_then(|inode| all.iter().position(|name| folder.inode(name) == Some(inode)));
        let Some(name) = all.get(place.map_or(0, |place| place + 1)) else { return Ok(false) };
        // Not there: rotated this very moment, look again.
        if let Some(file) = if_there(folder.file(name))? {
            self.current = Some(Open { inode: file.metadata()?.ino(), file: BufReader::new(file), rest: Vec::new() });
        }
        Ok(true)
    }
}

/// Where the last `lines` lines of a file begin, and how many there are. A line that goes on over several
/// entries is one line.
fn tail_offset(file: &mut File, lines: usize) -> io::Result<(u64, usize)> {
    if lines == 0 {
        return Ok((file.seek(SeekFrom::End(0))?, 0));
    }
    // Offsets of the last `lines` line beginnings, in a ring.
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&mut *file);
    let mut begins = std::collections::VecDeque::with_capacity(lines.min(4096));
    let (mut offset, mut at_begin, mut buffer) = (0u64, true, Vec::new());
    loop {
        buffer.clear();
        let read = reader.by_ref().take(LONGEST_ENTRY).read_until(b'\n', &mut buffer)?;
        if read == 0 {
            break;
        }
        if at_begin {
            if begins.len() == lines {
                begins.pop_front();
            }
            begins.push_back(offset);
        }
        at_begin = !parse(buffer.strip_suffix(b"\n").unwrap_or(&buffer)).is_some_and(|entry| entry.partial);
        offset += u64::try_from(read).unwrap_or(0);
    }
    Ok((begins.front().copied().unwrap_or(offset), begins.len()))
}

/// The end of a log as a termination message: at most 80 lines and 2048 bytes.
///
/// Empty when the log cannot be read.
pub fn last_words(path: &Path) -> String {
    let wanted = Wanted { tail_lines: Some(80), ..Wanted::default() };
    let mut all = Vec::new();
    if let Ok(mut reader) = Reader::open(path, wanted) {
        while let Ok(Some(more)) = reader.read() {
            if more.is_empty() {
                break;
            }
            all.extend(more);
            all.drain(..all.len().saturating_sub(2048));
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads all of something small.
#[cfg(test)]
fn all(reader: &mut Reader) -> String {
    let mut text = Vec::new();
    while let Some(more) = reader.read().unwrap() {
        if more.is_empty() {
            break;
        }
        text.extend(more);
    }
    String::from_utf8(text).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entry(second: u32, tag: &str, text: &str) -> String {
        format!("2026-01-02T03:04:{second:02}.000000006Z stdout {tag} {text}\n")
    }

    fn write(path: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn read(path: &Path, wanted: Wanted) -> String {
        all(&mut Reader::open(path, wanted).unwrap())
    }

    #[test]
    fn entries_are_read() {
        let line = entry(5, "F", "a b");
        let got = parse(line.trim_end().as_bytes()).unwrap();
        assert_eq!((got.stream, got.partial, got.text), ("stdout", false, &b"a b"[..]));
        assert!(parse(b"2026-01-02T03:04:05.000000006Z stdout P:x y").unwrap().partial);
        assert_eq!(parse(b"2026-01-02T03:04:05.000000006Z stderr F ").unwrap().text, b"");
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn rotated_files_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for (name, text) in [("0.log.2", "1"), ("0.log.1", "2"), ("0.log.20260102-030405", "3"), ("0.log", "4"), ("0.log.3.gz", "x")] {
            write(&dir.path().join(name), &entry(1, "F", text));
        }
        assert_eq!(read(&path, Wanted::default()), "1\n2\n3\n4\n");
        assert_eq!(read(&path, Wanted { tail_lines: Some(2), ..Wanted::default() }), "3\n4\n");
        assert_eq!(read(&path, Wanted { tail_lines: Some(0), ..Wanted::default() }), "");
        assert_eq!(read(&path, Wanted { tail_lines: Some(9), ..Wanted::default() }), "1\n2\n3\n4\n");
    }

    #[test]
    fn options_are_respected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        write(&path, &(entry(1, "F", "one") + &entry(2, "P", "tw") + &entry(3, "F", "o") + &entry(4, "F", "three")));
        let wanted = Wanted::default;
        assert_eq!(read(&path, wanted()), "one\ntwo\nthree\n");
        assert_eq!(read(&path, Wanted { tail_lines: Some(2), ..wanted() }), "two\nthree\n");
        assert_eq!(read(&path, Wanted { since: Some("2026-01-02T03:04:04Z".parse().unwrap()), ..wanted() }), "three\n");
        assert_eq!(read(&path, Wanted { limit_bytes: Some(6), ..wanted() }), "one\ntw");
        let stamped = read(&path, Wanted { timestamps: true, ..wanted() });
        assert_eq!(stamped.lines().nth(1), Some("2026-01-02T03:04:02.000000006Z two"));
        assert_eq!(last_words(&path), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_link_in_the_log_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("shadow");
        write(&outside, &entry(1, "F", "of the host"));
        let folder = dir.path().join("logs/pod/main");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("0.log");
        let refused = || {
            for tail_lines in [None, Some(9)] {
                let text = Reader::open(&path, Wanted { tail_lines, ..Wanted::default() }).and_then(|mut reader| reader.read());
                assert!(text.is_err(), "{tail_lines:?}: {text:?}");
            }
            assert_eq!(last_words(&path), "");
        };
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        refused();
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&outside, &path).unwrap();
        refused();
        std::fs::remove_dir_all(dir.path().join("logs/pod")).unwrap();
        // The container's directory, the pod's, or a pipe that nobody writes to.
        std::fs::create_dir_all(dir.path().join("theirs/main")).unwrap();
        write(&dir.path().join("theirs/main/0.log"), &entry(1, "F", "of the host"));
        std::os::unix::fs::symlink("../theirs", dir.path().join("logs/pod")).unwrap();
        refused();
        std::fs::remove_file(dir.path().join("logs/pod")).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused();
    }

    #[test]
    fn an_entry_without_end_is_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        write(&path, &entry(1, "F", &"x".repeat(100 << 10)));
        let mut reader = Reader::open(&path, Wanted::default()).unwrap();
        let first = reader.read().unwrap().unwrap();
        assert!(first.len() < 100 << 10, "not all at once: {}", first.len());
        assert_eq!(reader.current.as_ref().map(|open| open.rest.capacity() <= 64 << 10), Some(true));
        assert_eq!(read(&path, Wanted::default()).matches('x').count(), 100 << 10, "and nothing is lost");
        assert_eq!(last_words(&path).len(), 2048);
    }

    #[test]
    fn following_loses_no_line_over_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut reader = Reader::open(&path, Wanted { follow: true, ..Wanted::default() }).unwrap();
        assert_eq!(all(&mut reader), "", "nothing there yet");
        write(&path, &entry(1, "F", "1"));
        assert_eq!(all(&mut reader), "1\n");
        // Half an entry, then the rest.
        write(&path, "2026-01-02T03:04:05.000000006Z stdout F ha");
        assert_eq!(all(&mut reader), "");
        write(&path, "lf\n");
        assert_eq!(all(&mut reader), "half\n");
        // Written, rotated and written again between two looks, twice.
        write(&path, &entry(2, "F", "2"));
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        write(&path, &entry(3, "F", "3"));
        std::fs::rename(dir.path().join("0.log.1"), dir.path().join("0.log.2")).unwrap();
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        write(&path, &entry(4, "F", "4"));
        assert_eq!(all(&mut reader), "2\n3\n4\n");
        write(&path, &entry(5, "F", "5"));
        assert_eq!(all(&mut reader), "5\n");
    }
}
