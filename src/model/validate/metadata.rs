//! `metadata`: names, labels, annotations, owners. PURE.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference};

use super::names::{self, Wrong};
use crate::model::custom::CustomResourceDefinition;
use crate::model::rule::{Errors, Path};
use crate::model::{ANNOTATIONS_LIMIT, Kind, Typed};

pub(super) fn metadata(object: &Typed, errors: &mut Errors) {
    let meta = object.meta();
    let path = Path::root("metadata");
    name(object.kind(), meta, &path, errors);
    if let Some(generation) = meta.generation.filter(|it| *it < 0) {
        errors.invalid(&path.child("generation"), &generation, super::NOT_NEGATIVE);
    }
    labels(meta.labels.as_ref(), &path.child("labels"), errors);
    annotations(meta.annotations.as_ref(), &path.child("annotations"), errors);
    owners(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errors);
    finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errors);
}

fn grammar(kind: Kind) -> fn(&str) -> Wrong {
    match kind {
        Kind::Namespace | Kind::Source => names::dns_label,
        Kind::Service => names::dns_1035_label,
        Kind::ClusterRole | Kind::Role | Kind::ClusterRoleBinding | Kind::RoleBinding => names::path_segment,
        _ => names::dns_subdomain,
    }
}

fn name(kind: Kind, meta: &ObjectMeta, path: &Path<'_>, errors: &mut Errors) {
    let name = meta.name.as_deref().unwrap_or_default();
    let prefix = meta.generate_name.as_deref().unwrap_or_default();
    if !prefix.is_empty() {
        // What is appended makes a trailing dash or dot harmless.
        let masked = format!("{}a", prefix.strip_suffix(['-', '.']).unwrap_or(prefix));
        errors.all(&path.child("generateName"), prefix, grammar(kind)(&masked));
    }
    if !name.is_empty() {
        errors.all(&path.child("name"), name, grammar(kind)(name));
    } else if prefix.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let at = path.child("namespace");
    match (kind.info().namespaced, namespace.is_empty()) {
        (true, true) => errors.required(&at, ""),
        (true, false) => errors.all(&at, namespace, names::dns_label(namespace)),
        (false, false) => errors.forbidden(&at, "not allowed on this type"),
        (false, true) => {}
    }
}

/// Keys and values of a label map.
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path<'_>, errors: &mut Errors) {
    for (name, value) in labels.into_iter().flatten() {
        errors.all(path, name, names::qualified_name(name));
        errors.all(path, value, names::label_value(value));
    }
}

pub(super) fn annotations(annotations: Option<&BTreeMap<String, String>>, path: &Path<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (name, value) in annotations.into_iter().flatten() {
        // Kubernetes allows capitals in an annotation's domain.
        errors.all(path, name, names::qualified_name(&name.to_lowercase()));
        size += name.len() + value.len();
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long(path, ANNOTATIONS_LIMIT);
    }
}

fn owners(owners: &[OwnerReference], path: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<&OwnerReference> = None;
    for (index, owner) in owners.iter().enumerate() {
        let at = path.index(index);
        for (field, value) in [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                let what = if field == "apiVersion" { "version" } else { field };
                errors.invalid(&at.child(field), value, &format!("{what} must not be empty"));
            }
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                    first.kind, first.name, owner.kind, owner.name
                );
                errors.invalid(path, owners, &detail);
            }
            controller = Some(owner);
        }
    }
}

/// Kubernetes' own finalizers, which have no domain before a slash.
const STANDARD: [&str; 4] = ["kubernetes", "orphan", "foregroundDeletion", CustomResourceDefinition::FINALIZER];

fn finalizers(finalizers: &[String], path: &Path<'_>, errors: &mut Errors) {
    for name in finalizers {
        errors.all(path, name, names::qualified_name(name));
        if !name.contains('/') && !STANDARD.contains(&name.as_str()) {
            errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

/// A selector of labels.
pub(super) fn selector(selector: &LabelSelector, path: &Path<'_>, errors: &mut Errors) {
    labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    let expressions = path.child("matchExpressions");
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        selector_requirement(requirement, &expressions.index(index), errors);
    }
}

fn selector_requirement(requirement: &LabelSelectorRequirement, path: &Path<'_>, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'"),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.all(&path.child("key"), &requirement.key, names::qualified_name(&requirement.key));
    for (index, value) in values.iter().enumerate() {
        errors.all(&at.index(index), value, names::label_value(value));
    }
}

/// What no update may change, and what deletion forbids.
pub(super) fn metadata_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    let path = Path::root("metadata");
    for (field, new, old) in [("name", &new.name, &old.name), ("namespace", &new.namespace, &old.namespace), ("uid", &new.uid, &old.uid)] {
        if new.as_deref().unwrap_or_default() != old.as_deref().unwrap_or_default() {
            errors.invalid(&path.child(field), new, super::IMMUTABLE);
        }
    }
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&String> = new.finalizers.iter().flatten().filter(|name| !known.contains(name)).collect();
        if !added.is_empty() {
            let detail = format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
            errors.forbidden(&path.child("finalizers"), &detail);
        }
    }
}
