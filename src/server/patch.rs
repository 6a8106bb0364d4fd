//! The four kinds of patches.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::fault::Fault;
use super::request::{APPLY, Call};
use super::write::{self, Besides, answer, commit, fill_identity, finish, is_heartbeat, write_of};
use super::{ServerState, body, operations, scale};
use crate::model::custom::Definitions;
use crate::model::ownership::{self, Applier, ManagedFields};
use crate::model::{Kind, Object, schema};
use crate::store::{CommitError, Conflict, Precondition, Write};

/// How often a patch is made anew on an object that changed meanwhile.
pub(super) const TRIES: usize = 10;

const TAKEN: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

const TAKEN_OF_CUSTOM: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// A patch, read but not carried out.
enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Patch {
    fn read(call: &Call, bytes: &Bytes) -> Result<Self, Fault> {
        match call.content_type.as_str() {
            "application/json-patch+json" => operations::read(bytes).map(Self::Json),
            "application/merge-patch+json" => body::json(bytes).map(Self::Merge),
            // No type says how a custom kind's lists merge.
            other @ "application/strategic-merge-patch+json" if call.target.kind.place().is_none() => {
                Err(Fault::unsupported_media_type(other, TAKEN_OF_CUSTOM))
            }
            "application/strategic-merge-patch+json" => body::json(bytes).map(Self::Strategic),
            APPLY => body::yaml(bytes).map(Self::Apply),
            other => Err(Fault::unsupported_media_type(other, TAKEN)),
        }
    }

    /// What it makes of a value. Applying is not here: it needs to know who owns what.
    fn on(&self, call: &Call, live: &Value) -> Result<Value, Fault> {
        let kind = call.target.kind;
        match self {
            Self::Json(patch) => {
                let mut value = live.clone();
                operations::carry_out(patch, &mut value)?;
                Ok(value)
            }
            Self::Merge(patch) => {
                let mut value = live.clone();
                json_patch::merge(&mut value, patch);
                Ok(value)
            }
            Self::Strategic(patch) | Self::Apply(patch) => {
                ownership::strategic_merge(kind, live, patch).map_err(|error| Fault::bad_request(error.to_string()))
            }
        }
    }
}

/// Patches an object, its status or its scale.
pub async fn patch(state: &ServerState, call: &Call, bytes: &Bytes) -> Result<Response, Fault> {
    let patch = Patch::read(call, bytes)?;
    let duplicates = write::duplicates(call, bytes);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let key = call.target.key().ok_or_else(Fault::no_such_path)?;
        let current = state.store.snapshot().get(&key).cloned();
        let outcome = match (&patch, call.target.subresource.as_deref(), current) {
            (Patch::Apply(applied), None, current) => apply(state, call, current.as_ref(), applied, &duplicates).await,
            (Patch::Apply(applied), Some("status" | "ephemeralcontainers" | "resize"), Some(current)) => {
                apply(state, call, Some(&current), applied, &duplicates).await
            }
            (_, _, None) => Err(Fault::not_found(key.kind, &key.name)),
            (_, Some("scale"), Some(current)) => {
                let value = patch.on(call, &scale::read(call.target.kind, &current, state.store.snapshot().definitions())?)?;
                let is_newest = value["metadata"]["resourceVersion"].as_str() == current.meta().resource_version.as_deref();
                let tried = write::rescale(state, call, &current, &value).await?;
                // A patch that says of which version it is means no other.
                if is_newest { Ok(tried) } else { Ok(Ok(tried?)) }
            }
            (_, _, Some(current)) => on_live(state, call, &current, &patch, &duplicates).await,
        }?;
        match outcome {
            Err(CommitError::Conflict(Conflict::Revision { .. } | Conflict::Exists(_))) if attempt < TRIES => {}
            Err(error) => return Err(error.into()),
            Ok(response) => return Ok(response),
        }
    }
}

/// A commit's own error is told apart: another try may do better.
type Tried = Result<Result<Response, CommitError>, Fault>;

async fn on_live(state: &ServerState, call: &Call, current: &Object, patch: &Patch, duplicates: &[String]) -> Tried {
    let live = current.value_in(call.target.kind);
    let mut value = patch.on(call, &live)?;
    for pinned in ["resourceVersion", "uid"] {
        let said = &value["metadata"][pinned];
        if *said != live["metadata"][pinned] && !said.is_null() && *said != "" && (pinned == "uid" || *said != "0") {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Fault::conflict(call.target.kind, &current.key().name, why));
        }
    }
    fill_identity(call, &mut value)?;
    let draft = finish(state, call, Some(current), value, Besides::plain(duplicates.to_vec()))?;
    bounded(&draft.object)?;
    let write = write_of(call, draft.object.clone(), Precondition::seen(current))?;
    let volatile = is_heartbeat(call, current, &draft.object);
    Ok(match commit(state, call, write, volatile).await? {
        Ok(committed) => Ok(answer(state, call, StatusCode::OK, &committed, &draft.warnings)?),
        Err(error) => Err(error),
    })
}

