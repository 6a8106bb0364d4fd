//! A bundle's config.json as what the shim's program is told. PURE.
//!
//! Format: the OCI runtime specification 1.2, `config.md` and `config-linux.md`. What is known there and cannot be done
//! here is refused by its name; what is not known there is passed over, as the specification asks ("Extensibility").

use std::path::{Path, PathBuf};

use oci_spec::runtime::{self as oci, LinuxNamespaceType, Spec};
use serde_json::Value;

use super::super::capability;
use super::super::launch::plan::{self, Place};
use super::super::limits::{self, Limit, Rate, Throttle};
use super::super::wire::{Hook, IdMap, Lone, Node, Process, Sets, Step, User, VERSION};
use crate::cri::{Resources, UNLIMITED};

/// Why a bundle is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("config.json: {field} is not supported{why}")]
    Unsupported { field: String, why: String },
    #[error("config.json: {0}")]
    Invalid(String),
}

/// Fields that are refused where they say something: `[]` leads into a list.
const REFUSED: [&str; 23] = [
    "process.scheduler",
    "process.ioPriority",
    "process.execCPUAffinity",
    "process.selinuxLabel",
    "linux.timeOffsets",
    "linux.netDevices",
    "linux.mountLabel",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.personality",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swappiness",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.cpu.realtimePeriod",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.burst",
    "linux.resources.blockIO.leafWeight",
    "linux.resources.blockIO.weightDevice[].leafWeight",
    "linux.resources.network",
    "linux.resources.rdma",
    "linux.seccomp.listenerPath",
    "vm",
];

/// What may be said beside `remount`: of the mount itself, and nothing of its file system.
const REMOUNT_OPTIONS: [&str; 16] = [
    "remount",
    "bind",
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "strictatime",
    "nodiratime",
    "relatime",
    "nosymfollow",
    "defaults",
];

/// A user namespace takes no more lines of ids (user_namespaces(7)).
const MOST_RANGES: usize = 340;

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => map.values().any(says_something),
        Value::Bool(true) => true,
    }
}

fn find(value: &Value, path: &str) -> bool {
    match path.split_once('.') {
        Some((head, rest)) => step(value, head).into_iter().any(|below| find(below, rest)),
        None => step(value, path).into_iter().any(says_something),
    }
}

fn step<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match name.strip_suffix("[]") {
        Some(name) => value.get(name).and_then(Value::as_array).into_iter().flatten().collect(),
        None => value.get(name).into_iter().collect(),
    }
}

/// Everything that this runtime would have to pass over in silence.
///
/// # Errors
/// The first such field.
pub fn check(raw: &Value) -> Result<(), ConfigError> {
    let refuse = |field: String, why: &str| Err(ConfigError::Unsupported { field, why: why.to_owned() });
    if let Some(field) = REFUSED.iter().find(|field| find(raw, field)) {
        return refuse((*field).to_owned(), "");
    }
    for namespace in step(&raw["linux"], "namespaces[]") {
        if namespace["type"].as_str() == Some("time") {
            return refuse("linux.namespaces: time".into(), "");
        }
    }
    step(raw, "mounts[]").into_iter().try_for_each(|mount| check_mount(mount, &raw["linux"]))
}

