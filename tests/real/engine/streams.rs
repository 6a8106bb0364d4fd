//! What a container's first process is connected to: terminals, clients, and a log that somebody moves away.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use podbay::cri::contract::attach_suite;
use podbay::cri::{ContainerConfig, ExecSession, IdRange};

use super::*;

fn everything() -> ExecRequest {
    ExecRequest { stdin: true, stdout: true, ..ExecRequest::default() }
}

/// Reads a client's output until this is in it.
fn read_until(session: &ExecSession, text: &str) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    let stdout = session.stdout.as_ref().unwrap();
    while !String::from_utf8_lossy(&all).contains(text) {
        let mut fds = [rustix::event::PollFd::new(stdout, rustix::event::PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1, "{text:?} not in {}", String::from_utf8_lossy(&all));
        let count = rustix::io::read(stdout, &mut buffer).unwrap();
        assert!(count > 0, "{text:?} not in {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn say(session: &ExecSession, text: &str) {
    rustix::io::write(session.stdin.as_ref().unwrap().as_fd(), text.as_bytes()).unwrap();
}

#[tokio::test]
async fn clients_are_attached_as_the_contract_says() {
    let house = House::new("attach");
    let subject = house.open().await;
    attach_suite(&subject).await;
    house.close(subject).await;
}

// What is read here blocks its thread.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_attached_is_so_again_after_a_restart_of_the_engine() {
    let house = House::new("reattach");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("reattach")).await.unwrap();
    let shell = ContainerConfig { stdin: true, tty: true, ..subject.container("shell", &["sh"]) };
    let id = subject.start(&sandbox, &shell).await.unwrap();
    let before = subject.runtime.attach(&id, &everything()).await.unwrap();
    say(&before, "kept=\"it\"; echo one-$kept\n");
    read_until(&before, "one-it");
    drop((before, subject));
    let subject = house.open().await;
    let after = subject.runtime.attach(&id, &everything()).await.unwrap();
    say(&after, "echo two-$kept\n");
    read_until(&after, "two-it");
    after.resize.send((77, 11)).await.unwrap();
    // Nobody says when the size is set.
    say(&after, "while [ \"$(stty size 2>/dev/null)\" != '11 77' ]; do sleep 0.01; done; echo re\"sized\"\n");
    read_until(&after, "resized");
    say(&after, "exit 4\n");
    assert_eq!(after.exit.await.unwrap(), Ok(4));
    house.close(subject).await;
}

#[tokio::test]
async fn a_terminal_stays_when_nobody_in_the_container_has_it_open() {
    let house = House::new("letgo");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("letgo")).await.unwrap();
    let text = "echo before; exec <&- >&- 2>&-; while [ ! -e /dev/shm/go ]; do sleep 0.01; done; \
                exec > /dev/console 2>&1; echo after; exit 6";
    let config = ContainerConfig { tty: true, ..script(&subject, text) };
    let id = subject.start(&sandbox, &config).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("it has begun", || log_text(&log).contains("before")).await;
    wait_for_inside(&subject, &id, "[ ! -e /proc/1/fd/1 ]").await;
    assert_eq!(exec(&subject, &id, "touch /dev/shm/go").await.0, 0);
    assert_eq!(subject.until_exited(&id).await.exit_code, 6);
    wait_for("the rest is logged", || log_text(&log) == "before\nafter\n").await;
    house.close(subject).await;
}

async fn wait_for_inside(subject: &Subject, id: &str, test: &str) {
    let start = Instant::now();
    while exec(subject, id, test).await.0 != 0 {
        assert!(start.elapsed() < PATIENCE, "{test}");
    }
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_not_followed_by_a_link() {
    let house = House::new("moved");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("moved")).await.unwrap();
    let id = subject.start(&sandbox, &script(&subject, "while :; do echo evil; sleep 0.01; done")).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("it writes", || log_text(&log).contains("evil")).await;
    let victim = house.dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let old = log.with_extension("old");
    std::fs::rename(&log, &old).unwrap();
    symlink(&victim, &log).unwrap();
    let refused = subject.runtime.reopen_container_log(&id).await.unwrap_err().to_string();
    assert!(refused.contains("reopen the log of container") && refused.contains("symbolic link"), "{refused}");
    let before = log_text(&old).len();
    wait_for("it goes on in the old file", || log_text(&old).len() > before).await;
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    std::fs::remove_file(&log).unwrap();
    subject.runtime.reopen_container_log(&id).await.unwrap();
    wait_for("it writes again", || log_text(&log).contains("evil")).await;
    // Who has no log has nothing to reopen.
    let silent = ContainerConfig { log_path: PathBuf::new(), ..subject.container("silent", &["sleep", "1000"]) };
    let silent = subject.start(&sandbox, &silent).await.unwrap();
    assert!(subject.runtime.reopen_container_log(&silent).await.unwrap_err().to_string().contains("it has none"));
    house.close(subject).await;
}

/// The log writer of a shim: its only child that is no container's.
fn log_writer(shim: rustix::process::Pid) -> Option<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = format!("PPid:\t{}\n", shim.as_raw_nonzero());
        status.contains(&line) && status.starts_with("Name:\tpodbay-shim\n") && !status.contains("State:\tZ")
    })
}

