//! Images on this host: pulled or imported, verified, unpacked once.
//!
//! - `reference`, `manifest`: names, digests, the choice of a platform (pure)
//! - `disk`: the directory, its index, what may be deleted; `lock`: for as long as is meant
//! - `tarball`, `unpack`, `stream`: a hostile layer to an overlay lower directory
//! - `archive`, `import`: OCI layouts, docker archives, root filesystems
//! - `registry`: the distribution protocol; `credentials`: who we are there
//! - `pull`, `download`, `partial`: from a registry, resumable, unpacked while it comes; `progress`: for those who watch
//! - `build`: an image archive out of a directory
//! - `door`: the way in for fuzz targets

mod archive;
pub mod build;
mod credentials;
mod disk;
pub mod door;
mod download;
mod error;
mod import;
mod lock;
mod manifest;
mod partial;
mod progress;
mod pull;
mod reference;
mod registry;
mod stream;
mod tarball;
mod unpack;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use oci_spec::image::ImageConfiguration;

pub use error::{ImageError, Refusal};
pub use manifest::Platform;
pub use progress::{LayerProgress, Progress};
pub use reference::{Digest, Reference};
pub use registry::RegistryOptions;

use crate::cri::{CriError, FilesystemUsage, Image, Images, PullProgress, RegistryAuth};
use archive::Archive;
use disk::{Disk, Record};

/// What a hostile image may cost at most.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Entries of one layer.
    pub entries: u64,
    /// Bytes of one layer, compressed and unpacked.
    pub layer_bytes: u64,
    /// Bytes of an archive to import, unpacked.
    pub archive_bytes: u64,
    /// Bytes of the disk that pulls leave free.
    pub reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1_000_000, layer_bytes: 32 << 30, archive_bytes: 64 << 30, reserve: 256 << 20 }
    }
}

/// How long a registry is waited for, and how often it is asked.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub silence: Duration,
    /// What has to come in that time, or it is as good as silence.
    pub least_bytes: u64,
    /// For a whole manifest, configuration or token.
    pub document: Duration,
    /// Of a request that fails in a way that may pass.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each further one.
    pub backoff: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(60),
            least_bytes: 16 << 10,
            document: Duration::from_secs(120),
            attempts: 4,
            backoff: Duration::from_millis(500),
        }
    }
}

/// How the store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// By `host[:port]`. Those that are not here: HTTPS with the system's authorities.
    pub registries: BTreeMap<String, RegistryOptions>,
    /// PEM files of private certificate authorities, trusted for every registry.
    pub ca_files: Vec<PathBuf>,
    /// A docker `config.json` to look into when no credentials are given.
    pub auth_file: Option<PathBuf>,
    /// Layers of one pull fetched at a time.
    pub parallel: usize,
    pub limits: Limits,
    pub patience: Patience,
    /// What images are run on.
    pub platform: Platform,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            registries: BTreeMap::new(),
            ca_files: Vec::new(),
            auth_file: None,
            parallel: 3,
            limits: Limits::default(),
            patience: Patience::default(),
            platform: Platform::host(),
        }
    }
}

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", amd64_level()),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            other => (other, ""),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }
}

fn amd64_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("fma") {
        return "v3";
    } else if is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt") {
        return "v2";
    }
    "v1"
}

/// An image that can be run.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Digest of its configuration.
    pub id: Digest,
    /// Overlay lower directories, the top one first. May be empty.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfiguration,
    pub summary: Image,
}

/// A file of the images directory, and the names it gave or why it gave none.
pub type Imported = (PathBuf, Result<Vec<String>, ImageError>);

/// The images of this host. Cheap to clone; several processes may open the same directory.
#[derive(Clone)]
pub struct ImageStore {
    disk: Arc<Disk>,
    options: Arc<Options>,
    /// Pulls under way: whoever wants the same with the same credentials joins.
    pulling: Arc<Mutex<Vec<Pulling>>>,
    /// Bytes of the disk that pulls under way have been promised and not used up.
    promised: Arc<AtomicU64>,
    /// Held by who counts what the layers take: it may take long.
    measuring: Arc<tokio::sync::Mutex<()>>,
}

