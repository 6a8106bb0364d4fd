//! Carries out one step and says what came of it. Chooses nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, PodSpec};
use kube::api::{DeleteParams, Preconditions};

use super::config;
use super::context::Context;
use super::env::Surroundings;
use super::objects::Objects;
use super::observed::{Hook, ProbeView, Subject, full_name, is_running, uid};
use super::plan::{Grace, Step};
use super::probe::{self, Target};
use super::status_writer::still_there;
use super::volume::plan::Names;
use super::{beneath, failure_text, ids, machine, pull, record, resources, security, volume};
use crate::cri::{ContainerConfig, CriError, IdRange, Resources, Seccomp};
use crate::model::volume::claims;
use crate::model::{Timestamp, pod as model};
use crate::plan::Reason;

/// What a step changes in the worker's memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// It worked: earlier failures are forgotten.
    Clear(Subject),
    Fail {
        subject: Subject,
        reason: String,
        message: String,
    },
    Pulled(String, u32),
    Hook(String, Hook),
    /// A container's id, and the resources it has now.
    Resized(String, String),
    VolumesReady,
    /// The volumes tell of the pod as it is here.
    Told(Arc<Pod>),
    VolumesGone,
    /// The server has no such pod any more.
    Gone,
    /// Nothing is left of it.
    Forgotten,
}

/// What a step needs to know besides itself.
#[derive(Clone, Debug)]
pub struct Scene {
    pub pod: Arc<Pod>,
    pub pod_ips: Vec<String>,
}

type Outcome = Result<Vec<Effect>, String>;

/// Carries it out. The error is of a step that the plan does not back off by itself.
pub async fn act(context: &Context, scene: &Scene, step: &Step) -> Outcome {
    match step {
        Step::PrepareVolumes => Ok(prepare_volumes(context, scene).await),
        Step::TearDownVolumes => tear_down(context, scene).await,
        Step::RunSandbox { attempt, after } => Ok(run_sandbox(context, scene, *attempt, after.as_deref()).await),
        Step::PullImage { owner, image, attempt } => Ok(pull::pull(context, scene, owner, image, *attempt).await),
        Step::CreateContainer { name, attempt, sandbox, delay } => Ok(create(context, scene, name, (*attempt, *delay), sandbox).await),
        Step::StartContainer { name, id } => Ok(start(context, scene, name, id).await),
        Step::RunHook { name, id } => Ok(post_start(context, scene, name, id).await),
        Step::StopContainer { name, id, grace, reason } => stop(context, scene, name, id, *grace, reason).await,
        Step::Resize { name, id } => Ok(resize(context, scene, name, id).await),
        Step::RemoveContainer { id } => plain(context.runtime.remove_container(id).await),
        Step::StopSandbox { id } => plain(context.runtime.stop_pod_sandbox(id).await),
        Step::RemoveSandbox { id } => plain(context.runtime.remove_pod_sandbox(id).await),
        Step::FinishDeletion => finish(context, scene).await,
        Step::Forget => forget(context, scene),
    }
}

fn plain(result: Result<(), CriError>) -> Outcome {
    result.map(|()| Vec::new()).map_err(|error| error.to_string())
}

pub(super) fn failure(subject: Subject, reason: &str, message: impl Into<String>) -> Vec<Effect> {
    vec![Effect::Fail { subject, reason: reason.to_owned(), message: message.into() }]
}

async fn prepare_volumes(context: &Context, scene: &Scene) -> Vec<Effect> {
    match refresh_volumes(context, &scene.pod).await {
        Ok(()) => vec![Effect::Clear(Subject::Volumes), Effect::VolumesReady, Effect::Told(scene.pod.clone())],
        Err(Refresh::Away(cause)) if volume::complete(&scene.pod, &context.layout) => {
            // The server is away and the files are there from before: go on with them.
            tracing::warn!(pod = full_name(&scene.pod), cause, "volumes are used as they were left");
            vec![Effect::Clear(Subject::Volumes), Effect::VolumesReady]
        }
        Err(Refresh::Away(cause) | Refresh::Broken(cause)) => {
            context.events.pod(&scene.pod, None, true, "FailedMount", cause.clone());
            failure(Subject::Volumes, "FailedMount", cause)
        }
    }
}

