//! Custom kinds in the storms: definitions that come and go, objects of theirs, and owners of every kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::storage::HELD;
use super::{Chaos, object};
use crate::control::garbage::plan::{FOREGROUND, ORPHAN};
use crate::model::{Key, Kind, Object};
use crate::store::transaction::{Precondition, Write};

const VERSION: &str = "storm.example.com/v1";
const KINDS: [(&str, &str, &str); 2] = [("widgets", "Widget", "Namespaced"), ("realms", "Realm", "Cluster")];
/// A namespace that comes and goes; `web` stays.
const NAMESPACE: &str = "shop";

impl Chaos {
    /// What there is of custom kinds before the storm.
    pub fn has_custom_kinds(&mut self) {
        self.definition_comes_or_goes(0);
        self.definition_comes_or_goes(1);
        self.namespace_comes_or_goes();
        for _ in 0..6 {
            self.guest_comes_or_goes();
        }
    }

    pub fn custom_kinds_change(&mut self) {
        match self.dice.below(16) {
            0 => {
                let at = self.dice.below(KINDS.len());
                self.definition_comes_or_goes(at);
            }
            1 => self.namespace_comes_or_goes(),
            2..9 => self.guest_comes_or_goes(),
            9..12 => self.guest_changes_owners(),
            _ => self.guest_changes_finalizers(),
        }
    }

