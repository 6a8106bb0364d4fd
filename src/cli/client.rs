//! A client of the REST API, and the paths of the kinds.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use super::args::ClientArgs;
use crate::config::{DEFAULT_DATA_DIR, DEFAULT_RUN_DIR};
use crate::model::Kind;

/// The kubeconfig the daemon leaves in its data directory, and links in the default run directory.
pub const ADMIN_KUBECONFIG: &str = "admin.kubeconfig";

/// Connects as the flags, the environment or the daemon on this host say.
pub async fn connect(args: &ClientArgs) -> anyhow::Result<Client> {
    let path = kubeconfig(args)?;
    let read = || -> anyhow::Result<Kubeconfig> { Ok(Kubeconfig::read_from(&path)?) };
    let kubeconfig = read().with_context(|| format!("read kubeconfig {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use kubeconfig {}", path.display()))?;
    crate::tls::install_provider();
    Ok(Client::try_from(config)?)
}

fn kubeconfig(args: &ClientArgs) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(dir) = &args.data_dir {
        return Ok(dir.join(ADMIN_KUBECONFIG));
    }
    let places = [Path::new(DEFAULT_RUN_DIR).join(ADMIN_KUBECONFIG), Path::new(DEFAULT_DATA_DIR).join(ADMIN_KUBECONFIG)];
    places.iter().find(|path| path.exists()).cloned().ok_or_else(|| {
        anyhow!(
            "no daemon on this host ({} is not there): start one with `podbay up`, or say --kubeconfig or --data-dir",
            places[1].display()
        )
    })
}

/// `/api/v1/namespaces/web/pods/a`: a kind's collection, or one object of it.
pub fn path(kind: Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let info = kind.info();
    let mut path = if info.group.is_empty() { format!("/api/{}", info.version) } else { format!("/apis/{}/{}", info.group, info.version) };
    if let Some(namespace) = namespace.filter(|_| info.namespaced) {
        path.push_str(&format!("/namespaces/{namespace}"));
    }
    path.push('/');
    path.push_str(info.plural);
    if let Some(name) = name {
        path.push_str(&format!("/{name}"));
    }
    path
}

/// One request with an optional JSON body; the answer as JSON.
pub async fn call(client: &Client, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = match body {
        Some(value) => serde_json::to_vec(value)?,
        None => Vec::new(),
    };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content).body(body)?;
    Ok(client.request::<Value>(request).await?)
}

pub async fn get(client: &Client, path: &str) -> anyhow::Result<Value> {
    call(client, "GET", path, None).await
}

/// The items of a list, following its pages.
pub async fn items(client: &Client, path: &str) -> anyhow::Result<Vec<Value>> {
    match get(client, path).await?["items"].take() {
        Value::Array(items) => Ok(items),
        _ => bail!("{path}: the answer is no list"),
    }
}

/// Reads `KIND NAME`, `KIND/NAME` or `KIND`.
pub fn target(words: &[String]) -> anyhow::Result<(Kind, Option<String>)> {
    let (kind, name) = match words {
        [one] => match one.split_once('/') {
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (one.as_str(), None),
        },
        [kind, name] => (kind.as_str(), Some(name.clone())),
        _ => bail!("say KIND, KIND NAME or KIND/NAME"),
    };
    let kind = Kind::of_word(kind).ok_or_else(|| anyhow!("podbay does not serve {kind:?}; it serves {}", served()))?;
    Ok((kind, name))
}

/// As [`target`], where a name is needed.
pub fn named_target(words: &[String]) -> anyhow::Result<(Kind, String)> {
    match target(words)? {
        (kind, Some(name)) => Ok((kind, name)),
        (kind, None) => bail!("which {kind}? say {} NAME", kind.info().singular),
    }
}

fn served() -> String {
    Kind::all().iter().map(|info| info.plural).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_kubernetes() {
        assert_eq!(path(Kind::Pod, Some("web"), Some("a")), "/api/v1/namespaces/web/pods/a");
        assert_eq!(path(Kind::Deployment, None, None), "/apis/apps/v1/deployments");
        assert_eq!(path(Kind::Node, Some("ignored"), Some("n1")), "/api/v1/nodes/n1");
    }

    #[test]
    fn targets_are_read_as_kubectl_reads_them() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(target(&words("deploy/web")).unwrap(), (Kind::Deployment, Some("web".into())));
        assert_eq!(target(&words("po a")).unwrap(), (Kind::Pod, Some("a".into())));
        assert!(target(&words("statefulsets")).unwrap_err().to_string().contains("deployments"));
        assert!(named_target(&words("pods")).unwrap_err().to_string().contains("which Pod"));
    }
}
