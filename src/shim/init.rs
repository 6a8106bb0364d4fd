//! The first process of a pod's shared PID namespace. Every container of the pod sees it, and one with the capability to
//! trace others can look through its eyes, so it has nothing: an empty root, no descriptors, no capabilities, a user of
//! its own, and no system calls but those with which it reaps.

use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Gid, Uid, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::step::{Attempt, new_filesystem, refuse};
use crate::sys;
use crate::users::Users;
use crate::wire::Failed;

/// Nobody's, as the pause container's of Kubernetes.
const NOBODY: u32 = 65_535;

/// Starts it in a new PID namespace; it has let go of everything when this returns.
pub fn start(users: Option<&Users>) -> Result<(i32, OwnedFd), Failed> {
    let what = || "make the pod's PID namespace";
    let (ready, done) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(what)?;
    match sys::fork(libc::CLONE_NEWPID as u64, None).attempt(what)? {
        sys::Side::Parent { pid, pidfd } => {
            drop(done);
            match rustix::io::read(&ready, &mut [0; 1]) {
                Ok(1) => Ok((pid, pidfd)),
                _ => Err(refuse("start the pod's first process", "it could not give everything up")),
            }
        }
        sys::Side::Child => {
            let entered = users.map_or(Ok(()), |users| users.enter(&[], nix::sched::CloneFlags::empty()));
            if entered.and_then(|()| give_everything_up()).is_err() || rustix::io::write(&done, &[1]).is_err() {
                sys::exit_now(1);
            }
            sys::close_from(0);
            // Before the last door: the filter lets no descriptor be closed.
            if sys::seccomp(&filter()).is_err() {
                sys::exit_now(1);
            }
            reap()
        }
    }
}

fn reap() -> ! {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    loop {
        children.wait().ok();
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

fn give_everything_up() -> Result<(), Failed> {
    let what = || "give everything up";
    rustix::thread::set_name(c"podbay-init").ok();
    empty_root().attempt(what)?;
    for bit in 0..64 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Err(Errno::INVAL) => break,
            result => result.attempt(what)?,
        }
    }
    rustix::thread::set_thread_groups(&[]).attempt(what)?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    rustix::thread::set_thread_res_gid(gid, gid, gid).attempt(what)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).attempt(what)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).attempt(what)?;
    rustix::thread::set_no_new_privs(true).attempt(what)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).attempt(what)?;
    // A change of credentials clears it, so last.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).attempt(what)
}

fn empty_root() -> std::io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let options = [("size", "0"), ("nr_inodes", "2"), ("mode", "555")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let empty = new_filesystem("tmpfs", &options, u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()))?;
    // Any directory will do: nothing of this namespace stays.
    rustix::mount::move_mount(empty.as_fd(), "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&empty)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Waiting for a signal, waiting for children, ending: everything else is refused.
fn filter() -> Vec<u8> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const REFUSE: u32 = 0x0005_0001;
    // The architecture first: the numbers are those of this one.
    let native: u32 = if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };
    let allowed = [libc::SYS_rt_sigtimedwait, libc::SYS_wait4, libc::SYS_restart_syscall, libc::SYS_exit_group];
    let mut bytes = Vec::new();
    let mut put = |code: u16, jt: u8, jf: u8, k: u32| {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[jt, jf]);
        bytes.extend_from_slice(&k.to_ne_bytes());
    };
    put(LOAD, 0, 0, 4);
    put(JUMP_EQUAL, 1, 0, native);
    put(RETURN, 0, 0, REFUSE);
    put(LOAD, 0, 0, 0);
    for number in allowed {
        put(JUMP_EQUAL, 0, 1, u32::try_from(number).unwrap_or(u32::MAX));
        put(RETURN, 0, 0, ALLOW);
    }
    put(RETURN, 0, 0, REFUSE);
    bytes
}
