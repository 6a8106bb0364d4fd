//! An object against the rules of its schema: `x-kubernetes-validations`. PURE.
//!
//! From "Extend the Kubernetes API with CustomResourceDefinitions", section "Validation rules". Rules are
//! asked where the object is as its schema says otherwise.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cel::{Program, Val};
use super::schema::{ListType, Schema};
use crate::model::rule::{ErrorReason, Errors, Path};

/// Steps that the rules of one object may take together.
const STEPS: u64 = 2_000_000;

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

    fn words(&self, value: &Val<'_>, old: Option<&Val<'_>>, left: &mut u64) -> String {
        let said = self.message_program.as_ref().and_then(|program| program.as_ref().ok()).and_then(|program| {
            let said = program.says(value.clone(), old.cloned(), left).ok()?;
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
    let mut walk = Walk { left: STEPS, is_spent: false, errors };
    walk.value(schema, object, old, &Path::root(""));
}

struct Walk<'e> {
    left: u64,
    /// It was told that nothing more can be asked.
    is_spent: bool,
    errors: &'e mut Errors,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
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
                // Of other lists nobody knows which item was which.
                let keys = if let ListType::Map(keys) = &schema.list { Some(keys) } else { None };
                let before: BTreeMap<String, &Value> = match (keys, old.and_then(Value::as_array)) {
                    (Some(keys), Some(all)) => all.iter().map(|item| (key_of(keys, item), item)).collect(),
                    _ => BTreeMap::new(),
                };
                for (index, item) in items.iter().enumerate() {
                    let before = keys.and_then(|keys| before.get(&key_of(keys, item)).copied());
                    self.value(of, item, before, &path.index(index));
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Schema, value: &Value, old: Option<&Value>, path: &Path<'_>) {
        let Ok(program) = &rule.program else { return };
        if self.is_spent || value.is_null() || (program.uses_old && old.is_none_or(Value::is_null)) {
            return;
        }
        let (val, old) = (Val::of(value, Some(schema)), old.map(|old| Val::of(old, Some(schema))));
        let words = match program.holds(val.clone(), old.clone(), &mut self.left) {
            Ok(true) => return,
            Ok(false) => rule.words(&val, old.as_ref(), &mut self.left),
            Err(why) => format!("rule evaluation error: {why} (rule: {})", rule.text),
        };
        self.is_spent = self.left == 0;
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

/// What tells an item of a list from the others.
fn key_of(keys: &[String], item: &Value) -> String {
    keys.iter().filter_map(|key| item.get(key)).map(Value::to_string).collect::<Vec<_>>().join(",")
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
}
