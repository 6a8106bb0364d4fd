//! `podbay attach`: what a container writes from now on, and what is typed for it.

use anyhow::bail;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::AttachParams;

use super::args::AttachArgs;
use super::client::connect;
use super::error::Outcome;
use super::terminal::converse;

pub async fn run(args: &AttachArgs) -> Outcome {
    let client = connect(&args.client).await?;
    let pods: Api<Pod> = Api::namespaced(client, args.namespace.as_deref().unwrap_or("default"));
    let pod = pods.get(&args.pod).await?;
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let params = match chosen(containers, args.container.as_deref()) {
        Some(container) => streams(container, args)?,
        // The server says which there are.
        None => AttachParams { container: args.container.clone(), stdin: args.stdin, ..AttachParams::default() },
    };
    let process = pods.attach(&args.pod, &params).await?;
    converse(process, &params).await
}

fn chosen<'a>(containers: &'a [Container], name: Option<&str>) -> Option<&'a Container> {
    match name {
        Some(name) => containers.iter().find(|container| container.name == name),
        None => containers.first(),
    }
}

/// Whether a container has a terminal and an input was said when it was created.
fn streams(container: &Container, args: &AttachArgs) -> anyhow::Result<AttachParams> {
    let name = &container.name;
    if args.stdin && container.stdin != Some(true) {
        bail!("container {name} has no standard input: its manifest lacks `stdin: true`");
    }
    if args.tty && container.tty != Some(true) {
        bail!("container {name} has no terminal: its manifest lacks `tty: true`");
    }
    Ok(AttachParams {
        container: Some(name.clone()),
        stdin: args.stdin,
        stdout: true,
        // A terminal has one output.
        stderr: container.tty != Some(true),
        tty: args.tty,
        ..AttachParams::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_does_not_have_is_said() {
        let args = |stdin, tty| AttachArgs { client: Default::default(), pod: "p".into(), namespace: None, container: None, stdin, tty };
        let plain = Container { name: "c".into(), ..Container::default() };
        let shell = Container { stdin: Some(true), tty: Some(true), ..plain.clone() };
        assert!(streams(&plain, &args(false, false)).is_ok_and(|params| params.stderr && params.stdout));
        assert!(streams(&shell, &args(true, true)).is_ok_and(|params| params.tty && params.stdin && !params.stderr));
        for (stdin, tty, lacks) in [(true, false, "`stdin: true`"), (false, true, "`tty: true`")] {
            assert!(streams(&plain, &args(stdin, tty)).unwrap_err().to_string().contains(lacks));
        }
        assert!(chosen(&[plain], Some("other")).is_none());
    }
}
