//! What routers teach, beside the leases.

mod common;

use common::{config, lease_key, node, ready, routes, upsert_lease, vxlan_lease};
use russet_core::{
    Change, Fact, FactId, Source,
    calc::oracle,
    distribution::bgp,
    model::{GatewayRoute, Lease, NodeFact, UnderlayFact},
};
use russet_desired::{Key, NextHopKey, Patches, RouteKey};
use russet_net::Router;

#[test]
fn a_learned_prefix_is_a_route_to_its_router_and_goes_with_it() {
    let mut calc = ready(config(0));
    let patches = calc.apply([learn("10.99.0.0/16", "192.168.77.3")]);
    assert_eq!(patches.len(), 2, "a next hop and a route");
    assert_eq!(routes(&calc.tables()), ["10.99.0.0/16 via 192.168.77.3 dev eth0"]);
    let key = Key::Route(RouteKey::main("10.99.0.0/16".parse().unwrap()));
    assert_eq!(calc.cause_of(&key), Some(learned("10.99.0.0/16")));

    let patches = calc.apply([learn("10.99.0.0/16", "192.168.77.4")]);
    assert_eq!(hops(&patches), [("192.168.77.3", false), ("192.168.77.4", true)]);
    let patches = calc.apply([forget("10.99.0.0/16")]);
    assert_eq!(patches.len(), 2);
    assert!(routes(&calc.tables()).is_empty());
}

#[test]
fn routes_by_one_router_share_its_next_hop_with_each_other_and_with_a_lease() {
    let mut calc = ready(config(2));
    calc.apply([
        learn("10.98.0.0/16", "192.168.77.3"),
        learn("10.99.0.0/16", "192.168.77.3"),
        upsert_lease("10.50.1.0/24", vxlan_lease(77, 3), 1),
    ]);
    assert_eq!((routes(&calc.tables()).len(), calc.tables().next_hops.len()), (3, 1));
    let patches = calc.apply([forget("10.98.0.0/16")]);
    assert!(patches.next_hops.is_empty(), "two still want it");
    let patches = calc.apply([Change::Remove { id: FactId::Lease(lease_key("10.50.1.0/24", "")) }]);
    assert!(patches.next_hops.is_empty(), "one still wants it");
    let patches = calc.apply([forget("10.99.0.0/16")]);
    assert_eq!(hops(&patches), [("192.168.77.3", false)]);
}

#[test]
fn a_lease_goes_before_what_routers_say_of_its_subnet_and_no_more() {
    let mut calc = ready(config(2));
    calc.apply([
        learn("10.50.1.0/24", "192.168.77.9"),
        learn("10.50.1.128/25", "192.168.77.9"),
        learn("10.50.0.0/16", "192.168.77.9"),
    ]);
    assert_eq!(routes(&calc.tables()).len(), 3);

    let patches = calc.apply([upsert_lease("10.50.1.0/24", host_gw(3), 1)]);
    let changed: Vec<_> = patches.routes.iter().map(|(k, v)| (k.dst, v.is_some())).collect();
    let dst = |text: &str| text.parse().unwrap();
    assert_eq!(changed, [(dst("10.50.1.0/24"), true), (dst("10.50.1.128/25"), false)]);
    assert_eq!(
        routes(&calc.tables()),
        ["10.50.0.0/16 via 192.168.77.9 dev eth0", "10.50.1.0/24 via 192.168.77.3 dev eth0"]
    );
    let why = calc.refusals()[&learned("10.50.1.128/25")].to_string();
    assert!(why.contains("lies in the subnet of lease 10.50.1.0-24"), "{why}");

    calc.apply([Change::Remove { id: FactId::Lease(lease_key("10.50.1.0/24", "")) }]);
    assert_eq!(routes(&calc.tables()).len(), 3, "what the routers say is true again");
    assert!(calc.refusals().is_empty());
}

