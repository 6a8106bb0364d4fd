//! Volumes in the order in which claims take them, so that a claim looks at few of many. PURE.
//!
//! Free volumes lie by class, mode and the nodes they are for; of those that fit a claim it gets the one that others can use
//! the least, then the smallest, then by name. A volume that is taken is off the shelf; what is kept for a claim never is on it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, VolumeNodeAffinity};

use super::quantity::Quantity;
use super::selector::{Selector, SelectorError};
use super::volume::{self, PersistentVolume};
use super::{Key, Object};

type Labels = BTreeMap<String, String>;

/// Its size and its name: the less, the sooner it is taken.
type Rank<'v> = (Quantity, &'v str);

/// Nodes that a volume can be had on.
type Place = usize;

/// Where on the shelf a volume is: class, mode, place, access modes.
type Slot<'v> = (&'v str, &'v str, Place, usize);

#[derive(Debug, Default)]
pub struct Shelf<'v> {
    /// Those that name a claim, by its key.
    kept: BTreeMap<Key, Vec<&'v PersistentVolume>>,
    /// By class, mode, place and how many access modes they have.
    free: BTreeMap<Slot<'v>, BTreeMap<Rank<'v>, &'v PersistentVolume>>,
    /// The most access modes that one has.
    most_modes: usize,
    /// What the places are, each once, as it is written.
    places: BTreeMap<String, (Place, &'v PersistentVolume)>,
    is_by_node: bool,
}

/// What a claim asks of a volume.
#[derive(Debug)]
pub struct Want<'c> {
    class: &'c str,
    mode: &'c str,
    size: Quantity,
    modes: &'c [String],
    selector: Option<Result<Selector, SelectorError>>,
}

impl<'c> Want<'c> {
    pub fn of(claim: &'c PersistentVolumeClaimSpec) -> Self {
        Self {
            class: volume::class(claim),
            mode: volume::mode_of(claim),
            size: volume::size(claim),
            modes: claim.access_modes.as_deref().unwrap_or_default(),
            selector: claim.selector.as_ref().map(Selector::of),
        }
    }

    /// By a volume that is of its class and mode, and large enough.
    fn is_met_by(&self, volume: &PersistentVolume) -> bool {
        let has = |mode: &String| volume.spec.access_modes.iter().flatten().any(|known| known == mode);
        let none = Labels::new();
        let selects = |selector: &Selector| selector.matches(volume.metadata.labels.as_ref().unwrap_or(&none));
        // A selector that says nothing sensible selects nothing.
        let is_selected = self.selector.as_ref().is_none_or(|selector| selector.as_ref().is_ok_and(selects));
        self.modes.iter().all(has) && is_selected
    }
}

impl<'v> Shelf<'v> {
    /// For claims that do not ask where a volume is.
    pub fn new(volumes: impl Iterator<Item = &'v PersistentVolume>) -> Self {
        Self::default().with(volumes)
    }

    /// For claims that get a volume together with a node.
    pub fn by_node(volumes: impl Iterator<Item = &'v PersistentVolume>) -> Self {
        Self { is_by_node: true, ..Self::default() }.with(volumes)
    }

    fn with(mut self, volumes: impl Iterator<Item = &'v PersistentVolume>) -> Self {
        for volume in volumes {
            if let Some(to) = &volume.spec.claim_ref {
                self.kept.entry(volume::claim_key(to)).or_default().push(volume);
            } else if volume.metadata.deletion_timestamp.is_none() && volume.phase() != "Failed" {
                let (slot, rank) = self.slot(volume);
                self.most_modes = self.most_modes.max(slot.3);
                self.free.entry(slot).or_default().insert(rank, volume);
            }
        }
        self
    }

    fn slot(&mut self, volume: &'v PersistentVolume) -> (Slot<'v>, Rank<'v>) {
        let affinity = volume.spec.node_affinity.as_ref().filter(|_| self.is_by_node);
        let next = self.places.len();
        let (place, _) = *self.places.entry(written(affinity)).or_insert((next, volume));
        let modes = volume.spec.access_modes.iter().flatten().count();
        ((volume.class(), volume.mode(), place, modes), (volume.size(), volume.name()))
    }

    /// The places whose volumes a node can have.
    pub fn places(&self, node: &str, labels: &Labels) -> Vec<Place> {
        self.places.values().filter(|(_, one)| one.suits_node(node, labels)).map(|(place, _)| *place).collect()
    }

