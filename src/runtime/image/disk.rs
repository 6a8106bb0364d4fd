//! The store's directory: blobs, layers, the index of names, and what may be deleted.
//!
//! ```text
//! lock          held while the index changes
//! busy          held shared by whoever adds, alone by whoever deletes
//! index.json    images by the digest of their configuration, replaced atomically
//! blobs/sha256/ configurations; layers of a pull until they are unpacked
//! layers/HEX/   one overlay lower directory a diff-id; there whole or not at all
//! sizes/HEX     bytes of that layer
//! counts/HEX    its files; written without haste: what is missing is counted again
//! holds/NAME    the image a container was made from
//! partial/HEX   blobs on their way, by registry and digest; what is left of a cut download serves the next for an hour
//! tmp/          what a crash leaves behind is here, and goes at the next start
//! ```
//!
//! Several processes may use one store: nothing is cached but in the page cache.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};

use super::error::ImageError;
use super::lock::{Locked, lock};
use super::reference::Digest;
use super::{Limits, partial, stream, unpack};
use crate::footprint::{Footprint, footprint};

const INDEX_VERSION: u32 = 1;
/// How long the beginning of a blob waits for its next attempt.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// All images by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    version: u32,
    pub images: BTreeMap<Digest, Record>,
}

/// One image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Diff-ids, lowest first.
    pub layers: Vec<Digest>,
    pub bytes: u64,
    pub user: String,
    pub tags: BTreeSet<String>,
    pub digests: BTreeSet<String>,
}

impl Default for Index {
    fn default() -> Self {
        Self { version: INDEX_VERSION, images: BTreeMap::new() }
    }
}

impl Index {
    /// The image of a canonical name.
    pub fn find(&self, name: &str) -> Option<(&Digest, &Record)> {
        self.images.iter().find(|(_, record)| record.tags.contains(name) || record.digests.contains(name))
    }

    /// All that have a name.
    pub fn named(&self) -> impl Iterator<Item = (&Digest, &Record)> {
        self.images.iter().filter(|(_, record)| !record.tags.is_empty() || !record.digests.is_empty())
    }
}

pub(super) struct Disk {
    root: PathBuf,
}

/// While it lives, nothing is deleted.
pub(super) struct Busy {
    _lock: Locked,
}

impl Disk {
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let disk = Self { root: root.to_owned() };
        for directory in ["blobs/sha256", "layers", "sizes", "counts", "holds", "partial", "tmp"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(ImageError::io(format!("make {}", path.display())))?;
        }
        rustix::fs::chmod(root, rustix::fs::Mode::from(0o700)).map_err(ImageError::errno(format!("close {}", root.display())))?;
        disk.index()?;
        disk.sweep()?;
        Ok(disk)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What all layers hold together, each counted once. Takes long where layers of an earlier version are counted.
    pub fn used(&self) -> Result<Footprint, ImageError> {
        let index = self.index()?;
        let layers: BTreeSet<&Digest> = index.images.values().flat_map(|record| &record.layers).collect();
        let bytes = layers.iter().filter_map(|layer| self.layer_bytes(layer)).sum();
        let files = layers.iter().filter_map(|layer| self.files_of(layer)).sum();
        Ok(Footprint { bytes, files })
    }

    /// How many files a layer has that is here, itself among them.
    fn files_of(&self, layer: &Digest) -> Option<u64> {
        let known = fs::read_to_string(self.count_path(layer)).ok().and_then(|text| text.trim().parse().ok());
        known.or_else(|| {
            let path = self.layer_path(layer);
            let files = footprint(&path, &mut || ()).ok()?.files;
            // One that was deleted meanwhile is not counted to its end.
            path.is_dir().then(|| self.keep_count(layer, files))?;
            Some(files)
        })
    }

