//! Turns an OCI runtime spec into the ordered list of steps the shim carries out. PURE.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{self as oci, LinuxNamespaceType, Spec};

use super::super::capability;
use super::super::wire::{
    Attach, Cgroup, Directory, Filesystem, Launch, LogFile, MakePrivate, Mask, OpenTree, Overlay, Pivot, Process, ReadOnly, Remount,
    Rlimit, Root, Seal, Sets, Step, Symlink, User,
};
use crate::cri::IdRange;

const READ_ONLY: u64 = 0x1;
const NO_SUID: u64 = 0x2;
const NO_DEVICES: u64 = 0x4;
const NO_EXEC: u64 = 0x8;
const NO_ACCESS_TIME: u64 = 0x10;
const STRICT_ACCESS_TIME: u64 = 0x20;
const NO_DIRECTORY_ACCESS_TIME: u64 = 0x80;
const NO_LINKS: u64 = 0x20_0000;
const UNBINDABLE: u64 = 1 << 17;
const PRIVATE: u64 = 1 << 18;
const SLAVE: u64 = 1 << 19;
const SHARED: u64 = 1 << 20;

/// Device nodes every container has, in /dev.
pub const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/kcore", "/dev/core"),
];

/// Whether this is the path of a node that every container has.
pub fn is_default_device(path: &Path) -> bool {
    path.parent() == Some(Path::new("/dev")) && DEVICES.iter().any(|name| path.file_name() == Some(name.as_ref()))
}

/// Whether something is at this path in every container's /dev: a node, a link or the console.
pub fn is_own_device(path: &Path) -> bool {
    is_default_device(path) || path == Path::new("/dev/console") || LINKS.iter().any(|(_, link)| path == Path::new(link))
}

/// What the spec does not say: where things are on this host.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The image's layers, topmost first.
    pub layers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The exit record.
    pub record: PathBuf,
    pub log: LogFile,
    pub cgroup: Cgroup,
    pub oom_file: String,
    /// v1 controllers to show in the container; none: the unified hierarchy.
    pub controllers: Vec<String>,
    pub user: User,
    /// sock_filter instructions.
    pub seccomp: Vec<u8>,
    pub privileged: bool,
    /// More device nodes of the host (privileged containers): where they are there, and where in the container's own /dev.
    pub devices: Vec<(PathBuf, PathBuf)>,
    /// Those that the container is given by name, wherever.
    pub given: Vec<(PathBuf, PathBuf)>,
    pub stdin: bool,
    /// The pod's user namespace.
    pub users: Option<IdRange>,
    pub stdin_once: bool,
    /// The container in whose PID namespace it is, if it is another's.
    pub processes_of: String,
    /// The spec's root is a directory that is mounted already.
    pub directory_as_root: bool,
    /// Of what is mounted of the host, what is made as a directory if it is not there.
    pub made: Vec<PathBuf>,
    /// What the host mounts later comes in.
    pub let_in: bool,
    /// Without a cgroup namespace: the controllers (v2: none) with the container's own directory in each.
    pub own_cgroups: Vec<(String, PathBuf)>,
}

/// The launch of the container that `spec` describes.
pub fn plan(spec: &Spec, place: &Place) -> Launch {
    let new = |kind| {
        let linux = spec.linux().as_ref();
        let all = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
        all.into_iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none())
    };
    Launch {
        record: text(&place.record),
        log: place.log.clone(),
        cgroup: place.cgroup.clone(),
        oom_file: place.oom_file.clone(),
        new_pid: new(LinuxNamespaceType::Pid),
        new_cgroup_namespace: new(LinuxNamespaceType::Cgroup),
        stdin: place.stdin,
        steps: steps(spec, place),
        process: process(spec, &place.user, &place.seccomp),
        commands: None,
        stdin_once: place.stdin_once,
        processes_of: place.processes_of.clone(),
    }
}

/// The process of the spec; also the pattern for commands run in the container.
pub fn process(spec: &Spec, user: &User, seccomp: &[u8]) -> Process {
    spec.process().as_ref().map(|process| process_of(process, user, seccomp)).unwrap_or_default()
}

