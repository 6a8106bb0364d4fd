//! One server and three agents in network namespaces of their own, one git repository: what a
//! commit, a bad commit, crashes, a cut link, a dead agent and a dead node each end in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::foretold::Foretold;
use crate::hosts::{Admin, Daemon, Hosts, is_ready, sh, text};
use crate::runtimes::{Below, Kind};
use serde_json::Value;

const SECRET: &str = "correct-horse-battery-staple";
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The repository whose commits run.
struct Repository {
    dir: PathBuf,
    /// Stands for `MARK`: tells the test's processes from those of the same test on another runtime.
    mark: String,
}

impl Repository {
    fn new(hosts: &Hosts) -> Self {
        let dir = hosts.dir.join("repository");
        sh(&format!("git init -q -b main {0}; cd {0}; git config user.name Test; git config user.email test@example.org", dir.display()));
        Self { dir, mark: hosts.namespace("srv") }
    }

    fn commit(&self, files: &[(&str, &str)]) {
        self.write(files);
        self.commit_all();
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (name, content) in files {
            std::fs::write(self.dir.join(name), content.replace("MARK", &self.mark)).unwrap();
        }
    }

    fn commit_all(&self) {
        sh(&format!("cd {}; git add -A; git commit -q -m change", self.dir.display()));
    }
}

fn deployment(name: &str, replicas: u32, more: &str) -> String {
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
{more}
      containers:
        - name: httpd
          image: podbay.local/busybox:test
          command: ["/bin/sh", "-c", "mkdir /srv; echo {name} > /srv/index.html; exec httpd -f -p 8080 -r MARK -h /srv"]
          env:
            - name: PASSWORD
              valueFrom: {{secretKeyRef: {{name: password, key: value}}}}
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
          resources: {{requests: {{cpu: 10m}}}}
"#
    )
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    )
}

fn base() -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: password, namespace: shop}}\nstringData: {{value: {SECRET}}}\n"
    )
}

const JOB: &str = r#"apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec:
  completions: 2
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers:
        - {name: once, image: "podbay.local/busybox:test", command: ["/bin/sh", "-c", "echo done"]}
"#;

/// A running cluster: the server and a daemon a node.
struct Cluster<'a> {
    admin: Admin<'a>,
    repository: Repository,
    server: Option<Daemon>,
    agents: BTreeMap<&'static str, Daemon>,
    runtimes: BTreeMap<&'static str, Below<'a>>,
}

impl<'a> Cluster<'a> {
    fn start(hosts: &'a Hosts, kind: Kind) -> Self {
        let repository = Repository::new(hosts);
        repository.commit(&[("base.yaml", &base()), ("web.yaml", &format!("{}---\n{}", deployment("web", 3, ""), service("web")))]);
        hosts.configure(
            "srv",
            &format!(
                "[server]\nlisten = \"10.99.0.1:6443\"\nnode-grace-seconds = 12\neviction-seconds = 3\n[[source]]\nname = \"shop\"\ngit = \"{}\"\ninterval-seconds = 1\n",
                repository.dir.display()
            ),
        );
        let admin = Admin { hosts, server: "srv" };
        let mut cluster = Self { admin, repository, server: None, agents: BTreeMap::new(), runtimes: BTreeMap::new() };
        cluster.start_server();
        for node in NODES {
            let below = Below::start(kind, hosts, node);
            hosts.configure(node, &below.settings());
            cluster.runtimes.insert(node, below);
            let token = cluster.admin.ok(&["token", "create"]);
            std::fs::write(hosts.dir.join(node).join("token"), token).unwrap();
            cluster.start_agent(node);
        }
        cluster
    }

    fn start_server(&mut self) {
        self.server = Some(self.admin.hosts.start("srv", &["server"]));
        self.admin.wait("the API answers", || self.admin.run(&["get", "nodes"]).status.success().then_some(()));
    }