    fn definition_comes_or_goes(&mut self, at: usize) {
        let (plural, kind, scope) = KINDS[at];
        let value = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": definition_key(at).name},
            "spec": {"group": "storm.example.com", "scope": scope, "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
        self.comes_or_goes(object(Kind::CustomResourceDefinition, value));
    }

    fn namespace_comes_or_goes(&mut self) {
        let value =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}, "spec": {"finalizers": ["kubernetes"]}});
        self.comes_or_goes(object(Kind::Namespace, value));
    }

    /// An object of a custom kind, or one that such may own.
    fn guest_comes_or_goes(&mut self) {
        let namespace = ["web", NAMESPACE][self.dice.below(2)];
        let (at, is_custom) = (self.dice.below(4), self.dice.percent(60));
        let (_, kind, scope) = KINDS[self.dice.below(KINDS.len())];
        let guest = if is_custom {
            let Some(defined) = self.world.state.definitions().kind_of(VERSION, kind) else { return };
            let namespace = if scope == "Cluster" { "" } else { namespace };
            let value = json!({"apiVersion": VERSION, "kind": kind, "metadata": {"name": format!("g{at}"), "namespace": namespace}});
            object(defined, value)
        } else {
            object(
                Kind::ConfigMap,
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("g{at}"), "namespace": namespace}}),
            )
        };
        if let Some(found) = self.world.state.get(guest.key()).filter(|found| !found.is_deleting()) {
            // Those who delete say what becomes of its dependents.
            let finalizer = [FOREGROUND, FOREGROUND, ORPHAN, ""][self.dice.below(4)];
            if !finalizer.is_empty() {
                let held = found.clone().edit_meta(|meta| meta.finalizers.get_or_insert_default().push(finalizer.to_owned()));
                self.write(Write::Update(held, Precondition::exists()));
            }
            return self.is_asked_to_go(guest.key());
        }
        let owners = self.owners();
        let is_held = self.dice.percent(15);
        self.comes_or_goes(guest.edit_meta(|meta| {
            meta.owner_references = Some(owners).filter(|owners| !owners.is_empty());
            meta.finalizers = is_held.then(|| vec![HELD.to_owned()]);
        }));
    }

    /// Everything of custom kinds, and what can be owned by it.
    fn guests(&self) -> Vec<Object> {
        let is_guest = |object: &&Object| {
            let is_named = object.key().name.starts_with('g') && object.kind() == Kind::ConfigMap;
            is_named || matches!(object.kind(), Kind::Custom(_))
        };
        self.world.state.iter().filter(is_guest).cloned().collect()
    }

    fn any_guest(&mut self) -> Option<Object> {
        let guests = self.guests();
        guests.get(self.dice.below(guests.len())).cloned()
    }

    /// None, one or two owners; some are gone, or never were there.
    fn owners(&mut self) -> Vec<OwnerReference> {
        let mut owners: Vec<OwnerReference> = Vec::new();
        for _ in 0..self.dice.below(3) {
            let Some(owner) = self.any_guest() else { break };
            let mut reference = OwnerReference {
                api_version: owner.kind().api_version(),
                kind: owner.kind().name().to_owned(),
                name: owner.key().name.clone(),
                uid: owner.uid().to_owned(),
                controller: None,
                block_owner_deletion: Some(self.dice.percent(60)),
            };
            if self.dice.percent(10) {
                // Of a kind that is perhaps not there either.
                let (_, kind, _) = KINDS[self.dice.below(KINDS.len())];
                let never = |text: &str| text.to_owned();
                (reference.api_version, reference.kind, reference.uid) = (never(VERSION), never(kind), never("never"));
            }
            if owners.iter().all(|known| known.uid != reference.uid) {
                owners.push(reference);
            }
        }
        owners
    }

    fn guest_changes_owners(&mut self) {
        let (guest, owners, label) = (self.any_guest(), self.owners(), self.dice.percent(30));
        let Some(guest) = guest else { return };
        self.is_edited(guest.key(), |found| {
            found.edit_meta(|meta| {
                if label {
                    meta.labels = Some([("seen".to_owned(), owners.len().to_string())].into());
                } else {
                    meta.owner_references = Some(owners).filter(|owners| !owners.is_empty());
                }
            })
        });
    }

    /// What holds it lets go, or somebody begins to hold it.
    fn guest_changes_finalizers(&mut self) {
        let (guest, keeps) = (self.any_guest(), self.dice.percent(30));
        let Some(guest) = guest else { return };
        self.is_edited(guest.key(), |found| {
            let is_held = found.has_finalizer(HELD);
            let lets_go = found.without_finalizer(HELD);
            if is_held || !keeps || found.is_deleting() {
                return lets_go;
            }
            found.edit_meta(|meta| meta.finalizers.get_or_insert_default().push(HELD.to_owned()))
        });
    }

    /// Nobody holds anything any more.
    pub fn nobody_holds_guests(&mut self) {
        for guest in self.guests() {
            self.is_edited(guest.key(), |found| found.without_finalizer(HELD));
        }
    }

    /// Every kind is there, so that all owners can be judged.
    pub fn definitions_come(&mut self) {
        for at in 0..KINDS.len() {
            let key = definition_key(at);
            if self.world.state.get(&key).is_none() {
                self.definition_comes_or_goes(at);
            }
            let found = self.world.state.get(&key);
            assert!(found.is_some_and(|found| !found.is_deleting()), "seed {}: {key} does not go", self.seed);
        }
    }

    /// Everything is to go: the kinds take their objects along, and those what they own.
    pub fn custom_kinds_end(&mut self) {
        (0..KINDS.len()).for_each(|at| self.is_asked_to_go(&definition_key(at)));
        self.is_asked_to_go(&Key::cluster(Kind::Namespace, NAMESPACE));
    }

    /// What should have gone with them.
    pub fn guests_left(&self) -> Vec<String> {
        let owned = |object: &Object| object.meta().owner_references.iter().flatten().any(|owner| owner.api_version == VERSION);
        let is_left = |object: &&Object| {
            let is_away = object.is_deleting() || object.key().namespace == NAMESPACE;
            matches!(object.kind(), Kind::Custom(_)) || is_away || owned(object)
        };
        self.guests().iter().filter(is_left).map(|guest| guest.value().to_string()).collect()
    }
}

fn definition_key(at: usize) -> Key {
    Key::cluster(Kind::CustomResourceDefinition, format!("{}.storm.example.com", KINDS[at].0))
}
