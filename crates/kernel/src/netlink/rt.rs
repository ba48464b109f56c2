//! The numbers and the fixed headers of `NETLINK_ROUTE` (`linux/rtnetlink.h` and its neighbours).

use russet_net::Family;

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_SETLINK: u16 = 19;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_DELADDR: u16 = 21;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_DELROUTE: u16 = 25;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWNEIGH: u16 = 28;
pub const RTM_DELNEIGH: u16 = 29;
pub const RTM_GETNEIGH: u16 = 30;
pub const RTM_NEWNETCONF: u16 = 80;
pub const RTM_NEWNEXTHOP: u16 = 104;
pub const RTM_DELNEXTHOP: u16 = 105;
pub const RTM_GETNEXTHOP: u16 = 106;

pub const AF_UNSPEC: u8 = 0;
pub const AF_INET: u8 = 2;
pub const AF_BRIDGE: u8 = 7;
pub const AF_INET6: u8 = 10;

// `IFLA_*`
pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_PROTINFO: u16 = 12;
pub const IFLA_OPERSTATE: u16 = 16;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_IFALIAS: u16 = 20;
pub const IFLA_GROUP: u16 = 27;
pub const IFLA_EXT_MASK: u16 = 29;
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
pub const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub const IFLA_BRPORT_MODE: u16 = 4;
pub const IFLA_TUN_TYPE: u16 = 3;
pub const IFLA_TUN_VNET_HDR: u16 = 5;
pub const IFLA_TUN_PERSIST: u16 = 6;
pub const IFLA_TUN_MULTI_QUEUE: u16 = 7;
/// `IFF_TUN`.
pub const TUN_TYPE_TUN: u8 = 1;
pub const IFLA_VXLAN_ID: u16 = 1;
pub const IFLA_VXLAN_LINK: u16 = 3;
pub const IFLA_VXLAN_LOCAL: u16 = 4;
pub const IFLA_VXLAN_LEARNING: u16 = 7;
pub const IFLA_VXLAN_PORT: u16 = 15;
pub const IFLA_VXLAN_LOCAL6: u16 = 17;
pub const IFLA_VXLAN_UDP_CSUM: u16 = 18;
pub const IFLA_VXLAN_GBP: u16 = 23;
pub const IFLA_IPTUN_LOCAL: u16 = 2;
pub const IFLA_IPTUN_REMOTE: u16 = 3;
pub const IFF_UP: u32 = 0x1;
pub const IFF_LOOPBACK: u32 = 0x8;
/// The carrier, as the kernel's next hops see it.
pub const IFF_LOWER_UP: u32 = 0x1_0000;
pub const IF_OPER_UP: u8 = 6;
/// `RTEXT_FILTER_SKIP_STATS`: 200 octets less for each link.
pub const SKIP_STATS: u32 = 8;

// `IFA_*`
pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
pub const IFA_FLAGS: u16 = 8;
pub const IFA_PROTO: u16 = 11;
pub const IFA_F_NODAD: u32 = 0x02;
pub const IFA_F_PERMANENT: u32 = 0x80;

// `RTA_*` and what stands in `struct rtmsg`
pub const RTA_DST: u16 = 1;
pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;
pub const RTA_PRIORITY: u16 = 6;
pub const RTA_MULTIPATH: u16 = 9;
pub const RTA_TABLE: u16 = 15;
pub const RTA_NH_ID: u16 = 30;
pub const RT_TABLE_LOCAL: u32 = 255;
pub const RT_SCOPE_UNIVERSE: u8 = 0;
pub const RT_SCOPE_LINK: u8 = 253;
pub const RT_SCOPE_NOWHERE: u8 = 255;
pub const RTN_UNSPEC: u8 = 0;
pub const RTN_UNICAST: u8 = 1;
pub const RTN_BLACKHOLE: u8 = 6;
/// An exception or a cached route, not one of the table.
pub const RTM_F_CLONED: u32 = 0x200;
pub const RTPROT_KERNEL: u8 = 2;
pub const RTPROT_BOOT: u8 = 3;
pub const RTPROT_RA: u8 = 9;

// `NDA_*`
pub const NDA_DST: u16 = 1;
pub const NDA_LLADDR: u16 = 2;
pub const NTF_SELF: u8 = 0x02;
pub const NTF_EXT_LEARNED: u8 = 0x10;
pub const NUD_NOARP: u16 = 0x40;
pub const NUD_PERMANENT: u16 = 0x80;

// `NHA_*`
pub const NHA_ID: u16 = 1;
pub const NHA_OIF: u16 = 5;
pub const NHA_GATEWAY: u16 = 6;
pub const RTNH_F_ONLINK: u32 = 4;

// `RTNLGRP_*`
pub const GROUP_LINK: u32 = 1;
pub const GROUP_NEIGH: u32 = 3;
pub const GROUP_V4_ADDR: u32 = 5;
pub const GROUP_V4_ROUTE: u32 = 7;
pub const GROUP_V6_ADDR: u32 = 9;
pub const GROUP_V6_ROUTE: u32 = 11;
pub const GROUP_V4_NETCONF: u32 = 24;
pub const GROUP_V6_NETCONF: u32 = 25;
pub const GROUP_NEXTHOP: u32 = 32;

pub const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

pub const fn family_of(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// `struct ifinfomsg`: `change` says which of `flags` are meant.
pub fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER_LEN] {
    let mut header = [0; LINK_HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
pub fn addr_header(family: u8, len: u8, scope: u8, index: u32) -> [u8; ADDR_HEADER_LEN] {
    let mut header = [family, len, 0, scope, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

/// `struct ndmsg`.
pub fn neigh_header(family: u8, index: u32, state: u16, flags: u8) -> [u8; NEIGH_HEADER_LEN] {
    let mut header = [0; NEIGH_HEADER_LEN];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

/// `struct nhmsg`.
pub fn next_hop_header(family: u8, protocol: u8, flags: u32) -> [u8; NEXT_HOP_HEADER_LEN] {
    let mut header = [family, 0, protocol, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&flags.to_ne_bytes());
    header
}

pub const LINK_HEADER_LEN: usize = 16;
pub const ADDR_HEADER_LEN: usize = 8;
pub const ROUTE_HEADER_LEN: usize = 12;
pub const NEIGH_HEADER_LEN: usize = 12;
pub const NEXT_HOP_HEADER_LEN: usize = 8;
