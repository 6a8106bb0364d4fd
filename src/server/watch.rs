//! Watches: one JSON line an event, for as long as the caller listens.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::fault::Fault;
use super::options::WatchOptions;
use super::read::candidates;
use super::render::{Renderer, json_response, line};
use super::request::Call;
use super::select::Selection;
use super::tally::Counted;
use super::{ServerState, nodes};
use crate::clock::Clock;
use crate::model::{Key, Kind, Object};
use crate::store::{Batch, Change, Snapshot, TooOld, Watch};
use crate::tls::Peer;

/// Without `timeoutSeconds` a watch ends after this and a random part of it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// However long somebody wants to watch.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A chunk of initial events is cut here.
const CHUNK: usize = 256 * 1024;

/// Starts a watch. `peer`: the certificate it is watched with, which may be revoked meanwhile.
pub fn watch(state: &ServerState, call: &Call, peer: Option<&Peer>) -> Result<Response, Fault> {
    let filter = Filter {
        kind: call.target.kind,
        namespace: call.target.namespace.clone(),
        selection: Selection::parse(state.store.snapshot().definitions(), call.target.kind, &call.query)?,
    };
    let defined_at = state.store.snapshot().revision();
    let renderer = Renderer::of(state, call);
    let WatchOptions { revision, initial, bookmarks, timeout } = WatchOptions::read(&call.query)?;
    let timeout = match timeout {
        Some(seconds) => Duration::from_secs(seconds).min(LONGEST),
        None => DEFAULT_TIMEOUT.mul_f64(1.0 + rand::random::<f64>()),
    };
    let snapshot = state.store.snapshot();
    let newest = snapshot.revision();
    if initial.is_some() && revision > newest {
        return Err(Fault::too_new(revision, newest));
    }
    let starts_anew = initial == Some(true) || (initial.is_none() && revision == 0);
    let from = if starts_anew || revision == 0 { newest } else { revision };
    let opened = if revision > newest { Err(TooOld { asked: revision, oldest: newest }) } else { state.store.watch(from) };
    let opened = opened.map_err(|old| too_old(&old));
    let watch = match opened {
        Ok(watch) => watch,
        Err(event) => return Ok(json_response(StatusCode::OK, event)),
    };
    let mut stream = Stream {
        watch,
        filter,
        renderer,
        clock: Arc::clone(&state.clock),
        defined_at,
        deadline: Instant::now() + timeout,
        bookmark: Instant::now() + BOOKMARK_EVERY,
        bookmarks,
        headed: false,
        ready: VecDeque::new(),
        over: false,
        _counted: state.tally.watch(),
        certificate: call.identity.node_name().zip(peer).map(|(node, peer)| (nodes::record_key(node), peer.serial.clone())),
    };
    if starts_anew {
        stream.initial(&snapshot, initial == Some(true));
    }
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((Ok::<Bytes, Infallible>(chunk), stream))
    });
    Ok(json_response(StatusCode::OK, Body::from_stream(chunks)))
}

/// The event that tells the caller to list again.
fn too_old(old: &TooOld) -> Vec<u8> {
    let fault = Fault::expired(format!("too old resource version: {} ({})", old.asked, old.oldest));
    line("ERROR", fault.status().to_string().as_bytes())
}

/// Which objects a watch shows.
struct Filter {
    kind: Kind,
    namespace: String,
    selection: Selection,
}

impl Filter {
    fn shows(&self, object: Option<&Object>) -> bool {
        object.is_some_and(|object| self.selection.matches(object))
    }

