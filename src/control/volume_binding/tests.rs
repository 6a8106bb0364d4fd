//! Binding, by tables and as a property.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::event::reference;
use crate::model::local_volume::{HOME, HOSTNAME, PROVISIONED_BY, VOLUMES, name_for};
use crate::store::transaction::{Precondition, Stamp, Transaction, Write};

struct World {
    state: Snapshot,
    uids: u64,
    notes: Vec<String>,
    waits: Vec<String>,
}

impl World {
    fn new(objects: Vec<(Kind, Value)>) -> Self {
        let mut world = Self { state: Snapshot::default(), uids: 0, notes: Vec::new(), waits: Vec::new() };
        world.create(Kind::Namespace, json!({"metadata": {"name": "web"}}));
        objects.into_iter().for_each(|(kind, value)| world.create(kind, value));
        world
    }

    fn write(&mut self, transaction: &Transaction) {
        let uids = &mut self.uids;
        let mut uid = || {
            *uids += 1;
            format!("u{uids}")
        };
        let now = Timestamp::UNIX_EPOCH;
        let applied = self.state.apply(transaction, self.state.revision() + 1, &mut Stamp { now, uid: &mut uid });
        self.state = applied.unwrap_or_else(|error| panic!("{error}")).snapshot;
    }

    fn create(&mut self, kind: Kind, mut value: Value) {
        if kind.info().namespaced {
            value["metadata"]["namespace"] = json!("web");
        }
        let object = Object::from_value(kind, value).expect("of its kind");
        self.write(&Transaction::new("controller:test").with(Write::Create(object)));
    }

    fn delete(&mut self, kind: Kind, name: &str) {
        let key = Key::new(kind, if kind.info().namespaced { "web" } else { "" }, name);
        self.write(&Transaction::new("test").with(Write::Delete { key, precondition: Precondition::exists(), grace_seconds: Some(0) }));
        self.rest();
    }

    /// Until nothing is left to do.
    fn rest(&mut self) -> &mut Self {
        for _ in 0..5 {
            let plan = plan(&self.state, Timestamp::UNIX_EPOCH);
            assert_eq!(plan.violations(&self.state), [""; 0]);
            self.notes.extend(plan.notes.iter().map(|note| note.reason.to_string()));
            self.waits = plan.waits.iter().map(|wait| format!("{}: {}", wait.subject.name, wait.reason)).collect();
            if plan.is_empty() {
                return self;
            }
            self.write(&plan.transaction("controller:volume-binding"));
        }
        panic!("comes to no rest");
    }

    fn get(&self, kind: Kind, name: &str) -> Value {
        let found = self.state.find(kind, if kind.info().namespaced { "web" } else { "" }, name);
        found.map(Object::value).unwrap_or_default()
    }

    /// `PHASE VOLUME` of a claim, `PHASE CLAIM` of a volume.
    fn claim(&self, name: &str) -> String {
        let it = self.get(Kind::PersistentVolumeClaim, name);
        format!("{} {}", it["status"]["phase"].as_str().unwrap_or("-"), it["spec"]["volumeName"].as_str().unwrap_or("-"))
    }

    fn volume(&self, name: &str) -> String {
        let it = self.get(Kind::PersistentVolume, name);
        format!("{} {}", it["status"]["phase"].as_str().unwrap_or("-"), it["spec"]["claimRef"]["name"].as_str().unwrap_or("-"))
    }
}

fn volume(name: &str, size: &str, more: Value) -> (Kind, Value) {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/srv"}});
    more.as_object().into_iter().flatten().for_each(|(name, value)| spec[name] = value.clone());
    (Kind::PersistentVolume, json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": spec}))
}

fn claim(name: &str, size: &str, more: Value) -> (Kind, Value) {
    let mut spec = json!({"resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"]});
    more.as_object().into_iter().flatten().for_each(|(name, value)| spec[name] = value.clone());
    (Kind::PersistentVolumeClaim, json!({"metadata": {"name": name}, "spec": spec}))
}

