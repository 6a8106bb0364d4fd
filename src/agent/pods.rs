//! The table of this node's pods: one worker each, told what the server says and what the runtime saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::follow::PodEvent;
use super::observed::uid;
use super::worker::{self, Desired, Handle};
use super::{record, volume};
use crate::cri::{PodSandbox, SandboxState};

/// All workers.
pub struct Pods {
    context: Arc<Context>,
    workers: BTreeMap<String, Handle>,
    tasks: JoinSet<()>,
    list: u64,
    /// Lost pods that people were told of.
    told: BTreeSet<String>,
    stop: CancellationToken,
}

impl Pods {
    /// Finds the pods that were here before: on record, in the runtime, on disk.
    pub async fn adopt(context: Arc<Context>, stop: CancellationToken) -> Self {
        let mut pods = Self { context, workers: BTreeMap::new(), tasks: JoinSet::new(), list: 0, told: BTreeSet::new(), stop };
        for pod in record::load(&pods.context.layout.records()) {
            pods.put(pod, true, false);
        }
        let on_record = pods.workers.len();
        // The runtime may still be starting: what it holds is found here or at the next look.
        pods.find_strangers().await;
        let strangers = pods.workers.len() - on_record;
        tracing::info!(on_record, strangers, "pods found again");
        pods
    }

    /// Pods nobody told of: a sandbox or volumes without a record. The sandboxes that were looked at.
    async fn find_strangers(&mut self) -> Vec<PodSandbox> {
        let sandboxes = match self.context.runtime.list_pod_sandboxes().await {
            Ok(sandboxes) => sandboxes,
            Err(error) => {
                tracing::warn!(%error, "cannot list sandboxes");
                Vec::new()
            }
        };
        let of = |uid: &str, name: &str, namespace: &str| Pod {
            metadata: ObjectMeta {
                uid: Some(uid.to_owned()),
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        let from_runtime = sandboxes.iter().map(|sandbox| of(&sandbox.metadata.uid, &sandbox.metadata.name, &sandbox.metadata.namespace));
        let from_disk = volume::known_uids(&self.context.layout).into_iter().map(|uid| of(&uid, "", ""));
        let strangers: Vec<Pod> = from_runtime.chain(from_disk).collect();
        for pod in strangers {
            if !self.workers.contains_key(uid(&pod)) {
                self.put(pod, false, false);
            }
        }
        sandboxes
    }

    fn put(&mut self, pod: Pod, known: bool, gone: bool) {
        let key = uid(&pod).to_owned();
        let desired = Desired { pod: Arc::new(pod), known, gone, list: self.list };
        match self.workers.get(&key) {
            Some(worker) if !worker.task.is_finished() => {
                worker.desired.send_replace(desired);
            }
            _ => {
                let handle = worker::spawn(&self.context, desired, &mut self.tasks, &self.stop);
                self.workers.insert(key, handle);
            }
        }
    }

    fn lose(&mut self, key: &str) {
        if let Some(worker) = self.workers.get(key) {
            worker.desired.send_modify(|desired| desired.gone = true);
        }
    }

    /// Tells workers until the end.
    pub async fn run(mut self, mut events: mpsc::Receiver<PodEvent>) {
        let mut runtime = self.context.runtime.events();
        let grace = tokio::time::sleep(self.context.options.start_grace);
        tokio::pin!(grace);
        let mut waited = false;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = &mut grace, if !waited => {
                    waited = true;
                    self.context.gate.change(|waiting| (waiting.pods, waiting.services, waiting.network) = (false, false, false));
                }
                event = events.recv() => match event {
                    Some(event) => self.hear(event).await,
                    None => break,
                },
                Some(_) = self.tasks.join_next() => {}
                event = runtime.recv() => match event {
                    Ok(event) => if let Some(worker) = self.workers.get(&event.pod_uid) { worker.wake.notify_one() },
                    Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                    // The runtime is going down; workers look by themselves now and then.
                    Err(broadcast::error::RecvError::Closed) => tokio::time::sleep(Duration::from_secs(1)).await,
                },
            }
            while self.tasks.try_join_next().is_some() {}
            self.workers.retain(|_, worker| !worker.task.is_finished());
            // A worker that ended while its pod was called lost holds up nobody.
            self.context.gate.change(|waiting| waiting.lost.retain(|uid| self.workers.contains_key(uid)));
        }
        self.settle().await;
    }

    fn wake_all(&self) {
        self.workers.values().for_each(|worker| worker.wake.notify_one());
    }

    async fn hear(&mut self, event: PodEvent) {
        match event {
            PodEvent::Changed(pod) => self.put(*pod, true, false),
            PodEvent::Gone(pod) => self.lose(uid(&pod)),
            PodEvent::All(pods) => {
                self.list += 1;
                let sandboxes = self.find_strangers().await;
                let listed: BTreeSet<String> = pods.iter().map(|pod| uid(pod).to_owned()).collect();
                let lost: BTreeSet<String> = self.workers.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                self.tell_of_lost(&lost, &sandboxes);
                // No pod is given more before this node counts all of them.
                pods.iter().for_each(|pod| self.context.room.meet(pod));
                // First the gate, then the word: no pod starts before the lost ones have stopped.
                self.context.gate.change(|waiting| {
                    waiting.lost = lost.clone();
                    waiting.pods = false;
                });
                for key in &lost {
                    self.lose(key);
                }
                for pod in pods {
                    self.put(pod, true, false);
                }
            }
            // Nobody will say more for now: go by what is on record.
            PodEvent::Away => self.context.gate.change(|waiting| waiting.pods = false),
        }
    }

    /// Of pods that the server does not have it takes no events: it is the node's that they are stopped. Those that
    /// ended as they should have no sandbox that works any more.
    fn tell_of_lost(&mut self, lost: &BTreeSet<String>, sandboxes: &[PodSandbox]) {
        self.told.retain(|uid| lost.contains(uid));
        let runs = |sandbox: &&PodSandbox| sandbox.state == SandboxState::Ready && lost.contains(&sandbox.metadata.uid);
        let news = sandboxes.iter().filter(runs).filter(|sandbox| self.told.insert(sandbox.metadata.uid.clone()));
        let names: Vec<String> = news.map(|sandbox| format!("{}/{}", sandbox.metadata.namespace, sandbox.metadata.name)).collect();
        if let Some(message) = stopping(&names) {
            tracing::info!("{message}");
            self.context.events.node(&self.context.options.node_name, false, "StoppingOldPods", message);
        }
    }

    /// Pods stay; only the work on them ends.
    async fn settle(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(5), all).await.is_err() {
            tracing::warn!("some pods were being worked on; the next start goes on with them");
        }
    }
}

/// Pods that are named in one message.
const NAMED: usize = 10;

fn stopping(names: &[String]) -> Option<String> {
    let named = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let begin = if names.len() == 1 {
        "a pod that the server no longer has is".to_owned()
    } else {
        format!("{} pods that the server no longer has are", names.len())
    };
    (!names.is_empty()).then(|| format!("{begin} stopped before any other starts: {named}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_stopped_is_named_in_few_words() {
        let names: Vec<String> = (1..=12).map(|number| format!("web/p{number}")).collect();
        let told = |count: usize| stopping(&names[..count]).unwrap_or_default();
        assert_eq!(told(0), "");
        assert_eq!(told(1), "a pod that the server no longer has is stopped before any other starts: web/p1");
        assert_eq!(told(2), "2 pods that the server no longer has are stopped before any other starts: web/p1, web/p2");
        assert!(told(12).starts_with("12 pods") && told(12).ends_with("web/p9, web/p10 and 2 more"), "{}", told(12));
    }
}
