//! The kind registry: every kind Podbay serves, once.
//!
//! A kind's REST names, scope and short names are data here; handlers, discovery, the CLI and sync
//! read this table and know no kind by heart. A kind that is served in a further version, or group, has a row in [`EDITIONS`] for it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use super::convert::{Conversion, autoscaling_v1, events_v1};
use super::custom::CustomKind;

macro_rules! kinds {
    ($($kind:ident),+ $(,)?) => {
        /// A kind Podbay serves. The order is the order in which a set of objects is written: what others
        /// refer to comes first (namespaces before what lives in them, configuration before workloads).
        ///
        /// Two that differ in group and version only are the same kind, as custom ones are in the version.
        #[derive(Clone, Copy, Debug)]
        pub enum Kind {
            $($kind,)+
            /// One of these in a version that is not the one it is stored in: what a path or a manifest names, never what
            /// an object or its key says.
            Edition(Edition),
            /// A kind that a CustomResourceDefinition makes.
            Custom(CustomKind),
        }

        /// The same without the custom ones: its numbers are the places in the table.
        enum Place {
            $($kind,)+
        }

        impl Kind {
            /// Its place in the table; custom kinds have none.
            pub const fn place(self) -> Option<usize> {
                match self {
                    $(Kind::$kind => Some(Place::$kind as usize),)+
                    Kind::Edition(it) => it.of().place(),
                    Kind::Custom(_) => None,
                }
            }
        }
    };
}

kinds!(
    Namespace,
    CustomResourceDefinition,
    Node,
    RuntimeClass,
    StorageClass,
    CSIDriver,
    CSINode,
    PersistentVolume,
    ServiceAccount,
    Secret,
    ConfigMap,
    ClusterRole,
    Role,
    ClusterRoleBinding,
    RoleBinding,
    CertificateSigningRequest,
    PersistentVolumeClaim,
    Service,
    Pod,
    ReplicaSet,
    Deployment,
    Job,
    HorizontalPodAutoscaler,
    EndpointSlice,
    Lease,
    Event,
    Source,
    MutatingWebhookConfiguration,
    ValidatingWebhookConfiguration,
);

/// A further version of a kind: its place in [`EDITIONS`].
#[derive(Clone, Copy, Debug)]
pub struct Edition(usize);

/// What a further version differs in.
struct Further {
    of: Kind,
    group: &'static str,
    version: &'static str,
    conversion: &'static Conversion,
}

/// Versions that are served besides those of the table.
const EDITIONS: &[Further] = &[
    Further { of: Kind::HorizontalPodAutoscaler, group: "autoscaling", version: "v1", conversion: &autoscaling_v1::CONVERSION },
    Further { of: Kind::Event, group: "events.k8s.io", version: "v1", conversion: &events_v1::CONVERSION },
];

/// Their rows.
static EDITION_ROWS: LazyLock<Vec<KindInfo>> = LazyLock::new(|| {
    let row = |(place, it): (usize, &Further)| KindInfo {
        kind: Kind::Edition(Edition(place)),
        group: it.group,
        version: it.version,
        ..*it.of.info()
    };
    EDITIONS.iter().enumerate().map(row).collect()
});

impl Edition {
    const fn of(self) -> Kind {
        EDITIONS[self.0].of
    }
}

/// What the REST API and the CLI need to know of a kind.
#[derive(Debug)]
pub struct KindInfo {
    pub kind: Kind,
    /// API group, empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// CamelCase name as in a manifest's `kind`.
    pub name: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short: &'static [&'static str],
    pub namespaced: bool,
    /// Whether the kind has a `status` subresource.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub counts_generation: bool,
    /// kubectl's categories (`all`).
    pub categories: &'static [&'static str],
}

/// The group of webhooks.
pub const ADMISSION: &str = "admissionregistration.k8s.io";
/// The group of storage classes and of what drivers and kubelets say of volumes.
pub const STORAGE: &str = "storage.k8s.io";
/// The group of roles and their bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io";

