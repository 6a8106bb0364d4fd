//! The state of the cluster, and the one way from a state to the next: a transaction, applied. PURE.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use smallvec::SmallVec;

use super::place::{self, Bytes};
use super::transaction::{Conflict, Precondition, Stamp, Transaction, Write};
use crate::admit::{self, Outcome};
use crate::model::custom::{CustomResourceDefinition, Definition, Definitions};
use crate::model::{Key, Kind, Object};
use k8s_openapi::api::core::v1::{Pod, Service};

/// Words, each with the place of an object it leads to. A changed set copies whole nodes: its entries are
/// cheap to clone.
type Index = OrdSet<Arc<[u8]>>;

type Labels = BTreeMap<String, String>;

/// Objects by their places, or by words and their places: to follow a word to many costs one way down, not one for each.
type Objects = OrdMap<Arc<[u8]>, Object>;

/// All objects at one revision. Cloning shares everything.
#[derive(Clone, Default)]
pub struct Snapshot {
    revision: u64,
    /// By place.
    objects: Objects,
    /// By owner UID, for each owner reference, and by "" what could have a controller and has none.
    owners: Objects,
    /// Pods by node name; the name is empty where one is not bound.
    nodes: Index,
    /// By `name=value`, for each label.
    labels: Index,
    /// Services by the first label that they select.
    selectors: Index,
    /// Services by address and port, for each thing that one has for itself.
    claims: Index,
    /// The kinds that are served.
    definitions: Arc<Definitions>,
}

/// One object's step from one revision to the next.
#[derive(Clone, Debug)]
pub struct Change {
    pub before: Option<Object>,
    pub after: Option<Object>,
}

impl Change {
    /// The object before and after, where it was there and still is.
    pub fn both(&self) -> Option<(&Object, &Object)> {
        self.before.as_ref().zip(self.after.as_ref())
    }

    pub fn key(&self) -> &Key {
        self.newest().key()
    }
    /// The object afterwards, or what it last was.
    pub fn newest(&self) -> &Object {
        match (&self.after, &self.before) {
            (Some(object), _) | (None, Some(object)) => object,
            (None, None) => unreachable!("a change has a before or an after: `Snapshot::apply` makes no other"),
        }
    }
}

/// The outcome of [`Snapshot::apply`].
#[derive(Clone, Debug)]
pub struct Applied {
    pub snapshot: Snapshot,
    /// What changed; empty when the transaction was a no-op, and then the revision is unchanged.
    pub changes: Vec<Change>,
    /// One entry a write: the object afterwards.
    pub results: Vec<Option<Object>>,
}

/// What [`Snapshot::advance`] changed, and one entry a write, as in [`Applied`].
pub type Advance = (Vec<Change>, Vec<Option<Object>>);

