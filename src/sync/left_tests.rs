//! A source that was removed and comes back: what is its own again, and what is not.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::json;

use super::asked::Answers;
use super::inventory::{self, Inventory};
use super::left::{self, LABEL};
use super::names::PRUNE;
use super::removal;
use super::tests::{NOW, World, config};
use crate::model::{Key, Kind, Object, SourceSpec, SourceStatus};
use crate::store::Snapshot;
use crate::store::transaction::{Precondition, Write};

fn a() -> Key {
    Key::new(Kind::ConfigMap, "default", "a")
}

/// As `podbay source remove` does.
fn remove(world: &mut World, name: &str, prune: bool) {
    let mut marked = world.get_source(name);
    marked.metadata.deletion_timestamp = Some(Time(NOW));
    if prune {
        marked.metadata.annotations.get_or_insert_default().insert(PRUNE.to_owned(), "true".to_owned());
    }
    world.state.insert(Object::new(marked));
    let removal::Removal { mut transaction, noted, .. } = removal::plan(&world.state, name, &Answers::default(), NOW).unwrap();
    transaction.writes.extend(noted);
    world.commit(&transaction);
    assert!(world.state.get(&Key::cluster(Kind::Source, name)).is_none(), "it is gone");
    world.memories.remove(name);
}

fn notes(world: &World) -> usize {
    world.state.list_in(Kind::ConfigMap, "kube-system").filter(|map| map.labels().contains_key(LABEL)).count()
}

fn created(status: &SourceStatus, name: &str) -> Option<bool> {
    status.inventory.iter().find(|entry| entry.name == name).map(|entry| entry.created)
}

#[test]
fn what_a_removed_source_left_is_its_own_again_once_its_manifests_name_it() {
    let mut world = World::with("web");
    let all = ["a", "b", "c"].map(|name| config(name, "1")).concat();
    world.put("web", "r1", &[("a.yaml", &all)]);
    assert_eq!(notes(&world), 0, "nothing is noted while it is there");
    remove(&mut world, "web", false);
    assert_eq!(notes(&world), 1);
    world.source("web", |_| {});
    let status = world.put("web", "r2", &[("a.yaml", &(config("a", "2") + &config("b", "1")))]);
    assert_eq!((created(&status, "a"), created(&status, "b"), created(&status, "c")), (Some(true), Some(true), None));
    assert_eq!(status.errors, [""; 0]);
    world.put("web", "r3", &[("a.yaml", &config("b", "1"))]);
    assert!(!world.has(Kind::ConfigMap, "default", "a"), "it is pruned like before");
    assert!(world.has(Kind::ConfigMap, "default", "c"), "what no manifest has named since is left alone");
    // A second removal forgets nothing of the first.
    remove(&mut world, "web", false);
    world.source("web", |_| {});
    let status = world.put("web", "r4", &[("a.yaml", &(config("b", "1") + &config("c", "1")))]);
    assert_eq!((created(&status, "b"), created(&status, "c"), notes(&world)), (Some(true), Some(true), 0));
    world.put("web", "r5", &[("a.yaml", &config("b", "1"))]);
    assert!(!world.has(Kind::ConfigMap, "default", "c"));
}

/// Somebody of this name wrote to the object, as they do it.
fn written_by(world: &mut World, manager: &str, operation: &str) {
    let object = world.state.get(&a()).unwrap().clone();
    let entry = ManagedFieldsEntry {
        manager: Some(manager.to_owned()),
        operation: Some(operation.to_owned()),
        api_version: Some("v1".to_owned()),
        fields_type: Some("FieldsV1".to_owned()),
        fields_v1: Some(FieldsV1(json!({"f:data": {"f:other": {}}}))),
        ..ManagedFieldsEntry::default()
    };
    let edited = object.clone().edit_meta(|meta| meta.managed_fields.get_or_insert_default().push(entry));
    world.write("admin", Write::Update(edited, Precondition::seen(&object)));
}

fn owned_by_somebody(world: &mut World) {
    let object = world.state.get(&a()).unwrap().clone();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d", "controller": true}]);
    let edited = object.clone().edit_meta(|meta| meta.owner_references = serde_json::from_value(owner).unwrap());
    world.write("admin", Write::Update(edited, Precondition::seen(&object)));
}

fn made_anew(world: &mut World) {
    world.write("admin", Write::Delete { key: a(), precondition: Precondition::exists(), grace_seconds: None });
    let metadata = json!({"name": "a", "namespace": "default"});
    world.write("admin", Write::Create(Object::from_value(Kind::ConfigMap, json!({"metadata": metadata})).unwrap()));
    written_by(world, "podbay:web", "Apply");
}

