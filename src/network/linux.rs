//! The kernel's network: one thread of its own does everything, in one network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rtnetlink::packet_route::link::InfoKind;
use rustix::thread::LinkNameSpaceType;
use tokio::sync::{mpsc, oneshot};

use super::ipam::Ipam;
use super::link::{Link, Netlink};
use super::nft::{self, Table};
use super::published::Ports;
use super::{
    Attachment, HostPort, NetworkError, NodeNetwork, PodNetwork, Published, Range, ServicePort, Wanted, conntrack, firewall, host, plan,
};

/// Where a node's own API listens unless it is told otherwise.
const NODE_API_PORT: u16 = 10250;

/// What is this node's own on the host.
#[derive(Clone, Debug)]
pub struct Options {
    pub bridge: String,
    /// Name of the nftables table (family `ip`).
    pub table: String,
    /// Kept over restarts.
    pub state_dir: PathBuf,
    /// Of the pods' links; `None`: that of the link of the default route, at most 1500.
    pub mtu: Option<u32>,
    /// TCP ports on which the daemon itself listens: no pod may have them.
    pub own_ports: Vec<u16>,
    /// Work in this network namespace rather than in the caller's.
    pub netns: Option<PathBuf>,
}

impl Options {
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let (bridge, table) = ("podbay0".into(), "podbay".into());
        Self { bridge, table, state_dir: state_dir.into(), mtu: None, own_ports: vec![NODE_API_PORT], netns: None }
    }
}

enum Job {
    Attach { pod: String, netns: PathBuf, answer: oneshot::Sender<Result<Attachment, NetworkError>> },
    Publish { pod: String, ports: Vec<HostPort>, answer: oneshot::Sender<Result<(), NetworkError>> },
    Detach { pod: String, answer: oneshot::Sender<Result<(), NetworkError>> },
    Sync { wanted: Box<Wanted>, answer: oneshot::Sender<Result<bool, NetworkError>> },
    Problems { answer: oneshot::Sender<Vec<String>> },
    RemoveAll { answer: oneshot::Sender<Result<(), NetworkError>> },
}

/// The node's network. Cheap to clone; one a node.
#[derive(Clone)]
pub struct Linux {
    jobs: Arc<mpsc::UnboundedSender<Job>>,
}

