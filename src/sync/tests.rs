//! Whole looks on a snapshot: what a revision does, promise by promise.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

use super::asked::{Answer, Answers, Heard, Question};
use super::look::{self, Look, Memory, decide};
use super::names::{ADOPT, APPROVE, FINALIZER, PRUNE, REQUESTED_AT};
use super::source::Tree;
use super::{approval, inventory, removal};
use crate::model::{Key, Kind, Object, PruneBudget, Source, SourceSpec, SourceStatus, Timestamp};
use crate::store::Snapshot;
use crate::store::transaction::{Precondition, Stamp, Transaction, Write};

/// What webhooks say to one question.
pub(super) type Say = Box<dyn Fn(&Question) -> Answer>;

/// A cluster, its sources and what their workers remember.
#[derive(Default)]
pub(super) struct World {
    pub state: Snapshot,
    pub memories: BTreeMap<String, Memory>,
    pub looks: BTreeMap<String, Look>,
    /// What the webhooks say; without it they have nothing against anything.
    pub say: Option<Say>,
    /// The same where they warn of something as well.
    pub hear: Option<fn(&Question) -> Heard>,
    /// What they were asked since the last look.
    pub asked: Vec<Question>,
    pub now: Timestamp,
    /// What the looks answer.
    request: Option<String>,
    uids: usize,
}

pub const NOW: Timestamp = Timestamp::UNIX_EPOCH;

pub fn tree(revision: &str, files: &[(&str, &str)]) -> Tree {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    Tree { revision: revision.to_owned(), files, path_exists: true, ..Tree::default() }
}

impl World {
    pub fn new() -> Self {
        let mut world = Self::default();
        for name in ["default", "kube-system"] {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            world.write("server", Write::Create(Object::new(namespace)));
        }
        world
    }

    pub fn with(name: &str) -> Self {
        let mut world = Self::new();
        world.source(name, |_| {});
        world
    }

    pub fn source(&mut self, name: &str, change: impl FnOnce(&mut SourceSpec)) {
        let mut spec = SourceSpec { directory: Some("/srv".to_owned()), ..SourceSpec::default() };
        change(&mut spec);
        self.write("admin", Write::Create(Object::new(Source::new(name, spec))));
    }

    pub fn write(&mut self, writer: &str, write: Write) {
        self.commit(&Transaction::new(writer).with(write));
    }

    pub fn commit(&mut self, transaction: &Transaction) {
        let uids = &mut self.uids;
        let mut uid = || {
            *uids += 1;
            format!("uid-{uids}")
        };
        let applied = self.state.apply(transaction, self.state.revision() + 1, &mut Stamp { now: NOW, uid: &mut uid }).unwrap();
        self.state = applied.snapshot;
    }

    pub fn edit_source(&mut self, name: &str, change: impl FnOnce(&mut Source)) {
        let object = self.state.get(&Key::cluster(Kind::Source, name)).unwrap().clone();
        let changed = object.edit::<Source>(change).unwrap();
        self.write("admin", Write::Update(changed, Precondition::seen(&object)));
    }

    /// A new revision appears; everything that can be done at once is done.
    pub fn put(&mut self, name: &str, revision: &str, files: &[(&str, &str)]) -> SourceStatus {
        self.tree(name, tree(revision, files))
    }

    pub fn tree(&mut self, name: &str, tree: Tree) -> SourceStatus {
        self.look_at(name, tree);
        self.again(name)
    }

    /// The place says something else; nobody has woken yet.
    pub fn look_at(&mut self, name: &str, tree: Tree) {
        let spec = self.get_source(name).spec;
        let look = Look::of(tree, &spec, self.state.definitions(), self.memories.entry(name.to_owned()).or_default());
        self.looks.insert(name.to_owned(), look);
    }

    /// The worker wakes.
    pub fn again(&mut self, name: &str) -> SourceStatus {
        for _ in 0..50 {
            if self.once(name) == 0 {
                return self.get_source(name).status.unwrap_or_default();
            }
        }
        panic!("{name} never comes to rest");
    }

    /// One transaction; how many writes it had.
    pub fn once(&mut self, name: &str) -> usize {
        let mut number = self.uids + 1000;
        let mut uid = || {
            number += 1;
            format!("uid-{number}")
        };
        let memory = self.memories.entry(name.to_owned()).or_default();
        let request = self.request.as_deref();
        let mut rounds = 0;
        let (step, mut forgetful) = loop {
            let forgetful = memory.forgetful();
            let step = decide(&self.state, name, &self.looks[name], request, memory, &mut uid, self.now);
            if step.questions.is_empty() {
                break (step, forgetful);
            }
            assert!(step.transaction.writes.is_empty(), "nothing is written before it was asked about");
            rounds += 1;
            assert!(rounds < 100, "it goes on asking: {:?}", step.questions);
            let said = |it| self.say.as_ref().map_or(Answer::Passed, |say| say(it)).into();
            let answers = step.questions.all.iter().map(|it| self.hear.map_or_else(|| said(it), |hear| hear(it)));
            memory.answers().take(&step.questions, answers.collect());
            self.asked.extend(step.questions.all);
        };
        let mut number_again = self.uids + 1000;
        let mut uid_again = || {
            number_again += 1;
            format!("uid-{number_again}")
        };
        let without = decide(&self.state, name, &self.looks[name], request, &mut forgetful, &mut uid_again, self.now);
        assert_eq!((&step.message, step.ops), (&without.message, without.ops), "what was remembered makes no difference");
        assert!(self.after(&step.transaction) == self.after(&without.transaction), "what was remembered makes no difference");
        self.uids = number;
        let writes = step.transaction.writes.len();
        if writes > 0 {
            self.commit(&step.transaction);
        }
        writes
    }

