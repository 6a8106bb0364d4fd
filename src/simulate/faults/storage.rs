//! Volumes in the storms: people make, claim and take away storage, and nodes remove directories.

use serde_json::{Value, json};

use super::{Chaos, object};
use crate::model::local_volume::{HOSTNAME, LOCAL_PATH, VOLUMES, home};
use crate::model::volume::{DEFAULT_CLASS, NO_PROVISIONER, PersistentVolume};
use crate::model::{Key, Kind};
use crate::simulate::kubelet;
use crate::store::transaction::{Precondition, Write};

/// Kinds of which nothing is left once people have taken everything away.
pub const KINDS: [Kind; 3] = [Kind::PersistentVolumeClaim, Kind::PersistentVolume, Kind::StorageClass];
const CLASSES: [(&str, &str, &str, &str); 4] = [
    ("made", LOCAL_PATH, "WaitForFirstConsumer", "Delete"),
    ("kept", LOCAL_PATH, "WaitForFirstConsumer", "Retain"),
    ("late", NO_PROVISIONER, "WaitForFirstConsumer", "Delete"),
    ("soon", NO_PROVISIONER, "Immediate", "Delete"),
];
/// What some operator's finalizer holds.
pub const HELD: &str = "storm.example.com/held";
const SIZES: [&str; 3] = ["1Gi", "2Gi", "3Gi"];

impl Chaos {
    /// What there is of storage before the storm.
    pub fn has_storage(&mut self) {
        for node in self.world.state.list(Kind::Node).take(2).cloned().collect::<Vec<_>>() {
            let name = node.key().name.clone();
            let told = node.edit_meta(|meta| {
                meta.annotations.get_or_insert_default().insert(VOLUMES.to_owned(), "/data/volumes".to_owned());
                meta.labels.get_or_insert_default().insert(HOSTNAME.to_owned(), name);
            });
            self.write(Write::Update(told, Precondition::exists()));
        }
        for at in 0..CLASSES.len() {
            self.class_comes_or_goes(at);
        }
        for at in 0..3 {
            self.claim_comes_or_goes(at);
            self.storage_pod_comes_or_goes(at);
        }
    }

    pub fn storage_changes(&mut self) {
        let at = self.dice.below(4);
        match self.dice.below(14) {
            0 => self.class_comes_or_goes(at),
            1..3 => self.claim_comes_or_goes(at),
            3..5 => self.volume_comes_or_goes(at),
            5..8 => self.storage_pod_comes_or_goes(at),
            8 => self.class_is_edited(at),
            9 => self.claim_is_edited(),
            10 => self.pods_let_go(),
            _ => self.volume_is_edited(),
        }
    }

    fn class_comes_or_goes(&mut self, at: usize) {
        let (name, provisioner, mode, policy) = CLASSES[at];
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": policy});
        self.comes_or_goes(object(Kind::StorageClass, class));
    }

    fn class_is_edited(&mut self, at: usize) {
        let is_default = self.dice.percent(50).to_string();
        self.is_edited(&Key::cluster(Kind::StorageClass, CLASSES[at].0), |found| {
            found.edit_meta(|meta| {
                meta.annotations.get_or_insert_default().insert(DEFAULT_CLASS.to_owned(), is_default);
            })
        });
    }

    fn claim_spec(&mut self) -> Value {
        let mode = if self.dice.percent(30) { "ReadWriteOncePod" } else { "ReadWriteOnce" };
        let mut spec = json!({"accessModes": [mode], "resources": {"requests": {"storage": SIZES[self.dice.below(3)]}}});
        match self.dice.below(8) {
            4 => spec["storageClassName"] = json!(""),
            5 => {}
            class @ 0..4 => spec["storageClassName"] = json!(CLASSES[class].0),
            _ => spec["storageClassName"] = json!("late"),
        }
        spec
    }

    fn claim_comes_or_goes(&mut self, at: usize) {
        let mut spec = self.claim_spec();
        if self.dice.percent(15) {
            spec["volumeName"] = json!(format!("v{}", self.dice.below(4)));
        }
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": format!("c{at}"), "namespace": "web"}, "spec": spec});
        self.comes_or_goes(object(Kind::PersistentVolumeClaim, claim));
    }

