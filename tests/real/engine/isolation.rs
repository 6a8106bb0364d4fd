//! What keeps a pod apart from its host: user namespaces, seccomp profiles, groups, read-only trees.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use podbay::cri::contract::Subject;
use podbay::cri::{Device, IdRange, ImageVolume, Mount, PodSandboxConfig, Seccomp};

use super::{House, exec, run, script};

const IDS: IdRange = IdRange { host: 1_310_720, length: 65_536 };

fn own_users(subject: &Subject, name: &str) -> PodSandboxConfig {
    PodSandboxConfig { users: Some(IDS), ..subject.pod(name) }
}

fn mount(container: &str, host: &Path, ids: Option<IdRange>) -> Mount {
    Mount { container_path: container.into(), host_path: host.into(), ids, ..Mount::default() }
}

/// A directory that everybody may write into.
fn volume(house: &House, name: &str) -> std::path::PathBuf {
    let dir = house.dir.path().join(name);
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

#[tokio::test]
async fn root_of_a_pod_with_users_of_its_own_is_nobody_on_the_host() {
    let house = House::new("nobody");
    its_root_is_nobody(house.open().await, house).await;
}

/// Of the runtime that the subject names.
pub(super) async fn its_root_is_nobody(subject: Subject, house: House) {
    assert!(subject.runtime.features(&subject.handler).await.unwrap().user_namespaces);
    let (mapped, plain) = (volume(&house, "mapped"), volume(&house, "plain"));
    let secret = plain.join("secret");
    std::fs::write(&secret, "of the host\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let sandbox = subject.runtime.run_pod_sandbox(&own_users(&subject, "users")).await.unwrap();
    let mut config = subject.container("main", &["sh", "-c", "echo out > /dev/stdout; touch /made; sleep 1000"]);
    config.mounts = vec![mount("/mapped", &mapped, Some(IDS)), mount("/plain", &plain, None), mount("/mapped/deep/er", &mapped, Some(IDS))];
    let id = subject.start(&sandbox, &config).await.unwrap();
    let pid = subject.runtime.details(&id).await["pid"].as_i64().unwrap();
    let text = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1310720", "65536"]);
    assert_eq!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), IDS.host);
    // Of the pod's own, every namespace but that of process ids belongs to the new one.
    let link = |pid: i64, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let own = i64::from(std::process::id());
    for name in ["user", "mnt", "net", "ipc", "uts", "pid", "cgroup"] {
        assert_ne!(link(pid, name), link(own, name), "{name}");
    }
    let (code, text) =
        exec(&subject, &id, "until [ -e /made ]; do sleep 0.01; done; id -u; cat /proc/self/uid_map; stat -c '%u:%g' / /made /dev /dev/shm /etc/hosts /mapped/deep").await;
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((code, &words[..4]), (0, &["0", "0", "1310720", "65536"][..]), "{text}");
    assert_eq!(words[4..], ["0:0"; 6], "{text}");
    // Its root file system: the host sees other ids.
    let upper = house.dir.path().join(format!("root/sandboxes/{sandbox}/containers/{id}/upper"));
    assert_eq!(std::fs::metadata(upper.join("made")).unwrap().uid(), IDS.host);
    // A mapped volume: on the disk an id is what it is inside, as with Kubernetes.
    assert_eq!(exec(&subject, &id, "touch /mapped/root; busybox chown 1000:77 /mapped/root; echo x > /dev/shm/y").await.0, 0);
    let made = std::fs::metadata(mapped.join("root")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 77));
    // One that is not mapped is the host's: its root is nobody here.
    let (_, text) =
        exec(&subject, &id, "stat -c %u /plain/secret; cat /plain/secret; echo x > /plain/secret; busybox chown 0 /plain/secret").await;
    assert!(text.starts_with("65534\n") && !text.contains("of the host"), "{text}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of the host\n");
    assert_eq!(exec(&subject, &id, "touch /plain/new").await.0, 0);
    assert_eq!(std::fs::metadata(plain.join("new")).unwrap().uid(), IDS.host);
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}

