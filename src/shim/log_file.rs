//! The way to a container's log. Never follows a link: a container that can write into the log directory must not choose
//! what we write to.
//!
//! Shared by both programs.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::wire::LogFile;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A directory below the pod's log directory, made where it is missing.
pub fn open_below(directory: &str, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, directory, flags, Mode::empty())?;
    if path.is_empty() {
        return Ok(top);
    }
    let open = || rustix::fs::openat2(&top, path, flags, Mode::empty(), BENEATH);
    match open() {
        Err(Errno::NOENT) => {
            match rustix::fs::mkdirat(&top, path, Mode::from_raw_mode(0o755)) {
                // The other program was faster.
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(errno) => Err(errno),
            }
        }
        result => result,
    }
}

/// The file itself, made where it is missing: a plain one of a single name, or an error.
pub fn open(place: &LogFile) -> Result<OwnedFd, Errno> {
    let (parent, name) = place.path.rsplit_once('/').unwrap_or(("", &place.path));
    let directory = open_below(&place.directory, parent)?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(&directory, name, flags, Mode::from_raw_mode(0o640), BENEATH)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
        return Err(Errno::LOOP);
    }
    Ok(file)
}
