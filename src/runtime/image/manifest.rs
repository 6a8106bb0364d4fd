//! Image manifests and indexes as they come from registries and archives, and the choice of a platform. PURE.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A manifest or an index: OCI's and Docker's differ in nothing that is read here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Document {
    pub schema_version: u32,
    pub media_type: Option<String>,
    pub config: Option<Descriptor>,
    pub layers: Vec<Descriptor>,
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
    fn an_entry_without_a_platform_is_taken_only_alone() {
        let alone = [entry("a", None)];
        assert!(choose(&alone, &host("amd64", "")).is_some());
        let two = [entry("a", None), entry("b", None)];
        assert!(choose(&two, &host("amd64", "")).is_none());
    }
}
