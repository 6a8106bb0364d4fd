//! Pulls from Debian's docker-registry, anonymous, with a password and with a token, on this host's loopback.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth as Credentials;
use oci_client::{Reference, RegistryOperation};
use podbay::cri::{CriError, Images, RegistryAuth};
use podbay::runtime::image::{Digest, ImageStore, Options, Patience, RegistryOptions, build};
use serde_json::json;

use crate::layer::{ImageParts, Tar, architecture, gzip, image};
use crate::private_tls::PrivateTls;

/// A running registry; killed when dropped.
struct Registry {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of user `user`, password `secret` (bcrypt is all the registry takes).
const HTPASSWD: &str = "user:$2b$05$Ea.HJSJTvzMNC2O79U0Or.QmEue9KAQYdRyXkvnRofNH8ir9ARsT6\n";

impl Registry {
    fn start(htpasswd: bool) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        // The port is free now; if another takes it before the registry does, it says so and ends.
        let address = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").to_string();
        let data = directory.path().join("data");
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": data}},
            "http": {"addr": address},
        });
        if htpasswd {
            let path = directory.path().join("htpasswd");
            fs::write(&path, HTPASSWD).expect("write");
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": path}});
        }
        let path = directory.path().join("config.yml");
        fs::write(&path, config.to_string()).expect("write");
        let child = Command::new("docker-registry")
            .args([Path::new("serve"), &path])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry (Debian package docker-registry)");
        let mut registry = Self { child, address, directory };
        let start = Instant::now();
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(registry.child.try_wait().expect("look").is_none(), "docker-registry ended");
            assert!(start.elapsed() < Duration::from_secs(60), "docker-registry does not listen");
            std::thread::yield_now();
        }
        registry
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    async fn push(&self, name: &str, parts: &ImageParts, auth: &Credentials) -> String {
        let client = self.client();
        let reference: Reference = self.name(name).parse().expect("name");
        client.auth(&reference, auth, RegistryOperation::Push).await.expect("sign in");
        for blob in parts.layers.iter().map(Vec::as_slice).chain([parts.config.as_bytes()]) {
            client.push_blob(&reference, blob.to_vec(), &Digest::of(blob).to_string()).await.expect("push a blob");
        }
        self.push_document(name, &parts.manifest, "application/vnd.oci.image.manifest.v1+json", auth).await
    }

    async fn push_document(&self, name: &str, text: &str, media_type: &'static str, auth: &Credentials) -> String {
        let client = self.client();
        let reference: Reference = self.name(name).parse().expect("name");
        client.auth(&reference, auth, RegistryOperation::Push).await.expect("sign in");
        client
            .push_manifest_raw(&reference, text.as_bytes().to_vec(), header::HeaderValue::from_static(media_type))
            .await
            .expect("push a manifest");
        Digest::of(text.as_bytes()).to_string()
    }

    fn client(&self) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
    }

    fn store(&self) -> ImageStore {
        self.store_with(&[&self.address])
    }

    fn store_with(&self, insecure: &[&str]) -> ImageStore {
        let options = plain(insecure);
        ImageStore::open(&self.directory.path().join(format!("store-{}", uuid::Uuid::new_v4())), options).expect("open the store")
    }
}

/// These are spoken to by plain HTTP, and none is waited for long.
fn plain(hosts: &[&str]) -> Options {
    let plain = RegistryOptions { plain_http: true, ..RegistryOptions::default() };
    let patience = Patience { backoff: Duration::from_millis(1), ..Patience::default() };
    Options { registries: hosts.iter().map(|host| ((*host).to_owned(), plain.clone())).collect(), patience, ..Options::default() }
}

fn two_layers(word: &str) -> ImageParts {
    let lower = Tar::new().file("etc/word", word).finish();
    let upper = Tar::new().file("etc/upper", "upper").finish();
    image(&[(gzip(&lower), lower), (gzip(&upper), upper)], &architecture())
}

