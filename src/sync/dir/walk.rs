//! One look at a directory: every manifest in it, through descriptors only.
//!
//! Each step is an `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)` from the root's descriptor: the kernel follows
//! neither a link in the tree nor one that is swapped in during the walk. `link::follow` does, inside the tree.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, fstatfs, openat, openat2, readlinkat, statat, statx,
};
use rustix::io::Errno;

use crate::sync::link::{End, Entry, follow};
use crate::sync::select::{IGNORE_FILE, Limits, NO_IGNORE_FILE, Selection, TreeError, joined};
use crate::sync::source::Tree;

/// `STATX_MNT_ID_UNIQUE` (linux/stat.h, since 6.8): a number that no other mount gets before the next boot.
const MOUNT_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// What makes a mount the same one. Nothing of it holds beyond a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    filesystem: i64,
    /// An anonymous device (tmpfs, overlayfs, NFS) gets the number of one that is gone, and of one device there may be many
    /// mounts. Before Linux 6.8 this is a number that is given again as well, and before 5.8 there is none.
    mount: Option<u64>,
}

impl Identity {
    fn of(directory: &OwnedFd) -> rustix::io::Result<Self> {
        let (stat, filesystem) = (fstat(directory)?, fstatfs(directory)?);
        let mount = match statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID | MOUNT_UNIQUE) {
            Ok(found) => {
                StatxFlags::from_bits_retain(found.stx_mask).intersects(StatxFlags::MNT_ID | MOUNT_UNIQUE).then_some(found.stx_mnt_id)
            }
            Err(Errno::NOSYS) => None,
            Err(error) => return Err(error),
        };
        // The widths differ between architectures.
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        let (device, filesystem) = (stat.st_dev.into(), filesystem.f_type as i64);
        Ok(Self { device, filesystem, mount })
    }

    /// Whether the other is a mount of what may be the same filesystem: as after `umount` and `mount`.
    pub fn is_mounted_again(self, other: Self) -> bool {
        Self { mount: None, ..self } == Self { mount: None, ..other }
    }
}

pub(super) struct Look {
    pub identity: Identity,
    /// Without its revision; or why it is not taken.
    pub tree: Result<Tree, TreeError>,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error("open {}: {error}", path.display())]
    Root { path: PathBuf, error: Errno },
    #[error("{} is not a directory: name the one it is in", path.display())]
    File { path: PathBuf },
    #[error("read {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Reads every manifest below `path` in `root`. Of a work tree what a commit of it would have: no submodule's.
pub(super) fn look(root: &Path, path: &str, limits: Limits, is_work_tree: bool) -> Result<Look, LookError> {
    let failed = |error| match error {
        Errno::NOTDIR => LookError::File { path: root.to_owned() },
        error => LookError::Root { path: root.to_owned(), error },
    };
    let root_fd = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let identity = Identity::of(&root_fd).map_err(failed)?;
    if fstat(&root_fd).map_err(failed)?.st_nlink == 0 {
        return Err(failed(Errno::NOENT));
    }
    match read(Walk { root: root_fd, is_work_tree }, path, limits) {
        Ok(tree) => Ok(Look { identity, tree: Ok(tree) }),
        Err(LookError::Tree(why)) => Ok(Look { identity, tree: Err(why) }),
        Err(error) => Err(error),
    }
}

fn read(above: Walk, path: &str, limits: Limits) -> Result<Tree, LookError> {
    let Some(start) = start(above, path)? else { return Ok(Tree::default()) };
    let (ignore, note) = start.ignore_file(limits)?;
    let mut selection = Selection::new(limits, &ignore);
    note.into_iter().for_each(|note| selection.note(note));
    let mut todo = vec![String::new()];
    while let Some(directory) = todo.pop() {
        start.walk(&directory, &mut selection, &mut todo)?;
    }
    Ok(selection.finish())
}

/// The directory of the source's path; `None` where there is none.
fn start(above: Walk, path: &str) -> Result<Option<Walk>, LookError> {
    match above.follow(path)? {
        End::Directory(at) if at.is_empty() => Ok(Some(above)),
        End::Directory(at) => {
            let root = beneath(&above.root, &at, READ | OFlags::DIRECTORY).map_err(unread(&at))?;
            Ok(Some(Walk { root, ..above }))
        }
        End::File(_) | End::Submodule | End::Special | End::Nowhere => Ok(None),
        end @ (End::Out | End::TooFar) => Err(TreeError::Path { path: path.to_owned(), what: end.of_a_link() }.into()),
    }
}

/// To read, without waiting for who is at the other end of a pipe.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn beneath(root: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn unread(path: &str) -> impl Fn(Errno) -> LookError {
    let path = path.to_owned();
    move |error| LookError::Read { path: path.clone(), error: error.into() }
}

