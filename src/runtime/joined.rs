//! The process namespace of one container for another (CRI's `NamespaceMode.TARGET`).
//!
//! Our shim joins it by its own child. Another OCI runtime wants a path, and a process' number may be somebody else's by
//! the time that runtime looks: it is given the namespace itself, mounted beside the container's bundle.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::engine::Inner;
use super::record::ContainerRecord;
use super::wire::{List, Response};
use super::{RuntimeError, shim};
use crate::cri::CriError;

/// In the directory of a container's bundle.
const NAMESPACE: &str = "pid-namespace";

impl Inner {
    /// Where the PID namespace is that a container is to be in, if it is another container's.
    pub fn joined_processes(&self, record: &ContainerRecord, by_path: bool) -> Result<Option<PathBuf>, RuntimeError> {
        let target = &record.config.security.processes_of;
        if target.is_empty() {
            return Ok(None);
        }
        let is_sibling = {
            let table = self.table();
            let found = table.containers.get(target).ok_or_else(|| CriError::NotFound(format!("container {target}")))?;
            found.record.sandbox_id == record.sandbox_id
        };
        if !is_sibling {
            return Err(CriError::Invalid(format!("container {target}, whose processes are wanted, is none of this pod's")).into());
        }
        let pid = self.first_process(record)?;
        let named = PathBuf::from(format!("/proc/{pid}/ns/pid"));
        if !by_path {
            return Ok(Some(named));
        }
        let namespace = File::open(&named).map_err(RuntimeError::file("open", &named))?;
        if self.first_process(record)? != pid {
            return Err(not_running(target).into());
        }
        // The shim still has it as its child, so the number was its all the time.
        let dir = self.options.sandbox_run_dir(&record.sandbox_id).join(&record.id);
        std::fs::create_dir_all(&dir).map_err(RuntimeError::file("make the directory", &dir))?;
        let at = dir.join(NAMESPACE);
        File::create(&at).map_err(RuntimeError::file("make the file", &at))?;
        let opened = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        rustix::mount::mount_bind(opened, &at).map_err(|errno| RuntimeError::file("mount a namespace on", &at)(errno.into()))?;
        Ok(Some(at))
    }

    /// The number of the target's first process, which runs.
    fn first_process(&self, record: &ContainerRecord) -> Result<i32, RuntimeError> {
        let target = &record.config.security.processes_of;
        let directory = self.options.sandbox_run_dir(&record.sandbox_id);
        let Response::Containers(all) = shim::ask(&directory, &List {}.into(), &[])?.response else {
            return Err(shim::ShimError::Confused(directory).into());
        };
        let running = all.all.iter().find(|one| one.id == *target && one.exit.is_none());
        Ok(running.ok_or_else(|| not_running(target))?.pid)
    }
}

fn not_running(target: &str) -> CriError {
    CriError::failed(format!("join the processes of container {target}"), "it is not running")
}

/// Lets go of the namespace that is mounted beside a container's bundle, if there is one.
pub(super) fn release(bundle: &Path) {
    // Not mounted (any more) is fine.
    rustix::mount::unmount(bundle.join(NAMESPACE), UnmountFlags::DETACH).ok();
}

/// The same for all below a sandbox's run directory.
pub(super) fn release_all(run: &Path) {
    std::fs::read_dir(run).into_iter().flatten().flatten().for_each(|entry| release(&entry.path()));
}
