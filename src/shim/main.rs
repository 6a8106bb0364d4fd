//! `podbay-shim`: one small process a pod. (Or, as `lone`, what starts one container without a pod, for `podbay oci`.)
//!
//! It holds the pod's namespaces (no pause container), is the parent of the pod's containers and of what they
//! leave behind, writes their logs and exit records, and outlives the agent, which finds it again by its
//! socket. When it dies its containers die.
//!
//! ```text
//!  engine ──stdin: Init──► podbay-shim ──fork──► the shim (session of its own, pod's cgroup and namespaces)
//!                             │ exits             │ shim.sock: Run, Exec, Join, Kill, List, Watch, …
//!                             ▼                   ├─ log writer      (may block on the disk)
//!                             │                   ├─ delegate        (another OCI runtime's commands)
//!                      stdout: Hello│Failed       ├─ pod's init      (shared PID namespace only)
//!                                                 └─ containers      (launch: fork, steps, exec)
//! ```
//!
//! One thread, so that fork is safe at any moment. Not linked with the engine: they share `wire`, `socket`, `account`,
//! `log_file`, `memory`, `resident`, `mount` and `inside`.

mod account;
mod attach;
mod copy;
mod delegate;
mod init;
#[path = "../inside.rs"]
mod inside;
mod launch;
mod log;
mod log_file;
mod lone;
mod memory;
#[path = "mount/sys.rs"]
mod mount;
mod process;
#[path = "resident/sys.rs"]
mod resident;
mod rest;
mod serve;
mod socket;
mod step;
mod sys;
mod users;
#[allow(dead_code, reason = "the engine uses the rest")]
mod wire;
mod writer;

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::{Mode, OFlags};

use crate::serve::{Shim, State};
use crate::step::{Attempt, refuse};
use crate::users::{Founder, Users, write_sysctl};
use crate::wire::{Failed, Init, Response, Wire};

fn main() {
    // A pod's title has a slash in it.
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("lone") {
        let (socket, more) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        sys::exit_now(lone::run(&socket, &more));
    }
    sys::close_from(3);
    let result = start();
    let code = match result {
        Ok(()) => 0,
        Err(failure) => {
            reply(&failure.into());
            1
        }
    };
    sys::exit_now(code);
}

/// Answers the engine that started us; it may be gone.
fn reply(response: &Response) {
    let mut bytes = vec![0; 4];
    response.put(&mut bytes);
    let length = u32::try_from(bytes.len() - 4).unwrap_or(0);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    rustix::io::write(rustix::stdio::stdout(), &bytes).ok();
}

/// Returns in the process the engine started, and when the shim's work is over.
fn start() -> Result<(), Failed> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).attempt(|| "read what to do")?;
    let init = Init::from_bytes(&bytes).map_err(|error| refuse("read what to do", error.to_string()))?;
    drop(bytes);
    // The shim proper is nobody's child: it is to be there when the engine is not.
    if let sys::Side::Parent { .. } = sys::fork(0, None).attempt(|| "fork")? {
        return Ok(());
    }
    let shim = prepare(&init)?;
    reply(&serve::hello().into());
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open /dev/null")?;
    for target in 0..3 {
        sys::install_standard(null.as_fd(), target).attempt(|| "let go of the standard streams")?;
    }
    drop(null);
    drop(init);
    shim.serve()
}

fn prepare(init: &Init) -> Result<Shim, Failed> {
    rustix::process::setsid().attempt(|| "start a session")?;
    // It was started from a descriptor, whose number would be its name.
    rustix::thread::set_name(c"podbay-shim").ok();
    rustix::process::chdir("/").attempt(|| "change to /")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    launch::enter_cgroup(&init.cgroup)?;
    if !init.cgroup.unified.is_empty() {
        let path = format!("{}/cgroup.procs", init.cgroup.unified);
        std::fs::write(&path, "0").attempt(|| format!("enter the cgroup {}", init.cgroup.unified))?;
    }
    // Better than ours is denied without CAP_SYS_RESOURCE: then it stays as it is.
    std::fs::write("/proc/self/oom_score_adj", init.oom_score_adj.to_string()).ok();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).attempt(|| "become a subreaper")?;
    let signals = catch_signals()?;
    let listener = listen(&init.directory)?;
    let users = namespaces(init)?;
    let shared_pid = if init.shared_pid { Some(init::start(users.as_ref())?) } else { None };
    // Our own memory and files are no business of a container that shares our user; children inherit it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).attempt(|| "become not dumpable")?;
    Ok(Shim { listener, signals, shared_pid, users, state: State::default() })
}

fn catch_signals() -> Result<SignalFd, Failed> {
    let what = || "catch signals";
    // A shim ends by a command, or with the host: a person's `killall -TERM` must not take pods down.
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGCHLD] {
        ignored.add(signal);
    }
    ignored.thread_block().attempt(what)?;
    // The second for one sender: see `Shim::hear_signals`.
    let mut heard = SigSet::empty();
    heard.add(Signal::SIGCHLD);
    heard.add(Signal::SIGTERM);
    SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).attempt(what)
}

fn listen(directory: &str) -> Result<UnixListener, Failed> {
    let what = || format!("listen in {directory}");
    socket::by_short_name(&Path::new(directory).join("shim.sock"), UnixListener::bind).attempt(what)
}

/// The pod's namespaces, and what is set in them.
fn namespaces(init: &Init) -> Result<Option<Users>, Failed> {
    let mut flags = CloneFlags::empty();
    if init.new_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if init.new_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    // Whoever may set a name sets the pod's, if it was given one or not.
    if init.new_network || !init.hostname.is_empty() {
        flags |= CloneFlags::CLONE_NEWUTS;
    }
    let founded = match &init.users {
        Some(range) => Some(users::found(range, flags)?),
        None => unshare(flags).attempt(|| "make the pod's namespaces").map(|()| None)?,
    };
    if !init.hostname.is_empty() {
        nix::unistd::sethostname(&init.hostname).attempt(|| format!("set the host name {}", init.hostname))?;
    }
    if init.new_network {
        loopback_up()?;
    }
    for (name, value) in &init.optional_sysctls {
        write_sysctl(name, value).ok();
    }
    let Some((users, founder)) = founded else {
        return init.sysctls.iter().try_for_each(|(name, value)| write_sysctl(name, value)).map(|()| None);
    };
    // By one in it: what they are of is not ours.
    Founder::finish(founder, &init.sysctls)?;
    Ok(Some(users))
}

fn loopback_up() -> Result<(), Failed> {
    let what = || "bring the loopback interface up";
    let kind = rustix::net::SocketType::DGRAM;
    let socket = rustix::net::socket_with(rustix::net::AddressFamily::INET, kind, rustix::net::SocketFlags::CLOEXEC, None).attempt(what)?;
    sys::loopback_up(socket.as_fd()).attempt(what)
}
