//! Volumes on this host: made before a pod's sandbox, taken away whole after it.
//!
//! - `plan` (pure): a pod's volumes as what has to be on disk
//! - `downward` (pure): what a pod is told of itself
//! - `files`: the atomic writer for what the agent writes
//! - `options` (pure): with what persistent volumes are mounted
//! - `made`: directories of persistent volumes that are made on this node; `group`: a group that is given a volume
//!
//! What is a pod's own lies below `DATA_DIR/pods/<uid>`; tmpfs and subPath mounts are made in the agent's own mount
//! namespace, which is the host's. Nothing is ever deleted below a path on which something is mounted.

mod downward;
pub mod files;
mod group;
pub mod made;
pub mod options;
pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, Volume as ApiVolume, VolumeDevice};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use self::files::Owner;
use self::options::Options;
use self::plan::{Check, Content, Medium, Volume, VolumeError};
use super::beneath;
use super::config::Layout;
use super::env;
use super::observed::uid;
use crate::cri::{Device, IdRange};
use crate::inside;
use crate::model::volume as persistent;

/// A tmpfs to statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Plan(#[from] VolumeError),
    #[error("volume {volume}: {attempt}: {source}")]
    Io {
        volume: String,
        attempt: String,
        #[source]
        source: io::Error,
    },
    #[error("volume {volume}: {path} {problem}")]
    HostPath { volume: String, path: String, problem: &'static str },
    #[error("subPath {0:?} is not valid")]
    SubPath(String),
    #[error("{0} is still a mount point")]
    StillMounted(PathBuf),
}

fn io_error(volume: &str, attempt: impl Into<String>) -> impl FnOnce(io::Error) -> MountError {
    let (volume, attempt) = (volume.to_owned(), attempt.into());
    move |source| MountError::Io { volume, attempt, source }
}

/// Makes every volume of a pod, or brings its files up to date. Again: nothing changes. `users`: the ids of the pod's own
/// user namespace.
///
/// # Errors
/// The first volume that cannot be made; the others are made all the same.
pub fn prepare(pod: &Pod, volumes: &[Volume], layout: &Layout, users: Option<IdRange>) -> Result<(), MountError> {
    let uid = uid(pod);
    fs::create_dir_all(layout.volumes(uid)).map_err(io_error("-", "create the pod's directory"))?;
    fs::set_permissions(layout.pod(uid), fs::Permissions::from_mode(0o750)).map_err(io_error("-", "set the pod's directory's mode"))?;
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
    let made = volumes.iter().map(|volume| make(volume, layout, &layout.volume(uid, &volume.name), group, users));
    made.fold(Ok(()), Result::and)
}

/// Whether a volume's files have the ids that its pod's user namespace has on the host, so that nothing has to map them:
/// those in memory, which no mount can map before Linux 6.3. On the disk they have the pod's ids as the pod knows them.
pub fn has_hosts_ids(layout: &Layout, uid: &str, volume: &str, users: IdRange) -> bool {
    // A link to a persistent volume is root's: that has the ids as the pod knows them.
    let owner = fs::symlink_metadata(layout.volume(uid, volume)).map(|meta| meta.uid());
    // Its users may have given it to another one of theirs.
    owner.is_ok_and(|owner| (users.host..users.host.saturating_add(users.length)).contains(&owner))
}

/// Who has a volume in memory: whoever has it already, else the pod's own root.
fn in_memory_of(volume: &str, dir: &Path, group: Option<u32>, users: Option<IdRange>) -> Result<(bool, Owner), MountError> {
    let is_there = is_mount_point(dir).map_err(io_error(volume, "read the mount table"))?;
    let theirs = users.map_or(0, |range| range.host);
    let was_made_for_a_map = is_there && fs::metadata(dir).map_err(io_error(volume, "look at its tmpfs"))?.uid() < theirs;
    Ok((is_there, Owner { root: if was_made_for_a_map { 0 } else { theirs }, group }))
}

