//! Who a container's processes are, and which limits are none.

use super::super::Resources;
use super::{Subject, must};

pub(super) async fn security_suite(subject: &Subject) {
    who_nobody_knows_is_refused(subject).await;
    limits_that_no_kernel_has_are_refused(subject).await;
}

/// Before anything is started, and nothing of it stays: its name is free.
async fn who_nobody_knows_is_refused(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("unknown")).await);
    let mut config = subject.container("who", &["sleep", "100000"]);
    config.security.run_as_username = "nobody-knows".into();
    let refused = runtime.create_container(&sandbox, &config).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(must(runtime.list_containers().await), []);
    config.security.run_as_username = "root".into();
    must(subject.start(&sandbox, &config).await);
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

/// At the latest when it is to start.
async fn limits_that_no_kernel_has_are_refused(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("absurd")).await);
    let none = Resources::default;
    let absurd = [
        Resources { cpu_period: 100, cpu_quota: 50_000, ..none() },
        Resources { cpu_period: 100_000, cpu_quota: 10, ..none() },
        Resources { memory_limit_bytes: 64 << 20, memory_swap_limit_bytes: 32 << 20, ..none() },
        Resources { oom_score_adj: 1001, ..none() },
        Resources { cpuset_cpus: "4096-5000".into(), ..none() },
    ];
    for (number, resources) in (0..).zip(absurd) {
        let mut config = subject.container("absurd", &["sleep", "100000"]);
        config.metadata.attempt = number;
        config.resources = resources;
        let started = subject.start(&sandbox, &config).await;
        assert!(started.is_err(), "{:?}: {started:?}", config.resources);
    }
    must(runtime.remove_pod_sandbox(&sandbox).await);
}
