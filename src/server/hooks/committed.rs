//! What sources write: webhooks are asked about it as about an apply through the API.
//!
//! The planner of `sync` says what is to be asked, and admits what comes of it: here it is only asked.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::plan::Operation;
use super::{Ask, Asking, Batch, Notes, Roots, Stop, Thing, Wish, creating};
use crate::clock::Clock;
use crate::model::custom::prune;
use crate::model::{Object, schema};
use crate::server::fault::Fault;
use crate::server::identity::AUTHENTICATED;
use crate::server::write::WARNING_CHARS;
use crate::server::{Identity, body};
use crate::store::{Snapshot, Store};
use crate::sync::asked::{Answer, Heard, Part, Question, Questions};
use crate::sync::plan::{manager, writer};

/// Questions of one plan that are asked at the same time: each is a connection for every webhook.
const AT_ONCE: usize = 32;

/// Asks webhooks about the ops of a source.
pub struct CommitsAsked {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    roots: Roots,
}

impl CommitsAsked {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, roots: Roots::default() }
    }

    /// An answer to each question, in their order.
    pub async fn ask(&self, questions: &Questions, dry_run: bool) -> Vec<Heard> {
        let asker = Source {
            identity: account(&questions.source),
            writer: writer(&questions.source),
            manager: manager(&questions.source),
            batch: Batch::new(questions.state.clone()),
            dry_run,
        };
        let asked: Vec<_> = questions.all.iter().map(|question| self.heard(&asker, question)).collect();
        let heard: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        // All at one time: that of the first must not be over when the last is known.
        let at = self.clock.now();
        let answer = |(said, warnings): (Result<Option<Object>, Stop>, Vec<String>)| {
            let answer = match said {
                Ok(None) => Answer::Passed,
                Ok(Some(changed)) => Answer::Changed(changed),
                Err(Stop::No(fault)) => Answer::Denied(fault.message),
                Err(Stop::Silent(why)) => Answer::Silent { why, at },
            };
            Heard { answer, warnings }
        };
        heard.into_iter().map(answer).collect()
    }

    /// What webhooks make of it, and what they warn of: of each warning as much as clients of the API are sent of many.
    async fn heard(&self, source: &Source, question: &Question) -> (Result<Option<Object>, Stop>, Vec<String>) {
        let notes = Notes::default();
        let said = self.said(source, question, notes.clone()).await;
        (said, notes.take().warnings.iter().map(|warning| warning.chars().take(WARNING_CHARS).collect()).collect())
    }

    /// What webhooks make of it; `None`: it may be as it is.
    async fn said(&self, source: &Source, question: &Question, notes: Notes) -> Result<Option<Object>, Stop> {
        let key = question.key();
        let wish =
            Wish { operation: question.operation, kind: key.kind, namespace: &key.namespace, name: &key.name, subresource: "", sent: None };
        let by = Asking {
            store: self.store.as_ref(),
            clock: self.clock.as_ref(),
            roots: &self.roots,
            notes,
            identity: &source.identity,
            writer: &source.writer,
            options: source.options(question),
            dry_run: source.dry_run,
            batch: Some(&source.batch),
        };
        let old = question.old.clone().map_or(Thing::Nothing, Thing::Whole);
        let Some(ask) = Ask::of(by, wish, old) else { return Ok(None) };
        match (&question.object, question.part) {
            (None, _) => ask.let_go().await.map(|()| None),
            (Some(object), Part::Judge) => ask.judge(&Thing::Whole(object.clone())).await.map(|()| None),
            (Some(object), Part::Change) => {
                let changed = ask.changed(object, |value| refit(&source.batch.state, object, value)).await?.map(|(_, after)| after);
                match changed {
                    Some(after) if after.json().len() > body::OBJECT_LIMIT => Err(Fault::too_large(body::OBJECT_LIMIT).into()),
                    changed => Ok(changed),
                }
            }
        }
    }
}

/// Who writes, and where.
struct Source {
    identity: Identity,
    writer: String,
    manager: String,
    batch: Batch,
    dry_run: bool,
}

impl Source {
    /// `meta/v1 PatchOptions` of an apply that takes what others own, `CreateOptions` of one that creates, `DeleteOptions`.
    fn options(&self, question: &Question) -> Value {
        let mut options = json!({"kind": "PatchOptions", "apiVersion": "meta.k8s.io/v1",
            "fieldManager": self.manager, "fieldValidation": "Strict", "force": true});
        match (question.operation, &question.old) {
            (Operation::Create, _) => options = creating(options),
            (Operation::Delete, Some(old)) => {
                let seen = json!({"uid": old.uid(), "resourceVersion": old.meta().resource_version});
                options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "preconditions": seen,
                    "propagationPolicy": "Background"});
            }
            _ => {}
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }
}

/// Who a source is to webhooks.
fn account(source: &str) -> Identity {
    Identity::new(format!("podbay:source:{source}"), &[AUTHENTICATED])
}

/// What webhooks left, as an object of the kind it was: without what its schema does not have.
fn refit(state: &Snapshot, object: &Object, mut value: Value) -> Result<Object, Fault> {
    let kind = object.kind();
    if let Some(version) = state.definitions().version(kind) {
        prune::prune(&version.schema, &mut value);
    }
    schema::fill_nulls(kind, &mut value);
    Object::from_value(kind, value).map_err(|error| Fault::internal(error.to_string()))
}
