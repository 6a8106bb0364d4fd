//! From a registry into the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use oci_spec::image::ImageConfiguration;

use super::archive::DOCUMENT_MAX;
use super::disk::Busy;
use super::download::Download;
use super::error::{ImageError, TEXT_MAX, brief};
use super::import::{self, Blob, Finished, Manifest};
use super::manifest;
use super::partial::Partial;
use super::progress::Progress;
use super::reference::{Digest, Reference};
use super::registry::Registry;
use super::{ImageStore, Patience, blocking};
use crate::cri::RegistryAuth;

/// One pull: connections of its own, so that no credentials are kept or mixed up.
struct Pull {
    store: ImageStore,
    registry: Registry,
    reference: Reference,
    name: String,
    progress: Arc<Progress>,
    busy: Arc<Busy>,
}

/// What a name led to.
struct Found {
    place: usize,
    /// Of the manifest or index that bears the name.
    top: Digest,
    manifest: Manifest,
    config: ImageConfiguration,
    config_bytes: Vec<u8>,
    layers: Vec<Digest>,
}

pub(super) async fn pull(
    store: ImageStore,
    reference: Reference,
    auth: Option<RegistryAuth>,
    progress: Arc<Progress>,
) -> Result<Digest, ImageError> {
    let registry = Registry::new(&store.options, &reference, auth.as_ref()).await?;
    let disk = store.disk.clone();
    let busy = Arc::new(blocking(move || disk.busy()).await?);
    let name = reference.canonical();
    Pull { store, registry, reference, name, progress, busy }.run().await
}

impl Pull {
    async fn run(&self) -> Result<Digest, ImageError> {
        let found = self.resolve().await?;
        self.progress.begin(found.manifest.layers.iter().map(|blob| (blob.digest.clone(), blob.size)));
        let promises = self.demand_room(&found)?;
        let layers = found.layers.iter().zip(&found.manifest.layers).enumerate();
        let place = found.place;
        let fetches: Vec<_> = layers
            .zip(promises)
            .map(|((index, (layer, blob)), promise)| async move {
                // Until it is here, other pulls leave it its room.
                let _promise = promise;
                self.layer(place, index, layer.clone(), blob.clone()).await
            })
            .collect();
        let parallel = self.store.options.parallel.max(1);
        futures::stream::iter(fetches).buffer_unordered(parallel).try_collect::<Vec<()>>().await?;
        let user = import::user_of(&found.config).to_owned();
        let finished = Finished {
            config: found.config_bytes,
            layers: found.layers,
            tag: self.reference.digest().is_none().then(|| self.name.clone()),
            digest: Some(format!("{}@{}", self.reference.repository(), found.top)),
        };
        let (disk, busy) = (self.store.disk.clone(), self.busy.clone());
        blocking(move || {
            // Until the index names the layers nothing deletes them, even when the pull is given up.
            let _busy = busy;
            import::finish(&disk, &finished, &user)
        })
        .await
    }

