//! Decides the next steps for one pod on this node, as the kubelet would. PURE.
//!
//! ```text
//!   run ── volumes ─► sandbox ─► init containers, one by one ─► main containers ─► (restarts by policy)
//!    │                   ▲  dies: a new attempt from the start      sidecars stay beside them
//!    │                   └───────────────
//!    ├─ terminal (all done, failed, deadline) ─► stop sidecars ─► stop sandbox ─► volumes; containers stay for their logs
//!    ├─ deleting ─► the same ─► last status ─► DELETE with grace 0
//!    └─ gone (the server has no such UID) ─► the same ─► remove sandbox ─► forget
//! ```
//!
//! The steps of one plan are independent of each other; after any of them the world is observed again.
//! Planning again while nothing changed gives the same steps, so the shell carries out only those that
//! are not under way.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};

use super::backoff;
use super::observed::{Hook, ObservedPod, Subject, VolumeState, exit_code, has_ended, is_running};
use super::pull_plan::{self, Needed};
use super::{resources, status};
use crate::cri::{ContainerState, ContainerStatus, SandboxState};
use crate::model::{Key, Kind, Timestamp, pod as model};
use crate::plan::{Reason, Wait};

/// Why a pod waits that may not start yet.
pub const HELD: &str = "Held";

/// How long a container may take to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grace {
    Seconds(u32),
    /// The deadline of the pod's deletion: all its containers share it.
    Until(Timestamp),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    PrepareVolumes,
    /// `after` is the dead sandbox whose network is given back first.
    RunSandbox {
        attempt: u32,
        after: Option<String>,
    },
    PullImage {
        /// As [`pull_plan::Needed`] has it.
        owner: String,
        image: String,
        attempt: u32,
    },
    CreateContainer {
        name: String,
        attempt: u32,
        sandbox: String,
        /// Seconds it carries as the wait after its end.
        delay: u32,
    },
    StartContainer {
        name: String,
        id: String,
    },
    /// postStart.
    RunHook {
        name: String,
        id: String,
    },
    /// preStop, stop signal, SIGKILL.
    StopContainer {
        name: String,
        id: String,
        grace: Grace,
        reason: Reason,
    },
    /// Gives a running container, and its pod, the resources that the pod's spec has now.
    Resize {
        name: String,
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    TearDownVolumes,
    /// DELETE with grace 0: nothing of the pod runs any more.
    FinishDeletion,
    /// Logs and the record of the pod.
    Forget,
}

/// The decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodPlan {
    pub steps: Vec<Step>,
    pub status: PodStatus,
    pub waits: Vec<Wait>,
    pub again_at: Option<Timestamp>,
}

/// Decides for one pod. `gone`: the server no longer has this UID; `pod` is what it last was.
pub fn plan(pod: &Pod, gone: bool, seen: &ObservedPod, now: Timestamp) -> PodPlan {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut planner = Planner { pod, spec, seen, now, steps: Vec::new(), waits: Vec::new(), again_at: None };
    let terminal = terminal(pod, seen, now);
    if gone {
        planner.gone();
    } else if pod.metadata.deletion_timestamp.is_some() {
        planner.delete();
    } else if terminal.is_some() {
        planner.end(Reason::new("Killing", "the pod has ended"));
    } else {
        planner.run();
    }
    let Planner { steps, waits, again_at, .. } = planner;
    PodPlan { steps, status: status::status(pod, seen, terminal.as_ref(), now), waits, again_at }
}

/// Why no container of a pod will ever run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// It was so before.
    Already,
    /// activeDeadlineSeconds.
    Deadline,
    /// It takes more than it may.
    Evicted(String),
    /// Every main container has ended and the policy restarts none, or an init container failed for good.
    Done,
}

