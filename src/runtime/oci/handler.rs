//! Drives another OCI runtime for the containers of a sandbox that asks for one.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::super::account::{self, Account};
use super::super::container::user_of;
use super::super::engine::Inner;
use super::super::record::{self, ContainerRecord};
use super::super::shim::ShimError;
use super::super::wire::{self, Commands, Launch, MakePrivate, Process, Step};
use super::super::{RuntimeError, capability};
use super::bundle::{self, Host};
use crate::cri::{CriError, PodSandboxConfig};

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

impl Inner {
    /// Whether a sandbox may ask for this handler.
    pub fn check_handler(&self, name: &str) -> Result<(), CriError> {
        if name.is_empty() || name == OWN || self.options.handlers.contains_key(name) {
            return Ok(());
        }
        // containerd's words, which people look for.
        Err(CriError::Invalid(format!("no runtime for {name:?} is configured")))
    }

    /// The other runtime of a container; none: it is ours.
    pub fn handler(&self, pod: &PodSandboxConfig, record: &ContainerRecord) -> Result<Option<Handler>, CriError> {
        let name = pod.runtime_handler.as_str();
        self.check_handler(name)?;
        let run = self.options.sandbox_run_dir(&record.sandbox_id);
        let program = self.options.handlers.get(name).cloned();
        Ok(program.map(|program| Handler { program, state: run.join("oci"), bundle: run.join(&record.id), id: record.id.clone() }))
    }

    /// The same for what is to end, whatever the configuration says by now.
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
        let host = host_of(pod, shim_pid);
        let invalid = |cause| CriError::failed(format!("write the bundle of container {}", record.id), cause);
        let spec = bundle::spec(spec, &account, &host).map_err(invalid)?;
        for dir in [&handler.state, &handler.bundle] {
            std::fs::create_dir_all(dir).map_err(RuntimeError::file("make the directory", dir))?;
        }
        let path = handler.bundle.join("config.json");
        record::write(&path, &spec).map_err(RuntimeError::file("write", &path))?;
        Ok(spec)
    }

    /// A command in a container of another runtime. Its files are to be removed when it runs.
    pub fn handler_exec(
        &self,
        handler: &Handler,
        spec: &Spec,
        command: Vec<String>,
        env: Vec<String>,
        tty: bool,
    ) -> Result<(Commands, [PathBuf; 2]), RuntimeError> {
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_args(Some(command)).set_env(Some(env)).set_terminal(Some(tty));
        let name = uuid::Uuid::new_v4().simple().to_string();
        let files = ["json", "pid"].map(|kind| handler.bundle.join(format!("exec-{name}.{kind}")));
        record::write(&files[0], &process).map_err(RuntimeError::file("write", &files[0]))?;
        let mut words = handler.words(&["exec", "--detach", "--process", &text(&files[0]), "--pid-file", &text(&files[1])]);
        words.extend(if tty { console() } else { Vec::new() });
        words.push(handler.id.clone());
        Ok((handler.commands(vec![words], &files[1], tty), files))
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn console() -> Vec<String> {
    ["--console-socket", "tty"].map(str::to_owned).to_vec()
}

impl Handler {
    /// The runtime's command line up to and with these words.
    fn words(&self, verb: &[&str]) -> Vec<String> {
        let log = text(&self.bundle.join("log.json"));
        let global = [&text(&self.program), "--root", &text(&self.state), "--log", &log, "--log-format", "json"];
        global.into_iter().chain(verb.iter().copied()).map(str::to_owned).collect()
    }

    fn commands(&self, all: Vec<Vec<String>>, pid_file: &Path, tty: bool) -> Commands {
        let console = if tty { text(&self.bundle) } else { String::new() };
        Commands { all, pid_file: text(pid_file), console, log: text(&self.bundle.join("log.json")) }
    }

    /// Our launch, started by the other runtime: of the steps only the root is left, which is mounted where that runtime
    /// alone sees it.
    pub fn launch(&self, ours: Launch) -> Launch {
        let pid_file = self.bundle.join("pid");
        let tty = ours.process.tty;
        let mut create = self.words(&["create", "--bundle", &text(&self.bundle), "--pid-file", &text(&pid_file)]);
        create.extend(if tty { console() } else { Vec::new() });
        create.push(self.id.clone());
        let root = ours.steps.into_iter().find(|step| matches!(step, Step::Overlay(_)));
        Launch {
            cgroup: wire::Cgroup::default(),
            new_pid: false,
            new_cgroup_namespace: false,
            steps: [MakePrivate { let_in: true }.into()].into_iter().chain(root).collect(),
            process: Process { tty, ..Process::default() },
            commands: Some(self.commands(vec![create, self.words(&["start", &self.id])], &pid_file, tty)),
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
        let words = self.words(verb);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|cause| format!("run {}: {cause}", words[0]))?;
        let status = wait(&mut child).map_err(|cause| format!("{} {}: {cause}", words[0], verb[0]))?;
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            stderr.take(4096).read_to_string(&mut said).ok();
        }
        Err(format!("{} {}: {}", words[0], verb[0], said.trim()))
    }
}

fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status),
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(std::io::ErrorKind::TimedOut.into());
            }
        }
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
fn account_of(record: &ContainerRecord) -> Result<Account, RuntimeError> {
    let user = user_of(record);
    let read = |file: &str| record.layers.iter().find_map(|layer| account_file(layer, file)).unwrap_or_default();
    let account = account::resolve(&user, &read("etc/passwd"), &read("etc/group")).map_err(ShimError::Refused)?;
    if user.non_root && account.uid == 0 {
        return Err(CriError::failed("start the container", "it must not run as root, and its user is uid 0").into());
    }
    Ok(account)
}

/// A file of one layer; none: a lower one may have it. Hostile: no link leads out of the layer, and nothing but a plain
/// file has content (where a layer has deleted it stands a device).
fn account_file(layer: &Path, file: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let layer: OwnedFd = File::open(layer).ok()?.into();
    let found = match rustix::fs::openat2(&layer, file, flags, Mode::empty(), resolve) {
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
        pod_init: if pod.share_process_namespace && !pod.host_pid { pod_init(shim_pid) } else { None },
        host_network: pod.host_network,
        most_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX),
        least_oom_score: if may_lower { None } else { own_score },
    }
}

/// The child of the shim that is the first process of the pod's PID namespace.
fn pod_init(shim_pid: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{shim_pid}/task/{shim_pid}/children")).unwrap_or_default();
    let is_init = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "podbay-init");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_init)
}
