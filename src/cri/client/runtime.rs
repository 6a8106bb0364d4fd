//! RuntimeService of the runtime behind the socket.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::broadcast;

use super::{Client, PATIENCE, Shared, done, got, request, stream, timed};
use crate::cri::wire::sandbox::{namespaces_to_wire, resources_to_wire};
use crate::cri::wire::{self, container, sandbox, status};
use crate::cri::{
    ContainerConfig, ContainerState, ContainerStats, ContainerStatus, CriError, Duplex, ExecOutput, ExecRequest, ExecSession, Features,
    Images as _, PodSandbox, PodSandboxConfig, PodSandboxStats, Resources, Runtime, RuntimeCondition, RuntimeEvent, SecurityContext,
};

/// So many questions at once.
const AT_ONCE: usize = 16;

/// Whole seconds, never less than was asked for.
fn seconds(duration: Duration) -> i64 {
    let more = u64::from(duration.subsec_nanos() > 0);
    i64::try_from(duration.as_secs() + more).unwrap_or(i64::MAX)
}

impl Shared {
    pub(super) async fn sandbox(&self, id: &str) -> Result<PodSandbox, CriError> {
        let question = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = got(&format!("look at sandbox {id}"), self.runtime().pod_sandbox_status(request(question)).await)?;
        let found = answer.status.ok_or_else(|| CriError::NotFound(format!("sandbox {id}")))?;
        Ok(status::sandbox_from_wire(found))
    }

    async fn containers(&self, filter: Option<wire::ContainerFilter>) -> Result<Vec<wire::Container>, CriError> {
        let answer = self.runtime().list_containers(request(wire::ListContainersRequest { filter })).await;
        Ok(got("list containers", answer)?.containers)
    }

    /// The status of a listed container; `None`: it is gone meanwhile.
    async fn status_of(&self, listed: &wire::Container) -> Result<Option<ContainerStatus>, CriError> {
        if let Some(known) = self.ended().get(&listed.id) {
            return Ok(Some(known.clone()));
        }
        let question = wire::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
        let answer = got(&format!("look at container {}", listed.id), self.runtime().container_status(request(question)).await);
        let found = match answer {
            Ok(answer) => answer.status,
            Err(CriError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(found) = found else { return Ok(None) };
        let mut found = status::container_from_wire(found, &listed.pod_sandbox_id);
        self.files.complete(&mut found);
        if found.state == ContainerState::Exited {
            self.ended().insert(found.id.clone(), found.clone());
        }
        Ok(Some(found))
    }

    /// What each look at a listed container has brought.
    async fn looks(&self) -> Result<Vec<Result<Option<ContainerStatus>, CriError>>, CriError> {
        let listed = self.containers(None).await?;
        self.ended().retain(|id, _| listed.iter().any(|one| one.id == *id));
        let looks = listed.into_iter().map(|one| async move { self.status_of(&one).await });
        Ok(futures::stream::iter(looks).buffered(AT_ONCE).collect().await)
    }

    async fn container(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let missing = || CriError::NotFound(format!("container {id}"));
        let filter = wire::ContainerFilter { id: id.to_owned(), ..wire::ContainerFilter::default() };
        let listed = self.containers(Some(filter)).await?.into_iter().find(|one| one.id == id).ok_or_else(missing)?;
        self.status_of(&listed).await?.ok_or_else(missing)
    }

    /// Each container's sandbox.
    async fn owners(&self) -> Result<BTreeMap<String, String>, CriError> {
        Ok(self.containers(None).await?.into_iter().map(|one| (one.id, one.pod_sandbox_id)).collect())
    }

    async fn forget_message(&self, id: &str) {
        let question = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        if let Ok(answer) = self.runtime().container_status(request(question)).await
            && let Some(found) = answer.into_inner().status
        {
            self.files.remove_message(&status::container_from_wire(found, "").mounts);
        }
    }
}

impl Client {
    /// On the wire a group needs a user: where only a group is wanted, the image's.
    async fn complete_user(&self, config: &mut ContainerConfig) -> Result<(), CriError> {
        if lacks_user(&config.security) {
            let image = self.image_status(&config.image).await?;
            take_user(&mut config.security, &image.map(|image| image.user).unwrap_or_default())?;
        }
        Ok(())
    }
}

fn lacks_user(security: &SecurityContext) -> bool {
    security.run_as_group.is_some() && security.run_as_user.is_none() && security.run_as_username.is_empty()
}

/// The user of an image's `user[:group]`; root where it has none.
fn take_user(security: &mut SecurityContext, image_user: &str) -> Result<(), CriError> {
    let name = image_user.split(':').next().unwrap_or_default();
    match name.parse() {
        Ok(number) => security.run_as_user = Some(number),
        Err(_) if name.is_empty() => security.run_as_user = Some(0),
        // Whoever reads it into a smaller number takes it for another user.
        Err(_) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(CriError::Invalid(format!("the image's user {name} is no user id")));
        }
        Err(_) => name.clone_into(&mut security.run_as_username),
    }
    Ok(())
}

#[async_trait]
impl Runtime for Client {
    fn version(&self) -> String {
        self.shared.version.clone()
    }

