//! What images and charts take for granted.

use super::*;

#[tokio::test]
async fn everybody_can_open_its_standard_streams() {
    let house = House::new("streams");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("streams")).await.unwrap();
    let write = "echo out > /dev/stdout && echo err > /dev/stderr && cat /dev/stdin < /dev/null && echo fine";
    for (name, tty) in [("plain", false), ("tty", true)] {
        let mut config = subject.container(name, &["sh", "-c", &format!("{write}; sleep 1000")]);
        config.security.run_as_user = Some(1000);
        config.security.run_as_group = Some(1000);
        config.tty = tty;
        let id = subject.start(&sandbox, &config).await.unwrap();
        let log = subject.runtime.container_status(&id).await.unwrap().log_path;
        wait_for("the container has tried", || log_text(&log).contains("fine") || log_text(&log).contains("denied")).await;
        let text = log_text(&log);
        assert!(text.contains("out") && text.contains("err") && !text.contains("denied"), "{name}: {text}");
        let (code, text) = exec(&subject, &id, write).await;
        assert_eq!((code, text.contains("out") && text.contains("err")), (0, true), "{name}: {text}");
        let command = ["sh", "-c", write].map(str::to_owned).to_vec();
        let request = ExecRequest { command, tty: true, stdin: false, stdout: true, stderr: false };
        let session = subject.runtime.exec(&id, &request).await.unwrap();
        assert_eq!(session.exit.await.unwrap(), Ok(0), "{name}: a command with a terminal");
    }
    house.close(subject).await;
}

/// A device node of the host below a directory of /dev, for a while.
struct Node(PathBuf);

