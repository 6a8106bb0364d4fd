//! `podbay oci` as an OCI runtime: by itself on bundles of the tests, called by Debian's podman and by containerd. What is
//! comparable is asked of Debian's runc first, in the same words.

mod podman;
mod users;

use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::busybox;

const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime with a state directory and bundles of its own.
pub struct Oci {
    pub dir: tempfile::TempDir,
    program: PathBuf,
}

/// The program under the name by which others call it.
pub fn ours(dir: &Path) -> PathBuf {
    let link = dir.join("podbay-oci");
    symlink(env!("CARGO_BIN_EXE_podbay"), &link).unwrap();
    link
}

fn runc() -> Oci {
    let dir = tempfile::Builder::new().prefix("podbay-oci-").tempdir().unwrap();
    Oci { dir, program: "/usr/sbin/runc".into() }
}

fn podbay() -> Oci {
    let dir = tempfile::Builder::new().prefix("podbay-oci-").tempdir().unwrap();
    let program = ours(dir.path());
    Oci { dir, program }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Oci {
    /// Of its directory, and of the cgroup that its containers share.
    fn name(&self) -> String {
        self.dir.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.dir.path().join("state")).args(words);
        command
    }

    /// With what it writes; the container's streams are a file and /dev/null.
    fn call(&self, words: &[&str]) -> Output {
        let said = self.dir.path().join("said");
        let file = std::fs::File::create(&said).unwrap();
        let status = self.command(words).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        let text = std::fs::read(said).unwrap();
        Output { status, stdout: text.clone(), stderr: text }
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {}", out(&output));
        out(&output)
    }

    fn refused(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(!output.status.success(), "{words:?} is done: {}", out(&output));
        err(&output)
    }

    /// A bundle that runs a script.
    fn bundle(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
        let dir = self.dir.path().join(format!("bundle-{id}"));
        busybox(&dir.join("rootfs"));
        std::fs::set_permissions(dir.join("rootfs"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let capabilities = json!(["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]);
        let plain = ["nosuid", "noexec", "nodev"];
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
        let mut config = json!({
            "ociVersion": "1.0.2", "hostname": "box", "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "cwd": "/", "noNewPrivileges": true,
                "env": ["PATH=/bin", "FROM=bundle"],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [plain[0], plain[1], plain[2], "ro"]},
            ],
            "linux": {
                "cgroupsPath": format!("/{}/{id}", self.name()),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": namespaces,
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            },
        });
        change(&mut config);
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        dir.display().to_string()
    }

    fn rootfs(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("bundle-{id}/rootfs"))
    }

    fn status(&self, id: &str) -> String {
        let output = self.call(&["state", id]);
        let state: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or("none").to_owned()
    }

    fn until(&self, id: &str, status: &str) {
        wait_for(&format!("{id} is {status}"), || self.status(id) == status);
    }

    fn ids(&self) -> String {
        self.ok(&["list", "-q"])
    }
}

pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Oci {
    fn drop(&mut self) {
        for id in out(&self.call(&["list", "-q"])).lines() {
            self.call(&["delete", "--force", id]);
        }
        let left = format!("find /sys/fs/cgroup -maxdepth 3 -depth -type d -path '*{}*' -exec rmdir {{}} +", self.name());
        Command::new("sh").args(["-c", &left]).stderr(Stdio::null()).status().ok();
    }
}

/// Every case on both, the reference first.
fn both(case: impl Fn(&Oci)) {
    case(&runc());
    case(&podbay());
}

#[test]
fn a_container_is_created_started_and_ends() {
    both(|oci| {
        let bundle = oci.bundle("life", "echo ran > /ran; trap 'exit 0' TERM; while :; do sleep 0.01; done", |_| {});
        let pid_file = oci.dir.path().join("pid");
        oci.ok(&["create", "--bundle", &bundle, "--pid-file", pid_file.to_str().unwrap(), "life"]);
        assert!(!oci.rootfs("life").join("ran").exists(), "create runs nothing");
        let state: Value = serde_json::from_str(&oci.ok(&["state", "life"])).unwrap();
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        assert_eq!(
            (state["id"].as_str(), state["status"].as_str(), state["bundle"].as_str()),
            (Some("life"), Some("created"), Some(bundle.as_str()))
        );
        assert_eq!(state["pid"].to_string(), pid);
        assert!(oci.refused(&["create", "--bundle", &bundle, "life"]).contains("already exists"));
        oci.ok(&["start", "life"]);
        wait_for("the script runs", || oci.rootfs("life").join("ran").exists());
        assert_eq!(oci.status("life"), "running");
        assert!(oci.refused(&["start", "life"]).contains("running"));
        assert!(oci.refused(&["delete", "life"]).contains("not stopped"));
        assert_eq!(
            oci.ok(&["exec", "life", "/bin/sh", "-c", "hostname; echo $FROM; cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-7"]),
            "box\nbundle\n/bin/sh\n"
        );
        assert_eq!(oci.call(&["exec", "life", "/bin/sh", "-c", "exit 9"]).status.code(), Some(9));
        assert!(oci.ok(&["ps", "--format", "json", "life"]).contains(&pid));
        oci.ok(&["kill", "life", "TERM"]);
        oci.until("life", "stopped");
        assert!(oci.refused(&["kill", "life", "9"]).contains("container not running"));
        oci.ok(&["delete", "life"]);
        assert!(oci.refused(&["state", "life"]).contains("does not exist"));
        assert_eq!(oci.ids(), "");
    });
}

#[test]
fn force_deletes_what_runs_and_what_was_never_started() {
    both(|oci| {
        let bundle = oci.bundle("force", "sleep 1000", |_| {});
        for start in [true, false] {
            oci.ok(&["create", "--bundle", &bundle, "force"]);
            if start {
                oci.ok(&["start", "force"]);
            }
            oci.ok(&["delete", "--force", "force"]);
            assert_eq!(oci.status("force"), "none");
        }
        oci.ok(&["delete", "--force", "nobody"]);
    });
}

#[test]
fn what_cannot_run_is_said_when_it_is_created() {
    both(|oci| {
        let bundle = oci.bundle("none", "", |config| config["process"]["args"] = json!(["nothing-of-the-sort"]));
        assert!(oci.refused(&["create", "--bundle", &bundle, "none"]).contains("executable file not found in $PATH"));
        let bundle = oci.bundle("path", "", |config| config["process"]["args"] = json!(["/no/such/file"]));
        assert!(oci.refused(&["create", "--bundle", &bundle, "path"]).to_lowercase().contains("no such file or directory"));
        assert_eq!((oci.ids(), oci.status("none")), (String::new(), "none".to_owned()));
    });
}

#[test]
fn the_process_is_as_the_bundle_says() {
    both(|oci| {
        let script = "pwd; id -u; id -g; id -G; umask; ulimit -c; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNew|Seccomp:' /proc/self/status; \
                      cat /proc/sys/net/ipv4/ip_forward; echo x > /proc/sys/kernel/hostname; ls /dev | tr '\\n' ' '; stat -c %a /dev/shm; \
                      test -s /proc/kcore || echo hidden; exit 3";
        let bundle = oci.bundle("process", script, |config| {
            let process = &mut config["process"];
            process["cwd"] = json!("/made/here");
            process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [77], "umask": 0o027});
            process["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 512, "hard": 1024}]);
            for set in ["inheritable", "ambient"] {
                process["capabilities"][set] = json!(["CAP_CHOWN"]);
            }
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        });
        let output = oci.call(&["run", "--bundle", &bundle, "process"]);
        assert_eq!(output.status.code(), Some(3), "{}", out(&output));
        let said: String = out(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        // Whoever is not root keeps of the others only what is ambient as well, when it executes something.
        let expected = "/made/here 1000 1000 1000 77 0027 1 CapInh: 0000000000000001 CapPrm: 0000000000000001 CapEff: 0000000000000001 \
                        CapBnd: 00000000000000e1 CapAmb: 0000000000000001 NoNewPrivs: 1 Seccomp: 0 1 ";
        assert!(said.contains(expected), "{said}");
        assert!(said.contains(" hidden"), "{said}");
        assert!(said.contains("Read-only file system") && said.contains("null") && said.contains("ptmx"), "{said}");
        assert_eq!(oci.ids(), "");
    });
}

#[test]
fn what_a_sealed_root_lacks_is_made_and_what_links_lead_to_is_hidden() {
    both(|oci| {
        let bundle = oci.bundle("sealed", "pwd; cat /secret; touch /etc/new || echo kept; touch file || echo sealed", |config| {
            config["process"]["cwd"] = json!("/srv/not/there");
            config["root"]["readonly"] = json!(true);
            config["linux"]["maskedPaths"] = json!(["/to-secret", "/dangling"]);
            config["linux"]["readonlyPaths"] = json!(["/to-etc"]);
        });
        for (content, name) in [("/secret", "to-secret"), ("/etc", "to-etc"), ("/nowhere", "dangling")] {
            symlink(content, oci.rootfs("sealed").join(name)).unwrap();
        }
        std::fs::write(oci.rootfs("sealed").join("secret"), "INSIDE").unwrap();
        let said: String = oci.ok(&["run", "--bundle", &bundle, "sealed"]);
        let lines: Vec<_> = said.lines().filter(|line| !line.contains("Read-only file system")).collect();
        assert_eq!(lines, ["/srv/not/there", "kept", "sealed"], "{said}");
    });
}

/// `runc spec` and `crun spec` write ambient capabilities and none to inherit; config.md: "Runtimes SHOULD NOT fail".
#[test]
fn capabilities_that_cannot_be_given_are_passed_over() {
    both(|oci| {
        let bundle = oci.bundle("unknown", "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status; sleep 1000", |config| {
            let sets = &mut config["process"]["capabilities"];
            sets["ambient"] = json!(["CAP_CHOWN", "CAP_KILL"]);
            sets["bounding"].as_array_mut().unwrap().push(json!("CAP_FROM_THE_FUTURE"));
        });
        let said = oci.dir.path().join("said");
        oci.ok(&["run", "--detach", "--bundle", &bundle, "unknown"]);
        wait_for("the sets are said", || std::fs::read_to_string(&said).unwrap().contains("CapAmb"));
        let text = std::fs::read_to_string(&said).unwrap();
        let sets: Vec<_> = text.lines().filter(|line| line.starts_with("Cap")).map(|line| line.rsplit('\t').next().unwrap()).collect();
        let (none, some) = ("0000000000000000", "00000000000000e1");
        assert_eq!(sets, [none, some, some, some, none], "{text}");
        assert!(text.contains("CAP_FROM_THE_FUTURE"), "{text}");
        let file = oci.dir.path().join("process.json");
        let set = json!(["CAP_KILL", "CAP_FROM_THE_FUTURE"]);
        let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["/bin/grep", "CapPrm", "/proc/self/status"], "cwd": "/",
            "env": ["PATH=/bin"], "capabilities": {"bounding": set, "effective": set, "permitted": set, "ambient": set}});
        std::fs::write(&file, process.to_string()).unwrap();
        let said = oci.ok(&["exec", "--process", file.to_str().unwrap(), "unknown"]);
        assert!(said.contains("CapPrm:\t0000000000000020"), "{said}");
    });
}

