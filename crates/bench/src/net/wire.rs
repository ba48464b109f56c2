//! The messages of rtnetlink that a hand would send, each the shortest that does its work.
//!
//! Layouts and numbers are those of `linux/rtnetlink.h`, `if_link.h`, `neighbour.h` and `nexthop.h`. Links
//! are known by index here, as on the wire.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use russet_kernel::netlink::{Batch, Writer, flags};
use russet_net::Mac;

/// A pair of connected links, the second of which may be born in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub master: Option<u32>,
    pub mtu: u32,
    pub peer: &'a str,
    pub peer_mac: Option<Mac>,
    pub peer_namespace: Option<BorrowedFd<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub mtu: u32,
    pub vni: u32,
    pub local: Ipv4Addr,
    pub underlay: u32,
    pub port: u16,
}

/// An IPv4 prefix, base address and length in bits.
pub type Net = (Ipv4Addr, u8);

const CREATE: u16 = flags::CREATE | flags::EXCL;

pub fn veth(batch: &mut Batch, veth: &Veth<'_>) {
    let mut message = batch.push(RTM_NEWLINK, CREATE, &ifinfo(0, Admin::Up));
    message.str(IFLA_IFNAME, veth.name).u32(IFLA_MTU, veth.mtu);
    if let Some(master) = veth.master {
        message.u32(IFLA_MASTER, master);
    }
    kind(&mut message, "veth", |data| {
        data.nest_plain(VETH_INFO_PEER, &ifinfo(0, Admin::Keep), |peer| {
            peer.str(IFLA_IFNAME, veth.peer).u32(IFLA_MTU, veth.mtu);
            if let Some(mac) = veth.peer_mac {
                peer.bytes(IFLA_ADDRESS, &mac.octets());
            }
            if let Some(namespace) = veth.peer_namespace {
                peer.u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
            }
        });
    });
}

pub fn bridge(batch: &mut Batch, name: &str, mac: Mac, mtu: u32) {
    let mut message = batch.push(RTM_NEWLINK, CREATE, &ifinfo(0, Admin::Up));
    message.str(IFLA_IFNAME, name).u32(IFLA_MTU, mtu).bytes(IFLA_ADDRESS, &mac.octets());
    kind(&mut message, "bridge", |_| {});
}

pub fn vxlan(batch: &mut Batch, vxlan: &Vxlan<'_>) {
    let mut message = batch.push(RTM_NEWLINK, CREATE, &ifinfo(0, Admin::Up));
    message.str(IFLA_IFNAME, vxlan.name).u32(IFLA_MTU, vxlan.mtu);
    message.bytes(IFLA_ADDRESS, &vxlan.mac.octets());
    kind(&mut message, "vxlan", |data| {
        data.u32(IFLA_VXLAN_ID, vxlan.vni)
            .ip(IFLA_VXLAN_LOCAL, vxlan.local.into())
            .u32(IFLA_VXLAN_LINK, vxlan.underlay)
            .u16_be(IFLA_VXLAN_PORT, vxlan.port)
            .u8(IFLA_VXLAN_LEARNING, 0);
    });
}

/// Lets frames leave a bridge's port by the port that they came in by.
pub fn hairpin(batch: &mut Batch, index: u32) {
    // RTM_SETLINK would take it and ignore it.
    let mut message = batch.push(RTM_NEWLINK, 0, &ifinfo(index, Admin::Keep));
    message.nest(IFLA_LINKINFO, |info| {
        info.str(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |port| {
            port.u8(IFLA_BRPORT_MODE, 1);
        });
    });
}

pub fn admin(batch: &mut Batch, index: u32, admin: Admin) {
    batch.push(RTM_NEWLINK, 0, &ifinfo(index, admin));
}

pub fn set_mac(batch: &mut Batch, index: u32, mac: Mac) {
    let mut message = batch.push(RTM_NEWLINK, 0, &ifinfo(index, Admin::Keep));
    message.bytes(IFLA_ADDRESS, &mac.octets());
}

pub fn delete_link(batch: &mut Batch, index: u32) {
    batch.push(RTM_DELLINK, 0, &ifinfo(index, Admin::Keep));
}

pub fn get_link(batch: &mut Batch, name: &str) {
    batch.push(RTM_GETLINK, 0, &ifinfo(0, Admin::Keep)).str(IFLA_IFNAME, name);
}

/// The MAC address that the bridge plugin derives from an address, so that it is stable.
pub fn mac_of(addr: Ipv4Addr) -> Mac {
    let [a, b, c, d] = addr.octets();
    Mac::local([0x0a, 0x58, a, b, c, d])
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Add,
    Remove,
}

impl Act {
    /// The pair of messages is numbered so that the removal follows the addition.
    const fn of(self, add: u16) -> (u16, u16) {
        match self {
            Self::Add => (add, CREATE),
            Self::Remove => (add + 1, 0),
        }
    }
}

pub fn address(batch: &mut Batch, act: Act, index: u32, (addr, len): Net) {
    let (kind, flags) = act.of(RTM_NEWADDR);
    let [a, b, c, d] = index.to_ne_bytes();
    let mut message = batch.push(kind, flags, &[AF_INET, len, 0, 0, a, b, c, d]);
    message.ip(IFA_LOCAL, addr.into()).ip(IFA_ADDRESS, addr.into());
    if len < 31 {
        let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
        message.ip(IFA_BROADCAST, Ipv4Addr::from_bits(addr.to_bits() | host).into());
    }
}

/// How a route reaches its gateway.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    Gateway(Ipv4Addr, u32),
    /// The gateway is taken to be on the link although no route says so.
    Onlink(Ipv4Addr, u32),
    /// A next-hop object.
    Object(u32),
}

