//! What a container finds, and what becomes of it, where there is a kernel under the runtime. The image is a busybox.

use std::path::Path;
use std::time::Duration;

use super::super::{
    ContainerConfig, ContainerState, ContainerStatus, CriError, Device, DnsConfig, ImageVolume, Mount, PodSandboxConfig, Resources,
    UNLIMITED,
};
use super::host::host_suite;
use super::security::security_suite;
use super::{PATIENCE, Subject, must};

/// Runs every case. Leaves no sandbox behind.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn inside_suite(subject: &Subject) {
    commands_find_what_they_were_given(subject).await;
    mounts_are_there(subject).await;
    devices_are_those_that_were_given(subject).await;
    users_are_who_they_should_be(subject).await;
    a_read_only_root_stays_as_it_is(subject).await;
    a_pod_has_a_name_and_resolves(subject).await;
    namespaces_are_the_pods(subject).await;
    the_stop_signal_comes_first(subject).await;
    who_takes_too_much_memory_is_killed(subject).await;
    what_cannot_start_says_so(subject).await;
    limits_can_be_changed(subject).await;
    what_is_written_is_counted(subject).await;
    last_words_are_kept(subject).await;
    output_is_kept_apart(subject).await;
    a_terminal_is_one(subject).await;
    logs_are_opened_anew(subject).await;
    host_suite(subject).await;
    security_suite(subject).await;
}

/// What CRI has learned since containerd 1.6.
///
/// # Panics
/// When the runtime does not do what it must.
pub async fn newer_suite(subject: &Subject) {
    images_are_volumes(subject).await;
    a_container_says_who_it_is_and_how_it_stops(subject).await;
}

async fn a_container_says_who_it_is_and_how_it_stops(subject: &Subject) {
    let mut config = script(subject, "who", "id -G");
    config.security.run_as_user = Some(1000);
    config.security.run_as_group = Some(2000);
    config.security.supplemental_groups = vec![3000];
    config.stop_signal = "SIGUSR1".into();
    let (ended, lines) = run(subject, &subject.pod("who"), &config).await;
    let user = ended.user.unwrap_or_default();
    assert_eq!((user.uid, user.gid, user.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")), (1000, 2000, lines.concat()));
    assert_eq!(ended.stop_signal, "SIGUSR1");
    // Without a place for a log it has none.
    config.log_path = std::path::PathBuf::new();
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("silent")).await);
    let id = must(subject.start(&sandbox, &config).await);
    assert_eq!(subject.until_exited(&id).await.log_path, Path::new(""));
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn images_are_volumes(subject: &Subject) {
    let volume = |path: &str, sub_path: &str| Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(ImageVolume { image: subject.image.clone(), sub_path: sub_path.into(), ..ImageVolume::default() }),
        ..Mount::default()
    };
    let text =
        "cat /mnt/all/etc/passwd >/dev/null && /mnt/all/bin/busybox echo runs; touch /mnt/all/new || echo refused; ls /mnt/etc/passwd";
    let mut config = script(subject, "image-volume", text);
    config.mounts = vec![volume("/mnt/all", ""), volume("/mnt/etc", "etc")];
    let (ended, lines) = run(subject, &subject.pod("image-volume"), &config).await;
    assert_eq!((ended.exit_code, lines), (0, ["runs", "refused", "/mnt/etc/passwd"].map(str::to_owned).to_vec()));
    let shown: Vec<_> = ended.mounts.iter().filter_map(|mount| mount.image.as_ref()).collect();
    assert!(shown.len() == 2 && shown.iter().all(|volume| volume.id == ended.image_id), "{:?}", ended.mounts);
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("image-volume-not")).await);
    for (image, sub_path, word) in [(subject.image.as_str(), "etc/no/such", "etc/no/such"), ("registry.test/no/such:1", "", "no/such")] {
        let mut config = script(subject, "not", "true");
        config.mounts = vec![volume("/mnt", sub_path)];
        config.mounts[0].image.iter_mut().for_each(|volume| volume.image = image.to_owned());
        let refused = subject.runtime.create_container(&sandbox, &config).await;
        assert!(refused.as_ref().is_err_and(|cause| cause.to_string().contains(word)), "{refused:?}");
    }
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

