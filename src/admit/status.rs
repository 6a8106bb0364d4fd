//! The status field of any kind: copied, compared, written on its own. PURE.

use super::{Outcome, Refused};
use crate::model::{Object, Typed, validate};

macro_rules! with_status {
    ($($kind:ident),+) => {
        /// Gives `to` the status of `from`; kinds without one are left alone.
        pub(super) fn copy(to: &mut Typed, from: &Typed) {
            match (to, from) {
                $((Typed::$kind(to), Typed::$kind(from)) => to.status.clone_from(&from.status),)+
                _ => {}
            }
        }

        fn same(one: &Typed, other: &Typed) -> bool {
            match (one, other) {
                $((Typed::$kind(one), Typed::$kind(other)) => one.status == other.status,)+
                _ => true,
            }
        }

        /// A new object has the status its kind starts with, whatever the writer says of it.
        pub(super) fn reset(object: &mut Typed) {
            match object {
                $(Typed::$kind(it) => it.status = Some(Default::default()),)+
                _ => {}
            }
        }
    };
}

with_status!(Namespace, Node, CertificateSigningRequest, Service, Pod, ReplicaSet, Deployment, Job, Source);

/// Takes the status of `object`, who owns it, and nothing else.
pub(super) fn update(object: &Object, current: &Object, writer: &str) -> Result<Outcome, Refused> {
    if !current.kind().info().has_status {
        let message = format!("{} has no status", current.kind());
        return Err(Refused::Forbidden { key: current.key().clone(), message });
    }
    let owners = object.meta().managed_fields.as_ref();
    // Controllers write the status of an object they may have seen some time ago.
    let owners = owners.filter(|owners| {
        !super::is_controller(writer) && !super::update::same_ownership(Some(owners), current.meta().managed_fields.as_deref())
    });
    if same(object.typed(), current.typed()) && owners.is_none() {
        return Ok(Outcome::Unchanged);
    }
    let mut after = current.typed().clone();
    copy(&mut after, object.typed());
    if let Some(owners) = owners {
        after.meta_mut().managed_fields = Some(owners.clone());
    }
    if matches!(after, Typed::Node(_)) {
        crate::model::defaults::apply(&mut after);
        let errors = validate::validate(&after);
        if !errors.is_empty() {
            return Err(super::invalid(current, errors));
        }
    }
    Ok(Outcome::Put(Object::from_typed(after)))
}