/// Its ids are those of the container's user namespace, and its options fit what it is.
fn check_mount(mount: &Value, linux: &Value) -> Result<(), ConfigError> {
    let refuse = |what: String, why: &str| {
        let field = format!("mounts: {what} of {}", mount["destination"]);
        Err(ConfigError::Unsupported { field, why: why.to_owned() })
    };
    let options: Vec<&str> = step(mount, "options[]").into_iter().filter_map(Value::as_str).collect();
    let users = step(linux, "namespaces[]").into_iter().any(|namespace| namespace["type"] == "user");
    for ids in ["uidMappings", "gidMappings"] {
        if says_something(&mount[ids]) && mount[ids] != linux[ids] {
            return refuse(ids.to_owned(), ": other ids than the container's");
        }
    }
    if says_something(&mount["uidMappings"]) != says_something(&mount["gidMappings"]) {
        return refuse("uidMappings or gidMappings".to_owned(), ": one without the other");
    }
    let says = |option: &str| options.contains(&option);
    let mapped = says("idmap") || says_something(&mount["uidMappings"]);
    let binds = says("bind") || says("rbind") || mount["type"] == "bind";
    if says("ridmap") {
        return refuse("the option ridmap".to_owned(), ": ids are mapped of a mount, not of those below it");
    }
    if mapped && !(binds && users) {
        return refuse("the option idmap".to_owned(), ": it wants a bind mount and a user namespace");
    }
    if says("tmpcopyup") && (binds || mount["type"] != "tmpfs") {
        return refuse("the option tmpcopyup".to_owned(), ": it is no tmpfs");
    }
    match options.iter().find(|option| !REMOUNT_OPTIONS.contains(option)) {
        Some(option) if says("remount") => refuse(format!("the option {option}"), ": with `remount`, which changes flags"),
        _ => Ok(()),
    }
}

/// Takes from a process' capabilities what nobody can give it: names that are not known here, of the ambient set what
/// cannot be inherited, of the effective one what is not permitted (capabilities(7)). The specification wants a warning of
/// each and no failure (`config.md`, "Linux Process"). Returns them.
pub fn keep_grantable(process: Option<&mut Value>) -> Vec<String> {
    let Some(Value::Object(sets)) = process.and_then(|process| process.get_mut("capabilities")) else { return Vec::new() };
    let mut not_given = Vec::new();
    let mut keep = |name: &str, most: u64| {
        let Some(Value::Array(list)) = sets.get_mut(name) else { return 0 };
        let bits = |one: &Value| one.as_str().and_then(capability::bit).map_or(0, |bit| 1 << bit) & most;
        let lost = list.iter().filter(|one| bits(one) == 0);
        not_given.extend(lost.map(|one| format!("{name}: {}", one.as_str().unwrap_or_default())));
        list.retain(|one| bits(one) != 0);
        list.iter().fold(0, |set, one| set | bits(one))
    };
    let (bounding, permitted) = (keep("bounding", capability::ALL), keep("permitted", capability::ALL));
    let inheritable = keep("inheritable", bounding);
    keep("effective", permitted);
    keep("ambient", permitted & inheritable);
    not_given
}

/// Where things of one container are on this host.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// Cgroups and v1's hierarchies.
    pub place: Place,
    /// Bits of the namespaces that are to be joined and are the host's.
    pub hosts: u32,
    /// Where it waits to be started.
    pub directory: String,
}

/// The cgroup: (its parent, its name), below each hierarchy's root.
pub fn cgroup(spec: &Spec, id: &str) -> Result<(String, String), ConfigError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
    let text = path.to_string_lossy().into_owned();
    if text.contains(':') {
        let why = ": a systemd slice; use the cgroupfs manager".to_owned();
        return Err(ConfigError::Unsupported { field: "linux.cgroupsPath".into(), why });
    }
    if text.is_empty() {
        return Ok(("podbay-oci".to_owned(), id.to_owned()));
    }
    let plain = |part: &&str| !part.is_empty() && *part != ".";
    let parts: Vec<&str> = text.split('/').filter(plain).collect();
    if parts.contains(&"..") {
        return Err(ConfigError::Invalid(format!("linux.cgroupsPath {text} has `..` in it")));
    }
    let Some((name, parents)) = parts.split_last() else {
        return Err(ConfigError::Invalid("linux.cgroupsPath is the hierarchy's root".into()));
    };
    Ok((parents.join("/"), (*name).to_owned()))
}

