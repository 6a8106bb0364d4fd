//! The `[images]` part: registries, mirrors, room on the disk. PURE.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::Faults;

/// As written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ImagesFile {
    pub insecure_registries: Vec<String>,
    pub ca_files: Vec<PathBuf>,
    pub auth_file: Option<PathBuf>,
    pub parallel_downloads: Option<u8>,
    pub reserve_mib: Option<u32>,
    pub gc_high_percent: Option<u8>,
    pub gc_low_percent: Option<u8>,
    pub gc_minimum_age_seconds: Option<u32>,
    pub registry: Vec<RegistryFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RegistryFile {
    pub host: String,
    pub mirrors: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub plain_http: bool,
}

/// Where images come from and what they may cost.
#[derive(Clone, Debug)]
pub struct Images {
    /// By `host[:port]`.
    pub registries: BTreeMap<String, Registry>,
    /// PEM files of private CAs, trusted for every registry.
    pub ca_files: Vec<PathBuf>,
    /// A docker `config.json` with credentials.
    pub auth_file: Option<PathBuf>,
    /// Layers of one image fetched at a time.
    pub parallel_downloads: u8,
    /// What pulls leave free on the disk.
    pub reserve_mib: u32,
    /// Unused images go when more than this much of the disk is used; 100: never …
    pub gc_high_percent: u8,
    /// … until no more than this much is used.
    pub gc_low_percent: u8,
    /// But none that came later than this ago.
    pub gc_minimum_age_seconds: u32,
}

/// One registry or mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// `host[:port][/prefix]`, asked in this order before the registry itself.
    pub mirrors: Vec<String>,
    /// A private CA for this host only.
    pub ca_file: Option<PathBuf>,
    /// Reached by plain HTTP.
    pub plain_http: bool,
}

/// Checks what was written; everything that is wrong goes to `faults`.
pub(super) fn images(file: ImagesFile, faults: &mut Faults) -> Images {
    let mut registries: BTreeMap<String, Registry> = BTreeMap::new();
    for (index, entry) in file.registry.into_iter().enumerate() {
        let subject = format!("images.registry {:?}", entry.host);
        let [host_key, mirrors_key] = ["host", "mirrors"].map(|key| format!("images.registry[{index}].{key}"));
        if !is_host(&entry.host) {
            faults.about(&[&host_key], format!("{subject}: `host` must be HOST or HOST:PORT, as in the names of images"));
        }
        for (index, mirror) in entry.mirrors.iter().enumerate() {
            let (host, prefix) = mirror.split_once('/').unwrap_or((mirror, ""));
            if !is_host(host) || !is_prefix(prefix) {
                let what = format!("{subject}: mirror {mirror:?} must be HOST[:PORT][/PREFIX], without a scheme");
                faults.about(&[&format!("{mirrors_key}[{index}]")], what);
            }
        }
        let registry = Registry { mirrors: entry.mirrors, ca_file: entry.ca_file, plain_http: entry.plain_http };
        if registries.insert(entry.host, registry).is_some() {
            faults.about(&[&host_key], format!("{subject}: is configured twice"));
        }
    }
    for (index, host) in file.insecure_registries.into_iter().enumerate() {
        if !is_host(&host) {
            let what = format!("images.insecure-registries: {host:?} must be HOST or HOST:PORT, as in the names of images");
            faults.about(&[&format!("images.insecure-registries[{index}]")], what);
        }
        registries.entry(host).or_default().plain_http = true;
    }
    let parallel_downloads = file.parallel_downloads.unwrap_or(3);
    if parallel_downloads == 0 {
        faults.of("images.parallel-downloads", "must be at least 1");
    }
    let (gc_high_percent, gc_low_percent) = (file.gc_high_percent.unwrap_or(85), file.gc_low_percent.unwrap_or(80));
    if gc_high_percent > 100 || gc_low_percent >= gc_high_percent {
        let what = format!("{gc_low_percent} must be less than gc-high-percent ({gc_high_percent}), and that at most 100");
        faults.about(&["images.gc-low-percent", "images.gc-high-percent"], format!("images.gc-low-percent: {what}"));
    }
    Images {
        gc_high_percent,
        gc_low_percent,
        gc_minimum_age_seconds: file.gc_minimum_age_seconds.unwrap_or(120),
        registries,
        ca_files: file.ca_files,
        auth_file: file.auth_file,
        parallel_downloads,
        reserve_mib: file.reserve_mib.unwrap_or(256),
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !host.is_empty() && host.bytes().all(letters) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_prefix(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let text = text.strip_suffix('/').unwrap_or(text);
    text.is_empty() || text.split('/').all(|part| !part.is_empty() && part != ".." && part.bytes().all(letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Images, Vec<String>> {
        let mut faults = Faults::default();
        let images = images(toml::from_str(text).unwrap(), &mut faults);
        let errors = faults.into_lines();
        if errors.is_empty() { Ok(images) } else { Err(errors) }
    }

    #[test]
    fn registries_and_their_mirrors_are_read() {
        let images = read(
            r#"
            insecure-registries = ["127.0.0.1:5000"]
            [[registry]]
            host = "docker.io"
            mirrors = ["mirror.test/hub", "127.0.0.1:5000"]
            [[registry]]
            host = "mirror.test"
            ca-file = "/etc/ca.pem"
            "#,
        )
        .unwrap();
        assert_eq!(images.registries["docker.io"].mirrors, ["mirror.test/hub", "127.0.0.1:5000"]);
        assert_eq!(images.registries["mirror.test"].ca_file, Some("/etc/ca.pem".into()));
        let plain: Vec<bool> = images.registries.values().map(|registry| registry.plain_http).collect();
        assert_eq!(plain, [true, false, false]);
        assert_eq!((images.parallel_downloads, images.reserve_mib), (3, 256));
    }

    #[test]
    fn what_is_no_host_is_told() {
        let errors = read(
            r#"
            insecure-registries = ["http://a.test"]
            parallel-downloads = 0
            gc-low-percent = 90
            [[registry]]
            host = "https://docker.io"
            mirrors = ["https://mirror.test", "mirror.test/../x", "m.test:99999"]
            [[registry]]
            host = "a.test"
            [[registry]]
            host = "a.test"
            "#,
        )
        .unwrap_err();
        assert_eq!(errors.len(), 8, "{errors:#?}");
        assert!(toml::from_str::<ImagesFile>("[[registry]]\nhost = 'a'\nmirror = 'b'").is_err());
    }
}
