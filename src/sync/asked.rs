//! What admission webhooks are asked about the ops of a source, and what they answered. PURE.
//!
//! ```text
//! op ─► Change ─► admitted on a copy of the state ─► Judge ─► written
//!        │  another object may come of it               │
//!        └────────────► a no, or no answer ◄────────────┘
//! ```
//!
//! - what is not answered yet is a [`Question`] for the shell: a plan with open questions is planned again with the
//!   answers, and never carried out
//! - a question is what would be written and what is there, without a status that is written apart and what the cluster writes to metadata, under the
//!   webhooks in force and the labels of the namespace: the same question has the same answer
//! - whom no rule of a webhook covers is not asked about; where there are no webhooks all this is a look at two empty lists

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::ToSpan;
use serde_json::Value;

use super::identity::{self, Sum};
use crate::model::webhook::CONFIGURATIONS;
use crate::model::{Key, Kind, Object, Timestamp, copy_stamps};
use crate::plan::{Reason, Wait};
pub use crate::server::hooks::plan::Operation;
use crate::server::hooks::plan::{Hook, Subject, covered, hooks};
use crate::store::snapshot::Snapshot;

/// Reason: a webhook says no.
pub const DENIED: &str = "WebhookDenied";
/// Reason: a webhook that has to answer does not.
pub const UNAVAILABLE: &str = "WebhookUnavailable";
/// Until a webhook that did not answer is asked again.
const RETRY_SECONDS: i64 = 15;

/// Whether a webhook holds an object back.
pub fn is_held_back(wait: &Wait) -> bool {
    matches!(wait.reason.code, DENIED | UNAVAILABLE)
}

/// Which webhooks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Those that may change the object.
    Change,
    /// Those that say yes or no. Of a deletion, where nothing can be changed: all.
    Judge,
}

/// What is asked of all webhooks of one part together.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The same for the same question.
    pub id: String,
    pub part: Part,
    pub operation: Operation,
    /// As it would be written, or, for those that judge, stored. None of what is deleted.
    pub object: Option<Object>,
    /// As it is.
    pub old: Option<Object>,
}

impl Question {
    pub fn key(&self) -> &Key {
        match (&self.object, &self.old) {
            (Some(object), _) | (None, Some(object)) => object.key(),
            (None, None) => unreachable!("a question is about an object that is there or will be: `Panel` asks no other"),
        }
    }
}

/// What has to be asked before a plan is whole.
#[derive(Clone, Default)]
pub struct Questions {
    pub source: String,
    /// The state as the plan leaves it: the kinds there will be, and the labels of namespaces.
    pub state: Snapshot,
    /// In the order of the plan's ops.
    pub all: Vec<Question>,
}

impl fmt::Debug for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Questions").field("source", &self.source).field("all", &self.all).finish_non_exhaustive()
    }
}

impl Questions {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The webhooks whose rules cover any of it, by name. `state`: where they are in force.
    pub fn webhooks(&self, state: &Snapshot) -> BTreeSet<String> {
        let covers = |hook: &Hook| self.all.iter().any(|it| is_covered(hook, it.operation, it.key(), &self.state));
        CONFIGURATIONS.iter().flat_map(|kind| hooks(state, *kind)).filter(covers).map(|hook| hook.name().to_owned()).collect()
    }
}

/// What was answered to one question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Yes, and it stays as it is.
    Passed,
    /// What those that change objects made of it.
    Changed(Object),
    /// A no, in words that name the webhook.
    Denied(String),
    /// A webhook that has to answer did not: why, and when.
    Silent { why: String, at: Timestamp },
}

/// An answer, and what those who gave it warn of.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub answer: Answer,
    pub warnings: Vec<String>,
}

impl From<Answer> for Heard {
    fn from(answer: Answer) -> Self {
        Self { answer, warnings: Vec::new() }
    }
}

/// The answers so far. All of them can be lost: then it is asked again.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    known: BTreeMap<String, Heard>,
    /// Nobody can be asked: all webhooks are as if they were not there.
    nobody: bool,
}

impl Answers {
    /// Of a place where no webhook can be asked.
    pub fn nobody() -> Self {
        Self { nobody: true, ..Self::default() }
    }

