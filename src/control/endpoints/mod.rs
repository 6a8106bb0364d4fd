//! EndpointSlices: the addresses behind each Service.

pub mod plan;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};

use crate::control::claim;
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Heeds, Plan};
use crate::store::snapshot::Snapshot;

/// See the module.
#[derive(Debug, Default, Clone, Copy)]
pub struct Endpoints;

impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn keys(&self, state: &Snapshot, object: &Object) -> Vec<Key> {
        match object.kind() {
            Kind::Service => vec![object.key().clone()],
            Kind::EndpointSlice => object
                .labels()
                .get(plan::SERVICE_NAME)
                .map(|name| Key::new(Kind::Service, object.key().namespace.clone(), name.clone()))
                .into_iter()
                .collect(),
            Kind::Pod if object.get::<Pod>().is_some_and(|pod| plan::address(pod).is_some()) => {
                let labels = object.labels();
                let selects = |service: &&Object| {
                    let wanted = service.get::<Service>().and_then(selected);
                    wanted.is_some_and(|wanted| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
                };
                state.selecting(&object.key().namespace, labels).filter(selects).map(|service| service.key().clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn heeds(&self, _state: &Snapshot, before: &Object, after: &Object) -> Heeds {
        let has_address = |object: &Object| object.get::<Pod>().and_then(plan::address).is_some();
        // One that has none is no endpoint, and the Services that select it now are those that did.
        let selected_alike = before.labels() == after.labels() && (has_address(after) || !has_address(before));
        if selected_alike { Heeds::After } else { Heeds::Both }
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        let label = format!("{}={}", plan::SERVICE_NAME, key.name);
        let slices = state.labelled_in(Kind::EndpointSlice, &key.namespace, &label).filter(|slice| plan::is_ours(slice)).cloned().collect();
        let service = state.get(key).filter(|service| !service.is_deleting());
        let selector = service.and_then(|service| service.get::<Service>()).and_then(selected).map(Selector::of_labels);
        let pods = selector
            .as_ref()
            .map(|selector| claim::matching(state, Kind::Pod, &key.namespace, selector).into_iter().cloned().collect())
            .unwrap_or_default();
        plan::plan(&plan::Observed { state, key, service, selects: selector.is_some(), pods, slices })
    }
}

/// What the Service selects; `None` where its endpoints are someone else's work.
fn selected(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|labels| !labels.is_empty())
}
