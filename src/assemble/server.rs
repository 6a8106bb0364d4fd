//! The control plane of one process: store, API, controllers, scheduler, sync.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::daemon::{Lock, make_private_data};
use super::previews::LivePreviews;
use super::sources;
use super::webhooks::Asked;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control;
use crate::control::autoscaler::Measures;
use crate::driver;
use crate::model::Object;
use crate::model::usage::PodUsage;
use crate::plan::Controller;
use crate::schedule::Scheduler;
use crate::server::audit::{Audit, Policy};
use crate::server::offer::{Access, offer, service_names};
use crate::server::{self, ClusterSettings, Mint, NodeConnector, ServerState};
use crate::store::{Store, disk};
use crate::sync;
use crate::sync::open::Places;
use crate::tls::{self, Pki};

/// A running control plane.
pub struct ControlPlane {
    pub router: Router,
    /// Ends when the token is cancelled.
    pub tasks: JoinSet<()>,
    _lock: Lock,
}

/// What pods use, as `metrics.k8s.io` tells it.
pub struct Measured(pub Arc<ServerState>);

#[async_trait]
impl Measures for Measured {
    async fn of(&self, pods: &[Object]) -> BTreeMap<String, PodUsage> {
        server::usage::measured(&self.0, pods).await
    }
}

/// Ends when one of the tasks does though nobody has asked for it, as after a panic, and says so: what goes on without its
/// controllers or its API only looks alive.
pub async fn broken(tasks: &mut JoinSet<()>, end: &CancellationToken) -> anyhow::Error {
    match tasks.join_next().await {
        Some(outcome) if !end.is_cancelled() => {
            let how = outcome.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            anyhow::anyhow!("a part of the server has stopped ({how}): the daemon ends, to be started again; the pods run on")
        }
        _ => std::future::pending().await,
    }
}

/// Every controller and the scheduler.
pub fn controllers(config: &Config, clock: &dyn Clock) -> Vec<Arc<dyn Controller>> {
    let mut options = control::Options::new(clock.steady());
    options.node_grace_seconds = i64::from(config.server.node_grace_seconds);
    options.eviction_seconds = i64::from(config.server.eviction_seconds);
    let mut all = control::all(options);
    all.push(Arc::new(Scheduler::new()));
    all
}

/// The git clones and directories of the sources.
pub fn places(data_dir: &Path) -> Arc<Places> {
    Arc::new(Places::new(sync::git::Options::new(data_dir.join("git"))))
}

/// Opens the store, serves the API and runs every loop over it.
///
/// `nodes` makes the way to the node APIs from the server's certificates.
pub async fn start(
    config: &Config,
    nodes: impl FnOnce(&Pki) -> anyhow::Result<Arc<dyn NodeConnector>>,
    end: &CancellationToken,
) -> anyhow::Result<ControlPlane> {
    let lock = Lock::take(&[&config.run_dir, &config.data_dir], "server")?;
    make_private_data(&config.data_dir, &["git"])?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store: Arc<dyn Store> =
        Arc::new(disk::DiskStore::open(config.data_dir.join("store"), disk::Options::default(), Arc::clone(&clock))?);
    let settings = ClusterSettings {
        service_range: config.server.service_range,
        pod_range: config.server.pod_range,
        node_prefix: config.server.node_prefix,
    };
    server::bootstrap(store.as_ref(), &settings).await.context("write the cluster's settings")?;
    let returning = sources::configure(store.as_ref(), &config.sources).await?;

    let listener = TcpListener::bind(config.server.listen).await.with_context(|| format!("listen on {}", config.server.listen))?;
    tls::install_provider();
    let pki = open_pki(config, clock.as_ref())?;
    let access =
        Access { authority: pki.authority().pem().to_owned(), settings, address: api_address(config), port: listener.local_addr()?.port() };
    offer(store.as_ref(), &access).await;
    let mut controllers = controllers(config, clock.as_ref());
    let places = places(&config.data_dir);
    let webhooks = Arc::new(Asked(server::hooks::CommitsAsked::new(Arc::clone(&store), Arc::clone(&clock))));
    let previews = LivePreviews::new(Arc::clone(&store), places.clone(), webhooks.clone(), controllers.clone(), Arc::clone(&clock));
    controllers.push(Arc::new(access));
    controllers.push(Arc::new(Mint(Arc::clone(&pki))));
    let state = ServerState::new(Arc::clone(&store), Arc::clone(&clock), nodes(&pki)?)
        .with_previews(Arc::new(previews))
        .with_pki(Arc::clone(&pki))
        .with_audit(open_audit(&config.server)?);
    server::certificates::settle_all(&state).await;
    let state = Arc::new(state);
    let router = server::router(Arc::clone(&state));

    let url = local_url(listener.local_addr()?);
    let kubeconfig = config.admin_kubeconfig();
    pki.write_kubeconfig(&kubeconfig, &url, clock.now())?;
    link_kubeconfig(&kubeconfig, &config.run_dir)?;

    let mut tasks = JoinSet::new();
    tasks.spawn(tls::serve::serve(listener, pki.server_config()?, router.clone(), tls::serve::Bounds::default(), end.clone()));
    tasks.spawn(pki.keep_fresh(kubeconfig, url.clone(), Arc::clone(&clock), end.clone()));
    let asked = Arc::new(server::hooks::PodsAsked::new(Arc::clone(&store), Arc::clone(&clock)));
    tasks.spawn(driver::run(asked, controllers, Arc::clone(&clock), end.clone()));
    tasks.spawn(control::autoscaler::run(Arc::clone(&store), Arc::new(Measured(state)), Arc::clone(&clock), end.clone()));
    tasks.spawn(server::fullness::run(Arc::clone(&store), Arc::clone(&clock), end.clone()));
    tasks.spawn(sources::bring_back(Arc::clone(&store), returning, end.clone()));
    tasks.spawn(sync::run(store, places, webhooks, clock, end.clone()));
    tracing::info!(%url, "server is ready");
    Ok(ControlPlane { router, tasks, _lock: lock })
}

