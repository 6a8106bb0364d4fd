//! One layer's tar to one overlay lower directory, whatever the tar says.
//!
//! Every path is resolved by the kernel inside the new root (`openat2`, `RESOLVE_IN_ROOT`), so no
//! symlink of the layer leads out of it. Whiteouts become what overlayfs understands.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::error::{ImageError, Refusal};
use super::reference::Digest;
use super::tarball::{Entry, EntryKind, TarReader};
use super::{Limits, stream};
use crate::inside;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What came out of a layer.
pub(super) struct Unpacked {
    /// Of the uncompressed archive.
    pub diff_id: Digest,
    /// Content of all files.
    pub bytes: u64,
}

/// Unpacks a layer, compressed or not, into the existing empty directory `root`. One thread decompresses
/// and hashes, another writes files.
pub(super) fn unpack(layer: impl Read + Send, root: &Path, limits: &Limits) -> Result<Unpacked, ImageError> {
    let shown = root;
    let root = rustix::fs::open(root, DIRECTORY, Mode::empty()).map_err(ImageError::errno(format!("open {}", root.display())))?;
    rustix::fs::fchmod(&root, Mode::from(0o755)).map_err(ImageError::errno("set the mode of a layer's root"))?;
    let room = Room { place: shown.to_owned(), reserve: limits.reserve, unchecked: 0 };
    let mut unpacker = Unpacker { root, cached: None, times: Vec::new(), path_bytes: 0, bytes: 0, room };
    let (source, pieces) = stream::pipe();
    let (outcome, hashed) = std::thread::scope(|scope| {
        let decompress = scope.spawn(move || {
            let mut hashed = stream::Hashing::new(stream::Bounded::new(stream::decompress(layer)?, limits.layer_bytes));
            source.pump(&mut hashed);
            Ok::<_, ImageError>((hashed.inner().exceeded(), hashed.take_hash()))
        });
        let mut tar = TarReader::new(pieces);
        let outcome = unpacker.run(&mut tar, limits);
        // Nobody reads any more: the other thread ends.
        drop(tar);
        (outcome, decompress.join())
    });
    let (exceeded, hash) = hashed.map_err(|_| ImageError::format("layer", "its decompression failed"))??;
    if exceeded {
        return Err(ImageError::Refused { entry: "/".into(), why: Refusal::Bytes });
    }
    outcome?;
    unpacker.settle_times()?;
    rustix::fs::syncfs(&unpacker.root).map_err(ImageError::errno("write a layer to disk"))?;
    Ok(Unpacked { diff_id: Digest::of_hash(hash), bytes: unpacker.bytes })
}

/// Bytes written between two looks at the disk's free space.
const LOOK_EVERY: u64 = 32 << 20;
/// What an entry costs beside its content: an inode, its name.
const ENTRY_COST: u64 = 4096;
/// Inodes that are left to others. More than entries come between two looks.
const INODE_RESERVE: u64 = 2 * LOOK_EVERY / ENTRY_COST;
/// Written between two questions whether there is room.
const PIECE: usize = 256 << 10;
/// Of all paths that are kept until the directories get their times.
const PATH_BYTES: u64 = 64 << 20;

/// What keeps a layer from filling the disk.
struct Room {
    place: PathBuf,
    reserve: u64,
    unchecked: u64,
}

impl Room {
    fn take(&mut self, root: &OwnedFd, bytes: u64) -> Result<(), ImageError> {
        self.unchecked += bytes;
        if self.unchecked < LOOK_EVERY {
            return Ok(());
        }
        self.unchecked = 0;
        let disk = rustix::fs::fstatvfs(root).map_err(ImageError::errno("look at the free space"))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.reserve {
            let (what, place) = ("the layer being unpacked".to_owned(), self.place.clone());
            return Err(ImageError::NoSpace { what, place, needs: LOOK_EVERY, free, reserve: self.reserve });
        }
        if is_short_of_inodes(disk.f_files, disk.f_favail) {
            let attempt = format!("unpack a layer in {}, where {} inodes are free", self.place.display(), disk.f_favail);
            return Err(ImageError::Io { attempt, source: io::ErrorKind::StorageFull.into() });
        }
        Ok(())
    }
}

/// Some filesystems have no fixed number of inodes and say 0; on small ones a part is enough.
fn is_short_of_inodes(all: u64, free: u64) -> bool {
    all > 0 && free < INODE_RESERVE.min(all / 20)
}

/// A file's content on its way: one file may be as large as the whole layer, so it asks for room as it grows.
struct Accounted<'a> {
    file: &'a mut std::fs::File,
    room: &'a mut Room,
    root: &'a OwnedFd,
    refused: Option<ImageError>,
}

