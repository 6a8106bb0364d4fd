//! Nodes as network namespaces of this process: bridge, routes, Services, with real packets.
//!
//! A namespace lives as long as its file: nothing is mounted, nothing is left behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use podbay::network::{
    Attachment, HostPort, Linux, NetworkError, NodeNetwork, Options, PodNetwork, Range, Route, ServicePort, Wanted, contract,
};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::thread::LinkNameSpaceType;

/// Long enough for a busy machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Netns(Arc<File>);

impl Netns {
    pub fn new() -> Self {
        let make = || {
            unshare_network();
            File::open("/proc/thread-self/ns/net").expect("open the new namespace")
        };
        let netns = Self(Arc::new(std::thread::spawn(make).join().expect("make a network namespace (as root)")));
        netns.ip("link set lo up");
        netns
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// Runs on a thread inside; sockets made there stay there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = self.0.clone();
        let run = move || {
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("enter the namespace");
            work()
        };
        match std::thread::spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn run(&self, program: &'static str, arguments: &str) -> String {
        let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        self.inside(move || {
            let output = Command::new(program).args(&arguments).output().expect(program);
            assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.run("/usr/sbin/ip", arguments)
    }

    pub fn nft(&self, arguments: &str) -> String {
        self.run("/usr/sbin/nft", arguments)
    }

    pub fn sysctl(&self, name: &'static str, value: &'static str) {
        self.inside(move || fs::write(format!("/proc/sys/{name}"), value).expect(name));
    }

    /// What remove_all must put back.
    pub fn state(&self) -> String {
        let forward = self.inside(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read"));
        // Without counters and times.
        format!("{}{}{}{forward}", self.ip("-br address"), self.ip("route show table all type unicast"), self.nft("list ruleset"))
    }

    /// A cable to another namespace: same link name at both ends, with these addresses.
    pub fn cable(&self, name: &'static str, address: &str, other: &Netns, other_address: &str) {
        let peer = other.0.clone();
        self.inside(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
                tokio::spawn(connection);
                let end = LinkMessageBuilder::<LinkUnspec>::new().name(name).setns_by_fd(peer.as_raw_fd()).build();
                let pair = LinkVeth::new(name, name).set_info_data(InfoData::Veth(InfoVeth::Peer(end))).build();
                handle.link().add(pair).execute().await.expect("make a cable");
            });
        });
        for (netns, address) in [(self, address), (other, other_address)] {
            netns.ip(&format!("address add {address} dev {name}"));
            netns.ip(&format!("link set {name} up"));
        }
    }
}

fn unshare_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare the network");
}

