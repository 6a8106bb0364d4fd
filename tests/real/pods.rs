//! What pods may ask for, one thing after the other, on one host as a user has it: `podbay up` and the real
//! kubectl, on each runtime. The containers tell of themselves in files of a directory of the host.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::hosts::{Admin, Daemon, Hosts, is_ready, sh, text};
use crate::runtimes::{Ability, Below, IMAGE, Kind};

pub struct Place<'a> {
    pub admin: Admin<'a>,
    /// What containers see as `/host`.
    told: PathBuf,
    daemon: Option<Daemon>,
    pub below: Below<'a>,
}

impl<'a> Place<'a> {
    pub fn start(hosts: &'a Hosts, kind: Kind) -> Self {
        let told = hosts.dir.join("told");
        std::fs::create_dir_all(&told).unwrap();
        // Containers of every user write there.
        sh(&format!("chmod 1777 {}", told.display()));
        let below = Below::start(kind, hosts, "one");
        hosts.configure("one", &format!("{}[server]\nlisten = \"10.99.0.1:6443\"\n", below.settings()));
        let mut place = Self { admin: Admin { hosts, server: "one" }, told, daemon: None, below };
        place.up();
        place
    }

    /// Starts the daemon, which was not there or has been killed.
    pub fn up(&mut self) {
        self.daemon = Some(self.admin.hosts.start("one", &["up"]));
        self.admin.wait("the API answers", || self.admin.run(&["get", "nodes"]).status.success().then_some(()));
    }

    pub fn kill_daemon(&mut self) {
        self.daemon.take().unwrap().kill_hard();
    }

    /// Runs a script in the pod's first container.
    pub fn inside(&self, pod: &str, script: &str) -> String {
        self.admin.kubectl_ok(&["exec", pod, "--", "sh", "-c", script])
    }

    pub fn try_apply(&self, name: &str, manifest: &str) -> Output {
        let file = self.admin.hosts.dir.join(format!("{name}.yaml"));
        std::fs::write(&file, manifest.replace("HOST", self.told.to_str().unwrap())).unwrap();
        self.admin.kubectl(&["apply", "-f", file.to_str().unwrap()])
    }

    pub fn apply(&self, name: &str, manifest: &str) {
        let out = self.try_apply(name, manifest);
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Applies a pod whose spec has these lines; its only image is the test's, its directory of the host is mounted.
    pub fn pod(&self, name: &str, spec: &str) {
        self.apply(name, &pod(name, spec));
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        self.admin.json(&["pod", name])
    }

    pub fn ready(&self, name: &str) -> Value {
        self.admin.wait(&format!("{name} is ready"), || self.get(name).filter(is_ready))
    }

    /// Waits until the pod's first container has been started again so often.
    pub fn restarted(&self, name: &str, times: i64) -> Value {
        self.admin.wait(&format!("{name} was started again {times} times"), || {
            self.get(name).filter(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(times))
        })
    }

    pub fn delete(&self, names: &[&str]) {
        self.admin.kubectl_ok(&[&["delete", "pod"], names].concat());
    }

    pub fn heard(&self, file: &str) -> String {
        std::fs::read_to_string(self.told.join(file)).unwrap_or_default()
    }

    pub fn touch(&self, file: &str) {
        std::fs::write(self.told.join(file), "").unwrap();
    }

    /// Messages of the pod's events with this reason.
    pub fn events(&self, pod: &str, reason: &str) -> Vec<String> {
        let list = self.admin.json(&["events"]).unwrap_or_default();
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let about = |it: &&Value| text(it, "/involvedObject/name") == pod && text(it, "/reason") == reason;
        all.iter().filter(about).map(|it| text(it, "/message").to_owned()).collect()
    }

    pub fn told_of(&self, pod: &str, reason: &str, message: &str) {
        self.admin.wait(&format!("an event {reason} of {pod}: {message}"), || {
            self.events(pod, reason).iter().any(|told| told.contains(message)).then_some(())
        });
    }
}

fn pod(name: &str, spec: &str) -> String {
    let volume = "\n  volumes:\n  - {name: host, hostPath: {path: HOST}}\n";
    let spec = spec.replace("IMAGE", &format!("image: {IMAGE}, volumeMounts: [{{name: host, mountPath: /host}}]"));
    // Ready once it says so: then it hears signals.
    let spec = spec.replace("UP}", "readinessProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}}");
    let volume = if spec.contains("volumes:") { "" } else { volume };
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 5\n{spec}{volume}")
}

#[test]
fn what_pods_may_ask_for() {
    what_pods_may_ask_for_on(Kind::Engine);
}

#[test]
fn what_pods_may_ask_for_on_containerd() {
    what_pods_may_ask_for_on(Kind::Containerd);
}

#[test]
fn what_pods_may_ask_for_on_an_engine_behind_its_socket() {
    what_pods_may_ask_for_on(Kind::Served);
}

fn what_pods_may_ask_for_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbp"), &["one", "two"]);
    let place = Place::start(&hosts, kind);
    a_start_may_take_its_time(&place);
    hooks_run_at_both_ends(&place);
    a_signal_may_be_another(&place);
    hooks_run_before_restarts_and_drains(&place);
    files_tell_of_the_pod(&place);
    groups_own_their_volumes(&place);
    calls_are_filtered_by_a_profile(&place);
    users_of_a_pod_are_its_own(&place);
    last_words_are_kept(&place);
    ports_of_the_host_lead_to_pods(&place);
    images_are_volumes(&place);
    who_takes_more_of_the_disk_than_it_may_goes(&place);
    place.admin.wait("nothing is left of the pods", || place.below.pods_left().is_empty().then_some(()));
}

