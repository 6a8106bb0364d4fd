//! Every verb and flag, for clap: the one description of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "podbay", version, about = "Kubernetes manifests straight from git on plain Linux hosts", max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run everything on this host: server, controllers, scheduler, agent
    Up(DaemonArgs),
    /// Run the control plane only
    Server(DaemonArgs),
    /// Run this host as a node of a server elsewhere
    Agent(AgentArgs),
    /// Apply what the sources say now, or preview it with --dry-run
    Reconcile(ReconcileArgs),
    /// Sum up nodes, sources and workloads
    Status(ClientArgs),
    /// List objects
    Get(GetArgs),
    /// Show one object with its events
    Describe(NamedArgs),
    /// Print a container's log
    Logs(LogsArgs),
    /// Run a command in a container
    Exec(ExecArgs),
    /// See what a container writes from now on, and write to it
    Attach(StreamArgs),
    /// Answer why something is not as wanted: a pod pending, a source blocked
    Explain(NamedArgs),
    /// List, add, suspend, resume or remove sources
    #[command(subcommand)]
    Source(SourceVerb),
    /// List, cordon, drain or remove nodes
    #[command(subcommand)]
    Node(NodeVerb),
    /// Create, list or revoke the tokens with which agents join
    #[command(subcommand)]
    Token(TokenVerb),
    /// List, pull, import or remove images on this host
    #[command(subcommand)]
    Image(ImageVerb),
    /// Print the administrator's kubeconfig of the server on this host
    Kubeconfig(KubeconfigArgs),
    /// Save the cluster's objects (without Secret values) for offline previews
    Snapshot(SnapshotArgs),
    /// Stop this host's pods and daemon; the data stays
    Down(HostArgs),
    /// Remove everything of Podbay from this host, but for containers of `podbay oci`
    Reset(ResetArgs),
    /// The container engine by itself, without Kubernetes
    #[command(subcommand)]
    Runtime(RuntimeVerb),
    /// Be an OCI runtime, which podman and containerd can call in the place of runc
    Oci(super::oci::OciArgs),
    /// Print a shell's completion script
    Completions { shell: clap_complete::Shell },
    #[command(name = "internal-git-fetch", hide = true)]
    InternalGitFetch,
}

/// Where the API is: the same flags for each verb that asks a server.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// kubeconfig of the server [default: with --config that of its daemon, else those that $KUBECONFIG lists, else that of
    /// the daemon on this host]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Configuration file of the daemon on this host, to find its data directory
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory of the daemon on this host, to find its kubeconfig
    #[arg(long, env = "PODBAY_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
}

