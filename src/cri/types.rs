//! CRI's messages, as far as they are used. PURE.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// RuntimeStatus.conditions: `RuntimeReady`, `NetworkReady` and warnings of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeCondition {
    pub kind: String,
    pub ok: bool,
    pub reason: String,
    pub message: String,
}

/// Who the sandbox is for: PodSandboxMetadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Counts the sandboxes of the same pod, from 0.
    pub attempt: u32,
}

/// PodSandboxConfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSandboxConfig {
    pub metadata: PodSandboxMetadata,
    pub hostname: String,
    /// Containers' logs live here: `<log_path of the container>` is relative to it.
    pub log_directory: PathBuf,
    /// resolv.conf; `None` with the host's own.
    pub dns: Option<DnsConfig>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// containers see each other's processes
    pub share_process_namespace: bool,
    pub sysctls: BTreeMap<String, String>,
    /// The pod's cgroup: below the runtime's root (`burstable/pod<uid>`), or below the hierarchies' (`/kubepods/…`).
    pub cgroup_parent: String,
    /// Limits of the pod as a whole.
    pub resources: Resources,
    pub port_mappings: Vec<PortMapping>,
    /// Lines for /etc/hosts: (address, names).
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// A privileged container may come into it.
    pub privileged: bool,
    /// Which of the runtime's ways to run containers (`RunPodSandboxRequest.runtime_handler`); empty: the usual one.
    pub runtime_handler: String,
    /// A user namespace of its own (`hostUsers: false`) with these ids of the host.
    pub users: Option<IdRange>,
}

/// UserNamespace and IDMapping: ids of a user namespace, from 0 on, and where they begin on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub host: u32,
    pub length: u32,
}

impl IdRange {
    /// The host's id of one inside.
    pub fn on_host(self, id: u32) -> Option<u32> {
        if id < self.length { self.host.checked_add(id) } else { None }
    }
}

