//! The shim's loop: commands from the engine, output of the containers, and ends of children.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags};
use rustix::process::WaitOptions;

use crate::attach::{Clients, Input, Part};
use crate::launch::{self, Birth, Progress, Streams};
use crate::log::{Pumped, Sink, Stream, now_ns};
use crate::step::{Attempt, refuse};
use crate::users::Users;
use crate::wire::{
    Containers, Done, Exec, Exit, Exited, Failed, Forget, HEEDS, Hello, Join, Kill, Launch, LogFile, LogNews, REQUESTS, ReopenLog, Request,
    Response, Run, Running, Shutdown, Started, VERSION, record_text,
};
use crate::{rest, socket, sys, writer};

/// An end is told after its log is on file, or after this long.
const LOG_PATIENCE: Duration = Duration::from_secs(1);
/// The log writer sends its news whole; a new one is tried for so often at the most.
const WRITER_LIMIT: Duration = Duration::from_secs(1);
/// Whoever connects speaks within this time.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Orphans of a pod whose end is remembered while another runtime starts a process: containers can make any number.
const STRANGERS: usize = 4096;
/// The exit code of a process whose end nobody saw, as containerd has it.
const UNKNOWN: i32 = 255;
/// What is read of one stream at a time: fair between containers.
const CHUNK: usize = 16 << 10;

pub struct Shim {
    pub listener: UnixListener,
    pub signals: SignalFd,
    /// First process of the pod's shared PID namespace: (pid, pidfd).
    pub shared_pid: Option<(i32, OwnedFd)>,
    /// The pod's user namespace.
    pub users: Option<Users>,
    pub state: State,
}

#[derive(Default)]
pub struct State {
    starting: Vec<Starting>,
    containers: Vec<Container>,
    execs: Vec<Command>,
    watchers: Vec<UnixStream>,
    /// Children nobody has told us of yet, that have ended while another runtime starts some: (pid, code, signal).
    strangers: Vec<(i32, i32, i32)>,
    writer: Option<LogWriter>,
    /// When there was no process to be had for it.
    refused: Option<Instant>,
    /// Who waits for a container's log to be opened anew.
    reopening: Vec<(String, UnixStream)>,
    /// Set by `Shutdown`: who waits for it.
    shutdown: Option<UnixStream>,
    /// The last container's end is the shim's.
    host_ends: bool,
    /// The first process of the shared PID namespace is dead, and the namespace with it.
    init_dead: bool,
}

struct Container {
    id: String,
    pid: i32,
    pidfd: OwnedFd,
    started_at_ns: i64,
    record: String,
    oom_file: String,
    log: LogFile,
    streams: Vec<Stream>,
    sink: Sink,
    input: Input,
    clients: Clients,
    /// The terminal's other side: held, so that the terminal stays when nobody in the container has it open.
    terminal: Option<OwnedFd>,
    exit: Option<Exit>,
    /// The log is on file, or there is none.
    logged: bool,
    ended: Option<Instant>,
    told: bool,
}

/// A process between fork and exec.
struct Starting {
    birth: Birth,
    /// Who asked for it.
    caller: UnixStream,
    kind: Kind,
    /// It died before anybody heard of its exec: (code, signal).
    died: Option<(i32, i32)>,
}

enum Kind {
    Container {
        id: String,
        record: String,
        oom_file: String,
        log: LogFile,
        streams: Streams,
        stdin: bool,
        stdin_once: bool,
    },
    /// In this container.
    Command(String),
}

/// A command that runs in a container.
struct Command {
    pid: i32,
    pidfd: OwnedFd,
    container: String,
    started_at_ns: i64,
    caller: UnixStream,
}

struct LogWriter {
    control: UnixStream,
}

/// What a descriptor of the poll set is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Listener,
    Writer,
    Stream(usize, usize),
    Room(usize),
    Input(usize),
    Client(usize, usize, Part),
    /// Of a client that holds its container's output back.
    Relief,
    Watcher(usize),
    Starting(usize),
}

