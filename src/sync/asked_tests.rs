//! What webhooks say of a source's commits, and what comes of it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::asked::{Answer, Heard, Operation, Part, Question};
use super::look::{Look, decide};
use super::names::PRUNE;
use super::removal::{self, Removal};
use super::status::STAYS;
use super::tests::{NOW, World, config, deployment, many};
use crate::model::{Key, Kind, Object, SourceStatus, Timestamp};
use crate::store::transaction::{Precondition, Write};

fn configuration(kind: Kind, operations: &[&str], resource: &str) -> Object {
    let rules = json!([{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}]);
    let hook = json!({"name": "it.hooks.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1"}, "rules": rules});
    Object::from_value(kind, json!({"metadata": {"name": "it"}, "webhooks": [hook]})).expect("a configuration")
}

const CHANGES: Kind = Kind::MutatingWebhookConfiguration;
const JUDGES: Kind = Kind::ValidatingWebhookConfiguration;

/// A source `web`, and webhooks of this kind that say this to everything.
fn world(kind: Kind, say: impl Fn(&Question) -> Answer + 'static) -> World {
    let mut world = World::with("web");
    world.write("admin", Write::Create(configuration(kind, &["*"], "*")));
    world.say = Some(Box::new(say));
    world
}

/// What comes of the object in question when this is done to its JSON.
fn changed(question: &Question, change: impl FnOnce(&mut Value)) -> Answer {
    let Some(object) = &question.object else { return Answer::Passed };
    let before = crate::admit::defaulted(object);
    let mut value = before.value();
    change(&mut value);
    let after = Object::from_value(object.kind(), value).expect("an object");
    if after == before { Answer::Passed } else { Answer::Changed(after) }
}

/// Puts `mirror/` before what a ConfigMap says, if it is not there.
fn mirror(question: &Question) -> Answer {
    changed(question, |value| {
        if let Some(text) = value["data"]["key"].as_str().filter(|text| !text.starts_with("mirror/")) {
            value["data"]["key"] = format!("mirror/{text}").into();
        }
    })
}

fn denied() -> Answer {
    Answer::Denied("admission webhook \"it.hooks.example.com\" denied the request: no".to_owned())
}

fn silent(at: Timestamp) -> Answer {
    Answer::Silent { why: "failed calling webhook \"it.hooks.example.com\": nobody is there".to_owned(), at }
}

fn ready(status: &SourceStatus) -> (String, String) {
    let ready = status.conditions.iter().find(|it| it.type_ == "Ready").expect("a condition");
    (ready.reason.clone(), ready.message.clone())
}

fn key(world: &World, name: &str) -> String {
    world.data(name).remove("key").unwrap_or_default()
}

/// `CREATE Change a`
fn words(world: &mut World) -> Vec<String> {
    let told = |it: &Question| format!("{} {:?} {}", it.operation.word(), it.part, it.key().name);
    std::mem::take(&mut world.asked).iter().map(told).collect()
}

#[test]
fn a_no_refuses_the_whole_revision_and_every_no_is_told() {
    for kind in [CHANGES, JUDGES] {
        let mut world = world(kind, |it| if it.key().name == "good" { Answer::Passed } else { denied() });
        let status = world.put("web", "r1", &[("a.yaml", &(config("bad", "1") + &config("good", "1") + &config("worse", "1")))]);
        let no = "admission webhook \"it.hooks.example.com\" denied the request: no";
        let told = |line: u32, name: &str| format!("a.yaml:{line}:1: ConfigMap default/{name}: {no}");
        assert_eq!(status.errors, [told(1, "bad"), told(11, "worse")], "{kind}");
        assert_eq!((status.accepted_revision, status.pending_plan), (None, None));
        assert!(!world.has(Kind::ConfigMap, "default", "good"));
        // What it said goes for the same revision until the next look.
        world.asked.clear();
        world.again("web");
        assert_eq!(words(&mut world), [""; 0]);
        world.memories.get_mut("web").unwrap().answers().reconsider();
        world.again("web");
        let asked = words(&mut world);
        assert_eq!(asked.len(), 2, "who said yes is not asked again: {asked:?}");
        // But for a webhook that is another now.
        let hooks = world.state.get(&Key::cluster(kind, "it")).unwrap().clone();
        let other = hooks.clone().edit_meta(|meta| drop(meta.labels.get_or_insert_default().insert("a".to_owned(), "b".to_owned())));
        world.write("admin", Write::Update(other, Precondition::seen(&hooks)));
        world.say = None;
        assert_eq!(world.again("web").accepted_revision.as_deref(), Some("r1"));
        assert_eq!(words(&mut world).len(), 3);
    }
}