#[tokio::test]
async fn anonymous_pulls_by_tag_and_by_digest() {
    let registry = Registry::start(false);
    let parts = two_layers("hello");
    let digest = registry.push("app:1", &parts, &Credentials::Anonymous).await;
    let store = registry.store();
    let name = registry.name("app:1");
    let id = store.pull(&name, None).await.expect("pull");
    assert_eq!(id, Digest::of(parts.config.as_bytes()).to_string());
    let layers = store.layers_of(&name).expect("layers");
    assert_eq!(fs::read_to_string(layers[0].join("etc/upper")).expect("top first"), "upper");
    assert_eq!(fs::read_to_string(layers[1].join("etc/word")).expect("below"), "hello");
    assert_eq!(store.pull(&name, None).await.expect("pull again"), id);
    let by_digest = registry.name(&format!("app@{digest}"));
    assert_eq!(store.image_status(&by_digest).await.expect("status").expect("known by its digest").id, id);
    let other = registry.store();
    assert_eq!(other.pull(&by_digest, None).await.expect("pull by digest"), id);
    let found = other.image_status(&by_digest).await.expect("status").expect("there");
    assert_eq!((found.tags.len(), found.digests.as_slice()), (0, &[by_digest][..]));
    // The tag moves on: a pull follows, and both pulls at once are one image.
    let newer = two_layers("newer");
    registry.push("app:1", &newer, &Credentials::Anonymous).await;
    let (one, two) = tokio::join!(store.pull(&name, None), store.pull(&name, None));
    assert_eq!(one.expect("pull"), two.expect("pull"));
    assert_eq!(store.find(&name).expect("find").expect("there").id, Digest::of(newer.config.as_bytes()));
}

