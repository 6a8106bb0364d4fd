//! Terminals of containers, and clients that are attached to what a container reads and writes.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::{ContainerConfig, ContainerState, CriError, ExecRequest, ExecSession};
use super::{PATIENCE, Subject, must};

/// Somebody who is attached.
struct Client {
    stdin: Option<File>,
    seen: Arc<Mutex<Vec<u8>>>,
    session: ExecSession,
}

/// Every stream.
fn everything() -> ExecRequest {
    ExecRequest { stdin: true, stdout: true, stderr: true, ..ExecRequest::default() }
}

impl Client {
    async fn attach(subject: &Subject, id: &str, tty: bool) -> Self {
        let request = ExecRequest { tty, stderr: !tty, ..everything() };
        Self::of(must(subject.runtime.attach(id, &request).await))
    }

    fn of(mut session: ExecSession) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stdin = session.stdin.take().map(File::from);
        for stream in [session.stdout.take(), session.stderr.take()].into_iter().flatten() {
            let seen = seen.clone();
            // Ends with the stream.
            std::thread::spawn(move || {
                let (mut stream, mut buffer) = (File::from(stream), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
                }
            });
        }
        Self { stdin, seen, session }
    }

    fn say(&mut self, text: &str) {
        let written = self.stdin.as_mut().map(|stdin| stdin.write_all(text.as_bytes()));
        assert!(matches!(written, Some(Ok(()))), "say {text:?}: {written:?}");
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    async fn sees(&self, text: &str) {
        let start = Instant::now();
        while !self.seen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "{text:?} is not in {:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Until an answer comes: over a socket it is attached before somebody is there to listen.
    async fn says_until_it_sees(&mut self, said: &str, text: &str) {
        let start = Instant::now();
        while !self.seen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "{text:?} is not in {:?}", self.seen());
            self.say(said);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Says back what it hears, and how it ends.
const PARROT: &str = "while read -r line; do echo \"heard $line\"; echo \"again $line\" >&2; done; echo over; exit 3";

fn parrot(subject: &Subject, name: &str) -> ContainerConfig {
    ContainerConfig { stdin: true, ..subject.container(name, &["sh", "-c", PARROT]) }
}

/// Runs every case. Leaves no sandbox behind.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn attach_suite(subject: &Subject) {
    everybody_attached_sees_what_is_written(subject).await;
    input_stays_open_or_ends_with_the_first(subject).await;
    a_terminal_is_talked_to(subject).await;
    a_terminal_is_what_was_made_one(subject).await;
    only_what_runs_is_attached_to(subject).await;
}

async fn everybody_attached_sees_what_is_written(subject: &Subject) {
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("seen")).await);
    let id = must(subject.start(&sandbox, &parrot(subject, "parrot")).await);
    let (mut one, two) = (Client::attach(subject, &id, false).await, Client::attach(subject, &id, false).await);
    // Over a socket it is answered before somebody is there.
    let start = Instant::now();
    while ![&one, &two].iter().all(|client| client.seen().contains("heard first\n") && client.seen().contains("again first\n")) {
        assert!(start.elapsed() < PATIENCE, "{:?} {:?}", one.seen(), two.seen());
        one.say("first\n");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(two);
    one.say("second\n");
    one.sees("heard second\n").await;
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn input_stays_open_or_ends_with_the_first(subject: &Subject) {
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("input")).await);
    let open = must(subject.start(&sandbox, &parrot(subject, "open")).await);
    let mut first = Client::attach(subject, &open, false).await;
    first.says_until_it_sees("one\n", "heard one\n").await;
    drop(first);
    let mut second = Client::attach(subject, &open, false).await;
    second.says_until_it_sees("two\n", "heard two\n").await;
    let once = ContainerConfig { stdin_once: true, ..parrot(subject, "once") };
    let once = must(subject.start(&sandbox, &once).await);
    let mut only = Client::attach(subject, &once, false).await;
    only.say("last words\n");
    only.stdin = None;
    let ended = subject.until_exited(&once).await;
    assert_eq!(ended.exit_code, 3);
    only.sees("heard last words\n").await;
    only.sees("over\n").await;
    assert!(tokio::time::timeout(PATIENCE, only.session.exit).await.is_ok(), "who is attached hears of the end");
    assert_eq!(must(subject.runtime.container_status(&open).await).state, ContainerState::Running);
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn a_terminal_is_talked_to(subject: &Subject) {
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("terminal")).await);
    let shell = ContainerConfig { stdin: true, tty: true, ..subject.container("shell", &["sh"]) };
    let id = must(subject.start(&sandbox, &shell).await);
    let mut client = Client::attach(subject, &id, true).await;
    assert!(client.session.resize.send((91, 17)).await.is_ok());
    // What is typed comes back, so what is looked for is not in it as it stands.
    client.says_until_it_sees("test -t 0 && test -t 2 && echo its-a-\"terminal\"\n", "its-a-terminal\r\n").await;
    client.says_until_it_sees("stty size\n", "17 91").await;
    drop(client);
    // A key as a person presses it: interrupts, and nothing else.
    let mut client = Client::attach(subject, &id, true).await;
    client.says_until_it_sees("echo back-\"again\"\n", "back-again").await;
    client.say("echo now-\"sleeping\"; sleep 100000\n");
    client.sees("now-sleeping").await;
    let start = Instant::now();
    while !client.seen().contains("still-here") {
        assert!(start.elapsed() < PATIENCE, "not interrupted: {}", client.seen());
        client.say("\u{3}");
        client.say("echo still-\"here\"\n");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.say("exit 5\n");
    assert_eq!(subject.until_exited(&id).await.exit_code, 5);
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

/// CRI has a caller say the same as when the container was made. One who says otherwise is served as it was made.
async fn a_terminal_is_what_was_made_one(subject: &Subject) {
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("mistaken")).await);
    let id = must(subject.start(&sandbox, &parrot(subject, "pipes")).await);
    let mut client = Client::attach(subject, &id, true).await;
    client.says_until_it_sees("one\n", "heard one\n").await;
    assert!(!client.seen().contains('\r'), "{:?}", client.seen());
    let shell = ContainerConfig { stdin: true, tty: true, ..subject.container("shell", &["sh"]) };
    let id = must(subject.start(&sandbox, &shell).await);
    let mut client = Client::attach(subject, &id, false).await;
    client.says_until_it_sees("test -t 0 && echo its-a-\"terminal\"\n", "its-a-terminal\r\n").await;
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn only_what_runs_is_attached_to(subject: &Subject) {
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("attachable")).await);
    let id = must(subject.start(&sandbox, &subject.container("over", &["true"])).await);
    subject.until_exited(&id).await;
    assert!(subject.runtime.attach(&id, &everything()).await.is_err(), "attached to what has ended");
    let nobody = subject.runtime.attach("nobody", &everything()).await;
    assert!(matches!(nobody, Err(CriError::NotFound(_))), "{nobody:?}");
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}
