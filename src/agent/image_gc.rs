//! Removes images nobody uses when the disk fills up; `image_plan` decides which.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::image_plan::{self, Known, Progress, Space};
use crate::cri::CriError;

/// Looks for ever, at the configured interval.
pub async fn run(context: Arc<Context>) {
    let mut known = BTreeMap::new();
    loop {
        match look(&context, &known).await {
            Ok(now_known) => known = now_known,
            Err(error) => {
                tracing::warn!(%error, "cannot look after the images");
                let node = &context.options.node_name;
                context.events.node(node, true, "ImageGCFailed", format!("Images could not be looked after: {error}"));
            }
        }
        tokio::time::sleep(context.options.image_gc_interval).await;
    }
}

async fn look(context: &Context, known: &BTreeMap<String, Known>) -> Result<BTreeMap<String, Known>, CriError> {
    let images = context.images.list().await?;
    // What cannot be asked for its containers might use any image.
    let containers = context.runtime.list_containers().await?;
    let now = context.clock.now();
    let used = image_plan::in_use(&images, &containers);
    let known = image_plan::remember(known, &images, &used, now);
    let before = space(context).await?;
    let plan = image_plan::plan(&known, &images, &used, before, context.options.image_gc, now);
    if plan.missing == 0 {
        return Ok(known);
    }
    let (mut after, mut progress) = (before, Progress::default());
    let mut failed = Vec::new();
    for (id, _) in &plan.removable {
        if let Err(error) = context.images.remove(id).await {
            // The others may go all the same.
            failed.push(error.to_string());
            continue;
        }
        tracing::info!(image = id, "an unused image is removed to make room");
        let now = space(context).await?;
        progress.count(after, now);
        after = now;
        if progress.is_enough(plan.missing) {
            break;
        }
    }
    tell(context, (before, after), progress, plan.missing);
    if let Some(first) = failed.first() {
        let text = format!("{} unused images could not be removed, the first: {first}", failed.len());
        tracing::warn!(failed = failed.len(), error = first, "unused images could not be removed");
        context.events.node(&context.options.node_name, true, "ImageGCFailed", text);
    }
    Ok(known)
}

fn tell(context: &Context, (before, after): (Space, Space), progress: Progress, missing: u64) {
    let node = &context.options.node_name;
    let mib = |bytes: u64| bytes >> 20;
    if progress.removed > 0 {
        let (from, to) = (before.used_percent(), after.used_percent());
        let text = format!("The images' disk was {from} % full: {} unused images were removed, now it is {to} % full", progress.removed);
        context.events.node(node, false, "ImageGCRemoved", text);
    }
    if progress.freed < missing {
        let text = format!(
            "Failed to garbage collect required amount of images. Attempted to free {} MiB, but only {} MiB came free.",
            mib(missing),
            mib(progress.freed)
        );
        context.events.node(node, true, "FreeDiskSpaceFailed", text);
    }
}

async fn space(context: &Context) -> Result<Space, CriError> {
    let place = context.images.place().await?;
    let disk = rustix::fs::statvfs(&place).map_err(|errno| CriError::failed(format!("look at the disk of {}", place.display()), errno))?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Space { capacity: bytes(disk.f_blocks), available: bytes(disk.f_bavail) })
}
