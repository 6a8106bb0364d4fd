//! A node of a server that is not Podbay's: who it is there, and who may call its node API.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::{daemon, node, up};
use crate::agent::certificates::client::{self, KubeIdentity, Places};
use crate::agent::certificates::plan::Wanted;
use crate::agent::certificates::server::Serving;
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
    match callers(config, &identity) {
        Ok(callers) => {
            let serving = Arc::new(serving(config, here, &identity, clock.as_ref())?);
            let tls = serve::closed_config(&callers, serving.key(), config.node.api_client.clone())?;
            up::serve_node_api(config, here, tls, end).await?;
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

/// The CAs of those who may call the node API. The one that vouches for a server need not be the one for clients: by another,
/// whoever has a certificate with the right name would get in, so nothing is guessed.
fn callers(config: &Config, identity: &KubeIdentity) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    if let Some(path) = &config.node.api_client_ca {
        let text = std::fs::read_to_string(path).with_context(|| format!("read node.api-client-ca {}", path.display()))?;
        return kubeconfig::certificates(&text).with_context(|| format!("node.api-client-ca {}", path.display()));
    }
    let authorities = identity.authorities()?;
    let is_of_clients = match identity.certificate() {
        Some(certificate) => serve::is_client_of(&authorities, &certificate)?,
        None => false,
    };
    is_of_clients.then_some(authorities).ok_or_else(|| {
        anyhow!(
            "the CA in the kubeconfig vouches for the server, and this node has no client certificate of it, so it may not be the CA of \
             clients: set node.api-client-ca (kube-apiserver's --client-ca-file, as /etc/kubernetes/pki/ca.crt)"
        )
    })
}
