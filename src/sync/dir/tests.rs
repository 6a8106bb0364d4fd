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
