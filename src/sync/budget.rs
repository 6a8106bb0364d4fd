//! How much a plan deletes, and when a person has to agree. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::control::token_secret::plan::named_by;
use crate::model::custom::CustomResourceDefinition;
use crate::model::{DEFAULT_ACCOUNT, Key, Kind, Object, PruneBudget, ROOT_CA};
use crate::plan::Reason;
use crate::store::snapshot::Snapshot;

/// Objects beyond which a deletion may need approval.
const OBJECTS: i32 = 5;
/// Percent of what the source holds.
const PERCENT: i32 = 30;

/// Everything that goes with an object: what it owns, and theirs; for a Namespace, all that lives
/// in it; for a CustomResourceDefinition, every object of its kind; for a ServiceAccount, its tokens. Without the object itself and without what merely records (Events).
pub fn taken(state: &Snapshot, object: &Object) -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    let mut todo = vec![object.clone()];
    while let Some(next) = todo.pop() {
        let in_namespace = (next.kind() == Kind::Namespace).then(|| living_in(state, &next.key().name)).into_iter().flatten();
        let of_kind = instances(state, &next);
        let owned = if next.uid().is_empty() { Vec::new() } else { state.owned_by(next.uid()).collect() };
        let tokens = (next.kind() == Kind::ServiceAccount).then(|| named_by(state, next.key())).into_iter().flatten();
        for child in in_namespace.chain(of_kind).chain(owned).chain(tokens) {
            if child.kind() != Kind::Event && child.key() != object.key() && found.insert(child.key().clone()) {
                todo.push(child.clone());
            }
        }
    }
    found
}

/// What every namespace has, and nobody put there.
fn comes_with_namespace(key: &Key) -> bool {
    matches!((key.kind, key.name.as_str()), (Kind::ServiceAccount, DEFAULT_ACCOUNT) | (Kind::ConfigMap, ROOT_CA))
}

/// What is live in a namespace.
pub fn living_in<'a>(state: &'a Snapshot, namespace: &'a str) -> Vec<&'a Object> {
    let kinds = state.definitions().kinds().filter(|kind| kind.info().namespaced && *kind != Kind::Event);
    let all = kinds.flat_map(|kind| state.list_in(kind, namespace));
    all.filter(|object| !comes_with_namespace(object.key())).collect()
}

/// Every object of the kind that a CustomResourceDefinition defines.
pub fn instances<'a>(state: &'a Snapshot, object: &Object) -> Vec<&'a Object> {
    let Some(definition) = object.get::<CustomResourceDefinition>() else { return Vec::new() };
    let defined = state.definitions().get_named(&definition.spec.group, &definition.spec.names.plural);
    defined.into_iter().flat_map(|defined| state.list(defined.storage().kind)).collect()
}

/// What a deletion comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The pruned objects and everything that goes with them, but for histories.
    pub going: BTreeSet<Key>,
    /// Everything the source holds, with all that goes with it, but for histories.
    pub held: BTreeSet<Key>,
}

/// The reasons for which a person must agree to a deletion. What is deleted to be created anew counts
/// as well: what it owns goes with it.
pub fn approvals(
    state: &Snapshot,
    deleted: &[&Object],
    held: &[&Object],
    becomes_empty: bool,
    path_exists: bool,
    budget: &PruneBudget,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !path_exists && !held.is_empty() {
        reasons.push(Reason::new(
            "PathGone",
            format!("the source's path no longer exists: everything it holds would go ({})", objects(held.len())),
        ));
    } else if becomes_empty && !held.is_empty() {
        reasons.push(Reason::new("BecomesEmpty", format!("the source would become empty: it holds {}", objects(held.len()))));
    }
    for object in deleted.iter().filter(|object| object.kind() == Kind::Namespace) {
        let alive = living_in(state, &object.key().name);
        if let Some(one) = alive.first() {
            let rest = if alive.len() > 1 { format!(" and {} more", alive.len() - 1) } else { String::new() };
            let message = format!("{} would go with everything in it: {}{rest}", object.key(), one.key());
            reasons.push(Reason::new("NamespaceInUse", message));
        }
    }
    for object in deleted.iter().filter(|object| object.kind() == Kind::CustomResourceDefinition) {
        let stays: Vec<_> =
            instances(state, object).into_iter().filter(|one| !deleted.iter().any(|gone| gone.key() == one.key())).collect();
        if let Some(one) = stays.first() {
            let rest = if stays.len() > 1 { format!(" and {} more", stays.len() - 1) } else { String::new() };
            let message = format!("{} would go with every object of its kind: {}{rest}", object.key(), one.key());
            reasons.push(Reason::new("KindInUse", message));
        }
    }
    if deleted.is_empty() {
        return reasons;
    }
    let extent = Extent { going: with_taken(state, deleted), held: with_taken(state, held) };
    let (objects_limit, percent) = (budget.objects.unwrap_or(OBJECTS).max(0), budget.percent.unwrap_or(PERCENT).max(0));
    let (going, all) = (extent.going.len(), extent.held.len().max(1));
    // In whole numbers: more than P percent of N.
    if going > objects_limit.unsigned_abs() as usize && going * 100 > percent.unsigned_abs() as usize * all {
        let message = format!(
            "{} of {all} would go ({} %), counting what they take with them: more than {objects_limit} and more than {percent} % need approval",
            objects(going),
            going * 100 / all
        );
        reasons.push(Reason::new("BeyondBudget", message));
    }
    reasons
}

