//! Debian's containerd, of one test alone: its own directories, socket, bridge. Nothing of it is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use podbay::cri::Images;
use podbay::cri::client::Client;
use podbay::cri::contract::Subject;

use crate::hosts::{Hosts, sh};
use crate::layer::{Tar, architecture, image, layout};

pub const PAUSE: &str = "podbay.test/pause:1";
pub const BUSYBOX: &str = "podbay.test/busybox:1";

pub struct Containerd {
    dir: tempfile::TempDir,
    /// In our own network namespace; elsewhere it goes with that.
    bridge: Option<String>,
    program: Command,
    child: Child,
}

/// An archive of the image that holds a sandbox open: its shell only sleeps.
pub fn pause(at: &Path) {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let layer = Tar::new()
        .directory("bin")
        .raw(b'0', b"bin/busybox", b"", 0o755, &busybox)
        .raw(b'0', b"bin/sh", b"", 0o755, b"#!/bin/busybox sh\nexec /bin/busybox sleep 2147483647\n")
        .finish();
    let dir = at.with_extension("layout");
    layout(&dir, &[(PAUSE, &image(&[(crate::layer::gzip(&layer), layer)], &architecture()))]);
    sh(&format!("tar -C {} -cf {} oci-layout index.json blobs", dir.display(), at.display()));
}

impl Containerd {
    /// Starts it with `number` choosing its range of addresses.
    pub async fn start(number: u8) -> Self {
        let bridge = format!("pbc{}", std::process::id() % 100_000 + u32::from(number) * 100_000);
        Self::start_by(Command::new("containerd"), bridge, &format!("10.213.{number}.0/24"), false, None).await
    }

    /// The same with another OCI runtime beside runc: its handler is `podbay`.
    pub async fn start_with(number: u8, runtime: &Path) -> Self {
        let bridge = format!("pbc{}", std::process::id() % 100_000 + u32::from(number) * 100_000);
        Self::start_by(Command::new("containerd"), bridge, &format!("10.213.{number}.0/24"), false, Some(runtime)).await
    }

    /// On one of several hosts, for its agent: the pods' range is that of the node, which the agent is told.
    pub async fn start_on(hosts: &Hosts, name: &str) -> Self {
        Self::start_by(hosts.command(name, "containerd"), "podbay0".into(), "{{.PodCIDR}}", true, None).await
    }