    fn after(&self, transaction: &Transaction) -> Vec<Object> {
        let mut uid = || "uid".to_owned();
        let applied = self.state.apply(transaction, self.state.revision() + 1, &mut Stamp { now: NOW, uid: &mut uid }).unwrap();
        applied.snapshot.iter().cloned().collect()
    }

    /// The status says that a request was carried out.
    fn handled(&mut self, name: &str, request: &str) {
        self.edit_status(name, |status| status.handled_request = Some(request.to_owned()));
    }

    pub fn edit_status(&mut self, name: &str, change: impl FnOnce(&mut SourceStatus)) {
        let object = self.state.get(&Key::cluster(Kind::Source, name)).unwrap().clone();
        let changed = object.edit::<Source>(|source| change(source.status.get_or_insert_default())).unwrap();
        self.write("admin", Write::UpdateStatus(changed, Precondition::exists()));
    }

    pub fn get_source(&self, name: &str) -> Source {
        self.state.get(&Key::cluster(Kind::Source, name)).unwrap().get::<Source>().unwrap().clone()
    }

    pub fn has(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.state.get(&Key::new(kind, namespace, name)).is_some_and(|object| !object.is_deleting())
    }

    pub fn data(&self, name: &str) -> BTreeMap<String, String> {
        self.state.get(&Key::new(Kind::ConfigMap, "default", name)).unwrap().get::<ConfigMap>().unwrap().data.clone().unwrap_or_default()
    }

    /// Objects that a Deployment `d` owns.
    fn own(&mut self, uid: &str, count: usize) {
        for index in 0..count {
            let owned = serde_json::json!({"metadata": {"name": format!("p{index}"), "namespace": "default", "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": uid, "controller": true}]}});
            self.write("test", Write::Create(Object::from_value(Kind::ConfigMap, owned).unwrap()));
        }
    }

    pub fn edit_data(&mut self, name: &str, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let object = self.state.get(&Key::new(Kind::ConfigMap, "default", name)).unwrap().clone();
        let edited = object.edit::<ConfigMap>(|it| change(it.data.get_or_insert_default())).unwrap();
        self.write("admin", Write::Update(edited, Precondition::exists()));
    }
}

pub(super) fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: \"{value}\"}}\n---\n")
}

pub(super) fn deployment(name: &str, extra: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}{extra}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec: {{containers: [{{name: c, image: {image}}}]}}\n---\n"
    )
}

pub(super) fn many(count: usize) -> String {
    (0..count).map(|index| config(&format!("c{index}"), "1")).collect()
}

#[test]
fn a_revision_is_taken_whole_and_rests() {
    let mut world = World::with("web");
    let status = world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &deployment("d", "", "i:1")))]);
    assert_eq!((status.accepted_revision.as_deref(), status.errors.len()), (Some("r1"), 0));
    assert_eq!(status.inventory.len(), 2);
    for entry in &status.inventory {
        let live = world.state.get(&inventory::key_of(entry, world.state.definitions()).unwrap()).unwrap();
        assert_eq!((entry.uid.as_str(), entry.created, entry.file.as_str()), (live.uid(), true, "a.yaml"));
        assert_eq!(live.meta().managed_fields.as_ref().unwrap()[0].manager.as_deref(), Some("podbay:web"));
    }
    assert_eq!(status.last_plan.as_deref(), Some("2 to create, 0 to update, 0 to delete, 0 unchanged"));
    let before = world.state.revision();
    world.again("web");
    assert_eq!(world.state.revision(), before);
    // A worker that remembers nothing finds nothing to do either.
    world.memories.clear();
    world.again("web");
    assert_eq!(world.state.revision(), before);
}

#[test]
fn a_bad_revision_changes_nothing_and_says_everything() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    let bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndatta: {}\n";
    let worse = deployment("d", "", "i:1").replace("replicas: 2", "replica: 2");
    let status = world.put("web", "r2", &[("a.yaml", &config("a", "2")), ("b.yaml", bad), ("c.yaml", &worse)]);
    assert_eq!((status.accepted_revision.as_deref(), status.fetched_revision.as_deref()), (Some("r1"), Some("r2")));
    assert_eq!(status.errors.len(), 2, "{:?}", status.errors);
    assert!(status.errors[0].starts_with("b.yaml:4:1: ") && status.errors[1].starts_with("c.yaml:5:3: "), "{:?}", status.errors);
    assert_eq!(world.data("a")["key"], "1");
    // The last good one is still held in place.
    world.edit_data("a", |data| drop(data.insert("key".to_owned(), "by hand".to_owned())));
    let status = world.again("web");
    assert_eq!((world.data("a")["key"].as_str(), status.errors.len()), ("1", 2));
    assert_eq!(world.put("web", "r3", &[("a.yaml", &config("a", "3"))]).errors.len(), 0);
    assert_eq!(world.data("a")["key"], "3");
}