fn make(volume: &Volume, layout: &Layout, dir: &Path, group: Option<u32>, users: Option<IdRange>) -> Result<(), MountError> {
    let name = volume.name.as_str();
    match &volume.content {
        Content::Host { path, check } => host_path(name, path, *check),
        Content::Persistent { path, check, group: is_groups, options } => {
            host_path(name, path, *check)?;
            has_found(name, path, dir, group.filter(|_| *is_groups), options)
        }
        Content::Made { name: own, volume, group: is_groups, options } => {
            let group = group.filter(|_| *is_groups);
            let path = made::make(layout, own, volume, group).map_err(io_error(name, format!("make the directory of {own}")))?;
            has_found(name, &path, dir, group, options)
        }
        Content::Empty { medium: Medium::Disk, .. } => empty(name, dir, group),
        Content::Empty { medium, size_bytes } => {
            directory(name, dir)?;
            let (is_there, owner) = in_memory_of(name, dir, group, users)?;
            if is_there {
                return Ok(());
            }
            // Mode and owner with the mount itself: it is there as a whole or not at all.
            let size = size_bytes.map(|size| format!("size={size},")).unwrap_or_default();
            let options = format!("{size}mode={:o},{}", empty_mode(group), of_owner(owner));
            match medium {
                Medium::HugePages(page) => {
                    in_memory(name, "hugetlbfs", dir, &format!("pagesize={page},{options}"))?;
                    // It takes no more of the mode than permissions.
                    fs::set_permissions(dir, fs::Permissions::from_mode(empty_mode(group))).map_err(io_error(name, "set its mode"))
                }
                _ => in_memory(name, "tmpfs", dir, &options),
            }
        }
        Content::Files { memory, files } => {
            directory(name, dir)?;
            let mut owner = Owner { root: 0, group };
            if *memory {
                let found = in_memory_of(name, dir, group, users)?;
                owner = found.1;
                memory_for(name, dir, files::room(files), found)?;
            }
            let (user, of_group) = owner.ids();
            chown(dir, Some(user), Some(of_group)).map_err(io_error(name, "set its owner"))?;
            fs::set_permissions(dir, fs::Permissions::from_mode(files::directory_mode(owner))).map_err(io_error(name, "set its mode"))?;
            if files::write(dir, files, owner).map_err(io_error(name, "write its files"))? {
                tracing::debug!(volume = name, "wrote files");
            }
            Ok(())
        }
    }
}

/// Found once, a persistent volume stays the pod's, whatever becomes of its claim, and with no server to ask.
fn has_found(volume: &str, path: &Path, link: &Path, group: Option<u32>, options: &Options) -> Result<(), MountError> {
    if let Some(group) = group {
        group::give(path, group).map_err(io_error(volume, format!("give it to the group {group}")))?;
    }
    let note = |what: &Path, at: &Path| match std::os::unix::fs::symlink(what, at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(volume, "note where it is")(error)),
        _ => Ok(()),
    };
    // Before its place: who knows that knows all.
    if !options.is_empty() {
        note(Path::new(&options.to_string()), &options_note(link))?;
    }
    note(path, link)
}

/// Where it is noted with what a persistent volume is mounted, in a link that leads nowhere: it is there as a whole or not at
/// all. No volume's name begins with a dot.
fn options_note(link: &Path) -> PathBuf {
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    link.with_file_name(format!(".{name}.options"))
}

/// With what containers mount a persistent volume that a pod has found.
fn options_of(layout: &Layout, uid: &str, volume: &str) -> Result<Options, MountError> {
    match fs::read_link(options_note(&layout.volume(uid, volume))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Options::default()),
        Err(error) => Err(io_error(volume, "read its mount options")(error)),
        Ok(words) => Options::parse([words.to_string_lossy().as_ref()]).map_err(io::Error::other).map_err(io_error(volume, "mount it")),
    }
}

fn directory(volume: &str, dir: &Path) -> Result<bool, MountError> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error(volume, "create its directory")(error)),
    }
}

/// Everybody may write into an emptyDir; with an fsGroup what is made there is the group's.
fn empty_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o2777 } else { 0o777 }
}

