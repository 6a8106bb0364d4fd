//! Another container runtime in the place of our engine: containerd, CRI-O, or an engine of ours on a socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use async_trait::async_trait;

use super::node;
use crate::config::Config;
use crate::cri::CriError;
use crate::cri::client::Client;
use crate::network::{NetworkError, NodeNetwork, Range, Wanted};

/// Which runtime the pods are in, in the client's directory. No sandbox's id begins with a dot.
const ENDPOINT: &str = ".endpoint";

fn client_dir(config: &Config) -> PathBuf {
    config.data_dir.join("runtime-client")
}

/// Our client of it.
pub async fn connect(config: &Config, endpoint: &str) -> anyhow::Result<Arc<Client>> {
    let dir = client_dir(config);
    let client = Client::connect(endpoint, &dir).await.with_context(|| format!("runtime-endpoint {endpoint}"))?;
    // Whoever stops the pods may not have been told: it can be a flag of `podbay up` alone.
    let path = dir.join(ENDPOINT);
    std::fs::write(&path, endpoint).with_context(|| format!("write {}", path.display()))?;
    Ok(Arc::new(client.keeping(node::own_ports(config))))
}

/// Removes the pods that this host's agent has made in another runtime: the one that is configured, or was last.
pub async fn remove_pods(config: &Config) -> anyhow::Result<()> {
    let dir = client_dir(config);
    if !has_pods(&dir) {
        return Ok(());
    }
    let endpoint = config.node.runtime_endpoint.clone().or_else(|| last_endpoint(&dir));
    let Some(endpoint) = endpoint else {
        bail!("{} names pods in another container runtime, and not which: say `runtime-endpoint` in podbay.toml", dir.display());
    };
    let gone = || format!("remove this host's pods there (if that runtime is gone for good, delete {})", dir.display());
    connect(config, &endpoint).await.with_context(gone)?.remove_all().await.with_context(gone)
}

fn has_pods(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

fn last_endpoint(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(dir.join(ENDPOINT)).ok()?;
    Some(text.trim().to_owned()).filter(|endpoint| !endpoint.is_empty())
}

/// The node's network, of which that runtime learns the pods' range: its own network plugins give out the addresses.
pub struct Told<N> {
    network: Arc<N>,
    runtime: Arc<Client>,
    known: Mutex<Option<Range>>,
}

impl<N: NodeNetwork> Told<N> {
    pub fn new(network: Arc<N>, runtime: Arc<Client>) -> Self {
        Self { network, runtime, known: Mutex::default() }
    }
}

#[async_trait]
impl<N: NodeNetwork> NodeNetwork for Told<N> {
    async fn sync(&self, wanted: &Wanted) -> Result<bool, NetworkError> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(range) = wanted.pod_range.filter(|range| known != Some(*range)) {
            match self.runtime.set_pod_range(&range.to_string()).await {
                // Then its configuration has to say it.
                Err(cause @ CriError::Unsupported(_)) => {
                    tracing::warn!(%range, %cause, "the runtime's own network has to give the pods' range");
                }
                told => told.map_err(|cause| NetworkError::failed("tell the runtime the pods' range", cause))?,
            }
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(range);
        }
        self.network.sync(wanted).await
    }

    async fn problems(&self) -> Vec<String> {
        self.network.problems().await
    }

    async fn remove_all(&self) -> Result<(), NetworkError> {
        self.network.remove_all().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_endpoint_is_known_and_is_no_pod() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!((has_pods(dir.path()), last_endpoint(dir.path())), (false, None));
        std::fs::write(dir.path().join(ENDPOINT), "unix:///run/x.sock\n").unwrap();
        assert_eq!((has_pods(dir.path()), last_endpoint(dir.path())), (false, Some("unix:///run/x.sock".to_owned())));
        std::fs::create_dir(dir.path().join("s1")).unwrap();
        assert!(has_pods(dir.path()));
    }
}
