//! podbay.toml, flags and environment to one typed [`Config`]: read once, every error at once.
//!
//! Precedence: a flag, then its environment variable (clap reads both), then the file, then the
//! default. Everything that is global to a host (directories, cgroup root, bridge, nft table,
//! ports) is here, so that several nodes fit on one machine.

mod images;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use images::{Images, ImagesFile, Registry, RegistryFile};

use crate::model::schema::nearest;
use crate::model::{GitSource, PruneBudget, SourceSpec};
use crate::network::Range;

/// Read when no `--config` is given and it exists.
pub const DEFAULT_FILE: &str = "/etc/podbay/podbay.toml";
pub const DEFAULT_DATA_DIR: &str = "/var/lib/podbay";
pub const DEFAULT_RUN_DIR: &str = "/run/podbay";

/// The daemon's configuration as written. Unknown keys are errors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct File {
    pub data_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub server: ServerFile,
    pub node: NodeFile,
    pub images: ImagesFile,
    pub source: Vec<SourceFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServerFile {
    pub listen: Option<String>,
    pub names: Vec<String>,
    pub service_range: Option<String>,
    pub pod_range: Option<String>,
    pub node_prefix: Option<u8>,
    pub node_grace_seconds: Option<u32>,
    pub eviction_seconds: Option<u32>,
    pub insecure_node_certificates: bool,
    pub audit_log: Option<PathBuf>,
    pub audit_policy: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct NodeFile {
    pub name: Option<String>,
    pub address: Option<String>,
    pub api_port: Option<u16>,
    pub lease_seconds: Option<u32>,
    pub max_pods: Option<u32>,
    pub pod_pids_limit: Option<u32>,
    pub bridge: Option<String>,
    pub nft_table: Option<String>,
    pub cgroup_root: Option<String>,
    pub systemd_slice: Option<bool>,
    pub shim: Option<PathBuf>,
    pub runtime_endpoint: Option<String>,
    pub runtime_handlers: BTreeMap<String, PathBuf>,
    pub cluster_dns: Vec<String>,
    pub resolv_conf: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub api_client_ca: Option<PathBuf>,
    pub api_client: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SourceFile {
    pub name: String,
    pub directory: Option<PathBuf>,
    pub git: Option<String>,
    pub reference: Option<String>,
    pub path: Option<String>,
    pub namespace: Option<String>,
    pub interval_seconds: Option<i32>,
    pub unsupported: Option<String>,
    pub suspend: Option<bool>,
    pub adopt: Option<bool>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub ssh_key_file: Option<PathBuf>,
    pub known_hosts_file: Option<PathBuf>,
    pub budget_objects: Option<i32>,
    pub budget_percent: Option<i32>,
}

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
        let file = match &flags.config {
            Some(path) => {
                let file = read(path)?;
                let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
                let contradictions = contradictions(path, &file, flags, &variable);
                if !contradictions.is_empty() {
                    return Err(ConfigError::Invalid(contradictions));
                }
                file
            }
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        Self::build(file, flags)
    }

    /// The pure part of [`Config::load`].
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with everything that is wrong.
    pub fn build(file: File, flags: &Flags) -> Result<Self, ConfigError> {
        let mut errors = Vec::new();
        let server = server(&file.server, flags, &mut errors);
        let node = node(file.node, flags, &mut errors);
        let sources = sources(&file.source, &flags.sources, &mut errors);
        let data_dir = flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let run_dir = flags.run_dir.clone().or(file.run_dir).unwrap_or_else(|| DEFAULT_RUN_DIR.into());
        let images = images::images(file.images, &mut errors);
        let config = Self { data_dir: absolute(data_dir), run_dir: absolute(run_dir), server, node, images, sources };
        if errors.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(errors)) }
    }

    /// Where the server leaves the administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }
}