#[test]
fn a_tree_that_cannot_be_reached_changes_nothing() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    world.looks.insert("web".to_owned(), Look::unreachable("no route".to_owned()));
    let status = world.again("web");
    assert_eq!(status.errors, ["unreachable: no route"]);
    assert_eq!(status.accepted_revision.as_deref(), Some("r1"));
    assert!(world.has(Kind::ConfigMap, "default", "a"));
}

/// Unlike one that was not reached: nobody has to look for the network.
#[test]
fn a_tree_that_is_not_taken_is_a_refused_revision() {
    for revision in [Some("r2"), None] {
        let mut world = World::with("web");
        world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
        let why = "big.yaml is larger than 8388608 bytes";
        world.looks.insert("web".to_owned(), Look::refused(revision.map(str::to_owned), why.to_owned()));
        world.edit_data("a", |data| drop(data.insert("key".to_owned(), "by hand".to_owned())));
        let status = world.again("web");
        assert_eq!(world.data("a")["key"], "1", "what is accepted is held in place");
        assert_eq!((status.accepted_revision.as_deref(), status.fetched_revision.as_deref()), (Some("r1"), revision));
        assert_eq!(status.errors, [why]);
        let conditions: Vec<_> = status.conditions.iter().map(|it| (it.type_.as_str(), it.reason.as_str(), it.message.as_str())).collect();
        assert_eq!(
            conditions,
            [("Ready", "Invalid", format!("the newest revision changes nothing: {why}").as_str()), ("Fetched", "Fetched", "")]
        );
    }
}

#[test]
fn what_git_does_not_say_is_no_drift_and_what_it_says_is_put_back() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    world.edit_data("a", |data| {
        data.insert("key".to_owned(), "changed".to_owned());
        data.insert("mine".to_owned(), "stays".to_owned());
    });
    world.again("web");
    assert_eq!(world.data("a"), BTreeMap::from([("key".to_owned(), "1".to_owned()), ("mine".to_owned(), "stays".to_owned())]));
    // Deleted by hand: created again.
    let key = Key::new(Kind::ConfigMap, "default", "a");
    world.write("admin", Write::Delete { key, precondition: Precondition::exists(), grace_seconds: None });
    let status = world.again("web");
    assert_eq!(world.data("a")["key"], "1");
    assert_eq!(status.inventory[0].uid, world.state.get(&Key::new(Kind::ConfigMap, "default", "a")).unwrap().uid());
    // A field that git stops saying goes.
    world.put("web", "r2", &[("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {other: x}\n")]);
    assert_eq!(world.data("a"), BTreeMap::from([("other".to_owned(), "x".to_owned())]));
}

#[test]
fn only_what_was_created_is_pruned() {
    let mut world = World::new();
    world.source("web", |spec| spec.adopt = Some(true));
    let foreign = Object::from_value(Kind::ConfigMap, serde_json::json!({"metadata": {"name": "old", "namespace": "default"}})).unwrap();
    world.write("admin", Write::Create(foreign));
    let keep = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keep, annotations: {argocd.argoproj.io/sync-options: \"X=y, Prune=false\"}}\n---\n";
    let flux = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: flux, annotations: {kustomize.toolkit.fluxcd.io/prune: disabled}}\n---\n";
    let all = config("old", "1") + &config("new", "1") + keep + flux + &config("stays", "1");
    let status = world.put("web", "r1", &[("a.yaml", &all)]);
    assert_eq!(status.errors, [""; 0]);
    assert_eq!(world.data("old")["key"], "1");
    let status = world.put("web", "r2", &[("a.yaml", &config("stays", "1"))]);
    assert_eq!(status.accepted_revision.as_deref(), Some("r2"), "{:?}", status.errors);
    for (name, there) in [("old", true), ("keep", true), ("flux", true), ("stays", true), ("new", false)] {
        assert_eq!(world.has(Kind::ConfigMap, "default", name), there, "{name}");
    }
    assert_eq!(status.inventory.len(), 1);
    let status = world.put("web", "r1", &[("a.yaml", &all)]);
    assert!(status.inventory.iter().all(|entry| entry.created == (entry.name == "stays" || entry.name == "new")), "{:?}", status.inventory);
}

#[test]
fn a_stranger_of_the_same_name_is_never_pruned_or_changed() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
    let key = Key::new(Kind::ConfigMap, "default", "a");
    world.write("admin", Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds: None });
    let other = Object::from_value(
        Kind::ConfigMap,
        serde_json::json!({"metadata": {"name": "a", "namespace": "default"}, "data": {"key": "theirs"}}),
    )
    .unwrap();
    world.write("admin", Write::Create(other));
    let status = world.again("web");
    assert!(status.errors[0].contains("ConfigMap default/a exists and Podbay did not create it"), "{:?}", status.errors);
    let status = world.put("web", "r2", &[("a.yaml", &config("b", "1"))]);
    assert_eq!((status.errors.len(), world.data("a")["key"].as_str()), (0, "theirs"));
}