/// Answers every connection with its name and the client's address.
pub struct Server {
    listener: Arc<TcpListener>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(netns: &Netns, name: &'static str, port: u16) -> Self {
        let listener = Arc::new(netns.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen")));
        let accepting = listener.clone();
        let serve = move || {
            while let Ok((mut stream, peer)) = accepting.accept() {
                let _ = stream.write_all(format!("{name} {}", peer.ip()).as_bytes());
            }
        };
        Self { listener, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(self.listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a server says to a connection from inside a namespace.
pub fn ask(from: &Netns, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
    from.inside(move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(IpAddr::V4(address), port), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

pub fn refused(outcome: &std::io::Result<String>) -> bool {
    matches!(outcome, Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

pub struct Node {
    pub netns: Netns,
    pub network: Linux,
    pub state: tempfile::TempDir,
    pub wanted: Wanted,
}

pub struct Pod {
    pub netns: Netns,
    pub at: Attachment,
}

fn range(text: &str) -> Range {
    text.parse().expect("a range")
}

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

impl Node {
    pub async fn new(pod_range: &str) -> Self {
        let netns = Netns::new();
        let state = tempfile::tempdir().expect("make a directory");
        let wanted = Wanted {
            pod_range: Some(range(pod_range)),
            cluster_range: Some(range("10.80.0.0/16")),
            service_range: Some(range("10.96.0.0/16")),
            ..Wanted::default()
        };
        let network = open(&netns, &state);
        let mut node = Self { netns, network, state, wanted };
        assert!(node.sync().await);
        node
    }

    pub async fn sync(&mut self) -> bool {
        let changed = self.network.sync(&self.wanted).await.expect("sync");
        assert!(!self.network.sync(&self.wanted).await.expect("sync again"), "the second sync changes nothing");
        changed
    }

    pub async fn pod(&self, uid: &str) -> Pod {
        let netns = Netns::new();
        let at = self.network.attach(uid, &netns.path()).await.expect("attach");
        Pod { netns, at }
    }

    async fn serve(&mut self, services: Vec<ServicePort>) {
        self.wanted.services = services;
        self.sync().await;
    }
}

pub fn open(netns: &Netns, state: &tempfile::TempDir) -> Linux {
    Linux::open(Options { netns: Some(netns.path()), ..Options::new(state.path()) }).expect("open")
}

fn service(endpoints: &[(Ipv4Addr, u16)]) -> ServicePort {
    ServicePort {
        namespace: "default".into(),
        name: "web".into(),
        port_name: "http".into(),
        address: VIP,
        protocol: "TCP".into(),
        port: 80,
        node_port: None,
        endpoints: endpoints.to_vec(),
        affinity_seconds: None,
    }
}

#[tokio::test]
async fn the_kernels_network_keeps_the_contract() {
    let (node, one, two) = (Netns::new(), Netns::new(), Netns::new());
    let before = node.state();
    let state = tempfile::tempdir().expect("make a directory");
    contract::check(&open(&node, &state), &[one.path(), two.path()]).await;
    assert_eq!(node.state(), before);
    assert_eq!(fs::read_dir(state.path().join("addresses")).expect("list").count(), 0);
}

#[tokio::test]
async fn pods_reach_each_other_and_their_host() {
    let node = Node::new("10.80.1.0/24").await;
    let (one, two) = (node.pod("one").await, node.pod("two").await);
    assert_eq!(one.at.gateway, Ipv4Addr::new(10, 80, 1, 1));
    let _servers = [Server::start(&two.netns, "two", 8080), Server::start(&node.netns, "host", 8081)];
    assert_eq!(ask(&one.netns, two.at.address, 8080).expect("pod to pod"), format!("two {}", one.at.address));
    assert_eq!(ask(&node.netns, two.at.address, 8080).expect("host to pod"), format!("two {}", one.at.gateway));
    assert_eq!(ask(&one.netns, one.at.gateway, 8081).expect("pod to host"), format!("host {}", one.at.address));
    assert!(one.netns.ip("-br link show lo").contains("UNKNOWN"), "lo is up");
}

#[tokio::test]
async fn a_service_is_reached_from_pods_from_the_host_and_from_itself() {
    let mut node = Node::new("10.80.1.0/24").await;
    let (one, two, client) = (node.pod("one").await, node.pod("two").await, node.pod("client").await);
    let _servers = [Server::start(&one.netns, "one", 8080), Server::start(&two.netns, "two", 8080)];
    for filter_bridged in ["0", "1"] {
        node.netns.sysctl("net/bridge/bridge-nf-call-iptables", filter_bridged);
        node.serve(vec![service(&[(one.at.address, 8080), (two.at.address, 8080)])]).await;
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            seen.insert(ask(&client.netns, VIP, 80).expect("pod to service"));
        }
        let expected = ["one", "two"].map(|name| format!("{name} {}", client.at.address));
        assert_eq!(seen, BTreeSet::from(expected), "both endpoints answer, and see the client");
        node.serve(vec![service(&[(one.at.address, 8080)])]).await;
        assert_eq!(ask(&client.netns, VIP, 80).expect("only one now"), format!("one {}", client.at.address));
        assert_eq!(ask(&node.netns, VIP, 80).expect("host to service"), format!("one {}", one.at.gateway));
        assert_eq!(ask(&one.netns, VIP, 80).expect("hairpin"), format!("one {}", one.at.gateway));
    }
}

#[tokio::test]
async fn what_no_endpoint_answers_is_refused_at_once() {
    let mut node = Node::new("10.80.1.0/24").await;
    let client = node.pod("client").await;
    let mut closed = service(&[]);
    closed.node_port = Some(30080);
    node.serve(vec![closed]).await;
    for from in [&client.netns, &node.netns] {
        let outcome = ask(from, VIP, 80);
        assert!(refused(&outcome), "a Service without endpoints: {outcome:?}");
        let outcome = ask(from, Ipv4Addr::new(10, 96, 200, 1), 443);
        assert!(refused(&outcome), "an address of no Service: {outcome:?}");
    }
    assert!(refused(&ask(&client.netns, client.at.gateway, 30080)), "a node port without endpoints");
    node.serve(vec![]).await;
    assert!(refused(&ask(&client.netns, VIP, 80)));
}

#[tokio::test]
async fn udp_services_work() {
    let mut node = Node::new("10.80.1.0/24").await;
    let (server, client) = (node.pod("server").await, node.pod("client").await);
    let socket = server.netns.inside(|| UdpSocket::bind("0.0.0.0:5353").expect("bind"));
    socket.set_read_timeout(Some(PATIENCE)).expect("limit");
    let mut dns = service(&[(server.at.address, 5353)]);
    (dns.protocol, dns.port) = ("UDP".into(), 53);
    // TCP on the same port is another Service port.
    let mut tcp = service(&[]);
    (tcp.port, tcp.port_name) = (53, "tcp".into());
    node.serve(vec![dns, tcp]).await;
    let asking = client.netns.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("limit");
        socket.connect((VIP, 53)).expect("connect");
        socket
    });
    asking.send(b"question").expect("send");
    let mut buffer = [0; 64];
    let (length, peer) = socket.recv_from(&mut buffer).expect("the question");
    assert_eq!((&buffer[..length], peer.ip()), (&b"question"[..], IpAddr::V4(client.at.address)));
    socket.send_to(b"answer", peer).expect("answer");
    let length = asking.recv(&mut buffer).expect("the answer, from the Service's address");
    assert_eq!(&buffer[..length], b"answer");
    assert!(refused(&ask(&client.netns, VIP, 53)));
}

/// A datagram from a port that stays the same reaches whom?
fn hears(socket: &UdpSocket, sender: &UdpSocket, text: &str) -> bool {
    sender.send(text.as_bytes()).is_ok() && {
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == text.as_bytes())
    }
}

#[tokio::test]
async fn a_udp_sender_follows_its_service_to_another_endpoint() {
    let mut node = Node::new("10.80.1.0/24").await;
    let (one, two, client) = (node.pod("one").await, node.pod("two").await, node.pod("client").await);
    let listen = |pod: &Pod| {
        let socket = pod.netns.inside(|| UdpSocket::bind("0.0.0.0:8125").expect("bind"));
        socket.set_read_timeout(Some(PATIENCE)).expect("limit");
        socket
    };
    let (first, second) = (listen(&one), listen(&two));
    let sender = client.netns.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:4000").expect("bind");
        socket.connect((VIP, 8125)).expect("connect");
        socket
    });
    let mut statsd = service(&[]);
    (statsd.protocol, statsd.port) = ("UDP".into(), 8125);
    let at = |pod: &Pod| vec![(pod.at.address, 8125)];
    statsd.endpoints = at(&one);
    node.serve(vec![statsd.clone()]).await;
    assert!(hears(&first, &sender, "to one"));
    statsd.endpoints = at(&two);
    node.serve(vec![statsd.clone()]).await;
    assert!(hears(&second, &sender, "to two"), "the endpoint is another one");
    statsd.endpoints.clear();
    node.serve(vec![statsd.clone()]).await;
    // Sent while there is no endpoint: refused, and not remembered.
    let _ = sender.send(b"to nobody");
    let _ = sender.send(b"to nobody");
    statsd.endpoints = at(&one);
    node.serve(vec![statsd]).await;
    // The refusal may be waiting for the sender still.
    let _ = sender.take_error();
    assert!(hears(&first, &sender, "to one again") || hears(&first, &sender, "to one again"), "there is an endpoint again");
}

pub fn host_port(protocol: &str, at: Option<Ipv4Addr>, host_port: u16, port: u16) -> HostPort {
    HostPort { protocol: protocol.into(), host_address: at, host_port, port }
}

#[tokio::test]
async fn a_port_of_the_host_leads_to_its_pod_from_everywhere() {
    let mut node = Node::new("10.80.1.0/24").await;
    let (pod, client, outside) = (node.pod("pod").await, node.pod("client").await, Netns::new());
    let (host, other) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1));
    node.netns.cable("wire", "192.0.2.1/24", &outside, "192.0.2.9/24");
    node.netns.ip("address add 198.51.100.1/32 dev wire");
    outside.ip("route add 198.51.100.1/32 via 192.0.2.1");
    let _servers =
        [Server::start(&pod.netns, "pod", 80), Server::start(&outside, "outside", 8080), Server::start(&node.netns, "host", 8082)];
    let ports = [host_port("TCP", None, 8080, 80), host_port("TCP", Some(host), 8081, 80)];
    node.network.publish("pod", &ports).await.expect("publish");
    for filter_bridged in ["0", "1"] {
        node.netns.sysctl("net/bridge/bridge-nf-call-iptables", filter_bridged);
        assert_eq!(ask(&outside, host, 8080).expect("from outside"), "pod 192.0.2.9", "the client's own address");
        assert_eq!(ask(&outside, other, 8080).expect("by any address of the host"), "pod 192.0.2.9");
        assert_eq!(ask(&client.netns, host, 8080).expect("from a pod"), format!("pod {}", client.at.address));
        assert_eq!(ask(&client.netns, client.at.gateway, 8080).expect("by the gateway"), format!("pod {}", client.at.address));
        assert_eq!(ask(&node.netns, host, 8080).expect("from the host"), "pod 192.0.2.1");
        assert_eq!(ask(&pod.netns, host, 8080).expect("from itself"), format!("pod {}", pod.at.gateway));
        assert_eq!(ask(&client.netns, Ipv4Addr::new(192, 0, 2, 9), 8080).expect("the same port elsewhere"), "outside 192.0.2.1");
    }
    assert_eq!(ask(&outside, host, 8081).expect("by its one address"), "pod 192.0.2.9");
    assert!(refused(&ask(&outside, other, 8081)), "not by another one");
    assert_eq!(ask(&outside, host, 8082).expect("a program of the host"), "host 192.0.2.9");
    assert!(refused(&ask(&client.netns, Ipv4Addr::LOCALHOST, 8080)), "a pod's loopback is its own");
    // Whoever chooses an address that is not the host's leads nobody astray.
    node.network.publish("client", &[host_port("TCP", Some(Ipv4Addr::new(192, 0, 2, 9)), 8080, 80)]).await.expect_err("taken by all");
    node.network.publish("client", &[host_port("TCP", Some(Ipv4Addr::new(192, 0, 2, 9)), 8083, 80)]).await.expect("publish");
    node.network.publish("client", &[host_port("TCP", None, 10250, 80)]).await.expect_err("the node's own");
    let _elsewhere = Server::start(&outside, "elsewhere", 8083);
    assert_eq!(ask(&client.netns, Ipv4Addr::new(192, 0, 2, 9), 8083).expect("not this host"), "elsewhere 192.0.2.1");
    // Somebody takes our rules away; another process takes over; the pod goes.
    node.netns.nft("flush ruleset");
    assert!(node.sync().await);
    assert_eq!(ask(&outside, host, 8080).expect("mended"), "pod 192.0.2.9");
    node.network = open(&node.netns, &node.state);
    assert!(!node.sync().await, "a restart finds them as they were");
    assert_eq!(ask(&outside, host, 8080).expect("after a restart"), "pod 192.0.2.9");
    node.network.detach("pod").await.expect("detach");
    assert!(refused(&ask(&outside, host, 8080)), "gone with its pod");
    assert!(!node.netns.nft("list ruleset").contains("8080"));
}

/// Runs this test of `network` once more with an `nft` before the real one, and says in which directory once it is
/// there. It changes nothing while the file `fail` lies beside it.
fn with_failing_nft(name: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("PODBAY_TEST_NFT") {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().expect("make a directory");
    let (program, fail) = (dir.path().join("nft"), dir.path().join("fail"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -f ] && [ -e {} ] && {{ echo 'Error: no room' >&2; exit 1; }}\nexec /usr/sbin/nft \"$@\"\n",
        fail.display()
    );
    fs::write(&program, script).expect("write a program");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("make it one");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args([&format!("network::{name}"), "--exact", "--nocapture"]).env("PATH", path).env("PODBAY_TEST_NFT", dir.path());
    assert!(again.status().expect("run it").success(), "{name} with an nft that fails");
    None
}

#[tokio::test]
async fn host_ports_that_nft_refuses_are_named_and_tried_again() {
    let Some(dir) = with_failing_nft("host_ports_that_nft_refuses_are_named_and_tried_again") else { return };
    let mut node = Node::new("10.80.1.0/24").await;
    let (pod, outside) = (node.pod("pod-uid").await, Netns::new());
    let host = Ipv4Addr::new(192, 0, 2, 1);
    node.netns.cable("wire", "192.0.2.1/24", &outside, "192.0.2.9/24");
    let _server = Server::start(&pod.netns, "pod", 80);
    let rules = node.netns.nft("list ruleset");
    fs::write(dir.join("fail"), "").expect("let it fail");
    let ports = [host_port("TCP", None, 8080, 80), host_port("UDP", None, 5353, 53)];
    let error = node.network.publish("pod-uid", &ports).await.expect_err("nft fails").to_string();
    for part in ["8080/TCP", "5353/UDP", "of sandbox pod-uid", "no room"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(node.netns.nft("list ruleset"), rules, "nothing is half applied");
    assert!(refused(&ask(&outside, host, 8080)));
    fs::remove_file(dir.join("fail")).expect("let it work");
    node.network.publish("pod-uid", &ports).await.expect("the same again");
    assert_eq!(ask(&outside, host, 8080).expect("published"), "pod 192.0.2.9");
    // Nobody asks again: the node's next look brings it.
    fs::write(dir.join("fail"), "").expect("let it fail");
    node.network.publish("pod-uid", &[host_port("TCP", None, 8081, 80)]).await.expect_err("nft fails");
    assert_eq!(ask(&outside, host, 8080).expect("as before"), "pod 192.0.2.9");
    fs::remove_file(dir.join("fail")).expect("let it work");
    assert!(node.sync().await);
    assert_eq!(ask(&outside, host, 8081).expect("brought"), "pod 192.0.2.9");
    assert!(refused(&ask(&outside, host, 8080)), "given back");
}

#[tokio::test]
async fn a_udp_sender_follows_a_port_of_the_host_to_its_next_pod() {
    let node = Node::new("10.80.1.0/24").await;
    let (one, two, outside) = (node.pod("one").await, node.pod("two").await, Netns::new());
    node.netns.cable("wire", "192.0.2.1/24", &outside, "192.0.2.9/24");
    let listen = |netns: &Netns, at: &'static str| {
        let socket = netns.inside(move || UdpSocket::bind(at).expect("bind"));
        socket.set_read_timeout(Some(PATIENCE)).expect("limit");
        socket
    };
    let (first, second) = (listen(&one.netns, "0.0.0.0:5514"), listen(&two.netns, "0.0.0.0:5514"));
    let sender = outside.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:4000").expect("bind");
        socket.set_read_timeout(Some(PATIENCE)).expect("limit");
        socket.connect(("192.0.2.1", 514)).expect("connect");
        socket
    });
    let refused = || {
        sender.send(b"to nobody").expect("send");
        sender.recv(&mut [0; 64]).expect_err("nobody is there").kind()
    };
    assert_eq!(refused(), std::io::ErrorKind::ConnectionRefused, "before there is a pod");
    let ports = [host_port("UDP", None, 514, 5514)];
    node.network.publish("one", &ports).await.expect("publish");
    assert!(hears(&first, &sender, "to one"), "the refusal is not remembered");
    node.network.detach("one").await.expect("detach");
    node.network.publish("two", &ports).await.expect("publish");
    assert!(hears(&second, &sender, "to two"), "the pod is another one");
    node.network.publish("two", &[]).await.expect("give back");
    let host = listen(&node.netns, "0.0.0.0:514");
    assert!(hears(&host, &sender, "to the host"), "the host has its port again");
}

