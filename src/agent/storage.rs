//! Measures what pods with limits on it take on the disk, as the kubelet's eviction manager; `storage_plan` decides.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use super::config::Layout;
use super::context::Context;
use super::observed::{full_name, uid};
use super::storage_plan::{Taken, excess, is_limited, on_disk};
use crate::cri::{ContainerStats, CriError};
use crate::footprint::footprint;
use crate::model::pod::all_containers;

/// Between two looks, as the kubelet's.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The pods with limits, by UID. Empty, and nothing is measured, where no pod has any.
#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<String, Entry>>);

struct Entry {
    pod: Arc<Pod>,
    wake: Arc<Notify>,
    /// Why it has to go.
    excess: Option<String>,
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a pod looked at, if it has limits; returns why it has to go, once that is known.
    pub fn watch(&self, pod: &Arc<Pod>, wake: &Arc<Notify>) -> Option<String> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) || !pod.spec.as_ref().is_some_and(is_limited) {
            self.forget(uid(pod));
            return None;
        }
        let mut entries = self.entries();
        let entry = entries.entry(uid(pod).to_owned()).or_insert_with(|| Entry { pod: pod.clone(), wake: wake.clone(), excess: None });
        (entry.pod, entry.wake) = (pod.clone(), wake.clone());
        entry.excess.clone()
    }

    pub fn forget(&self, uid: &str) {
        self.entries().remove(uid);
    }

    /// Those of which nothing is known yet.
    fn open(&self) -> Vec<Arc<Pod>> {
        self.entries().values().filter(|entry| entry.excess.is_none()).map(|entry| entry.pod.clone()).collect()
    }

    /// True: it was not known before.
    fn condemn(&self, uid: &str, why: String) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(uid).filter(|entry| entry.excess.is_none()) else { return false };
        entry.excess = Some(why);
        entry.wake.notify_one();
        true
    }
}

/// Looks for ever.
pub async fn run(context: Arc<Context>) {
    loop {
        if let Err(error) = look(&context).await {
            tracing::warn!(%error, "cannot measure what pods take on the disk");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(context: &Arc<Context>) -> Result<(), CriError> {
    let pods = context.storage.open();
    if pods.is_empty() {
        return Ok(());
    }
    let stats = context.runtime.container_stats().await?;
    let owners: BTreeMap<String, String> =
        context.runtime.list_pod_sandboxes().await?.into_iter().map(|sandbox| (sandbox.id, sandbox.metadata.uid)).collect();
    for pod in pods {
        let own = |stats: &&ContainerStats| owners.get(&stats.sandbox_id).is_some_and(|owner| owner == uid(&pod));
        let layers: Vec<(String, u64)> = stats
            .iter()
            .filter(own)
            .map(|one| (one.name.clone(), one.writable_layer.as_ref().map_or(0, |layer| layer.used_bytes)))
            .collect();
        let (layout, measured) = (context.layout.clone(), pod.clone());
        let taken = tokio::task::spawn_blocking(move || measure(&layout, &measured, layers)).await;
        let taken = taken.map_err(|panic| CriError::failed("measure a pod", panic))?;
        let why = pod.spec.as_ref().and_then(|spec| excess(spec, &taken));
        if let Some(why) = why.filter(|why| context.storage.condemn(uid(&pod), why.clone())) {
            tracing::info!(pod = full_name(&pod), why, "a pod is evicted");
            context.events.pod(&pod, None, true, "Evicted", why);
        }
    }
    Ok(())
}

/// What is not there takes nothing.
fn measure(layout: &Layout, pod: &Pod, layers: Vec<(String, u64)>) -> Taken {
    let bytes = |path: PathBuf| footprint(&path).map_or(0, |found| found.bytes);
    let Some(spec) = &pod.spec else { return Taken::default() };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let logs = layout.logs(&text(&pod.metadata.namespace), &text(&pod.metadata.name), uid(pod));
    let mut containers: BTreeMap<String, u64> =
        all_containers(spec).map(|container| (container.name.clone(), bytes(logs.join(&container.name)))).collect();
    for (name, layer) in layers {
        *containers.entry(name).or_default() += layer;
    }
    let volumes = on_disk(spec).map(|volume| (volume.name.clone(), bytes(layout.volume(uid(pod), &volume.name)))).collect();
    Taken { containers, volumes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(volumes: serde_json::Value) -> Arc<Pod> {
        let spec = json!({"containers": [{"name": "a"}], "volumes": volumes});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap())
    }

    #[test]
    fn layers_logs_and_volumes_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout { data_dir: dir.path().to_owned() };
        let pod = pod(json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]));
        for path in [layout.logs("ns", "p", "u").join("a/0.log"), layout.volume("u", "v").join("x"), layout.volume("u", "m").join("x")] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; 1 << 20]).unwrap();
        }
        let taken = measure(&layout, &pod, vec![("a".to_owned(), 5 << 20)]);
        assert!((6 << 20..7 << 20).contains(&taken.containers["a"]) && (1 << 20..2 << 20).contains(&taken.volumes["v"]), "{taken:?}");
        assert_eq!(taken.volumes.len(), 1, "what is in memory is not on the disk");
    }

    #[tokio::test]
    async fn a_verdict_is_told_once_and_stays() {
        let (registry, wake) = (Registry::default(), Arc::new(Notify::new()));
        let (free, limited) = (pod(json!([])), pod(json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}])));
        assert_eq!((registry.watch(&free, &wake), registry.open().len()), (None, 0));
        assert_eq!((registry.watch(&limited, &wake), registry.open().len()), (None, 1));
        assert!(registry.condemn("u", "too much".into()) && !registry.condemn("u", "even more".into()));
        wake.notified().await;
        assert_eq!((registry.watch(&limited, &wake).as_deref(), registry.open().len()), (Some("too much"), 0));
        let mut ended = (*limited).clone();
        ended.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        assert_eq!((registry.watch(&Arc::new(ended), &wake), registry.entries().len()), (None, 0));
    }
}
