//! A pod's volumes with the kernel's own mounts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use podbay::agent::config::Layout;
use podbay::agent::env::References;
use podbay::agent::resources::Machine;
use podbay::agent::volume;
use serde_json::{Value, json};

/// Taken away even when the test fails.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    fn layout(&self) -> Layout {
        Layout { data_dir: self.dir.path().to_owned() }
    }
    fn mounts(&self) -> Vec<(PathBuf, String)> {
        let root = fs::canonicalize(self.dir.path()).unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = table.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let kind = words.iter().position(|word| *word == "-").map(|at| words[at + 1].to_owned()).unwrap_or_default();
            (PathBuf::from(words[4]), kind)
        });
        lines.filter(|(point, _)| point.starts_with(&root)).collect()
    }
    fn prepare(&self, pod: &Pod, references: &References) {
        let volumes = volume::plan::volumes(
            pod,
            volume::plan::Ground {
                references,
                machine: &Machine::default(),
                kept: &Default::default(),
                node: None,
                made: std::path::Path::new("/nowhere"),
            },
        )
        .unwrap();
        volume::prepare(pod, &volumes, &self.layout(), None).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for uid in volume::known_uids(&self.layout()) {
            volume::tear_down(&self.layout(), &uid).unwrap();
        }
    }
}

fn pod(volumes: Value, mounts: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}, "spec": {
        "securityContext": {"fsGroup": 4711}, "volumes": volumes, "containers": [{"name": "main", "volumeMounts": mounts}]}}))
    .unwrap()
}

fn secret(text: &str) -> References {
    let data = [("key".to_owned(), k8s_openapi::ByteString(text.as_bytes().to_vec()))].into();
    let secret = k8s_openapi::api::core::v1::Secret { data: Some(data), ..Default::default() };
    References { secrets: [("cred".to_owned(), secret)].into(), ..References::default() }
}

fn is_tmpfs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).unwrap().filesystem_type() == nix::sys::statfs::TMPFS_MAGIC
}

#[test]
fn secrets_live_in_memory_and_go_without_a_trace() {
    let host = Host::new();
    let pod = pod(json!([{"name": "s", "secret": {"secretName": "cred", "defaultMode": 0o400}}]), json!([]));
    host.prepare(&pod, &secret("one"));
    let dir = host.layout().volume("u1", "s");
    assert!(is_tmpfs(&dir));
    let file = fs::metadata(dir.join("key")).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.gid()), (0o440, 4711), "the group may read");
    host.prepare(&pod, &secret("two"));
    assert_eq!(fs::read_to_string(dir.join("key")).unwrap(), "two");
    let large = "x".repeat(900 << 10);
    host.prepare(&pod, &secret(&large));
    assert_eq!(fs::read_to_string(dir.join("key")).unwrap(), large, "it grows with what it holds");
    host.prepare(&pod, &secret("two"));
    let full = fs::write(dir.join("flood"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "and has room for little else");
    assert_eq!(host.mounts().len(), 1, "prepared twice, mounted once");
    volume::tear_down(&host.layout(), "u1").unwrap();
    assert_eq!(host.mounts(), []);
    assert!(!volume::exist(&host.layout(), "u1"));
}

#[test]
fn memory_has_the_size_that_was_asked_for() {
    let host = Host::new();
    let pod = pod(json!([{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]), json!([]));
    host.prepare(&pod, &References::default());
    let dir = host.layout().volume("u1", "m");
    assert!(is_tmpfs(&dir));
    let full = fs::write(dir.join("big"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o2777);
}

#[test]
fn huge_pages_are_a_volume_of_the_size_that_is_asked_for() {
    let host = Host::new();
    let mut pod = pod(json!([{"name": "h", "emptyDir": {"medium": "HugePages"}}]), json!([]));
    let resources = json!({"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}});
    pod.spec.as_mut().unwrap().containers[0].resources = Some(serde_json::from_value(resources).unwrap());
    host.prepare(&pod, &References::default());
    host.prepare(&pod, &References::default());
    let dir = host.layout().volume("u1", "h");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(&*dir.to_string_lossy())).unwrap_or_default();
    assert!(line.contains(" hugetlbfs ") && line.contains("pagesize=2M"), "{line}");
    assert_eq!(host.mounts().len(), 1, "prepared twice, mounted once");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o2777);
    volume::tear_down(&host.layout(), "u1").unwrap();
    assert_eq!(host.mounts(), []);
}

#[test]
fn sub_paths_are_bound_and_the_hosts_files_survive_the_end() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("logs")).unwrap();
    fs::write(outside.path().join("logs/kept"), "precious").unwrap();
    symlink("/etc", outside.path().join("trap")).unwrap();
    let volumes = json!([{"name": "h", "hostPath": {"path": outside.path()}}, {"name": "e", "emptyDir": {}}]);
    let mounts = json!([{"name": "h", "mountPath": "/a", "subPath": "logs"}, {"name": "e", "mountPath": "/b", "subPath": "made/here"},
        {"name": "h", "mountPath": "/c", "subPath": "logs/kept"}]);
    let made = pod(volumes.clone(), mounts);
    host.prepare(&made, &References::default());
    let container = &made.spec.as_ref().unwrap().containers[0];
    for _ in 0..2 {
        let paths = volume::mount_paths(&made, container, &[], &host.layout()).unwrap();
        assert_eq!(fs::read_to_string(paths[0].join("kept")).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&paths[2]).unwrap(), "precious", "a file can be mounted alone");
        assert!(host.layout().volume("u1", "e").join("made/here").is_dir());
    }
    assert_eq!(host.mounts().len(), 3, "a restarted container replaces its mounts");
    let trapped = pod(volumes, json!([{"name": "h", "mountPath": "/a", "subPath": "trap/passwd"}]));
    let container = &trapped.spec.as_ref().unwrap().containers[0];
    let error = volume::mount_paths(&trapped, container, &[], &host.layout()).unwrap_err();
    assert!(error.to_string().contains("subPath"), "{error}");
    volume::tear_down(&host.layout(), "u1").unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("logs/kept")).unwrap(), "precious");
    assert_eq!(host.mounts(), []);
}

/// A container that swaps a directory for a link all the time never sees what lies outside its volume.
#[test]
fn a_sub_path_that_changes_meanwhile_leads_nowhere_else() {
    let host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    let made = pod(json!([{"name": "e", "emptyDir": {}}]), json!([{"name": "e", "mountPath": "/a", "subPath": "swap/in"}]));
    host.prepare(&made, &References::default());
    let volume = host.layout().volume("u1", "e");
    fs::create_dir_all(volume.join("real/in")).unwrap();
    symlink("real", volume.join("swap")).unwrap();
    fs::create_dir(outside.path().join("in")).unwrap();
    fs::write(outside.path().join("in/precious"), "x").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let swap = volume.join("swap");
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for (target, next) in [(Path::new("real"), "next"), (outside.path(), "next")] {
                    symlink(target, volume.join(next)).unwrap();
                    fs::rename(volume.join(next), &swap).unwrap();
                }
            }
        });
        let container = &made.spec.as_ref().unwrap().containers[0];
        let (mut bound, mut refused) = (0, 0);
        for _ in 0..100_000 {
            match volume::mount_paths(&made, container, &[], &host.layout()) {
                Ok(paths) => {
                    assert!(!paths[0].join("precious").exists(), "led out of the volume");
                    bound += 1;
                }
                Err(_) => refused += 1,
            }
            if bound > 50 && refused > 50 {
                break;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(bound > 50 && refused > 50, "both happened: {bound} and {refused} times");
    });
}