#[test]
fn hooks_run_in_their_order_with_the_state() {
    both(|oci| {
        let file = oci.dir.path().join("hooks");
        let bundle = oci.bundle("hooks", "echo program >> /order", |config| {
            let on_host = |kind: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("read line; case \"$line\" in *ociVersion*|*'{{'*) echo {kind} >> {}; esac; cat > /dev/null", file.display())]}]);
            let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null; echo hook >> /order"], "env": ["PATH=/bin"]}]);
            config["hooks"] = json!({"startContainer": inside});
            for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
                config["hooks"][kind] = on_host(kind);
            }
        });
        let lines = || std::fs::read_to_string(&file).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        oci.ok(&["create", "--bundle", &bundle, "hooks"]);
        // This runc runs the next ones too early.
        let early = if oci.program.ends_with("runc") { " poststart" } else { "" };
        assert_eq!(lines(), format!("prestart createRuntime createContainer{early}"));
        oci.ok(&["start", "hooks"]);
        oci.until("hooks", "stopped");
        assert_eq!(lines(), "prestart createRuntime createContainer poststart");
        assert_eq!(std::fs::read_to_string(oci.rootfs("hooks").join("order")).unwrap(), "hook\nprogram\n");
        oci.ok(&["delete", "hooks"]);
        assert_eq!(lines(), "prestart createRuntime createContainer poststart poststop");
    });
}

