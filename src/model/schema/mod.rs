//! Which fields a kind has and of what type: Kubernetes' own schemas, walked. PURE.
//!
//! The schemas come from the types when the program is built (`build.rs`; that of our own kind is
//! `source.json`), are flattened at the first need, and answer three questions: which fields of a value
//! are unknown (and which one was meant), which values have the wrong type, and which fields there are
//! at all. `document` has them as they are, for OpenAPI.

pub mod document;
mod finding;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::Kind;
pub use finding::{Fault, Finding, Trail, entry, nearest};

/// A field that its kind does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownField {
    /// `spec.template.spec.containers[0].imagee`.
    pub path: String,
    /// The field of the same object that was probably meant.
    pub suggestion: Option<String>,
}

/// The type of a field.
#[derive(Clone, Debug)]
enum Type {
    Object(BTreeMap<String, usize>),
    /// An object of this type, or something else altogether.
    Either(usize),
    Map(usize),
    List(usize),
    Text(Format),
    Integer {
        bits32: bool,
    },
    Number,
    Boolean,
    IntOrString,
    Quantity,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Plain,
    Base64,
    Time,
}

/// A kind's types by number, and which one it is itself.
struct Schema {
    types: Vec<Type>,
    root: usize,
}

/// Made when it is first asked for: a quiet process looks at few kinds.
fn schema(kind: Kind) -> &'static Schema {
    static ALL: OnceLock<Vec<OnceLock<Schema>>> = OnceLock::new();
    // The last is of custom kinds, which have theirs elsewhere.
    let rows = || Kind::all().iter().chain(Kind::editions());
    let all = ALL.get_or_init(|| (0..=rows().count()).map(|_| OnceLock::new()).collect());
    let place = match kind.conversion() {
        None => kind.place(),
        Some(_) => rows().position(|row| row.kind == kind && row.kind.is_version(kind)),
    };
    all[place.unwrap_or(all.len() - 1)].get_or_init(|| flatten(kind))
}

fn flatten(kind: Kind) -> Schema {
    let document = document::shapes();
    // The build writes every kind's definition; a test asks for each.
    let definition = kind.place().and_then(|_| document.name_of(kind)).unwrap_or_default().to_owned();
    let definitions = document.definitions;
    let mut builder = Builder { definitions, known: BTreeMap::new(), types: Vec::new() };
    let root = builder.add_definition(&definition);
    Schema { types: builder.types, root }
}

struct Builder {
    definitions: Map<String, Value>,
    known: BTreeMap<String, usize>,
    types: Vec<Type>,
}

impl Builder {
    fn add(&mut self, json: &Value) -> usize {
        if let Some(name) = json.get("$ref").and_then(Value::as_str) {
            return self.add_definition(name.trim_start_matches(document::REFERENCE));
        }
        if let Some(reference) = json.pointer("/oneOf/0").filter(|first| first.get("$ref").is_some()) {
            let at = self.types.len();
            self.types.push(Type::Any);
            self.types[at] = Type::Either(self.add(reference));
            return at;
        }
        // A reference with more to say of it: `allOf: [T]`.
        if let Some([only]) = json.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return self.add(only);
        }
        let at = self.types.len();
        self.types.push(Type::Any);
        self.types[at] = self.read(json);
        at
    }

    fn add_definition(&mut self, name: &str) -> usize {
        if let Some(&at) = self.known.get(name) {
            return at;
        }
        let at = self.types.len();
        self.types.push(Type::Any);
        self.known.insert(name.to_owned(), at);
        let json = self.definitions.remove(name).unwrap_or(Value::Null);
        let read = match name {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => Type::Quantity,
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Type::IntOrString,
            _ => self.read(&json),
        };
        self.types[at] = read;
        at
    }

    fn read(&mut self, json: &Value) -> Type {
        let format = json.get("format").and_then(Value::as_str);
        match json.get("type").and_then(Value::as_str).unwrap_or_default() {
            "string" if format == Some("byte") => Type::Text(Format::Base64),
            "string" if format == Some("date-time") => Type::Text(Format::Time),
            "string" => Type::Text(Format::Plain),
            "integer" => Type::Integer { bits32: format == Some("int32") },
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            "array" => json.get("items").map_or(Type::Any, |items| Type::List(self.add(items))),
            "object" => match (json.get("properties").and_then(Value::as_object), json.get("additionalProperties")) {
                (Some(fields), _) => Type::Object(fields.iter().map(|(name, field)| (name.clone(), self.add(field))).collect()),
                (None, Some(values)) if values.is_object() => Type::Map(self.add(values)),
                _ => Type::Any,
            },
            _ => Type::Any,
        }
    }
}