/// Any process of OCI's.
pub fn process_of(process: &oci::Process, user: &User, seccomp: &[u8]) -> Process {
    let of = |set: &Option<oci::Capabilities>| {
        set.iter().flatten().filter_map(|c| capability::bit(&c.to_string())).fold(0, |set, bit| set | 1 << bit)
    };
    let sets = process.capabilities().as_ref().map(|sets| (of(sets.bounding()), of(sets.ambient())));
    let (capabilities, ambient) = sets.unwrap_or_default();
    let rlimit = |limit: &oci::PosixRlimit| Rlimit {
        // The numbers are the kernel's.
        resource: match limit.typ() {
            oci::PosixRlimitType::RlimitCpu => 0,
            oci::PosixRlimitType::RlimitFsize => 1,
            oci::PosixRlimitType::RlimitData => 2,
            oci::PosixRlimitType::RlimitStack => 3,
            oci::PosixRlimitType::RlimitCore => 4,
            oci::PosixRlimitType::RlimitRss => 5,
            oci::PosixRlimitType::RlimitNproc => 6,
            oci::PosixRlimitType::RlimitNofile => 7,
            oci::PosixRlimitType::RlimitMemlock => 8,
            oci::PosixRlimitType::RlimitAs => 9,
            oci::PosixRlimitType::RlimitLocks => 10,
            oci::PosixRlimitType::RlimitSigpending => 11,
            oci::PosixRlimitType::RlimitMsgqueue => 12,
            oci::PosixRlimitType::RlimitNice => 13,
            oci::PosixRlimitType::RlimitRtprio => 14,
            oci::PosixRlimitType::RlimitRttime => 15,
        },
        soft: limit.soft(),
        hard: limit.hard(),
    };
    Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: text(process.cwd()),
        user: user.clone(),
        capabilities,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        seccomp: seccomp.to_vec(),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect(),
        oom_score_adj: process.oom_score_adj(),
        tty: process.terminal().unwrap_or(false),
        // Root has its own by executing something; another user's are these alone.
        sets: (ambient != 0).then_some(Sets { effective: ambient, permitted: capabilities, inheritable: ambient, ambient }),
        apparmor: process.apparmor_profile().clone().unwrap_or_default(),
        ..Process::default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

struct Steps<'a> {
    place: &'a Place,
    /// Sources that propagate, opened while they still do.
    open: Vec<Step>,
    /// Other sources of the host, opened before anything is mounted.
    private: Vec<Step>,
    /// Everything after that.
    then: Vec<Step>,
}

fn steps(spec: &Spec, place: &Place) -> Vec<Step> {
    let mut all = Steps { place, open: Vec::new(), private: Vec::new(), then: Vec::new() };
    let root = spec.root().as_ref();
    let at = root.map(|root| text(root.path())).unwrap_or_default();
    let overlay = Overlay {
        lower: place.layers.iter().map(|layer| text(layer)).collect(),
        upper: text(&place.upper),
        work: text(&place.work),
        at: at.clone(),
        attributes: if place.privileged { 0 } else { NO_DEVICES },
        id_mapped: place.users.is_some(),
    };
    for mount in spec.mounts().iter().flatten() {
        all.mount(mount);
    }
    // Once every volume is there, as other runtimes have it.
    for (host, path) in place.given.iter().filter(|given| !place.devices.contains(given)) {
        all.device(host, path);
    }
    let linux = spec.linux().as_ref();
    for path in linux.and_then(|linux| linux.masked_paths().as_ref()).into_iter().flatten() {
        all.then.push(Mask { path: path.clone() }.into());
    }
    for path in linux.and_then(|linux| linux.readonly_paths().as_ref()).into_iter().flatten() {
        all.then.push(ReadOnly { path: path.clone() }.into());
    }
    if root.and_then(|root| root.readonly()).unwrap_or(false) {
        let directory = spec.process().as_ref().map(|process| text(process.cwd())).unwrap_or_default();
        all.then.push(Seal { directory }.into());
    }
    all.then.push(Pivot {}.into());
    let private = [MakePrivate { let_in: place.let_in }.into()];
    let base: Step = if place.directory_as_root { Root { path: at }.into() } else { overlay.into() };
    all.open.into_iter().chain(private).chain(all.private).chain([base]).chain(all.then).collect()
}

