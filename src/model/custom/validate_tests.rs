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
fn nested_schemas_are_asked_once() {
    // 50 levels, each of which would ask the next one twice.
    let schema = (0..50).fold(json!({"maxLength": 0}), |inner, _| json!({"allOf": [inner]}));
    let mut errors = Errors::default();
    validate(
        &Schema::read(&json!({"type": "object", "properties": {"a": {"type": "string", "allOf": [schema]}}})),
        &json!({"a": "x"}),
        &mut errors,
    );
    assert_eq!(errors.into_vec().len(), 52);
}

#[test]
fn what_is_told_of_one_object_is_bounded() {
    let schema = json!({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}});
    let mut errors = Errors::default();
    let object: Value = [("k".repeat(1 << 20), json!(vec![1; 100_000]))].into_iter().collect();
    validate(&Schema::read(&schema), &object, &mut errors);
    let told: usize = errors.into_vec().iter().map(|it| it.path.len() + it.message.len()).sum();
    assert!(told < 1 << 20, "{told}");
    let mut object: Value =
        [("k".repeat(1 << 20), (0..100_000).map(|n| (format!("f{n}"), json!(1))).collect::<Value>())].into_iter().collect();
    let schema = json!({"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}});
    let found = super::super::prune::prune(&Schema::read(&schema), &mut object);
    assert!(found.len() < 100, "{}", found.len());
    assert!(object.to_string().len() < 2 << 20);
}
