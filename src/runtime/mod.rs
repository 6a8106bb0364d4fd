//! The engine: sandboxes and containers on this host, behind the CRI seam.
//!
//! ```text
//!  cri::Runtime ──► engine ──► sandbox    cgroups, files, shim, network of a pod
//!                     │   └──► container  spec (OCI) → launch::plan → steps ──┐
//!                     │   └──► exec       commands, streams, ports            │ shim.sock
//!                     └──► record, cgroup, seccomp                            ▼
//!                                                                 podbay-shim, one a pod
//! ```
//!
//! What runs is in the shims and in the kernel; the engine can be killed at any moment and a new one finds
//! everything again from `record`s, sockets and exit records. A container's mounts exist in its own mount
//! namespace only, so its end takes them away.
//!
//! - `spec`, `launch::plan`, `limits`, `capability`, `seccomp`, `profile`, `syscalls`, `syscalls32`, `signal`, `files`,
//!   `devices`, `figures`, `usage`: decide; pure
//! - `engine`, `adopt`, `sandbox`, `container`, `rootfs`, `image_volume`, `joined`, `exec`, `attach`, `metrics`, `details`, `writable`, `log_maker`, `reset`: act
//! - `cgroup`, `rare`, `apparmor`, `nodes`, `shim`, `record`: the kernel's, the shim's and the disk's side; `propagation`: what its mounts let through; `errand`: other programs; `sys`: calls that no crate wraps
//! - `scope`: the delegated scope of the pods on a host with systemd
//! - `cdi`: devices that their vendors describe
//! - `oci`: OCI runtimes both ways: another one in the place of our launch, and `podbay oci`
//! - `account`, `log_file`, `memory`, `mount`, `socket`, `wire`: shared with the shim
//! - `image`: the image store

mod adopt;
mod apparmor;
mod attach;
pub mod capability;
mod cdi;
pub mod cgroup;
mod container;
mod details;
mod devices;
mod engine;
mod errand;
mod exec;
mod figures;
pub mod files;
pub mod image;
mod image_volume;
mod joined;
pub mod launch;
mod limits;
mod log_maker;
mod metrics;
mod nodes;
pub mod oci;
mod profile;
mod propagation;
mod rare;
pub mod record;
mod reset;
mod rootfs;
mod sandbox;
pub mod scope;
pub mod seccomp;
pub mod shim;
pub mod signal;
pub mod spec;
mod sys;
pub mod syscalls;
pub mod syscalls32;
mod usage;
mod writable;

#[path = "../shim/account.rs"]
mod account;
#[path = "../shim/log_file.rs"]
mod log_file;
#[path = "../shim/memory.rs"]
mod memory;
#[path = "../shim/mount/sys.rs"]
mod mount;
#[path = "../shim/socket.rs"]
mod socket;
#[path = "../shim/wire.rs"]
pub mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;

use crate::cri::CriError;

pub use engine::Engine;
pub use reset::{Remains, reset};

/// Where the engine lives on this host.
#[derive(Clone, Debug)]
pub struct Options {
    /// Survives reboots: records and writable layers.
    pub root_dir: PathBuf,
    /// Sockets and mounts; a tmpfs on most hosts.
    pub run_dir: PathBuf,
    /// Name of our cgroup in each hierarchy: `podbay`, or `podbay-pods.slice/podbay` below a slice.
    pub cgroup_root: String,
    /// The `podbay-shim` program.
    pub shim_path: PathBuf,
    /// A log file is rotated at this size.
    pub log_max_bytes: u64,
    /// As many processes (and threads) as a pod may have that says nothing itself; 0: any number.
    pub pod_pids_limit: u64,
    /// So many log files of a container are kept, the current one among them.
    pub log_max_files: u32,
    /// Other OCI runtimes, by the name under which a sandbox asks for one: their programs.
    pub handlers: BTreeMap<String, PathBuf>,
    /// Where vendors describe their devices (CDI); a later directory counts for more.
    pub cdi_dirs: Vec<PathBuf>,
}

impl Options {
    /// The defaults, for data below `root_dir` and sockets below `run_dir`. The shim is the one beside this program.
    pub fn new(root_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("podbay-shim")));
        Self {
            root_dir: root_dir.into(),
            run_dir: run_dir.into(),
            cgroup_root: "podbay".into(),
            shim_path: beside.unwrap_or_else(|| PathBuf::from("/usr/local/bin/podbay-shim")),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            pod_pids_limit: 4096,
            handlers: BTreeMap::new(),
            cdi_dirs: ["/etc/cdi", "/var/run/cdi"].map(PathBuf::from).to_vec(),
        }
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.root_dir.join("sandboxes").join(id)
    }

    fn sandbox_run_dir(&self, id: &str) -> PathBuf {
        self.run_dir.join("sandboxes").join(id)
    }

    /// Where a container's root is mounted: the same directory for all of them, each in its own mount namespace.
    fn mount_point(&self, sandbox_id: &str) -> PathBuf {
        self.sandbox_dir(sandbox_id).join("root")
    }

    /// What is being deleted.
    fn trash_dir(&self) -> PathBuf {
        self.root_dir.join("sandboxes.deleted")
    }

    fn container_dir(&self, sandbox_id: &str, id: &str) -> PathBuf {
        self.sandbox_dir(sandbox_id).join("containers").join(id)
    }
}

/// Gives a container its root: the image store.
pub trait Rootfs: Send + Sync {
    /// The image and its unpacked layers; it must be present.
    fn prepare(&self, image: &str) -> Result<ImageRoot, CriError>;
    /// Keeps the layers of an image (by its id) while a container needs them.
    fn hold(&self, container: &str, image_id: &str) -> Result<(), CriError>;
    /// Ends a hold. No error when there is none.
    fn release(&self, container: &str) -> Result<(), CriError>;
    /// Ends the holds of all others than these containers.
    fn release_others(&self, alive: &dyn Fn(&str) -> bool) -> Result<(), CriError>;
}

/// An image, ready to be mounted.
#[derive(Debug, Clone)]
pub struct ImageRoot {
    /// Digest of its configuration: `sha256:…`.
    pub id: String,
    /// `docker.io/library/nginx@sha256:…`; empty where it has none.
    pub digest: String,
    pub config: ImageConfiguration,
    /// Directories for overlayfs, topmost first.
    pub layers: Vec<PathBuf>,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{attempt} {}: {cause}", path.display())]
    File { attempt: &'static str, path: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Shim(#[from] shim::ShimError),
    #[error(transparent)]
    Record(#[from] record::RecordError),
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    #[error(transparent)]
    Spec(#[from] spec::SpecError),
    #[error(transparent)]
    Cdi(#[from] cdi::CdiError),
    #[error(transparent)]
    Seccomp(#[from] seccomp::SeccompError),
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    #[error(transparent)]
    Cri(#[from] CriError),
}

impl RuntimeError {
    fn file(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { attempt, path, cause }
    }

    /// As the seam's error, with what was asked for.
    fn about(self, attempt: impl Into<String>) -> CriError {
        match self {
            Self::Cri(error) => error,
            Self::Spec(error) => CriError::Invalid(error.to_string()),
            Self::Cdi(error) => CriError::Invalid(error.to_string()),
            other => CriError::failed(attempt, other),
        }
    }
}
