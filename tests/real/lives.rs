//! How pods live on one host, on each runtime: they come up, answer, talk, end, are started again, outlive the daemon and
//! their runtime, and leave nothing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::hosts::{Hosts, PODBAY, is_ready, sh, text};
use crate::pods::Place;
use crate::runtimes::{IMAGE, Kind};

#[test]
fn pods_live_and_end() {
    pods_live_and_end_on(Kind::Engine);
}

#[test]
fn pods_live_and_end_on_containerd() {
    pods_live_and_end_on(Kind::Containerd);
}

#[test]
fn pods_live_and_end_on_an_engine_behind_its_socket() {
    pods_live_and_end_on(Kind::Served);
}

fn pods_live_and_end_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbl"), &["one", "two"]);
    let mut place = Place::start(&hosts, kind);
    a_deployment_comes_up(&place);
    services_lead_to_it(&place);
    streams_reach_its_pods(&place);
    it_outlives_the_daemon_and_the_runtime(&mut place);
    it_rolls_out_and_is_scaled_down(&place);
    words_are_followed_and_remembered(&place);
    full_logs_are_rotated(&place);
    ends_are_followed_by_what_the_policy_says(&place);
    containers_start_in_order(&place);
    sidecars_end_last(&place);
    graces_are_kept(&place);
    what_cannot_run_says_why(&place);
    place.admin.wait("nothing is left of the pods", || place.below.pods_left().is_empty().then_some(()));
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
          image: podbay.local/busybox:test
          command: ["/bin/sh", "-c", "echo started by $WHO; hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
          env: [{name: WHO, value: test}]
          resources: {limits: {memory: 32Mi, cpu: 500m}}
          readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"#;

fn web_pods(place: &Place<'_>, count: usize) -> Vec<Value> {
    place.admin.wait(&format!("{count} pods of web are ready"), || {
        let pods = place.admin.pods("default", "app=web");
        (pods.len() == count && pods.iter().all(is_ready)).then_some(pods)
    })
}

/// The first container of each pod: its id and how often it was started again.
fn containers(pods: &[Value]) -> BTreeMap<String, i64> {
    let status = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
    let all = pods.iter().map(status);
    all.map(|status| (text(&status, "/containerID").to_owned(), status["restartCount"].as_i64().unwrap_or(-1))).collect()
}

fn a_deployment_comes_up(place: &Place<'_>) {
    place.apply("web", WEB);
    let pods = web_pods(place, 2);
    let node = place.admin.json(&["node", "one"]).unwrap();
    let scheme = place.below.kind.scheme();
    assert!(text(&node, "/status/nodeInfo/containerRuntimeVersion").starts_with(scheme), "{node}");
    let ids: Vec<String> = containers(&pods).into_keys().collect();
    let bare = ids.iter().map(|id| id.strip_prefix(scheme).unwrap_or_else(|| panic!("{id} begins with {scheme}")).to_owned());
    let mut bare: Vec<String> = bare.collect();
    if let Some(mut there) = place.below.containers() {
        there.sort();
        bare.sort();
        assert_eq!(there, bare, "those, and no others");
    }
    for pod in &pods {
        assert!(text(pod, "/status/podIP").starts_with("10.80.0."), "{pod}");
        assert_eq!(place.admin.kubectl_ok(&["logs", text(pod, "/metadata/name")]), "started by test\n");
    }
}

fn services_lead_to_it(place: &Place<'_>) {
    let pods = web_pods(place, 2);
    let names: Vec<&str> = pods.iter().map(|pod| text(pod, "/metadata/name")).collect();
    let service = place.admin.json(&["service", "web"]).unwrap();
    let url = format!("http://{}/", text(&service, "/spec/clusterIP"));
    let from_two = || {
        let mut wget = place.admin.hosts.command("two", "timeout");
        let out = wget.args(["5", "busybox", "wget", "-q", "-O", "-", "http://10.99.0.1:30080/"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let from_pod = || place.inside(names[0], &format!("timeout 5 wget -q -O - {url} || true")).trim().to_owned();
    for (whence, ask) in [("a pod", &from_pod as &dyn Fn() -> String), ("another host", &from_two)] {
        let mut heard: Vec<String> = Vec::new();
        place.admin.wait(&format!("both pods have answered {whence}"), || {
            heard.push(ask());
            names.iter().all(|name| heard.iter().any(|answer| answer == name)).then_some(())
        });
    }
}

fn streams_reach_its_pods(place: &Place<'_>) {
    let (pods, admin) = (web_pods(place, 2), &place.admin);
    let pod = text(&pods[0], "/metadata/name");
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
             until busybox wget -q -O - http://127.0.0.1:18080/; do sleep 0.1; done"
        );
        let mut command = admin.hosts.command("one", "timeout");
        command.args(["60", "sh", "-c", &script]).env("KUBECONFIG", admin.kubeconfig()).env("HOME", &admin.hosts.dir);
        let out = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), format!("{pod}\n"), "{out:?}");
    }
}

