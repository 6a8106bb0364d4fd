//! `podbay status`: the whole cluster on one screen.

use serde_json::Value;

use super::args::ClientArgs;
use super::client::{connect, items, path};
use super::error::Outcome;
use super::trouble::{Warnings, trouble};
use super::{output, source};
use crate::model::Kind;

/// What one source leaves out is listed up to here.
const LEFT_OUT: usize = 10;

pub async fn run(args: &ClientArgs) -> Outcome {
    let client = connect(args).await?;
    let nodes = items(&client, &path(Kind::Node, None, None)).await?;
    let sources = items(&client, &path(Kind::Source, None, None)).await?;
    let deployments = items(&client, &path(Kind::Deployment, None, None)).await?;
    let jobs = items(&client, &path(Kind::Job, None, None)).await?;
    let pods = items(&client, &path(Kind::Pod, None, None)).await?;
    let warnings = Warnings::read(&client, None).await?;
    output::print(&text(&nodes, &sources, &deployments, &jobs, &pods, &warnings));
    Ok(0)
}

fn text(nodes: &[Value], sources: &[Value], deployments: &[Value], jobs: &[Value], pods: &[Value], warnings: &Warnings) -> String {
    let ready = nodes.iter().filter(|node| condition(node, "Ready")).count();
    let mut text = format!("nodes: {ready}/{} ready   pods: {}\n", nodes.len(), phases(pods));
    if !sources.is_empty() {
        text.push('\n');
        text.push_str(&source::table(sources));
    }
    let left: Vec<Vec<String>> = sources.iter().flat_map(left_out).collect();
    if !left.is_empty() {
        text.push('\n');
        text.push_str(&output::table(&["SOURCE", "LEFT OUT OR LEFT ALONE"], left));
    }
    let workloads: Vec<Vec<String>> = deployments.iter().map(deployment).chain(jobs.iter().map(job)).collect();
    if !workloads.is_empty() {
        text.push('\n');
        text.push_str(&output::table(&["NAMESPACE", "WORKLOAD", "READY"], workloads));
    }
    let troubled: Vec<Vec<String>> = pods.iter().filter_map(|pod| trouble(pod, warnings)).collect();
    if !troubled.is_empty() {
        text.push('\n');
        text.push_str(&output::table(&["NAMESPACE", "POD", "NOT READY BECAUSE"], troubled));
    }
    text
}

/// What a source does not write, each with its reason; a long list ends in the number of the others.
fn left_out(source: &Value) -> Vec<Vec<String>> {
    let name = source["metadata"]["name"].as_str().unwrap_or_default();
    let all: Vec<&str> = source["status"]["skipped"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut rows: Vec<Vec<String>> = all.iter().take(LEFT_OUT).map(|reason| vec![name.to_owned(), (*reason).to_owned()]).collect();
    if all.len() > LEFT_OUT {
        let more = source::counted(&source["status"]["skipped"]) - LEFT_OUT;
        rows.push(vec![name.to_owned(), format!("and {more} more: podbay explain {name}")]);
    }
    rows
}

pub(super) fn condition(object: &Value, kind: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True"))
}

fn phases(pods: &[Value]) -> String {
    if pods.is_empty() {
        return "none".to_owned();
    }
    let mut counts = std::collections::BTreeMap::new();
    for pod in pods {
        *counts.entry(pod["status"]["phase"].as_str().unwrap_or("Pending")).or_insert(0) += 1;
    }
    counts.iter().map(|(phase, count)| format!("{count} {phase}")).collect::<Vec<_>>().join(", ")
}

fn name(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn deployment(object: &Value) -> Vec<String> {
    let (namespace, name) = name(object);
    let ready = object["status"]["readyReplicas"].as_i64().unwrap_or(0);
    vec![namespace, format!("deployment/{name}"), format!("{ready}/{}", object["spec"]["replicas"].as_i64().unwrap_or(1))]
}

fn job(object: &Value) -> Vec<String> {
    let (namespace, name) = name(object);
    let done = object["status"]["succeeded"].as_i64().unwrap_or(0);
    let state = if condition(object, "Failed") { " failed" } else { "" };
    vec![namespace, format!("job/{name}"), format!("{done}/{} done{state}", object["spec"]["completions"].as_i64().unwrap_or(1))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_source_leaves_out_is_shown_with_its_reason() {
        let skipped: Vec<String> = (0..12).map(|index| format!("a.yaml:{index}: kind Widget is not served")).collect();
        let source = json!({"metadata": {"name": "shop"}, "status": {"acceptedRevision": "r1", "skipped": skipped}});
        let text = text(&[], &[source], &[], &[], &[], &Warnings::default());
        assert!(text.contains("Accepted, 12 left out or left alone"), "{text}");
        assert!(text.contains("a.yaml:3: kind Widget is not served") && text.contains("and 2 more: podbay explain shop"), "{text}");
    }

    #[test]
    fn a_pending_pod_says_why() {
        let pod = json!({"metadata": {"namespace": "web", "name": "a"}, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu"}]}});
        let text = text(&[], &[], &[], &[], &[pod], &Warnings::default());
        assert!(text.contains("0/1 nodes are available: 1 Insufficient cpu"), "{text}");
        assert!(text.starts_with("nodes: 0/0 ready   pods: 1 Pending"), "{text}");
    }
}
