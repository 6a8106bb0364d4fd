use serde_json::json;

use super::*;

fn broken(schema: &Value) -> Vec<String> {
    let mut errors = Errors::default();
    check(schema, &mut { BUDGET }, &Path::root("schema"), &mut errors);
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
        (json!({"rule": "'a'.matches('(')"}), "rule: Invalid value: \"(\": compilation failed: it must be a valid regular expression"),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf: Forbidden: optional values are not supported"),
        (json!({"rule": "true", "reason": "Nonsense"}), "reason: Unsupported value: \"Nonsense\""),
    ] {
        let all = found(rule.clone());
        assert_eq!(all.len(), 1, "{rule}: {all:?}");
        assert!(all[0].starts_with(&format!("schema.properties[a].x-kubernetes-validations[0].{words}")), "{rule}: {all:?}");
    }
}

#[test]
fn a_rule_that_nobody_would_ask_is_refused() {
    let rule = json!([{"rule": "self == oldSelf"}]);
    let list = |kind: &str| {
        of(
            json!({"type": "array", "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": if kind == "map" { json!(["n"]) } else { json!([]) },
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "required": ["n"],
                "properties": {"n": {"type": "string"}, "of": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations": rule}}}}}),
        )
    };
    assert_eq!(list("map"), [""; 0]);
    for kind in ["set", "atomic"] {
        let found = list(kind);
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert!(
            found[0].contains("x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used"),
            "{found:?}"
        );
    }
    for (name, value) in
        [("x-kubernetes-validations", rule.clone()), ("x-kubernetes-list-type", json!("set")), ("x-kubernetes-map-type", json!("atomic"))]
    {
        for junctor in ["allOf", "anyOf", "oneOf"] {
            let found =
                of(json!({"type": "object", "properties": {"b": {"type": "string"}}, junctor: [{"properties": {"b": {name: value}}}]}));
            assert_eq!(
                found,
                [format!("schema.properties[a].{junctor}[0].properties[b].{name}: Forbidden: must be empty to be structural")]
            );
        }
    }
}

#[test]
fn a_schema_that_would_take_too_much_is_refused() {
    let many = |field: &dyn Fn(usize) -> Value, count: usize| {
        let fields: serde_json::Map<String, Value> = (0..count).map(|number| (format!("f{number}"), field(number))).collect();
        broken(&json!({"type": "object", "properties": fields}))
    };
    let pattern = |number: usize| json!({"type": "string", "pattern": format!("^[a-z]{{1,{}}}$", number % 50 + 1)});
    let large = |number: usize| json!({"type": "string", "pattern": format!("^\\pL{{1,10}}{number}$")});
    let rule = |number: usize| json!({"type": "string", "x-kubernetes-validations": [{"rule": format!("self != '{}{number}'", "x".repeat(5000))}]});
    let rule_pattern = |_| json!({"type": "string", "x-kubernetes-validations": [{"rule": r"self.matches('^\\pL{1,10}$')"}]});
    let inside = |_| json!({"type": "string", "anyOf": [{"pattern": r"^\pL{1,10}$"}]});
    let default = |_| json!({"type": "string", "default": "x".repeat(100_000)});
    let unreadable = |_| json!({"type": "string", "pattern": "(a{1,1000}){1,1000}"});
    // A field by its number, how many may be, and how many may not.
    type Case<'a> = (&'a dyn Fn(usize) -> Value, usize, usize);
    let cases: [Case<'_>; 7] = [
        (&pattern, 200, 10_000),
        (&large, 3, 500),
        (&rule, 20, 200),
        (&rule_pattern, 3, 500),
        (&inside, 3, 500),
        (&default, 20, 500),
        (&unreadable, 0, 500),
    ];
    for (field, good, bad) in cases {
        assert_eq!(many(field, good), [""; 0], "{}", field(0));
        let found = many(field, bad);
        let last = "schema: Forbidden: its patterns, rules and defaults are too many or too large";
        assert!(found.len() <= 100 && found.last().is_some_and(|it| it == last), "{}: {:?}", field(0), found.last());
    }
    let keys: Vec<String> = (0..65).map(|number| format!("k{number}")).collect();
    let found =
        of(json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": {"type": "object"}}));
    assert_eq!(found, ["schema.properties[a].x-kubernetes-list-map-keys: Too many: 65: must have at most 64 items"]);
    assert_eq!(of(json!({"type": "string", "pattern": r"\pL".repeat(2_000)})).len(), 1);
    // Defaults inside defaults are each read with what is inside them.
    let mut nested = json!({"type": "string", "default": "x".repeat(1_000_000)});
    for _ in 0..30 {
        nested = json!({"type": "object", "default": {}, "properties": {"a": nested}});
    }
    assert!(of(nested).iter().all(|it| it.contains("too many or too large")));
}
