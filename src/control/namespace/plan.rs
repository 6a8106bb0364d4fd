//! What still has to leave a namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec};

use crate::model::{Kind, Object};
use crate::plan::{Op, Plan, Reason};

/// A namespace that is being deleted.
pub struct Observed<'a> {
    pub namespace: &'a Object,
    pub content: Vec<Object>,
}

pub fn plan(seen: &Observed<'_>) -> Plan {
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
    plan
}
