//! Measures this host.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::context::Context;
use super::node_plan::{Facts, Pressure};
use super::resources::Machine;
use crate::cri::{Features, Runtime, Usage};

/// Less free memory than this is pressure.
const LEAST_MEMORY_BYTES: i64 = 100 << 20;
/// Less free disk than this share is pressure: one tenth.
const LEAST_DISK_SHARE: i64 = 10;

/// The size of this host.
pub fn machine(data_dir: &Path) -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        cpu_millis: i64::try_from(cpus).unwrap_or(1) * 1000,
        memory_bytes: memory("MemTotal:").unwrap_or(0),
        storage_bytes: disk(data_dir).map_or(0, |(total, _)| total),
        huge_pages: huge_pages(),
    }
}

/// Whether this host's kernel confines by AppArmor profiles.
pub fn has_apparmor() -> bool {
    line("/sys/module/apparmor/parameters/enabled") == "Y"
}

/// Everything about this host that the Node says.
pub async fn facts(context: &Context) -> Facts {
    let (options, runtime) = (&context.options, &context.runtime);
    let data_dir = &options.data_dir;
    Facts {
        machine: machine(data_dir),
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        os_image: os_image(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        runtime_version: runtime.version(),
        handlers: handlers(runtime).await,
        runtime: runtime.status().await,
        images: context.images.list().await.ok(),
        network_problems: context.network.problems().await,
        dns_problem: context.dns().problem,
        pressure: pressure(data_dir),
    }
}

/// What each handler of the runtime can do, as far as it says.
async fn handlers(runtime: &Arc<dyn Runtime>) -> Vec<(String, Features)> {
    let mut all = Vec::new();
    for name in runtime.handlers().await {
        if let Ok(features) = runtime.features(&name).await {
            all.push((name, features));
        }
    }
    all
}

/// The sizes of this host's huge pages with what there is of each, in bytes.
fn huge_pages() -> BTreeMap<u64, i64> {
    let kib = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok();
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        let bytes = kib(&entry.file_name().to_string_lossy())? << 10;
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse::<i64>().ok()?;
        Some((bytes, count.saturating_mul(i64::try_from(bytes).ok()?)))
    };
    entries.filter_map(of).collect()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// A line of /proc/meminfo in bytes.
fn memory(name: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<i64>().ok().map(|kib| kib << 10)
}

/// The kernel tells user programs of 100 ticks a second, whatever it counts itself.
const NANOS_A_TICK: u64 = 10_000_000;

/// What everything on this host uses: CPU time since its start (proc(5), /proc/stat) and the memory that is not
/// available.
pub fn usage() -> Usage {
    let (total, free) = (memory("MemTotal:").unwrap_or(0), memory("MemAvailable:").unwrap_or(0));
    let used = u64::try_from(total.saturating_sub(free)).unwrap_or(0);
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in the first two.
    let busy: u64 = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at)).sum();
    Usage { cpu_nanos: busy.saturating_mul(NANOS_A_TICK), memory_working_set_bytes: used, ..Usage::default() }
}

/// Total and available bytes of the filesystem.
fn disk(path: &Path) -> Option<(i64, i64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

fn pressure(data_dir: &Path) -> Pressure {
    let threads = line("/proc/loadavg").split(['/', ' ']).nth(4).and_then(|count| count.parse::<i64>().ok());
    let most = line("/proc/sys/kernel/pid_max").parse::<i64>().ok();
    Pressure {
        memory: memory("MemAvailable:").is_some_and(|free| free < LEAST_MEMORY_BYTES),
        disk: disk(data_dir).is_some_and(|(total, free)| free < total / LEAST_DISK_SHARE),
        pids: threads.zip(most).is_some_and(|(threads, most)| threads > most / 10 * 9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_size() {
        let machine = machine(Path::new("/"));
        assert!(machine.cpu_millis >= 1000 && machine.memory_bytes > 1 << 20 && machine.storage_bytes > 1 << 20, "{machine:?}");
        assert!(!os_image().is_empty());
        let used = usage();
        assert!(used.cpu_nanos > 0 && used.memory_working_set_bytes < machine.memory_bytes.unsigned_abs(), "{used:?}");
    }
}
