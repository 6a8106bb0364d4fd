//! The verbs of an OCI runtime (runtime.md, "Operations"), and those its callers have got used to with runc.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{self as oci, LinuxNamespaceType, Spec};
use serde_json::Value;

use super::super::cgroup::{CgroupError, Tree};
use super::super::launch::plan::Place;
use super::super::limits::Limit;
use super::super::record::RecordError;
use super::super::shim::{Program, ShimError};
use super::super::wire::{Go, Lone, Response, VERSION};
use super::super::{errand, memory, seccomp, signal, socket, sys};
use super::access::{Access, access};
use super::config::{self, ConfigError, Ground};
use super::state::{Home, Record, Status, ticks};
use crate::cri::Resources;
use crate::model::Timestamp;

/// A config.json is at most this long.
const CONFIG_LIMIT: u64 = 16 << 20;
/// What is killed dies at once, unless the kernel hangs.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Why a verb is not done. The words that callers look for are runc's.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    #[error("container id {0:?} has other characters than letters, digits and `_+-.`")]
    Id(String),
    #[error("container does not exist: {0}")]
    NotThere(String),
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    #[error("container not running")]
    NotRunning,
    #[error("cannot {verb} container {id} that is {status}")]
    Status { verb: &'static str, id: String, status: &'static str },
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: &'static str },
    #[error("{attempt} {}: {cause}", path.display())]
    File { attempt: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{0}")]
    Request(String),
    #[error("{kind} hook {}: {cause}", path.display())]
    Hook { kind: &'static str, path: PathBuf, cause: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Shim(#[from] ShimError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Seccomp(#[from] seccomp::SeccompError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl OciError {
    pub(super) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::File { attempt, path, cause }
    }
}

/// This runtime with its containers.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where the state of containers is.
    pub root: PathBuf,
    /// The `podbay-shim` program.
    pub shim: PathBuf,
}

/// How a container is to be created.
#[derive(Debug, Clone, Default)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    /// So many of our descriptors beside the standard ones are the container's.
    pub more_fds: u32,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    pub id: String,
    /// A file with an OCI process; else `args` in the container's own way.
    pub process: Option<PathBuf>,
    pub args: Vec<String>,
    pub tty: bool,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub detach: bool,
    pub more_fds: u32,
}

/// A container that is there.
struct Found {
    home: Home,
    record: Record,
    tree: Tree,
    status: Status,
}

impl Found {
    fn raw(&self) -> Result<Value, OciError> {
        read_json(&self.home.config())
    }

    fn spec(&self) -> Result<Spec, OciError> {
        parse(&self.home.config(), self.raw()?)
    }

    fn state(&self) -> Result<Value, OciError> {
        Ok(self.record.state(self.status, &self.raw()?["annotations"]))
    }

    fn cgroup(&self) -> &str {
        &self.record.cgroup.1
    }
}

fn read_json(path: &Path) -> Result<Value, OciError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(CONFIG_LIMIT).read_to_end(&mut bytes));
    read.map_err(OciError::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|cause| OciError::file("read", path)(cause.into()))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, value: Value) -> Result<T, OciError> {
    serde_json::from_value(value).map_err(|cause| OciError::file("read", path)(cause.into()))
}

fn warn_of_capabilities(process: Option<&mut Value>) {
    for lost in config::keep_grantable(process) {
        eprintln!("warning: capability that cannot be given: {lost}");
    }
}

fn request(attempt: &str, cause: impl std::fmt::Display) -> OciError {
    OciError::Request(format!("{attempt}: {cause}"))
}

impl Runtime {
    fn find(&self, id: &str) -> Result<Found, OciError> {
        let home = Home::of(&self.root, id)?;
        let record = home.record()?;
        let tree = Tree::detect(&record.cgroup.0)?;
        let status = record.status(&home, tree.is_frozen(&record.cgroup.1));
        Ok(Found { home, record, tree, status })
    }

