//! One stored object: the typed view and its canonical JSON, shared and immutable.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apps::v1::{Deployment, ReplicaSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    certificates::v1::CertificateSigningRequest,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Namespace, Node, PersistentVolumeClaim, Pod, PodTemplateSpec, Secret, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    node::v1::RuntimeClass,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    storage::v1::{CSIDriver, CSINode, StorageClass},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::custom::{Custom, CustomResourceDefinition};
use super::volume::PersistentVolume;
use super::{Key, Kind, Source, convert};

/// What the cluster writes to metadata at each write, as `from` has it.
pub fn copy_stamps(meta: &mut ObjectMeta, from: &ObjectMeta) {
    meta.creation_timestamp.clone_from(&from.creation_timestamp);
    meta.deletion_timestamp.clone_from(&from.deletion_timestamp);
    meta.deletion_grace_period_seconds = from.deletion_grace_period_seconds;
    meta.generation = from.generation;
    meta.resource_version.clone_from(&from.resource_version);
}

/// A Kubernetes type that Podbay stores. Implemented by the one table below.
pub trait ApiType: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    const KIND: Kind;
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    fn wrap(self) -> Typed;
    fn of(typed: &Typed) -> Option<&Self>;
}

macro_rules! kinds {
    ($($kind:ident),+ $(,)?) => {
        /// The typed view of an object: one variant a kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Typed {
            $($kind(Box<$kind>),)+
            Custom(Box<Custom>),
        }

        impl Typed {
            pub fn kind(&self) -> Kind {
                match self {
                    $(Typed::$kind(_) => Kind::$kind,)+
                    Typed::Custom(it) => Kind::Custom(it.kind),
                }
            }
            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Typed::$kind(it) => &it.metadata,)+
                    Typed::Custom(it) => &it.metadata,
                }
            }
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Typed::$kind(it) => &mut it.metadata,)+
                    Typed::Custom(it) => &mut it.metadata,
                }
            }
            fn decode(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
                match kind {
                    $(Kind::$kind => serde_json::from_value(value).map(|it| Typed::$kind(Box::new(it))),)+
                    Kind::Edition(_) => Self::decode(kind.stored(), convert::between(value, kind, kind.stored())),
                    Kind::Custom(kind) => Custom::read(kind, value).map(|it| Typed::Custom(Box::new(it))),
                }
            }
            fn decode_slice(kind: Kind, json: &[u8]) -> Result<Self, serde_json::Error> {
                match kind {
                    $(Kind::$kind => serde_json::from_slice(json).map(|it| Typed::$kind(Box::new(it))),)+
                    Kind::Edition(_) | Kind::Custom(_) => Self::decode(kind, serde_json::from_slice(json)?),
                }
            }
            fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
                match self {
                    $(Typed::$kind(it) => serde_json::to_vec(it.as_ref()),)+
                    Typed::Custom(it) => serde_json::to_vec(it.as_ref()),
                }
            }
            fn value(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Typed::$kind(it) => serde_json::to_value(it.as_ref()),)+
                    Typed::Custom(it) => it.value(),
                }
            }
        }

        $(impl ApiType for $kind {
            const KIND: Kind = Kind::$kind;
            fn meta(&self) -> &ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
            fn wrap(self) -> Typed { Typed::$kind(Box::new(self)) }
            fn of(typed: &Typed) -> Option<&Self> {
                match typed { Typed::$kind(it) => Some(it), _ => None }
            }
        })+
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

/// Why bytes or a value are not an object of their kind.
#[derive(Debug, thiserror::Error)]
#[error("decode {kind}: {source}")]
pub struct DecodeError {
    pub kind: Kind,
    #[source]
    pub source: serde_json::Error,
}

/// An immutable object; cloning it is a reference count.
#[derive(Clone)]
pub struct Object(Arc<Inner>);

struct Inner {
    key: Key,
    typed: Typed,
    /// Encoded once, at the first need: lists and watches copy bytes.
    json: OnceLock<Bytes>,
}

impl Object {
    pub fn new<T: ApiType>(object: T) -> Self {
        Self::from_typed(object.wrap())
    }