#[test]
fn those_that_judge_see_what_is_stored_after_those_that_change() {
    let mut world = world(CHANGES, mirror);
    world.write("admin", Write::Create(configuration(JUDGES, &["*"], "*")));
    world.say = Some(Box::new(|it| match it.part {
        Part::Change => mirror(it),
        Part::Judge => {
            let object = it.object.as_ref().expect("nothing is deleted");
            assert_eq!(object.value()["data"]["key"], "mirror/1");
            assert!(object.uid().is_empty() && object.meta().creation_timestamp.is_some(), "as it would be stored");
            Answer::Passed
        }
    }));
    let status = world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    assert_eq!((status.errors.len(), key(&world, "a").as_str()), (0, "mirror/1"));
    // The last is what comes of what git says: what is there.
    assert_eq!(words(&mut world), ["CREATE Change a", "CREATE Judge a", "UPDATE Change a"]);
}

#[test]
fn what_a_webhook_makes_of_what_git_says_is_as_it_should_be() {
    let mut world = world(CHANGES, |it| {
        let Answer::Changed(object) = mirror(it) else { return Answer::Passed };
        Answer::Changed(object.edit_meta(|meta| drop(meta.labels.get_or_insert_default().insert("seen".to_owned(), "yes".to_owned()))))
    });
    let status = world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    assert_eq!((ready(&status).0.as_str(), key(&world, "a").as_str()), ("Synced", "mirror/1"));
    let live = world.state.get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap().clone();
    let owners = live.meta().managed_fields.clone().unwrap();
    assert_eq!(owners.len(), 1, "{owners:?}");
    let fields = serde_json::to_string(&owners[0].fields_v1).unwrap();
    assert!(fields.contains("f:key") && !fields.contains("f:seen"), "git's are the source's, the webhook's nobody's: {fields}");
    // At rest nothing is written or asked.
    let before = world.state.revision();
    world.asked.clear();
    world.again("web");
    assert_eq!((world.state.revision(), words(&mut world).len()), (before, 0));
    // Another process asks once, and writes nothing.
    world.memories.clear();
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    assert_eq!((world.state.revision(), words(&mut world)), (before, vec!["UPDATE Change a".to_owned()]));

    world.put("web", "r2", &[("a.yaml", &config("a", "2"))]);
    assert_eq!(key(&world, "a"), "mirror/2");
    // Somebody's hand is put back to what the webhook makes of it.
    world.edit_data("a", |data| drop(data.insert("key".to_owned(), "hand".to_owned())));
    world.again("web");
    assert_eq!(key(&world, "a"), "mirror/2");
    let live = world.state.get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap();
    assert_eq!(live.labels().get("seen").map(String::as_str), Some("yes"), "what a webhook added stays");
    // Without the webhook it is what git says.
    let delete = Write::Delete { key: Key::cluster(CHANGES, "it"), precondition: Precondition::exists(), grace_seconds: None };
    world.write("admin", delete);
    world.again("web");
    assert_eq!(key(&world, "a"), "2");
}

#[test]
fn what_a_webhook_makes_is_admitted_as_what_anybody_says() {
    let mut world = world(CHANGES, |it| changed(it, |value| value["spec"]["template"]["spec"]["priorityClassName"] = "high".into()));
    let status = world.put("web", "r1", &[("a.yaml", &deployment("d", "", "i:1"))]);
    assert!(status.errors[0].contains("priorityClassName"), "{:?}", status.errors);
    assert!(!world.has(Kind::Deployment, "default", "d"));
}

