//! An object against the rules of its schema: `x-kubernetes-validations`. PURE.
//!
//! From "Extend the Kubernetes API with CustomResourceDefinitions", section "Validation rules". Rules are
//! asked where the object is as its schema says otherwise.

use std::collections::BTreeMap;

use serde_json::Value;

use super::budget::Budget;
use super::cel::{Program, Run, Val};
use super::schema::{ListType, Schema, key_of};
use crate::model::rule::{ErrorReason, Errors, Path};

/// Steps that the rules of one object may take together, and bytes that they may make.
const BUDGET: Budget = Budget::new(2_000_000, 64 << 20);

/// One rule.
#[derive(Debug)]
pub struct Rule {
    pub text: String,
    /// What is wrong with it, if it is none.
    pub program: Result<Program, String>,
    pub message: String,
    pub message_program: Option<Result<Program, String>>,
    pub reason: ErrorReason,
    pub field_path: String,
}

impl Rule {
    pub fn read(json: &Value) -> Self {
        let text = |field: &str| json[field].as_str().unwrap_or_default().trim();
        Self {
            text: text("rule").to_owned(),
            program: Program::compile(text("rule")),
            message: text("message").to_owned(),
            message_program: Some(text("messageExpression")).filter(|text| !text.is_empty()).map(Program::compile),
            reason: match text("reason") {
                "FieldValueForbidden" => ErrorReason::Forbidden,
                "FieldValueRequired" => ErrorReason::Required,
                "FieldValueDuplicate" => ErrorReason::Duplicate,
                _ => ErrorReason::Invalid,
            },
            field_path: text("fieldPath").to_owned(),
        }
    }

    fn words<'v>(&'v self, value: &Val<'v>, old: Option<&Val<'v>>, run: &mut Run) -> String {
        let said = self.message_program.as_ref().and_then(|program| program.as_ref().ok()).and_then(|program| {
            let said = program.says(value.clone(), old.cloned(), run).ok()?;
            Some(said.trim().to_owned()).filter(|said| !said.is_empty() && !said.contains('\n') && said.len() <= 5120)
        });
        match said {
            Some(said) => said,
            None if self.message.is_empty() => format!("failed rule: {}", self.text),
            None => self.message.clone(),
        }
    }
}

/// Every rule that an object breaks; `old`: the object as it was.
pub fn check(schema: &Schema, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    check_within(BUDGET, schema, object, old, errors);
}

fn check_within(budget: Budget, schema: &Schema, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let mut walk = Walk { run: Run::new(budget), errors };
    walk.value(schema, object, old, &Path::root(""));
}

