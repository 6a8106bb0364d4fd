//! Somebody who changes again what is put back: no loop, and a word of it.

use serde_json::Value;

use super::look::{Step, decide};
use super::tests::{NOW, World, config};
use crate::model::ownership::{ManagedFields, update};
use crate::model::{Key, Kind, Object, SourceStatus, Timestamp};
use crate::store::transaction::{Precondition, Write};

/// Seconds after the start.
fn at(seconds: i64) -> Timestamp {
    NOW.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap()
}

/// What the worker would do next.
fn next(world: &mut World) -> Step {
    let memory = world.memories.entry("web".to_owned()).or_default();
    decide(&world.state, "web", &world.looks["web"], None, memory, &mut || "uid".to_owned(), world.now)
}

/// The worker goes on with what it remembers until it has nothing to write; how many objects it wrote.
fn rest(world: &mut World) -> usize {
    let mut ops = 0;
    for _ in 0..50 {
        let step = next(world);
        if step.transaction.writes.is_empty() {
            return ops;
        }
        world.commit(&step.transaction);
        world.memories.get_mut("web").unwrap().carried(&step.put_back, world.now);
        ops += step.ops;
    }
    panic!("it never comes to rest");
}

/// Somebody writes `key` of a ConfigMap.
fn change(world: &mut World, name: &str, manager: &str, value: &str) {
    edit(world, name, manager, |after| after["data"]["key"] = value.into());
}

/// Somebody writes the data of a ConfigMap.
fn write(world: &mut World, name: &str, manager: &str, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    edit(world, name, manager, |after| change(after["data"].as_object_mut().unwrap()));
}

/// Somebody writes a ConfigMap, and is known for it as by the server.
fn edit(world: &mut World, name: &str, manager: &str, change: impl FnOnce(&mut Value)) {
    let object = world.state.get(&Key::new(Kind::ConfigMap, "default", name)).unwrap().clone();
    let mut after = object.value();
    change(&mut after);
    let shapes = world.state.definitions().shapes(Kind::ConfigMap);
    let owners = update(shapes, Some(&object.value()), &after, &ManagedFields::of(object.meta()), manager, "").to_entries();
    let after = Object::from_value(Kind::ConfigMap, after).unwrap().edit_meta(|meta| meta.managed_fields = owners);
    world.write(manager, Write::Update(after, Precondition::exists()));
}

fn status(world: &World) -> SourceStatus {
    world.get_source("web").status.unwrap()
}

/// Reason and message of the condition `Ready`.
fn ready(world: &World) -> (String, String) {
    let ready = status(world).conditions.into_iter().find(|it| it.type_ == "Ready").expect("a condition");
    (ready.reason, ready.message)
}

/// What one second is too short for: the operator writes whenever it finds something else.
#[test]
fn what_somebody_changes_again_and_again_is_put_back_later_and_later() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
    let mut times = Vec::new();
    for second in 0..1500 {
        world.now = at(second);
        for _ in 0..10 {
            change(&mut world, "a", "operator", "theirs");
            if rest(&mut world) > 0 {
                times.push(second);
            }
        }
    }
    assert_eq!(times, [0, 0, 0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111, 1411]);
    let message = "ConfigMap default/a: \"operator\" has changed data.key 16 times in a row; it is put back at 1970-01-01T00:28:31Z";
    assert_eq!(ready(&world), ("ChangedAgain".to_owned(), message.to_owned()));
    assert_eq!(status(&world).errors, [message]);
    // The others are none the worse for it.
    change(&mut world, "b", "kubectl", "hand");
    assert_eq!((rest(&mut world), world.data("b")["key"].as_str()), (1, "1"));
    // It gives up, and is put back when it is time.
    let until = next(&mut world).again_at.unwrap();
    assert_eq!(until, at(1711));
    world.now = until;
    assert_eq!((rest(&mut world), world.data("a")["key"].as_str()), (1, "1"));
    assert_eq!((ready(&world).0.as_str(), status(&world).errors.len()), ("Synced", 0));
    // After a while it is a new matter.
    world.now = at(1711 + 901);
    for _ in 0..3 {
        change(&mut world, "a", "operator", "theirs");
        assert_eq!(rest(&mut world), 1);
    }
    change(&mut world, "a", "operator", "theirs");
    assert_eq!(rest(&mut world), 0);
    // So it is when git says something else.
    world.look_at("web", super::tests::tree("r2", &[("a.yaml", &(config("a", "2") + &config("b", "1")))]));
    assert_eq!((rest(&mut world), world.data("a")["key"].as_str()), (1, "2"));
    change(&mut world, "a", "operator", "theirs");
    assert_eq!((rest(&mut world), world.data("a")["key"].as_str()), (1, "2"));
}