    /// Makes a container, up to the point where only its program is missing.
    pub fn create(&self, wanted: &Create) -> Result<(), OciError> {
        let home = Home::of(&self.root, &wanted.id)?;
        let bundle = std::path::absolute(&wanted.bundle).map_err(OciError::file("find", &wanted.bundle))?;
        let path = bundle.join("config.json");
        let mut raw = read_json(&path)?;
        config::check(&raw)?;
        warn_of_capabilities(raw.get_mut("process"));
        let spec: Spec = parse(&path, raw.clone())?;
        let mut record = Record {
            version: super::super::record::VERSION,
            id: wanted.id.clone(),
            pid: 0,
            ticks: 0,
            rootfs: config::root(&spec, &bundle)?,
            bundle,
            created: Timestamp::now(),
            cgroup: config::cgroup(&spec, &wanted.id)?,
            foreign_cgroup: true,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(OciError::file("make the directory", &self.root))?;
        match std::fs::DirBuilder::new().mode(0o700).create(&home.0) {
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => return Err(OciError::Exists(wanted.id.clone())),
            made => made.map_err(OciError::file("make the directory", &home.0))?,
        }
        let done = self.build(&home, &mut record, &spec, &raw, wanted);
        if done.is_err() {
            // As far as it came; the failure that counts is the first one.
            self.destroy(&home, &record, &spec, &raw).ok();
        }
        done
    }

    fn build(&self, home: &Home, record: &mut Record, spec: &Spec, raw: &Value, wanted: &Create) -> Result<(), OciError> {
        let path = home.config();
        super::super::record::write(&path, raw).map_err(OciError::file("write", &path))?;
        home.write(record)?;
        let tree = Tree::detect(&record.cgroup.0)?;
        if let Some(pid) = tree.processes(&record.cgroup.1).first() {
            return Err(request("make the container's cgroup", format!("{} has processes, as {pid}", tree.full(&record.cgroup.1))));
        }
        record.foreign_cgroup = false;
        home.write(record)?;
        // What a dead one has left there would keep its rules for devices, and limits that are not said anew.
        tree.remove(&record.cgroup.1)?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        limit(&tree, &record.cgroup.1, &config::limits(resources)?, config::block_io(resources)?)?;
        confine(&tree, &record.cgroup.1, resources)?;
        let mut spec = spec.clone();
        if let Some(root) = spec.root_mut() {
            root.set_path(record.rootfs.clone());
        }
        let ground = ground(&tree, record, &spec, home)?;
        let tty = spec.process().as_ref().and_then(oci::Process::terminal).unwrap_or(false);
        let console = console(tty, wanted.console_socket.as_deref())?;
        let lone = config::lone(&spec, ground)?;
        let (socket, mut child) =
            Program::load(&self.shim)?.spawn_lone(&lone, console.as_ref().map(AsFd::as_fd).as_slice(), wanted.more_fds)?;
        let pid = started(&socket)?;
        child.wait().map_err(|cause| request("wait for the shim's program", cause))?;
        let dead = || request("make the container", "its process has died");
        (record.pid, record.ticks) = (pid, ticks(pid).ok_or_else(dead)?);
        let told = record.state(Status::Creating, &raw["annotations"]);
        home.write(record)?;
        let hooks = spec.hooks().clone().unwrap_or_default();
        run_hooks("prestart", hooks.prestart(), &told)?;
        run_hooks("createRuntime", hooks.create_runtime(), &told)?;
        let go = Go { state: told.to_string() };
        socket::send(&socket, &go, &[]).map_err(|cause| request("talk to the container", cause))?;
        match socket::receive::<Response>(&socket) {
            Ok((Response::Done(_), _)) => {}
            Ok((Response::Failed(failed), _)) => return Err(ShimError::Refused(failed).into()),
            Ok(_) => return Err(request("make the container", "its process says something else")),
            Err(cause) => return Err(request("make the container", cause)),
        }
        write_pid(wanted.pid_file.as_deref(), pid)
    }

    /// Lets the program of a container run.
    pub fn start(&self, id: &str) -> Result<(), OciError> {
        let found = self.find(id)?;
        if found.status != Status::Created {
            return Err(OciError::Status { verb: "start", id: id.to_owned(), status: found.status.name() });
        }
        let attempt = format!("start container {id}");
        let state = found.state()?;
        // First: whoever dies on the way leaves nothing that says it still waits.
        let claimed = found.home.claim().map_err(|cause| request(&attempt, cause))?;
        let stream = socket::by_short_name(&claimed, UnixStream::connect).map_err(|cause| request(&attempt, cause))?;
        socket::send(&stream, &Go { state: state.to_string() }, &[]).map_err(|cause| request(&attempt, cause))?;
        let answer = socket::receive::<Response>(&stream);
        std::fs::remove_file(claimed).ok();
        if let Ok((Response::Failed(failed), _)) = answer {
            return Err(ShimError::Refused(failed).into());
        }
        let hooks = found.spec()?.hooks().clone().unwrap_or_default();
        let state = found.record.state(Status::Running, &found.raw()?["annotations"]);
        if let Err(cause) = run_hooks("poststart", hooks.poststart(), &state) {
            // The container cannot be as it was meant: it goes.
            found.tree.kill(found.cgroup())?;
            return Err(cause);
        }
        Ok(())
    }

    /// The state, as JSON.
    pub fn state(&self, id: &str) -> Result<Value, OciError> {
        self.find(id)?.state()
    }

    /// Sends a signal to the first process, or to all.
    pub fn kill(&self, id: &str, name: &str, all: bool) -> Result<(), OciError> {
        let number = signal::number(name).ok_or_else(|| request("send a signal", format!("{name:?} is none")))?;
        let found = self.find(id)?;
        if all {
            // 0 is one we cannot see, and would be us.
            for pid in found.tree.processes(found.cgroup()).into_iter().filter(|pid| *pid > 0) {
                sys::signal(pid, number).ok();
            }
            return Ok(());
        }
        match found.status {
            Status::Stopped | Status::Creating => Err(OciError::NotRunning),
            _ => sys::signal(found.record.pid, number).map_err(|cause| request(&format!("send signal {number}"), cause)),
        }
    }

    /// Removes a container that has ended, or with `force` any.
    pub fn delete(&self, id: &str, force: bool) -> Result<(), OciError> {
        let found = match self.find(id) {
            Err(OciError::NotThere(_)) if force => {
                // Half made, and its maker killed.
                let home = Home::of(&self.root, id)?;
                return std::fs::remove_dir_all(&home.0).or_else(missing).map_err(OciError::file("remove", &home.0));
            }
            found => found?,
        };
        // One that was never started has nothing to lose, as with runc.
        if !force && matches!(found.status, Status::Running | Status::Paused) {
            return Err(OciError::NotStopped { id: id.to_owned(), status: found.status.name() });
        }
        let (spec, raw) = match (found.spec(), found.raw()) {
            (Ok(spec), Ok(raw)) => (spec, raw),
            // Nobody knows its hooks any more.
            (Err(_), _) | (_, Err(_)) if force => (Spec::default(), Value::Null),
            (spec, raw) => (spec?, raw?),
        };
        self.destroy(&found.home, &found.record, &spec, &raw)
    }

    fn destroy(&self, home: &Home, record: &Record, spec: &Spec, raw: &Value) -> Result<(), OciError> {
        let tree = Tree::detect(&record.cgroup.0)?;
        if !record.foreign_cgroup && tree.is_frozen(&record.cgroup.1) {
            // On v1 nobody dies before.
            tree.freeze(&record.cgroup.1, false)?;
        }
        if record.is_alive() {
            sys::signal(record.pid, signal::KILL).ok();
            let deadline = Instant::now() + KILL_LIMIT;
            while record.is_alive() {
                if Instant::now() > deadline {
                    return Err(request("end the container", format!("process {} does not die", record.pid)));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if !record.foreign_cgroup {
            tree.kill(&record.cgroup.1)?;
            tree.remove(&record.cgroup.1)?;
        }
        if record.cgroup.0 == "podbay-oci" {
            tree.remove_if_empty("");
        }
        std::fs::remove_dir_all(&home.0).or_else(missing).map_err(OciError::file("remove", &home.0))?;
        let hooks = spec.hooks().clone().unwrap_or_default();
        let state = record.state(Status::Stopped, &raw["annotations"]);
        for hook in hooks.poststop().iter().flatten() {
            // The container is gone, whatever they say: the specification wants a warning.
            if let Err(cause) = run_hook("poststop", hook, &state) {
                eprintln!("warning: {cause}");
            }
        }
        Ok(())
    }

    /// Creates, starts, and unless detached waits for the end; returns its exit code.
    pub fn run(&self, wanted: &Create, detach: bool) -> Result<i32, OciError> {
        if !detach {
            // So that the process becomes our child.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|errno| request("become a subreaper", errno))?;
        }
        self.create(wanted)?;
        let started = self.start(&wanted.id);
        if started.is_err() {
            self.delete(&wanted.id, true).ok();
        }
        started?;
        if detach {
            return Ok(0);
        }
        let pid = rustix::process::Pid::from_raw(self.find(&wanted.id)?.record.pid);
        let ended =
            rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).map_err(|errno| request("wait for its end", errno))?;
        self.delete(&wanted.id, true)?;
        Ok(ended.map_or(1, |(_, status)| status.exit_status().unwrap_or(128 + status.terminating_signal().unwrap_or(0))))
    }

    /// Runs a command in a container; returns its exit code, or 0 when detached.
    pub fn exec(&self, wanted: &Exec) -> Result<i32, OciError> {
        let found = self.find(&wanted.id)?;
        if !matches!(found.status, Status::Running | Status::Created) {
            return Err(OciError::Status { verb: "exec in", id: wanted.id.clone(), status: found.status.name() });
        }
        let spec = found.spec()?;
        let given: oci::Process = match &wanted.process {
            Some(path) => {
                let mut raw = serde_json::json!({"process": read_json(path)?});
                config::check(&raw)?;
                warn_of_capabilities(raw.get_mut("process"));
                parse(path, raw["process"].take())?
            }
            None => {
                let mut own = spec.process().clone().unwrap_or_default();
                own.set_args(Some(wanted.args.clone())).set_terminal(Some(wanted.tty));
                own
            }
        };
        let console = console(given.terminal().unwrap_or(false), wanted.console_socket.as_deref())?;
        let size = given.console_size();
        let (join, mut fds) = namespaces(&found.record)?;
        fds.extend(console);
        let mut lone = Lone { version: VERSION, stay: !wanted.detach, join, ..Lone::default() };
        lone.columns = size.and_then(|size| u32::try_from(size.width()).ok()).unwrap_or(0);
        lone.rows = size.and_then(|size| u32::try_from(size.height()).ok()).unwrap_or(0);
        lone.launch.process = config::process(&given, filter(&spec)?);
        lone.launch.cgroup = found.tree.entrance(found.cgroup());
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let (socket, mut child) = Program::load(&self.shim)?.spawn_lone(&lone, &fds, wanted.more_fds)?;
        let pid = started(&socket)?;
        // Its end of the socket closes when it becomes its program.
        if let Ok((Response::Failed(failed), _)) = socket::receive::<Response>(&socket) {
            child.wait().ok();
            return Err(ShimError::Refused(failed).into());
        }
        write_pid(wanted.pid_file.as_deref(), pid)?;
        let ended = child.wait().map_err(|cause| request("wait for the command", cause))?;
        let code = || ended.code().unwrap_or(128 + std::os::unix::process::ExitStatusExt::signal(&ended).unwrap_or(0));
        Ok(if wanted.detach { 0 } else { code() })
    }

    /// Every container that can be read.
    pub fn list(&self) -> Vec<Value> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.state(id).ok()).collect()
    }

    pub fn processes(&self, id: &str) -> Result<Vec<i32>, OciError> {
        let found = self.find(id)?;
        Ok(found.tree.processes(found.cgroup()))
    }

    /// Stops (and resumes) all processes of a container.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<(), OciError> {
        let found = self.find(id)?;
        let (verb, from) = if frozen { ("pause", Status::Running) } else { ("resume", Status::Paused) };
        if found.status != from {
            return Err(OciError::Status { verb, id: id.to_owned(), status: found.status.name() });
        }
        found.tree.freeze(found.cgroup(), frozen).map_err(OciError::from)
    }

