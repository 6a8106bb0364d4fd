//! The table, kind by kind. PURE.

use serde_json::Value;

use super::Rule::{Acts, Check, Harmless, Only, Refused};
use super::{Node, Row, persistent, pod};
use crate::model::Kind;

/// The tree of a kind's rows.
pub(super) fn table(kind: Kind) -> Node {
    let mut root = Node::default();
    root.add("", TYPE);
    root.add("metadata", METADATA);
    if kind.info().has_status {
        root.add("", STATUS);
    }
    match kind {
        Kind::Pod => pod::add(&mut root, "spec"),
        Kind::ReplicaSet => {
            root.add("spec", REPLICA_SET);
            with_template(&mut root);
        }
        Kind::Deployment => {
            root.add("spec", DEPLOYMENT);
            with_template(&mut root);
        }
        Kind::Job => {
            root.add("spec", JOB);
            with_template(&mut root);
        }
        Kind::HorizontalPodAutoscaler => root.add("spec", AUTOSCALER),
        Kind::Namespace => root.add("spec", &[("finalizers", Acts)]),
        Kind::CustomResourceDefinition => root.add("spec", DEFINITION),
        Kind::Node => root.add("spec", NODE),
        Kind::RuntimeClass => root.add("", RUNTIME_CLASS),
        Kind::StorageClass => root.add("", persistent::CLASS),
        Kind::CSIDriver => root.add("", persistent::OF_KUBELETS),
        Kind::CSINode => {
            root.add("", persistent::OF_KUBELETS);
            root.add("", STATUS);
        }
        Kind::PersistentVolume => root.add("spec", persistent::VOLUME),
        Kind::PersistentVolumeClaim => claim(&mut root, "spec"),
        Kind::ServiceAccount => root.add("", SERVICE_ACCOUNT),
        Kind::Secret => root.add("", SECRET),
        Kind::ConfigMap => root.add("", &[("data.* binaryData.* immutable", Acts)]),
        Kind::ClusterRole | Kind::Role => role(&mut root, kind),
        Kind::ClusterRoleBinding | Kind::RoleBinding => root.add("", BINDING),
        Kind::CertificateSigningRequest => root.add("spec", SIGNING_REQUEST),
        Kind::Service => root.add("spec", SERVICE),
        Kind::EndpointSlice => root.add("", ENDPOINT_SLICE),
        Kind::Lease => root.add("spec", LEASE),
        Kind::Event => root.add("", EVENT),
        Kind::Source => root.add("spec", SOURCE),
        Kind::MutatingWebhookConfiguration => {
            root.add("webhooks[]", WEBHOOK);
            root.add("webhooks[]", &[("reinvocationPolicy", Acts)]);
        }
        Kind::ValidatingWebhookConfiguration => root.add("webhooks[]", WEBHOOK),
        // What is stored is of the table, and what a custom kind has its schema says.
        Kind::Edition(_) | Kind::Custom(_) => {}
    }
    root
}

/// What a claim on a volume says, at `at`.
pub(super) fn claim(root: &mut Node, at: &'static str) {
    let spec = root.reach(at);
    spec.add("", persistent::CLAIM);
    spec.add("selector", SELECTOR);
}

/// `spec.selector` and `spec.template`.
fn with_template(root: &mut Node) {
    root.add("spec.selector", SELECTOR);
    root.add("spec.template.metadata", METADATA);
    pod::add(root, "spec.template.spec");
}

const TYPE: &[Row] = &[("apiVersion kind", Acts)];
const STATUS: &[Row] = &[("status", Harmless)];

const METADATA: &[Row] = &[
    ("name namespace generateName labels.* annotations.* finalizers", Acts),
    ("ownerReferences[].apiVersion ownerReferences[].kind ownerReferences[].name ownerReferences[].uid", Acts),
    ("ownerReferences[].controller ownerReferences[].blockOwnerDeletion", Acts),
    // Written by the system; an exported manifest carries them.
    ("uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds managedFields selfLink", Harmless),
];

const SELECTOR: &[Row] = &[("matchLabels.* matchExpressions[].key matchExpressions[].operator matchExpressions[].values", Acts)];

const REPLICA_SET: &[Row] = &[("replicas minReadySeconds", Acts)];

const DEPLOYMENT: &[Row] = &[
    ("replicas minReadySeconds paused progressDeadlineSeconds revisionHistoryLimit", Acts),
    ("strategy.type strategy.rollingUpdate.maxSurge strategy.rollingUpdate.maxUnavailable", Acts),
];

