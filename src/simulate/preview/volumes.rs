//! Which volumes are made for claims, and which go with what they hold. PURE.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::fields::printable;
use crate::model::local_volume::{home, made_by};
use crate::model::volume::{PersistentVolume, claim_key, claims};
use crate::model::{Key, Kind, Object};
use crate::store::snapshot::Snapshot;

/// One volume that is made or deleted. Its name depends on its claim's UID, which is not given yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumePreview {
    /// `+` or `-`
    pub mark: String,
    /// `web/data`
    pub claim: String,
    pub size: String,
    pub class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it holds is not removed with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// It goes once no pod uses its claim.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_use: bool,
    /// Another node was equally good.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
}

/// Every volume that was made for a claim, as far as two states differ in them. `tied`: pods that could have had another node.
pub fn volumes(before: &Snapshot, after: &Snapshot, tied: &BTreeSet<Key>) -> Vec<VolumePreview> {
    let is_in = |state: &Snapshot, volume: &Object| state.get(volume.key()).is_some_and(|other| other.uid() == volume.uid());
    let made = after.list(Kind::PersistentVolume).filter(|volume| !is_in(before, volume)).map(|volume| (volume, "+"));
    // One that is told to go goes, if not yet: its node may be away, a pod may have its claim.
    let goes = |volume: &&Object| !is_in(after, volume) || (is_leaving(after, volume) && !is_leaving(before, volume));
    let gone = before.list(Kind::PersistentVolume).filter(goes).map(|volume| (volume, "-"));
    let mut all: Vec<_> = made.chain(gone).filter_map(|(volume, mark)| shown(volume.get()?, mark, after, tied)).collect();
    all.sort_unstable();
    all
}

/// Whether a volume is deleted, or will be with its claim.
fn is_leaving(state: &Snapshot, volume: &Object) -> bool {
    let Some(now) = state.get(volume.key()) else { return false };
    let goes_with = |it: &&PersistentVolume| it.spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    now.is_deleting() || now.get().filter(goes_with).is_some_and(|it| has_leaving_claim(state, it))
}

fn has_leaving_claim(state: &Snapshot, volume: &PersistentVolume) -> bool {
    let Some(reference) = &volume.spec.claim_ref else { return false };
    let claim = state.get(&claim_key(reference)).filter(|claim| reference.uid.as_deref() == Some(claim.uid()));
    claim.is_some_and(Object::is_deleting)
}

fn shown(volume: &PersistentVolume, mark: &str, state: &Snapshot, tied: &BTreeSet<Key>) -> Option<VolumePreview> {
    made_by(volume)?;
    let claim = claim_key(volume.spec.claim_ref.as_ref()?);
    let size = volume.spec.capacity.as_ref().and_then(|amounts| amounts.get("storage")).map(|size| size.0.clone());
    let of_pod = |pod: &Object| {
        let its = |pod: &Pod| claims(pod).any(|it| it.claim == claim.name);
        pod.key().namespace == claim.namespace && pod.get::<Pod>().is_some_and(its)
    };
    let (node, policy) = (home(volume).map(printable), volume.spec.persistent_volume_reclaim_policy.as_deref());
    let has_node = home(volume).is_some_and(|node| state.find(Kind::Node, "", node).is_some());
    Some(VolumePreview {
        mark: mark.to_owned(),
        claim: printable(&format!("{}/{}", claim.namespace, claim.name)),
        size: printable(&size.unwrap_or_default()),
        class: printable(volume.class()),
        tied: node.is_some() && mark == "+" && state.list(Kind::Pod).any(|pod| tied.contains(pod.key()) && of_pod(pod)),
        in_use: mark == "-" && has_leaving_claim(state, volume),
        kept: mark == "-" && home(volume).is_some() && !(policy == Some("Delete") && has_node),
        node,
    })
}