/// Why volumes could not be brought up to date.
pub enum Refresh {
    /// It is not known what they should hold.
    Away(String),
    Broken(String),
}

/// Makes volumes be as the server's objects say: each that can be, whatever keeps another from it.
pub async fn refresh_volumes(context: &Context, pod: &Arc<Pod>) -> Result<(), Refresh> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let kept = volume::found(pod, &context.layout);
    let mut names = Names::of_volumes(pod);
    for claimed in claims(pod).filter(|claimed| kept.contains(claimed.volume)) {
        names.claims.remove(&claimed.claim);
    }
    let references = context.references.fetch(namespace, &names).await;
    let references = references.map_err(|error| Refresh::Away(error.to_string()))?;
    let node = context.node();
    let made = context.layout.made_volumes();
    let (references, machine) = (&references, &context.machine);
    let ground = volume::plan::Ground { references, machine, kept: &kept, node: node.as_ref(), made: &made };
    let (volumes, unplanned) = volume::plan::possible(pod, ground);
    let (pod, layout) = (pod.clone(), context.layout.clone());
    let prepared = tokio::task::spawn_blocking(move || {
        let users = has_own_users(&pod).then(|| ids::of_pod(&layout, uid(&pod))).transpose();
        volume::prepare(&pod, &volumes, &layout, users.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    });
    match prepared.await {
        Ok(Ok(())) => unplanned.map_or(Ok(()), |error| Err(Refresh::Broken(error.to_string()))),
        Ok(Err(cause)) => Err(Refresh::Broken(cause)),
        Err(panic) => Err(Refresh::Broken(panic.to_string())),
    }
}

async fn tear_down(context: &Context, scene: &Scene) -> Outcome {
    let (layout, uid) = (context.layout.clone(), uid(&scene.pod).to_owned());
    let done = tokio::task::spawn_blocking(move || volume::tear_down(&layout, &uid)).await;
    match done {
        Ok(Ok(())) => Ok(vec![Effect::VolumesGone]),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}

async fn run_sandbox(context: &Context, scene: &Scene, attempt: u32, after: Option<&str>) -> Vec<Effect> {
    let mut config = config::sandbox(&scene.pod, attempt, &context.layout, &context.dns(), &context.options.node_name);
    let class = scene.pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).filter(|name| !name.is_empty());
    let run = async {
        if let Some(class) = class {
            let handler = context.references.handler(class).await;
            config.runtime_handler = handler.map_err(|error| CriError::failed("choose the pod's runtime", error))?;
        }
        config.users = users(context, &scene.pod, &config.runtime_handler).await?;
        if let Some(dead) = after {
            context.runtime.stop_pod_sandbox(dead).await?;
        }
        context.runtime.run_pod_sandbox(&config).await
    };
    match run.await {
        Ok(id) => {
            tracing::info!(pod = full_name(&scene.pod), sandbox = id, attempt, "sandbox runs");
            vec![Effect::Clear(Subject::Sandbox)]
        }
        Err(error) => {
            tracing::debug!(pod = full_name(&scene.pod), attempt, %error, "no sandbox");
            let cause = failure_text::steady(&error.to_string(), uid(&scene.pod));
            context.events.pod(&scene.pod, None, true, "FailedCreatePodSandBox", cause.clone());
            failure(Subject::Sandbox, "FailedCreatePodSandBox", cause)
        }
    }
}