impl Shim {
    /// Serves until told to end.
    pub fn serve(mut self) -> Result<(), Failed> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let ready = self.wait()?;
            // Ends first: they make a container's streams end.
            if ready.contains(&Source::Signals) {
                self.hear_signals();
                self.reap();
            }
            let now = now_ns();
            let (mut gone, mut heard) = (Vec::new(), Vec::new());
            for source in ready.iter().copied() {
                match source {
                    Source::Signals | Source::Listener | Source::Relief => {}
                    Source::Starting(index) => heard.push(index),
                    Source::Writer => self.state.hear_writer(),
                    Source::Stream(container, stream) => self.state.pump(container, stream, &mut buffer, now),
                    Source::Room(container) => self.state.containers[container].sink.flush(now),
                    Source::Input(container) => self.state.containers[container].input.flush(),
                    Source::Client(container, client, part) => self.state.hear_client(container, client, part, &mut buffer),
                    Source::Watcher(index) => gone.push(index),
                }
            }
            for index in gone.into_iter().rev() {
                self.state.watchers.swap_remove(index);
            }
            self.state.advance(&heard);
            // Last: a command may remove what the numbers above stand for.
            if ready.contains(&Source::Listener) {
                self.accept();
            }
            self.state.settle(&mut buffer);
            if self.state.is_finished() {
                if let Some(caller) = &self.state.shutdown {
                    socket::send(caller, &Response::from(Done {}), &[]).ok();
                }
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<Vec<Source>, Failed> {
        let state = &self.state;
        let mut sources = vec![Source::Signals, Source::Listener];
        let input = PollFlags::IN;
        let mut fds = vec![PollFd::new(&self.signals, input), PollFd::new(&self.listener, input)];
        if let Some(writer) = &state.writer {
            sources.push(Source::Writer);
            fds.push(PollFd::new(&writer.control, input));
        }
        let mut held = None;
        for (index, container) in state.containers.iter().enumerate() {
            for (number, stream) in container.streams.iter().enumerate() {
                if let Some((room, left)) = container.clients.holding(stream.number()) {
                    sources.push(Source::Relief);
                    fds.push(PollFd::from_borrowed_fd(room, PollFlags::OUT));
                    held = held.into_iter().chain([left]).min();
                } else {
                    sources.push(Source::Stream(index, number));
                    fds.push(PollFd::new(&stream.fd, input));
                }
            }
            if let Some(room) = container.sink.waiting() {
                sources.push(Source::Room(index));
                fds.push(PollFd::from_borrowed_fd(room, PollFlags::OUT));
            }
            if let Some(room) = container.input.waiting() {
                sources.push(Source::Input(index));
                fds.push(PollFd::from_borrowed_fd(room, PollFlags::OUT));
            }
            for (client, part, fd) in container.clients.waiting(container.input.waiting().is_none()) {
                sources.push(Source::Client(index, client, part));
                let flags = if matches!(part, Part::Output(_)) { PollFlags::empty() } else { input };
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        for (index, watcher) in state.watchers.iter().enumerate() {
            sources.push(Source::Watcher(index));
            fds.push(PollFd::new(watcher, input));
        }
        for (index, starting) in state.starting.iter().enumerate() {
            sources.push(Source::Starting(index));
            fds.push(PollFd::new(&starting.birth.sync, input));
        }
        let patience = state.containers.iter().filter(|c| !c.told).filter_map(|c| c.ended).min();
        let left = patience.map(|ended| LOG_PATIENCE.saturating_sub(ended.elapsed()));
        let writer = Some(WRITER_LIMIT).filter(|_| state.lacks_writer());
        let left = state.starting.iter().map(|starting| starting.birth.left()).chain(left).chain(held).chain(writer).min();
        rest::wait(&mut fds, left).attempt(|| "wait for something to happen")?;
        let ready = fds.iter().zip(&sources).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, source)| *source).collect())
    }

