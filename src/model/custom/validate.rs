//! An object against its schema: every rule it breaks, in Kubernetes' words. PURE.
//!
//! Expects what `prune` and `default` leave. The words are those of go-openapi's validator, which
//! Kubernetes uses.

use serde_json::Value;

use super::budget::{Budget, Spent, weight};
use super::schema::{Bounds, ListType, Schema, key_of};
use crate::model::rule::{Errors, Path, cut};

/// Steps that checking one object may take: it has many values, and its schema may have much to say of each.
const BUDGET: Budget = Budget::new(10_000_000, 0);
/// Values of an enumeration that a message names, and bytes of one.
const SHOWN: (usize, usize) = (50, 100);

/// Every rule of the schema that an object breaks.
pub fn validate(schema: &Schema, object: &Value, errors: &mut Errors) {
    within(&mut { BUDGET }, schema, object, errors);
}

/// As [`validate`], within a budget of steps.
pub(super) fn within(budget: &mut Budget, schema: &Schema, object: &Value, errors: &mut Errors) {
    let root = Path::root("");
    if let Err(spent) = check(schema, object, &root, true, budget, errors) {
        errors.invalid(&root, &summary(object), &spent.to_string());
    }
}

fn check(schema: &Schema, value: &Value, path: &Path<'_>, is_root: bool, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    if errors.is_full() || (value.is_null() && schema.nullable) {
        return Ok(());
    }
    budget.steps(1)?;
    if !has_type(schema, value) {
        // Nothing more can be said of a value that is something else.
        wrong_type(schema, value, path, errors);
        return Ok(());
    }
    bounded(&schema.bounds, value, path, budget, errors)?;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if (is_root || schema.embedded) && matches!(name.as_str(), "apiVersion" | "kind") {
                    continue;
                }
                if let Some(of) = schema.field(name) {
                    check(of, value, &path.child(name), false, budget, errors)?;
                }
            }
            if schema.embedded {
                identity(value, path, errors);
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    check(of, item, &path.index(index), false, budget, errors)?;
                }
            }
            distinct(&schema.list, schema.bounds.unique_items, items, path, budget, errors)?;
        }
        _ => {}
    }
    junctors(schema, value, path, budget, errors)
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
fn bounded(bounds: &Bounds, value: &Value, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    if let Some(allowed) = &bounds.enumeration {
        let whole = if matches!(value, Value::Array(_) | Value::Object(_)) { weight(value) / 8 } else { 1 };
        budget.steps(allowed.len().saturating_mul(1 + whole))?;
        if !allowed.iter().any(|it| same(it, value)) {
            not_allowed(allowed, value, path, errors);
        }
    }
    match value {
        Value::String(text) => of_text(bounds, text, path, budget, errors)?,
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
            budget.steps(bounds.required.len())?;
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
    Ok(())
}

fn not_allowed(allowed: &[Value], value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (count, bytes) = SHOWN;
    let shown = |it: &Value| it.as_str().map_or_else(|| cut(&it.to_string(), bytes).to_owned(), |text| cut(text, bytes).to_owned());
    let mut shown: Vec<String> = allowed.iter().take(count).map(shown).collect();
    if allowed.len() > count {
        shown.push("…".to_owned());
    }
    errors.unsupported(path, value, &shown.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Numbers are the same whichever way they are written.
fn same(one: &Value, other: &Value) -> bool {
    one == other || matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if one == other)
}

fn of_text(bounds: &Bounds, text: &str, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    budget.look(text.len())?;
    let length = text.chars().count() as u64;
    if let Some(most) = bounds.max_length.filter(|most| length > *most) {
        errors.too_long(path, usize::try_from(most).unwrap_or(usize::MAX));
    }
    if let Some(least) = bounds.min_length.filter(|least| length < *least) {
        errors.invalid(path, text, &format!("{path} in body should be at least {least} chars long"));
    }
    if let Some(pattern) = &bounds.pattern
        && !pattern.matches(text, budget)?
    {
        errors.invalid(path, text, &format!("{path} in body should match '{}'", pattern.text));
    }
    if !super::format::fits(&bounds.format, text) {
        errors.invalid(path, text, &format!("{path} in body must be of type {}: \"{}\"", bounds.format, cut(text, 300)));
    }
    Ok(())
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
fn distinct(
    list: &ListType,
    unique: bool,
    items: &[Value],
    path: &Path<'_>,
    budget: &mut Budget,
    errors: &mut Errors,
) -> Result<(), Spent> {
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        match list {
            ListType::Atomic if !unique => return Ok(()),
            ListType::Atomic | ListType::Set => {
                if !seen.insert(item.to_string()) {
                    errors.duplicate(&path.index(index), item);
                }
            }
            ListType::Map(keys) => {
                budget.steps(keys.len())?;
                if !seen.insert(key_of(keys, item)) {
                    let key: Value = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
                    errors.duplicate(&path.index(index), &key);
                }
            }
        }
        if errors.is_full() {
            break;
        }
    }
    Ok(())
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

fn junctors(schema: &Schema, value: &Value, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    let mut holds = |schema: &Schema| -> Result<bool, Spent> {
        let mut found = Errors::first();
        check(schema, value, path, false, budget, &mut found)?;
        Ok(found.is_empty())
    };
    let mut fail = |words: &str| errors.invalid(path, &summary(value), &format!("\"{path}\" {words}"));
    let mut any = schema.any_of.is_empty();
    for one in &schema.any_of {
        any = any || holds(one)?;
    }
    if !any {
        fail("must validate at least one schema (anyOf)");
    }
    let mut valid = 0;
    for one in &schema.one_of {
        valid += usize::from(holds(one)?);
    }
    match valid {
        1 => {}
        0 if schema.one_of.is_empty() => {}
        0 => fail("must validate one and only one schema (oneOf). Found none valid"),
        count => fail(&format!("must validate one and only one schema (oneOf). Found {count} valid alternatives")),
    }
    if let Some(not) = &schema.not
        && holds(not)?
    {
        fail("must not validate the schema (not)");
    }
    // Asked once for whether and why: each may have others inside.
    let mut found = Errors::default();
    for all in &schema.all_of {
        check(all, value, path, false, budget, &mut found)?;
    }
    if !found.is_empty() {
        fail("must validate all the schemas (allOf)");
        errors.append(found);
    }
    Ok(())
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
