//! Filesystems that the host has mounted on Podbay's directories and below: `down` and `reset` take their own away alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::hosts::{Hosts, PODBAY, sh};

/// Takes everything away that is mounted below, however the test ends.
struct Place<'a>(&'a Hosts);

impl Place<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.0.dir.join("one").join(name)
    }

    fn disk(&self, name: &str) {
        let path = self.path(name);
        sh(&format!("mkdir -p {0}; mount -t tmpfs -o size=1m test {0}", path.display()));
    }

    fn write(&self, name: &str) {
        std::fs::write(self.path(name), name).unwrap();
    }

    /// What is mounted there, innermost last.
    fn mounted(&self) -> BTreeSet<String> {
        let top = self.0.dir.join("one");
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = info.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter_map(|point| Path::new(point).strip_prefix(&top).ok()).map(|point| point.to_str().unwrap().to_owned()).collect()
    }

    fn podbay(&self, verb: &[&str]) -> String {
        let config = self.0.config("one");
        let out = self.0.command("one", PODBAY).args(verb).arg("--config").arg(config).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stderr).into_owned()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        for point in self.mounted().iter().rev() {
            sh(&format!("umount -l {}", self.path(point).display()));
        }
    }
}

#[test]
fn down_and_reset_leave_what_the_host_has_mounted() {
    let hosts = Hosts::new("pbm", &["one"]);
    let place = Place(&hosts);
    let theirs = ["data", "data/backup", "data/images", "data/pods", "data/store", "data/store/deep", "run"];
    let ours = ["data/pods/u1/volumes/token", "data/runtime/sandboxes/s1/merged", "run/pods/sandboxes/s1/shm"];
    theirs.iter().for_each(|name| place.disk(name));
    hosts.configure("one", "");
    let files = ["data/notes", "data/backup/theirs", "data/images/shared.tar", "data/store/objects.redb", "data/store/deep/theirs"];
    files.iter().for_each(|name| place.write(name));
    ours.iter().for_each(|name| place.disk(name));
    // As a hostPath is: what is in it must not go with the pod.
    let (from, to) = (place.path("data/backup"), place.path("data/pods/u1/volumes/host"));
    sh(&format!("mkdir -p {1}; mount --bind {0} {1}", from.display(), to.display()));
    let stay: BTreeSet<String> = theirs.iter().map(|&name| name.to_owned()).collect();

    place.podbay(&["down"]);
    assert_eq!(place.mounted(), stay);
    for name in files {
        assert_eq!(std::fs::read_to_string(place.path(name)).unwrap(), name);
    }
    assert_eq!(std::fs::read_dir(place.path("data/pods")).unwrap().count(), 0, "of the pods nothing is left");

    let told = place.podbay(&["reset", "--yes"]);
    assert!(told.contains("data/images is mounted") && told.contains("data/store/deep is mounted"), "{told}");
    place.podbay(&["reset", "--yes"]);
    assert_eq!(place.mounted(), stay);
    for name in ["data/notes", "data/backup/theirs", "data/images/shared.tar", "data/store/deep/theirs"] {
        assert_eq!(std::fs::read_to_string(place.path(name)).unwrap(), name);
    }
    assert!(!place.path("data/store/objects.redb").exists(), "the store is ours, on whichever disk");
    assert!(!place.path("data/runtime").exists() && !place.path("run/pods").exists());
}
