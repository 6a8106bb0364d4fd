//! A client of the REST API, and the paths of the kinds.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use kube::Client;
use kube::config::KubeConfigOptions;
use serde_json::Value;

use super::args::ClientArgs;
use super::kubeconfig;
use crate::model::Kind;
use crate::model::custom::{CustomKind, Names};

/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// For a server to answer a request; a stream of logs may be silent for longer.
const ANSWER: Duration = Duration::from_secs(60);

/// Connects as the flags, the environment or the daemon on this host say.
pub async fn connect(args: &ClientArgs) -> anyhow::Result<Client> {
    let (kubeconfig, name) = kubeconfig::load(args)?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use kubeconfig {name}"))?;
    config.connect_timeout = Some(CONNECT);
    crate::tls::install_provider();
    Ok(Client::try_from(config)?)
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
    call_within(ANSWER, client, method, path, body).await
}

/// As [`call`], of what may take longer.
pub async fn call_within(limit: Duration, client: &Client, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = match body {
        Some(value) => serde_json::to_vec(value)?,
        None => Vec::new(),
    };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content).body(body)?;
    answered(limit, client.request::<Value>(request)).await
}

/// Waits for an answer, but not for ever.
pub async fn within<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> anyhow::Result<T> {
    answered(ANSWER, answer).await
}

async fn answered<T>(limit: Duration, answer: impl Future<Output = Result<T, kube::Error>>) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => bail!("the server took the request and did not answer within {} s", limit.as_secs()),
    }
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
    let kind = kind_of_word(kind).ok_or_else(|| anyhow!("podbay does not serve {kind:?}; it serves {}", served()))?;
    Ok((kind, name))
}

/// As [`target`], where a name is needed.
pub fn named_target(words: &[String]) -> anyhow::Result<(Kind, String)> {
    match target(words)? {
        (kind, Some(name)) => Ok((kind, name)),
        (kind, None) => bail!("which {kind}? say {} NAME", kind.info().singular),
    }
}

/// The pod that `NAME` or `pod/NAME` means.
///
/// # Errors
/// It names another kind, of which kubectl would choose a pod.
pub fn pod_name(word: &str) -> anyhow::Result<&str> {
    let Some((kind, name)) = word.split_once('/') else { return Ok(word) };
    if Kind::of_word(kind) != Some(Kind::Pod) {
        bail!("{word}: only a pod can be named here, as NAME or pod/NAME: `podbay get pods` lists them");
    }
    Ok(name)
}

/// A kind by what people call it: of the table, or of the custom ones that were asked for.
fn kind_of_word(word: &str) -> Option<Kind> {
    let custom = || {
        let word = word.to_lowercase();
        let (name, group) = word.split_once('.').map_or((word.as_str(), None), |(name, group)| (name, Some(group)));
        CustomKind::of_word(name, group).map(Kind::Custom)
    };
    Kind::of_word(word).or_else(custom)
}

/// Reads words that name kinds; those that no kind of the table has are asked for at the server.
///
/// # Errors
/// What `read` says, with the custom kinds known where there is a server.
pub async fn with_custom_kinds<T>(args: &ClientArgs, read: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let first = read();
    if first.is_ok() {
        return first;
    }
    let Ok(client) = connect(args).await else { return first };
    learn(&client).await?;
    read()
}

/// Asks the server for its custom kinds.
async fn learn(client: &Client) -> anyhow::Result<()> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = http::Request::builder().uri("/apis").header("accept", accept).body(Vec::new())?;
    let answer: Value = within(client.request(request)).await?;
    for group in answer["items"].as_array().into_iter().flatten() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        // The first version is the one the server prefers.
        for resource in group["versions"][0]["resources"].as_array().into_iter().flatten() {
            let version = group["versions"][0]["version"].as_str().unwrap_or_default();
            let names = names_of(name, version, resource);
            if Kind::of_resource(name, version, &names.plural).is_none() {
                CustomKind::intern(&names);
            }
        }
    }
    Ok(())
}

fn names_of(group: &str, version: &str, resource: &Value) -> Names {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Names {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: text(&resource["responseKind"]["kind"]),
        plural: text(&resource["resource"]),
        singular: text(&resource["singularResource"]),
        short: words(&resource["shortNames"]),
        categories: words(&resource["categories"]),
        namespaced: resource["scope"] == "Namespaced",
        has_status: true,
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

    #[test]
    fn a_pod_is_called_as_lists_call_it() {
        for word in ["a", "pod/a", "pods/a", "po/a"] {
            assert_eq!(pod_name(word).unwrap(), "a", "{word}");
        }
        for word in ["deploy/a", "job/a", "nonsense/a"] {
            assert!(pod_name(word).unwrap_err().to_string().starts_with(&format!("{word}: only a pod")), "{word}");
        }
    }
}
