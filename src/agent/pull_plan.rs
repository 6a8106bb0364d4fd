//! Which images a container needs before it is made: its own, and those that it mounts. PURE.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::model::pod::all_containers;

/// Before a volume's name; no container's name has a slash.
const OF_VOLUME: &str = "volume/";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed<'a> {
    /// Whose it is: a container's name, or a volume's after `volume/`.
    pub owner: String,
    pub image: &'a str,
    /// `Always`, `IfNotPresent` or `Never`.
    pub policy: &'a str,
}

/// What a container of the pod needs.
pub fn needed<'a>(spec: &'a PodSpec, container: &'a Container) -> Vec<Needed<'a>> {
    let own = need(container.name.clone(), container.image.as_deref(), container.image_pull_policy.as_deref());
    let is_mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    let volumes = spec.volumes.iter().flatten().filter(|volume| is_mounted(&volume.name));
    let of_volumes = volumes.filter_map(|volume| {
        let source = volume.image.as_ref()?;
        Some(need(format!("{OF_VOLUME}{}", volume.name), source.reference.as_deref(), source.pull_policy.as_deref()))
    });
    std::iter::once(own).chain(of_volumes).collect()
}

fn need<'a>(owner: String, image: Option<&'a str>, policy: Option<&'a str>) -> Needed<'a> {
    let policy = policy.filter(|policy| !policy.is_empty());
    Needed { owner, image: image.unwrap_or_default(), policy: policy.unwrap_or_else(|| crate::model::defaults::pull_policy(image)) }
}

/// The policy for the image of this owner.
pub fn policy_of<'a>(spec: &'a PodSpec, owner: &str) -> Option<&'a str> {
    let ephemeral = || {
        let found = spec.ephemeral_containers.iter().flatten().find(|it| it.name == owner)?;
        Some(need(owner.to_owned(), found.image.as_deref(), found.image_pull_policy.as_deref()).policy)
    };
    let mut all = all_containers(spec).flat_map(|container| needed(spec, container));
    all.find(|needed| needed.owner == owner).map(|needed| needed.policy).or_else(ephemeral)
}

/// The container among owners; none: it is a volume.
pub fn container_of(owner: &str) -> Option<&str> {
    Some(owner).filter(|owner| !owner.starts_with(OF_VOLUME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_needs_its_image_and_those_that_it_mounts() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [{"name": "data", "image": {"reference": "data"}}, {"name": "other", "image": {"reference": "other:1"}},
                {"name": "never", "image": {"reference": "never:1", "pullPolicy": "Never"}}, {"name": "scratch", "emptyDir": {}}],
            "containers": [{"name": "main", "image": "img:1", "volumeMounts": [{"name": "data", "mountPath": "/a"},
                {"name": "data", "mountPath": "/b"}, {"name": "never", "mountPath": "/c"}, {"name": "scratch", "mountPath": "/d"}]},
                {"name": "plain", "image": "img"}]}))
        .unwrap();
        let all = |index: usize| -> Vec<String> {
            let needed = needed(&spec, &spec.containers[index]).into_iter();
            needed.map(|one| format!("{} {} {}", one.owner, one.image, one.policy)).collect()
        };
        assert_eq!(all(0), ["main img:1 IfNotPresent", "volume/data data Always", "volume/never never:1 Never"]);
        assert_eq!(all(1), ["plain img Always"]);
        let policies = ["main", "volume/data", "volume/other", "data"].map(|owner| policy_of(&spec, owner));
        assert_eq!(policies, [Some("IfNotPresent"), Some("Always"), None, None]);
        assert_eq!(["main", "volume/data"].map(container_of), [Some("main"), None]);
    }
}