fn class(name: &str, mode: &str, provisioner: &str) -> (Kind, Value) {
    (Kind::StorageClass, json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}))
}

fn pod(name: &str, claim: &str, node: Option<&str>) -> (Kind, Value) {
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    (
        Kind::Pod,
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "volumes": volumes,
        "containers": [{"name": "c", "image": "i"}]}}),
    )
}

#[test]
fn a_claim_gets_the_smallest_that_fits() {
    let mut world = World::new(vec![
        volume("large", "5Gi", json!({})),
        volume("small", "2Gi", json!({})),
        volume("tiny", "1Gi", json!({})),
        volume("shared", "2Gi", json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})),
        volume("block", "2Gi", json!({"volumeMode": "Block"})),
        volume("classy", "2Gi", json!({"storageClassName": "x"})),
        claim("a", "2Gi", json!({})),
        claim("b", "2Gi", json!({"volumeMode": "Block"})),
        claim("c", "1Gi", json!({"accessModes": ["ReadWriteMany"]})),
        claim("d", "1Gi", json!({"selector": {"matchLabels": {"name": "large"}}})),
        claim("e", "9Gi", json!({})),
    ]);
    world.rest();
    let got = ["a", "b", "c", "d", "e"].map(|name| world.claim(name));
    assert_eq!(got, ["Bound small", "Bound block", "Bound shared", "Bound large", "Pending -"]);
    let got = ["large", "small", "tiny", "shared", "block", "classy"].map(|name| world.volume(name));
    assert_eq!(got, ["Bound d", "Bound a", "Available -", "Bound c", "Bound b", "Available -"]);
    let it = world.get(Kind::PersistentVolumeClaim, "c");
    assert_eq!(it["status"]["capacity"], json!({"storage": "2Gi"}));
    assert_eq!(it["status"]["accessModes"], json!(["ReadWriteOnce", "ReadWriteMany"]));
    assert_eq!(it["metadata"]["annotations"], json!({(BIND_COMPLETED): "yes", (BOUND_BY_CONTROLLER): "yes"}));
    assert_eq!(it["metadata"]["finalizers"], json!([CLAIM_PROTECTION]));
    assert_eq!(world.waits, ["e: FailedBinding: no persistent volumes available for this claim and no storage class is set"]);
}

#[test]
fn halves_that_name_each_other_are_bound() {
    let to = |name: &str| json!({"claimRef": {"namespace": "web", "name": name}});
    let mut world = World::new(vec![
        volume("kept", "1Gi", to("later")),
        volume("asked", "1Gi", json!({})),
        volume("taken", "1Gi", to("other")),
        claim("any", "1Gi", json!({"selector": {"matchLabels": {"name": "kept"}}})),
        claim("asks", "1Gi", json!({"volumeName": "asked"})),
        claim("late", "1Gi", json!({"volumeName": "taken"})),
        claim("none", "1Gi", json!({"volumeName": "none"})),
        claim("large", "2Gi", json!({"volumeName": "more"})),
        volume("more", "1Gi", json!({})),
    ]);
    world.rest();
    let got = ["any", "asks", "late", "none", "large"].map(|name| world.claim(name));
    assert_eq!(got, ["Pending -", "Bound asked", "Pending taken", "Pending none", "Pending more"]);
    assert_eq!((world.volume("kept"), world.volume("taken")), ("Available later".into(), "Available other".into()));
    for said in [
        "FailedBinding: volume \"taken\" already bound to a different claim.",
        "VolumeMismatch: Cannot bind to requested volume \"more\": requested PV is too small",
    ] {
        assert!(world.notes.iter().any(|note| note == said), "{:?}", world.notes);
    }
    world.create(Kind::PersistentVolumeClaim, claim("later", "1Gi", json!({})).1);
    assert_eq!(world.rest().claim("later"), "Bound kept");
    let kept = world.get(Kind::PersistentVolume, "kept");
    assert_eq!(kept["metadata"]["annotations"], Value::Null, "a person bound it");
}

