//! What is kept of a container between the commands of an OCI runtime: a directory below `--root` each.
//!
//! ```text
//!  ROOT/ID/config.json   as it was when it was created
//!          state.json    who it is; after config.json, so nobody finds it without
//!          start.sock    there as long as it waits to be started; starting.sock for the moment of its start
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::record;
use super::life::OciError;
use crate::model::Timestamp;

/// The version of the specification whose states are told.
pub const OCI_VERSION: &str = "1.2.0";

/// The record of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub id: String,
    /// 0: it is being created.
    pub pid: i32,
    /// When the process began, in the kernel's ticks: another one may have its number later.
    pub ticks: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: Timestamp,
    /// (parent, name)
    pub cgroup: (String, String),
    /// Whatever is in the cgroup is not known to be the container's: it is left alone.
    #[serde(default)]
    pub foreign_cgroup: bool,
}

/// runtime.md, "State".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's directory.
#[derive(Clone, Debug)]
pub struct Home(pub PathBuf);

impl Home {
    /// # Errors
    /// The id is no name of a directory.
    pub fn of(root: &Path, id: &str) -> Result<Self, OciError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(plain) {
            return Err(OciError::Id(id.to_owned()));
        }
        Ok(Self(root.join(id)))
    }

    pub fn record(&self) -> Result<Record, OciError> {
        let path = self.0.join("state.json");
        if !path.exists() {
            let id = self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            return Err(OciError::NotThere(id));
        }
        Ok(record::read(&path)?)
    }

    pub fn write(&self, record: &Record) -> Result<(), OciError> {
        let path = self.0.join("state.json");
        record::write(&path, record).map_err(OciError::file("write", &path))
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("start.sock")
    }

    /// Takes the right to start the container, which nobody has after that; returns the socket to do it by.
    pub fn claim(&self) -> std::io::Result<PathBuf> {
        let claimed = self.0.join("starting.sock");
        std::fs::rename(self.socket(), &claimed).map(|()| claimed)
    }

    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }
}

/// The kernel's tick at which a process began; none: it is dead. Source: proc(5), `stat`.
pub fn ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Record {
    pub fn is_alive(&self) -> bool {
        self.pid > 0 && ticks(self.pid) == Some(self.ticks)
    }

    /// `frozen`: its processes are stopped by the cgroup.
    pub fn status(&self, home: &Home, frozen: bool) -> Status {
        match (self.pid, self.is_alive()) {
            (0, _) => Status::Creating,
            (_, false) => Status::Stopped,
            _ if home.socket().exists() => Status::Created,
            _ if frozen => Status::Paused,
            _ => Status::Running,
        }
    }

    /// The state as hooks and callers are told it.
    pub fn state(&self, status: Status, annotations: &serde_json::Value) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": OCI_VERSION, "id": self.id, "status": status.name(), "bundle": self.bundle,
            "rootfs": self.rootfs, "created": self.created, "owner": "",
        });
        state["pid"] = if status == Status::Stopped { 0.into() } else { self.pid.into() };
        if annotations.is_object() {
            state["annotations"] = annotations.clone();
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names() {
        let root = Path::new("/r");
        assert_eq!(Home::of(root, "a-1_b.c+d").unwrap().0, Path::new("/r/a-1_b.c+d"));
        for id in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(Home::of(root, id).is_err(), "{id}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_beginning() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(ticks(own).is_some() && ticks(own) == ticks(own));
        assert_eq!(ticks(0), None);
    }
}
