//! Copies what a file system is about to hide into it (`tmpcopyup`). Everything there may be the image's: no link is
//! followed, and what lies how deep costs neither descriptors nor stack.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::process::{Gid, Uid};

/// Copies files, directories, links and pipes with their owners and modes. Device nodes are left out: whoever is to have one
/// is given it.
pub fn copy_tree(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mut left = vec![PathBuf::from(".")];
    while let Some(path) = left.pop() {
        let (source, target) = (directory(from, &path)?, directory(to, &path)?);
        for entry in Dir::read_from(&source)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && copy_one(&source, &target, name)? == FileType::Directory {
                left.push(path.join(name));
            }
        }
    }
    Ok(())
}

fn directory(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// Returns what it is; of a directory only itself is copied.
fn copy_one(source: &OwnedFd, target: &OwnedFd, name: &OsStr) -> io::Result<FileType> {
    let plain = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => {
            let opened = rustix::fs::openat(source, name, plain | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) != kind {
                return Err(io::Error::other("a file became something else meanwhile"));
            }
            let made = rustix::fs::openat(target, name, plain | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR)?;
            let mut made = File::from(made);
            io::copy(&mut File::from(opened), &mut made)?;
            give(&made, &stat)?;
        }
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, Mode::RWXU)?;
            give(rustix::fs::openat(target, name, plain | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?, &stat)?;
        }
        FileType::Symlink => {
            rustix::fs::symlinkat(rustix::fs::readlinkat(source, name, Vec::new())?, target, name)?;
            own(target, name, &stat)?;
        }
        FileType::Fifo => {
            rustix::fs::mknodat(target, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), 0)?;
            own(target, name, &stat)?;
            // It was made by the umask.
            rustix::fs::chmodat(target, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        _ => {}
    }
    Ok(kind)
}

fn own(directory: &OwnedFd, name: &OsStr, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner and mode, in this order: a new owner clears the set-id bits.
fn give(made: impl AsFd, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(&made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_and_no_link_is_followed() {
        let dir = std::env::temp_dir().join(format!("podbay-copy-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        let deep = from.join("a/".repeat(300));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(deep.join("deepest"), "here").unwrap();
        std::fs::write(from.join("tool"), "tool").unwrap();
        std::os::unix::fs::chown(from.join("tool"), Some(7), Some(8)).unwrap();
        std::fs::set_permissions(from.join("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
        symlink("/etc", from.join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, from.join("disk"), FileType::BlockDevice, Mode::RUSR, rustix::fs::makedev(8, 0)).unwrap();
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let copied = copy_tree(&open(&from), &open(&to));
        let tool = std::fs::metadata(to.join("tool")).map(|meta| (meta.mode() & 0o7777, meta.uid(), meta.gid()));
        let deepest = std::fs::read_to_string(to.join("a/".repeat(300)).join("deepest"));
        let (link, disk) = (std::fs::read_link(to.join("link")), to.join("disk").symlink_metadata().is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
        copied.unwrap();
        assert_eq!((tool.unwrap(), deepest.unwrap().as_str()), ((0o4755, 7, 8), "here"));
        assert!(link.unwrap() == Path::new("/etc") && !disk);
    }
}
