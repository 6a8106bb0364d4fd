//! Shims that hang, daemons that were away.

use podbay::runtime::{shim, wire};

use super::*;
use crate::hosts::sh;
use crate::small_disk::SmallDisk;

/// The process id of a sandbox's shim, from its record.
pub(super) fn shim_of(house: &House, sandbox: &str) -> rustix::process::Pid {
    let path = house.options.root_dir.join("sandboxes").join(sandbox).join("sandbox.json");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    rustix::process::Pid::from_raw(i32::try_from(record["shim_pid"].as_i64().unwrap()).unwrap()).unwrap()
}

/// A shim that answers nothing while this lives.
struct Hung(rustix::process::Pid);

impl Hung {
    fn new(pid: rustix::process::Pid) -> Self {
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, rustix::process::Signal::CONT).ok();
    }
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} takes for ever"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_hangs_holds_nobody_else_up() {
    let house = House::new("hung");
    let subject = house.open().await;
    let start = async |name: &str| {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod(name)).await.unwrap();
        let id = subject.start(&sandbox, &subject.container("main", &["sleep", "1000"])).await.unwrap();
        (sandbox, id)
    };
    let (good, runs) = start("good").await;
    let (bad, stuck) = start("bad").await;
    let (slow, late) = start("slow").await;
    let before = processes_of(&house);
    drop(subject);
    let hung = Hung::new(shim_of(&house, &bad));
    let pause = Hung::new(shim_of(&house, &slow));
    let subject = soon("opening the engine", house.open()).await;
    assert_eq!(exec(&subject, &runs, "echo here").await.1, "here\n");
    // What is not known to have ended has not.
    for (sandbox, id) in [(&bad, &stuck), (&slow, &late), (&good, &runs)] {
        assert_eq!(subject.runtime.pod_sandbox_status(sandbox).await.unwrap().state, SandboxState::Ready);
        assert_eq!(subject.runtime.container_status(id).await.unwrap().state, ContainerState::Running);
    }
    assert_eq!(processes_of(&house), before);
    // Killed without its shim.
    soon("stopping", subject.runtime.stop_container(&stuck, Duration::from_millis(50))).await.unwrap();
    assert_eq!(subject.runtime.container_status(&stuck).await.unwrap().exit_code, 137);
    soon("removing", subject.runtime.remove_pod_sandbox(&bad)).await.unwrap();
    drop(hung);
    // One that comes to itself is heard again.
    drop(pause);
    soon("hearing it again", async {
        while !matches!(subject.runtime.exec_sync(&late, &["true".to_owned()], PATIENCE).await, Ok(output) if output.exit_code == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let gone = subject.start(&slow, &subject.container("short", &["sh", "-c", "exit 7"])).await.unwrap();
    assert_eq!(subject.until_exited(&gone).await.exit_code, 7);
    subject.runtime.stop_container(&late, Duration::ZERO).await.unwrap();
    assert_eq!(subject.until_exited(&late).await.exit_code, 137);
    house.close(subject).await;
}

#[tokio::test]
async fn what_a_container_of_shared_processes_left_is_cleared_away_after_a_restart() {
    let house = House::new("left");
    let subject = house.open().await;
    let mut pod = subject.pod("left");
    pod.share_process_namespace = true;
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let gate = house.dir.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let text = "busybox setsid sleep 99999 > /dev/null 2>&1 & while [ ! -e /gate/open ]; do sleep 0.01; done";
    let mut config = script(&subject, text);
    config.mounts = vec![Mount { container_path: "/gate".into(), host_path: gate.clone(), ..Mount::default() }];
    let id = subject.start(&sandbox, &config).await.unwrap();
    let left = || {
        let command = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        processes_of(&house).iter().any(|pid| command(pid).contains("99999"))
    };
    wait_for("it has started another", left).await;
    drop(subject);
    std::fs::write(gate.join("open"), "").unwrap();
    let record = house.options.root_dir.join("sandboxes").join(&sandbox).join("containers").join(&id).join("exit");
    wait_for("the shim writes the exit record", || record.exists()).await;
    assert!(left());
    let subject = house.open().await;
    wait_for("what it left is gone", || !left()).await;
    subject.runtime.remove_container(&id).await.unwrap();
    house.close(subject).await;
}

/// A mounted file system whose server answers nothing while this lives.
struct DeadServer {
    at: PathBuf,
    _connection: std::fs::File,
}

impl DeadServer {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let connection = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&connection);
        let options = std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0")).unwrap();
        rustix::mount::mount("dead", &at, "fuse", rustix::mount::MountFlags::empty(), options.as_c_str()).unwrap();
        Self { at, _connection: connection }
    }
}

