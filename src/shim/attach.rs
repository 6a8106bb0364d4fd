//! Who is attached to a container's streams: what it writes goes to each client, what they write goes into it.
//!
//! A client's pipe is all the memory it gets. Where that is full the container's output is held back, and with it its log,
//! for as long as the client takes 64 KiB a second. One that takes less, and any on a terminal, misses what it has no room
//! for, and a mark in its stream (standard error, where it has that) says how much that was.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::step::{Attempt, refuse};
use crate::wire::{Failed, Join};

/// So many at a time are attached to a container.
const CLIENTS: usize = 16;
/// So often one is still read from that has left: as much as its pipe can hold, and not for ever.
const LAST_READS: u32 = 16;
/// Whoever takes less than `LEAST_BYTES` in so long holds nothing back.
const PATIENCE: Duration = Duration::from_secs(1);
const LEAST_BYTES: u64 = 64 << 10;
/// A pipe that has any room takes so much as a whole (pipe(7)).
const PIECE: usize = 4096;

/// One who is attached.
struct Client {
    /// Its end is the client's.
    caller: UnixStream,
    stdin: Option<OwnedFd>,
    /// Standard output and standard error.
    outputs: [Option<Output>; 2],
    gone: bool,
}

struct Output {
    pipe: OwnedFd,
    missed_bytes: u64,
    given_bytes: u64,
    full: bool,
    /// Since when its reader is watched, and how much it had taken by then. Begins when it is full, ends when half of it
    /// is free.
    watched: Option<(Instant, u64)>,
    /// Its reader was waited for long enough.
    slow: bool,
}

/// Which of a client's descriptors has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Caller,
    Stdin,
    Output(usize),
}

impl Output {
    fn new(pipe: OwnedFd) -> Self {
        Self { pipe, missed_bytes: 0, given_bytes: 0, full: false, watched: None, slow: false }
    }

    fn look(&mut self, now: Instant) {
        let mut fds = [PollFd::new(&self.pipe, PollFlags::OUT)];
        self.full = poll(&mut fds, Some(&Timespec::default())) == Ok(0);
        if !self.full {
            self.slow = self.missed_bytes > 0;
            if !self.is_behind() {
                self.watched = None;
            }
            return;
        }
        let taken = self.given_bytes.saturating_sub(rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0));
        match self.watched {
            Some((since, _)) if now.duration_since(since) < PATIENCE => {}
            Some((_, before)) if taken < before + LEAST_BYTES => self.slow = true,
            _ => self.watched = Some((now, taken)),
        }
    }

    /// Says whether anybody still reads it.
    fn give(&mut self, bytes: &[u8]) -> bool {
        let written = if self.missed_bytes > 0 { Err(Errno::AGAIN) } else { rustix::io::write(&self.pipe, bytes) };
        let count = match written {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return false,
        };
        self.given_bytes += count as u64;
        self.missed_bytes += (bytes.len() - count) as u64;
        true
    }

    /// Whether it has yet to read half of what it may keep: it is not told of every gap between two bytes.
    fn is_behind(&self) -> bool {
        let (unread, room) = (rustix::io::ioctl_fionread(&self.pipe), rustix::pipe::fcntl_getpipe_size(&self.pipe));
        matches!((unread, room), (Ok(unread), Ok(room)) if unread > room as u64 / 2)
    }

    /// Makes room for one more mark, if need be.
    fn widen(&self) {
        if let Ok(room) = rustix::pipe::fcntl_getpipe_size(&self.pipe) {
            rustix::pipe::fcntl_setpipe_size(&self.pipe, room + PIECE).ok();
        }
    }
}

/// Everybody who is attached to a container.
#[derive(Default)]
pub struct Clients {
    all: Vec<Client>,
    /// What the container writes is held back for them.
    hold: bool,
}

impl Clients {
    pub fn new(hold: bool) -> Self {
        Self { all: Vec::new(), hold }
    }

    pub fn are_there(&self) -> bool {
        !self.all.is_empty()
    }

