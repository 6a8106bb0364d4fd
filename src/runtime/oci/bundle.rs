//! A container's spec as another OCI runtime wants it. PURE.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceType, LinuxResources, Mount, PosixRlimitBuilder, Process, Spec, UserBuilder,
};

use super::super::account::Account;
use super::super::capability;
use super::super::devices::Node;

/// The version that the runtimes in use understand; nothing in our specs is younger.
const VERSION: &str = "1.0.2";

/// Why there is no such bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the pod shares its processes, and its first process is not there")]
    NoFirstProcess,
    #[error("the pod's user namespace is not there")]
    NoUsers,
    #[error("none of {STAGES:?} is a directory that no volume is below, here or in the container")]
    NoStage,
    #[error(transparent)]
    Spec(#[from] OciSpecError),
}

/// Where the root of a pod with a user namespace of its own is mounted, for the runtime's eyes alone: its processes reach it
/// by its path as nobody of the host, and what is below is hidden from them.
const STAGES: [&str; 4] = ["/mnt", "/media", "/srv", "/opt"];

/// What another runtime has to be told about this host and this pod.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The first process of the pod's shared PID namespace.
    pub pod_init: Option<i32>,
    /// Its processes are another container's, which the spec names.
    pub joins_processes: bool,
    /// The pod's user namespace, as a file.
    pub users: Option<PathBuf>,
    /// Which of the stages are directories.
    pub stages: Vec<PathBuf>,
    pub host_network: bool,
    /// The hard limit of open files: what is above it the kernel refuses to most.
    pub most_files: u64,
    /// Our own score, where this host does not let us give a lower one.
    pub least_oom_score: Option<i32>,
    /// Our own capabilities, where a container is to have all that there are: nobody can give more.
    pub held: Option<u64>,
    /// The container may open every device, and not these alone beyond those that every container has.
    pub every_device: bool,
    pub devices: Vec<Node>,
}

/// The spec for a container that runs as `account`.
///
/// # Errors
/// The pod's first process is wanted and not there; the library's, for a part that lacks something.
pub fn spec(mut spec: Spec, account: &Account, host: &Host) -> Result<Spec, BundleError> {
    spec.set_version(VERSION.to_owned());
    // The pod's UTS namespace has its name already; with the host's it would be the host that is renamed.
    spec.set_hostname(None);
    if spec.linux().as_ref().is_some_and(has_users) {
        let stage = stage(&spec, host).ok_or(BundleError::NoStage)?;
        if let Some(root) = spec.root_mut() {
            root.set_path(stage);
        }
    }
    if let Some(given) = spec.process().clone() {
        spec.set_process(Some(process(given, account, host)?));
    }
    let propagation = root_propagation(&spec);
    if let Some(linux) = spec.linux_mut() {
        linux.set_rootfs_propagation(propagation);
        let all = linux.namespaces().clone().unwrap_or_default().into_iter();
        let kept = all.filter(|one| !(host.host_network && one.typ() == LinuxNamespaceType::Uts));
        linux.set_namespaces(Some(kept.map(|one| joined(one, host)).collect::<Result<_, _>>()?));
        let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
        resources.set_devices(Some(rules(host)?));
        // None of a size is what the cgroup has already, where the host counts them; where not, runtimes fail at it.
        let pages = resources.hugepage_limits().iter().flatten().filter(|one| one.limit() > 0).cloned().collect::<Vec<_>>();
        resources.set_hugepage_limits(Some(pages).filter(|pages| !pages.is_empty()));
        linux.set_resources(Some(resources));
        if !host.devices.is_empty() {
            linux.set_devices(Some(host.devices.iter().map(node).collect::<Result<_, _>>()?));
        }
        if let Some(memory) = linux.resources_mut().as_mut().and_then(|resources| resources.memory_mut().as_mut()) {
            // Where swap is not accounted there is no such limit; where it is, the cgroup has it already.
            memory.set_swap(None);
        }
    }
    Ok(spec)
}