    /// The service manager ends what is in the pods' scope: the host shuts down. The containers have been told as
    /// well; staying behind them would keep the host from going down until its patience ends.
    fn hear_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == libc::SIGTERM as u32 && signal.ssi_pid == 1 {
                self.state.host_ends = true;
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_pid();
            let signal = status.terminating_signal().unwrap_or(0);
            let code = status.exit_status().unwrap_or(128 + signal);
            self.state.child_ended(pid, code, signal);
            if self.shared_pid.as_ref().is_some_and(|(init, _)| *init == pid) {
                // The kernel has killed everything in the pod with it.
                (self.shared_pid, self.state.init_dead) = (None, true);
            }
        }
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        if stream.set_read_timeout(Some(REQUEST_LIMIT)).is_err() || stream.set_write_timeout(Some(REQUEST_LIMIT)).is_err() {
            return;
        }
        // Who only tells something has left by now, and is heard all the same.
        socket::send(&stream, &Response::from(hello()), &[]).ok();
        let (request, fds) = match socket::receive::<Request>(&stream) {
            Ok(received) => received,
            Err(error) => {
                // Who has left needs no answer.
                answer(&stream, Err(refuse("read the request", error.to_string())));
                return;
            }
        };
        match request {
            // Nobody would end it.
            Request::Run(_) | Request::Exec(_) if self.state.is_told_to_end() => {
                answer(&stream, Err(refuse("start a process", "its sandbox is being stopped")));
            }
            Request::Run(run) => self.run(run, stream),
            Request::Exec(exec) => self.exec(&exec, &fds, stream),
            Request::Kill(kill) => drop(answer(&stream, self.state.kill(&kill))),
            Request::List(_) => drop(answer(&stream, Ok(self.state.list().into()))),
            Request::Watch(_) => {
                answer(&stream, Ok(Done {}.into()));
                self.state.watchers.push(stream);
            }
            Request::Forget(forget) => drop(answer(&stream, self.state.forget(&forget))),
            Request::Join(join) => self.state.join(&join, fds, stream),
            Request::ReopenLog(reopen) => self.state.reopen_log(reopen, stream),
            Request::Shutdown(Shutdown {}) => {
                self.state.kill_all();
                self.state.shutdown = Some(stream);
            }
        }
    }

    fn run(&mut self, run: Run, caller: UnixStream) {
        let of = &run.launch.processes_of;
        let begun = if self.state.knows(&run.id) {
            Err(refuse(format!("start container {}", run.id), "it was started before"))
        } else if !of.is_empty() {
            let target =
                |state: &State| state.live(of).and_then(|target| launch::run(&run.launch, Some(target.pidfd.as_fd()), self.users.as_ref()));
            self.state.ensure_writer().and_then(|()| target(&self.state))
        } else if self.state.init_dead && !run.launch.new_pid {
            // It would run in the host's.
            Err(refuse(format!("start container {}", run.id), "the pod's first process is dead"))
        } else {
            let shared = self.shared_pid.as_ref().map(|(_, pidfd)| pidfd.as_fd());
            self.state.ensure_writer().and_then(|()| launch::run(&run.launch, shared, self.users.as_ref()))
        };
        match begun {
            Ok((birth, streams)) => {
                let Launch { record, oom_file, log, stdin, stdin_once, .. } = run.launch;
                let kind = Kind::Container { id: run.id, record, oom_file, log, streams, stdin, stdin_once };
                self.state.starting.push(Starting { birth, caller, kind, died: None });
            }
            Err(failure) => drop(answer(&caller, Err(failure))),
        }
    }

    fn exec(&mut self, exec: &Exec, fds: &[OwnedFd], caller: UnixStream) {
        match self.state.live(&exec.container).and_then(|c| launch::exec(exec, c.pidfd.as_fd(), fds, self.users.as_ref())) {
            Ok(birth) => {
                let kind = Kind::Command(exec.container.clone());
                self.state.starting.push(Starting { birth, caller, kind, died: None });
            }
            Err(failure) => drop(answer(&caller, Err(failure))),
        }
    }
}

/// How it greets.
pub fn hello() -> Hello {
    Hello { version: VERSION, pid: rustix::process::getpid().as_raw_pid(), requests: REQUESTS, heeds: HEEDS }
}

/// Says whether there was anybody to answer.
fn answer(stream: &UnixStream, result: Result<Response, Failed>) -> bool {
    socket::send(stream, &result.unwrap_or_else(Response::Failed), &[]).is_ok()
}

impl State {
    /// Brings those children further that have something to say, or have taken too long.
    fn advance(&mut self, heard: &[usize]) {
        for index in (0..self.starting.len()).rev() {
            let starting = &mut self.starting[index];
            let progress = match (heard.contains(&index), starting.birth.left().is_zero()) {
                (true, _) => starting.birth.advance(),
                (false, true) => {
                    starting.birth.kill();
                    Progress::Failed(refuse("wait for the child", "it takes too long: does a volume not answer?"))
                }
                (false, false) => Progress::Waiting,
            };
            match progress {
                Progress::Waiting => {}
                Progress::Started => {
                    let started = self.starting.swap_remove(index);
                    self.has_started(started);
                }
                Progress::Failed(failure) => {
                    let failed = self.starting.swap_remove(index);
                    self.has_failed(failed, failure);
                }
            }
        }
    }