/// Limits as our cgroups take them; a limit of -1 is none.
///
/// # Errors
/// Less memory and swap together than memory alone, which no kernel takes, and one without accounts of swap is not asked.
pub fn limits(resources: Option<&oci::LinuxResources>) -> Result<Resources, ConfigError> {
    let Some(resources) = resources else { return Ok(Resources::default()) };
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    let cpu = resources.cpu().as_ref();
    let memory = positive(resources.memory().as_ref().and_then(oci::LinuxMemory::limit));
    let both = resources.memory().as_ref().and_then(oci::LinuxMemory::swap).unwrap_or(0);
    if u64::try_from(both).is_ok_and(|both| (1..memory).contains(&both)) {
        let why = format!("linux.resources.memory.swap {both} is of memory and swap together, and less than the {memory} of memory");
        return Err(ConfigError::Invalid(why));
    }
    Ok(Resources {
        cpu_period: cpu.and_then(oci::LinuxCpu::period).unwrap_or(0),
        cpu_quota: cpu.and_then(oci::LinuxCpu::quota).unwrap_or(0),
        cpu_shares: cpu.and_then(oci::LinuxCpu::shares).unwrap_or(0),
        memory_limit_bytes: memory,
        pids_limit: positive(resources.pids().as_ref().map(oci::LinuxPids::limit)),
        memory_swap_limit_bytes: both,
        cpuset_cpus: cpu.and_then(|cpu| cpu.cpus().clone()).unwrap_or_default(),
        cpuset_mems: cpu.and_then(|cpu| cpu.mems().clone()).unwrap_or_default(),
        hugepages: resources.hugepage_limits().iter().flatten().map(|one| (one.page_size().clone(), positive(Some(one.limit())))).collect(),
        unified: resources.unified().clone().unwrap_or_default().into_iter().collect(),
        oom_score_adj: 0,
    })
}

/// What block devices are to do for the container.
///
/// # Errors
/// A weight that is none.
pub fn block_io(resources: Option<&oci::LinuxResources>) -> Result<Vec<Limit>, ConfigError> {
    let Some(io) = resources.and_then(|resources| resources.block_io().as_ref()) else { return Ok(Vec::new()) };
    let device = |major: i64, minor: i64| format!("{major}:{minor}");
    let of_devices = io.weight_device().iter().flatten();
    let of_devices = of_devices.filter_map(|one| Some((device(one.major(), one.minor()), one.weight().filter(|weight| *weight > 0)?)));
    let of_devices: Vec<(String, u16)> = of_devices.collect();
    let weight = io.weight().filter(|weight| *weight > 0);
    if let Some(odd) = weight.iter().chain(of_devices.iter().map(|(_, weight)| weight)).find(|weight| !(10..=1000).contains(*weight)) {
        return Err(ConfigError::Invalid(format!("linux.resources.blockIO: the weight {odd} is not from 10 to 1000")));
    }
    let throttles = [
        (Rate::ReadBytes, io.throttle_read_bps_device()),
        (Rate::WriteBytes, io.throttle_write_bps_device()),
        (Rate::Reads, io.throttle_read_iops_device()),
        (Rate::Writes, io.throttle_write_iops_device()),
    ];
    let of = |of: Rate, one: &oci::LinuxThrottleDevice| Throttle { device: device(one.major(), one.minor()), of, most: one.rate() };
    let throttles = throttles.into_iter().flat_map(|(rate, all)| all.iter().flatten().map(move |one| of(rate, one)));
    Ok(limits::block_io(weight, &of_devices, &throttles.collect::<Vec<_>>()))
}

