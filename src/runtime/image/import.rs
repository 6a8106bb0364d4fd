//! From archives into the store: OCI layouts, docker archives, plain root filesystems.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use oci_spec::image::{Arch, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, Os, RootFsBuilder};
use serde::Deserialize;

use super::archive::{Archive, DOCUMENT_MAX};
use super::build;
use super::disk::{Disk, Record};
use super::error::ImageError;
use super::manifest::{self, Bounded, Descriptor, Document, MANIFESTS_MAX, Outline, Platform};
use super::reference::{Digest, Reference};
use super::{Options, stream};

/// An image about to be kept; its layers are here.
pub(super) struct Finished {
    pub config: Vec<u8>,
    pub layers: Vec<Digest>,
    /// `repository:tag`
    pub tag: Option<String>,
    /// `repository@digest of its manifest`
    pub digest: Option<String>,
}

/// Reads a configuration and checks that it is for this host.
pub(super) fn read_config(bytes: &[u8], what: &str, host: &Platform) -> Result<(ImageConfiguration, Vec<Digest>), ImageError> {
    let fail = |cause: serde_json::Error| ImageError::format(format!("configuration of {what}"), cause);
    // Its lists are counted before any is built: a small text becomes a large structure.
    serde_json::from_slice::<Outline>(bytes).map_err(fail)?;
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(fail)?;
    let platform = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone().unwrap_or_default(),
    };
    if !platform.runs_on(host) {
        return Err(ImageError::Platform { what: what.to_owned(), found: platform.to_string(), host: host.to_string() });
    }
    let layers = config.rootfs().diff_ids().iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Ok((config, layers))
}

/// Keeps configuration and names; the caller still holds `busy`.
pub(super) fn finish(disk: &Disk, image: &Finished, user: &str) -> Result<Digest, ImageError> {
    let mut bytes = image.config.len() as u64;
    for layer in &image.layers {
        let missing = || ImageError::Io { attempt: format!("finish an image: layer {layer}"), source: std::io::ErrorKind::NotFound.into() };
        bytes = bytes.saturating_add(disk.layer_bytes(layer).ok_or_else(missing)?);
    }
    let id = disk.put_blob(&image.config)?;
    disk.change(|index| {
        for record in index.images.values_mut() {
            if let Some(tag) = &image.tag {
                record.tags.remove(tag);
            }
        }
        let record = index.images.entry(id.clone()).or_insert_with(Record::default);
        record.layers.clone_from(&image.layers);
        record.bytes = bytes;
        user.clone_into(&mut record.user);
        record.tags.extend(image.tag.clone());
        record.digests.extend(image.digest.clone());
    })?;
    Ok(id)
}

/// Imports every image of an archive. Returns their names, each once: an index may have many entries of one name, the last of
/// which has it then.
pub(super) fn import(disk: &Disk, options: &Options, archive: &Archive, name: Option<&str>) -> Result<Vec<String>, ImageError> {
    let (mut names, mut seen) = (import_all(disk, options, archive, name)?, BTreeSet::new());
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn import_all(disk: &Disk, options: &Options, archive: &Archive, name: Option<&str>) -> Result<Vec<String>, ImageError> {
    let name = name.map(str::parse::<Reference>).transpose()?;
    let docker = archive.has("manifest.json");
    if archive.has("index.json") {
        match import_layout(disk, options, archive, name.as_ref()) {
            // Archives of newer Dockers are both; the other half may know the names.
            Err(ImageError::Nameless) if docker => {}
            outcome => return outcome,
        }
    }
    if docker {
        return import_docker(disk, options, archive, name.as_ref());
    }
    Err(ImageError::format(
        "archive",
        "it has neither index.json (OCI layout) nor manifest.json (docker archive); a root filesystem needs --rootfs",
    ))
}

fn import_layout(disk: &Disk, options: &Options, archive: &Archive, name: Option<&Reference>) -> Result<Vec<String>, ImageError> {
    let index = read_document(&archive.document("index.json")?, "index.json")?;
    let mut found: Vec<(Reference, Descriptor)> = Vec::new();
    if let Some(name) = name {
        let chosen = manifest::choose(&index.manifests, &options.platform).or(match index.manifests.as_slice() {
            [only] => Some(only),
            _ => None,
        });
        let chosen = chosen.ok_or_else(|| ImageError::format("archive", "it holds several images: import it without a name"))?;
        found.push((name.clone(), chosen.clone()));
    } else {
        for entry in &index.manifests {
            let known = |name: &Reference| found.iter().any(|(other, of)| other == name && of.digest == entry.digest);
            if let Some(reference) = name_of(entry).filter(|name| !known(name)) {
                found.push((reference, entry.clone()));
            }
        }
    }
    if found.is_empty() {
        return Err(ImageError::Nameless);
    }
    let mut names = Vec::new();
    for (reference, descriptor) in found {
        names.push(import_manifest(disk, options, archive, &reference, descriptor)?);
    }
    Ok(names)
}

/// The name an index gives an entry; a bare tag is no name.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let containerd = entry.annotations.get("io.containerd.image.name");
    let oci = entry.annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/', '@']));
    containerd.or(oci).and_then(|name| name.parse().ok())
}