    fn start_agent(&mut self, node: &'static str) {
        let hosts = self.admin.hosts;
        let token = hosts.dir.join(node).join("token");
        let daemon = hosts.start(node, &["agent", "--server", "https://10.99.0.1:6443", "--token-file", token.to_str().unwrap()]);
        self.agents.insert(node, daemon);
    }

    /// Previews what the files say, then commits them: what comes of it is to be what the preview said.
    fn preview_and_commit(&self, files: &[(&str, &str)]) -> Foretold {
        self.repository.write(files);
        let foretold = Foretold::of(&self.admin, &[self.repository.dir.to_str().unwrap(), "--as", "shop"]);
        self.repository.commit_all();
        foretold
    }

    fn node_ready(&self, node: &str) -> Option<bool> {
        let node = self.admin.json(&["node", node])?;
        let conditions = node["status"]["conditions"].as_array()?;
        Some(conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
    }

    /// The ready pods of an app by node; `None` unless there are so many and no others.
    fn exactly_ready(&self, app: &str, count: usize) -> Option<BTreeMap<String, usize>> {
        let pods = self.admin.pods("shop", &format!("app={app}"));
        if pods.len() != count || !pods.iter().all(is_ready) {
            return None;
        }
        let mut nodes = BTreeMap::new();
        for pod in &pods {
            *nodes.entry(text(pod, "/spec/nodeName").to_owned()).or_insert(0) += 1;
        }
        Some(nodes)
    }

    /// The containers that run: (container id, restarts) by pod.
    fn containers(&self) -> BTreeMap<String, (String, i64)> {
        let list = self.admin.json(&["pods", "-A"]).expect("the API answers");
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
        running
            .map(|pod| {
                let status = &pod["status"]["containerStatuses"][0];
                (
                    text(pod, "/metadata/uid").to_owned(),
                    (text(status, "/containerID").to_owned(), status["restartCount"].as_i64().unwrap_or(-1)),
                )
            })
            .collect()
    }

    fn pod_on(&self, app: &str, node: &str) -> Value {
        self.admin.wait(&format!("a pod of {app} is ready on {node}"), || {
            let pods = self.admin.pods("shop", &format!("app={app}"));
            pods.into_iter().find(|pod| text(pod, "/spec/nodeName") == node && is_ready(pod))
        })
    }

    /// What a pod gets from a Service.
    fn fetch(&self, pod: &Value, service: &str) -> Option<String> {
        let service = self.admin.json(&["service", service, "-n", "shop"])?;
        let url = format!("http://{}/", text(&service, "/spec/clusterIP"));
        let out = self.admin.run(&["exec", text(pod, "/metadata/name"), "-n", "shop", "--", "timeout", "5", "wget", "-q", "-O", "-", &url]);
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }
}

/// The whole story in one test: a cluster is dear, and each chapter starts where the last one ended.
#[test]
fn three_nodes_and_a_repository() {
    three_nodes_and_a_repository_on(Kind::Engine);
}

#[test]
fn three_nodes_with_containerd_and_a_repository() {
    three_nodes_and_a_repository_on(Kind::Containerd);
}

fn three_nodes_and_a_repository_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbc"), &["srv", "n1", "n2", "n3"]);
    let before = machine_state(&hosts);
    let mut cluster = Cluster::start(&hosts, kind);
    a_commit_rolls_out(&cluster);
    a_service_leads_to_another_node(&cluster);
    a_job_completes(&cluster);
    a_bad_commit_changes_nothing(&cluster);
    crashes_restart_no_container(&mut cluster);
    a_cut_link_heals(&cluster);
    an_agent_dies_alone(&mut cluster);
    a_node_dies(&mut cluster);
    a_node_is_drained_and_removed(&mut cluster);
    the_secret_is_nowhere(&cluster);
    reset_leaves_nothing(cluster, &before);
}