#[tokio::test]
async fn two_pods_with_users_of_their_own_share_none() {
    let house = House::new("apart");
    let subject = house.open().await;
    let shared = volume(&house, "shared");
    let mut ids = Vec::new();
    for (name, host) in [("one", 131_072), ("two", 196_608)] {
        let range = IdRange { host, length: 65_536 };
        let pod = PodSandboxConfig { users: Some(range), share_process_namespace: true, ..subject.pod(name) };
        let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
        let mut config = subject.container("main", &["sleep", "1000"]);
        config.mounts = vec![mount("/shared", &shared, None)];
        ids.push((sandbox.clone(), subject.start(&sandbox, &config).await.unwrap(), host));
    }
    for (_, id, host) in &ids {
        let command = format!("umask 077; echo mine > /shared/{host}; ls /proc | busybox grep -c '^[0-9]'; cat /proc/1/comm");
        let (code, text) = exec(&subject, id, &command).await;
        assert!(code == 0 && text.ends_with("podbay-init\n"), "{text}");
        assert_eq!(std::fs::metadata(shared.join(host.to_string())).unwrap().uid(), *host);
    }
    let (_, text) = exec(&subject, &ids[1].1, "cat /shared/131072; cat /shared/196608").await;
    assert!(text.contains("Permission denied") && text.matches("mine\n").count() == 1, "{text}");
    for (sandbox, ..) in ids {
        let status = subject.runtime.pod_sandbox_status(&sandbox).await.unwrap();
        assert_eq!(status.namespaces.users.map(|range| range.length), Some(65_536));
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    house.close(subject).await;
}

/// What root may do inside ends there, and what was put out of its sight stays there.
#[tokio::test]
async fn every_capability_of_a_pods_own_users_ends_at_the_host() {
    let house = House::new("confined");
    let subject = house.open().await;
    let kept = volume(&house, "kept");
    let mut config = script(
        &subject,
        "mount -t tmpfs none /tmp && echo mounted; busybox umount /proc/sys && echo UNCOVERED; busybox umount /sys/firmware && \
         echo UNCOVERED; busybox umount /kept && echo GONE; \
         mount -o remount,bind,rw /kept && touch /kept/x && echo WRITTEN; mknod /tmp/sda b 8 0 && echo NODE; \
         echo 1 > /proc/sys/kernel/panic && echo PANIC; busybox sysctl -w net.ipv4.ip_forward=1 && echo forwarded; \
         hostname other && echo named; kill -0 -1; echo c > /proc/sysrq-trigger && echo SYSRQ; \
         echo $$ > /sys/fs/cgroup/cgroup.procs && echo CGROUP; busybox ping -c 1 -W 1 127.0.0.1 > /dev/null && echo pinged; echo end",
    );
    config.security.add_capabilities = vec!["ALL".into()];
    config.security.seccomp = Seccomp::Unconfined;
    config.security.unmasked_proc = false;
    config.mounts = vec![Mount { readonly: true, ..mount("/kept", &kept, Some(IDS)) }];
    let mut pod = own_users(&subject, "confined");
    pod.sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    let (code, text) = run(&subject, &pod, config).await;
    assert_eq!(code, 0, "{text}");
    for word in ["UNCOVERED", "GONE", "WRITTEN", "NODE", "PANIC", "SYSRQ", "CGROUP"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    for word in ["mounted\n", "named\n", "pinged\n", "end\n"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    house.close(subject).await;
}

#[tokio::test]
async fn a_terminal_belongs_to_the_pods_own_users() {
    let house = House::new("userstty");
    let subject = house.open().await;
    let mut config = script(&subject, "test -t 0 && stat -c 'owner %u' /dev/console && echo said > /dev/console; echo tried > /dev/stdout");
    config.tty = true;
    let (code, text) = run(&subject, &own_users(&subject, "userstty"), config).await;
    assert!(code == 0 && ["owner 0", "said", "tried"].iter().all(|word| text.contains(word)), "{text}");
    house.close(subject).await;
}

#[tokio::test]
async fn what_a_user_namespace_cannot_be_is_refused() {
    let house = House::new("refused");
    let subject = house.open().await;
    let pods = [
        PodSandboxConfig { host_network: true, ..own_users(&subject, "a") },
        PodSandboxConfig { host_pid: true, ..own_users(&subject, "b") },
        PodSandboxConfig { host_ipc: true, ..own_users(&subject, "c") },
    ];
    for pod in pods {
        let refused = subject.runtime.run_pod_sandbox(&pod).await.unwrap_err().to_string();
        assert!(refused.contains("user namespace"), "{refused}");
    }
    // Ids that the pod does not have, and one that stands for "no change".
    let sandbox = subject.runtime.run_pod_sandbox(&own_users(&subject, "d")).await.unwrap();
    for user in [65_536, 1_310_720, u32::MAX - 1, u32::MAX] {
        let mut config = subject.container(&format!("u{user}"), &["id"]);
        config.security.run_as_user = Some(user);
        let refused = subject.start(&sandbox, &config).await.unwrap_err().to_string();
        assert!(refused.contains(&user.to_string()), "{refused}");
    }
    let mut other = subject.container("other", &["id"]);
    other.mounts = vec![mount("/x", house.dir.path(), Some(IdRange { host: 65_536, length: 65_536 }))];
    let refused = subject.start(&sandbox, &other).await.unwrap_err().to_string();
    assert!(refused.contains("its ids are not those"), "{refused}");
    let mut unmappable = subject.container("unmappable", &["id"]);
    unmappable.mounts = vec![mount("/x", Path::new("/proc/sys"), Some(IDS))];
    let refused = subject.start(&sandbox, &unmappable).await.unwrap_err().to_string();
    assert!(refused.contains("cannot map ids"), "{refused}");
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}

/// To the kernel 4294967295 means "leave it as it is": root.
#[tokio::test]
async fn no_container_runs_as_the_number_that_means_no_change() {
    let house = House::new("overflow");
    let image = &house.images["busybox"];
    std::fs::write(image.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nnone:x:4294967295:4294967295::/:/bin/sh\n").unwrap();
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("overflow")).await.unwrap();
    let named = |config: &mut podbay::cri::ContainerConfig| config.security.run_as_username = "none".into();
    let numbered = |config: &mut podbay::cri::ContainerConfig| config.security.run_as_user = Some(u32::MAX);
    let grouped = |config: &mut podbay::cri::ContainerConfig| config.security.supplemental_groups = vec![u32::MAX];
    let changes: [&dyn Fn(&mut podbay::cri::ContainerConfig); 3] = [&named, &numbered, &grouped];
    for (index, change) in changes.into_iter().enumerate() {
        let mut config = subject.container(&format!("c{index}"), &["id"]);
        change(&mut config);
        let refused = subject.start(&sandbox, &config).await.unwrap_err().to_string();
        assert!(refused.contains("4294967295"), "{refused}");
    }
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}

#[tokio::test]
async fn a_seccomp_profile_of_the_host_is_kept_to() {
    let house = House::new("profile");
    let subject = house.open().await;
    let file = house.dir.path().join("profile.json");
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
                     {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
    std::fs::write(&file, rules).unwrap();
    let mut config = script(&subject, "busybox mkdir /tmp/x; touch /tmp/y && echo made");
    config.security.seccomp = Seccomp::Localhost(file.clone());
    let (_, text) = run(&subject, &subject.pod("profile"), config.clone()).await;
    assert!(text.contains("No space left on device") && text.contains("made\n"), "{text}");
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("broken")).await.unwrap();
    for (bad, word) in [(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "NOTIFY"), ("{", "EOF"), ("", "EOF")] {
        std::fs::write(&file, bad).unwrap();
        let refused = subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
    config.security.seccomp = Seccomp::Localhost("/dev/zero".into());
    assert!(subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string().contains("no file"));
    config.security.seccomp = Seccomp::Localhost(house.dir.path().join("missing"));
    assert!(subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string().contains("missing"));
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}

#[tokio::test]
async fn groups_of_the_image_are_taken_or_left() {
    let house = House::new("groups");
    let subject = house.open().await;
    let mut config = script(&subject, "id -G");
    config.security.run_as_user = Some(1000);
    config.security.supplemental_groups = vec![4000];
    let (_, merged) = run(&subject, &subject.pod("merge"), config.clone()).await;
    config.security.strict_groups = true;
    let (_, strict) = run(&subject, &subject.pod("strict"), config).await;
    assert_eq!((merged.as_str(), strict.as_str()), ("1000 77 4000\n", "1000 4000\n"));
    house.close(subject).await;
}

#[tokio::test]
async fn a_read_only_volume_is_read_only_all_the_way_down_where_that_is_asked_for() {
    let house = House::new("deep");
    let subject = house.open().await;
    let outer = volume(&house, "outer");
    let inner = outer.join("inner");
    std::fs::create_dir(&inner).unwrap();
    rustix::mount::mount("inner", &inner, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let mut config = script(&subject, "for m in /flat /deep; do touch $m/x || touch $m/inner/x && echo $m; done 2>/dev/null; true");
    let of = |path: &str, recursive_readonly| Mount { readonly: true, recursive_readonly, ..mount(path, &outer, None) };
    config.mounts = vec![of("/flat", false), of("/deep", true)];
    let (_, text) = run(&subject, &subject.pod("deep"), config).await;
    rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(text, "/flat\n");
    house.close(subject).await;
}

#[tokio::test]
async fn an_image_as_a_volume_is_read_by_all_and_changed_by_nobody() {
    let mut house = House::new("imagevolume");
    let secret = house.dir.path().join("secret");
    std::fs::write(&secret, "HOST").unwrap();
    let layers = [house.dir.path().join("top"), house.dir.path().join("below")];
    for layer in &layers {
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        std::fs::write(layer.join("etc").join(layer.file_name().unwrap()), "text").unwrap();
    }
    std::fs::write(layers[1].join("etc/top"), "hidden").unwrap();
    std::os::unix::fs::symlink("/etc", layers[0].join("inside")).unwrap();
    std::os::unix::fs::symlink(format!("/../../../../../../../..{}", house.dir.path().display()), layers[0].join("outside")).unwrap();
    house.images.insert("two".into(), std::env::join_paths(&layers).unwrap().into());
    house.images.insert("one".into(), layers[1].clone());
    let subject = house.open().await;
    let volume = |path: &str, image: &str, sub_path: &str, ids| Mount {
        container_path: path.into(),
        readonly: true,
        ids,
        image: Some(ImageVolume { image: image.into(), sub_path: sub_path.into(), ..ImageVolume::default() }),
        ..Mount::default()
    };
    // Who may change mounts makes nothing writable: not in a pod of the host's ids, nor in one of its own.
    let text = "exec 2>&1; cat /two/etc/top /two/etc/below /one/etc/top /inside/top; stat -c %u /two/etc /one/etc /inside/top; \
        for path in /two /one /inside; do mount -o remount,rw,bind $path; mount -o remount,rw $path; \
        touch $path/new && echo WRITTEN; echo x > $path/top && echo WRITTEN; done; echo end";
    for (name, ids) in [("imagevolume", None), ("imagevolume-users", Some(IDS))] {
        let pod = PodSandboxConfig { users: ids, ..subject.pod(name) };
        let mut config = script(&subject, text);
        config.security.add_capabilities = vec!["SYS_ADMIN".into()];
        config.mounts = vec![volume("/two", "two", "", ids), volume("/one", "one", "", ids), volume("/inside", "two", "inside", ids)];
        let (code, said) = run(&subject, &pod, config).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with("texttexthiddentext") && said.ends_with("end\n") && !said.contains("WRITTEN"), "{name}: {said}");
        let owners: Vec<&str> = said.lines().take(3).map(|line| line.trim_start_matches(|c: char| !c.is_ascii_digit())).collect();
        assert_eq!(owners, ["0", "0", "0"], "{name}: {said}");
    }
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("outside")).await.unwrap();
    let mut config = script(&subject, "true");
    config.mounts = vec![volume("/data", "two", "outside/secret", None)];
    let outside = subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string();
    assert!(outside.contains("the image has no outside/secret"), "{outside}");
    config.mounts = vec![volume("/data", "two", "", Some(IDS))];
    let foreign = subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string();
    assert!(foreign.contains("not those of the pod's user namespace"), "{foreign}");
    // What was mounted for a container goes with it, and with its pod.
    let mounted =
        || std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&format!("{}/run", house.dir.path().display())).count();
    let before = mounted();
    config.mounts = vec![volume("/data", "two", "etc", None)];
    let id = subject.runtime.create_container(&sandbox, &config).await.unwrap();
    assert_eq!(mounted(), before + 1);
    subject.runtime.remove_container(&id).await.unwrap();
    assert_eq!(mounted(), before);
    subject.start(&sandbox, &config).await.unwrap();
    subject.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(mounted(), 0);
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(std::fs::read_dir(layers[0].join("etc")).unwrap().count(), 1, "the image is whole");
    house.close(subject).await;
}

#[tokio::test]
async fn a_pod_without_a_name_renames_itself_and_not_its_host() {
    let house = House::new("nameless");
    let subject = house.open().await;
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let before = host();
    let pod = PodSandboxConfig { hostname: String::new(), ..subject.pod("nameless") };
    let mut config = script(&subject, "cat /etc/hostname; hostname renamed; hostname");
    config.security.add_capabilities = vec!["SYS_ADMIN".into()];
    let (_, said) = run(&subject, &pod, config).await;
    assert_eq!((said, host()), (format!("{before}renamed\n"), before));
    house.close(subject).await;
}

/// Whoever is given a device has it, with its owner and its mode as the host's affair.
#[tokio::test]
async fn a_given_device_stays_the_hosts() {
    let house = House::new("given");
    let subject = house.open().await;
    let data = volume(&house, "data");
    let given = |host: &str, container: &str| Device { host_path: host.into(), container_path: container.into(), permissions: "rw".into() };
    let before = std::fs::metadata("/dev/fuse").unwrap();
    let mut config = script(
        &subject,
        "true <> /dev/fuse && echo opened; true <> /data/deep/fuse && echo opened; stat -c %a /dev/fuse; \
         busybox chmod 666 /dev/fuse || echo kept; busybox chown 7 /dev/fuse || echo kept; busybox rm /dev/fuse || echo kept",
    );
    config.mounts = vec![mount("/data", &data, None)];
    config.devices = vec![given("/dev/fuse", "/dev/fuse"), given("/dev/fuse", "/data/deep/fuse"), given("/dev/null", "/dev/null")];
    let (_, text) = run(&subject, &subject.pod("given"), config.clone()).await;
    let mode = format!("{:o}", before.permissions().mode() & 0o7777);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("busybox") && !line.contains(": ")).collect();
    assert_eq!(lines, ["opened", "opened", &mode, "kept", "kept", "kept"], "{text}");
    let after = std::fs::metadata("/dev/fuse").unwrap();
    assert_eq!((before.mode(), before.uid(), before.ino()), (after.mode(), after.uid(), after.ino()));
    // Root of its own users may do with it what others may.
    let (_, text) = run(&subject, &own_users(&subject, "given-users"), config.clone()).await;
    assert!(text.contains("Permission denied") && !text.contains("opened"), "{text}");
    let mut privileged = script(&subject, "true <> /dev/own && echo opened; test -c /dev/fuse && echo there");
    privileged.security.privileged = true;
    privileged.devices = vec![given("/dev/fuse", "/dev/own"), given("/dev/fuse", "/dev/fuse")];
    let (_, text) = run(&subject, &subject.pod("given-all"), privileged).await;
    assert_eq!(text, "opened\nthere\n");
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("misplaced")).await.unwrap();
    for place in ["/proc/self/x", "/dev/../etc/x", "/dev/null"] {
        config.devices = vec![given("/dev/fuse", place)];
        let refused = subject.runtime.create_container(&sandbox, &config).await.unwrap_err().to_string();
        assert!(refused.contains("/dev/fuse") && refused.contains(place), "{refused}");
    }
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}

