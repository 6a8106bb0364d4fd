//! The engine itself: what it knows, and how it hears of ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use super::apparmor::{self, Confinement};
use super::cgroup::Tree;
use super::container::Container;
use super::log_maker::LogMaker;
use super::oci::handler::{self, OWN};
use super::record::{self, ContainerRecord, Phase};
use super::sandbox::Sandbox;
use super::shim::{self, Program};
use super::wire::{Exit, Exited, MESSAGE_LIMIT_BYTES, Request, Response, Watch, Wire};
use super::writable::Layers;
use super::{Options, Rootfs, RuntimeError, image_volume};
use crate::cri::{
    ContainerConfig, ContainerMetadata, ContainerStats, ContainerStatus, CriError, Duplex, ExecOutput, ExecRequest, ExecSession, Features,
    Figure, PodSandbox, PodSandboxConfig, PodSandboxMetadata, PodSandboxStats, Resources, Runtime, RuntimeCondition, RuntimeEvent,
};
use crate::network::PodNetwork;

/// Who asks for figures waits so long for large layers to be counted.
const COUNT_PATIENCE: Duration = Duration::from_millis(200);

/// Our container runtime. Dropping it leaves everything running.
pub struct Engine {
    inner: Arc<Inner>,
}

/// What verbs and listeners share.
pub(super) struct Inner {
    pub options: Options,
    pub cgroups: Tree,
    pub rootfs: Arc<dyn Rootfs>,
    pub network: Arc<dyn PodNetwork>,
    pub program: Program,
    pub boot_id: String,
    pub seccomp: Mutex<BTreeMap<u64, Arc<Vec<u8>>>>,
    /// The CPU share that all burstable pods have together; none: not set yet.
    pub burstable: Mutex<Option<u64>>,
    /// What pods with user namespaces of their own can have here.
    pub users: OnceLock<Result<(), String>>,
    pub confinement: Confinement,
    pub log_maker: LogMaker,
    table: Mutex<Table>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Ended with the engine.
    listeners: Mutex<JoinSet<()>>,
    /// What is known of writable layers, and whether somebody is at it.
    layers: Mutex<Layers>,
    pub counting: Mutex<()>,
    /// One record that others may change is written at a time, so that the last one written is the latest.
    pub saving: Mutex<()>,
    /// What is being made right now.
    reserved: Mutex<BTreeSet<Name>>,
}

/// What only one of may be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Sandbox(PodSandboxMetadata),
    Container(String, ContainerMetadata),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox(pod) => write!(f, "sandbox {} of pod {}/{} ({})", pod.attempt, pod.namespace, pod.name, pod.uid),
            Self::Container(sandbox, one) => write!(f, "container {} ({}) in sandbox {sandbox}", one.name, one.attempt),
        }
    }
}

/// A name is taken as long as this lives.
pub(super) struct Reserved<'a>(&'a Inner, Name);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.reserved.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Every sandbox and container, by id.
#[derive(Default)]
pub(super) struct Table {
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
}

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    let inner = inner.clone();
    let done = tokio::task::spawn_blocking(move || work(&inner)).await;
    done.unwrap_or_else(|error| Err(CriError::failed("run a step of the engine", error).into()))
}

impl Engine {
    /// Opens the engine on what earlier ones left: live shims are taken over, dead ones are seen as such,
    /// half-made sandboxes and containers are undone.
    pub async fn open(options: Options, rootfs: Arc<dyn Rootfs>, network: Arc<dyn PodNetwork>) -> Result<Self, RuntimeError> {
        for dir in [options.root_dir.join("sandboxes"), options.run_dir.join("sandboxes"), options.trash_dir()] {
            std::fs::create_dir_all(&dir).map_err(RuntimeError::file("make the directory", &dir))?;
            private(&dir)?;
        }
        let inner = Arc::new(Inner {
            cgroups: Tree::detect(&options.cgroup_root)?,
            program: Program::load(&options.shim_path)?,
            boot_id: record::boot_id(),
            rootfs,
            network,
            options,
            seccomp: Mutex::default(),
            burstable: Mutex::default(),
            users: OnceLock::new(),
            confinement: Confinement::default(),
            log_maker: LogMaker::default(),
            table: Mutex::default(),
            events: broadcast::channel(4096).0,
            listeners: Mutex::default(),
            layers: Mutex::default(),
            counting: Mutex::default(),
            saving: Mutex::default(),
            reserved: Mutex::default(),
        });
        for entry in std::fs::read_dir(inner.options.trash_dir()).into_iter().flatten().flatten() {
            inner.delete_later(entry.path());
        }
        for lack in handler::lacks(&inner.options.handlers) {
            tracing::warn!("{lack}");
        }
        inner.clone().find_again().await?;
        {
            let table = inner.table();
            inner.rootfs.release_others(&|holder| table.containers.contains_key(image_volume::container_of(holder)))?;
        }
        Ok(Self { inner })
    }