fn a_commit_rolls_out(cluster: &Cluster<'_>) {
    for node in NODES {
        cluster.admin.wait(&format!("{node} is ready"), || cluster.node_ready(node)?.then_some(()));
    }
    let nodes = cluster.admin.wait("three pods are ready", || cluster.exactly_ready("web", 3));
    assert_eq!(nodes.values().sum::<usize>(), 3);
    let foretold = cluster.preview_and_commit(&[("web.yaml", &format!("{}---\n{}", deployment("web", 6, ""), service("web")))]);
    let nodes = cluster.admin.wait("six pods are ready", || cluster.exactly_ready("web", 6));
    foretold.happened(&cluster.admin);
    assert_eq!(nodes.keys().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(NODES), "the pods are spread over the nodes");
}

fn a_service_leads_to_another_node(cluster: &Cluster<'_>) {
    let far = deployment("far", 1, "      nodeSelector: {kubernetes.io/hostname: n2}");
    let foretold = cluster.preview_and_commit(&[("far.yaml", &format!("{far}---\n{}", service("far")))]);
    let nodes = cluster.admin.wait("the far pod is ready", || cluster.exactly_ready("far", 1));
    foretold.happened(&cluster.admin);
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["n2"]);
    let near = cluster.pod_on("web", "n1");
    let answer = cluster.admin.wait("a pod on n1 reaches the Service on n2", || cluster.fetch(&near, "far"));
    assert_eq!(answer, "far");
}

fn a_job_completes(cluster: &Cluster<'_>) {
    let foretold = cluster.preview_and_commit(&[("job.yaml", JOB)]);
    cluster.admin.wait("the job completes", || {
        let job = cluster.admin.json(&["job", "once", "-n", "shop"])?;
        (job["status"]["succeeded"] == 2 && !job["status"]["completionTime"].is_null()).then_some(())
    });
    foretold.happened(&cluster.admin);
    let pods = cluster.admin.pods("shop", "job-name=once");
    assert_eq!(cluster.admin.ok(&["logs", text(&pods[0], "/metadata/name"), "-n", "shop"]), "done\n");
}

fn a_bad_commit_changes_nothing(cluster: &Cluster<'_>) {
    let before = cluster.containers();
    let bad = deployment("web", 1, "").replace("replicas: 1", "replica: 1");
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n";
    let foretold = cluster.preview_and_commit(&[("web.yaml", &bad), ("more.yaml", more)]);
    assert!(foretold.is_refused());
    let refused = cluster.admin.run(&["reconcile", "shop"]);
    assert!(refused.status.code().is_some_and(|code| code > 1), "a refused commit exits above 1");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("web.yaml:5:") && message.contains("did you mean `replicas`?"), "{message}");
    assert!(message.contains("more.yaml") && message.contains("Bad_Name"), "both errors are told at once:\n{message}");
    assert!(cluster.admin.ok(&["explain", "shop"]).contains("did you mean `replicas`?"));
    assert_eq!(cluster.containers(), before, "a bad commit changes nothing");
    foretold.happened(&cluster.admin);
    sh(&format!("cd {}; git revert --no-edit HEAD", cluster.repository.dir.display()));
    cluster.admin.ok(&["reconcile", "shop"]);
}

fn crashes_restart_no_container(cluster: &mut Cluster<'_>) {
    let hosts = cluster.admin.hosts;
    let before = cluster.containers();
    cluster.server.take().expect("the server runs").kill_hard();
    for agent in cluster.agents.values_mut() {
        agent.kill_hard();
    }
    cluster.agents.clear();
    let processes = || sh(&format!("pgrep -f '[h]ttpd -f -p 8080 -r {} ' | sort", hosts.namespace("srv")));
    let pids = processes();
    cluster.start_server();
    for node in NODES {
        cluster.start_agent(node);
    }
    for node in NODES {
        cluster.admin.wait(&format!("{node} is ready again"), || cluster.node_ready(node)?.then_some(()));
    }
    cluster.admin.wait("all pods are ready again", || cluster.exactly_ready("web", 6));
    assert_eq!(cluster.containers(), before, "kill -9 of server and agents restarts no container");
    assert_eq!(processes(), pids, "the very processes go on");
    let near = cluster.pod_on("web", "n1");
    cluster.admin.wait("Services answer after the crash", || cluster.fetch(&near, "far"));
}

