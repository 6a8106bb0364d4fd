//! The delegated scope of a node's pods on a host with systemd.
//!
//! systemd owns every cgroup but those it delegates (systemd's "Control Group APIs and Delegation").
//! So the pods of a node live below one transient scope in `podbay-pods.slice`:
//!
//! ```text
//!  podbay.slice/podbay-pods.slice/podbay-<name>.scope/   Delegate=yes
//!  ├─ holder/    one sleeping process: a scope lives as long as it has a process
//!  └─ pods/      the engine's tree
//! ```
//!
//! The scope outlives the daemon's unit; stopping or restarting that touches no pod.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::hierarchies;
use cgroups_rs::systemd::SystemdClient;
use cgroups_rs::systemd::props::PropertiesBuilder;

const SLICE: &str = "podbay-pods.slice";
/// Where systemd puts that slice: a dash in a slice's name is a level (systemd.slice(5)).
const SLICE_PATH: &str = "podbay.slice/podbay-pods.slice";
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error("start scope {unit}: {cause}")]
    Start { unit: String, cause: String },
    #[error("scope {unit}: {} did not appear", path.display())]
    Missing { unit: String, path: PathBuf },
    #[error("stop scope {unit}: {cause}")]
    Stop { unit: String, cause: String },
}

fn unit(name: &str) -> String {
    format!("podbay-{}.scope", name.replace(['/', '.'], "_"))
}

/// The engine's root below each hierarchy's mount point.
pub fn root(name: &str) -> String {
    format!("{SLICE_PATH}/{}/pods", unit(name))
}

/// Starts the scope unless it runs. Blocks: not for an asynchronous task.
///
/// # Errors
/// When systemd does not start it, or its cgroup does not appear.
pub fn ensure(name: &str) -> Result<(), ScopeError> {
    let unit = unit(name);
    let fail = |cause: String| ScopeError::Start { unit: unit.clone(), cause };
    let directory = hierarchies::auto().root().join(SLICE_PATH).join(&unit);
    let held = directory.join("holder/cgroup.procs");
    if std::fs::read_to_string(&held).is_ok_and(|pids| !pids.trim().is_empty()) {
        return Ok(());
    }
    let holder = Command::new("sleep")
        .arg("infinity")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| fail(format!("start the holder: {error}")))?;
    let mut client =
        SystemdClient::new(&unit, PropertiesBuilder::default_cgroup(SLICE, &unit).build()).map_err(|error| fail(error.to_string()))?;
    client.set_pid_prop(CgroupPid::from(u64::from(holder.id()))).map_err(|error| fail(error.to_string()))?;
    client.start().map_err(|error| fail(error.to_string()))?;
    // The answer comes before the job is done.
    let started = Instant::now();
    while !directory.is_dir() {
        if started.elapsed() > PATIENCE {
            return Err(ScopeError::Missing { unit, path: directory });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A v2 cgroup that passes controllers on must have no processes of its own (cgroups(7)).
    std::fs::create_dir_all(directory.join("holder")).map_err(|error| fail(error.to_string()))?;
    std::fs::write(&held, holder.id().to_string()).map_err(|error| fail(format!("move the holder: {error}")))
}

/// Stops the scope with all that is in it. No error when there is none.
///
/// # Errors
/// When systemd does not stop it.
pub fn stop(name: &str) -> Result<(), ScopeError> {
    let unit = unit(name);
    let client =
        SystemdClient::new(&unit, Vec::new()).map_err(|error| ScopeError::Stop { unit: unit.clone(), cause: error.to_string() })?;
    client.stop().map_err(|error| ScopeError::Stop { unit, cause: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_where_systemd_puts_it() {
        assert_eq!(root("podbay"), "podbay.slice/podbay-pods.slice/podbay-podbay.scope/pods");
        assert_eq!(unit("team/n1"), "podbay-team_n1.scope");
    }
}