#[test]
fn without_an_answer_a_revision_is_refused_and_asked_about_again_soon() {
    let mut world = world(JUDGES, |_| silent(NOW));
    let status = world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    let why = "a.yaml:1:1: ConfigMap default/a: failed calling webhook \"it.hooks.example.com\": nobody is there";
    assert_eq!((status.errors, world.has(Kind::ConfigMap, "default", "a")), (vec![why.to_owned()], false));
    let memory = world.memories.get_mut("web").unwrap();
    let step = decide(&world.state, "web", &world.looks["web"], None, memory, &mut || "uid".to_owned(), NOW);
    let again = step.again_at.expect("a time");
    world.asked.clear();
    world.say = None;
    world.now = again.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap();
    world.again("web");
    assert!(words(&mut world).is_empty() && !world.has(Kind::ConfigMap, "default", "a"), "not yet");
    world.now = again;
    assert_eq!(world.again("web").accepted_revision.as_deref(), Some("r1"));
    assert_eq!(words(&mut world), ["CREATE Judge a"]);
}

#[test]
fn of_an_accepted_revision_only_what_a_webhook_is_against_stays_as_it_is() {
    for (answer, code) in [(denied(), "WebhookDenied"), (silent(NOW), "WebhookUnavailable")] {
        let mut world = world(JUDGES, |_| Answer::Passed);
        world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        let hand = |data: &mut BTreeMap<String, String>| drop(data.insert("key".to_owned(), "hand".to_owned()));
        world.edit_data("a", hand);
        world.edit_data("b", hand);
        let said = answer.clone();
        world.say = Some(Box::new(move |it| if it.key().name == "a" { said.clone() } else { Answer::Passed }));
        let status = world.again("web");
        assert_eq!((key(&world, "a").as_str(), key(&world, "b").as_str()), ("hand", "1"));
        assert_eq!((status.errors.len(), status.accepted_revision.as_deref()), (1, Some("r1")));
        assert!(status.errors[0].starts_with("ConfigMap default/a: ") && status.errors[0].ends_with(" (a.yaml:1)"), "{:?}", status.errors);
        assert_eq!(ready(&status), (code.to_owned(), status.errors[0].clone()));
        // The same while a newer revision is refused.
        let refused = world.put("web", "r2", &[("a.yaml", "kind: Rubbish")]);
        assert_eq!((ready(&refused).0.as_str(), refused.errors.last()), ("Invalid", status.errors.first()));
        world.edit_data("b", hand);
        world.again("web");
        assert_eq!(key(&world, "b"), "1");
        world.say = None;
        world.memories.get_mut("web").unwrap().answers().reconsider();
        world.again("web");
        assert_eq!(key(&world, "a"), "1");
    }
}

#[test]
fn what_goes_is_asked_about() {
    let mut world = world(JUDGES, |_| Answer::Passed);
    let both = config("a", "1") + &config("b", "1");
    world.put("web", "r1", &[("a.yaml", &both)]);
    world.say = Some(Box::new(|it| if it.operation == Operation::Delete { denied() } else { Answer::Passed }));
    let status = world.put("web", "r2", &[("a.yaml", &config("b", "2"))]);
    assert_eq!(status.errors, ["a.yaml: ConfigMap default/a: admission webhook \"it.hooks.example.com\" denied the request: no"]);
    assert_eq!(key(&world, "b"), "1", "a blocked prune blocks the whole");
    world.asked.clear();
    world.say = None;
    world.memories.get_mut("web").unwrap().answers().forget();
    world.put("web", "r2", &[("a.yaml", &config("b", "2"))]);
    assert_eq!((world.has(Kind::ConfigMap, "default", "a"), key(&world, "b").as_str()), (false, "2"));
    assert_eq!(words(&mut world), ["UPDATE Judge b", "DELETE Judge a"]);
}

#[test]
fn what_is_replaced_is_asked_about_twice() {
    let job = |image: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j, annotations: {{podbay.dev/replace: \"true\"}}}}\nspec:\n  template:\n    spec: {{restartPolicy: Never, containers: [{{name: c, image: {image}}}]}}\n"
        )
    };
    let mut world = world(JUDGES, |_| Answer::Passed);
    world.put("web", "r1", &[("a.yaml", &job("i:1"))]);
    world.asked.clear();
    world.put("web", "r2", &[("a.yaml", &job("i:2"))]);
    assert_eq!(words(&mut world), ["DELETE Judge j", "CREATE Judge j"]);
    world.say = Some(Box::new(|it| if it.operation == Operation::Delete { denied() } else { Answer::Passed }));
    let status = world.put("web", "r3", &[("a.yaml", &job("i:3"))]);
    assert_eq!(status.errors, ["a.yaml:1:1: Job default/j: admission webhook \"it.hooks.example.com\" denied the request: no"]);
    // Not asked where it is refused anyhow.
    world.asked.clear();
    let plain = job("i:4").replace("podbay.dev/replace", "else");
    let status = world.put("web", "r4", &[("a.yaml", &plain)]);
    assert!(status.errors[0].contains("podbay.dev/replace"), "{:?}", status.errors);
    assert_eq!(words(&mut world), [""; 0]);
}

