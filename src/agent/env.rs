//! A container's environment: values, references, `$(VAR)`, Service variables. PURE.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, PersistentVolumeClaim, Pod, Secret, Service};

use super::resources;
use super::volume::plan::TokenWanted;
use crate::model::volume::PersistentVolume;

/// ConfigMaps and Secrets of the pod's namespace by name, absent: they do not exist; and tokens of its account.
#[derive(Clone, Debug, Default)]
pub struct References {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
    pub tokens: BTreeMap<TokenWanted, String>,
    /// Claims, and the volumes of those that are bound to one which is there.
    pub claims: BTreeMap<String, (PersistentVolumeClaim, Option<PersistentVolume>)>,
}

/// What the environment is made from besides the container.
#[derive(Debug)]
pub struct Surroundings<'a> {
    pub pod: &'a Pod,
    pub references: &'a References,
    /// Services of the pod's namespace and `default/kubernetes`.
    pub services: &'a [Service],
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
    /// What a limit that is not set stands for.
    pub allocatable: &'a resources::Machine,
}

/// Why a container cannot be configured: `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {name}")]
    NoKey { kind: &'static str, name: String, key: String },
    #[error("environment variable {name}: {cause}")]
    Field { name: String, cause: String },
}

/// The variables in order; later ones replace earlier ones in place.
///
/// # Errors
/// A reference that is not optional leads nowhere.
pub fn environment(container: &Container, around: &Surroundings<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let services = service_variables(around);
    let mut all = Variables::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            let data = whole_config_map(around.references, &source.name, source.optional)?;
            data.into_iter().for_each(|(key, value)| all.set_valid(format!("{prefix}{key}"), value));
        }
        if let Some(source) = &from.secret_ref {
            let data = whole_secret(around.references, &source.name, source.optional)?;
            data.into_iter().for_each(|(key, value)| all.set_valid(format!("{prefix}{key}"), value));
        }
    }
    // `$(VAR)` sees what `env` defined before it and the Services, not envFrom: as the kubelet.
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, |name| seen.get(name).or_else(|| services.get(name)).cloned())),
            (_, Some(from)) => referred(&variable.name, from, container, around)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            seen.insert(variable.name.clone(), value.clone());
            all.set(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if !all.index.contains_key(&name) {
            all.set(name, value);
        }
    }
    Ok(all.list)
}

#[derive(Default)]
struct Variables {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(&at) => self.list[at].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    /// Keys of envFrom that are no variable names are left out.
    fn set_valid(&mut self, name: String, value: String) {
        let valid = !name.is_empty() && !name.contains('=') && name.bytes().all(|b| (0x20..0x7f).contains(&b));
        if valid {
            self.set(name, value);
        }
    }
}

fn whole_config_map(references: &References, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>, EnvError> {
    match references.config_maps.get(name) {
        Some(found) => Ok(found.data.clone().unwrap_or_default()),
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvError::NoObject { kind: "configmap", name: name.to_owned() }),
    }
}

fn whole_secret(references: &References, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, String>, EnvError> {
    match references.secrets.get(name) {
        Some(found) => {
            let data = found.data.clone().unwrap_or_default();
            Ok(data.into_iter().map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvError::NoObject { kind: "secret", name: name.to_owned() }),
    }
}

/// The value of a `valueFrom`; `None`: optional and not there.
fn referred(variable: &str, from: &EnvVarSource, container: &Container, around: &Surroundings<'_>) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &from.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(found) = around.references.config_maps.get(&selector.name) else {
            return missing("configmap", &selector.name, None, optional);
        };
        let value = found.data.as_ref().and_then(|data| data.get(&selector.key)).cloned();
        return value.map_or_else(|| missing("ConfigMap", &selector.name, Some(&selector.key), optional), |value| Ok(Some(value)));
    }
    if let Some(selector) = &from.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(found) = around.references.secrets.get(&selector.name) else {
            return missing("secret", &selector.name, None, optional);
        };
        let value = found.data.as_ref().and_then(|data| data.get(&selector.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return value.map_or_else(|| missing("Secret", &selector.name, Some(&selector.key), optional), |value| Ok(Some(value)));
    }
    let wrong = |cause: String| EnvError::Field { name: variable.to_owned(), cause };
    if let Some(selector) = &from.field_ref {
        return field(&selector.field_path, around).map(Some).map_err(wrong);
    }
    if let Some(selector) = &from.resource_field_ref {
        let name = selector.container_name.as_deref().unwrap_or(&container.name);
        let spec = around.pod.spec.as_ref();
        let target = spec.and_then(|spec| crate::model::pod::container(spec, name));
        let target = target.ok_or_else(|| wrong(format!("container {name} not found")))?;
        return resources::field(target, selector, around.allocatable).map(Some).map_err(wrong);
    }
    Err(wrong("this kind of valueFrom is not supported".to_owned()))
}

fn missing(kind: &'static str, name: &str, key: Option<&str>, optional: bool) -> Result<Option<String>, EnvError> {
    match key {
        _ if optional => Ok(None),
        Some(key) => Err(EnvError::NoKey { kind, name: name.to_owned(), key: key.to_owned() }),
        None => Err(EnvError::NoObject { kind, name: name.to_owned() }),
    }
}

/// The downward API's fields.
fn field(path: &str, around: &Surroundings<'_>) -> Result<String, String> {
    if let Some(known) = metadata(around.pod, path) {
        return Ok(known);
    }
    let spec = around.pod.spec.as_ref();
    Ok(match path {
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" => around.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => around.host_ips.join(","),
        "status.podIP" => around.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => around.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The fields that variables and files share: a name, or one label or annotation.
pub(super) fn metadata(pod: &Pod, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().and_then(|map| map.get(key)).cloned();
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        _ => {
            let label = subscript(path, "metadata.labels").map(|key| entry(&meta.labels, key));
            label.or_else(|| subscript(path, "metadata.annotations").map(|key| entry(&meta.annotations, key)))?
        }
    };
    Some(value.unwrap_or_default())
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// Kubernetes' expansion: `$(NAME)` is replaced where NAME is known and stays as it is where not;
/// `$$` is a dollar sign.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// `command` and `args` with the container's variables filled in.
pub fn expand_all(words: &[String], variables: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    words.iter().map(|word| expand(word, lookup)).collect()
}

/// `FOO_SERVICE_HOST` and its kin, for every Service with an address.
fn service_variables(around: &Surroundings<'_>) -> BTreeMap<String, String> {
    let namespace = around.pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = around.pod.spec.as_ref().is_none_or(|spec| spec.enable_service_links != Some(false));
    let mut all = BTreeMap::new();
    for service in around.services {
        let meta = &service.metadata;
        let (name, of) = (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        let is_api = of == "default" && name == "kubernetes";
        if !(is_api || (links && of == namespace)) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{address}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                all.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
                all.insert(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
                all.insert(format!("{prefix}_PORT"), url.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let suffix = port_name.to_uppercase().replace('-', "_");
                all.insert(format!("{prefix}_SERVICE_PORT_{suffix}"), port.port.to_string());
            }
            let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            all.insert(format!("{base}_PROTO"), protocol.to_lowercase());
            all.insert(format!("{base}_PORT"), port.port.to_string());
            all.insert(format!("{base}_ADDR"), address.to_owned());
            all.insert(base, url);
        }
    }
    all
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