/// Liveness fails from the beginning, and is asked only once the container has started.
const SLOW: &str = r#"  containers:
  - {name: main, IMAGE, command: [sleep, "10000"],
     startupProbe: {exec: {command: [sh, -c, "echo asked >> /host/slow-asked; test -f /host/slow-up"]}, periodSeconds: 1, failureThreshold: 100},
     livenessProbe: {exec: {command: [sh, -c, "test -f /host/never"]}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 1},
     readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}}"#;

const NEVER_UP: &str = r#"  containers:
  - {name: main, IMAGE, command: [sleep, "10000"],
     startupProbe: {tcpSocket: {port: 81}, periodSeconds: 1, failureThreshold: 2, terminationGracePeriodSeconds: 1}}"#;

const GRPC: &str = r#"  containers:
  - {name: main, IMAGE, command: [httpd, -f, -p, "8080"], livenessProbe: {grpc: {port: 8080}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 1}}"#;

fn a_start_may_take_its_time(place: &Place<'_>) {
    place.pod("slow", SLOW);
    place.pod("never-up", NEVER_UP);
    place.pod("no-grpc", GRPC);
    place.admin.wait("the start was asked for four times", || (place.heard("slow-asked").lines().count() >= 4).then_some(()));
    let status = &place.get("slow").unwrap()["status"]["containerStatuses"][0];
    assert_eq!((&status["started"], &status["ready"], &status["restartCount"]), (&false.into(), &false.into(), &0.into()), "{status}");
    place.touch("slow-up");
    place.told_of("slow", "Killing", "Container main failed liveness probe, will be restarted");
    place.restarted("slow", 1);
    let asked = place.heard("slow-asked").lines().count();
    place.restarted("never-up", 1);
    place.told_of("never-up", "Pulled", "Container image \"podbay.local/busybox:test\" already present on machine");
    place.told_of("never-up", "BackOff", "Back-off restarting failed container main");
    place.told_of("never-up", "Unhealthy", "Startup probe failed: connect to");
    place.told_of("never-up", "Killing", "Container main failed startup probe, will be restarted");
    place.restarted("no-grpc", 1);
    place.told_of("no-grpc", "Unhealthy", "Liveness probe failed:");
    assert!(asked >= 5, "the second container is asked for its start anew: {asked}");
    place.delete(&["slow", "never-up", "no-grpc"]);
}

