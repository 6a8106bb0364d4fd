//! Pods' and containers' figures by the names that dashboards know. PURE.

use crate::cri::wire::{
    ContainerMetrics, ContainerStats, CpuUsage, MemoryUsage, Metric, MetricDescriptor, MetricType, PodSandboxMetrics, PodSandboxStats,
    UInt64Value,
};

/// Each metric: name, what it is, how it is counted.
const METRICS: [(&str, &str, MetricType); 6] = [
    ("container_cpu_usage_seconds_total", "CPU time used, in whole seconds", MetricType::Counter),
    ("container_memory_working_set_bytes", "Memory in use that cannot be dropped", MetricType::Gauge),
    ("container_memory_usage_bytes", "Memory in use, caches included", MetricType::Gauge),
    ("container_memory_rss", "Anonymous memory in use", MetricType::Gauge),
    ("container_memory_failures_total", "Page faults", MetricType::Counter),
    ("container_processes", "Processes of a pod", MetricType::Gauge),
];
/// Empty for the pod as a whole.
const LABELS: [&str; 2] = ["id", "name"];

pub fn descriptors() -> Vec<MetricDescriptor> {
    let label_keys = LABELS.map(str::to_owned).to_vec();
    let describe = |(name, help, _): &(&str, &str, MetricType)| MetricDescriptor {
        name: (*name).into(),
        help: (*help).into(),
        label_keys: label_keys.clone(),
    };
    METRICS.iter().map(describe).collect()
}

/// In the order of [`METRICS`]; none where a figure is not known.
fn metrics(labels: [&str; 2], figures: [Option<u64>; 6]) -> Vec<Metric> {
    let metric = |((name, _, kind), figure): (&(&str, &str, MetricType), Option<u64>)| {
        Some(Metric {
            name: (*name).into(),
            timestamp: 0,
            metric_type: (*kind).into(),
            label_values: labels.map(str::to_owned).to_vec(),
            value: Some(UInt64Value { value: figure? }),
        })
    };
    METRICS.iter().zip(figures).filter_map(metric).collect()
}

fn figures(cpu: Option<&CpuUsage>, memory: Option<&MemoryUsage>, processes: Option<u64>) -> [Option<u64>; 6] {
    let value = |number: Option<&UInt64Value>| number.map(|number| number.value);
    [
        value(cpu.and_then(|cpu| cpu.usage_core_nano_seconds.as_ref())).map(|nanos| nanos / 1_000_000_000),
        value(memory.and_then(|memory| memory.working_set_bytes.as_ref())),
        value(memory.and_then(|memory| memory.usage_bytes.as_ref())),
        value(memory.and_then(|memory| memory.rss_bytes.as_ref())),
        value(memory.and_then(|memory| memory.page_faults.as_ref())),
        processes,
    ]
}

/// A pod's metrics and those of its containers.
pub fn of_pod(stats: &PodSandboxStats) -> PodSandboxMetrics {
    let id = stats.attributes.as_ref().map(|attributes| attributes.id.clone()).unwrap_or_default();
    let linux = stats.linux.clone().unwrap_or_default();
    let processes = linux.process.as_ref().and_then(|process| process.process_count.as_ref()).map(|count| count.value);
    PodSandboxMetrics {
        metrics: metrics([&id, ""], figures(linux.cpu.as_ref(), linux.memory.as_ref(), processes)),
        container_metrics: linux.containers.iter().map(of_container).collect(),
        pod_sandbox_id: id,
    }
}

fn of_container(stats: &ContainerStats) -> ContainerMetrics {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let name = attributes.metadata.map(|metadata| metadata.name).unwrap_or_default();
    ContainerMetrics {
        metrics: metrics([&attributes.id, &name], figures(stats.cpu.as_ref(), stats.memory.as_ref(), None)),
        container_id: attributes.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_and_has_its_labels() {
        let known = descriptors();
        let stats = PodSandboxStats {
            linux: Some(crate::cri::wire::LinuxPodSandboxStats {
                cpu: Some(CpuUsage { usage_core_nano_seconds: Some(UInt64Value { value: 2_500_000_000 }), ..CpuUsage::default() }),
                containers: vec![ContainerStats::default()],
                ..Default::default()
            }),
            ..PodSandboxStats::default()
        };
        let pod = of_pod(&stats);
        assert_eq!(pod.metrics[0].value.as_ref().map(|value| value.value), Some(2));
        for metric in pod.metrics.iter().chain(&pod.container_metrics[0].metrics) {
            let description = known.iter().find(|one| one.name == metric.name).unwrap();
            assert_eq!(description.label_keys.len(), metric.label_values.len());
        }
    }
}
