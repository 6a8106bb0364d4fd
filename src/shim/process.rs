//! From a fresh child to the container's program: who it runs as, what it may do, and exec.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::account::{Account, resolve};
use crate::step::{Attempt, make_directories, open_directory, refuse};
use crate::sys;
use crate::wire::{Failed, Process, Sets, User};

/// An account file of a container is read up to this size.
const ACCOUNTS_LIMIT: usize = 1 << 20;

/// linux/magic.h: DEVPTS_SUPER_MAGIC.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Writes `/proc/self/oom_score_adj` of the host's /proc, so before the root changes. A lower score than ours
/// needs CAP_SYS_RESOURCE: without it the process keeps what it has.
pub fn set_oom_score(process: &Process) -> Result<(), Failed> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.attempt(|| "set the OOM score"),
    }
}

/// Has AppArmor confine what this process executes next. By the host's /proc, so before the root changes.
pub fn set_label(process: &Process) -> Result<(), Failed> {
    if process.apparmor.is_empty() {
        return Ok(());
    }
    let order = format!("exec {}", process.apparmor);
    // The second is where kernels before 5.8 have it.
    let written = std::fs::write("/proc/self/attr/apparmor/exec", &order).or_else(|_| std::fs::write("/proc/self/attr/exec", &order));
    written.attempt(|| format!("confine it by the AppArmor profile {}", process.apparmor))
}

/// Becomes the program. Inside the container's root. Returns only with the reason why not.
pub fn become_program(process: &Process) -> Result<std::convert::Infallible, Failed> {
    let account = become_user(process)?;
    Err(execute(process, &account))
}

/// Becomes who it is to be, and gives up what that one may not do: what is left is to execute something.
pub fn become_user(process: &Process) -> Result<Account, Failed> {
    let account = account(&process.user)?;
    if process.user.non_root && account.uid == 0 {
        return Err(refuse("start the container", "it must not run as root, and its user is uid 0"));
    }
    set_limits(process)?;
    if let Some(umask) = process.umask {
        rustix::process::umask(Mode::from_raw_mode(umask));
    }
    give_streams(&account);
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    // Working directories of images are often missing, or closed to the user they name.
    make_directories(cwd).attempt(|| format!("make the working directory {cwd}"))?;
    let entered = enter(cwd);
    // Without no_new_privs only a privileged process may load a filter, so it comes before the privileges go.
    if !process.no_new_privs && !process.seccomp.is_empty() {
        sys::seccomp(&process.seccomp).attempt(|| "load the seccomp filter")?;
    }
    drop_privileges(process, &account)?;
    if entered.is_err() {
        enter(cwd)?;
    }
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).attempt(|| "set no_new_privs")?;
        if !process.seccomp.is_empty() {
            sys::seccomp(&process.seccomp).attempt(|| "load the seccomp filter")?;
        }
    }
    Ok(account)
}

/// The standard streams belong to the user who is to open `/dev/stdout`. Those of others (a device, a file) stay theirs.
fn give_streams(account: &Account) {
    let is_ours = |kind: FileType, device: u64| match kind {
        FileType::Fifo => true,
        // A terminal of a devpts.
        FileType::CharacterDevice => (136..144).contains(&rustix::fs::major(device)),
        _ => false,
    };
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        if stat.st_uid != account.uid && is_ours(FileType::from_raw_mode(stat.st_mode), stat.st_rdev) {
            // One that cannot be given can still be written to.
            rustix::fs::fchown(fd, Some(Uid::from_raw(account.uid)), None).ok();
        }
    }
}

