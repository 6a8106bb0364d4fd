//! Starts processes: a container's first, and commands in it.
//!
//! A start is begun here and brought to its end by the poll loop: a mount of a dead server makes nobody else wait.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::thread::ThreadNameSpaceType;

use crate::step::{Attempt, carry_out, mount_console, refuse};
use crate::users::Users;
use crate::wire::{Cgroup, Commands, Done, Exec, Failed, Launch, Process, Response, Step};
use crate::{delegate, process, socket, sys};

/// A child gets this long from fork to exec: mounts of dead servers hang.
const START_LIMIT: Duration = Duration::from_secs(120);
/// From the first byte of a message to its last.
const MESSAGE_LIMIT: Duration = Duration::from_secs(5);

/// What a container's first process has of us.
pub struct Streams {
    /// What it writes, read by us; its terminal takes the place of both.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Held so that its standard input does not end.
    pub stdin: Option<OwnedFd>,
}

/// Begins to start a container. `shared_pid`: the init of the pod's PID namespace, `users`: the pod's user namespace, where
/// it has one.
pub fn run(launch: &Launch, shared_pid: Option<BorrowedFd<'_>>, users: Option<&Users>) -> Result<(Birth, Streams), Failed> {
    let what = || "prepare the standard streams";
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(what);
    let (null_in, stdin) = if launch.stdin && !launch.process.tty {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(what)?, None)
    };
    let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
    let mut flags = libc::CLONE_NEWNS;
    if launch.new_pid {
        flags |= libc::CLONE_NEWPID;
    }
    let join = if launch.new_pid { None } else { shared_pid };
    let standard = [null_in.as_fd(), out.as_fd(), err.as_fd()];
    let born = if let Some(commands) = &launch.commands {
        delegate(libc::CLONE_NEWNS, (commands, &launch.steps), &launch.process, users, standard)?
    } else {
        start(flags, launch, (join, users), standard)?
    };
    for fd in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(fd, true).attempt(what)?;
    }
    Ok((born, Streams { stdout, stderr, stdin }))
}