#[test]
fn times_of_access_are_as_a_mount_says() {
    both(|oci| {
        let bundle = oci.bundle("times", "grep -E ' /(none|all) ' /proc/mounts | cut -d' ' -f2,4 | sort", |config| {
            for (name, option) in [("/none", "noatime"), ("/all", "strictatime")] {
                let mount = json!({"destination": name, "type": "bind", "source": oci.dir.path(), "options": ["bind", option]});
                config["mounts"].as_array_mut().unwrap().push(mount);
            }
        });
        let said = oci.ok(&["run", "--bundle", &bundle, "times"]);
        let all = said.lines().next().unwrap_or_default();
        assert!(all.starts_with("/all ") && !all.contains("atime"), "{said}");
        assert!(said.lines().any(|line| line.starts_with("/none ") && line.contains("noatime")), "{said}");
    });
}

#[test]
fn a_hook_in_the_container_may_do_what_the_container_may() {
    both(|oci| {
        let bundle = oci.bundle("confined", "true", |config| {
            let script = "{ id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; ls /proc/self/fd; } > /tmp/hook";
            config["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]});
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"]});
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]});
        });
        let tmp = oci.rootfs("confined").join("tmp");
        std::fs::create_dir_all(&tmp).unwrap();
        std::fs::set_permissions(&tmp, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        oci.ok(&["run", "--bundle", &bundle, "confined"]);
        let said = std::fs::read_to_string(tmp.join("hook")).unwrap();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = "1000 CapEff: 0000000000000000 CapBnd: 0000000000000020 NoNewPrivs: 1 Seccomp: 2 0 1 2 3";
        assert_eq!(said, expected, "and has the directory that ls reads, and nothing else");
    });
}