/// Replaces the host's /dev/null by the container's own: on a read-only mount, so that nobody changes its mode.
pub fn take_own_null_device() -> Result<(), Failed> {
    let is_null = |fd: BorrowedFd<'_>| {
        let stat = rustix::fs::fstat(fd);
        stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice && s.st_rdev == rustix::fs::makedev(1, 3))
    };
    let mut own = None;
    for (target, fd) in (0..).zip([rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]) {
        if !is_null(fd) {
            continue;
        }
        if own.is_none() {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            own = rustix::fs::openat2(CWD, "/dev/null", flags, Mode::empty(), resolve).ok().filter(|fd| is_null(fd.as_fd()));
        }
        // Only a volume over /dev takes it away, and that has the host's nodes or none.
        if let Some(own) = &own {
            sys::install_standard(own.as_fd(), target).attempt(|| "open /dev/null")?;
        }
    }
    Ok(())
}

/// Changes the working directory; not by way of another process or a descriptor, and not out of the container.
fn enter(path: &str) -> Result<(), Failed> {
    let what = || format!("change to the working directory {path}");
    rustix::process::fchdir(open_directory(path).attempt(what)?).attempt(what)?;
    if sys::is_inside_root().attempt(what)? { Ok(()) } else { Err(refuse(what(), "it is outside of the container")) }
}

fn set_limits(process: &Process) -> Result<(), Failed> {
    for limit in &process.rlimits {
        // The hard limit can only be raised with CAP_SYS_RESOURCE.
        let hard = limit.hard.min(sys::hard_rlimit(limit.resource));
        sys::set_rlimit(limit.resource, limit.soft.min(hard), hard).attempt(|| format!("set resource limit {}", limit.resource))?;
    }
    Ok(())
}

fn drop_privileges(process: &Process, account: &Account) -> Result<(), Failed> {
    let have = rustix::thread::capabilities(None).attempt(|| "read the capabilities")?;
    let want = CapabilitySet::from_bits_retain(process.capabilities);
    // While CAP_SETPCAP is still there.
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if want.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            result => result.attempt(|| format!("drop capability {bit}"))?,
        }
    }
    let groups: Vec<Gid> = account.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).attempt(|| "set the supplementary groups")?;
    let gid = Gid::from_raw(account.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).attempt(|| format!("become group {}", account.gid))?;
    let uid = Uid::from_raw(account.uid);
    if process.sets.is_some() {
        // Whoever has sets of its own keeps them as another user.
        rustix::thread::set_keep_capabilities(true).attempt(|| "keep the capabilities")?;
    }
    rustix::thread::set_thread_res_uid(uid, uid, uid).attempt(|| format!("become user {}", account.uid))?;
    match &process.sets {
        Some(sets) => take_sets(sets, have.permitted)?,
        None => {
            let kept = if account.uid == 0 { want & have.permitted } else { CapabilitySet::empty() };
            let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
            rustix::thread::set_capabilities(None, sets).attempt(|| "set the capabilities")?;
        }
    }
    if process.free {
        return Ok(());
    }
    // A change of credentials clears it, so last: the container does not outlive its shim.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).attempt(|| "tie it to its shim")
}

/// What is not had cannot be given.
fn take_sets(sets: &Sets, have: CapabilitySet) -> Result<(), Failed> {
    let what = || "set the capabilities";
    let of = |bits: u64| CapabilitySet::from_bits_retain(bits) & have;
    let all = CapabilitySets { effective: of(sets.effective), permitted: of(sets.permitted), inheritable: of(sets.inheritable) };
    rustix::thread::set_capabilities(None, all).attempt(what)?;
    rustix::thread::set_keep_capabilities(false).attempt(what)?;
    for bit in (0..64).filter(|bit| sets.ambient & (1 << bit) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if have.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true).attempt(what)?;
        }
    }
    Ok(())
}

/// Opens the standard descriptors as a terminal's, and makes it the session's.
pub fn take_terminal(peer: BorrowedFd<'_>) -> Result<(), Failed> {
    use_terminal(peer)?;
    rustix::process::ioctl_tiocsctty(peer).attempt(|| "make the terminal its own")
}

/// Opens the standard descriptors as a terminal's.
pub fn use_terminal(peer: BorrowedFd<'_>) -> Result<(), Failed> {
    (0..3).try_for_each(|target| sys::install_standard(peer, target).attempt(|| "open the terminal"))
}

