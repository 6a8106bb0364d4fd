//! What people type into containers: the real kubectl and podbay, on a terminal of their own.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::hosts::{Hosts, PODBAY, is_ready, text};
use crate::pods::Place;
use crate::runtimes::Kind;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal of 91 columns and 17 rows, and who types there.
struct Typist {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<String>>,
}

impl Typist {
    /// `script` is a shell's; `$KUBECTL` and `$PODBAY` are the programs.
    fn new(place: &Place<'_>, script: &str) -> Self {
        let mut command = typed(place, "script");
        let script = format!("stty cols 91 rows 17; {script}; echo ended-with-$?; stty -a");
        command.args(["-qefc", &script, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(String::new()));
        let shown = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, keys, seen }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    fn sees(&self, what: &str) {
        let start = Instant::now();
        while !self.seen().contains(what) {
            assert!(start.elapsed() < PATIENCE, "{what:?} is not in {}", self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Presses keys until they have shown an effect: nobody says when a shell begins to read.
    fn press_until(&mut self, keys: &str, what: &str) {
        let start = Instant::now();
        while !self.seen().contains(what) {
            assert!(start.elapsed() < PATIENCE, "{what:?} is not in {}", self.seen());
            self.press(keys);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits for the program's end, after which the terminal is what it was.
    fn ends_with(self, code: i32) {
        self.sees(&format!("ended-with-{code}\r\n"));
        let start = Instant::now();
        let settings = loop {
            let seen = self.seen();
            match seen.rsplit_once("ended-with-") {
                Some((_, rest)) if rest.contains("extproc") => break rest.to_owned(),
                _ => assert!(start.elapsed() < PATIENCE, "the terminal is not as it was: {seen}"),
            }
        };
        for setting in ["icanon", "echo", "isig", "opost", "icrnl"] {
            assert!(settings.split_whitespace().any(|word| word == setting), "{setting}: {settings}");
        }
    }
}

impl Drop for Typist {
    /// Not by the end of its input, which would be typed as well.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program beside the daemon, with the ways to the two.
fn typed(place: &Place<'_>, program: &str) -> Command {
    let mut command = place.admin.hosts.command(place.admin.server, program);
    let kubectl = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/kubectl");
    command.env("KUBECTL", kubectl).env("PODBAY", PODBAY).env("KUBECONFIG", place.admin.kubeconfig());
    command.env("HOME", &place.admin.hosts.dir).env("SHELL", "/bin/sh");
    command
}

/// Runs a shell's script with this for its input.
fn with_input(place: &Place<'_>, script: &str, input: &[u8]) -> Output {
    let mut child =
        typed(place, "sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

const SHELL: &str = r#"  containers:
  - {name: main, IMAGE, stdin: true, tty: true, command: [sh]}
  - {name: beside, IMAGE, stdin: true, command: [sh, -c, 'while read -r line; do echo "heard $line"; echo "again $line" >&2; done']}"#;

#[test]
fn people_type_into_containers() {
    people_type_into_containers_on(Kind::Engine);
}

#[test]
fn people_type_into_containers_of_containerd() {
    people_type_into_containers_on(Kind::Containerd);
}

#[test]
fn people_type_into_containers_of_an_engine_behind_its_socket() {
    people_type_into_containers_on(Kind::Served);
}

fn people_type_into_containers_on(kind: Kind) {
    let hosts = Hosts::new(&kind.prefix("pbt"), &["one"]);
    let place = Place::start(&hosts, kind);
    place.pod("shell", SHELL);
    place.ready("shell");
    what_is_run_ends_with_its_input(&place);
    without_a_terminal_here_there_is_none_there(&place);
    a_shell_is_run_and_gone_again(&place);
    who_attaches_finds_what_the_last_one_left(&place);
    commands_have_terminals_too(&place);
    a_terminal_is_put_back_however_it_ends(&place);
}

const RUN: &str = "--image=podbay.local/busybox:test --restart=Never";

fn what_is_run_ends_with_its_input(place: &Place<'_>) {
    let out = with_input(place, &format!("\"$KUBECTL\" run words -i --rm -q {RUN} -- cat"), b"to and fro\n");
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("to and fro\n"), "{said}{wrong}");
    // Whose deletion kubectl does not wait for.
    place.admin.wait("the pod is gone", || place.get("words").is_none().then_some(()));
}

fn without_a_terminal_here_there_is_none_there(place: &Place<'_>) {
    let out = with_input(place, "\"$PODBAY\" exec -it shell -c main -- sh", b"test -t 0 || echo none\n");
    assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()), (Some(0), "none\n"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(said, "Unable to use a TTY - input is not a terminal or the right kind of file\n");
}

fn a_shell_is_run_and_gone_again(place: &Place<'_>) {
    let mut typist = Typist::new(place, &format!("\"$KUBECTL\" run prompt -it --rm {RUN} -- sh"));
    typist.press_until("stty size\r", "17 91");
    typist.press("test -t 1 && echo on-a-\"terminal\"; exit 3\r");
    typist.sees("on-a-terminal");
    typist.ends_with(3);
    place.admin.wait("the pod is gone", || place.get("prompt").is_none().then_some(()));
}

fn who_attaches_finds_what_the_last_one_left(place: &Place<'_>) {
    let mut typist = Typist::new(place, "\"$KUBECTL\" attach -it shell -c main");
    typist.press_until("left=\"behind\"; echo it-is-$left\r", "it-is-behind");
    drop(typist);
    let mut typist = Typist::new(place, "\"$PODBAY\" attach -it shell");
    typist.press_until("echo still-$left; stty size\r", "17 91");
    typist.sees("still-behind");
    drop(typist);
    // Without a terminal, both outputs, and nothing ends with who listened.
    for program in ["\"$KUBECTL\"", "\"$PODBAY\""] {
        let mut child = typed(place, "sh")
            .args(["-c", &format!("exec {program} attach -i shell -c beside 2>&1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stdout.take().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"me\n").unwrap();
        let (mut all, mut buffer) = (String::new(), [0; 4096]);
        while !all.contains("heard me\n") || !all.contains("again me\n") {
            let count = said.read(&mut buffer).unwrap();
            assert!(count > 0, "{program}: {all}");
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let status = place.ready("shell");
    assert_eq!(status["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(status["status"]["containerStatuses"][1]["restartCount"], 0);
    let lacks = place.admin.run(&["attach", "-t", "shell", "-c", "beside"]);
    assert!(String::from_utf8_lossy(&lacks.stderr).contains("has no terminal: its manifest lacks `tty: true`"));
}

fn commands_have_terminals_too(place: &Place<'_>) {
    for program in ["\"$KUBECTL\"", "\"$PODBAY\""] {
        let mut typist = Typist::new(place, &format!("{program} exec -it shell -c main -- sh"));
        typist.press_until("stty size\r", "17 91");
        typist.press("exit 4\r");
        typist.ends_with(4);
    }
}

fn a_terminal_is_put_back_however_it_ends(place: &Place<'_>) {
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let script = "sh -c 'echo $$ > \"$HOME/pid\"; exec \"$PODBAY\" attach -it shell'";
        let mut typist = Typist::new(place, script);
        typist.press_until("echo rea\"dy\"\r", "ready");
        let pid = std::fs::read_to_string(place.admin.hosts.dir.join("pid")).unwrap();
        let told = Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status().unwrap();
        assert!(told.success());
        typist.ends_with(code);
    }
    let pod = place.get("shell").unwrap();
    assert!(is_ready(&pod), "{}", text(&pod, "/status/phase"));
}