type Outcome = Result<Digest, Arc<ImageError>>;
type SharedPull = Shared<BoxFuture<'static, Outcome>>;

struct Pulling {
    name: String,
    auth: Option<RegistryAuth>,
    progress: Arc<Progress>,
    /// Ends when nobody waits for it any more.
    outcome: WeakShared<BoxFuture<'static, Outcome>>,
}

impl ImageStore {
    /// Opens or makes the store and clears what a crash left.
    ///
    /// # Errors
    /// When the directory cannot be used or its index is not readable.
    pub fn open(root: &Path, options: Options) -> Result<Self, ImageError> {
        let disk = Arc::new(Disk::open(root)?);
        Ok(Self { disk, options: Arc::new(options), pulling: Arc::default(), promised: Arc::default(), measuring: Arc::default() })
    }

    /// The image of a name as in a pod's spec (`nginx`, `repo@sha256:…`) or of an id (`sha256:…`).
    ///
    /// # Errors
    /// When the name makes no sense or the store cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<StoredImage>, ImageError> {
        let index = self.disk.index()?;
        let Some((id, record)) = find(&index, name)? else { return Ok(None) };
        let bytes = self.disk.read_blob(id)?;
        let config = serde_json::from_slice(&bytes).map_err(|cause| ImageError::format(format!("configuration of {name}"), cause))?;
        let layers = record.layers.iter().rev().map(|layer| self.disk.layer_path(layer)).collect();
        Ok(Some(StoredImage { id: id.clone(), layers, config, summary: summary(id, record) }))
    }

    /// The overlay lower directories of an image, the top one first.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when it is not here.
    pub fn layers_of(&self, name: &str) -> Result<Vec<PathBuf>, ImageError> {
        self.find(name)?.map(|image| image.layers).ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// Keeps an image's layers while a container needs them, over restarts and whatever becomes of
    /// the image's names. `holder`: the container's id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when the image is gone.
    pub fn hold(&self, holder: &str, image: &Digest) -> Result<(), ImageError> {
        self.disk.hold(holder, image)
    }

    /// Ends a hold. No error when there is none.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn release(&self, holder: &str) -> Result<(), ImageError> {
        self.disk.release(holder)
    }

    /// Ends the holds of all holders that are no more; for the start.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn release_others(&self, alive: impl Fn(&str) -> bool) -> Result<(), ImageError> {
        for holder in self.disk.holds()?.into_keys().filter(|holder| !alive(holder)) {
            self.disk.release(&holder)?;
        }
        Ok(())
    }

    /// Imports the images of an OCI layout (directory or tar) or a docker archive, compressed or
    /// not. `name` replaces the archive's own. Returns their names.
    ///
    /// # Errors
    /// When the archive is not readable, not whole, hostile, or for another platform.
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<String>, ImageError> {
        self.adding(|| import::import(&self.disk, &self.options, &Archive::open(path, &self.disk, &self.options.limits)?, name))
    }

    /// As [`ImageStore::import`], from a stream.
    ///
    /// # Errors
    /// As there.
    pub fn import_stream(&self, stream: impl Read, name: Option<&str>) -> Result<Vec<String>, ImageError> {
        self.adding(|| import::import(&self.disk, &self.options, &import::archive_of(stream, &self.disk, &self.options)?, name))
    }

    /// Makes an image out of a root filesystem, a directory or a tar; its command is `/bin/sh`.
    ///
    /// # Errors
    /// When it cannot be read or is hostile.
    pub fn import_rootfs(&self, path: &Path, name: &str) -> Result<String, ImageError> {
        self.adding(|| import::import_rootfs(&self.disk, &self.options, path, name))
    }

    /// Imports every archive of a directory; those that name nothing are called after their file.
    /// One that fails does not keep the others: each file with its outcome. A directory that is not
    /// there is empty.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn import_dir(&self, directory: &Path) -> Result<Vec<Imported>, ImageError> {
        let fail = || ImageError::io(format!("list {}", directory.display()));
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail()(error)),
        };
        let mut paths = entries.map(|entry| Ok(entry.map_err(fail())?.path())).collect::<Result<Vec<_>, ImageError>>()?;
        paths.sort_unstable();
        let mut outcomes = Vec::new();
        for path in paths {
            let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if file_name.starts_with('.') {
                continue;
            }
            let outcome = match self.import(&path, None) {
                Err(ImageError::Nameless) => self.import(&path, Some(file_name.split('.').next().unwrap_or(&file_name))),
                outcome => outcome,
            };
            outcomes.push((path, outcome));
        }
        Ok(outcomes)
    }

    /// Removes a name; with its last name, the image, unless a container needs it. By its id: all
    /// its names. No error when unknown.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn remove_name(&self, name: &str) -> Result<(), ImageError> {
        // The index is written by way of a scratch file, which a sweep would take away.
        let busy = self.disk.busy()?;
        let index = self.disk.index()?;
        let Some((id, _)) = find(&index, name)? else { return Ok(()) };
        let id = id.clone();
        let canonical = name.parse::<Reference>().map(|reference| reference.canonical()).unwrap_or_default();
        self.disk.change(|index| {
            if let Some(record) = index.images.get_mut(&id) {
                if !record.tags.remove(&canonical) && !record.digests.remove(&canonical) {
                    record.tags.clear();
                }
                if record.tags.is_empty() {
                    record.digests.clear();
                }
            }
        })?;
        drop(busy);
        if !self.disk.sweep()? {
            tracing::info!(image = name, "its layers go when the pulls under way are done");
        }
        Ok(())
    }

    /// Adds under the guard against deletion, and deletes afterwards what that was kept for.
    fn adding<T>(&self, add: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
        let busy = self.disk.busy()?;
        let outcome = add();
        drop(busy);
        self.sweep_quietly();
        outcome
    }

    /// After something was added, which it is in any case: what could not be deleted now goes the next time.
    fn sweep_quietly(&self) {
        if let Err(error) = self.disk.sweep() {
            tracing::warn!(%error, "cannot clear the image store");
        }
    }

    /// Fetches an image's name from its registry, whether or not it is here. Who asks for the same at the
    /// same time shares one pull.
    ///
    /// # Errors
    /// By class: no such image, denied, or unreachable.
    pub async fn fetch(&self, reference: &Reference, auth: Option<&RegistryAuth>) -> Result<Digest, Arc<ImageError>> {
        self.join(reference, auth).await
    }

    /// How far the pull of a name is, if one is under way.
    pub fn progress(&self, reference: &Reference) -> Option<Arc<Progress>> {
        let name = reference.canonical();
        let pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        pulling.iter().find(|pull| pull.name == name && pull.outcome.upgrade().is_some()).map(|pull| pull.progress.clone())
    }

    fn join(&self, reference: &Reference, auth: Option<&RegistryAuth>) -> SharedPull {
        let name = reference.canonical();
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        pulling.retain(|pull| pull.outcome.upgrade().is_some_and(|outcome| outcome.peek().is_none()));
        let same = pulling.iter().find(|pull| pull.name == name && pull.auth.as_ref() == auth);
        if let Some(shared) = same.and_then(|pull| pull.outcome.upgrade()) {
            return shared;
        }
        let progress = Arc::new(Progress::default());
        let shared = self.clone().pull_once(reference.clone(), auth.cloned(), progress.clone()).boxed().shared();
        if let Some(outcome) = shared.downgrade() {
            pulling.push(Pulling { name, auth: auth.cloned(), progress, outcome });
        }
        shared
    }

    async fn pull_once(self, reference: Reference, auth: Option<RegistryAuth>, progress: Arc<Progress>) -> Outcome {
        let name = reference.canonical();
        let pulled = pull::pull(self.clone(), reference, auth, progress).await;
        let store = self.clone();
        let swept = blocking(move || {
            store.sweep_quietly();
            Ok(())
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "cannot clear the image store");
        }
        let id = pulled?;
        tracing::info!(image = %name, %id, "image pulled");
        Ok(id)
    }
}

