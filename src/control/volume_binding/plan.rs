//! Which volume each claim has, and what becomes of volumes whose claims are gone. Rules and words are those of Kubernetes'
//! persistent volume controller (kubernetes.io, "Persistent Volumes"). PURE.
//!
//! Volumes are made for claims as `provision` says; one that was, whose claim is gone, is deleted where its policy says so, and
//! goes once its node has removed what it held.
//!
//! ```text
//! claim:   Pending ──► Bound ──► Lost          volume:  Available ──► Bound ──► Released | Failed
//! ```
//!
//! Both halves of a bond are written in one transaction; what they say of it in their status comes with the next plan,
//! as a plan has one op an object.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::provision::{self, Refused};
use crate::model::local_volume::{self, LOCAL_PATH, SELECTED_NODE, STORAGE_PROVISIONER, maker};
use crate::model::shelf::{Shelf, Want};
use crate::model::volume::{
    self, BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, Claimed, PersistentVolume, VOLUME_PROTECTION, claim_key, volume_name,
};
use crate::model::{ApiType, Key, Kind, Object, Timestamp, pod};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

/// Who says so in events.
pub const NAME: &str = "volume-binding";
/// Pods that one message names.
const NAMED: usize = 10;

/// Its processes are gone, and only finalizers keep it (Kubernetes' `podIsShutDown`): one that waits for its own claim to go
/// would wait for ever.
fn is_over(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// An object as it was seen and as it is to be.
struct Half<'s, T> {
    seen: &'s Object,
    new: T,
    /// It is to go, once all else is so.
    ends: bool,
}

impl<'s, T: ApiType> Half<'s, T> {
    fn all(state: &'s Snapshot) -> BTreeMap<Key, Self> {
        let half = |seen: &'s Object| Some((seen.key().clone(), Self { seen, new: seen.get::<T>()?.clone(), ends: false }));
        state.list(T::KIND).filter_map(half).collect()
    }

    /// The write that makes it so: of its status only where the rest is so already.
    fn op(self, same_status: impl Fn(&T, &T) -> bool, with_status: impl Fn(&mut T, &T)) -> Option<Op> {
        let old = self.seen.get::<T>()?;
        let mut plain = self.new.clone();
        with_status(&mut plain, old);
        let before = self.seen.clone();
        let after = Object::new(plain);
        if after != before {
            return Some(Op::Update { before, after });
        }
        if !same_status(&self.new, old) {
            return Some(Op::UpdateStatus { before, after: Object::new(self.new) });
        }
        self.ends.then_some(Op::Delete { before, grace_seconds: None })
    }
}

struct Binder<'s> {
    state: &'s Snapshot,
    now: Timestamp,
    claims: BTreeMap<Key, Half<'s, PersistentVolumeClaim>>,
    volumes: BTreeMap<Key, Half<'s, PersistentVolume>>,
    /// Pods that name claims, with their claims.
    pods: Vec<(&'s Object, &'s Pod, Vec<Claimed<'s>>)>,
    /// Volumes that are made.
    made: Vec<Object>,
    /// Volumes that are free yet.
    shelf: Shelf<'s>,
    /// Pods without a node, by their claims.
    waiting: BTreeMap<Key, Vec<&'s str>>,
    plan: Plan,
}

pub fn plan(state: &Snapshot, now: Timestamp) -> Plan {
    let pods = state.list(Kind::Pod).filter_map(|object| {
        let pod = object.get::<Pod>()?;
        let claims: Vec<Claimed<'_>> = volume::claims(pod).collect();
        (!claims.is_empty()).then_some((object, pod, claims))
    });
    let pods: Vec<_> = pods.collect();
    let (claims, volumes, waiting) = (Half::all(state), Half::all(state), waiting(&pods));
    let shelf = Shelf::new(state.list(Kind::PersistentVolume).filter_map(Object::get));
    let mut binder = Binder { state, now, claims, volumes, pods, made: Vec::new(), shelf, waiting, plan: Plan::default() };
    for key in binder.in_order() {
        binder.claim(&key);
    }
    let volumes: Vec<Key> = binder.volumes.keys().cloned().collect();
    volumes.iter().for_each(|key| binder.volume(key));
    binder.keep_what_is_used();
    binder.finish()
}

fn waiting<'s>(pods: &[(&'s Object, &'s Pod, Vec<Claimed<'s>>)]) -> BTreeMap<Key, Vec<&'s str>> {
    let mut found: BTreeMap<Key, Vec<&str>> = BTreeMap::new();
    for (object, _, claims) in pods.iter().filter(|(_, pod, _)| pod::node_name(pod).is_none()) {
        let claims: BTreeSet<&String> = claims.iter().map(|it| &it.claim).collect();
        for claim in claims {
            let key = Key::new(Kind::PersistentVolumeClaim, object.key().namespace.clone(), claim.clone());
            found.entry(key).or_default().push(&object.key().name);
        }
    }
    found
}

