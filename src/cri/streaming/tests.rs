//! Sessions from their caller's side, and callers who mean ill.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::connection::{Connection, Side, Stream};
use super::frame::{self, Decoder, Frame};
use super::headers::Deflate;
use super::lane::{Inlet, Lane, PIECE_BYTES, ROOM_BYTES, Shared, room};
use super::session::{Ends, Report};
use super::websocket::Feeds;
use super::*;
use crate::cri::fake::FakeRuntime;
use crate::cri::{ContainerConfig, CriError, ExecSession, PodSandboxConfig};

const PATIENCE: Duration = Duration::from_secs(60);
/// More than a session may hold, everything on the way included.
const MUCH: usize = 2 << 20;

/// A runtime with a container that runs, and both ids.
async fn runtime() -> (Arc<dyn Runtime>, String, String) {
    let runtime = FakeRuntime::default();
    let sandbox = runtime.run_pod_sandbox(&PodSandboxConfig::default()).await.unwrap();
    let config = ContainerConfig { command: vec!["sleep".into()], ..ContainerConfig::default() };
    let container = runtime.create_container(&sandbox, &config).await.unwrap();
    runtime.start_container(&container).await.unwrap();
    (Arc::new(runtime), sandbox, container)
}

fn exec(container: &str, command: &str) -> Remote {
    let command = command.split(' ').map(str::to_owned).collect();
    let request = ExecRequest { command, stdin: true, stdout: true, stderr: true, tty: false };
    Remote { verb: Verb::Exec, container: container.into(), request }
}

/// A caller with its streams: outcome, stdin, stdout, stderr.
async fn call(runtime: &Arc<dyn Runtime>, remote: Remote, protocol: &'static str) -> (Connection, [Stream; 4]) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let runtime = Arc::clone(runtime);
    tokio::spawn(async move { remote::serve(far, &*runtime, remote, protocol).await });
    let mut connection = Connection::start(near, Side::Client);
    let mut streams = Vec::new();
    for name in ["error", "stdin", "stdout", "stderr"] {
        streams.push(connection.open(&[("streamtype", name)]).await.unwrap());
    }
    let Ok(streams) = <[Stream; 4]>::try_from(streams) else { unreachable!() };
    (connection, streams)
}

async fn all(inlet: &mut Inlet) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = tokio::time::timeout(PATIENCE, inlet.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn commands_run_over_spdy() {
    let (runtime, _, container) = runtime().await;
    for (protocol, command, expected) in [
        ("v4.channel.k8s.io", "sh -c exit 7", "\"message\":\"7\""),
        ("v4.channel.k8s.io", "echo hello", "\"Success\""),
        ("v2.channel.k8s.io", "sh -c exit 7", "command terminated with non-zero exit code: exit code 7"),
    ] {
        let words = if command.contains("exit") { "sh -c" } else { command };
        let mut remote = exec(&container, words);
        if words != command {
            remote.request.command.push("exit 7".into());
        }
        let (_connection, [mut outcome, _, mut stdout, mut stderr]) = call(&runtime, remote, protocol).await;
        assert_eq!(all(&mut stdout.inlet).await, if words == command { "hello\n" } else { "" });
        assert_eq!(all(&mut stderr.inlet).await, "");
        let outcome = all(&mut outcome.inlet).await;
        assert!(outcome.contains(expected) && (protocol.starts_with("v4") || !outcome.contains('{')), "{protocol}: {outcome}");
    }
    let (_connection, [mut outcome, ..]) = call(&runtime, exec("nobody", "true"), "v3.channel.k8s.io").await;
    assert_eq!(all(&mut outcome.inlet).await, "container nobody not found");
    for verb in [Verb::Exec, Verb::Attach] {
        let remote = Remote { verb, ..exec(&container, "cat") };
        let (connection, [mut outcome, stdin, mut stdout, _]) = call(&runtime, remote, "v4.channel.k8s.io").await;
        let text = "a".repeat(3 * PIECE_BYTES);
        assert!(stdin.outlet.send(text.as_bytes()).await);
        stdin.outlet.finish().await;
        assert_eq!(all(&mut stdout.inlet).await, text);
        assert!(all(&mut outcome.inlet).await.contains("Success"));
        tokio::time::timeout(PATIENCE, connection.end()).await.unwrap();
    }
}

/// The way to a server of what is wanted, by a WebSocket.
async fn knock(runtime: &Arc<dyn Runtime>, wanted: &Wanted, protocols: &str) -> http::Request<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = format!("ws://{}/", listener.local_addr().unwrap()).into_client_request().unwrap();
    let (runtime, wanted) = (Arc::clone(runtime), wanted.clone());
    let router = Router::new().route("/", any(move |request| serve(Arc::clone(&runtime), wanted.clone(), request)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    if !protocols.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn who_offers_only_what_is_not_known_is_refused() {
    use tokio_tungstenite::tungstenite::Error;
    let (runtime, sandbox, container) = runtime().await;
    let forward = Wanted::Forward { sandbox, ports: vec![80] };
    let known = "v4.channel.k8s.io";
    for wanted in [Wanted::Remote(exec(&container, "echo hello")), forward] {
        for protocols in ["v4.base64.channel.k8s.io", "nonsense, channel.k8s.io"] {
            let refused = tokio_tungstenite::connect_async(knock(&runtime, &wanted, protocols).await).await.err();
            let Some(Error::Http(answer)) = refused else { panic!("{protocols}: {refused:?}") };
            let text = String::from_utf8(answer.body().clone().unwrap_or_default()).unwrap();
            assert!(answer.status() == StatusCode::FORBIDDEN && text.contains(known), "{protocols}: {answer:?}");
        }
        let (_, answer) = tokio_tungstenite::connect_async(knock(&runtime, &wanted, &format!("nonsense, {known}")).await).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], known);
        let (_, answer) = tokio_tungstenite::connect_async(knock(&runtime, &wanted, "").await).await.unwrap();
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
    }
}

/// What goes into a tunnel's WebSocket comes out of the other side, and back.
async fn tunnel(runtime: Arc<dyn Runtime>, wanted: Wanted) -> DuplexStream {
    let request = knock(&runtime, &wanted, "SPDY/3.1+portforward.k8s.io").await;
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
    let (near, far) = tokio::io::duplex(64 << 10);
    let ((mut sender, mut receiver), (mut read, mut write)) = (socket.split(), tokio::io::split(far));
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            sender.send(Message::Binary(buffer[..count].to_vec().into())).await.unwrap();
        }
        sender.close().await
    });
    tokio::spawn(async move {
        while let Some(Ok(Message::Binary(bytes))) = receiver.next().await {
            write.write_all(&bytes).await.unwrap();
        }
    });
    near
}

