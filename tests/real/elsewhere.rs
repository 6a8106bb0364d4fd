//! A node of a server that it knows by a kubeconfig only, with the real programs: it asks for its certificates, runs a pod,
//! shows its log and lets into it once somebody has approved of that, and goes on after a restart.

use std::process::Command;

use serde_json::Value;

use crate::hosts::{Admin, Daemon, Hosts, is_ready, text};
use crate::runtimes::{Below, IMAGE, Kind};

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 1,
    "containers": [{"name": "main", "image": "IMAGE", "command": ["/bin/sh", "-c", "echo hello; exec sleep 1000000"]}]}}"#;
const TOKEN: &str = r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
    "type": "bootstrap.kubernetes.io/token",
    "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}}"#;

/// Makes the object of this text.
fn apply(admin: &Admin<'_>, object: &str) {
    let file = admin.hosts.dir.join("object.json");
    std::fs::write(&file, object).unwrap();
    admin.kubectl_ok(&["apply", "-f", file.to_str().unwrap()]);
}

/// With kubectl, as the documentation says it.
fn write_bootstrap(admin: &Admin<'_>) {
    let node = admin.hosts.dir.join("n1");
    let (ca, file) = (node.join("ca.crt"), node.join("bootstrap"));
    std::fs::write(
        &ca,
        admin.kubectl_ok(&["get", "configmap", "-n", "kube-system", "kube-root-ca.crt", "-o", r"jsonpath={.data.ca\.crt}"]),
    )
    .unwrap();
    let config = |words: &[&str]| admin.kubectl_ok(&[&["config", "--kubeconfig", file.to_str().unwrap()], words].concat());
    config(&["set-cluster", "c", "--server", "https://10.99.0.1:6443", "--certificate-authority", ca.to_str().unwrap(), "--embed-certs"]);
    config(&["set-credentials", "b", "--token", "abcdef.0123456789abcdef"]);
    config(&["set-context", "c", "--cluster", "c", "--user", "b"]);
    config(&["use-context", "c"]);
}

fn server(admin: &Admin<'_>) -> Daemon {
    let daemon = admin.hosts.start("srv", &["server"]);
    admin.wait("the API answers", || admin.run(&["get", "nodes"]).status.success().then_some(()));
    daemon
}

/// Ends a daemon as Ctrl-C does.
fn interrupt(admin: &Admin<'_>, mut daemon: Daemon) {
    assert!(Command::new("kill").args(["-INT", &daemon.pid().to_string()]).status().unwrap().success());
    admin.wait("the daemon has ended", || (!daemon.is_alive()).then_some(()));
}

fn main_of(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

#[test]
fn a_node_is_known_by_what_it_asks_for() {
    let hosts = Hosts::new("pbq", &["srv", "n1"]);
    let admin = Admin { hosts: &hosts, server: "srv" };
    hosts.configure("srv", "[server]\nlisten = \"10.99.0.1:6443\"\n");
    let below = Below::start(Kind::Engine, &hosts, "n1");
    let dir = hosts.dir.join("n1");
    let keys = "api-client = [\"podbay-server\"]\nlabels = { rack = \"a\" }\n";
    let file = |key: &str, name: &str| format!("{key} = \"{}\"\n", dir.join(name).display());
    let both = file("kubeconfig", "kubeconfig") + &file("bootstrap-kubeconfig", "bootstrap");
    hosts.configure("n1", &format!("{both}{keys}{}", below.settings()));
    let running = server(&admin);
    apply(&admin, TOKEN);
    write_bootstrap(&admin);

    // While there is no server, it waits, and ends when it is told to.
    drop(running);
    let waiting = hosts.start("n1", &["agent"]);
    admin.wait("the node has a key to ask with", || dir.join("data/agent/kube-client.key").exists().then_some(()));
    interrupt(&admin, waiting);
    let _server = server(&admin);
    let agent = hosts.start("n1", &["agent"]);
    admin.wait("the node is ready", || admin.json(&["node", "n1"]).filter(is_ready));
    apply(&admin, &POD.replace("IMAGE", IMAGE));
    let pod = || admin.json(&["pod", "p"]).filter(is_ready);
    let container = text(main_of(&admin.wait("the pod is ready", pod)), "/containerID").to_owned();

    // Nobody comes in before the request to serve is approved.
    assert!(!admin.kubectl(&["logs", "p"]).status.success());
    let request = admin.wait("the node asks for a certificate to serve with", || {
        let all = admin.json(&["csr"])?["items"].as_array().cloned()?;
        all.into_iter().find(|it| it["spec"]["signerName"] == "kubernetes.io/kubelet-serving")
    });
    admin.kubectl_ok(&["certificate", "approve", text(&request, "/metadata/name")]);
    admin.wait("the log can be read", || {
        let out = admin.kubectl(&["logs", "p"]);
        out.status.success().then(|| assert_eq!(out.stdout, b"hello\n"))
    });
    assert_eq!(admin.kubectl_ok(&["exec", "p", "--", "/bin/sh", "-c", "echo $((6 * 7))"]), "42\n");

    // The file that it began with is not needed again, and the pod goes on.
    std::fs::remove_file(dir.join("bootstrap")).unwrap();
    interrupt(&admin, agent);
    let _agent = hosts.start("n1", &["agent"]);
    admin.wait("the node API is back", || admin.kubectl(&["logs", "p"]).status.success().then_some(()));
    let again = admin.wait("the pod is ready still", pod);
    assert_eq!((text(main_of(&again), "/containerID"), &main_of(&again)["restartCount"]), (container.as_str(), &0.into()));
    assert_eq!(admin.json(&["csr"]).unwrap()["items"].as_array().unwrap().len(), 2, "one to ask with and one to serve with");
    admin.kubectl_ok(&["delete", "pod", "p"]);
    admin.wait("the pod is gone", || admin.json(&["pod", "p"]).is_none().then_some(()));
}