    /// What a change looks like through the selectors: an object that leaves them is deleted, one
    /// that enters is added.
    fn event(&self, change: &Change, revision: u64) -> Option<(&'static str, Object)> {
        let key = change.key();
        if key.kind != self.kind || !(self.namespace.is_empty() || key.namespace == self.namespace) {
            return None;
        }
        match (self.shows(change.before.as_ref()), self.shows(change.after.as_ref())) {
            (false, false) => None,
            (false, true) => change.after.clone().map(|object| ("ADDED", object)),
            (true, true) => change.after.clone().map(|object| ("MODIFIED", object)),
            (true, false) => {
                let last = change.before.clone()?;
                Some(("DELETED", last.edit_meta(|meta| meta.resource_version = Some(revision.to_string()))))
            }
        }
    }
}

struct Stream {
    watch: Watch,
    filter: Filter,
    renderer: Renderer,
    clock: Arc<dyn Clock>,
    /// The revision that `renderer` is of, or a little before it.
    defined_at: u64,
    deadline: Instant,
    bookmark: Instant,
    bookmarks: bool,
    /// A table has named its columns.
    headed: bool,
    ready: VecDeque<Bytes>,
    over: bool,
    /// The record of the node that watches, and its certificate's serial.
    certificate: Option<(Key, String)>,
    _counted: Counted,
}

impl Stream {
    fn initial(&mut self, snapshot: &Snapshot, marked: bool) {
        let mut chunk = Vec::new();
        let mut objects: Vec<&Object> = candidates(snapshot, self.filter.kind, &self.filter.namespace, &self.filter.selection).collect();
        objects.retain(|object| self.filter.selection.matches(object));
        for object in objects {
            chunk.extend(self.renderer.event("ADDED", object, !self.headed));
            self.headed = true;
            if chunk.len() >= CHUNK {
                self.ready.push_back(std::mem::take(&mut chunk).into());
            }
        }
        if marked && self.bookmarks {
            chunk.extend(self.renderer.bookmark(self.filter.kind, snapshot.revision(), true));
        }
        if !chunk.is_empty() {
            self.ready.push_back(chunk.into());
        }
    }

    /// A node that is removed sees nothing of what follows.
    fn is_revoked_by(&self, batch: &Batch) -> bool {
        let Some((record, serial)) = &self.certificate else { return false };
        let mut changes = batch.changes.iter().filter(|change| change.key() == record);
        changes.any(|change| !change.after.as_ref().is_some_and(|after| nodes::accepts(after, serial)))
    }

    /// What it shows was defined by an object that is another one now, or gone: whoever watches lists again.
    fn is_redefined_by(&self, batch: &Batch) -> bool {
        let Some(view) = self.renderer.view().filter(|_| batch.revision > self.defined_at) else { return false };
        let of_kind = |change: &&Change| change.key().kind == Kind::CustomResourceDefinition && change.key().name == view.definition();
        let mut changes = batch.changes.iter().filter(of_kind);
        changes.any(|change| !change.after.as_ref().and_then(|after| after.get()).is_some_and(|after| view.is_of(after)))
    }

    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            let wake = if self.bookmarks { self.bookmark.min(self.deadline) } else { self.deadline };
            match tokio::time::timeout_at(wake, self.watch.next()).await {
                Ok(Ok(batch)) => {
                    if self.is_revoked_by(&batch) {
                        return None;
                    }
                    self.over = self.is_redefined_by(&batch);
                    self.renderer.look_at(self.clock.now());
                    let mut chunk = Vec::new();
                    for change in &batch.changes {
                        if let Some((word, object)) = self.filter.event(change, batch.revision) {
                            chunk.extend(self.renderer.event(word, &object, !self.headed));
                            self.headed = true;
                        }
                    }
                    if !chunk.is_empty() {
                        return Some(chunk.into());
                    }
                }
                Ok(Err(old)) => {
                    self.over = true;
                    return Some(too_old(&old).into());
                }
                Err(_) => {
                    self.over = Instant::now() >= self.deadline;
                    self.bookmark = Instant::now() + BOOKMARK_EVERY;
                    if self.bookmarks {
                        return Some(self.renderer.bookmark(self.filter.kind, self.watch.revision(), false).into());
                    }
                }
            }
        }
    }
}
