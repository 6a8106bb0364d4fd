//! Drives another OCI runtime for the containers of a sandbox that asks for one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::fs::{FileType, OFlags, ResolveFlags};

use super::super::account::{self, Account};
use super::super::container::user_of;
use super::super::devices::Node;
use super::super::engine::Inner;
use super::super::record::{self, ContainerRecord};
use super::super::shim::ShimError;
use super::super::wire::{self, Attach, Commands, Launch, MakePrivate, MapIds, OpenTree, Process, Root, Step};
use super::super::{RuntimeError, capability, errand, nodes};
use super::bundle::{self, Host};
use crate::cri::{CriError, PodSandboxConfig};
use crate::inside;

const ACCOUNT_FILES: [&str; 2] = ["etc/passwd", "etc/group"];
/// An account file of an image is read up to this size.
const ACCOUNTS_LIMIT: u64 = 1 << 20;
/// A runtime signals and deletes at once, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// The name that means ours, as the empty one does.
pub const OWN: &str = "podbay";

/// Another runtime, as one container uses it.
pub struct Handler {
    program: PathBuf,
    /// What it knows of the sandbox's containers.
    state: PathBuf,
    /// The container's bundle, and what is said about it.
    bundle: PathBuf,
    id: String,
}

/// Handlers whose program is not there or cannot be executed, as sentences.
pub fn lacks(handlers: &BTreeMap<String, PathBuf>) -> Vec<String> {
    // One without a path is looked for when it is wanted.
    let is_program = |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let missing = handlers.iter().filter(|(_, program)| program.is_absolute() && !is_program(program));
    missing
        .map(|(name, program)| format!("runtime handler {name}: {} is no program here: its pods do not start", program.display()))
        .collect()
}

impl Inner {
    /// Whether a sandbox may ask for this handler.
    pub fn check_handler(&self, name: &str) -> Result<(), CriError> {
        if name.is_empty() || name == OWN || self.options.handlers.contains_key(name) {
            return Ok(());
        }
        // containerd's words, which people look for.
        Err(CriError::Invalid(format!("no runtime for {name:?} is configured")))
    }

    /// The other runtime of a container; none: it is ours. A pod whose handler nobody knows any more is not ours for that.
    pub fn handler(&self, pod: &PodSandboxConfig, record: &ContainerRecord) -> Result<Option<Handler>, CriError> {
        let run = self.options.sandbox_run_dir(&record.sandbox_id);
        // A container of an earlier version does not say.
        let program = record.handler.clone().or_else(|| self.options.handlers.get(&pod.runtime_handler).cloned());
        let Some(program) = program else { return self.check_handler(&pod.runtime_handler).map(|()| None) };
        Ok(Some(Handler { program, state: run.join("oci"), bundle: run.join(&record.id), id: record.id.clone() }))
    }

    /// The same for what is to end, as far as it is known.
    pub fn known_handler(&self, record: &ContainerRecord) -> Option<Handler> {
        let pod = self.table().sandboxes.get(&record.sandbox_id).map(|sandbox| sandbox.record.config.clone())?;
        self.handler(&pod, record).ok().flatten()
    }

    /// Writes a container's bundle; returns its spec.
    pub fn make_bundle(
        &self,
        handler: &Handler,
        pod: &PodSandboxConfig,
        shim_pid: i32,
        record: &ContainerRecord,
        spec: Spec,
    ) -> Result<Spec, RuntimeError> {
        let account = account_of(record)?;
        let privileged = record.config.security.privileged;
        let every = if privileged { nodes::all() } else { Vec::new() };
        let given: Vec<Node> =
            nodes::named(&record.config)?.into_iter().filter(|one| every.iter().all(|known| known.path != one.path)).collect();
        let devices = [every, given].concat();
        let mut host = Host { every_device: privileged, devices, ..host_of(pod, shim_pid) };
        host.held = host.held.filter(|_| privileged);
        host.joins_processes = !record.config.security.processes_of.is_empty() && host.pod_init.is_none();
        let invalid = |cause| CriError::failed(format!("write the bundle of container {}", record.id), cause);
        let spec = bundle::spec(spec, &account, &host).map_err(invalid)?;
        let shared = bundle::shared(&spec).next().map(|_| handler.shared());
        for dir in [&handler.state, &handler.bundle].into_iter().chain(&shared) {
            std::fs::create_dir_all(dir).map_err(RuntimeError::file("make the directory", dir))?;
        }
        let path = handler.bundle.join("config.json");
        record::write(&path, &bundle::as_mounted(spec.clone(), &handler.shared(), &forbidden))
            .map_err(RuntimeError::file("write", &path))?;
        Ok(spec)
    }