/// Whether the pod has reached its end.
pub fn terminal(pod: &Pod, seen: &ObservedPod, now: Timestamp) -> Option<Terminal> {
    let spec = pod.spec.as_ref()?;
    if matches!(seen.last_status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Some(Terminal::Already);
    }
    if deadline(spec, seen).is_some_and(|at| at <= now) {
        return Some(Terminal::Deadline);
    }
    if let Some(why) = &seen.memory.evicted {
        return Some(Terminal::Evicted(why.clone()));
    }
    let over =
        |c: &Container| seen.latest(&c.name).is_some_and(|found| has_ended(found) && !model::restartable(spec, &c.name, exit_code(found)));
    let failed_init = |c: &Container| !model::is_sidecar(c) && over(c) && seen.latest(&c.name).is_some_and(|found| exit_code(found) != 0);
    let all_over = !spec.containers.is_empty() && spec.containers.iter().all(over);
    (all_over || spec.init_containers.iter().flatten().any(failed_init)).then_some(Terminal::Done)
}

fn deadline(spec: &PodSpec, seen: &ObservedPod) -> Option<Timestamp> {
    let start = seen.last_status.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(spec.active_deadline_seconds?)).ok()
}

struct Planner<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    seen: &'a ObservedPod,
    now: Timestamp,
    steps: Vec<Step>,
    waits: Vec<Wait>,
    again_at: Option<Timestamp>,
}

