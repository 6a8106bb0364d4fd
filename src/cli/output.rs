//! What goes to a terminal: tables, JSON, YAML, and nothing that could steer it.

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde_json::Value;

/// Text from outside with control characters made visible: an escape sequence in an object's name
/// or status must not reach the terminal. Newlines and tabs stay.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Writes to standard output; a closed pipe (`| head`) ends the output, not the verb.
pub fn print(text: &str) {
    // Nobody is left to tell when standard output is gone.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// kubectl's table: columns by spaces, headers in capitals.
pub fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell).replace(['\n', '\t'], " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A `meta.k8s.io/v1 Table` as the server sends it; `wide` shows its low-priority columns too.
pub fn server_table(value: &Value, wide: bool, with_namespace: bool) -> String {
    let empty = Vec::new();
    let columns = value["columnDefinitions"].as_array().unwrap_or(&empty);
    let shown: Vec<usize> = (0..columns.len()).filter(|&i| wide || columns[i]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut headers: Vec<String> = Vec::new();
    if with_namespace {
        headers.push("NAMESPACE".to_owned());
    }
    headers.extend(shown.iter().map(|&i| columns[i]["name"].as_str().unwrap_or_default().to_uppercase()));
    let rows = value["rows"].as_array().unwrap_or(&empty).iter().map(|row| {
        let mut cells = Vec::new();
        if with_namespace {
            cells.push(row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
        }
        cells.extend(shown.iter().map(|&i| cell(&row["cells"][i])));
        cells
    });
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    table(&headers, rows)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// Pretty JSON with a final newline.
pub fn json(value: &Value) -> String {
    // A `Value` has string keys only: encoding it cannot fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn escape_sequences_never_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mred\nb"), "a\\u{1b}[31mred\nb");
    }

    #[test]
    fn tables_look_like_kubectls() {
        let value = json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "IP", "priority": 1}, {"name": "Age", "priority": 0}],
            "rows": [{"cells": ["web", "10.0.0.1", "5m"], "object": {"metadata": {"namespace": "shop"}}}],
        });
        assert_eq!(server_table(&value, false, true), "NAMESPACE   NAME   AGE\nshop        web    5m\n");
        assert_eq!(server_table(&value, true, false), "NAME   IP         AGE\nweb    10.0.0.1   5m\n");
    }
}