/// What is asked for by HTTP is written down by a script behind a server.
const HOOKED: &str = r#"  containers:
  - {name: by-exec, IMAGE, command: [sh, -c, "trap 'echo signal >> /host/exec; exit 0' TERM; while :; do sleep 0.1; done"],
     lifecycle: {postStart: {exec: {command: [sh, -c, "echo start >> /host/exec"]}},
       preStop: {exec: {command: [sh, -c, "echo stop >> /host/exec"]}}}}
  - {name: by-http, IMAGE, command: [sh, -c, "mkdir -p /www/cgi-bin; printf '#!/bin/sh\necho $QUERY_STRING >> /host/http; printf \"Status: 503 No\\\\r\\\\n\\\\r\\\\n\"\n' > /www/cgi-bin/tell; chmod +x /www/cgi-bin/tell; exec httpd -f -p 8080 -h /www"],
     ports: [{name: web, containerPort: 8080}],
     readinessProbe: {tcpSocket: {port: web}, periodSeconds: 1},
     lifecycle: {preStop: {httpGet: {port: web, path: "/cgi-bin/tell?stop"}}}}
  - {name: by-sleep, IMAGE, command: [sh, -c, "trap 'echo signal >> /host/sleep; exit 0' TERM; while :; do sleep 0.1; done"],
     lifecycle: {postStart: {sleep: {seconds: 1}}, preStop: {sleep: {seconds: 1}}}}"#;

const BAD_START: &str = r#"  containers:
  - {name: main, IMAGE, command: [sleep, "10000"], lifecycle: {postStart: {exec: {command: [sh, -c, "echo no luck >&2; exit 3"]}}}}"#;

fn hooks_run_at_both_ends(place: &Place<'_>) {
    place.pod("hooked", HOOKED);
    place.pod("bad-start", BAD_START);
    place.ready("hooked");
    assert_eq!(place.heard("exec"), "start\n", "not started before its hook has ended");
    place.restarted("bad-start", 1);
    place.told_of("bad-start", "FailedPostStartHook", "exit code 3: no luck");
    place.told_of("bad-start", "Killing", "FailedPostStartHook");
    place.admin.kubectl_ok(&["delete", "pod", "hooked", "bad-start"]);
    assert_eq!(place.heard("exec"), "start\nstop\nsignal\n", "the hook, then the signal");
    assert_eq!(place.heard("http"), "stop\n");
    assert_eq!(place.heard("sleep"), "signal\n", "a signal after the sleep, within the grace");
    assert_eq!(place.events("hooked", "FailedPreStopHook"), [""; 0], "whatever the server answers");
}

const BY_SIGNAL: &str = r#"  os: {name: linux}
  containers:
  - {name: main, IMAGE, command: [sh, -c, "trap 'echo signal >> /host/by-signal; exit 0' USR1; touch /tmp/up; while :; do sleep 0.1; done"],
     lifecycle: {stopSignal: SIGUSR1}, UP}"#;

