//! What an autoscaler scales, read from the store. PURE.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use super::plan::Target;
use crate::model::ownership::{ManagedFields, Operation};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Source, scale};
use crate::plan::Reason;
use crate::store::snapshot::Snapshot;

/// Field managers of sources begin so (`sync`).
const SOURCE_MANAGER: &str = "podbay:";

/// The target of an autoscaler.
///
/// # Errors
/// Why there is none.
pub fn target(state: &Snapshot, object: &Object) -> Result<Target, String> {
    let (kind, target, scale) = scaled(state, object)?;
    let (key, field) = (target.key(), || scale::field(kind, state.definitions()).join("."));
    let wanted = scale.wanted.ok_or_else(|| format!("{key} has no size: {} says none", field()))?;
    let current = i32::try_from(wanted).map_err(|_| format!("{key} has no size: {} is {wanted}", field()))?;
    let pods = pods(state, object, &target, &scale.selector);
    let said_by = said_by(state, kind, &target);
    Ok(Target { kind, current, pods, said_by, object: target })
}

/// What an autoscaler scales, with its kind and its size.
pub(super) fn scaled(state: &Snapshot, object: &Object) -> Result<(Kind, Object, scale::Scale), String> {
    let it = object.get::<HorizontalPodAutoscaler>().ok_or("it is no HorizontalPodAutoscaler")?;
    let reference = &it.spec.scale_target_ref;
    let (version, name) = (reference.api_version.as_deref().unwrap_or_default(), &reference.name);
    let served = state.definitions();
    let kind = served.kind_of(version, &reference.kind).or_else(|| served.of_any_version(version, &reference.kind));
    let kind = kind.filter(|kind| kind.info().namespaced);
    let kind = kind.ok_or_else(|| format!("the kind {} of {version} is not served", reference.kind))?;
    let key = Key::new(kind, object.key().namespace.clone(), name.clone());
    let target = state.get(&key).ok_or_else(|| format!("{key} does not exist"))?;
    let scale = scale::read(kind, target, served).ok_or_else(|| format!("{kind} cannot be scaled"))?;
    Ok((kind, target.clone(), scale))
}

/// The pods of a target; those that another autoscaler looks at too would be scaled twice.
fn pods(state: &Snapshot, object: &Object, target: &Object, selector: &str) -> Result<Vec<Object>, Reason> {
    let invalid = |why: String| Reason::new("InvalidSelector", why);
    if selector.is_empty() {
        return Err(invalid(format!("the scale of {} has no selector: it does not say which its pods are", target.key())));
    }
    let selector = Selector::parse(selector).map_err(|error| invalid(format!("the selector of {}: {error}", target.key())))?;
    let namespace = &object.key().namespace;
    let pods: Vec<Object> = state.list_in(Kind::Pod, namespace).filter(|pod| selector.matches(pod.labels())).cloned().collect();
    let others = state.list_in(Kind::HorizontalPodAutoscaler, namespace).filter(|other| other.key() != object.key());
    let rivals: Vec<&str> = others.filter(|other| selects_any(state, other, &pods)).map(|other| other.key().name.as_str()).collect();
    if rivals.is_empty() {
        return Ok(pods);
    }
    let message = format!("other autoscalers look at the same pods: {}", rivals.join(", "));
    Err(Reason::new("AmbiguousSelector", message))
}

fn selects_any(state: &Snapshot, autoscaler: &Object, pods: &[Object]) -> bool {
    let selector = scaled(state, autoscaler).ok().and_then(|(_, _, scale)| Selector::parse(&scale.selector).ok());
    selector.is_some_and(|selector| !selector.is_everything() && pods.iter().any(|pod| selector.matches(pod.labels())))
}

/// That a source says how many replicas a target has, as a sentence: it would put back whatever else is written.
pub(super) fn said_by(state: &Snapshot, kind: Kind, target: &Object) -> Option<String> {
    let field = scale::field(kind, state.definitions());
    let owners = ManagedFields::of(target.meta()).owners;
    let says = owners.iter().filter(|owner| owner.operation == Operation::Apply && owner.fields.has(&field));
    let names = says.filter_map(|owner| owner.manager.strip_prefix(SOURCE_MANAGER));
    let (name, source) = names.filter_map(|name| Some((name, state.find(Kind::Source, "", name)?))).next()?;
    let inventory = source.get::<Source>().and_then(|source| source.status.as_ref()).map(|status| &status.inventory[..]);
    let entry = inventory.unwrap_or_default().iter().find(|entry| entry.uid == target.uid());
    let subject = match entry.map(|entry| entry.file.as_str()).filter(|file| !file.is_empty()) {
        Some(file) => format!("{file} of source {name}"),
        None => format!("source {name}"),
    };
    // What is done by hand meanwhile lasts as long: the size is git's all the same.
    let is_suspended = source.get::<Source>().is_some_and(|source| source.spec.suspend == Some(true));
    let when = if is_suspended { " once it is resumed" } else { "" };
    Some(format!("{subject} says how many replicas there are, and what it says is put back{when}"))
}
