//! One host as a user has it: `podbay up` on a directory, the real kubectl, edits, bad edits,
//! approval, adoption, restarts, `down` and `reset`; on each runtime.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::foretold::Foretold;
use crate::hosts::{Admin, Daemon, Hosts, is_ready, sh, text};
use crate::runtimes::{Ability, Below, Kind};

struct Node<'a> {
    admin: Admin<'a>,
    manifests: PathBuf,
    daemon: Option<Daemon>,
    below: Below<'a>,
}

fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: \"{value}\"}}\n")
}

/// `MARK` tells its processes from those of the same test on another runtime.
const WEB: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: httpd
          image: podbay.local/busybox:test
          command: ["/bin/sh", "-c", "echo started; exec httpd -f -p 8080 -r MARK -h /etc"]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"#;

impl<'a> Node<'a> {
    fn start(hosts: &'a Hosts, kind: Kind) -> Self {
        let manifests = hosts.dir.join("manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        let below = Below::start(kind, hosts, "one");
        let mut node = Self { admin: Admin { hosts, server: "one" }, manifests, daemon: None, below };
        node.write("web.yaml", &node.web(2));
        node.write("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: password}\nstringData: {password: hunter2}\n");
        node.configure(&[("apps", "manifests")]);
        node.up();
        node
    }

    fn configure(&self, sources: &[(&str, &str)]) {
        let mut more = format!("{}[server]\nlisten = \"10.99.0.1:6443\"\n", self.below.settings());
        for (name, dir) in sources {
            let dir = self.admin.hosts.dir.join(dir);
            more.push_str(&format!("[[source]]\nname = \"{name}\"\ndirectory = \"{}\"\ninterval-seconds = 1\n", dir.display()));
        }
        self.admin.hosts.configure("one", &more);
    }

    fn up(&mut self) {
        self.daemon = Some(self.admin.hosts.start("one", &["up"]));
        self.admin.wait("the API answers", || self.admin.run(&["get", "nodes"]).status.success().then_some(()));
    }

    /// What is in the names of this test on the machine.
    fn mark(&self) -> String {
        self.admin.hosts.cgroup_root("one")
    }

    fn web(&self, replicas: usize) -> String {
        WEB.replace("MARK", &self.mark()).replace("replicas: 2", &format!("replicas: {replicas}"))
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.manifests.join(name), content).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifests.join(name)).unwrap();
    }

    /// Waits until the Deployment has so many ready pods and no others; returns them.
    fn web_pods(&self, count: usize) -> Vec<Value> {
        self.admin.wait(&format!("{count} pods of web are ready"), || {
            let pods = self.admin.pods("default", "app=web");
            (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
        })
    }

    /// The Deployment's newest pods are ready and all others are gone.
    fn rolled_out(&self, count: usize) -> bool {
        let Some(web) = self.admin.json(&["deployment", "web"]) else { return false };
        let status = &web["status"];
        status["observedGeneration"] == web["metadata"]["generation"]
            && status["updatedReplicas"] == count
            && status["availableReplicas"] == count
            && self.admin.pods("default", "app=web").len() == count
    }

    /// Reconciles and returns (exit code, standard output, standard error).
    fn reconcile(&self, arguments: &[&str]) -> (i32, String, String) {
        let out = self.admin.run(&[&["reconcile"], arguments].concat());
        let utf8 = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap_or(-1), utf8(&out.stdout), utf8(&out.stderr))
    }

    fn has(&self, name: &str) -> bool {
        self.admin.json(&["configmap", name]).is_some()
    }
}

#[test]
fn one_node_as_a_user_has_it() {
    one_node_as_a_user_has_it_on(Kind::Engine);
}

#[test]
fn one_node_with_containerd() {
    one_node_as_a_user_has_it_on(Kind::Containerd);
}

#[test]
fn one_node_with_an_engine_behind_its_socket() {
    one_node_as_a_user_has_it_on(Kind::Served);
}

