//! Create and update, and what every write has in common: its identity, its strictness, its owner.

use std::collections::BTreeSet;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, MicroTime, ObjectMeta, Time};
use serde_json::{Value, json};

use super::authorise::LEASE_NAMESPACE;
use super::fault::Fault;
use super::hooks::plan::{Names, Operation};
use super::options::FieldValidation;
use super::patch::TRIES;
use super::render::{Renderer, json_response};
use super::request::{APPLY, Call, Verb};
use super::{ServerState, authorise, body, certificates, hooks, scale};
use crate::admit::{self, pod_security};
use crate::model::custom::{Definitions, prune};
use crate::model::ownership::{self, ManagedFields};
use crate::model::{Errors, Kind, Object, Path, convert, copy_stamps, schema, validate};
use crate::store::{CommitError, Committed, Conflict, PodPart, Precondition, Transaction, Write};

/// What a write is about to store, and what to tell the caller besides.
pub struct Draft {
    pub object: Object,
    pub warnings: Vec<String>,
}

/// Stores a new object.
pub async fn create(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let mut value = body::decode(&call.content_type, bytes)?.ok_or_else(|| Fault::bad_request("the request has no body"))?;
    fill_identity(call, &mut value)?;
    if value["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Fault::bad_request("resourceVersion should not be set on objects to be created"));
    }
    create_value(state, call, value, duplicates(call, bytes)).await
}

async fn create_value(state: &ServerState, call: &Call, mut value: Value, duplicates: Vec<String>) -> Result<Response, Fault> {
    let metadata = &mut value["metadata"];
    if let Some(metadata) = metadata.as_object_mut() {
        for stamped in
            ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"]
        {
            metadata.remove(stamped);
        }
    }
    let prefix = metadata["generateName"].as_str().filter(|prefix| !prefix.is_empty()).map(str::to_owned);
    let generates = prefix.filter(|_| metadata["name"].as_str().unwrap_or_default().is_empty());
    let mut attempt = 0;
    loop {
        attempt += 1;
        if let Some(prefix) = &generates {
            value["metadata"]["name"] = generated(prefix).into();
        }
        let draft = finish(state, call, None, value.clone(), Besides::plain(duplicates.clone()))?;
        match commit(state, call, Write::Create(draft.object.clone()), false).await? {
            Err(CommitError::Conflict(Conflict::Exists(_))) if generates.is_some() && attempt <= 8 => {}
            Err(error) => return Err(error.into()),
            Ok(committed) => return answer(state, call, StatusCode::CREATED, &committed, &draft.warnings),
        }
    }
}

/// Kinds that a PUT makes where there is none yet.
fn is_made_by_update(call: &Call, value: &Value) -> bool {
    let unversioned = matches!(value["metadata"]["resourceVersion"].as_str(), None | Some("" | "0"));
    matches!(call.target.kind.stored(), Kind::Service | Kind::Lease | Kind::Event) && call.target.subresource.is_none() && unversioned
}

fn generated(prefix: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let prefix: String = prefix.chars().take(58).collect();
    let suffix: String = (0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect();
    format!("{prefix}{suffix}")
}

/// Replaces an object, its status, or its scale.
pub async fn update(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let mut value = body::decode(&call.content_type, bytes)?.ok_or_else(|| Fault::bad_request("the request has no body"))?;
    let mut current = match super::read::find(state, call) {
        Err(fault) if fault.code == 404 && is_made_by_update(call, &value) => {
            may_create(state, call)?;
            fill_identity(call, &mut value)?;
            return create_value(state, call, value, duplicates(call, bytes)).await;
        }
        found => found?,
    };
    if call.target.subresource.as_deref() == Some("scale") {
        return replace_scale(state, call, current, &value).await;
    }
    fill_identity(call, &mut value)?;
    let said = precondition(call, &value["metadata"])?;
    if said.revision.is_none() && !may_be_replaced_unseen(call.target.kind) {
        let mut errors = Errors::default();
        errors.invalid(&Path::root("metadata.resourceVersion"), &0, "must be specified for an update");
        return Err(Fault::invalid(call.target.kind, &current.key().name, &errors.into_vec()));
    }
    let duplicates = duplicates(call, bytes);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let draft = finish(state, call, Some(&current), value.clone(), Besides::plain(duplicates.clone()))?;
        // What was looked at is what is replaced, also where the body names no version.
        let seen = Precondition { uid: said.uid.clone(), revision: said.revision.or(Some(current.revision())) };
        let write = write_of(call, draft.object.clone(), seen)?;
        let volatile = is_heartbeat(call, &current, &draft.object);
        match commit(state, call, write, volatile).await? {
            Err(CommitError::Conflict(Conflict::Revision { .. })) if said.revision.is_none() && attempt < TRIES => {
                current = super::read::find(state, call)?;
            }
            Err(error) => return Err(error.into()),
            Ok(committed) => return answer(state, call, StatusCode::OK, &committed, &draft.warnings),
        }
    }
}

