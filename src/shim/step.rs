//! The way into a container: carries out the steps of a launch, one after the other, and decides nothing.
//!
//! Runs in the child, in its own mount namespace. Every path in the container is resolved by the kernel below
//! the root's descriptor (`openat2`, `RESOLVE_IN_ROOT`) and mounted upon by that descriptor, so neither the
//! image nor a sibling that shares a volume can lead it elsewhere.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::copy::copy_tree;
use crate::inside;
use crate::sys;
use crate::users::Users;
use crate::wire::{Attach, Failed, Filesystem, Node, OpenTree, Overlay, Remount, Step};

/// What a mount may hide in /proc: figures of the host, as lxcfs has them for each container. The list is runc's
/// (`libcontainer/rootfs_linux.go`, `checkProcMount`).
const OWN_FIGURES: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Names what was attempted.
pub trait Attempt<T> {
    fn attempt<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Failed> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            let errno = error.raw_os_error().unwrap_or(0);
            let text = error.to_string();
            // "(os error 2)" tells a reader nothing.
            let cause = text.split(" (os error").next().unwrap_or_default().to_owned();
            Failed { attempt: what().into(), cause, errno }
        })
    }
}

pub fn refuse(attempt: impl Into<String>, cause: impl Into<String>) -> Failed {
    Failed { attempt: attempt.into(), cause: cause.into(), errno: 0 }
}

#[derive(Default)]
struct Builder<'u> {
    users: Option<&'u Users>,
    trees: Vec<Option<OwnedFd>>,
    root: Option<OwnedFd>,
    /// An empty read-only file system, made once, for directories to hide.
    empty: Option<OwnedFd>,
    /// The directory in which something was made last: most steps stay in one.
    parent: Option<(String, OwnedFd)>,
}

/// Carries out every step. `users`: the pod's user namespace, where it has one.
pub fn carry_out(steps: &[Step], users: Option<&Users>) -> Result<(), Failed> {
    let mut builder = Builder { users, ..Builder::default() };
    steps.iter().try_for_each(|step| builder.step(step))
}

/// The same, with something of others' before the last one.
pub fn carry_out_before(
    steps: &[Step],
    last: &Step,
    users: Option<&Users>,
    before: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut builder = Builder { users, ..Builder::default() };
    steps.iter().try_for_each(|step| builder.step(step))?;
    before()?;
    builder.step(last)
}

