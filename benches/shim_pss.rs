//! Memory of a pod's own processes: the proportional set size of the shim and its log writer.
//!
//! Prints one line for one pod alone and one for ten of them (they share their program's pages).
#![allow(clippy::unwrap_used)] // a panic is how a bench fails

#[path = "stage/mod.rs"]
mod stage;

use stage::Stage;

fn pss_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    value.and_then(|value| value.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn is_shim(pid: i32) -> bool {
    // A container's own first process has another command line.
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("podbay-shim"))
}

#[tokio::main]
async fn main() {
    let stage = Stage::open().await;
    for pods in [1usize, 10] {
        let mut sandboxes = Vec::new();
        for index in 0..pods {
            let sandbox = stage.subject.runtime.run_pod_sandbox(&stage.subject.pod(&format!("p{index}"))).await.unwrap();
            let config = stage.subject.container("main", &["sh", "-c", "echo hello; exec sleep 1000"]);
            stage.subject.start(&sandbox, &config).await.unwrap();
            sandboxes.push(sandbox);
        }
        // Shims rest after a second without anything to do.
        tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
        let processes = podbay::runtime::Remains::look(&stage.options).unwrap().processes;
        let total: u64 = processes.into_iter().filter(|pid| is_shim(*pid)).map(pss_kib).sum();
        println!("shim: {} KiB PSS a pod ({pods} pods with a running container that has logged; budget 1024)", total / pods as u64);
        for sandbox in sandboxes {
            stage.subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        }
    }
    stage.close().await;
}