struct Walk<'e> {
    run: Run,
    errors: &'e mut Errors,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        // What is spent is told by the rule that spent it.
        if self.errors.is_full() || self.run.budget.is_spent() {
            return;
        }
        for rule in &schema.rules {
            self.rule(rule, schema, value, old, path);
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(of) = schema.field(name) {
                        self.value(of, value, old.and_then(|old| old.get(name)), &path.child(name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(of) = &schema.items else { return };
                let before = Before::of(&schema.list, old);
                for (index, item) in items.iter().enumerate() {
                    self.value(of, item, before.of_item(item), &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        let Ok(program) = &rule.program else { return };
        if self.run.budget.is_spent() {
            return;
        }
        if value.is_null() || (program.uses_old && old.is_none_or(Value::is_null)) {
            return;
        }
        let (val, old) = (Val::of(value, Some(schema)), old.map(|old| Val::of(old, Some(schema))));
        let words = match program.holds(val.clone(), old.clone(), &mut self.run) {
            Ok(true) => return,
            Ok(false) => rule.words(&val, old.as_ref(), &mut self.run),
            Err(why) => format!("rule evaluation error: {why} (rule: {})", rule.text),
        };
        let shown = match value {
            Value::Object(_) => Value::from("object"),
            Value::Array(_) => Value::from("array"),
            other => other.clone(),
        };
        let at = path.child(rule.field_path.trim_start_matches('.'));
        let at = if rule.field_path.is_empty() { path } else { &at };
        match rule.reason {
            ErrorReason::Forbidden => self.errors.forbidden(at, &words),
            ErrorReason::Required => self.errors.required(at, &words),
            ErrorReason::Duplicate => self.errors.duplicate(at, &shown),
            _ => self.errors.invalid(at, &shown, &words),
        }
    }
}

/// The items of a list as it was, by their keys; of lists without keys nobody knows which item was which.
struct Before<'v> {
    keys: &'v [String],
    items: BTreeMap<String, &'v Value>,
}

impl<'v> Before<'v> {
    fn of(list: &'v ListType, old: Option<&'v Value>) -> Self {
        let mut items = BTreeMap::new();
        let ListType::Map(keys) = list else { return Self { keys: &[], items } };
        for item in old.and_then(Value::as_array).into_iter().flatten() {
            items.entry(key_of(keys, item)).or_insert(item);
        }
        Self { keys, items }
    }

    fn of_item(&self, item: &Value) -> Option<&'v Value> {
        if self.items.is_empty() { None } else { self.items.get(&key_of(self.keys, item)).copied() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn broken(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors = Errors::default();
        check(&Schema::read(schema), value, old, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_broken_rule_says_what_it_is_to_say() {
        let spec = |rules: Value| {
            json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules,
                "properties": {"minReplicas": {"type": "integer"}, "replicas": {"type": "integer"}}}}})
        };
        let value = json!({"spec": {"replicas": 1, "minReplicas": 2}});
        let rule = "self.minReplicas <= self.replicas";
        let message = json!([{"rule": rule, "message": "replicas should be greater than or equal to minReplicas."}]);
        for (rules, words) in [
            (json!([{"rule": rule}]), "spec: Invalid value: \"object\": failed rule: self.minReplicas <= self.replicas"),
            (message, "spec: Invalid value: \"object\": replicas should be greater than or equal to minReplicas."),
            (
                json!([{"rule": rule, "messageExpression": "'at least ' + string(self.minReplicas)"}]),
                "spec: Invalid value: \"object\": at least 2",
            ),
            (
                json!([{"rule": rule, "reason": "FieldValueForbidden", "fieldPath": ".replicas", "message": "too few"}]),
                "spec.replicas: Forbidden: too few",
            ),
            (
                json!([{"rule": "self.other == 1"}]),
                "spec: Invalid value: \"object\": rule evaluation error: no such key: other (rule: self.other == 1)",
            ),
        ] {
            assert_eq!(broken(&spec(rules.clone()), &value, None), [words], "{rules}");
        }
        assert_eq!(broken(&spec(json!([{"rule": rule}])), &json!({"spec": {"replicas": 2, "minReplicas": 2}}), None), [""; 0]);
    }

    #[test]
    fn a_rule_of_changes_is_asked_of_changes() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}},
        }});
        let old = json!({"a": "x", "list": [{"name": "p", "n": 5}, {"name": "q", "n": 1}]});
        assert_eq!(broken(&schema, &old, None), [""; 0]);
        let new = json!({"a": "y", "list": [{"name": "q", "n": 2}, {"name": "p", "n": 4}, {"name": "r", "n": 0}]});
        assert_eq!(
            broken(&schema, &new, Some(&old)),
            ["a: Invalid value: \"y\": is immutable", "list[1].n: Invalid value: 4: failed rule: self >= oldSelf"]
        );
    }

    #[test]
    fn items_of_a_long_list_are_found_by_their_keys() {
        let schema = json!({"type": "object", "properties": {
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"},
                    "n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}},
        }});
        let item = |number: usize, n: i32| json!({"name": format!("item {number}"), "port": 1, "n": n});
        let old: Vec<Value> = (0..20_000).map(|number| item(number, 1)).collect();
        let new: Vec<Value> = (0..20_000).rev().map(|number| item(number, if number == 7 { 0 } else { 1 })).collect();
        let found = broken(&schema, &json!({"list": new}), Some(&json!({"list": old})));
        assert_eq!(found, ["list[19992].n: Invalid value: 0: failed rule: self >= oldSelf"]);
    }

    #[test]
    fn what_rules_spend_is_told_once() {
        let slow = "self.all(a, self.all(b, self.all(c, true)))";
        let schema = json!({"type": "object", "properties": {
            "l": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
                "x-kubernetes-validations": [{"rule": format!("{slow} || true")}, {"rule": slow}]},
        }});
        let mut errors = Errors::default();
        check_within(Budget::new(10_000, 0), &Schema::read(&schema), &json!({"l": vec![1; 1000]}), None, &mut errors);
        let found = errors.into_vec();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.contains("takes too long"), "{found:?}");
    }
}