#[test]
fn a_router_on_no_link_is_reached_by_what_leads_to_it_and_by_the_longest_of_it() {
    let mut calc = ready(config(0));
    calc.apply([learn("10.99.0.0/24", "172.16.9.1")]);
    assert!(routes(&calc.tables()).is_empty());
    // Two steps away: by the router of the router.
    calc.apply([learn("172.16.0.0/16", "198.51.100.7")]);
    assert!(routes(&calc.tables()).is_empty());
    calc.apply([learn("198.51.100.0/24", "192.168.77.3")]);
    let wanted = |by: &str| {
        ["10.99.0.0/24", "172.16.0.0/16", "198.51.100.0/24"]
            .map(|dst| format!("{dst} via {by} dev eth0"))
    };
    assert_eq!(routes(&calc.tables()), wanted("192.168.77.3"));
    // The router moves, and what is behind it.
    calc.apply([learn("198.51.100.0/24", "192.168.77.4")]);
    assert_eq!(routes(&calc.tables()), wanted("192.168.77.4"));
    // A longer prefix leads elsewhere, while it is there.
    calc.apply([learn("172.16.9.0/24", "192.168.77.5")]);
    assert!(routes(&calc.tables()).contains(&"10.99.0.0/24 via 192.168.77.5 dev eth0".to_owned()));
    calc.apply([forget("172.16.9.0/24"), forget("198.51.100.0/24")]);
    assert!(routes(&calc.tables()).is_empty());
    let why = calc.refusals()[&learned("10.99.0.0/24")].to_string();
    assert!(why.contains("172.16.9.1 is not on the underlay's link"), "{why}");
    assert_eq!(oracle(calc.world()), calc.tables());
}

#[test]
fn a_router_on_no_link_is_reached_by_the_kernel_s_gateway_and_nothing_goes_in_circles() {
    let mut calc = ready(config(0));
    // Each leads to the other, and one to itself.
    calc.apply([
        learn("10.98.0.0/16", "10.99.0.1"),
        learn("10.99.0.0/16", "10.98.0.1"),
        learn("10.97.0.0/16", "10.97.0.1"),
    ]);
    assert!(routes(&calc.tables()).is_empty());
    assert_eq!(calc.refusals().len(), 3);
    let default =
        GatewayRoute { dst: "0.0.0.0/0".parse().unwrap(), via: [192, 168, 77, 254].into() };
    let underlay = UnderlayFact { gateways: vec![default], ..node().underlay };
    let fact = Fact::Node(Box::new(NodeFact { underlay, ..node() }));
    calc.apply([Change::Upsert { id: FactId::Node, fact, rev: 0 }]);
    let wanted = [97, 98, 99].map(|n| format!("10.{n}.0.0/16 via 192.168.77.254 dev eth0"));
    assert_eq!(routes(&calc.tables()), wanted);
    assert!(calc.refusals().is_empty());
}