    /// What a person keeps for the claim, if it is one that it can have.
    pub fn kept(&self, claim: &Object, spec: &PersistentVolumeClaimSpec) -> Option<&'v PersistentVolume> {
        let mut named = self.kept.get(claim.key()).into_iter().flatten().copied();
        named.find(|volume| volume.is_kept_for(claim) && volume.mismatch(spec).is_none())
    }

    /// The best free one.
    pub fn best(&self, want: &Want<'_>) -> Option<&'v PersistentVolume> {
        self.best_at(want, &[0], |_| false)
    }

    /// The best free one at these places that is not spoken for.
    pub fn best_at(&self, want: &Want<'_>, places: &[Place], is_taken: impl Fn(&str) -> bool) -> Option<&'v PersistentVolume> {
        let first = |modes: usize, place: &Place| {
            let all = self.free.get(&(want.class, want.mode, *place, modes))?;
            let large_enough = all.range((want.size, "")..);
            large_enough.into_iter().find(|((_, name), volume)| !is_taken(name) && want.is_met_by(volume))
        };
        let best = |modes| places.iter().filter_map(|place| first(modes, place)).min_by_key(|(rank, _)| **rank);
        (0..=self.most_modes).find_map(best).map(|(_, volume)| *volume)
    }

    /// It is somebody's now.
    pub fn take(&mut self, volume: &'v PersistentVolume) {
        let (slot, rank) = self.slot(volume);
        if let Some(all) = self.free.get_mut(&slot) {
            all.remove(&rank);
        }
    }
}

/// What tells the places apart.
fn written(affinity: Option<&VolumeNodeAffinity>) -> String {
    // A type of texts and lists: it has no way to fail.
    affinity.map(|affinity| serde_json::to_string(affinity).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the shelf has to say, found by looking at all.
    fn plain<'v>(
        volumes: &'v [PersistentVolume],
        claim: &PersistentVolumeClaimSpec,
        node: Option<&str>,
        taken: &[String],
    ) -> Option<&'v str> {
        let labels = node.map(|node| Labels::from([("host".to_owned(), node.to_owned())])).unwrap_or_default();
        let mut fit: Vec<_> = volumes
            .iter()
            .filter(|it| it.spec.claim_ref.is_none() && it.phase() != "Failed" && it.mismatch(claim).is_none())
            .filter(|it| {
                claim
                    .selector
                    .as_ref()
                    .is_none_or(|asked| Selector::of(asked).is_ok_and(|selector| selector.matches(it.metadata.labels.as_ref().unwrap())))
            })
            .filter(|it| node.is_none_or(|node| it.suits_node(node, &labels)) && !taken.iter().any(|name| name == it.name()))
            .collect();
        fit.sort_unstable_by_key(|it| (it.spec.access_modes.iter().flatten().count(), it.size(), it.name().to_owned()));
        fit.first().map(|it| it.name())
    }

    prop_compose! {
        fn a_volume()(size in 1_u8..4, modes in 0_usize..3, class in 0_u8..2, block: bool, of in 0_usize..4, host in 0_u8..3, label in 0_u8..2) -> serde_json::Value {
            let modes = [json!(["ReadWriteOnce"]), json!(["ReadWriteOnce", "ReadOnlyMany"]), json!(["ReadOnlyMany"])][modes].clone();
            let terms = json!([{"matchExpressions": [{"key": "host", "operator": "In", "values": [format!("n{host}"), "n9"]}]}]);
            let mut made = json!({"metadata": {"labels": {"l": format!("{label}")}}, "spec": {"capacity": {"storage": format!("{size}Gi")},
                "accessModes": modes, "storageClassName": format!("c{class}"), "volumeMode": if block { "Block" } else { "Filesystem" }}});
            if host > 0 {
                made["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}});
            }
            match of {
                0 => made["spec"]["claimRef"] = json!({"name": "x", "namespace": "web"}),
                1 => made["status"] = json!({"phase": "Failed"}),
                2 => made["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                _ => {}
            }
            made
        }
    }

    prop_compose! {
        fn a_claim()(size in 1_u8..4, mode in 0_usize..2, class in 0_u8..2, block: bool, label in 0_u8..4) -> PersistentVolumeClaimSpec {
            let mode = ["ReadWriteOnce", "ReadOnlyMany"][mode];
            let mut made = json!({"accessModes": [mode], "storageClassName": format!("c{class}"),
                "resources": {"requests": {"storage": format!("{size}Gi")}}, "volumeMode": if block { "Block" } else { "Filesystem" }});
            match label {
                0 | 1 => made["selector"] = json!({"matchLabels": {"l": format!("{label}")}}),
                2 => made["selector"] = json!({"matchExpressions": [{"key": "l", "operator": "Odd"}]}),
                _ => {}
            }
            serde_json::from_value(made).unwrap()
        }
    }

    proptest! {
        #[test]
        fn a_claim_gets_what_a_look_at_all_finds(
            mut volumes in prop::collection::vec(a_volume(), 0..40), claims in prop::collection::vec(a_claim(), 0..40), node in 0_u8..3,
        ) {
            for (at, volume) in volumes.iter_mut().enumerate() {
                volume["metadata"]["name"] = json!(format!("v{at}"));
            }
            let volumes: Vec<PersistentVolume> = volumes.into_iter().map(|it| serde_json::from_value(it).unwrap()).collect();
            let (name, labels) = (format!("n{node}"), Labels::from([("host".to_owned(), format!("n{node}"))]));
            for node in [None, Some(name.as_str())] {
                let mut shelf = if node.is_some() { Shelf::by_node(volumes.iter()) } else { Shelf::new(volumes.iter()) };
                let places = if node.is_some() { shelf.places(&name, &labels) } else { vec![0] };
                let mut taken: Vec<String> = Vec::new();
                for (at, claim) in claims.iter().enumerate() {
                    let found = shelf.best_at(&Want::of(claim), &places, |name| taken.iter().any(|known| known == name));
                    prop_assert_eq!(found.map(PersistentVolume::name), plain(&volumes, claim, node, &taken), "{:?}", claim);
                    taken.extend(found.map(|it| it.name().to_owned()));
                    // As the controller does, and as the scheduler does between the claims of one pod.
                    if let Some(found) = found.filter(|_| at % 2 == 0) {
                        shelf.take(found);
                    }
                }
            }
        }
    }
}
