//! Any runtime behind a CRI v1 socket, driven through the seam's traits: containerd, CRI-O, or our own.
//!
//! What the kubelet does beside its runtime is done here: the file for a termination message, /etc/hosts with the pod's
//! name and aliases.
//!
//! - `runtime`, `images`: the two traits, a verb a call
//! - `events`: where to look; by looking, where the runtime does not tell
//! - `stream`: exec, attach and port-forward, where the runtime serves them
//! - `files`: what containers get mounted besides their volumes; `ports`: which pod has which ports of the host

mod events;
mod files;
mod images;
mod ports;
mod runtime;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use super::wire::error::from_status;
use super::wire::image_service_client::ImageServiceClient;
use super::wire::runtime_service_client::RuntimeServiceClient;
use super::wire::{self};
use super::{ContainerStatus, CriError, Runtime as _, RuntimeEvent};
use files::Files;

/// A verb that should be quick takes no longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// `exec_sync` may give twice 16 MiB.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;

/// A runtime on a socket.
pub struct Client {
    shared: Arc<Shared>,
    events: broadcast::Sender<RuntimeEvent>,
    listener: JoinHandle<()>,
    own_ports: Vec<u16>,
    claims: ports::Claims,
}

/// What verbs and the listener share.
struct Shared {
    endpoint: PathBuf,
    channel: Channel,
    version: String,
    files: Files,
    /// Ended containers, whose status does not change any more.
    ended: Mutex<BTreeMap<String, ContainerStatus>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The path of `unix:///run/x.sock` or `/run/x.sock`.
///
/// # Errors
/// When it is neither.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, CriError> {
    let path = Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(CriError::Invalid(format!("runtime endpoint {endpoint:?} is no socket like unix:///run/containerd/containerd.sock")))
}

impl Client {
    /// Finds out who answers. `dir` is for files that pods get mounted; it survives a restart.
    ///
    /// # Errors
    /// When nobody answers, or nobody who speaks CRI v1.
    pub async fn connect(endpoint: &str, dir: &Path) -> Result<Self, CriError> {
        let path = socket_path(endpoint)?;
        let target = path.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move { UnixStream::connect(target).await.map(TokioIo::new) }
        });
        // The address is the connector's affair.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        let mut greeting = RuntimeServiceClient::new(channel.clone());
        let attempt = format!("speak CRI v1 at {}", path.display());
        let hello = greeting.version(timed(wire::VersionRequest { version: "v1".into() }, PATIENCE)).await;
        let hello = hello.map_err(|status| from_status(&attempt, &status))?.into_inner();
        let shared = Arc::new(Shared {
            endpoint: path,
            channel,
            version: format!("{}://{}", hello.runtime_name, hello.runtime_version.trim_start_matches('v')),
            files: Files::open(dir).map_err(|cause| CriError::failed(format!("use {}", dir.display()), cause))?,
            ended: Mutex::default(),
        });
        let (events, _) = broadcast::channel(4096);
        let listener = tokio::spawn(events::listen(shared.clone(), events.clone()));
        Ok(Self { shared, events, listener, own_ports: Vec::new(), claims: ports::Claims::default() })
    }
}

impl Client {
    /// Stops and removes every sandbox that was made through this directory, one after the other.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub async fn remove_all(&self) -> Result<(), CriError> {
        for id in self.shared.files.sandboxes() {
            self.remove_pod_sandbox(&id).await?;
        }
        Ok(())
    }

    /// Tells the runtime which addresses pods of this node have.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn set_pod_range(&self, range: &str) -> Result<(), CriError> {
        let network = wire::NetworkConfig { pod_cidr: range.to_owned() };
        let config = wire::RuntimeConfig { network_config: Some(network) };
        let question = wire::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        got("tell the runtime the pods' range", self.shared.runtime().update_runtime_config(request(question)).await).map(drop)
    }
}

impl Shared {
    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT_BYTES)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT_BYTES)
    }

    fn ended(&self) -> MutexGuard<'_, BTreeMap<String, ContainerStatus>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timed<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

fn request<T>(message: T) -> Request<T> {
    timed(message, PATIENCE)
}

/// The answer's message, or the seam's error.
fn got<T>(attempt: &str, result: Result<Response<T>, Status>) -> Result<T, CriError> {
    result.map(Response::into_inner).map_err(|status| from_status(attempt, &status))
}

/// Done, also when there was nothing to do it with.
fn done<T>(attempt: &str, result: Result<Response<T>, Status>) -> Result<(), CriError> {
    match got(attempt, result) {
        Ok(_) | Err(CriError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets() {
        for endpoint in ["unix:///run/containerd/containerd.sock", "/run/containerd/containerd.sock"] {
            assert_eq!(socket_path(endpoint).unwrap(), Path::new("/run/containerd/containerd.sock"));
        }
        for endpoint in ["", "unix://run/x", "tcp://10.0.0.1:1", "http://x"] {
            assert!(matches!(socket_path(endpoint), Err(CriError::Invalid(_))), "{endpoint}");
        }
    }
}
