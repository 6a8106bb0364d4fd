//! Admission webhooks: who else is asked before something is written, and may change it.
//!
//! - `plan` (pure): which are asked, in which order, what, and what the answer means
//! - `place` (pure): where one listens
//! - `call`: the request to it; `trust`: whose certificates are taken
//! - `made`: the same for the pods that controllers make; `committed`: for what sources write
//!
//! Those that change objects come one after the other, each with what the ones before it left; what comes of it is
//! admitted once without being stored, and shown to those that judge it, all at the same time. Then it is written, if
//! the state still is what it was. Of what the parts of this process write themselves, webhooks are asked about the pods
//! that controllers make and what sources write, and about nothing else (scheduler, the server).

mod call;
mod committed;
mod made;
mod place;
pub mod plan;
mod trust;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::access::user_info;
use super::custom::View;
use super::fault::Fault;
use super::options::FieldValidation;
use super::request::{APPLY, Call, Verb};
use super::{Identity, ServerState, body, operations, write};
use crate::admit;
use crate::clock::Clock;
use crate::model::webhook::CONFIGURATIONS;
use crate::model::{Key, Kind, Object, convert};
use crate::store::{CommitError, Conflict, Snapshot, Stamp, Store, Transaction, Write};
use call::CallError;
pub use committed::CommitsAsked;
pub use made::PodsAsked;
use plan::{Answer, Asker, Hook, Names, Operation, Rounds, Subject};
pub use trust::Roots;

/// What webhooks tell besides their yes or no: warnings for the client, and what the audit log is to say.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Told>>);

/// What was told.
#[derive(Debug, Default)]
pub struct Told {
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

impl Notes {
    fn add(&self, answer: &Answer) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.warnings.extend(answer.warnings.iter().cloned());
        told.annotations.extend(answer.annotations.clone());
    }

    pub fn take(&self) -> Told {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is sent.
#[derive(Clone)]
enum Thing {
    Nothing,
    /// Of a served kind: shown in any version of it.
    Whole(Object),
    /// What a subresource takes, or an object as it is to be shown.
    Plain(Value),
}

impl Thing {
    fn shown(&self, kind: Kind, state: &Snapshot) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Plain(value) => value.clone(),
            Self::Whole(object) => match View::of(kind, state) {
                Some(view) => serde_json::from_slice(&view.json(object)).unwrap_or_default(),
                None => object.value_in(kind),
            },
        }
    }
}

/// Who wants something, and how.
#[derive(Clone)]
struct Asking<'a> {
    store: &'a dyn Store,
    clock: &'a dyn Clock,
    roots: &'a Roots,
    notes: Notes,
    identity: &'a Identity,
    /// As whom the store knows whoever writes.
    writer: &'a str,
    options: Value,
    dry_run: bool,
    /// Of what is asked in one go.
    batch: Option<&'a Batch>,
}

/// Questions that are asked in one go.
struct Batch {
    /// The state in which it would be written, which is not the store's: kinds, and labels of namespaces.
    state: Snapshot,
    /// Webhooks that let their time pass, and what is told of it: nobody waits for one again.
    late: Mutex<BTreeMap<(String, String), String>>,
}

impl Batch {
    fn new(state: Snapshot) -> Self {
        Self { state, late: Mutex::default() }
    }

    fn is_late(&self, hook: &Hook) -> Option<String> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.get(&(hook.configuration.clone(), hook.name().to_owned())).cloned()
    }

    fn note(&self, hook: &Hook, why: &str) {
        let at = (hook.configuration.clone(), hook.name().to_owned());
        self.late.lock().unwrap_or_else(PoisonError::into_inner).insert(at, why.to_owned());
    }
}

impl<'a> Asking<'a> {
    fn state(&self) -> Snapshot {
        self.batch.map_or_else(|| self.store.snapshot(), |batch| batch.state.clone())
    }

    fn of(state: &'a ServerState, call: &'a Call) -> Self {
        Self {
            store: state.store.as_ref(),
            clock: state.clock.as_ref(),
            roots: &state.roots,
            notes: call.notes.clone(),
            identity: &call.identity,
            writer: &call.identity.user,
            options: options(call),
            dry_run: call.dry_run,
            batch: None,
        }
    }
}

/// Whether there are no webhooks: all that requests pay then is a look at two empty lists.
fn is_alone(store: &dyn Store) -> bool {
    let snapshot = store.snapshot();
    CONFIGURATIONS.iter().all(|kind| snapshot.list(*kind).next().is_none())
}

/// What is wanted.
#[derive(Clone, Copy)]
struct Wish<'a> {
    operation: Operation,
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    subresource: &'a str,
    sent: Option<Names>,
}

