//! Pulls from registries that lie, stall, break off and never end.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use podbay::cri::{CriError, Images, RegistryAuth};
use podbay::runtime::image::{Digest, ImageStore, Limits, Options, Patience, RegistryOptions};
use serde_json::json;

use crate::layer::{ImageParts, Tar, architecture, gzip, image, zstd};

/// A request, as far as it matters.
struct Ask {
    path: String,
    headers: HeaderMap,
}

impl Ask {
    fn range(&self) -> Option<usize> {
        let range = self.headers.get(header::RANGE)?.to_str().ok()?;
        range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// A registry that does what a function says; gone when dropped.
struct Fake {
    address: String,
    task: tokio::task::JoinHandle<()>,
    asked: Arc<Mutex<Vec<Ask>>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start(answer: impl Fn(&Ask) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address").to_string();
        let asked: Arc<Mutex<Vec<Ask>>> = Arc::default();
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        let router = axum::Router::new().fallback(move |request: Request| {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let ask = Ask { path, headers: request.headers().clone() };
            let response = answer(&ask);
            seen.lock().expect("lock").push(ask);
            async move { response }
        });
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { address, task, asked }
    }

    fn asked(&self, part: &str) -> usize {
        self.asked.lock().expect("lock").iter().filter(|ask| ask.path.contains(part)).count()
    }

    /// Whether any request told who we are.
    fn knows_us(&self) -> bool {
        self.asked.lock().expect("lock").iter().any(|ask| ask.headers.contains_key(header::AUTHORIZATION))
    }

    fn name(&self) -> String {
        format!("{}/app:1", self.address)
    }
}

/// What an honest registry says; it can begin in the middle of a blob.
fn honest(parts: &ImageParts, ask: &Ask) -> Response {
    if ask.path.contains("/manifests/") {
        return parts.manifest.clone().into_response();
    }
    let blobs = parts.layers.iter().map(Vec::as_slice).chain([parts.config.as_bytes()]);
    for blob in blobs {
        if ask.path.contains(&Digest::of(blob).to_string()) {
            return part(blob, ask.range());
        }
    }
    StatusCode::NOT_FOUND.into_response()
}

fn part(blob: &[u8], from: Option<usize>) -> Response {
    let Some(from) = from else { return blob.to_vec().into_response() };
    let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], blob[from..].to_vec()).into_response()
}

/// A body that never ends; counts what was taken of it.
fn endless(taken: &Arc<AtomicU64>) -> Body {
    let taken = taken.clone();
    Body::from_stream(futures::stream::repeat_with(move || {
        taken.fetch_add(1 << 16, Ordering::Relaxed);
        Ok::<_, std::io::Error>(vec![b' '; 1 << 16])
    }))
}

/// A byte now and then, for ever.
fn drip() -> Body {
    Body::from_stream(futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Some((Ok::<_, std::io::Error>(vec![b'x']), ()))
    }))
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn parts_of(length: usize) -> ImageParts {
    let layer = Tar::new().raw(b'0', b"noise", b"", 0o644, &noise(length)).finish();
    image(&[(gzip(&layer), layer)], &architecture())
}

fn options(hosts: &[&str]) -> Options {
    let plain = RegistryOptions { plain_http: true, ..RegistryOptions::default() };
    let patience = Patience { backoff: Duration::from_millis(1), ..Patience::default() };
    Options { registries: hosts.iter().map(|host| ((*host).to_owned(), plain.clone())).collect(), patience, ..Options::default() }
}

/// Not waited for long.
fn hasty(host: &str) -> Options {
    let mut options = options(&[host]);
    options.patience.silence = Duration::from_millis(300);
    options.patience.document = Duration::from_millis(300);
    options.patience.attempts = 2;
    options
}

struct Host {
    directory: tempfile::TempDir,
    store: ImageStore,
}

impl Host {
    fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let store = ImageStore::open(&directory.path().join("store"), options).expect("open");
        Self { directory, store }
    }

    fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("store")
    }

    /// Nothing of a failed pull stays but what `allowed` names.
    fn left(&self, allowed: &[&str]) {
        for name in ["layers", "tmp", "blobs/sha256", "sizes", "partial"] {
            if !allowed.contains(&name) {
                assert_eq!(list(&self.root().join(name)), Vec::<String>::new(), "left in {name}");
            }
        }
    }
}

