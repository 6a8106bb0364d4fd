//! What an engine does first: finds again what earlier ones left.
//!
//! Every sandbox is asked at the same time, and one whose shim hangs holds up nothing: it counts as running, because
//! nobody knows better, and is asked again until it answers or is gone. What a newer podbay left is not for us to judge:
//! the engine does not open then, and its pods run on.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;

use super::RuntimeError;
use super::container::{Container, cgroup_of};
use super::engine::{Inner, blocking};
use super::record::{self, ContainerRecord, Phase, RecordError, SandboxRecord};
use super::sandbox::{Sandbox, remove_run_dir};
use super::shim::{self, ShimError};
use super::wire::{Exit, List, Response, Running, parse_record};
use crate::cri::PodSandboxConfig;

/// Between two questions to a shim that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a sandbox's shim says about itself.
enum Answer {
    /// A connection on which it tells ends, and its containers.
    Live(UnixStream, BTreeMap<String, Running>),
    /// It is there and says nothing.
    Silent,
    Gone,
}

impl Inner {
    /// Reads the records and takes over what lives.
    pub async fn find_again(self: Arc<Self>) -> Result<(), RuntimeError> {
        let dir = self.options.root_dir.join("sandboxes");
        let entries = std::fs::read_dir(&dir).map_err(RuntimeError::file("read", &dir))?;
        let (mut adopted, mut unwanted) = (JoinSet::new(), Vec::new());
        for entry in entries.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            match record::read::<SandboxRecord>(&entry.path().join("sandbox.json")) {
                Ok(found) if found.phase != Phase::Creating => {
                    let inner = self.clone();
                    drop(adopted.spawn_blocking(move || inner.adopt(found)));
                }
                Ok(half) => unwanted.push((half, true)),
                Err(newer @ RecordError::Newer { .. }) => return Err(newer.into()),
                Err(cause) => {
                    tracing::warn!(sandbox = id, %cause, "remove a sandbox without a readable record");
                    unwanted.push((unknown(&id, &self.boot_id), true));
                }
            }
        }
        while let Some(done) = adopted.join_next().await {
            match done {
                Ok(dead) => unwanted.extend(dead?.map(|dead| (dead, false))),
                Err(cause) => tracing::error!(%cause, "take a sandbox over"),
            }
        }
        // What half-made sandboxes and dead shims left: processes (if any), mounts, the network. Last, when it is known
        // whose network another sandbox of the pod has by now.
        let mut undone = JoinSet::new();
        for (record, all) in unwanted {
            let inner = self.clone();
            undone.spawn(async move {
                let id = record.id.clone();
                if let Err(cause) = inner.take_down(record, all).await {
                    tracing::warn!(sandbox = id, %cause, "clean up what an earlier engine left");
                }
            });
        }
        while undone.join_next().await.is_some() {}
        self.sweep_run_dir();
        Ok(())
    }

    /// Run directories without a record.
    fn sweep_run_dir(&self) {
        let known: Vec<String> = self.table().sandboxes.keys().cloned().collect();
        let entries = std::fs::read_dir(self.options.run_dir.join("sandboxes")).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !known.iter().any(|id| entry.file_name() == id.as_str())) {
            remove_run_dir(&entry.path());
        }
    }

    /// Takes a sandbox over; gives it back when its shim is dead. Blocks.
    fn adopt(self: &Arc<Self>, mut found: SandboxRecord) -> Result<Option<SandboxRecord>, RuntimeError> {
        let id = found.id.clone();
        let rebooted = found.boot_id != self.boot_id;
        let answer = if found.phase == Phase::Ready && !rebooted { self.ask_shim(&id)? } else { Answer::Gone };
        let none = BTreeMap::new();
        let running = match &answer {
            Answer::Live(_, running) => Some(running),
            Answer::Silent => None,
            Answer::Gone => Some(&none),
        };
        let ready = !matches!(answer, Answer::Gone);
        if !ready && found.phase == Phase::Ready {
            tracing::info!(sandbox = id, pod = found.config.metadata.name, rebooted, "a sandbox's shim is gone");
            found.phase = Phase::Stopped;
        }
        let containers = self.read_containers(&found, rebooted, running)?;
        let ended: Vec<ContainerRecord> =
            containers.iter().filter(|(_, one)| !one.is_running()).map(|(_, one)| one.record.clone()).collect();
        {
            let mut table = self.table();
            table.sandboxes.insert(id.clone(), Sandbox { record: found.clone(), ready });
            table.containers.extend(containers);
        }
        for record in ended.iter().filter(|record| record.started) {
            // The engine that heard of its end may have been killed before it could do this.
            self.kill_leftovers(record);
        }
        match answer {
            Answer::Live(connection, _) => self.hear_shim(&id, connection),
            Answer::Silent => {
                tracing::warn!(sandbox = id, pod = found.config.metadata.name, "a sandbox's shim does not answer");
                self.attend(ask_again(Arc::downgrade(self), id));
            }
            Answer::Gone => return Ok(Some(found)),
        }
        Ok(None)
    }

    fn hear_shim(self: &Arc<Self>, id: &str, connection: UnixStream) {
        if let Err(cause) = self.listen(id, connection) {
            tracing::warn!(sandbox = id, %cause, "hear of the ends of a sandbox's containers");
            self.attend(ask_again(Arc::downgrade(self), id.to_owned()));
        }
    }

    /// Listens first, so that no end is missed between the two.
    fn ask_shim(&self, id: &str) -> Result<Answer, RuntimeError> {
        let asked = self.watch_connection(id).and_then(|connection| Ok(Answer::Live(connection, self.list(id)?)));
        Ok(match asked {
            Ok(answer) => answer,
            Err(RuntimeError::Shim(newer @ ShimError::Newer { .. })) => return Err(newer.into()),
            Err(RuntimeError::Shim(error)) if error.is_gone() => Answer::Gone,
            Err(RuntimeError::Shim(error)) if error.is_silent() => Answer::Silent,
            Err(cause) => {
                tracing::warn!(sandbox = id, %cause, "ask a sandbox's shim for its containers");
                Answer::Silent
            }
        })
    }

    fn list(&self, id: &str) -> Result<BTreeMap<String, Running>, RuntimeError> {
        match shim::ask(&self.options.sandbox_run_dir(id), &List {}.into(), &[])?.response {
            Response::Containers(all) => Ok(all.all.into_iter().map(|one| (one.id.clone(), one)).collect()),
            _ => Err(ShimError::Confused(self.options.sandbox_run_dir(id)).into()),
        }
    }

    /// `running`: what the shim knows; none: it did not say.
    fn read_containers(
        &self,
        sandbox: &SandboxRecord,
        rebooted: bool,
        running: Option<&BTreeMap<String, Running>>,
    ) -> Result<Vec<(String, Container)>, RuntimeError> {
        let dir = self.options.sandbox_dir(&sandbox.id).join("containers");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            let record: ContainerRecord = match record::read(&entry.path().join("container.json")) {
                Ok(record) => record,
                Err(newer @ RecordError::Newer { .. }) => return Err(newer.into()),
                Err(cause) => {
                    // Half made, or torn by a power cut: it never ran or does not run any more.
                    tracing::warn!(container = id, %cause, "remove a container without a readable record");
                    // Its directory last: it is what tells of the cgroup.
                    match self.cgroups.remove(&cgroup_of(&sandbox.config, &id)) {
                        Ok(()) => drop(std::fs::remove_dir_all(entry.path())),
                        Err(cause) => tracing::warn!(container = id, %cause, "remove its cgroup"),
                    }
                    continue;
                }
            };
            let live = running.and_then(|running| running.get(&id));
            let exit = read_exit(entry.path().join("exit")).or_else(|| live.and_then(|live| live.exit.clone())).or_else(|| {
                let lost = record.started && record.start_error.is_none() && live.is_none() && running.is_some();
                lost.then(|| Exit { code: 137, signal: 9, ..Exit::default() })
            });
            let mut container = Container::new(record);
            container.started_at_ns = live.map(|live| live.started_at_ns).or(exit.as_ref().map(|e| e.started_at_ns));
            container.lost_in_reboot = rebooted;
            if let Some(exit) = exit {
                let message = self.termination_message(&container.record);
                container.end(exit, message);
            }
            found.push((id, container));
        }
        Ok(found)
    }

    /// Containers that ended while their shim was not heard.
    fn catch_up(&self, sandbox_id: &str, running: &BTreeMap<String, Running>) {
        let open: Vec<ContainerRecord> = {
            let table = self.table();
            let of_it = table.containers.values().filter(|container| container.record.sandbox_id == sandbox_id);
            of_it.filter(|container| container.is_running()).map(|container| container.record.clone()).collect()
        };
        for record in open {
            let told = || running.get(&record.id).and_then(|live| live.exit.clone());
            if let Some(exit) = read_exit(self.dir_of(&record).join("exit")).or_else(told) {
                self.ended(sandbox_id, &record.id, exit);
            }
        }
    }
}

