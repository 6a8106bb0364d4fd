//! What kubectl and the client verbs connect with, and a node of somebody else's server.
//!
//! What a file holds never gets into an error: it may be a key.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{Cluster, Kubeconfig};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::authority::Pair;
use super::connect::{Bearer, Way, authority_of};
use super::{LiveKey, SERVER_NAME, TlsError, files};

/// Where the server of a URL without a port listens: it is a URL like others.
const PORT: u16 = 443;

/// Writes the administrator's kubeconfig, for the owner's eyes only.
///
/// # Errors
/// Anything the file system says.
pub fn write(path: &Path, server: &str, authority: &str, admin: &Pair) -> Result<(), TlsError> {
    let server = Server { url: server.to_owned(), tls_name: Some(SERVER_NAME.to_owned()), authority: authority.to_owned() };
    server.write(path, "podbay-admin", admin)
}

/// A server as a kubeconfig has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub url: String,
    /// What its certificate names, where that is not the URL's host.
    pub tls_name: Option<String>,
    /// PEM, of one certificate or several.
    pub authority: String,
}

/// As whom a server is asked.
#[derive(Clone)]
pub enum User {
    Certificate(Pair),
    Bearer(Bearer),
}

impl Server {
    /// Writes a kubeconfig for one user of it, for the owner's eyes only. JSON is YAML, so every client reads it.
    ///
    /// # Errors
    /// Anything the file system says.
    pub fn write(&self, path: &Path, user: &str, pair: &Pair) -> Result<(), TlsError> {
        let mut cluster = json!({"server": self.url, "certificate-authority-data": STANDARD.encode(&self.authority)});
        if let Some(name) = &self.tls_name {
            cluster["tls-server-name"] = name.as_str().into();
        }
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "podbay",
            "contexts": [{"name": "podbay", "context": {"cluster": "podbay", "user": user}}],
            "clusters": [{"name": "podbay", "cluster": cluster}],
            "users": [{"name": user, "user": {
                "client-certificate-data": STANDARD.encode(&pair.certificate),
                "client-key-data": STANDARD.encode(&pair.key),
            }}],
        });
        let text = serde_json::to_string_pretty(&config).unwrap_or_default();
        if files::read(path)?.is_some_and(|stored| stored == text) {
            return Ok(());
        }
        files::write_private(path, text.as_bytes())
    }

    /// Its CAs.
    ///
    /// # Errors
    /// Text that holds no certificate.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.authority)
    }

    /// The way there. `key`: what is shown, of who has a certificate.
    ///
    /// # Errors
    /// A URL or a CA that is none.
    pub fn way(&self, key: std::sync::Arc<LiveKey>, bearer: Option<Bearer>) -> Result<Way, TlsError> {
        let address = authority_of(&self.url, PORT)?;
        let host = address.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Way::new(address, self.tls_name.as_ref().unwrap_or(&host), &self.authorities()?, key, bearer)
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// There is none, or one that is broken.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |cause: String| TlsError::NotACertificate { subject: "the CA".to_owned(), cause };
    let all = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("it holds none".to_owned())) } else { Ok(all) }
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, or is no kubeconfig.
pub fn read(file: &Path) -> Result<Kubeconfig, TlsError> {
    // Read here: the library's error hides whether the file is missing or forbidden.
    let text =
        std::fs::read_to_string(file).map_err(|source| TlsError::File { attempt: "read kubeconfig", path: file.to_owned(), source })?;
    // By the reader of manifests: the library's own would be another in the program. Its error quotes what it read.
    let parsed: Result<Kubeconfig, serde_yaml::Error> = serde_yaml::from_str(&text);
    parsed.map(|config| of_file(config, file)).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(" (line {}, column {})", at.line(), at.column()));
        TlsError::NotAKubeconfig { path: file.to_owned(), place }
    })
}

/// As the file means it: paths are from where it lies, and no context is none.
fn of_file(mut config: Kubeconfig, file: &Path) -> Kubeconfig {
    let directory = file.parent().unwrap_or_else(|| Path::new(""));
    let place = |path: &mut Option<String>| {
        if let Some(path) = path.as_mut().filter(|path| !path.is_empty()) {
            *path = directory.join(&*path).display().to_string();
        }
    };
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        place(&mut cluster.certificate_authority);
    }
    for user in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        for path in [&mut user.client_certificate, &mut user.client_key, &mut user.token_file] {
            place(path);
        }
    }
    config.current_context = config.current_context.filter(|name| !name.is_empty());
    config
}

