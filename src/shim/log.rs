//! Turns what a container writes into records of a CRI log: `TIME STREAM F|P TEXT`.
//!
//! The container is never blocked by its log. Records go into a pipe to the log writer (a process of its own,
//! see `writer`); when that pipe is full because the disk is slow or full, lines are dropped and counted, and a
//! marker says how many as soon as there is room.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Longer lines are split into parts (`P`).
const LINE_LIMIT: usize = 16 << 10;
/// Records that wait for the pipe beyond this are dropped.
const PENDING_LIMIT: usize = 64 << 10;

/// One standard stream of a container.
pub struct Stream {
    pub fd: OwnedFd,
    name: &'static str,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Stream {
    pub fn new(fd: OwnedFd, name: &'static str) -> Self {
        Self { fd, name, partial: Vec::new() }
    }

    /// 0: standard output, 1: standard error.
    pub fn number(&self) -> usize {
        usize::from(self.name == "stderr")
    }
}

/// The way to the log writer.
#[derive(Default)]
pub struct Sink {
    pipe: Option<OwnedFd>,
    pending: Vec<u8>,
    dropped: u64,
    /// Something was written.
    pub used: bool,
}

impl Sink {
    /// Records go here from now on.
    pub fn open(&mut self, pipe: OwnedFd) {
        self.pipe = Some(pipe);
    }

    /// Where to wait for room; none when nothing waits.
    pub fn waiting(&self) -> Option<BorrowedFd<'_>> {
        if self.pending.is_empty() { None } else { self.pipe.as_ref().map(AsFd::as_fd) }
    }

    /// No record will follow: the writer finishes when it has read the rest.
    pub fn close(&mut self) {
        self.pipe = None;
    }

    /// Reads what there is of a stream, at most `buffer`. Says whether the stream has ended.
    pub fn pump(&mut self, stream: &mut Stream, buffer: &mut [u8], now_ns: i64) -> Pumped {
        match rustix::io::read(&stream.fd, &mut *buffer) {
            Ok(0) => {}
            Ok(count) => {
                self.take(stream, &buffer[..count], now_ns);
                self.flush(now_ns);
                return Pumped::Some(count);
            }
            Err(Errno::AGAIN | Errno::INTR) => return Pumped::Nothing,
            // EIO is how a terminal ends.
            Err(_) => {}
        }
        if !stream.partial.is_empty() {
            let rest = std::mem::take(&mut stream.partial);
            self.record(stream.name, b'P', &rest, now_ns);
        }
        self.flush(now_ns);
        Pumped::Ended
    }

    fn take(&mut self, stream: &mut Stream, mut chunk: &[u8], now_ns: i64) {
        while !chunk.is_empty() {
            let room = LINE_LIMIT - stream.partial.len();
            let end = chunk.iter().take(room).position(|byte| *byte == b'\n');
            let (piece, rest, tag) = match end {
                Some(end) => (&chunk[..end], &chunk[end + 1..], b'F'),
                None if chunk.len() >= room => (&chunk[..room], &chunk[room..], b'P'),
                None => {
                    stream.partial.extend_from_slice(chunk);
                    return;
                }
            };
            if stream.partial.is_empty() {
                self.record(stream.name, tag, piece, now_ns);
            } else {
                let mut line = std::mem::take(&mut stream.partial);
                line.extend_from_slice(piece);
                self.record(stream.name, tag, &line, now_ns);
            }
            chunk = rest;
        }
    }

    fn record(&mut self, stream: &str, tag: u8, text: &[u8], now_ns: i64) {
        if self.pipe.is_none() {
            return;
        }
        if self.pending.len() > PENDING_LIMIT || (self.dropped > 0 && !self.pending.is_empty()) {
            self.dropped += 1;
            return;
        }
        self.used = true;
        self.mark_dropped(now_ns);
        put_time(&mut self.pending, now_ns);
        // Writing into memory does not fail.
        write!(self.pending, " {stream} {} ", char::from(tag)).ok();
        self.pending.extend_from_slice(text);
        self.pending.push(b'\n');
    }

    fn mark_dropped(&mut self, now_ns: i64) {
        if self.dropped > 0 {
            put_time(&mut self.pending, now_ns);
            let dropped = std::mem::take(&mut self.dropped);
            writeln!(self.pending, " stderr F [podbay: {dropped} lines dropped, the log could not be written in time]").ok();
        }
    }

    /// Gives the writer what it takes now.
    pub fn flush(&mut self, now_ns: i64) {
        let Some(pipe) = &self.pipe else {
            self.pending = Vec::new();
            return;
        };
        let mut sent = 0;
        while sent < self.pending.len() {
            match rustix::io::write(pipe, &self.pending[sent..]) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    // The writer died; a new one will be started with a new pipe.
                    self.pending = Vec::new();
                    return;
                }
            }
        }
        self.pending.drain(..sent);
        if self.pending.is_empty() {
            self.mark_dropped(now_ns);
            if self.pending.is_empty() {
                // Quiet containers cost no memory.
                self.pending = Vec::new();
            }
        }
    }
}

