//! The few requests of `NETLINK_ROUTE` that a lab needs: veths, bridges, addresses, routes, counters.
//!
//! The driver of `russet-kernel` keeps what is *ours* equal to what is wanted; a lab makes the machines that
//! an agent then finds, so it says each thing once, in one namespace, and wants to hear of every refusal.
//! The numbers are of `linux/rtnetlink.h` and its neighbours.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use russet_kernel::netlink::{Attrs, Batch, Message, NetlinkError, Protocol, Socket, flags};
use russet_net::{Family, IfIndex, IfName, Mac, Mtu, Prefix};

/// A socket in one network namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

/// A link as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFact {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    /// `bridge`, `vxlan`, …; empty for a plain device.
    pub kind: String,
    /// `rx_packets` and its neighbours, in the words of `/sys/class/net/*/statistics`.
    pub counters: BTreeMap<&'static str, u64>,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressFact {
    pub index: u32,
    pub addr: IpAddr,
    pub len: u8,
}

/// A unicast route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFact {
    pub dst: Prefix,
    pub via: Option<IpAddr>,
    pub index: u32,
    pub protocol: u8,
    pub metric: u32,
}

/// Whether a link is to carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    Up,
    Down,
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    pub name: IfName,
    /// The namespace it is made in; the socket's own when none is given.
    pub space: Option<BorrowedFd<'a>>,
}

