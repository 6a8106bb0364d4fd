//! What a schema must be for its kind to be served: Kubernetes' structural rules. PURE.
//!
//! From "Extend the Kubernetes API with CustomResourceDefinitions", section "Specifying a structural
//! schema": a type at each level, everything of a junctor (`allOf`, `anyOf`, `oneOf`, `not`) specified
//! outside of it too, and no keyword that would make pruning or defaulting ambiguous.

use serde_json::Value;

use super::rules::Rule;
use super::schema::{Pattern, Schema, fields};
use crate::model::rule::{Errors, Path};

const JUNCTORS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords of JSON schema that no schema of a kind may have.
const UNSUPPORTED: [&str; 7] = ["$ref", "definitions", "dependencies", "deprecated", "id", "patternProperties", "additionalItems"];
/// What a schema inside a junctor may not say: it says what is valid, not what there is.
const OUTSIDE: [&str; 11] = [
    "type",
    "description",
    "title",
    "default",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Where a schema stands in the one above it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    Embedded,
}

/// Patterns of one schema: each that was asked for is kept, compiled.
const PATTERNS: usize = 1000;

/// How many patterns a schema has.
fn patterns(schema: &Value) -> usize {
    match schema {
        Value::Object(fields) => usize::from(schema["pattern"].is_string()) + fields.values().map(patterns).sum::<usize>(),
        Value::Array(items) => items.iter().map(patterns).sum(),
        _ => 0,
    }
}

/// Every rule that a kind's schema breaks.
pub fn check(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let count = patterns(schema);
    if count > PATTERNS {
        return errors.too_many(path, count, PATTERNS);
    }
    node(schema, Place::Root, true, path, errors);
}

/// `known`: of each of its values it is known which one it was before.
fn node(schema: &Value, place: Place, known: bool, path: &Path<'_>, errors: &mut Errors) {
    if !schema.is_object() {
        return errors.invalid(path, schema, "must be a schema");
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let flag = |name: &str| schema[name].as_bool() == Some(true);
    let (any, either) = (flag("x-kubernetes-preserve-unknown-fields"), flag("x-kubernetes-int-or-string"));
    typed(kind, place, any || either, path, errors);
    if either && !kind.is_empty() {
        errors.forbidden(&path.child("type"), "must be empty if x-kubernetes-int-or-string is true");
    }
    if schema["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(false) {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), &false, "must be true or undefined");
    }
    if flag("x-kubernetes-embedded-resource") && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object if x-kubernetes-embedded-resource is true");
    }
    rules(schema, known, &path.child("x-kubernetes-validations"), errors);
    keywords(schema, path, errors);
    lists(schema, kind, path, errors);
    members(schema, place, known, path, errors);
    junctors(schema, schema, either, path, errors);
    default(schema, path, errors);
}

fn typed(kind: &str, place: Place, may_be_any: bool, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("type");
    match (kind, place) {
        ("", Place::Root) => errors.required(&at, "must not be empty at the root"),
        ("", Place::Field | Place::Embedded) if !may_be_any => errors.required(&at, "must not be empty for specified object fields"),
        ("", Place::Item) if !may_be_any => errors.required(&at, "must not be empty for specified array items"),
        ("" | "object", _) => {}
        (other, Place::Root) => errors.invalid(&at, other, "must be object at the root"),
        ("array" | "string" | "integer" | "number" | "boolean", _) => {}
        (other, _) => errors.unsupported(&at, other, &["array", "boolean", "integer", "number", "object", "string"]),
    }
}

/// Rules that can be asked.
fn rules(schema: &Value, known: bool, path: &Path<'_>, errors: &mut Errors) {
    for (index, written) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        let (rule, at) = (Rule::read(written), path.index(index));
        match &rule.program {
            _ if rule.text.is_empty() => errors.required(&at.child("rule"), "rule is not specified"),
            Err(why) => errors.invalid(&at.child("rule"), &rule.text, &format!("compilation failed: {why}")),
            Ok(program) if program.uses_old && !known => {
                let why =
                    "oldSelf cannot be used where no item of a list is known again: below one that is no map by x-kubernetes-list-type";
                errors.invalid(&at.child("rule"), &rule.text, why);
            }
            Ok(_) => {}
        }
        if let Some(Err(why)) = &rule.message_program {
            errors.invalid(&at.child("messageExpression"), &written["messageExpression"], &format!("compilation failed: {why}"));
        }
        if written["optionalOldSelf"].as_bool() == Some(true) {
            errors.forbidden(
                &at.child("optionalOldSelf"),
                "optional values are not supported: leave it out, and the rule is asked of changes only",
            );
        }
        if let Some(reason) = written["reason"].as_str() {
            const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
            if !REASONS.contains(&reason) {
                errors.unsupported(&at.child("reason"), reason, &REASONS);
            }
        }
    }
}

