//! Removes the directories of volumes that nobody has any more, and then lets the volumes go: one after the other, each by
//! a thread of its own, so that a disk that hangs holds up neither the watch nor the end of the agent.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::runtime::watcher;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::context::Context;
use super::follow::Follow;
use super::objects::Objects;
use super::registration::Reconnected;
use super::volume::made::{self, Removed};
use crate::model::local_volume::{self, HOME, LOCAL_PATH};
use crate::model::volume::PersistentVolume;

/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows the volumes that are this node's, for ever.
pub async fn run(context: Arc<Context>, reconnected: Arc<Reconnected>) {
    let (changed, listed) = (Notify::new(), Semaphore::new(0));
    let follow = Follow { context: &context, changed: &changed, reconnected: &reconnected, ready: &listed };
    let own = watcher::Config::default().labels(&format!("{HOME}={}", context.options.node_name));
    let volumes = Objects::<PersistentVolume>::all(context.client.clone());
    tokio::join!(follow.kind(volumes, own, |_| {}, |view, list| view.volumes = list), remove(&context, &changed));
}

async fn remove(context: &Arc<Context>, changed: &Notify) {
    // Until the server says that they are gone.
    let mut let_go: BTreeSet<String> = BTreeSet::new();
    loop {
        let all = context.cluster.read(|view| view.volumes.clone());
        let_go.retain(|uid| all.iter().any(|volume| volume.metadata.uid.as_ref() == Some(uid)));
        let mut failed = false;
        for volume in all.iter().filter(|volume| local_volume::is_to_be_removed(volume)) {
            let uid = volume.metadata.uid.clone().unwrap_or_default();
            if let_go.contains(&uid) {
                continue;
            }
            match end(context, volume).await {
                Ok(()) => drop(let_go.insert(uid)),
                Err(cause) => {
                    failed = true;
                    tracing::warn!(volume = volume.name(), cause, "a volume is not removed");
                    context.events.volume(volume, true, "VolumeFailedDelete", cause);
                }
            }
        }
        let pause = if failed { AGAIN } else { context.options.resync_interval };
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Takes a volume's directory away, and what keeps the volume.
async fn end(context: &Arc<Context>, volume: &PersistentVolume) -> Result<(), String> {
    let name = volume.name();
    let is_here = local_volume::directory(volume, &context.options.node_name, &context.layout.made_volumes()).is_some();
    let removed = if is_here { remove_directory(context, volume).await.map_err(|error| error.to_string())? } else { Removed::NotItsOwn };
    match removed {
        Removed::Gone => tracing::info!(volume = name, "what the volume held is removed"),
        Removed::NotItsOwn => {
            let message = format!("persistentvolume \"{name}\" goes and nothing is removed: no directory was made for it here");
            context.events.node(&context.options.node_name, true, "VolumeNotRemoved", message);
        }
    }
    let others: Vec<&String> = volume.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != LOCAL_PATH).collect();
    let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version, "finalizers": others}});
    match Objects::<PersistentVolume>::all(context.client.clone()).merge(name, patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(format!("let persistentvolume \"{name}\" go: {error}")),
    }
}

/// Ends a removal with whoever waits for it.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn remove_directory(context: &Arc<Context>, volume: &PersistentVolume) -> io::Result<Removed> {
    let (tell, told) = oneshot::channel();
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let (layout, name, stopped) = (context.layout.clone(), volume.name().to_owned(), stop.0.clone());
    let uid = volume.metadata.uid.clone().unwrap_or_default();
    std::thread::Builder::new().name("removal".to_owned()).spawn(move || {
        // Nobody listens any more: the agent ends.
        tell.send(made::remove(&layout, &name, &uid, &stopped)).ok();
    })?;
    told.await.map_err(io::Error::other)?
}