impl Rtnl {
    /// Opens a socket in the thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    pub fn add_bridge(&mut self, name: IfName) -> Result<(), NetlinkError> {
        self.add_link(name, "bridge")
    }

    /// Makes a link that needs nothing but its kind.
    pub fn add_link(&mut self, name: IfName, kind: &str) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .push(RTM_NEWLINK, CREATE, &link_header(0, 0, 0))
            .str(IFLA_IFNAME, name.as_str())
            .nest(IFLA_LINKINFO, |info| {
                info.str(IFLA_INFO_KIND, kind);
            });
        self.socket.request("add link", name, &mut batch)
    }

    /// Makes a VXLAN link on `port`, which sends to what its forwarding database says.
    pub fn add_vxlan(
        &mut self,
        name: IfName,
        vni: u32,
        from: (IfIndex, IpAddr),
    ) -> Result<(), NetlinkError> {
        let (under, local) = from;
        let mut batch = Batch::new();
        batch
            .push(RTM_NEWLINK, CREATE, &link_header(0, 0, 0))
            .str(IFLA_IFNAME, name.as_str())
            .nest(IFLA_LINKINFO, |info| {
                info.str(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |data| {
                    data.u32(IFLA_VXLAN_ID, vni)
                        .u32(IFLA_VXLAN_LINK, under.get())
                        .ip(
                            if local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 },
                            local,
                        )
                        .u8(IFLA_VXLAN_LEARNING, 0)
                        .u16_be(IFLA_VXLAN_PORT, VXLAN_PORT);
                });
            });
        self.socket.request("add link", name, &mut batch)
    }

    /// Makes both ends of a pair in one message (`VETH_INFO_PEER` in linux/veth.h).
    pub fn add_veth(
        &mut self,
        near: VethEnd<'_>,
        far: VethEnd<'_>,
        mtu: Mtu,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        let mut link = batch.push(RTM_NEWLINK, CREATE, &link_header(0, 0, 0));
        link.str(IFLA_IFNAME, near.name.as_str()).u32(IFLA_MTU, mtu.get());
        if let Some(space) = near.space {
            link.u32(IFLA_NET_NS_FD, fd_number(space));
        }
        link.nest(IFLA_LINKINFO, |info| {
            info.str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                let mut peer = Batch::new();
                let mut end = peer.push(0, 0, &link_header(0, 0, 0));
                end.str(IFLA_IFNAME, far.name.as_str()).u32(IFLA_MTU, mtu.get());
                if let Some(space) = far.space {
                    end.u32(IFLA_NET_NS_FD, fd_number(space));
                }
                drop(end);
                // The peer is a whole message without its nlmsghdr.
                data.bytes(VETH_INFO_PEER, peer.bytes().get(NLMSG_HEADER..).unwrap_or_default());
            });
        });
        drop(link);
        self.socket.request("add veth", near.name, &mut batch)
    }

    pub fn delete_link(&mut self, name: IfName) -> Result<(), NetlinkError> {
        let index = self.index_of(name)?;
        let mut batch = Batch::new();
        batch.push(RTM_DELLINK, flags::REQUEST | flags::ACK, &link_header(index.get(), 0, 0));
        self.socket.request("delete link", name, &mut batch)
    }

    pub fn set_carry(&mut self, name: IfName, carry: Carry) -> Result<(), NetlinkError> {
        let index = self.index_of(name)?;
        let up = if carry == Carry::Up { IFF_UP } else { 0 };
        let mut batch = Batch::new();
        batch.push(RTM_SETLINK, flags::REQUEST | flags::ACK, &link_header(index.get(), up, IFF_UP));
        self.socket.request("set link", name, &mut batch)
    }

    /// Makes `port` a port of `bridge`, or of none.
    pub fn set_master(&mut self, port: IfName, bridge: Option<IfName>) -> Result<(), NetlinkError> {
        let master = bridge.map_or(Ok(0), |name| self.index_of(name).map(IfIndex::get))?;
        let index = self.index_of(port)?;
        let mut batch = Batch::new();
        batch
            .push(RTM_SETLINK, flags::REQUEST | flags::ACK, &link_header(index.get(), 0, 0))
            .u32(IFLA_MASTER, master);
        self.socket.request("set master of", port, &mut batch)
    }

    pub fn set_mac(&mut self, name: IfName, mac: Mac) -> Result<(), NetlinkError> {
        let index = self.index_of(name)?;
        let mut batch = Batch::new();
        batch
            .push(RTM_SETLINK, flags::REQUEST | flags::ACK, &link_header(index.get(), 0, 0))
            .bytes(IFLA_ADDRESS, &mac.octets());
        self.socket.request("set address of", name, &mut batch)
    }

    /// Gives a link an address. IPv6 addresses come without duplicate address detection: nobody else is on
    /// this link, and the wait is two seconds.
    pub fn add_address(&mut self, name: IfName, addr: IpAddr, len: u8) -> Result<(), NetlinkError> {
        let index = self.index_of(name)?;
        let mut header = [family_number(Family::of(addr)), len, 0, 0, 0, 0, 0, 0];
        header[4..8].copy_from_slice(&index.get().to_ne_bytes());
        let mut batch = Batch::new();
        let mut message = batch.push(RTM_NEWADDR, CREATE, &header);
        message.ip(IFA_LOCAL, addr).ip(IFA_ADDRESS, addr);
        if addr.is_ipv6() {
            message.u32(IFA_FLAGS, IFA_F_NODAD);
        }
        drop(message);
        self.socket.request("add address", format_args!("{addr}/{len} to {name}"), &mut batch)
    }

    pub fn add_route(
        &mut self,
        dst: Prefix,
        via: Option<IpAddr>,
        link: Option<IfName>,
    ) -> Result<(), NetlinkError> {
        let index = link.map(|name| self.index_of(name)).transpose()?;
        let scope = if via.is_some() { 0 } else { RT_SCOPE_LINK };
        let onlink = if via.is_some() && index.is_some() { RTNH_F_ONLINK } else { 0 };
        let mut batch = Batch::new();
        let header = route_header(dst, scope, onlink);
        let mut message = batch.push(RTM_NEWROUTE, CREATE, &header);
        message.ip(RTA_DST, dst.addr());
        if let Some(via) = via {
            message.ip(RTA_GATEWAY, via);
        }
        if let Some(index) = index {
            message.u32(RTA_OIF, index.get());
        }
        drop(message);
        self.socket.request("add route", dst, &mut batch)
    }

    pub fn delete_route(&mut self, dst: Prefix) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        let mut header = route_header(dst, RT_SCOPE_NOWHERE, 0);
        // Any protocol, any type: the way `ip route del PREFIX` asks.
        header[5] = 0;
        header[7] = 0;
        batch.push(RTM_DELROUTE, flags::REQUEST | flags::ACK, &header).ip(RTA_DST, dst.addr());
        self.socket.request("delete route", dst, &mut batch)
    }

    /// Says once and for all where `addr` is on `name`.
    pub fn add_neighbour(
        &mut self,
        name: IfName,
        addr: IpAddr,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        let header = self.neighbour_header(family_number(Family::of(addr)), name, 0)?;
        let mut batch = Batch::new();
        batch
            .push(RTM_NEWNEIGH, CREATE_OR_REPLACE, &header)
            .ip(NDA_DST, addr)
            .bytes(NDA_LLADDR, &mac.octets());
        self.socket.request("add neighbour", addr, &mut batch)
    }

    /// Says behind which underlay address the VXLAN link `name` finds `mac`.
    pub fn add_fdb(&mut self, name: IfName, mac: Mac, at: IpAddr) -> Result<(), NetlinkError> {
        let header = self.neighbour_header(AF_BRIDGE, name, NTF_SELF)?;
        let mut batch = Batch::new();
        batch
            .push(RTM_NEWNEIGH, CREATE_OR_REPLACE, &header)
            .ip(NDA_DST, at)
            .bytes(NDA_LLADDR, &mac.octets());
        self.socket.request("add forwarding entry", mac, &mut batch)
    }

    fn neighbour_header(
        &mut self,
        family: u8,
        name: IfName,
        ntf: u8,
    ) -> Result<[u8; 12], NetlinkError> {
        let mut header = [0; 12];
        header[0] = family;
        header[4..8].copy_from_slice(&self.index_of(name)?.get().to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        header[10] = ntf;
        Ok(header)
    }

    pub fn index_of(&mut self, name: IfName) -> Result<IfIndex, NetlinkError> {
        let mut batch = Batch::new();
        batch
            .push(RTM_GETLINK, flags::REQUEST | flags::ACK, &link_header(0, 0, 0))
            .str(IFLA_IFNAME, name.as_str());
        let mut found = None;
        self.socket.request_with_reply("find link", name, &mut batch, |reply| {
            if reply.kind == RTM_NEWLINK {
                found = IfIndex::new(reply.u32(4));
            }
        })?;
        found.ok_or_else(|| NetlinkError::from(rustix::io::Errno::NODEV))
    }

    pub fn links(&mut self) -> Result<Vec<LinkFact>, NetlinkError> {
        let mut batch = Batch::new();
        batch.push(RTM_GETLINK, flags::REQUEST | flags::DUMP, &link_header(0, 0, 0));
        self.socket.dump("links", &mut batch, |found: &mut Vec<_>, message| {
            if message.kind == RTM_NEWLINK {
                found.push(link_fact(message));
            }
        })
    }

    pub fn addresses(&mut self) -> Result<Vec<AddressFact>, NetlinkError> {
        let mut batch = Batch::new();
        batch.push(RTM_GETADDR, flags::REQUEST | flags::DUMP, &[0; 8]);
        self.socket.dump("addresses", &mut batch, |found: &mut Vec<_>, message| {
            if message.kind == RTM_NEWADDR {
                found.extend(address_fact(message));
            }
        })
    }

    /// Lists the unicast routes of the main table, both families.
    pub fn routes(&mut self) -> Result<Vec<RouteFact>, NetlinkError> {
        let mut routes = Vec::new();
        for family in Family::BOTH {
            let mut header = [0; 12];
            header[0] = family_number(family);
            let mut batch = Batch::new();
            batch.push(RTM_GETROUTE, flags::REQUEST | flags::DUMP, &header);
            let found = self.socket.dump("routes", &mut batch, |found: &mut Vec<_>, message| {
                if message.kind == RTM_NEWROUTE {
                    found.extend(route_fact(message, family));
                }
            })?;
            routes.extend(found);
        }
        Ok(routes)
    }
}

