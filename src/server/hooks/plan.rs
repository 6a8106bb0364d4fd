//! Which webhooks are asked about a request, in which order, what they are asked, and what their answer means.
//!
//! From "Dynamic Admission Control" of Kubernetes' documentation and `AdmissionReview` of `admission.k8s.io/v1`. PURE.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use json_patch::Patch;
use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::model::custom::conditions;
use crate::model::selector::Selector;
use crate::model::webhook::{self, Webhook};
use crate::model::{ADMISSION, Key, Kind, Object};
use crate::server::operations::OPERATIONS;
use crate::store::snapshot::Snapshot;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// Group, version and kind.
pub type Names = [&'static str; 3];

/// What somebody wants to be done.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    pub operation: Operation,
    /// Of the path.
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// What is sent, where a subresource takes another kind: a `Scale`, an `Eviction`.
    pub sent: Option<Names>,
    /// The object as it would be and as it was; null where there is none.
    pub object: &'a Value,
    pub old: &'a Value,
}

/// A webhook and where it comes from.
#[derive(Clone, Debug)]
pub struct Hook {
    pub configuration: String,
    pub webhook: Webhook,
}

impl Hook {
    pub fn name(&self) -> &str {
        &self.webhook.name
    }

    /// Whether a request goes on without its answer.
    pub fn may_fail(&self) -> bool {
        self.webhook.failure_policy.as_deref() == Some("Ignore")
    }
}

/// The webhooks of all configurations of one kind, in the order in which they are asked.
pub fn hooks(state: &Snapshot, kind: Kind) -> Vec<Hook> {
    let mut found: Vec<_> = state.list(kind).collect();
    found.sort_unstable_by_key(|object| object.key().name.clone());
    let of = |object: &Object| webhook::webhooks(object.typed());
    found.iter().flat_map(|it| of(it).into_iter().map(|webhook| Hook { configuration: it.key().name.clone(), webhook })).collect()
}

/// The kind, in the version the webhook knows, in which it is asked; none where it is not.
pub fn asks(hook: &Hook, subject: &Subject<'_>, state: &Snapshot) -> Option<Kind> {
    covered(hook, subject, state).filter(|_| selects(hook, subject, state))
}

/// The same by its rules alone: no object is looked at.
pub fn covered(hook: &Hook, subject: &Subject<'_>, state: &Snapshot) -> Option<Kind> {
    // Whoever is locked out by a webhook can always take it away.
    if subject.kind.info().group == ADMISSION {
        return None;
    }
    let rules = hook.webhook.rules.as_deref().unwrap_or_default();
    let covers = |kind: Kind| rules.iter().any(|rule| covers(rule, subject, kind));
    if covers(subject.kind) {
        return Some(subject.kind);
    }
    if hook.webhook.match_policy.as_deref() == Some("Exact") {
        return None;
    }
    state.definitions().versions(subject.kind).into_iter().find(|kind| covers(*kind))
}

/// Whether a rule speaks of this, were it of that kind.
fn covers(rule: &RuleWithOperations, subject: &Subject<'_>, kind: Kind) -> bool {
    let info = kind.info();
    let has = |list: &Option<Vec<String>>, word: &str| list.iter().flatten().any(|it| it == "*" || it == word);
    // A namespace is in itself, and in none.
    let is_namespaced = info.namespaced && !subject.namespace.is_empty();
    let in_scope = match rule.scope.as_deref() {
        Some("Namespaced") => is_namespaced,
        Some("Cluster") => !is_namespaced,
        _ => true,
    };
    let of_resource = |text: &String| {
        let (resource, sub) = text.split_once('/').unwrap_or((text, ""));
        (resource == "*" || resource == info.plural) && (sub == "*" || sub == subject.subresource)
    };
    in_scope
        && has(&rule.operations, subject.operation.word())
        && has(&rule.api_groups, info.group)
        && has(&rule.api_versions, info.version)
        && rule.resources.iter().flatten().any(of_resource)
}

type Labels = BTreeMap<String, String>;

fn selects(hook: &Hook, subject: &Subject<'_>, state: &Snapshot) -> bool {
    let selector = |selector: &Option<LabelSelector>| selector.as_ref().and_then(|selector| Selector::of(selector).ok());
    let in_namespace = selector(&hook.webhook.namespace_selector)
        .filter(|selector| !selector.is_everything())
        .is_none_or(|selector| home(subject, state).is_none_or(|labels| selector.matches(&labels)));
    let of_object = selector(&hook.webhook.object_selector)
        .filter(|selector| !selector.is_everything())
        .is_none_or(|selector| [subject.object, subject.old].into_iter().filter_map(labels).any(|labels| selector.matches(&labels)));
    in_namespace && of_object
}

/// The labels of the namespace it is about; none of what is in no namespace.
fn home(subject: &Subject<'_>, state: &Snapshot) -> Option<Labels> {
    if subject.kind == Kind::Namespace && subject.subresource.is_empty() {
        return [subject.object, subject.old].into_iter().find_map(labels);
    }
    let name = if subject.kind == Kind::Namespace { subject.name } else { subject.namespace };
    if name.is_empty() {
        return None;
    }
    Some(state.get(&Key::cluster(Kind::Namespace, name)).map(|namespace| namespace.labels().clone()).unwrap_or_default())
}

