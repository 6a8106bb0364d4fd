//! How far a pull is, for those who watch.

use std::sync::{Mutex, PoisonError};

use super::reference::Digest;

/// Where one layer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of its blob.
    pub blob: Digest,
    /// Bytes of the blob that are here, and that there are.
    pub done: u64,
    pub total: u64,
    /// It is unpacked and in its place.
    pub ready: bool,
}

/// All layers of one pull; empty until its manifest is known.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Vec<LayerProgress>>);

impl Progress {
    pub fn layers(&self) -> Vec<LayerProgress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes here and bytes in all.
    pub fn sum(&self) -> (u64, u64) {
        self.layers().iter().fold((0, 0), |(done, total), layer| {
            // Sizes are what a manifest claims.
            (done.saturating_add(layer.done), total.saturating_add(layer.total))
        })
    }

    pub(super) fn begin(&self, blobs: impl Iterator<Item = (Digest, u64)>) {
        let layers = blobs.map(|(blob, total)| LayerProgress { blob, done: 0, total, ready: false });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = layers.collect();
    }

    pub(super) fn downloaded(&self, layer: usize, done: u64) {
        self.change(layer, |layer| layer.done = done);
    }

    pub(super) fn ready(&self, layer: usize) {
        self.change(layer, |layer| (layer.done, layer.ready) = (layer.total, true));
    }

    fn change(&self, layer: usize, change: impl FnOnce(&mut LayerProgress)) {
        if let Some(layer) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(layer) {
            change(layer);
        }
    }
}