    async fn count_layers(&self) {
        let counted = blocking(&self.inner, |inner| {
            inner.count_layers();
            Ok(())
        });
        // It goes on without us, for who asks next.
        tokio::time::timeout(COUNT_PATIENCE, counted).await.ok();
    }

    /// Stops and removes every sandbox this engine knows, one after the other.
    pub async fn remove_all(&self) -> Result<(), CriError> {
        let ids: Vec<String> = self.inner.table().sandboxes.keys().cloned().collect();
        for id in ids {
            self.remove_pod_sandbox(&id).await?;
        }
        Ok(())
    }
}

fn private(dir: &std::path::Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, mode).map_err(RuntimeError::file("close to others", dir))
}

impl Inner {
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for what is to be made; refused while another of that name is there or in the making.
    pub fn reserve(&self, name: Name) -> Result<Reserved<'_>, RuntimeError> {
        let taken = |by: &str| RuntimeError::from(CriError::Exists(format!("{name} is there already: {by}")));
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let known = match &name {
            Name::Sandbox(pod) => table.sandboxes.values().find(|one| one.record.config.metadata == *pod).map(|one| &one.record.id),
            Name::Container(sandbox, metadata) => {
                let of_it = table.containers.values().filter(|one| one.record.sandbox_id == *sandbox);
                of_it.map(|one| &one.record).find(|one| one.config.metadata == *metadata).map(|one| &one.id)
            }
        };
        if let Some(id) = known {
            return Err(taken(id));
        }
        if !reserved.insert(name.clone()) {
            return Err(taken("it is being made"));
        }
        Ok(Reserved(self, name))
    }

    /// Tells listeners about a sandbox, or one of its containers.
    pub fn say(&self, sandbox_id: &str, container_id: &str) {
        let pod_uid = {
            let table = self.table();
            table.sandboxes.get(sandbox_id).map(|s| s.record.config.metadata.uid.clone()).unwrap_or_default()
        };
        self.tell(RuntimeEvent { sandbox_id: sandbox_id.into(), pod_uid, container_id: container_id.into() });
    }

    pub fn tell(&self, event: RuntimeEvent) {
        // Nobody listening is fine.
        self.events.send(event).ok();
    }

    /// A connection on which the shim tells ends. Before anything is asked, so that none is missed.
    pub fn watch_connection(&self, id: &str) -> Result<UnixStream, RuntimeError> {
        let request = Request::from(Watch {});
        Ok(shim::ask(&self.options.sandbox_run_dir(id), &request, &[])?.socket)
    }

    /// Hears the shim of a sandbox until it is gone.
    pub fn listen(self: &Arc<Self>, id: &str, connection: UnixStream) -> Result<(), RuntimeError> {
        let fail = |cause: io::Error| CriError::failed(format!("listen to the shim of sandbox {id}"), cause);
        connection.set_nonblocking(true).map_err(fail)?;
        let stream = tokio::net::UnixStream::from_std(connection).map_err(fail)?;
        let (weak, id) = (Arc::downgrade(self), id.to_owned());
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended.
        while listeners.try_join_next().is_some() {}
        listeners.spawn(hear(weak, id, stream));
        Ok(())
    }

    /// Does something beside the verbs, as long as there is an engine.
    pub fn attend(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).spawn(work);
    }

    /// Whether a container has no PID namespace whose end takes everything with it.
    pub fn shares_processes(&self, sandbox_id: &str, id: &str) -> bool {
        let table = self.table();
        let pod = table.sandboxes.get(sandbox_id).map(|sandbox| &sandbox.record.config);
        let own = table.containers.get(id).map(|container| &container.record.config.security);
        let apart = own.is_some_and(|own| own.own_processes);
        pod.is_some_and(|pod| pod.host_pid || pod.share_process_namespace && !apart) || own.is_some_and(|own| !own.processes_of.is_empty())
    }

    /// A container has ended.
    pub fn ended(&self, sandbox_id: &str, id: &str, exit: Exit) {
        let record = self.table().containers.get(id).map(|container| container.record.clone());
        let Some(record) = record else { return };
        let message = self.termination_message(&record);
        if let Some(container) = self.table().containers.get_mut(id) {
            container.end(exit, message);
        }
        self.kill_leftovers(&record);
        self.say(sandbox_id, id);
    }

    /// Kills what an ended container left running. Where it had a PID namespace, that one's end has done it.
    pub fn kill_leftovers(&self, record: &ContainerRecord) {
        if self.shares_processes(&record.sandbox_id, &record.id)
            && let Some(path) = self.container_cgroup(record)
            && let Err(cause) = self.cgroups.kill(&path)
        {
            tracing::warn!(container = record.id, %cause, "kill what a container left behind");
        }
    }

    /// The shim is not there any more: nor are its containers.
    pub async fn shim_gone(self: Arc<Self>, id: String) {
        let record = {
            let mut table = self.table();
            let Some(sandbox) = table.sandboxes.get_mut(&id) else { return };
            if !sandbox.ready {
                return;
            }
            sandbox.ready = false;
            sandbox.record.phase = Phase::Stopped;
            sandbox.record.clone()
        };
        tracing::warn!(sandbox = id, pod = record.config.metadata.name, "the shim has died, and its containers with it");
        if let Err(cause) = self.clone().take_down(record, false).await {
            tracing::warn!(sandbox = id, %cause, "clean up behind a dead shim");
        }
        self.say(&id, "");
    }
}