/// A directory that appears with its mode and group, so that a crash leaves none that nobody can write to.
fn empty(volume: &str, dir: &Path, group: Option<u32>) -> Result<(), MountError> {
    if dir.symlink_metadata().is_ok() {
        return Ok(());
    }
    // No volume's name begins with a dot.
    let next = dir.with_file_name(format!(".{volume}.new"));
    let make = || -> io::Result<()> {
        if next.symlink_metadata().is_ok() {
            fs::remove_dir(&next)?;
        }
        fs::create_dir(&next)?;
        chown(&next, None, group)?;
        fs::set_permissions(&next, fs::Permissions::from_mode(empty_mode(group)))?;
        fs::rename(&next, dir)
    };
    make().map_err(io_error(volume, "make its directory"))
}

fn in_memory(volume: &str, kind: &str, dir: &Path, options: &str) -> Result<(), MountError> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mounted = rustix::mount::mount(kind, dir, kind, flags, options.as_c_str());
    mounted.map_err(|errno| io_error(volume, format!("mount a {kind}"))(errno.into()))
}

/// Mount options.
fn of_owner(owner: Owner) -> String {
    let (user, group) = owner.ids();
    format!("uid={user},gid={group}")
}

/// A tmpfs with room for `bytes` more than it holds, and for little else.
fn memory_for(volume: &str, dir: &Path, bytes: u64, (is_there, owner): (bool, Owner)) -> Result<(), MountError> {
    if !is_there {
        return in_memory(volume, "tmpfs", dir, &format!("size={bytes},mode=755,{}", of_owner(owner)));
    }
    let room = rustix::fs::statvfs(dir).map_err(|errno| io_error(volume, "look at its tmpfs")(errno.into()))?;
    let wanted = (room.f_blocks - room.f_bfree) * room.f_frsize + bytes;
    if room.f_blocks * room.f_frsize == wanted {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let size = std::ffi::CString::new(format!("size={wanted}")).unwrap_or_default();
    rustix::mount::mount_remount(dir, flags, size.as_c_str()).map_err(|errno| io_error(volume, "size its tmpfs")(errno.into()))
}

fn host_path(volume: &str, path: &Path, check: Check) -> Result<(), MountError> {
    let wrong = |problem| Err(MountError::HostPath { volume: volume.to_owned(), path: path.display().to_string(), problem });
    let found = fs::metadata(path).ok();
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(|meta| test(&meta.file_type()));
    match check {
        // As the kubelet's runtime: what is bound must exist, a directory is made where nothing is.
        Check::None | Check::DirectoryOrCreate if found.is_none() => {
            host_directory(path).map_err(io_error(volume, format!("create {}", path.display())))
        }
        Check::FileOrCreate if found.is_none() => {
            let made = fs::File::create_new(path).and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o644)));
            made.map_err(io_error(volume, format!("create {}", path.display())))
        }
        _ if found.is_none() => wrong("is not there"),
        Check::Directory | Check::DirectoryOrCreate if !is(fs::FileType::is_dir) => wrong("is not a directory"),
        Check::File | Check::FileOrCreate if !is(fs::FileType::is_file) => wrong("is not a file"),
        Check::Socket if !is(fs::FileType::is_socket) => wrong("is not a socket"),
        Check::CharDevice if !is(fs::FileType::is_char_device) => wrong("is not a character device"),
        Check::BlockDevice if !is(fs::FileType::is_block_device) => wrong("is not a block device"),
        _ => Ok(()),
    }
}

/// Makes a directory and those above it, 0755 whatever the umask.
fn host_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), host_directory)?;
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Host paths of a container's volume mounts, in their order; subPaths are resolved inside their volume. Of an image, which
/// the runtime mounts, it is the path in it.
///
/// # Errors
/// A mount of no volume, or a subPath that leads out of it.
pub fn mount_paths(pod: &Pod, container: &Container, envs: &[(String, String)], layout: &Layout) -> Result<Vec<PathBuf>, MountError> {
    let uid = uid(pod);
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let images: BTreeSet<&str> = volumes().filter(|volume| volume.image.is_some()).map(|volume| volume.name.as_str()).collect();
    let known: BTreeMap<&str, &ApiVolume> = volumes().map(|volume| (volume.name.as_str(), volume)).collect();
    let source_of = |name: &str| -> Result<PathBuf, MountError> {
        let volume = known.get(name).ok_or_else(|| VolumeError::Unsupported(name.to_owned()))?;
        match &volume.host_path {
            Some(source) => Ok(Path::new("/").join(&source.path)),
            None if persistent::claimed("", volume).is_some() => place_of(layout, uid, name),
            None => Ok(layout.volume(uid, name)),
        }
    };
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts
        .map(|(index, mount)| {
            let source = source_of(&mount.name)?;
            let sub = match (&mount.sub_path, &mount.sub_path_expr) {
                (_, Some(expression)) if !expression.is_empty() => env::expand_all(std::slice::from_ref(expression), envs).concat(),
                (Some(path), _) => path.clone(),
                _ => String::new(),
            };
            let sub = cleaned(&sub);
            if images.contains(mount.name.as_str()) {
                return if descends(&sub) { Ok(sub.into()) } else { Err(MountError::SubPath(sub)) };
            }
            let options = options_of(layout, uid, &mount.name)?;
            if sub.is_empty() && options.is_empty() {
                return Ok(source);
            }
            let target = layout.sub_paths(uid).join(&container.name).join(index.to_string());
            bind(&mount.name, (&source, &sub), &target, &options)
        })
        .collect()
}

