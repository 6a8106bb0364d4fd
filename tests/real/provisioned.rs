//! Volumes that are made for claims, on the host's disk: what outlives a pod, what goes with a claim and how far.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::hosts::{Hosts, PODBAY};
use crate::persistent::{phase, pod};
use crate::pods::Place;
use crate::runtimes::{Ability, Kind};

const OWN_USERS: &str = "  hostUsers: false\n";
const MOUNTED: &str = "volumeMounts: [{name: data, mountPath: /data}]";
const OF_CLAIM: &str = "persistentVolumeClaim: {claimName: data}";

fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {{requests: {{storage: 1Gi}}}}\n"
    )
}

#[test]
fn volumes_are_made_for_claims() {
    let hosts = Hosts::new(&Kind::Engine.prefix("pbl"), &["one"]);
    let mut place = Place::start(&hosts, Kind::Engine);
    let volumes = hosts.dir.join("one/data/volumes");
    what_one_pod_writes_the_next_reads(&place, &volumes);
    what_a_claim_had_goes_with_it(&place, &volumes);
    one_of_a_pods_own_goes_with_the_pod(&place, &volumes);
    what_is_kept_is_kept(&place, &volumes);
    what_was_not_made_here_is_not_removed(&place, &volumes);
    a_removal_outlives_the_agent(&mut place, &volumes);
    a_reset_removes_them_and_a_stop_does_not(place, &volumes);
}

#[test]
fn a_made_volume_is_the_same_to_each_runtime() {
    a_made_volume_is_the_same_on(Kind::Engine);
}

#[test]
fn a_made_volume_is_the_same_on_containerd() {
    a_made_volume_is_the_same_on(Kind::Containerd);
}

#[test]
fn a_made_volume_is_the_same_on_an_engine_behind_its_socket() {
    a_made_volume_is_the_same_on(Kind::Served);
}

/// Each pod reads what those before it wrote and adds a line: by each runtime that the node has, and with users of its own.
fn a_made_volume_is_the_same_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbx"), &["one"]);
    let place = Place::start(&hosts, kind);
    let volumes = hosts.dir.join("one/data/volumes");
    place.apply("data", &claim("data"));
    let mut lines = String::new();
    let mut follows = |place: &Place<'_>, name: &str, spec: &str| {
        let own = format!("spec:\n{spec}");
        place.apply(name, &pod(name, OF_CLAIM, MOUNTED).replace("spec:\n", &own));
        place.ready(name);
        lines.push_str(name);
        lines.push('\n');
        let told = place.inside(name, &format!("echo {name} >> /data/said; cat /data/said; stat -c %u:%g /data/said"));
        assert_eq!(told, format!("{lines}0:0\n"), "{name}");
        place.delete(&[name]);
    };
    follows(&place, "plain", "");
    let made = directory(&place, &volumes, "data");
    for handler in kind.handlers() {
        place.apply(
            handler,
            &format!("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {handler}}}\nhandler: {handler}\n"),
        );
        follows(&place, handler, &format!("  runtimeClassName: {handler}\n"));
    }
    if kind.can(Ability::UserNamespaces) {
        follows(&place, "own-users", OWN_USERS);
        for handler in kind.handlers() {
            follows(&place, &format!("own-users-{handler}"), &format!("{OWN_USERS}  runtimeClassName: {handler}\n"));
        }
    } else {
        place.apply("own-users", &pod("own-users", OF_CLAIM, MOUNTED).replace("spec:\n", &format!("spec:\n{OWN_USERS}")));
        place.told_of("own-users", "FailedCreatePodSandBox", "make a user namespace for the pod: this node's runtime cannot");
        place.delete(&["own-users"]);
    }
    follows(&place, "last", "");
    let said = made.join("said");
    let meta = std::fs::metadata(&said).unwrap();
    assert_eq!((meta.uid(), std::fs::read_to_string(&said).unwrap()), (0, lines), "as if nobody had users of its own");
    place.admin.kubectl_ok(&["delete", "pvc", "data"]);
    gone(&place, &made);
    options_of_a_volume_are_those_of_its_mounts(&place, &volumes);
}

