//! A command's streams and its caller's, joined: exec and attach, whichever protocol brings them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Verb;
use super::lane::{Inlet, Outlet, PIECE_BYTES};
use super::sys::End;
use crate::cri::{CriError, ExecSession};

/// After a command's end its output may still be held open by what it left behind: it has this long to say something.
const QUIET: Duration = Duration::from_secs(1);
/// What is read after the end: more than a pipe holds.
const LAST_BYTES: usize = 1 << 20;
/// A size of a terminal is shorter.
const SIZE_LIMIT_BYTES: usize = 1024;

/// How the outcome is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// As a `Status` of Kubernetes, always.
    Status,
    /// A failure as text, nothing else: before `v4.channel.k8s.io`.
    Text,
}

/// The caller's ends of the streams.
pub struct Ends {
    pub stdin: Option<Inlet>,
    pub stdout: Option<Outlet>,
    pub stderr: Option<Outlet>,
    pub resize: Option<Inlet>,
    pub outcome: Outlet,
    pub report: Report,
    /// On which nothing is ever sent.
    pub silent: Vec<Outlet>,
}

/// Joins them until it is over. The caller's leaving is seen by whoever calls this: then it is dropped.
pub async fn run(ends: Ends, session: Result<ExecSession, CriError>, verb: Verb) {
    let Ends { stdin, stdout, stderr, resize, outcome, report, silent } = ends;
    let status = match session {
        Ok(session) => {
            let ExecSession { stdin: input, stdout: out, stderr: err, exit, resize: sizes } = session;
            let mut inputs = JoinSet::new();
            if let (Some(fd), Some(inlet)) = (input, stdin) {
                inputs.spawn(copy_in(fd, inlet));
            }
            if let Some(inlet) = resize {
                inputs.spawn(copy_sizes(inlet, sizes));
            }
            let ended = CancellationToken::new();
            let any = (out.is_some() && stdout.is_some()) || (err.is_some() && stderr.is_some());
            let outputs = async { tokio::join!(copy_out(out, stdout, &ended), copy_out(err, stderr, &ended)) };
            let told = async {
                let code = exit.await.ok();
                ended.cancel();
                code
            };
            match verb {
                Verb::Exec => self::outcome(tokio::join!(outputs, told).1),
                Verb::Attach if any => {
                    tokio::pin!(outputs);
                    tokio::select! {
                        _ = &mut outputs => {}
                        () = until_told(told) => drop(outputs.await),
                    }
                    self::outcome(Some(Ok(0)))
                }
                Verb::Attach => {
                    until_told(told).await;
                    self::outcome(Some(Ok(0)))
                }
            }
        }
        Err(error) => {
            for outlet in [stdout, stderr].into_iter().flatten() {
                outlet.finish().await;
            }
            refusal(&error.to_string())
        }
    };
    tell(&outcome, report, &status).await;
    for outlet in silent {
        outlet.finish().await;
    }
}

/// A runtime that does not say when a container ends lets its output say it.
async fn until_told<T>(told: impl Future<Output = Option<T>>) {
    if told.await.is_none() {
        std::future::pending().await
    }
}

async fn tell(outlet: &Outlet, report: Report, status: &serde_json::Value) {
    match report {
        Report::Status => drop(outlet.send(status.to_string().as_bytes()).await),
        Report::Text if status["status"] != "Success" => drop(outlet.send(status["message"].as_str().unwrap_or_default().as_bytes()).await),
        Report::Text => {}
    }
    outlet.finish().await;
}

/// The Status that a command has as its outcome.
fn outcome(code: Option<Result<i32, String>>) -> serde_json::Value {
    match code {
        Some(Ok(0)) => json!({"metadata": {}, "status": "Success"}),
        Some(Ok(code)) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}
        }),
        Some(Err(cause)) => refusal(&cause),
        None => refusal("the runtime did not say how the command ended"),
    }
}

/// As the kubelet: a command that cannot be started is an outcome, not a refused upgrade.
fn refusal(cause: &str) -> serde_json::Value {
    json!({"metadata": {}, "status": "Failure", "message": cause, "reason": "InternalError", "code": 500})
}

async fn copy_out(fd: Option<OwnedFd>, outlet: Option<Outlet>, ended: &CancellationToken) {
    let Some(outlet) = outlet else { return };
    if let Some(fd) = fd {
        match End::new(fd) {
            Ok(end) => pass_on(&end, &outlet, ended).await,
            Err(cause) => tracing::warn!(%cause, "read a command's output"),
        }
    }
    outlet.finish().await;
}

async fn pass_on(from: &End, outlet: &Outlet, ended: &CancellationToken) {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = LAST_BYTES;
    loop {
        let quiet = async {
            ended.cancelled().await;
            tokio::time::sleep(QUIET).await;
        };
        let count = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read.unwrap_or(0),
            // Who holds it open longer belongs to somebody the command left behind.
            () = quiet => return,
        };
        if count == 0 || !outlet.send(&buffer[..count]).await {
            return;
        }
        if ended.is_cancelled() {
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }
}

/// Dropping the end at the caller's end is the command's end of input.
async fn copy_in(fd: OwnedFd, mut inlet: Inlet) {
    match End::new(fd) {
        Ok(end) => {
            while let Some(bytes) = inlet.next().await {
                if end.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
        Err(cause) => tracing::warn!(%cause, "write a command's input"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

async fn copy_sizes(mut inlet: Inlet, resize: mpsc::Sender<(u16, u16)>) {
    let mut text = Vec::new();
    while let Some(bytes) = inlet.next().await {
        text.extend_from_slice(&bytes);
        for size in sizes(&mut text) {
            // A terminal that is gone has no size.
            resize.send(size).await.ok();
        }
    }
}

/// Takes whole sizes off the front, as (columns, rows). What can be none is dropped.
fn sizes(text: &mut Vec<u8>) -> Vec<(u16, u16)> {
    let mut all = Vec::new();
    let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let rest = loop {
        match stream.next() {
            Some(Ok(size)) => all.push((size.width, size.height)),
            Some(Err(error)) if !error.is_eof() => break text.len(),
            _ => break stream.byte_offset(),
        }
    };
    text.drain(..rest);
    if text.len() > SIZE_LIMIT_BYTES {
        text.clear();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_what_kubectl_reads() {
        assert_eq!(outcome(Some(Ok(0)))["status"], "Success");
        let failed = outcome(Some(Ok(7)));
        assert_eq!((failed["reason"].as_str(), failed["details"]["causes"][0]["message"].as_str()), (Some("NonZeroExitCode"), Some("7")));
        assert_eq!(outcome(None)["reason"], "InternalError");
        let refused = outcome(Some(Err("no such program".into())));
        assert_eq!((refused["reason"].as_str(), refused["message"].as_str()), (Some("InternalError"), Some("no such program")));
    }

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut text = br#"{"Width":80,"Height":24}
{"Width":1"#
            .to_vec();
        assert_eq!(sizes(&mut text), [(80, 24)]);
        text.extend_from_slice(br#"00,"Height":30}"#);
        assert_eq!((sizes(&mut text), text.trim_ascii().len()), (vec![(100, 30)], 0));
        text.extend_from_slice(b"nonsense");
        assert_eq!((sizes(&mut text), text.len()), (vec![], 0));
        text = vec![b' '; SIZE_LIMIT_BYTES + 1];
        assert_eq!((sizes(&mut text), text.len()), (vec![], 0));
        text = [b"[\"".as_slice(), &[b'a'; SIZE_LIMIT_BYTES]].concat();
        assert_eq!((sizes(&mut text), text.len()), (vec![], 0));
    }
}