/// By name, or by as much of its id as makes out one. What has lost its last name is gone, though its layers may be kept.
fn find<'a>(index: &'a disk::Index, name: &str) -> Result<Option<(&'a Digest, &'a Record)>, ImageError> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let canonical = if digits.len() == name.len() { name.parse::<Reference>().map(|name| name.canonical()).ok() } else { None };
    if let Some(found) = canonical.and_then(|name| index.find(&name)) {
        return Ok(Some(found));
    }
    let is_id = digits.len() >= ID_LEAST && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_id {
        // Says what is wrong with it, if it is none.
        return name.parse::<Reference>().map(|_| None);
    }
    let mut all = index.named().filter(|(id, _)| id.hex().starts_with(digits));
    match (all.next(), all.next()) {
        (Some(_), Some(_)) => Err(ImageError::Reference { text: name.to_owned(), cause: "several images have such an id".to_owned() }),
        (found, _) => Ok(found),
    }
}

/// Digits of an id at the least: as many as are shown of one, and more than a name has that happens to look like one.
const ID_LEAST: usize = 12;

fn summary(id: &Digest, record: &Record) -> Image {
    Image {
        id: id.to_string(),
        tags: record.tags.iter().cloned().collect(),
        digests: record.digests.iter().cloned().collect(),
        size_bytes: record.bytes,
        user: record.user.clone(),
        pinned: false,
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ImageError> + Send + 'static) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(ImageError::Io { attempt: "image store".into(), source: std::io::Error::other(error) }),
    }
}

