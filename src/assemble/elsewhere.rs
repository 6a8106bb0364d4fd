//! A node of a server that is not Podbay's: who it is there, and who may call its node API.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::{daemon, node, up};
use crate::agent::certificates::client::{self, KubeIdentity, Places};
use crate::agent::certificates::plan::Wanted;
use crate::agent::certificates::server::Serving;
use crate::agent::node_api::callers::{Callers, guarded};
use crate::clock::Clock;
use crate::config::Config;
use crate::tls::{kubeconfig, serve};

/// A client of that server, as this node, whose certificates are kept fresh; `None`: the end came before there was one.
pub async fn known(
    config: &Config,
    here: &node::Node,
    clock: Arc<dyn Clock>,
    end: &CancellationToken,
) -> anyhow::Result<Option<kube::Client>> {
    let Some(places) = places(config) else { return Ok(None) };
    let file = places.file.clone();
    // Somebody may have to approve of this node first, and that takes as long as it takes.
    daemon::tell_ready(end.clone());
    let Some(identity) = client::open_in_time(&places, clock.as_ref(), end).await? else { return Ok(None) };
    let identity = Arc::new(identity);
    tokio::spawn(Arc::clone(&identity).keep_fresh(Arc::clone(&clock), end.clone()));
    let own = identity.certificate();
    match callers(config.node.api_client_ca.as_deref(), identity.authorities()?, own.as_deref()) {
        Ok(callers) => {
            let serving = Arc::new(serving(config, here, &identity, clock.as_ref())?);
            let tls = serve::asking_config(&callers, serving.key())?;
            let callers = Callers::new(&config.node.name, config.node.api_client.clone(), identity.way().client(), Arc::clone(&clock));
            up::serve_node_api(config, guarded(here.api(), callers), tls, end).await?;
            tokio::spawn(serving.keep_fresh(identity.way().clone(), file, clock, end.clone()));
        }
        Err(error) => tracing::error!("no node API, so no logs and no exec of this node's pods: {error:#}"),
    }
    Ok(Some(identity.way().client()))
}

fn places(config: &Config) -> Option<Places> {
    Some(Places {
        file: config.node.kubeconfig.clone()?,
        bootstrap: config.node.bootstrap_kubeconfig.clone(),
        directory: directory(config),
        node: config.node.name.clone(),
    })
}

fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("agent")
}

fn serving(config: &Config, here: &node::Node, identity: &KubeIdentity, clock: &dyn Clock) -> anyhow::Result<Serving> {
    let addresses = here.options.node_addresses.iter().map(ToString::to_string);
    let wanted = Wanted { node: config.node.name.clone(), names: std::iter::once(config.node.name.clone()).chain(addresses).collect() };
    Ok(Serving::open(&directory(config), wanted, &identity.authorities()?, clock.now()))
}

/// The CAs of those who may call the node API: those of the file that is `named`, else the server's. The one that vouches for a
/// server need not be the one for clients: by another, whoever has a certificate with the right name would get in, so it is
/// seen from the node's `own`, of each CA by itself.
fn callers(named: Option<&Path>, servers: Vec<CertificateDer<'static>>, own: Option<&str>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    if let Some(path) = named {
        let text = std::fs::read_to_string(path).with_context(|| format!("read node.api-client-ca {}", path.display()))?;
        return kubeconfig::certificates(&text).with_context(|| format!("node.api-client-ca {}", path.display()));
    }
    let mut clients = Vec::new();
    for authority in servers {
        if let Some(own) = own
            && serve::is_client_of(std::slice::from_ref(&authority), own)?
        {
            clients.push(authority);
        }
    }
    if !clients.is_empty() {
        return Ok(clients);
    }
    bail!(
        "the CA in the kubeconfig vouches for the server, and this node has no client certificate of it, so it may not be the CA of \
         clients: set node.api-client-ca (kube-apiserver's --client-ca-file, as /etc/kubernetes/pki/ca.crt)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::tls::{Authority, Order};

    #[test]
    fn a_ca_of_servers_is_not_taken_for_one_of_clients() {
        let (dir, now) = (tempfile::tempdir().unwrap(), SystemClock.now());
        let authority = |name: &str| Authority::open(&dir.path().join(name), now).unwrap();
        let (clients, servers) = (authority("clients"), authority("servers"));
        let order = Order {
            common_name: "system:node:n1".to_owned(),
            organisation: None,
            names: Vec::new(),
            life: std::time::Duration::from_secs(3600),
        };
        let own = clients.issue(&order, now).unwrap().1.pem;
        let of = |authority: &Authority| vec![authority.der().clone()];
        assert_eq!(callers(None, of(&clients), Some(&own)).unwrap(), of(&clients));
        // Of several, the others stay CAs of servers.
        let both = |first, second| callers(None, [of(first), of(second)].concat(), Some(&own)).unwrap();
        assert_eq!((both(&clients, &servers), both(&servers, &clients)), (of(&clients), of(&clients)));
        for own in [Some(own.as_str()), Some("nonsense"), None] {
            let error = callers(None, of(&servers), own).unwrap_err().to_string();
            assert!(error.contains("set node.api-client-ca"), "{error}");
        }
        let file = dir.path().join("ca.crt");
        let named = || callers(Some(&file), of(&servers), Some(&own));
        assert!(format!("{:#}", named().unwrap_err()).contains("read node.api-client-ca"));
        std::fs::write(&file, "").unwrap();
        assert!(format!("{:#}", named().unwrap_err()).contains("the CA is not a certificate"));
        std::fs::write(&file, clients.pem()).unwrap();
        assert_eq!(named().unwrap(), of(&clients));
    }
}
