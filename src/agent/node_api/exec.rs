//! Commands in a container over a WebSocket.
//!
//! Binary messages begin with a channel byte: 0 stdin, 1 stdout, 2 stderr, 3 the outcome as a Status, 4 the
//! terminal's size; in v5 also 255, which closes the channel named by the byte after it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::{NodeApi, Parameters, Refusal};
use crate::cri::{ExecRequest, ExecSession};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const OUTCOME: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What is written last may come from a child that outlives the command.
const DRAIN: Duration = Duration::from_secs(1);

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

fn websocket(upgrade: Upgrade) -> Result<WebSocketUpgrade, Refusal> {
    let only = "this node speaks exec over WebSocket (v5.channel.k8s.io, v4.channel.k8s.io), not SPDY";
    upgrade.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, only))
}

pub async fn exec(
    State(api): State<Arc<NodeApi>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    query: RawQuery,
    upgrade: Upgrade,
) -> Result<Response, Refusal> {
    let upgrade = websocket(upgrade)?.protocols(["v5.channel.k8s.io", "v4.channel.k8s.io"]);
    let query = Parameters::of(query);
    let request = ExecRequest {
        command: query.all("command"),
        tty: query.flag(["tty", "tty"]),
        stdin: query.flag(["input", "stdin"]),
        stdout: query.flag(["output", "stdout"]),
        stderr: query.flag(["error", "stderr"]) && !query.flag(["tty", "tty"]),
    };
    if request.command.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify at least one command for the container"));
    }
    let found = api.running(&namespace, &pod, &container).await?;
    let session = api.runtime.exec(&found.id, &request).await;
    Ok(upgrade.on_upgrade(move |socket| async move {
        match session {
            Ok(session) => serve(socket, session).await,
            // As the kubelet: a command that cannot be started is an outcome, not a refused upgrade.
            Err(error) => refuse(socket, &error.to_string()).await,
        }
    }))
}

/// The runtime has no way back to the streams a container was started with.
pub async fn attach(
    State(api): State<Arc<NodeApi>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
) -> Result<Response, Refusal> {
    api.running(&namespace, &pod, &container).await?;
    let message = "attach is not supported by this runtime: use exec for a shell, or logs -f for the container's output";
    Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, message))
}

async fn refuse(mut socket: WebSocket, cause: &str) {
    let status = json!({"metadata": {}, "status": "Failure", "message": cause, "reason": "InternalError", "code": 500});
    let frame = frame(OUTCOME, status.to_string().as_bytes());
    // The caller may have left already.
    if socket.send(Message::Binary(frame)).await.is_ok() {
        socket.send(goodbye()).await.ok();
    }
}

/// A close without a status reads as a failure to kubectl (RFC 6455, section 7.4.1: 1000 is the normal end).
pub(super) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

fn frame(channel: u8, data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.put_slice(data);
    bytes.freeze()
}

