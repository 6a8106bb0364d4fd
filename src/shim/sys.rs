//! The system calls nobody wraps safely. The only unsafe part of the shim.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::libc;

use crate::mount;

/// Which side of a [`fork`] this is.
pub enum Side {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// fork with `CLONE_NEW*` flags, into a (v2) cgroup if given.
pub fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: args is a valid clone_args that outlives the call. Without CLONE_VM the child is a copy of this
    // process, which has a single thread: no lock is held by a thread that the copy lacks.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent { pid: i32::try_from(pid).map_err(io::Error::other)?, pidfd })
        }
    }
}

/// Of a mount's attributes, those that are one number: another is set only where the old one is cleared
/// (mount_setattr(2), MOUNT_ATTR__ATIME).
const ACCESS_TIMES: u64 = 0x70;

/// Sets attributes and propagation of an open mount.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, set: u64, propagation: u64) -> io::Result<()> {
    let clear = if set & ACCESS_TIMES == 0 { 0 } else { ACCESS_TIMES };
    mount::set(mount, recursive, &mount::Attributes { set, clear, propagation, users: 0 })
}

/// Changes attributes of a mount that is there, and of none below it.
pub fn remount(mount: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    let clear = clear | if set & ACCESS_TIMES == 0 { 0 } else { ACCESS_TIMES };
    mount::set(mount, false, &mount::Attributes { set, clear, ..mount::Attributes::default() })
}

/// Installs a seccomp filter given as `sock_filter` instructions.
pub fn seccomp(instructions: &[u8]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = instructions
        .chunks_exact(size_of::<libc::sock_filter>())
        .map(|b| libc::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: program points to `len` instructions that live until the call returns; the kernel checks them.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Default disposition for every signal and none blocked, as a new program expects.
pub fn reset_signals() {
    // The rest is as the system gave it to us: we install no handlers, and the runtime library ignores SIGPIPE and
    // watches for stack overflows.
    for signal in 1..=31 {
        // SAFETY: SIG_DFL installs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a zeroed sigset_t is made valid by sigemptyset before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Replaces this process. Returns only with the reason why not.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers =
        |strings: &[CString]| -> Vec<*const libc::c_char> { strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect() };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer and hold C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Closes every descriptor from `first` on but this one: at the very start, before the program owns another, or in a child
/// that ends in exec or `exit_now`.
pub fn close_all_but(socket: &UnixStream, first: u32) -> io::Result<()> {
    let kept = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
    let ranges = [(first, kept.saturating_sub(1)), (first.max(kept.saturating_add(1)), u32::MAX)];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: nobody owns the closed descriptors yet, or the caller's child uses none of them again and never returns
        // to the frames that own them, so no owner of one is ever dropped.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether the working directory lies below the root: elsewhere the kernel's answer does not begin with a slash. The
/// library's getcwd would look for another answer.
pub fn is_inside_root() -> io::Result<bool> {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the given length.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(path[0] == b'/') }
}

/// The socket that whoever started this program has left open at a number.
pub fn inherited_socket(number: i32) -> UnixStream {
    // SAFETY: called once, at the very start of the program, before it owns a descriptor: nobody else has this one. If it
    // is none, using it fails with an error.
    unsafe { UnixStream::from_raw_fd(number) }
}

/// Closes every descriptor from `first` on. Only before anything of ours is open there, or where nothing of ours is
/// used again.
pub fn close_from(first: u32) {
    // SAFETY: called at the very start, before the program owns a descriptor above the standard three, and in the pod's
    // init and a hook's child, which never return to the frames that own others.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Lowers or sets a resource limit of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one valid rlimit64, writes nothing.
    let result = unsafe { libc::prlimit64(0, resource, &raw const limit, std::ptr::null_mut()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The hard resource limit of this process.
pub fn hard_rlimit(resource: u32) -> u64 {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one valid rlimit64.
    unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut limit) };
    limit.rlim_max
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a zeroed ifreq is valid; the ioctls read and write it only.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) == -1 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The terminal's other end, opened without a path that a container could have tampered with.
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: returns a new descriptor or -1.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `fd` this process's standard descriptor `target` (0, 1 or 2).
pub fn install_standard(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    // SAFETY: 0, 1 and 2 are owned by nobody in this program (std only borrows them).
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor of a process, gone or not, that nobody has waited for yet.
pub fn open_process(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(rustix::process::Pid::from_raw(pid)?, rustix::process::PidfdFlags::empty()).ok()
}

/// Sends any signal, real-time ones too.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: no siginfo is passed; the kernel fills it.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process without running anything of the program it is a copy of.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor but the standard three and this one, in a child that never returns to the rest of
/// the program.
pub fn keep_only(socket: &UnixStream) -> UnixStream {
    // SAFETY: the caller's child uses none of the closed descriptors again: it ends in `exit_now`, so no owner of
    // one is ever dropped. Descriptor 3 becomes the returned socket's alone.
    unsafe {
        libc::dup2(socket.as_raw_fd(), 3);
        libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0);
        UnixStream::from_raw_fd(3)
    }
}
