//! The status field of any kind: copied, compared, written on its own. PURE.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Outcome, Refused, custom, definition};
use crate::model::{Kind, Object, Timestamp, Typed, validate};
use crate::store::snapshot::Snapshot;

macro_rules! with_status {
    ($($kind:ident),+) => {
        /// Gives `to` the status of `from`; kinds without one are left alone.
        pub(super) fn copy(to: &mut Typed, from: &Typed) {
            match (to, from) {
                $((Typed::$kind(to), Typed::$kind(from)) => to.status.clone_from(&from.status),)+
                (Typed::Custom(to), Typed::Custom(from)) if to.kind.info().has_status => to.take_status(Some(from)),
                _ => {}
            }
        }

        fn same(one: &Typed, other: &Typed) -> bool {
            match (one, other) {
                $((Typed::$kind(one), Typed::$kind(other)) => one.status == other.status,)+
                (Typed::Custom(one), Typed::Custom(other)) => one.content.get("status") == other.content.get("status"),
                _ => true,
            }
        }

        /// Whether nothing but the status tells them apart. A kind that has one has metadata, a spec, and nothing else.
        fn same_but_for_it(one: &Typed, other: &Typed) -> bool {
            match (one, other) {
                $((Typed::$kind(one), Typed::$kind(other)) => one.metadata == other.metadata && one.spec == other.spec,)+
                _ => false,
            }
        }

        /// A new object has the status its kind starts with, whatever the writer says of it.
        pub(super) fn reset(object: &mut Typed) {
            match object {
                $(Typed::$kind(it) => it.status = Some(Default::default()),)+
                Typed::Custom(it) if it.kind.info().has_status => it.take_status(None),
                _ => {}
            }
        }
    };
}

with_status!(
    Namespace,
    CustomResourceDefinition,
    Node,
    CertificateSigningRequest,
    PersistentVolume,
    PersistentVolumeClaim,
    Service,
    Pod,
    ReplicaSet,
    Deployment,
    Job,
    HorizontalPodAutoscaler,
    Source
);

/// What is stored with the status that is written.
fn with_status(object: Object, current: &Object) -> Typed {
    if same_but_for_it(object.typed(), current.typed()) {
        return object.into_typed();
    }
    let mut after = current.typed().clone();
    if let (Typed::Custom(after), Typed::Custom(from)) = (&mut after, object.typed()) {
        // The status is in the version that is written.
        (after.kind, after.api_version) = (from.kind, from.api_version.clone());
    }
    copy(&mut after, object.typed());
    after
}

type Texts = Option<BTreeMap<String, String>>;

/// The labels and annotations that come along with a Node's status, where they change: of a Node only the spec is kept
/// (`pkg/registry/core/node/strategy.go`). What controllers write of it is its status alone.
fn along(object: &Object, current: &Object, writer: &str) -> Option<(Texts, Texts)> {
    if object.kind() != Kind::Node || super::is_controller(writer) {
        return None;
    }
    let texts = |meta: &ObjectMeta| {
        let some = |texts: &Texts| texts.clone().filter(|texts| !texts.is_empty());
        (some(&meta.labels), some(&meta.annotations))
    };
    let said = texts(object.meta());
    (said != texts(current.meta())).then_some(said)
}

/// Takes the status of `object`, who owns it, what comes along with a Node's, and nothing else.
pub(super) fn update(object: Object, current: &Object, state: &Snapshot, writer: &str, now: Timestamp) -> Result<Outcome, Refused> {
    // Of a custom kind, what was stored may know less of its kind than the writer.
    if !object.kind().info().has_status {
        let message = format!("{} has no status", current.kind());
        return Err(Refused::Forbidden { key: current.key().clone(), message, at: "" });
    }
    let owners = object.meta().managed_fields.as_ref();
    // Controllers write the status of an object they may have seen some time ago.
    let owners = owners.filter(|owners| {
        !super::is_controller(writer) && !super::update::same_ownership(Some(owners), current.meta().managed_fields.as_deref())
    });
    let along = along(&object, current, writer);
    if same(object.typed(), current.typed()) && owners.is_none() && along.is_none() {
        return Ok(Outcome::Unchanged);
    }
    let owners = owners.cloned();
    let mut after = with_status(object, current);
    if let Some((labels, annotations)) = along {
        let meta = after.meta_mut();
        (meta.labels, meta.annotations) = (labels, annotations);
    }
    if owners.is_some() {
        after.meta_mut().managed_fields = owners;
    }
    if let Typed::Custom(it) = &mut after {
        let errors = custom::complete(it, state.definitions(), current.custom())?;
        if !errors.is_empty() {
            return Err(super::invalid(current, errors));
        }
    }
    if let Typed::CustomResourceDefinition(it) = &mut after {
        // Nobody takes a kind off the API by a word about it.
        definition::settle(it, state, now);
    }
    if matches!(after, Typed::Node(_) | Typed::CustomResourceDefinition(_)) {
        crate::model::defaults::apply(&mut after);
        let errors = validate::validate(&after);
        if !errors.is_empty() {
            return Err(super::invalid(current, errors));
        }
    }
    Ok(Outcome::Put(Object::from_typed(after)))
}