    /// A command in a container of another runtime, with the directory that is its own until it runs: two may want a
    /// terminal at a time.
    pub fn handler_exec(
        &self,
        handler: &Handler,
        spec: &Spec,
        command: Vec<String>,
        env: Vec<String>,
        tty: bool,
    ) -> Result<(Commands, PathBuf), RuntimeError> {
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_args(Some(command)).set_env(Some(env)).set_terminal(Some(tty));
        let name = uuid::Uuid::new_v4().simple().to_string();
        let own = handler.bundle.join(format!("exec-{name}"));
        std::fs::create_dir(&own).map_err(RuntimeError::file("make the directory", &own))?;
        let [described, pid_file] = ["process.json", "pid"].map(|file| own.join(file));
        let written = record::write(&described, &process).map_err(RuntimeError::file("write", &described));
        if written.is_err() {
            std::fs::remove_dir_all(&own).ok();
        }
        written?;
        let mut words = handler.words(&own, &["exec", "--detach", "--process", &text(&described), "--pid-file", &text(&pid_file)]);
        words.extend(if tty { console() } else { Vec::new() });
        words.push(handler.id.clone());
        Ok((commands(vec![words], &own, tty), own))
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn console() -> Vec<String> {
    ["--console-socket", "tty"].map(str::to_owned).to_vec()
}

/// Each source once, and before what it lies in: that hides it.
fn mapped(steps: &[Step]) -> Vec<Step> {
    let source = |step: &Step| match step {
        Step::OpenTree(tree) if tree.id_mapped => Some(tree.source.clone()),
        _ => None,
    };
    let sources: std::collections::BTreeSet<String> = steps.iter().filter_map(source).collect();
    sources.into_iter().rev().map(|path| MapIds { path }.into()).collect()
}

/// What is opened for no more than that it is there.
fn made(steps: &[Step]) -> Vec<Step> {
    let of = |step: &Step| match step {
        Step::OpenTree(tree) if tree.make => Some(OpenTree { id_mapped: false, ..tree.clone() }.into()),
        _ => None,
    };
    steps.iter().filter_map(of).collect()
}

/// What is opened as it is shared with the host, and put into a directory once nothing else is any more: that only what the
/// container is to mount in reaches the host.
fn shared(spec: &Spec, at: &Path) -> (Vec<Step>, Vec<Step>) {
    let one = |slot: u32, (number, mount): (usize, &oci_spec::runtime::Mount)| {
        let recursive = mount.options().iter().flatten().any(|option| option == "rbind");
        let source = mount.source().as_deref().map(text).unwrap_or_default();
        let open = OpenTree { slot, source, recursive, make: true, ..OpenTree::default() };
        let attach = Attach { slot, target: format!("/{number}"), ..Attach::default() };
        (Step::from(open), Step::from(attach))
    };
    let (open, attach): (Vec<_>, Vec<_>) = (0..).zip(bundle::shared(spec)).map(|(slot, mount)| one(slot, mount)).unzip();
    let directory = (!attach.is_empty()).then(|| Root { path: text(at) }.into());
    (open, directory.into_iter().chain(attach).collect())
}

/// To be run with their files in a directory.
fn commands(all: Vec<Vec<String>>, directory: &Path, tty: bool) -> Commands {
    let console = if tty { text(directory) } else { String::new() };
    Commands { all, pid_file: text(&directory.join("pid")), console, log: text(&directory.join("log.json")) }
}

impl Handler {
    /// The runtime's command line up to and with these words; it writes its log to a directory.
    fn words(&self, directory: &Path, verb: &[&str]) -> Vec<String> {
        let log = text(&directory.join("log.json"));
        let global = [&text(&self.program), "--root", &text(&self.state), "--log", &log, "--log-format", "json"];
        global.into_iter().chain(verb.iter().copied()).map(str::to_owned).collect()
    }

    /// Where the runtime finds what is shared with the host.
    fn shared(&self) -> PathBuf {
        self.bundle.join("shared")
    }

    /// Our launch, started by the other runtime: of the steps only the root is left, what is shown with other ids and what is
    /// shared with the host, which are mounted where that runtime alone sees them.
    pub fn launch(&self, ours: Launch, spec: &Spec) -> Launch {
        let pid_file = self.bundle.join("pid");
        let tty = ours.process.tty;
        let mut create = self.words(&self.bundle, &["create", "--bundle", &text(&self.bundle), "--pid-file", &text(&pid_file)]);
        create.extend(if tty { console() } else { Vec::new() });
        create.push(self.id.clone());
        let (open, shared) = shared(spec, &self.shared());
        let private = [MakePrivate { let_in: true }.into()];
        let apart = [shared, made(&ours.steps), mapped(&ours.steps)].concat();
        let root = ours.steps.into_iter().find(|step| matches!(step, Step::Overlay(_)));
        Launch {
            cgroup: wire::Cgroup::default(),
            new_pid: false,
            new_cgroup_namespace: false,
            steps: open.into_iter().chain(private).chain(apart).chain(root).collect(),
            process: Process { tty, ..Process::default() },
            commands: Some(commands(vec![create, self.words(&self.bundle, &["start", &self.id])], &self.bundle, tty)),
            ..ours
        }
    }

    /// Has the runtime send a signal.
    pub fn kill(&self, signal: i32) -> Result<(), String> {
        self.run(&["kill", &self.id, &signal.to_string()])
    }

    /// Has the runtime take away what it has of the container, running or not. No error when it knows of none.
    pub fn delete(&self) -> Result<(), String> {
        if !self.state.join(&self.id).exists() {
            return Ok(());
        }
        self.run(&["delete", "--force", &self.id])
    }

    fn run(&self, verb: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).args(verb);
        errand::run(&mut command, "", PATIENCE).map_err(|cause| format!("{} {}: {cause}", self.program.display(), verb[0]))
    }
}

/// What the runtime says of itself, in the place of the line of its log.
pub fn explained(error: RuntimeError) -> RuntimeError {
    let RuntimeError::Shim(ShimError::Refused(mut failed)) = error else { return error };
    let line: Option<serde_json::Value> = serde_json::from_str(&failed.cause).ok();
    if let Some(message) = line.as_ref().and_then(|line| line.get("msg")?.as_str()) {
        message.clone_into(&mut failed.cause);
    }
    ShimError::Refused(failed).into()
}

/// Who the container runs as, by the account files of its image.
pub fn account_of(record: &ContainerRecord) -> Result<Account, RuntimeError> {
    let user = user_of(record);
    let read = |file: &str| record.layers.iter().find_map(|layer| account_file(layer, file)).unwrap_or_default();
    let [passwd, group] = ACCOUNT_FILES.map(read);
    let account = account::resolve(&user, &passwd, &group).map_err(ShimError::Refused)?;
    if user.non_root && account.uid == 0 {
        return Err(CriError::failed("start the container", "it must not run as root, and its user is uid 0").into());
    }
    Ok(account)
}

/// The same for whoever asks before the start. One that is not known is refused, unless only the container itself can tell.
pub fn known_account(record: &ContainerRecord) -> Result<Option<Account>, RuntimeError> {
    match account_of(record) {
        Ok(account) => Ok(Some(account)),
        Err(RuntimeError::Shim(unknown @ ShimError::Refused(_))) if ACCOUNT_FILES.iter().all(|file| is_the_containers(record, file)) => {
            Err(CriError::Invalid(unknown.to_string()).into())
        }
        // Its start tells.
        Err(_) => Ok(None),
    }
}

/// Whether a file of the image is what the container will find: nothing is mounted over it, and no link leads to it, which
/// one layer alone may not be able to follow.
fn is_the_containers(record: &ContainerRecord, file: &str) -> bool {
    let at = Path::new("/").join(file);
    if record.config.mounts.iter().any(|mount| at.starts_with(&mount.container_path)) {
        return false;
    }
    let look = |layer: &PathBuf| {
        let layer = File::open(layer).map_err(|_| rustix::io::Errno::IO)?;
        inside::open(&layer, file, OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    };
    let first = record.layers.iter().map(look).find(|found| !matches!(found, Err(rustix::io::Errno::NOENT)));
    first.is_none_or(|found| found.is_ok())
}

/// A file of one layer; none: a lower one may have it. Hostile: no link leads out of the layer, and nothing but a plain
/// file has content (where a layer has deleted it stands a device).
fn account_file(layer: &Path, file: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let layer: OwnedFd = File::open(layer).ok()?.into();
    let found = match inside::open(&layer, file, flags, resolve) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT) => return None,
        Err(_) => return Some(String::new()),
    };
    let plain = rustix::fs::fstat(&found).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if plain {
        File::from(found).take(ACCOUNTS_LIMIT).read_to_end(&mut bytes).ok();
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn host_of(pod: &PodSandboxConfig, shim_pid: i32) -> Host {
    let resource = capability::bit("SYS_RESOURCE").unwrap_or(64);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    let own_score = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let may_lower = effective.is_some_and(|set| set >> resource & 1 == 1);
    Host {
        users: pod.users.and_then(|_| users(shim_pid)),
        stages: bundle::stages().filter(|stage| stage.is_dir()).collect(),
        pod_init: if pod.share_process_namespace && !pod.host_pid { pod_init(shim_pid) } else { None },
        host_network: pod.host_network,
        most_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX),
        least_oom_score: if may_lower { None } else { own_score },
        held: effective,
        ..Host::default()
    }
}

/// What the mount that a path of the host is on forbids, or does not keep, as options of one.
fn forbidden(path: &Path) -> Vec<String> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let set = rustix::fs::statvfs(path).map_or(Flags::empty(), |found| found.f_flag);
    let forbids = [(Flags::RDONLY, "ro"), (Flags::NOSUID, "nosuid"), (Flags::NODEV, "nodev"), (Flags::NOEXEC, "noexec")];
    let all = forbids.into_iter().chain([(Flags::NOATIME, "noatime"), (Flags::NODIRATIME, "nodiratime")]);
    all.filter(|(flag, _)| set.contains(*flag)).map(|(_, name)| name.to_owned()).collect()
}