    fn has_started(&mut self, started: Starting) {
        let Starting { mut birth, caller, kind, mut died } = started;
        if let Some(Some(pid)) = birth.delegated {
            // What has ended was the child that attended to it.
            died = self.strangers.iter().rfind(|(stranger, ..)| *stranger == pid).map(|(_, code, signal)| (*code, *signal));
            birth.pid = pid;
            match sys::open_process(pid) {
                Some(opened) => birth.pidfd = opened,
                // Reaped, and nobody remembers how it ended.
                None if !std::path::Path::new(&format!("/proc/{pid}")).exists() => died = died.or(Some((UNKNOWN, 0))),
                None => {}
            }
        }
        self.forget_strangers();
        let (pid, at_ns) = (birth.pid, now_ns());
        let response = Response::from(Started { pid, at_ns });
        match kind {
            Kind::Command(container) => {
                let terminal: Vec<_> = birth.terminal.iter().map(AsFd::as_fd).collect();
                socket::send(&caller, &response, &terminal).ok();
                self.execs.push(Command { pid, pidfd: birth.pidfd, container, started_at_ns: at_ns, caller });
            }
            Kind::Container { id, record, oom_file, log, streams, stdin, stdin_once } => {
                answer(&caller, Ok(response));
                let Streams { stdout, stderr, stdin: pipe } = streams;
                let terminal = birth.terminal.as_ref().and_then(|master| sys::terminal_peer(master.as_fd()).ok());
                // A terminal is not held back: who types is to see what comes.
                let clients = Clients::new(birth.terminal.is_none());
                let (stdout, stderr, input) = match birth.terminal {
                    // What a terminal's client has left goes on for the next one.
                    Some(master) => {
                        let input = if stdin { master.try_clone().ok() } else { None };
                        (master, None, Input::new(input, false))
                    }
                    None => (stdout, Some(stderr), Input::new(pipe, stdin_once)),
                };
                // The pipes are so already.
                rustix::io::ioctl_fionbio(&stdout, true).ok();
                let mut streams = vec![Stream::new(stdout, "stdout")];
                streams.extend(stderr.map(|fd| Stream::new(fd, "stderr")));
                let mut container = Container {
                    id,
                    pid,
                    pidfd: birth.pidfd,
                    started_at_ns: at_ns,
                    record,
                    oom_file,
                    logged: log.path.is_empty(),
                    log,
                    streams,
                    sink: Sink::default(),
                    input,
                    clients,
                    terminal,
                    exit: None,
                    ended: None,
                    told: false,
                };
                if let Some(writer) = &self.writer {
                    connect_log(writer, &mut container);
                }
                self.containers.push(container);
            }
        }
        if let Some((code, signal)) = died {
            self.child_ended(pid, code, signal);
        }
    }

    /// Nobody will ask for them, and their numbers are others' soon.
    fn forget_strangers(&mut self) {
        if !self.starting.iter().any(|starting| starting.birth.delegated.is_some()) {
            self.strangers.clear();
        }
    }

    fn has_failed(&mut self, failed: Starting, failure: Failed) {
        self.forget_strangers();
        let heard = answer(&failed.caller, Err(failure));
        if let (false, Kind::Container { id, record, .. }) = (heard, failed.kind) {
            // The engine that asked is gone; the next one has found it starting.
            let now = now_ns();
            let exit = Exit { code: 128, signal: 0, oom_killed: false, started_at_ns: now, finished_at_ns: now };
            write_record(&record, &record_text(&id, &exit));
            let news = Response::from(Exited { id, exit });
            self.watchers.retain(|watcher| socket::send(watcher, &news, &[]).is_ok());
        }
    }

    /// Containers on their way.
    fn births(&self) -> impl Iterator<Item = (&str, &Birth)> {
        self.starting.iter().filter_map(|starting| match &starting.kind {
            Kind::Container { id, .. } => Some((id.as_str(), &starting.birth)),
            Kind::Command(_) => None,
        })
    }