#[test]
fn what_is_used_waits_with_its_end() {
    let mut world = World::new(vec![volume("v", "1Gi", json!({})), claim("c", "1Gi", json!({})), pod("p", "c", Some("n1"))]);
    world.rest();
    world.delete(Kind::PersistentVolumeClaim, "c");
    world.delete(Kind::PersistentVolume, "v");
    assert_eq!((world.claim("c"), world.volume("v")), ("Bound v".into(), "Bound c".into()), "both are held");
    world.delete(Kind::Pod, "p");
    assert_eq!((world.claim("c"), world.volume("v")), ("- -".into(), "- -".into()));
    // One that has ended and waits for its own claims holds none of them.
    for (grace, left) in [(30, "Pending -"), (0, "- -")] {
        let mut held = pod("p", "c", Some("n1"));
        held.1["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        let mut world = World::new(vec![claim("c", "1Gi", json!({})), held]);
        world.rest();
        let key = Key::new(Kind::Pod, "web", "p");
        let end = Write::Delete { key, precondition: Precondition::exists(), grace_seconds: Some(grace) };
        world.write(&Transaction::new("test").with(end));
        world.delete(Kind::PersistentVolumeClaim, "c");
        assert_eq!(world.claim("c"), left, "{grace}");
    }
    // A pod without a node holds nothing.
    let mut world = World::new(vec![claim("c", "1Gi", json!({})), pod("p", "c", None)]);
    world.rest();
    world.delete(Kind::PersistentVolumeClaim, "c");
    assert_eq!(world.claim("c"), "- -");
}

#[test]
fn a_message_names_a_few_of_many_pods() {
    let mut objects = vec![class("late", "WaitForFirstConsumer", "a/b"), claim("c", "1Gi", json!({"storageClassName": "late"}))];
    objects.extend((10..22).map(|index| pod(&format!("p{index}"), "c", None)));
    let mut world = World::new(objects);
    let said = "c: WaitForPodScheduled: waiting for pods p10,p11,p12,p13,p14,p15,p16,p17,p18,p19 and 2 more to be scheduled";
    assert_eq!(world.rest().waits, [said]);
}

#[test]
fn a_volume_without_its_claim_is_kept_or_failed() {
    let policy = |policy: &str| json!({"persistentVolumeReclaimPolicy": policy});
    let mut world = World::new(vec![
        volume("retain", "1Gi", policy("Retain")),
        volume("delete", "2Gi", policy("Delete")),
        claim("a", "1Gi", json!({})),
        claim("b", "2Gi", json!({})),
    ]);
    world.rest();
    world.delete(Kind::PersistentVolumeClaim, "a");
    world.delete(Kind::PersistentVolumeClaim, "b");
    assert_eq!((world.volume("retain"), world.volume("delete")), ("Released a".into(), "Failed b".into()));
    let why = "error getting deleter volume plugin for volume \"delete\": no deletable volume plugin matched";
    assert_eq!(world.get(Kind::PersistentVolume, "delete")["status"]["message"], why);
    // A claim of the same name is another one.
    world.create(Kind::PersistentVolumeClaim, claim("a", "1Gi", json!({})).1);
    assert_eq!(world.rest().claim("a"), "Pending -");
}

#[test]
fn a_claim_without_its_volume_is_lost() {
    let mut world = World::new(vec![volume("v", "1Gi", json!({})), claim("c", "1Gi", json!({}))]);
    world.rest();
    let object = world.state.find(Kind::PersistentVolume, "", "v").cloned().expect("there").without_finalizer(VOLUME_PROTECTION);
    world.state.insert(object);
    let key = meta_key("v");
    world.write(&Transaction::new("t").with(Write::Delete { key, precondition: Precondition::exists(), grace_seconds: None }));
    assert_eq!(world.rest().claim("c"), "Lost v");
    assert_eq!(world.waits, ["c: ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"]);
}

#[test]
fn classes_say_when_and_by_whom() {
    let of = |class: &str| json!({"storageClassName": class});
    let mut world = World::new(vec![
        class("late", "WaitForFirstConsumer", volume::NO_PROVISIONER),
        class("now", "Immediate", volume::NO_PROVISIONER),
        class("cloud", "Immediate", "example.com/disks"),
        volume("v", "1Gi", of("late")),
        claim("late", "1Gi", of("late")),
        claim("now", "1Gi", of("now")),
        claim("cloud", "1Gi", of("cloud")),
        claim("none", "1Gi", of("none")),
    ]);
    world.rest();
    assert_eq!(
        world.waits,
        [
            "cloud: ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'example.com/disks' or \
             manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered.",
            "late: WaitForFirstConsumer: waiting for first consumer to be created before binding",
            "none: ProvisioningFailed: storageclass.storage.k8s.io \"none\" not found",
            "now: ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner",
        ]
    );
    let marks = world.get(Kind::PersistentVolumeClaim, "cloud")["metadata"]["annotations"].clone();
    assert!(STORAGE_PROVISIONER.iter().all(|mark| marks[mark] == "example.com/disks"), "{marks}");
    world.create(Kind::Pod, pod("p", "late", None).1);
    world.rest();
    assert!(world.waits.contains(&"late: WaitForPodScheduled: waiting for pod p to be scheduled".to_owned()), "{:?}", world.waits);
    // What the scheduler writes.
    let volume = world.state.find(Kind::PersistentVolume, "", "v").cloned().expect("there");
    let uid = world.get(Kind::PersistentVolumeClaim, "late")["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let after = volume.edit(|it: &mut PersistentVolume| {
        it.spec.claim_ref = Some(reference(&Key::new(Kind::PersistentVolumeClaim, "web", "late"), Some(&uid)));
    });
    world.state.insert(after.expect("a volume"));
    assert_eq!(world.rest().claim("late"), "Bound v");
}

