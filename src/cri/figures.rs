//! Figures of pods and containers by the names of cAdvisor's metrics, which dashboards know. PURE.

use super::types::{ContainerStats, PodSandboxStats, Usage};

/// One figure, in whole units of its metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The metric without `container_`: `memory_rss`.
    pub metric: &'static str,
    /// Values of the labels that only this metric has, as an `interface`.
    pub labels: Vec<String>,
    pub value: u64,
}

impl Figure {
    pub fn new(metric: &'static str, labels: &[&str], value: u64) -> Self {
        Self { metric, labels: labels.iter().map(|label| (*label).to_owned()).collect(), value }
    }
}

/// What stats say of a container, or of a pod as a whole.
fn of_usage(usage: &Usage) -> Vec<Figure> {
    let all: [(&'static str, &[&str], u64); 8] = [
        ("cpu_usage_seconds_total", &["total"], usage.cpu_nanos / 1_000_000_000),
        ("memory_usage_bytes", &[], usage.memory_usage_bytes),
        ("memory_working_set_bytes", &[], usage.memory_working_set_bytes),
        ("memory_rss", &[], usage.memory_rss_bytes),
        ("memory_failures_total", &["pgfault", "hierarchy"], usage.page_faults),
        ("memory_failures_total", &["pgmajfault", "hierarchy"], usage.major_page_faults),
        ("processes", &[], usage.pids),
        ("threads", &[], usage.pids),
    ];
    all.map(|(metric, labels, value)| Figure::new(metric, labels, value)).into()
}

/// What stats say of a container, its writable layer included.
pub fn of_container(stats: &ContainerStats) -> Vec<Figure> {
    let layer = stats.writable_layer.as_ref();
    let layer = layer.map(|layer| Figure::new("fs_usage_bytes", &[&layer.mount_point.to_string_lossy()], layer.used_bytes));
    of_usage(&stats.usage).into_iter().chain(layer).collect()
}

/// What stats say of a pod, its network included.
pub fn of_pod(stats: &PodSandboxStats) -> Vec<Figure> {
    let mut all = of_usage(&stats.usage);
    for interface in &stats.network {
        let figures = [
            ("network_receive_bytes_total", interface.rx_bytes),
            ("network_receive_errors_total", interface.rx_errors),
            ("network_transmit_bytes_total", interface.tx_bytes),
            ("network_transmit_errors_total", interface.tx_errors),
        ];
        all.extend(figures.map(|(metric, value)| Figure::new(metric, &[&interface.name], value)));
    }
    all
}
