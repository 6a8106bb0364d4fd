//! Persistent volumes and the claims on them: the volume's type, and what the fields of both mean taken together. PURE.
//!
//! The volume is a type of our own: Kubernetes' has twenty-two sources, of which two are served. What a manifest says of
//! the others is kept as it was written, so that the table of fields can refuse it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, LocalVolumeSource, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolumeClaim,
    PersistentVolumeClaimSpec, PersistentVolumeStatus, Pod, Volume, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::reference;
use super::quantity::Quantity;
use super::{Key, Kind, Object};

/// On a claim that has a volume, and on a volume or claim that the controller and no person gave its other half
/// (kubernetes.io, Labels, Annotations and Taints).
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who is used is not deleted (kubernetes.io, Persistent Volumes, "Storage Object in Use Protection").
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// `true` on the class of claims that name none.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The provisioner of a class whose volumes people make.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// One pod at a time has it.
pub const ONE_POD: &str = "ReadWriteOncePod";
pub const BLOCK: &str = "Block";
pub const FILESYSTEM: &str = "Filesystem";

/// A piece of storage of a node (core/v1's PersistentVolume).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolume {
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default = "kind")]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PersistentVolumeSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PersistentVolumeStatus>,
}

fn api_version() -> String {
    "v1".to_owned()
}
fn kind() -> String {
    "PersistentVolume".to_owned()
}

/// What it is, who may have it, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<BTreeMap<String, ApiQuantity>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_path: Option<HostPathVolumeSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalVolumeSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_options: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<VolumeNodeAffinity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_reclaim_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_attributes_class_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_mode: Option<String>,
    /// Sources that are not served.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// The sources that are not served, as their fields are called.
pub const OTHER_SOURCES: [&str; 20] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// For the agent's client, which reads one.
impl k8s_openapi::Resource for PersistentVolume {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "PersistentVolume";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "persistentvolumes";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for PersistentVolume {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

fn storage(amounts: Option<&BTreeMap<String, ApiQuantity>>) -> Quantity {
    amounts.and_then(|amounts| amounts.get("storage")).map(Quantity::of).unwrap_or_default()
}

fn mode(mode: Option<&str>) -> &str {
    mode.filter(|mode| !mode.is_empty()).unwrap_or(FILESYSTEM)
}

impl PersistentVolume {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    /// Empty: of no class.
    pub fn class(&self) -> &str {
        self.spec.storage_class_name.as_deref().unwrap_or_default()
    }
    pub fn mode(&self) -> &str {
        mode(self.spec.volume_mode.as_deref())
    }
    pub fn size(&self) -> Quantity {
        storage(self.spec.capacity.as_ref())
    }
    pub fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }
    /// Where it is on its node.
    pub fn path(&self) -> &str {
        let host = self.spec.host_path.as_ref().map(|source| source.path.as_str());
        host.or(self.spec.local.as_ref().map(|source| source.path.as_str())).unwrap_or_default()
    }

    /// Whether it can be had on this node.
    pub fn suits_node(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let required = self.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, name, labels)))
    }

    /// Whether it is this claim's, or kept for it: by name, and by UID once that is known.
    pub fn is_kept_for(&self, claim: &Object) -> bool {
        self.spec.claim_ref.as_ref().is_some_and(|to| {
            let uid = to.uid.as_deref().unwrap_or_default();
            claim_key(to) == *claim.key() && (uid.is_empty() || uid == claim.uid())
        })
    }

    /// Why it is not one for this claim, in the words of Kubernetes' volume controller (`checkVolumeSatisfyClaim`).
    pub fn mismatch(&self, claim: &PersistentVolumeClaimSpec) -> Option<String> {
        if self.metadata.deletion_timestamp.is_some() {
            return Some(format!("the volume is marked for deletion {:?}", self.name()));
        }
        let has = |mode: &String| self.spec.access_modes.iter().flatten().any(|known| known == mode);
        let why = if self.size() < size(claim) {
            "requested PV is too small"
        } else if self.class() != class(claim) {
            "storageClassName does not match"
        } else if self.mode() != mode_of(claim) {
            "incompatible volumeMode"
        } else if !claim.access_modes.iter().flatten().all(has) {
            "incompatible accessMode"
        } else {
            return None;
        };
        Some(why.to_owned())
    }
}

