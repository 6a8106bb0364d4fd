//! A structural schema, read once: what the walks over objects ask. PURE.
//!
//! Kubernetes' `JSONSchemaProps` with the `x-kubernetes-` extensions, as "Extend the Kubernetes API with
//! CustomResourceDefinitions" describes them. Reading is lenient: `structural` says what is wrong.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::rules::Rule;

/// The schema of one value.
#[derive(Debug, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`; empty: any.
    pub kind: String,
    pub int_or_string: bool,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub nullable: bool,
    pub properties: BTreeMap<String, Schema>,
    /// Of the values of a map.
    pub additional: Option<Box<Schema>>,
    pub items: Option<Box<Schema>>,
    pub default: Option<Value>,
    pub list: ListType,
    pub atomic_map: bool,
    pub bounds: Bounds,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
    pub rules: Vec<Rule>,
}

/// How a list merges.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a value must be besides its type.
#[derive(Debug, Default)]
pub struct Bounds {
    pub required: Vec<String>,
    pub enumeration: Option<Vec<Value>>,
    pub pattern: Option<Pattern>,
    pub format: String,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
}

impl Schema {
    pub fn read(json: &Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap_or_default();
        let flag = |field: &str| json[field].as_bool().unwrap_or(false);
        let one = |field: &str| json.get(field).filter(|it| it.is_object()).map(|it| Box::new(Self::read(it)));
        let many = |field: &str| json[field].as_array().into_iter().flatten().map(Self::read).collect();
        let strings = |field: &str| -> Vec<String> {
            json[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let preserve_unknown = flag("x-kubernetes-preserve-unknown-fields");
        Self {
            kind: text("type").to_owned(),
            int_or_string: flag("x-kubernetes-int-or-string"),
            embedded: flag("x-kubernetes-embedded-resource"),
            nullable: flag("nullable"),
            properties: fields(json, "properties").map(|(name, it)| (name.clone(), Self::read(it))).collect(),
            additional: match json.get("additionalProperties") {
                Some(Value::Bool(true)) => Some(Box::new(Self { preserve_unknown: true, nullable: true, ..Self::default() })),
                _ => one("additionalProperties"),
            },
            items: one("items"),
            default: json.get("default").filter(|it| !it.is_null()).cloned(),
            list: match text("x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map(strings("x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            bounds: bounds(json),
            all_of: many("allOf"),
            any_of: many("anyOf"),
            one_of: many("oneOf"),
            not: one("not"),
            rules: json["x-kubernetes-validations"].as_array().into_iter().flatten().map(Rule::read).collect(),
            preserve_unknown,
        }
    }

    /// The schema of a field or map entry; none where nothing is said of it.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// The schema at a path of field names; items of lists add nothing to it.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |schema, name| schema.inside_lists().field(name))
    }

    /// Of what is in a list, however deep.
    pub fn inside_lists(&self) -> &Self {
        let mut schema = self;
        while let Some(items) = &schema.items {
            schema = items;
        }
        schema
    }

    fn below(&self) -> impl Iterator<Item = &Self> {
        self.properties.values().chain(self.additional.as_deref()).chain(self.items.as_deref())
    }

    /// Whether anything in it has a rule.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty() || self.below().any(Self::has_rules)
    }
}

/// What tells an item of a list of `x-kubernetes-list-type: map` from the others.
pub(super) fn key_of(keys: &[String], item: &Value) -> String {
    let mut key = String::new();
    for value in keys.iter().map(|key| item.get(key)) {
        key.extend(value.map(Value::to_string));
        key.push(',');
    }
    key
}

/// The members of an object field.
pub(super) fn fields<'a>(json: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    json.get(field).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn bounds(json: &Value) -> Bounds {
    let number = |field: &str| json[field].as_f64();
    let count = |field: &str| json[field].as_u64();
    let flag = |field: &str| json[field].as_bool().unwrap_or(false);
    Bounds {
        required: json["required"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        enumeration: json["enum"].as_array().cloned(),
        pattern: json["pattern"].as_str().filter(|text| !text.is_empty()).map(Pattern::new),
        format: json["format"].as_str().unwrap_or_default().to_owned(),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf").filter(|it| *it > 0.0),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: flag("uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
    }
}
