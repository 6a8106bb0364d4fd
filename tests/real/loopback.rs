//! The host's loopback: ports of the host answer there, and pods get no nearer to it.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use podbay::network::{NodeNetwork, PodNetwork};

use super::network::{Netns, Node, PATIENCE, Server, ask, host_port, open, refused};

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn route_localnet(node: &Node) -> String {
    node.netns.inside(|| fs::read_to_string("/proc/sys/net/ipv4/conf/podbay0/route_localnet").expect("read"))
}

#[tokio::test]
async fn a_port_of_the_host_answers_on_its_loopback() {
    let mut node = Node::new("10.80.1.0/24").await;
    node.network.remove_all().await.expect("remove everything");
    let before = node.netns.state();
    node.sync().await;
    let (pod, outside) = (node.pod("pod").await, Netns::new());
    let host = Ipv4Addr::new(192, 0, 2, 1);
    let _servers = [Server::start(&pod.netns, "pod", 80), Server::start(&node.netns, "host", 8083)];
    assert_eq!(route_localnet(&node), "0\n", "not before it is of use");
    let everywhere = [host_port("TCP", None, 12000, 80), host_port("TCP", Some(host), 12001, 80)];
    node.network.publish("pod", &everywhere[1..]).await.expect("publish");
    assert_eq!(route_localnet(&node), "0\n", "nor for another address");
    let at = |address, port| host_port("TCP", Some(address), port, 80);
    let ports = [&everywhere[..], &[at(HOME, 12002), at(ELSEWHERE, 12003)]].concat();
    node.network.publish("pod", &ports).await.expect("publish");
    let answer = format!("pod {}", pod.at.gateway);
    for filter_bridged in ["0", "1"] {
        node.netns.sysctl("net/bridge/bridge-nf-call-iptables", filter_bridged);
        for (address, port) in [(HOME, 12000), (HOME, 12002), (ELSEWHERE, 12003)] {
            assert_eq!(ask(&node.netns, address, port).expect("on the loopback"), answer, "{address}:{port}");
        }
    }
    for (address, port) in [(ELSEWHERE, 12000), (HOME, 12001), (ELSEWHERE, 12002), (HOME, 12003)] {
        let outcome = ask(&node.netns, address, port);
        assert!(refused(&outcome), "{address}:{port}: {outcome:?}");
    }
    assert_eq!(ask(&node.netns, HOME, 8083).expect("a program of the host"), "host 127.0.0.1");
    node.netns.cable("wire", "192.0.2.1/24", &outside, "192.0.2.9/24");
    assert!(refused(&ask(&outside, host, 12002)), "one of the loopback is not the host's neighbours'");

    // Somebody takes the rules or the bridge away; it is mended.
    for breaking in ["nft", "ip", "sysctl"] {
        match breaking {
            "nft" => drop(node.netns.nft("flush ruleset")),
            "ip" => drop(node.netns.ip("link delete podbay0")),
            _ => node.netns.sysctl("net/ipv4/conf/podbay0/route_localnet", "0"),
        }
        assert!(node.sync().await, "{breaking}");
        assert_eq!(ask(&node.netns, HOME, 12000).expect("mended"), answer, "{breaking}");
    }
    node.netns.ip("link delete podbay0");
    let _another = node.pod("another").await;
    assert_eq!(route_localnet(&node), "1\n", "with the bridge that a pod has made anew");

    node.network.publish("pod", &[]).await.expect("give back");
    assert!(refused(&ask(&node.netns, HOME, 12000)), "given back");
    assert_eq!(route_localnet(&node), "0\n");
    node.network.publish("pod", &ports).await.expect("publish");
    node.netns.ip("link delete wire");
    open(&node.netns, &node.state).remove_all().await.expect("remove everything");
    assert_eq!(node.netns.state(), before);
    assert!(!node.netns.inside(|| fs::exists("/proc/sys/net/ipv4/conf/podbay0").expect("look")));
}

/// Somebody else's table of our name, which nft lets nobody change while that one is there (nft(8): `owner`).
struct Squatter(Child);

