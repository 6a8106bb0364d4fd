//! Writes a ConfigMap's or Secret's files so that a reader sees all of the old or all of the new: the
//! kubelet's AtomicWriter.
//!
//! ```text
//! volume/..data      -> ..2b7e        swapped by one rename
//! volume/..2b7e/key
//! volume/key         -> ..data/key
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use super::plan::File;
use crate::agent::beneath;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Whose the files and directories of a volume are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The pod's id 0 on the host: another one where the pod's own ids are written, and not mapped by the mount.
    pub root: u32,
    /// `fsGroup`, as the pod knows it.
    pub group: Option<u32>,
}

impl Owner {
    /// User and group, as the host numbers them.
    pub fn ids(self) -> (u32, u32) {
        (self.root, self.root.saturating_add(self.group.unwrap_or(0)))
    }
}

/// Makes `dir` hold these files. Says whether anything changed.
///
/// # Errors
/// A file cannot be written; the old content is still whole then.
pub fn write(dir: &Path, files: &BTreeMap<PathBuf, File>, owner: Owner) -> io::Result<bool> {
    let root = beneath::top(dir)?;
    let current = beneath::link(&root, DATA).filter(is_ours);
    let unchanged = current.as_ref().is_some_and(|name| same(&root, name, files, owner));
    if !unchanged {
        let name = PathBuf::from(format!("..{}", uuid::Uuid::new_v4().simple()));
        fill(&directory(&root, &name, owner)?, files, owner)?;
        beneath::remove(&root, Path::new(NEXT))?;
        if current.is_none() {
            // Not a link of ours: a directory in its place would be in the way for ever.
            beneath::remove(&root, Path::new(DATA))?;
        }
        rustix::fs::symlinkat(&name, &root, NEXT)?;
        rustix::fs::renameat(&root, NEXT, &root, DATA)?;
    }
    let changed_names = links(&root, files)?;
    sweep(&root)?;
    Ok(!unchanged || changed_names)
}

fn is_ours(name: &OsString) -> bool {
    name.as_bytes().starts_with(b"..") && name.len() > 2 && !name.as_bytes().contains(&b'/')
}

fn fill(dir: &OwnedFd, files: &BTreeMap<PathBuf, File>, owner: Owner) -> io::Result<()> {
    for (path, file) in files {
        let name = Path::new(path.file_name().unwrap_or_default());
        let mut parent = dir.try_clone()?;
        for part in path.parent().into_iter().flat_map(Path::components) {
            parent = directory(&parent, Path::new(part.as_os_str()), owner)?;
        }
        beneath::create(&parent, name, &file.bytes, mode(file, owner), owner.ids())?;
    }
    Ok(())
}

/// With an fsGroup it is the group's, and so is what is made in it.
pub fn directory_mode(owner: Owner) -> u32 {
    if owner.group.is_some() { 0o2755 } else { 0o755 }
}

fn directory(parent: &OwnedFd, name: &Path, owner: Owner) -> io::Result<OwnedFd> {
    let made = beneath::make_directory(parent, name, directory_mode(owner))?;
    beneath::give(&made, owner.ids())?;
    Ok(made)
}

