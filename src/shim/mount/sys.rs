//! Attributes of open mounts. Shared by both programs.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// linux/mount.h
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
#[derive(Default)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub users: u64,
}

/// mount_setattr(2) of an open mount.
pub fn set(mount: BorrowedFd<'_>, recursive: bool, attributes: &Attributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (path, size) = (c"".as_ptr(), size_of::<Attributes>());
    // SAFETY: an empty C string and a live mount_attr of the given size, both only read.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), path, flags, std::ptr::from_ref(attributes), size) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Shows a mount that is nowhere yet with the ids of a user namespace: what 0 owns on the disk, its root owns here.
pub fn id_map(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let users = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    set(mount, false, &Attributes { set: MOUNT_ATTR_IDMAP, users, ..Attributes::default() })
}
