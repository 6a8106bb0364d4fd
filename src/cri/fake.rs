//! The in-memory runtime and image service on which the whole product runs in tests.
//!
//! Containers are entries in a table. What one does when started is its [`Behaviour`], set by image or by
//! container name; without one its command is read as a very small shell would: `true`, `false`, `exit N`,
//! `echo WORDS`, each also behind `sh -c`, and anything else runs until it is stopped. `exec` reads its command
//! the same way, after the answers given to [`FakeRuntime::answer_exec`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use super::{
    ContainerConfig, ContainerState, ContainerStats, ContainerStatus, CriError, Duplex, ExecOutput, ExecRequest, ExecSession, Features,
    FilesystemUsage, Image, Images, Namespaces, PodSandbox, PodSandboxConfig, PodSandboxStats, PullProgress, RegistryAuth, Resources,
    Runtime, RuntimeCondition, RuntimeEvent, SandboxState, Usage,
};
use crate::clock::{Clock, SystemClock};

/// What the containers of an image, or of a name, do.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Creating fails with this cause.
    pub create_error: Option<String>,
    /// Starting fails with this cause; the container becomes `Exited` with reason `StartError`, code 128.
    pub start_error: Option<String>,
    /// Ends at once with this code. `None`: as its command says.
    pub exit_code: Option<i32>,
    /// Runs until stopped, whatever its command says.
    pub runs: bool,
    /// Ends as if out of memory (137, `OOMKilled`).
    pub oom_killed: bool,
    /// Lines written to its log when it starts.
    pub output: Vec<String>,
    /// What it leaves in its termination message file.
    pub termination_message: String,
    /// Does not react to the stop signal: ends by SIGKILL (137), at once all the same.
    pub ignores_stop: bool,
    /// Its runtime takes no notice of the stop signal that it asks for.
    pub without_stop_signal: bool,
    /// Stopping fails with this cause.
    pub stop_error: Option<String>,
}

/// The one handler it has beside the usual one.
pub const HANDLER: &str = "fake";

/// Of whatever runs.
const SOME_USAGE: Usage = Usage {
    cpu_nanos: 2_500_000_000,
    memory_working_set_bytes: 1 << 20,
    memory_usage_bytes: 1 << 20,
    memory_rss_bytes: 0,
    page_faults: 0,
    major_page_faults: 0,
    pids: 1,
    swap_bytes: None,
    cpu_pressure: None,
    memory_pressure: None,
    io_pressure: None,
};

/// The in-memory runtime.
pub struct FakeRuntime {
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    behaviours: BTreeMap<String, Behaviour>,
    exec_answers: BTreeMap<(String, Vec<String>), Result<ExecOutput, CriError>>,
    sandbox_error: Option<String>,
    fails_reopening: bool,
    status_error: Option<String>,
    resize_error: Option<String>,
    unreachable: Option<String>,
    calls: Vec<String>,
    next_id: u64,
    next_ip: u8,
    addresses: Option<Addresses>,
}

/// The address of the pod of this number.
type Addresses = Box<dyn Fn(u8) -> String + Send + Sync>;

struct Sandbox {
    status: PodSandbox,
    config: PodSandboxConfig,
}

