//! What nodes and pods need to reach the API: the cluster's settings, the CA's certificate, and the Service
//! `default/kubernetes` that leads to this server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::bootstrap::{ClusterSettings, SETTINGS, settings};
use crate::model::{ApiType, Key, Kind, Object, ROOT_CA, SYSTEM_NAMESPACE, Timestamp};
use crate::network::Range;
use crate::plan::{Controller, Op, Plan};
use crate::store::{Snapshot, Store, Transaction};

/// Of the Service, whatever the server's own port is.
const PORT: u16 = 443;
const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// How the API is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// PEM.
    pub authority: String,
    pub settings: ClusterSettings,
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
    // A Service never changes its address: one of another range of addresses goes first.
    for _ in 0..2 {
        // One transaction each: one that is refused does not keep the others back.
        for op in ops(&store.snapshot(), access) {
            if let Err(error) = store.commit(Transaction::new("podbay").with(op.write())).await {
                tracing::warn!(%error, "pods may not reach the API");
            }
        }
    }
}

/// Puts back what somebody changes or removes while the server runs.
impl Controller for Access {
    fn name(&self) -> &'static str {
        "offer"
    }

    fn keys(&self, _state: &Snapshot, object: &Object) -> Vec<Key> {
        let key = object.key();
        let is_ours = match (key.kind, key.namespace.as_str(), key.name.as_str()) {
            (Kind::ConfigMap, SYSTEM_NAMESPACE, name) => name == ROOT_CA || name == SETTINGS,
            (Kind::Service | Kind::EndpointSlice, NAMESPACE, NAME) => true,
            _ => false,
        };
        // By each of them all are looked at: one that was missing before anybody looked is found, too.
        let all = || {
            let maps = [ROOT_CA, SETTINGS].map(|name| Key::new(Kind::ConfigMap, SYSTEM_NAMESPACE, name));
            let others = [Kind::Service, Kind::EndpointSlice].map(|kind| Key::new(kind, NAMESPACE, NAME));
            maps.into_iter().chain(others)
        };
        is_ours.then(all).into_iter().flatten().collect()
    }

    fn plan(&self, state: &Snapshot, key: &Key, _now: Timestamp) -> Plan {
        Plan { ops: ops(state, self).filter(|op| op.key() == key).collect(), ..Plan::default() }
    }
}

/// What is not as it should be, at most one op an object.
fn ops(state: &Snapshot, access: &Access) -> impl Iterator<Item = Op> {
    let settings = put(state, settings(&access.settings), with_data);
    let authority = put(state, authority(access), |it: &mut ConfigMap, wanted| it.data = wanted.data);
    let slice = put(state, slice(access), |it: &mut EndpointSlice, wanted| {
        (it.endpoints, it.ports, it.metadata.labels) = (wanted.endpoints, wanted.ports, wanted.metadata.labels);
    });
    [settings, authority, service_op(state, service(access)), slice].into_iter().flatten()
}

/// What else is in it stays.
pub fn with_data(it: &mut ConfigMap, wanted: ConfigMap) {
    it.data.get_or_insert_default().extend(wanted.data.unwrap_or_default());
}

fn service_op(state: &Snapshot, wanted: Service) -> Option<Op> {
    let address = |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    let stored = state.find(Kind::Service, NAMESPACE, NAME);
    if let Some(old) = stored.filter(|old| old.get::<Service>().is_some_and(|old| address(old) != address(&wanted))) {
        return (!old.is_deleting()).then(|| Op::Delete { before: old.clone(), grace_seconds: None });
    }
    put(state, wanted, |it: &mut Service, wanted| {
        if let (Some(spec), Some(wanted)) = (&mut it.spec, wanted.spec) {
            // With node ports it would never have the ports wanted.
            (spec.type_, spec.ports, spec.selector) = (Some("ClusterIP".to_owned()), wanted.ports, None);
        }
    })
}