#[tokio::test]
async fn two_nodes_in_one_namespace_leave_each_other_alone() {
    let (mut node, other) = (Node::new("10.80.1.0/24").await, Netns::new());
    node.netns.cable("wire", "192.0.2.1/24", &other, "192.0.2.2/24");
    node.wanted.routes = vec![Route { range: range("10.80.7.0/24"), via: [192, 0, 2, 2].into() }];
    node.sync().await;
    let state = tempfile::tempdir().expect("make a directory");
    let options =
        Options { bridge: "second0".into(), table: "second".into(), netns: Some(node.netns.path()), ..Options::new(state.path()) };
    let second = Linux::open(options).expect("open");
    let wanted = Wanted {
        pod_range: Some(range("10.90.1.0/24")),
        service_range: Some(range("10.97.0.0/16")),
        routes: vec![Route { range: range("10.90.7.0/24"), via: [192, 0, 2, 2].into() }],
        ..Wanted::default()
    };
    second.sync(&wanted).await.expect("sync");
    let has = |node: &Node, routes: [&str; 2]| routes.iter().all(|route| node.netns.ip("route").contains(route));
    let (ours, theirs) = (["10.96.0.0/16 dev podbay0", "10.80.7.0/24 via"], ["10.97.0.0/16 dev second0", "10.90.7.0/24 via"]);
    assert!(has(&node, ours) && has(&node, theirs), "{}", node.netns.ip("route"));
    assert!(!node.sync().await, "there is nothing to mend");
    assert!(!second.sync(&wanted).await.expect("sync"));
    second.remove_all().await.expect("remove the second");
    let left = node.netns.ip("route");
    assert!(has(&node, ours) && !left.contains("10.97.") && !left.contains("10.90."), "{left}");
    assert_eq!(node.netns.inside(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read")), "1\n");
}

#[tokio::test]
async fn the_bridge_follows_the_uplinks_mtu() {
    let (mut node, other) = (Node::new("10.80.1.0/24").await, Netns::new());
    node.netns.cable("wire", "192.0.2.1/24", &other, "192.0.2.2/24");
    node.netns.ip("route add default via 192.0.2.2");
    node.netns.ip("link set wire mtu 1400");
    assert!(node.sync().await);
    assert!(node.netns.ip("link show podbay0").contains("mtu 1400"));
    // Nothing to go by: it stays.
    node.netns.ip("route delete default");
    assert!(!node.sync().await);
}

#[tokio::test]
async fn firewalls_of_others_are_named() {
    let node = Node::new("10.80.1.0/24").await;
    node.netns.sysctl("net/ipv4/conf/all/rp_filter", "0");
    let nft = |script: &'static str| {
        node.netns.inside(move || {
            assert!(Command::new("nft").arg(script).status().expect("nft").success(), "{script}");
        });
    };
    nft("add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }");
    nft("add table inet firewalld; add chain inet firewalld FWD { type filter hook forward priority 10; policy accept; }");
    nft("add rule inet firewalld FWD ct state established accept; add rule inet firewalld FWD reject with icmpx admin-prohibited");
    let problems = node.network.problems().await;
    for words in [
        "chain INPUT of table ip filter drops by default what is sent to this host",
        "chain FWD of table inet firewalld at its end rejects",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(words)), "{words}: {problems:?}");
    }
    assert_eq!(problems.len(), 2, "{problems:?}");
    nft("insert rule inet firewalld FWD iifname podbay0 accept; insert rule ip filter INPUT iifname podbay0 counter accept");
    assert_eq!(node.network.problems().await, Vec::<String>::new(), "they let pods through");
}

