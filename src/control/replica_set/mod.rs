//! ReplicaSet: keeps the wanted number of pods.

pub mod plan;

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::control::{claim, refusal};
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp, Typed, pod};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replica-set"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match (object.kind(), object.controller()) {
            (Kind::ReplicaSet, _) => vec![object.key().clone()],
            (Kind::Pod, Some(owner)) if owner.kind == Kind::ReplicaSet.name() => {
                vec![Key::new(Kind::ReplicaSet, object.key().namespace.clone(), owner.name.clone())]
            }
            (Kind::Pod, None) => claim::adopters(state, Kind::ReplicaSet, object, selector),
            (Kind::ServiceAccount, _) => refusal::by_account(state, Kind::ReplicaSet, object),
            _ => Vec::new(),
        }
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        match (before.typed(), after.typed()) {
            // What it counts pods by, and how many have no node.
            (Typed::Pod(was), Typed::Pod(is)) if after.controller().is_some() && before.controller() == after.controller() => {
                let same = pod::standing(was) == pod::standing(is) && pod::node_name(was) == pod::node_name(is);
                if same && before.labels() == after.labels() { Heeds::Nothing } else { Heeds::After }
            }
            (Typed::ReplicaSet(_), _) => Heeds::After,
            _ => Heeds::Both,
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        match state.get(key) {
            Some(object) => plan::plan(&observe(state, object), now),
            None => Plan::default(),
        }
    }

    fn refused(&self, state: &Snapshot, key: &Key, why: &str, now: Timestamp) -> Plan {
        state.get(key).map(|object| plan::refused(&observe(state, object), why, now)).unwrap_or_default()
    }
}

/// The set's selector; an empty one selects nothing here, as validation would refuse it.
pub fn selector(object: &Object) -> Option<Selector> {
    let spec = &object.get::<ReplicaSet>()?.spec;
    Selector::of(&spec.selector).ok().filter(|selector| !selector.is_everything())
}

fn observe<'a>(state: &'a Snapshot, set: &'a Object) -> plan::Observed<'a> {
    let selector = selector(set);
    let claims = selector.as_ref().map(|selector| claim::claims(state, set, Kind::Pod, selector)).unwrap_or_default();
    plan::Observed { state, set, selector, claims }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_that_comes_wakes_the_sets_that_name_it() {
        let set = |name: &str, namespace: &str, account: &str| {
            let value = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"selector": {}, "template": {"spec": {"serviceAccountName": account, "containers": []}}}});
            Object::from_value(Kind::ReplicaSet, value).expect("a set")
        };
        let mut state = Snapshot::default();
        for (name, namespace, account) in [("a", "web", "bot"), ("b", "web", ""), ("c", "shop", "bot"), ("d", "web", "other")] {
            state.insert(set(name, namespace, account));
        }
        let account =
            Object::from_value(Kind::ServiceAccount, json!({"metadata": {"name": "bot", "namespace": "web"}})).expect("an account");
        assert_eq!(ReplicaSets.keys(&state, &account), [Key::new(Kind::ReplicaSet, "web", "a")]);
    }
}
