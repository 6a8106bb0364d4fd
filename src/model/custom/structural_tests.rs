use serde_json::json;

use super::*;

fn broken(schema: &Value) -> Vec<String> {
    let mut errors = Errors::default();
    check(schema, &Path::root("schema"), &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

/// One field of this schema.
fn of(field: Value) -> Vec<String> {
    broken(&json!({"type": "object", "properties": {"a": field}}))
}

#[test]
fn the_documentations_structural_schema_is_one() {
    let schema = json!({"type": "object", "description": "x",
        "properties": {
            "spec": {"type": "object", "properties": {"command": {"type": "string"}, "shell": {"type": "string", "minLength": 1},
                "machines": {"type": "array", "items": {"type": "string"}}, "port": {"x-kubernetes-int-or-string": true,
                    "anyOf": [{"type": "integer"}, {"type": "string"}]}, "raw": {"x-kubernetes-preserve-unknown-fields": true}},
                "oneOf": [{"required": ["command"]}, {"required": ["shell"]}]},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}},
        },
        "anyOf": [{"properties": {"spec": {"properties": {"command": {"minLength": 5}}}}}],
    });
    assert_eq!(broken(&schema), [""; 0]);
}

#[test]
fn the_documentations_schema_that_is_none() {
    // type missing at the root; bar in anyOf only; a type and a description inside anyOf; metadata other than its name.
    let schema = json!({
        "properties": {
            "foo": {"pattern": "abc"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}, "finalizers": {"type": "array", "items": {"type": "string", "pattern": "my-finalizer"}}}},
        },
        "anyOf": [{"properties": {"bar": {"type": "integer", "minimum": 42}}, "required": ["bar"], "description": "foo bar object"}],
    });
    assert_eq!(
        broken(&schema),
        [
            "schema.type: Required value: must not be empty at the root",
            "schema.properties[foo].type: Required value: must not be empty for specified object fields",
            "schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            "schema.anyOf[0].description: Forbidden: must be empty to be structural",
            "schema.anyOf[0].properties[bar]: Required value: must be specified outside of the junctor to be structural",
        ]
    );
}

#[test]
fn each_rule_has_its_words() {
    for (field, words) in [
        (json!({}), ".type: Required value: must not be empty for specified object fields"),
        (
            json!({"type": "text"}),
            r#".type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (json!({"type": "array"}), ".items: Required value: must be specified"),
        (json!({"type": "array", "items": {}}), ".items.type: Required value: must not be empty for specified array items"),
        (json!({"type": "array", "items": [{"type": "string"}]}), ".items: Forbidden: items must be a schema object and not an array"),
        (json!({"type": "object", "$ref": "#/x"}), ".$ref: Forbidden: $ref is not supported"),
        (
            json!({"type": "object", "additionalProperties": false}),
            ".additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"b": {"type": "string"}}}),
            ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (json!({"type": "string", "pattern": "("}), r#".pattern: Invalid value: "(": must be a valid regular expression, of bounded size"#),
        (
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
            ".x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            json!({"type": "string", "x-kubernetes-int-or-string": true}),
            ".type: Forbidden: must be empty if x-kubernetes-int-or-string is true",
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            r#".type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#,
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
            ".items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (json!({"type": "integer", "default": "x"}), r#".default: Invalid value: "x":  in body must be of type integer: "string""#),
    ] {
        let found = of(field.clone());
        let found: Vec<String> = found.iter().map(|it| it.replace("Invalid value: \"string\":  in body", "in body")).collect();
        assert_eq!(found.len(), 1, "{field}: {found:?}");
        assert!(found[0].starts_with("schema.properties[a]"), "{found:?}");
        let start = words.split(": ").take(2).collect::<Vec<_>>().join(": ");
        assert!(found[0]["schema.properties[a]".len()..].starts_with(&start), "{field}: {found:?} instead of {words}");
    }
}

#[test]
fn a_rule_that_cannot_be_asked_is_refused_and_not_forgotten() {
    let found = |rule: Value| of(json!({"type": "object", "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [rule]}));
    assert_eq!(found(json!({"rule": "self.n > 1", "message": "x"})), [""; 0]);
    for (rule, words) in [
        (
            json!({"rule": "quantity('1').isInteger()"}),
            "rule: Invalid value: \"quantity('1').isInteger()\": compilation failed: undeclared reference to 'quantity'",
        ),
        (json!({"rule": ""}), "rule: Required value: rule is not specified"),
        (
            json!({"rule": "true", "messageExpression": "1 +"}),
            "messageExpression: Invalid value: \"1 +\": compilation failed: the expression is not complete",
        ),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf: Forbidden: optional values are not supported"),
        (json!({"rule": "true", "reason": "Nonsense"}), "reason: Unsupported value: \"Nonsense\""),
    ] {
        let all = found(rule.clone());
        assert_eq!(all.len(), 1, "{rule}: {all:?}");
        assert!(all[0].starts_with(&format!("schema.properties[a].x-kubernetes-validations[0].{words}")), "{rule}: {all:?}");
    }
}

#[test]
fn rules_stand_where_they_are_asked() {
    let rule = json!([{"rule": "self == oldSelf"}]);
    let list = |kind: &str| {
        json!({"type": "array", "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": if kind == "map" { json!(["a"]) } else { json!([]) },
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "required": ["a"],
                "properties": {"a": {"type": "string"}, "b": {"type": "string", "x-kubernetes-validations": rule}}}})
    };
    let of = |list: Value| broken(&json!({"type": "object", "properties": {"list": list}}));
    assert_eq!(of(list("map")), [""; 0]);
    for kind in ["set", "atomic"] {
        assert!(of(list(kind))[0].contains("oldSelf cannot be used where no item"), "{kind}");
    }
    let inside = json!({"type": "object", "properties": {"a": {"type": "string"}},
        "anyOf": [{"properties": {"a": {"x-kubernetes-validations": [{"rule": "self == ''"}]}}}]});
    assert!(broken(&inside)[0].ends_with("x-kubernetes-validations: Forbidden: must be empty to be structural"));
    let many: Value = (0..1001).map(|n| (format!("f{n}"), json!({"type": "string", "pattern": "a"}))).collect();
    assert!(broken(&json!({"type": "object", "properties": many}))[0].contains("Too many: 1001"));
}
