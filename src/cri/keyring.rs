//! Credentials for registries as docker's `config.json` has them, found by the kubelet's rules. PURE.
//!
//! A place is `host[:port][/path]`; a `*` in the host stands for letters within one label, the path is a
//! prefix. Of several that match, the longest (the last in the order of letters) comes first, and all of
//! them are tried.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::RegistryAuth;

/// Padded or not, as the kubelet reads it.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
/// Where docker keeps the credentials of its own registry.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// What is wrong with a file or Secret; never what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("it is not a docker config.json: {0}")]
    Json(String),
    #[error("its `auth` of {0} is not base64 of USER:PASSWORD")]
    Auth(String),
}

/// Credentials by place.
#[derive(Clone, Default)]
pub struct Keyring {
    places: BTreeMap<String, Vec<RegistryAuth>>,
    /// Helper programs by registry.
    pub helpers: BTreeMap<String, String>,
    /// The helper for all other registries.
    pub store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ConfigJson {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, Option<String>>>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    #[serde(deserialize_with = "or_empty")]
    auth: String,
    #[serde(deserialize_with = "or_empty")]
    username: String,
    #[serde(deserialize_with = "or_empty")]
    password: String,
    #[serde(deserialize_with = "or_empty")]
    identitytoken: String,
    #[serde(deserialize_with = "or_empty")]
    registrytoken: String,
}

/// `null` is nothing, as in Go.
fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::<String>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Keyring {
    /// Takes in a `config.json` (`kubernetes.io/dockerconfigjson`).
    ///
    /// # Errors
    /// When it cannot be read. What was read of it before stays.
    pub fn add_config(&mut self, json: &[u8]) -> Result<(), KeyringError> {
        let config: ConfigJson = parse(json)?;
        let helpers = config.cred_helpers.unwrap_or_default();
        self.helpers.extend(helpers.into_iter().filter_map(|(registry, helper)| Some((registry, helper?))));
        self.store = self.store.take().or(config.creds_store.filter(|name| !name.is_empty()));
        self.add(config.auths.unwrap_or_default())
    }

    /// Takes in the older form without `auths` around it (`kubernetes.io/dockercfg`).
    ///
    /// # Errors
    /// As [`Keyring::add_config`].
    pub fn add_legacy(&mut self, json: &[u8]) -> Result<(), KeyringError> {
        self.add(parse(json)?)
    }

    fn add(&mut self, entries: BTreeMap<String, Option<Entry>>) -> Result<(), KeyringError> {
        let mut outcome = Ok(());
        for (place, entry) in entries {
            let place = key(&place);
            match credentials(&entry.unwrap_or_default()) {
                // An entry without any is docker's note that a helper has them.
                Some(found) if found == RegistryAuth::default() => {}
                Some(found) => self.places.entry(place).or_default().push(found),
                None => outcome = Err(KeyringError::Auth(place)),
            }
        }
        outcome
    }

    /// The credentials for a repository (`docker.io/library/nginx`), the closest first.
    pub fn find(&self, repository: &str) -> Vec<RegistryAuth> {
        let found: Vec<RegistryAuth> =
            self.places.iter().rev().filter(|(place, _)| matches(place, repository)).flat_map(|(_, all)| all.iter().cloned()).collect();
        if found.is_empty() && repository.starts_with("docker.io/") {
            return self.places.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, KeyringError> {
    // The message of the parser may quote a value: only the place is told.
    serde_json::from_slice(json).map_err(|cause| KeyringError::Json(format!("line {}, column {}", cause.line(), cause.column())))
}

/// A scheme and the API's version mean nothing.
fn key(place: &str) -> String {
    let place = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let (host, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let path = path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).map_or(path.to_owned(), |rest| format!("/{rest}"));
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

fn matches(place: &str, repository: &str) -> bool {
    let (want, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    let (got, image_path) = repository.find('/').map_or((repository, ""), |at| repository.split_at(at));
    let (want, port) = want.rsplit_once(':').unwrap_or((want, ""));
    let (got, image_port) = got.rsplit_once(':').unwrap_or((got, ""));
    let (want, got): (Vec<&str>, Vec<&str>) = (want.split('.').collect(), got.split('.').collect());
    port == image_port
        && image_path.starts_with(path)
        && want.len() == got.len()
        && want.iter().zip(&got).all(|(want, got)| glob(want, got))
}

/// `*` stands for any letters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

/// `None` when its `auth` cannot be read.
fn credentials(entry: &Entry) -> Option<RegistryAuth> {
    let mut found = RegistryAuth {
        username: entry.username.clone(),
        password: entry.password.clone(),
        token: entry.registrytoken.clone(),
        identity_token: entry.identitytoken.clone(),
    };
    if !entry.auth.is_empty() {
        // Go's decoder passes over line ends, and some tools wrap.
        let auth: String = entry.auth.trim().chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
        let text = String::from_utf8(BASE64.decode(auth).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        (found.username, found.password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    Some(found)
}

/// The repository of an image's name as in a pod's spec: `nginx:1` is `docker.io/library/nginx`.
pub fn repository_of(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once('/') {
        Some((before, last)) => format!("{before}/{}", last.split(':').next().unwrap_or(last)),
        None => name.split(':').next().unwrap_or(name).to_owned(),
    };
    let Some((first, rest)) = name.split_once('/') else { return format!("docker.io/library/{name}") };
    if !(first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return format!("docker.io/{name}");
    }
    match (first, rest.contains('/')) {
        ("docker.io" | "index.docker.io", false) => format!("docker.io/library/{rest}"),
        ("index.docker.io", true) => format!("docker.io/{rest}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keyring(config: &serde_json::Value) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add_config(config.to_string().as_bytes()).expect("well-formed");
        keyring
    }

    #[test]
    fn names_are_completed() {
        for (image, want) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.27", "docker.io/library/nginx"),
            ("docker.io/nginx:1.27", "docker.io/library/nginx"),
            ("index.docker.io/me/app", "docker.io/me/app"),
            ("me/app:1", "docker.io/me/app"),
            ("localhost:5000/app:1", "localhost:5000/app"),
            ("registry.example.com/a/b@sha256:00", "registry.example.com/a/b"),
        ] {
            assert_eq!(repository_of(image), want, "{image}");
        }
    }

    #[test]
    fn places_match_as_for_the_kubelet() {
        for (place, repository, expected) in [
            ("registry.test", "registry.test/a/b", true),
            ("https://registry.test/v1/", "registry.test/a/b", true),
            ("registry.test/v2/a", "registry.test/a/b", true),
            ("registry.test/a", "registry.test/a/b", true),
            ("registry.test/a", "registry.test/ab", true),
            ("registry.test/b", "registry.test/a/b", false),
            ("registry.test", "registry.test:5000/a", false),
            ("registry.test:5000", "registry.test:5000/a", true),
            ("*.test", "registry.test/a", true),
            ("*.test", "a.registry.test/a", false),
            ("*.*.test", "a.registry.test/a", true),
            ("reg*y.te*t", "registry.test/a", true),
            ("a*a", "a", false),
            ("*.test:5000", "registry.test/a", false),
            ("registry.test.evil", "registry.test/a", false),
        ] {
            assert_eq!(matches(&key(place), repository), expected, "{place} for {repository}");
        }
    }

    #[test]
    fn the_closest_comes_first_and_all_are_given() {
        let keyring = keyring(&json!({"auths": {
            "registry.test": {"username": "all", "password": "p"},
            "registry.test/team": {"auth": "dGVhbTpzM2M6cmV0"},
            "*.cloud.test": {"username": "wild", "password": "p"},
            "a.cloud.test": {"username": "exact", "password": "p"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "token.test": {"registrytoken": "t"},
            "identity.test": {"auth": "dTo=", "identitytoken": "i"},
            "helped.test": {}
        }}));
        let users = |repository: &str| -> Vec<String> { keyring.find(repository).into_iter().map(|auth| auth.username).collect() };
        assert_eq!(users("registry.test/team/x"), ["team", "all"]);
        assert_eq!(keyring.find("registry.test/team/x")[0].password, "s3c:ret");
        assert_eq!(users("registry.test/other"), ["all"]);
        assert_eq!(users("a.cloud.test/x"), ["exact", "wild"]);
        assert_eq!(users("docker.io/library/nginx"), ["hub"]);
        assert_eq!(keyring.find("token.test/x")[0].token, "t");
        assert_eq!(keyring.find("identity.test/x")[0].identity_token, "i");
        assert_eq!(users("helped.test/x"), Vec::<String>::new());
        assert_eq!(users("elsewhere.test/x"), Vec::<String>::new());
    }

    #[test]
    fn null_is_nothing_and_base64_may_be_wrapped() {
        let keyring = keyring(&json!({"credHelpers": null, "credsStore": null, "auths": {
            "null.test": null,
            "wrapped.test": {"auth": "dGVh\r\nbTpz\nM2M6cmV0\r\n", "username": null, "identitytoken": null},
        }}));
        assert!(keyring.find("null.test/x").is_empty());
        assert_eq!(keyring.find("wrapped.test/x")[0].password, "s3c:ret");
    }

    #[test]
    fn hubs_default_is_taken_only_when_nothing_else_fits() {
        let keyring = keyring(&json!({"auths": {
            "docker.io/me": {"username": "mine", "password": "p"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        }}));
        assert_eq!(keyring.find("docker.io/me/app")[0].username, "mine");
        assert_eq!(keyring.find("docker.io/other/app")[0].username, "hub");
    }

    #[test]
    fn what_is_broken_is_told_without_its_content() {
        let mut keyring = Keyring::default();
        let broken = br#"{"auths": {"a.test": {"password": 12345}}}"#;
        let error = keyring.add_config(broken).expect_err("a number").to_string();
        assert!(error.contains("line 1") && !error.contains("12345"), "{error}");
        let error = keyring.add_legacy(br#"{"a.test": {"auth": "c2VjcmV0"}, "b.test": {"username": "u", "password": "p"}}"#);
        assert_eq!(error, Err(KeyringError::Auth("a.test".into())));
        assert_eq!(keyring.find("b.test/x")[0].username, "u");
        assert!(keyring.find("a.test/x").is_empty());
    }
}