impl Builder<'_> {
    fn step(&mut self, step: &Step) -> Result<(), Failed> {
        match step {
            Step::OpenTree(tree) => self.open_tree(tree),
            Step::MakePrivate(step) => {
                let kind = if step.let_in { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
                rustix::mount::mount_change("/", kind | MountPropagationFlags::REC).attempt(|| "make mounts private")
            }
            Step::Overlay(overlay) => self.overlay(overlay),
            Step::Filesystem(fs) => self.filesystem(fs),
            Step::Attach(attach) => self.attach(attach),
            Step::Symlink(link) => {
                let (parent, name) = self.parent_of(&link.path)?;
                match rustix::fs::symlinkat(link.content.as_str(), parent, name) {
                    Err(Errno::EXIST) => Ok(()),
                    result => result.attempt(|| format!("make the link {}", link.path)),
                }
            }
            Step::Directory(dir) => {
                let (parent, name) = self.parent_of(&dir.path)?;
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(dir.mode)) {
                    Err(Errno::EXIST) => Ok(()),
                    result => result.attempt(|| format!("make the directory {}", dir.path)),
                }
            }
            Step::Mask(mask) => self.mask(&mask.path),
            Step::ReadOnly(step) => self.read_only(&step.path),
            Step::Root(root) => self.directory(&root.path),
            Step::Node(node) => self.node(node),
            Step::MapIds(step) => self.map_ids(&step.path),
            Step::Remount(remount) => self.remount(remount),
            Step::Pivot(_) => self.pivot(),
            Step::Seal(seal) => self.seal(&seal.directory),
        }
    }

    fn root(&self) -> Result<&OwnedFd, Failed> {
        self.root.as_ref().ok_or_else(|| refuse("carry out the plan", "it mounts before there is a root"))
    }

    fn open_tree(&mut self, tree: &OpenTree) -> Result<(), Failed> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if tree.recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let open = || rustix::mount::open_tree(CWD, tree.source.as_str(), flags);
        let fd = match open() {
            // Made here, where whoever waits for a file server that is away can be killed.
            Err(Errno::NOENT) if tree.make => {
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&tree.source);
                made.attempt(|| format!("make the directory {} of the host", tree.source))?;
                open()
            }
            opened => opened,
        }
        .attempt(|| format!("open {} of the host", tree.source))?;
        if tree.id_mapped {
            self.users()?.map(fd.as_fd(), &tree.source)?;
        }
        let slot = tree.slot as usize;
        if self.trees.len() <= slot {
            self.trees.resize_with(slot + 1, || None);
        }
        self.trees[slot] = Some(fd);
        Ok(())
    }

    fn users(&self) -> Result<&Users, Failed> {
        self.users.ok_or_else(|| refuse("carry out the plan", "it maps ids, and the pod has no user namespace"))
    }

    /// A layer or a volume with the pod's ids: mounted over itself, here where nobody else sees it, as overlayfs wants a
    /// mount of the namespace it is in, and other runtimes one that is there.
    fn map_ids(&self, path: &str) -> Result<(), Failed> {
        let what = || format!("open {path}");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, path, flags).attempt(what)?;
        self.users()?.map(tree.as_fd(), path)?;
        rustix::mount::move_mount(&tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).attempt(what)
    }

    fn overlay(&mut self, overlay: &Overlay) -> Result<(), Failed> {
        let what = || format!("mount the root file system at {}", overlay.at);
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &String| rustix::fs::open(path.as_str(), directory, Mode::empty()).attempt(|| format!("open the layer {path}"));
        if overlay.id_mapped {
            overlay.lower.iter().try_for_each(|path| self.map_ids(path))?;
        }
        // Descriptors instead of paths: short whatever the number of layers, and nothing to escape.
        let lower = overlay.lower.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let (upper, work) = (open(&overlay.upper)?, open(&overlay.work)?);
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        let lowers = lower.iter().map(name).collect::<Vec<_>>().join(":");
        let options = format!("lowerdir={lowers},upperdir={},workdir={}", name(&upper), name(&work));
        // Nothing here outlives a reboot, so nobody needs its fsyncs.
        let volatile = std::ffi::CString::new(format!("{options},volatile"));
        let plain = std::ffi::CString::new(options);
        let mount = |data: &std::ffi::CString| {
            rustix::mount::mount("overlay", overlay.at.as_str(), "overlay", MountFlags::empty(), data.as_c_str())
        };
        let (volatile, plain) = (volatile.map_err(io::Error::other).attempt(what)?, plain.map_err(io::Error::other).attempt(what)?);
        match mount(&volatile) {
            Err(Errno::INVAL) => mount(&plain),
            result => result,
        }
        .attempt(what)?;
        let root = rustix::fs::open(overlay.at.as_str(), directory, Mode::empty()).attempt(what)?;
        if overlay.attributes != 0 {
            sys::mount_setattr(root.as_fd(), false, overlay.attributes, 0).attempt(what)?;
        }
        self.root = Some(root);
        if overlay.id_mapped { self.users()?.make_files_as_root() } else { Ok(()) }
    }

    fn directory(&mut self, path: &str) -> Result<(), Failed> {
        let what = || format!("make {path} the root file system");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        // Onto itself: only a mount can become the root.
        let tree = rustix::mount::open_tree(CWD, path, flags).attempt(what)?;
        let target = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).attempt(what)?;
        mount_on(&tree, &target).attempt(what)?;
        self.root = Some(tree);
        self.users.map_or(Ok(()), Users::make_files_as_root)
    }

    fn node(&mut self, node: &Node) -> Result<(), Failed> {
        let what = || format!("make the device {}", node.path);
        let (parent, name) = self.parent_of(&node.path)?;
        let (kind, mode) = (FileType::from_raw_mode(node.mode), Mode::from_raw_mode(node.mode & 0o7777));
        rustix::fs::mknodat(parent, name, kind, mode, rustix::fs::makedev(node.major, node.minor)).attempt(what)?;
        let (uid, gid) = (rustix::process::Uid::from_raw(node.uid), rustix::process::Gid::from_raw(node.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).attempt(what)?;
        rustix::fs::chmodat(parent, name, mode, rustix::fs::AtFlags::empty()).attempt(what)
    }

    fn filesystem(&mut self, fs: &Filesystem) -> Result<(), Failed> {
        let target = self.make_target(&fs.target, FileType::Directory, false)?;
        // What is mounted hides what was known.
        self.parent = None;
        let what = || format!("mount {} on {}", fs.kind, fs.target);
        let mut options = fs.options.clone();
        if fs.kind == "tmpfs" && !options.iter().any(|(name, _)| name == "mode") {
            // Whoever could use the directory can use what hides it.
            let mode = rustix::fs::fstat(&target).attempt(what)?.st_mode & 0o7777;
            options.push(("mode".to_owned(), format!("{mode:o}")));
        }
        let read_only = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        let later = if fs.copy_up { fs.attributes & read_only } else { 0 };
        let mount = match new_filesystem(&fs.kind, &options, fs.attributes & !later) {
            Err(_) if fs.optional => return Ok(()),
            result => result.attempt(what)?,
        };
        if fs.copy_up {
            copy_tree(&target, &mount).attempt(|| format!("copy {} into the {} on it", fs.target, fs.kind))?;
        }
        if later != 0 {
            sys::mount_setattr(mount.as_fd(), false, later, 0).attempt(what)?;
        }
        mount_on(&mount, &target).attempt(what)
    }

    fn remount(&self, remount: &Remount) -> Result<(), Failed> {
        let what = || format!("change the mount on {}", remount.path);
        let target = self.lookup(&remount.path, false)?.attempt(what)?;
        match sys::remount(target.as_fd(), remount.set, remount.clear) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Err(refuse(what(), "nothing is mounted there")),
            result => result.attempt(what),
        }
    }

    fn attach(&mut self, attach: &Attach) -> Result<(), Failed> {
        let tree = self.trees.get_mut(attach.slot as usize).and_then(Option::take);
        let tree = tree.ok_or_else(|| refuse("carry out the plan", format!("{} has no source", attach.target)))?;
        let what = || format!("mount on {}", attach.target);
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&tree).attempt(what)?.st_mode);
        let is_plain_file = !attach.follow && kind != FileType::Directory;
        let made = if is_plain_file { self.make_file(&attach.target)? } else { None };
        let target = match made {
            Some(target) => target,
            None => self.make_target(&attach.target, kind, attach.follow)?,
        };
        if attach.follow {
            let on = rustix::fs::fstatfs(&target).attempt(what)?.f_type;
            if on as u64 == rustix::fs::PROC_SUPER_MAGIC as u64 && !OWN_FIGURES.contains(&attach.target.as_str()) {
                return Err(refuse(what(), "it leads into /proc"));
            }
        }
        if kind == FileType::Directory {
            self.parent = None;
        }
        let (everywhere, top) = (attach.attributes & !attach.only_top, attach.attributes & attach.only_top);
        if everywhere != 0 || attach.propagation != 0 {
            sys::mount_setattr(tree.as_fd(), true, everywhere, attach.propagation).attempt(what)?;
        }
        if top != 0 {
            sys::mount_setattr(tree.as_fd(), false, top, 0).attempt(what)?;
        }
        mount_on(&tree, &target).attempt(what)
    }

    /// The parent directory, made if missing, and the last component. No link is followed on the way.
    fn parent_of<'p>(&mut self, path: &'p str) -> Result<(&OwnedFd, &'p str), Failed> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if self.parent.as_ref().is_none_or(|(known, _)| known != parent) {
            let opened = self.make_target(parent, FileType::Directory, false)?;
            self.parent = Some((parent.to_owned(), opened));
        }
        match &self.parent {
            Some((_, opened)) => Ok((opened, name)),
            None => Err(refuse(format!("open {parent}"), "it is not there")),
        }
    }

    /// Makes a file that is not there yet, in a directory reached without links, and opens it: the short way, taken
    /// for the nodes in our own /dev.
    fn make_file(&mut self, path: &str) -> Result<Option<OwnedFd>, Failed> {
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::WRONLY;
        Ok(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).ok())
    }

    fn lookup(&self, path: &str, follow: bool) -> Result<Result<OwnedFd, Errno>, Failed> {
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if !follow {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        Ok(inside::open(self.root()?, path, OFlags::PATH | OFlags::CLOEXEC, resolve))
    }

    /// Opens a place to mount on; makes it and what is missing above it.
    fn make_target(&self, path: &str, kind: FileType, follow: bool) -> Result<OwnedFd, Failed> {
        let refused = |error: Errno, at: &str| match error {
            Errno::LOOP => refuse(format!("mount on {path}"), format!("{at} of the image is a symbolic link")),
            error => Err::<(), _>(error).attempt(|| format!("open {at} in the container")).err().unwrap_or_default(),
        };
        match self.lookup(path, follow)? {
            Err(Errno::NOENT) => {}
            result => return result.map_err(|error| refused(error, path)),
        }
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut at = self.lookup("", follow)?.attempt(|| "open the root")?;
        for (index, part) in parts.iter().enumerate() {
            let so_far = parts[..=index].join("/");
            match self.lookup(&so_far, follow)? {
                Err(Errno::NOENT) => {
                    if index + 1 == parts.len() && kind != FileType::Directory {
                        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::WRONLY;
                        rustix::fs::openat(&at, *part, flags, Mode::from_raw_mode(0o644)).map(drop)
                    } else {
                        rustix::fs::mkdirat(&at, *part, Mode::from_raw_mode(0o755))
                    }
                    .attempt(|| format!("make /{so_far} in the container"))?;
                    at = self.lookup(&so_far, follow)?.map_err(|error| refused(error, &so_far))?;
                }
                found => at = found.map_err(|error| refused(error, &format!("/{so_far}")))?,
            }
        }
        Ok(at)
    }

    /// What is behind a link in the root is hidden as runc hides it; one that leads on by a descriptor or a process is refused.
    fn mask(&mut self, path: &str) -> Result<(), Failed> {
        let what = || format!("mask {path}");
        let target = match self.lookup(path, true)? {
            Err(Errno::NOENT) => return Ok(()),
            found => found.attempt(what)?,
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&target).attempt(what)?.st_mode);
        if kind != FileType::Directory {
            // Attached by us a moment ago, below our own /dev.
            let null = self.lookup("/dev/null", false)?.attempt(what)?;
            return copy_of(&null).and_then(|tree| mount_on(&tree, &target)).attempt(what);
        }
        if let Some(empty) = &self.empty {
            return copy_of(empty).and_then(|tree| mount_on(&tree, &target)).attempt(what);
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY.bits();
        let options = [("size".to_owned(), "0".to_owned()), ("nr_inodes".to_owned(), "2".to_owned())];
        let empty = new_filesystem("tmpfs", &options, u64::from(attributes)).attempt(what)?;
        mount_on(&empty, &target).attempt(what)?;
        // Copied for the next ones: only an attached mount can be copied on every kernel.
        self.empty = Some(empty);
        Ok(())
    }

    fn read_only(&mut self, path: &str) -> Result<(), Failed> {
        let what = || format!("make {path} read-only");
        let target = match self.lookup(path, true)? {
            Err(Errno::NOENT) => return Ok(()),
            found => found.attempt(what)?,
        };
        let tree = copy_of(&target).attempt(what)?;
        let attributes = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::mount_setattr(tree.as_fd(), true, attributes, 0).attempt(what)?;
        self.parent = None;
        mount_on(&tree, &target).attempt(what)
    }

    fn seal(&self, directory: &str) -> Result<(), Failed> {
        // What cannot be made here may be made or found by the process when it enters it; if not, that is told then.
        self.make_target(directory, FileType::Directory, true).ok();
        let attributes = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::mount_setattr(self.root()?.as_fd(), false, attributes, 0).attempt(|| "make the root read-only")
    }

    fn pivot(&mut self) -> Result<(), Failed> {
        let what = || "make it the root";
        rustix::process::fchdir(self.root()?).attempt(what)?;
        rustix::process::pivot_root(".", ".").attempt(what)?;
        // The old root lies on top of the new one now.
        rustix::mount::unmount(".", UnmountFlags::DETACH).attempt(what)?;
        rustix::process::chdir("/").attempt(what)
    }
}

