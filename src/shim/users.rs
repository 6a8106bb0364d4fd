//! The pod's user namespace: root in the pod is an ordinary user of the host, whose files and processes are nobody's else.
//!
//! The shim stays outside. It holds the namespace by a descriptor and sends each process of the pod into it at the end of
//! its way, when everything is mounted: in the mount namespace that process then makes, whatever was mounted before is
//! locked, so that nothing hidden from the container can be uncovered, and nothing read-only be made writable, in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Gid, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, ThreadNameSpaceType};

use crate::step::{Attempt, refuse};
use crate::wire::{Failed, IdRange};
use crate::{mount, socket, sys};

/// A user namespace whose ids are this range of the host's.
pub struct Users {
    pub namespace: OwnedFd,
    pub range: IdRange,
}

/// Its first process: makes the namespaces that belong to it, and sets what only it may set there.
pub struct Founder {
    socket: UnixStream,
    pid: i32,
}

/// What a founder is told to do.
type Sysctls = Vec<(String, String)>;

/// Makes a user namespace and, in it, the namespaces of `flags`, which this process enters.
pub fn found(range: &IdRange, flags: CloneFlags) -> Result<(Users, Founder), Failed> {
    let what = || "make the pod's user namespace";
    if range.host == 0 || range.length == 0 || range.host.checked_add(range.length).is_none() {
        return Err(refuse(what(), format!("{} ids from {} on are no range for a pod", range.length, range.host)));
    }
    let (ours, theirs) = UnixStream::pair().attempt(what)?;
    let (pid, pidfd) = match sys::fork(libc::CLONE_NEWUSER as u64, None).attempt(what)? {
        sys::Side::Parent { pid, pidfd } => (pid, pidfd),
        sys::Side::Child => {
            drop(ours);
            live(&theirs, flags);
            sys::exit_now(0)
        }
    };
    drop(theirs);
    let founder = Founder { socket: ours, pid };
    let line = format!("0 {} {}\n", range.host, range.length);
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), &line).attempt(|| format!("map {} ids from {} on", range.length, range.host))?;
    }
    founder.order(&Sysctls::new())?;
    let path = format!("/proc/{pid}/ns/user");
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).attempt(what)?;
    let types = ThreadNameSpaceType::from_bits_retain(u32::try_from(flags.bits()).unwrap_or(0));
    if !types.is_empty() {
        rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), types).attempt(|| "enter the pod's namespaces")?;
    }
    Ok((Users { namespace, range: range.clone() }, founder))
}

impl Founder {
    fn order(&self, sysctls: &Sysctls) -> Result<(), Failed> {
        let what = || "found the pod's namespaces";
        socket::send(&self.socket, sysctls, &[]).attempt(what)?;
        let (outcome, _) = socket::receive::<Failed>(&self.socket).attempt(what)?;
        if outcome == Failed::default() { Ok(()) } else { Err(outcome) }
    }

    /// Sets what is the pod's own; nothing more is asked of it.
    pub fn finish(self, sysctls: &Sysctls) -> Result<(), Failed> {
        let done = self.order(sysctls);
        drop(self.socket);
        rustix::process::waitpid(rustix::process::Pid::from_raw(self.pid), WaitOptions::empty()).ok();
        done
    }
}

/// The founder's life: it answers twice, with an empty failure where all went well.
fn live(socket: &UnixStream, flags: CloneFlags) {
    let mut first = true;
    while let Ok((sysctls, _)) = socket::receive::<Sysctls>(socket) {
        let done = if std::mem::take(&mut first) {
            become_root().and_then(|()| unshare(flags).attempt(|| "make the pod's namespaces"))
        } else {
            sysctls.iter().try_for_each(|(name, value)| write_sysctl(name, value))
        };
        if socket::send(socket, &done.err().unwrap_or_default(), &[]).is_err() {
            return;
        }
    }
}

/// Sets a sysctl of the namespaces this process is in.
pub fn write_sysctl(name: &str, value: &str) -> Result<(), Failed> {
    std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).attempt(|| format!("set {name}={value}"))
}

/// Root of the namespace this process is in. It keeps its capabilities there.
fn become_root() -> Result<(), Failed> {
    let what = || "become root of the pod";
    rustix::thread::set_thread_groups(&[]).attempt(what)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).attempt(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).attempt(what)
}

impl Users {
    /// Goes in for good; `flags`: namespaces to make there.
    pub fn enter(&self, standard: &[BorrowedFd<'_>], flags: CloneFlags) -> Result<(), Failed> {
        let (uid, gid) = (Uid::from_raw(self.range.host), Gid::from_raw(self.range.host));
        for fd in standard {
            // A pipe of ours is to be opened by its name (/dev/stdout): somebody in the pod has to own it.
            if rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo) {
                rustix::fs::fchown(fd, Some(uid), Some(gid)).attempt(|| "hand the standard streams over")?;
            }
        }
        let what = || "enter the pod's user namespace";
        rustix::thread::move_into_thread_name_spaces(self.namespace.as_fd(), ThreadNameSpaceType::USER).attempt(what)?;
        become_root()?;
        unshare(flags).attempt(what)
    }

    /// What this process makes from now on in file systems belongs to the pod's root. It gives up nothing.
    pub fn make_files_as_root(&self) -> Result<(), Failed> {
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(self.range.host));
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(self.range.host));
        let what = || "make files for the pod's root";
        let mut sets = rustix::thread::capabilities(None).attempt(what)?;
        sets.effective = sets.permitted & CapabilitySet::all();
        rustix::thread::set_capabilities(None, sets).attempt(what)
    }

    /// Shows the files of a mount, which nothing else sees yet, with the pod's ids.
    pub fn map(&self, mount: BorrowedFd<'_>, path: &str) -> Result<(), Failed> {
        let what = || format!("show {path} with the pod's ids");
        match mount::id_map(mount, self.namespace.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(refuse(what(), "its file system, or this kernel, cannot map ids: it is no volume for a pod with `hostUsers: false`"))
            }
            result => result.attempt(what),
        }
    }
}
