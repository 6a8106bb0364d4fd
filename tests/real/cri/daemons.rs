//! The CRI as a user meets it: the engine served by itself.

use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use podbay::cri::client::Client;
use podbay::cri::contract::{Subject, suite};
use podbay::cri::{PodSandboxConfig, Runtime, SandboxState};

use super::containerd::BUSYBOX;
use crate::hosts::{Hosts, PODBAY, sh};

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
    assert!(address.starts_with("10.84."), "{address}");
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
    let told = refusal(&say(&["runtime", "serve", "--pod-range", "10.84"]));
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
