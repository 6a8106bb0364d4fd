//! The reserve: space set aside so that a full disk can be emptied through the store itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Options;

/// Tells how much space is left.
pub trait FreeSpace: Send + Sync {
    /// Bytes an unprivileged writer may still use on the filesystem of `path`.
    ///
    /// # Errors
    /// When the filesystem does not say.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// Asks the host's filesystem.
#[derive(Debug, Clone, Copy)]
pub struct HostSpace;

impl FreeSpace for HostSpace {
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

pub(super) struct Reserve {
    directory: PathBuf,
    file: PathBuf,
    bytes: u64,
    low: u64,
    space: Arc<dyn FreeSpace>,
    held: bool,
    /// A write found no space although there seemed to be some.
    hit: bool,
}

impl Reserve {
    pub(super) fn new(directory: &Path, options: &Options) -> Self {
        let file = directory.join("reserve");
        let held = fs::metadata(&file).is_ok_and(|file| file.len() == options.reserve_bytes);
        let Options { reserve_bytes: bytes, low_bytes: low, space } = options.clone();
        Self { directory: directory.to_owned(), file, bytes, low, space, held, hit: false }
    }

    /// Looks at the disk. A reason: it is short of space, only what frees some may be written.
    ///
    /// `was_short` makes it wait for some more than the bound, so that it does not flap, and for
    /// the reserve to be back.
    pub(super) fn look(&mut self, was_short: bool) -> Option<String> {
        let free = match self.space.free_bytes(&self.directory) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the filesystem of the store does not tell its free space");
                return None;
            }
        };
        let margin = if was_short { self.low / 4 } else { 0 };
        let missing = if self.held { 0 } else { self.bytes };
        if free >= self.low + margin + missing && self.take() {
            self.hit = false;
            return None;
        }
        // Only a lost reserve: not short for as long as the bound itself holds.
        if !was_short && !self.hit && free >= self.low {
            return None;
        }
        if free < self.low / 4 {
            self.release();
        }
        Some(format!(
            "{} MiB free in {}, less than {} MiB: only deletes and status are written until there is more",
            free >> 20,
            self.directory.display(),
            (self.low + self.low / 4 + missing) >> 20
        ))
    }

    /// A write hit the end of the disk: gives the reserve back to it.
    pub(super) fn hit(&mut self) -> String {
        self.hit = true;
        self.release();
        format!("no space left in {}: only deletes and status are written until there is more", self.directory.display())
    }

    /// Sets the space aside, if there is that much. Tells whether it is.
    pub(super) fn take(&mut self) -> bool {
        if self.held || self.bytes == 0 {
            return true;
        }
        let enough = self.space.free_bytes(&self.directory).is_ok_and(|free| free >= self.bytes + self.low);
        if !enough {
            return false;
        }
        let made = File::create(&self.file).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes)?;
            file.sync_all()
        });
        match made {
            Ok(()) => self.held = true,
            Err(error) => {
                tracing::warn!(%error, "setting the store's reserve aside failed");
                self.release();
            }
        }
        self.held
    }

    pub(super) fn release(&mut self) {
        self.held = false;
        if let Err(error) = fs::remove_file(&self.file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "releasing the store's reserve failed");
        }
    }
}
