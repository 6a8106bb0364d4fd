//! A container's OCI runtime spec, from its CRI configuration and its image's. PURE.
//!
//! The spec is the container's description (saved in the run directory); `launch::plan` turns it into
//! steps for our shim, and another OCI runtime could run it as it is.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{
    Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxIdMapping,
    LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxSeccomp, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder,
    Spec, SpecBuilder, UserBuilder,
};

use super::capability;
use super::launch::plan::is_default_device;
use super::limits::swap_bytes;
use super::wire::User;
use crate::cri::types::{self as cri, ContainerConfig, IdRange, PodSandboxConfig, Resources, SecurityContext, default_paths};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the sandbox gives to each of its containers.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub hostname: String,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// AppArmor's label for its processes; empty: none.
    pub apparmor: String,
    /// The pod's user namespace.
    pub users: Option<IdRange>,
    pub shared_pid: bool,
    /// The container has a PID namespace of its own in a pod that shares one.
    pub own_processes: bool,
    /// Where the PID namespace is that it is in, if it is another container's.
    pub joined: Option<PathBuf>,
    /// Process that holds the pod's namespaces.
    pub shim_pid: i32,
    /// Where `hosts`, `hostname` and `resolv.conf` of the pod are.
    pub files: PathBuf,
    /// The pod's /dev/shm.
    pub shm: PathBuf,
    /// Of the container, below each hierarchy's root.
    pub cgroup: String,
    /// Host file mounted at the termination message path.
    pub termination_log: PathBuf,
    /// An empty directory for the root.
    pub root: PathBuf,
}

impl Surroundings {
    /// What is the same for all containers of a pod whose shim has this number.
    pub fn of_pod(pod: &PodSandboxConfig, shim_pid: i32) -> Self {
        Self {
            hostname: pod.hostname.clone(),
            host_network: pod.host_network,
            host_pid: pod.host_pid,
            host_ipc: pod.host_ipc,
            users: pod.users,
            shared_pid: pod.share_process_namespace && !pod.host_pid,
            shim_pid,
            ..Self::default()
        }
    }
}

/// The configuration makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("container {0}: no command: neither the pod nor the image has one")]
    NoCommand(String),
    #[error("container {container}: mount path {path} is not absolute or has `..` in it")]
    MountPath { container: String, path: PathBuf },
    #[error("container {container}: {cause}")]
    Invalid { container: String, cause: String },
}

/// The spec; `seccomp` is the profile to put in, if any.
pub fn spec(
    config: &ContainerConfig,
    image: &ImageConfiguration,
    around: &Surroundings,
    seccomp: Option<LinuxSeccomp>,
) -> Result<Spec, SpecError> {
    let name = &config.metadata.name;
    let invalid = |cause: String| SpecError::Invalid { container: name.clone(), cause };
    let oci = |error: OciSpecError| invalid(error.to_string());
    let security = &config.security;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(around).map_err(oci)?)
        .resources(resources(&config.resources).map_err(oci)?)
        .cgroups_path(format!("/{}", around.cgroup))
        .masked_paths(Vec::new())
        .readonly_paths(Vec::new());
    if !security.privileged {
        let (masked, read_only) = if security.unmasked_proc { (Vec::new(), Vec::new()) } else { default_paths() };
        linux = linux.masked_paths([masked, security.masked_paths.clone()].concat());
        linux = linux.readonly_paths([read_only, security.readonly_paths.clone()].concat());
    }
    if let Some(range) = around.users {
        let ids = id_mapping(range).map_err(oci)?;
        linux = linux.uid_mappings(ids.clone()).gid_mappings(ids);
    }
    if let Some(profile) = seccomp {
        linux = linux.seccomp(profile);
    }
    let root = RootBuilder::default().path(&around.root).readonly(security.readonly_rootfs).build().map_err(oci)?;
    SpecBuilder::default()
        .version("1.1.0")
        .root(root)
        .hostname(&around.hostname)
        .mounts(mounts(config, around)?)
        .process(process(config, image, around, &oci)?)
        .linux(linux.build().map_err(oci)?)
        .build()
        .map_err(oci)
}

/// Who it runs as, as far as the configuration and the image say: names are looked up in the container.
pub fn user(security: &SecurityContext, image_user: &str) -> User {
    User {
        uid: security.run_as_user,
        gid: security.run_as_group,
        name: match (security.run_as_user, security.run_as_username.as_str()) {
            (Some(_), _) => String::new(),
            (None, "") => image_user.to_owned(),
            (None, name) => name.to_owned(),
        },
        groups: security.supplemental_groups.clone(),
        non_root: security.run_as_non_root,
        exact: security.strict_groups,
    }
}

