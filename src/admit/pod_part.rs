//! A part of a pod that only its own subresource changes. PURE.

use super::{Outcome, Refused, invalid, pod_security, update};
use crate::model::{Errors, Object, Typed, defaults, fields, pod, validate};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::PodPart;

/// Takes one part of `object`, who owns it, and nothing else.
pub(super) fn update(object: &Object, current: &Object, state: &Snapshot, part: PodPart) -> Result<Outcome, Refused> {
    let (Typed::Pod(asked), Typed::Pod(old)) = (object.typed(), current.typed()) else {
        return Err(Refused::Forbidden { key: current.key().clone(), message: format!("{} is no pod", current.kind()), at: "" });
    };
    let mut new = old.clone();
    let (asked_spec, spec) = (asked.spec.clone().unwrap_or_default(), new.spec.get_or_insert_default());
    match part {
        PodPart::EphemeralContainers => spec.ephemeral_containers = asked_spec.ephemeral_containers.filter(|list| !list.is_empty()),
        PodPart::Resources => {
            let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
            for container in containers {
                if let Some(wanted) = pod::container(&asked_spec, &container.name) {
                    container.resources.clone_from(&wanted.resources);
                    container.resize_policy.clone_from(&wanted.resize_policy);
                }
            }
        }
    }
    let owners = asked.metadata.managed_fields.as_deref();
    if owners.is_some() && !update::same_ownership(owners, new.metadata.managed_fields.as_deref()) {
        new.metadata.managed_fields = owners.map(<[_]>::to_vec);
    }
    let mut new = Typed::Pod(new);
    defaults::apply(&mut new);
    let Typed::Pod(after) = &mut new else { return Ok(Outcome::Unchanged) };
    if after == old {
        return Ok(Outcome::Unchanged);
    }
    let mut errors = Errors::default();
    if let (Some(spec), Some(before)) = (&after.spec, &old.spec)
        && spec != before
    {
        after.metadata.generation = after.metadata.generation.map(|it| it + 1);
        match part {
            PodPart::EphemeralContainers => validate::ephemeral_containers(spec, before, &mut errors),
            PodPart::Resources => validate::resize(spec, before, &mut errors),
        }
    }
    if part == PodPart::EphemeralContainers
        && let Err(message) = pod_security::admit(after, state)
    {
        return Err(Refused::Forbidden { key: current.key().clone(), message, at: "" });
    }
    let mut errors = errors.into_vec();
    errors.extend(validate::validate(&new));
    let after = Object::from_typed(new);
    errors.extend(fields::refusals(after.kind(), &after.value()));
    if errors.is_empty() { Ok(Outcome::Put(after)) } else { Err(invalid(&after, errors)) }
}