/// Whether an update may say nothing of the version that it is of: a Lease that was taken meanwhile is not to be had so
/// (`AllowUnconditionalUpdate` of Kubernetes' strategies).
fn may_be_replaced_unseen(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Custom(_)
            | Kind::Source
            | Kind::Lease
            | Kind::CustomResourceDefinition
            | Kind::RuntimeClass
            | Kind::CSIDriver
            | Kind::CSINode
            | Kind::MutatingWebhookConfiguration
            | Kind::ValidatingWebhookConfiguration
    )
}

/// What an update or an apply to an object that is not there needs besides.
pub fn may_create(state: &ServerState, call: &Call) -> Result<(), Fault> {
    let attempt = authorise::Attempt { verb: Verb::Create, ..authorise::Attempt::of(call) };
    authorise::authorise(&call.identity, &attempt, &state.store.snapshot())
        .map_err(|message| Fault::forbidden_object(attempt.kind, attempt.name.unwrap_or_default(), message))
}

/// What `scale` takes.
const SCALE: Names = ["autoscaling", "v1", "Scale"];

/// Sets the number of replicas, whatever else changes meanwhile, if the body does not say of which version it is.
async fn replace_scale(state: &ServerState, call: &Call, mut current: Object, wanted: &Value) -> Result<Response, Fault> {
    let is_pinned = precondition(call, &wanted["metadata"])?.revision.is_some();
    let mut attempt = 0;
    loop {
        attempt += 1;
        match rescale(state, call, &current, wanted).await? {
            Err(CommitError::Conflict(Conflict::Revision { .. })) if !is_pinned && attempt < TRIES => {
                current = super::read::find(state, call)?;
            }
            done => return Ok(done?),
        }
    }
}

/// Sets the number of replicas of the object as it was seen. The store's own error is told apart.
pub async fn rescale(state: &ServerState, call: &Call, current: &Object, wanted: &Value) -> Result<Result<Response, CommitError>, Fault> {
    let scale = scale::wanted(&current.key().name, wanted)?;
    let warnings = strictly(call, "Scale", "v1", scale.warnings)?;
    let precondition = precondition(call, &wanted["metadata"])?;
    let served = state.store.snapshot();
    let before = scale::read(call.target.kind, current, served.definitions())?;
    let mut after = before.clone();
    after["spec"]["replicas"] = scale.replicas.into();
    let after = hooks::plain(state, call, Operation::Update, SCALE, after, before).await?;
    let scale = scale::wanted(&current.key().name, &after)?;
    let scaled = scale::write(call.target.kind, current, scale.replicas, served.definitions())?;
    let owned = own(state, call, Some(current), scaled, None);
    // The whole object is written, and webhooks may have taken their time.
    let precondition = Precondition { revision: precondition.revision.or(Some(current.revision())), ..precondition };
    let committed = match store(state, call, Write::Update(owned, precondition), false).await {
        Ok(committed) => committed,
        Err(error) => return Ok(Err(error)),
    };
    let object = committed.results.into_iter().flatten().next().ok_or_else(|| Fault::internal("the scaled object is gone"))?;
    let scaled = scale::read(call.target.kind, &object, served.definitions())?;
    Ok(Ok(warned(json_response(StatusCode::OK, scaled.to_string()), &warnings)))
}