struct Container {
    status: ContainerStatus,
    config: ContainerConfig,
    behaviour: Behaviour,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl FakeRuntime {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(1024).0, clock }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the runtime is to be out of reach.
    fn reach(&self, call: &str, subject: &str) -> Result<MutexGuard<'_, State>, CriError> {
        let mut state = self.lock();
        if let Some(cause) = &state.unreachable {
            return Err(CriError::Unreachable(cause.clone()));
        }
        state.calls.push(format!("{call} {subject}"));
        Ok(state)
    }

    fn say(&self, sandbox: &PodSandbox, container_id: &str) {
        let event =
            RuntimeEvent { sandbox_id: sandbox.id.clone(), pod_uid: sandbox.metadata.uid.clone(), container_id: container_id.to_owned() };
        // Nobody listening is fine.
        drop(self.events.send(event));
    }

    /// Which addresses pods get, by their number: a server takes only those of the node's own range.
    pub fn set_addresses(&self, addresses: impl Fn(u8) -> String + Send + Sync + 'static) {
        self.lock().addresses = Some(Box::new(addresses));
    }

    /// What containers of this image, or of this name, do from their next creation on.
    pub fn behave(&self, image_or_name: &str, behaviour: Behaviour) {
        self.lock().behaviours.insert(image_or_name.to_owned(), behaviour);
    }

    /// The answer to `exec_sync` of this command in containers of this name.
    pub fn answer_exec(&self, container_name: &str, command: &[&str], answer: Result<ExecOutput, CriError>) {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        self.lock().exec_answers.insert((container_name.to_owned(), command), answer);
    }

    /// From now on creating sandboxes fails with this cause; `None`: works.
    pub fn fail_sandboxes(&self, cause: Option<&str>) {
        self.lock().sandbox_error = cause.map(str::to_owned);
    }

    /// From now on logs cannot be opened anew, or can.
    pub fn fail_reopening(&self, fails: bool) {
        self.lock().fails_reopening = fails;
    }

    /// From now on questions about one container fail with this cause; `None`: work.
    pub fn fail_container_status(&self, cause: Option<&str>) {
        self.lock().status_error = cause.map(str::to_owned);
    }

    /// From now on no container is given other limits, for this cause; `None`: works.
    pub fn fail_resizes(&self, cause: Option<&str>) {
        self.lock().resize_error = cause.map(str::to_owned);
    }

    /// From now on every verb fails as unreachable; `None`: works.
    pub fn unreachable(&self, cause: Option<&str>) {
        self.lock().unreachable = cause.map(str::to_owned);
    }

    /// The verbs so far, as `start_container c3`.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Ends a running container: the newest of that name, or the one with that id. Says whether there was one.
    pub fn end(&self, name_or_id: &str, exit_code: i32) -> bool {
        let now = self.clock.now();
        let mut state = self.lock();
        let newest = state
            .containers
            .values_mut()
            .filter(|c| c.status.id == name_or_id || c.status.metadata.name == name_or_id)
            .filter(|c| c.status.state == ContainerState::Running)
            .max_by_key(|c| (c.status.created_at, c.status.metadata.attempt));
        let Some(container) = newest else { return false };
        finish(container, exit_code, now);
        let (sandbox_id, id) = (container.status.sandbox_id.clone(), container.status.id.clone());
        if let Some(sandbox) = state.sandboxes.get(&sandbox_id) {
            self.say(&sandbox.status, &id);
        }
        true
    }

    /// The shim dies: the sandbox is `NotReady`, its containers end with 137.
    pub fn break_sandbox(&self, id_or_uid: &str) {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some(sandbox) = state.sandboxes.values_mut().find(|s| s.status.id == id_or_uid || s.status.metadata.uid == id_or_uid) else {
            return;
        };
        sandbox.status.state = SandboxState::NotReady;
        let status = sandbox.status.clone();
        end_all(&mut state, &status.id, now);
        self.say(&status, "");
    }

    /// The configurations containers were created with, by id.
    pub fn configs(&self) -> BTreeMap<String, ContainerConfig> {
        self.lock().containers.iter().map(|(id, c)| (id.clone(), c.config.clone())).collect()
    }

    /// The configurations sandboxes were created with, by id.
    pub fn sandbox_configs(&self) -> BTreeMap<String, PodSandboxConfig> {
        self.lock().sandboxes.iter().map(|(id, s)| (id.clone(), s.config.clone())).collect()
    }
}

