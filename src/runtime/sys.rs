//! The calls of the engine that no crate wraps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

use super::devices::Instruction;

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

/// Has the kernel check and take a program that decides on devices.
pub(super) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let passes = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR));
    let mut outcome = bpf(PROG_LOAD, &load);
    for _ in 1..TRIES {
        if !outcome.as_ref().is_err_and(passes) {
            break;
        }
        outcome = bpf(PROG_LOAD, &load);
    }
    let descriptor = outcome?;
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