fn wave(name: &str, wave: i32, value: &str) -> String {
    let annotations = format!("{{name: {name}, annotations: {{argocd.argoproj.io/sync-wave: \"{wave}\"}}}}");
    config(name, value).replace(&format!("{{name: {name}}}"), &annotations)
}

#[test]
fn a_no_to_a_later_wave_refuses_all_and_silence_does_not() {
    let files = wave("a", 0, "1") + &wave("b", 1, "1");
    let mut denies = world(JUDGES, |it| if it.key().name == "b" { denied() } else { Answer::Passed });
    assert_eq!(denies.put("web", "r1", &[("a.yaml", &files)]).errors.len(), 1);
    assert!(!denies.has(Kind::ConfigMap, "default", "a"));

    let mut falls_silent = world(JUDGES, |it| if it.key().name == "b" { silent(NOW) } else { Answer::Passed });
    let status = falls_silent.put("web", "r1", &[("a.yaml", &files)]);
    assert_eq!((status.accepted_revision.as_deref(), ready(&status).0.as_str()), (Some("r1"), "WebhookUnavailable"));
    let there = |world: &World| ["a", "b"].map(|name| world.has(Kind::ConfigMap, "default", name));
    assert_eq!(there(&falls_silent), [true, false], "what an earlier wave writes may bring it back");
    falls_silent.say = None;
    falls_silent.memories.get_mut("web").unwrap().answers().reconsider();
    let status = falls_silent.again("web");
    assert_eq!((there(&falls_silent), ready(&status).0.as_str()), ([true, true], "Synced"));
}

#[test]
fn a_wave_that_a_webhook_holds_back_holds_back_those_after_it() {
    let names = ["a", "b", "c", "d"];
    let files = |value: &str| names.iter().zip(0..).map(|(name, at)| wave(name, at, value)).collect::<String>();
    let mut world = world(JUDGES, |_| Answer::Passed);
    world.put("web", "r1", &[("a.yaml", &files("1"))]);
    // All when it is accepted, and those whose turn comes later then again.
    let asked: Vec<String> = ["a", "b", "c", "d", "c", "d"].iter().map(|name| format!("CREATE Judge {name}")).collect();
    assert_eq!(words(&mut world), asked);
    let asked = std::cell::Cell::new(0);
    world.say = Some(Box::new(move |it| {
        asked.set(asked.get() + i32::from(it.key().name == "c"));
        if it.key().name == "c" && asked.get() > 1 { denied() } else { Answer::Passed }
    }));
    let status = world.put("web", "r2", &[("a.yaml", &files("2"))]);
    assert_eq!(names.map(|name| key(&world, name)), ["2", "2", "1", "1"]);
    assert_eq!((ready(&status).0.as_str(), status.errors.len()), ("WebhookDenied", 1));
}

/// What waits for another wave is not asked about yet.
#[test]
fn nobody_is_asked_while_a_wave_waits() {
    let first = deployment("d", ", annotations: {argocd.argoproj.io/sync-wave: \"-1\"}", "i:1");
    let mut world = world(JUDGES, |_| Answer::Passed);
    let status = world.put("web", "r1", &[("a.yaml", &(first + &config("a", "1")))]);
    assert_eq!((ready(&status).0.as_str(), words(&mut world).len()), ("Progressing", 2));
    world.say = Some(Box::new(|_| silent(NOW)));
    world.memories.clear();
    assert_eq!((ready(&world.again("web")).0.as_str(), words(&mut world).len()), ("Progressing", 0));
}

