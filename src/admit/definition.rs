//! What comes of a CustomResourceDefinition: whether its names are free, and so whether its kind is
//! served. PURE.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::seconds;
use crate::model::custom::{CustomResourceDefinition, Definition, DefinitionCondition, DefinitionNames};
use crate::model::{Errors, FieldError, Kind, Path, Timestamp};
use crate::store::snapshot::Snapshot;

/// Gives it the finalizer and the status that follow from the state. Doing it again changes nothing.
pub fn settle(it: &mut CustomResourceDefinition, state: &Snapshot, now: Timestamp) {
    if it.metadata.deletion_timestamp.is_none() {
        let finalizers = it.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|name| name == CustomResourceDefinition::FINALIZER) {
            finalizers.push(CustomResourceDefinition::FINALIZER.to_owned());
        }
    }
    let conflict = conflict(it, state);
    let was_established = it.is_established();
    let names = it.spec.names.clone();
    let storage = it.storage().map(|version| version.name.clone());
    let status = it.status.get_or_insert_default();
    let (accepted, established) = match &conflict {
        None => {
            status.accepted_names = names;
            (
                ("True", "NoConflicts", "no conflicts found".to_owned()),
                ("True", "InitialNamesAccepted", "the initial names have been accepted"),
            )
        }
        // What is served already goes on as it was.
        Some((reason, message)) if was_established => {
            (("False", *reason, message.clone()), ("True", "InitialNamesAccepted", "the initial names have been accepted"))
        }
        Some((reason, message)) => (("False", *reason, message.clone()), ("False", "NotAccepted", "not all names are accepted")),
    };
    condition(&mut status.conditions, "NamesAccepted", accepted.0, accepted.1, accepted.2, now);
    condition(&mut status.conditions, "Established", established.0, established.1, established.2.to_owned(), now);
    if let Some(storage) = storage.filter(|name| !status.stored_versions.contains(name)) {
        status.stored_versions.push(storage);
    }
}

/// How far the end of a definition that is being deleted has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Asked,
    /// Its objects are on their way out.
    Begun,
}

/// Says so as Kubernetes does (apiextensions.k8s.io/v1, condition `Terminating`).
pub fn end(it: &mut CustomResourceDefinition, ending: Ending, now: Timestamp) {
    let (reason, message) = match ending {
        Ending::Asked => {
            ("InstanceDeletionPending", "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon")
        }
        Ending::Begun => ("InstanceDeletionInProgress", "CustomResource deletion is in progress"),
    };
    let conditions = &mut it.status.get_or_insert_default().conditions;
    condition(conditions, "Terminating", "True", reason, message.to_owned(), now);
}

/// What a definition that follows every rule may still lack: room for its names.
pub(super) fn check(it: &CustomResourceDefinition, errors: &mut Vec<FieldError>) {
    if errors.is_empty() && Definition::of(it).is_none() {
        let mut found = Errors::default();
        found.forbidden(&Path::root("spec.versions"), "this server has had as many names and versions of kinds as it can");
        errors.extend(found.into_vec());
    }
}

/// Sets a condition; its time moves with its status only.
fn condition(all: &mut Vec<DefinitionCondition>, type_: &str, status: &str, reason: &str, message: String, now: Timestamp) {
    let before = all.iter().position(|it| it.type_ == type_);
    let since = before.filter(|&at| all[at].status == status).and_then(|at| all[at].last_transition_time.clone());
    let Time(now) = seconds(now);
    let next = DefinitionCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        reason: reason.to_owned(),
        message,
        observed_generation: before.and_then(|at| all[at].observed_generation),
    };
    match before {
        Some(at) => all[at] = next,
        None => all.push(next),
    }
}

/// The first of its names that somebody else of the group has.
fn conflict(it: &CustomResourceDefinition, state: &Snapshot) -> Option<(&'static str, String)> {
    let names = &it.spec.names;
    let own = it.metadata.name.as_deref().unwrap_or_default();
    let taken = |reason, name: &str| Some((reason, format!("\"{name}\" is already in use")));
    let of_group = |other: &&CustomResourceDefinition| other.spec.group == it.spec.group && other.metadata.name.as_deref() != Some(own);
    let others = state.list(Kind::CustomResourceDefinition).filter_map(|object| object.get::<CustomResourceDefinition>()).filter(of_group);
    let accepted: Vec<&DefinitionNames> = others.filter_map(|other| Some(&other.status.as_ref()?.accepted_names)).collect();
    let table: Vec<_> = Kind::all().iter().chain(Kind::editions()).filter(|info| info.group == it.spec.group).collect();
    let is_word = |word: &str| {
        accepted.iter().any(|all| all.plural == word || all.singular == word || all.short_names.iter().any(|short| short == word))
            || table.iter().any(|info| info.plural == word || info.singular == word || info.short.contains(&word))
    };
    let is_kind = |word: &str| {
        accepted.iter().any(|all| all.kind == word || all.list_kind == word)
            || table.iter().any(|info| info.name == word || format!("{}List", info.name) == word)
    };
    if is_word(&names.plural) {
        return taken("PluralConflict", &names.plural);
    }
    if is_word(&names.singular) {
        return taken("SingularConflict", &names.singular);
    }
    if let Some(short) = names.short_names.iter().find(|short| is_word(short)) {
        return taken("ShortNamesConflict", short);
    }
    if is_kind(&names.kind) {
        return taken("KindConflict", &names.kind);
    }
    if is_kind(&names.list_kind) {
        return taken("ListKindConflict", &names.list_kind);
    }
    None
}
