//! What a schema's defaults fill in. PURE.

use serde_json::Value;

use super::Schema;

/// Bytes that are filled into one object, about: its values, and a few for each name.
const FILLED: usize = 4 << 20;

/// Takes nulls out that may not be there and puts defaults where nothing is said; false where these come
/// to more than an object may have, and not all were put.
pub fn apply(schema: &Schema, value: &mut Value) -> bool {
    let mut left = FILLED;
    fill(schema, value, &mut left);
    left > 0
}

/// About the bytes of a value.
fn size(value: &Value) -> usize {
    8 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        _ => 0,
    }
}

fn fill(schema: &Schema, value: &mut Value, left: &mut usize) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || schema.field(name).is_none_or(|of| of.nullable));
            for (name, of) in &schema.properties {
                if let Some(default) = of.default.as_ref().filter(|_| *left > 0 && !fields.contains_key(name)) {
                    *left = left.saturating_sub(name.len() + size(default));
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(of) = schema.field(name) {
                    fill(of, value, left);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                items.iter_mut().for_each(|item| fill(of, item, left));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_said_is_the_default() {
        let schema = Schema::read(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "cronSpec": {"type": "string", "default": "5 0 * * *"},
            "replicas": {"type": "integer", "default": 1},
            "image": {"type": "string"},
            "nested": {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 3}}},
            "absent": {"type": "object", "properties": {"a": {"type": "integer", "default": 3}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"protocol": {"type": "string", "default": "TCP"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {"type": "boolean", "default": false}}}},
        }}}}));
        let mut value = json!({"spec": {"image": "my-awesome-cron-image", "list": [{}, {"protocol": "UDP"}], "map": {"k": {}}}});
        apply(&schema, &mut value);
        let wanted = json!({"spec": {"cronSpec": "5 0 * * *", "replicas": 1, "image": "my-awesome-cron-image", "nested": {"a": 3},
            "list": [{"protocol": "TCP"}, {"protocol": "UDP"}], "map": {"k": {"b": false}}}});
        assert_eq!(value, wanted);
        assert!(apply(&schema, &mut value));
        assert_eq!(value, wanted);
    }

    #[test]
    fn a_null_is_absent_unless_it_may_be_one() {
        // The table of the documentation: foo is not nullable and has a default, bar is nullable, baz has no default.
        let schema = Schema::read(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "foo": {"type": "string", "nullable": false, "default": "default"},
            "bar": {"type": "string", "nullable": true},
            "baz": {"type": "string"},
        }}}}));
        let mut value = json!({"spec": {"foo": null, "bar": null, "baz": null}});
        assert!(apply(&schema, &mut value));
        assert_eq!(value, json!({"spec": {"foo": "default", "bar": null}}));
    }

    #[test]
    fn defaults_do_not_make_much_of_little() {
        let schema = Schema::read(&json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "object",
            "properties": {"a": {"type": "string", "default": "x".repeat(10_000)}}}}}}));
        let mut value = json!({"list": vec![json!({}); 100_000]});
        assert!(!apply(&schema, &mut value));
        assert!(value.to_string().len() < 6 << 20);
    }
}