/// The same values: both sources own them by now.
fn held_by_another_source(world: &mut World) {
    world.source("other", |spec| spec.adopt = Some(true));
    let status = world.put("other", "o1", &[("a.yaml", &config("a", "1"))]);
    assert_eq!(created(&status, "a"), Some(false));
    remove(world, "other", false);
}

/// What happened to an object in between, and whether it is the source's own again.
#[test]
fn what_somebody_else_has_taken_meanwhile_is_never_pruned() {
    type Between = fn(&mut World);
    let rows: [(&str, Between, bool); 7] = [
        ("nothing", |_| {}, true),
        ("a hand", |world| written_by(world, "kubectl-edit", "Update"), true),
        ("applied by the server", |world| written_by(world, "helm", "Apply"), false),
        ("applied by kubectl", |world| written_by(world, "kubectl-client-side-apply", "Update"), false),
        ("a controller", owned_by_somebody, false),
        ("another object of its name", made_anew, false),
        ("another source", held_by_another_source, false),
    ];
    // `adopt` takes over more, but gives no right to delete.
    for (adopt, (what, between, is_own)) in [false, true].into_iter().flat_map(|adopt| rows.map(|row| (adopt, row))) {
        let mut world = World::with("web");
        world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        remove(&mut world, "web", false);
        between(&mut world);
        world.source("web", |spec| *spec = SourceSpec { adopt: Some(adopt), ..spec.clone() });
        let status = world.put("web", "r2", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        assert_eq!((status.errors.len(), created(&status, "a")), (0, Some(is_own)), "{what}: {:?}", status.errors);
        world.put("web", "r3", &[("a.yaml", &config("b", "1"))]);
        assert_eq!(world.has(Kind::ConfigMap, "default", "a"), !is_own, "{what}");
    }
}

#[test]
fn what_was_adopted_stays_so_and_what_went_is_not_noted() {
    for prune in [false, true] {
        let mut world = World::new();
        let theirs = json!({"metadata": {"name": "a", "namespace": "default"}});
        world.write("admin", Write::Create(Object::from_value(Kind::ConfigMap, theirs).unwrap()));
        world.source("web", |spec| spec.adopt = Some(true));
        world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        remove(&mut world, "web", prune);
        assert_eq!((world.has(Kind::ConfigMap, "default", "b"), notes(&world)), (!prune, usize::from(!prune)));
        world.source("web", |_| {});
        let status = world.put("web", "r2", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        assert_eq!((created(&status, "a"), created(&status, "b")), (Some(false), Some(true)));
        world.put("web", "r3", &[("a.yaml", &config("b", "1"))]);
        assert!(world.has(Kind::ConfigMap, "default", "a"));
    }
}

/// A name of 253 bytes is the longest there is.
#[test]
fn a_large_source_is_noted_in_pieces_that_the_store_takes() {
    let (mut state, mut inventory) = (Snapshot::default(), Inventory::default());
    for index in 0..2500 {
        let (name, uid) = (format!("{index:0253}"), format!("{index:036}"));
        let metadata = json!({"name": name, "namespace": "n".repeat(63), "uid": uid});
        let object = Object::from_value(Kind::ConfigMap, json!({"metadata": metadata})).unwrap();
        let entry = inventory::entry(object.key(), &uid, true, &"f".repeat(4096), false);
        inventory.entries.insert(object.key().clone(), Arc::new(entry));
        state.insert(object);
    }
    let writes = left::at_the_end(&state, "web", &inventory, &[]);
    assert_eq!(writes.len(), 3);
    for write in writes {
        let Write::Create(map) = write else { panic!("{write:?}") };
        assert!(map.value().to_string().len() < 1 << 20);
        state.insert(map);
    }
    assert_eq!(left::of(&state, "web").len(), 2500);
    assert!(left::once_accepted(&state, "web", &Inventory::default()).is_empty(), "all of it is still there, and nobody's");
    // All but one are held again: one piece says so, the others go.
    let last = inventory.entries.keys().next_back().unwrap().clone();
    inventory.entries.remove(&last);
    let writes = left::once_accepted(&state, "web", &inventory);
    let count = |is: fn(&Write) -> bool| writes.iter().filter(|write| is(write)).count();
    assert_eq!((count(|it| matches!(it, Write::Update(..))), count(|it| matches!(it, Write::Delete { .. }))), (1, 2));
}
