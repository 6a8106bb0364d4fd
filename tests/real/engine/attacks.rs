//! Ways out of a container that must stay shut.

use super::*;

/// As many descriptors as a shim has open, and some more.
const DESCRIPTORS: std::ops::Range<u32> = 3..40;
const UP: &str = "../../../../../../../../../../../..";

/// Runs this test of `attacks` once more where cgroup v2 is mounted, and says whether that is done with it.
fn done_on_unified(name: &str) -> bool {
    if podbay::runtime::cgroup::Tree::detect("podbay").unwrap().is_unified() {
        return false;
    }
    let status = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\" \"$1\" --exact --nocapture")
        .arg(std::env::current_exe().unwrap())
        .arg(format!("engine::attacks::{name}"))
        .status()
        .unwrap();
    assert!(status.success(), "{name} on cgroup v2");
    true
}

/// A file of the host at a path that no container has.
fn secret(house: &House) -> PathBuf {
    let path = house.dir.path().join("secret");
    std::fs::write(&path, "HOST").unwrap();
    path
}

#[tokio::test]
async fn a_working_directory_does_not_lead_out_through_a_descriptor() {
    if done_on_unified("a_working_directory_does_not_lead_out_through_a_descriptor") {
        return;
    }
    let house = House::new("cwd");
    let subject = house.open().await;
    let secret = secret(&house);
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("cwd")).await.unwrap();
    for number in DESCRIPTORS {
        let mut config = subject.container(&format!("fd{number}"), &["cat", &format!("{UP}{}", secret.display())]);
        config.working_dir = format!("/proc/self/fd/{number}");
        let Ok(id) = subject.start(&sandbox, &config).await else { continue };
        let ended = subject.until_exited(&id).await;
        assert!(!log_text(&ended.log_path).contains("HOST"), "descriptor {number}");
        panic!("started in descriptor {number}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_working_directory_does_not_lead_a_command_out_through_a_descriptor() {
    if done_on_unified("a_working_directory_does_not_lead_a_command_out_through_a_descriptor") {
        return;
    }
    let house = House::new("execcwd");
    let subject = house.open().await;
    let secret = secret(&house);
    let volume = house.dir.path().join("volume");
    std::fs::create_dir_all(volume.join("w")).unwrap();
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("execcwd")).await.unwrap();
    let mut config = subject.container("main", &["sleep", "1000"]);
    config.working_dir = "/vol/w".into();
    config.mounts = vec![Mount { container_path: "/vol".into(), host_path: volume.clone(), ..Mount::default() }];
    let id = subject.start(&sandbox, &config).await.unwrap();
    let command = ["cat".to_owned(), format!("{UP}{}", secret.display())];
    std::fs::remove_dir(volume.join("w")).unwrap();
    for number in DESCRIPTORS {
        symlink(format!("/proc/self/fd/{number}"), volume.join("w")).unwrap();
        let result = subject.runtime.exec_sync(&id, &command, PATIENCE).await;
        std::fs::remove_file(volume.join("w")).unwrap();
        if let Ok(output) = result {
            panic!("ran in descriptor {number}: {}", String::from_utf8_lossy(&output.stdout));
        }
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_command_is_not_found_through_a_descriptor() {
    if done_on_unified("a_command_is_not_found_through_a_descriptor") {
        return;
    }
    let house = House::new("args");
    let subject = house.open().await;
    let program = house.dir.path().join("echo");
    std::fs::copy("/bin/busybox", &program).unwrap();
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("args")).await.unwrap();
    let inside = subject.start(&sandbox, &subject.container("main", &["sleep", "1000"])).await.unwrap();
    for number in DESCRIPTORS {
        let path = format!("/proc/self/fd/{number}/{UP}{}", program.display());
        let started = subject.start(&sandbox, &subject.container(&format!("fd{number}"), &[&path, "OUT"])).await;
        assert!(started.is_err(), "started through descriptor {number}");
        let ran = subject.runtime.exec_sync(&inside, &[path, "OUT".into()], PATIENCE).await;
        assert!(ran.is_err(), "ran through descriptor {number}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_missing_working_directory_is_made_in_the_container() {
    let mut house = House::new("makecwd");
    let image = house.dir.path().join("linked");
    busybox(&image);
    symlink("/tmp", image.join("link")).unwrap();
    house.images.insert("linked".into(), image);
    let subject = house.open().await;
    let cases = [("/a/b/c", "/a/b/c\n"), ("/link/x/y", "/tmp/x/y\n"), ("/tmp/", "/tmp\n"), ("tmp/z", "/tmp/z\n")];
    for ((cwd, expected), readonly_rootfs) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut config = script(&subject, "busybox pwd -P");
        config.image = "linked".into();
        config.working_dir = cwd.into();
        config.security.readonly_rootfs = readonly_rootfs;
        let name = format!("makecwd{readonly_rootfs}{}", cwd.replace('/', "-").trim_end_matches('-'));
        let (code, text) = run(&subject, &subject.pod(&name), config).await;
        assert_eq!((code, text.as_str()), (0, expected), "{cwd}");
    }
    house.close(subject).await;
}

/// Tries to change the nodes of /dev to what they are: no harm where it succeeds.
const CHANGE: &str = "for d in /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /proc/self/fd/0; do \
    busybox chmod 666 $d && echo CHANGED $d; busybox chown 0:0 $d && echo OWNED $d; done; \
    echo x > /dev/null && cat /dev/null && busybox head -c 1 /dev/zero | busybox wc -c && echo works";

#[tokio::test]
async fn the_hosts_device_nodes_cannot_be_changed_from_a_container() {
    let house = House::new("nodes");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("nodes")).await.unwrap();
    let id = subject.start(&sandbox, &script(&subject, &format!("{CHANGE}; sleep 1000"))).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("the devices work", || log_text(&log).contains("works")).await;
    let (_, inside) = exec(&subject, &id, CHANGE).await;
    for text in [log_text(&log), inside] {
        assert!(!text.contains("CHANGED") && !text.contains("OWNED"), "{text}");
        assert!(text.contains("works"), "{text}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn the_first_process_of_shared_processes_has_nothing_to_take() {
    let house = House::new("init");
    let subject = house.open().await;
    let secret = secret(&house);
    let mut pod = subject.pod("init");
    pod.share_process_namespace = true;
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let mut debugger = subject.container("debugger", &["sleep", "1000"]);
    debugger.security.add_capabilities = vec!["SYS_PTRACE".into()];
    let debugger = subject.start(&sandbox, &debugger).await.unwrap();
    let plain = subject.start(&sandbox, &subject.container("plain", &["sleep", "1000"])).await.unwrap();
    let look = format!(
        "cat /proc/1/root{} /proc/1/cwd{}; ls -A /proc/1/root/; echo root; ls -A /proc/1/fd; echo fds; \
         touch /proc/1/root/x && echo WRITTEN; busybox grep -E '^(Cap|NoNew|Seccomp:|Uid)' /proc/1/status",
        secret.display(),
        secret.display()
    );
    let (_, text) = exec(&subject, &debugger, &look).await;
    assert!(!text.contains("HOST") && !text.contains("WRITTEN"), "{text}");
    assert!(text.contains("root\nfds\n"), "nothing in its root, nothing open: {text}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
    }
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    let (code, text) = exec(&subject, &plain, "ls /proc/1/root/").await;
    assert!(code != 0 && text.contains("Permission denied"), "{text}");
    // It still does what it is there for.
    let (_, orphans) = exec(&subject, &plain, "(sh -c 'exit 3' &) ; sleep 0.1; busybox ps -o stat,comm | busybox grep -c '^Z'").await;
    assert_eq!(orphans.trim(), "0");
    house.close(subject).await;
}

#[tokio::test]
async fn a_device_is_opened_by_no_node_that_a_container_makes() {
    if done_on_unified("a_device_is_opened_by_no_node_that_a_container_makes") {
        return;
    }
    let house = House::new("devices");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("devices")).await.unwrap();
    // On cgroup v1 it may mount the hierarchy; where its own root is there, nothing may be allowed again.
    let script = "mkdir /tmp/c; (mount -t cgroup -o devices x /tmp/c && echo a > /tmp/c/devices.allow) 2>/dev/null; \
                  mkdir /tmp/m && mount -t tmpfs none /tmp/m && mknod /tmp/m/kmsg c 1 11 && mknod /tmp/m/null c 1 3 \
                  && echo x > /tmp/m/null && echo NULL && dd if=/tmp/m/kmsg count=1 2>&1; echo end";
    let mut admin = subject.container("admin", &["sh", "-c", script]);
    admin.security.add_capabilities = vec!["SYS_ADMIN".into(), "MKNOD".into()];
    let id = subject.start(&sandbox, &admin).await.unwrap();
    let said = log_text(&subject.until_exited(&id).await.log_path);
    assert!(said.contains("NULL"), "a device that everybody has: {said}");
    assert!(said.contains("Operation not permitted") && said.contains("end"), "{said}");
    // A command run in it is held as well.
    let mut sleeper = subject.container("sleeper", &["sleep", "1000"]);
    sleeper.security = admin.security.clone();
    let id = subject.start(&sandbox, &sleeper).await.unwrap();
    let (_, out) = exec(&subject, &id, script).await;
    assert!(out.contains("NULL") && out.contains("Operation not permitted"), "{out}");
    // Who is privileged has the host's devices.
    let mut privileged = subject.container("privileged", &["sh", "-c", script]);
    privileged.security.privileged = true;
    let id = subject.start(&sandbox, &privileged).await.unwrap();
    let said = log_text(&subject.until_exited(&id).await.log_path);
    assert!(said.contains("NULL") && !said.contains("not permitted"), "{said}");
    house.close(subject).await;
}

/// Memory of the shims' own, KiB.
fn shim_kib(house: &House) -> u64 {
    let shims = processes_of(house).into_iter().filter(|pid| {
        // A container's own first process has another command line.
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("podbay-shim"))
    });
    let private = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
        value.and_then(|value| value.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    shims.map(private).sum()
}

#[tokio::test]
async fn memory_is_not_exhausted_by_what_a_command_says() {
    let house = House::new("talk");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("talk")).await.unwrap();
    let id = subject.start(&sandbox, &script(&subject, "sleep 100000")).await.unwrap();
    let command = ["sh", "-c", "head -c 40000000 /dev/zero & head -c 40000000 /dev/zero >&2; wait; exit 3"].map(str::to_owned);
    let said = subject.runtime.exec_sync(&id, &command, PATIENCE).await.unwrap();
    // Both together, with what is around them, are a message that a kubelet takes.
    let half = (8 << 20) - (32 << 10);
    assert_eq!((said.stdout.len(), said.stderr.len(), said.exit_code), (half, half, 3), "the rest is dropped, and it ends");
    house.close(subject).await;
}

#[tokio::test]
async fn memory_is_not_exhausted_by_who_attaches() {
    let house = House::new("memory");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("memory")).await.unwrap();
    let mut config = script(&subject, "while :; do echo \"a line that fills whatever keeps it for those who do not read\"; done");
    config.stdin = true;
    let id = subject.start(&sandbox, &config).await.unwrap();
    let request = ExecRequest { stdin: true, stdout: true, stderr: true, ..ExecRequest::default() };
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    let written = || std::fs::metadata(&log).map_or(0, |log| log.len());
    let moves_on = async || {
        let before = written();
        // The log begins anew when it is full.
        wait_for("the container writes on", || written() != before).await;
    };
    moves_on().await;
    let before = shim_kib(&house);
    // Nobody reads, everybody writes what is not read.
    let mut attached = Vec::new();
    let refused = loop {
        match subject.runtime.attach(&id, &request).await {
            Ok(session) => {
                let stdin = session.stdin.as_ref().unwrap();
                rustix::io::ioctl_fionbio(stdin, true).unwrap();
                while rustix::io::write(stdin, &[b'x'; 4096]).is_ok() {}
                attached.push(session);
            }
            Err(refused) => break refused.to_string(),
        }
        assert!(attached.len() < 100, "so many may attach");
        moves_on().await;
    };
    assert!(refused.contains("clients are attached already"), "{refused}");
    for _ in 0..50 {
        moves_on().await;
    }
    let after = shim_kib(&house);
    assert!(after < before + 1024, "{before} KiB before, {after} KiB with {} clients that do not read", attached.len());
    // Those that leave make room, however they leave.
    attached.truncate(3);
    let start = Instant::now();
    while let Err(cause) = subject.runtime.attach(&id, &request).await {
        assert!(start.elapsed() < PATIENCE, "{cause}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_console_link_does_not_lead_a_terminal_out() {
    let mut house = House::new("console");
    let secret = secret(&house);
    let volume = house.dir.path().join("dev");
    std::fs::create_dir_all(volume.join("pts")).unwrap();
    // A root with a link for a /dev as well.
    let image = house.dir.path().join("linked");
    busybox(&image);
    std::fs::remove_dir(image.join("dev")).unwrap();
    symlink("/tmp", image.join("dev")).unwrap();
    house.images.insert("linked".into(), image);
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("console")).await.unwrap();
    let mut number = 0;
    let mut refused = async |image: &str, pts: bool| {
        number += 1;
        let mut config = subject.container(&format!("c{number}"), &["sh", "-c", "echo x > /dev/console"]);
        (config.tty, config.image, config.security.privileged) = (true, image.into(), true);
        let mount = |at: &str, host: &Path| Mount { container_path: at.into(), host_path: host.into(), ..Mount::default() };
        if image == "busybox" {
            config.mounts.push(mount("/dev", &volume));
        }
        if pts {
            config.mounts.push(mount("/dev/pts", Path::new("/dev/pts")));
        }
        subject.start(&sandbox, &config).await.unwrap_err().to_string()
    };
    let no_terminal = refused("busybox", false).await;
    assert!(no_terminal.contains("open a terminal"), "{no_terminal}");
    std::fs::write(volume.join("pts/ptmx"), "").unwrap();
    let no_devpts = refused("busybox", false).await;
    assert!(no_devpts.contains("there is no devpts at /dev/pts"), "{no_devpts}");
    for number in DESCRIPTORS.take(3) {
        std::fs::remove_dir_all(volume.join("pts")).unwrap_or_else(|_| std::fs::remove_file(volume.join("pts")).unwrap());
        symlink(format!("/proc/self/fd/{number}/dev/pts"), volume.join("pts")).unwrap();
        let linked = refused("busybox", false).await;
        assert!(linked.contains("open a terminal"), "{linked}");
    }
    std::fs::remove_file(volume.join("pts")).unwrap();
    std::fs::create_dir(volume.join("pts")).unwrap();
    for target in [secret.display().to_string(), format!("{UP}{}", secret.display()), "/proc/self/fd/3".into(), "/etc/passwd".into()] {
        symlink(&target, volume.join("console")).unwrap();
        let linked = refused("busybox", true).await;
        assert!(linked.contains("/dev/console") && linked.contains("symbolic link"), "{target}: {linked}");
        std::fs::remove_file(volume.join("console")).unwrap();
    }
    let linked = refused("linked", false).await;
    assert!(linked.contains("symbolic link"), "{linked}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "HOST");
    house.close(subject).await;
}