fn finish(container: &mut Container, exit_code: i32, now: crate::model::Timestamp) {
    let status = &mut container.status;
    status.state = ContainerState::Exited;
    status.finished_at = Some(now);
    status.exit_code = exit_code;
    status.reason = match exit_code {
        _ if container.behaviour.oom_killed => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    }
    .to_owned();
    if !container.config.termination_message_path.is_empty() {
        status.message.clone_from(&container.behaviour.termination_message);
    }
}

fn end_all(state: &mut State, sandbox_id: &str, now: crate::model::Timestamp) {
    for container in state.containers.values_mut().filter(|c| c.status.sandbox_id == sandbox_id) {
        if container.status.state == ContainerState::Running {
            finish(container, 137, now);
        }
    }
}

/// What the small shell makes of a command: output and exit code, or `None`: it runs on.
fn interpret(command: &[String]) -> Option<(String, i32)> {
    let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
    if let ["sh" | "/bin/sh", "-c", script] = words[..] {
        words = script.split_whitespace().collect();
    }
    let program = words.first().map(|w| w.rsplit('/').next().unwrap_or(w));
    match (program, &words[words.len().min(1)..]) {
        (Some("true"), _) => Some((String::new(), 0)),
        (Some("false"), _) => Some((String::new(), 1)),
        (Some("exit"), [code]) => Some((String::new(), code.parse().unwrap_or(2))),
        (Some("echo"), rest) => Some((format!("{}\n", rest.join(" ")), 0)),
        _ => None,
    }
}

