//! Events about pods and the node: what happened, for people. Aggregated: the same again raises a count.
//!
//! Telling is never waited for; when the server is away or too much is told, events are dropped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Options;
use super::objects::Objects;
use crate::model::Timestamp;
use crate::model::event::LONGEST_MESSAGE;
use crate::model::volume::PersistentVolume;

const COMPONENT: &str = "kubelet";
/// Different events that are remembered for counting.
const REMEMBERED: usize = 1024;

/// One thing to tell.
#[derive(Clone, Debug)]
struct Telling {
    about: ObjectReference,
    warning: bool,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Telling>);

impl Recorder {
    /// The recorder and the task that writes what it takes.
    pub fn new(client: Client, options: &Options) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(256);
        (Self(sender), write(client, options.node_name.clone(), options.event_interval, receiver))
    }

    /// Tells of a pod, and of one of its containers.
    pub fn pod(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &str, message: impl Into<String>) {
        let meta = &pod.metadata;
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
            ..ObjectReference::default()
        };
        self.tell(about, warning, reason, message.into());
    }

    /// Tells of the node itself.
    pub fn node(&self, name: &str, warning: bool, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            // As the kubelet's: `kubectl describe node` asks for these.
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.tell(about, warning, reason, message.into());
    }

    /// Tells of a volume that is a directory of the node.
    pub fn volume(&self, volume: &PersistentVolume, warning: bool, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolume".to_owned()),
            name: volume.metadata.name.clone(),
            uid: volume.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.tell(about, warning, reason, message.into());
    }

    fn tell(&self, about: ObjectReference, warning: bool, reason: &str, mut message: String) {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        // Full: events are the first thing to do without.
        self.0.try_send(Telling { about, warning, reason: reason.to_owned(), message, at: Timestamp::now() }).ok();
    }
}

struct Known {
    name: String,
    count: i32,
    written: Instant,
}

async fn write(client: Client, node_name: String, interval: Duration, mut tellings: mpsc::Receiver<Telling>) {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    while let Some(telling) = tellings.recv().await {
        let namespace = telling.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Objects<Event> = Objects::namespaced(client.clone(), &namespace);
        let key = key(&telling);
        let result = match known.get_mut(&key) {
            Some(old) => {
                old.count = old.count.saturating_add(1);
                if old.written.elapsed() < interval {
                    continue;
                }
                old.written = Instant::now();
                let patch = serde_json::json!({"count": old.count, "lastTimestamp": Time(telling.at)});
                api.merge(&old.name, patch).await.map(drop)
            }
            None => {
                let event = event(&telling, &namespace, &node_name);
                let name = event.metadata.name.clone().unwrap_or_default();
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(key.clone(), Known { name, count: 1, written: Instant::now() });
                api.create(&event).await.map(drop)
            }
        };
        if let Err(cause) = result {
            known.remove(&key);
            tracing::debug!(%cause, reason = telling.reason, "an event was not taken");
        }
    }
}

fn key(telling: &Telling) -> String {
    let about = &telling.about;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    [text(&about.uid), text(&about.name), text(&about.field_path), telling.reason.clone(), telling.message.clone()].join("\n")
}

fn event(telling: &Telling, namespace: &str, node_name: &str) -> Event {
    let about = &telling.about;
    let digest = Sha256::digest(format!("{}\n{}", key(telling), telling.at).as_bytes());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", about.name.as_deref().unwrap_or_default(), hex::encode(&digest[..8]))),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(if telling.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(telling.reason.clone()),
        message: Some(telling.message.clone()),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: Some(node_name.to_owned()) }),
        first_timestamp: Some(Time(telling.at)),
        last_timestamp: Some(Time(telling.at)),
        count: Some(1),
        reporting_component: Some(COMPONENT.to_owned()),
        reporting_instance: Some(node_name.to_owned()),
        ..Event::default()
    }
}
