//! The way in for the fuzz targets (`tests/fuzz`): what a stranger sends goes, as bytes, to the code that reads it first.
//! Nothing of the product comes this way.

use std::path::Path;

use super::error::ImageError;
use super::import::{self, Manifest};
use super::manifest::{self, Platform};
use super::reference::Digest;
use super::registry::{challenge, redirected};
use super::{Limits, unpack};

/// Unpacks a layer into an existing empty directory. Returns the bytes of its files.
///
/// # Errors
/// As an import would tell.
pub fn layer(bytes: &[u8], root: &Path, limits: &Limits) -> Result<u64, ImageError> {
    unpack::unpack(bytes, root, limits).map(|unpacked| unpacked.bytes)
}

/// Reads a manifest or an index. Returns how many layers or entries it has.
///
/// # Errors
/// As a pull would tell.
pub fn manifest(bytes: &[u8], host: &Platform) -> Result<usize, ImageError> {
    let document = import::read_document(bytes, "manifest")?;
    if document.manifests.is_empty() {
        return Ok(Manifest::of(document, "fuzzed")?.layers.len());
    }
    if let Some(chosen) = manifest::choose(&document.manifests, host) {
        chosen.digest.parse::<Digest>()?;
    }
    Ok(document.manifests.len())
}

/// Reads an image's configuration. Returns how many layers it has.
///
/// # Errors
/// As a pull would tell.
pub fn configuration(bytes: &[u8], host: &Platform) -> Result<usize, ImageError> {
    import::read_config(bytes, "fuzzed", host).map(|(_, layers)| layers.len())
}

/// Reads a `WWW-Authenticate` header. Says whether there is a way to sign in.
pub fn challenge(header: &str) -> bool {
    challenge::choose([header].into_iter()).is_some()
}

/// Where a redirect would be followed to.
pub fn redirect(from: &http::Uri, location: &str) -> Option<http::Uri> {
    redirected(from, location)
}
