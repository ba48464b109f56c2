//! Pods each on a link of its own: what of it is wanted on the node.

mod common;

use common::*;
use russet_core::{
    Calc, Change, Fact, FactId,
    attachment::routed,
    model::{Attachment, PodSide, Preset, Settings},
};
use russet_desired::{ChainKey, Flag, Match, RouteKey, RouteVia, Verdict};
use russet_net::{Family, Prefix};

#[test]
fn a_pod_is_a_link_alone_with_a_route_to_each_address() {
    let mut calc = node_with_routed_pods();
    let id = FactId::Pod(pod_id(1));
    let fact = Fact::Pod(Box::new(pod(1, 1_450)));
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
    assert_eq!(calc.pod_network().unwrap().side, PodSide::Routed { proxy_arp: Flag::Off });
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
    let allowed = Match::InputLinkAndSource { set: "allowed-sources", negate: Flag::On };
    assert_eq!(pods.matches, [Match::InputLinkStarts("rst"), Match::Misplaced, allowed]);
    assert_eq!(pods.verdict, Verdict::Drop);
}

#[test]
fn calico_s_preset_sets_pods_links_as_calico_does() {
    let calico = |proxy_arp| Settings {
        attachment: Attachment::Routed,
        proxy_arp,
        ..Settings::new("node-a", Preset::Calico, "cni0".parse().unwrap())
    };
    let mut calc = ready_with(calico(Flag::Off), config(0));
    let mut pod = pod(1, 1_450);
    pod.addresses.push("fd00:50::9".parse().unwrap());
    calc.apply([Change::Upsert {
        id: FactId::Pod(pod_id(1)),
        fact: Fact::Pod(Box::new(pod)),
        rev: 0,
    }]);
    let tables = calc.tables();
    let of_pod = tables.sysctls.iter().filter(|(key, _)| key.path.contains("veth1"));
    let mut set: Vec<_> =
        of_pod.map(|(key, spec)| format!("{}={}", key.path, spec.value)).collect();
    set.sort_unstable();
    let wanted = [
        "net/ipv4/conf/veth1/forwarding=1",
        "net/ipv4/conf/veth1/proxy_arp=1",
        "net/ipv4/conf/veth1/route_localnet=1",
        "net/ipv4/neigh/veth1/proxy_delay=0",
        "net/ipv6/conf/veth1/accept_dad=0",
        "net/ipv6/conf/veth1/accept_ra=0",
        "net/ipv6/conf/veth1/forwarding=1",
        "net/ipv6/conf/veth1/proxy_ndp=1",
    ];
    assert_eq!(set, wanted);
    let chain = &tables.chains[&ChainKey { family: Family::V4, name: "spoofed" }];
    assert_eq!(chain.rules[0].matches[0], Match::InputLinkStarts("cali"));
    let network = calc.pod_network().unwrap();
    assert_eq!((network.links, network.side), ("cali", PodSide::Routed { proxy_arp: Flag::Off }));
    let asked = ready_with(calico(Flag::On), config(0)).pod_network().unwrap().side;
    assert_eq!(asked, PodSide::Routed { proxy_arp: Flag::On });
}

#[test]
fn what_a_pod_is_allowed_to_send_from_is_an_element_beside_its_link_and_no_route() {
    let mut calc = node_with_routed_pods();
    let mut fact = pod(1, 1_450);
    fact.allowed_sources = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/64".parse().unwrap()];
    let id = FactId::Pod(pod_id(1));
    let patches =
        calc.apply([Change::Upsert { id: id.clone(), fact: Fact::Pod(Box::new(fact)), rev: 0 }]);
    let shown: Vec<_> = patches.elements.keys().map(ToString::to_string).collect();
    let wanted = [
        "ip russet @allowed-sources veth1 . 192.0.2.0/24",
        "ip6 russet @allowed-sources veth1 . 2001:db8::/64",
    ];
    assert_eq!(shown, wanted);
    assert_eq!(patches.routes.len(), 1, "the way back is the operator's");
    assert!(patches.chains.is_empty(), "the rules stand still");
    let patches = calc.apply([Change::Remove { id }]);
    assert!(patches.elements.values().all(Option::is_none) && patches.elements.len() == 2);
}

#[test]
fn a_pod_without_ipv6_is_heard_of_no_router_and_has_no_source_of_it() {
    let mut calc = node_with_routed_pods();
    let (id, fact) = (FactId::Pod(pod_id(1)), Fact::Pod(Box::new(pod(1, 1_450))));
    calc.apply([Change::Upsert { id, fact, rev: 0 }]);
    let tables = calc.tables();
    assert!(tables.sysctls.keys().any(|key| key.path == "net/ipv6/conf/veth1/accept_ra"));
    assert!(tables.chains.contains_key(&ChainKey { family: Family::V6, name: "spoofed" }));
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
