//! Which claims a pod lacks of its own. Names and words are those of Kubernetes' ephemeral volume controller. PURE.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::model::{Key, Kind, Object, pod, volume};
use crate::plan::{Op, Plan, Reason};
use crate::store::snapshot::Snapshot;

/// Who says so in events.
pub const NAME: &str = "ephemeral-volume";

/// A pod's volumes that are made from a template: volume, claim, template.
pub fn templates(pod: &Pod) -> impl Iterator<Item = (&str, String, &PersistentVolumeClaimTemplate)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |it| {
        let template = it.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((it.name.as_str(), volume::claimed(name, it)?.claim, template))
    })
}

pub fn plan(state: &Snapshot, object: &Object) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = object.get::<Pod>().filter(|pod| !object.is_deleting() && !pod::is_terminal(pod)) else { return plan };
    for (volume, name, template) in templates(pod) {
        let key = Key::new(Kind::PersistentVolumeClaim, object.key().namespace.clone(), name);
        match state.get(&key) {
            None => plan.ops.push(Op::Create(claim(object, &key, template))),
            Some(found) if volume::is_own(found.meta(), object.uid()) => {}
            Some(_) => {
                let whole = |key: &Key| format!("{}/{}", key.namespace, key.name);
                let message = format!(
                    "ephemeral volume {volume}: PVC {} was not created for pod {} (pod is not owner)",
                    whole(&key),
                    whole(object.key())
                );
                plan.tell(state, NAME, object.key(), true, Reason::new("FailedBinding", message));
            }
        }
    }
    plan
}

fn claim(pod: &Object, key: &Key, template: &PersistentVolumeClaimTemplate) -> Object {
    let of_template = template.metadata.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: Kind::Pod.name().to_owned(),
        name: pod.key().name.clone(),
        uid: pod.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: of_template.labels,
        annotations: of_template.annotations,
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Object::new(PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), ..PersistentVolumeClaim::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, phase: &str) -> Object {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        let pod = json!({"metadata": {"name": "p", "namespace": "web", "uid": uid}, "status": {"phase": phase},
            "spec": {"containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "e", "emptyDir": {}}]}});
        Object::from_value(Kind::Pod, pod).unwrap()
    }

    #[test]
    fn a_pod_gets_its_claims_once() {
        let mut state = Snapshot::default();
        let made = plan(&state, &pod("u1", "Pending"));
        let [Op::Create(claim)] = made.ops.as_slice() else { panic!("{made:?}") };
        assert_eq!(claim.key().to_string(), "PersistentVolumeClaim web/p-v");
        assert!(volume::is_own(claim.meta(), "u1") && claim.labels()["a"] == "b");
        assert!(plan(&state, &pod("u1", "Succeeded")).is_empty());
        state.insert(claim.clone());
        assert!(plan(&state, &pod("u1", "Pending")) == Plan::default());
        // That of an earlier pod of the name is not this one's.
        let refused = plan(&state, &pod("u2", "Pending"));
        assert!(refused.is_empty());
        let why = "ephemeral volume v: PVC web/p-v was not created for pod web/p (pod is not owner)";
        assert_eq!((refused.notes[0].reason.message.as_str(), refused.waits[0].reason.message.as_str()), (why, why));
    }
}
