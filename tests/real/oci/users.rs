//! User namespaces of bundles: their ids, what is theirs, and that nobody is more than he is there.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use super::*;

/// Several ranges, as a rootless caller's.
const RANGES: [(u32, u32, u32); 2] = [(0, 100_000, 1000), (1000, 300_000, 64_000)];

fn mappings() -> Value {
    RANGES.iter().map(|(inside, host, size)| json!({"containerID": inside, "hostID": host, "size": size})).collect()
}

/// A bundle whose root is the container's root's.
fn bundle(oci: &Oci, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = oci.bundle(id, script, |config| {
        config["linux"]["uidMappings"] = mappings();
        config["linux"]["gidMappings"] = mappings();
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        change(config);
    });
    std::fs::set_permissions(oci.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for path in ["", "tmp", "dev", "proc", "sys", "etc", "bin"] {
        chown(oci.rootfs(id).join(path), Some(100_000), Some(100_000)).unwrap();
    }
    bundle
}

#[test]
fn a_container_has_its_own_ids() {
    both(|oci| {
        let script = "id -u; cat /proc/self/uid_map | tr -s ' '; touch /made; stat -c '%u:%g' /tmp /data /dev; \
                      cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; hostname; mount -t tmpfs none /tmp 2>/dev/null || echo no mount; sleep 1000";
        let bundle = bundle(oci, "ids", script, |config| {
            let data = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["uid=5", "gid=1005", "mode=700"]});
            config["mounts"].as_array_mut().unwrap().push(data);
            config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"});
        });
        let said = || std::fs::read_to_string(oci.dir.path().join("first")).unwrap();
        let file = std::fs::File::create(oci.dir.path().join("first")).unwrap();
        let mut command = oci.command(&["run", "--detach", "--bundle", &bundle, "ids"]);
        assert!(command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap().success(), "{}", said());
        wait_for("it has said everything", || said().contains("no mount"));
        let expected = "0\n 0 100000 1000\n 1000 300000 64000\n0:0\n5:1005\n0:0\n1\n9000\nbox\nno mount\n";
        assert_eq!(said(), expected);
        assert_eq!(std::fs::metadata(oci.rootfs("ids").join("made")).unwrap().uid(), 100_000);
        // A command is no more than they are.
        assert_eq!(
            oci.ok(&[
                "exec",
                "ids",
                "/bin/sh",
                "-c",
                "id -u; test $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) && touch /by-exec"
            ]),
            "0\n"
        );
        assert_eq!(std::fs::metadata(oci.rootfs("ids").join("by-exec")).unwrap().uid(), 100_000);
        let process = json!({"user": {"uid": 1001, "gid": 1001}, "args": ["/bin/sh", "-c", "id -u; echo x > /tmp/theirs"], "cwd": "/", "env": ["PATH=/bin"]});
        let file = oci.dir.path().join("process.json");
        std::fs::write(&file, process.to_string()).unwrap();
        assert_eq!(oci.ok(&["exec", "--process", file.to_str().unwrap(), "ids"]), "1001\n");
        assert_eq!(std::fs::metadata(oci.rootfs("ids").join("tmp/theirs")).unwrap().uid(), 300_001);
        oci.ok(&["delete", "--force", "ids"]);
    });
}

