//! Defaults of pods and pod templates. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HTTPGetAction, LifecycleHandler, ObjectFieldSelector, Pod, PodSpec,
    PodTemplateSpec, Probe, ResourceFieldSelector, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::text;
use crate::model::quantity::Quantity;
use crate::model::{API_ACCESS, ROOT_CA};

/// `0644`
const TOKEN_SECONDS: i64 = 3600;
const FILE_MODE: i32 = 0o644;

/// A pod of its own: what templates get, and requests from limits.
pub(super) fn pod(it: &mut Pod) {
    let Some(spec) = &mut it.spec else { return };
    if spec.host_network == Some(true) {
        host_ports(spec);
    }
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(resources) = &mut container.resources {
            requests_from_limits(resources);
        }
    }
    pod_spec(spec);
}

/// The name of the volume that Kubernetes adds to every pod for the API's token, where it is as
/// Kubernetes makes it. Every exported pod has it; here it gets its own.
pub fn api_access(spec: &PodSpec) -> Option<String> {
    let volume = spec.volumes.iter().flatten().find(|it| it.name.starts_with("kube-api-access-") && it.projected.is_some())?;
    let sources = volume.projected.as_ref().and_then(|it| it.sources.as_deref()).unwrap_or_default();
    let usual = sources.iter().all(|it| {
        let token = it.service_account_token.as_ref().is_some_and(|token| token.path == "token" && token.audience.is_none());
        let certificate = it.config_map.as_ref().is_some_and(|map| map.name == ROOT_CA);
        let mut fields = it.downward_api.iter().flat_map(|api| api.items.iter().flatten());
        let namespace = fields.all(|item| item.field_ref.as_ref().is_some_and(|field| field.field_path == "metadata.namespace"));
        it.cluster_trust_bundle.is_none() && it.secret.is_none() && (token || certificate || (it.downward_api.is_some() && namespace))
    });
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut mounts = containers.flat_map(|it| it.volume_mounts.iter().flatten()).filter(|mount| mount.name == volume.name);
    (usual && mounts.all(|mount| mount.mount_path == API_ACCESS)).then(|| volume.name.clone())
}

pub(super) fn template(it: &mut PodTemplateSpec) {
    if let Some(spec) = &mut it.spec {
        pod_spec(spec);
    }
}

/// With the host's network a container's port is the host's port.
fn host_ports(spec: &mut PodSpec) {
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        for port in container.ports.iter_mut().flatten() {
            if port.host_port.is_none_or(|number| number == 0) {
                port.host_port = Some(port.container_port);
            }
        }
    }
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        // What is no quantity is told of once, where it is written.
        if limit.0.parse::<Quantity>().is_err() {
            continue;
        }
        let requests = resources.requests.get_or_insert_default();
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

fn pod_spec(spec: &mut PodSpec) {
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    text(&mut spec.scheduler_name, "default-scheduler");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    if spec.service_account_name.as_deref().is_none_or(str::is_empty) {
        if let Some(old) = spec.service_account.as_ref().filter(|name| !name.is_empty()) {
            spec.service_account_name = Some(old.clone());
        }
    } else {
        spec.service_account.clone_from(&spec.service_account_name);
    }
    // Charts write a secret without a name where none is set.
    spec.image_pull_secrets.iter_mut().for_each(|secrets| secrets.retain(|it| !it.name.is_empty()));
    spec.image_pull_secrets = spec.image_pull_secrets.take().filter(|secrets| !secrets.is_empty());
    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        self::container(container);
    }
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        let mut plain = crate::model::pod::plain(ephemeral);
        self::container(&mut plain);
        ephemeral.image_pull_policy = plain.image_pull_policy;
        ephemeral.termination_message_path = plain.termination_message_path;
        ephemeral.termination_message_policy = plain.termination_message_policy;
        ephemeral.env = plain.env;
    }
}