/// The record that a shim writes at a container's end.
pub(super) fn read_exit(path: PathBuf) -> Option<Exit> {
    parse_record(&std::fs::read_to_string(path).ok()?)
}

/// Until the shim answers, or is gone, or nobody wants to know any more.
async fn ask_again(weak: Weak<Inner>, id: String) {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        let Some(inner) = weak.upgrade() else { return };
        if !inner.table().sandboxes.get(&id).is_some_and(|sandbox| sandbox.ready) {
            return;
        }
        let sandbox = id.clone();
        let answer = blocking(&inner, move |inner| {
            let answer = inner.ask_shim(&sandbox)?;
            if let Answer::Live(_, running) = &answer {
                inner.catch_up(&sandbox, running);
            }
            Ok(answer)
        });
        match answer.await {
            Ok(Answer::Live(connection, _)) => {
                tracing::info!(sandbox = id, "a sandbox's shim answers again");
                inner.hear_shim(&id, connection);
                return;
            }
            Ok(Answer::Gone) => return inner.shim_gone(id).await,
            Ok(Answer::Silent) | Err(_) => {}
        }
    }
}

/// A record for a sandbox that has none, to take it down by its id.
fn unknown(id: &str, boot_id: &str) -> SandboxRecord {
    SandboxRecord::new(id.into(), PodSandboxConfig::default(), crate::model::Timestamp::UNIX_EPOCH, boot_id.into())
}
