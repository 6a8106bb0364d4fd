//! A sandbox's configuration, from the wire and onto it. PURE.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super as wire;
use super::NamespaceMode;
use crate::cri::CriError;
use crate::cri::types::{DnsConfig, IdRange, Namespaces, PodSandboxConfig, PodSandboxMetadata, PortMapping, Resources, UNLIMITED};

/// What the wire says a sandbox is to be; what cannot be done is refused here, with its name.
pub fn from_wire(config: wire::PodSandboxConfig) -> Result<PodSandboxConfig, CriError> {
    let metadata = config.metadata.filter(|metadata| !metadata.name.is_empty());
    let metadata = metadata.ok_or_else(|| CriError::Invalid("the sandbox has no metadata with a name".into()))?;
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return Err(CriError::Invalid("a sandbox with run_as_group needs run_as_user".into()));
    }
    if !config.log_directory.is_empty() && !Path::new(&config.log_directory).is_absolute() {
        return Err(CriError::Invalid(format!("log_directory {:?} is not an absolute path", config.log_directory)));
    }
    refuse_selinux(security.selinux_options.as_ref())?;
    // A sandbox has no process to confine: its containers say for themselves.
    let apparmor = security.apparmor.map_or(0, |profile| profile.profile_type);
    known::<wire::security_profile::ProfileType>("profile_type", apparmor)?;
    let options = security.namespace_options.unwrap_or_default();
    let users = users_from_wire(options.userns_options.as_ref())?;
    refuse_namespaces(&options)?;
    // Of a sandbox process, which there is none of.
    known::<wire::SupplementalGroupsPolicy>("supplemental_groups_policy", security.supplemental_groups_policy)?;
    let metadata = PodSandboxMetadata { namespace: metadata.namespace, name: metadata.name, uid: metadata.uid, attempt: metadata.attempt };
    Ok(PodSandboxConfig {
        hostname: config.hostname,
        log_directory: config.log_directory.into(),
        // One that says nothing is none, as with containerd.
        dns: config.dns_config.filter(|dns| *dns != wire::DnsConfig::default()).map(|dns| DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        labels: config.labels,
        annotations: config.annotations,
        host_network: options.network() == NamespaceMode::Node,
        host_pid: options.pid() == NamespaceMode::Node,
        host_ipc: options.ipc() == NamespaceMode::Node,
        share_process_namespace: options.pid() == NamespaceMode::Pod,
        sysctls: linux.sysctls,
        cgroup_parent: cgroup_parent(&linux.cgroup_parent, &metadata),
        resources: wanted_resources(linux.resources)?,
        port_mappings: config.port_mappings.into_iter().map(port_from_wire).collect::<Result<_, _>>()?,
        host_aliases: Vec::new(),
        privileged: security.privileged,
        // Beside the configuration in the request.
        runtime_handler: String::new(),
        users,
        metadata,
    })
}

/// An enumeration's number that is one of its own: what is not known cannot be done.
pub(super) fn known<E: TryFrom<i32>>(name: &str, number: i32) -> Result<E, CriError> {
    E::try_from(number).map_err(|_| CriError::Invalid(format!("{name} is {number}, which is not known")))
}

/// Namespaces that are neither the pod's nor the node's, but for a process namespace of each container's own.
pub(super) fn refuse_namespaces(options: &wire::NamespaceOption) -> Result<(), CriError> {
    for (name, number) in [("network", options.network), ("ipc", options.ipc)] {
        let mode: NamespaceMode = known(name, number)?;
        if matches!(mode, NamespaceMode::Container | NamespaceMode::Target) {
            return Err(CriError::Unsupported(format!("{name} namespace {}", mode.as_str_name())));
        }
    }
    let mode: NamespaceMode = known("pid", options.pid)?;
    if mode == NamespaceMode::Target {
        return Err(CriError::Unsupported("the process namespace of another container".into()));
    }
    Ok(())
}