fn import_manifest(
    disk: &Disk,
    options: &Options,
    archive: &Archive,
    reference: &Reference,
    mut descriptor: Descriptor,
) -> Result<String, ImageError> {
    for _ in 0..4 {
        let digest: Digest = descriptor.digest.parse()?;
        let bytes = verified(archive, &digest)?;
        let document = read_document(&bytes, "manifest")?;
        if document.manifests.is_empty() {
            let manifest = Manifest::of(document, &reference.canonical())?;
            return import_layers(disk, options, archive, reference, &digest, &manifest);
        }
        descriptor = manifest::choose(&document.manifests, &options.platform).cloned().ok_or_else(|| ImageError::Platform {
            what: reference.canonical(),
            found: "other platforms".into(),
            host: options.platform.to_string(),
        })?;
    }
    Err(ImageError::format("archive", "its indexes lead to indexes only"))
}

fn import_layers(
    disk: &Disk,
    options: &Options,
    archive: &Archive,
    reference: &Reference,
    digest: &Digest,
    manifest: &Manifest,
) -> Result<String, ImageError> {
    let name = reference.canonical();
    let config_bytes = verified(archive, &manifest.config)?;
    let (config, layers) = read_config(&config_bytes, &name, &options.platform)?;
    manifest.matches(&layers, &name)?;
    for (layer, blob) in layers.iter().zip(&manifest.layers) {
        if disk.layer_bytes(layer).is_none() {
            disk.add_layer(archive.read(&blob_name(&blob.digest))?, Some(layer), Some(&blob.digest), &options.limits)?;
        }
    }
    let finished = Finished {
        config: config_bytes,
        layers,
        tag: reference.digest().is_none().then(|| name.clone()),
        digest: Some(format!("{}@{digest}", reference.repository())),
    };
    finish(disk, &finished, user_of(&config))?;
    Ok(name)
}

/// A manifest of one platform, checked.
pub(super) struct Manifest {
    pub config: Digest,
    pub config_size: u64,
    /// Lowest first.
    pub layers: Vec<Blob>,
}

/// A layer as it is in a registry.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub digest: Digest,
    pub size: u64,
    /// What it may be when unpacked: nobody says.
    pub unpacked: u64,
}

impl Manifest {
    pub fn of(document: Document, what: &str) -> Result<Self, ImageError> {
        let fail = |cause: &str| ImageError::format(format!("manifest of {what}"), cause);
        if document.schema_version != 2 {
            return Err(fail("its schema version is not 2"));
        }
        let config = document.config.ok_or_else(|| fail("it has no configuration"))?;
        if config.size > DOCUMENT_MAX {
            return Err(ImageError::TooLarge { what: format!("configuration of {what}"), limit: DOCUMENT_MAX });
        }
        let mut layers = Vec::new();
        for layer in document.layers {
            if let Some(cause) = manifest::unsupported_layer(&layer.media_type) {
                return Err(fail(cause));
            }
            let ratio = if layer.media_type.ends_with(".tar") { 1 } else { 3 };
            layers.push(Blob { digest: layer.digest.parse()?, size: layer.size, unpacked: layer.size.saturating_mul(ratio) });
        }
        Ok(Self { config: config.digest.parse()?, config_size: config.size, layers })
    }

    pub fn matches(&self, diff_ids: &[Digest], what: &str) -> Result<(), ImageError> {
        if self.layers.len() == diff_ids.len() {
            return Ok(());
        }
        let cause = format!("{} layers, but its configuration has {}", self.layers.len(), diff_ids.len());
        Err(ImageError::format(format!("manifest of {what}"), cause))
    }
}

