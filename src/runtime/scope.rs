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
//! The scope outlives the daemon's unit; stopping or restarting that touches no pod. When the host shuts down, systemd
//! stops the daemon first, then the scope: containers are told to end, and their shims end with them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::hierarchies;
use cgroups_rs::systemd::props::PropertiesBuilder;
use cgroups_rs::systemd::{SystemdClient, pids};

const SLICE: &str = "podbay-pods.slice";
/// Where systemd puts that slice: a dash in a slice's name is a level (systemd.slice(5)).
const SLICE_PATH: &str = "podbay.slice/podbay-pods.slice";
/// The slices that are there for pods alone, innermost first.
const SLICES: [(&str, &str); 2] = [(SLICE, SLICE_PATH), ("podbay.slice", "podbay.slice")];
/// The units that start pods.
const DAEMONS: [&str; 3] = ["podbay.service", "podbay-agent.service", "podbay-runtime.service"];
/// Kubernetes' default for a pod; systemd gives one time to all.
const GRACE_USEC: u64 = 30_000_000;
const BUS: &str = "/run/dbus/system_bus_socket";
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error("start scope {unit}: {cause}")]
    Start { unit: String, cause: String },
    #[error("scope {unit}: {} is not as wanted: {cause}", path.display())]
    Unheld { unit: String, path: PathBuf, cause: String },
    #[error("stop {unit}: {cause}")]
    Stop { unit: String, cause: String },
}

fn unit(name: &str) -> String {
    format!("podbay-{}.scope", name.replace(['/', '.'], "_"))
}

/// The engine's root below each hierarchy's mount point.
pub fn root(name: &str) -> String {
    format!("{SLICE_PATH}/{}/pods", unit(name))
}

fn directory(unit: &str) -> PathBuf {
    hierarchies::auto().root().join(SLICE_PATH).join(unit)
}

/// The processes in a cgroup; none when there is no such cgroup.
fn processes(cgroup: &Path) -> Vec<String> {
    std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Starts the scope unless it runs. Blocks: not for an asynchronous task.
///
/// # Errors
/// When systemd does not start it, or its cgroup does not become what the pods need.
pub fn ensure(name: &str) -> Result<(), ScopeError> {
    let unit = unit(name);
    let directory = directory(&unit);
    let started = Instant::now();
    let mut holder = None;
    loop {
        let cause = match look(&directory) {
            Seen::Held => return Ok(()),
            Seen::Loose(pids) => move_to_holder(&directory, &pids).err(),
            Seen::Unheld if holder.is_none() => {
                holder = Some(start(&unit, &directory)?);
                None
            }
            // The answer to "start" comes before the job is done, and the cgroup before its process.
            Seen::Unheld => None,
        };
        if started.elapsed() > PATIENCE {
            let cause = cause.map_or_else(|| "no process came".to_owned(), |error| error.to_string());
            return Err(ScopeError::Unheld { unit, path: directory, cause });
        }
        std::thread::sleep(PAUSE);
    }
}

/// How a scope is found.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A process holds it, and the scope's own cgroup has none.
    Held,
    /// These processes are in the scope's own cgroup: they belong below.
    Loose(Vec<String>),
    /// No process holds it.
    Unheld,
}

fn look(directory: &Path) -> Seen {
    let loose = processes(directory);
    if !loose.is_empty() {
        Seen::Loose(loose)
    } else if processes(&directory.join("holder")).is_empty() {
        Seen::Unheld
    } else {
        Seen::Held
    }
}

