//! What is valid in pods and hardly meant: the sentences of Kubernetes' `pkg/api/pod/warnings.go` on the fields that are
//! served here, and those of its strategies on names. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use k8s_openapi::api::core::v1::{Container, ContainerPort, KeyToPath, PodSpec, Volume, VolumeProjection};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names;
use crate::model::quantity::Quantity;
use crate::model::rule::Path;
use crate::model::{Typed, defaults, pod};

/// Labels of nodes that have other names now (Kubernetes' `pkg/api/node/util.go`).
const OLD_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];
/// Annotations that do nothing any more: since when, and what does.
const DEAD: [(&str, &str, &str); 3] = [
    ("scheduler.alpha.kubernetes.io/critical-pod", "v1.16", "priorityClassName"),
    ("security.alpha.kubernetes.io/sysctls", "v1.11", "sysctls"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "v1.11", "sysctls"),
];
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Sentences about one object, and bytes of each: it is looked at before it is validated, and may hold anything.
const MOST: usize = 32;
const LONGEST_BYTES: usize = 1024;
/// Ports, and files of a volume, that are compared with each other: further ones are let be.
const COMPARED: usize = 1000;

/// What to tell whoever writes this object. Of a changed workload only where its spec did change, of a changed pod nothing:
/// as Kubernetes does it (`WarningsOnUpdate` of the strategies).
pub fn warnings(new: &Typed, old: Option<&Typed>) -> Vec<String> {
    let mut found = Found(Vec::new());
    let template = match new {
        Typed::Pod(it) if old.is_none() => {
            found.name(&it.metadata, "the Pod's hostname");
            if let Some(spec) = &it.spec {
                found.pod(&it.metadata, spec, &Path::root(""));
            }
            return found.0;
        }
        Typed::Deployment(it) => Some(&it.spec.template),
        Typed::ReplicaSet(it) => it.spec.template.as_ref(),
        Typed::Job(it) => it.spec.as_ref().map(|spec| &spec.template),
        _ => None,
    };
    let Some((template, spec)) = template.and_then(|template| Some((template, template.spec.as_ref()?))) else { return found.0 };
    if old.is_none() {
        found.name(new.meta(), "Pod names and hostnames");
    }
    found.pod(template.metadata.as_ref().unwrap_or(&ObjectMeta::default()), spec, &Path::root("spec.template"));
    if !found.0.is_empty() && old.is_some_and(|old| same_spec(new, old)) {
        return Vec::new();
    }
    found.0
}

/// Whether a write leaves a workload as it is. What is stored is defaulted, what is written need not be.
fn same_spec(new: &Typed, old: &Typed) -> bool {
    let mut new = new.clone();
    defaults::apply(&mut new);
    match (&new, old) {
        (Typed::Deployment(new), Typed::Deployment(old)) => new.spec == old.spec,
        (Typed::ReplicaSet(new), Typed::ReplicaSet(old)) => new.spec == old.spec,
        (Typed::Job(new), Typed::Job(old)) => new.spec == old.spec,
        _ => false,
    }
}

struct Found(Vec<String>);

impl Found {
    fn say(&mut self, path: &Path<'_>, what: impl Display) {
        self.tell(format_args!("{path}: {what}"));
    }

    fn tell(&mut self, sentence: std::fmt::Arguments<'_>) {
        if self.0.len() < MOST {
            let mut sentence = sentence.to_string();
            sentence.truncate(sentence.floor_char_boundary(LONGEST_BYTES));
            sentence.shrink_to_fit();
            self.0.push(sentence);
        }
    }

    fn name(&mut self, meta: &ObjectMeta, used_in: &str) {
        let wrong = names::dns_label(meta.name.as_deref().unwrap_or_default());
        if !wrong.is_empty() {
            let why = wrong.join(" ");
            self.tell(format_args!(
                "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{why}]"
            ));
        }
    }

