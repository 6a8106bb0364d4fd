//! The table's part for pods and pod templates. PURE.

use serde_json::Value;

use super::Rule::{Acts, Check, Harmless, Only, Refused};
use super::{Node, Row, kinds};
use crate::model::pod_security::SAFE_SYSCTLS;

/// Adds the rows of a pod's spec below `at`.
pub(super) fn add(root: &mut Node, at: &'static str) {
    let spec = root.reach(at);
    spec.add("", SPEC);
    spec.add("securityContext", SECURITY);
    spec.add("volumes[]", VOLUME);
    spec.add("volumes[].ephemeral.volumeClaimTemplate.metadata", CLAIM_METADATA);
    kinds::claim(spec, "volumes[].ephemeral.volumeClaimTemplate.spec");
    spec.add("volumes[].projected.sources[]", PROJECTION);
    spec.add("volumes[].downwardAPI.items[]", DOWNWARD);
    spec.add("volumes[].projected.sources[].downwardAPI.items[]", DOWNWARD);
    for list in ["containers[]", "initContainers[]", "ephemeralContainers[]"] {
        let container = spec.reach(list);
        container.add("", CONTAINER);
        container.add("securityContext", CONTAINER_SECURITY);
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            container.add(probe, PROBE);
        }
        for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
            container.add(hook, HOOK);
        }
    }
}

const SPEC: &[Row] = &[
    ("activeDeadlineSeconds dnsPolicy enableServiceLinks hostIPC hostNetwork hostPID hostname nodeName restartPolicy schedulerName", Acts),
    ("hostUsers shareProcessNamespace terminationGracePeriodSeconds imagePullSecrets[].name nodeSelector.*", Acts),
    ("dnsConfig.nameservers dnsConfig.searches dnsConfig.options[].name dnsConfig.options[].value", Acts),
    ("hostAliases[].ip hostAliases[].hostnames runtimeClassName overhead.*", Acts),
    ("tolerations[].key tolerations[].operator tolerations[].value tolerations[].effect tolerations[].tolerationSeconds", Acts),
    // Whose token of the API its containers get, and whether they get one.
    ("serviceAccountName serviceAccount automountServiceAccountToken", Acts),
    // Nothing is preempted.
    ("preemptionPolicy", Harmless),
    ("os.name", Only(&["linux"], "pods run on Linux")),
    ("priority", Only(&["0"], "pod priorities are not supported yet")),
    ("priorityClassName", Refused("pod priorities are not supported yet")),
    ("setHostnameAsFQDN", Only(&["false"], "there are no cluster DNS names yet")),
    ("subdomain", Refused("there are no cluster DNS names yet")),
    ("hostnameOverride", Refused("use `hostname`: `hostnameOverride` is not supported yet")),
    ("affinity", Refused("affinity is not supported yet: use `nodeSelector` and tolerations")),
    ("topologySpreadConstraints", Refused("topology spread constraints are not supported yet")),
    ("ephemeralContainers", Check(only_in_pods)),
    ("ephemeralContainers[].targetContainerName", Acts),
    ("evictionResponders", Refused("eviction responders are not supported")),
    ("readinessGates", Refused("readiness gates are not supported yet")),
    ("resourceClaims", Refused("dynamic resource allocation is not supported")),
    ("resources", Refused("resources of the pod as a whole are not supported yet: set them on its containers")),
    ("schedulingGates", Refused("scheduling gates are not supported yet")),
    ("schedulingGroup", Refused("scheduling groups are not supported")),
];

/// A pod that runs is given them; nothing is made with them.
fn only_in_pods(_: &Value, object: &Value) -> Option<String> {
    (object["kind"] != "Pod").then(|| "ephemeral containers not allowed in pod template".to_owned())
}

const SECURITY: &[Row] = &[
    ("runAsUser runAsGroup runAsNonRoot fsGroup supplementalGroups supplementalGroupsPolicy", Acts),
    // When the owner of a volume's files is changed, not whether.
    ("fsGroupChangePolicy seLinuxChangePolicy", Harmless),
    ("sysctls[].name", Check(sysctl)),
    ("sysctls[].value", Acts),
    ("seccompProfile.type seccompProfile.localhostProfile", Acts),
    ("appArmorProfile.type appArmorProfile.localhostProfile", Acts),
    ("seLinuxOptions", Refused("SELinux labels are not supported yet")),
    ("windowsOptions", Refused("pods run on Linux")),
];

/// The length of a listen queue belongs to the pod's own namespaces too.
const LISTEN_QUEUE: &str = "net.core.somaxconn";

