//! Commands in running containers, and connections to their ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot};

use super::container::{KILL_LIMIT, cgroup_of, user_of};
use super::engine::{Inner, blocking, receive};
use super::launch::plan;
use super::oci::handler;
use super::shim::{self, ShimError};
use super::wire::{Exec, Kill, Process, Response};
use super::{RuntimeError, signal};
use crate::cri::{CriError, ExecOutput, ExecRequest, ExecSession};

/// Of both streams of `exec_sync` together: the kubelet takes messages up to 16 MiB (`maxMsgSize` in its
/// `cri/remote/utils.go`), and whoever is sent a longer one hears not even the exit code.
const OUTPUT_LIMIT_BYTES: usize = (16 << 20) - (64 << 10);
/// After a command's end its output may still be held open by what it left behind.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// A command that runs.
struct Running {
    pid: i32,
    terminal: Option<OwnedFd>,
    /// Tells its end.
    socket: tokio::net::UnixStream,
}

impl Inner {
    async fn begin_exec(self: &Arc<Self>, id: &str, command: &[String], tty: bool, fds: Vec<OwnedFd>) -> Result<Running, RuntimeError> {
        let (owned, command) = (id.to_owned(), command.to_vec());
        let (answer, directory) = blocking(self, move |inner| {
            let (exec, directory, own) = inner.exec_request(&owned, command, tty)?;
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let answer = shim::ask(&directory, &exec.into(), &borrowed).map_err(|error| handler::explained(error.into()));
            if let Some(own) = own {
                std::fs::remove_dir_all(own).ok();
            }
            Ok((answer?, directory))
        })
        .await?;
        let Response::Started(started) = answer.response else {
            return Err(ShimError::Confused(directory).into());
        };
        let fail = |cause| CriError::failed("exec", cause);
        answer.socket.set_nonblocking(true).map_err(fail)?;
        let socket = tokio::net::UnixStream::from_std(answer.socket).map_err(fail)?;
        Ok(Running { pid: started.pid, terminal: answer.fds.into_iter().next(), socket })
    }

