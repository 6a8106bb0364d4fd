//! A host that lacks what pods need, or forbids it: the daemon starts all the same, and its Node says what is to be done.

use crate::hosts::{Admin, Hosts, text};

/// The host as it would be without nftables installed and with kernel settings that nobody may write.
const BARE: &str = "mount -t tmpfs none /usr/sbin && mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys";

/// Why the node's network is not as wanted; `None`: it is, or nothing is known of it yet.
fn unavailable(admin: &Admin<'_>) -> Option<String> {
    let node = admin.json(&["node", "one"])?;
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.iter().find(|it| it["type"] == "NetworkUnavailable" && it["status"] == "True")?;
    Some(text(condition, "/message").to_owned())
}

#[test]
fn what_is_missing_or_against_us_is_named() {
    let hosts = Hosts::new("pbk", &["one"]);
    hosts.configure("one", "[server]\nlisten = \"10.99.0.1:6443\"\n");
    let admin = Admin { hosts: &hosts, server: "one" };
    let inside = |script: &str| {
        let out = hosts.command("one", "sh").args(["-ec", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    inside("cd /proc/sys/net/ipv4; echo 0 > ip_forward; echo 0 > conf/eth0/rp_filter; echo 1 > conf/all/rp_filter");
    let bare = hosts.start_seeing("one", BARE, &["up"]);
    let named = [
        "`nft` is missing: install the package nftables",
        "net.ipv4.ip_forward is off and cannot be set (Read-only file system",
        "net.ipv4.conf.all.rp_filter is 1 (strict)",
    ];
    admin.wait("the node says all that is wrong", || {
        let said = unavailable(&admin)?;
        named.iter().all(|words| said.contains(words)).then_some(())
    });
    // By now it may say more: what else could not be done meanwhile.
    let explained = admin.ok(&["explain", "node", "one"]);
    assert!(explained.contains("NetworkUnavailable: NetworkProblems: "), "{explained}");
    named.iter().for_each(|words| assert!(explained.contains(words), "{words}: {explained}"));
    drop(bare);

    // With nft there, and forwarding ours to turn on, what others' rules do can be seen.
    inside("echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter; nft add table ip theirs");
    inside("nft 'add chain ip theirs stops { type filter hook forward priority 0; policy drop; }'");
    let _whole = hosts.start("one", &["up"]);
    let only = "chain stops of table ip theirs drops by default what this host forwards";
    admin.wait("the node says what others' rules do", || unavailable(&admin).filter(|said| said.starts_with(only) && !said.contains("; ")));
    assert_eq!(inside("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    inside("nft delete table ip theirs");
    admin.wait("nothing is wrong any more", || {
        let node = admin.json(&["node", "one"])?;
        let conditions = node["status"]["conditions"].as_array()?;
        conditions.iter().any(|it| it["type"] == "NetworkUnavailable" && it["status"] == "False").then_some(())
    });
    let reset = hosts.command("one", crate::hosts::PODBAY).args(["reset", "--yes", "--config"]).arg(hosts.config("one")).output().unwrap();
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
}
