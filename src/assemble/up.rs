//! The daemon verbs: `up`, `server`, `agent`.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{daemon, elsewhere, node, server};
use crate::agent::identity::{self, Join};
use crate::cli::args::AgentArgs;
use crate::cli::error::Outcome;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::server::{Identity, InProcessNode, NodeConnector, TlsNodes, local_client};
use crate::tls::{self, Pki};

/// Everything on this host. The agent uses the same client and handlers as one elsewhere, over a
/// connection inside the process.
pub async fn up(config: &Config) -> Outcome {
    daemon::start_log();
    daemon::demand_root("up")?;
    let end = daemon::end_on_signals()?;
    let here = node::open(config).await?;
    let mut way = None;
    let connector = |pki: &Pki| -> anyhow::Result<Arc<dyn NodeConnector>> {
        let elsewhere = Arc::new(nodes(config, pki)?);
        let here = Arc::new(InProcessNode::new(&config.node.name, Some(elsewhere)));
        way = Some(Arc::clone(&here));
        Ok(here)
    };
    let mut plane = server::start(config, connector, &end).await?;
    if let Some(way) = way {
        way.attach(here.api());
    }
    let client = local_client(plane.router.clone(), Identity::node(&config.node.name));
    daemon::tell_ready(end.clone());
    daemon::give_memory_back(end.clone());
    tokio::select! {
        () = here.run(client, end.clone()) => {}
        error = server::broken(&mut plane.tasks, &end) => return Err(error),
    }
    end.cancel();
    daemon::tell_stopping();
    while plane.tasks.join_next().await.is_some() {}
    tracing::info!("stopped; the pods run on (`podbay up` finds them again, `podbay down` stops them)");
    Ok(0)
}

/// How the server reaches the nodes of other hosts.
fn nodes(config: &Config, pki: &Pki) -> anyhow::Result<TlsNodes> {
    let any = config.server.insecure_node_certificates;
    Ok(TlsNodes::new(if any { pki.any_node_client_config()? } else { pki.node_client_config()? }))
}

/// The control plane alone.
pub async fn server(config: &Config) -> Outcome {
    daemon::start_log();
    let end = daemon::end_on_signals()?;
    let connector = |pki: &Pki| -> anyhow::Result<Arc<dyn NodeConnector>> { Ok(Arc::new(nodes(config, pki)?)) };
    let mut plane = server::start(config, connector, &end).await?;
    daemon::tell_ready(end.clone());
    daemon::give_memory_back(end.clone());
    tokio::select! {
        () = end.cancelled() => {}
        error = server::broken(&mut plane.tasks, &end) => return Err(error),
    }
    daemon::tell_stopping();
    while plane.tasks.join_next().await.is_some() {}
    tracing::info!("stopped; the nodes' pods run on");
    Ok(0)
}

/// A node of a server elsewhere.
pub async fn agent(config: &Config, args: &AgentArgs) -> Outcome {
    daemon::start_log();
    daemon::demand_root("agent")?;
    tls::install_provider();
    let end = daemon::end_on_signals()?;
    let here = node::open(config).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let client = match &args.server {
        Some(server) => Some(joined(config, args, server, &here, clock, &end).await?),
        None => elsewhere::known(config, &here, clock, &end).await?,
    };
    if let Some(client) = client {
        daemon::give_memory_back(end.clone());
        here.run(client, end.clone()).await;
    }
    daemon::tell_stopping();
    tracing::info!("stopped; the pods run on (the agent finds them again, `podbay down` stops them)");
    Ok(0)
}

/// A client of a server of Podbay's, as this node, whose certificate is kept fresh.
async fn joined(
    config: &Config,
    args: &AgentArgs,
    server: &str,
    here: &node::Node,
    clock: Arc<dyn Clock>,
    end: &CancellationToken,
) -> anyhow::Result<kube::Client> {
    let identity = Arc::new(identity_of(config, args, server, clock.as_ref()).await?);
    serve_node_api(config, here.api(), identity.server_config()?, end).await?;
    tokio::spawn(Arc::clone(&identity).keep_fresh(clock, end.clone()));
    daemon::tell_ready(end.clone());
    Ok(identity.client())
}

/// The certificate this node has, else one by joining. The token's file may be gone once it has one.
async fn identity_of(config: &Config, args: &AgentArgs, server: &str, clock: &dyn Clock) -> anyhow::Result<identity::NodeIdentity> {
    let directory = config.data_dir.join("agent");
    if !args.rejoin
        && let Some(identity) = identity::stored(&directory, &config.node.name, server, clock)?
    {
        return Ok(identity);
    }
    let why = identity::lacking(&directory, &config.node.name, clock)?;
    let Some(path) = &args.token_file else {
        bail!("{why}: say --token-file FILE (`podbay token create` on the server makes a token)");
    };
    let token = std::fs::read_to_string(path).with_context(|| format!("{why}: read the join token {}", path.display()))?;
    let join = Join { server: server.to_owned(), token, node: config.node.name.clone(), directory, rejoin: args.rejoin };
    Ok(identity::join(&join, clock).await?)
}

/// Serves the node API with these certificates.
pub(super) async fn serve_node_api(
    config: &Config,
    api: axum::Router,
    tls: Arc<rustls::ServerConfig>,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let address = SocketAddr::from(([0, 0, 0, 0], config.node.api_port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address} for the node API"))?;
    tokio::spawn(tls::serve::serve(listener, tls, api, tls::serve::Bounds::default(), end.clone()));
    Ok(())
}