/// Every field of the value that its kind does not have.
pub fn unknown_fields(kind: Kind, value: &Value) -> Vec<UnknownField> {
    check(kind, value)
        .into_iter()
        .filter_map(|finding| match finding.fault {
            Fault::Unknown { suggestion, .. } => Some(UnknownField { path: finding.path, suggestion }),
            Fault::WrongType { .. } => None,
        })
        .collect()
}

/// Everything wrong with the shape of a value: unknown fields and wrong types, in the order of the
/// value's fields. A null stands for an absent field.
pub fn check(kind: Kind, value: &Value) -> Vec<Finding> {
    let schema = schema(kind);
    let mut walk = Walk { types: &schema.types, trail: Trail::default() };
    walk.check(schema.root, value);
    walk.trail.found()
}

/// Puts in place of each null in a map what Kubernetes' decoder makes of it: an empty text, or
/// zero. Elsewhere a null stands for an absent field.
pub fn fill_nulls(kind: Kind, value: &mut Value) {
    let schema = schema(kind);
    fill(&schema.types, schema.root, value);
}

fn fill(types: &[Type], at: usize, value: &mut Value) {
    match (&types[at], value) {
        (Type::Object(fields), Value::Object(values)) => {
            for (name, value) in values {
                if let Some(&of) = fields.get(name) {
                    fill(types, of, value);
                }
            }
        }
        (Type::Either(of), value) => fill(types, *of, value),
        (Type::Map(of), Value::Object(values)) => {
            for value in values.values_mut() {
                match &types[*of] {
                    Type::Text(_) if value.is_null() => *value = Value::from(""),
                    Type::Quantity if value.is_null() => *value = Value::from("0"),
                    _ => fill(types, *of, value),
                }
            }
        }
        (Type::List(of), Value::Array(items)) => items.iter_mut().for_each(|item| fill(types, *of, item)),
        _ => {}
    }
}

struct Walk<'a> {
    types: &'a [Type],
    trail: Trail,
}

impl Walk<'_> {
    fn check(&mut self, at: usize, value: &Value) {
        if self.trail.is_full() {
            return;
        }
        let fault = match (&self.types[at], value) {
            (Type::Any, _) => None,
            (Type::Either(of), value) => {
                return if value.is_object() {
                    self.check(*of, value)
                };
            }
            (Type::Object(fields), Value::Object(values)) => return self.check_fields(fields, values),
            (Type::Map(of), Value::Object(values)) => {
                let of = *of;
                return values.iter().for_each(|(key, value)| {
                    self.below(&entry(key), key, |walk| walk.check(of, value));
                });
            }
            (Type::List(of), Value::Array(items)) => {
                let of = *of;
                return items
                    .iter()
                    .enumerate()
                    .for_each(|(index, item)| self.below(&format!("[{index}]"), &index.to_string(), |walk| walk.check(of, item)));
            }
            (wanted, value) => wrong(wanted, value),
        };
        if let Some(fault) = fault {
            self.trail.find(fault);
        }
    }

    fn check_fields(&mut self, fields: &BTreeMap<String, usize>, values: &serde_json::Map<String, Value>) {
        for (name, value) in values {
            match fields.get(name) {
                Some(_) if value.is_null() => {}
                Some(&of) => self.below(name, name, |walk| walk.check(of, value)),
                None => self.trail.unknown(name, fields.keys().map(String::as_str)),
            }
        }
    }

    fn below(&mut self, name: &str, key: &str, look: impl FnOnce(&mut Self)) {
        let above = self.trail.enter(name, key);
        look(self);
        self.trail.leave(above);
    }
}