/// The write for the object or the subresource a call names.
pub fn write_of(call: &Call, object: Object, precondition: Precondition) -> Result<Write, Fault> {
    match call.target.subresource.as_deref() {
        None => Ok(Write::Update(object, precondition)),
        Some("finalize") if call.target.kind == Kind::Namespace => Ok(Write::Update(object, precondition)),
        Some("ephemeralcontainers") if call.target.kind == Kind::Pod => {
            Ok(Write::UpdatePart(object, precondition, PodPart::EphemeralContainers))
        }
        Some("resize") if call.target.kind == Kind::Pod => Ok(Write::UpdatePart(object, precondition, PodPart::Resources)),
        Some("approval") if call.target.kind == Kind::CertificateSigningRequest => Ok(Write::UpdateStatus(object, precondition)),
        Some("status") if call.target.kind.info().has_status => Ok(Write::UpdateStatus(object, precondition)),
        Some(_) => Err(Fault::no_such_path()),
    }
}

/// What the body says must still be so.
fn precondition(call: &Call, metadata: &Value) -> Result<Precondition, Fault> {
    let text = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    // 0 was "any" before there were versions to compare.
    let revision = match text("resourceVersion").filter(|version| *version != "0") {
        Some(version) => {
            let name = call.target.name.as_deref().unwrap_or_default();
            let wrong = || Fault::conflict(call.target.kind, name, format!("{version:?} is not a resourceVersion of this server"));
            Some(version.parse().map_err(|_| wrong())?)
        }
        None => None,
    };
    Ok(Precondition { uid: text("uid").map(str::to_owned), revision })
}

/// Kind, name and namespace: the path's where the body says none, a 400 where they differ.
pub fn fill_identity(call: &Call, value: &mut Value) -> Result<(), Fault> {
    let (kind, target) = (call.target.kind, &call.target);
    if !value.is_object() {
        return Err(Fault::bad_request("the body is not an object"));
    }
    for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.name().to_owned())] {
        match value[field].as_str() {
            None | Some("") => value[field] = wanted.into(),
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(Fault::bad_request(format!("the {field} in the data ({found}) does not match the expected one ({wanted})")));
            }
        }
    }
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    let metadata = &mut value["metadata"];
    if kind.info().namespaced {
        match metadata["namespace"].as_str().filter(|namespace| !namespace.is_empty()) {
            Some(namespace) if namespace == target.namespace => {}
            Some(_) => {
                return Err(Fault::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
            }
            None if target.namespace.is_empty() => return Err(Fault::method_not_allowed()),
            None => metadata["namespace"] = target.namespace.clone().into(),
        }
    } else if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("namespace");
    }
    if let Some(wanted) = &target.name {
        match metadata["name"].as_str().filter(|name| !name.is_empty()) {
            Some(name) if name == wanted => {}
            Some(name) => {
                return Err(Fault::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({wanted})")));
            }
            None => metadata["name"] = wanted.clone().into(),
        }
    }
    Ok(())
}

/// What is known of a write besides the value.
#[derive(Default)]
pub struct Besides {
    /// What an apply made of ownership; `None`: a plain write.
    pub owners: Option<ManagedFields>,
    /// Sentences on fields that the body has twice.
    pub duplicates: Vec<String>,
}

impl Besides {
    pub fn plain(duplicates: Vec<String>) -> Self {
        Self { owners: None, duplicates }
    }
}

/// Fields that a JSON body has twice, if anybody wants to know.
pub fn duplicates(call: &Call, bytes: &[u8]) -> Vec<String> {
    match call.field_validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => super::strict::duplicate_fields(bytes),
    }
}

/// From a value to the object that is stored: strictness, decoding, rights, ownership.
pub fn finish(state: &ServerState, call: &Call, current: Option<&Object>, value: Value, besides: Besides) -> Result<Draft, Fault> {
    let served = state.store.snapshot();
    let mut warnings = check_fields(call, served.definitions(), &value, besides.duplicates)?;
    let object = refit(state, call, current, value)?;
    let object = restamp(state, current, own(state, call, current, object, besides.owners));
    if call.target.subresource.is_none() {
        warnings.extend(validate::warnings(object.typed(), current.map(Object::typed)));
        warnings.extend(pod_security::warnings(&object, current, &served));
    }
    Ok(Draft { object, warnings })
}