pub(super) fn read_document(bytes: &[u8], what: &str) -> Result<Document, ImageError> {
    serde_json::from_slice(bytes).map_err(|cause| ImageError::format(what, cause))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn verified(archive: &Archive, digest: &Digest) -> Result<Vec<u8>, ImageError> {
    let bytes = archive.document(&blob_name(digest))?;
    let actual = Digest::of(&bytes);
    if actual == *digest { Ok(bytes) } else { Err(ImageError::Digest { what: "blob".into(), expected: digest.clone(), actual }) }
}

/// One image of a docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

fn import_docker(disk: &Disk, options: &Options, archive: &Archive, name: Option<&Reference>) -> Result<Vec<String>, ImageError> {
    let Bounded(entries): Bounded<DockerEntry, MANIFESTS_MAX> =
        serde_json::from_slice(&archive.document("manifest.json")?).map_err(|cause| ImageError::format("manifest.json", cause))?;
    if name.is_some() && entries.len() != 1 {
        return Err(ImageError::format("archive", "it holds several images: import it without a name"));
    }
    let mut names = Vec::new();
    for entry in entries {
        let references = match name {
            Some(name) => vec![name.clone()],
            None => entry.repo_tags.unwrap_or_default().iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?,
        };
        let Some(first) = references.first() else { return Err(ImageError::Nameless) };
        let bytes = archive.document(&entry.config)?;
        let (config, layers) = read_config(&bytes, &first.canonical(), &options.platform)?;
        if layers.len() != entry.layers.len() {
            return Err(ImageError::format("manifest.json", "its layers are not those of its configuration"));
        }
        for (layer, path) in layers.iter().zip(&entry.layers) {
            if disk.layer_bytes(layer).is_none() {
                disk.add_layer(archive.read(path)?, Some(layer), None, &options.limits)?;
            }
        }
        for reference in references {
            let tag = reference.canonical();
            finish(
                disk,
                &Finished { config: bytes.clone(), layers: layers.clone(), tag: Some(tag.clone()), digest: None },
                user_of(&config),
            )?;
            names.push(tag);
        }
    }
    Ok(names)
}

/// Makes an image of one layer out of a root filesystem, in a directory or a tar. Its command is
/// `/bin/sh`.
pub(super) fn import_rootfs(disk: &Disk, options: &Options, path: &Path, name: &str) -> Result<String, ImageError> {
    let reference: Reference = name.parse()?;
    let layer = if path.is_dir() {
        let copy = disk.scratch("rootfs");
        let written = build::layer_file(path, &copy);
        let outcome = written.and_then(|_| {
            let file = std::fs::File::open(&copy).map_err(ImageError::io("read the layer"))?;
            disk.add_layer(file, None, None, &options.limits)
        });
        let _ = std::fs::remove_file(&copy);
        outcome?
    } else {
        let file = std::fs::File::open(path).map_err(ImageError::io(format!("open {}", path.display())))?;
        disk.add_layer(file, None, None, &options.limits)?
    };
    let config = ConfigBuilder::default()
        .cmd(vec!["/bin/sh".to_owned()])
        .env(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
        .build()
        .map_err(|cause| ImageError::format("configuration", cause))?;
    let bytes = configuration(&options.platform, config, vec![layer.to_string()])?;
    let tag = reference.canonical();
    finish(disk, &Finished { config: bytes, layers: vec![layer], tag: Some(tag.clone()), digest: None }, "")?;
    Ok(tag)
}

/// A configuration's bytes; the same content gives the same bytes.
pub(super) fn configuration(host: &Platform, config: oci_spec::image::Config, diff_ids: Vec<String>) -> Result<Vec<u8>, ImageError> {
    let fail = |cause: oci_spec::OciSpecError| ImageError::format("configuration", cause);
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build().map_err(fail)?;
    let configuration = ImageConfigurationBuilder::default()
        .os(Os::Linux)
        .architecture(Arch::from(host.architecture.as_str()))
        .config(config)
        .rootfs(rootfs)
        .build()
        .map_err(fail)?;
    // By way of a value, whose maps are sorted.
    let value = serde_json::to_value(&configuration).map_err(|cause| ImageError::format("configuration", cause))?;
    serde_json::to_vec(&value).map_err(|cause| ImageError::format("configuration", cause))
}

pub(super) fn user_of(config: &ImageConfiguration) -> &str {
    config.config().as_ref().and_then(|config| config.user().as_deref()).unwrap_or_default()
}

/// Reads a stream into a bounded archive, for standard input.
pub(super) fn archive_of(stream: impl Read, disk: &Disk, options: &Options) -> Result<Archive, ImageError> {
    Archive::of_stream(stream::Bounded::new(stream, options.limits.archive_bytes), disk, &options.limits)
}