#[tokio::test]
async fn a_client_with_affinity_stays_and_is_remembered_over_changes() {
    let mut node = Node::new("10.80.1.0/24").await;
    let client = node.pod("client").await;
    let pods = [node.pod("a").await, node.pod("b").await, node.pod("c").await];
    let _servers = [("a", &pods[0]), ("b", &pods[1]), ("c", &pods[2])].map(|(name, pod)| Server::start(&pod.netns, name, 8080));
    let mut sticky = service(&pods.iter().map(|pod| (pod.at.address, 8080)).collect::<Vec<_>>());
    sticky.affinity_seconds = Some(10800);
    node.serve(vec![sticky.clone()]).await;
    let first = ask(&client.netns, VIP, 80).expect("ask");
    for _ in 0..30 {
        assert_eq!(ask(&client.netns, VIP, 80).expect("ask again"), first);
    }
    // Another endpoint goes, another Service comes: the client stays where it was.
    let other = pods.iter().zip(["a", "b", "c"]).find(|(_, name)| !first.starts_with(name)).expect("one of the others").0;
    sticky.endpoints.retain(|(address, _)| *address != other.at.address);
    let mut more = service(&[]);
    (more.name, more.port) = ("more".into(), 81);
    node.serve(vec![sticky, more]).await;
    for _ in 0..30 {
        assert_eq!(ask(&client.netns, VIP, 80).expect("ask again"), first);
    }
}

