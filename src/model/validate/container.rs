//! Containers and init containers: names, ports, environment. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, PodSpec};

use super::volume::{Known, devices, mounts};
use super::{PULL_POLICIES, names, one_of, probe, projection, resources, security};
use crate::model::pod;
use crate::model::rule::{Errors, Path};

pub(super) fn containers(spec: &PodSpec, path: &Path<'_>, volumes: &Known<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    let list = path.child("containers");
    if spec.containers.is_empty() {
        errors.required(&list, "");
    }
    for (index, it) in spec.containers.iter().enumerate() {
        let at = list.index(index);
        container(it, &at, volumes, grace, spec, errors);
        if it.restart_policy.as_deref().is_some_and(|policy| !policy.is_empty()) {
            errors.forbidden(&at.child("restartPolicy"), "may not be set for non-init containers");
        }
        unique(it, &at, &mut seen, errors);
        unique_host_ports(it, &at, &mut host_ports, errors);
    }
    let list = path.child("initContainers");
    for (index, it) in spec.init_containers.iter().flatten().enumerate() {
        let at = list.index(index);
        container(it, &at, volumes, grace, spec, errors);
        init_container(it, &at, errors);
        unique(it, &at, &mut seen, errors);
    }
}

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// What a running pod is given for a look at it: most of what containers have is not for them.
pub(super) fn ephemerals(spec: &PodSpec, path: &Path<'_>, volumes: &Known<'_>, errors: &mut Errors) {
    let list = path.child("ephemeralContainers");
    let mut seen: BTreeSet<&str> = pod::all_containers(spec).map(|it| it.name.as_str()).collect();
    for (index, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let (at, it) = (list.index(index), pod::plain(ephemeral));
        container(&it, &at, volumes, 0, spec, errors);
        if !ephemeral.name.is_empty() && !seen.insert(&ephemeral.name) {
            errors.duplicate(&at.child("name"), &ephemeral.name);
        }
        let target = ephemeral.target_container_name.as_deref().filter(|name| !name.is_empty());
        if let Some(target) = target.filter(|target| pod::container(spec, target).is_none()) {
            errors.not_found(&at.child("targetContainerName"), target);
        }
        let has_resources = it.resources.as_ref().is_some_and(|it| it.limits.is_some() || it.requests.is_some() || it.claims.is_some());
        for (field, set) in [
            ("ports", it.ports.is_some_and(|ports| !ports.is_empty())),
            ("livenessProbe", it.liveness_probe.is_some()),
            ("readinessProbe", it.readiness_probe.is_some()),
            ("startupProbe", it.startup_probe.is_some()),
            ("lifecycle", it.lifecycle.is_some()),
            ("resources", has_resources),
            ("resizePolicy", it.resize_policy.is_some_and(|rules| !rules.is_empty())),
            ("restartPolicy", it.restart_policy.is_some_and(|policy| !policy.is_empty())),
        ] {
            if set {
                errors.forbidden(&at.child(field), NOT_EPHEMERAL);
            }
        }
        let mounts = at.child("volumeMounts");
        for (index, mount) in it.volume_mounts.iter().flatten().enumerate() {
            if mount.sub_path.as_deref().is_some_and(|path| !path.is_empty()) {
                errors.forbidden(&mounts.index(index).child("subPath"), NOT_EPHEMERAL);
            }
            if mount.sub_path_expr.as_deref().is_some_and(|path| !path.is_empty()) {
                errors.forbidden(&mounts.index(index).child("subPathExpr"), NOT_EPHEMERAL);
            }
        }
    }
}

fn unique<'a>(it: &'a Container, path: &Path<'_>, seen: &mut BTreeSet<&'a str>, errors: &mut Errors) {
    if !it.name.is_empty() && !seen.insert(&it.name) {
        errors.duplicate(&path.child("name"), &it.name);
    }
}

fn unique_host_ports(it: &Container, path: &Path<'_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    let ports = path.child("ports");
    for (index, port) in it.ports.iter().flatten().enumerate() {
        let Some(number) = port.host_port.filter(|it| *it != 0) else { continue };
        let word = format!("{}/{}/{number}", port.protocol.as_deref().unwrap_or("TCP"), port.host_ip.as_deref().unwrap_or_default());
        if !seen.insert(word.clone()) {
            errors.duplicate(&ports.index(index).child("hostPort"), &word);
        }
    }
}

fn init_container(it: &Container, path: &Path<'_>, errors: &mut Errors) {
    let policy = it.restart_policy.as_deref().unwrap_or_default();
    one_of(Some(policy), &["Always"], &path.child("restartPolicy"), errors);
    if policy == "Always" {
        return;
    }
    let only_sidecars = "may not be set for init containers without restartPolicy=Always";
    for (field, set) in [
        ("lifecycle", it.lifecycle.is_some()),
        ("livenessProbe", it.liveness_probe.is_some()),
        ("readinessProbe", it.readiness_probe.is_some()),
        ("startupProbe", it.startup_probe.is_some()),
    ] {
        if set {
            errors.forbidden(&path.child(field), only_sidecars);
        }
    }
}