    /// As much of a buffer as may be read at a time for them.
    pub fn piece<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let length = if self.hold && self.are_there() { buffer.len().min(PIECE) } else { buffer.len() };
        &mut buffer[..length]
    }

    /// Sees who has room. To be called before output is read.
    pub fn look(&mut self, now: Instant) {
        if self.hold {
            self.all.iter_mut().flat_map(|client| client.outputs.iter_mut().flatten()).for_each(|output| output.look(now));
        }
    }

    /// A client that has no room for a stream's output and is waited for: where room is to come, and for how long.
    pub fn holding(&self, stream: usize) -> Option<(BorrowedFd<'_>, Duration)> {
        let outputs = self.all.iter().filter_map(|client| client.outputs[stream].as_ref());
        outputs.filter(|output| output.full && !output.slow).find_map(|output| {
            let (since, _) = output.watched?;
            Some((output.pipe.as_fd(), PATIENCE.saturating_sub(since.elapsed())))
        })
    }

    /// From now on nobody is waited for.
    pub fn hold_nothing_back(&mut self) {
        self.hold = false;
        self.all.iter_mut().flat_map(|client| client.outputs.iter_mut().flatten()).for_each(|output| output.full = false);
    }

    /// `fds`: a pipe's end for each stream that is wanted.
    pub fn add(&mut self, join: &Join, fds: Vec<OwnedFd>, caller: &UnixStream) -> Result<(), Failed> {
        let what = || format!("attach to container {}", join.container);
        if self.all.len() >= CLIENTS {
            return Err(refuse(what(), format!("{CLIENTS} clients are attached already")));
        }
        let mut fds = fds.into_iter();
        let mut next = |wanted: bool| {
            let fd = if wanted { Some(fds.next().ok_or_else(|| refuse(what(), "a stream is missing"))?) } else { None };
            if let Some(fd) = &fd {
                rustix::io::ioctl_fionbio(fd, true).attempt(what)?;
            }
            Ok::<_, Failed>(fd)
        };
        let (stdin, stdout, stderr) = (next(join.stdin)?, next(join.stdout)?, next(join.stderr)?);
        let outputs = [stdout, stderr].map(|pipe| pipe.map(Output::new));
        let caller = caller.try_clone().attempt(what)?;
        self.all.push(Client { caller, stdin, outputs, gone: false });
        Ok(())
    }

    /// What to wait for. `listen`: there is room for their input.
    pub fn waiting(&self, listen: bool) -> impl Iterator<Item = (usize, Part, BorrowedFd<'_>)> {
        self.all.iter().enumerate().flat_map(move |(index, client)| {
            let stdin = client.stdin.iter().filter(move |_| listen).map(|fd| (Part::Stdin, fd.as_fd()));
            // Readable never: their readers' end is heard of all the same.
            let outputs = client.outputs.iter().enumerate();
            let outputs = outputs.filter_map(|(number, output)| Some((Part::Output(number), output.as_ref()?.pipe.as_fd())));
            let caller = std::iter::once((Part::Caller, client.caller.as_fd()));
            caller.chain(stdin).chain(outputs).map(move |(part, fd)| (index, part, fd))
        })
    }

    /// Something happened on one of a client's descriptors.
    pub fn hear(&mut self, index: usize, part: Part, input: &mut Input, buffer: &mut [u8]) {
        let Some(client) = self.all.get_mut(index) else { return };
        match part {
            Part::Output(number) => client.outputs[number] = None,
            Part::Caller => client.gone = true,
            Part::Stdin if input.waiting().is_none() => client.read(input, buffer),
            Part::Stdin => {}
        }
    }

    /// Lets go of those that have left; what they have said before is heard as far as there is room.
    pub fn sweep(&mut self, input: &mut Input, buffer: &mut [u8]) {
        self.all.retain_mut(|client| {
            let mut left = LAST_READS;
            while client.gone && left > 0 && client.stdin.is_some() && input.waiting().is_none() {
                client.read(input, buffer);
                left -= 1;
            }
            if client.gone && client.stdin.is_some() {
                input.end();
            }
            !client.gone
        });
    }

    /// Output of the container: `stream` 0 or 1.
    pub fn give(&mut self, stream: usize, bytes: &[u8]) {
        for client in &mut self.all {
            client.mark(stream, false);
            let output = &mut client.outputs[stream];
            if output.as_mut().is_some_and(|output| !output.give(bytes)) {
                *output = None;
            }
        }
    }

    /// The container has ended: everybody is let go of, once told.
    pub fn end(&mut self, mut tell: impl FnMut(&UnixStream)) {
        for mut client in self.all.drain(..) {
            for stream in 0..2 {
                client.mark(stream, true);
            }
            tell(&client.caller);
        }
    }
}

impl Client {
    /// Says what a stream lacks, when there is room: so few bytes are written as a whole or not at all. `last`: there will
    /// be no other moment for it. Not among what may be data, where that can be.
    fn mark(&mut self, stream: usize, last: bool) {
        let Some(output) = &self.outputs[stream] else { return };
        if output.missed_bytes == 0 || (!last && output.is_behind()) {
            return;
        }
        let text = format!("\r\n[podbay: {} bytes left out, this client was too slow]\r\n", output.missed_bytes);
        let place = self.outputs[1].as_ref().unwrap_or(output);
        let mut written = rustix::io::write(&place.pipe, text.as_bytes());
        if last && written == Err(Errno::AGAIN) {
            place.widen();
            written = rustix::io::write(&place.pipe, text.as_bytes());
        }
        if let (Ok(_), Some(output)) = (written, &mut self.outputs[stream]) {
            output.missed_bytes = 0;
        }
    }