fn open_audit(config: &crate::config::Server) -> anyhow::Result<Option<Audit>> {
    let Some(path) = &config.audit_log else { return Ok(None) };
    let policy = match &config.audit_policy {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            Policy::parse(&text).with_context(|| format!("the audit policy {}", file.display()))?
        }
        None => Policy::default(),
    };
    Ok(Some(Audit::open(path, policy)?))
}

fn open_pki(config: &Config, clock: &dyn Clock) -> anyhow::Result<Arc<Pki>> {
    let mut names = tls::pki::host_names(&config.node.bridge);
    names.extend(config.server.names.iter().cloned());
    if !config.server.listen.ip().is_unspecified() {
        names.push(config.server.listen.ip().to_string());
    }
    names.extend(service_names(config.server.service_range));
    names.sort_unstable();
    names.dedup();
    Ok(Pki::open(&config.data_dir.join("pki"), &names, clock.now())?)
}

/// Where nodes find this server: where it listens, else the address of this host.
fn api_address(config: &Config) -> Option<Ipv4Addr> {
    let ip = match config.server.listen.ip() {
        ip if ip.is_loopback() => return None,
        ip if ip.is_unspecified() => super::node::address(config).ok()?,
        ip => ip,
    };
    match ip {
        IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
        _ => None,
    }
}

/// How clients on this host reach the server.
fn local_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

/// Lets the client verbs find this daemon by its run directory.
fn link_kubeconfig(kubeconfig: &Path, run_dir: &Path) -> anyhow::Result<()> {
    let link = run_dir.join(crate::cli::kubeconfig::ADMIN);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| format!("remove {}", link.display())),
        _ => std::os::unix::fs::symlink(kubeconfig, &link).with_context(|| format!("link {}", link.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_without_one_of_its_parts_ends() {
        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(end.clone().cancelled_owned());
        tasks.spawn(async { panic!("a controller's plan") });
        let noticed = tokio::time::timeout(std::time::Duration::from_secs(60), broken(&mut tasks, &end)).await;
        let error = noticed.expect("it is noticed").to_string();
        assert!(error.contains("a part of the server has stopped") && error.contains("a controller's plan"), "{error}");
    }

    #[test]
    fn clients_on_the_host_use_loopback_where_the_server_listens_everywhere() {
        assert_eq!(local_url("0.0.0.0:6443".parse().unwrap()), "https://127.0.0.1:6443");
        assert_eq!(local_url("10.0.0.1:7443".parse().unwrap()), "https://10.0.0.1:7443");
    }
}