/// None of what cannot have labels.
fn labels(object: &Value) -> Option<Labels> {
    let metadata = object.get("metadata")?;
    let labels = metadata.get("labels").and_then(Value::as_object).into_iter().flatten();
    Some(labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
}

/// Whether the conditions of the webhook hold; `request`: what it would be asked.
///
/// # Errors
/// What cannot be asked of this request.
pub fn is_wanted(hook: &Hook, request: &Value, object: &Value, old: &Value) -> Result<bool, String> {
    let conditions = hook.webhook.match_conditions.iter().flatten().map(|it| (it.name.as_str(), it.expression.trim()));
    conditions::hold(conditions, &conditions::Asked { object, old, request })
}

/// Who asks, and how.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
    /// `authentication.k8s.io/v1 UserInfo`
    pub user: &'a Value,
    /// `meta/v1 CreateOptions` and the like.
    pub options: &'a Value,
    pub dry_run: bool,
}

/// `AdmissionReview.request` without the objects. `kind`: in which version it is asked.
pub fn request(uid: &str, subject: &Subject<'_>, kind: Kind, asker: &Asker<'_>) -> Value {
    let names = |kind: Kind| {
        let info = kind.info();
        let [group, version, name] = subject.sent.unwrap_or([info.group, info.version, info.name]);
        let resource = json!({"group": info.group, "version": info.version, "resource": info.plural});
        (json!({"group": group, "version": version, "kind": name}), resource)
    };
    let ((kind, resource), (request_kind, request_resource)) = (names(kind), names(subject.kind));
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource, "requestKind": request_kind, "requestResource": request_resource,
        "operation": subject.operation.word(), "userInfo": asker.user, "dryRun": asker.dry_run, "options": asker.options,
    });
    // A namespace is in itself.
    let namespace = if subject.kind == Kind::Namespace { subject.name } else { subject.namespace };
    let sub = subject.subresource;
    for (field, text) in [("name", subject.name), ("namespace", namespace), ("subResource", sub), ("requestSubResource", sub)] {
        if !text.is_empty() {
            request[field] = text.into();
        }
    }
    request
}

/// The whole question.
pub fn review(mut request: Value, object: &Value, old: &Value) -> Value {
    (request["object"], request["oldObject"]) = (object.clone(), old.clone());
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

/// What a webhook answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// `meta/v1 Status`
    pub refusal: Option<Value>,
    pub patch: Option<Patch>,
    pub warnings: Vec<String>,
    /// By their names in the audit log.
    pub annotations: BTreeMap<String, String>,
}

/// Reads the answer to the question with this uid.
///
/// # Errors
/// What is no answer to it.
pub fn answer(hook: &Hook, uid: &str, changes: bool, bytes: &[u8]) -> Result<Answer, String> {
    let review: Value = serde_json::from_slice(bytes).map_err(|error| format!("failed to call webhook: {error}"))?;
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if review["kind"] != "AdmissionReview" || review["apiVersion"] != "admission.k8s.io/v1" {
        let (version, kind) = (text(&review["apiVersion"]), text(&review["kind"]));
        return invalid(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"));
    }
    let response = &review["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".to_owned());
    }
    if response["uid"] != uid {
        return invalid(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
    }
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    let mut answer = Answer {
        warnings: response["warnings"].as_array().into_iter().flatten().map(text).collect(),
        annotations: annotations.map(|(name, value)| (format!("{}/{name}", hook.name()), text(value))).collect(),
        ..Answer::default()
    };
    if response["allowed"] != true {
        answer.refusal = Some(response["status"].clone());
    } else if changes {
        answer.patch = patch(response)?;
    }
    Ok(answer)
}

fn patch(response: &Value) -> Result<Option<Patch>, String> {
    let (patch, type_) = (response["patch"].as_str().unwrap_or_default(), response["patchType"].as_str().unwrap_or_default());
    match (patch, type_) {
        ("", "") => return Ok(None),
        ("", _) => return Err("received invalid webhook response: webhook returned response.patchType but not response.patch".to_owned()),
        (_, "") => return Err("received invalid webhook response: webhook returned response.patch but not response.patchType".to_owned()),
        (_, "JSONPatch") => {}
        (_, other) => return Err(format!("received invalid webhook response: invalid value of response.patchType {other:?}")),
    }
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch).map_err(|error| undecodable(error.to_string()))?;
    let patch: Patch = serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))?;
    if patch.len() > OPERATIONS {
        return Err(undecodable(format!("more than {OPERATIONS} operations")));
    }
    Ok(Some(patch).filter(|patch| !patch.is_empty()))
}

/// A refusal as it is told: code, reason, message, details.
pub fn refusal(hook: &str, status: &Value) -> (u16, String, String, Value) {
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    // Whatever it says, it is no success.
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)).unwrap_or(400);
    let denied = format!("admission webhook {hook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", why) | (why, _) => format!("{denied}: {why}"),
    };
    let details = if status["details"].is_object() { status["details"].clone() } else { Value::Null };
    (code, text("reason").to_owned(), message, details)
}

/// The order in which webhooks change an object: each once, and those that want it once more after another's change.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    at: usize,
    is_second: bool,
    /// Were asked and want to be asked again after a change.
    asked: BTreeSet<usize>,
    again: BTreeSet<usize>,
    changed: bool,
}

impl Rounds {
    /// The number of the next webhook of so many; whether it is asked at all is another question.
    pub fn next(&mut self, count: usize) -> Option<usize> {
        loop {
            let at = self.at;
            self.at += 1;
            if at >= count {
                if self.is_second || !self.changed {
                    return None;
                }
                (self.at, self.is_second) = (0, true);
            } else if !self.is_second || self.again.contains(&at) {
                return Some(at);
            }
        }
    }

    /// One was asked.
    pub fn answered(&mut self, at: usize, hook: &Hook, changed: bool) {
        if changed {
            self.changed = true;
            self.again.append(&mut self.asked);
        }
        if hook.webhook.reinvocation_policy.as_deref() == Some("IfNeeded") {
            self.asked.insert(at);
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
