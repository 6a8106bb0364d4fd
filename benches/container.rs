//! Create, start, wait and delete of a container, beside `crun run` and `runc run` of the same spec on the same root in
//! the same run, turn by turn: with namespaces only, and with limits and the default seccomp profile.
//!
//! "podbay" is the engine, as the agent calls it: by calls in one process, in a sandbox that stands and has namespaces and a
//! shim already. "podbay oci" is what crun and runc are, a program started for it, on a bundle like theirs.
#![allow(clippy::unwrap_used)] // a panic is how a bench fails

#[path = "stage/mod.rs"]
mod stage;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podbay::cri::{ContainerConfig, ContainerState, Resources, Seccomp};
use stage::{Stage, figures, hide_the_hybrid_layout};

const ROUNDS: usize = 200;
const WARM_UP: usize = 20;

fn main() {
    hide_the_hybrid_layout();
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
        ..Resources::default()
    };
    println!("container create + start + exit + delete, {ROUNDS} rounds, median (90th percentile), microseconds");
    for (name, config) in [("namespaces only", &plain), ("limits and seccomp", &limited)] {
        // The same but for the cgroup's name: what the others leave of theirs is not ours to take away.
        let [own, others] = [bundle(&stage, &sandbox, config, "own").await, bundle(&stage, &sandbox, config, "others").await];
        let mut rows: [(&str, Vec<Duration>); 4] = ["podbay", "podbay oci", "crun", "runc"].map(|name| (name, Vec::new()));
        for round in 0..ROUNDS + WARM_UP {
            for (program, times) in &mut rows {
                let took = match *program {
                    "podbay" => ours_once(&stage, &sandbox, config).await,
                    "podbay oci" => {
                        let mut program = Command::new(env!("CARGO_BIN_EXE_podbay"));
                        program.arg("oci").arg("--root").arg(stage.path().join("oci"));
                        oci_once(program, &own, round)
                    }
                    program => oci_once(Command::new(program), &others, round),
                };
                times.extend((round >= WARM_UP).then_some(took));
            }
        }
        println!("  {name}");
        let [ours, oci] = [0, 1].map(|row| figures(&mut rows[row].1).0 as f64);
        for (program, times) in &mut rows {
            let (median, tail) = figures(times);
            let of_it = |time: f64| time / median as f64;
            println!("    {program:<10} {median:>6} ({tail})   podbay takes {:.2} of it, podbay oci {:.2}", of_it(ours), of_it(oci));
        }
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

fn oci_once(mut program: Command, bundle: &Path, round: usize) -> Duration {
    let start = Instant::now();
    let status = program
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(format!("podbay-bench-{}-{round}", std::process::id()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("crun and runc are installed (tests/setup bench)");
    assert!(status.success(), "{program:?}");
    start.elapsed()
}

/// A bundle for others out of our own spec of such a container: namespaces new where ours are the pod's, the root as
/// it is (no overlay to mount: in their favour).
async fn bundle(stage: &Stage, sandbox: &str, config: &ContainerConfig, whose: &str) -> PathBuf {
    let id = stage.subject.runtime.create_container(sandbox, config).await.unwrap();
    let file = stage.options.run_dir.join("sandboxes").join(sandbox).join(format!("{id}.json"));
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    stage.subject.runtime.remove_container(&id).await.unwrap();
    let bundle = stage.path().join(format!("bundle-{}-{whose}", config.metadata.name));
    std::fs::create_dir_all(&bundle).unwrap();
    spec["root"]["path"] = stage.image.to_str().unwrap().into();
    spec["linux"]["cgroupsPath"] = format!("/podbay-bench-oci-{}-{whose}", std::process::id()).into();
    spec["linux"]["namespaces"] = serde_json::json!(["mount", "cgroup", "uts", "pid", "ipc"].map(|kind| serde_json::json!({"type": kind})));
    // They cannot raise limits without the right to it, nor need it.
    spec["process"].as_object_mut().unwrap().remove("rlimits");
    spec["process"].as_object_mut().unwrap().remove("oomScoreAdj");
    std::fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    bundle
}
