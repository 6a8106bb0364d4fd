//! More ways out of a container that must stay shut: its program, its devices, its volumes, its cgroup, its logs.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::*;

/// A file of the host at a path that no container has.
fn secret(house: &House) -> PathBuf {
    let path = house.dir.path().join("secret");
    std::fs::write(&path, "HOST").unwrap();
    path
}

fn mount(container: &str, host: &Path) -> Mount {
    Mount { container_path: container.into(), host_path: host.into(), ..Mount::default() }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn the_shims_program_is_not_overwritten_through_proc_self_exe() {
    let mut house = House::new("exe");
    // A copy of this test's own: were it to work, no other test is harmed.
    let program = house.dir.path().join("podbay-shim");
    std::fs::copy(shim(), &program).unwrap();
    house.options.shim_path = program.clone();
    let image = house.images["busybox"].clone();
    std::fs::write(image.join("evil"), "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(image.join("evil"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/proc/self/exe", image.join("link")).unwrap();
    let volume = house.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let subject = house.open().await;
    let mut pod = subject.pod("exe");
    pod.share_process_namespace = true;
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    // Takes hold of every program but its own as it passes, and writes when it has gone.
    let text = "try() { exec 7< /proc/$1/exe || return; echo HELD; sleep 0.02; echo x > /proc/self/fd/7 && echo WRITTEN; }; \
        echo ready; while [ ! -e /vol/stop ]; do for p in /proc/[0-9]*; do p=${p#/proc/}; \
        case \"$(busybox readlink /proc/$p/exe)\" in */busybox) ;; *) (try $p) 2>/dev/null;; esac; done; done; echo end";
    let mut writer = script(&subject, text);
    writer.mounts = vec![mount("/vol", &volume)];
    let writer = subject.start(&sandbox, &writer).await.unwrap();
    let log = subject.runtime.container_status(&writer).await.unwrap().log_path;
    wait_for("it looks for programs", || log_text(&log).contains("ready")).await;
    for (number, command) in ["/proc/self/exe", "/evil", "/link"].into_iter().cycle().take(30).enumerate() {
        let ran = subject.runtime.exec_sync(&writer, &words(&[command, "x"]), PATIENCE).await;
        assert!(!matches!(ran, Ok(ref output) if output.exit_code == 0), "{command}: {ran:?}");
        if number < 6 {
            let config = subject.container(&format!("c{number}"), &[command, "x"]);
            if let Ok(id) = subject.start(&sandbox, &config).await {
                assert_ne!(subject.until_exited(&id).await.exit_code, 0, "{command}");
            }
        }
    }
    std::fs::write(volume.join("stop"), "").unwrap();
    subject.until_exited(&writer).await;
    assert!(!log_text(&log).contains("WRITTEN"), "{}", log_text(&log));
    assert_eq!(std::fs::read(&program).unwrap(), std::fs::read(shim()).unwrap(), "the program on the disk");
    let running = format!("/proc/{}/exe", super::survival::shim_of(&house, &sandbox).as_raw_nonzero());
    assert_eq!(std::fs::read(running).unwrap(), std::fs::read(shim()).unwrap(), "the program that runs");
    let (code, _) = run(&subject, &subject.pod("after"), script(&subject, "exit 3")).await;
    assert_eq!(code, 3);
    house.close(subject).await;
}

#[tokio::test]
async fn no_descriptor_is_left_to_a_container_or_a_command() {
    let house = House::new("fds");
    // A daemon that forgot one: whatever it starts inherits it.
    let forgotten = std::fs::File::open(secret(&house)).unwrap();
    rustix::io::fcntl_setfd(&forgotten, rustix::io::FdFlags::empty()).unwrap();
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("fds")).await.unwrap();
    let list = "busybox ls /proc/$$/fd; true";
    for (name, tty, stdin) in [("plain", false, false), ("stdin", false, true), ("tty", true, true)] {
        let mut config = script(&subject, &format!("{list}; echo listed; sleep 1000"));
        config.metadata.name = name.into();
        config.log_path = Path::new(name).join("0.log");
        (config.tty, config.stdin) = (tty, stdin);
        let id = subject.start(&sandbox, &config).await.unwrap();
        let log = subject.runtime.container_status(&id).await.unwrap().log_path;
        wait_for("it has listed them", || log_text(&log).contains("listed")).await;
        let seen = log_text(&log).replace('\r', "");
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "listed"], "{name}");
        assert_eq!(exec(&subject, &id, list).await.1, "0\n1\n2\n", "a command in {name}");
        let request = ExecRequest { command: words(&["sh", "-c", list]), tty: true, stdin: true, stdout: true, stderr: false };
        let session = subject.runtime.exec(&id, &request).await.unwrap();
        let stdout = session.stdout.unwrap();
        let text = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            // A terminal ends with EIO.
            std::io::Read::read_to_end(&mut std::fs::File::from(stdout), &mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        assert_eq!(session.exit.await.unwrap(), Ok(0));
        let text = text.await.unwrap();
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"], "a command with a terminal in {name}");
    }
    drop(forgotten);
    house.close(subject).await;
}