fn link_fact(message: Message<'_>) -> LinkFact {
    let mut fact = LinkFact {
        index: message.u32(4),
        name: String::new(),
        mac: None,
        mtu: 0,
        kind: String::new(),
        counters: BTreeMap::new(),
    };
    for attr in message.attrs(16) {
        match attr.kind {
            IFLA_IFNAME => attr.str().clone_into(&mut fact.name),
            IFLA_ADDRESS => fact.mac = Mac::try_from(attr.value).ok(),
            IFLA_MTU => fact.mtu = attr.u32(),
            IFLA_LINKINFO => fact.kind = link_kind(attr.attrs()),
            IFLA_STATS64 => fact.counters = counters(attr.value),
            _ => {}
        }
    }
    fact
}

fn link_kind(info: Attrs<'_>) -> String {
    info.find(IFLA_INFO_KIND).map(|attr| attr.str().to_owned()).unwrap_or_default()
}

/// `struct rtnl_link_stats64`: numbers of 64 bits in this order.
fn counters(value: &[u8]) -> BTreeMap<&'static str, u64> {
    let numbers = value.as_chunks::<8>().0.iter().map(|octets| u64::from_ne_bytes(*octets));
    COUNTERS.into_iter().zip(numbers).collect()
}

fn address_fact(message: Message<'_>) -> Option<AddressFact> {
    let family = family_of(message.u8(0))?;
    let mut addr = None;
    for attr in message.attrs(8) {
        match attr.kind {
            // On a link to one peer IFA_ADDRESS is the peer's; IFA_LOCAL, where present, is ours.
            IFA_LOCAL => addr = ip(family, attr.value),
            IFA_ADDRESS => addr = addr.or(ip(family, attr.value)),
            _ => {}
        }
    }
    Some(AddressFact { index: message.u32(4), addr: addr?, len: message.u8(1) })
}