    fn pod(&mut self, meta: &ObjectMeta, spec: &PodSpec, root: &Path<'_>) {
        let path = root.child("spec");
        for (label, since, now) in spec.node_selector.iter().flat_map(BTreeMap::keys).filter_map(|label| renamed(label)) {
            self.say(&path.child("nodeSelector").key(label), format_args!("deprecated since {since}; use \"{now}\" instead"));
        }
        self.annotations(meta, spec, root);
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            let claim = volume.ephemeral.as_ref().and_then(|it| it.volume_claim_template.as_ref()?.spec.resources.as_ref());
            for (list, amounts) in claim.into_iter().flat_map(|it| [("requests", &it.requests), ("limits", &it.limits)]) {
                let (volumes, field) = (path.child("volumes"), format!("ephemeral.volumeClaimTemplate.spec.resources.{list}"));
                self.fraction(amounts.as_ref(), "storage", &volumes.index(index).child(&field));
            }
        }
        spec.volumes.iter().flatten().for_each(|volume| self.overlaps(volume));
        let addresses: Vec<&str> = spec.host_aliases.iter().flatten().map(|it| it.ip.as_str()).collect();
        self.duplicates(&addresses, &path.child("hostAliases"), "ip");
        let secrets: Vec<&str> = spec.image_pull_secrets.iter().flatten().map(|it| it.name.as_str()).collect();
        let list = path.child("imagePullSecrets");
        self.duplicates(&secrets, &list, "name");
        for index in secrets.iter().enumerate().filter(|(_, name)| name.is_empty()).map(|(index, _)| index) {
            self.say(&list.index(index).child("name"), "invalid empty name \"\"");
        }
        for amount in ["memory", "ephemeral-storage"] {
            self.fraction(spec.overhead.as_ref(), amount, &path.child("overhead"));
        }
        each(spec, &path, &mut |container, at| self.container(container, at));
        self.ports(spec, &path);
    }

    /// What was said by annotations before there were fields.
    fn annotations(&mut self, meta: &ObjectMeta, spec: &PodSpec, root: &Path<'_>) {
        let Some(said) = meta.annotations.as_ref().filter(|said| !said.is_empty()) else { return };
        let path = root.child("metadata.annotations");
        for (key, since, now) in DEAD.into_iter().filter(|(key, ..)| said.contains_key(*key)) {
            self.say(&path.key(key), format_args!("non-functional in {since}+; use the \"{now}\" field instead"));
        }
        let of_pod = spec.security_context.as_ref();
        if said.contains_key(SECCOMP_OF_POD) && of_pod.is_none_or(|it| it.seccomp_profile.is_none()) {
            self.say(&path.key(SECCOMP_OF_POD), "non-functional in v1.27+; use the \"seccompProfile\" field instead");
        }
        let is_confined = of_pod.is_some_and(|it| it.app_armor_profile.is_some());
        each(spec, &root.child("spec"), &mut |container, _| {
            let own = container.security_context.as_ref();
            let key = format!("{SECCOMP_OF_CONTAINER}{}", container.name);
            if said.contains_key(&key) && own.is_none_or(|it| it.seccomp_profile.is_none()) {
                self.say(&path.key(&key), "non-functional in v1.27+; use the \"seccompProfile\" field instead");
            }
            let key = format!("{APPARMOR}{}", container.name);
            if said.contains_key(&key) && !is_confined && own.is_none_or(|it| it.app_armor_profile.is_none()) {
                self.say(&path.key(&key), "deprecated since v1.30; use the \"appArmorProfile\" field instead");
            }
        });
    }

    /// Texts that are there again.
    fn duplicates(&mut self, texts: &[&str], list: &Path<'_>, field: &str) {
        let mut seen = BTreeSet::new();
        for (index, text) in texts.iter().enumerate().filter(|(_, text)| !seen.insert(**text)) {
            self.say(&list.index(index).child(field), format_args!("duplicate {field} {text:?}"));
        }
    }

    /// Parts of a byte: `64m` is no 64 megabytes.
    fn fraction(&mut self, amounts: Option<&BTreeMap<String, ApiQuantity>>, name: &str, path: &Path<'_>) {
        let amount = amounts.and_then(|amounts| amounts.get(name)).map(Quantity::of);
        if let Some(amount) = amount.filter(|it| it.nanos() % Quantity::from_units(1).nanos() != 0) {
            let text = amount.to_string();
            self.say(&path.key(name), format_args!("fractional byte value {text:?} is invalid, must be an integer"));
        }
    }

    fn container(&mut self, it: &Container, path: &Path<'_>) {
        for amount in ["memory", "ephemeral-storage"] {
            let resources = it.resources.as_ref();
            self.fraction(resources.and_then(|it| it.limits.as_ref()), amount, &path.child("resources.limits"));
            self.fraction(resources.and_then(|it| it.requests.as_ref()), amount, &path.child("resources.requests"));
        }
        let (mut seen, list) = (BTreeSet::new(), path.child("env"));
        for (index, variable) in it.env.iter().flatten().enumerate().filter(|(_, variable)| !seen.insert(&variable.name)) {
            let (name, value) = (&variable.name, variable.value.as_deref().unwrap_or_default());
            let reference = format!("$({name})");
            // One that adds to the earlier one needs it.
            if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
                let what = format_args!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.say(&list.index(index), what);
            }
        }
    }

    /// Ports of all containers together: they share an address.
    fn ports(&mut self, spec: &PodSpec, path: &Path<'_>) {
        let mut seen: Vec<(ContainerPort, String)> = Vec::new();
        each(spec, path, &mut |container, at| {
            let list = at.child("ports");
            for (index, port) in container.ports.iter().flatten().enumerate() {
                let (host, ip, protocol) = facts(port);
                let (place, number) = (list.index(index), port.container_port);
                if !ip.is_empty() && host == 0 {
                    let name = port.name.as_deref().unwrap_or_default();
                    let printed = format!("{{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}");
                    self.say(&place, format_args!("hostIP set without hostPort: {printed}"));
                }
                if seen.len() >= COMPARED {
                    return;
                }
                let same = |other: &&(ContainerPort, String)| other.0.container_port == number && facts(&other.0).2 == protocol;
                for (other, where_) in seen.iter().filter(same) {
                    let (other_host, other_ip, _) = facts(other);
                    let how = if (host, ip) == (other_host, other_ip) {
                        "duplicate"
                    } else if host == 0 || other_host == 0 {
                        "overlapping"
                    } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                        "dangerously ambiguous"
                    } else {
                        continue;
                    };
                    self.say(&place, format_args!("{how} port definition with {where_}"));
                }
                seen.push((port.clone(), place.to_string()));
            }
        });
    }

    /// Files of a volume that get into each other's way: the same path, or one below the other.
    fn overlaps(&mut self, volume: &Volume) {
        let name = &volume.name;
        if let Some(it) = &volume.config_map {
            self.files(&format!("{name:?} (ConfigMap {:?})", it.name), &keys(it.items.as_deref()), &mut Vec::new());
        }
        if let Some(it) = &volume.secret {
            let secret = it.secret_name.as_deref().unwrap_or_default();
            self.files(&format!("{name:?} (Secret {secret:?})"), &keys(it.items.as_deref()), &mut Vec::new());
        }
        if let Some(it) = &volume.downward_api {
            let paths: Vec<&str> = it.items.iter().flatten().map(|it| it.path.as_str()).collect();
            self.files(&format!("{name:?} (DownwardAPI)"), &paths, &mut Vec::new());
        }
        let mut earlier = Vec::new();
        for source in volume.projected.iter().flat_map(|it| it.sources.iter().flatten()) {
            if *source == VolumeProjection::default() {
                self.tell(format_args!("volume {name:?} (Projected) has no sources provided"));
            }
            for (what, paths) in projected(source) {
                self.files(&format!("{name:?} (Projected {what})"), &paths, &mut earlier);
            }
        }
    }

    fn files<'a>(&mut self, volume: &str, paths: &[&'a str], earlier: &mut Vec<&'a str>) {
        let room = COMPARED.saturating_sub(earlier.len());
        for path in paths.iter().map(|path| path.trim_end_matches('/')).filter(|path| !path.is_empty()).take(room) {
            let below = |path: &str, other: &str| path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(other) = earlier.iter().find(|other| below(path, other) || below(other, path)) {
                self.tell(format_args!("volume {volume}: overlapping paths: {path:?} with {other:?}"));
            }
            earlier.push(path);
        }
    }
}