async fn serve(socket: WebSocket, session: ExecSession) {
    let ExecSession { stdin, stdout, stderr, exit, resize } = session;
    let (mut sender, mut receiver) = socket.split();
    let (output, mut frames) = mpsc::channel::<Bytes>(16);
    let first = if stdout.is_some() { STDOUT } else { STDERR };
    let mut readers = tokio::task::JoinSet::new();
    for (channel, fd) in [(STDOUT, stdout), (STDERR, stderr)] {
        if let Some(fd) = fd {
            let output = output.clone();
            readers.spawn_blocking(move || copy_out(channel, fd, &output));
        }
    }
    let (input, take) = mpsc::channel::<Bytes>(16);
    if let Some(fd) = stdin {
        // Ends with its channel; not waited for.
        drop(tokio::task::spawn_blocking(move || copy_in(fd, take)));
    }
    let send = async move {
        // An empty message first: the streams are there.
        if sender.send(Message::Binary(frame(first, &[]))).await.is_err() {
            return;
        }
        while let Some(frame) = frames.recv().await {
            if sender.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
        sender.send(goodbye()).await.ok();
    };
    let finish = async move {
        let code = exit.await.ok();
        let drained = async { while readers.join_next().await.is_some() {} };
        // A reader that goes on belongs to somebody the command left behind.
        tokio::time::timeout(DRAIN, drained).await.ok();
        output.send(frame(OUTCOME, outcome(code).to_string().as_bytes())).await.ok();
        readers.detach_all();
        drop(output);
    };
    let take_in = async move {
        let mut input = Some(input);
        while let Some(Ok(message)) = receiver.next().await {
            let Message::Binary(data) = message else {
                if matches!(message, Message::Close(_)) {
                    break;
                }
                continue;
            };
            hear(&data, &mut input, &resize).await;
        }
    };
    let talk = async { tokio::join!(send, finish) };
    tokio::pin!(talk);
    tokio::select! {
        _ = &mut talk => {}
        // The caller left: its input ends, and with it whoever reads it.
        () = take_in => {}
    }
}

/// One message from the caller.
async fn hear(data: &Bytes, input: &mut Option<mpsc::Sender<Bytes>>, resize: &mpsc::Sender<(u16, u16)>) {
    match data.split_first() {
        Some((&STDIN, bytes)) if !bytes.is_empty() => {
            if let Some(sender) = input {
                sender.send(data.slice(1..)).await.ok();
            }
        }
        Some((&RESIZE, bytes)) => {
            if let Ok(size) = serde_json::from_slice::<Size>(bytes) {
                resize.send((size.width, size.height)).await.ok();
            }
        }
        Some((&CLOSE, [STDIN])) => *input = None,
        _ => {}
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// The Status on channel 3.
fn outcome(code: Option<i32>) -> serde_json::Value {
    match code {
        Some(0) => json!({"metadata": {}, "status": "Success"}),
        Some(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}
        }),
        None => json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "the runtime did not say how the command ended"}),
    }
}

/// Blocking reads on a thread of their own want a blocking descriptor.
fn blocking(fd: OwnedFd) -> File {
    if let Ok(flags) = rustix::fs::fcntl_getfl(fd.as_fd()) {
        rustix::fs::fcntl_setfl(fd.as_fd(), flags - OFlags::NONBLOCK).ok();
    }
    File::from(fd)
}

fn copy_out(channel: u8, fd: OwnedFd, output: &mpsc::Sender<Bytes>) {
    let mut file = blocking(fd);
    let mut buffer = vec![0; 16 << 10];
    // A terminal whose last process is gone reads as an error.
    while let Ok(read) = file.read(&mut buffer) {
        if read == 0 || output.blocking_send(frame(channel, &buffer[..read])).is_err() {
            return;
        }
    }
}

fn copy_in(fd: OwnedFd, mut input: mpsc::Receiver<Bytes>) {
    let mut file = blocking(fd);
    while let Some(bytes) = input.blocking_recv() {
        if file.write_all(&bytes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_what_kubectl_reads() {
        assert_eq!(outcome(Some(0))["status"], "Success");
        let failed = outcome(Some(7));
        assert_eq!((failed["reason"].as_str(), failed["details"]["causes"][0]["message"].as_str()), (Some("NonZeroExitCode"), Some("7")));
        assert_eq!(outcome(None)["reason"], "InternalError");
    }

    #[tokio::test]
    async fn messages_find_their_channel() {
        let (sender, mut input) = mpsc::channel(4);
        let (resize, mut sizes) = mpsc::channel(4);
        let mut open = Some(sender);
        hear(&Bytes::from_static(b"\x00abc"), &mut open, &resize).await;
        hear(&Bytes::from_static(b"\x04{\"Width\":80,\"Height\":24}"), &mut open, &resize).await;
        hear(&Bytes::from_static(b"\xff\x00"), &mut open, &resize).await;
        assert_eq!(input.recv().await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(input.recv().await, None, "closed by the caller");
        assert_eq!(sizes.recv().await, Some((80, 24)));
    }
}
