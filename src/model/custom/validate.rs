//! An object against its schema: every rule it breaks, in Kubernetes' words. PURE.
//!
//! Expects what `prune` and `default` leave. The words are those of go-openapi's validator, which
//! Kubernetes uses.

use serde_json::Value;

use super::schema::{Bounds, ListType, Schema};
use crate::model::rule::{Errors, Path};

/// Every rule of the schema that an object breaks.
pub fn validate(schema: &Schema, object: &Value, errors: &mut Errors) {
    let root = Path::root("");
    check(schema, object, &root, true, errors);
}

fn check(schema: &Schema, value: &Value, path: &Path<'_>, is_root: bool, errors: &mut Errors) {
    if (value.is_null() && schema.nullable) || errors.is_full() {
        return;
    }
    if !has_type(schema, value) {
        // Nothing more can be said of a value that is something else.
        return wrong_type(schema, value, path, errors);
    }
    bounded(&schema.bounds, value, path, errors);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if (is_root || schema.embedded) && matches!(name.as_str(), "apiVersion" | "kind") {
                    continue;
                }
                match (schema.properties.get(name), &schema.additional) {
                    (Some(of), _) => check(of, value, &path.child(name), false, errors),
                    (None, Some(of)) => check(of, value, &path.child(name), false, errors),
                    (None, None) => {}
                }
            }
            if schema.embedded {
                identity(value, path, errors);
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                items.iter().enumerate().for_each(|(index, item)| check(of, item, &path.index(index), false, errors));
            }
            distinct(&schema.list, schema.bounds.unique_items, items, path, errors);
        }
        _ => {}
    }
    junctors(schema, value, path, errors);
}

fn has_type(schema: &Schema, value: &Value) -> bool {
    let integer = |it: &serde_json::Number| it.is_i64() || it.is_u64() || it.as_f64().is_some_and(|it| it.fract() == 0.0);
    if schema.int_or_string {
        return matches!(value, Value::String(_)) || matches!(value, Value::Number(it) if integer(it));
    }
    match (schema.kind.as_str(), value) {
        ("", Value::Null) => schema.preserve_unknown,
        ("", _) | ("object", Value::Object(_)) | ("array", Value::Array(_)) => true,
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => true,
        ("integer", Value::Number(it)) => integer(it),
        _ => false,
    }
}

fn wrong_type(schema: &Schema, value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(it) if it.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = if schema.int_or_string { "integer,string" } else { &schema.kind };
    errors.invalid(path, found, &format!("{path} in body must be of type {wanted}: \"{found}\""));
}

/// Everything but the type, the members and the junctors.
fn bounded(bounds: &Bounds, value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(allowed) = bounds.enumeration.as_ref().filter(|allowed| !allowed.iter().any(|it| same(it, value))) {
        let allowed: Vec<String> = allowed.iter().map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned)).collect();
        errors.unsupported(path, value, &allowed.iter().map(String::as_str).collect::<Vec<_>>());
    }
    match value {
        Value::String(text) => of_text(bounds, text, path, errors),
        Value::Number(number) => of_number(bounds, number.as_f64().unwrap_or_default(), value, path, errors),
        Value::Array(items) => {
            let count = items.len();
            if let Some(most) = bounds.max_items.filter(|most| count as u64 > *most) {
                errors.too_many(path, count, usize::try_from(most).unwrap_or(usize::MAX));
            }
            if let Some(least) = bounds.min_items.filter(|least| (count as u64) < *least) {
                errors.invalid(path, &count, &format!("{path} in body should have at least {least} items"));
            }
        }
        Value::Object(fields) => {
            let count = fields.len();
            for name in bounds.required.iter().filter(|name| !fields.contains_key(*name)) {
                errors.required(&path.child(name), "");
            }
            if let Some(most) = bounds.max_properties.filter(|most| count as u64 > *most) {
                errors.too_many(path, count, usize::try_from(most).unwrap_or(usize::MAX));
            }
            if let Some(least) = bounds.min_properties.filter(|least| (count as u64) < *least) {
                errors.invalid(path, &count, &format!("{path} in body should have at least {least} properties"));
            }
        }
        _ => {}
    }
}

/// Numbers are the same whichever way they are written.
fn same(one: &Value, other: &Value) -> bool {
    one == other || matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if one == other)
}

