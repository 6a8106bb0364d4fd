use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use super::*;

fn tree(fetched: Fetched) -> Tree {
    match fetched {
        Fetched::Tree(tree) => tree,
        Fetched::Refused { why, .. } => panic!("refused: {why}"),
        Fetched::Unreachable(why) => panic!("unreachable: {why}"),
    }
}

/// Why what the directory holds is not taken.
fn refused(fetched: Fetched) -> String {
    match fetched {
        Fetched::Refused { revision: None, why } => why,
        other => panic!("it is not refused: {other:?}"),
    }
}

fn names(tree: &Tree) -> Vec<&str> {
    tree.files.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn reads_manifests_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    fs::create_dir_all(root.join("skipped")).unwrap();
    for (path, text) in [
        ("a/b/x.yaml", "1"),
        ("y.json", "2"),
        ("README.md", "3"),
        (".git/z.yaml", "4"),
        ("skipped/x.yaml", "5"),
        (".podbayignore", "skipped\n"),
    ] {
        fs::write(root.join(path), text).unwrap();
    }
    symlink("README.md", root.join("link.yaml")).unwrap();
    let source = Directory::new(root, "");
    let first = tree(source.fetch().await);
    assert_eq!(names(&first), ["a/b/x.yaml", "link.yaml", "y.json"]);
    assert_eq!(tree(source.fetch().await), first);
    fs::write(root.join("y.json"), "22").unwrap();
    assert_ne!(tree(source.fetch().await).revision, first.revision);
    assert_eq!(names(&tree(Directory::new(root, "/a/").fetch().await)), ["b/x.yaml"]);
}

#[tokio::test]
async fn a_file_is_no_directory_and_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let Fetched::Unreachable(why) = Directory::new(&file, "").fetch().await else { panic!("it is read as a directory") };
    assert!(why.ends_with("a.yaml is not a directory: name the one it is in"), "{why}");
}

#[tokio::test]
async fn a_manifest_that_is_a_link_out_of_the_tree_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.yaml"), "s").unwrap();
    let (out, nowhere) = ("a link that leads out of the source", "a link that leads nowhere");
    for (target, what) in
        [(outside.path().join("secret.yaml"), out), ("/proc/self/environ".into(), out), ("nowhere".into(), nowhere), ("../x".into(), out)]
    {
        symlink(&target, dir.path().join("a.yaml")).unwrap();
        let why = refused(Directory::new(dir.path(), "").fetch().await);
        assert!(why.contains(&format!("a.yaml is {what}: a manifest is a file of the source")), "{why}");
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
    }
    // A linked directory is not walked, whatever it holds; there nothing was read before either.
    symlink(outside.path(), dir.path().join("linked")).unwrap();
    let fetched = tree(Directory::new(dir.path(), "").fetch().await);
    assert!(fetched.files.is_empty());
    assert_eq!(fetched.notes, [format!("linked: {out}, left out")]);
    // The path itself may not lead out either.
    let why = refused(Directory::new(dir.path(), "linked").fetch().await);
    assert_eq!(why, format!("the source's path linked is {out}"));
}

#[tokio::test]
async fn clones_below_a_directory_are_read_and_submodules_of_a_work_tree_are_not() {
    let dir = tempfile::tempdir().unwrap();
    for module in ["old", "new"] {
        fs::create_dir(dir.path().join(module)).unwrap();
        fs::write(dir.path().join(module).join("a.yaml"), "1").unwrap();
    }
    fs::create_dir(dir.path().join("old/.git")).unwrap();
    fs::write(dir.path().join("new/.git"), "gitdir: elsewhere").unwrap();
    let read = tree(Directory::new(dir.path(), "").fetch().await);
    assert_eq!((names(&read), read.notes.len()), (vec!["new/a.yaml", "old/a.yaml"], 0));
    let read = tree(Directory::new(dir.path(), "").as_work_tree().fetch().await);
    assert!(read.files.is_empty());
    assert_eq!(read.notes, ["new: a submodule, left out", "old: a submodule, left out"]);
}

#[tokio::test]
async fn special_files_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let tree = tree(Directory::new(dir.path(), "").fetch().await);
    assert!(tree.files.is_empty());
    assert_eq!(tree.notes, ["pipe.yaml: not a regular file, left out"]);
}

#[tokio::test]
async fn gone_is_unreachable_and_a_gone_path_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("apps")).unwrap();
    let source = Directory::new(dir.path(), "apps");
    assert!(tree(source.fetch().await).path_exists);
    fs::remove_dir(dir.path().join("apps")).unwrap();
    assert!(!tree(source.fetch().await).path_exists);
    fs::remove_dir(dir.path()).unwrap();
    assert!(matches!(source.fetch().await, Fetched::Unreachable(_)));
}

#[tokio::test]
async fn another_mount_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("current");
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let source = Directory::new(&link, "");
    tree(source.fetch().await);
    fs::remove_file(&link).unwrap();
    symlink("/proc/sys", &link).unwrap();
    let fetched = source.fetch().await;
    assert!(matches!(&fetched, Fetched::Unreachable(why) if why.contains("another mount")), "{fetched:?}");
    fs::remove_file(&link).unwrap();
    symlink(&real, &link).unwrap();
    tree(source.fetch().await);
}

