//! The volumes that `podbay.dev/local-path` makes for claims: each a directory of one node. PURE.
//!
//! ```text
//! scheduler: claim ← node ──► control: PersistentVolume ──► binding ──► the node's agent: the directory, at the first pod
//! claim gone ──► control: the volume is to go ──► the agent: the directory goes, then the finalizer
//! ```
//!
//! Names of annotations are Kubernetes' own (kubernetes.io, "Well-Known Labels, Annotations and Taints") or begin with
//! `podbay.dev/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use k8s_openapi::api::storage::v1::StorageClass;

use super::Object;
use super::volume::{FILESYSTEM, NO_PROVISIONER, ONE_POD, PersistentVolume, VOLUME_PROTECTION, mode_of};

/// The provisioner, and the finalizer of a volume whose directory is not removed yet.
pub const LOCAL_PATH: &str = "podbay.dev/local-path";
/// On a claim: the node that the scheduler has chosen for a volume that is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume. Kubernetes' volume controller writes both (`setClaimProvisioner`).
pub const STORAGE_PROVISIONER: [&str; 2] = ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Label of a volume: the node whose directory it is, and which may see it therefore.
pub const HOME: &str = "podbay.dev/node";
/// On a Node: the directory of its volumes.
pub const VOLUMES: &str = "podbay.dev/volumes";
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Bytes of a node's directory (Linux' `PATH_MAX` less room for what is in it).
const PATH_LIMIT: usize = 3072;
/// Begins the name of every volume that is made for a claim, as in Kubernetes.
const PREFIX: &str = "pvc-";

/// The name of the volume that is made for a claim.
pub fn name_for(claim_uid: &str) -> String {
    format!("{PREFIX}{claim_uid}")
}

/// Who makes volumes of a class, if anybody does: what Kubernetes made itself once is made by nobody here.
pub fn maker(class: &StorageClass) -> Option<&str> {
    let nobody = class.provisioner == NO_PROVISIONER || class.provisioner.starts_with("kubernetes.io/");
    (!nobody).then_some(class.provisioner.as_str())
}

/// Whether a directory of one node can be what a claim asks for.
///
/// # Errors
/// Why it cannot.
pub fn possible(spec: &PersistentVolumeClaimSpec, class: &StorageClass) -> Result<(), &'static str> {
    let by_one_node = |mode: &String| mode == "ReadWriteOnce" || mode == ONE_POD;
    if !spec.access_modes.iter().flatten().all(by_one_node) {
        return Err("only the access modes ReadWriteOnce and ReadWriteOncePod are supported");
    }
    if mode_of(spec) != FILESYSTEM {
        return Err("only volumeMode Filesystem is supported");
    }
    if spec.selector.is_some() {
        return Err("claim.spec.selector is not supported");
    }
    if class.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        return Err("the class' parameters are not known");
    }
    Ok(())
}

/// Whether volumes of a class may be on a node with these labels (storage/v1's `allowedTopologies`).
pub fn allows(class: &StorageClass, labels: &BTreeMap<String, String>) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let holds = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
        let lines = term.match_label_expressions.as_deref().unwrap_or_default();
        !lines.is_empty() && lines.iter().all(|line| labels.get(&line.key).is_some_and(|value| line.values.contains(value)))
    };
    terms.is_empty() || terms.iter().any(holds)
}

/// The directory of a node's volumes, where it has told one that a volume can name: a node's word is not to keep others from
/// having theirs. Names of nodes beyond 63 characters are no values of labels.
pub fn volumes_of(node: &Object) -> Option<&str> {
    let sound =
        |path: &&str| path.starts_with('/') && path.len() <= PATH_LIMIT && !path.contains('\0') && !path.split('/').any(|it| it == "..");
    node.annotation(VOLUMES).filter(sound).filter(|_| node.key().name.len() <= 63)
}

/// Who made a volume; people do not say.
pub fn made_by(volume: &PersistentVolume) -> Option<&str> {
    volume.metadata.annotations.as_ref()?.get(PROVISIONED_BY).map(String::as_str)
}

/// The node whose directory a volume says it is.
pub fn home(volume: &PersistentVolume) -> Option<&str> {
    let home = || volume.metadata.labels.as_ref()?.get(HOME).map(String::as_str);
    home().filter(|_| made_by(volume) == Some(LOCAL_PATH))
}

/// The same of any object.
pub fn is_home(object: &Object, node: &str) -> bool {
    object.get::<PersistentVolume>().is_some_and(|volume| home(volume) == Some(node))
}

