//! The messages of the attach lane.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use russet_desired::Flag;
use russet_net::{Family, IfName, Mac};

use super::{PodAddress, PodLink, numbers};
use crate::{
    link::GROUP,
    netlink::{Batch, flags, rt},
};

/// Writes the making of a veth: the host's end up and a port of the bridge, the peer in the pod. The peer
/// cannot be made up at once: when the kernel looks at its flags it has no other end yet (`veth_open`). The
/// kernel echoes the host's end, for its index.
pub(super) fn create(
    batch: &mut Batch,
    want: &PodLink,
    bridge: Option<u32>,
    netns: BorrowedFd<'_>,
) {
    let up = rt::link_header(0, rt::IFF_UP, rt::IFF_UP);
    let netns = netns.as_raw_fd().cast_unsigned();
    let mut message = batch.push(rt::RTM_NEWLINK, flags::CREATE | flags::EXCL | flags::ECHO, &up);
    message
        .str(rt::IFLA_IFNAME, want.host.as_str())
        .bytes(rt::IFLA_ADDRESS, &want.host_mac.octets())
        .u32(rt::IFLA_MTU, want.mtu.get())
        .u32(rt::IFLA_GROUP, GROUP);
    if let Some(bridge) = bridge {
        message.u32(rt::IFLA_MASTER, bridge);
    }
    message.nest(rt::IFLA_LINKINFO, |info| {
        info.str(rt::IFLA_INFO_KIND, "veth");
        info.nest(rt::IFLA_INFO_DATA, |data| {
            data.nest_plain(numbers::VETH_INFO_PEER, &rt::link_header(0, 0, 0), |peer| {
                peer.str(rt::IFLA_IFNAME, want.name.as_str())
                    .bytes(rt::IFLA_ADDRESS, &want.mac.octets())
                    .u32(rt::IFLA_MTU, want.mtu.get())
                    .u32(numbers::IFLA_NET_NS_FD, netns);
            });
        });
    });
}

pub(super) fn set_hairpin(batch: &mut Batch, index: u32, hairpin: Flag) {
    let mut header = rt::link_header(index, 0, 0);
    header[0] = rt::AF_BRIDGE;
    batch.push(rt::RTM_SETLINK, 0, &header).nest(rt::IFLA_PROTINFO, |port| {
        port.u8(rt::IFLA_BRPORT_MODE, hairpin.is_on().into());
    });
}

pub(super) fn set_group(batch: &mut Batch, index: u32, group: u32) {
    let header = rt::link_header(index, 0, 0);
    batch.push(rt::RTM_SETLINK, 0, &header).u32(rt::IFLA_GROUP, group);
}

pub(super) fn remove(batch: &mut Batch, index: u32) {
    batch.push(rt::RTM_DELLINK, 0, &rt::link_header(index, 0, 0));
}

/// With neither index nor name a removal means all of a group (`rtnl_group_dellink`).
pub(super) fn remove_group(batch: &mut Batch, group: u32) {
    batch.push(rt::RTM_DELLINK, 0, &rt::link_header(0, 0, 0)).u32(rt::IFLA_GROUP, group);
}

pub(super) fn get_link(batch: &mut Batch, name: IfName) {
    batch
        .push(rt::RTM_GETLINK, 0, &rt::link_header(0, 0, 0))
        .u32(rt::IFLA_EXT_MASK, rt::SKIP_STATS)
        .str(rt::IFLA_IFNAME, name.as_str());
}

pub(super) fn list_links(batch: &mut Batch) {
    let header = rt::link_header(0, 0, 0);
    batch.push(rt::RTM_GETLINK, 0, &header).u32(rt::IFLA_EXT_MASK, rt::SKIP_STATS);
}

pub(super) fn up(batch: &mut Batch, name: IfName) {
    let header = rt::link_header(0, rt::IFF_UP, rt::IFF_UP);
    batch.push(rt::RTM_SETLINK, 0, &header).str(rt::IFLA_IFNAME, name.as_str());
}

pub(super) fn lo_up(batch: &mut Batch) {
    batch.push(rt::RTM_SETLINK, 0, &rt::link_header(numbers::LO, rt::IFF_UP, rt::IFF_UP));
}

pub(super) fn add_address(batch: &mut Batch, index: u32, address: &PodAddress) {
    let family = rt::family_number(Family::of(address.addr));
    let header = rt::addr_header(family, address.len, rt::RT_SCOPE_UNIVERSE, index);
    let mut message = batch.push(rt::RTM_NEWADDR, flags::CREATE | flags::EXCL, &header);
    message.ip(rt::IFA_LOCAL, address.addr).ip(rt::IFA_ADDRESS, address.addr);
    if address.addr.is_ipv6() {
        // Ours are unique by their lease, and a pod must not wait a second for its address.
        message.u32(rt::IFA_FLAGS, rt::IFA_F_NODAD);
    }
}

/// Whom the pod need never ask for.
pub(super) fn add_neighbour(batch: &mut Batch, index: u32, ip: IpAddr, mac: Mac) {
    let family = rt::family_number(Family::of(ip));
    let header = rt::neigh_header(family, index, rt::NUD_PERMANENT, 0);
    batch
        .push(rt::RTM_NEWNEIGH, flags::CREATE | flags::REPLACE, &header)
        .ip(rt::NDA_DST, ip)
        .bytes(rt::NDA_LLADDR, &mac.octets());
}

/// A gateway that is in no prefix of the pod's is on the link all the same.
pub(super) fn add_link_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let family = Family::of(gateway);
    let mut header = route_header(rt::family_number(family));
    header[1] = family.bits();
    header[6] = rt::RT_SCOPE_LINK;
    batch
        .push(rt::RTM_NEWROUTE, flags::CREATE | flags::EXCL, &header)
        .ip(rt::RTA_DST, gateway)
        .u32(rt::RTA_OIF, index);
}

pub(super) fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let family = rt::family_number(Family::of(gateway));
    batch
        .push(rt::RTM_NEWROUTE, flags::CREATE | flags::EXCL, &route_header(family))
        .ip(rt::RTA_GATEWAY, gateway)
        .u32(rt::RTA_OIF, index);
}

/// `struct rtmsg` of a default route in the main table.
fn route_header(family: u8) -> [u8; rt::ROUTE_HEADER_LEN] {
    let mut header = [0; rt::ROUTE_HEADER_LEN];
    header[0] = family;
    header[4] = TABLE_MAIN;
    header[5] = numbers::RTPROT_BOOT;
    header[6] = rt::RT_SCOPE_UNIVERSE;
    header[7] = rt::RTN_UNICAST;
    header
}

pub(super) fn list_addresses(batch: &mut Batch) {
    batch.push(rt::RTM_GETADDR, 0, &rt::addr_header(rt::AF_UNSPEC, 0, 0, 0));
}

pub(super) fn list_routes(batch: &mut Batch) {
    batch.push(rt::RTM_GETROUTE, 0, &[0; rt::ROUTE_HEADER_LEN]);
}

/// `RT_TABLE_MAIN`.
pub(super) const TABLE_MAIN: u8 = 254;
