//! Ports of the host that lead to a pod's, as the network knows them. PURE.

use crate::cri::types::{CriError, PortMapping};
use crate::network::HostPort;

/// Mappings without a port of the host say only what the pod listens on.
pub fn host_ports(mappings: &[PortMapping]) -> Result<Vec<HostPort>, CriError> {
    let address = |text: &str| match text {
        "" | "0.0.0.0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| CriError::Invalid(format!("host address {text:?} of a port is not IPv4"))),
    };
    let asked = mappings.iter().filter(|mapping| mapping.host_port > 0);
    asked
        .map(|mapping| {
            let protocol = mapping.protocol.to_ascii_uppercase();
            let host_address = address(&mapping.host_ip)?;
            Ok(HostPort { protocol, host_address, host_port: mapping.host_port, port: mapping.container_port })
        })
        .collect()
}
