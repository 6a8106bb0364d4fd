//! Persistent volumes as pods have them: what outlives a pod, what goes with it, and a device that is given to one container.

use std::path::PathBuf;

use crate::hosts::{Hosts, sh};
use crate::pods::Place;
use crate::runtimes::{IMAGE, Kind};

/// A loop device of 16 MiB; taken away even when the test fails.
struct Loop {
    device: String,
}

impl Loop {
    fn new(image: PathBuf) -> Self {
        sh(&format!("truncate -s 16M {}", image.display()));
        Self { device: sh(&format!("losetup --find --show {}", image.display())).trim().to_owned() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let ended = std::process::Command::new("losetup").args(["--detach", &self.device]).status();
        // A panic now would hide why the test failed.
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} is left", self.device);
        }
    }
}

fn volume(name: &str, size: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec:\n  capacity: {{storage: {size}}}\n  \
         accessModes: [ReadWriteOnce]\n{more}"
    )
}

fn claim(name: &str, size: &str, mode: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         storageClassName: ''\n  volumeMode: {mode}\n  resources: {{requests: {{storage: {size}}}}}\n"
    )
}

/// A pod with one volume `data`.
pub fn pod(name: &str, source: &str, in_container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  volumes:\n  - name: data\n    \
         {source}\n  containers:\n  - {{name: main, image: {IMAGE}, command: [sleep, '1000'], {in_container}}}\n  \
         - {{name: other, image: {IMAGE}, command: [sleep, '1000']}}\n"
    )
}

const MOUNTED: &str = "volumeMounts: [{name: data, mountPath: /data, subPath: sub}]";
const OF_CLAIM: &str = "persistentVolumeClaim: {claimName: data}";

#[test]
fn persistent_volumes_outlive_pods() {
    persistent_volumes_outlive_pods_on(Kind::Engine);
}

#[test]
fn persistent_volumes_outlive_pods_on_containerd() {
    persistent_volumes_outlive_pods_on(Kind::Containerd);
}

#[test]
fn persistent_volumes_outlive_pods_on_an_engine_behind_its_socket() {
    persistent_volumes_outlive_pods_on(Kind::Served);
}

fn persistent_volumes_outlive_pods_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbv"), &["one"]);
    let place = Place::start(&hosts, kind);
    let (kept, own) = (hosts.dir.join("kept"), hosts.dir.join("own"));
    let host_path = |path: &PathBuf| format!("  hostPath: {{path: {}, type: DirectoryOrCreate}}\n", path.display());
    place.apply("kept", &volume("kept", "1Gi", &host_path(&kept)));
    place.apply("data", &claim("data", "1Gi", "Filesystem"));
    what_one_pod_writes_the_next_reads(&place, &kept);
    place.apply("own", &volume("own", "2Gi", &host_path(&own)));
    a_claim_of_its_own_goes_with_its_pod(&place, &own);
    a_claim_that_is_not_there_is_waited_for(&place);
    a_device_is_its_containers_alone(&place);
    place.admin.wait("nothing is left of the pods", || place.below.pods_left().is_empty().then_some(()));
    assert_eq!(std::fs::read_to_string(kept.join("sub/said")).unwrap(), "one\n", "the pods' ends took nothing of it");
}

pub fn phase(place: &Place<'_>, kind: &str, name: &str) -> String {
    let found = place.admin.json(&[kind, name]);
    found.map_or_else(|| "gone".to_owned(), |it| it["status"]["phase"].as_str().unwrap_or_default().to_owned())
}