/// RuntimeHandlerFeatures and RuntimeFeatures: what a runtime can do beyond what each one can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    pub user_namespaces: bool,
    pub recursive_read_only_mounts: bool,
    pub supplemental_groups_policy: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP` or `UDP`.
    pub protocol: String,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: String,
}

/// As a limit: none any more, where there was one.
pub const UNLIMITED: u64 = u64::MAX;

/// LinuxContainerResources. Zero or `None`: no limit of that sort; in a change of limits: as it is. There [`UNLIMITED`] and
/// a quota below zero take one away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds a period.
    pub cpu_quota: i64,
    /// cgroup v1 scale, 2..=262144.
    pub cpu_shares: u64,
    pub memory_limit_bytes: u64,
    pub pids_limit: u64,
    pub oom_score_adj: i32,
    /// Memory and swap together; below zero: any.
    pub memory_swap_limit_bytes: i64,
    /// `0-2,5`
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Bytes by the pages' size (`2MB`).
    pub hugepages: BTreeMap<String, u64>,
    /// Files of the container's cgroup (v2) and what to write there.
    pub unified: BTreeMap<String, String>,
}

impl Resources {
    /// These with what a change says.
    #[must_use]
    pub fn changed(&self, new: &Self) -> Self {
        let or = |new: u64, old: u64| if new == 0 { old } else { new };
        let signed = |new: i64, old: i64| if new == 0 { old } else { new };
        let text = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
        Self {
            cpu_period: or(new.cpu_period, self.cpu_period),
            cpu_quota: signed(new.cpu_quota, self.cpu_quota),
            cpu_shares: or(new.cpu_shares, self.cpu_shares),
            memory_limit_bytes: or(new.memory_limit_bytes, self.memory_limit_bytes),
            pids_limit: or(new.pids_limit, self.pids_limit),
            oom_score_adj: self.oom_score_adj,
            memory_swap_limit_bytes: signed(new.memory_swap_limit_bytes, self.memory_swap_limit_bytes),
            cpuset_cpus: text(&new.cpuset_cpus, &self.cpuset_cpus),
            cpuset_mems: text(&new.cpuset_mems, &self.cpuset_mems),
            hugepages: self.hugepages.clone().into_iter().chain(new.hugepages.clone()).collect(),
            unified: self.unified.clone().into_iter().chain(new.unified.clone()).collect(),
        }
    }

    /// # Errors
    /// A limit that no kernel takes, by its name on the wire.
    pub fn check(&self) -> Result<(), CriError> {
        let refuse = |name: &str, value: i128, can: &str| Err(CriError::Invalid(format!("{name} is {value}: it is {can}")));
        let (memory, swap) = (self.memory_limit_bytes, self.memory_swap_limit_bytes);
        if self.cpu_period != 0 && !(1000..=1_000_000).contains(&self.cpu_period) {
            return refuse("cpu_period", self.cpu_period.into(), "from 1000 to 1000000 microseconds");
        }
        if !matches!(self.cpu_quota, -1 | 0 | 1000..) {
            return refuse("cpu_quota", self.cpu_quota.into(), "1000 microseconds or more, or -1 for any");
        }
        if self.cpu_shares != 0 && !(2..=262_144).contains(&self.cpu_shares) {
            return refuse("cpu_shares", self.cpu_shares.into(), "from 2 to 262144");
        }
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            return refuse("oom_score_adj", self.oom_score_adj.into(), "from -1000 to 1000");
        }
        if memory != UNLIMITED && u64::try_from(swap).is_ok_and(|both| both > 0 && both < memory) {
            let least = format!("the limit of memory and swap together, and not less than memory_limit_in_bytes, {memory}");
            return refuse("memory_swap_limit_in_bytes", swap.into(), &least);
        }
        Ok(())
    }

    /// The limits there are once a change is made: what was taken away is not among them.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.memory_limit_bytes == UNLIMITED {
            // It counts both together.
            self.memory_swap_limit_bytes = 0;
        }
        for limit in [&mut self.memory_limit_bytes, &mut self.pids_limit] {
            *limit = Some(*limit).filter(|limit| *limit != UNLIMITED).unwrap_or(0);
        }
        self.cpu_quota = self.cpu_quota.max(0);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

/// PodSandboxStatus and PodSandbox in one.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSandbox {
    pub id: String,
    pub metadata: PodSandboxMetadata,
    pub state: SandboxState,
    pub created_at: Timestamp,
    /// The pod's addresses; empty with the host's network.
    pub ips: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub namespaces: Namespaces,
    /// As it was asked for.
    pub runtime_handler: String,
}

/// Which namespaces of its own a sandbox has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub shared_pid: bool,
    pub users: Option<IdRange>,
}

/// Name and attempt (restart count) of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerMetadata {
    pub name: String,
    pub attempt: u32,
}

/// ContainerConfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    pub metadata: ContainerMetadata,
    /// As in the pod's spec; resolved by the image store.
    pub image: String,
    /// Replaces the image's entrypoint; empty: the image's.
    pub command: Vec<String>,
    /// Replaces the image's cmd.
    pub args: Vec<String>,
    /// Empty: the image's.
    pub working_dir: String,
    /// In order; added to the image's environment.
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Of the host, beyond those that every container has.
    pub devices: Vec<Device>,
    /// Devices by the names that their vendors gave them (CDI): `vendor.com/class=name`.
    pub cdi_devices: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Below the sandbox's log directory: `nginx/0.log`.
    pub log_path: PathBuf,
    /// Its standard input stays open.
    pub stdin: bool,
    /// Until the first client that is attached to it has gone.
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: SecurityContext,
    /// From the image where empty, else SIGTERM: `SIGQUIT`.
    pub stop_signal: String,
    /// File in the container whose content becomes the termination message; empty: none.
    pub termination_message_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    pub readonly: bool,
    /// `private` (default), `rslave`, `rshared`.
    pub propagation: String,
    /// What is mounted below it is read-only as well.
    pub recursive_readonly: bool,
    /// More of mount(8)'s, as `nosuid`. CRI has no words for them.
    pub flags: Vec<String>,
    /// What an id owns on the disk it owns in the pod, whose user namespace has these.
    pub ids: Option<IdRange>,
    /// An image's files instead of the host's.
    pub image: Option<ImageVolume>,
}

/// An image that is mounted into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageVolume {
    /// Its name or id.
    pub image: String,
    /// The name its user has for it; empty: the same.
    pub user_image: String,
    /// What of it is mounted, relative to its root; empty: all.
    pub sub_path: PathBuf,
    /// Its id, once it is mounted.
    pub id: String,
}

/// Device: a device of the host, or a directory of it with every device below.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    /// Some of `r`, `w` and `m` (make a node of it).
    pub permissions: String,
}

/// LinuxContainerSecurityContext.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecurityContext {
    pub privileged: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    /// What its processes may do whoever they are.
    pub add_ambient_capabilities: Vec<String>,
    /// Else the image's user (which may be a name).
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    /// A name of the image's /etc/passwd instead of a number.
    pub run_as_username: String,
    pub supplemental_groups: Vec<u32>,
    /// Only those: none that the image's /etc/group has for the user (`supplementalGroupsPolicy: Strict`).
    pub strict_groups: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub seccomp: Seccomp,
    pub apparmor: AppArmor,
    /// Default masks and read-only paths of /proc are left out (`procMount: Unmasked`).
    pub unmasked_proc: bool,
    /// Further paths nobody reads, and further ones nobody writes.
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Refuse to start as uid 0 (`runAsNonRoot`).
    pub run_as_non_root: bool,
    /// The container of the pod whose process namespace it is in (`NamespaceMode.TARGET`); empty: as the pod has it.
    pub processes_of: String,
    /// A process namespace of its own in a pod that shares one (`NamespaceMode.CONTAINER`).
    pub own_processes: bool,
}

/// What nobody may read, and what nobody may write, in a container's /proc and /sys.
pub fn default_paths() -> (Vec<String>, Vec<String>) {
    let below_proc = |names: &[&str]| names.iter().map(|name| format!("/proc/{name}")).collect::<Vec<_>>();
    let secret = ["asound", "acpi", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"];
    let mut masked = below_proc(&secret);
    masked.extend(["/sys/firmware", "/sys/devices/virtual/powercap"].map(str::to_owned));
    (masked, below_proc(&["bus", "fs", "irq", "sys", "sysrq-trigger"]))
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    RuntimeDefault,
    Unconfined,
    /// Path of an OCI seccomp profile on the host.
    Localhost(PathBuf),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppArmor {
    /// What the runtime brings along.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A profile that is loaded on the host.
    Localhost(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    /// It was there and its end was not seen.
    Unknown,
}

/// ContainerStatus.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox_id: String,
    pub metadata: ContainerMetadata,
    pub state: ContainerState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// 128 + signal where a signal ended it.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// The termination message, or why it did not start.
    pub message: String,
    pub image: String,
    /// Digest of the image's configuration: `sha256:…`. Older runtimes behind a socket say what `image_ref` is here as well.
    pub image_id: String,
    /// By what others find the image: `docker.io/library/nginx@sha256:…`; its id where it has no such digest.
    pub image_ref: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Absolute.
    pub log_path: PathBuf,
    pub mounts: Vec<Mount>,
    pub resources: Resources,
    /// Who its first process is, where that is known.
    pub user: Option<ContainerUser>,
    /// What it is asked to stop by: `SIGTERM`. Empty where the runtime takes no notice of what was asked for.
    pub stop_signal: String,
}

/// LinuxContainerUser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    pub uid: u32,
    pub gid: u32,
    /// With the gid.
    pub groups: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl ExecRequest {
    /// # Errors
    /// It asks for no stream: then there is nothing to be joined with.
    pub fn check(&self) -> Result<(), CriError> {
        let any = self.stdin || self.stdout || self.stderr;
        any.then_some(()).ok_or_else(|| CriError::Invalid("you must specify at least 1 of stdin, stdout, stderr".into()))
    }
}

/// What a container or a pod has used until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time used since its start, nanoseconds.
    pub cpu_nanos: u64,
    pub memory_working_set_bytes: u64,
    /// What it holds in memory, caches included.
    pub memory_usage_bytes: u64,
    pub memory_rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub pids: u64,
    /// `None`: not known here, as what follows.
    pub swap_bytes: Option<u64>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// PsiStats: how long some of its work, and all of it, has stood still for want of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// PsiData.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    pub total_nanos: u64,
    /// Of the last 10 seconds; hundredths of a percent, as the others.
    pub average_10: u32,
    pub average_60: u32,
    pub average_300: u32,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu_nanos += other.cpu_nanos;
        self.memory_working_set_bytes += other.memory_working_set_bytes;
        self.memory_usage_bytes += other.memory_usage_bytes;
        self.memory_rss_bytes += other.memory_rss_bytes;
        self.page_faults += other.page_faults;
        self.major_page_faults += other.major_page_faults;
        self.pids += other.pids;
        self.swap_bytes = self.swap_bytes.map_or(other.swap_bytes, |own| Some(own + other.swap_bytes.unwrap_or(0)));
        // What stands still at the same time cannot be added.
        (self.cpu_pressure, self.memory_pressure, self.io_pressure) = (None, None, None);
    }
}

/// ContainerStats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStats {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub usage: Usage,
    /// What it has written into its root file system; `None`: not counted yet.
    pub writable_layer: Option<FilesystemUsage>,
}

/// PodSandboxStats: a pod as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSandboxStats {
    pub id: String,
    pub usage: Usage,
    /// None with the host's network, or when it is not known.
    pub network: Vec<InterfaceStats>,
}

/// A network interface of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// FilesystemUsage: what images take, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    pub mount_point: PathBuf,
    pub used_bytes: u64,
    pub inodes_used: u64,
}

/// Something happened in this sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    pub sandbox_id: String,
    pub pod_uid: String,
    /// Empty: the sandbox itself.
    pub container_id: String,
}

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration: `sha256:…`.
    pub id: String,
    /// `docker.io/library/nginx:1.27`
    pub tags: Vec<String>,
    /// `docker.io/library/nginx@sha256:…`
    pub digests: Vec<String>,
    pub size_bytes: u64,
    /// User of its configuration: `1000`, `app`, `app:app` or empty.
    pub user: String,
    /// The runtime needs it itself: never removed to make room.
    pub pinned: bool,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Compressed bytes that are here.
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// AuthConfig.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
    /// A bearer token for the registry itself instead.
    pub token: String,
    /// What the registry's token server takes instead of a password.
    pub identity_token: String,
}

/// Never shows what it holds.
impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryAuth(…)")
    }
}

/// Why a verb failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    #[error("{0} not found")]
    NotFound(String),
    #[error("{attempt}: {cause}")]
    Failed { attempt: String, cause: String },
    /// The request makes no sense (gRPC InvalidArgument).
    #[error("{0}")]
    Invalid(String),
    /// Something of that name is there already (gRPC AlreadyExists).
    #[error("{0}")]
    Exists(String),
    /// This runtime cannot do it (gRPC Unimplemented).
    #[error("{0}: not supported by this runtime")]
    Unsupported(String),
    #[error("{0}: timed out")]
    Timeout(String),
    /// The runtime does not answer: nothing is known of its pods. Never "no pods".
    #[error("runtime is unreachable: {0}")]
    Unreachable(String),
    /// There is no more room for it (gRPC ResourceExhausted).
    #[error("{0}")]
    Exhausted(String),
    /// Image pulls: will not get better by trying again soon (no such image, denied).
    #[error("pull {reference}: {cause}")]
    Pull { reference: String, cause: String },
}

impl CriError {
    /// A failure of an attempt, with its chain of causes.
    pub fn failed(attempt: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Failed { attempt: attempt.into(), cause: cause.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_of_limits_stays() {
        let old = Resources {
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpu_shares: 512,
            memory_limit_bytes: 64 << 20,
            pids_limit: 100,
            oom_score_adj: 7,
            ..Resources::default()
        };
        assert_eq!(old.changed(&Resources::default()), old);
        let wanted = Resources { cpu_quota: 40_000, memory_limit_bytes: 32 << 20, oom_score_adj: 9, ..Resources::default() };
        let expected = Resources { cpu_quota: 40_000, memory_limit_bytes: 32 << 20, ..old.clone() };
        assert_eq!(old.changed(&wanted), expected, "the quota is of the period it had");
        let all = Resources { cpu_period: 1, cpu_quota: 2, cpu_shares: 3, memory_limit_bytes: 4, pids_limit: 5, ..old.clone() };
        assert_eq!(old.changed(&all), all);
        let away = Resources { cpu_quota: -1, memory_limit_bytes: UNLIMITED, pids_limit: UNLIMITED, ..Resources::default() };
        let none = Resources { cpu_quota: 0, memory_limit_bytes: 0, pids_limit: 0, ..old.clone() };
        assert_eq!(old.changed(&away).settled(), none);
        assert_eq!(old.clone().settled(), old);
    }
}
