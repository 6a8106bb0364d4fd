//! What a pod's persistent volumes ask of its node, and which volume a claim gets that waits for its first pod, or on which
//! node one is made for it. Words are those of kube-scheduler's plugins VolumeBinding and VolumeRestrictions. PURE.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::table::Row;
use crate::model::local_volume::{LOCAL_PATH, SELECTED_NODE, allows, maker, possible, volumes_of};
use crate::model::shelf::{Shelf, Want};
use crate::model::volume::{self, ONE_POD, PersistentVolume};
use crate::model::{Key, Kind, Object};
use crate::plan::Op;
use crate::store::snapshot::Snapshot;

const ELSEWHERE: &str = "node(s) had volume node affinity conflict";
const NO_PLACE: &str = "node(s) had no directory for volumes";
const NONE_LEFT: &str = "node(s) didn't find available persistent volumes to bind";
const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// Claims and volumes, as far as pods that wait for a node have any.
#[derive(Debug, Default)]
pub struct Storage {
    claims: BTreeMap<Key, Object>,
    volumes: BTreeMap<String, Object>,
    /// Classes whose volumes are chosen together with a node.
    late: BTreeMap<String, Object>,
    /// Nodes that have a directory for volumes.
    homes: BTreeSet<String>,
    /// Claims of pods that have a node.
    used: BTreeSet<Key>,
}

/// A pod's claims, by what they ask.
#[derive(Debug, Default)]
pub struct Asks<'s> {
    bound: Vec<&'s PersistentVolume>,
    /// Without a volume yet.
    late: Vec<Late<'s>>,
    /// No other pod may have them.
    alone: Vec<Key>,
}

/// A claim that gets its volume together with its pod's node.
#[derive(Debug)]
struct Late<'s> {
    claim: &'s Object,
    /// The volume that a person keeps for it.
    kept: Option<&'s PersistentVolume>,
    /// What it asks of another.
    want: Want<'s>,
    /// The node on which its volume is to be made, as was decided before.
    selected: Option<&'s str>,
    /// Its class, if somebody makes volumes of it.
    made_of: Option<&'s StorageClass>,
}

/// What a claim gets on a node.
#[derive(Clone, Copy, Debug)]
pub enum Got<'s> {
    Volume(&'s PersistentVolume),
    /// One that is not there yet: the pod waits for it.
    Made,
}

/// Which volume each claim got, and who has a claim for itself, so far.
#[derive(Debug, Default)]
pub struct Chosen<'s> {
    bonds: BTreeMap<Key, &'s PersistentVolume>,
    /// The nodes on which volumes are to be made.
    made: BTreeMap<Key, String>,
    used: BTreeSet<Key>,
    /// Volumes that are free yet.
    shelf: Shelf<'s>,
    /// The places on the shelf that each node can have volumes of.
    places: BTreeMap<String, Vec<usize>>,
}

fn key(pod: &Object, claim: &str) -> Key {
    Key::new(Kind::PersistentVolumeClaim, pod.key().namespace.clone(), claim)
}

fn claims(pod: &Object) -> impl Iterator<Item = Key> {
    pod.get::<Pod>().into_iter().flat_map(volume::claims).map(|it| key(pod, &it.claim))
}

/// Whether a pod has any.
pub fn concerns(pod: &Object) -> bool {
    claims(pod).next().is_some()
}

impl Storage {
    /// Nothing where none of the pods has a claim.
    pub fn of(state: &Snapshot, pending: &[Object], nodes: &[(Object, Vec<Object>)]) -> Self {
        if !pending.iter().any(concerns) {
            return Self::default();
        }
        let late = state.list(Kind::StorageClass).filter(|class| class.get::<StorageClass>().is_some_and(volume::waits_for_consumer));
        let placed = nodes.iter().flat_map(|(_, pods)| pods);
        let running = placed.filter(|pod| pod.get::<Pod>().is_some_and(|pod| !crate::model::pod::is_terminal(pod)));
        Self {
            claims: state.list(Kind::PersistentVolumeClaim).map(|object| (object.key().clone(), object.clone())).collect(),
            volumes: state.list(Kind::PersistentVolume).map(|object| (object.key().name.clone(), object.clone())).collect(),
            late: late.map(|class| (class.key().name.clone(), class.clone())).collect(),
            homes: nodes.iter().filter(|(node, _)| volumes_of(node).is_some()).map(|(node, _)| node.key().name.clone()).collect(),
            used: running.flat_map(claims).collect(),
        }
    }