async fn echo() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port.to_string()
}

#[tokio::test]
async fn connections_go_through_the_tunnel_and_over_plain_spdy() {
    let (runtime, sandbox, _) = runtime().await;
    let (near, far) = tokio::io::duplex(64 << 10);
    let (of_plain, at) = (Arc::clone(&runtime), sandbox.clone());
    tokio::spawn(async move { forward::serve(far, &of_plain, &at).await });
    for io in [near, tunnel(runtime, Wanted::Forward { sandbox, ports: vec![] }).await] {
        let (mut connection, port) = (Connection::start(io, Side::Client), echo().await);
        let mut pairs = Vec::new();
        for request in ["0", "1"] {
            let headers = |kind| [("port", port.as_str()), ("requestid", request), ("streamtype", kind)];
            // Whichever comes first.
            let kinds = if request == "0" { ["error", "data"] } else { ["data", "error"] };
            let one = connection.open(&headers(kinds[0])).await.unwrap();
            let two = connection.open(&headers(kinds[1])).await.unwrap();
            pairs.push(if request == "0" { (one, two) } else { (two, one) });
        }
        for (text, (mut error, mut data)) in [b"first".as_slice(), b"second"].into_iter().zip(pairs) {
            assert!(data.outlet.send(text).await);
            assert_eq!(data.inlet.next().await.as_deref(), Some(text));
            // Its end: the answer ends too, then both streams.
            data.outlet.finish().await;
            assert_eq!((all(&mut data.inlet).await, all(&mut error.inlet).await), (String::new(), String::new()));
        }
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port().to_string();
        let headers = |kind| [("port", free.as_str()), ("requestid", "2"), ("streamtype", kind)];
        let mut error = connection.open(&headers("error")).await.unwrap();
        let _data = connection.open(&headers("data")).await.unwrap();
        assert!(all(&mut error.inlet).await.contains("error forwarding port"));
    }
}

/// Whoever sends and is not read from is still missed once he has left.
#[tokio::test]
async fn a_caller_whose_input_waits_is_missed() {
    let (near, far) = tokio::io::duplex(16 << 10);
    let mut connection = Connection::start(far, Side::Server);
    let (read, mut write) = tokio::io::split(near);
    write.write_all(&frame::syn_stream(1, &Deflate::default().write(&[]))).await.unwrap();
    let _stream = connection.accept().await.unwrap();
    let (frame, mut sent) = (frame::data(1, false, &[b'x'; PIECE_BYTES]), 0);
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(2), write.write_all(&frame)).await {
        written.unwrap();
        sent += PIECE_BYTES;
    }
    assert!(sent >= ROOM_BYTES / 2 && !connection.gone().is_cancelled(), "{sent} bytes");
    drop((read, write));
    tokio::time::timeout(PATIENCE, connection.gone().cancelled()).await.unwrap();
}

