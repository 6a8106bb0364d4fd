//! Two walks over values and field sets: merge what is applied, take out what is given up. PURE.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Element, FieldSet};
use super::shape::{Path, Shape, Shapes, shape};

/// `live` with everything that `applied` says. Items of keyed lists come in the order of `applied`;
/// those it does not name stay behind the item they followed.
pub(super) fn merge<'a>(kind: Shapes<'_>, path: &mut Path<'a>, live: &Value, applied: &'a Value) -> Value {
    let same_shape = shape(kind, path, live) == shape(kind, path, applied);
    match (shape(kind, path, applied), live, applied) {
        (Shape::Map, Value::Object(mine), Value::Object(said)) => {
            let mut merged = mine.clone();
            for (name, value) in said {
                path.push(name);
                let below = mine.get(name).map_or_else(|| value.clone(), |mine| merge(kind, path, mine, value));
                path.pop();
                merged.insert(name.clone(), below);
            }
            Value::Object(merged)
        }
        (Shape::Keyed(keys), Value::Array(mine), Value::Array(said)) if same_shape => {
            let element = |item: &Value| Element::of_item(keys, item);
            let there: BTreeMap<Element, &Value> = mine.iter().map(|item| (element(item), item)).collect();
            let merged = said
                .iter()
                .map(|item| {
                    let other = there.get(&element(item)).copied();
                    (element(item), other.map_or_else(|| item.clone(), |other| merge_item(kind, path, other, item)))
                })
                .collect();
            Value::Array(interleave(merged, mine.iter().map(|item| (element(item), item))))
        }
        (Shape::Set, Value::Array(mine), Value::Array(said)) if same_shape => {
            let mut merged = mine.clone();
            merged.extend(said.iter().filter(|item| !mine.contains(item)).cloned());
            Value::Array(merged)
        }
        _ => applied.clone(),
    }
}

fn merge_item<'a>(kind: Shapes<'_>, path: &mut Path<'a>, live: &Value, applied: &'a Value) -> Value {
    merge(kind, path, live, applied)
}

/// `merged`, with every item of `live` that it lacks behind its predecessor in `live`.
fn interleave<'v>(merged: Vec<(Element, Value)>, live: impl Iterator<Item = (Element, &'v Value)>) -> Vec<Value> {
    let places: BTreeMap<Element, usize> = merged.iter().enumerate().map(|(at, (element, _))| (element.clone(), at)).collect();
    // Before the first, and behind each.
    let mut others: Vec<Vec<Value>> = vec![Vec::new(); merged.len() + 1];
    let mut behind = 0;
    for (element, item) in live {
        match places.get(&element) {
            Some(at) => behind = at + 1,
            None => others[behind].push(item.clone()),
        }
    }
    let mut others = others.into_iter();
    let first = others.next().unwrap_or_default();
    first.into_iter().chain(merged.into_iter().zip(others).flat_map(|((_, item), more)| std::iter::once(item).chain(more))).collect()
}

/// Takes the fields of `gone` out of `value`, but nothing below which somebody in `kept` still owns
/// something. What becomes empty by that goes as well.
pub(super) fn remove<'a>(kind: Shapes<'_>, path: &mut Path<'a>, value: Value, gone: &'a FieldSet, kept: &FieldSet) -> Option<Value> {
    if gone.here && kept.is_empty() {
        return None;
    }
    if gone.children.is_empty() {
        return Some(value);
    }
    let nobody = FieldSet::default();
    match (shape(kind, path, &value), value) {
        (Shape::Map, Value::Object(map)) => {
            let (had, mut rest) = (!map.is_empty(), Map::new());
            for (name, child) in map {
                let element = Element::Field(name);
                let below = match gone.children.get_key_value(&element) {
                    Some((Element::Field(name), gone)) => {
                        path.push(name);
                        let below = remove(kind, path, child, gone, kept.children.get(&element).unwrap_or(&nobody));
                        path.pop();
                        below
                    }
                    _ => Some(child),
                };
                if let (Element::Field(name), Some(below)) = (element, below) {
                    rest.insert(name, below);
                }
            }
            let emptied = had && rest.is_empty() && !kept.here;
            (!emptied).then_some(Value::Object(rest))
        }
        (Shape::Keyed(keys), Value::Array(items)) => {
            let rest = items
                .into_iter()
                .filter_map(|item| {
                    let element = Element::of_item(keys, &item);
                    match gone.children.get(&element) {
                        Some(gone) => remove(kind, path, item, gone, kept.children.get(&element).unwrap_or(&nobody)),
                        None => Some(item),
                    }
                })
                .collect::<Vec<_>>();
            (!rest.is_empty() || kept.here).then_some(Value::Array(rest))
        }
        (Shape::Set, Value::Array(items)) => {
            let rest: Vec<_> = items
                .into_iter()
                .filter(|item| {
                    let element = Element::Value(item.to_string());
                    !gone.children.contains_key(&element) || kept.children.contains_key(&element)
                })
                .collect();
            (!rest.is_empty() || kept.here).then_some(Value::Array(rest))
        }
        (_, value) => Some(value),
    }
}

/// Two sets: the fields of `after` that `before` lacks or has otherwise, and those of `before` that
/// are gone.
pub(super) fn compare(kind: Shapes<'_>, before: &Value, after: &Value) -> (FieldSet, FieldSet) {
    let (old, new) = (FieldSet::of(kind, before), FieldSet::of(kind, after));
    (changed(kind, &mut Vec::new(), before, after, &new), old.difference(&new))
}

/// The nodes of `set` (a subset of `after`'s fields) where `before` has none or another value. `null` is none.
pub(super) fn changed<'a>(kind: Shapes<'_>, path: &mut Path<'a>, before: &Value, after: &Value, set: &'a FieldSet) -> FieldSet {
    let mut result = FieldSet::default();
    let (left, right) = (shape(kind, path, before), shape(kind, path, after));
    if set.children.is_empty() || left != right {
        if before != after { return set.clone() } else { return result }
    }
    for (element, below) in &set.children {
        let name = if let Element::Field(name) = element { Some(name.as_str()) } else { None };
        path.extend(name);
        let child = match (find(right, before, element), find(right, after, element)) {
            (Some(before), Some(after)) => changed(kind, path, before, after, below),
            (None, None | Some(Value::Null)) => FieldSet::default(),
            _ => below.clone(),
        };
        if name.is_some() {
            path.pop();
        }
        if !child.is_empty() {
            result.children.insert(element.clone(), child);
        }
    }
    result
}

fn find<'v>(shape: Shape<'_>, value: &'v Value, element: &Element) -> Option<&'v Value> {
    match (shape, element, value) {
        (Shape::Map, Element::Field(name), Value::Object(map)) => map.get(name),
        (Shape::Keyed(keys), Element::Key(_), Value::Array(items)) => items.iter().find(|item| Element::of_item(keys, item) == *element),
        (Shape::Set, Element::Value(json), Value::Array(items)) => items.iter().find(|item| item.to_string() == *json),
        _ => None,
    }
}
