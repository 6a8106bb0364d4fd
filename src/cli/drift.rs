//! What `podbay explain` says of fields that git says and somebody else changed: those that are not put back yet, and
//! those that were.

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde_json::{Value, json};

use super::client::{call_within, get, path};
use super::describe::age;
use super::reconcile::PREVIEW;
use super::source;
use crate::model::ownership::ManagedFields;
use crate::model::{Key, Kind};
use crate::simulate::preview::{ObjectPreview, Preview};
use crate::sync::again::CHANGED_AGAIN;
use crate::sync::asked::{DENIED, UNAVAILABLE};
use crate::sync::drift::{PUT_BACK, changed_by, others, sentence};
use crate::sync::plan::manager;

/// What stands otherwise than the object's source says. A source at rest puts it back at once: only one that is not
/// is asked.
pub(super) async fn pending(client: &Client, kind: Kind, object: &Value) -> anyhow::Result<Vec<String>> {
    let Some(name) = source_of(object) else { return Ok(Vec::new()) };
    let sources = get(client, &path(Kind::Source, None, None)).await?;
    let held = sources["items"].as_array().into_iter().flatten().find(|source| source["metadata"]["name"] == name.as_str());
    let Some(held) = held.filter(|source| !is_at_rest(source)) else { return Ok(Vec::new()) };
    let told = held_back(kind, object, held);
    if !told.is_empty() {
        return Ok(told);
    }
    let body = json!({"source": name, "adopt": false});
    let unknown = |why: &str| vec![format!("what source {name} says of it cannot be told: {why}")];
    let preview = match call_within(PREVIEW, client, "POST", "/apis/podbay.dev/v1/previews", Some(&body)).await {
        Ok(preview) => preview,
        // The rest of the answer is none the worse for it.
        Err(error) => return Ok(unknown(&error.to_string())),
    };
    let preview: Preview = serde_json::from_value(preview).context("the server's preview has another form: is it of another version?")?;
    match preview.errors.first() {
        // Else what was accepted is held in place meanwhile.
        Some(why) if held["spec"]["suspend"] == true => Ok(unknown(why)),
        _ => Ok(waiting(kind, object, held, &preview)),
    }
}

/// The source that applied an object, if one did.
fn source_of(object: &Value) -> Option<String> {
    let applied = |entry: &&Value| entry["operation"] == "Apply";
    let mut managers = object["metadata"]["managedFields"].as_array()?.iter().filter(applied).filter_map(|entry| entry["manager"].as_str());
    managers.find_map(|manager| manager.strip_prefix("podbay:")).map(str::to_owned)
}

fn is_at_rest(source: &Value) -> bool {
    let mut conditions = source["status"]["conditions"].as_array().into_iter().flatten();
    source["spec"]["suspend"] != true && conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Why its source leaves an object otherwise than it says, as the source tells it: webhooks, or somebody who changes it
/// again and again.
fn held_back(kind: Kind, object: &Value, held: &Value) -> Vec<String> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let subject = format!("{}: ", Key::new(kind, text("namespace"), text("name")));
    if ![DENIED, UNAVAILABLE, CHANGED_AGAIN].iter().any(|reason| source::ready(&held["status"])["reason"] == *reason) {
        return Vec::new();
    }
    let errors = held["status"]["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let source = held["metadata"]["name"].as_str().unwrap_or_default();
    errors.filter_map(|line| line.strip_prefix(&subject)).map(|why| format!("not as source {source} says: {why}")).collect()
}

/// The fields of one object that its source would put back.
fn waiting(kind: Kind, object: &Value, held: &Value, preview: &Preview) -> Vec<String> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let is_it =
        |it: &&ObjectPreview| it.mark == "~" && it.kind == kind.name() && it.namespace == text("namespace") && it.name == text("name");
    let Some(found) = preview.objects.iter().find(is_it) else { return Vec::new() };
    let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap_or_default();
    let (managed, source) = (ManagedFields::of(&meta).spoken(kind, object), preview.source.as_str());
    // Of a newer revision, what nobody else says is no drift but its change.
    let accepted = held["status"]["acceptedRevision"] == preview.revision.as_str();
    let when = match held["spec"]["suspend"] == true {
        true => format!("put back when the source is resumed: podbay source resume {source}"),
        false => format!("put back as soon as the source can write again: {}", source::state(held)),
    };
    let changed = found.fields.iter().filter_map(|field| {
        let manager = manager(source);
        let is_known = !others(&managed, &manager, &field.path).is_empty();
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let change = match (&field.before, &field.after) {
            (None, None) => field.path.clone(),
            // Of a Secret it is told that, and not what.
            (None, Some(after)) if field.mark == "~" => format!("{} {after}", field.path),
            (before, after) => format!("{}: {} -> {}", field.path, word(before), word(after)),
        };
        let told = || sentence(&change, &changed_by(&managed, &manager, &field.path));
        (accepted || is_known).then(|| format!("not as {} of source {source} says: {}; {when}", found.file, told()))
    });
    changed.collect()
}

