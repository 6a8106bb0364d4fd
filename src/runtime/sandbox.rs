//! Sandboxes: a pod's cgroup, files, shim and network, made and taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

use super::container::check_limits;
use super::engine::{Inner, Name, blocking};
use super::record::{self, Phase, SandboxRecord};
use super::wire::{Init, Request, Shutdown, VERSION};
use super::{RuntimeError, figures, files, image_volume, joined, shim, sys, wire};
use crate::cri::host_ports::host_ports;
use crate::cri::{
    CriError, InterfaceStats, Namespaces, PodSandbox, PodSandboxConfig, PodSandboxStats, Resources, RuntimeEvent, SandboxState,
};
use crate::model::Timestamp;

/// The shim is asked first to end; its cgroup is killed after this.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);
/// As the kubelet gives a pause container; denied without CAP_SYS_RESOURCE.
const SHIM_OOM_SCORE: i32 = -998;
/// In cgroup v1's scale.
const SHARES_OF_A_CPU: u64 = 1024;
/// What the pod's limit leaves to the shim and its log writer, with what the kernel keeps for them.
const SHIM_MEMORY_BYTES: u64 = 8 << 20;
/// And to another OCI runtime, which is there for a moment at a start and for each command.
const HANDLER_MEMORY_BYTES: u64 = 64 << 20;

pub(super) struct Sandbox {
    pub record: SandboxRecord,
    /// Its shim answers.
    pub ready: bool,
}

impl Sandbox {
    pub fn status(&self) -> PodSandbox {
        let config = &self.record.config;
        PodSandbox {
            id: self.record.id.clone(),
            metadata: config.metadata.clone(),
            state: if self.ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: self.record.created_at,
            ips: if self.ready { self.record.address.iter().cloned().collect() } else { Vec::new() },
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            namespaces: Namespaces {
                host_network: config.host_network,
                host_pid: config.host_pid,
                host_ipc: config.host_ipc,
                shared_pid: config.share_process_namespace && !config.host_pid,
                users: config.users,
            },
            runtime_handler: config.runtime_handler.clone(),
        }
    }
}

fn check(config: &PodSandboxConfig) -> Result<(), CriError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let parent = config.cgroup_parent.strip_prefix('/').unwrap_or(&config.cgroup_parent);
    if !parent.split('/').all(plain) {
        return Err(CriError::Invalid(format!("cgroup parent {:?} is not a plain path", config.cgroup_parent)));
    }
    for name in config.sysctls.keys() {
        if !files::sysctl_is_of_pod(name, config.host_network, config.host_ipc) {
            return Err(CriError::Invalid(format!("sysctl {name} is not one of the pod's own namespaces")));
        }
    }
    let of_host = [("network", config.host_network), ("process", config.host_pid), ("IPC", config.host_ipc)];
    if let (Some(_), Some((name, _))) = (config.users, of_host.iter().find(|(_, host)| *host)) {
        return Err(CriError::Invalid(format!("a pod with a user namespace of its own cannot use the host's {name} namespace")));
    }
    if config.hostname.len() > 64 {
        return Err(CriError::Invalid(format!("host name {} is longer than 64", config.hostname)));
    }
    check_limits(&config.resources)
}

impl Inner {
    pub fn shim_cgroup(record: &SandboxRecord) -> String {
        format!("{}/shim-{}", record.config.cgroup_parent, record.id)
    }

    fn write_sandbox(&self, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let path = self.options.sandbox_dir(&record.id).join("sandbox.json");
        record::write(&path, record).map_err(RuntimeError::file("write", &path))
    }

    pub async fn run_sandbox(self: Arc<Self>, config: &PodSandboxConfig) -> Result<String, RuntimeError> {
        check(config)?;
        self.check_handler(&config.runtime_handler)?;
        // The pod's processes are in a namespace of the host's user namespace, which nobody in the pod's may enter.
        if config.users.is_some() && config.share_process_namespace && self.options.handlers.contains_key(&config.runtime_handler) {
            let what = "a user namespace and a shared process namespace for a pod that another OCI runtime runs";
            return Err(CriError::Unsupported(what.into()).into());
        }
        if config.users.is_some() {
            blocking(&self, |inner| Ok(inner.users().clone()))
                .await?
                .map_err(|cause| CriError::failed("make a user namespace for the pod", cause))?;
        }
        let this = self.clone();
        let twin = self.table().sandboxes.values().find(|one| one.ready && one.record.config == *config).map(|one| one.record.id.clone());
        if let Some(id) = twin {
            // Whoever asks again has not heard the answer.
            return Ok(id);
        }
        let _reserved = this.reserve(Name::Sandbox(config.metadata.clone()))?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let mut record = SandboxRecord::new(id, config.clone(), Timestamp::now(), self.boot_id.clone());
        record.made_cgroups = self.cgroups_to_make(&config.cgroup_parent);
        match self.build(&mut record).await {
            Ok(()) => Ok(record.id),
            Err(error) => {
                if let Err(cause) = self.clone().take_down(record.clone(), true).await {
                    tracing::warn!(sandbox = record.id, %cause, "undo a half-made sandbox");
                }
                self.table().sandboxes.remove(&record.id);
                Err(error)
            }
        }
    }