impl<'a> Wish<'a> {
    fn of(operation: Operation, call: &'a Call, key: &'a Key, sent: Option<Names>) -> Self {
        let subresource = call.target.subresource.as_deref().unwrap_or_default();
        Self { operation, kind: call.target.kind, namespace: &key.namespace, name: &key.name, subresource, sent }
    }

    fn subject<'s>(&'s self, object: &'s Value, old: &'s Value) -> Subject<'s> {
        let Self { operation, kind, namespace, name, subresource, sent } = *self;
        Subject { operation, kind, namespace, name, subresource, sent, object, old }
    }
}

/// Why something does not pass.
enum Stop {
    No(Fault),
    /// A webhook that has to answer does not.
    Silent(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::No(fault)
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::No(fault) => fault,
            Stop::Silent(why) => internal(why),
        }
    }
}

/// One request, as all webhooks are asked about it.
struct Ask<'a> {
    by: Asking<'a>,
    wish: Wish<'a>,
    old: Thing,
    mutating: Vec<Hook>,
    validating: Vec<Hook>,
}

impl<'a> Ask<'a> {
    /// None where nobody is asked.
    fn of(by: Asking<'a>, wish: Wish<'a>, old: Thing) -> Option<Self> {
        let (snapshot, within) = (by.store.snapshot(), by.state());
        let concerned = |kind: Kind| {
            let mut hooks = plan::hooks(&snapshot, kind);
            hooks.retain(|hook| plan::covered(hook, &wish.subject(&Value::Null, &Value::Null), &within).is_some());
            hooks
        };
        let (mutating, validating) = (concerned(Kind::MutatingWebhookConfiguration), concerned(Kind::ValidatingWebhookConfiguration));
        (!mutating.is_empty() || !validating.is_empty()).then_some(Self { by, wish, old, mutating, validating })
    }

    /// What one webhook says, in which version of the kind it was asked; `None`: it need not be asked, or its answer
    /// not be waited for.
    async fn one(&self, hook: &Hook, thing: &Thing, changes: bool) -> Result<Option<(Kind, Answer)>, Stop> {
        let (snapshot, uid) = (self.by.state(), uuid::Uuid::new_v4().to_string());
        let wished = self.wish.kind;
        let (object, old) = (thing.shown(wished, &snapshot), self.old.shown(wished, &snapshot));
        let Some(kind) = plan::asks(hook, &self.wish.subject(&object, &old), &snapshot) else { return Ok(None) };
        let (object, old) = match kind.is_version(wished) {
            true => (object, old),
            false => (thing.shown(kind, &snapshot), self.old.shown(kind, &snapshot)),
        };
        let asker = Asker { user: &user_info(self.by.identity), options: &self.by.options, dry_run: self.by.dry_run };
        let request = plan::request(&uid, &self.wish.subject(&object, &old), kind, &asker);
        let asked = match plan::is_wanted(hook, &request, &object, &old) {
            Ok(true) => self.send(hook, &uid, &plan::review(request, &object, &old), changes).await,
            Ok(false) => return Ok(None),
            Err(why) if hook.may_fail() => Err(why),
            Err(why) => {
                let message = format!("{} {:?} is forbidden: {why}", wished.qualified(), self.wish.name);
                return Err(Fault::forbidden_object(wished, self.wish.name, message).into());
            }
        };
        match asked {
            Ok(answer) => {
                self.by.notes.add(&answer);
                match &answer.refusal {
                    Some(status) => Err(denied(hook, status).into()),
                    None => Ok(Some((kind, answer))),
                }
            }
            Err(why) if hook.may_fail() => {
                tracing::warn!(webhook = hook.name(), configuration = hook.configuration, why, "goes on without a webhook's answer");
                Ok(None)
            }
            Err(why) => Err(Stop::Silent(format!("failed calling webhook {:?}: {why}", hook.name()))),
        }
    }

