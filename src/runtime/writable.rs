//! What containers have written into their own root file systems: counted now and then, not for each question.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

use super::engine::Inner;
use crate::cri::FilesystemUsage;

/// As often as the kubelet asks, and containerd counts.
const INTERVAL: Duration = Duration::from_secs(10);
/// A count that takes long is made again no sooner than after so many times as long: a twentieth of a core at the most.
const REST: u32 = 20;
/// Files beyond these are not counted.
const FILES_LIMIT: u64 = 1_000_000;
/// Nor what lies deeper.
const DEPTH_LIMIT: usize = 200;

/// A container's writable layer, when it was counted last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    used: Used,
    again_at: Instant,
}

/// What a tree takes on its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    files: u64,
}

pub(super) type Layers = BTreeMap<String, Counted>;

impl Inner {
    /// Counts what has not been counted for a while. Whoever comes while another counts makes do with what is known.
    pub fn count_layers(&self) {
        let Ok(_one_at_a_time) = self.counting.try_lock() else { return };
        let running = self.all_running();
        let due: Vec<_> = {
            let mut known = self.layers();
            known.retain(|id, _| running.iter().any(|record| record.id == *id));
            let now = Instant::now();
            running.into_iter().filter(|record| known.get(&record.id).is_none_or(|counted| counted.again_at <= now)).collect()
        };
        for record in due {
            let start = Instant::now();
            // Gone meanwhile: nobody asks any more.
            let Ok(used) = count(&self.dir_of(&record).join("upper")) else { continue };
            let rest = INTERVAL.max(start.elapsed() * REST);
            self.layers().insert(record.id, Counted { used, again_at: Instant::now() + rest });
        }
    }

    /// As it was counted last.
    pub fn layer(&self, id: &str) -> Option<FilesystemUsage> {
        let used = self.layers().get(id)?.used;
        Some(FilesystemUsage { mount_point: self.options.root_dir.clone(), used_bytes: used.bytes, inodes_used: used.files })
    }
}

/// Walks a tree that its owner may change meanwhile: by descriptors, and no link is followed.
fn count(root: &Path) -> rustix::io::Result<Used> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let mut used = Used::default();
    let mut linked = HashSet::new();
    let mut add = |stat: &Stat| {
        // A file of several names once.
        if stat.st_nlink < 2 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory || linked.insert(stat.st_ino) {
            used.files += 1;
            used.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
        used.files < FILES_LIMIT
    };
    add(&rustix::fs::fstat(&top)?);
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
        let Ok(stat) = rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
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
        let before = count(&root).unwrap();
        assert_eq!(before.files, 3);
        std::fs::write(root.join("a/b/file"), vec![7; 1 << 20]).unwrap();
        std::fs::hard_link(root.join("a/b/file"), root.join("same")).unwrap();
        symlink("/", root.join("out")).unwrap();
        symlink("a", root.join("a/b/loop")).unwrap();
        let sparse = std::fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let after = count(&root).unwrap();
        assert_eq!(after.files, before.files + 4, "of two names one file, and links are not followed");
        let grown = after.bytes - before.bytes;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        symlink(&root, dir.path().join("link")).unwrap();
        assert!(count(&dir.path().join("link")).is_err());
    }

    #[test]
    fn a_tree_without_a_bottom_is_counted_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..2 * DEPTH_LIMIT {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(count(dir.path()).unwrap().files, DEPTH_LIMIT as u64 + 1);
    }
}
