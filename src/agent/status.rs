//! Computes a pod's status as the kubelet writes it: container states, phase, conditions. PURE.

use k8s_openapi::api::core::v1::{
    Container, ContainerState as State, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus as Status,
    HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff;
use super::observed::{Failure, Hook, ObservedPod, Sizing, Subject, exit_code, has_ended, is_running};
use super::plan::Terminal;
use super::pull_plan::{self, Needed};
use super::resources;
use crate::cri::{ContainerState, ContainerStatus};
use crate::model::{Timestamp, pod as model};

/// The status of the pod as it is now.
pub fn status(pod: &Pod, seen: &ObservedPod, terminal: Option<&Terminal>, now: Timestamp) -> PodStatus {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let ended = terminal.is_some() || pod.metadata.deletion_timestamp.is_some();
    let view = View { spec, seen, now, ended };
    let mut status = seen.last_status.clone();
    let inits: Vec<Status> = spec.init_containers.iter().flatten().map(|c| view.container(c)).collect();
    let mains: Vec<Status> = spec.containers.iter().map(|c| view.container(c)).collect();
    let ephemerals: Vec<Status> = spec.ephemeral_containers.iter().flatten().map(|it| view.ephemeral(&model::plain(it))).collect();
    let [inits, mains, ephemerals] = shortened([inits, mains, ephemerals]);
    let phase = match terminal {
        Some(Terminal::Already) => status.phase.clone().unwrap_or_else(|| "Failed".to_owned()),
        Some(Terminal::Deadline | Terminal::Evicted(_)) => "Failed".to_owned(),
        Some(Terminal::Done) | None => phase(spec, &inits, &mains, ended).to_owned(),
    };
    match terminal {
        Some(Terminal::Already) => {}
        Some(Terminal::Deadline) => {
            status.reason = Some("DeadlineExceeded".to_owned());
            status.message = Some("Pod was active on the node longer than the specified deadline".to_owned());
        }
        Some(Terminal::Evicted(why)) => {
            (status.reason, status.message) = (Some("Evicted".to_owned()), Some(why.clone()));
        }
        Some(Terminal::Done) | None => (status.reason, status.message) = (None, None),
    }
    status.start_time.get_or_insert(Time(now));
    status.qos_class = Some(model::qos_class(spec).name().to_owned());
    status.observed_generation = pod.metadata.generation;
    addresses(&mut status, &view);
    for condition in conditions(&view, pod, &phase, &inits, &mains) {
        set_condition(&mut status, condition, now);
    }
    let known = ended || seen.memory.sizing != Sizing::Unknown;
    for (type_, condition) in [(model::RESIZE_PENDING, view.pending()), (model::RESIZING, view.resizing())].into_iter().filter(|_| known) {
        match condition {
            Some(mut condition) => {
                condition.observed_generation = pod.metadata.generation;
                set_condition(&mut status, condition, now);
            }
            None => status.conditions.iter_mut().for_each(|all| all.retain(|condition| condition.type_ != type_)),
        }
    }
    status.phase = Some(phase);
    status.init_container_statuses = Some(inits).filter(|list| !list.is_empty());
    status.container_statuses = Some(mains).filter(|list| !list.is_empty());
    status.ephemeral_container_statuses = Some(ephemerals).filter(|list| !list.is_empty());
    status
}

/// As much as Kubernetes keeps of the termination messages of all containers of a pod together.
const MESSAGES_BYTES: usize = 12 << 10;

/// Each container has an equal share of the room for messages.
fn shortened(lists: [Vec<Status>; 3]) -> [Vec<Status>; 3] {
    let share = MESSAGES_BYTES / lists.iter().map(Vec::len).sum::<usize>().max(1);
    let shorten = |mut status: Status| {
        for state in [&mut status.state, &mut status.last_state] {
            let message = state.as_mut().and_then(|state| state.terminated.as_mut()?.message.as_mut());
            if let Some(message) = message {
                message.truncate(message.floor_char_boundary(share));
            }
            // The kubelet's type has no way to leave it out, and clients read on in it.
            state.get_or_insert_default();
        }
        status
    };
    lists.map(|list| list.into_iter().map(shorten).collect())
}

/// Whether a running container counts as started: hook done, startup probe passed.
pub fn is_started(container: &Container, found: &ContainerStatus, seen: &ObservedPod) -> bool {
    is_running(found)
        && !matches!(seen.memory.hooks.get(&found.id), Some(Hook::Pending | Hook::Failed(_)))
        && (container.startup_probe.is_none() || seen.probe(&found.id).startup == Some(true))
}

/// Whether a running container counts as ready.
pub fn is_ready(container: &Container, found: &ContainerStatus, seen: &ObservedPod) -> bool {
    is_started(container, found, seen) && (container.readiness_probe.is_none() || seen.probe(&found.id).ready == Some(true))
}

fn addresses(status: &mut PodStatus, view: &View<'_>) {
    if let Some(first) = view.seen.host_ips.first() {
        status.host_ip = Some(first.clone());
        status.host_ips = Some(view.seen.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    let host_network = view.spec.host_network == Some(true);
    let ips = match view.seen.ready_sandbox() {
        Some(_) if host_network => view.seen.host_ips.clone(),
        Some(sandbox) => sandbox.ips.clone(),
        // An ended pod keeps the address it had.
        None => Vec::new(),
    };
    if let Some(first) = ips.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
}

struct View<'a> {
    spec: &'a PodSpec,
    seen: &'a ObservedPod,
    now: Timestamp,
    ended: bool,
}

impl View<'_> {
    fn container(&self, container: &Container) -> Status {
        let name = &container.name;
        let image = container.image.clone().unwrap_or_default();
        let Some(found) = self.seen.latest(name) else {
            return self.never_made(container, image);
        };
        let is_main_or_sidecar = !model::is_init_container(self.spec, name) || model::is_sidecar(container);
        let mut status = Status {
            name: name.clone(),
            image: if found.image.is_empty() { image } else { found.image.clone() },
            image_id: found.image_ref.clone(),
            container_id: Some(self.container_id(found)),
            restart_count: i32::try_from(found.metadata.attempt).unwrap_or(i32::MAX),
            last_state: self.seen.previous(name).filter(|p| has_ended(p)).map(|p| self.terminated(p)),
            ..Status::default()
        };
        status.state = Some(match found.state {
            ContainerState::Created => self.waiting(container),
            ContainerState::Running => {
                status.started = Some(is_started(container, found, self.seen));
                let has = self.seen.resources(found).and_then(|has| serde_json::from_str::<ResourceRequirements>(has).ok());
                let has = has.filter(|has| has.limits.is_some() || has.requests.is_some());
                status.allocated_resources = has.as_ref().and_then(|has| has.requests.clone());
                status.resources = has;
                status.ready = is_main_or_sidecar && is_ready(container, found, self.seen);
                State { running: Some(ContainerStateRunning { started_at: found.started_at.map(Time) }), ..State::default() }
            }
            ContainerState::Exited | ContainerState::Unknown => {
                status.started = Some(false);
                // A completed init container is "ready"; the kubelet says so too.
                status.ready = !is_main_or_sidecar && exit_code(found) == 0;
                match self.before_restart(container, found) {
                    Some(waiting) => {
                        status.last_state = Some(self.terminated(found));
                        waiting
                    }
                    None => self.terminated(found),
                }
            }
        });
        status
    }

    /// Why nothing else is given to containers that run.
    fn pending(&self) -> Option<PodCondition> {
        let Sizing::Waits(why) = &self.seen.memory.sizing else { return None };
        if self.ended {
            return None;
        }
        Some(PodCondition {
            type_: model::RESIZE_PENDING.to_owned(),
            status: "True".to_owned(),
            reason: Some(why.code.to_owned()),
            message: Some(why.message.clone()),
            ..PodCondition::default()
        })
    }

    /// What is still to be given to containers that run.
    fn resizing(&self) -> Option<PodCondition> {
        let waits = |c: &&Container| {
            let running = self.seen.latest(&c.name).filter(|found| is_running(found));
            running.and_then(|found| self.seen.resources(found)).is_some_and(|has| *has != resources::told(c))
        };
        let first = model::all_containers(self.spec).find(waits).filter(|_| !self.ended)?;
        let failed = self.seen.failure(&Subject::Resize(first.name.clone()));
        Some(PodCondition {
            type_: model::RESIZING.to_owned(),
            status: "True".to_owned(),
            reason: failed.map(|failure| failure.reason.clone()),
            message: failed.map(|failure| format!("container {}: {}", first.name, failure.message)),
            ..PodCondition::default()
        })
    }

    /// One that is never started again and of which nobody waits to be ready.
    fn ephemeral(&self, container: &Container) -> Status {
        let once = View { ended: true, ..*self };
        Status { ready: false, started: None, ..once.container(container) }
    }

    fn never_made(&self, container: &Container, image: String) -> Status {
        let init = model::is_init_container(self.spec, &container.name) && !model::is_sidecar(container);
        if init && self.spec.containers.iter().any(|c| self.seen.latest(&c.name).is_some()) {
            return completed_unseen(container, image);
        }
        // The runtime lost its containers: the count goes on.
        let last = &self.seen.last_status;
        let all = last.container_statuses.iter().chain(&last.init_container_statuses).chain(&last.ephemeral_container_statuses).flatten();
        let last = all.into_iter().find(|status| status.name == container.name && status.container_id.is_some());
        if let (Some(last), true) = (last, self.ended) {
            return Status { ready: false, started: Some(false), ..ended_unseen(last) };
        }
        Status {
            name: container.name.clone(),
            image,
            // Says that there was one: the next start counts on from it.
            container_id: last.and_then(|last| last.container_id.clone()),
            state: Some(self.waiting(container)),
            started: Some(false),
            restart_count: last.map_or(0, |last| last.restart_count),
            last_state: last.and_then(|last| last.last_state.clone()),
            ..Status::default()
        }
    }

    /// What stands between an ended container and its next start, if there is to be one.
    fn before_restart(&self, container: &Container, dead: &ContainerStatus) -> Option<State> {
        if self.ended || !model::restartable(self.spec, &container.name, exit_code(dead)) {
            return None;
        }
        let restart = backoff::restart(dead, &backoff::hash(container));
        if restart.at > self.now {
            let message = format!("back-off {} restarting failed container={}", backoff::print(restart.delay), container.name);
            return Some(waiting("CrashLoopBackOff", &message));
        }
        self.failing(container)
    }

    fn waiting(&self, container: &Container) -> State {
        if let Some(failing) = self.failing(container) {
            return failing;
        }
        let init = model::is_init_container(self.spec, &container.name);
        let has_inits = self.spec.init_containers.iter().flatten().next().is_some();
        let begun = self.spec.containers.iter().any(|c| self.seen.latest(&c.name).is_some());
        waiting(
            if !has_inits || begun || (init && self.seen.ready_sandbox().is_none()) { "ContainerCreating" } else { "PodInitializing" },
            "",
        )
    }

    /// The failure that keeps the container from being made.
    fn failing(&self, container: &Container) -> Option<State> {
        // One that is made has its image: nobody has asked for it again.
        let is_made = self.seen.latest(&container.name).is_some_and(|found| !has_ended(found));
        for Needed { owner, image, policy } in pull_plan::needed(self.spec, container) {
            if policy == "Never" && !is_made && !self.seen.images.contains(image) && self.seen.ready_sandbox().is_some() {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                return Some(waiting("ErrImageNeverPull", &message));
            }
            if let Some(failure) = self.seen.failure(&Subject::Image(owner)) {
                return Some(pull_failure(failure, image, self.now));
            }
        }
        self.seen.failure(&Subject::Container(container.name.clone())).map(|failure| waiting(&failure.reason, &failure.message))
    }

    fn container_id(&self, found: &ContainerStatus) -> String {
        format!("{}://{}", self.seen.scheme, found.id)
    }

    fn terminated(&self, found: &ContainerStatus) -> State {
        let unseen = found.state == ContainerState::Unknown;
        let code = exit_code(found);
        let reason = match found.reason.as_str() {
            _ if unseen => "ContainerStatusUnknown",
            "" if code == 0 => "Completed",
            "" => "Error",
            reason => reason,
        };
        let message = if unseen { "The container could not be located when the pod was looked at" } else { &found.message };
        State {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(self.container_id(found)),
                exit_code: code,
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()).filter(|message| !message.is_empty()),
                started_at: found.started_at.map(Time),
                finished_at: found.finished_at.map(Time),
                signal: None,
            }),
            ..State::default()
        }
    }
}

