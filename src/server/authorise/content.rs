//! What may be said in what may be written: by nodes of themselves, by anybody of rights. PURE.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Event, Node, Pod, VolumeProjection};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{config_maps, escalation, node_of, secrets, signers};
use crate::model::local_volume::{LOCAL_PATH, is_home};
use crate::model::volume;
use crate::model::{Key, Kind, MIRROR, Object};
use crate::server::identity::Identity;
use crate::store::snapshot::Snapshot;

/// Labels of Kubernetes' own prefixes that a node may say of itself.
fn own_label(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
    ];
    NAMES.contains(&name) || name.starts_with("kubelet.kubernetes.io/") || name.starts_with("node.kubernetes.io/")
}

/// Labels only an admin gives: they steer where pods go.
fn reserved_label(name: &str) -> bool {
    let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
    let kubernetes = ["kubernetes.io", "k8s.io", "podbay.dev"];
    !own_label(name) && kubernetes.iter().any(|domain| prefix == *domain || prefix.ends_with(&format!(".{domain}")))
}

/// Whether the object somebody wants to write says only what they may say.
///
/// # Errors
/// The sentence for a 403.
pub fn content(
    identity: &Identity,
    subresource: Option<&str>,
    current: Option<&Object>,
    wanted: &Object,
    state: &Snapshot,
) -> Result<(), String> {
    if identity.is_admin() {
        return Ok(());
    }
    escalation::check(identity, current, wanted, state)?;
    match subresource {
        Some("approval") => signers::check("approve", identity, wanted, state)?,
        Some("status") => signers::check("sign", identity, wanted, state)?,
        _ => {}
    }
    let Some(node) = identity.node_name() else { return Ok(()) };
    let key = wanted.key();
    match (key.kind, subresource) {
        (Kind::Node | Kind::Lease | Kind::CSINode, _) if key.name != node => {
            Err(format!("{key} is forbidden: node \"{node}\" may write its own only"))
        }
        (Kind::Node, None | Some("status")) => node_content(node, current, wanted),
        (Kind::PersistentVolume, None) => volume_content(node, current, wanted),
        (Kind::Event, None) => [current, Some(wanted)].into_iter().flatten().try_for_each(|event| event_content(node, event, state)),
        // A request may be asked for while the pod is this node's, and be read when it is another one's.
        (Kind::Pod, Some("status")) if current.is_some_and(|current| node_of(current) != Some(node)) => {
            Err(format!("{key} is forbidden: it is not on node \"{node}\""))
        }
        (Kind::Pod, Some("status")) => pod_content(node, current, wanted, state),
        (Kind::Pod, None) => mirror_content(node, wanted, state),
        _ => Ok(()),
    }
}

fn node_content(node: &str, current: Option<&Object>, wanted: &Object) -> Result<(), String> {
    let no = |what: &str| Err(format!("nodes \"{node}\" is forbidden: node \"{node}\" is not allowed to {what}"));
    let Some(new) = wanted.get::<Node>() else { return Ok(()) };
    let Some(current) = current else {
        let spec = new.spec.clone().unwrap_or_default();
        if spec.pod_cidr.is_some() || spec.pod_cidrs.is_some() {
            return no("choose its pod range");
        }
        return match wanted.labels().keys().find(|name| reserved_label(name)) {
            Some(label) => no(&format!("set the label {label}")),
            None => Ok(()),
        };
    };
    let Some(old) = current.get::<Node>() else { return Ok(()) };
    let names: BTreeSet<&String> = current.labels().keys().chain(wanted.labels().keys()).collect();
    for name in names {
        if current.labels().get(name) != wanted.labels().get(name) && !own_label(name) {
            return no(&format!("change the label {name}"));
        }
    }
    // As they are written: in memory a taint's time is finer than anybody can say it.
    let said = |node: &Node| serde_json::to_value(node.spec.clone().unwrap_or_default()).unwrap_or_default();
    let (before, after) = (said(old), said(new));
    if before["taints"] != after["taints"] {
        return no("change its taints");
    }
    if before != after {
        return no("change its spec");
    }
    if old.metadata.owner_references != new.metadata.owner_references || old.metadata.finalizers != new.metadata.finalizers {
        return no("change its owners or finalizers");
    }
    Ok(())
}

/// Of a volume that is a directory of its own and is to go, a node says that the directory is gone, and nothing else.
fn volume_content(node: &str, current: Option<&Object>, wanted: &Object) -> Result<(), String> {
    let plain = |object: &Object| {
        object.clone().edit_meta(|meta| {
            (meta.managed_fields, meta.resource_version) = (None, None);
            meta.finalizers = meta.finalizers.take().filter(|all| !all.is_empty());
        })
    };
    let is_its = |current: &Object| current.is_deleting() && is_home(current, node);
    match current.filter(|current| is_its(current)).map(|current| plain(&current.without_finalizer(LOCAL_PATH))) {
        Some(removed) if removed == plain(wanted) => Ok(()),
        _ => Err(format!("{} is forbidden: node \"{node}\" may only say that a directory of its own is removed", wanted.key())),
    }
}

