//! Kinds with few rules: Node, RuntimeClass, Secret, ConfigMap, Lease, Event. PURE.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Secret, Taint};
use k8s_openapi::api::node::v1::RuntimeClass;

use super::{SPEC, names, one_of, pod, resources};
use crate::model::event::LONGEST_MESSAGE;
use crate::model::rule::{Errors, Path};
use crate::model::{ACCOUNT_NAME, ACCOUNT_TOKEN};

/// What a ConfigMap or Secret may hold.
const CONTENT_LIMIT: usize = 1024 * 1024;
const ROOT: Path<'static> = Path::root("");

pub(super) fn node(it: &Node, errors: &mut Errors) {
    if let Some(spec) = &it.spec {
        taints(spec.taints.as_deref().unwrap_or_default(), errors);
        let ranges = SPEC.child("podCIDRs");
        for (index, range) in spec.pod_cidrs.iter().flatten().enumerate() {
            if !is_range(range) {
                errors.invalid(&ranges.index(index), range, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
            }
        }
    }
    let Some(status) = &it.status else { return };
    let path = Path::root("status");
    for (field, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        let at = path.child(field);
        for (name, amount) in list.iter().flatten() {
            let at = at.key(name);
            if resources::quantity(amount, &at, errors).is_some_and(|it| it.is_negative()) {
                errors.invalid(&at, &amount.0, super::NOT_NEGATIVE);
            }
        }
    }
}

fn is_range(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    match (address.parse::<std::net::IpAddr>(), prefix.parse::<u8>()) {
        (Ok(std::net::IpAddr::V4(_)), Ok(prefix)) => prefix <= 32,
        (Ok(std::net::IpAddr::V6(_)), Ok(prefix)) => prefix <= 128,
        _ => false,
    }
}

fn taints(taints: &[Taint], errors: &mut Errors) {
    let path = SPEC.child("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let at = path.index(index);
        errors.all(&at.child("key"), &taint.key, names::qualified_name(&taint.key));
        if let Some(value) = &taint.value {
            errors.all(&at.child("value"), value, names::label_value(value));
        }
        if taint.effect.is_empty() {
            errors.required(&at.child("effect"), "");
        }
        one_of(Some(&taint.effect), &["NoSchedule", "PreferNoSchedule", "NoExecute"], &at.child("effect"), errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            errors.duplicate(&at, taint);
        }
    }
}

pub(super) fn runtime_class(it: &RuntimeClass, errors: &mut Errors) {
    errors.all(&ROOT.child("handler"), &it.handler, names::dns_label(&it.handler));
    if let Some(overhead) = it.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref()) {
        let path = ROOT.child("overhead");
        resources::list(Some(overhead), &path.child("podFixed"), errors);
    }
    let Some(scheduling) = &it.scheduling else { return };
    let path = ROOT.child("scheduling");
    let selector = path.child("nodeSelector");
    for (key, value) in scheduling.node_selector.iter().flatten() {
        errors.all(&selector, key, names::qualified_name(key));
        errors.all(&selector, value, names::label_value(value));
    }
    let tolerations = path.child("tolerations");
    for (index, one) in scheduling.tolerations.iter().flatten().enumerate() {
        let at = tolerations.index(index);
        pod::toleration(one, &at, errors);
        if scheduling.tolerations.iter().flatten().take(index).any(|earlier| earlier == one) {
            errors.duplicate(&at, one);
        }
    }
}

