//! Who we are to a registry: what a pod brought, then what this host's docker `config.json` says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::error::ImageError;
use super::registry::Endpoint;
use super::{Options, blocking};
use crate::cri::RegistryAuth;
use crate::cri::keyring::Keyring;

const FILE_MAX: u64 = 1 << 20;
const HELPER_PATIENCE: Duration = Duration::from_secs(30);

/// What is tried at an endpoint, in order. Nothing: anonymous. A mirror never gets what a pod brought
/// for the registry it stands for.
pub(super) async fn of(options: &Options, endpoint: &Endpoint, given: Option<&RegistryAuth>) -> Vec<RegistryAuth> {
    let mut found: Vec<RegistryAuth> = given.filter(|_| endpoint.mirror_of.is_none()).cloned().into_iter().collect();
    if let Some(path) = &options.auth_file {
        match of_file(path, endpoint).await {
            Ok(more) => found.extend(more),
            Err(cause) => tracing::warn!(file = %path.display(), %cause, "cannot read registry credentials"),
        }
    }
    found.retain(|auth| *auth != RegistryAuth::default());
    found
}

async fn of_file(path: &Path, endpoint: &Endpoint) -> Result<Vec<RegistryAuth>, ImageError> {
    let path = path.to_owned();
    let keyring = blocking(move || {
        use std::io::Read as _;
        let fail = || ImageError::io(format!("read {}", path.display()));
        let mut bytes = Vec::new();
        std::fs::File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes)).map_err(fail())?;
        let mut keyring = Keyring::default();
        if let Err(cause) = keyring.add_config(&bytes) {
            tracing::warn!(file = %path.display(), %cause, "registry credentials");
        }
        Ok(keyring)
    });
    let keyring = keyring.await?;
    let mut found = keyring.find(&format!("{}/{}", endpoint.host, endpoint.repository));
    // Docker keeps its own registry under an old name.
    let server = if endpoint.host == "docker.io" { "https://index.docker.io/v1/" } else { &endpoint.host };
    let helper = keyring.helpers.get(server).or_else(|| keyring.helpers.get(&endpoint.host)).or(keyring.store.as_ref());
    if let Some(helper) = helper {
        match ask_helper(helper, server).await {
            Ok(answer) => found.extend(answer),
            Err(cause) => tracing::debug!(helper, registry = server, cause, "a credential helper knows nothing"),
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// `docker-credential-NAME get`, the protocol of docker's credential helpers.
async fn ask_helper(name: &str, server: &str) -> Result<Option<RegistryAuth>, String> {
    if name.contains('/') {
        return Err("its name is a path".to_owned());
    }
    let mut child = tokio::process::Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|cause| cause.to_string())?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(server.as_bytes()).await?;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(FILE_MAX).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, answer))
    };
    let (status, answer) =
        tokio::time::timeout(HELPER_PATIENCE, talk).await.map_err(|_| "it does not end".to_owned())?.map_err(|cause| cause.to_string())?;
    if !status.success() {
        return Err(status.to_string());
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer).map_err(|_| "its answer is not readable".to_owned())?;
    let token = answer.username == "<token>";
    Ok(Some(RegistryAuth {
        username: if token { String::new() } else { answer.username },
        password: if token { String::new() } else { answer.secret.clone() },
        identity_token: if token { answer.secret } else { String::new() },
        ..RegistryAuth::default()
    }))
}
