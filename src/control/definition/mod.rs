//! CustomResourceDefinition: settles whose names are whose, and takes the objects of one that is
//! being deleted along.

pub mod plan;

use crate::model::custom::{CustomResourceDefinition, Names};
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct CustomResourceDefinitions;

impl Controller for CustomResourceDefinitions {
    fn name(&self) -> &'static str {
        "customresourcedefinition"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match (object.kind(), object.get::<CustomResourceDefinition>()) {
            // A name that one gives up another may have waited for.
            (_, Some(definition)) => {
                let group =
                    |other: &&Object| other.get::<CustomResourceDefinition>().is_some_and(|it| it.spec.group == definition.spec.group);
                let others = state.list(Kind::CustomResourceDefinition).filter(group).map(|other| other.key().clone());
                std::iter::once(object.key().clone()).chain(others).collect()
            }
            (Kind::Custom(kind), _) => {
                let definition =
                    state.find(Kind::CustomResourceDefinition, "", &definition_name(kind.names())).filter(|it| it.is_deleting());
                definition.map(|it| it.key().clone()).into_iter().chain(of_owners(state, object)).collect()
            }
            _ => of_owners(state, object).collect(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let Some(object) = state.get(key) else { return Plan::default() };
        let defined =
            object.get::<CustomResourceDefinition>().and_then(|it| state.definitions().get_named(&it.spec.group, &it.spec.names.plural));
        let kind = defined.map(|defined| defined.storage().kind);
        let content: Vec<Object> = kind.into_iter().flat_map(|kind| state.list(kind)).cloned().collect();
        // That is a look at the whole store, and each object that goes asks anew.
        let ending = kind.filter(|_| object.is_deleting() && content.is_empty());
        let forsaken = ending.map(|kind| state.iter().filter(|it| plan::is_forsaken(state, it, kind)).count());
        plan::plan(&plan::Observed { state, object, content, forsaken: forsaken.unwrap_or(0) }, now)
    }
}

/// The definitions on their way out whose kinds an object has owners of.
fn of_owners(state: &Snapshot, object: &Object) -> impl Iterator<Item = Key> {
    let owners = object.meta().owner_references.iter().flatten().filter(|_| !state.definitions().is_empty());
    let kinds = owners.filter_map(|owner| state.definitions().of_any_version(&owner.api_version, &owner.kind));
    let definitions = kinds.filter_map(|kind| {
        let Kind::Custom(kind) = kind else { return None };
        state.find(Kind::CustomResourceDefinition, "", &definition_name(kind.names()))
    });
    definitions.filter(|it| it.is_deleting()).map(|it| it.key().clone())
}

fn definition_name(names: &Names) -> String {
    format!("{}.{}", names.plural, names.group)
}

#[cfg(test)]
mod tests;