#[test]
fn a_hook_that_reads_nothing_is_not_waited_for() {
    let oci = podbay();
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let bundle = oci.bundle(kind, "true", |config| {
            config["annotations"] = json!({"long": "x".repeat(200_000)});
            config["hooks"][kind] = json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
        });
        let said = oci.refused(&["run", "--bundle", &bundle, kind]);
        assert!(said.contains("it took longer than 1 s"), "{kind}: {said}");
    }
}

#[test]
fn no_descriptor_of_the_callers_is_left_to_a_container_or_a_command() {
    let oci = podbay();
    let script = "ls /proc/self/fd | tr '\n' ' ' > /fds; sleep 1000";
    let bundle = oci.bundle("fds", script, |config| {
        let inside = "ls /proc/self/fd | tr '\n' ' ' > /hook";
        config["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"]}]});
    });
    let state = oci.dir.path().join("state");
    let call = |words: &str| {
        let line = format!("exec 7</ 8</etc/passwd; {} --root {} {words}", oci.program.display(), state.display());
        let said = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        assert!(said.status.success(), "{words}");
        out(&said)
    };
    let file = std::fs::File::create(oci.dir.path().join("said")).unwrap();
    let line = format!("exec 7</ 8</etc/passwd; {} --root {} create --bundle {bundle} fds", oci.program.display(), state.display());
    let created =
        Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
    assert!(created.success());
    let state: Value = serde_json::from_str(&oci.ok(&["state", "fds"])).unwrap();
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", state["pid"]))
        .unwrap()
        .flatten()
        .map(|fd| std::fs::read_link(fd.path()).unwrap_or_default())
        .collect();
    assert!(!open.contains(&PathBuf::from("/")) && !open.contains(&PathBuf::from("/etc/passwd")), "{open:?}");
    call("start fds");
    let read = |name: &str| std::fs::read_to_string(oci.rootfs("fds").join(name)).unwrap_or_default();
    wait_for("it says what is open", || !read("fds").is_empty());
    assert_eq!((read("fds").as_str(), read("hook").as_str()), ("0 1 2 3 ", "0 1 2 3 "));
    assert_eq!(call("exec fds /bin/ls /proc/self/fd").split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn who_waits_for_a_command_is_none_of_the_containers_processes() {
    let oci = podbay();
    let bundle = oci.bundle("waits", "sleep 1000", |_| {});
    oci.ok(&["run", "--detach", "--bundle", &bundle, "waits"]);
    let mut exec = oci.command(&["exec", "waits", "/bin/sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
    let processes = || -> Vec<String> {
        let pids: Vec<i32> = serde_json::from_str(&oci.ok(&["ps", "--format", "json", "waits"])).unwrap();
        pids.iter().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()).collect()
    };
    wait_for("the command runs", || processes().iter().filter(|line| line.contains("sleep")).count() == 2);
    assert_eq!(processes().len(), 2, "{:?}", processes());
    oci.ok(&["delete", "--force", "waits"]);
    assert_eq!(exec.wait().unwrap().code(), Some(137));
}

#[test]
fn a_hook_that_fails_keeps_the_container_from_being() {
    both(|oci| {
        for kind in ["prestart", "createRuntime", "createContainer"] {
            let id = format!("bad-{kind}");
            let bundle = oci.bundle(&id, "true", |config| config["hooks"] = json!({kind: [{"path": "/bin/false"}]}));
            assert!(oci.refused(&["create", "--bundle", &bundle, &id]).contains("hook"), "{kind}");
            assert_eq!(oci.status(&id), "none", "{kind}");
        }
    });
}

/// Takes one terminal over, and reads what is written to it until it closes.
fn terminal(socket: &std::os::unix::net::UnixListener) -> std::fs::File {
    let (stream, _) = socket.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 256];
    let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
    rustix::net::recvmsg(&stream, &mut slices, &mut control, rustix::net::RecvFlags::empty()).unwrap();
    let found = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    found.expect("a terminal comes along").into()
}

fn until_closed(mut terminal: std::fs::File) -> String {
    let mut bytes = Vec::new();
    // A terminal nobody has open any more reads as an error.
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = terminal.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn terminals_are_handed_over() {
    both(|oci| {
        let path = oci.dir.path().join("console");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let console = path.to_str().unwrap();
        let bundle = oci.bundle("tty", "test -t 0 && test -t 1 && tty; sleep 1000", |config| config["process"]["terminal"] = json!(true));
        assert!(!oci.refused(&["create", "--bundle", &bundle, "tty"]).is_empty(), "a terminal for nobody");
        oci.ok(&["create", "--bundle", &bundle, "--console-socket", console, "tty"]);
        let first = terminal(&socket);
        oci.ok(&["start", "tty"]);
        let file = oci.dir.path().join("process.json");
        let process = json!({"terminal": true, "user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", "test -t 1 && echo second"], "cwd": "/", "env": ["PATH=/bin"]});
        std::fs::write(&file, process.to_string()).unwrap();
        let pid_file = oci.dir.path().join("exec-pid");
        let words = [
            "exec",
            "--process",
            file.to_str().unwrap(),
            "--pid-file",
            pid_file.to_str().unwrap(),
            "--console-socket",
            console,
            "--detach",
            "tty",
        ];
        oci.ok(&words);
        assert_eq!(until_closed(terminal(&socket)).trim(), "second");
        assert!(std::fs::read_to_string(pid_file).unwrap().parse::<i32>().is_ok());
        oci.ok(&["delete", "--force", "tty"]);
        assert_eq!(until_closed(first).trim(), "/dev/pts/0");
    });
}

#[test]
fn a_container_is_paused_and_goes_on() {
    both(|oci| {
        let bundle = oci.bundle("paused", "while :; do echo x >> /count; sleep 0.01; done", |_| {});
        oci.ok(&["run", "--detach", "--bundle", &bundle, "paused"]);
        let count = || std::fs::metadata(oci.rootfs("paused").join("count")).map_or(0, |file| file.len());
        wait_for("it counts", || count() > 0);
        oci.ok(&["pause", "paused"]);
        assert_eq!(oci.status("paused"), "paused");
        let at = count();
        oci.ok(&["resume", "paused"]);
        assert_eq!(oci.status("paused"), "running");
        wait_for("it goes on", || count() > at);
        oci.ok(&["pause", "paused"]);
        oci.ok(&["delete", "--force", "paused"]);
    });
}

#[test]
fn mounts_are_as_their_options_say() {
    both(|oci| {
        let script = "cat /data/file; readlink /data/link; stat -c '%a %u:%g' /data /data/in /data/file; touch /data/new && echo written; \
                      touch /still/new || echo kept; cat /still/file; grep -E ' /(alone|bound) ' /proc/self/mountinfo | cut -d' ' -f5-7";
        let bundle = oci.bundle("options", script, |config| {
            let tmpfs = |at: &str, option: &str| json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["nodev", "tmpcopyup", option]});
            let bind = |at: &str, option: &str| json!({"destination": at, "type": "bind", "source": oci.dir.path(), "options": ["rbind", option]});
            let again = json!({"destination": "/bound", "type": "bind", "source": oci.dir.path(), "options": ["bind", "remount", "ro"]});
            let all = [tmpfs("/data", "rw"), tmpfs("/still", "ro"), bind("/alone", "unbindable"), bind("/bound", "rprivate"), again];
            config["mounts"].as_array_mut().unwrap().extend(all);
        });
        for name in ["data", "still"] {
            let dir = oci.rootfs("options").join(name);
            std::fs::create_dir_all(dir.join("in")).unwrap();
            std::fs::write(dir.join("file"), "copied\n").unwrap();
            symlink("/etc/passwd", dir.join("link")).unwrap();
            for (path, mode) in [(dir.clone(), 0o751), (dir.join("in"), 0o750), (dir.join("file"), 0o644)] {
                std::os::unix::fs::chown(&path, Some(if path == dir { 0 } else { 7 }), Some(if path == dir { 0 } else { 8 })).unwrap();
                std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            }
        }
        let said = oci.ok(&["run", "--bundle", &bundle, "options"]);
        let lines: Vec<&str> = said.lines().filter(|line| !line.contains("Read-only")).collect();
        assert_eq!(lines[..7], ["copied", "/etc/passwd", "751 0:0", "750 7:8", "644 7:8", "written", "kept"], "{said}");
        assert_eq!(lines[7], "copied", "{said}");
        assert!(lines[8].starts_with("/alone ") && lines[8].ends_with(" unbindable"), "{said}");
        assert!(lines[9].starts_with("/bound ro"), "{said}");
        assert!(!oci.rootfs("options").join("data/new").exists(), "it is only in memory");
    });
}

