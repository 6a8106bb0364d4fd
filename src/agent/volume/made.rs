//! Directories of the volumes that are made on this node (`podbay.dev/local-path`): `DATA_DIR/volumes/pvc-<uid of the claim>`,
//! 0777 as rancher's provisioner has them, made when a pod first has one and removed with all they hold when nobody does.
//!
//! Each has a note beside the agent's records, `DATA_DIR/agent/volumes/<name>.json`: for which PersistentVolume it was made.
//! Only what has such a note is ever removed, whatever the server says, and one that was made and is not there (its disk is
//! not mounted) is not made anew.
//!
//! ```text
//! note: of UID ──► directory ──► note: made        removal: what it holds ──► note: not made ──► directory ──► note
//! ```
//!
//! A crash on either way is gone on with by going it again.

use std::ffi::CStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{empty, mounts_below};
use crate::agent::beneath;
use crate::agent::config::Layout;

/// Of the notes.
const VERSION: u32 = 1;
/// Pods that start together may have one volume: who makes it, makes it alone.
static MAKING: Mutex<()> = Mutex::new(());
/// Directories in directories that a removal has open; what is deeper is brought up first.
const DEPTH_LIMIT: usize = 64;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    /// UID of the PersistentVolume.
    volume: String,
    /// The directory was there.
    made: bool,
}

fn note_path(layout: &Layout, name: &str) -> PathBuf {
    layout.made_notes().join(format!("{name}.json"))
}

/// `None`: there is none. One that cannot be read, or is of a later version, is an error: it may say what must not be lost.
fn note(layout: &Layout, name: &str) -> io::Result<Option<Note>> {
    let path = note_path(layout, name);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let note: Note = serde_json::from_slice(&text).map_err(|error| other(format!("{}: {error}", path.display())))?;
    if note.version > VERSION {
        return Err(other(format!("{} is of version {}, this program knows {VERSION}", path.display(), note.version)));
    }
    Ok(Some(note))
}

fn write_note(layout: &Layout, name: &str, volume: &str, made: bool) -> io::Result<()> {
    let note = Note { version: VERSION, volume: volume.to_owned(), made };
    let path = note_path(layout, name);
    fs::create_dir_all(layout.made_notes())?;
    let next = path.with_extension("json.new");
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    out.write_all(&serde_json::to_vec(&note)?)?;
    // What it says outlives a loss of power: without it nothing is removed any more.
    out.sync_all()?;
    fs::rename(&next, &path)?;
    fs::File::open(layout.made_notes())?.sync_all()
}

fn exists(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn other(what: String) -> io::Error {
    io::Error::other(what)
}

/// Makes a volume's directory, if it is not there. `volume`: the PersistentVolume's UID.
pub fn make(layout: &Layout, name: &str, volume: &str, group: Option<u32>) -> io::Result<PathBuf> {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = layout.made_volumes().join(name);
    let note = note(layout, name)?;
    match path.symlink_metadata() {
        Ok(meta) if !meta.is_dir() => return Err(Errno::NOTDIR.into()),
        Ok(_) => {
            if note.is_some_and(|note| note.volume == volume && !note.made) {
                write_note(layout, name, volume, true)?;
            }
            return Ok(path);
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) if note.is_some_and(|note| note.made) => {
            return Err(other("it was made before and is not there: is its disk mounted?".to_owned()));
        }
        Err(_) => {}
    }
    fs::create_dir_all(layout.made_volumes())?;
    write_note(layout, name, volume, false)?;
    empty(name, &path, group).map_err(io::Error::other)?;
    write_note(layout, name, volume, true)?;
    Ok(path)
}

/// What came of a removal.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing is there any more, or nothing ever was.
    Gone,
    /// It was not made for this volume: it is left as it is.
    NotItsOwn,
}

/// Removes a volume's directory with all it holds, as far as it was made for this volume. `stop` ends it on the way.
///
/// # Errors
/// It could not be removed, or not as a whole; to be tried again.
pub fn remove(layout: &Layout, name: &str, volume: &str, stop: &AtomicBool) -> io::Result<Removed> {
    let path = layout.made_volumes().join(name);
    let Some(note) = note(layout, name)?.filter(|note| note.volume == volume) else {
        return Ok(if exists(&path)? { Removed::NotItsOwn } else { Removed::Gone });
    };
    if note.made && !exists(&path)? {
        let note = note_path(layout, name);
        let what = "it was made and is not there: is its disk mounted? If somebody removed it, remove";
        return Err(other(format!("{what} {}", note.display())));
    }
    if let Some(pod) = user(layout, &path)? {
        return Err(other(format!("pod {pod} still has it")));
    }
    if let Some(mount) = mounts_below(&path)?.first() {
        return Err(other(format!("{} is mounted", mount.display())));
    }
    remove_noted(layout, name, volume, stop)?;
    Ok(Removed::Gone)
}