#[tokio::test]
async fn two_nodes_are_one_network() {
    let (mut left, mut right) = (Node::new("10.80.1.0/24").await, Node::new("10.80.2.0/24").await);
    left.netns.cable("wire", "192.0.2.1/24", &right.netns, "192.0.2.2/24");
    let route = |range_text: &str, via: [u8; 4]| Route { range: range(range_text), via: via.into() };
    let both = [route("10.80.1.0/24", [192, 0, 2, 1]), route("10.80.2.0/24", [192, 0, 2, 2])];
    left.wanted.routes = vec![both[1].clone()];
    right.wanted.routes = vec![both[0].clone()];
    let (client, server) = (left.pod("client").await, right.pod("server").await);
    let _servers = [Server::start(&server.netns, "server", 8080), Server::start(&right.netns, "node", 10250)];
    let mut web = service(&[(server.at.address, 8080)]);
    web.node_port = Some(30080);
    left.serve(vec![web.clone()]).await;
    right.serve(vec![web]).await;
    assert_eq!(ask(&client.netns, server.at.address, 8080).expect("pod to pod"), format!("server {}", client.at.address));
    assert_eq!(ask(&client.netns, VIP, 80).expect("pod to service"), format!("server {}", client.at.address));
    assert_eq!(ask(&left.netns, VIP, 80).expect("host to service"), format!("server {}", client.at.gateway));
    assert_eq!(ask(&client.netns, Ipv4Addr::new(192, 0, 2, 2), 10250).expect("pod to node"), "node 192.0.2.1", "masqueraded");

    // Somebody outside, by the port of the node that has no endpoint.
    let outside = Netns::new();
    left.netns.cable("out", "198.51.100.1/24", &outside, "198.51.100.9/24");
    let _outer = Server::start(&outside, "outside", 443);
    let answer = ask(&outside, Ipv4Addr::new(198, 51, 100, 1), 30080).expect("node port");
    assert!(answer.starts_with("server "), "{answer}");
    let answer = ask(&client.netns, Ipv4Addr::new(198, 51, 100, 9), 443).expect("pod to the world");
    assert_eq!(answer, "outside 198.51.100.1", "masqueraded");

    // A node goes, its route too; the others' stay.
    left.wanted.routes = vec![];
    assert!(left.sync().await);
    assert!(!left.netns.ip("route").contains("10.80.2.0/24"));
    // One that cannot be reached is named and does not stand in the way of the rest.
    left.wanted.routes = vec![route("10.80.9.0/24", [203, 0, 113, 7]), both[1].clone()];
    let error = left.network.sync(&left.wanted).await.expect_err("a node behind a router").to_string();
    assert!(error.contains("203.0.113.7"), "{error}");
    assert_eq!(ask(&client.netns, VIP, 80).expect("the rest works"), format!("server {}", client.at.address));
    assert!(matches!(left.network.sync(&left.wanted).await, Err(NetworkError::Routes(_))));
    assert!(!left.network.problems().await.iter().any(|problem| problem.contains("203.0.113.7")), "not this node's problem");
}

