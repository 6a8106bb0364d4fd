//! Memory of what stands around the container of a pod (proportional set size): our shim with its log writer, beside
//! containerd's shim and podman's conmon (two a pod), with and without the process that holds their sandbox open.
//!
//! Prints one line for one pod alone and one for ten of them (they share their program's pages).
#![allow(clippy::unwrap_used)] // a panic is how a bench fails

#[path = "../tests/real/cri/containerd.rs"]
#[allow(dead_code)]
mod containerd;
#[path = "../tests/real/hosts.rs"]
#[allow(dead_code)]
mod hosts;
#[path = "../tests/real/layer.rs"]
#[allow(dead_code)]
mod layer;
#[path = "stage/mod.rs"]
mod stage;

use std::time::Duration;

use containerd::{BUSYBOX, Containerd, PAUSE, pause};
use podbay::cri::contract::Subject;
use stage::memory::{self, Process};
use stage::podman::Podman;
use stage::{Stage, hide_the_hybrid_layout};

/// Shims rest after a second without anything to do.
const REST: Duration = Duration::from_millis(2500);

fn main() {
    hide_the_hybrid_layout();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let stage = Stage::open().await;
    let containerd = Containerd::start(8).await;
    let peer = containerd.subject(containerd.client().await);
    let archive = |name: &str| stage.path().join(name);
    hosts::sh(&format!("examples/build-image {BUSYBOX} {}", archive("busybox.tar").display()));
    pause(&archive("pause.tar"));
    let podman = Podman::open(&archive("busybox.tar"), &archive("pause.tar"), PAUSE);
    println!("what stands around a container that has logged: KiB a pod (PSS)");
    for pods in [1usize, 10] {
        println!("  {pods} pods");
        let names: Vec<String> = (0..pods).map(|index| format!("p{index}")).collect();
        let sandboxes = start(&stage.subject, &names).await;
        let ours =
            report("podbay-shim", pods, None, || memory::ours(podbay::runtime::Remains::look(&stage.options).unwrap().processes)).await;
        remove(&stage.subject, &sandboxes).await;
        let sandboxes = start(&peer, &names).await;
        report("containerd-shim-runc-v2", pods, Some(ours), || memory::theirs("containerd-shim", containerd.path())).await;
        remove(&peer, &sandboxes).await;
        podman.play(&podman.manifest(BUSYBOX, &names));
        report("conmon, two a pod", pods, Some(ours), || memory::theirs("conmon", podman.path())).await;
        podman.remove_all();
    }
    drop((peer, podman));
    stage.close().await;
}

async fn start(subject: &Subject, names: &[String]) -> Vec<String> {
    let mut sandboxes = Vec::new();
    for name in names {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod(name)).await.unwrap();
        let says = format!("echo hello; exec {}", memory::SLEEP.join(" "));
        subject.start(&sandbox, &subject.container("main", &["sh", "-c", &says])).await.unwrap();
        sandboxes.push(sandbox);
    }
    sandboxes
}

async fn remove(subject: &Subject, sandboxes: &[String]) {
    for sandbox in sandboxes {
        subject.runtime.stop_pod_sandbox(sandbox).await.unwrap();
        subject.runtime.remove_pod_sandbox(sandbox).await.unwrap();
    }
}

/// Prints a line; returns the KiB a pod of the keepers alone.
async fn report(name: &str, pods: usize, ours: Option<u64>, look: impl Fn() -> Vec<Process>) -> u64 {
    tokio::time::sleep(REST).await;
    let around = look();
    assert!(around.len() >= pods, "{name}: {} processes of {pods} pods", around.len());
    let (all, keepers) = memory::sums(&around);
    let (all, keepers) = (all / pods as u64, keepers / pods as u64);
    match ours {
        None => println!("    {name:<24} {keepers:>6} (budget 1024)"),
        Some(ours) => println!(
            "    {name:<24} {keepers:>6}, {all} with what holds the sandbox open; podbay takes {:.2} and {:.2} of it",
            ours as f64 / keepers as f64,
            ours as f64 / all as f64
        ),
    }
    keepers
}
