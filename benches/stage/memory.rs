//! Memory of the processes that stand around containers.

use std::collections::BTreeSet;
use std::path::Path;

/// What containers of these benches run: told apart from what is around them by its argument.
pub const SLEEP: [&str; 2] = ["sleep", "77777"];

/// A process that is there for a pod and is none of its containers.
pub struct Process {
    pub pid: i32,
    /// Holds the streams and ends of containers, rather than the pod's namespaces.
    pub is_keeper: bool,
}

/// Proportional set size in KiB; 0 for what is gone.
pub fn pss_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    value.and_then(|value| value.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn arguments(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn is_container(arguments: &str) -> bool {
    arguments.contains(SLEEP[1])
}

/// Ours of these processes of pods.
pub fn ours(processes: Vec<i32>) -> Vec<Process> {
    let around = processes.into_iter().filter(|pid| !is_container(&arguments(*pid)));
    around.map(|pid| Process { pid, is_keeper: arguments(pid).starts_with("podbay-shim") }).collect()
}

/// The peers' keepers that were started for a directory, and what they hold open below them.
pub fn theirs(keeper: &str, dir: &Path) -> Vec<Process> {
    let dir = dir.display().to_string();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = arguments(pid);
        let program = line.split('\0').next().unwrap_or_default();
        if program.rsplit('/').next().is_some_and(|name| name.starts_with(keeper)) && line.contains(&dir) {
            found.push(Process { pid, is_keeper: true });
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            seen.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    // A shim's children may have been adopted by it: each is told once.
    let holders = seen.into_iter().filter(|pid| !is_container(&arguments(*pid)));
    found.extend(holders.map(|pid| Process { pid, is_keeper: false }));
    found
}

/// KiB of all of them, and of the keepers alone.
pub fn sums(processes: &[Process]) -> (u64, u64) {
    let sum = |wanted: &dyn Fn(&Process) -> bool| processes.iter().filter(|one| wanted(one)).map(|one| pss_kib(one.pid)).sum();
    (sum(&|_| true), sum(&|one| one.is_keeper))
}
