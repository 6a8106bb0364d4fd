//! Image manifests and indexes as they come from registries and archives, and the choice of a platform. PURE.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Entries of an index.
pub(super) const MANIFESTS_MAX: usize = 1000;
/// Of one image; overlayfs takes about as many.
const LAYERS_MAX: usize = 500;
/// Steps an image was made in.
const HISTORY_MAX: usize = 4000;

/// A list that is refused as soon as it is too long, not after all of it has been built.
#[derive(Debug)]
pub(super) struct Bounded<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Counting<T, MAX> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {MAX}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut found = Vec::new();
                while let Some(next) = list.next_element()? {
                    if found.len() >= MAX {
                        return Err(A::Error::custom(format!("it has a list of more than {MAX}")));
                    }
                    found.push(next);
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(Counting::<T, MAX>(PhantomData)).map(Self)
    }
}

fn bounded<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Bounded::<T, MAX>::deserialize(deserializer).map(|list| list.0)
}

/// What of a configuration is counted; nothing of it is kept.
#[derive(Deserialize)]
pub(super) struct Outline {
    #[serde(default, rename = "history")]
    _history: Option<Bounded<IgnoredAny, HISTORY_MAX>>,
    #[serde(default, rename = "rootfs")]
    _rootfs: Option<OutlineRootfs>,
}

#[derive(Deserialize)]
struct OutlineRootfs {
    #[serde(default, rename = "diff_ids")]
    _diff_ids: Option<Bounded<IgnoredAny, LAYERS_MAX>>,
}

/// A manifest or an index: OCI's and Docker's differ in nothing that is read here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Document {
    pub schema_version: u32,
    pub media_type: Option<String>,
    pub config: Option<Descriptor>,
    #[serde(deserialize_with = "bounded::<LAYERS_MAX, _, _>")]
    pub layers: Vec<Descriptor>,
    #[serde(deserialize_with = "bounded::<MANIFESTS_MAX, _, _>")]
    pub manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub annotations: BTreeMap<String, String>,
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Platform {
    /// What runs on a machine of this platform: higher is better, `None` does not run.
    fn rank(&self, host: &Platform) -> Option<u32> {
        if self.os != host.os || self.architecture != host.architecture {
            return None;
        }
        let level = |platform: &Platform| {
            let default = match platform.architecture.as_str() {
                "arm64" => 8,
                "arm" => 7,
                _ => 1,
            };
            platform.variant.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(default)
        };
        (level(self) <= level(host)).then(|| level(self))
    }

    pub fn runs_on(&self, host: &Platform) -> bool {
        self.rank(host).is_some()
    }
}

/// The best entry of an index for a host; an entry that names no platform is taken when it is the
/// only one.
pub(super) fn choose<'a>(entries: &'a [Descriptor], host: &Platform) -> Option<&'a Descriptor> {
    if let [only] = entries
        && only.platform.is_none()
    {
        return Some(only);
    }
    let mut best: Option<(u32, &Descriptor)> = None;
    for entry in entries {
        let Some(rank) = entry.platform.as_ref().and_then(|platform| platform.rank(host)) else { continue };
        // The first of equals, as the index's author ordered them.
        if best.is_none_or(|(found, _)| rank > found) {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

/// Why a layer of this media type cannot be had, if so.
pub(super) fn unsupported_layer(media_type: &str) -> Option<&'static str> {
    if media_type.contains("nondistributable") || media_type.contains("foreign") {
        return Some("its layer is not in the registry but elsewhere");
    }
    if media_type.contains("+encrypted") {
        return Some("its layer is encrypted");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, platform: Option<(&str, &str, &str)>) -> Descriptor {
        let platform = platform.map(|(os, architecture, variant)| Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        });
        Descriptor { digest: digest.into(), platform, ..Descriptor::default() }
    }

    fn host(architecture: &str, variant: &str) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    #[test]
    fn the_hosts_platform_is_chosen() {
        let index = [
            entry("win", Some(("windows", "amd64", ""))),
            entry("attestation", Some(("unknown", "unknown", ""))),
            entry("arm7", Some(("linux", "arm", "v7"))),
            entry("arm6", Some(("linux", "arm", "v6"))),
            entry("arm64", Some(("linux", "arm64", "v8"))),
            entry("amd64", Some(("linux", "amd64", ""))),
            entry("amd64v3", Some(("linux", "amd64", "v3"))),
        ];
        for (host, expected) in [
            (host("amd64", ""), Some("amd64")),
            (host("amd64", "v2"), Some("amd64")),
            (host("amd64", "v3"), Some("amd64v3")),
            (host("arm64", ""), Some("arm64")),
            (host("arm", "v6"), Some("arm6")),
            (host("arm", "v7"), Some("arm7")),
            (host("riscv64", ""), None),
        ] {
            assert_eq!(choose(&index, &host).map(|entry| entry.digest.as_str()), expected, "{host}");
        }
    }

    #[test]
    fn lists_have_an_end() {
        let document = |list: &str, count: usize| {
            let text = format!("{{\"schemaVersion\":2,\"{list}\":[{}]}}", vec!["{}"; count].join(","));
            serde_json::from_str::<Document>(&text).map(|document| document.layers.len() + document.manifests.len())
        };
        assert_eq!(document("manifests", 1000).ok(), Some(1000));
        assert_eq!(document("layers", 500).ok(), Some(500));
        assert!(document("manifests", 1001).is_err_and(|error| error.to_string().contains("more than 1000")));
        assert!(document("layers", 501).is_err());
        let outline = |text: String| serde_json::from_str::<Outline>(&text).is_ok();
        assert!(outline("{\"history\":null,\"rootfs\":{\"diff_ids\":[]}}".into()));
        assert!(!outline(format!("{{\"history\":[{}]}}", vec!["{}"; 4001].join(","))));
        assert!(!outline(format!("{{\"rootfs\":{{\"diff_ids\":[{}]}}}}", vec!["\"\""; 501].join(","))));
    }

    #[test]
    fn an_entry_without_a_platform_is_taken_only_alone() {
        let alone = [entry("a", None)];
        assert!(choose(&alone, &host("amd64", "")).is_some());
        let two = [entry("a", None), entry("b", None)];
        assert!(choose(&two, &host("amd64", "")).is_none());
    }
}
