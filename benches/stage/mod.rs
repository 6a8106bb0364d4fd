//! What the engine's benches stand on: a busybox root in a fresh directory, and an engine without a network.
#![allow(dead_code, reason = "each bench uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use podbay::cri::CriError;
use podbay::cri::contract::Subject;
use podbay::network::{Attachment, NetworkError, PodNetwork};
use podbay::runtime::{Engine, ImageRoot, Options, Rootfs, reset};

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
        Ok(ImageRoot { id: "sha256:0".into(), config: serde_json::from_str(config).unwrap(), layers: vec![self.0.clone()] })
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
    pub options: Options,
    pub subject: Subject,
    pub image: PathBuf,
}

impl Stage {
    pub async fn open() -> Self {
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
        let engine = Engine::open(options.clone(), Arc::new(Directory(image.clone())), Arc::new(NoNetwork)).await.unwrap();
        let logs = dir.path().join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        let subject = Subject { runtime: Arc::new(engine), image: "busybox".into(), logs, host_network: false, handler: String::new() };
        Self { dir, options, subject, image }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn close(self) {
        drop(self.subject);
        reset(&self.options, &NoNetwork).await.unwrap();
    }
}
