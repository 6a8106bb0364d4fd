//! Called by Debian's podman, and by containerd through our CRI client.

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use podbay::cri::contract::{Subject, attach_suite, inside_stream_suite, inside_suite, stream_suite, suite};

use super::{ours, wait_for};
use crate::cri::containerd::Containerd;
use crate::engine::busybox;
use crate::hosts::sh;

/// With storage, networks and a runtime of one test alone.
struct Podman {
    dir: tempfile::TempDir,
    bridge: String,
    /// Of its network's addresses.
    number: u8,
}

const BOX: &str = "localhost/box:1";
/// How many there are. All of them have their containers' cgroups below one, `libpod_parent`, which is the last one's to take away.
static LIVING: Mutex<u32> = Mutex::new(0);

impl Podman {
    fn new(number: u8) -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-podman-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let image = path("image");
        busybox(&image);
        std::fs::create_dir(image.join("data")).unwrap();
        std::fs::write(image.join("data/file"), "of the image\n").unwrap();
        sh(&format!("tar -C {0} -cf {0}.tar .", image.display()));
        let bridge = format!("pbo{}", std::process::id() % 100_000 + u32::from(number) * 100_000);
        let network = serde_json::json!({"cniVersion": "0.4.0", "name": "podman", "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "dataDir": path("addresses"),
                "ranges": [[{"subnet": format!("10.215.{number}.0/24")}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        std::fs::create_dir(path("net")).unwrap();
        std::fs::write(path("net/87-podman.conflist"), network.to_string()).unwrap();
        let conf = format!(
            "[containers]\ndefault_ulimits = [\"nofile=20000:20000\"]\nlog_driver = \"k8s-file\"\n[engine]\nevents_logger = \"file\"\n\
             [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"/usr/lib/cni\"]\nnetwork_config_dir = {:?}\n",
            path("net")
        );
        std::fs::write(path("containers.conf"), conf).unwrap();
        ours(dir.path());
        *LIVING.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let podman = Self { dir, bridge, number };
        podman.ok(&["import", "-q", &podman.path("image.tar"), BOX]);
        podman
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn call(&self, words: &[&str]) -> Output {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        // Its overlay of several ranges of ids is refused by some kernels, whatever the runtime.
        command.args(["--storage-driver", "vfs", "--root", &self.path("storage"), "--runroot", &self.path("run")]);
        command.args(["--tmpdir", &self.path("tmp"), "--cgroup-manager", "cgroupfs", "--runtime", &self.path("podbay-oci")]);
        command.args(words).output().expect("podman is installed (tests/setup test)")
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.call(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    /// What a script says in a container that is run with these options.
    fn run(&self, options: &[&str], script: &str) -> String {
        self.ok(&[&["run", "--rm"], options, &[BOX, "/bin/sh", "-c", script]].concat())
    }

    /// What a container answers on a port of the host's.
    fn fetch(&self, port: &str) -> String {
        let answer = Command::new("curl").args(["-s", "--max-time", "5", &format!("http://127.0.0.1:{port}/")]).output().unwrap();
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    }
}

/// A port that nobody has at the moment.
fn free_port() -> String {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port().to_string()
}

const SERVE: &str = "echo served > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp";

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["pod", "rm", "--all", "--force", "--time", "0"]);
        self.call(&["rm", "--all", "--force", "--time", "0"]);
        let dir = self.dir.path().display();
        sh(&format!(
            "for at in $(grep -o '{dir}[^ ]*' /proc/self/mounts | sort -r); do umount -l $at; done; ip link delete {} 2>/dev/null || true",
            self.bridge
        ));
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        *living -= 1;
        if *living == 0 {
            sh("rmdir /sys/fs/cgroup/*/libpod_parent/* /sys/fs/cgroup/*/libpod_parent 2>/dev/null || true");
        }
    }
}

#[test]
fn podmans_containers_have_its_networks() {
    let podman = Podman::new(1);
    let address = podman.run(&[], "busybox ip -4 -o address show eth0 | busybox awk '{print $4}'");
    assert!(address.starts_with(&format!("10.215.{}.", podman.number)) && address.ends_with("/24"), "{address}");
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(podman.run(&["--network=host"], "readlink /proc/self/ns/net"), host.display().to_string());
    let port = free_port();
    podman.ok(&["run", "-d", "--name", "web", "-p", &format!("{port}:80"), BOX, "/bin/sh", "-c", SERVE]);
    wait_for("its port is reached", || podman.fetch(&port) == "served");
    podman.ok(&["restart", "--time", "0", "web"]);
    wait_for("its port is reached again", || podman.fetch(&port) == "served");
    podman.ok(&["rm", "--force", "--time", "0", "web"]);
    // A pod's containers share what its first one holds open.
    let infra = ["--infra-image", BOX, "--infra-command", "/bin/sleep 1000"];
    podman.ok(&[&["pod", "create", "--name", "pod", "-p", &format!("{port}:80")], infra.as_slice()].concat());
    podman.ok(&["run", "-d", "--pod", "pod", "--name", "first", BOX, "/bin/sh", "-c", SERVE]);
    wait_for("the pod's port is reached", || podman.fetch(&port) == "served");
    assert_eq!(podman.run(&["--pod", "pod"], "hostname; busybox wget -q -O - http://127.0.0.1/"), "pod\nserved");
    podman.ok(&["pod", "stop", "--time", "0", "pod"]);
    podman.ok(&["pod", "start", "pod"]);
    wait_for("the pod's port is reached again", || podman.fetch(&port) == "served");
}

#[test]
fn podmans_options_are_in_force() {
    let podman = Podman::new(2);
    let none = "--network=none";
    let words =
        ["--cap-drop", "all", "--cap-add", "SYS_TIME", "--user", "app", "--hostname", "named", "-w", "/tmp", "-e", "A=b", "-t", none];
    let said = podman.run(&words, "grep CapBnd /proc/self/status; id -u; hostname; pwd; echo $A; test -t 0 && echo terminal");
    let said: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(said, ["CapBnd:", "0000000002000000", "1000", "named", "/tmp", "b", "terminal"]);
    let script = "cat /data/file; touch /data/new /tmp/new /run/new && echo new; touch /new 2>/dev/null || echo read-only";
    assert_eq!(podman.run(&["--read-only", "--tmpfs", "/data", none], script), "of the image\nnew\nread-only");
    let volume = podman.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let mount = format!("{volume}:/volume");
    podman.run(&["-v", &mount, none], "echo theirs > /volume/file");
    assert_eq!(std::fs::read_to_string(format!("{volume}/file")).unwrap(), "theirs\n");
    // What the runtime was asked to limit is in the container's cgroup.
    podman.ok(&["run", "-d", "--name", "small", none, "--memory", "64m", "--cpus", "0.5", "--pids-limit", "33", BOX, "sleep", "1000"]);
    let pid = podman.ok(&["inspect", "--format", "{{.State.Pid}}", "small"]);
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let limit = |controller: &str, file: &str| {
        let path = cgroups.lines().find_map(|line| line.split_once(&format!(":{controller}:"))).unwrap().1;
        std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}{path}/{file}")).unwrap().trim().to_owned()
    };
    let limits =
        [("memory", "memory.limit_in_bytes"), ("pids", "pids.max"), ("cpu", "cpu.cfs_quota_us")].map(|(one, file)| limit(one, file));
    assert_eq!(limits, ["67108864", "33", "50000"]);
    assert!(podman.ok(&["top", "small"]).contains("sleep") && podman.ok(&["stats", "--no-stream", "small"]).contains("small"));
    let copied = podman.path("copied");
    podman.ok(&["cp", "small:/data/file", &copied]);
    assert_eq!(std::fs::read_to_string(copied).unwrap(), "of the image\n");
    podman.ok(&["update", "--memory", "32m", "small"]);
    assert_eq!(limit("memory", "memory.limit_in_bytes"), "33554432");
    // A health check is a command in it, as its timer would run it.
    let check =
        ["run", "-d", "--name", "well", none, "--health-cmd", "test -e /tmp/well", "--health-interval", "disable", BOX, "sleep", "1000"];
    podman.ok(&check);
    assert!(!podman.call(&["healthcheck", "run", "well"]).status.success());
    podman.ok(&["exec", "well", "touch", "/tmp/well"]);
    podman.ok(&["healthcheck", "run", "well"]);
}

#[test]
fn podmans_user_namespaces_are_kept() {
    let podman = Podman::new(3);
    let users = ["--uidmap", "0:100000:1000", "--uidmap", "1000:300000:1000", "--gidmap", "0:100000:2000"];
    let map = "cat /proc/self/uid_map | tr -s ' ' | tr '\\n' ','; id -u";
    for network in ["--network=none", "--network=host", "--network=podman"] {
        assert_eq!(podman.run(&[&users[..], &[network]].concat(), map), "0 100000 1000, 1000 300000 1000,0", "{network}");
    }
    let volume = podman.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let owner = |name: &str| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("{volume}/{name}")).unwrap());
    let (port, mount) = (free_port(), format!("{volume}:/volume"));
    let options = ["run", "-d", "--name", "users", "-v", &mount, "-p", &format!("{port}:80")];
    podman.ok(&[&options[..], &users, &[BOX, "/bin/sh", "-c", SERVE]].concat());
    wait_for("its port is reached", || podman.fetch(&port) == "served");
    podman.ok(&["exec", "--user", "app", "users", "/bin/sh", "-c", "touch /volume/apps; echo said > /dev/stdout"]);
    podman.ok(&["exec", "users", "touch", "/volume/roots"]);
    assert_eq!((owner("apps"), owner("roots")), (300_000, 100_000));
    let shared = podman.run(&["--userns=container:users", "--network=container:users"], "busybox wget -q -O - http://127.0.0.1/; id -u");
    assert_eq!(shared, "served\n0");
    let mapped = format!("{mount}:idmap");
    podman.run(&[&users[..], &["-v", &mapped, "--network=none"]].concat(), "touch /volume/mapped");
    assert_eq!(owner("mapped"), 0);
}

#[test]
fn podman_runs_containers_by_it() {
    let podman = Podman::new(0);
    let box_ = BOX;
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
    // What others have there now is of other bundles.
    assert_eq!(sh(&format!("grep -rl {} /run/podbay/oci 2>/dev/null || true", podman.dir.path().display())), "", "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_runs_pods_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let containerd = Containerd::start_with(7, &ours(dir.path())).await;
    let subject = Subject { handler: "podbay".to_owned(), ..containerd.subject(containerd.client().await) };
    suite(&subject).await;
    inside_suite(&subject).await;
    stream_suite(&subject).await;
    inside_stream_suite(&subject).await;
    attach_suite(&subject).await;
}