/// The part of a value that this call may write, as an object that this caller may write.
pub fn refit(state: &ServerState, call: &Call, current: Option<&Object>, mut value: Value) -> Result<Object, Fault> {
    let (asked, kind, served) = (call.target.kind, call.target.kind.stored(), state.store.snapshot());
    if let Some(version) = served.definitions().version(kind) {
        prune::prune(&version.schema, &mut value);
    }
    schema::fill_nulls(asked, &mut value);
    // Where it is said in another version than it is stored in: what is wrong is told as it was said.
    let said = asked.conversion().map(|_| value.clone());
    let mut value = convert::between(value, asked, kind);
    let subresource = call.target.subresource.as_deref();
    if let Some(current) = current {
        keep_other_part(call, current, &mut value, subresource);
        if subresource == Some("approval") && value["status"].is_object() {
            // Who approves does not sign.
            value["status"]["certificate"] = current.value()["status"]["certificate"].clone();
        }
    } else if kind.info().has_status
        // A kubelet registers with its status (`pkg/registry/core/node/strategy.go`).
        && kind != Kind::Node
        && let Some(object) = value.as_object_mut()
    {
        object.remove("status");
    }
    if current.is_none() && kind == Kind::CertificateSigningRequest && value["spec"].is_object() {
        let (who, spec) = (&call.identity, &mut value["spec"]);
        (spec["username"], spec["groups"]) = (who.user.as_str().into(), json!(who.groups));
        (spec["uid"], spec["extra"]) = (json!(who.uid), json!(who.extra));
    }
    let object = Object::from_value(kind, value.clone()).map_err(|error| {
        let said = said.as_ref().unwrap_or(&value);
        let why = super::strict::wrong_type(served.definitions(), asked, said).unwrap_or_else(|| error.source.to_string());
        let version = asked.info().version;
        Fault::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    })?;
    authorise::content(&call.identity, subresource, current, &object, &served).map_err(Fault::forbidden)?;
    if let (Some(current), Some(subresource)) = (current, subresource) {
        let errors = validate::validate_part(subresource, object.typed(), current.typed());
        if !errors.is_empty() {
            return Err(Fault::invalid(kind, &current.key().name, &errors));
        }
    }
    Ok(object)
}

/// A subresource changes its own part only, any other write everything but the status (and of a request for a certificate
/// the spec).
fn keep_other_part(call: &Call, current: &Object, value: &mut Value, subresource: Option<&str>) {
    let stored = current.value_in(call.target.kind.stored());
    if !call.target.kind.info().has_status {
        return;
    }
    if subresource == Some("resize") {
        return keep_all_but_resources(stored, value);
    }
    let part = match subresource {
        Some("status" | "approval") => Some("/status"),
        Some("ephemeralcontainers") => Some("/spec/ephemeralContainers"),
        _ => None,
    };
    if let Some(path) = part {
        let written = value.pointer_mut(path).map(Value::take).unwrap_or_default();
        let revision = value["metadata"]["resourceVersion"].take();
        let managed = value["metadata"]["managedFields"].take();
        let along: &[&str] = if subresource == Some("status") { admit::said_with_status(current.kind()) } else { &[] };
        let along: Vec<_> = along.iter().map(|field| (*field, value["metadata"][*field].take())).collect();
        *value = stored;
        along.into_iter().for_each(|(field, said)| value["metadata"][field] = said);
        *path.split('/').skip(1).fold(&mut *value, |at, step| &mut at[step]) = written;
        value["metadata"]["resourceVersion"] = revision;
        if !managed.is_null() {
            value["metadata"]["managedFields"] = managed;
        }
    } else if let Some(object) = value.as_object_mut() {
        // What was asked for, and by whom, stays as it is.
        let kept: &[&str] = if current.kind() == Kind::CertificateSigningRequest { &["status", "spec"] } else { &["status"] };
        for part in kept.iter().copied() {
            match stored.get(part) {
                Some(it) => object.insert(part.to_owned(), it.clone()),
                None => object.remove(part),
            };
        }
    }
}