#[test]
fn a_namespace_and_a_kind_of_the_same_commit_are_there_to_those_who_ask() {
    let mut world = world(JUDGES, |_| Answer::Passed);
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {tier: front}}\n---\n";
    let inside = config("a", "1").replace("{name: a}", "{name: a, namespace: shop}");
    world.look_at("web", super::tests::tree("r1", &[("a.yaml", &(namespace.to_owned() + &inside))]));
    world.once("web");
    let memory = world.memories.get_mut("web").unwrap();
    let step = decide(&world.state, "web", &world.looks["web"], None, memory, &mut || "uid".to_owned(), NOW);
    let home = step.questions.state.get(&Key::cluster(Kind::Namespace, "shop")).expect("it will be there");
    assert_eq!(home.labels().get("tier").map(String::as_str), Some("front"));
    assert_eq!(step.questions.all.iter().map(|it| it.key().name.as_str()).collect::<Vec<_>>(), ["shop", "a"]);
    assert_eq!(world.again("web").accepted_revision.as_deref(), Some("r1"));
}

#[test]
fn a_commit_is_not_judged_by_what_it_brings_and_the_next_is() {
    let mut world = World::with("web");
    let hooks = configuration(JUDGES, &["*"], "configmaps").value();
    let hooks = serde_json::to_string(&hooks).unwrap() + "\n---\n";
    world.say = Some(Box::new(|_| denied()));
    let status = world.put("web", "r1", &[("a.yaml", &config("a", "1")), ("b.yaml", &hooks)]);
    assert_eq!((status.accepted_revision.as_deref(), world.asked.len()), (Some("r1"), 0));
    let status = world.put("web", "r2", &[("a.yaml", &config("a", "2")), ("b.yaml", &hooks)]);
    assert_eq!((status.accepted_revision.as_deref(), world.asked.len()), (Some("r1"), 1));
}

#[test]
fn only_what_rules_cover_and_what_changes_is_asked_about() {
    let mut world = World::with("web");
    world.write("admin", Write::Create(configuration(JUDGES, &["UPDATE"], "configmaps")));
    let files = many(3) + &deployment("d", "", "i:1");
    world.put("web", "r1", &[("a.yaml", &files)]);
    assert_eq!(words(&mut world), [""; 0]);
    world.put("web", "r2", &[("a.yaml", &files.replacen("\"1\"", "\"2\"", 1))]);
    assert_eq!(words(&mut world), ["UPDATE Judge c0"]);
}

/// The worker goes on with what it remembers, which counts here, until it has nothing to write; how often it wrote.
fn rest(world: &mut World, uids: &mut usize) -> usize {
    for writes in 0..50 {
        let memory = world.memories.entry("web".to_owned()).or_default();
        let step = loop {
            let mut uid = || {
                *uids += 1;
                format!("rest-{uids}")
            };
            let step = decide(&world.state, "web", &world.looks["web"], None, memory, &mut uid, world.now);
            if step.questions.is_empty() {
                break step;
            }
            let answers = step.questions.all.iter().map(|it| world.say.as_ref().map_or(Answer::Passed, |say| say(it)).into());
            memory.answers().take(&step.questions, answers.collect());
        };
        if step.transaction.writes.is_empty() {
            return writes;
        }
        world.commit(&step.transaction);
        world.memories.get_mut("web").unwrap().carried(&step.put_back, world.now);
    }
    panic!("it never comes to rest");
}

/// What a webhook makes another of each time is written later and later.
#[test]
fn a_webhook_that_never_says_the_same_does_not_keep_the_source_writing() {
    let (count, mut uids) = (std::cell::Cell::new(0), 0);
    let mut world = world(CHANGES, move |it| {
        count.set(count.get() + 1);
        changed(it, |value| value["data"]["key"] = format!("{}", count.get()).into())
    });
    world.look_at("web", super::tests::tree("r1", &[("a.yaml", &config("a", "x"))]));
    rest(&mut world, &mut uids);
    let status = world.get_source("web").status.unwrap();
    assert!(ready(&status).1.contains("a webhook has made something else of it 4 times in a row"), "{:?}", ready(&status));
    assert_eq!(rest(&mut world, &mut uids), 0, "not before its time");
    let before = key(&world, "a");
    world.now = NOW.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    rest(&mut world, &mut uids);
    let after = key(&world, "a");
    assert_ne!(before, after, "then once more");
    assert_eq!(rest(&mut world, &mut uids), 0);
    // A new commit is a new matter.
    world.look_at("web", super::tests::tree("r2", &[("a.yaml", &config("a", "y"))]));
    rest(&mut world, &mut uids);
    assert_ne!(after, key(&world, "a"));
    // So it is while a newer one is refused: the two do not count against each other.
    world.write(
        "admin",
        Write::Create(Object::from_value(Kind::ConfigMap, json!({"metadata": {"namespace": "default", "name": "b"}})).unwrap()),
    );
    world.look_at("web", super::tests::tree("r3", &[("a.yaml", &(config("a", "z") + &config("b", "1")))]));
    rest(&mut world, &mut uids);
    let status = world.get_source("web").status.unwrap();
    assert!(status.errors[0].contains("ConfigMap default/b exists and Podbay did not create it"), "{:?}", status.errors);
}