#[async_trait]
impl Images for ImageStore {
    async fn list(&self) -> Result<Vec<Image>, CriError> {
        let disk = self.disk.clone();
        let index = blocking(move || disk.index()).await.map_err(|error| CriError::failed("list images", error))?;
        Ok(index.named().map(|(id, record)| summary(id, record)).collect())
    }

    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError> {
        let (disk, name) = (self.disk.clone(), reference.to_owned());
        let found = blocking(move || Ok(find(&disk.index()?, &name)?.map(|(id, record)| summary(id, record)))).await;
        found.map_err(|error| error.to_cri("look for image", reference))
    }

    /// In containerd's words, which people look for.
    async fn details(&self, reference: &str) -> serde_json::Value {
        let (disk, name) = (self.disk.clone(), reference.to_owned());
        let read = blocking(move || {
            let index = disk.index()?;
            let Some((id, record)) = find(&index, &name)? else { return Ok(serde_json::Value::Null) };
            let spec: serde_json::Value = serde_json::from_slice(&disk.read_blob(id)?).unwrap_or_default();
            Ok(serde_json::json!({"chainID": reference::chain_id(&record.layers), "imageSpec": spec}))
        });
        // What is wrong with it is for those to hear who use it.
        read.await.unwrap_or_default()
    }

    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<String, CriError> {
        let parsed: Reference = reference.parse().map_err(|error: ImageError| error.to_cri("pull", reference))?;
        let id = self.fetch(&parsed, auth).await.map_err(|error| error.to_cri("pull", reference))?;
        Ok(id.to_string())
    }

    async fn pull_progress(&self, reference: &str) -> Option<PullProgress> {
        let (done_bytes, total_bytes) = self.progress(&reference.parse().ok()?)?.sum();
        (total_bytes > 0).then_some(PullProgress { done_bytes, total_bytes })
    }

    async fn remove(&self, reference: &str) -> Result<(), CriError> {
        let (store, name) = (self.clone(), reference.to_owned());
        blocking(move || store.remove_name(&name)).await.map_err(|error| error.to_cri("remove image", reference))
    }

    async fn fs_info(&self) -> Result<FilesystemUsage, CriError> {
        let disk = self.disk.clone();
        // Whoever waits takes up no thread, and whoever goes away leaves nobody a second count to make.
        let turn = self.measuring.clone().lock_owned().await;
        let used = blocking(move || {
            let _turn = turn;
            let used = disk.used()?;
            Ok(FilesystemUsage { mount_point: disk.root().to_owned(), used_bytes: used.bytes, inodes_used: used.files })
        });
        used.await.map_err(|error| CriError::failed("measure the image store", error))
    }

    async fn place(&self) -> Result<PathBuf, CriError> {
        Ok(self.disk.root().to_owned())
    }
}
