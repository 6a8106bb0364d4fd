//! Why an image is not here.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::reference::Digest;
use crate::cri::CriError;

/// Every way in which the image store can fail, naming the attempt and its subject.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{attempt}: {source}")]
    Io {
        attempt: String,
        #[source]
        source: io::Error,
    },
    #[error("image name {text:?}: {cause}")]
    Reference { text: String, cause: String },
    #[error("image {0} is not here")]
    NotFound(String),
    /// A layer's entry that an honest image does not have.
    #[error("layer entry {entry:?} is refused: {why}")]
    Refused { entry: String, why: Refusal },
    #[error("{what} does not have the digest it should: {expected}, but {actual}")]
    Digest { what: String, expected: Digest, actual: Digest },
    #[error("{what} is not readable: {cause}")]
    Format { what: String, cause: String },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("{what} is for {found}, this host is {host}")]
    Platform { what: String, found: String, host: String },
    #[error("the archive does not say what its image is called: give a name")]
    Nameless,
    #[error("no such image: {0}")]
    NoSuchImage(String),
    #[error("the registry denies it: {0}")]
    Denied(String),
    #[error("the registry does not answer: {0}")]
    Unreachable(String),
    #[error("the registry answers: {0}")]
    Registry(String),
    /// 429 and 503: it asks to be left alone for a while.
    #[error("the registry is busy or limits how often it is asked: {what}{}", .after.map(|after| format!(" (again in {} s)", after.as_secs())).unwrap_or_default())]
    Busy { what: String, after: Option<Duration> },
    #[error(
        "no room for {what}: it needs about {} MiB in {}, where {} MiB are free and {} MiB are held back",
        mib(*.needs), .place.display(), mib(*.free), mib(*.reserve)
    )]
    NoSpace { what: String, place: PathBuf, needs: u64, free: u64, reserve: u64 },
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What is wrong with an entry of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its path leaves the root by `..`")]
    DotDot,
    #[error("its path contains a NUL")]
    Nul,
    #[error("its path or a part of it is too long")]
    LongName,
    #[error("its parent is not a directory")]
    Parent,
    #[error("it is a link to something that is not in the layer")]
    DanglingHardlink,
    #[error("it is a hard link to something that is not a file")]
    HardlinkKind,
    #[error("device nodes are not unpacked")]
    Device,
    #[error("sparse files are not unpacked")]
    Sparse,
    #[error("its type is unknown")]
    Kind,
    #[error("its extended attribute would change the overlay")]
    Xattr,
    #[error("its owner is no valid number")]
    Owner,
    #[error("its whiteout names nothing")]
    Whiteout,
    #[error("the root itself is not a directory")]
    Root,
    #[error("its header is damaged")]
    Header,
    #[error("its extended header is too large or damaged")]
    ExtendedHeader,
    #[error("the layer has too many entries")]
    Entries,
    #[error("the layer is too large when unpacked")]
    Bytes,
    #[error("the archive ends in the middle of it")]
    Truncated,
}

impl ImageError {
    pub(super) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }

    pub(super) fn errno(attempt: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let attempt = attempt.into();
        move |errno| Self::Io { attempt, source: errno.into() }
    }

    pub(super) fn format(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Format { what: what.into(), cause: cause.to_string() }
    }

    /// Whether trying again soon is of no use: the image is what is wrong, not the way to it.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Unreachable(_) | Self::Registry(_) | Self::Busy { .. } | Self::NoSpace { .. })
    }

    /// Whether the next request may go better within this pull.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Busy { .. })
    }

    /// Whether what came is at fault, rather than this host.
    pub(super) fn is_of_content(&self) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        match self {
            Self::Io { source, .. } => matches!(source.kind(), InvalidData | InvalidInput | Other | UnexpectedEof),
            Self::NoSpace { .. } => false,
            _ => true,
        }
    }

    pub(super) fn to_cri(&self, attempt: &str, reference: &str) -> CriError {
        match self {
            Self::NotFound(what) => CriError::NotFound(format!("image {what}")),
            Self::Reference { .. } => CriError::Invalid(self.to_string()),
            other if other.is_final() => CriError::Pull { reference: reference.to_owned(), cause: other.to_string() },
            other => CriError::failed(format!("{attempt} {reference}"), other),
        }
    }
}
