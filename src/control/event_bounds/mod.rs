//! Event bounds: events are kept for a time, and so many of them.

pub mod plan;

use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct EventBounds {
    pub seconds: i64,
    pub count: usize,
}

impl Controller for EventBounds {
    fn name(&self) -> &'static str {
        "event-bounds"
    }

    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        (object.kind() == Kind::Event).then(|| Key::every(Kind::Event)).into_iter().collect()
    }

    fn plan(&self, state: &Snapshot, _key: &Key, now: Timestamp) -> Plan {
        plan::plan(state.list(Kind::Event), self.seconds, self.count, now)
    }
}