impl Snapshot {
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The same objects under another revision (reserved blocks after a restart).
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.at(&place::of(key))
    }

    /// The object of this name, without making a key.
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.at(&place::named(kind, namespace, name))
    }

    fn at(&self, place: &[u8]) -> Option<&Object> {
        self.objects.get(place)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().map(|(_, object)| object)
    }

    /// Every kind that is served at this revision.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The same, to be kept.
    pub fn shared_definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.definitions)
    }

    /// Every object of a kind, by namespace and name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.below(place::of_kind(kind))
    }

    /// Every object of a kind in a namespace, by name.
    pub fn list_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Object> + use<'_> {
        self.below(place::in_namespace(kind, namespace))
    }

    /// Every object whose place begins so.
    fn below(&self, first: Bytes) -> impl Iterator<Item = &Object> {
        let range = self.objects.range::<_, [u8]>((Bound::Included(&*first), Bound::Unbounded));
        range.take_while(move |(place, _)| place.starts_with(&first)).map(|(_, object)| object)
    }

    /// The keys of what is not the same object in both. What the two share is not looked at: soon
    /// after the other one, this costs what has changed and not what there is.
    pub fn differing<'a>(&'a self, other: &'a Snapshot) -> impl Iterator<Item = &'a Key> {
        self.objects.diff(&other.objects).map(|item| match item {
            DiffItem::Add(_, object) | DiffItem::Remove(_, object) | DiffItem::Update { new: (_, object), .. } => object.key(),
        })
    }

    /// Every object with an owner reference to this UID.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Object> + use<'_> {
        let has_uid = !uid.is_empty();
        has_uid.then(|| self.followed(uid, &[])).into_iter().flatten()
    }

    /// Every pod or ReplicaSet of a namespace that nobody controls, by name.
    pub fn uncontrolled_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Object> + use<'_> {
        self.followed("", &place::in_namespace(kind, namespace))
    }

    /// Every pod bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Object> + use<'_> {
        self.indexed(&self.nodes, node, &[])
    }

    /// Every pod that is bound to no node yet.
    pub fn unbound_pods(&self) -> impl Iterator<Item = &Object> {
        self.pods_on("")
    }

    /// Whether there are such pods, for whom every change asks.
    pub fn has_unbound_pods(&self) -> bool {
        // The empty word comes before every other.
        self.nodes.get_min().is_some_and(|entry| entry.starts_with(&place::under("", &[])))
    }

    /// Every object of any kind and namespace with this label.
    pub fn labelled(&self, name: &str, value: &str) -> Vec<&Object> {
        let label = format!("{name}={value}");
        self.indexed(&self.labels, &label, &[]).collect()
    }

    /// Every object of a kind in a namespace with this label, written `name=value`, by name.
    pub fn labelled_in(&self, kind: Kind, namespace: &str, label: &str) -> impl Iterator<Item = &Object> + use<'_> {
        self.indexed(&self.labels, label, &place::in_namespace(kind, namespace))
    }

    /// Every Service of a namespace that may select these labels: it asks for one of them.
    pub fn selecting<'a>(&'a self, namespace: &str, labels: &'a Labels) -> impl Iterator<Item = &'a Object> + use<'a> {
        let place = place::in_namespace(Kind::Service, namespace);
        labels.iter().flat_map(move |label| self.indexed(&self.selectors, &word(label), &place))
    }

    /// The Service that has this address (`10.96.0.7`) or node port (`:30080`).
    pub fn claimed(&self, word: &str) -> Option<&Key> {
        self.indexed(&self.claims, word, &[]).next().map(Object::key)
    }

    /// What an owner's UID leads to, of those whose place begins so.
    fn followed(&self, uid: &str, place: &[u8]) -> impl Iterator<Item = &Object> + use<'_> {
        let first = place::under(uid, place);
        let range = self.owners.range::<_, [u8]>((Bound::Included(&*first), Bound::Unbounded));
        range.take_while(move |(entry, _)| entry.starts_with(&first)).map(|(_, object)| object)
    }

    /// What a word leads to, of those whose place begins so.
    fn indexed<'a>(&'a self, index: &'a Index, word: &str, place: &[u8]) -> impl Iterator<Item = &'a Object> + use<'a> {
        let (first, start) = (place::under(word, place), place::start(word));
        let range = index.range::<_, [u8]>((Bound::Included(&*first), Bound::Unbounded));
        let entries = range.take_while(move |entry| entry.starts_with(&first));
        entries.filter_map(move |entry| self.at(entry.get(start..)?))
    }

    /// Admits and applies a transaction: all of it or nothing.
    ///
    /// `revision` is the one the transaction gets if it changes anything. Preconditions speak of the
    /// objects as they were before the transaction, so that it may write an object and its status.
    ///
    /// # Errors
    /// A precondition that does not hold, or content that admission refuses.
    pub fn apply(&self, transaction: &Transaction, revision: u64, stamp: &mut Stamp<'_>) -> Result<Applied, super::CommitError> {
        let mut snapshot = self.clone().at_revision(revision);
        let mut changes = Vec::new();
        let results = snapshot.write(transaction.clone(), &mut changes, stamp)?;
        if changes.is_empty() {
            snapshot.revision = self.revision;
        }
        Ok(Applied { snapshot, changes, results })
    }

    /// The same in place: what nobody else holds is not copied in order to be changed, and a written object becomes the
    /// stored one.
    ///
    /// # Errors
    /// As [`Snapshot::apply`]; nothing is changed then.
    pub fn advance(&mut self, transaction: Transaction, revision: u64, stamp: &mut Stamp<'_>) -> Result<Advance, super::CommitError> {
        let was = std::mem::replace(&mut self.revision, revision);
        let definitions = self.shared_definitions();
        let mut changes = Vec::new();
        let done = self.write(transaction, &mut changes, stamp);
        if done.is_err() {
            changes.drain(..).rev().for_each(|change| self.take_back(&change));
            self.definitions = definitions;
        }
        if changes.is_empty() {
            self.revision = was;
        }
        done.map(|results| (changes, results))
    }

    /// Writes one after the other, and tells what each changed.
    fn write(
        &mut self,
        transaction: Transaction,
        changes: &mut Vec<Change>,
        stamp: &mut Stamp<'_>,
    ) -> Result<Vec<Option<Object>>, super::CommitError> {
        let mut results = Vec::with_capacity(transaction.writes.len());
        for write in transaction.writes {
            let current = self.get(write.key()).cloned();
            check(&write, current.as_ref(), current.as_ref().and_then(|current| was(current, self.revision, changes)))?;
            let outcome = admit::admit(write, current.as_ref(), self, &transaction.writer, stamp)?;
            let after = match outcome {
                Outcome::Unchanged => current,
                Outcome::Put(object) => {
                    let object = object.edit_meta(|meta| meta.resource_version = Some(self.revision.to_string()));
                    self.put(current.as_ref(), object.clone());
                    changes.push(Change { before: current, after: Some(object.clone()) });
                    Some(object)
                }
                Outcome::Remove => {
                    if let Some(before) = current {
                        self.remove(&before);
                        changes.push(Change { before: Some(before), after: None });
                    }
                    None
                }
            };
            results.push(after);
        }
        Ok(results)
    }

    /// Puts back a stored object as it is, without admission: loading and tests.
    pub fn insert(&mut self, object: Object) {
        let current = self.get(object.key()).cloned();
        self.put(current.as_ref(), object);
    }

    /// Undoes the newest change, without admission: the way back to an earlier revision.
    pub fn take_back(&mut self, change: &Change) {
        match (&change.before, &change.after) {
            (Some(before), after) => self.put(after.as_ref(), before.clone()),
            (None, Some(after)) => self.remove(after),
            (None, None) => {}
        }
    }

    fn put(&mut self, before: Option<&Object>, after: Object) {
        let place = place::of(after.key());
        self.define(after.key(), Some(&after));
        self.reindex(&place, before, Some(&after));
        put(&mut self.objects, &place, before.is_some(), after);
    }

    fn remove(&mut self, before: &Object) {
        let place = place::of(before.key());
        self.define(before.key(), None);
        self.reindex(&place, Some(before), None);
        self.objects.remove(&*place);
    }

    /// Serves what an object defines, and no longer what it does not.
    fn define(&mut self, key: &Key, after: Option<&Object>) {
        if key.kind != Kind::CustomResourceDefinition {
            return;
        }
        let definitions = Arc::make_mut(&mut self.definitions);
        let established = after.and_then(|after| after.get::<CustomResourceDefinition>()).filter(|it| it.is_established());
        match established.map(Definition::of) {
            None => definitions.remove(&key.name),
            Some(Some(definition)) => definitions.put(definition),
            // No room for more names: the objects of the kind are there, and so it goes on as it was.
            Some(None) => {}
        }
    }

    /// Most writes change no indexed field: they cost the indexes nothing, but for the objects that owners lead to.
    fn reindex(&mut self, place: &[u8], before: Option<&Object>, after: Option<&Object>) {
        self.follow(place, before, after);
        if before.map(Object::labels) != after.map(Object::labels) {
            swap(&mut self.labels, place, before, after, labels);
        }
        if before.and_then(node_name) != after.and_then(node_name) {
            swap(&mut self.nodes, place, before, after, |object| node_name(object).map(str::to_owned).into_iter().collect());
        }
        if before.or(after).is_some_and(|object| object.kind() == Kind::Service) {
            swap(&mut self.claims, place, before, after, claims);
            swap(&mut self.selectors, place, before, after, selectors);
        }
    }

    fn follow(&mut self, place: &[u8], before: Option<&Object>, after: Option<&Object>) {
        let (old, new) = (before.map(owners).unwrap_or_default(), after.map(owners).unwrap_or_default());
        for word in old.iter().filter(|word| !new.contains(word)) {
            self.owners.remove(&*place::under(word, place));
        }
        for (word, object) in new.iter().flat_map(|word| after.map(|object| (word, object))) {
            put(&mut self.owners, &place::under(word, place), old.contains(word), object.clone());
        }
    }
}