fn list(path: &Path) -> Vec<String> {
    fs::read_dir(path).expect("list").map(|entry| entry.expect("list").file_name().to_string_lossy().into_owned()).collect()
}

async fn fails(fake: &Fake, options: Options) -> (Host, CriError) {
    let host = Host::new(options);
    let error = host.store.pull(&fake.name(), None).await.expect_err("it must not work");
    (host, error)
}

fn is_final(error: &CriError) -> bool {
    matches!(error, CriError::Pull { .. })
}

#[tokio::test]
async fn endless_documents_are_read_to_their_bound_only() {
    let parts = Arc::new(parts_of(1000));
    for which in ["/manifests/", "config", "/token"] {
        let taken = Arc::new(AtomicU64::new(0));
        let (count, parts, config) = (taken.clone(), parts.clone(), Digest::of(parts.config.as_bytes()).to_string());
        let address: Arc<Mutex<String>> = Arc::default();
        let own = address.clone();
        let fake = Fake::start(move |ask| {
            let signed = ask.headers.contains_key(header::AUTHORIZATION);
            if which == "/token" && ask.path.starts_with("/v2") && !signed {
                let challenge = format!("Bearer realm=\"http://{}/token\"", own.lock().expect("lock"));
                return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], endless(&count)).into_response();
            }
            match which {
                "config" if ask.path.contains(&config) => endless(&count).into_response(),
                _ if ask.path.contains(which) => endless(&count).into_response(),
                _ => honest(&parts, ask),
            }
        })
        .await;
        *address.lock().expect("lock") = fake.address.clone();
        let (host, error) = fails(&fake, options(&[&fake.address])).await;
        assert!(error.to_string().contains("larger than"), "{which}: {error}");
        assert!(taken.load(Ordering::Relaxed) < 24 << 20, "{which}: {} bytes were taken", taken.load(Ordering::Relaxed));
        host.left(&[]);
    }
}

#[tokio::test]
async fn indexes_that_lead_to_indexes_are_followed_to_a_bound_only() {
    let parts = Arc::new(parts_of(1000));
    for (depth, works) in [(2, true), (20, false)] {
        let mut documents = vec![parts.manifest.clone()];
        for _ in 0..depth {
            let below = documents.last().expect("there is one");
            let entry = json!({"digest": Digest::of(below.as_bytes()).to_string(), "size": below.len()});
            documents.push(json!({"schemaVersion": 2, "manifests": [entry]}).to_string());
        }
        let (parts, served) = (parts.clone(), documents.clone());
        let fake = Fake::start(move |ask| {
            let Some((_, wanted)) = ask.path.split_once("/manifests/") else { return honest(&parts, ask) };
            let found = served.iter().find(|document| Digest::of(document.as_bytes()).to_string() == wanted);
            found.or(served.last()).expect("there is one").clone().into_response()
        })
        .await;
        let host = Host::new(options(&[&fake.address]));
        let pulled = host.store.pull(&fake.name(), None).await;
        let asked = fake.asked.lock().expect("lock").iter().filter(|ask| ask.path.contains("/manifests/")).count();
        match pulled {
            Ok(_) => assert!(works && asked == depth + 1, "{depth}: {asked}"),
            Err(error) => {
                assert!(!works && is_final(&error) && error.to_string().contains("its indexes lead to indexes only"), "{error}");
                assert!(asked < 10, "{asked} were asked for");
                host.left(&[]);
            }
        }
    }
}

#[tokio::test]
async fn an_endless_complaint_is_not_read_to_its_end() {
    let taken = Arc::new(AtomicU64::new(0));
    let count = taken.clone();
    let fake = Fake::start(move |_| (StatusCode::NOT_FOUND, endless(&count)).into_response()).await;
    let (_host, error) = fails(&fake, options(&[&fake.address])).await;
    assert!(is_final(&error) && error.to_string().contains("no such image"), "{error}");
    assert!(taken.load(Ordering::Relaxed) < 16 << 20);
}

