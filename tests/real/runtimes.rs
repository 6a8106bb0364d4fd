//! What a host's pods run in. The end-to-end tests are the same on each: our engine inside the agent, Debian's containerd
//! and our engine behind its own socket, both by `runtime-endpoint`.

use std::path::PathBuf;
use std::process::Stdio;

use podbay::cri::Runtime as _;
use podbay::cri::client::Client;

use crate::cri::containerd::Containerd;
use crate::hosts::{Daemon, Hosts, PODBAY, sh, wait};

/// The image of all pods.
pub const IMAGE: &str = "podbay.local/busybox:test";
/// Pods of the only node of a cluster.
const FIRST_RANGE: &str = "10.80.0.0/24";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Engine,
    Containerd,
    Served,
}

/// What not every runtime can, and the tests then see refused, or let be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// `hostUsers: false`, and with it `supplementalGroupsPolicy: Strict` and `recursiveReadOnly: Enabled`: its CRI is older.
    UserNamespaces,
    /// `lifecycle.stopSignal`, as old.
    StopSignals,
    /// `volumes[].image`, as old.
    ImageVolumes,
    /// containerd gives its containers some of their own on cgroup v2 only.
    CgroupNamespaces,
    /// Our engine refuses to start a container with one. By its own agent it gets no mount for its termination message.
    MountsOnDanglingLinks,
}

/// What RuntimeClasses may name: a line of the table `[node]`. containerd calls its own runtime `runc` too.
fn handlers(hosts: &Hosts) -> String {
    let crun = hosts.dir.join("crun");
    crate::engine::handler::write_crun(&crun);
    format!("runtime-handlers = {{ runc = \"/usr/sbin/runc\", crun = \"{}\" }}\n", crun.display())
}

impl Kind {
    /// Debian's containerd is 1.6. The list is whole: what is not in it is the same on each.
    pub fn can(self, ability: Ability) -> bool {
        match ability {
            Ability::UserNamespaces | Ability::StopSignals | Ability::ImageVolumes | Ability::CgroupNamespaces => self != Self::Containerd,
            Ability::MountsOnDanglingLinks => self != Self::Served,
        }
    }

    /// What RuntimeClasses of its pods may name; containerd's own is called so, too.
    pub fn handlers(self) -> &'static [&'static str] {
        if self == Self::Containerd { &["runc"] } else { &["runc", "crun"] }
    }

    /// Tests of several runtimes run beside each other: each has its own names on the machine.
    pub fn prefix(self, test: &str) -> String {
        let letter = match self {
            Self::Engine => "",
            Self::Containerd => "c",
            Self::Served => "s",
        };
        format!("{test}{letter}")
    }

    /// How container ids begin in a pod's status.
    pub fn scheme(self) -> &'static str {
        if self == Self::Containerd { "containerd://" } else { "podbay://" }
    }
}

/// The runtime of one host. The host's daemon has to be gone before it is dropped.
pub struct Below<'a> {
    pub kind: Kind,
    hosts: &'a Hosts,
    host: String,
    containerd: Option<Containerd>,
    served: Option<Daemon>,
}

impl<'a> Below<'a> {
    /// With the image in it. The host's podbay.toml has to follow.
    pub fn start(kind: Kind, hosts: &'a Hosts, host: &str) -> Self {
        let mut below = Self { kind, hosts, host: host.to_owned(), containerd: None, served: None };
        let archive = hosts.dir.join(host).join("busybox.tar");
        std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
        sh(&format!("examples/build-image {IMAGE} {}", archive.display()));
        match kind {
            Kind::Engine => below.leave_for(&archive, &hosts.dir.join(host).join("data")),
            Kind::Containerd => {
                let start = async {
                    let containerd = Containerd::start_on(hosts, host).await;
                    containerd.import(&archive, IMAGE).await;
                    containerd
                };
                below.containerd = Some(waiting(start));
            }
            Kind::Served => {
                below.leave_for(&archive, &below.engine_dir().join("data"));
                below.serve();
            }
        }
        below
    }

    /// Whoever starts on this data directory imports it.
    fn leave_for(&self, archive: &std::path::Path, data: &std::path::Path) {
        std::fs::create_dir_all(data.join("images")).unwrap();
        sh(&format!("ln -f {} {}/images/busybox.tar", archive.display(), data.display()));
    }

    /// Where the engine behind the socket has what is its own.
    fn engine_dir(&self) -> PathBuf {
        self.hosts.dir.join(&self.host).join("engine")
    }

    fn engine_config(&self) -> PathBuf {
        self.engine_dir().join("podbay.toml")
    }

    fn serve(&mut self) {
        let (dir, root) = (self.engine_dir(), self.hosts.cgroup_root(&self.host));
        let text = format!(
            "data-dir = \"{dir}/data\"\nrun-dir = \"{dir}/run\"\n[node]\ncgroup-root = \"{root}-engine\"\nsystemd-slice = false\nnft-table = \"podbay-engine\"\n{handlers}",
            dir = dir.display(),
            handlers = handlers(self.hosts)
        );
        std::fs::write(self.engine_config(), text).unwrap();
        let range = ["runtime", "serve", "--pod-range", FIRST_RANGE];
        self.served = Some(self.hosts.start_with(&self.host, &range, &self.engine_config(), &dir.join("log")));
        wait("the engine serves", || self.words(), || waiting(self.connect()).ok().map(drop));
    }