#[test]
fn adopting_on_request_ends_with_the_request() {
    let mut world = World::with("web");
    for name in ["a", "b"] {
        let map = serde_json::json!({"metadata": {"name": name, "namespace": "default"}, "data": {"key": "theirs"}});
        world.write("admin", Write::Create(Object::from_value(Kind::ConfigMap, map).unwrap()));
    }
    let status = world.put("web", "r1", &[("a.yaml", &config("a", "ours"))]);
    assert!(status.errors[0].contains("did not create it"), "{:?}", status.errors);
    world.edit_source("web", |source| {
        let annotations = source.metadata.annotations.get_or_insert_default();
        annotations.insert(REQUESTED_AT.to_owned(), "now".to_owned());
        annotations.insert(ADOPT.to_owned(), "now".to_owned());
    });
    assert!(world.again("web").errors.is_empty());
    assert_eq!(world.data("a")["key"], "ours");
    world.handled("web", "now");
    assert!(world.again("web").errors.is_empty(), "what was adopted stays so");
    let both = config("a", "ours") + &config("b", "ours");
    let status = world.put("web", "r2", &[("a.yaml", &both)]);
    assert!(status.errors[0].contains("did not create it"), "{:?}", status.errors);
    assert_eq!(world.data("b")["key"], "theirs");
}

#[test]
fn two_sources_with_one_object_are_both_refused() {
    let mut world = World::with("one");
    world.source("two", |_| {});
    world.put("one", "r1", &[("x.yaml", &config("a", "1"))]);
    let status = world.put("two", "s1", &[("y.yaml", &config("a", "2"))]);
    assert!(status.errors[0].contains("y.yaml of two, and x.yaml of one"), "{:?}", status.errors);
    assert_eq!(status.errors.len(), 1, "adopting it would be no way out: {:?}", status.errors);
    assert_eq!((world.data("a")["key"].as_str(), status.pending_plan), ("1", None));
    let status = world.put("one", "r2", &[("x.yaml", &config("a", "3"))]);
    assert!(status.errors[0].contains("x.yaml of one, and y.yaml of two"), "{:?}", status.errors);
    assert_eq!(world.data("a")["key"], "1");
    // One gives way, the other goes on.
    assert_eq!(world.put("two", "s2", &[("y.yaml", &config("b", "2"))]).errors.len(), 0);
    assert_eq!(world.again("one").errors.len(), 0);
    assert_eq!(world.data("a")["key"], "3");
}

#[test]
fn a_suspended_source_wants_nothing_and_holds_what_it_has() {
    let mut world = World::with("one");
    world.source("two", |_| {});
    world.put("one", "r1", &[("x.yaml", &config("a", "1"))]);
    assert_eq!(world.put("two", "s1", &[("y.yaml", &config("a", "2"))]).errors.len(), 1);
    world.edit_source("two", |source| source.spec.suspend = Some(true));
    assert_eq!(world.put("one", "r2", &[("x.yaml", &config("a", "3"))]).errors.len(), 0);
    world.edit_source("one", |source| source.spec.suspend = Some(true));
    world.edit_source("two", |source| source.spec.suspend = None);
    let status = world.put("two", "s2", &[("y.yaml", &config("a", "4"))]);
    assert!(status.errors[0].contains("y.yaml of two, and x.yaml of one (suspended)"), "{:?}", status.errors);
}

#[test]
fn what_says_nothing_of_an_object_takes_nothing_over() {
    let mut world = World::with("web");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---\n";
    let before = world.state.find(Kind::Namespace, "", "default").cloned();
    assert_eq!(world.put("web", "r1", &[("a.yaml", &(namespace.to_owned() + &many(20)))]).errors.len(), 0);
    let said = namespace.replace("name: default", "name: default, labels: {a: b}");
    let status = world.put("web", "r2", &[("a.yaml", &(said + &many(20)))]);
    assert!(status.errors[0].contains("Namespace default exists and Podbay did not create it"), "{:?}", status.errors);
    assert_eq!(world.put("web", "r3", &[("a.yaml", &many(20))]).errors.len(), 0);
    assert_eq!(world.state.find(Kind::Namespace, "", "default"), before.as_ref(), "nor is it pruned");
}

#[test]
fn an_approval_is_of_what_goes_along_too() {
    let mut world = World::with("web");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    world.put("web", "r1", &[("a.yaml", &(namespace.to_owned() + &many(20)))]);
    let theirs = |kind, name: &str, owner: serde_json::Value| {
        let value = serde_json::json!({"metadata": {"name": name, "namespace": "shop", "ownerReferences": owner},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        Write::Create(Object::from_value(kind, value).unwrap())
    };
    world.write("admin", theirs(Kind::ConfigMap, "theirs", serde_json::json!([])));
    let id = world.put("web", "r2", &[("a.yaml", &many(20))]).pending_plan.expect("it waits");
    // Pods come and go by themselves.
    let owner = serde_json::json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    world.write("controller:replica-set", theirs(Kind::Pod, "pod", owner));
    assert_eq!(world.again("web").pending_plan.as_ref(), Some(&id));
    world.write("admin", theirs(Kind::ConfigMap, "valuable", serde_json::json!([])));
    world.edit_source("web", |source| drop(source.metadata.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id.clone())));
    let status = world.again("web");
    assert!(status.pending_plan.is_some_and(|other| other != id));
    assert!(world.has(Kind::ConfigMap, "shop", "valuable"));
}

#[test]
fn what_may_not_be_pruned_does_not_go_unseen() {
    let mut world = World::with("web");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    let keep = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop, annotations: {argocd.argoproj.io/sync-options: Prune=false}}\n---\n";
    world.put("web", "r1", &[("a.yaml", &(namespace.to_owned() + keep + &many(20)))]);
    // It has left git before its namespace does.
    assert_eq!(world.put("web", "r2", &[("a.yaml", &(namespace.to_owned() + &many(20)))]).errors.len(), 0);
    let status = world.put("web", "r3", &[("a.yaml", &many(20))]);
    let told = "ConfigMap shop/a would go with Namespace shop, though its annotation forbids pruning";
    assert!(status.errors.iter().any(|error| error.contains(told)), "{:?}", status.errors);
    assert!(status.pending_plan.is_some() && world.has(Kind::ConfigMap, "shop", "a"));
}