impl Drop for DeadServer {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_hangs_makes_no_other_container_wait() {
    let house = House::new("slowstart");
    let subject = house.open().await;
    let dead = DeadServer::mount(house.dir.path().join("dead"));
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("slowstart")).await.unwrap();
    let gate = house.dir.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let mount = |container: &str, host: &Path| Mount { container_path: container.into(), host_path: host.into(), ..Mount::default() };
    let text = "while [ ! -e /gate/open ]; do sleep 0.01; done; \
        busybox dd if=/dev/zero bs=65536 count=4 2>/dev/null | busybox tr '\\0' x; echo; echo done";
    let mut talks = script(&subject, text);
    talks.mounts = vec![mount("/gate", &gate)];
    let talks = subject.start(&sandbox, &talks).await.unwrap();
    let mut stuck = subject.container("stuck", &["true"]);
    stuck.mounts = vec![mount("/data", &dead.at.join("volume"))];
    let stuck = subject.runtime.create_container(&sandbox, &stuck).await.unwrap();
    let (runtime, id) = (subject.runtime.clone(), stuck.clone());
    let starting = tokio::spawn(async move { runtime.start_container(&id).await });
    let cgroup = format!("burstable/poduid-slowstart/{stuck}");
    let inside = || everyday::cgroup_file(&house, "memory", &cgroup, ("cgroup.procs", "cgroup.procs"));
    wait_for("the start is under way", || !inside().is_empty()).await;
    // Its sibling is served: commands, output beyond a pipe's size, its end.
    assert_eq!(soon("a command", exec(&subject, &talks, "echo here")).await.1, "here\n");
    std::fs::write(gate.join("open"), "").unwrap();
    let ended = subject.until_exited(&talks).await;
    assert!(log_text(&ended.log_path).ends_with("done\n"));
    // And it can be told to stop while it has not even started.
    soon("stopping", subject.runtime.stop_container(&stuck, Duration::ZERO)).await.unwrap();
    subject.until_exited(&stuck).await;
    soon("the start", starting).await.unwrap().ok();
    drop(dead);
    house.close(subject).await;
}

/// What the shim of a sandbox says it has.
fn listed(house: &House, sandbox: &str) -> Vec<wire::Running> {
    let directory = house.options.run_dir.join("sandboxes").join(sandbox);
    match shim::ask(&directory, &wire::List {}.into(), &[]).unwrap().response {
        wire::Response::Containers(all) => all.all,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_shim_forgets_removed_containers() {
    let house = House::new("forget");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("forget")).await.unwrap();
    for number in 0..10 {
        let id = subject.start(&sandbox, &subject.container(&format!("c{number}"), &["true"])).await.unwrap();
        subject.until_exited(&id).await;
        subject.runtime.remove_container(&id).await.unwrap();
    }
    wait_for("the shim knows none of them any more", || listed(&house, &sandbox).is_empty()).await;
    house.close(subject).await;
}

#[tokio::test]
async fn a_start_that_fails_after_its_caller_left_is_on_record() {
    let house = House::new("orphan");
    let subject = house.open().await;
    let dead = DeadServer::mount(house.dir.path().join("dead"));
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("orphan")).await.unwrap();
    let record = house.dir.path().join("exit");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let open = wire::OpenTree { slot: 0, source: text(&dead.at.join("volume")), recursive: false, id_mapped: false, make: true };
    let launch = wire::Launch { record: text(&record), steps: vec![open.into()], ..wire::Launch::default() };
    let run = wire::Run { id: "orphan".into(), launch };
    shim::tell(&house.options.run_dir.join("sandboxes").join(&sandbox), &run.into()).unwrap();
    // An engine that comes now finds it on its way, not lost.
    wait_for("it is on its way", || listed(&house, &sandbox).iter().any(|one| one.id == "orphan" && one.exit.is_none())).await;
    drop(dead);
    wait_for("its end is on record", || record.exists()).await;
    let exit = wire::parse_record(&std::fs::read_to_string(&record).unwrap()).unwrap();
    assert_eq!(exit.code, 128);
    assert!(listed(&house, &sandbox).is_empty());
    house.close(subject).await;
}