impl Steps<'_> {
    fn mount(&mut self, mount: &oci::Mount) {
        let target = text(mount.destination());
        let all = mount.options().as_deref().unwrap_or_default();
        let says = |wanted: &str| all.iter().any(|option| option == wanted);
        let Options { attributes, cleared, propagation, rest } = options(all);
        let recursive = says("rbind");
        match mount.typ().as_deref() {
            _ if says("remount") => self.then.push(Remount { path: target, set: attributes, clear: cleared & !attributes }.into()),
            kind if recursive || says("bind") || kind == Some("bind") => {
                let source = mount.source().as_deref();
                let make = source.is_some_and(|source| self.place.made.iter().any(|path| path == source));
                let source = source.map(text).unwrap_or_default();
                let id_mapped = says("idmap") || mount.uid_mappings().as_ref().is_some_and(|all| !all.is_empty());
                let tree = OpenTree { source, recursive, id_mapped, make, ..OpenTree::default() };
                let only_top = if says("rro") { 0 } else { attributes & READ_ONLY };
                self.bind(tree, Attach { slot: 0, target, attributes, propagation, follow: true, only_top });
            }
            Some("cgroup" | "cgroup2") => self.cgroup(&target, attributes),
            kind => {
                let kind = kind.unwrap_or_default().to_owned();
                let nodes = kind == "tmpfs" && target == "/dev";
                let attributes = attributes | if nodes && !self.place.privileged { NO_DEVICES } else { 0 };
                let optional = kind == "mqueue";
                let options = rest.into_iter().map(|option| self.on_host(option)).collect();
                self.then.push(Filesystem { kind, options, attributes, target, optional, copy_up: says("tmpcopyup") }.into());
                if nodes {
                    self.devices();
                }
            }
        }
    }

    /// An owner that a file system is given, in the host's ids: it is mounted from there.
    fn on_host(&self, (name, value): (String, String)) -> (String, String) {
        let range = self.place.users.filter(|_| name == "uid" || name == "gid");
        let id = range.zip(value.parse().ok()).and_then(|(range, id)| range.on_host(id));
        (name, id.map_or(value, |id| id.to_string()))
    }

    fn bind(&mut self, tree: OpenTree, attach: Attach) {
        let slot = u32::try_from(self.open.len() + self.private.len()).unwrap_or(u32::MAX);
        let is_private = matches!(attach.propagation, 0 | PRIVATE | UNBINDABLE);
        // So is everything by then, unless what the host mounts is let in.
        let propagation = if attach.propagation == PRIVATE && !self.place.let_in { 0 } else { attach.propagation };
        let opened = if is_private { &mut self.private } else { &mut self.open };
        opened.push(OpenTree { slot, ..tree }.into());
        self.then.push(Attach { slot, propagation, ..attach }.into());
    }

    /// The host's nodes, bound one by one: /dev itself and everything else is `nodev`, so nodes made in the
    /// container open nothing. Read-only, which keeps nobody from writing to a device: only its mode and owner,
    /// which are the host's as well, stay as they are.
    fn devices(&mut self) {
        for path in DEVICES.iter().map(|name| PathBuf::from("/dev").join(name)) {
            self.device(&path, &path);
        }
        for (host, path) in self.place.devices.iter().filter(|(_, path)| !is_default_device(path)) {
            self.device(host, path);
        }
        for (content, path) in LINKS {
            self.then.push(Symlink { content: content.into(), path: path.into() }.into());
        }
    }

    fn device(&mut self, host: &Path, path: &Path) {
        let tree = OpenTree { source: text(host), ..OpenTree::default() };
        self.bind(tree, Attach { target: text(path), attributes: READ_ONLY, ..Attach::default() });
    }

    fn own_cgroup(&mut self, own: &Path, target: String, attributes: u64) {
        let tree = OpenTree { source: text(own), ..OpenTree::default() };
        self.bind(tree, Attach { target, attributes, follow: true, ..Attach::default() });
    }

    fn cgroup(&mut self, target: &str, attributes: u64) {
        let new = |kind: &str, options: &[(&str, &str)], attributes, target: String| {
            let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Filesystem { kind: kind.into(), options, attributes, target, optional: true, copy_up: false }.into()
        };
        if let [(_, only)] = self.place.own_cgroups.as_slice()
            && self.place.controllers.is_empty()
        {
            return self.own_cgroup(only, target.to_owned(), attributes);
        }
        if self.place.controllers.is_empty() {
            self.then.push(new("cgroup2", &[], attributes, target.to_owned()));
            return;
        }
        self.then.push(new("tmpfs", &[("mode", "755")], attributes & !READ_ONLY, target.to_owned()));
        for controller in &self.place.controllers {
            let at = format!("{target}/{controller}");
            self.then.push(Directory { path: at.clone(), mode: 0o755 }.into());
            match self.place.own_cgroups.iter().find(|(name, _)| name == controller) {
                Some((_, own)) => self.own_cgroup(own, at, attributes),
                None => self.then.push(new("cgroup", &[(controller, "")], attributes, at)),
            }
        }
        if attributes & READ_ONLY != 0 {
            self.then.push(ReadOnly { path: target.to_owned() }.into());
        }
    }
}