/// Puts an object at its place, or in the place of the one that `is_there`.
fn put(map: &mut Objects, place: &[u8], is_there: bool, object: Object) {
    if is_there && let Some(there) = map.get_mut(place) {
        *there = object;
    } else {
        map.insert(Arc::from(place), object);
    }
}

/// Replaces the words of the object before by those of the object after.
fn swap(index: &mut Index, place: &[u8], before: Option<&Object>, after: Option<&Object>, words: fn(&Object) -> Vec<String>) {
    let (old, new) = (before.map(words).unwrap_or_default(), after.map(words).unwrap_or_default());
    if old == new {
        return;
    }
    for word in old {
        index.remove(&*place::under(&word, place));
    }
    for word in new {
        index.insert(Arc::from(&*place::under(&word, place)));
    }
}

/// The UIDs of its owners; the empty word is of those without a controller.
fn owners(object: &Object) -> SmallVec<[&str; 2]> {
    let named = object.meta().owner_references.iter().flatten().map(|owner| owner.uid.as_str());
    let mut owners: SmallVec<[&str; 2]> = named.filter(|uid| !uid.is_empty()).collect();
    if matches!(object.kind(), Kind::Pod | Kind::ReplicaSet) && object.controller().is_none() {
        owners.push("");
    }
    owners
}