/// What a container has in /dev, and may be led astray by.
const DEVICES: [&str; 14] =
    ["null", "console", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdout", "termination-log"];

/// Tries to read and write what is masked and read-only; the domain name stands for a setting of the host.
const BREAK: &str = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do \
    echo evil > $f; busybox head -c 9 $f | busybox grep -q . && echo READ $f; done; \
    echo evil > /proc/sys/kernel/domainname && echo WROTE sys; busybox cat /proc/sys/kernel/domainname; \
    echo evil > /proc/sysrq-trigger && echo WROTE sysrq; echo done";

#[tokio::test]
async fn links_in_place_of_devices_lead_nowhere() {
    let mut house = House::new("devlinks");
    let victim = house.dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let up = "../".repeat(12);
    for (number, target) in ["/proc/sys/kernel/domainname".to_owned(), format!("{up}{}", victim.display())].into_iter().enumerate() {
        let image = house.dir.path().join(format!("image{number}"));
        busybox(&image);
        let volume = house.dir.path().join(format!("dev{number}"));
        std::fs::create_dir(&volume).unwrap();
        for name in DEVICES {
            symlink(&target, image.join("dev").join(name)).unwrap();
            symlink(&target, volume.join(name)).unwrap();
        }
        house.images.insert(format!("image{number}"), image);
    }
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("devlinks")).await.unwrap();
    for number in 0..2 {
        for (tty, over) in [(false, false), (true, false), (false, true), (true, true)] {
            let name = format!("c{number}{tty}{over}");
            let mut config = subject.container(&name, &["sh", "-c", BREAK]);
            config.image = format!("image{number}");
            config.tty = tty;
            config.termination_message_path = "/dev/termination-log".into();
            if over {
                // What two containers share, one of which fills it with links.
                config.mounts = vec![mount("/dev", &house.dir.path().join(format!("dev{number}")))];
            }
            let Ok(id) = subject.start(&sandbox, &config).await else {
                assert!(over, "{name}: the image's own /dev is covered");
                continue;
            };
            let ended = subject.until_exited(&id).await;
            let text = log_text(&ended.log_path);
            assert!(!text.contains("READ") && !text.contains("WROTE") && !text.contains("evil"), "{name}: {text}");
            assert!(text.contains("done") || over, "{name}: {text}");
        }
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    house.close(subject).await;
}

#[tokio::test]
async fn masks_are_put_where_they_belong_and_nowhere_else() {
    let mut house = House::new("masks");
    let (volume, victim) = (house.dir.path().join("volume"), house.dir.path().join("victim"));
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(&victim, "precious").unwrap();
    let image = house.dir.path().join("links");
    busybox(&image);
    std::fs::write(image.join("secret"), "INSIDE").unwrap();
    symlink(format!("{}{}", "../".repeat(12), victim.display()), image.join("out")).unwrap();
    symlink("/secret", image.join("to-secret")).unwrap();
    symlink("/etc", image.join("to-etc")).unwrap();
    symlink("/proc/1/root/secret", image.join("magic")).unwrap();
    house.images.insert("links".into(), image);
    let subject = house.open().await;
    let mut config = subject.container("main", &["sh", "-c", "cat /secret; cat /proc/version > /dev/null && echo end"]);
    config.image = "links".into();
    config.security.masked_paths = words(&["/secret", "/to-secret", "/out", "/magic", "/not/there"]);
    config.security.readonly_paths = words(&["/out", "/etc"]);
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("masks")).await.unwrap();
    // A mask through a process is refused; what is hidden stays hidden, what is outside stays as it is.
    let refused = subject.start(&sandbox, &config).await.unwrap_err();
    assert!(refused.to_string().contains("mask /magic"), "{refused}");
    let cases: [(&str, &[&str], &[&str]); 2] =
        [("plain", &["/secret", "/not/there"], &["/etc"]), ("linked", &["/to-secret", "/out"], &["/out", "/to-etc"])];
    for (name, masked, readonly) in cases {
        (config.metadata.name, config.log_path) = (name.into(), format!("{name}/0.log").into());
        config.command = words(&["sh", "-c", "exec 2>&1; cat /secret; echo x > /etc/passwd; cat /proc/version > /dev/null && echo end"]);
        (config.security.masked_paths, config.security.readonly_paths) = (words(masked), words(readonly));
        let id = subject.start(&sandbox, &config).await.unwrap();
        let text = log_text(&subject.until_exited(&id).await.log_path);
        assert!(text.contains("Read-only file system") && text.ends_with("end\n") && !text.contains("INSIDE"), "{name}: {text}");
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    house.close(subject).await;
}

/// Exchanges two names of a directory all the time, until this is dropped.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Swapping {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let swap = move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                count += 1;
                // Both states last for a while.
                std::thread::yield_now();
            }
            count
        };
        Self { stop, thread: Some(std::thread::spawn(swap)) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.thread.take().and_then(|thread| thread.join().ok());
        assert!(std::thread::panicking() || count.is_some_and(|count| count > 0), "nothing was swapped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_destination_that_is_swapped_meanwhile_stays_in_the_container() {
    let house = House::new("swap");
    let (volume, other, outside) = (house.dir.path().join("volume"), house.dir.path().join("other"), house.dir.path().join("outside"));
    for directory in [volume.join("mnt/deep"), other.clone(), outside.join("deep")] {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(other.join("mark"), "MARK").unwrap();
    std::fs::write(outside.join("deep/mark"), "HOST").unwrap();
    // What the other container of the pod makes of the volume they share, while this one starts.
    symlink(format!("{}{}", "../".repeat(12), outside.display()), volume.join("link")).unwrap();
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("swap")).await.unwrap();
    let swapping = Swapping::start(volume.join("mnt"), volume.join("link"));
    let (mut started, mut refused) = (0, 0);
    for number in 0..40 {
        // It is where it was put, by whichever name that has at the moment.
        let places = format!("/vol/mnt/deep/mark /vol/link/deep/mark {0}/deep/mark {1}{0}/deep/mark", outside.display(), "../".repeat(12));
        let look = format!(
            "busybox grep -c ' [^ ]*/deep ' /proc/self/mountinfo; i=0; while [ $i -lt 100 ]; do i=$((i+1)); cat {places}; done 2>/dev/null"
        );
        let mut config = subject.container(&format!("c{number}"), &["sh", "-c", &look]);
        config.mounts = vec![mount("/vol", &volume), mount("/vol/mnt/deep", &other)];
        match subject.start(&sandbox, &config).await {
            Err(_) => refused += 1,
            Ok(id) => {
                started += 1;
                let text = log_text(&subject.until_exited(&id).await.log_path);
                assert!(text.starts_with("1\n"), "what was mounted is in the container: {text}");
                assert!(text.contains("MARK") && !text.contains("HOST"), "{text}");
            }
        }
    }
    drop(swapping);
    assert!(started > 0, "{refused} were refused");
    assert_eq!(std::fs::read_to_string(outside.join("deep/mark")).unwrap(), "HOST");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&outside.display().to_string()), "nothing is mounted on the host");
    house.close(subject).await;
}