/// A file system on which every change waits while this lives.
struct Frozen<'a>(&'a SmallDisk);

impl<'a> Frozen<'a> {
    fn new(disk: &'a SmallDisk) -> Self {
        sh(&format!("fsfreeze -f {}", disk.mount.display()));
        Self(disk)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        sh(&format!("fsfreeze -u {}", self.0.mount.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_logs_that_hangs_holds_no_start_up() {
    let house = House::new("frozen");
    let disk = SmallDisk::new(16 << 20);
    let subject = Subject { logs: disk.mount.clone(), ..house.open().await };
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("frozen")).await.unwrap();
    let id = subject.runtime.create_container(&sandbox, &script(&subject, "echo said; sleep 1000")).await.unwrap();
    let frozen = Frozen::new(&disk);
    let started = tokio::time::timeout(PATIENCE, subject.runtime.start_container(&id)).await;
    let (code, said) = if started.is_ok() { exec(&subject, &id, "echo in").await } else { Default::default() };
    drop(frozen);
    started.expect("it waits for the disk").unwrap();
    assert_eq!((code, said.as_str()), (0, "in\n"));
    let path = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("the log is written once it can be", || log_text(&path) == "said\n").await;
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_while_its_sandbox_goes_is_gone_with_it() {
    let house = House::new("going");
    let subject = house.open().await;
    for round in 0..20 {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("going")).await.unwrap();
        let configs: Vec<_> = (0..4).map(|one| subject.container(&format!("c{one}"), &["true"])).collect();
        let made = configs.iter().map(|config| subject.runtime.create_container(&sandbox, config));
        let (_, removed) = tokio::join!(futures::future::join_all(made), subject.runtime.remove_pod_sandbox(&sandbox));
        removed.unwrap();
        assert_eq!(subject.runtime.list_containers().await.unwrap().len(), 0, "round {round}");
    }
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_change_at_a_start_are_kept_with_it() {
    let house = House::new("both");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("both")).await.unwrap();
    let wanted = Resources { memory_limit_bytes: 64 << 20, ..Resources::default() };
    let mut ids = Vec::new();
    for one in 0..20 {
        let id = subject.runtime.create_container(&sandbox, &subject.container(&format!("c{one}"), &["sleep", "1000"])).await.unwrap();
        let (started, changed) =
            tokio::join!(subject.runtime.start_container(&id), subject.runtime.update_container_resources(&id, &wanted));
        started.unwrap();
        changed.unwrap();
        ids.push(id);
    }
    drop(subject);
    let again = house.open().await;
    for id in ids {
        let status = again.runtime.container_status(&id).await.unwrap();
        assert_eq!((status.state, status.resources.memory_limit_bytes), (ContainerState::Running, 64 << 20));
    }
    house.close(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_started_while_its_sandbox_stops_does_not_run_on() {
    let house = House::new("stopping");
    let subject = house.open().await;
    for round in 0..20 {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("stopping")).await.unwrap();
        let id = subject.runtime.create_container(&sandbox, &subject.container("late", &["sleep", "1000"])).await.unwrap();
        let (_, stopped) = tokio::join!(subject.runtime.start_container(&id), subject.runtime.stop_pod_sandbox(&sandbox));
        stopped.unwrap();
        assert!(processes_of(&house).is_empty(), "round {round}");
        assert_ne!(subject.runtime.container_status(&id).await.unwrap().state, ContainerState::Running, "round {round}");
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    house.close(subject).await;
}
