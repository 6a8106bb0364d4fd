//! The network in memory: addresses without links, for everything that runs without a kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Attachment, HostPort, NetworkError, NodeNetwork, PodNetwork, Wanted, plan};

/// Remembers what it was told.
#[derive(Default)]
pub struct Network {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: Option<Wanted>,
    pods: BTreeMap<String, Ipv4Addr>,
    published: BTreeMap<String, Vec<HostPort>>,
    last: Option<Ipv4Addr>,
    problems: Vec<String>,
    syncs: u64,
    unreachable: Option<String>,
}

impl Network {
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last sync wanted.
    pub fn wanted(&self) -> Option<Wanted> {
        self.state().wanted.clone()
    }

    /// Attached pods by their sandbox.
    pub fn pods(&self) -> BTreeMap<String, Ipv4Addr> {
        self.state().pods.clone()
    }

    /// How often it was synced.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Routes to other nodes fail from now on.
    pub fn break_routes(&self, why: &str) {
        self.state().unreachable = Some(why.to_owned());
    }

    /// What [`NodeNetwork::problems`] answers from now on.
    pub fn set_problems(&self, problems: Vec<String>) {
        self.state().problems = problems;
    }
}

#[async_trait]
impl PodNetwork for Network {
    async fn attach(&self, sandbox: &str, _netns: &Path) -> Result<Attachment, NetworkError> {
        let mut state = self.state();
        let range = state.wanted.as_ref().and_then(|wanted| wanted.pod_range).ok_or(NetworkError::NoRange)?;
        let gateway = plan::gateway(range).ok_or_else(|| NetworkError::Exhausted(range.to_string()))?;
        if let Some(address) = state.pods.get(sandbox).copied().filter(|address| range.contains((*address).into())) {
            return Ok(Attachment { address, gateway });
        }
        let used = state.pods.values().copied().collect();
        let address = plan::next_address(range, &used, state.last).ok_or_else(|| NetworkError::Exhausted(range.to_string()))?;
        state.pods.insert(sandbox.to_owned(), address);
        state.last = Some(address);
        Ok(Attachment { address, gateway })
    }

    async fn publish(&self, sandbox: &str, ports: &[HostPort]) -> Result<(), NetworkError> {
        let mut state = self.state();
        if !ports.is_empty() && !state.pods.contains_key(sandbox) {
            return Err(NetworkError::failed("publish the ports of a pod", "it is not attached"));
        }
        state.published.remove(sandbox);
        if let Some(taken) = plan::first_taken(ports, state.published.values().flatten()) {
            return Err(NetworkError::Taken { port: taken.host_port, protocol: taken.protocol.clone() });
        }
        state.published.insert(sandbox.to_owned(), ports.to_vec());
        Ok(())
    }

    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.published.remove(sandbox);
        state.pods.remove(sandbox);
        Ok(())
    }
}

#[async_trait]
impl NodeNetwork for Network {
    async fn sync(&self, wanted: &Wanted) -> Result<bool, NetworkError> {
        let mut state = self.state();
        state.syncs += 1;
        let changed = state.wanted.as_ref() != Some(wanted);
        state.wanted = Some(wanted.clone());
        match &state.unreachable {
            Some(why) => Err(NetworkError::Routes(why.clone())),
            None => Ok(changed),
        }
    }

    async fn problems(&self) -> Vec<String> {
        self.state().problems.clone()
    }

    async fn remove_all(&self) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.wanted = None;
        state.pods.clear();
        state.published.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fake_keeps_the_contract() {
        crate::network::contract::check(&Network::new(), &["/fake/one".into(), "/fake/two".into()]).await;
    }
}
