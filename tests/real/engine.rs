//! The engine on the kernel: namespaces, limits, logs, crashes, attacks, and that nothing is left behind.
#![allow(clippy::unwrap_used)]

mod attacks;
mod bombs;
mod cdi;
mod everyday;
pub mod handler;
mod isolation;
mod limits;
mod streams;
mod survival;
mod ways_out;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hosts::sh;
use async_trait::async_trait;
use podbay::cri::contract::{Subject, stream_suite, suite};
use podbay::cri::{ContainerConfig, ContainerState, CriError, ExecRequest, Mount, PodSandboxConfig, Resources, SandboxState, Seccomp};
use podbay::network::{Attachment, NetworkError, PodNetwork};
use podbay::runtime::{Engine, ImageRoot, Options, Remains, Rootfs, reset};

const PATIENCE: Duration = Duration::from_secs(60);

/// Gives no interface, remembers who came and went.
#[derive(Default)]
pub(super) struct NoNetwork(std::sync::Mutex<Vec<String>>);

impl NoNetwork {
    /// Whether a sandbox came (`+ID`) or went (`-ID`).
    pub(super) fn has(&self, entry: &str) -> bool {
        self.0.lock().unwrap().iter().any(|one| one == entry)
    }
}

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Attachment, NetworkError> {
        assert!(netns.exists());
        let mut entries = self.0.lock().unwrap();
        let attached = u8::try_from(entries.iter().filter(|entry| entry.starts_with('+')).count() % 200).unwrap();
        entries.push(format!("+{sandbox}"));
        Ok(Attachment { address: [10, 80, 0, 2 + attached].into(), gateway: "10.80.0.1".parse().unwrap() })
    }
    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        self.0.lock().unwrap().push(format!("-{sandbox}"));
        Ok(())
    }
}

/// Images are directories: one, or several as in `PATH`, the topmost first.
pub(super) struct Directories(pub(super) BTreeMap<String, PathBuf>);

impl Rootfs for Directories {
    fn prepare(&self, image: &str) -> Result<ImageRoot, CriError> {
        let layer = self.0.get(image).ok_or_else(|| CriError::NotFound(format!("image {image}")))?;
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Env":["FROM=image"]}}"#;
        Ok(ImageRoot {
            id: "sha256:0".into(),
            digest: String::new(),
            config: serde_json::from_str(config).unwrap(),
            layers: std::env::split_paths(layer).collect(),
        })
    }
    fn hold(&self, _: &str, _: &str) -> Result<(), CriError> {
        Ok(())
    }
    fn release(&self, _: &str) -> Result<(), CriError> {
        Ok(())
    }
    fn release_others(&self, _: &dyn Fn(&str) -> bool) -> Result<(), CriError> {
        Ok(())
    }
}

/// A host of its own for one test: directories, cgroup, engine. Leaves nothing behind, and says so.
pub(super) struct House {
    pub(super) dir: tempfile::TempDir,
    pub(super) options: Options,
    pub(super) network: Arc<NoNetwork>,
    pub(super) images: BTreeMap<String, PathBuf>,
}

/// The shim that cargo built for these tests.
pub(super) fn shim() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_podbay-shim"))
}

/// Nobody else's, whatever other tests call theirs: a reset kills what it finds there.
pub(super) fn cgroup_root(name: &str, dir: &tempfile::TempDir) -> String {
    format!("{}-{name}", dir.path().file_name().unwrap().display())
}