    /// Before anything is chosen.
    pub fn start(&self) -> Chosen<'_> {
        let volumes = self.volumes.values().filter_map(Object::get);
        // Where no class waits nobody asks for a free one.
        let shelf = if self.late.is_empty() { Shelf::default() } else { Shelf::by_node(volumes) };
        Chosen { shelf, ..Chosen::default() }
    }

    fn volume(&self, name: &str) -> Option<&PersistentVolume> {
        self.volumes.get(name)?.get()
    }

    /// What a pod's claims ask of a node.
    ///
    /// # Errors
    /// Why no node would do.
    pub fn asks<'s>(&'s self, pod: &Object, chosen: &Chosen<'s>) -> Result<Asks<'s>, String> {
        let (mut asks, mut unbound) = (Asks::default(), false);
        for claimed in pod.get::<Pod>().into_iter().flat_map(volume::claims) {
            let (key, name) = (key(pod, &claimed.claim), &claimed.claim);
            let found = self.claims.get(&key).and_then(|object| Some((object, object.get::<PersistentVolumeClaim>()?)));
            let Some((object, claim)) = found else {
                return Err(match claimed.ephemeral {
                    true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""),
                    false => format!("persistentvolumeclaim \"{name}\" not found"),
                });
            };
            if claimed.ephemeral && !volume::is_own(&claim.metadata, pod.uid()) {
                let home = &key.namespace;
                return Err(format!("PVC {home}/{name} was not created for pod {home}/{} (pod is not owner)", pod.key().name));
            }
            if object.is_deleting() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            let Some(spec) = &claim.spec else {
                unbound = true;
                continue;
            };
            if spec.access_modes.iter().flatten().any(|mode| mode == ONE_POD) {
                asks.alone.push(key);
            }
            let volume = volume::volume_name(claim);
            if volume::is_bound(claim) {
                match self.volume(volume) {
                    Some(found) if !found.is_kept_for(object) => return Err(format!("persistentvolumeclaim \"{name}\" is lost")),
                    Some(found) => asks.bound.push(found),
                    None => return Err(format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\"")),
                }
            } else if let Some(class) = self.late.get(volume::class(spec)).filter(|_| volume.is_empty()) {
                // A pod may name it twice.
                if asks.late.iter().all(|late| late.claim.key() != object.key()) {
                    let made_of = class.get::<StorageClass>().filter(|class| maker(class).is_some());
                    let made_of = made_of.filter(|class| class.provisioner != LOCAL_PATH || possible(spec, class).is_ok());
                    // What nobody makes is on no node yet, whatever the claim says.
                    let selected = object.annotation(SELECTED_NODE).filter(|_| made_of.is_some());
                    asks.late.push(Late { claim: object, kept: chosen.shelf.kept(object, spec), want: Want::of(spec), selected, made_of });
                }
            } else {
                unbound = true;
            }
        }
        if unbound { Err("pod has unbound immediate PersistentVolumeClaims".to_owned()) } else { Ok(asks) }
    }

    /// The volumes that a pod's claims would get on a node.
    ///
    /// # Errors
    /// Why it cannot have them there.
    pub fn on<'s>(&self, row: &Row, asks: &Asks<'s>, chosen: &Chosen<'s>) -> Result<Vec<(Key, Got<'s>)>, &'static str> {
        if asks.alone.iter().any(|claim| self.used.contains(claim) || chosen.used.contains(claim)) {
            return Err(IN_USE);
        }
        let suits = |volume: &PersistentVolume| volume.suits_node(&row.name, &row.labels);
        if !asks.bound.iter().all(|volume| suits(volume)) {
            return Err(ELSEWHERE);
        }
        let mut all: Vec<(Key, Got<'s>)> = Vec::new();
        for late in &asks.late {
            let key = late.claim.key();
            if let Some(volume) = chosen.bonds.get(key) {
                if !suits(volume) {
                    return Err(ELSEWHERE);
                }
                continue;
            }
            let got = match (late.kept, chosen.made.get(key).map(String::as_str).or(late.selected)) {
                (Some(kept), _) if !suits(kept) => return Err(ELSEWHERE),
                (Some(kept), _) => Got::Volume(kept),
                (None, Some(node)) if node != row.name => return Err(NONE_LEFT),
                (None, Some(_)) => self.made_on(row, late)?,
                (None, None) => {
                    let places = chosen.places.get(&row.name).map(Vec::as_slice).unwrap_or_default();
                    let is_taken = |name: &str| all.iter().any(|(_, got)| matches!(got, Got::Volume(taken) if taken.name() == name));
                    match chosen.shelf.best_at(&late.want, places, is_taken) {
                        Some(volume) => Got::Volume(volume),
                        None => self.made_on(row, late)?,
                    }
                }
            };
            all.push((key.clone(), got));
        }
        Ok(all)
    }

    /// A volume that is not there can be made, as far as is known.
    fn made_on<'s>(&self, row: &Row, late: &Late<'_>) -> Result<Got<'s>, &'static str> {
        let class = late.made_of.filter(|class| allows(class, &row.labels)).ok_or(NONE_LEFT)?;
        if class.provisioner == LOCAL_PATH && !self.homes.contains(&row.name) {
            return Err(NO_PLACE);
        }
        Ok(Got::Made)
    }

    /// The writes by which claims get the volumes that were chosen, and say where others are to be made.
    pub fn ops(&self, chosen: &Chosen<'_>) -> Vec<Op> {
        let mut ops = Vec::new();
        for (key, node) in &chosen.made {
            let Some(claim) = self.claims.get(key) else { continue };
            let select =
                |meta: &mut ObjectMeta| drop(meta.annotations.get_or_insert_default().insert(SELECTED_NODE.to_owned(), node.clone()));
            ops.push(Op::Update { before: claim.clone(), after: claim.clone().edit_meta(select) });
        }
        for (key, volume) in &chosen.bonds {
            let (Some(claim), Some(volume)) = (self.claims.get(key), self.volumes.get(volume.name())) else { continue };
            let (Some(mut new_claim), Some(mut new_volume)) =
                (claim.get::<PersistentVolumeClaim>().cloned(), volume.get::<PersistentVolume>().cloned())
            else {
                continue;
            };
            volume::bond(claim, &mut new_claim, &mut new_volume);
            ops.push(Op::Update { before: claim.clone(), after: Object::new(new_claim) });
            ops.push(Op::Update { before: volume.clone(), after: Object::new(new_volume) });
        }
        ops.retain(|op| !matches!(op, Op::Update { before, after } if before == after));
        ops
    }
}