fn route_fact(message: Message<'_>, family: Family) -> Option<RouteFact> {
    let (len, table, protocol, kind) = (message.u8(1), message.u8(4), message.u8(5), message.u8(7));
    if table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let mut dst = family.unspecified();
    let (mut via, mut index, mut metric) = (None, 0, 0);
    for attr in message.attrs(12) {
        match attr.kind {
            RTA_DST => dst = ip(family, attr.value)?,
            RTA_GATEWAY => via = ip(family, attr.value),
            RTA_OIF => index = attr.u32(),
            RTA_PRIORITY => metric = attr.u32(),
            _ => {}
        }
    }
    Some(RouteFact { dst: Prefix::new(dst, len).ok()?, via, index, protocol, metric })
}

fn ip(family: Family, octets: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        Family::V6 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn link_header(index: u32, set: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&set.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn route_header(dst: Prefix, scope: u8, flags: u32) -> [u8; 12] {
    let family = family_number(dst.family());
    let mut header =
        [family, dst.len(), 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header
}

const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

const fn family_of(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// Descriptors in use are never negative.
fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// What the kernel calls a link's first ten counters.
pub const COUNTERS: [&str; 10] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
];

/// What Linux takes when nobody says a port, and what flannel therefore uses.
const VXLAN_PORT: u16 = 8_472;
const NLMSG_HEADER: usize = 16;
const CREATE: u16 = flags::REQUEST | flags::ACK | flags::CREATE | flags::EXCL;
const CREATE_OR_REPLACE: u16 = flags::REQUEST | flags::ACK | flags::CREATE | flags::REPLACE;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 0x1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