#[test]
fn who_names_no_class_gets_the_default_later_too() {
    let mut world = World::new(vec![claim("c", "1Gi", json!({})), claim("never", "1Gi", json!({"storageClassName": ""}))]);
    world.rest();
    let mut default = class("std", "Immediate", "example.com/disks").1;
    default["metadata"]["annotations"] = json!({(volume::DEFAULT_CLASS): "true"});
    world.create(Kind::StorageClass, default);
    world.rest();
    assert_eq!(world.get(Kind::PersistentVolumeClaim, "c")["spec"]["storageClassName"], "std");
    assert_eq!(world.get(Kind::PersistentVolumeClaim, "never")["spec"]["storageClassName"], "");
}

/// A cluster with a node that has a directory for volumes, and a class of them.
fn home(class_of: &str, more: Value) -> Vec<(Kind, Value)> {
    let meta = json!({"name": "n1", "labels": {(HOSTNAME): "host-1"}, "annotations": {(VOLUMES): "/data/volumes"}});
    let mut local = class("local", class_of, LOCAL_PATH);
    more.as_object().into_iter().flatten().for_each(|(name, value)| local.1[name] = value.clone());
    vec![(Kind::Node, json!({"metadata": meta})), local]
}

/// A claim of that class for which a node was chosen.
fn placed(name: &str, node: &str, more: Value) -> (Kind, Value) {
    let mut it = claim(name, "1Gi", json!({"storageClassName": "local"}));
    it.1["metadata"]["annotations"] = json!({(SELECTED_NODE): node});
    more.as_object().into_iter().flatten().for_each(|(name, value)| it.1["spec"][name] = value.clone());
    it
}

const LATE: &str = "WaitForFirstConsumer";