const TABLE: &[KindInfo] = &[
    row(Kind::Namespace, "", "v1", "Namespace", "namespaces", "namespace", &["ns"], false, true, false, &[]),
    row(
        Kind::CustomResourceDefinition,
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
        &["crd", "crds"],
        false,
        true,
        true,
        &["api-extensions"],
    ),
    row(Kind::Node, "", "v1", "Node", "nodes", "node", &["no"], false, true, false, &[]),
    row(Kind::RuntimeClass, "node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass", &[], false, false, false, &[]),
    row(Kind::StorageClass, STORAGE, "v1", "StorageClass", "storageclasses", "storageclass", &["sc"], false, false, false, &[]),
    row(Kind::CSIDriver, STORAGE, "v1", "CSIDriver", "csidrivers", "csidriver", &[], false, false, true, &[]),
    row(Kind::CSINode, STORAGE, "v1", "CSINode", "csinodes", "csinode", &[], false, false, false, &[]),
    row(Kind::PersistentVolume, "", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume", &["pv"], false, true, false, &[]),
    row(Kind::ServiceAccount, "", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", &["sa"], true, false, false, &[]),
    row(Kind::Secret, "", "v1", "Secret", "secrets", "secret", &[], true, false, false, &[]),
    row(Kind::ConfigMap, "", "v1", "ConfigMap", "configmaps", "configmap", &["cm"], true, false, false, &[]),
    row(Kind::ClusterRole, RBAC, "v1", "ClusterRole", "clusterroles", "clusterrole", &[], false, false, false, &[]),
    row(Kind::Role, RBAC, "v1", "Role", "roles", "role", &[], true, false, false, &[]),
    row(
        Kind::ClusterRoleBinding,
        RBAC,
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding",
        &[],
        false,
        false,
        false,
        &[],
    ),
    row(Kind::RoleBinding, RBAC, "v1", "RoleBinding", "rolebindings", "rolebinding", &[], true, false, false, &[]),
    row(
        Kind::CertificateSigningRequest,
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
        &["csr"],
        false,
        true,
        false,
        &[],
    ),
    row(
        Kind::PersistentVolumeClaim,
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
        &["pvc"],
        true,
        true,
        false,
        &[],
    ),
    row(Kind::Service, "", "v1", "Service", "services", "service", &["svc"], true, true, false, &["all"]),
    row(Kind::Pod, "", "v1", "Pod", "pods", "pod", &["po"], true, true, true, &["all"]),
    row(Kind::ReplicaSet, "apps", "v1", "ReplicaSet", "replicasets", "replicaset", &["rs"], true, true, true, &["all"]),
    row(Kind::Deployment, "apps", "v1", "Deployment", "deployments", "deployment", &["deploy"], true, true, true, &["all"]),
    row(Kind::Job, "batch", "v1", "Job", "jobs", "job", &[], true, true, true, &["all"]),
    row(
        Kind::HorizontalPodAutoscaler,
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
        &["hpa"],
        true,
        true,
        true,
        &["all"],
    ),
    row(Kind::EndpointSlice, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", &[], true, false, true, &[]),
    row(Kind::Lease, "coordination.k8s.io", "v1", "Lease", "leases", "lease", &[], true, false, false, &[]),
    row(Kind::Event, "", "v1", "Event", "events", "event", &["ev"], true, false, false, &[]),
    row(Kind::Source, "podbay.dev", "v1", "Source", "sources", "source", &["src"], false, true, true, &[]),
    row(
        Kind::MutatingWebhookConfiguration,
        ADMISSION,
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
        &[],
        false,
        false,
        true,
        &["api-extensions"],
    ),
    row(
        Kind::ValidatingWebhookConfiguration,
        ADMISSION,
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
        &[],
        false,
        false,
        true,
        &["api-extensions"],
    ),
];

#[allow(clippy::too_many_arguments)] // a table row, not a call
const fn row(
    kind: Kind,
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    has_status: bool,
    counts_generation: bool,
    categories: &'static [&'static str],
) -> KindInfo {
    KindInfo { kind, group, version, name, plural, singular, short, namespaced, has_status, counts_generation, categories }
}

impl Kind {
    /// The table, in the order of the enum: every kind but the custom ones, as it is stored.
    pub fn all() -> &'static [KindInfo] {
        TABLE
    }

    /// The versions of these kinds that are served besides.
    pub fn editions() -> &'static [KindInfo] {
        &EDITION_ROWS
    }

    fn rows() -> impl Iterator<Item = &'static KindInfo> {
        TABLE.iter().chain(Self::editions())
    }

    /// A kind of the table in every version, the stored one first; none of a custom kind.
    pub fn versions(self) -> impl Iterator<Item = Kind> {
        Self::rows().map(|row| row.kind).filter(move |kind| *kind == self)
    }

    /// The kind as its objects say it: in the version they are stored in. Custom kinds stay as they are.
    pub const fn stored(self) -> Self {
        match self {
            Kind::Edition(it) => it.of(),
            kind => kind,
        }
    }

    /// Whether both name the same group and version.
    pub fn is_version(self, other: Self) -> bool {
        let (one, other) = (self.info(), other.info());
        (one.group, one.version) == (other.group, other.version)
    }

    /// How values get from this version to the stored one and back; none where it is that.
    pub fn conversion(self) -> Option<&'static Conversion> {
        match self {
            Kind::Edition(it) => Some(EDITIONS[it.0].conversion),
            _ => None,
        }
    }

    /// The kind's row.
    pub fn info(self) -> &'static KindInfo {
        match self {
            Kind::Custom(kind) => kind.info(),
            Kind::Edition(it) => &EDITION_ROWS[it.0],
            // The place of every other kind is in the table.
            other => &TABLE[other.place().unwrap_or_default()],
        }
    }

    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// `pods`, `deployments.apps`: a resource in messages.
    pub fn qualified(self) -> String {
        let info = self.info();
        if info.group.is_empty() { info.plural.to_owned() } else { format!("{}.{}", info.plural, info.group) }
    }

    /// `v1` or `group/version`.
    pub fn api_version(self) -> String {
        let info = self.info();
        if info.group.is_empty() { info.version.to_owned() } else { format!("{}/{}", info.group, info.version) }
    }

    /// The kind of a manifest's `apiVersion` and `kind`, if it is in the table.
    pub fn of(api_version: &str, kind: &str) -> Option<Kind> {
        Self::rows().find(|row| row.name == kind && row.kind.api_version() == api_version).map(|row| row.kind)
    }

    /// A kind by its name, served or not: custom ones that were once defined too. To say which object
    /// is meant, not whether there may be one.
    pub fn known(api_version: &str, kind: &str) -> Option<Kind> {
        Self::of(api_version, kind).or_else(|| CustomKind::known(api_version, kind).map(Kind::Custom))
    }

    /// The kind of a REST path's group, version and plural.
    pub fn of_resource(group: &str, version: &str, plural: &str) -> Option<Kind> {
        Self::rows().find(|row| row.group == group && row.version == version && row.plural == plural).map(|row| row.kind)
    }

    /// The kind a person means on the command line: `po`, `pod`, `Pods`, `deployments.apps`.
    pub fn of_word(word: &str) -> Option<Kind> {
        let word = word.to_lowercase();
        let (name, group) = match word.split_once('.') {
            Some((name, group)) => (name.to_owned(), Some(group.to_owned())),
            None => (word, None),
        };
        TABLE
            .iter()
            .find(|row| {
                let named = row.plural == name || row.singular == name || row.short.contains(&name.as_str());
                named && group.as_deref().is_none_or(|group| group == row.group)
            })
            .map(|row| row.kind)
    }
}

