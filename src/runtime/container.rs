//! Containers: made, started, stopped and removed in a sandbox.

use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use oci_spec::runtime::Hooks;
use tokio::sync::watch;

use super::adopt::read_exit;
use super::engine::{Inner, Name, Table, blocking, until_ended};
use super::launch::plan::{Place, plan};
use super::oci::handler;
use super::record::{self, ContainerRecord};
use super::sandbox::Sandbox;
use super::shim::ShimError;
use super::spec::Surroundings;
use super::wire::{Exit, Forget, Kill, Launch, LogFile, Response, Run, User};
use super::{
    ImageRoot, RuntimeError, capability, cdi, devices, joined, limits, metrics, nodes, profile, propagation, seccomp, shim, signal, spec,
};
use crate::cri::{
    ContainerConfig, ContainerState, ContainerStats, ContainerStatus, ContainerUser, CriError, PodSandboxConfig, Resources, Seccomp,
};
use crate::model::Timestamp;

/// As much of a termination message as Kubernetes keeps.
const MESSAGE_LIMIT_BYTES: u64 = 4096;
/// SIGKILL works at once, unless the shim or the kernel hangs; after this it is done without the shim.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Container {
    pub record: ContainerRecord,
    pub started_at_ns: Option<i64>,
    pub lost_in_reboot: bool,
    exit: Option<Exit>,
    message: String,
    ended: watch::Sender<bool>,
    /// Planned when it was made; planned again from the spec on disk after a restart of the engine.
    prepared: Option<Launch>,
}

impl Container {
    pub fn new(record: ContainerRecord) -> Self {
        let ended = watch::Sender::new(record.start_error.is_some());
        Self { record, started_at_ns: None, lost_in_reboot: false, exit: None, message: String::new(), ended, prepared: None }
    }

    pub fn end(&mut self, exit: Exit, message: String) {
        if self.exit.is_none() {
            self.exit = Some(exit);
            self.message = message;
        }
        self.ended.send_replace(true);
    }

    pub fn is_running(&self) -> bool {
        self.record.started && self.record.start_error.is_none() && self.exit.is_none()
    }

    pub fn status(&self, table: &Table) -> ContainerStatus {
        let record = &self.record;
        let config = &record.config;
        let at = |ns: i64| Timestamp::from_nanosecond(i128::from(ns)).ok();
        let logs = table.sandboxes.get(&record.sandbox_id).map(|s| s.record.config.log_directory.clone());
        let mut status = ContainerStatus {
            id: record.id.clone(),
            sandbox_id: record.sandbox_id.clone(),
            metadata: config.metadata.clone(),
            state: if record.started { ContainerState::Running } else { ContainerState::Created },
            created_at: record.created_at,
            started_at: self.started_at_ns.filter(|ns| *ns > 0).and_then(at),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: config.image.clone(),
            image_id: record.image_id.clone(),
            image_ref: if record.image_digest.is_empty() { &record.image_id } else { &record.image_digest }.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: logs.map(|logs| log_path(&logs, &config.log_path)).unwrap_or_default(),
            mounts: config.mounts.clone(),
            resources: config.resources.clone(),
            user: record.user.clone(),
            stop_signal: stop_signal(record).to_owned(),
        };
        if let Some((message, when)) = &record.start_error {
            status.state = ContainerState::Exited;
            status.finished_at = Some(*when);
            status.exit_code = 128;
            status.reason = "StartError".into();
            status.message.clone_from(message);
        } else if let Some(exit) = &self.exit {
            status.state = ContainerState::Exited;
            status.started_at = Some(exit.started_at_ns).filter(|ns| *ns > 0).and_then(at).or(status.started_at);
            status.finished_at = Some(exit.finished_at_ns).filter(|ns| *ns > 0).and_then(at);
            status.exit_code = exit.code;
            status.reason = match exit.code {
                _ if exit.oom_killed => "OOMKilled",
                0 => "Completed",
                _ => "Error",
            }
            .into();
            status.message.clone_from(&self.message);
            if self.lost_in_reboot && exit.finished_at_ns == 0 {
                status.message = "it ran when the host went down".into();
            }
        }
        status
    }
}