#[tokio::test]
async fn an_index_leads_to_this_hosts_image() {
    let registry = Registry::start(false);
    let mine = two_layers("mine");
    let layer = Tar::new().file("etc/word", "theirs").finish();
    let theirs = image(&[(gzip(&layer), layer)], "s390x");
    let mut entries = Vec::new();
    for (parts, architecture) in [(&theirs, "s390x".to_owned()), (&mine, architecture())] {
        let digest = registry.push(&format!("multi:{architecture}"), parts, &Credentials::Anonymous).await;
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": parts.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).to_string();
    let digest = registry.push_document("multi:all", &index, media_type, &Credentials::Anonymous).await;
    let only = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": &entries[..1]}).to_string();
    registry.push_document("multi:theirs", &only, media_type, &Credentials::Anonymous).await;
    let store = registry.store();
    let id = store.pull(&registry.name("multi:all"), None).await.expect("pull");
    assert_eq!(id, Digest::of(mine.config.as_bytes()).to_string());
    let found = store.image_status(&id).await.expect("status").expect("there");
    assert_eq!(found.digests, [registry.name(&format!("multi@{digest}"))], "the index's own digest");
    let error = store.pull(&registry.name("multi:theirs"), None).await.expect_err("another platform").to_string();
    assert!(error.contains("s390x"), "{error}");
}

#[tokio::test]
async fn a_password_is_asked_for_and_used() {
    let registry = Registry::start(true);
    let good = Credentials::Basic("user".into(), "secret".into());
    registry.push("private:1", &two_layers("private"), &good).await;
    let store = registry.store();
    let name = registry.name("private:1");
    for auth in [None, Some(RegistryAuth { username: "user".into(), password: "wrong".into(), ..RegistryAuth::default() })] {
        let error = store.pull(&name, auth.as_ref()).await.expect_err("denied");
        assert!(matches!(error, CriError::Pull { .. }), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    let auth = RegistryAuth { username: "user".into(), password: "secret".into(), ..RegistryAuth::default() };
    store.pull(&name, Some(&auth)).await.expect("pull");
    store.pull(&name, None).await.expect_err("credentials of one pull are not kept for the next");
    // By a docker config.json.
    let file = registry.directory.path().join("config.json");
    fs::write(&file, json!({"auths": {&registry.address: {"auth": "dXNlcjpzZWNyZXQ="}}}).to_string()).expect("write");
    let options = Options { auth_file: Some(file), ..plain(&[&registry.address]) };
    let store = ImageStore::open(&registry.directory.path().join("by-file"), options).expect("open");
    store.pull(&name, None).await.expect("pull");
}

#[tokio::test]
async fn failures_say_what_they_are() {
    let registry = Registry::start(false);
    let store = registry.store();
    let error = store.pull(&registry.name("nothing:1"), None).await.expect_err("no such image");
    assert!(matches!(&error, CriError::Pull { cause, .. } if cause.contains("no such image")), "{error}");
    let error = store.pull("UPPER CASE", None).await.expect_err("no name");
    assert!(matches!(error, CriError::Invalid(_)), "{error}");
    // Plain HTTP is spoken only where that is configured, even on the loopback.
    let strict = registry.store_with(&[]);
    let error = strict.pull(&registry.name("nothing:1"), None).await.expect_err("HTTPS");
    assert!(matches!(error, CriError::Failed { .. }), "{error}");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("address").to_string();
    let error = registry.store_with(&[&nobody]).pull(&format!("{nobody}/app:1"), None).await.expect_err("nobody");
    assert!(matches!(&error, CriError::Failed { cause, .. } if cause.contains("does not answer")), "{error}");
}

#[tokio::test]
async fn busybox_runs_from_its_image() {
    let registry = Registry::start(false);
    let root = registry.directory.path().join("root");
    fs::create_dir_all(root.join("bin")).expect("make");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy (Debian package busybox-static)");
    let config = oci_spec::image::ConfigBuilder::default().cmd(vec!["/bin/busybox".to_owned()]).build().expect("config");
    let archive = registry.directory.path().join("busybox.tar");
    build::from_directory(&root, "busybox:demo", config, &archive).expect("build");
    let store = registry.store();
    store.import(&archive, None).expect("import");
    let program = store.layers_of("busybox:demo").expect("layers")[0].join("bin/busybox");
    let output = Command::new(program).args(["echo", "it runs"]).output().expect("run");
    assert_eq!(output.stdout, b"it runs\n");
}

/// A registry that serves one image in whatever way is asked for.
struct Liar {
    blobs: Vec<(String, Vec<u8>)>,
    manifest: Vec<u8>,
    /// The token it wants, given out at `/token`.
    token: bool,
    address: String,
    /// Requests with a body cut short, so many more times.
    cut: Mutex<u32>,
}

async fn serve(parts: &ImageParts, replaced: Option<(String, Vec<u8>)>, token: bool, cut: u32) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let router = registry_router(parts, replaced, token, cut, &address);
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    (address, task)
}

fn registry_router(parts: &ImageParts, replaced: Option<(String, Vec<u8>)>, token: bool, cut: u32, address: &str) -> axum::Router {
    let mut blobs: Vec<(String, Vec<u8>)> = parts
        .layers
        .iter()
        .map(Vec::as_slice)
        .chain([parts.config.as_bytes()])
        .map(|blob| (Digest::of(blob).to_string(), blob.to_vec()))
        .collect();
    if let Some((digest, content)) = replaced {
        blobs.retain(|(name, _)| *name != digest);
        blobs.push((digest, content));
    }
    let liar = Liar { blobs, manifest: parts.manifest.clone().into_bytes(), token, address: address.to_owned(), cut: Mutex::new(cut) };
    axum::Router::new()
        .route("/token", get(|| async { axum::Json(json!({"token": "the-token"})) }))
        .route("/v2/{*path}", get(answer))
        .route("/v2/", get(|state: State<Arc<Liar>>, headers: HeaderMap| answer(state, UrlPath(String::new()), headers)))
        .with_state(Arc::new(liar))
}

async fn answer(State(liar): State<Arc<Liar>>, UrlPath(path): UrlPath<String>, headers: HeaderMap) -> Response {
    if liar.token && headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer the-token") {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"test\"", liar.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if path.contains("/manifests/") {
        return ([(header::CONTENT_TYPE, "application/vnd.oci.image.manifest.v1+json")], liar.manifest.clone()).into_response();
    }
    let Some((_, blob)) = liar.blobs.iter().find(|(digest, _)| path.ends_with(digest.as_str())) else {
        return if path.is_empty() { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response();
    };
    let mut cut = liar.cut.lock().expect("lock");
    if *cut > 0 && blob.len() > 1000 {
        *cut -= 1;
        // A body that breaks off.
        let chunks = [Ok(blob[..blob.len() / 2].to_vec()), Err(std::io::Error::other("cut"))];
        return axum::body::Body::from_stream(futures::stream::iter(chunks)).into_response();
    }
    blob.clone().into_response()
}

fn big_image() -> ImageParts {
    let noise: Vec<u8> = (0u32..50_000).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let layer = Tar::new().raw(b'0', b"noise", b"", 0o644, &noise).finish();
    image(&[(layer.clone(), layer)], &architecture())
}

async fn pull_from(address: &str) -> (tempfile::TempDir, Result<String, CriError>) {
    let directory = tempfile::tempdir().expect("make a directory");
    let options = plain(&[address]);
    let store = ImageStore::open(&directory.path().join("store"), options).expect("open");
    let outcome = store.pull(&format!("{address}/app:1"), None).await;
    (directory, outcome)
}

#[tokio::test]
async fn a_token_is_fetched_and_used() {
    let parts = two_layers("token");
    let (address, task) = serve(&parts, None, true, 0).await;
    let (_directory, outcome) = pull_from(&address).await;
    task.abort();
    assert_eq!(outcome.expect("pull"), Digest::of(parts.config.as_bytes()).to_string());
}

#[tokio::test]
async fn a_download_that_breaks_off_is_begun_again() {
    let parts = big_image();
    let (address, task) = serve(&parts, None, false, 2).await;
    let (_directory, outcome) = pull_from(&address).await;
    assert_eq!(outcome.expect("pull"), Digest::of(parts.config.as_bytes()).to_string());
    task.abort();
    let (address, task) = serve(&parts, None, false, 1000).await;
    let (directory, outcome) = pull_from(&address).await;
    task.abort();
    assert!(matches!(outcome, Err(CriError::Failed { .. })), "worth another try later");
    assert_eq!(fs::read_dir(directory.path().join("store/tmp")).expect("list").count(), 0);
}

#[tokio::test]
async fn a_registry_that_lies_is_not_believed() {
    let parts = big_image();
    let digest = Digest::of(&parts.layers[0]).to_string();
    let mut same_length = parts.layers[0].clone();
    same_length[600] ^= 1;
    let mut longer = parts.layers[0].clone();
    longer.extend_from_slice(&[0; 100_000]);
    for content in [same_length, longer] {
        let (address, task) = serve(&parts, Some((digest.clone(), content)), false, 0).await;
        let (directory, outcome) = pull_from(&address).await;
        task.abort();
        assert!(outcome.is_err());
        for left in ["layers", "tmp"] {
            assert_eq!(fs::read_dir(directory.path().join("store").join(left)).expect("list").count(), 0, "{left}");
        }
    }
}

#[tokio::test]
async fn https_is_trusted_by_a_private_authority_only_where_it_is_configured() {
    let tls = PrivateTls::new("registry");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    let parts = two_layers("https");
    let router = registry_router(&parts, None, false, 0, &address);
    let task = tls.serve(listener, router);
    let directory = tempfile::tempdir().expect("make a directory");
    let file = directory.path().join("ca.pem");
    fs::write(&file, &tls.authority).expect("write");
    let name = format!("{address}/app:1");
    let trusting = Options { ca_files: vec![file], ..Options::default() };
    let store = ImageStore::open(&directory.path().join("trusting"), trusting).expect("open");
    let outcome = store.pull(&name, None).await;
    assert_eq!(outcome.expect("pull"), Digest::of(parts.config.as_bytes()).to_string());
    let store = ImageStore::open(&directory.path().join("strict"), Options::default()).expect("open");
    let error = store.pull(&name, None).await.expect_err("an authority nobody knows").to_string();
    task.abort();
    assert!(error.contains("certificate"), "{error}");
}
