//! RuntimeService, verb by verb.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::PoisonError;
use std::time::Duration;

use futures::Stream;
use tonic::{Request, Response, Status};

use super::{Core, events, filter, metrics};
use crate::cri::wire::error::to_status;
use crate::cri::wire::runtime_service_server::RuntimeService;
use crate::cri::wire::sandbox::namespaces_from_wire;
use crate::cri::wire::{self, container, sandbox, status};
use crate::cri::{ContainerStats, ContainerStatus, CriError, Namespaces, PodSandbox, PodSandboxConfig, Resources};
use crate::model::Timestamp;

type Answer<T> = Result<Response<T>, Status>;
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// As many items as a message of a list stream carries.
const ITEMS: usize = 64;
/// The same of pods with their metrics, which are some 20 KiB for each container.
const MEASURED_PODS: usize = 8;

fn answer<T>(result: Result<T, CriError>) -> Answer<T> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

fn unsupported<T>(what: &str) -> Answer<T> {
    answer(Err(CriError::Unsupported(what.to_owned())))
}

/// Done to its end, also when the caller does not wait for it: nothing stays half-made behind a request that is called off.
async fn whole<T: Send + 'static>(work: impl Future<Output = Result<T, CriError>> + Send + 'static) -> Result<T, CriError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(CriError::failed("answer the request", error)))
}