fn start(
    flags: i32,
    launch: &Launch,
    (join, users): (Option<BorrowedFd<'_>>, Option<&Users>),
    standard: [BorrowedFd<'_>; 3],
) -> Result<Birth, Failed> {
    give_birth(flags, &launch.cgroup, join, &launch.process, |sync| {
        enter_cgroup(&launch.cgroup)?;
        if launch.new_cgroup_namespace {
            nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).attempt(|| "make a cgroup namespace")?;
        }
        process::set_oom_score(&launch.process)?;
        process::set_label(&launch.process)?;
        carry_out(&launch.steps, users)?;
        if let Some(users) = users {
            // The ones it has had until now are the host's.
            let cgroup = if launch.new_cgroup_namespace { CloneFlags::CLONE_NEWCGROUP } else { CloneFlags::empty() };
            users.enter(&standard, CloneFlags::CLONE_NEWNS | cgroup)?;
        }
        finish(&launch.process, standard, true, sync)
    })
}

/// Has another OCI runtime start a process. The child that attends to it stays with us, in our cgroup.
fn delegate(
    flags: i32,
    (commands, steps): (&Commands, &[Step]),
    process: &Process,
    users: Option<&Users>,
    standard: [BorrowedFd<'_>; 3],
) -> Result<Birth, Failed> {
    let born = give_birth(flags, &Cgroup::default(), None, process, |sync| delegate::attend(commands, steps, users, standard, sync))?;
    Ok(Birth { delegated: Some(None), ..born })
}

/// A child on its way from fork to exec. It may take long, where mounts do, and nobody waits for it but the poll loop.
pub struct Birth {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Readable when the child says something; at its end the child has become its program, or died.
    pub sync: UnixStream,
    pub terminal: Option<OwnedFd>,
    wants_terminal: bool,
    begun: Instant,
    /// The process is another runtime's: its number, once that is known. The child only attends to it.
    pub delegated: Option<Option<i32>>,
}

/// What a child has said.
pub enum Progress {
    Waiting,
    Started,
    Failed(Failed),
}

impl Birth {
    /// Takes what the child says, when there is something: its terminal, its failure, or its exec, which closes its end.
    pub fn advance(&mut self) -> Progress {
        let gone = |error: &std::io::Error| matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
        let failure = match socket::receive::<Response>(&self.sync) {
            Ok((Response::Done(_), mut fds)) => {
                self.terminal = fds.pop();
                return Progress::Waiting;
            }
            Ok((Response::Started(started), _)) => {
                self.delegated = Some(Some(started.pid));
                return Progress::Waiting;
            }
            Ok((Response::Failed(failure), _)) => failure,
            Ok(_) => refuse("wait for the child", "it says something else"),
            Err(error) if gone(&error) && self.delegated == Some(None) => refuse("have another runtime start it", "the child died"),
            Err(error) if gone(&error) && self.wants_terminal && self.terminal.is_none() => refuse("open a terminal", "the child died"),
            Err(error) if gone(&error) => return Progress::Started,
            Err(error) => Err::<(), _>(error).attempt(|| "wait for the child").err().unwrap_or_default(),
        };
        self.kill();
        Progress::Failed(failure)
    }

    /// How long it may still take.
    pub fn left(&self) -> Duration {
        START_LIMIT.saturating_sub(self.begun.elapsed())
    }

    /// Its end is seen as every child's.
    pub fn kill(&self) {
        sys::send_signal(self.pidfd.as_fd(), libc::SIGKILL).ok();
    }
}

/// Begins to run a command in the container whose first process is `init`.
pub fn exec(exec: &Exec, init: BorrowedFd<'_>, standard: &[OwnedFd], users: Option<&Users>) -> Result<Birth, Failed> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(|| "prepare the standard streams")?;
    let fd = |index: usize| standard.get(index).unwrap_or(&null).as_fd();
    let streams = [fd(0), fd(1), fd(2)];
    if let Some(commands) = &exec.commands {
        return delegate(0, (commands, &[]), &exec.process, users, streams);
    }
    give_birth(0, &exec.cgroup, Some(init), &exec.process, |sync| {
        enter_cgroup(&exec.cgroup)?;
        process::set_oom_score(&exec.process)?;
        process::set_label(&exec.process)?;
        let namespaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::CONTROL_GROUP;
        rustix::thread::move_into_thread_name_spaces(init, namespaces).attempt(|| "enter the container's namespaces")?;
        if let Some(users) = users {
            users.enter(&streams, CloneFlags::empty())?;
        }
        finish(&exec.process, streams, false, sync)
    })
}

/// Forks; the child does `body`, whose failure comes back as ours.
fn give_birth(
    flags: i32,
    cgroup: &Cgroup,
    pid_namespace_of: Option<BorrowedFd<'_>>,
    wanted: &Process,
    body: impl FnOnce(&UnixStream) -> Result<std::convert::Infallible, Failed>,
) -> Result<Birth, Failed> {
    let (ours, theirs) = UnixStream::pair().attempt(|| "make a socket pair")?;
    let directory = if cgroup.unified.is_empty() {
        None
    } else {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let what = || format!("open the cgroup {}", cgroup.unified);
        Some(rustix::fs::openat(CWD, cgroup.unified.as_str(), flags, Mode::empty()).attempt(what)?)
    };
    // For the children of this process only; taken back at once.
    if let Some(of) = pid_namespace_of {
        rustix::thread::move_into_thread_name_spaces(of, ThreadNameSpaceType::PROCESS_ID).attempt(|| "enter the PID namespace")?;
    }
    let side = sys::fork(flags as u64, directory.as_ref().map(AsFd::as_fd)).attempt(|| "fork");
    match side {
        Ok(sys::Side::Child) => {
            drop((ours, directory));
            let Err(failure) = body(&theirs);
            // When nobody reads it any more there is nobody to tell.
            socket::send(&theirs, &Response::from(failure), &[]).ok();
            sys::exit_now(127)
        }
        Ok(sys::Side::Parent { pid, pidfd }) => {
            drop(theirs);
            let birth =
                Birth { pid, pidfd, sync: ours, terminal: None, wants_terminal: wanted.tty, begun: Instant::now(), delegated: None };
            let left = leave_pid_namespace(pid_namespace_of.is_some());
            // What it has begun to say is there as a whole soon.
            let limited = birth.sync.set_read_timeout(Some(MESSAGE_LIMIT)).attempt(|| "wait for the child");
            if let Err(failure) = left.and(limited) {
                birth.kill();
                return Err(failure);
            }
            Ok(birth)
        }
        Err(failure) => {
            leave_pid_namespace(pid_namespace_of.is_some())?;
            Err(failure)
        }
    }
}

fn leave_pid_namespace(entered: bool) -> Result<(), Failed> {
    if !entered {
        return Ok(());
    }
    let what = || "leave the PID namespace";
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(what)?;
    let kind = Some(rustix::thread::LinkNameSpaceType::ProcessID);
    rustix::thread::move_into_link_name_space(own.as_fd(), kind).attempt(what)
}

/// Enters the cgroups of a v1 host. By thread ("0" into `tasks`), which takes no global lock in the kernel; this
/// process has one thread.
pub fn enter_cgroup(cgroup: &Cgroup) -> Result<(), Failed> {
    cgroup.tasks.iter().try_for_each(|path| {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(path.as_str(), flags, Mode::empty())
            .and_then(|file| rustix::io::write(file, b"0"))
            .map(drop)
            .attempt(|| format!("enter the cgroup {path}"))
    })
}

/// `is_first`: its terminal is the container's console.
fn finish(process: &Process, standard: [BorrowedFd<'_>; 3], is_first: bool, sync: &UnixStream) -> Result<std::convert::Infallible, Failed> {
    rustix::process::setsid().attempt(|| "start a session")?;
    sys::reset_signals();
    if process.tty {
        let (master, peer) = process::open_terminal()?;
        if is_first {
            mount_console(&peer)?;
        }
        socket::send(sync, &Response::from(Done {}), &[master.as_fd()]).attempt(|| "hand the terminal over")?;
        process::take_terminal(peer.as_fd())?;
    } else {
        for (target, fd) in (0..).zip(standard) {
            sys::install_standard(fd, target).attempt(|| "install the standard streams")?;
        }
        process::take_own_null_device()?;
    }
    // Closed, not marked: until exec, paths of the image are opened, and /proc/self/fd/N is one.
    sys::close_all_but(sync, 3).attempt(|| "close what is ours")?;
    process::become_program(process)
}