    async fn build(self: &Arc<Self>, record: &mut SandboxRecord) -> Result<(), RuntimeError> {
        let copy = record.clone();
        record.shim_pid = blocking(self, move |inner| inner.begin(&copy)).await?;
        if !record.config.host_network {
            let ports = host_ports(&record.config.port_mappings)?;
            let netns = format!("/proc/{}/ns/net", record.shim_pid);
            let attached = self.network.attach(record.network_key(), Path::new(&netns)).await?;
            record.address = Some(attached.address.to_string());
            self.network.publish(record.network_key(), &ports).await?;
        }
        record.phase = Phase::Ready;
        let hosts = self.options.sandbox_dir(&record.id).join("hosts");
        let text = match std::fs::read_to_string("/etc/hosts") {
            Ok(host) if record.config.host_network => files::hosts_of_host(&record.config, &host),
            _ => files::hosts(&record.config, &hostname(&record.config), record.address.as_deref()),
        };
        std::fs::write(&hosts, text).map_err(RuntimeError::file("write", &hosts))?;
        self.write_sandbox(record)?;
        let connection = self.watch_connection(&record.id)?;
        self.table().sandboxes.insert(record.id.clone(), Sandbox { record: record.clone(), ready: true });
        self.weigh();
        self.listen(&record.id, connection)?;
        self.say(&record.id, "");
        Ok(())
    }