    /// Sets other limits, from OCI resources.
    pub fn update(&self, id: &str, resources: Value) -> Result<(), OciError> {
        let found = self.find(id)?;
        config::check(&serde_json::json!({"linux": {"resources": resources}}))?;
        let resources: oci::LinuxResources = parse(Path::new("the resources"), resources)?;
        limit(&found.tree, found.cgroup(), &config::changes(&resources)?, config::block_io(Some(&resources))?)
    }

    /// What a container uses, as `runc events --stats` says it.
    pub fn stats(&self, id: &str) -> Result<Value, OciError> {
        let found = self.find(id)?;
        if found.status == Status::Stopped {
            return Err(OciError::NotRunning);
        }
        let usage = found.tree.usage(found.cgroup());
        Ok(serde_json::json!({"type": "stats", "id": id, "data": {
            "cpu": {"usage": {"total": usage.cpu_nanos}}, "pids": {"current": usage.pids},
            "memory": {"usage": {"usage": usage.memory_usage_bytes}, "raw": {"rss": usage.memory_rss_bytes}},
        }}))
    }
}

fn missing(cause: std::io::Error) -> std::io::Result<()> {
    if cause.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(cause) }
}

fn limit(tree: &Tree, cgroup: &str, limits: &Resources, more: Vec<Limit>) -> Result<(), OciError> {
    let without = tree.create_with(cgroup, limits, more)?;
    tree.make_freezer(cgroup)?;
    match without.first() {
        Some(controller) => Err(request("limit the container", format!("this host has no cgroup controller {controller}"))),
        None => Ok(()),
    }
}