    fn claim_is_edited(&mut self) {
        let all: Vec<Key> = self.world.state.list(Kind::PersistentVolumeClaim).map(|it| it.key().clone()).collect();
        let Some(key) = all.get(self.dice.below(all.len())) else { return };
        let (is_freed, label) = (self.dice.percent(40), SIZES[self.dice.below(3)]);
        self.is_edited(key, |found| {
            found.edit_meta(|meta| match is_freed {
                // A pod's own is no longer its.
                true => meta.owner_references = None,
                false => drop(meta.labels.get_or_insert_default().insert("is".to_owned(), label.to_owned())),
            })
        });
    }

    fn volume_comes_or_goes(&mut self, at: usize) {
        let class = ["late", "late", "soon", "", "made"][self.dice.below(5)];
        let policy = ["Retain", "Delete"][self.dice.below(2)];
        let mut spec = json!({"capacity": {"storage": SIZES[self.dice.below(3)]}, "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"],
            "storageClassName": class, "persistentVolumeReclaimPolicy": policy});
        if self.dice.percent(50) {
            spec["hostPath"] = json!({"path": "/srv"});
        } else {
            let line = json!({"key": HOSTNAME, "operator": "In", "values": [format!("n{}", self.dice.below(3))]});
            spec["local"] = json!({"path": "/srv"});
            spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [line]}]}});
        }
        if self.dice.percent(20) {
            spec["claimRef"] = json!({"name": format!("c{}", self.dice.below(4)), "namespace": "web"});
        }
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("v{at}")}, "spec": spec});
        self.comes_or_goes(object(Kind::PersistentVolume, volume));
    }

    fn volume_is_edited(&mut self) {
        let all: Vec<Key> = self.world.state.list(Kind::PersistentVolume).map(|it| it.key().clone()).collect();
        let Some(key) = all.get(self.dice.below(all.len())) else { return };
        let (what, policy) = (self.dice.below(5), ["Retain", "Delete"][self.dice.below(2)]);
        if what == 0 {
            // A person who does not wait for it.
            return self.is_asked_to_go(key);
        }
        let change = |volume: &mut PersistentVolume| match what {
            1 => volume.spec.claim_ref = None,
            2 => volume.spec.persistent_volume_reclaim_policy = Some(policy.to_owned()),
            3 => volume.metadata.labels = None,
            _ => volume.metadata.labels = Some([("is".to_owned(), policy.to_owned())].into()),
        };
        self.is_edited(key, |found| found.edit(change).unwrap_or(found));
    }

    /// A pod with a claim: one that is there or not, or one of its own.
    fn storage_pod_comes_or_goes(&mut self, at: usize) {
        let volume = if self.dice.percent(30) {
            json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": self.claim_spec()}}})
        } else {
            json!({"name": "v", "persistentVolumeClaim": {"claimName": format!("c{}", self.dice.below(4))}})
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{at}"), "namespace": "web"},
            "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [volume]}});
        let is_held = self.dice.percent(50);
        self.comes_or_goes(object(Kind::Pod, pod).edit_meta(|meta| meta.finalizers = is_held.then(|| vec![HELD.to_owned()])));
    }

    /// What holds pods whose processes are gone lets go.
    fn pods_let_go(&mut self) {
        for pod in self.world.state.list(Kind::Pod).filter(|pod| pod.has_finalizer(HELD)).cloned().collect::<Vec<_>>() {
            self.is_edited(pod.key(), |found| found.without_finalizer(HELD));
        }
    }

    /// A node that lives removes what is to go.
    pub fn directories_go(&mut self) {
        for volume in self.world.state.list(Kind::PersistentVolume).cloned().collect::<Vec<_>>() {
            let is_there = volume.get::<PersistentVolume>().and_then(home).is_some_and(|node| !self.dead.contains(node));
            if let Some(op) = kubelet::removed(&self.world.state, &volume).filter(|_| is_there) {
                self.write(op.into_write());
            }
        }
    }

    /// People take everything away.
    pub fn storage_ends(&mut self) {
        self.pods_let_go();
        let pods = self.world.state.list(Kind::Pod).filter(|pod| pod.meta().owner_references.is_none());
        let mut keys: Vec<Key> = pods.map(|pod| pod.key().clone()).collect();
        keys.extend(KINDS.into_iter().flat_map(|kind| self.world.state.list(kind)).map(|it| it.key().clone()));
        keys.iter().for_each(|key| self.is_asked_to_go(key));
    }
}
