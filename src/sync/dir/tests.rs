use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn tree(fetched: Fetched) -> Tree {
    match fetched {
        Fetched::Tree(tree) => tree,
        Fetched::Unreachable(why) => panic!("unreachable: {why}"),
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
        let Fetched::Unreachable(why) = Directory::new(dir.path(), "").fetch().await else { panic!("{target:?} is read") };
        assert!(why.contains(&format!("a.yaml is {what}: a manifest is a file of the source")), "{why}");
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
    }
    // A linked directory is not walked, whatever it holds; there nothing was read before either.
    symlink(outside.path(), dir.path().join("linked")).unwrap();
    let fetched = tree(Directory::new(dir.path(), "").fetch().await);
    assert!(fetched.files.is_empty());
    assert_eq!(fetched.notes, [format!("linked: {out}, left out")]);
    // The path itself may not lead out either.
    assert!(
        matches!(Directory::new(dir.path(), "linked").fetch().await, Fetched::Unreachable(why) if why.contains("path linked is a link"))
    );
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
async fn bounds_make_it_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("big.yaml"), vec![b'a'; 200]).unwrap();
    let limits = Limits { file_bytes: 100, ..Limits::default() };
    assert!(
        matches!(Directory::new(dir.path(), "").with_limits(limits).fetch().await, Fetched::Unreachable(why) if why.contains("big.yaml"))
    );
    let mut deep = dir.path().to_owned();
    for _ in 0..70 {
        deep.push("d");
    }
    fs::create_dir_all(deep).unwrap();
    assert!(matches!(Directory::new(dir.path(), "").fetch().await, Fetched::Unreachable(why) if why.contains("deeper")));
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
