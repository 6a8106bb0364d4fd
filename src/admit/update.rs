//! A changed object: what stays, what may change, and when it is gone. PURE.

use k8s_openapi::api::core::v1::{Namespace, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use super::{Outcome, Refused, custom, definition, invalid, is_controller, job, persistent, service, status};
use crate::model::{FieldError, Object, Timestamp, Typed, copy_stamps, defaults, fields, validate};
use crate::store::snapshot::Snapshot;

pub(super) fn update(object: Object, current: &Object, state: &Snapshot, writer: &str, now: Timestamp) -> Result<Outcome, Refused> {
    let old = current.typed();
    if object == *current {
        return Ok(Outcome::Unchanged);
    }
    let mut new = object.into_typed();
    system_fields(new.meta_mut(), old.meta());
    if let Typed::Custom(it) = &mut new {
        custom::refresh(it, state.definitions());
    }
    status::copy(&mut new, old);
    inherit(&mut new, old, state);
    defaults::apply(&mut new);
    let mut of_schema = Vec::new();
    match &mut new {
        Typed::Job(job) => job::generate(job),
        Typed::CustomResourceDefinition(it) => definition::settle(it, state, now),
        Typed::Custom(it) => of_schema = custom::complete(it, state.definitions(), current.custom())?,
        _ => {}
    }
    if new == *old {
        return Ok(Outcome::Unchanged);
    }
    if !same_spec(&new, old, state) {
        let meta = new.meta_mut();
        meta.generation = meta.generation.map(|it| it + 1);
    }
    let mut errors = validate::validate_update(&new, old);
    errors.extend(validate::validate(&new));
    forgive(&mut errors, old);
    // What is on its way out may only let go of its finalizers.
    if !current.is_deleting() {
        errors.extend(of_schema);
    }
    if let Typed::CustomResourceDefinition(it) = &new {
        definition::check(it, &mut errors);
    }
    if errors.is_empty()
        && let Typed::Service(it) = &mut new
    {
        errors = service::allocate(it, state);
    }
    let grows = match (&new, old) {
        (Typed::PersistentVolumeClaim(it), Typed::PersistentVolumeClaim(old)) => persistent::grows(it, old),
        _ => None,
    };
    let after = Object::from_typed(new);
    if !is_controller(writer) {
        errors.extend(fields::refusals(after.kind(), &after.value()));
    }
    // As in Kubernetes, what is wrong with the fields is said first.
    if let Some(message) = grows.filter(|_| errors.is_empty()) {
        return Err(Refused::Forbidden { key: after.key().clone(), message: message.to_owned(), at: "spec.resources.requests.storage" });
    }
    match (errors.is_empty(), is_gone(after.typed())) {
        (false, _) => Err(invalid(&after, errors)),
        (true, true) => Ok(Outcome::Remove),
        (true, false) => Ok(Outcome::Put(after)),
    }
}

/// What an earlier version took stays as it was: or its object could not be mended piece by piece, nor even go.
pub(super) fn forgive(errors: &mut Vec<FieldError>, old: &Typed) {
    if !errors.is_empty() {
        let before = validate::validate(old);
        errors.retain(|error| !before.contains(error));
    }
}

/// What the system wrote stays as it is, whatever the writer sends back.
fn system_fields(new: &mut ObjectMeta, old: &ObjectMeta) {
    if new.uid.as_deref().is_none_or(str::is_empty) {
        new.uid.clone_from(&old.uid);
    }
    copy_stamps(new, old);
    new.generate_name.clone_from(&old.generate_name);
    new.self_link.clone_from(&old.self_link);
    let unsaid = new.managed_fields.is_none();
    if unsaid || same_ownership(new.managed_fields.as_deref(), old.managed_fields.as_deref()) {
        new.managed_fields.clone_from(&old.managed_fields);
    }
    // Said to be nobody's any more.
    new.managed_fields.take_if(|entries| entries.is_empty());
    // Empty maps and lists are none.
    same_nothing(&mut new.labels, old.labels.as_ref(), std::collections::BTreeMap::is_empty);
    same_nothing(&mut new.annotations, old.annotations.as_ref(), std::collections::BTreeMap::is_empty);
    same_nothing(&mut new.finalizers, old.finalizers.as_ref(), Vec::is_empty);
    same_nothing(&mut new.owner_references, old.owner_references.as_ref(), Vec::is_empty);
}

/// Where both say nothing, they say it alike.
fn same_nothing<T: Clone>(new: &mut Option<T>, old: Option<&T>, is_empty: impl Fn(&T) -> bool) {
    if new.as_ref().is_none_or(&is_empty) && old.is_none_or(&is_empty) {
        *new = old.cloned();
    }
}

/// Who owns what, apart from when it was last written.
pub(super) fn same_ownership(new: Option<&[ManagedFieldsEntry]>, old: Option<&[ManagedFieldsEntry]>) -> bool {
    let (new, old) = (new.unwrap_or_default(), old.unwrap_or_default());
    let timeless = |it: &ManagedFieldsEntry| ManagedFieldsEntry { time: None, ..it.clone() };
    new.len() == old.len() && new.iter().zip(old).all(|(new, old)| timeless(new) == timeless(old))
}

fn inherit(new: &mut Typed, old: &Typed, state: &Snapshot) {
    match (new, old) {
        (Typed::Service(new), Typed::Service(old)) => service::inherit(new, old),
        (Typed::Namespace(new), Typed::Namespace(old)) => finalizers(new, old, state),
        (Typed::Node(new), Typed::Node(old)) => {
            // A kubelet's update never takes its range away.
            let spec = new.spec.get_or_insert_default();
            let before = old.spec.clone().unwrap_or_default();
            if spec.pod_cidr.as_deref().is_none_or(str::is_empty) {
                spec.pod_cidr = before.pod_cidr;
                spec.pod_cidrs = before.pod_cidrs;
            }
            // A taint that is written again keeps the time from which on it counts.
            for taint in spec.taints.iter_mut().flatten().filter(|taint| taint.time_added.is_none()) {
                let same = |it: &&Taint| (&it.key, &it.effect, &it.value) == (&taint.key, &taint.effect, &taint.value);
                taint.time_added = before.taints.iter().flatten().find(same).and_then(|it| it.time_added.clone());
            }
            if old.spec.is_none() && new.spec == Some(Default::default()) {
                new.spec = None;
            }
        }
        (Typed::Pod(new), Typed::Pod(old)) => {
            // What binding decided stays when a manifest without it is written again.
            if let (Some(new), Some(old)) = (&mut new.spec, &old.spec)
                && new.node_name.as_deref().is_none_or(str::is_empty)
            {
                new.node_name.clone_from(&old.node_name);
            }
        }
        _ => {}
    }
}

/// A namespace lets go of its finalizers only when it is on its way out and nothing is left in it.
fn finalizers(new: &mut Namespace, old: &Namespace, state: &Snapshot) {
    let name = old.metadata.name.as_deref().unwrap_or_default();
    let mut kinds = state.definitions().kinds().filter(|kind| kind.info().namespaced);
    let mut is_empty = || kinds.all(|kind| state.list_in(kind, name).next().is_none());
    if old.metadata.deletion_timestamp.is_none() || !is_empty() {
        new.spec.clone_from(&old.spec);
    }
}

/// Marked for deletion, and nothing holds it any longer.
fn is_gone(object: &Typed) -> bool {
    let meta = object.meta();
    let namespace_held = match object {
        Typed::Namespace(it) => it.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_some_and(|names| !names.is_empty()),
        _ => false,
    };
    meta.deletion_timestamp.is_some()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && !namespace_held
}

/// Whether the part that `generation` counts is the same.
fn same_spec(new: &Typed, old: &Typed, state: &Snapshot) -> bool {
    match (new, old) {
        (Typed::Pod(new), Typed::Pod(old)) => new.spec == old.spec,
        (Typed::ReplicaSet(new), Typed::ReplicaSet(old)) => new.spec == old.spec,
        (Typed::Deployment(new), Typed::Deployment(old)) => new.spec == old.spec,
        (Typed::Job(new), Typed::Job(old)) => new.spec == old.spec,
        (Typed::HorizontalPodAutoscaler(new), Typed::HorizontalPodAutoscaler(old)) => new.spec == old.spec,
        (Typed::Source(new), Typed::Source(old)) => new.spec == old.spec,
        (Typed::CustomResourceDefinition(new), Typed::CustomResourceDefinition(old)) => new.spec == old.spec,
        (Typed::MutatingWebhookConfiguration(new), Typed::MutatingWebhookConfiguration(old)) => new.webhooks == old.webhooks,
        (Typed::ValidatingWebhookConfiguration(new), Typed::ValidatingWebhookConfiguration(old)) => new.webhooks == old.webhooks,
        (Typed::Custom(new), Typed::Custom(old)) => custom::same_spec(new, old, state.definitions()),
        (Typed::EndpointSlice(new), Typed::EndpointSlice(old)) => {
            new.address_type == old.address_type && new.endpoints == old.endpoints && new.ports == old.ports
        }
        _ => true,
    }
}
