//! Shims of other versions: an older one is driven on, a newer one is left alone.
//!
//! `saved_shim/` holds the program of an earlier version, and what an engine and a shim of a format before
//! the first would write and say, byte by byte: a format that changes must still know them.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podbay::cri::{ContainerState, ExecRequest, SandboxState};
use podbay::runtime::Engine;

use super::engine::{Directories, House, exec, shim};

const SANDBOX: &str = include_str!("saved_shim/sandbox.json");
const CONTAINER: &str = include_str!("saved_shim/container.json");
const MESSAGES: &str = include_str!("saved_shim/messages.txt");

/// The saved message of this name.
fn message(name: &str) -> Vec<u8> {
    let line = MESSAGES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    hex::decode(line.unwrap_or_else(|| panic!("no message {name}"))).unwrap()
}

/// Tags of requests, which never change.
const KILL: u8 = 3;
const LIST: u8 = 4;
const WATCH: u8 = 5;

/// Plays the saved messages on a socket; remembers what it was asked.
struct SavedShim {
    asked: Arc<Mutex<Vec<u8>>>,
}

impl SavedShim {
    fn listen(directory: &Path, hello: &'static str) -> Self {
        fs::create_dir_all(directory).unwrap();
        let listener = UnixListener::bind(directory.join("shim.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut watcher: Option<UnixStream> = None;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Who does not like the greeting may be gone before it asks.
                if stream.write_all(&message(hello)).is_err() {
                    continue;
                }
                let Some(tag) = request(&mut stream) else { continue };
                heard.lock().unwrap().push(tag);
                let answer = if tag == LIST { "containers" } else { "done" };
                if stream.write_all(&message(answer)).is_err() {
                    continue;
                }
                match tag {
                    WATCH => watcher = Some(stream),
                    KILL => watcher.as_mut().unwrap().write_all(&message("exited")).unwrap(),
                    _ => {}
                }
            }
        });
        Self { asked }
    }

    fn asked(&self) -> Vec<u8> {
        self.asked.lock().unwrap().clone()
    }
}

/// The tag of the next request.
fn request(stream: &mut UnixStream) -> Option<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; u32::from_le_bytes(head) as usize];
    stream.read_exact(&mut body).ok()?;
    body.first().copied()
}

/// Writes the saved records as if an older engine had made the pod on this boot.
fn put_records(house: &House, sandbox: &str, container: &str) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let home = house.options.root_dir.join("sandboxes/s-saved");
    fs::create_dir_all(home.join("containers/c-saved")).unwrap();
    fs::write(home.join("sandbox.json"), sandbox.replace("BOOT", boot.trim())).unwrap();
    fs::write(home.join("containers/c-saved/container.json"), container).unwrap();
}