/// A terminal of the container's own devpts: (our side, its side). Links on the way are refused, and what is no devpts
/// as well: a volume may lie over /dev.
pub fn open_terminal() -> Result<(OwnedFd, OwnedFd), Failed> {
    let what = || "open a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = rustix::fs::openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), resolve).attempt(what)?;
    if rustix::fs::fstatfs(&master).attempt(what)?.f_type as u64 != DEVPTS_MAGIC {
        return Err(refuse(what(), "there is no devpts at /dev/pts"));
    }
    rustix::pty::unlockpt(&master).attempt(what)?;
    // Not by a name, which the container could have given to something else.
    let peer = sys::terminal_peer(master.as_fd()).attempt(what)?;
    Ok((master, peer))
}

fn execute(process: &Process, account: &Account) -> Failed {
    let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
        return refuse("start the container", "no command is given");
    };
    let strings = |all: &[String]| all.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
    let mut env = process.env.clone();
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(format!("HOME={}", account.home));
    }
    let (Ok(args), Ok(variables)) = (strings(&process.args), strings(&env)) else {
        return refuse("start the container", "a NUL byte in an argument or variable");
    };
    let candidates = candidates(program, &env);
    let mut failure = io::Error::from_raw_os_error(nix::libc::ENOENT);
    for candidate in &candidates {
        let Ok(candidate) = CString::new(candidate.as_str()) else { continue };
        let error = sys::execve(&candidate, &args, &variables);
        match error.raw_os_error() {
            Some(nix::libc::ENOENT | nix::libc::ENOTDIR) => {}
            // A file that may not be executed: another may still be found.
            Some(nix::libc::EACCES) => failure = error,
            _ => {
                failure = error;
                break;
            }
        }
    }
    not_executed(program, failure)
}

/// Where the program may be.
fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
}

fn not_executed(program: &str, failure: io::Error) -> Failed {
    let what = || format!("execute {program:?}");
    match failure.raw_os_error() {
        Some(nix::libc::ENOENT) if !program.contains('/') => {
            Failed { attempt: what(), cause: "executable file not found in $PATH".into(), errno: nix::libc::ENOENT }
        }
        _ => Err::<(), _>(failure).attempt(what).err().unwrap_or_default(),
    }
}

/// Whether there is something to execute, before anybody waits for it to be started.
pub fn find(process: &Process) -> Result<(), Failed> {
    let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
        return Err(refuse("start the container", "no command is given"));
    };
    let cwd = std::path::Path::new(if process.cwd.is_empty() { "/" } else { &process.cwd });
    let mut failure = io::Error::from_raw_os_error(nix::libc::ENOENT);
    for candidate in candidates(program, &process.env) {
        match std::fs::metadata(cwd.join(candidate)) {
            Ok(found) if found.is_file() && std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 != 0 => return Ok(()),
            Ok(_) => failure = io::Error::from_raw_os_error(nix::libc::EACCES),
            Err(_) => {}
        }
    }
    Err(not_executed(program, failure))
}

/// Reads an account file of the container: a regular file, up to a bound, else nothing.
fn read_accounts(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    let Ok(file) = opened else { return String::new() };
    match rustix::fs::fstat(&file) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
        _ => return String::new(),
    }
    let mut bytes = Vec::new();
    let limited = io::Read::take(std::fs::File::from(file), ACCOUNTS_LIMIT as u64);
    let mut limited = limited;
    match io::Read::read_to_end(&mut limited, &mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn account(user: &User) -> Result<Account, Failed> {
    let numbers_only = user.uid == Some(0) && user.gid == Some(0) && user.name.is_empty();
    let (passwd, group) =
        if numbers_only { (String::new(), String::new()) } else { (read_accounts("/etc/passwd"), read_accounts("/etc/group")) };
    resolve(user, &passwd, &group)
}
