//! A new object: what the system gives it, and whether it may be. PURE.

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Namespace, Pod};

use super::{
    LASTING_NAMESPACES, Outcome, Refused, api_access, custom, definition, invalid, is_controller, job, persistent, pod_security,
    runtime_class, seconds, service, status,
};
use crate::model::{Errors, Key, Kind, MIRROR, Object, Path, Typed, defaults, fields, pod, validate};
use crate::store::snapshot::Snapshot;
use crate::store::transaction::Stamp;

/// What generated names end with: no vowels, no lookalikes.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// What is kept of `generateName` before the suffix.
const PREFIX_LENGTH: usize = 63 - SUFFIX_LENGTH;

pub(super) fn create(object: Object, state: &Snapshot, writer: &str, stamp: &mut Stamp<'_>) -> Result<Outcome, Refused> {
    // A source records in the same transaction what it creates: it brings the UID along.
    let brought = object.meta().uid.clone().filter(|uid| writer.starts_with("source:") && !uid.is_empty());
    let uid = brought.unwrap_or_else(|| (stamp.uid)());
    let mut typed = object.into_typed();
    generate_name(&mut typed, &uid, state);
    let kind = typed.kind();
    home(kind, &typed, state)?;
    let meta = typed.meta_mut();
    meta.uid = Some(uid);
    meta.creation_timestamp = Some(seconds(stamp.now));
    meta.generation = kind.info().counts_generation.then_some(1);
    meta.resource_version = None;
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    defaults::apply(&mut typed);
    if let Typed::Custom(it) = &mut typed {
        custom::refresh(it, state.definitions());
    }
    // An agent registers its Node together with what it found.
    if kind != Kind::Node {
        status::reset(&mut typed);
    }
    match &mut typed {
        Typed::Namespace(it) => namespace(it),
        Typed::Pod(it) => {
            // A kubelet's own pod has neither an account nor what comes with one (`plugin/pkg/admission/serviceaccount`).
            let mirrors = it.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR));
            let account = if mirrors { no_account(it) } else { api_access::account(it, state) };
            self::pod(it, !mirrors, state);
            if let Err((at, message)) = admitted(it, account, state) {
                let key = Object::from_typed(typed).key().clone();
                return Err(Refused::Forbidden { key, message, at });
            }
        }
        // Kubernetes' types have no way to leave these out, and clients read on in them.
        Typed::Service(it) => it.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default()),
        Typed::Event(it) => drop(it.source.get_or_insert_default()),
        Typed::Job(it) => job::generate(it),
        Typed::PersistentVolume(it) => persistent::volume(it),
        Typed::PersistentVolumeClaim(it) => persistent::claim(it, state),
        Typed::CustomResourceDefinition(it) => definition::settle(it, state, stamp.now),
        _ => {}
    }
    let mut errors = validate::validate(&typed);
    if let Typed::Custom(it) = &mut typed {
        errors.extend(custom::complete(it, state.definitions(), None)?);
    }
    if let Typed::CustomResourceDefinition(it) = &typed {
        definition::check(it, &mut errors);
    }
    if errors.is_empty()
        && let Typed::Service(it) = &mut typed
    {
        errors = service::allocate(it, state);
    }
    if let Typed::Pod(it) = &typed
        && it.spec.as_ref().is_some_and(|spec| spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()))
    {
        let mut more = Errors::default();
        more.forbidden(&Path::root("spec.ephemeralContainers"), "cannot be set on create");
        errors.extend(more.into_vec());
    }
    if let Typed::PersistentVolume(it) = &typed {
        errors.extend(persistent::old_options(it));
    }
    let created = Object::from_typed(typed);
    if !is_controller(writer) {
        errors.extend(fields::refusals(kind, &created.value()));
    }
    if errors.is_empty() { Ok(Outcome::Put(created)) } else { Err(invalid(&created, errors)) }
}