fn labels(object: &Object) -> Vec<String> {
    object.labels().iter().map(word).collect()
}

fn word((name, value): (&String, &String)) -> String {
    format!("{name}={value}")
}

fn selectors(object: &Object) -> Vec<String> {
    let spec = object.get::<Service>().and_then(|service| service.spec.as_ref());
    spec.and_then(|spec| spec.selector.as_ref()).and_then(Labels::first_key_value).map(word).into_iter().collect()
}

fn node_name(object: &Object) -> Option<&str> {
    let spec = object.get::<Pod>()?.spec.as_ref();
    Some(spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default())
}

/// What no two Services may have.
fn claims(object: &Object) -> Vec<String> {
    let Some(spec) = object.get::<Service>().and_then(|service| service.spec.as_ref()) else { return Vec::new() };
    let addresses = spec.cluster_ips.iter().flatten().filter(|address| *address != "None").cloned();
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|port| *port != 0).map(|port| format!(":{port}"));
    addresses.chain(ports).collect()
}

/// What an object was before the transaction of this revision, where it was there.
fn was<'a>(current: &'a Object, revision: u64, changes: &'a [Change]) -> Option<&'a Object> {
    if current.revision() != revision {
        return Some(current);
    }
    // Who writes an object twice does so in a row, mostly.
    let mut of_it = changes.iter().rev().filter(|change| change.key() == current.key());
    of_it.find_map(|change| change.before.as_ref().filter(|before| before.revision() != revision))
}

fn check(write: &Write, current: Option<&Object>, before: Option<&Object>) -> Result<(), Conflict> {
    let precondition = match (write, current) {
        (Write::Create(object), Some(_)) => return Err(Conflict::Exists(object.key().clone())),
        (Write::Create(_), None) => return Ok(()),
        (
            Write::Update(_, precondition)
            | Write::UpdateStatus(_, precondition)
            | Write::UpdatePart(_, precondition, _)
            | Write::Delete { precondition, .. },
            _,
        ) => precondition,
    };
    let Some(current) = current else {
        return Err(Conflict::NotFound(write.key().clone()));
    };
    holds(precondition, before.unwrap_or(current))
}

fn holds(precondition: &Precondition, current: &Object) -> Result<(), Conflict> {
    let key = || current.key().clone();
    match (&precondition.uid, precondition.revision) {
        (Some(uid), _) if uid != current.uid() => Err(Conflict::Uid { key: key(), wanted: uid.clone(), found: current.uid().to_owned() }),
        (_, Some(revision)) if revision != current.revision() => {
            Err(Conflict::Revision { key: key(), wanted: revision, found: current.revision() })
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot@{} of {} objects", self.revision, self.objects.len())
    }
}

#[cfg(test)]
mod tests;
