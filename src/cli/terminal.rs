//! The streams of `exec` and `attach`: copied between this process and a container, in raw mode where both have a
//! terminal. However it ends, the terminal is what it was before.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::{FAILED, Outcome};

/// Talks until the other side ends, or this process is told to end.
pub async fn converse(mut process: AttachedProcess, params: &AttachParams) -> Outcome {
    let is_raw = params.tty && params.stdin && std::io::stdin().is_terminal();
    // Heard before there is something to put back. Where there is nothing, a signal does what it does.
    let signals = if is_raw { ending_signals() } else { Vec::new() };
    let raw = if is_raw { Some(RawTerminal::enter().context("switch the terminal to raw mode")?) } else { None };
    if params.tty {
        tokio::spawn(follow_size(process.terminal_size()));
    }
    let (code, said) = tokio::select! {
        ended = pump(&mut process) => ended?,
        code = told_to_end(signals) => (code, None),
    };
    drop(raw);
    if let Some(said) = said {
        anstream::eprintln!("{said}");
    }
    process.abort();
    Ok(code)
}

/// Whether there is a terminal to be one for the other side; if not that is said. `stdin`: what is typed is passed on.
pub fn is_usable(stdin: bool) -> bool {
    let usable = !stdin || std::io::stdin().is_terminal();
    if !usable {
        anstream::eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    usable
}

fn ending_signals() -> Vec<(SignalKind, Signal)> {
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()];
    kinds.into_iter().filter_map(|kind| Some((kind, signal(kind).ok()?))).collect()
}

/// Waits for a signal that ends processes; returns the exit code that stands for it.
async fn told_to_end(signals: Vec<(SignalKind, Signal)>) -> u8 {
    let heard = signals.into_iter().map(|(kind, mut heard)| {
        Box::pin(async move {
            heard.recv().await;
            u8::try_from(128 + kind.as_raw_value()).unwrap_or(FAILED)
        })
    });
    let heard: Vec<_> = heard.collect();
    if heard.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(heard).await.0
}

/// A standard stream of this process, for the asynchronous side; `/dev/null` if it is closed.
fn own(stream: impl std::os::fd::AsFd) -> anyhow::Result<tokio::fs::File> {
    let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let file = rustix::io::dup(stream).map(std::fs::File::from).or_else(|_| null());
    Ok(tokio::fs::File::from_std(file.context("take a standard stream")?))
}

/// Copies the streams until the command ends; returns its exit code, and what is to be said of its end.
async fn pump(process: &mut AttachedProcess) -> anyhow::Result<(u8, Option<String>)> {
    let status = process.take_status();
    if let Some(mut stdin) = process.stdin() {
        let mut typed = own(std::io::stdin())?;
        tokio::spawn(async move {
            // Ends with the command: a broken pipe is the ordinary end.
            let _ = tokio::io::copy(&mut typed, &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    let (mut out, mut own_out) = (process.stdout(), own(std::io::stdout())?);
    let (mut err, mut own_err) = (process.stderr(), own(std::io::stderr())?);
    let stdout = async {
        if let Some(out) = &mut out {
            let _ = tokio::io::copy(out, &mut own_out).await;
        }
    };
    let stderr = async {
        if let Some(err) = &mut err {
            let _ = tokio::io::copy(err, &mut own_err).await;
        }
    };
    tokio::join!(stdout, stderr);
    let Some(status) = status else { return Ok((FAILED, None)) };
    let Some(status) = status.await else { return Ok((FAILED, None)) };
    if status.status.as_deref().is_some_and(|status| status == "Success") {
        return Ok((0, None));
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_ref()?.parse::<u8>().ok());
    let said = match code {
        Some(code) => format!("command terminated with exit code {code}"),
        None => format!("error: {}", super::output::clean(&status.message.unwrap_or_default())),
    };
    Ok((code.unwrap_or(FAILED), Some(said)))
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

/// Raw mode for as long as it lives.
struct RawTerminal(rustix::termios::Termios);

impl RawTerminal {
    fn enter() -> std::io::Result<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done if the terminal is gone.
        let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}
