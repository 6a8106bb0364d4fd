//! Registry credentials from imagePullSecrets. PURE.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use crate::cri::RegistryAuth;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default, Clone)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, alias = "identitytoken", alias = "registrytoken")]
    token: String,
}

/// The credentials for an image: those with the longest matching registry path, secrets in order.
pub fn find<'a>(image: &str, secrets: impl Iterator<Item = &'a Secret>) -> Option<RegistryAuth> {
    let full = full_name(image);
    let mut best: Option<(usize, Entry)> = None;
    for (place, entry) in secrets.flat_map(entries) {
        let place = place_of(&place);
        if matches(&place, &full) && best.as_ref().is_none_or(|(length, _)| place.len() > *length) {
            best = Some((place.len(), entry));
        }
    }
    best.map(|(_, entry)| credentials(&entry))
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let read = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    if let Some(json) = read(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(&json.0).unwrap_or_default().auths.into_iter().collect();
    }
    let old = read(".dockercfg").and_then(|json| serde_json::from_slice::<BTreeMap<String, Entry>>(&json.0).ok());
    old.unwrap_or_default().into_iter().collect()
}

/// `https://index.docker.io/v1/` is the hub; schemes and API versions are left out.
fn place_of(text: &str) -> String {
    let text = text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let text = text.strip_suffix("/v1").or_else(|| text.strip_suffix("/v2")).unwrap_or(text);
    match text {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// `nginx:1` is `docker.io/library/nginx`.
fn full_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once('/') {
        Some((before, last)) => format!("{before}/{}", last.split(':').next().unwrap_or(last)),
        None => name.split(':').next().unwrap_or(name).to_owned(),
    };
    let first = name.split('/').next().unwrap_or_default();
    match name.contains('/') {
        true if first.contains(['.', ':']) || first == "localhost" => name,
        true => format!("docker.io/{name}"),
        false => format!("docker.io/library/{name}"),
    }
}

/// Host for host (a leading `*.` stands for one label), path as a prefix of whole parts.
fn matches(place: &str, image: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (image_host, image_path) = image.split_once('/').unwrap_or((image, ""));
    let labels = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (want, got) = (labels(host), labels(image_host));
    let hosts = want.len() == got.len() && want.iter().zip(&got).all(|(want, got)| want == "*" || want == got);
    hosts && (path.is_empty() || image_path == path || image_path.starts_with(&format!("{path}/")))
}

fn credentials(entry: &Entry) -> RegistryAuth {
    let decoded = base64::engine::general_purpose::STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) if entry.username.is_empty() => (user.to_owned(), password.to_owned()),
        _ => (entry.username.clone(), entry.password.clone()),
    };
    RegistryAuth { username, password, token: entry.token.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::json;

    fn secret(key: &str, value: serde_json::Value) -> Secret {
        Secret { data: Some([(key.to_owned(), ByteString(value.to_string().into_bytes()))].into()), ..Secret::default() }
    }

    #[test]
    fn names_are_completed() {
        for (image, want) in [
            ("nginx", "docker.io/library/nginx"),
            ("nginx:1.27", "docker.io/library/nginx"),
            ("me/app:1", "docker.io/me/app"),
            ("localhost:5000/app:1", "localhost:5000/app"),
            ("registry.example.com/a/b@sha256:00", "registry.example.com/a/b"),
        ] {
            assert_eq!(full_name(image), want, "{image}");
        }
    }

    #[test]
    fn the_closest_entry_wins() {
        let auths = json!({"auths": {
            "registry.example.com": {"username": "all", "password": "p"},
            "registry.example.com/team": {"auth": "dGVhbTpzM2NyZXQ="},
            "*.cloud.test": {"username": "wild", "password": "p"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "token.test": {"identitytoken": "t"}
        }});
        let secrets = [secret(".dockerconfigjson", auths)];
        let of = |image: &str| find(image, secrets.iter());
        let user = |image: &str| of(image).map(|auth| auth.username);
        assert_eq!(user("registry.example.com/other/x:1").as_deref(), Some("all"));
        assert_eq!(user("registry.example.com/team/x:1").as_deref(), Some("team"));
        assert_eq!(of("registry.example.com/team/x").unwrap().password, "s3cret");
        assert_eq!(user("registry.example.com/teams/x").as_deref(), Some("all"));
        assert_eq!(user("a.cloud.test/x").as_deref(), Some("wild"));
        assert_eq!(user("a.b.cloud.test/x"), None);
        assert_eq!(user("nginx").as_deref(), Some("hub"));
        assert_eq!(of("token.test/x").unwrap().token, "t");
        assert_eq!(user("elsewhere.test/x"), None);
    }

    #[test]
    fn the_old_form_and_broken_secrets() {
        let old = secret(".dockercfg", json!({"registry.example.com": {"username": "u", "password": "p"}}));
        let broken = Secret { data: Some([(".dockerconfigjson".to_owned(), ByteString(b"{".to_vec()))].into()), ..Secret::default() };
        assert_eq!(find("registry.example.com/x", [&broken, &old].into_iter()).unwrap().username, "u");
    }
}
