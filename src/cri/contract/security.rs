//! What a container's processes may do, who they are, and which limits are none.

use super::super::{PodSandboxConfig, Resources, Seccomp};
use super::inside::{run, script};
use super::{Subject, must};

pub(super) async fn security_suite(subject: &Subject) {
    who_nobody_knows_is_refused(subject).await;
    limits_that_no_kernel_has_are_refused(subject).await;
    paths_are_hidden_and_kept(subject).await;
    calls_are_filtered(subject).await;
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

async fn paths_are_hidden_and_kept(subject: &Subject) {
    let set = "/proc/sys/kernel/shm_rmid_forced";
    let show = format!("cat /proc/uptime | wc -w; cat /proc/loadavg | wc -w; echo 1 > {set} && echo written || echo kept");
    let mut config = script(subject, "hidden", &show);
    config.security.unmasked_proc = true;
    let (_, lines) = run(subject, &subject.pod("shown"), &config).await;
    assert_eq!(lines, ["2", "5", "written"]);
    config.security.masked_paths = vec!["/proc/uptime".into(), "/proc/not-there".into()];
    config.security.readonly_paths = vec!["/proc/sys".into()];
    let (_, lines) = run(subject, &subject.pod("hidden"), &config).await;
    assert_eq!(lines, ["0", "5", "kept"]);
}

async fn calls_are_filtered(subject: &Subject) {
    if subject.host_network {
        // Its host's name is not ours to change.
        return;
    }
    let profile = subject.logs.join("no-name.json");
    let denied = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, denied).unwrap_or_else(|error| panic!("write {}: {error}", profile.display()));
    let text = "hostname other && echo renamed || echo refused; grep -w Seccomp /proc/self/status | cut -f2";
    let mut config = script(subject, "filtered", text);
    config.security.add_capabilities = vec!["SYS_ADMIN".into()];
    let cases = [
        ("unconfined", Seccomp::Unconfined, ["renamed", "0"]),
        ("default", Seccomp::RuntimeDefault, ["renamed", "2"]),
        ("own", Seccomp::Localhost(profile.clone()), ["refused", "2"]),
    ];
    for (name, seccomp, expected) in cases {
        config.security.seccomp = seccomp;
        let (_, lines) = run(subject, &subject.pod(&format!("filtered-{name}")), &config).await;
        assert_eq!(lines, expected, "{name}");
    }
    // Who may do everything is not kept from anything.
    config.security.privileged = true;
    let pod = PodSandboxConfig { privileged: true, ..subject.pod("privileged") };
    let (_, lines) = run(subject, &pod, &config).await;
    assert_eq!(lines, ["renamed", "0"]);
    config.security.privileged = false;
    config.security.seccomp = Seccomp::Localhost("/no/such/profile.json".into());
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("profileless")).await);
    assert!(subject.start(&sandbox, &config).await.is_err(), "a profile that is not there");
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}