const JOB: &[Row] = &[
    ("activeDeadlineSeconds backoffLimit completions manualSelector parallelism suspend", Acts),
    (
        "podReplacementPolicy",
        Only(&["TerminatingOrFailed"], "pods are replaced as soon as they are being deleted: only `TerminatingOrFailed` is supported yet"),
    ),
    ("ttlSecondsAfterFinished", Acts),
    ("completionMode", Only(&["NonIndexed"], "indexed Jobs are not supported yet")),
    ("backoffLimitPerIndex maxFailedIndexes successPolicy", Refused("indexed Jobs are not supported yet")),
    ("podFailurePolicy", Refused("pod failure policies are not supported yet")),
    ("managedBy", Only(&["kubernetes.io/job-controller"], "there is no other controller for Jobs")),
    ("scheduling", Refused("gang scheduling is not supported")),
];

const AUTOSCALER: &[Row] = &[
    ("scaleTargetRef.apiVersion scaleTargetRef.kind scaleTargetRef.name minReplicas maxReplicas", Acts),
    ("metrics[].type", Only(&["Resource", "ContainerResource"], NO_CUSTOM_METRICS)),
    ("metrics[].resource.name metrics[].containerResource.name", Only(&["cpu", "memory"], "only `cpu` and `memory` are measured")),
    ("metrics[].containerResource.container", Acts),
    ("metrics[].resource.target.type metrics[].containerResource.target.type", Only(&["Utilization", "AverageValue"], AN_AVERAGE)),
    ("metrics[].resource.target.averageUtilization metrics[].containerResource.target.averageUtilization", Acts),
    ("metrics[].resource.target.averageValue metrics[].containerResource.target.averageValue", Acts),
    ("metrics[].resource.target.value metrics[].containerResource.target.value", Refused(AN_AVERAGE)),
    ("metrics[].pods metrics[].object metrics[].external", Refused(NO_CUSTOM_METRICS)),
    ("behavior.scaleUp.stabilizationWindowSeconds behavior.scaleUp.selectPolicy behavior.scaleUp.tolerance", Acts),
    ("behavior.scaleUp.policies[].type behavior.scaleUp.policies[].value behavior.scaleUp.policies[].periodSeconds", Acts),
    ("behavior.scaleDown.stabilizationWindowSeconds behavior.scaleDown.selectPolicy behavior.scaleDown.tolerance", Acts),
    ("behavior.scaleDown.policies[].type behavior.scaleDown.policies[].value behavior.scaleDown.policies[].periodSeconds", Acts),
];

const NO_CUSTOM_METRICS: &str =
    "no API for custom or external metrics is served: only `Resource` and `ContainerResource` metrics are supported";
const AN_AVERAGE: &str = "the target of a resource is an `averageUtilization` or an `averageValue` of its pods";

const DEFINITION: &[Row] = &[
    ("group scope names.plural names.singular names.kind names.listKind names.shortNames names.categories", Acts),
    ("versions[].name versions[].served versions[].storage versions[].deprecated versions[].deprecationWarning", Acts),
    // Its own rules say what a schema may be.
    ("versions[].schema.openAPIV3Schema", Check(|_, _| None)),
    ("versions[].subresources.status", Acts),
    ("versions[].subresources.scale.specReplicasPath versions[].subresources.scale.statusReplicasPath", Acts),
    ("versions[].subresources.scale.labelSelectorPath versions[].selectableFields[].jsonPath", Acts),
    ("versions[].additionalPrinterColumns[].name versions[].additionalPrinterColumns[].type", Acts),
    ("versions[].additionalPrinterColumns[].jsonPath versions[].additionalPrinterColumns[].priority", Acts),
    ("versions[].additionalPrinterColumns[].format versions[].additionalPrinterColumns[].description", Acts),
    ("conversion.strategy", Only(&["None"], NO_CONVERSION)),
    ("conversion.webhook", Refused(NO_CONVERSION)),
    ("preserveUnknownFields", Only(&["false"], "set `x-kubernetes-preserve-unknown-fields: true` in the schema instead")),
];

const NO_CONVERSION: &str = "webhooks that convert objects are not supported yet: versions with one schema need none";

const NODE: &[Row] = &[
    ("podCIDR podCIDRs unschedulable taints[].key taints[].value taints[].effect taints[].timeAdded", Acts),
    ("providerID externalID", Harmless),
    ("configSource", Refused("nodes are configured by their own files")),
    ("podPreemptionPolicy", Refused("nothing is preempted")),
];

const RUNTIME_CLASS: &[Row] = &[
    ("handler overhead.podFixed.* scheduling.nodeSelector.*", Acts),
    ("scheduling.tolerations[].key scheduling.tolerations[].operator scheduling.tolerations[].value", Acts),
    ("scheduling.tolerations[].effect scheduling.tolerations[].tolerationSeconds", Acts),
];

/// Only what holds for the whole cluster can gather others.
fn role(root: &mut Node, kind: Kind) {
    root.add("rules[]", RULE);
    if kind == Kind::ClusterRole {
        root.add("aggregationRule.clusterRoleSelectors[]", SELECTOR);
    }
}

