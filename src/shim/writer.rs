//! The log writer: a process of its own beside the shim, because writing to a disk may block.
//!
//! Gets a pipe and a file name for each container, appends what comes out of the pipe, rotates by size, and
//! says when the pipe has ended and all is written. Opens a log anew when told its name again without a pipe, at the
//! end of a record. Flushes exit records to disk, too.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::step::Attempt;
use crate::wire::{LogEnded, LogFile, LogNews, LogReopened};
use crate::{log, log_file, rest, socket, sys};

/// Exit records are flushed together, when nothing has happened for so long, or when there are many.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
const UNFLUSHED_LIMIT: usize = 16;

struct Log {
    id: String,
    pipe: OwnedFd,
    file: Option<OwnedFd>,
    size_bytes: u64,
    place: LogFile,
    /// Between two records.
    at_line_start: bool,
    /// Records that could not be written since the last that could.
    lost: u64,
    /// To be opened anew at the end of a record.
    moved: bool,
    /// How that went, to be told.
    news: Option<LogReopened>,
}

/// Runs until the shim is gone and everything it wrote is on file.
pub fn run(control: &UnixStream) -> ! {
    let mut logs: Vec<Log> = Vec::new();
    let mut open = true;
    let mut unflushed = Vec::new();
    let mut buffer = vec![0; 32 << 10];
    while open || !logs.is_empty() {
        for log in &mut logs {
            if log.moved && log.at_line_start {
                log.follow();
            }
            if let Some(news) = log.news.take() {
                socket::send(control, &LogNews::from(news), &[]).ok();
            }
        }
        let mut fds: Vec<PollFd<'_>> = logs.iter().map(|log| PollFd::new(&log.pipe, PollFlags::IN)).collect();
        if open {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        let limit = if unflushed.is_empty() { None } else { Some(FLUSH_AFTER) };
        let Ok(happened) = rest::wait(&mut fds, limit) else { break };
        if (happened == 0 || unflushed.len() >= UNFLUSHED_LIMIT) && !unflushed.is_empty() {
            flush(&mut unflushed);
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let count = logs.len();
        let mut ended = Vec::new();
        for (index, log) in logs.iter_mut().enumerate().filter(|(index, _)| ready[*index]) {
            match rustix::io::read(&log.pipe, &mut buffer[..]) {
                Ok(0) => ended.push(index),
                Ok(length) => log.append(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(_) => ended.push(index),
            }
        }
        for index in ended.into_iter().rev() {
            let log = logs.swap_remove(index);
            socket::send(control, &LogNews::from(LogEnded { id: log.id }), &[]).ok();
        }
        if open && ready[count] {
            match socket::receive::<(String, LogFile)>(control) {
                Ok(((id, place), mut fds)) => {
                    let Some(pipe) = fds.pop() else {
                        logs.iter_mut().filter(|log| log.id == id).for_each(|log| log.moved = true);
                        continue;
                    };
                    if place.path.is_empty() {
                        // Not a log but a record to be flushed.
                        unflushed.push(pipe);
                    } else {
                        let mut log =
                            Log { id, pipe, file: None, size_bytes: 0, place, at_line_start: true, lost: 0, moved: false, news: None };
                        log.reopen().ok();
                        logs.push(log);
                    }
                }
                Err(_) => open = false,
            }
        }
    }
    flush(&mut unflushed);
    sys::exit_now(0)
}

/// To the disk, unless they were removed in the meantime.
fn flush(records: &mut Vec<OwnedFd>) {
    for record in records.drain(..) {
        if rustix::fs::fstat(&record).is_ok_and(|stat| stat.st_nlink > 0) {
            rustix::fs::fdatasync(&record).ok();
        }
    }
}

impl Log {
    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let is_full = self.place.max_bytes > 0 && self.size_bytes >= self.place.max_bytes;
            if is_full || self.moved {
                if self.at_line_start && self.moved {
                    self.follow();
                } else if self.at_line_start {
                    self.rotate();
                } else {
                    // To the end of the record first.
                    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
                    self.write(&bytes[..end]);
                    bytes = &bytes[end..];
                    continue;
                }
            }
            let room = usize::try_from(self.place.max_bytes.saturating_sub(self.size_bytes)).unwrap_or(usize::MAX);
            let length = if self.place.max_bytes == 0 { bytes.len() } else { bytes.len().min(room.max(1)) };
            self.write(&bytes[..length]);
            bytes = &bytes[length..];
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.at_line_start = bytes.last() == Some(&b'\n');
        if self.file.is_none() {
            self.reopen().ok();
        }
        let Some(file) = &self.file else {
            self.lost += records(bytes);
            return;
        };
        if self.lost > 0 && self.at_line_start {
            let mut marker = Vec::new();
            log::put_time(&mut marker, log::now_ns());
            let text = format!(" stderr F [podbay: {} lines dropped, the log could not be written]\n", self.lost);
            marker.extend_from_slice(text.as_bytes());
            if write_all(file, &marker).is_ok() {
                self.size_bytes += marker.len() as u64;
                self.lost = 0;
            }
        }
        match write_all(file, bytes) {
            Ok(()) => self.size_bytes += bytes.len() as u64,
            Err(_) => self.lost += records(bytes),
        }
    }

    /// Goes on in the file that is at its path now, or in a new one; where there can be none, in the one it has.
    fn reopen(&mut self) -> Result<(), Errno> {
        let file = log_file::open(&self.place)?;
        let size = rustix::fs::fstat(&file).map_or(0, |stat| stat.st_size);
        self.size_bytes = u64::try_from(size).unwrap_or(0);
        self.file = Some(file);
        Ok(())
    }

    /// Somebody has moved the file away, and waits.
    fn follow(&mut self) {
        self.moved = false;
        let failure = self.reopen().attempt(|| format!("reopen the log of container {}", self.id)).err();
        self.news = Some(LogReopened { id: self.id.clone(), failure });
    }

    fn rotate(&mut self) {
        (self.file, self.size_bytes) = (None, 0);
        let (parent, name) = self.place.path.rsplit_once('/').unwrap_or(("", &self.place.path));
        if let Ok(directory) = log_file::open_below(&self.place.directory, parent) {
            let numbered = |number: u32| if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
            for number in (0..self.place.max_files.saturating_sub(1)).rev() {
                rustix::fs::renameat(&directory, numbered(number), &directory, numbered(number + 1)).ok();
            }
            if self.place.max_files <= 1 {
                rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty()).ok();
            }
        }
        self.reopen().ok();
    }
}

fn records(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
