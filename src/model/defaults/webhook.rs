//! Defaults of webhooks (`pkg/apis/admissionregistration/v1/defaults.go` of Kubernetes). PURE.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};

use super::text;
use crate::model::webhook::{Webhook, of_validating, to_validating};

/// Until an answer must be there.
const TIMEOUT_SECONDS: i32 = 10;
const HTTPS: i32 = 443;

pub(super) fn mutating(it: &mut MutatingWebhookConfiguration) {
    for hook in it.webhooks.iter_mut().flatten() {
        text(&mut hook.reinvocation_policy, "Never");
        webhook(hook);
    }
}

pub(super) fn validating(it: &mut ValidatingWebhookConfiguration) {
    for slot in it.webhooks.iter_mut().flatten() {
        let mut hook = of_validating(std::mem::take(slot));
        webhook(&mut hook);
        *slot = to_validating(hook);
    }
}

fn webhook(it: &mut Webhook) {
    text(&mut it.failure_policy, "Fail");
    text(&mut it.match_policy, "Equivalent");
    it.namespace_selector.get_or_insert_default();
    it.object_selector.get_or_insert_default();
    it.timeout_seconds.get_or_insert(TIMEOUT_SECONDS);
    for rule in it.rules.iter_mut().flatten() {
        text(&mut rule.scope, "*");
    }
    if let Some(service) = &mut it.client_config.service {
        service.port.get_or_insert(HTTPS);
    }
}
