//! Keeps this host's Node and Lease on the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::Notify;

use super::context::Context;
use super::machine;
use super::node_plan::{self, Facts, LEASE_NAMESPACE};
use super::objects::Objects;

/// Told when the server answers again after it did not: everything is listed anew.
#[derive(Default)]
pub struct Reconnected {
    count: AtomicU64,
    notify: Notify,
}

impl Reconnected {
    pub async fn next(&self) {
        self.notify.notified().await;
    }
    fn tell(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.notify.notify_waiters();
    }
}

/// Measures are taken anew after this many renewals of the lease, and at each while the runtime takes no pods.
const LOOK_EVERY: u32 = 3;

/// Registers and renews for ever.
pub async fn run(context: Arc<Context>, changed: Arc<Notify>, reconnected: Arc<Reconnected>) {
    let mut keeper = Keeper { context, lease: None, node_uid: None, facts: Facts::default() };
    let mut round = 0;
    let mut away = false;
    loop {
        if round % LOOK_EVERY == 0 || !node_plan::takes_pods(&keeper.facts) {
            keeper.facts = machine::facts(&keeper.context).await;
        }
        let interval = keeper.context.options.lease_interval;
        let renewed = tokio::time::timeout(interval, keeper.renew()).await.unwrap_or_else(|_| Err("no answer".to_owned()));
        match renewed {
            Ok(()) if away => {
                away = false;
                tracing::info!("the server answers again");
                reconnected.tell();
            }
            Ok(()) => {}
            Err(cause) => {
                if !away {
                    tracing::warn!(cause, "the server does not take the node's word; pods go on unless it was removed");
                }
                away = true;
            }
        }
        let pause = if away { interval.min(std::time::Duration::from_secs(2)) } else { interval };
        tokio::select! {
            () = tokio::time::sleep(pause) => round += 1,
            // Somebody changed the Node, or the network's state changed.
            () = changed.notified() => round = 0,
        }
    }
}

struct Keeper {
    context: Arc<Context>,
    lease: Option<Lease>,
    node_uid: Option<String>,
    facts: Facts,
}

impl Keeper {
    async fn renew(&mut self) -> Result<(), String> {
        self.node().await?;
        self.renew_lease().await
    }

    /// Creates the Node, or corrects its labels, annotations and status where they differ.
    async fn node(&mut self) -> Result<(), String> {
        let (options, now) = (&self.context.options, self.context.clock.now());
        let api: Objects<Node> = Objects::all(self.context.client.clone());
        let known = self
            .context
            .cluster
            .read(|view| view.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(options.node_name.as_str())).cloned());
        let current = match known {
            Some(node) => Some(node),
            None => api.get_opt(&options.node_name).await.map_err(|cause| format!("get the Node: {cause}"))?,
        };
        let Some(mut current) = current else {
            let fresh = node_plan::fresh(options, &self.facts, now);
            let created = api.create(&fresh).await.map_err(|cause| format!("create the Node: {cause}"))?;
            tracing::info!(node = options.node_name, "registered");
            self.node_uid = created.metadata.uid.clone();
            if created.status.as_ref().is_none_or(|status| status.capacity.is_none()) {
                return self.write_status(&api, created).await;
            }
            return Ok(());
        };
        self.node_uid = current.metadata.uid.clone();
        let wanted = node_plan::labels(options, &self.facts);
        let told = node_plan::annotations(options);
        let has = |known: &Option<BTreeMap<String, String>>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(name, value)| known.as_ref().is_some_and(|known| known.get(name) == Some(value)))
        };
        if !has(&current.metadata.labels, &wanted) || !has(&current.metadata.annotations, &told) {
            let patch = serde_json::json!({"metadata": {"labels": wanted, "annotations": told}});
            let patched = api.merge(&options.node_name, patch).await;
            current = patched.map_err(|cause| format!("label the Node: {cause}"))?;
        }
        self.write_status(&api, current).await
    }

    async fn write_status(&self, api: &Objects<Node>, mut current: Node) -> Result<(), String> {
        let (options, now) = (&self.context.options, self.context.clock.now());
        for _ in 0..4 {
            let status = node_plan::status(options, &self.facts, current.status.as_ref(), now);
            if current.status.as_ref() == Some(&status) {
                return Ok(());
            }
            current.status = Some(status);
            match api.replace_status(&options.node_name, &current).await {
                Ok(_) => return Ok(()),
                // kube-apiserver looks at who may write what first, and then whether it is of this revision: a taint that came
                // meanwhile looks like one that the node takes away.
                Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 409) => {
                    let newest = api.get(&options.node_name).await.map_err(|cause| format!("get the Node: {cause}"))?;
                    if refusal.code == 403 && newest.metadata.resource_version == current.metadata.resource_version {
                        return Err(format!("write the Node's status: {}", refusal.message));
                    }
                    current = newest;
                }
                Err(cause) => return Err(format!("write the Node's status: {cause}")),
            }
        }
        Err("write the Node's status: it changes all the time".to_owned())
    }

    async fn renew_lease(&mut self) -> Result<(), String> {
        let options = &self.context.options;
        let api: Objects<Lease> = Objects::namespaced(self.context.client.clone(), LEASE_NAMESPACE);
        let failed = |cause: kube::Error| format!("renew the node's lease: {cause}");
        for _ in 0..3 {
            let old = match self.lease.take() {
                Some(lease) => Some(lease),
                None => api.get_opt(&options.node_name).await.map_err(failed)?,
            };
            let next = node_plan::lease(options, self.node_uid.as_deref(), old.as_ref(), self.context.clock.now());
            let written = match &old {
                Some(_) => api.replace(&options.node_name, &next).await,
                None => api.create(&next).await,
            };
            match written {
                Ok(lease) => {
                    self.lease = Some(lease);
                    return Ok(());
                }
                Err(kube::Error::Api(refusal)) if refusal.code == 409 => {}
                Err(cause) => return Err(failed(cause)),
            }
        }
        Err("renew the node's lease: it changes all the time".to_owned())
    }
}
