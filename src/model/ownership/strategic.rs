//! Strategic merge patches: maps merge, lists merge by their key, directives say the rest. PURE.

use serde_json::{Map, Value};

use super::shape::{Path, Shape, list};
use crate::model::Kind;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// A patch that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strategic merge patch: {path}: {message}")]
pub struct PatchError {
    pub path: String,
    pub message: String,
}

/// Applies a strategic merge patch.
///
/// # Errors
/// An unknown directive, or an item without its merge key.
pub fn strategic_merge(kind: Kind, live: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(patch) = patch.as_object() else {
        return Err(error(&[], "the patch is not an object"));
    };
    let live = live.as_object().cloned().unwrap_or_default();
    Ok(map(kind, &mut Vec::new(), live, patch)?.map_or(Value::Null, Value::Object))
}

fn error(path: &[&str], message: impl Into<String>) -> PatchError {
    PatchError { path: if path.is_empty() { ".".to_owned() } else { path.join(".") }, message: message.into() }
}

/// `None`: the patch deletes the map.
fn map<'a>(
    kind: Kind,
    path: &mut Path<'a>,
    mut live: Map<String, Value>,
    patch: &'a Map<String, Value>,
) -> Result<Option<Map<String, Value>>, PatchError> {
    match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("delete") => return Ok(None),
        Some("replace") => {
            let rest = patch.iter().filter(|(name, _)| *name != PATCH).map(|(name, value)| (name.clone(), value.clone()));
            return Ok(Some(rest.collect()));
        }
        Some(other) => return Err(error(path, format!("unknown $patch `{other}`"))),
    }
    if let Some(retain) = patch.get(RETAIN) {
        let names: Vec<&str> = retain.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        live.retain(|name, _| names.contains(&name.as_str()));
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        path.push(name);
        match member(kind, path, live.remove(name), value)? {
            Some(value) => live.insert(name.clone(), value),
            None => None,
        };
        path.pop();
    }
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            let gone = value.as_array().ok_or_else(|| error(path, format!("{name} is not a list")))?;
            if let Some(Value::Array(items)) = live.get_mut(field) {
                items.retain(|item| !gone.contains(item));
            }
        } else if let Some(field) = name.strip_prefix(ORDER) {
            path.push(field);
            if let (Some(Value::Array(items)), Value::Array(order)) = (live.get_mut(field), value) {
                reorder(key_of(kind, path), items, order);
            }
            path.pop();
        } else if name.starts_with('$') && name != PATCH && name != RETAIN {
            return Err(error(path, format!("unknown directive `{name}`")));
        }
    }
    Ok(Some(live))
}

fn member<'a>(kind: Kind, path: &mut Path<'a>, live: Option<Value>, patch: &'a Value) -> Result<Option<Value>, PatchError> {
    match (live, patch) {
        (_, Value::Null) => Ok(None),
        (Some(Value::Object(live)), Value::Object(patch)) => Ok(map(kind, path, live, patch)?.map(Value::Object)),
        (_, Value::Object(patch)) => Ok(map(kind, path, Map::new(), patch)?.map(Value::Object)),
        (live, Value::Array(patch)) => {
            let live = if let Some(Value::Array(items)) = live { items } else { Vec::new() };
            Ok(Some(Value::Array(items(kind, path, live, patch)?)))
        }
        (_, scalar) => Ok(Some(scalar.clone())),
    }
}

fn items<'a>(kind: Kind, path: &mut Path<'a>, live: Vec<Value>, patch: &'a [Value]) -> Result<Vec<Value>, PatchError> {
    let directive = |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Ok(patch.iter().filter(|item| directive(item).is_none()).cloned().collect());
    }
    let Some(key) = key_of(kind, path) else {
        if list(kind, path) == Shape::Set {
            let mut merged = live;
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return Ok(merged);
        }
        return Ok(patch.to_vec());
    };
    let mut merged = live;
    for item in patch {
        let (Some(name), Some(item)) = (item.get(key), item.as_object()) else {
            return Err(error(path, format!("an item lacks its merge key `{key}`")));
        };
        let at = merged.iter().position(|there| there.get(key) == Some(name));
        let before = at.and_then(|at| merged[at].as_object().cloned()).unwrap_or_default();
        match (at, map(kind, path, before, item)?) {
            (Some(at), Some(after)) => merged[at] = Value::Object(after),
            (None, Some(after)) => merged.push(Value::Object(after)),
            // A list may hold the key more than once (ports by number): all of them go.
            (Some(_), None) => merged.retain(|there| there.get(key) != Some(name)),
            (None, None) => {}
        }
    }
    Ok(merged)
}

/// The patch merge key: the first of the list's keys.
fn key_of(kind: Kind, path: &[&str]) -> Option<&'static str> {
    match list(kind, path) {
        Shape::Keyed(keys) => keys.iter().next(),
        _ => None,
    }
}

/// Named items in the order given; the others stay where they were relative to what precedes them.
fn reorder(key: Option<&str>, items: &mut Vec<Value>, order: &[Value]) {
    let word = |item: &Value| key.map_or_else(|| item.clone(), |key| item.get(key).cloned().unwrap_or(Value::Null));
    let rank = |item: &Value| order.iter().position(|wanted| word(wanted) == word(item));
    let mut sorted: Vec<Value> = items.iter().filter(|item| rank(item).is_some()).cloned().collect();
    sorted.sort_by_key(|item| rank(item));
    for (index, item) in items.iter().enumerate() {
        if rank(item).is_none() {
            let before = index.checked_sub(1).map(|index| word(&items[index]));
            let at = before.and_then(|before| sorted.iter().position(|there| word(there) == before)).map_or(0, |at| at + 1);
            sorted.insert(at, item.clone());
        }
    }
    *items = sorted;
}