/// With an fsGroup the group may read.
fn mode(file: &File, owner: Owner) -> u32 {
    if owner.group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn same(root: &OwnedFd, generation: &OsString, files: &BTreeMap<PathBuf, File>, owner: Owner) -> bool {
    let Ok(dir) = beneath::directory(root, Path::new(generation)) else { return false };
    let mut found = BTreeSet::new();
    if list(&dir, Path::new(""), &mut found).is_err() || !found.iter().eq(files.keys()) {
        return false;
    }
    files.iter().all(|(path, file)| {
        let Ok(open) = beneath::file(&dir, path) else { return false };
        let right = |meta: std::fs::Metadata| {
            meta.permissions().mode() & 0o777 == mode(file, owner)
                && meta.len() == file.bytes.len() as u64
                && (meta.uid(), meta.gid()) == owner.ids()
        };
        let mut bytes = Vec::new();
        // One byte more than there should be: it may grow while it is read.
        let read = (&open).take(file.bytes.len() as u64 + 1).read_to_end(&mut bytes);
        open.metadata().is_ok_and(right) && read.is_ok() && bytes == file.bytes
    })
}

fn list(dir: &OwnedFd, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for (name, kind) in beneath::entries(dir)? {
        let path = below.join(&name);
        if kind == FileType::Directory {
            list(&beneath::directory(dir, Path::new(&name))?, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// The names a container sees: one link for each first component. Stale ones go after the swap.
fn links(root: &OwnedFd, files: &BTreeMap<PathBuf, File>) -> io::Result<bool> {
    let first = |path: &PathBuf| match path.components().next() {
        Some(Component::Normal(name)) => Some(name.to_owned()),
        _ => None,
    };
    let wanted: BTreeSet<OsString> = files.keys().filter_map(first).collect();
    let mut changed = false;
    for name in &wanted {
        let target = Path::new(DATA).join(name);
        if beneath::link(root, name.as_os_str()).is_none_or(|found| Path::new(&found) != target) {
            beneath::remove(root, Path::new(name))?;
            rustix::fs::symlinkat(&target, root, name.as_os_str())?;
            changed = true;
        }
    }
    for (name, kind) in beneath::entries(root)? {
        if !name.as_bytes().starts_with(b"..") && !wanted.contains(&name) && kind == FileType::Symlink {
            beneath::remove(root, Path::new(&name))?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Generations that nothing points to: the one before, and those of a writer that was killed.
fn sweep(root: &OwnedFd) -> io::Result<()> {
    let current = beneath::link(root, DATA);
    for (name, kind) in beneath::entries(root)? {
        if name.as_bytes().starts_with(b"..") && kind == FileType::Directory && Some(&name) != current.as_ref() {
            beneath::remove(root, Path::new(&name))?;
        }
    }
    beneath::remove(root, Path::new(NEXT))
}

/// What these files take of a tmpfs: whole pages, and a page for each directory and name.
pub fn room(files: &BTreeMap<PathBuf, File>) -> u64 {
    const PAGE: u64 = 4096;
    let of = |(path, file): (&PathBuf, &File)| {
        let names = path.components().count() as u64 + 1;
        (file.bytes.len() as u64).div_ceil(PAGE) + names
    };
    (files.iter().map(of).sum::<u64>() + 16) * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn files(list: &[(&str, &str)]) -> BTreeMap<PathBuf, File> {
        list.iter().map(|(path, text)| (PathBuf::from(path), File { bytes: text.as_bytes().to_vec(), mode: 0o640 })).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = all.filter(|name| !name.starts_with("..")).collect();
        names.sort_unstable();
        names
    }

    fn generations(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    }

    #[test]
    fn files_appear_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(write(dir, &files(&[("a", "1"), ("x/y", "2")]), Owner::default()).unwrap());
        assert_eq!(names(dir), ["a", "x"]);
        assert_eq!(fs::read_to_string(dir.join("x/y")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join(DATA)).unwrap();
        assert!(!write(dir, &files(&[("a", "1"), ("x/y", "2")]), Owner::default()).unwrap(), "the same again is no change");
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before);
        assert!(write(dir, &files(&[("a", "9"), ("b", "3")]), Owner::default()).unwrap());
        assert_eq!(names(dir), ["a", "b"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "9");
        assert_eq!(generations(dir), 1);
        assert!(write(dir, &files(&[]), Owner::default()).unwrap());
        assert_eq!(names(dir), Vec::<String>::new());
    }

    #[test]
    fn a_changed_mode_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), Owner::default()).unwrap();
        let mut other = files(&[("a", "1")]);
        other.get_mut(Path::new("a")).unwrap().mode = 0o600;
        assert!(write(dir.path(), &other, Owner::default()).unwrap());
    }

    #[test]
    fn a_reader_that_holds_the_directory_sees_one_generation() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("b", "1")]), Owner::default()).unwrap();
        let held = fs::canonicalize(dir.path().join(DATA)).unwrap();
        let open = fs::File::open(held.join("a")).unwrap();
        write(dir.path(), &files(&[("a", "2"), ("b", "2")]), Owner::default()).unwrap();
        assert_eq!(io::read_to_string(open).unwrap(), "1");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), Owner::default()).unwrap();
        fs::create_dir(dir.path().join("..halfway")).unwrap();
        symlink("..halfway", dir.path().join(NEXT)).unwrap();
        assert!(!write(dir.path(), &files(&[("a", "1")]), Owner::default()).unwrap());
        assert_eq!(generations(dir.path()), 1);
        assert!(dir.path().join(NEXT).symlink_metadata().is_err());
    }

    #[test]
    fn a_container_cannot_choose_what_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let volume = dir.path().join("volume");
        // What it may put into a new generation before its files are written.
        let fresh = volume.join("..new");
        fs::create_dir_all(&fresh).unwrap();
        symlink(outside.join("z"), fresh.join("z")).unwrap();
        symlink(&outside, fresh.join("d")).unwrap();
        let opened = beneath::top(&fresh).unwrap();
        assert!(fill(&opened, &files(&[("z", "1")]), Owner::default()).is_err());
        assert!(fill(&opened, &files(&[("d/z", "1")]), Owner::default()).is_err());
        // What it may put beside it.
        symlink(&outside, volume.join(DATA)).unwrap();
        symlink(&outside, volume.join(NEXT)).unwrap();
        symlink(outside.join("z"), volume.join("z")).unwrap();
        fs::create_dir(volume.join("y")).unwrap();
        assert!(write(&volume, &files(&[("y", "1"), ("z", "1")]), Owner::default()).unwrap());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing is written outside");
        assert_eq!(fs::read_to_string(volume.join("y")).unwrap(), "1");
        assert_eq!(fs::read_link(volume.join("z")).unwrap(), Path::new("..data/z"));
        // Or a directory where the link has to be.
        fs::remove_file(volume.join(DATA)).unwrap();
        fs::create_dir_all(volume.join(DATA).join("x")).unwrap();
        assert!(write(&volume, &files(&[("z", "2")]), Owner::default()).unwrap());
        assert_eq!(fs::read_to_string(volume.join("z")).unwrap(), "2");
    }

    #[test]
    fn a_file_that_was_changed_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), Owner::default()).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "1").unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let current = dir.path().join(DATA).canonicalize().unwrap();
        fs::remove_file(current.join("a")).unwrap();
        symlink(outside.path(), current.join("a")).unwrap();
        assert!(write(dir.path(), &files(&[("a", "1")]), Owner::default()).unwrap(), "a link with the right content is not the file");
        assert!(fs::symlink_metadata(dir.path().join(DATA).join("a")).unwrap().is_file());
    }
}