/// A file named on the command line says which node is meant. A variable that was exported for another
/// one must not turn it into a mixture of both.
fn contradictions(path: &Path, file: &File, flags: &Flags, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<String> {
    let rows =
        [("PODBAY_DATA_DIR", "data-dir", &file.data_dir, &flags.data_dir), ("PODBAY_RUN_DIR", "run-dir", &file.run_dir, &flags.run_dir)];
    let contradicted = rows.into_iter().filter_map(|(name, key, said, taken)| {
        let (said, taken, value) = (said.as_ref()?, taken.as_ref()?, variable(name)?);
        // A flag of another value wins over both, on purpose.
        (*taken == value && value != *said).then(|| {
            format!("{name}={} contradicts {key} = \"{}\" of {}: unset it, or say --{key}", value.display(), said.display(), path.display())
        })
    });
    contradicted.collect()
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { file: path.into(), cause })?;
    parse(&text).map_err(|mut errors| match errors.len() {
        1 => ConfigError::Parse { file: path.into(), message: errors.remove(0) },
        _ => ConfigError::Invalid(errors.into_iter().map(|error| format!("{}: {error}", path.display())).collect()),
    })
}

/// Every unknown key at once: the parser ends at the first, so its line is taken out and it is asked
/// again.
fn parse(text: &str) -> Result<File, Vec<String>> {
    let mut rest = text.to_owned();
    let mut errors = Vec::new();
    loop {
        let error: toml::de::Error = match toml::from_str(&rest) {
            Ok(file) if errors.is_empty() => return Ok(file),
            Ok(_) => return Err(errors),
            Err(error) => error,
        };
        let unknown = error.message().strip_prefix("unknown field `").and_then(|message| message.split_once('`')).zip(error.span());
        let Some(((key, expected), span)) = unknown else {
            // Beyond its first line a taken-out key leaves nonsense of its own making.
            if errors.is_empty() {
                errors.push(error.to_string());
            }
            return Err(errors);
        };
        let line = rest[..span.start].matches('\n').count() + 1;
        let known = expected.split('`').skip(1).step_by(2);
        let meant = nearest(key, known).map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
        errors.push(format!("line {line}: unknown key `{key}`{meant}"));
        let start = rest[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = rest[span.start..].find('\n').map_or(rest.len(), |at| span.start + at);
        rest.replace_range(start..end, "");
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Parses an optional text, noting what is wrong with it.
fn parsed<T>(key: &str, text: Option<&String>, default: &str, errors: &mut Vec<String>) -> T
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text = text.map_or(default, String::as_str);
    match text.parse() {
        Ok(value) => value,
        Err(error) => {
            errors.push(format!("{key}: {text:?}: {error}"));
            match default.parse() {
                Ok(value) => value,
                Err(_) => unreachable!("the default of {key} is well-formed: a test parses every one"),
            }
        }
    }
}

fn server(file: &ServerFile, flags: &Flags, errors: &mut Vec<String>) -> Server {
    let listen = flags.listen.clone().or_else(|| file.listen.clone());
    let server = Server {
        listen: parsed("server.listen", listen.as_ref(), "0.0.0.0:6443", errors),
        names: file.names.clone(),
        service_range: parsed("server.service-range", file.service_range.as_ref(), "10.96.0.0/16", errors),
        pod_range: parsed("server.pod-range", file.pod_range.as_ref(), "10.80.0.0/16", errors),
        node_prefix: file.node_prefix.unwrap_or(24),
        node_grace_seconds: file.node_grace_seconds.unwrap_or(40),
        eviction_seconds: file.eviction_seconds.unwrap_or(300),
        insecure_node_certificates: file.insecure_node_certificates,
        audit_log: file.audit_log.clone(),
        audit_policy: file.audit_policy.clone(),
    };
    for (key, path) in [("server.audit-log", &server.audit_log), ("server.audit-policy", &server.audit_policy)] {
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            errors.push(format!("{key}: an absolute path is needed"));
        }
    }
    if server.audit_policy.is_some() && server.audit_log.is_none() {
        errors.push("server.audit-policy: without server.audit-log nothing is written".to_owned());
    }
    if server.node_prefix <= server.pod_range.prefix || server.node_prefix > 28 {
        errors.push(format!(
            "server.node-prefix: {} must be greater than the prefix of pod-range ({}) and at most 28",
            server.node_prefix, server.pod_range.prefix
        ));
    }
    if server.pod_range.contains(server.service_range.base.into()) || server.service_range.contains(server.pod_range.base.into()) {
        errors.push(format!("server.service-range: {} overlaps server.pod-range {}", server.service_range, server.pod_range));
    }
    server
}

fn node(file: NodeFile, flags: &Flags, errors: &mut Vec<String>) -> Node {
    let name = flags.node_name.clone().or(file.name).unwrap_or_else(host_name);
    if !is_dns_name(&name) {
        errors.push(format!("node.name: {name:?} is not a DNS name (lower-case letters, digits, '-' and '.')"));
    }
    let address = file.address.as_ref().and_then(|text| match text.parse() {
        Ok(address) => Some(address),
        Err(error) => {
            errors.push(format!("node.address: {text:?}: {error}"));
            None
        }
    });
    let mut cluster_dns = Vec::new();
    for text in &file.cluster_dns {
        match text.parse() {
            Ok(address) => cluster_dns.push(address),
            Err(error) => errors.push(format!("node.cluster-dns: {text:?}: {error}")),
        }
    }
    let bridge = file.bridge.unwrap_or_else(|| "podbay0".to_owned());
    if bridge.is_empty() || bridge.len() > 15 {
        errors.push(format!("node.bridge: {bridge:?} must have 1 to 15 characters (Linux' bound on interface names)"));
    }
    let cgroup_root = file.cgroup_root.unwrap_or_else(|| "podbay".to_owned());
    if cgroup_root.starts_with('/') || cgroup_root.split('/').any(|part| part.is_empty() || part == "..") {
        errors.push(format!("node.cgroup-root: {cgroup_root:?} must be a relative path like `podbay`"));
    }
    let runtime_endpoint = flags.runtime_endpoint.clone().or(file.runtime_endpoint).filter(|endpoint| !endpoint.is_empty());
    if let Some(endpoint) = runtime_endpoint.as_ref().filter(|endpoint| !endpoint.starts_with("unix:///") && !endpoint.starts_with('/')) {
        errors.push(format!("node.runtime-endpoint: {endpoint:?} must be a socket like `unix:///run/containerd/containerd.sock`"));
    }
    handlers(&file.runtime_handlers, runtime_endpoint.is_some(), errors);
    let kubeconfig = flags.kubeconfig.clone().or(file.kubeconfig).map(absolute);
    let bootstrap_kubeconfig = flags.bootstrap_kubeconfig.clone().or(file.bootstrap_kubeconfig).map(absolute);
    if bootstrap_kubeconfig.is_some() && kubeconfig.is_none() {
        errors.push("node.bootstrap-kubeconfig: say node.kubeconfig too, the file that is made with it".to_owned());
    }
    if kubeconfig.is_none() && (file.api_client.is_some() || file.api_client_ca.is_some()) {
        errors.push(
            "node.api-client, node.api-client-ca: say node.kubeconfig too: of Podbay's nodes its server is the only client".to_owned(),
        );
    }
    let api_client = file.api_client.unwrap_or_else(|| vec!["kube-apiserver-kubelet-client".to_owned()]);
    if api_client.is_empty() || api_client.iter().any(String::is_empty) {
        errors.push("node.api-client: a name is needed, and no empty one: who has it gets into every pod of this node".to_owned());
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

fn handlers(handlers: &BTreeMap<String, PathBuf>, elsewhere: bool, errors: &mut Vec<String>) {
    if elsewhere && !handlers.is_empty() {
        errors.push("node.runtime-handlers: the runtime of node.runtime-endpoint has its own: configure them there".to_owned());
    }
    for (name, program) in handlers {
        if name == "podbay" || name.contains('.') || !is_dns_name(name) {
            errors.push(format!("node.runtime-handlers: {name:?} is not a DNS label, or is the engine's own name"));
        }
        if !program.is_absolute() {
            errors.push(format!("node.runtime-handlers.{name}: {} is not an absolute path", program.display()));
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

fn sources(files: &[SourceFile], flags: &[String], errors: &mut Vec<String>) -> BTreeMap<String, SourceSpec> {
    let mut sources = BTreeMap::new();
    for file in files {
        let subject = format!("source {:?}", file.name);
        if !is_dns_name(&file.name) {
            errors.push(format!("{subject}: `name` must be a DNS name: it is the source's identity"));
        }
        if file.directory.is_some() == file.git.is_some() {
            errors.push(format!("{subject}: needs exactly one of `directory` and `git`"));
        }
        if sources.insert(file.name.clone(), from_file(file)).is_some() {
            errors.push(format!("{subject}: is configured twice"));
        }
    }
    for text in flags {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if is_dns_name(name) => (name.to_owned(), place),
            _ => (name_of(text), text.as_str()),
        };
        if sources.insert(name.clone(), from_place(place)).is_some() {
            errors.push(format!("--source {text}: the name {name:?} is taken: write NAME={place}"));
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
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Config, ConfigError> {
        Config::build(toml::from_str(text).unwrap(), &Flags::default())
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = build("").unwrap();
        assert_eq!(config.data_dir, Path::new(DEFAULT_DATA_DIR));
        assert_eq!(config.server.listen.port(), 6443);
        assert_eq!(config.server.service_range.to_string(), "10.96.0.0/16");
        assert_eq!(config.node.api_port, 10250);
        assert!(config.sources.is_empty());
    }

    #[test]
    fn every_error_is_told_at_once() {
        let error = build(
            r#"
            [server]
            listen = "nowhere"
            service-range = "10.80.0.0/20"
            [node]
            name = "Not_A_Name"
            bridge = "much-too-long-for-linux"
            cgroup-root = "/podbay"
            runtime-endpoint = "tcp://10.0.0.1:1"
            bootstrap-kubeconfig = "/b"
            api-client = []
            [[source]]
            name = "web"
            "#,
        )
        .unwrap_err()
        .to_string();
        let parts = ["server.listen", "overlaps", "node.name", "node.bridge", "node.cgroup-root", "node.runtime-endpoint"];
        for part in parts.into_iter().chain(["node.bootstrap-kubeconfig", "node.api-client", "exactly one of"]) {
            assert!(error.contains(part), "{part} is missing in:\n{error}");
        }
    }

    #[test]
    fn who_gets_into_the_pods_of_a_node_has_a_name() {
        let clients = |text: &str| build(&format!("[node]\nkubeconfig = '/k'\n{text}")).map(|config| config.node.api_client);
        assert_eq!(clients("").unwrap(), ["kube-apiserver-kubelet-client"]);
        assert_eq!(clients("api-client = ['a', 'b']").unwrap(), ["a", "b"]);
        for bad in ["api-client = []", "api-client = ['a', '']"] {
            assert!(clients(bad).unwrap_err().to_string().contains("node.api-client"), "{bad}");
        }
        for alone in ["api-client = ['a']", "api-client-ca = '/ca'"] {
            let error = build(&format!("[node]\n{alone}")).unwrap_err().to_string();
            assert!(error.contains("say node.kubeconfig too"), "{alone}: {error}");
        }
    }

    #[test]
    fn unknown_keys_are_errors() {
        let errors = parse("dta-dir = '/x'\n[node]\nname = 'a'\nbrige = 'b'\n\n[colour]\nred = 1\n").unwrap_err();
        let wanted = [
            "line 1: unknown key `dta-dir`, did you mean `data-dir`?",
            "line 6: unknown key `colour`",
            "line 4: unknown key `brige`, did you mean `bridge`?",
        ];
        for line in wanted {
            assert!(errors.iter().any(|error| error == line), "{line} is not in {errors:?}");
        }
        assert!(parse("name = ").unwrap_err()[0].contains("TOML parse error"));
    }

    #[test]
    fn flags_win_and_name_their_source() {
        let flags = Flags {
            listen: Some("127.0.0.1:7443".into()),
            sources: vec!["https://example.org/team/apps.git".into(), "infra=/srv/infra".into()],
            ..Flags::default()
        };
        let config = Config::build(toml::from_str("[server]\nlisten = '0.0.0.0:1'").unwrap(), &flags).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:7443");
        assert_eq!(config.sources["apps"].git.as_ref().unwrap().url, "https://example.org/team/apps.git");
        assert_eq!(config.sources["infra"].directory.as_deref(), Some("/srv/infra"));
    }

    #[test]
    fn a_variable_does_not_contradict_a_named_file() {
        let file = File { data_dir: Some("/a".into()), ..File::default() };
        let variable = |name: &str| (name == "PODBAY_DATA_DIR").then(|| PathBuf::from("/b"));
        let flags = |dir: Option<&str>| Flags { data_dir: dir.map(PathBuf::from), ..Flags::default() };
        let told = contradictions(Path::new("/etc/x.toml"), &file, &flags(Some("/b")), &variable);
        assert_eq!(told, ["PODBAY_DATA_DIR=/b contradicts data-dir = \"/a\" of /etc/x.toml: unset it, or say --data-dir"]);
        assert!(contradictions(Path::new("x"), &file, &flags(Some("/c")), &variable).is_empty());
        assert!(contradictions(Path::new("x"), &File::default(), &flags(Some("/b")), &variable).is_empty());
    }

    #[test]
    fn names_come_from_the_place() {
        for (place, name) in [("/srv/My Apps/", "my-apps"), ("git@host:team/infra.git", "infra"), ("/", "manifests")] {
            assert_eq!(name_of(place), name);
        }
    }
}

#[cfg(test)]
mod example {
    use super::*;

    /// The documented example says every key with its default: uncommented, it must be the default.
    #[test]
    fn the_example_file_is_true() {
        let text = include_str!("../systemd/podbay.toml");
        let commented = Config::build(toml::from_str(text).unwrap(), &Flags::default()).unwrap();
        assert!(commented.sources.is_empty());
        let bare: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') && !rest.is_empty() && rest != "directory = \"/srv/manifests\"" => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let full = Config::build(toml::from_str(&bare).unwrap(), &Flags::default()).unwrap();
        let defaults = Config::build(File::default(), &Flags::default()).unwrap();
        assert_eq!(full.data_dir, defaults.data_dir);
        assert_eq!(full.run_dir, defaults.run_dir);
        assert_eq!(full.server.listen, defaults.server.listen);
        assert_eq!((full.server.service_range, full.server.pod_range), (defaults.server.service_range, defaults.server.pod_range));
        assert_eq!((full.server.node_grace_seconds, full.server.eviction_seconds), (40, 300));
        assert_eq!((full.server.node_prefix, full.node.max_pods, full.node.api_port, full.node.lease_seconds), (24, 110, 10250, 10));
        assert_eq!((&full.node.bridge, &full.node.nft_table), (&defaults.node.bridge, &defaults.node.nft_table));
        let images = |config: &Config| {
            let Images { parallel_downloads, reserve_mib, gc_high_percent, gc_low_percent, gc_minimum_age_seconds, .. } = config.images;
            (parallel_downloads, reserve_mib, gc_high_percent, gc_low_percent, gc_minimum_age_seconds)
        };
        assert_eq!(images(&full), images(&defaults));
        assert_eq!(full.images.registries["docker.io"].mirrors, ["mirror.example.org:5000/hub"]);
        assert_eq!(full.node.runtime_endpoint, None);
        assert_eq!(full.node.api_client, defaults.node.api_client);
        assert_eq!(full.node.kubeconfig.as_deref(), Some(Path::new("/var/lib/podbay/agent/kubeconfig")));
        assert_eq!(full.sources["apps"].git.as_ref().unwrap().reference.as_deref(), Some("main"));
    }
}