/// The same for a change, in which -1 takes a limit away.
///
/// # Errors
/// A limit on swap without one on memory: it is of both together, so it is set with the memory's.
pub fn changes(resources: &oci::LinuxResources) -> Result<Resources, ConfigError> {
    let memory = resources.memory().as_ref();
    let limit = memory.and_then(oci::LinuxMemory::limit);
    if limit.unwrap_or(0) == 0 && memory.and_then(oci::LinuxMemory::swap).is_some_and(|swap| swap < 0) {
        let field = "linux.resources.memory.swap".to_owned();
        return Err(ConfigError::Unsupported { field, why: ": to take the limit away without one on memory".to_owned() });
    }
    let mut changed = limits(Some(resources))?;
    for (limit, wanted) in
        [(limit, &mut changed.memory_limit_bytes), (resources.pids().as_ref().map(oci::LinuxPids::limit), &mut changed.pids_limit)]
    {
        if limit.is_some_and(|limit| limit < 0) {
            *wanted = UNLIMITED;
        }
    }
    Ok(changed)
}

/// Whether a sysctl is one of namespaces that the container does not share with the host.
fn is_own_sysctl(name: &str, namespaces: u32) -> bool {
    let has = |kind| namespaces & bit(kind) != 0;
    let ipc = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg_next_id", "kernel.sem", "kernel.sem_next_id"];
    if name.starts_with("net.") {
        has(LinuxNamespaceType::Network)
    } else if ipc.contains(&name) || name.starts_with("kernel.shm") || name.starts_with("fs.mqueue.") {
        has(LinuxNamespaceType::Ipc)
    } else {
        matches!(name, "kernel.domainname" | "kernel.hostname") && has(LinuxNamespaceType::Uts)
    }
}

/// Nothing of the host's is set: `namespaces` are the bits of those that the container makes or joins, but for the host's.
fn check_settings(spec: &Spec, sysctls: &[(String, String)], namespaces: u32) -> Result<(), ConfigError> {
    let refuse = |field: String| Err(ConfigError::Unsupported { field, why: ": it would be the host's".to_owned() });
    let uts = namespaces & bit(LinuxNamespaceType::Uts) != 0;
    for (field, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if !uts && value.as_ref().is_some_and(|value| !value.is_empty()) {
            return refuse(format!("{field} without a UTS namespace"));
        }
    }
    match sysctls.iter().find(|(name, _)| !is_own_sysctl(name, namespaces)) {
        Some((name, _)) => refuse(format!("linux.sysctl: {name}")),
        None => Ok(()),
    }
}

/// What the shim's program is told to make the container.
///
/// # Errors
/// What makes no sense.
pub fn lone(spec: &Spec, ground: Ground) -> Result<Lone, ConfigError> {
    let invalid = |text: &str| ConfigError::Invalid(text.to_owned());
    let linux = spec.linux().clone().ok_or_else(|| invalid("there is no `linux`"))?;
    let given = spec.process().as_ref().ok_or_else(|| invalid("there is no `process`"))?;
    let (mut join, mut new) = (Vec::new(), 0);
    for namespace in linux.namespaces().iter().flatten() {
        let bit = bit(namespace.typ());
        match namespace.path() {
            // Nobody enters the user namespace that he is in.
            Some(_) if namespace.typ() == LinuxNamespaceType::User && ground.hosts & bit != 0 => {}
            Some(path) => join.push((namespace_path(path)?, bit)),
            None => new |= bit,
        }
    }
    let users = bit(LinuxNamespaceType::User);
    let (uids, gids) = ids(&linux, new & users != 0, join.iter().any(|(_, bit)| *bit == users))?;
    if new & nix::libc::CLONE_NEWNS as u32 == 0 {
        return Err(invalid("linux.namespaces: a mount namespace of its own is needed"));
    }
    let sysctls: Vec<_> =
        linux.sysctl().clone().unwrap_or_default().into_iter().map(|(name, value)| (name.replace('/', "."), value)).collect();
    check_settings(spec, &sysctls, join.iter().fold(new, |all, (_, bit)| all | bit) & !ground.hosts)?;
    let mut launch = plan::plan(spec, &ground.place);
    launch.process = process(given, ground.place.seccomp);
    let devices: Vec<Step> = linux.devices().iter().flatten().filter(|one| !plan::is_own_device(one.path())).map(node).collect();
    // Once everything is mounted, before anything is hidden.
    let at = launch.steps.iter().position(|step| matches!(step, Step::Mask(_) | Step::ReadOnly(_) | Step::Seal(_) | Step::Pivot(_)));
    let at = at.unwrap_or(launch.steps.len());
    launch.steps.splice(at..at, devices);
    let hooks = spec.hooks().clone().unwrap_or_default();
    let size = given.console_size();
    Ok(Lone {
        version: VERSION,
        join,
        new,
        hostname: spec.hostname().clone().unwrap_or_default(),
        domainname: spec.domainname().clone().unwrap_or_default(),
        sysctls,
        launch,
        directory: ground.directory,
        create_container: hooks.create_container().iter().flatten().map(hook).collect(),
        start_container: hooks.start_container().iter().flatten().map(hook).collect(),
        stay: false,
        columns: size.and_then(|size| u32::try_from(size.width()).ok()).unwrap_or(0),
        rows: size.and_then(|size| u32::try_from(size.height()).ok()).unwrap_or(0),
        uids,
        gids,
    })
}

