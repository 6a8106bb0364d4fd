//! The streams of `exec` and `attach`: copied between this process and a container, in raw mode where both have a
//! terminal. However it ends, the terminal is what it was before.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::error::{FAILED, Outcome};

/// Talks until the other side ends, or this process is told to end.
pub async fn converse(mut process: AttachedProcess, params: &AttachParams) -> Outcome {
    let raw = if params.tty && params.stdin { RawTerminal::enter().context("switch the terminal to raw mode")? } else { RawTerminal(None) };
    if params.tty {
        tokio::spawn(follow_size(process.terminal_size()));
    }
    let told = async {
        match raw.0 {
            Some(_) => told_to_end().await,
            // Nothing to put back: the signal does what it does.
            None => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        code = pump(&mut process) => code,
        code = told => code,
    };
    process.abort();
    Ok(code)
}

/// Waits for a signal that ends processes; returns the exit code that stands for it.
async fn told_to_end() -> u8 {
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()];
    let heard = kinds.into_iter().filter_map(|kind| {
        let mut heard = signal(kind).ok()?;
        Some(Box::pin(async move {
            heard.recv().await;
            u8::try_from(128 + kind.as_raw_value()).unwrap_or(FAILED)
        }))
    });
    let heard: Vec<_> = heard.collect();
    if heard.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(heard).await.0
}

/// A standard stream of this process, for the asynchronous side; `/dev/null` if it is closed.
fn own(stream: impl std::os::fd::AsFd) -> tokio::fs::File {
    let file = rustix::io::dup(stream).map(std::fs::File::from).or_else(|_| std::fs::File::open("/dev/null"));
    match file {
        Ok(file) => tokio::fs::File::from_std(file),
        Err(_) => unreachable!("/dev/null can always be opened"),
    }
}

/// Copies the streams until the command ends; returns its exit code.
async fn pump(process: &mut AttachedProcess) -> u8 {
    let status = process.take_status();
    if let Some(mut stdin) = process.stdin() {
        tokio::spawn(async move {
            // Ends with the command: a broken pipe is the ordinary end.
            let _ = tokio::io::copy(&mut own(std::io::stdin()), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    let mut out = process.stdout();
    let mut err = process.stderr();
    let stdout = async {
        if let Some(out) = &mut out {
            let _ = tokio::io::copy(out, &mut own(std::io::stdout())).await;
        }
    };
    let stderr = async {
        if let Some(err) = &mut err {
            let _ = tokio::io::copy(err, &mut own(std::io::stderr())).await;
        }
    };
    tokio::join!(stdout, stderr);
    let Some(status) = status else { return FAILED };
    let Some(status) = status.await else { return FAILED };
    if status.status.as_deref().is_some_and(|status| status == "Success") {
        return 0;
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_ref()?.parse::<u8>().ok());
    match code {
        Some(code) => anstream::eprintln!("command terminated with exit code {code}"),
        None => anstream::eprintln!("error: {}", super::output::clean(&status.message.unwrap_or_default())),
    }
    code.unwrap_or(FAILED)
}

async fn follow_size(sizes: Option<futures::channel::mpsc::Sender<TerminalSize>>) {
    use futures::SinkExt as _;
    let Some(mut sizes) = sizes else { return };
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout())
            && sizes.send(TerminalSize { width: size.ws_col, height: size.ws_row }).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// Raw mode for as long as it lives; does nothing where standard input is no terminal.
struct RawTerminal(Option<rustix::termios::Termios>);

impl RawTerminal {
    fn enter() -> std::io::Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = rustix::termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done if the terminal is gone.
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before);
        }
    }
}
