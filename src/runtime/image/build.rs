//! The other way round: a small OCI image archive out of a root filesystem directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::ImageError;
use super::import;
use super::reference::{Digest, Reference};
use super::{Platform, stream};

/// Writes an OCI layout as a tar to `out`: one uncompressed layer with everything below `root`
/// (modes, owners, links; no sockets, no devices, no extended attributes), named `name`. Same input,
/// same bytes. Returns the digest of its manifest.
///
/// # Errors
/// When `root` cannot be read or `out` cannot be written.
pub fn from_directory(root: &Path, name: &str, config: oci_spec::image::Config, out: &Path) -> Result<String, ImageError> {
    let reference: Reference = name.parse()?;
    let layer_path = PathBuf::from(format!("{}.layer", out.display()));
    let outcome = write_archive(root, &reference, config, out, &layer_path);
    let _ = fs::remove_file(&layer_path);
    outcome.map(|digest| digest.to_string())
}

fn write_archive(
    root: &Path,
    reference: &Reference,
    config: oci_spec::image::Config,
    out: &Path,
    layer_path: &Path,
) -> Result<Digest, ImageError> {
    let (layer, layer_size) = layer_file(root, layer_path)?;
    let config = import::configuration(&Platform::host(), config, vec![layer.to_string()])?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}],
    })
    .to_string();
    let digest = Digest::of(manifest.as_bytes());
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": manifest.len(),
            "annotations": {"io.containerd.image.name": reference.canonical(), "org.opencontainers.image.ref.name": reference.canonical()},
        }],
    })
    .to_string();
    let write = || -> io::Result<()> {
        let mut tar = tar::Builder::new(BufWriter::new(File::create(out)?));
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", index.as_bytes())?;
        append(&mut tar, &blob(&digest), manifest.as_bytes())?;
        append(&mut tar, &blob(&Digest::of(&config)), &config)?;
        let mut header = header(tar::EntryType::Regular, 0o644);
        header.set_size(layer_size);
        tar.append_data(&mut header, blob(&layer), File::open(layer_path)?)?;
        tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(ImageError::io(format!("write {}", out.display())))?;
    Ok(digest)
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes)
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Writes a directory's content as an uncompressed layer. Returns its digest and size.
pub(super) fn layer_file(root: &Path, out: &Path) -> Result<(Digest, u64), ImageError> {
    let write = || -> io::Result<(Digest, u64)> {
        let file = stream::Hashing::new(BufWriter::new(File::create(out)?));
        let mut tar = tar::Builder::new(file);
        let mut links = BTreeMap::new();
        append_directory(&mut tar, root, Path::new(""), &mut links)?;
        let mut hashing = tar.into_inner()?;
        hashing.flush()?;
        let digest = Digest::of_hash(hashing.take_hash());
        Ok((digest, fs::metadata(out)?.len()))
    };
    write().map_err(ImageError::io(format!("make a layer of {}", root.display())))
}

fn append_directory(
    tar: &mut tar::Builder<impl Write>,
    root: &Path,
    below: &Path,
    links: &mut BTreeMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(below))?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable();
    for name in entries {
        let path = below.join(name);
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full)?;
        let mut entry = header(tar::EntryType::Regular, meta.mode());
        entry.set_uid(u64::from(meta.uid()));
        entry.set_gid(u64::from(meta.gid()));
        entry.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        let kind = meta.file_type();
        if kind.is_dir() {
            entry.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut entry, &path, io::empty())?;
            append_directory(tar, root, &path, links)?;
        } else if kind.is_symlink() {
            entry.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut entry, &path, fs::read_link(&full)?)?;
        } else if kind.is_fifo() {
            entry.set_entry_type(tar::EntryType::Fifo);
            tar.append_data(&mut entry, &path, io::empty())?;
        } else if kind.is_file() {
            if meta.nlink() > 1
                && let Some(first) = links.get(&(meta.dev(), meta.ino()))
            {
                entry.set_entry_type(tar::EntryType::Link);
                tar.append_link(&mut entry, &path, first)?;
                continue;
            }
            links.insert((meta.dev(), meta.ino()), path.clone());
            entry.set_size(meta.len());
            tar.append_data(&mut entry, &path, File::open(&full)?)?;
        }
    }
    Ok(())
}