    async fn status(&self) -> Vec<RuntimeCondition> {
        let answer = self.shared.runtime().status(request(wire::StatusRequest { verbose: false })).await;
        let condition = |kind: &str, ok, reason: String, message| RuntimeCondition { kind: kind.to_owned(), ok, reason, message };
        match got("ask the runtime how it is", answer) {
            Ok(answer) => {
                let conditions = answer.status.unwrap_or_default().conditions.into_iter();
                conditions.map(|one| condition(&one.r#type, one.status, one.reason, one.message)).collect()
            }
            Err(error) => ["RuntimeReady", "NetworkReady"]
                .map(|kind| condition(kind, false, "RuntimeUnreachable".into(), format!("{}: {error}", self.shared.endpoint.display())))
                .to_vec(),
        }
    }

    async fn handlers(&self) -> Vec<String> {
        let answer = self.shared.runtime().status(request(wire::StatusRequest { verbose: false })).await;
        let all = got("ask the runtime for its handlers", answer).map(|answer| answer.runtime_handlers);
        all.unwrap_or_default().into_iter().map(|handler| handler.name).collect()
    }

    async fn features(&self, handler: &str) -> Result<Features, CriError> {
        let answer = self.shared.runtime().status(request(wire::StatusRequest { verbose: false })).await;
        let answer = got("ask the runtime what it can do", answer)?;
        let mut handlers = answer.runtime_handlers.into_iter();
        let of_handler = handlers.find(|known| known.name == handler).and_then(|known| known.features).unwrap_or_default();
        Ok(Features {
            user_namespaces: of_handler.user_namespaces,
            recursive_read_only_mounts: of_handler.recursive_read_only_mounts,
            supplemental_groups_policy: answer.features.is_some_and(|features| features.supplemental_groups_policy),
        })
    }

    async fn run_pod_sandbox(&self, config: &PodSandboxConfig) -> Result<String, CriError> {
        let pod = format!("{}/{}", config.metadata.namespace, config.metadata.name);
        let attempt = format!("run sandbox of pod {pod}");
        if !config.log_directory.as_os_str().is_empty() {
            // Nobody else makes it.
            std::fs::create_dir_all(&config.log_directory).map_err(|cause| CriError::failed(&attempt, cause))?;
        }
        let _claim = self.claim_ports(config).await.map_err(|cause| CriError::failed(&attempt, cause))?;
        let of_pod = sandbox::to_wire(config);
        let question = wire::RunPodSandboxRequest { config: Some(of_pod.clone()), runtime_handler: config.runtime_handler.clone() };
        let id = got(&attempt, self.shared.runtime().run_pod_sandbox(request(question)).await)?.pod_sandbox_id;
        let finish = async {
            let found = self.shared.sandbox(&id).await?;
            let written = self.shared.files.write_sandbox(&id, &of_pod).and_then(|()| self.shared.files.write_hosts(config, &found));
            written.map_err(|cause| CriError::failed(&attempt, cause))
        };
        if let Err(error) = finish.await {
            if let Err(cause) = self.remove_pod_sandbox(&id).await {
                tracing::warn!(sandbox = id, %cause, "undo a half-made sandbox");
            }
            return Err(error);
        }
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let question = wire::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        done(&format!("stop sandbox {id}"), self.shared.runtime().stop_pod_sandbox(request(question)).await)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let attempt = format!("remove sandbox {id}");
        // As the kubelet does; some runtimes remove only what is stopped.
        self.stop_pod_sandbox(id).await?;
        let question = wire::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        done(&attempt, self.shared.runtime().remove_pod_sandbox(request(question)).await)?;
        if id.is_empty() {
            return Ok(());
        }
        self.shared.files.remove_sandbox(id).map_err(|cause| CriError::failed(attempt, cause))
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandbox, CriError> {
        self.shared.sandbox(id).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>, CriError> {
        let answer = self.shared.runtime().list_pod_sandbox(request(wire::ListPodSandboxRequest { filter: None })).await;
        let ids = got("list sandboxes", answer)?.items.into_iter().map(|item| item.id);
        let looks = ids.map(|id| async move {
            match self.shared.sandbox(&id).await {
                Ok(found) => Ok(Some(found)),
                // Gone meanwhile.
                Err(CriError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let all: Vec<_> = futures::stream::iter(looks).buffered(AT_ONCE).collect().await;
        all.into_iter().filter_map(Result::transpose).collect()
    }

    async fn create_container(&self, sandbox_id: &str, config: &ContainerConfig) -> Result<String, CriError> {
        let attempt = format!("create container {}", config.metadata.name);
        if config.mounts.iter().any(|mount| mount.image.is_some()) && !has_image_volumes(&self.shared.version) {
            let cause = format!("image volumes: this node's runtime, {}, has none", self.shared.version);
            return Err(CriError::Invalid(cause));
        }
        let found = self.shared.sandbox(sandbox_id).await?;
        let mut config = self.shared.files.add(&found.id, config).map_err(|cause| CriError::failed(&attempt, cause))?;
        let added = config.mounts.clone();
        let of_pod = self.shared.files.sandbox_config(&found.id).unwrap_or_else(|| wire::PodSandboxConfig {
            metadata: Some(sandbox::metadata_to_wire(&found.metadata)),
            ..wire::PodSandboxConfig::default()
        });
        let create = async {
            self.complete_user(&mut config).await?;
            let question = wire::CreateContainerRequest {
                pod_sandbox_id: found.id,
                config: Some(container::to_wire(&config, namespaces_to_wire(found.namespaces))),
                sandbox_config: Some(of_pod),
            };
            Ok(got(&attempt, self.shared.runtime().create_container(request(question)).await)?.container_id)
        };
        let created = create.await;
        // Without an answer it may be there after all: then the file goes with the sandbox.
        if created.as_ref().is_err_and(|error| !matches!(error, CriError::Timeout(_) | CriError::Unreachable(_))) {
            self.shared.files.remove_message(&added);
        }
        created
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let question = wire::StartContainerRequest { container_id: id.to_owned() };
        got(&format!("start container {id}"), self.shared.runtime().start_container(request(question)).await).map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let question = wire::StopContainerRequest { container_id: id.to_owned(), timeout: seconds(grace) };
        let limit = PATIENCE + grace;
        done(&format!("stop container {id}"), self.shared.runtime().stop_container(timed(question, limit)).await)
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        self.shared.forget_message(id).await;
        let question = wire::RemoveContainerRequest { container_id: id.to_owned() };
        done(&format!("remove container {id}"), self.shared.runtime().remove_container(request(question)).await)?;
        self.shared.ended().remove(id);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, CriError> {
        self.shared.looks().await?.into_iter().filter_map(Result::transpose).collect()
    }

    async fn list_answering(&self) -> Result<Vec<ContainerStatus>, CriError> {
        let known = |look: Result<_, CriError>| match look {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a container is passed over");
                None
            }
        };
        Ok(self.shared.looks().await?.into_iter().filter_map(known).collect())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        self.shared.container(id).await
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, CriError> {
        let attempt = format!("exec {command:?}");
        let question = wire::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout: seconds(timeout) };
        // Where the command may take any time, so may the answer.
        let question = if timeout.is_zero() { tonic::Request::new(question) } else { timed(question, timeout + PATIENCE) };
        let answer = got(&attempt, self.shared.runtime().exec_sync(question).await)?;
        Ok(ExecOutput { stdout: answer.stdout, stderr: answer.stderr, exit_code: answer.exit_code })
    }

    async fn exec(&self, id: &str, wanted: &ExecRequest) -> Result<ExecSession, CriError> {
        let attempt = format!("exec {:?}", wanted.command);
        let question = wire::ExecRequest {
            container_id: id.to_owned(),
            cmd: wanted.command.clone(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            ..wire::ExecRequest::default()
        };
        let url = got(&attempt, self.shared.runtime().exec(request(question)).await)?.url;
        stream::remote(&attempt, &url, wanted).await
    }

    async fn attach(&self, id: &str, wanted: &ExecRequest) -> Result<ExecSession, CriError> {
        let attempt = "attach to the container".to_owned();
        let question = wire::AttachRequest {
            container_id: id.to_owned(),
            tty: wanted.tty,
            stdin: wanted.stdin,
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            ..wire::AttachRequest::default()
        };
        let url = got(&attempt, self.shared.runtime().attach(request(question)).await)?.url;
        stream::remote(&attempt, &url, wanted).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>, CriError> {
        let attempt = format!("connect to port {port}");
        let question = wire::PortForwardRequest { pod_sandbox_id: sandbox_id.to_owned(), port: vec![i32::from(port)] };
        let url = got(&attempt, self.shared.runtime().port_forward(request(question)).await)?.url;
        stream::forward(&attempt, &url, port).await
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<(), CriError> {
        let question = wire::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            resources: Some(resources_to_wire(resources)),
            ..wire::UpdatePodSandboxResourcesRequest::default()
        };
        let answer = self.shared.runtime().update_pod_sandbox_resources(request(question)).await;
        got(&format!("change the limits of sandbox {id}"), answer).map(drop)
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<(), CriError> {
        let question = wire::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources_to_wire(resources)),
            ..wire::UpdateContainerResourcesRequest::default()
        };
        let answer = self.shared.runtime().update_container_resources(request(question)).await;
        got(&format!("change the limits of container {id}"), answer).map(drop)
    }

    /// Ours does.
    fn rotates_logs(&self) -> bool {
        self.shared.version.starts_with("podbay://")
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let question = wire::ReopenContainerLogRequest { container_id: id.to_owned() };
        got(&format!("reopen the log of container {id}"), self.shared.runtime().reopen_container_log(request(question)).await).map(drop)
    }

    async fn details(&self, id: &str) -> serde_json::Value {
        let question = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let of_container = self.shared.runtime().container_status(request(question)).await.map(|answer| answer.into_inner().info);
        let info = match of_container {
            Ok(info) => info,
            Err(_) => {
                let question = wire::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
                let answer = self.shared.runtime().pod_sandbox_status(request(question)).await;
                answer.map(|answer| answer.into_inner().info).unwrap_or_default()
            }
        };
        info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    async fn container_stats(&self) -> Result<Vec<ContainerStats>, CriError> {
        let answer = self.shared.runtime().list_container_stats(request(wire::ListContainerStatsRequest { filter: None })).await;
        let (stats, owners) = (got("read usage", answer)?.stats, self.shared.owners().await?);
        let owner = |stats: &wire::ContainerStats| owners.get(&stats.attributes.as_ref()?.id).cloned();
        let all = stats.into_iter().filter_map(|stats| owner(&stats).map(|owner| status::container_stats_from_wire(stats, &owner)));
        Ok(all.collect())
    }

    async fn pod_sandbox_stats(&self) -> Result<Vec<PodSandboxStats>, CriError> {
        let answer = self.shared.runtime().list_pod_sandbox_stats(request(wire::ListPodSandboxStatsRequest { filter: None })).await;
        match got("read usage", answer) {
            Ok(answer) => Ok(answer.stats.into_iter().map(status::sandbox_stats_from_wire).collect()),
            // Older runtimes, and pods whose cgroup they do not know: a pod is what its containers are.
            Err(CriError::Unsupported(_) | CriError::Failed { .. }) => Ok(sums(&self.container_stats().await?)),
            Err(error) => Err(error),
        }
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
}

/// By its version, as no runtime tells: an older one takes an image for a path of the host that is empty.
fn has_image_volumes(version: &str) -> bool {
    let (name, number) = version.split_once("://").unwrap_or_default();
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match name {
        "containerd" => number >= (2, 1),
        "cri-o" => number >= (1, 31),
        _ => true,
    }
}

fn sums(stats: &[ContainerStats]) -> Vec<PodSandboxStats> {
    let mut pods: BTreeMap<&str, PodSandboxStats> = BTreeMap::new();
    for one in stats {
        let pod = pods.entry(&one.sandbox_id).or_insert_with(|| PodSandboxStats { id: one.sandbox_id.clone(), ..Default::default() });
        pod.usage += one.usage;
    }
    pods.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_group_without_a_user_takes_the_images() {
        let of = |group: Option<u32>, user: Option<u32>, name: &str| SecurityContext {
            run_as_group: group,
            run_as_user: user,
            run_as_username: name.to_owned(),
            ..SecurityContext::default()
        };
        assert!(lacks_user(&of(Some(5), None, "")));
        for complete in [of(None, None, ""), of(Some(5), Some(0), ""), of(Some(5), None, "app")] {
            assert!(!lacks_user(&complete), "{complete:?}");
        }
    }

    #[test]
    fn image_volumes_are_younger_than_some_runtimes() {
        for (version, has) in [
            ("containerd://1.6.20~ds1", false),
            ("containerd://2.0.5", false),
            ("containerd://2.1.0-rc.1", true),
            ("containerd://3.0", true),
            ("cri-o://1.30.9", false),
            ("cri-o://1.31.0", true),
            ("podbay://0.1.0", true),
        ] {
            assert_eq!(has_image_volumes(version), has, "{version}");
        }
    }

    #[test]
    fn the_images_user_is_a_number_a_name_or_root() {
        let taken = |image_user: &str| {
            let mut security = SecurityContext { run_as_group: Some(5), ..SecurityContext::default() };
            take_user(&mut security, image_user).map(|()| (security.run_as_user, security.run_as_username, security.run_as_group))
        };
        for (user, number, name) in [
            ("", Some(0), ""),
            (":7", Some(0), ""),
            ("1000", Some(1000), ""),
            ("1000:7", Some(1000), ""),
            ("app:7", None, "app"),
            ("4294967295", Some(u32::MAX), ""),
        ] {
            assert_eq!(taken(user).unwrap(), (number, name.to_owned(), Some(5)), "{user:?}");
        }
        // 2^32 is 0 in 32 bits.
        for user in ["4294967296", "4294967296:0", "99999999999999999999"] {
            assert!(matches!(taken(user), Err(CriError::Invalid(_))), "{user}");
        }
    }
}
