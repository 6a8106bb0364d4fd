//! `podbay runtime serve`: the engine by itself, as any CRI v1 runtime.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::daemon::{self, Lock};
use super::node;
use crate::cli::args::RuntimeServeArgs;
use crate::cli::error::Outcome;
use crate::config::Config;
use crate::cri::{client, server};
use crate::network::{Linux, NodeNetwork as _, Range, Wanted};

/// How long what somebody broke of the pods' network stays so.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Serves until a signal comes; the pods run on.
pub async fn serve(config: &Config, args: &RuntimeServeArgs) -> Outcome {
    daemon::start_log();
    daemon::demand_root("runtime serve")?;
    let range: Range = args.pod_range.parse().map_err(|error: String| anyhow!("--pod-range: {error}"))?;
    let socket = match &args.socket {
        Some(endpoint) => client::socket_path(endpoint).with_context(|| "--socket")?,
        None => config.run_dir.join("cri.sock"),
    };
    let end = daemon::end_on_signals()?;
    let dirs = [config.run_dir.as_path(), config.data_dir.as_path()];
    // The pods of a host have one master: its agent, or this.
    let _lock = Lock::take(&dirs, "agent")?;
    let listener = server::bind(&socket)?;
    let at = SocketAddr::from((args.stream_address, args.stream_port));
    let streams = TcpListener::bind(at).await.with_context(|| format!("listen on {at} (--stream-address, --stream-port)"))?;
    node::make_private(config)?;
    let mut options = node::network_options(config);
    options.own_ports.push(streams.local_addr().context("find out where to stream")?.port());
    let network = Arc::new(Linux::open(options)?);
    let wanted = Wanted { pod_range: Some(range), cluster_range: Some(range), ..Wanted::default() };
    network.sync(&wanted).await.context("make the pods' network")?;
    tokio::spawn(keep_network(Arc::clone(&network), wanted, end.clone()));
    let (engine, images) = node::open_engine(config, network).await?;
    tracing::info!(socket = %socket.display(), pods = %range, "serving the CRI");
    daemon::tell_ready(end.clone());
    daemon::give_memory_back(end.clone());
    server::serve(listener, streams, engine, images, end).await?;
    daemon::tell_stopping();
    // A next start would only have to clear it away.
    std::fs::remove_file(&socket).ok();
    tracing::info!("stopped; the pods run on (`podbay runtime serve` finds them again, `podbay down` stops them)");
    Ok(0)
}

/// A firewall that is loaded anew often takes everybody's rules away, and with them what keeps pods from the host's
/// loopback.
async fn keep_network(network: Arc<Linux>, wanted: Wanted, end: CancellationToken) {
    while end.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_some() {
        match network.sync(&wanted).await {
            Ok(true) => tracing::warn!("the pods' network was not as it should be: it is mended"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "keep the pods' network"),
        }
    }
}
