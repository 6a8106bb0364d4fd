//! What a schema's defaults fill in. PURE.

use serde_json::Value;

use super::Schema;
use super::budget::{Budget, Spent, weight};

/// Steps that filling in one object may take, and bytes that it may put there: as many as an object may have in all.
const BUDGET: Budget = Budget::new(10_000_000, 3 << 20);

/// Takes nulls out that may not be there and puts defaults where nothing is said; false where these come to
/// more than an object may have, and not all were put.
pub fn apply(schema: &Schema, value: &mut Value) -> bool {
    within(&mut { BUDGET }, schema, value).is_ok()
}

/// As [`apply`], within a budget.
pub(super) fn within(budget: &mut Budget, schema: &Schema, value: &mut Value) -> Result<(), Spent> {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || schema.field(name).is_none_or(|of| of.nullable));
            budget.steps(1 + schema.properties.len())?;
            for (name, of) in &schema.properties {
                if let Some(default) = of.default.as_ref().filter(|_| !fields.contains_key(name)) {
                    budget.make(name.len() + 4 + weight(default))?;
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(of) = schema.field(name) {
                    within(budget, of, value)?;
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                for item in items {
                    within(budget, of, item)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
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
        assert!(apply(&schema, &mut value));
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
    fn defaults_are_put_in_up_to_a_size() {
        let items = json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(10_000)}}});
        let schema = Schema::read(&json!({"properties": {"l": {"type": "array", "items": items}}}));
        let of = |count: usize| json!({"l": vec![json!({}); count]});
        assert!(apply(&schema, &mut of(100)));
        let mut many = of(500_000);
        assert!(!apply(&schema, &mut many));
        assert!(weight(&many) < 10 << 20);
        // Many fields of many items are looked for though nothing is put in.
        let names: serde_json::Map<String, Value> = (0..1000).map(|number| (format!("f{number}"), json!({"type": "string"}))).collect();
        let schema = Schema::read(&json!({"properties": {"l": {"type": "array", "items": {"type": "object", "properties": names}}}}));
        assert_eq!(within(&mut Budget::new(100_000, 0), &schema, &mut of(1000)), Err(Spent));
    }
}
