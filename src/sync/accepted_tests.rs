//! The accepted set outlives the process that accepted it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;

use super::accepted::{self, LABEL, TYPE, Unusable};
use super::asked::Answers;
use super::look::{self, Look};
use super::names::PRUNE;
use super::removal;
use super::tests::{NOW, World, config, deployment, many, tree};
use crate::model::{Key, Kind, Object};
use crate::store::transaction::{Precondition, Write};

const BAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatta: {}\n";

impl World {
    /// A new process: it remembers nothing, and what it finds at the source's place is `look`.
    fn restart(&mut self, look: Look) {
        self.memories.clear();
        self.looks.insert("web".to_owned(), look);
    }

    fn parts(&self) -> Vec<Object> {
        self.state.labelled_in(Kind::Secret, "kube-system", &format!("{LABEL}=web")).cloned().collect()
    }

    fn accepted_set(&self) -> String {
        self.get_source("web").status.unwrap().accepted_set.unwrap()
    }

    fn delete(&mut self, key: &Key) {
        self.write("admin", Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds: None });
    }

    fn ready(&mut self, name: &str) {
        let object = self.state.get(&Key::new(Kind::Deployment, "default", name)).unwrap().clone();
        let changed = object.edit::<Deployment>(|it| {
            let status = it.status.get_or_insert_default();
            status.observed_generation = it.metadata.generation;
            (status.replicas, status.updated_replicas, status.available_replicas) = (Some(2), Some(2), Some(2));
        });
        self.write("deployment", Write::UpdateStatus(changed.unwrap(), Precondition::exists()));
    }
}

fn looks_of_a_place_that_says_nothing_good() -> [Look; 3] {
    let invalid = Look::Invalid { revision: Some("r2".to_owned()), errors: vec!["b.yaml:4:1: no".to_owned()] };
    [Look::Unread, Look::unreachable("no route".to_owned()), invalid]
}

#[test]
fn after_a_restart_a_refused_revision_still_leaves_the_last_good_one_enforced() {
    for look in looks_of_a_place_that_says_nothing_good() {
        let mut world = World::with("web");
        world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        assert!(!world.put("web", "r2", &[("a.yaml", &config("a", "2")), ("b.yaml", BAD)]).errors.is_empty());
        world.restart(look);
        world.edit_data("a", |data| drop(data.insert("key".to_owned(), "by hand".to_owned())));
        world.delete(&Key::new(Kind::ConfigMap, "default", "b"));
        let status = world.again("web");
        assert_eq!((world.data("a")["key"].as_str(), world.data("b")["key"].as_str()), ("1", "1"));
        let uid = world.state.get(&Key::new(Kind::ConfigMap, "default", "b")).unwrap().uid().to_owned();
        assert!(status.inventory.iter().any(|entry| entry.uid == uid && entry.created), "what was created again is in the inventory");
        assert_eq!(status.accepted_revision.as_deref(), Some("r1"));
        let before = world.state.revision();
        world.again("web");
        assert_eq!(world.state.revision(), before, "at rest, nothing is written");
    }
}

#[test]
fn after_a_restart_a_blocked_revision_still_leaves_the_last_good_one_enforced() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    world.memories.clear();
    let status = world.put("web", "r2", &[("a.yaml", &many(2))]);
    assert!(status.pending_plan.is_some());
    world.memories.clear();
    world.delete(&Key::new(Kind::ConfigMap, "default", "c7"));
    assert!(world.again("web").pending_plan.is_some());
    assert!(world.has(Kind::ConfigMap, "default", "c7"));
}

#[test]
fn a_crash_between_waves_goes_on_with_the_accepted_set() {
    for look in looks_of_a_place_that_says_nothing_good() {
        let mut world = World::with("web");
        let wave = |name: &str, wave: i32| deployment(name, &format!(", annotations: {{argocd.argoproj.io/sync-wave: \"{wave}\"}}"), "i:1");
        world.put("web", "r0", &[("a.yaml", &config("old", "1")), ("b.yaml", &config("kept", "1"))]);
        world.put(
            "web",
            "r1",
            &[("a.yaml", &(wave("first", 1) + &wave("second", 2) + &wave("third", 3))), ("b.yaml", &config("kept", "1"))],
        );
        assert!(!world.has(Kind::Deployment, "default", "second"));
        world.restart(look);
        world.again("web");
        assert!(!world.has(Kind::Deployment, "default", "second"), "the first wave is not healthy yet");
        world.ready("first");
        world.again("web");
        assert!(world.has(Kind::Deployment, "default", "second") && !world.has(Kind::Deployment, "default", "third"));
        world.ready("second");
        world.again("web");
        world.ready("third");
        let status = world.again("web");
        assert!(world.has(Kind::Deployment, "default", "third") && !world.has(Kind::ConfigMap, "default", "old"));
        assert_eq!(status.inventory.len(), 4);
    }
}

