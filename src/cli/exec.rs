//! `podbay exec`: a command in a container, with a terminal if wanted.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;

use super::args::ExecArgs;
use super::client::connect;
use super::error::Outcome;
use super::terminal::converse;

pub async fn run(args: &ExecArgs) -> Outcome {
    let client = connect(&args.client).await?;
    let pods: Api<Pod> = Api::namespaced(client, args.namespace.as_deref().unwrap_or("default"));
    let params = AttachParams {
        container: args.container.clone(),
        stdin: args.stdin,
        stdout: true,
        stderr: !args.tty,
        tty: args.tty,
        ..AttachParams::default()
    };
    let process = pods.exec(&args.pod, &args.command, &params).await?;
    converse(process, &params).await
}
