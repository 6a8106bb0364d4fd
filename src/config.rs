//! podbay.toml, flags and environment to one typed [`Config`]: read once, every error at once.
//!
//! Precedence: a flag, then its environment variable (clap reads both), then the file, then the
//! default. Everything that is global to a host (directories, cgroup root, bridge, nft table,
//! ports) is here, so that several nodes fit on one machine.

mod faults;
mod file;
mod images;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use faults::Faults;
use file::{NodeFile, ServerFile, SourceFile, Written};
pub use images::{Images, ImagesFile, Registry, RegistryFile};

use crate::model::{GitSource, PruneBudget, SourceSpec};
use crate::network::Range;

/// Read when no `--config` is given and it exists.
pub const DEFAULT_FILE: &str = "/etc/podbay/podbay.toml";
pub const DEFAULT_DATA_DIR: &str = "/var/lib/podbay";
pub const DEFAULT_RUN_DIR: &str = "/run/podbay";

/// What the flags of a daemon verb say.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub node_name: Option<String>,
    pub runtime_endpoint: Option<String>,
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// The verb starts this host's node, which is to be whole then: to other verbs a kubeconfig that only a flag names is
    /// not said.
    pub starts_node: bool,
    /// `PATH`, `URL`, or `NAME=PATH|URL`.
    pub sources: Vec<String>,
}

/// The typed configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub server: Server,
    pub node: Node,
    pub images: Images,
    /// By name.
    pub sources: BTreeMap<String, SourceSpec>,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
    /// Further names and addresses for the server's certificate.
    pub names: Vec<String>,
    pub service_range: Range,
    pub pod_range: Range,
    /// Prefix length of one node's pod range.
    pub node_prefix: u8,
    /// A node is NotReady when its lease is older than this.
    pub node_grace_seconds: u32,
    /// Pods of a NotReady node are replaced after this.
    pub eviction_seconds: u32,
    /// Whether logs, exec and the like trust whatever answers at a node's address.
    pub insecure_node_certificates: bool,
    /// Where requests are written down; `None`: nowhere.
    pub audit_log: Option<PathBuf>,
    /// A file that says which; `None`: the server's own choice.
    pub audit_policy: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    /// `None`: the address of the default route's interface.
    pub address: Option<IpAddr>,
    pub api_port: u16,
    /// How often the node says that it lives.
    pub lease_seconds: u32,
    pub max_pods: u32,
    /// Processes and threads of one pod; 0: any number.
    pub pod_pids_limit: u32,
    pub bridge: String,
    pub nft_table: String,
    /// Relative to each cgroup hierarchy.
    pub cgroup_root: String,
    /// Place pods in a delegated scope below `podbay-pods.slice`.
    pub systemd_slice: bool,
    /// `None`: `podbay-shim` beside this binary.
    pub shim: Option<PathBuf>,
    /// Socket of another container runtime that speaks CRI v1; `None`: our own engine.
    pub runtime_endpoint: Option<String>,
    /// Other OCI runtimes for our engine: their programs, by the handler of a RuntimeClass.
    pub runtime_handlers: BTreeMap<String, PathBuf>,
    pub cluster_dns: Vec<IpAddr>,
    /// What pods resolve by outside the cluster; `None`: /etc/resolv.conf, or where it names nothing but
    /// this host, systemd-resolved's own.
    pub resolv_conf: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    /// How a node of a kube-apiserver reaches that; `None`: the server is Podbay's.
    pub kubeconfig: Option<PathBuf>,
    /// With what it gets that file.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Whose certificates a kube-apiserver shows to the node API; `None`: its own CA's.
    pub api_client_ca: Option<PathBuf>,
    /// The common names of these.
    pub api_client: Vec<String>,
}