/// A kind without that subresource: the field is as any other, and what a webhook once saw of it is no answer for what it
/// has become.
#[test]
fn a_status_that_is_written_along_is_not_put_back_by_an_old_answer() {
    let mut world = world(CHANGES, |it| {
        changed(it, |value| {
            if value["spec"]["image"] == "shop" {
                value["spec"]["image"] = "mirror/shop".into();
            }
        })
    });
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    world.write("admin", Write::Create(Object::from_value(Kind::CustomResourceDefinition, definition).unwrap()));
    let file = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a, namespace: default}\nspec: {image: shop}\n";
    let status = world.put("web", "r1", &[("a.yaml", file)]);
    assert_eq!(ready(&status).0, "Synced", "{status:?}");
    let kind = world.state.definitions().kind_of("example.com/v1", "Widget").expect("it is served");
    for phase in ["Pending", "Running"] {
        let live = world.state.find(kind, "default", "a").expect("it is there").clone();
        let mut value = live.value();
        value["status"] = json!({"phase": phase});
        world.write("operator", Write::Update(Object::from_value(kind, value).unwrap(), Precondition::seen(&live)));
        world.again("web");
        let now = world.state.find(kind, "default", "a").expect("it is there").value();
        assert_eq!((now["status"]["phase"].as_str(), now["spec"]["image"].as_str()), (Some(phase), Some("mirror/shop")));
    }
}

/// What a webhook does with the ConfigMaps of one name.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Passes,
    Mirrors,
    Labels,
    TakesAway,
}

fn a_mood() -> impl Strategy<Value = Mood> {
    prop_oneof![Just(Mood::Passes), Just(Mood::Mirrors), Just(Mood::Labels), Just(Mood::TakesAway)]
}