impl Planner<'_> {
    // ---- the four lives ----

    fn run(&mut self) {
        if let Some(at) = deadline(self.spec, self.seen) {
            self.look_again(at);
        }
        let Some(sandbox) = self.seen.ready_sandbox() else {
            self.new_sandbox();
            return;
        };
        let sandbox = sandbox.id.clone();
        self.strays(&sandbox);
        self.ephemerals(&sandbox);
        if self.initialize(&sandbox) {
            let containers: Vec<&Container> = self.spec.containers.iter().collect();
            for container in containers {
                self.keep(container, &sandbox);
            }
        }
        self.collect_garbage();
    }

    fn delete(&mut self) {
        if self.stop_everything(&Reason::new("Killing", "the pod is deleted")) {
            self.steps.push(Step::FinishDeletion);
        }
    }

    fn end(&mut self, reason: Reason) {
        if self.stop_everything(&reason) {
            self.collect_garbage();
        }
    }

    fn gone(&mut self) {
        if !self.stop_everything(&Reason::new("Killing", "the server no longer has the pod")) {
            return;
        }
        let sandboxes = self.seen.sandboxes.iter().map(|sandbox| Step::RemoveSandbox { id: sandbox.id.clone() });
        self.steps.extend(sandboxes);
        if self.steps.is_empty() {
            self.steps.push(Step::Forget);
        }
    }

    // ---- ending ----

    /// Main containers, then sidecars from the last to the first, then sandboxes, then volumes.
    /// True when nothing of it is left.
    fn stop_everything(&mut self, reason: &Reason) -> bool {
        let alive: Vec<&ContainerStatus> = self.seen.containers.iter().filter(|c| is_running(c)).collect();
        let sidecar_at = |c: &ContainerStatus| {
            let mut inits = self.spec.init_containers.iter().flatten();
            inits.position(|init| init.name == c.metadata.name && model::is_sidecar(init))
        };
        let (sidecars, mains): (Vec<_>, Vec<_>) = alive.into_iter().partition(|c| sidecar_at(c).is_some());
        let last = sidecars.into_iter().max_by_key(|c| sidecar_at(c));
        if mains.is_empty() && self.seen.starting {
            // One that is being started may run in a moment: no sidecar ends before it.
            return false;
        }
        let now_stop: Vec<&ContainerStatus> = if mains.is_empty() { last.into_iter().collect() } else { mains };
        for container in &now_stop {
            self.stop(container, reason.clone());
        }
        if !now_stop.is_empty() {
            return false;
        }
        let ready = self.seen.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
        let stops: Vec<Step> = ready.map(|sandbox| Step::StopSandbox { id: sandbox.id.clone() }).collect();
        if !stops.is_empty() {
            self.steps.extend(stops);
            return false;
        }
        if self.seen.volumes != VolumeState::Absent {
            self.steps.push(Step::TearDownVolumes);
            return false;
        }
        true
    }

    fn stop(&mut self, container: &ContainerStatus, reason: Reason) {
        let grace = match &self.pod.metadata.deletion_timestamp {
            Some(_) => Grace::Until(self.deadline_of_deletion()),
            // What takes too much is not asked for long.
            None if self.is_evicted() => Grace::Seconds(1),
            None => Grace::Seconds(seconds(self.spec.termination_grace_period_seconds.unwrap_or(30))),
        };
        self.steps.push(Step::StopContainer { name: container.metadata.name.clone(), id: container.id.clone(), grace, reason });
    }

    /// Or was, as its status says: to an agent that was started since.
    fn is_evicted(&self) -> bool {
        self.seen.memory.evicted.is_some() || self.seen.last_status.reason.as_deref() == Some("Evicted")
    }

    /// By this node's clock, from when the deletion was first seen here: the server's clock may be another,
    /// and the node may have been away when the pod was deleted.
    fn deadline_of_deletion(&self) -> Timestamp {
        let seen = self.seen.memory.deletion_seen.unwrap_or(self.now);
        let own = self.pod.metadata.deletion_grace_period_seconds.or(self.spec.termination_grace_period_seconds);
        let grace = SignedDuration::from_secs(i64::from(seconds(own.unwrap_or(30))));
        seen.checked_add(grace).unwrap_or(seen)
    }

    /// Containers that still run in a sandbox that is not the current one, or that nobody asks for.
    fn strays(&mut self, sandbox: &str) {
        let known = |name: &str| model::any_container(self.spec, name).is_some();
        let strays = self.seen.containers.iter().filter(|c| is_running(c));
        let strays: Vec<&ContainerStatus> = strays.filter(|c| c.sandbox_id != sandbox || !known(&c.metadata.name)).collect();
        for stray in strays {
            self.stop(stray, Reason::new("Killing", "its sandbox is no longer the pod's"));
        }
    }

    // ---- beginning ----

    fn new_sandbox(&mut self) {
        let dead = self.seen.sandbox();
        let alive: Vec<&ContainerStatus> = self.seen.containers.iter().filter(|c| is_running(c)).collect();
        if !alive.is_empty() {
            for container in alive {
                self.stop(container, Reason::new("SandboxChanged", "the pod's sandbox died"));
            }
            return;
        }
        if self.seen.volumes != VolumeState::Ready {
            if self.may_try(&Subject::Volumes) {
                self.steps.push(Step::PrepareVolumes);
            }
            return;
        }
        if self.seen.hold {
            self.wait(HELD, "pods that the server no longer has are stopped first");
            return;
        }
        if self.may_try(&Subject::Sandbox) {
            let attempt = dead.map_or(0, |sandbox| sandbox.metadata.attempt + 1);
            self.steps.push(Step::RunSandbox { attempt, after: dead.map(|sandbox| sandbox.id.clone()) });
        }
    }

    /// Init containers in order, sidecars kept running. True once the main containers may start.
    fn initialize(&mut self, sandbox: &str) -> bool {
        let inits: Vec<&Container> = self.spec.init_containers.iter().flatten().collect();
        let begun = self.spec.containers.iter().any(|c| self.seen.current(&c.name).is_some());
        // Sidecars before the furthest init container that has begun have had their turn.
        let furthest = inits.iter().rposition(|c| self.seen.current(&c.name).is_some()).unwrap_or(0);
        for (index, init) in inits.iter().enumerate() {
            let passed = begun || index < furthest;
            if model::is_sidecar(init) {
                self.keep(init, sandbox);
                if !passed && !self.has_started(init) {
                    return false;
                }
            } else if !passed && !self.init_done(init, sandbox) {
                return false;
            }
        }
        true
    }

    fn init_done(&mut self, init: &Container, sandbox: &str) -> bool {
        match self.seen.current(&init.name) {
            Some(found) if has_ended(found) && exit_code(found) == 0 => return true,
            Some(found) if is_running(found) => self.wait("PodInitializing", &format!("init container {} has to end", init.name)),
            _ => self.keep(init, sandbox),
        }
        false
    }

    fn has_started(&self, container: &Container) -> bool {
        self.seen.current(&container.name).is_some_and(|found| status::is_started(container, found, self.seen))
    }

    /// Ephemeral containers begin when they come, whatever the others do, and never again.
    fn ephemerals(&mut self, sandbox: &str) {
        let all: Vec<&EphemeralContainer> = self.spec.ephemeral_containers.iter().flatten().collect();
        for ephemeral in all {
            let name = &ephemeral.name;
            match self.seen.latest(name) {
                Some(found) if found.sandbox_id == sandbox && found.state == ContainerState::Created => {
                    if self.may_try(&Subject::Container(name.clone())) {
                        self.steps.push(Step::StartContainer { name: name.clone(), id: found.id.clone() });
                    }
                }
                Some(_) => {}
                // The runtime lost it: it was.
                None if self.has_been(name) => {}
                None => self.begin(ephemeral, sandbox),
            }
        }
    }

    fn has_been(&self, name: &str) -> bool {
        let mut all = self.seen.last_status.ephemeral_container_statuses.iter().flatten();
        all.any(|status| status.name == name && status.container_id.is_some())
    }

    fn begin(&mut self, ephemeral: &EphemeralContainer, sandbox: &str) {
        let target = ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty());
        if let Some(target) = target.filter(|target| !self.seen.current(target).is_some_and(is_running)) {
            return self.wait("ContainerCreating", &format!("container {target}, the target of {}, does not run", ephemeral.name));
        }
        let container = model::plain(ephemeral);
        if self.volumes_ready() && self.images_ready(&container, 0) && self.may_try(&Subject::Container(container.name.clone())) {
            self.steps.push(Step::CreateContainer { name: container.name, attempt: 0, sandbox: sandbox.to_owned(), delay: 0 });
        }
    }

    // ---- one container ----

    /// Makes it run, restarts it where it must be, leaves it alone where it is fine.
    fn keep(&mut self, container: &Container, sandbox: &str) {
        match self.seen.latest(&container.name) {
            Some(found) if found.sandbox_id == sandbox && is_running(found) => self.tend(container, found),
            Some(found) if found.sandbox_id == sandbox && found.state == ContainerState::Created => {
                if self.may_try(&Subject::Container(container.name.clone())) {
                    self.steps.push(Step::StartContainer { name: container.name.clone(), id: found.id.clone() });
                }
            }
            found => self.start(container, found, sandbox),
        }
    }

    /// A running container: stop it for a reason, or let its hook run.
    fn tend(&mut self, container: &Container, found: &ContainerStatus) {
        let hash = backoff::hash(container);
        let probes = self.seen.probe(&found.id);
        let name = &container.name;
        let regular_init = model::is_init_container(self.spec, name) && !model::is_sidecar(container);
        let changed = !regular_init && found.annotations.get(super::observed::CONTAINER_HASH).is_some_and(|old| *old != hash);
        let (code, message, probe) = if changed {
            ("Changed", format!("Container {name} definition changed, will be restarted"), None)
        } else if probes.live == Some(false) {
            ("Unhealthy", format!("Container {name} failed liveness probe, will be restarted"), container.liveness_probe.as_ref())
        } else if probes.startup == Some(false) {
            ("Unhealthy", format!("Container {name} failed startup probe, will be restarted"), container.startup_probe.as_ref())
        } else {
            match self.seen.memory.hooks.get(&found.id) {
                Some(Hook::Failed(_)) => ("FailedPostStartHook", "FailedPostStartHook".to_owned(), None),
                Some(Hook::Pending) => {
                    self.steps.push(Step::RunHook { name: name.clone(), id: found.id.clone() });
                    return;
                }
                Some(Hook::Done) | None => match self.resize(container, found) {
                    Some(message) => ("Resized", message, None),
                    None => return,
                },
            }
        };
        let own_grace = probe.and_then(|probe| probe.termination_grace_period_seconds);
        self.stop(found, Reason::new(code, message));
        if let (Some(own), Some(Step::StopContainer { grace, .. })) = (own_grace, self.steps.last_mut()) {
            *grace = Grace::Seconds(seconds(own));
        }
    }

    /// Other resources: given as it runs, or a sentence on why it has to start anew for them.
    fn resize(&mut self, container: &Container, found: &ContainerStatus) -> Option<String> {
        let name = &container.name;
        let has = self.seen.resources(found).filter(|has| **has != resources::told(container))?;
        if model::restart_policy(self.spec) != "Never" && resources::takes_a_restart(container, has) {
            return Some(format!("Container {name} resize requires restart"));
        }
        if self.may_try(&Subject::Resize(name.clone())) {
            self.steps.push(Step::Resize { name: name.clone(), id: found.id.clone() });
        }
        None
    }

    /// Creates the container, again if need be: policy, back-off, image, then the container.
    fn start(&mut self, container: &Container, dead: Option<&ContainerStatus>, sandbox: &str) {
        let name = &container.name;
        let regular_init = model::is_init_container(self.spec, name) && !model::is_sidecar(container);
        let ended = dead.filter(|found| has_ended(found));
        // A new sandbox runs every init container once more, whatever its end was.
        let again = regular_init && dead.is_some_and(|found| found.sandbox_id != sandbox);
        if let Some(found) = ended
            && !again
            && !model::restartable(self.spec, name, exit_code(found))
        {
            return;
        }
        let restart = ended.map(|found| backoff::restart(found, &backoff::hash(container)));
        if let Some(restart) = restart.filter(|restart| restart.at > self.now) {
            let message = format!("back-off {} restarting failed container {name}", backoff::print(restart.delay));
            self.wait("CrashLoopBackOff", &message);
            self.look_again(restart.at);
            return;
        }
        let attempt = self.next_attempt(name, dead);
        if self.volumes_ready() && self.images_ready(container, attempt) && self.may_try(&Subject::Container(name.clone())) {
            let delay = restart.map_or(0, |restart| restart.next);
            self.steps.push(Step::CreateContainer { name: name.clone(), attempt, sandbox: sandbox.to_owned(), delay });
        }
    }

    fn next_attempt(&self, name: &str, dead: Option<&ContainerStatus>) -> u32 {
        if let Some(found) = dead {
            return found.metadata.attempt + 1;
        }
        // The runtime lost its containers: go on counting where the status left off.
        let all = self.seen.last_status.container_statuses.iter().chain(&self.seen.last_status.init_container_statuses).flatten();
        let known = all.into_iter().find(|status| status.name == name && status.container_id.is_some());
        known.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0) + 1)
    }

    fn volumes_ready(&mut self) -> bool {
        if self.seen.volumes == VolumeState::Ready {
            return true;
        }
        if self.may_try(&Subject::Volumes) && !self.steps.contains(&Step::PrepareVolumes) {
            self.steps.push(Step::PrepareVolumes);
        }
        false
    }

    /// All that are missing are fetched side by side.
    fn images_ready(&mut self, container: &Container, attempt: u32) -> bool {
        let spec = self.spec;
        let ready: Vec<bool> = pull_plan::needed(spec, container).into_iter().map(|needed| self.image_ready(needed, attempt)).collect();
        ready.into_iter().all(|ready| ready)
    }

    fn image_ready(&mut self, needed: Needed<'_>, attempt: u32) -> bool {
        let Needed { owner, image, policy } = needed;
        let present = self.seen.images.contains(image);
        match policy {
            "Never" if !present => {
                self.wait("ErrImageNeverPull", &format!("image {image} is not present and the pull policy is Never"));
                self.look_again(later(self.now, i64::from(backoff::FIRST)));
                false
            }
            "Never" => true,
            "Always" if present && self.seen.memory.pulled.contains(&(owner.clone(), attempt)) => true,
            "IfNotPresent" if present => true,
            _ => {
                let step = Step::PullImage { owner: owner.clone(), image: image.to_owned(), attempt };
                if !self.steps.contains(&step) && self.may_try(&Subject::Image(owner)) {
                    self.steps.push(step);
                }
                false
            }
        }
    }

    // ---- bounds ----

    /// Of each name the newest container and one dead one before it stay; sandboxes with neither go. Of a pod that was
    /// evicted none stays: what they have written is why.
    fn collect_garbage(&mut self) {
        let is_evicted = self.seen.last_status.reason.as_deref() == Some("Evicted");
        let keep = |c: &ContainerStatus| {
            let name = &c.metadata.name;
            !is_evicted && [self.seen.latest(name), self.seen.previous(name)].into_iter().flatten().any(|kept| kept.id == c.id)
        };
        let newest = self.seen.sandbox().map(|sandbox| sandbox.id.as_str());
        for container in self.seen.containers.iter().filter(|c| !is_running(c) && !keep(c)) {
            self.steps.push(Step::RemoveContainer { id: container.id.clone() });
        }
        for sandbox in self.seen.sandboxes.iter().filter(|sandbox| Some(sandbox.id.as_str()) != newest) {
            if !self.seen.containers.iter().any(|c| c.sandbox_id == sandbox.id && (is_running(c) || keep(c))) {
                self.steps.push(Step::RemoveSandbox { id: sandbox.id.clone() });
            }
        }
    }

    // ---- waiting ----

    /// Whether the last failure, if any, is long enough ago.
    fn may_try(&mut self, subject: &Subject) -> bool {
        let Some(failure) = self.seen.failure(subject) else { return true };
        let at = backoff::retry_at(failure);
        if at <= self.now {
            return true;
        }
        self.waits.push(Wait { subject: self.key(), reason: Reason::new("BackOff", format!("{}: {}", failure.reason, failure.message)) });
        self.look_again(at);
        false
    }

    fn wait(&mut self, code: &'static str, message: &str) {
        self.waits.push(Wait { subject: self.key(), reason: Reason::new(code, message) });
    }

    fn key(&self) -> Key {
        let meta = &self.pod.metadata;
        Key::new(Kind::Pod, meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }

    fn look_again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }
}

