//! The CRI as a user meets it: the engine served by itself, and an agent with containerd below it.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use podbay::cri::client::Client;
use podbay::cri::contract::{Subject, suite};
use podbay::cri::{PodSandboxConfig, Runtime, SandboxState};

use super::containerd::{BUSYBOX, Containerd};
use crate::hosts::{Admin, Hosts, PODBAY, is_ready, sh, text, wait};

async fn client(hosts: &Hosts) -> Arc<Client> {
    let (socket, dir) = (hosts.dir.join("one/run/cri.sock"), hosts.dir.join("client"));
    let start = std::time::Instant::now();
    loop {
        match Client::connect(&socket.display().to_string(), &dir).await {
            Ok(client) => return Arc::new(client),
            Err(error) => assert!(start.elapsed() < crate::hosts::LONG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_serves_by_itself() {
    let hosts = Hosts::new("pbcri", &["one"]);
    hosts.configure("one", "");
    sh(&format!("examples/build-image {BUSYBOX} {}/one/data/images/busybox.tar", hosts.dir.display()));
    let mut daemon = hosts.start("one", &["runtime", "serve"]);
    let runtime = client(&hosts).await;
    let logs = hosts.dir.join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let subject = Subject { runtime: runtime.clone(), image: BUSYBOX.into(), logs, host_network: false, handler: String::new() };
    suite(&subject).await;
    for condition in runtime.status().await {
        assert!(condition.ok || !condition.kind.ends_with("Ready"), "{condition:?}");
    }
    // Two pods, which reach each other.
    let pod = |name: &str| PodSandboxConfig { hostname: name.into(), ..subject.pod(name) };
    let (one, two) = (runtime.run_pod_sandbox(&pod("one")).await.unwrap(), runtime.run_pod_sandbox(&pod("two")).await.unwrap());
    let address = runtime.pod_sandbox_status(&one).await.unwrap().ips.remove(0);
    assert!(address.starts_with("10.88."), "{address}");
    let served = subject.container("web", &["sh", "-c", "echo here > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]);
    let web = subject.start(&one, &served).await.unwrap();
    let asks = format!("until wget -q -O - http://{address}:8080/; do sleep 0.05; done");
    let asked = subject.start(&two, &subject.container("asks", &["sh", "-c", &asks])).await.unwrap();
    assert_eq!(subject.until_exited(&asked).await.exit_code, 0);
    // Whoever comes second is told who was first.
    let say = |arguments: &[&str]| hosts.command("one", PODBAY).args(arguments).arg("--config").arg(hosts.config("one")).output().unwrap();
    for verb in [&["runtime", "serve"][..], &["up"]] {
        let told = refusal(&say(verb));
        assert!(told.contains("already works with") && told.contains(&daemon.pid().to_string()), "{told}");
    }
    let told = refusal(&say(&["runtime", "serve", "--socket", "tcp://1.2.3.4:5"]));
    assert!(told.contains("--socket") && told.contains("no socket like"), "{told}");
    let told = refusal(&say(&["runtime", "serve", "--pod-range", "10.88"]));
    assert!(told.contains("--pod-range"), "{told}");
    let elsewhere = ["--data-dir", "/var/tmp/pbcri/two", "--run-dir", "/var/tmp/pbcri/two/run"];
    let socket = hosts.dir.join("one/run/cri.sock").display().to_string();
    let busy = [&["runtime", "serve", "--socket", &socket], &elsewhere[..]].concat();
    let told = refusal(&hosts.command("one", PODBAY).args(busy).output().unwrap());
    assert!(told.contains("another process serves on this socket"), "{told}");
    // Killed and started again: everything is as it was.
    daemon.kill_hard();
    let _daemon = hosts.start("one", &["runtime", "serve"]);
    let again = client(&hosts).await;
    assert_eq!(again.pod_sandbox_status(&one).await.unwrap().state, SandboxState::Ready);
    assert_eq!(again.container_status(&web).await.unwrap().finished_at, None);
    assert_eq!(again.list_pod_sandboxes().await.unwrap().len(), 2);
    sh(&format!("nsenter --net=/run/netns/pbcri-one {PODBAY} down --config {}", hosts.config("one").display()));
    assert!(again.list_pod_sandboxes().await.is_err(), "the server is stopped");
    assert!(!sh("cat /proc/mounts").contains("/var/tmp/pbcri/one"));
}

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
          image: podbay.test/busybox:1
          imagePullPolicy: IfNotPresent
          command: ["/bin/sh", "-c", "echo started by $WHO; exec httpd -f -p 8080 -h /etc"]
          env: [{name: WHO, value: test}]
          resources: {limits: {memory: 32Mi}}
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"#;

/// Exec and port-forward go through the agent to the runtime's own streaming server.
fn streams_reach_the_pods(admin: &Admin<'_>, pod: &str) {
    let say = ["exec", pod, "--", "sh", "-c", "echo out; echo err >&2; hostname; exit 7"];
    for out in [admin.kubectl(&say), admin.old_kubectl(&say)] {
        assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned()), (Some(7), format!("out\n{pod}\n")));
        assert!(String::from_utf8_lossy(&out.stderr).starts_with("err\n"), "{out:?}");
    }
    assert_eq!(admin.ok(&["exec", pod, "--", "hostname"]), format!("{pod}\n"));
    let kubectl = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/kubectl");
    for websockets in ["true", "false"] {
        let script = format!(
            "export KUBECTL_PORT_FORWARD_WEBSOCKETS={websockets}; {kubectl} port-forward pod/{pod} 18080:8080 >/dev/null & trap 'kill $!; wait' EXIT; \
             until busybox wget -q -O - http://127.0.0.1:18080/hostname; do sleep 0.1; done"
        );
        let mut command = admin.hosts.command("one", "timeout");
        command.args(["60", "sh", "-c", &script]).env("KUBECONFIG", admin.kubeconfig()).env("HOME", &admin.hosts.dir);
        let out = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{pod}\n"), "{out:?}");
    }
}

/// containerd leaves that to whoever drives it.
fn full_logs_are_rotated(admin: &Admin<'_>, pod: &str) {
    let much = "head -c 12000000 /dev/zero | tr '\\0' y > /proc/1/fd/1; echo > /proc/1/fd/1";
    admin.ok(&["exec", pod, "--", "sh", "-c", much]);
    let place = admin.hosts.dir.join("one/data/logs");
    admin.wait("the full log is an older one", || {
        let dir = std::fs::read_dir(&place).ok()?.flatten().find(|entry| entry.file_name().to_string_lossy().contains(pod))?.path();
        let bytes = |name: &str| std::fs::metadata(dir.join("httpd").join(name)).map(|meta| meta.len()).ok();
        (bytes("0.log.1")? > 10_000_000 && bytes("0.log")? < 10_000_000).then_some(())
    });
    admin.ok(&["exec", pod, "--", "sh", "-c", "echo written afterwards > /proc/1/fd/1"]);
    admin.wait("the log goes on", || admin.ok(&["logs", "--tail", "1", pod]).contains("written afterwards").then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_runs_its_pods_on_containerd() {
    let hosts = Hosts::new("pbctd", &["one"]);
    let containerd = Containerd::start_on(&hosts, "one").await;
    let manifests = hosts.dir.join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    std::fs::write(manifests.join("web.yaml"), WEB).unwrap();
    let more = format!(
        "runtime-endpoint = \"{}\"\n[server]\nlisten = \"10.99.0.1:6443\"\n[[source]]\nname = \"apps\"\ndirectory = \"{}\"\ninterval-seconds = 1\n",
        containerd.endpoint(),
        manifests.display()
    );
    hosts.configure("one", &more);
    let mut daemon = hosts.start("one", &["up"]);
    let admin = Admin { hosts: &hosts, server: "one" };
    let ready = |count: usize| {
        let pods = admin.pods("default", "app=web");
        (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
    };
    let pods = admin.wait("two pods are ready on containerd", || ready(2));
    let node = admin.json(&["node", "one"]).unwrap();
    assert!(text(&node, "/status/nodeInfo/containerRuntimeVersion").starts_with("containerd://1."), "{node}");
    let runtime = containerd.client().await;
    let running = runtime.list_containers().await.unwrap();
    let mut ids: Vec<&str> = running.iter().map(|one| one.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!((ids.len(), runtime.list_pod_sandboxes().await.unwrap().len()), (2, 2));
    for pod in &pods {
        let told = text(pod, "/status/containerStatuses/0/containerID");
        assert!(ids.iter().any(|id| told.ends_with(id)), "{told}");
        assert!(text(pod, "/status/podIP").starts_with("10.80.0."), "{pod}");
        assert!(admin.ok(&["logs", text(pod, "/metadata/name")]).contains("started by test"));
    }
    streams_reach_the_pods(&admin, text(&pods[0], "/metadata/name"));
    full_logs_are_rotated(&admin, text(&pods[0], "/metadata/name"));
    // The daemon's end is none of theirs.
    daemon.kill_hard();
    let _daemon = hosts.start("one", &["up"]);
    admin.wait("the API answers again", || ready(2));
    let same = runtime.list_containers().await.unwrap();
    assert!(same.iter().all(|one| ids.contains(&one.id.as_str())), "{same:?}");
    // A container that ends is started again.
    sh(&format!("ctr -a {} -n k8s.io tasks kill -s KILL {}", containerd.endpoint().trim_start_matches("unix://"), ids[0]));
    admin.wait("the killed one runs again", || {
        let pods = ready(2)?;
        pods.iter().any(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).then_some(())
    });
    std::fs::write(manifests.join("web.yaml"), WEB.replace("replicas: 2", "replicas: 1")).unwrap();
    admin.wait("one is left", || ready(1));
    wait(
        "containerd has one left",
        || format!("{ids:?}"),
        || {
            let left = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(runtime.list_pod_sandboxes()));
            left.is_ok_and(|left| left.len() == 1).then_some(())
        },
    );
    sh(&format!("nsenter --net=/run/netns/pbctd-one {PODBAY} down --config {}", hosts.config("one").display()));
    assert_eq!(runtime.list_pod_sandboxes().await.unwrap(), []);
}
