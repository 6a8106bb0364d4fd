//! What this node and its pods use, in the kubelet's two forms: `/stats/summary` and `/metrics/resource`. PURE.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cri::{ContainerStats, PodSandbox, PodSandboxMetadata, SandboxState, Usage};
use crate::model::Timestamp;

/// The figures of one moment.
pub struct Figures {
    time: Timestamp,
    node: Usage,
    pods: Vec<OfPod>,
}

struct OfPod {
    metadata: PodSandboxMetadata,
    started: Timestamp,
    sum: Usage,
    containers: Vec<OfContainer>,
}

struct OfContainer {
    stats: ContainerStats,
    started: Option<Timestamp>,
}

impl Figures {
    /// Of the pods that run now, by name. `starts`: of containers, by id. Of a container's several lives, as some runtimes tell
    /// them, the last one counts.
    pub fn new(
        time: Timestamp,
        node: Usage,
        mut sandboxes: Vec<PodSandbox>,
        starts: &BTreeMap<String, Timestamp>,
        stats: Vec<ContainerStats>,
    ) -> Self {
        let mut lives: BTreeMap<(String, String), OfContainer> = BTreeMap::new();
        for stats in stats {
            let life = OfContainer { started: starts.get(&stats.id).copied(), stats };
            let key = (life.stats.sandbox_id.clone(), life.stats.name.clone());
            if lives.get(&key).is_none_or(|known| known.started < life.started) {
                lives.insert(key, life);
            }
        }
        sandboxes.retain(|sandbox| sandbox.state == SandboxState::Ready);
        sandboxes.sort_unstable_by(|a, b| {
            (&a.metadata.namespace, &a.metadata.name, &a.id).cmp(&(&b.metadata.namespace, &b.metadata.name, &b.id))
        });
        let mut of_sandbox: BTreeMap<String, Vec<OfContainer>> = BTreeMap::new();
        for ((sandbox, _), life) in lives {
            of_sandbox.entry(sandbox).or_default().push(life);
        }
        let pods = sandboxes.into_iter().map(|sandbox| {
            let containers = of_sandbox.remove(&sandbox.id).unwrap_or_default();
            let mut sum = Usage::default();
            containers.iter().for_each(|it| sum += it.stats.usage);
            OfPod { metadata: sandbox.metadata, started: sandbox.created_at, sum, containers }
        });
        Self { time, node, pods: pods.collect() }
    }

    /// `GET /stats/summary` of this node.
    pub fn summary(&self, node_name: &str) -> Value {
        let pods: Vec<Value> = self.pods.iter().map(|pod| self.summary_of(pod)).collect();
        let mut node = self.usage(&self.node);
        node["nodeName"] = json!(node_name);
        json!({"node": node, "pods": pods})
    }

    fn usage(&self, usage: &Usage) -> Value {
        let time = self.time.to_string();
        json!({"cpu": {"time": time, "usageCoreNanoSeconds": usage.cpu_nanos},
            "memory": {"time": time, "workingSetBytes": usage.memory_working_set_bytes}})
    }

    fn summary_of(&self, pod: &OfPod) -> Value {
        let containers: Vec<Value> = pod
            .containers
            .iter()
            .map(|it| {
                let mut value = self.usage(&it.stats.usage);
                value["name"] = json!(it.stats.name);
                if let Some(start) = it.started {
                    value["startTime"] = json!(start.to_string());
                }
                if let Some(layer) = &it.stats.writable_layer {
                    value["rootfs"] =
                        json!({"time": self.time.to_string(), "usedBytes": layer.used_bytes, "inodesUsed": layer.inodes_used});
                }
                value
            })
            .collect();
        let meta = &pod.metadata;
        let mut value = self.usage(&pod.sum);
        value["podRef"] = json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid});
        value["startTime"] = json!(pod.started.to_string());
        value["containers"] = json!(containers);
        value
    }

    /// `GET /metrics/resource`: names, labels and times as the kubelet has them (`pkg/kubelet/metrics/collectors`).
    pub fn resource(&self) -> String {
        let at = format!(" {}", self.time.as_millisecond());
        let mut families: [String; 7] = Default::default();
        let [container_cpu, container_memory, started, node_cpu, node_memory, pod_cpu, pod_memory] = &mut families;
        // Writing to a String cannot fail.
        let _ = writeln!(node_cpu, " {}{at}", seconds(self.node.cpu_nanos));
        let _ = writeln!(node_memory, " {}{at}", self.node.memory_working_set_bytes);
        for pod in &self.pods {
            let of = format!("namespace={},pod={}", quoted(&pod.metadata.namespace), quoted(&pod.metadata.name));
            let _ = writeln!(pod_cpu, "{{{of}}} {}{at}", seconds(pod.sum.cpu_nanos));
            let _ = writeln!(pod_memory, "{{{of}}} {}{at}", pod.sum.memory_working_set_bytes);
            for it in &pod.containers {
                let (of, usage) = (format!("{{container={},{of}}}", quoted(&it.stats.name)), &it.stats.usage);
                let _ = writeln!(container_cpu, "{of} {}{at}", seconds(usage.cpu_nanos));
                let _ = writeln!(container_memory, "{of} {}{at}", usage.memory_working_set_bytes);
                if let Some(nanos) = it.started.and_then(|start| u64::try_from(start.as_nanosecond()).ok()) {
                    // Without a time: it is no measurement.
                    let _ = writeln!(started, "{of} {}", seconds(nanos));
                }
            }
        }
        text(&families, false)
    }
}

