//! Which hosts are asked for an image, in which order, and how. PURE.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is configured about one registry or mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// `host[:port][/prefix]`, asked in this order before the registry itself.
    pub mirrors: Vec<String>,
    /// PEM file of authorities trusted for this host only, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// It is spoken to by plain HTTP.
    pub plain_http: bool,
}

/// One place that may have the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]` as written: what credentials are kept under.
    pub host: String,
    /// `https://host/v2/library/nginx`
    pub base: String,
    /// The repository as this host calls it.
    pub repository: String,
    /// For a mirror: the registry it stands for.
    pub mirror_of: Option<String>,
}

/// Mirrors in their order, then the registry itself.
pub fn endpoints(registry: &str, repository: &str, configured: &BTreeMap<String, RegistryOptions>) -> Vec<Endpoint> {
    let plain = |host: &str| options_of(host, configured).is_some_and(|options| options.plain_http);
    let mirrors = options_of(registry, configured).map(|options| options.mirrors.as_slice()).unwrap_or_default();
    let mut found: Vec<Endpoint> = mirrors
        .iter()
        .map(|mirror| {
            let (host, prefix) = mirror.trim_end_matches('/').split_once('/').unwrap_or((mirror, ""));
            let host = host.trim_end_matches('/');
            let repository = if prefix.is_empty() { repository.to_owned() } else { format!("{prefix}/{repository}") };
            endpoint(host, repository, plain(host), Some(registry.to_owned()))
        })
        .collect();
    found.push(endpoint(registry, repository.to_owned(), plain(registry), None));
    found
}

/// What is configured about a host, however it is written.
pub(super) fn options_of<'a>(host: &str, configured: &'a BTreeMap<String, RegistryOptions>) -> Option<&'a RegistryOptions> {
    let same = || configured.iter().find(|(name, _)| normal(name) == normal(host)).map(|(_, options)| options);
    configured.get(host).or_else(same)
}

/// One spelling for one host: case and HTTPS's own port mean nothing, and docker's registry has several names.
fn normal(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.strip_suffix(":443").unwrap_or(&host) {
        "registry-1.docker.io" | "index.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

fn endpoint(host: &str, repository: String, plain: bool, mirror_of: Option<String>) -> Endpoint {
    // Docker keeps its own registry under a name that is none.
    let place = if host == "docker.io" { "registry-1.docker.io" } else { host };
    let scheme = if plain { "http" } else { "https" };
    Endpoint { host: host.to_owned(), base: format!("{scheme}://{place}/v2/{repository}"), repository, mirror_of }
}

/// Where a redirect leads, seen from where it came from; `None` when that makes no sense.
pub fn redirected(from: &http::Uri, location: &str) -> Option<http::Uri> {
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let location = location.split('#').next().unwrap_or_default();
    // A query may hold another address.
    let schema = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let absolute = location.split_once("://").is_some_and(|(before, _)| before.bytes().all(schema));
    let text = if absolute {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let parent = from.path().rsplit_once('/').map_or("", |(parent, _)| parent);
        format!("{scheme}://{authority}{parent}/{location}")
    };
    let uri: http::Uri = text.parse().ok()?;
    let host = uri.authority()?.as_str();
    (matches!(uri.scheme_str(), Some("http" | "https")) && !host.contains('@')).then_some(uri)
}

/// The same scheme, host and port: what is secret may be sent there too.
pub(super) fn same_origin(one: &http::Uri, other: &http::Uri) -> bool {
    one.scheme() == other.scheme()
        && one.host().map(str::to_ascii_lowercase) == other.host().map(str::to_ascii_lowercase)
        && port(one) == port(other)
}

fn port(uri: &http::Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured() -> BTreeMap<String, RegistryOptions> {
        let hub = RegistryOptions { mirrors: vec!["mirror.test:5000/hub/".into(), "10.0.0.1".into()], ..RegistryOptions::default() };
        let plain = RegistryOptions { plain_http: true, ..RegistryOptions::default() };
        [("docker.io".to_owned(), hub), ("10.0.0.1".to_owned(), plain)].into()
    }

    #[test]
    fn mirrors_are_asked_first_and_in_order() {
        let found = endpoints("docker.io", "library/nginx", &configured());
        let bases: Vec<&str> = found.iter().map(|endpoint| endpoint.base.as_str()).collect();
        assert_eq!(
            bases,
            [
                "https://mirror.test:5000/v2/hub/library/nginx",
                "http://10.0.0.1/v2/library/nginx",
                "https://registry-1.docker.io/v2/library/nginx"
            ]
        );
        assert_eq!(found[0].mirror_of.as_deref(), Some("docker.io"));
        let found = endpoints("quay.io", "a/b", &configured());
        assert_eq!((found.len(), found[0].base.as_str(), &found[0].mirror_of), (1, "https://quay.io/v2/a/b", &None));
    }

    #[test]
    fn a_host_is_the_same_however_it_is_written() {
        for host in ["docker.io", "registry-1.docker.io", "index.docker.io:443", "Docker.io"] {
            assert_eq!(options_of(host, &configured()).map(|options| options.mirrors.len()), Some(2), "{host}");
        }
        assert!(options_of("10.0.0.1:443", &configured()).is_some());
        assert!(options_of("10.0.0.1:5000", &configured()).is_none());
    }

    #[test]
    fn redirects_are_resolved() {
        let from: http::Uri = "https://r.test:5000/v2/app/blobs/x".parse().expect("uri");
        for (location, expected) in [
            ("https://cdn.test/a?b=c", Some("https://cdn.test/a?b=c")),
            ("//cdn.test/a", Some("https://cdn.test/a")),
            ("/a/b", Some("https://r.test:5000/a/b")),
            ("y?z=1#f", Some("https://r.test:5000/v2/app/blobs/y?z=1")),
            ("/x?u=https://y.test/z", Some("https://r.test:5000/x?u=https://y.test/z")),
            ("y?u=https://y.test/z", Some("https://r.test:5000/v2/app/blobs/y?u=https://y.test/z")),
            ("file:///etc/passwd", None),
            ("ftp://cdn.test/", None),
            ("https://user:password@cdn.test/", None),
            ("https://", None),
        ] {
            assert_eq!(redirected(&from, location).map(|uri| uri.to_string()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn another_port_or_scheme_is_another_origin() {
        let same = |one: &str, other: &str| same_origin(&one.parse().expect("uri"), &other.parse().expect("uri"));
        assert!(same("https://a.test/x", "https://A.test:443/y"));
        assert!(!same("https://a.test/x", "http://a.test/x"));
        assert!(!same("https://a.test/x", "https://a.test:444/x"));
        assert!(!same("https://a.test/x", "https://b.a.test/x"));
    }
}
