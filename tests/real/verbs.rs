//! What users say to a cluster: kubectl's verbs and the official Python client, on one host with real pods.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::hosts::{Hosts, is_ready, sh, text};
use crate::pods::Place;
use crate::runtimes::{IMAGE, Kind};

#[test]
fn kubectls_verbs_do_what_they_say() {
    let hosts = Hosts::new("pbv", &["one"]);
    let place = Place::start(&hosts, Kind::Engine);
    a_rollout_has_a_history(&place);
    figures_are_shown(&place);
    what_pods_serve_is_asked_for_through_the_server(&place);
    a_pod_is_debugged(&place);
    manifests_are_edited_replaced_and_composed(&place);
    files_are_copied_and_pods_run(&place);
    nodes_are_tainted(&place);
    the_cluster_tells_of_itself(&place);
}

#[test]
fn the_python_client_works() {
    let hosts = Hosts::new("pbq", &["one"]);
    let place = Place::start(&hosts, Kind::Engine);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    let mut client = hosts.command("one", python.to_str().unwrap());
    client.arg(root.join("tests/real/client.py")).arg(IMAGE).env("KUBECONFIG", place.admin.kubeconfig()).stdin(Stdio::null());
    let out = client.output().unwrap();
    let told = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&told), place.admin.state());
}

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: httpd, image: 'podbay.local/busybox:test', command: [httpd, -f, -p, '8080', -h, /etc], ports: [{containerPort: 8080}]}
";

/// The one pod of `web`, once it is ready and the others are gone.
fn web(place: &Place<'_>) -> Value {
    place.admin.kubectl_ok(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    place.admin.wait("one pod of web is left", || {
        let mut pods = place.admin.pods("default", "app=web");
        (pods.len() == 1 && is_ready(&pods[0])).then(|| pods.remove(0))
    })
}

fn a_rollout_has_a_history(place: &Place<'_>) {
    let kubectl = |words: &[&str]| place.admin.kubectl_ok(words);
    place.apply("web", WEB);
    let first = web(place);
    kubectl(&["set", "env", "deployment/web", "WHO=second"]);
    kubectl(&["annotate", "deployment/web", "kubernetes.io/change-cause=the second"]);
    web(place);
    let history = kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("the second") && history.lines().filter(|line| line.starts_with(['1', '2'])).count() == 2, "{history}");
    assert!(kubectl(&["rollout", "history", "deployment/web", "--revision=2"]).contains("second"));
    kubectl(&["rollout", "undo", "deployment/web"]);
    let undone = web(place);
    assert_eq!(undone["spec"]["containers"][0]["env"], first["spec"]["containers"][0]["env"]);
    kubectl(&["rollout", "restart", "deployment/web"]);
    let restarted = web(place);
    assert_ne!(text(&restarted, "/metadata/uid"), text(&undone, "/metadata/uid"));
    kubectl(&["rollout", "pause", "deployment/web"]);
    kubectl(&["set", "resources", "deployment/web", "--limits=memory=64Mi"]);
    assert_eq!(text(&place.admin.pods("default", "app=web")[0], "/metadata/uid"), text(&restarted, "/metadata/uid"), "it is paused");
    kubectl(&["rollout", "resume", "deployment/web"]);
    assert_eq!(web(place)["spec"]["containers"][0]["resources"]["limits"]["memory"], "64Mi");
    kubectl(&["expose", "deployment/web", "--port=80", "--target-port=8080"]);
    assert_eq!(kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].targetPort} {.spec.selector.app}"]), "8080 web");
}

fn figures_are_shown(place: &Place<'_>) {
    let pod = web(place);
    let name = text(&pod, "/metadata/name");
    let shown = place.admin.wait("the pod's figures are there", || {
        let out = place.admin.kubectl(&["top", "pod", "--containers"]);
        let shown = String::from_utf8_lossy(&out.stdout).into_owned();
        shown.contains(name).then_some(shown)
    });
    assert!(shown.lines().any(|line| line.contains("httpd") && line.contains("Mi")), "{shown}");
    let nodes = place.admin.kubectl_ok(&["top", "node", "one"]);
    let shares: Vec<&str> = nodes.lines().nth(1).unwrap_or_default().split_whitespace().filter(|word| word.ends_with('%')).collect();
    assert_eq!(shares.len(), 2, "{nodes}");
}

