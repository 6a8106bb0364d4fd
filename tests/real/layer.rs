//! Tars as honest and hostile people make them, and images out of them.

use std::io::Write;
use std::path::Path;

use podbay::runtime::image::{Digest, Platform};
use serde_json::json;

/// Builds a tar byte by byte: the `tar` crate refuses to write what is tested here.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Any entry: type flag, path and link as they are, content.
    pub fn raw(mut self, flag: u8, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        self.header(flag, path, link, mode, content.len() as u64);
        self.content(content);
        self
    }

    /// A header that announces `size` bytes, which need not follow.
    pub fn header(&mut self, flag: u8, path: &[u8], link: &[u8], mode: u32, size: u64) {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(1_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let bytes = header.as_mut_bytes();
        bytes[..path.len().min(100)].copy_from_slice(&path[..path.len().min(100)]);
        bytes[156] = flag;
        bytes[157..157 + link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    pub fn content(&mut self, content: &[u8]) {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().div_ceil(512) * 512, 0);
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path.as_bytes(), b"", 0o644, content.as_bytes())
    }
    pub fn directory(self, path: &str) -> Self {
        self.raw(b'5', path.as_bytes(), b"", 0o755, b"")
    }
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), 0o777, b"")
    }
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    /// An extended header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length.to_string().len() + rest != length {
                length = length.to_string().len() + rest;
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(b'x', b"PaxHeader", b"", 0o644, &content)
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("write to memory");
    encoder.finish().expect("write to memory")
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("write to memory")
}

/// A manifest with its blobs.
pub struct ImageParts {
    pub manifest: String,
    pub config: String,
    pub layers: Vec<Vec<u8>>,
}

/// An image of these layers: (as kept, uncompressed).
pub fn image(layers: &[(Vec<u8>, Vec<u8>)], architecture: &str) -> ImageParts {
    let diff_ids: Vec<String> = layers.iter().map(|(_, plain)| Digest::of(plain).to_string()).collect();
    let config = json!({
        "os": "linux", "architecture": architecture,
        "config": {"Cmd": ["/bin/sh"], "User": "1000:1000", "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let entries: Vec<_> = layers
        .iter()
        .map(|(kept, _)| {
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(kept).to_string(), "size": kept.len()})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config.as_bytes()).to_string(), "size": config.len()},
        "layers": entries,
    })
    .to_string();
    ImageParts { manifest, config, layers: layers.iter().map(|(kept, _)| kept.clone()).collect() }
}

/// Writes an OCI layout directory that holds these images under these names.
pub fn layout(directory: &Path, images: &[(&str, &ImageParts)]) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("make the layout");
    let put = |bytes: &[u8]| std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("write a blob");
    let mut entries = Vec::new();
    for (name, parts) in images {
        put(parts.manifest.as_bytes());
        put(parts.config.as_bytes());
        parts.layers.iter().for_each(|layer| put(layer));
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(parts.manifest.as_bytes()).to_string(), "size": parts.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
    }
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write the layout");
    std::fs::write(directory.join("index.json"), json!({"schemaVersion": 2, "manifests": entries}).to_string()).expect("write the layout");
}

/// This machine's architecture as images name it.
pub fn architecture() -> String {
    Platform::host().architecture
}
