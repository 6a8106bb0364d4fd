//! Service and EndpointSlice. PURE.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::container::port_number;
use super::metadata::labels;
use super::{SPEC, names, one_of};
use crate::model::rule::{Errors, Path};

pub(super) fn service(it: &Service, errors: &mut Errors) {
    let Some(spec) = &it.spec else {
        errors.required(&SPEC, "");
        return;
    };
    let type_ = spec.type_.as_deref().unwrap_or_default();
    let headless = spec.cluster_ip.as_deref() == Some("None");
    one_of(Some(type_), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &SPEC.child("type"), errors);
    if spec.ports.as_ref().is_none_or(Vec::is_empty) && !headless && type_ != "ExternalName" {
        errors.required(&SPEC.child("ports"), "");
    }
    if headless && matches!(type_, "NodePort" | "LoadBalancer") {
        errors.invalid(&SPEC.child("clusterIPs[0]"), "None", &format!("may not be set to 'None' for {type_} services"));
    }
    if type_ == "ExternalName" {
        let name = spec.external_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.required(&SPEC.child("externalName"), "");
        }
    }
    ports(spec, type_, errors);
    labels(spec.selector.as_ref(), &SPEC.child("selector"), errors);
    affinity(spec, errors);
    addresses(spec, errors);
    one_of(spec.external_traffic_policy.as_deref(), &["Cluster", "Local"], &SPEC.child("externalTrafficPolicy"), errors);
    one_of(spec.internal_traffic_policy.as_deref(), &["Cluster", "Local"], &SPEC.child("internalTrafficPolicy"), errors);
}

fn affinity(spec: &ServiceSpec, errors: &mut Errors) {
    one_of(spec.session_affinity.as_deref(), &["ClientIP", "None"], &SPEC.child("sessionAffinity"), errors);
    let timeout = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref()).and_then(|it| it.timeout_seconds);
    if let Some(seconds) = timeout.filter(|it| !(1..=86_400).contains(it)) {
        let at = SPEC.child("sessionAffinityConfig.clientIP.timeoutSeconds");
        errors.invalid(&at, &seconds, "must be greater than 0 and less than 86400");
    }
}

fn addresses(spec: &ServiceSpec, errors: &mut Errors) {
    let at = SPEC.child("clusterIPs");
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    for (index, address) in all.iter().enumerate() {
        if address != "None" {
            errors.all(&at.index(index), address, names::ip_address(address));
        }
    }
    if all.len() > 1 && all.iter().any(|it| it == "None") {
        errors.invalid(&at, all, "'None' must be the first and only value");
    }
    let first = all.first().map(String::as_str).unwrap_or_default();
    if first != spec.cluster_ip.as_deref().unwrap_or_default() {
        errors.invalid(&at, all, "first value must match `clusterIP`");
    }
    one_of(
        spec.ip_family_policy.as_deref(),
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
        &SPEC.child("ipFamilyPolicy"),
        errors,
    );
    let families = SPEC.child("ipFamilies");
    for (index, family) in spec.ip_families.iter().flatten().enumerate() {
        one_of(Some(family), &["IPv4", "IPv6"], &families.index(index), errors);
    }
}

fn ports(spec: &ServiceSpec, type_: &str, errors: &mut Errors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let path = SPEC.child("ports");
    let (mut by_name, mut by_number, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, it) in ports.iter().enumerate() {
        let at = path.index(index);
        port(it, ports.len() > 1, type_, &at, errors);
        let protocol = it.protocol.as_deref().unwrap_or("TCP");
        if let Some(name) = it.name.as_deref().filter(|name| !name.is_empty())
            && !by_name.insert(name)
        {
            errors.duplicate(&at.child("name"), name);
        }
        if !by_number.insert((protocol, it.port)) {
            errors.duplicate(&at, &json!({"port": it.port, "protocol": protocol}));
        }
        if let Some(number) = it.node_port.filter(|number| *number != 0)
            && !node_ports.insert((protocol, number))
        {
            errors.duplicate(&at, &json!({"nodePort": number, "protocol": protocol}));
        }
    }
}

fn port(it: &ServicePort, named: bool, type_: &str, path: &Path<'_>, errors: &mut Errors) {
    match it.name.as_deref().unwrap_or_default() {
        "" if named => errors.required(&path.child("name"), ""),
        "" => {}
        name => errors.all(&path.child("name"), name, names::dns_label(name)),
    }
    port_number(it.port, &path.child("port"), errors);
    match it.protocol.as_deref().unwrap_or_default() {
        "" => errors.required(&path.child("protocol"), ""),
        protocol => one_of(Some(protocol), &["SCTP", "TCP", "UDP"], &path.child("protocol"), errors),
    }
    match &it.target_port {
        Some(IntOrString::Int(number)) => port_number(*number, &path.child("targetPort"), errors),
        Some(IntOrString::String(name)) => errors.all(&path.child("targetPort"), name, names::port_name(name)),
        None => {}
    }
    if it.node_port.is_some_and(|number| number != 0) && !matches!(type_, "NodePort" | "LoadBalancer") {
        errors.forbidden(&path.child("nodePort"), &format!("may not be used when `type` is '{type_}'"));
    }
    if let Some(name) = it.app_protocol.as_deref().filter(|name| !name.is_empty()) {
        errors.all(&path.child("appProtocol"), name, names::qualified_name(name));
    }
}

pub(super) fn endpoint_slice(it: &EndpointSlice, errors: &mut Errors) {
    let at = Path::root("addressType");
    if it.address_type.is_empty() {
        errors.required(&at, "");
    }
    one_of(Some(&it.address_type), &["FQDN", "IPv4", "IPv6"], &at, errors);
    let path = Path::root("endpoints");
    let endpoints = it.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > 1000 {
        errors.too_many(&path, endpoints.len(), 1000);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        self::endpoint(endpoint, &it.address_type, &path.index(index), errors);
    }
    let path = Path::root("ports");
    let ports = it.ports.as_deref().unwrap_or_default();
    if ports.len() > 100 {
        errors.too_many(&path, ports.len(), 100);
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.all(&at.child("name"), name, names::dns_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        }
        if let Some(number) = port.port {
            port_number(number, &at.child("port"), errors);
        }
        one_of(port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], &at.child("protocol"), errors);
    }
}

fn endpoint(it: &Endpoint, address_type: &str, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("addresses");
    match it.addresses.len() {
        0 => errors.required(&at, "must contain at least 1 address"),
        1..=100 => {}
        many => errors.too_many(&at, many, 100),
    }
    for (index, address) in it.addresses.iter().enumerate() {
        let at = at.index(index);
        match address_type {
            "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => errors.invalid(&at, address, "must be a valid IPv4 address"),
            "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => errors.invalid(&at, address, "must be a valid IPv6 address"),
            "IPv4" | "IPv6" => {
                let wrong = address.parse().map(names::endpoint_address).unwrap_or_default();
                errors.all(&at, address, wrong);
            }
            "FQDN" => errors.all(&at, address, names::dns_subdomain(address)),
            _ => {}
        }
    }
    if let Some(name) = it.node_name.as_deref().filter(|name| !name.is_empty()) {
        errors.all(&path.child("nodeName"), name, names::dns_subdomain(name));
    }
    if let Some(name) = it.hostname.as_deref().filter(|name| !name.is_empty()) {
        errors.all(&path.child("hostname"), name, names::dns_label(name));
    }
}
