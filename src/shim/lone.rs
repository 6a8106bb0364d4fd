//! A container without a pod (`podbay oci`): this program is started for it, makes its namespaces, leaves its first
//! process behind and ends. The process belongs to whoever reaps here: conmon, containerd's shim.
//!
//! ```text
//!  podbay oci create ──Lone──► this program: cgroup, namespaces ──fork──► first process
//!                    ◄─Started─┘ ends                                     │
//!                    hooks ──Go──►                                        │ steps, hooks, new root
//!                    ◄─────────────────────────────Done───────────────────┤
//!  podbay oci start ──Go──► start.sock                                    │ hooks, privileges, exec
//! ```

use std::convert::Infallible;
use std::ffi::CString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::WaitOptions;
use rustix::thread::LinkNameSpaceType;

use crate::step::{Attempt, carry_out_before, mount_console, refuse};
use crate::users::write_sysctl;
use crate::wire::{Cgroup, Done, Failed, Go, Hook, Lone, Process, Response, Started};
use crate::{loopback_up, memory, process, socket, sys};

/// Between two looks at a hook that has not ended.
const LOOK: Duration = Duration::from_millis(2);
const NEW_NETWORK: u32 = nix::libc::CLONE_NEWNET as u32;
const NEW_PID: u32 = nix::libc::CLONE_NEWPID as u32;
const NEW_MOUNT: u32 = nix::libc::CLONE_NEWNS as u32;

/// Returns this program's exit code.
pub fn run(number: &str) -> i32 {
    let Ok(number) = number.parse::<i32>() else { return 2 };
    let sync = sys::inherited_socket(number);
    // Whatever else somebody left open for this program is none of the container's.
    if sys::close_all_but(&sync).is_err() {
        return 2;
    }
    match begin(&sync) {
        Ok(None) => 0,
        Ok(Some(pid)) => {
            // That it closes tells of the command's exec.
            drop(sync);
            let ended = rustix::process::waitpid(rustix::process::Pid::from_raw(pid), WaitOptions::empty()).ok().flatten();
            ended.map_or(1, |(_, status)| status.exit_status().unwrap_or(128 + status.terminating_signal().unwrap_or(0)))
        }
        Err(failure) => {
            socket::send(&sync, &Response::from(failure), &[]).ok();
            1
        }
    }
}

/// Returns the process to wait for, if there is one.
fn begin(sync: &UnixStream) -> Result<Option<i32>, Failed> {
    rustix::io::fcntl_setfd(sync, rustix::io::FdFlags::CLOEXEC).attempt(|| "take the socket over")?;
    // Neither this program nor what it has open is for those whose namespaces it enters, until it becomes another.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).attempt(|| "become not dumpable")?;
    let (lone, fds) = socket::receive::<Lone>(sync).attempt(|| "read what to do")?;
    let mut fds = fds.into_iter();
    let namespaces = open_namespaces(&lone, &mut fds)?;
    let console = fds.next();
    process::set_oom_score(&lone.launch.process)?;
    // Before the mounts change; its path may be longer than a socket's may be.
    let listener = if lone.directory.is_empty() { None } else { Some(listen(&lone.directory)?) };
    let doors = doors(&lone.launch.cgroup)?;
    if listener.is_some() {
        // Before its cgroup namespace is made, which begins there.
        enter(&doors)?;
    }
    join(namespaces)?;
    match sys::fork(u64::from(lone.new), None).attempt(|| "make the container's namespaces")? {
        sys::Side::Child => {
            let lived = || match listener {
                Some(listener) => live(&lone, sync, listener, console),
                // Whoever waits for a command is none of the container's processes.
                None => enter(&doors).and_then(|()| become_it(&lone, sync, console.as_ref())),
            };
            let Err(failure) = lived();
            socket::send(sync, &Response::from(failure), &[]).ok();
            sys::exit_now(127)
        }
        sys::Side::Parent { pid, .. } => {
            socket::send(sync, &Response::from(Started { pid, at_ns: 0 }), &[]).attempt(|| "say that it runs")?;
            Ok(lone.stay.then_some(pid))
        }
    }
}

