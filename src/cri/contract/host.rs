//! What a container shares with its host, and what it has of its own: mounts that spread or stay, kernel parameters,
//! namespaces of the host.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::inside::{exec, run, script};
use super::{Subject, must};
use crate::cri::{Mount, PodSandboxConfig};

pub(super) async fn host_suite(subject: &Subject) {
    mounts_spread_as_they_are_told(subject).await;
    what_cannot_spread_is_refused(subject).await;
    what_is_not_there_to_be_mounted_is_made(subject).await;
    figures_of_the_host_can_be_hidden(subject).await;
    kernel_parameters_are_the_pods(subject).await;
    processes_and_ipc_may_be_the_hosts(subject).await;
}

/// A tmpfs of the host whose mounts others see.
struct Shared(PathBuf);

impl Shared {
    /// Where there is something mounted, here and below, by the host's own account.
    fn mounts(&self) -> Vec<PathBuf> {
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = info.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(&self.0)).collect()
    }

    fn new(dir: PathBuf) -> Self {
        let made = || -> std::io::Result<()> {
            std::fs::create_dir_all(&dir)?;
            rustix::mount::mount("contract", &dir, "tmpfs", MountFlags::empty(), None)?;
            Ok(rustix::mount::mount_change(&dir, MountPropagationFlags::SHARED)?)
        };
        made().unwrap_or_else(|error| panic!("share {}: {error}", dir.display()));
        Self(dir)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // With all that was mounted in it.
        rustix::mount::unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

async fn mounts_spread_as_they_are_told(subject: &Subject) {
    let shared = Shared::new(subject.logs.join("spread"));
    let dir = &shared.0;
    let mount = |name: &str, propagation: &str| Mount {
        container_path: Path::new("/mnt").join(name),
        host_path: dir.clone(),
        propagation: propagation.into(),
        ..Mount::default()
    };
    let mut config = subject.container("spread", &["sleep", "100000"]);
    config.mounts = vec![mount("private", "private"), mount("slave", "rslave"), mount("shared", "rshared")];
    config.security.privileged = true;
    let pod = PodSandboxConfig { privileged: true, ..subject.pod("spread") };
    let sandbox = must(subject.runtime.run_pod_sandbox(&pod).await);
    let id = must(subject.start(&sandbox, &config).await);
    let mut told = must(subject.runtime.container_status(&id).await).mounts;
    told.retain(|mount| mount.container_path.starts_with("/mnt"));
    let told: Vec<_> = told.iter().map(|mount| (mount.host_path == *dir, mount.readonly, mount.propagation.as_str())).collect();
    assert_eq!(told[1..], [(true, false, "rslave"), (true, false, "rshared")], "and first {:?}", told[0]);
    let mut sibling = subject.container("sibling", &["sleep", "100000"]);
    sibling.mounts = vec![mount("slave", "rslave")];
    let sibling = must(subject.start(&sandbox, &sibling).await);
    let later = dir.join("later");
    let mounted = std::fs::create_dir(&later)
        .and_then(|()| Ok(rustix::mount::mount("contract", &later, "tmpfs", MountFlags::empty(), None)?))
        .and_then(|()| std::fs::write(later.join("file"), ""));
    mounted.unwrap_or_else(|error| panic!("mount in {}: {error}", dir.display()));
    let look = |file: &str| format!("for at in private slave shared; do test -e /mnt/$at/{file} && echo $at; done; true");
    assert_eq!(exec(subject, &id, &look("later/file")).await, "slave\nshared", "what the host has mounted");
    assert_eq!(exec(subject, &sibling, &look("later/file")).await, "slave", "what the host has mounted, where nothing is shared");
    rustix::mount::unmount(&later, UnmountFlags::empty()).unwrap_or_else(|error| panic!("what is mounted is kept busy: {error}"));
    assert_eq!(exec(subject, &id, &look("later/file")).await, "", "what the host has unmounted");
    let text = "for at in private slave shared; do mkdir /mnt/$at/of-$at && mount -t tmpfs none /mnt/$at/of-$at && touch /mnt/$at/of-$at/file; done";
    exec(subject, &id, text).await;
    let told: Vec<_> = ["private", "slave", "shared"].into_iter().filter(|at| dir.join(format!("of-{at}/file")).exists()).collect();
    assert_eq!(told, ["shared"], "what the container has mounted");
    assert_eq!(exec(subject, &sibling, &look("of-shared/file")).await, "slave", "what a sibling has mounted");
    let text = "mkdir /mnt/shared/gone && mount -t tmpfs none /mnt/shared/gone && busybox umount /mnt/shared/gone && echo done";
    assert_eq!(exec(subject, &id, text).await, "done");
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
    // What a container has mounted it has to unmount itself (Kubernetes, "Mount propagation").
    assert_eq!(shared.mounts(), [dir.clone(), dir.join("of-shared")], "what is left");
}

async fn what_cannot_spread_is_refused(subject: &Subject) {
    let unshared = Shared::new(subject.logs.join("unshared"));
    let private = rustix::mount::mount_change(&unshared.0, MountPropagationFlags::PRIVATE);
    private.unwrap_or_else(|error| panic!("make {} private: {error}", unshared.0.display()));
    let pod = PodSandboxConfig { privileged: true, ..subject.pod("unshared") };
    let sandbox = must(subject.runtime.run_pod_sandbox(&pod).await);
    for (propagation, wanted) in [("rshared", "but it is not a shared mount"), ("rslave", "but it is not a shared or slave mount")] {
        let mut config = subject.container("unshared", &["sleep", "100000"]);
        config.mounts = vec![Mount {
            container_path: "/mnt".into(),
            host_path: unshared.0.clone(),
            propagation: propagation.into(),
            ..Mount::default()
        }];
        let made = subject.runtime.create_container(&sandbox, &config).await;
        let refused = made.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains(wanted), "a volume that cannot spread as {propagation}: {refused:?}");
    }
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

/// A kubelet leaves `hostPath` without a type to its runtime.
async fn what_is_not_there_to_be_mounted_is_made(subject: &Subject) {
    let missing = subject.logs.join("missing/below");
    let mut config = subject.container("missing", &["sleep", "100000"]);
    config.mounts = vec![Mount { container_path: "/mnt".into(), host_path: missing.clone(), ..Mount::default() }];
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("missing")).await);
    let id = must(subject.start(&sandbox, &config).await);
    exec(subject, &id, "echo kept > /mnt/file").await;
    let kept = std::fs::read_to_string(missing.join("file"));
    assert_eq!(kept.as_deref().unwrap_or_default(), "kept\n", "{kept:?}");
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

