//! What is said no to of an object that a source wants: of which field, and what would help. PURE.

use k8s_openapi::api::core::v1::{Pod, Service};

use super::desired::DesiredSet;
use super::render::Desired;
use crate::admit::Refused;
use crate::model::defaults::JOB_LABELS;
use crate::model::manifest::told;
use crate::model::{FieldError, Key, Kind, Object, Typed, schema};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::CommitError;

/// One thing that is refused of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// The field, in Kubernetes' notation; empty where it is about the whole object.
    pub path: String,
    pub message: String,
    pub hint: Option<String>,
    /// What it depends on: where that is refused itself, this only follows.
    pub needs: Option<Key>,
}

impl Refusal {
    pub fn new(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into(), hint: None, needs: None }
    }
}

/// Everything that admission has against an object; `state`: where it would be written.
pub(super) fn of(error: &CommitError, desired: &Desired, state: &Snapshot, wanted: &DesiredSet) -> Vec<Refusal> {
    let CommitError::Refused(refused) = error else { return vec![Refusal::new("", error.to_string())] };
    match refused {
        Refused::Invalid { errors, .. } => errors.iter().map(|error| broken(error, desired, state)).collect(),
        Refused::NoNamespace(name) => {
            let hint = Some(no_namespace(name, desired, state, wanted));
            let needs = Some(Key::cluster(Kind::Namespace, name.as_str()));
            vec![Refusal { hint, needs, ..Refusal::new("metadata.namespace", refused.to_string()) }]
        }
        Refused::Terminating { .. } => vec![Refusal::new("metadata.namespace", refused.to_string())],
        Refused::Forbidden { at, .. } => vec![forbidden(at, refused, desired, state, wanted)],
        Refused::Ending { .. } => vec![Refusal::new("kind", refused.to_string())],
    }
}

fn broken(error: &FieldError, desired: &Desired, state: &Snapshot) -> Refusal {
    let object = &desired.object;
    let hint = exported(object, error).or_else(|| taken(object, error, state));
    Refusal { hint, ..Refusal::new(&error.path, told(object.kind(), &error.path, &error.message)) }
}

/// What to take out of an object that carries what another cluster gave it.
pub(super) fn exported(object: &Object, error: &FieldError) -> Option<String> {
    let Typed::Job(job) = object.typed() else { return None };
    let spec = job.spec.as_ref().filter(|spec| spec.manual_selector != Some(true))?;
    if !matches!(error.path.as_str(), "spec.selector" | "spec.template.metadata.labels") || !error.message.contains("`selector`") {
        return None;
    }
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let labels: Vec<String> =
        JOB_LABELS.iter().filter(|name| labels.is_some_and(|all| all.contains_key(**name))).map(|name| format!("`{name}`")).collect();
    let mut out: Vec<String> = spec.selector.iter().map(|_| "`spec.selector`".to_owned()).collect();
    if !labels.is_empty() {
        out.push(format!("of `spec.template.metadata.labels` {}", labels.join(", ")));
    }
    (!out.is_empty()).then(|| format!("a Job gets its own here: take out {}", out.join(" and ")))
}

/// What else can be had in the place of an address or a port of a Service.
fn taken(object: &Object, error: &FieldError, state: &Snapshot) -> Option<String> {
    let spec = object.get::<Service>()?.spec.as_ref()?;
    let (field, word) = if error.path.starts_with("spec.clusterIP") && error.message.contains("failed to allocate IP") {
        ("clusterIP", spec.cluster_ip.clone()?)
    } else if error.path.ends_with(".nodePort") && error.message.contains("provided port") {
        let index = error.path.strip_prefix("spec.ports[")?.split(']').next()?.parse::<usize>().ok()?;
        ("nodePort", format!(":{}", spec.ports.as_ref()?.get(index)?.node_port?))
    } else {
        return None;
    };
    let holder = state.claimed(&word).filter(|key| *key != object.key()).map(|key| format!("{key} has it; ")).unwrap_or_default();
    Some(format!("{holder}without `{field}` it gets a free one"))
}

fn no_namespace(name: &str, desired: &Desired, state: &Snapshot, wanted: &DesiredSet) -> String {
    match wanted.get(&Key::cluster(Kind::Namespace, name)) {
        Some(later) if later.wave > desired.wave => format!("its Namespace comes in wave {}, after it", later.wave),
        _ => near(name, Kind::Namespace, "", state, wanted),
    }
}

/// Of the objects of a kind that there are and will be, the one whose name was probably meant.
fn near(name: &str, kind: Kind, namespace: &str, state: &Snapshot, wanted: &DesiredSet) -> String {
    let there = state.list(kind).map(Object::key).chain(wanted.keys().filter(|key| key.kind == kind));
    let there = there.filter(|key| key.namespace == namespace);
    match schema::nearest(name, there.map(|key| key.name.as_str())) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("add a {kind} to the tree"),
    }
}

fn forbidden(at: &str, refused: &Refused, desired: &Desired, state: &Snapshot, wanted: &DesiredSet) -> Refusal {
    let kind = desired.object.kind();
    let needs = match kind {
        // Its definition may have been read so far that its objects were.
        Kind::Custom(_) if at.is_empty() => {
            let info = kind.info();
            Key::cluster(Kind::CustomResourceDefinition, format!("{}.{}", info.plural, info.group))
        }
        // What pods may is said by their namespace.
        _ => Key::cluster(Kind::Namespace, desired.object.key().namespace.as_str()),
    };
    let needs = Some(needs);
    let refusal = Refusal { needs, ..Refusal::new(at, refused.to_string()) };
    let spec = desired.object.get::<Pod>().and_then(|pod| pod.spec.as_ref());
    let named = spec.and_then(|spec| match at {
        "spec.serviceAccountName" => {
            Some((Kind::ServiceAccount, desired.object.key().namespace.as_str(), spec.service_account_name.as_ref()?))
        }
        "spec.runtimeClassName" => Some((Kind::RuntimeClass, "", spec.runtime_class_name.as_ref()?)),
        _ => None,
    });
    let Some((kind, namespace, name)) = named.filter(|(kind, namespace, name)| state.find(*kind, namespace, name).is_none()) else {
        return refusal;
    };
    let key = Key::new(kind, namespace, name.as_str());
    let hint = match wanted.get(&key) {
        Some(later) if later.wave > desired.wave => format!("its {kind} comes in wave {}, after it", later.wave),
        _ => near(name, kind, namespace, state, wanted),
    };
    Refusal { hint: Some(hint), needs: Some(key), ..refusal }
}

/// The paths under which a manifest may have written a field, the likeliest first.
pub(super) fn written(path: &str) -> Vec<String> {
    let mut paths = vec![path.to_owned()];
    if path.starts_with("spec.clusterIPs") {
        paths.push("spec.clusterIP".to_owned());
    }
    if let Some(rest) = path.strip_prefix("data") {
        paths.push(format!("stringData{rest}"));
    }
    paths
}
