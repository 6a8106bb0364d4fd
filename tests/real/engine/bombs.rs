//! Bombs in one pod: the daemon, the shims and the other pods go on as if there were none.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::small_disk::SmallDisk;

/// A pod that has nothing to do with the bomb.
struct Neighbour {
    id: String,
}

impl Neighbour {
    async fn start(subject: &Subject) -> Self {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("neighbour")).await.unwrap();
        Self { id: subject.start(&sandbox, &subject.container("main", &["sleep", "100000"])).await.unwrap() }
    }

    /// It runs, commands run in it, and pods come and go beside it.
    async fn is_well(&self, subject: &Subject, round: &str) {
        assert_eq!(subject.runtime.container_status(&self.id).await.unwrap().state, ContainerState::Running);
        assert_eq!(exec(subject, &self.id, "echo well").await.1, "well\n");
        let (code, text) = run(subject, &subject.pod(round), script(subject, "echo new; exit 3")).await;
        assert_eq!((code, text.as_str()), (3, "new\n"));
        let stats = subject.runtime.container_stats().await.unwrap();
        assert!(stats.iter().any(|one| one.id == self.id), "{stats:?}");
    }
}

/// Starts the bomb in a pod of its own.
async fn drop_bomb(subject: &Subject, pod: &PodSandboxConfig, config: &ContainerConfig) -> (String, String) {
    let sandbox = subject.runtime.run_pod_sandbox(pod).await.unwrap();
    let id = subject.start(&sandbox, config).await.unwrap();
    (sandbox, id)
}