fn process(
    config: &ContainerConfig,
    image: &ImageConfiguration,
    around: &Surroundings,
    oci: &dyn Fn(OciSpecError) -> SpecError,
) -> Result<Process, SpecError> {
    let name = &config.metadata.name;
    let security = &config.security;
    let from_image = image.config().clone().unwrap_or_default();
    let (bounding, ambient) = capability::of(security).map_err(|cause| SpecError::Invalid { container: name.clone(), cause })?;
    let parsed = |name: String| name.strip_prefix("CAP_").and_then(|name| name.parse().ok());
    let [named, ambient] = [bounding, ambient].map(|set| capability::names(set).filter_map(parsed).collect::<Capabilities>());
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(named.clone())
        .effective(named.clone())
        .permitted(named)
        .inheritable(ambient.clone())
        .ambient(ambient)
        .build()
        .map_err(oci)?;
    let who = user(security, from_image.user().as_deref().unwrap_or_default());
    let mut oci_user = UserBuilder::default().uid(who.uid.unwrap_or(0)).gid(who.gid.unwrap_or(0)).additional_gids(who.groups.clone());
    if !who.name.is_empty() {
        oci_user = oci_user.username(who.name);
    }
    let working_dir = from_image.working_dir().clone().unwrap_or_default();
    let cwd = [config.working_dir.as_str(), working_dir.as_str(), "/"].into_iter().find(|dir| !dir.is_empty());
    let files = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(1_048_576u64).hard(1_048_576u64);
    let mut built = ProcessBuilder::default();
    if !around.apparmor.is_empty() {
        built = built.apparmor_profile(around.apparmor.clone());
    }
    built
        .terminal(config.tty)
        .user(oci_user.build().map_err(oci)?)
        .args(arguments(config, &from_image).ok_or_else(|| SpecError::NoCommand(name.clone()))?)
        .env(environment(config, &from_image, around))
        .cwd(cwd.unwrap_or("/"))
        .capabilities(capabilities)
        .rlimits(vec![files.build().map_err(oci)?])
        .no_new_privileges(security.no_new_privs)
        .oom_score_adj(config.resources.oom_score_adj)
        .build()
        .map_err(oci)
}

fn arguments(config: &ContainerConfig, image: &oci_spec::image::Config) -> Option<Vec<String>> {
    let entrypoint = image.entrypoint().clone().unwrap_or_default();
    let cmd = image.cmd().clone().unwrap_or_default();
    let (head, tail) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&entrypoint, &cmd),
        (true, false) => (&entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    let all: Vec<String> = head.iter().chain(tail).cloned().collect();
    (!all.is_empty()).then_some(all)
}

/// Later ones win, each name once, at its first place.
fn environment(config: &ContainerConfig, image: &oci_spec::image::Config, around: &Surroundings) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |pair: String| {
        let key = pair.split('=').next().unwrap_or_default().to_owned() + "=";
        match env.iter_mut().find(|known| known.starts_with(&key)) {
            Some(known) => *known = pair,
            None => env.push(pair),
        }
    };
    set(PATH.to_owned());
    if !around.hostname.is_empty() {
        set(format!("HOSTNAME={}", around.hostname));
    }
    if config.tty {
        set("TERM=xterm".to_owned());
    }
    image.env().iter().flatten().filter(|pair| pair.contains('=')).cloned().for_each(&mut set);
    config.envs.iter().map(|(name, value)| format!("{name}={value}")).for_each(&mut set);
    env
}

pub(super) fn namespaces(around: &Surroundings) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let new = |typ| LinuxNamespaceBuilder::default().typ(typ).build();
    let of_pod = |typ, file: &str| {
        let path = format!("/proc/{}/ns/{file}", around.shim_pid);
        LinuxNamespaceBuilder::default().typ(typ).path(path).build()
    };
    let mut all = vec![new(LinuxNamespaceType::Mount)?, new(LinuxNamespaceType::Cgroup)?];
    all.push(of_pod(LinuxNamespaceType::Uts, "uts")?);
    if !around.host_pid {
        all.push(match &around.joined {
            _ if around.shared_pid && !around.own_processes => of_pod(LinuxNamespaceType::Pid, "pid_for_children")?,
            Some(path) => LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid).path(path).build()?,
            None => new(LinuxNamespaceType::Pid)?,
        });
    }
    if !around.host_ipc {
        all.push(of_pod(LinuxNamespaceType::Ipc, "ipc")?);
    }
    if !around.host_network {
        all.push(of_pod(LinuxNamespaceType::Network, "net")?);
    }
    if around.users.is_some() {
        all.push(new(LinuxNamespaceType::User)?);
    }
    Ok(all)
}