/// Where a persistent volume that a pod has found is on the host.
///
/// # Errors
/// It is not there (after a start of the host without its disk): nobody makes an empty one in its place, and the pod looks
/// for it anew.
fn place_of(layout: &Layout, uid: &str, volume: &str) -> Result<PathBuf, MountError> {
    let path = fs::read_link(layout.volume(uid, volume)).map_err(io_error(volume, "find its place"))?;
    if path.exists() {
        return Ok(path);
    }
    Err(MountError::HostPath { volume: volume.to_owned(), path: path.display().to_string(), problem: "is not there" })
}

/// The persistent volumes that a pod has found.
pub fn found(pod: &Pod, layout: &Layout) -> BTreeSet<String> {
    let claimed = persistent::claims(pod).map(|claimed| claimed.volume);
    claimed.filter(|volume| place_of(layout, uid(pod), volume).is_ok()).map(str::to_owned).collect()
}

/// The persistent volumes that a container has as devices.
///
/// # Errors
/// One of them is not there.
pub fn devices(pod: &Pod, container: &Container, layout: &Layout) -> Result<Vec<Device>, MountError> {
    let volumes = || pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let device = |it: &VolumeDevice| {
        let host_path = place_of(layout, uid(pod), &it.name)?;
        let claim = volumes().find(|volume| volume.name == it.name).and_then(|volume| volume.persistent_volume_claim.as_ref());
        let read_only = claim.is_some_and(|claim| claim.read_only == Some(true));
        // As the kubelet: a node of its own may be made of it, or it may only be read.
        let permissions = if read_only { "r" } else { "mrw" }.to_owned();
        Ok(Device { host_path, container_path: Path::new("/").join(&it.device_path), permissions })
    };
    container.volume_devices.iter().flatten().map(device).collect()
}

/// Binds what `sub` is inside `volume` to `target`, by descriptor: nothing a container does to the path
/// meanwhile leads elsewhere. An empty one is the volume itself.
fn bind(volume: &str, (source, sub): (&Path, &str), target: &Path, options: &Options) -> Result<PathBuf, MountError> {
    let found = open_beneath(source, sub).map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::XDEV.raw_os_error() || code == rustix::io::Errno::LOOP.raw_os_error() => {
            MountError::SubPath(sub.to_owned())
        }
        _ => io_error(volume, format!("open subPath {sub:?}"))(error),
    })?;
    unmount_below(target)?;
    let kind = rustix::fs::fstat(&found).map_err(|errno| io_error(volume, "look at its subPath")(errno.into()))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(kind.st_mode).is_dir();
    let prepare = || -> io::Result<()> {
        fs::create_dir_all(target.parent().unwrap_or(target))?;
        match target.symlink_metadata() {
            Ok(meta) if meta.is_dir() == is_dir => Ok(()),
            Ok(meta) if meta.is_dir() => fs::remove_dir(target).and_then(|()| fs::File::create_new(target).map(drop)),
            Ok(_) => fs::remove_file(target).and_then(|()| fs::create_dir(target)),
            Err(_) if is_dir => fs::create_dir(target),
            Err(_) => fs::File::create_new(target).map(drop),
        }
    };
    prepare().map_err(io_error(volume, "make a place for its subPath"))?;
    let mount = || -> rustix::io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(found.as_fd(), "", flags)?;
        rustix::mount::move_mount(tree.as_fd(), "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    mount().map_err(|errno| io_error(volume, "bind its subPath")(errno.into()))?;
    if !options.is_empty() {
        let limit = || -> rustix::io::Result<()> {
            let flags = options.over(rustix::fs::fstatvfs(&found)?.f_flag);
            rustix::mount::mount_remount(target, MountFlags::BIND | flags, c"")
        };
        limit().map_err(|errno| io_error(volume, format!("mount it with {options}"))(errno.into()))?;
    }
    Ok(target.to_owned())
}