fn wrong(wanted: &Type, value: &Value) -> Option<Fault> {
    let fault = |wanted, hint| Some(Fault::WrongType { wanted, found: describe(value), hint });
    let number = |text: &str| text.parse::<f64>().is_ok();
    match (wanted, value) {
        (Type::Text(Format::Plain), Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number, Value::Number(_))
        | (Type::Quantity | Type::IntOrString, Value::String(_)) => None,
        (Type::Quantity, Value::Number(_)) => None,
        (Type::IntOrString, Value::Number(it)) if it.as_i64().is_some_and(|it| i32::try_from(it).is_ok()) => None,
        (Type::Text(Format::Base64), Value::String(text)) => {
            if is_base64(text) {
                None
            } else {
                Some(Fault::WrongType {
                    wanted: "base64",
                    found: "other text",
                    hint: Some("encode it (`base64 -w0`), or use `stringData` in a Secret"),
                })
            }
        }
        (Type::Text(Format::Time), Value::String(text)) => {
            if text.parse::<super::Timestamp>().is_ok() {
                None
            } else {
                Some(Fault::WrongType { wanted: "an RFC 3339 time", found: "other text", hint: None })
            }
        }
        (Type::Integer { bits32 }, Value::Number(it)) => match it.as_i64() {
            Some(it) if !bits32 || i32::try_from(it).is_ok() => None,
            Some(_) => Some(Fault::WrongType { wanted: "a 32-bit integer", found: "a larger number", hint: None }),
            None => fault("an integer", None),
        },
        (Type::Text(_), Value::Bool(_)) => {
            fault("a string", Some("put it in quotes: yes, no, on, off, y, n, true and false are booleans in YAML"))
        }
        (Type::Text(_), Value::Number(_)) => fault("a string", Some("put it in quotes")),
        (Type::Text(_), _) => fault("a string", None),
        (Type::Boolean, Value::String(text)) if text == "true" || text == "false" => fault("a boolean", Some("remove the quotes")),
        (Type::Boolean, _) => fault("a boolean", None),
        (Type::Integer { .. }, Value::String(text)) if number(text) => fault("an integer", Some("remove the quotes")),
        (Type::Integer { .. }, _) => fault("an integer", None),
        (Type::Number, Value::String(text)) if number(text) => fault("a number", Some("remove the quotes")),
        (Type::Number, _) => fault("a number", None),
        (Type::IntOrString, _) => fault("an integer or a string", None),
        (Type::Quantity, _) => fault("a quantity such as 500m or 1Gi", None),
        (Type::List(_), _) => fault("a list", Some("begin each item with `- `")),
        (Type::Map(_) | Type::Object(_), _) => fault("a mapping", None),
        (Type::Any | Type::Either(_), _) => None,
    }
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    let text: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(it) if it.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// Every field path of a kind: `spec.template.spec.containers[].env[].name`; the values of a map
/// are `data.*`. Containers (objects, lists) are paths too, before what is in them.
pub fn field_paths(kind: Kind) -> Vec<String> {
    let schema = schema(kind);
    let mut found = Vec::new();
    collect(&schema.types, schema.root, "", &mut Vec::new(), &mut found);
    found
}

fn collect(types: &[Type], at: usize, path: &str, above: &mut Vec<usize>, found: &mut Vec<String>) {
    // A type inside itself (none of our kinds has one today) is walked once.
    if above.contains(&at) {
        return;
    }
    above.push(at);
    match &types[at] {
        Type::Object(fields) => {
            for (name, &of) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.push(path.clone());
                collect(types, of, &path, above, found);
            }
        }
        Type::Either(of) => collect(types, *of, path, above, found),
        Type::List(of) => collect(types, *of, &format!("{path}[]"), above, found),
        Type::Map(of) => {
            let path = format!("{path}.*");
            found.push(path.clone());
            collect(types, *of, &path, above, found);
        }
        _ => {}
    }
    above.pop();
}

