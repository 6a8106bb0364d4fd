//! The volume by which a pod reaches the API: the token of its account, the certificate of the server, its namespace.
//! Kubernetes' admission plugin ServiceAccount. PURE.
//!
//! Only where the server offers it: it says so by the ConfigMap that holds its certificate.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource,
    ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::create::suffix;
use crate::model::{API_ACCESS, DEFAULT_ACCOUNT, Kind, ROOT_CA, SYSTEM_NAMESPACE};
use crate::store::snapshot::Snapshot;

/// An hour, and as long as it may take to notice that it is over: Kubernetes' own number of seconds.
const TOKEN_LIFE: i64 = 3607;

/// Names the account of a pod that names none.
///
/// # Errors
/// An account that is not there. `default` comes with its namespace, if only a moment later.
pub(super) fn account(pod: &mut Pod, state: &Snapshot) -> Result<(), String> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return Ok(()) };
    let name = spec.service_account_name.take().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
    let known = name == DEFAULT_ACCOUNT || state.find(Kind::ServiceAccount, &namespace, &name).is_some();
    let refused = (!known).then(|| format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"));
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
    refused.map_or(Ok(()), Err)
}

/// Adds it to a pod that is to have it.
pub(super) fn add(pod: &mut Pod, state: &Snapshot) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let seed = pod.metadata.name.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return };
    let offered = state.find(Kind::ConfigMap, SYSTEM_NAMESPACE, ROOT_CA).is_some();
    if !offered || !is_wanted(spec, &namespace, state) {
        return;
    }
    let has = |volume: &Volume, name: &str| volume.name == name;
    let name = (0_u64..1000)
        .map(|attempt| format!("kube-api-access-{}", suffix(&seed, attempt)))
        .find(|name| !spec.volumes.iter().flatten().any(|volume| has(volume, name)));
    let Some(name) = name else { return };
    let mut mounted = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|mount| mount.mount_path != API_ACCESS) {
            let mount =
                VolumeMount { name: name.clone(), mount_path: API_ACCESS.to_owned(), read_only: Some(true), ..VolumeMount::default() };
            mounts.push(mount);
            mounted = true;
        }
    }
    if mounted {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

/// The pod decides, else its account; who says nothing wants it.
fn is_wanted(spec: &PodSpec, namespace: &str, state: &Snapshot) -> bool {
    spec.automount_service_account_token.unwrap_or_else(|| {
        let name = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_ACCOUNT);
        let account = state.find(Kind::ServiceAccount, namespace, name).and_then(|object| object.get::<ServiceAccount>());
        account.and_then(|account| account.automount_service_account_token).unwrap_or(true)
    })
}

fn volume(name: String) -> Volume {
    let key = |key: &str| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None, ..KeyToPath::default() };
    let own_namespace = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.namespace".to_owned() };
    let told = DownwardAPIVolumeFile { path: "namespace".to_owned(), field_ref: Some(own_namespace), ..DownwardAPIVolumeFile::default() };
    let token = ServiceAccountTokenProjection {
        expiration_seconds: Some(TOKEN_LIFE),
        path: "token".to_owned(),
        ..ServiceAccountTokenProjection::default()
    };
    let certificate = ConfigMapProjection { name: ROOT_CA.to_owned(), items: Some(vec![key("ca.crt")]), optional: None };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(certificate), ..VolumeProjection::default() },
        VolumeProjection { downward_api: Some(DownwardAPIProjection { items: Some(vec![told]) }), ..VolumeProjection::default() },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources), ..ProjectedVolumeSource::default() };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::Object;

    fn admitted(pod: Value, objects: Vec<(Kind, Value)>) -> Pod {
        let mut state = Snapshot::default();
        objects.into_iter().for_each(|(kind, value)| state.insert(Object::from_value(kind, value).unwrap()));
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        add(&mut pod, &state);
        pod
    }

    fn offer() -> (Kind, Value) {
        (Kind::ConfigMap, json!({"metadata": {"name": ROOT_CA, "namespace": SYSTEM_NAMESPACE}}))
    }

    #[test]
    fn a_pod_has_an_account_that_is_there() {
        let mut state = Snapshot::default();
        state.insert(Object::from_value(Kind::ServiceAccount, json!({"metadata": {"name": "bot", "namespace": "web"}})).unwrap());
        let asked = |name: Value| {
            let pod = json!({"metadata": {"name": "a", "namespace": "web"}, "spec": {"containers": [], "serviceAccountName": name}});
            let mut pod: Pod = serde_json::from_value(pod).unwrap();
            account(&mut pod, &state).map(|()| {
                let spec = pod.spec.unwrap_or_default();
                assert_eq!(spec.service_account, spec.service_account_name);
                spec.service_account_name.unwrap_or_default()
            })
        };
        assert_eq!(asked(Value::Null), Ok("default".to_owned()));
        assert_eq!(asked(json!("")), Ok("default".to_owned()));
        assert_eq!(asked(json!("bot")), Ok("bot".to_owned()));
        let why = "error looking up service account web/nope: serviceaccount \"nope\" not found";
        assert_eq!(asked(json!("nope")), Err(why.to_owned()));
    }

    #[test]
    fn a_pod_reaches_the_api_unless_it_or_its_account_wants_none() {
        let pod = |automount: Value| {
            json!({"metadata": {"name": "a", "namespace": "web"}, "spec": {"serviceAccountName": "bot",
            "automountServiceAccountToken": automount, "containers": [{"name": "c"}, {"name": "d", "volumeMounts": [{"name": "v", "mountPath": API_ACCESS}]}]}})
        };
        let account = |automount: bool| {
            (Kind::ServiceAccount, json!({"metadata": {"name": "bot", "namespace": "web"}, "automountServiceAccountToken": automount}))
        };
        let count = |pod: &Pod| pod.spec.as_ref().unwrap().volumes.as_ref().map_or(0, Vec::len);
        assert_eq!(count(&admitted(pod(Value::Null), vec![])), 0, "not offered");
        assert_eq!(count(&admitted(pod(Value::Null), vec![offer(), account(false)])), 0);
        assert_eq!(count(&admitted(pod(json!(false)), vec![offer(), account(true)])), 0);
        assert_eq!(count(&admitted(pod(json!(true)), vec![offer(), account(false)])), 1);
        let with = admitted(pod(Value::Null), vec![offer()]);
        let spec = with.spec.as_ref().unwrap();
        let name = &spec.volumes.as_ref().unwrap()[0].name;
        assert_eq!(spec.containers[0].volume_mounts.as_ref().unwrap()[0].name, *name);
        assert_eq!(spec.containers[1].volume_mounts.as_ref().unwrap()[0].name, "v", "its own is left alone");
        assert_eq!(admitted(pod(Value::Null), vec![offer()]), with, "the same pod gets the same name");
    }
}
