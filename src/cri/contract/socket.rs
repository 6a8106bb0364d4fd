//! What can be said on a socket and not through the traits: filters, codes, ids that nobody has.

use std::collections::BTreeMap;
use std::path::Path;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};

use super::Subject;
use crate::cri::client::socket_path;
use crate::cri::wire::image_service_client::ImageServiceClient;
use crate::cri::wire::runtime_service_client::RuntimeServiceClient;
use crate::cri::wire::sandbox::namespaces_to_wire;
use crate::cri::wire::{self, container, sandbox};
use crate::cri::{ContainerConfig, Namespaces, Resources};

/// Counts the commands of a container that should have gone.
pub(super) const LEFT: [&str; 3] = ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [4]242' || true"];

fn must<T>(result: Result<Response<T>, Status>) -> T {
    match result {
        Ok(answer) => answer.into_inner(),
        Err(status) => panic!("{:?}: {}", status.code(), status.message()),
    }
}

fn code<T>(result: Result<Response<T>, Status>) -> Code {
    result.err().map_or(Code::Ok, |status| status.code())
}

/// What is told to who looks closely.
fn told(info: &BTreeMap<String, String>, key: &str) -> serde_json::Value {
    info.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| panic!("no {key}: {info:?}"))
}

/// Speaks to a CRI v1 socket itself. `subject` is the same runtime; it is empty before and afterwards.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn socket_suite(endpoint: &str, subject: &Subject) {
    let mut caller = caller(endpoint, subject);
    caller.it_says_who_it_is().await;
    caller.unknown_ids().await;
    caller.nonsense_is_refused().await;
    caller.a_name_is_enough().await;
    caller.filters().await;
    caller.who_is_whose_group_is_told().await;
    caller.containers_name_their_image().await;
    caller.commands().await;
    caller.streams().await;
    caller.images().await;
}

/// What ours does beyond others: stopping what nobody has is done, and what it cannot do has a name.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn our_socket_suite(endpoint: &str, subject: &Subject) {
    let mut caller = caller(endpoint, subject);
    let nobody = || "0123456789abcdef0123456789abcdef".to_owned();
    for _ in 0..2 {
        must(caller.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: nobody() }).await);
        must(caller.runtime.stop_container(wire::StopContainerRequest { container_id: nobody(), timeout: 1 }).await);
    }
    let config = must(caller.runtime.runtime_config(wire::RuntimeConfigRequest {}).await);
    assert!(config.linux.is_some_and(|linux| linux.cgroup_driver() == wire::CgroupDriver::Cgroupfs));
    must(caller.runtime.update_runtime_config(wire::UpdateRuntimeConfigRequest { runtime_config: None }).await);
    let checkpoint = caller.runtime.checkpoint_container(wire::CheckpointContainerRequest::default()).await;
    assert_eq!(code(checkpoint), Code::Unimplemented);
    caller.pods_limits_change().await;
    assert_eq!(code(caller.runtime.exec(wire::ExecRequest::default()).await), Code::InvalidArgument);
    let missing = wire::ImageFilter { image: Some(container::image_spec("docker.io/library/not-there:1")) };
    // containerd 1.6 takes no notice of the filter.
    assert_eq!(must(caller.images.list_images(wire::ListImagesRequest { filter: Some(missing) }).await).images, []);
    caller.lists_are_streamed().await;
    caller.metrics_are_complete().await;
    caller.the_cpus_that_are_used_are_told().await;
    caller.events_are_told_in_full().await;
    let info = must(caller.images.image_fs_info(wire::ImageFsInfoRequest {}).await);
    // containerd 1.6 counts them some time after.
    assert!(info.image_filesystems.iter().any(|one| one.inodes_used.as_ref().is_some_and(|files| files.value > 1)), "{info:?}");
}

/// What takes a kernel under the runtime.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn inside_socket_suite(endpoint: &str, subject: &Subject) {
    caller(endpoint, subject).commands_end_with_their_callers().await;
}

fn caller<'a>(endpoint: &str, subject: &'a Subject) -> Caller<'a> {
    let path = socket_path(endpoint).unwrap_or_else(|error| panic!("{error}"));
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
    Caller { runtime: RuntimeServiceClient::new(channel.clone()), images: ImageServiceClient::new(channel), subject }
}

