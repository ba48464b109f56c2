//! What the devices of several transports have in common.

use std::net::{IpAddr, Ipv6Addr};

use russet_desired::{
    AddressKey, AddressScope, AddressSpec, Emit, Flag, Item, NextHopKey, NextHopSpec, RouteKey,
    RouteSpec, SysctlKey, SysctlSpec,
};
use russet_net::{Family, IfName, Prefix};
use sha2::{Digest, Sha256};

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
/// which another device leads, and until the route to the subnet leads here, another's may. Each subnet has its own, out of a
/// digest: no two peers may want one object.
pub(crate) fn into(subnet: Prefix) -> IpAddr {
    let addr = match subnet.addr() {
        addr @ IpAddr::V4(_) => return addr,
        IpAddr::V6(addr) => addr,
    };
    let digest = Sha256::new().chain_update(addr.octets()).chain_update([subnet.len()]).finalize();
    let mut octets = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).octets();
    octets[8..].copy_from_slice(&digest[..8]);
    Ipv6Addr::from(octets).into()
}

/// A tunnel is no place to learn a default route from.
pub(super) fn no_router_advertisements(link: IfName) -> Item {
    let key = SysctlKey {
        rank: crate::attachment::RANK_DEVICE,
        path: format!("net/ipv6/conf/{link}/accept_ra"),
    };
    Item::Sysctl(key, SysctlSpec { value: "0", optional: Flag::On })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_of_pools_that_are_numbered_alike_have_each_their_own_way_in() {
        let pools = (0..8_u16).map(|pool| pool * 64);
        let blocks = pools.flat_map(|pool| (0..64_u16).map(move |nth| (pool, nth * 64)));
        let ways = blocks.map(|(pool, nth)| {
            let way = into(format!("fd00:0:0:{pool:x}::{nth:x}/122").parse().unwrap());
            assert!(matches!(way, IpAddr::V6(way) if way.is_unicast_link_local()), "{way}");
            way
        });
        assert_eq!(ways.collect::<BTreeSet<_>>().len(), 8 * 64);
    }
}
