//! Kinds that exist and are not served, told from slips of the pen. PURE.
//!
//! A source may leave out what Podbay does not serve. A kind that nobody has is no such thing: to
//! leave it out would be to forget the object that was meant.

use crate::model::{Kind, schema};

/// Kubernetes' kinds that are not served, by API group. These groups hold nothing else.
const KUBERNETES: &[(&str, &[&str])] = &[
    ("", &["Binding", "ComponentStatus", "Endpoints", "LimitRange", "PodTemplate", "ReplicationController", "ResourceQuota"]),
    ("apiextensions.k8s.io", &[]),
    ("apps", &["ControllerRevision", "DaemonSet", "StatefulSet"]),
    ("autoscaling", &[]),
    ("batch", &["CronJob"]),
    ("coordination.k8s.io", &["LeaseCandidate"]),
    ("discovery.k8s.io", &[]),
    ("extensions", &["DaemonSet", "Ingress", "NetworkPolicy", "PodSecurityPolicy"]),
    ("podbay.dev", &[]),
    ("storage.k8s.io", &["CSIStorageCapacity", "VolumeAttachment", "VolumeAttributesClass"]),
    ("policy", &["PodDisruptionBudget", "PodSecurityPolicy"]),
];

/// Whether a kind that is not served is somebody else's, and no slip. Every group that is not
/// Kubernetes' own has a dot in its name.
pub(super) fn is_foreign(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match KUBERNETES.iter().find(|(name, _)| *name == group) {
        Some((_, kinds)) => kinds.contains(&kind),
        None => group.contains('.') && !(is_like_a_group(group) && is_like_a_kind(kind)),
    }
}

fn is_like_a_group(group: &str) -> bool {
    let groups = Kind::all().iter().map(|row| row.group).filter(|name| name.contains('.'));
    schema::nearest(group, groups).is_some()
}

fn is_like_a_kind(kind: &str) -> bool {
    schema::nearest(kind, Kind::all().iter().map(|row| row.name)).is_some()
}

#[cfg(test)]
mod tests {
    use super::is_foreign;

    #[test]
    fn slips_are_not_foreign_kinds() {
        for (api_version, kind, foreign) in [
            ("batch/v1", "CronJob", true),
            ("v1", "ResourceQuota", true),
            ("v1", "PersistentVolumeClam", false),
            ("storage.k8s.io/v1", "CSIStorageCapacity", true),
            ("networking.k8s.io/v1", "Ingress", true),
            ("cert-manager.io/v1", "Certificate", true),
            ("serving.knative.dev/v1", "Service", true),
            ("v1", "ConfgMap", false),
            ("v1", "CM", false),
            ("v1", "deploy", false),
            ("apps", "Deployment", false),
            ("app/v1", "Deployment", false),
            ("extensions/v1beta1", "Deployment", false),
            ("batch/v1beta1", "Jobs", false),
            ("discovery.k8s.io/v1", "EndpointSlices", false),
            ("discovry.k8s.io/v1", "EndpointSlice", false),
            ("podbay.dev/v2", "Source", false),
        ] {
            assert_eq!(is_foreign(api_version, kind), foreign, "{kind} of {api_version}");
        }
    }
}