/// The ids of a pod's own user namespace, if it is to have one.
async fn users(context: &Context, pod: &Pod, handler: &str) -> Result<Option<IdRange>, CriError> {
    if !has_own_users(pod) {
        return Ok(None);
    }
    let attempt = || "make a user namespace for the pod".to_owned();
    if !context.runtime.features(handler).await?.user_namespaces {
        return Err(CriError::failed(attempt(), "this node's runtime cannot, or its kernel: see the node's conditions"));
    }
    let (layout, uid) = (context.layout.clone(), uid(pod).to_owned());
    let chosen = tokio::task::spawn_blocking(move || ids::of_pod(&layout, &uid)).await;
    chosen.map_err(|panic| CriError::failed(attempt(), panic))?.map(Some).map_err(|error| CriError::failed(attempt(), error))
}

fn has_own_users(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_users == Some(false))
}

/// What depends on what the runtime can do, and on the ids that the pod has.
async fn suit(context: &Context, pod: &Pod, container: &Container, config: &mut ContainerConfig, sandbox: &str) -> Result<(), String> {
    let deep = config.mounts.iter().any(|mount| mount.recursive_readonly);
    if deep || config.security.strict_groups {
        // Not known is not no: it is asked again.
        let told = async { context.runtime.features(&context.runtime.pod_sandbox_status(sandbox).await?.runtime_handler).await };
        let can = told.await.map_err(|error: CriError| error.to_string())?;
        if config.security.strict_groups && !can.supplemental_groups_policy {
            return Err("supplementalGroupsPolicy: this node's runtime does not know the policy `Strict`".to_owned());
        }
        for mount in config.mounts.iter_mut().filter(|_| !can.recursive_read_only_mounts) {
            mount.recursive_readonly = false;
        }
        let must = container.volume_mounts.iter().flatten().find(|mount| mount.recursive_read_only.as_deref() == Some("Enabled"));
        if let (Some(mount), false) = (must, can.recursive_read_only_mounts) {
            return Err(format!("volume {}: this node's runtime has no recursive read-only mounts", mount.name));
        }
    }
    if let Seccomp::Localhost(path) = &config.security.seccomp {
        let dir = context.layout.seccomp();
        let opened = beneath::top(&dir).and_then(|top| beneath::within(&top, path.strip_prefix(&dir).unwrap_or(path)));
        opened.map_err(|cause| format!("cannot load seccomp profile {}: {cause}", path.display()))?;
    }
    if has_own_users(pod) {
        let range = ids::recorded(&context.layout, uid(pod)).map_err(|error| error.to_string())?;
        let range = range.ok_or("the ids of the pod's user namespace are not on record any more")?;
        let names = container.volume_mounts.iter().flatten().map(|mount| &mount.name);
        for (mount, name) in config.mounts.iter_mut().zip(names) {
            mount.ids = (!volume::has_hosts_ids(&context.layout, uid(pod), name, range)).then_some(range);
        }
    }
    Ok(())
}

async fn create(context: &Context, scene: &Scene, name: &str, (attempt, delay): (u32, u32), sandbox: &str) -> Vec<Effect> {
    let subject = || Subject::Container(name.to_owned());
    let config = match container_config(context, scene, name, (attempt, delay), sandbox).await {
        Ok(config) => config,
        Err(cause) => {
            context.events.pod(&scene.pod, Some(name), true, "Failed", format!("Error: {cause}"));
            return failure(subject(), "CreateContainerConfigError", cause);
        }
    };
    let id = match context.runtime.create_container(sandbox, &config).await {
        Ok(id) => id,
        Err(error) => {
            let cause = named(&error, sandbox, scene.pod.metadata.name.as_deref().unwrap_or_default());
            context.events.pod(&scene.pod, Some(name), true, "Failed", format!("Error: {cause}"));
            return failure(subject(), "CreateContainerError", cause);
        }
    };
    context.events.pod(&scene.pod, Some(name), false, "Created", format!("Created container: {name}"));
    start(context, scene, name, &id).await
}