/// Everything that is wrong, a line each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read {file}: {cause}")]
    Read { file: PathBuf, cause: std::io::Error },
    #[error("{file}: {message}")]
    Parse { file: PathBuf, message: String },
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads the file (the default one only if it exists) and lays the flags over it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut written = match &flags.config {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => Written::default(),
        };
        if let Some(path) = &flags.config {
            let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
            contradictions(path, &mut written, flags, &variable);
        }
        Self::build(written, flags)
    }

    /// The pure part of [`Config::load`].
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    fn build(written: Written, flags: &Flags) -> Result<Self, ConfigError> {
        let Written { file, mut faults } = written;
        let server = server(&file.server, flags, &mut faults);
        let node = node(file.node, flags, &mut faults);
        let sources = sources(&file.source, &flags.sources, &mut faults);
        let data_dir = flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let run_dir = flags.run_dir.clone().or(file.run_dir).unwrap_or_else(|| DEFAULT_RUN_DIR.into());
        let images = images::images(file.images, &mut faults);
        let config = Self { data_dir: absolute(data_dir), run_dir: absolute(run_dir), server, node, images, sources };
        let lines = faults.into_lines();
        if lines.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(lines)) }
    }

    /// Where the server leaves the administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }
}

/// A file named on the command line says which node is meant. A variable that was exported for another
/// one must not turn it into a mixture of both.
fn contradictions(path: &Path, written: &mut Written, flags: &Flags, variable: &dyn Fn(&str) -> Option<PathBuf>) {
    let Written { file, faults } = written;
    let rows =
        [("PODBAY_DATA_DIR", "data-dir", &file.data_dir, &flags.data_dir), ("PODBAY_RUN_DIR", "run-dir", &file.run_dir, &flags.run_dir)];
    for (name, key, said, taken) in rows {
        let (Some(said), Some(taken), Some(value)) = (said, taken, variable(name)) else { continue };
        // A flag of another value wins over both, on purpose.
        if *taken == value && value != *said {
            let (value, said, path) = (value.display(), said.display(), path.display());
            faults.about(&[], format!("{name}={value} contradicts {key} = \"{said}\" of {path}: unset it, or say --{key}"));
        }
    }
}

fn read(path: &Path) -> Result<Written, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { file: path.into(), cause })?;
    Written::parse(path, &text).map_err(|message| ConfigError::Parse { file: path.into(), message })
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A flag's value or else the file's, and who said it.
fn said<'a>(flag: &'a str, by_flag: &Option<String>, key: &'a str, by_file: &Option<String>) -> (&'a str, Option<String>) {
    if by_flag.is_some() { (flag, by_flag.clone()) } else { (key, by_file.clone()) }
}

/// Parses an optional text, noting what is wrong with it.
fn parsed<T>(key: &str, text: Option<&String>, default: &str, faults: &mut Faults) -> T
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text = text.map_or(default, String::as_str);
    match text.parse() {
        Ok(value) => value,
        Err(error) => {
            faults.unread(key, format!("{text:?}: {error}"));
            match default.parse() {
                Ok(value) => value,
                Err(_) => unreachable!("the default of {key} is well-formed: a test parses every one"),
            }
        }
    }
}

fn server(file: &ServerFile, flags: &Flags, faults: &mut Faults) -> Server {
    let (listen_key, listen) = said("--listen", &flags.listen, "server.listen", &file.listen);
    let server = Server {
        listen: parsed(listen_key, listen.as_ref(), "0.0.0.0:6443", faults),
        names: file.names.clone(),
        service_range: parsed("server.service-range", file.service_range.as_ref(), "10.96.0.0/16", faults),
        pod_range: parsed("server.pod-range", file.pod_range.as_ref(), "10.80.0.0/16", faults),
        node_prefix: file.node_prefix.unwrap_or(24),
        node_grace_seconds: file.node_grace_seconds.unwrap_or(40),
        eviction_seconds: file.eviction_seconds.unwrap_or(300),
        insecure_node_certificates: file.insecure_node_certificates,
        audit_log: file.audit_log.clone(),
        audit_policy: file.audit_policy.clone(),
    };
    for (key, path) in [("server.audit-log", &server.audit_log), ("server.audit-policy", &server.audit_policy)] {
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            faults.of(key, "an absolute path is needed");
        }
    }
    if server.audit_policy.is_some() && server.audit_log.is_none() {
        faults.about(
            &["server.audit-policy", "server.audit-log"],
            "server.audit-policy: without server.audit-log nothing is written".to_owned(),
        );
    }
    if server.node_prefix <= server.pod_range.prefix || server.node_prefix > 28 {
        let (prefix, range) = (server.node_prefix, server.pod_range.prefix);
        faults.about(
            &["server.node-prefix", "server.pod-range"],
            format!("server.node-prefix: {prefix} must be greater than the prefix of pod-range ({range}) and at most 28"),
        );
    }
    if server.pod_range.contains(server.service_range.base.into()) || server.service_range.contains(server.pod_range.base.into()) {
        faults.about(
            &["server.service-range", "server.pod-range"],
            format!("server.service-range: {} overlaps server.pod-range {}", server.service_range, server.pod_range),
        );
    }
    server
}

