//! What the engine's benches stand on: a busybox root in a fresh directory, and an engine, by itself without a network.
//!
//! - `podman`: the peer by its command line
//! - `memory`: of the processes that stand around containers
#![allow(dead_code, reason = "each bench uses its part")]

pub mod memory;
pub mod podman;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use podbay::cri::CriError;
use podbay::cri::contract::Subject;
use podbay::network::{Attachment, NetworkError, PodNetwork};
use podbay::runtime::{Engine, ImageRoot, Options, Rootfs, reset};

/// Runs this bench once more where only cgroup v1 is to be seen: crun (Debian's) refuses a hybrid cgroup layout.
pub fn hide_the_hybrid_layout() {
    if std::env::var_os("PODBAY_BENCH_INSIDE").is_some() {
        return;
    }
    let hide = "mount --make-rprivate / && { ! mountpoint -q /sys/fs/cgroup/unified || mount -t tmpfs none /sys/fs/cgroup/unified; } && exec \"$0\"";
    let this = std::env::current_exe().unwrap();
    let status = Command::new("unshare").args(["-m", "sh", "-c", hide]).arg(this).env("PODBAY_BENCH_INSIDE", "1").status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

/// Median and 90th percentile in microseconds.
pub fn figures(all: &mut [Duration]) -> (u128, u128) {
    all.sort_unstable();
    (all[all.len() / 2].as_micros(), all[all.len() * 9 / 10].as_micros())
}

struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, _: &str, _: &Path) -> Result<Attachment, NetworkError> {
        Ok(Attachment { address: "10.80.0.2".parse().unwrap(), gateway: "10.80.0.1".parse().unwrap() })
    }
    async fn detach(&self, _: &str) -> Result<(), NetworkError> {
        Ok(())
    }
}

struct Directory(PathBuf);

impl Rootfs for Directory {
    fn prepare(&self, _: &str) -> Result<ImageRoot, CriError> {
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        Ok(ImageRoot {
            id: "sha256:0".into(),
            digest: String::new(),
            config: serde_json::from_str(config).unwrap(),
            layers: vec![self.0.clone()],
        })
    }
    fn hold(&self, _: &str, _: &str) -> Result<(), CriError> {
        Ok(())
    }
    fn release(&self, _: &str) -> Result<(), CriError> {
        Ok(())
    }
    fn release_others(&self, _: &dyn Fn(&str) -> bool) -> Result<(), CriError> {
        Ok(())
    }
}

pub struct Stage {
    dir: tempfile::TempDir,
    network: Arc<dyn PodNetwork>,
    pub options: Options,
    pub subject: Subject,
    pub image: PathBuf,
}

impl Stage {
    pub async fn open() -> Self {
        Self::with(Arc::new(NoNetwork)).await
    }

    pub async fn with(network: Arc<dyn PodNetwork>) -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-bench-").tempdir().unwrap();
        let image = dir.path().join("image");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(image.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).expect("busybox-static is installed");
        for name in ["sh", "sleep", "true"] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(name)).unwrap();
        }
        let mut options = Options::new(dir.path().join("root"), dir.path().join("run"));
        options.cgroup_root = format!("podbay-bench-{}", std::process::id());
        let built = PathBuf::from(env!("CARGO_BIN_EXE_podbay-shim"));
        options.shim_path = std::env::var_os("PODBAY_BIN").map_or(built, |dir| PathBuf::from(dir).join("podbay-shim"));
        let engine = Engine::open(options.clone(), Arc::new(Directory(image.clone())), network.clone()).await.unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        let subject = Subject { runtime: Arc::new(engine), image: "busybox".into(), logs, host_network: false, handler: String::new() };
        Self { dir, network, options, subject, image }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn close(self) {
        drop(self.subject);
        reset(&self.options, &*self.network).await.unwrap();
    }
}