    /// With the shim's directory, and one with files that nobody needs after the start.
    fn exec_request(&self, id: &str, command: Vec<String>, tty: bool) -> Result<(Exec, PathBuf, Option<PathBuf>), RuntimeError> {
        let (record, pod) = {
            let table = self.table();
            let container = table.containers.get(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
            if !container.is_running() {
                return Err(CriError::failed("exec", "the container is not running").into());
            }
            let sandbox = table.sandboxes.get(&container.record.sandbox_id);
            let sandbox = sandbox.ok_or_else(|| CriError::NotFound(format!("sandbox of container {id}")))?;
            (container.record.clone(), sandbox.record.config.clone())
        };
        let spec = self.read_spec(&record)?;
        let filter = self.filter(&record.config, &spec)?;
        let mut process = Process { args: command, tty, ..plan::process(&spec, &user_of(&record), &filter) };
        if tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        let directory = self.options.sandbox_run_dir(&record.sandbox_id);
        if let Some(handler) = self.handler(&pod, &record)? {
            let (commands, own) = self.handler_exec(&handler, &spec, process.args, process.env, tty)?;
            let process = Process { tty, ..Process::default() };
            let exec = Exec { container: id.to_owned(), process, commands: Some(commands), ..Exec::default() };
            return Ok((exec, directory, Some(own)));
        }
        let cgroup = self.cgroups.entrance(&cgroup_of(&pod, id));
        Ok((Exec { container: id.to_owned(), cgroup, process, commands: None }, directory, None))
    }

    pub async fn exec_sync(self: &Arc<Self>, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, CriError> {
        let attempt = || format!("exec {command:?}");
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|cause| CriError::failed(attempt(), cause));
        let ((out, out_end), (err, err_end)) = (pipe()?, pipe()?);
        let null = std::fs::File::open("/dev/null").map_err(|cause| CriError::failed(attempt(), cause))?;
        let fds = vec![OwnedFd::from(null), out_end, err_end];
        // To its end in any case, so that what has begun can be ended.
        let begun = tokio::spawn({
            let (engine, container, command) = (Arc::clone(self), id.to_owned(), command.to_vec());
            async move {
                let running = engine.begin_exec(&container, &command, false, fds).await?;
                let left = KillIfLeft { engine, container, pid: running.pid, ended: false };
                Ok::<_, RuntimeError>((running, left))
            }
        });
        let begun = begun.await.map_err(|cause| CriError::failed(attempt(), cause))?;
        let (running, mut left) = begun.map_err(|error| error.about(attempt()))?;
        let pid = running.pid;
        let streams = async {
            let receiver = |fd| Receiver::from_owned_fd(fd).map_err(|cause| CriError::failed(attempt(), cause));
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let (out, err) = (receiver(out)?, receiver(err)?);
            let mut socket = running.socket;
            let code = {
                let both = async { tokio::join!(collect(out, &mut stdout), collect(err, &mut stderr)) };
                tokio::pin!(both);
                let ended = exit_code(&mut socket);
                tokio::pin!(ended);
                tokio::select! {
                    code = &mut ended => {
                        // What is in the pipes still belongs to it.
                        tokio::time::timeout(DRAIN_LIMIT, both).await.ok();
                        code
                    }
                    _ = &mut both => ended.await,
                }
            };
            fit(&mut stdout, &mut stderr);
            let exit_code = code.ok_or_else(|| CriError::failed(attempt(), "the shim has died"))?;
            Ok(ExecOutput { stdout, stderr, exit_code })
        };
        let timeout = if timeout.is_zero() { Duration::MAX } else { timeout };
        tokio::pin!(streams);
        let within = tokio::time::timeout(timeout, &mut streams).await;
        left.ended = true;
        if let Ok(result) = within {
            return result;
        }
        self.kill_exec(id, pid).await;
        // Whoever hears of it may count on it that the command is gone.
        if tokio::time::timeout(KILL_LIMIT, streams).await.is_err() {
            tracing::warn!(container = id, pid, "a command that takes too long does not die");
        }
        Err(CriError::Timeout(attempt()))
    }

    async fn kill_exec(self: &Arc<Self>, id: &str, pid: i32) {
        let sandbox = self.table().containers.get(id).map(|container| container.record.sandbox_id.clone());
        let Some(sandbox) = sandbox else { return };
        let directory = self.options.sandbox_run_dir(&sandbox);
        let kill = Kill { container: id.to_owned(), exec: pid, signal: signal::KILL };
        let killed = blocking(self, move |_| shim::ask(&directory, &kill.into(), &[]).map(drop).map_err(Into::into));
        if let Err(cause) = killed.await {
            tracing::warn!(container = id, %cause, "kill a command that takes too long");
        }
    }

    pub async fn exec(self: &Arc<Self>, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
        // Whoever asks knows of which container, and has another name for it.
        let attempt = || format!("exec {:?}", request.command);
        let fail = |cause: std::io::Error| CriError::failed(attempt(), cause);
        let null = || {
            let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
            opened.map(OwnedFd::from).map_err(fail)
        };
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fail(errno.into()));
        let (mut stdin, mut stdout, mut stderr) = (None, None, None);
        let mut fds = Vec::new();
        if !request.tty {
            let input = if request.stdin { pipe().map(|(read, write)| (read, Some(write)))? } else { (null()?, None) };
            let output = |wanted| if wanted { pipe().map(|(read, write)| (write, Some(read))) } else { Ok((null()?, None)) };
            let (out, err) = (output(request.stdout)?, output(request.stderr)?);
            (stdin, stdout, stderr) = (input.1, out.1, err.1);
            fds = vec![input.0, out.0, err.0];
        }
        let running = self.begin_exec(id, &request.command, request.tty, fds).await.map_err(|error| error.about(attempt()))?;
        let mut window = None;
        if let Some(master) = running.terminal {
            stdin = Some(master.try_clone().map_err(fail)?);
            window = Some(master.try_clone().map_err(fail)?);
            stdout = Some(master);
        }
        let (exit_sender, exit) = oneshot::channel();
        let (resize, sizes) = mpsc::channel(8);
        tokio::spawn(attend(running.socket, exit_sender, sizes, window));
        Ok(ExecSession { stdin, stdout, stderr, exit, resize })
    }