/// The directory that the source's path is.
struct Walk {
    root: OwnedFd,
    is_work_tree: bool,
}

impl Walk {
    /// The patterns of what is not read, and what is to be said of them.
    fn ignore_file(&self, limits: Limits) -> Result<(Vec<u8>, Option<&'static str>), LookError> {
        match self.follow(IGNORE_FILE)? {
            End::File(at) => {
                let content = self.content(&at, IGNORE_FILE, limits.file_bytes)?;
                Ok(content.map_or_else(|| (Vec::new(), Some(NO_IGNORE_FILE)), |content| (content, None)))
            }
            _ if self.entry_at(IGNORE_FILE)? == Entry::Nothing => Ok((Vec::new(), None)),
            _ => Ok((Vec::new(), Some(NO_IGNORE_FILE))),
        }
    }

    fn walk(&self, directory: &str, selection: &mut Selection, todo: &mut Vec<String>) -> Result<(), LookError> {
        let here = if directory.is_empty() { "." } else { directory };
        let failed = unread(here);
        let fd = beneath(&self.root, here, READ | OFlags::DIRECTORY).map_err(&failed)?;
        for entry in Dir::read_from(&fd).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    FileType::from_raw_mode(statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?.st_mode)
                }
                kind => kind,
            };
            let Ok(name) = str::from_utf8(bytes) else {
                selection.passes_over(directory, bytes, kind == FileType::Directory)?;
                continue;
            };
            let path = joined(directory, name);
            match kind {
                FileType::Directory if self.is_work_tree && self.entry_at(&path)? == Entry::Submodule => {
                    selection.leaves_out(&path, true, "a submodule");
                }
                FileType::Directory => {
                    if selection.enters(&path)? {
                        todo.push(path);
                    }
                }
                FileType::Symlink if selection.is_quiet(&path) => {}
                FileType::Symlink => match self.follow(&path) {
                    Err(LookError::Read { .. }) if !selection.takes(&path)? => {
                        selection.leaves_out(&path, true, "a link that cannot be followed");
                    }
                    end => {
                        if let Some(at) = selection.link(&path, end?)? {
                            self.file(&at, &path, selection)?;
                        }
                    }
                },
                _ if !selection.takes(&path)? => {}
                FileType::RegularFile => self.file(&path, &path, selection)?,
                _ => selection.leaves_out(&path, false, "not a regular file"),
            }
        }
        Ok(())
    }

    /// Takes the file at a path without links, as the one that is called `path`.
    fn file(&self, at: &str, path: &str, selection: &mut Selection) -> Result<(), LookError> {
        match self.content(at, path, selection.room())? {
            Some(content) => selection.add(path, content)?,
            // Swapped since it was looked at.
            None => selection.leaves_out(path, false, "not a regular file"),
        }
        Ok(())
    }

    /// Reads at most one byte more than may be there, whatever the size said. `None` where it is no regular file.
    fn content(&self, at: &str, path: &str, limit: u64) -> Result<Option<Vec<u8>>, LookError> {
        let failed = unread(path);
        let fd = beneath(&self.root, at, READ).map_err(&failed)?;
        if FileType::from_raw_mode(fstat(&fd).map_err(&failed)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut content = Vec::new();
        let read = std::fs::File::from(fd).take(limit + 1).read_to_end(&mut content);
        let size = read.map_err(|error| LookError::Read { path: path.to_owned(), error })?;
        if size as u64 > limit { Err(TreeError::TooLarge { path: path.to_owned(), limit }.into()) } else { Ok(Some(content)) }
    }

    fn follow(&self, path: &str) -> Result<End, LookError> {
        follow(path, |at| self.entry_at(at))
    }

    /// What there is at a path.
    fn entry_at(&self, at: &str) -> Result<Entry, LookError> {
        let failed = unread(at);
        let fd = match beneath(&self.root, at, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => return Ok(Entry::Nothing),
            Err(error) => return Err(failed(error)),
        };
        Ok(match FileType::from_raw_mode(fstat(&fd).map_err(&failed)?.st_mode) {
            FileType::RegularFile => Entry::File,
            FileType::Symlink => Entry::Link(readlinkat(&fd, "", Vec::new()).map_err(&failed)?.into_bytes()),
            // Git makes nothing else of a repository inside another.
            FileType::Directory if self.is_work_tree && statat(&fd, ".git", AtFlags::SYMLINK_NOFOLLOW).is_ok() => Entry::Submodule,
            FileType::Directory => Entry::Directory,
            _ => Entry::Special,
        })
    }
}