    fn knows(&self, id: &str) -> bool {
        self.containers.iter().any(|container| container.id == id) || self.births().any(|(known, _)| known == id)
    }

    fn live(&self, id: &str) -> Result<&Container, Failed> {
        let container = self.containers.iter().find(|container| container.id == id && container.exit.is_none());
        container.ok_or_else(|| refuse(format!("reach container {id}"), "it is not running"))
    }

    fn list(&self) -> Containers {
        let all = self.containers.iter().map(|c| Running {
            id: c.id.clone(),
            pid: c.pid,
            started_at_ns: c.started_at_ns,
            exit: c.exit.clone().filter(|_| c.told),
        });
        let births = self.births().map(|(id, birth)| Running { id: id.to_owned(), pid: birth.pid, started_at_ns: 0, exit: None });
        Containers { all: all.chain(births).collect() }
    }

    fn kill(&self, kill: &Kill) -> Result<Response, Failed> {
        if kill.exec == 0
            && kill.signal == libc::SIGKILL
            && let Some((_, birth)) = self.births().find(|(id, _)| *id == kill.container)
        {
            birth.kill();
            return Ok(Done {}.into());
        }
        let sent = if kill.exec == 0 {
            match self.live(&kill.container) {
                Ok(container) => sys::send_signal(container.pidfd.as_fd(), kill.signal),
                Err(_) => return Ok(Done {}.into()),
            }
        } else {
            match self.execs.iter().find(|c| c.pid == kill.exec && c.container == kill.container) {
                Some(command) => {
                    // It leads a session: what it started in the foreground goes with it.
                    if let (libc::SIGKILL, Some(group)) = (kill.signal, rustix::process::Pid::from_raw(command.pid)) {
                        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
                    }
                    sys::send_signal(command.pidfd.as_fd(), kill.signal)
                }
                None => return Ok(Done {}.into()),
            }
        };
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(Done {}.into()),
            result => result.attempt(|| format!("send signal {} to {}", kill.signal, kill.container)).map(|()| Done {}.into()),
        }
    }

    fn kill_all(&self) {
        for container in self.containers.iter().filter(|container| container.exit.is_none()) {
            sys::send_signal(container.pidfd.as_fd(), libc::SIGKILL).ok();
        }
        self.starting.iter().for_each(|starting| starting.birth.kill());
    }

    fn forget(&mut self, forget: &Forget) -> Result<Response, Failed> {
        if self.live(&forget.id).is_ok() || self.births().any(|(id, _)| id == forget.id) {
            return Err(refuse(format!("forget container {}", forget.id), "it is running"));
        }
        self.containers.retain(|container| container.id != forget.id);
        Ok(Done {}.into())
    }

    fn is_told_to_end(&self) -> bool {
        self.shutdown.is_some() || self.host_ends
    }

    fn is_finished(&self) -> bool {
        self.is_told_to_end() && self.starting.is_empty() && self.containers.iter().all(|container| container.told)
    }

    fn pump(&mut self, container: usize, stream: usize, buffer: &mut [u8], now: i64) {
        let container = &mut self.containers[container];
        // A stream that ended before this one in the same round has moved the rest.
        let Some(at) = container.streams.get_mut(stream) else { return };
        let piece = container.clients.piece(buffer);
        match container.sink.pump(at, piece, now) {
            Pumped::Some(count) => container.clients.give(at.number(), &piece[..count]),
            Pumped::Nothing => {}
            Pumped::Ended => drop(container.streams.remove(stream)),
        }
    }

    fn child_ended(&mut self, pid: i32, code: i32, signal: i32) {
        let finished_at_ns = now_ns();
        if let Some(starting) = self.starting.iter_mut().find(|starting| starting.birth.pid == pid) {
            starting.died = Some((code, signal));
        } else if let Some(container) = self.containers.iter_mut().find(|c| c.pid == pid && c.exit.is_none()) {
            let oom_killed = code != 0 && count_oom_kills(&container.oom_file) > 0;
            let started_at_ns = container.started_at_ns;
            container.exit = Some(Exit { code, signal, oom_killed, started_at_ns, finished_at_ns });
            container.ended = Some(Instant::now());
            // The terminal ends with the last process that has it.
            (container.terminal, container.input) = (None, Input::default());
        } else if let Some(index) = self.execs.iter().position(|command| command.pid == pid) {
            let command = self.execs.swap_remove(index);
            let started_at_ns = command.started_at_ns;
            let exit = Exit { code, signal, oom_killed: false, started_at_ns, finished_at_ns };
            let exited = Response::from(Exited { id: command.container, exit });
            socket::send(&command.caller, &exited, &[]).ok();
        } else if self.strangers.len() < STRANGERS && self.starting.iter().any(|starting| starting.birth.delegated.is_some()) {
            self.strangers.push((pid, code, signal));
        }
    }

    /// Brings what has ended to its end: the rest of the output, the log's end, the record, the news.
    fn settle(&mut self, buffer: &mut [u8]) {
        if self.lacks_writer() && self.refused.is_none_or(|at| at.elapsed() >= WRITER_LIMIT) {
            self.refused = self.ensure_writer().is_err().then(Instant::now);
        }
        let Self { containers, watchers, writer, .. } = self;
        for container in containers.iter_mut().filter(|container| !container.told || container.clients.are_there()) {
            container.clients.sweep(&mut container.input, buffer);
            container.clients.look(Instant::now());
            let patient = container.ended.is_some_and(|ended| ended.elapsed() < LOG_PATIENCE);
            if container.exit.is_some() {
                if !patient {
                    // Its log is to be whole when its end is told.
                    container.clients.hold_nothing_back();
                }
                container.drain(buffer);
            }
            let Some(exit) = &container.exit else { continue };
            let news = Response::from(Exited { id: container.id.clone(), exit: exit.clone() });
            if !container.told {
                let is_held = container.streams.iter().any(|stream| container.clients.holding(stream.number()).is_some());
                if patient && (is_held || (!container.logged && container.sink.used)) {
                    continue;
                }
                container.told = true;
                let record = write_record(&container.record, &record_text(&container.id, exit));
                watchers.retain(|watcher| socket::send(watcher, &news, &[]).is_ok());
                // On the disk as well, for the sake of a power cut; nobody has to wait for that but the log writer.
                if let (Some(record), Some(writer)) = (record, writer.as_ref()) {
                    let flush = (String::new(), LogFile::default());
                    socket::send(&writer.control, &flush, &[record.as_fd()]).ok();
                }
            }
            // Who reads slowly hears of the end after the last of the output.
            if container.streams.iter().all(|stream| container.clients.holding(stream.number()).is_none()) {
                container.clients.end(|caller| drop(socket::send(caller, &news, &[])));
            }
        }
        // What was told and still writes (a process that outlived the first one) goes on being read.
        for container in containers.iter_mut().filter(|container| container.told && container.streams.is_empty()) {
            if container.sink.waiting().is_none() {
                container.sink.close();
            }
        }
    }

    fn ensure_writer(&mut self) -> Result<(), Failed> {
        if self.writer.is_some() {
            return Ok(());
        }
        let (ours, theirs) = UnixStream::pair().attempt(|| "make a socket pair")?;
        ours.set_read_timeout(Some(WRITER_LIMIT)).attempt(|| "limit the log writer's time")?;
        match sys::fork(0, None).attempt(|| "start the log writer")? {
            sys::Side::Child => {
                // Not the containers' pipes, which must end for it when the shim closes them.
                writer::run(&sys::keep_only(&theirs))
            }
            sys::Side::Parent { .. } => {
                let writer = self.writer.insert(LogWriter { control: ours });
                for container in self.containers.iter_mut().filter(|c| !c.logged) {
                    connect_log(writer, container);
                }
                // A new writer opens every log anew.
                for (_, caller) in self.reopening.drain(..) {
                    answer(&caller, Ok(Done {}.into()));
                }
                Ok(())
            }
        }
    }

    /// Its logs have nobody who writes them: no process may have been had.
    fn lacks_writer(&self) -> bool {
        self.writer.is_none() && self.containers.iter().any(|container| !container.logged)
    }

    fn hear_writer(&mut self) {
        let Some(writer) = &self.writer else { return };
        match socket::receive::<LogNews>(&writer.control) {
            Ok((LogNews::LogEnded(ended), _)) => {
                for container in self.containers.iter_mut().filter(|container| container.id == ended.id) {
                    container.logged = true;
                }
                self.has_reopened(&ended.id, &Some(refuse(format!("reopen the log of container {}", ended.id), "it has ended")));
            }
            Ok((LogNews::LogReopened(done), _)) => self.has_reopened(&done.id, &done.failure),
            // It has died. Not told by its end as a child: that may come in the same round, and then the new one would be
            // listened to for what the old one has said.
            Err(_) => self.writer = None,
        }
    }

    fn reopen_log(&mut self, reopen: ReopenLog, caller: UnixStream) {
        let what = || format!("reopen the log of container {}", reopen.container);
        let asked = self.live(&reopen.container).and_then(|container| {
            let writer = self.writer.as_ref().filter(|_| !container.log.path.is_empty());
            let writer = writer.ok_or_else(|| refuse(what(), "it has none"))?;
            // Its place is known there; without a pipe it is not opened but opened anew.
            socket::send(&writer.control, &(container.id.clone(), container.log.clone()), &[]).attempt(what)
        });
        match asked {
            Ok(()) => self.reopening.push((reopen.container, caller)),
            Err(failure) => drop(answer(&caller, Err(failure))),
        }
    }

    fn has_reopened(&mut self, id: &str, failure: &Option<Failed>) {
        self.reopening.retain(|(container, caller)| {
            if container == id {
                answer(caller, failure.clone().map_or(Ok(Done {}.into()), Err));
            }
            container != id
        });
    }

    fn hear_client(&mut self, container: usize, client: usize, part: Part, buffer: &mut [u8]) {
        let container = &mut self.containers[container];
        container.clients.hear(client, part, &mut container.input, buffer);
    }

    fn join(&mut self, join: &Join, fds: Vec<OwnedFd>, caller: UnixStream) {
        let found = self.containers.iter_mut().find(|container| container.id == join.container && container.exit.is_none());
        let Some(container) = found else {
            answer(&caller, Err(refuse(format!("attach to container {}", join.container), "it is not running")));
            return;
        };
        match container.clients.add(join, fds, &caller) {
            Ok(()) => {
                let started = Response::from(Started { pid: container.pid, at_ns: container.started_at_ns });
                let terminal = container.streams.first().filter(|_| container.terminal.is_some()).map(|stream| stream.fd.as_fd());
                socket::send(&caller, &started, terminal.as_slice()).ok();
            }
            Err(failure) => drop(answer(&caller, Err(failure))),
        }
    }
}