/// A server that goes on talking is not talked to for somebody who has left.
#[tokio::test]
async fn a_forwarded_connection_ends_when_it_is_given_up() {
    let (runtime, sandbox, _) = runtime().await;
    let mut connection = Connection::start(raw(&runtime, &sandbox), Side::Client);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let headers = |kind| [("port", port.as_str()), ("requestid", "0"), ("streamtype", kind)];
    let mut error = connection.open(&headers("error")).await.unwrap();
    let data = connection.open(&headers("data")).await.unwrap();
    let (mut served, _) = listener.accept().await.unwrap();
    // As kubectl: its own client is gone.
    data.outlet.finish().await;
    data.outlet.reset().await;
    assert_eq!(all(&mut error.inlet).await, "");
    let ended = async { while served.write_all(&[0; 1024]).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn callers_are_told_what_is_spoken() {
    let (runtime, _, container) = runtime().await;
    let ask = async |headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::post("/"), |request, (name, value)| request.header(*name, *value));
        serve(Arc::clone(&runtime), Wanted::Remote(exec(&container, "true")), request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(ask(&[]).await.status(), 400);
    assert_eq!(ask(&[("upgrade", "SPDY/3.1")]).await.status(), 400, "no version");
    let refused = ask(&[("upgrade", "spdy/3.1"), (VERSION, "v9.channel.k8s.io")]).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(refused.headers().get_all(ACCEPTED).iter().count(), 4);
    let nowhere = ask(&[("upgrade", "SPDY/3.1"), (VERSION, "v9.channel.k8s.io, v4.channel.k8s.io")]).await;
    assert_eq!(nowhere.status(), 400, "not on a connection");
}

/// Output that nobody takes makes its command wait.
async fn endless_output(verb: Verb) {
    let ((shared, _words), (stdout, mut far)) = (Shared::new(), std::io::pipe().unwrap());
    let watched = stdout.try_clone().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    std::thread::spawn(move || {
        while far.write_all(&[b'y'; 4096]).is_ok() {
            counted.fetch_add(4096, Ordering::Relaxed);
        }
    });
    let (_exit, exit) = tokio::sync::oneshot::channel();
    let session = ExecSession { stdin: None, stdout: Some(stdout.into()), stderr: None, exit, resize: tokio::sync::mpsc::channel(1).0 };
    let lane = |channel| shared.outlet(Lane::Channel(channel));
    let (stdout, outcome) = (Some(lane(1)), lane(3));
    let ends = Ends { stdin: None, stdout, stderr: None, resize: None, outcome, report: Report::Status, silent: Vec::new() };
    let serving = tokio::spawn(session::run(ends, Ok::<_, CriError>(session), verb));
    // Frames wait for a connection that does not come for them; what the command writes then fills its pipe.
    let room = u64::try_from(rustix::pipe::fcntl_getpipe_size(&watched).unwrap()).unwrap();
    let full = || shared.output.capacity() == 0 && rustix::io::ioctl_fionread(&watched).is_ok_and(|waiting| waiting == room);
    let start = Instant::now();
    while !full() {
        let now = written.load(Ordering::Relaxed);
        assert!(now < MUCH, "{now} bytes that nobody has read");
        assert!(start.elapsed() < PATIENCE, "{now} bytes, and nothing is full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    serving.abort();
}

/// Input that nobody takes makes its sender wait.
async fn endless_input(verb: Verb) {
    let (runtime, _, container) = runtime().await;
    let remote = Remote { verb, ..exec(&container, "yes") };
    let (_connection, [_outcome, stdin, _stdout, _stderr]) = call(&runtime, remote, "v4.channel.k8s.io").await;
    let piece = [b'x'; PIECE_BYTES];
    let mut sent = 0;
    let start = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_millis(500), stdin.outlet.send(&piece)).await {
            Ok(taken) => {
                sent += piece.len();
                assert!(taken && sent < MUCH, "{sent} bytes that nobody has read");
            }
            // The room was used, and nothing more goes.
            Err(_) if sent >= ROOM_BYTES => break,
            Err(_) => assert!(start.elapsed() < PATIENCE, "only {sent} bytes"),
        }
    }
}

fn bomb() -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), true);
    compress.set_dictionary(&dictionary::dictionary()).unwrap();
    let mut block = Vec::with_capacity(64 << 10);
    compress.compress_vec(&vec![0; 8 << 20], &mut block, FlushCompress::Sync).unwrap();
    block
}

