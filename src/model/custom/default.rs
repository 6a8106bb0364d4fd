//! What a schema's defaults fill in. PURE.

use serde_json::Value;

use super::Schema;

/// Takes nulls out that may not be there and puts defaults where nothing is said.
pub fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || schema.field(name).is_none_or(|of| of.nullable));
            for (name, of) in &schema.properties {
                if let Some(default) = of.default.as_ref().filter(|_| !fields.contains_key(name)) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(of) = schema.field(name) {
                    apply(of, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                items.iter_mut().for_each(|item| apply(of, item));
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
        apply(&schema, &mut value);
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
        apply(&schema, &mut value);
        assert_eq!(value, json!({"spec": {"foo": "default", "bar": null}}));
    }
}
