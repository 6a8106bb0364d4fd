//! The calls of the engine that no crate wraps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::libc;
use rustix::mount::OpenTreeFlags;

use super::devices::Instruction;
use super::mount::id_map;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Beside what systemd may have attached above or here.
const ALLOW_MULTI: u32 = 2;
/// The kernel breaks off the check of a program when a signal comes.
const TRIES: usize = 5;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD` (linux/bpf.h); what follows is zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// bpf(2). Returns what the command returns.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes at `attributes`, a live `repr(C)` value without padding, and what its
    // pointers lead to, which the callers keep alive over the call; it takes fields beyond that size as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sends any signal, real-time ones too.
pub(super) fn signal(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: passes two numbers.
    let result = unsafe { libc::kill(pid, number) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tries a few times what only a signal keeps from being done.
fn again<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let passes = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
    let mut outcome = work();
    for _ in 1..TRIES {
        if !outcome.as_ref().is_err_and(passes) {
            break;
        }
        outcome = work();
    }
    outcome
}

/// Has the kernel check and take a program that decides on devices.
pub(super) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let descriptor = again(|| bpf(PROG_LOAD, &load))?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel has just made for us (close-on-exec, bpf(2)), and nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts a program on a cgroup (v2), where it stays until the cgroup is removed.
pub(super) fn attach_device_program(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    let number = |descriptor: BorrowedFd<'_>| u32::try_from(descriptor.as_raw_fd()).unwrap_or(u32::MAX);
    let attach = Attach { target: number(cgroup), program: number(program), kind: ATTACH_CGROUP_DEVICE, flags: ALLOW_MULTI };
    bpf(PROG_ATTACH, &attach).map(drop)
}

/// A process that does nothing, in a user namespace of its own, until this is dropped.
struct Sleeper(libc::pid_t);

impl Sleeper {
    fn in_new_user_namespace() -> io::Result<Self> {
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and a stack this is fork(2). The child is the copy of one thread of several, so it only
        // makes system calls that take no lock of this process, and never returns from here.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => loop {
                // SAFETY: as said; prctl sets what happens to this process when its parent ends, ppoll waits. What is open
                // is the parent's (locks among it), and nothing here uses it.
                unsafe {
                    libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
                    libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                    libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            },
            pid => libc::pid_t::try_from(pid).map(Self).map_err(io::Error::other),
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // SAFETY: a child of ours that nobody else waits for, so the number is its own until it is waited for here.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// A user namespace with nobody in it, whose ids from 0 on are `length` of the host's from `host` on.
pub(super) fn user_namespace(host: u32, length: u32) -> io::Result<std::fs::File> {
    let sleeper = Sleeper::in_new_user_namespace()?;
    let file = |name: &str| format!("/proc/{}/{name}", sleeper.0);
    for map in ["uid_map", "gid_map"] {
        std::fs::write(file(map), format!("0 {host} {length}\n"))?;
    }
    std::fs::File::open(file("ns/user"))
}

/// Whether pods can have user namespaces of their own here: one is made, and files in `dir` are shown with its ids; or why not.
pub(super) fn try_id_mapping(dir: &Path) -> Result<(), String> {
    let users = user_namespace(65536, 65536).map_err(|cause| format!("make a user namespace: {cause}"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let disk = rustix::mount::open_tree(rustix::fs::CWD, dir, flags).map_err(io::Error::from);
    let mapped = disk.and_then(|it| id_map(it.as_fd(), users.as_fd()));
    mapped.map_err(|cause| format!("the file system of {} does not map ids: {cause}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_broke_off_is_tried_again_and_nothing_else() {
        let tried = |errors: &[i32]| {
            let mut count = 0;
            let outcome = again(|| {
                count += 1;
                errors.get(count - 1).map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(*errno)))
            });
            (count, outcome.err().and_then(|error| error.raw_os_error()))
        };
        assert_eq!(tried(&[]), (1, None));
        assert_eq!(tried(&[libc::EAGAIN, libc::EINTR, libc::EAGAIN]), (4, None));
        assert_eq!(tried(&[libc::EPERM]), (1, Some(libc::EPERM)));
        assert_eq!(tried(&[libc::EAGAIN, libc::EINVAL]), (2, Some(libc::EINVAL)));
        assert_eq!(tried(&[libc::EAGAIN; 9]), (TRIES, Some(libc::EAGAIN)));
    }
}