fn a_signal_may_be_another(place: &Place<'_>) {
    place.pod("by-signal", BY_SIGNAL);
    if place.below.kind.can(Ability::StopSignals) {
        place.ready("by-signal");
        place.delete(&["by-signal"]);
        assert_eq!(place.heard("by-signal"), "signal\n", "the signal that was asked for");
    } else {
        place.told_of("by-signal", "Failed", "stopSignal: this node's runtime takes no notice of it");
        place.delete(&["by-signal"]);
        assert_eq!(place.heard("by-signal"), "", "never started");
    }
    let out = place.try_apply("odd", &pod("odd", "  containers:\n  - {name: c, IMAGE, lifecycle: {stopSignal: SIGUSR1}}"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"), "{said}");
}

/// The last hook outlives the grace.
const WITH_HOOK: &str = r#"  containers:
  - {name: main, IMAGE, command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.1; done"],
     livenessProbe: {exec: {command: [sh, -c, "! test -f /host/sick"]}, periodSeconds: 1, failureThreshold: 1},
     lifecycle: {preStop: {exec: {command: [sh, -c, "rm -f /host/sick; echo stop >> /host/stops"]}}}}
  - {name: stuck, IMAGE, command: [sh, -c, "trap 'echo signal >> /host/stuck; exit 0' TERM; while :; do sleep 0.1; done"],
     lifecycle: {preStop: {exec: {command: [sleep, "10000"]}}}}"#;

fn hooks_run_before_restarts_and_drains(place: &Place<'_>) {
    place.pod("with-hook", WITH_HOOK);
    place.ready("with-hook");
    place.touch("sick");
    place.restarted("with-hook", 1);
    assert_eq!(place.heard("stops"), "stop\n", "before a restart by its liveness probe");
    place.ready("with-hook");
    place.admin.kubectl_ok(&["drain", "one", "--force"]);
    assert!(place.get("with-hook").is_none());
    assert_eq!(place.heard("stops"), "stop\nstop\n", "before the end of a pod that is drained");
    assert_eq!(place.heard("stuck"), "signal\n", "a hook that takes the whole grace leaves time for a signal");
    place.told_of("with-hook", "FailedPreStopHook", "took longer than");
    place.admin.kubectl_ok(&["uncordon", "one"]);
}

const FILES: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: red, size: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: told, labels: {app: told, tier: one}, annotations: {note: "it \"is\""}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: podbay.local/busybox:test
      command: [sleep, "10000"]
      env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
      resources: {limits: {memory: 64Mi, cpu: 250m}}
      volumeMounts:
        - {name: about, mountPath: /about}
        - {name: all, mountPath: /all}
        - {name: all, mountPath: /color, subPath: conf/color}
        - {name: host, mountPath: /mine, subPathExpr: of/$(POD)}
  volumes:
    - name: about
      downwardAPI:
        items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
          - {path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}
          - {path: deep/memory, resourceFieldRef: {containerName: main, resource: limits.memory, divisor: 1Mi}}
          - {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}
    - name: all
      projected:
        defaultMode: 0440
        sources:
          - configMap: {name: settings, items: [{key: color, path: conf/color}]}
          - secret: {name: hidden, items: [{key: password, path: password, mode: 0400}]}
          - secret: {name: no-such-secret, optional: true}
          - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: tier, fieldRef: {fieldPath: "metadata.labels['tier']"}}]}
    - {name: host, hostPath: {path: HOST}}
"#;

const NO_SUCH: &str = r#"  containers:
  - {name: main, IMAGE, command: [sleep, "10000"]}
  volumes:
  - {name: host, hostPath: {path: HOST}}
  - {name: all, projected: {sources: [{secret: {name: no-such-secret}}]}}
"#;

