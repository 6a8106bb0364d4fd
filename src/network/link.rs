//! Links, addresses and routes by netlink, in the network namespace of the calling thread.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{AddressMessageBuilder, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::plan::{self, Found, Hop};
use super::{NetworkError, Range};

/// A link as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    pub kind: Option<InfoKind>,
    pub master: Option<u32>,
    pub mtu: u32,
    pub up: bool,
}

/// One netlink socket.
pub(super) struct Netlink {
    handle: Handle,
}

fn fail(attempt: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let attempt = attempt.into();
    move |error| match error {
        rtnetlink::Error::NetlinkError(message) => NetworkError::failed(attempt, message.to_io()),
        error => NetworkError::failed(attempt, error),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().raw_os_error(),
        _ => None,
    }
}

/// As in errno.h.
const ENODEV: i32 = 19;
const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;

impl Netlink {
    /// Opens a socket; must run inside a tokio runtime.
    pub fn open() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|cause| NetworkError::failed("open netlink", cause))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub async fn links(&self) -> Result<BTreeMap<String, Link>, NetworkError> {
        let mut stream = std::pin::pin!(self.handle.link().get().execute());
        let mut links = BTreeMap::new();
        while let Some(message) = stream.try_next().await.map_err(fail("list links"))? {
            let link = read(&message);
            links.insert(link.name.clone(), link);
        }
        Ok(links)
    }

    /// Makes a bridge that is up.
    pub async fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), NetworkError> {
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).up().build();
        self.handle.link().add(message).execute().await.map_err(fail(format!("make bridge {name}")))
    }

    pub async fn set_up(&self, link: &Link) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(link.index).up().build();
        self.handle.link().change(message).execute().await.map_err(fail(format!("set {} up", link.name)))
    }

    pub async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
        self.handle.link().change(message).execute().await.map_err(fail(format!("set the MTU of {}", link.name)))
    }

    pub async fn set_mac(&self, link: &Link, mac: [u8; 6]) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(link.index).address(mac.to_vec()).build();
        self.handle.link().change(message).execute().await.map_err(fail(format!("set the hardware address of {}", link.name)))
    }

    /// Makes a pair in one step: `host` here, up and in the bridge, `eth0` in the other namespace.
    pub async fn add_pair(&self, host: &str, bridge: &Link, netns: impl AsFd, mtu: u32) -> Result<(), NetworkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name("eth0").mtu(mtu).setns_by_fd(netns.as_fd().as_raw_fd()).build();
        let message =
            LinkVeth::new(host, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).controller(bridge.index).mtu(mtu).up().build();
        self.handle.link().add(message).execute().await.map_err(fail(format!("make link {host}")))
    }

    pub async fn set_master(&self, link: &Link, bridge: &Link) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(link.index).controller(bridge.index).up().build();
        let attempt = format!("put {} into {}", link.name, bridge.name);
        self.handle.link().change(message).execute().await.map_err(fail(attempt))?;
        self.set_hairpin(link).await
    }

    /// Lets a frame leave by the port it came in: on hosts that translate bridged frames a pod
    /// reaches itself that way.
    pub async fn set_hairpin(&self, port: &Link) -> Result<(), NetworkError> {
        let message = LinkBridgePort::new(port.index).hairpin(true).build();
        self.handle.link().set_port(message).execute().await.map_err(fail(format!("set hairpin mode of {}", port.name)))
    }

    /// No error when it is gone.
    pub async fn delete(&self, link: &Link) -> Result<(), NetworkError> {
        match self.handle.link().del(link.index).execute().await {
            Err(error) if errno(&error) == Some(ENODEV) => Ok(()),
            outcome => outcome.map_err(fail(format!("delete link {}", link.name))),
        }
    }

    /// IPv4 addresses by link index.
    pub async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr, u8)>, NetworkError> {
        let mut stream = std::pin::pin!(self.handle.address().get().execute());
        let mut found = Vec::new();
        while let Some(message) = stream.try_next().await.map_err(fail("list addresses"))? {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
                _ => None,
            });
            if let Some(address) = local {
                found.push((message.header.index, address, message.header.prefix_len));
            }
        }
        Ok(found)
    }

    pub async fn add_address(&self, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let attempt = format!("give {} address {address}/{prefix}", link.name);
        self.handle.address().add(link.index, address.into(), prefix).replace().execute().await.map_err(fail(attempt))
    }

    pub async fn delete_address(&self, link: &Link, address: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(link.index).address(address, prefix).build();
        match self.handle.address().del(message).execute().await {
            Err(error) if errno(&error) == Some(EADDRNOTAVAIL) => Ok(()),
            outcome => outcome.map_err(fail(format!("take address {address}/{prefix} from {}", link.name))),
        }
    }

    /// Routes with our origin in the main table: ours, and those of another node in the same namespace.
    pub async fn routes(&self) -> Result<Vec<Found>, NetworkError> {
        let mut stream = std::pin::pin!(self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute());
        let mut routes = Vec::new();
        while let Some(message) = stream.try_next().await.map_err(fail("list routes"))? {
            if message.header.protocol == RouteProtocol::from(plan::ROUTE_ORIGIN) {
                routes.extend(read_route(&message));
            }
        }
        Ok(routes)
    }

    /// The link by which the default route leaves.
    pub async fn default_link(&self) -> Result<Option<u32>, NetworkError> {
        let mut stream = std::pin::pin!(self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute());
        let mut found = None;
        while let Some(message) = stream.try_next().await.map_err(fail("list routes"))? {
            if message.header.destination_prefix_length == 0 && found.is_none() {
                found = message.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                });
            }
        }
        Ok(found)
    }

    pub async fn put_route(&self, range: Range, hop: Hop, bridge: u32) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.base, range.prefix)
            .protocol(RouteProtocol::from(plan::ROUTE_ORIGIN));
        let (route, way) = match hop {
            Hop::Via(via) => (route.gateway(via), format!("via {via} (nodes must reach each other without a router in between)")),
            Hop::Bridge(source) => {
                (route.output_interface(bridge).scope(RouteScope::Link).pref_source(source), "over the bridge".to_owned())
            }
        };
        self.handle.route().add(route.build()).replace().execute().await.map_err(fail(format!("route {range} {way}")))
    }

    pub async fn delete_route(&self, Found { range, link, .. }: Found) -> Result<(), NetworkError> {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(range.base, range.prefix)
            .output_interface(link)
            .protocol(RouteProtocol::from(plan::ROUTE_ORIGIN))
            .build();
        // "Nowhere" as scope of a deletion: any.
        route.header.scope = RouteScope::NoWhere;
        match self.handle.route().del(route).execute().await {
            Err(error) if errno(&error) == Some(ESRCH) => Ok(()),
            outcome => outcome.map_err(fail(format!("delete route {range}"))),
        }
    }

    /// The pod's only way: everything by the gateway, which is on the link itself.
    pub async fn set_pod_routes(&self, link: &Link, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let direct = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .output_interface(link.index)
            .scope(RouteScope::Link)
            .build();
        self.handle.route().add(direct).replace().execute().await.map_err(fail(format!("route {gateway} over eth0")))?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .gateway(gateway)
            .output_interface(link.index)
            .build();
        self.handle.route().add(default).replace().execute().await.map_err(fail("set the pod's default route"))
    }
}

fn read(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        master: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) if *index != 0 => link.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = Some(kind.clone());
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn read_route(message: &RouteMessage) -> Option<Found> {
    let mut base = Ipv4Addr::UNSPECIFIED;
    let mut link = 0;
    let mut via = None;
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => base = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Oif(index) => link = *index,
            _ => {}
        }
    }
    let hop = via.map(Hop::Via).or_else(|| source.map(Hop::Bridge))?;
    Some(Found { range: Range { base, prefix: message.header.destination_prefix_length }, hop, link })
}