/// The files by which the container's cgroups are entered: opened while paths are the host's.
fn doors(cgroup: &Cgroup) -> Result<Vec<OwnedFd>, Failed> {
    let unified = Some(&cgroup.unified).filter(|path| !path.is_empty()).map(|path| format!("{path}/cgroup.procs"));
    let open = |path: String| {
        let opened = rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        opened.attempt(|| format!("open the cgroup {path}"))
    };
    cgroup.tasks.iter().cloned().chain(unified).map(open).collect()
}

fn enter(doors: &[OwnedFd]) -> Result<(), Failed> {
    doors.iter().try_for_each(|door| rustix::io::write(door, b"0").map(drop).attempt(|| "enter the container's cgroup"))
}

fn listen(directory: &str) -> Result<UnixListener, Failed> {
    let what = || format!("listen in {directory}");
    socket::by_short_name(&Path::new(directory).join("start.sock"), UnixListener::bind).attempt(what)
}

/// What to enter: (descriptor, path, kind). One without a path comes as a descriptor.
fn open_namespaces(lone: &Lone, given: &mut impl Iterator<Item = OwnedFd>) -> Result<Vec<(OwnedFd, String, u32)>, Failed> {
    let open = |(path, kind): &(String, u32)| {
        let what = || format!("open the namespace {path}");
        let opened = match path.is_empty() {
            true => given.next().ok_or_else(|| refuse(what(), "it did not come along")),
            false => rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(what),
        };
        opened.map(|fd| (fd, path.clone(), *kind))
    };
    lone.join.iter().map(open).collect()
}

/// The mount namespace, the last of them, changes what paths mean.
fn join(mut all: Vec<(OwnedFd, String, u32)>) -> Result<(), Failed> {
    all.sort_by_key(|(_, _, kind)| *kind == NEW_MOUNT);
    for (fd, path, kind) in &all {
        let kind = kinds().into_iter().find(|(bit, _)| bit == kind).map(|(_, kind)| kind);
        rustix::thread::move_into_link_name_space(fd.as_fd(), kind).attempt(|| format!("enter the namespace {path}"))?;
    }
    Ok(())
}

fn kinds() -> [(u32, LinkNameSpaceType); 6] {
    use nix::libc::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWUTS};
    [
        (NEW_NETWORK, LinkNameSpaceType::Network),
        (NEW_PID, LinkNameSpaceType::ProcessID),
        (NEW_MOUNT, LinkNameSpaceType::Mount),
        (CLONE_NEWIPC as u32, LinkNameSpaceType::InterProcessCommunication),
        (CLONE_NEWUTS as u32, LinkNameSpaceType::HostNameAndNISDomainName),
        (CLONE_NEWCGROUP as u32, LinkNameSpaceType::ControlGroup),
    ]
}

/// In the first process.
fn live(lone: &Lone, sync: &UnixStream, listener: UnixListener, console: Option<OwnedFd>) -> Result<Infallible, Failed> {
    let process = &lone.launch.process;
    let go = socket::receive::<Go>(sync).attempt(|| "wait for the hooks")?.0;
    if !lone.hostname.is_empty() {
        nix::unistd::sethostname(&lone.hostname).attempt(|| format!("set the host name {}", lone.hostname))?;
    }
    if !lone.domainname.is_empty() {
        std::fs::write("/proc/sys/kernel/domainname", &lone.domainname).attempt(|| format!("set the domain name {}", lone.domainname))?;
    }
    if lone.new & NEW_NETWORK != 0 {
        loopback_up()?;
    }
    lone.sysctls.iter().try_for_each(|(name, value)| write_sysctl(name, value))?;
    // The hooks see both the host's files and the container's.
    let (last, steps) = lone.launch.steps.split_last().ok_or_else(|| refuse("carry out the plan", "it is empty"))?;
    carry_out_before(steps, last, || hooks("createContainer", &lone.create_container, &go.state, None))?;
    process::find(process)?;
    let console = console.map(|console| give_terminal(&console, (lone.columns, lone.rows))).transpose()?;
    if let Some(terminal) = &console {
        mount_console(terminal)?;
    }
    socket::send(sync, &Response::from(Done {}), &[]).attempt(|| "say that it waits")?;
    // Whoever made it does not wait any longer.
    rustix::net::shutdown(sync, rustix::net::Shutdown::Both).ok();
    let what = || "wait to be started";
    let (starter, _) = listener.accept().attempt(what)?;
    drop(listener);
    let begun = || -> Result<Infallible, Failed> {
        let go = socket::receive::<Go>(&starter).attempt(what)?.0;
        hooks("startContainer", &lone.start_container, &go.state, Some(process))?;
        finish(process, &starter, console.as_ref())
    };
    let Err(failure) = begun();
    socket::send(&starter, &Response::from(failure), &[]).ok();
    sys::exit_now(127)
}