/// Nothing in one is run, and nothing written to the other: by whatever runtime, whoever its users are and whatever part is
/// mounted.
fn options_of_a_volume_are_those_of_its_mounts(place: &Place<'_>, volumes: &Path) {
    place.apply(
        "quiet-class",
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: quiet}\nprovisioner: podbay.dev/local-path\n\
         volumeBindingMode: WaitForFirstConsumer\nmountOptions: [noexec, 'nodev,noatime']\n",
    );
    let (sealed, kept) = (place.admin.hosts.dir.join("sealed"), place.admin.hosts.dir.join("kept"));
    std::fs::create_dir_all(&sealed).unwrap();
    let affinity = "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: Exists}]}]}}";
    place.apply("sealed-pv", &by_hand("sealed", "ro", &format!("local: {{path: {}}}\n  {affinity}", sealed.display())));
    place.apply("kept-pv", &by_hand("kept", "noexec", &format!("hostPath: {{path: {}, type: DirectoryOrCreate}}", kept.display())));
    for name in ["quiet", "sealed", "kept"] {
        place.apply(name, &claim(name).replace("spec:\n", &format!("spec:\n  storageClassName: {name}\n")));
    }
    let of = |name: &str| format!("persistentVolumeClaim: {{claimName: {name}}}");
    // A hostPath has none, as in Kubernetes.
    place.apply("kept-pod", &pod("kept-pod", &of("kept"), MOUNTED));
    let mut looks = vec![("plain".to_owned(), String::new(), MOUNTED)];
    looks.push(("part".to_owned(), String::new(), "volumeMounts: [{name: data, mountPath: /data, subPath: part}]"));
    looks.extend(place.below.kind.handlers().iter().map(|&by| (by.to_owned(), format!("  runtimeClassName: {by}\n"), MOUNTED)));
    if place.below.kind.can(Ability::UserNamespaces) {
        looks.push(("own-users".to_owned(), OWN_USERS.to_owned(), MOUNTED));
    }
    let mut all = vec!["kept-pod".to_owned()];
    for (name, spec, mounted) in &looks {
        for claim in ["quiet", "sealed"].iter().filter(|claim| **claim == "quiet" || *mounted == MOUNTED) {
            let name = format!("{claim}-{name}");
            place.apply(&name, &pod(&name, &of(claim), mounted).replace("spec:\n", &format!("spec:\n{spec}")));
            all.push(name);
        }
    }
    for name in &all[1..] {
        place.ready(name);
        let table = place.inside(name, "grep ' /data ' /proc/self/mounts");
        let (script, refused, words) = match name.starts_with("quiet") {
            true => ("cp /bin/busybox /data/busybox && /data/busybox true", "Permission denied", &["noexec", "nodev", "noatime", "rw"][..]),
            false => ("echo > /data/said", "Read-only file system", &["ro"][..]),
        };
        let said = place.inside(name, &format!("{{ {script}; }} 2>&1 || true"));
        assert!(said.contains(refused), "{name}: {said}");
        let options: Vec<&str> = table.split_whitespace().nth(3).unwrap_or_default().split(',').collect();
        assert!(words.iter().all(|word| options.contains(word)), "{name}: {table}");
    }
    assert!(directory(place, volumes, "quiet").join("part/busybox").exists());
    place.told_of("kept-pod", "FailedMount", "volume \"kept\" : Mount options are not supported for this volume type");
    place.delete(&all.iter().map(String::as_str).collect::<Vec<_>>());
}

/// A volume of this class, for the claim of its name.
fn by_hand(name: &str, options: &str, source: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec:\n  capacity: {{storage: 1Gi}}\n  \
         accessModes: [ReadWriteOnce]\n  storageClassName: {name}\n  mountOptions: [{options}]\n  {source}\n"
    )
}

/// The directory of a claim's volume.
fn directory(place: &Place<'_>, volumes: &Path, name: &str) -> PathBuf {
    let claim = place.admin.json(&["pvc", name]).expect("the claim");
    let volume = claim["spec"]["volumeName"].as_str().expect("is bound").to_owned();
    assert_eq!(volume, format!("pvc-{}", claim["metadata"]["uid"].as_str().unwrap()));
    volumes.join(volume)
}