#[test]
fn deletions_beyond_the_budget_wait_for_approval() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    // 5 of 20 may go, 7 of 15 may not.
    assert_eq!(world.put("web", "r2", &[("a.yaml", &many(15))]).errors.len(), 0);
    let status = world.put("web", "r3", &[("a.yaml", &many(8))]);
    assert!(status.errors[0].contains("7 objects of 15 would go (46 %)"), "{:?}", status.errors);
    assert!(world.has(Kind::ConfigMap, "default", "c14"));
    assert_eq!(status.accepted_revision.as_deref(), Some("r2"));
    let id = status.pending_plan.unwrap();
    // The approval of another plan is refused, and both are named.
    world.edit_source("web", |source| {
        drop(source.metadata.annotations.get_or_insert_default().insert(APPROVE.to_owned(), "0123".to_owned()))
    });
    let status = world.again("web");
    assert!(status.errors.iter().any(|error| error.contains("plan 0123 was approved")), "{:?}", status.errors);
    world.edit_source("web", |source| drop(source.metadata.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id.clone())));
    let status = world.again("web");
    assert_eq!((status.errors.len(), status.pending_plan, status.approved_plan), (0, None, Some(id)));
    assert!(!world.has(Kind::ConfigMap, "default", "c14") && world.has(Kind::ConfigMap, "default", "c7"));
}

#[test]
fn what_cannot_be_read_cannot_be_approved() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    let id = world.put("web", "r2", &[("a.yaml", &many(8))]).pending_plan;
    let look = world.looks.insert("web".to_owned(), Look::unreachable("no route".to_owned()));
    assert_eq!(world.again("web").pending_plan, None);
    world.looks.insert("web".to_owned(), look.unwrap());
    assert_eq!(world.again("web").pending_plan, id, "asked for again when it is back");
}

#[test]
fn an_approval_is_of_exactly_one_plan() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    let id = world.put("web", "r2", &[("a.yaml", &many(8))]).pending_plan.unwrap();
    // A time or a status changes nothing about the plan; content does.
    assert_eq!(world.again("web").pending_plan.as_ref(), Some(&id));
    world.edit_data("c19", |data| drop(data.insert("x".to_owned(), "y".to_owned())));
    world.edit_source("web", |source| drop(source.metadata.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id.clone())));
    let status = world.again("web");
    assert!(status.pending_plan.is_some_and(|other| other != id));
    assert!(world.has(Kind::ConfigMap, "default", "c19"));
}

#[test]
fn the_sum_is_of_the_plan_that_was_asked_for() {
    let mut world = World::with("web");
    let nothing = |status: &SourceStatus| status.last_plan.as_deref() == Some("no change, 20 as they should be");
    world.put("web", "r1", &[("a.yaml", &many(20))]);
    world.put("web", "r2", &[("a.yaml", &many(8))]).pending_plan.expect("it waits");
    let status = world.put("web", "r1", &[("a.yaml", &many(20))]);
    assert!(nothing(&status), "what was taken back deletes nothing: {:?}", status.last_plan);
    let status = world.put("web", "r3", &[("a.yaml", &(many(20) + &config("more", "1")))]);
    assert!(status.last_plan.as_deref().is_some_and(|sum| sum.starts_with("1 to create")), "{:?}", status.last_plan);
    assert_eq!(world.again("web").last_plan, status.last_plan, "it stays to be read");
    let status = world.put("web", "r4", &[("a.yaml", &(many(20) + &config("more", "1")))]);
    assert!(status.last_plan.as_deref().is_some_and(|sum| sum.starts_with("no change")), "of this revision: {:?}", status.last_plan);
    world.put("web", "r5", &[("a.yaml", &many(20))]);
    world.request = Some("now".to_owned());
    let status = world.again("web");
    assert!(nothing(&status), "a second time there is nothing to do: {:?}", status.last_plan);
}