#[tokio::test]
async fn each_refusal_is_told_apart() {
    let complaint = json!({"errors": [{"code": "SAID", "message": "because\u{1b}[31m"}]}).to_string();
    for (status, class, part) in [
        (StatusCode::UNAUTHORIZED, true, "needs other credentials"),
        (StatusCode::FORBIDDEN, true, "denies"),
        (StatusCode::NOT_FOUND, true, "no such image"),
        (StatusCode::TOO_MANY_REQUESTS, false, "HTTP 429"),
        (StatusCode::BAD_GATEWAY, false, "HTTP 502"),
        (StatusCode::IM_A_TEAPOT, false, "HTTP 418"),
    ] {
        let text = complaint.clone();
        let fake = Fake::start(move |_| (status, text.clone()).into_response()).await;
        let (_host, error) = fails(&fake, options(&[&fake.address])).await;
        let text = error.to_string();
        assert!(is_final(&error) == class && text.contains(part) && text.contains("SAID because"), "{status}: {text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let parts = parts_of(1000);
    let left = AtomicU64::new(5);
    let fake = Fake::start(move |ask| {
        let busy = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok_and(|left| left % 2 == 1);
        if busy { (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response() } else { honest(&parts, ask) }
    })
    .await;
    let host = Host::new(options(&[&fake.address]));
    host.store.pull(&fake.name(), None).await.expect("pull");
    let patient = Fake::start(|_| (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]).into_response()).await;
    let (_host, error) = fails(&patient, options(&[&patient.address])).await;
    assert!(error.to_string().contains("again in 3600 s"), "{error}");
    assert_eq!(patient.asked("/manifests/"), 1, "nobody waits an hour in a pull");
}

#[tokio::test]
async fn what_comes_drop_by_drop_or_not_at_all_is_given_up() {
    let parts = Arc::new(parts_of(100_000));
    for (which, silent) in [("/manifests/", false), ("/blobs/", false), ("layer", false), ("layer", true), ("head", true)] {
        let (parts, layer) = (parts.clone(), Digest::of(&parts.layers[0]).to_string());
        let fake = Fake::start(move |ask| {
            let meant = ask.path.contains(if which == "layer" { &layer } else { which });
            match (meant, silent) {
                (false, _) => honest(&parts, ask),
                (true, false) => drip().into_response(),
                (true, true) => Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>()).into_response(),
            }
        })
        .await;
        if which == "head" {
            // A host that takes connections and says nothing.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
            let address = listener.local_addr().expect("address").to_string();
            let host = Host::new(hasty(&address));
            let error = host.store.pull(&format!("{address}/app:1"), None).await.expect_err("silence").to_string();
            assert!(error.contains("says nothing"), "{error}");
            continue;
        }
        let (host, error) = fails(&fake, hasty(&fake.address)).await;
        assert!(!is_final(&error) && error.to_string().contains("does not answer"), "{which}: {error}");
        host.left(&["partial"]);
    }
}

/// Serves the first blob half at a time.
fn cutting(parts: &ImageParts, ask: &Ask, sent: &AtomicU64) -> Response {
    let blob = &parts.layers[0];
    if !ask.path.contains(&Digest::of(blob).to_string()) {
        return honest(parts, ask);
    }
    let from = ask.range().unwrap_or(0);
    let end = blob.len().min(from + 100_000);
    sent.fetch_add((end - from) as u64, Ordering::Relaxed);
    let mut chunks = vec![Ok(blob[from..end].to_vec())];
    if end < blob.len() {
        chunks.push(Err(std::io::Error::other("cut")));
    }
    // Having to wait for the next piece, the server sends what it has.
    let body = Body::from_stream(futures::StreamExt::then(futures::stream::iter(chunks), |chunk| async {
        tokio::task::yield_now().await;
        chunk
    }));
    let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
    match from {
        0 => body.into_response(),
        _ => (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], body).into_response(),
    }
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was_cut() {
    let parts = parts_of(900_000);
    let (id, size) = (Digest::of(parts.config.as_bytes()).to_string(), parts.layers[0].len() as u64);
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let fake = Fake::start(move |ask| cutting(&parts, ask, &count)).await;
    let host = Host::new(options(&[&fake.address]));
    assert_eq!(host.store.pull(&fake.name(), None).await.expect("pull"), id);
    assert_eq!(sent.load(Ordering::Relaxed), size, "no byte twice");
    host.left(&["layers", "sizes", "blobs/sha256"]);
}

#[tokio::test]
async fn a_download_that_cannot_go_on_is_begun_anew() {
    let parts = parts_of(900_000);
    let (id, layer) = (Digest::of(parts.config.as_bytes()).to_string(), Digest::of(&parts.layers[0]).to_string());
    let (of, first) = (layer.clone(), AtomicU64::new(1));
    let fake = Fake::start(move |ask| {
        if !ask.path.contains(&of) {
            return honest(&parts, ask);
        }
        match ask.range() {
            // As a registry whose storage knows no ranges.
            Some(_) => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
            None if first.swap(0, Ordering::Relaxed) == 1 => cutting(&parts, ask, &AtomicU64::new(0)),
            None => honest(&parts, ask),
        }
    })
    .await;
    let host = Host::new(options(&[&fake.address]));
    assert_eq!(host.store.pull(&fake.name(), None).await.expect("pull"), id);
    assert_eq!(fake.asked(&layer), 3, "cut, not from the middle, whole");
    host.left(&["layers", "sizes", "blobs/sha256"]);
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart() {
    let parts = parts_of(900_000);
    let size = parts.layers[0].len() as u64;
    let (sent, works) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, open) = (sent.clone(), works.clone());
    let fake = Fake::start(move |ask| {
        let middle = ask.range().is_some_and(|from| from >= 300_000);
        if middle && open.load(Ordering::Relaxed) == 0 { StatusCode::BAD_GATEWAY.into_response() } else { cutting(&parts, ask, &count) }
    })
    .await;
    let (host, error) = fails(&fake, options(&[&fake.address])).await;
    assert!(!is_final(&error), "{error}");
    assert_eq!(list(&host.root().join("partial")).len(), 1);
    host.left(&["partial"]);
    works.store(1, Ordering::Relaxed);
    let Host { directory, store } = host;
    drop(store);
    let store = ImageStore::open(&directory.path().join("store"), options(&[&fake.address])).expect("open again");
    store.pull(&fake.name(), None).await.expect("pull");
    assert_eq!(sent.load(Ordering::Relaxed), size, "no byte twice");
    assert_eq!(list(&directory.path().join("store/partial")).len(), 0);
}

#[tokio::test]
async fn what_a_power_cut_damaged_is_fetched_anew() {
    let parts = parts_of(50_000);
    let (id, blob) = (Digest::of(parts.config.as_bytes()).to_string(), Digest::of(&parts.layers[0]));
    let fake = Fake::start(move |ask| honest(&parts, ask)).await;
    let host = Host::new(options(&[&fake.address]));
    let leftover = Digest::of(format!("{}/{blob}", fake.address).as_bytes());
    fs::write(host.root().join("partial").join(leftover.hex()), vec![0; 20_000]).expect("write");
    assert_eq!(host.store.pull(&fake.name(), None).await.expect("pull"), id);
    assert_eq!(fake.asked(&blob.to_string()), 2);
    host.left(&["layers", "sizes", "blobs/sha256"]);
}

#[tokio::test]
async fn leftovers_of_failed_pulls_go_in_time() {
    let fake = Fake::start(|_| StatusCode::NOT_FOUND.into_response()).await;
    let host = Host::new(options(&[&fake.address]));
    let (old, new) = (host.root().join("partial/old"), host.root().join("partial/new"));
    fs::write(&old, "x").expect("write");
    fs::write(&new, "x").expect("write");
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(4000);
    fs::File::options().write(true).open(&old).expect("open").set_modified(long_ago).expect("set the time");
    host.store.pull(&fake.name(), None).await.expect_err("not there");
    assert_eq!((old.exists(), new.exists()), (false, true));
}

#[tokio::test]
async fn redirects_end_and_take_no_secret_along() {
    let parts = Arc::new(parts_of(1000));
    let loops = Fake::start(|ask| (StatusCode::FOUND, [(header::LOCATION, ask.path.clone())]).into_response()).await;
    let (_host, error) = fails(&loops, options(&[&loops.address])).await;
    assert!(error.to_string().contains("redirects"), "{error}");
    // Blobs are elsewhere, as with most registries; a password is asked for here only.
    let served = parts.clone();
    let storage = Fake::start(move |ask| honest(&served, ask)).await;
    let (served, target) = (parts.clone(), storage.address.clone());
    let front = Fake::start(move |ask| {
        if !ask.headers.contains_key(header::AUTHORIZATION) {
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response();
        }
        if ask.path.contains("/manifests/") {
            return honest(&served, ask);
        }
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("http://{target}{}", ask.path))]).into_response()
    })
    .await;
    let auth = RegistryAuth { username: "user".into(), password: "secret".into(), ..RegistryAuth::default() };
    let host = Host::new(options(&[&front.address, &storage.address]));
    host.store.pull(&front.name(), Some(&auth)).await.expect("pull");
    assert_eq!(storage.asked("/blobs/"), 2);
    assert!(!storage.knows_us(), "the password went to another host");
    // A registry cannot lead us to plain HTTP.
    let host = Host::new(options(&[&front.address]));
    let error = host.store.pull(&front.name(), Some(&auth)).await.expect_err("plain HTTP").to_string();
    assert!(error.contains("plain HTTP"), "{error}");
}