/// `timeout`: seconds, 0 without an end.
fn command(container: &str, words: &[&str], timeout: i64) -> wire::ExecSyncRequest {
    wire::ExecSyncRequest { container_id: container.to_owned(), cmd: words.iter().map(|word| (*word).to_owned()).collect(), timeout }
}

struct Caller<'a> {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    subject: &'a Subject,
}

impl Caller<'_> {
    async fn it_says_who_it_is(&mut self) {
        let version = must(self.runtime.version(wire::VersionRequest { version: "v1".into() }).await);
        assert_eq!(version.runtime_api_version, "v1");
        assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty(), "{version:?}");
        let quiet = must(self.runtime.status(wire::StatusRequest { verbose: false }).await);
        let conditions = quiet.status.unwrap_or_default().conditions;
        for kind in ["RuntimeReady", "NetworkReady"] {
            assert!(conditions.iter().any(|one| one.r#type == kind && one.status), "{conditions:?}");
        }
        assert_eq!(quiet.info, BTreeMap::new());
        let verbose = must(self.runtime.status(wire::StatusRequest { verbose: true }).await);
        let config = told(&verbose.info, "config");
        for place in ["rootDir", "stateDir"] {
            assert!(config[place].as_str().is_some_and(|path| path.starts_with('/')), "{config}");
        }
    }

    async fn unknown_ids(&mut self) {
        let nobody = || "0123456789abcdef0123456789abcdef".to_owned();
        for _ in 0..2 {
            // containerd 1.6 says that there is none; its callers take that for done.
            let stopped = self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: nobody() }).await;
            assert!(matches!(code(stopped), Code::Ok | Code::NotFound));
            must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: nobody() }).await);
            must(self.runtime.remove_container(wire::RemoveContainerRequest { container_id: nobody() }).await);
        }
        let status = wire::PodSandboxStatusRequest { pod_sandbox_id: nobody(), verbose: false };
        assert_eq!(code(self.runtime.pod_sandbox_status(status).await), Code::NotFound);
        let status = wire::ContainerStatusRequest { container_id: nobody(), verbose: false };
        assert_eq!(code(self.runtime.container_status(status).await), Code::NotFound);
        assert_ne!(code(self.runtime.start_container(wire::StartContainerRequest { container_id: nobody() }).await), Code::Ok);
        assert_ne!(code(self.runtime.container_stats(wire::ContainerStatsRequest { container_id: nobody() }).await), Code::Ok);
        let command = wire::ExecSyncRequest { container_id: nobody(), cmd: vec!["true".into()], timeout: 5 };
        assert_ne!(code(self.runtime.exec_sync(command).await), Code::Ok);
    }

    async fn nonsense_is_refused(&mut self) {
        let nothing = wire::RunPodSandboxRequest { config: None, runtime_handler: String::new() };
        assert_ne!(code(self.runtime.run_pod_sandbox(nothing).await), Code::Ok);
        let config = Some(sandbox::to_wire(&self.subject.pod("nonsense")));
        let handler = wire::RunPodSandboxRequest { config, runtime_handler: "nobody-has-it".into() };
        assert_ne!(code(self.runtime.run_pod_sandbox(handler).await), Code::Ok);
        let left = must(self.runtime.list_pod_sandbox(wire::ListPodSandboxRequest { filter: None }).await);
        assert_eq!(left.items, []);
    }

    async fn a_name_is_enough(&mut self) {
        let mut config = sandbox::to_wire(&self.subject.pod("named"));
        config.metadata = config.metadata.map(|metadata| wire::PodSandboxMetadata { name: metadata.name, ..Default::default() });
        let request = wire::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let id = must(self.runtime.run_pod_sandbox(request).await).pod_sandbox_id;
        must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await);
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: id }).await);
    }

    /// A sandbox, and its id.
    async fn pod(&mut self, name: &str) -> (wire::PodSandboxConfig, String) {
        let config = sandbox::to_wire(&self.subject.pod(name));
        let logs = Path::new(&config.log_directory);
        std::fs::create_dir_all(logs).unwrap_or_else(|error| panic!("{error}"));
        let request = wire::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = must(self.runtime.run_pod_sandbox(request).await).pod_sandbox_id;
        (config, id)
    }

    /// A container's configuration as it is in a pod of the suite's.
    fn config(&self, config: &ContainerConfig) -> wire::ContainerConfig {
        container::to_wire(config, namespaces_to_wire(Namespaces { host_network: self.subject.host_network, ..Namespaces::default() }))
    }

    async fn create(&mut self, pod: &(wire::PodSandboxConfig, String), config: &ContainerConfig) -> String {
        must(self.ask_for(pod, self.config(config)).await).container_id
    }

    async fn ask_for(
        &mut self,
        pod: &(wire::PodSandboxConfig, String),
        config: wire::ContainerConfig,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        let (sandbox_config, pod_sandbox_id) = pod.clone();
        let request = wire::CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: Some(sandbox_config) };
        self.runtime.create_container(request).await
    }

    async fn container(&mut self, pod: &(wire::PodSandboxConfig, String), name: &str, start: bool) -> String {
        let mut config: ContainerConfig = self.subject.container(name, &["sleep", "100000"]);
        config.labels = [("name".to_owned(), name.to_owned()), ("all".to_owned(), "1".to_owned())].into();
        let id = self.create(pod, &config).await;
        if start {
            must(self.runtime.start_container(wire::StartContainerRequest { container_id: id.clone() }).await);
        }
        id
    }

    async fn listed(&mut self, filter: wire::ContainerFilter) -> Vec<String> {
        let answer = must(self.runtime.list_containers(wire::ListContainersRequest { filter: Some(filter) }).await);
        let mut ids: Vec<String> = answer.containers.into_iter().map(|one| one.id).collect();
        ids.sort();
        ids
    }

    async fn pods(&mut self, filter: wire::PodSandboxFilter) -> Vec<String> {
        let answer = must(self.runtime.list_pod_sandbox(wire::ListPodSandboxRequest { filter: Some(filter) }).await);
        let mut ids: Vec<String> = answer.items.into_iter().map(|one| one.id).collect();
        ids.sort();
        ids
    }

    async fn measured(&mut self, filter: wire::ContainerStatsFilter) -> Vec<String> {
        let answer = must(self.runtime.list_container_stats(wire::ListContainerStatsRequest { filter: Some(filter) }).await);
        let mut ids: Vec<String> = answer.stats.into_iter().filter_map(|one| Some(one.attributes?.id)).collect();
        ids.sort();
        ids
    }

    async fn filters(&mut self) {
        let (one, two) = (self.pod("filter-one").await, self.pod("filter-two").await);
        must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: two.1.clone() }).await);
        let mut both = vec![one.1.clone(), two.1.clone()];
        both.sort();
        let pod_state = |state: wire::PodSandboxState| Some(wire::PodSandboxStateValue { state: state.into() });
        let labels = |pair: &[(&str, &str)]| pair.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
        let none = wire::PodSandboxFilter::default;
        assert_eq!(self.pods(none()).await, both);
        assert_eq!(self.pods(wire::PodSandboxFilter { id: one.1.clone(), ..none() }).await, [one.1.as_str()]);
        let not_ready = wire::PodSandboxFilter { state: pod_state(wire::PodSandboxState::SandboxNotready), ..none() };
        assert_eq!(self.pods(not_ready.clone()).await, [two.1.as_str()]);
        let label = wire::PodSandboxFilter { label_selector: labels(&[("app", "filter-one")]), ..none() };
        assert_eq!(self.pods(label.clone()).await, [one.1.as_str()]);
        // All parts have to fit.
        assert_eq!(self.pods(wire::PodSandboxFilter { state: not_ready.state, ..label }).await, [""; 0]);
        let (made, runs) = (self.container(&one, "made", false).await, self.container(&one, "runs", true).await);
        let mut all = vec![made.clone(), runs.clone()];
        all.sort();
        let state = |state: wire::ContainerState| Some(wire::ContainerStateValue { state: state.into() });
        let any = wire::ContainerFilter::default;
        assert_eq!(self.listed(any()).await, all);
        assert_eq!(self.listed(wire::ContainerFilter { id: made.clone(), ..any() }).await, [made.as_str()]);
        assert_eq!(self.listed(wire::ContainerFilter { pod_sandbox_id: one.1.clone(), ..any() }).await, all);
        assert_eq!(self.listed(wire::ContainerFilter { pod_sandbox_id: two.1.clone(), ..any() }).await, [""; 0]);
        let running = wire::ContainerFilter { state: state(wire::ContainerState::ContainerRunning), ..any() };
        assert_eq!(self.listed(running).await, [runs.as_str()]);
        let labelled = wire::ContainerFilter { label_selector: labels(&[("name", "made"), ("all", "1")]), ..any() };
        assert_eq!(self.listed(labelled).await, [made]);
        let some = wire::ContainerStatsFilter::default;
        for filter in [
            wire::ContainerStatsFilter { id: runs.clone(), ..some() },
            wire::ContainerStatsFilter { label_selector: labels(&[("name", "runs")]), ..some() },
        ] {
            assert_eq!(self.measured(filter).await, [runs.as_str()]);
        }
        assert_eq!(self.measured(wire::ContainerStatsFilter { pod_sandbox_id: two.1.clone(), ..some() }).await, [""; 0]);
        let figures =
            must(self.runtime.container_stats(wire::ContainerStatsRequest { container_id: runs }).await).stats.unwrap_or_default();
        assert!(figures.memory.is_some_and(|memory| memory.timestamp > 0 && memory.working_set_bytes.is_some_and(|bytes| bytes.value > 0)));
        let verbose = wire::PodSandboxStatusRequest { pod_sandbox_id: one.1.clone(), verbose: true };
        let status = must(self.runtime.pod_sandbox_status(verbose).await);
        let info = told(&status.info, "info");
        let held = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let network = held.iter().find(|namespace| namespace["type"] == "network").and_then(|namespace| namespace["path"].as_str());
        assert!(network.is_some_and(|path| Path::new(path).exists()), "{info}");
        for (_, id) in [one, two] {
            for _ in 0..2 {
                must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await);
            }
            for _ in 0..2 {
                must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: id.clone() }).await);
            }
        }
        assert_eq!(self.listed(any()).await, [""; 0]);
    }

    /// A group is a user's.
    async fn who_is_whose_group_is_told(&mut self) {
        let pod = self.pod("grouped").await;
        let mut config = self.config(&self.subject.container("grouped", &["true"]));
        let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        let Some(security) = security else { panic!("no security context") };
        (security.run_as_user, security.run_as_group) = (None, Some(wire::Int64Value { value: 1000 }));
        assert_ne!(code(self.ask_for(&pod, config).await), Code::Ok);
        self.remove_pod(pod.1).await;
    }

    async fn remove_pod(&mut self, id: String) {
        must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await);
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: id }).await);
    }

    /// A kubelet names the image by the id that a pull gave it, shows users the status's name and `image_ref`, and looks for
    /// what is in use by the list's.
    async fn containers_name_their_image(&mut self) {
        let present = Some(container::image_spec(&self.subject.image));
        let image = must(self.images.image_status(wire::ImageStatusRequest { image: present, verbose: false }).await).image;
        let Some(image) = image else { panic!("{} is not there", self.subject.image) };
        let pod = self.pod("imaged").await;
        let mut config = self.config(&self.subject.container("imaged", &["sleep", "100000"]));
        let asked = wire::ImageSpec { image: image.id.clone(), ..container::image_spec(&self.subject.image) };
        config.image = Some(asked);
        let container_id = must(self.ask_for(&pod, config).await).container_id;
        let question = wire::ContainerStatusRequest { container_id: container_id.clone(), verbose: false };
        let status = must(self.runtime.container_status(question).await).status.unwrap_or_default();
        let filter = wire::ContainerFilter { id: container_id, ..Default::default() };
        let listed = must(self.runtime.list_containers(wire::ListContainersRequest { filter: Some(filter) }).await).containers.remove(0);
        let by_digest = image.repo_digests.first().unwrap_or(&image.id);
        assert_eq!((&status.image_ref, &listed.image_ref), (by_digest, &image.id), "{image:?}");
        // containerd 1.6 has no such field.
        assert!([&status.image_id, &listed.image_id].iter().all(|id| id.is_empty() || **id == image.id), "{status:?} {listed:?}");
        assert!(image.repo_tags.contains(&status.image.unwrap_or_default().image), "{image:?}");
        self.remove_pod(pod.1).await;
    }

    /// containerd 1.6 has no such verb.
    async fn pods_limits_change(&mut self) {
        let pod = self.pod("pods-limits").await;
        let ask = |id: &str, memory_limit_in_bytes| wire::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            resources: Some(wire::LinuxContainerResources { memory_limit_in_bytes, cpu_shares: 512, ..Default::default() }),
            ..Default::default()
        };
        for memory in [256 << 20, 128 << 20, -1] {
            must(self.runtime.update_pod_sandbox_resources(ask(&pod.1, memory)).await);
        }
        assert_eq!(code(self.runtime.update_pod_sandbox_resources(ask("0123456789abcdef", 1 << 30)).await), Code::NotFound);
        must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: pod.1.clone() }).await);
        assert_ne!(code(self.runtime.update_pod_sandbox_resources(ask(&pod.1, 1 << 30)).await), Code::Ok);
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    async fn lists_are_streamed(&mut self) {
        let pod = self.pod("streamed").await;
        let mut stream = must(self.runtime.stream_pod_sandboxes(wire::StreamPodSandboxesRequest { filter: None }).await);
        let mut ids = Vec::new();
        while let Ok(Some(piece)) = stream.message().await {
            ids.extend(piece.pod_sandboxes.into_iter().map(|one| one.id));
        }
        assert_eq!(ids, [pod.1.as_str()]);
        let described = must(self.runtime.list_metric_descriptors(wire::ListMetricDescriptorsRequest {}).await).descriptors;
        let metrics = must(self.runtime.list_pod_sandbox_metrics(wire::ListPodSandboxMetricsRequest {}).await).pod_metrics;
        assert!(!described.is_empty() && metrics.iter().any(|one| one.pod_sandbox_id == pod.1), "{metrics:?}");
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    /// The metrics of a pod: all of one container, and the pod's own.
    async fn metrics_of(&mut self, pod: &str) -> Vec<wire::Metric> {
        let all = must(self.runtime.list_pod_sandbox_metrics(wire::ListPodSandboxMetricsRequest {}).await).pod_metrics;
        let one = all.into_iter().find(|one| one.pod_sandbox_id == pod).unwrap_or_default();
        one.container_metrics.into_iter().flat_map(|one| one.metrics).chain(one.metrics).collect()
    }

    async fn metrics_are_complete(&mut self) {
        let pod = self.pod("measured").await;
        let mut config = self.subject.container("busy", &["sleep", "100000"]);
        let (cpu_period, cpu_quota, cpu_shares, memory_limit_bytes) = (50_000, 40_000, 512, 64 << 20);
        config.resources = Resources { cpu_period, cpu_quota, cpu_shares, memory_limit_bytes, ..Resources::default() };
        let id = self.create(&pod, &config).await;
        must(self.runtime.start_container(wire::StartContainerRequest { container_id: id.clone() }).await);
        let value = |all: &[wire::Metric], name: &str| {
            let found = all.iter().find(|one| one.name == format!("container_{name}"));
            found.and_then(|one| Some(one.value.as_ref()?.value))
        };
        let start = std::time::Instant::now();
        let mut all = self.metrics_of(&pod.1).await;
        while value(&all, "cpu_usage_seconds_total").is_none_or(|seconds| seconds == 0) {
            assert!(start.elapsed() < super::PATIENCE, "{all:?}");
            let work = ["sh", "-c", "true && i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"].map(str::to_owned).to_vec();
            must(self.runtime.exec_sync(wire::ExecSyncRequest { container_id: id.clone(), cmd: work, timeout: 60 }).await);
            all = self.metrics_of(&pod.1).await;
        }
        let described = must(self.runtime.list_metric_descriptors(wire::ListMetricDescriptorsRequest {}).await).descriptors;
        for one in &described {
            assert!(!one.help.is_empty() && !one.label_keys.is_empty(), "{one:?}");
            let samples: Vec<_> = all.iter().filter(|sample| sample.name == one.name).collect();
            assert!(!samples.is_empty(), "{} has no sample", one.name);
            assert!(samples.iter().all(|sample| sample.label_values.len() == one.label_keys.len()), "{one:?}: {samples:?}");
        }
        for name in
            ["fs_usage_bytes", "memory_usage_bytes", "memory_working_set_bytes", "processes", "threads", "start_time_seconds", "last_seen"]
        {
            assert!(value(&all, name).is_some_and(|value| value > 0), "{name}: {:?}", value(&all, name));
        }
        let spec = ["cpu_period", "cpu_quota", "cpu_shares", "memory_limit_bytes"].map(|name| value(&all, &format!("spec_{name}")));
        assert_eq!(spec, [50_000, 40_000, 512, 64 << 20].map(Some));
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    async fn events_are_told_in_full(&mut self) {
        let mut stream = must(self.runtime.get_container_events(wire::GetEventsRequest {}).await);
        let pod = self.pod("told").await;
        let id = self.container(&pod, "told", true).await;
        must(self.runtime.remove_container(wire::RemoveContainerRequest { container_id: id.clone() }).await);
        let mut kinds = Vec::new();
        let listen = async {
            while kinds.last() != Some(&wire::ContainerEventType::ContainerDeletedEvent) {
                let Ok(Some(event)) = stream.message().await else { panic!("the stream ends") };
                if event.container_id == id {
                    kinds.push(event.container_event_type());
                }
            }
        };
        assert!(tokio::time::timeout(super::PATIENCE, listen).await.is_ok(), "{kinds:?}");
        let all = [0, 1, 2, 3].map(|kind| wire::ContainerEventType::try_from(kind).unwrap_or_default());
        assert!(kinds.windows(2).all(|pair| pair[0] < pair[1]) && kinds.iter().all(|kind| all.contains(kind)), "{kinds:?}");
        assert_eq!(kinds.first(), Some(&wire::ContainerEventType::ContainerCreatedEvent));
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    /// Who has all the time and leaves takes the command along.
    async fn commands_end_with_their_callers(&mut self) {
        let pod = self.pod("left").await;
        let id = self.container(&pod, "host", true).await;
        let command = |words: &[&str], timeout| command(&id, words, timeout);
        let mut other = self.runtime.clone();
        let asked = command(&["sleep", "4242"], 0);
        let caller = tokio::spawn(async move { other.exec_sync(asked).await.map(drop) });
        self.until_there_are(b"1\n", command(&LEFT, 30)).await;
        caller.abort();
        self.until_there_are(b"0\n", command(&LEFT, 30)).await;
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    /// It takes two looks. containerd 1.6 does not tell it.
    async fn the_cpus_that_are_used_are_told(&mut self) {
        let pod = self.pod("cpus").await;
        let container_id = self.container(&pod, "main", true).await;
        let (pod_request, request) = (
            wire::PodSandboxStatsRequest { pod_sandbox_id: pod.1.clone() },
            wire::ContainerStatsRequest { container_id: container_id.clone() },
        );
        let start = std::time::Instant::now();
        let mut looks = 0;
        loop {
            let of_pod = must(self.runtime.pod_sandbox_stats(pod_request.clone()).await).stats.and_then(|stats| stats.linux);
            let own = must(self.runtime.container_stats(request.clone()).await).stats.and_then(|stats| stats.cpu);
            let told = [of_pod.and_then(|linux| linux.cpu), own].map(|cpu| cpu.is_some_and(|cpu| cpu.usage_nano_cores.is_some()));
            looks += 1;
            if told == [true; 2] {
                break;
            }
            assert!(start.elapsed() < super::PATIENCE, "never told: {told:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(looks > 1, "nothing is known at the first");
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    async fn until_there_are(&mut self, count: &[u8], request: wire::ExecSyncRequest) {
        let start = std::time::Instant::now();
        while must(self.runtime.exec_sync(request.clone()).await).stdout != count {
            assert!(start.elapsed() < super::PATIENCE, "never {}", String::from_utf8_lossy(count));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn commands(&mut self) {
        let pod = self.pod("commands").await;
        let id = self.container(&pod, "host", true).await;
        let command = |words: &[&str], timeout| command(&id, words, timeout);
        let answer = must(self.runtime.exec_sync(command(&["echo", "hello"], 0)).await);
        assert_eq!((answer.stdout.as_slice(), answer.exit_code), (b"hello\n".as_slice(), 0));
        let answer = must(self.runtime.exec_sync(command(&["sh", "-c", "exit 9"], 30)).await);
        assert_eq!(answer.exit_code, 9);
        let late = self.runtime.exec_sync(command(&["sleep", "4242"], 1)).await;
        assert_eq!(code(late), Code::DeadlineExceeded);
        assert_eq!(must(self.runtime.exec_sync(command(&LEFT, 30)).await).stdout, b"0\n", "it has gone by then");
        for _ in 0..2 {
            let stop = wire::StopContainerRequest { container_id: id.clone(), timeout: 0 };
            must(self.runtime.stop_container(stop).await);
        }
        for _ in 0..2 {
            must(self.runtime.remove_container(wire::RemoveContainerRequest { container_id: id.clone() }).await);
        }
        must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: pod.1.clone() }).await);
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    /// Each answer is a URL of its own.
    async fn streams(&mut self) {
        let pod = self.pod("urls").await;
        let id = self.container(&pod, "host", true).await;
        let exec = wire::ExecRequest { container_id: id.clone(), cmd: vec!["true".into()], stdout: true, ..Default::default() };
        let attach = wire::AttachRequest { container_id: id.clone(), stdout: true, ..Default::default() };
        let ports = wire::PortForwardRequest { pod_sandbox_id: pod.1.clone(), port: vec![80] };
        let mut urls = std::collections::BTreeSet::new();
        for _ in 0..2 {
            urls.insert(must(self.runtime.exec(exec.clone()).await).url);
            urls.insert(must(self.runtime.attach(attach.clone()).await).url);
            urls.insert(must(self.runtime.port_forward(ports.clone()).await).url);
        }
        assert_eq!(urls.iter().filter(|url| url.starts_with("http://127.0.0.1:")).count(), 6, "{urls:?}");
        let nothing = wire::ExecRequest { stdout: false, ..exec.clone() };
        assert_eq!(code(self.runtime.exec(nothing).await), Code::InvalidArgument);
        let both = wire::ExecRequest { tty: true, stderr: true, ..exec.clone() };
        assert_eq!(code(self.runtime.exec(both).await), Code::InvalidArgument);
        must(self.runtime.stop_pod_sandbox(wire::StopPodSandboxRequest { pod_sandbox_id: pod.1.clone() }).await);
        for late in [self.runtime.exec(exec).await.map(drop), self.runtime.attach(attach).await.map(drop)] {
            assert!(late.is_err(), "a container that has ended");
        }
        assert_ne!(code(self.runtime.port_forward(ports).await), Code::Ok);
        must(self.runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.1 }).await);
    }

    async fn images(&mut self) {
        // Nobody's id, as it is shown without its `sha256:`, is nobody's as well.
        let id = "0".repeat(64);
        for _ in 0..2 {
            must(self.images.remove_image(wire::RemoveImageRequest { image: Some(container::image_spec(&id)) }).await);
        }
        let missing = || Some(container::image_spec("docker.io/library/not-there:1"));
        let status = must(self.images.image_status(wire::ImageStatusRequest { image: missing(), verbose: true }).await);
        assert_eq!(status.image, None);
        for _ in 0..2 {
            must(self.images.remove_image(wire::RemoveImageRequest { image: missing() }).await);
        }
        let present = Some(container::image_spec(&self.subject.image));
        let status = must(self.images.image_status(wire::ImageStatusRequest { image: present, verbose: true }).await);
        let info = told(&status.info, "info");
        assert!(info["chainID"].as_str().is_some_and(|id| id.starts_with("sha256:")) && info["imageSpec"]["rootfs"].is_object(), "{info}");
        let info = must(self.images.image_fs_info(wire::ImageFsInfoRequest {}).await);
        assert!(info.image_filesystems.iter().all(|one| one.timestamp > 0 && one.fs_id.is_some()), "{info:?}");
        assert!(!info.image_filesystems.is_empty());
        assert_ne!(code(self.images.image_status(wire::ImageStatusRequest { image: None, verbose: false }).await), Code::Unimplemented);
    }
}