/// Patches add up: what no body could bring at once must not grow by many.
fn bounded(object: &Object) -> Result<(), Fault> {
    if object.json().len() > body::OBJECT_LIMIT { Err(Fault::too_large(body::OBJECT_LIMIT)) } else { Ok(()) }
}

/// Server-side apply, to an object or its status; creates an object that is not there.
async fn apply(state: &ServerState, call: &Call, current: Option<&Object>, applied: &Value, duplicates: &[String]) -> Tried {
    let kind = call.target.kind;
    if applied["metadata"].get("managedFields").is_some_and(|managed| !managed.is_null()) {
        return Err(Fault::bad_request("metadata.managedFields must be nil"));
    }
    let mut applied = applied.clone();
    fill_identity(call, &mut applied)?;
    declared(call, state.store.snapshot().definitions(), &applied)?;
    if current.is_none() {
        if applied["metadata"].get("uid").is_some() {
            return Err(Fault::not_found(kind, call.target.name.as_deref().unwrap_or_default()));
        }
        write::may_create(state, call)?;
    }
    let pinned = applied["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    if let (Some(current), Some(pinned)) = (current, pinned)
        && pinned.as_str() != current.meta().resource_version.as_deref()
    {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Fault::conflict(kind, &current.key().name, why));
    }
    let live = current.map(|current| current.value_in(call.target.kind));
    let served = state.store.snapshot();
    let managed = managed_before(served.definitions(), kind, current, live.as_ref());
    let subresource = call.target.subresource.as_deref().unwrap_or_default();
    let applier = Applier { manager: &call.manager, subresource, force: call.query.flag("force") };
    let (value, owners) =
        ownership::apply_as(served.definitions().shapes(kind), live.as_ref(), &managed, &applied, &applier).map_err(|conflicts| {
            let pairs: Vec<(String, String)> = conflicts.into_iter().map(|conflict| (conflict.whose(), conflict.path)).collect();
            Fault::apply_conflict(&pairs)
        })?;
    let draft = finish(state, call, current, value, Besides { owners: Some(owners), duplicates: duplicates.to_vec() })?;
    bounded(&draft.object)?;
    let (write, code) = match current {
        Some(current) => (write_of(call, draft.object.clone(), Precondition::seen(current))?, StatusCode::OK),
        None => (Write::Create(draft.object.clone()), StatusCode::CREATED),
    };
    Ok(match commit(state, call, write, false).await? {
        Ok(committed) => Ok(answer(state, call, code, &committed, &draft.warnings)?),
        Err(error) => Err(error),
    })
}

/// Who owns what of an object that is there. Where nobody is known to own anything, it is what was before the first apply
/// (`managedfields/internal/skipnonapplied.go`): who applies something else is told.
fn managed_before(served: &Definitions, kind: Kind, current: Option<&Object>, live: Option<&Value>) -> ManagedFields {
    let (Some(current), Some(live)) = (current, live) else { return ManagedFields::default() };
    let managed = ManagedFields::of(current.meta());
    if managed != ManagedFields::default() || !write::is_shared(kind) {
        return managed;
    }
    ownership::update(served.shapes(kind), None, live, &managed, "before-first-apply", "")
}

/// What is applied is owned: a field that no schema has cannot be, whatever `fieldValidation` says, nor one of another type,
/// which would be told as somebody else's where it is changed.
fn declared(call: &Call, served: &Definitions, applied: &Value) -> Result<(), Fault> {
    let (kind, target) = (call.target.kind, &call.target);
    let mut applied = applied.clone();
    schema::fill_nulls(kind, &mut applied);
    let findings = served.check(kind, &applied);
    let unknown = findings.iter().find(|it| matches!(it.fault, schema::Fault::Unknown { .. }));
    let wrong = || super::strict::wrong_type(served, kind, &applied).filter(|_| Object::from_value(kind, applied.clone()).is_err());
    let why = match unknown {
        Some(first) => format!("{}: field not declared in schema", first.path),
        None if findings.is_empty() => return Ok(()),
        None => match wrong() {
            Some(why) => why,
            None => return Ok(()),
        },
    };
    let (group_version, name) = (kind.api_version(), target.name.as_deref().unwrap_or_default());
    let object = format!("{}/{name}; {group_version}, Kind={kind}", target.namespace);
    Err(Fault::bad_request(format!("failed to create typed patch object ({object}): .{why}")))
}