fn a_cut_link_heals(cluster: &Cluster<'_>) {
    let cut = cluster.pod_on("web", "n3");
    cluster.admin.hosts.cut("n3");
    cluster.admin.wait("the cut node is not ready", || (!cluster.node_ready("n3")?).then_some(()));
    cluster.admin.wait("its pods are replaced elsewhere", || {
        let pods = cluster.admin.pods("shop", "app=web");
        (pods.iter().filter(|pod| is_ready(pod) && text(pod, "/spec/nodeName") != "n3").count() == 6).then_some(())
    });
    assert!(process_runs(&cut), "a node that is cut off keeps its pods");
    cluster.admin.hosts.heal("n3");
    cluster.admin.wait("the healed node is ready", || cluster.node_ready("n3")?.then_some(()));
    cluster.admin.wait("the replaced pods are stopped", || (!process_runs(&cut)).then_some(()));
    cluster.admin.wait("six pods are left", || cluster.exactly_ready("web", 6));
}

/// Whether a process of the container's cgroup lives, which has the container's id or is below the pod's.
fn process_runs(pod: &Value) -> bool {
    let (uid, id) = (text(pod, "/metadata/uid"), text(pod, "/status/containerStatuses/0/containerID"));
    let id = id.rsplit('/').next().unwrap_or_default();
    let script = format!(
        "find /sys/fs/cgroup \\( -path '*{uid}*' -o -path '*{id}*' \\) -name cgroup.procs 2>/dev/null | xargs -r cat 2>/dev/null | sort -u || true"
    );
    let pids = sh(&script);
    pids.lines().any(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("httpd")))
}

fn an_agent_dies_alone(cluster: &mut Cluster<'_>) {
    spread_again(cluster);
    let orphan = cluster.pod_on("web", "n3");
    cluster.agents.remove("n3").expect("n3 runs").kill_hard();
    cluster.admin.wait("the node without an agent is not ready", || (!cluster.node_ready("n3")?).then_some(()));
    cluster.admin.wait("its pods are replaced", || {
        let pods = cluster.admin.pods("shop", "app=web");
        (pods.iter().filter(|pod| is_ready(pod) && text(pod, "/spec/nodeName") != "n3").count() == 6).then_some(())
    });
    assert!(process_runs(&orphan), "its containers run on without it");
    cluster.start_agent("n3");
    cluster.admin.wait("the node is ready with its agent", || cluster.node_ready("n3")?.then_some(()));
    cluster.admin.wait("what was replaced is stopped", || (!process_runs(&orphan)).then_some(()));
    cluster.admin.wait("six pods are left", || cluster.exactly_ready("web", 6));
}

fn a_node_dies(cluster: &mut Cluster<'_>) {
    spread_again(cluster);
    cluster.agents.remove("n3").expect("n3 runs").kill_hard();
    cluster.runtimes.get_mut("n3").expect("n3 has one").lose_power();
    cluster.admin.wait("the dead node is not ready", || (!cluster.node_ready("n3")?).then_some(()));
    cluster.admin.wait("its pods run elsewhere", || {
        let pods = cluster.admin.pods("shop", "app=web");
        (pods.iter().filter(|pod| is_ready(pod) && text(pod, "/spec/nodeName") != "n3").count() == 6).then_some(())
    });
    cluster.start_agent("n3");
    cluster.admin.wait("the node comes back", || cluster.node_ready("n3")?.then_some(()));
    cluster.admin.wait("six pods are left", || cluster.exactly_ready("web", 6));
}

/// Scales down and up, so that the node that was away has pods again.
fn spread_again(cluster: &Cluster<'_>) {
    for count in [1, 6] {
        let web = format!("{}---\n{}", deployment("web", count, ""), service("web"));
        let foretold = cluster.preview_and_commit(&[("web.yaml", &web)]);
        cluster.admin.wait(&format!("{count} pods are ready"), || cluster.exactly_ready("web", count as usize));
        foretold.happened(&cluster.admin);
    }
}

