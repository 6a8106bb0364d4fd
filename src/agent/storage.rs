//! Measures what pods with limits on it take on the disk, as the kubelet's eviction manager; `storage_plan` decides.
//!
//! Each pod is walked by a thread of its own: one that has much, or that hangs, holds up nobody else, nor the end of the
//! agent. On its way it rests, so that all walks together have a small share of a processor.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::config::Layout;
use super::context::Context;
use super::observed::{full_name, uid};
use super::storage_plan::{Taken, excess, is_limited, on_disk, rest};
use crate::cri::{ContainerStats, CriError};
use crate::footprint::footprint;
use crate::model::pod::all_containers;

/// Between two looks, as the kubelet's.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The pods with limits, by UID. Empty, and nothing is measured, where no pod has any.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Threads that walk now.
    walks: Arc<AtomicUsize>,
}

struct Entry {
    pod: Arc<Pod>,
    wake: Arc<Notify>,
    /// A thread has not come back from it.
    walked: bool,
    /// Why it has to go.
    excess: Option<String>,
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a pod looked at, if it has limits; returns why it has to go, once that is known.
    pub fn watch(&self, pod: &Arc<Pod>, wake: &Arc<Notify>) -> Option<String> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) || !pod.spec.as_ref().is_some_and(is_limited) {
            self.forget(uid(pod));
            return None;
        }
        let mut entries = self.entries();
        let entry = entries.entry(uid(pod).to_owned()).or_insert_with(|| new_entry(pod, wake));
        (entry.pod, entry.wake) = (pod.clone(), wake.clone());
        entry.excess.clone()
    }

    pub fn forget(&self, uid: &str) {
        self.entries().remove(uid);
    }

    fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Those of which nothing is known yet, and that nobody walks: they are walked from now on.
    fn begin(&self) -> Vec<Arc<Pod>> {
        let mut entries = self.entries();
        let open = entries.values_mut().filter(|entry| entry.excess.is_none() && !entry.walked);
        open.map(|entry| {
            entry.walked = true;
            entry.pod.clone()
        })
        .collect()
    }

    fn end(&self, uid: &str) {
        if let Some(entry) = self.entries().get_mut(uid) {
            entry.walked = false;
        }
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

fn new_entry(pod: &Arc<Pod>, wake: &Arc<Notify>) -> Entry {
    Entry { pod: pod.clone(), wake: wake.clone(), walked: false, excess: None }
}

/// Looks for ever.
pub async fn run(context: Arc<Context>) {
    let mut walks = JoinSet::new();
    loop {
        while walks.try_join_next().is_some() {}
        if let Err(error) = look(&context, &mut walks).await {
            tracing::warn!(%error, "cannot measure what pods take on the disk");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(context: &Arc<Context>, walks: &mut JoinSet<()>) -> Result<(), CriError> {
    if context.storage.is_empty() {
        return Ok(());
    }
    let stats = context.runtime.container_stats().await?;
    let owners: BTreeMap<String, String> =
        context.runtime.list_pod_sandboxes().await?.into_iter().map(|sandbox| (sandbox.id, sandbox.metadata.uid)).collect();
    for pod in context.storage.begin() {
        let own = |stats: &&ContainerStats| owners.get(&stats.sandbox_id).is_some_and(|owner| owner == uid(&pod));
        let layers: Vec<(String, u64)> = stats
            .iter()
            .filter(own)
            .map(|one| (one.name.clone(), one.writable_layer.as_ref().map_or(0, |layer| layer.used_bytes)))
            .collect();
        walks.spawn(judge(context.clone(), pod, layers));
    }
    Ok(())
}

/// Measures one pod, and says whether it has to go.
async fn judge(context: Arc<Context>, pod: Arc<Pod>, layers: Vec<(String, u64)>) {
    match walk(&context, &pod, layers).await {
        Ok(taken) => {
            let why = pod.spec.as_ref().and_then(|spec| excess(spec, &taken));
            if let Some(why) = why.filter(|why| context.storage.condemn(uid(&pod), why.clone())) {
                tracing::info!(pod = full_name(&pod), why, "a pod is evicted");
                context.events.pod(&pod, None, true, "Evicted", why);
            }
        }
        Err(error) => tracing::warn!(pod = full_name(&pod), %error, "cannot measure what a pod takes on the disk"),
    }
    context.storage.end(uid(&pod));
}

/// Not one of the runtime's threads, whose end is waited for.
async fn walk(context: &Context, pod: &Arc<Pod>, layers: Vec<(String, u64)>) -> io::Result<Taken> {
    let (tell, told) = oneshot::channel();
    let (layout, pod, walks) = (context.layout.clone(), pod.clone(), context.storage.walks.clone());
    let thread = std::thread::Builder::new().name("storage".to_owned()).spawn(move || {
        let mut pace = Pace::new(walks);
        // Nobody listens any more: the agent ends.
        tell.send(measure(&layout, &pod, layers, &mut || pace.pause())).ok();
    });
    thread?;
    told.await.map_err(io::Error::other)
}

/// One walk among others.
struct Pace {
    walks: Arc<AtomicUsize>,
    since: Instant,
}

impl Pace {
    fn new(walks: Arc<AtomicUsize>) -> Self {
        walks.fetch_add(1, Ordering::Relaxed);
        Self { walks, since: Instant::now() }
    }

    fn pause(&mut self) {
        std::thread::sleep(rest(self.since.elapsed(), self.walks.load(Ordering::Relaxed)));
        self.since = Instant::now();
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.walks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is not there takes nothing.
fn measure(layout: &Layout, pod: &Pod, layers: Vec<(String, u64)>, pause: &mut dyn FnMut()) -> Taken {
    let mut bytes = |path: PathBuf| match footprint(&path, pause) {
        Ok(found) => found.bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(pod = full_name(pod), path = %path.display(), %error, "not measured");
            }
            0
        }
    };
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
        let taken = measure(&layout, &pod, vec![("a".to_owned(), 5 << 20)], &mut || ());
        assert!((6 << 20..7 << 20).contains(&taken.containers["a"]) && (1 << 20..2 << 20).contains(&taken.volumes["v"]), "{taken:?}");
        assert_eq!(taken.volumes.len(), 1, "what is in memory is not on the disk");
    }

    #[tokio::test]
    async fn a_verdict_is_told_once_and_stays() {
        let (registry, wake) = (Registry::default(), Arc::new(Notify::new()));
        let (free, limited) = (pod(json!([])), pod(json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}])));
        assert_eq!((registry.watch(&free, &wake), registry.begin().len()), (None, 0));
        assert_eq!((registry.watch(&limited, &wake), registry.begin().len()), (None, 1));
        registry.end("u");
        assert!(registry.condemn("u", "too much".into()) && !registry.condemn("u", "even more".into()));
        wake.notified().await;
        assert_eq!((registry.watch(&limited, &wake).as_deref(), registry.begin().len()), (Some("too much"), 0));
        let mut ended = (*limited).clone();
        ended.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
        assert_eq!((registry.watch(&Arc::new(ended), &wake), registry.is_empty()), (None, true));
    }

    #[test]
    fn who_does_not_come_back_from_a_walk_keeps_nobody_else_from_one() {
        let (registry, wake) = (Registry::default(), Arc::new(Notify::new()));
        let named = |name: &str| {
            let mut pod = (*pod(json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]))).clone();
            pod.metadata.uid = Some(name.to_owned());
            Arc::new(pod)
        };
        let begun = || -> Vec<String> { registry.begin().iter().map(|pod| uid(pod).to_owned()).collect() };
        for name in ["hangs", "walks"] {
            assert_eq!(registry.watch(&named(name), &wake), None);
        }
        assert_eq!((begun(), begun()), (vec!["hangs".to_owned(), "walks".to_owned()], vec![]));
        registry.end("walks");
        assert_eq!((registry.watch(&named("hangs"), &wake), begun()), (None, vec!["walks".to_owned()]));
    }
}