fn resources(wanted: &Resources) -> Result<LinuxResources, OciSpecError> {
    let mut cpu = LinuxCpuBuilder::default();
    if wanted.cpu_shares > 0 {
        cpu = cpu.shares(wanted.cpu_shares);
    }
    if wanted.cpu_quota > 0 {
        cpu = cpu.quota(wanted.cpu_quota).period(if wanted.cpu_period > 0 { wanted.cpu_period } else { 100_000 });
    }
    if !wanted.cpuset_cpus.is_empty() {
        cpu = cpu.cpus(wanted.cpuset_cpus.clone());
    }
    if !wanted.cpuset_mems.is_empty() {
        cpu = cpu.mems(wanted.cpuset_mems.clone());
    }
    let mut all = LinuxResourcesBuilder::default().cpu(cpu.build()?);
    if wanted.memory_limit_bytes > 0 {
        let limit = i64::try_from(wanted.memory_limit_bytes).unwrap_or(i64::MAX);
        let both = swap_bytes(wanted).map_or(-1, |swap| limit.saturating_add_unsigned(swap));
        all = all.memory(LinuxMemoryBuilder::default().limit(limit).swap(both).build()?);
    }
    let pages = |(size, bytes): (&String, &u64)| {
        let bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
        LinuxHugepageLimitBuilder::default().page_size(size).limit(bytes).build()
    };
    if !wanted.hugepages.is_empty() {
        all = all.hugepage_limits(wanted.hugepages.iter().map(pages).collect::<Result<Vec<_>, _>>()?);
    }
    if wanted.pids_limit > 0 {
        let limit = i64::try_from(wanted.pids_limit).unwrap_or(i64::MAX);
        all = all.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    let mut built = all.build()?;
    if !wanted.unified.is_empty() {
        built.set_unified(Some(wanted.unified.clone().into_iter().collect()));
    }
    Ok(built)
}

fn mount(kind: &str, source: &Path, target: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .typ(kind)
        .source(source)
        .destination(target)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
}

fn id_mapping(range: IdRange) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    Ok(vec![LinuxIdMappingBuilder::default().container_id(0u32).host_id(range.host).size(range.length).build()?])
}

/// What an id owns on the disk it owns in the pod.
fn id_mapped(mut mount: Mount, range: Option<IdRange>) -> Result<Mount, OciSpecError> {
    if let Some(range) = range {
        mount.set_uid_mappings(Some(id_mapping(range)?));
        mount.set_gid_mappings(Some(id_mapping(range)?));
    }
    Ok(mount)
}