/// `./a` is `a`, as to the kubelet, which cleans such paths.
fn cleaned(sub: &str) -> String {
    let parts = Path::new(sub).components().filter(|part| !matches!(part, std::path::Component::CurDir));
    parts.collect::<PathBuf>().to_string_lossy().into_owned()
}

fn descends(sub: &str) -> bool {
    Path::new(sub).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Opens `sub` inside `root`, making directories that are missing with the mode of `root` itself: whoever
/// may write to the volume may write there. In memory they have its owner as well, who is one of the pod's own users then;
/// elsewhere they are root's, as the file system of a `hostPath` may let nobody give anything away. Never leaves `root`.
fn open_beneath(root: &Path, sub: &str) -> io::Result<OwnedFd> {
    if !descends(sub) {
        return Err(rustix::io::Errno::XDEV.into());
    }
    let top = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let like = rustix::fs::fstat(&top)?;
    let in_memory = rustix::fs::fstatfs(&top)?.f_type as i64 == TMPFS_MAGIC;
    if sub.is_empty() {
        return Ok(top);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path| inside::open(&top, path, OFlags::PATH | OFlags::CLOEXEC, resolve);
    let mut so_far = PathBuf::new();
    for part in Path::new(sub) {
        let parent = if so_far.as_os_str().is_empty() { top.try_clone()? } else { open(&so_far)? };
        so_far.push(part);
        match open(&so_far) {
            Err(rustix::io::Errno::NOENT) => {
                let made = beneath::make_directory(&parent, Path::new(part), like.st_mode & 0o7777)?;
                if in_memory {
                    beneath::give(&made, (like.st_uid, like.st_gid))?;
                }
            }
            Err(errno) => return Err(errno.into()),
            Ok(_) => {}
        }
    }
    Ok(open(&so_far)?)
}

/// Whether anything of the pod's volumes is on disk.
pub fn exist(layout: &Layout, uid: &str) -> bool {
    layout.pod(uid).symlink_metadata().is_ok()
}

/// Whether every volume of the pod was made once: what it lacked may have kept one back.
pub fn complete(pod: &Pod, layout: &Layout) -> bool {
    let uid = uid(pod);
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut own = all.filter(|volume| volume.host_path.is_none() && volume.image.is_none());
    exist(layout, uid) && own.all(|volume| layout.volume(uid, &volume.name).symlink_metadata().is_ok())
}

/// Takes a pod's volumes away: mounts, then files. No error when there are none.
///
/// # Errors
/// Something is still mounted below, and then nothing is deleted.
pub fn tear_down(layout: &Layout, uid: &str) -> Result<(), MountError> {
    let dir = layout.pod(uid);
    unmount_below(&dir)?;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("-", format!("delete {}", dir.display()))(error)),
        _ => Ok(()),
    }
}

