//! Several hosts on one machine: a network namespace each, joined by a switch in another; Podbay's
//! own binaries run in them as a user would start them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const PODBAY: &str = env!("CARGO_BIN_EXE_podbay");
/// Wide on purpose: two busy cores, debug binaries.
pub const LONG: Duration = Duration::from_secs(180);

/// Runs a shell script that must succeed; returns what it printed.
pub fn sh(script: &str) -> String {
    let out = Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().expect("bash runs");
    assert!(out.status.success(), "{script}\n{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Asks until there is an answer; fails with the last words of `state` when there is none in time.
pub fn wait<T>(what: &str, state: impl Fn() -> String, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            println!("ok after {:>5.1} s: {what}", started.elapsed().as_secs_f32());
            return answer;
        }
        assert!(started.elapsed() < LONG, "not within {} s: {what}\n{}", LONG.as_secs(), state());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process of Podbay in a namespace. Killed when dropped.
pub struct Daemon {
    child: Child,
    pub log: PathBuf,
}

impl Daemon {
    fn spawn(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("open the log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("dup")).stderr(file);
        Self { child: command.spawn().expect("start podbay"), log: log.to_owned() }
    }

    pub fn kill_hard(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A switch, a server host and node hosts. Everything is named by `prefix` and removed when dropped.
pub struct Hosts {
    prefix: String,
    pub dir: PathBuf,
    names: Vec<String>,
}

impl Hosts {
    /// `names[0]` gets 10.99.0.1, and so on; the network exists only inside the namespaces.
    pub fn new(prefix: &str, names: &[&str]) -> Self {
        let dir = PathBuf::from(format!("/var/tmp/{prefix}"));
        let hosts = Self { prefix: prefix.to_owned(), dir, names: names.iter().map(|&name| name.to_owned()).collect() };
        hosts.remove();
        std::fs::create_dir_all(&hosts.dir).expect("make the test's directory");
        sh(&format!("ip netns add {prefix}-sw; ip -n {prefix}-sw link add br0 type bridge; ip -n {prefix}-sw link set br0 up"));
        for (index, name) in hosts.names.iter().enumerate() {
            let ns = hosts.namespace(name);
            sh(&format!(
                "ip netns add {ns}; ip -n {ns} link set lo up
                 ip -n {ns} link add eth0 type veth peer name {name} netns {prefix}-sw
                 ip -n {prefix}-sw link set {name} master br0 up
                 ip -n {ns} address add {address}/24 dev eth0; ip -n {ns} link set eth0 up
                 ip -n {ns} route add default dev eth0",
                address = hosts.address(name),
            ));
            let _ = index;
        }
        hosts
    }

    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn address(&self, name: &str) -> String {
        let index = self.names.iter().position(|known| known == name).expect("a host of this test");
        format!("10.99.0.{}", index + 1)
    }

    pub fn cut(&self, name: &str) {
        sh(&format!("ip -n {}-sw link set {name} nomaster", self.prefix));
    }

    pub fn heal(&self, name: &str) {
        sh(&format!("ip -n {}-sw link set {name} master br0", self.prefix));
    }

    pub fn cgroup_root(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A command in a host's network namespace; mounts and cgroups are the machine's.
    pub fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(name))).arg(program);
        command.env_remove("KUBECONFIG");
        command
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("podbay.toml")
    }

    /// Writes a host's podbay.toml.
    pub fn configure(&self, name: &str, more: &str) {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(dir.join("data/images")).expect("make the data directory");
        let text = format!(
            "data-dir = \"{dir}/data\"\nrun-dir = \"{dir}/run\"\n[node]\nname = \"{name}\"\naddress = \"{address}\"\ncgroup-root = \"{root}\"\nsystemd-slice = false\nlease-seconds = 2\n{more}",
            dir = dir.display(),
            address = self.address(name),
            root = self.cgroup_root(name),
        );
        std::fs::write(self.config(name), text).expect("write podbay.toml");
    }

    pub fn start(&self, name: &str, arguments: &[&str]) -> Daemon {
        self.start_with(name, arguments, &self.config(name), &self.dir.join(name).join("log"))
    }

    /// The same by another configuration, which is not the host's agent's.
    pub fn start_with(&self, name: &str, arguments: &[&str], config: &Path, log: &Path) -> Daemon {
        let mut command = self.command(name, "sh");
        // As the units do.
        command.args(["-c", "umask 077; exec \"$0\" \"$@\"", PODBAY]);
        command.args(arguments).arg("--config").arg(config);
        Daemon::spawn(command, log)
    }

    /// The same with a view of its own of the machine's mounts, which this script makes.
    pub fn start_seeing(&self, name: &str, view: &str, arguments: &[&str]) -> Daemon {
        let mut command = self.command(name, "unshare");
        command.args(["--mount", "sh", "-c", &format!("umask 077; {view} && exec \"$0\" \"$@\""), PODBAY]);
        command.args(arguments).arg("--config").arg(self.config(name));
        Daemon::spawn(command, &self.dir.join(name).join("log"))
    }

    /// Removes what reset would leave if the test failed half-way: its daemons, pods, namespaces.
    fn remove(&self) {
        for name in &self.names {
            if self.config(name).exists() && Path::new("/run/netns").join(self.namespace(name)).exists() {
                let _ = self.command(name, PODBAY).args(["reset", "--yes", "--config"]).arg(self.config(name)).output();
            }
        }
        for name in self.names.iter().map(String::as_str).chain(["sw"]) {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(name)]).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in &self.names {
                let log = std::fs::read_to_string(self.dir.join(name).join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                println!("--- last words of {name}");
                tail.iter().rev().for_each(|line| println!("{line}"));
            }
        }
        self.remove();
    }
}

/// The administrator's command line on the server's host.
pub struct Admin<'a> {
    pub hosts: &'a Hosts,
    pub server: &'a str,
}

impl Admin<'_> {
    pub fn kubeconfig(&self) -> PathBuf {
        self.hosts.dir.join(self.server).join("data/admin.kubeconfig")
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.hosts.command(self.server, PODBAY);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        command.output().expect("run podbay")
    }

    /// Runs a verb that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        assert!(out.status.success(), "podbay {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let kubectl = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/kubectl");
        assert!(kubectl.exists(), "the real kubectl is missing: run `make setup-test`");
        let mut command = self.hosts.command(self.server, kubectl.to_str().expect("a path in UTF-8"));
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.hosts.dir).stdin(Stdio::null());
        command
    }

    /// Runs the real kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.kubectl_command(arguments).output().expect("run kubectl")
    }

    /// Runs the real kubectl as those before 1.30 are: streams are SPDY's.
    pub fn old_kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = self.kubectl_command(arguments);
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false").env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        command.output().expect("run kubectl")
    }

    /// Runs the real kubectl, which must succeed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let out = self.kubectl(arguments);
        assert!(out.status.success(), "kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// An object or a list as JSON; `None` when it cannot be had.
    pub fn json(&self, what: &[&str]) -> Option<Value> {
        let mut arguments = vec!["get"];
        arguments.extend(what);
        arguments.extend(["-o", "json"]);
        let out = self.run(&arguments);
        out.status.success().then(|| serde_json::from_slice(&out.stdout).expect("JSON"))
    }

    /// The pods of a namespace with this label, as JSON.
    pub fn pods(&self, namespace: &str, selector: &str) -> Vec<Value> {
        let list = self.json(&["pods", "-n", namespace, "-l", selector]);
        list.and_then(|list| list["items"].as_array().cloned()).unwrap_or_default()
    }

    pub fn state(&self) -> String {
        let text = |arguments: &[&str]| String::from_utf8_lossy(&self.run(arguments).stdout).into_owned();
        format!("{}{}{}", text(&["status"]), text(&["get", "pods", "-A", "-o", "wide"]), text(&["get", "events", "-A"]))
    }

    /// Waits for a condition; on failure shows the cluster.
    pub fn wait<T>(&self, what: &str, ask: impl FnMut() -> Option<T>) -> T {
        wait(what, || self.state(), ask)
    }
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.is_some_and(|all| all.iter().any(ready))
}

pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