#[tokio::test]
async fn everything_goes_and_nothing_else_does() {
    let mut node = Node::new("10.80.1.0/24").await;
    node.network.remove_all().await.expect("remove everything");
    node.netns.nft("add table ip other");
    node.netns.ip("link add br-other type bridge");
    node.netns.ip("link add pbnotours type veth peer name peer");
    node.netns.ip("route add 192.0.2.0/24 dev lo");
    let before = node.netns.state();
    node.serve(vec![service(&[(Ipv4Addr::new(10, 80, 1, 2), 8080)])]).await;
    let pod = node.pod("one").await;
    let _gone = node.pod("two").await;
    assert_ne!(node.netns.state(), before);
    node.network.detach("one").await.expect("detach");
    assert!(!pod.netns.ip("-br link").contains("eth0"));
    // As reset does it: by somebody who remembers nothing.
    open(&node.netns, &node.state).remove_all().await.expect("remove everything");
    assert_eq!(node.netns.state(), before);
    node.network.remove_all().await.expect("remove nothing");
    assert_eq!(node.netns.state(), before);
}

#[tokio::test]
async fn what_somebody_broke_is_mended() {
    let mut node = Node::new("10.80.1.0/24").await;
    let (one, two) = (node.pod("one").await, node.pod("two").await);
    let _server = Server::start(&two.netns, "two", 8080);
    node.serve(vec![service(&[(two.at.address, 8080)])]).await;
    let works = |node: &Node| {
        assert_eq!(ask(&one.netns, VIP, 80).expect("pod to service"), format!("two {}", one.at.address));
        assert_eq!(ask(&node.netns, VIP, 80).expect("host to service"), format!("two {}", one.at.gateway));
    };
    works(&node);
    for (program, breaking) in [
        ("nft", "flush ruleset"),
        ("ip", "link delete podbay0"),
        ("ip", "link set podbay0 down"),
        ("ip", "address flush dev podbay0"),
        ("ip", "route delete 10.96.0.0/16"),
    ] {
        if program == "nft" {
            node.netns.nft(breaking)
        } else {
            node.netns.ip(breaking)
        };
        assert!(node.sync().await, "{breaking}");
        works(&node);
    }
    node.netns.sysctl("net/ipv4/ip_forward", "0");
    assert!(node.sync().await);
    works(&node);
}