#[test]
fn descriptors_are_handed_over_as_far_as_is_asked() {
    both(|oci| {
        let bundle = oci.bundle("fds", "cat <&3; cat <&4; test -e /proc/self/fd/5 && echo more; exec sleep 1000", |_| {});
        let dir = oci.dir.path().display();
        for name in ["one", "two", "three"] {
            std::fs::write(oci.dir.path().join(name), format!("{name}\n")).unwrap();
        }
        let call = |words: &str| {
            let open = format!("exec 3<{dir}/one 4<{dir}/two 5<{dir}/three >{dir}/said 2>&1");
            let line = format!("{open}; exec {} --root {dir}/state {words}", oci.program.display());
            let ended = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).status().unwrap();
            (ended.success(), std::fs::read_to_string(oci.dir.path().join("said")).unwrap())
        };
        assert!(call(&format!("run --detach --preserve-fds 2 --bundle {bundle} fds")).0);
        wait_for("it has read them", || std::fs::read_to_string(oci.dir.path().join("said")).unwrap() == "one\ntwo\n");
        let command = "exec --preserve-fds 1 fds /bin/sh -c 'cat <&3; test -e /proc/self/fd/4 || echo no more'";
        assert_eq!(call(command), (true, "one\nno more\n".to_owned()));
        oci.ok(&["delete", "--force", "fds"]);
    });
    let oci = podbay();
    let bundle = oci.bundle("none", "true", |_| {});
    // Whoever runs the tests may have handed down a descriptor of that number.
    let line = format!(
        "exec 3<&-; exec {} --root {}/state run --preserve-fds 1 --bundle {bundle} none",
        oci.program.display(),
        oci.dir.path().display()
    );
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(!output.status.success() && err(&output).contains("descriptor 3 is not open"), "{}", err(&output));
}

