//! What a tree takes on its file system: what a container has written, a volume, logs.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

/// Files beyond these are not counted.
const FILES_LIMIT: u64 = 1_000_000;
/// Nor what lies deeper.
const DEPTH_LIMIT: usize = 200;

/// Room that is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub bytes: u64,
    /// Directories among them.
    pub files: u64,
}

/// Walks a tree that its owner may change meanwhile: by descriptors, and no link is followed, nor what is mounted in it.
///
/// # Errors
/// There is no such directory.
pub fn footprint(root: &Path) -> io::Result<Footprint> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let mut used = Footprint::default();
    let mut linked = HashSet::new();
    let mut add = |stat: &Stat| {
        // A file of several names once.
        if stat.st_nlink < 2 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory || linked.insert(stat.st_ino) {
            used.files += 1;
            used.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        used.files < FILES_LIMIT
    };
    let own = rustix::fs::fstat(&top)?;
    add(&own);
    let mut open = vec![Dir::new(top)?];
    while let Some(directory) = open.last_mut() {
        let Some(Ok(entry)) = directory.read() else {
            open.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) else { continue };
        if stat.st_dev != own.st_dev {
            // Something else is mounted there.
            continue;
        }
        if !add(&stat) {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && open.len() < DEPTH_LIMIT {
            let parent = open.last().map(Dir::fd).transpose()?;
            let below: Option<OwnedFd> = parent.and_then(|parent| rustix::fs::openat(parent, name, flags, Mode::empty()).ok());
            open.extend(below.and_then(|below| Dir::new(below).ok()));
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_counted_by_what_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("upper");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let before = footprint(&root).unwrap();
        assert_eq!(before.files, 3);
        std::fs::write(root.join("a/b/file"), vec![7; 1 << 20]).unwrap();
        std::fs::hard_link(root.join("a/b/file"), root.join("same")).unwrap();
        symlink("/", root.join("out")).unwrap();
        symlink("a", root.join("a/b/loop")).unwrap();
        let sparse = std::fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let after = footprint(&root).unwrap();
        assert_eq!(after.files, before.files + 4, "of two names one file, and links are not followed");
        let grown = after.bytes - before.bytes;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        symlink(&root, dir.path().join("link")).unwrap();
        assert!(footprint(&dir.path().join("link")).is_err());
    }

    #[test]
    fn a_tree_without_a_bottom_is_counted_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..2 * DEPTH_LIMIT {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(footprint(dir.path()).unwrap().files, DEPTH_LIMIT as u64 + 1);
    }
}
