//! Who may do what. PURE.
//!
//! An admin may do everything. A node may read what the pods bound to it refer to and write its own Node and Lease, those
//! pods' status, and events about itself and them; it says what drivers of volumes it has; of the volumes that are its directories it says when they are removed. Whatever else anybody does, a role that is bound to them allows it.

mod content;
mod escalation;
pub mod rbac;
pub mod roles;
mod signers;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec, Volume};

pub use content::content;

use super::identity::Identity;
use super::request::{Call, Verb};
use crate::model::rights::{Act, On};
use crate::model::{Key, Kind, Object, local_volume, volume};
use crate::store::snapshot::Snapshot;

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    pub verb: Verb,
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: Option<&'a str>,
    pub subresource: Option<&'a str>,
    /// `spec.nodeName=` of the field selector.
    pub selected_node: Option<&'a str>,
    /// `metadata.name=` of the field selector.
    pub selected_name: Option<&'a str>,
    /// `podbay.dev/node=` of the label selector.
    pub selected_home: Option<&'a str>,
}

impl<'a> Attempt<'a> {
    /// What a request tries, without what it selects by.
    pub fn of(call: &'a Call) -> Self {
        Attempt {
            verb: call.verb,
            kind: call.target.kind,
            namespace: &call.target.namespace,
            name: call.target.name.as_deref(),
            subresource: call.target.subresource.as_deref(),
            selected_node: None,
            selected_name: None,
            selected_home: None,
        }
    }
}

/// Where node leases live.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The cluster's settings, which every node reads.
const SETTINGS: (&str, &str) = ("kube-system", "podbay-cluster");

impl<'a> Attempt<'a> {
    /// In the words of rules.
    pub fn act(&self) -> Act<'a> {
        let info = self.kind.info();
        // Elsewhere a selector says nothing of what is done.
        let selected = self.selected_name.filter(|_| matches!(self.verb, Verb::List | Verb::Watch));
        let on = On::Resource {
            group: info.group,
            resource: info.plural,
            subresource: self.subresource.unwrap_or_default(),
            namespace: self.namespace,
            name: self.name.or(selected).unwrap_or_default(),
        };
        Act { verb: self.verb.word(), on }
    }
}

/// Whether the request may go on. What is written is looked at again by [`content`].
///
/// # Errors
/// The sentence for a 403.
pub fn authorise(identity: &Identity, attempt: &Attempt<'_>, state: &Snapshot) -> Result<(), String> {
    if may_node(identity, attempt, state) {
        return Ok(());
    }
    rbac::authorise(identity, &attempt.act(), state)
}

/// Whether somebody may do this by being a node.
pub fn may_node(identity: &Identity, attempt: &Attempt<'_>, state: &Snapshot) -> bool {
    !identity.is_admin() && identity.node_name().is_some_and(|node| node_may(node, attempt, state))
}

/// Whether this is a node that asks who somebody is or what they may: it lets others see and do what is its own.
pub fn node_asks(identity: &Identity, act: &Act<'_>) -> bool {
    let On::Resource { group, resource, subresource: "", .. } = act.on else { return false };
    let reviews = match group {
        "authentication.k8s.io" => resource == "tokenreviews",
        "authorization.k8s.io" => matches!(resource, "subjectaccessreviews" | "localsubjectaccessreviews"),
        _ => false,
    };
    reviews && act.verb == "create" && identity.node_name().is_some()
}

fn node_may(node: &str, attempt: &Attempt<'_>, state: &Snapshot) -> bool {
    let reads = !attempt.verb.writes();
    let is_own = attempt.name.is_none_or(|name| name == node);
    match (attempt.kind.stored(), attempt.subresource) {
        (Kind::Service | Kind::EndpointSlice | Kind::Node | Kind::RuntimeClass | Kind::CSIDriver | Kind::Namespace, None) if reads => true,
        (Kind::Node, None) => matches!(attempt.verb, Verb::Create | Verb::Update | Verb::Patch) && is_own,
        (Kind::Node, Some("status")) => matches!(attempt.verb, Verb::Get | Verb::Update | Verb::Patch) && attempt.name == Some(node),
        (Kind::Lease, None) => is_its(attempt, node) && attempt.namespace == LEASE_NAMESPACE,
        (Kind::CSINode, None) => is_its(attempt, node),
        (Kind::CertificateSigningRequest, None) => matches!(attempt.verb, Verb::Create | Verb::Get | Verb::List | Verb::Watch),
        (Kind::Event, None) => matches!(attempt.verb, Verb::Create | Verb::Update | Verb::Patch),
        (Kind::Pod, sub) => node_may_pods(node, attempt, sub, state),
        (Kind::Secret | Kind::ConfigMap | Kind::ServiceAccount, None) if reads => {
            attempt.name.or(attempt.selected_name).is_some_and(|name| may_read(node, attempt.kind, attempt.namespace, name, state))
        }
        (Kind::PersistentVolumeClaim, None) if attempt.verb == Verb::Get => {
            attempt.name.is_some_and(|name| claims_of(node, state).any(|claim| claim == (attempt.namespace, name.to_owned())))
        }
        (Kind::PersistentVolume, None) => node_may_volumes(node, attempt, state),
        (Kind::ServiceAccount, Some("token")) if attempt.verb == Verb::Create => {
            attempt.name.is_some_and(|name| may_read(node, attempt.kind, attempt.namespace, name, state))
        }
        _ => false,
    }
}