#[test]
fn limits_and_filters_are_in_force() {
    both(|oci| {
        let bundle = oci.bundle("limits", "mkdir /tmp/a 2>&1; tail /dev/zero", |config| {
            config["linux"]["resources"] =
                json!({"devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 16 << 20}, "pids": {"limit": 30}});
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
        });
        let output = oci.call(&["run", "--bundle", &bundle, "limits"]);
        assert!(out(&output).contains("Operation not permitted"), "{}", out(&output));
        assert_eq!(output.status.code(), Some(137), "the memory limit");
    });
}

#[test]
fn namespaces_are_joined_by_their_paths() {
    both(|oci| {
        let bundle = oci.bundle("pause", "sleep 1000", |_| {});
        oci.ok(&["run", "--detach", "--bundle", &bundle, "pause"]);
        let state: Value = serde_json::from_str(&oci.ok(&["state", "pause"])).unwrap();
        let script =
            "hostname; cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-5; for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done";
        let bundle = oci.bundle("joins", script, |config| {
            config.as_object_mut().unwrap().remove("hostname");
            let of = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{}/ns/{file}", state["pid"])});
            config["linux"]["namespaces"] =
                json!([of("network", "net"), of("ipc", "ipc"), of("uts", "uts"), of("pid", "pid"), {"type": "mount"}]);
        });
        let said = oci.ok(&["run", "--bundle", &bundle, "joins"]);
        let links = ["net", "ipc", "uts", "pid"].map(|file| std::fs::read_link(format!("/proc/{}/ns/{file}", state["pid"])).unwrap());
        let links: String = links.iter().map(|link| format!("{}\n", link.display())).collect();
        assert!(said.starts_with("box\n") && said.ends_with(&links), "{said}");
        oci.ok(&["delete", "--force", "pause"]);
    });
}

#[test]
fn what_would_be_passed_over_is_refused() {
    let oci = podbay();
    for (index, (field, value, expected)) in [
        ("/process/apparmorProfile", json!("strict"), "confine it by the AppArmor profile strict"),
        ("/linux/intelRdt", json!({"closID": "a"}), "linux.intelRdt is not supported"),
        ("/linux/cgroupsPath", json!("system.slice:podbay:x"), "cgroupsPath is not supported: a systemd slice"),
        ("/linux/namespaces/0", json!({"type": "user"}), "linux.uidMappings: no range has the id 0"),
        (
            "/linux/sysctl",
            json!({"kernel/core_pattern": "x"}),
            "linux.sysctl: kernel.core_pattern is not supported: it would be the host's",
        ),
        // The bundle's host name, in a namespace that is named and still the host's.
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "pid"}, {"type": "uts", "path": "/proc/self/ns/uts"}]),
            "hostname without a UTS namespace is not supported: it would be the host's",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let bundle = oci.bundle(&format!("odd-{index}"), "true", |config| {
            let (parent, name) = field.rsplit_once('/').unwrap();
            match config.pointer_mut(parent).unwrap() {
                Value::Array(list) => list[0] = value.clone(),
                parent => parent[name] = value.clone(),
            }
        });
        let refused = oci.refused(&["create", "--bundle", &bundle, "odd"]);
        assert!(refused.contains(expected), "{refused}");
    }
    let log = oci.dir.path().join("log");
    let words = ["--log", log.to_str().unwrap(), "--log-format", "json", "state", "nobody"];
    assert!(oci.refused(&words).contains("container does not exist"));
    let line: Value = serde_json::from_str(std::fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!((line["level"].as_str(), line["msg"].as_str()), (Some("error"), Some("container does not exist: nobody")));
    let systemd = oci.refused(&["--systemd-cgroup", "state", "nobody"]);
    assert!(systemd.contains("cgroupfs"), "{systemd}");
    assert!(oci.refused(&["create", "--bundle", "/", "../up"]).contains("other characters"));
    assert!(oci.ok(&["features"]).contains("startContainer"));
}

