//! One pod's own loop: observe, plan, start the steps that are not under way, wait.
//!
//! The worker decides nothing. Steps run as tasks beside it, so that a container that takes its time to
//! end holds up neither the status nor a deletion with a shorter grace. What a step changed in memory is
//! taken in before the next look; what ends during a look counts as under way until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::act::{self, Effect, Scene};
use super::context::{Context, Waiting};
use super::lost::Lost;
use super::observe;
use super::observed::{Memory, ObservedPod, ProbeView, Sizing, Subject, full_name, is_running, record_failure, uid};
use super::plan::{self, PodPlan, Step};
use super::probe::{Prober, Target};
use super::resize_events::{self, News};
use super::status_writer::{self, Written};
use super::volume::plan::{self as plan_of_volumes, Names};
use super::{record, resize_plan, status};
use crate::cri::{self, ContainerState};
use crate::model::{Timestamp, pod as model};

/// What the server last said of a pod.
#[derive(Clone, Debug)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// False: only a sandbox of it was found; nothing is done until the server has spoken.
    pub known: bool,
    /// The server has no such UID any more.
    pub gone: bool,
    /// Counts the server's complete lists: after each the status is compared with the server's again.
    pub list: u64,
}

/// A running worker.
pub struct Handle {
    pub desired: watch::Sender<Desired>,
    pub wake: Arc<Notify>,
    pub task: AbortHandle,
}

struct Finished {
    subject: String,
    outcome: Result<Vec<Effect>, String>,
}

struct Worker {
    context: Arc<Context>,
    desired: watch::Receiver<Desired>,
    gate: watch::Receiver<Waiting>,
    wake: Arc<Notify>,
    memory: Memory,
    prober: Prober,
    volumes_ready: bool,
    refreshed_at: Timestamp,
    /// Whose labels and annotations the volumes tell of.
    refreshed_for: Arc<Pod>,
    own_status: Option<PodStatus>,
    written: Written,
    list: u64,
    /// Resource version of the pod that is on record.
    kept: Option<String>,
    under_way: BTreeMap<String, bool>,
    steps: JoinSet<()>,
    finished: mpsc::UnboundedReceiver<Finished>,
    finish: mpsc::UnboundedSender<Finished>,
    /// Steps that failed and when they may be tried again.
    resting: BTreeMap<String, (u32, Timestamp)>,
    gone: bool,
    lost: Lost,
    /// Waits that go on and were told of.
    told_waits: BTreeSet<String>,
}

