//! Follows the server's objects: this node's pods, and what the node's network is made of.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};

use super::context::{Context, View};
use super::network_plan;
use super::objects::Objects;
use super::options::Server;
use super::registration::Reconnected;
use crate::model::NODE_REMOVED;
use crate::network::NetworkError;

/// From 200 ms to 5 s: an agent is back soon after its server is.
#[derive(Default)]
struct Patience(u32);

impl Iterator for Patience {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(200 << self.0.min(5)).min(Duration::from_secs(5));
        self.0 += 1;
        Some(wait)
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// What the server says of this node's pods.
#[derive(Debug)]
pub enum PodEvent {
    /// All of them: any other is gone.
    All(Vec<Pod>),
    Changed(Box<Pod>),
    Gone(Box<Pod>),
    /// The server does not answer.
    Away,
}

/// Follows the pods of this node; lists them anew when the server was away.
pub async fn pods(context: Arc<Context>, reconnected: Arc<Reconnected>, tell: mpsc::Sender<PodEvent>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", context.options.node_name));
    let mut removed = false;
    loop {
        let mut stream = pin!(Objects::<Pod>::all(context.client.clone()).watch(config.clone(), Patience::default()));
        let mut list = Vec::new();
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = reconnected.next() => break,
            };
            let event = match event {
                None => break,
                Some(Ok(Event::Init)) => {
                    list.clear();
                    continue;
                }
                Some(Ok(Event::InitApply(pod))) => {
                    list.push(pod);
                    continue;
                }
                Some(Ok(Event::InitDone)) => {
                    removed = false;
                    PodEvent::All(std::mem::take(&mut list))
                }
                Some(Ok(Event::Apply(pod))) => PodEvent::Changed(Box::new(pod)),
                Some(Ok(Event::Delete(pod))) => PodEvent::Gone(Box::new(pod)),
                Some(Err(error)) if says_removed(&error) && !removed => {
                    removed = true;
                    let again = to_join_again(context.options.server);
                    tracing::warn!(%error, "the server has removed this node: its pods end; to join again {again}");
                    PodEvent::All(Vec::new())
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "the watch of pods broke");
                    PodEvent::Away
                }
            };
            if tell.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// No server that is away, but the one whose CA this node knows: it has nothing for this node any more.
fn says_removed(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) = error else { return false };
    matches!(cause, kube::Error::Api(refusal) if refusal.code == 401 && refusal.reason == NODE_REMOVED)
}

/// What a person does about it: what was removed is refused for good.
fn to_join_again(server: Server) -> &'static str {
    match server {
        Server::Podbay => "start the agent with --rejoin and a new token",
        Server::Kubernetes(_) => {
            "give it another kubeconfig, or remove its own where it makes one with node.bootstrap-kubeconfig, and start it again"
        }
    }
}

/// Follows nodes, Services, their endpoints and the cluster's settings, and keeps the network as they say.
pub async fn network(context: Arc<Context>, reconnected: Arc<Reconnected>, node_changed: Arc<Notify>) {
    let changed = Arc::new(Notify::new());
    let client = || context.client.clone();
    let settings = watcher::Config::default().fields("metadata.name=podbay-cluster");
    let all = watcher::Config::default;
    let ready = Arc::new(tokio::sync::Semaphore::new(0));
    let follow = Follow { context: &context, changed: &changed, reconnected: &reconnected, ready: &ready };
    let is_own = |node: &Node| node.metadata.name.as_deref() == Some(context.options.node_name.as_str());
    // Which images other nodes have is of no use here, and most of what there is of a node.
    let foreign_images_out = |node: &mut Node| {
        let foreign = !is_own(node);
        node.status.iter_mut().filter(|_| foreign).for_each(|status| status.images = None);
    };
    tokio::join!(
        follow.kind(Objects::<Node>::all(client()), all(), foreign_images_out, |view, list| {
            let status = |nodes: &[Node]| {
                let own = nodes.iter().find(|node| is_own(node));
                own.map(|node| (node.status.clone(), node.metadata.labels.clone()))
            };
            if status(&view.nodes) != status(&list) {
                node_changed.notify_one();
            }
            view.nodes = list;
        }),
        follow.kind(
            Objects::<Service>::all(client()),
            all(),
            |_| {},
            |view, list| {
                view.services = list;
                context.gate.change(|waiting| waiting.services = false);
            }
        ),
        follow.kind(Objects::<EndpointSlice>::all(client()), all(), |_| {}, |view, list| view.slices = list),
        async {
            match context.options.server {
                Server::Podbay => {
                    let maps = Objects::<ConfigMap>::namespaced(client(), "kube-system");
                    follow.kind(maps, settings, |_| {}, |view, list| view.settings = list.into_iter().next()).await;
                }
                Server::Kubernetes(_) => ready.add_permits(1),
            }
        },
        sync(&context, &changed, &ready, &node_changed),
    );
}

