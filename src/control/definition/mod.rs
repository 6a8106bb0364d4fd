//! CustomResourceDefinition: settles whose names are whose, and takes the objects of one that is
//! being deleted along.

pub mod plan;

use crate::model::custom::CustomResourceDefinition;
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
                let name = format!("{}.{}", kind.names().plural, kind.names().group);
                let definition = state.find(Kind::CustomResourceDefinition, "", &name).filter(|it| it.is_deleting());
                definition.map(|it| it.key().clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, now: Timestamp) -> Plan {
        let Some(object) = state.get(key) else { return Plan::default() };
        let defined =
            object.get::<CustomResourceDefinition>().and_then(|it| state.definitions().get_named(&it.spec.group, &it.spec.names.plural));
        let kind = defined.map(|defined| defined.storage().kind);
        let content = kind.into_iter().flat_map(|kind| state.list(kind)).cloned().collect();
        plan::plan(&plan::Observed { state, object, content }, now)
    }
}

#[cfg(test)]
mod tests;