/// The directory that the pod serves has a file with its name in it.
fn what_pods_serve_is_asked_for_through_the_server(place: &Place<'_>) {
    let pod = web(place);
    let name = text(&pod, "/metadata/name");
    let hostname = format!("{name}\n");
    let raw = |path: &str| place.admin.kubectl_ok(&["get", "--raw", path]);
    let of_service = "/api/v1/namespaces/default/services/web/proxy/hostname";
    place.admin.wait("the Service has an endpoint", || {
        let out = place.admin.kubectl(&["get", "--raw", of_service]);
        (out.stdout == hostname.as_bytes()).then_some(())
    });
    assert_eq!(raw(&format!("/api/v1/namespaces/default/pods/{name}/proxy/hostname")), hostname, "its first port");
    let missing = place.admin.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/http:{name}:8080/proxy/none")]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("could not find the requested resource"), "{missing:?}");
    let closed = place.admin.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/{name}:8081/proxy/")]);
    assert!(String::from_utf8_lossy(&closed.stderr).contains("error trying to reach service: connect to"), "{closed:?}");
    let summary: Value = serde_json::from_str(&raw("/api/v1/nodes/one/proxy/stats/summary")).unwrap();
    assert!(summary["pods"].as_array().unwrap().iter().any(|it| it["podRef"]["name"] == name), "{summary}");
    // As a browser does behind `kubectl proxy`.
    let script = format!(
        "{kubectl} proxy --port=18001 >/dev/null & trap 'kill $!; wait' EXIT; \
         curl -sf -L --retry 30 --retry-delay 1 --retry-connrefused http://127.0.0.1:18001{of_service}",
        kubectl = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/kubectl").display()
    );
    let mut behind = place.admin.hosts.command("one", "bash");
    let out = behind.args(["-c", &script]).env("KUBECONFIG", place.admin.kubeconfig()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), hostname, "{out:?}");
}

fn a_pod_is_debugged(place: &Place<'_>) {
    let pod = web(place);
    let name = text(&pod, "/metadata/name");
    let look = "tr '\\0' ' ' < /proc/1/cmdline; echo; exec sleep 3600";
    place.admin.kubectl_ok(&["debug", name, "--image", IMAGE, "--target=httpd", "-c", "look", "--", "sh", "-c", look]);
    let log = place.admin.wait("the debugger has looked", || {
        let out = place.admin.kubectl(&["logs", name, "-c", "look"]);
        Some(String::from_utf8_lossy(&out.stdout).into_owned()).filter(|text| text.ends_with('\n'))
    });
    assert!(log.starts_with("httpd -f"), "it sees its target's processes: {log}");
    assert_eq!(place.admin.kubectl_ok(&["exec", name, "-c", "look", "--", "echo", "in"]), "in\n");
    let state = "jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}";
    assert!(place.admin.kubectl_ok(&["get", "pod", name, "-o", state]).starts_with("20"));
    assert!(place.admin.kubectl_ok(&["describe", "pod", name]).contains("Ephemeral Containers:"));
    // One that has ended stays ended, and says so.
    place.admin.kubectl_ok(&["debug", name, "--image", IMAGE, "-c", "once", "--", "sh", "-c", "exit 5"]);
    let code = "jsonpath={.status.ephemeralContainerStatuses[?(@.name=='once')].state.terminated.exitCode}";
    place.admin.wait("the second debugger has ended", || (place.admin.kubectl_ok(&["get", "pod", name, "-o", code]) == "5").then_some(()));
    let now = web(place);
    assert_eq!((text(&now, "/metadata/uid"), &now["status"]["phase"]), (text(&pod, "/metadata/uid"), &Value::from("Running")));
    assert_eq!(now["status"]["containerStatuses"][0]["restartCount"], 0);
    // A copy of the pod to look at.
    let copy = ["debug", name, "--copy-to=copy", "--image", IMAGE, "-c", "more", "--", "sleep", "3600"];
    place.admin.kubectl_ok(&copy);
    place.ready("copy");
    place.delete(&["copy", name]);
    web(place);
}

