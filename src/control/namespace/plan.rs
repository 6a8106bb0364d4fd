//! What still has to leave a namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::model::{Kind, Object, Timestamp};
use crate::plan::{Op, Plan, Reason};

/// A namespace that is being deleted.
pub struct Observed<'a> {
    pub namespace: &'a Object,
    pub content: Vec<Object>,
}

pub fn plan(seen: &Observed<'_>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for object in seen.content.iter().filter(|object| !object.is_deleting()) {
        plan.ops.push(Op::Delete { before: object.clone(), grace_seconds: None });
    }
    if seen.content.is_empty() {
        let held = seen.namespace.get::<Namespace>().and_then(|it| it.spec.as_ref()?.finalizers.as_ref()).is_some_and(|it| !it.is_empty());
        if held {
            let after = seen.namespace.edit(|namespace: &mut Namespace| {
                namespace.spec.get_or_insert_with(NamespaceSpec::default).finalizers = None;
            });
            plan.ops.extend(after.map(|after| Op::Update { before: seen.namespace.clone(), after }));
        }
        return plan;
    }
    let mut left: BTreeMap<Kind, usize> = BTreeMap::new();
    for object in &seen.content {
        *left.entry(object.kind()).or_default() += 1;
    }
    let left: Vec<String> = left.into_iter().map(|(kind, count)| format!("{count} {}", kind.info().plural)).collect();
    plan.wait(seen.namespace.key(), Reason::new("NamespaceContentRemaining", format!("still holds {}", left.join(", "))));
    if plan.ops.is_empty() {
        let after = seen.namespace.edit(|namespace: &mut Namespace| {
            let status = namespace.status.get_or_insert_default();
            let known = status.conditions.take().unwrap_or_default();
            status.conditions = Some(conditions(&seen.content, known, now));
        });
        let before = seen.namespace.clone();
        plan.ops.extend(after.filter(|after| after.value() != before.value()).map(|after| Op::UpdateStatus { before, after }));
    }
    plan
}

/// What keeps it, in the words of Kubernetes (`pkg/controller/namespace/deletion/status_condition_utils.go`).
fn conditions(content: &[Object], mut known: Vec<NamespaceCondition>, now: Timestamp) -> Vec<NamespaceCondition> {
    let (mut kinds, mut finalizers) = (BTreeMap::new(), BTreeMap::new());
    for object in content {
        let info = object.kind().info();
        let name = if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) };
        *kinds.entry(name).or_insert(0) += 1;
        for name in object.meta().finalizers.iter().flatten() {
            *finalizers.entry(name.clone()).or_insert(0) += 1;
        }
    }
    let list = |counts: BTreeMap<String, usize>, has: &str| {
        counts.into_iter().map(|(name, count)| format!("{name} {has} {count} resource instances")).collect::<Vec<_>>().join(", ")
    };
    let held = !finalizers.is_empty();
    let finalizers = format!("Some content in the namespace has finalizers remaining: {}", list(finalizers, "in"));
    let all = [
        ("NamespaceDeletionDiscoveryFailure", false, "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".to_owned(),
        ),
        ("NamespaceContentRemaining", true, "SomeResourcesRemain", format!("Some resources are remaining: {}", list(kinds, "has"))),
        if held {
            ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", finalizers)
        } else {
            ("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
        },
    ];
    for (type_, is_so, reason, message) in all {
        let status = if is_so { "True" } else { "False" };
        let old = known.iter().position(|it| it.type_ == type_).map(|at| known.remove(at));
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
        known.push(NamespaceCondition {
            last_transition_time: Some(since.unwrap_or(Time(now))),
            message: Some(message),
            reason: Some(reason.to_owned()),
            status: status.to_owned(),
            type_: type_.to_owned(),
        });
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(kind: Kind, meta: Value) -> Object {
        Object::from_value(kind, json!({"metadata": meta})).expect("an object")
    }

    #[test]
    fn what_holds_it_is_said_once() {
        let namespace = object(Kind::Namespace, json!({"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let held = |finalizers: Value| {
            let meta = json!({"name": "a", "namespace": "web", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers});
            object(Kind::ConfigMap, meta)
        };
        let at = |seconds| Timestamp::from_second(seconds).expect("a time");
        let planned = |namespace: &Object, content: Object, now| plan(&Observed { namespace, content: vec![content] }, now);
        let written = |plan: &Plan| match &plan.ops[..] {
            [Op::UpdateStatus { after, .. }] => after.clone(),
            other => panic!("{other:?}"),
        };
        let told = |namespace: &Object| -> Vec<String> {
            let conditions = namespace.value()["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let told = conditions.iter().filter(|it| it["status"] == "True" || it["type"] == "NamespaceFinalizersRemaining");
            told.map(|it| format!("{} {} {}", it["reason"], it["message"], it["lastTransitionTime"]).replace('"', "")).collect()
        };
        let first = written(&planned(&namespace, held(json!(["example.com/hold"])), at(0)));
        assert_eq!(
            told(&first),
            [
                "SomeResourcesRemain Some resources are remaining: configmaps has 1 resource instances 1970-01-01T00:00:00Z",
                "SomeFinalizersRemain Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances \
                 1970-01-01T00:00:00Z",
            ]
        );
        assert!(planned(&first, held(json!(["example.com/hold"])), at(9)).ops.is_empty());
        let second = written(&planned(&first, held(json!([])), at(9)));
        assert_eq!(told(&second)[1], "ContentHasNoFinalizers All content-preserving finalizers finished 1970-01-01T00:00:09Z");
        assert!(planned(&second, held(json!([])), at(20)).ops.is_empty());
    }
}