impl Squatter {
    fn in_place_of_ours(node: &Node) -> Self {
        let child = node.netns.inside(|| {
            let mut child = Command::new("/usr/sbin/nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("nft");
            let text = "delete table ip podbay\nadd table ip podbay { flags owner; }\n";
            child.stdin.as_mut().expect("a pipe").write_all(text.as_bytes()).expect("write");
            child
        });
        let deadline = Instant::now() + PATIENCE;
        while !node.netns.nft("list ruleset").contains("flags owner") {
            assert!(Instant::now() < deadline, "nft does not take the table");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn without_its_guard_the_loopback_is_closed() {
    let mut node = Node::new("10.80.1.0/24").await;
    let pod = node.pod("pod").await;
    let _server = Server::start(&pod.netns, "pod", 80);
    let squatter = Squatter::in_place_of_ours(&node);
    let port = |number| host_port("TCP", None, number, 80);
    node.network.publish("pod", &[port(12000)]).await.expect_err("the rules are refused");
    assert_eq!(route_localnet(&node), "0\n", "never opened");
    drop(squatter);
    assert!(node.sync().await);
    assert_eq!((ask(&node.netns, HOME, 12000).is_ok(), route_localnet(&node).as_str()), (true, "1\n"));
    // The rules that stood are gone, and new ones are refused; to one that was started since, too.
    let squatter = Squatter::in_place_of_ours(&node);
    node.network.publish("pod", &[port(12000), port(12001)]).await.expect_err("the rules are refused");
    assert_eq!(route_localnet(&node), "0\n", "taken back");
    node.netns.sysctl("net/ipv4/conf/podbay0/route_localnet", "1");
    let started = open(&node.netns, &node.state);
    started.sync(&node.wanted).await.expect_err("the rules are refused");
    assert_eq!(route_localnet(&node), "0\n", "taken back");
    drop((squatter, started));
    assert!(node.sync().await);
    assert_eq!((ask(&node.netns, HOME, 12001).is_ok(), route_localnet(&node).as_str()), (true, "1\n"));
}

#[tokio::test]
async fn pods_and_neighbours_do_not_reach_the_hosts_loopback_nor_pass_for_it() {
    let node = Node::new("10.80.1.0/24").await;
    let (pod, neighbour) = (node.pod("pod").await, Netns::new());
    node.netns.cable("wire", "192.0.2.1/24", &neighbour, "192.0.2.9/24");
    node.network.publish("pod", &[host_port("TCP", None, 12000, 80)]).await.expect("publish");
    assert_eq!(route_localnet(&node), "1\n", "the kernel itself stops nothing");
    // Where it would take the sender for a stranger it is no test of ours.
    for name in ["net/ipv4/conf/all/rp_filter", "net/ipv4/conf/podbay0/rp_filter"] {
        node.netns.sysctl(name, "0");
    }
    let heard = node.netns.inside(|| UdpSocket::bind("0.0.0.0:7777").expect("bind"));
    heard.set_read_timeout(Some(PATIENCE)).expect("limit");
    let hears = |text: &str| {
        let mut buffer = [0; 64];
        let length = heard.recv(&mut buffer).unwrap_or_else(|cause| panic!("{text}: {cause}"));
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), text);
    };
    let send = |from: &Netns, source: Ipv4Addr, to: Ipv4Addr, text: &'static str| {
        from.inside(move || {
            let socket = UdpSocket::bind((source, 0)).expect("bind");
            socket.send_to(text.as_bytes(), (to, 7777)).expect("send");
        });
    };
    let any = Ipv4Addr::UNSPECIFIED;
    let gateway = pod.at.gateway;

    // One after the other on the same way: what is heard first was not overtaken.
    pod.netns.sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    send(&pod.netns, ELSEWHERE, gateway, "from a loopback");
    send(&pod.netns, any, gateway, "from the pod");
    hears("from the pod");
    for (netns, via, to) in [(&pod.netns, gateway, gateway), (&neighbour, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 1))] {
        netns.ip("address delete 127.0.0.1/8 dev lo");
        netns.ip(&format!("route add 127.0.0.0/8 via {via}"));
        send(netns, any, HOME, "to the host's loopback");
        send(netns, any, to, "to the host");
        hears("to the host");
    }

    // That it is our guard which stops them.
    node.netns.nft("flush chain ip podbay guard-loopback");
    send(&pod.netns, any, HOME, "to the loopback, unguarded");
    hears("to the loopback, unguarded");
    pod.netns.ip("route delete 127.0.0.0/8");
    pod.netns.ip("address add 127.0.0.1/8 dev lo");
    send(&pod.netns, ELSEWHERE, gateway, "from a loopback, unguarded");
    hears("from a loopback, unguarded");
}