    /// Layers never change. Where it cannot be written it is counted again.
    fn keep_count(&self, layer: &Digest, files: u64) {
        let temporary = self.scratch("count");
        if fs::write(&temporary, files.to_string()).and_then(|()| fs::rename(&temporary, self.count_path(layer))).is_err() {
            fs::remove_file(&temporary).ok();
        }
    }

    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }
    fn size_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("sizes").join(diff_id.hex())
    }
    fn count_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("counts").join(diff_id.hex())
    }
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// By the registry it comes from, too: one that is slow or lies hinders nobody who asks another.
    pub fn partial_path(&self, registry: &str, blob: &Digest) -> PathBuf {
        self.root.join("partial").join(Digest::of(format!("{registry}/{blob}").as_bytes()).hex())
    }
    /// What is there of a blob whose download was cut.
    pub fn partial_bytes(&self, registry: &str, blob: &Digest) -> u64 {
        fs::metadata(self.partial_path(registry, blob)).map_or(0, |meta| meta.len())
    }

    /// Bytes that may still be written to the store's disk.
    pub fn free(&self) -> Result<u64, ImageError> {
        let disk = rustix::fs::statvfs(&self.root).map_err(ImageError::errno("look at the free space"))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// A new empty directory or file name that a crash cannot leave behind for long.
    pub fn scratch(&self, what: &str) -> PathBuf {
        self.root.join("tmp").join(format!("{what}-{}", uuid::Uuid::new_v4().simple()))
    }

    pub fn busy(&self) -> Result<Busy, ImageError> {
        Ok(Busy { _lock: self.wait_for("busy", FlockArg::LockShared)? })
    }

    fn wait_for(&self, name: &str, how: FlockArg) -> Result<Locked, ImageError> {
        let path = self.root.join(name);
        let attempt = format!("lock {}", path.display());
        match lock(&path, how) {
            Ok(Some(locked)) => Ok(locked),
            Ok(None) => Err(ImageError::io(attempt)(io::ErrorKind::WouldBlock.into())),
            Err(error) => Err(ImageError::io(attempt)(error)),
        }
    }

    pub fn index(&self) -> Result<Index, ImageError> {
        let path = self.root.join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
            Err(error) => return Err(ImageError::io(format!("read {}", path.display()))(error)),
        };
        let index: Index = serde_json::from_slice(&bytes).map_err(|cause| ImageError::format(path.display().to_string(), cause))?;
        if index.version != INDEX_VERSION {
            return Err(ImageError::format(path.display().to_string(), format!("version {} is not known to this Podbay", index.version)));
        }
        Ok(index)
    }

    /// Changes the index, durably, if the function changes it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, ImageError> {
        let _lock = self.wait_for("lock", FlockArg::LockExclusive)?;
        let before = self.index()?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after != before {
            let bytes = serde_json::to_vec(&after).map_err(|cause| ImageError::format("index", cause))?;
            self.replace(&self.root.join("index.json"), &bytes)?;
        }
        Ok(result)
    }

    /// Writes a file whole: after a crash it is the old or the new.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let temporary = self.scratch("file");
        let attempt = format!("write {}", path.display());
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            sync_directory(path.parent().unwrap_or(&self.root))
        };
        write().map_err(|cause| {
            let _ = fs::remove_file(&temporary);
            ImageError::io(attempt)(cause)
        })
    }

    /// Keeps a small blob under its digest.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            self.replace(&path, bytes)?;
        }
        Ok(digest)
    }

    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(ImageError::io(format!("read {}", path.display())))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(ImageError::Digest { what: path.display().to_string(), expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// The size of a layer that is here.
    pub fn layer_bytes(&self, diff_id: &Digest) -> Option<u64> {
        if !self.layer_path(diff_id).is_dir() {
            return None;
        }
        fs::read_to_string(self.size_path(diff_id)).ok()?.trim().parse().ok()
    }

    /// Unpacks a layer, verifies what it is, and puts it in its place. `blob`: the digest its
    /// (compressed) stream must have.
    pub fn add_layer(
        &self,
        layer: impl Read + Send,
        diff_id: Option<&Digest>,
        blob: Option<&Digest>,
        limits: &Limits,
    ) -> Result<Digest, ImageError> {
        let scratch = self.scratch("layer");
        fs::create_dir(&scratch).map_err(ImageError::io(format!("make {}", scratch.display())))?;
        let outcome = self.add_layer_at(&scratch, layer, diff_id, blob, limits);
        if outcome.is_err() {
            let _ = fs::remove_dir_all(&scratch);
        }
        outcome
    }

    fn add_layer_at(
        &self,
        scratch: &Path,
        layer: impl Read + Send,
        diff_id: Option<&Digest>,
        blob: Option<&Digest>,
        limits: &Limits,
    ) -> Result<Digest, ImageError> {
        let mut hashed = stream::Hashing::new(layer);
        let unpacked = unpack::unpack(&mut hashed, scratch, limits)?;
        io::copy(&mut hashed, &mut io::sink()).map_err(ImageError::io("read the end of the layer"))?;
        if let Some(expected) = blob {
            check("layer blob", expected, Digest::of_hash(hashed.take_hash()))?;
        }
        if let Some(expected) = diff_id {
            check("layer", expected, unpacked.diff_id.clone())?;
        }
        let diff_id = unpacked.diff_id;
        self.replace(&self.size_path(&diff_id), unpacked.bytes.to_string().as_bytes())?;
        // Now that the kernel knows them all.
        self.keep_count(&diff_id, footprint(scratch, &mut || ()).map_err(ImageError::io("count the files of a layer"))?.files);
        let path = self.layer_path(&diff_id);
        match fs::rename(scratch, &path) {
            Ok(()) => sync_directory(&self.root.join("layers")).map_err(ImageError::io("write the layers' directory"))?,
            // Somebody else was faster with the same content.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                let _ = fs::remove_dir_all(scratch);
            }
            // A layer without any entry.
            Err(_) if path.is_dir() => {
                let _ = fs::remove_dir_all(scratch);
            }
            Err(error) => return Err(ImageError::io(format!("put {} in place", path.display()))(error)),
        }
        Ok(diff_id)
    }

    fn hold_path(&self, holder: &str) -> Result<PathBuf, ImageError> {
        let sound = !holder.is_empty()
            && holder.len() <= 200
            && holder.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if sound { Ok(self.root.join("holds").join(holder)) } else { Err(ImageError::format("holder", format!("{holder:?}"))) }
    }

    /// Keeps an image's layers for a holder, whatever happens to its names.
    pub fn hold(&self, holder: &str, image: &Digest) -> Result<(), ImageError> {
        let path = self.hold_path(holder)?;
        let _busy = self.busy()?;
        if !self.index()?.images.contains_key(image) {
            return Err(ImageError::NotFound(image.to_string()));
        }
        self.replace(&path, image.to_string().as_bytes())
    }

    pub fn release(&self, holder: &str) -> Result<(), ImageError> {
        let path = self.hold_path(holder)?;
        let image = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ImageError::io(format!("read {}", path.display()))(error)),
        };
        fs::remove_file(&path).map_err(ImageError::io(format!("remove {}", path.display())))?;
        // The usual case: the image still has its name, and nothing is to be deleted.
        let named = self
            .index()?
            .images
            .iter()
            .any(|(id, record)| id.to_string() == image.trim() && !(record.tags.is_empty() && record.digests.is_empty()));
        if named { Ok(()) } else { self.sweep().map(drop) }
    }

    /// Holders and what they hold.
    pub fn holds(&self) -> Result<BTreeMap<String, Digest>, ImageError> {
        let path = self.root.join("holds");
        let mut holds = BTreeMap::new();
        for name in names(&path)? {
            match fs::read_to_string(path.join(&name)) {
                Ok(text) => {
                    holds.insert(name, text.trim().parse()?);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ImageError::io(format!("read hold {name}"))(error)),
            }
        }
        Ok(holds)
    }

    /// Deletes what no image needs. Does nothing while somebody adds: they sweep at their end. Whether it did.
    pub fn sweep(&self) -> Result<bool, ImageError> {
        let path = self.root.join("busy");
        let Some(_busy) = lock(&path, FlockArg::LockExclusiveNonblock).map_err(ImageError::io(format!("lock {}", path.display())))? else {
            return Ok(false);
        };
        let held: BTreeSet<Digest> = self.holds()?.into_values().collect();
        let index = self.change(|index| {
            index.images.retain(|id, record| !record.tags.is_empty() || !record.digests.is_empty() || held.contains(id));
            index.clone()
        })?;
        let layers: BTreeSet<&str> = index.images.values().flat_map(|record| &record.layers).map(Digest::hex).collect();
        let blobs: BTreeSet<&str> = index.images.keys().map(Digest::hex).collect();
        let none = BTreeSet::new();
        for (directory, keep) in [("layers", &layers), ("sizes", &layers), ("counts", &layers), ("blobs/sha256", &blobs), ("tmp", &none)] {
            let directory = self.root.join(directory);
            for name in names(&directory)? {
                if !keep.contains(name.as_str()) {
                    self.delete(&directory.join(name))?;
                }
            }
        }
        self.sweep_partial(LEFTOVER_AGE)?;
        Ok(true)
    }

    /// Removes what cut downloads left and nobody went on with.
    fn sweep_partial(&self, age: Duration) -> Result<(), ImageError> {
        let directory = self.root.join("partial");
        for name in names(&directory)? {
            let path = directory.join(name);
            let Some(leftover) = partial::abandoned(&path) else { continue };
            let idle = leftover.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            if idle >= age {
                self.delete(&path)?;
            }
        }
        Ok(())
    }

    /// Out of its place in one step, then away.
    fn delete(&self, path: &Path) -> Result<(), ImageError> {
        let fail = || ImageError::io(format!("delete {}", path.display()));
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fail()(error)),
        };
        if !meta.is_dir() {
            return match fs::remove_file(path) {
                // Somebody else's scratch file, put in its place meanwhile.
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail()(error)),
                _ => Ok(()),
            };
        }
        let trash = self.scratch("trash");
        fs::rename(path, &trash).map_err(fail())?;
        fs::remove_dir_all(&trash).map_err(fail())
    }
}

fn check(what: &str, expected: &Digest, actual: Digest) -> Result<(), ImageError> {
    if *expected == actual { Ok(()) } else { Err(ImageError::Digest { what: what.into(), expected: expected.clone(), actual }) }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn names(directory: &Path) -> Result<Vec<String>, ImageError> {
    let fail = || ImageError::io(format!("list {}", directory.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail())? {
        names.push(entry.map_err(fail())?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}