/// What reading a stream gave.
#[derive(PartialEq, Eq)]
pub enum Pumped {
    /// So many bytes of the buffer.
    Some(usize),
    Nothing,
    Ended,
}

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `2026-01-31T23:59:59.000000001Z`
pub fn put_time(out: &mut Vec<u8>, at_ns: i64) {
    let (seconds, nanos) = (at_ns.div_euclid(1_000_000_000), at_ns.rem_euclid(1_000_000_000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's civil_from_days, for eras of 400 years that begin on a first of March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink() -> (Sink, OwnedFd) {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags).unwrap();
        let mut sink = Sink::default();
        sink.open(write);
        (sink, read)
    }

    fn read_all(fd: &OwnedFd) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count) = rustix::io::read(fd, &mut buffer) {
            all.extend_from_slice(&buffer[..count]);
            if count == 0 {
                break;
            }
        }
        String::from_utf8(all).unwrap()
    }

    fn feed(sink: &mut Sink, stream: &mut Stream, text: &[u8]) {
        sink.take(stream, text, 0);
        sink.flush(0);
    }

    fn stream() -> Stream {
        Stream::new(rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap(), "stdout")
    }

    #[test]
    fn times_are_rfc3339() {
        let text = |ns| {
            let mut out = Vec::new();
            put_time(&mut out, ns);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(1_793_404_799_000_000_000), "2026-10-30T23:59:59.000000000Z");
    }

    #[test]
    fn lines_are_whole_or_marked_as_parts() {
        let (mut sink, read) = sink();
        let mut stream = stream();
        feed(&mut sink, &mut stream, b"one\ntw");
        feed(&mut sink, &mut stream, b"o\n\n");
        let epoch = "1970-01-01T00:00:00.000000000Z stdout";
        assert_eq!(read_all(&read), format!("{epoch} F one\n{epoch} F two\n{epoch} F \n"));
        feed(&mut sink, &mut stream, &[b'x'; LINE_LIMIT + 1]);
        feed(&mut sink, &mut stream, b"\n");
        let text = read_all(&read);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with(&format!("{epoch} P xxx")), "{}", &lines[0][..50]);
        assert_eq!(lines[1], format!("{epoch} F x"));
    }

    #[test]
    fn a_full_pipe_drops_lines_and_says_so() {
        let (mut sink, read) = sink();
        let mut stream = stream();
        let line = [[b'y'; 1023].as_slice(), b"\n"].concat();
        for _ in 0..1000 {
            feed(&mut sink, &mut stream, &line);
        }
        assert!(sink.dropped > 0 && sink.pending.len() <= PENDING_LIMIT + 2048);
        let mut text = String::new();
        while sink.waiting().is_some() {
            text += &read_all(&read);
            sink.flush(0);
        }
        feed(&mut sink, &mut stream, b"after\n");
        text += &read_all(&read);
        let written = text.lines().filter(|l| l.ends_with('y')).count();
        let marker = text.lines().find(|l| l.contains("lines dropped")).unwrap();
        assert!(marker.contains(&format!("podbay: {} lines dropped", 1000 - written)), "{marker}");
        assert!(text.ends_with("F after\n"));
    }
}
