//! The node's agent: what the kubelet is to Kubernetes. Above it the REST API, below it the runtime and
//! the network of this host.
//!
//! - `plan` (pure): one pod, what is seen of it, the next steps and the status; `observed` is its input,
//!   `backoff` and `status` its parts
//! - `config`, `env`, `resources`, `security`, `dns`, `auth` (pure): what the runtime is asked for
//! - `network_plan`, `node_plan` (pure): the cluster's objects as this node's network; this host as a Node
//! - `options` (pure), `context`: everything host-global; what all parts share
//! - `pull_plan` (pure), `pull`: the images that a container needs; the step that fetches one; `image_plan` (pure), `image_gc`: which images go when the disk fills up
//! - `log_plan` (pure), `log_rotation`: logs of a runtime that does not keep them within their limits
//! - `resize_plan` (pure), `room`: whether there is room for what a running pod is to have from now on;
//!   `resize_events` (pure): what people are told of it
//! - `storage_plan` (pure), `storage`: pods that take more of the disk than they may
//! - `failure_text` (pure): what a runtime says of a failure, the same at each try
//! - `worker`: a pod's loop over `observe`, `plan` and `act`; `pods`: the table of workers; `lost` (pure): how long one that
//!   the server no longer has keeps others waiting
//! - `follow`, `registration`, `status_writer`, `events`, `references`: the talk with the server, through `objects`
//! - `identity`: joining, and renewing the certificate; `certificates`: the same of a server that is not Podbay's
//! - `record`: the last known pods on disk, for a start without the server
//! - `removal`: the end of volumes that were made on this node
//! - `volume`, `probe`, `machine`: this host; `beneath`: files where a container may have put links
//! - `id_plan` (pure), `ids`: which ids of the host a pod with a user namespace of its own has
//! - `node_api`: the kubelet's own API: logs, exec, attach, port-forward
//!
//! Absent on purpose: eviction under pressure, device plugins, static pods.
//!
//! Invariants: a pod whose UID the server no longer has is stopped before any other is started; while the
//! server is away pods go on and are restarted by their policy, and none is deleted, but for a server that says
//! that this node was removed: then all end; the end of the agent is no end of a pod.

pub mod act;
pub mod auth;
pub mod backoff;
pub mod beneath;
pub mod certificates;
pub mod config;
pub mod context;
pub mod dns;
pub mod env;
pub mod events;
pub mod failure_text;
pub mod follow;
pub mod id_plan;
pub mod identity;
pub mod ids;
pub mod image_gc;
pub mod image_plan;
pub mod log_plan;
pub mod log_rotation;
pub mod lost;
pub mod machine;
pub mod network_plan;
pub mod node_api;
pub mod node_plan;
pub mod objects;
pub mod observe;
pub mod observed;
pub mod options;
pub mod plan;
pub mod pods;
pub mod probe;
pub mod pull;
pub mod pull_plan;
pub mod record;
pub mod references;
pub mod registration;
pub mod removal;
pub mod resize_events;
pub mod resize_plan;
pub mod resources;
pub mod room;
pub mod security;
pub mod status;
pub mod status_writer;
pub mod storage;
pub mod storage_plan;
pub mod volume;
pub mod worker;

use std::sync::Arc;

use kube::Client;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

pub use options::{Options, Ranges, Server};

use crate::clock::{Clock, SystemClock};
use crate::cri::{Images, Runtime};
use crate::network::NodeNetwork;

/// Runs a node until `shutdown`. Pods outlive it.
pub async fn run(
    client: Client,
    runtime: Arc<dyn Runtime>,
    images: Arc<dyn Images>,
    network: Arc<dyn NodeNetwork>,
    options: Options,
    shutdown: CancellationToken,
) {
    run_with_clock(client, (runtime, images, network), Arc::new(SystemClock), options, shutdown).await;
}

/// The same on another clock.
pub async fn run_with_clock(
    client: Client,
    (runtime, images, network): (Arc<dyn Runtime>, Arc<dyn Images>, Arc<dyn NodeNetwork>),
    clock: Arc<dyn Clock>,
    options: Options,
    shutdown: CancellationToken,
) {
    let (recorder, write_events) = events::Recorder::new(client.clone(), &options);
    let context = Arc::new(context::Context {
        layout: config::Layout { data_dir: options.data_dir.clone() },
        machine: machine::machine(&options.data_dir),
        references: references::Fetcher::new(client.clone()),
        events: recorder,
        cluster: context::Cluster::default(),
        gate: context::Gate::default(),
        storage: storage::Registry::default(),
        room: room::Room::default(),
        pulls: Semaphore::new(options.parallel_pulls.max(1)),
        client,
        runtime,
        images,
        network,
        clock,
        options,
    });
    let (tell, hear) = mpsc::channel(64);
    let reconnected = Arc::new(registration::Reconnected::default());
    let node_changed = Arc::new(Notify::new());
    let pods = pods::Pods::adopt(context.clone(), shutdown.clone()).await;
    let talk = async {
        tokio::join!(
            registration::run(context.clone(), node_changed.clone(), reconnected.clone()),
            follow::pods(context.clone(), reconnected.clone(), tell),
            follow::network(context.clone(), reconnected.clone(), node_changed.clone()),
            image_gc::run(context.clone()),
            log_rotation::run(context.clone()),
            storage::run(context.clone()),
            async {
                // Nobody else's server gives volumes out that are made here.
                if context.options.server == Server::Podbay {
                    removal::run(context.clone(), reconnected.clone()).await;
                }
            },
            write_events,
        )
    };
    tokio::select! {
        _ = talk => {}
        () = pods.run(hear) => {}
    }
    tracing::info!("the agent ends; its pods go on");
}