impl Linux {
    /// Starts the thread, in the network namespace of the calling thread (or [`Options::netns`]).
    /// Changes nothing on the host.
    ///
    /// # Errors
    /// When the state directory, the namespace or netlink cannot be used.
    pub fn open(options: Options) -> Result<Self, NetworkError> {
        let fail = |cause: std::io::Error| NetworkError::failed("start the network thread", cause);
        let (jobs, inbox) = mpsc::unbounded_channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let work = move || {
            let setup = || -> Result<_, NetworkError> {
                if let Some(path) = &options.netns {
                    enter(path)?;
                }
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
                let _inside = runtime.enter();
                let netlink = Netlink::open()?;
                let worker = Worker::new(options, netlink)?;
                drop(_inside);
                Ok((runtime, worker))
            };
            match setup() {
                Ok((runtime, worker)) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(worker.run(inbox));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        std::thread::Builder::new().name("network".into()).spawn(work).map_err(fail)?;
        started.recv().map_err(|cause| NetworkError::failed("start the network thread", cause))??;
        Ok(Self { jobs: Arc::new(jobs) })
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, NetworkError> {
        let (answer, result) = oneshot::channel();
        let ended = || NetworkError::failed("ask the network thread", "it has ended");
        self.jobs.send(job(answer)).map_err(|_| ended())?;
        result.await.map_err(|_| ended())
    }
}

#[async_trait]
impl PodNetwork for Linux {
    async fn attach(&self, sandbox: &str, netns: &Path) -> Result<Attachment, NetworkError> {
        self.ask(|answer| Job::Attach { pod: sandbox.to_owned(), netns: netns.to_owned(), answer }).await?
    }

    async fn publish(&self, sandbox: &str, ports: &[HostPort]) -> Result<(), NetworkError> {
        self.ask(|answer| Job::Publish { pod: sandbox.to_owned(), ports: ports.to_vec(), answer }).await?
    }

    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        self.ask(|answer| Job::Detach { pod: sandbox.to_owned(), answer }).await?
    }
}

#[async_trait]
impl NodeNetwork for Linux {
    async fn sync(&self, wanted: &Wanted) -> Result<bool, NetworkError> {
        self.ask(|answer| Job::Sync { wanted: Box::new(wanted.clone()), answer }).await?
    }

    async fn problems(&self) -> Vec<String> {
        self.ask(|answer| Job::Problems { answer }).await.unwrap_or_else(|error| vec![error.to_string()])
    }

    async fn remove_all(&self) -> Result<(), NetworkError> {
        self.ask(|answer| Job::RemoveAll { answer }).await?
    }
}

/// The thread's own.
struct Worker {
    options: Options,
    netlink: Netlink,
    table: Table,
    ipam: Ipam,
    ports: Ports,
    wanted: Wanted,
    /// Of the last sync.
    complaint: Option<String>,
    settled: bool,
    /// The rules may still lead to addresses that are given back: none is given out before they follow.
    behind: bool,
    /// We have opened the bridge to the loopback's addresses; where another's network plugin did, that is its own affair.
    opened: bool,
    /// The UDP Services and host ports whose stale flows were last forgotten.
    flows_of: Option<(Vec<ServicePort>, Vec<Published>)>,
}

impl Worker {
    fn new(options: Options, netlink: Netlink) -> Result<Self, NetworkError> {
        let ipam = Ipam::open(&options.state_dir.join("addresses"))?;
        let ports = Ports::open(&options.state_dir.join("host-ports"))?;
        let table = Table::new(options.table.clone());
        // What was written down before a crash may not be in the rules yet.
        let behind = ports.pods().next().is_some();
        let wanted = Wanted::default();
        Ok(Self { options, netlink, table, ipam, ports, wanted, complaint: None, settled: false, behind, opened: false, flows_of: None })
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = inbox.recv().await {
            // Whoever asked may be gone; the work is done all the same.
            match job {
                Job::Attach { pod, netns, answer } => drop(answer.send(self.attach(&pod, &netns).await)),
                Job::Publish { pod, ports, answer } => drop(answer.send(self.publish(&pod, &ports).await)),
                Job::Detach { pod, answer } => drop(answer.send(self.detach(&pod).await)),
                Job::Sync { wanted, answer } => {
                    self.wanted = *wanted;
                    let outcome = self.sync().await;
                    // A node that cannot be reached is no fault of this one's network.
                    let own = outcome.as_ref().err().filter(|error| !matches!(error, NetworkError::Routes(_)));
                    self.complaint = own.map(ToString::to_string);
                    drop(answer.send(outcome));
                }
                Job::Problems { answer } => drop(answer.send(self.problems().await)),
                Job::RemoveAll { answer } => drop(answer.send(self.remove_all().await)),
            }
        }
    }

    /// After a start: addresses whose link is gone (a reboot, a crash half way) are free.
    async fn settle(&mut self) -> Result<(), NetworkError> {
        if !self.settled {
            let links = self.netlink.links().await?;
            self.free_others(&links)?;
            self.settled = true;
        }
        Ok(())
    }

    /// Gives back the addresses of pods without a link.
    fn free_others(&mut self, links: &BTreeMap<String, Link>) -> Result<(), NetworkError> {
        self.behind |= self.ports.pods().any(|(pod, _)| !links.contains_key(&plan::host_link(pod)));
        self.ipam.free_others(|pod| links.contains_key(&plan::host_link(pod)))
    }

    /// Gives a pod its address, the rules having let go of those given back.
    async fn take(&mut self, pod: &str, range: Range, links: &BTreeMap<String, Link>) -> Result<Ipv4Addr, NetworkError> {
        self.catch_up().await?;
        let before = self.ipam.address(pod);
        let mut taken = self.ipam.take(pod, range);
        // The one it had was of another range.
        self.behind |= before.is_some() && before != self.ipam.address(pod) && self.publishes(pod);
        if matches!(taken, Err(NetworkError::Exhausted(_))) {
            self.free_others(links)?;
            self.catch_up().await?;
            taken = self.ipam.take(pod, range);
        }
        taken
    }

    fn publishes(&self, pod: &str) -> bool {
        self.ports.pods().any(|(other, _)| other == pod)
    }

    async fn attach(&mut self, pod: &str, netns_path: &Path) -> Result<Attachment, NetworkError> {
        self.settle().await?;
        let range = self.wanted.pod_range.ok_or(NetworkError::NoRange)?;
        let gateway = plan::gateway(range).ok_or_else(|| NetworkError::Exhausted(range.to_string()))?;
        let netns = File::open(netns_path).map_err(|cause| NetworkError::failed(format!("open {}", netns_path.display()), cause))?;
        let mut links = self.netlink.links().await?;
        if !links.get(&self.options.bridge).is_some_and(|bridge| bridge.kind == Some(InfoKind::Bridge)) {
            self.sync_bridge(range).await?;
            links = self.netlink.links().await?;
            self.behind = true;
        }
        let missing = || NetworkError::failed("attach a pod", format!("bridge {} is gone", self.options.bridge));
        let bridge = links.get(&self.options.bridge).ok_or_else(missing)?.clone();
        let address = self.take(pod, range, &links).await?;
        let attachment = Attachment { address, gateway };
        let name = plan::host_link(pod);
        if let Some(old) = links.get(&name) {
            if in_netns(&netns, move |inside| async move { is_attached(&inside, attachment).await }).await? {
                return Ok(attachment);
            }
            // Of an earlier sandbox, or half made.
            self.netlink.delete(old).await?;
        }
        let made = self.make_pair(&name, &bridge, &netns, attachment).await;
        if made.is_err() {
            if let Some(half) = self.netlink.links().await?.get(&name) {
                self.netlink.delete(half).await?;
            }
            self.behind |= self.publishes(pod);
            self.ipam.free(pod)?;
        }
        made.map(|()| attachment)
    }

    async fn make_pair(&self, name: &str, bridge: &Link, netns: &File, attachment: Attachment) -> Result<(), NetworkError> {
        self.netlink.add_pair(name, bridge, netns, bridge.mtu).await?;
        if let Some(link) = self.netlink.links().await?.get(name) {
            self.netlink.set_hairpin(link).await?;
        }
        in_netns(netns, move |inside| async move { configure_pod(&inside, attachment).await }).await
    }

    async fn publish(&mut self, pod: &str, ports: &[HostPort]) -> Result<(), NetworkError> {
        if !ports.is_empty() && self.ipam.address(pod).is_none() {
            return Err(NetworkError::failed("publish the ports of a pod", "it is not attached"));
        }
        if let Some(port) = plan::first_own(ports, &self.options.own_ports) {
            return Err(NetworkError::OwnPort(port.host_port));
        }
        let ipam = &self.ipam;
        // It is written down before it is in the rules: whoever asks again finds no change there.
        self.behind |= self.ports.put(pod, ports, |other| ipam.address(other).is_some())?;
        self.catch_up().await.map_err(|cause| about_ports(pod, ports, &cause))
    }

    /// Before the first sync after a start it is not known what else the rules have to say; then they follow.
    async fn catch_up(&mut self) -> Result<(), NetworkError> {
        if self.behind && self.wanted.pod_range.is_some() {
            self.sync_rules().await?;
        }
        Ok(())
    }

    /// Services and host ports.
    async fn sync_rules(&mut self) -> Result<bool, NetworkError> {
        let of_pods = self.ports.pods().filter_map(|(pod, port)| Some(Published { address: self.ipam.address(pod)?, port: port.clone() }));
        self.wanted.published = of_pods.collect();
        let applied = self.table.apply(plan::ruleset(&self.wanted, &self.options.bridge));
        // After the rules, which guard it; without them it is closed, who ever opened it for these ports.
        let wanted = plan::publishes_on_loopback(&self.wanted);
        let open = wanted && applied.is_ok();
        let mut changed = false;
        if wanted || self.opened {
            changed = host::route_loopback(&self.options.bridge, open);
            self.opened = open;
        }
        changed |= applied?;
        self.behind = false;
        self.sync_flows().await;
        Ok(changed)
    }

    async fn detach(&mut self, pod: &str) -> Result<(), NetworkError> {
        // Whatever nft says of the rules, nothing of the pod goes on.
        if let Some(link) = self.netlink.links().await?.get(&plan::host_link(pod)) {
            self.netlink.delete(link).await?;
        }
        // Before its address may be another's.
        self.publish(pod, &[]).await?;
        self.ipam.free(pod)
    }

    async fn sync(&mut self) -> Result<bool, NetworkError> {
        self.settle().await?;
        let mut changed = false;
        if let Some(range) = self.wanted.pod_range {
            changed |= host::forward(&self.options.state_dir)?;
            changed |= self.sync_bridge(range).await?;
            changed |= self.sync_ports().await?;
        }
        // Services first: one node that cannot be reached must not keep them from the others.
        changed |= self.sync_rules().await?;
        changed |= self.sync_routes().await?;
        Ok(changed)
    }

    /// The name of the link of the default route.
    async fn uplink(&self) -> Option<String> {
        let index = self.netlink.default_link().await.ok().flatten()?;
        self.netlink.links().await.ok()?.into_values().find(|link| link.index == index).map(|link| link.name)
    }

    /// `None`: nothing says so at the moment.
    async fn mtu(&self, links: &BTreeMap<String, Link>) -> Result<Option<u32>, NetworkError> {
        if self.options.mtu.is_some() {
            return Ok(self.options.mtu);
        }
        let uplink = self.netlink.default_link().await?;
        Ok(links.values().find(|link| Some(link.index) == uplink).map(|link| link.mtu.min(1500)))
    }

    async fn sync_bridge(&self, range: Range) -> Result<bool, NetworkError> {
        let name = &self.options.bridge;
        let gateway = plan::gateway(range).ok_or_else(|| NetworkError::Exhausted(range.to_string()))?;
        let mac = plan::bridge_mac(gateway);
        let links = self.netlink.links().await?;
        let mtu = self.mtu(&links).await?;
        let mut changed = false;
        let bridge = match links.get(name) {
            Some(link) if link.kind == Some(InfoKind::Bridge) => link.clone(),
            Some(_) => return Err(NetworkError::failed(format!("make bridge {name}"), "there is another link of that name")),
            None => {
                self.netlink.add_bridge(name, mac, mtu.unwrap_or(1500)).await?;
                host::ignore_router_advertisements(name);
                changed = true;
                let missing = || NetworkError::failed(format!("make bridge {name}"), "it is gone again");
                self.netlink.links().await?.remove(name).ok_or_else(missing)?
            }
        };
        if !bridge.up {
            self.netlink.set_up(&bridge).await?;
            changed = true;
        }
        if let Some(mtu) = mtu.filter(|mtu| *mtu != bridge.mtu) {
            // Pods that are there keep theirs: the kernel tells them where it is too much.
            self.netlink.set_mtu(&bridge, mtu).await?;
            changed = true;
        }
        let addresses = self.netlink.addresses().await?;
        let own = addresses.iter().filter(|(index, ..)| *index == bridge.index);
        let mut there = false;
        for (_, address, prefix) in own {
            if (*address, *prefix) == (gateway, range.prefix) {
                there = true;
            } else {
                self.netlink.delete_address(&bridge, *address, *prefix).await?;
                changed = true;
            }
        }
        if !there {
            self.netlink.set_mac(&bridge, mac).await?;
            self.netlink.add_address(&bridge, gateway, range.prefix).await?;
            changed = true;
        }
        Ok(changed)
    }

    /// Puts pods' links back into the bridge if somebody took it away and it was made anew.
    async fn sync_ports(&self) -> Result<bool, NetworkError> {
        let links = self.netlink.links().await?;
        let Some(bridge) = links.get(&self.options.bridge) else { return Ok(false) };
        let mut changed = false;
        for (pod, _) in self.ipam.pods() {
            if let Some(link) = links.get(&plan::host_link(pod))
                && link.master != Some(bridge.index)
            {
                self.netlink.set_master(link, bridge).await?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn routes_file(&self) -> PathBuf {
        self.options.state_dir.join("routes")
    }

    /// Ranges of the routes to other nodes that this node made.
    fn written_down(&self) -> BTreeSet<Range> {
        let text = std::fs::read_to_string(self.routes_file()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn write_down(&self, ranges: &BTreeSet<Range>) -> Result<(), NetworkError> {
        let text: String = ranges.iter().map(|range| format!("{range}\n")).collect();
        let next = self.options.state_dir.join("routes.new");
        let write = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, self.routes_file()));
        write.map_err(|cause| NetworkError::failed("write down the routes of this node", cause))
    }

    /// Routes of this node, and those of others like it.
    async fn routes(&self) -> Result<(Vec<plan::Found>, Vec<plan::Found>), NetworkError> {
        let bridge = self.netlink.links().await?.get(&self.options.bridge).map(|bridge| bridge.index);
        Ok(plan::own_routes(self.netlink.routes().await?, bridge, &self.written_down()))
    }

    async fn sync_routes(&self) -> Result<bool, NetworkError> {
        let wanted = plan::routes(&self.wanted);
        let (own, _) = self.routes().await?;
        let seen = own.iter().map(|route| (route.range, route.hop)).collect();
        let (remove, put) = plan::route_steps(&seen, &wanted);
        let changed = !remove.is_empty() || !put.is_empty();
        let to_others = wanted.iter().filter(|(_, hop)| matches!(hop, plan::Hop::Via(_))).map(|(range, _)| *range).collect::<BTreeSet<_>>();
        let written_down = self.written_down();
        if !to_others.is_subset(&written_down) {
            // Before they are there: what a crash leaves is still ours.
            self.write_down(&to_others.union(&written_down).copied().collect())?;
        }
        for route in own.into_iter().filter(|route| remove.contains(&route.range)) {
            self.netlink.delete_route(route).await?;
        }
        let links = self.netlink.links().await?;
        let mut failed = Vec::new();
        for (range, hop) in put {
            let outcome = match (hop, links.get(&self.options.bridge)) {
                (plan::Hop::Bridge(_), None) => continue,
                (hop, bridge) => self.netlink.put_route(range, hop, bridge.map_or(0, |bridge| bridge.index)).await,
            };
            failed.extend(outcome.err().map(|error| error.to_string()));
        }
        if self.written_down() != to_others {
            self.write_down(&to_others)?;
        }
        if failed.is_empty() { Ok(changed) } else { Err(NetworkError::Routes(failed.join("; "))) }
    }

    /// After the rules: what they no longer say goes on in flows that were translated before.
    async fn sync_flows(&mut self) {
        let udp = |protocol: &str| protocol.eq_ignore_ascii_case("UDP");
        let services = self.wanted.services.iter().filter(|it| udp(&it.protocol)).cloned().collect();
        let published = self.wanted.published.iter().filter(|it| udp(&it.port.protocol)).cloned().collect();
        let ports = (services, published);
        if self.flows_of.as_ref() == Some(&ports) {
            return;
        }
        let local = self.netlink.addresses().await.map(|all| all.into_iter().map(|(_, address, _)| address).collect());
        match local.and_then(|local| conntrack::forget_stale(&self.wanted, &local)) {
            Ok(count) => {
                if count > 0 {
                    tracing::debug!(count, "forgot UDP flows to endpoints that are gone");
                }
                self.flows_of = Some(ports);
            }
            // Tried again with the next sync; a kernel that cannot list its flows serves TCP all the same.
            Err(error) => tracing::warn!(%error, "UDP senders may go on to endpoints that are gone"),
        }
    }

    async fn problems(&self) -> Vec<String> {
        let mut problems = host::problems(self.uplink().await.as_deref());
        if nft::is_there() {
            let note = firewall::note(host::filters_bridged_frames());
            match nft::foreign_drops(&self.options.table, &self.options.bridge, note) {
                Ok(drops) => problems.extend(drops),
                Err(error) => problems.push(error.to_string()),
            }
        } else {
            problems.push(NetworkError::NoNft.to_string());
        }
        match self.overlaps().await {
            Ok(overlaps) => problems.extend(overlaps),
            Err(error) => problems.push(error.to_string()),
        }
        problems.extend(self.complaint.clone());
        problems
    }

    /// Addresses of the host inside ranges that are ours.
    async fn overlaps(&self) -> Result<Vec<String>, NetworkError> {
        let links = self.netlink.links().await?;
        let own = links.get(&self.options.bridge).map(|bridge| bridge.index);
        let mut overlaps = Vec::new();
        for (index, address, prefix) in self.netlink.addresses().await? {
            let ranges = [("pod", self.wanted.cluster_range), ("service", self.wanted.service_range)];
            for (what, range) in ranges.into_iter().filter_map(|(what, range)| Some((what, range?))) {
                if Some(index) != own && range.contains(address.into()) {
                    overlaps.push(format!(
                        "this host's address {address}/{prefix} is inside the {what} range {range}: choose another {what} range"
                    ));
                }
            }
        }
        Ok(overlaps)
    }

    async fn remove_all(&mut self) -> Result<(), NetworkError> {
        if nft::is_there() {
            self.table.remove()?;
        }
        let (own, others) = self.routes().await?;
        for route in own {
            self.netlink.delete_route(route).await?;
        }
        if !self.written_down().is_empty() {
            self.write_down(&BTreeSet::new())?;
        }
        let links = self.netlink.links().await?;
        let bridge = links.get(&self.options.bridge).filter(|link| link.kind == Some(InfoKind::Bridge));
        let known: Vec<String> = self.ipam.pods().map(|(pod, _)| plan::host_link(pod)).collect();
        for link in links.values().filter(|link| link.kind == Some(InfoKind::Veth) && link.name.starts_with(plan::LINK_PREFIX)) {
            let ours = bridge.is_some_and(|bridge| link.master == Some(bridge.index)) || known.contains(&link.name);
            if ours {
                self.netlink.delete(link).await?;
            }
        }
        if let Some(bridge) = bridge {
            self.netlink.delete(bridge).await?;
        }
        self.ipam.free_others(|_| false)?;
        self.ports.put("", &[], |_| false)?;
        self.behind = false;
        let needs = |link: &&Link| {
            let carries = [InfoKind::Bridge, InfoKind::Tun, InfoKind::Wireguard, InfoKind::Vxlan].map(Some).contains(&link.kind);
            carries && link.up && link.name != self.options.bridge
        };
        let other_node = others.first().map(|route| format!("the route {} of another node", route.range));
        let needed_by = other_node.or_else(|| links.values().find(needs).map(|link| format!("link {}", link.name)));
        host::forward_as_before(&self.options.state_dir, needed_by.as_deref())?;
        self.wanted = Wanted::default();
        Ok(())
    }
}

/// Whether the pod's end is as it should be.
/// What went wrong, with the ports that were asked for.
fn about_ports(pod: &str, ports: &[HostPort], cause: &NetworkError) -> NetworkError {
    if ports.is_empty() {
        return NetworkError::failed(format!("take back the host ports of sandbox {pod}"), cause);
    }
    let named: Vec<String> = ports.iter().map(|port| format!("{}/{}", port.host_port, port.protocol)).collect();
    NetworkError::failed(format!("publish host ports {} of sandbox {pod}", named.join(", ")), cause)
}

async fn is_attached(inside: &Netlink, attachment: Attachment) -> Result<bool, NetworkError> {
    let Some(link) = inside.links().await?.remove("eth0") else { return Ok(false) };
    let addresses = inside.addresses().await?;
    let there = addresses.contains(&(link.index, attachment.address, 32));
    Ok(there && link.up && inside.default_link().await? == Some(link.index))
}

async fn configure_pod(inside: &Netlink, attachment: Attachment) -> Result<(), NetworkError> {
    let links = inside.links().await?;
    if let Some(lo) = links.get("lo") {
        inside.set_up(lo).await?;
    }
    let eth0 = links.get("eth0").ok_or_else(|| NetworkError::failed("set up the pod's network", "eth0 is not there"))?;
    inside.add_address(eth0, attachment.address, 32).await?;
    inside.set_up(eth0).await?;
    inside.set_pod_routes(eth0, attachment.gateway).await
}

/// Runs with a netlink socket of another network namespace, on a thread that goes there and ends
/// there: no thread of a pool is ever in a pod's namespace.
async fn in_netns<T, W>(netns: &File, work: impl FnOnce(Netlink) -> W + Send + 'static) -> Result<T, NetworkError>
where
    T: Send + 'static,
    W: Future<Output = Result<T, NetworkError>>,
{
    let fail = |cause: std::io::Error| NetworkError::failed("enter the pod's network namespace", cause);
    let netns = netns.try_clone().map_err(fail)?;
    let (answer, result) = oneshot::channel();
    let run = move || {
        let inside = || -> Result<T, NetworkError> {
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network))
                .map_err(|errno| fail(errno.into()))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
            runtime.block_on(async { work(Netlink::open()?).await })
        };
        let _ = answer.send(inside());
    };
    std::thread::Builder::new().name("pod-network".into()).spawn(run).map_err(fail)?;
    result.await.map_err(|cause| NetworkError::failed("enter the pod's network namespace", cause))?
}

fn enter(path: &Path) -> Result<(), NetworkError> {
    let fail = |cause: std::io::Error| NetworkError::failed(format!("enter network namespace {}", path.display()), cause);
    let netns = File::open(path).map_err(fail)?;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&netns), Some(LinkNameSpaceType::Network))
        .map_err(|errno| fail(errno.into()))
}
