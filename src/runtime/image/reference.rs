//! Names and digests of images, as Docker normalises them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ImageError;

/// A SHA-256 content digest, `sha256:<64 hex digits>`: safe to use as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(sha2::Sha256::digest(bytes)))
    }

    pub(super) fn of_hash(hash: sha2::Sha256) -> Self {
        use sha2::Digest as _;
        Self(hex::encode(hash.finalize()))
    }

    /// The digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

/// What identifies a stack of layers, lowest first (image-spec, config.md, "Layer ChainID"). None of no layers.
pub(super) fn chain_id(layers: &[Digest]) -> Option<Digest> {
    let (first, rest) = layers.split_first()?;
    Some(rest.iter().fold(first.clone(), |below, layer| Digest::of(format!("{below} {layer}").as_bytes())))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(digits.to_owned()))
        } else {
            Err(ImageError::format("digest", format!("{text:?} is not sha256 and 64 hex digits")))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A name with everything said: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// `docker.io/library/nginx`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `docker.io`
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Within the registry: `library/nginx`
    pub fn path(&self) -> &str {
        &self.repository
    }

    /// The name images are kept under: with the digest where it has one (then the tag says
    /// nothing), else with the tag.
    pub fn canonical(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.repository()),
            None => format!("{}:{}", self.repository(), self.tag()),
        }
    }

    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    /// Reads `[DOMAIN/]PATH[:TAG][@DIGEST]` (the reference grammar of the distribution project, which
    /// Docker, containerd and Kubernetes share). Not by the library's regular expression: compiled, it
    /// would hold 12 MiB for as long as the daemon runs.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refuse = |cause: &str| ImageError::Reference { text: text.to_owned(), cause: cause.to_owned() };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the domain's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (domain, path) = split_domain(name);
        if path.is_empty() {
            return Err(refuse("it has no name"));
        }
        let repository = if domain == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        if repository.len() > NAME_MAX {
            return Err(refuse("the name is longer than 255 characters"));
        }
        if !is_domain(domain) {
            return Err(refuse("the part before the first slash is no host name"));
        }
        if !path.split('/').all(is_component) {
            let upper = path.bytes().any(|byte| byte.is_ascii_uppercase());
            return Err(refuse(if upper { "the name must be lowercase" } else { "the name is malformed" }));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("the tag is malformed"));
        }
        let digest = digest.map(str::parse::<Digest>).transpose();
        let digest = digest.map_err(|_| refuse("the digest is not sha256: and 64 lowercase hex digits"))?;
        Ok(Self { registry: domain.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

const DOCKER_HUB: &str = "docker.io";
/// Of the path, as it is when everything is said.
const NAME_MAX: usize = 255;

/// The registry and the rest. A first part is a registry only when nothing else fits: it has a dot,
/// a port or an uppercase letter, or is `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DOCKER_HUB } else { first }, rest)
        }
        _ => (DOCKER_HUB, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lowercase letters and digits, in groups joined by one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let end = rest.iter().position(|byte| !word(*byte)).unwrap_or(rest.len());
        if end == 0 {
            return false;
        }
        rest = &rest[end..];
        let end = rest.iter().position(|byte| word(*byte)).unwrap_or(rest.len());
        match &rest[..end] {
            b"" => return true,
            b"." | b"_" | b"__" => {}
            joint if joint.iter().all(|byte| *byte == b'-') => {}
            _ => return false,
        }
        rest = &rest[end..];
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len()) && tag.bytes().enumerate().all(|(at, byte)| word(byte) || (at > 0 && matches!(byte, b'.' | b'-')))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, expected) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("library/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("me/app", "docker.io/me/app:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1".to_owned()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("127.0.0.1:5000/app:x", "127.0.0.1:5000/app:x".to_owned()),
            (&format!("nginx:1.27@{digest}"), format!("docker.io/library/nginx@{digest}")),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(reference.canonical(), expected, "{text}");
        }
    }

    #[test]
    fn a_stack_of_layers_has_a_name() {
        let layers = ["ab", "cd", "ef"].map(|pair| format!("sha256:{}", pair.repeat(32)).parse::<Digest>().expect("a digest"));
        let hex = |layers: &[Digest]| chain_id(layers).map(|id| id.hex().to_owned());
        assert_eq!((hex(&[]), hex(&layers[..1])), (None, Some("ab".repeat(32))));
        // As sha256sum has it of "sha256:abab… sha256:cdcd…", and so on.
        assert_eq!(hex(&layers[..2]).as_deref(), Some("015ea02ced7420ddf061bd8698fde69e75c0978328e868c649430921eb5ae0ba"));
        assert_eq!(hex(&layers).as_deref(), Some("928d50b7d47a38ee99245a8b1df3223a787f3b35c1da032025847b80152f4465"));
    }

    #[test]
    fn nonsense_is_no_name() {
        for text in ["", "UPPER", "a b", "nginx:", "nginx@sha256:12", "../x", "http://x/y", "a//b"] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bad_name_says_what_is_bad() {
        for (text, cause) in [
            ("shop/Web", "the name must be lowercase"),
            ("docker.io/Shop", "the name must be lowercase"),
            (":latest", "it has no name"),
            ("docker.io/", "it has no name"),
            ("web:", "the tag is malformed"),
            ("web@sha256:12", "the digest is not sha256: and 64 lowercase hex digits"),
            ("-x.io/web", "the part before the first slash is no host name"),
            (&"a".repeat(248), "the name is longer than 255 characters"),
        ] {
            let error = text.parse::<Reference>().map(|reference| reference.canonical()).expect_err(text);
            assert!(error.to_string().ends_with(cause), "{text}: {error}");
        }
    }

    proptest::proptest! {
        /// The library's own parser judges names made of the grammar's pieces.
        #[test]
        fn names_are_read_as_by_the_library(text in r"([a-z0-9.:_/@-]{1,4}|localhost:5000/|a\.io/|sha256:[0-9a-f]{64}|:v1){1,5}") {
            let ours = text.parse::<Reference>();
            match text.parse::<oci_client::Reference>() {
                Ok(theirs) => {
                    // Only SHA-256 is served.
                    if theirs.digest().is_none_or(|digest| digest.parse::<Digest>().is_ok()) {
                        let ours = ours.expect("the library reads it");
                        let digest = ours.digest.as_ref().map(ToString::to_string);
                        proptest::prop_assert_eq!((ours.registry(), ours.path()), (theirs.registry(), theirs.repository()));
                        proptest::prop_assert_eq!(digest.as_deref(), theirs.digest());
                        proptest::prop_assert_eq!(ours.tag.as_deref().or(digest.is_none().then_some("latest")), theirs.tag());
                    }
                }
                Err(error) => proptest::prop_assert!(ours.is_err(), "{} is no name: {}", text, error),
            }
        }
    }

    #[test]
    fn only_a_whole_lowercase_sha256_is_a_digest() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(good.parse::<Digest>().expect("good").to_string(), good);
        for text in ["", "sha256:", "sha256:../../etc", &good.to_uppercase(), &good[..70], &good.replace("sha256", "sha512")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