/// What the shim holds the pod's user namespace by.
fn users(shim_pid: i32) -> Option<PathBuf> {
    let open = std::fs::read_dir(format!("/proc/{shim_pid}/fd")).ok()?.flatten().map(|entry| entry.path());
    open.into_iter().find(|path| std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("user:[")))
}

/// The child of the shim that is the first process of the pod's PID namespace.
fn pod_init(shim_pid: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{shim_pid}/task/{shim_pid}/children")).unwrap_or_default();
    let is_init = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "podbay-init");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_init)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_word_on_a_user_is_the_last_only_where_the_container_finds_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let layers = ["top", "low"].map(|name| dir.path().join(name));
        layers.iter().for_each(|layer| std::fs::create_dir_all(layer.join("etc")).unwrap());
        std::fs::write(layers[1].join("etc/passwd"), "app:x:7:8::/:\n").unwrap();
        let made = serde_json::json!({"version": 1, "id": "c", "sandbox_id": "s", "config": {}, "image_id": "i", "created_at": "1970-01-01T00:00:00Z"});
        let mut record: ContainerRecord = serde_json::from_value(made).unwrap();
        record.layers = layers.to_vec();
        let known = |record: &ContainerRecord, user: &str| {
            let mut record = record.clone();
            record.config.security.run_as_username = user.to_owned();
            known_account(&record).map(|account| account.map(|account| account.uid))
        };
        assert_eq!(known(&record, "app").unwrap(), Some(7));
        let refused = known(&record, "other").unwrap_err();
        assert!(matches!(&refused, RuntimeError::Cri(CriError::Invalid(text)) if text.contains("\"other\"")), "{refused}");
        // What is mounted may know better.
        let mut mounted = record.clone();
        mounted.config.mounts = vec![crate::cri::Mount { container_path: "/etc".into(), ..crate::cri::Mount::default() }];
        assert_eq!(known(&mounted, "other").unwrap(), None);
        // A link leads from one layer into another: each of them alone has no such file.
        std::fs::create_dir(layers[1].join("accounts")).unwrap();
        std::fs::write(layers[1].join("accounts/passwd"), "other:x:9:9::/:\n").unwrap();
        std::os::unix::fs::symlink("../accounts/passwd", layers[0].join("etc/passwd")).unwrap();
        assert_eq!(known(&record, "other").unwrap(), None);
    }

    #[test]
    fn a_handler_without_its_program_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("text"), "").unwrap();
        let program = |name: &str| (name.to_owned(), dir.path().join(name));
        let all = [("sh".to_owned(), "/bin/sh".into()), ("found".to_owned(), "crun".into()), program("none"), program("text")];
        let told = lacks(&all.into());
        assert!(matches!(told.as_slice(), [none, text] if none.contains("handler none:") && text.contains("handler text:")), "{told:?}");
    }
}
