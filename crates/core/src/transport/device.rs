//! What the devices of several transports have in common.

use std::net::{IpAddr, Ipv6Addr};

use russet_desired::{
    AddressKey, AddressScope, AddressSpec, Emit, Flag, Item, NextHopKey, NextHopSpec, RouteKey,
    RouteSpec, SysctlKey, SysctlSpec,
};
use russet_net::{Family, IfName, Prefix};

/// The base of the subnet alone, so that the peers' route to us has a gateway that is ours.
pub(super) fn whole_address(link: IfName, addr: IpAddr) -> Item {
    let key = AddressKey { link, addr, len: Family::of(addr).bits() };
    Item::Address(key, AddressSpec { scope: AddressScope::Global })
}

/// The route to a peer's subnet, through a device that finds the peer by the packet's own address.
pub(super) fn into_device(link: IfName, subnet: Prefix, out: &mut Emit) {
    let via = NextHopKey { via: into(subnet), link };
    out.push(Item::NextHop(via, NextHopSpec { onlink: Flag::On }));
    out.push(Item::Route(
        RouteKey::main(subnet),
        RouteSpec { via: via.into(), inherits: Flag::Off },
    ));
}

/// The gateway of a subnet behind a device that heeds none. In IPv6 it is link-local: the kernel takes no other onlink to
/// which another device leads, and until the route to the subnet leads here, another's may. One for each subnet, both halves
/// of its address in one.
pub(crate) fn into(subnet: Prefix) -> IpAddr {
    match subnet.addr() {
        addr @ IpAddr::V4(_) => addr,
        IpAddr::V6(addr) => {
            let (bits, fe80) = (addr.to_bits(), 0xfe80_u128 << 112);
            Ipv6Addr::from_bits(fe80 | (bits >> 64) ^ (bits & u128::from(u64::MAX))).into()
        }
    }
}

/// A tunnel is no place to learn a default route from.
pub(super) fn no_router_advertisements(link: IfName) -> Item {
    let key = SysctlKey {
        rank: crate::attachment::RANK_DEVICE,
        path: format!("net/ipv6/conf/{link}/accept_ra"),
    };
    Item::Sysctl(key, SysctlSpec { value: "0", optional: Flag::On })
}
