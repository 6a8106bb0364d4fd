//! The connections there are, each with the way to close it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::places::{Bound, Places};

/// Between two warnings that places ran out.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Connections of one sort.
pub struct Register<P> {
    /// For the log.
    sort: &'static str,
    inner: Mutex<Inner<P>>,
}

struct Inner<P> {
    places: Places<P>,
    ends: BTreeMap<u64, CancellationToken>,
    next: u64,
    warned: Option<Instant>,
}

impl<P: Ord + Clone + Debug> Register<P> {
    pub fn new(sort: &'static str, bound: Bound) -> Arc<Self> {
        let inner = Inner { places: Places::new(bound), ends: BTreeMap::new(), next: 0, warned: None };
        Arc::new(Self { sort, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner<P>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that ends with `end`; it may cost another one its own.
    pub fn enter(self: &Arc<Self>, party: P, end: CancellationToken) -> Place<P> {
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        let displaced = inner.places.enter(id, party.clone());
        inner.ends.insert(id, end.clone());
        self.close(&mut inner, displaced, &party);
        Place { register: Arc::clone(self), id, party, end }
    }

    fn close(&self, inner: &mut Inner<P>, displaced: Option<u64>, newest: &P) {
        let Some(other) = displaced.and_then(|other| inner.ends.remove(&other)) else { return };
        other.cancel();
        if inner.warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            inner.warned = Some(Instant::now());
            tracing::warn!(?newest, "too many connections {}: the oldest are closed", self.sort);
        }
    }
}

/// A connection's place, until it is dropped.
pub struct Place<P: Ord + Clone + Debug> {
    register: Arc<Register<P>>,
    id: u64,
    party: P,
    end: CancellationToken,
}

impl<P: Ord + Clone + Debug> Place<P> {
    /// Cancelled when the connection has to go.
    pub fn displaced(&self) -> CancellationToken {
        self.end.clone()
    }

    /// The connection stays: it counts among its party's from now on, and may cost one of these its own place.
    pub fn settle(&self) {
        let mut inner = self.register.inner();
        let displaced = inner.places.settle(self.id);
        self.register.close(&mut inner, displaced, &self.party);
    }
}

impl<P: Ord + Clone + Debug> Drop for Place<P> {
    fn drop(&mut self) {
        let mut inner = self.register.inner();
        inner.places.leave(self.id);
        inner.ends.remove(&self.id);
    }
}