pub fn route(batch: &mut Batch, net: Net, via: Via) {
    route_by(batch, PROTOCOL_BOOT, net, via);
}

/// A route as a routing daemon lays it.
pub fn foreign_route(batch: &mut Batch, net: Net, via: Via) {
    route_by(batch, PROTOCOL_BIRD, net, via);
}

fn route_by(batch: &mut Batch, protocol: u8, (dst, len): Net, via: Via) {
    let onlink = if matches!(via, Via::Onlink(..)) { RTNH_F_ONLINK } else { 0 };
    let [a, b, c, d] = onlink.to_ne_bytes();
    let fixed = [AF_INET, len, 0, 0, TABLE_MAIN, protocol, SCOPE_UNIVERSE, UNICAST, a, b, c, d];
    let mut message = batch.push(RTM_NEWROUTE, CREATE, &fixed);
    if len > 0 {
        message.ip(RTA_DST, dst.into());
    }
    match via {
        Via::Object(id) => message.u32(RTA_NH_ID, id),
        Via::Gateway(gateway, index) | Via::Onlink(gateway, index) => {
            message.ip(RTA_GATEWAY, gateway.into()).u32(RTA_OIF, index)
        }
    };
}

/// A route onto a link, to whom is there.
pub fn link_route(batch: &mut Batch, (dst, len): Net, index: u32) {
    let fixed = [AF_INET, len, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, SCOPE_LINK, UNICAST, 0, 0, 0, 0];
    batch.push(RTM_NEWROUTE, CREATE, &fixed).ip(RTA_DST, dst.into()).u32(RTA_OIF, index);
}

/// Removes the route to a prefix in the main table, whoever made it and however it goes there.
pub fn delete_route(batch: &mut Batch, (dst, len): Net) {
    let fixed = [AF_INET, len, 0, 0, TABLE_MAIN, 0, SCOPE_NOWHERE, 0, 0, 0, 0, 0];
    batch.push(RTM_DELROUTE, 0, &fixed).ip(RTA_DST, dst.into());
}

pub fn next_hop(batch: &mut Batch, id: u32, gateway: Ipv4Addr, index: u32) {
    let [a, b, c, d] = RTNH_F_ONLINK.to_ne_bytes();
    let fixed = [AF_INET, 0, PROTOCOL_BOOT, 0, a, b, c, d];
    let mut message = batch.push(RTM_NEWNEXTHOP, CREATE, &fixed);
    message.u32(NHA_ID, id).u32(NHA_OIF, index).ip(NHA_GATEWAY, gateway.into());
}

pub fn delete_next_hop(batch: &mut Batch, id: u32) {
    batch.push(RTM_NEWNEXTHOP + 1, 0, &[0; 8]).u32(NHA_ID, id);
}

pub fn neighbour(batch: &mut Batch, act: Act, index: u32, ip: Ipv4Addr, mac: Mac) {
    let (kind, flags) = act.of(RTM_NEWNEIGH);
    let mut message = batch.push(kind, flags, &ndmsg(AF_INET, index, 0));
    message.ip(NDA_DST, ip.into()).bytes(NDA_LLADDR, &mac.octets());
}

/// An entry of a VXLAN link: behind which VTEP a MAC is.
pub fn fdb(batch: &mut Batch, act: Act, index: u32, mac: Mac, vtep: Ipv4Addr) {
    let (kind, flags) = act.of(RTM_NEWNEIGH);
    let mut message = batch.push(kind, flags, &ndmsg(AF_BRIDGE, index, NTF_SELF));
    message.bytes(NDA_LLADDR, &mac.octets()).ip(NDA_DST, IpAddr::V4(vtep));
}

/// Whether a link is to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    Up,
    Down,
    Keep,
}

/// `struct ifinfomsg`
fn ifinfo(index: u32, admin: Admin) -> [u8; 16] {
    let (flags, change) = match admin {
        Admin::Up => (IFF_UP, IFF_UP),
        Admin::Down => (0, IFF_UP),
        Admin::Keep => (0, 0),
    };
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// `struct ndmsg`, of a permanent entry
fn ndmsg(family: u8, index: u32, flags: u8) -> [u8; 12] {
    let [a, b, c, d] = index.to_ne_bytes();
    let [state, state_high] = NUD_PERMANENT.to_ne_bytes();
    [family, 0, 0, 0, a, b, c, d, state, state_high, flags, 0]
}

fn kind(message: &mut Writer<'_>, name: &str, data: impl FnOnce(&mut Writer<'_>)) {
    message.nest(IFLA_LINKINFO, |info| {
        info.str(IFLA_INFO_KIND, name).nest(IFLA_INFO_DATA, data);
    });
}

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_DELROUTE: u16 = 25;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWNEIGH: u16 = 28;
pub const RTM_GETNEIGH: u16 = 30;
pub const RTM_NEWNEXTHOP: u16 = 104;
pub const RTM_GETNEXTHOP: u16 = 106;

pub const AF_INET: u8 = 2;
pub const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const TABLE_MAIN: u8 = 254;
/// As flannel and `ip` leave it.
const PROTOCOL_BOOT: u8 = 3;
const PROTOCOL_BIRD: u8 = 12;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
/// In a removal: of any scope.
const SCOPE_NOWHERE: u8 = 255;
const UNICAST: u8 = 1;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 2;

pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
pub const IFLA_VXLAN_LINK: u16 = 3;
pub const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
pub const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_NH_ID: u16 = 30;
pub const NDA_DST: u16 = 1;
pub const NDA_LLADDR: u16 = 2;
pub const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
pub const NHA_GATEWAY: u16 = 6;
