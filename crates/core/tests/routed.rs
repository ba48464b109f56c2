//! Pods each on a link of its own: what of it is wanted on the node.

mod common;

use common::*;
use russet_core::{
    Calc, Change, Fact, FactId,
    attachment::routed,
    model::{Attachment, PodSide, Settings},
};
use russet_desired::{ChainKey, Match, RouteKey, RouteVia, Verdict};
use russet_net::{Family, Prefix};

#[test]
fn a_pod_is_a_link_alone_with_a_route_to_each_address() {
    let mut calc = node_with_routed_pods();
    let id = FactId::Pod(pod_id(1));
    let fact = Fact::Pod(pod(1, 1_450));
    let patches = calc.apply([Change::Upsert { id: id.clone(), fact, rev: 0 }]);
    let link = "veth1".parse().unwrap();
    let spec = patches.links[&link].as_ref().unwrap();
    assert_eq!((spec.master, spec.mac), (None, Some(routed::HOST_MAC)));
    let route = RouteKey::main(Prefix::host([10, 50, 7, 3].into()));
    assert_eq!(patches.routes[&route].unwrap().via, RouteVia::Link(link));
    assert!(patches.ports.is_empty());

    let patches = calc.apply([Change::Remove { id: FactId::Pod(pod_id(1)) }]);
    assert_eq!(patches.routes[&route], None);
    assert_eq!(patches.links[&link], None);
}

#[test]
fn there_is_no_bridge_and_what_is_for_no_pod_does_not_leave() {
    let calc = node_with_routed_pods();
    let tables = calc.tables();
    assert!(!tables.links.contains_key(&"cni0".parse().unwrap()));
    let subnet = RouteKey::main("10.50.7.0/24".parse().unwrap());
    assert_eq!(tables.routes[&subnet].via, RouteVia::Blackhole);
    assert_eq!(calc.pod_network().unwrap().side, PodSide::Routed);
    assert!(tables.sysctls.keys().any(|key| key.path == "net/ipv4/ip_forward"));
    assert!(!tables.sysctls.keys().any(|key| key.path.contains("bridge")));
}

/// Tunnels bear names of ours too, with preset russet.
#[test]
fn a_source_that_is_not_behind_its_pod_s_link_is_dropped_and_tunnels_are_not_asked() {
    let tables = node_with_routed_pods().tables();
    let chain = &tables.chains[&ChainKey { family: Family::V4, name: "spoofed" }];
    let [tunnels, pods] = &chain.rules[..] else { panic!("{chain:?}") };
    assert_eq!(tunnels.matches, [Match::InputLinkStarts("rst.")]);
    assert_eq!(tunnels.verdict, Verdict::Return);
    assert_eq!(pods.matches, [Match::InputLinkStarts("rst"), Match::Misplaced]);
    assert_eq!(pods.verdict, Verdict::Drop);
}

/// The pod's permanent neighbour is right only as long as the address is the one that the MAC makes.
#[test]
fn the_gateway_is_what_the_host_s_mac_makes() {
    let octets = routed::HOST_MAC.octets();
    let mut interface = [&octets[..3], &[0xff, 0xfe], &octets[3..]].concat();
    interface[0] ^= 2;
    let std::net::IpAddr::V6(gateway) = routed::gateway(Family::V6) else { panic!() };
    assert_eq!(gateway.octets()[8..], interface);
    assert!(gateway.is_unicast_link_local());
}

fn node_with_routed_pods() -> Calc {
    ready_with(Settings { attachment: Attachment::Routed, ..settings() }, config(0))
}