/// Whether it can be read is its signer's to say.
pub(super) fn signing_request(it: &CertificateSigningRequest, errors: &mut Errors) {
    let spec = &it.spec;
    if !spec.request.0.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----") {
        errors.invalid(&SPEC.child("request"), "<request>", "PEM block type must be CERTIFICATE REQUEST");
    }
    if spec.usages.as_ref().is_none_or(Vec::is_empty) {
        errors.required(&SPEC.child("usages"), "usages are required");
    }
    let at = SPEC.child("signerName");
    match spec.signer_name.split_once('/') {
        _ if spec.signer_name.is_empty() => errors.required(&at, ""),
        Some((domain, path)) if !path.is_empty() => errors.all(&at, &spec.signer_name, names::dns_subdomain(domain)),
        _ => errors.invalid(&at, &spec.signer_name, "must be a fully qualified domain and path of the form 'example.com/signer-name'"),
    }
    if let Some(seconds @ ..600) = spec.expiration_seconds {
        errors.invalid(&SPEC.child("expirationSeconds"), &seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

pub(super) fn config_map(it: &ConfigMap, errors: &mut Errors) {
    let mut size = 0;
    let data = ROOT.child("data");
    for (key, value) in it.data.iter().flatten() {
        let at = data.key(key);
        errors.all(&at, key, names::config_key(key));
        if it.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
            errors.invalid(&at, key, "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    let binary = ROOT.child("binaryData");
    for (key, value) in it.binary_data.iter().flatten() {
        errors.all(&binary.key(key), key, names::config_key(key));
        size += value.0.len();
    }
    if size > CONTENT_LIMIT {
        errors.too_long(&data, CONTENT_LIMIT);
    }
}

/// No message shows a value: it is secret.
pub(super) fn secret(it: &Secret, errors: &mut Errors) {
    let data = ROOT.child("data");
    let mut size = 0;
    for (key, ByteString(value)) in it.data.iter().flatten() {
        errors.all(&data.key(key), key, names::config_key(key));
        size += value.len();
    }
    if size > CONTENT_LIMIT {
        errors.too_long(&data, CONTENT_LIMIT);
    }
    let content = |key: &str| it.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let needs = |key: &str, errors: &mut Errors| {
        if content(key).is_none() {
            errors.required(&data.key(key), "");
        }
    };
    match it.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/dockerconfigjson" => json(content(".dockerconfigjson"), ".dockerconfigjson", errors),
        "kubernetes.io/dockercfg" => json(content(".dockercfg"), ".dockercfg", errors),
        "kubernetes.io/basic-auth" if content("username").is_none() && content("password").is_none() => {
            needs("username", errors);
            needs("password", errors);
        }
        "kubernetes.io/ssh-auth" if content("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            errors.required(&data.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            needs("tls.crt", errors);
            needs("tls.key", errors);
        }
        ACCOUNT_TOKEN if it.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_NAME)).is_none_or(String::is_empty) => {
            errors.required(&Path::root("metadata.annotations").key(ACCOUNT_NAME), "");
        }
        _ => {}
    }
}

fn json(content: Option<&[u8]>, key: &str, errors: &mut Errors) {
    let data = ROOT.child("data");
    match content {
        None => errors.required(&data.key(key), ""),
        // A snapshot without secret values keeps keys only.
        Some([]) => {}
        Some(text) => {
            if serde_json::from_slice::<serde::de::IgnoredAny>(text).is_err() {
                errors.invalid(&data.key(key), "<secret contents redacted>", "invalid character in JSON");
            }
        }
    }
}

pub(super) fn lease(it: &Lease, errors: &mut Errors) {
    let Some(spec) = &it.spec else { return };
    if let Some(seconds) = spec.lease_duration_seconds.filter(|it| *it <= 0) {
        errors.invalid(&SPEC.child("leaseDurationSeconds"), &seconds, "must be greater than 0");
    }
    if let Some(count) = spec.lease_transitions.filter(|it| *it < 0) {
        errors.invalid(&SPEC.child("leaseTransitions"), &count, super::NOT_NEGATIVE);
    }
}

pub(super) fn event(it: &Event, errors: &mut Errors) {
    let own = it.metadata.namespace.as_deref().unwrap_or_default();
    let about = it.involved_object.namespace.as_deref().unwrap_or_default();
    // Events about cluster-scoped objects live in `default`; newer recorders may write them beside the system's, too.
    let is_newer = it.event_time.is_some();
    let fits = if about.is_empty() { matches!(own, "" | "default") || (is_newer && own == "kube-system") } else { about == own };
    if !fits {
        errors.invalid(&Path::root("involvedObject.namespace"), about, "does not match event.namespace");
    }
    if is_newer {
        newer_event(it, errors);
    }
}

/// What whoever says when it happened has to say, too (`pkg/apis/core/validation/events.go`).
fn newer_event(it: &Event, errors: &mut Errors) {
    let (controller, instance) = (it.reporting_component.as_deref(), it.reporting_instance.as_deref());
    let texts = [
        ("reportingComponent", controller),
        ("reportingInstance", instance),
        ("action", it.action.as_deref()),
        ("reason", it.reason.as_deref()),
    ];
    for (field, text) in texts {
        let (path, text) = (Path::root(field), text.unwrap_or_default());
        if text.is_empty() {
            errors.required(&path, "");
        } else if field == "reportingComponent" {
            errors.all(&path, text, names::qualified_name(text));
        } else if text.len() > 128 {
            errors.invalid(&path, "", "can have at most 128 characters");
        }
    }
    if it.message.as_ref().is_some_and(|message| message.len() > LONGEST_MESSAGE) {
        errors.invalid(&Path::root("message"), "", &format!("can have at most {LONGEST_MESSAGE} characters"));
    }
}
