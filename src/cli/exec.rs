//! `podbay exec`: a command in a container, with a terminal if wanted.

use kube::api::AttachParams;

use super::args::ExecArgs;
use super::attach::{chosen, pods};
use super::client::pod_name;
use super::error::Outcome;
use super::terminal::{converse, is_usable};

pub async fn run(args: &ExecArgs) -> Outcome {
    let streams = &args.streams;
    let name = pod_name(&streams.pod)?;
    let pods = pods(streams).await?;
    let container = match &streams.container {
        Some(name) => Some(name.clone()),
        None => chosen(&pods.get(name).await?, None).map(|container| container.name.clone()),
    };
    let tty = streams.tty && is_usable(streams.stdin);
    let params = AttachParams { container, stdin: streams.stdin, stdout: true, stderr: !tty, tty, ..AttachParams::default() };
    let process = pods.exec(name, &args.command, &params).await?;
    converse(process, &params).await
}