fn gone(place: &Place<'_>, directory: &Path) {
    let name = directory.file_name().unwrap().to_str().unwrap();
    place.admin.wait("its volume goes", || (phase(place, "pv", name) == "gone").then_some(()));
    assert!(directory.symlink_metadata().is_err(), "its directory went before");
}

fn what_one_pod_writes_the_next_reads(place: &Place<'_>, volumes: &Path) {
    place.apply("data", &claim("data"));
    place.apply("first", &pod("first", OF_CLAIM, MOUNTED).replace("spec:\n", "spec:\n  securityContext: {fsGroup: 2000}\n"));
    place.ready("first");
    place.inside("first", "echo one > /data/said && chmod 600 /data/said");
    let made = directory(place, volumes, "data");
    let meta = std::fs::metadata(&made).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o2777, 2000));
    assert_eq!(std::fs::read_to_string(made.join("said")).unwrap(), "one\n");
    place.delete(&["first"]);
    // Another group has what is there already.
    place.apply("second", &pod("second", OF_CLAIM, MOUNTED).replace("spec:\n", "spec:\n  securityContext: {fsGroup: 3000}\n"));
    place.ready("second");
    assert_eq!(place.inside("second", "cat /data/said; stat -c '%g %a' /data/said"), "one\n3000 660\n");
}

fn what_a_claim_had_goes_with_it(place: &Place<'_>, volumes: &Path) {
    let made = directory(place, volumes, "data");
    // Nobody takes away by what its node finds it.
    let name = made.file_name().unwrap().to_str().unwrap();
    for (verb, taken) in [("label", "podbay.dev/node-"), ("annotate", "pv.kubernetes.io/provisioned-by-")] {
        let answer = place.admin.kubectl(&[verb, "pv", name, taken]);
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(!answer.status.success() && said.contains("by this its node knows the directory"), "{verb}: {said}");
    }
    place.admin.kubectl_ok(&["delete", "pvc", "data", "--wait=false"]);
    // A link out of it, to a directory of the test's own: what a removal that follows links would take must be nobody's.
    let outside = place.admin.hosts.dir.join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    symlink(&outside, made.join("link")).unwrap();
    place.inside("second", "mkdir -p /data/a/b; echo still > /data/a/b/there");
    assert!(made.join("a/b/there").exists(), "a pod uses it");
    place.delete(&["second"]);
    place.admin.wait("the claim goes after its pod", || (phase(place, "pvc", "data") == "gone").then_some(()));
    gone(place, &made);
    assert!(outside.join("kept").exists(), "no link was followed");
}

fn one_of_a_pods_own_goes_with_the_pod(place: &Place<'_>, volumes: &Path) {
    let template = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}";
    place.apply("own", &pod("own", template, MOUNTED));
    place.ready("own");
    place.inside("own", "echo mine > /data/said");
    let made = directory(place, volumes, "own-data");
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o777);
    place.delete(&["own"]);
    gone(place, &made);
}

fn what_is_kept_is_kept(place: &Place<'_>, volumes: &Path) {
    place.apply("data", &claim("data"));
    place.apply("keeps", &pod("keeps", OF_CLAIM, MOUNTED));
    place.ready("keeps");
    place.inside("keeps", "echo kept > /data/said");
    let made = directory(place, volumes, "data");
    let name = made.file_name().unwrap().to_str().unwrap();
    place.admin.kubectl_ok(&["patch", "pv", name, "-p", r#"{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}"#]);
    place.delete(&["keeps"]);
    place.admin.kubectl_ok(&["delete", "pvc", "data"]);
    place.admin.wait("its volume stays", || (phase(place, "pv", name) == "Released").then_some(()));
    place.admin.kubectl_ok(&["delete", "pv", name]);
    assert_eq!(std::fs::read_to_string(made.join("said")).unwrap(), "kept\n");
    // One that says it is the same has another UID: nothing was made for it.
    place.apply("forged", &forged(name, &made));
    place.admin.wait("it is let go", || (phase(place, "pv", name) == "gone").then_some(()));
    assert_eq!(std::fs::read_to_string(made.join("said")).unwrap(), "kept\n");
}

/// A volume that says of itself what one that was made here says, and whose claim is gone.
fn forged(name: &str, path: &Path) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata:\n  name: {name}\n  labels: {{podbay.dev/node: one}}\n  \
         annotations: {{pv.kubernetes.io/provisioned-by: podbay.dev/local-path}}\n  finalizers: [podbay.dev/local-path]\nspec:\n  \
         capacity: {{storage: 1Gi}}\n  accessModes: [ReadWriteOnce]\n  persistentVolumeReclaimPolicy: Delete\n  storageClassName: local-path\n  \
         claimRef: {{namespace: default, name: never, uid: never}}\n  local: {{path: {}}}\n  nodeAffinity:\n    required:\n      \
         nodeSelectorTerms:\n      - matchExpressions: [{{key: kubernetes.io/hostname, operator: Exists}}]\n",
        path.display()
    )
}