#[test]
fn a_router_that_holds_on_one_link_is_reached_over_it() {
    let mut calc = ready(config(2));
    let router = Router { ip: "fe80::7".parse().unwrap(), link: Some("eth3".parse().unwrap()) };
    let id = learned("fd99::/32");
    calc.apply([Change::Upsert { id: id.clone(), fact: Fact::Learned(router), rev: 0 }]);
    assert_eq!(routes(&calc.tables()), ["fd99::/32 via fe80::7 dev eth3"]);
    // What is behind somebody behind it goes the same way.
    calc.apply([learn("fd98::/32", "fd99::1")]);
    assert_eq!(routes(&calc.tables())[0], "fd98::/32 via fe80::7 dev eth3");
    assert_eq!(oracle(calc.world()), calc.tables());
    let ours = Router { link: Some("rst0".parse().unwrap()), ..router };
    calc.apply([Change::Upsert { id: id.clone(), fact: Fact::Learned(ours), rev: 0 }]);
    assert!(routes(&calc.tables()).is_empty());
    assert!(calc.refusals()[&id].to_string().contains("on a link of the pods"));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let mut calc = ready(config(0));
    for (dst, router, why) in [
        ("10.50.7.0/25", "192.168.77.3", "overlaps this node's own 10.50.7.0/24"),
        ("192.168.77.9/32", "192.168.77.3", "lies on a link of this node"),
        ("127.0.0.0/8", "192.168.77.3", "no network of unicast addresses"),
        ("fe80::/64", "fd77::3", "no network of unicast addresses"),
        ("10.99.0.0/16", "192.168.77.1", "is this node's own"),
        ("10.99.0.0/16", "224.0.0.5", "no unicast address"),
        ("10.99.0.0/16", "10.50.3.3", "lies in the network of the pods"),
        ("10.99.0.0/16", "172.16.0.1", "is not on the underlay's link"),
        ("10.99.0.0/16", "fd77::3", "another family"),
        ("fd99::/32", "fe80::3", "the same on every link"),
    ] {
        calc.apply([learn(dst, router)]);
        let told = calc.refusals()[&learned(dst)].to_string();
        assert!(told.contains(why), "{told}");
        assert!(routes(&calc.tables()).is_empty());
    }
    let wrong = ["fd99::/32", "10.50.7.0/25", "192.168.77.9/32", "127.0.0.0/8", "fe80::/64"];
    calc.apply(wrong.map(forget));
    calc.apply([learn("10.99.0.0/16", "192.168.77.3")]);
    assert_eq!((routes(&calc.tables()).len(), calc.refusals().len()), (1, 0));
}

#[test]
fn nothing_within_a_sealed_network_goes_bare() {
    let mut calc = ready(config(7));
    calc.apply([learn("10.50.9.0/24", "192.168.77.3"), learn("10.99.0.0/16", "192.168.77.3")]);
    assert_eq!(routes(&calc.tables()), ["10.99.0.0/16 via 192.168.77.3 dev eth0"]);
    assert!(calc.refusals().contains_key(&learned("10.50.9.0/24")));
}

#[test]
fn nothing_is_swept_before_the_routers_have_told_all() {
    let mut calc = ready(config(0));
    assert!(calc.is_complete());
    calc.apply([Change::Resync(Source::Routes), learn("10.99.0.0/16", "192.168.77.3")]);
    assert!(!calc.is_complete());
    calc.apply([Change::InSync(Source::Routes)]);
    assert!(calc.is_complete());
    // A speaker that starts anew says nothing of it again.
    let patches = calc.apply([Change::Resync(Source::Routes), Change::InSync(Source::Routes)]);
    assert_eq!(patches.routes.len(), 1);
    assert!(routes(&calc.tables()).is_empty());
}

#[test]
fn a_node_announces_its_own_subnets() {
    let calc = ready(config(0));
    let me = calc.world().me().unwrap();
    let announced: Vec<_> = bgp::announced(&me).map(|it| format!("{:?}", it.dst)).collect();
    assert_eq!(announced.len(), me.own.subnets().count(), "{announced:?}");
    assert!(!announced.is_empty());
}

fn learn(dst: &str, router: &str) -> Change {
    Change::Upsert {
        id: learned(dst),
        fact: Fact::Learned(router.parse::<std::net::IpAddr>().unwrap().into()),
        rev: 0,
    }
}

fn forget(dst: &str) -> Change {
    Change::Remove { id: learned(dst) }
}

fn learned(dst: &str) -> FactId {
    FactId::Learned(dst.parse().unwrap())
}

fn host_gw(n: u8) -> Lease {
    Lease { backend: russet_core::model::Backend::HostGw, ..vxlan_lease(77, n) }
}

fn hops(patches: &Patches) -> Vec<(&'static str, bool)> {
    let name = |key: &NextHopKey| match key.via.to_string().as_str() {
        "192.168.77.3" => "192.168.77.3",
        "192.168.77.4" => "192.168.77.4",
        _ => "another",
    };
    patches.next_hops.iter().map(|(key, value)| (name(key), value.is_some())).collect()
}