fn what_one_pod_writes_the_next_reads(place: &Place<'_>, kept: &std::path::Path) {
    place.apply("first", &pod("first", OF_CLAIM, MOUNTED));
    place.ready("first");
    place.inside("first", "echo one > /data/said");
    assert_eq!(std::fs::read_to_string(kept.join("sub/said")).unwrap(), "one\n");
    // Whose claim is deleted while a pod uses it keeps it.
    place.admin.kubectl_ok(&["delete", "pvc", "data", "--wait=false"]);
    place.delete(&["first"]);
    place.admin.wait("the claim goes after its pod", || (phase(place, "pvc", "data") == "gone").then_some(()));
    place.admin.wait("its volume is kept", || (phase(place, "pv", "kept") == "Released").then_some(()));
    // A person gives it free, and the next claim has it.
    place.admin.kubectl_ok(&["patch", "pv", "kept", "--type=json", "-p", r#"[{"op": "remove", "path": "/spec/claimRef"}]"#]);
    place.apply("data", &claim("data", "1Gi", "Filesystem"));
    let read = "persistentVolumeClaim: {claimName: data, readOnly: true}";
    place.apply("second", &pod("second", read, MOUNTED));
    place.ready("second");
    assert_eq!(place.inside("second", "cat /data/said"), "one\n");
    assert!(place.inside("second", "(echo two > /data/said) 2>&1 || true").contains("Read-only file system"));
    place.delete(&["second"]);
    assert_eq!(phase(place, "pv", "kept"), "Bound", "with its claim, which stays");
}

fn a_claim_of_its_own_goes_with_its_pod(place: &Place<'_>, own: &std::path::Path) {
    let template = "ephemeral: {volumeClaimTemplate: {spec: {storageClassName: '', accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}}}";
    place.apply("own", &pod("own", template, MOUNTED));
    place.ready("own");
    assert_eq!(phase(place, "pvc", "own-data"), "Bound");
    place.inside("own", "echo mine > /data/said");
    assert_eq!(std::fs::read_to_string(own.join("sub/said")).unwrap(), "mine\n");
    place.delete(&["own"]);
    place.admin.wait("the claim goes with the pod", || (phase(place, "pvc", "own-data") == "gone").then_some(()));
    place.admin.wait("its volume is kept", || (phase(place, "pv", "own") == "Released").then_some(()));
}

fn a_claim_that_is_not_there_is_waited_for(place: &Place<'_>) {
    place.apply("waits", &pod("waits", "persistentVolumeClaim: {claimName: late}", MOUNTED));
    place.told_of("waits", "FailedScheduling", "0/1 nodes are available: persistentvolumeclaim \"late\" not found.");
    // Who names its node itself is told by the node.
    let bound = pod("bound", "persistentVolumeClaim: {claimName: late}", MOUNTED).replace("spec:\n", "spec:\n  nodeName: one\n");
    place.apply("bound", &bound);
    place.told_of("bound", "FailedMount", "volume data: persistentvolumeclaim \"late\" not found");
    let late = place.admin.hosts.dir.join("late");
    place.apply("late-volume", &volume("late", "3Gi", &format!("  hostPath: {{path: {}}}\n", late.display())));
    place.apply("late", &claim("late", "3Gi", "Filesystem"));
    place.ready("waits");
    place.ready("bound");
    place.delete(&["waits", "bound"]);
}

const DEVICE: &str = "volumeDevices: [{name: data, devicePath: /dev/xvda}]";

/// By this RuntimeClass; empty: by none.
fn a_device_by(place: &Place<'_>, disk: &Loop, class: &str) {
    let by_class = |pod: String| match class {
        "" => pod,
        class => pod.replace("spec:\n", &format!("spec:\n  runtimeClassName: {class}\n")),
    };
    let word = format!("written by {class:4}");
    let count = word.len();
    place.apply("block", &by_class(pod("block", "persistentVolumeClaim: {claimName: disk}", DEVICE)));
    place.ready("block");
    place.inside("block", &format!("test -b /dev/xvda && printf '{word}' | dd of=/dev/xvda conv=fsync 2>/dev/null"));
    assert_eq!(place.inside("block", &format!("head -c {count} /dev/xvda")), word);
    let told = sh(&format!("blockdev --flushbufs {0} && head -c {count} {0}", disk.device));
    assert_eq!(told, word, "it is the device itself");
    let in_other = |script: &str| place.admin.kubectl_ok(&["exec", "block", "-c", "other", "--", "sh", "-c", script]);
    assert_eq!(in_other("test -e /dev/xvda && echo there || echo none"), "none\n");
    // Nor by a node that it makes itself: its cgroup has no such device.
    let numbers = place.inside("block", "stat -c '0x%t 0x%T' /dev/xvda");
    let made = format!("set -- {}; mknod /tmp/made b $(($1)) $(($2)) && head -c 7 /tmp/made 2>&1 || true", numbers.trim());
    assert!(!in_other(&made).contains("written"), "{class}");
    place.delete(&["block"]);
    // To be read only.
    place.apply("block-read", &by_class(pod("block-read", "persistentVolumeClaim: {claimName: disk, readOnly: true}", DEVICE)));
    place.ready("block-read");
    assert_eq!(place.inside("block-read", &format!("head -c {count} /dev/xvda")), word);
    assert_eq!(place.inside("block-read", "echo no 2>/dev/null > /dev/xvda && echo wrote || echo refused"), "refused\n", "{class}");
    place.delete(&["block-read"]);
}

fn a_device_is_its_containers_alone(place: &Place<'_>) {
    let disk = Loop::new(place.admin.hosts.dir.join("disk"));
    let affinity = "  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [\
        {key: kubernetes.io/hostname, operator: Exists}]}]}}\n";
    let spec = format!("  volumeMode: Block\n  local: {{path: {}}}\n{affinity}", disk.device);
    place.apply("disk", &volume("disk", "16Mi", &spec));
    place.apply("disk-claim", &claim("disk", "16Mi", "Block"));
    let of_claim = "persistentVolumeClaim: {claimName: disk}";
    a_device_by(place, &disk, "");
    for handler in place.below.kind.handlers() {
        let class = format!("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {handler}}}\nhandler: {handler}\n");
        place.apply(handler, &class);
        a_device_by(place, &disk, handler);
    }
    // Nobody of a pod's own users owns a device.
    let own_users = pod("block-users", of_claim, DEVICE).replace("spec:\n", "spec:\n  hostUsers: false\n");
    let said = String::from_utf8_lossy(&place.try_apply("block-users", &own_users).stderr).into_owned();
    assert!(said.contains("spec.containers[0].volumeDevices: Forbidden: when `pod.Spec.HostUsers` is false"), "{said}");
    place.apply("mounted", &pod("mounted", of_claim, MOUNTED));
    place.told_of("mounted", "FailedMount", "volume data has volumeMode Block, but is specified in volumeMounts");
    place.delete(&["mounted"]);
    // A pod that no scheduler placed is told by the node that the volume is elsewhere.
    let elsewhere = affinity.replace("operator: Exists", "operator: In, values: [elsewhere]");
    place.apply("far", &volume("far", "5Gi", &format!("  local: {{path: /tmp}}\n{elsewhere}")));
    place.apply("far-claim", &claim("far", "5Gi", "Filesystem"));
    let of_claim = "persistentVolumeClaim: {claimName: far}";
    place.apply("far-here", &pod("far-here", of_claim, MOUNTED).replace("spec:\n", "spec:\n  nodeName: one\n"));
    place.told_of("far-here", "FailedMount", "NodeAffinity check failed for volume \"far\": no matching NodeSelectorTerms");
    place.apply("far-pod", &pod("far-pod", of_claim, MOUNTED));
    place.told_of("far-pod", "FailedScheduling", "0/1 nodes are available: 1 node(s) had volume node affinity conflict.");
    place.delete(&["far-here", "far-pod"]);
}
