//! Attends to another OCI runtime (runc, crun) while it starts a process: a child of the shim runs its commands, and
//! what they have started becomes the shim's own child, because the shim is the subreaper.

use std::ffi::CString;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Signal, WaitOptions};

use crate::step::{Attempt, carry_out, refuse};
use crate::users::Users;
use crate::wire::{Commands, Done, Failed, Response, Started, Step};
use crate::{socket, sys};

/// As much of what a runtime says is passed on.
const WORDS: u64 = 4096;

/// In the child. Returns only with the reason why not.
pub fn attend(
    commands: &Commands,
    steps: &[Step],
    users: Option<&Users>,
    standard: [BorrowedFd<'_>; 3],
    sync: &std::os::unix::net::UnixStream,
) -> Result<std::convert::Infallible, Failed> {
    rustix::process::setsid().attempt(|| "start a session")?;
    sys::reset_signals();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).attempt(|| "tie it to its shim")?;
    carry_out(steps, users)?;
    users.map_or(Ok(()), |users| users.hand_over(&standard))?;
    for (target, fd) in (0..).zip(standard) {
        sys::install_standard(fd, target).attempt(|| "install the standard streams")?;
    }
    let console = if commands.console.is_empty() {
        None
    } else {
        // The runtime is given the name alone.
        rustix::process::chdir(commands.console.as_str()).attempt(|| format!("change to {}", commands.console))?;
        Some(listen(&commands.console)?)
    };
    commands.all.iter().try_for_each(|command| run(command, &commands.log))?;
    if let Some(console) = console {
        let master = take(&console).attempt(|| "take the terminal over")?;
        socket::send(sync, &Response::from(Done {}), &[master.as_fd()]).attempt(|| "hand the terminal over")?;
    }
    let text = std::fs::read_to_string(&commands.pid_file).attempt(|| format!("read {}", commands.pid_file))?;
    let pid = text.trim().parse().map_err(|_| refuse(format!("read {}", commands.pid_file), "it holds no number"))?;
    socket::send(sync, &Response::from(Started { pid, at_ns: 0 }), &[]).attempt(|| "tell the shim")?;
    sys::exit_now(0)
}

/// The socket `tty` of the working directory, whose path may be longer than a socket's may be.
fn listen(directory: &str) -> Result<UnixListener, Failed> {
    let what = || format!("listen in {directory}");
    // Left by one that failed.
    std::fs::remove_file("tty").ok();
    let listener = UnixListener::bind("tty").attempt(what)?;
    listener.set_nonblocking(true).attempt(what)?;
    Ok(listener)
}

/// The runtime has ended, so what it has handed over is there.
fn take(console: &UnixListener) -> std::io::Result<OwnedFd> {
    let (stream, _) = console.accept()?;
    stream.set_nonblocking(true)?;
    // Whatever is written along with it: that is the terminal's name.
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let found = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut received) => received.next(),
        _ => None,
    });
    found.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

fn run(command: &[String], log: &str) -> Result<(), Failed> {
    let what = || format!("run {}", command.first().map_or("", String::as_str));
    // What stands there is another command's.
    std::fs::remove_file(log).ok();
    let strings = command.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>();
    let Ok(strings) = strings else { return Err(refuse(what(), "a NUL byte in an argument")) };
    let Some(program) = strings.first() else { return Err(refuse(what(), "there is no program")) };
    let path = [c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    match sys::fork(0, None).attempt(what)? {
        sys::Side::Child => {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
            let error = sys::execve(program, &strings, &path);
            sys::exit_now(if error.raw_os_error() == Some(nix::libc::ENOENT) { 127 } else { 126 })
        }
        sys::Side::Parent { pid, .. } => {
            let ended = rustix::process::waitpid(rustix::process::Pid::from_raw(pid), WaitOptions::empty()).attempt(what)?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                Some(127) => Err(refuse(what(), "there is no such program")),
                Some(code) => Err(refuse(what(), last_words(log).unwrap_or_else(|| format!("exit code {code}")))),
                None => Err(refuse(what(), "a signal ended it")),
            }
        }
    }
}

/// The last line of the runtime's log, as it stands there.
fn last_words(log: &str) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let from = file.metadata().ok()?.len().saturating_sub(WORDS);
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(WORDS).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
