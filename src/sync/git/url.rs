//! Which places a git URL may name, and what may be printed of it. PURE.

use crate::model::GitSource;

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory of this host.
    Local(String),
    Https,
    /// To this host only: tests and mirrors.
    Http,
    Ssh,
}

impl Place {
    /// # Errors
    /// A sentence: the transport is not served, or its credentials are incomplete.
    pub fn parse(spec: &GitSource) -> Result<Self, String> {
        let url = spec.url.as_str();
        let place = match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Place::Local(path.to_owned()),
            Some(("https", _)) => Place::Https,
            Some(("http", _)) if is_loopback(url) => Place::Http,
            Some(("http", _)) => return Err(format!("{}: plain http is served on this host's loopback address only", printable(url))),
            Some(("ssh", _)) => Place::Ssh,
            Some((scheme, _)) => return Err(format!("git over `{}` is not served: use https, ssh or a path", scheme.escape_debug())),
            None if url.starts_with('/') => Place::Local(url.to_owned()),
            // `git@host:path`
            None if url.split_once(':').is_some_and(|(host, path)| !host.contains('/') && !path.is_empty() && !path.starts_with(':')) => {
                Place::Ssh
            }
            None => return Err(format!("`{}` is neither an absolute path nor a URL", printable(url))),
        };
        if has_password(url) {
            return Err(format!("{}: put the password into a file and name it in tokenFile", printable(url)));
        }
        if spec.token_file.is_some() && place != Place::Https {
            return Err(format!("{}: tokenFile is for https only", printable(url)));
        }
        if spec.ca_file.is_some() && place != Place::Https {
            return Err(format!("{}: caFile is for https only", printable(url)));
        }
        if place == Place::Ssh && spec.ssh_key_file.is_none() {
            return Err(format!("{}: ssh needs sshKeyFile", printable(url)));
        }
        if place == Place::Ssh && spec.known_hosts_file.is_none() {
            return Err(format!("{}: ssh needs knownHostsFile: an unknown host is never trusted", printable(url)));
        }
        Ok(place)
    }
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn has_password(url: &str) -> bool {
    url.contains("://") && authority(url).rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn is_loopback(url: &str) -> bool {
    let host = authority(url).rsplit_once('@').map_or_else(|| authority(url), |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, port)| if port.contains(']') { authority(url) } else { host });
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Scheme, host and port: who is spoken to.
pub(super) fn origin(url: &str) -> (String, String, u16) {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_lowercase();
    let usual = if scheme == "https" { 443 } else { 80 };
    let host = authority(url).rsplit_once('@').map_or_else(|| authority(url), |(_, host)| host);
    match host.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (scheme, host.to_lowercase(), port),
        None => (scheme, host.to_lowercase(), usual),
    }
}

/// The user of an ssh URL; `git` where it names none.
pub(super) fn ssh_user(url: &str) -> String {
    let part = if url.contains("://") { authority(url) } else { url.split(':').next().unwrap_or_default() };
    part.rsplit_once('@').map_or("git", |(user, _)| user).to_owned()
}

/// The port of an ssh URL.
pub(super) fn ssh_port(url: &str) -> u16 {
    let host = authority(url);
    if !url.contains("://") {
        return 22;
    }
    host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(22)
}

/// A URL without user, password and query, and without characters that move a cursor.
pub(crate) fn printable(url: &str) -> String {
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    };
    shown.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place, String> {
        let file = || Some("/f".to_owned());
        let ssh = url.starts_with("ssh") || url.contains("git@");
        let spec = GitSource {
            url: url.to_owned(),
            ssh_key_file: if ssh { file() } else { None },
            known_hosts_file: if ssh { file() } else { None },
            ..GitSource::default()
        };
        Place::parse(&spec)
    }

    #[test]
    fn places() {
        assert_eq!(place("/srv/repo"), Ok(Place::Local("/srv/repo".to_owned())));
        assert_eq!(place("file:///srv/repo"), Ok(Place::Local("/srv/repo".to_owned())));
        assert_eq!(place("https://host/x.git"), Ok(Place::Https));
        assert_eq!(place("http://127.0.0.1:80/x"), Ok(Place::Http));
        assert_eq!(place("ssh://git@host:2222/x"), Ok(Place::Ssh));
        assert_eq!(place("git@host:x/y.git"), Ok(Place::Ssh));
        for refused in [
            "http://host/x",
            "http://127.0.0.1.evil.org/x",
            "git://host/x",
            "ext::sh -c id",
            "relative/path",
            "https://user:secret@host/x",
            "file://host/x",
            "",
        ] {
            let error = place(refused).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        let bare = GitSource { url: "ssh://host/x".to_owned(), ssh_key_file: Some("/k".to_owned()), ..GitSource::default() };
        assert!(Place::parse(&bare).unwrap_err().contains("knownHostsFile"));
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(printable("https://user:secret@host/x?token=y#z"), "https://host/x");
        assert_eq!(printable("https://a\u{1b}[2J"), "https://a\\u{1b}[2J");
        assert_eq!(origin("https://me@Host:443/x"), origin("https://host/y"));
        assert_ne!(origin("https://host:444/x"), origin("https://host/x"));
        assert_ne!(origin("http://host:443/x"), origin("https://host/x"));
        assert_eq!(ssh_user("git@host:x"), "git");
        assert_eq!(ssh_user("ssh://me@host/x"), "me");
        assert_eq!(ssh_port("ssh://me@host:2222/x"), 2222);
        assert_eq!(ssh_port("git@host:22/x"), 22);
    }
}