/// The claim that a volume's `claimRef` names.
pub fn claim_key(to: &ObjectReference) -> Key {
    Key::new(Kind::PersistentVolumeClaim, to.namespace.clone().unwrap_or_default(), to.name.clone().unwrap_or_default())
}

/// The class a claim asks for; empty: of no class.
pub fn class(claim: &PersistentVolumeClaimSpec) -> &str {
    claim.storage_class_name.as_deref().unwrap_or_default()
}

/// The volume a claim names.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

pub fn mode_of(claim: &PersistentVolumeClaimSpec) -> &str {
    mode(claim.volume_mode.as_deref())
}

/// What it asks for at least.
pub fn size(claim: &PersistentVolumeClaimSpec) -> Quantity {
    storage(claim.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

/// Whether the claim has its volume for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let completed = claim.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(BIND_COMPLETED));
    completed && !volume_name(claim).is_empty()
}

/// Makes a claim and a volume each other's, as far as they are not. What each was not told by a person is marked so.
pub fn bond(stored: &Object, claim: &mut PersistentVolumeClaim, volume: &mut PersistentVolume) {
    let mark = |meta: &mut ObjectMeta, name: &str| {
        meta.annotations.get_or_insert_default().entry(name.to_owned()).or_insert_with(|| "yes".to_owned());
    };
    if volume.spec.claim_ref.is_none() {
        mark(&mut volume.metadata, BOUND_BY_CONTROLLER);
    }
    let to = volume.spec.claim_ref.get_or_insert_default();
    if to.uid.as_deref().is_none_or(str::is_empty) {
        *to = reference(stored.key(), Some(stored.uid()));
    }
    let spec = claim.spec.get_or_insert_default();
    if spec.volume_name.as_deref().is_none_or(str::is_empty) {
        spec.volume_name.clone_from(&volume.metadata.name);
        mark(&mut claim.metadata, BOUND_BY_CONTROLLER);
    }
    mark(&mut claim.metadata, BIND_COMPLETED);
}

/// Whether volumes of this class are chosen together with a node.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The class of claims that name none: of several defaults the newest, then the first by name.
pub fn default_class<'s>(classes: impl Iterator<Item = &'s Object>) -> Option<&'s str> {
    let created = |object: &&Object| object.meta().creation_timestamp.as_ref().map(|time| time.0);
    let defaults = classes.filter(|class| class.annotation(DEFAULT_CLASS) == Some("true") && !class.is_deleting());
    let newest = defaults.max_by(|a, b| created(a).cmp(&created(b)).then_with(|| b.key().name.cmp(&a.key().name)));
    newest.map(|class| class.key().name.as_str())
}

/// A claim that a pod names in one of its volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed<'p> {
    /// The pod's volume.
    pub volume: &'p str,
    pub claim: String,
    /// It is the pod's own, made from a template.
    pub ephemeral: bool,
}

/// The claim behind a pod's volume, if there is one.
pub fn claimed<'p>(pod: &str, volume: &'p Volume) -> Option<Claimed<'p>> {
    let own = || volume.ephemeral.as_ref().map(|_| (format!("{pod}-{}", volume.name), true));
    let (claim, ephemeral) = volume.persistent_volume_claim.as_ref().map(|it| (it.claim_name.clone(), false)).or_else(own)?;
    Some(Claimed { volume: &volume.name, claim, ephemeral })
}

/// Every claim of a pod.
pub fn claims(pod: &Pod) -> impl Iterator<Item = Claimed<'_>> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter_map(move |volume| claimed(name, volume))
}

/// Whether a claim was made for this pod.
pub fn is_own(claim: &ObjectMeta, uid: &str) -> bool {
    let controls = |owner: &OwnerReference| owner.controller == Some(true) && owner.uid == uid;
    claim.owner_references.iter().flatten().any(controls)
}

/// Whether a node is one of a term's; a term that says nothing is for none (core/v1's NodeSelectorTerm).
fn holds(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let by_label = term.match_expressions.as_deref().unwrap_or_default();
    let by_field = term.match_fields.as_deref().unwrap_or_default();
    let is_one = |it: &NodeSelectorRequirement| matches(it, labels.get(&it.key).map(String::as_str));
    let is_named = |it: &NodeSelectorRequirement| it.key == "metadata.name" && matches(it, Some(name));
    (by_label.len() + by_field.len() > 0) && by_label.iter().all(is_one) && by_field.iter().all(is_named)
}