fn seconds(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// Of the steps that make or start a container of this name.
pub fn container_subject(name: &str) -> String {
    format!("container {name}")
}

/// What must not be under way twice: two steps with the same subject are the same work.
impl Step {
    pub fn subject(&self) -> String {
        match self {
            Step::PrepareVolumes | Step::TearDownVolumes => "volumes".to_owned(),
            Step::RunSandbox { .. } => "sandbox".to_owned(),
            Step::PullImage { owner, .. } => format!("pull {owner}"),
            Step::CreateContainer { name, .. } | Step::StartContainer { name, .. } => container_subject(name),
            Step::RunHook { id, .. } => format!("hook {id}"),
            // A shorter grace is new work beside the stop under way.
            Step::StopContainer { id, grace, .. } => format!("stop {id} {grace:?}"),
            Step::Resize { .. } => "resize".to_owned(),
            Step::RemoveContainer { id } => format!("remove {id}"),
            Step::StopSandbox { id } | Step::RemoveSandbox { id } => format!("end {id}"),
            Step::FinishDeletion => "finish".to_owned(),
            Step::Forget => "forget".to_owned(),
        }
    }

    /// It may bring something into being that was not there before.
    pub fn makes(&self) -> bool {
        matches!(self, Step::PrepareVolumes | Step::RunSandbox { .. } | Step::CreateContainer { .. } | Step::StartContainer { .. })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