    async fn send(&self, hook: &Hook, uid: &str, review: &Value, changes: bool) -> Result<Answer, String> {
        let place = place::place(&hook.webhook, &self.by.store.snapshot()).map_err(|why| format!("failed to call webhook: {why}"))?;
        let bundle = hook.webhook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).filter(|bundle| !bundle.is_empty());
        let patience = Duration::from_secs(place::patience(&hook.webhook));
        if let Some(why) = self.by.batch.and_then(|batch| batch.is_late(hook)) {
            return Err(why);
        }
        let asked = call::ask(self.by.roots, &place, bundle, review.to_string(), patience).await;
        if let (Err(late @ CallError::Late { .. }), Some(batch)) = (&asked, self.by.batch) {
            batch.note(hook, &late.to_string());
        }
        let bytes = asked.map_err(|error| error.to_string())?;
        plan::answer(hook, uid, changes, &bytes)
    }

    /// What the webhooks that may change it make of it; `None`: nothing.
    async fn change(&self, mut thing: Thing, refit: impl Fn(Value) -> Result<Thing, Fault>) -> Result<Option<Thing>, Stop> {
        let (mut rounds, mut is_changed) = (Rounds::default(), false);
        while let Some(at) = rounds.next(self.mutating.len()) {
            let hook = &self.mutating[at];
            let Some((kind, answer)) = self.one(hook, &thing, true).await? else { continue };
            let mut changed = false;
            if let Some(patch) = answer.patch {
                if matches!(thing, Thing::Nothing) {
                    let what = "attempted to modify the object, which is not supported for this operation";
                    return Err(internal(format!("admission webhook {:?} {what}", hook.name())).into());
                }
                let snapshot = self.by.state();
                let before = thing.shown(kind, &snapshot);
                let mut after = before.clone();
                operations::carry_out(&patch, &mut after).map_err(|fault| internal(fault.message))?;
                // A patch may put anything in the place of the whole, or of its metadata.
                if !after.is_object() || (self.wish.sent.is_none() && !after["metadata"].is_object()) {
                    return Err(internal(format!("admission webhook {:?} left no object", hook.name())).into());
                }
                if self.wish.sent.is_none() {
                    after = convert::between(after, kind, self.wish.kind);
                    after["apiVersion"] = self.wish.kind.api_version().into();
                }
                thing = refit(after)?;
                changed = thing.shown(kind, &snapshot) != before;
            }
            is_changed |= changed;
            rounds.answered(at, hook, changed);
        }
        Ok(is_changed.then_some(thing))
    }

    /// Asks all that only judge, at the same time; the first no counts, in the order of their configurations.
    async fn judge(&self, thing: &Thing) -> Result<(), Stop> {
        let all = join_all(self.validating.iter().map(|hook| self.one(hook, thing, false))).await;
        all.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    }
}

fn internal(why: String) -> Fault {
    Fault { details: json!({"causes": [{"message": why}]}), ..Fault::internal(format!("Internal error occurred: {why}")) }
}

fn denied(hook: &Hook, status: &Value) -> Fault {
    let (code, reason, message, details) = plan::refusal(hook.name(), status);
    Fault { code, reason: reason.into(), message, details, next: None }
}

/// `meta/v1 CreateOptions`, `UpdateOptions` or `PatchOptions`, as the request has them.
fn options(call: &Call) -> Value {
    let kind = match call.verb {
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Create => "CreateOptions",
        _ => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if call.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    for name in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.query.get(name) {
            options[name] = value.into();
        }
    }
    if call.content_type == APPLY {
        options["force"] = call.query.flag("force").into();
    }
    if options["fieldValidation"].is_null() {
        options["fieldValidation"] = match call.field_validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        }
        .into();
    }
    options
}

/// The options of an update or a patch that creates.
fn creating(mut options: Value) -> Value {
    options["kind"] = "CreateOptions".into();
    if let Some(options) = options.as_object_mut() {
        options.remove("force");
    }
    options
}

/// A write, as the webhooks let it pass. The inner error is what the store would say of it: the caller may try again.
///
/// # Errors
/// A webhook's no, or that it did not answer.
pub async fn write(state: &ServerState, call: &Call, write: Write) -> Result<Result<Write, CommitError>, Fault> {
    if is_alone(state.store.as_ref()) {
        return Ok(Ok(write));
    }
    let current = state.store.snapshot().get(write.key()).cloned();
    let Some(object) = write.object().cloned() else { return Ok(Ok(write)) };
    let operation = if matches!(write, Write::Create(_)) { Operation::Create } else { Operation::Update };
    if (operation == Operation::Create) != current.is_none() {
        // The store says what is wrong with it.
        return Ok(Ok(write));
    }
    let old = current.clone().map_or(Thing::Nothing, Thing::Whole);
    let wish = Wish::of(operation, call, object.key(), None);
    let mut by = Asking::of(state, call);
    if operation == Operation::Create {
        by.options = creating(by.options);
    }
    let Some(ask) = Ask::of(by, wish, old) else { return Ok(Ok(write)) };
    let refit = |value: Value| write::refit(state, call, current.as_ref(), value);
    let mut passed = write;
    if let Some((before, after)) = ask.changed(&object, refit).await? {
        let after = write::own_changes(state, call, &before, after);
        if after.json().len() > body::OBJECT_LIMIT {
            return Err(Fault::too_large(body::OBJECT_LIMIT));
        }
        passed = passed.with_object(after);
    }
    Ok(ask.judged(&passed, current.as_ref()).await?.map(|()| passed))
}

