//! `podbay image pull` as a program: its configuration file, credential helpers, proxies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use podbay::runtime::image::Digest;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::layer::{ImageParts, Tar, architecture, gzip, image};
use crate::private_tls::PrivateTls;

fn parts() -> ImageParts {
    let layer = Tar::new().file("etc/word", "hello").finish();
    image(&[(gzip(&layer), layer)], &architecture())
}

/// An honest registry of one image; `sign_in` may refuse a request before it answers.
fn registry(parts: ImageParts, sign_in: impl Fn(&Request) -> Option<Response> + Clone + Send + Sync + 'static) -> axum::Router {
    let parts = Arc::new(parts);
    axum::Router::new().fallback(move |request: Request| {
        let refused = sign_in(&request);
        let path = request.uri().path().to_owned();
        let parts = parts.clone();
        async move {
            if let Some(refused) = refused {
                return refused;
            }
            if path.contains("/manifests/") {
                return parts.manifest.clone().into_response();
            }
            let blobs = parts.layers.iter().map(Vec::as_slice).chain([parts.config.as_bytes()]);
            let found = blobs.into_iter().find(|blob| path.contains(&Digest::of(blob).to_string()));
            found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |blob| blob.to_vec().into_response())
        }
    })
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address").to_string();
    (listener, address)
}

fn serve(listener: TcpListener, router: axum::Router) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    })
}

/// Runs `podbay image pull -q` with this `[images]` part. Its output, or what it complains of.
async fn pull(place: &Path, images: &str, name: &str, envs: &[(&str, &str)]) -> Result<String, String> {
    let config = place.join("podbay.toml");
    let (data, run) = (place.join("data"), place.join("run"));
    fs::write(&config, format!("data-dir = {data:?}\nrun-dir = {run:?}\n{images}")).expect("write");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_podbay"));
    command.args(["image", "pull", "-q", "--config"]).arg(&config).arg(name);
    command.env_remove("PODBAY_DATA_DIR").env_remove("PODBAY_RUN_DIR").envs(envs.iter().copied());
    let output = command.output().await.expect("run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn a_mirror_of_the_configuration_serves_the_image() {
    let place = tempfile::tempdir().expect("make a directory");
    let parts = parts();
    let id = Digest::of(parts.config.as_bytes()).to_string();
    let (listener, address) = listen().await;
    let task = serve(listener, registry(parts, |_| None));
    let images = format!(
        "[[images.registry]]\nhost = \"registry.invalid\"\nmirrors = [\"{address}\"]\n[[images.registry]]\nhost = \"{address}\"\nplain-http = true\n"
    );
    assert_eq!(pull(place.path(), &images, "registry.invalid/app:1", &[]).await, Ok(id));
    task.abort();
}

#[tokio::test]
async fn a_credential_helper_is_asked() {
    let place = tempfile::tempdir().expect("make a directory");
    let helper = place.path().join("docker-credential-vault");
    fs::write(&helper, "#!/bin/sh\nread -r server\necho \"{\\\"Username\\\":\\\"user\\\",\\\"Secret\\\":\\\"of $server\\\"}\"\n")
        .expect("write");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("make it a program");
    let (listener, address) = listen().await;
    let expected = {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("user:of {address}")))
    };
    let ask = move |request: &Request| {
        let known = request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == expected.as_str());
        (!known).then(|| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response())
    };
    let task = serve(listener, registry(parts(), ask));
    let auth = place.path().join("config.json");
    let images = format!("[images]\ninsecure-registries = [\"{address}\"]\nauth-file = {auth:?}\n");
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap_or_default());
    let name = format!("{address}/app:1");
    for (config, works) in [
        (json!({"credHelpers": {&address: "vault"}}), true),
        (json!({"credsStore": "vault", "auths": {&address: {}}}), true),
        (json!({"credHelpers": {"elsewhere.test": "vault"}}), false),
        (json!({"credHelpers": {&address: "not-there"}}), false),
    ] {
        fs::write(&auth, config.to_string()).expect("write");
        let outcome = pull(place.path(), &images, &name, &[("PATH", &path)]).await;
        assert_eq!(outcome.is_ok(), works, "{config}: {outcome:?}");
    }
    task.abort();
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_a_token() {
    let place = tempfile::tempdir().expect("make a directory");
    let (listener, address) = listen().await;
    let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"test\"");
    let ask = move |request: &Request| {
        if request.uri().path() == "/token" {
            // With an identity token it is a POST, which no password takes part in.
            let exchanged = request.method() == Method::POST && !request.headers().contains_key(header::AUTHORIZATION);
            let answer = if exchanged { json!({"access_token": "good"}) } else { json!({"token": "bad"}) };
            return Some(axum::Json(answer).into_response());
        }
        let known = request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer good");
        (!known).then(|| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge.clone())]).into_response())
    };
    let task = serve(listener, registry(parts(), ask));
    let auth = place.path().join("config.json");
    fs::write(&auth, json!({"auths": {&address: {"identitytoken": "identity"}}}).to_string()).expect("write");
    let images = format!("[images]\ninsecure-registries = [\"{address}\"]\nauth-file = {auth:?}\n");
    pull(place.path(), &images, &format!("{address}/app:1"), &[]).await.expect("pull");
    let without = format!("[images]\ninsecure-registries = [\"{address}\"]\n");
    let error = pull(place.path(), &without, &format!("{address}/app:1"), &[]).await.expect_err("anonymous");
    task.abort();
    assert!(error.contains("needs other credentials"), "{error}");
}

/// A proxy that tunnels; remembers where to.
async fn tunnel(client: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut first = String::new();
    client.read_line(&mut first).await?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        client.read_line(&mut line).await?;
    }
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().expect("lock").push(target.clone());
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[tokio::test]
async fn https_goes_through_the_proxy_of_the_environment() {
    let place = tempfile::tempdir().expect("make a directory");
    let tls = PrivateTls::new("proxied registry");
    let (listener, address) = listen().await;
    let (served, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let requests = served.clone();
    let task = tls.serve(
        listener,
        registry(parts(), move |_| {
            requests.fetch_add(1, Ordering::Relaxed);
            None
        }),
    );
    let (proxy, proxy_address) = listen().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noted, open) = (seen.clone(), count.clone());
    let proxying = tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            let (noted, open) = (noted.clone(), open.clone());
            tokio::spawn(async move {
                open.fetch_add(1, Ordering::Relaxed);
                let _ = tunnel(client, &noted).await;
            });
        }
    });
    let ca = place.path().join("ca.pem");
    fs::write(&ca, &tls.authority).expect("write");
    let images = format!("[[images.registry]]\nhost = \"{address}\"\nca-file = {ca:?}\n");
    let through = format!("http://{proxy_address}");
    let name = format!("{address}/app:1");
    pull(place.path(), &images, &name, &[("HTTPS_PROXY", &through), ("NO_PROXY", "")]).await.expect("pull");
    let tunnels = seen.lock().expect("lock").clone();
    assert!(!tunnels.is_empty() && tunnels.iter().all(|target| *target == address), "{tunnels:?}");
    let before = count.load(Ordering::Relaxed);
    let asked = served.load(Ordering::Relaxed);
    pull(place.path(), &images, &name, &[("HTTPS_PROXY", &through), ("NO_PROXY", "127.0.0.1")]).await.expect("pull straight");
    task.abort();
    proxying.abort();
    assert_eq!(count.load(Ordering::Relaxed), before, "no tunnel where NO_PROXY says so");
    assert!(served.load(Ordering::Relaxed) > asked);
}
