//! `podbay exec`: a command in a container, with a terminal if wanted.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;

use super::args::ExecArgs;
use super::attach::chosen;
use super::client::connect;
use super::error::Outcome;
use super::terminal::{converse, is_usable};

pub async fn run(args: &ExecArgs) -> Outcome {
    let client = connect(&args.client).await?;
    let pods: Api<Pod> = Api::namespaced(client, args.namespace.as_deref().unwrap_or("default"));
    let container = match &args.container {
        Some(name) => Some(name.clone()),
        None => chosen(&pods.get(&args.pod).await?, None).map(|container| container.name.clone()),
    };
    let tty = args.tty && is_usable(args.stdin);
    let params = AttachParams { container, stdin: args.stdin, stdout: true, stderr: !tty, tty, ..AttachParams::default() };
    let process = pods.exec(&args.pod, &args.command, &params).await?;
    converse(process, &params).await
}