impl Ask<'_> {
    /// The object with its defaults, before and after webhooks changed it; `None` where none did.
    async fn changed(&self, object: &Object, refit: impl Fn(Value) -> Result<Object, Fault>) -> Result<Option<(Object, Object)>, Stop> {
        let key = object.key();
        let refit = |value: Value| {
            let object = refit(value)?;
            if object.key() != key {
                return Err(Fault::bad_request(format!("a webhook made {} of {key}: names are not changed", object.key())));
            }
            Ok(Thing::Whole(admit::defaulted(&object)))
        };
        let before = admit::defaulted(object);
        match self.change(Thing::Whole(before.clone()), refit).await? {
            Some(Thing::Whole(after)) => Ok(Some((before, after))),
            _ => Ok(None),
        }
    }

    /// Shows those that judge what would be stored. The inner error: it would not.
    async fn judged(&self, write: &Write, current: Option<&Object>) -> Result<Result<(), CommitError>, Stop> {
        if self.validating.is_empty() {
            return Ok(Ok(()));
        }
        match self.admitted(write, current) {
            Ok(object) => self.judge(&Thing::Whole(object)).await.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Asks everybody about a deletion.
    async fn let_go(&self) -> Result<(), Stop> {
        self.change(Thing::Nothing, |_| Ok(Thing::Nothing)).await?;
        self.judge(&Thing::Nothing).await
    }

    /// The object as it would be stored, but for what the store alone gives.
    fn admitted(&self, write: &Write, current: Option<&Object>) -> Result<Object, CommitError> {
        let snapshot = self.by.state();
        let transaction = Transaction { dry_run: true, ..Transaction::new(self.by.writer) }.with(write.clone());
        let mut uid = || uuid::Uuid::new_v4().to_string();
        let mut stamp = Stamp { now: self.by.clock.now(), uid: &mut uid };
        let mut applied = snapshot.apply(&transaction, snapshot.revision() + 1, &mut stamp)?;
        // Nothing is left of what lost its last finalizer: what was written is shown.
        let object = applied.results.pop().flatten().or_else(|| write.object().cloned());
        let object = object.ok_or_else(|| Conflict::NotFound(write.key().clone()))?;
        Ok(object.edit_meta(|meta| {
            meta.resource_version = current.and_then(|current| current.meta().resource_version.clone());
            if current.is_none() {
                meta.uid = None;
            }
        }))
    }
}

/// What a subresource takes, as the webhooks let it pass.
///
/// # Errors
/// As [`write`].
pub async fn plain(state: &ServerState, call: &Call, operation: Operation, sent: Names, object: Value, old: Value) -> Result<Value, Fault> {
    if is_alone(state.store.as_ref()) {
        return Ok(object);
    }
    let old = if old.is_null() { Thing::Nothing } else { Thing::Plain(old) };
    let object = named(object, sent);
    let key = call.target.key().ok_or_else(Fault::no_such_path)?;
    let Some(mut ask) = Ask::of(Asking::of(state, call), Wish::of(operation, call, &key, Some(sent)), old) else { return Ok(object) };
    if operation == Operation::Connect {
        ask.by.options = Value::Null;
    }
    let mut thing = Thing::Plain(object);
    if let Some(changed) = ask.change(thing.clone(), |value| Ok(Thing::Plain(value))).await? {
        thing = changed;
    }
    ask.judge(&thing).await?;
    Ok(thing.shown(call.target.kind, &state.store.snapshot()))
}

/// What a body leaves out that its path says.
fn named(mut object: Value, [group, version, kind]: Names) -> Value {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert(api_version.into());
        fields.entry("kind").or_insert(kind.into());
    }
    object
}

/// Whether an object may be deleted: whether anybody was asked. `options`: `meta/v1 DeleteOptions`.
///
/// # Errors
/// As [`write`].
pub async fn delete(state: &ServerState, call: &Call, current: &Object, options: Value, dry_run: bool) -> Result<bool, Fault> {
    if is_alone(state.store.as_ref()) {
        return Ok(false);
    }
    let by = Asking { options, dry_run, ..Asking::of(state, call) };
    let wish = Wish::of(Operation::Delete, call, current.key(), None);
    let Some(ask) = Ask::of(by, wish, Thing::Whole(current.clone())) else { return Ok(false) };
    ask.let_go().await?;
    Ok(true)
}
