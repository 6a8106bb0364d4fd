//! `podbay node`: list, cordon, uncordon, drain, remove.

use std::time::{Duration, Instant};

use anyhow::bail;
use kube::Client;
use serde_json::{Value, json};

use super::args::{GetArgs, GetFormat, NodeName, NodeVerb};
use super::client::{call, connect, items, path};
use super::error::Outcome;
use super::{get, output};
use crate::model::Kind;

pub async fn run(verb: &NodeVerb) -> Outcome {
    match verb {
        NodeVerb::List(client) => list(client).await,
        NodeVerb::Cordon(node) => cordon(node, true).await,
        NodeVerb::Uncordon(node) => cordon(node, false).await,
        NodeVerb::Drain { node, force, timeout } => drain(node, *force, Duration::from_secs(*timeout)).await,
        NodeVerb::Remove { node, force } => remove(node, *force).await,
    }
}

async fn list(client: &super::args::ClientArgs) -> Outcome {
    let args = GetArgs {
        client: client.clone(),
        what: vec!["nodes".to_owned()],
        namespace: None,
        all_namespaces: false,
        selector: None,
        output: GetFormat::Table,
    };
    get::run(&args).await
}

async fn cordon(node: &NodeName, unschedulable: bool) -> Outcome {
    let client = connect(&node.client).await?;
    set_unschedulable(&client, &node.name, unschedulable).await?;
    output::print(&format!("node/{} {}\n", output::clean(&node.name), if unschedulable { "cordoned" } else { "uncordoned" }));
    Ok(0)
}

async fn set_unschedulable(client: &Client, name: &str, unschedulable: bool) -> anyhow::Result<()> {
    let patch = json!({"spec": {"unschedulable": unschedulable.then_some(true)}});
    call(client, "PATCH", &path(Kind::Node, None, Some(name)), Some(&patch)).await?;
    Ok(())
}

async fn drain(node: &NodeName, force: bool, timeout: Duration) -> Outcome {
    let client = connect(&node.client).await?;
    set_unschedulable(&client, &node.name, true).await?;
    let pods = pods_on(&client, &node.name).await?;
    let bare: Vec<String> = pods.iter().filter(|pod| !has_controller(pod)).map(name_of).collect();
    if !bare.is_empty() && !force {
        bail!("nothing would replace {}: say --force to delete them all the same (the node stays cordoned)", bare.join(", "));
    }
    for pod in &pods {
        let meta = &pod["metadata"];
        let (namespace, name) = (meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str().unwrap_or_default());
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": meta["uid"]}});
        match call(&client, "DELETE", &path(Kind::Pod, Some(namespace), Some(name)), Some(&body)).await {
            Ok(_) => output::print(&output::clean(&format!("pod/{name} deleted\n"))),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error.context(format!("delete pod {namespace}/{name}"))),
        }
    }
    let started = Instant::now();
    loop {
        let left = pods_on(&client, &node.name).await?;
        if left.is_empty() {
            output::print(&format!("node/{} drained\n", output::clean(&node.name)));
            return Ok(0);
        }
        if started.elapsed() > timeout {
            bail!("still on the node after {} s: {}", timeout.as_secs(), left.iter().map(name_of).collect::<Vec<_>>().join(", "));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The pods of a node that are not finished.
async fn pods_on(client: &Client, node: &str) -> anyhow::Result<Vec<Value>> {
    let selector = get::form_encoded(&format!("spec.nodeName={node}"));
    let mut pods = items(client, &format!("{}?fieldSelector={selector}", path(Kind::Pod, None, None))).await?;
    pods.retain(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
    Ok(pods)
}

fn has_controller(pod: &Value) -> bool {
    pod["metadata"]["ownerReferences"].as_array().is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true))
}

fn name_of(pod: &Value) -> String {
    format!("{}/{}", pod["metadata"]["namespace"].as_str().unwrap_or_default(), pod["metadata"]["name"].as_str().unwrap_or_default())
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == 404 || status.code == 409)
}

async fn remove(node: &NodeName, force: bool) -> Outcome {
    let client = connect(&node.client).await?;
    call(&client, "POST", &format!("/podbay/v1/nodes/{}/remove", node.name), Some(&json!({"force": force}))).await?;
    output::print(&format!("node/{} removed: its certificate is refused from now on\n", output::clean(&node.name)));
    Ok(0)
}
