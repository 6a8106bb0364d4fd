use serde_json::{Value, json};

use super::*;
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Stamp, Transaction, Write};

fn definition(plural: &str, kind: &str) -> Object {
    let value = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.plans.example.com")},
        "spec": {"group": "plans.example.com", "scope": "Namespaced", "names": {"plural": plural, "singular": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    Object::from_value(Kind::CustomResourceDefinition, value).unwrap()
}

fn commit(state: &mut Snapshot, write: Write) {
    let mut count = state.revision();
    let mut uid = || {
        count += 1;
        format!("uid-{count}")
    };
    let mut stamp = Stamp { now: "2026-11-26T10:00:00Z".parse().unwrap(), uid: &mut uid };
    let applied = state.apply(&Transaction::new("admin").with(write), state.revision() + 1, &mut stamp).unwrap();
    *state = applied.snapshot;
}

fn settle(state: &mut Snapshot) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        let keys: Vec<Key> = state.list(Kind::CustomResourceDefinition).map(|it| it.key().clone()).collect();
        let now = "2026-11-26T10:00:00Z".parse().unwrap();
        let plans: Vec<Plan> = keys.iter().map(|key| CustomResourceDefinitions.plan(state, key, now)).collect();
        let Some(op) = plans.into_iter().flat_map(|plan| plan.ops).next() else { return said };
        said.push(op.to_string());
        commit(state, op.write());
    }
}

fn delete(state: &mut Snapshot, key: &Key) {
    commit(state, Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds: None });
}

fn conditions(state: &Snapshot, name: &str) -> Value {
    let object = state.find(Kind::CustomResourceDefinition, "", name).unwrap();
    let all = object.value()["status"]["conditions"].clone();
    all.as_array().unwrap().iter().map(|it| (it["type"].as_str().unwrap().to_owned(), it["reason"].clone())).collect()
}

#[test]
fn a_definition_takes_its_objects_along() {
    let mut state = Snapshot::default();
    let widgets = definition("widgets", "Widget");
    commit(&mut state, Write::Create(widgets.clone()));
    let kind = state.definitions().kind_of("plans.example.com/v1", "Widget").unwrap();
    let one = json!({"apiVersion": "plans.example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "default"}, "spec": {"size": 1}});
    commit(&mut state, Write::Create(Object::from_value(kind, one).unwrap()));
    assert_eq!(settle(&mut state), [""; 0]);
    delete(&mut state, widgets.key());
    assert_eq!(state.len(), 2);
    let ends = |state: &Snapshot| conditions(state, "widgets.plans.example.com")["Terminating"].clone();
    assert_eq!(ends(&state), "InstanceDeletionPending");
    let now = "2026-11-26T10:00:00Z".parse().unwrap();
    let first = CustomResourceDefinitions.plan(&state, widgets.key(), now).ops.remove(0);
    commit(&mut state, first.write());
    assert_eq!(ends(&state), "InstanceDeletionInProgress");
    assert_eq!(settle(&mut state), ["- Widget default/a", "~ CustomResourceDefinition widgets.plans.example.com"]);
    assert_eq!(state.len(), 0);
    assert!(state.definitions().is_empty());
}

#[test]
fn a_definition_stays_until_those_are_judged_whose_owners_were_of_its_kind() {
    let mut state = Snapshot::default();
    let widgets = definition("widgets", "Widget");
    commit(&mut state, Write::Create(widgets.clone()));
    let owner = json!({"apiVersion": "plans.example.com/v1", "kind": "Widget", "name": "a", "uid": "of-a-gone-one"});
    let owned = json!({"metadata": {"name": "owned", "namespace": "default", "ownerReferences": [owner]}});
    let owned = Object::from_value(Kind::ConfigMap, owned).unwrap();
    commit(&mut state, Write::Create(owned.clone()));
    delete(&mut state, widgets.key());
    assert_eq!(settle(&mut state), [""; 0], "without its kind it could not be told that the owner is gone");
    let now = "2026-11-26T10:00:00Z".parse().unwrap();
    let waits = CustomResourceDefinitions.plan(&state, widgets.key(), now).waits;
    assert_eq!(waits[0].reason.message, "1 objects have to go after their owners of its kind");
    let stored = state.get(owned.key()).unwrap().clone();
    delete(&mut state, owned.key());
    assert_eq!(CustomResourceDefinitions.keys(&state, &stored), [widgets.key().clone()]);
    assert_eq!(settle(&mut state), ["~ CustomResourceDefinition widgets.plans.example.com"]);
}

#[test]
fn a_definition_waits_for_none_that_nobody_judges() {
    let mut state = Snapshot::default();
    let widgets = definition("widgets", "Widget");
    commit(&mut state, Write::Create(widgets.clone()));
    let owner = json!({"apiVersion": "plans.example.com/v1", "kind": "Widget", "name": "a", "uid": "of-a-gone-one"});
    let lease = json!({"metadata": {"name": "leader", "namespace": "default", "ownerReferences": [owner]}, "spec": {}});
    commit(&mut state, Write::Create(Object::from_value(Kind::Lease, lease).unwrap()));
    delete(&mut state, widgets.key());
    assert_eq!(settle(&mut state), ["~ CustomResourceDefinition widgets.plans.example.com"]);
}

#[test]
fn a_name_goes_to_the_one_that_waits_for_it() {
    let mut state = Snapshot::default();
    let (first, second) = (definition("widgets", "Widget"), definition("others", "Widget"));
    commit(&mut state, Write::Create(first.clone()));
    commit(&mut state, Write::Create(second));
    let name = "others.plans.example.com";
    assert_eq!(conditions(&state, name), json!({"NamesAccepted": "KindConflict", "Established": "NotAccepted"}));
    assert!(state.definitions().get_named("plans.example.com", "others").is_none());
    delete(&mut state, first.key());
    assert_eq!(settle(&mut state).len(), 2);
    assert_eq!(conditions(&state, name), json!({"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}));
    assert!(state.definitions().get_named("plans.example.com", "others").is_some());
}

#[test]
fn a_kind_goes_by_the_names_that_were_accepted() {
    let mut state = Snapshot::default();
    commit(&mut state, Write::Create(definition("others", "Other")));
    let widgets = definition("widgets", "Widget");
    commit(&mut state, Write::Create(widgets.clone()));
    let after = state.get(widgets.key()).unwrap().edit::<CustomResourceDefinition>(|it| it.spec.names.singular = "others".to_owned());
    commit(&mut state, Write::Update(after.unwrap(), Precondition::exists()));
    let name = "widgets.plans.example.com";
    assert_eq!(conditions(&state, name), json!({"NamesAccepted": "SingularConflict", "Established": "InitialNamesAccepted"}));
    let kind = state.definitions().get_named("plans.example.com", "widgets").unwrap().storage().kind;
    assert_eq!(kind.info().singular, "widgets");
}