/// One range for users and groups, from 0 on.
pub(super) fn ids_from_wire(uids: &[wire::IdMapping], gids: &[wire::IdMapping]) -> Result<IdRange, CriError> {
    let invalid = |cause: &str| Err(CriError::Invalid(format!("id mappings: {cause}")));
    let ([uid], [gid]) = (uids, gids) else { return invalid("one range of users and one of groups is what can be mapped") };
    if uid != gid {
        return invalid("the range of the groups is not that of the users");
    }
    if uid.container_id != 0 {
        return invalid("id 0 of the container is not mapped");
    }
    let range = IdRange { host: uid.host_id, length: uid.length };
    if range.host == 0 || range.length == 0 || range.host.checked_add(range.length).is_none() {
        return invalid(&format!("{} ids from {} on are no range of the host's for a pod", range.length, range.host));
    }
    Ok(range)
}

pub(super) fn ids_to_wire(range: IdRange) -> Vec<wire::IdMapping> {
    vec![wire::IdMapping { host_id: range.host, container_id: 0, length: range.length }]
}

/// The pod's own user namespace, or none: the node's.
fn users_from_wire(options: Option<&wire::UserNamespace>) -> Result<Option<IdRange>, CriError> {
    let Some(options) = options else { return Ok(None) };
    match known("userns_options.mode", options.mode)? {
        NamespaceMode::Pod => ids_from_wire(&options.uids, &options.gids).map(Some),
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err(CriError::Invalid("id mappings in the node's user namespace".into())),
        mode => Err(CriError::Unsupported(format!("user namespace {}", mode.as_str_name()))),
    }
}

/// A cgroup of each pod's own, as callers name one for several: below what begins at the hierarchies' root (`/kubepods/…`, as
/// a kubelet names its pods'), else below the runtime's own root.
fn cgroup_parent(wanted: &str, metadata: &PodSandboxMetadata) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let identity = if metadata.uid.is_empty() { format!("{}-{}", metadata.namespace, metadata.name) } else { metadata.uid.clone() };
    let own = format!("pod{}", identity.chars().map(plain).collect::<String>());
    let mut parts: Vec<&str> = wanted.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let is_the_callers = wanted.starts_with('/') && !parts.is_empty();
    if parts.is_empty() {
        parts.push("cri");
    }
    // The limits of one that is the caller's are the caller's.
    if is_the_callers || parts.last() != Some(&own.as_str()) {
        parts.push(&own);
    }
    format!("{}{}", if is_the_callers { "/" } else { "" }, parts.join("/"))
}

pub fn port_from_wire(mapping: wire::PortMapping) -> Result<PortMapping, CriError> {
    let port = |number: i32| u16::try_from(number).map_err(|_| CriError::Invalid(format!("{number} is no port")));
    let protocol = match known("protocol", mapping.protocol)? {
        wire::Protocol::Tcp => "TCP",
        wire::Protocol::Udp => "UDP",
        wire::Protocol::Sctp => "SCTP",
    };
    let (container_port, host_port) = (port(mapping.container_port)?, port(mapping.host_port)?);
    Ok(PortMapping { protocol: protocol.into(), container_port, host_port, host_ip: mapping.host_ip })
}

