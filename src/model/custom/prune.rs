//! Fields that a schema does not have, found and taken out. PURE.

use serde_json::{Map, Value};

use super::Schema;
use crate::model::schema::{Finding, Trail, entry};

/// What an object has beside what its schema says.
const OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes every field out of an object that its schema does not have, and tells of the first. Its
/// metadata is not looked at.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<Finding> {
    let mut walk = Walk::default();
    walk.value(schema, object, true);
    walk.trail.found()
}

#[derive(Default)]
struct Walk {
    trail: Trail,
}

impl Walk {
    fn value(&mut self, schema: &Schema, value: &mut Value, is_object: bool) {
        match value {
            Value::Object(fields) => self.fields(schema, fields, is_object || schema.embedded),
            Value::Array(items) => {
                let Some(of) = &schema.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.below(&format!("[{index}]"), &index.to_string(), |walk| walk.value(of, item, false));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, schema: &Schema, fields: &mut Map<String, Value>, is_object: bool) {
        let mut unknown = Vec::new();
        for (name, value) in fields.iter_mut() {
            if is_object && OBJECT.contains(&name.as_str()) {
                continue;
            }
            match schema.field(name) {
                Some(of) => {
                    let shown = if schema.properties.contains_key(name) { name.into() } else { entry(name) };
                    self.below(&shown, name, |walk| walk.value(of, value, false));
                }
                None if schema.preserve_unknown => {}
                None => unknown.push(name.clone()),
            }
        }
        for name in unknown {
            fields.remove(&name);
            self.trail.unknown(&name, schema.properties.keys().map(String::as_str));
        }
    }

    fn below(&mut self, name: &str, key: &str, look: impl FnOnce(&mut Self)) {
        let above = self.trail.enter(name, key);
        look(self);
        self.trail.leave(above);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pruned(schema: &Value, mut value: Value) -> (Value, Vec<String>) {
        let found = prune(&Schema::read(schema), &mut value);
        (value, found.into_iter().map(|finding| finding.pointer).collect())
    }

    #[test]
    fn what_no_schema_has_is_taken_out() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"cronSpec": {"type": "string"}, "replicas": {"type": "integer"}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }});
        let value = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "extra": 1,
            "spec": {"cronSpec": "* * * * */5", "someRandomField": 42}, "list": [{"a": "1", "b": 2}], "map": {"x/y": {"a": "1", "c": 3}}});
        let (left, found) = pruned(&schema, value);
        assert_eq!(
            left,
            json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "spec": {"cronSpec": "* * * * */5"},
                "list": [{"a": "1"}], "map": {"x/y": {"a": "1"}}})
        );
        assert_eq!(found, ["/list/0/b", "/map/x~1y/c", "/spec/someRandomField", "/extra"]);
    }

    #[test]
    fn what_is_to_be_preserved_stays() {
        // The example of the documentation: what is named below it is pruned again.
        let schema = json!({"type": "object", "properties": {"json": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"spec": {"type": "object", "properties": {"foo": {"type": "string"}, "bar": {"type": "string"}}}}}}});
        let value = json!({"json": {"spec": {"foo": "abc", "bar": "def", "something": "x"}, "status": {"something": "x"}}});
        let (left, _) = pruned(&schema, value);
        assert_eq!(left, json!({"json": {"spec": {"foo": "abc", "bar": "def"}, "status": {"something": "x"}}}));
    }

    #[test]
    fn an_embedded_object_has_its_identity() {
        let schema = json!({"type": "object", "properties": {"template": {"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
        let value = json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"a": 1}, "other": 1}});
        let (left, found) = pruned(&schema, value);
        assert_eq!(left, json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"a": 1}}}));
        assert_eq!(found, ["/template/other"]);
    }

    #[test]
    fn a_slip_is_told_with_what_was_meant() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
        let found = prune(&Schema::read(&schema), &mut json!({"spec": {"replica": 1}}));
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(finding.path, "spec.replica");
        assert_eq!(finding.hint().as_deref(), Some("did you mean `replicas`?"));
    }

    #[test]
    fn of_many_unknown_fields_all_go_and_the_first_are_told() {
        let schema = json!({"type": "object", "properties": {"map": {"type": "object",
            "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}}}});
        let unknown: Map<String, Value> = (0..50_000).map(|number| (format!("x{number}"), json!(1))).collect();
        let key = "k".repeat(1_000_000);
        let mut value = json!({"map": {(key.clone()): unknown}});
        let found = prune(&Schema::read(&schema), &mut value);
        assert_eq!(value, json!({"map": {(key): {}}}));
        assert_eq!(found.len(), 100);
        assert!(found.iter().all(|it| it.path.len() < 1000 && it.pointer.len() < 1000));
    }
}
