//! Resource requests and limits. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::names;
use crate::model::quantity::Quantity;
use crate::model::rule::{Errors, Path};

/// Reads a quantity or names what is wrong with it.
pub(super) fn quantity(field: &ApiQuantity, path: &Path<'_>, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::parse(&field.0) {
        Ok(quantity) => Some(quantity),
        Err(_) => {
            let detail = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
            errors.invalid(path, &field.0, detail);
            None
        }
    }
}

pub(super) fn requirements(it: &ResourceRequirements, path: &Path<'_>, errors: &mut Errors) {
    let (limits_at, at) = (path.child("limits"), path.child("requests"));
    let limits = list(it.limits.as_ref(), &limits_at, errors);
    let requests = list(it.requests.as_ref(), &at, errors);
    for (name, request) in &requests {
        match limits.get(name) {
            Some(limit) if is_given_once(name) && request != limit => {
                errors.invalid(&at, &request.to_string(), &format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                errors.invalid(&at, &request.to_string(), &format!("must be less than or equal to {name} limit of {limit}"));
            }
            None if is_given_once(name) => errors.required(&limits_at, "Limit must be set for non overcommitable resources"),
            _ => {}
        }
    }
    let names: Vec<&str> = limits.into_keys().chain(requests.into_keys()).collect();
    if names.iter().any(|name| is_huge_pages(name)) && !names.iter().any(|name| matches!(*name, "cpu" | "memory")) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// A map of amounts, as far as they can be read.
pub(super) fn list<'a>(
    list: Option<&'a BTreeMap<String, ApiQuantity>>,
    path: &Path<'_>,
    errors: &mut Errors,
) -> BTreeMap<&'a str, Quantity> {
    let mut amounts = BTreeMap::new();
    for (name, amount) in list.into_iter().flatten() {
        let at = path.key(name);
        errors.all(&at, name, names::qualified_name(name));
        if !name.contains('/') && !is_standard(name) {
            errors.invalid(&at, name, "must be a standard resource for containers");
        }
        let Some(amount) = quantity(amount, &at, errors) else { continue };
        if amount.is_negative() {
            errors.invalid(&at, &amount.to_string(), super::NOT_NEGATIVE);
        }
        if is_extended(name) && amount.millis() % 1000 != 0 {
            errors.invalid(&at, &amount.to_string(), "must be an integer");
        }
        amounts.insert(name.as_str(), amount);
    }
    amounts
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

/// What no two can have, so that a request is the limit (Kubernetes: `IsOvercommitAllowed`).
fn is_given_once(name: &str) -> bool {
    is_huge_pages(name) || is_extended(name)
}

/// What is none of Kubernetes' own (`IsExtendedResourceName`): whole things that a node advertises.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}
