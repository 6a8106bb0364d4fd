//! OpenSSH's `known_hosts`: which key a host may have. PURE.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The lines of a file that say something.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    revoked: bool,
    hosts: String,
    key: Vec<u8>,
}

impl KnownHosts {
    pub fn parse(text: &str) -> Self {
        Self { lines: text.lines().filter_map(line).collect() }
    }

    /// Whether this key is the host's. A revoked key never is; certificate authorities are not served.
    pub fn knows(&self, host: &str, port: u16, key: &[u8]) -> bool {
        let name = if port == 22 { host.to_lowercase() } else { format!("[{}]:{port}", host.to_lowercase()) };
        let mut same = self.lines.iter().filter(|line| line.key == key && is_for(&line.hosts, &name)).peekable();
        same.peek().is_some() && same.all(|line| !line.revoked)
    }
}

fn line(text: &str) -> Option<Line> {
    let mut words = text.split_whitespace();
    let mut first = words.next()?;
    let mut revoked = false;
    if first.starts_with('#') || first == "@cert-authority" {
        return None;
    }
    if first == "@revoked" {
        revoked = true;
        first = words.next()?;
    }
    let (_, key) = (words.next()?, words.next()?);
    Some(Line { revoked, hosts: first.to_owned(), key: STANDARD.decode(key).ok()? })
}

fn is_for(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        return match (STANDARD.decode(salt), STANDARD.decode(hash)) {
            (Ok(salt), Ok(hash)) => hmac(&salt, name.as_bytes()) == hash,
            _ => false,
        };
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(pattern.to_lowercase().as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// `*` and `?`, in time linear in both for each star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&letter) if letter == b'?' || letter == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, seen)) => {
                    p = at + 1;
                    t = seen + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

/// HMAC-SHA1, as OpenSSH hashes names.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        let hash = Sha1::digest(key);
        block[..hash.len()].copy_from_slice(&hash);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha1::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha1::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_as_openssh_finds_them() {
        // `ssh-keygen -H` of example.org and of [example.org]:2222, with a fixed salt.
        let salt = STANDARD.encode(b"01234567890123456789");
        let hashed = |name: &str| format!("|1|{salt}|{}", STANDARD.encode(hmac(b"01234567890123456789", name.as_bytes())));
        let text = format!(
            "# comment\n\ngithub.com,*.git.host ssh-ed25519 {a} who\n[host]:2222 ssh-rsa {b}\n{h} ssh-rsa {b}\n@revoked bad ssh-rsa {a}\nbad ssh-rsa {a}\n!no.wild,*.wild ssh-rsa {a}\n@cert-authority ca ssh-rsa {a}\n",
            a = STANDARD.encode("key-a"),
            b = STANDARD.encode("key-b"),
            h = hashed("example.org"),
        );
        let known = KnownHosts::parse(&text);
        let rows = [
            ("github.com", 22, "key-a", true),
            ("GitHub.com", 22, "key-a", true),
            ("github.com", 22, "key-b", false),
            ("github.com", 2222, "key-a", false),
            ("a.git.host", 22, "key-a", true),
            ("host", 2222, "key-b", true),
            ("host", 22, "key-b", false),
            ("example.org", 22, "key-b", true),
            ("example.net", 22, "key-b", false),
            ("bad", 22, "key-a", false),
            ("x.wild", 22, "key-a", true),
            ("no.wild", 22, "key-a", false),
            ("ca", 22, "key-a", false),
        ];
        for (host, port, key, expected) in rows {
            assert_eq!(known.knows(host, port, key.as_bytes()), expected, "{host}:{port} {key}");
        }
    }

    /// RFC 2202, test cases 1 and 6.
    #[test]
    fn hmac_is_the_standard_one() {
        assert_eq!(hex::encode(hmac(&[0x0b; 20], b"Hi There")), "b617318655057264e28bc0b6fb378c8ef146be00");
        let long = hmac(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex::encode(long), "aa4ae5e15272d00e95705637ce8a3b55ed402112");
    }
}
