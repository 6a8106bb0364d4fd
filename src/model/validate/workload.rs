//! Deployment, ReplicaSet and Job. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy, ReplicaSet};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::selector;
use super::{SPEC, names, not_negative, one_of, pod};
use crate::model::defaults::JOB_LABELS;
use crate::model::rule::{Errors, Path};
use crate::model::selector::Selector;

const TEMPLATE: Path<'static> = Path::root("spec.template");

pub(super) fn deployment(it: &Deployment, errors: &mut Errors) {
    let spec = &it.spec;
    selects(&spec.selector, Some(&spec.template), "deployment", errors);
    lasting(&spec.template, errors);
    not_negative(spec.replicas, &SPEC.child("replicas"), errors);
    not_negative(spec.min_ready_seconds, &SPEC.child("minReadySeconds"), errors);
    not_negative(spec.revision_history_limit, &SPEC.child("revisionHistoryLimit"), errors);
    if let Some(strategy) = &spec.strategy {
        self::strategy(strategy, &SPEC.child("strategy"), errors);
    }
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = SPEC.child("progressDeadlineSeconds");
        not_negative(Some(deadline), &at, errors);
        if deadline <= spec.min_ready_seconds.unwrap_or(0) {
            errors.invalid(&at, &deadline, "must be greater than minReadySeconds");
        }
    }
}

pub(super) fn replica_set(it: &ReplicaSet, errors: &mut Errors) {
    let spec = &it.spec;
    selects(&spec.selector, spec.template.as_ref(), "replicaset", errors);
    match &spec.template {
        Some(template) => lasting(template, errors),
        None => errors.required(&TEMPLATE, ""),
    }
    not_negative(spec.replicas, &SPEC.child("replicas"), errors);
    not_negative(spec.min_ready_seconds, &SPEC.child("minReadySeconds"), errors);
}

fn is_empty(it: &LabelSelector) -> bool {
    it.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && it.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// The selector is there, valid, and selects the template's own pods.
fn selects(it: &LabelSelector, template: Option<&PodTemplateSpec>, kind: &str, errors: &mut Errors) {
    let at = SPEC.child("selector");
    if is_empty(it) {
        // The typed object cannot tell an empty selector from none: both are refused alike.
        errors.required(&at, &format!("empty selector is invalid for {kind}"));
        return;
    }
    selector(it, &at, errors);
    let nothing = BTreeMap::new();
    let labels = template.and_then(|it| it.metadata.as_ref()).and_then(|it| it.labels.as_ref()).unwrap_or(&nothing);
    if template.is_some() && Selector::of(it).is_ok_and(|selector| !selector.matches(labels)) {
        errors.invalid(&TEMPLATE.child("metadata.labels"), labels, "`selector` does not match template `labels`");
    }
}

/// A template of pods that are always restarted.
fn lasting(template: &PodTemplateSpec, errors: &mut Errors) {
    pod::template(template, &TEMPLATE, errors);
    let Some(spec) = &template.spec else { return };
    if let Some(policy @ ("OnFailure" | "Never")) = spec.restart_policy.as_deref() {
        errors.unsupported(&TEMPLATE.child("spec.restartPolicy"), policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        errors.forbidden(&TEMPLATE.child("spec.activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

fn strategy(it: &DeploymentStrategy, path: &Path<'_>, errors: &mut Errors) {
    let rolling = path.child("rollingUpdate");
    match it.type_.as_deref() {
        Some("Recreate") if it.rolling_update.is_some() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        Some("RollingUpdate") => {
            let Some(update) = &it.rolling_update else {
                errors.required(&rolling, "this should be defaulted and never be nil");
                return;
            };
            let unavailable = amount(update.max_unavailable.as_ref(), &rolling.child("maxUnavailable"), errors);
            let surge = amount(update.max_surge.as_ref(), &rolling.child("maxSurge"), errors);
            if unavailable == Some(0) && surge == Some(0) {
                errors.invalid(&rolling.child("maxUnavailable"), &update.max_unavailable, "may not be 0 when `maxSurge` is 0");
            }
            if let Some(IntOrString::String(text)) = &update.max_unavailable
                && unavailable.is_some_and(|it| it > 100)
            {
                errors.invalid(&rolling.child("maxUnavailable"), text, "must not be greater than 100%");
            }
        }
        other => one_of(other, &["Recreate", "RollingUpdate"], &path.child("type"), errors),
    }
}

/// A count or a percentage, as its number.
fn amount(value: Option<&IntOrString>, path: &Path<'_>, errors: &mut Errors) -> Option<i64> {
    match value? {
        IntOrString::Int(number) => {
            not_negative(Some(*number), path, errors);
            Some(i64::from(*number))
        }
        IntOrString::String(text) => {
            errors.all(path, text, names::percent(text));
            text.strip_suffix('%')?.parse().ok()
        }
    }
}

pub(super) fn job(it: &Job, errors: &mut Errors) {
    let Some(spec) = &it.spec else {
        errors.required(&SPEC, "");
        return;
    };
    for (field, value) in [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ] {
        not_negative(value, &SPEC.child(field), errors);
    }
    not_negative(spec.active_deadline_seconds, &SPEC.child("activeDeadlineSeconds"), errors);
    one_of(spec.completion_mode.as_deref(), &["Indexed", "NonIndexed"], &SPEC.child("completionMode"), errors);
    if spec.completion_mode.as_deref() == Some("Indexed") && spec.completions.is_none() {
        errors.required(&SPEC.child("completions"), "when completion mode is Indexed");
    }
    one_of(spec.pod_replacement_policy.as_deref(), &["Failed", "TerminatingOrFailed"], &SPEC.child("podReplacementPolicy"), errors);
    job_selector(it, spec, errors);
    pod::template(&spec.template, &TEMPLATE, errors);
    let policy = spec.template.spec.as_ref().and_then(|it| it.restart_policy.as_deref()).unwrap_or_default();
    let at = TEMPLATE.child("spec.restartPolicy");
    match policy {
        "OnFailure" | "Never" => {}
        // What the default made of an absent field.
        "Always" | "" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        other => errors.unsupported(&at, other, &["OnFailure", "Never"]),
    }
}

fn job_selector(it: &Job, spec: &JobSpec, errors: &mut Errors) {
    let manual = spec.manual_selector == Some(true);
    let name = it.metadata.name.as_deref().unwrap_or_default();
    let [uid_label, ..] = JOB_LABELS;
    match &spec.selector {
        None if manual => errors.required(&SPEC.child("selector"), ""),
        None => {}
        Some(selector) => {
            let uid = it.metadata.uid.as_deref().unwrap_or_default();
            let generated =
                selector.match_labels.as_ref().is_some_and(|labels| labels.len() == 1 && labels.get(uid_label).is_some_and(|it| it == uid));
            if manual || generated {
                selects(selector, Some(&spec.template), "job", errors);
            } else {
                errors.invalid(&SPEC.child("selector"), selector, "`selector` not auto-generated");
            }
        }
    }
    // Its pods carry the name as a label.
    if !manual && name.len() > 63 {
        errors.all(&Path::root("metadata.name"), name, names::label_value(name));
    }
}