/// Devices are opened as in every container of ours, and those the bundle allows.
fn confine(tree: &Tree, cgroup: &str, resources: Option<&oci::LinuxResources>) -> Result<(), OciError> {
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    match access(rules)? {
        Access::Everything => Ok(()),
        // Its root may be mounted in any way, so nothing else keeps devices from it.
        Access::These(lines) => match tree.confine_devices(cgroup, &lines)? {
            true => Ok(()),
            false => Err(request("keep devices from the container", "this host has neither cgroup v1's `devices` nor eBPF on v2")),
        },
    }
}

fn filter(spec: &Spec) -> Result<Vec<u8>, OciError> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    Ok(profile.map(|profile| seccomp::compile(profile, seccomp::Foreign::Nothing)).transpose()?.unwrap_or_default())
}

fn ground(tree: &Tree, record: &Record, spec: &Spec, home: &Home) -> Result<Ground, OciError> {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    let own_view = namespaces.into_iter().any(|one| one.typ() == LinuxNamespaceType::Cgroup && one.path().is_none());
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or("rslave");
    let place = Place {
        directory_as_root: true,
        let_in: !matches!(propagation, "private" | "rprivate" | "unbindable" | "runbindable"),
        cgroup: tree.entrance(&record.cgroup.1),
        controllers: tree.v1_controllers(),
        own_cgroups: if own_view { Vec::new() } else { tree.views(&record.cgroup.1) },
        seccomp: filter(spec)?,
        privileged: linux.is_some_and(|linux| linux.devices().iter().flatten().next().is_some()),
        ..Place::default()
    };
    let all = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    let joined = all.filter(|one| one.path().as_ref().is_some_and(|path| is_the_hosts(path, one.typ())));
    let hosts = joined.fold(0, |bits, one| bits | config::bit(one.typ()));
    Ok(Ground { place, hosts, directory: home.0.to_string_lossy().into_owned() })
}

