use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Pod, Service};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Applied, Snapshot, claims};
use crate::admit::Refused;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::store::CommitError;
use crate::store::transaction::{Conflict, Precondition, Stamp, Transaction, Write};

const NAMES: [&str; 3] = ["a", "b", "c"];
const NAMESPACES: [&str; 2] = ["default", "web"];
const NODES: [&str; 2] = ["n1", "n2"];

fn object(kind: Kind, value: Value) -> Object {
    Object::from_value(kind, value).expect("of its kind")
}

/// One choice a number: which object, and what is written of it.
#[derive(Clone, Debug)]
struct Choice {
    verb: usize,
    kind: usize,
    name: usize,
    namespace: usize,
    variant: usize,
    condition: usize,
}

fn choice() -> impl Strategy<Value = Choice> {
    (0..6_usize, 0..5_usize, 0..3_usize, 0..2_usize, 0..8_usize, 0..4_usize)
        .prop_map(|(verb, kind, name, namespace, variant, condition)| Choice { verb, kind, name, namespace, variant, condition })
}

impl Choice {
    fn kind(&self) -> Kind {
        [Kind::Namespace, Kind::Pod, Kind::Service, Kind::ConfigMap, Kind::Pod][self.kind]
    }

    fn key(&self) -> Key {
        match self.kind() {
            Kind::Namespace => Key::cluster(Kind::Namespace, "web"),
            kind => Key::new(kind, NAMESPACES[self.namespace], NAMES[self.name]),
        }
    }

