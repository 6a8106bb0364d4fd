//! Called by Debian's podman, and by containerd through our CRI client.

use std::path::Path;
use std::process::{Command, Output};

use podbay::cri::contract::suite;

use super::{ours, wait_for};
use crate::cri::containerd::Containerd;
use crate::engine::busybox;
use crate::hosts::sh;

struct Podman(tempfile::TempDir);

impl Podman {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-podman-").tempdir().unwrap();
        busybox(&dir.path().join("image"));
        sh(&format!("tar -C {0}/image -cf {0}/image.tar .", dir.path().display()));
        let conf = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\"]\n[engine]\nevents_logger = \"file\"\n";
        std::fs::write(dir.path().join("containers.conf"), conf).unwrap();
        ours(dir.path());
        let podman = Self(dir);
        podman.ok(&["import", "-q", &podman.0.path().join("image.tar").display().to_string(), "localhost/box:1"]);
        podman
    }

    fn call(&self, words: &[&str]) -> Output {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", path("containers.conf")).args(["--root", &path("storage"), "--runroot", &path("run")]);
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", &path("podbay-oci")]);
        command.args(words).output().expect("podman is installed (tests/setup test)")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.call(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["rm", "--all", "--force", "--time", "0"]);
        let dir = self.0.path().display();
        sh(&format!(
            "for at in $(grep -o '{dir}[^ ]*' /proc/self/mounts | sort -r); do umount -l $at; done; rmdir /sys/fs/cgroup/*/libpod_parent/* /sys/fs/cgroup/*/libpod_parent 2>/dev/null || true"
        ));
    }
}

#[test]
fn podman_runs_containers_by_it() {
    let podman = Podman::new();
    let box_ = "localhost/box:1";
    assert_eq!(podman.ok(&["run", "--rm", "--network=none", box_, "/bin/sh", "-c", "echo hello; id -u"]), "hello\n0");
    assert_eq!(podman.call(&["run", "--rm", "--network=none", box_, "/bin/sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(podman.call(&["run", "--rm", "--network=none", box_, "nothing-of-the-sort"]).status.code(), Some(127));
    podman.ok(&[
        "run",
        "-d",
        "--name",
        "a",
        "--network=none",
        "-m",
        "64m",
        "-u",
        "app",
        "-v",
        "/etc/os-release:/here:ro",
        box_,
        "/bin/sleep",
        "1000",
    ]);
    assert_eq!(podman.ok(&["exec", "a", "/bin/sh", "-c", "id -u; head -c 1 /here >/dev/null && echo read"]), "1000\nread");
    assert_eq!(podman.call(&["exec", "a", "/bin/sh", "-c", "exit 5"]).status.code(), Some(5));
    let status = |name: &str| podman.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name]);
    assert_eq!(status("a"), "running 0");
    podman.ok(&["pause", "a"]);
    assert_eq!(status("a"), "paused 0");
    podman.ok(&["unpause", "a"]);
    podman.ok(&["stop", "--time", "1", "a"]);
    assert_eq!(status("a"), "exited 137");
    podman.ok(&["start", "a"]);
    podman.ok(&["kill", "a"]);
    wait_for("it has ended", || status("a").starts_with("exited"));
    podman.ok(&["rm", "a"]);
    // It lists every device of the host, those of a container's own /dev as well.
    let privileged = ["run", "--rm", "--privileged", "--network=none", box_, "/bin/sh", "-c", "test -c /dev/ptmx && echo privileged"];
    assert_eq!(podman.ok(&privileged), "privileged");
    // A terminal, and a pod whose containers share namespaces.
    podman.ok(&["run", "-d", "-t", "--name", "t", "--network=none", box_, "/bin/sh", "-c", "test -t 1 && echo terminal"]);
    wait_for("it has ended", || status("t").starts_with("exited"));
    assert_eq!(podman.ok(&["logs", "t"]), "terminal");
    podman.ok(&["rm", "t"]);
    assert!(!Path::new("/run/podbay/oci").read_dir().is_ok_and(|mut all| all.next().is_some()), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_runs_pods_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let containerd = Containerd::start_with(7, &ours(dir.path())).await;
    let subject = containerd.subject(containerd.client().await);
    suite(&subject).await;
}
