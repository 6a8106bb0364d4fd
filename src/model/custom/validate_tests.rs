use serde_json::{Value, json};

use super::*;

fn broken(schema: &Value, value: &Value) -> Vec<String> {
    let mut errors = Errors::default();
    validate(&Schema::read(schema), value, &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

/// One field `a` of a spec with this schema.
fn of(schema: Value, value: Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": schema}}}});
    broken(&schema, &json!({"apiVersion": "x/v1", "kind": "X", "metadata": {}, "spec": {"a": value}}))
}

#[test]
fn the_documentations_cron_tab() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "image": {"type": "string"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
    }}}});
    assert_eq!(broken(&schema, &json!({"spec": {"cronSpec": "* * * * */5", "image": "my-awesome-cron-image", "replicas": 5}})), [""; 0]);
    assert_eq!(
        broken(&schema, &json!({"spec": {"cronSpec": "* * * *", "image": "my-awesome-cron-image", "replicas": 15}})),
        [
            r#"spec.cronSpec: Invalid value: "* * * *": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
            "spec.replicas: Invalid value: 15: spec.replicas in body should be less than or equal to 10",
        ]
    );
}

#[test]
fn each_rule_has_its_words() {
    let table: Vec<(Value, Value, &str)> = vec![
        (json!({"type": "integer"}), json!("5"), r#"Invalid value: "string": spec.a in body must be of type integer: "string""#),
        (json!({"type": "integer"}), json!(1.5), r#"Invalid value: "number": spec.a in body must be of type integer: "number""#),
        (json!({"type": "string"}), json!(5), r#"Invalid value: "integer": spec.a in body must be of type string: "integer""#),
        (json!({"type": "object"}), json!([]), r#"Invalid value: "array": spec.a in body must be of type object: "array""#),
        (json!({"type": "string"}), json!(null), r#"Invalid value: "null": spec.a in body must be of type string: "null""#),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"Invalid value: "boolean": spec.a in body must be of type integer,string: "boolean""#,
        ),
        (json!({"type": "string", "enum": ["x", "y"]}), json!("z"), r#"Unsupported value: "z": supported values: "x", "y""#),
        (json!({"type": "string", "minLength": 2}), json!("z"), r#"Invalid value: "z": spec.a in body should be at least 2 chars long"#),
        (json!({"type": "string", "maxLength": 2}), json!("zzz"), "Too long: may not be more than 2 bytes"),
        (json!({"type": "string", "format": "ipv4"}), json!("x"), r#"Invalid value: "x": spec.a in body must be of type ipv4: "x""#),
        (json!({"type": "number", "minimum": 2}), json!(1.5), "Invalid value: 1.5: spec.a in body should be greater than or equal to 2"),
        (
            json!({"type": "integer", "minimum": 2, "exclusiveMinimum": true}),
            json!(2),
            "Invalid value: 2: spec.a in body should be greater than 2",
        ),
        (
            json!({"type": "integer", "maximum": 2, "exclusiveMaximum": true}),
            json!(2),
            "Invalid value: 2: spec.a in body should be less than 2",
        ),
        (json!({"type": "integer", "multipleOf": 2}), json!(3), "Invalid value: 3: spec.a in body should be a multiple of 2"),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            "Invalid value: 3000000000: Checked value must be of type integer with format int32 in spec.a",
        ),
        (json!({"type": "array", "maxItems": 1}), json!([1, 2]), "Too many: 2: must have at most 1 items"),
        (json!({"type": "array", "minItems": 1}), json!([]), "Invalid value: 0: spec.a in body should have at least 1 items"),
        (json!({"type": "object", "maxProperties": 1}), json!({"a": 1, "b": 2}), "Too many: 2: must have at most 1 items"),
        (json!({"type": "object", "minProperties": 1}), json!({}), "Invalid value: 0: spec.a in body should have at least 1 properties"),
        (
            json!({"type": "string", "anyOf": [{"pattern": "^x"}, {"pattern": "^y"}]}),
            json!("z"),
            r#"Invalid value: "z": "spec.a" must validate at least one schema (anyOf)"#,
        ),
        (
            json!({"type": "string", "oneOf": [{"pattern": "^x"}, {"pattern": "y$"}]}),
            json!("z"),
            r#"Invalid value: "z": "spec.a" must validate one and only one schema (oneOf). Found none valid"#,
        ),
        (
            json!({"type": "string", "oneOf": [{"pattern": "^x"}, {"pattern": "y$"}]}),
            json!("xy"),
            r#"Invalid value: "xy": "spec.a" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
        (
            json!({"type": "string", "not": {"enum": ["z"]}}),
            json!("z"),
            r#"Invalid value: "z": "spec.a" must not validate the schema (not)"#,
        ),
    ];
    for (schema, value, words) in table {
        assert_eq!(of(schema.clone(), value.clone()), [format!("spec.a: {words}")], "{schema} of {value}");
    }
}

#[test]
fn what_is_as_it_must_be_breaks_nothing() {
    for (schema, value) in [
        (json!({"type": "integer"}), json!(5)),
        (json!({"type": "integer", "enum": [1, 2]}), json!(2)),
        (json!({"type": "number"}), json!(5)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (json!({"x-kubernetes-int-or-string": true}), json!(5)),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, {"a": null}])),
        (json!({"type": "object", "additionalProperties": {"type": "string"}}), json!({"x": "y"})),
        (json!({"type": "string", "allOf": [{"minLength": 1}, {"maxLength": 3}]}), json!("ab")),
        (json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}), json!(["a", "b"])),
    ] {
        assert_eq!(of(schema.clone(), value.clone()), [""; 0], "{schema} of {value}");
    }
}

#[test]
fn members_are_required_and_told_apart() {
    let item = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}});
    let list = |kind: &str| json!({"type": "array", "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["name"], "items": item});
    assert_eq!(of(list("atomic"), json!([{}])), ["spec.a[0].name: Required value"]);
    let twice = json!([{"name": "x", "n": 1}, {"name": "x", "n": 2}]);
    assert_eq!(of(list("map"), twice.clone()), [r#"spec.a[1]: Duplicate value: {"name":"x"}"#]);
    assert_eq!(of(list("set"), twice.clone()), [""; 0]);
    assert_eq!(of(list("set"), json!([twice[0], twice[0]])), [r#"spec.a[1]: Duplicate value: {"n":1,"name":"x"}"#]);
    assert_eq!(
        of(json!({"type": "object", "additionalProperties": {"type": "string"}}), json!({"x": 1})),
        [r#"spec.a.x: Invalid value: "integer": spec.a.x in body must be of type string: "integer""#]
    );
}

#[test]
fn an_embedded_object_says_what_it_is() {
    let schema = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    assert_eq!(of(schema.clone(), json!({"apiVersion": "v1", "kind": "Pod"})), [""; 0]);
    assert_eq!(of(schema, json!({"apiVersion": "v1"})), ["spec.a.kind: Required value: must not be empty"]);
}

#[test]
fn every_schema_of_all_is_told() {
    let schema = json!({"type": "string", "allOf": [{"minLength": 2}, {"pattern": "^x"}]});
    assert_eq!(
        of(schema, json!("z")),
        [
            r#"spec.a: Invalid value: "z": "spec.a" must validate all the schemas (allOf)"#,
            r#"spec.a: Invalid value: "z": spec.a in body should be at least 2 chars long"#,
            r#"spec.a: Invalid value: "z": spec.a in body should match '^x'"#,
        ]
    );
}

#[test]
fn schemas_inside_schemas_are_asked_once() {
    // Twice at each level would be a trillion times.
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let mut schema = json!({"maxLength": 0});
        for _ in 0..40 {
            schema = json!({junctor: [schema]});
        }
        schema["type"] = json!("string");
        assert!(!of(schema, json!("z")).is_empty(), "{junctor}");
    }
    let mut schema = json!({"maxLength": 0});
    for _ in 0..41 {
        schema = json!({"not": {"allOf": [schema]}});
    }
    schema["type"] = json!("string");
    assert_eq!(of(schema, json!("z")), [""; 0]);
}

#[test]
fn of_many_faults_the_first_are_told_in_few_words() {
    let many = Value::from(vec![json!("x"); 100_000]);
    let key = "k".repeat(1_000_000);
    let value = json!({"spec": {"a": {(key): many}}});
    let enumeration: Vec<String> = (0..100_000).map(|number| format!("value {number}")).collect();
    for item in [
        json!({"type": "integer"}),
        json!({"type": "string", "enum": enumeration}),
        json!({"type": "string", "pattern": "a".repeat(4000)}),
        json!({"type": "string", "allOf": [{"minLength": 2}, {"anyOf": [{"minLength": 3}]}]}),
    ] {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "object",
            "additionalProperties": {"type": "array", "items": item}}}}}});
        let mut errors = Errors::default();
        within(&mut Budget::new(100_000_000, 0), &Schema::read(&schema), &value, &mut errors);
        let found = errors.into_vec();
        assert_eq!(found.len(), 100);
        assert!(found.iter().all(|it| it.path.len() < 1000 && it.message.len() < 10_000), "{}", found[0].message.len());
    }
}

#[test]
fn a_large_schema_of_a_large_object_is_given_up() {
    let names: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
    let named: Value = names.iter().map(|name| (name.clone(), json!(1))).collect();
    let any: Vec<Value> = (0..1000).map(|number| json!({"maxLength": number / 999})).collect();
    for (item, value) in [
        (json!({"type": "object", "required": names}), named),
        (json!({"type": "string", "enum": names}), json!("n999")),
        (json!({"enum": [vec![2; 50], vec![1; 50]], "x-kubernetes-preserve-unknown-fields": true}), json!(vec![1; 50])),
        (json!({"type": "string", "anyOf": any}), json!("x")),
        (json!({"type": "string", "pattern": "^(a?){100}"}), json!("a".repeat(1000))),
        (json!({"type": "string", "minLength": 1}), json!("a".repeat(100_000))),
    ] {
        let schema = Schema::read(&json!({"properties": {"l": {"type": "array", "items": item}}}));
        let value = json!({"l": vec![value; 500]});
        let mut errors = Errors::first();
        within(&mut Budget::new(5_000, 0), &schema, &value, &mut errors);
        let found = errors.into_vec();
        assert!(found.first().is_some_and(|it| it.message.contains("takes too long")), "{found:?}");
    }
}