    /// From the first place that has it: a mirror that fails in whatever way is passed over.
    async fn resolve(&self) -> Result<Found, ImageError> {
        let last = self.registry.places() - 1;
        for place in 0..last {
            match self.resolve_at(place).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tracing::warn!(image = self.name, mirror = self.registry.host(place), %error, "the mirror does not serve the image");
                }
            }
        }
        let patience = &self.store.options.patience;
        let mut attempt = 0;
        loop {
            match self.resolve_at(last).await {
                Err(error) if pause(patience, &mut attempt, &error).await => {}
                outcome => return outcome,
            }
        }
    }

    async fn resolve_at(&self, place: usize) -> Result<Found, ImageError> {
        let (top, manifest) = self.manifest(place).await?;
        let config_bytes = self.config(place, &manifest).await?;
        let (config, layers) = import::read_config(&config_bytes, &self.name, &self.store.options.platform)?;
        manifest.matches(&layers, &self.name)?;
        Ok(Found { place, top, manifest, config, config_bytes, layers })
    }

    /// The digest the name led to, and the manifest for this host behind it.
    async fn manifest(&self, place: usize) -> Result<(Digest, Manifest), ImageError> {
        let what = format!("manifest of {}", self.name);
        let mut wanted = self.reference.digest().cloned();
        let mut top = None;
        for _ in 0..3 {
            let called = wanted.as_ref().map_or_else(|| self.reference.tag().to_owned(), ToString::to_string);
            let bytes = self.registry.manifest(place, &called, &self.name).await?;
            let digest = Digest::of(&bytes);
            if let Some(expected) = wanted.filter(|expected| *expected != digest) {
                return Err(ImageError::Digest { what, expected, actual: digest });
            }
            let document = import::read_document(&bytes, &what)?;
            let top = top.get_or_insert(digest);
            if document.manifests.is_empty() {
                return Ok((top.clone(), Manifest::of(document, &self.name)?));
            }
            let host = &self.store.options.platform;
            let chosen = manifest::choose(&document.manifests, host).ok_or_else(|| ImageError::Platform {
                what: self.name.clone(),
                found: platforms(&document.manifests),
                host: host.to_string(),
            })?;
            wanted = Some(chosen.digest.parse()?);
        }
        Err(ImageError::format(what, "its indexes lead to indexes only"))
    }

    async fn config(&self, place: usize, manifest: &Manifest) -> Result<Vec<u8>, ImageError> {
        let what = format!("configuration of {}", self.name);
        let answer = self.registry.blob(place, &manifest.config, 0, &what).await?;
        let bytes = answer.document(&what, manifest.config_size.min(DOCUMENT_MAX)).await?;
        let actual = Digest::of(&bytes);
        if actual == manifest.config { Ok(bytes) } else { Err(ImageError::Digest { what, expected: manifest.config.clone(), actual }) }
    }

    /// Before anything is written: for what is still to come, and for what it becomes. Each layer's room, spoken for.
    fn demand_room(&self, found: &Found) -> Result<Vec<Promise>, ImageError> {
        let disk = &self.store.disk;
        let registry = self.reference.registry();
        let layers = found.layers.iter().zip(&found.manifest.layers);
        let needs: Vec<u64> = layers
            .map(|(layer, blob)| match disk.layer_bytes(layer) {
                Some(_) => 0,
                None => blob.size.saturating_sub(disk.partial_bytes(registry, &blob.digest)).saturating_add(blob.unpacked),
            })
            .collect();
        let all = needs.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        let (free, reserve) = (disk.free()?, self.store.options.limits.reserve);
        // What does not fit at all is never promised: so the sums stay small.
        if all > 0 && all.saturating_add(reserve) > free {
            return Err(ImageError::NoSpace { what: self.name.clone(), place: disk.root().to_owned(), needs: all, free, reserve });
        }
        let promises: Vec<Promise> = needs.into_iter().map(|bytes| Promise::new(&self.store.promised, bytes)).collect();
        let promised = self.store.promised.load(Ordering::SeqCst);
        if all > 0 && promised.saturating_add(reserve) > free {
            let free = free.saturating_sub(promised.saturating_sub(all));
            return Err(ImageError::NoSpace { what: self.name.clone(), place: disk.root().to_owned(), needs: all, free, reserve });
        }
        Ok(promises)
    }

    /// The file a blob comes to: shared with whoever fetches the same from there, or after a while one of our own.
    async fn open_partial(&self, blob: &Blob) -> Result<Partial, ImageError> {
        let disk = &self.store.disk;
        let mut path = disk.partial_path(self.reference.registry(), &blob.digest);
        let since = Instant::now();
        loop {
            let (opened, size) = (path.clone(), blob.size);
            if let Some(partial) = blocking(move || Partial::open(&opened, size)).await? {
                return Ok(partial);
            }
            if since.elapsed() >= LONGEST_WAIT {
                // Whoever has it may be slow for a reason that is not ours.
                path = disk.scratch("blob");
            } else {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    async fn layer(&self, mut place: usize, index: usize, layer: Digest, blob: Blob) -> Result<(), ImageError> {
        let disk = &self.store.disk;
        let limit = self.store.options.limits.layer_bytes;
        let what = format!("layer {} of {}", blob.digest, self.name);
        if disk.layer_bytes(&layer).is_some() {
            self.progress.ready(index);
            return Ok(());
        }
        if blob.size > limit {
            return Err(ImageError::TooLarge { what, limit });
        }
        loop {
            let mut partial = self.open_partial(&blob).await?;
            // Whoever had the file until now may have finished.
            if disk.layer_bytes(&layer).is_some() {
                partial.remove();
                self.progress.ready(index);
                return Ok(());
            }
            let download = Download {
                registry: &self.registry,
                patience: &self.store.options.patience,
                progress: &self.progress,
                place,
                blob: &blob,
                what: &what,
                index,
            };
            match self.download_and_unpack(&download, &mut partial, &layer).await {
                Ok(()) => {
                    partial.remove();
                    self.progress.ready(index);
                    return Ok(());
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    partial.remove();
                    if !error.is_of_content() {
                        return Err(error);
                    }
                    // What an earlier process left may have been damaged by a power cut; a mirror may lie.
                    if !partial.inherited() {
                        if place + 1 >= self.registry.places() {
                            return Err(error);
                        }
                        place += 1;
                    }
                    tracing::warn!(image = self.name, %error, "a layer is fetched anew");
                }
            }
        }
    }

    /// Unpacks while it comes.
    async fn download_and_unpack(&self, download: &Download<'_>, partial: &mut Partial, layer: &Digest) -> Result<(), ImageError> {
        let (disk, busy, limits) = (self.store.disk.clone(), self.busy.clone(), self.store.options.limits.clone());
        let (reader, layer) = (partial.reader(), layer.clone());
        let unpack = blocking(move || {
            // Nothing is deleted under it, even when the pull is given up.
            let _busy = busy;
            disk.add_layer(reader, Some(&layer), None, &limits).map(drop)
        });
        let fetch = download.run(partial);
        tokio::pin!(unpack, fetch);
        tokio::select! {
            biased;
            fetched = &mut fetch => {
                let unpacked = unpack.await;
                fetched.and(unpacked)
            }
            unpacked = &mut unpack => {
                unpacked?;
                fetch.await
            }
        }
    }
}

/// Waits before the next attempt; false when there is none.
pub(super) async fn pause(patience: &Patience, attempt: &mut u32, error: &ImageError) -> bool {
    *attempt += 1;
    if !error.is_transient() || *attempt >= patience.attempts {
        return false;
    }
    let mut wait = patience.backoff * 2u32.saturating_pow(*attempt - 1);
    if let ImageError::Busy { after: Some(after), .. } = error {
        wait = wait.max(*after);
    }
    // Whoever asks for more time is asked again by a pull of its own.
    if wait > LONGEST_PAUSE {
        return false;
    }
    let jitter = rand::random_range(0.0..0.25);
    tokio::time::sleep(wait.mul_f64(1.0 + jitter)).await;
    true
}

const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For somebody else who fetches the same blob.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of the disk that one layer will take: pulls at the same time see the same free space.
struct Promise {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Promise {
    fn new(all: &Arc<AtomicU64>, bytes: u64) -> Self {
        all.fetch_add(bytes, Ordering::SeqCst);
        Self { all: all.clone(), bytes }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// Platforms told in an error at most.
const PLATFORMS_TOLD: usize = 20;

fn platforms(entries: &[manifest::Descriptor]) -> String {
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .take(PLATFORMS_TOLD)
        .map(ToString::to_string)
        .collect();
    names.dedup();
    brief(&names.join(", "), TEXT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_promised_as_long_as_it_is_needed() {
        let all = Arc::new(AtomicU64::new(0));
        let (one, other) = (Promise::new(&all, 3), Promise::new(&all, 4));
        assert_eq!(all.load(Ordering::SeqCst), 7);
        drop(one);
        assert_eq!(all.load(Ordering::SeqCst), 4);
        drop(other);
        assert_eq!(all.load(Ordering::SeqCst), 0);
    }
}