/// The container's configuration.
///
/// # Errors
/// What it refers to is not there; the text is for a person and holds no values.
async fn container_config(
    context: &Context,
    scene: &Scene,
    name: &str,
    (attempt, delay): (u32, u32),
    sandbox: &str,
) -> Result<ContainerConfig, String> {
    let pod = &scene.pod;
    let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
    let container = &*model::any_container(spec, name).ok_or_else(|| format!("the pod has no container {name}"))?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let references = context.references.fetch(namespace, &Names::of_environment(container)).await.map_err(|error| error.to_string())?;
    let image = container.image.as_deref().unwrap_or_default();
    let image = context.images.image_status(image).await.map_err(|error| error.to_string())?;
    let host = security::Host { seccomp_dir: &context.layout.seccomp(), has_apparmor: machine::has_apparmor() };
    let mut security = security::context(spec, container, image.as_ref(), host)?;
    security.processes_of = target_of(context, spec, name, sandbox).await?;
    let services = context.cluster.read(|view| view.services.clone());
    let host_ips = context.host_ips();
    let around = Surroundings {
        pod,
        references: &references,
        services: &services,
        pod_ips: &scene.pod_ips,
        host_ips: &host_ips,
        allocatable: &context.machine,
    };
    let envs = super::env::environment(container, &around).map_err(|error| error.to_string())?;
    let (shared, of, layout) = (pod.clone(), container.clone(), context.layout.clone());
    let found = tokio::task::spawn_blocking(move || {
        let devices = volume::devices(&shared, &of, &layout)?;
        Ok::<_, volume::MountError>((volume::mount_paths(&shared, &of, &envs, &layout)?, devices))
    });
    let (mounts, devices) = found.await.map_err(|panic| panic.to_string())?.map_err(|error| error.to_string())?;
    let parts = config::Parts { attempt, delay, mounts: &mounts, security, around: &around, machine: &context.machine };
    let mut config = config::container(pod, container, &parts).map_err(|error| error.to_string())?;
    config.devices = devices;
    suit(context, pod, container, &mut config, sandbox).await?;
    Ok(config)
}

/// The running container whose processes an ephemeral one is to see; empty: as the pod has it.
async fn target_of(context: &Context, spec: &PodSpec, name: &str, sandbox: &str) -> Result<String, String> {
    let ephemeral = spec.ephemeral_containers.iter().flatten().find(|it| it.name == name);
    let target = ephemeral.and_then(|it| it.target_container_name.as_deref()).filter(|target| !target.is_empty());
    let Some(target) = target else { return Ok(String::new()) };
    let all = context.runtime.list_containers().await.map_err(|error| error.to_string())?;
    let mut running = all.into_iter().filter(|it| it.sandbox_id == sandbox && it.metadata.name == target && is_running(it));
    running.next().map(|it| it.id).ok_or_else(|| format!("the target container {target} does not run"))
}

async fn start(context: &Context, scene: &Scene, name: &str, id: &str) -> Vec<Effect> {
    let subject = Subject::Container(name.to_owned());
    let has_hook = lifecycle(&scene.pod, name, |lifecycle| lifecycle.post_start.clone()).is_some();
    let started = async {
        heed_stop_signal(context, scene, name, id).await?;
        context.runtime.start_container(id).await
    };
    match started.await {
        Ok(()) => {
            tracing::info!(pod = full_name(&scene.pod), container = name, id, "container started");
            context.events.pod(&scene.pod, Some(name), false, "Started", format!("Started container {name}"));
            let hook = if has_hook { Hook::Pending } else { Hook::Done };
            vec![Effect::Clear(subject), Effect::Hook(id.to_owned(), hook)]
        }
        Err(error) => {
            let cause = named(&error, id, name);
            context.events.pod(&scene.pod, Some(name), true, "Failed", format!("Error: {cause}"));
            failure(subject, "RunContainerError", cause)
        }
    }
}

/// A runtime's error with the name of what it is about in place of the id, which is another one at each try: so that the
/// same failure is the same text, and its event counts.
fn named(error: &CriError, id: &str, name: &str) -> String {
    error.to_string().replace(id, name)
}