    /// Takes what it says, at most `buffer`, or hears of its end.
    fn read(&mut self, input: &mut Input, buffer: &mut [u8]) {
        let Some(stdin) = &self.stdin else { return };
        match rustix::io::read(stdin, &mut *buffer) {
            Ok(count) if count > 0 => input.take(&buffer[..count]),
            // A writer that neither writes nor leaves while its client is gone is not waited for.
            Err(Errno::AGAIN | Errno::INTR) if !self.gone => {}
            _ => {
                self.stdin = None;
                input.end();
            }
        }
        if !input.is_open() {
            // Who writes on hears that nobody reads it.
            self.stdin = None;
        }
    }
}

/// The way into a container: its standard input's other end, or its terminal.
#[derive(Default)]
pub struct Input {
    to: Option<OwnedFd>,
    /// It ends with the first client that leaves.
    once: bool,
    ending: bool,
    /// Waits for room.
    pending: Vec<u8>,
}

impl Input {
    pub fn new(to: Option<OwnedFd>, once: bool) -> Self {
        if let Some(to) = &to {
            // Never fails on what is open.
            rustix::io::ioctl_fionbio(to, true).ok();
        }
        Self { to, once, ..Self::default() }
    }

    pub fn is_open(&self) -> bool {
        self.to.is_some() && !self.ending
    }