/// A list in pieces.
pub(super) fn pieces<T: Send + 'static, M: Send + 'static>(items: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Messages<M> {
    pieces_of(ITEMS, items, message)
}

fn pieces_of<T: Send + 'static, M: Send + 'static>(most: usize, items: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Messages<M> {
    let mut items = items.into_iter();
    let mut all = Vec::new();
    loop {
        let piece: Vec<T> = items.by_ref().take(most).collect();
        if piece.is_empty() {
            return Box::pin(futures::stream::iter(all));
        }
        all.push(Ok(message(piece)));
    }
}

/// Seconds of the wire; below zero is none.
fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

impl Core {
    /// The sandbox that is meant, by its id or the beginning of it.
    pub(super) async fn sandbox(&self, id: &str) -> Result<PodSandbox, CriError> {
        let all = self.runtime.list_pod_sandboxes().await?;
        let found = filter::find(id, all.iter().map(|sandbox| sandbox.id.as_str()))?.map(str::to_owned);
        all.into_iter().find(|sandbox| Some(&sandbox.id) == found.as_ref()).ok_or_else(|| CriError::NotFound(format!("sandbox {id:?}")))
    }

    pub(super) async fn container(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let all = self.runtime.list_containers().await?;
        let found = filter::find(id, all.iter().map(|container| container.id.as_str()))?.map(str::to_owned);
        all.into_iter().find(|one| Some(&one.id) == found.as_ref()).ok_or_else(|| CriError::NotFound(format!("container {id:?}")))
    }

    async fn run_sandbox(&self, request: wire::RunPodSandboxRequest) -> Result<String, CriError> {
        let config = request.config.ok_or_else(|| CriError::Invalid("the request has no sandbox configuration".into()))?;
        let config = PodSandboxConfig { runtime_handler: request.runtime_handler, ..sandbox::from_wire(config)? };
        self.runtime.run_pod_sandbox(&config).await
    }

    async fn make_container(&self, request: wire::CreateContainerRequest) -> Result<String, CriError> {
        let config = request.config.ok_or_else(|| CriError::Invalid("the request has no container configuration".into()))?;
        let options = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone());
        let mut config = container::from_wire(config)?;
        let sandbox = self.sandbox(&request.pod_sandbox_id).await?;
        let of_pod = sandbox.namespaces;
        let wanted = options.as_ref().map(namespaces_from_wire);
        let apart = options.is_some_and(|options| options.pid() == wire::NamespaceMode::Container);
        config.security.own_processes = apart && of_pod.shared_pid;
        let target = &mut config.security.processes_of;
        let wanted = match wanted {
            Some(wanted) if config.security.own_processes || !target.is_empty() => {
                Some(Namespaces { host_pid: of_pod.host_pid, shared_pid: of_pod.shared_pid, ..wanted })
            }
            wanted => wanted,
        };
        if wanted.is_some_and(|wanted| wanted != of_pod) {
            return Err(CriError::Unsupported("namespaces of a container other than its pod's".to_owned()));
        }
        if !target.is_empty() {
            *target = self.container(target).await?.id;
        }
        self.runtime.create_container(&sandbox.id, &config).await
    }

    async fn sandboxes(&self, filter: Option<wire::PodSandboxFilter>) -> Result<Vec<wire::PodSandbox>, CriError> {
        let all = self.runtime.list_pod_sandboxes().await?;
        Ok(all.iter().filter(|one| filter::sandbox(&filter, one)).map(status::sandbox_item).collect())
    }

    async fn containers(&self, filter: Option<wire::ContainerFilter>) -> Result<Vec<wire::Container>, CriError> {
        let all = self.runtime.list_containers().await?;
        Ok(all.iter().filter(|one| filter::container(&filter, one)).map(status::container_item).collect())
    }

    fn container_figures(&self, stats: &ContainerStats, container: &ContainerStatus, now: Timestamp) -> wire::ContainerStats {
        let mut figures = status::container_stats(stats, container, now);
        self.rate(&container.id, figures.cpu.as_mut());
        figures
    }

    /// Says what is used at the moment, as far as an earlier look tells.
    fn rate(&self, id: &str, cpu: Option<&mut wire::CpuUsage>) {
        let Some(cpu) = cpu else { return };
        let used = cpu.usage_core_nano_seconds.as_ref().map_or(0, |used| used.value);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        cpu.usage_nano_cores = rates.look(id, cpu.timestamp, used).map(|value| wire::UInt64Value { value });
    }

    async fn all_container_stats(&self, keep: impl Fn(&ContainerStatus) -> bool) -> Result<Vec<wire::ContainerStats>, CriError> {
        let (stats, containers, now) = (self.runtime.container_stats().await?, self.runtime.list_containers().await?, Timestamp::now());
        let of = |stats: &ContainerStats| containers.iter().find(|one| one.id == stats.id).filter(|one| keep(one));
        Ok(stats.iter().filter_map(|stats| Some(self.container_figures(stats, of(stats)?, now))).collect())
    }

    async fn all_sandbox_stats(&self, keep: impl Fn(&PodSandbox) -> bool) -> Result<Vec<wire::PodSandboxStats>, CriError> {
        let sandboxes = self.runtime.list_pod_sandboxes().await?;
        let (stats, own, containers) =
            (self.runtime.pod_sandbox_stats().await?, self.runtime.container_stats().await?, self.runtime.list_containers().await?);
        let now = Timestamp::now();
        let containers: BTreeMap<&str, &ContainerStatus> = containers.iter().map(|one| (one.id.as_str(), one)).collect();
        let in_sandbox = |id: &str| {
            let own = own.iter().filter(|stats| stats.sandbox_id == id);
            own.filter_map(|stats| Some(self.container_figures(stats, containers.get(stats.id.as_str())?, now))).collect()
        };
        let pod = |stats: &crate::cri::PodSandboxStats| {
            let sandbox = sandboxes.iter().find(|one| one.id == stats.id).filter(|one| keep(one))?;
            let mut figures = status::sandbox_stats(stats, sandbox, in_sandbox(&sandbox.id), now);
            self.rate(&sandbox.id, figures.linux.as_mut().and_then(|linux| linux.cpu.as_mut()));
            Some(figures)
        };
        Ok(stats.iter().filter_map(pod).collect())
    }

    async fn one_container_stats(&self, id: &str) -> Result<wire::ContainerStats, CriError> {
        let container = self.container(id).await?;
        let running = self.all_container_stats(|one| one.id == container.id).await?.pop();
        let none = ContainerStats::default();
        Ok(running.unwrap_or_else(|| status::container_stats(&none, &container, Timestamp::now())))
    }

    async fn one_sandbox_stats(&self, id: &str) -> Result<wire::PodSandboxStats, CriError> {
        let sandbox = self.sandbox(id).await?;
        let ready = self.all_sandbox_stats(|one| one.id == sandbox.id).await?.pop();
        let none = crate::cri::PodSandboxStats::default();
        Ok(ready.unwrap_or_else(|| status::sandbox_stats(&none, &sandbox, Vec::new(), Timestamp::now())))
    }

    async fn pod_metrics(&self) -> Result<Vec<wire::PodSandboxMetrics>, CriError> {
        let (pods, containers) = (self.runtime.list_pod_sandboxes().await?, self.runtime.list_containers().await?);
        let (mut figures, now) = (self.runtime.figures().await?, Timestamp::now());
        let mut of_pods: BTreeMap<&str, Vec<wire::ContainerMetrics>> = BTreeMap::new();
        for one in &containers {
            let pod = pods.iter().find(|pod| pod.id == one.sandbox_id);
            if let Some((pod, known)) = pod.and_then(|pod| Some((pod, figures.remove(&one.id)?))) {
                of_pods.entry(&pod.id).or_default().push(metrics::of_container(pod, one, known, now));
            }
        }
        let of = |pod: &PodSandbox| {
            Some(metrics::of_pod(pod, figures.remove(&pod.id)?, of_pods.remove(pod.id.as_str()).unwrap_or_default(), now))
        };
        Ok(pods.iter().filter_map(of).collect())
    }

    /// What a person who looks closely wants to know, as JSON.
    async fn details(&self, wanted: bool, id: &str) -> BTreeMap<String, String> {
        if !wanted {
            return BTreeMap::new();
        }
        let details = self.runtime.details(id).await;
        [("info".to_owned(), details.to_string())].into()
    }

    async fn sandbox_with_containers(&self, id: &str, verbose: bool) -> Result<wire::PodSandboxStatusResponse, CriError> {
        let sandbox = self.sandbox(id).await?;
        let containers = self.runtime.list_containers().await?;
        let own = containers.iter().filter(|one| one.sandbox_id == sandbox.id);
        Ok(wire::PodSandboxStatusResponse {
            status: Some(status::sandbox_status(&sandbox)),
            info: self.details(verbose, &sandbox.id).await,
            containers_statuses: own.map(status::container_status).collect(),
            timestamp: status::nanoseconds(Some(Timestamp::now())),
        })
    }

    async fn overall(&self, verbose: bool) -> Result<wire::StatusResponse, CriError> {
        let conditions = self.runtime.status().await.into_iter().map(|condition| wire::RuntimeCondition {
            // What works is reported; a warning that does not stand in the way is none of the two required ones.
            r#type: condition.kind,
            status: condition.ok,
            reason: condition.reason,
            message: condition.message,
        });
        let mut info = BTreeMap::new();
        if verbose {
            let (sandboxes, containers) = (self.runtime.list_pod_sandboxes().await?, self.runtime.list_containers().await?);
            let text = serde_json::json!({
                "version": self.runtime.version(), "sandboxes": sandboxes.len(), "containers": containers.len(),
            });
            info.insert("info".to_owned(), text.to_string());
            info.insert("config".to_owned(), self.runtime.settings().to_string());
        }
        // The conditions say what is wrong.
        let can = self.runtime.features("").await.unwrap_or_default();
        let mut runtime_handlers = Vec::new();
        for name in self.runtime.handlers().await {
            let can = self.runtime.features(&name).await.unwrap_or_default();
            let features = wire::RuntimeHandlerFeatures {
                recursive_read_only_mounts: can.recursive_read_only_mounts,
                user_namespaces: can.user_namespaces,
            };
            runtime_handlers.push(wire::RuntimeHandler { name, features: Some(features) });
        }
        Ok(wire::StatusResponse {
            status: Some(wire::RuntimeStatus { conditions: conditions.collect() }),
            info,
            runtime_handlers,
            features: Some(wire::RuntimeFeatures {
                supplemental_groups_policy: can.supplemental_groups_policy,
                ..wire::RuntimeFeatures::default()
            }),
        })
    }

    async fn change_limits(&self, request: wire::UpdateContainerResourcesRequest) -> Result<(), CriError> {
        if !request.annotations.is_empty() {
            return Err(CriError::Unsupported("annotations of a container that is there".into()));
        }
        // Processes have the score they began with, as with containerd: a kubelet says it with every change of the memory.
        let wanted = Resources { oom_score_adj: 0, ..sandbox::change_from_wire(request.linux)? };
        let found = self.container(&request.container_id).await?;
        self.runtime.update_container_resources(&found.id, &wanted).await
    }

    /// What it needs beyond its containers is the runtime's own affair, so `overhead` is nothing to us.
    async fn change_pods_limits(&self, request: wire::UpdatePodSandboxResourcesRequest) -> Result<(), CriError> {
        let wanted = sandbox::change_from_wire(request.resources)?;
        let found = self.sandbox(&request.pod_sandbox_id).await?;
        self.runtime.update_pod_sandbox_resources(&found.id, &wanted).await
    }

    async fn run_command(&self, request: wire::ExecSyncRequest) -> Result<wire::ExecSyncResponse, CriError> {
        if request.cmd.is_empty() {
            return Err(CriError::Invalid("there is no command to run".into()));
        }
        let id = self.container(&request.container_id).await?.id;
        let output = self.runtime.exec_sync(&id, &request.cmd, seconds(request.timeout)).await?;
        Ok(wire::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.exit_code })
    }
}

