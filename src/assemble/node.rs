//! One node of the cluster in one process: engine, images, network, agent, node API.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use tokio_util::sync::CancellationToken;

use super::daemon::{Lock, make_private_data, make_private_dir};
use super::foreign;
use crate::agent;
use crate::config::Config;
use crate::cri::{Images, Runtime};
use crate::network::{self, NodeNetwork};
use crate::runtime::{self, Engine, image};

/// The parts of a node, opened on this host's state.
pub struct Node {
    runtime: Arc<dyn Runtime>,
    images: Arc<dyn Images>,
    network: Arc<dyn NodeNetwork>,
    pub options: agent::Options,
    _lock: Lock,
}

/// What of the data directory only root may enter: images have programs with the setuid bit, pods have Secrets.
const PRIVATE: [&str; 9] = ["images", "images-store", "network", "agent", "pods", "volumes", "runtime", "runtime-client", "logs"];

/// Where the images of this host are.
pub fn open_images(config: &Config) -> anyhow::Result<image::ImageStore> {
    let images = &config.images;
    let registry = |(host, registry): (&String, &crate::config::Registry)| {
        let crate::config::Registry { mirrors, ca_file, plain_http } = registry.clone();
        (host.clone(), image::RegistryOptions { mirrors, ca_file, plain_http })
    };
    let options = image::Options {
        registries: images.registries.iter().map(registry).collect(),
        ca_files: images.ca_files.clone(),
        auth_file: images.auth_file.clone(),
        parallel: usize::from(images.parallel_downloads),
        limits: image::Limits { reserve: u64::from(images.reserve_mib) << 20, ..image::Limits::default() },
        ..image::Options::default()
    };
    Ok(image::ImageStore::open(&config.data_dir.join("images-store"), options)?)
}

/// Where this host's daemons listen. The server may be on this host too; elsewhere its port is one that pods seldom want.
pub fn own_ports(config: &Config) -> Vec<u16> {
    vec![config.node.api_port, config.server.listen.port()]
}

/// The network of this host.
pub fn open_network(config: &Config) -> anyhow::Result<network::Linux> {
    Ok(network::Linux::open(network_options(config))?)
}

/// What that network has of this host.
pub fn network_options(config: &Config) -> network::Options {
    let mut options = network::Options::new(config.data_dir.join("network"));
    options.bridge.clone_from(&config.node.bridge);
    options.table.clone_from(&config.node.nft_table);
    options.own_ports = own_ports(config);
    options
}

/// The engine's directories and programs on this host.
pub fn engine_options(config: &Config) -> runtime::Options {
    let mut options = runtime::Options::new(config.data_dir.join("runtime"), config.run_dir.join("pods"));
    if let Some(path) = &config.node.shim {
        options.shim_path.clone_from(path);
    }
    options.handlers.clone_from(&config.node.runtime_handlers);
    options.pod_pids_limit = u64::from(config.node.pod_pids_limit);
    options.cgroup_root.clone_from(&config.node.cgroup_root);
    if config.node.systemd_slice {
        options.cgroup_root = runtime::scope::root(&config.node.cgroup_root);
    }
    options
}

/// Removes all pods of this host, whatever state they are in. No agent may run.
pub async fn reset_engine(config: &Config) -> anyhow::Result<()> {
    foreign::remove_pods(config).await?;
    let network = open_network(config)?;
    runtime::reset(&engine_options(config), &network).await?;
    if config.node.systemd_slice {
        let name = config.node.cgroup_root.clone();
        tokio::task::spawn_blocking(move || runtime::scope::stop(&name)).await??;
    }
    Ok(())
}

/// Makes what pods leave in the data directory root's alone.
pub fn make_private(config: &Config) -> anyhow::Result<()> {
    // A link leads to a disk of somebody's, which may be away.
    let is_elsewhere = config.data_dir.join("volumes").is_symlink();
    let names: Vec<&str> = PRIVATE.into_iter().filter(|name| *name != "volumes" || !is_elsewhere).collect();
    make_private_data(&config.data_dir, &names)
}