fn files_tell_of_the_pod(place: &Place<'_>) {
    place.apply("told", FILES);
    place.ready("told");
    let about = place.inside("told", "cd /about; cat labels; echo; cat note; echo; cat deep/memory; echo; cat cpu");
    assert_eq!(about, "app=\"told\"\ntier=\"one\"\nit \"is\"\n64\n250");
    let all = "cd /all; for f in conf/color password name tier; do cat $f; echo; done";
    assert_eq!(place.inside("told", all), "red\nhunter2\ntold\none\n");
    assert_eq!(place.inside("told", "cat /color; stat -Lc %a /all/conf/color /all/password"), "red440\n400\n");
    place.inside("told", "echo mine > /mine/file");
    assert_eq!(place.heard("of/told/file"), "mine\n", "a directory of the name of the pod");
    let written = place.admin.kubectl(&["exec", "told", "--", "sh", "-c", "echo x > /about/labels"]);
    assert!(String::from_utf8_lossy(&written.stderr).contains("Read-only file system"), "{written:?}");
    // A changed label brings the files up to date, and the sources beside it with them.
    let before = place.inside("told", "readlink /all/..data");
    place.admin.kubectl_ok(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"blue"}}"#]);
    place.admin.kubectl_ok(&["label", "pod", "told", "tier=two", "--overwrite"]);
    place.admin.wait("the files follow the labels", || {
        (place.inside("told", "cat /about/labels") == "app=\"told\"\ntier=\"two\"" && place.inside("told", "cat /all/tier") == "two")
            .then_some(())
    });
    place.admin.wait("and the ConfigMap", || {
        place.admin.kubectl_ok(&["annotate", "pod", "told", "--overwrite", &format!("asked={}", place.inside("told", "cat /proc/uptime"))]);
        (place.inside("told", "cat /all/conf/color") == "blue").then_some(())
    });
    assert_ne!(place.inside("told", "readlink /all/..data"), before, "in one step");
    assert_eq!(place.inside("told", "cat /color"), "red", "a file that is mounted alone stays as it was");
    let status = place.get("told").unwrap();
    assert_eq!(status["status"]["containerStatuses"][0]["restartCount"], 0);
    place.pod("no-such", NO_SUCH);
    place.told_of("no-such", "FailedMount", "volume all: secret \"no-such-secret\" not found");
    let token = NO_SUCH.replace("secret: {name: no-such-secret}", "serviceAccountToken: {path: token}");
    let out = place.try_apply("token", &pod("token", &token));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    place.ready("token");
    place.delete(&["told", "no-such", "token"]);
}

const GROUPS: &str = r#"  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, supplementalGroups: [3000], fsGroupChangePolicy: OnRootMismatch}
  containers:
  - name: main
    image: podbay.local/busybox:test
    command: [sh, -c, "umask 002; echo $(id -G) > /disk/groups; echo x > /memory/x; echo y > /sub/y; exec sleep 10000"]
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: disk, mountPath: /sub, subPath: a/b}
    - {name: all, mountPath: /all}
    - {name: settings, mountPath: /settings}
  - {name: other, image: podbay.local/busybox:test, securityContext: {runAsUser: 1001}, command: [sh, -c, "until test -s /disk/groups && echo z >> /disk/groups; do sleep 0.1; done; exec sleep 10000"],
     volumeMounts: [{name: disk, mountPath: /disk}]}
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: all, projected: {defaultMode: 0400, sources: [{secret: {name: hidden, items: [{key: password, path: deep/password}]}}]}}
  - {name: settings, configMap: {name: settings, defaultMode: 0640}}
"#;

fn groups_own_their_volumes(place: &Place<'_>) {
    place.pod("groups", GROUPS);
    place.ready("groups");
    place.admin.wait("another user of the pod writes to the same file", || {
        (place.inside("groups", "cat /disk/groups") == "1000 2000 3000\nz\n").then_some(())
    });
    let stat =
        "stat -Lc '%a %u:%g' /disk /memory /sub /disk/groups /memory/x /disk/a/b/y /all /all/deep /all/deep/password /settings/color";
    let want = [
        "2777 0:2000",
        "2777 0:2000",
        "2777 0:2000",
        "664 1000:2000",
        "664 1000:2000",
        "664 1000:2000",
        "2755 0:2000",
        "2755 0:2000",
        "440 0:2000",
        "640 0:2000",
    ];
    assert_eq!(place.inside("groups", stat).lines().collect::<Vec<_>>(), want);
    assert_eq!(place.inside("groups", "cat /all/deep/password"), "hunter2", "by the group");
    place.delete(&["groups"]);
}

const FILTERED: &str = r#"  securityContext: {seccompProfile: {type: Localhost, localhostProfile: pods/plain.json}}
  containers:
  - {name: main, IMAGE, command: [sleep, "10000"]}"#;

fn calls_are_filtered_by_a_profile(place: &Place<'_>) {
    place.pod("filtered", FILTERED);
    place.told_of("filtered", "Failed", "cannot load seccomp profile");
    let profiles = place.admin.hosts.dir.join("one/data/seccomp/pods");
    std::fs::create_dir_all(&profiles).unwrap();
    let rule =
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(profiles.join("plain.json"), rule).unwrap();
    place.ready("filtered");
    assert!(place.inside("filtered", "mkdir /tmp/x 2>&1 || true").contains("No space left on device"));
    place.delete(&["filtered"]);
}