fn manifests_are_edited_replaced_and_composed(place: &Place<'_>) {
    let dir = place.admin.hosts.dir.join("composed");
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("kustomization.yaml", "namePrefix: my-\nresources: [map.yaml]\nconfigMapGenerator:\n- {name: made, literals: [a=1]}\n");
    write("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\ndata: {a: '1'}\n");
    let at = dir.to_str().unwrap();
    assert!(place.admin.kubectl_ok(&["kustomize", at]).contains("name: my-made-"));
    assert!(place.admin.kubectl_ok(&["apply", "-k", at]).contains("configmap/my-plain created"));
    assert!(place.admin.kubectl_ok(&["apply", "-k", at]).contains("configmap/my-plain unchanged"));
    assert_eq!(place.admin.kubectl(&["diff", "-k", at]).status.code(), Some(0));
    let kubectl = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/kubectl");
    let script = place.admin.hosts.dir.join("editor");
    std::fs::write(&script, "#!/bin/sh\nsed -i 's/a: \"1\"/a: \"edited\"/' \"$1\"\n").unwrap();
    sh(&format!("chmod +x {}", script.display()));
    let mut edit = place.admin.hosts.command("one", kubectl);
    edit.args(["edit", "configmap", "my-plain"]).env("KUBECONFIG", place.admin.kubeconfig()).env("EDITOR", &script);
    let out = edit.env("HOME", &place.admin.hosts.dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(place.admin.kubectl_ok(&["get", "configmap", "my-plain", "-o", "jsonpath={.data.a}"]), "edited");
    let uid = || place.admin.kubectl_ok(&["get", "configmap", "my-plain", "-o", "jsonpath={.metadata.uid}"]);
    let (before, file) = (uid(), dir.join("replaced.yaml"));
    std::fs::write(&file, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: my-plain}\ndata: {a: '2'}\n").unwrap();
    place.admin.kubectl_ok(&["replace", "-f", file.to_str().unwrap()]);
    assert_eq!(uid(), before);
    place.admin.kubectl_ok(&["replace", "--force", "-f", file.to_str().unwrap()]);
    assert_ne!(uid(), before);
    place.admin.kubectl_ok(&["delete", "-k", at]);
}

fn files_are_copied_and_pods_run(place: &Place<'_>) {
    let run = ["run", "box", "--image", IMAGE, "--restart=Never", "--command", "--", "sleep", "3600"];
    place.admin.kubectl_ok(&run);
    place.admin.kubectl_ok(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]);
    let file = place.admin.hosts.dir.join("carried");
    std::fs::write(&file, "there and back").unwrap();
    let (from, back) = (file.to_str().unwrap(), place.admin.hosts.dir.join("back"));
    place.admin.kubectl_ok(&["cp", from, "box:/tmp/carried"]);
    place.admin.kubectl_ok(&["cp", "box:/tmp/carried", back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "there and back");
    assert!(place.admin.kubectl_ok(&["events", "--for", "pod/box"]).contains("Started container"));
    place.admin.kubectl_ok(&["delete", "pod", "box", "--grace-period=0", "--force"]);
    place.admin.kubectl_ok(&["wait", "--for=delete", "pod/box", "--timeout=60s"]);
}

fn nodes_are_tainted(place: &Place<'_>) {
    place.admin.kubectl_ok(&["taint", "node", "one", "only=mine:NoSchedule"]);
    assert_eq!(place.admin.kubectl_ok(&["get", "node", "one", "-o", "jsonpath={.spec.taints[0].key}"]), "only");
    place.admin.kubectl_ok(&["taint", "node", "one", "only=mine:NoSchedule-"]);
    assert_eq!(place.admin.kubectl_ok(&["get", "node", "one", "-o", "jsonpath={.spec.taints}"]), "");
    place.admin.kubectl_ok(&["drain", "one", "--ignore-daemonsets", "--disable-eviction=false", "--timeout=60s"]);
    place.admin.kubectl_ok(&["uncordon", "one"]);
    web(place);
    place.admin.kubectl_ok(&["delete", "service,deployment", "web", "--cascade=foreground"]);
    assert!(place.admin.pods("default", "app=web").is_empty(), "the owner goes last");
}

fn the_cluster_tells_of_itself(place: &Place<'_>) {
    let ok = |words: &[&str]| place.admin.kubectl_ok(words);
    assert!(ok(&["get", "--raw", "/livez?verbose"]).contains("[+]ping ok"));
    assert!(ok(&["get", "--raw", "/readyz?verbose"]).ends_with("readyz check passed\n"));
    assert!(ok(&["explain", "pod.spec.ephemeralContainers.targetContainerName"]).contains("<string>"));
    let resources = ok(&["api-resources", "-o", "name"]);
    assert!(resources.lines().any(|name| name == "deployments.apps") && resources.lines().any(|name| name == "pods"), "{resources}");
    assert!(ok(&["api-versions"]).contains("metrics.k8s.io/v1beta1"));
    assert!(ok(&["auth", "can-i", "create", "pods", "--subresource=ephemeralcontainers"]).starts_with("yes"));
}