/// A runtime that takes no notice of a container's stop signal (CRI has it since Kubernetes 1.33) does not tell of it either:
/// then there is to be no such container. Asked before every start; without an answer none is started.
async fn heed_stop_signal(context: &Context, scene: &Scene, name: &str, id: &str) -> Result<(), CriError> {
    let wanted = lifecycle(&scene.pod, name, |lifecycle| lifecycle.stop_signal.clone()).unwrap_or_default();
    if wanted.is_empty() || !context.runtime.container_status(id).await?.stop_signal.is_empty() {
        return Ok(());
    }
    context.runtime.remove_container(id).await?;
    Err(CriError::Invalid("stopSignal: this node's runtime takes no notice of it".to_owned()))
}

async fn resize(context: &Context, scene: &Scene, name: &str, id: &str) -> Vec<Effect> {
    let subject = Subject::Resize(name.to_owned());
    let Some((spec, container)) = scene.pod.spec.as_ref().and_then(|spec| Some((spec, model::container(spec, name)?))) else {
        return vec![Effect::Clear(subject)];
    };
    let (of_pod, own) = (resources::pod(spec), resources::container(spec, container, &context.machine));
    // Nothing else of it changes while it runs.
    let own = Resources {
        cpu_period: own.cpu_period,
        cpu_quota: own.cpu_quota,
        cpu_shares: own.cpu_shares,
        memory_limit_bytes: own.memory_limit_bytes,
        ..Resources::default()
    };
    let given = async {
        let sandbox = context.runtime.container_status(id).await?.sandbox_id;
        // Before its containers where the pod is given more, after them where it is given less.
        let whole = context.runtime.update_pod_sandbox_resources(&sandbox, &of_pod).await;
        context.runtime.update_container_resources(id, &own).await?;
        match whole {
            // Runtimes before CRI 1.33 leave a pod's own cgroup alone.
            Ok(()) | Err(CriError::Unsupported(_)) => Ok(()),
            Err(_) => context.runtime.update_pod_sandbox_resources(&sandbox, &of_pod).await,
        }
    };
    match given.await {
        Ok(()) => {
            tracing::info!(pod = full_name(&scene.pod), container = name, id, "container was given other resources");
            vec![Effect::Clear(subject), Effect::Resized(id.to_owned(), resources::told(container))]
        }
        Err(error) => {
            // Its event is told of the status: `resize_events`.
            failure(subject, "Error", named(&error, id, name))
        }
    }
}

fn lifecycle<T>(pod: &Pod, name: &str, pick: impl FnOnce(&k8s_openapi::api::core::v1::Lifecycle) -> Option<T>) -> Option<T> {
    pick(model::container(pod.spec.as_ref()?, name)?.lifecycle.as_ref()?)
}

fn target(context: &Context, scene: &Scene, container: &Container, id: &str) -> Target {
    let host_network = scene.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let own = if host_network { None } else { scene.pod_ips.first().cloned() };
    Target {
        container: container.clone(),
        id: id.to_owned(),
        address: own.unwrap_or_else(|| "127.0.0.1".to_owned()),
        started_at: context.clock.now(),
        known: ProbeView::default(),
    }
}

async fn run_hook(
    context: &Context,
    scene: &Scene,
    name: &str,
    id: &str,
    handler: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let spec = scene.pod.spec.as_ref();
    let container = spec.and_then(|spec| model::container(spec, name)).ok_or("the pod has no such container")?;
    probe::hook(&*context.runtime, &target(context, scene, container, id), handler, limit).await
}

/// postStart has no limit of its own in Kubernetes; an hour bounds what is plainly stuck.
const LONGEST_HOOK: Duration = Duration::from_secs(3600);

async fn post_start(context: &Context, scene: &Scene, name: &str, id: &str) -> Vec<Effect> {
    let Some(handler) = lifecycle(&scene.pod, name, |lifecycle| lifecycle.post_start.clone()) else {
        return vec![Effect::Hook(id.to_owned(), Hook::Done)];
    };
    match run_hook(context, scene, name, id, &handler, LONGEST_HOOK).await {
        Ok(()) => vec![Effect::Hook(id.to_owned(), Hook::Done)],
        Err(cause) => {
            let message = format!("PostStartHook failed: {cause}");
            context.events.pod(&scene.pod, Some(name), true, "FailedPostStartHook", message.clone());
            vec![Effect::Hook(id.to_owned(), Hook::Failed(message))]
        }
    }
}

