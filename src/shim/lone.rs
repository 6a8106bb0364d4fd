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

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::WaitOptions;
use rustix::thread::LinkNameSpaceType;

use crate::step::{Attempt, carry_out_before, mount_console, refuse};
use crate::users::{self, Users, write_sysctl};
use crate::wire::{Cgroup, Done, Failed, Go, Hook, IdMap, Lone, Process, Response, Started};
use crate::{loopback_up, memory, process, socket, sys};

/// Between two looks at a hook that has not ended.
const LOOK: Duration = Duration::from_millis(2);
const NEW_NETWORK: u32 = nix::libc::CLONE_NEWNET as u32;
const NEW_PID: u32 = nix::libc::CLONE_NEWPID as u32;
const NEW_MOUNT: u32 = nix::libc::CLONE_NEWNS as u32;
const NEW_USER: u32 = nix::libc::CLONE_NEWUSER as u32;
const NEW_CGROUP: u32 = nix::libc::CLONE_NEWCGROUP as u32;
/// What a user namespace of its own is to own: made in it.
const OWNED: u32 = NEW_NETWORK | nix::libc::CLONE_NEWIPC as u32 | nix::libc::CLONE_NEWUTS as u32;
/// The number of the first descriptor that is not standard.
const FIRST: u32 = 3;