impl Write for Accounted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        if let Err(refused) = self.room.take(self.root, piece.len() as u64) {
            self.refused = Some(refused);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(piece)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A path in the layer: the parts of its parent, and its last part (`None`: the root itself).
struct Place {
    parent: Vec<u8>,
    name: Option<Vec<u8>>,
}

struct Unpacker {
    root: OwnedFd,
    /// The parent of the entry before: most entries share it.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their times last: filling them changes them.
    times: Vec<(OwnedPlace, Timestamps)>,
    /// Of the paths in `times`.
    path_bytes: u64,
    bytes: u64,
    room: Room,
}

type OwnedPlace = Vec<u8>;

impl Unpacker {
    fn run<R: BufRead>(&mut self, tar: &mut TarReader<R>, limits: &Limits) -> Result<(), ImageError> {
        let mut entries = 0;
        while let Some(entry) = tar.next_entry()? {
            entries += 1;
            if entries > limits.entries {
                return Err(entry.refuse(Refusal::Entries));
            }
            self.entry(&entry, tar)?;
        }
        tar.drain()
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), ImageError> {
        let xattrs = entry.xattrs.iter().fold(0, |sum, (name, value)| sum + (name.len() + value.len()) as u64);
        self.room.take(&self.root, ENTRY_COST + xattrs)?;
        let place = place(&entry.path).map_err(|why| entry.refuse(why))?;
        let Some(name) = &place.name else {
            if entry.kind != EntryKind::Directory {
                return Err(entry.refuse(Refusal::Root));
            }
            let root = self.root.try_clone().map_err(ImageError::io("unpack a layer"))?;
            return self.finish(&root, entry, Vec::new());
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(entry, &place.parent, name);
        }
        let parent = self.parent(entry, &place.parent)?;
        // Most often nothing is in its place: a file finds out by being made.
        if entry.kind == EntryKind::File
            && let Some(file) = Self::create(entry, &parent, name)?
        {
            self.file(entry, file, tar)?;
            self.cached = Some((place.parent, parent));
            return Ok(());
        }
        let opaque = self.make_room(entry, &parent, name)?;
        match entry.kind {
            EntryKind::File => {
                let file = Self::create(entry, &parent, name)?.ok_or_else(|| attempt(entry, "make it")(Errno::EXIST))?;
                self.file(entry, file, tar)?;
            }
            EntryKind::Directory => self.directory(entry, &parent, &place.parent, name, opaque)?,
            EntryKind::Symlink => Self::symlink(entry, &parent, name)?,
            EntryKind::Hardlink => self.hardlink(entry, &parent, name)?,
            EntryKind::Fifo => Self::fifo(entry, &parent, name)?,
            // Old images carry a few nodes below /dev, which is mounted over anyway.
            EntryKind::Device if place.parent == b"dev" || place.parent.starts_with(b"dev/") => {}
            EntryKind::Device => return Err(entry.refuse(Refusal::Device)),
            EntryKind::Other => return Err(entry.refuse(Refusal::Kind)),
        }
        self.cached = Some((place.parent, parent));
        Ok(())
    }