/// With what goes along, but for the history of a Deployment: a person counts what runs and what manifests say.
fn with_taken(state: &Snapshot, of: &[&Object]) -> BTreeSet<Key> {
    let mut all: BTreeSet<Key> = of.iter().map(|object| object.key().clone()).collect();
    for object in of {
        all.extend(taken(state, object).into_iter().filter(|key| !state.get(key).is_some_and(|taken| is_history(state, taken))));
    }
    all
}

/// A ReplicaSet that a Deployment keeps to roll back to, and of which no pod is left.
fn is_history(state: &Snapshot, object: &Object) -> bool {
    let is_scaled_down = object.get::<ReplicaSet>().is_some_and(|set| set.spec.replicas == Some(0));
    let by_deployment = object.controller().is_some_and(|owner| owner.kind == Kind::Deployment.name());
    is_scaled_down && by_deployment && state.owned_by(object.uid()).next().is_none()
}

fn objects(count: usize) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{count} objects") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: Kind, name: &str, owner: Option<&Object>, spec: &Value) -> Object {
        let reference = |by: &Object| json!({"apiVersion": by.kind().api_version(), "kind": by.kind().name(), "name": by.key().name, "uid": by.uid(), "controller": true});
        let owners: Vec<Value> = owner.into_iter().map(reference).collect();
        let metadata = json!({"name": name, "namespace": "shop", "uid": name, "ownerReferences": owners});
        Object::from_value(kind, json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// A Deployment with this many pods and ten sets of former templates, beside three other objects of the source.
    fn shop(pods: usize) -> (Snapshot, Object, Vec<Object>) {
        let mut state = Snapshot::default();
        let deployment = object(Kind::Deployment, "web", None, &json!({"selector": {}, "template": {}}));
        let set =
            |name: &str, replicas: usize| object(Kind::ReplicaSet, name, Some(&deployment), &json!({"replicas": replicas, "selector": {}}));
        let newest = set("web-new", pods);
        for index in 0..pods {
            state.insert(object(Kind::Pod, &format!("web-new-{index}"), Some(&newest), &json!({"containers": []})));
        }
        state.insert(newest);
        (0..10).for_each(|index| state.insert(set(&format!("web-{index}"), 0)));
        let mut held = vec![deployment.clone()];
        held.extend(["a", "b", "c"].map(|name| object(Kind::Service, name, None, &json!({}))));
        held.iter().for_each(|one| state.insert(one.clone()));
        (state, deployment, held)
    }

    fn told(state: &Snapshot, deployment: &Object, held: &[Object]) -> Vec<String> {
        let held: Vec<&Object> = held.iter().collect();
        let reasons = approvals(state, &[deployment], &held, false, true, &PruneBudget::default());
        reasons.into_iter().map(|reason| reason.message).collect()
    }

    #[test]
    fn the_history_of_a_deployment_does_not_count_and_what_runs_does() {
        let (state, deployment, held) = shop(3);
        assert_eq!(told(&state, &deployment, &held), [""; 0], "a Deployment, its set and three pods");
        let (mut state, deployment, held) = shop(4);
        assert_eq!(told(&state, &deployment, &held).len(), 1);
        assert!(told(&state, &deployment, &held)[0].starts_with("6 objects of 9 would go (66 %)"));
        // A set of which a pod is still going is no history yet.
        let old = state.get(&Key::new(Kind::ReplicaSet, "shop", "web-0")).unwrap().clone();
        state.insert(object(Kind::Pod, "web-0-0", Some(&old), &json!({"containers": []})));
        assert!(told(&state, &deployment, &held)[0].starts_with("8 objects of 11 would go"));
        // Nor is one that is nobody's.
        let own = object(Kind::ReplicaSet, "own", None, &json!({"replicas": 0, "selector": {}}));
        state.insert(own.clone());
        let held = [held, vec![own]].concat();
        assert!(told(&state, &deployment, &held)[0].starts_with("8 objects of 12 would go"));
    }
}