impl Node {
    fn new() -> Self {
        let dir = PathBuf::from(format!("/dev/podbay-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("deep")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("deep/node"), rustix::fs::FileType::CharacterDevice, mode, device).unwrap();
        Self(dir)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test]
async fn privileged_containers_have_the_devices_in_directories_too() {
    let house = House::new("devdirs");
    let subject = house.open().await;
    let node = Node::new();
    let path = node.0.join("deep/node");
    let text = format!("exec 2>&1; echo x > {} && echo opened; ls /dev/pts | busybox grep -c '^[0-9]'; ls /dev/console", path.display());
    let mut config = script(&subject, &text);
    config.security.privileged = true;
    let (_, text) = run(&subject, &subject.pod("devdirs"), config).await;
    assert!(text.starts_with("opened\n0\n") && text.contains("/dev/console: No such"), "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn a_file_may_be_hidden_behind_the_hosts_null_device() {
    let house = House::new("hide");
    let subject = house.open().await;
    let text = "cat /etc/passwd && echo x > /etc/passwd && echo empty; busybox chmod 666 /etc/passwd && echo CHANGED; \
        cat /data/node; cat /data/node && echo OPENED";
    let mut config = script(&subject, text);
    let volume = house.dir.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, volume.join("node"), rustix::fs::FileType::CharacterDevice, mode, device).unwrap();
    let mount = |container: &str, host: &Path| Mount { container_path: container.into(), host_path: host.into(), ..Mount::default() };
    config.mounts = vec![mount("/etc/passwd", Path::new("/dev/null")), mount("/data", &volume)];
    let (_, text) = run(&subject, &subject.pod("hide"), config).await;
    assert!(text.contains("empty") && !text.contains("CHANGED") && !text.contains("OPENED"), "{text}");
    house.close(subject).await;
}

/// A 32-bit program: writes "32 bits", tries to `keyctl`, and ends with that call's error number.
#[cfg(target_arch = "x86_64")]
fn program_of_32_bits() -> Vec<u8> {
    let base: u32 = 0x0804_8000;
    let text = b"32 bits\n";
    let code_at = base + 84;
    let mut code: Vec<u8> = Vec::new();
    let set = |code: &mut Vec<u8>, register: u8, value: u32| {
        code.push(0xb8 + register);
        code.extend_from_slice(&value.to_le_bytes());
    };
    let call = [0xcd, 0x80];
    // write(1, text, 8): eax, ebx, ecx, edx.
    let length = 5 * 4 + 2 + 5 + 2 + 2 + 2 + 5 + 2;
    for (register, value) in [(0, 4), (3, 1), (1, code_at + length), (2, 8)] {
        set(&mut code, register, value);
    }
    code.extend_from_slice(&call);
    // keyctl(1): refused.
    set(&mut code, 0, 288);
    code.extend_from_slice(&call);
    code.extend_from_slice(&[0xf7, 0xd8]); // neg eax
    code.extend_from_slice(&[0x89, 0xc3]); // mov ebx, eax
    set(&mut code, 0, 1);
    code.extend_from_slice(&call);
    assert_eq!(code.len(), length as usize);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 3] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    for word in [1, code_at, 52, 0, 0] {
        elf.extend_from_slice(&u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    let size = 84 + length + u32::try_from(text.len()).unwrap();
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        elf.extend_from_slice(&u32::to_le_bytes(word));
    }
    elf.extend_from_slice(&code);
    elf.extend_from_slice(text);
    elf
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn programs_of_32_bits_run_under_the_same_rules() {
    let mut house = House::new("bits");
    let image = house.dir.path().join("bits");
    busybox(&image);
    std::fs::write(image.join("bin/old"), program_of_32_bits()).unwrap();
    std::fs::set_permissions(image.join("bin/old"), std::fs::Permissions::from_mode(0o755)).unwrap();
    house.images.insert("bits".into(), image);
    let subject = house.open().await;
    let mut config = subject.container("main", &["old"]);
    config.image = "bits".into();
    // EPERM, as for a program of 64 bits.
    assert_eq!(run(&subject, &subject.pod("bits"), config).await, (1, "32 bits\n".into()));
    house.close(subject).await;
}

/// A file of a pod's, or a parent's, cgroup.
pub(super) fn cgroup_file(house: &House, controller: &str, path: &str, file: (&str, &str)) -> String {
    let unified = podbay::runtime::cgroup::Tree::detect(&house.options.cgroup_root).unwrap().is_unified();
    let (controller, file) = if unified { ("", file.1) } else { (controller, file.0) };
    let path = Path::new("/sys/fs/cgroup").join(controller).join(&house.options.cgroup_root).join(path).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display())).trim().to_owned()
}

#[tokio::test]
async fn a_pod_has_a_bound_on_its_processes() {
    let mut house = House::new("bound");
    house.options.pod_pids_limit = 20;
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("bound")).await.unwrap();
    assert_eq!(cgroup_file(&house, "pids", "burstable/poduid-bound", ("pids.max", "pids.max")), "20");
    let bomb = script(&subject, "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; echo all");
    let id = subject.start(&sandbox, &bomb).await.unwrap();
    let ended = subject.until_exited(&id).await;
    assert!(!log_text(&ended.log_path).contains("all"), "{}", log_text(&ended.log_path));
    // A pod that says how many has so many.
    let mut own = subject.pod("own");
    own.resources.pids_limit = 30;
    subject.runtime.run_pod_sandbox(&own).await.unwrap();
    assert_eq!(cgroup_file(&house, "pids", "burstable/poduid-own", ("pids.max", "pids.max")), "30");
    house.close(subject).await;
}

#[tokio::test]
async fn burstable_pods_weigh_what_they_request_and_all_pods_what_the_node_has() {
    let house = House::new("weight");
    let subject = house.open().await;
    let file = ("cpu.shares", "cpu.weight");
    let unified = podbay::runtime::cgroup::Tree::detect("podbay").unwrap().is_unified();
    let value = |shares: u64| if unified { 1 + (shares - 2) * 9999 / 262_142 } else { shares }.to_string();
    let mut sandboxes = Vec::new();
    for (name, shares) in [("one", 512), ("two", 1024)] {
        let mut pod = subject.pod(name);
        pod.resources.cpu_shares = shares;
        sandboxes.push(subject.runtime.run_pod_sandbox(&pod).await.unwrap());
    }
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!(cgroup_file(&house, "cpu", "", file), value(cpus * 1024));
    assert_eq!(cgroup_file(&house, "cpu", "burstable", file), value(1536));
    subject.runtime.remove_pod_sandbox(&sandboxes[0]).await.unwrap();
    assert_eq!(cgroup_file(&house, "cpu", "burstable", file), value(1024));
    subject.runtime.stop_pod_sandbox(&sandboxes[1]).await.unwrap();
    assert_eq!(cgroup_file(&house, "cpu", "burstable", file), value(2));
    house.close(subject).await;
}

#[tokio::test]
async fn figures_are_the_kernels() {
    let house = House::new("figures");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("figures")).await.unwrap();
    let mut config = subject.container("listens", &["nc", "-l", "-p", "8080"]);
    config.resources.pids_limit = 50;
    let id = subject.start(&sandbox, &config).await.unwrap();
    let (_, limit) = exec(&subject, &id, "ulimit -n").await;
    let start = Instant::now();
    let (own, pod) = loop {
        let all = subject.runtime.figures().await.unwrap();
        let (own, pod) = (all[&id].clone(), all[&sandbox].clone());
        let of = |metric: &str| own.iter().find(|one| one.metric == metric).map(|one| one.value);
        if of("processes") == Some(1) && of("sockets") > Some(0) && of("file_descriptors") > Some(3) {
            break (own, pod);
        }
        assert!(start.elapsed() < PATIENCE, "{own:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let value = |metric: &str| own.iter().find(|one| one.metric == metric).map(|one| one.value);
    assert_eq!((value("threads"), value("threads_max")), (Some(1), Some(50)));
    assert_eq!(value("ulimits_soft").map(|value| value.to_string()).as_deref(), Some(limit.trim()));
    let disk = rustix::fs::statvfs(&house.options.root_dir).unwrap();
    assert_eq!(value("fs_limit_bytes"), Some(disk.f_blocks * disk.f_frsize));
    assert_eq!(value("fs_inodes_total"), Some(disk.f_files));
    for metric in ["memory_usage_bytes", "memory_max_usage_bytes", "memory_failures_total", "memory_rss", "fs_inodes_free"] {
        assert!(value(metric).is_some_and(|value| value > 0), "{metric}: {own:?}");
    }
    let together = |metric: &str| pod.iter().find(|one| one.metric == metric).is_some_and(|one| one.value > 1);
    assert!(together("processes") && together("threads"), "the shim is the pod's: {pod:?}");
    house.close(subject).await;
}
