//! Files of an OCI layout or a docker archive, in a directory or in a tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::error::{ImageError, Refusal};
use super::tarball::{EntryKind, TarReader};
use super::{Limits, stream, unpack};

/// Of manifests, indexes and configurations.
pub(super) const DOCUMENT_MAX: u64 = 4 << 20;

pub(super) enum Archive {
    Directory(PathBuf),
    Tar { file: Arc<File>, entries: BTreeMap<String, Slot> },
}

pub(super) enum Slot {
    Content { offset: u64, size: u64 },
    Link(String),
}

impl Archive {
    pub fn open(path: &Path, disk: &Disk, limits: &Limits) -> Result<Self, ImageError> {
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path).map_err(ImageError::io(format!("open {}", path.display())))?;
        Self::of_file(file, disk, limits)
    }

    /// Reads the list of a tar; a compressed one, or one that cannot seek, is copied first.
    pub fn of_file(mut file: File, disk: &Disk, limits: &Limits) -> Result<Self, ImageError> {
        let mut magic = [0; 4];
        let seekable = file.stream_position().is_ok() && file.read_at(&mut magic, 0).is_ok();
        let compressed = magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd];
        if seekable && !compressed { Self::of_plain(file, limits) } else { Self::of_stream(file, disk, limits) }
    }

    pub fn of_stream(stream: impl Read, disk: &Disk, limits: &Limits) -> Result<Self, ImageError> {
        let path = disk.scratch("archive");
        let attempt = || ImageError::io("copy the archive");
        let mut copy = File::options().create_new(true).read(true).write(true).open(&path).map_err(attempt())?;
        // Only the open file keeps it.
        std::fs::remove_file(&path).map_err(attempt())?;
        let mut bounded = stream::Bounded::new(stream::decompress(stream)?, limits.archive_bytes);
        let copied = io::copy(&mut bounded, &mut copy);
        if bounded.exceeded() {
            return Err(ImageError::TooLarge { what: "the archive".into(), limit: limits.archive_bytes });
        }
        copied.map_err(attempt())?;
        copy.rewind().map_err(attempt())?;
        Self::of_plain(copy, limits)
    }

    fn of_plain(file: File, limits: &Limits) -> Result<Self, ImageError> {
        let file = Arc::new(file);
        let length = file.metadata().map_err(ImageError::io("read the archive"))?.len();
        let mut entries = BTreeMap::new();
        let mut tar = TarReader::new(Section { file: file.clone(), offset: 0, left: length });
        while let Some(entry) = tar.next_entry()? {
            if entries.len() as u64 >= limits.entries {
                return Err(entry.refuse(Refusal::Entries));
            }
            let Some(name) = clean(&String::from_utf8_lossy(&entry.path)) else { return Err(entry.refuse(Refusal::DotDot)) };
            match entry.kind {
                EntryKind::File => {
                    entries.insert(name, Slot::Content { offset: entry.offset, size: entry.size });
                }
                EntryKind::Symlink | EntryKind::Hardlink => {
                    let link = String::from_utf8_lossy(&entry.link).into_owned();
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = if entry.kind == EntryKind::Symlink { join(parent, &link) } else { clean(&link) };
                    entries.insert(name, Slot::Link(target.ok_or_else(|| entry.refuse(Refusal::DotDot))?));
                }
                _ => {}
            }
            // The content is skipped by seeking, not by reading.
            tar.seek_past();
        }
        Ok(Self::Tar { file, entries })
    }

    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => unpack::open_beneath(path, name).is_ok(),
            Self::Tar { entries, .. } => entries.contains_key(name),
        }
    }

    /// A file's content.
    pub fn read(&self, name: &str) -> Result<Box<dyn Read + Send>, ImageError> {
        let missing = || ImageError::format("archive", format!("it has no file {name}"));
        match self {
            Self::Directory(path) => {
                let file = unpack::open_beneath(path, name).map_err(|errno| match errno {
                    rustix::io::Errno::NOENT => missing(),
                    errno => ImageError::errno(format!("open {}", path.join(name).display()))(errno),
                })?;
                let meta = file.metadata().map_err(ImageError::io(format!("open {name}")))?;
                if meta.is_file() { Ok(Box::new(file)) } else { Err(missing()) }
            }
            Self::Tar { file, entries } => {
                let mut name = name;
                for _ in 0..8 {
                    match entries.get(name) {
                        Some(Slot::Content { offset, size }) => {
                            return Ok(Box::new(Section { file: file.clone(), offset: *offset, left: *size }));
                        }
                        Some(Slot::Link(target)) => name = target,
                        None => return Err(missing()),
                    }
                }
                Err(missing())
            }
        }
    }

    /// A small file whole.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.read(name)?.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes).map_err(ImageError::io(format!("read {name}")))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(ImageError::TooLarge { what: name.to_owned(), limit: DOCUMENT_MAX });
        }
        Ok(bytes)
    }
}

/// A part of a file, with a position of its own.
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Section {
    pub fn skip(&mut self, count: u64) {
        let count = count.min(self.left);
        self.offset += count;
        self.left -= count;
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.skip(count as u64);
        Ok(count)
    }
}

fn clean(path: &str) -> Option<String> {
    join("", path)
}

/// `path` as seen from `parent`; `None` when it leads out.
fn join(parent: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = if path.starts_with('/') { Vec::new() } else { parent.split('/').filter(|part| !part.is_empty()).collect() };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_the_archive_only() {
        assert_eq!(join("a/b", "../c/layer.tar").as_deref(), Some("a/c/layer.tar"));
        assert_eq!(join("a", "../../etc"), None);
        assert_eq!(clean("./index.json").as_deref(), Some("index.json"));
        assert_eq!(clean("/x").as_deref(), Some("x"));
    }
}
