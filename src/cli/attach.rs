//! `podbay attach`: what a container writes from now on, and what is typed for it.

use anyhow::bail;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::AttachParams;

use super::args::StreamArgs;
use super::client::{connect, pod_name};
use super::error::Outcome;
use super::terminal::{converse, is_usable};

/// Names the container that is meant where nobody names one (kubectl's).
const DEFAULT: &str = "kubectl.kubernetes.io/default-container";

pub async fn run(args: &StreamArgs) -> Outcome {
    let name = pod_name(&args.pod)?;
    let pods = pods(args).await?;
    let pod = pods.get(name).await?;
    let mut params = match chosen(&pod, args.container.as_deref()) {
        Some(container) => streams(container, args)?,
        // The server says which there are.
        None => AttachParams { container: args.container.clone(), stdin: args.stdin, ..AttachParams::default() },
    };
    params.tty = params.tty && is_usable(params.stdin);
    let process = pods.attach(name, &params).await?;
    converse(process, &params).await
}

/// The pods of the namespace that is meant.
pub async fn pods(args: &StreamArgs) -> anyhow::Result<Api<Pod>> {
    Ok(Api::namespaced(connect(&args.client).await?, args.namespace.as_deref().unwrap_or("default")))
}

/// The container of this name; without one that of the pod's annotation, or the first.
pub fn chosen<'a>(pod: &'a Pod, name: Option<&str>) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let named = |name: &str| {
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.find(|container| container.name == name)
    };
    let annotated = || pod.metadata.annotations.as_ref().and_then(|all| named(all.get(DEFAULT)?));
    match name {
        Some(name) => named(name),
        None => annotated().or_else(|| spec.containers.first()),
    }
}

/// Whether a container has a terminal and an input was said when it was created.
fn streams(container: &Container, args: &StreamArgs) -> anyhow::Result<AttachParams> {
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
        let args = |stdin, tty| StreamArgs { stdin, tty, ..StreamArgs::default() };
        let plain = Container { name: "c".into(), ..Container::default() };
        let shell = Container { stdin: Some(true), tty: Some(true), ..plain.clone() };
        assert!(streams(&plain, &args(false, false)).is_ok_and(|params| params.stderr && params.stdout));
        assert!(streams(&shell, &args(true, true)).is_ok_and(|params| params.tty && params.stdin && !params.stderr));
        for (stdin, tty, lacks) in [(true, false, "`stdin: true`"), (false, true, "`tty: true`")] {
            assert!(streams(&plain, &args(stdin, tty)).unwrap_err().to_string().contains(lacks));
        }
    }

    #[test]
    fn init_containers_are_found_and_the_annotation_says_which_is_meant() {
        let container = |name: &str| Container { name: name.into(), ..Container::default() };
        let mut pod = Pod::default();
        pod.spec.get_or_insert_default().containers = vec![container("a"), container("b")];
        pod.spec.get_or_insert_default().init_containers = Some(vec![container("first"), container("side")]);
        let name = |pod: &Pod, name| chosen(pod, name).map(|container| container.name.clone()).unwrap_or_default();
        assert_eq!([None, Some("b"), Some("side"), Some("other")].map(|wanted| name(&pod, wanted)), ["a", "b", "side", ""]);
        for (said, meant) in [("b", "b"), ("side", "side"), ("other", "a")] {
            pod.metadata.annotations.get_or_insert_default().insert(DEFAULT.into(), said.into());
            assert_eq!([name(&pod, None), name(&pod, Some("a"))], [meant, "a"]);
        }
    }
}
