//! What a namespace lacks. PURE.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::{DEFAULT_ACCOUNT, Kind, Object, ROOT_CA, SYSTEM_NAMESPACE};
use crate::plan::{Op, Plan};
use crate::store::snapshot::Snapshot;

pub fn plan(namespace: &Object, state: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    if namespace.is_deleting() {
        return plan;
    }
    let home = namespace.key().name.as_str();
    let metadata = |name: &str| ObjectMeta { name: Some(name.to_owned()), namespace: Some(home.to_owned()), ..ObjectMeta::default() };
    if state.find(Kind::ServiceAccount, home, DEFAULT_ACCOUNT).is_none() {
        let account = ServiceAccount { metadata: metadata(DEFAULT_ACCOUNT), ..ServiceAccount::default() };
        plan.ops.push(Op::Create(Object::new(account)));
    }
    // The server writes one; the others are its copies.
    let original = state.find(Kind::ConfigMap, SYSTEM_NAMESPACE, ROOT_CA).and_then(|object| object.get::<ConfigMap>());
    let Some(original) = original.filter(|_| home != SYSTEM_NAMESPACE) else { return plan };
    match state.find(Kind::ConfigMap, home, ROOT_CA) {
        None => {
            let copy = ConfigMap { metadata: metadata(ROOT_CA), data: original.data.clone(), ..ConfigMap::default() };
            plan.ops.push(Op::Create(Object::new(copy)));
        }
        Some(copy) if copy.is_deleting() => {}
        Some(copy) => {
            if copy.get::<ConfigMap>().is_some_and(|it| it.data != original.data) {
                let after = copy.edit(|it: &mut ConfigMap| it.data.clone_from(&original.data));
                plan.ops.extend(after.map(|after| Op::Update { before: copy.clone(), after }));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_gets_what_it_lacks_and_keeps_what_it_has() {
        let object = |kind: Kind, value| Object::from_value(kind, value).unwrap();
        let map = |namespace: &str, text: &str| {
            object(Kind::ConfigMap, json!({"metadata": {"name": ROOT_CA, "namespace": namespace}, "data": {"ca.crt": text}}))
        };
        let namespace = object(Kind::Namespace, json!({"metadata": {"name": "web"}}));
        let mut state = Snapshot::default();
        let words = |state: &Snapshot| plan(&namespace, state).ops.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(words(&state), ["+ ServiceAccount web/default"]);
        state.insert(map(SYSTEM_NAMESPACE, "pem"));
        assert_eq!(words(&state), ["+ ServiceAccount web/default", "+ ConfigMap web/kube-root-ca.crt"]);
        state.insert(object(Kind::ServiceAccount, json!({"metadata": {"name": "default", "namespace": "web"}})));
        state.insert(map("web", "old"));
        assert_eq!(words(&state), ["~ ConfigMap web/kube-root-ca.crt"]);
        state.insert(map("web", "pem"));
        assert!(words(&state).is_empty());
        let going = namespace.clone().edit_meta(|meta| {
            meta.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::model::Timestamp::UNIX_EPOCH));
        });
        assert!(plan(&going, &Snapshot::default()).is_empty());
    }
}