    /// The directory at `path` inside the root, made where it is missing.
    fn parent(&mut self, entry: &Entry, path: &[u8]) -> Result<OwnedFd, ImageError> {
        if let Some((cached, fd)) = self.cached.take()
            && cached == path
        {
            return Ok(fd);
        }
        match self.open(path) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Err(entry.refuse(Refusal::Parent)),
            Err(errno) => return Err(attempt(entry, "open its parent")(errno)),
        }
        let mut at = self.open(b"").map_err(attempt(entry, "open the root"))?;
        let mut done = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            if !done.is_empty() {
                done.push(b'/');
            }
            done.extend_from_slice(part);
            at = match self.open(&done) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => match rustix::fs::mkdirat(&at, part, Mode::from(0o755)) {
                    Ok(()) => self.open(&done).map_err(attempt(entry, "open its parent"))?,
                    // A symlink that leads nowhere.
                    Err(Errno::EXIST) => return Err(entry.refuse(Refusal::Parent)),
                    Err(errno) => return Err(attempt(entry, "make its parent")(errno)),
                },
                Err(_) => return Err(entry.refuse(Refusal::Parent)),
            };
        }
        Ok(at)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        inside::open(&self.root, path, DIRECTORY, resolve)
    }

    /// Takes away what is in an entry's place. Whether a directory there must hide what is below:
    /// the layer deletes it and then makes it anew.
    fn make_room(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<bool, ImageError> {
        let Some(found) = stat(parent, name).map_err(attempt(entry, "look at its place"))? else { return Ok(false) };
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Directory && entry.kind == EntryKind::Directory {
            return Ok(false);
        }
        self.cached = None;
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR) => {
                let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(os(name));
                std::fs::remove_dir_all(path).map_err(ImageError::io(format!("replace layer entry {:?}", lossy(&entry.path))))?;
            }
            Err(errno) => return Err(attempt(entry, "replace what is in its place")(errno)),
        }
        Ok(kind == FileType::CharacterDevice)
    }

    fn whiteout(&mut self, entry: &Entry, parent_path: &[u8], name: &[u8]) -> Result<(), ImageError> {
        if name != OPAQUE && name.starts_with(b".wh..wh.") {
            return Ok(()); // bookkeeping of AUFS
        }
        let parent = self.parent(entry, parent_path)?;
        if name == OPAQUE {
            make_opaque(entry, &parent)?;
        } else {
            let hidden = &name[WHITEOUT.len()..];
            if hidden.is_empty() || hidden == b"." || hidden == b".." {
                return Err(entry.refuse(Refusal::Whiteout));
            }
            match stat(&parent, hidden).map_err(attempt(entry, "look at what it hides"))? {
                None => rustix::fs::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(attempt(entry, "make the whiteout"))?,
                // What this very layer brings stays; only what is below it is hidden.
                Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                    let directory = rustix::fs::openat(&parent, hidden, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                        .map_err(attempt(entry, "open what it hides"))?;
                    make_opaque(entry, &directory)?;
                }
                Some(_) => {}
            }
        }
        self.cached = Some((parent_path.to_vec(), parent));
        Ok(())
    }

    /// `None` when something is in its place.
    fn create(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<Option<std::fs::File>, ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::from(0o600)) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(attempt(entry, "make it")(errno)),
        }
    }

    fn file<R: BufRead>(&mut self, entry: &Entry, mut file: std::fs::File, tar: &mut TarReader<R>) -> Result<(), ImageError> {
        let mut accounted = Accounted { file: &mut file, room: &mut self.room, root: &self.root, refused: None };
        let copied = tar.copy_content(&mut accounted);
        if let Some(refused) = accounted.refused {
            return Err(refused);
        }
        let copied = copied.map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => entry.refuse(Refusal::Truncated),
            _ => ImageError::Io { attempt: format!("unpack layer entry {:?}", lossy(&entry.path)), source: cause },
        })?;
        self.bytes += copied;
        own(&file, entry)?;
        rustix::fs::futimens(&file, &times(entry)).map_err(attempt(entry, "set its time"))
    }

    fn directory(&mut self, entry: &Entry, parent: &OwnedFd, parent_path: &[u8], name: &[u8], opaque: bool) -> Result<(), ImageError> {
        match rustix::fs::mkdirat(parent, name, Mode::from(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(attempt(entry, "make it")(errno)),
        }
        let fd = rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).map_err(attempt(entry, "open it"))?;
        if opaque {
            make_opaque(entry, &fd)?;
        }
        let mut path = parent_path.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.finish(&fd, entry, path)
    }

    fn finish(&mut self, directory: &OwnedFd, entry: &Entry, path: Vec<u8>) -> Result<(), ImageError> {
        own(directory, entry)?;
        self.path_bytes += path.len() as u64;
        if self.path_bytes > PATH_BYTES {
            return Err(entry.refuse(Refusal::Paths));
        }
        self.times.push((path, times(entry)));
        Ok(())
    }

    fn symlink(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), ImageError> {
        let target = entry.link.as_slice();
        if target.is_empty() || target.contains(&0) {
            return Err(entry.refuse(Refusal::Nul));
        }
        if target.len() >= 4096 {
            return Err(entry.refuse(Refusal::LongName));
        }
        rustix::fs::symlinkat(target, parent, name).map_err(attempt(entry, "make it"))?;
        Self::own_by_name(entry, parent, name)
    }

    fn fifo(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), ImageError> {
        rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::from(entry.mode & 0o777), 0).map_err(attempt(entry, "make it"))?;
        Self::own_by_name(entry, parent, name)
    }

    fn own_by_name(entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), ImageError> {
        let (uid, gid) = owner(entry)?;
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(attempt(entry, "give it its owner"))?;
        rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(attempt(entry, "set its time"))
    }

    fn hardlink(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), ImageError> {
        let target = place(&entry.link).map_err(|why| entry.refuse(why))?;
        let Some(target_name) = target.name else { return Err(entry.refuse(Refusal::HardlinkKind)) };
        let directory = self.open(&target.parent).map_err(|_| entry.refuse(Refusal::DanglingHardlink))?;
        let Some(found) = stat(&directory, &target_name).map_err(attempt(entry, "look at what it links to"))? else {
            return Err(entry.refuse(Refusal::DanglingHardlink));
        };
        if !matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::Symlink | FileType::Fifo) {
            return Err(entry.refuse(Refusal::HardlinkKind));
        }
        // Without AT_SYMLINK_FOLLOW: a symlink is linked itself, never what it leads to.
        rustix::fs::linkat(&directory, &*target_name, parent, name, AtFlags::empty()).map_err(attempt(entry, "make it"))
    }

    fn settle_times(&mut self) -> Result<(), ImageError> {
        self.cached = None;
        // Innermost last would undo nothing: setting times changes no other directory's.
        for (path, times) in std::mem::take(&mut self.times) {
            match self.open(&path) {
                Ok(fd) => rustix::fs::futimens(&fd, &times).map_err(ImageError::errno("set the time of a directory"))?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(ImageError::errno("set the time of a directory")(errno)),
            }
        }
        Ok(())
    }
}

