//! Debian's podman with crun, of one bench alone: its own directories, bridge and images. Nothing of it is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::memory::SLEEP;

pub struct Podman {
    dir: tempfile::TempDir,
    bridge: String,
}

impl Podman {
    /// With two archives: an image for containers, and one that holds a pod open.
    pub fn open(image: &Path, pause: &Path, pause_name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-podman-").tempdir().unwrap();
        let bridge = format!("pbp{}", std::process::id());
        std::fs::create_dir_all(dir.path().join("net")).unwrap();
        let network = serde_json::json!({"cniVersion": "0.4.0", "name": "podman", "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": false, "ipam": {
                "type": "host-local", "dataDir": dir.path().join("addresses"),
                "ranges": [[{"subnet": "10.214.0.0/16", "gateway": "10.214.0.1"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        std::fs::write(dir.path().join("net/87-podman.conflist"), network.to_string()).unwrap();
        // Without the right to raise limits its own defaults are refused.
        let config = format!(
            "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=20000:20000\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\ninfra_image = \"{pause_name}\"\nruntime = \"crun\"\n\
             [network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"/usr/lib/cni\"]\nnetwork_config_dir = {:?}\n",
            dir.path().join("net")
        );
        std::fs::write(dir.path().join("containers.conf"), config).unwrap();
        let this = Self { dir, bridge };
        for archive in [image, pause] {
            this.run(&["load", "--quiet", "--input", archive.to_str().unwrap()]);
        }
        this
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        let path = |name: &str| self.dir.path().join(name);
        command.env("CONTAINERS_CONF", path("containers.conf")).arg("--storage-driver").arg("overlay");
        command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().expect("podman is installed (tests/setup bench)");
        assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A manifest of so many pods.
    pub fn manifest(&self, image: &str, names: &[String]) -> PathBuf {
        let pod = |name: &String| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: main, image: \"{image}\", \
                 imagePullPolicy: Never, command: [\"{}\", \"{}\"]}}\n",
                SLEEP[0], SLEEP[1]
            )
        };
        let file = self.dir.path().join("pods.yaml");
        std::fs::write(&file, names.iter().map(pod).collect::<Vec<_>>().join("---\n")).unwrap();
        file
    }

    /// Returns when all of them run.
    pub fn play(&self, manifest: &Path) {
        self.run(&["kube", "play", "--quiet", "--network", "podman", manifest.to_str().unwrap()]);
    }

    /// Stops without grace and removes. Where cgroup v1 is, three seconds of it go by with the pod's cgroup.
    pub fn remove(&self, name: &str) {
        self.run(&["pod", "rm", "--force", "--time", "0", name]);
    }

    /// Of many one or another may stay, which it says.
    pub fn remove_all(&self) {
        let output = self.command(&["pod", "rm", "--all", "--force", "--time", "0"]).output().unwrap();
        if !output.status.success() {
            println!(
                "  (podman did not remove all of its pods: {})",
                String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default()
            );
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.remove_all();
        // Its storage is mounted onto itself.
        let _ = Command::new("umount").arg(self.dir.path().join("root/overlay")).stderr(Stdio::null()).status();
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).stderr(Stdio::null()).status();
    }
}
