//! What is known of one pod on this node: the input of `plan`. PURE.
//!
//! Two halves. What the runtime and the disk say is read anew each time and survives everything. What
//! only this process knows (failed attempts, probe results, hooks) is [`Memory`]; losing it costs a
//! retry or a probe, never a restart of a container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::cri::{ContainerState, ContainerStatus, PodSandbox, SandboxState};
use crate::model::Timestamp;
use crate::plan::Reason;

/// Label of a sandbox and a container: the pod's UID.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation of a container: the digest of what its restart depends on.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// Annotation of a container: the resources it was made with.
pub const RESOURCES: &str = "podbay.dev/resources";
/// Annotation of a container: seconds to wait after its end before the next start.
pub const RESTART_DELAY: &str = "podbay.dev/restart-delay";

/// Everything `plan` looks at besides the pod itself.
#[derive(Clone, Debug, Default)]
pub struct ObservedPod {
    /// Of this pod's UID, in the order of attempts.
    pub sandboxes: Vec<PodSandbox>,
    /// Of this pod's UID, in the order of creation.
    pub containers: Vec<ContainerStatus>,
    /// The pod's images that are present.
    pub images: BTreeSet<String>,
    pub volumes: VolumeState,
    pub memory: Memory,
    /// The newest status anybody wrote: transition times and a terminal phase are kept from it.
    pub last_status: PodStatus,
    /// Steps that would make something (a sandbox, a container) are still being carried out.
    pub starting: bool,
    /// Pods that the server no longer has are being stopped: start no new pod before that.
    pub hold: bool,
    /// Addresses of this node, for `hostIP` and pods on the host's network.
    pub host_ips: Vec<String>,
    /// Scheme of the containers' ids in the status: the runtime's name.
    pub scheme: String,
}

/// Where the pod's volumes stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumeState {
    /// Nothing on disk.
    #[default]
    Absent,
    /// Something is there, unverified since the start of this process.
    Present,
    /// Prepared by this process.
    Ready,
}

/// What only this process knows.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub failures: BTreeMap<Subject, Failure>,
    /// (owner, attempt) whose image was pulled for a pull policy `Always`.
    pub pulled: BTreeSet<(String, u32)>,
    /// By container id. No entry: a container from before this process, whose hook is done.
    pub hooks: BTreeMap<String, Hook>,
    /// Whether the pod's containers get what they are to have; where not, `plan` is told of what they have.
    pub sizing: Sizing,
    /// The sizes that the pod's containers began to get and do not all have yet, as `resize_events::sizes_of` says them.
    /// `None`: none, or nothing was noted of them.
    pub begun: Option<String>,
    /// By container id: the resources it was given since it was made.
    pub resized: BTreeMap<String, String>,
    /// By container id.
    pub probes: BTreeMap<String, ProbeView>,
    /// When this process first saw that the pod is being deleted.
    pub deletion_seen: Option<Timestamp>,
    /// Why it has to go: it takes more of the disk than it may.
    pub evicted: Option<String>,
}

/// Where the sizes of a pod's containers stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sizing {
    /// They have what they are to have.
    #[default]
    Settled,
    /// There is room for what they do not all have yet.
    Accepted,
    /// There is none, and why.
    Waits(Reason),
    /// Nobody knows what room there is: what was said last stays said.
    Unknown,
}

/// What an attempt was about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Volumes,
    Sandbox,
    /// The image of this container or volume, as `pull_plan` calls its owner.
    Image(String),
    /// Creating or starting this container.
    Container(String),
    /// Giving this running container other resources.
    Resize(String),
}

/// An attempt that failed, and how often in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub count: u32,
    pub at: Timestamp,
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: String,
    pub message: String,
}

/// A postStart hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The container was started by this process and the hook has not ended.
    Pending,
    Done,
    Failed(String),
}

/// Probe results of one container as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeView {
    pub startup: Option<bool>,
    pub live: Option<bool>,
    pub ready: Option<bool>,
}

impl ObservedPod {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&PodSandbox> {
        self.sandboxes.iter().max_by_key(|sandbox| (sandbox.metadata.attempt, sandbox.created_at))
    }

    /// The newest sandbox, if it works.
    pub fn ready_sandbox(&self) -> Option<&PodSandbox> {
        self.sandbox().filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// The newest container of that name.
    pub fn latest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().filter(|c| c.metadata.name == name).max_by_key(|c| (c.metadata.attempt, c.created_at))
    }

    /// The one before the newest.
    pub fn previous(&self, name: &str) -> Option<&ContainerStatus> {
        let newest = self.latest(name)?;
        self.containers.iter().filter(|c| c.metadata.name == name && c.id != newest.id).max_by_key(|c| (c.metadata.attempt, c.created_at))
    }

    /// The newest container of that name in the working sandbox.
    pub fn current(&self, name: &str) -> Option<&ContainerStatus> {
        let sandbox = self.ready_sandbox()?;
        self.latest(name).filter(|c| c.sandbox_id == sandbox.id)
    }

    pub fn failure(&self, subject: &Subject) -> Option<&Failure> {
        self.memory.failures.get(subject)
    }

    /// The resources a container has, as [`super::resources::told`] says them; `None`: of an earlier version.
    pub fn resources<'a>(&'a self, container: &'a ContainerStatus) -> Option<&'a String> {
        self.memory.resized.get(&container.id).or_else(|| container.annotations.get(RESOURCES))
    }

    pub fn probe(&self, id: &str) -> ProbeView {
        self.memory.probes.get(id).copied().unwrap_or_default()
    }
}

/// Whether the container has ended, whoever saw it.
pub fn has_ended(container: &ContainerStatus) -> bool {
    matches!(container.state, ContainerState::Exited | ContainerState::Unknown)
}

/// The exit code; 137 where the end was not seen.
pub fn exit_code(container: &ContainerStatus) -> i32 {
    if container.state == ContainerState::Unknown { 137 } else { container.exit_code }
}

pub fn is_running(container: &ContainerStatus) -> bool {
    container.state == ContainerState::Running
}

/// Records a failure after the ones before it.
pub fn record_failure(memory: &mut Memory, subject: Subject, at: Timestamp, reason: &str, message: String) {
    let count = memory.failures.get(&subject).map_or(0, |failure| failure.count) + 1;
    memory.failures.insert(subject, Failure { count, at, reason: reason.to_owned(), message });
}

/// The pod's UID.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `namespace/name`, for messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}