pub(crate) fn busybox(at: &Path) {
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(at.join(dir)).unwrap();
    }
    std::fs::set_permissions(at.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::copy("/bin/busybox", at.join("bin/busybox")).expect("busybox-static is installed");
    for name in [
        "sh", "sleep", "true", "echo", "cat", "id", "ls", "mount", "unshare", "dd", "hostname", "kill", "yes", "stty", "tail", "mknod",
        "touch", "nc", "chroot", "stat", "grep", "readlink", "tr", "cut", "mkdir", "head", "tty",
    ] {
        symlink("busybox", at.join("bin").join(name)).unwrap();
    }
    std::fs::write(at.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
    std::fs::write(at.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:77:app\n").unwrap();
}

impl House {
    pub(super) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("podbay-engine-").tempdir().unwrap();
        let image = dir.path().join("image");
        busybox(&image);
        let mut options = Options::new(dir.path().join("root"), dir.path().join("run"));
        options.cgroup_root = cgroup_root(name, &dir);
        options.shim_path = shim();
        Self { dir, options, network: Arc::default(), images: [("busybox".to_owned(), image)].into() }
    }

    pub(super) async fn open(&self) -> Subject {
        let rootfs = Arc::new(Directories(self.images.clone()));
        let engine = Engine::open(self.options.clone(), rootfs, self.network.clone()).await.unwrap();
        let logs = self.dir.path().join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        Subject { runtime: Arc::new(engine), image: "busybox".into(), logs, host_network: false, handler: String::new() }
    }

    /// Takes everything away and finds nothing left.
    pub(super) async fn close(self, subject: Subject) {
        // One that still runs clears up, too, and both fail where they meet.
        assert_eq!(Arc::strong_count(&subject.runtime), 1, "somebody else has the engine still");
        drop(subject);
        reset(&self.options, &*self.network).await.unwrap();
        assert_eq!(Remains::look(&self.options).unwrap(), Remains::default());
        reset(&self.options, &*self.network).await.unwrap();
    }
}

/// Runs a script in a container of a pod to its end; returns its exit code and its log's text.
async fn run(subject: &Subject, pod: &PodSandboxConfig, config: ContainerConfig) -> (i32, String) {
    let sandbox = subject.runtime.run_pod_sandbox(pod).await.unwrap();
    let id = subject.start(&sandbox, &config).await.unwrap();
    let ended = subject.until_exited(&id).await;
    let text = log_text(&ended.log_path);
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    (ended.exit_code, text)
}

/// A log without times and tags.
fn log_text(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
}

fn script(subject: &Subject, text: &str) -> ContainerConfig {
    subject.container("main", &["sh", "-c", text])
}

pub(super) async fn exec(subject: &Subject, id: &str, text: &str) -> (i32, String) {
    let command = ["sh", "-c", text].map(str::to_owned);
    let output = subject.runtime.exec_sync(id, &command, PATIENCE).await.unwrap();
    (output.exit_code, String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_engine_keeps_the_contract() {
    let house = House::new("contract");
    let subject = house.open().await;
    suite(&subject).await;
    stream_suite(&subject).await;
    house.close(subject).await;
}

#[tokio::test]
async fn a_container_sees_only_its_own() {
    let house = House::new("own");
    let subject = house.open().await;
    let mut config = script(
        &subject,
        "echo pid $$; hostname; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; cat /proc/self/cgroup | head -1; \
         ls /sys/class/net; echo env $FROM $HOSTNAME; stat -f -c %T /; cat /etc/hosts | tail -1; ls /proc/self/fd | wc -l",
    );
    config.command[2] = config.command[2].replace("grep", "busybox grep").replace("head", "busybox head").replace("wc", "busybox wc");
    let (code, text) = run(&subject, &subject.pod("own"), config).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(code, 0, "{text}");
    assert_eq!(lines[0], "pid 1");
    assert_eq!(lines[1], "own");
    assert_eq!(lines[2], "sh");
    assert!(lines[3].parse::<u32>().unwrap() <= 3, "{text}");
    assert!(lines[4].ends_with(":/"), "a cgroup namespace of its own: {text}");
    assert_eq!(lines[5], "lo");
    assert_eq!(lines[6], "env image own");
    assert_eq!(lines[8], "10.80.0.2\town");
    // 0, 1, 2 and the directory that ls reads.
    assert_eq!(lines[9], "4", "descriptors leaked: {text}");
    house.close(subject).await;
}

#[tokio::test]
async fn containers_of_a_pod_share_network_ipc_and_name() {
    let house = House::new("share");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("share")).await.unwrap();
    let one = subject.start(&sandbox, &subject.container("one", &["sleep", "1000"])).await.unwrap();
    let two = subject.start(&sandbox, &subject.container("two", &["sleep", "1000"])).await.unwrap();
    let show = "for n in net ipc uts pid mnt; do busybox readlink /proc/self/ns/$n; done";
    let ((_, a), (_, b)) = (exec(&subject, &one, show).await, exec(&subject, &two, show).await);
    let (a, b): (Vec<_>, Vec<_>) = (a.lines().collect(), b.lines().collect());
    assert_eq!(a[..3], b[..3]);
    assert!(a[3] != b[3] && a[4] != b[4]);
    assert_eq!(exec(&subject, &one, "echo x > /dev/shm/file").await.0, 0);
    assert_eq!(exec(&subject, &two, "cat /dev/shm/file").await.1, "x\n");
    house.close(subject).await;
}

#[tokio::test]
async fn a_pod_may_share_its_processes() {
    let house = House::new("pids");
    let subject = house.open().await;
    let mut pod = subject.pod("pids");
    pod.share_process_namespace = true;
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let one = subject.start(&sandbox, &subject.container("one", &["sleep", "4711"])).await.unwrap();
    let two = subject.start(&sandbox, &subject.container("two", &["sleep", "1000"])).await.unwrap();
    let (_, text) = exec(&subject, &two, "cat /proc/1/comm; cat /proc/[0-9]*/cmdline").await;
    assert!(text.starts_with("podbay-init") && text.contains("sleep\u{0}4711"), "{text}");
    subject.runtime.stop_container(&one, Duration::ZERO).await.unwrap();
    assert_eq!(subject.runtime.container_status(&two).await.unwrap().state, ContainerState::Running);
    house.close(subject).await;
}

#[tokio::test]
async fn limits_are_hit() {
    let house = House::new("limits");
    let subject = house.open().await;
    // Memory: tail keeps what has no line end.
    let mut hog = script(&subject, "busybox tail /dev/zero");
    hog.resources = Resources { memory_limit_bytes: 16 << 20, ..Resources::default() };
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("limits")).await.unwrap();
    let id = subject.start(&sandbox, &hog).await.unwrap();
    let ended = subject.until_exited(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    // Processes.
    let mut many = subject.container("many", &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo all"]);
    many.resources = Resources { pids_limit: 5, ..Resources::default() };
    let id = subject.start(&sandbox, &many).await.unwrap();
    let ended = subject.until_exited(&id).await;
    assert!(!log_text(&ended.log_path).contains("all"), "{}", log_text(&ended.log_path));
    // CPU, as the container sees it.
    let show = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares";
    let mut slow = subject.container("slow", &["sh", "-c", show]);
    slow.resources = Resources { cpu_quota: 25_000, cpu_period: 50_000, cpu_shares: 512, ..Resources::default() };
    let id = subject.start(&sandbox, &slow).await.unwrap();
    let ended = subject.until_exited(&id).await;
    let text = log_text(&ended.log_path);
    assert!(text == "25000\n512\n" || text == "25000 50000\n", "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn logs_have_cris_form_and_rotate() {
    let mut house = House::new("logs");
    house.options.log_max_bytes = 4096;
    house.options.log_max_files = 3;
    let subject = house.open().await;
    let text = "echo out; echo err >&2; echo -n part; i=0; while [ $i -lt 400 ]; do echo line $i is here; i=$((i+1)); done; echo -n end";
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("logs")).await.unwrap();
    let id = subject.start(&sandbox, &script(&subject, text)).await.unwrap();
    let path = subject.until_exited(&id).await.log_path;
    let numbered = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
    assert!(numbered(1).exists() && numbered(2).exists() && !numbered(3).exists());
    let all: String = [numbered(2), numbered(1), path.clone()].iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    for line in all.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(fields[0].ends_with('Z') && fields[0].len() == 30, "{line}");
        assert!(["stdout", "stderr"].contains(&fields[1]) && ["F", "P"].contains(&fields[2]), "{line}");
    }
    // What came by two pipes has no order between them.
    assert!(all.lines().rfind(|line| line.contains(" stdout ")).is_some_and(|line| line.ends_with("stdout P end")), "{all}");
    let numbers: Vec<u32> = all.lines().filter_map(|l| l.split_once("line ")?.1.split(' ').next()?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) && numbers.last() == Some(&399), "{numbers:?}");
    assert!(std::fs::metadata(numbered(1)).unwrap().len() < 4096 + 200);
    house.close(subject).await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_does_not_hold_the_container_up() {
    let house = House::new("bomb");
    let subject = house.open().await;
    // A disk that is full: a file system of 64 KiB.
    let logs = subject.logs.join("bomb");
    std::fs::create_dir_all(&logs).unwrap();
    rustix::mount::mount("none", &logs, "tmpfs", rustix::mount::MountFlags::empty(), c"size=65536").unwrap();
    let bomb = script(
        &subject,
        "i=0; while [ $i -lt 50 ]; do busybox dd if=/dev/zero bs=65536 count=16 2>/dev/null | busybox tr '\\0' '\\n'; i=$((i+1)); done; echo done > /dev/shm/x; exit 5",
    );
    let (code, _) = run(&subject, &subject.pod("bomb"), bomb).await;
    rustix::mount::unmount(&logs, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(code, 5);
    house.close(subject).await;
}

#[tokio::test]
async fn links_in_the_log_directory_are_not_followed() {
    let house = House::new("loglink");
    let subject = house.open().await;
    let victim = house.dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let logs = subject.logs.join("loglink");
    std::fs::create_dir_all(logs.join("main")).unwrap();
    symlink(&victim, logs.join("main/0.log")).unwrap();
    let (code, _) = run(&subject, &subject.pod("loglink"), script(&subject, "echo evil")).await;
    assert_eq!(code, 0);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    house.close(subject).await;
}

#[tokio::test]
async fn ends_are_told_as_they_were() {
    let house = House::new("ends");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("ends")).await.unwrap();
    // Its own signal, caught.
    let mut polite = subject.container("polite", &["sh", "-c", "trap 'exit 12' USR1; echo ready; while true; do sleep 0.01; done"]);
    polite.stop_signal = "SIGUSR1".into();
    let id = subject.start(&sandbox, &polite).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("the container is ready", || log_text(&log) == "ready\n").await;
    subject.runtime.stop_container(&id, PATIENCE).await.unwrap();
    assert_eq!(subject.runtime.container_status(&id).await.unwrap().exit_code, 12);
    // Deaf: killed after its grace.
    let deaf = subject.start(&sandbox, &subject.container("deaf", &["sleep", "1000"])).await.unwrap();
    subject.runtime.stop_container(&deaf, Duration::from_millis(50)).await.unwrap();
    assert_eq!(subject.runtime.container_status(&deaf).await.unwrap().exit_code, 137);
    // What it has to say at the end.
    let mut message = subject.container("message", &["sh", "-c", "echo -n why > /dev/termination-log; exit 4"]);
    message.termination_message_path = "/dev/termination-log".into();
    let id = subject.start(&sandbox, &message).await.unwrap();
    let ended = subject.until_exited(&id).await;
    assert_eq!((ended.exit_code, ended.message.as_str()), (4, "why"));
    // What is not there.
    let error = subject.start(&sandbox, &subject.container("none", &["no-such-program"])).await.unwrap_err();
    assert!(error.to_string().contains("\"no-such-program\": executable file not found in $PATH"), "{error}");
    let all = subject.runtime.list_containers().await.unwrap();
    let failed = all.iter().find(|c| c.metadata.name == "none").unwrap();
    assert_eq!((failed.state, failed.exit_code, failed.reason.as_str()), (ContainerState::Exited, 128, "StartError"));
    house.close(subject).await;
}

#[tokio::test]
async fn users_are_who_they_are_said_to_be() {
    let house = House::new("users");
    let subject = house.open().await;
    let mut config = script(&subject, "id; echo $HOME; touch /x || echo no; busybox grep -E 'Cap(Eff|Bnd)|NoNew' /proc/self/status");
    config.security.run_as_user = Some(1000);
    config.security.supplemental_groups = vec![5000];
    config.security.no_new_privs = true;
    let (_, text) = run(&subject, &subject.pod("users"), config).await;
    assert!(text.contains("uid=1000(app) gid=1000(app) groups=77(extra),1000(app),5000"), "{text}");
    assert!(text.contains("/home/app") && text.contains("no\n"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000") && text.contains("CapBnd:\t00000000a80425fb"), "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
    let mut root = script(&subject, "true");
    root.security.run_as_non_root = true;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("users")).await.unwrap();
    let error = subject.start(&sandbox, &root).await.unwrap_err();
    assert!(error.to_string().contains("must not run as root"), "{error}");
    house.close(subject).await;
}

#[tokio::test]
async fn root_in_a_container_is_not_root_on_the_host() {
    let house = House::new("caps");
    let subject = house.open().await;
    let text = "exec 2>&1; busybox grep CapEff /proc/self/status; \
        mount -t tmpfs none /tmp && echo MOUNTED; unshare -m true && echo UNSHARED; hostname evil && echo RENAMED; \
        echo 1 > /proc/sys/vm/drop_caches && echo SYS; echo b > /proc/sysrq-trigger && echo SYSRQ; \
        cat /proc/kcore | busybox head -c1 | busybox wc -c; ls /sys/firmware | busybox wc -l; ls /proc/scsi | busybox wc -l; \
        touch /sys/x && echo SYSFS; busybox mkdir /sys/fs/cgroup/evil /sys/fs/cgroup/memory/evil && echo CGROUP; \
        mknod /dev/disk b 254 0 && cat /dev/disk && echo DISK; mknod /tmp/null c 1 3 && echo x > /tmp/null && echo NODE; \
        cat /dev/null; echo x > /dev/null && echo works";
    let (_, text) = run(&subject, &subject.pod("caps"), script(&subject, text)).await;
    assert!(text.contains("CapEff:\t00000000a80425fb"), "{text}");
    for word in ["MOUNTED", "UNSHARED", "RENAMED", "SYS\n", "SYSRQ", "SYSFS", "CGROUP", "DISK", "NODE"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.lines().filter(|line| *line == "0").count(), 3, "{text}");
    assert!(text.ends_with("works\n"), "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn the_default_filter_is_on_and_can_be_off() {
    let house = House::new("seccomp");
    let subject = house.open().await;
    let text = "busybox grep 'Seccomp:' /proc/self/status; unshare -U true && echo UNSHARED";
    let (_, filtered) = run(&subject, &subject.pod("seccomp"), script(&subject, text)).await;
    assert!(filtered.contains("Seccomp:\t2") && !filtered.contains("UNSHARED"), "{filtered}");
    let mut open = script(&subject, text);
    open.security.seccomp = Seccomp::Unconfined;
    let (_, text) = run(&subject, &subject.pod("seccomp"), open).await;
    assert!(text.contains("Seccomp:\t0") && text.contains("UNSHARED"), "{text}");
    let profile = house.dir.path().join("profile.json");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, json).unwrap();
    let mut own = script(&subject, "busybox mkdir /tmp/x || echo denied");
    own.security.seccomp = Seccomp::Localhost(profile);
    let (_, text) = run(&subject, &subject.pod("seccomp"), own).await;
    assert!(text.contains("denied"), "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn privileged_is_privileged() {
    let house = House::new("privileged");
    let subject = house.open().await;
    let mut config =
        script(&subject, "mount -t tmpfs none /tmp && echo mounted; ls /dev/full /dev/kmsg; busybox grep Seccomp: /proc/self/status");
    config.security.privileged = true;
    let (_, text) = run(&subject, &subject.pod("privileged"), config).await;
    assert!(text.contains("mounted") && text.contains("/dev/full") && text.contains("Seccomp:\t0"), "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn a_read_only_root_is_read_only_and_its_volumes_are_as_said() {
    let house = House::new("readonly");
    let subject = house.open().await;
    let volume = house.dir.path().join("volume");
    std::fs::create_dir_all(volume.join("inner")).unwrap();
    std::fs::write(volume.join("file"), "host").unwrap();
    let mount = |container: &str, host: &Path, readonly| Mount {
        container_path: container.into(),
        host_path: host.into(),
        readonly,
        ..Mount::default()
    };
    let mut config = script(
        &subject,
        "touch /x || echo root; touch /tmp/x || echo tmp; touch /rw/x && echo rw; touch /ro/x || echo ro; cat /ro/file; cat /single",
    );
    config.security.readonly_rootfs = true;
    config.mounts = vec![
        mount("/rw", &volume, false),
        mount("/ro", &volume, true),
        mount("/rw/inner/deep/er", &volume, true),
        mount("/single", &volume.join("file"), true),
    ];
    let (_, text) = run(&subject, &subject.pod("readonly"), config).await;
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("Read-only")).collect();
    assert_eq!(kept, ["root", "tmp", "rw", "ro", "hosthost"], "{text}");
    assert!(volume.join("x").exists());
    house.close(subject).await;
}

#[tokio::test]
async fn images_with_links_for_system_directories_are_refused() {
    let mut house = House::new("links");
    for name in ["dev", "proc", "sys"] {
        let image = house.dir.path().join(format!("evil-{name}"));
        busybox(&image);
        std::fs::remove_dir(image.join(name)).unwrap();
        symlink("/tmp", image.join(name)).unwrap();
        house.images.insert(format!("evil-{name}"), image);
    }
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("links")).await.unwrap();
    for name in ["dev", "proc", "sys"] {
        let mut config = subject.container(name, &["true"]);
        config.image = format!("evil-{name}");
        let error = subject.start(&sandbox, &config).await.unwrap_err();
        assert!(error.to_string().contains("is a symbolic link"), "{name}: {error}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_mount_through_a_link_of_the_image_stays_in_the_container() {
    let mut house = House::new("escape");
    let outside = house.dir.path().join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    let image = house.dir.path().join("escape");
    busybox(&image);
    symlink(&outside, image.join("absolute")).unwrap();
    symlink("../../../../../../..", image.join("up")).unwrap();
    symlink("/proc/self", image.join("inproc")).unwrap();
    symlink("/etc/elsewhere", image.join("etc/hostname")).unwrap();
    house.images.insert("escape".into(), image);
    let subject = house.open().await;
    let volume = house.dir.path().join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("mark"), "").unwrap();
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("escape")).await.unwrap();
    let mut config = subject.container("main", &["sh", "-c", "cat /up/vol/mark && echo here"]);
    config.image = "escape".into();
    config.mounts = vec![Mount { container_path: "/up/vol".into(), host_path: volume.clone(), ..Mount::default() }];
    let id = subject.runtime.create_container(&sandbox, &config).await.unwrap();
    // /etc/hostname is a dangling link: named, not followed anywhere.
    let error = subject.runtime.start_container(&id).await.unwrap_err();
    assert!(error.to_string().contains("etc/hostname"), "{error}");
    let image = house.images["escape"].clone();
    std::fs::remove_file(image.join("etc/hostname")).unwrap();
    config.metadata.attempt = 1;
    let id = subject.start(&sandbox, &config).await.unwrap();
    let ended = subject.until_exited(&id).await;
    assert_eq!(log_text(&ended.log_path), "here\n");
    config.metadata.attempt = 2;
    config.mounts = vec![Mount { container_path: "/inproc/attr".into(), host_path: volume, ..Mount::default() }];
    let error = subject.start(&sandbox, &config).await.unwrap_err();
    assert!(error.to_string().contains("/inproc/attr"), "{error}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!Path::new("/vol").exists());
    house.close(subject).await;
}

#[tokio::test]
async fn terminals_have_sizes_and_echo() {
    let house = House::new("tty");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("tty")).await.unwrap();
    let mut config = subject.container("main", &["sh", "-c", "busybox tty; sleep 1000"]);
    config.tty = true;
    let id = subject.start(&sandbox, &config).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("the terminal's name is in the log", || log_text(&log).contains("/dev/pts/0")).await;
    let request = ExecRequest {
        command: ["sh", "-c", "read x; stty size; exit 9"].map(str::to_owned).to_vec(),
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let session = subject.runtime.exec(&id, &request).await.unwrap();
    session.resize.send((101, 37)).await.unwrap();
    let (stdin, stdout) = (session.stdin.unwrap(), session.stdout.unwrap());
    let window = stdin.try_clone().unwrap();
    wait_for("the size is set", || rustix::termios::tcgetwinsize(&window).unwrap().ws_col == 101).await;
    drop(window);
    let text = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stdin = std::fs::File::from(stdin);
        stdin.write_all(b"go\n").unwrap();
        drop(stdin);
        let mut text = Vec::new();
        // A terminal ends with EIO.
        std::fs::File::from(stdout).read_to_end(&mut text).ok();
        String::from_utf8(text).unwrap()
    });
    assert_eq!(session.exit.await.unwrap(), Ok(9));
    let text = text.await.unwrap();
    assert!(text.contains("37 101"), "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn ports_of_a_pod_are_reached_from_inside() {
    let house = House::new("port");
    let subject = house.open().await;
    // Who listens everywhere does so for both versions of IP, or for the newer one alone.
    for only_v6 in ["0", "1"] {
        let sysctls = [("net.ipv6.bindv6only".to_owned(), only_v6.to_owned())].into();
        let sandbox = subject.runtime.run_pod_sandbox(&PodSandboxConfig { sysctls, ..subject.pod("port") }).await.unwrap();
        let server = subject.container("main", &["sh", "-c", "nc -l -p 8080 -e echo pong"]);
        subject.start(&sandbox, &server).await.unwrap();
        let start = Instant::now();
        let mut stream = loop {
            match subject.runtime.port_forward(&sandbox, 8080).await {
                Ok(stream) => break stream,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        assert_eq!(text, "pong\n");
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    house.close(subject).await;
}

#[tokio::test]
async fn usage_is_counted() {
    let house = House::new("stats");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("stats")).await.unwrap();
    let id = subject.start(&sandbox, &subject.container("busy", &["sh", "-c", "while true; do :; done"])).await.unwrap();
    let start = Instant::now();
    loop {
        let stats = subject.runtime.container_stats().await.unwrap();
        let one = stats.iter().find(|stats| stats.id == id).unwrap();
        if one.usage.cpu_nanos > 1_000_000 && one.usage.memory_working_set_bytes > 0 && one.usage.pids == 1 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{one:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.close(subject).await;
}

/// The first process of a container, as the host sees it.
fn processes_of(house: &House) -> Vec<i32> {
    Remains::look(&house.options).unwrap().processes
}

#[tokio::test]
async fn pods_outlive_the_engine() {
    let house = House::new("outlive");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("outlive")).await.unwrap();
    let stays = subject.start(&sandbox, &subject.container("stays", &["sleep", "1000"])).await.unwrap();
    let gate = house.dir.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let mut leaves = subject.container("leaves", &["sh", "-c", "while [ ! -e /gate/open ]; do sleep 0.01; done; echo bye; exit 6"]);
    leaves.mounts = vec![Mount { container_path: "/gate".into(), host_path: gate.clone(), ..Mount::default() }];
    let leaves = subject.start(&sandbox, &leaves).await.unwrap();
    let waits = subject.runtime.create_container(&sandbox, &subject.container("waits", &["sh", "-c", "exit 8"])).await.unwrap();
    let before = processes_of(&house);
    drop(subject);
    // While nobody is there, one ends.
    std::fs::write(gate.join("open"), "").unwrap();
    let record = house.options.root_dir.join("sandboxes").join(&sandbox).join("containers").join(&leaves).join("exit");
    wait_for("the shim writes the exit record", || record.exists()).await;
    let subject = house.open().await;
    assert_eq!(subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().state, SandboxState::Ready);
    assert_eq!(subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().ips, ["10.80.0.2"]);
    assert_eq!(subject.runtime.container_status(&stays).await.unwrap().state, ContainerState::Running);
    let ended = subject.runtime.container_status(&leaves).await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, 6));
    assert_eq!(log_text(&ended.log_path), "bye\n");
    assert!(processes_of(&house).iter().all(|pid| before.contains(pid)), "nothing was started again");
    // And everything still works.
    assert_eq!(exec(&subject, &stays, "echo still").await.1, "still\n");
    subject.runtime.start_container(&waits).await.unwrap();
    assert_eq!(subject.until_exited(&waits).await.exit_code, 8);
    subject.runtime.stop_container(&stays, Duration::ZERO).await.unwrap();
    assert_eq!(subject.runtime.container_status(&stays).await.unwrap().exit_code, 137);
    house.close(subject).await;
}

#[tokio::test]
async fn when_the_shim_dies_its_containers_die_and_the_sandbox_says_so() {
    let house = House::new("dies");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("dies")).await.unwrap();
    let id = subject.start(&sandbox, &subject.container("main", &["sleep", "1000"])).await.unwrap();
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(house.options.root_dir.join("sandboxes").join(&sandbox).join("sandbox.json")).unwrap())
            .unwrap();
    let pid = i32::try_from(record["shim_pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let ended = subject.until_exited(&id).await;
    assert_eq!(ended.exit_code, 137);
    wait_for("every process of the pod is gone", || processes_of(&house).is_empty()).await;
    assert_eq!(subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().state, SandboxState::NotReady);
    drop(subject);
    let subject = house.open().await;
    assert_eq!(subject.runtime.container_status(&id).await.unwrap().exit_code, 137);
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(house.network.has(&format!("-{sandbox}")));
    house.close(subject).await;
}

/// In the records of earlier versions the network is the pod's, whichever of its sandboxes has it.
#[tokio::test]
async fn a_network_of_before_goes_with_the_last_sandbox_of_its_pod() {
    let house = House::new("before");
    let subject = house.open().await;
    let mut pod = subject.pod("before");
    let old = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    subject.runtime.stop_pod_sandbox(&old).await.unwrap();
    pod.metadata.attempt = 1;
    let new = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    drop(subject);
    for sandbox in [&old, &new] {
        assert!(house.network.has(&format!("+{sandbox}")));
        let path = house.options.root_dir.join("sandboxes").join(sandbox).join("sandbox.json");
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(record.as_object_mut().unwrap().remove("network_key"), Some(sandbox.as_str().into()));
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    }
    let subject = house.open().await;
    subject.runtime.remove_pod_sandbox(&old).await.unwrap();
    assert!(!house.network.has("-uid-before"), "the newer one has it");
    subject.runtime.remove_pod_sandbox(&new).await.unwrap();
    assert!(house.network.has("-uid-before"));
    house.close(subject).await;
}

#[tokio::test]
async fn half_made_sandboxes_are_undone() {
    let house = House::new("half");
    let subject = house.open().await;
    let good = subject.runtime.run_pod_sandbox(&subject.pod("good")).await.unwrap();
    let half = subject.runtime.run_pod_sandbox(&subject.pod("half")).await.unwrap();
    let id = subject.start(&half, &subject.container("main", &["sleep", "1000"])).await.unwrap();
    // And a container whose maker was killed after its cgroup was there, and before its record was.
    let torn = subject.runtime.create_container(&good, &subject.container("torn", &["true"])).await.unwrap();
    drop(subject);
    std::fs::remove_file(house.options.root_dir.join(format!("sandboxes/{good}/containers/{torn}/container.json"))).unwrap();
    let path = |sandbox: &str| house.options.root_dir.join("sandboxes").join(sandbox).join("sandbox.json");
    let text = std::fs::read_to_string(path(&half)).unwrap();
    std::fs::write(path(&half), text.replace("\"Ready\"", "\"Creating\"")).unwrap();
    std::fs::create_dir_all(house.options.root_dir.join("sandboxes/torn")).unwrap();
    let subject = house.open().await;
    let left: Vec<String> = subject.runtime.list_pod_sandboxes().await.unwrap().into_iter().map(|s| s.id).collect();
    assert_eq!(left, [good]);
    assert!(subject.runtime.container_status(&id).await.is_err());
    assert!(!path(&half).exists() && !house.options.root_dir.join("sandboxes/torn").exists());
    assert!(subject.runtime.container_status(&torn).await.is_err());
    assert_eq!(sh(&format!("find /sys/fs/cgroup -type d -name {torn} 2>/dev/null || true")), "");
    house.close(subject).await;
}

#[tokio::test]
async fn after_a_reboot_nothing_runs_and_ends_are_remembered() {
    let house = House::new("reboot");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("reboot")).await.unwrap();
    let ran = subject.start(&sandbox, &subject.container("ran", &["sleep", "1000"])).await.unwrap();
    let ended = subject.start(&sandbox, &subject.container("ended", &["sh", "-c", "exit 2"])).await.unwrap();
    subject.until_exited(&ended).await;
    drop(subject);
    let path = house.options.root_dir.join("sandboxes").join(&sandbox).join("sandbox.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["boot_id"] = "another".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let subject = house.open().await;
    assert_eq!(subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().state, SandboxState::NotReady);
    assert_eq!(subject.runtime.container_status(&ran).await.unwrap().exit_code, 137);
    assert_eq!(subject.runtime.container_status(&ended).await.unwrap().exit_code, 2);
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}

#[tokio::test]
async fn reset_clears_a_crowded_host() {
    let house = House::new("reset");
    let subject = house.open().await;
    for name in ["a", "b"] {
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod(name)).await.unwrap();
        subject.start(&sandbox, &subject.container("main", &["sleep", "1000"])).await.unwrap();
    }
    let crowded = Remains::look(&house.options).unwrap();
    assert!(crowded.processes.len() >= 4 && crowded.mounts.len() == 2 && crowded.cgroup && crowded.sandboxes.len() == 2, "{crowded:?}");
    house.close(subject).await;
}
