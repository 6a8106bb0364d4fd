//! What a role that gathers others has to say. PURE.

use k8s_openapi::api::rbac::v1::ClusterRole;

use crate::model::Object;
use crate::model::rights::gather;
use crate::plan::{Op, Plan};

/// Whether a role's rules are not its own.
pub fn gathers(role: &Object) -> bool {
    role.get::<ClusterRole>().is_some_and(|role| role.aggregation_rule.is_some())
}

pub fn plan<'a>(object: &'a Object, roles: impl Iterator<Item = &'a Object>) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = object.get::<ClusterRole>() else { return plan };
    let Some(rule) = role.aggregation_rule.as_ref().filter(|_| !object.is_deleting()) else { return plan };
    let gathered = gather(rule, object.key(), roles);
    if role.rules.as_deref().unwrap_or_default() != gathered {
        let after = object.edit(|role: &mut ClusterRole| role.rules = Some(gathered).filter(|rules| !rules.is_empty()));
        plan.ops.extend(after.map(|after| Op::Update { before: object.clone(), after }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Kind;

    fn role(name: &str, label: &str, verb: &str, rest: Value) -> Object {
        let mut value = json!({"metadata": {"name": name, "labels": {"to": label}},
            "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]});
        if !rest.is_null() {
            value["aggregationRule"] = rest;
        }
        Object::from_value(Kind::ClusterRole, value).unwrap()
    }

    #[test]
    fn rules_are_gathered_by_label_and_only_then() {
        let rule = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}]});
        let roles = [role("all", "all", "old", rule), role("one", "all", "get", Value::Null), role("two", "none", "list", Value::Null)];
        let first = plan(&roles[0], roles.iter());
        let Some(Op::Update { after, .. }) = first.ops.first() else { panic!("{first:?}") };
        let rules = after.get::<ClusterRole>().unwrap().rules.clone().unwrap();
        assert_eq!(rules.iter().map(|rule| rule.verbs.join(",")).collect::<Vec<_>>(), ["get"]);
        assert!(plan(after, [after.clone(), roles[1].clone()].iter()).is_empty());
        assert!(plan(&roles[1], roles.iter()).is_empty());
    }

    #[test]
    fn roles_that_gather_each_other_come_to_rest() {
        let rule = |label: &str| json!({"clusterRoleSelectors": [{"matchLabels": {"to": label}}]});
        let mut roles = [
            role("a", "b", "one", rule("a")),
            role("b", "a", "two", rule("b")),
            role("c", "a", "get", Value::Null),
            role("d", "b", "list", Value::Null),
        ];
        for round in 0.. {
            // All at once, as the driver does.
            let plans: Vec<Plan> = roles.iter().map(|role| plan(role, roles.iter())).collect();
            if plans.iter().all(Plan::is_empty) {
                break;
            }
            assert!(round < 3, "{plans:?}");
            for (role, plan) in roles.iter_mut().zip(plans) {
                if let Some(Op::Update { after, .. }) = plan.ops.into_iter().next() {
                    *role = after;
                }
            }
        }
        let verbs = |role: &Object| {
            let rules = role.get::<ClusterRole>().unwrap().rules.clone().unwrap_or_default();
            let mut verbs: Vec<String> = rules.into_iter().flat_map(|rule| rule.verbs).collect();
            verbs.sort_unstable();
            verbs.join(" ")
        };
        assert_eq!((verbs(&roles[0]), verbs(&roles[1])), ("get list".to_owned(), "get list".to_owned()), "what they said before is gone");
    }
}