impl<'s> Chosen<'s> {
    /// Before the first claim that asks for a free volume: which of them each node can have.
    pub fn look_at(&mut self, asks: &Asks<'_>, rows: &[Row]) {
        if self.places.is_empty() && !asks.late.is_empty() {
            self.places = rows.iter().map(|row| (row.name.clone(), self.shelf.places(&row.name, &row.labels))).collect();
        }
    }

    /// Remembers what a placed pod has.
    pub fn take(&mut self, asks: &Asks<'_>, node: &str, got: Vec<(Key, Got<'s>)>) {
        self.used.extend(asks.alone.iter().cloned());
        for (claim, got) in got {
            match got {
                Got::Volume(volume) => {
                    self.shelf.take(volume);
                    self.bonds.insert(claim, volume);
                }
                Got::Made => drop(self.made.insert(claim, node.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::model::local_volume::VOLUMES;
    use crate::plan::{Controller as _, Plan};
    use crate::schedule::Scheduler;
    use serde_json::{Value, json};

    fn state(objects: Vec<(Kind, Value)>) -> Snapshot {
        let mut state = Snapshot::default();
        for (kind, mut value) in objects {
            if kind.info().namespaced {
                value["metadata"]["namespace"] = json!("web");
            }
            value["metadata"]["uid"] = json!(format!("uid-{}", value["metadata"]["name"].as_str().unwrap()));
            state.insert(Object::from_value(kind, value).unwrap());
        }
        state
    }

    fn node(name: &str) -> (Kind, Value) {
        (
            Kind::Node,
            json!({"metadata": {"name": name, "labels": {"host": name}}, "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi"}, "conditions": [{"type": "Ready", "status": "True"}]}}),
        )
    }

    fn late() -> (Kind, Value) {
        class("late", volume::NO_PROVISIONER, json!(null))
    }

    fn class(name: &str, provisioner: &str, topologies: Value) -> (Kind, Value) {
        (
            Kind::StorageClass,
            json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": topologies}),
        )
    }

    fn volume(name: &str, node: &str, size: &str, claim: &str) -> (Kind, Value) {
        let terms = json!([{"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]}]);
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "local": {"path": "/x"},
            "storageClassName": "late", "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
        if !claim.is_empty() {
            spec["claimRef"] = json!({"namespace": "web", "name": claim, "uid": format!("uid-{claim}")});
        }
        (Kind::PersistentVolume, json!({"metadata": {"name": name}, "spec": spec}))
    }

    fn claim(name: &str, class: &str, volume: &str, mode: &str) -> (Kind, Value) {
        let marks = if volume.is_empty() { json!({}) } else { json!({(volume::BIND_COMPLETED): "yes"}) };
        (
            Kind::PersistentVolumeClaim,
            json!({"metadata": {"name": name, "annotations": marks}, "spec": {"storageClassName": class,
            "volumeName": volume, "accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}}),
        )
    }

    fn pod(name: &str, claims: &[&str], node: Option<&str>) -> (Kind, Value) {
        let volumes: Vec<Value> = claims
            .iter()
            .enumerate()
            .map(|(at, claim)| json!({"name": format!("v{at}"), "persistentVolumeClaim": {"claimName": claim}}))
            .collect();
        (Kind::Pod, json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [], "volumes": volumes}}))
    }

    fn planned(state: &Snapshot) -> Plan {
        let plan = Scheduler.plan(state, &Key::every(Kind::Pod), Timestamp::UNIX_EPOCH);
        assert_eq!(plan.violations(state), [""; 0]);
        plan
    }

    /// Pod and node, or pod and reason.
    fn answers(state: &Snapshot) -> Vec<String> {
        let plan = planned(state);
        let placed = plan.notes.iter().filter(|note| !note.warning).map(|note| note.reason.message.clone());
        placed.chain(plan.waits.iter().map(|wait| format!("{}: {}", wait.subject.name, wait.reason.message))).collect()
    }

    #[test]
    fn a_pod_waits_for_its_claims() {
        let once = "ReadWriteOnce";
        let mut going = claim("going", "", "", once);
        going.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut own = pod("own", &[], None);
        own.1["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
        let base = || vec![node("n1"), node("n2"), late(), claim("now", "", "", once), going.clone(), claim("lost", "", "none", once)];
        for (asks, why) in [
            (pod("p", &["none"], None), "p: 0/2 nodes are available: persistentvolumeclaim \"none\" not found."),
            (pod("p", &["going"], None), "p: 0/2 nodes are available: persistentvolumeclaim \"going\" is being deleted."),
            (pod("p", &["now"], None), "p: 0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            (
                pod("p", &["lost"], None),
                "p: 0/2 nodes are available: persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"none\".",
            ),
            (
                own.clone(),
                "own: 0/2 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim \"own-v\".",
            ),
        ] {
            assert_eq!(answers(&state([base(), vec![asks]].concat())), [why]);
        }
        let mut theirs = claim("own-v", "", "", once);
        theirs.1["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "own", "uid": "another", "controller": true}]);
        let why = "own: 0/2 nodes are available: PVC web/own-v was not created for pod web/own (pod is not owner).";
        assert_eq!(answers(&state([base(), vec![own, theirs]].concat())), [why]);
    }

    #[test]
    fn a_bound_volume_names_the_node() {
        let once = "ReadWriteOnce";
        let base = vec![node("n1"), node("n2"), volume("v1", "n1", "1Gi", "a"), volume("v2", "n2", "1Gi", "b")];
        let claims = vec![claim("a", "late", "v1", once), claim("b", "late", "v2", once)];
        let of = |pods: Vec<(Kind, Value)>| answers(&state([base.clone(), claims.clone(), pods].concat()));
        assert_eq!(of(vec![pod("p", &["b"], None)]), ["Successfully assigned web/p to n2"]);
        let why = "p: 0/2 nodes are available: 2 node(s) had volume node affinity conflict.";
        assert_eq!(of(vec![pod("p", &["a", "b"], None)]), [why]);
    }

    #[test]
    fn node_and_volume_are_chosen_together() {
        let once = "ReadWriteOnce";
        let state = state(vec![
            node("n1"),
            node("n2"),
            late(),
            volume("large", "n1", "9Gi", ""),
            volume("small", "n2", "1Gi", ""),
            volume("other", "n2", "2Gi", ""),
            claim("a", "late", "", once),
            claim("b", "late", "", once),
            claim("c", "late", "", once),
            pod("p1", &["a", "b"], None),
            pod("p2", &["a"], None),
            pod("p3", &["c"], None),
            pod("p4", &["c", "b"], None),
        ]);
        let plan = planned(&state);
        let told: Vec<&str> = plan.notes.iter().map(|note| note.reason.message.as_str()).collect();
        assert_eq!(told[..3], ["p1 to n2", "p2 to n2", "p3 to n1"].map(|it| format!("Successfully assigned web/{it}")));
        assert_eq!(told[3], "0/2 nodes are available: 2 node(s) had volume node affinity conflict.");
        let ops: Vec<String> = plan.ops.iter().map(ToString::to_string).collect();
        assert_eq!(ops.iter().filter(|op| op.contains("PersistentVolume ")).count(), 3, "{ops:?}");
        let bound = |name: &str| {
            let after = plan.ops.iter().find_map(|op| match op {
                Op::Update { before, after } if before.key().name == name => Some(after.value()),
                _ => None,
            });
            after.map(|it| it["spec"]["volumeName"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(["a", "b", "c"].map(|name| bound(name).unwrap()), ["small", "other", "large"]);
    }

    #[test]
    fn a_claim_that_is_named_twice_gets_one_volume() {
        let once = "ReadWriteOnce";
        let state =
            state(vec![node("n1"), late(), volume("v", "n1", "1Gi", ""), claim("a", "late", "", once), pod("p", &["a", "a"], None)]);
        assert_eq!(answers(&state), ["Successfully assigned web/p to n1"]);
    }

    #[test]
    fn a_volume_that_is_another_claims_places_no_pod() {
        let once = "ReadWriteOnce";
        let state = state(vec![node("n1"), volume("v", "n1", "1Gi", "b"), claim("a", "late", "v", once), pod("p", &["a"], None)]);
        assert_eq!(answers(&state), ["p: 0/1 nodes are available: persistentvolumeclaim \"a\" is lost."]);
    }

    #[test]
    fn what_is_for_one_pod_is_given_once() {
        let base = vec![node("n1"), volume("v", "n1", "1Gi", "a"), claim("a", "late", "v", ONE_POD)];
        let of = |pods: Vec<(Kind, Value)>| answers(&state([base.clone(), pods].concat()));
        let why = format!("q: 0/1 nodes are available: 1 {IN_USE}.");
        assert_eq!(of(vec![pod("p", &["a"], None), pod("q", &["a"], None)]), ["Successfully assigned web/p to n1", &why]);
        assert_eq!(of(vec![pod("p", &["a"], Some("n1")), pod("q", &["a"], None)]), [why]);
    }

    /// A node that has a directory for volumes.
    fn home(name: &str) -> (Kind, Value) {
        let mut node = node(name);
        node.1["metadata"]["annotations"] = json!({(VOLUMES): "/volumes"});
        node
    }

    fn selected(plan: &Plan) -> Vec<String> {
        let selects = |op: &Op| match op {
            Op::Update { after, .. } => Some(format!("{} on {}", after.key().name, after.annotation(SELECTED_NODE)?)),
            _ => None,
        };
        plan.ops.iter().filter_map(selects).collect()
    }

    #[test]
    fn where_none_fits_one_is_made_on_the_node_that_is_chosen() {
        let once = "ReadWriteOnce";
        let theirs = json!([{"matchLabelExpressions": [{"key": "host", "values": ["n2"]}]}]);
        let mut there = volume("there", "n2", "1Gi", "");
        there.1["spec"]["storageClassName"] = json!("local");
        let mut state = state(vec![
            node("n1"),
            home("n2"),
            home("n3"),
            class("local", LOCAL_PATH, json!(null)),
            class("theirs", "example.com/disks", theirs),
            there,
            claim("a", "local", "", once),
            claim("b", "local", "", once),
            claim("c", "theirs", "", once),
            pod("p1", &["a", "b"], None),
            pod("p2", &["b"], None),
            pod("p3", &["c"], None),
            pod("p4", &["c", "b"], None),
        ]);
        let plan = planned(&state);
        // The one that is there is taken, the other made beside it; nobody runs before.
        assert_eq!(selected(&plan), ["b on n2", "c on n2"]);
        let waits: Vec<String> = plan.waits.iter().map(|wait| format!("{}: {}", wait.subject.name, wait.reason)).collect();
        let waiting = |pod: &str| format!("{pod}: WaitForVolume: node n2 was chosen, where its volume is to be made first");
        assert_eq!(waits, ["p1", "p2", "p3", "p4"].map(waiting));
        let placed = plan.ops.iter().filter(|op| matches!(op, Op::Update { after, .. } if after.key().kind == Kind::Pod)).count();
        assert_eq!(placed, 0);
        for op in &plan.ops {
            if let Op::Update { after, .. } | Op::UpdateStatus { after, .. } = op {
                state.insert(after.clone());
            }
        }
        // What was decided stays so, and is not said again.
        let again = planned(&state);
        assert_eq!((again.ops, again.waits), (Vec::new(), plan.waits));
        // It is there, made for the claim: the pod has it at once.
        for (name, of) in [("pvc-b", "local"), ("pvc-c", "theirs")] {
            let mut made = volume(name, "n2", "1Gi", name.trim_start_matches("pvc-"));
            made.1["spec"]["storageClassName"] = json!(of);
            made.1["metadata"]["uid"] = json!(name);
            state.insert(Object::from_value(made.0, made.1).unwrap());
        }
        assert_eq!(answers(&state), ["p1", "p2", "p3", "p4"].map(|pod| format!("Successfully assigned web/{pod} to n2")));
    }

    #[test]
    fn none_is_made_where_there_is_no_place_for_it() {
        let once = "ReadWriteOnce";
        let elsewhere = json!([{"matchLabelExpressions": [{"key": "host", "values": ["n9"]}]}]);
        let base = || vec![node("n1"), class("local", LOCAL_PATH, json!(null)), class("far", "a/b", elsewhere.clone()), late()];
        for (of, why) in [
            ("local", "node(s) had no directory for volumes"),
            ("far", "node(s) didn't find available persistent volumes to bind"),
            ("late", "node(s) didn't find available persistent volumes to bind"),
        ] {
            let state = state([base(), vec![claim("a", of, "", once), pod("p", &["a"], None)]].concat());
            assert_eq!(answers(&state), [format!("p: 0/1 nodes are available: 1 {why}.")]);
        }
        // What is never made holds no room for its pod, whatever the claim says of a node.
        let base = || [base(), vec![home("n3")]].concat();
        for (mut claim, expected) in [
            (
                claim("a", "local", "", "ReadWriteMany"),
                "p: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.",
            ),
            (claim("a", "late", "", once), "Successfully assigned web/p to n1"),
        ] {
            claim.1["metadata"]["annotations"] = json!({(SELECTED_NODE): "n3"});
            let state = state([base(), vec![volume("free", "n1", "1Gi", ""), claim, pod("p", &["a"], None)]].concat());
            assert_eq!(answers(&state), [expected]);
        }
        // The node that was chosen has no room any more.
        let mut chosen = claim("a", "local", "", once);
        chosen.1["metadata"]["annotations"] = json!({(SELECTED_NODE): "n2"});
        let state = state([base(), vec![chosen, pod("p", &["a"], None)]].concat());
        assert_eq!(answers(&state), ["p: 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."]);
    }
}