/// Starts a worker for a pod.
pub fn spawn(context: &Arc<Context>, desired: Desired, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Handle {
    context.room.meet(&desired.pod);
    let wake = Arc::new(Notify::new());
    let (sender, receiver) = watch::channel(desired.clone());
    let (finish, finished) = mpsc::unbounded_channel();
    let tell = {
        let (context, pod) = (context.clone(), desired.pod.clone());
        Arc::new(move |container: &str, message: String| context.events.pod(&pod, Some(container), true, "Unhealthy", message))
    };
    let memory = Memory {
        resized: desired.pod.status.as_ref().map(resize_plan::given_before).unwrap_or_default(),
        begun: record::resize(&context.layout.records(), uid(&desired.pod)),
        ..Memory::default()
    };
    let worker = Worker {
        prober: Prober::new(context.runtime.clone(), context.clock.clone(), wake.clone(), tell),
        context: context.clone(),
        desired: receiver,
        gate: context.gate.subscribe(),
        wake: wake.clone(),
        memory,
        volumes_ready: false,
        refreshed_at: context.clock.now(),
        refreshed_for: desired.pod.clone(),
        own_status: None,
        written: Written::default(),
        list: desired.list,
        kept: None,
        under_way: BTreeMap::new(),
        steps: JoinSet::new(),
        finished,
        finish,
        resting: BTreeMap::new(),
        gone: false,
        lost: Lost::default(),
        told_waits: BTreeSet::new(),
    };
    let task = tasks.spawn(worker.run(stop.clone()));
    Handle { desired: sender, wake, task }
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let again = self.look().await;
            let Some(pause) = again else { break };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
                changed = self.desired.changed() => if changed.is_err() { break },
                changed = self.gate.changed() => if changed.is_err() { break },
                done = self.finished.recv() => if let Some(done) = done { self.take(done) },
            }
        }
    }

    /// One pass. How long to wait at most; `None`: nothing is left of the pod.
    async fn look(&mut self) -> Option<Duration> {
        while let Ok(done) = self.finished.try_recv() {
            self.take(done);
        }
        while self.steps.try_join_next().is_some() {}
        let desired = self.desired.borrow_and_update().clone();
        let waiting = self.gate.borrow_and_update().clone();
        self.gone |= desired.gone;
        self.let_others_start(&desired.pod);
        if self.under_way.is_empty() && self.memory_says_forgotten() {
            self.context.gate.change(|waiting| {
                waiting.lost.remove(uid(&desired.pod));
            });
            self.context.storage.forget(uid(&desired.pod));
            self.context.room.leave(uid(&desired.pod));
            return None;
        }
        if !desired.known && !self.gone {
            return Some(self.context.options.resync_interval);
        }
        let mut seen = match self.observe(&desired, &waiting).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(pod = full_name(&desired.pod), %error, "cannot look at the pod");
                return Some(Duration::from_secs(2));
            }
        };
        // The probes first: they know what was known of a container before this process.
        self.ask(&desired.pod, &seen);
        self.memory.probes = self.prober.views();
        seen.memory.probes.clone_from(&self.memory.probes);
        let now = self.context.clock.now();
        let sized = self.sized(&desired, &mut seen, &waiting);
        let decided = plan::plan(&sized.pod, self.gone, &seen, now);
        self.tell_waits(&desired.pod, &decided, &waiting);
        self.tell_sizes(&desired.pod, &seen, &decided);
        self.keep(&desired, &decided.status);
        self.write_status(&desired, &decided.status);
        self.start(&sized, &seen, &decided);
        self.refresh(&desired, &seen, now);
        if self.gone && !seen.containers.iter().any(is_running) && !seen.starting {
            self.context.gate.change(|waiting| {
                waiting.lost.remove(uid(&desired.pod));
            });
        }
        Some(self.pause(&decided, now))
    }

    /// New pods wait for lost ones to stop, but not for ever: one whose shim or kernel hangs must not keep the
    /// whole node from working.
    fn let_others_start(&mut self, pod: &Pod) {
        if !self.gone {
            return;
        }
        let (now, options) = (self.context.clock.now(), &self.context.options);
        let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        if self.lost.holds_others(grace, options.lost_hold, now) {
            return;
        }
        // Each complete list of the server names it again.
        let mut held = false;
        self.context.gate.change(|waiting| held = waiting.lost.remove(uid(pod)));
        if held && self.lost.is_news() {
            let message = "a pod that the server no longer has does not stop: others start all the same";
            tracing::warn!(pod = full_name(pod), "{message}");
            self.context.events.node(&options.node_name, true, "OldPodDoesNotStop", format!("{message}: {}", full_name(pod)));
        }
    }

    fn memory_says_forgotten(&self) -> bool {
        self.resting.contains_key(FORGOTTEN)
    }

    async fn observe(&mut self, desired: &Desired, waiting: &Waiting) -> Result<ObservedPod, crate::cri::CriError> {
        let mut seen = observe::observe(&self.context, &desired.pod, self.volumes_ready).await?;
        // Until its start has ended nobody has heard of its hook, and it may not answer yet.
        let starts = |container: &cri::ContainerStatus| self.under_way.contains_key(&plan::container_subject(&container.metadata.name));
        // Not an earlier one of that name, which runs on until it is stopped.
        let newest =
            |container: &&cri::ContainerStatus| seen.latest(&container.metadata.name).is_some_and(|latest| latest.id == container.id);
        let in_use = seen.sandbox().map(|sandbox| sandbox.id.as_str());
        let of_sandbox = |container: &&cri::ContainerStatus| Some(container.sandbox_id.as_str()) == in_use;
        let running = seen.containers.iter().filter(|container| is_running(container) && starts(container));
        let starting: BTreeSet<String> = running.filter(newest).filter(of_sandbox).map(|container| container.id.clone()).collect();
        for container in seen.containers.iter_mut().filter(|container| starting.contains(&container.id)) {
            container.state = ContainerState::Created;
        }
        let present: BTreeSet<&str> = seen.containers.iter().map(|container| container.id.as_str()).collect();
        self.memory.hooks.retain(|id, _| present.contains(id.as_str()));
        if desired.pod.metadata.deletion_timestamp.is_some() {
            self.memory.deletion_seen.get_or_insert_with(|| self.context.clock.now());
        }
        self.memory.evicted = self.context.storage.watch(&desired.pod, &self.wake);
        seen.memory = self.memory.clone();
        seen.last_status = observe::merge(self.own_status.as_ref(), desired.pod.status.as_ref());
        seen.starting = self.under_way.values().any(|makes| *makes);
        seen.hold = waiting.holds(uid(&desired.pod));
        Ok(seen)
    }

    /// The pod as its containers are to be: where this node has no room for what its spec says, with what they have.
    fn sized(&mut self, desired: &Desired, seen: &mut ObservedPod, waiting: &Waiting) -> Desired {
        let (pod, room) = (&desired.pod, &self.context.room);
        let amounts = |pod: &Pod| pod.spec.as_ref().map(model::requests).unwrap_or_default();
        if matches!(seen.last_status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            room.leave(uid(pod));
            return desired.clone();
        }
        let Some(has) = resize_plan::as_it_is(pod, seen) else {
            room.hold(uid(pod), amounts(pod));
            self.begin(pod, None);
            return desired.clone();
        };
        if self.gone || pod.metadata.deletion_timestamp.is_some() {
            room.hold(uid(pod), amounts(&has));
            return desired.clone();
        }
        // Until all pods of this node are known nobody knows what room there is.
        let offered = self.context.allocatable().filter(|_| !waiting.holds(uid(pod)));
        let why = offered.map(|offered| room.ask(uid(pod), (amounts(pod), amounts(&has)), &offered, &self.wake));
        seen.memory.sizing = match why {
            Some(None) => Sizing::Accepted,
            Some(Some(why)) => Sizing::Waits(why),
            None => Sizing::Unknown,
        };
        if seen.memory.sizing != Sizing::Accepted {
            return Desired { pod: Arc::new(has), ..desired.clone() };
        }
        // `seen` keeps what was begun before: that is what news are told from.
        self.begin(pod, Some(resize_events::sizes_of(pod)));
        if resize_events::is_new(pod, &seen.memory, &seen.last_status) {
            // What failed was another size.
            for memory in [&mut self.memory, &mut seen.memory] {
                memory.failures.retain(|subject, _| !matches!(subject, Subject::Resize(_)));
            }
        }
        desired.clone()
    }

    /// Remembers which sizes the pod's containers get, beyond the end of this process: the same are told of once.
    fn begin(&mut self, pod: &Pod, sizes: Option<String>) {
        if self.memory.begun == sizes {
            return;
        }
        if let Err(error) = record::note_resize(&self.context.layout.records(), uid(pod), sizes.as_deref()) {
            tracing::warn!(%error, "a resize may be told of again");
        }
        self.memory.begun = sizes;
    }

    /// Takes in what a step did.
    fn take(&mut self, done: Finished) {
        self.under_way.remove(&done.subject);
        let effects = match done.outcome {
            Ok(effects) => {
                self.resting.remove(&done.subject);
                effects
            }
            Err(cause) => {
                let now = self.context.clock.now();
                let count = self.resting.get(&done.subject).map_or(0, |(count, _)| *count) + 1;
                let rest = Duration::from_secs(1 << count.min(6));
                tracing::warn!(step = done.subject, cause, "a step failed");
                self.resting.insert(done.subject, (count, now.saturating_add(rest).unwrap_or(now)));
                Vec::new()
            }
        };
        for effect in effects {
            match effect {
                Effect::Clear(subject) => {
                    self.memory.failures.remove(&subject);
                }
                Effect::Fail { subject, reason, message } => {
                    record_failure(&mut self.memory, subject, self.context.clock.now(), &reason, message);
                }
                Effect::Pulled(container, attempt) => {
                    self.memory.pulled.retain(|(name, _)| *name != container);
                    self.memory.pulled.insert((container, attempt));
                }
                Effect::Hook(id, hook) => {
                    self.memory.hooks.insert(id, hook);
                }
                Effect::Resized(id, told) => {
                    self.memory.resized.insert(id, told);
                }
                Effect::VolumesReady => {
                    self.volumes_ready = true;
                    self.refreshed_at = self.context.clock.now();
                }
                Effect::Told(pod) => self.refreshed_for = pod,
                Effect::VolumesGone => self.volumes_ready = false,
                Effect::Gone => self.gone = true,
                Effect::Forgotten => {
                    self.resting.insert(FORGOTTEN.to_owned(), (0, self.context.clock.now()));
                }
            }
        }
    }

    /// Probes what runs.
    fn ask(&mut self, pod: &Pod, seen: &ObservedPod) {
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let own = seen.ready_sandbox().and_then(|sandbox| sandbox.ips.first().cloned());
        let address = own.filter(|_| !host_network).unwrap_or_else(|| "127.0.0.1".to_owned());
        let containers = pod.spec.iter().flat_map(model::all_containers);
        let targets: Vec<Target> = containers
            .filter_map(|container| {
                let found = seen.current(&container.name).filter(|found| is_running(found))?;
                Some(Target {
                    container: container.clone(),
                    id: found.id.clone(),
                    address: address.clone(),
                    started_at: found.started_at.unwrap_or(found.created_at),
                    known: known(seen, &container.name, &found.id),
                })
            })
            .collect();
        self.prober.sync(&targets);
    }

    /// One event for each wait that begins: after a crash, for an image that nobody may pull, for pods of before.
    fn tell_waits(&mut self, pod: &Pod, decided: &PodPlan, waiting: &Waiting) {
        let statuses = decided.status.init_container_statuses.iter().chain(&decided.status.container_statuses).flatten();
        let mut told = BTreeSet::new();
        for status in statuses {
            let Some(waiting) = status.state.as_ref().and_then(|state| state.waiting.as_ref()) else { continue };
            let Some((warning, reason, message)) = event_of_wait(&status.name, waiting) else { continue };
            let id = status.container_id.clone().unwrap_or_default();
            let key = format!("{} {reason} {id}", status.name);
            if !self.told_waits.contains(&key) {
                self.context.events.pod(pod, Some(&status.name), warning, reason, message);
                tracing::info!(pod = full_name(pod), container = status.name, wait = waiting.message, "container waits");
            }
            told.insert(key);
        }
        let held = decided.waits.iter().any(|wait| wait.reason.code == plan::HELD) && waiting.holds_for_lost(uid(pod));
        if held && told.insert(plan::HELD.to_owned()) && !self.told_waits.contains(plan::HELD) {
            let message = "pods of this node that the server no longer has are stopped first";
            self.context.events.pod(pod, None, false, "WaitingForOldPods", message);
        }
        self.told_waits = told;
    }

    /// What is news of a resize.
    fn tell_sizes(&self, pod: &Pod, seen: &ObservedPod, decided: &PodPlan) {
        if self.gone {
            return;
        }
        for News { warning, reason, message } in resize_events::news(pod, &seen.memory, &seen.last_status, &decided.status) {
            self.context.events.pod(pod, None, warning, reason, message);
        }
    }

    /// Keeps the last known pod for a start without the server.
    fn keep(&mut self, desired: &Desired, status: &PodStatus) {
        let changed = self.own_status.as_ref() != Some(status);
        self.own_status = Some(status.clone());
        if (!changed && self.kept == desired.pod.metadata.resource_version) || self.gone {
            return;
        }
        let mut pod = (*desired.pod).clone();
        pod.status = Some(status.clone());
        if let Err(error) = record::save(&self.context.layout.records(), &pod) {
            tracing::warn!(%error, "the pod's record is not kept");
        }
        self.kept = desired.pod.metadata.resource_version.clone();
    }

    fn write_status(&mut self, desired: &Desired, status: &PodStatus) {
        if self.gone {
            return;
        }
        if self.list != desired.list || self.written.version.is_none() {
            // After each complete list in any case: the server's versions may have begun anew.
            self.list = desired.list;
            self.written.base(&desired.pod);
        }
        self.written.take();
        self.written.hear(&desired.pod);
        let subject = "status".to_owned();
        let same = self.written.status.as_ref().is_some_and(|old| !status::differs(old, status));
        if same || self.under_way.contains_key(&subject) || self.rests(&subject) {
            return;
        }
        let (context, pod, status, finish) = (self.context.clone(), desired.pod.clone(), status.clone(), self.finish.clone());
        let written = self.written.shared.clone();
        self.under_way.insert(subject.clone(), false);
        self.steps.spawn(async move {
            let outcome = status_writer::write(&context, &pod, &status, &written).await;
            // The worker is gone: nobody needs the outcome.
            finish.send(Finished { subject, outcome }).ok();
        });
    }

    fn rests(&self, subject: &str) -> bool {
        self.resting.get(subject).is_some_and(|(_, until)| *until > self.context.clock.now())
    }

    /// Starts the steps that are not under way.
    fn start(&mut self, desired: &Desired, seen: &ObservedPod, decided: &PodPlan) {
        let pod_ips = decided.status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
        let scene = Scene { pod: desired.pod.clone(), pod_ips };
        for step in &decided.steps {
            let subject = step.subject();
            if self.under_way.contains_key(&subject) || self.rests(&subject) {
                continue;
            }
            if *step == Step::FinishDeletion && !self.status_is_written(&decided.status) {
                continue;
            }
            if matches!(step, Step::RunSandbox { .. }) && seen.starting {
                continue;
            }
            self.tell_of_step(&desired.pod, step);
            self.under_way.insert(subject.clone(), step.makes());
            let (context, scene, step, finish) = (self.context.clone(), scene.clone(), step.clone(), self.finish.clone());
            self.steps.spawn(async move {
                tracing::debug!(pod = full_name(&scene.pod), ?step, "step");
                let outcome = act::act(&context, &scene, &step).await;
                finish.send(Finished { subject, outcome }).ok();
            });
        }
    }

    /// What the kubelet says before it takes a step.
    fn tell_of_step(&self, pod: &Pod, step: &Step) {
        match step {
            Step::RunSandbox { after: Some(_), .. } => {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.context.events.pod(pod, None, false, "SandboxChanged", message);
            }
            Step::CreateContainer { name, attempt, .. } if !self.memory.pulled.contains(&(name.clone(), *attempt)) => {
                let container = pod.spec.as_ref().and_then(|spec| model::any_container(spec, name));
                let image = container.and_then(|container| container.image.clone()).unwrap_or_default();
                let message = format!("Container image \"{image}\" already present on machine");
                self.context.events.pod(pod, Some(name), false, "Pulled", message);
            }
            _ => {}
        }
    }

    /// The last status reaches the server before the pod is deleted there; a server that refuses it does
    /// not hold up the deletion for ever.
    fn status_is_written(&self, status: &PodStatus) -> bool {
        let tried = self.resting.get("status").is_some_and(|(count, _)| *count >= 3);
        tried || self.written.status.as_ref().is_some_and(|old| !status::differs(old, status))
    }

    /// Mounted ConfigMaps and Secrets are looked at now and then, what tells of the pod when it has changed.
    fn refresh(&mut self, desired: &Desired, seen: &ObservedPod, now: Timestamp) {
        let Some(spec) = &desired.pod.spec else { return };
        let namespace = desired.pod.metadata.namespace.as_deref().unwrap_or_default();
        let names = Names::of_volumes(&desired.pod);
        let subject = "refresh".to_owned();
        let meta = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        let tells = plan_of_volumes::tells_of_pod(spec);
        let told_otherwise = tells && meta(&desired.pod) != meta(&self.refreshed_for);
        let due = told_otherwise
            || now.duration_since(self.refreshed_at)
                >= jiff::SignedDuration::try_from(self.refresh_interval(&desired.pod)).unwrap_or_default();
        let idle = !self.volumes_ready || seen.ready_sandbox().is_none() || self.gone || self.under_way.contains_key("volumes");
        if !due || idle || self.under_way.contains_key(&subject) || self.rests(&subject) {
            return;
        }
        for container in model::each_container(spec) {
            self.context.references.keep(namespace, &Names::of_environment(&container));
        }
        self.refreshed_at = now;
        if names.is_empty() && !tells {
            self.refreshed_for = desired.pod.clone();
            return;
        }
        let (context, pod, finish) = (self.context.clone(), desired.pod.clone(), self.finish.clone());
        self.under_way.insert(subject.clone(), true);
        self.steps.spawn(async move {
            let outcome = match act::refresh_volumes(&context, &pod).await {
                Ok(()) => Ok(vec![Effect::Told(pod)]),
                Err(act::Refresh::Away(cause) | act::Refresh::Broken(cause)) => Err(format!("{}: {cause}", full_name(&pod))),
            };
            finish.send(Finished { subject, outcome }).ok();
        });
    }

    /// Spread by UID, so that pods of one node do not ask together.
    fn refresh_interval(&self, pod: &Pod) -> Duration {
        let spread = uid(pod).bytes().map(u64::from).sum::<u64>() % 16;
        self.context.options.refresh_interval.mul_f64(1.0 + f64::from(u32::try_from(spread).unwrap_or(0)) / 64.0)
    }

    fn pause(&self, decided: &PodPlan, now: Timestamp) -> Duration {
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default().max(Duration::from_millis(5));
        let rests = self.resting.iter().filter(|(subject, _)| *subject != FORGOTTEN).map(|(_, (_, at))| *at).filter(|at| *at > now);
        let next = rests.chain(decided.again_at).min().map(until);
        next.unwrap_or(self.context.options.resync_interval).min(self.context.options.resync_interval)
    }
}

/// Whether it is a warning, its reason and its message, in the kubelet's words.
fn event_of_wait(container: &str, waiting: &ContainerStateWaiting) -> Option<(bool, &'static str, String)> {
    match waiting.reason.as_deref()? {
        "CrashLoopBackOff" => Some((true, "BackOff", format!("Back-off restarting failed container {container}"))),
        "ErrImageNeverPull" => Some((true, "ErrImageNeverPull", waiting.message.clone().unwrap_or_default())),
        _ => None,
    }
}

const FORGOTTEN: &str = "forgotten";

/// What was known of a container before this process: it stays ready until a probe says otherwise.
fn known(seen: &ObservedPod, name: &str, id: &str) -> ProbeView {
    let all = seen.last_status.init_container_statuses.iter().chain(&seen.last_status.container_statuses).flatten();
    // Whatever it was called before: earlier versions knew one scheme.
    let own = |told: &str| told.split_once("://").is_some_and(|(_, told)| told == id);
    let last = all.into_iter().find(|status| status.name == name && status.container_id.as_deref().is_some_and(own));
    match last {
        Some(last) => ProbeView { startup: last.started.filter(|started| *started), live: None, ready: last.ready.then_some(true) },
        None => ProbeView::default(),
    }
}
