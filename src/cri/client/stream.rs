//! Exec, attach and port-forward in the runtime behind the socket: its answer is a URL, where SPDY/3.1 is spoken, by
//! containerd, CRI-O and ourselves alike.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use rustix::pipe::PipeFlags;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::cri::streaming::connection::{Connection, Side, Stream};
use crate::cri::streaming::lane::{Inlet, PIECE_BYTES};
use crate::cri::streaming::sys::End;
use crate::cri::streaming::{EXEC, PORT_FORWARD, SPDY, VERSION};
use crate::cri::{CriError, Duplex, ExecRequest, ExecSession};
use crate::tls::connect::probe;

/// For the runtime to take us in.
const DIAL: Duration = Duration::from_secs(30);
/// Of what the runtime says when it refuses, or of an outcome.
const WORDS_LIMIT_BYTES: usize = 64 << 10;

/// A SPDY connection to where the runtime's answer leads.
async fn dial(attempt: &str, url: &str, protocol: &str) -> Result<Connection, CriError> {
    let dialled = tokio::time::timeout(DIAL, upgraded(url, protocol)).await;
    let dialled = dialled.unwrap_or_else(|_| Err("it does not answer".to_owned()));
    dialled.map_err(|cause| CriError::failed(attempt, format!("the runtime's streaming server ({}): {cause}", place(url))))
}

/// A URL without its token.
fn place(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(place, _)| place)
}

async fn upgraded(url: &str, protocol: &str) -> Result<Connection, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("only plain HTTP is spoken there".to_owned());
    }
    let authority = uri.authority().ok_or("it is nowhere")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(|error| error.to_string())?;
    probe(&stream);
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, SPDY)
        .header(VERSION, protocol)
        .body(Body::empty());
    let mut answer = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(told)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let text = Limited::new(answer.into_body(), WORDS_LIMIT_BYTES).collect().await;
        let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(format!("{status} {text}"));
    }
    let io = hyper::upgrade::on(&mut answer).await.map_err(told)?;
    Ok(Connection::start(TokioIo::new(io), Side::Client))
}

/// Joins a session at a URL.
pub(super) async fn remote(attempt: &str, url: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
    let mut connection = dial(attempt, url, EXEC).await?;
    let mut wanted = vec!["error"];
    for (wants, name) in [(request.stdin, "stdin"), (request.stdout, "stdout"), (request.stderr, "stderr"), (request.tty, "resize")] {
        wanted.extend(wants.then_some(name));
    }
    let mut streams = std::collections::BTreeMap::new();
    for name in wanted {
        let refused = || CriError::failed(attempt, format!("the runtime takes no stream for {name}"));
        streams.insert(name, connection.open(&[("streamtype", name)]).await.ok_or_else(refused)?);
    }
    let failed = |cause: io::Error| CriError::failed(attempt, cause);
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()));
    let (mut stdin, mut stdout, mut stderr) = (None, None, None);
    let mut inward = None;
    if let Some(stream) = streams.remove("stdin") {
        let (ours, theirs) = pipe()?;
        stdin = Some(theirs);
        inward = Some((End::new(ours).map_err(failed)?, stream));
    }
    let mut outward = |name: &str, given: &mut Option<OwnedFd>| {
        let Some(stream) = streams.remove(name) else { return Ok(None) };
        let (theirs, ours) = pipe()?;
        *given = Some(theirs);
        Ok::<_, CriError>(Some((End::new(ours).map_err(failed)?, stream.inlet)))
    };
    let (out, err) = (outward("stdout", &mut stdout)?, outward("stderr", &mut stderr)?);
    let outcome = streams.remove("error").map(|stream| stream.inlet);
    let (exit_sender, exit) = oneshot::channel();
    let (resize, sizes) = mpsc::channel(8);
    let session = Session { inward, out, err, outcome, sizes: streams.remove("resize").map(|stream| (sizes, stream)) };
    tokio::spawn(session.keep(connection, exit_sender));
    Ok(ExecSession { stdin, stdout, stderr, exit, resize })
}

/// A session's ends here, each with its stream.
struct Session {
    inward: Option<(End, Stream)>,
    out: Option<(End, Inlet)>,
    err: Option<(End, Inlet)>,
    outcome: Option<Inlet>,
    sizes: Option<(mpsc::Receiver<(u16, u16)>, Stream)>,
}

impl Session {
    /// Until the runtime has told the outcome, or nobody here wants to know it.
    async fn keep(self, connection: Connection, mut exit: oneshot::Sender<Result<i32, String>>) {
        let Self { inward, mut out, mut err, outcome, sizes } = self;
        let outputs = async { tokio::join!(copy_out(&mut out), copy_out(&mut err), read_all(outcome)).2 };
        let inputs = async {
            tokio::join!(copy_in(inward), copy_sizes(sizes));
            pending().await
        };
        let outcome = tokio::select! {
            outcome = outputs => outcome,
            () = inputs => return,
            () = exit.closed() => return,
        };
        drop((out, err));
        // Nobody knows it where the connection broke.
        if let Some(told) = code_of(&outcome) {
            exit.send(told).ok();
        }
        connection.end().await;
    }
}