const OWN_USERS: &str = r#"  hostUsers: false
  securityContext: {fsGroup: 77, supplementalGroupsPolicy: Strict, seccompProfile: {type: Localhost, localhostProfile: pods/plain.json}}
  volumes:
  - {name: host, hostPath: {path: HOST}}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: conf, configMap: {name: users}}
  containers:
  - {name: main, image: podbay.local/busybox:test, command: [sleep, "10000"], volumeMounts: [
      {name: host, mountPath: /host}, {name: scratch, mountPath: /scratch}, {name: memory, mountPath: /memory},
      {name: conf, mountPath: /conf, readOnly: true, recursiveReadOnly: Enabled}, {name: scratch, mountPath: /sub, subPath: a/b}]}"#;

/// Its root is nobody on the host, and its volumes are as any other pod's.
fn users_of_a_pod_are_its_own(place: &Place<'_>) {
    place.apply("users", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: users}\ndata: {key: text}\n");
    let refused =
        place.try_apply("users-host", &pod("users-host", &OWN_USERS.replace("hostUsers: false", "hostUsers: false\n  hostPID: true")));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("spec.hostPID: Forbidden: when `pod.Spec.HostUsers` is false"), "{said}");
    // The last one's by another OCI runtime.
    let names = ["users-a", "users-b", "users-runc"];
    place.pod(names[0], OWN_USERS);
    if !place.below.kind.can(Ability::UserNamespaces) {
        place.told_of(names[0], "FailedCreatePodSandBox", "make a user namespace for the pod: this node's runtime cannot");
        place.pod(names[1], &OWN_USERS.replace("hostUsers: false", "hostUsers: true"));
        place.told_of(names[1], "Failed", "supplementalGroupsPolicy: this node's runtime does not know the policy `Strict`");
        place.delete(&names[..2]);
        return;
    }
    place.pod(names[1], OWN_USERS);
    place.apply("runc", "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: other}\nhandler: runc\n");
    place.pod(names[2], &OWN_USERS.replace("hostUsers: false", "hostUsers: false\n  runtimeClassName: other"));
    let ids = names.map(|name| {
        place.ready(name);
        let script = format!(
            "id -u; id -G; cat /conf/key; echo; stat -Lc %u:%g /scratch /memory /sub /conf/key; touch /host/of-{name} /scratch/x /memory/x /sub/x; \
             mkdir /tmp/x 2>&1; cat /proc/self/uid_map"
        );
        let told = place.inside(name, &script);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[..7], ["0", "0 77", "text", "0:77", "0:77", "0:77", "0:77"], "{told}");
        assert!(lines[7].contains("No space left on device"), "{told}");
        assert_eq!(sh(&format!("stat -c %u {}/of-{name}", place.told.display())).trim(), "0", "as Kubernetes maps a hostPath");
        let map: Vec<u32> = lines[8].split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert_eq!((map[0], map[2]), (0, 65_536), "{told}");
        map[1]
    });
    assert_eq!(BTreeSet::from(ids).len(), ids.len(), "{ids:?}");
    assert!(ids.iter().all(|first| *first >= 65_536 && first % 65_536 == 0), "{ids:?}");
    place.delete(&names);
}

/// The first writes what it is asked for, the second more than is kept, the third only to its log; the others
/// try to lead their reader elsewhere.
const LAST_WORDS: &str = r#"  restartPolicy: Never
  containers:
  - {name: plain, IMAGE, terminationMessagePath: /tmp/last, command: [sh, -c, "echo in vain; printf 'the end' > /tmp/last; exit 3"]}
  - {name: much, IMAGE, command: [sh, -c, "yes 0123456789 | head -c 100000000 > /dev/termination-log; exit 1"]}
  - {name: log, IMAGE, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, "seq 1000 >&2; echo the end >&2; sleep 1; exit 1"]}
  - {name: well, IMAGE, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, "echo said"]}
  - {name: link, IMAGE, command: [sh, -c, "rm -f /dev/termination-log; ln -sf /etc/passwd /dev/termination-log; mv /dev/termination-log /dev/other; mkfifo /dev/termination-log; exit 1"]}
  - {name: led, IMAGE, terminationMessagePath: /host/led, command: [sh, -c, "printf led > /host/led; exit 1"]}"#;

