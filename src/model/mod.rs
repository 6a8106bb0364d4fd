//! The objects: what a kind is, what an object is called, what it holds. PURE.
//!
//! - `kind`, `key`, `object`: the registry, the identity, the value
//! - `source`: our own kind
//! - `convert`: kinds that are served in more versions than the one they are stored in
//! - `custom`: kinds that are objects themselves
//! - `manifest`: YAML, JSON and TOML text to positioned values
//! - `schema`: the walk that finds unknown fields and duplicate keys
//! - `defaults`, `validate`, `fields`: Kubernetes' rules, written once
//! - `quantity`, `selector`: the two small languages inside objects
//! - `pod`: what a pod's fields mean taken together
//! - `volume`: persistent volumes, and what they and the claims on them mean taken together; `shelf`: which one a claim takes
//! - `scale`: how many of something there are and shall be; `usage`: what a pod was measured to use
//! - `event`: occurrences of the same thing as one object
//! - `rule`: a broken rule and its place, in Kubernetes' words
//! - `pod_security`: the levels of the Pod Security Standards, as a namespace's labels name them
//! - `webhook`: the two kinds of webhooks as one
//! - `rights`: the language of roles: what a rule allows, and what it covers of another
//! - `ownership`: who owns which field (server-side apply's field sets)

pub mod convert;
pub mod custom;
pub mod defaults;
pub mod event;
pub mod fields;
mod key;
mod kind;
pub mod local_volume;
pub mod manifest;
mod object;
pub mod ownership;
pub mod pod;
pub mod pod_security;
pub mod quantity;
pub mod rights;
pub mod rule;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod shelf;
mod source;
pub mod usage;
pub mod validate;
pub mod volume;
pub mod webhook;

pub use key::Key;
pub use kind::{ADMISSION, Kind, KindInfo, RBAC, STORAGE};
pub use object::{ApiType, DecodeError, Object, Typed, copy_stamps};
pub use rule::{ErrorReason, Errors, FieldError, Path};
pub use source::{GitSource, InventoryEntry, PruneBudget, Source, SourceSpec, SourceStatus, WaitingPlan};

/// kubectl's copy of the whole object, secrets included.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes of all annotations of an object (Kubernetes' `TotalAnnotationSizeLimitB`).
pub const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// Reason of the 401 by which a node hears that it was removed, or that another host has its name now.
pub const NODE_REMOVED: &str = "NodeRemoved";

/// The namespace of what is the system's own.
pub const SYSTEM_NAMESPACE: &str = "kube-system";
/// The ServiceAccount that every namespace has.
pub const DEFAULT_ACCOUNT: &str = "default";
/// The ConfigMap that every namespace has where the API is offered to pods: the certificate of its CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// The type of a Secret that holds a token without an end of a ServiceAccount, and its annotations (core/v1's `SecretType`):
/// the account's name, which whoever makes the Secret says, and its uid, which the cluster says.
pub const ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
pub const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The annotation of a pod that stands for one that a kubelet runs by itself (core/v1's `MirrorPodAnnotationKey`).
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Where a container finds its account's token.
pub const API_ACCESS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A point in time. Pure code gets it as data; only `clock` reads one.
pub type Timestamp = jiff::Timestamp;