/// The process of the host that is the container's first.
fn process_of(place: &Place<'_>, pod: &str) -> String {
    let ns = place.inside(pod, "readlink /proc/1/ns/pid");
    let script = format!(
        "for p in /proc/[0-9]*; do [ \"$(readlink $p/ns/pid)\" = '{}' ] && grep -qx 'NSpid:.*[^0-9]1' $p/status && basename $p; done || true",
        ns.trim()
    );
    sh(&script).lines().next().unwrap_or_else(|| panic!("{pod} has a first process")).to_owned()
}

fn it_outlives_the_daemon_and_the_runtime(place: &mut Place<'_>) {
    let before = containers(&web_pods(place, 2));
    place.kill_daemon();
    place.up();
    web_pods(place, 2);
    place.below.restart();
    let pods = place.admin.wait("the runtime answers for the pods", || {
        let pods = place.admin.pods("default", "app=web");
        let name = text(pods.first()?, "/metadata/name").to_owned();
        place.admin.run(&["exec", &name, "--", "true"]).status.success().then_some(pods)
    });
    assert_eq!(containers(&pods), before, "the same containers run on");
    // What ends while nobody looks is started again, once.
    let name = text(&pods[0], "/metadata/name");
    let pid = process_of(place, name);
    place.kill_daemon();
    sh(&format!("kill -9 {pid}"));
    place.up();
    place.restarted(name, 1);
    let after = containers(&web_pods(place, 2));
    assert_eq!(after.values().sum::<i64>(), 1, "{after:?}");
    assert_eq!(after.keys().filter(|id| before.contains_key(*id)).count(), 1, "{after:?}");
    let status = place.get(name).unwrap();
    let last = &status["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((last["exitCode"].as_i64(), text(last, "/reason")), (Some(137), "Error"), "{last}");
    // And while everybody looks.
    sh(&format!("kill -9 {}", process_of(place, name)));
    place.restarted(name, 2);
    web_pods(place, 2);
}

fn it_rolls_out_and_is_scaled_down(place: &Place<'_>) {
    let before = containers(&web_pods(place, 2));
    place.admin.kubectl_ok(&["set", "env", "deployment/web", "WHO=other"]);
    place.admin.kubectl_ok(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let pods = web_pods(place, 2);
    assert!(containers(&pods).keys().all(|id| !before.contains_key(id)), "all of them are new");
    assert_eq!(place.admin.kubectl_ok(&["logs", text(&pods[0], "/metadata/name")]), "started by other\n");
    place.admin.kubectl_ok(&["scale", "deployment/web", "--replicas=1"]);
    let left: Vec<String> = containers(&web_pods(place, 1)).into_keys().collect();
    if place.below.containers().is_some() {
        place.admin.wait("the runtime has one left", || {
            let there = place.below.containers().unwrap_or_default();
            (there.len() == 1 && left[0].ends_with(&there[0])).then_some(())
        });
    }
    place.admin.kubectl_ok(&["delete", "service,deployment", "web"]);
    place.admin.wait("none is left", || place.admin.pods("default", "app=web").is_empty().then_some(()));
}

/// Says what it is told to, once that is there.
const TALKS: &str = r#"  containers:
  - {name: main, IMAGE, command: [sh, -c, "echo life $(cat /host/lives 2>/dev/null); echo x >> /host/lives; for n in 1 2 3; do until test -e /host/say-$n; do sleep 0.05; done; echo line $n; echo wrong $n >&2; done; rm /host/say-*; exit 4"]}"#;

fn words_are_followed_and_remembered(place: &Place<'_>) {
    place.pod("talks", TALKS);
    place.ready("talks");
    let none = place.admin.run(&["logs", "--previous", "talks"]);
    let said = String::from_utf8_lossy(&none.stderr);
    let expected = "error: previous terminated container \"main\" in pod \"talks\" not found\n";
    assert_eq!((none.status.code(), &*said, none.stdout.len()), (Some(2), expected, 0), "there is no earlier life yet");
    let kubectl = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/kubectl");
    let mut follows = place.admin.hosts.command("one", kubectl);
    follows.args(["logs", "-f", "talks"]).env("KUBECONFIG", place.admin.kubeconfig()).env("HOME", &place.admin.hosts.dir);
    let mut follows = follows.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follows.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("life"));
    for n in 1..=3 {
        place.touch(&format!("say-{n}"));
        let mut two = [lines.next().unwrap(), lines.next().unwrap()];
        two.sort();
        assert_eq!(two, [format!("line {n}"), format!("wrong {n}")], "each as soon as it is said");
    }
    assert_eq!(lines.next(), None, "the end of the container is that of its log");
    assert!(follows.wait().unwrap().success());
    place.restarted("talks", 1);
    place.admin.wait("the second life has a log", || (place.admin.kubectl_ok(&["logs", "talks"]) == "life x\n").then_some(()));
    let previous = place.admin.kubectl_ok(&["logs", "--previous", "talks"]);
    assert_eq!((previous.lines().next(), previous.lines().count()), (Some("life"), 7), "{previous}");
    let tail = place.admin.kubectl_ok(&["logs", "--previous", "--tail=2", "--timestamps", "talks"]);
    assert!(tail.lines().count() == 2 && tail.lines().all(|line| line.starts_with("20") && line.ends_with(" 3")), "{tail}");
    for (flags, expected) in
        [(&["--previous"][..], &previous), (&["--previous", "--tail=2", "--timestamps"], &tail), (&[], &"life x\n".to_owned())]
    {
        assert_eq!(place.admin.ok(&[&["logs", "talks"], flags].concat()), *expected, "podbay's own verb: {flags:?}");
    }
    place.delete(&["talks"]);
}

/// By the shim of our engine, and by the agent where the runtime leaves that to whoever drives it. Whoever follows
/// the log misses no line by it, and is done when the container has ended.
fn full_logs_are_rotated(place: &Place<'_>) {
    let main = "{name: main, IMAGE, command: [sh, -c, \"until test -e /host/enough; do sleep 0.05; done\"]}";
    place.pod("much", &format!("  restartPolicy: Never\n  containers:\n  - {main}"));
    place.ready("much");
    let followed = place.admin.hosts.dir.join("followed");
    let mut follows = place.admin.hosts.command("one", PODBAY);
    follows.args(["logs", "-f", "much"]).env("KUBECONFIG", place.admin.kubeconfig()).stdin(Stdio::null());
    let mut follows = follows.stdout(std::fs::File::create(&followed).unwrap()).spawn().unwrap();
    place.inside("much", "echo begins > /proc/1/fd/1");
    let seen = |text: &str| std::fs::read_to_string(&followed).unwrap().contains(text).then_some(());
    place.admin.wait("the log is followed", || seen("begins\n"));
    place.inside("much", "n=0; while test $n -lt 15000; do printf '%01000d\\n' $n; n=$((n + 1)); done > /proc/1/fd/1");
    let logs = place.admin.hosts.dir.join("one/data/logs");
    place.admin.wait("the full log is an older one", || {
        let dir = std::fs::read_dir(&logs).ok()?.flatten().find(|entry| entry.file_name().to_string_lossy().contains("_much_"))?.path();
        let bytes = |name: &str| std::fs::metadata(dir.join("main").join(name)).map(|meta| meta.len()).ok();
        (bytes("0.log.1")? > 9_000_000 && bytes("0.log")? < 10_000_000).then_some(())
    });
    place.inside("much", "echo written afterwards > /proc/1/fd/1");
    place
        .admin
        .wait("the log goes on", || place.admin.kubectl_ok(&["logs", "--tail", "1", "much"]).contains("written afterwards").then_some(()));
    place.admin.wait("whoever follows it goes on", || seen("written afterwards\n"));
    assert!(follows.try_wait().unwrap().is_none(), "it is followed as long as the container runs");
    place.touch("enough");
    let code = place.admin.wait("the end of the container is that of its log", || follows.try_wait().unwrap());
    assert!(code.success(), "{code}");
    all_is_heard_or_told_to_be_dropped(&std::fs::read_to_string(&followed).unwrap(), 15_000);
    place.delete(&["much"]);
}

/// Numbered lines between a first and a last one: those that are not there are just as many as were dropped, and told,
/// because the disk was slower than the container.
fn all_is_heard_or_told_to_be_dropped(text: &str, count: usize) {
    let (mut next, mut missing, mut dropped) = (0, 0, 0);
    let lines: Vec<&str> = text.lines().collect();
    let [first, numbered @ .., last] = lines.as_slice() else { panic!("{} lines", lines.len()) };
    assert_eq!((*first, *last), ("begins", "written afterwards"));
    for line in numbered {
        if let Some(marker) = line.strip_prefix("[podbay: ") {
            dropped += marker.split(' ').next().unwrap().parse::<usize>().unwrap();
            continue;
        }
        let number: usize = line.parse().unwrap();
        assert!(line.len() == 1000 && number >= next, "{number} after {next}");
        missing += number - next;
        next = number + 1;
    }
    assert_eq!(missing + count - next, dropped, "lines are lost of which nothing is told");
}

fn ends_are_followed_by_what_the_policy_says(place: &Place<'_>) {
    let ends = |policy: &str, code: u8| {
        let name = format!("{}-{code}", policy.to_ascii_lowercase());
        place.pod(
            &name,
            &format!("  restartPolicy: {policy}\n  containers:\n  - {{name: main, IMAGE, command: [sh, -c, \"exit {code}\"]}}"),
        );
        name
    };
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 5, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let name = ends(policy, code);
        let pod = place.admin.wait(&format!("{name} has {phase}"), || place.get(&name).filter(|pod| pod["status"]["phase"] == phase));
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!((&status["restartCount"], &status["state"]["terminated"]["exitCode"]), (&0.into(), &code.into()), "{status}");
        let none = place.admin.run(&["logs", "--previous", &name]);
        let said = String::from_utf8_lossy(&none.stderr);
        assert!(said.contains(&format!("previous terminated container \"main\" in pod \"{name}\" not found")), "{said}");
        place.delete(&[&name]);
    }
    let again = [("OnFailure", 6, "Error"), ("Always", 0, "Completed")];
    let names = again.map(|(policy, code, _)| ends(policy, code));
    for (name, (_, code, reason)) in names.iter().zip(again) {
        let pod = place.restarted(name, 2);
        place.admin.ok(&["logs", "--previous", name]);
        let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], text(last, "/reason"), text(&pod, "/status/phase")), (&code.into(), reason, "Running"), "{pod}");
    }
    place.delete(&names.each_ref().map(String::as_str));
}

