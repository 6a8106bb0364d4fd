//! From a registry into the store.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth as Credentials;
use oci_client::{Reference as Remote, RegistryOperation};

use super::archive::DOCUMENT_MAX;
use super::disk::Disk;
use super::error::ImageError;
use super::import::{self, Finished, Manifest};
use super::manifest;
use super::reference::{Digest, Reference};
use super::{ImageStore, Options, blocking, stream};
use crate::cri::RegistryAuth;

const ACCEPTED: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;

/// One pull: a client of its own, so that no credentials are kept or mixed up.
struct Pull<'a> {
    store: &'a ImageStore,
    client: Client,
    credentials: Credentials,
    remote: Remote,
    name: String,
}

pub(super) async fn pull(store: &ImageStore, reference: &Reference, auth: Option<&RegistryAuth>) -> Result<Digest, ImageError> {
    let client = client(&store.options).await?;
    let credentials = credentials(&store.options, reference, auth).await;
    let pull = Pull { store, client, credentials, remote: reference.inner.clone(), name: reference.canonical() };
    let disk = store.disk.clone();
    let busy = blocking(move || disk.busy()).await?;
    let outcome = pull.run(reference).await;
    drop(busy);
    outcome
}

async fn client(options: &Options) -> Result<Client, ImageError> {
    // Fails when somebody installed one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut extra_root_certificates = Vec::new();
    for path in &options.ca_files {
        let data = tokio::fs::read(path).await.map_err(ImageError::io(format!("read {}", path.display())))?;
        extra_root_certificates.push(Certificate { encoding: CertificateEncoding::Pem, data });
    }
    let config = ClientConfig {
        protocol: ClientProtocol::HttpsExcept(options.insecure_registries.clone()),
        extra_root_certificates,
        connect_timeout: Some(CONNECT_LIMIT),
        read_timeout: Some(SILENCE_LIMIT),
        user_agent: concat!("podbay/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|cause| ImageError::Registry(cause.to_string()))
}

async fn credentials(options: &Options, reference: &Reference, auth: Option<&RegistryAuth>) -> Credentials {
    if let Some(auth) = auth {
        if !auth.token.is_empty() {
            return Credentials::Bearer(auth.token.clone());
        }
        if !auth.username.is_empty() {
            return Credentials::Basic(auth.username.clone(), auth.password.clone());
        }
    }
    if let Some(path) = options.auth_file.clone() {
        // Docker keeps its own registry under an old name.
        let server = if reference.registry() == "docker.io" { "https://index.docker.io/v1/" } else { reference.registry() }.to_owned();
        // May run a credential helper.
        let found = tokio::task::spawn_blocking(move || from_file(&path, &server)).await;
        if let Ok(Some(credentials)) = found {
            return credentials;
        }
    }
    Credentials::Anonymous
}

/// Without an entry for the registry: anonymous, as docker does it.
fn from_file(path: &Path, server: &str) -> Option<Credentials> {
    let file = std::fs::File::open(path)
        .inspect_err(|cause| tracing::warn!(file = %path.display(), %cause, "cannot read registry credentials"))
        .ok()?;
    match docker_credential::get_credential_from_reader(std::io::BufReader::new(file), server) {
        Ok(docker_credential::DockerCredential::UsernamePassword(username, password)) => Some(Credentials::Basic(username, password)),
        Ok(docker_credential::DockerCredential::IdentityToken(_)) => {
            tracing::warn!(registry = server, "identity tokens of a docker config.json are not supported");
            None
        }
        Err(cause) => {
            tracing::debug!(registry = server, %cause, "no credentials for this registry");
            None
        }
    }
}

impl Pull<'_> {
    async fn run(&self, reference: &Reference) -> Result<Digest, ImageError> {
        self.client.auth(&self.remote, &self.credentials, RegistryOperation::Pull).await.map_err(|error| self.class(error))?;
        let (top, manifest) = self.manifest().await?;
        let config_bytes = self.config(&manifest).await?;
        let options = &self.store.options;
        let (config, layers) = import::read_config(&config_bytes, &self.name, &options.platform)?;
        manifest.matches(&layers, &self.name)?;
        let fetches = layers.iter().cloned().zip(manifest.layers.clone()).map(|(layer, (blob, size))| self.layer(layer, blob, size));
        futures::stream::iter(fetches).buffer_unordered(options.parallel.max(1)).try_collect::<Vec<()>>().await?;
        let finished = Finished {
            config: config_bytes,
            layers,
            tag: reference.digest().is_none().then(|| reference.canonical()),
            digest: Some(format!("{}@{top}", reference.repository())),
        };
        let user = import::user_of(&config).to_owned();
        let disk = self.store.disk.clone();
        blocking(move || import::finish(&disk, &finished, &user)).await
    }

    /// The digest the name led to, and the manifest for this host behind it.
    async fn manifest(&self) -> Result<(Digest, Manifest), ImageError> {
        let mut remote = self.remote.clone();
        let mut top = None;
        for _ in 0..3 {
            let (bytes, _) =
                self.client.pull_manifest_raw(&remote, &self.credentials, ACCEPTED).await.map_err(|error| self.class(error))?;
            let digest = Digest::of(&bytes);
            if let Some(expected) = remote.digest() {
                let expected: Digest = expected.parse()?;
                if expected != digest {
                    return Err(ImageError::Digest { what: format!("manifest of {}", self.name), expected, actual: digest });
                }
            }
            let document = import::read_document(&bytes, &format!("manifest of {}", self.name))?;
            let top = top.get_or_insert(digest);
            if document.manifests.is_empty() {
                return Ok((top.clone(), Manifest::of(document, &self.name)?));
            }
            let host = &self.store.options.platform;
            let chosen = manifest::choose(&document.manifests, host).ok_or_else(|| ImageError::Platform {
                what: self.name.clone(),
                found: platforms(&document.manifests),
                host: host.to_string(),
            })?;
            let digest: Digest = chosen.digest.parse()?;
            remote = remote.clone_with_digest(digest.to_string());
        }
        Err(ImageError::format(format!("manifest of {}", self.name), "its indexes lead to indexes only"))
    }

    async fn config(&self, manifest: &Manifest) -> Result<Vec<u8>, ImageError> {
        let what = format!("configuration of {}", self.name);
        let mut bytes = Vec::new();
        let mut stream = self.open(&manifest.config, manifest.config_size).await?;
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|cause| ImageError::Unreachable(format!("{what}: {cause}")))?);
            if bytes.len() as u64 > DOCUMENT_MAX {
                return Err(ImageError::TooLarge { what, limit: DOCUMENT_MAX });
            }
        }
        let actual = Digest::of(&bytes);
        if actual == manifest.config { Ok(bytes) } else { Err(ImageError::Digest { what, expected: manifest.config.clone(), actual }) }
    }

    async fn open(&self, blob: &Digest, size: u64) -> Result<oci_client::client::SizedStream, ImageError> {
        let descriptor =
            OciDescriptor { digest: blob.to_string(), size: i64::try_from(size).unwrap_or(i64::MAX), ..OciDescriptor::default() };
        self.client.pull_blob_stream(&self.remote, &descriptor).await.map_err(|error| self.class(error))
    }

    async fn layer(&self, layer: Digest, blob: Digest, size: u64) -> Result<(), ImageError> {
        if self.store.disk.layer_bytes(&layer).is_some() {
            return Ok(());
        }
        let limit = self.store.options.limits.layer_bytes;
        if size > limit {
            return Err(ImageError::TooLarge { what: format!("layer {blob} of {}", self.name), limit });
        }
        let path = self.store.disk.scratch("blob");
        let mut outcome = self.download(&path, &blob, size).await;
        for _ in 1..ATTEMPTS {
            if !matches!(outcome, Err(ImageError::Unreachable(_))) {
                break;
            }
            outcome = self.download(&path, &blob, size).await;
        }
        let disk = self.store.disk.clone();
        let limits = self.store.options.limits.clone();
        let unpacked = match outcome {
            Ok(()) => {
                let path = path.clone();
                blocking(move || unpack_blob(&disk, &path, &layer, &limits)).await
            }
            Err(error) => Err(error),
        };
        let _ = tokio::fs::remove_file(&path).await;
        unpacked
    }

    /// Writes a blob to a file, verified: neither longer nor other than announced.
    async fn download(&self, path: &Path, blob: &Digest, size: u64) -> Result<(), ImageError> {
        let what = format!("layer {blob} of {}", self.name);
        let mut stream = self.open(blob, size).await?;
        let file = std::fs::File::create(path).map_err(ImageError::io(format!("make {}", path.display())))?;
        let mut file = stream::Hashing::new(file);
        let mut received = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|cause| ImageError::Unreachable(format!("{what}: {cause}")))?;
            received += chunk.len() as u64;
            if received > size {
                return Err(ImageError::TooLarge { what, limit: size });
            }
            // A page cache write of at most a few 10 KiB.
            file.write_all(&chunk).map_err(ImageError::io(format!("write {}", path.display())))?;
        }
        if received < size {
            return Err(ImageError::Unreachable(format!("{what}: it ended after {received} of {size} bytes")));
        }
        let actual = Digest::of_hash(file.take_hash());
        if actual == *blob { Ok(()) } else { Err(ImageError::Digest { what, expected: blob.clone(), actual }) }
    }

    /// Which of three things it is: not there, not allowed, or the way to it.
    fn class(&self, error: OciDistributionError) -> ImageError {
        use OciDistributionError as E;
        let name = &self.name;
        match error {
            E::UnauthorizedError { .. } => ImageError::Denied(format!("{name} needs other credentials, or does not exist")),
            E::AuthenticationFailure(cause) => ImageError::Denied(format!("{name}: {}", brief(&cause))),
            E::ImageManifestNotFoundError(cause) => ImageError::NoSuchImage(format!("{name}: {cause}")),
            E::RegistryError { envelope, .. } => {
                let is = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                let text = format!("{name}: {}", brief(&envelope.to_string()));
                if is(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    ImageError::Denied(text)
                } else if is(&[
                    OciErrorCode::ManifestUnknown,
                    OciErrorCode::NameUnknown,
                    OciErrorCode::NameInvalid,
                    OciErrorCode::BlobUnknown,
                    OciErrorCode::NotFound,
                ]) {
                    ImageError::NoSuchImage(text)
                } else {
                    ImageError::Registry(text)
                }
            }
            E::ServerError { code: 404, .. } => ImageError::NoSuchImage(name.clone()),
            E::ServerError { code: 403, message, .. } => ImageError::Denied(format!("{name}: {}", brief(&message))),
            E::ServerError { code, message, .. } => ImageError::Registry(format!("{name}: HTTP {code} {}", brief(&message))),
            E::RequestError(cause) => ImageError::Unreachable(chain(&cause)),
            E::IoError(cause) => ImageError::Unreachable(cause.to_string()),
            E::DigestError(cause) => ImageError::format(name.as_str(), cause),
            other => ImageError::Registry(format!("{name}: {}", brief(&other.to_string()))),
        }
    }
}

fn unpack_blob(disk: &Disk, path: &Path, layer: &Digest, limits: &super::Limits) -> Result<(), ImageError> {
    let file = std::fs::File::open(path).map_err(ImageError::io(format!("open {}", path.display())))?;
    disk.add_layer(file, Some(layer), None, limits).map(drop)
}

fn platforms(entries: &[manifest::Descriptor]) -> String {
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .collect();
    names.dedup();
    names.join(", ")
}

/// What a stranger wrote: one line, not long.
fn brief(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(300).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
