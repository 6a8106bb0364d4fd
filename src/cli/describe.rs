//! `podbay describe`: one object for reading, and what happened to it.

use jiff::Timestamp;
use serde_json::Value;

use super::args::NamedArgs;
use super::client::{self, connect, named_target, path};
use super::error::Outcome;
use super::{get, output};
use crate::model::{Kind, LAST_APPLIED};

pub async fn run(args: &NamedArgs) -> Outcome {
    let (kind, name) = client::with_custom_kinds(&args.client, || named_target(&args.what)).await?;
    let client = connect(&args.client).await?;
    let object = get::object(&client, kind, args.namespace.as_deref(), &name).await?;
    let events = events_of(&client, &object).await?;
    output::print(&output::clean(&format!("{}{}", described(kind, &object), events_table(&events, Timestamp::now()))));
    Ok(0)
}

/// The events about an object, oldest first.
pub(super) async fn events_of(client: &kube::Client, object: &Value) -> anyhow::Result<Vec<Value>> {
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let selector = get::form_encoded(&format!("involvedObject.uid={uid}"));
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let mut events = client::items(client, &format!("{}?fieldSelector={selector}", path(Kind::Event, Some(namespace), None))).await?;
    events.sort_by_key(|event| event["lastTimestamp"].as_str().unwrap_or_default().to_owned());
    Ok(events)
}

/// The object as an indented text: names in words, no noise (managed fields), Secret values hidden.
fn described(kind: Kind, object: &Value) -> String {
    let mut shown = object.clone();
    if let Some(meta) = shown["metadata"].as_object_mut() {
        meta.remove("managedFields");
        meta.remove("resourceVersion");
    }
    if kind == Kind::Secret {
        hide(&mut shown);
    }
    let mut text = String::new();
    // What a person looks for first heads the page.
    print_value(&mut text, "Name", &shown["metadata"]["name"].take(), 0);
    if kind.info().namespaced {
        print_value(&mut text, "Namespace", &shown["metadata"]["namespace"].take(), 0);
    }
    print_value(&mut text, "Kind", &Value::String(kind.to_string()), 0);
    if let Some(meta) = shown["metadata"].as_object_mut() {
        meta.retain(|_, value| !value.is_null());
    }
    for (title, part) in [("", &shown["metadata"]), ("", &without_meta(&shown))] {
        print_value(&mut text, title, part, 0);
    }
    text
}

fn without_meta(object: &Value) -> Value {
    let mut rest = object.clone();
    if let Some(map) = rest.as_object_mut() {
        for field in ["metadata", "apiVersion", "kind"] {
            map.remove(field);
        }
    }
    rest
}

/// Replaces a Secret's values by their sizes, and leaves out the copy of them that `kubectl apply` keeps.
fn hide(object: &mut Value) {
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(data) = object["data"].as_object_mut() {
        for value in data.values_mut() {
            let bytes = value.as_str().map_or(0, |text| text.trim_end_matches('=').len() * 3 / 4);
            *value = Value::String(format!("{bytes} bytes"));
        }
    }
}

fn print_value(text: &mut String, title: &str, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let inner = if title.is_empty() { depth } else { depth + 1 };
            if !title.is_empty() && !map.is_empty() {
                text.push_str(&format!("{indent}{title}:\n"));
            }
            let data = ["Labels", "Match Labels", "Annotations", "Data", "Node Selector", "Selector"].contains(&title);
            for (name, value) in map {
                let plain = data && !value.is_object();
                print_value(text, &if plain { name.clone() } else { words(name) }, value, inner);
            }
        }
        Value::Array(items) => {
            text.push_str(&format!("{indent}{title}:\n"));
            for item in items {
                match item {
                    Value::Object(map) => {
                        let name = ["name", "type", "ip", "mountPath"].iter().find_map(|field| map.get(*field)?.as_str());
                        print_value(text, &format!("- {}", name.unwrap_or("")), item, depth + 1);
                    }
                    other => text.push_str(&format!("{indent}  - {}\n", scalar(other))),
                }
            }
        }
        other => text.push_str(&format!("{indent}{:<24} {}\n", format!("{title}:"), scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `terminationGracePeriodSeconds` → `Termination Grace Period Seconds`. A key with a dot, slash or
/// dash is data, not a field: it stays.
fn words(name: &str) -> String {
    if name.contains(['.', '/', '-', '_']) {
        return name.to_owned();
    }
    let mut out = String::new();
    let mut lower = false;
    for (index, c) in name.chars().enumerate() {
        if index == 0 {
            out.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && lower {
                out.push(' ');
            }
            out.push(c);
        }
        lower = c.is_lowercase();
    }
    out
}

/// kubectl's events table; says so when there are none.
pub(super) fn events_table(events: &[Value], now: Timestamp) -> String {
    if events.is_empty() {
        return "Events:                  <none>\n".to_owned();
    }
    let rows = events.iter().map(|event| {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let age = event["lastTimestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok()).map_or_else(String::new, |at| age(at, now));
        let count = event["count"].as_i64().unwrap_or(1);
        let age = if count > 1 { format!("{age} (x{count})") } else { age };
        vec![text("type"), text("reason"), age, event["source"]["component"].as_str().unwrap_or_default().to_owned(), text("message")]
    });
    format!(
        "Events:\n{}",
        output::table(
            &["  TYPE", "REASON", "AGE", "FROM", "MESSAGE"],
            rows.map(|mut row| {
                row[0].insert_str(0, "  ");
                row
            })
        )
    )
}

/// kubectl's short age: `5s`, `3m`, `2h`, `4d`.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_sizes() {
        let annotations = json!({LAST_APPLIED: "{\"stringData\":{\"password\":\"hunter2\"}}", "note": "mine"});
        let secret = json!({"metadata": {"name": "s", "annotations": annotations}, "data": {"password": "aHVudGVyMg=="}});
        let text = described(Kind::Secret, &secret);
        assert!(!text.contains("aHVudGVyMg") && !text.contains("hunter2"), "{text}");
        assert!(text.contains("7 bytes") && text.contains("mine"), "{text}");
    }

    #[test]
    fn field_names_become_words() {
        assert_eq!(words("terminationGracePeriodSeconds"), "Termination Grace Period Seconds");
        assert_eq!(words("podIP"), "Pod IP");
        assert_eq!(words("app.kubernetes.io/name"), "app.kubernetes.io/name");
    }
}