impl Inner {
    fn ready_sandbox(&self, id: &str) -> Result<(PodSandboxConfig, i32), RuntimeError> {
        let table = self.table();
        let sandbox = table.sandboxes.get(id).ok_or_else(|| CriError::NotFound(format!("sandbox {id}")))?;
        if !sandbox.ready {
            return Err(CriError::failed(format!("use sandbox {id}"), "it is not ready").into());
        }
        Ok((sandbox.record.config.clone(), sandbox.record.shim_pid))
    }

    /// Returns the sandbox's and the container's id.
    pub fn create_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<(String, String), RuntimeError> {
        let (pod, _) = self.ready_sandbox(sandbox_id)?;
        self.check_handler(&pod.runtime_handler)?;
        check_limits(&config.resources)?;
        propagation::check(&config.mounts)?;
        let _reserved = self.reserve(Name::Container(sandbox_id.to_owned(), config.metadata.clone()))?;
        let image = self.rootfs.prepare(&config.image)?;
        let from_image = image.config.config().clone().unwrap_or_default();
        let handler = self.options.handlers.get(&pod.runtime_handler).cloned();
        let mut config = config.clone();
        let hooks = cdi::inject(&self.options.cdi_dirs, &mut config, handler.is_some())?;
        let mut record = ContainerRecord {
            version: record::VERSION,
            id: uuid::Uuid::new_v4().simple().to_string(),
            sandbox_id: sandbox_id.to_owned(),
            config,
            image_id: image.id.clone(),
            image_digest: image.digest.clone(),
            created_at: Timestamp::now(),
            image_user: from_image.user().clone().unwrap_or_default(),
            image_stop_signal: from_image.stop_signal().clone().unwrap_or_default(),
            layers: image.layers.clone(),
            handler,
            user: None,
            started: false,
            start_error: None,
        };
        record.user = handler::known_account(&record)?.map(|one| ContainerUser { uid: one.uid, gid: one.gid, groups: one.groups });
        self.rootfs.hold(&record.id, &image.id)?;
        let launch = match self.mount_volumes(&mut record).and_then(|()| self.make_container(&record, &image, hooks)) {
            Ok(launch) => launch,
            Err(error) => {
                self.discard(&pod, &record);
                return Err(error);
            }
        };
        let id = record.id.clone();
        self.insert(&pod, Container { prepared: Some(launch), ..Container::new(record) })?;
        Ok((sandbox_id.to_owned(), id))
    }

    /// From here on it is there, unless its sandbox has gone meanwhile: then nothing is left of it.
    fn insert(&self, pod: &PodSandboxConfig, container: Container) -> Result<(), RuntimeError> {
        let (id, sandbox) = (container.record.id.clone(), container.record.sandbox_id.clone());
        let record = {
            let mut table = self.table();
            if table.sandboxes.get(&sandbox).is_some_and(|sandbox| sandbox.ready) {
                table.containers.insert(id, container);
                return Ok(());
            }
            container.record
        };
        self.discard(pod, &record);
        Err(CriError::failed(format!("create container {}", record.config.metadata.name), format!("sandbox {sandbox} was stopped")).into())
    }

