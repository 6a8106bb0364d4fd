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
    #[error("the paths of the layer's directories are too long together")]
    Paths,
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
        // Both may quote what a stranger wrote.
        Self::Format { what: brief(&what.into(), TEXT_MAX), cause: brief(&cause.to_string(), TEXT_MAX) }
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
            Self::Digest { .. } | Self::Format { .. } | Self::Refused { .. } | Self::TooLarge { .. } => true,
            _ => false,
        }
    }

    pub(super) fn to_cri(&self, attempt: &str, reference: &str) -> CriError {
        // It goes into status, events and logs, and much of it is what strangers wrote.
        let cause = brief(&self.to_string(), CAUSE_MAX);
        let reference = brief(reference, TEXT_MAX);
        match self {
            Self::NotFound(what) => CriError::NotFound(format!("image {}", brief(what, TEXT_MAX))),
            Self::Reference { .. } => CriError::Invalid(cause),
            other if other.is_final() => CriError::Pull { reference, cause },
            _ => CriError::failed(format!("{attempt} {reference}"), cause),
        }
    }
}

/// Letters of one text in a message.
pub(super) const TEXT_MAX: usize = 300;
/// Bytes of a whole message.
const CAUSE_MAX: usize = 1024;

/// What a stranger wrote: one line, at most so many bytes, and none of what steers a terminal.
pub(super) fn brief(text: &str, most: usize) -> String {
    let mut brief = String::new();
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if brief.len() + letter.len_utf8() > most {
            brief.push('…');
            break;
        }
        brief.push(letter);
    }
    brief
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_is_short_and_one_line() {
        assert_eq!(brief("a\u{1b}[2J\nb", 300), "a [2J b");
        assert_eq!(brief("äääb", 5), "ää…");
        let error = ImageError::format("x\n".repeat(9999), "y".repeat(9999)).to_string();
        assert!(error.len() < 700 && !error.contains('\n'), "{error}");
        let error = ImageError::Registry("z".repeat(9999)).to_cri("pull", "app").to_string();
        assert!(error.len() < 1200, "{error}");
    }
}
