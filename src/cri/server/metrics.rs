//! Pods' and containers' figures by the names, labels and meanings that cAdvisor's have. PURE.

use crate::cri::figures::Figure;
use crate::cri::wire::{ContainerMetrics, Metric, MetricDescriptor, MetricType, PodSandboxMetrics, UInt64Value};
use crate::cri::{ContainerStatus, PodSandbox};
use crate::model::Timestamp;

/// Of every metric. The pod as a whole has no `container`, `image` and `name`.
const LABELS: [&str; 6] = ["id", "name", "container", "image", "namespace", "pod"];
const PREFIX: &str = "container_";
/// What is a pod's and not a container's.
const OF_POD: &str = "network_";
/// Microseconds of a period of which nobody says how long it is.
const USUAL_PERIOD: u64 = 100_000;

/// Name without its prefix, labels of its own, how it is counted, what it is.
type Row = (&'static str, &'static [&'static str], MetricType, &'static str);

const NONE: &[&str] = &[];
const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];
const PAGES: &[&str] = &["pagesize"];
use MetricType::{Counter, Gauge};

const METRICS: [Row; 56] = [
    ("blkio_device_usage_total", &["device", "major", "minor", "operation"], Counter, "Bytes read from and written to block devices"),
    ("cpu_cfs_periods_total", NONE, Counter, "Periods of the CPU quota that have passed"),
    ("cpu_cfs_throttled_periods_total", NONE, Counter, "Periods in which the CPU quota was used up"),
    ("cpu_cfs_throttled_seconds_total", NONE, Counter, "Time spent waiting for the next period of the CPU quota, in whole seconds"),
    ("cpu_system_seconds_total", NONE, Counter, "CPU time used in the kernel, in whole seconds"),
    ("cpu_usage_seconds_total", &["cpu"], Counter, "CPU time used, in whole seconds"),
    ("cpu_user_seconds_total", NONE, Counter, "CPU time used in user space, in whole seconds"),
    ("file_descriptors", NONE, Gauge, "Open file descriptors"),
    ("fs_inodes_free", DEVICE, Gauge, "Inodes that are free in the file system of the writable layer"),
    ("fs_inodes_total", DEVICE, Gauge, "Inodes of the file system of the writable layer"),
    ("fs_limit_bytes", DEVICE, Gauge, "Size of the file system of the writable layer"),
    ("fs_reads_bytes_total", DEVICE, Counter, "Bytes read from block devices"),
    ("fs_reads_total", DEVICE, Counter, "Reads from block devices"),
    ("fs_usage_bytes", DEVICE, Gauge, "Bytes that the writable layer takes"),
    ("fs_writes_bytes_total", DEVICE, Counter, "Bytes written to block devices"),
    ("fs_writes_total", DEVICE, Counter, "Writes to block devices"),
    ("hugetlb_max_usage_bytes", PAGES, Gauge, "The most that was in use as huge pages"),
    ("hugetlb_usage_bytes", PAGES, Gauge, "Memory in use as huge pages"),
    ("last_seen", NONE, Gauge, "When it was last seen, in seconds since 1970"),
    ("memory_cache", NONE, Gauge, "Page cache in memory"),
    ("memory_failcnt", NONE, Counter, "How often the memory limit was hit"),
    ("memory_failures_total", &["failure_type", "scope"], Counter, "Page faults"),
    ("memory_kernel_usage", NONE, Gauge, "Memory in use by the kernel"),
    ("memory_mapped_file", NONE, Gauge, "Files that are mapped into memory"),
    ("memory_max_usage_bytes", NONE, Gauge, "The most memory that was in use"),
    ("memory_rss", NONE, Gauge, "Anonymous memory in use"),
    ("memory_swap", NONE, Gauge, "Swap in use"),
    ("memory_usage_bytes", NONE, Gauge, "Memory in use, caches included"),
    ("memory_working_set_bytes", NONE, Gauge, "Memory in use that cannot be dropped"),
    ("network_receive_bytes_total", INTERFACE, Counter, "Bytes received"),
    ("network_receive_errors_total", INTERFACE, Counter, "Errors while receiving"),
    ("network_receive_packets_dropped_total", INTERFACE, Counter, "Packets dropped while receiving"),
    ("network_receive_packets_total", INTERFACE, Counter, "Packets received"),
    ("network_transmit_bytes_total", INTERFACE, Counter, "Bytes sent"),
    ("network_transmit_errors_total", INTERFACE, Counter, "Errors while sending"),
    ("network_transmit_packets_dropped_total", INTERFACE, Counter, "Packets dropped while sending"),
    ("network_transmit_packets_total", INTERFACE, Counter, "Packets sent"),
    ("oom_events_total", NONE, Counter, "Processes killed for want of memory"),
    ("pressure_cpu_stalled_seconds_total", NONE, Counter, "Time in which all processes waited for the CPU, in whole seconds"),
    ("pressure_cpu_waiting_seconds_total", NONE, Counter, "Time in which a process waited for the CPU, in whole seconds"),
    ("pressure_io_stalled_seconds_total", NONE, Counter, "Time in which all processes waited for input and output, in whole seconds"),
    ("pressure_io_waiting_seconds_total", NONE, Counter, "Time in which a process waited for input and output, in whole seconds"),
    ("pressure_memory_stalled_seconds_total", NONE, Counter, "Time in which all processes waited for memory, in whole seconds"),
    ("pressure_memory_waiting_seconds_total", NONE, Counter, "Time in which a process waited for memory, in whole seconds"),
    ("processes", NONE, Gauge, "Processes"),
    ("sockets", NONE, Gauge, "Open sockets"),
    ("spec_cpu_period", NONE, Gauge, "Period of the CPU quota, in microseconds"),
    ("spec_cpu_quota", NONE, Gauge, "CPU time allowed in a period, in microseconds; 0: any"),
    ("spec_cpu_shares", NONE, Gauge, "CPU shares that were asked for"),
    ("spec_memory_limit_bytes", NONE, Gauge, "Memory limit; 0: none"),
    ("spec_memory_reservation_limit_bytes", NONE, Gauge, "Memory that is kept for it"),
    ("spec_memory_swap_limit_bytes", NONE, Gauge, "Limit of memory and swap together; 0: none"),
    ("start_time_seconds", NONE, Gauge, "When it started, in seconds since 1970"),
    ("threads", NONE, Gauge, "Threads"),
    ("threads_max", NONE, Gauge, "Limit of threads; 0: none"),
    ("ulimits_soft", &["ulimit"], Gauge, "Soft limits of the first process"),
];