#[tokio::test]
async fn a_cgroup_file_system_is_no_way_out() {
    let house = House::new("agent");
    let subject = house.open().await;
    let text = "exec 2>&1; try() { for f in $(busybox find $1 -name release_agent); do echo /x > $f && echo AGENT $f; done; }; \
        hosts() { for o in memory cpu cpuacct pids devices; do busybox mkdir -p /tmp/$o && mount -t cgroup -o $o x /tmp/$o && try /tmp/$o; done; \
        busybox mkdir -p /tmp/two && mount -t cgroup2 x /tmp/two && try /tmp/two; }; \
        if [ \"$1\" = again ]; then hosts; exit; fi; \
        try /sys/fs/cgroup; for f in $(busybox find /sys/fs/cgroup -name 'cgroup.procs' -o -name notify_on_release); do echo 0 > $f && echo WROTE $f; done; \
        mount -o remount,rw,bind /sys/fs/cgroup && echo REMOUNTED; hosts; \
        unshare -Urm sh /tmp/me again; unshare -m sh /tmp/me again; echo end";
    for (name, admin, seccomp) in
        [("plain", false, Seccomp::RuntimeDefault), ("unconfined", false, Seccomp::Unconfined), ("admin", true, Seccomp::Unconfined)]
    {
        let mut config = subject.container(name, &["sh", "-c", &format!("echo '{}' > /tmp/me; sh /tmp/me", text.replace('\'', "'\\''"))]);
        config.security.seccomp = seccomp;
        if admin {
            config.security.add_capabilities = vec!["SYS_ADMIN".into()];
        }
        let (_, said) = run(&subject, &subject.pod(&format!("agent-{name}")), config).await;
        assert!(!said.contains("AGENT"), "{name}: {said}");
        assert!(said.ends_with("end\n"), "{name}: {said}");
        // Who may mount anything is no longer kept by a mount that is read-only: what it mounts begins at its own cgroup.
        assert!(admin || (!said.contains("WROTE") && !said.contains("REMOUNTED")), "{name}: {said}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn no_capability_is_inherited() {
    let house = House::new("inherit");
    let subject = house.open().await;
    let show = "busybox grep -E '^Cap(Inh|Amb)' /proc/self/status";
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    for (name, user) in [("root", None), ("app", Some(1000))] {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod(&format!("inherit-{name}"))).await.unwrap();
        let mut config = script(&subject, &format!("{show}; sleep 1000"));
        config.security.run_as_user = user;
        config.security.add_capabilities = vec!["NET_ADMIN".into(), "SYS_PTRACE".into()];
        let id = subject.start(&sandbox, &config).await.unwrap();
        let log = subject.runtime.container_status(&id).await.unwrap().log_path;
        wait_for("it has shown them", || log_text(&log).contains("CapAmb")).await;
        assert_eq!(log_text(&log), none, "{name}");
        assert_eq!(exec(&subject, &id, show).await.1, none, "a command as {name}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_user_beyond_all_ids_is_not_root() {
    let house = House::new("uid");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("uid")).await.unwrap();
    for (number, user) in ["4294967296", "4294967295", "-1", "0x0", "65536:4294967295", "18446744073709551616"].into_iter().enumerate() {
        for non_root in [false, true] {
            let mut config = subject.container(&format!("c{number}{non_root}"), &["id"]);
            config.security.run_as_username = user.into();
            config.security.run_as_non_root = non_root;
            let error = subject.start(&sandbox, &config).await.expect_err(user).to_string();
            assert!(error.contains("find user") || error.contains("is no id"), "{user}: {error}");
        }
    }
    let mut config = subject.container("last", &["id", "-u"]);
    config.security.run_as_username = "4294967294".into();
    let id = subject.start(&sandbox, &config).await.unwrap();
    assert_eq!(log_text(&subject.until_exited(&id).await.log_path), "4294967294\n");
    house.close(subject).await;
}

#[tokio::test]
async fn a_log_that_is_replaced_by_a_link_leads_nowhere() {
    let mut house = House::new("logswap");
    (house.options.log_max_bytes, house.options.log_max_files) = (2048, 3);
    let subject = house.open().await;
    let (victim, stranger) = (house.dir.path().join("victim"), house.dir.path().join("stranger"));
    std::fs::write(&victim, "precious").unwrap();
    std::fs::create_dir(&stranger).unwrap();
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("logswap")).await.unwrap();
    let talks = script(&subject, "while :; do echo a line of some length that comes again and again; sleep 0.001; done");
    let id = subject.start(&sandbox, &talks).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    let is_log = || {
        log.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() > 100 && std::os::unix::fs::MetadataExt::nlink(&found) == 1)
    };
    wait_for("it writes", is_log).await;
    for round in 0..4 {
        // Whoever may write where logs are: a pod with a hostPath.
        std::fs::remove_file(&log).ok();
        match round % 2 {
            0 => symlink(&victim, &log).ok(),
            _ => std::fs::hard_link(&victim, &log).ok(),
        };
        let next = PathBuf::from(format!("{}.1", log.display()));
        std::fs::remove_file(&next).ok();
        symlink(&victim, &next).ok();
        if round > 1 {
            // Asked to open it anew while it is a link: nothing is written until it is none.
            subject.runtime.reopen_container_log(&id).await.ok();
            std::fs::remove_file(&log).ok();
        }
        wait_for("there is a log again", is_log).await;
    }
    // The same with its directory.
    let directory = log.parent().unwrap().to_owned();
    std::fs::rename(&directory, directory.with_extension("old")).unwrap();
    symlink(&stranger, &directory).unwrap();
    subject.runtime.reopen_container_log(&id).await.ok();
    assert_eq!(exec(&subject, &id, "echo still").await.1, "still\n");
    subject.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(&stranger).unwrap().count(), 0);
    house.close(subject).await;
}