/// Opens everything, finds running pods again, imports image archives.
pub async fn open(config: &Config) -> anyhow::Result<Node> {
    let lock = Lock::take(&[&config.run_dir, &config.data_dir], "agent")?;
    make_private(config)?;
    let network = Arc::new(open_network(config)?);
    let (runtime, images, network): (Arc<dyn Runtime>, Arc<dyn Images>, Arc<dyn NodeNetwork>) = match &config.node.runtime_endpoint {
        Some(endpoint) => {
            let other = foreign::connect(config, endpoint).await?;
            (other.clone(), other.clone(), Arc::new(foreign::Told::new(network, other)))
        }
        None => {
            let (engine, images) = open_engine(config, Arc::clone(&network)).await?;
            (engine, images, network)
        }
    };
    let mut options = agent::Options::new(&config.node.name, &config.data_dir);
    options.node_addresses = vec![address(config)?];
    options.node_api_port = config.node.api_port;
    options.lease_interval = Duration::from_secs(u64::from(config.node.lease_seconds));
    options.max_pods = config.node.max_pods;
    options.labels.clone_from(&config.node.labels);
    options.image_gc = agent::image_plan::Policy {
        high_percent: config.images.gc_high_percent,
        low_percent: config.images.gc_low_percent,
        minimum_age_seconds: config.images.gc_minimum_age_seconds,
    };
    if let Some(path) = &config.node.resolv_conf {
        options.resolv_conf.clone_from(path);
    }
    if config.node.kubeconfig.is_some() {
        let ranges = agent::Ranges { pods: config.server.pod_range, services: config.server.service_range };
        options.server = agent::Server::Kubernetes(ranges);
    }
    options.cluster_dns = config.node.cluster_dns.iter().map(ToString::to_string).collect();
    Ok(Node { runtime, images, network, options, _lock: lock })
}

/// Our own runtime on this host, with the images somebody left for it.
pub async fn open_engine(config: &Config, network: Arc<network::Linux>) -> anyhow::Result<(Arc<Engine>, Arc<image::ImageStore>)> {
    let images = Arc::new(open_images(config)?);
    import_archives(config, Arc::clone(&images)).await?;
    if config.node.systemd_slice {
        let name = config.node.cgroup_root.clone();
        tokio::task::spawn_blocking(move || runtime::scope::ensure(&name)).await??;
    }
    let engine = Engine::open(engine_options(config), Arc::clone(&images) as _, network).await.context("open the engine")?;
    Ok((Arc::new(engine), images))
}

/// Archives somebody put into `DATA_DIR/images/` before the start. One bad archive stops nothing.
async fn import_archives(config: &Config, images: Arc<image::ImageStore>) -> anyhow::Result<()> {
    let directory = config.data_dir.join("images");
    make_private_dir(&directory)?;
    let imported = tokio::task::spawn_blocking(move || images.import_dir(&directory)).await??;
    for (archive, outcome) in imported {
        match outcome {
            Ok(names) => tracing::info!(archive = %archive.display(), names = names.join(" "), "imported images"),
            Err(error) => tracing::warn!(archive = %archive.display(), %error, "image archive is not imported"),
        }
    }
    Ok(())
}

/// The address other nodes reach this one by: configured, or that of the default route's interface.
pub(super) fn address(config: &Config) -> anyhow::Result<IpAddr> {
    if let Some(address) = config.node.address {
        return Ok(address);
    }
    // Connecting a datagram socket sends nothing; it makes the kernel choose a source address.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    match socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()) {
        Ok(own) => Ok(own.ip()),
        // Without a default route a single host still works.
        Err(_) => Ok(IpAddr::from([127, 0, 0, 1])),
    }
}

impl Node {
    /// The node API over this node's runtime.
    pub fn api(&self) -> Router {
        agent::node_api::router(Arc::clone(&self.runtime), &self.options)
    }

    /// Runs the agent until the token is cancelled; pods stay.
    pub async fn run(self, client: kube::Client, end: CancellationToken) {
        agent::run(client, self.runtime, self.images, self.network, self.options, end).await;
    }
}
