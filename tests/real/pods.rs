//! What pods may ask for, one thing after the other, on one host as a user has it: `podbay up` and the real
//! kubectl. The containers tell of themselves in files of a directory of the host.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::hosts::{Admin, Daemon, Hosts, is_ready, sh, text};

struct Place<'a> {
    admin: Admin<'a>,
    /// What containers see as `/host`.
    told: PathBuf,
    _daemon: Daemon,
}

impl<'a> Place<'a> {
    fn start(hosts: &'a Hosts) -> Self {
        let told = hosts.dir.join("told");
        std::fs::create_dir_all(&told).unwrap();
        // Containers of every user write there.
        sh(&format!("chmod 1777 {}", told.display()));
        hosts.configure("one", "[server]\nlisten = \"10.99.0.1:6443\"\n");
        sh(&format!("examples/build-image podbay.local/busybox:test {}/one/data/images/busybox.tar", hosts.dir.display()));
        let daemon = hosts.start("one", &["up"]);
        let place = Self { admin: Admin { hosts, server: "one" }, told, _daemon: daemon };
        place.admin.wait("the API answers", || place.admin.run(&["get", "nodes"]).status.success().then_some(()));
        place
    }

    fn kubectl(&self, arguments: &[&str]) -> Output {
        let kubectl = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/kubectl");
        assert!(kubectl.exists(), "the real kubectl is missing: run `make setup-test`");
        let mut command = self.admin.hosts.command("one", kubectl.to_str().unwrap());
        command.args(arguments).env("KUBECONFIG", self.admin.kubeconfig()).env("HOME", &self.admin.hosts.dir).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.kubectl(arguments);
        assert!(out.status.success(), "kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn try_apply(&self, name: &str, manifest: &str) -> Output {
        let file = self.admin.hosts.dir.join(format!("{name}.yaml"));
        std::fs::write(&file, manifest.replace("HOST", self.told.to_str().unwrap())).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()])
    }

    fn apply(&self, name: &str, manifest: &str) {
        let out = self.try_apply(name, manifest);
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Applies a pod whose spec has these lines; its only image is the test's, its directory of the host is mounted.
    fn pod(&self, name: &str, spec: &str) {
        self.apply(name, &pod(name, spec));
    }

    fn get(&self, name: &str) -> Option<Value> {
        self.admin.json(&["pod", name])
    }

    fn ready(&self, name: &str) -> Value {
        self.admin.wait(&format!("{name} is ready"), || self.get(name).filter(is_ready))
    }

    /// Waits until the pod's first container has been started again so often.
    fn restarted(&self, name: &str, times: i64) -> Value {
        self.admin.wait(&format!("{name} was started again {times} times"), || {
            self.get(name).filter(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(times))
        })
    }

    fn delete(&self, names: &[&str]) {
        self.ok(&[&["delete", "pod"], names].concat());
    }

    fn heard(&self, file: &str) -> String {
        std::fs::read_to_string(self.told.join(file)).unwrap_or_default()
    }

    fn touch(&self, file: &str) {
        std::fs::write(self.told.join(file), "").unwrap();
    }

    /// Messages of the pod's events with this reason.
    fn events(&self, pod: &str, reason: &str) -> Vec<String> {
        let list = self.admin.json(&["events"]).unwrap_or_default();
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let about = |it: &&Value| text(it, "/involvedObject/name") == pod && text(it, "/reason") == reason;
        all.iter().filter(about).map(|it| text(it, "/message").to_owned()).collect()
    }

    fn told_of(&self, pod: &str, reason: &str, message: &str) {
        self.admin.wait(&format!("an event {reason} of {pod}: {message}"), || {
            self.events(pod, reason).iter().any(|told| told.contains(message)).then_some(())
        });
    }
}

fn pod(name: &str, spec: &str) -> String {
    let volume = "\n  volumes:\n  - {name: host, hostPath: {path: HOST}}\n";
    let spec = spec.replace("IMAGE", "image: podbay.local/busybox:test, volumeMounts: [{name: host, mountPath: /host}]");
    let volume = if spec.contains("volumes:") { "" } else { volume };
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 5\n{spec}{volume}")
}

#[test]
fn what_pods_may_ask_for() {
    let hosts = Hosts::new("pbp", &["one"]);
    let place = Place::start(&hosts);
    a_start_may_take_its_time(&place);
    hooks_run_at_both_ends(&place);
    hooks_run_before_restarts_and_drains(&place);
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
    place.told_of("never-up", "Unhealthy", "Startup probe failed: connect to");
    place.told_of("never-up", "Killing", "Container main failed startup probe, will be restarted");
    place.restarted("no-grpc", 1);
    place.told_of("no-grpc", "Unhealthy", "Liveness probe failed:");
    assert!(asked >= 5, "the second container is asked for its start anew: {asked}");
    place.delete(&["slow", "never-up", "no-grpc"]);
}

/// What is asked for by HTTP is written down by a script behind a server.
const HOOKED: &str = r#"  os: {name: linux}
  containers:
  - {name: by-exec, IMAGE, command: [sh, -c, "trap 'echo signal >> /host/exec; exit 0' USR1; while :; do sleep 0.1; done"],
     lifecycle: {stopSignal: SIGUSR1, postStart: {exec: {command: [sh, -c, "echo start >> /host/exec"]}},
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
    place.ok(&["delete", "pod", "hooked", "bad-start"]);
    assert_eq!(place.heard("exec"), "start\nstop\nsignal\n", "the hook, then the signal that was asked for");
    assert_eq!(place.heard("http"), "stop\n");
    assert_eq!(place.heard("sleep"), "signal\n", "a signal after the sleep, within the grace");
    assert_eq!(place.events("hooked", "FailedPreStopHook"), [""; 0], "whatever the server answers");
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
    place.ok(&["drain", "one", "--force"]);
    assert!(place.get("with-hook").is_none());
    assert_eq!(place.heard("stops"), "stop\nstop\n", "before the end of a pod that is drained");
    assert_eq!(place.heard("stuck"), "signal\n", "a hook that takes the whole grace leaves time for a signal");
    place.told_of("with-hook", "FailedPreStopHook", "took longer than");
    place.ok(&["uncordon", "one"]);
}