/// The second fails at its first attempt.
const IN_ORDER: &str = r#"  initContainers:
  - {name: first, IMAGE, command: [sh, -c, "sleep 0.5; echo first >> /host/order"]}
  - {name: beside, IMAGE, restartPolicy: Always, command: [sh, -c, "echo beside >> /host/order; touch /tmp/up; exec sleep 10000"], startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}}
  - {name: second, IMAGE, command: [sh, -c, "echo second >> /host/order; test -e /host/again || { touch /host/again; exit 1; }"]}
  containers:
  - {name: main, IMAGE, command: [sh, -c, "echo main >> /host/order; exec sleep 10000"]}"#;

fn containers_start_in_order(place: &Place<'_>) {
    place.pod("in-order", IN_ORDER);
    let pod = place.ready("in-order");
    assert_eq!(place.heard("order"), "first\nbeside\nsecond\nsecond\nmain\n");
    let counts: Vec<i64> =
        pod["status"]["initContainerStatuses"].as_array().unwrap().iter().map(|it| it["restartCount"].as_i64().unwrap()).collect();
    assert_eq!(counts, [0, 0, 1]);
    place.delete(&["in-order"]);
}

const WITH_SIDECAR: &str = r#"  initContainers:
  - {name: side, IMAGE, restartPolicy: Always, command: [sh, -c, "trap 'echo side >> /host/ends; exit 0' TERM; touch /tmp/up; while :; do sleep 0.05; done"], UP}
  containers:
  - {name: main, IMAGE, command: [sh, -c, "trap 'sleep 1; echo main >> /host/ends; exit 0' TERM; touch /tmp/up; while :; do sleep 0.05; done"], UP}"#;