/// Of each container only what it may use.
fn keep_all_but_resources(mut stored: Value, value: &mut Value) {
    for list in ["containers", "initContainers"] {
        let wanted = value["spec"].get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for container in stored["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(wanted) = wanted.iter().find(|it| it["name"] == container["name"]) else { continue };
            for field in ["resources", "resizePolicy"] {
                container[field] = wanted.get(field).cloned().unwrap_or_default();
            }
        }
    }
    for field in ["resourceVersion", "managedFields"] {
        if let Some(said) = value["metadata"].get(field).filter(|said| !said.is_null()) {
            stored["metadata"][field] = said.clone();
        }
    }
    *value = stored;
}

fn check_fields(call: &Call, served: &Definitions, value: &Value, mut found: Vec<String>) -> Result<Vec<String>, Fault> {
    if call.field_validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let kind = call.target.kind;
    found.extend(super::strict::unknown_fields(served, kind, value));
    strictly(call, kind.name(), kind.info().version, found)
}

/// What becomes of fields that no schema has or that are there twice.
fn strictly(call: &Call, kind: &str, version: &str, mut unknown: Vec<String>) -> Result<Vec<String>, Fault> {
    unknown.truncate(super::strict::MOST);
    match call.field_validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(unknown),
        FieldValidation::Strict if unknown.is_empty() => Ok(unknown),
        FieldValidation::Strict => {
            let listed = unknown.join(", ");
            Err(Fault::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {listed}")))
        }
    }
}

/// Kinds nobody shares: keeping track of who owns what would only make them larger.
pub fn is_shared(kind: Kind) -> bool {
    !matches!(kind.stored(), Kind::Lease | Kind::Event | Kind::EndpointSlice)
}

/// Writes down who owns what the object says now.
fn own(state: &ServerState, call: &Call, current: Option<&Object>, object: Object, applied: Option<ManagedFields>) -> Object {
    let kind = call.target.kind;
    if !is_shared(kind) {
        return object;
    }
    if call.identity.node_name().is_some() {
        let before = current.and_then(|current| current.meta().managed_fields.clone());
        return object.edit_meta(|meta| meta.managed_fields = before);
    }
    let subresource = call.target.subresource.as_deref().unwrap_or_default();
    let is_reset = current.is_some() && applied.is_none() && subresource.is_empty() && is_reset(object.meta());
    let managed = applied.unwrap_or_else(|| {
        let said = ManagedFields::of(object.meta());
        let stored = || current.map(|current| ManagedFields::of(current.meta())).unwrap_or_default();
        let base = if said.owners.is_empty() && !is_reset { stored() } else { said };
        let before = current.map(|current| current.value_in(kind));
        let served = state.store.snapshot();
        ownership::update(served.definitions().shapes(kind), before.as_ref(), &object.value_in(kind), &base, &call.manager, subresource)
    });
    owned(state, object, &managed, is_reset)
}

/// Whether a write asks for what is written down of owners to be forgotten: with one empty entry (Kubernetes: Server-Side
/// Apply, Clearing managedFields). What it changes besides is its own. No entry at all is no wish.
fn is_reset(meta: &ObjectMeta) -> bool {
    matches!(meta.managed_fields.as_deref(), Some([only]) if *only == ManagedFieldsEntry::default())
}

/// What webhooks changed belongs to whoever asked for the write. Who applies owns what was applied, whatever became of it:
/// as another owner's it could not be applied again (Kubernetes asks after ownership is settled, `handlers/patch.go`).
pub fn own_changes(state: &ServerState, call: &Call, before: &Object, after: Object) -> Object {
    let owners = before.meta().managed_fields.clone();
    if !is_shared(call.target.kind) || call.identity.node_name().is_some() || call.content_type == APPLY {
        return after.edit_meta(|meta| meta.managed_fields = owners);
    }
    let subresource = call.target.subresource.as_deref().unwrap_or_default();
    let served = state.store.snapshot();
    let kind = call.target.kind;
    let (shapes, base) = (served.definitions().shapes(kind), ManagedFields::of(before.meta()));
    let (was, is) = (before.value_in(kind), after.value_in(kind));
    let managed = ownership::update(shapes, Some(&was), &is, &base, &call.manager, subresource);
    // A reset that left nothing stays one.
    owned(state, after, &managed, owners.is_some_and(|owners| owners.is_empty()))
}