const FOLLOWED: usize = 4;

/// Keeps objects in the view as they change.
pub(super) struct Follow<'a> {
    pub context: &'a Context,
    pub changed: &'a Notify,
    pub reconnected: &'a Reconnected,
    /// One permit for each kind that was listed.
    pub ready: &'a tokio::sync::Semaphore,
}

impl Follow<'_> {
    /// `cut` takes away what nobody needs before it is remembered.
    pub async fn kind<T>(&self, objects: Objects<T>, config: watcher::Config, cut: impl Fn(&mut T), put: impl Fn(&mut View, Vec<T>))
    where
        T: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned,
    {
        let mut listed = false;
        loop {
            let mut stream = pin!(objects.watch(config.clone(), Patience::default()));
            let mut known: BTreeMap<(String, String), T> = BTreeMap::new();
            let key = |object: &T| (object.namespace().unwrap_or_default(), object.name_any());
            let keep = |known: &mut BTreeMap<_, T>, mut object: T| {
                cut(&mut object);
                known.insert(key(&object), object);
            };
            loop {
                let event = tokio::select! {
                    event = stream.try_next() => event,
                    () = self.reconnected.next() => break,
                };
                match event {
                    Ok(Some(Event::Init)) => {
                        known.clear();
                        continue;
                    }
                    Ok(Some(Event::InitApply(object))) => {
                        keep(&mut known, object);
                        continue;
                    }
                    Ok(Some(Event::InitDone)) => {
                        if !listed {
                            self.ready.add_permits(1);
                        }
                        listed = true;
                    }
                    Ok(Some(Event::Apply(object))) => keep(&mut known, object),
                    Ok(Some(Event::Delete(object))) => {
                        known.remove(&key(&object));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, kind = T::kind(&()).as_ref(), "a watch broke");
                        continue;
                    }
                }
                self.context.cluster.change(|view| put(view, known.values().cloned().collect()));
                self.changed.notify_one();
            }
        }
    }
}

/// Brings the network up to date after every change; nothing is touched before everything was listed.
async fn sync(context: &Context, changed: &Notify, ready: &tokio::sync::Semaphore, node_changed: &Notify) {
    if let Ok(all) = ready.acquire_many(u32::try_from(FOLLOWED).unwrap_or(u32::MAX)).await {
        all.forget();
    }
    let (mut failed, mut apart) = (false, String::new());
    loop {
        let name = &context.options.node_name;
        let wanted = context.cluster.read(|view| {
            let ranges = match context.options.server {
                Server::Podbay => network_plan::ranges(view.settings.as_ref()),
                Server::Kubernetes(ranges) => ranges,
            };
            network_plan::wanted(name, &view.nodes, &view.services, &view.slices, ranges)
        });
        let outcome = context.network.sync(&wanted).await;
        let routes = match &outcome {
            Err(NetworkError::Routes(cause)) => cause.clone(),
            _ => String::new(),
        };
        if routes != apart && !routes.is_empty() {
            tracing::warn!(cause = routes, "pods of other nodes cannot be reached");
            context.events.node(name, true, "RouteNotSet", format!("pods of other nodes cannot be reached: {routes}"));
        }
        match outcome {
            // Whom this node cannot reach keeps nothing of its own from starting.
            Ok(_) | Err(NetworkError::Routes(_)) => {
                if matches!(outcome, Ok(true)) {
                    tracing::debug!("the network was brought up to date");
                }
                if failed {
                    node_changed.notify_one();
                }
                failed = false;
                if wanted.pod_range.is_some() {
                    context.gate.change(|waiting| waiting.network = false);
                }
            }
            Err(error) => {
                if !failed {
                    tracing::warn!(%error, "the network is not as wanted");
                    node_changed.notify_one();
                }
                failed = true;
            }
        }
        apart = routes;
        let again = if failed || !apart.is_empty() { Duration::from_secs(5) } else { context.options.resync_interval };
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(Duration::from_millis(10)).await,
            () = tokio::time::sleep(again) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::options::Ranges;

    #[test]
    fn a_removed_node_joins_again_in_the_way_it_joined() {
        let range = |text: &str| text.parse().unwrap();
        let elsewhere = Server::Kubernetes(Ranges { pods: range("10.244.0.0/16"), services: range("10.96.0.0/12") });
        assert!(to_join_again(Server::Podbay).contains("--rejoin"));
        assert!(!to_join_again(elsewhere).contains("--rejoin") && to_join_again(elsewhere).contains("kubeconfig"));
    }
}