#[test]
fn a_user_namespace_is_joined_by_its_path() {
    both(|oci| {
        let first = bundle(oci, "pause", "sleep 1000", |_| {});
        oci.ok(&["run", "--detach", "--bundle", &first, "pause"]);
        let state: Value = serde_json::from_str(&oci.ok(&["state", "pause"])).unwrap();
        let joins = |id: &str, script: &str, change: &dyn Fn(&mut Value)| {
            bundle(oci, id, script, |config| {
                config.as_object_mut().unwrap().remove("hostname");
                let of = |kind: &str, file: &str| json!({"type": kind, "path": format!("/proc/{}/ns/{file}", state["pid"])});
                config["linux"]["namespaces"] = json!([of("user", "user"), of("network", "net"), of("ipc", "ipc"), of("uts", "uts"), {"type": "pid"}, {"type": "mount"}]);
                change(config);
            })
        };
        let second = joins("joins", "id -u; hostname; readlink /proc/self/ns/user; touch /made", &|config| {
            // Runc wants them said once more.
            for ids in ["uidMappings", "gidMappings"].into_iter().filter(|_| !oci.program.ends_with("runc")) {
                config["linux"].as_object_mut().unwrap().remove(ids);
            }
        });
        let namespace = std::fs::read_link(format!("/proc/{}/ns/user", state["pid"])).unwrap();
        assert_eq!(oci.ok(&["run", "--bundle", &second, "joins"]), format!("0\nbox\n{}\n", namespace.display()));
        assert_eq!(std::fs::metadata(oci.rootfs("joins").join("made")).unwrap().uid(), 100_000);
        if oci.program.ends_with("podbay-oci") {
            let other = joins("other", "true", &|config| config["linux"]["uidMappings"][0]["hostID"] = json!(7));
            assert!(oci.refused(&["run", "--bundle", &other, "other"]).contains("its ids are others than the bundle says"));
            let same = joins("same", "id -u", &|_| {});
            assert_eq!(oci.ok(&["run", "--bundle", &same, "same"]), "0\n");
        }
        oci.ok(&["delete", "--force", "pause"]);
    });
}

#[test]
fn a_terminal_is_the_containers_own_root_s() {
    both(|oci| {
        let path = oci.dir.path().join("console");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let script = "test -t 0 && tty && stat -c %u /dev/console $(tty) && echo x > /dev/stdout; exec sleep 1000";
        let bundle = bundle(oci, "tty", script, |config| config["process"]["terminal"] = json!(true));
        oci.ok(&["create", "--bundle", &bundle, "--console-socket", path.to_str().unwrap(), "tty"]);
        let master = terminal(&socket);
        oci.ok(&["start", "tty"]);
        let mut said = String::new();
        let mut from = std::io::BufReader::new(&master);
        while !said.contains('x') {
            assert!(std::io::BufRead::read_line(&mut from, &mut said).unwrap() > 0, "{said}");
        }
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["/dev/pts/0", "0", "0", "x"]);
        oci.ok(&["delete", "--force", "tty"]);
    });
}

#[test]
fn mounts_are_shown_with_the_containers_ids_where_that_is_asked_for() {
    let oci = podbay();
    let volume = oci.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "").unwrap();
    chown(volume.join("file"), Some(1001), Some(1001)).unwrap();
    let bundle = bundle(&oci, "mapped", "stat -c %u /mapped/file /plain/file; touch /mapped/new", |config| {
        let mount = |at: &str, option: &str| json!({"destination": at, "type": "bind", "source": volume, "options": ["bind", option]});
        config["mounts"].as_array_mut().unwrap().extend([mount("/mapped", "idmap"), mount("/plain", "rw")]);
    });
    assert_eq!(oci.ok(&["run", "--bundle", &bundle, "mapped"]), "1001\n65534\n");
    assert_eq!(std::fs::metadata(volume.join("new")).unwrap().uid(), 0);
}

#[test]
fn nothing_that_was_mounted_can_be_uncovered() {
    let oci = podbay();
    let script = "umount /proc/kcore 2>/dev/null || echo hidden; mount -o remount,rw,bind /proc/sys 2>/dev/null || echo read-only; \
                  umount /etc/kept 2>/dev/null || echo kept";
    let bundle = bundle(&oci, "locked", script, |config| {
        let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"]);
        config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        let mount = json!({"destination": "/etc/kept", "type": "bind", "source": oci.dir.path(), "options": ["bind", "ro"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    symlink("busybox", oci.rootfs("locked").join("bin/umount")).unwrap();
    assert_eq!(oci.ok(&["run", "--bundle", &bundle, "locked"]), "hidden\nread-only\nkept\n");
}