#[test]
fn owners_take_what_they_own_into_account() {
    let mut world = World::with("web");
    let text = deployment("d", "", "i:1") + &config("a", "1");
    world.put("web", "r1", &[("a.yaml", &text)]);
    let uid = world.state.get(&Key::new(Kind::Deployment, "default", "d")).unwrap().uid().to_owned();
    world.own(&uid, 7);
    let status = world.put("web", "r2", &[("a.yaml", &config("a", "1"))]);
    assert!(status.errors[0].contains("8 objects of 9 would go"), "{:?}", status.errors);
    assert_eq!(status.last_plan.as_deref(), Some("0 to create, 0 to update, 1 to delete with 7 more, 1 unchanged"));
}

/// Deleted and created anew: what the old one owns goes all the same.
#[test]
fn replacements_count_in_the_budget_with_what_they_own() {
    let mut world = World::with("web");
    let replaceable = |app: &str| {
        deployment("d", ", annotations: {podbay.dev/replace: \"true\"}", "i:1").replace("app: d", &format!("app: {app}"))
            + &config("a", "1")
    };
    world.put("web", "r1", &[("a.yaml", &replaceable("d"))]);
    let uid = world.state.get(&Key::new(Kind::Deployment, "default", "d")).unwrap().uid().to_owned();
    world.own(&uid, 7);
    let status = world.put("web", "r2", &[("a.yaml", &replaceable("e"))]);
    assert!(status.errors[0].contains("8 objects of 9 would go"), "{:?}", status.errors);
    assert!(status.last_plan.as_deref().unwrap().contains("1 to replace"), "{:?}", status.last_plan);
    assert_eq!(world.state.get(&Key::new(Kind::Deployment, "default", "d")).unwrap().uid(), uid);
    let id = status.pending_plan.unwrap();
    world.edit_source("web", |source| drop(source.metadata.annotations.get_or_insert_default().insert(APPROVE.to_owned(), id)));
    assert_eq!(world.again("web").errors, [""; 0]);
    assert_ne!(world.state.get(&Key::new(Kind::Deployment, "default", "d")).unwrap().uid(), uid);
    // One that owns little is within the budget.
    assert_eq!(world.put("web", "r3", &[("a.yaml", &replaceable("f"))]).errors, [""; 0]);
}

#[test]
fn an_empty_or_vanished_tree_waits_for_approval() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    let status = world.put("web", "r2", &[]);
    assert!(status.errors[0].contains("would become empty") && status.pending_plan.is_some(), "{:?}", status.errors);
    let status = world.tree("web", Tree { revision: "r3".to_owned(), ..Tree::default() });
    assert!(status.errors[0].contains("path no longer exists") && status.pending_plan.is_some(), "{:?}", status.errors);
    assert!(world.has(Kind::ConfigMap, "default", "a"));
    // A source whose path never existed is a mistake, nothing to approve.
    world.source("new", |_| {});
    let status = world.tree("new", Tree { revision: "r1".to_owned(), ..Tree::default() });
    assert!(status.errors[0].contains("path does not exist") && status.pending_plan.is_none());
}

#[test]
fn a_namespace_with_anything_in_it_waits_for_approval() {
    let mut world = World::with("web");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    let inside = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n---\n";
    world.put("web", "r1", &[("a.yaml", &(namespace.to_owned() + &many(20)))]);
    let other = Object::from_value(Kind::ConfigMap, serde_json::json!({"metadata": {"name": "theirs", "namespace": "shop"}})).unwrap();
    world.write("admin", Write::Create(other));
    let status = world.put("web", "r2", &[("a.yaml", &many(20))]);
    assert!(status.errors[0].contains("Namespace shop would go with everything in it: ConfigMap shop/theirs"), "{:?}", status.errors);
    assert_eq!(world.put("web", "r3", &[("a.yaml", &(namespace.to_owned() + inside + &many(20)))]).errors.len(), 0);
}

#[test]
fn waves_wait_for_the_one_before_and_prune_at_the_end() {
    let mut world = World::with("web");
    let wave = |name: &str, wave: i32| deployment(name, &format!(", annotations: {{argocd.argoproj.io/sync-wave: \"{wave}\"}}"), "i:1");
    world.put("web", "r0", &[("a.yaml", &config("old", "1")), ("b.yaml", &config("kept", "1"))]);
    let status = world.put("web", "r1", &[("a.yaml", &(wave("first", -1) + &wave("second", 2))), ("b.yaml", &config("kept", "1"))]);
    assert_eq!(status.accepted_revision.as_deref(), Some("r1"));
    assert_eq!(status.inventory.len(), 4);
    let there = |world: &World, name: &str| world.has(Kind::Deployment, "default", name);
    assert!(there(&world, "first") && !there(&world, "second") && world.has(Kind::ConfigMap, "default", "old"));
    let ready = |world: &mut World, name: &str, count: i32| {
        let object = world.state.get(&Key::new(Kind::Deployment, "default", name)).unwrap().clone();
        let changed = object.edit::<Deployment>(|it| {
            let status = it.status.get_or_insert_default();
            status.observed_generation = it.metadata.generation;
            (status.replicas, status.updated_replicas, status.available_replicas) = (Some(count), Some(count), Some(count));
        });
        world.write("deployment", Write::UpdateStatus(changed.unwrap(), Precondition::exists()));
    };
    ready(&mut world, "first", 2);
    let status = world.again("web");
    assert!(there(&world, "second") && world.has(Kind::ConfigMap, "default", "old"));
    assert!(status.conditions.iter().any(|it| it.type_ == "Ready" && it.message.contains("wave 2 waits")), "{:?}", status.conditions);
    ready(&mut world, "second", 2);
    let status = world.again("web");
    assert!(!world.has(Kind::ConfigMap, "default", "old"));
    assert_eq!(status.inventory.len(), 3);
    // A newer commit takes over from one that is stuck.
    ready(&mut world, "first", 0);
    let stuck = world.put(
        "web",
        "r2",
        &[("a.yaml", &(wave("first", -1).replace("i:1", "i:2") + &wave("third", 5))), ("b.yaml", &config("kept", "1"))],
    );
    assert_eq!(stuck.accepted_revision.as_deref(), Some("r2"));
    assert!(!there(&world, "third"));
    let over = world.put("web", "r3", &[("a.yaml", &wave("first", -1)), ("b.yaml", &config("kept", "2"))]);
    assert_eq!(over.accepted_revision.as_deref(), Some("r3"));
}