/// The ids of the user namespace, if there is one; of one that is joined they may be left out.
fn ids(linux: &oci::Linux, new: bool, joined: bool) -> Result<(Vec<IdMap>, Vec<IdMap>), ConfigError> {
    let of = |field: &str, all: &Option<Vec<oci::LinuxIdMapping>>| {
        let all: Vec<IdMap> = all.iter().flatten().map(id_map).collect();
        let invalid = |text: &str| Err(ConfigError::Invalid(format!("linux.{field}: {text}")));
        let is_whole = |map: &IdMap| map.inside.checked_add(map.length).is_some() && map.host.checked_add(map.length).is_some();
        match all.as_slice() {
            [] if !new => Ok(all),
            [_, ..] if !new && !joined => invalid("there is no user namespace"),
            some if some.len() > MOST_RANGES => invalid("more ranges than a user namespace takes"),
            some if !some.iter().all(is_whole) => invalid("a range ends beyond the last id"),
            some if !some.iter().any(|map| map.inside == 0 && map.length > 0) => invalid("no range has the id 0"),
            _ => Ok(all),
        }
    };
    Ok((of("uidMappings", linux.uid_mappings())?, of("gidMappings", linux.gid_mappings())?))
}

fn id_map(map: &oci::LinuxIdMapping) -> IdMap {
    IdMap { inside: map.container_id(), host: map.host_id(), length: map.size() }
}

/// An empty one would stand for a descriptor.
fn namespace_path(path: &Path) -> Result<String, ConfigError> {
    let text = path.to_string_lossy().into_owned();
    if text.is_empty() { Err(ConfigError::Invalid("linux.namespaces: an empty path".into())) } else { Ok(text) }
}

/// The CLONE_NEW* bit.
pub fn bit(kind: LinuxNamespaceType) -> u32 {
    use nix::libc;
    let bit = match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        // Refused before.
        LinuxNamespaceType::Time => 0,
    };
    bit as u32
}

pub fn hook(hook: &oci::Hook) -> Hook {
    Hook {
        path: hook.path().to_string_lossy().into_owned(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_default(),
        timeout_seconds: hook.timeout().and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0),
    }
}