/// Which host state a verb works on.
#[derive(Debug, Clone, Default, Args)]
pub struct HostArgs {
    /// Configuration file [default: /etc/podbay/podbay.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What survives a restart [default: /var/lib/podbay]
    #[arg(long, env = "PODBAY_DATA_DIR", value_name = "DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Sockets and mounts of running pods [default: /run/podbay]
    #[arg(long, env = "PODBAY_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct DaemonArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Directory or repository with manifests: PATH, URL or NAME=PATH|URL (repeatable)
    #[arg(long = "source", value_name = "PATH|URL")]
    pub sources: Vec<String>,
    /// Address and port of the API [default: 0.0.0.0:6443]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Run pods by the container runtime at this CRI v1 socket [default: Podbay's own engine]
    #[arg(long, value_name = "unix:///SOCKET")]
    pub runtime_endpoint: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// URL of the server, as https://10.0.0.1:6443
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// File with a join token (`podbay token create`); needed once
    #[arg(long, value_name = "FILE", requires = "server")]
    pub token_file: Option<PathBuf>,
    /// Be a node of a kube-apiserver, with this kubeconfig of the node's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "token_file", "rejoin"])]
    pub kubeconfig: Option<PathBuf>,
    /// Make that kubeconfig with this one, where it is not there or has expired
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "token_file", "rejoin"])]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Run pods by the container runtime at this CRI v1 socket [default: Podbay's own engine]
    #[arg(long, value_name = "unix:///SOCKET")]
    pub runtime_endpoint: Option<String>,
    /// Join again in the place of a silent node of the same name
    #[arg(long, requires = "server")]
    pub rejoin: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// A source's name, or a directory with manifests (`./NAME` where both exist); all sources where absent
    pub target: Option<String>,
    /// Change nothing; print what would happen (exit code 0: nothing, 1: changes, 2: refused or an error)
    #[arg(long)]
    pub dry_run: bool,
    /// Approve the plan with this id: it is computed again and must be the same. Of one that waits, its first 12 digits do
    #[arg(long, value_name = "PLAN_ID", conflicts_with = "dry_run")]
    pub approve: Option<String>,
    /// Take over live objects that Podbay did not create, this once
    #[arg(long)]
    pub adopt: bool,
    /// Preview without a server, on an empty cluster or on --snapshot
    #[arg(long, requires = "dry_run")]
    pub offline: bool,
    /// Cluster state for --offline, from `podbay snapshot`
    #[arg(long, value_name = "FILE", requires = "offline")]
    pub snapshot: Option<PathBuf>,
    /// Name of the source that the previewed directory stands for
    #[arg(long = "as", value_name = "SOURCE", requires_all = ["dry_run", "target"])]
    pub as_source: Option<String>,
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: PreviewFormat,
    /// Give up waiting for the outcome after this many seconds (exit code 2; what was accepted goes on)
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
    /// Return as soon as the revision is accepted, do not wait until it is applied and healthy
    #[arg(long, conflicts_with = "dry_run")]
    pub no_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PreviewFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// KIND[,KIND...] [NAME...] or KIND/NAME...; `all` for the workloads and services
    #[arg(required = true, num_args = 1..)]
    pub what: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Of every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Label selector
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: GetFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GetFormat {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Debug, Clone, Args)]
pub struct NamedArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// KIND NAME or KIND/NAME
    #[arg(required = true, num_args = 1..=2)]
    pub what: Vec<String>,
    /// Namespace [default: default]
    #[arg(short, long)]
    pub namespace: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The pod: NAME or pod/NAME
    pub pod: String,
    /// Namespace [default: default]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Container of the pod [default: its first]
    #[arg(short, long)]
    pub container: Option<String>,
    /// Keep printing what is added
    #[arg(short, long)]
    pub follow: bool,
    /// The log of the container before its last restart
    #[arg(short, long)]
    pub previous: bool,
    /// Only this many last lines; -1 for all
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Put each line's time before it
    #[arg(long)]
    pub timestamps: bool,
}

#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub streams: StreamArgs,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Whose streams are taken, and which.
#[derive(Debug, Clone, Default, Args)]
pub struct StreamArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The pod: NAME or pod/NAME
    pub pod: String,
    /// Namespace [default: default]
    #[arg(short, long)]
    pub namespace: Option<String>,
    /// Container of the pod [default: the one its annotation kubectl.kubernetes.io/default-container names, else its first]
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// By a terminal: a new one for a command, the container's own to attach to
    #[arg(short, long)]
    pub tty: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum SourceVerb {
    /// List sources and how they are
    List(ClientArgs),
    /// Add a source: a directory on the server's host or a repository
    Add {
        #[command(flatten)]
        client: ClientArgs,
        /// The source's identity: a DNS name
        name: String,
        /// PATH or URL
        place: String,
        /// Branch, tag or commit of a repository
        #[arg(long)]
        reference: Option<String>,
        /// Path of the manifests below the place
        #[arg(long)]
        path: Option<String>,
        /// What becomes of kinds that are not served: `skip` leaves them out [default: refuse]
        #[arg(long, value_name = "refuse|skip", value_parser = ["refuse", "skip"])]
        unsupported: Option<String>,
        #[command(flatten)]
        credentials: CredentialArgs,
    },
    /// Stop applying a source; its objects stay
    Suspend(SourceName),
    /// Apply a suspended source again
    Resume(SourceName),
    /// Forget a source; its objects stay unless --prune
    Remove {
        #[command(flatten)]
        source: SourceName,
        /// Delete the objects it created; a namespace or kind in which others have something stays
        #[arg(long)]
        prune: bool,
    },
}