fn volume(it: &mut Volume) {
    if !has_source(it) {
        it.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(empty_dir) = &mut it.empty_dir
        && let Some(limit) = &mut empty_dir.size_limit
    {
        canonical(limit);
    }
    if let Some(secret) = &mut it.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(config_map) = &mut it.config_map {
        config_map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(projected) = &mut it.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        let told = projected.sources.iter_mut().flatten().filter_map(|source| source.downward_api.as_mut());
        told.flat_map(|told| told.items.iter_mut().flatten()).for_each(downward_file);
        for token in projected.sources.iter_mut().flatten().filter_map(|source| source.service_account_token.as_mut()) {
            token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
        }
    }
    if let Some(downward) = &mut it.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(template) = it.ephemeral.as_mut().and_then(|it| it.volume_claim_template.as_mut()) {
        super::persistent::claim(&mut template.spec);
    }
    if let Some(image) = &mut it.image {
        text(&mut image.pull_policy, pull_policy(image.reference.as_deref()));
    }
    if let Some(host_path) = &mut it.host_path {
        host_path.type_.get_or_insert_default();
    }
}

fn downward_file(it: &mut DownwardAPIVolumeFile) {
    references(it.field_ref.as_mut(), it.resource_field_ref.as_mut());
}

/// What a pod is told of itself, in a variable or a file.
fn references(field: Option<&mut ObjectFieldSelector>, resource: Option<&mut ResourceFieldSelector>) {
    if let Some(field) = field {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = resource {
        canonical(resource.divisor.get_or_insert_with(|| ApiQuantity("0".to_owned())));
    }
}

/// Whether a volume says what it is: anything beside its name.
pub(crate) fn has_source(volume: &Volume) -> bool {
    *volume != Volume { name: volume.name.clone(), ..Volume::default() }
}

fn container(it: &mut Container) {
    text(&mut it.image_pull_policy, pull_policy(it.image.as_deref()));
    text(&mut it.termination_message_path, "/dev/termination-log");
    text(&mut it.termination_message_policy, "File");
    for port in it.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
    }
    for probe in [&mut it.liveness_probe, &mut it.readiness_probe, &mut it.startup_probe].into_iter().flatten() {
        self::probe(probe);
    }
    if let Some(lifecycle) = &mut it.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            handler_defaults(handler);
        }
    }
    for source in it.env.iter_mut().flatten().filter_map(|env| env.value_from.as_mut()) {
        references(source.field_ref.as_mut(), source.resource_field_ref.as_mut());
    }
    it.resources.get_or_insert_default();
    if let Some(resources) = &mut it.resources {
        canonical_list(&mut resources.limits);
        canonical_list(&mut resources.requests);
    }
}

/// The policy of an image that has none.
pub(crate) fn pull_policy(image: Option<&str>) -> &'static str {
    if image_is_latest(image.unwrap_or_default()) { "Always" } else { "IfNotPresent" }
}

/// Whether an image reference names no tag or digest, or the tag `latest`.
pub(crate) fn image_is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !digest,
    }
}

fn probe(it: &mut Probe) {
    it.timeout_seconds = it.timeout_seconds.filter(|value| *value != 0).or(Some(1));
    it.period_seconds = it.period_seconds.filter(|value| *value != 0).or(Some(10));
    it.success_threshold = it.success_threshold.filter(|value| *value != 0).or(Some(1));
    it.failure_threshold = it.failure_threshold.filter(|value| *value != 0).or(Some(3));
    if let Some(get) = &mut it.http_get {
        http_get(get);
    }
    if let Some(grpc) = &mut it.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn handler_defaults(it: &mut LifecycleHandler) {
    if let Some(get) = &mut it.http_get {
        http_get(get);
    }
}

fn http_get(it: &mut HTTPGetAction) {
    text(&mut it.path, "/");
    text(&mut it.scheme, "HTTP");
}

/// Quantities are kept as Kubernetes prints them: `1000m` is `1`. What is no quantity stays, for
/// validation to name.
fn canonical(it: &mut ApiQuantity) {
    if let Ok(quantity) = Quantity::parse(&it.0) {
        *it = quantity.to_api();
    }
}

fn canonical_list(list: &mut Option<BTreeMap<String, ApiQuantity>>) {
    for quantity in list.iter_mut().flat_map(BTreeMap::values_mut) {
        canonical(quantity);
    }
}