fn node(file: NodeFile, flags: &Flags, faults: &mut Faults) -> Node {
    let (name_key, name) = said("--node-name", &flags.node_name, "node.name", &file.name);
    let name = name.unwrap_or_else(host_name);
    if !is_dns_name(&name) {
        faults.of(name_key, format!("{name:?} is not a DNS name (lower-case letters, digits, '-' and '.')"));
    }
    let kubeconfig = flags.kubeconfig.clone().or(file.kubeconfig.clone()).map(absolute);
    let bootstrap_kubeconfig = flags.bootstrap_kubeconfig.clone().or(file.bootstrap_kubeconfig.clone()).map(absolute);
    if flags.starts_node && kubeconfig.is_none() {
        of_no_other_server(&file, bootstrap_kubeconfig.is_some(), faults);
    }
    let address = file.address.as_ref().and_then(|text| match text.parse() {
        Ok(address) => Some(address),
        Err(error) => {
            faults.of("node.address", format!("{text:?}: {error}"));
            None
        }
    });
    let mut cluster_dns = Vec::new();
    for (index, text) in file.cluster_dns.iter().enumerate() {
        match text.parse() {
            Ok(address) => cluster_dns.push(address),
            Err(error) => faults.of(&format!("node.cluster-dns[{index}]"), format!("{text:?}: {error}")),
        }
    }
    let bridge = file.bridge.unwrap_or_else(|| "podbay0".to_owned());
    if bridge.is_empty() || bridge.len() > 15 {
        faults.of("node.bridge", format!("{bridge:?} must have 1 to 15 characters (Linux' bound on interface names)"));
    }
    let cgroup_root = file.cgroup_root.unwrap_or_else(|| "podbay".to_owned());
    if cgroup_root.starts_with('/') || cgroup_root.split('/').any(|part| part.is_empty() || part == "..") {
        faults.of("node.cgroup-root", format!("{cgroup_root:?} must be a relative path like `podbay`"));
    }
    let (endpoint_key, endpoint) = said("--runtime-endpoint", &flags.runtime_endpoint, "node.runtime-endpoint", &file.runtime_endpoint);
    let runtime_endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
    if let Some(endpoint) = runtime_endpoint.as_ref().filter(|endpoint| !endpoint.starts_with("unix:///") && !endpoint.starts_with('/')) {
        faults.of(endpoint_key, format!("{endpoint:?} must be a socket like `unix:///run/containerd/containerd.sock`"));
    }
    handlers(&file.runtime_handlers, runtime_endpoint.is_some(), faults);
    let api_client = file.api_client.unwrap_or_else(|| vec!["kube-apiserver-kubelet-client".to_owned()]);
    if api_client.is_empty() || api_client.iter().any(String::is_empty) {
        faults.of("node.api-client", "a name is needed, and no empty one: who has it gets into every pod of this node");
    }
    Node {
        name,
        address,
        runtime_endpoint,
        runtime_handlers: file.runtime_handlers,
        api_port: file.api_port.unwrap_or(10250),
        lease_seconds: file.lease_seconds.unwrap_or(10),
        max_pods: file.max_pods.unwrap_or(110),
        pod_pids_limit: file.pod_pids_limit.unwrap_or(4096),
        bridge,
        nft_table: file.nft_table.unwrap_or_else(|| "podbay".to_owned()),
        cgroup_root,
        systemd_slice: file.systemd_slice.unwrap_or_else(systemd_delegates),
        shim: file.shim,
        cluster_dns,
        resolv_conf: file.resolv_conf,
        labels: file.labels,
        kubeconfig,
        bootstrap_kubeconfig,
        api_client_ca: file.api_client_ca.map(absolute),
        api_client,
    }
}

/// What only a node of a kube-apiserver has.
fn of_no_other_server(file: &NodeFile, has_bootstrap: bool, faults: &mut Faults) {
    if has_bootstrap {
        faults.about(
            &["node.bootstrap-kubeconfig", "node.kubeconfig"],
            "node.bootstrap-kubeconfig: say node.kubeconfig too, the file that is made with it".to_owned(),
        );
    }
    if file.api_client.is_some() || file.api_client_ca.is_some() {
        faults.about(
            &["node.api-client", "node.api-client-ca", "node.kubeconfig"],
            "node.api-client, node.api-client-ca: say node.kubeconfig too: of Podbay's nodes its server is the only client".to_owned(),
        );
    }
}

