//! What a tree takes on its file system: what a container has written, a volume, logs.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Names beyond these are not looked at.
const NAMES_LIMIT: u64 = 1_000_000;
/// Nor what lies deeper.
const DEPTH_LIMIT: usize = 200;

/// Room that is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub bytes: u64,
    /// Directories among them.
    pub files: u64,
}

/// Names between two calls of a walk's `pause`.
const STRETCH: u64 = 1024;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// Of each entry: nothing of a link's target, and nothing at all of what is mounted there, which may be a server that is
/// away and never answers (openat2(2): `RESOLVE_NO_XDEV`).
const NOT_THROUGH: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Walks a tree that its owner may change meanwhile: by descriptors, and no link is followed, nor what is mounted in it.
/// Calls `pause` now and then, for who has to rest on the way.
///
/// # Errors
/// There is no such directory, or something is mounted over it.
pub fn footprint(root: &Path, pause: &mut dyn FnMut()) -> io::Result<Footprint> {
    let (above, name) = root.parent().zip(root.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    let above = rustix::fs::openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let (mut count, mut names) = (Count::default(), 0);
    let mut open = vec![count.directory(&above, name)?];
    loop {
        let may_go_deeper = open.len() < DEPTH_LIMIT;
        let Some(directory) = open.last_mut() else { break };
        let Some(Ok(entry)) = directory.read() else {
            open.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
        let below = if is_directory && may_go_deeper { count.directory(directory.fd()?, name) } else { Err(Errno::NOTDIR) };
        match below {
            Ok(below) => open.push(below),
            Err(Errno::NOTDIR) => count.entry(directory.fd()?, name),
            // What is gone meanwhile takes nothing, and what is mounted there is another's.
            Err(_) => {}
        }
        names += 1;
        if names >= NAMES_LIMIT {
            break;
        }
        if names.is_multiple_of(STRETCH) {
            pause();
        }
    }
    Ok(count.used)
}

fn open_in(parent: impl AsFd, name: impl Arg, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(parent, name, flags | NOT_THROUGH, Mode::empty(), ResolveFlags::NO_XDEV)
}

#[derive(Default)]
struct Count {
    used: Footprint,
    /// Files of several names that were counted.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    fn directory(&mut self, parent: impl AsFd, name: impl Arg) -> rustix::io::Result<Dir> {
        let found = open_in(parent, name, DIRECTORY)?;
        self.add(&rustix::fs::fstat(&found)?);
        Dir::new(found)
    }

    fn entry(&mut self, parent: impl AsFd, name: impl Arg) {
        if let Ok(stat) = open_in(parent, name, OFlags::PATH).and_then(rustix::fs::fstat) {
            self.add(&stat);
        }
    }

    fn add(&mut self, stat: &Stat) {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // A file of several names once.
        if stat.st_nlink < 2 || is_directory || self.linked.insert((stat.st_dev, stat.st_ino)) {
            self.used.files += 1;
            self.used.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn counted(root: &Path) -> io::Result<Footprint> {
        footprint(root, &mut || ())
    }

    #[test]
    fn a_tree_is_counted_by_what_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("upper");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let before = counted(&root).unwrap();
        assert_eq!(before.files, 3);
        std::fs::write(root.join("a/b/file"), vec![7; 1 << 20]).unwrap();
        std::fs::hard_link(root.join("a/b/file"), root.join("same")).unwrap();
        symlink("/", root.join("out")).unwrap();
        symlink("a", root.join("a/b/loop")).unwrap();
        let sparse = std::fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let after = counted(&root).unwrap();
        assert_eq!(after.files, before.files + 4, "of two names one file, and links are not followed");
        let grown = after.bytes - before.bytes;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        symlink(&root, dir.path().join("link")).unwrap();
        assert!(counted(&dir.path().join("link")).is_err());
    }

    #[test]
    fn a_tree_without_a_bottom_is_counted_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..2 * DEPTH_LIMIT {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(counted(dir.path()).unwrap().files, DEPTH_LIMIT as u64 + 1);
    }

    #[test]
    fn a_walk_may_rest_on_its_way() {
        let dir = tempfile::tempdir().unwrap();
        let rests = |files: u64| {
            // Of one file: names are what takes the time.
            std::fs::write(dir.path().join("0"), "").unwrap();
            for number in 1..files {
                std::fs::hard_link(dir.path().join("0"), dir.path().join(number.to_string())).ok();
            }
            let mut rests = 0;
            footprint(dir.path(), &mut || rests += 1).unwrap();
            rests
        };
        assert_eq!([10, STRETCH - 1, 3 * STRETCH].map(rests), [0, 0, 3]);
    }

    /// Mounts, where nobody else sees it, a FUSE file system whose server never says a word, and a file of elsewhere.
    fn count_beside_mounts(root: &Path, elsewhere: &Path, server: i32) -> [Option<u64>; 2] {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let options = format!("fd={server},rootmode=40000,user_id=0,group_id=0");
        mount(Some("none"), &root.join("dead"), Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        mount(Some(elsewhere), &root.join("bound"), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        [root, &root.join("dead")].map(|root| counted(root).ok().map(|used| used.files))
    }

    #[test]
    fn what_is_mounted_in_a_tree_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (dir.path().join("root"), dir.path().join("elsewhere"));
        std::fs::create_dir_all(root.join("dead")).unwrap();
        for file in [&elsewhere, &root.join("bound"), &root.join("file")] {
            std::fs::write(file, "").unwrap();
        }
        let server = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let number = server.as_raw_fd();
        let (tell, told) = mpsc::channel();
        let walk = std::thread::spawn(move || tell.send(count_beside_mounts(&root, &elsewhere, number)));
        let counted = told.recv_timeout(Duration::from_secs(20));
        // Without its server everything there fails: a walk that hung ends too.
        drop(server);
        walk.join().unwrap().ok();
        assert_eq!(counted, Ok([Some(2), None]), "the root and a file of its own");
    }
}