#[test]
fn a_source_object_that_goes_leaves_or_prunes() {
    for (prune, left) in [(false, true), (true, false)] {
        let mut world = World::with("web");
        world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
        assert_eq!(world.get_source("web").metadata.finalizers, Some(vec![FINALIZER.to_owned()]));
        if prune {
            world.edit_source("web", |source| {
                drop(source.metadata.annotations.get_or_insert_default().insert(PRUNE.to_owned(), "true".to_owned()))
            });
        }
        // As admission marks an object with finalizers.
        let mut marked = world.get_source("web");
        marked.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
        world.state.insert(Object::new(marked));
        let transaction = removal::plan(&world.state, "web", &Answers::default(), NOW).unwrap().transaction;
        world.commit(&transaction);
        assert_eq!((world.has(Kind::ConfigMap, "default", "a"), world.has(Kind::ConfigMap, "default", "b")), (left, left));
    }
}

#[test]
fn a_removed_source_prunes_neither_what_it_adopted_nor_what_says_no() {
    let mut world = World::new();
    world.source("web", |spec| spec.adopt = Some(true));
    let foreign = Object::from_value(Kind::ConfigMap, serde_json::json!({"metadata": {"name": "theirs", "namespace": "default"}})).unwrap();
    world.write("admin", Write::Create(foreign));
    let no = |name: &str, annotation: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, annotations: {{{annotation}}}}}\n---\n")
    };
    let kept = no("argo", "argocd.argoproj.io/sync-options: Prune=false") + &no("flux", "kustomize.toolkit.fluxcd.io/prune: disabled");
    world.put("web", "r1", &[("a.yaml", &(config("theirs", "1") + &config("ours", "1") + &kept))]);
    let mut marked = world.get_source("web");
    marked.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    marked.metadata.annotations.get_or_insert_default().insert(PRUNE.to_owned(), "true".to_owned());
    world.state.insert(Object::new(marked));
    let transaction = removal::plan(&world.state, "web", &Answers::default(), NOW).unwrap().transaction;
    world.commit(&transaction);
    for (name, there) in [("theirs", true), ("argo", true), ("flux", true), ("ours", false)] {
        assert_eq!(world.has(Kind::ConfigMap, "default", name), there, "{name}");
    }
}

#[test]
fn a_removed_source_takes_nothing_of_others_along() {
    for theirs in [false, true] {
        let mut world = World::with("web");
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
        let ours = config("a", "1").replace("name: a", "name: a, namespace: shop");
        world.put("web", "r1", &[("a.yaml", &(namespace.to_owned() + &ours))]);
        assert!(world.has(Kind::ConfigMap, "shop", "a"));
        if theirs {
            let foreign = serde_json::json!({"metadata": {"name": "theirs", "namespace": "shop"}});
            world.write("admin", Write::Create(Object::from_value(Kind::ConfigMap, foreign).unwrap()));
        }
        let mut marked = world.get_source("web");
        marked.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
        marked.metadata.annotations.get_or_insert_default().insert(PRUNE.to_owned(), "true".to_owned());
        world.state.insert(Object::new(marked));
        let removal = removal::plan(&world.state, "web", &Answers::default(), NOW).unwrap();
        let deleted =
            |key: &Key| removal.transaction.writes.iter().any(|write| matches!(write, Write::Delete { key: of, .. } if of == key));
        assert!(deleted(&Key::new(Kind::ConfigMap, "shop", "a")));
        assert_eq!(deleted(&Key::cluster(Kind::Namespace, "shop")), !theirs);
        let told: Vec<String> = removal.left.iter().map(|it| format!("{} {}", it.subject, it.reason.message)).collect();
        let stays = "Namespace shop stays, though source web was removed with what it created: ConfigMap shop/theirs would go with it";
        assert_eq!(told, if theirs { vec![stays] } else { vec![] });
    }
}

#[test]
fn an_old_acquaintance_is_updated_and_not_pruned() {
    let mut world = World::with("web");
    world.put("web", "r1", &[("a.yaml", &(config("a", "1") + &config("b", "1")))]);
    // The Source was removed and its objects stayed; now it comes back.
    let mut fresh = world.get_source("web");
    fresh.status = None;
    world.state.insert(Object::new(fresh));
    world.memories.clear();
    assert_eq!(world.put("web", "r2", &[("a.yaml", &(config("a", "2") + &config("b", "2")))]).errors.len(), 0);
    assert_eq!(world.data("a")["key"], "2");
    world.put("web", "r3", &[("a.yaml", &config("b", "2"))]);
    assert!(world.has(Kind::ConfigMap, "default", "a"));
}