#[test]
fn the_set_is_written_with_what_it_accepts_and_only_where_it_changed() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(2000))]);
    let first = world.parts();
    assert!(first.len() > 2, "a large set is in more than one part: {}", first.len());
    let bytes: usize = first.iter().map(|part| part.json().len()).sum();
    assert!(bytes < 100_000, "{bytes} bytes for 2000 small objects");
    world.put("web", "r2", &[("a.yaml", &many(2000).replacen("key: \"1\"", "key: \"2\"", 1))]);
    let second = world.parts();
    let kept = first.iter().filter(|part| second.contains(part)).count();
    assert!(kept + 2 >= first.len() && second.len() <= first.len() + 1, "{kept} of {} stay, {}", first.len(), second.len());
    // A process that remembers nothing finds nothing to write.
    let before = world.state.revision();
    world.memories.clear();
    world.again("web");
    assert_eq!(world.state.revision(), before);
    // One transaction: the set is there as soon as it is accepted, before its second wave.
    let rendered = accepted::restore(&world.state, "web", &world.accepted_set()).unwrap();
    assert_eq!(rendered.desired.len(), 2000);
}

#[test]
fn what_is_kept_is_what_was_said() {
    let mut world = World::with("web");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n---\n";
    let odd = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: odd\n  annotations: {argocd.argoproj.io/sync-wave: \"3\", argocd.argoproj.io/sync-options: Prune=false, podbay.dev/replace: \"true\"}\nbinaryData: {b: aGk=}\n---\n";
    let Look::Read(read) = ({
        world.put("web", "r1", &[("x/a.yaml", &(secret.to_owned() + odd + &deployment("d", "", "i:1") + &config("a", "1")))]);
        world.looks["web"].clone()
    }) else {
        panic!("reads well")
    };
    let kept = accepted::restore(&world.state, "web", &world.accepted_set()).unwrap();
    assert_eq!(kept.desired.len(), 4);
    for (key, one) in read.rendered.desired.iter() {
        let other = kept.desired.get(key).unwrap();
        assert_eq!(one.object, other.object, "{key}");
        assert_eq!((&one.applied, &one.file, one.line), (&other.applied, &other.file, other.line), "{key}");
        assert_eq!((one.prune, one.replace, one.wave, one.digest), (other.prune, other.replace, other.wave, other.digest), "{key}");
    }
    for part in world.parts() {
        let secret = part.get::<Secret>().unwrap();
        assert_eq!((secret.type_.as_deref(), secret.immutable), (Some(TYPE), Some(true)));
    }
    assert!(!serde_json::to_string(&world.get_source("web")).unwrap().contains("hunter2"), "the Source object has no content");
}

/// An upgrade finds the set that the older program kept.
#[test]
fn a_set_that_was_compressed_by_zstd_is_read() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    let set = world.accepted_set();
    let mut state = world.state.clone();
    for part in world.parts() {
        let older = part.edit::<Secret>(|secret| {
            for bytes in secret.data.iter_mut().flat_map(|data| data.values_mut()) {
                let json = std::io::read_to_string(flate2::read::ZlibDecoder::new(bytes.0.as_slice())).unwrap();
                bytes.0 = zstd::encode_all(json.as_bytes(), 3).unwrap();
            }
        });
        state.insert(older.unwrap());
    }
    assert_eq!(accepted::restore(&state, "web", &set).unwrap().desired.len(), 20);
}