/// Stopped and removed as any other.
async fn clear_away(house: &House, subject: &Subject, (sandbox, id): &(String, String), before: &[i32]) {
    subject.runtime.stop_container(id, Duration::ZERO).await.unwrap();
    assert_eq!(subject.runtime.container_status(id).await.unwrap().state, ContainerState::Exited);
    subject.runtime.remove_pod_sandbox(sandbox).await.unwrap();
    wait_for("nothing of it runs any more", || processes_of(house) == before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_fills_its_own_pod_only() {
    let mut house = House::new("forks");
    // A pod's own, where it says nothing.
    house.options.pod_pids_limit = 80;
    let subject = house.open().await;
    let neighbour = Neighbour::start(&subject).await;
    let before = processes_of(&house);
    // A shell that cannot fork ends: what it made is there to stay, and so is the first process.
    let fork = "for i in 1 2 3 4; do sh -c 'while :; do sleep 1000 & done' & done; while :; do wait; sleep 1; done 2>/dev/null";
    let bomb = script(&subject, fork);
    let bomb = drop_bomb(&subject, &subject.pod("bomb"), &bomb).await;
    wait_for("it has as many processes as it may have", || processes_of(&house).len() >= before.len() + 60).await;
    neighbour.is_well(&subject, "meanwhile").await;
    assert!(processes_of(&house).len() <= before.len() + 80, "not more than it may have");
    clear_away(&house, &subject, &bomb, &before).await;
    neighbour.is_well(&subject, "after").await;
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_takes_its_own_memory_only() {
    let house = House::new("memory");
    let subject = house.open().await;
    let neighbour = Neighbour::start(&subject).await;
    let before = processes_of(&house);
    // In processes, and in files that are kept in memory; again and again where only one process is killed for it.
    let text = "while :; do for i in 1 2 3 4; do busybox tail /dev/zero & done; busybox dd if=/dev/zero of=/dev/shm/x bs=1M; wait; done 2>/dev/null";
    let mut config = script(&subject, text);
    config.resources = Resources { memory_limit_bytes: 24 << 20, ..Resources::default() };
    let bomb = drop_bomb(&subject, &subject.pod("bomb"), &config).await;
    let counter =
        || everyday::cgroup_file(&house, "memory", &format!("burstable/poduid-bomb/{}", bomb.1), ("memory.oom_control", "memory.events"));
    let kills = || counter().lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u32>().ok()).unwrap_or(0);
    wait_for("the kernel has killed some of it", || kills() > 2).await;
    neighbour.is_well(&subject, "meanwhile").await;
    clear_away(&house, &subject, &bomb, &before).await;
    neighbour.is_well(&subject, "after").await;
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_bomb_fills_no_more_than_its_share() {
    let mut house = House::new("logbomb");
    (house.options.log_max_bytes, house.options.log_max_files) = (64 << 10, 3);
    let subject = house.open().await;
    let neighbour = Neighbour::start(&subject).await;
    let before = processes_of(&house);
    let text = "yes out & yes err >&2 & yes 'no end of line' | busybox tr -d '\\n'";
    let bomb = drop_bomb(&subject, &subject.pod("bomb"), &script(&subject, text)).await;
    let log = subject.runtime.container_status(&bomb.1).await.unwrap().log_path;
    let start = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        let files = std::fs::read_dir(log.parent().unwrap()).into_iter().flatten().flatten();
        let found: Vec<_> = files.filter_map(|entry| entry.metadata().ok()).collect();
        let bytes: u64 = found.iter().map(std::fs::Metadata::len).sum();
        // One record may lie over the end of each.
        assert!(found.len() <= 3 && bytes < 3 * ((64 << 10) + (20 << 10)), "{} files of {bytes} bytes", found.len());
        seen.extend(found.iter().map(|one| (one.ino(), one.mtime_nsec())));
        assert!(start.elapsed() < PATIENCE, "it does not rotate");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    neighbour.is_well(&subject, "meanwhile").await;
    clear_away(&house, &subject, &bomb, &before).await;
    neighbour.is_well(&subject, "after").await;
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_bomb_stops_no_other_pod_and_no_daemon() {
    let disk = SmallDisk::new(64 << 20);
    let mut house = House::new("diskbomb");
    house.options.root_dir = disk.mount.join("root");
    let subject = house.open().await;
    let neighbour = Neighbour::start(&subject).await;
    let gate = house.dir.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let mut ends = script(&subject, "while [ ! -e /gate/open ]; do sleep 0.01; done; exit 7");
    ends.mounts = vec![Mount { container_path: "/gate".into(), host_path: gate.clone(), ..Mount::default() }];
    let (_, ends) = drop_bomb(&subject, &subject.pod("ends"), &ends).await;
    let before = processes_of(&house);
    // With large files, then with small ones, then with none at all: until there is not an inode left.
    let text = "i=0; while busybox dd if=/dev/zero of=/large$i bs=64k count=64; do i=$((i+1)); done 2>/dev/null; \
        while echo x > /small$i; do i=$((i+1)); done 2>/dev/null; echo full; sleep 100000";
    let bomb = drop_bomb(&subject, &subject.pod("bomb"), &script(&subject, text)).await;
    let log = subject.runtime.container_status(&bomb.1).await.unwrap().log_path;
    wait_for("the disk is full", || log_text(&log).contains("full")).await;
    assert!(disk.free() < 64 << 10, "{} bytes are free", disk.free());
    // What runs goes on; what cannot be kept is refused, and leaves nothing.
    assert_eq!(exec(&subject, &neighbour.id, "echo well").await.1, "well\n");
    let refused = subject.runtime.run_pod_sandbox(&subject.pod("late")).await;
    if let Ok(id) = &refused {
        subject.runtime.remove_pod_sandbox(id).await.unwrap();
    }
    assert!(refused.is_ok() || refused.as_ref().is_err_and(|error| error.to_string().contains("No space left")), "{refused:?}");
    assert_eq!(subject.runtime.list_pod_sandboxes().await.unwrap().len(), 3);
    // An end is known though it cannot be written down, also to the next daemon.
    std::fs::write(gate.join("open"), "").unwrap();
    assert_eq!(subject.until_exited(&ends).await.exit_code, 7);
    drop(subject);
    let subject = house.open().await;
    assert_eq!(subject.runtime.container_status(&ends).await.unwrap().exit_code, 7);
    assert_eq!(subject.runtime.container_status(&bomb.1).await.unwrap().state, ContainerState::Running);
    assert_eq!(exec(&subject, &neighbour.id, "echo well").await.1, "well\n");
    subject.runtime.stop_container(&bomb.1, Duration::ZERO).await.unwrap();
    subject.runtime.remove_pod_sandbox(&bomb.0).await.unwrap();
    wait_for("its room is free again", || disk.free() > 32 << 20).await;
    wait_for("nothing of it runs any more", || processes_of(&house).len() < before.len()).await;
    neighbour.is_well(&subject, "after").await;
    house.close(subject).await;
}