/// The op after which an object says what is wanted of it.
pub(super) fn put<T: ApiType>(state: &Snapshot, wanted: T, change: impl FnOnce(&mut T, T)) -> Option<Op> {
    let object = Object::new(wanted.clone());
    let Some(current) = state.get(object.key()) else { return Some(Op::Create(object)) };
    let after = current.edit(|it: &mut T| change(it, wanted))?;
    (after != *current).then(|| Op::Update { before: current.clone(), after })
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
    let address = service_address(access.settings.service_range).map(|address| address.to_string());
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
    use crate::driver;
    use crate::store::memory::MemoryStore;
    use crate::store::{Precondition, Write};

    fn access(range: &str, address: [u8; 4]) -> Access {
        let settings =
            ClusterSettings { service_range: range.parse().unwrap(), pod_range: "10.80.0.0/16".parse().unwrap(), node_prefix: 24 };
        Access { authority: "pem".to_owned(), settings, address: Some(address.into()), port: 6443 }
    }

    async fn store() -> Arc<dyn Store> {
        let store = MemoryStore::new(Arc::new(SystemClock));
        let namespace = |name: &str| Object::from_value(Kind::Namespace, serde_json::json!({"metadata": {"name": name}})).unwrap();
        for name in [NAMESPACE, SYSTEM_NAMESPACE] {
            store.commit(Transaction::new("test").with(Write::Create(namespace(name)))).await.unwrap();
        }
        Arc::new(store)
    }

    #[tokio::test]
    async fn what_somebody_removes_or_changes_comes_back() {
        let (store, access) = (store().await, access("10.96.0.0/16", [192, 0, 2, 1]));
        offer(store.as_ref(), &access).await;
        let keys = [
            Key::new(Kind::Service, NAMESPACE, NAME),
            Key::new(Kind::EndpointSlice, NAMESPACE, NAME),
            Key::new(Kind::ConfigMap, SYSTEM_NAMESPACE, ROOT_CA),
            Key::new(Kind::ConfigMap, SYSTEM_NAMESPACE, SETTINGS),
        ];
        let end = tokio_util::sync::CancellationToken::new();
        let _end = end.clone().drop_guard();
        tokio::spawn(driver::run(Arc::clone(&store), vec![Arc::new(access.clone())], Arc::new(SystemClock), end));
        // The first goes before the controllers look for the first time.
        for key in &keys {
            let mut watch = store.watch(store.snapshot().revision()).unwrap();
            let delete = Write::Delete { key: key.clone(), precondition: Precondition::exists(), grace_seconds: None };
            store.commit(Transaction::new("test").with(delete)).await.unwrap();
            let back = async { while !watch.next().await.unwrap().changes.iter().any(|it| it.before.is_none() && *it.key() == *key) {} };
            tokio::time::timeout(std::time::Duration::from_secs(60), back).await.unwrap_or_else(|_| panic!("{key} stays away"));
        }
        let edit_map = |it: &mut ConfigMap| it.data = None;
        let edit_service = |it: &mut Service| it.spec.get_or_insert_default().type_ = Some("NodePort".to_owned());
        let stored = |key: &Key| store.snapshot().get(key).cloned().unwrap();
        for changed in [stored(&keys[2]).edit(edit_map), stored(&keys[0]).edit(edit_service)] {
            let mut watch = store.watch(store.snapshot().revision()).unwrap();
            store.commit(Transaction::new("test").with(Write::Update(changed.unwrap(), Precondition::exists()))).await.unwrap();
            let back = async {
                while ops(&store.snapshot(), &access).next().is_some() {
                    watch.next().await.unwrap();
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), back).await.expect("what they say comes back");
        }
    }

    #[tokio::test]
    async fn what_pods_need_is_there_and_follows_the_server() {
        let store = store().await;
        let say = |kind: Kind, pointer: &str| {
            store.snapshot().get(&Key::new(kind, NAMESPACE, NAME)).unwrap().value().pointer(pointer).unwrap().as_str().unwrap().to_owned()
        };
        offer(store.as_ref(), &access("10.96.0.0/16", [192, 0, 2, 1])).await;
        assert_eq!(say(Kind::Service, "/spec/clusterIP"), "10.96.0.1");
        let revision = store.snapshot().revision();
        offer(store.as_ref(), &access("10.96.0.0/16", [192, 0, 2, 1])).await;
        assert_eq!(store.snapshot().revision(), revision, "again writes nothing");
        offer(store.as_ref(), &access("10.96.0.0/16", [192, 0, 2, 2])).await;
        assert_eq!(say(Kind::EndpointSlice, "/endpoints/0/addresses/0"), "192.0.2.2");
        offer(store.as_ref(), &access("10.97.0.0/16", [192, 0, 2, 2])).await;
        assert_eq!(say(Kind::Service, "/spec/clusterIP"), "10.97.0.1");
    }
}
