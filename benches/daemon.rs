//! `podbay up` as a whole: time to ready, a minute of idleness, commit to running for one pod.
//! Needs root, nftables and busybox-static (`make bench`). IDLE_SECONDS shortens the minute;
//! PODBAY_BIN is the directory with the programs to measure (`make bench`: those that are shipped).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon on directories of its own, and its log with the time each line came.
struct Daemon {
    child: Child,
    lines: Receiver<(Instant, String)>,
    dir: PathBuf,
    started: Instant,
}

fn program() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_podbay"));
    std::env::var_os("PODBAY_BIN").map_or_else(built, |dir| PathBuf::from(dir).join("podbay"))
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        let config = dir.join("podbay.toml");
        let text = format!(
            "data-dir = \"{0}/data\"\nrun-dir = \"{0}/run\"\n[server]\nlisten = \"127.0.0.1:17643\"\npod-range = \"10.83.0.0/16\"\nservice-range = \"10.99.0.0/16\"\n\
             [node]\nname = \"bench\"\napi-port = 17650\nbridge = \"podbay-bench0\"\nnft-table = \"podbay-bench\"\ncgroup-root = \"podbay-bench\"\nsystemd-slice = false\n\
             [[source]]\nname = \"bench\"\ndirectory = \"{0}/manifests\"\ninterval-seconds = 3600\n",
            dir.display()
        );
        std::fs::write(&config, text).expect("write podbay.toml");
        let started = Instant::now();
        let mut child = Command::new(program()).args(["up", "--config"]).arg(&config).stderr(Stdio::piped()).spawn().expect("start podbay");
        let log = child.stderr.take().expect("its log");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if send.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, dir: dir.to_owned(), started }
    }

    /// When a line with this text came.
    fn line(&self, text: &str) -> Instant {
        loop {
            let (at, line) = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the log never said {text:?}"));
            if line.contains(text) {
                return at;
            }
        }
    }

    fn number(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("read /proc");
        let line = text.lines().find(|line| line.starts_with(field)).expect("the field");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
    }

    /// CPU seconds so far.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("read /proc");
        let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let config = self.dir.join("podbay.toml");
        let _ = Command::new(program()).args(["reset", "--yes", "--config"]).arg(config).status();
        let _ = self.child.wait();
    }
}

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n    - {{name: main, image: \"podbay.local/busybox:bench\", command: [\"/bin/sleep\", \"1000\"]}}\n"
    )
}

fn main() {
    let dir = PathBuf::from("/var/tmp/podbay-bench");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("manifests")).expect("make a directory");
    let built = Command::new("examples/build-image").args(["podbay.local/busybox:bench"]).arg(dir.join("data/images/busybox.tar")).status();
    assert!(built.expect("run examples/build-image").success());

    drop({
        let first = Daemon::start(&dir);
        first.line("server is ready");
        first
    });
    std::fs::create_dir_all(dir.join("manifests")).expect("make a directory");
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let mut daemon = Daemon::start(&dir);
            let ms = (daemon.line("server is ready") - daemon.started).as_secs_f64() * 1000.0;
            let _ = Command::new("kill").arg(daemon.child.id().to_string()).status();
            let _ = daemon.child.wait();
            std::mem::forget(daemon);
            ms
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("time to ready: {:.0} ms (median of 5; budget 200)", times[2]);

    let built = Command::new("examples/build-image").args(["podbay.local/busybox:bench"]).arg(dir.join("data/images/busybox.tar")).status();
    assert!(built.expect("run examples/build-image").success());
    let daemon = Daemon::start(&dir);
    daemon.line("server is ready");
    std::thread::sleep(Duration::from_secs(10));
    let seconds: u64 = std::env::var("IDLE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let (cpu, written) = (daemon.cpu(), daemon.number("io", "write_bytes:"));
    std::thread::sleep(Duration::from_secs(seconds));
    let share = (daemon.cpu() - cpu) / seconds as f64 * 100.0;
    println!(
        "idle for {seconds} s: {:.1} MiB resident (budget 30), {:.1} MiB anonymous",
        mib(daemon.number("status", "VmRSS:")),
        mib(daemon.number("status", "RssAnon:"))
    );
    println!(
        "idle for {seconds} s: {share:.2} % of a core (budget 0.2), {} bytes written (budget 0)",
        daemon.number("io", "write_bytes:") - written
    );

    let mut times = Vec::new();
    for round in 0..7 {
        std::fs::write(dir.join("manifests/pod.yaml"), manifest(&format!("pod-{round}"))).expect("write a manifest");
        let accepted = daemon.line("revision sha256:");
        let running = daemon.line("container started");
        times.push((running - accepted).as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!("accepted revision to running container: {:.0} ms (median of 7, min {:.0}; budget 100)", times[3], times[0]);
    drop(daemon);
    let _ = std::fs::remove_dir_all(&dir);
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
