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
    /// Another node was equally good.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
}

/// Every volume that was made for a claim, as far as two states differ in them. `tied`: pods that could have had another node.
pub fn volumes(before: &Snapshot, after: &Snapshot, tied: &BTreeSet<Key>) -> Vec<VolumePreview> {
    let has = |state: &Snapshot, volume: &Object| state.get(volume.key()).is_some_and(|other| other.uid() == volume.uid());
    let of = |from: &Snapshot, to: &Snapshot, mark: &str| {
        let made = from.list(Kind::PersistentVolume).filter(|volume| !has(to, volume));
        made.filter_map(|volume| shown(volume.get()?, mark, after, tied)).collect::<Vec<_>>()
    };
    let mut all = [of(after, before, "+"), of(before, after, "-")].concat();
    all.sort();
    all
}

fn shown(volume: &PersistentVolume, mark: &str, state: &Snapshot, tied: &BTreeSet<Key>) -> Option<VolumePreview> {
    made_by(volume)?;
    let claim = claim_key(volume.spec.claim_ref.as_ref()?);
    let size = volume.spec.capacity.as_ref().and_then(|amounts| amounts.get("storage")).map(|size| size.0.clone());
    let of_pod = |pod: &Object| {
        let its = |pod: &Pod| claims(pod).any(|it| it.claim == claim.name);
        pod.key().namespace == claim.namespace && pod.get::<Pod>().is_some_and(its)
    };
    let node = home(volume).map(printable);
    Some(VolumePreview {
        mark: mark.to_owned(),
        claim: printable(&format!("{}/{}", claim.namespace, claim.name)),
        size: printable(&size.unwrap_or_default()),
        class: printable(volume.class()),
        tied: node.is_some() && mark == "+" && state.list(Kind::Pod).any(|pod| tied.contains(pod.key()) && of_pod(pod)),
        node,
    })
}

/// `+ web/data  1Gi of local-path on n1~`
impl fmt::Display for VolumePreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, claim, size, class, node, tied } = self;
        write!(f, "{mark} {claim}  {size} of {class}")?;
        if let Some(node) = node {
            write!(f, " on {node}{}", if *tied { "~" } else { "" })?;
        }
        if mark == "-" {
            write!(f, ", with all it holds")?;
        }
        Ok(())
    }
}