/// A v2 cgroup that passes controllers on must have no processes of its own (cgroups(7)). Only what systemd has
/// already put into the scope is moved: what it moves afterwards would be back in the scope's own cgroup, and then
/// the kernel refuses the pods their memory controller.
fn move_to_holder(directory: &Path, pids: &[String]) -> std::io::Result<()> {
    let holder = directory.join("holder");
    std::fs::create_dir_all(&holder)?;
    for pid in pids {
        match std::fs::write(holder.join("cgroup.procs"), pid) {
            // It has ended.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Starts a scope around a new holder; where pods kept a scope alive without one, puts it there.
fn start(unit: &str, directory: &Path) -> Result<Child, ScopeError> {
    let fail = |cause: String| ScopeError::Start { unit: unit.to_owned(), cause };
    let mut holder = Command::new("sleep")
        .arg("infinity")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| fail(format!("start the holder: {error}")))?;
    let outcome = match move_to_holder_of_live_scope(directory, holder.id()) {
        Ok(true) => Ok(()),
        Ok(false) => start_transient(unit, holder.id()),
        Err(error) => Err(format!("move the holder: {error}")),
    };
    outcome.map_err(|cause| {
        // Nobody needs it then.
        let _ = holder.kill().and_then(|()| holder.wait());
        fail(cause)
    })?;
    Ok(holder)
}

fn move_to_holder_of_live_scope(directory: &Path, pid: u32) -> std::io::Result<bool> {
    let events = std::fs::read_to_string(directory.join("cgroup.events")).unwrap_or_default();
    if !events.lines().any(|line| line == "populated 1") {
        return Ok(false);
    }
    match move_to_holder(directory, &[pid.to_string()]) {
        // Its last process ended, and systemd took it away.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

fn start_transient(unit: &str, pid: u32) -> Result<(), String> {
    if !Path::new(BUS).exists() {
        return Err(format!("there is no {BUS}: install dbus, or set `systemd-slice = false` in podbay.toml"));
    }
    let properties = PropertiesBuilder::default_cgroup(SLICE, unit).description(format!("Pods of Podbay ({unit})"));
    // When the host shuts down: after the daemons, which would start the pods again, and with time to end in.
    let properties = properties.default_dependencies(true).timeout_stop_usec(GRACE_USEC);
    let mut properties = properties.build();
    properties.push(("Before", DAEMONS.to_vec().into()));
    // The default is meant for one service: here it would be shared by all pods of the node.
    let (tasks_max, infinity) = pids::max(-1).map_err(|error| error.to_string())?;
    properties.push((tasks_max, infinity.into()));
    let mut client = SystemdClient::new(unit, properties).map_err(|error| error.to_string())?;
    if client.exists() {
        // It ended in failure and is kept for people to see, or is about to go.
        client.stop().map_err(|error| error.to_string())?;
    }
    client.set_pid_prop(CgroupPid::from(u64::from(pid))).map_err(|error| error.to_string())?;
    client.start().map_err(|error| error.to_string())
}

/// Stops the scope with all that is in it, and slices that have nothing in them any more. No error when there is none.
///
/// # Errors
/// When systemd does not stop them.
pub fn stop(name: &str) -> Result<(), ScopeError> {
    let unit = unit(name);
    stop_unit(&unit, &directory(&unit))?;
    for (slice, path) in SLICES {
        let directory = hierarchies::auto().root().join(path);
        let children = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        // Another node on this machine, or somebody's own unit.
        if children.filter(|child| child.path().is_dir()).count() > 0 {
            break;
        }
        stop_unit(slice, &directory)?;
    }
    Ok(())
}

fn stop_unit(unit: &str, directory: &Path) -> Result<(), ScopeError> {
    let fail = |cause: String| ScopeError::Stop { unit: unit.to_owned(), cause };
    let client = SystemdClient::new(unit, Vec::new()).map_err(|error| fail(error.to_string()))?;
    client.stop().map_err(|error| fail(error.to_string()))?;
    // As with the start, the answer comes first.
    let started = Instant::now();
    while directory.is_dir() {
        if started.elapsed() > PATIENCE {
            return Err(fail(format!("{} does not go", directory.display())));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_where_systemd_puts_it() {
        assert_eq!(root("podbay"), "podbay.slice/podbay-pods.slice/podbay-podbay.scope/pods");
        assert_eq!(unit("team/n1"), "podbay-team_n1.scope");
    }

    /// A directory with the files a cgroup has.
    fn cgroup(path: &Path, pids: &str) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("cgroup.procs"), pids).unwrap();
    }

    #[test]
    fn a_scope_is_held_only_when_its_own_cgroup_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let scope = dir.path().join("podbay-x.scope");
        assert_eq!(look(&scope), Seen::Unheld);
        // systemd has made the cgroup and not yet moved the process.
        cgroup(&scope, "");
        assert_eq!(look(&scope), Seen::Unheld);
        cgroup(&scope, "17\n");
        assert_eq!(look(&scope), Seen::Loose(vec!["17".to_owned()]));
        cgroup(&scope.join("holder"), "12\n");
        assert_eq!(look(&scope), Seen::Loose(vec!["17".to_owned()]));
        cgroup(&scope, "");
        assert_eq!(look(&scope), Seen::Held);
        cgroup(&scope.join("holder"), "");
        assert_eq!(look(&scope), Seen::Unheld);
    }
}