/// Takes a path of a tar apart; absolute ones are meant inside the root.
fn place(path: &[u8]) -> Result<Place, Refusal> {
    if path.contains(&0) {
        return Err(Refusal::Nul);
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Refusal::DotDot),
            _ if part.len() > 255 => return Err(Refusal::LongName),
            _ => parts.push(part),
        }
    }
    let name = parts.pop().map(<[u8]>::to_vec);
    let parent = parts.join(&b'/');
    if parent.len() + name.as_ref().map_or(0, Vec::len) > 4000 {
        return Err(Refusal::LongName);
    }
    Ok(Place { parent, name })
}

/// Owner, mode and extended attributes; the mode after the owner, which clears set-uid.
fn own(fd: impl AsFd, entry: &Entry) -> Result<(), ImageError> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(attempt(entry, "give it its owner"))?;
    rustix::fs::fchmod(&fd, Mode::from(entry.mode)).map_err(attempt(entry, "set its mode"))?;
    for (name, value) in &entry.xattrs {
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            return Err(entry.refuse(Refusal::Xattr));
        }
        // Others (SELinux labels, ACLs of the machine it was built on) mean nothing here.
        if name != b"security.capability" && !name.starts_with(b"user.") {
            continue;
        }
        if name.contains(&0) || name.len() > 255 {
            return Err(entry.refuse(Refusal::Xattr));
        }
        match rustix::fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(attempt(entry, "set an extended attribute")(errno)),
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), ImageError> {
    // u32::MAX means "leave as it is" to chown.
    let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| entry.refuse(Refusal::Owner));
    Ok((Uid::from_raw(number(entry.uid)?), Gid::from_raw(number(entry.gid)?)))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.seconds, tv_nsec: i64::from(entry.nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn make_opaque(entry: &Entry, directory: &OwnedFd) -> Result<(), ImageError> {
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(attempt(entry, "make it opaque"))
}

fn stat(parent: &OwnedFd, name: &[u8]) -> Result<Option<rustix::fs::Stat>, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn attempt<'a>(entry: &'a Entry, what: &'static str) -> impl FnOnce(Errno) -> ImageError + 'a {
    move |errno| ImageError::Io { attempt: format!("layer entry {:?}: {what}", lossy(&entry.path)), source: errno.into() }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// Opens a file below a directory an operator gave us, following no link out of it.
pub(super) fn open_beneath(directory: &Path, name: &str) -> Result<std::fs::File, Errno> {
    let root = rustix::fs::openat(CWD, directory, DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    inside::open(&root, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, resolve).map(std::fs::File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_inodes_are_left_to_others() {
        assert!(!is_short_of_inodes(0, 0), "none are counted");
        assert!(is_short_of_inodes(1000, 49) && !is_short_of_inodes(1000, 50));
        let many = 1 << 30;
        assert!(is_short_of_inodes(many, INODE_RESERVE - 1) && !is_short_of_inodes(many, INODE_RESERVE));
        assert_eq!(INODE_RESERVE, 16_384, "more than entries come between two looks");
    }

    #[test]
    fn a_file_asks_for_room_while_it_grows() {
        let directory = tempfile::tempdir().expect("make a directory");
        let root = rustix::fs::open(directory.path(), DIRECTORY, Mode::empty()).expect("open");
        let mut file = std::fs::File::create(directory.path().join("large")).expect("create");
        let mut room = Room { place: directory.path().to_owned(), reserve: u64::MAX, unchecked: 0 };
        let mut accounted = Accounted { file: &mut file, room: &mut room, root: &root, refused: None };
        let content = vec![0; 1 << 20];
        let refused = (0..64).position(|_| accounted.write_all(&content).is_err());
        assert_eq!(refused, Some(31), "at the first look");
        assert!(matches!(accounted.refused, Some(ImageError::NoSpace { .. })));
    }
}