fn pull_failure(failure: &Failure, image: &str, now: Timestamp) -> State {
    // For the first second the cause itself is shown, then that it is waited; the cause stays in the message.
    if backoff::retry_at(failure) > now && now > failure.at {
        let delay = backoff::print(backoff::retry_delay(failure));
        return waiting("ImagePullBackOff", &format!("Back-off pulling image \"{image}\" ({delay}): {}", failure.message));
    }
    waiting(&failure.reason, &failure.message)
}

fn waiting(reason: &str, message: &str) -> State {
    let message = Some(message.to_owned()).filter(|message| !message.is_empty());
    State { waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }), ..State::default() }
}

/// A completed init container that was cleared away: the main ones have begun, so it had ended well.
fn completed_unseen(container: &Container, image: String) -> Status {
    let end = ContainerStateTerminated {
        exit_code: 0,
        reason: Some("Completed".to_owned()),
        message: Some("The runtime no longer has this init container; the pod was initialized, so it completed".to_owned()),
        ..ContainerStateTerminated::default()
    };
    let state = Some(State { terminated: Some(end), ..State::default() });
    Status { name: container.name.clone(), image, state, ready: true, started: Some(false), ..Status::default() }
}

/// A container that the runtime no longer has, of a pod that ends.
fn ended_unseen(last: &Status) -> Status {
    let mut status = last.clone();
    if last.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        return status;
    }
    status.state = Some(State {
        terminated: Some(ContainerStateTerminated {
            container_id: last.container_id.clone(),
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..State::default()
    });
    status
}

/// The kubelet's getPhase.
fn phase(spec: &PodSpec, inits: &[Status], mains: &[Status], ended: bool) -> &'static str {
    let policy = model::restart_policy(spec);
    let last_code = |status: &Status| {
        let of = |state: &Option<State>| state.as_ref().and_then(|state| state.terminated.as_ref()).map(|end| end.exit_code);
        of(&status.state).or_else(|| of(&status.last_state))
    };
    let is_running = |status: &Status| status.state.as_ref().is_some_and(|state| state.running.is_some());
    let is_waiting = |status: &Status| status.state.as_ref().is_some_and(|state| state.waiting.is_some());
    let (mut pending_init, mut failed_init, mut pending_sidecar, mut running, mut fresh) = (0, 0, 0, 0, 0);
    for (init, status) in spec.init_containers.iter().flatten().zip(inits) {
        let code = last_code(status);
        if model::is_sidecar(init) {
            running += usize::from(is_running(status));
            fresh += usize::from(is_waiting(status) && code.is_none());
            let starting = (is_running(status) && status.started != Some(true)) || (is_waiting(status) && code.is_none());
            pending_sidecar += usize::from(starting);
        } else if is_running(status) || code.is_none() {
            pending_init += 1;
        } else if code != Some(0) {
            failed_init += 1;
        }
    }
    let (mut stopped, mut succeeded) = (0, 0);
    for status in mains {
        let code = last_code(status);
        running += usize::from(is_running(status));
        fresh += usize::from(is_waiting(status) && code.is_none());
        if !is_running(status) && code.is_some() {
            stopped += 1;
            succeeded += usize::from(code == Some(0) && !is_waiting(status));
        }
    }
    let begun = mains.iter().any(|status| is_running(status) || last_code(status).is_some());
    if failed_init > 0 && policy == "Never" {
        return "Failed";
    }
    if pending_init > 0 || (failed_init > 0 && !begun) || (pending_sidecar > 0 && !begun) || fresh > 0 {
        return "Pending";
    }
    match (running > 0, stopped > 0, policy) {
        (true, _, _) => "Running",
        (false, false, _) => "Pending",
        (false, true, _) if ended || policy == "Never" => {
            if stopped == succeeded {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        (false, true, "OnFailure") if stopped == succeeded => "Succeeded",
        (false, true, _) => "Running",
    }
}

fn conditions(view: &View<'_>, pod: &Pod, phase: &str, inits: &[Status], mains: &[Status]) -> Vec<PodCondition> {
    let generation = pod.metadata.generation;
    let make = |type_: &str, verdict: Result<(), (&str, String)>| {
        let (reason, message) = match &verdict {
            Ok(()) => (None, None),
            Err((reason, message)) => (Some((*reason).to_owned()), Some(message.clone()).filter(|m| !m.is_empty())),
        };
        let status = if verdict.is_ok() { "True" } else { "False" }.to_owned();
        PodCondition { type_: type_.to_owned(), status, reason, message, observed_generation: generation, ..PodCondition::default() }
    };
    let over = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let containers = match over {
        Some(reason) => Err((reason, String::new())),
        None => containers_ready(view.spec, inits, mains),
    };
    let ready = containers.clone().and_then(|()| gates(pod));
    let mut initialized = make("Initialized", initialized(view.spec, inits, mains));
    if phase == "Succeeded" {
        (initialized.status, initialized.reason, initialized.message) = ("True".to_owned(), Some("PodCompleted".to_owned()), None);
    }
    let sandbox = if view.seen.ready_sandbox().is_some() { Ok(()) } else { Err(("", String::new())) };
    let mut sandbox = make("PodReadyToStartContainers", sandbox);
    sandbox.reason = None;
    vec![sandbox, initialized, make("Ready", ready), make("ContainersReady", containers), make("PodScheduled", Ok(()))]
}

type Verdict = Result<(), (&'static str, String)>;

fn containers_ready(spec: &PodSpec, inits: &[Status], mains: &[Status]) -> Verdict {
    let sidecars = spec.init_containers.iter().flatten().zip(inits).filter(|(c, _)| model::is_sidecar(c)).map(|(_, status)| status);
    let unready: Vec<&str> = sidecars.chain(mains).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        Ok(())
    } else {
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    }
}

fn gates(pod: &Pod) -> Verdict {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let unmet = |gate: &str| model::condition(pod, gate).is_none_or(|condition| condition.status != "True");
    let missing: Vec<String> = gates.map(|gate| gate.condition_type.clone()).filter(|gate| unmet(gate)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(("ReadinessGatesNotReady", format!("the status of pod readiness gates [{}] is not \"True\"", missing.join(" "))))
}

fn initialized(spec: &PodSpec, inits: &[Status], mains: &[Status]) -> Verdict {
    let begun = mains.iter().any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let done = |c: &Container, status: &Status| {
        if model::is_sidecar(c) {
            return begun || status.started == Some(true);
        }
        status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|end| end.exit_code == 0)
    };
    let pairs = spec.init_containers.iter().flatten().zip(inits);
    let open: Vec<&str> = pairs.filter(|(c, status)| !done(c, status)).map(|(_, status)| status.name.as_str()).collect();
    if open.is_empty() || begun {
        return Ok(());
    }
    Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", open.join(" "))))
}

/// Keeps conditions of others, and the transition time while the status is the same.
fn set_condition(status: &mut PodStatus, mut condition: PodCondition, now: Timestamp) {
    let all = status.conditions.get_or_insert_default();
    match all.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            let same = old.status == condition.status;
            condition.last_transition_time = if same { old.last_transition_time.clone() } else { Some(Time(now)) };
            *old = condition;
        }
        None => {
            condition.last_transition_time = Some(Time(now));
            all.push(condition);
        }
    }
}

/// Whether a status is worth a write: times count to the second, as the API keeps them.
pub fn differs(old: &PodStatus, new: &PodStatus) -> bool {
    old != new && serde_json::to_value(old).ok() != serde_json::to_value(new).ok()
}
