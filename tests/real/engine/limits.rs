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

/// On cgroup v1 in hierarchies of their own, of which one may be v2's.
#[tokio::test]
async fn processors_and_huge_pages_are_limited_for_who_asks() {
    let house = House::new("rare");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("rare")).await.unwrap();
    let mut config = subject.container("main", &["sleep", "1000"]);
    config.resources = Resources { cpuset_cpus: "0".into(), hugepages: [("2MB".to_owned(), 4 << 20)].into(), ..Resources::default() };
    let id = subject.start(&sandbox, &config).await.unwrap();
    let processors = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    let first = exec(&subject, &id, "grep Cpus_allowed_list /proc/1/status | cut -f2").await.1;
    assert_eq!((first.as_str(), exec(&subject, &id, processors).await.1.as_str()), ("0\n", "0\n"));
    let details = subject.runtime.details(&id).await;
    let (cgroup, pid) = (details["cgroup"].as_str().unwrap(), details["pid"].to_string());
    let places = ["hugetlb/CGROUP/hugetlb.2MB.limit_in_bytes", "unified/CGROUP/hugetlb.2MB.max", "CGROUP/hugetlb.2MB.max"];
    let found =
        places.map(|place| Path::new("/sys/fs/cgroup").join(place.replace("CGROUP", cgroup))).into_iter().find(|path| path.exists());
    let file = found.expect("this host has a controller for huge pages");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "4194304\n");
    let inside = std::fs::read_to_string(file.with_file_name("cgroup.procs")).unwrap();
    assert!(inside.lines().any(|line| line == pid), "{pid} is none of {inside}");
    let more = Resources { hugepages: [("2MB".to_owned(), 8 << 20)].into(), ..Resources::default() };
    subject.runtime.update_container_resources(&id, &more).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "8388608\n");
    // Beside them, who asks for nothing has every processor.
    let free = subject.start(&sandbox, &subject.container("free", &["sleep", "1000"])).await.unwrap();
    let every = std::thread::available_parallelism().unwrap().get();
    assert_eq!(exec(&subject, &free, "grep -c ^processor /proc/cpuinfo").await.1, format!("{every}\n"));
    assert_eq!(exec(&subject, &free, processors).await.1 == "0\n", every == 1);
    let none = Resources { cpuset_cpus: "4000".into(), ..Resources::default() };
    let refused = subject.runtime.update_container_resources(&id, &none).await.unwrap_err().to_string();
    assert!(refused.contains("cpuset"), "{refused}");
    house.close(subject).await;
}

/// Where there is a cgroup of this name.
fn places(name: &str) -> Vec<String> {
    let mut found: Vec<String> =
        sh(&format!("find /sys/fs/cgroup -type d -name {name} 2>/dev/null || true")).lines().map(str::to_owned).collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn cgroups_that_were_made_for_a_caller_go_with_the_last_pod_in_them() {
    let house = House::new("callers");
    let subject = house.open().await;
    let name = |name: &str| format!("{}-{name}", house.options.cgroup_root);
    let (made, given) = (name("made"), name("given"));
    let run = |pod: &str, parent: &str| {
        let config = PodSandboxConfig { cgroup_parent: format!("/{parent}/below/{pod}"), ..subject.pod(pod) };
        let runtime = subject.runtime.clone();
        async move { runtime.run_pod_sandbox(&config).await.unwrap() }
    };
    let (first, second) = (run("first", &made).await, run("second", &made).await);
    subject.runtime.remove_pod_sandbox(&first).await.unwrap();
    assert!(!places(&made).is_empty(), "the second one is in it");
    // What the caller has made himself is his.
    let mount = places(&made).remove(0);
    let mount = mount.strip_suffix(&made).unwrap();
    std::fs::create_dir(Path::new(mount).join(&given)).unwrap();
    let third = run("third", &given).await;
    subject.runtime.remove_pod_sandbox(&third).await.unwrap();
    let left = places(&given);
    sh(&format!("find /sys/fs/cgroup -depth -type d -path '*/{given}*' -exec rmdir {{}} +"));
    assert_eq!(left, [format!("{mount}{given}")]);
    subject.runtime.stop_pod_sandbox(&second).await.unwrap();
    subject.runtime.remove_pod_sandbox(&second).await.unwrap();
    assert_eq!(places(&made), [""; 0]);
    run("fourth", &made).await;
    house.close(subject).await;
    assert_eq!(places(&made), [""; 0], "and with a reset");
}
