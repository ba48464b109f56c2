//! Pods each on a link of its own, as Calico has them: whole addresses, a route to each, and no bridge.
//!
//! Nothing that a pod says of itself is believed. A packet whose source is not behind the link that it came in by is
//! dropped before it is tracked or routed, unless the pod is allowed it (Calico's `allowedSourcePrefixes`), and then the
//! way back is the operator's; a link hears no router advertisement; whom an address belongs to
//! is known by the route, so there is no neighbour to impersonate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use russet_desired::{
    BaseChain, ChainKey, ChainSpec, ChainType, ElementKey, ElementSpec, Emit, Field, Flag, Hook,
    Item, LinkKind, LinkSpec, Match, RouteKey, RouteSpec, RouteVia, Rule, SetKey, SetKind, SetSpec,
    Verdict,
};
use russet_net::{Family, IfName, Mac, Prefix};

use super::{RANK_DEVICE, require, subnets};
use crate::{
    model::{PodFact, Preset},
    transport::Me,
};

/// The MAC of every node's end. Pods have it for their gateway's for ever, so it never changes.
pub const HOST_MAC: Mac = Mac::new([0xee; 6]);

/// The gateway of every pod, which is nobody's address: Calico's, and for IPv6 the one that [`HOST_MAC`] makes
/// (RFC 4291, appendix A).
pub const fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee)),
    }
}

/// Emits what holds for all pods: nothing of the node's subnets leaves it when its pod is not there, and no pod speaks
/// for another.
pub fn local(me: &Me<'_>, out: &mut Emit) {
    for subnet in subnets(me) {
        let spec = RouteSpec { via: RouteVia::Blackhole, inherits: Flag::Off };
        out.push(Item::Route(RouteKey::main(subnet), spec));
    }
    // A pod without an address of a family has none to send from: the chain stands in both.
    for family in Family::BOTH {
        let base = BaseChain {
            kind: ChainType::Filter,
            hook: Hook::Prerouting,
            priority: PRIORITY_BEFORE_TRACKING,
        };
        let set = SetKey { family, name: ALLOWED };
        out.push(Item::Set(set, SetSpec { kind: SetKind::LinkPrefixes }));
        let spec = ChainSpec { base: Some(base), rules: rules(family, me) };
        out.push(Item::Chain(ChainKey { family, name: CHAIN }, spec));
    }
}

/// Emits the node's side of one pod, which keeps the MTU that it was given.
pub fn pod(me: &Me<'_>, pod: &PodFact, out: &mut Emit) {
    let link = pod.host_link;
    let spec = LinkSpec {
        kind: LinkKind::PodVeth,
        role: "pod",
        mac: Some(HOST_MAC),
        mtu: pod.mtu,
        master: None,
        inherits: Flag::Off,
    };
    out.push(Item::Link(link, spec));
    for addr in &pod.addresses {
        let spec = RouteSpec { via: RouteVia::Link(link), inherits: Flag::Off };
        out.push(Item::Route(RouteKey::main(Prefix::host(*addr)), spec));
    }
    for prefix in &pod.allowed_sources {
        let set = SetKey { family: prefix.family(), name: ALLOWED };
        let key = ElementKey { set, link: Some(link), prefix: *prefix };
        out.push(Item::Element(key, ElementSpec));
    }
    settings(me, pod, link, out);
}

/// What the link must be set to, where the kernel has it: nothing that a pod advertises is heard, whatever addresses it
/// has. Calico's settings besides, with its preset (cni-plugin: `configureSysctls`).
fn settings(me: &Me<'_>, pod: &PodFact, link: IfName, out: &mut Emit) {
    let calico = me.settings.preset == Preset::Calico;
    let mut set = |path: String, value| require(RANK_DEVICE, path, value, Flag::On, out);
    let v4 = |name: &str| format!("net/ipv4/conf/{link}/{name}");
    let v6 = |name: &str| format!("net/ipv6/conf/{link}/{name}");
    if pod.addresses.iter().any(IpAddr::is_ipv4) {
        set(v4("forwarding"), "1");
        if calico {
            set(v4("route_localnet"), "1");
        }
        if calico || me.settings.proxy_arp.is_on() {
            set(v4("proxy_arp"), "1");
            set(format!("net/ipv4/neigh/{link}/proxy_delay"), "0");
        }
    }
    set(v6("accept_ra"), "0");
    if pod.addresses.iter().any(IpAddr::is_ipv6) {
        set(v6("forwarding"), "1");
        if calico {
            set(v6("proxy_ndp"), "1");
            set(v6("accept_dad"), "0");
        }
    }
}

/// The neighbour discovery of IPv6 speaks from addresses of the link.
fn rules(family: Family, me: &Me<'_>) -> Vec<Rule> {
    let links = me.settings.pod_links;
    let tunnels = Rule { matches: vec![Match::InputLinkStarts(TUNNELS)], verdict: Verdict::Return };
    let tunnels = TUNNELS.starts_with(links).then_some(tunnels);
    let mut matches = vec![Match::InputLinkStarts(links)];
    if family == Family::V6 {
        matches.push(Match::Within {
            field: Field::Source,
            prefix: link_local(),
            negate: Flag::On,
        });
    }
    matches.push(Match::Misplaced);
    // Last: it costs those alone that are not behind their link.
    matches.push(Match::InputLinkAndSource { set: ALLOWED, negate: Flag::On });
    tunnels.into_iter().chain([Rule { matches, verdict: Verdict::Drop }]).collect()
}

/// `fe80::/10` (RFC 4291 §2.5.6).
fn link_local() -> Prefix {
    Prefix::around(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10)
        .unwrap_or(Prefix::host(Ipv6Addr::UNSPECIFIED.into()))
}

const CHAIN: &str = "spoofed";
/// Pairs of a pod's link and what it may send from besides its addresses.
const ALLOWED: &str = "allowed-sources";
/// What the tunnels of preset russet begin with, which could be taken for pods'.
const TUNNELS: &str = "rst.";
/// `NF_IP_PRI_RAW`
const PRIORITY_BEFORE_TRACKING: i32 = -300;
