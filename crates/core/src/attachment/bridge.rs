//! Pods on one bridge per node (flannel's `cni0`).
//!
//! The bridge has the gateway's address of each of the node's subnets and a MAC derived from it: one that
//! is set explicitly, because a bridge without one changes its MAC with every port.

use std::net::IpAddr;

use russet_desired::{
    AddressKey, AddressScope, AddressSpec, Emit, Flag, Item, LinkKind, LinkSpec, PortSpec,
    RouteKey, RouteSpec, RouteVia,
};
use russet_net::{Family, Mac, Prefix};
use sha2::{Digest, Sha256};

use super::{RANK_DEVICE, require, subnets};
use crate::{
    model::{LeaseKey, PodFact},
    transport::Me,
};

/// Emits the bridge, its addresses, and the settings that let it forward.
pub fn local(me: &Me<'_>, out: &mut Emit) {
    let bridge = me.settings.bridge;
    out.push(Item::Link(
        bridge,
        LinkSpec {
            kind: LinkKind::Bridge,
            role: "bridge",
            // Pods know the one that it has.
            mac: me.settings.mac_of(bridge).or_else(|| {
                let mut subnets = me.first.into_iter().flat_map(LeaseKey::subnets);
                subnets.find_map(gateway).map(bridge_mac)
            }),
            mtu: me.footing.pod_mtu,
            master: None,
            inherits: me.settings.inherits(),
        },
    ));
    for subnet in subnets(me) {
        let Some(addr) = gateway(subnet) else { continue };
        let key = AddressKey { link: bridge, addr, len: subnet.len() };
        out.push(Item::Address(key, AddressSpec { scope: AddressScope::Global }));
        blackhole(me, subnet, out);
        bridge_calls(subnet.family(), out);
    }
}

/// Emits the node's side of one pod, which keeps the MTU that it was given.
pub fn pod(me: &Me<'_>, pod: &PodFact, out: &mut Emit) {
    out.push(Item::Link(
        pod.host_link,
        LinkSpec {
            kind: LinkKind::PodVeth,
            role: "pod",
            mac: None,
            mtu: pod.mtu,
            master: Some(me.settings.bridge),
            inherits: Flag::Off,
        },
    ));
    out.push(Item::Port(pod.host_link, PortSpec { hairpin: me.settings.hairpin }));
    for addr in pod.addresses.iter().filter(|addr| !me.own.contains(**addr)) {
        stranded(me, *addr, out);
    }
}

/// What was given out of a subnet that another node has by now still reaches this node, and its pods: the address alone,
/// because the rest of the subnet is the other's, and the gateway that the pod knows.
fn stranded(me: &Me<'_>, addr: IpAddr, out: &mut Emit) {
    let bridge = me.settings.bridge;
    let spec = RouteSpec { via: RouteVia::Link(bridge), inherits: Flag::Off };
    let key = RouteKey { metric: METRIC_STRANDED, ..RouteKey::main(Prefix::host(addr)) };
    out.push(Item::Route(key, spec));
    let Some(pool) = me.footing.config.pool(Family::of(addr)) else { return };
    let subnet = Prefix::around(addr, pool.subnet_len()).ok();
    if let Some(addr) = subnet.and_then(gateway) {
        let key = AddressKey { link: bridge, addr, len: Family::of(addr).bits() };
        out.push(Item::Address(key, AddressSpec { scope: AddressScope::Global }));
    }
}

/// Behind every other route to the subnet: what is for it must not leave by a default route while the bridge is away.
fn blackhole(me: &Me<'_>, subnet: Prefix, out: &mut Emit) {
    if me.settings.blackhole.is_on() {
        let key = RouteKey { metric: METRIC_BLACKHOLE, ..RouteKey::main(subnet) };
        let spec = RouteSpec { via: RouteVia::Blackhole, inherits: Flag::Off };
        out.push(Item::Route(key, spec));
    }
}

/// The address after the base.
fn gateway(subnet: Prefix) -> Option<IpAddr> {
    subnet.nth(1)
}

/// An IPv4 gateway stands in its MAC in full, behind `0a:58`, as CNI's own bridges have it.
fn bridge_mac(gateway: IpAddr) -> Mac {
    match gateway {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            Mac::local([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(addr) => {
            let digest = Sha256::digest(addr.octets());
            let mut octets = [0; 6];
            for (octet, byte) in octets.iter_mut().zip(digest.iter()) {
                *octet = *byte;
            }
            Mac::local(octets)
        }
    }
}

/// Services between pods of one bridge need the kernel to show bridged packets to the packet filter.
fn bridge_calls(family: Family, out: &mut Emit) {
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let path = format!("net/bridge/bridge-nf-call-{program}");
    require(RANK_DEVICE, path, "1", Flag::On, out);
}

/// Behind whatever the bridge, or anybody else, has.
const METRIC_BLACKHOLE: u32 = 4_000_000_000;
/// None that anything else of ours has, so that a router may teach the same address.
const METRIC_STRANDED: u32 = 1;
