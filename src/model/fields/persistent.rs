//! The table's part for persistent volumes, claims on them, and their classes. PURE.

use super::Row;
use super::Rule::{Acts, Harmless, Only, Refused};

/// Below a volume's `spec`.
pub(super) const VOLUME: &[Row] = &[
    ("accessModes capacity.* mountOptions storageClassName volumeMode", Acts),
    ("hostPath.path hostPath.type local.path", Acts),
    ("local.fsType", Refused("no file system is made on a volume: mount the device on the node and name the directory")),
    ("claimRef.apiVersion claimRef.kind claimRef.namespace claimRef.name claimRef.uid", Acts),
    ("claimRef.resourceVersion claimRef.fieldPath", Harmless),
    ("nodeAffinity.required.nodeSelectorTerms[].matchExpressions[].key", Acts),
    ("nodeAffinity.required.nodeSelectorTerms[].matchExpressions[].operator", Acts),
    ("nodeAffinity.required.nodeSelectorTerms[].matchExpressions[].values", Acts),
    ("nodeAffinity.required.nodeSelectorTerms[].matchFields[].key", Acts),
    ("nodeAffinity.required.nodeSelectorTerms[].matchFields[].operator", Acts),
    ("nodeAffinity.required.nodeSelectorTerms[].matchFields[].values", Acts),
    (
        "persistentVolumeReclaimPolicy",
        Only(&["Retain", "Delete"], "a volume whose claim is gone is kept, or said to be nobody's to delete: nothing is recycled"),
    ),
    ("volumeAttributesClassName", Refused(NO_ATTRIBUTES)),
    ("awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk glusterfs", Refused(OTHER)),
    ("iscsi nfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume", Refused(OTHER)),
];

const OTHER: &str = "a persistent volume is a `local` path of a node or a `hostPath`: mount what it is on the node";
const NO_ATTRIBUTES: &str = "volume attributes classes are not supported";

/// Below a claim's `spec`, and a template's.
pub(super) const CLAIM: &[Row] = &[
    ("accessModes resources.requests.* storageClassName volumeMode volumeName", Acts),
    // Kubernetes looks at no limit either.
    ("resources.limits.*", Harmless),
    ("dataSource dataSourceRef", Refused("no volume is made of another's content")),
    ("volumeAttributesClassName", Refused(NO_ATTRIBUTES)),
];

pub(super) const CLASS: &[Row] = &[
    ("mountOptions provisioner volumeBindingMode reclaimPolicy", Acts),
    ("allowedTopologies[].matchLabelExpressions[].key allowedTopologies[].matchLabelExpressions[].values", Acts),
    // For others who provision volumes; a claim of a class of `podbay.dev/local-path` with any is told why it gets none.
    ("parameters", Harmless),
    // No claim grows, and one that tries is refused.
    ("allowVolumeExpansion", Harmless),
];

/// What drivers and kubelets tell each other: our agents drive no such volumes.
pub(super) const OF_KUBELETS: &[Row] = &[("spec", Harmless)];
