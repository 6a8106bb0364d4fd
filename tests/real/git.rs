//! Git sources over their real transports: smart HTTP, ssh, and a repository of another user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, Uri};
use base64::Engine as _;
use podbay::model::GitSource;
use podbay::sync::git::{Git, Options};
use podbay::sync::source::{Fetch as _, Fetched, Tree};
use tower::ServiceExt as _;

use crate::private_tls::PrivateTls;

/// A bare repository with one commit a call.
struct Upstream {
    path: PathBuf,
    work: PathBuf,
}

impl Upstream {
    fn new(directory: &Path) -> Self {
        let upstream = Self { path: directory.join("repo.git"), work: directory.join("work") };
        run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&upstream.path));
        run(Command::new("git").args(["clone", "-q"]).arg(&upstream.path).arg(&upstream.work));
        for allowed in ["uploadpack.allowReachableSHA1InWant", "uploadpack.allowAnySHA1InWant"] {
            run(Command::new("git").arg("-C").arg(&upstream.path).args(["config", allowed, "true"]));
        }
        upstream
    }

    fn git(&self, arguments: &[&str]) -> String {
        run(Command::new("git").arg("-C").arg(&self.work).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments))
    }

    /// Commits one file and returns the commit's id.
    fn commit(&self, file: &str, content: &str) -> String {
        fs::write(self.work.join(file), content).unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", &format!("Change {file}")]);
        self.git(&["push", "-q", "origin", "HEAD:main"]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}

fn run(command: &mut Command) -> String {
    let output = command.env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn options(directory: &Path) -> Options {
    Options { program: env!("CARGO_BIN_EXE_podbay").into(), ..Options::new(directory.join("clones")) }
}

async fn fetch(spec: &GitSource, directory: &Path) -> Result<Tree, String> {
    fs::create_dir_all(directory.join("clones")).unwrap();
    match Git::new("web", spec, "", options(directory)).unwrap().fetch().await {
        Fetched::Tree(tree) => Ok(tree),
        Fetched::Refused { why, .. } | Fetched::Unreachable(why) => Err(why),
    }
}

/// `git http-backend` behind a small server.
async fn serve(root: PathBuf) -> String {
    let router = router(root);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/repo.git")
}

fn router(root: PathBuf) -> axum::Router {
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let root = root.clone();
        async move { tokio::task::spawn_blocking(move || backend(&root, &method, &uri, &headers, &body)).await.unwrap() }
    };
    axum::Router::new().fallback(handler)
}

/// A server with a certificate of an authority that nobody knows, whose PEM file it names. The
/// credentials it is given are kept.
struct Https {
    port: u16,
    ca_file: String,
    given: Arc<Mutex<Vec<String>>>,
}

impl Https {
    async fn start(
        directory: &Path,
        name: &str,
        answer: impl Fn(&Request) -> Option<Response<Body>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let tls = PrivateTls::new(name);
        let ca_file = directory.join(format!("ca-{name}.pem"));
        fs::write(&ca_file, &tls.authority).unwrap();
        let given = Arc::<Mutex<Vec<_>>>::default();
        let (inner, seen) = (router(directory.to_owned()), Arc::clone(&given));
        let guarded = move |request: Request| {
            let (answer, inner, seen) = (answer.clone(), inner.clone(), Arc::clone(&seen));
            async move {
                seen.lock().unwrap().extend(request.headers().get("authorization").map(|it| decoded(it.to_str().unwrap())));
                match answer(&request) {
                    Some(answer) => answer,
                    None => inner.oneshot(request).await.unwrap(),
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tls.serve(listener, axum::Router::new().fallback(guarded));
        Self { port, ca_file: ca_file.display().to_string(), given }
    }

    fn spec(&self, token_file: Option<String>) -> GitSource {
        let url = format!("https://127.0.0.1:{}/repo.git", self.port);
        GitSource { url, token_file, ca_file: Some(self.ca_file.clone()), ..GitSource::default() }
    }

    fn was_given(&self, token: &str) -> bool {
        self.given.lock().unwrap().iter().any(|it| it.contains(token))
    }
}

/// `user:password` of a Basic header.
fn decoded(header: &str) -> String {
    let text = header.strip_prefix("Basic ").unwrap_or_default();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()).unwrap_or_default()
}

/// Lets through who brings this password, under any name, as the large hosts take a token.
fn only_with(token: &'static str) -> impl Fn(&Request) -> Option<Response<Body>> + Clone + Send + Sync + 'static {
    move |request| {
        let given = request.headers().get("authorization").and_then(|it| it.to_str().ok()).map(decoded);
        let right = given.is_some_and(|it| it.split_once(':').is_some_and(|(_, password)| password == token));
        let challenge = || Response::builder().status(401).header("www-authenticate", "Basic realm=\"git\"").body(Body::empty()).unwrap();
        (!right).then(challenge)
    }
}

const TOKEN: &str = "glpat-0123456789abcdef";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_takes_the_right_token_and_tells_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    let commit = upstream.commit("a.yaml", "1");
    let server = Https::start(directory.path(), "one", only_with(TOKEN)).await;
    let token = |content: &str| {
        let file = directory.path().join("token");
        fs::write(&file, content).unwrap();
        Some(file.display().to_string())
    };
    let tree = fetch(&server.spec(token(&format!("{TOKEN}\n"))), directory.path()).await.unwrap();
    assert_eq!((tree.revision.as_str(), tree.files["a.yaml"].as_slice()), (commit.as_str(), &b"1"[..]));
    // The user of the URL is sent along.
    let mut named = server.spec(token(TOKEN));
    named.url = named.url.replace("https://", "https://deploy@");
    assert!(fetch(&named, directory.path()).await.is_ok());
    assert!(server.given.lock().unwrap().contains(&format!("deploy:{TOKEN}")));

    let wrong = fetch(&server.spec(token("glpat-wrong")), directory.path()).await.unwrap_err();
    assert!(wrong.contains("refuses the source's credentials") && !wrong.contains("glpat"), "{wrong}");
    let none = fetch(&server.spec(None), directory.path()).await.unwrap_err();
    assert!(none.contains("asks for credentials") && none.contains("tokenFile"), "{none}");
    let gone = GitSource { token_file: Some("/nowhere/token".to_owned()), ..server.spec(None) };
    let gone = fetch(&gone, directory.path()).await.unwrap_err();
    assert!(gone.contains("read the token file /nowhere/token"), "{gone}");
    for file in walk(&directory.path().join("clones")) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "the token is in {}", file.display());
    }
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_trusts_a_private_authority_only_where_it_is_named() {
    let directory = tempfile::tempdir().unwrap();
    Upstream::new(directory.path()).commit("a.yaml", "1");
    let server = Https::start(directory.path(), "one", |_| None).await;
    let other = Https::start(directory.path(), "two", |_| None).await;
    assert!(fetch(&server.spec(None), directory.path()).await.is_ok());
    for ca_file in [None, Some(other.ca_file.clone())] {
        let error = fetch(&GitSource { ca_file, ..server.spec(None) }, directory.path()).await.unwrap_err();
        assert!(error.contains("certificate"), "{error}");
    }
    let empty = directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    for (file, part) in [("/nowhere/ca.pem", "read the certificate authority /nowhere/ca.pem"), (empty.to_str().unwrap(), "holds no PEM")] {
        let error = fetch(&GitSource { ca_file: Some(file.to_owned()), ..server.spec(None) }, directory.path()).await.unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

/// A redirect is followed on the same host; the token goes nowhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_does_not_take_the_token_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    upstream.commit("a.yaml", "1");
    let elsewhere = Https::start(directory.path(), "two", only_with(TOKEN)).await;
    let port = elsewhere.port;
    let redirect = move |request: &Request| {
        let query = request.uri().query().unwrap_or_default();
        let to = |place: String| Some(Response::builder().status(302).header("location", place).body(Body::empty()).unwrap());
        let path = request.uri().path();
        match path.strip_prefix("/same/").or(path.strip_prefix("/port/")).or(path.strip_prefix("/host/")) {
            Some(rest) if path.starts_with("/same/") => to(format!("/{rest}?{query}")),
            Some(rest) if path.starts_with("/port/") => to(format!("https://127.0.0.1:{port}/{rest}?{query}")),
            Some(rest) => to(format!("https://localhost:{port}/{rest}?{query}")),
            None => only_with(TOKEN)(request),
        }
    };
    let server = Https::start(directory.path(), "one", redirect).await;
    let both = fs::read_to_string(&server.ca_file).unwrap() + &fs::read_to_string(&elsewhere.ca_file).unwrap();
    fs::write(directory.path().join("both.pem"), both).unwrap();
    fs::write(directory.path().join("token"), TOKEN).unwrap();
    let spec = |below: &str| GitSource {
        url: format!("https://127.0.0.1:{}/{below}/repo.git", server.port),
        ca_file: Some(directory.path().join("both.pem").display().to_string()),
        token_file: Some(directory.path().join("token").display().to_string()),
        ..GitSource::default()
    };
    assert_eq!(fetch(&spec("same"), directory.path()).await.unwrap().files["a.yaml"], b"1");
    for below in ["port", "host"] {
        let error = fetch(&spec(below), directory.path()).await.unwrap_err();
        assert!(error.contains("redirect") && !error.contains(TOKEN), "{below}: {error}");
    }
    assert!(server.was_given(TOKEN) && !elsewhere.was_given(TOKEN));
}

/// Fetches with other bounds than the usual ones.
async fn bounded(spec: &GitSource, directory: &Path, change: impl FnOnce(&mut Options)) -> Result<Tree, String> {
    let mut options = options(directory);
    change(&mut options);
    match Git::new("web", spec, "", options).unwrap().fetch().await {
        Fetched::Tree(tree) => Ok(tree),
        Fetched::Refused { why, .. } | Fetched::Unreachable(why) => Err(why),
    }
}

/// Bytes below a directory.
fn used(directory: &Path) -> u64 {
    walk(directory).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// Content that no compression makes smaller.
fn noise(bytes: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    let letters = (0..bytes).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + u8::try_from(state >> 58).unwrap())
    });
    letters.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_beyond_its_bound_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    let small = upstream.commit("a.yaml", "1");
    let url = serve(directory.path().to_owned()).await;
    let spec = GitSource { url, ..GitSource::default() };
    let clones = directory.path().join("clones");
    fetch(&spec, directory.path()).await.unwrap();
    let before = used(&clones);
    upstream.commit("large.bin", &noise(4 << 20));
    for _ in 0..3 {
        let error = bounded(&spec, directory.path(), |options| options.bounds.received_bytes = 1 << 20).await.unwrap_err();
        assert!(error.contains("too large: more than 1048576 bytes"), "{error}");
        assert!(used(&clones) < before + (64 << 10), "{} bytes are left, {before} before", used(&clones));
    }
    let error = bounded(&spec, directory.path(), |options| options.bounds.file_bytes = 1 << 20).await.unwrap_err();
    assert!(error.contains("a file of more than 1048576 bytes") || error.contains("File too large"), "{error}");
    upstream.git(&["reset", "-q", "--hard", &small]);
    upstream.git(&["push", "-q", "-f", "origin", "HEAD:main"]);
    assert_eq!(bounded(&spec, directory.path(), |_| {}).await.unwrap().revision, small);
    assert!(used(&clones) < before + (64 << 10), "what the killed fetch left is gone: {}", used(&clones));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grown_clone_is_made_anew_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    let url = serve(directory.path().to_owned()).await;
    let spec = GitSource { url, ..GitSource::default() };
    let clones = directory.path().join("clones");
    let bound = 2_500_000;
    for index in 0..6 {
        upstream.commit("blob.bin", &(index.to_string() + &noise(1 << 20)));
        let commit = upstream.commit("a.yaml", &index.to_string());
        let tree = bounded(&spec, directory.path(), |options| options.bounds.clone_bytes = bound).await.unwrap();
        assert_eq!(tree.revision, commit);
        assert!(used(&clones) < bound + (2 << 20), "{} bytes after {index} fetches", used(&clones));
        assert!(clones.join("web/shallow").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_cut_off_at_the_time_limit() {
    let directory = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/repo.git", listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });
    let spec = GitSource { url, ..GitSource::default() };
    let error = bounded(&spec, directory.path(), |options| options.time_limit = Duration::from_secs(2)).await.unwrap_err();
    assert!(error.contains("longer than 2 seconds"), "{error}");
    held.abort();
    // The child is gone: nobody holds the clone.
    let lock = fs::File::options().write(true).open(directory.path().join("clones/web.lock")).unwrap();
    let start = Instant::now();
    while lock.try_lock().is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the fetch process still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fetch_process_is_held_to_its_memory_and_processor_time() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    upstream.commit("a.yaml", "1");
    let spec = GitSource { url: upstream.path.display().to_string(), ..GitSource::default() };
    // Room for the program itself, and not for a tree of 56 MiB.
    let little = |options: &mut Options| options.bounds.memory_bytes = 192 << 20;
    assert!(bounded(&spec, directory.path(), little).await.is_ok());
    for index in 0..8 {
        upstream.commit(&format!("{index}.yaml"), &noise(7 << 20));
    }
    let memory = bounded(&spec, directory.path(), little).await.unwrap_err();
    assert!(memory.contains("more than 201326592 bytes of memory"), "{memory}");
    let time = bounded(&spec, directory.path(), |options| options.bounds.cpu_seconds = 0).await.unwrap_err();
    assert!(time.contains("0 seconds of CPU time"), "{time}");
    assert_eq!(bounded(&spec, directory.path(), |_| {}).await.unwrap().files.len(), 9);
}

fn backend(root: &Path, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = if name == "Status" { response.status(value[..3].parse::<u16>().unwrap()) } else { response.header(name, value) };
    }
    response.body(Body::from(output[end + 4..].to_vec())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_repository_is_kept_as_a_shallow_clone() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    let first = upstream.commit("a.yaml", "1");
    let url = serve(directory.path().to_owned()).await;
    let spec = |reference: Option<&str>| GitSource { url: url.clone(), reference: reference.map(str::to_owned), ..GitSource::default() };
    for index in 0..5 {
        upstream.commit("b.yaml", &index.to_string());
    }
    let tree = fetch(&spec(None), directory.path()).await.unwrap();
    assert_eq!(
        (tree.files["a.yaml"].as_slice(), tree.files["b.yaml"].as_slice(), tree.subject.as_str()),
        (&b"1"[..], &b"4"[..], "Change b.yaml")
    );
    let clone = directory.path().join("clones/web");
    assert!(clone.join("shallow").exists(), "the clone has the whole history");
    let newest = upstream.commit("a.yaml", "2");
    assert_eq!(fetch(&spec(Some("main")), directory.path()).await.unwrap().revision, newest);
    upstream.git(&["tag", "v1", &first]);
    upstream.git(&["push", "-q", "origin", "v1"]);
    for reference in ["v1", first.as_str()] {
        let tree = fetch(&spec(Some(reference)), directory.path()).await.unwrap();
        assert_eq!((tree.revision.as_str(), tree.files["a.yaml"].as_slice()), (first.as_str(), &b"1"[..]), "{reference}");
    }
    let error = fetch(&spec(Some("gone")), directory.path()).await.unwrap_err();
    assert!(error.contains("no branch, tag or full commit id `gone`"), "{error}");
    // A clone that is broken is made anew in place.
    fs::remove_dir_all(clone.join("objects")).unwrap();
    fs::write(clone.join("HEAD"), "rubbish").unwrap();
    assert_eq!(fetch(&spec(None), directory.path()).await.unwrap().files["a.yaml"], b"2");
}

/// An sshd of our own, gone when dropped.
struct Sshd {
    child: Child,
    made_run_dir: bool,
}

impl Sshd {
    fn start(directory: &Path, port: u16) -> Self {
        let made_run_dir = fs::create_dir("/run/sshd").is_ok();
        for key in ["host", "other", "user"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(key)));
        }
        fs::copy(directory.join("user.pub"), directory.join("authorized")).unwrap();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nPasswordAuthentication no\n",
            directory.display()
        );
        fs::write(directory.join("sshd_config"), config).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(directory.join("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Self { child, made_run_dir };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "sshd does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.made_run_dir {
            let _ = fs::remove_dir("/run/sshd");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_needs_the_key_and_the_known_host() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = Upstream::new(directory.path());
    let commit = upstream.commit("a.yaml", "1");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _sshd = Sshd::start(directory.path(), port);
    let known = |key: &str| {
        let public = fs::read_to_string(directory.path().join(format!("{key}.pub"))).unwrap();
        let file = directory.path().join(format!("known_{key}"));
        fs::write(&file, format!("[127.0.0.1]:{port} {public}")).unwrap();
        Some(file.display().to_string())
    };
    let spec = GitSource {
        url: format!("ssh://root@127.0.0.1:{port}{}", upstream.path.display()),
        ssh_key_file: Some(directory.path().join("user").display().to_string()),
        known_hosts_file: known("host"),
        ..GitSource::default()
    };
    let tree = fetch(&spec, directory.path()).await.unwrap();
    assert_eq!((tree.revision, tree.files["a.yaml"].as_slice()), (commit, &b"1"[..]));
    let stranger = fetch(&GitSource { known_hosts_file: known("other"), ..spec.clone() }, directory.path()).await.unwrap_err();
    assert!(stranger.contains("known hosts"), "{stranger}");
    let key = directory.path().join("other").display().to_string();
    assert!(fetch(&GitSource { ssh_key_file: Some(key), ..spec }, directory.path()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_repository_is_read_with_its_owners_rights() {
    const OWNER: u32 = 54_321;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let upstream = Upstream::new(directory.path());
    upstream.commit("a.yaml", "1");
    run(Command::new("chown").arg("-R").arg(format!("{OWNER}:{OWNER}")).arg(&upstream.path));
    fs::set_permissions(&upstream.path, fs::Permissions::from_mode(0o700)).unwrap();
    let spec = GitSource { url: upstream.path.display().to_string(), ..GitSource::default() };
    // As a daemon's data directory: the owner may not look into it.
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fetch(&spec, &data).await.unwrap().files["a.yaml"], b"1");
    // What its owner may not read, we do not read for him.
    let objects = upstream.path.join("objects");
    chown(&objects, Some(0), Some(0)).unwrap();
    fs::set_permissions(&objects, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(fetch(&spec, &data).await.is_err());
}
