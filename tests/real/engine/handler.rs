//! Containers of another OCI runtime, in our sandboxes.

use podbay::cri::contract::inside_suite;

use super::*;

const HANDLERS: [&str; 2] = ["crun", "runc"];

/// Debian's crun wants a host's cgroups of one version; where there are both it is shown those of v1.
const CRUN: &str = r#"#!/bin/sh
test -e /sys/fs/cgroup/unified/cgroup.controllers || exec /usr/bin/crun "$@"
exec unshare -m --propagation unchanged sh -c 'mount -t tmpfs none /sys/fs/cgroup/unified && exec /usr/bin/crun "$@"' crun "$@"
"#;

/// A crun that works on this host.
pub fn write_crun(at: &Path) {
    std::fs::write(at, CRUN).unwrap();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(super) fn with_handlers(name: &str) -> House {
    let mut house = House::new(name);
    let crun = house.dir.path().join("crun");
    write_crun(&crun);
    house.options.handlers.insert("runc".to_owned(), "/usr/sbin/runc".into());
    house.options.handlers.insert("crun".to_owned(), crun);
    house
}

async fn open(house: &House, handler: &str) -> Subject {
    Subject { handler: handler.to_owned(), ..house.open().await }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_another_oci_runtime_are_as_ours() {
    for handler in HANDLERS {
        let house = with_handlers(handler);
        let subject = open(&house, handler).await;
        assert_eq!(subject.runtime.handlers().await, ["", "podbay", "crun", "runc"]);
        suite(&subject).await;
        stream_suite(&subject).await;
        house.close(subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_another_oci_runtime_find_what_ours_find() {
    for handler in HANDLERS {
        let house = with_handlers(&format!("{handler}-inside"));
        let subject = open(&house, handler).await;
        inside_suite(&subject).await;
        house.close(subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_that_runtimes_and_run_on_without_the_engine() {
    for handler in HANDLERS {
        lives_on(handler).await;
    }
}

async fn lives_on(handler: &str) {
    let house = with_handlers(&format!("{handler}-lives"));
    let subject = open(&house, handler).await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("lives")).await.unwrap();
    assert_eq!(subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().runtime_handler, handler);
    let mut config = script(&subject, "echo one; while ! test -e /tmp/go; do sleep 0.01; done; echo two; id -u; exit 5");
    config.security.run_as_username = "app".to_owned();
    let id = subject.start(&sandbox, &config).await.unwrap();
    let known = || {
        let root = house.options.run_dir.join("sandboxes").join(&sandbox).join("oci");
        let out =
            std::process::Command::new(&house.options.handlers[handler]).arg("--root").arg(root).args(["state", &id]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert!(known().contains("\"running\""), "{}", known());
    drop(subject);
    let subject = open(&house, handler).await;
    assert_eq!(subject.runtime.container_status(&id).await.unwrap().state, ContainerState::Running);
    assert_eq!(exec(&subject, &id, "echo in; id -u; exit 3").await, (3, "in\n1000\n".to_owned()));
    let tty = ExecRequest {
        command: ["sh", "-c", "stty size; exit 4"].map(str::to_owned).to_vec(),
        tty: true,
        stdin: false,
        stdout: true,
        stderr: false,
    };
    assert_eq!(subject.runtime.exec(&id, &tty).await.unwrap().exit.await.unwrap(), Ok(4));
    assert_eq!(exec(&subject, &id, "touch /tmp/go").await.0, 0);
    let ended = subject.until_exited(&id).await;
    assert_eq!((ended.exit_code, log_text(&ended.log_path)), (5, "one\ntwo\n1000\n".to_owned()));
    subject.runtime.remove_container(&id).await.unwrap();
    assert!(!known().contains("running") && !known().contains("stopped"), "it has forgotten it");
    let terminal = ContainerConfig { tty: true, ..script(&subject, "test -t 1 && echo terminal") };
    let id = subject.start(&sandbox, &terminal).await.unwrap();
    let ended = subject.until_exited(&id).await;
    assert!(ended.exit_code == 0 && log_text(&ended.log_path).trim_end().ends_with("terminal"));
    house.close(subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_made_there_cannot_be_opened() {
    for handler in HANDLERS {
        let house = with_handlers(&format!("{handler}-device"));
        let subject = open(&house, handler).await;
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("device")).await.unwrap();
        // In /dev, which is no nodev mount there.
        let config = script(&subject, "mknod /dev/b b 8 0 && echo made; cat /dev/b; true < /dev/zero && echo zero");
        let id = subject.start(&sandbox, &config).await.unwrap();
        let ended = subject.until_exited(&id).await;
        let said = log_text(&ended.log_path);
        assert!(said.contains("made\n") && said.contains("Operation not permitted") && said.contains("zero\n"), "{handler}: {said}");
        house.close(subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_users_are_theirs() {
    for handler in HANDLERS {
        let house = with_handlers(&format!("{handler}-users"));
        super::isolation::its_root_is_nobody(open(&house, handler).await, house).await;
        let house = with_handlers(&format!("{handler}-shared"));
        let subject = open(&house, handler).await;
        let users = Some(podbay::cri::IdRange { host: 1_310_720, length: 65_536 });
        let pod = PodSandboxConfig { users, share_process_namespace: true, ..subject.pod("shared") };
        let refused = subject.runtime.run_pod_sandbox(&pod).await.unwrap_err().to_string();
        assert!(refused.contains("a shared process namespace"), "{refused}");
        house.close(subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_cannot_do_it_is_said() {
    for handler in HANDLERS {
        cannot(handler).await;
    }
}

async fn cannot(handler: &str) {
    let mut house = with_handlers(&format!("{handler}-cannot"));
    house.options.handlers.insert("gone".to_owned(), "/no/such/runtime".into());
    let subject = open(&house, handler).await;
    let mut pod = subject.pod("nobody");
    pod.runtime_handler = "nobody".to_owned();
    let refused = subject.runtime.run_pod_sandbox(&pod).await.unwrap_err().to_string();
    assert!(refused.contains("no runtime for \"nobody\" is configured"), "{refused}");
    let mut pod = subject.pod("gone");
    pod.runtime_handler = "gone".to_owned();
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let refused = subject.start(&sandbox, &subject.container("main", &["true"])).await.unwrap_err().to_string();
    assert!(refused.contains("/no/such/runtime") && refused.contains("no such program"), "{refused}");
    // What the runtime says is passed on, and a user nobody knows is refused before it is asked.
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("wrong")).await.unwrap();
    let refused = subject.start(&sandbox, &subject.container("main", &["/none"])).await.unwrap_err().to_string();
    assert!(refused.contains("/none") && refused.to_lowercase().contains("no such file") && !refused.contains("{\""), "{refused}");
    let mut config = subject.container("who", &["true"]);
    config.security.run_as_username = "nobody-knows".to_owned();
    let refused = subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string();
    assert!(refused.contains("nobody-knows"), "{refused}");
    house.close(subject).await;
}

/// A directory of the host whose mounts others see.
struct Shared(std::path::PathBuf);

impl Shared {
    fn of(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        rustix::mount::mount_bind(dir, dir).unwrap();
        let shared = Self(dir.to_owned());
        rustix::mount::mount_change(dir, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        shared
    }

    /// What the host has mounted, here and below.
    fn mounts(&self) -> Vec<std::path::PathBuf> {
        let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = info.lines().filter_map(|line| line.split(' ').nth(4)).map(std::path::PathBuf::from);
        points.filter(|point| point.starts_with(&self.0)).collect()
    }

    fn at(&self, container_path: &str, propagation: &str) -> podbay::cri::Mount {
        podbay::cri::Mount {
            container_path: container_path.into(),
            host_path: self.0.clone(),
            propagation: propagation.into(),
            ..podbay::cri::Mount::default()
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

/// Of a volume in which the engine's own mounts are, as a storage driver has all of /var/lib.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_sees_what_they_mount_and_not_what_is_mounted_for_them() {
    for handler in HANDLERS {
        let house = with_handlers(&format!("{handler}-spread"));
        let shared = Shared::of(house.dir.path());
        let subject = open(&house, handler).await;
        let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("spread")).await.unwrap();
        let before = shared.mounts();
        let mut config = script(&subject, "mkdir /all/own && mount -t tmpfs none /all/own && echo mounted; sleep 100000");
        config.mounts = vec![shared.at("/all", "rshared"), shared.at("/inward", "rslave")];
        config.security.privileged = true;
        let id = subject.start(&sandbox, &config).await.unwrap();
        let log = subject.runtime.container_status(&id).await.unwrap().log_path;
        wait_for("it has mounted", || log_text(&log) == "mounted\n").await;
        let own = shared.0.join("own");
        assert_eq!(shared.mounts(), [before.clone(), vec![own.clone()]].concat(), "{handler}");
        subject.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        subject.runtime.remove_container(&id).await.unwrap();
        assert_eq!(shared.mounts(), [before, vec![own.clone()]].concat(), "{handler}");
        rustix::mount::unmount(&own, rustix::mount::UnmountFlags::empty()).unwrap();
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        assert_eq!(shared.mounts(), std::slice::from_ref(&shared.0), "{handler}");
        drop(shared);
        house.close(subject).await;
    }
}

/// Nothing of theirs reaches the host, whatever they ask for (mount_namespaces(7)).
#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_mounts_reaches_pods_with_their_own_users() {
    for handler in ["", "crun", "runc"] {
        let house = with_handlers(&format!("{handler}-downstream"));
        let shared = Shared::of(&house.dir.path().join("volume"));
        let subject = open(&house, handler).await;
        let users = Some(podbay::cri::IdRange { host: 1_310_720, length: 65_536 });
        let pod = PodSandboxConfig { users, ..subject.pod("downstream") };
        let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
        let mut config = subject.container("main", &["sleep", "100000"]);
        config.mounts = ["private", "rslave", "rshared"].map(|one| shared.at(&format!("/mnt/{one}"), one)).into();
        config.mounts.iter_mut().for_each(|mount| mount.ids = users);
        config.security.add_capabilities = vec!["SYS_ADMIN".to_owned()];
        config.security.seccomp = podbay::cri::Seccomp::Unconfined;
        let id = subject.start(&sandbox, &config).await.unwrap();
        let later = shared.0.join("later");
        std::fs::create_dir(&later).unwrap();
        rustix::mount::mount("later", &later, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        std::fs::write(later.join("file"), "").unwrap();
        let text = "cd /mnt; ls */later/file; mkdir rshared/own; mount -t tmpfs own rshared/own && touch rshared/own/file && echo done";
        let seen = exec(&subject, &id, text).await;
        assert_eq!(seen, (0, "rshared/later/file\nrslave/later/file\ndone\n".to_owned()), "{handler}");
        assert_eq!(shared.mounts(), [shared.0.clone(), later.clone()], "{handler}");
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        rustix::mount::unmount(&later, rustix::mount::UnmountFlags::empty()).unwrap();
        drop(shared);
        house.close(subject).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_somebody_elses_by_now_is_not_joined() {
    for handler in HANDLERS {
        reused(handler).await;
    }
}

async fn reused(handler: &str) {
    let house = with_handlers(&format!("{handler}-reused"));
    let subject = open(&house, handler).await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("reused")).await.unwrap();
    let target = subject.start(&sandbox, &subject.container("target", &["sleep", "1000"])).await.unwrap();
    let number = subject.runtime.details(&target).await["pid"].as_u64().unwrap();
    let mut config = subject.container("among", &["sleep", "1000"]);
    config.security.processes_of = target.clone();
    let among = subject.runtime.create_container(&sandbox, &config).await.unwrap();
    let bundle = house.options.run_dir.join("sandboxes").join(&sandbox).join(&among);
    assert!(!std::fs::read_to_string(bundle.join("config.json")).unwrap().contains(&format!("/proc/{number}/")));
    subject.runtime.stop_container(&target, Duration::ZERO).await.unwrap();
    // A process of the host gets the number, and with it a namespace in which there is everybody.
    let start = Instant::now();
    let mut other = loop {
        assert!(start.elapsed() < PATIENCE, "nobody got number {number}");
        std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        if u64::from(child.id()) == number {
            break child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let started = subject.runtime.start_container(&among).await;
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(started.is_err(), "{handler}: it is in the host's processes");
    subject.runtime.remove_container(&among).await.unwrap();
    assert!(!bundle.exists(), "the namespace is let go of");
    house.close(subject).await;
}