/// The server and the user of a file's current context, for who runs unattended: nothing but certificates and tokens.
///
/// # Errors
/// A file that cannot be read, or says something that is not done here.
pub fn access(file: &Path) -> Result<(Server, User), TlsError> {
    let config = read(file)?;
    let wrong = |message: String| TlsError::Kubeconfig { path: file.to_owned(), message };
    let current = config.current_context.ok_or_else(|| wrong("it has no current-context".to_owned()))?;
    let context = config.contexts.into_iter().find(|named| named.name == current).and_then(|named| named.context);
    let context = context.ok_or_else(|| wrong(format!("there is no context {current:?}")))?;
    let cluster = config.clusters.into_iter().find(|named| named.name == context.cluster).and_then(|named| named.cluster);
    let cluster = cluster.ok_or_else(|| wrong(format!("there is no cluster {:?}", context.cluster)))?;
    let named = context.user.unwrap_or_default();
    let user = config.auth_infos.into_iter().find(|known| known.name == named).and_then(|known| known.auth_info);
    // As JSON: kube's type lets nobody read the token, and serialising it does.
    let user = user.and_then(|user| serde_json::to_value(user).ok()).ok_or_else(|| wrong(format!("there is no user {named:?}")))?;
    Ok((server_of(cluster, &wrong)?, user_of(&user, &named, &wrong)?))
}

fn server_of(cluster: Cluster, wrong: &dyn Fn(String) -> TlsError) -> Result<Server, TlsError> {
    let url = cluster.server.unwrap_or_default();
    if authority_of(&url, PORT).is_err() {
        return Err(wrong("what it has as server is not a server's address like https://10.0.0.1:6443 and no more".to_owned()));
    }
    if cluster.insecure_skip_tls_verify == Some(true) {
        return Err(wrong(
            "insecure-skip-tls-verify: whoever answers would get this node's Secrets; give certificate-authority".to_owned(),
        ));
    }
    if cluster.proxy_url.is_some_and(|proxy| !proxy.is_empty()) {
        return Err(wrong("proxy-url: the agent goes through no proxy".to_owned()));
    }
    let authority =
        content("certificate-authority", cluster.certificate_authority_data.as_deref(), cluster.certificate_authority.as_deref());
    let authority = authority.map_err(wrong)?.ok_or_else(|| wrong("it has no certificate-authority for its server".to_owned()))?;
    certificates(&authority).map_err(|error| wrong(format!("certificate-authority: {error}")))?;
    Ok(Server { url, tls_name: cluster.tls_server_name.filter(|name| !name.is_empty()), authority })
}

fn user_of(user: &Value, name: &str, wrong: &dyn Fn(String) -> TlsError) -> Result<User, TlsError> {
    let text = |field: &str| user[field].as_str().filter(|text| !text.is_empty());
    let refused = ["exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"];
    if let Some(field) = refused.into_iter().find(|field| !user[*field].is_null()) {
        return Err(wrong(format!("user {name:?}: {field} is not for a node: it has a client certificate, or a token")));
    }
    let part = |field: &str| content(field, text(&format!("{field}-data")), text(field)).map_err(wrong);
    match (part("client-certificate")?, part("client-key")?) {
        (Some(certificate), Some(key)) => Ok(User::Certificate(Pair { certificate, key })),
        (None, None) => match (text("token"), text("tokenFile")) {
            // As client-go: a file that is written anew is newer than what stands beside it.
            (_, Some(file)) => Ok(User::Bearer(Bearer::File(PathBuf::from(file)))),
            (Some(token), None) => Ok(User::Bearer(Bearer::Token(token.to_owned()))),
            (None, None) => Err(wrong(format!("user {name:?} has neither a client certificate nor a token"))),
        },
        _ => Err(wrong(format!("user {name:?}: client-certificate and client-key are needed together"))),
    }
}