const RULE: &[Row] = &[("verbs apiGroups resources resourceNames nonResourceURLs", Acts)];

const BINDING: &[Row] = &[
    ("subjects[].kind subjects[].apiGroup subjects[].name subjects[].namespace", Acts),
    ("roleRef.apiGroup roleRef.kind roleRef.name", Acts),
];

const SIGNING_REQUEST: &[Row] = &[("request signerName usages expirationSeconds username uid groups extra.*", Acts)];

const SERVICE_ACCOUNT: &[Row] = &[
    ("automountServiceAccountToken imagePullSecrets[].name", Acts),
    // For programs that read accounts.
    ("secrets", Harmless),
];

const SECRET: &[Row] = &[("data.* stringData.* immutable type", Acts)];

const SERVICE: &[Row] = &[
    ("type", Check(service_type)),
    ("clusterIP clusterIPs selector.* publishNotReadyAddresses", Acts),
    ("sessionAffinity sessionAffinityConfig.clientIP.timeoutSeconds", Acts),
    ("ports[].name ports[].port ports[].targetPort ports[].nodePort", Acts),
    ("ports[].protocol", Only(&["TCP", "UDP"], "SCTP is not supported")),
    // For programs that read Services; it changes nothing in the network.
    ("ports[].appProtocol trafficDistribution allocateLoadBalancerNodePorts", Harmless),
    ("externalIPs", Refused("external addresses are not supported yet: use type NodePort")),
    ("externalName", Refused(NO_EXTERNAL_NAME)),
    ("externalTrafficPolicy internalTrafficPolicy", Only(&["Cluster"], "only the traffic policy `Cluster` is supported yet")),
    ("healthCheckNodePort", Only(&["0"], NO_LOAD_BALANCER)),
    ("loadBalancerClass loadBalancerIP loadBalancerSourceRanges", Refused(NO_LOAD_BALANCER)),
    ("ipFamilies", Only(&["IPv4"], "IPv6 is not supported yet")),
    ("ipFamilyPolicy", Only(&["SingleStack", "PreferDualStack"], "IPv6 is not supported yet")),
];

const NO_LOAD_BALANCER: &str = "load balancers are not supported yet: use type NodePort";
const NO_EXTERNAL_NAME: &str = "type ExternalName is not supported: there are no cluster DNS names yet";

fn service_type(type_: &Value, _: &Value) -> Option<String> {
    match type_.as_str() {
        Some("LoadBalancer") => Some(NO_LOAD_BALANCER.to_owned()),
        Some("ExternalName") => Some(NO_EXTERNAL_NAME.to_owned()),
        _ => None,
    }
}

const ENDPOINT_SLICE: &[Row] = &[
    ("addressType", Only(&["IPv4"], "only IPv4 addresses are supported yet")),
    ("endpoints[].addresses endpoints[].conditions.ready endpoints[].conditions.serving endpoints[].conditions.terminating", Acts),
    ("endpoints[].targetRef endpoints[].nodeName endpoints[].zone endpoints[].hostname endpoints[].hints", Harmless),
    ("endpoints[].deprecatedTopology ports[].appProtocol", Harmless),
    ("ports[].name ports[].port", Acts),
    ("ports[].protocol", Only(&["TCP", "UDP"], "SCTP is not supported")),
];

const LEASE: &[Row] =
    &[("acquireTime holderIdentity leaseDurationSeconds leaseTransitions renewTime", Acts), ("preferredHolder strategy", Harmless)];

/// Events are for people: they are kept as they are.
const EVENT: &[Row] = &[
    ("action count eventTime firstTimestamp lastTimestamp message reason type", Acts),
    ("involvedObject related reportingComponent reportingInstance series source", Harmless),
];

const WEBHOOK: &[Row] = &[
    ("name admissionReviewVersions failurePolicy matchPolicy sideEffects timeoutSeconds", Acts),
    ("clientConfig.caBundle clientConfig.url clientConfig.service.name clientConfig.service.namespace", Acts),
    ("clientConfig.service.path clientConfig.service.port matchConditions[].name matchConditions[].expression", Acts),
    ("rules[].apiGroups rules[].apiVersions rules[].operations rules[].resources rules[].scope", Acts),
    ("namespaceSelector.matchLabels.* namespaceSelector.matchExpressions[].key", Acts),
    ("namespaceSelector.matchExpressions[].operator namespaceSelector.matchExpressions[].values", Acts),
    ("objectSelector.matchLabels.* objectSelector.matchExpressions[].key", Acts),
    ("objectSelector.matchExpressions[].operator objectSelector.matchExpressions[].values", Acts),
];

const SOURCE: &[Row] = &[
    ("directory path namespace intervalSeconds unsupported suspend adopt budget.objects budget.percent", Acts),
    ("git.url git.reference git.tokenFile git.caFile git.sshKeyFile git.knownHostsFile", Acts),
];