/// Removes the directories of all volumes that have a note, and the notes; for the end of Podbay on this host.
///
/// # Errors
/// What could not be removed, or is not there.
pub fn remove_all(layout: &Layout) -> io::Result<()> {
    for path in entries(&layout.made_notes())? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else { continue };
        if let Some(note) = note(layout, name)? {
            remove_noted(layout, name, &note.volume, &AtomicBool::new(false))?;
        }
    }
    Ok(())
}

fn remove_noted(layout: &Layout, name: &str, volume: &str, stop: &AtomicBool) -> io::Result<()> {
    match beneath::top(&layout.made_volumes()) {
        // Empty it can be gone, and is not missed.
        Ok(top) => remove_tree(&top, name, stop, || write_note(layout, name, volume, false))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match fs::remove_file(note_path(layout, name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is in a directory that may not be there.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        all => all?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// A pod of this node that has it, by UID. What cannot be read may have it.
fn user(layout: &Layout, path: &Path) -> io::Result<Option<String>> {
    for pod in entries(&layout.data_dir.join("pods"))? {
        let Some(uid) = pod.file_name().and_then(|uid| uid.to_str()) else { continue };
        for link in entries(&layout.volumes(uid))? {
            if fs::read_link(link).is_ok_and(|target| target == path) {
                return Ok(Some(uid.to_owned()));
            }
        }
    }
    Ok(None)
}

/// Nothing through a link, and nothing of what is mounted.
fn open(parent: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Dir::new(rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?)
}

/// `emptied` comes before the directory itself goes.
fn remove_tree(top: &OwnedFd, name: &str, stop: &AtomicBool, emptied: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut whole = match open(top, name) {
        Ok(whole) => whole,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let root = open(top, name)?;
    Sweep { root: root.fd()?, stop, lifted: 0 }.empty(&mut whole, 0)?;
    emptied()?;
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What cannot be removed, by its own name: how deep it lies is not kept.
fn named(name: &CStr, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("remove {:?} in it: {error}", name.to_string_lossy()))
}

/// One removal: few directories are open at a time and few names are in memory, however deep and wide the tree is.
struct Sweep<'a> {
    /// The volume's own directory.
    root: BorrowedFd<'a>,
    stop: &'a AtomicBool,
    /// Directories that were brought up to it.
    lifted: u64,
}

impl Sweep<'_> {
    fn empty(&mut self, dir: &mut Dir, depth: usize) -> io::Result<()> {
        loop {
            let mut found = false;
            while let Some(entry) = dir.read() {
                let entry = entry?;
                if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    continue;
                }
                found = true;
                self.one(dir.fd()?, entry.file_name(), depth)?;
            }
            if !found {
                return Ok(());
            }
            dir.rewind();
        }
    }

    fn one(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let failed = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => errno,
        };
        let mut below = match open(parent, name) {
            Ok(below) => below,
            Err(Errno::NOENT) => return Ok(()),
            // A file that cannot be removed.
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(named(name, failed)),
            Err(errno) => return Err(named(name, errno)),
        };
        if depth == DEPTH_LIMIT {
            return self.lift(parent, name);
        }
        self.empty(&mut below, depth + 1)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(named(name, errno)),
        }
    }

    /// To where the sweep comes by once more.
    fn lift(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        loop {
            self.lifted += 1;
            match rustix::fs::renameat(parent, name, self.root, format!(".lifted-{}", self.lifted)) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // The name is taken.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const NAME: &str = "pvc-a-1";

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().join("data") };
        (dir, layout)
    }

    fn remove_it(layout: &Layout, volume: &str) -> io::Result<Removed> {
        remove(layout, NAME, volume, &AtomicBool::new(false))
    }

    #[test]
    fn a_directory_is_made_once_and_removed_with_all_it_holds() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((path.as_path(), mode(&path)), (layout.data_dir.join("volumes/pvc-a-1").as_path(), 0o777));
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/c"), "kept").unwrap();
        make(&layout, NAME, "u", None).unwrap();
        assert_eq!(fs::read_to_string(path.join("a/b/c")).unwrap(), "kept");
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone);
        assert!(!path.exists() && note(&layout, NAME).unwrap().is_none());
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone, "once more");
    }

    #[test]
    fn nothing_is_removed_that_was_not_made_for_the_volume() {
        let (dir, layout) = layout();
        let path = layout.made_volumes().join(NAME);
        // By a person.
        fs::create_dir_all(path.join("kept")).unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::NotItsOwn);
        assert_eq!(make(&layout, NAME, "u", None).unwrap(), path, "it may be used");
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::NotItsOwn);
        fs::remove_dir_all(&path).unwrap();
        // For another one of the same name.
        make(&layout, NAME, "u", None).unwrap();
        fs::write(path.join("kept"), "").unwrap();
        assert_eq!(remove_it(&layout, "forged").unwrap(), Removed::NotItsOwn);
        assert!(path.join("kept").exists());
        // A link in its place leads nowhere.
        fs::remove_dir_all(&path).unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, &path).unwrap();
        assert!(make(&layout, NAME, "u", None).is_err());
        assert!(remove_it(&layout, "u").is_err());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn links_in_it_are_removed_and_not_followed() {
        let (dir, layout) = layout();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "kept").unwrap();
        let path = make(&layout, NAME, "u", None).unwrap();
        symlink(&outside, path.join("dir")).unwrap();
        symlink(outside.join("kept"), path.join("file")).unwrap();
        fs::hard_link(outside.join("kept"), path.join("hard")).unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone);
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        // Deeper than a path can say, and than a process may have files open.
        let mut at = beneath::top(&path).unwrap();
        for _ in 0..3000 {
            fs::write(format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&at)), "").unwrap();
            at = beneath::make_directory(&at, Path::new("d"), 0o755).unwrap();
        }
        fs::create_dir(path.join(".lifted-1")).unwrap();
        fs::write(path.join(".lifted-1/file"), "").unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone);
        assert!(!path.exists());
    }

    #[test]
    fn a_removal_that_was_stopped_is_gone_on_with() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        (0..9).for_each(|at| fs::write(path.join(at.to_string()), "").unwrap());
        assert!(remove(&layout, NAME, "u", &AtomicBool::new(true)).is_err());
        assert!(path.exists() && note(&layout, NAME).unwrap().is_some());
        // All but the note.
        write_note(&layout, NAME, "u", false).unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone);
        assert!(note(&layout, NAME).unwrap().is_none());
    }

    #[test]
    fn what_is_on_a_disk_that_is_away_is_not_taken_for_removed() {
        let (dir, layout) = layout();
        make(&layout, NAME, "u", None).unwrap();
        let away = dir.path().join("away");
        fs::rename(layout.made_volumes(), &away).unwrap();
        for _ in 0..2 {
            assert!(remove_it(&layout, "u").unwrap_err().to_string().contains("is its disk mounted?"));
            fs::create_dir_all(layout.made_volumes()).unwrap();
        }
        fs::remove_dir(layout.made_volumes()).unwrap();
        fs::rename(&away, layout.made_volumes()).unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone);
    }

    #[test]
    fn what_cannot_be_read_is_no_leave_to_remove() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        for text in ["{", r#"{"version": 2, "volume": "u", "made": true}"#] {
            fs::write(note_path(&layout, NAME), text).unwrap();
            assert!(remove_it(&layout, "u").is_err() && make(&layout, NAME, "u", None).is_err() && path.exists(), "{text}");
        }
    }

    #[test]
    fn pods_that_start_together_have_the_same_directory() {
        let (_dir, layout) = layout();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| make(&layout, NAME, "u", Some(7)).map(drop))).collect();
            all.into_iter().for_each(|one| one.join().unwrap().unwrap());
        });
        assert!(note(&layout, NAME).unwrap().is_some_and(|note| note.made));
    }

    #[test]
    fn at_the_end_all_that_was_made_goes_and_nothing_else() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        fs::create_dir_all(path.join("a/b")).unwrap();
        let theirs = layout.made_volumes().join("theirs");
        fs::create_dir(&theirs).unwrap();
        remove_all(&layout).unwrap();
        assert!(!path.exists() && theirs.exists() && note(&layout, NAME).unwrap().is_none());
        remove_all(&layout).unwrap();
    }

    #[test]
    fn what_a_pod_has_stays() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        fs::create_dir_all(layout.volumes("pod")).unwrap();
        symlink(&path, layout.volume("pod", "data")).unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap_err().to_string(), "pod pod still has it");
        fs::remove_file(layout.volume("pod", "data")).unwrap();
        assert_eq!(remove_it(&layout, "u").unwrap(), Removed::Gone);
    }

    #[test]
    fn one_that_was_made_and_is_not_there_is_not_made_anew() {
        let (_dir, layout) = layout();
        let path = make(&layout, NAME, "u", None).unwrap();
        fs::remove_dir(&path).unwrap();
        assert!(make(&layout, NAME, "u", None).unwrap_err().to_string().contains("is its disk mounted?"));
        // A crash before it was made, and one before that was noted.
        write_note(&layout, NAME, "u", false).unwrap();
        make(&layout, NAME, "u", None).unwrap();
        write_note(&layout, NAME, "u", false).unwrap();
        make(&layout, NAME, "u", None).unwrap();
        assert_eq!(note(&layout, NAME).unwrap(), Some(Note { version: 1, volume: "u".into(), made: true }));
    }
}
