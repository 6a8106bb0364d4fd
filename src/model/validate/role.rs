//! Roles and their bindings. PURE.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, RoleRef, Subject};

use super::{metadata, names};
use crate::model::RBAC;
use crate::model::rule::{Errors, Path};

const ROOT: Path<'static> = Path::root("");

pub(super) fn cluster_role(it: &ClusterRole, errors: &mut Errors) {
    rules(it.rules.as_deref().unwrap_or_default(), false, errors);
    let Some(aggregation) = &it.aggregation_rule else { return };
    let root = ROOT.child("aggregationRule");
    let path = root.child("clusterRoleSelectors");
    let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
    if selectors.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        metadata::selector(selector, &path.index(index), errors);
    }
}

/// `namespaced`: rules that hold in one namespace only.
pub(super) fn rules(rules: &[PolicyRule], namespaced: bool, errors: &mut Errors) {
    let path = ROOT.child("rules");
    for (index, it) in rules.iter().enumerate() {
        rule(it, namespaced, &path.index(index), errors);
    }
}

fn rule(it: &PolicyRule, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if it.verbs.is_empty() {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if !is_empty(&it.non_resource_urls) {
        let at = path.child("nonResourceURLs");
        if namespaced {
            errors.invalid(&at, &it.non_resource_urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if ![&it.api_groups, &it.resources, &it.resource_names].into_iter().all(is_empty) {
            errors.invalid(&at, &it.non_resource_urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if is_empty(&it.api_groups) {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if is_empty(&it.resources) {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

/// `namespaced`: a RoleBinding, which may bind a Role of its namespace too.
pub(super) fn binding(subjects: &[Subject], role: &RoleRef, namespaced: bool, errors: &mut Errors) {
    let path = ROOT.child("roleRef");
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != RBAC {
        errors.unsupported(&path.child("apiGroup"), group, &[RBAC]);
    }
    let kinds: &[&str] = if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.unsupported(&path.child("kind"), &role.kind, kinds);
    }
    if role.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.all(&path.child("name"), &role.name, names::path_segment(&role.name));
    }
    let path = ROOT.child("subjects");
    for (index, it) in subjects.iter().enumerate() {
        subject(it, namespaced, &path.index(index), errors);
    }
}

fn subject(it: &Subject, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    if it.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = it.api_group.as_deref().unwrap_or_default();
    match it.kind.as_str() {
        "ServiceAccount" => {
            if !it.name.is_empty() {
                errors.all(&path.child("name"), &it.name, names::dns_subdomain(&it.name));
            }
            if !group.is_empty() {
                errors.unsupported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && it.namespace.as_deref().is_none_or(str::is_empty) {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" if group != RBAC => errors.unsupported(&path.child("apiGroup"), group, &[RBAC]),
        "User" | "Group" => {}
        _ => errors.unsupported(&path.child("kind"), &it.kind, &["ServiceAccount", "User", "Group"]),
    }
}

/// What a binding binds never changes: who may give it was decided when it was made.
pub(super) fn role_ref(new: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if new != old {
        errors.invalid(&ROOT.child("roleRef"), new, "cannot change roleRef");
    }
}
