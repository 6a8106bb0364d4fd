//! The Container Runtime Interface in our types: how the agent drives any runtime. SEAM.
//!
//! Verbs, fields and meanings are CRI v1's (kubernetes/cri-api, runtime/v1/api.proto). Idempotent
//! where CRI asks for it: stopping or removing what is not there is no error.
//!
//! - `fake`: the in-memory runtime on which the whole product runs in tests
//! - `contract`: what every runtime must do
//! - `figures` (pure): what of them has the name of a metric
//! - `keyring` (pure): which credentials are for which image; `host_ports` (pure): what of the host leads to a pod
//! - `wire`: the same verbs as gRPC messages; `server`: our runtime on a socket; `client`: any runtime behind one
//! - `streaming`: exec, attach and port-forward as callers of Kubernetes speak them

pub mod client;
pub mod contract;
pub mod fake;
pub mod figures;
pub mod host_ports;
pub mod keyring;
pub mod server;
pub mod streaming;
pub mod types;
pub mod wire;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;

pub use figures::Figure;
pub use types::*;

/// CRI's RuntimeService.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Name and version for `Node.status.nodeInfo.containerRuntimeVersion`, as `podbay://0.1.0`.
    fn version(&self) -> String;

    /// What works and what does not on this host.
    async fn status(&self) -> Vec<RuntimeCondition>;

    /// The names a sandbox may ask for as its `runtime_handler`; the empty one is the usual way.
    async fn handlers(&self) -> Vec<String> {
        vec![String::new()]
    }

    /// What a handler of it can do that not every runtime can. Unknown is no.
    async fn features(&self, _handler: &str) -> Result<Features, CriError> {
        Ok(Features::default())
    }

    /// Creates and starts a pod's sandbox, network included. Returns the id.
    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, CriError>;
    /// Kills what runs in it and takes its network away. No error when unknown or stopped.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError>;
    /// Removes it with its containers. No error when unknown.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, CriError>;
    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>, CriError>;

    /// Creates a container in a ready sandbox. The image must be present. Returns the id.
    async fn create_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<String, CriError>;
    async fn start_container(&self, id: &str) -> Result<(), CriError>;
    /// Stop signal, then SIGKILL after `grace`. Returns when it has exited. No error when unknown or exited.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError>;
    /// Removes a container, and kills it first if it runs. No error when unknown.
    async fn remove_container(&self, id: &str) -> Result<(), CriError>;
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, CriError>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError>;
    /// The same list without those that cannot be looked at, for work in which each is a case of its own.
    async fn list_answering(&self) -> Result<Vec<ContainerStatus>, CriError> {
        self.list_containers().await
    }

    /// Runs a command to its end; output bounded to some 16 MiB; killed at the timeout
    /// ([`CriError::Timeout`]). Zero: no limit.
    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, CriError>;
    /// Starts a command with streams for a person.
    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession, CriError>;
    /// A connection to a port inside the sandbox's network namespace (port-forward).
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, CriError>;

    /// The streams of a running container, from now on: what it writes to each client that is attached, what they write
    /// into its standard input. `command` and `tty` of the request mean nothing: whether it has a terminal was said when
    /// it was created. `exit` is the container's own; who drops it together with `resize` has left.
    async fn attach(&self, id: &str, _request: &ExecRequest) -> Result<ExecSession, CriError> {
        Err(CriError::Unsupported(format!("attach to container {id}")))
    }

    /// Sets other limits on a ready pod as a whole; what is not said of them stays as it is.
    async fn update_pod_sandbox_resources(&self, id: &str, _resources: &Resources) -> Result<(), CriError> {
        Err(CriError::Unsupported(format!("change the limits of sandbox {id}")))
    }
    /// Sets other limits on a container that has not ended; what is not said of them stays as it is.
    async fn update_container_resources(&self, id: &str, _resources: &Resources) -> Result<(), CriError> {
        Err(CriError::Unsupported(format!("change the limits of container {id}")))
    }
    /// Whether it keeps logs within their limits; else somebody has to move them away now and then.
    fn rotates_logs(&self) -> bool {
        true
    }
    /// Writes on into a new file, after somebody has moved the old one away.
    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        Err(CriError::Unsupported(format!("reopen the log of container {id}")))
    }

    /// What is known of a sandbox or container beyond its status, for a person.
    async fn details(&self, _id: &str) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// How the runtime is set up, for a person.
    fn settings(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Of running containers.
    async fn container_stats(&self) -> Result<Vec<ContainerStats>, CriError>;
    /// Of ready sandboxes.
    async fn pod_sandbox_stats(&self) -> Result<Vec<PodSandboxStats>, CriError>;
    /// All figures of ready sandboxes and running containers, by id, for who asks now and then; those of a runtime that has
    /// no more are in its stats.
    async fn figures(&self) -> Result<BTreeMap<String, Vec<Figure>>, CriError> {
        let (pods, containers) = (self.pod_sandbox_stats().await?, self.container_stats().await?);
        let pods = pods.into_iter().map(|stats| (stats.id.clone(), figures::of_pod(&stats)));
        Ok(pods.chain(containers.into_iter().map(|stats| (stats.id.clone(), figures::of_container(&stats)))).collect())
    }

    /// Says which sandbox to look at; lossy, so look at everything now and then as well.
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;
}

/// A connection: bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// CRI's ImageService.
#[async_trait]
pub trait Images: Send + Sync {
    async fn list(&self) -> Result<Vec<Image>, CriError>;
    /// `None` when it is not here.
    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError>;
    /// What is known of an image beyond its status, for a person.
    async fn details(&self, _reference: &str) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// Fetches and unpacks. Returns the image's id.
    async fn pull(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<String, CriError>;
    /// How far a pull under way is, where the runtime says so. CRI has no such verb.
    async fn pull_progress(&self, _reference: &str) -> Option<PullProgress> {
        None
    }
    /// No error when unknown.
    async fn remove(&self, reference: &str) -> Result<(), CriError>;
    /// What images take on the disk.
    async fn fs_info(&self) -> Result<FilesystemUsage, CriError>;
    /// Where that disk is mounted, or a directory on it; for who does not want to know what images take, which may have to be
    /// counted.
    async fn place(&self) -> Result<PathBuf, CriError> {
        Ok(self.fs_info().await?.mount_point)
    }
}

/// Streams of an interactive exec. Dropping `stdin` closes the command's standard input.
#[derive(Debug)]
pub struct ExecSession {
    /// Pipes' (or for a terminal the pty master's) our ends, blocking mode unspecified.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    /// Never with a terminal.
    pub stderr: Option<OwnedFd>,
    /// The exit code (128 + signal where a signal ended it), or why there is none. Dropping it does not end the command.
    pub exit: tokio::sync::oneshot::Receiver<Result<i32, String>>,
    /// Size changes for a terminal: (columns, rows).
    pub resize: tokio::sync::mpsc::Sender<(u16, u16)>,
}