fn has_users(linux: &Linux) -> bool {
    linux.namespaces().iter().flatten().any(|one| one.typ() == LinuxNamespaceType::User)
}

fn says(mount: &Mount, option: &str) -> bool {
    mount.options().iter().flatten().any(|given| given == option)
}

/// What the runtime does to every mount it finds before it mounts from there (config-linux.md, "Rootfs Mount Propagation"): one that it
/// cuts off propagates nothing any more, whatever its copy is told. None: as the runtime likes it.
fn root_propagation(spec: &Spec) -> Option<String> {
    let wanted = |option: &&str| spec.mounts().iter().flatten().any(|mount| says(mount, option));
    ["rshared", "rslave"].into_iter().find(wanted).map(str::to_owned)
}

/// The mounts whose mounts are to reach the host, with their numbers in the spec. In a user namespace of its own none does: what
/// is shared with a more privileged mount namespace is downstream of it there (mount_namespaces(7)).
pub fn shared(spec: &Spec) -> impl Iterator<Item = (usize, &Mount)> {
    let own_users = spec.linux().as_ref().is_some_and(has_users);
    let all = spec.mounts().iter().flatten().enumerate();
    all.filter(move |(_, mount)| !own_users && says(mount, "rshared"))
}

fn stage(spec: &Spec, host: &Host) -> Option<PathBuf> {
    let mounts = || spec.mounts().iter().flatten();
    // runc takes a path in the container that begins like the root's own for one that leads there already.
    let is_below = |mount: &Mount, stage: &Path| {
        mount.source().as_ref().is_some_and(|source| source.starts_with(stage)) || mount.destination().starts_with(stage)
    };
    host.stages.iter().find(|stage| !mounts().any(|mount| is_below(mount, stage))).cloned()
}

/// The candidates for it.
pub fn stages() -> impl Iterator<Item = PathBuf> {
    STAGES.iter().map(PathBuf::from)
}

/// The same for the runtime itself: volumes are shown with the pod's ids before it sees them, and what is shared with the host lies
/// in a directory of its own, by the number of its mount. What the host's mount of a volume `forbids` stays so: runc, which is
/// told of some options, drops all others of the mount (and in a user namespace of the pod's own nobody may: mount_namespaces(7)).
pub fn as_mounted(mut spec: Spec, shared_at: &Path, forbids: &dyn Fn(&Path) -> Vec<String>) -> Spec {
    let numbers: Vec<usize> = shared(&spec).map(|(number, _)| number).collect();
    for (number, mount) in spec.mounts_mut().iter_mut().flatten().enumerate() {
        mount.set_uid_mappings(None).set_gid_mappings(None);
        let mut options = mount.options().clone().unwrap_or_default();
        let source = mount.source().clone().filter(|source| source.is_absolute());
        let more = source.map_or_else(Vec::new, |source| forbids(&source));
        options.extend(more.into_iter().filter(|option| !says(mount, option)));
        mount.set_options(Some(options).filter(|options| !options.is_empty()));
        if numbers.contains(&number) {
            mount.set_source(Some(shared_at.join(number.to_string())));
        }
    }
    spec
}

/// Without rules crun writes none, and every device can be opened by a node that is made. The default nodes are added by
/// the runtimes themselves.
fn rules(host: &Host) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let all = |allow| LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm").build();
    let make = |kind| LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access("m").build();
    if host.every_device {
        return Ok(vec![all(true)?]);
    }
    let one = |node: &Node| {
        let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind(node)).major(node.major).minor(node.minor);
        rule.access(node.access.clone()).build()
    };
    let base = [all(false), make(LinuxDeviceType::C), make(LinuxDeviceType::B)];
    base.into_iter().chain(host.devices.iter().map(one)).collect()
}

fn kind(node: &Node) -> LinuxDeviceType {
    if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C }
}

fn node(device: &Node) -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(device.path.clone())
        .typ(kind(device))
        .major(device.major)
        .minor(device.minor)
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
}