/// Done as well when there is nothing to do it with.
fn or_gone<T>(found: Result<T, CriError>) -> Result<Option<T>, CriError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(CriError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[tonic::async_trait]
impl RuntimeService for Core {
    async fn version(&self, _: Request<wire::VersionRequest>) -> Answer<wire::VersionResponse> {
        let version = self.runtime.version();
        let (name, number) = version.split_once("://").unwrap_or(("podbay", version.as_str()));
        answer(Ok(wire::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: name.into(),
            runtime_version: number.into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answer<wire::StatusResponse> {
        answer(self.overall(request.into_inner().verbose).await)
    }

    async fn runtime_config(&self, _: Request<wire::RuntimeConfigRequest>) -> Answer<wire::RuntimeConfigResponse> {
        let linux = wire::LinuxRuntimeConfiguration { cgroup_driver: wire::CgroupDriver::Cgroupfs.into() };
        answer(Ok(wire::RuntimeConfigResponse { linux: Some(linux) }))
    }

    /// The pods' range is this host's configuration; a caller's word changes nothing.
    async fn update_runtime_config(&self, _: Request<wire::UpdateRuntimeConfigRequest>) -> Answer<wire::UpdateRuntimeConfigResponse> {
        answer(Ok(wire::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<wire::RunPodSandboxRequest>) -> Answer<wire::RunPodSandboxResponse> {
        let core = self.clone();
        let id = whole(async move { core.run_sandbox(request.into_inner()).await }).await;
        answer(id.map(|pod_sandbox_id| wire::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<wire::StopPodSandboxRequest>) -> Answer<wire::StopPodSandboxResponse> {
        let core = self.clone();
        let stop = async move {
            if let Some(found) = or_gone(core.sandbox(&request.into_inner().pod_sandbox_id).await)? {
                core.runtime.stop_pod_sandbox(&found.id).await?;
            }
            Ok(wire::StopPodSandboxResponse {})
        };
        answer(whole(stop).await)
    }

    async fn remove_pod_sandbox(&self, request: Request<wire::RemovePodSandboxRequest>) -> Answer<wire::RemovePodSandboxResponse> {
        let core = self.clone();
        let remove = async move {
            if let Some(found) = or_gone(core.sandbox(&request.into_inner().pod_sandbox_id).await)? {
                core.runtime.remove_pod_sandbox(&found.id).await?;
            }
            Ok(wire::RemovePodSandboxResponse {})
        };
        answer(whole(remove).await)
    }

    async fn pod_sandbox_status(&self, request: Request<wire::PodSandboxStatusRequest>) -> Answer<wire::PodSandboxStatusResponse> {
        let request = request.into_inner();
        answer(self.sandbox_with_containers(&request.pod_sandbox_id, request.verbose).await)
    }

    async fn list_pod_sandbox(&self, request: Request<wire::ListPodSandboxRequest>) -> Answer<wire::ListPodSandboxResponse> {
        let items = self.sandboxes(request.into_inner().filter).await;
        answer(items.map(|items| wire::ListPodSandboxResponse { items }))
    }

    type StreamPodSandboxesStream = Messages<wire::StreamPodSandboxesResponse>;
    async fn stream_pod_sandboxes(&self, request: Request<wire::StreamPodSandboxesRequest>) -> Answer<Self::StreamPodSandboxesStream> {
        let all = self.sandboxes(request.into_inner().filter).await;
        answer(all.map(|all| pieces(all, |pod_sandboxes| wire::StreamPodSandboxesResponse { pod_sandboxes })))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<wire::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<wire::UpdatePodSandboxResourcesResponse> {
        let core = self.clone();
        let updated = whole(async move { core.change_pods_limits(request.into_inner()).await }).await;
        answer(updated.map(|()| wire::UpdatePodSandboxResourcesResponse {}))
    }

    async fn create_container(&self, request: Request<wire::CreateContainerRequest>) -> Answer<wire::CreateContainerResponse> {
        let core = self.clone();
        let id = whole(async move { core.make_container(request.into_inner()).await }).await;
        answer(id.map(|container_id| wire::CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<wire::StartContainerRequest>) -> Answer<wire::StartContainerResponse> {
        let core = self.clone();
        let start = async move {
            let id = core.container(&request.into_inner().container_id).await?.id;
            core.runtime.start_container(&id).await?;
            Ok(wire::StartContainerResponse {})
        };
        answer(whole(start).await)
    }

    async fn stop_container(&self, request: Request<wire::StopContainerRequest>) -> Answer<wire::StopContainerResponse> {
        let (core, request) = (self.clone(), request.into_inner());
        let stop = async move {
            if let Some(found) = or_gone(core.container(&request.container_id).await)? {
                core.runtime.stop_container(&found.id, seconds(request.timeout)).await?;
            }
            Ok(wire::StopContainerResponse {})
        };
        answer(whole(stop).await)
    }

    async fn remove_container(&self, request: Request<wire::RemoveContainerRequest>) -> Answer<wire::RemoveContainerResponse> {
        let core = self.clone();
        let remove = async move {
            if let Some(found) = or_gone(core.container(&request.into_inner().container_id).await)? {
                core.runtime.remove_container(&found.id).await?;
            }
            Ok(wire::RemoveContainerResponse {})
        };
        answer(whole(remove).await)
    }

    async fn container_status(&self, request: Request<wire::ContainerStatusRequest>) -> Answer<wire::ContainerStatusResponse> {
        let request = request.into_inner();
        let look = async {
            let found = self.container(&request.container_id).await?;
            let info = self.details(request.verbose, &found.id).await;
            Ok(wire::ContainerStatusResponse { status: Some(status::container_status(&found)), info })
        };
        answer(look.await)
    }

    async fn list_containers(&self, request: Request<wire::ListContainersRequest>) -> Answer<wire::ListContainersResponse> {
        let containers = self.containers(request.into_inner().filter).await;
        answer(containers.map(|containers| wire::ListContainersResponse { containers }))
    }

    type StreamContainersStream = Messages<wire::StreamContainersResponse>;
    async fn stream_containers(&self, request: Request<wire::StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        let all = self.containers(request.into_inner().filter).await;
        answer(all.map(|all| pieces(all, |containers| wire::StreamContainersResponse { containers })))
    }

    async fn update_container_resources(
        &self,
        request: Request<wire::UpdateContainerResourcesRequest>,
    ) -> Answer<wire::UpdateContainerResourcesResponse> {
        let core = self.clone();
        let updated = whole(async move { core.change_limits(request.into_inner()).await }).await;
        answer(updated.map(|()| wire::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(&self, request: Request<wire::ReopenContainerLogRequest>) -> Answer<wire::ReopenContainerLogResponse> {
        let reopen = async {
            let id = self.container(&request.into_inner().container_id).await?.id;
            self.runtime.reopen_container_log(&id).await?;
            Ok(wire::ReopenContainerLogResponse {})
        };
        answer(reopen.await)
    }

    async fn checkpoint_container(&self, _: Request<wire::CheckpointContainerRequest>) -> Answer<wire::CheckpointContainerResponse> {
        unsupported("checkpoints")
    }

    type GetContainerEventsStream = Messages<wire::ContainerEventResponse>;
    async fn get_container_events(&self, _: Request<wire::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        answer(events::stream(self.runtime.clone(), self.end.clone()).await)
    }

    async fn exec_sync(&self, request: Request<wire::ExecSyncRequest>) -> Answer<wire::ExecSyncResponse> {
        // Not to the end: it is given up with the caller.
        answer(self.run_command(request.into_inner()).await)
    }

    async fn exec(&self, request: Request<wire::ExecRequest>) -> Answer<wire::ExecResponse> {
        answer(self.exec_url(request.into_inner()).await.map(|url| wire::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<wire::AttachRequest>) -> Answer<wire::AttachResponse> {
        answer(self.attach_url(request.into_inner()).await.map(|url| wire::AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<wire::PortForwardRequest>) -> Answer<wire::PortForwardResponse> {
        answer(self.forward_url(&request.into_inner()).await.map(|url| wire::PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<wire::ContainerStatsRequest>) -> Answer<wire::ContainerStatsResponse> {
        let stats = self.one_container_stats(&request.into_inner().container_id).await;
        answer(stats.map(|stats| wire::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(&self, request: Request<wire::ListContainerStatsRequest>) -> Answer<wire::ListContainerStatsResponse> {
        let filter = request.into_inner().filter;
        let stats = self.all_container_stats(|one| filter::container_stats(&filter, one)).await;
        answer(stats.map(|stats| wire::ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Messages<wire::StreamContainerStatsResponse>;
    async fn stream_container_stats(
        &self,
        request: Request<wire::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let filter = request.into_inner().filter;
        let all = self.all_container_stats(|one| filter::container_stats(&filter, one)).await;
        answer(all.map(|all| pieces(all, |container_stats| wire::StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(&self, request: Request<wire::PodSandboxStatsRequest>) -> Answer<wire::PodSandboxStatsResponse> {
        let stats = self.one_sandbox_stats(&request.into_inner().pod_sandbox_id).await;
        answer(stats.map(|stats| wire::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<wire::ListPodSandboxStatsRequest>,
    ) -> Answer<wire::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter;
        let stats = self.all_sandbox_stats(|one| filter::sandbox_stats(&filter, one)).await;
        answer(stats.map(|stats| wire::ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Messages<wire::StreamPodSandboxStatsResponse>;
    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<wire::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let filter = request.into_inner().filter;
        let all = self.all_sandbox_stats(|one| filter::sandbox_stats(&filter, one)).await;
        answer(all.map(|all| pieces(all, |pod_sandbox_stats| wire::StreamPodSandboxStatsResponse { pod_sandbox_stats })))
    }

    async fn list_metric_descriptors(&self, _: Request<wire::ListMetricDescriptorsRequest>) -> Answer<wire::ListMetricDescriptorsResponse> {
        answer(Ok(wire::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<wire::ListPodSandboxMetricsRequest>,
    ) -> Answer<wire::ListPodSandboxMetricsResponse> {
        let all = self.pod_metrics().await;
        answer(all.map(|pod_metrics| wire::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    type StreamPodSandboxMetricsStream = Messages<wire::StreamPodSandboxMetricsResponse>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<wire::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let all = self.pod_metrics().await;
        let message = |pod_sandbox_metrics| wire::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        answer(all.map(|all| pieces_of(MEASURED_PODS, all, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_its_caller_has_gone() {
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let (finished, ended) = tokio::sync::oneshot::channel();
        let work = whole(async move {
            gate.await.ok();
            finished.send(()).ok();
            Ok(())
        });
        tokio::select! {
            biased;
            _ = work => panic!("it cannot have ended"),
            () = std::future::ready(()) => {}
        }
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn limits_change_as_they_can_and_are_refused_as_they_cannot() {
        use crate::cri::fake::{FakeImages, FakeRuntime};
        use crate::cri::{ContainerConfig, PodSandboxConfig, Runtime as _};
        let runtime = std::sync::Arc::new(FakeRuntime::default());
        let sandbox = runtime.run_pod_sandbox(&PodSandboxConfig::default()).await.unwrap();
        let mut config = ContainerConfig { image: "busybox".into(), ..ContainerConfig::default() };
        (config.resources.cpu_shares, config.resources.oom_score_adj) = (512, 100);
        let id = runtime.create_container(&sandbox, &config).await.unwrap();
        let streams = std::sync::Arc::new(crate::cri::server::stream::Streams::new("127.0.0.1:1".parse().unwrap()));
        let core = Core {
            runtime: runtime.clone(),
            images: std::sync::Arc::<FakeImages>::default(),
            streams,
            rates: Default::default(),
            end: Default::default(),
        };
        let ask = async |linux: wire::LinuxContainerResources, annotated: bool| {
            let annotations = annotated.then(|| ("a".to_owned(), "b".to_owned())).into_iter().collect();
            let request = wire::UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(linux), annotations };
            core.change_limits(request).await
        };
        let memory = |bytes| wire::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
        let quota = |micros| wire::LinuxContainerResources { cpu_quota: micros, ..Default::default() };
        assert!(matches!(ask(memory(1 << 20), true).await, Err(CriError::Unsupported(_))));
        assert_eq!(runtime.container_status(&id).await.unwrap().resources, config.resources, "nothing of what was refused");
        ask(wire::LinuxContainerResources { oom_score_adj: 99, ..memory(1 << 20) }, false).await.unwrap();
        ask(quota(7000), false).await.unwrap();
        let now = runtime.container_status(&id).await.unwrap().resources;
        assert_eq!((now.memory_limit_bytes, now.cpu_quota, now.cpu_shares), (1 << 20, 7000, 512));
        assert_eq!(now.oom_score_adj, 100, "its processes have it already");
        ask(memory(-1), false).await.unwrap();
        ask(quota(-1), false).await.unwrap();
        let now = runtime.container_status(&id).await.unwrap().resources;
        assert_eq!((now.memory_limit_bytes, now.cpu_quota, now.cpu_shares), (0, 0, 512));
        let pod = |id: &str| wire::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            resources: Some(memory(1 << 30)),
            ..Default::default()
        };
        core.change_pods_limits(pod(&sandbox)).await.unwrap();
        assert!(matches!(core.change_pods_limits(pod("nobody")).await, Err(CriError::NotFound(_))));
        let unknown = wire::UpdateContainerResourcesRequest { container_id: "nobody".into(), ..Default::default() };
        assert!(matches!(core.change_limits(unknown).await, Err(CriError::NotFound(_))));
    }
}
