//! What plans say becomes Events: collected for a moment, counted, written together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::model::Key;
use crate::model::event::{Occurrence, reference};
use crate::plan::Note;
use crate::store::{Precondition, Store, Transaction, Write};

/// How long notes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(500);
/// Notes that may wait; more are dropped: events are news, not state.
const WAITING: usize = 10_000;

/// Takes notes from anyone who plans. Cloning it is cheap.
#[derive(Clone)]
pub struct Recorder {
    notes: mpsc::Sender<(&'static str, Note)>,
}

impl Recorder {
    /// Starts the task that writes; it ends with `shutdown`, after what was noted is written.
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(write_events(store, clock, receiver, shutdown));
        Self { notes: sender }
    }

    pub fn record(&self, component: &'static str, notes: &[Note]) {
        for note in notes {
            if self.notes.try_send((component, note.clone())).is_err() {
                tracing::debug!(subject = %note.subject, reason = %note.reason, "dropped an event: too many wait");
            }
        }
    }
}

async fn write_events(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    mut notes: mpsc::Receiver<(&'static str, Note)>,
    shutdown: CancellationToken,
) {
    loop {
        let first = tokio::select! {
            first = notes.recv() => first,
            () = shutdown.cancelled() => None,
        };
        let Some(first) = first else { return };
        tokio::select! {
            () = tokio::time::sleep(COLLECT) => {}
            () = shutdown.cancelled() => {}
        }
        let mut collected = vec![first];
        while let Ok(note) = notes.try_recv() {
            collected.push(note);
        }
        write(&store, clock.as_ref(), collected).await;
    }
}

async fn write(store: &Arc<dyn Store>, clock: &dyn Clock, notes: Vec<(&'static str, Note)>) {
    let state = store.snapshot();
    let now = clock.now();
    let mut events: BTreeMap<Key, crate::model::Object> = BTreeMap::new();
    for (component, note) in notes {
        let subject = state.get(&note.subject);
        let about = reference(&note.subject, subject.map(crate::model::Object::uid));
        let occurrence = Occurrence::new(about, note.warning, note.reason.code, &note.reason.message, component);
        let key = occurrence.key();
        let known = events.get(&key).or_else(|| state.get(&key));
        let event = occurrence.happened(known.and_then(|known| known.get()), now);
        events.insert(key, event);
    }
    let writes = events.into_iter().map(|(key, event)| match state.get(&key) {
        Some(_) => Write::Update(event, Precondition::exists()),
        None => Write::Create(event),
    });
    let writes: Vec<Write> = writes.collect();
    let together = Transaction { writes: writes.clone(), ..Transaction::new("controller:events") };
    if store.commit(together).await.is_ok() {
        return;
    }
    // One of them cannot be written (its namespace is going): the others can.
    for write in writes {
        let key = write.key().clone();
        if let Err(error) = store.commit(Transaction::new("controller:events").with(write)).await {
            tracing::debug!(%key, %error, "an event is not written");
        }
    }
}
