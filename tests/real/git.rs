//! Git sources over their real transports: smart HTTP, ssh, and a repository of another user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Response, Uri};
use podbay::model::GitSource;
use podbay::sync::git::{Git, Options};
use podbay::sync::source::{Fetch as _, Fetched, Tree};

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
        Fetched::Unreachable(why) => Err(why),
    }
}

/// `git http-backend` behind a small server.
async fn serve(root: PathBuf) -> String {
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let root = root.clone();
        async move { tokio::task::spawn_blocking(move || backend(&root, &method, &uri, &headers, &body)).await.unwrap() }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    format!("http://{address}/repo.git")
}

fn backend(root: &Path, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response<axum::body::Body> {
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
    response.body(axum::body::Body::from(output[end + 4..].to_vec())).unwrap()
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
    assert_eq!(fetch(&spec, directory.path()).await.unwrap().files["a.yaml"], b"1");
    // What its owner may not read, we do not read for him.
    let objects = upstream.path.join("objects");
    chown(&objects, Some(0), Some(0)).unwrap();
    fs::set_permissions(&objects, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(fetch(&spec, directory.path()).await.is_err());
}