/// A pod's processes are joined by its first one: by the shim, which is the host's, it would be the host's.
fn joined(mut namespace: LinuxNamespace, host: &Host) -> Result<LinuxNamespace, BundleError> {
    if namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_some() && !host.joins_processes {
        let init = host.pod_init.ok_or(BundleError::NoFirstProcess)?;
        namespace.set_path(Some(PathBuf::from(format!("/proc/{init}/ns/pid"))));
    }
    if namespace.typ() == LinuxNamespaceType::User {
        namespace.set_path(Some(host.users.clone().ok_or(BundleError::NoUsers)?));
    }
    Ok(namespace)
}

/// A process for another runtime: its user by numbers, and nothing this host would not allow.
///
/// # Errors
/// The library's.
pub fn process(mut process: Process, account: &Account, host: &Host) -> Result<Process, OciSpecError> {
    let groups: Vec<u32> = account.groups.iter().copied().filter(|gid| *gid != account.gid).collect();
    process.set_user(UserBuilder::default().uid(account.uid).gid(account.gid).additional_gids(groups).build()?);
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(format!("HOME={}", account.home));
    }
    process.set_env(Some(env));
    let limits = process.rlimits().clone().unwrap_or_default();
    let lowered = limits.into_iter().map(|limit| {
        let most = |value: u64| value.min(host.most_files);
        PosixRlimitBuilder::default().typ(limit.typ()).soft(most(limit.soft())).hard(most(limit.hard())).build()
    });
    process.set_rlimits(Some(lowered.collect::<Result<_, _>>()?));
    let score = process.oom_score_adj().map(|score| host.least_oom_score.map_or(score, |least| score.max(least)));
    process.set_oom_score_adj(score);
    if let (Some(held), Some(mut sets)) = (host.held, process.capabilities().clone()) {
        let held: Capabilities =
            capability::names(held).filter_map(|name| name.strip_prefix("CAP_").and_then(|name| name.parse().ok())).collect();
        let of = |set: &Option<Capabilities>| set.as_ref().map(|set| set.intersection(&held).copied().collect());
        let (bounding, effective, permitted) = (of(sets.bounding()), of(sets.effective()), of(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        process.set_capabilities(Some(sets));
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::{Surroundings, spec as made};
    use super::*;
    use crate::cri::{self, ContainerConfig, Resources};

    fn adapted(around: &Surroundings, host: &Host) -> Spec {
        try_adapted(around, host).unwrap()
    }

    fn try_adapted(around: &Surroundings, host: &Host) -> Result<Spec, BundleError> {
        with_mounts(Vec::new(), around, host)
    }

    fn with_mounts(mounts: Vec<cri::Mount>, around: &Surroundings, host: &Host) -> Result<Spec, BundleError> {
        let resources = Resources { memory_limit_bytes: 64 << 20, oom_score_adj: -997, ..Resources::default() };
        let config = ContainerConfig { command: vec!["sh".into()], resources, mounts, ..ContainerConfig::default() };
        let image = serde_json::from_str(r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        let account = Account { uid: 7, gid: 8, groups: vec![8, 9], home: "/srv".into() };
        spec(made(&config, &image, around, None).unwrap(), &account, host)
    }

    #[test]
    fn nothing_is_asked_that_the_host_would_refuse() {
        let host = Host { most_files: 20_000, least_oom_score: Some(0), ..Host::default() };
        let spec = adapted(&Surroundings { shim_pid: 4, hostname: "web".into(), ..Surroundings::default() }, &host);
        let process = spec.process().clone().unwrap();
        assert_eq!((process.user().uid(), process.user().gid(), process.user().additional_gids().clone()), (7, 8, Some(vec![9])));
        assert!(process.env().clone().unwrap().contains(&"HOME=/srv".to_owned()));
        assert_eq!(process.rlimits().clone().unwrap()[0].hard(), 20_000);
        assert_eq!(process.oom_score_adj(), Some(0));
        let bounding = |spec: &Spec| spec.process().clone().unwrap().capabilities().clone().unwrap().bounding().clone().unwrap().len();
        let limited = Host { held: Some(0b11), ..host };
        assert_eq!((bounding(&spec), bounding(&adapted(&Surroundings::default(), &limited))), (14, 2));
        assert_eq!(spec.hostname(), &None);
        let memory = spec.linux().clone().unwrap().resources().clone().unwrap().memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), None));
    }

    #[test]
    fn devices_are_kept_from_whoever_is_not_given_them() {
        let rules = |host: &Host| {
            let linux = adapted(&Surroundings::default(), host).linux().clone().unwrap();
            let rules = linux.resources().clone().unwrap().devices().clone().unwrap();
            let say = |rule: &LinuxDeviceCgroup| (rule.allow(), rule.typ(), rule.access().clone().unwrap_or_default());
            (rules.iter().map(say).collect::<Vec<_>>(), linux.devices().iter().flatten().count())
        };
        let (c, b) = (Some(LinuxDeviceType::C), Some(LinuxDeviceType::B));
        let base = [(false, None, "rwm".to_owned()), (true, c, "m".into()), (true, b, "m".into())].to_vec();
        assert_eq!(rules(&Host::default()), (base.clone(), 0));
        let (host, path) = ("/dev/sda".into(), "/dev/own".into());
        let device = Node { host, path, block: true, major: 8, minor: 0, mode: 0o660, uid: 0, gid: 6, access: "r".into() };
        let given = Host { devices: vec![device], ..Host::default() };
        assert_eq!(rules(&given), ([base, vec![(true, b, "r".into())]].concat(), 1));
        assert_eq!(rules(&Host { every_device: true, ..given }), (vec![(true, None, "rwm".into())], 1));
    }

    #[test]
    fn a_pods_own_users_are_joined_and_its_root_is_where_they_can_go() {
        let users = Some(crate::cri::IdRange { host: 131_072, length: 65_536 });
        let around = Surroundings { shim_pid: 4, files: "/mnt/files".into(), users, ..Surroundings::default() };
        let host = Host { users: Some("/proc/4/fd/7".into()), stages: stages().take(2).collect(), ..Host::default() };
        let spec = adapted(&around, &host);
        let namespaces = spec.linux().clone().unwrap().namespaces().clone().unwrap();
        let joined = namespaces.iter().find(|one| one.typ() == LinuxNamespaceType::User).and_then(|one| one.path().clone());
        assert_eq!((joined, spec.root().clone().unwrap().path().clone()), (Some("/proc/4/fd/7".into()), PathBuf::from("/media")));
        let mapped = |spec: &Spec| spec.mounts().iter().flatten().filter(|mount| mount.uid_mappings().is_some()).count();
        let forbids = |source: &Path| if source.ends_with("hosts") { vec!["nosuid".to_owned()] } else { Vec::new() };
        let mounted = as_mounted(spec.clone(), Path::new("/s"), &forbids);
        assert_eq!((mapped(&spec), mapped(&mounted)), (3, 0), "hosts, hostname, resolv.conf");
        let more =
            mounted.mounts().iter().flatten().zip(spec.mounts().iter().flatten()).filter(|(now, then)| now.options() != then.options());
        let more: Vec<_> = more.map(|(now, _)| (now.destination().clone(), now.options().iter().flatten().last().cloned())).collect();
        assert_eq!(more, [(PathBuf::from("/etc/hosts"), Some("nosuid".to_owned()))]);
        let (around, host) = (Surroundings { users: None, ..around }, Host { users: None, ..host });
        let plain = as_mounted(adapted(&around, &host), Path::new("/s"), &forbids);
        let of_hosts = plain.mounts().iter().flatten().find(|mount| mount.destination().ends_with("hosts")).unwrap();
        assert!(says(of_hosts, "nosuid"), "whoever its users are: {of_hosts:?}");
        let (around, host) = (Surroundings { users, ..around }, Host { users: Some("/proc/4/fd/7".into()), ..host });
        for host in [Host { users: None, ..host.clone() }, Host { stages: Vec::new(), ..host.clone() }] {
            assert!(try_adapted(&around, &host).is_err(), "{host:?}");
        }
        let inside = cri::Mount { container_path: "/media/data".into(), host_path: "/data".into(), ..cri::Mount::default() };
        let made = with_mounts(vec![inside], &around, &host);
        assert!(matches!(made, Err(BundleError::NoStage)), "{made:?}");
    }

    #[test]
    fn what_propagates_is_found_where_it_does() {
        let mount = |name: &str, propagation: &str| cri::Mount {
            container_path: Path::new("/mnt").join(name),
            host_path: Path::new("/srv").join(name),
            propagation: propagation.into(),
            ..cri::Mount::default()
        };
        let made = |propagations: &[&str], users| {
            let mounts = propagations.iter().map(|one| mount(one, one)).collect();
            let around = Surroundings { shim_pid: 4, files: "/f".into(), users, ..Surroundings::default() };
            let host = Host { users: Some("/proc/4/fd/7".into()), stages: vec!["/opt".into()], ..Host::default() };
            let spec = with_mounts(mounts, &around, &host).unwrap();
            let root = spec.linux().clone().unwrap().rootfs_propagation().clone().unwrap_or_default();
            let mounted = as_mounted(spec.clone(), Path::new("/shared"), &|_| Vec::new());
            let sources = mounted.mounts().iter().flatten().filter(|mount| mount.destination().starts_with("/mnt"));
            let sources: Vec<_> = sources.map(|mount| mount.source().clone().unwrap().display().to_string()).collect();
            let numbers: Vec<_> = shared(&spec).map(|(number, mount)| (number, mount.source().clone().unwrap())).collect();
            (root, sources, numbers)
        };
        let none = ("".to_owned(), vec!["/srv/private".to_owned()], Vec::new());
        assert_eq!(made(&["private"], None), none);
        let slave = ("rslave".to_owned(), ["/srv/private", "/srv/rslave"].map(str::to_owned).to_vec(), Vec::new());
        assert_eq!(made(&["private", "rslave"], None), slave);
        // Behind the ten that every container has.
        let sources = ["/srv/rslave", "/shared/11", "/srv/private"].map(str::to_owned).to_vec();
        let shared = ("rshared".to_owned(), sources, vec![(11, "/srv/rshared".into())]);
        assert_eq!(made(&["rslave", "rshared", "private"], None), shared);
        let users = Some(cri::IdRange { host: 131_072, length: 65_536 });
        assert_eq!(made(&["rshared"], users), ("rshared".to_owned(), vec!["/srv/rshared".to_owned()], Vec::new()));
    }

    #[test]
    fn a_shared_pods_container_is_not_made_without_its_first_process() {
        let around = Surroundings { shim_pid: 4, shared_pid: true, ..Surroundings::default() };
        let made = try_adapted(&around, &Host::default());
        assert!(matches!(made, Err(BundleError::NoFirstProcess)), "{made:?}");
    }

    #[test]
    fn a_pods_processes_are_joined_by_its_first_one_and_the_hosts_name_is_left_alone() {
        let around = Surroundings { shim_pid: 4, shared_pid: true, host_network: true, ..Surroundings::default() };
        let spec = adapted(&around, &Host { pod_init: Some(11), host_network: true, most_files: u64::MAX, ..Host::default() });
        let namespaces = spec.linux().clone().unwrap().namespaces().clone().unwrap();
        let path = |typ| namespaces.iter().find(|one| one.typ() == typ).map(|one| one.path().clone());
        assert_eq!(path(LinuxNamespaceType::Pid), Some(Some("/proc/11/ns/pid".into())));
        assert_eq!(path(LinuxNamespaceType::Uts), None);
        assert_eq!(spec.process().clone().unwrap().oom_score_adj(), Some(-997));
    }
}