/// SELinux is not spoken.
pub(super) fn refuse_selinux(options: Option<&wire::SeLinuxOption>) -> Result<(), CriError> {
    let named = options.is_some_and(|o| [&o.user, &o.role, &o.r#type, &o.level].into_iter().any(|part| !part.is_empty()));
    if named { Err(CriError::Unsupported("SELinux labels".into())) } else { Ok(()) }
}

/// What is asked for; what cannot be is refused.
pub fn wanted_resources(resources: Option<wire::LinuxContainerResources>) -> Result<Resources, CriError> {
    if let Some(wanted) = &resources {
        let bytes = [wanted.memory_limit_in_bytes, wanted.memory_swap_limit_in_bytes];
        for (name, value) in ["memory_limit_in_bytes", "memory_swap_limit_in_bytes"].into_iter().zip(bytes) {
            if value < -1 {
                return Err(CriError::Invalid(format!("{name} is {value}: it is a number of bytes, or -1 for any")));
            }
        }
        if !(-1000..=1000).contains(&wanted.oom_score_adj) {
            return Err(CriError::Invalid(format!("oom_score_adj is {}: it is from -1000 to 1000", wanted.oom_score_adj)));
        }
    }
    let wanted = resources_from_wire(resources)?;
    wanted.check()?;
    Ok(wanted)
}

/// Limits as far as they can be kept; what cannot is refused.
pub fn resources_from_wire(resources: Option<wire::LinuxContainerResources>) -> Result<Resources, CriError> {
    let Some(wanted) = resources else { return Ok(Resources::default()) };
    let positive = |name: &str, value: i64| u64::try_from(value).map_err(|_| CriError::Invalid(format!("{name} is {value}")));
    let memory = positive("memory_limit_in_bytes", wanted.memory_limit_in_bytes.max(0))?;
    let mut unified = wanted.unified;
    // A container dies as a whole anyway.
    unified.retain(|name, value| (name.as_str(), value.as_str()) != ("memory.oom.group", "1"));
    Ok(Resources {
        cpu_period: positive("cpu_period", wanted.cpu_period)?,
        cpu_quota: wanted.cpu_quota,
        cpu_shares: positive("cpu_shares", wanted.cpu_shares)?,
        memory_limit_bytes: memory,
        pids_limit: 0,
        oom_score_adj: i32::try_from(wanted.oom_score_adj.clamp(-1000, 1000)).unwrap_or(0),
        memory_swap_limit_bytes: wanted.memory_swap_limit_in_bytes,
        cpuset_cpus: wanted.cpuset_cpus,
        cpuset_mems: wanted.cpuset_mems,
        hugepages: wanted.hugepage_limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect(),
        unified,
    })
}

/// The same for a change: a limit below zero is to be none.
pub fn change_from_wire(resources: Option<wire::LinuxContainerResources>) -> Result<Resources, CriError> {
    let away = resources.as_ref().is_some_and(|wanted| wanted.memory_limit_in_bytes < 0);
    let wanted = wanted_resources(resources)?;
    Ok(if away { Resources { memory_limit_bytes: UNLIMITED, ..wanted } } else { wanted })
}

fn hugepage_limit(size: &str, limit: u64) -> wire::HugepageLimit {
    wire::HugepageLimit { page_size: size.to_owned(), limit }
}

/// Our limits in the wire's words.
pub fn resources_to_wire(resources: &Resources) -> wire::LinuxContainerResources {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    wire::LinuxContainerResources {
        cpu_period: number(resources.cpu_period),
        cpu_quota: resources.cpu_quota,
        cpu_shares: number(resources.cpu_shares),
        memory_limit_in_bytes: if resources.memory_limit_bytes == UNLIMITED { -1 } else { number(resources.memory_limit_bytes) },
        oom_score_adj: i64::from(resources.oom_score_adj),
        memory_swap_limit_in_bytes: resources.memory_swap_limit_bytes,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources.hugepages.iter().map(|(size, limit)| hugepage_limit(size, *limit)).collect(),
        unified: resources.unified.clone(),
    }
}

/// The namespaces of a sandbox in the wire's words.
pub fn namespaces_to_wire(namespaces: Namespaces) -> wire::NamespaceOption {
    let of = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (namespaces.host_pid, namespaces.shared_pid) {
        (true, _) => NamespaceMode::Node,
        (false, true) => NamespaceMode::Pod,
        (false, false) => NamespaceMode::Container,
    };
    wire::NamespaceOption {
        network: of(namespaces.host_network).into(),
        pid: pid.into(),
        ipc: of(namespaces.host_ipc).into(),
        userns_options: namespaces.users.map(|range| wire::UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: ids_to_wire(range),
            gids: ids_to_wire(range),
        }),
        ..wire::NamespaceOption::default()
    }
}

/// What the wire says of a sandbox's namespaces.
pub fn namespaces_from_wire(options: &wire::NamespaceOption) -> Namespaces {
    Namespaces {
        host_network: options.network() == NamespaceMode::Node,
        host_pid: options.pid() == NamespaceMode::Node,
        host_ipc: options.ipc() == NamespaceMode::Node,
        shared_pid: options.pid() == NamespaceMode::Pod,
        users: users_from_wire(options.userns_options.as_ref()).ok().flatten(),
    }
}

/// A configuration of ours in the wire's words. A cgroup below our root says nothing to another runtime, which has its own;
/// host aliases are left to its client.
pub fn to_wire(config: &PodSandboxConfig) -> wire::PodSandboxConfig {
    let namespaces = Namespaces {
        host_network: config.host_network,
        host_pid: config.host_pid,
        host_ipc: config.host_ipc,
        shared_pid: config.share_process_namespace && !config.host_pid,
        users: config.users,
    };
    let security = wire::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces_to_wire(namespaces)),
        privileged: config.privileged,
        seccomp: Some(wire::SecurityProfile::default()),
        ..wire::LinuxSandboxSecurityContext::default()
    };
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let no_limits = config.resources == Resources::default();
    wire::PodSandboxConfig {
        metadata: Some(metadata_to_wire(&config.metadata)),
        hostname: if config.host_network { String::new() } else { config.hostname.clone() },
        log_directory: text(&config.log_directory),
        dns_config: config.dns.as_ref().map(|dns| wire::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: config.port_mappings.iter().map(port_to_wire).collect(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        linux: Some(wire::LinuxPodSandboxConfig {
            cgroup_parent: Some(&config.cgroup_parent).filter(|parent| parent.starts_with('/')).cloned().unwrap_or_default(),
            security_context: Some(security),
            sysctls: config.sysctls.clone(),
            overhead: None,
            resources: (!no_limits).then(|| resources_to_wire(&config.resources)),
        }),
    }
}

fn port_to_wire(mapping: &PortMapping) -> wire::PortMapping {
    let protocol = match mapping.protocol.as_str() {
        "UDP" => wire::Protocol::Udp,
        "SCTP" => wire::Protocol::Sctp,
        _ => wire::Protocol::Tcp,
    };
    wire::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.clone(),
    }
}