pub fn descriptors() -> Vec<MetricDescriptor> {
    let describe = |(name, labels, _, help): &Row| MetricDescriptor {
        name: format!("{PREFIX}{name}"),
        help: (*help).into(),
        label_keys: LABELS.iter().chain(*labels).map(|label| (*label).to_owned()).collect(),
    };
    METRICS.iter().map(describe).collect()
}

/// In the order of [`METRICS`]. One that is to be `whole` and of which nothing is known is 0, with nothing in its labels.
fn metrics(labels: [&str; 6], figures: &[Figure], whole: impl Fn(&str) -> bool) -> Vec<Metric> {
    let mut all = Vec::new();
    for (name, own, kind, _) in &METRICS {
        let mut put = |values: &[String], value: u64| {
            all.push(Metric {
                name: format!("{PREFIX}{name}"),
                timestamp: 0,
                metric_type: (*kind).into(),
                label_values: labels.iter().map(|label| (*label).to_owned()).chain(values.iter().cloned()).collect(),
                value: Some(UInt64Value { value }),
            });
        };
        let mut known = figures.iter().filter(|figure| figure.metric == *name && figure.labels.len() == own.len()).peekable();
        if known.peek().is_none() && whole(name) {
            put(&vec![String::new(); own.len()], 0);
        }
        known.for_each(|figure| put(&figure.labels, figure.value));
    }
    all
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}

fn seen(since: Timestamp, now: Timestamp) -> [Figure; 2] {
    [("start_time_seconds", since), ("last_seen", now)].map(|(metric, at)| Figure::new(metric, &[], seconds(at)))
}

/// A pod's metrics. With the host's network it has none of its own.
pub fn of_pod(pod: &PodSandbox, mut figures: Vec<Figure>, containers: Vec<ContainerMetrics>, now: Timestamp) -> PodSandboxMetrics {
    figures.extend(seen(pod.created_at, now));
    let labels = [pod.id.as_str(), "", "", "", pod.metadata.namespace.as_str(), pod.metadata.name.as_str()];
    let whole = |name: &str| name.starts_with(OF_POD) && !pod.namespaces.host_network;
    PodSandboxMetrics { metrics: metrics(labels, &figures, whole), container_metrics: containers, pod_sandbox_id: pod.id.clone() }
}