/// As lxcfs does, and nothing else of /proc.
async fn figures_of_the_host_can_be_hidden(subject: &Subject) {
    let figures = subject.logs.join("uptime");
    std::fs::write(&figures, "4 2\n").unwrap_or_else(|error| panic!("write {}: {error}", figures.display()));
    let mount = |at: &str| Mount { container_path: at.into(), host_path: figures.clone(), ..Mount::default() };
    let mut config = subject.container("figures", &["cat", "/proc/uptime"]);
    config.mounts = vec![mount("/proc/uptime")];
    let (ended, lines) = run(subject, &subject.pod("figures"), &config).await;
    assert_eq!((ended.exit_code, lines), (0, vec!["4 2".to_owned()]));
    config.mounts = vec![mount("/proc/sysrq-trigger")];
    let sandbox = must(subject.runtime.run_pod_sandbox(&subject.pod("trigger")).await);
    assert!(subject.start(&sandbox, &config).await.is_err());
    must(subject.runtime.remove_pod_sandbox(&sandbox).await);
}

async fn kernel_parameters_are_the_pods(subject: &Subject) {
    let show = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max; cat /proc/sys/net/ipv4/ip_local_port_range | tr '\\t' ' '";
    let (_, before) = run(subject, &subject.pod("before"), &script(subject, "plain", show)).await;
    let mut pod = subject.pod("tuned");
    let set = [("kernel.shm_rmid_forced", "1"), ("kernel.msgmax", "16384"), ("fs.mqueue.msg_max", "100")];
    pod.sysctls = set.map(|(name, value)| (name.into(), value.into())).into();
    let mut wanted = vec!["1".to_owned(), "16384".to_owned(), "100".to_owned(), before.last().cloned().unwrap_or_default()];
    if !subject.host_network {
        pod.sysctls.insert("net.ipv4.ip_local_port_range".into(), "2000 3000".into());
        wanted[3] = "2000 3000".into();
    }
    let (_, lines) = run(subject, &pod, &script(subject, "tuned", show)).await;
    assert_eq!(lines, wanted);
    let (_, after) = run(subject, &subject.pod("after"), &script(subject, "plain", show)).await;
    assert!(before == after && before[..3] != wanted[..3], "another pod has its own: {after:?}");
}

async fn processes_and_ipc_may_be_the_hosts(subject: &Subject) {
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default().display().to_string();
    for (processes, ipc) in [(true, false), (false, true), (false, false)] {
        let pod = PodSandboxConfig { host_pid: processes, host_ipc: ipc, ..subject.pod(&format!("of-host-{processes}-{ipc}")) };
        let (_, lines) = run(subject, &pod, &script(subject, "of-host", "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc")).await;
        let same: Vec<_> = lines.iter().zip([own("pid"), own("ipc")]).map(|(theirs, ours)| *theirs == ours).collect();
        assert_eq!(same, [processes, ipc]);
    }
}