/// An event says who saw what: a node saw what happens to itself, its pods and its volumes.
fn event_content(node: &str, object: &Object, state: &Snapshot) -> Result<(), String> {
    let no = |what: &str| {
        let name = &object.key().name;
        Err(format!("events \"{name}\" is forbidden: node \"{node}\" may only {what}"))
    };
    let Some(event) = object.get::<Event>() else { return Ok(()) };
    let told_by = [event.source.as_ref().and_then(|source| source.host.as_deref()), event.reporting_instance.as_deref()];
    let mut told_by = told_by.into_iter().flatten().filter(|name| !name.is_empty()).peekable();
    if told_by.peek().is_none() || told_by.any(|name| name != node) {
        return no("write events that it reports itself");
    }
    let about = &event.involved_object;
    let name = about.name.as_deref().unwrap_or_default();
    let is_own = match about.kind.as_deref() {
        Some("Node") => name == node,
        Some("PersistentVolume") => state.find(Kind::PersistentVolume, "", name).is_some_and(|volume| is_home(volume, node)),
        Some("Pod") => {
            let key = Key::new(Kind::Pod, object.key().namespace.clone(), name);
            let same_place = about.namespace.as_deref().is_none_or(|namespace| namespace == key.namespace);
            same_place && state.get(&key).is_some_and(|pod| node_of(pod) == Some(node))
        }
        _ => false,
    };
    if is_own { Ok(()) } else { no("write events about itself, its pods and its volumes") }
}

/// A pod that a node makes stands for one that it runs by itself (a static pod): it is on that node, goes with it, and
/// refers to nothing that the node might read for it (`plugin/pkg/admission/noderestriction`, `admitPodCreate`).
fn mirror_content(node: &str, wanted: &Object, state: &Snapshot) -> Result<(), String> {
    let no = |what: &str| Err(format!("{} is forbidden: node \"{node}\" {what}", wanted.key()));
    let Some(pod) = wanted.get::<Pod>() else { return Ok(()) };
    if wanted.annotation(MIRROR).is_none() {
        return no(&format!("can only create mirror pods: this one has no annotation {MIRROR}"));
    }
    if node_of(wanted) != Some(node) {
        return no("can only create pods with spec.nodeName set to itself");
    }
    let uid = state.get(&Key::cluster(Kind::Node, node)).map(Object::uid);
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let is_itself = |owner: &OwnerReference| {
        let named = (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str()) == ("v1", "Node", node);
        named && owner.controller == Some(true) && owner.block_owner_deletion != Some(true) && Some(owner.uid.as_str()) == uid
    };
    if !matches!(owners, [owner] if is_itself(owner)) {
        return no("can only create pods with a single controller reference, which is to itself");
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let claims = volume::claims(pod).next().is_some();
    // By either of its names: the one is copied to the other when the pod is defaulted.
    let account = [&spec.service_account_name, &spec.service_account].into_iter().flatten().any(|name| !name.is_empty());
    let tokens = |source: &VolumeProjection| source.service_account_token.is_some() || source.cluster_trust_bundle.is_some();
    let mut projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    if account || claims || projected.any(tokens) || !secrets(&spec).is_empty() || !config_maps(&spec).is_empty() {
        return no("can not create pods that refer to accounts, secrets, configmaps, claims or bundles");
    }
    Ok(())
}

/// Where a Service sends its clients is not a node's to choose: a pod is in the node's range, or at
/// the node's own address. What is stored already stays sayable.
fn pod_content(node: &str, current: Option<&Object>, wanted: &Object, state: &Snapshot) -> Result<(), String> {
    let labels = |object: &Object| object.meta().labels.clone().unwrap_or_default();
    if current.is_some_and(|current| labels(current) != labels(wanted)) {
        return Err(format!("{} is forbidden: node \"{node}\" cannot update labels through pod status", wanted.key()));
    }
    let before = current.and_then(|object| object.get::<Pod>()).map(addresses).unwrap_or_default();
    let Some(pod) = wanted.get::<Pod>() else { return Ok(()) };
    let here = state.get(&Key::cluster(Kind::Node, node)).and_then(|object| object.get::<Node>());
    for address in addresses(pod).difference(&before) {
        let known = here.is_some_and(|here| may_have(here, pod, address));
        if !known {
            let key = wanted.key();
            return Err(format!(
                "{key} is forbidden: node \"{node}\" is not allowed to give a pod the address {address:?}: not of its range"
            ));
        }
    }
    Ok(())
}

fn addresses(pod: &Pod) -> BTreeSet<&str> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.as_str());
    all.chain(status.and_then(|status| status.pod_ip.as_deref())).filter(|ip| !ip.is_empty()).collect()
}

fn may_have(node: &Node, pod: &Pod, address: &str) -> bool {
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        let mut own = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        return own.any(|own| own.address == address);
    }
    let spec = node.spec.as_ref();
    let ranges = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    let mut ranges = ranges.chain(spec.and_then(|spec| spec.pod_cidr.as_ref()));
    address.parse().is_ok_and(|address| ranges.any(|range| is_in(range, address)))
}

fn is_in(range: &str, address: Ipv4Addr) -> bool {
    let Some((base, prefix)) = range.split_once('/') else { return false };
    match (base.parse::<Ipv4Addr>(), prefix.parse::<u32>()) {
        (Ok(base), Ok(prefix @ 0..=32)) => (base.to_bits() ^ address.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0,
        _ => false,
    }
}