impl Kind {
    /// What makes two the same kind, in the order of the enum.
    fn identity(self) -> (usize, Option<CustomKind>) {
        match self {
            Kind::Custom(kind) => (usize::MAX, Some(kind)),
            other => (other.place().unwrap_or_default(), None),
        }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind.place(), Some(index), "{}", row.name);
        }
    }

    #[test]
    fn versions_of_a_kind_are_one_kind() {
        for row in Kind::editions() {
            let (kind, stored) = (row.kind, row.kind.stored());
            assert_eq!((kind, kind.place()), (stored, stored.place()), "{}", row.name);
            assert_eq!((row.name, row.plural), (stored.name(), stored.info().plural));
            assert!(!kind.is_version(stored), "{}", row.name);
            assert!(Kind::of(&kind.api_version(), row.name).unwrap().is_version(kind));
            assert!(Kind::of_resource(row.group, row.version, row.plural).unwrap().is_version(kind));
            assert!(kind.conversion().is_some() && stored.conversion().is_none());
            assert!(kind.versions().any(|it| it.is_version(kind)) && kind.versions().next().unwrap().conversion().is_none());
        }
        let versions: Vec<_> = Kind::HorizontalPodAutoscaler.versions().map(|kind| kind.info().version).collect();
        assert_eq!(versions, ["v2", "v1"]);
        let versions: Vec<_> = Kind::Event.versions().map(Kind::api_version).collect();
        assert_eq!(versions, ["v1", "events.k8s.io/v1"]);
        assert_eq!(Kind::Pod.versions().count(), 1);
    }

    #[test]
    fn words_find_their_kind() {
        for (word, kind) in [("po", Kind::Pod), ("Deployments.apps", Kind::Deployment), ("svc", Kind::Service), ("source", Kind::Source)] {
            assert_eq!(Kind::of_word(word), Some(kind), "{word}");
        }
        assert_eq!(Kind::of_word("deployments.batch"), None);
        assert_eq!(Kind::of("apps/v1", "Deployment"), Some(Kind::Deployment));
        assert_eq!(Kind::of("v1", "Deployment"), None);
    }
}