/// Keywords that stand nowhere.
fn keywords(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in UNSUPPORTED.iter().filter(|name| schema.get(**name).is_some_and(|it| !it.is_null())) {
        errors.forbidden(&path.child(name), &format!("{name} is not supported"));
    }
    if schema["uniqueItems"].as_bool() == Some(true) {
        errors.forbidden(&path.child("uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    if let Some(text) = schema["pattern"].as_str().filter(|text| !Pattern::new(text).is_valid()) {
        errors.invalid(&path.child("pattern"), text, "must be a valid regular expression, of bounded size");
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => errors.forbidden(&path.child("additionalProperties"), "additionalProperties cannot be set to false"),
        Some(it) if !it.is_null() && schema["properties"].as_object().is_some_and(|all| !all.is_empty()) => {
            errors.forbidden(&path.child("additionalProperties"), "additionalProperties and properties are mutual exclusive");
        }
        _ => {}
    }
    if schema["items"].is_array() {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
}

/// `x-kubernetes-list-type`, `-list-map-keys` and `-map-type`.
fn lists(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (of, keys) = (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
    let named: Vec<&str> = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let list = schema["x-kubernetes-list-type"].as_str();
    match list {
        None => {}
        Some("atomic" | "set" | "map") if kind != "array" => {
            errors.invalid(&path.child("type"), kind, "must be array if x-kubernetes-list-type is specified");
        }
        Some("map") if named.is_empty() => errors.required(&keys, "must not be empty if x-kubernetes-list-type is map"),
        Some("map") => map_keys(schema, &named, path, errors),
        Some("set") if matches!(schema["items"]["type"].as_str(), Some("object" | "array")) => {
            let whole = schema["items"]["x-kubernetes-map-type"] == "atomic" || schema["items"]["type"] == "array";
            if !whole {
                errors.forbidden(&of, "items of a set must be scalars, atomic lists or atomic maps");
            }
        }
        Some("atomic" | "set") => {}
        Some(other) => errors.unsupported(&of, other, &["atomic", "map", "set"]),
    }
    if !named.is_empty() && list != Some("map") {
        errors.invalid(&of, list.unwrap_or_default(), "must be map if x-kubernetes-list-map-keys is non-empty");
    }
    match schema["x-kubernetes-map-type"].as_str() {
        None => {}
        Some("atomic" | "granular") if kind == "object" => {}
        Some("atomic" | "granular") => {
            errors.invalid(&path.child("type"), kind, "must be object if x-kubernetes-map-type is specified");
        }
        Some(other) => errors.unsupported(&path.child("x-kubernetes-map-type"), other, &["atomic", "granular"]),
    }
}

/// The keys of a list's items are fields that each item has.
fn map_keys(schema: &Value, keys: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let item = &schema["items"];
    let items = path.child("items");
    if item["type"] != "object" {
        return errors.invalid(&items.child("type"), &item["type"], "must be object if parent array's x-kubernetes-list-type is map");
    }
    for key in keys {
        let (field, at) = (&item["properties"][*key], items.child("properties"));
        let required = item["required"].as_array().is_some_and(|all| all.iter().any(|name| name == key));
        match field["type"].as_str() {
            None => errors.invalid(&at, key, "entries in x-kubernetes-list-map-keys must all be names of item properties"),
            Some("array" | "object") => errors.invalid(
                &at.key(key).child("type"),
                &field["type"],
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            ),
            Some(_) if !required && field.get("default").is_none() => {
                errors.required(
                    &at.key(key).child("default"),
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                );
            }
            Some(_) => {}
        }
    }
}

/// The schemas of fields, values and items.
fn members(schema: &Value, place: Place, known: bool, path: &Path<'_>, errors: &mut Errors) {
    let embedded = schema["x-kubernetes-embedded-resource"].as_bool() == Some(true);
    let properties = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        let at = properties.key(name);
        if name == "metadata" && (place == Place::Root || embedded) {
            metadata(field, known, &at, errors);
            continue;
        }
        node(field, if embedded { Place::Embedded } else { Place::Field }, known, &at, errors);
    }
    if let Some(of) = schema.get("additionalProperties").filter(|it| it.is_object()) {
        node(of, Place::Field, known, &path.child("additionalProperties"), errors);
    }
    if let Some(of) = schema.get("items").filter(|it| it.is_object()) {
        node(of, Place::Item, known && schema["x-kubernetes-list-type"] == "map", &path.child("items"), errors);
    } else if schema["type"] == "array" && !schema["items"].is_array() {
        errors.required(&path.child("items"), "must be specified");
    }
}

/// Of its metadata a schema may bound the name only: the rest is the system's.
fn metadata(schema: &Value, known: bool, path: &Path<'_>, errors: &mut Errors) {
    if schema["type"].as_str().is_some_and(|kind| kind != "object") {
        errors.invalid(&path.child("type"), &schema["type"], "must be object");
    }
    let other = fields(schema, "properties").any(|(name, _)| name != "name" && name != "generateName");
    if other || schema.get("additionalProperties").is_some_and(|it| !it.is_null()) {
        errors.forbidden(path, "must not specify anything other than name and generateName, but metadata is implicitly specified");
    }
    for (name, field) in fields(schema, "properties") {
        node(field, Place::Field, known, &path.child("properties").key(name), errors);
    }
}

/// What stands in a junctor says more of fields that `outer` has.
fn junctors(outer: &Value, schema: &Value, either: bool, path: &Path<'_>, errors: &mut Errors) {
    for junctor in JUNCTORS {
        let at = path.child(junctor);
        for (index, inner) in schema[junctor].as_array().into_iter().flatten().enumerate() {
            inside(outer, inner, either, &at.index(index), errors);
        }
    }
    if let Some(inner) = schema.get("not").filter(|it| it.is_object()) {
        inside(outer, inner, either, &path.child("not"), errors);
    }
}

fn inside(outer: &Value, schema: &Value, either: bool, path: &Path<'_>, errors: &mut Errors) {
    for name in OUTSIDE.iter().filter(|name| schema.get(**name).is_some_and(|it| !it.is_null() && *it != Value::Bool(false))) {
        // `anyOf: [{type: integer}, {type: string}]` is what int-or-string looks like to others.
        if !(either && *name == "type") {
            errors.forbidden(&path.child(name), "must be empty to be structural");
        }
    }
    if schema.get("additionalProperties").is_some_and(|it| !it.is_null()) {
        errors.forbidden(&path.child("additionalProperties"), "must be undefined to be structural");
    }
    keywords(schema, path, errors);
    let any = outer["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(true);
    let properties = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        let at = properties.key(name);
        match outer["properties"].get(name).or_else(|| outer.get("additionalProperties").filter(|it| it.is_object())) {
            Some(of) => inside(of, field, of["x-kubernetes-int-or-string"].as_bool() == Some(true), &at, errors),
            None if any || name == "metadata" || name == "apiVersion" || name == "kind" => {}
            None => errors.required(&at, "must be specified outside of the junctor to be structural"),
        }
    }
    if let Some(items) = schema.get("items").filter(|it| it.is_object()) {
        match outer.get("items").filter(|it| it.is_object()) {
            Some(of) => inside(of, items, of["x-kubernetes-int-or-string"].as_bool() == Some(true), &path.child("items"), errors),
            None if any => {}
            None => errors.required(&path.child("items"), "must be specified outside of the junctor to be structural"),
        }
    }
    junctors(outer, schema, either, path, errors);
}

/// A default is a value that the schema itself would take.
fn default(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(value) = schema.get("default").filter(|it| !it.is_null()) else { return };
    let read = Schema::read(schema);
    let at = path.child("default");
    let mut filled = value.clone();
    if !super::default::apply(&read, &mut filled) {
        return errors.invalid(&at, &"object", "must not be larger than an object may be");
    }
    let unknown = super::prune::prune(&Schema { embedded: false, ..Schema::read(schema) }, &mut filled.clone());
    if !unknown.is_empty() {
        return errors.invalid(&at, value, "must not have unknown fields");
    }
    let mut found = Errors::default();
    super::validate::validate(&read, &filled, &mut found);
    if let Some(first) = found.into_vec().first() {
        errors.invalid(&at, value, &first.message);
    }
}

#[cfg(test)]
#[path = "structural_tests.rs"]
mod tests;
