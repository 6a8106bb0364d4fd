//! Exec and port-forward with streams.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{ExecRequest, ExecSession};
use super::{PATIENCE, Subject, must};

fn request(script: &str) -> ExecRequest {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecRequest { command, stdout: true, ..ExecRequest::default() }
}

/// On a thread of its own, with patience.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> T {
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(Ok(value))) => value,
        other => panic!("{:?}", other.map(|joined| joined.map(|result| result.map(drop)))),
    }
}

async fn read_all(fd: Option<OwnedFd>) -> String {
    let Some(fd) = fd else { panic!("a stream that was asked for") };
    aside(move || {
        let mut text = String::new();
        // A terminal ends with an error.
        std::fs::File::from(fd).read_to_string(&mut text).ok();
        Ok(text)
    })
    .await
}

/// What was written is given back, as much as was written.
async fn echoes(session: &mut ExecSession, text: &'static str, expected: &'static str) {
    let (Some(stdin), Some(stdout)) = (&session.stdin, &session.stdout) else { panic!("streams that were asked for") };
    let (stdin, stdout) = (stdin.try_clone(), stdout.try_clone());
    let heard = aside(move || {
        std::fs::File::from(stdin?).write_all(text.as_bytes())?;
        let (mut heard, mut stdout) = (Vec::new(), std::fs::File::from(stdout?));
        let mut byte = [0];
        while !heard.ends_with(expected.as_bytes()) && stdout.read(&mut byte)? > 0 {
            // Terminals begin a line by two bytes.
            heard.extend(byte.iter().filter(|byte| **byte != b'\r'));
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    });
    assert_eq!(heard.await, expected);
}

async fn code(session: ExecSession) -> Option<i32> {
    tokio::time::timeout(PATIENCE, session.exit).await.ok().and_then(Result::ok).and_then(Result::ok)
}

/// Commands with streams, which every implementation understands.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn stream_suite(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("streams")).await);
    let id = must(subject.start(&sandbox, &subject.container("host", &["sleep", "100000"])).await);
    let cat = ExecRequest { command: vec!["cat".into()], stdin: true, stdout: true, ..ExecRequest::default() };
    let mut session = must(runtime.exec(&id, &cat).await);
    echoes(&mut session, "to and fro", "to and fro").await;
    session.stdin = None;
    assert_eq!(read_all(session.stdout.take()).await, "");
    assert_eq!(code(session).await, Some(0));
    let mut session = must(runtime.exec(&id, &request("echo hello")).await);
    assert_eq!(read_all(session.stdout.take()).await, "hello\n");
    assert_eq!(code(session).await, Some(0));
    assert_eq!(code(must(runtime.exec(&id, &request("exit 7")).await)).await, Some(7));
    let missing = runtime.exec("0123456789abcdef0123456789abcdef", &cat).await;
    assert!(missing.is_err(), "a container that nobody has");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

/// What takes a kernel. The image is a busybox.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn inside_stream_suite(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("streams-inside")).await);
    let id = must(subject.start(&sandbox, &subject.container("host", &["sleep", "100000"])).await);
    streams_are_kept_apart(subject, &id).await;
    much_goes_through(subject, &id).await;
    terminals_have_a_size(subject, &id).await;
    what_is_not_there_does_not_start(subject, &id).await;
    ports_are_reached(subject, &sandbox).await;
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn streams_are_kept_apart(subject: &Subject, id: &str) {
    let wanted = ExecRequest { stderr: true, ..request("echo out; echo err >&2; exit 3") };
    let mut session = must(subject.runtime.exec(id, &wanted).await);
    let (out, err) = (session.stdout.take(), session.stderr.take());
    let (out, err) = tokio::join!(read_all(out), read_all(err));
    assert_eq!((out.as_str(), err.as_str(), code(session).await), ("out\n", "err\n", Some(3)));
}

/// More than any buffer on the way holds, and nothing is lost at the end.
async fn much_goes_through(subject: &Subject, id: &str) {
    const BYTES: usize = 4 << 20;
    let count = ExecRequest { stdin: true, ..request("wc -c") };
    let mut session = must(subject.runtime.exec(id, &count).await);
    let Some(stdin) = session.stdin.take() else { panic!("a stream that was asked for") };
    aside(move || std::fs::File::from(stdin).write_all(&vec![b'x'; BYTES])).await;
    assert_eq!(read_all(session.stdout.take()).await.trim(), BYTES.to_string());
    assert_eq!(code(session).await, Some(0));
    let mut session = must(subject.runtime.exec(id, &request(&format!("head -c {BYTES} /dev/zero | tr '\\0' y"))).await);
    let out = read_all(session.stdout.take()).await;
    assert!(out.len() == BYTES && out.bytes().all(|byte| byte == b'y'), "{}", out.len());
    assert_eq!(code(session).await, Some(0));
}

async fn terminals_have_a_size(subject: &Subject, id: &str) {
    let script = "until [ \"$(stty size 2>/dev/null)\" = '43 131' ]; do sleep 0.05; done; read line; echo got $line; test -t 1 && exit 5";
    let wanted = ExecRequest { tty: true, stdin: true, ..request(script) };
    let mut session = must(subject.runtime.exec(id, &wanted).await);
    assert!(session.stderr.is_none(), "a terminal has one output");
    assert!(session.resize.send((131, 43)).await.is_ok());
    // The line is given back by the terminal, then by the command.
    echoes(&mut session, "one\n", "one\ngot one\n").await;
    session.stdin = None;
    read_all(session.stdout.take()).await;
    assert_eq!(code(session).await, Some(5));
}

/// Said at once, or by its exit code.
async fn what_is_not_there_does_not_start(subject: &Subject, id: &str) {
    let wanted = ExecRequest { command: vec!["/no/such/program".into()], ..request("") };
    if let Ok(session) = subject.runtime.exec(id, &wanted).await {
        assert_ne!(code(session).await, Some(0));
    }
}

async fn ports_are_reached(subject: &Subject, sandbox: &str) {
    let served = subject.container("port", &["sh", "-c", "while :; do nc -l -p 8099 -e cat; done"]);
    must(subject.start(sandbox, &served).await);
    let start = Instant::now();
    loop {
        match echoed(subject, sandbox, 8099).await {
            Ok(text) if text == "ping" => break,
            other => assert!(start.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let closed = echoed(subject, sandbox, 8098).await;
    assert!(closed.is_err() || closed.is_ok_and(|text| text.is_empty()), "a port on which nobody listens");
}

async fn echoed(subject: &Subject, sandbox: &str, port: u16) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut stream = subject.runtime.port_forward(sandbox, port).await.map_err(|error| error.to_string())?;
    stream.write_all(b"ping").await.map_err(told)?;
    // Whoever has it all answers and ends.
    stream.shutdown().await.map_err(told)?;
    let mut text = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.map_err(|_| "no end".to_owned())?.map_err(told)?;
    Ok(text)
}
