//! What a pod is told of itself in files: the downward API. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod};

use crate::agent::env::metadata;
use crate::agent::resources::{self, Machine};
use crate::model::pod as model;

/// The text of one file.
///
/// # Errors
/// There is no such field or container; the text is for a person.
pub fn text(file: &DownwardAPIVolumeFile, pod: &Pod, machine: &Machine) -> Result<String, String> {
    if let Some(field) = &file.field_ref {
        let meta = &pod.metadata;
        return match field.field_path.as_str() {
            "metadata.labels" => Ok(lines(meta.labels.as_ref())),
            "metadata.annotations" => Ok(lines(meta.annotations.as_ref())),
            path => metadata(pod, path).ok_or_else(|| format!("unsupported fieldPath: {path}")),
        };
    }
    let selector = file.resource_field_ref.as_ref().ok_or("neither fieldRef nor resourceFieldRef is set")?;
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = pod.spec.as_ref().and_then(|spec| model::container(spec, name));
    resources::field(container.ok_or_else(|| format!("container {name} not found"))?, selector, machine)
}

/// `key="value"` a line, without an end of line at the end.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<String>>().join("\n")
}

/// As Go's `%q`.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' ' => out.push(' '),
            _ if letter.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(letter))),
            _ if is_unseen(letter) && u32::from(letter) > 0xffff => out.push_str(&format!("\\U{:08x}", u32::from(letter))),
            _ if is_unseen(letter) => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// Controls, other blanks than the space, marks of direction and width, and what is no letter of anybody's.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || letter.is_whitespace()
        || matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(file: Value) -> Result<String, String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"b": "2", "a": "1"},
            "annotations": {"note": "say \"hi\"\n\u{a0}ü\u{1}", "empty": ""}},
            "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "64Mi"}}}]}});
        let machine = Machine { cpu_millis: 4000, memory_bytes: 1 << 30, storage_bytes: 1 << 30, ..Machine::default() };
        text(&serde_json::from_value(file).unwrap(), &serde_json::from_value(pod).unwrap(), &machine)
    }

    #[test]
    fn files_say_what_the_kubelets_say() {
        let field = |path: &str| json!({"path": "x", "fieldRef": {"fieldPath": path}});
        let resource = |name: &str, resource: &str, divisor: &str| json!({"path": "x", "resourceFieldRef": {"containerName": name, "resource": resource, "divisor": divisor}});
        let table = [
            (field("metadata.name"), Ok("p")),
            (field("metadata.uid"), Ok("u1")),
            (field("metadata.labels"), Ok("a=\"1\"\nb=\"2\"")),
            (field("metadata.labels['b']"), Ok("2")),
            (field("metadata.annotations['none']"), Ok("")),
            (field("metadata.annotations"), Ok("empty=\"\"\nnote=\"say \\\"hi\\\"\\n\\u00a0ü\\x01\"")),
            (field("status.podIP"), Err("unsupported fieldPath: status.podIP")),
            (resource("main", "limits.memory", "1Mi"), Ok("64")),
            (resource("main", "limits.cpu", "0"), Ok("4")),
            (resource("other", "limits.cpu", "0"), Err("container other not found")),
        ];
        for (file, want) in table {
            assert_eq!(of(file.clone()).as_deref().map_err(String::as_str), want, "{file}");
        }
    }
}
