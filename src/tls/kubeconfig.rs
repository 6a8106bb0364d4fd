//! What kubectl and the client verbs connect with.

use std::path::Path;

use base64::Engine as _;
use serde_json::json;

use super::authority::Pair;
use super::{SERVER_NAME, TlsError, files};

/// Writes a kubeconfig, for the owner's eyes only. JSON is YAML, so it is read by every client.
///
/// # Errors
/// Anything the file system says.
pub fn write(path: &Path, server: &str, authority: &str, admin: &Pair) -> Result<(), TlsError> {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "podbay",
        "contexts": [{"name": "podbay", "context": {"cluster": "podbay", "user": "podbay-admin"}}],
        "clusters": [{"name": "podbay", "cluster": {
            "server": server,
            "tls-server-name": SERVER_NAME,
            "certificate-authority-data": encode(authority),
        }}],
        "users": [{"name": "podbay-admin", "user": {
            "client-certificate-data": encode(&admin.certificate),
            "client-key-data": encode(&admin.key),
        }}],
    });
    let text = serde_json::to_string_pretty(&config).unwrap_or_default();
    if files::read(path)?.is_some_and(|stored| stored == text) {
        return Ok(());
    }
    files::write_private(path, text.as_bytes())
}