/// What stands in a field, else in the file that another names. An error leaves the name out, as all else: it may be a key, in
/// the wrong field.
fn content(field: &str, data: Option<&str>, path: Option<&str>) -> Result<Option<String>, String> {
    match (data.filter(|data| !data.is_empty()), path.filter(|path| !path.is_empty())) {
        (Some(data), _) => {
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(Some).ok_or_else(|| format!("{field}-data is not base64 of PEM"))
        }
        (None, Some(path)) => std::fs::read_to_string(path).map(Some).map_err(|error| format!("read the file of {field}: {error}")),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, text: &str) -> PathBuf {
        let file = dir.join("config");
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn what_is_no_kubeconfig_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["hunter2", "users: hunter2", "users: [{name: a, user: {exec: hunter2}}]", "a: [hunter2\n"] {
            let error = read(&file(dir.path(), text)).unwrap_err().to_string();
            assert!(error.contains("config is no kubeconfig") && !error.contains("hunter2"), "{error}");
        }
    }

    const CA: &str = "certificate-authority: ca.pem";

    /// What is read of a file with these words about its cluster and its user.
    fn said(cluster: &str, user: &str) -> Result<(Server, User), String> {
        let dir = tempfile::tempdir().unwrap();
        let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.cert.pem()).unwrap();
        for name in ["cert.pem", "key.pem"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let text = format!(
            "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{{cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n"
        );
        access(&file(dir.path(), &text)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_knows_its_server_and_itself() {
        let (server, user) =
            said(&format!("server: \"https://10.0.0.1\", {CA}, tls-server-name: api"), "client-certificate: cert.pem, client-key: key.pem")
                .unwrap();
        assert_eq!((server.url.as_str(), server.tls_name.as_deref()), ("https://10.0.0.1", Some("api")));
        assert_eq!(server.way(LiveKey::empty(), None).unwrap().address().as_str(), "10.0.0.1:443");
        assert!(matches!(user, User::Certificate(pair) if pair.certificate == "cert.pem" && pair.key == "key.pem"));
        let of = |user| said(&format!("server: \"https://[::1]:6443/\", {CA}"), user).unwrap().1;
        assert!(matches!(of("token: abc, tokenFile: /t"), User::Bearer(Bearer::File(path)) if path == Path::new("/t")));
        assert!(matches!(of("token: abc"), User::Bearer(Bearer::Token(token)) if token == "abc"));
        assert!(matches!(of("tokenFile: /t"), User::Bearer(Bearer::File(path)) if path == Path::new("/t")));
    }

    #[test]
    fn what_a_node_does_not_do_is_refused() {
        let good = format!("server: \"https://10.0.0.1:6443\", {CA}");
        let rows = [
            ("server: \"https://10.0.0.1:6443\"", "token: abc", "it has no certificate-authority"),
            ("server: \"http://10.0.0.1:6443\", certificate-authority: ca.pem", "token: abc", "is not a server's address"),
            ("server: \"https://10.0.0.1/k8s\", certificate-authority: ca.pem", "token: abc", "is not a server's address"),
            ("server: \"https://10.0.0.1\", certificate-authority: none.pem", "token: abc", "read the file of certificate-authority"),
            (
                "server: \"https://10.0.0.1\", certificate-authority: cert.pem",
                "token: abc",
                "certificate-authority: the CA is not a certificate",
            ),
            ("server: \"https://10.0.0.1\", insecure-skip-tls-verify: true", "token: abc", "insecure-skip-tls-verify"),
            (&format!("{good}, proxy-url: \"http://p\""), "token: abc", "goes through no proxy"),
            (&good, "exec: {command: c, apiVersion: v1}", "exec is not for a node"),
            (&good, "username: hunter2", "username is not for a node"),
            (&good, "token: abc, as: jane", "as is not for a node"),
            (&good, "client-key: key.pem", "needed together"),
            (&good, "client-key-data: \"hunter2!\"", "client-key-data is not base64"),
            (
                &good,
                "client-certificate: cert.pem, client-key: \"-----BEGIN EC PRIVATE KEY-----\\nhunter2\"",
                "read the file of client-key",
            ),
            (&good, "client-certificate: hunter2", "read the file of client-certificate"),
            ("server: \"https://user:hunter2@10.0.0.1\", certificate-authority: ca.pem", "token: abc", "is not a server's address"),
            ("server: \"hunter2 hunter2\", certificate-authority: ca.pem", "token: abc", "is not a server's address"),
            (&good, "", "neither a client certificate nor a token"),
        ];
        for (cluster, user, why) in rows {
            let error = said(cluster, user).map(drop).unwrap_err();
            assert!(error.contains(why) && !error.contains("hunter2"), "{cluster} {user}: {error}");
        }
    }
}
