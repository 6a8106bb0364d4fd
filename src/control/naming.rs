//! Names, hashes and owner references of the objects controllers make. PURE.
//!
//! A name is a hash of what it names (owner, template, index): the preview and the real run choose
//! the same one. No UID enters it, because a preview knows only placeholders for new objects.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};

use crate::model::{Key, Object, pod};
use crate::plan::Reason;

/// Letters and digits that form no words and are hard to mistake: Kubernetes' own choice.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Kubernetes keeps generated names below 63 characters: a pod's name is its hostname.
const LONGEST_BASE: usize = 57;
/// Pods one plan makes, as in Kubernetes; the next plan makes more.
pub const AT_ONCE: usize = 500;
/// Pods of one owner without a node, beyond which it makes no more. A number that slipped (a million
/// replicas) must not fill the server's memory with pods that no node has room for.
pub const WAITING: usize = 1000;

/// `length` safe characters that stand for the parts.
pub fn suffix(parts: &[&[u8]], length: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(length).map(|byte| char::from(SAFE[usize::from(*byte) % SAFE.len()])).collect()
}

/// The value of `pod-template-hash`.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // A template is plain data: it always encodes.
    let json = serde_json::to_vec(template).unwrap_or_default();
    suffix(&[&json, collisions.to_string().as_bytes()], 10)
}

/// The name of an owner's pod number `index`.
pub fn pod_name(owner: &Key, index: u64) -> String {
    let end = owner.name.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST_BASE).last().unwrap_or(0);
    let base = if owner.name.len() <= LONGEST_BASE { &owner.name } else { &owner.name[..end] };
    let base = base.trim_end_matches(['-', '.']);
    let parts: [&[u8]; 3] = [owner.namespace.as_bytes(), owner.name.as_bytes(), &index.to_be_bytes()];
    format!("{base}-{}", suffix(&parts, 5))
}

/// Names for the pods an owner makes now: the first free ones from number `first` on, `count` of
/// them, but no more than [`AT_ONCE`] and than [`WAITING`] leaves where `waiting` have no node.
pub fn free_pod_names(owner: &Key, first: u64, count: usize, waiting: usize, taken: &dyn Fn(&str) -> bool) -> Vec<String> {
    let count = count.min(AT_ONCE).min(WAITING.saturating_sub(waiting));
    let (mut names, mut chosen): (Vec<String>, BTreeSet<String>) = Default::default();
    let mut index = first;
    while names.len() < count {
        let name = pod_name(owner, index);
        if !taken(&name) && chosen.insert(name.clone()) {
            names.push(name);
        }
        index = index.wrapping_add(1);
    }
    names
}

/// How many of an owner's active pods have no node.
pub fn without_node<'a>(active: impl IntoIterator<Item = &'a Object>) -> usize {
    active.into_iter().filter(|object| object.get::<Pod>().and_then(pod::node_name).is_none()).count()
}

/// Why an owner makes no more pods at present, where it wants `more` of them.
pub fn too_many_wait(waiting: usize, more: usize) -> Option<Reason> {
    let message = || format!("{waiting} of its pods have no node; {more} more are made as those get one");
    (waiting >= WAITING && more > 0).then(|| Reason::new("PodsWaitForNodes", message()))
}

/// A reference to the owner that controls the new object.
pub fn owner_reference(owner: &Object) -> OwnerReference {
    let kind = owner.kind();
    OwnerReference {
        api_version: kind.api_version(),
        kind: kind.name().to_owned(),
        name: owner.key().name.clone(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod made from a template.
pub fn pod_of(owner: &Object, template: &PodTemplateSpec, name: String) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", owner.key().name)),
            namespace: Some(owner.key().namespace.clone()),
            owner_references: Some(vec![owner_reference(owner)]),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn names_fit_and_differ() {
        let long = Key::new(Kind::ReplicaSet, "web", "a".repeat(200));
        let name = pod_name(&long, 0);
        assert!(name.len() <= 63, "{name}");
        let owner = Key::new(Kind::ReplicaSet, "web", "nginx-57-");
        assert_ne!(pod_name(&owner, 0), pod_name(&owner, 1));
        assert!(pod_name(&owner, 0).starts_with("nginx-57-") && !pod_name(&owner, 0).contains("--"));
        let elsewhere = Key::new(Kind::ReplicaSet, "other", "nginx-57-");
        assert_ne!(pod_name(&owner, 0), pod_name(&elsewhere, 0));
    }

    #[test]
    fn taken_names_are_passed_over() {
        let owner = Key::new(Kind::Job, "web", "j");
        let first = pod_name(&owner, 0);
        let names = free_pod_names(&owner, 0, 2, 0, &|name| name == first);
        assert_eq!(names, [pod_name(&owner, 1), pod_name(&owner, 2)]);
    }

    #[test]
    fn no_number_of_pods_is_made_at_once() {
        let owner = Key::new(Kind::Job, "web", "j");
        let names = |count, waiting| free_pod_names(&owner, u64::MAX - 1, count, waiting, &|_| false).len();
        assert_eq!((names(usize::MAX, 0), names(usize::MAX, WAITING - 3), names(usize::MAX, WAITING + 3)), (AT_ONCE, 3, 0));
    }
}