/// The volume that was made for a claim.
fn made(world: &World, claim: &str) -> String {
    name_for(world.get(Kind::PersistentVolumeClaim, claim)["metadata"]["uid"].as_str().unwrap_or_default())
}

#[test]
fn a_volume_is_made_where_the_scheduler_says() {
    let mut world = World::new([home(LATE, json!({})), vec![placed("c", "n1", json!({}))]].concat());
    let name = made(&world, "c");
    assert_eq!(world.rest().claim("c"), format!("Bound {name}"));
    assert_eq!(world.notes, [format!("ProvisioningSucceeded: Successfully provisioned volume {name}")]);
    let claim = world.get(Kind::PersistentVolumeClaim, "c");
    let marks = &claim["metadata"]["annotations"];
    assert!(STORAGE_PROVISIONER.iter().all(|mark| marks[mark] == LOCAL_PATH), "{marks}");
    assert_eq!(claim["status"]["capacity"], json!({"storage": "1Gi"}));
    let volume = world.get(Kind::PersistentVolume, &name);
    assert_eq!(
        (&volume["metadata"]["labels"], &volume["metadata"]["annotations"], &volume["metadata"]["finalizers"]),
        (&json!({(HOME): "n1"}), &json!({(PROVISIONED_BY): LOCAL_PATH}), &json!([VOLUME_PROTECTION, LOCAL_PATH]))
    );
    let line = json!({"key": HOSTNAME, "operator": "In", "values": ["host-1"]});
    assert_eq!(
        volume["spec"],
        json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": format!("/data/volumes/{name}")},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "web", "name": "c", "uid": name[4..]},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [line]}]}},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "local", "volumeMode": "Filesystem"})
    );
}

#[test]
fn none_is_made_that_could_not_be_had() {
    for (mode, of_class, spec, why) in [
        ("Immediate", json!({}), json!({}), None),
        (LATE, json!({}), json!({"accessModes": ["ReadWriteOncePod"]}), None),
        (LATE, json!({}), json!({"accessModes": ["ReadWriteMany"]}), Some("only the access modes ReadWriteOnce and ReadWriteOncePod are")),
        (LATE, json!({}), json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}), Some("only the access modes")),
        (LATE, json!({}), json!({"volumeMode": "Block"}), Some("only volumeMode Filesystem is supported")),
        (LATE, json!({}), json!({"selector": {"matchLabels": {"a": "b"}}}), Some("claim.spec.selector is not supported")),
        (LATE, json!({"mountOptions": ["noatime"]}), json!({}), None),
        (LATE, json!({"parameters": {"nodePath": "/srv"}}), json!({}), Some("the class' parameters are not known")),
    ] {
        let mut world = World::new([home(mode, of_class.clone()), vec![placed("c", "n1", spec)]].concat());
        world.rest();
        match why {
            None => {
                assert!(world.claim("c").starts_with("Bound pvc-"));
                let volume = world.get(Kind::PersistentVolume, &made(&world, "c"));
                assert_eq!(volume["spec"]["mountOptions"], of_class["mountOptions"], "as its class has them");
            }
            Some(why) => {
                let said = format!("c: ProvisioningFailed: failed to provision volume with StorageClass \"local\": {why}");
                assert!(world.waits.len() == 1 && world.waits[0].starts_with(&said), "{:?}", world.waits);
            }
        }
    }
    // Nobody chooses a node for it.
    let mut world = World::new([home("Immediate", json!({})), vec![claim("c", "1Gi", json!({"storageClassName": "local"}))]].concat());
    let why = "c: ProvisioningFailed: failed to provision volume with StorageClass \"local\": a volume is a directory of one node, and none \
               was chosen: the class needs volumeBindingMode WaitForFirstConsumer";
    assert_eq!(world.rest().waits, [why]);
    // Nor is one chosen for what is never made, and that is said.
    let never = claim("c", "1Gi", json!({"storageClassName": "local", "accessModes": ["ReadWriteMany"]}));
    let mut world = World::new([home(LATE, json!({})), vec![never]].concat());
    assert!(world.rest().waits[0].starts_with("c: ProvisioningFailed: "), "{:?}", world.waits);
    let elsewhere = json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": HOSTNAME, "values": ["host-2"]}]}]});
    let mut world = World::new([home(LATE, elsewhere), vec![placed("c", "n1", json!({}))]].concat());
    world.rest();
    assert_eq!(world.get(Kind::PersistentVolumeClaim, "c")["metadata"]["annotations"][SELECTED_NODE], Value::Null, "not of its class");
    // A person's has the name.
    let mut world = World::new([home(LATE, json!({})), vec![placed("c", "n9", json!({}))]].concat());
    let name = made(&world, "c");
    world.rest();
    assert_eq!(world.get(Kind::PersistentVolumeClaim, "c")["metadata"]["annotations"][SELECTED_NODE], Value::Null, "the node is gone");
    assert_eq!(world.waits, ["c: WaitForFirstConsumer: waiting for first consumer to be created before binding"]);
    let key = Key::new(Kind::PersistentVolumeClaim, "web", "c");
    let chosen = world.state.get(&key).cloned().expect("there").edit_meta(|meta| {
        meta.annotations.get_or_insert_default().insert(SELECTED_NODE.to_owned(), "n1".to_owned());
    });
    world.state.insert(chosen);
    world.create(Kind::PersistentVolume, volume(&name, "9Gi", json!({"volumeMode": "Block"})).1);
    let why = format!(
        "c: ProvisioningFailed: failed to provision volume with StorageClass \"local\": persistentvolumes \"{name}\" already exists"
    );
    assert_eq!(world.rest().waits, [why]);
}