/// What is told of a fight that goes on.
fn fight(world: &World) -> Option<String> {
    let found = status(world).conditions.into_iter().find(|it| it.type_ == "Undisturbed")?;
    assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "ChangedAgain"));
    Some(found.message)
}

/// Whoever looks then must not take it for the end.
#[test]
fn between_two_changes_the_fight_goes_on() {
    let mut world = World::with("web");
    let fought = |world: &mut World| {
        for value in ["x", "y", "z"] {
            change(world, "a", "operator", value);
            assert_eq!((rest(world), fight(world)), (1, None), "some hands that were in it");
        }
        change(world, "a", "operator", "again");
        assert_eq!((rest(world), ready(world).0.as_str()), (0, "ChangedAgain"));
        world.now = next(world).again_at.unwrap();
        assert_eq!(rest(world), 1);
        assert_eq!(ready(world).0, "Synced");
    };
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    fought(&mut world);
    let message = "ConfigMap default/a: put back 4 times in a row, and somebody else, or a webhook, changed it again each time; \
                   over if it stays so until 1970-01-01T00:10:01Z";
    assert_eq!(fight(&world).as_deref(), Some(message));
    world.now = at(600);
    assert_eq!((rest(&mut world), fight(&world).as_deref()), (0, Some(message)));
    let until = next(&mut world).again_at.unwrap();
    assert_eq!(until, at(601));
    world.now = until;
    assert_eq!((rest(&mut world), fight(&world)), (0, None));
    // Nobody fights for what git does not say any more.
    world.now = at(3000);
    fought(&mut world);
    assert!(fight(&world).is_some());
    world.look_at("web", super::tests::tree("r2", &[("a.yaml", &config("a", "2"))]));
    assert_eq!((rest(&mut world), fight(&world)), (1, None));
}

/// The same where it can only be put back by a new object.
#[test]
fn what_has_to_be_replaced_again_and_again_is_so_later_and_later() {
    let mut world = World::with("web");
    let text = config("a", "1").replace("{name: a", "{annotations: {podbay.dev/replace: 'true'}, name: a");
    world.put("web", "r1", &[("a.yaml", &text)]);
    let mut times = Vec::new();
    for second in 0..40 {
        world.now = at(second);
        for _ in 0..5 {
            edit(&mut world, "a", "operator", |after| {
                after["data"]["key"] = "theirs".into();
                after["immutable"] = true.into();
            });
            if rest(&mut world) > 0 {
                times.push(second);
                assert_eq!(world.data("a")["key"], "1");
            }
        }
    }
    assert_eq!(times, [0, 0, 0, 1, 3, 7, 15, 31]);
    let message =
        "ConfigMap default/a: \"operator\" has changed data.key, immutable 9 times in a row; it is put back at 1970-01-01T00:01:03Z";
    assert_eq!(ready(&world), ("ChangedAgain".to_owned(), message.to_owned()));
    assert_eq!(next(&mut world).again_at, Some(at(63)));
    // What git says anew is another matter.
    world.look_at("web", super::tests::tree("r2", &[("a.yaml", &text.replace("\"1\"", "\"2\""))]));
    rest(&mut world);
    assert_eq!(ready(&world).0, "Synced");
    assert_eq!(world.data("a")["key"], "2");
}

/// What is planned and not carried out is no turn: somebody else was faster, or only wants to know.
#[test]
fn what_is_only_planned_does_not_count() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    for value in 0..20 {
        change(&mut world, "a", "kubectl", &value.to_string());
        assert_eq!(next(&mut world).ops, 1);
    }
    assert_eq!((rest(&mut world), world.data("a")["key"].as_str()), (1, "1"));
}

/// Nobody is known who took a field away; and a change that webhooks do not see counts as any other.
#[test]
fn whoever_takes_a_field_away_is_somebody_else() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    for _ in 0..4 {
        write(&mut world, "a", "kubectl", |data| drop(data.remove("key")));
        rest(&mut world);
    }
    assert!(ready(&world).1.contains("somebody else has changed data.key 4 times in a row"), "{:?}", ready(&world));
}

/// Whose writes leave no name is podbay itself.
#[test]
fn a_controller_is_not_somebody_else() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    for value in ["x", "y", "z", "again"] {
        world.edit_data("a", |data| drop(data.insert("key".into(), value.into())));
        rest(&mut world);
    }
    let told = "a controller of Podbay's, a node or a webhook has changed data.key 4 times in a row";
    assert!(ready(&world).1.contains(told), "{:?}", ready(&world));
}