#[tokio::test]
async fn ambient_capabilities_are_whoever_it_runs_as() {
    let house = House::new("ambient");
    let subject = house.open().await;
    let show = "grep -E 'CapInh|CapPrm|CapEff|CapAmb' /proc/self/status | cut -f2";
    let mut config = script(&subject, show);
    config.security.add_ambient_capabilities = vec!["NET_ADMIN".into()];
    config.security.drop_capabilities = vec!["ALL".into()];
    config.security.no_new_privs = true;
    config.security.run_as_user = Some(1000);
    let own = format!("{:016x}\n", 1 << 12);
    let (_, text) = run(&subject, &subject.pod("ambient"), config.clone()).await;
    assert_eq!(text, own.repeat(4));
    config.security.run_as_user = None;
    let (_, text) = run(&subject, &subject.pod("ambient-root"), config.clone()).await;
    assert_eq!(text, own.repeat(4));
    // A command in it is as its first process.
    config.security.run_as_username = "app".into();
    config.command = ["sleep", "1000"].map(str::to_owned).to_vec();
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("ambient-exec")).await.unwrap();
    let id = subject.start(&sandbox, &config).await.unwrap();
    assert_eq!(exec(&subject, &id, show).await, (0, own.repeat(4)));
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    house.close(subject).await;
}