fn one_node_as_a_user_has_it_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbo"), &["one"]);
    let before = machine_state(&hosts);
    let mut node = Node::start(&hosts, kind);
    pods_come_up_and_kubectl_works(&node);
    everybody_in_a_pod_reads_its_files(&node);
    a_preview_says_what_then_happens(&node);
    what_git_says_is_put_back(&node);
    reconcile_waits_for_the_outcome(&node);
    a_runtime_class_names_another_oci_runtime(&mut node);
    what_was_accepted_outlives_the_daemon(&mut node);
    a_large_deletion_waits_for_approval(&node);
    strangers_are_adopted_only_when_asked(&node);
    an_object_has_one_source(&mut node);
    a_vanished_directory_is_not_empty(&node);
    restarts_keep_the_pods(&mut node);
    down_and_reset(node, &before);
}

fn pods_come_up_and_kubectl_works(node: &Node<'_>) {
    let pods = node.web_pods(2);
    let name = text(&pods[0], "/metadata/name");
    assert!(node.admin.kubectl_ok(&["get", "pods"]).contains("1/1"));
    assert!(node.admin.kubectl_ok(&["get", "deployment", "web", "-o", "wide"]).contains("2/2"));
    assert!(node.admin.kubectl_ok(&["describe", "pod", name]).contains("Started"));
    assert_eq!(node.admin.kubectl_ok(&["logs", name]), "started\n");
    assert_eq!(node.admin.kubectl_ok(&["exec", name, "--", "sh", "-c", "echo out; echo err >&2; hostname"]), format!("out\n{name}\n"));
    assert_eq!(node.admin.kubectl(&["exec", name, "--", "sh", "-c", "exit 7"]).status.code(), Some(7));
    let old = node.admin.old_kubectl(&["exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((old.status.code(), old.stdout.as_slice()), (Some(7), &b"out\n"[..]));
    assert!(String::from_utf8_lossy(&old.stderr).starts_with("err\n"), "{old:?}");
    let file = node.admin.hosts.dir.join("applied.yaml");
    std::fs::write(&file, config_map("by-hand", "1")).unwrap();
    for _ in 0..2 {
        node.admin.kubectl_ok(&["apply", "-f", file.to_str().unwrap()]);
    }
    std::fs::write(&file, config_map("by-hand", "2")).unwrap();
    assert_eq!(node.admin.kubectl(&["diff", "-f", file.to_str().unwrap()]).status.code(), Some(1));
    node.admin.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "-f", file.to_str().unwrap()]);
    assert_eq!(node.admin.kubectl_ok(&["get", "configmap", "by-hand", "-o", "jsonpath={.data.value}"]), "2");
    node.admin.kubectl_ok(&["delete", "configmap", "by-hand"]);
    node.admin.kubectl_ok(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    node.admin.kubectl_ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    isolated(node, &pods);
}

const BY_RUNC: &str = r#"apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: light}
handler: runc
overhead: {podFixed: {memory: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: by-runc}
spec:
  runtimeClassName: light
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: podbay.local/busybox:test
      command: ["/bin/sh", "-c", "echo begun; while ! test -e /tmp/go; do sleep 0.05; done; echo ended; exit 6"]
      resources: {limits: {memory: 64Mi}}
  restartPolicy: Never
"#;

fn a_runtime_class_names_another_oci_runtime(node: &mut Node<'_>) {
    let file = node.admin.hosts.dir.join("by-runc.yaml");
    std::fs::write(&file, BY_RUNC.replace("runtimeClassName: light", "runtimeClassName: heavy")).unwrap();
    let refused = node.admin.kubectl(&["create", "-f", file.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pod rejected: RuntimeClass \"heavy\" not found"), "{refused:?}");
    std::fs::write(&file, BY_RUNC).unwrap();
    node.admin.kubectl_ok(&["apply", "-f", file.to_str().unwrap()]);
    assert!(node.admin.kubectl_ok(&["get", "runtimeclass"]).contains("runc"));
    let phase = |node: &Node<'_>| node.admin.kubectl_ok(&["get", "pod", "by-runc", "-o", "jsonpath={.status.phase}"]);
    node.admin.wait("runc's pod runs", || (phase(node) == "Running").then_some(()));
    let overhead = node.admin.kubectl_ok(&["get", "pod", "by-runc", "-o", "jsonpath={.spec.overhead.memory}"]);
    assert_eq!(overhead, "16Mi");
    let states = node.below.kept_by_oci_runtimes();
    assert!(states.is_none_or(|kept| !kept.is_empty()));
    assert_eq!(node.admin.kubectl_ok(&["exec", "by-runc", "--", "sh", "-c", "echo in"]), "in\n");
    // The agent dies: its pods do not.
    let daemon = node.daemon.take().unwrap();
    drop(daemon);
    node.up();
    node.admin.wait("runc's pod is known again", || (phase(node) == "Running").then_some(()));
    node.admin.kubectl_ok(&["exec", "by-runc", "--", "touch", "/tmp/go"]);
    node.admin.wait("runc's pod has ended", || (phase(node) == "Failed").then_some(()));
    let code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].restartCount}";
    assert_eq!(node.admin.kubectl_ok(&["get", "pod", "by-runc", "-o", code]), "6 0");
    assert_eq!(node.admin.kubectl_ok(&["logs", "by-runc"]), "begun\nended\n");
    node.admin.kubectl_ok(&["delete", "-f", file.to_str().unwrap()]);
    node.admin.wait("nothing of it is left", || node.below.kept_by_oci_runtimes().is_none_or(|kept| kept.is_empty()).then_some(()));
}