pub(super) fn script(subject: &Subject, name: &str, text: &str) -> ContainerConfig {
    subject.container(name, &["sh", "-c", text])
}

/// The lines of a stream in an ended container's log.
async fn logged(status: &ContainerStatus, stream: &str) -> Vec<String> {
    // The log may be complete a moment after the end is known.
    let start = std::time::Instant::now();
    let (mut before, mut same) = (None, 0);
    loop {
        let text = std::fs::read_to_string(&status.log_path).unwrap_or_default();
        same = if before.as_ref() == Some(&text) { same + 1 } else { 0 };
        if (text.ends_with('\n') && same >= 5) || start.elapsed() > Duration::from_secs(5) {
            let of_stream = |line: &str| {
                let mut parts = line.splitn(4, ' ').skip(1);
                (parts.next() == Some(stream)).then(|| parts.nth(1).unwrap_or_default().to_owned())
            };
            return text.lines().filter_map(of_stream).collect();
        }
        before = Some(text);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs to its end in a pod of its own; its status and what it wrote.
pub(super) async fn run(subject: &Subject, pod: &PodSandboxConfig, config: &ContainerConfig) -> (ContainerStatus, Vec<String>) {
    let sandbox = must(subject.runtime.run_pod_sandbox(pod).await);
    let id = must(subject.start(&sandbox, config).await);
    let ended = subject.until_exited(&id).await;
    let lines = logged(&ended, "stdout").await;
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
    (ended, lines)
}

pub(super) async fn exec(subject: &Subject, id: &str, text: &str) -> String {
    let output = must(subject.runtime.exec_sync(id, &["sh", "-c", text].map(str::to_owned), PATIENCE).await);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

async fn commands_find_what_they_were_given(subject: &Subject) {
    let mut config = subject.container("given", &["sh", "-c"]);
    config.args = vec!["echo \"$A-$B\" $PWD \"$@\"".into(), "zero".into(), "first word".into()];
    config.envs = vec![("A".into(), "1 2".into()), ("B".into(), "x=y".into())];
    config.working_dir = "/tmp".into();
    let (ended, lines) = run(subject, &subject.pod("given"), &config).await;
    assert_eq!((ended.exit_code, lines), (0, vec!["1 2-x=y /tmp first word".to_owned()]));
}

async fn mounts_are_there(subject: &Subject) {
    let dir = subject.logs.join("mounted");
    let write =
        |name: &str, text: &str| std::fs::create_dir_all(dir.join(name)).and_then(|()| std::fs::write(dir.join(name).join("file"), text));
    write("rw", "before").and_then(|()| write("ro", "fixed")).unwrap_or_else(|error| panic!("{error}"));
    let mount = |name: &str, readonly| Mount {
        container_path: Path::new("/mnt").join(name),
        host_path: dir.join(name),
        readonly,
        ..Mount::default()
    };
    let mut config =
        script(subject, "mounts", "cat /mnt/rw/file /mnt/ro/file; echo; echo after > /mnt/rw/file; echo no > /mnt/ro/file || echo refused");
    config.mounts = vec![mount("rw", false), mount("ro", true)];
    let (ended, lines) = run(subject, &subject.pod("mounts"), &config).await;
    assert_eq!((ended.exit_code, lines), (0, vec!["beforefixed".to_owned(), "refused".to_owned()]));
    let text = |name: &str| std::fs::read_to_string(dir.join(name).join("file")).unwrap_or_default();
    assert_eq!((text("rw").as_str(), text("ro").as_str()), ("after\n", "fixed"));
    let shown: Vec<_> = ended.mounts.iter().filter(|mount| mount.container_path.starts_with("/mnt")).collect();
    assert!(shown.len() == 2 && shown.iter().any(|mount| mount.readonly), "{:?}", ended.mounts);
}

async fn devices_are_those_that_were_given(subject: &Subject) {
    let device = |host: &str, container: &str, permissions: &str| Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
    };
    // A name of its own, with less than is possible; a directory with what is in it.
    let text = "true < /dev/given && echo read; true > /dev/given || echo not written; true <> /dev/below/tun && echo opened; \
                mknod /tmp/other c 10 229; true < /tmp/other || echo kept away; mknod /dev/other c 10 229; true < /dev/other || echo kept away";
    let mut config = script(subject, "devices", text);
    config.devices = vec![device("/dev/loop-control", "/dev/given", "r"), device("/dev/net", "/dev/below", "rwm")];
    let (_, lines) = run(subject, &subject.pod("devices"), &config).await;
    assert_eq!(lines, ["read", "not written", "opened", "kept away", "kept away"]);
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("no-devices")).await);
    for host in ["/etc/passwd", "/dev/not-there"] {
        config.devices = vec![device(host, "/dev/given", "rwm")];
        let refused = subject.runtime.create_container(&sandbox, &config).await;
        assert!(
            refused.as_ref().is_err_and(|error| error.to_string().contains(host) || error.to_string().contains("not a device")),
            "{refused:?}"
        );
    }
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn users_are_who_they_should_be(subject: &Subject) {
    let mut config = script(subject, "user", "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status");
    config.security.run_as_user = Some(1000);
    config.security.run_as_group = Some(2000);
    config.security.supplemental_groups = vec![3000];
    config.security.no_new_privs = true;
    let (_, lines) = run(subject, &subject.pod("user"), &config).await;
    assert_eq!(lines[..2], ["1000", "2000"]);
    assert!(lines[2].split(' ').any(|group| group == "3000"), "{lines:?}");
    assert_eq!(lines[3].split_whitespace().last(), Some("1"));
    assert_eq!(lines[4].split_whitespace().last(), Some("0000000000000000"), "a user has no capabilities");
    let mut config = script(subject, "capable", "grep CapEff /proc/self/status");
    config.security.drop_capabilities = vec!["ALL".into()];
    config.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
    let (_, lines) = run(subject, &subject.pod("capable"), &config).await;
    assert_eq!(lines[0].split_whitespace().last(), Some("0000000000000400"));
}

async fn a_read_only_root_stays_as_it_is(subject: &Subject) {
    let mut config = script(subject, "fixed", "touch /tmp/file || echo refused");
    config.security.readonly_rootfs = true;
    let (_, lines) = run(subject, &subject.pod("fixed"), &config).await;
    assert_eq!(lines, ["refused"]);
    // Images are built that name a working directory and lack it.
    let mut config = script(subject, "made", "pwd; touch file || echo refused");
    config.security.readonly_rootfs = true;
    config.working_dir = "/srv/not/there".into();
    let (_, lines) = run(subject, &subject.pod("made"), &config).await;
    assert_eq!(lines, ["/srv/not/there", "refused"]);
}

async fn a_pod_has_a_name_and_resolves(subject: &Subject) {
    let mut pod = subject.pod("named");
    pod.dns = Some(DnsConfig { servers: vec!["192.0.2.53".into()], searches: vec!["a.test".into()], options: vec!["ndots:3".into()] });
    pod.host_aliases = vec![("192.0.2.1".into(), vec!["db".into()])];
    let text = "hostname; cat /etc/resolv.conf; grep -c '^192.0.2.1.*db' /etc/hosts; grep -w named /etc/hosts | cut -f1";
    let sandbox = must(subject.runtime.run_pod_sandbox(&pod).await);
    let status = must(subject.runtime.pod_sandbox_status(&sandbox).await);
    let id = must(subject.start(&sandbox, &script(subject, "names", text)).await);
    let lines = logged(&subject.until_exited(&id).await, "stdout").await;
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
    if !subject.host_network {
        assert_eq!(lines[0], "named");
        assert_eq!(status.ips.first(), lines.last(), "{lines:?}");
    }
    for word in ["nameserver 192.0.2.53", "search a.test", "options ndots:3", "1"] {
        assert!(lines.iter().any(|line| line == word), "{word}: {lines:?}");
    }
}

async fn namespaces_are_the_pods(subject: &Subject) {
    let runtime = &subject.runtime;
    let mut pod = subject.pod("shared");
    pod.share_process_namespace = true;
    let sandbox = must(runtime.run_pod_sandbox(&pod).await);
    assert!(must(runtime.pod_sandbox_status(&sandbox).await).namespaces.shared_pid);
    let one = must(subject.start(&sandbox, &subject.container("one", &["sleep", "4711"])).await);
    let two = must(subject.start(&sandbox, &subject.container("two", &["sleep", "1000"])).await);
    assert_eq!(exec(subject, &two, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 4711'").await, "1");
    let show = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid";
    assert_eq!(exec(subject, &one, show).await, exec(subject, &two, show).await);
    let mut config = subject.container("alone", &["sleep", "1234"]);
    config.security.own_processes = true;
    let alone = must(subject.start(&sandbox, &config).await);
    assert_eq!(exec(subject, &alone, "cat /proc/1/cmdline | tr '\\0' ' '").await, "sleep 1234");
    assert_eq!(exec(subject, &alone, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [4]711' || true").await, "0");
    must(runtime.stop_container(&alone, Duration::ZERO).await);
    must(runtime.remove_pod_sandbox(&sandbox).await);
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("apart")).await);
    assert!(!must(runtime.pod_sandbox_status(&sandbox).await).namespaces.shared_pid);
    let one = must(subject.start(&sandbox, &subject.container("one", &["sleep", "1000"])).await);
    assert_eq!(exec(subject, &one, "cat /proc/1/cmdline | tr '\\0' ' '").await, "sleep 1000");
    // Apart from all others, a third one is among the first one's.
    let mut config = subject.container("among", &["sleep", "2000"]);
    config.security.processes_of = one.clone();
    let among = must(subject.start(&sandbox, &config).await);
    for id in [&one, &among] {
        assert_eq!(exec(subject, id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [1]000.*sleep [2]000'").await, "1");
    }
    must(runtime.stop_container(&among, Duration::ZERO).await);
    assert_eq!(exec(subject, &one, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [2]000' || true").await, "0");
    must(runtime.stop_container(&one, Duration::ZERO).await);
    config.metadata.attempt = 1;
    assert!(runtime.create_container(&sandbox, &config).await.is_err(), "among the processes of what has ended");
    must(runtime.remove_pod_sandbox(&sandbox).await);
    let mut pod = subject.pod("of-the-host");
    (pod.host_network, pod.hostname) = (true, String::new());
    let (_, lines) = run(subject, &pod, &script(subject, "host", "readlink /proc/self/ns/net")).await;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    assert_eq!(lines, [own.to_string_lossy()]);
}

async fn the_stop_signal_comes_first(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("polite")).await);
    let waiting = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let id = must(subject.start(&sandbox, &script(subject, "hears", waiting)).await);
    let status = must(runtime.container_status(&id).await);
    while logged(&status, "stdout").await.is_empty() {}
    must(runtime.stop_container(&id, PATIENCE).await);
    assert_eq!(subject.until_exited(&id).await.exit_code, 9);
    // Who does not listen is killed when its time is over.
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let id = must(subject.start(&sandbox, &script(subject, "deaf", deaf)).await);
    let status = must(runtime.container_status(&id).await);
    while logged(&status, "stdout").await.is_empty() {}
    must(runtime.stop_container(&id, Duration::from_secs(1)).await);
    assert_eq!(subject.until_exited(&id).await.exit_code, 137);
    another_signal_is_sent_or_not_told_of(subject, &sandbox).await;
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

/// Who takes no notice of it does not say that it does, so that nobody starts what would get another signal.
async fn another_signal_is_sent_or_not_told_of(subject: &Subject, sandbox: &str) {
    let runtime = &subject.runtime;
    let mut config = script(subject, "special", "trap 'exit 8' USR1; echo ready; while :; do sleep 0.01; done");
    config.stop_signal = "SIGUSR1".into();
    let id = must(runtime.create_container(sandbox, &config).await);
    if must(runtime.container_status(&id).await).stop_signal.is_empty() {
        must(runtime.remove_container(&id).await);
        return;
    }
    must(runtime.start_container(&id).await);
    let status = must(runtime.container_status(&id).await);
    assert_eq!(status.stop_signal, "SIGUSR1");
    while logged(&status, "stdout").await.is_empty() {}
    must(runtime.stop_container(&id, PATIENCE).await);
    assert_eq!(subject.until_exited(&id).await.exit_code, 8);
}

async fn who_takes_too_much_memory_is_killed(subject: &Subject) {
    let mut config = script(subject, "hog", "exec tail /dev/zero");
    config.resources = Resources { memory_limit_bytes: 24 << 20, ..Resources::default() };
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("hog")).await);
    let id = must(subject.start(&sandbox, &config).await);
    // containerd hears of the end and of its reason by two events, in either order.
    let ended = subject.until(&id, |status| status.state == ContainerState::Exited && status.reason == "OOMKilled").await;
    assert_eq!(ended.exit_code, 137);
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn what_cannot_start_says_so(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("cannot")).await);
    let id = must(runtime.create_container(&sandbox, &subject.container("missing", &["/no/such/program"])).await);
    let error = runtime.start_container(&id).await;
    assert!(error.as_ref().is_err_and(|error| error.to_string().contains("/no/such/program")), "{error:?}");
    let status = must(runtime.container_status(&id).await);
    assert_eq!(status.state, ContainerState::Exited);
    assert!(status.exit_code != 0 && status.finished_at.is_some(), "{status:?}");
    let unknown = ContainerConfig { image: "docker.io/library/not-there:1".into(), ..subject.container("imageless", &["true"]) };
    assert!(runtime.create_container(&sandbox, &unknown).await.is_err(), "an image that is not there");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn limits_can_be_changed(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("limits")).await);
    let mut config = subject.container("limited", &["sleep", "100000"]);
    config.resources = Resources { memory_limit_bytes: 32 << 20, cpu_quota: 20_000, cpu_period: 100_000, ..Resources::default() };
    config.resources.cpuset_cpus = "0".into();
    let id = must(subject.start(&sandbox, &config).await);
    let show = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(exec(subject, &id, show).await, (32u64 << 20).to_string());
    assert_eq!(exec(subject, &id, "grep Cpus_allowed_list /proc/self/status | cut -f2").await, "0");
    for limit in [64u64 << 20, 16 << 20] {
        let wanted = Resources { memory_limit_bytes: limit, cpu_quota: 50_000, cpu_period: 100_000, ..Resources::default() };
        must(runtime.update_container_resources(&id, &wanted).await);
        assert_eq!(exec(subject, &id, show).await, limit.to_string());
    }
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    assert_eq!(exec(subject, &id, quota).await, "50000");
    let away = Resources { memory_limit_bytes: UNLIMITED, cpu_quota: -1, ..Resources::default() };
    must(runtime.update_container_resources(&id, &away).await);
    let (memory, quota) = (exec(subject, &id, show).await, exec(subject, &id, quota).await);
    assert!(memory == "max" || memory.parse::<u64>().is_ok_and(|bytes| bytes > 1 << 60), "{memory}");
    assert!(quota == "max" || quota == "-1", "{quota}");
    must(runtime.stop_container(&id, Duration::ZERO).await);
    assert!(runtime.update_container_resources("nobody", &Resources::default()).await.is_err());
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn what_is_written_is_counted(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("counted")).await);
    let writes = "head -c 3000000 /dev/zero > /tmp/file; for i in 0 1 2 3 4 5 6 7 8 9; do echo > /tmp/$i; done; sleep 100000";
    let id = must(subject.start(&sandbox, &script(subject, "writes", writes)).await);
    let start = std::time::Instant::now();
    loop {
        let stats = must(runtime.container_stats().await);
        let layer = stats.iter().find(|one| one.id == id).and_then(|one| one.writable_layer.clone());
        // Every ten seconds or so, as with the kubelet.
        if layer.as_ref().is_some_and(|layer| layer.used_bytes >= 3_000_000 && layer.inodes_used >= 11) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{stats:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn last_words_are_kept(subject: &Subject) {
    let mut config = script(subject, "last", "printf good-bye > /dev/last; exit 1");
    config.termination_message_path = "/dev/last".into();
    let (ended, _) = run(subject, &subject.pod("last"), &config).await;
    assert_eq!((ended.exit_code, ended.message.as_str()), (1, "good-bye"));
}

async fn output_is_kept_apart(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("output")).await);
    let id = must(subject.start(&sandbox, &script(subject, "both", "echo out; echo err >&2; printf end; sleep 100000")).await);
    let command = ["sh", "-c", "echo out; echo err >&2; kill -9 $$"].map(str::to_owned);
    let output = must(runtime.exec_sync(&id, &command, PATIENCE).await);
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice(), output.exit_code), (&b"out\n"[..], &b"err\n"[..], 137));
    let missing = runtime.exec_sync(&id, &["/no/such/program".to_owned()], PATIENCE).await;
    assert!(missing.is_err() || missing.is_ok_and(|output| output.exit_code != 0), "a program that is not there");
    let nothing = runtime.exec_sync(&id, &[], PATIENCE).await;
    assert!(!matches!(nothing, Ok(ref output) if output.exit_code == 0), "{nothing:?}");
    must(runtime.stop_container(&id, Duration::ZERO).await);
    let ended = must(runtime.container_status(&id).await);
    assert_eq!(
        (logged(&ended, "stdout").await, logged(&ended, "stderr").await),
        (vec!["out".into(), "end".into()], vec!["err".to_owned()])
    );
    let late = runtime.exec_sync(&id, &["true".to_owned()], PATIENCE).await;
    assert!(!matches!(late, Err(CriError::Timeout(_)) | Ok(_)), "{late:?}");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}