fn mounts(config: &ContainerConfig, around: &Surroundings) -> Result<Vec<Mount>, SpecError> {
    let name = &config.metadata.name;
    let oci = |error: OciSpecError| SpecError::Invalid { container: name.clone(), cause: error.to_string() };
    let privileged = config.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let new = |kind: &str, target: &str, options: &[&str]| mount(kind, Path::new(kind), Path::new(target), options);
    let mut all = vec![
        new("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        new("tmpfs", "/dev", &["nosuid", "mode=755", "size=65536k"]),
        new("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        new("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        new("sysfs", "/sys", &["nosuid", "noexec", "nodev", access]),
        new("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", access]),
        mount("bind", &around.shm, Path::new("/dev/shm"), &["bind", "nosuid", "noexec", "nodev", "rprivate"]),
    ]
    .into_iter()
    .collect::<Result<Vec<_>, _>>()
    .map_err(oci)?;
    let files = [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];
    for (file, target) in files {
        let file_access = if config.security.readonly_rootfs { "ro" } else { "rw" };
        let bound = mount("bind", &around.files.join(file), Path::new(target), &["bind", "nodev", "rprivate", file_access]);
        all.push(bound.and_then(|bound| id_mapped(bound, around.users)).map_err(oci)?);
    }
    if !config.termination_message_path.is_empty() {
        let target = Path::new(&config.termination_message_path);
        let bound = mount("bind", &around.termination_log, target, &["bind", "nodev", "rprivate"]);
        all.push(bound.and_then(|bound| id_mapped(bound, around.users)).map_err(oci)?);
    }
    let mut wanted: Vec<&cri::Mount> = config.mounts.iter().collect();
    // What lies below another comes after it.
    wanted.sort_by_key(|mount| mount.container_path.components().count());
    for one in wanted {
        let plain = |part| matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_));
        if !one.container_path.is_absolute() || !one.container_path.components().all(plain) {
            return Err(SpecError::MountPath { container: name.clone(), path: one.container_path.clone() });
        }
        all.retain(|known| *known.destination() != one.container_path);
        let propagation = if one.propagation.is_empty() || one.propagation == "private" { "rprivate" } else { &one.propagation };
        // Such a node is in every container anyway; read-only as there, so that its mode stays the host's affair.
        let harmless = is_default_device(&one.host_path);
        let access = match (one.readonly || harmless, one.recursive_readonly) {
            (true, true) => "rro",
            (true, false) => "ro",
            (false, _) => "rw",
        };
        let mut options = vec!["rbind", propagation, access];
        if !privileged && !harmless {
            options.push("nodev");
        }
        options.extend(one.flags.iter().map(String::as_str));
        if one.ids.is_some() && one.ids != around.users {
            let cause = format!("mount {}: its ids are not those of the pod's user namespace", one.container_path.display());
            return Err(SpecError::Invalid { container: name.clone(), cause });
        }
        let bound = mount("bind", &one.host_path, &one.container_path, &options);
        all.push(bound.and_then(|bound| id_mapped(bound, one.ids.filter(|_| !harmless && one.image.is_none()))).map_err(oci)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::types::ContainerMetadata;

    fn config(command: &[&str], args: &[&str]) -> ContainerConfig {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        ContainerConfig {
            metadata: ContainerMetadata { name: "app".into(), attempt: 0 },
            command: owned(command),
            args: owned(args),
            ..ContainerConfig::default()
        }
    }

    fn image() -> ImageConfiguration {
        serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"Entrypoint":["/entry"],"Cmd":["serve"],"Env":["A=image","B=image"],"User":"app","WorkingDir":"/srv"}}"#,
        )
        .unwrap()
    }

    fn made(config: &ContainerConfig) -> Spec {
        spec(config, &image(), &Surroundings { hostname: "pod".into(), ..Surroundings::default() }, None).unwrap()
    }

    #[test]
    fn commands_follow_kubernetes_table() {
        let cases = [
            (vec![], vec![], "/entry serve"),
            (vec![], vec!["x"], "/entry x"),
            (vec!["run"], vec![], "run"),
            (vec!["run"], vec!["x"], "run x"),
        ];
        for (command, args, expected) in cases {
            let spec = made(&config(&command, &args));
            assert_eq!(spec.process().as_ref().unwrap().args().as_ref().unwrap().join(" "), expected);
        }
        let empty: ImageConfiguration =
            serde_json::from_str(r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        let error = spec(&config(&[], &[]), &empty, &Surroundings::default(), None).unwrap_err();
        assert_eq!(error, SpecError::NoCommand("app".into()));
    }

    #[test]
    fn the_pods_environment_wins_and_each_name_is_there_once() {
        let mut config = config(&[], &[]);
        config.envs = vec![("B".into(), "pod".into()), ("C".into(), "pod=x".into())];
        let env = made(&config).process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, [PATH, "HOSTNAME=pod", "A=image", "B=pod", "C=pod=x"]);
    }

    #[test]
    fn the_image_names_the_user_unless_the_pod_does() {
        let mut config = config(&[], &[]);
        assert_eq!(user(&config.security, "app").name, "app");
        config.security = SecurityContext { run_as_user: Some(7), ..SecurityContext::default() };
        assert_eq!(user(&config.security, "app"), User { uid: Some(7), ..User::default() });
    }

    #[test]
    fn mounts_are_ordered_checked_and_replace_defaults() {
        let mut config = config(&[], &[]);
        let mount = |path: &str| cri::Mount { container_path: path.into(), host_path: "/h".into(), ..cri::Mount::default() };
        config.mounts = vec![mount("/data/sub"), mount("/data"), mount("/etc/hosts")];
        let spec = made(&config);
        let targets: Vec<String> = spec.mounts().iter().flatten().map(|m| m.destination().display().to_string()).collect();
        assert_eq!(targets.iter().filter(|t| *t == "/etc/hosts").count(), 1);
        let at = |t: &str| targets.iter().position(|x| x == t).unwrap();
        assert!(at("/data") < at("/data/sub"));
        config.mounts = vec![mount("/a/../proc")];
        assert!(super::spec(&config, &image(), &Surroundings::default(), None).is_err());
    }

    #[test]
    fn ambient_capabilities_are_in_every_set() {
        let mut config = config(&[], &[]);
        config.security.add_ambient_capabilities = vec!["SYS_TIME".into()];
        let sets = made(&config).process().clone().unwrap().capabilities().clone().unwrap();
        let has = |set: &Option<Capabilities>| set.iter().flatten().filter(|one| one.to_string().ends_with("SYS_TIME")).count();
        let all = [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()];
        assert_eq!(all.map(has), [1; 5]);
        assert_eq!(sets.ambient().iter().flatten().count(), 1);
    }

    #[test]
    fn privileged_means_nothing_masked_and_everything_writable() {
        let mut config = config(&[], &[]);
        config.security.privileged = true;
        let spec = made(&config);
        let linux = spec.linux().clone().unwrap();
        assert_eq!(linux.masked_paths().as_ref().unwrap().len(), 0);
        let sys = spec.mounts().clone().unwrap().into_iter().find(|m| m.destination() == Path::new("/sys")).unwrap();
        assert!(sys.options().as_ref().unwrap().contains(&"rw".to_owned()));
    }
}
