//! Deleting: one object, a collection, an eviction; and binding, the other verb on pods.

use std::collections::BTreeMap;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::Fault;
use super::hooks::plan::{Names, Operation};
use super::options::{check_dry_run, refuse};
use super::patch::TRIES;
use super::read::{candidates, find};
use super::render::{ListMeta, Renderer, json_response};
use super::request::Call;
use super::select::Selection;
use super::write::{answer, success, warned};
use super::{ServerState, body, hooks};
use crate::model::{Errors, Kind, Object, Path};
use crate::store::{CommitError, Conflict, Precondition, Snapshot, Transaction, Write};

/// `meta/v1 DeleteOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What becomes of the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dependents {
    /// They go after it.
    Background,
    /// It goes after them.
    Foreground,
    /// They stay and have no owner.
    Orphan,
}

/// What `pods/eviction` and `pods/binding` take.
const EVICTION: Names = ["policy", "v1", "Eviction"];
const BINDING: Names = ["", "v1", "Binding"];
/// The finalizer that lets an object wait for its dependents.
const FOREGROUND: &str = "foregroundDeletion";

impl DeleteOptions {
    fn read(call: &Call, bytes: &Bytes) -> Result<Self, Fault> {
        let mut options = match body::decode(&call.content_type, bytes)? {
            Some(value) => serde_json::from_value(value).map_err(|error| Fault::bad_request(format!("DeleteOptions: {error}")))?,
            None => Self::default(),
        };
        if let Some(grace) = call.query.number("gracePeriodSeconds")? {
            options.grace_period_seconds = Some(grace);
        }
        if let Some(policy) = call.query.get("propagationPolicy") {
            options.propagation_policy = Some(policy.to_owned());
        }
        if call.query.get("orphanDependents").is_some() {
            options.orphan_dependents = Some(call.query.flag("orphanDependents"));
        }
        options.checked()
    }

    /// As `v1 Eviction` carries them.
    fn of_eviction(eviction: &Value) -> Result<Self, Fault> {
        let options = eviction.get("deleteOptions").filter(|options| !options.is_null());
        let options = options.map(|options| serde_json::from_value(options.clone())).transpose();
        options.map_err(|error| Fault::bad_request(format!("deleteOptions: {error}")))?.unwrap_or_else(Self::default).checked()
    }

    fn checked(self) -> Result<Self, Fault> {
        let mut errors = Errors::default();
        let path = Path::root("propagationPolicy");
        match self.propagation_policy.as_deref() {
            Some(policy) if self.orphan_dependents.is_some() => {
                errors.invalid(&path, policy, "orphanDependents and deletionPropagation cannot be both set");
            }
            None | Some("Background" | "Foreground" | "Orphan") => {}
            Some(other) => errors.unsupported(&path, other, &["Background", "Foreground", "Orphan"]),
        }
        check_dry_run(&self.dry_run, &mut errors);
        refuse("DeleteOptions", errors)?;
        Ok(self)
    }

    /// What is said; where nothing is, `None`.
    fn dependents(&self) -> Option<Dependents> {
        match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some("Foreground"), _) => Some(Dependents::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Dependents::Orphan),
            (Some(_), _) | (None, Some(false)) => Some(Dependents::Background),
            (None, None) => None,
        }
    }

    /// As webhooks are told of them.
    fn value(&self, call: &Call) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        let preconditions = self.preconditions.as_ref();
        let preconditions = preconditions.map(|it| json!({"uid": it.uid, "resourceVersion": it.resource_version}));
        for (name, said) in [
            ("gracePeriodSeconds", json!(self.grace_period_seconds)),
            ("preconditions", json!(preconditions)),
            ("orphanDependents", json!(self.orphan_dependents)),
            ("propagationPolicy", json!(self.propagation_policy)),
            ("dryRun", if self.is_dry(call) { json!(["All"]) } else { Value::Null }),
        ] {
            if !said.is_null() {
                value[name] = said;
            }
        }
        value
    }

    fn is_dry(&self, call: &Call) -> bool {
        call.dry_run || !self.dry_run.is_empty()
    }

    fn precondition(&self) -> Result<Precondition, Fault> {
        let Some(wanted) = &self.preconditions else { return Ok(Precondition::exists()) };
        let number =
            |text: &String| text.parse().map_err(|_| Fault::bad_request(format!("{text:?} is not a resourceVersion of this server")));
        Ok(Precondition { uid: wanted.uid.clone(), revision: wanted.resource_version.as_ref().map(number).transpose()? })
    }

    /// Kubernetes' own words where a precondition does not hold.
    fn holds(&self, current: &Object) -> Result<(), Fault> {
        let refuse = |what: &str, wanted: &str, found: &str, why: &str| {
            let text = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might have been {why}"
            );
            Err(Fault::conflict(current.kind(), &current.key().name, text))
        };
        let wanted = self.preconditions.as_ref();
        let version = current.meta().resource_version.as_deref().unwrap_or_default();
        match (wanted.and_then(|it| it.uid.as_deref()), wanted.and_then(|it| it.resource_version.as_deref())) {
            (Some(uid), _) if uid != current.uid() => refuse("UID", uid, current.uid(), "deleted and then recreated"),
            (_, Some(wanted)) if wanted != version => refuse("ResourceVersion", wanted, version, "modified"),
            _ => Ok(()),
        }
    }
}