#[tokio::test]
async fn nobody_but_the_registry_is_told_who_we_are() {
    // The storage behind the registry asks for a password of its own.
    let asking = |_: &Ask| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response();
    let storage = Fake::start(asking).await;
    let target = storage.address.clone();
    let front = Fake::start(move |ask| {
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("http://{target}{}", ask.path))]).into_response()
    })
    .await;
    let auth = RegistryAuth { username: "user".into(), password: "secret".into(), ..RegistryAuth::default() };
    let host = Host::new(options(&[&front.address, &storage.address]));
    host.store.pull(&front.name(), Some(&auth)).await.expect_err("denied");
    let all =
        [&front, &storage].map(|fake| fake.asked.lock().expect("lock").iter().any(|ask| ask.headers.contains_key(header::AUTHORIZATION)));
    assert_eq!(all, [false, false]);
}

#[tokio::test]
async fn all_credentials_are_tried_and_a_mirror_gets_none_of_them() {
    let parts = Arc::new(parts_of(1000));
    let served = parts.clone();
    // "user:secret"
    let private = move |ask: &Ask| match ask.headers.get(header::AUTHORIZATION) {
        Some(value) if value == "Basic dXNlcjpzZWNyZXQ=" => honest(&served, ask),
        _ => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response(),
    };
    let mirror = Fake::start(|_| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response()).await;
    let fake = Fake::start(private).await;
    let mut options = options(&[&fake.address, &mirror.address]);
    options.registries.entry(fake.address.clone()).or_default().mirrors = vec![format!("{}/cache", mirror.address)];
    let directory = tempfile::tempdir().expect("make a directory");
    let file = directory.path().join("config.json");
    fs::write(&file, json!({"auths": {&fake.address: {"username": "user", "password": "secret"}}}).to_string()).expect("write");
    options.auth_file = Some(file);
    let host = Host::new(options);
    let wrong = RegistryAuth { username: "user".into(), password: "wrong".into(), ..RegistryAuth::default() };
    host.store.pull(&fake.name(), Some(&wrong)).await.expect("pull with the file's");
    assert!(!mirror.knows_us(), "the mirror was told a password");
    let seen = mirror.asked.lock().expect("lock");
    assert!(seen[0].path.starts_with("/v2/cache/app/manifests/1?ns="), "{}", seen[0].path);
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_passed_over() {
    let parts = Arc::new(parts_of(200_000));
    let layer = Digest::of(&parts.layers[0]).to_string();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("address").to_string();
    let empty = Fake::start(|_| StatusCode::NOT_FOUND.into_response()).await;
    // Has the manifest, but not what is behind it.
    let (served, missing) = (parts.clone(), layer.clone());
    let half =
        Fake::start(move |ask| if ask.path.contains(&missing) { StatusCode::NOT_FOUND.into_response() } else { honest(&served, ask) })
            .await;
    let served = parts.clone();
    let origin = Fake::start(move |ask| honest(&served, ask)).await;
    let mut options = options(&[&dead, &empty.address, &half.address, &origin.address]);
    options.registries.entry(origin.address.clone()).or_default().mirrors = vec![dead, empty.address.clone(), half.address.clone()];
    let host = Host::new(options);
    host.store.pull(&origin.name(), None).await.expect("pull");
    assert_eq!((empty.asked("/manifests/"), half.asked("/manifests/"), origin.asked("/manifests/")), (1, 1, 0));
    assert_eq!((half.asked(&layer), origin.asked(&layer)), (1, 1));
}

#[tokio::test]
async fn a_mirror_that_lies_about_a_layer_is_passed_over() {
    let parts = Arc::new(parts_of(200_000));
    let layer = Digest::of(&parts.layers[0]).to_string();
    for (at, lie) in [(100_000, vec![0xff; 9]), (0, gzip(b"not an archive")), (0, vec![0x1f, 0x8b, 0, 0])] {
        let mut content = parts.layers[0].clone();
        content[at..at + lie.len()].copy_from_slice(&lie);
        let (served, meant) = (parts.clone(), layer.clone());
        let mirror =
            Fake::start(move |ask| if ask.path.contains(&meant) { part(&content, ask.range()) } else { honest(&served, ask) }).await;
        let served = parts.clone();
        let origin = Fake::start(move |ask| honest(&served, ask)).await;
        let mut options = options(&[&mirror.address, &origin.address]);
        options.registries.entry(origin.address.clone()).or_default().mirrors = vec![mirror.address.clone()];
        let host = Host::new(options);
        host.store.pull(&origin.name(), None).await.expect("pull");
        assert_eq!((mirror.asked(&layer), origin.asked(&layer)), (1, 1));
        host.left(&["layers", "sizes", "blobs/sha256"]);
    }
}

#[tokio::test]
async fn a_pull_that_does_not_fit_is_refused_before_it_begins() {
    let parts = parts_of(1000);
    let layer = Digest::of(&parts.layers[0]).to_string();
    let fake = Fake::start(move |ask| honest(&parts, ask)).await;
    let full = Options { limits: Limits { reserve: 1 << 62, ..Limits::default() }, ..options(&[&fake.address]) };
    let (host, error) = fails(&fake, full).await;
    assert!(!is_final(&error) && error.to_string().contains("no room for"), "{error}");
    assert_eq!(fake.asked(&layer), 0);
    host.left(&[]);
}

#[tokio::test]
async fn who_asks_for_the_same_shares_one_pull() {
    let parts = Arc::new(parts_of(100_000));
    let served = parts.clone();
    let fake = Fake::start(move |ask| honest(&served, ask)).await;
    let host = Host::new(options(&[&fake.address]));
    let name = fake.name();
    let all = futures::future::join_all((0..8).map(|_| host.store.pull(&name, None))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!((fake.asked("/manifests/"), fake.asked("/blobs/")), (1, 2));
}

#[tokio::test]
async fn one_layer_of_several_images_is_fetched_once() {
    let shared = Tar::new().raw(b'0', b"shared", b"", 0o644, &noise(300_000)).finish();
    let of = |word: &str| {
        let own = Tar::new().file("own", word).finish();
        image(&[(zstd(&shared), shared.clone()), (gzip(&own), own)], &architecture())
    };
    let (one, two) = (of("one"), of("two"));
    let layer = Digest::of(&one.layers[0]).to_string();
    let fake = Fake::start(move |ask| {
        let first = honest(if ask.path.contains("/app1/") { &one } else { &two }, ask);
        if first.status() == StatusCode::NOT_FOUND { honest(&two, ask) } else { first }
    })
    .await;
    let host = Host::new(options(&[&fake.address]));
    let names = ["app1", "app2"].map(|image| format!("{}/{image}:1", fake.address));
    let (one, two) = tokio::join!(host.store.pull(&names[0], None), host.store.pull(&names[1], None));
    assert_ne!(one.expect("pull"), two.expect("pull"));
    assert_eq!(fake.asked(&layer), 1);
}

#[tokio::test]
async fn wrong_documents_are_not_believed() {
    let parts = Arc::new(parts_of(1000));
    let config = Digest::of(parts.config.as_bytes()).to_string();
    let other = parts.config.replace("1000:1000", "0000:0000");
    assert_eq!(other.len(), parts.config.len());
    let (served, meant) = (parts.clone(), config.clone());
    let fake = Fake::start(move |ask| if ask.path.contains(&meant) { other.clone().into_response() } else { honest(&served, ask) }).await;
    let (host, error) = fails(&fake, options(&[&fake.address])).await;
    assert!(is_final(&error) && error.to_string().contains("digest"), "{error}");
    host.left(&[]);
    // By digest the manifest is verified too.
    let served = parts.clone();
    let fake = Fake::start(move |ask| honest(&served, ask)).await;
    let host = Host::new(options(&[&fake.address]));
    let name = format!("{}/app@{config}", fake.address);
    let error = host.store.pull(&name, None).await.expect_err("another manifest").to_string();
    assert!(error.contains("digest"), "{error}");
    // A layer that is what its digest says, but not what the configuration says.
    let stranger = Tar::new().file("other", "content").finish();
    let plain = Tar::new().raw(b'0', b"noise", b"", 0o644, &noise(1000)).finish();
    let lying = image(&[(gzip(&stranger), plain)], &architecture());
    let fake = Fake::start(move |ask| honest(&lying, ask)).await;
    let (host, error) = fails(&fake, options(&[&fake.address])).await;
    assert!(error.to_string().contains("layer does not have the digest"), "{error}");
    host.left(&[]);
}