fn of_text(bounds: &Bounds, text: &str, path: &Path<'_>, errors: &mut Errors) {
    let length = text.chars().count() as u64;
    if let Some(most) = bounds.max_length.filter(|most| length > *most) {
        errors.too_long(path, usize::try_from(most).unwrap_or(usize::MAX));
    }
    if let Some(least) = bounds.min_length.filter(|least| length < *least) {
        errors.invalid(path, text, &format!("{path} in body should be at least {least} chars long"));
    }
    if let Some(pattern) = bounds.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
        errors.invalid(path, text, &format!("{path} in body should match '{}'", pattern.text));
    }
    if !super::format::fits(&bounds.format, text) {
        errors.invalid(path, text, &format!("{path} in body must be of type {}: \"{text}\"", bounds.format));
    }
}

fn of_number(bounds: &Bounds, number: f64, value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let below = |least: f64| if bounds.exclusive_minimum { number <= least } else { number < least };
    if let Some(least) = bounds.minimum.filter(|least| below(*least)) {
        let words = if bounds.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        errors.invalid(path, value, &format!("{path} in body should be {words} {least}"));
    }
    let above = |most: f64| if bounds.exclusive_maximum { number >= most } else { number > most };
    if let Some(most) = bounds.maximum.filter(|most| above(*most)) {
        let words = if bounds.exclusive_maximum { "less than" } else { "less than or equal to" };
        errors.invalid(path, value, &format!("{path} in body should be {words} {most}"));
    }
    if let Some(of) = bounds.multiple_of.filter(|of| (number / of).fract() != 0.0) {
        errors.invalid(path, value, &format!("{path} in body should be a multiple of {of}"));
    }
    let (least, most) = match bounds.format.as_str() {
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        _ => return,
    };
    if number < least || number > most {
        errors.invalid(path, value, &format!("Checked value must be of type integer with format {} in {path}", bounds.format));
    }
}

/// No item twice: in a set by its value, in a map by its keys.
fn distinct(list: &ListType, unique: bool, items: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    match list {
        ListType::Atomic if !unique => {}
        ListType::Atomic | ListType::Set => {
            for (index, item) in items.iter().enumerate() {
                if !seen.insert(item.to_string()) {
                    errors.duplicate(&path.index(index), item);
                }
            }
        }
        ListType::Map(keys) => {
            for (index, item) in items.iter().enumerate() {
                let key: Value = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
                if !seen.insert(key.to_string()) {
                    errors.duplicate(&path.index(index), &key);
                }
            }
        }
    }
}

/// An object inside another one says what it is.
fn identity(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["apiVersion", "kind"] {
        match value.get(field) {
            Some(Value::String(text)) if !text.is_empty() => {}
            None | Some(Value::String(_)) => errors.required(&path.child(field), "must not be empty"),
            Some(other) => errors.invalid(&path.child(field), other, "must be a string"),
        }
    }
}

fn junctors(schema: &Schema, value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let holds = |schema: &Schema| {
        let mut found = Errors::default();
        check(schema, value, path, false, &mut found);
        found.is_empty()
    };
    let mut fail = |words: &str| {
        let text = path.to_string();
        errors.invalid(path, &summary(value), &format!("\"{text}\" {words}"));
    };
    if !schema.any_of.is_empty() && !schema.any_of.iter().any(holds) {
        fail("must validate at least one schema (anyOf)");
    }
    if !schema.one_of.is_empty() {
        match schema.one_of.iter().filter(|one| holds(one)).count() {
            1 => {}
            0 => fail("must validate one and only one schema (oneOf). Found none valid"),
            count => fail(&format!("must validate one and only one schema (oneOf). Found {count} valid alternatives")),
        }
    }
    if schema.not.as_ref().is_some_and(|not| holds(not)) {
        fail("must not validate the schema (not)");
    }
    // Once, also where they are nested: what was found is what is told.
    let mut found = Errors::default();
    schema.all_of.iter().for_each(|all| check(all, value, path, false, &mut found));
    if !found.is_empty() {
        fail("must validate all the schemas (allOf)");
        errors.append(found);
    }
}

/// A value in a message: of a large one, only what it is.
fn summary(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::from("object"),
        Value::Array(_) => Value::from("array"),
        other => other.clone(),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
