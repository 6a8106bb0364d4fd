//! A pod's fsGroup has what is in a `local` volume: group, and what the group may do, as the kubelet gives them
//! (`pkg/volume/volume_linux.go`), with its policy `OnRootMismatch`: not where the top is the group's already.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// What is deeper is an error: a pod could not be told to have what it has not.
const DEPTH_LIMIT: usize = 200;
/// Of files; directories are the group's to enter beside, and what is made there is the group's.
const FILE_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o2770;

/// Gives a volume to a group, unless it has it. The top comes last: a crash on the way is gone on with.
pub fn give(path: &Path, group: u32) -> io::Result<()> {
    let top = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&top)?;
    if stat.st_gid == group && stat.st_mode & DIRECTORY_MODE == DIRECTORY_MODE {
        return Ok(());
    }
    below(&top, group, 0)?;
    one(&top, group)
}

fn below(directory: &OwnedFd, group: u32, depth: usize) -> io::Result<()> {
    if depth == DEPTH_LIMIT {
        return Err(io::Error::other(format!("it is deeper than {DEPTH_LIMIT} directories")));
    }
    let readable = rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::new(readable)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        // A link itself, and nothing of what is mounted.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found =
            match rustix::fs::openat2(directory, entry.file_name(), flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_XDEV) {
                Ok(found) => found,
                // Removed meanwhile, or another's.
                Err(Errno::NOENT | Errno::XDEV) => continue,
                Err(errno) => return Err(errno.into()),
            };
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode).is_dir() {
            below(&found, group, depth + 1)?;
        }
        one(&found, group)?;
    }
    Ok(())
}

/// By its descriptor: whatever has its name now.
fn one(found: &OwnedFd, group: u32) -> io::Result<()> {
    let stat = rustix::fs::fstat(found)?;
    let more = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => DIRECTORY_MODE,
        _ => FILE_MODE,
    };
    rustix::fs::chownat(found.as_fd(), "", None, Some(Gid::from_raw(group)), AtFlags::EMPTY_PATH)?;
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        // chmod(2) takes no descriptor that only names.
        let by_number = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::fs::chmod(by_number, Mode::from_raw_mode((stat.st_mode & 0o7777) | more))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn all_of_a_volume_is_its_groups() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::write(volume.join("a/b"), "").unwrap();
        fs::write(&outside, "").unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        for (path, mode) in [(volume.join("a/b"), 0o600), (volume.join("a"), 0o700), (volume.clone(), 0o755), (outside.clone(), 0o600)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        give(&volume, 77).unwrap();
        let seen = |path: &Path| {
            let meta = fs::symlink_metadata(path).unwrap();
            (meta.gid(), meta.permissions().mode() & 0o7777)
        };
        assert_eq!(["", "a", "a/b"].map(|path| seen(&volume.join(path))), [(77, 0o2775), (77, 0o2770), (77, 0o660)]);
        assert_eq!((seen(&volume.join("link")).0, seen(&outside)), (77, (0, 0o600)));
        // The top says that it is done.
        fs::set_permissions(volume.join("a/b"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&volume, 77).unwrap();
        assert_eq!(seen(&volume.join("a/b")), (77, 0o600));
    }
}