fn what_was_not_made_here_is_not_removed(place: &Place<'_>, volumes: &Path) {
    let precious = place.admin.hosts.dir.join("precious");
    let by_hand = volumes.join("pvc-by-hand");
    for kept in [&precious, &by_hand, &volumes.join("other")] {
        std::fs::create_dir_all(kept).unwrap();
        std::fs::write(kept.join("kept"), "").unwrap();
    }
    symlink(&precious, volumes.join("pvc-link")).unwrap();
    let all = [
        ("pvc-elsewhere", precious.clone()),
        ("pvc-by-hand", by_hand.clone()),
        ("pvc-link", volumes.join("pvc-link")),
        ("other", volumes.join("other")),
        ("pvc-other", volumes.join("other")),
    ];
    for (name, path) in &all {
        place.apply(name, &forged(name, path));
    }
    for (name, _) in &all {
        place.admin.wait(&format!("{name} is let go"), || (phase(place, "pv", name) == "gone").then_some(()));
        place.told_of("one", "VolumeNotRemoved", &format!("persistentvolume \"{name}\" goes and nothing is removed"));
    }
    for kept in [precious, by_hand, volumes.join("other"), volumes.join("pvc-link")] {
        assert!(kept.join("kept").exists(), "{}", kept.display());
    }
    std::fs::remove_file(volumes.join("pvc-link")).unwrap();
}

/// Directories, and files in each: seconds of work.
const MANY: (usize, usize) = (200, 1000);

fn a_removal_outlives_the_agent(place: &mut Place<'_>, volumes: &Path) {
    place.apply("data", &claim("data"));
    place.apply("large", &pod("large", OF_CLAIM, MOUNTED));
    place.ready("large");
    let made = directory(place, volumes, "data");
    for at in 0..MANY.0 {
        let part = made.join(at.to_string());
        std::fs::create_dir(&part).unwrap();
        (0..MANY.1).for_each(|at| std::fs::write(part.join(at.to_string()), "").unwrap());
    }
    place.delete(&["large"]);
    place.admin.kubectl_ok(&["delete", "pvc", "data"]);
    let left = || std::fs::read_dir(&made).map_or(0, Iterator::count);
    while left() == MANY.0 {
        std::thread::yield_now();
    }
    place.kill_daemon();
    assert!((1..MANY.0).contains(&left()), "it was on its way: {}", left());
    place.up();
    gone(place, &made);
}

fn a_reset_removes_them_and_a_stop_does_not(place: Place<'_>, volumes: &Path) {
    place.apply("data", &claim("data"));
    place.apply("last", &pod("last", OF_CLAIM, MOUNTED));
    place.ready("last");
    let made = directory(&place, volumes, "data");
    let hosts = place.admin.hosts;
    let run = |verb: &[&str]| {
        let ended = hosts.command("one", PODBAY).args(verb).arg("--config").arg(hosts.config("one")).status().unwrap();
        assert!(ended.success(), "{verb:?}");
    };
    run(&["down"]);
    assert!(made.exists());
    run(&["reset", "--yes", "--keep-data"]);
    assert!(made.exists());
    run(&["reset", "--yes"]);
    assert!(!volumes.exists());
}