/// Frames as they come, until the connection ends or this one has come.
async fn frames(mut io: impl AsyncRead + Unpin, last: Frame) -> Vec<Frame> {
    let (mut decoder, mut frames, mut buffer) = (Decoder::default(), Vec::new(), [0; 4096]);
    while frames.last() != Some(&last) {
        match decoder.take().unwrap() {
            Some(frame) => frames.push(frame),
            None => match tokio::time::timeout(PATIENCE, io.read(&mut buffer)).await.unwrap() {
                Ok(count @ 1..) => decoder.push(&buffer[..count]),
                _ => return frames,
            },
        }
    }
    frames
}

fn raw(runtime: &Arc<dyn Runtime>, sandbox: &str) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (runtime, sandbox) = (Arc::clone(runtime), sandbox.to_owned());
    tokio::spawn(async move { forward::serve(far, &runtime, &sandbox).await });
    near
}

async fn endless_streams() {
    const OPENED: u32 = 1500;
    let (runtime, sandbox, _) = runtime().await;
    let (read, mut write) = tokio::io::split(raw(&runtime, &sandbox));
    let told = tokio::spawn(frames(read, Frame::Ping { id: 1 }));
    let mut deflate = Deflate::default();
    for number in 0..OPENED {
        let request = number.to_string();
        let block = deflate.write(&[("port", "80"), ("requestid", &request), ("streamtype", "error")]);
        write.write_all(&frame::syn_stream(number * 2 + 1, &block)).await.unwrap();
    }
    write.write_all(&frame::ping(1)).await.unwrap();
    let refused = told.await.unwrap().iter().filter(|frame| matches!(frame, Frame::RstStream { .. })).count();
    assert!(refused > 0, "everything was taken");
}

/// A server that has said everything and closed would be reset by what comes then, and its last words be lost.
#[tokio::test]
async fn a_client_says_nothing_of_its_own_accord() {
    let (near, far) = tokio::io::duplex(64 << 10);
    let mut connection = Connection::start(near, Side::Client);
    let serving = tokio::spawn(async move {
        let (read, mut write) = tokio::io::split(far);
        write.write_all(&frame::syn_reply(1, &Deflate::default().write(&[]))).await.unwrap();
        for _ in 0..8 * ROOM_BYTES / PIECE_BYTES {
            write.write_all(&frame::data(1, false, &[b'x'; PIECE_BYTES])).await.unwrap();
        }
        write.write_all(&frame::data(1, true, &[])).await.unwrap();
        write.write_all(&frame::ping(2)).await.unwrap();
        frames(read, Frame::Ping { id: 2 }).await
    });
    let mut stream = connection.open(&[("streamtype", "stdout")]).await.unwrap();
    assert_eq!(all(&mut stream.inlet).await.len(), 8 * ROOM_BYTES);
    let heard = serving.await.unwrap();
    assert!(matches!(heard.as_slice(), [Frame::SynStream { id: 1, .. }, Frame::Ping { id: 2 }]), "{}", heard.len());
}

/// What is held is what was sent, and not the buffers it came in.
async fn small_pieces_of_large_messages() {
    let mut feeds = Feeds::default();
    let (mut stdin, (shared, _words)) = (feeds.open(0, &room()), Shared::new());
    for _ in 0..100 {
        let read = Bytes::from(vec![0; 64 << 10]);
        feeds.hear(read.slice(..2), &shared.output).await;
        assert!(read.is_unique(), "64 KiB are held for a byte");
        let mut unknown = vec![0; 60 << 10];
        unknown[0] = 9;
        feeds.hear(unknown.into(), &shared.output).await;
    }
    for _ in 0..100 {
        assert_eq!(stdin.next().await.as_deref(), Some([0].as_slice()));
    }
    feeds.hear(vec![0; 1 + 3 * PIECE_BYTES].into(), &shared.output).await;
    for _ in 0..3 {
        assert_eq!(stdin.next().await.map(|piece| piece.len()), Some(PIECE_BYTES));
    }
}

/// Memory exhaustion by exec and attach, one of the attacks of the design's list.
#[tokio::test]
async fn memory_exhaustion_by_exec_and_attach() {
    for verb in [Verb::Exec, Verb::Attach] {
        endless_output(verb).await;
        endless_input(verb).await;
    }
    small_pieces_of_large_messages().await;
    let (runtime, sandbox, _) = runtime().await;
    let mut io = raw(&runtime, &sandbox);
    io.write_all(&frame::syn_stream(1, &bomb())).await.unwrap();
    assert_eq!(frames(io, Frame::GoAway).await, [], "a header bomb ends the connection");
    endless_streams().await;
}
