//! Create, start, wait and delete of a container, beside `crun run` of the same spec on the same root in the same
//! run, turn by turn: with namespaces only, and with limits and the default seccomp profile.
//!
//! crun (Debian's) refuses a hybrid cgroup layout, so the bench runs itself in a mount namespace that hides it.
#![allow(clippy::unwrap_used)] // a panic is how a bench fails

#[path = "stage/mod.rs"]
mod stage;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podbay::cri::{ContainerConfig, ContainerState, Resources, Seccomp};
use stage::Stage;

const ROUNDS: usize = 200;
const WARM_UP: usize = 20;

fn main() {
    if std::env::var_os("PODBAY_BENCH_INSIDE").is_none() {
        let hide = "mount --make-rprivate / && { ! mountpoint -q /sys/fs/cgroup/unified || mount -t tmpfs none /sys/fs/cgroup/unified; } && exec \"$0\"";
        let this = std::env::current_exe().unwrap();
        let status = Command::new("unshare").args(["-m", "sh", "-c", hide]).arg(this).env("PODBAY_BENCH_INSIDE", "1").status().unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let stage = Stage::open().await;
    let sandbox = stage.subject.runtime.run_pod_sandbox(&stage.subject.pod("bench")).await.unwrap();
    let mut plain = stage.subject.container("plain", &["/bin/true"]);
    plain.security.seccomp = Seccomp::Unconfined;
    let mut limited = stage.subject.container("limited", &["/bin/true"]);
    limited.security.no_new_privs = true;
    limited.resources = Resources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_bytes: 64 << 20,
        pids_limit: 100,
        oom_score_adj: 0,
    };
    println!("container create + start + exit + delete, {ROUNDS} rounds, median (90th percentile), microseconds");
    for (name, config) in [("namespaces only", &plain), ("limits and seccomp", &limited)] {
        let bundle = bundle(&stage, &sandbox, config).await;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS + WARM_UP {
            let (a, b) = (ours_once(&stage, &sandbox, config).await, crun_once(&bundle, round));
            if round >= WARM_UP {
                ours.push(a);
                theirs.push(b);
            }
        }
        let ((our_median, our_tail), (median, tail)) = (figures(&mut ours), figures(&mut theirs));
        println!(
            "  {name:<20} podbay {our_median:>6} ({our_tail})   crun {median:>6} ({tail})   ratio {:.2}",
            our_median as f64 / median as f64
        );
    }
    stage.subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    let mut pods = Vec::new();
    for round in 0..(ROUNDS + WARM_UP) / 4 {
        let start = Instant::now();
        let sandbox = stage.subject.runtime.run_pod_sandbox(&stage.subject.pod(&format!("pod{round}"))).await.unwrap();
        let created = start.elapsed();
        stage.subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        pods.push(created);
    }
    let (median, tail) = figures(&mut pods);
    println!("  sandbox of a pod, without an interface: {median} ({tail})");
    stage.close().await;
}

async fn ours_once(stage: &Stage, sandbox: &str, config: &ContainerConfig) -> Duration {
    let runtime = &stage.subject.runtime;
    let mut events = runtime.events();
    let start = Instant::now();
    let id = runtime.create_container(sandbox, config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    loop {
        let status = runtime.container_status(&id).await.unwrap();
        if status.state == ContainerState::Exited {
            assert_eq!(status.exit_code, 0);
            break;
        }
        events.recv().await.unwrap();
    }
    runtime.remove_container(&id).await.unwrap();
    start.elapsed()
}

fn crun_once(bundle: &Path, round: usize) -> Duration {
    let start = Instant::now();
    let status = Command::new("crun")
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(format!("podbay-bench-{}-{round}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("crun is installed");
    assert!(status.success());
    start.elapsed()
}

/// A bundle for crun out of our own spec of such a container: namespaces new where ours are the pod's, the root as
/// it is (no overlay to mount: in crun's favour).
async fn bundle(stage: &Stage, sandbox: &str, config: &ContainerConfig) -> PathBuf {
    let id = stage.subject.runtime.create_container(sandbox, config).await.unwrap();
    let file = stage.options.run_dir.join("sandboxes").join(sandbox).join(format!("{id}.json"));
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    stage.subject.runtime.remove_container(&id).await.unwrap();
    let bundle = stage.path().join(format!("bundle-{}", config.metadata.name));
    std::fs::create_dir_all(&bundle).unwrap();
    spec["root"]["path"] = stage.image.to_str().unwrap().into();
    spec["linux"]["cgroupsPath"] = format!("/podbay-bench-crun-{}", std::process::id()).into();
    spec["linux"]["namespaces"] = serde_json::json!(["mount", "cgroup", "uts", "pid", "ipc"].map(|kind| serde_json::json!({"type": kind})));
    // crun cannot raise limits here, nor needs it.
    spec["process"].as_object_mut().unwrap().remove("rlimits");
    spec["process"].as_object_mut().unwrap().remove("oomScoreAdj");
    std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    bundle
}

/// Median and 90th percentile in microseconds.
fn figures(all: &mut [Duration]) -> (u128, u128) {
    all.sort_unstable();
    (all[all.len() / 2].as_micros(), all[all.len() * 9 / 10].as_micros())
}