    /// Takes the answers to these questions, in their order.
    pub fn take(&mut self, questions: &Questions, answers: Vec<Heard>) {
        self.known.extend(questions.all.iter().map(|question| question.id.clone()).zip(answers));
    }

    /// Forgets what no plan needed.
    pub fn keep(&mut self, used: &BTreeSet<String>) {
        self.known.retain(|id, _| used.contains(id));
    }

    /// Whoever said no, or nothing, is asked again.
    pub fn reconsider(&mut self) {
        self.known.retain(|_, heard| matches!(heard.answer, Answer::Passed | Answer::Changed(_)));
    }

    /// Everybody is asked again.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

/// What a planner hears.
pub(super) enum Said {
    Yes,
    /// Yes, to this in its place.
    Instead(Object),
    No(Reason),
    /// It has to be asked first.
    Open,
}

/// The webhooks in force, as one plan asks them.
pub(super) struct Panel<'a> {
    answers: &'a Answers,
    now: Timestamp,
    changing: Vec<Hook>,
    judging: Vec<Hook>,
    /// Which webhooks there are.
    edition: String,
    /// What is not answered yet.
    pub open: Vec<Question>,
    /// The answers that were needed.
    pub used: BTreeSet<String>,
    /// What those who answered warn of, each with its object.
    pub warnings: BTreeSet<String>,
    /// When those that do not answer are asked again.
    pub again_at: Option<Timestamp>,
}

impl<'a> Panel<'a> {
    pub fn of(state: &Snapshot, answers: &'a Answers, now: Timestamp) -> Self {
        let [changing, judging] = CONFIGURATIONS.map(|kind| if answers.nobody { Vec::new() } else { hooks(state, kind) });
        let mut edition = Sum::default();
        if !changing.is_empty() || !judging.is_empty() {
            for configuration in CONFIGURATIONS.iter().flat_map(|kind| state.list(*kind)) {
                edition.add(configuration.uid()).add(configuration.revision().to_le_bytes());
            }
        }
        let edition = edition.finish();
        let (open, used, warnings) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        Self { answers, now, changing, judging, edition, open, used, warnings, again_at: None }
    }

    /// There are no webhooks.
    pub fn is_empty(&self) -> bool {
        self.changing.is_empty() && self.judging.is_empty()
    }

    /// What comes of an object: `probe` is the state in which it would be written.
    pub fn change(&mut self, object: &Object, old: Option<&Object>, probe: &Snapshot) -> Said {
        self.ask(Part::Change, operation(old), Some(object), old, probe)
    }

    /// Whether an object may be stored as it is. It is shown without what the store alone gives it.
    pub fn judge(&mut self, stored: &Object, old: Option<&Object>, probe: &Snapshot) -> Said {
        if self.judging.is_empty() {
            return Said::Yes;
        }
        let shown = stored.clone().edit_meta(|meta| {
            meta.resource_version = old.and_then(|old| old.meta().resource_version.clone());
            if old.is_none() {
                meta.uid = None;
            }
        });
        self.ask(Part::Judge, operation(old), Some(&shown), old, probe)
    }

    /// Whether an object may be deleted.
    pub fn delete(&mut self, live: &Object, probe: &Snapshot) -> Said {
        self.ask(Part::Judge, Operation::Delete, None, Some(live), probe)
    }

    fn ask(&mut self, part: Part, operation: Operation, object: Option<&Object>, old: Option<&Object>, probe: &Snapshot) -> Said {
        let Some(key) = object.or(old).map(Object::key) else { return Said::Yes };
        let concerned = |hooks: &[Hook]| hooks.iter().any(|hook| is_covered(hook, operation, key, probe));
        let is_asked = match (part, operation) {
            (_, Operation::Delete) => concerned(&self.changing) || concerned(&self.judging),
            (Part::Change, _) => concerned(&self.changing),
            (Part::Judge, _) => concerned(&self.judging),
        };
        if !is_asked {
            return Said::Yes;
        }
        let id = self.id(part, operation, object, old, probe);
        self.used.insert(id.clone());
        let heard = self.answers.known.get(&id);
        self.warnings.extend(heard.iter().flat_map(|heard| &heard.warnings).map(|warning| format!("{key}: {warning}")));
        match heard.map(|heard| &heard.answer) {
            Some(Answer::Passed) => return Said::Yes,
            Some(Answer::Changed(object)) => return Said::Instead(object.clone()),
            Some(Answer::Denied(why)) => return Said::No(Reason::new(DENIED, why.clone())),
            Some(Answer::Silent { why, at }) => {
                let again = at.checked_add(RETRY_SECONDS.seconds()).unwrap_or(*at);
                if again > self.now {
                    self.again_at = Some(self.again_at.map_or(again, |earlier| earlier.min(again)));
                    return Said::No(Reason::new(UNAVAILABLE, why.clone()));
                }
            }
            None => {}
        }
        self.open.push(Question { id, part, operation, object: object.cloned(), old: old.cloned() });
        Said::Open
    }

