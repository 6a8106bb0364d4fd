//! Another container runtime in the place of our engine: containerd, CRI-O, or an engine of ours on a socket.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;

use crate::config::Config;
use crate::cri::client::Client;
use crate::network::{NetworkError, NodeNetwork, Range, Wanted};

/// Our client of it.
pub async fn connect(config: &Config, endpoint: &str) -> anyhow::Result<Arc<Client>> {
    let client = Client::connect(endpoint, &config.data_dir.join("runtime-client")).await;
    Ok(Arc::new(client.with_context(|| format!("runtime-endpoint {endpoint}"))?))
}

/// Removes the pods that this host's agent has made there.
pub async fn remove_pods(config: &Config, endpoint: &str) -> anyhow::Result<()> {
    let dir = config.data_dir.join("runtime-client");
    if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
        connect(config, endpoint).await?.remove_all().await?;
    }
    Ok(())
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
            let told = self.runtime.set_pod_range(&range.to_string()).await;
            told.map_err(|cause| NetworkError::failed("tell the runtime the pods' range", cause))?;
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