/// A command in a container that runs.
fn become_it(lone: &Lone, sync: &UnixStream, console: Option<&OwnedFd>) -> Result<Infallible, Failed> {
    let terminal = console.map(|console| give_terminal(console, (lone.columns, lone.rows))).transpose()?;
    finish(&lone.launch.process, sync, terminal.as_ref())
}

fn finish(process: &Process, sync: &UnixStream, terminal: Option<&OwnedFd>) -> Result<Infallible, Failed> {
    rustix::process::setsid().attempt(|| "start a session")?;
    sys::reset_signals();
    match terminal {
        Some(peer) => process::take_terminal(peer.as_fd())?,
        None => process::take_own_null_device()?,
    }
    sys::close_all_but(sync).attempt(|| "close what is ours")?;
    process::become_program(process)
}

/// Opens a terminal of the container's and hands our side over; returns its side.
fn give_terminal(console: &OwnedFd, (columns, rows): (u32, u32)) -> Result<OwnedFd, Failed> {
    let what = || "hand the terminal over";
    let (master, peer) = process::open_terminal()?;
    if let (Ok(ws_col), Ok(ws_row), true) = (u16::try_from(columns), u16::try_from(rows), columns > 0) {
        let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).attempt(what)?;
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    // The name is what runc sends along; its readers only show it.
    rustix::net::sendmsg(console, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL).attempt(what)?;
    Ok(peer)
}

fn hooks(kind: &str, all: &[Hook], state: &str, confined: Option<&Process>) -> Result<(), Failed> {
    all.iter().try_for_each(|hook| run_hook(kind, hook, state, confined))
}

/// `confined`: the program is the container's, so it may do what that one's process may.
fn run_hook(kind: &str, hook: &Hook, state: &str, confined: Option<&Process>) -> Result<(), Failed> {
    let what = || format!("run the {kind} hook {}", hook.path);
    let strings = |all: &[String]| all.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>();
    let own_name = std::slice::from_ref(&hook.path);
    let args = if hook.args.is_empty() { own_name } else { hook.args.as_slice() };
    let (Ok(args), Ok(env), Ok(path)) = (strings(args), strings(&hook.env), CString::new(hook.path.as_str())) else {
        return Err(refuse(what(), "a NUL byte in an argument or variable"));
    };
    let told = memory::file_of(state).attempt(what)?;
    match sys::fork(0, None).attempt(what)? {
        sys::Side::Child => {
            sys::reset_signals();
            // What it says is not the container's output.
            let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            let quiet = null.is_ok_and(|null| [1, 2].into_iter().all(|target| sys::install_standard(null.as_fd(), target).is_ok()));
            let ready = quiet && sys::install_standard(told.as_fd(), 0).is_ok();
            if ready && confined.is_none_or(|process| process::become_user(process).is_ok()) {
                sys::execve(&path, &args, &env);
            }
            sys::exit_now(127)
        }
        sys::Side::Parent { pid, pidfd } => wait_for_hook(hook, pid, &pidfd)
            .and_then(|code| if code == 0 { Ok(()) } else { Err(format!("exit code {code}")) })
            .map_err(|cause| refuse(what(), cause)),
    }
}

fn wait_for_hook(hook: &Hook, pid: i32, pidfd: &OwnedFd) -> Result<i32, String> {
    let begun = Instant::now();
    loop {
        match rustix::process::waitpid(rustix::process::Pid::from_raw(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Ok(status.exit_status().unwrap_or(128 + status.terminating_signal().unwrap_or(0))),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        if hook.timeout_seconds > 0 && begun.elapsed() >= Duration::from_secs(hook.timeout_seconds.into()) {
            sys::send_signal(pidfd.as_fd(), nix::libc::SIGKILL).ok();
            return Err(format!("it took longer than {} s", hook.timeout_seconds));
        }
        std::thread::sleep(LOOK);
    }
}
