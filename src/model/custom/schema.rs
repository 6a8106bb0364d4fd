//! A structural schema, read once: what the walks over objects ask. PURE.
//!
//! Kubernetes' `JSONSchemaProps` with the `x-kubernetes-` extensions, as "Extend the Kubernetes API with
//! CustomResourceDefinitions" describes them. Reading is lenient: `structural` says what is wrong.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::rules::Rule;

/// Bytes of one compiled pattern.
const PATTERN_BYTES: usize = 512 << 10;

/// Bytes of a pattern as it is written.
const PATTERN_LENGTH: usize = 4096;

/// A pattern in which `\d`, `\w` and `\s` mean what they mean in Go: characters of ASCII. (Those of all scripts
/// are no part of what Kubernetes accepts, and take much memory.)
fn ascii(text: &str) -> String {
    let (mut out, mut in_class, mut rest) = (String::with_capacity(text.len()), false, text.chars());
    while let Some(c) = rest.next() {
        if c != '\\' {
            // Brackets of a class in a class are no characters only where they name one: `[:alpha:]`.
            let is_plain = in_class && c == '[' && !rest.as_str().starts_with(':');
            in_class = (in_class || c == '[') && c != ']';
            if is_plain {
                out.push('\\');
            }
            out.push(c);
            continue;
        }
        let Some(class) = rest.next() else {
            out.push(c);
            break;
        };
        let members = match class {
            'd' | 'D' => "0-9",
            'w' | 'W' => "0-9A-Za-z_",
            's' | 'S' => r"\t\n\x0c\r ",
            _ => "",
        };
        match (members, class.is_ascii_uppercase(), in_class) {
            ("", _, false) if class == 'b' || class == 'B' => out.extend(["(?-u:\\", &*class.encode_utf8(&mut [0; 4]), ")"]),
            ("", ..) => out.extend([c, class]),
            (members, false, true) => out.push_str(members),
            (members, true, _) => out.extend(["[^", members, "]"]),
            (members, false, false) => out.extend(["[", members, "]"]),
        }
    }
    out
}

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

/// A regular expression, compiled at its first use.
#[derive(Debug)]
pub struct Pattern {
    pub text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// `None` for what is no expression, or one of too much memory.
    pub fn regex(&self) -> Option<&Regex> {
        if self.text.len() > PATTERN_LENGTH {
            return None;
        }
        let compile = || RegexBuilder::new(&ascii(&self.text)).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES / 8).build().ok();
        self.compiled.get_or_init(compile).as_ref()
    }

    pub fn is_valid(&self) -> bool {
        self.regex().is_some()
    }

    pub fn matches(&self, text: &str) -> bool {
        self.regex().is_none_or(|regex| regex.is_match(text))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_patterns_are_gos() {
        for (pattern, text, holds) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "\u{661}", false),
            (r"^[\w.-]+$", "a-b.c_9", true),
            (r"^\w+$", "\u{e4}", false),
            (r"^\W$", "\u{e4}", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[]\d]+$", "]1", true),
            (r"^\\d$", r"\d", true),
            (r"^a\b.*$", "a b", true),
            (r"^[\D]$", "a", true),
            (r"^[[a]+$", "[a", true),
            (r"^[[:alpha:]\d]+$", "a1", true),
        ] {
            let pattern = Pattern::new(pattern);
            assert!(pattern.is_valid(), "{}", pattern.text);
            assert_eq!(pattern.matches(text), holds, "{} {text}", pattern.text);
        }
        assert!(Pattern::new(r"^\w{1,253}$").is_valid());
        assert!(!Pattern::new(&"a".repeat(5000)).is_valid());
        assert!(!Pattern::new("(").is_valid() && !Pattern::new("\\").is_valid());
    }
}