fn handlers(handlers: &BTreeMap<String, PathBuf>, elsewhere: bool, faults: &mut Faults) {
    if elsewhere && !handlers.is_empty() {
        faults.of("node.runtime-handlers", "the runtime of node.runtime-endpoint has its own: configure them there");
    }
    for (name, program) in handlers {
        if name == "podbay" || name.contains('.') || !is_dns_name(name) {
            let what = format!("node.runtime-handlers: {name:?} is not a DNS label, or is the engine's own name");
            faults.about(&[&format!("node.runtime-handlers.{name}")], what);
        }
        if !program.is_absolute() {
            faults.of(&format!("node.runtime-handlers.{name}"), format!("{} is not an absolute path", program.display()));
        }
    }
}

/// systemd runs and the host has the unified cgroup hierarchy: then its scopes can be delegated.
fn systemd_delegates() -> bool {
    Path::new("/run/systemd/system").exists() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The host's name in lower case, as the kubelet takes it.
fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_else(|_| "localhost".to_owned())
}

fn is_dns_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

fn sources(files: &[SourceFile], flags: &[String], faults: &mut Faults) -> BTreeMap<String, SourceSpec> {
    let mut sources = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let subject = format!("source {:?}", file.name);
        let [name, directory, git] = ["name", "directory", "git"].map(|key| format!("source[{index}].{key}"));
        if !is_dns_name(&file.name) {
            faults.about(&[&name], format!("{subject}: `name` must be a DNS name: it is the source's identity"));
        }
        if file.directory.is_some() == file.git.is_some() {
            faults.about(&[&directory, &git], format!("{subject}: needs exactly one of `directory` and `git`"));
        }
        if sources.insert(file.name.clone(), from_file(file)).is_some() {
            faults.about(&[&name], format!("{subject}: is configured twice"));
        }
    }
    for text in flags {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if is_dns_name(name) => (name.to_owned(), place),
            _ => (name_of(text), text.as_str()),
        };
        if sources.insert(name.clone(), from_place(place)).is_some() {
            faults.about(&[], format!("--source {text}: the name {name:?} is taken: write NAME={place}"));
        }
    }
    sources
}

/// A source's spec from its place alone: a repository's URL, a repository or a directory.
pub fn from_place(place: &str) -> SourceSpec {
    let url = place.contains("://") || (place.contains('@') && place.contains(':') && !Path::new(place).exists());
    let path = Path::new(place);
    if url || path.join(".git").exists() || (path.join("HEAD").exists() && path.join("objects").exists()) {
        let url = if url { place.to_owned() } else { absolute(path.into()).to_string_lossy().into_owned() };
        return SourceSpec { git: Some(GitSource { url, ..GitSource::default() }), ..SourceSpec::default() };
    }
    SourceSpec { directory: Some(absolute(path.into()).to_string_lossy().into_owned()), ..SourceSpec::default() }
}

/// A name for a source from the last part of its place.
pub fn name_of(place: &str) -> String {
    let last = place.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default().trim_end_matches(".git");
    let name: String = last.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "manifests".to_owned() } else { name }
}

fn from_file(file: &SourceFile) -> SourceSpec {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let git = file.git.as_ref().map(|url| GitSource {
        url: url.clone(),
        reference: file.reference.clone(),
        token_file: text(&file.token_file),
        ca_file: text(&file.ca_file),
        ssh_key_file: text(&file.ssh_key_file),
        known_hosts_file: text(&file.known_hosts_file),
    });
    let budget = (file.budget_objects.is_some() || file.budget_percent.is_some())
        .then_some(PruneBudget { objects: file.budget_objects, percent: file.budget_percent });
    SourceSpec {
        directory: file.directory.clone().map(|path| absolute(path).to_string_lossy().into_owned()),
        git,
        path: file.path.clone(),
        namespace: file.namespace.clone(),
        interval_seconds: file.interval_seconds,
        unsupported: file.unsupported.clone(),
        suspend: file.suspend,
        adopt: file.adopt,
        budget,
    }
}

#[cfg(test)]
mod tests;