fn says(mood: Mood, question: &Question) -> Answer {
    if question.part == Part::Judge {
        return Answer::Passed;
    }
    changed(question, |value| match mood {
        Mood::Passes => {}
        Mood::Mirrors => {
            value["data"]["key"] = format!("m{}", value["data"]["key"].as_str().unwrap_or_default().trim_start_matches('m')).into()
        }
        Mood::Labels => value["metadata"]["labels"]["seen"] = "yes".into(),
        Mood::TakesAway => drop(value["data"].as_object_mut().map(|data| data.remove("key"))),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever webhooks make of what git says: once it is written there is nothing left to write, for a process that
    /// remembers and for one that asks again.
    #[test]
    fn planning_again_gives_nothing(
        moods in prop::collection::vec(a_mood(), 4),
        commits in prop::collection::vec(prop::collection::vec(prop::option::of(0_u8..3), 4), 1..4),
        hand in 0_usize..4,
    ) {
        let of = moods.clone();
        let mut world = world(CHANGES, move |it| {
            let at = it.key().name.trim_start_matches('c').parse::<usize>().unwrap_or_default();
            says(of[at], it)
        });
        world.write("admin", Write::Create(configuration(JUDGES, &["*"], "*")));
        world.edit_source("web", |source| source.spec.budget = Some(crate::model::PruneBudget { objects: Some(100), percent: None }));
        for (index, commit) in commits.iter().enumerate() {
            let files: String = commit.iter().enumerate().filter_map(|(at, value)| Some(config(&format!("c{at}"), &value.as_ref()?.to_string()))).collect();
            // So that it never becomes empty.
            let files = files + &config("c0", "0").replace("{name: c0}", "{name: c0, namespace: kube-system}");
            let status = world.put("web", &format!("r{index}"), &[("a.yaml", &files)]);
            prop_assert_eq!(status.errors.len(), 0, "{:?}", status.errors);
            if world.has(Kind::ConfigMap, "default", &format!("c{hand}")) {
                world.edit_data(&format!("c{hand}"), |data| drop(data.insert("key".to_owned(), "hand".to_owned())));
                world.again("web");
            }
            let rest = world.state.revision();
            world.asked.clear();
            world.again("web");
            prop_assert_eq!((world.state.revision(), world.asked.len()), (rest, 0));
            world.memories.clear();
            world.put("web", &format!("r{index}"), &[("a.yaml", &files)]);
            prop_assert_eq!(world.state.revision(), rest);
            for (at, value) in commit.iter().enumerate() {
                let Some(value) = value else { continue };
                let found = world.data(&format!("c{at}")).remove("key");
                let wanted = match moods[at] {
                    Mood::Mirrors => Some(format!("m{value}")),
                    Mood::TakesAway => None,
                    Mood::Passes | Mood::Labels => Some(value.to_string()),
                };
                prop_assert_eq!(found, wanted);
            }
        }
    }
}

/// The source is to go with what it created, and webhooks are asked until there is something to do.
fn remove(world: &mut World) -> Removal {
    let mut marked = world.get_source("web");
    marked.metadata.deletion_timestamp = Some(Time(NOW));
    marked.metadata.annotations.get_or_insert_default().insert(PRUNE.to_owned(), "true".to_owned());
    world.state.insert(Object::new(marked));
    let mut rounds = 0;
    loop {
        let answers = world.memories.entry("web".to_owned()).or_default().answers();
        let removal = removal::plan(&world.state, "web", answers, NOW).expect("it is there");
        if removal.questions.is_empty() {
            return removal;
        }
        let said = removal.questions.all.iter().map(|it| world.say.as_ref().map_or(Answer::Passed, |say| say(it)).into()).collect();
        answers.take(&removal.questions, said);
        world.asked.extend(removal.questions.all);
        rounds += 1;
        assert!(rounds < 3, "asks for ever");
    }
}

#[test]
fn who_may_not_be_deleted_keeps_a_removed_source() {
    for kind in [CHANGES, JUDGES] {
        let mut world =
            world(kind, |it| if it.key().name == "dear" && it.operation == Operation::Delete { denied() } else { Answer::Passed });
        world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("dear", "1")))]);
        world.asked.clear();
        let held = remove(&mut world);
        assert_eq!(words(&mut world), ["DELETE Judge dear", "DELETE Judge a"], "as a commit that prunes");
        assert_eq!(held.held.iter().map(|wait| wait.subject.name.as_str()).collect::<Vec<_>>(), ["dear"]);
        world.commit(&held.transaction);
        let status = world.get_source("web").status.unwrap();
        let no = "ConfigMap default/dear: admission webhook \"it.hooks.example.com\" denied the request: no";
        assert_eq!(
            (status.errors.as_slice(), ready(&status)),
            (&[no.to_owned()][..], ("WebhookDenied".to_owned(), format!("{STAYS}: {no}")))
        );
        assert!(world.has(Kind::ConfigMap, "default", "a") && world.has(Kind::ConfigMap, "default", "dear"), "nothing of it goes");
        // Said once, and asked once.
        assert!(remove(&mut world).transaction.writes.is_empty());
        assert_eq!(words(&mut world), [""; 0]);
        world.say = None;
        world.memories.get_mut("web").unwrap().answers().reconsider();
        let gone = remove(&mut world);
        assert_eq!(words(&mut world), ["DELETE Judge dear"], "who said yes is not asked again");
        world.commit(&gone.transaction);
        assert_eq!(world.state.list_in(Kind::ConfigMap, "default").count(), 0);
        assert!(world.state.get(&Key::cluster(Kind::Source, "web")).is_none());
    }
}

#[test]
fn a_removed_source_waits_for_a_webhook_that_does_not_answer() {
    let mut world = world(JUDGES, |it| if it.operation == Operation::Delete { silent(NOW) } else { Answer::Passed });
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    let held = remove(&mut world);
    assert_eq!(held.again_at, Some("1970-01-01T00:00:15Z".parse().unwrap()));
    world.commit(&held.transaction);
    assert_eq!(ready(&world.get_source("web").status.unwrap()).0, "WebhookUnavailable");
    assert!(world.has(Kind::ConfigMap, "default", "a"));
}