/// The names of namespaces below `/proc/PID/ns`.
const NAMESPACES: [(&str, LinuxNamespaceType); 7] = [
    ("user", LinuxNamespaceType::User),
    ("ipc", LinuxNamespaceType::Ipc),
    ("uts", LinuxNamespaceType::Uts),
    ("net", LinuxNamespaceType::Network),
    ("pid", LinuxNamespaceType::Pid),
    ("cgroup", LinuxNamespaceType::Cgroup),
    ("mnt", LinuxNamespaceType::Mount),
];

/// Whether what is to be joined is the namespace we are in ourselves.
fn is_the_hosts(path: &Path, kind: LinuxNamespaceType) -> bool {
    let same = |file: &str| {
        let (own, theirs) = (std::fs::metadata(format!("/proc/self/ns/{file}")), std::fs::metadata(path));
        matches!((own, theirs), (Ok(own), Ok(theirs)) if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()))
    };
    NAMESPACES.iter().any(|(file, one)| *one == kind && same(file))
}

/// Paths and kinds of namespaces, as [`Lone`] takes them.
type Join = Vec<(String, u32)>;

/// The namespaces of a container's process that are not ours, open: the paths are empty. Its number may be another
/// process's at any time, so the descriptors are looked at before the process is.
fn namespaces(record: &Record) -> Result<(Join, Vec<OwnedFd>), OciError> {
    let (mut join, mut fds) = (Join::new(), Vec::new());
    for (file, kind) in NAMESPACES {
        let own = std::fs::metadata(format!("/proc/self/ns/{file}"));
        let path = PathBuf::from(format!("/proc/{}/ns/{file}", record.pid));
        let opened = std::fs::File::open(&path).map_err(OciError::file("open the namespace", &path))?;
        let number = opened.metadata().map_err(OciError::file("look at the namespace", &path))?.ino();
        if own.is_ok_and(|own| own.ino() != number) {
            join.push((String::new(), config::bit(kind)));
            fds.push(OwnedFd::from(opened));
        }
    }
    if !record.is_alive() {
        return Err(OciError::NotRunning);
    }
    if !join.iter().any(|(_, bit)| *bit == config::bit(LinuxNamespaceType::Mount)) {
        return Err(request("enter the container", "its process has the host's mounts"));
    }
    Ok((join, fds))
}