/// `number`: of the socket; `more`: so many descriptors beside the standard ones are the container's. Returns this program's
/// exit code.
pub fn run(number: &str, more: &str) -> i32 {
    let (Ok(number), Ok(more)) = (number.parse::<i32>(), more.parse::<u32>()) else { return 2 };
    let first = FIRST.saturating_add(more);
    // Its own it gets above those.
    if u32::try_from(number).is_ok_and(|number| number < first) {
        return 2;
    }
    let sync = sys::inherited_socket(number);
    // Whatever else somebody left open for this program is none of the container's.
    if sys::close_all_but(&sync, first).is_err() {
        return 2;
    }
    match begin(&sync, first) {
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
fn begin(sync: &UnixStream, first: u32) -> Result<Option<i32>, Failed> {
    rustix::io::fcntl_setfd(sync, rustix::io::FdFlags::CLOEXEC).attempt(|| "take the socket over")?;
    // Neither this program nor what it has open is for those whose namespaces it enters, until it becomes another.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).attempt(|| "become not dumpable")?;
    let (mut lone, fds) = socket::receive::<Lone>(sync).attempt(|| "read what to do")?;
    let mut fds = fds.into_iter();
    let namespaces = open_namespaces(&lone, &mut fds)?;
    let console = fds.next();
    process::set_oom_score(&lone.launch.process)?;
    if lone.directory.is_empty() {
        // A command's: soon /proc is the container's.
        process::set_label(&lone.launch.process)?;
    }
    // Before the mounts change; its path may be longer than a socket's may be.
    let listener = if lone.directory.is_empty() { None } else { Some(listen(&lone.directory)?) };
    let doors = doors(&lone.launch.cgroup)?;
    if listener.is_some() {
        // Before its cgroup namespace is made, which begins there.
        enter(&doors)?;
    }
    let users = join(namespaces, &lone)?;
    let new_network = lone.new & NEW_NETWORK != 0;
    if let Some(users) = &users {
        lone.new &= !(OWNED | NEW_USER);
        lone.launch.steps.iter_mut().try_for_each(|step| users.translate(step))?;
    }
    match sys::fork(u64::from(lone.new), None).attempt(|| "make the container's namespaces")? {
        sys::Side::Child => {
            let own = Own { lone: &lone, users: users.as_ref(), console: console.as_ref(), new_network, first };
            let lived = || match listener {
                Some(listener) => own.live(sync, listener),
                // Whoever waits for a command is none of the container's processes.
                None => enter(&doors).and_then(|()| own.become_it(sync)),
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

/// Enters them all but a user namespace, which is for the container's process alone. Those of the host's processes and paths
/// are left last: until then it is asked for its ids.
fn join(mut all: Vec<(OwnedFd, String, u32)>, lone: &Lone) -> Result<Option<Users>, Failed> {
    let users = all.iter().position(|(_, _, kind)| *kind == NEW_USER).map(|at| all.swap_remove(at).0);
    all.sort_by_key(|(_, _, kind)| *kind == NEW_MOUNT);
    let (late, early): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, _, kind)| kind & (NEW_MOUNT | NEW_PID) != 0);
    early.iter().try_for_each(enter_namespace)?;
    let owned = CloneFlags::from_bits_truncate((lone.new & OWNED).cast_signed());
    let (users, founder) = match users {
        None if lone.new & NEW_USER == 0 => return late.iter().try_for_each(enter_namespace).map(|()| None),
        None => users::make(&lone.uids, &lone.gids, owned)?,
        Some(namespace) => users::join(&namespace, owned)?,
    };
    let sorted = |all: &[IdMap]| {
        let mut all = all.to_vec();
        all.sort_unstable_by_key(|map| map.inside);
        all
    };
    // A namespace that was joined has its ids already.
    if [(&lone.uids, &users.uids), (&lone.gids, &users.gids)].into_iter().any(|(said, had)| !said.is_empty() && sorted(said) != sorted(had))
    {
        return Err(refuse("enter the user namespace", "its ids are others than the bundle says"));
    }
    // Those only one in it may set; the others are set when the hooks have made what they are of.
    founder.finish(&lone.sysctls.iter().filter(|(name, _)| is_for_insiders(name)).cloned().collect())?;
    late.iter().try_for_each(enter_namespace).map(|()| Some(users))
}

fn is_for_insiders(sysctl: &str) -> bool {
    !sysctl.starts_with("net.") && !matches!(sysctl, "kernel.hostname" | "kernel.domainname")
}

fn enter_namespace((fd, path, kind): &(OwnedFd, String, u32)) -> Result<(), Failed> {
    let kind = kinds().into_iter().find(|(bit, _)| bit == kind).map(|(_, kind)| kind);
    rustix::thread::move_into_link_name_space(fd.as_fd(), kind).attempt(|| format!("enter the namespace {path}"))
}

fn kinds() -> [(u32, LinkNameSpaceType); 6] {
    use nix::libc::{CLONE_NEWIPC, CLONE_NEWUTS};
    [
        (NEW_NETWORK, LinkNameSpaceType::Network),
        (NEW_PID, LinkNameSpaceType::ProcessID),
        (NEW_MOUNT, LinkNameSpaceType::Mount),
        (CLONE_NEWIPC as u32, LinkNameSpaceType::InterProcessCommunication),
        (CLONE_NEWUTS as u32, LinkNameSpaceType::HostNameAndNISDomainName),
        (NEW_CGROUP, LinkNameSpaceType::ControlGroup),
    ]
}

/// What the container's process, or a command's, has of this program.
struct Own<'a> {
    lone: &'a Lone,
    users: Option<&'a Users>,
    console: Option<&'a OwnedFd>,
    new_network: bool,
    /// From here on descriptors are this program's.
    first: u32,
}

impl Own<'_> {
    /// In the first process.
    fn live(&self, sync: &UnixStream, listener: UnixListener) -> Result<Infallible, Failed> {
        let lone = self.lone;
        let process = &lone.launch.process;
        let go = socket::receive::<Go>(sync).attempt(|| "wait for the hooks")?.0;
        self.set()?;
        // The hooks see both the host's files and the container's. Those of the start are confined as the container is.
        let (last, steps) = lone.launch.steps.split_last().ok_or_else(|| refuse("carry out the plan", "it is empty"))?;
        carry_out_before(steps, last, self.users, || {
            hooks("createContainer", &lone.create_container, &go.state, None)?;
            process::set_label(process)
        })?;
        // The one it has had until now is the host's.
        let cgroup = if lone.new & NEW_CGROUP == 0 { CloneFlags::empty() } else { CloneFlags::CLONE_NEWCGROUP };
        self.enter_users(CloneFlags::CLONE_NEWNS | cgroup)?;
        process::find(process)?;
        let terminal = self.terminal()?;
        if let Some(terminal) = &terminal {
            mount_console(terminal)?;
            // Whoever made it reads what it was given until nobody has that open any more.
            process::use_terminal(terminal.as_fd())?;
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
            self.finish(&starter, terminal.as_ref())
        };
        let Err(failure) = begun();
        socket::send(&starter, &Response::from(failure), &[]).ok();
        sys::exit_now(127)
    }

    /// Names, the loopback interface, sysctls.
    fn set(&self) -> Result<(), Failed> {
        let lone = self.lone;
        if !lone.hostname.is_empty() {
            nix::unistd::sethostname(&lone.hostname).attempt(|| format!("set the host name {}", lone.hostname))?;
        }
        if !lone.domainname.is_empty() {
            let written = std::fs::write("/proc/sys/kernel/domainname", &lone.domainname);
            written.attempt(|| format!("set the domain name {}", lone.domainname))?;
        }
        if self.new_network {
            loopback_up()?;
        }
        let mut left = lone.sysctls.iter().filter(|(name, _)| self.users.is_none() || !is_for_insiders(name));
        left.try_for_each(|(name, value)| write_sysctl(name, value))
    }

    /// A command in a container that runs.
    fn become_it(&self, sync: &UnixStream) -> Result<Infallible, Failed> {
        self.enter_users(CloneFlags::empty())?;
        let terminal = self.terminal()?;
        self.finish(sync, terminal.as_ref())
    }

    /// Everything is mounted: what was, is locked in the mount namespace of its own that `flags` may name.
    fn enter_users(&self, flags: CloneFlags) -> Result<(), Failed> {
        let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        self.users.map_or(Ok(()), |users| users.enter(&standard, flags))
    }

    fn terminal(&self) -> Result<Option<OwnedFd>, Failed> {
        self.console.map(|console| give_terminal(console, (self.lone.columns, self.lone.rows))).transpose()
    }

    fn finish(&self, sync: &UnixStream, terminal: Option<&OwnedFd>) -> Result<Infallible, Failed> {
        rustix::process::setsid().attempt(|| "start a session")?;
        sys::reset_signals();
        match terminal {
            Some(peer) => process::take_terminal(peer.as_fd())?,
            None => process::take_own_null_device()?,
        }
        sys::close_all_but(sync, self.first).attempt(|| "close what is ours")?;
        process::become_program(&self.lone.launch.process)
    }
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
                sys::close_from(FIRST);
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