impl fmt::Display for UnknownField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown field `{}`", self.path)?;
        match &self.suggestion {
            Some(name) => write!(f, ", did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(kind: Kind, value: Value) -> Vec<String> {
        check(kind, &value)
            .iter()
            .map(|finding| match finding.hint() {
                Some(hint) => format!("{}, {hint}", finding.message(kind)),
                None => finding.message(kind),
            })
            .collect()
    }

    #[test]
    fn unknown_fields_name_the_place_and_the_field_that_was_meant() {
        assert_eq!(
            said(Kind::Deployment, json!({"spec": {"replica": 3, "template": {"spec": {"containers": [{"Image": "x", "zzzz": 1}]}}}})),
            [
                "unknown field `replica` in Deployment.spec, did you mean `replicas`?",
                "unknown field `Image` in Deployment.spec.template.spec.containers[0], did you mean `image`?",
                "unknown field `zzzz` in Deployment.spec.template.spec.containers[0]",
            ]
        );
        assert_eq!(
            said(Kind::Source, json!({"spec": {"git": {"uri": "x"}}})),
            ["unknown field `uri` in Source.spec.git, did you mean `url`?"]
        );
    }

    #[test]
    fn wrong_types_say_what_is_wanted() {
        assert_eq!(
            said(Kind::ConfigMap, json!({"data": {"a": 1, "b.c": true}})),
            [
                "ConfigMap.data.a must be a string, not a number, put it in quotes",
                "ConfigMap.data[b.c] must be a string, not a boolean, put it in quotes: yes, no, on, off, y, n, true and false are booleans in YAML",
            ]
        );
        assert_eq!(
            said(
                Kind::Service,
                json!({"spec": {"ports": [{"port": "80", "targetPort": "web"}, {"port": 1.5, "targetPort": 8080}], "selector": []}})
            ),
            [
                "Service.spec.ports[0].port must be an integer, not a string, remove the quotes",
                "Service.spec.ports[1].port must be an integer, not a fraction",
                "Service.spec.selector must be a mapping, not a list",
            ]
        );
        assert_eq!(said(Kind::Secret, json!({"data": {"a": "aGk=", "b": "no base64!"}})).len(), 1);
        assert_eq!(
            said(Kind::Pod, json!({"metadata": {"creationTimestamp": null}, "spec": {"activeDeadlineSeconds": 5_000_000_000_i64}})),
            [""; 0]
        );
    }

    #[test]
    fn nulls_are_filled_in_where_kubernetes_fills_them_in() {
        let mut value = json!({"metadata": {"annotations": {"a/b": null}, "labels": null}, "spec": {"containers": [{"name": "a",
            "args": [null], "resources": {"limits": {"cpu": null}}}]}});
        fill_nulls(Kind::Pod, &mut value);
        assert_eq!(
            value,
            json!({"metadata": {"annotations": {"a/b": ""}, "labels": null}, "spec": {"containers": [{"name": "a",
                "args": [null], "resources": {"limits": {"cpu": "0"}}}]}})
        );
        assert_eq!(said(Kind::Pod, value), ["Pod.spec.containers[0].args[0] must be a string, not null"]);
        let pointers = |value| check(Kind::Pod, &value).into_iter().map(|finding| finding.pointer).collect::<Vec<_>>();
        assert_eq!(
            pointers(json!({"metadata": {"labels": {"a/b~c": 1}}, "spec": {"containers": [{"args": [1]}]}})),
            ["/metadata/labels/a~1b~0c", "/spec/containers/0/args/0"]
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let value = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 0.5}}}]}});
        assert_eq!(check(Kind::Pod, &value), []);
        assert!(super::super::Object::from_value(Kind::Pod, value).is_ok());
    }

    #[test]
    fn every_kind_has_its_fields() {
        for row in Kind::all().iter().chain(Kind::editions()) {
            let paths = field_paths(row.kind);
            assert!(paths.contains(&"metadata.labels.*".to_owned()), "{}: {paths:?}", row.name);
            assert!(paths.len() > 20, "{}: {paths:?}", row.name);
        }
        let paths = field_paths(Kind::Deployment);
        assert!(paths.contains(&"spec.template.spec.containers[].env[].valueFrom.secretKeyRef.name".to_owned()));
        assert!(paths.contains(&"spec.template.spec.containers[].resources.limits.*".to_owned()));
    }
}
