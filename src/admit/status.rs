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

/// What of the metadata is written along with the status: a kubelet says its node's labels so (`component-helpers/node/util`,
/// `PatchNodeStatus`), plugins of networks say in annotations what a pod was given. The status strategies of Kubernetes'
/// registries put back no more than this (`podStatusStrategy`, `deploymentStatusStrategy`), but for what is made of
/// definitions and for definitions themselves (`ResetObjectMetaForStatus`). What pods may is said by labels of their
/// namespace: who may say how it is may not say that.
pub fn said_with_status(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Custom(_) | Kind::CustomResourceDefinition | Kind::Source | Kind::Namespace => &[],
        Kind::Deployment => &["annotations"],
        _ => &["labels", "annotations"],
    }
}

type Texts = Option<BTreeMap<String, String>>;

/// The labels and annotations that come along with a status, where they change. What controllers write is the status alone.
fn along(object: &Object, current: &Object, writer: &str) -> Option<(Texts, Texts)> {
    let said = said_with_status(object.kind());
    if said.is_empty() || super::is_controller(writer) {
        return None;
    }
    let texts = |meta: &ObjectMeta| {
        let some = |texts: &Texts| texts.clone().filter(|texts| !texts.is_empty());
        (some(&meta.labels), some(&meta.annotations))
    };
    let (now, mut after) = (texts(current.meta()), texts(object.meta()));
    if !said.contains(&"labels") {
        after.0.clone_from(&now.0);
    }
    (after != now).then_some(after)
}

/// Takes the status of `object`, who owns it, what comes along with it, and nothing else.
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
    let brings = along.is_some();
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
    } else if brings {
        let mut errors = validate::validate(&after);
        errors.retain(|error| error.path.starts_with("metadata"));
        super::update::forgive(&mut errors, current.typed());
        if !errors.is_empty() {
            return Err(super::invalid(current, errors));
        }
    }
    Ok(Outcome::Put(Object::from_typed(after)))
}
