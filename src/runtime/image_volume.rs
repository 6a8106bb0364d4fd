//! Images as volumes: an image's files for a container to read, stacked in the run directory and mounted from there as a
//! directory of the host is.
//!
//! ```text
//!  RUN/volumes/<container>/<number>/   ┬─ files      what is mounted
//!                                      ├─ empty      the lowest layer
//!                                      └─ layer-<n>  one with the pod's ids, where it has its own
//! ```
//!
//! It is an overlay without an upper directory, a single layer too: whoever may change mounts in a container can make a
//! bind mount writable, but not this.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::engine::Inner;
use super::record::ContainerRecord;
use super::{RuntimeError, mount, sys};
use crate::cri::{CriError, IdRange};
use crate::inside;

const VOLUMES: &str = "volumes";
const READ_ONLY: u64 = rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;

impl Inner {
    fn volumes_of(&self, record: &ContainerRecord) -> PathBuf {
        self.options.sandbox_run_dir(&record.sandbox_id).join(VOLUMES).join(&record.id)
    }

    /// Mounts the images that a container has as volumes, and says in its record where they are. What it has done of it
    /// when it fails is for [`Self::release_volumes`].
    pub fn mount_volumes(&self, record: &mut ContainerRecord) -> Result<(), RuntimeError> {
        let home = self.volumes_of(record);
        let ContainerRecord { id, config, .. } = record;
        for (number, mount) in config.mounts.iter_mut().enumerate() {
            let Some(volume) = &mut mount.image else { continue };
            let image = self.rootfs.prepare(&volume.image)?;
            self.rootfs.hold(&holder(id, number), &image.id)?;
            let failed =
                |cause: io::Error| CriError::failed(format!("mount image {} on {}", volume.image, mount.container_path.display()), cause);
            // Mapped here, layer by layer: the spec only sees whether they are the pod's.
            let files = stack(&image.layers, &home.join(number.to_string()), mount.ids).map_err(failed)?;
            mount.host_path = below(&files, &volume.sub_path).map_err(failed)?;
            volume.id = image.id;
        }
        Ok(())
    }

    /// Lets go of the images that a container has as volumes.
    pub fn release_volumes(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        let numbers: Vec<usize> =
            record.config.mounts.iter().enumerate().filter(|(_, mount)| mount.image.is_some()).map(|(number, _)| number).collect();
        if !numbers.is_empty() {
            remove(&self.volumes_of(record));
        }
        numbers.into_iter().try_for_each(|number| self.rootfs.release(&holder(&record.id, number))).map_err(Into::into)
    }
}

/// The name under which the image store keeps a volume's layers.
fn holder(container: &str, number: usize) -> String {
    format!("{container}_{number}")
}

/// The container for which the image store keeps something under this name.
pub fn container_of(holder: &str) -> &str {
    holder.split_once('_').map_or(holder, |(container, _)| container)
}

/// Unmounts all volumes below a sandbox's run directory.
pub fn unmount_all(run: &Path) {
    for entry in std::fs::read_dir(run.join(VOLUMES)).into_iter().flatten().flatten() {
        remove(&entry.path());
    }
}

/// Unmounts a container's volumes. Removes no more than empty directories: a mount that stays is not walked into.
fn remove(home: &Path) {
    for volume in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let mut places: Vec<PathBuf> = std::fs::read_dir(volume.path()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        // What is stacked goes before what it is made of.
        places.sort_unstable();
        for place in places {
            // Not mounted (any more) is fine.
            rustix::mount::unmount(&place, UnmountFlags::DETACH).ok();
            std::fs::remove_dir(&place).ok();
        }
        std::fs::remove_dir(volume.path()).ok();
    }
    std::fs::remove_dir(home).ok();
}

/// Mounts `layers`, topmost first, in `home`; returns where.
fn stack(layers: &[PathBuf], home: &Path, ids: Option<IdRange>) -> io::Result<PathBuf> {
    let (files, empty) = (home.join("files"), home.join("empty"));
    for place in [&files, &empty] {
        std::fs::create_dir_all(place)?;
    }
    let users = ids.map(|range| sys::user_namespace(range.host, range.length)).transpose()?;
    let mut lower = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        lower.push(open_directory(&match &users {
            Some(users) => map_layer(layer, home.join(format!("layer-{number}")), users)?,
            None => layer.clone(),
        })?);
    }
    lower.push(open_directory(&empty)?);
    // Descriptors instead of paths: short whatever the number of layers, and nothing to escape.
    let names: Vec<String> = lower.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
    let options = CString::new(format!("lowerdir={}", names.join(":"))).map_err(io::Error::other)?;
    rustix::mount::mount("overlay", &files, "overlay", MountFlags::RDONLY | MountFlags::NODEV, options.as_c_str())?;
    Ok(files)
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Shows a layer with the ids of a user namespace; returns where.
fn map_layer(layer: &Path, at: PathBuf, users: &std::fs::File) -> io::Result<PathBuf> {
    std::fs::create_dir_all(&at)?;
    let tree = rustix::mount::open_tree(CWD, layer, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount::id_map(tree.as_fd(), users.as_fd())?;
    // What all share is not written to by this way, whatever becomes of the mount.
    mount::set(tree.as_fd(), false, &mount::Attributes { set: READ_ONLY, ..mount::Attributes::default() })?;
    rustix::mount::move_mount(&tree, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(at)
}

/// The directory or file at a path of the image; links lead nowhere outside of it.
fn below(files: &Path, path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Ok(files.to_owned());
    }
    let root = open_directory(files)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = inside::open(&root, path, OFlags::PATH | OFlags::CLOEXEC, resolve).map_err(|errno| match errno {
        Errno::NOENT => io::Error::other(format!("the image has no {}", path.display())),
        errno => errno.into(),
    })?;
    // Nothing in it is ever moved, so this stays its path.
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}