fn sysctl(name: &Value, _: &Value) -> Option<String> {
    let name = name.as_str().unwrap_or_default().replace('/', ".");
    let may = SAFE_SYSCTLS.contains(&name.as_str()) || name == LISTEN_QUEUE;
    let all = || format!("{}, {LISTEN_QUEUE}", SAFE_SYSCTLS.join(", "));
    (!may).then(|| format!("sysctl \"{name}\" is not one of those a pod may set: {}", all()))
}

const VOLUME: &[Row] = &[
    ("name emptyDir.sizeLimit hostPath.path hostPath.type", Acts),
    (
        "emptyDir.medium",
        Only(&MEDIA, "an emptyDir is on the node's disk, in memory (`Memory`) or in huge pages (`HugePages`, `HugePages-2Mi`)"),
    ),
    ("emptyDir.mode", Refused("the mode of an emptyDir is not supported yet")),
    ("configMap.name configMap.optional configMap.defaultMode", Acts),
    ("configMap.items[].key configMap.items[].path configMap.items[].mode", Acts),
    ("secret.secretName secret.optional secret.defaultMode", Acts),
    ("secret.items[].key secret.items[].path secret.items[].mode", Acts),
    ("configMap.defaultUser configMap.items[].user secret.defaultUser secret.items[].user", Refused(NO_FILE_OWNERS)),
    ("downwardAPI.defaultMode projected.defaultMode", Acts),
    ("downwardAPI.defaultUser projected.defaultUser", Refused(NO_FILE_OWNERS)),
    ("persistentVolumeClaim.claimName persistentVolumeClaim.readOnly", Acts),
    ("csi", Refused("csi volumes are not supported yet")),
    ("image.reference image.pullPolicy", Acts),
    ("nfs", Refused("nfs volumes are not supported yet: mount the share on the node and use `hostPath`")),
    ("iscsi", Refused("iscsi volumes are not supported")),
    ("fc", Refused("fc volumes are not supported")),
    ("awsElasticBlockStore azureDisk azureFile cephfs cinder flexVolume flocker gcePersistentDisk", Refused(NO_CLOUD_DISK)),
    ("gitRepo glusterfs photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos vsphereVolume", Refused(NO_CLOUD_DISK)),
];

/// Of a template of a claim.
const CLAIM_METADATA: &[Row] = &[
    ("labels.* annotations.*", Acts),
    ("name namespace generateName finalizers ownerReferences uid resourceVersion generation", Refused(LABELS_ONLY)),
    ("creationTimestamp deletionTimestamp deletionGracePeriodSeconds managedFields selfLink", Refused(LABELS_ONLY)),
];

const LABELS_ONLY: &str = "the template of a claim has labels and annotations only";

const MEDIA: [&str; 6] = ["Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi", "HugePages-64Ki", "HugePages-32Mi"];

/// Below `projected.sources[]`.
const PROJECTION: &[Row] = &[
    ("configMap.name configMap.optional secret.name secret.optional", Acts),
    ("configMap.items[].key configMap.items[].path configMap.items[].mode", Acts),
    ("secret.items[].key secret.items[].path secret.items[].mode", Acts),
    ("configMap.items[].user secret.items[].user serviceAccountToken.user", Refused(NO_FILE_OWNERS)),
    ("serviceAccountToken.audience serviceAccountToken.expirationSeconds serviceAccountToken.path", Acts),
    ("clusterTrustBundle", Refused("cluster trust bundles are not supported: use a configMap")),
    ("podCertificate", Refused("certificates of pods are not issued")),
];

/// Below `items[]` of what a pod is told of itself.
const DOWNWARD: &[Row] = &[
    ("path mode fieldRef.fieldPath resourceFieldRef.containerName resourceFieldRef.resource resourceFieldRef.divisor", Acts),
    ("fieldRef.apiVersion", Only(&["v1"], "fields are those of `v1`")),
    ("user", Refused(NO_FILE_OWNERS)),
];

const NO_FILE_OWNERS: &str = "owners of single files are not supported yet";

const NO_CLOUD_DISK: &str = "this volume type is not supported: persistentVolumeClaim, ephemeral, emptyDir, hostPath, configMap, secret, downwardAPI, projected and \
     image are";