pub fn metadata_to_wire(metadata: &PodSandboxMetadata) -> wire::PodSandboxMetadata {
    wire::PodSandboxMetadata {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
    }
}

pub fn metadata_from_wire(metadata: Option<wire::PodSandboxMetadata>) -> PodSandboxMetadata {
    let metadata = metadata.unwrap_or_default();
    PodSandboxMetadata { namespace: metadata.namespace, name: metadata.name, uid: metadata.uid, attempt: metadata.attempt }
}

/// Whether every wanted label is there.
pub fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata { namespace: "ns".into(), name: "p".into(), uid: "u1".into(), attempt: 2 },
            hostname: "p".into(),
            log_directory: "/var/log/pods/x".into(),
            dns: Some(DnsConfig { servers: vec!["10.96.0.10".into()], searches: vec!["svc".into()], options: vec!["ndots:5".into()] }),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("c".to_owned(), "d".to_owned())].into(),
            users: Some(IdRange { host: 131_072, length: 65_536 }),
            share_process_namespace: true,
            sysctls: [("net.core.somaxconn".to_owned(), "9".to_owned())].into(),
            cgroup_parent: "cri/podu1".into(),
            resources: Resources {
                cpu_shares: 512,
                memory_limit_bytes: 1 << 20,
                memory_swap_limit_bytes: 2 << 20,
                cpuset_cpus: "0-1".into(),
                cpuset_mems: "0".into(),
                hugepages: [("2MB".to_owned(), 4 << 20)].into(),
                unified: [("memory.high".to_owned(), "1000".to_owned())].into(),
                ..Resources::default()
            },
            port_mappings: vec![PortMapping { protocol: "UDP".into(), container_port: 53, host_port: 5353, host_ip: "127.0.0.1".into() }],
            ..PodSandboxConfig::default()
        }
    }

    #[test]
    fn a_sandbox_survives_the_way() {
        assert_eq!(from_wire(to_wire(&config())).unwrap(), config());
    }

    #[test]
    fn limits_that_cannot_be_are_refused_by_name() {
        fn all() -> wire::LinuxContainerResources {
            let (cpu_period, cpu_quota, cpu_shares) = (100_000, 1000, 2);
            let (memory_limit_in_bytes, memory_swap_limit_in_bytes, oom_score_adj) = (1 << 20, 1 << 20, -1000);
            wire::LinuxContainerResources {
                cpu_period,
                cpu_quota,
                cpu_shares,
                memory_limit_in_bytes,
                memory_swap_limit_in_bytes,
                oom_score_adj,
                ..Default::default()
            }
        }
        type Change = fn(&mut wire::LinuxContainerResources, i64);
        let cases: [(&str, Change, &[i64], &[i64]); 6] = [
            ("memory_limit_in_bytes", |all, value| all.memory_limit_in_bytes = value, &[1 << 20, 1], &[-5, i64::MIN, 2 << 20]),
            ("memory_swap_limit_in_bytes", |all, value| all.memory_swap_limit_in_bytes = value, &[-1, 0, i64::MAX], &[-2, 1]),
            ("cpu_period", |all, value| all.cpu_period = value, &[0, 1000, 1_000_000], &[-1, 1, 999, 1_000_001, i64::MAX]),
            ("cpu_quota", |all, value| all.cpu_quota = value, &[-1, 0, i64::MAX], &[-2, 1, 999, i64::MIN]),
            ("cpu_shares", |all, value| all.cpu_shares = value, &[0, 2, 262_144], &[-1, 1, 262_145]),
            ("oom_score_adj", |all, value| all.oom_score_adj = value, &[0, 1000], &[-1001, 1001, i64::MAX]),
        ];
        for (name, change, good, bad) in cases {
            for (value, is_good) in good.iter().map(|value| (*value, true)).chain(bad.iter().map(|value| (*value, false))) {
                let mut wanted = all();
                change(&mut wanted, value);
                for made in [wanted_resources(Some(wanted.clone())), change_from_wire(Some(wanted))] {
                    let told = made.as_ref().is_err_and(|error| matches!(error, CriError::Invalid(text) if text.contains(name)));
                    assert_eq!((made.is_ok(), told), (is_good, !is_good), "{name} {value}: {made:?}");
                }
            }
        }
    }

    #[test]
    fn limits_are_taken_away_by_a_change_alone() {
        let away = Resources { cpu_quota: -1, memory_limit_bytes: UNLIMITED, ..Resources::default() };
        let there = resources_to_wire(&away);
        assert_eq!((there.cpu_quota, there.memory_limit_in_bytes), (-1, -1));
        assert_eq!(change_from_wire(Some(there.clone())).unwrap(), away);
        assert_eq!(resources_from_wire(Some(there)).unwrap().memory_limit_bytes, 0);
        assert_eq!(change_from_wire(None).unwrap(), Resources::default());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        type Change = fn(&mut wire::LinuxPodSandboxConfig);
        let cases: [(&str, Change); 2] = [
            ("user namespace", |linux| {
                let options = linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
                options.userns_options = Some(wire::UserNamespace { mode: NamespaceMode::Target.into(), ..wire::UserNamespace::default() });
            }),
            ("SELinux", |linux| {
                let level = wire::SeLinuxOption { level: "s0".into(), ..wire::SeLinuxOption::default() };
                linux.security_context.as_mut().unwrap().selinux_options = Some(level);
            }),
        ];
        for (word, change) in cases {
            let mut wanted = to_wire(&config());
            change(wanted.linux.as_mut().unwrap());
            let refused = from_wire(wanted);
            assert!(matches!(&refused, Err(CriError::Unsupported(text)) if text.contains(word)), "{word}: {refused:?}");
        }
        let nameless = wire::PodSandboxConfig { metadata: None, ..to_wire(&config()) };
        assert!(matches!(from_wire(nameless), Err(CriError::Invalid(_))));
        let mut nameless = to_wire(&config());
        nameless.metadata.as_mut().unwrap().name.clear();
        assert!(matches!(from_wire(nameless), Err(CriError::Invalid(_))));
        let astray = wire::PodSandboxConfig { log_directory: "logs".into(), ..to_wire(&config()) };
        assert!(matches!(from_wire(astray), Err(CriError::Invalid(_))));
        for (network, pid) in [(NamespaceMode::Target.into(), 0), (NamespaceMode::Container.into(), 0), (0, NamespaceMode::Target.into())] {
            let options = wire::NamespaceOption { network, pid, ..wire::NamespaceOption::default() };
            assert!(matches!(refuse_namespaces(&options), Err(CriError::Unsupported(_))), "{options:?}");
        }
        let unknown = wire::NamespaceOption { ipc: 9, ..wire::NamespaceOption::default() };
        assert!(matches!(refuse_namespaces(&unknown), Err(CriError::Invalid(_))));
    }

    #[test]
    fn a_user_namespace_is_one_range_from_0_on() {
        let one = |host_id, container_id, length| wire::IdMapping { host_id, container_id, length };
        let range = |uids: &[wire::IdMapping], gids: &[wire::IdMapping]| ids_from_wire(uids, gids).ok();
        let good = [one(65_536, 0, 65_536)];
        assert_eq!(range(&good, &good), Some(IdRange { host: 65_536, length: 65_536 }));
        let bad = [
            vec![],
            vec![one(65_536, 0, 10), one(70_000, 10, 10)],
            vec![one(65_536, 1, 65_536)],
            vec![one(0, 0, 65_536)],
            vec![one(65_536, 0, 0)],
            vec![one(u32::MAX, 0, 2)],
        ];
        for maps in bad {
            assert_eq!(range(&maps, &maps), None, "{maps:?}");
        }
        assert_eq!(range(&good, &[one(131_072, 0, 65_536)]), None);
        let mode = |mode: NamespaceMode| wire::UserNamespace { mode: mode.into(), uids: good.to_vec(), gids: good.to_vec() };
        assert!(users_from_wire(Some(&mode(NamespaceMode::Pod))).unwrap().is_some());
        for other in [NamespaceMode::Node, NamespaceMode::Container, NamespaceMode::Target] {
            assert!(users_from_wire(Some(&mode(other))).is_err(), "{other:?}");
        }
    }

    #[test]
    fn every_pod_has_a_cgroup_of_its_own_below_ours() {
        let metadata = PodSandboxMetadata { namespace: "ns".into(), name: "p".into(), uid: "u/1".into(), attempt: 0 };
        assert_eq!(cgroup_parent("", &metadata), "cri/podu_1");
        assert_eq!(cgroup_parent("../kube//burstable/podu_1", &metadata), "kube/burstable/podu_1");
        assert_eq!(cgroup_parent("/../kube//burstable/podu_1", &metadata), "/kube/burstable/podu_1/podu_1");
        assert_eq!(cgroup_parent("/", &metadata), "cri/podu_1");
        let nameless = PodSandboxMetadata { uid: String::new(), ..metadata };
        assert_eq!(cgroup_parent("/kube", &nameless), "/kube/podns-p");
        assert_eq!(cgroup_parent("kube", &nameless), "kube/podns-p");
    }
}
