//! Webhooks of admission: those that change objects and those that only judge them, as one. PURE.
//!
//! `admissionregistration.k8s.io/v1`: the two have the same fields, but for `reinvocationPolicy`.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, ValidatingWebhook};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Kind, Typed};

/// The version of `AdmissionReview` in which they are asked.
pub const REVIEW_VERSION: &str = "v1";

/// The kinds of their configurations: those that change objects first, as they are asked.
pub const CONFIGURATIONS: [Kind; 2] = [Kind::MutatingWebhookConfiguration, Kind::ValidatingWebhookConfiguration];

/// A webhook of either kind.
pub type Webhook = MutatingWebhook;

/// One that only judges.
pub fn of_validating(it: ValidatingWebhook) -> Webhook {
    Webhook {
        admission_review_versions: it.admission_review_versions,
        client_config: it.client_config,
        failure_policy: it.failure_policy,
        match_conditions: it.match_conditions,
        match_policy: it.match_policy,
        name: it.name,
        namespace_selector: it.namespace_selector,
        object_selector: it.object_selector,
        reinvocation_policy: None,
        rules: it.rules,
        side_effects: it.side_effects,
        timeout_seconds: it.timeout_seconds,
    }
}

/// The way back.
pub fn to_validating(it: Webhook) -> ValidatingWebhook {
    ValidatingWebhook {
        admission_review_versions: it.admission_review_versions,
        client_config: it.client_config,
        failure_policy: it.failure_policy,
        match_conditions: it.match_conditions,
        match_policy: it.match_policy,
        name: it.name,
        namespace_selector: it.namespace_selector,
        object_selector: it.object_selector,
        rules: it.rules,
        side_effects: it.side_effects,
        timeout_seconds: it.timeout_seconds,
    }
}

/// The webhooks of a configuration; none of any other object.
pub fn webhooks(object: &Typed) -> Vec<Webhook> {
    match object {
        Typed::MutatingWebhookConfiguration(it) => it.webhooks.clone().unwrap_or_default(),
        Typed::ValidatingWebhookConfiguration(it) => it.webhooks.iter().flatten().cloned().map(of_validating).collect(),
        _ => Vec::new(),
    }
}

/// The certificates of a `caBundle`; `None` where there is none or one of them cannot be read.
pub fn authorities(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    Some(all).filter(|all| !all.is_empty())
}