    /// `hooks`: for another OCI runtime.
    fn make_container(&self, record: &ContainerRecord, image: &ImageRoot, hooks: Option<Hooks>) -> Result<Launch, RuntimeError> {
        let dir = self.dir_of(record);
        for name in ["upper", "work"] {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(RuntimeError::file("make the directory", &path))?;
        }
        let upper = dir.join("upper");
        let like = image.layers.first().and_then(|layer| std::fs::metadata(layer).ok());
        // The upper directory's own mode and owner are those of the container's root.
        let mode = like.as_ref().map_or(0o755, |like| like.mode() & 0o7777);
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(mode)).map_err(RuntimeError::file("set the mode of", &upper))?;
        let (pod, shim_pid) = self.ready_sandbox(&record.sandbox_id)?;
        let (uid, gid) = like.map_or((0, 0), |like| (like.uid(), like.gid()));
        // In a user namespace the layers are shown with the pod's ids; this one has them.
        let own = |id: u32| pod.users.map_or(id, |range| range.on_host(id).unwrap_or(id));
        std::os::unix::fs::chown(&upper, Some(own(uid)), Some(own(gid))).map_err(RuntimeError::file("set the owner of", &upper))?;
        if !record.config.termination_message_path.is_empty() {
            let path = dir.join("termination-log");
            std::fs::write(&path, "").map_err(RuntimeError::file("make the file", &path))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))
                .map_err(RuntimeError::file("set the mode of", &path))?;
        }
        let security = &record.config.security;
        let apparmor = self.confinement.label(&security.apparmor, security.privileged)?;
        let handler = self.handler(&pod, record)?;
        let joined = self.joined_processes(record, handler.is_some())?;
        let around = Surroundings { apparmor, joined, ..self.surroundings(record, &pod, shim_pid) };
        let profile = self.profile(&record.config)?;
        let mut spec = spec::spec(&record.config, &image.config, &around, profile)?;
        spec.set_hooks(hooks);
        if let Some(handler) = &handler {
            spec = self.make_bundle(handler, &pod, shim_pid, record, spec)?;
        }
        let path = self.spec_path(record);
        record::write(&path, &spec).map_err(RuntimeError::file("write", &path))?;
        let cgroup = cgroup_of(&pod, &record.id);
        let missing = self.cgroups.create(&cgroup, &record.config.resources)?;
        self.cgroups.die_together(&cgroup)?;
        // Another runtime sees to the devices itself.
        if !record.config.security.privileged && handler.is_none() {
            self.confine(&cgroup, &record.config)?;
        }
        if !missing.is_empty() {
            tracing::warn!(container = record.config.metadata.name, ?missing, "limits without effect on this host");
        }
        self.write_container(record)?;
        self.plan_launch(record, &pod, &spec)
    }

    /// Lets it open the devices that every container has, and those that it is given.
    fn confine(&self, cgroup: &str, config: &ContainerConfig) -> Result<(), RuntimeError> {
        let given = nodes::named(config)?;
        let lines: Vec<String> = given.iter().map(devices::Node::line).collect();
        if self.cgroups.confine_devices(cgroup, &lines)? {
            return Ok(());
        }
        if let Some(node) = given.iter().find(|node| !(node.access.contains('r') && node.access.contains('w'))) {
            let attempt = format!("give {} to the container with {:?} alone", node.host.display(), node.access);
            return Err(CriError::failed(attempt, "this host has neither cgroup v1's `devices` nor eBPF on v2").into());
        }
        tracing::debug!(container = config.metadata.name, "devices are kept from it by nodev mounts alone");
        Ok(())
    }

    /// On the disk: without what may hold values of Secrets. Only the spec needs those.
    fn write_container(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        let path = self.dir_of(record).join("container.json");
        record::write(&path, &record.without_values()).map_err(RuntimeError::file("write", &path))
    }

    /// Writes down what is known of a container now, if it is there.
    fn save_container(&self, id: &str) -> Result<(), RuntimeError> {
        let _alone = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.table().containers.get(id).map(|container| container.record.clone());
        record.map_or(Ok(()), |record| self.write_container(&record))
    }

    /// In the run directory, which is memory and ends with the boot, as what the spec is for does.
    fn spec_path(&self, record: &ContainerRecord) -> PathBuf {
        self.options.sandbox_run_dir(&record.sandbox_id).join(format!("{}.json", record.id))
    }

    fn surroundings(&self, record: &ContainerRecord, pod: &PodSandboxConfig, shim_pid: i32) -> Surroundings {
        Surroundings {
            own_processes: record.config.security.own_processes,
            files: self.options.sandbox_dir(&record.sandbox_id),
            shm: if pod.host_ipc { "/dev/shm".into() } else { self.options.sandbox_run_dir(&record.sandbox_id).join("shm") },
            cgroup: self.cgroups.full(&cgroup_of(pod, &record.id)),
            termination_log: self.dir_of(record).join("termination-log"),
            root: self.options.mount_point(&record.sandbox_id),
            ..Surroundings::of_pod(pod, shim_pid)
        }
    }

    /// The profile for the spec; `None`: no filter.
    fn profile(&self, config: &ContainerConfig) -> Result<Option<oci_spec::runtime::LinuxSeccomp>, RuntimeError> {
        let security = &config.security;
        match &security.seccomp {
            _ if security.privileged => Ok(None),
            Seccomp::Unconfined => Ok(None),
            Seccomp::RuntimeDefault => Ok(Some(seccomp::default_profile(bounding(config)?)?)),
            Seccomp::Localhost(path) => {
                let text = read_profile(path).map_err(RuntimeError::file("read the seccomp profile", path))?;
                let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
                let profile = profile::read(&text, bounding(config)?, &kernel);
                Ok(Some(profile.map_err(|cause| CriError::failed(format!("read {}", path.display()), cause))?))
            }
        }
    }

    /// The filter's instructions: the default one is compiled once for each set of capabilities.
    pub fn filter(&self, config: &ContainerConfig, spec: &oci_spec::runtime::Spec) -> Result<Arc<Vec<u8>>, RuntimeError> {
        let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
            return Ok(Arc::default());
        };
        if config.security.seccomp != Seccomp::RuntimeDefault {
            return Ok(Arc::new(seccomp::compile(profile, seccomp::Foreign::Nothing)?));
        }
        let key = bounding(config)?;
        let mut known = self.seccomp.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = known.get(&key) {
            return Ok(filter.clone());
        }
        let filter = Arc::new(seccomp::compile(profile, seccomp::Foreign::Default)?);
        known.insert(key, filter.clone());
        Ok(filter)
    }

    pub fn read_spec(&self, record: &ContainerRecord) -> Result<oci_spec::runtime::Spec, RuntimeError> {
        let path = self.spec_path(record);
        // Where it was before: the container is of an earlier version.
        let earlier = |_| record::read(&self.dir_of(record).join("config.json"));
        Ok(record::read(&path).or_else(earlier)?)
    }

    pub fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let (record, prepared) = {
            let mut table = self.table();
            let container = table.containers.get_mut(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
            if container.record.started {
                return Err(CriError::failed(format!("start container {id}"), "it was started before").into());
            }
            container.record.started = true;
            (container.record.clone(), container.prepared.take())
        };
        let started = self.launch(&record, prepared);
        let failed = {
            let mut table = self.table();
            let container = table.containers.get_mut(id);
            container.is_some_and(|container| match &started {
                Ok(at_ns) => {
                    container.started_at_ns = Some(*at_ns);
                    false
                }
                Err(error) => {
                    // Nothing else of it: limits may have changed meanwhile.
                    container.record.start_error = Some((error.to_string(), Timestamp::now()));
                    container.ended.send_replace(true);
                    true
                }
            })
        };
        if let Some(Err(cause)) = failed.then(|| self.save_container(id)) {
            tracing::warn!(container = id, %cause, "write a container's record");
        }
        started.map(drop)
    }

    fn launch(&self, record: &ContainerRecord, prepared: Option<Launch>) -> Result<i64, RuntimeError> {
        let (pod, _) = self.ready_sandbox(&record.sandbox_id)?;
        self.save_container(&record.id)?;
        let launch = match prepared {
            Some(launch) => launch,
            None => self.plan_launch(record, &pod, &self.read_spec(record)?)?,
        };
        let directory = self.options.sandbox_run_dir(&record.sandbox_id);
        let delegated = launch.commands.is_some();
        if !launch.log.path.is_empty() {
            self.log_maker.make(&launch.log);
        }
        let run = Run { id: record.id.clone(), launch };
        match shim::ask(&directory, &run.into(), &[]) {
            Ok(answer) => match answer.response {
                Response::Started(started) => Ok(started.at_ns),
                _ => Err(ShimError::Confused(directory).into()),
            },
            Err(error) if delegated => {
                // It may be half-way there.
                self.forget_elsewhere(record);
                Err(handler::explained(error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has another OCI runtime take away what it has of a container, if one ran it.
    pub fn forget_elsewhere(&self, record: &ContainerRecord) {
        if let Some(Err(cause)) = self.known_handler(record).map(|handler| handler.delete()) {
            tracing::warn!(container = record.id, cause, "have its runtime delete a container");
        }
    }

    fn plan_launch(
        &self,
        record: &ContainerRecord,
        pod: &PodSandboxConfig,
        spec: &oci_spec::runtime::Spec,
    ) -> Result<Launch, RuntimeError> {
        let dir = self.dir_of(record);
        let cgroup = cgroup_of(pod, &record.id);
        let config = &record.config;
        let mut layers = record.layers.clone();
        if layers.is_empty() {
            let empty = dir.join("empty");
            std::fs::create_dir_all(&empty).map_err(RuntimeError::file("make the directory", &empty))?;
            layers.push(empty);
        }
        let logged = !log_path(&pod.log_directory, &config.log_path).as_os_str().is_empty();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let log = LogFile {
            directory: text(&pod.log_directory),
            path: if logged { text(&config.log_path) } else { String::new() },
            max_bytes: self.options.log_max_bytes,
            max_files: self.options.log_max_files,
        };
        let place = Place {
            layers,
            upper: dir.join("upper"),
            work: dir.join("work"),
            record: dir.join("exit"),
            log,
            cgroup: self.cgroups.entrance(&cgroup),
            oom_file: self.cgroups.oom_file(&cgroup),
            controllers: self.cgroups.v1_controllers(),
            user: user_of(record),
            seccomp: self.filter(config, spec)?.to_vec(),
            privileged: config.security.privileged,
            devices: if config.security.privileged { paths(nodes::all()) } else { Vec::new() },
            given: paths(nodes::named(config)?),
            stdin: config.stdin,
            users: pod.users,
            stdin_once: config.stdin_once,
            made: config.mounts.iter().map(|mount| mount.host_path.clone()).collect(),
            // A pod that shares its processes shares them with this one.
            processes_of: if pod.host_pid || pod.share_process_namespace { String::new() } else { config.security.processes_of.clone() },
            ..Place::default()
        };
        let ours = plan(spec, &place);
        Ok(match self.handler(pod, record)? {
            Some(handler) => handler.launch(ours, spec),
            None => ours,
        })
    }

    pub async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let (record, ended) = {
            let table = self.table();
            let Some(container) = table.containers.get(id).filter(|container| container.is_running()) else {
                return Ok(());
            };
            (container.record.clone(), container.ended.subscribe())
        };
        let stop = signal::number(stop_signal(&record)).unwrap_or(signal::TERM);
        if !grace.is_zero()
            && self.ask_to_end(&record, stop).await?
            && tokio::time::timeout(grace, until_ended(ended.clone())).await.is_ok()
        {
            return Ok(());
        }
        let told = self.signal(&record, signal::KILL).await;
        if told.is_ok() && tokio::time::timeout(KILL_LIMIT, until_ended(ended)).await.is_ok() {
            return Ok(());
        }
        if let Err(cause) = told {
            tracing::warn!(container = id, %cause, "have its shim kill it");
        }
        blocking(self, move |inner| inner.kill_without_shim(&record)).await
    }

    /// Whether it may have heard of it.
    async fn ask_to_end(self: &Arc<Self>, record: &ContainerRecord, signal: i32) -> Result<bool, RuntimeError> {
        let (cause, heard) = match self.signal(record, signal).await {
            // An AppArmor profile without a rule for it takes no signals, not even from here. What kills cgroups asks nobody.
            Err(RuntimeError::Shim(cause @ ShimError::Refused(_))) => (cause, false),
            Err(RuntimeError::Shim(cause)) if cause.is_silent() => (cause, true),
            result => return result.map(|()| true),
        };
        tracing::warn!(container = record.id, %cause, "ask it to end");
        Ok(heard)
    }

    /// Kills a container whose shim does not do it, and takes its end for granted.
    fn kill_without_shim(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        if let Some(path) = self.container_cgroup(record) {
            self.cgroups.kill(&path)?;
        }
        self.ended(&record.sandbox_id, &record.id, self.presumed_exit(record));
        Ok(())
    }

    /// The end of a container that does not run any more, whoever has heard of it.
    pub fn presumed_exit(&self, record: &ContainerRecord) -> Exit {
        read_exit(self.dir_of(record).join("exit")).unwrap_or_else(|| {
            let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
            Exit { code: 137, signal: 9, finished_at_ns: now, ..Exit::default() }
        })
    }

    async fn signal(self: &Arc<Self>, record: &ContainerRecord, signal: i32) -> Result<(), RuntimeError> {
        let directory = self.options.sandbox_run_dir(&record.sandbox_id);
        let kill = Kill { container: record.id.clone(), exec: 0, signal };
        // A process of another runtime may have to hear of it by that runtime; the end itself needs nobody's help.
        let handler = if signal == signal::KILL { None } else { self.known_handler(record) };
        blocking(self, move |_| {
            match handler.map(|handler| handler.kill(signal)) {
                Some(Ok(())) => return Ok(()),
                Some(Err(cause)) => tracing::warn!(container = kill.container, cause, "have its runtime signal a container"),
                None => {}
            }
            match shim::ask(&directory, &kill.into(), &[]) {
                // A dead shim's containers are dead: its end will be, or was, noticed.
                Err(error) if error.is_gone() => Ok(()),
                result => result.map(drop).map_err(Into::into),
            }
        })
        .await
    }

    /// Returns the sandbox's id, if there was such a container.
    pub fn remove_container(&self, id: &str) -> Result<Option<String>, RuntimeError> {
        let record = {
            let table = self.table();
            let Some(container) = table.containers.get(id) else { return Ok(None) };
            if container.is_running() {
                return Err(CriError::failed(format!("remove container {id}"), "it is running").into());
            }
            container.record.clone()
        };
        let directory = self.options.sandbox_run_dir(&record.sandbox_id);
        let ready = self.table().sandboxes.get(&record.sandbox_id).is_some_and(|sandbox| sandbox.ready);
        if ready && record.started {
            // Nothing waits for it; if the shim is dying, nobody needs it.
            shim::tell(&directory, &Forget { id: id.to_owned() }.into()).ok();
        }
        self.forget_elsewhere(&record);
        if let Some(path) = self.container_cgroup(&record) {
            if record.start_error.is_some() || self.shares_processes(&record.sandbox_id, id) {
                // A shim that was not waited for may have started it after all, and orphans of shared processes live on.
                self.cgroups.kill(&path)?;
            }
            self.cgroups.remove(&path)?;
        }
        self.remove_files(&record)?;
        self.release_volumes(&record)?;
        self.rootfs.release(id)?;
        self.table().containers.remove(id);
        Ok(Some(record.sandbox_id))
    }

    /// Takes a half-made container away.
    fn discard(&self, pod: &PodSandboxConfig, record: &ContainerRecord) {
        let cgroup = self.cgroups.remove(&cgroup_of(pod, &record.id));
        let files = self.remove_files(record);
        let released = self.release_volumes(record).and_then(|()| self.rootfs.release(&record.id).map_err(RuntimeError::from));
        for cause in [cgroup.map_err(RuntimeError::from), files, released].into_iter().filter_map(Result::err) {
            tracing::warn!(container = record.id, %cause, "undo a half-made container");
        }
        if !self.table().sandboxes.contains_key(&record.sandbox_id) {
            // It went meanwhile, and what was made for its container was made anew.
            self.cgroups.remove_if_empty(&pod.cgroup_parent);
            let dir = self.options.sandbox_dir(&record.sandbox_id);
            for path in [dir.join("containers"), dir] {
                std::fs::remove_dir(path).ok();
            }
        }
    }

    /// Out of the way at once; the deletion itself may take its time.
    fn remove_files(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        // Not there in a run directory that was cleared.
        std::fs::remove_file(self.spec_path(record)).ok();
        let bundle = self.options.sandbox_run_dir(&record.sandbox_id).join(&record.id);
        joined::release(&bundle);
        std::fs::remove_dir_all(bundle).ok();
        let dir = self.dir_of(record);
        let trash = self.options.trash_dir().join(&record.id);
        match std::fs::rename(&dir, &trash) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(RuntimeError::file("remove", &dir)(cause)),
            Ok(()) => {
                self.delete_later(trash);
                Ok(())
            }
        }
    }

    pub fn container_cgroup(&self, record: &ContainerRecord) -> Option<String> {
        let table = self.table();
        let sandbox: &Sandbox = table.sandboxes.get(&record.sandbox_id)?;
        Some(cgroup_of(&sandbox.record.config, &record.id))
    }

    /// What the container left at its termination message path.
    pub fn termination_message(&self, record: &ContainerRecord) -> String {
        if record.config.termination_message_path.is_empty() {
            return String::new();
        }
        let Ok(file) = std::fs::File::open(self.dir_of(record).join("termination-log")) else { return String::new() };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MESSAGE_LIMIT_BYTES), &mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn all_running(&self) -> Vec<ContainerRecord> {
        let table = self.table();
        table.containers.values().filter(|container| container.is_running()).map(|container| container.record.clone()).collect()
    }

    pub fn stats(&self) -> Vec<ContainerStats> {
        let stats = self.all_running().into_iter().filter_map(|record| {
            let usage = self.cgroups.usage(&self.container_cgroup(&record)?);
            let (name, writable_layer) = (record.config.metadata.name, self.layer(&record.id));
            Some(ContainerStats { id: record.id, sandbox_id: record.sandbox_id, name, usage, writable_layer })
        });
        stats.collect()
    }

    /// Sets what is said; kept for a later start as well.
    pub fn update_resources(&self, id: &str, wanted: &Resources) -> Result<(), RuntimeError> {
        let attempt = || format!("change the limits of container {id}");
        let record = {
            let table = self.table();
            let container = table.containers.get(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
            if container.record.started && !container.is_running() {
                return Err(CriError::failed(attempt(), "it has ended").into());
            }
            container.record.clone()
        };
        let cgroup = self.container_cgroup(&record).ok_or_else(|| CriError::NotFound(format!("sandbox of container {id}")))?;
        check_limits(wanted)?;
        let resources = record.config.resources.changed(wanted);
        let missing = self.cgroups.create(&cgroup, &resources)?;
        if !missing.is_empty() {
            return Err(CriError::failed(attempt(), format!("this host has no controller for {}", missing.join(", "))).into());
        }
        if let Some(container) = self.table().containers.get_mut(id) {
            container.record.config.resources = container.record.config.resources.changed(wanted).settled();
        }
        self.save_container(id)
    }
}

/// What can be seen of limits before anything is made.
pub(super) fn check_limits(wanted: &Resources) -> Result<(), CriError> {
    wanted.check()?;
    limits::files(wanted)?;
    if wanted.hugepages.is_empty() { Ok(()) } else { limits::check_pages(wanted, &metrics::page_sizes()) }
}

/// A regular file of a bounded length.
fn read_profile(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > profile::LIMIT_BYTES {
        return Err(std::io::Error::other(format!("it is no file of at most {} bytes", profile::LIMIT_BYTES)));
    }
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, profile::LIMIT_BYTES), &mut text)?;
    Ok(text)
}

/// Where they are on the host, and where in the container.
fn paths(nodes: Vec<devices::Node>) -> Vec<(PathBuf, PathBuf)> {
    nodes.into_iter().map(|node| (node.host, node.path)).collect()
}

pub(super) fn cgroup_of(pod: &PodSandboxConfig, id: &str) -> String {
    format!("{}/{id}", pod.cgroup_parent)
}

/// Where its log is; empty: it has none.
fn log_path(directory: &Path, path: &Path) -> PathBuf {
    let is_one = !directory.as_os_str().is_empty() && !path.as_os_str().is_empty();
    if is_one { directory.join(path) } else { PathBuf::new() }
}

/// What it is asked to end by.
fn stop_signal(record: &ContainerRecord) -> &str {
    let names = [record.config.stop_signal.as_str(), record.image_stop_signal.as_str()];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or("SIGTERM")
}

fn bounding(config: &ContainerConfig) -> Result<u64, RuntimeError> {
    let security = &config.security;
    capability::of(security).map(|(bounding, _)| bounding).map_err(|cause| CriError::Invalid(cause).into())
}

/// Who the container runs as, from its record alone.
pub(super) fn user_of(record: &ContainerRecord) -> User {
    spec::user(&record.config.security, &record.image_user)
}
