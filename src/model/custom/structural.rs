//! What a schema must be for its kind to be served: Kubernetes' structural rules. PURE.
//!
//! From "Extend the Kubernetes API with CustomResourceDefinitions", section "Specifying a structural
//! schema": a type at each level, everything of a junctor (`allOf`, `anyOf`, `oneOf`, `not`) specified
//! outside of it too, and no keyword that would make pruning or defaulting ambiguous.

use serde_json::Value;

use super::budget::{Budget, Spent, weight};
use super::pattern::Pattern;
use super::rules::Rule;
use super::schema::{ListType, Schema, fields};
use crate::model::rule::{Errors, Path};

/// What checking all schemas of one definition may take: steps, and bytes of what is kept of them. Patterns and
/// rules take more than their text once they are read.
pub const BUDGET: Budget = Budget::new(20_000_000, 16 << 20);
/// Bytes that a rule takes for each of its text.
const RULE: usize = 64;
/// Bytes that a pattern takes for each of its text while it is read, at worst for what is usual.
const PATTERN: usize = 64;
/// Keys of a list.
const KEYS: usize = 64;
const VALIDATIONS: &str = "x-kubernetes-validations";

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
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    // Nobody would ask them.
    VALIDATIONS,
];

/// Where a schema stands in the one above it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
    Embedded,
}

/// Every rule that a kind's schema breaks. `budget`: that of its definition.
pub fn check(schema: &Value, budget: &mut Budget, path: &Path<'_>, errors: &mut Errors) {
    let mut whole = |budget: &mut Budget| {
        budget.make(RULE.saturating_mul(rules_written(schema)))?;
        let read = Schema::read(schema);
        node(schema, &read, Stand { place: Place::Root, has_old: true }, path, budget, errors)
    };
    if let Err(Spent) = whole(budget) {
        errors.forbidden(path, "its patterns, rules and defaults are too many or too large");
    }
}

/// Bytes of the rules in a schema: they are read with it.
fn rules_written(schema: &Value) -> usize {
    match schema {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| if name == VALIDATIONS { weight(value) } else { rules_written(value) }).sum()
        }
        Value::Array(items) => items.iter().map(rules_written).sum(),
        _ => 0,
    }
}

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Stand {
    place: Place,
    /// Whether it is known which value it was before a change: not so below a list without keys.
    has_old: bool,
}