/// The main container ignores its stop signal to the end of the grace.
const STUBBORN: &str = r#"  initContainers:
  - {name: side, IMAGE, restartPolicy: Always, command: [sh, -c, "trap 'echo ended >> /host/side; exit 0' TERM; touch /tmp/up; while :; do sleep 0.05; done"], UP}
  containers:
  - {name: main, IMAGE, command: [sh, -c, "trap '' TERM; touch /tmp/up; while :; do sleep 1; done"], UP}"#;

/// The sidecar would go on.
const WORK: &str = r#"  restartPolicy: Never
  initContainers:
  - {name: side, IMAGE, restartPolicy: Always, command: [sh, -c, "trap 'echo ended >> /host/work; exit 0' TERM; touch /host/side-up; while :; do sleep 0.05; done"]}
  containers:
  - {name: main, IMAGE, command: [sh, -c, "until test -e /host/side-up; do sleep 0.05; done; echo done >> /host/work"]}"#;

fn sidecars_end_last(place: &Place<'_>) {
    place.pod("with-sidecar", WITH_SIDECAR);
    place.pod("stubborn", STUBBORN);
    place.pod("work", WORK);
    place.ready("with-sidecar");
    place.ready("stubborn");
    place.delete(&["with-sidecar", "stubborn", "--grace-period=3"]);
    assert_eq!(place.heard("ends"), "main\nside\n");
    assert_eq!(place.heard("side"), "ended\n", "SIGTERM though the deadline had passed");
    place.admin.wait("the work is done", || place.get("work").filter(|pod| pod["status"]["phase"] == "Succeeded"));
    assert_eq!(place.heard("work"), "done\nended\n");
    place.delete(&["work"]);
}