/// The containers are in namespaces of their own, and their limits are in force.
fn isolated(node: &Node<'_>, pods: &[Value]) {
    let first = text(&pods[0], "/metadata/name");
    let second = text(&pods[1], "/metadata/name");
    let cgroup = if node.below.kind.can(Ability::CgroupNamespaces) { "cgroup" } else { "" };
    let look = format!("for n in net pid mnt ipc uts {cgroup}; do readlink /proc/self/ns/$n; done");
    let spaces = |pod: &str| node.admin.kubectl_ok(&["exec", pod, "--", "sh", "-c", &look]);
    let own = sh(&look);
    for ((a, b), c) in spaces(first).lines().zip(spaces(second).lines()).zip(own.lines()) {
        assert!(a != b && a != c && b != c, "each pod has namespaces of its own: {a} {b} {c}");
    }
    let processes = node.admin.kubectl_ok(&["exec", first, "--", "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]);
    assert!(processes.trim().parse::<u32>().unwrap() < 8, "a container sees only its own processes: {processes}");
}

const PLAIN_USER: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {key: value}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {key: hidden-value-of-a-secret}
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
    - name: main
      image: podbay.local/busybox:test
      command: ["/bin/sleep", "10000"]
      env: [{name: HIDDEN, valueFrom: {secretKeyRef: {name: hidden, key: key}}}]
      volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: settings, mountPath: /one-setting, subPath: a/b}
        - {name: hidden, mountPath: /hidden}
        - {name: scratch, mountPath: /scratch}
        - {name: scratch, mountPath: /deep, subPath: one/two}
        - {name: host, mountPath: /host}
  volumes:
    - {name: settings, configMap: {name: settings, items: [{key: key, path: a/b}]}}
    - {name: hidden, secret: {secretName: hidden}}
    - {name: scratch, emptyDir: {}}
    - {name: host, hostPath: {path: HOST/made/here, type: DirectoryOrCreate}}
"#;

/// The daemon runs with the umask of its unit: none of it may reach a container.
fn everybody_in_a_pod_reads_its_files(node: &Node<'_>) {
    let dir = node.admin.hosts.dir.display().to_string();
    let file = node.admin.hosts.dir.join("plain.yaml");
    std::fs::write(&file, PLAIN_USER.replace("HOST", &dir)).unwrap();
    node.admin.kubectl_ok(&["apply", "-f", file.to_str().unwrap()]);
    node.admin.wait("the pod of a plain user is ready", || node.admin.json(&["pod", "plain"]).filter(is_ready));
    let exec = |script: &str| node.admin.kubectl(&["exec", "plain", "--", "sh", "-c", script]);
    let works = |script: &str| {
        let out = exec(script);
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    works("cat /etc/resolv.conf /etc/hosts /etc/hostname");
    assert_eq!(works("cat /settings/a/b /one-setting"), "valuevalue");
    works("echo x > /scratch/x && echo y > /deep/y && test -s /scratch/one/two/y");
    assert_eq!(sh(&format!("stat -c %a {dir}/made/here")), "755\n");
    // What the agent writes is not the container's to write, not even as root.
    for place in ["/settings/a/b", "/settings/new", "/one-setting", "/hidden/key", "/hidden/new"] {
        let out = exec(&format!("echo changed > {place}"));
        assert!(String::from_utf8_lossy(&out.stderr).contains("Read-only file system"), "{place}: {out:?}");
    }
    let found =
        sh(&format!("cd {dir}/one; grep -rl hidden-value-of-a-secret data/runtime* data/agent data/pods engine/data/runtime || true"));
    assert_eq!(
        found.lines().filter(|path| !path.contains("/volumes/hidden/")).collect::<Vec<_>>(),
        [""; 0],
        "no Secret's value on the disk"
    );
    node.admin.kubectl_ok(&["delete", "-f", file.to_str().unwrap()]);
}

fn a_preview_says_what_then_happens(node: &Node<'_>) {
    let (code, out, _) = node.reconcile(&["--dry-run", "apps"]);
    assert_eq!(code, 0, "nothing to change: {out}");
    // A copy: the daemon would apply an edit of its own directory before all previews are made.
    let next = node.admin.hosts.dir.join("next");
    std::fs::create_dir_all(&next).unwrap();
    std::fs::write(next.join("web.yaml"), node.web(3)).unwrap();
    let manifests = next.to_str().unwrap();
    let (code, out, err) = node.reconcile(&["--dry-run", manifests, "--as", "apps"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("replicas") && out.contains("Deployment default/web"), "{out}");
    let more = Foretold::of(&node.admin, &[manifests, "--as", "apps"]);
    let snapshot = node.admin.hosts.dir.join("snapshot.json");
    node.admin.ok(&["snapshot", snapshot.to_str().unwrap()]);
    let there = node.manifests.to_str().unwrap();
    let (code, offline, err) = node.reconcile(&["--dry-run", "--offline", there, "--as", "apps", "--snapshot", snapshot.to_str().unwrap()]);
    assert_eq!(code, 0, "nothing to change on the snapshot either: {offline}{err}");
    assert!(offline.contains("Secret default/password: the snapshot file has no Secret values"), "{offline}");
    let (code, offline, err) =
        node.reconcile(&["--dry-run", "--offline", manifests, "--as", "apps", "--snapshot", snapshot.to_str().unwrap()]);
    assert_eq!(code, 1, "{err}");
    assert!(offline.contains("replicas"), "{offline}");
    node.write("web.yaml", &node.web(3));
    let (code, out, err) = node.reconcile(&["apps"]);
    assert_eq!(code, 0, "{out}{err}");
    node.web_pods(3);
    more.happened(&node.admin);

    // Every pod is replaced, and then one is left out.
    let change = |content: &str, count: usize| {
        std::fs::write(next.join("web.yaml"), content).unwrap();
        let foretold = Foretold::of(&node.admin, &[manifests, "--as", "apps"]);
        node.write("web.yaml", content);
        let (code, out, err) = node.reconcile(&["apps"]);
        assert_eq!(code, 0, "{out}{err}");
        node.admin.wait("the rollout is over", || node.rolled_out(count).then_some(()));
        foretold.happened(&node.admin);
    };
    change(&node.web(3).replace("echo started", "echo begun"), 3);
    change(&node.web(2), 2);
}

fn what_git_says_is_put_back(node: &Node<'_>) {
    node.admin.kubectl_ok(&["annotate", "deployment", "web", "example.org/note=mine"]);
    node.admin.kubectl_ok(&["scale", "deployment", "web", "--replicas=4"]);
    node.admin.wait("the replicas are put back", || {
        let web = node.admin.json(&["deployment", "web"])?;
        (web["spec"]["replicas"] == 2).then_some(())
    });
    let web = node.admin.json(&["deployment", "web"]).unwrap();
    assert_eq!(web["metadata"]["annotations"]["example.org/note"], "mine", "what git does not say is left alone");
    node.web_pods(2);
}

/// One object of a wave.
fn in_wave(wave: i32, object: &str) -> String {
    object.replacen("metadata: {", &format!("metadata: {{annotations: {{argocd.argoproj.io/sync-wave: \"{wave}\"}}, "), 1)
}

fn job(name: &str, command: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      terminationGracePeriodSeconds: 1\n      containers:\n        - {{name: c, image: \"podbay.local/busybox:test\", command: [\"/bin/sh\", \"-c\", \"{command}\"]}}\n"
    )
}

fn reconcile_waits_for_the_outcome(node: &Node<'_>) {
    let waves = [in_wave(1, &job("first", "sleep 2")), in_wave(2, &job("second", "sleep 1")), in_wave(3, &config_map("third", "x"))];
    node.write("waves.yaml", &waves.join("---\n"));
    let (code, out, err) = node.reconcile(&["apps"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("accepted") && out.ends_with("apps: applied and healthy\n"), "{out}");
    assert!(node.has("third"), "the last wave is applied when the verb returns");
    node.remove("waves.yaml");
    assert_eq!(node.reconcile(&["apps"]).0, 0);
    let failing = [in_wave(1, &job("failing", "exit 3")), in_wave(2, &config_map("never", "x"))];
    node.write("failing.yaml", &failing.join("---\n"));
    let (code, out, err) = node.reconcile(&["apps"]);
    assert!(code > 1 && err.contains("failed") && err.contains("failing"), "{code} {out}{err}");
    assert!(!node.has("never"), "a wave that failed stops there");
    let (code, json, _) = node.reconcile(&["apps", "-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(code > 1 && json["outcome"] == "failed" && text(&json, "/messages/0").contains("failing"), "{code} {json}");
    node.remove("failing.yaml");
    node.write("slow.yaml", &job("slow", "sleep 600"));
    let (code, out, err) = node.reconcile(&["apps", "--timeout", "10"]);
    assert!(code > 1 && out.contains("accepted") && err.contains("still waits: Job default/slow: has not completed"), "{code} {out}{err}");
    let (code, out, err) = node.reconcile(&["apps", "--no-wait"]);
    assert!(code == 0 && !out.contains("healthy"), "{out}{err}");
    node.remove("slow.yaml");
    let (code, out, err) = node.reconcile(&["apps"]);
    assert_eq!(code, 0, "{out}{err}");
    node.admin.ok(&["source", "suspend", "apps"]);
    let (code, _, err) = node.reconcile(&["apps"]);
    assert!(code > 1 && err.contains("suspended") && err.contains("podbay source resume apps"), "{code} {err}");
    let (code, _, err) = node.reconcile(&[]);
    assert!(code == 0 && err.contains("apps: suspended, left alone"), "{code} {err}");
    node.admin.ok(&["source", "resume", "apps"]);
}

fn what_was_accepted_outlives_the_daemon(node: &mut Node<'_>) {
    node.write("kept.yaml", &config_map("kept", "good"));
    assert_eq!(node.reconcile(&["apps"]).0, 0);
    node.write("kept.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndatta: {}\n");
    let (code, _, err) = node.reconcile(&["apps"]);
    assert!(code > 1 && err.contains("datta"), "{err}");
    node.daemon.take().unwrap().kill_hard();
    node.up();
    node.admin.kubectl_ok(&["delete", "configmap", "kept"]);
    node.admin.kubectl_ok(&["scale", "deployment", "web", "--replicas=4"]);
    node.admin.wait("the new process puts back what was accepted", || {
        let kept = node.admin.json(&["configmap", "kept"])?;
        let web = node.admin.json(&["deployment", "web"])?;
        (kept["data"]["value"] == "good" && web["spec"]["replicas"] == 2).then_some(())
    });
    assert!(node.reconcile(&["apps"]).0 > 1, "the bad revision is still refused");
    let listed = node.admin.kubectl_ok(&["get", "secrets", "-n", "kube-system", "-l", "podbay.dev/accepted-of=apps"]);
    assert!(listed.contains("podbay.dev/accepted-set"), "{listed}");
    assert!(!node.admin.kubectl_ok(&["get", "sources", "-o", "yaml"]).contains("hunter2"), "a Source shows no Secret value");
    node.remove("kept.yaml");
    assert_eq!(node.reconcile(&["apps"]).0, 0);
    node.web_pods(2);
}

fn a_large_deletion_waits_for_approval(node: &Node<'_>) {
    let names: Vec<String> = (0..8).map(|i| format!("many-{i}")).collect();
    let all: Vec<String> = names.iter().map(|name| config_map(name, "x")).collect();
    node.write("many.yaml", &all.join("---\n"));
    node.admin.wait("eight ConfigMaps are there", || names.iter().all(|name| node.has(name)).then_some(()));
    node.remove("many.yaml");
    let (code, _, err) = node.reconcile(&["apps"]);
    assert!(code > 1 && err.contains("--approve"), "{code} {err}");
    assert!(names.iter().all(|name| node.has(name)), "nothing is deleted without approval");
    let (code, _, err) = node.reconcile(&["--approve", "0000"]);
    assert!(code > 1, "a plan that does not wait cannot be approved: {err}");
    let source = node.admin.json(&["source", "apps"]).unwrap();
    let (code, out, err) = node.reconcile(&["--approve", text(&source, "/status/pendingPlan")]);
    assert_eq!(code, 0, "{out}{err}");
    node.admin.wait("the ConfigMaps are pruned", || (!names.iter().any(|name| node.has(name))).then_some(()));
}

fn strangers_are_adopted_only_when_asked(node: &Node<'_>) {
    let file = node.admin.hosts.dir.join("stranger.yaml");
    std::fs::write(&file, config_map("stranger", "theirs")).unwrap();
    node.admin.kubectl_ok(&["create", "-f", file.to_str().unwrap()]);
    node.write("stranger.yaml", &config_map("stranger", "ours"));
    let (code, _, err) = node.reconcile(&["apps"]);
    assert!(code > 1 && err.contains("--adopt") && err.contains("stranger"), "{code} {err}");
    assert_eq!(node.admin.kubectl_ok(&["get", "configmap", "stranger", "-o", "jsonpath={.data.value}"]), "theirs");
    let (code, out, err) = node.reconcile(&["apps", "--adopt"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(node.admin.kubectl_ok(&["get", "configmap", "stranger", "-o", "jsonpath={.data.value}"]), "ours");
    node.remove("stranger.yaml");
    let (code, out, err) = node.reconcile(&["apps"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(node.has("stranger"), "what was adopted is never pruned");
    node.admin.kubectl_ok(&["delete", "configmap", "stranger"]);
}

fn an_object_has_one_source(node: &mut Node<'_>) {
    let other = node.admin.hosts.dir.join("other");
    std::fs::create_dir_all(&other).unwrap();
    node.write("shared.yaml", &config_map("shared", "apps"));
    node.admin.wait("the ConfigMap is there", || node.has("shared").then_some(()));
    std::fs::write(other.join("same.yaml"), config_map("shared", "other")).unwrap();
    node.admin.ok(&["source", "add", "other", other.to_str().unwrap()]);
    let (code, _, err) = node.reconcile(&["other"]);
    assert!(code > 1 && err.contains("shared.yaml") && err.contains("same.yaml"), "both files are named: {err}");
    let source = node.admin.json(&["configmap", "shared"]).unwrap();
    assert_eq!(source["data"]["value"], "apps");
    node.admin.ok(&["source", "remove", "other"]);
    std::fs::remove_dir_all(&other).unwrap();
    node.remove("shared.yaml");
    node.admin.wait("the ConfigMap is pruned", || (!node.has("shared")).then_some(()));
}

fn a_vanished_directory_is_not_empty(node: &Node<'_>) {
    let aside = node.admin.hosts.dir.join("aside");
    std::fs::rename(&node.manifests, &aside).unwrap();
    let (code, _, err) = node.reconcile(&["apps"]);
    assert!(code > 1, "{err}");
    node.web_pods(2);
    std::fs::rename(&aside, &node.manifests).unwrap();
    node.admin.wait("the directory is read again", || (node.reconcile(&["apps"]).0 == 0).then_some(()));
}

fn restarts_keep_the_pods(node: &mut Node<'_>) {
    let before: Vec<String> = node.web_pods(2).iter().map(|pod| text(pod, "/status/containerStatuses/0/containerID").to_owned()).collect();
    let mut daemon = node.daemon.take().unwrap();
    Command::new("kill").args(["-INT", &daemon.pid().to_string()]).status().unwrap();
    node.admin.wait("the daemon has ended", || (!daemon.is_alive()).then_some(()));
    assert!(daemon.log_text().contains("the pods run on"), "Ctrl-C says that the pods stay");
    drop(daemon);
    node.configure(&[]);
    node.up();
    let after: Vec<String> = node.web_pods(2).iter().map(|pod| text(pod, "/status/containerStatuses/0/containerID").to_owned()).collect();
    assert_eq!(before, after, "the same containers run on");
    let source = node.admin.json(&["source", "apps"]).unwrap();
    assert_eq!(source["spec"]["suspend"], true, "a source that is no longer configured is suspended, and its objects stay");
    node.configure(&[("apps", "manifests")]);
}

fn down_and_reset(mut node: Node<'_>, before: &str) {
    let hosts = node.admin.hosts;
    let config = hosts.config("one");
    let host = |verb: &[&str]| {
        let out = hosts.command("one", crate::hosts::PODBAY).args(verb).arg("--config").arg(&config).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let told = "apiVersion: v1\nkind: Pod\nmetadata: {name: told}\nspec:\n  restartPolicy: Never\n  containers:\n    \
        - {name: c, image: \"podbay.local/busybox:test\", command: [\"/bin/sh\", \"-c\", \"echo said before the end\"]}\n";
    let file = hosts.dir.join("told.yaml");
    std::fs::write(&file, told).unwrap();
    node.admin.kubectl_ok(&["create", "-f", file.to_str().unwrap()]);
    let phase = |node: &Node<'_>| node.admin.json(&["pod", "told"]).map(|pod| text(&pod, "/status/phase").to_owned());
    node.admin.wait("the pod has ended", || phase(&node).filter(|phase| phase == "Succeeded"));
    // And the agent has heard so.
    let noted = || sh(&format!("cat {}/one/data/agent/pods/*", hosts.dir.display())).contains("\"phase\":\"Succeeded\"");
    node.admin.wait("the end is on record", || noted().then_some(()));
    host(&["down"]);
    assert_eq!(sh(&format!("pgrep -f '[h]ttpd -f -p 8080 -r {} ' || true", node.mark())), "", "down stops the pods");
    // What is to run at the next start is on record, and what has ended can still be read.
    let stays = |path: &String| path.contains("/data/agent/pods/") || path.contains("/data/logs/default_told_");
    let left: Vec<String> = node.below.pods_left().into_iter().filter(|path| !stays(path)).collect();
    assert_eq!(left, [""; 0]);
    node.daemon = None;
    node.up();
    node.web_pods(2);
    assert_eq!(node.admin.ok(&["logs", "told"]), "said before the end\n");
    assert_eq!(phase(&node).as_deref(), Some("Succeeded"));
    host(&["reset", "--yes"]);
    host(&["reset", "--yes"]);
    assert!(!hosts.dir.join("one/data").exists() && !hosts.dir.join("one/run").exists());
    assert_eq!(node.below.pods_left(), [""; 0]);
    // With a runtime that is not the agent's.
    drop(node);
    assert_eq!(machine_state(hosts), before, "reset leaves nothing behind");
}

fn machine_state(hosts: &Hosts) -> String {
    let (dir, name) = (hosts.dir.display(), hosts.namespace("one"));
    sh(&format!(
        "grep -F {dir}/ /proc/self/mountinfo || true; (find /sys/fs/cgroup -maxdepth 4 -type d -name '{name}*' 2>/dev/null || true) | sort
         nsenter --net=/run/netns/{name} sh -c 'ip -o link | cut -d: -f2 | sed s/@.*//; ip route; nft list tables'
         pgrep -af '[p]odbay|[h]ttpd -f -p 8080 -r {name} ' | grep -F {dir}/ || true"
    ))
}