/// UIDs with something on disk.
pub fn known_uids(layout: &Layout) -> Vec<String> {
    let entries = fs::read_dir(layout.data_dir.join("pods")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn unmount_below(path: &Path) -> Result<(), MountError> {
    let of = |path: &Path| mounts_below(path).map_err(io_error("-", "read the mount table"));
    let mut mounts = of(path)?;
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    for mount in &mounts {
        match rustix::mount::unmount(mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(io_error("-", format!("unmount {}", mount.display()))(errno.into())),
        }
    }
    match of(path)?.into_iter().next() {
        Some(left) => Err(MountError::StillMounted(left)),
        None => Ok(()),
    }
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(mounts_below(path)?.iter().any(|mount| mount == path))
}

/// Mount points at or below a path, as the kernel names them; a path that is not there has none.
///
/// # Errors
/// The path or the mount table cannot be read.
pub fn mounts_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    Ok(points.filter(|point| point.starts_with(&path)).collect())
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSecurityContext;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1"},
            "spec": {"containers": [{"name": "main", "volumeMounts": [
                {"name": "scratch", "mountPath": "/a"}, {"name": "host", "mountPath": "/b"}
            ]}], "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/srv"}}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_directory_is_made_once_and_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        let volumes = [Volume { name: "scratch".into(), content: Content::Empty { medium: Medium::Disk, size_bytes: None } }];
        prepare(&pod(), &[], &layout, None).unwrap();
        assert!(exist(&layout, "u1") && !complete(&pod(), &layout));
        prepare(&pod(), &volumes, &layout, None).unwrap();
        let made = layout.volume("u1", "scratch");
        fs::write(made.join("kept"), "x").unwrap();
        prepare(&pod(), &volumes, &layout, None).unwrap();
        assert_eq!(fs::read_to_string(made.join("kept")).unwrap(), "x");
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o777);
        assert!(exist(&layout, "u1") && complete(&pod(), &layout));
        tear_down(&layout, "u1").unwrap();
        tear_down(&layout, "u1").unwrap();
        assert!(!exist(&layout, "u1"));
    }

    #[test]
    fn mounts_find_their_volumes() {
        let layout = Layout { data_dir: "/d".into() };
        let container = &pod().spec.unwrap().containers[0];
        let paths = mount_paths(&pod(), container, &[], &layout).unwrap();
        assert_eq!(paths, [PathBuf::from("/d/pods/u1/volumes/scratch"), PathBuf::from("/srv")]);
    }

    #[test]
    fn a_persistent_volume_that_is_not_there_is_looked_for_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().join("data") };
        let disk = dir.path().join("disk");
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
        .unwrap();
        let options = Options::parse(["noexec"]).unwrap();
        let wanted = [Volume {
            name: "v".into(),
            content: Content::Persistent { path: disk.clone(), check: Check::Directory, group: true, options },
        }];
        fs::create_dir(&disk).unwrap();
        prepare(&pod, &wanted, &layout, None).unwrap();
        assert_eq!(found(&pod, &layout), ["v".to_owned()].into());
        assert_eq!(options_of(&layout, "u", "v").unwrap().to_string(), "noexec");
        assert!(options_of(&layout, "u", "other").unwrap().is_empty());
        // The host starts again, without its disk.
        fs::remove_dir(&disk).unwrap();
        assert_eq!(found(&pod, &layout), BTreeSet::new());
        let mounts = serde_json::from_value(serde_json::json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}]})).unwrap();
        let error = mount_paths(&pod, &mounts, &[], &layout).unwrap_err().to_string();
        assert_eq!(error, format!("volume v: {} is not there", disk.display()));
        assert!(prepare(&pod, &wanted, &layout, None).is_err());
        fs::create_dir(&disk).unwrap();
        prepare(&pod, &wanted, &layout, None).unwrap();
        assert_eq!(found(&pod, &layout), ["v".to_owned()].into());
    }

    #[test]
    fn host_paths_are_what_they_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let (file, sub) = (dir.path().join("f"), dir.path().join("d"));
        fs::write(&file, "").unwrap();
        let table = [
            (&file, Check::File, true),
            (&file, Check::Directory, false),
            (&file, Check::Socket, false),
            (&sub, Check::Directory, false),
            (&sub, Check::DirectoryOrCreate, true),
            (&sub, Check::Directory, true),
            (&sub, Check::FileOrCreate, false),
        ];
        for (path, check, want) in table {
            assert_eq!(host_path("v", path, check).is_ok(), want, "{path:?} {check:?}");
        }
    }

    #[test]
    fn a_sub_path_never_leaves_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::write(dir.path().join("outside"), "x").unwrap();
        symlink("../outside", volume.join("up")).unwrap();
        symlink("/etc", volume.join("abs")).unwrap();
        symlink("real", volume.join("inner")).unwrap();
        for bad in ["../outside", "up", "abs/passwd", "/etc", "real/../../outside", "abs"] {
            assert!(open_beneath(&volume, bad).is_err(), "{bad}");
        }
        for good in ["real", "inner", "new/deep", "inner/made"] {
            assert!(open_beneath(&volume, good).is_ok(), "{good}");
        }
        assert!(volume.join("real/made").is_dir(), "made inside, through the link");
    }

    #[test]
    fn a_sub_path_is_cleaned_and_what_leads_away_is_not() {
        for (sub, meant, is_taken) in [
            ("./a", "a", true),
            ("a/./b/", "a/b", true),
            (".", "", true),
            ("", "", true),
            ("..", "..", false),
            ("./../a", "../a", false),
            ("/a", "/a", false),
        ] {
            assert_eq!((cleaned(sub).as_str(), descends(&cleaned(sub))), (meant, is_taken), "{sub:?}");
        }
    }

    #[test]
    fn sub_path_directories_have_the_mode_of_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o2777, 0o700] {
            let volume = dir.path().join(format!("{mode:o}"));
            fs::create_dir(&volume).unwrap();
            fs::set_permissions(&volume, fs::Permissions::from_mode(mode)).unwrap();
            open_beneath(&volume, "new/deep").unwrap();
            for made in ["new", "new/deep"] {
                assert_eq!(fs::symlink_metadata(volume.join(made)).unwrap().permissions().mode() & 0o7777, mode, "{made} in {mode:o}");
            }
        }
    }

    #[test]
    fn a_half_made_empty_dir_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        let volumes = [Volume { name: "scratch".into(), content: Content::Empty { medium: Medium::Disk, size_bytes: None } }];
        // A crash before it had its mode: it does not have its name yet either.
        fs::create_dir_all(layout.volumes("u1").join(".scratch.new")).unwrap();
        assert!(layout.volume("u1", "scratch").symlink_metadata().is_err());
        prepare(&pod(), &volumes, &layout, None).unwrap();
        let mode = fs::metadata(layout.volume("u1", "scratch")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777);
        assert_eq!(fs::read_dir(layout.volumes("u1")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_in_memory_belongs_to_the_pods_own_users() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        let users = IdRange { host: 655_360, length: 65_536 };
        let files = [(PathBuf::from("a/b"), plan::File { bytes: b"x".to_vec(), mode: 0o400 })].into();
        let volumes = [
            Volume { name: "secret".into(), content: Content::Files { memory: true, files } },
            Volume { name: "memory".into(), content: Content::Empty { medium: Medium::Memory, size_bytes: None } },
            Volume { name: "disk".into(), content: Content::Empty { medium: Medium::Disk, size_bytes: None } },
        ];
        let mut pod = pod();
        pod.spec.as_mut().unwrap().security_context = Some(PodSecurityContext { fs_group: Some(7), ..Default::default() });
        let owner = |path: &str| {
            let meta = fs::metadata(layout.volumes("u1").join(path)).unwrap();
            (meta.uid(), meta.gid())
        };
        for _ in 0..2 {
            prepare(&pod, &volumes, &layout, Some(users)).unwrap();
            let theirs = ["secret", "secret/a/b", "secret/..data/a", "memory"].map(owner);
            assert_eq!((theirs, owner("disk")), ([(655_360, 655_367); 4], (0, 7)));
        }
        let marks = ["secret", "memory", "disk", "none"].map(|name| has_hosts_ids(&layout, "u1", name, users));
        assert_eq!(marks, [true, true, false, false]);
        // The pod's own to give away, and one of its paths is like the whole.
        chown(layout.volume("u1", "memory"), Some(655_460), None).unwrap();
        assert!(has_hosts_ids(&layout, "u1", "memory", users));
        open_beneath(&layout.volume("u1", "memory"), "sub").unwrap();
        assert_eq!(owner("memory/sub"), (655_460, 655_367));
        tear_down(&layout, "u1").unwrap();
        // What an earlier agent made for the mount to map stays so while the pod lives.
        prepare(&pod, &volumes, &layout, None).unwrap();
        prepare(&pod, &volumes, &layout, Some(users)).unwrap();
        assert_eq!(["secret", "secret/a/b", "memory"].map(owner), [(0, 7); 3]);
        assert!(!has_hosts_ids(&layout, "u1", "secret", users));
        tear_down(&layout, "u1").unwrap();
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