/// `+ web/data  1Gi of local-path on n1~`
impl fmt::Display for VolumePreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, claim, size, class, node, tied, kept, in_use } = self;
        write!(f, "{mark} {claim}  {size} of {class}")?;
        if let Some(node) = node {
            write!(f, " on {node}{}", if *tied { "~" } else { "" })?;
        }
        if mark == "-" {
            write!(f, ", {}", if *kept { "what it holds stays" } else { "with all it holds" })?;
        }
        if *in_use {
            write!(f, ", once no pod uses it")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::local_volume::{HOME, LOCAL_PATH, PROVISIONED_BY};

    /// What is shown of a volume that was there, and is told to go now.
    fn going(policy: &str, node: &str) -> Vec<String> {
        let state = |deleted: bool| {
            let mut state = Snapshot::default();
            state.insert(Object::from_value(Kind::Node, json!({"metadata": {"name": "n1"}})).unwrap());
            let mut meta = json!({"name": "pvc-1", "uid": "u", "labels": {(HOME): node}, "annotations": {(PROVISIONED_BY): LOCAL_PATH}});
            if deleted {
                meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let spec = json!({"claimRef": {"namespace": "web", "name": "data"}, "capacity": {"storage": "1Gi"}, "storageClassName": "c",
                "persistentVolumeReclaimPolicy": policy, "local": {"path": "/x"}});
            state.insert(Object::from_value(Kind::PersistentVolume, json!({"metadata": meta, "spec": spec})).unwrap());
            state
        };
        assert_eq!(volumes(&state(true), &state(true), &BTreeSet::new()), [], "it was going before");
        volumes(&state(false), &state(true), &BTreeSet::new()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_goes_with_a_claim_is_told_while_a_pod_has_it() {
        let state = |policy: &str, uid: &str, claim_goes: bool| {
            let mut claim = json!({"metadata": {"namespace": "web", "name": "data", "uid": "c"}});
            if claim_goes {
                claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let meta = json!({"name": "pvc-1", "uid": "u", "labels": {(HOME): "n1"}, "annotations": {(PROVISIONED_BY): LOCAL_PATH}});
            let spec = json!({"claimRef": {"namespace": "web", "name": "data", "uid": uid}, "capacity": {"storage": "1Gi"},
                "storageClassName": "c", "persistentVolumeReclaimPolicy": policy, "local": {"path": "/x"}});
            let volume = json!({"metadata": meta, "spec": spec});
            let mut state = Snapshot::default();
            for (kind, value) in
                [(Kind::Node, json!({"metadata": {"name": "n1"}})), (Kind::PersistentVolumeClaim, claim), (Kind::PersistentVolume, volume)]
            {
                state.insert(Object::from_value(kind, value).unwrap());
            }
            state
        };
        let told = |before: &Snapshot, after: &Snapshot| -> Vec<String> {
            volumes(before, after, &BTreeSet::new()).iter().map(ToString::to_string).collect()
        };
        let stays = state("Delete", "c", false);
        assert_eq!(told(&stays, &state("Delete", "c", true)), ["- web/data  1Gi of c on n1, with all it holds, once no pod uses it"]);
        assert_eq!(told(&stays, &stays), [""; 0]);
        assert_eq!(told(&state("Delete", "c", true), &state("Delete", "c", true)), [""; 0], "it was going before");
        assert_eq!(told(&state("Retain", "c", false), &state("Retain", "c", true)), [""; 0], "the volume stays");
        assert_eq!(told(&state("Delete", "b", false), &state("Delete", "b", true)), [""; 0], "another claim of the name");
        let mut gone = Snapshot::default();
        gone.insert(Object::from_value(Kind::Node, json!({"metadata": {"name": "n1"}})).unwrap());
        assert_eq!(told(&state("Delete", "c", true), &gone), ["- web/data  1Gi of c on n1, with all it holds"]);
    }

    #[test]
    fn what_goes_is_told_before_its_node_has_removed_it() {
        assert_eq!(going("Delete", "n1"), ["- web/data  1Gi of c on n1, with all it holds"]);
        assert_eq!(going("Retain", "n1"), ["- web/data  1Gi of c on n1, what it holds stays"]);
        assert_eq!(going("Delete", "gone"), ["- web/data  1Gi of c on gone, what it holds stays"]);
    }
}
