//! The four kinds of patches.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::fault::Fault;
use super::request::Call;
use super::write::{self, answer, commit, fill_identity, finish, is_heartbeat, write_of};
use super::{ServerState, body, operations, scale};
use crate::model::Object;
use crate::model::ownership::{self, ManagedFields};
use crate::store::{CommitError, Conflict, Precondition, Write};

/// How often a patch is made anew on an object that changed meanwhile.
const TRIES: usize = 10;

const TAKEN: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

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
            "application/strategic-merge-patch+json" => body::json(bytes).map(Self::Strategic),
            "application/apply-patch+yaml" => body::yaml(bytes).map(Self::Apply),
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
    for attempt in 1.. {
        let key = call.target.key().ok_or_else(Fault::no_such_path)?;
        let current = state.store.snapshot().get(&key).cloned();
        let outcome = match (&patch, call.target.subresource.as_deref(), current) {
            (Patch::Apply(applied), None, current) => apply(state, call, current.as_ref(), applied).await,
            (_, _, None) => Err(Fault::not_found(key.kind, &key.name)),
            (_, Some("scale"), Some(current)) => {
                let value = patch.on(call, &scale::read(&current)?)?;
                write::rescale(state, call, &current, &value).await.map(Ok)
            }
            (_, _, Some(current)) => on_live(state, call, &current, &patch).await,
        }?;
        match outcome {
            Err(CommitError::Conflict(Conflict::Revision { .. } | Conflict::Exists(_))) if attempt < TRIES => {}
            Err(error) => return Err(error.into()),
            Ok(response) => return Ok(response),
        }
    }
    unreachable!("the loop ends with an answer")
}

/// A commit's own error is told apart: another try may do better.
type Tried = Result<Result<Response, CommitError>, Fault>;

async fn on_live(state: &ServerState, call: &Call, current: &Object, patch: &Patch) -> Tried {
    let live = current.value();
    let mut value = patch.on(call, &live)?;
    for pinned in ["resourceVersion", "uid"] {
        if value["metadata"][pinned] != live["metadata"][pinned] && !value["metadata"][pinned].is_null() {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Fault::conflict(call.target.kind, &current.key().name, why));
        }
    }
    fill_identity(call, &mut value)?;
    let draft = finish(state, call, Some(current), value, None)?;
    bounded(&draft.object)?;
    let write = write_of(call, draft.object.clone(), Precondition::seen(current))?;
    let volatile = is_heartbeat(call, current, &draft.object);
    Ok(match commit(state, call, write, volatile).await {
        Ok(committed) => Ok(answer(state, call, StatusCode::OK, &committed, &draft.warnings)?),
        Err(error) => Err(error),
    })
}

/// Patches add up: what no body could bring at once must not grow by many.
fn bounded(object: &Object) -> Result<(), Fault> {
    if object.json().len() > body::OBJECT_LIMIT { Err(Fault::too_large(body::OBJECT_LIMIT)) } else { Ok(()) }
}

/// Server-side apply; creates what is not there.
async fn apply(state: &ServerState, call: &Call, current: Option<&Object>, applied: &Value) -> Tried {
    let manager = call.query.get("fieldManager").ok_or_else(|| Fault::bad_request("fieldManager is required for apply patch"))?;
    if applied["metadata"].get("managedFields").is_some_and(|managed| !managed.is_null()) {
        return Err(Fault::bad_request("metadata.managedFields must be nil"));
    }
    let mut applied = applied.clone();
    fill_identity(call, &mut applied)?;
    if current.is_none() && applied["metadata"].get("uid").is_some() {
        return Err(Fault::not_found(call.target.kind, call.target.name.as_deref().unwrap_or_default()));
    }
    let pinned = applied["metadata"].as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
    if let (Some(current), Some(pinned)) = (current, pinned)
        && pinned.as_str() != current.meta().resource_version.as_deref()
    {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Fault::conflict(call.target.kind, &current.key().name, why));
    }
    let live = current.map(Object::value);
    let managed = current.map(|object| ManagedFields::of(object.meta())).unwrap_or_default();
    let kind = call.target.kind;
    let (value, owners) =
        ownership::apply(kind, live.as_ref(), &managed, &applied, manager, call.query.flag("force")).map_err(|conflicts| {
            let pairs: Vec<(String, String)> = conflicts.into_iter().map(|conflict| (conflict.manager, conflict.path)).collect();
            Fault::apply_conflict(&pairs)
        })?;
    let draft = finish(state, call, current, value, Some(owners))?;
    bounded(&draft.object)?;
    let (write, code) = match current {
        Some(current) => (Write::Update(draft.object.clone(), Precondition::seen(current)), StatusCode::OK),
        None => (Write::Create(draft.object.clone()), StatusCode::CREATED),
    };
    Ok(match commit(state, call, write, false).await {
        Ok(committed) => Ok(answer(state, call, code, &committed, &draft.warnings)?),
        Err(error) => Err(error),
    })
}