/// Jobs came before there was a policy: who says nothing keeps their pods, and is warned.
const JOB_ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// What becomes of an object's dependents, and what to say of it.
fn dependents(kind: Kind, options: &DeleteOptions) -> (Dependents, Option<&'static str>) {
    match options.dependents() {
        Some(said) => (said, None),
        None if kind == Kind::Job => (Dependents::Orphan, Some(JOB_ORPHANS)),
        None => (Dependents::Background, None),
    }
}

/// Kinds whose deletion answers with the object, though it is gone.
fn answers_with_object(kind: Kind) -> bool {
    matches!(kind, Kind::Pod | Kind::Service | Kind::ServiceAccount)
}

/// Deletes one object.
pub async fn delete(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    if call.target.subresource.is_some() {
        return Err(Fault::method_not_allowed());
    }
    let options = DeleteOptions::read(call, bytes)?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let current = find(state, call)?;
        options.holds(&current)?;
        let asked = hooks::delete(state, call, &current, options.value(call), options.is_dry(call)).await?;
        match delete_with(state, call, &options, StatusCode::OK, asked.then_some(current)).await? {
            // The webhooks have not seen what it is now.
            Err(CommitError::Conflict(Conflict::Revision { .. } | Conflict::Uid { .. })) if asked && attempt < TRIES => {}
            done => return Ok(done?),
        }
    }
}

/// `seen`: what alone may be deleted. The store's own error is told apart.
async fn delete_with(
    state: &ServerState,
    call: &Call,
    options: &DeleteOptions,
    code: StatusCode,
    seen: Option<Object>,
) -> Result<Result<Response, CommitError>, Fault> {
    let snapshot = state.store.snapshot();
    let (current, precondition) = match seen {
        Some(seen) => (seen.clone(), Precondition::seen(&seen)),
        None => (find(state, call)?, options.precondition()?),
    };
    options.holds(&current)?;
    let mut transaction = Transaction::new(&call.identity.user);
    transaction.dry_run = options.is_dry(call);
    transaction.writes = writes(&snapshot, &current, options, precondition);
    let mut committed = match state.store.commit(transaction).await {
        Ok(committed) => committed,
        Err(error) => return Ok(Err(error)),
    };
    let left = committed.results.pop().flatten().or_else(|| answers_with_object(current.kind()).then(|| current.clone()));
    let body = match left {
        Some(object) => Renderer::of(state, call).one(&object),
        None => success(call, &json!(current.uid())).into(),
    };
    let warning = dependents(current.kind(), options).1.map(str::to_owned);
    Ok(Ok(warned(json_response(code, body), warning.as_slice())))
}

/// The object's deletion comes last; before it, what its dependents need.
fn writes(snapshot: &Snapshot, current: &Object, options: &DeleteOptions, mut precondition: Precondition) -> Vec<Write> {
    let mut writes = Vec::new();
    match dependents(current.kind(), options).0 {
        Dependents::Background => {}
        Dependents::Orphan => {
            for dependent in snapshot.owned_by(current.uid()) {
                let freed = dependent.clone().edit_meta(|meta| {
                    meta.owner_references.iter_mut().for_each(|owners| owners.retain(|owner| owner.uid != current.uid()));
                });
                writes.push(Write::Update(freed, Precondition::seen(dependent)));
            }
        }
        Dependents::Foreground => {
            if snapshot.owned_by(current.uid()).next().is_some() {
                let held = current.clone().edit_meta(|meta| {
                    let finalizers = meta.finalizers.get_or_insert_default();
                    if !finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
                        finalizers.push(FOREGROUND.to_owned());
                    }
                });
                writes.push(Write::Update(held, precondition.clone()));
                precondition.revision = None;
            }
        }
    }
    writes.push(Write::Delete { key: current.key().clone(), precondition, grace_seconds: options.grace_period_seconds });
    writes
}

/// Deletes what a selection finds, as one transaction.
pub async fn delete_collection(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let options = DeleteOptions::read(call, bytes)?;
    let selection = Selection::parse(state.store.snapshot().definitions(), call.target.kind, &call.query)?;
    // Which version of each the webhooks let go.
    let mut passed = BTreeMap::new();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let snapshot = state.store.snapshot();
        let found = candidates(&snapshot, call.target.kind, &call.target.namespace, &selection);
        let objects: Vec<Object> = found.filter(|object| selection.matches(object)).cloned().collect();
        let mut transaction = Transaction::new(&call.identity.user);
        transaction.dry_run = options.is_dry(call);
        for object in &objects {
            if passed.get(object.key()) != Some(&object.revision())
                && hooks::delete(state, call, object, options.value(call), options.is_dry(call)).await?
            {
                passed.insert(object.key().clone(), object.revision());
            }
            let is_seen = passed.contains_key(object.key());
            let precondition = if is_seen { Precondition::seen(object) } else { options.precondition()? };
            transaction.writes.extend(writes(&snapshot, object, &options, precondition));
        }
        match state.store.commit(transaction).await {
            Err(CommitError::Conflict(Conflict::NotFound(_) | Conflict::Revision { .. } | Conflict::Uid { .. })) if attempt <= 5 => {}
            Err(error) => return Err(error.into()),
            Ok(committed) => {
                let meta = ListMeta { revision: committed.revision, ..ListMeta::default() };
                let renderer = Renderer::of(state, call);
                return Ok(json_response(StatusCode::OK, renderer.list(call.target.kind, &meta, &objects)));
            }
        }
    }
}