fn matches(it: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = it.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|known| known == value);
    let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match it.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(spec: Value) -> PersistentVolume {
        serde_json::from_value(json!({"metadata": {"name": "v", "labels": {"disk": "fast"}}, "spec": spec})).unwrap()
    }

    fn claim(spec: Value) -> PersistentVolumeClaimSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn terms_are_alternatives_and_their_lines_hold_together() {
        let node = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "8".to_owned())]);
        let line = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        for (terms, suits) in [
            (json!([{"matchExpressions": [line("zone", "In", &["a", "b"])]}]), true),
            (json!([{"matchExpressions": [line("zone", "NotIn", &["a"])]}]), false),
            (json!([{"matchExpressions": [line("none", "NotIn", &["a"])]}]), true),
            (json!([{"matchExpressions": [line("zone", "Exists", &[]), line("none", "DoesNotExist", &[])]}]), true),
            (json!([{"matchExpressions": [line("zone", "Exists", &[]), line("none", "Exists", &[])]}]), false),
            (json!([{"matchExpressions": [line("cores", "Gt", &["7"]), line("cores", "Lt", &["9"])]}]), true),
            (json!([{"matchExpressions": [line("zone", "Gt", &["7"])]}]), false),
            (json!([{"matchFields": [line("metadata.name", "In", &["n1"])]}]), true),
            (json!([{"matchFields": [line("metadata.name", "In", &["n2"])]}]), false),
            (json!([{}]), false),
            (json!([{}, {"matchExpressions": [line("zone", "Exists", &[])]}]), true),
        ] {
            let volume = volume(json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}));
            assert_eq!(volume.suits_node("n1", &node), suits, "{terms}");
        }
        assert!(volume(json!({})).suits_node("n1", &node));
    }

    #[test]
    fn a_volume_says_why_it_is_none_for_a_claim() {
        let large = json!({"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": "fast"});
        let asked = |class: &str, size: &str, mode: &str, access: &str| {
            claim(json!({"storageClassName": class, "volumeMode": mode, "accessModes": [access],
                "resources": {"requests": {"storage": size}}}))
        };
        for (claim, why) in [
            (asked("fast", "2Gi", FILESYSTEM, "ReadOnlyMany"), None),
            (asked("fast", "3Gi", FILESYSTEM, "ReadOnlyMany"), Some("requested PV is too small")),
            (asked("", "1Gi", FILESYSTEM, "ReadOnlyMany"), Some("storageClassName does not match")),
            (asked("fast", "1Gi", BLOCK, "ReadOnlyMany"), Some("incompatible volumeMode")),
            (asked("fast", "1Gi", FILESYSTEM, "ReadWriteMany"), Some("incompatible accessMode")),
        ] {
            assert_eq!(volume(large.clone()).mismatch(&claim).as_deref(), why, "{claim:?}");
        }
    }

    #[test]
    fn other_sources_are_kept_as_they_are_written() {
        let written = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"csi": {"driver": "d", "volumeHandle": "h"}, "capacity": {"storage": "1Gi"}}});
        let object = Object::from_value(Kind::PersistentVolume, written.clone()).unwrap();
        assert_eq!(object.value(), written);
    }

    #[test]
    fn the_newest_default_class_is_the_one() {
        let class = |name: &str, default: &str, created: &str| {
            let meta = json!({"name": name, "creationTimestamp": created, "annotations": {(DEFAULT_CLASS): default}});
            Object::from_value(Kind::StorageClass, json!({"metadata": meta, "provisioner": "a/b"})).unwrap()
        };
        let all = [
            class("old", "true", "2026-01-01T00:00:00Z"),
            class("new-b", "true", "2026-02-01T00:00:00Z"),
            class("new-a", "true", "2026-02-01T00:00:00Z"),
            class("newest", "false", "2026-03-01T00:00:00Z"),
        ];
        assert_eq!(default_class(all.iter()), Some("new-a"));
        assert_eq!(default_class(all[3..].iter()), None);
    }

    #[test]
    fn a_pods_claims_are_named_by_it_or_after_it() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "c", "emptyDir": {}}]}}))
        .unwrap();
        let found: Vec<(String, bool)> = claims(&pod).map(|it| (it.claim, it.ephemeral)).collect();
        assert_eq!(found, [("data".to_owned(), false), ("web-b".to_owned(), true)]);
    }
}
