//! Which pod has which ports of the host. The runtime's own network plugins lead a port to any pod that asks for it, to
//! several as well; that it is one's alone is the kubelet's affair, and here ours.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Client, Shared};
use crate::cri::host_ports::host_ports;
use crate::cri::wire::{self, sandbox::port_from_wire};
use crate::cri::{CriError, PodSandboxConfig, PortMapping, SandboxState};
use crate::network::plan::{first_own, first_taken};
use crate::network::{HostPort, NetworkError};

/// Ports of pods whose sandboxes are being made, by their UID: nothing on the disk says it yet.
#[derive(Default)]
pub struct Claims(Mutex<BTreeMap<String, Vec<HostPort>>>);

/// For as long as a sandbox is being made.
pub struct Claim<'a> {
    claims: &'a Claims,
    uid: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
    }
}

impl Claims {
    fn claim(&self, uid: &str, ports: &[HostPort]) -> Result<Claim<'_>, NetworkError> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = claims.iter().filter(|(other, _)| *other != uid).flat_map(|(_, ports)| ports);
        if let Some(port) = first_taken(ports, others) {
            return Err(taken(port));
        }
        claims.insert(uid.to_owned(), ports.to_vec());
        Ok(Claim { claims: self, uid: uid.to_owned() })
    }
}

fn taken(port: &HostPort) -> NetworkError {
    NetworkError::Taken { port: port.host_port, protocol: port.protocol.clone() }
}

impl Client {
    /// What the daemon itself listens on: no pod gets it.
    #[must_use]
    pub fn keeping(mut self, ports: Vec<u16>) -> Self {
        self.own_ports = ports;
        self
    }

    /// Makes the pod's ports of the host its own until the sandbox is there, or was not to be.
    pub(super) async fn claim_ports(&self, config: &PodSandboxConfig) -> Result<Option<Claim<'_>>, CriError> {
        let failed = |cause: NetworkError| CriError::failed("publish the ports of a pod", cause);
        let ports = host_ports(&config.port_mappings)?;
        if config.host_network || ports.is_empty() {
            return Ok(None);
        }
        if let Some(port) = first_own(&ports, &self.own_ports) {
            return Err(failed(NetworkError::OwnPort(port.host_port)));
        }
        let uid = &config.metadata.uid;
        let claim = self.claims.claim(uid, &ports).map_err(failed)?;
        for id in self.shared.files.sandboxes() {
            let Some(other) = self.shared.files.sandbox_config(&id) else { continue };
            if other.metadata.as_ref().is_some_and(|metadata| metadata.uid == *uid) {
                continue;
            }
            if let Some(port) = first_taken(&ports, published(&other).iter())
                && self.shared.is_ready(&id).await?
            {
                return Err(failed(taken(port)));
            }
        }
        Ok(Some(claim))
    }
}

impl Shared {
    /// One that has ended has given back its network.
    async fn is_ready(&self, id: &str) -> Result<bool, CriError> {
        match self.sandbox(id).await {
            Ok(found) => Ok(found.state == SandboxState::Ready),
            Err(CriError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn published(pod: &wire::PodSandboxConfig) -> Vec<HostPort> {
    let mappings: Vec<PortMapping> = pod.port_mappings.iter().cloned().filter_map(|port| port_from_wire(port).ok()).collect();
    host_ports(&mappings).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_claimed_once() {
        let port = |number| HostPort { protocol: "TCP".into(), host_address: None, host_port: number, port: 80 };
        let claims = Claims::default();
        let first = claims.claim("u1", &[port(8080), port(8081)]).unwrap();
        assert!(matches!(claims.claim("u2", &[port(8081)]), Err(NetworkError::Taken { port: 8081, .. })));
        drop(claims.claim("u3", &[port(8082)]).unwrap());
        drop(first);
        claims.claim("u2", &[port(8081)]).unwrap();
    }
}
