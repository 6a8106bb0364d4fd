//! Pods and pod templates. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig, PodSpec, PodTemplateSpec, Toleration};

use super::metadata::{annotations, labels};
use super::{SPEC, container, names, not_negative, one_of, security, volume};
use crate::model::rule::{Errors, Path};

pub(super) fn pod(it: &Pod, errors: &mut Errors) {
    let Some(spec) = &it.spec else {
        errors.required(&SPEC, "");
        return;
    };
    pod_spec(spec, &SPEC, errors);
    // Templates may carry blanks around an image's name; pods never could.
    let inits = spec.init_containers.iter().flatten().map(|it| ("initContainers", it));
    let mut index = (0, 0);
    for (list, container) in inits.chain(spec.containers.iter().map(|it| ("containers", it))) {
        let at = if list == "containers" { &mut index.0 } else { &mut index.1 };
        let image = container.image.as_deref().unwrap_or_default();
        if image.trim() != image {
            errors.invalid(&SPEC.child(list).index(*at).child("image"), image, "must not have leading or trailing whitespace");
        }
        *at += 1;
    }
    // What makes pods of a template may still set it.
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        if volume.image.as_ref().is_some_and(|source| source.reference.as_deref().is_none_or(str::is_empty)) {
            errors.required(&SPEC.child("volumes").index(index).child("image.reference"), "");
        }
    }
}

pub(super) fn template(it: &PodTemplateSpec, path: &Path<'_>, errors: &mut Errors) {
    if let Some(meta) = &it.metadata {
        labels(meta.labels.as_ref(), &path.child("labels"), errors);
        annotations(meta.annotations.as_ref(), &path.child("annotations"), errors);
    }
    match &it.spec {
        Some(spec) => pod_spec(spec, &path.child("spec"), errors),
        None => errors.required(&path.child("spec.containers"), ""),
    }
}

fn pod_spec(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let volumes = volume::volumes(spec.volumes.as_deref().unwrap_or_default(), &path.child("volumes"), errors);
    container::containers(spec, path, &volumes, errors);
    container::ephemerals(spec, path, &volumes, errors);
    one_of(spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], &path.child("restartPolicy"), errors);
    one_of(spec.dns_policy.as_deref(), &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], &path.child("dnsPolicy"), errors);
    dns_config(spec.dns_config.as_ref(), spec.dns_policy.as_deref(), &path.child("dnsConfig"), errors);
    labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    not_negative(spec.termination_grace_period_seconds, &path.child("terminationGracePeriodSeconds"), errors);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|it| !(1..=i64::from(i32::MAX)).contains(it)) {
        errors.invalid(&path.child("activeDeadlineSeconds"), &seconds, "must be between 1 and 2147483647, inclusive");
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|it| !it.is_empty()) {
            errors.all(&path.child(field), name, names::dns_label(name));
        }
    }
    for (field, name) in [("nodeName", &spec.node_name), ("serviceAccountName", &spec.service_account_name)] {
        if let Some(name) = name.as_deref().filter(|it| !it.is_empty()) {
            errors.all(&path.child(field), name, names::dns_subdomain(name));
        }
    }
    let aliases = path.child("hostAliases");
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        host_alias(alias, &aliases.index(index), errors);
    }
    no_terms(spec, path, errors);
    let tolerations = path.child("tolerations");
    for (index, it) in spec.tolerations.iter().flatten().enumerate() {
        toleration(it, &tolerations.index(index), errors);
    }
    security::pod(spec, path, errors);
}

/// What says nothing of a node says that no node will do: the table of fields finds nothing there that it could refuse.
fn no_terms(spec: &PodSpec, path: &Path<'_>, errors: &mut Errors) {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref()) else { return };
    let at = path.child("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if required.node_selector_terms.is_empty() {
        errors.required(&at, "must have at least one node selector term");
    }
    for (index, term) in required.node_selector_terms.iter().enumerate() {
        let is_empty = |lines: &Option<Vec<_>>| lines.as_ref().is_none_or(Vec::is_empty);
        if is_empty(&term.match_expressions) && is_empty(&term.match_fields) {
            errors.forbidden(&at.index(index), "no node matches an empty term: the pod would wait for ever");
        }
    }
}

fn host_alias(alias: &HostAlias, path: &Path<'_>, errors: &mut Errors) {
    errors.all(&path.child("ip"), &alias.ip, names::ip_address(&alias.ip));
    let hostnames = path.child("hostnames");
    for (index, name) in alias.hostnames.iter().flatten().enumerate() {
        errors.all(&hostnames.index(index), name, names::dns_subdomain(name));
    }
}

fn dns_config(config: Option<&PodDNSConfig>, policy: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    let servers = config.and_then(|it| it.nameservers.as_deref()).unwrap_or_default();
    let at = path.child("nameservers");
    if policy == Some("None") {
        if config.is_none() {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            errors.required(&at, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    let Some(config) = config else { return };
    if servers.len() > 3 {
        errors.invalid(&at, servers, "must not have more than 3 nameservers");
    }
    for (index, server) in servers.iter().enumerate() {
        errors.all(&at.index(index), server, names::ip_address(server));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let at = path.child("searches");
    if searches.len() > 32 {
        errors.invalid(&at, searches, "must not have more than 32 search paths");
    }
    if searches.iter().map(String::len).sum::<usize>() + searches.len() > 2049 {
        errors.invalid(&at, searches, "must not have more than 2048 characters (including spaces) in the search list");
    }
    for (index, search) in searches.iter().enumerate() {
        if search == "." {
            continue;
        }
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "x");
        errors.all(&at.index(index), search, names::dns_subdomain(&plain));
    }
    let options = path.child("options");
    for (index, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.required(&options.index(index), "must not be empty");
        }
    }
}

pub(super) fn toleration(it: &Toleration, path: &Path<'_>, errors: &mut Errors) {
    let key = it.key.as_deref().unwrap_or_default();
    let operator = it.operator.as_deref().unwrap_or_default();
    let effect = it.effect.as_deref().unwrap_or_default();
    let value = it.value.as_deref().unwrap_or_default();
    if !key.is_empty() {
        errors.all(&path.child("key"), key, names::qualified_name(key));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&path.child("operator"), operator, detail);
    }
    if it.toleration_seconds.is_some() && effect != "NoExecute" {
        errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    match operator {
        "" | "Equal" => {
            if let Some(message) = names::label_value(value).into_iter().next() {
                errors.invalid(&path.child("operator"), value, &message);
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        other => errors.unsupported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    one_of(Some(effect), &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path.child("effect"), errors);
}

/// Names that appear a second time, with their index.
pub(super) fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(usize, &'a str)> {
    let mut seen = BTreeSet::new();
    names.enumerate().filter(|(_, name)| !name.is_empty() && !seen.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_term_is_met_by_no_node() {
        let of = |terms| {
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
            let spec: PodSpec = serde_json::from_value(json!({"containers": [], "affinity": affinity})).expect("a spec");
            let mut errors = Errors::default();
            no_terms(&spec, &SPEC, &mut errors);
            errors.into_vec().into_iter().map(|error| error.path.rsplit('.').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of(json!([])), ["nodeSelectorTerms"]);
        assert_eq!(
            of(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}, {}])),
            ["nodeSelectorTerms[1]"]
        );
    }
}
