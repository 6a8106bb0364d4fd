//! Get and list.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::response::Response;
use base64::Engine as _;
use http::StatusCode;
use serde_json::{Value, json};

use super::fault::Fault;
use super::options::{At, ListOptions};
use super::render::{ListMeta, Renderer, json_response};
use super::request::Call;
use super::select::Selection;
use super::{ServerState, scale};
use crate::model::{Key, Kind, Object};
use crate::store::Snapshot;

/// The states that half-read lists go on from. Sharing makes each cheap to keep.
#[derive(Default)]
pub struct Pages(Mutex<VecDeque<Snapshot>>);

/// How many half-read lists may be open at once.
const OPEN_LISTS: usize = 32;

impl Pages {
    fn keep(&self, snapshot: &Snapshot) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.iter().any(|kept| kept.revision() == snapshot.revision()) {
            return;
        }
        if pages.len() == OPEN_LISTS {
            pages.pop_front();
        }
        pages.push_back(snapshot.clone());
    }

    fn find(&self, revision: u64) -> Option<Snapshot> {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.iter().find(|kept| kept.revision() == revision).cloned()
    }
}

/// One object, or its scale.
pub fn get(state: &ServerState, call: &Call) -> Result<Response, Fault> {
    let newest = state.store.snapshot().revision();
    if let Some(wanted) = call.query.number::<u64>("resourceVersion")?.filter(|&wanted| wanted > newest) {
        return Err(Fault::too_new(wanted, newest));
    }
    let object = find(state, call)?;
    match call.target.subresource.as_deref() {
        None | Some("status") => {}
        Some("ephemeralcontainers" | "resize") if object.kind() == Kind::Pod => {}
        Some("approval") if call.target.kind == Kind::CertificateSigningRequest => {}
        Some("scale") => {
            return Ok(json_response(
                StatusCode::OK,
                scale::read(call.target.kind, &object, state.store.snapshot().definitions())?.to_string(),
            ));
        }
        Some(_) => return Err(Fault::no_such_path()),
    }
    let renderer = Renderer::of(state, call);
    Ok(json_response(StatusCode::OK, renderer.one(&object)))
}

/// The object a call names.
pub fn find(state: &ServerState, call: &Call) -> Result<Object, Fault> {
    let key = call.target.key().ok_or_else(Fault::no_such_path)?;
    let found = state.store.snapshot().get(&key).cloned();
    found.ok_or_else(|| Fault::not_found(key.kind, &key.name))
}

/// A list, whole or page by page.
pub fn list(state: &ServerState, call: &Call) -> Result<Response, Fault> {
    let kind = call.target.kind;
    let selection = Selection::parse(state.store.snapshot().definitions(), kind, &call.query)?;
    let options = ListOptions::read(&call.query)?;
    let (snapshot, after) = match &options.at {
        At::Page(token) => resume(state, token)?,
        at => (at_revision(state, at)?, None),
    };
    let mut objects: Vec<Object> = candidates(&snapshot, kind, &call.target.namespace, &selection)
        .filter(|object| after.as_ref().is_none_or(|after| object.key() > after))
        .filter(|object| selection.matches(object))
        .cloned()
        .collect();
    let mut meta = ListMeta { revision: snapshot.revision(), ..ListMeta::default() };
    if let Some(limit) = options.limit.filter(|&limit| objects.len() > limit) {
        // Kubernetes does not count what it would have to select first.
        meta.remaining = selection.is_everything().then(|| objects.len() - limit);
        objects.truncate(limit);
        meta.next = objects.last().map(|last| token(Some(snapshot.revision()), last.key()));
        state.pages.keep(&snapshot);
    }
    let renderer = Renderer::of(state, call);
    Ok(json_response(StatusCode::OK, renderer.list(kind, &meta, &objects)))
}

/// The objects an index leaves over; the selection still has to match.
pub fn candidates<'a>(
    snapshot: &'a Snapshot,
    kind: Kind,
    namespace: &'a str,
    selection: &'a Selection,
) -> Box<dyn Iterator<Item = &'a Object> + 'a> {
    if kind == Kind::Pod
        && let Some(node) = selection.field("spec.nodeName").filter(|node| !node.is_empty())
    {
        return Box::new(snapshot.pods_on(node).filter(move |pod| namespace.is_empty() || pod.key().namespace == namespace));
    }
    if namespace.is_empty() { Box::new(snapshot.list(kind)) } else { Box::new(snapshot.list_in(kind, namespace)) }
}

fn at_revision(state: &ServerState, at: &At) -> Result<Snapshot, Fault> {
    let snapshot = state.store.snapshot();
    let newest = snapshot.revision();
    match *at {
        At::NotOlderThan(wanted) | At::Exact(wanted) if wanted > newest => Err(Fault::too_new(wanted, newest)),
        At::Exact(wanted) => past(state, snapshot, wanted)
            .ok_or_else(|| Fault::expired(format!("The provided resource version is too old: {wanted} ({newest})"))),
        At::NotOlderThan(_) | At::Newest | At::Page(_) => Ok(snapshot),
    }
}

/// The state of a revision, as far back as the history goes: the newest one, with every change since
/// then taken back.
fn past(state: &ServerState, newest: Snapshot, wanted: u64) -> Option<Snapshot> {
    if wanted == newest.revision() {
        return Some(newest);
    }
    if let Some(kept) = state.pages.find(wanted) {
        return Some(kept);
    }
    let mut since = state.store.watch(wanted).ok()?;
    let mut batches = Vec::new();
    while let Some(batch) = since.passed().ok()?.filter(|batch| batch.revision <= newest.revision()) {
        batches.push(batch);
    }
    let mut snapshot = newest;
    for change in batches.iter().rev().flat_map(|batch| batch.changes.iter().rev()) {
        snapshot.take_back(change);
    }
    Some(snapshot.at_revision(wanted))
}

/// A `continue` token. Without a revision it goes on in whatever state is the newest then.
fn token(revision: Option<u64>, last: &Key) -> String {
    let token =
        json!({"rv": revision, "namespace": last.namespace, "name": last.name, "kind": last.kind.name(), "of": last.kind.api_version()});
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
}

const PAGE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response to retrieve \
    the rest, which may then lack objects of the first list or hold ones that came later.";

fn resume(state: &ServerState, text: &str) -> Result<(Snapshot, Option<Key>), Fault> {
    let wrong = || Fault::bad_request("continue key is not valid");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let text = |field: &str| value[field].as_str().ok_or_else(wrong);
    let current = state.store.snapshot();
    let kind = current
        .definitions()
        .kind_of(text("of")?, text("kind")?)
        .or_else(|| Kind::known(text("of").ok()?, text("kind").ok()?))
        .ok_or_else(wrong)?;
    let after = Key::new(kind, text("namespace")?, text("name")?);
    let newest = current;
    let snapshot = match &value["rv"] {
        Value::Null => newest,
        revision => {
            let revision = revision.as_u64().filter(|&revision| revision <= newest.revision()).ok_or_else(wrong)?;
            let expired = || Fault { next: Some(token(None, &after)), ..Fault::expired(PAGE_EXPIRED) };
            past(state, newest, revision).ok_or_else(expired)?
        }
    };
    Ok((snapshot, Some(after)))
}
