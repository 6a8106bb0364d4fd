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

with_status!(Namespace, Node, Service, Pod, ReplicaSet, Deployment, Job, Source);

/// Takes the status of `object` and nothing else.
pub(super) fn update(object: &Object, current: &Object) -> Result<Outcome, Refused> {
    if !current.kind().info().has_status {
        let message = format!("{} has no status", current.kind());
        return Err(Refused::Forbidden { key: current.key().clone(), message });
    }
    if same(object.typed(), current.typed()) {
        return Ok(Outcome::Unchanged);
    }
    let mut after = current.typed().clone();
    copy(&mut after, object.typed());
    if matches!(after, Typed::Node(_)) {
        crate::model::defaults::apply(&mut after);
        let errors = validate::validate(&after);
        if !errors.is_empty() {
            return Err(super::invalid(current, errors));
        }
    }
    Ok(Outcome::Put(Object::from_typed(after)))
}