fn container(it: &Container, path: &Path<'_>, volumes: &Known<'_>, grace: i64, spec: &PodSpec, errors: &mut Errors) {
    if it.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.all(&path.child("name"), &it.name, names::dns_label(&it.name));
    }
    if it.image.as_deref().is_none_or(|image| image.trim().is_empty()) {
        errors.required(&path.child("image"), "");
    }
    one_of(it.termination_message_policy.as_deref(), &["FallbackToLogsOnError", "File"], &path.child("terminationMessagePolicy"), errors);
    one_of(it.image_pull_policy.as_deref(), &PULL_POLICIES, &path.child("imagePullPolicy"), errors);
    let os = spec.os.as_ref().map(|os| os.name.as_str());
    probe::lifecycle(it.lifecycle.as_ref(), grace, os, &path.child("lifecycle"), errors);
    probe::liveness(it.liveness_probe.as_ref(), &path.child("livenessProbe"), errors);
    probe::readiness(it.readiness_probe.as_ref(), &path.child("readinessProbe"), errors);
    probe::liveness(it.startup_probe.as_ref(), &path.child("startupProbe"), errors);
    ports(it.ports.as_deref().unwrap_or_default(), spec.host_network == Some(true), &path.child("ports"), errors);
    env(it.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
    env_from(it.env_from.as_deref().unwrap_or_default(), &path.child("envFrom"), errors);
    mounts(it, volumes, &path.child("volumeMounts"), errors);
    devices(it, volumes, &path.child("volumeDevices"), errors);
    if let Some(resources) = &it.resources {
        resources::requirements(resources, &path.child("resources"), errors);
    }
    if let Some(context) = &it.security_context {
        security::container(context, spec, &path.child("securityContext"), errors);
    }
}

fn ports(ports: &[ContainerPort], host_network: bool, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|it| !it.is_empty()) {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.duplicate(&at.child("name"), name);
            }
            errors.all(&at.child("name"), name, wrong);
        }
        if port.container_port == 0 {
            errors.required(&at.child("containerPort"), "");
        } else {
            port_number(port.container_port, &at.child("containerPort"), errors);
        }
        if let Some(number) = port.host_port.filter(|it| *it != 0) {
            port_number(number, &at.child("hostPort"), errors);
            if host_network && number != port.container_port {
                errors.invalid(&at.child("hostPort"), &number, "must match `containerPort` when `hostNetwork` is true");
            }
        }
        if let Some(address) = port.host_ip.as_deref().filter(|it| !it.is_empty()) {
            errors.all(&at.child("hostIP"), address, names::ip_address(address));
        }
        one_of(port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], &at.child("protocol"), errors);
    }
}

pub(super) fn port_number(number: i32, path: &Path<'_>, errors: &mut Errors) {
    for message in names::port_number(number) {
        errors.invalid(path, &number, &message);
    }
}

fn env(variables: &[EnvVar], path: &Path<'_>, errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let at = path.index(index);
        if variable.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.all(&at.child("name"), &variable.name, names::env_name(&variable.name));
        }
        if let Some(source) = &variable.value_from {
            value_from(source, variable.value.as_deref().is_some_and(|it| !it.is_empty()), &at.child("valueFrom"), errors);
        }
    }
}

fn value_from(source: &EnvVarSource, has_value: bool, path: &Path<'_>, errors: &mut Errors) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        projection::field_ref(field, &projection::CONTAINER_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        projection::resource_ref(resource, &path.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        key_ref(&key.name, &key.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        key_ref(&key.name, &key.key, &path.child("secretKeyRef"), errors);
    }
    sources += usize::from(source.file_key_ref.is_some());
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if has_value {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_ref(name: &str, key: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.all(&path.child("key"), key, names::config_key(key));
    }
}

fn env_from(sources: &[EnvFromSource], path: &Path<'_>, errors: &mut Errors) {
    for (index, source) in sources.iter().enumerate() {
        let at = path.index(index);
        if let Some(prefix) = source.prefix.as_deref().filter(|it| !it.is_empty()) {
            errors.all(&at.child("prefix"), prefix, names::env_name(prefix));
        }
        let references = [
            ("configMapRef", source.config_map_ref.as_ref().map(|it| &it.name)),
            ("secretRef", source.secret_ref.as_ref().map(|it| &it.name)),
        ];
        for (field, name) in references {
            if name.is_some_and(String::is_empty) {
                errors.required(&at.child(field).child("name"), "");
            }
        }
        match references.iter().filter(|(_, name)| name.is_some()).count() {
            0 => errors.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&at, "", "may not have more than one field specified at a time"),
        }
    }
}