async fn a_terminal_is_one(subject: &Subject) {
    let text = "test -t 0 && test -t 1 && test -t 2 && tty; echo $TERM; test $(stat -c %t:%T /dev/console) = $(stat -c %t:%T $(tty)) && echo same; \
                echo by-name > /dev/console; echo apart >&2; stat -c %u /dev/console";
    let mut config = ContainerConfig { tty: true, ..script(subject, "terminal", text) };
    config.security.run_as_user = Some(1000);
    let (ended, lines) = run(subject, &subject.pod("terminal"), &config).await;
    let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
    assert_eq!((ended.exit_code, lines), (0, vec!["/dev/pts/0", "xterm", "same", "by-name", "apart", "1000"]));
}

async fn logs_are_opened_anew(subject: &Subject) {
    let runtime = &subject.runtime;
    let sandbox = must(runtime.run_pod_sandbox(&subject.pod("reopen")).await);
    let counting = script(subject, "counting", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done");
    let id = must(subject.start(&sandbox, &counting).await);
    let path = must(runtime.container_status(&id).await).log_path;
    let numbers = |path: &Path| -> Vec<u32> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    };
    let lines = async |path: &Path| {
        let start = std::time::Instant::now();
        while numbers(path).len() < 3 {
            assert!(start.elapsed() < PATIENCE, "nothing in {}", path.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    lines(&path).await;
    let moved = path.with_extension("moved");
    assert!(std::fs::rename(&path, &moved).is_ok());
    must(runtime.reopen_container_log(&id).await);
    assert!(path.exists(), "the new file is there at once");
    lines(&path).await;
    must(runtime.stop_container(&id, Duration::ZERO).await);
    let all = [numbers(&moved), numbers(&path)].concat();
    assert!(all.iter().copied().eq(0..u32::try_from(all.len()).unwrap_or(0)), "{all:?}");
    assert!(runtime.reopen_container_log(&id).await.is_err(), "the log of what has ended");
    must(runtime.remove_pod_sandbox(&sandbox).await);
}
