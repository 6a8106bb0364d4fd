//! Takes what is ours off the disk, and leaves what others have mounted there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::mount::{UnmountFlags, unmount};

use crate::agent::volume::mounts_below;
use crate::cli::output;

/// Takes away every mount below a directory of ours, innermost first. One on the directory itself stays: the
/// host keeps what is ours on a filesystem of its own.
pub fn unmount_below(dir: &Path) -> anyhow::Result<()> {
    let Ok(top) = dir.canonicalize() else { return Ok(()) };
    let mut targets = mounts(&top)?;
    targets.retain(|target| *target != top);
    targets.sort_unstable();
    for target in targets.iter().rev() {
        match unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("unmount {}", target.display())),
        }
    }
    Ok(())
}

/// Removes a file or a tree. A tree on a filesystem of its own is emptied; nothing in what is mounted further
/// down is touched, and it is named.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if !is_dir {
        return remove_whole(path);
    }
    let top = path.canonicalize().with_context(|| format!("look at {}", path.display()))?;
    match mounts(&top)? {
        none if none.is_empty() => remove_whole(path),
        mounts => remove_around(&top, &mounts),
    }
}

/// Removes what is in a directory that is a mount point or holds some.
fn remove_around(dir: &Path, mounts: &[PathBuf]) -> anyhow::Result<()> {
    let read = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(read)? {
        let path = entry.with_context(read)?.path();
        if mounts.contains(&path) {
            anstream::eprintln!("{}", output::clean(&format!("left: {} is mounted, and not by podbay", path.display())));
        } else if mounts.iter().any(|mount| mount.starts_with(&path)) {
            remove_around(&path, mounts)?;
        } else {
            remove_whole(&path)?;
        }
    }
    Ok(())
}

fn remove_whole(path: &Path) -> anyhow::Result<()> {
    let outcome = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Whether a filesystem is mounted on the directory itself.
pub fn is_mounted(dir: &Path) -> anyhow::Result<bool> {
    let Ok(top) = dir.canonicalize() else { return Ok(false) };
    Ok(mounts(&top)?.contains(&top))
}

fn mounts(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    mounts_below(dir).context("read /proc/self/mountinfo")
}
