//! What pods need to reach the API: the CA's certificate, and the Service `default/kubernetes` that leads to this server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::{ApiType, Object, ROOT_CA, SYSTEM_NAMESPACE};
use crate::network::Range;
use crate::store::{Precondition, Snapshot, Store, Transaction, Write};

/// Of the Service, whatever the server's own port is.
const PORT: u16 = 443;
const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// How the API is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// PEM.
    pub authority: String,
    pub service_range: Range,
    /// Where this server listens, as nodes see it; `None`: pods cannot get there.
    pub address: Option<Ipv4Addr>,
    pub port: u16,
}

/// The address of the Service: the first of the range.
pub fn service_address(range: Range) -> Option<Ipv4Addr> {
    range.nth(1)
}

/// The names by which pods know the API.
pub fn service_names(range: Range) -> Vec<String> {
    let address = service_address(range).map(|address| address.to_string());
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    address.into_iter().chain(names.map(str::to_owned)).collect()
}

/// Writes down what is not so already. What cannot be written is told and left: the server works all the same.
pub async fn offer(store: &dyn Store, access: &Access) {
    for transaction in plan(&store.snapshot(), access) {
        if let Err(error) = store.commit(transaction).await {
            tracing::warn!(%error, "pods may not reach the API");
        }
    }
}

/// One transaction each: one that is refused does not keep the others back.
fn plan(state: &Snapshot, access: &Access) -> Vec<Transaction> {
    let mut writes = Vec::new();
    writes.extend(write(state, authority(access), |it: &mut ConfigMap, wanted| it.data = wanted.data));
    let service = service(access);
    let stored = state.get(Object::new(service.clone()).key());
    let address = |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    if let Some(old) = stored.filter(|old| old.get::<Service>().is_some_and(|old| address(old) != address(&service))) {
        // Of another range of addresses: a Service never changes its own.
        writes.push(Write::Delete { key: old.key().clone(), precondition: Precondition::seen(old), grace_seconds: None });
        writes.push(Write::Create(Object::new(service)));
    } else {
        writes.extend(write(state, service, |it: &mut Service, wanted| {
            if let (Some(spec), Some(wanted)) = (&mut it.spec, wanted.spec) {
                (spec.ports, spec.selector) = (wanted.ports, None);
            }
        }));
    }
    writes.extend(write(state, slice(access), |it: &mut EndpointSlice, wanted| {
        (it.endpoints, it.ports, it.metadata.labels) = (wanted.endpoints, wanted.ports, wanted.metadata.labels);
    }));
    writes.into_iter().map(|write| Transaction::new("podbay").with(write)).collect()
}

fn write<T: ApiType>(state: &Snapshot, wanted: T, change: impl FnOnce(&mut T, T)) -> Option<Write> {
    let object = Object::new(wanted.clone());
    let Some(current) = state.get(object.key()) else { return Some(Write::Create(object)) };
    let changed = current.edit(|it: &mut T| change(it, wanted))?;
    (changed != *current).then(|| Write::Update(changed, Precondition::seen(current)))
}

fn meta(namespace: &str, name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    let labels: BTreeMap<String, String> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        ..ObjectMeta::default()
    }
}

fn authority(access: &Access) -> ConfigMap {
    let data = [("ca.crt".to_owned(), access.authority.clone())].into();
    ConfigMap { metadata: meta(SYSTEM_NAMESPACE, ROOT_CA, &[]), data: Some(data), ..ConfigMap::default() }
}

fn service(access: &Access) -> Service {
    let address = service_address(access.service_range).map(|address| address.to_string());
    let port = ServicePort {
        name: Some("https".to_owned()),
        port: i32::from(PORT),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(i32::from(access.port))),
        ..ServicePort::default()
    };
    let spec = ServiceSpec { cluster_ip: address, ports: Some(vec![port]), ..ServiceSpec::default() };
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    Service { metadata: meta(NAMESPACE, NAME, &labels), spec: Some(spec), ..Service::default() }
}

fn slice(access: &Access) -> EndpointSlice {
    let ready = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
    let endpoint =
        |address: Ipv4Addr| Endpoint { addresses: vec![address.to_string()], conditions: Some(ready.clone()), ..Endpoint::default() };
    let port = EndpointPort {
        name: Some("https".to_owned()),
        port: Some(i32::from(access.port)),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    };
    EndpointSlice {
        metadata: meta(NAMESPACE, NAME, &[("kubernetes.io/service-name", NAME)]),
        address_type: "IPv4".to_owned(),
        endpoints: Some(access.address.into_iter().map(endpoint).collect()),
        ports: Some(vec![port]),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::model::{Key, Kind};
    use crate::store::memory::MemoryStore;

    fn access(range: &str, address: [u8; 4]) -> Access {
        Access { authority: "pem".to_owned(), service_range: range.parse().unwrap(), address: Some(address.into()), port: 6443 }
    }

    #[tokio::test]
    async fn what_pods_need_is_there_and_follows_the_server() {
        let store = MemoryStore::new(Arc::new(SystemClock));
        let namespace = |name: &str| Object::from_value(Kind::Namespace, serde_json::json!({"metadata": {"name": name}})).unwrap();
        for name in [NAMESPACE, SYSTEM_NAMESPACE] {
            store.commit(Transaction::new("test").with(Write::Create(namespace(name)))).await.unwrap();
        }
        let say = |kind: Kind, pointer: &str| {
            store.snapshot().get(&Key::new(kind, NAMESPACE, NAME)).unwrap().value().pointer(pointer).unwrap().as_str().unwrap().to_owned()
        };
        offer(&store, &access("10.96.0.0/16", [192, 0, 2, 1])).await;
        assert_eq!(say(Kind::Service, "/spec/clusterIP"), "10.96.0.1");
        let revision = store.snapshot().revision();
        offer(&store, &access("10.96.0.0/16", [192, 0, 2, 1])).await;
        assert_eq!(store.snapshot().revision(), revision, "again writes nothing");
        offer(&store, &access("10.96.0.0/16", [192, 0, 2, 2])).await;
        assert_eq!(say(Kind::EndpointSlice, "/endpoints/0/addresses/0"), "192.0.2.2");
        let settings = serde_json::json!({"metadata": {"name": "podbay-cluster", "namespace": SYSTEM_NAMESPACE}, "data": {"serviceRange": "10.97.0.0/16"}});
        let settings = Object::from_value(Kind::ConfigMap, settings).unwrap();
        store.commit(Transaction::new("test").with(Write::Create(settings))).await.unwrap();
        offer(&store, &access("10.97.0.0/16", [192, 0, 2, 2])).await;
        assert_eq!(say(Kind::Service, "/spec/clusterIP"), "10.97.0.1");
    }
}