#[tokio::test]
async fn what_is_beyond_a_bound_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("big.yaml"), vec![b'a'; 200]).unwrap();
    let limits = Limits { file_bytes: 100, ..Limits::default() };
    let source = Directory::new(dir.path(), "").with_limits(limits);
    assert_eq!(refused(source.fetch().await), "big.yaml is larger than 100 bytes");
    fs::write(dir.path().join("big.yaml"), "small").unwrap();
    assert_eq!(names(&tree(source.fetch().await)), ["big.yaml"]);
    let mut deep = dir.path().to_owned();
    for _ in 0..70 {
        deep.push("d");
    }
    fs::create_dir_all(deep).unwrap();
    assert!(refused(Directory::new(dir.path(), "").fetch().await).ends_with(" is deeper than 64 directories"));
}

/// As what it names may be a manifest, which would else be taken for no longer wanted.
#[tokio::test]
async fn names_that_no_path_has_are_refused_unless_they_are_ignored() {
    for (name, is_directory, told) in [
        (&b"\xff.yaml"[..], false, Some("`\u{fffd}.yaml` is no name for a file or directory: it is not UTF-8")),
        (b"caf\xe9", true, Some("`caf\u{fffd}` is no name for a file or directory: it is not UTF-8")),
        (b"bell\x07", true, Some("`bell\\u{7}` is no name for a file or directory: it has control characters")),
        (b"caf\xe9", false, None),
        (b".\xff.yaml", false, None),
        (b".caf\xe9", true, None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join(OsStr::from_bytes(name));
        if is_directory {
            fs::create_dir(&at).unwrap()
        } else {
            fs::write(&at, "1").unwrap()
        }
        let fetched = Directory::new(dir.path(), "").fetch().await;
        match told {
            Some(why) => assert_eq!(refused(fetched), why),
            None => assert!(tree(fetched).files.is_empty(), "{name:?}"),
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(OsStr::from_bytes(b"caf\xe9"))).unwrap();
    fs::write(dir.path().join(".podbayignore"), "caf*/\n").unwrap();
    assert!(tree(Directory::new(dir.path(), "").fetch().await).files.is_empty());
}

#[tokio::test]
async fn a_change_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let source = Directory::new(dir.path(), "");
    tree(source.fetch().await);
    fs::write(dir.path().join("a.yaml"), "1").unwrap();
    tokio::time::timeout(Duration::from_secs(30), source.changed()).await.unwrap();
    assert_eq!(names(&tree(source.fetch().await)), ["a.yaml"]);
}

/// Each edit has to wake by itself: one of them may find that it was woken already.
async fn every_edit_wakes(source: &Directory, root: &Path) {
    for edit in ["1", "2", "3", "4"] {
        fs::write(root.join("edited.yaml"), edit).unwrap();
        woken(source, |tree| tree.files.get("edited.yaml").map(Vec::as_slice) == Some(edit.as_bytes())).await;
    }
}

/// Waits to be woken, looks, and so on until the look finds what is looked for.
async fn woken(source: &Directory, is_it: impl Fn(&Tree) -> bool) {
    loop {
        tokio::time::timeout(Duration::from_secs(30), source.changed()).await.expect("nobody wakes");
        if let Fetched::Tree(tree) = source.fetch().await
            && is_it(&tree)
        {
            return;
        }
    }
}

#[tokio::test]
async fn what_comes_in_the_place_of_a_directory_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("sw");
    let put = |at: &Path, name: &str| {
        fs::create_dir_all(at).unwrap();
        fs::write(at.join(name), "1").unwrap();
    };
    let has = |name: &'static str| move |tree: &Tree| tree.files.contains_key(name);
    put(&root, "first.yaml");
    let source = Directory::new(&root, "");
    tree(source.fetch().await);
    every_edit_wakes(&source, &root).await;
    // By a name that changes.
    put(&dir.path().join("new"), "second.yaml");
    fs::rename(&root, dir.path().join("old")).unwrap();
    fs::rename(dir.path().join("new"), &root).unwrap();
    woken(&source, has("second.yaml")).await;
    every_edit_wakes(&source, &root).await;
    // Deleted and made anew, be it with the same inode.
    fs::remove_dir_all(&root).unwrap();
    put(&root, "third.yaml");
    woken(&source, has("third.yaml")).await;
    every_edit_wakes(&source, &root).await;
    // Gone, with a look meanwhile.
    fs::remove_dir_all(&root).unwrap();
    assert!(matches!(source.fetch().await, Fetched::Unreachable(_)));
    put(&root, "fourth.yaml");
    woken(&source, has("fourth.yaml")).await;
    every_edit_wakes(&source, &root).await;
}

#[tokio::test]
async fn a_directory_that_comes_later_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("not/there/yet");
    let source = Directory::new(&root, "");
    assert!(matches!(source.fetch().await, Fetched::Unreachable(_)));
    fs::create_dir_all(&root).unwrap();
    woken(&source, |_| true).await;
    every_edit_wakes(&source, &root).await;
}

#[tokio::test]
async fn where_a_link_leads_is_watched_and_the_link() {
    let dir = tempfile::tempdir().unwrap();
    for release in ["1", "2"] {
        fs::create_dir(dir.path().join(release)).unwrap();
        fs::write(dir.path().join(release).join("a.yaml"), release).unwrap();
    }
    let root = dir.path().join("current");
    symlink("1", &root).unwrap();
    let source = Directory::new(&root, "");
    tree(source.fetch().await);
    every_edit_wakes(&source, &root).await;
    symlink("2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &root).unwrap();
    woken(&source, |tree| tree.files["a.yaml"] == b"2").await;
    every_edit_wakes(&source, &root).await;
}