/// Whether a pod may be, with what its class gives it; else of which field that is said, and why not.
fn admitted(it: &mut Pod, account: Result<(), String>, state: &Snapshot) -> Result<(), (&'static str, String)> {
    account.map_err(|message| ("spec.serviceAccountName", message))?;
    runtime_class::merge(it, state).map_err(|message| ("spec.runtimeClassName", message))?;
    pod_security::admit(it, state).map_err(|message| ("", message))
}

/// `generateName` plus a suffix that follows from the UID.
fn generate_name(typed: &mut Typed, uid: &str, state: &Snapshot) {
    let kind = typed.kind();
    let meta = typed.meta_mut();
    let prefix = meta.generate_name.as_deref().unwrap_or_default();
    if prefix.is_empty() || !meta.name.as_deref().unwrap_or_default().is_empty() {
        return;
    }
    let end = prefix.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= PREFIX_LENGTH).last().unwrap_or(0);
    let namespace = meta.namespace.clone().unwrap_or_default();
    let names = (0_u64..).map(|attempt| format!("{}{}", &prefix[..end], suffix(uid, attempt)));
    let free = |name: &String| state.get(&Key::new(kind, namespace.clone(), name.as_str())).is_none();
    meta.name = names.take(1000).find(free);
}

pub(super) fn suffix(uid: &str, attempt: u64) -> String {
    let mut hash = super::hash(&[uid.as_bytes(), &attempt.to_be_bytes()]);
    let base = SAFE.len() as u64;
    (0..SUFFIX_LENGTH)
        .map(|_| {
            let index = usize::try_from(hash % base).unwrap_or(0);
            hash /= base;
            char::from(SAFE[index])
        })
        .collect()
}

/// The namespace the object would live in is there and stays.
fn home(kind: Kind, typed: &Typed, state: &Snapshot) -> Result<(), Refused> {
    let name = typed.meta().namespace.as_deref().unwrap_or_default();
    if !kind.info().namespaced || name.is_empty() {
        return Ok(());
    }
    match state.get(&Key::cluster(Kind::Namespace, name)) {
        None if LASTING_NAMESPACES.contains(&name) => Ok(()),
        None => Err(Refused::NoNamespace(name.to_owned())),
        Some(namespace) if namespace.is_deleting() => Err(Refused::Terminating { key: Object::from_typed(typed.clone()).key().clone() }),
        Some(_) => Ok(()),
    }
}

/// Who may show a pod of its own kubelet's making must not come by an account through it: its node gets the account's tokens.
fn no_account(it: &Pod) -> Result<(), String> {
    let account = it.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or_default();
    if account.is_empty() { Ok(()) } else { Err("a mirror pod may not reference service accounts".to_owned()) }
}

/// A namespace is emptied before it goes.
fn namespace(it: &mut Namespace) {
    it.status.get_or_insert_default().phase = Some("Active".to_owned());
    let finalizers = it.spec.get_or_insert_default().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|name| name == "kubernetes") {
        finalizers.push("kubernetes".to_owned());
    }
}

fn pod(it: &mut Pod, has_account: bool, state: &Snapshot) {
    if has_account {
        pull_secrets(it, state);
        api_access::add(it, state);
    }
    let class = it.spec.as_ref().map(|spec| pod::qos_class(spec).name().to_owned());
    let status = it.status.get_or_insert_default();
    status.phase = Some("Pending".to_owned());
    status.qos_class = class;
}

/// A pod that names no pull secrets gets those of its account, as the account is now.
fn pull_secrets(it: &mut Pod, state: &Snapshot) {
    let namespace = it.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = it.spec.as_mut().filter(|spec| spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty)) else { return };
    let name = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let account = state.get(&Key::new(Kind::ServiceAccount, namespace, name));
    if let Some(Typed::ServiceAccount(account)) = account.map(|account| account.typed()) {
        spec.image_pull_secrets = account.image_pull_secrets.clone().filter(|secrets| !secrets.is_empty());
    }
}
