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
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::plan::File;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `dir` hold these files. Says whether anything changed.
///
/// # Errors
/// A file cannot be written; the old content is still whole then.
pub fn write(dir: &Path, files: &BTreeMap<PathBuf, File>, group: Option<u32>) -> io::Result<bool> {
    let current = fs::read_link(dir.join(DATA)).ok();
    let unchanged = current.as_ref().is_some_and(|name| same(&dir.join(name), files, group));
    if !unchanged {
        let name = format!("..{}", uuid::Uuid::new_v4().simple());
        let fresh = dir.join(&name);
        fill(&fresh, files, group)?;
        let next = dir.join(NEXT);
        remove_if_there(&next)?;
        symlink(&name, &next)?;
        fs::rename(&next, dir.join(DATA))?;
    }
    let changed_names = links(dir, files)?;
    sweep(dir)?;
    Ok(!unchanged || changed_names)
}

fn fill(dir: &Path, files: &BTreeMap<PathBuf, File>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = dir.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.bytes)?;
        chown(&target, None, group)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode(file, group)))?;
    }
    Ok(())
}

/// With an fsGroup the group may read.
fn mode(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn same(dir: &Path, files: &BTreeMap<PathBuf, File>, group: Option<u32>) -> bool {
    let mut found = BTreeSet::new();
    if list(dir, Path::new(""), &mut found).is_err() || !found.iter().eq(files.keys()) {
        return false;
    }
    files.iter().all(|(path, file)| {
        let path = dir.join(path);
        let right_mode = fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode(file, group));
        right_mode && fs::read(&path).is_ok_and(|bytes| bytes == file.bytes)
    })
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// The names a container sees: one link for each first component. Stale ones go after the swap.
fn links(dir: &Path, files: &BTreeMap<PathBuf, File>) -> io::Result<bool> {
    let first = |path: &PathBuf| match path.components().next() {
        Some(Component::Normal(name)) => Some(name.to_owned()),
        _ => None,
    };
    let wanted: BTreeSet<OsString> = files.keys().filter_map(first).collect();
    let mut changed = false;
    for name in &wanted {
        let link = dir.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(name), link)?;
            changed = true;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !wanted.contains(&name) && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Generations that nothing points to: the one before, and those of a writer that was killed.
fn sweep(dir: &Path) -> io::Result<()> {
    let current = fs::read_link(dir.join(DATA))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.as_encoded_bytes().starts_with(b"..") && entry.file_type()?.is_dir();
        if ours && Path::new(&name) != current {
            fs::remove_dir_all(entry.path())?;
        }
    }
    remove_if_there(&dir.join(NEXT))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<PathBuf, File> {
        list.iter().map(|(path, text)| (PathBuf::from(path), File { bytes: text.as_bytes().to_vec(), mode: 0o640 })).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let all = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = all.filter(|name| !name.starts_with("..")).collect();
        names.sort();
        names
    }

    fn generations(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    }

    #[test]
    fn files_appear_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(write(dir, &files(&[("a", "1"), ("x/y", "2")]), None).unwrap());
        assert_eq!(names(dir), ["a", "x"]);
        assert_eq!(fs::read_to_string(dir.join("x/y")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join(DATA)).unwrap();
        assert!(!write(dir, &files(&[("a", "1"), ("x/y", "2")]), None).unwrap(), "the same again is no change");
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before);
        assert!(write(dir, &files(&[("a", "9"), ("b", "3")]), None).unwrap());
        assert_eq!(names(dir), ["a", "b"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "9");
        assert_eq!(generations(dir), 1);
        assert!(write(dir, &files(&[]), None).unwrap());
        assert_eq!(names(dir), Vec::<String>::new());
    }

    #[test]
    fn a_changed_mode_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), None).unwrap();
        let mut other = files(&[("a", "1")]);
        other.get_mut(Path::new("a")).unwrap().mode = 0o600;
        assert!(write(dir.path(), &other, None).unwrap());
    }

    #[test]
    fn a_reader_that_holds_the_directory_sees_one_generation() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("b", "1")]), None).unwrap();
        let held = fs::canonicalize(dir.path().join(DATA)).unwrap();
        let open = fs::File::open(held.join("a")).unwrap();
        write(dir.path(), &files(&[("a", "2"), ("b", "2")]), None).unwrap();
        assert_eq!(io::read_to_string(open).unwrap(), "1");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1")]), None).unwrap();
        fs::create_dir(dir.path().join("..halfway")).unwrap();
        symlink("..halfway", dir.path().join(NEXT)).unwrap();
        assert!(!write(dir.path(), &files(&[("a", "1")]), None).unwrap());
        assert_eq!(generations(dir.path()), 1);
        assert!(dir.path().join(NEXT).symlink_metadata().is_err());
    }
}