async fn copy_out(to: &mut Option<(End, Inlet)>) {
    let Some((end, inlet)) = to else { return };
    let mut wanted = true;
    while let Some(bytes) = inlet.next().await {
        // What nobody reads any more is still taken: the outcome comes after it.
        wanted = wanted && end.write_all(&bytes).await.is_ok();
    }
}

async fn copy_in(from: Option<(End, Stream)>) {
    let Some((end, stream)) = from else { return };
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count) = end.read(&mut buffer).await {
        if count == 0 || !stream.outlet.send(&buffer[..count]).await {
            break;
        }
    }
    stream.outlet.finish().await;
}

async fn copy_sizes(from: Option<(mpsc::Receiver<(u16, u16)>, Stream)>) {
    let Some((mut sizes, stream)) = from else { return };
    while let Some((columns, rows)) = sizes.recv().await {
        stream.outlet.send(serde_json::json!({"Width": columns, "Height": rows}).to_string().as_bytes()).await;
    }
}

/// What is said on a stream to its end; too much is cut.
async fn read_all(inlet: Option<Inlet>) -> Vec<u8> {
    let mut all = Vec::new();
    let Some(mut inlet) = inlet else { return all };
    while let Some(bytes) = inlet.next().await {
        all.extend_from_slice(&bytes);
        all.truncate(WORDS_LIMIT_BYTES);
    }
    all
}

/// The exit code that an outcome tells, or why there is none; `None`: it tells nothing.
fn code_of(outcome: &[u8]) -> Option<Result<i32, String>> {
    let status: serde_json::Value = serde_json::from_slice(outcome).ok()?;
    if status["status"] == "Success" {
        return Some(Ok(0));
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode").filter_map(|cause| cause["message"].as_str()?.parse().ok());
    Some(codes.next().ok_or_else(|| status["message"].as_str().unwrap_or("the command failed").to_owned()))
}

/// A connection to a port at a URL.
pub(super) async fn forward(attempt: &str, url: &str, port: u16) -> Result<Box<dyn Duplex>, CriError> {
    let mut connection = dial(attempt, url, PORT_FORWARD).await?;
    let port = port.to_string();
    let refused = || CriError::failed(attempt, "the runtime takes no stream for it");
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
    let error = connection.open(&headers("error")).await.ok_or_else(refused)?;
    error.outlet.finish().await;
    let data = connection.open(&headers("data")).await.ok_or_else(refused)?;
    let (near, far) = tokio::io::duplex(4 * PIECE_BYTES);
    let failure = Arc::new(Mutex::new(None));
    let (held, dropped) = oneshot::channel();
    tokio::spawn(carry(connection, far, data, error.inlet, (Arc::clone(&failure), dropped)));
    Ok(Box::new(Forwarded { stream: near, failure, _held: held }))
}

type Failure = Arc<Mutex<Option<String>>>;

async fn carry(
    connection: Connection,
    far: DuplexStream,
    data: Stream,
    error: Inlet,
    (failure, dropped): (Failure, oneshot::Receiver<()>),
) {
    let (mut read, mut write) = tokio::io::split(far);
    let Stream { mut inlet, outlet, .. } = data;
    let inward = async {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count) = read.read(&mut buffer).await {
            if count == 0 || !outlet.send(&buffer[..count]).await {
                break;
            }
        }
        outlet.finish().await;
        pending().await
    };
    let outward = async {
        while let Some(bytes) = inlet.next().await {
            if write.write_all(&bytes).await.is_err() {
                // Nobody reads it any more.
                return;
            }
        }
        let said = read_all(Some(error)).await;
        if !said.is_empty() {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(String::from_utf8_lossy(&said).into_owned());
        }
        write.shutdown().await.ok();
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
        // Nobody is left who would read or write it, whatever the pod still has to say.
        // The connection is theirs alone, and goes with them.
        _ = dropped => return,
    }
    connection.end().await;
}

/// The pod's side of a forwarded port: what went wrong there is told at its end.
struct Forwarded {
    stream: DuplexStream,
    failure: Failure,
    /// Dropped with it.
    _held: oneshot::Sender<()>,
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Poll::Ready(failure.map_or(Ok(()), |cause| Err(io::Error::other(cause))));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_a_code_or_a_cause() {
        assert_eq!(code_of(br#"{"metadata":{},"status":"Success"}"#), Some(Ok(0)));
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(code_of(failed), Some(Ok(7)));
        assert_eq!(code_of(br#"{"status":"Failure","message":"no such program"}"#), Some(Err("no such program".to_owned())));
        assert_eq!(code_of(b""), None);
    }

    #[test]
    fn tokens_are_told_to_nobody() {
        assert_eq!(place("http://127.0.0.1:1/exec/secret"), "http://127.0.0.1:1/exec");
    }
}