    /// Where to wait for room; none when nothing waits.
    pub fn waiting(&self) -> Option<BorrowedFd<'_>> {
        if self.pending.is_empty() { None } else { self.to.as_ref().map(AsFd::as_fd) }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        self.flush();
    }

    /// A client's input has ended.
    fn end(&mut self) {
        if self.once {
            self.ending = true;
            self.flush();
        }
    }

    /// Gives the container what it takes now.
    pub fn flush(&mut self) {
        let mut sent = 0;
        while let Some(to) = self.to.as_ref().filter(|_| sent < self.pending.len()) {
            match rustix::io::write(to, &self.pending[sent..]) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Nobody reads it any more.
                Err(_) => self.to = None,
            }
        }
        self.pending.drain(..sent);
        if self.to.is_none() || self.pending.is_empty() {
            self.pending = Vec::new();
            if self.ending {
                self.to = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    fn read(fd: &OwnedFd) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count) = rustix::io::read(fd, &mut buffer) {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }

    /// A client that wants its input heard and standard output: (its input, its output, its connection).
    fn client(clients: &mut Clients) -> Result<(OwnedFd, OwnedFd, UnixStream), Failed> {
        let ((stdin, input), (output, stdout)) = (pipe(), pipe());
        let (caller, theirs) = UnixStream::pair().unwrap();
        let join = Join { container: "c".into(), stdin: true, stdout: true, stderr: false };
        clients.add(&join, vec![stdin, stdout], &caller)?;
        Ok((input, output, theirs))
    }

    #[test]
    fn who_is_slow_misses_something_and_is_told_what_and_nobody_else_does() {
        let mut clients = Clients::default();
        let (slow, quick) = (client(&mut clients).unwrap(), client(&mut clients).unwrap());
        let (chunk, mut seen) = ([b'x'; 1000], 0);
        for _ in 0..200 {
            clients.give(0, &chunk);
            seen += read(&quick.1).len();
        }
        assert_eq!(seen, 200_000);
        let first = read(&slow.1);
        assert!(first.len() < 200_000 && first.iter().all(|byte| *byte == b'x'));
        clients.give(0, b"last");
        let rest = String::from_utf8(read(&slow.1)).unwrap();
        assert_eq!(rest, format!("\r\n[podbay: {} bytes left out, this client was too slow]\r\nlast", 200_000 - first.len()));
    }

    #[test]
    fn who_takes_enough_is_waited_for_and_who_takes_little_a_second_only() {
        let mut clients = Clients::new(true);
        let one = client(&mut clients).unwrap();
        let (begun, mut buffer, mut given, mut taken) = (Instant::now(), [b'x'; 3 * PIECE], 0, 0);
        let mut fill = |clients: &mut Clients, now| loop {
            clients.look(now);
            if clients.holding(0).is_some() {
                break given;
            }
            let piece = clients.piece(&mut buffer);
            clients.give(0, piece);
            given += piece.len();
        };
        let mut take = |pieces: usize| taken += rustix::io::read(&one.1, &mut vec![0; pieces * PIECE]).unwrap();
        fill(&mut clients, begun);
        assert!(clients.holding(1).is_none(), "the other stream goes on");
        for _ in 0..4 {
            // Never half of what there is.
            take(5);
            fill(&mut clients, begun + PATIENCE / 2);
        }
        clients.look(begun + PATIENCE);
        assert!(clients.holding(0).is_some(), "it takes enough");
        take(2);
        let given = fill(&mut clients, begun + PATIENCE + PATIENCE / 2);
        clients.look(begun + 2 * PATIENCE - Duration::from_millis(1));
        assert!(clients.holding(0).is_some(), "it has its second");
        clients.look(begun + 2 * PATIENCE);
        assert!(clients.holding(0).is_none(), "what it takes is too little");
        clients.give(0, &[b'y'; 100]);
        clients.end(|_| {});
        let said = read(&one.1);
        let (data, mark) = said.split_at(given - taken);
        assert!(data.iter().all(|byte| *byte == b'x'), "nothing else is missing");
        assert_eq!(mark, b"\r\n[podbay: 100 bytes left out, this client was too slow]\r\n");
    }

    #[test]
    fn the_mark_is_not_among_the_data_where_there_is_a_standard_error() {
        let mut clients = Clients::default();
        let ((data, stdout), (errors, stderr)) = (pipe(), pipe());
        let caller = UnixStream::pair().unwrap();
        let join = Join { container: "c".into(), stdin: false, stdout: true, stderr: true };
        clients.add(&join, vec![stdout, stderr], &caller.0).unwrap();
        for _ in 0..200 {
            clients.give(0, &[b'x'; 1000]);
        }
        clients.end(|_| {});
        let whole = read(&data);
        assert!(whole.iter().all(|byte| *byte == b'x'));
        let expected = format!("\r\n[podbay: {} bytes left out, this client was too slow]\r\n", 200_000 - whole.len());
        assert_eq!(String::from_utf8(read(&errors)).unwrap(), expected);
    }

    #[test]
    fn so_many_are_attached_and_no_more() {
        let mut clients = Clients::default();
        let all: Vec<_> = (0..CLIENTS).map(|_| client(&mut clients).unwrap()).collect();
        let refused = client(&mut clients).unwrap_err();
        assert!(refused.cause.contains("16 clients are attached already"), "{refused:?}");
        drop(all);
        let mut input = Input::default();
        clients.hear(0, Part::Caller, &mut input, &mut [0; 16]);
        clients.sweep(&mut input, &mut [0; 16]);
        client(&mut clients).unwrap();
    }

    #[test]
    fn input_ends_with_the_first_client_where_it_is_to_and_with_what_it_said() {
        for once in [false, true] {
            let (read_end, to) = pipe();
            let (mut clients, mut input) = (Clients::default(), Input::new(Some(to), once));
            let one = client(&mut clients).unwrap();
            rustix::io::write(&one.0, b"last words").unwrap();
            drop(one);
            clients.hear(0, Part::Caller, &mut input, &mut [0; 4]);
            clients.sweep(&mut input, &mut [0; 4]);
            assert_eq!(read(&read_end), b"last words");
            assert_eq!(input.is_open(), !once);
            assert_eq!(rustix::io::read(&read_end, &mut [0; 1]), if once { Ok(0) } else { Err(Errno::AGAIN) });
        }
    }

    #[test]
    fn a_container_that_does_not_read_is_not_talked_into_more_than_a_buffer() {
        let (read_end, to) = pipe();
        let (mut clients, mut input) = (Clients::default(), Input::new(Some(to), true));
        let one = client(&mut clients).unwrap();
        let (mut said, mut buffer) = (0, [0; 1024]);
        for _ in 0..200 {
            said += rustix::io::write(&one.0, &[b'y'; 1000]).unwrap_or(0);
            clients.hear(0, Part::Stdin, &mut input, &mut buffer);
        }
        assert!(input.waiting().is_some() && input.pending.len() <= buffer.len());
        assert!(clients.waiting(input.waiting().is_none()).all(|(_, part, _)| part != Part::Stdin), "the rest waits in its pipe");
        drop(one.0);
        let mut heard = 0;
        loop {
            let count = read(&read_end).len();
            heard += count;
            input.flush();
            clients.hear(0, Part::Stdin, &mut input, &mut buffer);
            if count == 0 && input.to.is_none() {
                break;
            }
        }
        assert_eq!(heard, said, "and nothing of it is lost");
    }
}