/// The same when nothing could be measured.
pub fn failed() -> String {
    text(&Default::default(), true)
}

/// What the metrics are called, in the order of their names.
const FAMILIES: [(&str, &str, &str); 7] = [
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds"),
    ("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes"),
    ("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds"),
    ("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds"),
    ("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes"),
    ("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds"),
    ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes"),
];

fn text(families: &[String; 7], is_broken: bool) -> String {
    let mut out = String::new();
    let mut family = |(name, kind, help): (&str, &str, &str), samples: &str| {
        if !samples.is_empty() {
            let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
            samples.lines().for_each(|sample| out.extend([name, sample, "\n"]));
        }
    };
    FAMILIES.into_iter().zip(families).for_each(|(named, samples)| family(named, samples));
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    family(("resource_scrape_error", "gauge", help), if is_broken { " 1" } else { " 0" });
    out
}

/// Exactly, as a float would not be.
fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let metadata = PodSandboxMetadata { namespace: "web".into(), name: "a".into(), uid: "u".into(), attempt: 0 };
        let sandbox = |id: &str, state| PodSandbox {
            id: id.into(),
            metadata: metadata.clone(),
            state,
            created_at: at("2026-01-01T00:00:00Z"),
            ips: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            namespaces: Default::default(),
            runtime_handler: String::new(),
        };
        let usage = |nanos, bytes| Usage { cpu_nanos: nanos, memory_working_set_bytes: bytes, ..Usage::default() };
        let stats = |id: &str, sandbox: &str, name: &str, usage| ContainerStats {
            id: id.into(),
            sandbox_id: sandbox.into(),
            name: name.into(),
            usage,
            writable_layer: None,
        };
        let starts = [("c0", "2026-01-01T00:00:01Z"), ("c1", "2026-01-01T00:00:02.25Z")];
        Figures::new(
            at("2026-01-01T00:01:00.5Z"),
            usage(5_000_000_001, 77),
            vec![sandbox("s0", SandboxState::NotReady), sandbox("s1", SandboxState::Ready)],
            &starts.map(|(id, time)| (id.to_owned(), at(time))).into(),
            vec![
                stats("c1", "s1", "main", usage(1_500_000_000, 10)),
                stats("c0", "s1", "main", usage(9, 9)),
                stats("c2", "s1", "side", usage(20, 5)),
                stats("c3", "s0", "gone", usage(1, 1)),
            ],
        )
    }

    #[test]
    fn the_kubelets_metrics_are_said_by_their_names() {
        let told = figures().resource();
        let samples: Vec<&str> = told.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "container_cpu_usage_seconds_total{container=\"main\",namespace=\"web\",pod=\"a\"} 1.500000000 1767225660500",
                "container_cpu_usage_seconds_total{container=\"side\",namespace=\"web\",pod=\"a\"} 0.000000020 1767225660500",
                "container_memory_working_set_bytes{container=\"main\",namespace=\"web\",pod=\"a\"} 10 1767225660500",
                "container_memory_working_set_bytes{container=\"side\",namespace=\"web\",pod=\"a\"} 5 1767225660500",
                "container_start_time_seconds{container=\"main\",namespace=\"web\",pod=\"a\"} 1767225602.250000000",
                "node_cpu_usage_seconds_total 5.000000001 1767225660500",
                "node_memory_working_set_bytes 77 1767225660500",
                "pod_cpu_usage_seconds_total{namespace=\"web\",pod=\"a\"} 1.500000020 1767225660500",
                "pod_memory_working_set_bytes{namespace=\"web\",pod=\"a\"} 15 1767225660500",
                "resource_scrape_error 0",
            ]
        );
        let head = "# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds\n\
            # TYPE container_cpu_usage_seconds_total counter\n";
        assert!(told.starts_with(head), "{told}");
        assert!(failed().ends_with("# TYPE resource_scrape_error gauge\nresource_scrape_error 1\n") && failed().lines().count() == 3);
    }

    #[test]
    fn a_value_of_a_label_is_escaped() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\"");
    }

    #[test]
    fn both_forms_say_the_same() {
        let told = figures().summary("n1");
        assert_eq!((&told["node"]["nodeName"], &told["node"]["memory"]["workingSetBytes"]), (&json!("n1"), &json!(77)));
        let [pod] = told["pods"].as_array().unwrap().as_slice() else { panic!("one pod: {told}") };
        assert_eq!(pod["podRef"], json!({"name": "a", "namespace": "web", "uid": "u"}));
        let names: Vec<&Value> = pod["containers"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(
            (names.as_slice(), &pod["cpu"]["usageCoreNanoSeconds"]),
            (&[&json!("main"), &json!("side")][..], &json!(1_500_000_020_u64))
        );
        assert_eq!(pod["containers"][0]["startTime"], "2026-01-01T00:00:02.25Z");
    }
}