    fn object(&self, state: &Snapshot) -> Object {
        let key = self.key();
        let owner = NAMES[self.variant % 3];
        let mut meta = json!({"name": key.name, "namespace": key.namespace, "labels": {"app": owner, "n": self.variant.to_string()},
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": owner, "uid": owner}]});
        if self.variant == 1 {
            meta["finalizers"] = json!(["podbay.dev/test"]);
        }
        let value = match self.kind() {
            Kind::Namespace => json!({"metadata": {"name": "web", "labels": {"n": self.variant.to_string()}}}),
            Kind::ConfigMap => json!({"metadata": meta, "data": {"n": self.variant.to_string()}}),
            Kind::Service => {
                let type_ = if self.variant < 4 { "NodePort" } else { "ClusterIP" };
                json!({"metadata": meta, "spec": {"type": type_, "ports": [{"port": 80 + self.variant}], "selector": {"app": owner}}})
            }
            _ => {
                let bound = state.get(&key).and_then(|it| it.get::<Pod>()?.spec.as_ref()?.node_name.clone());
                let node = bound.or_else(|| (self.variant < 4).then(|| NODES[self.variant % 2].to_owned()));
                let phase = ["Pending", "Running", "Succeeded"][self.variant % 3];
                json!({"metadata": meta, "status": {"phase": phase},
                    "spec": {"nodeName": node.unwrap_or_default(), "containers": [{"name": "c", "image": "i"}]}})
            }
        };
        object(self.kind(), value)
    }

    fn write(&self, state: &Snapshot) -> Write {
        let key = self.key();
        let seen = state.get(&key).map(Precondition::seen).unwrap_or_default();
        let precondition = match self.condition {
            0 => seen,
            1 => Precondition { uid: Some("another".to_owned()), revision: None },
            _ => Precondition::exists(),
        };
        match self.verb {
            0 | 1 => Write::Create(self.object(state)),
            2 => Write::Update(self.object(state), precondition),
            3 => Write::UpdateStatus(self.object(state), precondition),
            _ => Write::Delete { key, precondition, grace_seconds: [None, Some(0), Some(5)][self.variant % 3] },
        }
    }
}

struct World {
    state: Snapshot,
    uids: u64,
}

impl World {
    fn new() -> Self {
        Self { state: Snapshot::default().at_revision(7), uids: 0 }
    }

    /// The state that the transaction makes of this one in its place; the same where it is refused.
    fn advanced(&self, transaction: &Transaction) -> Snapshot {
        let (mut state, mut uids) = (self.state.clone(), self.uids);
        let mut uid = || {
            uids += 1;
            format!("uid-{uids}")
        };
        let mut stamp = Stamp { now: Timestamp::UNIX_EPOCH, uid: &mut uid };
        let revision = state.revision() + 3;
        let _ = state.advance(transaction.clone(), revision, &mut stamp);
        state
    }

    fn apply(&mut self, transaction: &Transaction) -> Result<Applied, CommitError> {
        let uids = &mut self.uids;
        let mut uid = || {
            *uids += 1;
            format!("uid-{uids}")
        };
        self.state.apply(transaction, self.state.revision() + 3, &mut Stamp { now: Timestamp::UNIX_EPOCH, uid: &mut uid })
    }
}

fn content(state: &Snapshot) -> (u64, Vec<(Key, Bytes)>) {
    (state.revision(), state.iter().map(|object| (object.key().clone(), object.json())).collect())
}

/// Each index finds what a look at every object finds.
fn check_indexes(state: &Snapshot) {
    let all: Vec<&Object> = state.iter().collect();
    assert_eq!(all.len(), state.len());
    let keys = |wanted: &dyn Fn(&Object) -> bool| all.iter().filter(|it| wanted(it)).map(|it| it.key().clone()).collect::<BTreeSet<Key>>();
    let found = |objects: Vec<&Object>| objects.into_iter().map(|it| it.key().clone()).collect::<BTreeSet<Key>>();
    for kind in [Kind::Namespace, Kind::Pod, Kind::Service, Kind::ConfigMap] {
        assert_eq!(found(state.list(kind).collect()), keys(&|it| it.kind() == kind));
        for namespace in NAMESPACES {
            assert_eq!(found(state.list_in(kind, namespace).collect()), keys(&|it| it.kind() == kind && it.key().namespace == namespace));
        }
    }
    for owner in NAMES {
        assert_eq!(
            found(state.owned_by(owner).collect()),
            keys(&|it| it.meta().owner_references.iter().flatten().any(|it| it.uid == owner))
        );
        let stored = |object: &Object| state.get(object.key()).map(Object::revision) == Some(object.revision());
        assert!(state.owned_by(owner).all(stored), "as they are now");
        let asks = |it: &Object, owner| {
            it.get::<Service>()
                .is_some_and(|it| it.spec.as_ref().and_then(|it| it.selector.as_ref()?.get("app").map(String::as_str)) == Some(owner))
        };
        for namespace in NAMESPACES {
            let labels = BTreeMap::from([("app".to_owned(), owner.to_owned()), ("n".to_owned(), "1".to_owned())]);
            assert_eq!(
                found(state.selecting(namespace, &labels).collect()),
                keys(&|it| it.key().namespace == namespace && asks(it, owner))
            );
        }
        assert_eq!(found(state.labelled("app", owner)), keys(&|it| it.labels().get("app").is_some_and(|it| it == owner)));
    }
    for node in NODES {
        let on = |it: &Object| it.get::<Pod>().and_then(|it| it.spec.as_ref()?.node_name.as_deref()) == Some(node);
        assert_eq!(found(state.pods_on(node).collect()), keys(&on));
    }
    let unbound = keys(&|it| super::node_name(it).is_some_and(str::is_empty));
    assert_eq!(state.has_unbound_pods(), !unbound.is_empty());
    assert_eq!(found(state.unbound_pods().collect()), unbound);
    let mut claimed = BTreeMap::new();
    for object in &all {
        for claim in claims(object) {
            assert_eq!(state.claimed(&claim), Some(object.key()));
            assert_eq!(claimed.insert(claim, object.key()), None, "two Services have the same");
        }
    }
    assert_eq!(state.claims.len(), claimed.len(), "nothing stays behind");
}

/// The changes lead from the state before to the state afterwards, at the transaction's revision.
fn check_changes(before: &Snapshot, applied: &Applied) {
    let mut objects: BTreeMap<Key, Object> = before.iter().map(|it| (it.key().clone(), it.clone())).collect();
    for change in &applied.changes {
        assert_eq!(objects.get(change.key()), change.before.as_ref());
        match &change.after {
            Some(after) => {
                assert_eq!(after.revision(), applied.snapshot.revision());
                objects.insert(after.key().clone(), after.clone());
            }
            None => drop(objects.remove(change.key())),
        }
    }
    assert!(objects.values().eq(applied.snapshot.iter()));
    if applied.changes.is_empty() {
        assert_eq!(applied.snapshot.revision(), before.revision());
    } else {
        assert_eq!(applied.snapshot.revision(), before.revision() + 3);
    }
}

proptest! {
    #[test]
    fn any_transactions_keep_the_state_whole(steps in prop::collection::vec(prop::collection::vec(choice(), 1..4), 1..40)) {
        let mut world = World::new();
        for choices in steps {
            let writes: Vec<Write> = choices.iter().map(|it| it.write(&world.state)).collect();
            let transaction = Transaction { writes, ..Transaction::new("test") };
            let before = world.state.clone();
            let advanced = world.advanced(&transaction);
            match world.apply(&transaction) {
                Ok(applied) => {
                    prop_assert_eq!(applied.results.len(), transaction.writes.len());
                    check_changes(&before, &applied);
                    world.state = applied.snapshot;
                    check_indexes(&world.state);
                    // The same status again is no change.
                    if let [Write::UpdateStatus(object, _)] = transaction.writes.as_slice() {
                        let again = Write::UpdateStatus(object.clone(), Precondition::exists());
                        prop_assert!(world.apply(&Transaction::new("test").with(again)).expect("as before").changes.is_empty());
                    }
                }
                Err(_) => check_indexes(&world.state),
            }
            prop_assert_eq!(content(&advanced), content(&world.state));
            check_indexes(&advanced);
        }
    }
}

fn config(name: &str, value: &str) -> Object {
    object(Kind::ConfigMap, json!({"metadata": {"name": name, "namespace": "default"}, "data": {"k": value}}))
}

#[test]
fn a_transaction_is_whole_or_nothing() {
    let mut world = World::new();
    let transaction = Transaction::new("test").with(Write::Create(config("a", "1"))).with(Write::Create(config("A", "1")));
    assert!(matches!(world.apply(&transaction), Err(CommitError::Refused(Refused::Invalid { .. }))));
    assert!(world.state.is_empty());
    let transaction = Transaction::new("test").with(Write::Create(config("a", "1"))).with(Write::Create(config("a", "2")));
    assert!(matches!(world.apply(&transaction), Err(CommitError::Conflict(Conflict::Exists(_)))));
}

#[test]
fn preconditions_speak_of_the_object_as_it_was() {
    let mut world = World::new();
    let pod = json!({"metadata": {"name": "a", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    world.state = world.apply(&Transaction::new("test").with(Write::Create(object(Kind::Pod, pod)))).expect("admitted").snapshot;
    let before = world.state.get(&Key::new(Kind::Pod, "default", "a")).expect("there").clone();
    let labelled = before.clone().edit_meta(|meta| meta.labels = Some([("a".to_owned(), "b".to_owned())].into()));
    let running = labelled.edit(|it: &mut Pod| it.status.get_or_insert_default().phase = Some("Running".to_owned())).expect("a pod");
    let seen = Precondition::seen(&before);
    let both =
        Transaction::new("test").with(Write::Update(labelled, seen.clone())).with(Write::UpdateStatus(running.clone(), seen.clone()));
    let applied = world.apply(&both).expect("one writer, one object, two halves");
    let after = applied.results[1].as_ref().expect("there");
    assert_eq!(after.labels().get("a").map(String::as_str), Some("b"));
    assert_eq!(crate::model::pod::phase(after.get::<Pod>().expect("a pod")), "Running");
    world.state = applied.snapshot;
    let late = Transaction::new("test").with(Write::UpdateStatus(running, seen));
    assert!(matches!(world.apply(&late), Err(CommitError::Conflict(Conflict::Revision { .. }))));
}

#[test]
fn a_large_transaction_has_one_revision() {
    let mut world = World::new();
    let writes = (0..2_000).map(|index| Write::Create(config(&format!("c{index}"), "1"))).collect();
    let applied = world.apply(&Transaction { writes, ..Transaction::new("test") }).expect("admitted");
    assert_eq!(applied.changes.len(), 2_000);
    assert!(applied.snapshot.iter().all(|it| it.revision() == 10));
    assert_eq!(applied.snapshot.revision(), 10);
}
