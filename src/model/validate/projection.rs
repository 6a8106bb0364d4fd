//! Volumes made of several sources, and what a pod is told of itself. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, ObjectFieldSelector, ProjectedVolumeSource, ResourceFieldSelector, ServiceAccountTokenProjection,
    VolumeProjection,
};

use super::volume::{files, mode, relative};
use super::{names, resources};
use crate::model::quantity::Quantity;
use crate::model::rule::{Errors, Path};

/// What a container can be told of its pod through `fieldRef`.
pub(super) const CONTAINER_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The same in a volume.
const VOLUME_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: [&str; 6] =
    ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const BYTE_DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn projected(it: &ProjectedVolumeSource, path: &Path<'_>, errors: &mut Errors) {
    mode(it.default_mode, &path.child("defaultMode"), errors);
    let list = path.child("sources");
    let mut taken = BTreeSet::new();
    for (index, source) in it.sources.iter().flatten().enumerate() {
        let at = list.index(index);
        projection(source, &at, errors);
        for (name, file) in paths(source) {
            if !file.is_empty() && !taken.insert(file) {
                errors.invalid(path, name, "conflicting duplicate paths");
            }
        }
    }
}

fn projection(it: &VolumeProjection, path: &Path<'_>, errors: &mut Errors) {
    let served = [
        it.secret.as_ref().map(|source| ("secret", &source.name, source.items.as_deref())),
        it.config_map.as_ref().map(|source| ("configMap", &source.name, source.items.as_deref())),
    ];
    for (field, name, items) in served.into_iter().flatten() {
        let at = path.child(field);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        files(None, items, &at, errors);
    }
    let told = it.downward_api.iter().flat_map(|told| told.items.iter().flatten());
    told.for_each(|file| downward_file(file, &path.child("downwardAPI"), errors));
    if let Some(token) = &it.service_account_token {
        token_file(token, &path.child("serviceAccountToken"), errors);
    }
    // Others are refused by the table of fields; here only the count matters.
    let set = [
        it.secret.is_some(),
        it.config_map.is_some(),
        it.downward_api.is_some(),
        it.service_account_token.is_some(),
        it.cluster_trust_bundle.is_some(),
        it.pod_certificate.is_some(),
    ];
    if set.into_iter().filter(|set| *set).count() > 1 {
        errors.forbidden(path, "may not specify more than 1 volume type");
    }
}

fn token_file(it: &ServiceAccountTokenProjection, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("expirationSeconds");
    match it.expiration_seconds {
        Some(seconds @ ..600) => errors.invalid(&at, &seconds, "may not specify a duration less than 10 minutes"),
        Some(seconds) if seconds > 1 << 32 => errors.invalid(&at, &seconds, "may not specify a duration larger than 2^32 seconds"),
        _ => {}
    }
    let at = path.child("path");
    if it.path.is_empty() {
        errors.required(&at, "");
    }
    relative(&it.path, &at, errors);
}

/// The files a source names, each with what Kubernetes calls it by.
fn paths(it: &VolumeProjection) -> Vec<(&str, &str)> {
    let secret = it.secret.iter().flat_map(|it| it.items.iter().flatten().map(|item| (it.name.as_str(), item.path.as_str())));
    let map = it.config_map.iter().flat_map(|it| it.items.iter().flatten().map(|item| (it.name.as_str(), item.path.as_str())));
    let told = it.downward_api.iter().flat_map(|it| it.items.iter().flatten().map(|item| (item.path.as_str(), item.path.as_str())));
    let token = it.service_account_token.iter().map(|it| (it.path.as_str(), it.path.as_str()));
    secret.chain(map).chain(told).chain(token).collect()
}

/// Kubernetes names the list, not the element.
pub(super) fn downward_file(it: &DownwardAPIVolumeFile, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("path");
    if it.path.is_empty() {
        errors.required(&at, "");
    }
    relative(&it.path, &at, errors);
    match (&it.field_ref, &it.resource_field_ref) {
        (Some(field), resource) => {
            field_ref(field, &VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => {
            let at = path.child("resourceFieldRef");
            if resource.container_name.as_deref().is_none_or(str::is_empty) {
                errors.required(&at.child("containerName"), "");
            } else {
                resource_ref(resource, &at, errors);
            }
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(it.mode, &path.child("mode"), errors);
}

pub(super) fn field_ref(field: &ObjectFieldSelector, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("fieldPath");
    let name = field.field_path.as_str();
    if name.is_empty() {
        errors.required(&at, "");
        return;
    }
    let subscript = |map: &str| name.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']");
    match subscript("metadata.labels").or_else(|| subscript("metadata.annotations")) {
        Some(key) => errors.all(&at, key, names::qualified_name(&key.to_lowercase())),
        None if known.contains(&name) => {}
        None => errors.unsupported(&at, name, known),
    }
}

pub(super) fn resource_ref(it: &ResourceFieldSelector, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("resource");
    if it.resource.is_empty() {
        errors.required(&at, "");
        return;
    }
    let name = it.resource.split_once('.').map_or("", |(_, name)| name);
    if !RESOURCES.contains(&it.resource.as_str()) && !name.starts_with("hugepages-") {
        errors.unsupported(&at, &it.resource, &RESOURCES);
        return;
    }
    let at = path.child("divisor");
    let Some(divisor) = &it.divisor else { return };
    let Some(amount) = resources::quantity(divisor, &at, errors).filter(|amount| !amount.is_zero()) else { return };
    let (served, list): (&[&str], &str) = match name {
        "cpu" => (&CPU_DIVISORS, "1m and 1 are supported with the cpu resource"),
        "ephemeral-storage" => (
            &BYTE_DIVISORS,
            "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource",
        ),
        "memory" => (&BYTE_DIVISORS, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"),
        _ => (&BYTE_DIVISORS, "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource"),
    };
    if !served.iter().any(|text| text.parse::<Quantity>().is_ok_and(|served| served == amount)) {
        errors.invalid(&at, name, &format!("only divisor's values {list}"));
    }
}