fn last_words_are_kept(place: &Place<'_>) {
    // A link in a volume that leads out of it: inside the container it leads nowhere else.
    std::fs::write(place.told.join("kept"), "kept").unwrap();
    std::os::unix::fs::symlink(place.told.join("kept"), place.told.join("led")).unwrap();
    place.pod("words", LAST_WORDS);
    let pod = place.admin.wait("the pod has failed", || place.get("words").filter(|pod| pod["status"]["phase"] == "Failed"));
    let words = |name: &str| {
        let all = pod["status"]["containerStatuses"].as_array().unwrap();
        let end = &all.iter().find(|it| it["name"] == name).unwrap()["state"]["terminated"];
        (end["exitCode"].as_i64().unwrap_or(-1), text(end, "/message").to_owned())
    };
    assert_eq!(words("plain"), (3, "the end".to_owned()));
    assert_eq!(words("much"), (1, "0123456789\n".repeat(200)[..2048].to_owned()), "twelve KiB for six containers");
    let log = words("log").1;
    assert!(log.ends_with("1000\nthe end\n") && log.lines().count() <= 80 && log.len() <= 2048, "{log}");
    assert_eq!(words("well"), (0, String::new()), "only for an error");
    assert_eq!(words("link"), (1, String::new()));
    assert_eq!(words("led").0, if place.below.kind.can(Ability::MountsOnDanglingLinks) { 1 } else { 128 });
    assert_eq!(place.heard("kept"), "kept", "nothing was written through a link");
    place.delete(&["words"]);
}

const PORTS: &str = r#"  containers:
  - {name: main, IMAGE, command: [sh, -c, "echo NAME > /tmp/index.html; exec httpd -f -p 80 -h /tmp"],
     ports: [{containerPort: 80, hostPort: 8088}, {containerPort: 80, hostPort: 8089, hostIP: 10.99.0.1}],
     readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}"#;

fn ports_of_the_host_lead_to_pods(place: &Place<'_>) {
    let fetch_at = |from: &str, address: &str, port: u16| {
        let mut wget = place.admin.hosts.command(from, "busybox");
        wget.args(["wget", "-q", "-O", "-", &format!("http://{address}:{port}/")]);
        String::from_utf8_lossy(&wget.output().unwrap().stdout).trim().to_owned()
    };
    let fetch = |from: &str, port: u16| fetch_at(from, "10.99.0.1", port);
    place.pod("first", &PORTS.replace("NAME", "first"));
    place.ready("first");
    for from in ["one", "two"] {
        assert_eq!([fetch(from, 8088), fetch(from, 8089)], ["first", "first"], "from host {from}");
    }
    // Of containerd it is the portmap plugin that sees to it.
    assert_eq!([fetch_at("one", "127.0.0.1", 8088), fetch_at("one", "127.0.0.1", 8089)], ["first", ""], "on the loopback");
    place.pod("second", &PORTS.replace("NAME", "second"));
    place.told_of("second", "FailedScheduling", "node(s) didn't have free ports for the requested pod ports");
    // Whoever chooses the node itself asks no scheduler; the node says no.
    place.pod("forced", &format!("  nodeName: one\n{}", PORTS.replace("NAME", "forced")));
    place.told_of("forced", "FailedCreatePodSandBox", "host port 8088/TCP is taken by another pod of this node");
    place.pod("own", "  nodeName: one\n  containers:\n  - {name: main, IMAGE, ports: [{containerPort: 80, hostPort: 6443}]}");
    place.told_of("own", "FailedCreatePodSandBox", "host port 6443/TCP is taken by podbay itself");
    place.delete(&["forced", "own"]);
    assert_eq!(place.inside("first", "wget -q -O - http://10.99.0.1:8088/"), "first\n", "from a pod, and itself");
    place.delete(&["first"]);
    place.ready("second");
    assert_eq!(fetch("two", 8088), "second", "the port is the next pod's");
    place.delete(&["second"]);
    assert_eq!(fetch("two", 8088), "");
}