pub fn of_container(pod: &PodSandbox, container: &ContainerStatus, mut figures: Vec<Figure>, now: Timestamp) -> ContainerMetrics {
    figures.extend(seen(container.started_at.unwrap_or(container.created_at), now));
    let wanted = &container.resources;
    // As the engine limits it: without a word no swap, and as much as it takes where the limit is below 0.
    let swap = if wanted.memory_swap_limit_bytes == 0 { wanted.memory_limit_bytes } else { positive(wanted.memory_swap_limit_bytes) };
    let period = if wanted.cpu_period == 0 && wanted.cpu_quota > 0 { USUAL_PERIOD } else { wanted.cpu_period };
    let limits = [
        ("spec_cpu_period", period),
        ("spec_cpu_quota", positive(wanted.cpu_quota)),
        ("spec_cpu_shares", wanted.cpu_shares),
        ("spec_memory_limit_bytes", wanted.memory_limit_bytes),
        ("spec_memory_swap_limit_bytes", swap),
    ];
    figures.extend(limits.map(|(metric, value)| Figure::new(metric, &[], value)));
    let name = container.metadata.name.as_str();
    let labels = [container.id.as_str(), name, name, container.image.as_str(), pod.metadata.namespace.as_str(), pod.metadata.name.as_str()];
    let whole = |name: &str| !name.starts_with(OF_POD);
    ContainerMetrics { metrics: metrics(labels, &figures, whole), container_id: container.id.clone() }
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::cri::{ContainerMetadata, ContainerState, Namespaces, PodSandboxMetadata, Resources, SandboxState};

    fn pod(host_network: bool) -> PodSandbox {
        PodSandbox {
            id: "p1".into(),
            metadata: PodSandboxMetadata { namespace: "shop".into(), name: "web".into(), uid: "u".into(), attempt: 0 },
            state: SandboxState::Ready,
            created_at: Timestamp::from_second(100).unwrap(),
            ips: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            namespaces: Namespaces { host_network, ..Namespaces::default() },
            runtime_handler: String::new(),
        }
    }

    fn container(resources: Resources) -> ContainerStatus {
        ContainerStatus {
            id: "c1".into(),
            sandbox_id: "p1".into(),
            metadata: ContainerMetadata { name: "app".into(), attempt: 0 },
            state: ContainerState::Running,
            created_at: Timestamp::from_second(101).unwrap(),
            started_at: Timestamp::from_second(102).ok(),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: "nginx:1".into(),
            image_id: String::new(),
            image_ref: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            log_path: PathBuf::new(),
            mounts: Vec::new(),
            resources,
            user: None,
            stop_signal: String::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(200).unwrap()
    }

    fn value(metrics: &[Metric], name: &str) -> Vec<(String, u64)> {
        let all = metrics.iter().filter(|one| one.name == format!("container_{name}"));
        all.map(|one| (one.label_values[LABELS.len()..].join(","), one.value.as_ref().map_or(0, |value| value.value))).collect()
    }

    #[test]
    fn every_metric_is_described_and_has_a_sample_with_its_labels() {
        let known = descriptors();
        let inside = of_container(&pod(false), &container(Resources::default()), Vec::new(), now());
        let all = of_pod(&pod(false), Vec::new(), vec![inside], now());
        let samples: Vec<&Metric> = all.metrics.iter().chain(&all.container_metrics[0].metrics).collect();
        for description in &known {
            assert!(description.name.starts_with("container_") && !description.help.is_empty());
            let own: Vec<_> = samples.iter().filter(|sample| sample.name == description.name).collect();
            assert!(!own.is_empty() && own.iter().all(|one| one.label_values.len() == description.label_keys.len()), "{description:?}");
        }
        assert!(samples.iter().all(|sample| known.iter().any(|one| one.name == sample.name)));
        assert!(known.windows(2).all(|pair| pair[0].name < pair[1].name), "each once, in order");
    }

    #[test]
    fn labels_say_whose_a_figure_is() {
        let figures = vec![Figure::new("memory_rss", &[], 7), Figure::new("network_receive_bytes_total", &["eth0"], 9)];
        let inside = of_container(&pod(false), &container(Resources::default()), figures.clone(), now());
        let all = of_pod(&pod(false), figures, vec![inside], now());
        let find = |metrics: &[Metric], name: &str| metrics.iter().find(|one| one.name == name).map(|one| one.label_values.clone());
        assert_eq!(find(&all.metrics, "container_memory_rss").unwrap(), ["p1", "", "", "", "shop", "web"]);
        assert_eq!(find(&all.metrics, "container_network_receive_bytes_total").unwrap(), ["p1", "", "", "", "shop", "web", "eth0"]);
        let own = &all.container_metrics[0];
        assert_eq!(find(&own.metrics, "container_memory_rss").unwrap(), ["c1", "app", "app", "nginx:1", "shop", "web"]);
        assert_eq!((value(&own.metrics, "start_time_seconds"), value(&own.metrics, "last_seen")), (one(102), one(200)));
        assert_eq!(value(&all.metrics, "start_time_seconds"), one(100));
        // None of a pod in the host's network, none made up of what is a container's.
        let host = of_pod(&pod(true), Vec::new(), Vec::new(), now());
        assert_eq!(value(&host.metrics, "network_receive_bytes_total"), []);
        assert_eq!(value(&host.metrics, "memory_rss"), []);
    }

    fn one(value: u64) -> Vec<(String, u64)> {
        vec![(String::new(), value)]
    }

    #[test]
    fn limits_are_told_as_they_hold() {
        let of = |resources: Resources| {
            let all = of_container(&pod(false), &container(resources), Vec::new(), now()).metrics;
            ["cpu_period", "cpu_quota", "cpu_shares", "memory_limit_bytes", "memory_swap_limit_bytes"]
                .map(|name| value(&all, &format!("spec_{name}"))[0].1)
        };
        assert_eq!(of(Resources::default()), [0; 5]);
        let limits = Resources { cpu_quota: 20_000, cpu_shares: 512, memory_limit_bytes: 64, ..Resources::default() };
        assert_eq!(of(limits.clone()), [100_000, 20_000, 512, 64, 64]);
        let other = Resources { cpu_period: 50_000, cpu_quota: -1, memory_swap_limit_bytes: -1, ..limits.clone() };
        assert_eq!(of(other), [50_000, 0, 512, 64, 0]);
        assert_eq!(of(Resources { memory_swap_limit_bytes: 96, ..limits })[4], 96);
    }
}