/// Makes a terminal the /dev/console of the current root, which is the container's. By descriptors: links are refused,
/// and nothing that is swapped meanwhile leads elsewhere.
pub fn mount_console(terminal: &OwnedFd) -> Result<(), Failed> {
    let what = || "mount the terminal on /dev/console";
    let root = open_directory("/").attempt(what)?;
    let builder = Builder { root: Some(root), ..Builder::default() };
    let target = builder.make_target("/dev/console", FileType::CharacterDevice, false)?;
    copy_of(terminal).and_then(|mount| mount_on(&mount, &target)).attempt(what)
}

fn copy_of(mount: &OwnedFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(mount, "", flags)?)
}

fn mount_on(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

pub fn new_filesystem(kind: &str, options: &[(String, String)], attributes: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, key.as_str())?;
        } else {
            rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str())?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(io::Error::other)?);
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Opens a directory of the current root. `/proc/PID/fd/N`, `cwd`, `root` and their like lead anywhere, so not through
/// one of those.
pub fn open_directory(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// Makes what is missing of a path in the current root; used once inside, with the root as working directory.
pub fn make_directories(path: &str) -> rustix::io::Result<()> {
    match open_directory(path) {
        Err(Errno::NOENT) => {}
        result => return result.map(drop),
    }
    let mut at = open_directory("/")?;
    let mut so_far = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        so_far = format!("{so_far}/{part}");
        at = match open_directory(&so_far) {
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o755))?;
                open_directory(&so_far)?
            }
            result => result?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_hidden_and_cannot_be_looked_at_is_an_error() {
        let dir = std::env::temp_dir().join(format!("podbay-step-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.join("link")).unwrap();
        let root = rustix::fs::open(&dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut builder = Builder { root: Some(root), ..Builder::default() };
        let results = ["/loop", "/link", "/none"].map(|path| (builder.mask(path).is_ok(), builder.read_only(path).is_ok()));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(results, [(false, false), (true, true), (true, true)]);
    }
}