    /// Lines of the table `[node]` in the host's podbay.toml.
    pub fn settings(&self) -> String {
        self.endpoint().map_or_else(|| handlers(self.hosts), |endpoint| format!("runtime-endpoint = \"{endpoint}\"\n"))
    }

    fn endpoint(&self) -> Option<String> {
        match self.kind {
            Kind::Engine => None,
            Kind::Containerd => self.containerd.as_ref().map(Containerd::endpoint),
            Kind::Served => Some(format!("unix://{}/run/cri.sock", self.engine_dir().display())),
        }
    }

    async fn connect(&self) -> Result<Client, podbay::cri::CriError> {
        let endpoint = self.endpoint().expect("a runtime on a socket");
        Client::connect(&endpoint, &self.hosts.dir.join("client")).await
    }

    fn words(&self) -> String {
        self.served.as_ref().map(Daemon::log_text).or_else(|| self.containerd.as_ref().map(Containerd::log)).unwrap_or_default()
    }

    /// Kills it and starts it again, as an upgrade does; the agent's own engine goes with the agent.
    pub fn restart(&mut self) {
        if let Some(containerd) = &mut self.containerd {
            waiting(containerd.restart());
        }
        if let Some(mut served) = self.served.take() {
            served.kill_hard();
            self.serve();
        }
    }

    /// What a power cut does to this host's processes, its runtime among them; that one is then started again.
    pub fn lose_power(&mut self) {
        let root = self.hosts.cgroup_root(&self.host);
        sh(&format!(
            "for i in 1 2 3; do find /sys/fs/cgroup -path '*{root}*/*' -name cgroup.procs 2>/dev/null | xargs -r cat | sort -u | xargs -r kill -9 2>/dev/null || true; done"
        ));
        if let Some(containerd) = &mut self.containerd {
            containerd.kill_pods();
        }
        self.restart();
    }

    /// Which containers a runtime on a socket has; `None`: it is the agent's own engine.
    pub fn containers(&self) -> Option<Vec<String>> {
        self.endpoint()?;
        let list = async { self.connect().await.unwrap().list_containers().await.unwrap() };
        Some(waiting(list).into_iter().map(|container| container.id).collect())
    }

    /// The records of containers that another OCI runtime has, where our engine drives it.
    pub fn kept_by_oci_runtimes(&self) -> Option<Vec<PathBuf>> {
        let run = match self.kind {
            Kind::Engine => self.hosts.dir.join(&self.host).join("run"),
            Kind::Served => self.engine_dir().join("run"),
            Kind::Containerd => return None,
        };
        let list = sh(&format!("ls -d {}/pods/sandboxes/*/oci/*/state.json 2>/dev/null || true", run.display()));
        Some(list.lines().map(PathBuf::from).collect())
    }

    /// What is there of pods, on the disk and in the runtime.
    pub fn pods_left(&self) -> Vec<String> {
        let dir = self.hosts.dir.join(&self.host);
        let places = ["data/pods", "data/logs", "data/agent/pods", "data/runtime/sandboxes", "data/runtime-client", "run/pods/sandboxes"];
        let of_agent = places.iter().map(|place| dir.join(place));
        let of_engine = ["data/runtime/sandboxes", "run/pods/sandboxes"].iter().map(|place| self.engine_dir().join(place));
        let entries = of_agent.chain(of_engine).filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
        // A file there says which runtime it is.
        let pods = entries.filter(|entry| entry.file_name() != ".endpoint").map(|entry| entry.path().display().to_string());
        let mounts = sh("cat /proc/self/mounts");
        let mounts = mounts.lines().filter(|line| places.iter().any(|place| line.contains(&*dir.join(place).to_string_lossy())));
        let sandboxes = self.endpoint().map(|_| {
            let list = async { self.connect().await.unwrap().list_pod_sandboxes().await.unwrap() };
            waiting(list).into_iter().map(|sandbox| format!("{sandbox:?}"))
        });
        pods.chain(mounts.map(str::to_owned)).chain(sandboxes.into_iter().flatten()).collect()
    }
}

/// Of a runtime that lives only so long: what is begun there ends with it.
fn waiting<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

impl Drop for Below<'_> {
    /// Of a failed test: its pods, while there is somebody who can take them away.
    fn drop(&mut self) {
        if std::thread::panicking() && self.served.is_some() {
            let words = self.words();
            let tail: Vec<&str> = words.lines().rev().take(30).collect();
            println!("--- last words of the engine of {}\n{}", self.host, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let reset = |config: PathBuf| {
            let mut reset = self.hosts.command(&self.host, PODBAY);
            reset.args(["reset", "--yes", "--config"]).arg(config).stdin(Stdio::null()).output().ok();
        };
        if self.endpoint().is_some() && self.hosts.config(&self.host).exists() {
            reset(self.hosts.config(&self.host));
        }
        if self.served.is_some() {
            reset(self.engine_config());
        }
    }
}