fn meta_key(name: &str) -> Key {
    Key::cluster(Kind::PersistentVolume, name)
}

impl Binder<'_> {
    /// Who names a volume comes before who takes any, the older before the younger.
    fn in_order(&self) -> Vec<Key> {
        let mut all: Vec<_> = self.claims.iter().collect();
        all.sort_by_cached_key(|(key, half)| {
            let created = half.seen.meta().creation_timestamp.as_ref().map(|time| time.0);
            (volume_name(&half.new).is_empty(), created.is_none(), created, (*key).clone())
        });
        all.into_iter().map(|(key, _)| key.clone()).collect()
    }

    fn claim(&mut self, key: &Key) {
        let Some(half) = self.claims.get_mut(key) else { return };
        if half.seen.annotation(BIND_COMPLETED).is_some() {
            return self.bound(key);
        }
        if half.seen.is_deleting() {
            return;
        }
        let Some(spec) = half.new.spec.as_mut() else { return };
        if spec.storage_class_name.is_none() {
            spec.storage_class_name = volume::default_class(self.state.list(Kind::StorageClass)).map(str::to_owned);
        }
        let spec = spec.clone();
        match spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => self.asks_for(key, &spec, name),
            None => self.takes_any(key, &spec),
        }
    }

    /// A claim that had its volume.
    fn bound(&mut self, key: &Key) {
        let Some(half) = self.claims.get(key) else { return };
        let name = volume_name(&half.new).to_owned();
        let (code, why) = match self.volumes.get(&meta_key(&name)) {
            _ if name.is_empty() => ("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"),
            None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
            Some(volume) if volume.new.spec.claim_ref.is_none() || volume.new.is_kept_for(half.seen) => return self.bind(key, &name),
            Some(_) => ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
        };
        self.phase(key, "Lost");
        self.tell(key, true, code, why);
    }

    /// A claim that names its volume.
    fn asks_for(&mut self, key: &Key, spec: &PersistentVolumeClaimSpec, name: &str) {
        self.phase(key, "Pending");
        let Some(seen) = self.claims.get(key).map(|half| half.seen) else { return };
        let Some(volume) = self.volumes.get(&meta_key(name)) else {
            let wait = Reason::new("FailedBinding", format!("volume \"{name}\" not found"));
            return self.plan.wait(key, wait);
        };
        let is_free = volume.new.spec.claim_ref.is_none();
        if !is_free && !volume.new.is_kept_for(seen) {
            return self.tell(key, true, "FailedBinding", &format!("volume \"{name}\" already bound to a different claim."));
        }
        match volume.new.mismatch(spec) {
            Some(why) => self.tell(key, true, "VolumeMismatch", &format!("Cannot bind to requested volume \"{name}\": {why}")),
            None => self.bind(key, name),
        }
    }

    /// A claim that takes what fits.
    fn takes_any(&mut self, key: &Key, spec: &PersistentVolumeClaimSpec) {
        self.phase(key, "Pending");
        let Some(seen) = self.claims.get(key).map(|half| half.seen) else { return };
        let class = self.state.find(Kind::StorageClass, "", volume::class(spec)).and_then(|class| class.get::<StorageClass>());
        let waits = class.is_some_and(volume::waits_for_consumer);
        let kept = self.shelf.kept(seen, spec);
        let best = || if waits { None } else { self.shelf.best(&Want::of(spec)) };
        let found = kept.or_else(best).map(|volume| volume.name().to_owned());
        match found {
            Some(name) => self.bind(key, &name),
            // Where the scheduler has chosen a node, one is to be made; it chooses none for what cannot be made.
            None if waits && seen.annotation(SELECTED_NODE).is_none() && !class.is_some_and(|class| never(spec, class)) => {
                self.waits_for_pod(key)
            }
            None => self.finds_none(key, spec, class),
        }
    }

    fn waits_for_pod(&mut self, key: &Key) {
        let names = self.waiting.get(key).map(Vec::as_slice).unwrap_or_default();
        let (code, message) = match names {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            [some @ .., _] if names.len() > NAMED => {
                let (some, more) = (some[..NAMED].join(","), names.len() - NAMED);
                ("WaitForPodScheduled", format!("waiting for pods {some} and {more} more to be scheduled"))
            }
            more => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", more.join(","))),
        };
        self.tell(key, false, code, &message);
    }

    fn finds_none(&mut self, key: &Key, spec: &PersistentVolumeClaimSpec, class: Option<&StorageClass>) {
        let name = volume::class(spec);
        match class {
            _ if name.is_empty() => {
                self.tell(key, false, "FailedBinding", "no persistent volumes available for this claim and no storage class is set");
            }
            None => self.tell(key, true, "ProvisioningFailed", &format!("storageclass.storage.k8s.io \"{name}\" not found")),
            Some(class) if maker(class).is_none() => {
                self.tell(key, true, "ProvisioningFailed", &format!("no volume plugin matched name: {}", class.provisioner));
            }
            Some(class) if class.provisioner == LOCAL_PATH => self.make(key, spec, class),
            Some(class) => {
                self.is_for(key, &class.provisioner);
                let message = format!(
                    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. \
                     If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
                    class.provisioner
                );
                self.tell(key, false, "ExternalProvisioning", &message);
            }
        }
    }

    /// Says who is to make a claim's volume.
    fn is_for(&mut self, key: &Key, provisioner: &str) {
        if let Some(half) = self.claims.get_mut(key) {
            let annotations = half.new.metadata.annotations.get_or_insert_default();
            annotations.extend(STORAGE_PROVISIONER.map(|name| (name.to_owned(), provisioner.to_owned())));
        }
    }

    /// A volume for a claim, which it is bound to in the next plan.
    fn make(&mut self, key: &Key, spec: &PersistentVolumeClaimSpec, class: &StorageClass) {
        self.is_for(key, LOCAL_PATH);
        let Some(half) = self.claims.get_mut(key) else { return };
        match provision::volume(self.state, half.seen, spec, class) {
            Ok(volume) => {
                let message = format!("Successfully provisioned volume {}", volume.name());
                self.plan.note(key, false, Reason::new("ProvisioningSucceeded", message));
                self.made.push(Object::new(volume));
            }
            Err(Refused::Elsewhere) => {
                half.new.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
            }
            Err(Refused::For(why)) => {
                let class = volume::class(spec);
                self.tell(key, true, "ProvisioningFailed", &format!("failed to provision volume with StorageClass \"{class}\": {why}"));
            }
        }
    }

    /// Makes two halves one, as far as they are not.
    fn bind(&mut self, key: &Key, name: &str) {
        let (Some(claim), Some(volume)) = (self.claims.get_mut(key), self.volumes.get_mut(&meta_key(name))) else { return };
        if let Some(seen) = volume.seen.get() {
            self.shelf.take(seen);
        }
        volume::bond(claim.seen, &mut claim.new, &mut volume.new);
        let status = claim.new.status.get_or_insert_default();
        status.phase = Some("Bound".to_owned());
        status.access_modes.clone_from(&volume.new.spec.access_modes);
        status.capacity.clone_from(&volume.new.spec.capacity);
    }

    /// A phase in which a claim has nothing.
    fn phase(&mut self, key: &Key, phase: &str) {
        if let Some(half) = self.claims.get_mut(key) {
            let status = half.new.status.get_or_insert_default();
            status.phase = Some(phase.to_owned());
            (status.access_modes, status.capacity) = (None, None);
        }
    }

    fn volume(&mut self, key: &Key) {
        let Some(half) = self.volumes.get_mut(key) else { return };
        let Some(to) = half.new.spec.claim_ref.as_mut() else { return self.volume_phase(key, "Available", None) };
        let claim = self.claims.get(&claim_key(to));
        let uid = to.uid.clone().unwrap_or_default();
        let phase = match claim.filter(|claim| claim.seen.uid() == uid) {
            // Kept for a claim that is not bound yet.
            _ if uid.is_empty() => "Available",
            None => return self.released(key),
            Some(claim) if volume_name(&claim.new) == key.name => "Bound",
            Some(claim) if volume_name(&claim.new).is_empty() => "Available",
            Some(_) => {
                // Its claim has another one.
                if let Some(annotations) = &mut half.new.metadata.annotations
                    && annotations.remove(BOUND_BY_CONTROLLER).is_some()
                {
                    half.new.spec.claim_ref = None;
                } else {
                    to.uid = None;
                }
                "Available"
            }
        };
        self.volume_phase(key, phase, None);
    }

    /// Its claim is gone.
    fn released(&mut self, key: &Key) {
        let Some(half) = self.volumes.get_mut(key) else { return };
        let made_by = local_volume::made_by(&half.new);
        if half.new.spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete") || made_by.is_some() {
            half.ends = made_by == Some(LOCAL_PATH) && is_to_be_deleted(&half.new) && !half.seen.is_deleting();
            // What somebody else made is theirs to delete.
            return self.volume_phase(key, "Released", None);
        }
        // People made it: nobody knows how to delete it.
        let why = format!("error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched", key.name);
        self.volume_phase(key, "Failed", Some(&why));
        self.tell(key, true, "VolumeFailedDelete", &why);
    }

    fn volume_phase(&mut self, key: &Key, phase: &str, message: Option<&str>) {
        let Some(half) = self.volumes.get_mut(key) else { return };
        let status = half.new.status.get_or_insert_default();
        if status.phase.as_deref() != Some(phase) {
            // Times are kept to the second, as they are written.
            status.last_phase_transition_time = Timestamp::from_second(self.now.as_second()).ok().map(Time);
        }
        status.phase = Some(phase.to_owned());
        status.message = message.map(str::to_owned);
    }

    /// Finalizers: on a claim while a pod that has a node names it, on a volume while it is a claim's.
    fn keep_what_is_used(&mut self) {
        let mut used = BTreeSet::new();
        for (object, _, claims) in self.pods.iter().filter(|(_, pod, _)| pod::node_name(pod).is_some() && !is_over(pod)) {
            for it in claims {
                let key = Key::new(Kind::PersistentVolumeClaim, object.key().namespace.clone(), it.claim.clone());
                let is_its = |half: &Half<'_, PersistentVolumeClaim>| !it.ephemeral || volume::is_own(&half.new.metadata, object.uid());
                if self.claims.get(&key).is_some_and(is_its) {
                    used.insert(key);
                }
            }
        }
        for (key, half) in &mut self.claims {
            protect(&mut half.new.metadata, CLAIM_PROTECTION, used.contains(key));
            if half.seen.is_deleting() && used.contains(key) {
                self.plan.wait(key, Reason::new("Terminating", "a pod uses it"));
            }
        }
        for half in self.volumes.values_mut() {
            let is_bound = half.new.phase() == "Bound";
            protect(&mut half.new.metadata, VOLUME_PROTECTION, is_bound);
        }
        self.keep_what_holds_data();
    }

    /// A directory that is to be deleted is its node's to remove first, as long as there is one.
    fn keep_what_holds_data(&mut self) {
        for (key, half) in &mut self.volumes {
            let Some(home) = local_volume::home(&half.new).map(str::to_owned) else {
                // Somebody took away by what its node knows it: nobody will remove anything.
                if half.seen.is_deleting() {
                    let_go(&mut half.new.metadata, LOCAL_PATH);
                }
                continue;
            };
            // What was on a node that is gone is gone with it.
            let has_node = self.state.find(Kind::Node, "", &home).is_some();
            let is_its_nodes = is_to_be_deleted(&half.new) && (has_node || !half.seen.is_deleting());
            if is_its_nodes {
                protect(&mut half.new.metadata, LOCAL_PATH, true);
            } else {
                let_go(&mut half.new.metadata, LOCAL_PATH);
            }
            if local_volume::is_to_be_removed(&half.new) {
                self.plan.wait(key, Reason::new("Terminating", format!("node {home} removes what it holds")));
            }
        }
    }

    fn tell(&mut self, key: &Key, warning: bool, code: &'static str, message: &str) {
        self.plan.tell(self.state, NAME, key, warning, Reason::new(code, message));
    }

    fn finish(self) -> Plan {
        let mut plan = self.plan;
        let claims = self
            .claims
            .into_values()
            .filter_map(|half| half.op(|one, other| one.status == other.status, |to, from| to.status.clone_from(&from.status)));
        let volumes = self
            .volumes
            .into_values()
            .filter_map(|half| half.op(|one, other| one.status == other.status, |to, from| to.status.clone_from(&from.status)));
        plan.ops = claims.chain(volumes).chain(self.made.into_iter().map(Op::Create)).collect();
        plan
    }
}

/// Whether nobody ever makes a volume of its class for a claim.
fn never(spec: &PersistentVolumeClaimSpec, class: &StorageClass) -> bool {
    class.provisioner == LOCAL_PATH && local_volume::possible(spec, class).is_err()
}

/// Who is on the way out keeps the finalizer while it is used; everybody else has it.
fn protect(meta: &mut ObjectMeta, finalizer: &str, used: bool) {
    let has = meta.finalizers.iter().flatten().any(|known| known == finalizer);
    if meta.deletion_timestamp.is_none() && !has {
        meta.finalizers.get_or_insert_default().push(finalizer.to_owned());
    } else if meta.deletion_timestamp.is_some() && !used && has {
        let_go(meta, finalizer);
    }
}

fn let_go(meta: &mut ObjectMeta, finalizer: &str) {
    meta.finalizers.iter_mut().for_each(|all| all.retain(|known| known != finalizer));
    meta.finalizers = meta.finalizers.take().filter(|all| !all.is_empty());
}

fn is_to_be_deleted(volume: &PersistentVolume) -> bool {
    volume.spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
