//! What a removed source had created and left: one of the same name that wants it again takes it up as its own, to be
//! pruned like before. PURE.
//!
//! Kept as ConfigMaps in `kube-system`, written in the transaction that lets the Source go.
//!
//! - it is about one very object, by UID: never about what somebody else put in its place
//! - who still applies it is in the object itself: what somebody else applies too is theirs by now
//! - what is taken up, or gone, is struck out when a source of the name accepts a revision

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use super::inventory::{self, Inventory};
use crate::model::{InventoryEntry, Key, Kind, Object};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::{Precondition, Write};

/// Label of the ConfigMaps; its value is the source's name.
pub const LABEL: &str = "podbay.dev/left-by";
const NAMESPACE: &str = "kube-system";
const FIELD: &str = "inventory";
/// Entries of one ConfigMap: each has less than 1 KiB (names of 253 bytes and no file), and a ConfigMap at most 1 MiB
/// (Kubernetes' `MaxSecretSize`, of which its ConfigMaps have the same).
const ENTRIES: usize = 1000;
/// The manager under which `kubectl apply` writes where the server does not merge (its `apply.go`).
const CLIENT_SIDE: &str = "kubectl-client-side-apply";

/// What a source of this name has left, by key. What cannot be read was not left by it.
pub fn of(state: &Snapshot, source: &str) -> BTreeMap<Key, InventoryEntry> {
    let maps = kept(state, source);
    let entries = maps.iter().filter_map(|map| map.get::<ConfigMap>()?.data.as_ref()?.get(FIELD));
    let entries = entries.flat_map(|text| serde_json::from_str::<Vec<InventoryEntry>>(text).unwrap_or_default());
    entries.filter_map(|entry| Some((inventory::key_of(&entry, state.definitions())?, entry))).collect()
}

/// Whether an object is one of those, and nobody but the source's manager has applied it since.
pub fn is_own(left: &BTreeMap<Key, InventoryEntry>, live: &Object, manager: &str) -> bool {
    let by = |entry: &ManagedFieldsEntry| {
        let applies = entry.operation.as_deref() == Some("Apply") || entry.manager.as_deref() == Some(CLIENT_SIDE);
        (applies, entry.manager.as_deref() == Some(manager))
    };
    let mut appliers = live.meta().managed_fields.iter().flatten().map(by).filter(|(applies, _)| *applies).peekable();
    left.get(live.key()).is_some_and(|entry| Inventory::is_of(entry, live))
        && live.controller().is_none()
        && appliers.peek().is_some()
        && appliers.all(|(_, is_own)| is_own)
}

/// The writes that note what a source leaves when it goes: what it created and what `going` does not say is deleted.
pub fn at_the_end(state: &Snapshot, source: &str, inventory: &Inventory, going: &[&Object]) -> Vec<Write> {
    let mut left = of(state, source);
    let created = inventory.entries.iter().filter(|(_, entry)| entry.created);
    left.extend(created.map(|(key, entry)| (key.clone(), inventory::entry(key, &entry.uid, true, "", false))));
    let going: BTreeSet<&Key> = going.iter().map(|object| object.key()).collect();
    left.retain(|key, entry| is_there(state, key, entry) && !going.contains(key));
    writes(state, source, &left)
}

/// The writes that strike out what a source holds by now, or is gone.
pub fn once_accepted(state: &Snapshot, source: &str, inventory: &Inventory) -> Vec<Write> {
    let mut left = of(state, source);
    left.retain(|key, entry| is_there(state, key, entry) && !inventory.entries.contains_key(key));
    writes(state, source, &left)
}

fn is_there(state: &Snapshot, key: &Key, entry: &InventoryEntry) -> bool {
    state.get(key).is_some_and(|live| Inventory::is_of(entry, live) && !live.is_deleting())
}

fn kept<'s>(state: &'s Snapshot, source: &str) -> Vec<&'s Object> {
    state.labelled_in(Kind::ConfigMap, NAMESPACE, &format!("{LABEL}={source}")).collect()
}

/// The writes that make the store hold these entries and no others.
fn writes(state: &Snapshot, source: &str, left: &BTreeMap<Key, InventoryEntry>) -> Vec<Write> {
    let mut there: BTreeMap<Key, &Object> = kept(state, source).into_iter().map(|map| (map.key().clone(), map)).collect();
    let entries: Vec<&InventoryEntry> = left.values().collect();
    let mut writes = Vec::new();
    for (index, entries) in entries.chunks(ENTRIES).enumerate() {
        let map = map(source, index, entries);
        match there.remove(map.key()) {
            None => writes.push(Write::Create(map)),
            Some(old) if old.value()["data"] == map.value()["data"] => {}
            Some(old) => {
                let (data, seen) = (map.get::<ConfigMap>().and_then(|map| map.data.clone()), Precondition::seen(old));
                writes.extend(old.edit::<ConfigMap>(|it| it.data = data).map(|map| Write::Update(map, seen)));
            }
        }
    }
    let gone = |old: &Object| Write::Delete { key: old.key().clone(), precondition: Precondition::seen(old), grace_seconds: None };
    writes.extend(there.into_values().map(gone));
    writes
}

fn map(source: &str, index: usize, entries: &[&InventoryEntry]) -> Object {
    Object::new(ConfigMap {
        metadata: ObjectMeta {
            name: Some(format!("podbay-source.{source}.left.{index}")),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some(BTreeMap::from([(LABEL.to_owned(), source.to_owned())])),
            ..ObjectMeta::default()
        },
        // Entries always encode.
        data: Some(BTreeMap::from([(FIELD.to_owned(), serde_json::to_string(entries).unwrap_or_default())])),
        ..ConfigMap::default()
    })
}