fn a_node_is_drained_and_removed(cluster: &mut Cluster<'_>) {
    spread_again(cluster);
    cluster.admin.ok(&["node", "drain", "n3", "--force"]);
    let nodes = cluster.admin.wait("all pods are elsewhere", || cluster.exactly_ready("web", 6));
    assert!(!nodes.contains_key("n3"), "{nodes:?}");
    cluster.admin.ok(&["node", "remove", "n3"]);
    assert!(cluster.admin.json(&["node", "n3"]).is_none(), "the Node is gone");
    let agent = cluster.agents.get("n3").expect("n3 runs").log.clone();
    cluster.admin.wait("the removed agent is told that it is refused", || {
        let log = std::fs::read_to_string(&agent).unwrap_or_default();
        log.contains("removed").then_some(())
    });
    assert!(cluster.admin.json(&["node", "n3"]).is_none(), "a removed node cannot come back by itself");
}

fn the_secret_is_nowhere(cluster: &Cluster<'_>) {
    let admin = &cluster.admin;
    let preview = admin.run(&["reconcile", "--dry-run", "shop"]);
    let mut places = vec![("preview", String::from_utf8_lossy(&preview.stdout).into_owned())];
    for verb in [
        &["status"][..],
        &["describe", "secret", "password", "-n", "shop"],
        &["explain", "shop"],
        &["get", "events", "-A", "-o", "json"],
        &["get", "pods", "-A", "-o", "json"],
        &["get", "sources", "-o", "json"],
        &["snapshot"],
    ] {
        places.push((verb[0], admin.ok(verb)));
    }
    for host in ["srv", "n1", "n2", "n3"] {
        places.push(("log", std::fs::read_to_string(admin.hosts.dir.join(host).join("log")).unwrap_or_default()));
    }
    let encoded = sh(&format!("printf %s {SECRET} | base64"));
    for (place, content) in places {
        assert!(!content.contains(SECRET) && !content.contains(encoded.trim()), "the secret appears in: {place}");
    }
}

/// What the machine has outside the test's own directory and namespaces.
fn machine_state(hosts: &Hosts) -> String {
    let (dir, name) = (hosts.dir.display(), |host| hosts.namespace(host));
    let spaces = ["srv", "n1", "n2", "n3"].map(name).join(" ");
    sh(&format!(
        "grep -F {dir}/ /proc/self/mountinfo || true; (find /sys/fs/cgroup -maxdepth 4 -type d -name '{prefix}*' 2>/dev/null || true) | sort
         for ns in {spaces}; do nsenter --net=/run/netns/$ns sh -c 'ip -o link | cut -d: -f2 | sed s/@.*//; ip route; nft list tables'; done
         pgrep -af '[p]odbay|[h]ttpd -f -p 8080 -r {mark} ' | grep -F {dir}/ || true",
        prefix = name(""),
        mark = name("srv"),
    ))
}

fn reset_leaves_nothing(mut cluster: Cluster<'_>, before: &str) {
    let hosts = cluster.admin.hosts;
    for node in NODES {
        for _ in 0..2 {
            let out =
                hosts.command(node, crate::hosts::PODBAY).args(["reset", "--yes", "--config"]).arg(hosts.config(node)).output().unwrap();
            assert!(out.status.success(), "reset of {node}: {}", String::from_utf8_lossy(&out.stderr));
        }
        let agent = cluster.agents.get_mut(node).expect("every agent was started");
        cluster.admin.wait(&format!("the agent of {node} has ended"), || (!agent.is_alive()).then_some(()));
    }
    let out = hosts.command("srv", crate::hosts::PODBAY).args(["reset", "--yes", "--config"]).arg(hosts.config("srv")).output().unwrap();
    assert!(out.status.success(), "reset of the server: {}", String::from_utf8_lossy(&out.stderr));
    drop(cluster);
    assert_eq!(machine_state(hosts), before, "reset leaves nothing behind");
}
