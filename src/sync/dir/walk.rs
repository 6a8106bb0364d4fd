//! One look at a directory: every manifest in it, through descriptors only.
//!
//! Each step is an `openat2(RESOLVE_BENEATH)` from the root's descriptor: neither a link in the tree
//! nor one that is swapped in during the walk leads out of it.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2, statat};

use crate::sync::select::{IGNORE_FILE, Limits, Selection, TreeError, is_manifest};
use crate::sync::source::Tree;

/// What makes a mount the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    filesystem: i64,
}

pub(super) struct Look {
    pub identity: Identity,
    /// Without its revision.
    pub tree: Tree,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error("open {}: {error}", path.display())]
    Root { path: PathBuf, error: rustix::io::Errno },
    #[error("{} is not a directory: name the one it is in", path.display())]
    File { path: PathBuf },
    #[error("read {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path} is a link that leads out of the directory or nowhere")]
    Link { path: String },
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads every manifest below `path` in `root`.
pub(super) fn look(root: &Path, path: &str, limits: Limits) -> Result<Look, LookError> {
    let failed = |error| match error {
        rustix::io::Errno::NOTDIR => LookError::File { path: root.to_owned() },
        error => LookError::Root { path: root.to_owned(), error },
    };
    let root_fd = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let stat = fstat(&root_fd).map_err(failed)?;
    let filesystem = fstatfs(&root_fd).map_err(failed)?;
    // The device's width differs between architectures.
    #[allow(clippy::useless_conversion)]
    let identity = Identity { device: stat.st_dev.into(), filesystem: filesystem.f_type as i64 };
    if stat.st_nlink == 0 {
        return Err(failed(rustix::io::Errno::NOENT));
    }
    let start = if path.is_empty() {
        Some(root_fd)
    } else {
        match beneath(&root_fd, path, OFlags::DIRECTORY) {
            Ok(fd) => Some(fd),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => None,
            Err(error) => return Err(failed(error)),
        }
    };
    let Some(start) = start else {
        return Ok(Look { identity, tree: Tree::default() });
    };
    let ignore = match beneath(&start, IGNORE_FILE, OFlags::empty()) {
        Ok(file) => read(file, IGNORE_FILE, limits.file_bytes)?,
        Err(_) => Vec::new(),
    };
    let mut selection = Selection::new(limits, &ignore);
    let mut todo = vec![String::new()];
    while let Some(directory) = todo.pop() {
        walk(&start, &directory, &mut selection, &mut todo)?;
    }
    Ok(Look { identity, tree: selection.finish() })
}

fn beneath(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn walk(start: &OwnedFd, directory: &str, selection: &mut Selection, todo: &mut Vec<String>) -> Result<(), LookError> {
    let here = if directory.is_empty() { "." } else { directory };
    let failed = |error: rustix::io::Errno| LookError::Read { path: here.to_owned(), error: error.into() };
    let fd = beneath(start, here, OFlags::DIRECTORY | OFlags::NOFOLLOW).map_err(failed)?;
    for entry in Dir::read_from(&fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        let Some(name) = OsStr::from_bytes(bytes).to_str() else {
            let name = String::from_utf8_lossy(bytes).into_owned();
            if is_manifest(&name) { return Err(TreeError::BadName(name).into()) } else { continue }
        };
        let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?.st_mode),
            kind => kind,
        };
        if kind == FileType::Directory {
            if selection.enters(&path)? {
                todo.push(path);
            }
        } else if selection.takes(&path)? {
            file(start, &path, kind, selection)?;
        }
    }
    Ok(())
}

/// A regular file, or a link to one inside the tree.
fn file(start: &OwnedFd, path: &str, kind: FileType, selection: &mut Selection) -> Result<(), LookError> {
    if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
        selection.note(format!("{path}: not a regular file, left out"));
        return Ok(());
    }
    let fd = match beneath(start, path, OFlags::empty()) {
        Ok(fd) => fd,
        Err(_) if kind == FileType::Symlink => return Err(LookError::Link { path: path.to_owned() }),
        Err(error) => return Err(LookError::Read { path: path.to_owned(), error: error.into() }),
    };
    let stat = fstat(&fd).map_err(|error| LookError::Read { path: path.to_owned(), error: error.into() })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        selection.note(format!("{path}: a link to something that is not a file, left out"));
        return Ok(());
    }
    let content = read(fd, path, selection.room())?;
    selection.add(path, content)?;
    Ok(())
}

/// Reads at most one byte more than may be there, whatever the size said.
fn read(fd: OwnedFd, path: &str, limit: u64) -> Result<Vec<u8>, LookError> {
    let mut content = Vec::new();
    let failed = |error| LookError::Read { path: path.to_owned(), error };
    std::fs::File::from(fd).take(limit + 1).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}
