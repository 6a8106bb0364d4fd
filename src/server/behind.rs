//! Who is behind a port of a Service: the endpoints of its slices that take requests. PURE.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::model::{Kind, Object};
use crate::store::snapshot::Snapshot;

/// Which Service a slice belongs to (`discovery.k8s.io/v1 EndpointSlice`).
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// An endpoint that takes requests.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    pub address: &'a str,
    pub port: u16,
    /// Whose address that is said to be.
    pub target: Option<&'a ObjectReference>,
}

/// All of them at a port, by its name.
pub fn ready<'a>(state: &'a Snapshot, namespace: &str, service: &str, port: &str) -> Vec<Ready<'a>> {
    let slices = state.labelled_in(Kind::EndpointSlice, namespace, &format!("{OF_SERVICE}={service}"));
    slices.filter_map(Object::get::<EndpointSlice>).flat_map(|slice| of_slice(slice, port)).collect()
}

fn of_slice<'a>(slice: &'a EndpointSlice, port: &str) -> Vec<Ready<'a>> {
    let number = slice.ports.iter().flatten().find(|it| it.name.as_deref().unwrap_or_default() == port).and_then(|it| it.port);
    let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { return Vec::new() };
    let is_ready = |it: &&Endpoint| it.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten().filter(is_ready);
    endpoints.filter_map(|it| Some(Ready { address: it.addresses.first()?, port: number, target: it.target_ref.as_ref() })).collect()
}
