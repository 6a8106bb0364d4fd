//! Objects of custom kinds on the wire: the version that was asked for, and its columns. PURE.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::age::since;
use crate::model::custom::{Custom, CustomResourceDefinition, Definition, PrinterColumn, Version, default, prune};
use crate::model::{Kind, Object, Timestamp};
use crate::store::Snapshot;

/// How the objects of a custom kind are shown.
#[derive(Clone, Debug)]
pub struct View {
    definition: Arc<Definition>,
    kind: Kind,
}

impl View {
    /// None for a kind that is not custom.
    pub fn of(kind: Kind, state: &Snapshot) -> Option<Self> {
        let definition = state.definitions().get(kind)?;
        Some(Self { definition: Arc::clone(definition), kind })
    }

    fn version(&self) -> Option<&Version> {
        self.definition.version(self.kind.info().version)
    }

    /// Whether its kind is still defined as it is shown here.
    pub fn is_of(&self, definition: &CustomResourceDefinition) -> bool {
        Definition::of(definition).is_some_and(|it| it.hash == self.definition.hash) && definition.is_established()
    }

    /// The name of the object that defines its kind.
    pub fn definition(&self) -> &str {
        &self.definition.name
    }

    pub fn list_kind(&self) -> &str {
        &self.definition.list_kind
    }

    /// An object in the version that was asked for, with the fields and the defaults that version has now.
    pub fn json(&self, object: &Object) -> Bytes {
        match object.custom().and_then(|it| self.changed(it)) {
            Some(changed) => serde_json::to_vec(&changed).map_or_else(|_| object.json(), Bytes::from),
            None => object.json(),
        }
    }

    /// None where it is stored as it is shown.
    fn changed(&self, object: &Custom) -> Option<Custom> {
        let version = self.version()?;
        let api_version = self.kind.api_version();
        let mut changed = None;
        if object.api_version != api_version {
            changed = Some(Custom { api_version, ..object.clone() });
        }
        let mut content = Value::Object(object.content.clone());
        prune::prune(&version.schema, &mut content);
        default::apply(&version.schema, &mut content);
        match content {
            Value::Object(content) if content != object.content => changed.get_or_insert_with(|| object.clone()).content = content,
            _ => {}
        }
        changed
    }

    /// `columnDefinitions` of its tables.
    pub fn columns(&self) -> Value {
        let column = |name: &str, type_: &str, format: &str, description: &str, priority: i32| json!({"name": name, "type": type_, "format": format, "description": description, "priority": priority});
        let named = "Name must be unique within a namespace.";
        let mut all = vec![column("Name", "string", "name", named, 0)];
        let own = self.version().map_or(&[][..], |version| &version.columns);
        all.extend(own.iter().map(|(it, _)| column(&it.name, &it.type_, &it.format, &it.description, it.priority)));
        if own.is_empty() {
            all.push(column("Age", "date", "", "When the object was created.", 0));
        }
        all.into()
    }

    /// One cell a column; null where the object says nothing.
    pub fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![json!(object.key().name)];
        let own = self.version().map_or(&[][..], |version| &version.columns);
        let changed = object.custom().and_then(|it| self.changed(it)).and_then(|it| it.value().ok());
        let value = changed.unwrap_or_else(|| object.value());
        cells.extend(own.iter().map(|(column, path)| {
            let found = path.as_ref().map(|path| path.find(&value)).unwrap_or_default();
            found.first().map_or(Value::Null, |value| cell(column, value, now))
        }));
        if own.is_empty() {
            cells.push(json!(since(object.meta().creation_timestamp.as_ref().map(|time| time.0), now)));
        }
        cells
    }
}