    pub async fn port_forward(self: &Arc<Self>, sandbox_id: &str, port: u16) -> Result<tokio::net::TcpStream, CriError> {
        let attempt = || format!("connect to port {port}");
        let pid = {
            let table = self.table();
            let sandbox = table.sandboxes.get(sandbox_id);
            let sandbox = sandbox.ok_or_else(|| CriError::NotFound(format!("sandbox {sandbox_id}")))?;
            if !sandbox.ready {
                return Err(CriError::failed(attempt(), "the sandbox is not ready"));
            }
            sandbox.record.shim_pid
        };
        let fail = |cause: std::io::Error| CriError::failed(attempt(), cause);
        // A thread of its own, which ends in the pod's network namespace.
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("port-forward".into());
        thread
            .spawn(move || {
                // When nobody waits any more the connection is closed.
                sender.send(connect_inside(pid, port)).ok();
            })
            .map_err(fail)?;
        let stream = receiver.await.map_err(|_| CriError::failed(attempt(), "the thread died"))?.map_err(fail)?;
        stream.set_nonblocking(true).map_err(fail)?;
        tokio::net::TcpStream::from_std(stream).map_err(fail)
    }
}

fn connect_inside(pid: i32, port: u16) -> std::io::Result<std::net::TcpStream> {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))?;
    // As `localhost` would: who listens on one of the two alone is found.
    let [v4, v6] = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].map(|address| SocketAddr::new(address, port));
    let connect = |address| std::net::TcpStream::connect_timeout(address, Duration::from_secs(10));
    connect(&v4).or_else(|refused| connect(&v6).map_err(|_| refused))
}

/// Ends a command whose caller has gone before it.
struct KillIfLeft {
    engine: Arc<Inner>,
    container: String,
    pid: i32,
    ended: bool,
}

impl Drop for KillIfLeft {
    fn drop(&mut self) {
        if let (false, Ok(runtime)) = (self.ended, tokio::runtime::Handle::try_current()) {
            let (engine, container, pid) = (Arc::clone(&self.engine), std::mem::take(&mut self.container), self.pid);
            runtime.spawn(async move { engine.kill_exec(&container, pid).await });
        }
    }
}

/// Leaves of both together what may be kept: of each half at least, and what the other has no use for.
fn fit(stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let half = OUTPUT_LIMIT_BYTES / 2;
    stderr.truncate(half.max(OUTPUT_LIMIT_BYTES.saturating_sub(stdout.len())));
    stdout.truncate(OUTPUT_LIMIT_BYTES - stderr.len());
}

/// Reads to the end, keeps as much as may be kept.
async fn collect(mut from: Receiver, into: &mut Vec<u8>) {
    let mut chunk = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut chunk).await {
        if count == 0 {
            return;
        }
        let room = OUTPUT_LIMIT_BYTES - into.len();
        into.extend_from_slice(&chunk[..count.min(room)]);
    }
}

/// `None`: the shim died.
async fn exit_code(socket: &mut tokio::net::UnixStream) -> Option<i32> {
    match receive(socket).await {
        Ok(Response::Exited(exited)) => Some(exited.exit.code),
        _ => None,
    }
}

/// Sees a command or a container to its end and its terminal through its sizes, unless nobody wants to know any more.
pub(super) async fn attend(
    mut socket: tokio::net::UnixStream,
    mut exit: oneshot::Sender<Result<i32, String>>,
    mut sizes: mpsc::Receiver<(u16, u16)>,
    terminal: Option<OwnedFd>,
) {
    let ended = exit_code(&mut socket);
    tokio::pin!(ended);
    let code = loop {
        let size = tokio::select! {
            code = &mut ended => break code,
            size = sizes.recv() => size,
        };
        let Some((columns, rows)) = size else {
            tokio::select! {
                code = &mut ended => break code,
                () = exit.closed() => return,
            }
        };
        if let Some(terminal) = &terminal {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(terminal, size).ok();
        }
    };
    // Whoever asked may have left; a dead shim has killed the command.
    exit.send(Ok(code.unwrap_or(137))).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_fit_into_one_message() {
        let whole = OUTPUT_LIMIT_BYTES;
        for (out, err, expected) in [
            (5, 7, (5, 7)),
            (whole, 0, (whole, 0)),
            (whole, 100, (whole - 100, 100)),
            (100, whole, (100, whole - 100)),
            (whole, whole, (whole / 2, whole / 2)),
        ] {
            let (mut stdout, mut stderr) = (vec![0; out], vec![0; err]);
            fit(&mut stdout, &mut stderr);
            assert_eq!((stdout.len(), stderr.len()), expected);
            let message = crate::cri::wire::ExecSyncResponse { stdout, stderr, exit_code: -1 };
            assert!(prost::Message::encoded_len(&message) < 16 << 20);
        }
    }
}
