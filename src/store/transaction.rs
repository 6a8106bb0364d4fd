//! What a writer asks of the store. PURE.

use std::fmt;

use crate::admit::{Refused, goes_at_once};
use crate::model::{Key, Object, Timestamp};
use crate::store::snapshot::Snapshot;

/// A set of writes that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Who writes (`admin`, `system:node:n1`, `source:web`, `controller:deployment`): the field manager.
    pub writer: String,
    pub writes: Vec<Write>,
    /// Kept in memory only: leases and heartbeat times.
    pub volatile: bool,
    /// Admit and evaluate, change nothing.
    pub dry_run: bool,
}

impl Transaction {
    pub fn new(writer: impl Into<String>) -> Self {
        Self { writer: writer.into(), ..Self::default() }
    }
    pub fn with(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Whether it may pass where space is short: deletes, status, the updates that let a deletion go
    /// on, and what is smaller than what goes with it at once.
    pub fn frees_space(&self, state: &Snapshot) -> bool {
        let size = |object: &Object| object.json().len();
        let (mut more, mut less) = (0, 0);
        for write in &self.writes {
            let there = state.get(write.key());
            match write {
                Write::UpdateStatus(..) => {}
                Write::Delete { .. } => less += there.filter(|object| goes_at_once(object)).map_or(0, size),
                Write::Update(..) | Write::UpdatePart(..) if there.is_some_and(Object::is_deleting) => {}
                Write::Update(object, _) | Write::UpdatePart(object, ..) => {
                    let (old, new) = (there.map_or(0, size), size(object));
                    less += old.saturating_sub(new);
                    if new >= old {
                        // As large as before makes no room either.
                        more += (new - old).max(1);
                    }
                }
                Write::Create(object) => more += size(object) + METADATA_BYTES,
            }
        }
        more == 0 || more < less
    }
}

/// What admission adds to a new object: UID, times, revision. One that was stored comes back with them.
const METADATA_BYTES: usize = 256;

/// One write. `Update` leaves the status alone and `UpdateStatus` everything but the status, as the
/// two REST endpoints do; who is no controller says labels and annotations along with it (`admit::said_with_status`).
#[derive(Clone, Debug)]
pub enum Write {
    /// Refused with [`Conflict::Exists`] when the key is taken.
    Create(Object),
    Update(Object, Precondition),
    UpdateStatus(Object, Precondition),
    /// Takes one part of a pod, which an `Update` may not change.
    UpdatePart(Object, Precondition, PodPart),
    /// Asks for deletion. Admission decides what that means: a bound pod and an object with
    /// finalizers are marked first, all others go at once.
    Delete {
        key: Key,
        precondition: Precondition,
        grace_seconds: Option<i64>,
    },
}

/// What a subresource of a pod writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPart {
    /// `pods/ephemeralcontainers`
    EphemeralContainers,
    /// `pods/resize`: what its containers may use.
    Resources,
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Write::Create(object) | Write::Update(object, _) | Write::UpdateStatus(object, _) | Write::UpdatePart(object, ..) => {
                object.key()
            }
            Write::Delete { key, .. } => key,
        }
    }

    /// What is written; none by a deletion.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Write::Create(object) | Write::Update(object, _) | Write::UpdateStatus(object, _) | Write::UpdatePart(object, ..) => {
                Some(object)
            }
            Write::Delete { .. } => None,
        }
    }

    /// The same write of another object.
    pub fn with_object(mut self, other: Object) -> Self {
        match &mut self {
            Write::Create(object) | Write::Update(object, _) | Write::UpdateStatus(object, _) | Write::UpdatePart(object, ..) => {
                *object = other;
            }
            Write::Delete { .. } => {}
        }
        self
    }
}

/// What must still be true of the stored object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    pub uid: Option<String>,
    pub revision: Option<u64>,
}

impl Precondition {
    /// The object may be of any revision, but must exist.
    pub fn exists() -> Self {
        Self::default()
    }
    /// Exactly the object that was seen.
    pub fn seen(object: &Object) -> Self {
        Self { uid: Some(object.uid().to_owned()), revision: Some(object.revision()) }
    }
}

/// Why the state is not what the writer believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("{0} already exists")]
    Exists(Key),
    #[error("{0} not found")]
    NotFound(Key),
    #[error("{key} was changed: its revision is {found}, not {wanted}")]
    Revision { key: Key, wanted: u64, found: u64 },
    #[error("{key} is another object now: its uid is {found}, not {wanted}")]
    Uid { key: Key, wanted: String, found: String },
}

/// Why a transaction changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A precondition does not hold: observe again.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Admission refuses the content.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The reserve is touched: only deletes and status are taken (HTTP 507).
    #[error("store is short of space: {0}")]
    Full(String),
    /// The backend failed; whether the transaction is durable is unknown until a restart.
    #[error("write to the store: {0}")]
    Io(String),
}

/// Time and ids for the objects a transaction creates: data, so that applying stays pure.
pub struct Stamp<'a> {
    pub now: Timestamp,
    /// Yields a fresh UID a call.
    pub uid: &'a mut dyn FnMut() -> String,
}

impl fmt::Debug for Stamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({})", self.now)
    }
}