#[test]
fn another_ones_cgroup_and_half_of_a_container_are_left_well() {
    let oci = podbay();
    let bundle = oci.bundle("taken", "sleep 1000", |_| {});
    oci.ok(&["run", "--detach", "--bundle", &bundle, "taken"]);
    let other = oci.bundle("other", "true", |config| config["linux"]["cgroupsPath"] = json!(format!("/{}/taken", oci.name())));
    assert!(oci.refused(&["create", "--bundle", &other, "other"]).contains("has processes"));
    assert_eq!((oci.status("taken"), oci.status("other")), ("running".to_owned(), "none".to_owned()));
    let update = oci.dir.path().join("update");
    std::fs::write(&update, json!({"memory": {"swap": -1}}).to_string()).unwrap();
    assert!(oci.refused(&["update", "--resources", update.to_str().unwrap(), "taken"]).contains("to take the limit away"));
    let quota = || {
        let [v1, v2] = ["cpu/CGROUP/cpu.cfs_quota_us", "CGROUP/cpu.max"].map(|path| {
            std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(path.replace("CGROUP", &format!("{}/taken", oci.name()))))
        });
        v1.or(v2).unwrap()
    };
    for (wanted, shown) in [(50_000, &["50000\n", "50000 100000\n"]), (-1, &["-1\n", "max 100000\n"])] {
        let resources = json!({"cpu": {"quota": wanted, "period": 100_000}, "memory": {"limit": if wanted > 0 { 1 << 26 } else { -1 }}});
        std::fs::write(&update, resources.to_string()).unwrap();
        oci.ok(&["update", "--resources", update.to_str().unwrap(), "taken"]);
        assert!(shown.contains(&quota().as_str()), "{}", quota());
    }
    // A container whose spec is lost can be deleted all the same.
    std::fs::remove_file(oci.dir.path().join("state/taken/config.json")).unwrap();
    oci.ok(&["delete", "--force", "taken"]);
    assert_eq!(oci.ids(), "");
}

/// A disk of this host, `MAJOR` and `MINOR`.
fn disk() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/partitions").unwrap();
    let line = text.lines().nth(2).expect("this host has a disk");
    let numbers: Vec<u64> = line.split_whitespace().take(2).map(|number| number.parse().unwrap()).collect();
    (numbers[0], numbers[1])
}