#[test]
fn the_budget_is_the_sources() {
    let mut world = World::new();
    world.source("web", |spec| spec.budget = Some(PruneBudget { objects: Some(0), percent: Some(0) }));
    world.put("web", "r1", &[("a.yaml", &many(100))]);
    assert!(world.put("web", "r2", &[("a.yaml", &many(99))]).pending_plan.is_some());
}

#[test]
fn secrets_are_in_no_message() {
    let mut world = World::with("web");
    let secret = |value: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{password: {value}}}\n---\n");
    world.put("web", "r1", &[("a.yaml", &secret("hunter2"))]);
    let before = world.state.revision();
    world.memories.clear();
    world.again("web");
    assert_eq!(world.state.revision(), before, "what admission turns into data is no drift");
    let status = world.put("web", "r2", &[("a.yaml", &secret("hunter3"))]);
    assert!(!serde_json::to_string(&status).unwrap().contains("hunter"));
    assert_eq!(approval::short("abcdef0123456789"), "abcdef012345");
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// A commit: for each of some names, its value and whether it is there.
    fn commits() -> impl Strategy<Value = Vec<BTreeMap<u8, u8>>> {
        prop::collection::vec(prop::collection::btree_map(0..12_u8, 0..3_u8, 0..10), 1..8)
    }

    proptest! {
        /// Whatever comes and goes: afterwards the cluster is what the accepted commit says, nothing
        /// else of the source's is left, and planning again does nothing.
        #[test]
        fn the_cluster_follows_the_commits(commits in commits(), meddled in prop::collection::vec(0..12_u8, 0..8)) {
            let mut world = World::with("web");
            world.edit_source("web", |source| source.spec.budget = Some(PruneBudget { objects: Some(1000), percent: None }));
            let mut wanted: BTreeMap<u8, u8> = BTreeMap::new();
            for (index, commit) in commits.iter().enumerate() {
                let text: String = commit.iter().map(|(name, value)| config(&format!("c{name}"), &value.to_string())).collect();
                let status = world.put("web", &format!("r{index}"), &[("a.yaml", &text)]);
                if status.errors.is_empty() {
                    wanted.clone_from(commit);
                } else {
                    prop_assert!(commit.is_empty() && !wanted.is_empty(), "{:?}", status.errors);
                    continue;
                }
                if let Some(name) = meddled.get(index).filter(|name| wanted.contains_key(name)) {
                    world.edit_data(&format!("c{name}"), |data| drop(data.insert("key".to_owned(), "x".to_owned())));
                    world.again("web");
                }
                let found: BTreeMap<String, String> = world.state.list_in(Kind::ConfigMap, "default")
                    .map(|object| (object.key().name.clone(), world.data(&object.key().name)["key"].clone())).collect();
                let expected: BTreeMap<String, String> = wanted.iter().map(|(name, value)| (format!("c{name}"), value.to_string())).collect();
                prop_assert_eq!(found, expected);
                world.memories.clear();
                let text = [("a.yaml", text.as_str())];
                let before = world.state.revision();
                world.put("web", &format!("r{index}"), &text);
                prop_assert_eq!(world.state.revision(), before);
            }
        }
    }
}

#[test]
fn a_full_store_is_told_once_and_goes_with_the_next_look() {
    let mut world = World::with("web");
    let ready = |status: &SourceStatus| {
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready").unwrap();
        (ready.status.clone(), ready.reason.clone(), ready.message.clone())
    };
    world.put("web", "r1", &[("a.yaml", &config("a", "1"))]);
    world.look_at("web", tree("r2", &[("a.yaml", &config("a", "2"))]));
    let transaction = look::full(&world.state, "web", "8 MiB free", NOW).unwrap();
    assert!(transaction.frees_space(&world.state), "it is written on a full store");
    world.commit(&transaction);
    let status = world.get_source("web").status.unwrap();
    let message = "nothing of the newest look is written, the store is short of space: 8 MiB free";
    assert_eq!(ready(&status), ("False".to_owned(), "StoreFull".to_owned(), message.to_owned()));
    assert_eq!((status.accepted_revision.as_deref(), &*world.data("a")["key"]), (Some("r1"), "1"), "the last good one is in force");
    assert!(look::full(&world.state, "web", "7 MiB free", NOW).is_none(), "not at every try");
    let status = world.again("web");
    assert_eq!((ready(&status).0.as_str(), status.accepted_revision.as_deref()), ("True", Some("r2")));
    // Git says again what is in force: nothing is left to write but that.
    world.look_at("web", tree("r3", &[("a.yaml", &config("a", "3"))]));
    world.commit(&look::full(&world.state, "web", "8 MiB free", NOW).unwrap());
    let status = world.put("web", "r2", &[("a.yaml", &config("a", "2"))]);
    assert_eq!(ready(&status).1, "Synced");
    assert!(look::full(&world.state, "other", "8 MiB free", NOW).is_none());
}
