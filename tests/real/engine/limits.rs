//! Limits that change while a container runs.

use super::*;

/// Period and quota of the container that runs this.
const SHOW_CPU: &str = "cat /sys/fs/cgroup/cpu.max 2>/dev/null | (read q p && echo $p $q) || \
    echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us) $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us)";

#[tokio::test]
async fn a_share_of_the_cpu_changes_below_its_pods_limit() {
    let house = House::new("cpulimit");
    let subject = house.open().await;
    let cpu = |period: u64, quota: i64| Resources { cpu_period: period, cpu_quota: quota, ..Resources::default() };
    let mut pod = subject.pod("cpulimit");
    pod.resources = cpu(100_000, 100_000);
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let mut config = subject.container("main", &["sleep", "1000"]);
    config.resources = cpu(100_000, 90_000);
    let id = subject.start(&sandbox, &config).await.unwrap();
    // Nine tenths all the time: with the new period and the old quota it would be more than the pod has, or the other
    // way round.
    for (period, quota) in [(20_000, 18_000), (200_000, 180_000), (50_000, 45_000), (100_000, 90_000)] {
        subject.runtime.update_container_resources(&id, &cpu(period, quota)).await.unwrap();
        assert_eq!(exec(&subject, &id, SHOW_CPU).await.1, format!("{period} {quota}\n"));
    }
    // A quota alone is of the period it has.
    subject.runtime.update_container_resources(&id, &cpu(50_000, 40_000)).await.unwrap();
    subject.runtime.update_container_resources(&id, &cpu(0, 30_000)).await.unwrap();
    assert_eq!(exec(&subject, &id, SHOW_CPU).await.1, "50000 30000\n");
    house.close(subject).await;
}

#[tokio::test]
async fn a_pods_limits_change_while_it_runs() {
    let house = House::new("podlimit");
    let subject = house.open().await;
    let limit = |bytes| Resources { memory_limit_bytes: bytes, ..Resources::default() };
    let mut pod = subject.pod("podlimit");
    pod.resources = limit(64 << 20);
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let shown = |subject: &Subject| {
        let (runtime, sandbox) = (subject.runtime.clone(), sandbox.clone());
        async move {
            let cgroup = runtime.details(&sandbox).await["cgroup"].as_str().unwrap().to_owned();
            let [v1, v2] = ["memory/CGROUP/memory.limit_in_bytes", "CGROUP/memory.max"]
                .map(|path| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(path.replace("CGROUP", &cgroup))));
            v1.or(v2).unwrap().trim().to_owned()
        }
    };
    // The shim's room is beside what the containers have.
    assert_eq!(shown(&subject).await, ((64 + 8) << 20).to_string());
    subject.runtime.update_pod_sandbox_resources(&sandbox, &limit(32 << 20)).await.unwrap();
    assert_eq!(shown(&subject).await, ((32 + 8) << 20).to_string());
    drop(subject);
    let subject = house.open().await;
    subject.runtime.update_pod_sandbox_resources(&sandbox, &Resources { cpu_shares: 512, ..Resources::default() }).await.unwrap();
    assert_eq!(shown(&subject).await, ((32 + 8) << 20).to_string(), "what is not said stays");
    subject.runtime.update_pod_sandbox_resources(&sandbox, &limit(podbay::cri::UNLIMITED)).await.unwrap();
    let any = shown(&subject).await;
    assert!(any == "max" || any.parse::<u64>().unwrap() > 1 << 60, "{any}");
    subject.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    assert!(subject.runtime.update_pod_sandbox_resources(&sandbox, &limit(1 << 30)).await.is_err());
    house.close(subject).await;
}
