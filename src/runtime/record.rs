//! What the engine knows of sandboxes and containers, on disk: JSON with a version, replaced whole.
//!
//! Not flushed: it serves a new daemon on the same boot. After a reboot nothing of it runs any more.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cri::{ContainerConfig, ContainerUser, PodSandboxConfig};
use crate::model::Timestamp;

pub const VERSION: u32 = 1;

/// How far a sandbox got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Half made: undone at the next start.
    #[default]
    Creating,
    Ready,
    Stopped,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub version: u32,
    pub id: String,
    pub config: PodSandboxConfig,
    pub created_at: Timestamp,
    /// The boot it was made in.
    pub boot_id: String,
    pub phase: Phase,
    #[serde(default)]
    pub shim_pid: i32,
    #[serde(default)]
    pub address: Option<String>,
    /// Its name to the network; empty in the records of versions in which the network was the pod's.
    #[serde(default)]
    pub network_key: String,
    /// Directories that were made of the caller's own path to its cgroup, each before those below it: they go with the last
    /// sandbox in them.
    #[serde(default)]
    pub made_cgroups: Vec<PathBuf>,
}

impl SandboxRecord {
    /// Of a sandbox about to be made.
    pub fn new(id: String, config: PodSandboxConfig, created_at: Timestamp, boot_id: String) -> Self {
        let network_key = id.clone();
        let (phase, made_cgroups) = (Phase::Creating, Vec::new());
        Self { version: VERSION, id, config, created_at, boot_id, phase, shim_pid: 0, address: None, network_key, made_cgroups }
    }

    /// By what the network knows it: its id, as a pod may have several at a time. Those of before have their pod's UID.
    pub fn network_key(&self) -> &str {
        if self.network_key.is_empty() { &self.config.metadata.uid } else { &self.network_key }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub id: String,
    pub sandbox_id: String,
    pub config: ContainerConfig,
    pub image_id: String,
    /// `repository@digest` of its manifest; empty where there is none, and in the records of versions that did not ask.
    #[serde(default)]
    pub image_digest: String,
    pub created_at: Timestamp,
    /// User of the image's configuration, looked up in the container.
    #[serde(default)]
    pub image_user: String,
    #[serde(default)]
    pub image_stop_signal: String,
    /// By the image's account files; the container's own decide.
    #[serde(default)]
    pub user: Option<ContainerUser>,
    /// The image's layers, topmost first.
    #[serde(default)]
    pub layers: Vec<std::path::PathBuf>,
    /// The program of another OCI runtime that has it, whatever the configuration names by now.
    #[serde(default)]
    pub handler: Option<std::path::PathBuf>,
    /// Its start was asked for.
    #[serde(default)]
    pub started: bool,
    /// Why it did not start, and when.
    #[serde(default)]
    pub start_error: Option<(String, Timestamp)>,
}

impl ContainerRecord {
    /// The same without environment and command line, into which the agent has put values of Secrets.
    pub fn without_values(&self) -> Self {
        let mut record = self.clone();
        record.config.envs.clear();
        record.config.command.clear();
        record.config.args.clear();
        record
    }
}

/// Why a record is not read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(
        "{path} was written by a newer podbay (format {found}; this one knows up to {VERSION}): its pod is left alone, start the newer podbay again"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error("read {path}: {cause}")]
    Unreadable { path: PathBuf, cause: io::Error },
}

/// Replaces a record.
pub fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, serde_json::to_vec(record).map_err(io::Error::other)?)?;
    std::fs::rename(temporary, path)
}

/// Reads a record; one that cannot be read is an error, one that is not there too.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Stamp {
        version: u32,
    }
    let unreadable = |cause| RecordError::Unreadable { path: path.to_owned(), cause };
    let bytes = std::fs::read(path).map_err(unreadable)?;
    match serde_json::from_slice(&bytes) {
        Ok(Stamp { version: found }) if found > VERSION => Err(RecordError::Newer { path: path.to_owned(), found }),
        _ => serde_json::from_slice(&bytes).map_err(|cause| unreadable(cause.into())),
    }
}

/// This boot's identity.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