/// `pods/eviction`: a deletion; there are no disruption budgets to ask.
pub async fn evict(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let eviction = body::decode(&call.content_type, bytes)?.unwrap_or(Value::Null);
    let eviction = hooks::plain(state, call, Operation::Create, EVICTION, eviction, Value::Null).await?;
    let options = DeleteOptions::of_eviction(&eviction)?;
    let name = eviction["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    if name.is_some_and(|name| Some(name) != call.target.name.as_deref()) {
        return Err(Fault::bad_request("name in URL does not match name in Eviction object"));
    }
    delete_with(state, call, &options, StatusCode::CREATED, None).await??;
    Ok(json_response(StatusCode::CREATED, success(call, &Value::Null)))
}

/// `pods/binding`: the pod goes to a node.
pub async fn bind(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let binding = body::decode(&call.content_type, bytes)?.unwrap_or(Value::Null);
    let binding = hooks::plain(state, call, Operation::Create, BINDING, binding, Value::Null).await?;
    let current = find(state, call)?;
    let node = bound_to(call, &binding, &current)?;
    let now = Time(state.clock.now());
    let bound = current.edit::<Pod>(|pod| assign(pod, node, &binding["metadata"]));
    let scheduled = bound.as_ref().and_then(|bound| bound.edit::<Pod>(|pod| mark_scheduled(pod, now)));
    let (Some(bound), Some(scheduled)) = (bound, scheduled) else { return Err(Fault::no_such_path()) };
    let transaction = Transaction {
        writes: vec![Write::Update(bound, Precondition::seen(&current)), Write::UpdateStatus(scheduled, Precondition::exists())],
        dry_run: call.dry_run,
        ..Transaction::new(&call.identity.user)
    };
    let committed = state.store.commit(transaction).await?;
    answer(state, call, StatusCode::CREATED, &committed, &[]).map(|_| json_response(StatusCode::CREATED, success(call, &Value::Null)))
}

/// The node, where the Binding is about this pod and it has none yet (`pkg/registry/core/pod/storage`, `BindingREST`).
fn bound_to<'b>(call: &Call, binding: &'b Value, current: &Object) -> Result<&'b str, Fault> {
    let (meta, target) = (&binding["metadata"], &binding["target"]);
    let text = |value: &'b Value| value.as_str().filter(|text| !text.is_empty());
    let name = current.key().name.as_str();
    if text(&meta["name"]).is_some_and(|said| said != name) {
        return Err(Fault::bad_request("name in URL does not match name in Binding object"));
    }
    let mut errors = Errors::default();
    if text(&target["kind"]).is_some_and(|kind| kind != "Node") {
        errors.unsupported(&Path::root("target.kind"), &target["kind"], &["Node", "<empty>"]);
    }
    let node = text(&target["name"]);
    let Some(node) = node.filter(|_| errors.is_empty()) else {
        if node.is_none() {
            errors.required(&Path::root("target.name"), "");
        }
        return Err(Fault::invalid_value("Binding", "", name, &errors.into_vec()));
    };
    let conflict = |why: String| Err(Fault::conflict(call.target.kind, name, why));
    for (what, said, is) in [
        ("UID", text(&meta["uid"]), current.uid()),
        ("ResourceVersion", text(&meta["resourceVersion"]), current.meta().resource_version.as_deref().unwrap_or_default()),
    ] {
        if let Some(said) = said.filter(|said| *said != is) {
            return conflict(format!("Precondition failed: {what} in precondition: {said}, {what} in object meta: {is}"));
        }
    }
    let taken = current.get::<Pod>().and_then(|pod| pod.spec.as_ref()?.node_name.as_deref()).filter(|node| !node.is_empty());
    match taken {
        Some(taken) => conflict(format!("pod {name} is already assigned to node \"{taken}\"")),
        None => Ok(node),
    }
}

/// With the node come the labels and annotations of the Binding: what a scheduler chose on the node for the pod.
fn assign(pod: &mut Pod, node: &str, said: &Value) {
    pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
    for (field, all) in [("labels", &mut pod.metadata.labels), ("annotations", &mut pod.metadata.annotations)] {
        for (name, text) in said[field].as_object().into_iter().flatten() {
            all.get_or_insert_default().insert(name.clone(), text.as_str().unwrap_or_default().to_owned());
        }
    }
}

fn mark_scheduled(pod: &mut Pod, now: Time) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now),
        ..PodCondition::default()
    });
}