const SLOW_END: &str = r#"  containers:
  - {name: main, IMAGE, command: [sh, -c, "trap 'sleep 2; echo well >> /host/NAME; exit 0' TERM; touch /tmp/up; while :; do sleep 0.05; done"], UP}"#;

fn graces_are_kept(place: &Place<'_>) {
    for name in ["patient", "forced"] {
        place.pod(name, &SLOW_END.replace("NAME", name));
    }
    for name in ["patient", "forced"] {
        place.ready(name);
    }
    place.delete(&["patient"]);
    assert_eq!(place.heard("patient"), "well\n", "within its grace");
    let id = text(&place.get("forced").unwrap(), "/status/containerStatuses/0/containerID").to_owned();
    place.delete(&["forced", "--grace-period=0", "--force"]);
    assert!(place.get("forced").is_none(), "at once for whoever asked");
    place.admin.wait("and then on the host", || {
        let there = place.below.containers().unwrap_or_default();
        (!there.iter().any(|one| id.ends_with(one.as_str()))).then_some(())
    });
}

const HOG: &str = r#"  restartPolicy: Never
  containers:
  - {name: main, IMAGE, command: [tail, /dev/zero], resources: {limits: {memory: 24Mi}}}"#;

fn what_cannot_run_says_why(place: &Place<'_>) {
    place.pod("hog", HOG);
    place.pod("no-program", "  containers:\n  - {name: main, IMAGE, command: [/no/such/program]}");
    let elsewhere = "  containers:\n  - {name: main, IMAGE, command: [\"true\"], imagePullPolicy: Never}";
    place.pod("no-image", &elsewhere.replace("IMAGE", "image: podbay.local/no-such:1"));
    place.pod("no-registry", &elsewhere.replace("IMAGE", "image: \"127.0.0.1:1/no-such:1\"").replace(", imagePullPolicy: Never", ""));
    let waiting = |name: &str, reasons: &[&str]| {
        place.admin.wait(&format!("{name} waits: {reasons:?}"), || {
            let pod = place.get(name)?;
            let state = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
            reasons.contains(&text(&state, "/reason")).then(|| text(&state, "/message").to_owned())
        })
    };
    let pod = place.admin.wait("the hog has failed", || place.get("hog").filter(|pod| pod["status"]["phase"] == "Failed"));
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((end["exitCode"].as_i64(), text(end, "/reason")), (Some(137), "OOMKilled"), "{end}");
    place.told_of("no-program", "Failed", "/no/such/program");
    assert!(waiting("no-image", &["ErrImageNeverPull"]).contains("podbay.local/no-such:1"));
    assert!(waiting("no-registry", &["ErrImagePull", "ImagePullBackOff"]).contains("127.0.0.1:1/no-such:1"));
    place.told_of("no-registry", "Failed", "Failed to pull image \"127.0.0.1:1/no-such:1\"");
    place.delete(&["hog", "no-program", "no-image", "no-registry"]);
    // None of that was the others' end.
    let run = ["run", "last", "--image", IMAGE, "--restart=Never", "--", "true"];
    place.admin.kubectl_ok(&run);
    place.admin.wait("another pod runs", || place.get("last").filter(|pod| pod["status"]["phase"] == "Succeeded"));
    place.delete(&["last"]);
}