    pub fn from_typed(typed: Typed) -> Self {
        let meta = typed.meta();
        let key = Key::new(typed.kind(), meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        Self(Arc::new(Inner { key, typed, json: OnceLock::new() }))
    }

    /// Reads an object of a known kind. Lenient as Kubernetes' decoder is: unknown fields are
    /// dropped; strictness is `model::schema`'s work.
    ///
    /// # Errors
    /// When a field has the wrong type or a required one is missing.
    pub fn from_value(kind: Kind, value: Value) -> Result<Self, DecodeError> {
        Typed::decode(kind, value).map(Self::from_typed).map_err(|source| DecodeError { kind, source })
    }

    /// Reads an object of a known kind from JSON bytes.
    ///
    /// # Errors
    /// When the bytes are not JSON of that kind.
    pub fn from_json(kind: Kind, json: &[u8]) -> Result<Self, DecodeError> {
        Typed::decode_slice(kind, json).map(Self::from_typed).map_err(|source| DecodeError { kind, source })
    }

    pub fn key(&self) -> &Key {
        &self.0.key
    }
    pub fn kind(&self) -> Kind {
        self.0.key.kind
    }
    pub fn typed(&self) -> &Typed {
        &self.0.typed
    }
    pub fn meta(&self) -> &ObjectMeta {
        self.0.typed.meta()
    }

    /// The typed view, if the object is a `T`.
    pub fn get<T: ApiType>(&self) -> Option<&T> {
        T::of(&self.0.typed)
    }

    /// The object as one of a custom kind.
    pub fn custom(&self) -> Option<&Custom> {
        match &self.0.typed {
            Typed::Custom(it) => Some(it),
            _ => None,
        }
    }

    /// `metadata.uid`, empty before admission.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// `metadata.resourceVersion` as a number; 0 for an object that was never stored.
    pub fn revision(&self) -> u64 {
        self.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub fn labels(&self) -> &std::collections::BTreeMap<String, String> {
        static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
        self.meta().labels.as_ref().unwrap_or(&NONE)
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub fn is_deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.meta().finalizers.iter().flatten().any(|finalizer| finalizer == name)
    }

    /// A copy that this finalizer does not hold.
    pub fn without_finalizer(&self, name: &str) -> Self {
        self.clone().edit_meta(|meta| {
            if let Some(finalizers) = &mut meta.finalizers {
                finalizers.retain(|finalizer| finalizer != name);
            }
            meta.finalizers = meta.finalizers.take().filter(|finalizers| !finalizers.is_empty());
        })
    }

    /// The owner reference with `controller: true`.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.meta().owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
    }

    /// What a workload's pods are made from.
    pub fn template(&self) -> Option<&PodTemplateSpec> {
        match self.typed() {
            Typed::Deployment(it) => Some(&it.spec.template),
            Typed::ReplicaSet(it) => it.spec.template.as_ref(),
            Typed::Job(it) => Some(&it.spec.as_ref()?.template),
            _ => None,
        }
    }

    /// The canonical JSON: k8s-openapi's field order, no nulls, with apiVersion and kind.
    pub fn json(&self) -> Bytes {
        // A type of ours cannot fail to encode: no map in it has a key that is not a string.
        self.0.json.get_or_init(|| self.0.typed.encode().map(Bytes::from).unwrap_or_default()).clone()
    }

    /// The object as a JSON value, for patches and field walks.
    pub fn value(&self) -> Value {
        self.0.typed.value().unwrap_or(Value::Null)
    }

    /// The same as a version of its kind has it.
    pub fn value_in(&self, kind: Kind) -> Value {
        convert::between(self.value(), self.kind(), kind)
    }

    /// The typed view by itself. Takes no copy when this is the only reference.
    pub fn into_typed(self) -> Typed {
        match Arc::try_unwrap(self.0) {
            Ok(inner) => inner.typed,
            Err(shared) => shared.typed.clone(),
        }
    }

    /// A changed copy.
    pub fn edit<T: ApiType>(&self, change: impl FnOnce(&mut T)) -> Option<Self> {
        let mut copy = self.get::<T>()?.clone();
        change(&mut copy);
        Some(Self::new(copy))
    }

    /// A copy with changed metadata. Takes no copy when this is the only reference.
    pub fn edit_meta(mut self, change: impl FnOnce(&mut ObjectMeta)) -> Self {
        let Some(inner) = Arc::get_mut(&mut self.0) else {
            let mut typed = self.into_typed();
            change(typed.meta_mut());
            return Self::from_typed(typed);
        };
        change(inner.typed.meta_mut());
        inner.json.take();
        let (key, meta) = (&inner.key, inner.typed.meta());
        let has_its_name = |name: &Option<String>, known: &str| name.as_deref().unwrap_or_default() == known;
        if has_its_name(&meta.name, &key.name) && has_its_name(&meta.namespace, &key.namespace) {
            return self;
        }
        Self::from_typed(self.into_typed())
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.typed == other.0.typed
    }
}

/// The key and revision only: an object's content may be secret.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @{}", self.key(), self.revision())
    }
}