#[tokio::test]
async fn a_log_writer_that_dies_is_replaced_though_all_of_that_is_heard_at_once() {
    use rustix::process::{Pid, Signal, kill_process};
    let house = House::new("writer");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("writer")).await.unwrap();
    let id = subject.start(&sandbox, &script(&subject, "while :; do echo on; sleep 0.01; done")).await.unwrap();
    let log = subject.runtime.container_status(&id).await.unwrap().log_path;
    wait_for("it writes", || log_text(&log).contains("on")).await;
    let shim = super::survival::shim_of(&house, &sandbox);
    let first = log_writer(shim).unwrap();
    kill_process(shim, Signal::STOP).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    wait_for("it is dead", || log_writer(shim).is_none()).await;
    let before = log_text(&log).len();
    kill_process(shim, Signal::CONT).unwrap();
    wait_for("another writes", || log_text(&log).len() > before).await;
    assert_ne!(log_writer(shim), Some(first));
    house.close(subject).await;
}

#[tokio::test]
async fn a_client_that_hangs_holds_up_neither_the_container_nor_its_log_nor_others() {
    let house = House::new("hangs");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("hangs")).await.unwrap();
    let text = "read -r go; i=0; while [ $i -lt 20000 ]; do echo \"$i is a line of some length, to fill what there is of room\"; i=$((i+1)); done; \
                echo all; exit 7";
    let config = ContainerConfig { stdin: true, ..script(&subject, text) };
    let id = subject.start(&sandbox, &config).await.unwrap();
    let hangs = subject.runtime.attach(&id, &everything()).await.unwrap();
    let reads = subject.runtime.attach(&id, &everything()).await.unwrap();
    let reader = std::thread::spawn({
        let stdout = reads.stdout.as_ref().unwrap().try_clone().unwrap();
        move || {
            let mut all = String::new();
            std::fs::File::from(stdout).read_to_string(&mut all).unwrap();
            all
        }
    });
    std::fs::File::from(reads.stdin.unwrap()).write_all(b"go\n").unwrap();
    let ended = subject.until_exited(&id).await;
    assert_eq!(ended.exit_code, 7);
    wait_for("the log has its end", || log_text(&ended.log_path).ends_with("all\n")).await;
    assert!(reader.join().unwrap().ends_with("all\n"));
    assert_eq!(reads.exit.await.unwrap(), Ok(7));
    // What the one that hangs has missed it hears of, when it reads after all.
    let mut late = String::new();
    std::fs::File::from(hangs.stdout.unwrap()).read_to_string(&mut late).unwrap();
    assert!(late.starts_with("0 is a line") && late.len() < 512 << 10, "{}", late.len());
    assert!(late.ends_with(" bytes left out, this client was too slow]\r\n"), "{}", &late[late.len() - 200..]);
    assert_eq!(hangs.exit.await.unwrap(), Ok(7));
    house.close(subject).await;
}

#[tokio::test]
async fn a_client_that_is_slow_to_the_end_takes_nothing_from_the_log() {
    let house = House::new("slow");
    let subject = house.open().await;
    let sandbox = subject.runtime.run_pod_sandbox(&subject.pod("slow")).await.unwrap();
    let text = "read -r go; i=0; while [ $i -lt 6000 ]; do echo \"$i is a line of some length, to fill what there is of room\"; i=$((i+1)); done; \
                echo all";
    let config = ContainerConfig { stdin: true, ..script(&subject, text) };
    let id = subject.start(&sandbox, &config).await.unwrap();
    let slow = subject.runtime.attach(&id, &everything()).await.unwrap();
    let mut stdout = std::fs::File::from(slow.stdout.unwrap());
    let (end, over) = std::sync::mpsc::channel::<()>();
    // A page, now and then, until the end is known.
    let reader = std::thread::spawn(move || {
        let mut page = [0; 4096];
        while stdout.read(&mut page).is_ok_and(|count| count > 0) {
            if over.recv_timeout(std::time::Duration::from_millis(300)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
        }
    });
    std::fs::File::from(slow.stdin.unwrap()).write_all(b"go\n").unwrap();
    let ended = subject.until_exited(&id).await;
    assert!(log_text(&ended.log_path).ends_with("all\n"), "whole when its end is told");
    drop(end);
    reader.join().unwrap();
    house.close(subject).await;
}

#[tokio::test]
async fn a_pod_with_users_of_its_own_has_terminals_too() {
    let house = House::new("usertty");
    let subject = house.open().await;
    let users = IdRange { host: 1_310_720, length: 65_536 };
    let pod = PodSandboxConfig { users: Some(users), ..subject.pod("usertty") };
    let text = "test -t 1 && echo yes; stat -c %t:%u /dev/console; echo by-name > /dev/console";
    let sandbox = subject.runtime.run_pod_sandbox(&pod).await.unwrap();
    let config = ContainerConfig { tty: true, stdin: true, ..script(&subject, &format!("read -r go; {text}")) };
    let id = subject.start(&sandbox, &config).await.unwrap();
    let client = subject.runtime.attach(&id, &everything()).await.unwrap();
    say(&client, "go\n");
    let ended = subject.until_exited(&id).await;
    let said = log_text(&ended.log_path);
    assert!(said.contains("yes\n88:0\nby-name\n"), "{said}");
    house.close(subject).await;
}