fn cell(column: &PrinterColumn, value: &Value, now: Timestamp) -> Value {
    match (column.type_.as_str(), value) {
        ("integer", Value::Number(it)) => it.as_i64().map_or(Value::Null, Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) | ("string", Value::String(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(time) => json!(since(Some(time), now)),
            Err(_) => "<invalid>".into(),
        },
        ("string", Value::Null) => Value::Null,
        ("string", other) => other.to_string().into(),
        _ => Value::Null,
    }
}

/// The schema of a version as OpenAPI has it: with the fields that every object has.
pub fn open_api(version: &Version) -> Value {
    let mut schema = if version.written.is_object() { version.written.clone() } else { json!({"type": "object"}) };
    let properties = schema.as_object_mut().map(|schema| schema.entry("properties").or_insert_with(|| Value::Object(Map::new())));
    if let Some(Value::Object(properties)) = properties {
        let kind = "Which kind of object this is, in CamelCase.";
        properties.insert(
            "apiVersion".to_owned(),
            json!({"type": "string", "description": "The version of the schema this object is written in."}),
        );
        properties.insert("kind".to_owned(), json!({"type": "string", "description": kind}));
        let reference = format!("{}{METADATA}", crate::model::schema::document::REFERENCE);
        properties.insert("metadata".to_owned(), json!({"allOf": [{"$ref": reference}], "description": "Standard object metadata."}));
    }
    schema
}

/// A schema without what OpenAPI 2 has no words for. What may be null may be anything there, as in Kubernetes: clients
/// of it refuse null for whatever has a type.
pub fn as_v2(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    // The reference to metadata is ours, and all there is below it.
    if fields.get("allOf").and_then(|all| all.pointer("/0/$ref")).is_some() {
        return;
    }
    for unknown in ["oneOf", "anyOf", "allOf", "not"] {
        fields.remove(unknown);
    }
    if fields.remove("nullable") == Some(Value::Bool(true)) {
        for said in ["type", "properties", "items"] {
            fields.remove(said);
        }
    }
    if fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        // What is declared there would be all that there may be. Every object has its own three, whatever else it has.
        fields.remove("items");
        if let Some(Value::Object(properties)) = fields.get_mut("properties") {
            properties.retain(|name, _| ["apiVersion", "kind", "metadata"].contains(&name.as_str()));
        }
    }
    let nullable = |property: &Value| property.get("nullable") == Some(&Value::Bool(true));
    let optional: Vec<String> = match fields.get("properties") {
        Some(Value::Object(properties)) => properties.iter().filter(|(_, it)| nullable(it)).map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    };
    if let Some(Value::Array(required)) = fields.get_mut("required") {
        required.retain(|name| optional.iter().all(|optional| name != optional));
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(as_v2);
    }
    for below in ["items", "additionalProperties"] {
        fields.get_mut(below).into_iter().for_each(as_v2);
    }
}

/// The name of the definition of metadata.
pub const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The name of a version's definition: `com.example.stable.v1.CronTab`.
pub fn definition_name(kind: Kind) -> String {
    let info = kind.info();
    let mut parts: Vec<&str> = info.group.split('.').rev().collect();
    parts.extend([info.version, info.name]);
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_2_says_less() {
        let mut schema = json!({"type": "object", "anyOf": [{"required": ["a"]}], "required": ["a", "b"], "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
            "a": {"type": "array", "items": {"type": "string", "nullable": true, "not": {"pattern": "x"}}},
            "b": {"type": "object", "nullable": true, "description": "B.", "properties": {"c": {"type": "string"}}},
            "nullable": {"type": "object", "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "integer"}]}},
            "metadata": {"allOf": [{"$ref": "#/x"}]}}});
        as_v2(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["a"], "properties": {
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {}},
                "a": {"type": "array", "items": {}},
                "b": {"description": "B."},
                "nullable": {"type": "object", "additionalProperties": {}},
                "metadata": {"allOf": [{"$ref": "#/x"}]}}})
        );
    }

    #[test]
    fn cells_are_of_the_columns_type() {
        let now: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
        for (type_, value, shown) in [
            ("integer", json!(3), json!(3)),
            ("integer", json!("3"), Value::Null),
            ("string", json!("a"), json!("a")),
            ("string", json!({"a": 1}), json!(r#"{"a":1}"#)),
            ("boolean", json!(true), json!(true)),
            ("date", json!("2026-11-26T09:55:00Z"), json!("5m")),
            ("date", json!("soon"), json!("<invalid>")),
        ] {
            let column = PrinterColumn { type_: type_.to_owned(), ..PrinterColumn::default() };
            assert_eq!(cell(&column, &value, now), shown, "{type_} {value}");
        }
    }
}
