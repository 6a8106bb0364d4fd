//! What the runtime is asked for: a pod's sandbox and its containers as CRI configurations. PURE.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::backoff;
use super::dns::{self, NodeDns};
use super::env::{self, EnvError, Surroundings};
use super::observed::{CONTAINER_HASH, LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID, RESOURCES, RESTART_DELAY};
use super::resources::{self, Machine};
use crate::cri::{
    ContainerConfig, ContainerMetadata, ImageVolume, Mount, PodSandboxConfig, PodSandboxMetadata, PortMapping, SecurityContext,
};

/// Names of the agent's files below the data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub data_dir: PathBuf,
}

impl Layout {
    /// The last known pods.
    pub fn records(&self) -> PathBuf {
        self.data_dir.join("agent/pods")
    }
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }
    /// Which ids of the host its user namespace has.
    pub fn ids(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("ids")
    }
    pub fn volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }
    pub fn volume(&self, uid: &str, name: &str) -> PathBuf {
        self.volumes(uid).join(name)
    }
    pub fn sub_paths(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("subpaths")
    }
    /// The directories of the persistent volumes that are made on this node, and what is noted of them.
    pub fn made_volumes(&self) -> PathBuf {
        self.data_dir.join("volumes")
    }
    pub fn made_notes(&self) -> PathBuf {
        self.data_dir.join("agent/volumes")
    }
    pub fn seccomp(&self) -> PathBuf {
        self.data_dir.join("seccomp")
    }
    pub fn all_logs(&self) -> PathBuf {
        self.data_dir.join("logs")
    }
    pub fn logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.all_logs().join(format!("{namespace}_{name}_{uid}"))
    }
}

fn text(field: &Option<String>) -> String {
    field.clone().unwrap_or_default()
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let meta = &pod.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(LABEL_POD_NAME.to_owned(), text(&meta.name));
    labels.insert(LABEL_POD_NAMESPACE.to_owned(), text(&meta.namespace));
    labels.insert(LABEL_POD_UID.to_owned(), text(&meta.uid));
    labels
}

/// The sandbox of a pod.
pub fn sandbox(pod: &Pod, attempt: u32, layout: &Layout, dns: &NodeDns, node_name: &str) -> PodSandboxConfig {
    let empty = PodSpec::default();
    let (meta, spec) = (&pod.metadata, pod.spec.as_ref().unwrap_or(&empty));
    let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
    let host_network = spec.host_network == Some(true);
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    PodSandboxConfig {
        hostname: if host_network { node_name.to_owned() } else { hostname(spec, &name) },
        log_directory: layout.logs(&namespace, &name, &uid),
        dns: Some(dns::config(spec, &namespace, dns)),
        labels: labels(pod),
        annotations: meta.annotations.clone().unwrap_or_default(),
        host_network,
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_process_namespace: spec.share_process_namespace == Some(true),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        cgroup_parent: resources::cgroup_parent(spec, &uid),
        resources: resources::pod(spec),
        port_mappings: port_mappings(spec),
        host_aliases: host_aliases(spec, &namespace, &name),
        // Its RuntimeClass says it, which is asked for beside.
        runtime_handler: String::new(),
        users: None,
        privileged: spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(is_privileged),
        metadata: PodSandboxMetadata { namespace, name, uid, attempt },
    }
}

fn hostname(spec: &PodSpec, name: &str) -> String {
    let mut hostname = spec.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| name.to_owned());
    hostname.truncate(63);
    hostname.trim_end_matches(['-', '.']).to_owned()
}

fn port_mappings(spec: &PodSpec) -> Vec<PortMapping> {
    let ports = spec.containers.iter().chain(spec.init_containers.iter().flatten()).flat_map(|c| c.ports.iter().flatten());
    let port = |value: i32| u16::try_from(value).unwrap_or(0);
    ports
        .filter(|mapping| mapping.host_port.is_some_and(|port| port > 0))
        .map(|mapping| PortMapping {
            protocol: mapping.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            container_port: port(mapping.container_port),
            host_port: port(mapping.host_port.unwrap_or(0)),
            host_ip: text(&mapping.host_ip),
        })
        .collect()
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|security| security.privileged == Some(true))
}

/// hostAliases; the pod's own line is the runtime's, which knows the address.
fn host_aliases(spec: &PodSpec, _namespace: &str, _name: &str) -> Vec<(String, Vec<String>)> {
    spec.host_aliases.iter().flatten().map(|alias| (alias.ip.clone(), alias.hostnames.clone().unwrap_or_default())).collect()
}