/// A kind that became unsupported is left out, loudly, and stays; a new process knows that too.
#[test]
fn what_was_left_out_is_not_pruned_by_a_new_process() {
    let mut world = World::new();
    world.source("web", |spec| spec.unsupported = Some("skip".to_owned()));
    world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &deployment("d", "", "i:1")))]);
    let foreign = deployment("d", "", "i:1").replace("apps/v1", "example.com/v1");
    let status = world.put("web", "r2", &[("a.yaml", &(config("a", "1") + &foreign))]);
    assert_eq!((status.accepted_revision.as_deref(), status.errors), (Some("r2"), Vec::new()));
    assert!(world.has(Kind::Deployment, "default", "d"));
    world.restart(Look::Unread);
    world.edit_data("a", |data| drop(data.insert("key".to_owned(), "by hand".to_owned())));
    world.again("web");
    assert_eq!(world.data("a")["key"], "1");
    assert!(world.has(Kind::Deployment, "default", "d"));
}

#[test]
fn a_set_that_is_not_whole_is_not_used_and_is_written_anew() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(2000))]);
    let set = world.accepted_set();
    assert_eq!(accepted::restore(&world.state, "web", "another").map(|_| ()), Err(Unusable::Other));
    let part = world.parts()[0].key().clone();
    world.delete(&part);
    assert_eq!(accepted::restore(&world.state, "web", &set).map(|_| ()), Err(Unusable::Other));
    // Nothing is put back, and above all nothing is pruned.
    let good = world.looks["web"].clone();
    world.restart(Look::Unread);
    let before = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), before);
    world.restart(good);
    world.again("web");
    assert!(accepted::restore(&world.state, "web", &set).is_ok());
    world.parts().iter().for_each(|part| world.delete(part.key()));
    assert_eq!(accepted::restore(&world.state, "web", &set).map(|_| ()), Err(Unusable::Missing));
}

#[test]
fn content_that_does_not_compress_is_kept_in_pieces() {
    let mut world = World::with("web");
    let mut noise = 1_u64;
    let mut text = String::new();
    for index in 0..3 {
        let letters = (0..900_000).map(|_| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + u8::try_from((noise >> 33) % 90).unwrap())
        });
        let data: String = letters.filter(|letter| !"\"\\".contains(*letter)).collect();
        text += &config(&format!("noise{index}"), &data);
    }
    assert_eq!(world.put("web", "r1", &[("a.yaml", &text)]).errors, [""; 0]);
    assert!(world.parts().len() > 2);
    assert_eq!(accepted::restore(&world.state, "web", &world.accepted_set()).unwrap().desired.len(), 3);
    let middle = world.parts()[1].key().clone();
    world.delete(&middle);
    let damaged = accepted::restore(&world.state, "web", &world.accepted_set());
    assert!(matches!(&damaged, Err(Unusable::Damaged(why)) if why.contains("missing")), "{damaged:?}");
}

#[test]
fn a_refused_revision_leaves_the_stored_set_alone_and_a_removed_source_takes_it_along() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    let parts = world.parts();
    world.put("web", "r2", &[("a.yaml", &many(3))]);
    assert_eq!(world.parts(), parts);
    for prune in ["false", "true"] {
        let mut world = World::with("web");
        world.put("web", "r1", &[("a.yaml", &many(20))]);
        let mut marked = world.get_source("web");
        marked.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::model::Timestamp::UNIX_EPOCH));
        marked.metadata.annotations.get_or_insert_default().insert(PRUNE.to_owned(), prune.to_owned());
        world.state.insert(Object::new(marked));
        let transaction = removal::plan(&world.state, "web", &Answers::default(), NOW).unwrap().transaction;
        world.commit(&transaction);
        assert!(world.parts().is_empty());
    }
}

#[test]
fn a_revision_that_only_deletes_passes_where_space_is_short() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(100))]);
    let mut frees = |count: usize, revision: &str| {
        world.look_at("web", tree(revision, &[("a.yaml", &many(count))]));
        let memory = world.memories.get_mut("web").unwrap();
        let mut uid = || "fresh".to_owned();
        let step = look::decide(&world.state, "web", &world.looks["web"], None, memory, &mut uid, NOW);
        assert_eq!(step.ops, 1);
        step.transaction.frees_space(&world.state)
    };
    assert!(frees(99, "r2"));
    assert!(!frees(101, "r3"));
}