/// What a mount's options say.
#[derive(Default)]
struct Options {
    attributes: u64,
    /// Attributes that are denied by name.
    cleared: u64,
    propagation: u64,
    /// What is left for the file system.
    rest: Vec<(String, String)>,
}

fn options(all: &[String]) -> Options {
    let Options { mut attributes, mut cleared, mut propagation, mut rest } = Options::default();
    for option in all {
        match option.as_str() {
            "ro" | "rro" => attributes |= READ_ONLY,
            "nosuid" | "rnosuid" => attributes |= NO_SUID,
            "nodev" | "rnodev" => attributes |= NO_DEVICES,
            "noexec" | "rnoexec" => attributes |= NO_EXEC,
            "noatime" => attributes |= NO_ACCESS_TIME,
            "strictatime" => attributes |= STRICT_ACCESS_TIME,
            "nodiratime" => attributes |= NO_DIRECTORY_ACCESS_TIME,
            "nosymfollow" => attributes |= NO_LINKS,
            "private" | "rprivate" => propagation = PRIVATE,
            "slave" | "rslave" => propagation = SLAVE,
            "shared" | "rshared" => propagation = SHARED,
            "unbindable" | "runbindable" => propagation = UNBINDABLE,
            "rw" => cleared |= READ_ONLY,
            "suid" => cleared |= NO_SUID,
            "dev" => cleared |= NO_DEVICES,
            "exec" => cleared |= NO_EXEC,
            "bind" | "rbind" | "newinstance" | "relatime" | "atime" | "diratime" | "defaults" | "idmap" | "remount" | "tmpcopyup" => {}
            other => {
                let (key, value) = other.split_once('=').unwrap_or((other, ""));
                rest.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Options { attributes, cleared, propagation, rest }
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::{Surroundings, spec};
    use super::*;
    use crate::cri::{ContainerConfig, Mount};

    fn launch(change: impl FnOnce(&mut ContainerConfig)) -> Launch {
        let mut config = ContainerConfig { command: vec!["sh".into()], ..ContainerConfig::default() };
        change(&mut config);
        let around = Surroundings { root: "/r".into(), files: "/f".into(), shm: "/s".into(), ..Surroundings::default() };
        let place = Place { layers: vec!["/l2".into(), "/l1".into()], privileged: config.security.privileged, ..Place::default() };
        planned(&config, &around, &place)
    }

    fn planned(config: &ContainerConfig, around: &Surroundings, place: &Place) -> Launch {
        let image = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        plan(&spec(config, &serde_json::from_str(image).unwrap(), around, None).unwrap(), place)
    }

    #[test]
    fn sources_are_opened_first_and_the_root_changes_last() {
        let launch = launch(|_| {});
        let private = launch.steps.iter().position(|s| matches!(s, Step::MakePrivate(_))).unwrap();
        let root = launch.steps.iter().position(|s| matches!(s, Step::Overlay(_))).unwrap();
        assert_eq!(private, 0, "nothing here propagates");
        for (index, step) in launch.steps.iter().enumerate() {
            assert_eq!(matches!(step, Step::OpenTree(_)), (1..root).contains(&index), "{step:?}");
        }
        assert!(matches!(&launch.steps[root], Step::Overlay(o) if o.lower == ["/l2", "/l1"] && o.attributes == NO_DEVICES));
        assert!(matches!(launch.steps.last(), Some(Step::Pivot(_))));
        let slots: Vec<u32> = launch
            .steps
            .iter()
            .filter_map(|s| match s {
                Step::Attach(a) => Some(a.slot),
                _ => None,
            })
            .collect();
        assert_eq!(slots, (0..u32::try_from(root - 1).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_but_nodes_of_the_host_opens_devices() {
        let launch = launch(|config| {
            config.mounts = vec![Mount {
                container_path: "/data".into(),
                host_path: "/h".into(),
                readonly: true,
                propagation: "rslave".into(),
                ..Mount::default()
            }];
        });
        for step in &launch.steps {
            match step {
                Step::Filesystem(fs) if fs.kind != "devpts" => assert!(fs.attributes & NO_DEVICES != 0, "{fs:?}"),
                Step::Attach(attach) if attach.target == "/data" => {
                    assert_eq!((attach.attributes, attach.propagation, attach.follow), (READ_ONLY | NO_DEVICES, SLAVE, true));
                    assert_eq!(attach.only_top, READ_ONLY);
                }
                Step::Attach(attach) if attach.follow => assert!(attach.attributes & NO_DEVICES != 0, "{attach:?}"),
                Step::Attach(attach) => {
                    assert!(attach.target.starts_with("/dev/") && attach.attributes == READ_ONLY, "{attach:?}");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_device_that_is_given_is_there_once_whatever_is_mounted() {
        let config = ContainerConfig {
            command: vec!["sh".into()],
            mounts: vec![Mount { container_path: "/data".into(), host_path: "/h".into(), ..Mount::default() }],
            ..ContainerConfig::default()
        };
        let around = Surroundings { root: "/r".into(), files: "/f".into(), shm: "/s".into(), ..Surroundings::default() };
        let pair = |host: &str, path: &str| (PathBuf::from(host), PathBuf::from(path));
        let place = Place {
            devices: vec![pair("/dev/fuse", "/dev/fuse"), pair("/dev/null", "/dev/null")],
            given: vec![pair("/dev/fuse", "/dev/fuse"), pair("/dev/kvm", "/data/kvm")],
            ..Place::default()
        };
        let launch = planned(&config, &around, &place);
        let target = |step: &Step| if let Step::Attach(attach) = step { attach.target.clone() } else { String::new() };
        let targets: Vec<String> = launch.steps.iter().map(target).collect();
        let at = |path: &str| targets.iter().position(|target| target == path).unwrap();
        assert!(at("/data") < at("/data/kvm"), "{targets:?}");
        for path in ["/dev/fuse", "/dev/null", "/data/kvm"] {
            assert_eq!(targets.iter().filter(|target| *target == path).count(), 1, "{path}");
        }
        let source = |step: &Step| matches!(step, Step::OpenTree(tree) if tree.source == "/dev/kvm" && !tree.recursive);
        assert!(launch.steps.iter().any(source));
    }

    #[test]
    fn what_lies_below_a_read_only_mount_is_so_where_that_is_asked_for() {
        let launch = launch(|config| {
            let mount = |path: &str, deep| Mount {
                container_path: path.into(),
                host_path: path.into(),
                readonly: true,
                recursive_readonly: deep,
                ..Mount::default()
            };
            config.mounts = vec![mount("/a", false), mount("/b", true)];
        });
        let at = |path: &str| {
            launch.steps.iter().find_map(|step| match step {
                Step::Attach(attach) if attach.target == path => Some((attach.attributes & READ_ONLY, attach.only_top)),
                _ => None,
            })
        };
        assert_eq!((at("/a"), at("/b")), (Some((READ_ONLY, READ_ONLY)), Some((READ_ONLY, 0))));
    }

    #[test]
    fn volumes_alone_are_made() {
        let mut config = ContainerConfig { command: vec!["sh".into()], ..ContainerConfig::default() };
        config.mounts = vec![Mount { container_path: "/mnt".into(), host_path: "/srv/data".into(), ..Mount::default() }];
        let around = Surroundings { root: "/r".into(), files: "/f".into(), shm: "/s".into(), ..Surroundings::default() };
        let made = |place: Place| -> Vec<String> {
            let of = |step: &Step| match step {
                Step::OpenTree(tree) if tree.make => Some(tree.source.clone()),
                _ => None,
            };
            planned(&config, &around, &place).steps.iter().filter_map(of).collect()
        };
        assert_eq!(made(Place { made: vec!["/srv/data".into()], ..Place::default() }), ["/srv/data"]);
        assert!(made(Place::default()).is_empty());
    }

    #[test]
    fn what_propagates_is_opened_while_it_does() {
        let launch = launch(|config| {
            let mount = |path: &str, propagation: &str| Mount {
                container_path: path.into(),
                host_path: path.into(),
                propagation: propagation.into(),
                ..Mount::default()
            };
            config.mounts = vec![mount("/a", ""), mount("/b", "rshared")];
        });
        let at = |path: &str| launch.steps.iter().position(|s| matches!(s, Step::OpenTree(tree) if tree.source == path)).unwrap();
        let private = launch.steps.iter().position(|s| matches!(s, Step::MakePrivate(_))).unwrap();
        assert!(at("/b") < private && private < at("/a"));
    }

    #[test]
    fn what_is_private_is_made_so_where_the_host_is_let_in() {
        let mut config = ContainerConfig { command: vec!["sh".into()], ..ContainerConfig::default() };
        config.mounts = vec![Mount { container_path: "/a".into(), host_path: "/a".into(), ..Mount::default() }];
        for (let_in, expected) in [(false, 0), (true, PRIVATE)] {
            let launch = planned(&config, &Surroundings::default(), &Place { let_in, ..Place::default() });
            let attached = |step: &Step| match step {
                Step::Attach(attach) if attach.target == "/a" => Some(attach.propagation),
                _ => None,
            };
            assert_eq!(launch.steps.iter().find_map(attached), Some(expected));
        }
    }

    #[test]
    fn a_pods_user_namespace_owns_what_is_made_for_it() {
        let range = IdRange { host: 131_072, length: 65_536 };
        let mut config = ContainerConfig { command: vec!["sh".into()], ..ContainerConfig::default() };
        let mount = |path: &str, ids| Mount { container_path: path.into(), host_path: path.into(), ids, ..Mount::default() };
        config.mounts = vec![mount("/mapped", Some(range)), mount("/plain", None), mount("/dev/zero", Some(range))];
        let around =
            Surroundings { root: "/r".into(), files: "/f".into(), shm: "/s".into(), users: Some(range), ..Surroundings::default() };
        let launch = planned(&config, &around, &Place { users: Some(range), ..Place::default() });
        let mapped = |step: &Step| match step {
            Step::OpenTree(tree) if tree.id_mapped => Some(tree.source.clone()),
            _ => None,
        };
        let sources: Vec<String> = launch.steps.iter().filter_map(mapped).collect();
        assert_eq!(sources, ["/f/hosts", "/f/hostname", "/f/resolv.conf", "/mapped"], "no device, and no tmpfs of the engine's");
        assert!(launch.steps.iter().any(|step| matches!(step, Step::Overlay(overlay) if overlay.id_mapped)));
        let terminals = launch.steps.iter().find_map(|step| match step {
            Step::Filesystem(fs) if fs.kind == "devpts" => Some(fs.options.clone()),
            _ => None,
        });
        assert!(terminals.unwrap().contains(&("gid".to_owned(), "131077".to_owned())));
    }

    #[test]
    fn a_read_only_root_is_sealed_after_the_mounts_and_before_the_root_changes() {
        let launch = launch(|config| {
            config.security.readonly_rootfs = true;
            config.working_dir = "/srv/app".into();
        });
        let count = launch.steps.len();
        assert!(matches!(&launch.steps[count - 2..], [Step::Seal(seal), Step::Pivot(_)] if seal.directory == "/srv/app"));
    }

    #[test]
    fn privileged_masks_nothing_and_keeps_all_capabilities() {
        let launch = launch(|config| config.security.privileged = true);
        assert!(!launch.steps.iter().any(|s| matches!(s, Step::Mask(_) | Step::ReadOnly(_))));
        assert_eq!(launch.process.capabilities, capability::ALL);
    }
}