/// Whether this is about what a node keeps of itself under its own name. Which name a new one has, [`content`] sees.
fn is_its(attempt: &Attempt<'_>, node: &str) -> bool {
    match attempt.verb {
        Verb::Create => attempt.name.is_none_or(|name| name == node),
        Verb::Get | Verb::Update | Verb::Patch | Verb::Delete => attempt.name == Some(node),
        _ => false,
    }
}

/// What its pods have, and the volumes that are directories of this node; of these it says that they are removed.
fn node_may_volumes(node: &str, attempt: &Attempt<'_>, state: &Snapshot) -> bool {
    let is_here = || {
        let found = attempt.name.and_then(|name| state.find(Kind::PersistentVolume, "", name));
        found.is_some_and(|volume| local_volume::is_home(volume, node))
    };
    let is_had = || {
        let is_it = |claim: &PersistentVolumeClaim| attempt.name == Some(volume::volume_name(claim));
        let mut claims = claims_of(node, state).filter_map(|(home, name)| state.find(Kind::PersistentVolumeClaim, home, &name));
        claims.any(|claim| claim.get::<PersistentVolumeClaim>().is_some_and(is_it))
    };
    match attempt.verb {
        Verb::List | Verb::Watch => attempt.selected_home == Some(node),
        Verb::Get => is_had() || is_here(),
        Verb::Patch => is_here(),
        _ => false,
    }
}

fn node_may_pods(node: &str, attempt: &Attempt<'_>, sub: Option<&str>, state: &Snapshot) -> bool {
    let bound_here = || {
        attempt.name.is_some_and(|name| {
            let key = Key::new(Kind::Pod, attempt.namespace, name);
            state.get(&key).is_some_and(|pod| node_of(pod) == Some(node))
        })
    };
    match (attempt.verb, sub) {
        (Verb::List | Verb::Watch, None) => attempt.selected_node == Some(node),
        // Only mirrors of what it runs by itself: [`content`] sees that.
        (Verb::Create, None) => true,
        (Verb::Get | Verb::Delete, None) | (Verb::Create, Some("eviction")) => bound_here(),
        (Verb::Get | Verb::Update | Verb::Patch, Some("status")) => bound_here(),
        _ => false,
    }
}

fn node_of(pod: &Object) -> Option<&str> {
    pod.get::<Pod>()?.spec.as_ref()?.node_name.as_deref()
}

fn may_read(node: &str, kind: Kind, namespace: &str, name: &str, state: &Snapshot) -> bool {
    if kind == Kind::ConfigMap && (namespace, name) == SETTINGS {
        return true;
    }
    let mut pods = state.pods_on(node).filter(|pod| pod.key().namespace == namespace);
    pods.any(|pod| pod.get::<Pod>().and_then(|pod| pod.spec.as_ref()).is_some_and(|spec| refers(spec, kind, name)))
}

/// The claims of a node's pods: namespace and name.
fn claims_of<'s>(node: &str, state: &'s Snapshot) -> impl Iterator<Item = (&'s str, String)> {
    let pods = state.pods_on(node).filter_map(|object| Some((object.key().namespace.as_str(), object.get::<Pod>()?)));
    pods.flat_map(|(namespace, pod)| volume::claims(pod).map(move |claimed| (namespace, claimed.claim)))
}

/// Whether a pod names this object in its namespace.
fn refers(spec: &PodSpec, kind: Kind, name: &str) -> bool {
    match kind {
        Kind::ServiceAccount => spec.service_account_name.as_deref() == Some(name),
        Kind::Secret => secrets(spec).contains(name),
        Kind::ConfigMap => config_maps(spec).contains(name),
        _ => false,
    }
}

fn volumes(spec: &PodSpec) -> impl Iterator<Item = &Volume> {
    spec.volumes.iter().flatten()
}

/// The three lists of containers; ephemeral ones have the same env in another type.
fn each_env<'a>(
    spec: &'a PodSpec,
    mut see: impl FnMut(Option<&'a k8s_openapi::api::core::v1::EnvVarSource>, &'a Option<Vec<k8s_openapi::api::core::v1::EnvFromSource>>),
) {
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for variable in container.env.iter().flatten() {
            see(variable.value_from.as_ref(), &None);
        }
        see(None, &container.env_from);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        for variable in container.env.iter().flatten() {
            see(variable.value_from.as_ref(), &None);
        }
        see(None, &container.env_from);
    }
}

fn secrets(spec: &PodSpec) -> BTreeSet<&str> {
    let mut names: BTreeSet<&str> = spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.as_str()).collect();
    for volume in volumes(spec) {
        names.extend(volume.secret.as_ref().and_then(|secret| secret.secret_name.as_deref()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            names.extend(source.secret.as_ref().map(|secret| secret.name.as_str()));
        }
    }
    each_env(spec, |variable, from| {
        names.extend(variable.and_then(|source| source.secret_key_ref.as_ref()).map(|key| key.name.as_str()));
        names.extend(from.iter().flatten().filter_map(|source| source.secret_ref.as_ref()).map(|secret| secret.name.as_str()));
    });
    names
}

fn config_maps(spec: &PodSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for volume in volumes(spec) {
        names.extend(volume.config_map.as_ref().map(|map| map.name.as_str()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            names.extend(source.config_map.as_ref().map(|map| map.name.as_str()));
        }
    }
    each_env(spec, |variable, from| {
        names.extend(variable.and_then(|source| source.config_map_key_ref.as_ref()).map(|key| key.name.as_str()));
        names.extend(from.iter().flatten().filter_map(|source| source.config_map_ref.as_ref()).map(|map| map.name.as_str()));
    });
    names
}

#[cfg(test)]
mod tests;
