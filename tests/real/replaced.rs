//! A directory source in whose place something else is mounted.

use std::fs;
use std::path::{Path, PathBuf};

use podbay::sync::dir::Directory;
use podbay::sync::source::{Fetch, Fetched};

use crate::hosts::sh;

/// Mounts of its own, on a thread of its own: whatever it starts is in that namespace too, which ends with the thread.
fn apart(test: impl AsyncFnOnce(&Path) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare the mounts");
        sh("mount --make-rprivate /");
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(dir.path()));
    });
    thread.join().unwrap();
}

fn made(dir: &Path, name: &str, content: Option<&str>) -> PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(&path).unwrap();
    if let Some(content) = content {
        fs::write(path.join("a.yaml"), content).unwrap();
    }
    path
}

/// The manifest that is read, if a tree is.
async fn read(source: &Directory) -> Result<String, String> {
    match source.fetch().await {
        Fetched::Tree(tree) => Ok(tree.files.get("a.yaml").map_or("none".to_owned(), |text| String::from_utf8(text.clone()).unwrap())),
        Fetched::Unreachable(why) => Err(why),
        Fetched::Refused { why, .. } => panic!("refused: {why}"),
    }
}

async fn is_another(source: &Directory) {
    let told = read(source).await;
    assert!(told.as_ref().is_err_and(|why| why.contains("is on another mount than before")), "{told:?}");
}

#[test]
fn a_tmpfs_in_the_place_of_another_is_another() {
    apart(async |dir| {
        let root = made(dir, "root", None);
        let (mount, unmount) = (format!("mount -t tmpfs -o size=1m test {}", root.display()), format!("umount {}", root.display()));
        sh(&mount);
        made(dir, "root", Some("1"));
        let source = Directory::new(&root, "");
        assert_eq!(read(&source).await.unwrap(), "1");
        // It gets the number of the device that is gone.
        sh(&unmount);
        sh(&mount);
        is_another(&source).await;
        made(dir, "root", Some("2"));
        is_another(&source).await;
        let restarted = Directory::new(&root, "");
        assert_eq!(read(&restarted).await.unwrap(), "2", "nothing is kept over a restart");
        sh(&unmount);
    });
}

#[test]
fn of_one_device_each_mount_is_another_unless_it_holds_the_same() {
    apart(async |dir| {
        let (root, own, other) = (made(dir, "root", None), made(dir, "own", Some("1")), made(dir, "other", Some("3")));
        let bind = |from: &Path| sh(&format!("mount --bind {} {}", from.display(), root.display()));
        let unmount = || sh(&format!("umount {}", root.display()));
        bind(&own);
        let source = Directory::new(&root, "");
        assert_eq!(read(&source).await.unwrap(), "1");
        unmount();
        is_another(&source).await;
        bind(&own);
        assert_eq!(read(&source).await.unwrap(), "1", "it is back, and nothing else");
        made(dir, "own", Some("2"));
        assert_eq!(read(&source).await.unwrap(), "2");
        unmount();
        bind(&other);
        is_another(&source).await;
        unmount();
    });
}