/// What a container is made of besides its spec.
#[derive(Debug)]
pub struct Parts<'a> {
    pub attempt: u32,
    /// Wait after its end, seconds.
    pub delay: u32,
    /// Host path of each volume mount, in their order; of an image the path in it.
    pub mounts: &'a [PathBuf],
    pub security: SecurityContext,
    pub around: &'a Surroundings<'a>,
    pub machine: &'a Machine,
}

/// One container.
///
/// # Errors
/// Its environment refers to what is not there.
pub fn container(pod: &Pod, container: &Container, parts: &Parts<'_>) -> Result<ContainerConfig, EnvError> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let envs = env::environment(container, parts.around)?;
    let words = |list: &Option<Vec<String>>| env::expand_all(list.as_deref().unwrap_or_default(), &envs);
    let mut labels = labels(pod);
    labels.insert(LABEL_CONTAINER_NAME.to_owned(), container.name.clone());
    let annotations = BTreeMap::from([
        (CONTAINER_HASH.to_owned(), backoff::hash(container)),
        (RESTART_DELAY.to_owned(), parts.delay.to_string()),
        (RESOURCES.to_owned(), resources::told(container)),
        ("io.kubernetes.container.restartCount".to_owned(), parts.attempt.to_string()),
    ]);
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: parts.attempt },
        image: text(&container.image),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: text(&container.working_dir),
        mounts: mounts(spec, container, parts.mounts, &envs),
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels,
        annotations,
        log_path: Path::new(&container.name).join(format!("{}.log", parts.attempt)),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: resources::container(spec, container, parts.machine),
        security: parts.security.clone(),
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()).unwrap_or_default(),
        termination_message_path: container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        envs,
    })
}

/// Whether the agent writes its files, or the pod has it to read: such a volume is never writable for a container, whatever
/// its mount says.
fn is_to_read(spec: &PodSpec, name: &str) -> bool {
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == name);
    volume.is_some_and(|volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        let files = volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some() || volume.downward_api.is_some();
        files || claim.is_some_and(|claim| claim.read_only == Some(true))
    })
}

fn mounts(spec: &PodSpec, container: &Container, hosts: &[PathBuf], envs: &[(String, String)]) -> Vec<Mount> {
    let pairs = container.volume_mounts.iter().flatten().zip(hosts);
    pairs
        .map(|(mount, path)| {
            let bound = Mount {
                container_path: absolute(&env::expand_all(std::slice::from_ref(&mount.mount_path), envs).concat()),
                host_path: path.clone(),
                readonly: mount.read_only == Some(true) || is_to_read(spec, &mount.name),
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => "rslave",
                    Some("Bidirectional") => "rshared",
                    _ => "private",
                }
                .to_owned(),
                // `IfPossible`: the runtime is asked before.
                recursive_readonly: matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
                flags: Vec::new(),
                ids: None,
                image: None,
            };
            image_mount(spec, &mount.name, bound)
        })
        .collect()
}

