//! What an object must be: Kubernetes' validation rules in Kubernetes' words. PURE.
//!
//! Both functions expect defaulted objects and return every broken rule, not the first one.

mod autoscaler;
mod certificate;
mod container;
mod csi;
mod definition;
mod metadata;
pub mod names;
mod persistent;
mod pod;
mod probe;
mod projection;
mod resources;
mod role;
mod security;
mod service;
mod simple;
mod source;
mod update;
mod volume;
mod warn;
mod webhook;
mod workload;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
pub use update::{ephemeral_containers, resize};
pub use warn::warnings;

use super::rule::{Errors, FieldError, Path};
use super::{Typed, pod_security, webhook as both};

const IMMUTABLE: &str = "field is immutable";
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const SPEC: Path<'static> = Path::root("spec");

/// Every rule an object breaks by itself.
pub fn validate(object: &Typed) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::metadata(object, &mut errors);
    match object {
        Typed::Namespace(it) => pod_security::validate(&it.metadata, &mut errors),
        Typed::ServiceAccount(_) => {}
        Typed::CustomResourceDefinition(it) => definition::definition(it, &mut errors),
        Typed::Node(it) => simple::node(it, &mut errors),
        Typed::RuntimeClass(it) => simple::runtime_class(it, &mut errors),
        Typed::StorageClass(it) => persistent::class(it, &mut errors),
        Typed::CSIDriver(it) => csi::driver(&it.spec, &mut errors),
        Typed::CSINode(it) => csi::node(&it.spec, &mut errors),
        Typed::PersistentVolume(it) => persistent::persistent_volume(it, &mut errors),
        Typed::PersistentVolumeClaim(it) => persistent::claim(it, &mut errors),
        Typed::Secret(it) => simple::secret(it, &mut errors),
        Typed::ConfigMap(it) => simple::config_map(it, &mut errors),
        Typed::ClusterRole(it) => role::cluster_role(it, &mut errors),
        Typed::Role(it) => role::rules(it.rules.as_deref().unwrap_or_default(), true, &mut errors),
        Typed::ClusterRoleBinding(it) => role::binding(it.subjects.as_deref().unwrap_or_default(), &it.role_ref, false, &mut errors),
        Typed::RoleBinding(it) => role::binding(it.subjects.as_deref().unwrap_or_default(), &it.role_ref, true, &mut errors),
        Typed::CertificateSigningRequest(it) => simple::signing_request(it, &mut errors),
        Typed::Service(it) => service::service(it, &mut errors),
        Typed::Pod(it) => pod::pod(it, &mut errors),
        Typed::ReplicaSet(it) => workload::replica_set(it, &mut errors),
        Typed::Deployment(it) => workload::deployment(it, &mut errors),
        Typed::Job(it) => workload::job(it, &mut errors),
        Typed::HorizontalPodAutoscaler(it) => autoscaler::autoscaler(it, &mut errors),
        Typed::EndpointSlice(it) => service::endpoint_slice(it, &mut errors),
        Typed::Lease(it) => simple::lease(it, &mut errors),
        Typed::Event(it) => simple::event(it, &mut errors),
        Typed::Source(it) => source::source(it, &mut errors),
        Typed::MutatingWebhookConfiguration(_) | Typed::ValidatingWebhookConfiguration(_) => {
            webhook::webhooks(&both::webhooks(object), &mut errors);
        }
        // `admit` knows its schema.
        Typed::Custom(_) => {}
    }
    errors.into_vec()
}

/// Every rule that the pods of a template would break: some are laxer for the template itself.
pub fn validate_pods(template: &PodTemplateSpec, path: &str) -> Vec<FieldError> {
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    (pod.metadata.name, pod.metadata.namespace) = (Some("pod".to_owned()), Some("default".to_owned()));
    let mut pod = Typed::Pod(Box::new(pod));
    super::defaults::apply(&mut pod);
    let of_spec = validate(&pod).into_iter().filter(|error| error.path.starts_with("spec"));
    of_spec.map(|error| FieldError { path: format!("{path}.{}", error.path), ..error }).collect()
}

/// Every rule the step from `old` to `new` breaks: immutable fields.
pub fn validate_update(new: &Typed, old: &Typed) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::metadata_update(new.meta(), old.meta(), &mut errors);
    update::update(new, old, &mut errors);
    errors.into_vec()
}

/// Every rule that a write to a subresource breaks besides.
pub fn validate_part(subresource: &str, new: &Typed, old: &Typed) -> Vec<FieldError> {
    let mut errors = Errors::default();
    if let (Typed::CertificateSigningRequest(new), Typed::CertificateSigningRequest(old)) = (new, old) {
        certificate::part(subresource == "approval", new, old, &mut errors);
    }
    errors.into_vec()
}

/// A number that must not be negative.
fn not_negative(value: Option<impl Into<i64>>, path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = value.map(Into::into).filter(|it| *it < 0) {
        errors.invalid(path, &value, NOT_NEGATIVE);
    }
}

/// A text of a fixed set; absent is fine.
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

fn one_of(value: Option<&str>, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = value.filter(|it| !it.is_empty() && !supported.contains(it)) {
        errors.unsupported(path, value, supported);
    }
}

#[cfg(test)]
mod tests;
