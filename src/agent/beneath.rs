//! Files below a directory that a container can write to: opened by descriptor, never through a link, so
//! that nothing a container puts there makes the agent read or write elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::inside;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A directory by its whole path, which no container can change.
pub fn top(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A directory below another one.
pub fn directory(top: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(top, path, flags, Mode::empty(), BENEATH)?)
}

/// A regular file with one name, to be read: a second name would be a file from elsewhere.
pub fn file(top: impl AsFd, path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(top, path, flags, Mode::empty(), BENEATH)?;
    let stat = rustix::fs::fstat(&file)?;
    // No name at all: removed after it was opened.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
        return Err(Errno::LOOP.into());
    }
    Ok(File::from(file))
}

/// What is below another directory, by whatever links, as long as they lead nowhere else.
pub fn within(top: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(inside::open(top, path, OFlags::PATH | OFlags::CLOEXEC, resolve)?)
}

/// One name: a path could lead through a link.
fn one(name: &Path) -> io::Result<&Path> {
    let mut parts = name.components();
    let alone = matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None));
    if alone { Ok(name) } else { Err(Errno::XDEV.into()) }
}

/// Makes a directory with exactly this mode, or opens the one that is there.
pub fn make_directory(parent: impl AsFd, name: &Path, mode: u32) -> io::Result<OwnedFd> {
    let (parent, name) = (parent.as_fd(), one(name)?);
    let fresh = match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode & 0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat2(parent, name, flags, Mode::empty(), BENEATH)?;
    if fresh {
        // Not mkdir's own: the umask would have its word, and the group's bit is inherited.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    }
    Ok(made)
}

/// Writes a file that must not be there yet. `owner`: user and group, as the host numbers them.
pub fn create(parent: impl AsFd, name: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat2(parent, name, flags, Mode::from_raw_mode(0o600), BENEATH)?);
    file.write_all(bytes)?;
    give(&file, owner)?;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
}

/// Makes a file or directory this user's and group's.
pub fn give(what: impl AsFd, (user, group): (u32, u32)) -> io::Result<()> {
    Ok(rustix::fs::fchown(what, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?)
}

/// What a directory holds, each with its kind.
pub fn entries(directory: impl AsFd) -> io::Result<Vec<(OsString, FileType)>> {
    let directory = directory.as_fd();
    let mut found = Vec::new();
    let readable = rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            kind => kind,
        };
        found.push((OsString::from_vec(name.to_vec()), kind));
    }
    Ok(found)
}

/// Where a link leads; `None` when there is no link of this name.
pub fn link(parent: impl AsFd, name: impl rustix::path::Arg) -> Option<OsString> {
    rustix::fs::readlinkat(parent, name, Vec::new()).ok().map(|target| OsString::from_vec(target.into_bytes()))
}

/// Removes whatever has this name, with everything below it. No error when there is nothing.
pub fn remove(parent: impl AsFd, name: &Path) -> io::Result<()> {
    let (parent, name) = (parent.as_fd(), one(name)?);
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let inside = directory(parent, name)?;
    for (entry, _) in entries(&inside)? {
        remove(&inside, Path::new(&entry))?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn nothing_is_read_written_or_removed_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("deep")).unwrap();
        symlink(outside.join("kept"), inside.join("file")).unwrap();
        symlink(outside.join("new"), inside.join("dangling")).unwrap();
        symlink(&outside, inside.join("deep/dir")).unwrap();
        fs::hard_link(outside.join("kept"), inside.join("hard")).unwrap();
        let top = top(&inside).unwrap();
        for path in ["file", "dangling", "deep/dir/kept", "hard", "../outside/kept", "deep"] {
            assert!(file(&top, Path::new(path)).is_err(), "{path}");
        }
        for name in ["file", "dangling", "deep/dir/x"] {
            assert!(create(&top, Path::new(name), b"x", 0o644, (0, 0)).is_err(), "{name}");
        }
        assert!(make_directory(&top, Path::new("deep/dir/x"), 0o755).is_err());
        assert!(make_directory(&top, Path::new("file"), 0o755).is_err());
        assert!(remove(&top, Path::new("deep/dir/kept")).is_err());
        remove(&top, Path::new("deep")).unwrap();
        remove(&top, Path::new("file")).unwrap();
        remove(&top, Path::new("never")).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    }

    #[test]
    fn what_lies_within_is_reached_by_links_that_stay() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join("file"), "").unwrap();
        fs::write(dir.path().join("other"), "").unwrap();
        symlink("file", inside.join("stays")).unwrap();
        symlink("../other", inside.join("leaves")).unwrap();
        symlink(dir.path().join("other"), inside.join("absolute")).unwrap();
        let top = top(&inside).unwrap();
        let found = |path: &str| within(&top, Path::new(path)).is_ok();
        assert!(found("file") && found("stays"));
        for path in ["leaves", "absolute", "../other", "/etc/passwd", "missing"] {
            assert!(!found(path), "{path}");
        }
    }

    #[test]
    fn modes_are_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let top = top(dir.path()).unwrap();
        let made = make_directory(&top, Path::new("d"), 0o2777).unwrap();
        create(&made, Path::new("f"), b"x", 0o666, (0, 0)).unwrap();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("d"), mode("d/f")), (0o2777, 0o666));
        make_directory(&top, Path::new("d"), 0o700).unwrap();
        assert_eq!(mode("d"), 0o2777, "what is there keeps its mode");
    }
}