fn console(tty: bool, path: Option<&Path>) -> Result<Option<OwnedFd>, OciError> {
    match (tty, path) {
        (true, Some(path)) => {
            let stream = UnixStream::connect(path).map_err(OciError::file("connect to the console socket", path))?;
            Ok(Some(stream.into()))
        }
        (true, None) => Err(request("give it a terminal", "there is no --console-socket to hand it to")),
        (false, Some(_)) => Err(request("use the console socket", "the process has no terminal")),
        (false, None) => Ok(None),
    }
}

fn started(socket: &UnixStream) -> Result<i32, OciError> {
    match socket::receive::<Response>(socket) {
        Ok((Response::Started(started), _)) => Ok(started.pid),
        Ok((Response::Failed(failed), _)) => Err(ShimError::Refused(failed).into()),
        Ok(_) => Err(request("start a process", "the shim's program says something else")),
        Err(cause) => Err(request("start a process", cause)),
    }
}

fn write_pid(path: Option<&Path>, pid: i32) -> Result<(), OciError> {
    let Some(path) = path else { return Ok(()) };
    // Whole or not at all: somebody may be waiting for it.
    let temporary = path.with_extension("podbay-new");
    let written = std::fs::write(&temporary, pid.to_string()).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(OciError::file("write", path))
}

fn run_hooks(kind: &'static str, all: &Option<Vec<oci::Hook>>, state: &Value) -> Result<(), OciError> {
    all.iter().flatten().try_for_each(|hook| run_hook(kind, hook, state))
}

/// Runs a hook on the host, with the state on its standard input.
fn run_hook(kind: &'static str, hook: &oci::Hook, state: &Value) -> Result<(), OciError> {
    let wanted = config::hook(hook);
    let fail = |cause: String| OciError::Hook { kind, path: hook.path().clone(), cause };
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = wanted.args.split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, name).args(rest);
    }
    command.env_clear().envs(wanted.env.iter().filter_map(|pair| pair.split_once('=')));
    let told = memory::file_of(&state.to_string()).map_err(|cause| fail(cause.to_string()))?;
    command.stdin(told).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|cause| fail(cause.to_string()))?;
    let patience = (wanted.timeout_seconds > 0).then(|| Duration::from_secs(wanted.timeout_seconds.into()));
    match errand::end(&mut child, patience) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(fail(status.to_string())),
        Err(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            Err(fail(format!("it took longer than {} s", wanted.timeout_seconds)))
        }
        Err(cause) => Err(fail(cause.to_string())),
    }
}