    async fn start_by(mut program: Command, bridge: String, range: &str, template: bool, runtime: Option<&Path>) -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-containerd-").tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir_all(dir.path().join("net")).unwrap();
        let network = serde_json::json!({"cniVersion": "0.4.0", "name": bridge, "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": true, "hairpinMode": true, "ipMasq": false, "ipam": {
                "type": "host-local", "dataDir": path("addresses"), "ranges": [[{"subnet": range}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        let file = if template { "template.json" } else { "net/10-test.conflist" };
        std::fs::write(dir.path().join(file), network.to_string()).unwrap();
        let template = if template { format!("conf_template = \"{}\"", path("template.json")) } else { String::new() };
        let runtime = runtime.map(|path| {
            let all = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes";
            let kind = "runtime_type = \"io.containerd.runc.v2\"";
            let binary = format!("BinaryName = \"{}\"", path.display());
            // Whoever names one names all.
            format!("[{all}.runc]\n{kind}\n[{all}.podbay]\n{kind}\n[{all}.podbay.options]\n{binary}\n")
        });
        let runtime = runtime.unwrap_or_default();
        let config = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
sandbox_image = "{PAUSE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{net}"
{template}
{runtime}
"#,
            root = path("root"),
            state = path("state"),
            socket = path("containerd.sock"),
            net = path("net"),
        );
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
        program.args(["--config", &path("config.toml")]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = program.spawn().expect("containerd is installed (tests/setup test)");
        let bridge = Some(bridge).filter(|_| template.is_empty());
        let this = Self { dir, bridge, program, child };
        this.until_it_answers().await;
        pause(&this.dir.path().join("pause.tar"));
        sh(&format!("examples/build-image {BUSYBOX} {}", this.dir.path().join("busybox.tar").display()));
        for (archive, name) in [("pause.tar", PAUSE), ("busybox.tar", BUSYBOX)] {
            this.import(&this.dir.path().join(archive), name).await;
        }
        this.tag_by_digest(BUSYBOX).await;
        this
    }

    async fn until_it_answers(&self) {
        let start = std::time::Instant::now();
        while Command::new("ctr").args(["-a", &self.socket(), "version"]).output().is_ok_and(|output| !output.status.success()) {
            assert!(start.elapsed() < Duration::from_secs(60), "containerd does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Takes an archive's image by this name.
    pub async fn import(&self, archive: &Path, name: &str) {
        let start = std::time::Instant::now();
        let client = self.client().await;
        // Its garbage collection may take away what has just come, and the CRI hears of it later.
        while !client.image_status(name).await.is_ok_and(|image| image.is_some()) {
            assert!(start.elapsed() < Duration::from_secs(60), "containerd does not take {name}: {}", self.log());
            let import = ["-a", &self.socket(), "-n", "k8s.io", "images", "import", "--index-name", name];
            Command::new("ctr").args(import).arg(archive).output().unwrap();
        }
    }

    /// Gives an image the name that a pull gives it besides: `repository@digest`.
    async fn tag_by_digest(&self, name: &str) {
        let listed = Command::new("ctr").args(["-a", &self.socket(), "-n", "k8s.io", "images", "list", &format!("name=={name}")]).output();
        let text = String::from_utf8_lossy(&listed.unwrap().stdout).into_owned();
        let digest = text.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap_or_else(|| panic!("no digest in {text}"));
        let by_digest = format!("{}@{digest}", name.split(':').next().unwrap());
        let (client, start) = (self.client().await, std::time::Instant::now());
        while !client.image_status(name).await.is_ok_and(|image| image.is_some_and(|image| image.digests.contains(&by_digest))) {
            assert!(start.elapsed() < Duration::from_secs(60), "containerd does not take {by_digest}: {}", self.log());
            Command::new("ctr")
                .args(["-a", &self.socket(), "-n", "k8s.io", "images", "tag", "--force", name, &by_digest])
                .output()
                .unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it and starts it again; its pods are their shims'.
    pub async fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = self.program.spawn().unwrap();
        self.until_it_answers().await;
    }

    /// Its shims, which are those that were started for its socket, and what is in their containers.
    pub fn kill_pods(&self) {
        let dir = self.path().display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if command.contains("containerd-shim") && command.contains(&dir) {
                let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
                for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([pid]) {
                    let pid = nix::unistd::Pid::from_raw(pid);
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
                }
            }
        }
    }

    /// What all of its processes were started with.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn socket(&self) -> String {
        self.dir.path().join("containerd.sock").display().to_string()
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Our client of it.
    pub async fn client(&self) -> Arc<Client> {
        Arc::new(Client::connect(&self.endpoint(), &self.dir.path().join("client")).await.unwrap_or_else(|error| panic!("{error}")))
    }

    pub fn subject(&self, client: Arc<Client>) -> Subject {
        let logs: PathBuf = self.dir.path().join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        Subject { runtime: client, image: BUSYBOX.into(), logs, host_network: false, handler: String::new() }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- containerd's last words\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        // Of a failed test: pods that still run.
        self.kill_pods();
        let dir = self.path().display().to_string();
        self.child.kill().ok();
        self.child.wait().ok();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|target| target.starts_with(&dir)) {
            rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH).ok();
        }
        if let Some(bridge) = &self.bridge {
            Command::new("ip").args(["link", "delete", bridge]).stderr(Stdio::null()).status().ok();
        }
    }
}