#[tokio::test]
async fn a_restart_finds_its_pods_and_forgets_the_dead() {
    let mut node = Node::new("10.80.1.0/24").await;
    let (one, dead) = (node.pod("one").await, node.pod("dead").await);
    // Names and hardware addresses: that a link is up is told a moment later.
    let words = |line: &str| {
        line.split_whitespace().filter(|word| !word.starts_with('<') && word.to_lowercase() == *word).collect::<Vec<_>>().join(" ")
    };
    let links_of = |netns: &Netns| netns.ip("-br link").lines().map(words).collect::<Vec<String>>();
    let links = links_of(&node.netns);
    node.network = open(&node.netns, &node.state);
    node.wanted.services = vec![];
    assert!(!node.sync().await, "it is as the one before left it");
    assert_eq!(node.network.attach("one", &one.netns.path()).await.expect("attach"), one.at);
    assert_eq!(links_of(&node.netns), links, "nothing was made anew");
    // A pod's namespace goes, and with it the link; nobody says so.
    drop(dead.netns);
    let deadline = std::time::Instant::now() + PATIENCE;
    while links_of(&node.netns).len() == links.len() {
        assert!(std::time::Instant::now() < deadline, "the link of a dead namespace stays");
    }
    node.network = open(&node.netns, &node.state);
    node.sync().await;
    assert_eq!(fs::read_dir(node.state.path().join("addresses")).expect("list").count(), 1);
    // The same pod in a new sandbox, while the old one is still there.
    let again = Netns::new();
    let at = node.network.attach("one", &again.path()).await.expect("attach");
    assert_eq!(at, one.at, "it keeps its address");
    let _server = Server::start(&again, "again", 8080);
    assert_eq!(ask(&node.netns, at.address, 8080).expect("the new one"), format!("again {}", at.gateway));
    assert!(!one.netns.ip("-br link").contains("eth0"), "the old one is cut off");
    // A namespace that is not one: no address is lost.
    node.network.attach("nowhere", "/proc/self/ns/pid".as_ref()).await.expect_err("not a network namespace");
    assert_eq!(fs::read_dir(node.state.path().join("addresses")).expect("list").count(), 1);
}

#[tokio::test]
async fn problems_are_named() {
    let mut node = Node::new("10.80.1.0/24").await;
    node.netns.sysctl("net/ipv4/conf/all/rp_filter", "0");
    assert_eq!(node.network.problems().await, Vec::<String>::new());
    node.netns.sysctl("net/ipv4/conf/all/rp_filter", "1");
    node.netns.nft("add table ip filter");
    node.netns.inside(|| {
        let chain = "{ type filter hook forward priority 0; policy drop; }";
        assert!(Command::new("nft").args(["add", "chain", "ip", "filter", "FORWARD", chain]).status().expect("nft").success());
    });
    node.netns.ip("address add 10.96.3.4/24 dev lo");
    node.sync().await;
    let problems = node.network.problems().await;
    for word in ["rp_filter", "chain FORWARD of table ip filter", "10.96.3.4/24"] {
        assert!(problems.iter().any(|problem| problem.contains(word)), "{word}: {problems:?}");
    }
    assert_eq!(problems.len(), 3, "{problems:?}");
}