impl Stand {
    const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

/// `read`: the same schema, read.
fn node(schema: &Value, read: &Schema, stand: Stand, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    budget.steps(1)?;
    if errors.is_full() {
        return Ok(());
    }
    if !schema.is_object() {
        errors.invalid(path, schema, "must be a schema");
        return Ok(());
    }
    let kind = schema["type"].as_str().unwrap_or_default();
    let flag = |name: &str| schema[name].as_bool() == Some(true);
    let (any, either) = (flag("x-kubernetes-preserve-unknown-fields"), flag("x-kubernetes-int-or-string"));
    typed(kind, stand.place, any || either, path, errors);
    if either && !kind.is_empty() {
        errors.forbidden(&path.child("type"), "must be empty if x-kubernetes-int-or-string is true");
    }
    if schema["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(false) {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), &false, "must be true or undefined");
    }
    if flag("x-kubernetes-embedded-resource") && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object if x-kubernetes-embedded-resource is true");
    }
    for (index, (rule, written)) in read.rules.iter().zip(schema[VALIDATIONS].as_array().into_iter().flatten()).enumerate() {
        self::rule(rule, written, stand.has_old, &path.child(VALIDATIONS).index(index), budget, errors)?;
    }
    keywords(schema, path, budget, errors)?;
    lists(schema, kind, path, errors);
    members(schema, read, stand, path, budget, errors)?;
    junctors(schema, schema, either, path, budget, errors)?;
    default(schema, read, path, budget, errors)
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

/// A rule that can be asked.
fn rule(rule: &Rule, written: &Value, has_old: bool, at: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    match &rule.program {
        _ if rule.text.is_empty() => errors.required(&at.child("rule"), "rule is not specified"),
        Err(why) => errors.invalid(&at.child("rule"), &rule.text, &format!("compilation failed: {why}")),
        Ok(program) if program.uses_old && !has_old => errors.invalid(
            &at.child("rule"),
            &rule.text,
            "oldSelf cannot be used below a list that is no map by its x-kubernetes-list-type: nobody knows which item was which",
        ),
        Ok(_) => {}
    }
    if let Some(Err(why)) = &rule.message_program {
        errors.invalid(&at.child("messageExpression"), &written["messageExpression"], &format!("compilation failed: {why}"));
    }
    let programs = [("rule", Some(&rule.program)), ("messageExpression", rule.message_program.as_ref())];
    for (field, program) in programs.iter().filter_map(|(field, program)| Some((field, program.as_ref()?.as_ref().ok()?))) {
        for text in &program.patterns {
            if !is_pattern(text, budget)? {
                errors.invalid(&at.child(field), text, "compilation failed: it must be a valid regular expression, of bounded size");
            }
        }
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
    Ok(())
}

/// Whether a text is a pattern: what it takes is paid, what finding out takes too.
fn is_pattern(text: &str, budget: &mut Budget) -> Result<bool, Spent> {
    budget.make(PATTERN.saturating_mul(text.len()))?;
    let pattern = Pattern::new(text);
    budget.make(pattern.weight())?;
    Ok(pattern.is_valid())
}

/// Keywords that stand nowhere.
fn keywords(schema: &Value, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    for name in UNSUPPORTED.iter().filter(|name| schema.get(**name).is_some_and(|it| !it.is_null())) {
        errors.forbidden(&path.child(name), &format!("{name} is not supported"));
    }
    if schema["uniqueItems"].as_bool() == Some(true) {
        errors.forbidden(&path.child("uniqueItems"), "uniqueItems cannot be set to true since the runtime complexity becomes quadratic");
    }
    if let Some(text) = schema["pattern"].as_str()
        && !is_pattern(text, budget)?
    {
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
    Ok(())
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
        Some("map") if named.len() > KEYS => errors.too_many(&keys, named.len(), KEYS),
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
fn members(schema: &Value, read: &Schema, stand: Stand, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    let embedded = schema["x-kubernetes-embedded-resource"].as_bool() == Some(true);
    let properties = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        let (at, Some(of)) = (properties.key(name), read.properties.get(name)) else { continue };
        if name == "metadata" && (stand.place == Place::Root || embedded) {
            metadata(field, of, stand, &at, budget, errors)?;
            continue;
        }
        node(field, of, stand.at(if embedded { Place::Embedded } else { Place::Field }), &at, budget, errors)?;
    }
    if let (Some(of), Some(read)) = (schema.get("additionalProperties").filter(|it| it.is_object()), &read.additional) {
        node(of, read, stand.at(Place::Field), &path.child("additionalProperties"), budget, errors)?;
    }
    if let (Some(of), Some(items)) = (schema.get("items").filter(|it| it.is_object()), &read.items) {
        let has_old = stand.has_old && matches!(read.list, ListType::Map(_));
        node(of, items, Stand { place: Place::Item, has_old }, &path.child("items"), budget, errors)?;
    } else if schema["type"] == "array" && !schema["items"].is_array() {
        errors.required(&path.child("items"), "must be specified");
    }
    Ok(())
}

/// Of its metadata a schema may bound the name only: the rest is the system's.
fn metadata(schema: &Value, read: &Schema, stand: Stand, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    if schema["type"].as_str().is_some_and(|kind| kind != "object") {
        errors.invalid(&path.child("type"), &schema["type"], "must be object");
    }
    let other = fields(schema, "properties").any(|(name, _)| name != "name" && name != "generateName");
    if other || schema.get("additionalProperties").is_some_and(|it| !it.is_null()) {
        errors.forbidden(path, "must not specify anything other than name and generateName, but metadata is implicitly specified");
    }
    for (name, field) in fields(schema, "properties") {
        let Some(of) = read.properties.get(name) else { continue };
        node(field, of, stand.at(Place::Field), &path.child("properties").key(name), budget, errors)?;
    }
    Ok(())
}

/// What stands in a junctor says more of fields that `outer` has.
fn junctors(outer: &Value, schema: &Value, either: bool, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    for junctor in JUNCTORS {
        let at = path.child(junctor);
        for (index, inner) in schema[junctor].as_array().into_iter().flatten().enumerate() {
            inside(outer, inner, either, &at.index(index), budget, errors)?;
        }
    }
    match schema.get("not").filter(|it| it.is_object()) {
        Some(inner) => inside(outer, inner, either, &path.child("not"), budget, errors),
        None => Ok(()),
    }
}

fn inside(outer: &Value, schema: &Value, either: bool, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    budget.steps(1)?;
    let is_either = |of: &Value| of["x-kubernetes-int-or-string"].as_bool() == Some(true);
    for name in OUTSIDE.iter().filter(|name| schema.get(**name).is_some_and(|it| !it.is_null() && *it != Value::Bool(false))) {
        // `anyOf: [{type: integer}, {type: string}]` is what int-or-string looks like to others.
        if !(either && *name == "type") {
            errors.forbidden(&path.child(name), "must be empty to be structural");
        }
    }
    if schema.get("additionalProperties").is_some_and(|it| !it.is_null()) {
        errors.forbidden(&path.child("additionalProperties"), "must be undefined to be structural");
    }
    keywords(schema, path, budget, errors)?;
    let any = outer["x-kubernetes-preserve-unknown-fields"].as_bool() == Some(true);
    let properties = path.child("properties");
    for (name, field) in fields(schema, "properties") {
        let at = properties.key(name);
        match outer["properties"].get(name).or_else(|| outer.get("additionalProperties").filter(|it| it.is_object())) {
            Some(of) => inside(of, field, is_either(of), &at, budget, errors)?,
            None if any || name == "metadata" || name == "apiVersion" || name == "kind" => {}
            None => errors.required(&at, "must be specified outside of the junctor to be structural"),
        }
    }
    if let Some(items) = schema.get("items").filter(|it| it.is_object()) {
        match outer.get("items").filter(|it| it.is_object()) {
            Some(of) => inside(of, items, is_either(of), &path.child("items"), budget, errors)?,
            None if any => {}
            None => errors.required(&path.child("items"), "must be specified outside of the junctor to be structural"),
        }
    }
    junctors(outer, schema, either, path, budget, errors)
}

/// A default is a value that the schema itself would take.
fn default(schema: &Value, read: &Schema, path: &Path<'_>, budget: &mut Budget, errors: &mut Errors) -> Result<(), Spent> {
    let Some(value) = schema.get("default").filter(|it| !it.is_null()) else { return Ok(()) };
    let at = path.child("default");
    budget.make(2 * weight(value))?;
    let mut filled = value.clone();
    super::default::within(budget, read, &mut filled)?;
    budget.make(weight(&filled))?;
    if !super::prune::prune(read, &mut filled.clone()).is_empty() {
        errors.invalid(&at, value, "must not have unknown fields");
        return Ok(());
    }
    let mut found = Errors::first();
    super::validate::within(budget, read, &filled, &mut found);
    match found.into_vec().first() {
        _ if budget.is_spent() => Err(Spent),
        Some(first) => {
            errors.invalid(&at, value, &first.message);
            Ok(())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "structural_tests.rs"]
mod tests;