    /// Everything but the network. Returns the shim's process id.
    fn begin(&self, record: &SandboxRecord) -> Result<i32, RuntimeError> {
        let config = &record.config;
        let (dir, run) = (self.options.sandbox_dir(&record.id), self.options.sandbox_run_dir(&record.id));
        for path in [&dir.join("containers"), &dir.join("root"), &run.join("shm")] {
            std::fs::create_dir_all(path).map_err(RuntimeError::file("make the directory", path))?;
        }
        self.write_sandbox(record)?;
        if !config.log_directory.as_os_str().is_empty() {
            let logs = &config.log_directory;
            std::fs::create_dir_all(logs).map_err(RuntimeError::file("make the directory", logs))?;
        }
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv_conf = files::resolv_conf(config.dns.as_ref(), &host);
        for (name, text) in [("hostname", format!("{}\n", hostname(config))), ("resolv.conf", resolv_conf)] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(RuntimeError::file("write", &path))?;
        }
        if !config.host_ipc {
            let shm = run.join("shm");
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let root = config.users.map_or(0, |range| range.host);
            let options = std::ffi::CString::new(format!("mode=1777,size=65536k,uid={root},gid={root}")).unwrap_or_default();
            rustix::mount::mount("shm", &shm, "tmpfs", flags, options.as_c_str())
                .map_err(|errno| RuntimeError::file("mount a tmpfs on", &shm)(errno.into()))?;
        }
        self.create_cgroups(record)?;
        Ok(self.program.spawn(&self.init(record, &run))?)
    }

    /// What is to be made of a path of the caller's, and what was made of it for others who still use it.
    fn cgroups_to_make(&self, parent: &str) -> Vec<PathBuf> {
        if !parent.starts_with('/') {
            return Vec::new();
        }
        let own = self.cgroups.all_directories(parent);
        let table = self.table();
        let others = table.sandboxes.values().filter(|one| one.ready).flat_map(|one| &one.record.made_cgroups);
        let above = others.filter(|made| own.iter().any(|directory| directory.starts_with(made)));
        let all: BTreeSet<PathBuf> = above.cloned().chain(self.cgroups.missing(parent)).collect();
        all.into_iter().collect()
    }

    fn create_cgroups(&self, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let parent = &record.config.cgroup_parent;
        if parent.starts_with("besteffort/") {
            // Next to nothing where others want the CPU.
            self.cgroups.create("besteffort", &Resources { cpu_shares: 2, ..Resources::default() })?;
        }
        let missing = self.cgroups.create(parent, &self.with_room(record, record.config.resources.clone()))?;
        if !missing.is_empty() {
            tracing::warn!(pod = record.config.metadata.name, ?missing, "limits without effect on this host");
        }
        self.cgroups.create(&Self::shim_cgroup(record), &Resources::default())?;
        Ok(())
    }

    /// The pod's limits as its cgroup has them. Below a cgroup of the caller's own they are the caller's: what a kubelet says of
    /// the pod is the sum of the limits that containers have, and some may have none (CRI, `LinuxPodSandboxConfig.resources`).
    fn with_room(&self, record: &SandboxRecord, mut limits: Resources) -> Resources {
        if record.config.cgroup_parent.starts_with('/') {
            limits = Resources { pids_limit: limits.pids_limit, ..Resources::default() };
        }
        if limits.pids_limit == 0 {
            limits.pids_limit = self.options.pod_pids_limit;
        }
        if limits.memory_limit_bytes > 0 {
            // Beside the containers, which may use all of theirs. What is unlimited stays so.
            let other = self.options.handlers.contains_key(&record.config.runtime_handler);
            let room = SHIM_MEMORY_BYTES + if other { HANDLER_MEMORY_BYTES } else { 0 };
            limits.memory_limit_bytes = limits.memory_limit_bytes.saturating_add(room);
        }
        limits
    }

    /// Sets what is said on a ready pod as a whole; kept for a later engine as well.
    pub fn update_sandbox_resources(&self, id: &str, wanted: &Resources) -> Result<(), RuntimeError> {
        let record = {
            let table = self.table();
            let sandbox = table.sandboxes.get(id).ok_or_else(|| CriError::NotFound(format!("sandbox {id}")))?;
            if !sandbox.ready {
                return Err(CriError::failed(format!("change the limits of sandbox {id}"), "it is not ready").into());
            }
            sandbox.record.clone()
        };
        check_limits(wanted)?;
        let resources = record.config.resources.changed(wanted);
        let missing = self.cgroups.create(&record.config.cgroup_parent, &self.with_room(&record, resources.clone()))?;
        if !missing.is_empty() {
            let cause = format!("this host has no controller for {}", missing.join(", "));
            return Err(CriError::failed(format!("change the limits of sandbox {id}"), cause).into());
        }
        if let Some(sandbox) = self.table().sandboxes.get_mut(id) {
            sandbox.record.config.resources = sandbox.record.config.resources.changed(wanted).settled();
        }
        self.weigh();
        let _alone = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.table().sandboxes.get(id).map(|sandbox| sandbox.record.clone());
        record.map_or(Ok(()), |record| self.write_sandbox(&record))
    }

    /// Gives the tree of the pods its weights: burstable pods together what they request, all pods together what the
    /// node has, as the kubelet does. For each pod that came or went; written when it changes.
    fn weigh(&self) {
        let mut known = self.burstable.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = {
            let table = self.table();
            let pods = table.sandboxes.values().filter(|pod| pod.ready).map(|pod| &pod.record.config);
            let burstable = pods.filter(|pod| pod.cgroup_parent.starts_with("burstable/"));
            // Of a pod's sandboxes each says what the pod requests.
            let by_pod: BTreeMap<&str, u64> = burstable.map(|pod| (pod.cgroup_parent.as_str(), pod.resources.cpu_shares)).collect();
            by_pod.into_values().sum::<u64>()
        };
        if *known == Some(wanted) {
            return;
        }
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64 * SHARES_OF_A_CPU;
        for (path, shares) in [("", all), ("burstable", wanted)] {
            if let Err(cause) = self.cgroups.set_shares(path, shares) {
                tracing::warn!(%cause, "weigh the pods");
                return;
            }
        }
        *known = Some(wanted);
    }

    fn init(&self, record: &SandboxRecord, run: &Path) -> Init {
        let config = &record.config;
        // As every engine: unprivileged ping, and low ports without a capability.
        let common = [("net.ipv4.ping_group_range", "0 2147483647"), ("net.ipv4.ip_unprivileged_port_start", "0")];
        let optional = common.into_iter().filter(|_| !config.host_network);
        Init {
            version: VERSION,
            directory: run.to_string_lossy().into_owned(),
            new_network: !config.host_network,
            new_ipc: !config.host_ipc,
            shared_pid: config.share_process_namespace && !config.host_pid,
            hostname: if config.host_network { String::new() } else { config.hostname.clone() },
            sysctls: config.sysctls.clone().into_iter().collect(),
            optional_sysctls: optional.map(|(name, value)| (name.into(), value.into())).collect(),
            cgroup: self.cgroups.entrance(&Self::shim_cgroup(record)),
            oom_score_adj: SHIM_OOM_SCORE,
            users: config.users.map(|range| wire::IdRange { host: range.host, length: range.length }),
            title: format!("{}/{}", config.metadata.namespace, config.metadata.name),
        }
    }

    /// What pods with user namespaces of their own can have here; looked at once.
    pub fn users(&self) -> &Result<(), String> {
        self.users.get_or_init(|| sys::try_id_mapping(&self.options.root_dir))
    }

    /// What pods use as a whole, their shims included.
    pub fn sandbox_stats(&self) -> Vec<PodSandboxStats> {
        let ready: Vec<SandboxRecord> = {
            let table = self.table();
            table.sandboxes.values().filter(|sandbox| sandbox.ready).map(|sandbox| sandbox.record.clone()).collect()
        };
        let stats = ready.into_iter().map(|record| {
            let usage = self.cgroups.usage(&record.config.cgroup_parent);
            let interfaces = std::fs::read_to_string(format!("/proc/{}/net/dev", record.shim_pid)).unwrap_or_default();
            PodSandboxStats {
                id: record.id,
                usage,
                network: if record.config.host_network { Vec::new() } else { interfaces_of(&interfaces) },
            }
        });
        stats.collect()
    }

    pub async fn stop_sandbox(self: Arc<Self>, id: &str) -> Result<(), RuntimeError> {
        let record = {
            let mut table = self.table();
            let Some(sandbox) = table.sandboxes.get_mut(id) else { return Ok(()) };
            sandbox.ready = false;
            sandbox.record.phase = Phase::Stopped;
            sandbox.record.clone()
        };
        self.clone().take_down(record, false).await?;
        self.say(id, "");
        Ok(())
    }

    pub async fn remove_sandbox(self: Arc<Self>, id: &str) -> Result<(), RuntimeError> {
        self.clone().stop_sandbox(id).await?;
        let Some(record) = self.table().sandboxes.get(id).map(|sandbox| sandbox.record.clone()) else { return Ok(()) };
        self.clone().take_down(record, true).await?;
        let (uid, gone) = {
            let mut table = self.table();
            let gone: Vec<_> = table.containers.extract_if(.., |_, c| c.record.sandbox_id == id).map(|(_, c)| c.record).collect();
            let uid = table.sandboxes.remove(id).map(|sandbox| sandbox.record.config.metadata.uid);
            (uid, gone)
        };
        for container in gone {
            self.release_volumes(&container)?;
            self.rootfs.release(&container.id)?;
        }
        if let Some(pod_uid) = uid {
            self.tell(RuntimeEvent { sandbox_id: id.into(), pod_uid, container_id: String::new() });
        }
        Ok(())
    }

    /// Ends what runs and takes away what is on the host; with `all` the records and files as well. Works on
    /// half-made sandboxes, and again.
    pub(super) async fn take_down(self: Arc<Self>, record: SandboxRecord, all: bool) -> Result<(), RuntimeError> {
        let copy = record.clone();
        blocking(&self, move |inner| inner.end_processes(&copy)).await?;
        let key = record.network_key();
        // Where the network was the pod's, a newer sandbox of it may have the interface.
        let newer = |other: &Sandbox| other.ready && other.record.id != record.id && other.record.network_key() == key;
        let superseded = self.table().sandboxes.values().any(newer);
        let attached = !record.config.host_network && !superseded;
        let detached = if attached { self.network.detach(key).await } else { Ok(()) };
        // Whoever removes a sandbox that is known comes again and finds its record.
        let known = self.table().sandboxes.contains_key(&record.id);
        let all = all && (detached.is_ok() || !known);
        blocking(&self, move |inner| {
            inner.weigh();
            inner.clear_away(&record, all)
        })
        .await?;
        detached.map_err(Into::into)
    }

    fn end_processes(&self, record: &SandboxRecord) -> Result<(), RuntimeError> {
        let run = self.options.sandbox_run_dir(&record.id);
        if let Ok(connection) = shim::connect(&run) {
            connection.socket.set_read_timeout(Some(SHUTDOWN_LIMIT)).ok();
            if super::socket::send(&connection.socket, &Request::from(Shutdown {}), &[]).is_ok() {
                // Its answer, or its end.
                super::socket::receive::<super::wire::Response>(&connection.socket).ok();
            }
        }
        // Whoever is left.
        if !record.config.cgroup_parent.is_empty() {
            for path in self.sandbox_cgroups(record) {
                self.cgroups.kill(&path)?;
            }
        }
        self.delete_elsewhere(&record.id);
        self.settle_containers(&record.id);
        Ok(())
    }

    /// Has another OCI runtime forget the containers that it ran.
    fn delete_elsewhere(&self, sandbox_id: &str) {
        let all: Vec<_> = {
            let table = self.table();
            let of_it = table.containers.values().filter(|container| container.record.sandbox_id == sandbox_id);
            of_it.map(|container| container.record.clone()).collect()
        };
        for record in all {
            self.forget_elsewhere(&record);
        }
    }

    /// The cgroups of this sandbox alone.
    fn sandbox_cgroups(&self, record: &SandboxRecord) -> Vec<String> {
        let dir = self.options.sandbox_dir(&record.id).join("containers");
        let containers = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = containers.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let all = names.map(|id| format!("{}/{id}", record.config.cgroup_parent));
        all.chain([Self::shim_cgroup(record)]).collect()
    }

    /// Containers that ran have ended now, whether their end was heard of or not.
    fn settle_containers(&self, sandbox_id: &str) {
        let open: Vec<_> = {
            let table = self.table();
            let of_it = table.containers.values().filter(|container| container.record.sandbox_id == sandbox_id);
            of_it.filter(|container| container.is_running()).map(|container| container.record.clone()).collect()
        };
        for record in open {
            let exit = self.presumed_exit(&record);
            self.ended(sandbox_id, &record.id, exit);
        }
    }

    fn clear_away(&self, record: &SandboxRecord, all: bool) -> Result<(), RuntimeError> {
        remove_run_dir(&self.options.sandbox_run_dir(&record.id));
        if !record.config.cgroup_parent.is_empty() {
            for path in self.sandbox_cgroups(record) {
                self.cgroups.remove(&path)?;
            }
            self.cgroups.remove_if_empty(&record.config.cgroup_parent);
            // After a boot all that is there was made by others since.
            let is_of_now = record.boot_id == self.boot_id;
            for made in record.made_cgroups.iter().rev().filter(|_| is_of_now) {
                // Somebody may be in it.
                std::fs::remove_dir(made).ok();
            }
        }
        let dir = self.options.sandbox_dir(&record.id);
        if !all {
            use std::io::ErrorKind::{QuotaExceeded, StorageFull};
            let _alone = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
            return match self.write_sandbox(&SandboxRecord { phase: Phase::Stopped, ..record.clone() }) {
                // Or nobody could stop and remove what fills the disk. The next engine finds its shim gone, which says the same.
                Err(RuntimeError::File { cause, .. }) if matches!(cause.kind(), StorageFull | QuotaExceeded) => {
                    tracing::warn!(sandbox = record.id, %cause, "the disk is full: that the sandbox is stopped is not written down");
                    Ok(())
                }
                written => written,
            };
        }
        match std::fs::remove_dir_all(&dir) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(RuntimeError::file("remove", &dir)(cause)),
            _ => Ok(()),
        }
    }
}

/// The counters of /proc/PID/net/dev (proc(5)), loopback left out.
fn interfaces_of(text: &str) -> Vec<InterfaceStats> {
    let read = |(name, numbers): (&str, Vec<u64>)| {
        let at = |index: usize| numbers.get(index).copied();
        Some(InterfaceStats { name: name.into(), rx_bytes: at(0)?, rx_errors: at(2)?, tx_bytes: at(8)?, tx_errors: at(10)? })
    };
    figures::interfaces(text).filter_map(read).collect()
}

/// Its own name, or the host's as it is now.
fn hostname(config: &PodSandboxConfig) -> String {
    let of_host = || nix::sys::utsname::uname().map(|host| host.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    if config.hostname.is_empty() { of_host() } else { config.hostname.clone() }
}

/// Unmounts and removes a sandbox's run directory, as far as it is there.
pub(super) fn remove_run_dir(run: &Path) {
    image_volume::unmount_all(run);
    joined::release_all(run);
    // Not mounted (any more) is fine.
    rustix::mount::unmount(run.join("shm"), UnmountFlags::DETACH).ok();
    if let Err(cause) = std::fs::remove_dir_all(run)
        && cause.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %run.display(), %cause, "remove a run directory");
    }
}