async fn hear(weak: Weak<Inner>, id: String, mut stream: tokio::net::UnixStream) {
    while let Ok(response) = receive(&mut stream).await {
        let Some(inner) = weak.upgrade() else { return };
        if let Response::Exited(Exited { id: container, exit }) = response {
            if !inner.shares_processes(&id, &container) {
                inner.ended(&id, &container, exit);
                continue;
            }
            let sandbox = id.clone();
            let done = blocking(&inner, move |inner| {
                inner.ended(&sandbox, &container, exit);
                Ok(())
            });
            done.await.ok();
        }
    }
    if let Some(inner) = weak.upgrade() {
        inner.shim_gone(id).await;
    }
}

/// One message of a shim.
pub(super) async fn receive(stream: &mut tokio::net::UnixStream) -> io::Result<Response> {
    let length = stream.read_u32_le().await? as usize;
    if length > MESSAGE_LIMIT_BYTES {
        return Err(io::Error::other("message is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Response::from_bytes(&bytes).map_err(io::Error::other)
}

/// Waits until it holds an exit.
pub(super) async fn until_ended(mut ended: watch::Receiver<bool>) {
    // The sender is gone with the container: that is an end, too.
    ended.wait_for(|ended| *ended).await.ok();
}

#[async_trait]
impl Runtime for Engine {
    fn version(&self) -> String {
        concat!("podbay://", env!("CARGO_PKG_VERSION")).into()
    }

    async fn status(&self) -> Vec<RuntimeCondition> {
        let condition =
            |kind: &str, ok, reason: &str, message: String| RuntimeCondition { kind: kind.into(), ok, reason: reason.into(), message };
        let mut all = vec![condition("RuntimeReady", true, "", String::new()), condition("NetworkReady", true, "", String::new())];
        let problems = self.inner.cgroups.problems();
        all.extend(problems.into_iter().map(|text| condition("CgroupsComplete", false, "ControllerMissing", text)));
        let lacks = handler::lacks(&self.inner.options.handlers);
        all.extend(lacks.into_iter().map(|text| condition("HandlersComplete", false, "ProgramMissing", text)));
        if let Ok((users, apparmor)) = blocking(&self.inner, |inner| Ok((inner.users().clone(), apparmor::lack()))).await {
            let users = users.err().map(|cause| ("NotAvailable", format!("pods with `hostUsers: false` are refused: {cause}")));
            let lacks = [("UserNamespaces", users), ("AppArmor", apparmor)];
            all.extend(lacks.into_iter().filter_map(|(kind, lack)| lack.map(|(reason, text)| condition(kind, false, reason, text))));
        }
        all
    }

    async fn handlers(&self) -> Vec<String> {
        let own = [String::new(), OWN.to_owned()];
        own.into_iter().chain(self.inner.options.handlers.keys().cloned()).collect()
    }

    async fn features(&self, _handler: &str) -> Result<Features, CriError> {
        let users = blocking(&self.inner, |inner| Ok(inner.users().clone())).await;
        let user_namespaces = matches!(users, Ok(Ok(())));
        Ok(Features { user_namespaces, recursive_read_only_mounts: true, supplemental_groups_policy: true })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, CriError> {
        let attempt = || format!("run sandbox of pod {}/{}", config.metadata.namespace, config.metadata.name);
        self.inner.clone().run_sandbox(config).await.map_err(|error| error.about(attempt()))
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.inner.clone().stop_sandbox(id).await.map_err(|error| error.about(format!("stop sandbox {id}")))
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        self.inner.clone().remove_sandbox(id).await.map_err(|error| error.about(format!("remove sandbox {id}")))
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, CriError> {
        let table = self.inner.table();
        let sandbox = table.sandboxes.get(id).ok_or_else(|| CriError::NotFound(format!("sandbox {id}")))?;
        Ok(sandbox.status())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>, CriError> {
        Ok(self.inner.table().sandboxes.values().map(Sandbox::status).collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<String, CriError> {
        let attempt = format!("create container {}", config.metadata.name);
        let (sandbox_id, config) = (sandbox_id.to_owned(), config.clone());
        let created = blocking(&self.inner, move |inner| inner.create_container(&sandbox_id, &config)).await;
        let (sandbox_id, id) = created.map_err(|error| error.about(attempt))?;
        self.inner.say(&sandbox_id, &id);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let owned = id.to_owned();
        let started = blocking(&self.inner, move |inner| inner.start_container(&owned)).await;
        let sandbox = self.inner.table().containers.get(id).map(|container| container.record.sandbox_id.clone());
        self.inner.say(&sandbox.unwrap_or_default(), id);
        started.map_err(|error| error.about(format!("start container {id}")))
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        self.inner.stop_container(id, grace).await.map_err(|error| error.about(format!("stop container {id}")))
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        self.stop_container(id, Duration::ZERO).await?;
        let owned = id.to_owned();
        let removed = blocking(&self.inner, move |inner| inner.remove_container(&owned)).await;
        let sandbox = removed.map_err(|error| error.about(format!("remove container {id}")))?;
        if let Some(sandbox) = sandbox {
            self.inner.say(&sandbox, id);
        }
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, CriError> {
        let table = self.inner.table();
        Ok(table.containers.values().map(|container| container.status(&table)).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let table = self.inner.table();
        let container = table.containers.get(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
        Ok(container.status(&table))
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, CriError> {
        self.inner.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
        self.inner.exec(id, request).await
    }

    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
        self.inner.attach(id, request).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        self.inner.reopen_log(id).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, CriError> {
        self.inner.port_forward(sandbox_id, port).await.map(|stream| Box::new(stream) as _)
    }

    async fn details(&self, id: &str) -> serde_json::Value {
        let id = id.to_owned();
        let found = blocking(&self.inner, move |inner| Ok(inner.details(&id))).await;
        found.unwrap_or_default()
    }

    fn settings(&self) -> serde_json::Value {
        self.inner.settings()
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>, CriError> {
        self.count_layers().await;
        blocking(&self.inner, |inner| Ok(inner.stats())).await.map_err(|error| error.about("read usage"))
    }

    async fn pod_sandbox_stats(&self) -> Result<Vec<PodSandboxStats>, CriError> {
        blocking(&self.inner, |inner| Ok(inner.sandbox_stats())).await.map_err(|error| error.about("read usage"))
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<(), CriError> {
        let (owned, resources) = (id.to_owned(), resources.clone());
        let updated = blocking(&self.inner, move |inner| inner.update_sandbox_resources(&owned, &resources)).await;
        updated.map_err(|error| error.about(format!("change the limits of sandbox {id}")))
    }

    async fn figures(&self) -> Result<BTreeMap<String, Vec<Figure>>, CriError> {
        self.count_layers().await;
        blocking(&self.inner, |inner| Ok(inner.figures())).await.map_err(|error| error.about("read figures"))
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<(), CriError> {
        let (owned, resources) = (id.to_owned(), resources.clone());
        let updated = blocking(&self.inner, move |inner| inner.update_resources(&owned, &resources)).await;
        updated.map_err(|error| error.about(format!("change the limits of container {id}")))
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.inner.events.subscribe()
    }
}

impl Inner {
    /// Deletes a directory that nothing refers to any more, without anybody waiting.
    pub fn delete_later(&self, path: PathBuf) {
        // One that fails is tried again at the next start.
        let delete = move || {
            if let Err(cause) = std::fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %cause, "delete what a container left");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(delete)),
            Err(_) => delete(),
        }
    }

    /// The directory of a container.
    pub fn dir_of(&self, record: &ContainerRecord) -> PathBuf {
        self.options.container_dir(&record.sandbox_id, &record.id)
    }
}