fn node(device: &oci::LinuxDevice) -> Step {
    let kind = match device.typ() {
        oci::LinuxDeviceType::B => 0o060_000,
        oci::LinuxDeviceType::P => 0o010_000,
        _ => 0o020_000,
    };
    let number = |number: i64| u32::try_from(number).unwrap_or(0);
    Node {
        path: device.path().to_string_lossy().into_owned(),
        mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
        major: number(device.major()),
        minor: number(device.minor()),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
    .into()
}

/// A process as its sets say, which nobody's death ends.
pub fn process(given: &oci::Process, seccomp: Vec<u8>) -> Process {
    let user = given.user();
    let who = User {
        uid: Some(user.uid()),
        gid: Some(user.gid()),
        groups: user.additional_gids().clone().unwrap_or_default(),
        exact: true,
        ..User::default()
    };
    let sets = given.capabilities().as_ref();
    let of = |set: &Option<oci::Capabilities>| {
        set.iter().flatten().filter_map(|one| capability::bit(&one.to_string())).fold(0, |set, bit| set | 1 << bit)
    };
    let sets = sets.map_or_else(Sets::default, |sets| Sets {
        effective: of(sets.effective()),
        permitted: of(sets.permitted()),
        inheritable: of(sets.inheritable()),
        ambient: of(sets.ambient()),
    });
    Process { sets: Some(sets), umask: user.umask(), free: true, ..plan::process_of(given, &who, &seccomp) }
}

/// The root of a bundle.
///
/// # Errors
/// There is none.
pub fn root(spec: &Spec, bundle: &Path) -> Result<PathBuf, ConfigError> {
    let root = spec.root().as_ref().ok_or_else(|| ConfigError::Invalid("there is no `root`".into()))?;
    Ok(bundle.join(root.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_would_be_passed_over_is_refused_by_name() {
        for (config, expected) in [
            (json!({"process": {"scheduler": {"policy": "SCHED_FIFO"}}}), "process.scheduler"),
            (json!({"linux": {"resources": {"cpu": {"burst": 5}}}}), "linux.resources.cpu.burst"),
            (json!({"linux": {"resources": {"blockIO": {"leafWeight": 10}}}}), "blockIO.leafWeight"),
            (
                json!({"linux": {"resources": {"blockIO": {"weightDevice": [{"weight": 10}, {"leafWeight": 10}]}}}}),
                "weightDevice[].leafWeight",
            ),
            (json!({"linux": {"namespaces": [{"type": "time"}]}}), "namespaces: time"),
            (json!({"mounts": [{"destination": "/a"}, {"destination": "/b", "uidMappings": [{"size": 1}]}]}), "uidMappings of \"/b\""),
            (
                json!({"linux": {"uidMappings": [{"size": 1}]}, "mounts": [{"destination": "/b", "uidMappings": [{"size": 1}]}]}),
                "one without",
            ),
            (json!({"mounts": [{"destination": "/a", "type": "bind", "options": ["tmpcopyup"]}]}), "tmpcopyup of \"/a\""),
            (json!({"mounts": [{"destination": "/a", "type": "bind", "options": ["idmap"]}]}), "idmap of \"/a\""),
            (json!({"mounts": [{"destination": "/a", "options": ["rbind", "ridmap"]}]}), "ridmap of \"/a\""),
            (json!({"mounts": [{"destination": "/a", "options": ["remount", "size=5"]}]}), "size=5 of \"/a\""),
        ] {
            let refused = check(&config).map_err(|error| error.to_string());
            assert!(refused.as_ref().is_err_and(|text| text.contains(expected)), "{expected}: {refused:?}");
        }
        let empty = json!({"process": {"apparmorProfile": "strict", "selinuxLabel": ""}, "mounts": [{"uidMappings": []}],
            "linux": {"resources": {"cpu": {"burst": null, "realtimeRuntime": 0}, "rdma": {}, "memory": {"disableOOMKiller": false}},
            "timeOffsets": null, "intelRdt": {}, "namespaces": [{"type": "pid"}]}, "com.example/new": 1});
        assert_eq!(check(&empty), Ok(()));
    }

    #[test]
    fn capabilities_that_nobody_can_have_are_left_out_and_named() {
        let mut process = json!({"capabilities": {
            "bounding": ["CAP_KILL", "CAP_FROM_THE_FUTURE", 7], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL", "CAP_BPF"],
            "inheritable": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL", "CAP_CHOWN"]}});
        let lost = keep_grantable(Some(&mut process));
        let names = ["bounding: CAP_FROM_THE_FUTURE", "bounding: ", "inheritable: CAP_CHOWN", "effective: CAP_BPF", "ambient: CAP_CHOWN"];
        assert_eq!(lost, names);
        let kill = json!(["CAP_KILL"]);
        let left =
            json!({"bounding": kill, "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": kill, "inheritable": kill, "ambient": kill});
        assert_eq!(process, json!({"capabilities": left}));
        assert_eq!(keep_grantable(Some(&mut process)), [""; 0]);
        let mut without = json!({"capabilities": {"ambient": ["CAP_KILL"]}});
        assert_eq!(
            (keep_grantable(Some(&mut without)), without["capabilities"]["ambient"].clone()),
            (vec!["ambient: CAP_KILL".into()], json!([]))
        );
        for mut other in [json!({}), json!(null), json!({"capabilities": null}), json!({"capabilities": {"ambient": 7}})] {
            assert_eq!(keep_grantable(Some(&mut other)), [""; 0], "{other}");
        }
    }

    #[test]
    fn ids_are_those_of_a_user_namespace_that_has_a_root() {
        let of = |ids: serde_json::Value, new, joined| {
            let linux: oci::Linux = serde_json::from_value(json!({"uidMappings": ids, "gidMappings": ids})).unwrap();
            super::ids(&linux, new, joined).map(|(uids, gids)| (uids.len(), gids.len())).map_err(|error| error.to_string())
        };
        let range = |inside: u32, host: u32, size: u32| json!({"containerID": inside, "hostID": host, "size": size});
        let two = json!([range(0, 1000, 1), range(1, 100_000, 65_536)]);
        assert_eq!(
            [of(two.clone(), true, false), of(two.clone(), false, true), of(json!([]), false, true)],
            [Ok((2, 2)), Ok((2, 2)), Ok((0, 0))]
        );
        let many: Vec<_> = (0..341).map(|id| range(id, 5000 + id, 1)).collect();
        for (ids, new, expected) in [
            (two, false, "there is no user namespace"),
            (json!([]), true, "no range has the id 0"),
            (json!([range(1, 1000, 9)]), true, "no range has the id 0"),
            (json!([range(0, u32::MAX, 9)]), true, "beyond the last id"),
            (json!(many), true, "more ranges"),
        ] {
            let refused = of(ids, new, false);
            assert!(refused.as_ref().is_err_and(|text| text.contains(expected)), "{expected}: {refused:?}");
        }
    }

    #[test]
    fn nothing_of_the_host_is_set() {
        let make = |namespaces: &[&str], more: serde_json::Value| {
            let namespaces: Vec<_> = namespaces.iter().chain(&["mount"]).map(|kind| json!({"type": kind})).collect();
            let mut spec = json!({"ociVersion": "1.2.0", "process": {"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"},
                "root": {"path": "/r"}, "hostname": more["hostname"], "domainname": more["domainname"],
                "linux": {"namespaces": namespaces}});
            spec["linux"]["sysctl"] = more["sysctl"].clone();
            lone(&serde_json::from_value(spec).unwrap(), Ground::default())
        };
        for (namespace, more) in [
            ("network", json!({"sysctl": {"net.ipv4.ip_forward": "1"}})),
            ("network", json!({"sysctl": {"net/ipv4/ip_forward": "1"}})),
            ("ipc", json!({"sysctl": {"kernel.shmmax": "1", "kernel.sem": "1", "fs.mqueue.msg_max": "1"}})),
            ("uts", json!({"hostname": "a", "domainname": "b", "sysctl": {"kernel.domainname": "b"}})),
        ] {
            assert!(make(&[namespace], more.clone()).is_ok(), "{more}: {:?}", make(&[namespace], more.clone()).err());
            let others: Vec<&str> = ["network", "ipc", "uts"].into_iter().filter(|other| *other != namespace).collect();
            assert!(make(&others, more.clone()).is_err_and(|error| error.to_string().contains("the host's")), "{more}");
        }
        for name in ["kernel.core_pattern", "kernel/core_pattern", "vm.swappiness", "kernel.semx", "net", "../net.a"] {
            assert!(make(&["network", "ipc", "uts"], json!({"sysctl": {name: "1"}})).is_err(), "{name}");
        }
    }

    #[test]
    fn block_devices_are_weighed_and_throttled() {
        let of = |io: serde_json::Value| {
            let resources = serde_json::from_value(json!({"blockIO": io})).unwrap();
            block_io(Some(&resources)).map(|all| all.into_iter().map(|limit| format!("{} {}", limit.file, limit.value)).collect::<Vec<_>>())
        };
        let device = |field: &str, value: u64| json!([{"major": 8, "minor": 16, field: value}]);
        let io = json!({"weight": 1000, "weightDevice": device("weight", 10), "throttleReadBpsDevice": device("rate", 1),
            "throttleWriteBpsDevice": device("rate", 2), "throttleReadIOPSDevice": device("rate", 3), "throttleWriteIOPSDevice": device("rate", 4)});
        let expected = [
            "io.bfq.weight 1000",
            "io.bfq.weight 8:16 10",
            "io.max 8:16 rbps=1",
            "io.max 8:16 wbps=2",
            "io.max 8:16 riops=3",
            "io.max 8:16 wiops=4",
        ];
        assert_eq!(of(io), Ok(expected.map(str::to_owned).to_vec()));
        assert_eq!((of(json!({})), of(json!({"weight": 0}))), (Ok(Vec::new()), Ok(Vec::new())));
        for odd in [json!({"weight": 9}), json!({"weightDevice": device("weight", 1001)})] {
            assert!(of(odd.clone()).is_err_and(|error| error.to_string().contains("from 10 to 1000")), "{odd}");
        }
    }

    #[test]
    fn swap_is_counted_with_the_memory() {
        let of = |memory: serde_json::Value| limits(Some(&serde_json::from_value(json!({"memory": memory})).unwrap()));
        assert!(of(json!({"limit": 100, "swap": 99})).is_err_and(|error| error.to_string().contains("less than the 100 of memory")));
        for memory in
            [json!({"limit": 100, "swap": 100}), json!({"limit": 100, "swap": -1}), json!({"limit": -1, "swap": 5}), json!({"swap": 5})]
        {
            assert!(of(memory.clone()).is_ok(), "{memory}");
        }
    }

    #[test]
    fn a_limit_is_taken_away_by_minus_one() {
        let of = |resources: serde_json::Value| changes(&serde_json::from_value(resources).unwrap());
        let away = of(json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}})).unwrap();
        assert_eq!((away.memory_limit_bytes, away.pids_limit, away.cpu_quota), (UNLIMITED, UNLIMITED, -1));
        let some = of(json!({"memory": {"limit": 1 << 24, "swap": -1}, "pids": {"limit": 5}, "cpu": {"quota": 1000}})).unwrap();
        assert_eq!((some.memory_limit_bytes, some.pids_limit, some.cpu_quota), (1 << 24, 5, 1000));
        assert_eq!(of(json!({})).unwrap(), Resources::default());
        assert!(of(json!({"memory": {"swap": -1}})).is_err_and(|error| error.to_string().contains("memory.swap")));
    }

    #[test]
    fn a_cgroup_has_a_parent_and_a_name() {
        let with = |path: &str| -> Spec { serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": {"cgroupsPath": path}})).unwrap() };
        let of = |path: &str| cgroup(&with(path), "c1");
        assert_eq!(of("/a/b/c"), Ok(("a/b".into(), "c".into())));
        assert_eq!(of("c"), Ok((String::new(), "c".into())));
        assert_eq!(of(""), Ok(("podbay-oci".into(), "c1".into())));
        assert!(of("/a/../c").is_err() && of("/").is_err());
        assert!(of("system.slice:podbay:c").is_err_and(|error| error.to_string().contains("systemd")));
    }
}