async fn refusal(house: &House) -> String {
    let rootfs = Arc::new(Directories(house.images.clone()));
    match Engine::open(house.options.clone(), rootfs, house.network.clone()).await {
        Ok(_) => panic!("an engine opened on what it does not understand"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_saved_older_shim_is_taken_over() {
    let house = House::new("saved");
    put_records(&house, SANDBOX, CONTAINER);
    let older = SavedShim::listen(&house.options.run_dir.join("sandboxes/s-saved"), "hello");
    let subject = house.open().await;
    let found = subject.runtime.pod_sandbox_status("s-saved").await.unwrap();
    assert_eq!((found.state, found.metadata.name.as_str()), (SandboxState::Ready, "web"));
    let running = subject.runtime.container_status("c-saved").await.unwrap();
    assert_eq!((running.state, running.image.as_str()), (ContainerState::Running, "shop/web:1"));
    assert_eq!(older.asked(), [WATCH, LIST], "taking over only looks");

    subject.runtime.stop_container("c-saved", Duration::from_secs(60)).await.unwrap();
    let ended = subject.runtime.container_status("c-saved").await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, 143));
    assert!(older.asked().contains(&KILL));
    subject.runtime.remove_pod_sandbox("s-saved").await.unwrap();
    assert!(house.network.has("-uid-saved"), "its network was its pod's");
    house.close(subject).await;
}

#[tokio::test]
async fn a_newer_shim_is_named_and_its_pod_left_alone() {
    let house = House::new("newer-shim");
    put_records(&house, SANDBOX, CONTAINER);
    let newer = SavedShim::listen(&house.options.run_dir.join("sandboxes/s-saved"), "newer");
    let why = refusal(&house).await;
    assert!(why.contains("is of a newer podbay (format 99; this one knows up to 1)"), "{why}");
    assert!(why.contains("its pod is left alone, start the newer podbay again"), "{why}");
    assert!(newer.asked().iter().all(|tag| *tag == WATCH), "{:?}", newer.asked());
    assert!(house.options.root_dir.join("sandboxes/s-saved/containers/c-saved/container.json").exists());
    assert!(house.options.run_dir.join("sandboxes/s-saved/shim.sock").exists());
    // With the newer podbay gone for good there is still a way out.
    podbay::runtime::reset(&house.options, &*house.network).await.unwrap();
}

#[tokio::test]
async fn a_newer_record_is_named_and_its_pod_left_alone() {
    for (sandbox, container, file) in [
        (
            SANDBOX.replace("\"version\": 0", "\"version\": 99").replace("\"phase\": \"Ready\"", "\"phase\": 3"),
            CONTAINER.to_owned(),
            "sandbox.json",
        ),
        (SANDBOX.to_owned(), CONTAINER.replace("\"version\": 0", "\"version\": 99").replace("\"config\"", "\"plan\""), "container.json"),
    ] {
        let house = House::new("newer-record");
        put_records(&house, &sandbox, &container);
        let shim = SavedShim::listen(&house.options.run_dir.join("sandboxes/s-saved"), "hello");
        let why = refusal(&house).await;
        assert!(why.contains(file) && why.contains("was written by a newer podbay (format 99; this one knows up to 1)"), "{why}");
        assert!(!shim.asked().contains(&KILL), "{:?}", shim.asked());
        assert!(house.options.root_dir.join("sandboxes/s-saved/containers/c-saved/container.json").exists());
        podbay::runtime::reset(&house.options, &*house.network).await.unwrap();
    }
}

/// An upgrade: the programs are others, the pod runs on under the shim it was started by.
#[tokio::test]
async fn a_real_pod_runs_on_when_every_program_is_replaced() {
    upgrade("replaced", &fs::read(shim()).unwrap(), "").await;
}

/// The same from the program of an earlier version, kept as it was built (`make release` of 0.1.0): static, so
/// that it runs wherever the tests do.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_pod_of_an_earlier_program_is_driven_on() {
    let program = zstd::decode_all(&include_bytes!("saved_shim/podbay-shim-0.1.0-x86_64.zst")[..]).unwrap();
    upgrade("earlier", &program, "is of an older podbay, which cannot do this").await;
}

/// `lacks`: what is said of what the shim of that program cannot do.
async fn upgrade(name: &str, earlier: &[u8], lacks: &str) {
    let mut house = House::new(name);
    let before = house.dir.path().join("podbay-shim.old");
    fs::write(&before, earlier).unwrap();
    fs::set_permissions(&before, fs::Permissions::from_mode(0o755)).unwrap();
    house.options.shim_path.clone_from(&before);
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod(name)).await.unwrap();
    let id = subject.start(&sandbox, &subject.container("main", &["sleep", "1000"])).await.unwrap();
    let started = subject.runtime.container_status(&id).await.unwrap().started_at;
    drop(subject);
    fs::remove_file(&before).unwrap();
    house.options.shim_path = shim();
    let subject = house.open().await;
    let running = subject.runtime.container_status(&id).await.unwrap();
    assert_eq!((running.state, running.started_at), (ContainerState::Running, started), "nothing was restarted");
    assert_eq!(exec(&subject, &id, "echo still").await.1, "still\n");
    let request = ExecRequest { stdout: true, ..ExecRequest::default() };
    let attached = subject.runtime.attach(&id, &request).await.map(drop);
    let reopened = subject.runtime.reopen_container_log(&id).await;
    for tried in [attached, reopened] {
        let said = tried.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(said.contains(lacks) && said.is_empty() == lacks.is_empty(), "{said}");
    }
    let second = subject.start(&sandbox, &subject.container("second", &["sh", "-c", "exit 3"])).await.unwrap();
    assert_eq!(subject.until_exited(&second).await.exit_code, 3);
    subject.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(subject.runtime.container_status(&id).await.unwrap().exit_code, 137);
    house.close(subject).await;
}