const WITH_IMAGE: &str = r#"  containers:
  - {name: main, image: "podbay.local/busybox:test", command: [sleep, "10000"],
     volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /part, subPath: SUB}]}
  volumes:
  - {name: data, image: {reference: "REFERENCE", pullPolicy: POLICY}}
"#;

fn images_are_volumes(place: &Place<'_>) {
    let with = |name: &str, reference: &str, policy: &str, sub: &str| {
        place.pod(name, &WITH_IMAGE.replace("REFERENCE", reference).replace("POLICY", policy).replace("SUB", sub));
    };
    with("with-none", "podbay.local/no-such:1", "Never", "etc");
    place.told_of("with-none", "ErrImageNeverPull", "Container image \"podbay.local/no-such:1\" is not present with pull policy of Never");
    with("with-image", IMAGE, "IfNotPresent", "etc");
    if place.below.kind.can(Ability::ImageVolumes) {
        place.ready("with-image");
        let seen = place
            .inside("with-image", "cat /data/etc/passwd >/dev/null && ls /part/passwd; touch /data/x || touch /part/x || echo refused");
        assert_eq!(seen, "/part/passwd\nrefused\n");
        with("with-nothing", IMAGE, "IfNotPresent", "no/such");
        place.told_of("with-nothing", "Failed", "the image has no no/such");
        place.delete(&["with-nothing"]);
    } else {
        place.told_of("with-image", "Failed", "image volumes: this node's runtime, containerd://1.6");
    }
    place.delete(&["with-none", "with-image"]);
}

/// Each has as much as the others, and other bounds.
const GREEDY: &str = r#"  containers:
  - {name: main, image: "podbay.local/busybox:test",
     command: [sh, -c, "head -c 8388608 /dev/zero > /layer; head -c 8388608 /dev/zero > /scratch/file; exec sleep 10000"],
     resources: {limits: {ephemeral-storage: OWN}}, volumeMounts: [{name: scratch, mountPath: /scratch}]}
  volumes:
  - {name: scratch, emptyDir: {sizeLimit: VOLUME}}
"#;

fn who_takes_more_of_the_disk_than_it_may_goes(place: &Place<'_>) {
    let cases = [
        ("modest", "64Mi", "32Mi", ""),
        ("greedy", "12Mi", "32Mi", "Pod ephemeral local storage usage exceeds the total limit of containers 12Mi. "),
        ("greedy-volume", "64Mi", "4Mi", "Usage of EmptyDir volume \"scratch\" exceeds the limit \"4Mi\". "),
    ];
    for (name, own, volume, _) in cases {
        place.pod(name, &GREEDY.replace("OWN", own).replace("VOLUME", volume));
    }
    for (name, _, _, why) in cases.into_iter().filter(|case| !case.3.is_empty()) {
        let what = format!("{name} is evicted and has ended");
        let pod = place.admin.wait(&what, || {
            let ended = |pod: &Value| !pod["status"]["containerStatuses"][0]["state"]["terminated"].is_null();
            place.get(name).filter(|pod| pod["status"]["phase"] == "Failed" && ended(pod))
        });
        assert_eq!((text(&pod, "/status/reason"), text(&pod, "/status/message")), ("Evicted", why), "{name}");
        place.told_of(name, "Evicted", why);
    }
    let modest = place.ready("modest");
    assert_eq!(modest["status"]["containerStatuses"][0]["restartCount"], 0);
    place.delete(&["modest", "greedy", "greedy-volume"]);
}