/// Even a deadline that has passed leaves a container this long after its stop signal.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// What is left of a grace that began then.
fn left(grace: Grace, began: Timestamp, now: Timestamp) -> Duration {
    match grace {
        Grace::Until(at) => Duration::try_from(at.duration_since(now)).unwrap_or_default(),
        Grace::Seconds(seconds) => {
            let spent = Duration::try_from(now.duration_since(began)).unwrap_or_default();
            Duration::from_secs(u64::from(seconds)).saturating_sub(spent)
        }
    }
}

/// As the kubelet says it: the cause only where the container is to run again.
fn killing(name: &str, why: &Reason) -> String {
    match why.code {
        "Killing" | "SandboxChanged" => format!("Stopping container {name}"),
        _ => why.message.clone(),
    }
}

async fn stop(context: &Context, scene: &Scene, name: &str, id: &str, grace: Grace, why: &Reason) -> Outcome {
    let began = context.clock.now();
    tracing::info!(pod = full_name(&scene.pod), container = name, id, why = why.message, "stopping container");
    context.events.pod(&scene.pod, Some(name), false, "Killing", killing(name, why));
    let first = left(grace, began, began);
    let hook = lifecycle(&scene.pod, name, |lifecycle| lifecycle.pre_stop.clone());
    if let Some(handler) = hook.filter(|_| !first.is_zero())
        && let Err(cause) = run_hook(context, scene, name, id, &handler, first).await
    {
        context.events.pod(&scene.pod, Some(name), true, "FailedPreStopHook", format!("PreStopHook failed: {cause}"));
    }
    let rest = left(grace, began, context.clock.now()).max(LEAST_GRACE);
    match tokio::time::timeout(rest + LONGEST_KILL, context.runtime.stop_container(id, rest)).await {
        Ok(stopped) => plain(stopped),
        Err(_) => Err(format!("the runtime does not answer about container {id}")),
    }
}

/// How long the runtime may take over a kill before it is asked again.
const LONGEST_KILL: Duration = Duration::from_secs(60);

async fn finish(context: &Context, scene: &Scene) -> Outcome {
    let meta = &scene.pod.metadata;
    let api: Objects<Pod> = Objects::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
        Ok(_) => {
            tracing::info!(pod = full_name(&scene.pod), "pod is deleted");
            Ok(vec![Effect::Gone])
        }
        // Gone, or another pod has the name now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && matches!(still_there(&api, &scene.pod).await, Ok(None)) => {
            Ok(vec![Effect::Gone])
        }
        Err(cause) => Err(format!("delete pod {}: {cause}", full_name(&scene.pod))),
    }
}

fn forget(context: &Context, scene: &Scene) -> Outcome {
    let meta = &scene.pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let logs = context.layout.logs(&text(&meta.namespace), &text(&meta.name), &text(&meta.uid));
    if let Err(error) = std::fs::remove_dir_all(&logs)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(format!("delete {}: {error}", logs.display()));
    }
    record::forget(&context.layout.records(), uid(&scene.pod)).map_err(|error| error.to_string())?;
    Ok(vec![Effect::Forgotten])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_spent_on_this_nodes_clock() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let seconds = |grace, now| left(grace, at(100), at(now)).as_secs();
        assert_eq!([100, 103, 105, 200].map(|now| seconds(Grace::Seconds(5), now)), [5, 2, 0, 0]);
        assert_eq!([100, 103, 105, 200].map(|now| seconds(Grace::Until(at(105)), now)), [5, 2, 0, 0]);
        assert_eq!(seconds(Grace::Seconds(5), 90), 5, "a clock that was set back");
    }
}