/// With these owners. A `reset` that leaves none says so: no word of them would keep the stored ones.
fn owned(state: &ServerState, object: Object, managed: &ManagedFields, reset: bool) -> Object {
    let mut entries = managed.to_entries().or_else(|| reset.then(Vec::new));
    for entry in entries.iter_mut().flatten() {
        entry.time.get_or_insert_with(|| Time(seconds(state)));
    }
    object.edit_meta(|meta| meta.managed_fields = entries)
}

/// `now`, as Kubernetes' times have it: whole seconds.
fn seconds(state: &ServerState) -> crate::model::Timestamp {
    let now = state.clock.now();
    crate::model::Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A node's lease that was renewed was renewed when it got here, whatever the node's clock says and whoever sets ours.
fn restamp(state: &ServerState, current: Option<&Object>, object: Object) -> Object {
    if object.key().namespace != LEASE_NAMESPACE {
        return object;
    }
    let renewed = |object: &Object| object.get::<Lease>().and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
    let Some(time) = renewed(&object) else { return object };
    if current.and_then(renewed) == Some(time) {
        return object;
    }
    let now = state.clock.steady();
    let stamped = object.edit::<Lease>(|lease| lease.spec.get_or_insert_default().renew_time = Some(MicroTime(now)));
    stamped.unwrap_or(object)
}

/// Whether a write may be lost at a restart: a lease that is renewed and no more, or a node's status with new times only.
pub fn is_heartbeat(call: &Call, current: &Object, wanted: &Object) -> bool {
    match call.target.kind {
        Kind::Lease => unrenewed(current) == unrenewed(wanted),
        Kind::Node if call.target.subresource.as_deref() == Some("status") => timeless(current) == timeless(wanted),
        _ => false,
    }
}

/// A lease without the time of its renewal, and without what every write changes.
fn unrenewed(lease: &Object) -> Option<Lease> {
    let mut lease = lease.get::<Lease>()?.clone();
    (lease.metadata.resource_version, lease.metadata.managed_fields) = (None, None);
    if let Some(spec) = &mut lease.spec {
        spec.renew_time = None;
    }
    Some(lease)
}

/// A node's status without the times of its heartbeats, and with what is written along with it.
fn timeless(node: &Object) -> Option<Node> {
    let node = node.get::<Node>()?;
    let metadata = ObjectMeta {
        labels: node.metadata.labels.clone().filter(|labels| !labels.is_empty()),
        annotations: node.metadata.annotations.clone().filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    };
    let mut status = node.status.clone().unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    Some(Node { metadata, status: Some(status), ..Node::default() })
}

/// Commits one write if the webhooks let it pass. The store's own error is told apart: another try may do better.
pub async fn commit(state: &ServerState, call: &Call, write: Write, volatile: bool) -> Result<Result<Committed, CommitError>, Fault> {
    match hooks::write(state, call, write).await? {
        Ok(write) => Ok(store(state, call, write, volatile).await),
        Err(error) => Ok(Err(error)),
    }
}

/// Commits one write, and what follows from it for a request for a certificate.
async fn store(state: &ServerState, call: &Call, write: Write, volatile: bool) -> Result<Committed, CommitError> {
    let (written, before) = (write.object().cloned(), state.store.snapshot().get(write.key()).cloned());
    let transaction = Transaction { writes: vec![write], volatile, dry_run: call.dry_run, writer: call.identity.user.clone() };
    let mut committed = state.store.commit(transaction).await?;
    if call.target.kind == Kind::CertificateSigningRequest && !call.dry_run {
        for object in committed.results.iter().flatten() {
            certificates::settle(state, object.key()).await?;
        }
    }
    if let ([gone @ None], Some(written), Some(before)) = (committed.results.as_mut_slice(), written, before) {
        *gone = Some(last(written, &before));
    }
    Ok(committed)
}

/// An object as the update says it that took its last finalizer: whoever wrote it expects it in the answer, though it is
/// gone (Kubernetes' `registry/generic/registry/store.go`, `deleteWithoutFinalizers`), in the version that it had.
fn last(written: Object, before: &Object) -> Object {
    let old = before.meta();
    written.edit_meta(|meta| {
        copy_stamps(meta, old);
        meta.uid.clone_from(&old.uid);
    })
}

/// The written object.
pub fn answer(state: &ServerState, call: &Call, code: StatusCode, committed: &Committed, warnings: &[String]) -> Result<Response, Fault> {
    let renderer = Renderer::of(state, call);
    let object = committed.results.iter().flatten().next_back().ok_or_else(|| Fault::internal("nothing was written"))?;
    let body = if call.dry_run { renderer.one(&as_stored(state, object)) } else { renderer.one(object) };
    Ok(warned(json_response(code, body), warnings))
}

/// Of all warnings of an answer: clients refuse a longer head. Kubernetes' bounds.
const WARNINGS_BYTES: usize = 4096;
/// Of one, where they are too long together.
pub const WARNING_CHARS: usize = 256;

/// The same answer with `Warning` headers (RFC 9110, 5.5, as Kubernetes fills them): each once, and not more than a client
/// reads.
pub fn warned(mut response: Response, warnings: &[String]) -> Response {
    let mut said = BTreeSet::new();
    let limit = if warnings.iter().map(String::len).sum::<usize>() > WARNINGS_BYTES { WARNING_CHARS } else { usize::MAX };
    let mut room = WARNINGS_BYTES;
    for warning in warnings.iter().filter(|warning| said.insert(*warning)) {
        let text: String = warning.chars().take(limit).collect();
        let Some(left) = room.checked_sub(text.len()) else { break };
        room = left;
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// A dry run gives no new version: the object shows the one that is stored, or none.
fn as_stored(state: &ServerState, object: &Object) -> Object {
    let version = state.store.snapshot().get(object.key()).and_then(|stored| stored.meta().resource_version.clone());
    object.clone().edit_meta(|meta| meta.resource_version = version)
}

/// `Status` of a success without an object.
pub fn success(call: &Call, uid: &Value) -> String {
    let info = call.target.kind.info();
    let mut details = json!({"name": call.target.name, "kind": info.plural});
    if !info.group.is_empty() {
        details["group"] = info.group.into();
    }
    if !uid.is_null() {
        details["uid"] = uid.clone();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_no_heartbeat() {
        let node = |labels: Value, time: &str| {
            let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": time});
            let node = json!({"metadata": {"name": "n", "labels": labels}, "status": {"conditions": [condition]}});
            Object::from_value(Kind::Node, node).expect("a node")
        };
        let first = timeless(&node(json!({}), "2026-01-01T00:00:00Z"));
        assert_eq!(first, timeless(&node(Value::Null, "2026-01-01T00:05:00Z")));
        assert_ne!(first, timeless(&node(json!({"a": "b"}), "2026-01-01T00:00:00Z")), "it is to be kept");
    }

    #[test]
    fn a_client_is_told_what_it_can_read() {
        let told = |warnings: &[String]| {
            let response = warned(Response::default(), warnings);
            response.headers().get_all(header::WARNING).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let twice = [r#"unknown field "a""#, r#"unknown field "a""#, "b"].map(str::to_owned);
        assert_eq!(told(&twice), [r#"299 - "unknown field \"a\"""#, r#"299 - "b""#]);
        // More headers than an answer may have.
        let many: Vec<_> = (0..40_000).map(|number| format!("unknown field \"{number}\"")).collect();
        let total: usize = told(&many).iter().map(String::len).sum();
        assert!((2048..2 * WARNINGS_BYTES).contains(&total), "{total}");
        assert_eq!(told(&["x".repeat(1 << 20)]), [format!("299 - \"{}\"", "x".repeat(WARNING_CHARS))]);
    }
}