/// Files on the server's host.
#[derive(Debug, Clone, Default, Args)]
pub struct CredentialArgs {
    /// File on the server's host with a token, for https
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// PEM file on the server's host of a private certificate authority, for https
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<String>,
    /// Private key on the server's host, for ssh
    #[arg(long, value_name = "FILE")]
    pub ssh_key_file: Option<String>,
    /// OpenSSH known_hosts file on the server's host, for ssh
    #[arg(long, value_name = "FILE")]
    pub known_hosts_file: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct SourceName {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The source's name
    pub name: String,
}

#[derive(Debug, Clone, Subcommand)]
pub enum NodeVerb {
    /// List nodes
    List(ClientArgs),
    /// Place no new pods on a node
    Cordon(NodeName),
    /// Place pods on a node again
    Uncordon(NodeName),
    /// Cordon a node and move its pods elsewhere
    Drain {
        #[command(flatten)]
        node: NodeName,
        /// Also delete pods that no controller replaces
        #[arg(long)]
        force: bool,
        /// Give up after this many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
    },
    /// Remove a node: its certificate is refused at once and its pod range is free
    Remove {
        #[command(flatten)]
        node: NodeName,
        /// Though it is ready and pods run on it: its agent ends them, with their grace
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub struct NodeName {
    #[command(flatten)]
    pub client: ClientArgs,
    /// The node's name
    pub name: String,
}

#[derive(Debug, Clone, Subcommand)]
pub enum TokenVerb {
    /// Print a new token
    Create {
        #[command(flatten)]
        client: ClientArgs,
        /// Seconds until it expires
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        ttl: u64,
    },
    /// List tokens (not their secrets)
    List(ClientArgs),
    /// Make a token worthless
    Revoke {
        #[command(flatten)]
        client: ClientArgs,
        /// The part before the first dot
        id: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum RuntimeVerb {
    /// Serve the engine as a CRI v1 runtime, for crictl and other clients
    Serve(RuntimeServeArgs),
}

#[derive(Debug, Clone, Args)]
pub struct RuntimeServeArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Where to listen [default: unix:///RUN_DIR/cri.sock]
    #[arg(long, value_name = "unix:///SOCKET")]
    pub socket: Option<String>,
    /// Addresses of the pods
    #[arg(long, value_name = "RANGE", default_value = "10.84.0.0/16")]
    pub pod_range: String,
    /// Where exec, attach and port-forward are served: plain HTTP, to whoever has a URL from the socket
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub stream_address: std::net::IpAddr,
    /// The port for them; 0: any that is free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub stream_port: u16,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ImageVerb {
    /// List images
    List(HostArgs),
    /// Fetch an image from its registry
    Pull {
        #[command(flatten)]
        host: HostArgs,
        reference: String,
        /// Print the image's id only, and no progress
        #[arg(short, long)]
        quiet: bool,
    },
    /// Take an OCI layout or a docker archive (directory or tar)
    Import {
        #[command(flatten)]
        host: HostArgs,
        path: PathBuf,
        /// Name of the image, where the archive has none or another is wanted
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove an image
    Remove {
        #[command(flatten)]
        host: HostArgs,
        reference: String,
    },
}

#[derive(Debug, Clone, Default, Args)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Where the server is reached by who gets the file, as https://10.0.0.1:6443 [default: as on this host]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    pub client: ClientArgs,
    /// File to write [default: standard output]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    pub host: HostArgs,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Leave the data directory (store, images) in place
    #[arg(long)]
    pub keep_data: bool,
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    /// The verbs themselves, `node drain` among them.
    fn verbs(command: &Command, above: &str, found: &mut Vec<(String, Vec<String>)>) {
        let name = format!("{above} {}", command.get_name());
        let flags = command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
        found.push((name.trim().to_owned(), flags));
        command.get_subcommands().for_each(|below| verbs(below, &name, found));
    }

    #[test]
    fn whatever_finds_the_daemon_of_this_host_finds_it_by_the_same_flags() {
        let mut found = Vec::new();
        verbs(&Cli::command(), "", &mut found);
        let mut daemons = 0;
        for (verb, flags) in found {
            let has = |flag: &str| flags.iter().any(|it| it == flag);
            assert_eq!(has("config"), has("data-dir"), "{verb}: {flags:?}");
            assert!(!has("kubeconfig") || has("config"), "{verb}: {flags:?}");
            daemons += usize::from(has("config"));
        }
        assert!(daemons > 30, "{daemons}");
    }
}
