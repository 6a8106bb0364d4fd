//! The store as controllers see it: webhooks are asked about the pods they make.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::plan::Operation;
use super::{Ask, Asking, Notes, Roots, Stop, Thing, Wish, is_alone};
use crate::admit::Refused;
use crate::clock::Clock;
use crate::model::{Kind, Object, SYSTEM_NAMESPACE, fields, schema};
use crate::server::Identity;
use crate::server::fault::Fault;
use crate::store::watch::Extent;
use crate::store::{CommitError, Committed, Snapshot, Store, TooOld, Transaction, Watch, Write};

/// Pods of one transaction that are asked about at the same time.
const AT_ONCE: usize = 16;
/// Pods of all: each is a connection, and an answer in memory.
const TURNS: usize = 128;

/// Commits as the store below does, after the webhooks were asked. Pods that they refuse are left out: what else the
/// transaction writes is stored, and its outcome still is the refusal.
pub struct PodsAsked {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    roots: Roots,
    turns: Semaphore,
}

impl PodsAsked {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, roots: Roots::default(), turns: Semaphore::new(TURNS) }
    }

    fn asking<'a>(&'a self, identity: &'a Identity, writer: &'a str) -> Asking<'a> {
        Asking {
            store: self.store.as_ref(),
            clock: self.clock.as_ref(),
            roots: &self.roots,
            notes: Notes::default(),
            identity,
            writer,
            options: json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}),
            dry_run: false,
            batch: None,
        }
    }

    /// A pod as the webhooks let it pass.
    async fn passed(&self, write: Write, identity: &Identity, writer: &str) -> Result<Write, CommitError> {
        let Some(pod) = made(&write) else { return Ok(write) };
        let Some(ask) = Ask::of(self.asking(identity, writer), wish(pod), Thing::Nothing) else { return Ok(write) };
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        let refused = |stop: Stop| Refused::Forbidden { key: pod.key().clone(), message: Fault::from(stop).message, at: "" };
        let refit = |mut value: Value| {
            schema::fill_nulls(Kind::Pod, &mut value);
            Object::from_value(Kind::Pod, value).map_err(|error| Fault::internal(error.to_string()))
        };
        let changed = ask.changed(pod, refit).await.map_err(refused)?;
        // What controllers make says nothing that is not served, and admission takes it so; now it is a webhook's too.
        let errors = changed.as_ref().map(|(_, after)| fields::refusals(Kind::Pod, &after.value())).unwrap_or_default();
        if !errors.is_empty() {
            return Err(Refused::Invalid { key: pod.key().clone(), errors }.into());
        }
        let passed = changed.map_or_else(|| write.clone(), |(_, after)| Write::Create(after));
        ask.judged(&passed, None).await.map_err(refused)??;
        Ok(passed)
    }
}

fn made(write: &Write) -> Option<&Object> {
    match write {
        Write::Create(object) if object.kind() == Kind::Pod => Some(object),
        _ => None,
    }
}

fn wish(pod: &Object) -> Wish<'_> {
    let key = pod.key();
    Wish { operation: Operation::Create, kind: Kind::Pod, namespace: &key.namespace, name: &key.name, subresource: "", sent: None }
}

/// Who a controller is to webhooks: the account it has in Kubernetes (`replicaset-controller`).
fn account(writer: &str) -> Identity {
    let name = writer.trim_start_matches("controller:").replace('-', "");
    Identity::account(SYSTEM_NAMESPACE, &format!("{name}-controller")).authenticated()
}

#[async_trait]
impl Store for PodsAsked {
    fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    fn asks(&self, transaction: &Transaction) -> bool {
        let identity = Identity::default();
        let mut pods = transaction.writes.iter().filter_map(made);
        !is_alone(self.store.as_ref())
            && pods.any(|pod| Ask::of(self.asking(&identity, &transaction.writer), wish(pod), Thing::Nothing).is_some())
    }

    async fn commit(&self, mut transaction: Transaction) -> Result<Committed, CommitError> {
        if !self.asks(&transaction) {
            return self.store.commit(transaction).await;
        }
        let (identity, writer) = (account(&transaction.writer), transaction.writer.clone());
        let asked = stream::iter(transaction.writes).map(|write| self.passed(write, &identity, &writer));
        let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
        let (mut passed, mut refused) = (Vec::new(), None);
        for write in asked {
            match write {
                Ok(write) => passed.push(write),
                Err(error @ CommitError::Refused(_)) => refused = refused.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        transaction.writes = passed;
        match refused {
            None => self.store.commit(transaction).await,
            Some(refused) if transaction.writes.is_empty() => Err(refused),
            // What a controller counts and when it began must not wait for a pod that may never be.
            Some(refused) => self.store.commit(transaction).await.and(Err(refused)),
        }
    }

    fn watch(&self, from: u64) -> Result<Watch, TooOld> {
        self.store.watch(from)
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }

    fn history(&self) -> Extent {
        self.store.history()
    }

    fn degraded(&self) -> Option<String> {
        self.store.degraded()
    }
}
