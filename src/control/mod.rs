//! The controllers: each expands or tidies objects of the store, and knows nothing but the store.
//!
//! One folder a controller: `mod.rs` names the keys to look at and reads what the decision rests
//! on, `plan.rs` decides.
//!
//! - `deployment`, `replica_set`, `job`: workloads to pods
//! - `autoscaler`: the size of workloads by their load. It asks nodes, too, and so is none of [`all`];
//!   a preview has its bounds
//! - `volume_binding`, `ephemeral_volume`: persistent volumes for claims, and claims of pods' own
//! - `endpoints`: Services to EndpointSlices
//! - `cluster_role`: roles that gather others
//! - `furnish`: what every namespace has
//! - `token_secret`: Secrets that hold a token of a ServiceAccount
//! - `garbage`, `namespace`, `definition`, `pod_gc`: what has lost its owner, its namespace, its kind, its node
//! - `certificate_gc`: requests for certificates that nobody needs any more
//! - `node_health`, `node_range`: nodes
//! - `event_bounds`: what is said is not kept for ever
//! - `claim`, `naming`, `refusal` (pure): ownership, names and what admission refuses, shared by the
//!   workloads

pub mod autoscaler;
pub mod certificate_gc;
pub mod claim;
pub mod cluster_role;
pub mod definition;
pub mod deployment;
pub mod endpoints;
pub mod ephemeral_volume;
pub mod event_bounds;
pub mod furnish;
pub mod garbage;
pub mod job;
pub mod namespace;
pub mod naming;
pub mod node_health;
pub mod node_range;
pub mod pod_gc;
pub mod refusal;
pub mod replica_set;
pub mod token_secret;
pub mod volume_binding;

use std::sync::Arc;

use crate::model::Timestamp;
use crate::plan::Controller;

/// What can be set about the controllers.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Silence after which a node is unreachable: 40 s.
    pub node_grace_seconds: i64,
    /// How long pods stay on an unreachable node: 300 s.
    pub eviction_seconds: i64,
    /// Since when this server listens, by its steady clock (a preview: its time).
    pub started_at: Timestamp,
    /// Finished pods kept: 1000.
    pub finished_pods: usize,
    /// How long events are kept: an hour.
    pub event_seconds: i64,
    /// Events kept: 10,000.
    pub events: usize,
}

impl Options {
    pub fn new(started_at: Timestamp) -> Self {
        Self { node_grace_seconds: 40, eviction_seconds: 300, started_at, finished_pods: 1000, event_seconds: 3600, events: 10_000 }
    }
}

/// Every controller that decides from the store alone.
pub fn all(options: Options) -> Vec<Arc<dyn Controller>> {
    let Options { node_grace_seconds: grace_seconds, eviction_seconds, started_at, finished_pods, event_seconds, events } = options;
    vec![
        Arc::new(deployment::Deployments),
        Arc::new(replica_set::ReplicaSets),
        Arc::new(job::Jobs),
        Arc::new(ephemeral_volume::EphemeralVolumes),
        Arc::new(volume_binding::VolumeBinding),
        Arc::new(endpoints::Endpoints),
        Arc::new(cluster_role::ClusterRoles),
        Arc::new(furnish::Furnish),
        Arc::new(token_secret::TokenSecrets),
        Arc::new(garbage::Garbage),
        Arc::new(namespace::Namespaces),
        Arc::new(definition::CustomResourceDefinitions),
        Arc::new(node_health::NodeHealth { settings: node_health::plan::Settings { grace_seconds, eviction_seconds, started_at } }),
        Arc::new(node_range::NodeRanges),
        Arc::new(certificate_gc::CertificateGarbage),
        Arc::new(pod_gc::PodGarbage { finished: finished_pods }),
        Arc::new(event_bounds::EventBounds { seconds: event_seconds, count: events }),
    ]
}
