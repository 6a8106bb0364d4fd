//! An object's changes for a person: field by field, long texts as a diff, secrets never. PURE.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lines::unified;
use crate::model::custom::Definitions;
use crate::model::ownership::{FieldChange, changes};
use crate::model::{Kind, LAST_APPLIED};
use crate::sync::identity::said;
use crate::sync::plan::{Action, SyncOp};

/// Characters of a value that are shown.
const SHOWN: usize = 160;
/// Lines of context around a change of a long text.
const CONTEXT: usize = 2;
/// Lines of a diff that are shown.
const LINES: usize = 200;

/// One field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldPreview {
    /// `+`, `~` or `-`
    pub mark: String,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// A change within a text of several lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<String>,
}

/// What an op changes in its object. Of a new object, only what the manifest says.
pub(super) fn of_op(op: &SyncOp, served: &Definitions) -> Vec<FieldPreview> {
    let nothing = || Value::Object(serde_json::Map::new());
    let kind = op.key().kind;
    let of = |object: &Option<crate::model::Object>| object.as_ref().map_or_else(nothing, said);
    let new = if op.told.is_some() { &op.told } else { &op.after };
    let (before, after) = match op.action {
        Action::Create => (nothing(), of(new)),
        Action::Delete => return Vec::new(),
        Action::Update => (of(&op.before), of(&op.result)),
        // Against the fields that git says now, not against what admission filled in.
        Action::Replace => (only(&of(&op.before), &of(new)), of(new)),
    };
    changes(served.shapes(kind), &before, &after)
        .iter()
        .filter(|change| !is_identity(&change.path))
        .map(|change| field(kind, change))
        .collect()
}

/// The fields of `value` that `like` has as well.
fn only(value: &Value, like: &Value) -> Value {
    match (value, like) {
        (Value::Object(value), Value::Object(like)) => {
            value.iter().filter_map(|(name, value)| Some((name.clone(), only(value, like.get(name)?)))).collect()
        }
        (Value::Array(value), Value::Array(like)) if value.len() == like.len() => {
            value.iter().zip(like).map(|(value, like)| only(value, like)).collect()
        }
        _ => value.clone(),
    }
}

fn is_identity(path: &str) -> bool {
    matches!(path, "apiVersion" | "kind" | "metadata.name" | "metadata.namespace")
}

fn field(kind: Kind, change: &FieldChange) -> FieldPreview {
    let mark = match (&change.before, &change.after) {
        (None, _) => "+",
        (_, None) => "-",
        _ => "~",
    };
    let path = printable(&change.path);
    if is_secret(kind, &change.path) {
        let word = || Some("(sensitive)".to_owned());
        let (before, after) = match mark {
            "~" => (None, Some("(changed)".to_owned())),
            "+" => (None, word()),
            _ => (word(), None),
        };
        return FieldPreview { mark: mark.to_owned(), path, before, after, diff: Vec::new() };
    }
    if let (Some(Value::String(before)), Some(Value::String(after))) = (&change.before, &change.after)
        && (before.contains('\n') || after.contains('\n'))
    {
        return FieldPreview { mark: mark.to_owned(), path, diff: diff(before, after), ..FieldPreview::default() };
    }
    FieldPreview {
        mark: mark.to_owned(),
        path,
        before: change.before.as_ref().map(show),
        after: change.after.as_ref().map(show),
        diff: Vec::new(),
    }
}

fn is_secret(kind: Kind, path: &str) -> bool {
    let data = path == "data" || path == "stringData" || path.starts_with("data.") || path.starts_with("stringData.");
    kind == Kind::Secret && (data || path.contains(LAST_APPLIED))
}

fn diff(before: &str, after: &str) -> Vec<String> {
    let text = unified(before, after, CONTEXT);
    let mut lines: Vec<String> = text.lines().take(LINES).map(printable).collect();
    let more = text.lines().count().saturating_sub(LINES);
    if more > 0 {
        lines.push(format!("({more} more lines)"));
    }
    lines
}

fn show(value: &Value) -> String {
    let text = match value {
        Value::String(text) if text.contains('\n') => return format!("({} lines)", text.lines().count()),
        Value::String(text) if text.is_empty() || text.trim() != text => format!("{text:?}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    printable(&shown)
}

/// A text from a manifest, without characters that move a cursor or turn the direction of writing.
pub fn printable(text: &str) -> String {
    let moves =
        |letter: char| letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if moves(letter) { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    shown
}