/// Whether nobody has a volume any more, and what it holds is to be removed by its node.
pub fn is_to_be_removed(volume: &PersistentVolume) -> bool {
    let holds = |finalizer: &str| volume.metadata.finalizers.iter().flatten().any(|known| known == finalizer);
    let to_be_deleted = volume.spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    volume.metadata.deletion_timestamp.is_some() && to_be_deleted && holds(LOCAL_PATH) && !holds(VOLUME_PROTECTION)
}

/// Where a volume is among a node's volumes; `None`: it is none of them, whatever else it says of itself.
pub fn directory(volume: &PersistentVolume, node: &str, volumes: &Path) -> Option<PathBuf> {
    let name = volume.name();
    let plain = |uid: &str| !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let path = volumes.join(name);
    let is_it = home(volume) == Some(node)
        && name.strip_prefix(PREFIX).is_some_and(plain)
        && volume.spec.local.is_some()
        && Path::new(volume.path()).as_os_str() == path.as_os_str();
    is_it.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    type Change = fn(&mut Value);

    fn volume(change: impl FnOnce(&mut Value)) -> PersistentVolume {
        let mut value = json!({"metadata": {"name": "pvc-a-1", "labels": {(HOME): "n1"}, "annotations": {(PROVISIONED_BY): LOCAL_PATH}},
            "spec": {"local": {"path": "/data/volumes/pvc-a-1"}}});
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_directory_is_a_volumes_if_everything_says_so() {
        let found = |change: fn(&mut Value)| directory(&volume(change), "n1", Path::new("/data/volumes"));
        assert_eq!(found(|_| ()), Some("/data/volumes/pvc-a-1".into()));
        let changes: [(&str, Change); 9] = [
            ("of another node", |it| it["metadata"]["labels"][HOME] = json!("n2")),
            ("of no node", |it| it["metadata"]["labels"] = json!({})),
            ("made by another", |it| it["metadata"]["annotations"][PROVISIONED_BY] = json!("rancher.io/local-path")),
            ("made by a person", |it| it["metadata"]["annotations"] = json!({})),
            ("of another name", |it| it["metadata"]["name"] = json!("pvc-b-1")),
            ("elsewhere", |it| it["spec"]["local"]["path"] = json!("/etc")),
            ("by a way around", |it| it["spec"]["local"]["path"] = json!("/data/volumes/x/../pvc-a-1")),
            ("above", |it| {
                it["metadata"]["name"] = json!("pvc-..");
                it["spec"]["local"]["path"] = json!("/data/volumes/pvc-..");
            }),
            ("no local volume", |it| it["spec"] = json!({"hostPath": {"path": "/data/volumes/pvc-a-1"}})),
        ];
        for (what, change) in changes {
            assert_eq!(found(change), None, "{what}");
        }
        let named = |name: &str| {
            let it = volume(|it| {
                it["metadata"]["name"] = json!(name);
                it["spec"]["local"]["path"] = json!(format!("/data/volumes/{name}"));
            });
            directory(&it, "n1", Path::new("/data/volumes"))
        };
        for name in ["data", "pvc-", "pvc-a/../../x", "pvc-a.b", ""] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn a_node_names_a_directory_that_can_be_named() {
        let of = |name: &str, path: &str| {
            let node = json!({"metadata": {"name": name, "annotations": {(VOLUMES): path}}});
            volumes_of(&Object::from_value(super::super::Kind::Node, node).unwrap()).is_some()
        };
        assert!(of("n1", "/var/lib/podbay/volumes") && of(&"n".repeat(63), "/v"));
        for path in ["", "volumes", "/a/../b", "/a\0b", &format!("/{}", "a".repeat(4096))] {
            assert!(!of("n1", path), "{path:?}");
        }
        assert!(!of(&"n".repeat(64), "/v"));
    }

    #[test]
    fn topologies_are_alternatives_and_their_lines_hold_together() {
        let line = |key: &str, values: &[&str]| json!({"key": key, "values": values});
        let labels: BTreeMap<String, String> = [("zone", "a"), ("disk", "fast")].map(|(name, value)| (name.into(), value.into())).into();
        for (terms, allowed) in [
            (json!(null), true),
            (json!([]), true),
            (json!([{}]), false),
            (json!([{"matchLabelExpressions": [line("zone", &["b", "a"]), line("disk", &["fast"])]}]), true),
            (json!([{"matchLabelExpressions": [line("zone", &["a"]), line("disk", &["slow"])]}]), false),
            (json!([{"matchLabelExpressions": [line("none", &["a"])]}, {"matchLabelExpressions": [line("zone", &["a"])]}]), true),
        ] {
            let class: StorageClass = serde_json::from_value(json!({"provisioner": "a/b", "allowedTopologies": terms})).unwrap();
            assert_eq!(allows(&class, &labels), allowed, "{terms}");
        }
    }
}