#[test]
fn what_was_made_goes_once_its_node_has_removed_it() {
    let of_policy = |policy: &str| {
        let mut world = World::new([home(LATE, json!({"reclaimPolicy": policy})), vec![placed("c", "n1", json!({}))]].concat());
        let name = made(&world, "c");
        world.rest();
        world.delete(Kind::PersistentVolumeClaim, "c");
        (world, name)
    };
    let (mut world, name) = of_policy("Delete");
    let volume = world.get(Kind::PersistentVolume, &name);
    assert_eq!((&volume["status"]["phase"], &volume["metadata"]["finalizers"]), (&json!("Released"), &json!([LOCAL_PATH])));
    assert!(volume["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(world.waits, [format!("{name}: Terminating: node n1 removes what it holds")]);
    let key = meta_key(&name);
    let removed = world.state.get(&key).cloned().expect("there").without_finalizer(LOCAL_PATH);
    world.write(&Transaction::new("node").with(Write::Update(removed, Precondition::exists())));
    assert_eq!(world.rest().get(Kind::PersistentVolume, &name), Value::Null);
    // Or with its node.
    let (mut world, name) = of_policy("Delete");
    world.delete(Kind::Node, "n1");
    assert_eq!(world.get(Kind::PersistentVolume, &name), Value::Null);
    // What is kept is kept, also when the volume is deleted: nobody removes what it holds.
    let (mut world, name) = of_policy("Retain");
    let volume = world.get(Kind::PersistentVolume, &name);
    assert_eq!((&volume["status"]["phase"], &volume["metadata"]["finalizers"]), (&json!("Released"), &json!([VOLUME_PROTECTION])));
    world.delete(Kind::PersistentVolume, &name);
    assert_eq!(world.get(Kind::PersistentVolume, &name), Value::Null);
}

#[test]
fn who_deletes_a_volume_that_is_had_deletes_what_it_holds_later() {
    let mut world = World::new([home(LATE, json!({})), vec![placed("c", "n1", json!({}))]].concat());
    let name = made(&world, "c");
    world.rest();
    world.delete(Kind::PersistentVolume, &name);
    assert_eq!(world.claim("c"), format!("Bound {name}"));
    let held = |world: &World| world.get(Kind::PersistentVolume, &name)["metadata"]["finalizers"].clone();
    assert_eq!(held(&world), json!([VOLUME_PROTECTION, LOCAL_PATH]));
    // Its node may be away: it is had still.
    world.delete(Kind::PersistentVolumeClaim, "c");
    assert_eq!(held(&world), json!([LOCAL_PATH]));
}

#[test]
fn what_others_made_is_theirs_to_delete() {
    let mut it = volume("v", "1Gi", json!({"persistentVolumeReclaimPolicy": "Delete"}));
    it.1["metadata"]["annotations"] = json!({(PROVISIONED_BY): "example.com/disks"});
    let mut world = World::new(vec![it, claim("c", "1Gi", json!({}))]);
    world.rest();
    world.delete(Kind::PersistentVolumeClaim, "c");
    assert_eq!(world.volume("v"), "Released c");
    let volume = world.get(Kind::PersistentVolume, "v");
    assert_eq!((&volume["metadata"]["deletionTimestamp"], &volume["metadata"]["finalizers"]), (&Value::Null, &json!([VOLUME_PROTECTION])));
}

proptest! {
    /// Who is bound is bound to one that fits and is bound to it; and then there is nothing left to do (`rest` asks).
    #[test]
    fn bonds_are_one_to_one(
        volumes in prop::collection::vec((1_u8..5, 0_usize..4, 0_usize..3), 0..7),
        claims in prop::collection::vec((1_u8..5, 0_usize..4, prop::option::of(0_usize..7)), 0..7),
        gone in prop::collection::vec(0_usize..7, 0..3),
    ) {
        let modes = [json!(["ReadWriteOnce"]), json!(["ReadWriteOnce", "ReadOnlyMany"]), json!(["ReadOnlyMany"]), json!(["ReadWriteMany"])];
        let kept = [json!({}), json!({"claimRef": {"namespace": "web", "name": "c1"}}), json!({"volumeMode": "Block"})];
        let made = volumes.iter().enumerate().map(|(at, (size, mode, more))| {
            let mut made = volume(&format!("v{at}"), &format!("{size}Gi"), kept[*more].clone());
            made.1["spec"]["accessModes"] = modes[*mode].clone();
            made
        });
        let asked = claims.iter().enumerate().map(|(at, (size, mode, name))| {
            let mut asked = claim(&format!("c{at}"), &format!("{size}Gi"), json!({"accessModes": modes[*mode]}));
            if let Some(name) = name {
                asked.1["spec"]["volumeName"] = json!(format!("v{name}"));
            }
            asked
        });
        let mut world = World::new(made.chain(asked).collect());
        world.rest();
        for at in gone.iter().filter(|at| **at < claims.len()) {
            if world.claim(&format!("c{at}")) != "- -" {
                world.delete(Kind::PersistentVolumeClaim, &format!("c{at}"));
            }
        }
        let mut taken = BTreeSet::new();
        for object in world.state.list(Kind::PersistentVolumeClaim) {
            let claim = object.get::<PersistentVolumeClaim>().expect("a claim");
            if !volume::is_bound(claim) {
                continue;
            }
            let name = volume_name(claim);
            prop_assert!(taken.insert(name.to_owned()), "{name} is two claims'");
            let volume = world.state.find(Kind::PersistentVolume, "", name).and_then(|it| it.get::<PersistentVolume>()).expect("there");
            prop_assert!(volume.is_kept_for(object) && volume.mismatch(claim.spec.as_ref().expect("a spec")).is_none());
            prop_assert_eq!((world.claim(&object.key().name), volume.phase()), (format!("Bound {name}"), "Bound"));
        }
        for object in world.state.list(Kind::PersistentVolume) {
            let name = &object.key().name;
            prop_assert_eq!(world.volume(name).starts_with("Bound"), taken.contains(name), "{}", name);
        }
    }
}