/// What was put back of late, from the object's events.
pub(super) fn put_back(events: &[Value], now: Timestamp) -> Vec<String> {
    let of = |event: &Value| {
        let message = event["message"].as_str()?;
        let at = event["lastTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let ago = at.map_or_else(String::new, |at| format!(" ({} ago)", age(at, now)));
        let times = match event["count"].as_i64().unwrap_or(1) {
            ..=1 => String::new(),
            count => format!(", {count} times"),
        };
        Some(format!("{message}{times}{ago}"))
    };
    events.iter().filter(|event| event["reason"] == PUT_BACK).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_webhook_holds_back_is_told_of_its_object() {
        let source = |reason: &str| {
            json!({"metadata": {"name": "shop"}, "status": {"conditions": [{"type": "Ready", "reason": reason}],
            "errors": ["Deployment web/b: no (b.yaml:1)", "Deployment web/a: no (a.yaml:1)"]}})
        };
        let told = held_back(Kind::Deployment, &deployment(), &source("WebhookDenied"));
        assert_eq!(told, ["not as source shop says: no (a.yaml:1)"]);
        assert_eq!(held_back(Kind::Deployment, &deployment(), &source("Refused")), [""; 0]);
    }

    fn deployment() -> Value {
        json!({"metadata": {"namespace": "web", "name": "a", "managedFields": [
            {"manager": "kubectl", "operation": "Update", "subresource": "scale", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            {"manager": "podbay:shop", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:paused": {}}}}]}})
    }

    fn preview(revision: &str) -> Preview {
        let field = |path: &str, before: Option<&str>, after: &str| json!({"mark": "~", "path": path, "before": before, "after": after});
        let mut fields = [field("spec.paused", None, "true"), field("spec.replicas", Some("3"), "1")];
        fields[0]["mark"] = "+".into();
        let object =
            |name: &str| json!({"mark": "~", "kind": "Deployment", "namespace": "web", "name": name, "file": "a.yaml", "fields": fields});
        serde_json::from_value(json!({"source": "shop", "revision": revision, "objects": [object("other"), object("a")]})).unwrap()
    }

    #[test]
    fn what_waits_to_be_put_back_is_told_with_who_changed_it() {
        assert_eq!(source_of(&deployment()).as_deref(), Some("shop"));
        assert_eq!(source_of(&json!({"metadata": {}})), None);
        let source =
            |suspend: bool| json!({"spec": {"suspend": suspend}, "status": {"acceptedRevision": "r1", "errors": ["a.yaml:1:1: no"]}});
        let told = |suspend: bool, revision: &str| waiting(Kind::Deployment, &deployment(), &source(suspend), &preview(revision));
        let replicas = "not as a.yaml of source shop says: spec.replicas: 3 -> 1, changed by \"kubectl\" with subresource \"scale\"";
        let paused =
            "not as a.yaml of source shop says: spec.paused: nothing -> true, changed by a controller of Podbay's, a node or a webhook";
        let resume = "put back when the source is resumed: podbay source resume shop";
        assert_eq!(told(true, "r1"), [format!("{paused}; {resume}"), format!("{replicas}; {resume}")]);
        assert_eq!(told(true, "r2"), [format!("{replicas}; {resume}")], "what a newer revision changes is no drift");
        let soon = "put back as soon as the source can write again: Refused: a.yaml:1:1: no";
        assert_eq!(told(false, "r2"), [format!("{replicas}; {soon}")]);
        assert_eq!(waiting(Kind::ReplicaSet, &deployment(), &source(true), &preview("r1")), [""; 0]);
    }

    #[test]
    fn only_a_source_at_rest_needs_no_asking() {
        let source = |suspend: bool, ready: &str| json!({"spec": {"suspend": suspend}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        assert!(is_at_rest(&source(false, "True")));
        assert!(!is_at_rest(&source(true, "True")) && !is_at_rest(&source(false, "False")) && !is_at_rest(&json!({})));
    }

    #[test]
    fn what_was_put_back_is_told_with_its_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let event = |reason: &str, count: i64| json!({"reason": reason, "message": "put back", "count": count, "lastTimestamp": "2026-01-01T00:00:00Z"});
        let told = put_back(&[event("Other", 1), event("PutBack", 1), event("PutBack", 3)], at("2026-01-01T00:00:09Z"));
        assert_eq!(told, ["put back (9s ago)", "put back, 3 times (9s ago)"]);
    }
}
