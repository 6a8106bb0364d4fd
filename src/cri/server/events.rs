//! Container events: what has become of each sandbox and container since the caller was last told.
//!
//! The runtime says only where to look. So nothing that can be seen is lost when many things happen at once, and what
//! came and went between two looks is told in full: created, started, stopped, deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::runtime::Messages;
use crate::cri::wire::{ContainerEventResponse, ContainerEventType, status};
use crate::cri::{ContainerState, ContainerStatus, CriError, PodSandbox, Runtime, SandboxState};
use crate::model::Timestamp;

/// How far something has got; what a caller was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Created,
    Started,
    Stopped,
    Deleted,
}

/// What happened between two looks; `None`: it was not there yet.
fn kinds(before: Option<Stage>, now: Stage) -> Vec<ContainerEventType> {
    let all = [
        (Stage::Created, ContainerEventType::ContainerCreatedEvent),
        (Stage::Started, ContainerEventType::ContainerStartedEvent),
        (Stage::Stopped, ContainerEventType::ContainerStoppedEvent),
        (Stage::Deleted, ContainerEventType::ContainerDeletedEvent),
    ];
    let passed = |(stage, _): &(Stage, ContainerEventType)| before.is_none_or(|before| *stage > before) && *stage <= now;
    // What is deleted without ever having run was not started either.
    let skipped = |stage: Stage| before == Some(Stage::Created) && now == Stage::Deleted && stage != Stage::Deleted;
    all.into_iter().filter(|one| passed(one) && !skipped(one.0)).map(|(_, kind)| kind).collect()
}

fn stage_of_container(container: &ContainerStatus) -> Stage {
    match container.state {
        ContainerState::Created => Stage::Created,
        ContainerState::Running => Stage::Started,
        ContainerState::Exited | ContainerState::Unknown => Stage::Stopped,
    }
}

fn stage_of_sandbox(sandbox: &PodSandbox) -> Stage {
    match sandbox.state {
        SandboxState::Ready => Stage::Started,
        SandboxState::NotReady => Stage::Stopped,
    }
}

/// Everything that is there.
struct Seen {
    sandboxes: Vec<PodSandbox>,
    containers: Vec<ContainerStatus>,
}

impl Seen {
    async fn look(runtime: &dyn Runtime) -> Result<Self, CriError> {
        Ok(Self { sandboxes: runtime.list_pod_sandboxes().await?, containers: runtime.list_containers().await? })
    }

    /// Each thing's sandbox and stage, by its id.
    fn stages(&self) -> BTreeMap<String, (String, Stage)> {
        let sandboxes = self.sandboxes.iter().map(|one| (one.id.clone(), (one.id.clone(), stage_of_sandbox(one))));
        let containers = self.containers.iter().map(|one| (one.id.clone(), (one.sandbox_id.clone(), stage_of_container(one))));
        sandboxes.chain(containers).collect()
    }

    fn sandbox(&self, id: &str) -> Option<&PodSandbox> {
        self.sandboxes.iter().find(|sandbox| sandbox.id == id)
    }

    /// `before`: the last look, for the status of a sandbox that is gone.
    fn event(&self, before: &Self, id: &str, sandbox_id: &str, kind: ContainerEventType) -> ContainerEventResponse {
        let sandbox = self.sandbox(sandbox_id).or_else(|| before.sandbox(sandbox_id));
        let own = self.containers.iter().filter(|container| container.sandbox_id == sandbox_id);
        ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: status::nanoseconds(Some(Timestamp::now())),
            pod_sandbox_status: sandbox.map(status::sandbox_status),
            containers_statuses: own.map(status::container_status).collect(),
        }
    }
}

/// The events between what was told and what is there now.
fn changes(before: &Seen, seen: &Seen) -> Vec<ContainerEventResponse> {
    let (told, now) = (before.stages(), seen.stages());
    let gone =
        told.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(id, (sandbox, before))| (id, sandbox, Some(*before), Stage::Deleted));
    let there = now.iter().map(|(id, (sandbox, stage))| (id, sandbox, told.get(id).map(|(_, before)| *before), *stage));
    let mut all = Vec::new();
    for (id, sandbox, last, stage) in there.chain(gone) {
        all.extend(kinds(last, stage).into_iter().map(|kind| seen.event(before, id, sandbox, kind)));
    }
    all
}

/// Events from now on, for as long as the caller listens.
///
/// # Errors
/// When the runtime does not answer.
pub(super) async fn stream(runtime: Arc<dyn Runtime>, end: CancellationToken) -> Result<Messages<ContainerEventResponse>, CriError> {
    // Listening before looking: nothing falls between the two.
    let mut events = runtime.events();
    let mut told = Seen::look(&*runtime).await?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = end.cancelled() => return,
                event = events.recv() => if matches!(event, Err(RecvError::Closed)) { return },
            }
            // One look for all that is waiting.
            while events.try_recv().is_ok() {}
            match Seen::look(&*runtime).await {
                Ok(seen) => {
                    for event in changes(&told, &seen) {
                        if sender.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                    told = seen;
                }
                Err(error) => {
                    // The caller asks anew, and then sees what it has missed.
                    sender.send(Err(Status::unavailable(error.to_string()))).await.ok();
                    return;
                }
            }
        }
    });
    Ok(Box::pin(futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_told_with_its_last_status() {
        let sandbox = PodSandbox {
            id: "s1".into(),
            metadata: crate::cri::PodSandboxMetadata::default(),
            state: SandboxState::NotReady,
            created_at: Timestamp::UNIX_EPOCH,
            ips: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            namespaces: crate::cri::Namespaces::default(),
            runtime_handler: String::new(),
        };
        let before = Seen { sandboxes: vec![sandbox], containers: Vec::new() };
        let told = changes(&before, &Seen { sandboxes: Vec::new(), containers: Vec::new() });
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].pod_sandbox_status.as_ref().map(|status| status.id.as_str()), Some("s1"));
    }

    #[test]
    fn what_happened_between_two_looks_is_told_in_full() {
        use ContainerEventType::{
            ContainerCreatedEvent as C, ContainerDeletedEvent as D, ContainerStartedEvent as S, ContainerStoppedEvent as T,
        };
        let cases = [
            (None, Stage::Created, vec![C]),
            (None, Stage::Started, vec![C, S]),
            (None, Stage::Stopped, vec![C, S, T]),
            (Some(Stage::Created), Stage::Created, vec![]),
            (Some(Stage::Created), Stage::Stopped, vec![S, T]),
            (Some(Stage::Created), Stage::Deleted, vec![D]),
            (Some(Stage::Started), Stage::Deleted, vec![T, D]),
            (Some(Stage::Stopped), Stage::Deleted, vec![D]),
        ];
        for (before, now, expected) in cases {
            assert_eq!(kinds(before, now), expected, "{before:?} {now:?}");
        }
    }
}