#[test]
fn block_devices_are_weighed_and_throttled() {
    both(|oci| {
        let (major, minor) = disk();
        let of = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        let bundle = oci.bundle("io", "sleep 1000", |config| {
            let io = json!({"weight": 500, "throttleReadBpsDevice": of(1 << 30), "throttleWriteIOPSDevice": of(100_000)});
            config["linux"]["resources"]["blockIO"] = io;
        });
        let pid_file = oci.dir.path().join("pid");
        oci.ok(&["run", "--detach", "--bundle", &bundle, "--pid-file", pid_file.to_str().unwrap(), "io"]);
        let read = |files: &[&str]| {
            let places = ["blkio", "unified", ""].map(|mount| Path::new("/sys/fs/cgroup").join(mount).join(oci.name()).join("io"));
            let all = places.iter().flat_map(|place| files.iter().map(|file| place.join(file)));
            all.filter_map(|file| std::fs::read_to_string(file).ok()).collect::<String>()
        };
        let reads = || read(&["blkio.throttle.read_bps_device", "io.max"]);
        let has = |text: &str, wanted: &[String]| wanted.iter().any(|wanted| text.contains(wanted));
        let bytes = |rate: u64| [format!("{major}:{minor} {rate}\n"), format!("{major}:{minor} rbps={rate} ")];
        assert!(has(&reads(), &bytes(1 << 30)), "{}", reads());
        let writes = read(&["blkio.throttle.write_iops_device", "io.max"]);
        assert!(has(&writes, &[format!("{major}:{minor} 100000\n"), "wiops=100000".into()]), "{writes}");
        let weight = read(&["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"]);
        assert!(has(&weight, &["500".into(), "4950".into()]), "{weight}");
        let pid = std::fs::read_to_string(pid_file).unwrap();
        assert!(read(&["cgroup.procs"]).lines().any(|line| line == pid), "{pid} is in it");
        if !oci.program.ends_with("runc") {
            let update = oci.dir.path().join("update");
            std::fs::write(&update, json!({"blockIO": {"throttleReadBpsDevice": of(1 << 29)}}).to_string()).unwrap();
            oci.ok(&["update", "--resources", update.to_str().unwrap(), "io"]);
            assert!(has(&reads(), &bytes(1 << 29)), "{}", reads());
        }
        oci.ok(&["delete", "--force", "io"]);
        assert_eq!(read(&["cgroup.procs"]), "", "and is taken away");
    });
}

#[test]
fn limits_are_changed_by_flags() {
    both(|oci| {
        let bundle = oci.bundle("flags", "sleep 1000", |_| {});
        oci.ok(&["run", "--detach", "--bundle", &bundle, "flags"]);
        let words = ["update", "--memory", "64m", "--cpu-quota", "50000", "--cpu-period", "100000", "--pids-limit", "77", "flags"];
        oci.ok(&words);
        let read = |v1: &str, v2: &str| {
            let name = oci.name();
            let [v1, v2] = [v1, v2]
                .map(|file| std::fs::read_to_string(format!("/sys/fs/cgroup/{}", file.replace("CGROUP", &format!("{name}/flags")))));
            v1.or(v2).unwrap()
        };
        assert_eq!(read("memory/CGROUP/memory.limit_in_bytes", "CGROUP/memory.max"), "67108864\n");
        assert_eq!(read("pids/CGROUP/pids.max", "CGROUP/pids.max"), "77\n");
        assert!(read("cpu/CGROUP/cpu.cfs_quota_us", "CGROUP/cpu.max").starts_with("50000"));
        assert!(!oci.call(&["update", "--memory", "much", "flags"]).status.success());
    });
}

#[test]
fn no_program_of_the_host_is_behind_a_container_on_its_way() {
    let oci = podbay();
    let bundle = oci.bundle("exe", "true", |_| {});
    oci.ok(&["create", "--bundle", &bundle, "exe"]);
    let state: Value = serde_json::from_str(&oci.ok(&["state", "exe"])).unwrap();
    let exe = std::fs::read_link(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(exe.to_string_lossy().starts_with("/memfd:"), "{}", exe.display());
    assert!(std::fs::OpenOptions::new().write(true).open(format!("/proc/{}/exe", state["pid"])).is_err(), "it is sealed");
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", state["pid"]))
        .unwrap()
        .flatten()
        .map(|fd| std::fs::read_link(fd.path()).unwrap_or_default())
        .collect();
    assert!(open.iter().all(|path| !path.is_dir()), "no directory of the host is open: {open:?}");
}