/// Warns of every ConfigMap that says `old`.
fn warns(question: &Question) -> Heard {
    let is_old = question.object.as_ref().is_some_and(|object| object.value()["data"]["key"] == "old");
    Heard { answer: Answer::Passed, warnings: is_old.then(|| "say something new".to_owned()).into_iter().collect() }
}

#[test]
fn what_webhooks_warn_of_stays_to_be_read_until_the_next_revision() {
    let mut world = world(JUDGES, |_| Answer::Passed);
    world.hear = Some(warns);
    let warning = |name: &str| format!("ConfigMap default/{name}: say something new");
    let status = world.put("web", "r1", &[("a.yaml", &(config("a", "old") + &config("b", "1")))]);
    assert_eq!((status.warnings.as_slice(), ready(&status).0.as_str()), (&[warning("a")][..], "Synced"));
    // Nothing is left to be asked about.
    world.memories.clear();
    assert_eq!(world.put("web", "r1", &[("a.yaml", &(config("a", "old") + &config("b", "1")))]).warnings, [warning("a")]);
    let status = world.put("web", "r2", &[("a.yaml", &(config("a", "new") + &config("b", "old")))]);
    assert_eq!(status.warnings, [warning("b")]);
    // Of one that is refused too.
    world.hear = Some(|it| Heard { answer: denied(), ..warns(it) });
    let status = world.put("web", "r3", &[("a.yaml", &(config("a", "old") + &config("b", "old")))]);
    assert_eq!((status.errors.len(), status.warnings.as_slice()), (1, &[warning("a")][..]));
    world.hear = None;
    world.memories.get_mut("web").unwrap().answers().reconsider();
    world.put("web", "r4", &[("a.yaml", &(config("a", "old") + &config("b", "old")))]);
    assert_eq!(world.get_source("web").status.unwrap().warnings, [""; 0]);
}

#[test]
fn what_webhooks_warn_of_a_refused_revision_goes_with_it() {
    let mut world = world(JUDGES, |_| Answer::Passed);
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    world.hear = Some(|it| Heard { answer: denied(), ..warns(it) });
    let status = world.put("web", "r2", &[("a.yaml", &config("a", "old"))]);
    assert_eq!((status.errors.len(), status.warnings.len()), (1, 1));
    // Nothing is left to be asked about.
    let status = world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    assert_eq!((status.errors.len(), status.warnings.len()), (0, 0));
}

#[test]
fn no_more_warnings_are_kept_than_a_person_reads() {
    let mut world = world(JUDGES, |_| Answer::Passed);
    world.hear = Some(warns);
    let files: String = (0..205).map(|at| config(&format!("c{at}"), "old")).collect();
    assert_eq!(world.put("web", "r1", &[("a.yaml", &files)]).warnings.len(), 200);
    let before = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), before, "it is at rest");
}

/// What was held back before a restart, and is no more.
#[test]
fn what_is_held_back_no_more_is_told_no_more_though_nothing_was_read_yet() {
    let mut world = world(JUDGES, |it| if it.operation == Operation::Update { denied() } else { Answer::Passed });
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    let live = world.state.get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap().clone();
    let mut value = live.value();
    value["data"]["key"] = "hand".into();
    let by_hand = Object::from_value(Kind::ConfigMap, value).unwrap();
    world.write("admin", Write::Update(by_hand, Precondition::seen(&live)));
    let held = world.again("web");
    assert_eq!((held.errors.len(), ready(&held).0.as_str()), (1, "WebhookDenied"));
    // The next process has read nothing, and the webhook thinks better of it.
    world.memories.clear();
    world.looks.insert("web".to_owned(), Look::Unread);
    let still = world.again("web");
    assert_eq!((&still.errors, ready(&still)), (&held.errors, ready(&held)));
    world.memories.clear();
    world.say = None;
    let free = world.again("web");
    assert_eq!((free.errors.len(), ready(&free).0.as_str(), key(&world, "a").as_str()), (0, "Synced", "1"));
}