impl Container {
    /// Takes the rest of what one that has ended has written, as far as there is room for it.
    fn drain(&mut self, buffer: &mut [u8]) {
        let Self { streams, sink, clients, .. } = self;
        let now = now_ns();
        streams.retain_mut(|stream| {
            while clients.holding(stream.number()).is_none() {
                let piece = clients.piece(buffer);
                match sink.pump(stream, piece, now) {
                    Pumped::Some(count) => {
                        clients.give(stream.number(), &piece[..count]);
                        clients.look(Instant::now());
                        if sink.waiting().is_some() {
                            break;
                        }
                    }
                    Pumped::Nothing => break,
                    Pumped::Ended => return false,
                }
            }
            true
        });
        if streams.is_empty() && sink.waiting().is_none() {
            sink.close();
        }
    }
}

fn connect_log(writer: &LogWriter, container: &mut Container) {
    if container.log.path.is_empty() {
        return;
    }
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else { return };
    // More room for bursts; not given to everybody.
    rustix::pipe::fcntl_setpipe_size(&write, 256 << 10).ok();
    if rustix::io::ioctl_fionbio(&write, true).is_err() {
        return;
    }
    let open = (container.id.clone(), container.log.clone());
    if socket::send(&writer.control, &open, &[read.as_fd()]).is_ok() {
        container.sink.open(write);
    }
}

fn count_oom_kills(path: &str) -> u64 {
    if path.is_empty() {
        return 0;
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Writes a record whole or not at all. Returns it for the flush to disk.
fn write_record(path: &str, text: &str) -> Option<std::fs::File> {
    let temporary = format!("{path}.new");
    let file = std::fs::File::create(&temporary).ok()?;
    std::io::Write::write_all(&mut &file, text.as_bytes()).ok()?;
    std::fs::rename(&temporary, path).ok()?;
    Some(file)
}
