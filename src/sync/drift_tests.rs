//! What is told of fields that were put back.

use k8s_openapi::api::core::v1::Event;

use super::drift::others;
use super::look::decide;
use super::tests::{NOW, World, config, tree};
use crate::model::ownership::{ManagedFields, update};
use crate::model::{Key, Kind, Object};
use crate::store::transaction::{Precondition, Write};

/// What would be told of the next step; nothing is done.
fn told(world: &mut World) -> Vec<String> {
    let memory = world.memories.entry("web".to_owned()).or_default();
    let step = decide(&world.state, "web", &world.looks["web"], None, memory, &mut || "uid".to_owned(), NOW);
    let message = |write: &Write| match write {
        Write::Create(event) | Write::Update(event, _) => event.get::<Event>().and_then(|event| event.message.clone()),
        _ => None,
    };
    step.events.iter().map(|write| message(write).expect("an event")).collect()
}

/// Somebody writes `data` of a ConfigMap or Secret, and is known for it as by the server.
fn write_as(world: &mut World, kind: Kind, name: &str, manager: &str, data: serde_json::Value) {
    let object = world.state.get(&Key::new(kind, "default", name)).unwrap().clone();
    let mut after = object.value();
    after["data"] = data;
    let shapes = world.state.definitions().shapes(kind);
    let owners = update(shapes, Some(&object.value()), &after, &ManagedFields::of(object.meta()), manager, "").to_entries();
    let after = Object::from_value(kind, after).unwrap().edit_meta(|meta| meta.managed_fields = owners);
    world.write("admin", Write::Update(after, Precondition::exists()));
}

#[test]
fn what_is_put_back_is_told_with_who_changed_it() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    assert_eq!(told(&mut world), [""; 0]);
    write_as(&mut world, Kind::ConfigMap, "a", "kubectl", serde_json::json!({"key": "hand"}));
    assert_eq!(told(&mut world), ["put back as a.yaml of source web says: data.key: hand -> 1, changed by \"kubectl\""]);
    world.again("web");
    assert_eq!(told(&mut world), [""; 0], "once");
    write_as(&mut world, Kind::ConfigMap, "a", "kubectl", serde_json::json!({"mine": "x"}));
    assert_eq!(told(&mut world), ["put back as a.yaml of source web says: data.key: nothing -> 1"], "nobody says what is gone");
    world.again("web");
    assert_eq!(world.data("a")["mine"], "x", "what git does not say is no drift");
}

#[test]
fn a_newer_revision_puts_nothing_back_and_nor_does_a_later_wave_of_it() {
    let mut world = World::with("web");
    let of = |value: &str| {
        let waved = config("b", value).replace("{name: b}", "{name: b, annotations: {argocd.argoproj.io/sync-wave: \"1\"}}");
        config("a", value) + &waved
    };
    world.put("web", "r1", &[("a.yaml", &of("1"))]);
    world.look_at("web", tree("r2", &[("a.yaml", &of("2"))]));
    assert_eq!(told(&mut world), [""; 0], "the first wave is the newer revision's");
    world.once("web");
    assert_eq!((&*world.data("a")["key"], &*world.data("b")["key"]), ("2", "1"));
    assert_eq!(told(&mut world), [""; 0], "and so is the second");
    write_as(&mut world, Kind::ConfigMap, "b", "kubectl", serde_json::json!({"key": "hand"}));
    assert_eq!(told(&mut world), ["put back as a.yaml of source web says: data.key: hand -> 2, changed by \"kubectl\""]);
}

#[test]
fn values_that_are_secret_or_long_are_not_told() {
    let mut world = World::with("web");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n---\n".to_owned();
    world.put("web", "r1", &[("a.yaml", &(secret + &config("a", "1") + &config("b", "1")))]);
    write_as(&mut world, Kind::Secret, "s", "x", serde_json::json!({"password": "aHVudGVyMw=="}));
    write_as(&mut world, Kind::ConfigMap, "a", "x", serde_json::json!({"key": "y".repeat(81)}));
    write_as(&mut world, Kind::ConfigMap, "b", "x", serde_json::json!({"key": "a\u{1b}[2J"}));
    let field = |path: &str| format!("put back as a.yaml of source web says: {path}, changed by \"x\"");
    assert_eq!(told(&mut world), [field("data.password"), field("data.key"), field("data.key")]);
}

#[test]
fn of_very_much_a_part_is_told() {
    let mut world = World::with("web");
    let names: Vec<String> = (0..150).map(|index| format!("c{index}")).collect();
    world.put("web", "r1", &[("a.yaml", &names.iter().map(|name| config(name, "1")).collect::<String>())]);
    names.iter().for_each(|name| write_as(&mut world, Kind::ConfigMap, name, "x", serde_json::json!({"key": "hand"})));
    assert_eq!(told(&mut world).len(), 100);
}

#[test]
fn a_field_is_said_by_who_owns_it_or_what_is_in_it() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    write_as(&mut world, Kind::ConfigMap, "a", "kubectl", serde_json::json!({"key": "hand", "key2": "2"}));
    let managed = ManagedFields::of(world.state.get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap().meta());
    for (manager, path, expected) in [
        ("podbay:web", "data.key", &["\"kubectl\""][..]),
        ("podbay:web", "data", &["\"kubectl\""]),
        ("podbay:web", "data.ke", &[]),
        ("podbay:web", "data.other", &[]),
        ("podbay:web", "metadata.labels", &[]),
    ] {
        assert_eq!(others(&managed, manager, path), expected, "{path}");
    }
    let fields = serde_json::json!([{"manager": "kubectl-patch", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:stringData": {"f:password": {}}}}]);
    let meta = serde_json::from_value(serde_json::json!({"managedFields": fields})).unwrap();
    assert_eq!(others(&ManagedFields::of(&meta), "podbay:web", "data.password"), ["\"kubectl-patch\""]);
}
