//! The composition root: which implementation stands behind which seam.
//!
//! - `server`: store, API, controllers, scheduler, sync in one process
//! - `node`: engine, images, network, agent in one process
//! - `foreign`: another container runtime in the engine's place
//! - `serve`: the engine alone, on a CRI socket
//! - `oci`: a container alone, by the command line of an OCI runtime
//! - `up`: the daemon verbs, made of those two; `elsewhere`: a node of a server that is not Podbay's
//! - `host`: `down`, `reset` and `image`, which need no daemon; `pull_bars`: what a pull shows at a terminal
//! - `webhooks`: who is asked about what sources write
//! - `sources`: those of the configuration, as objects
//! - `previews`: sync and the simulator behind the server's and the CLI's previews
//! - `daemon`: lock, log, signals, systemd, memory of its own (`resident`, shared with the shim: what of it stays)

mod daemon;
mod elsewhere;
mod foreign;
mod host;
mod node;
mod oci;
mod previews;
mod pull_bars;
mod serve;
mod server;
mod sources;
mod sweep;
mod up;
mod webhooks;

#[path = "../shim/resident/sys.rs"]
mod resident;

use anyhow::bail;

use crate::cli::args::{AgentArgs, DaemonArgs, HostArgs, RuntimeVerb, Verb};
use crate::cli::error::Outcome;
use crate::config::{Config, Flags};

pub use oci::oci;
pub use previews::{Host, LivePreviews};
pub use webhooks::Asked;

/// The hidden verb in which git repositories are fetched.
pub fn git_fetch_child() -> std::process::ExitCode {
    crate::sync::git::child::main()
}

/// Carries out a daemon or host verb.
///
/// # Errors
/// What went wrong, for a person.
pub fn run(verb: Verb) -> Outcome {
    if !matches!(verb, Verb::Server(_)) {
        // What containers see gets the modes the code says, whatever the unit or the shell has; what is
        // private is made so by name.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match verb {
            Verb::Up(args) => up::up(&daemon_config(&args, true)?).await,
            Verb::Server(args) => up::server(&daemon_config(&args, false)?).await,
            Verb::Agent(args) => up::agent(&agent_config(&args)?, &args).await,
            Verb::Runtime(RuntimeVerb::Serve(args)) => serve::serve(&host_config(&args.host, None)?, &args).await,
            Verb::Down(args) => host::down(&host_config(&args, None)?).await,
            Verb::Reset(args) => host::reset(&host_config(&args.host, None)?, &args).await,
            Verb::Image(verb) => host::image(&verb).await,
            _ => unreachable!("main gives only daemon and host verbs to assemble"),
        }
    })
}

/// Of the verbs that have a server of their own.
fn daemon_config(args: &DaemonArgs, starts_node: bool) -> anyhow::Result<Config> {
    let flags = Flags {
        listen: args.listen.clone(),
        sources: args.sources.clone(),
        node_name: args.node_name.clone(),
        runtime_endpoint: args.runtime_endpoint.clone(),
        starts_node,
        ..flags(&args.host)
    };
    let config = Config::load(&flags)?;
    if config.node.kubeconfig.is_some() {
        bail!("node.kubeconfig: this host is a node of another server, whose verb is `podbay agent`");
    }
    Ok(config)
}

fn agent_config(args: &AgentArgs) -> anyhow::Result<Config> {
    let flags = Flags {
        node_name: args.node_name.clone(),
        runtime_endpoint: args.runtime_endpoint.clone(),
        kubeconfig: args.kubeconfig.clone(),
        bootstrap_kubeconfig: args.bootstrap_kubeconfig.clone(),
        starts_node: true,
        ..flags(&args.host)
    };
    let config = Config::load(&flags)?;
    match (&config.node.kubeconfig, &args.server) {
        (Some(_), Some(_)) => bail!("--server is for Podbay's server and node.kubeconfig for a kube-apiserver: say one of them"),
        (None, None) => bail!("say --server URL, or --kubeconfig FILE for a node of a kube-apiserver"),
        _ => Ok(config),
    }
}

fn host_config(host: &HostArgs, node_name: Option<String>) -> anyhow::Result<Config> {
    Ok(Config::load(&Flags { node_name, ..flags(host) })?)
}

fn flags(host: &HostArgs) -> Flags {
    Flags { config: host.config.clone(), data_dir: host.data_dir.clone(), run_dir: host.run_dir.clone(), ..Flags::default() }
}