/// Appends lines to a log in CRI's format; a fake without a log directory has no logs.
fn write_log(path: &std::path::Path, lines: &[String], now: crate::model::Timestamp) {
    if lines.is_empty() || !path.is_absolute() {
        return;
    }
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        lines.iter().try_for_each(|line| writeln!(file, "{now} stdout F {line}"))
    });
    if let Err(cause) = written {
        tracing::warn!(path = %path.display(), %cause, "write the fake's log");
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn version(&self) -> String {
        "fake://0.1.0".into()
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::json!({"rootDir": "/fake", "stateDir": "/fake"})
    }

    async fn details(&self, _id: &str) -> serde_json::Value {
        serde_json::json!({"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "/proc/self/ns/net"}]}}})
    }

    async fn features(&self, _handler: &str) -> Result<Features, CriError> {
        if let Some(cause) = &self.lock().unreachable {
            return Err(CriError::Unreachable(cause.clone()));
        }
        Ok(Features { user_namespaces: true, recursive_read_only_mounts: true, supplemental_groups_policy: true })
    }

    async fn status(&self) -> Vec<RuntimeCondition> {
        let unreachable = self.lock().unreachable.clone();
        ["RuntimeReady", "NetworkReady"]
            .map(|kind| RuntimeCondition {
                kind: kind.into(),
                ok: unreachable.is_none(),
                reason: String::new(),
                message: unreachable.clone().unwrap_or_default(),
            })
            .to_vec()
    }

    async fn handlers(&self) -> Vec<String> {
        vec![String::new(), HANDLER.to_owned()]
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, CriError> {
        let mut state = self.reach("run_pod_sandbox", &config.metadata.name)?;
        if !["", HANDLER].contains(&config.runtime_handler.as_str()) {
            return Err(CriError::Invalid(format!("no runtime for {:?} is configured", config.runtime_handler)));
        }
        if let Some(cause) = &state.sandbox_error {
            return Err(CriError::failed(format!("create sandbox of pod {}", config.metadata.name), cause));
        }
        if let Some(other) = state.sandboxes.values().find(|other| other.status.metadata == config.metadata) {
            if other.config == *config && other.status.state == SandboxState::Ready {
                return Ok(other.status.id.clone());
            }
            return Err(CriError::Exists(format!("sandbox of pod {} is there already: {}", config.metadata.name, other.status.id)));
        }
        state.next_id += 1;
        let id = format!("s{}", state.next_id);
        let ips = if config.host_network {
            Vec::new()
        } else {
            state.next_ip = state.next_ip.wrapping_add(1);
            let number = state.next_ip;
            vec![state.addresses.as_ref().map_or_else(|| format!("10.80.0.{number}"), |addresses| addresses(number))]
        };
        let status = PodSandbox {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: SandboxState::Ready,
            created_at: self.clock.now(),
            ips,
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
        };
        self.say(&status, "");
        state.sandboxes.insert(id.clone(), Sandbox { status, config: config.clone() });
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let now = self.clock.now();
        let mut state = self.reach("stop_pod_sandbox", id)?;
        end_all(&mut state, id, now);
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.status.state = SandboxState::NotReady;
            sandbox.status.ips.clear();
            self.say(&sandbox.status, "");
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let mut state = self.reach("remove_pod_sandbox", id)?;
        state.containers.retain(|_, c| c.status.sandbox_id != id);
        if let Some(sandbox) = state.sandboxes.remove(id) {
            self.say(&sandbox.status, "");
        }
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, CriError> {
        let state = self.reach("pod_sandbox_status", id)?;
        let sandbox = state.sandboxes.get(id).ok_or_else(|| CriError::NotFound(format!("sandbox {id}")))?;
        Ok(sandbox.status.clone())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>, CriError> {
        Ok(self.reach("list_pod_sandboxes", "")?.sandboxes.values().map(|s| s.status.clone()).collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<String, CriError> {
        let mut state = self.reach("create_container", &config.metadata.name)?;
        let sandbox = state.sandboxes.get(sandbox_id).ok_or_else(|| CriError::NotFound(format!("sandbox {sandbox_id}")))?;
        let name = &config.metadata.name;
        if sandbox.status.state != SandboxState::Ready {
            return Err(CriError::failed(format!("create container {name}"), "its sandbox is not ready"));
        }
        let twin = |other: &&Container| other.status.sandbox_id == sandbox_id && other.status.metadata == config.metadata;
        if let Some(other) = state.containers.values().find(twin) {
            return Err(CriError::Exists(format!("container {name} is there already: {}", other.status.id)));
        }
        let (sandbox, log_directory) = (sandbox.status.clone(), sandbox.config.log_directory.clone());
        let behaviour = state.behaviours.get(name).or_else(|| state.behaviours.get(&config.image));
        let behaviour = behaviour.cloned().unwrap_or_default();
        if let Some(cause) = &behaviour.create_error {
            return Err(CriError::failed(format!("create container {name}"), cause));
        }
        state.next_id += 1;
        let id = format!("c{}", state.next_id);
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: self.clock.now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: config.image.clone(),
            image_id: FakeImages::id_of(&config.image),
            image_ref: FakeImages::id_of(&config.image),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: log_directory.join(&config.log_path),
            mounts: config.mounts.clone(),
            stop_signal: if behaviour.without_stop_signal { String::new() } else { config.stop_signal.clone() },
            resources: config.resources.clone(),
            user: None,
        };
        state.containers.insert(id.clone(), Container { status, config: config.clone(), behaviour });
        self.say(&sandbox, &id);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let now = self.clock.now();
        let mut state = self.reach("start_container", id)?;
        let container = state.containers.get_mut(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
        if container.status.state != ContainerState::Created {
            return Err(CriError::failed(format!("start container {id}"), "it was started before"));
        }
        let behaviour = container.behaviour.clone();
        let sandbox_id = container.status.sandbox_id.clone();
        let mut result = Ok(());
        if let Some(cause) = &behaviour.start_error {
            finish(container, 128, now);
            container.status.reason = "StartError".into();
            container.status.message.clone_from(cause);
            result = Err(CriError::failed(format!("start container {id}"), cause));
        } else {
            container.status.state = ContainerState::Running;
            container.status.started_at = Some(now);
            write_log(&container.status.log_path, &behaviour.output, now);
            let command: Vec<String> = container.config.command.iter().chain(&container.config.args).cloned().collect();
            match (behaviour.exit_code, interpret(&command)) {
                _ if behaviour.oom_killed => finish(container, 137, now),
                (Some(code), _) => finish(container, code, now),
                (None, Some((output, code))) if !behaviour.runs => {
                    let lines: Vec<String> = output.lines().map(str::to_owned).collect();
                    write_log(&container.status.log_path, &lines, now);
                    finish(container, code, now);
                }
                _ => {}
            }
        }
        if let Some(sandbox) = state.sandboxes.get(&sandbox_id) {
            self.say(&sandbox.status, id);
        }
        result
    }

    async fn stop_container(&self, id: &str, _grace: Duration) -> Result<(), CriError> {
        let now = self.clock.now();
        let mut state = self.reach("stop_container", id)?;
        let Some(container) = state.containers.get_mut(id) else { return Ok(()) };
        if let Some(cause) = &container.behaviour.stop_error {
            return Err(CriError::failed(format!("stop container {id}"), cause));
        }
        match container.status.state {
            ContainerState::Running => {
                let code = if container.behaviour.ignores_stop { 137 } else { 143 };
                finish(container, code, now);
            }
            ContainerState::Created => finish(container, 137, now),
            ContainerState::Exited | ContainerState::Unknown => return Ok(()),
        }
        let sandbox_id = container.status.sandbox_id.clone();
        if let Some(sandbox) = state.sandboxes.get(&sandbox_id) {
            self.say(&sandbox.status, id);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let mut state = self.reach("remove_container", id)?;
        if let Some(container) = state.containers.remove(id)
            && let Some(sandbox) = state.sandboxes.get(&container.status.sandbox_id)
        {
            self.say(&sandbox.status, id);
        }
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, CriError> {
        Ok(self.reach("list_containers", "")?.containers.values().map(|c| c.status.clone()).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let state = self.reach("container_status", id)?;
        if let Some(cause) = &state.status_error {
            return Err(CriError::failed(format!("ask for container {id}"), cause));
        }
        let container = state.containers.get(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
        Ok(container.status.clone())
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, CriError> {
        let state = self.reach("exec_sync", id)?;
        let container = running(&state, id)?;
        let key = (container.status.metadata.name.clone(), command.to_vec());
        if let Some(answer) = state.exec_answers.get(&key) {
            return answer.clone();
        }
        match interpret(command) {
            Some((stdout, exit_code)) => Ok(ExecOutput { stdout: stdout.into_bytes(), stderr: Vec::new(), exit_code }),
            None if timeout.is_zero() => Ok(ExecOutput::default()),
            None => Err(CriError::Timeout(format!("exec {command:?}"))),
        }
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
        running(&*self.reach("exec", id)?, id)?;
        let attempt = || format!("exec in container {id}");
        let (exit_tx, exit) = oneshot::channel();
        let (resize, _) = mpsc::channel(4);
        let pipe = || std::io::pipe().map_err(|cause| CriError::failed(attempt(), cause));
        let ((input, stdin), (stdout, output), (stderr, _)) = (pipe()?, pipe()?, pipe()?);
        let command = request.command.clone();
        let reads = request.stdin;
        // Its own thread, as a process would be: `cat` gives back what it is given, `yes` never ends, the rest is interpreted.
        std::thread::spawn(move || {
            let (mut input, mut output) = (input, output);
            let code = match interpret(&command) {
                None if command == ["yes"] => std::io::copy(&mut std::io::repeat(b'y'), &mut output).map_or(1, |_| 0),
                Some((text, code)) => output.write_all(text.as_bytes()).map_or(1, |()| code),
                None if reads => std::io::copy(&mut input, &mut output).map_or(1, |_| 0),
                None => 0,
            };
            drop(output);
            // Whoever asked may have left.
            exit_tx.send(Ok(code)).ok();
        });
        Ok(ExecSession {
            stdin: request.stdin.then(|| OwnedFd::from(stdin)),
            stdout: request.stdout.then(|| OwnedFd::from(stdout)),
            stderr: (request.stderr && !request.tty).then(|| OwnedFd::from(stderr)),
            exit,
            resize,
        })
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let state = self.reach("reopen_container_log", id)?;
        let attempt = || format!("reopen the log of container {id}");
        let path = &running(&state, id)?.status.log_path;
        if state.fails_reopening {
            return Err(CriError::failed(attempt(), "it is said to fail"));
        }
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map(drop).map_err(|cause| CriError::failed(attempt(), cause))
    }

    /// Whatever the process is, it gives back what it is given.
    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
        let command = vec!["cat".to_owned()];
        self.exec(id, &ExecRequest { command, ..request.clone() }).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, CriError> {
        drop(self.reach("port_forward", sandbox_id)?);
        let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        let failed = |cause| CriError::failed(format!("connect to port {port}"), cause);
        connected.map(|stream| Box::new(stream) as _).map_err(failed)
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>, CriError> {
        let state = self.reach("container_stats", "")?;
        let running = state.containers.values().filter(|c| c.status.state == ContainerState::Running);
        let stats = running.map(|c| ContainerStats {
            id: c.status.id.clone(),
            sandbox_id: c.status.sandbox_id.clone(),
            name: c.status.metadata.name.clone(),
            usage: SOME_USAGE,
            writable_layer: Some(FilesystemUsage { mount_point: "/".into(), used_bytes: 4096, inodes_used: 1 }),
        });
        Ok(stats.collect())
    }

    async fn pod_sandbox_stats(&self) -> Result<Vec<PodSandboxStats>, CriError> {
        let state = self.reach("pod_sandbox_stats", "")?;
        let ready = state.sandboxes.values().filter(|sandbox| sandbox.status.state == SandboxState::Ready);
        let stats = ready.map(|sandbox| PodSandboxStats { id: sandbox.status.id.clone(), usage: SOME_USAGE, network: Vec::new() });
        Ok(stats.collect())
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<(), CriError> {
        let mut state = self.reach("update_container_resources", id)?;
        if let Some(cause) = &state.resize_error {
            return Err(CriError::failed(format!("change the limits of container {id}"), cause));
        }
        let container = state.containers.get_mut(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
        if container.status.state == ContainerState::Exited {
            return Err(CriError::failed(format!("change the limits of container {id}"), "it has ended"));
        }
        container.status.resources = container.status.resources.changed(resources).settled();
        Ok(())
    }

    async fn update_pod_sandbox_resources(&self, id: &str, _resources: &Resources) -> Result<(), CriError> {
        let state = self.reach("update_pod_sandbox_resources", id)?;
        match state.sandboxes.get(id).map(|sandbox| sandbox.status.state) {
            Some(SandboxState::Ready) => Ok(()),
            Some(SandboxState::NotReady) => Err(CriError::failed(format!("change the limits of sandbox {id}"), "it is not ready")),
            None => Err(CriError::NotFound(format!("sandbox {id}"))),
        }
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
}

fn running<'a>(state: &'a State, id: &str) -> Result<&'a Container, CriError> {
    let container = state.containers.get(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
    if container.status.state != ContainerState::Running {
        return Err(CriError::failed(format!("exec in container {id}"), "it is not running"));
    }
    Ok(container)
}

/// The in-memory image service. Every pull succeeds, unless told otherwise.
#[derive(Default)]
pub struct FakeImages(Mutex<ImageState>);

#[derive(Default)]
struct ImageState {
    present: BTreeMap<String, Image>,
    errors: BTreeMap<String, CriError>,
    users: BTreeMap<String, String>,
    demanded: BTreeMap<String, String>,
    pinned: BTreeSet<String>,
    pulls: Vec<String>,
    held: BTreeMap<String, Arc<Notify>>,
}

impl FakeImages {
    fn lock(&self) -> MutexGuard<'_, ImageState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest this reference has here; an id is its own.
    pub fn id_of(reference: &str) -> String {
        use sha2::Digest;
        if reference.starts_with("sha256:") {
            return reference.to_owned();
        }
        format!("sha256:{}", hex::encode(sha2::Sha256::digest(reference.as_bytes())))
    }

    /// Makes it present without a pull.
    pub fn add(&self, reference: &str) {
        let mut state = self.lock();
        let image = Image {
            id: Self::id_of(reference),
            tags: vec![reference.to_owned()],
            digests: Vec::new(),
            size_bytes: 1 << 20,
            user: state.users.get(reference).cloned().unwrap_or_default(),
            pinned: state.pinned.contains(reference),
        };
        state.present.insert(reference.to_owned(), image);
    }

    /// The user in the configuration of this image, from its next pull on.
    pub fn set_user(&self, reference: &str, user: &str) {
        self.lock().users.insert(reference.to_owned(), user.to_owned());
    }

    /// This reference's image is one that the runtime needs itself, from its next pull on.
    pub fn pin(&self, reference: &str) {
        self.lock().pinned.insert(reference.to_owned());
    }

    /// Pulls of this reference fail so; `None`: work.
    pub fn fail_pulls(&self, reference: &str, error: Option<CriError>) {
        let mut state = self.lock();
        match error {
            Some(error) => state.errors.insert(reference.to_owned(), error),
            None => state.errors.remove(reference),
        };
    }

    /// Pulls of this reference are not done before [`Notify::notify_one`].
    pub fn hold_pulls(&self, reference: &str) -> Arc<Notify> {
        Arc::clone(self.lock().held.entry(reference.to_owned()).or_default())
    }

    /// Only this user may pull this reference.
    pub fn demand(&self, reference: &str, username: &str) {
        self.lock().demanded.insert(reference.to_owned(), username.to_owned());
    }

    /// The references pulled so far, in order.
    pub fn pulls(&self) -> Vec<String> {
        self.lock().pulls.clone()
    }
}

#[async_trait]
impl Images for FakeImages {
    async fn details(&self, _reference: &str) -> serde_json::Value {
        serde_json::json!({"chainID": "sha256:fake", "imageSpec": {"rootfs": {}}})
    }

    async fn list(&self) -> Result<Vec<Image>, CriError> {
        Ok(self.lock().present.values().cloned().collect())
    }

    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError> {
        let state = self.lock();
        let by_id = || state.present.values().find(|image| image.id == reference);
        Ok(state.present.get(reference).or_else(by_id).cloned())
    }

    async fn pull_progress(&self, reference: &str) -> Option<PullProgress> {
        self.lock().held.contains_key(reference).then_some(PullProgress { done_bytes: 28 << 20, total_bytes: 58 << 20 })
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<String, CriError> {
        let held = self.lock().held.get(reference).cloned();
        if let Some(held) = held {
            held.notified().await;
        }
        let error = {
            let mut state = self.lock();
            state.pulls.push(reference.to_owned());
            let user = auth.map(|auth| auth.username.as_str()).unwrap_or_default();
            let denied = state.demanded.get(reference).is_some_and(|wanted| wanted != user);
            let refusal = || CriError::Pull { reference: reference.to_owned(), cause: format!("denied to {user:?}") };
            state.errors.get(reference).cloned().or_else(|| denied.then(refusal))
        };
        match error {
            Some(error) => Err(error),
            None => {
                self.add(reference);
                Ok(Self::id_of(reference))
            }
        }
    }

    async fn remove(&self, reference: &str) -> Result<(), CriError> {
        self.lock().present.retain(|name, image| name != reference && image.id != reference);
        Ok(())
    }

    async fn fs_info(&self) -> Result<FilesystemUsage, CriError> {
        let used_bytes = self.lock().present.values().map(|image| image.size_bytes).sum();
        Ok(FilesystemUsage { mount_point: "/".into(), used_bytes, inodes_used: 7 })
    }
}
