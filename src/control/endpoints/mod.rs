//! EndpointSlices: the addresses behind each Service.

pub mod plan;

use k8s_openapi::api::core::v1::{Pod, Service};

use crate::control::claim;
use crate::model::selector::Selector;
use crate::model::{Key, Kind, Object, Timestamp};
use crate::plan::{Controller, Plan};
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
                claim::adopters(state, Kind::Service, object, |service| service.get::<Service>().and_then(selector))
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        let label = format!("{}={}", plan::SERVICE_NAME, key.name);
        let slices = state.labelled_in(Kind::EndpointSlice, &key.namespace, &label).filter(|slice| plan::is_ours(slice)).cloned().collect();
        let service = state.get(key).filter(|service| !service.is_deleting());
        let selector = service.and_then(|service| service.get::<Service>()).and_then(selector);
        let pods = selector
            .as_ref()
            .map(|selector| claim::matching(state, Kind::Pod, &key.namespace, selector).into_iter().cloned().collect())
            .unwrap_or_default();
        plan::plan(&plan::Observed { state, key, service, selects: selector.is_some(), pods, slices })
    }
}

/// What the Service selects; `None` where its endpoints are someone else's work.
fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|labels| !labels.is_empty()).map(Selector::of_labels)
}