    fn id(&self, part: Part, operation: Operation, object: Option<&Object>, old: Option<&Object>, probe: &Snapshot) -> String {
        let mut sum = Sum::default();
        let part = match part {
            Part::Change => "change",
            Part::Judge => "judge",
        };
        sum.add(&self.edition).add(part).add(operation.word());
        for object in [object, old] {
            let Some(object) = object else {
                sum.add("");
                continue;
            };
            let key = object.key();
            sum.add(key.kind.api_version()).add(key.to_string()).add(object.uid()).add(identity::of_object(object));
            // Where there is no such subresource, a field of this name is written along: it has to be the newest.
            if !key.kind.info().has_status {
                sum.add(object.value()["status"].to_string());
            }
        }
        let namespace = object.or(old).map(|object| object.key().namespace.as_str()).unwrap_or_default();
        let namespace = probe.get(&Key::cluster(Kind::Namespace, namespace));
        for (name, value) in namespace.iter().flat_map(|namespace| namespace.labels()) {
            sum.add(name).add(value);
        }
        sum.finish()
    }
}

fn operation(old: Option<&Object>) -> Operation {
    if old.is_some() { Operation::Update } else { Operation::Create }
}

fn is_covered(hook: &Hook, operation: Operation, key: &Key, state: &Snapshot) -> bool {
    let subject = Subject {
        operation,
        kind: key.kind,
        namespace: &key.namespace,
        name: &key.name,
        subresource: "",
        sent: None,
        object: &Value::Null,
        old: &Value::Null,
    };
    covered(hook, &subject, state).is_some()
}

/// What webhooks made of an object, as it is to be written in the place of `wanted`: what the cluster writes to its
/// metadata, and who owns which field, is as without them. So git's fields stay the source's, whatever became of them,
/// and what a webhook added is nobody's (as in `server::write`, where an apply is asked about).
pub(super) fn in_place_of(wanted: &Object, passed: Object) -> Object {
    let meant = wanted.meta();
    passed.edit_meta(|meta| {
        copy_stamps(meta, meant);
        meta.uid.clone_from(&meant.uid);
        meta.managed_fields.clone_from(&meant.managed_fields);
    })
}

/// The same for a person: without the defaults that are filled in before webhooks are asked.
pub(super) fn told(wanted: &Object, defaulted: &Object, passed: &Object) -> Object {
    let value = without_defaults(passed.value(), &defaulted.value(), &wanted.value());
    Object::from_value(wanted.kind(), value).unwrap_or_else(|_| passed.clone())
}

fn without_defaults(passed: Value, defaulted: &Value, wanted: &Value) -> Value {
    match (passed, defaulted, wanted) {
        (Value::Object(passed), Value::Object(defaulted), Value::Object(wanted)) => {
            let kept = passed.into_iter().filter_map(|(name, value)| match (defaulted.get(&name), wanted.get(&name)) {
                (Some(default), None) if *default == value => None,
                (Some(default), Some(wanted)) => Some((name, without_defaults(value, default, wanted))),
                _ => Some((name, value)),
            });
            Value::Object(kept.collect())
        }
        (Value::Array(passed), Value::Array(defaulted), Value::Array(wanted)) if defaulted.len() == wanted.len() => {
            let kept = passed.into_iter().enumerate().map(|(at, value)| match (defaulted.get(at), wanted.get(at)) {
                (Some(default), Some(wanted)) => without_defaults(value, default, wanted),
                _ => value,
            });
            Value::Array(kept.collect())
        }
        (passed, ..) => passed,
    }
}
