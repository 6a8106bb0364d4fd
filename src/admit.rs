//! What every write passes before it is applied: defaults, validation, immutable fields, the
//! meaning of a deletion. PURE: the same write on the same state is admitted or refused alike,
//! whoever asks and wherever it runs (server, sync, controllers, preview).
//!
//! - `create`, `update`, `delete`: one file a verb; a status is written by `update` too
//! - `pod_part`: what only a subresource of a pod changes
//! - `service`, `job`: what the cluster gives to a Service (addresses, ports) and a Job (selector)
//! - `persistent`: what a volume or a claim on one begins with
//! - `pod_security`: what pods may ask of their host, by the labels of their namespace
//! - `runtime_class`: what a Pod gets of its RuntimeClass
//! - `definition`, `custom`: custom kinds and their objects
//! - `status`: the status field of any kind

mod api_access;
mod create;
mod custom;
mod definition;
mod delete;
mod job;
mod persistent;
mod pod_part;
pub mod pod_security;
mod runtime_class;
mod service;
mod status;
mod update;

pub use crate::model::{ErrorReason, FieldError};
pub use definition::{Ending, end as end_definition, settle as settle_definition};
pub use delete::goes_at_once;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use status::said_with_status;

use crate::model::custom::Definitions;
use crate::model::{Key, Object, Timestamp, Typed, defaults, fields, validate};
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
    Forbidden {
        key: Key,
        message: String,
        /// The field it is about; empty where it is about the object.
        at: &'static str,
    },
    /// HTTP 403: nothing new comes into a namespace that is on its way out.
    #[error("{key} is forbidden: unable to create new content in namespace {} because it is being terminated", key.namespace)]
    Terminating { key: Key },
    /// HTTP 405: nothing new comes of a kind that is on its way out.
    #[error("create not allowed while custom resource definition is terminating")]
    Ending { key: Key },
    /// HTTP 404: the namespace it would live in.
    #[error("namespaces \"{0}\" not found")]
    NoNamespace(String),
}

/// Namespaces that are there from the start and never go.
pub const LASTING_NAMESPACES: [&str; 3] = ["default", "kube-node-lease", "kube-system"];

/// Decides what a write makes of an object. What nobody else holds of it becomes the stored one: it is not copied.
///
/// `current` is the stored object, on which the preconditions already hold; `state` is the snapshot
/// as the earlier writes of the same transaction left it.
///
/// # Errors
/// [`Refused`] with every broken rule.
pub fn admit(write: Write, current: Option<&Object>, state: &Snapshot, writer: &str, stamp: &mut Stamp<'_>) -> Result<Outcome, Refused> {
    match (write, current) {
        (Write::Create(object), _) => create::create(object, state, writer, stamp),
        (Write::Update(object, _), Some(current)) => update::update(object, current, state, writer, stamp.now),
        (Write::UpdateStatus(object, _), Some(current)) => status::update(object, current, state, writer, stamp.now),
        (Write::UpdatePart(object, _, part), Some(current)) => pod_part::update(&object, current, state, part),
        (Write::Delete { grace_seconds, .. }, Some(current)) => delete::delete(current, grace_seconds, stamp.now),
        // `Snapshot::apply` reports a missing object as a conflict before it asks here.
        (Write::Update(..) | Write::UpdateStatus(..) | Write::UpdatePart(..) | Write::Delete { .. }, None) => Ok(Outcome::Unchanged),
    }
}

/// An object with Kubernetes' defaults, whether or not it may be so.
pub fn defaulted(object: &Object) -> Object {
    let mut typed = object.typed().clone();
    defaults::apply(&mut typed);
    Object::from_typed(typed)
}

/// What an object means that nobody has admitted yet: its defaults, or every rule it breaks. Needs
/// no state; admission adds what only the cluster knows.
///
/// # Errors
/// Every broken rule and every field that is not served.
pub fn normalise(object: &Object, served: &Definitions) -> Result<Object, Vec<FieldError>> {
    let mut typed = object.typed().clone();
    defaults::apply(&mut typed);
    let mut errors = validate::validate(&typed);
    if let Typed::Custom(it) = &mut typed {
        // Whether its kind is served was asked before.
        errors.extend(custom::complete(it, served, None).unwrap_or_default());
    }
    let normal = Object::from_typed(typed);
    errors.extend(fields::refusals(normal.kind(), &normal.value()));
    if errors.is_empty() { Ok(normal) } else { Err(errors) }
}

/// Controllers and the scheduler make objects from others that were admitted: what they write holds
/// no field that is not served.
fn is_controller(writer: &str) -> bool {
    writer.starts_with("controller:") || writer.starts_with("scheduler")
}

fn invalid(object: &Object, mut errors: Vec<FieldError>) -> Refused {
    errors.sort_unstable();
    errors.dedup();
    Refused::Invalid { key: object.key().clone(), errors }
}

/// Times are kept to the second, as they are written.
fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// FNV-1a: the same on every machine and in every version.
fn hash(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain(std::iter::once(0xff)));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // Its low bits alone are weak.
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests;