const CONTAINER: &[Row] = &[
    ("name image imagePullPolicy command args workingDir stdin stdinOnce tty", Acts),
    ("restartPolicy terminationMessagePath terminationMessagePolicy lifecycle.stopSignal", Acts),
    ("restartPolicyRules", Refused("restart rules of single containers are not supported yet")),
    ("env[].name env[].value", Acts),
    ("env[].valueFrom.configMapKeyRef.name env[].valueFrom.configMapKeyRef.key env[].valueFrom.configMapKeyRef.optional", Acts),
    ("env[].valueFrom.secretKeyRef.name env[].valueFrom.secretKeyRef.key env[].valueFrom.secretKeyRef.optional", Acts),
    ("env[].valueFrom.fieldRef.fieldPath", Acts),
    ("env[].valueFrom.fieldRef.apiVersion", Only(&["v1"], "fields are those of `v1`")),
    ("env[].valueFrom.resourceFieldRef.containerName env[].valueFrom.resourceFieldRef.divisor", Acts),
    ("env[].valueFrom.resourceFieldRef.resource", Acts),
    ("env[].valueFrom.fileKeyRef", Refused("variables from files are not supported yet")),
    ("envFrom[].prefix envFrom[].configMapRef.name envFrom[].configMapRef.optional", Acts),
    ("envFrom[].secretRef.name envFrom[].secretRef.optional", Acts),
    ("ports[].name ports[].containerPort ports[].protocol", Acts),
    ("ports[].hostPort", Acts),
    ("ports[].hostIP", Check(host_ip)),
    ("resources.limits.cpu resources.limits.memory resources.requests.cpu resources.requests.memory", Acts),
    ("resources.limits.hugepages-2Mi resources.limits.hugepages-1Gi resources.limits.hugepages-64Ki resources.limits.hugepages-32Mi", Acts),
    ("resources.requests.hugepages-2Mi resources.requests.hugepages-1Gi", Acts),
    ("resources.requests.hugepages-64Ki resources.requests.hugepages-32Mi", Acts),
    ("resources.limits.ephemeral-storage resources.requests.ephemeral-storage", Acts),
    // Counted by the scheduler, of what the nodes advertise.
    ("resources.limits.*/* resources.requests.*/*", Acts),
    (
        "resources.limits.* resources.requests.*",
        Refused(
            "only `cpu`, `memory`, `ephemeral-storage`, huge pages (`hugepages-2Mi`) and what nodes advertise (`example.com/dongle`) \
             are supported yet",
        ),
    ),
    ("resources.claims", Refused("dynamic resource allocation is not supported")),
    ("resizePolicy[].resourceName resizePolicy[].restartPolicy", Acts),
    ("volumeMounts[].name volumeMounts[].mountPath volumeMounts[].readOnly volumeMounts[].subPath volumeMounts[].subPathExpr", Acts),
    ("volumeMounts[].mountPropagation volumeMounts[].recursiveReadOnly", Acts),
    ("volumeMounts[].bindMountOptions", Refused("mount options are not supported yet")),
    ("volumeDevices[].name volumeDevices[].devicePath", Acts),
];

fn host_ip(address: &Value, _: &Value) -> Option<String> {
    match address.as_str()?.parse().ok()? {
        std::net::IpAddr::V6(_) => Some("IPv6 is not supported yet".to_owned()),
        std::net::IpAddr::V4(_) => None,
    }
}

const CONTAINER_SECURITY: &[Row] = &[
    ("runAsUser runAsGroup runAsNonRoot readOnlyRootFilesystem privileged allowPrivilegeEscalation procMount", Acts),
    ("capabilities.add capabilities.drop", Acts),
    ("seccompProfile.type seccompProfile.localhostProfile", Acts),
    ("appArmorProfile.type appArmorProfile.localhostProfile", Acts),
    ("seLinuxOptions", Refused("SELinux labels are not supported yet")),
    ("windowsOptions", Refused("pods run on Linux")),
];

const PROBE: &[Row] = &[
    ("exec.command tcpSocket.host tcpSocket.port grpc.port grpc.service grpc.mode", Acts),
    ("httpGet.host httpGet.path httpGet.port httpGet.scheme httpGet.httpHeaders[].name httpGet.httpHeaders[].value", Acts),
    ("httpGet.protocol", Refused("probes speak HTTP/1.1")),
    ("initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold terminationGracePeriodSeconds", Acts),
];

const HOOK: &[Row] = &[
    ("exec.command sleep.seconds", Acts),
    ("httpGet.host httpGet.path httpGet.port httpGet.scheme httpGet.httpHeaders[].name httpGet.httpHeaders[].value", Acts),
    ("httpGet.protocol", Refused("hooks speak HTTP/1.1")),
    ("tcpSocket", Refused("Kubernetes never carries out a tcpSocket hook: use `exec`, `httpGet` or `sleep`")),
];