/// Of an image nothing is ever written, and nothing is ever mounted in it.
fn image_mount(spec: &PodSpec, volume: &str, bound: Mount) -> Mount {
    let volume = spec.volumes.iter().flatten().find(|known| known.name == volume);
    let Some(source) = volume.and_then(|volume| volume.image.as_ref()) else { return bound };
    let image = ImageVolume { image: text(&source.reference), sub_path: bound.host_path, ..ImageVolume::default() };
    Mount {
        container_path: bound.container_path,
        readonly: true,
        propagation: "private".to_owned(),
        image: Some(image),
        ..Mount::default()
    }
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::env::References;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
            "spec": {
                "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}],
                "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]},
                "containers": [{
                    "name": "main", "image": "nginx:1.27", "command": ["run", "$(A)"], "args": ["$(B)"],
                    "env": [{"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}],
                    "volumeMounts": [{"name": "v", "mountPath": "data", "readOnly": true, "mountPropagation": "HostToContainer"}],
                    "lifecycle": {"stopSignal": "SIGQUIT"}
                }]
            }
        }))
        .unwrap()
    }

    fn layout() -> Layout {
        Layout { data_dir: "/d".into() }
    }

    #[test]
    fn a_sandbox_says_whose_it_is() {
        let got = sandbox(&pod(), 2, &layout(), &NodeDns::default(), "n1");
        assert_eq!(got.metadata, PodSandboxMetadata { namespace: "shop".into(), name: "web-1".into(), uid: "u1".into(), attempt: 2 });
        assert_eq!(got.hostname, "web-1");
        assert_eq!(got.log_directory, Path::new("/d/logs/shop_web-1_u1"));
        assert_eq!(got.labels["app"], "web");
        assert_eq!(got.labels[LABEL_POD_UID], "u1");
        assert_eq!(got.cgroup_parent, "besteffort/podu1");
        assert_eq!(got.sysctls["net.core.somaxconn"], "9");
        assert_eq!(got.host_aliases, [("192.0.2.7".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
        assert_eq!(got.port_mappings.len(), 1);
        assert_eq!((got.port_mappings[0].container_port, got.port_mappings[0].host_port), (80, 8080));
    }

    #[test]
    fn hostnames_are_valid() {
        let mut spec = PodSpec::default();
        assert_eq!(hostname(&spec, &format!("{}-b", "a".repeat(62))), "a".repeat(62));
        spec.hostname = Some("own".into());
        assert_eq!(hostname(&spec, "x"), "own");
        let mut host = pod();
        host.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(sandbox(&host, 0, &layout(), &NodeDns::default(), "n1").hostname, "n1");
    }

    #[test]
    fn a_container_carries_its_hash_delay_and_words() {
        let (pod, references, machine) = (pod(), References::default(), Machine::default());
        let spec = pod.spec.clone().unwrap();
        let around = Surroundings { pod: &pod, references: &references, services: &[], pod_ips: &[], host_ips: &[], allocatable: &machine };
        let parts = Parts {
            attempt: 3,
            delay: 20,
            mounts: &[PathBuf::from("/d/pods/u1/volumes/v")],
            security: SecurityContext::default(),
            around: &around,
            machine: &machine,
        };
        let got = container(&pod, &spec.containers[0], &parts).unwrap();
        assert_eq!((got.command, got.args), (vec!["run".to_owned(), "1".to_owned()], vec!["$(B)".to_owned()]));
        assert_eq!(got.annotations[RESTART_DELAY], "20");
        assert_eq!(got.annotations[CONTAINER_HASH], backoff::hash(&spec.containers[0]));
        assert_eq!(got.log_path, Path::new("main/3.log"));
        assert_eq!(got.stop_signal, "SIGQUIT");
        assert_eq!(got.termination_message_path, "/dev/termination-log");
        assert_eq!(got.mounts[0].container_path, Path::new("/data"));
        assert_eq!((got.mounts[0].readonly, got.mounts[0].propagation.as_str()), (true, "rslave"));
    }

    #[test]
    fn config_maps_and_secrets_are_never_mounted_writable() {
        let spec: PodSpec = serde_json::from_value(json!({"volumes": [
            {"name": "c", "configMap": {"name": "x"}}, {"name": "s", "secret": {"secretName": "x"}}, {"name": "e", "emptyDir": {}},
            {"name": "r", "persistentVolumeClaim": {"claimName": "x", "readOnly": true}}, {"name": "w", "persistentVolumeClaim": {"claimName": "x"}}
        ], "containers": [{"name": "main", "volumeMounts": [
            {"name": "r", "mountPath": "/r"}, {"name": "w", "mountPath": "/w"},
            {"name": "c", "mountPath": "/c", "readOnly": false}, {"name": "s", "mountPath": "/s", "subPath": "key"}, {"name": "e", "mountPath": "/e"}
        ]}]}))
        .unwrap();
        let paths = ["/h/r", "/h/w", "/h/c", "/h/s", "/h/e"].map(PathBuf::from);
        let readonly: Vec<bool> = mounts(&spec, &spec.containers[0], &paths, &[]).iter().map(|mount| mount.readonly).collect();
        assert_eq!(readonly, [true, false, true, true, false]);
    }

    #[test]
    fn an_image_is_mounted_to_be_read() {
        let spec: PodSpec = serde_json::from_value(json!({"volumes": [{"name": "i", "image": {"reference": "data:1"}}],
            "containers": [{"name": "main", "volumeMounts": [{"name": "i", "mountPath": "/i", "subPath": "etc", "readOnly": false,
                "mountPropagation": "HostToContainer"}]}]}))
        .unwrap();
        let mounts = mounts(&spec, &spec.containers[0], &["etc".into()], &[]);
        let image = ImageVolume { image: "data:1".into(), sub_path: "etc".into(), ..ImageVolume::default() };
        let wanted =
            Mount { container_path: "/i".into(), readonly: true, propagation: "private".into(), image: Some(image), ..Mount::default() };
        assert_eq!(mounts, [wanted]);
    }
}
