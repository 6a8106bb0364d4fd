//! The streams of containers' first processes: clients that attach to them, and logs that are opened anew.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::pipe::PipeFlags;
use tokio::sync::{mpsc, oneshot};

use super::RuntimeError;
use super::engine::{Inner, blocking};
use super::exec::attend;
use super::record::ContainerRecord;
use super::shim::{self, ShimError};
use super::wire::{Join, ReopenLog, Response};
use crate::cri::{CriError, ExecRequest, ExecSession};

/// What a client that reads slowly may be behind, a stream. The kernel keeps it, and only what there is.
const ROOM_BYTES: usize = 256 << 10;

impl Inner {
    /// A container that runs, and its shim's directory.
    fn running(&self, id: &str) -> Result<(ContainerRecord, PathBuf), RuntimeError> {
        let table = self.table();
        let found = table.containers.get(id).ok_or_else(|| CriError::NotFound(format!("container {id}")))?;
        if !found.is_running() {
            return Err(CriError::failed("use the container", "it is not running").into());
        }
        Ok((found.record.clone(), self.options.sandbox_run_dir(&found.record.sandbox_id)))
    }

    pub async fn attach(self: &Arc<Self>, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError> {
        let attempt = || "attach to the container".to_owned();
        let fail = |cause: std::io::Error| CriError::failed(attempt(), cause);
        let (record, directory) = self.running(id).map_err(|error| error.about(attempt()))?;
        let config = &record.config;
        let join = Join {
            container: id.to_owned(),
            stdin: request.stdin && config.stdin,
            stdout: request.stdout,
            stderr: request.stderr && !config.tty,
        };
        let (mut ours, mut theirs) = ([None, None, None], Vec::new());
        for (index, wanted) in [join.stdin, join.stdout, join.stderr].into_iter().enumerate() {
            if wanted {
                let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| fail(errno.into()))?;
                let (own, other) = if index == 0 { (write, read) } else { (read, write) };
                if index > 0 {
                    // Less room is room as well.
                    rustix::pipe::fcntl_setpipe_size(&own, ROOM_BYTES).ok();
                }
                ours[index] = Some(own);
                theirs.push(other);
            }
        }
        let answer = blocking(self, move |_| {
            let borrowed: Vec<BorrowedFd<'_>> = theirs.iter().map(OwnedFd::as_fd).collect();
            Ok(shim::ask(&directory, &join.into(), &borrowed)?)
        });
        let answer = answer.await.map_err(|error| error.about(attempt()))?;
        answer.socket.set_nonblocking(true).map_err(fail)?;
        let socket = tokio::net::UnixStream::from_std(answer.socket).map_err(fail)?;
        let (exit_sender, exit) = oneshot::channel();
        let (resize, sizes) = mpsc::channel(8);
        // Its terminal is the shim's: here only its size is set.
        tokio::spawn(attend(socket, exit_sender, sizes, answer.fds.into_iter().next()));
        let [stdin, stdout, stderr] = ours;
        Ok(ExecSession { stdin, stdout, stderr, exit, resize })
    }

    pub async fn reopen_log(self: &Arc<Self>, id: &str) -> Result<(), CriError> {
        let attempt = || format!("reopen the log of container {id}");
        let (_, directory) = self.running(id).map_err(|error| error.about(attempt()))?;
        let request = ReopenLog { container: id.to_owned() };
        let reopened = blocking(self, move |_| match shim::ask(&directory, &request.into(), &[])?.response {
            Response::Done(_) => Ok(()),
            _ => Err(ShimError::Confused(directory).into()),
        });
        reopened.await.map_err(|error| error.about(attempt()))
    }
}
