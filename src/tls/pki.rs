//! The server's own certificates: made at the first start, kept on disk, renewed in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::authority::{Authority, Order, Pair, certificate_block, key_block};
use super::{LiveKey, Peer, SERVER_CLIENT, SERVER_NAME, Signer, TlsError, connect, files, kubeconfig, serve};
use crate::clock::Clock;
use crate::model::Timestamp;

/// Of the server's own certificates.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between looks whether one is due.
const LOOK: Duration = Duration::from_secs(3600);

/// CA, server certificate, the client certificate for node APIs, the admin's, and the key of tokens.
pub struct Pki {
    directory: PathBuf,
    names: Vec<String>,
    authority: Authority,
    signer: Signer,
    server: Arc<LiveKey>,
    node_client: Arc<LiveKey>,
}

impl Pki {
    /// The certificates of `directory` (`DATA_DIR/pki`). `names`: addresses and host names under
    /// which clients reach this server.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn open(directory: &Path, names: &[String], now: Timestamp) -> Result<Arc<Self>, TlsError> {
        let authority = Authority::open(directory, now)?;
        let mut all: Vec<String> = [SERVER_NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        all.extend(names.iter().cloned());
        let server = stored(directory, &authority, &server_order(&all), "server", now)?;
        let node_client = stored(directory, &authority, &node_client_order(), "node-client", now)?;
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            names: all,
            server: LiveKey::new(&server, authority.pem())?,
            node_client: LiveKey::new(&node_client, authority.pem())?,
            signer: Signer::open(directory)?,
            authority,
        }))
    }

    /// Every name and address that the server's certificate is valid for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Signs the tokens of service accounts.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// For serving the API.
    ///
    /// # Errors
    /// A CA that rustls does not take.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        serve::server_config(self.authority.der(), Arc::clone(&self.server))
    }

    /// For connecting to node APIs that prove which node they are.
    ///
    /// # Errors
    /// A CA that rustls does not take.
    pub fn node_client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        connect::node_client_config(self.authority.der(), Arc::clone(&self.node_client), false)
    }

    /// The same for any that answer: whoever sits at a node's address hears what is meant for it, as with kube-apiserver
    /// without `--kubelet-certificate-authority`.
    ///
    /// # Errors
    /// A CA that rustls does not take.
    pub fn any_node_client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        connect::node_client_config(self.authority.der(), Arc::clone(&self.node_client), true)
    }

    /// Writes the admin's kubeconfig, atomically and with mode 0600.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, now: Timestamp) -> Result<(), TlsError> {
        let admin = stored(&self.directory, &self.authority, &admin_order(), "admin", now)?;
        kubeconfig::write(path, server, self.authority.pem(), &admin)
    }

    /// Renews what is due. New connections use it; nobody has to be told.
    ///
    /// # Errors
    /// Files that cannot be read or written; the old certificates stay in use then.
    pub fn renew(&self, now: Timestamp) -> Result<(), TlsError> {
        let server = stored(&self.directory, &self.authority, &server_order(&self.names), "server", now)?;
        self.server.replace(&server, self.authority.pem())?;
        let client = stored(&self.directory, &self.authority, &node_client_order(), "node-client", now)?;
        self.node_client.replace(&client, self.authority.pem())
    }

    /// Renews for as long as the server runs. The kubeconfig is written anew with its certificate.
    pub async fn keep_fresh(self: Arc<Self>, kubeconfig: PathBuf, server: String, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = clock.now();
            if let Err(error) = self.renew(now).and_then(|()| self.write_kubeconfig(&kubeconfig, &server, now)) {
                tracing::warn!(%error, "renew the server's certificates");
            }
        }
    }
}

fn server_order(names: &[String]) -> Order {
    Order { common_name: "podbay-api".to_owned(), organisation: None, names: names.to_vec(), life: LIFE }
}

fn node_client_order() -> Order {
    Order { common_name: SERVER_CLIENT.to_owned(), organisation: None, names: Vec::new(), life: LIFE }
}

fn admin_order() -> Order {
    Order { common_name: "podbay-admin".to_owned(), organisation: Some("system:masters".to_owned()), names: Vec::new(), life: LIFE }
}

/// The certificate on disk, or a new one where there is none, it is due, or it says other names.
fn stored(directory: &Path, authority: &Authority, order: &Order, name: &str, now: Timestamp) -> Result<Pair, TlsError> {
    let path = directory.join(format!("{name}.pem"));
    // What it is valid for stands in the file's first line: a comment to PEM readers.
    let mark = format!("# for {} by {}\n", order.names.join(" "), authority.fingerprint());
    if let Some(text) = files::read(&path)? {
        let fresh = Peer::read_pem(&text).is_ok_and(|peer| !peer.is_due(now));
        if fresh && text.starts_with(&mark) {
            return Ok(Pair { certificate: certificate_block(&text).to_owned(), key: key_block(&text).to_owned() });
        }
    }
    let (pair, _) = authority.issue(order, now)?;
    files::write_private(&path, format!("{mark}{}{}", pair.certificate, pair.key).as_bytes())?;
    Ok(pair)
}

/// The names this host goes by: its host name and the addresses of its interfaces, without those of
/// bridges and links to containers. They come and go, nobody reaches the server by them from
/// elsewhere, and a certificate tells everybody what it names. `own_bridge`: this daemon's.
pub fn host_names(own_bridge: &str) -> Vec<String> {
    let mut names: Vec<String> = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).into_iter().collect();
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten().filter(|interface| is_hosts(&interface.interface_name, own_bridge)) {
        let address = interface.address;
        let ipv4 = address.as_ref().and_then(|address| address.as_sockaddr_in()).map(|address| address.ip().to_string());
        names.extend(ipv4);
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether an interface is the host's own, by the names that Podbay, Docker, libvirt and CNI plugins
/// give to those that are not.
fn is_hosts(interface: &str, own_bridge: &str) -> bool {
    let begins = ["podbay", "docker", "virbr", "veth", "cni", "cali", "flannel", "podman", "lxcbr", "lxdbr"];
    let of_docker = interface.strip_prefix("br-").is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    interface != own_bridge && !of_docker && !begins.iter().any(|begin| interface.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_of_containers_do_not_name_the_server() {
        for name in ["mine0", "podbay0", "docker0", "br-0123456789ab", "virbr0", "veth12", "cni0", "podman1"] {
            assert!(!is_hosts(name, "mine0"), "{name}");
        }
        for name in ["lo", "eth0", "enp3s0", "br0", "br-lan", "bond0", "wlan0", "tailscale0"] {
            assert!(is_hosts(name, "mine0"), "{name}");
        }
    }
}