/// Every container and its place, in Kubernetes' order.
fn each(spec: &PodSpec, path: &Path<'_>, see: &mut dyn FnMut(&Container, &Path<'_>)) {
    for (list, containers) in [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)] {
        let list = path.child(list);
        containers.iter().enumerate().for_each(|(index, it)| see(it, &list.index(index)));
    }
    let list = path.child("ephemeralContainers");
    for (index, it) in spec.ephemeral_containers.iter().flatten().enumerate() {
        see(&pod::plain(it), &list.index(index));
    }
}

fn renamed(label: &str) -> Option<(&'static str, &'static str, &'static str)> {
    OLD_LABELS.into_iter().find(|(old, ..)| *old == label)
}

/// The port of the host, its address, and the protocol.
fn facts(port: &ContainerPort) -> (i32, &str, &str) {
    (port.host_port.unwrap_or(0), port.host_ip.as_deref().unwrap_or_default(), port.protocol.as_deref().unwrap_or("TCP"))
}

fn keys(items: Option<&[KeyToPath]>) -> Vec<&str> {
    items.unwrap_or_default().iter().map(|it| it.path.as_str()).collect()
}

/// What a source is called, and the files that it names.
fn projected(it: &VolumeProjection) -> Vec<(String, Vec<&str>)> {
    let map = it.config_map.iter().map(|it| (format!("ConfigMap {:?}", it.name), keys(it.items.as_deref())));
    let secret = it.secret.iter().map(|it| (format!("Secret {:?}", it.name), keys(it.items.as_deref())));
    let told = it.downward_api.iter().map(|it| ("DownwardAPI".to_owned(), it.items.iter().flatten().map(|it| it.path.as_str()).collect()));
    let token = it.service_account_token.iter().map(|it| ("ServiceAccountToken".to_owned(), vec![it.path.as_str()]));
    map.chain(secret).chain(told).chain(token).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Kind, Object};

    fn object(kind: Kind, value: Value) -> Object {
        Object::from_value(kind, value).expect("an object")
    }

    /// What is said of a pod with this container and these fields besides.
    fn said(container: Value, more: Value) -> Vec<String> {
        let mut main = json!({"name": "a", "image": "i"});
        json_patch::merge(&mut main, &container);
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [main]}});
        json_patch::merge(&mut pod, &more);
        warnings(object(Kind::Pod, pod).typed(), None)
    }

    #[test]
    fn of_containers() {
        let table: [(Value, &[&str]); 9] = [
            (json!({"resources": {"limits": {"memory": "64Mi", "cpu": "100m"}}, "env": [{"name": "A", "value": "1"}]}), &[]),
            (
                json!({"resources": {"limits": {"memory": "64m"}, "requests": {"memory": "63m", "ephemeral-storage": "1500m"}}}),
                &[
                    "spec.containers[0].resources.limits[memory]: fractional byte value \"64m\" is invalid, must be an integer",
                    "spec.containers[0].resources.requests[memory]: fractional byte value \"63m\" is invalid, must be an integer",
                    "spec.containers[0].resources.requests[ephemeral-storage]: fractional byte value \"1500m\" is invalid, must be an integer",
                ],
            ),
            (
                json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
                &["spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"],
            ),
            (json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}), &[]),
            (
                json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)"}]}),
                &["spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"],
            ),
            (
                json!({"ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]}),
                &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
            ),
            (
                json!({"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80}]}),
                &["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"],
            ),
            (
                json!({"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}]}),
                &["spec.containers[0].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[0]"],
            ),
            (
                json!({"ports": [{"name": "web", "containerPort": 80, "hostIP": "10.0.0.1"}]}),
                &[
                    "spec.containers[0].ports[0]: hostIP set without hostPort: {Name:web HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}",
                ],
            ),
        ];
        for (container, warnings) in table {
            assert_eq!(said(container.clone(), json!({})), warnings, "{container}");
        }
        let other = json!({"spec": {"initContainers": [{"name": "b", "ports": [{"containerPort": 80}]}]}});
        let across = "spec.containers[0].ports[0]: duplicate port definition with spec.initContainers[0].ports[0]";
        assert_eq!(said(json!({"ports": [{"containerPort": 80}]}), other), [across]);
    }

    #[test]
    fn of_pods() {
        let key = "failure-domain.beta.kubernetes.io/zone";
        let zone = "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead";
        let profile = json!({"type": "RuntimeDefault"});
        let marks = json!({format!("{SECCOMP_OF_CONTAINER}a"): "x", format!("{APPARMOR}a"): "x", SECCOMP_OF_POD: "x", DEAD[0].0: ""});
        let claim = |size: &str| json!({"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": size}}}}}});
        let table: [(Value, Vec<String>); 6] = [
            (json!({"spec": {"nodeSelector": {key: "a"}}}), vec![format!("spec.nodeSelector[{key}]: {zone}")]),
            (
                json!({"metadata": {"annotations": marks}}),
                vec![
                    format!("metadata.annotations[{}]: non-functional in v1.16+; use the \"priorityClassName\" field instead", DEAD[0].0),
                    format!("metadata.annotations[{SECCOMP_OF_POD}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"),
                    format!("metadata.annotations[{SECCOMP_OF_CONTAINER}a]: non-functional in v1.27+; use the \"seccompProfile\" field instead"),
                    format!("metadata.annotations[{APPARMOR}a]: deprecated since v1.30; use the \"appArmorProfile\" field instead"),
                ],
            ),
            (
                json!({"metadata": {"annotations": {SECCOMP_OF_POD: "x", format!("{APPARMOR}a"): "x"}},
                    "spec": {"securityContext": {"seccompProfile": profile, "appArmorProfile": profile}}}),
                vec![],
            ),
            (
                json!({"spec": {"imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
                    "hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]}}),
                vec![
                    "spec.hostAliases[1].ip: duplicate ip \"10.0.0.1\"".to_owned(),
                    "spec.imagePullSecrets[1].name: duplicate name \"s\"".to_owned(),
                    "spec.imagePullSecrets[2].name: invalid empty name \"\"".to_owned(),
                ],
            ),
            (
                json!({"spec": {"overhead": {"memory": "1m"}, "volumes": [claim("1Gi"), claim("1m")]}}),
                vec![
                    "spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value \"1m\" is invalid, must be an integer".to_owned(),
                    "spec.overhead[memory]: fractional byte value \"1m\" is invalid, must be an integer".to_owned(),
                ],
            ),
            (
                json!({"metadata": {"name": "a.b"}}),
                vec![format!(
                    "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                    names::dns_label("a.b").join(" ")
                )],
            ),
        ];
        for (more, warnings) in table {
            assert_eq!(said(json!({}), more.clone()), warnings, "{more}");
        }
    }

    #[test]
    fn of_files_in_each_others_way() {
        let items = |paths: &[&str]| paths.iter().map(|path| json!({"key": "k", "path": path})).collect::<Vec<_>>();
        let map = |paths: &[&str]| json!({"configMap": {"name": "m", "items": items(paths)}});
        let table: [(Value, &[&str]); 6] = [
            (map(&["a", "ab", "b/c", "b/d"]), &[]),
            (map(&["a", "a/b"]), &["volume \"v\" (ConfigMap \"m\"): overlapping paths: \"a/b\" with \"a\""]),
            (
                json!({"secret": {"secretName": "s", "items": items(&["a/b", "a"])}}),
                &["volume \"v\" (Secret \"s\"): overlapping paths: \"a\" with \"a/b\""],
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "a/b"}, {"path": "a/b/"}]}}),
                &["volume \"v\" (DownwardAPI): overlapping paths: \"a/b\" with \"a/b\""],
            ),
            (
                json!({"projected": {"sources": [map(&["a"]), {"secret": {"name": "s", "items": items(&["a"])}}, {"serviceAccountToken": {"path": "a/t"}}]}}),
                &[
                    "volume \"v\" (Projected Secret \"s\"): overlapping paths: \"a\" with \"a\"",
                    "volume \"v\" (Projected ServiceAccountToken): overlapping paths: \"a/t\" with \"a\"",
                ],
            ),
            (json!({"projected": {"sources": [{}]}}), &["volume \"v\" (Projected) has no sources provided"]),
        ];
        for (mut volume, warnings) in table {
            volume["name"] = "v".into();
            assert_eq!(said(json!({}), json!({"spec": {"volumes": [volume]}})), warnings, "{volume}");
        }
    }

    #[test]
    fn there_is_an_end_to_it() {
        let long = "n".repeat(100_000);
        let ports: Vec<Value> = (0..20_000).map(|_| json!({"containerPort": 80})).collect();
        let paths: Vec<Value> = (0..20_000).map(|_| json!({"key": "k", "path": long[..200]})).collect();
        let volumes = json!([{"name": long, "secret": {"secretName": long, "items": paths}}]);
        for (container, volumes) in [(json!({"ports": ports}), json!([])), (json!({}), volumes)] {
            let said = said(container, json!({"spec": {"volumes": volumes}}));
            assert_eq!(said.len(), MOST);
            assert!(said.iter().all(|sentence| sentence.len() <= LONGEST_BYTES));
        }
    }

    #[test]
    fn of_templates_when_they_change() {
        let deployment = |name: &str, image: &str, replicas: u32| {
            let container = json!({"name": "a", "image": image, "resources": {"limits": {"memory": "64m"}}});
            let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
            let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template});
            object(Kind::Deployment, json!({"metadata": {"name": name}, "spec": spec}))
        };
        let stored = |it: &Object| {
            let mut typed = it.typed().clone();
            defaults::apply(&mut typed);
            typed
        };
        let (web, more) = (deployment("web", "i", 1), deployment("web", "i", 2));
        let memory =
            "spec.template.spec.containers[0].resources.limits[memory]: fractional byte value \"64m\" is invalid, must be an integer";
        assert_eq!(warnings(web.typed(), None), [memory]);
        assert_eq!(warnings(web.typed(), Some(&stored(&web))), Vec::<String>::new());
        assert_eq!(warnings(more.typed(), Some(&stored(&web))), [memory]);
        let dotted = warnings(deployment("a.b", "i", 1).typed(), None);
        assert!(dotted.len() == 2 && dotted[0].starts_with("metadata.name: this is used in Pod names and hostnames, which"), "{dotted:?}");
        // Of a pod that is there nothing is said.
        let pod = object(Kind::Pod, json!({"metadata": {"name": "a.b"}, "spec": {"containers": []}}));
        assert_eq!(warnings(pod.typed(), Some(pod.typed())), Vec::<String>::new());
    }
}
