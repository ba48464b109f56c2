//! What the calculation makes of a network, of its peers, and of what is wrong with them.

mod common;

use common::{
    config, foreign_route, keys, lease_key, mac, mtu, name, new_config, new_node, node, own, pod,
    pod_id, ready, routes, settings, sysctl, told, upsert_lease, vxlan_lease,
};
use russet_core::{
    Calc, Change, ConfigFault, Fact, FactId, Fault, Source,
    calc::{PIECE, Standing},
    model::{
        Backend, Foreign, Lease, NetworkConfig, NodeFact, Settings, TransportConfig, UnderlayFact,
        Vtep, VxlanConfig,
    },
};
use russet_desired::{Flag, Key, LinkKind, Match, RouteKey, Verdict};
use russet_net::{Family, Vni};
// ---- peers that cannot be

#[test]
fn a_bad_peer_is_skipped_by_name_and_all_others_work() {
    let vtep = |vni, mac| Some(Vtep { vni: Vni::try_from(vni).unwrap(), mac });
    let vxlan = |v4| Lease { backend: Backend::Vxlan { v4, v6: None }, ..vxlan_lease(77, 9) };
    let backend = |backend| Lease { backend, ..vxlan_lease(77, 9) };
    let at = |ip: Option<[u8; 4]>| Lease { public_ip: ip.map(Into::into), ..vxlan_lease(77, 9) };
    let ours = ready(config(0)).world().in_force().unwrap().own_mac(Family::V4).unwrap();
    let rows: [(&str, Lease, &str); 15] = [
        ("10.60.1.0/24", vxlan_lease(77, 9), "not within the network 10.50.0.0/16"),
        ("10.0.0.0/8", vxlan_lease(77, 9), "not within the network"),
        ("10.50.7.128/25", vxlan_lease(77, 9), "overlaps this node's own 10.50.7.0/24"),
        ("10.50.9.0/24", vxlan_lease(77, 1), "192.168.77.1 is this node's own"),
        ("10.50.9.0/24", at(None), "no IPv4 public address"),
        ("10.50.9.0/24", at(Some([224, 0, 0, 9])), "a unicast address is wanted"),
        ("10.50.9.0/24", at(Some([10, 50, 3, 9])), "lies in the network"),
        ("10.50.9.0/24", vxlan(None), "no IPv4 VTEP MAC"),
        ("10.50.9.0/24", vxlan(vtep(2, mac(9))), "its VNI is 2, and this network's is 1"),
        ("10.50.9.0/24", vxlan(vtep(1, "01:00:5e:00:00:01".parse().unwrap())), "no station's"),
        ("10.50.9.0/24", vxlan(vtep(1, ours)), "this node's own"),
        (
            "10.50.9.0/24",
            backend(Backend::Wireguard { v4: None, v6: None }),
            "is wireguard, and this network",
        ),
        ("10.50.9.0/24", backend(Backend::Foreign(Foreign::Ipsec)), "use wireguard"),
        ("10.50.9.0/24", backend(Backend::Udp), "udp (or alloc"),
        (
            "10.50.9.0/24",
            Lease { backend: Backend::HostGw, ..vxlan_lease(99, 9) },
            "192.168.99.9 is not on a link that this node shares (eth0)",
        ),
    ];
    for (subnet, lease, part) in rows {
        let mut calc = ready(config(0));
        calc.apply([
            upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1),
            upsert_lease(subnet, lease, 1),
        ]);
        let told = told(&calc, subnet);
        assert!(told.contains(part), "{part} is not in {told}");
        assert_eq!(calc.tables().routes.len(), 1, "{told}");
    }
}

#[test]
fn of_two_claims_the_earlier_stays_whatever_came_first_here() {
    let shared_ip = vxlan_lease(77, 2);
    let shared_mac = Lease { public_ip: Some([192, 168, 77, 8].into()), ..vxlan_lease(77, 2) };
    for (subnet, rival, part) in [
        ("10.50.2.0/24", shared_ip, "public address 192.168.77.2 is also that of 10.50.1.0-24"),
        ("10.50.2.0/24", shared_mac, "VTEP MAC 02:00:00:00:00:02 is also that of 10.50.1.0-24"),
        ("10.50.1.128/25", vxlan_lease(77, 3), "overlaps 10.50.1.0-24, which was there first"),
        ("10.50.0.0/23", vxlan_lease(77, 3), "overlaps 10.50.1.0-24, which was there first"),
    ] {
        let early = upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 5);
        let late = upsert_lease(subnet, rival, 6);
        for order in [[early.clone(), late.clone()], [late.clone(), early.clone()]] {
            let mut calc = ready(config(0));
            for change in order {
                calc.apply([change]);
            }
            let told = told(&calc, subnet);
            assert!(told.contains(part), "{part} is not in {told}");
            assert_eq!(routes(&calc.tables()).len(), 1);
        }
    }
}

#[test]
fn a_claim_that_is_given_up_goes_to_the_next() {
    let mut calc = ready(config(0));
    calc.apply([
        upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 5),
        upsert_lease("10.50.2.0/24", vxlan_lease(77, 2), 6),
    ]);
    let patches = calc.apply([remove_lease("10.50.1.0/24")]);
    assert_eq!(patches.routes[&RouteKey::main("10.50.1.0/24".parse().unwrap())], None);
    assert!(patches.routes[&RouteKey::main("10.50.2.0/24".parse().unwrap())].is_some());
    // The MAC went from one to the other: its entry stays and is not said again.
    assert!(patches.fdb.is_empty());
    assert!(calc.refusals().is_empty());
}

#[test]
fn a_lease_that_turns_bad_is_as_if_absent() {
    let mut calc = ready(config(0));
    calc.apply([upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1)]);
    let id = FactId::Lease(lease_key("10.50.1.0/24", ""));
    calc.apply([Change::Bad { id, fault: torn() }]);
    assert!(calc.tables().routes.is_empty());
    assert_eq!(told(&calc, "10.50.1.0/24"), "lease is unreadable: torn");
    let view = calc.peers().next().unwrap();
    assert_eq!((view.lease, view.standing), (None, Standing::Refused(&torn())));
}

// ---- configuration

#[test]
fn the_last_good_configuration_stays_in_force() {
    let mut calc = ready(config(0));
    let before = calc.tables();
    let fault = Fault::from(vec![ConfigFault::NoBackendType]);
    let patches = calc.apply([Change::Bad { id: FactId::Config, fault }]);
    assert!(patches.is_empty());
    assert_eq!(calc.tables(), before);
    assert!(
        calc.refusals()[&FactId::Config]
            .to_string()
            .contains("use vxlan, host-gw, udp, ipip, wireguard, alloc or extension")
    );
    assert!(calc.is_complete(), "what is in force is known in full");

    calc.apply([new_config(config(0))]);
    assert!(calc.refusals().is_empty());
}

#[test]
fn a_bad_configuration_at_the_start_touches_nothing() {
    let mut calc = Calc::new(settings());
    let fault = Fault::from(vec![ConfigFault::NoBackendType]);
    let mut patches = calc.apply([
        Change::Bad { id: FactId::Config, fault },
        new_node(node()),
        own("10.50.7.0/24", ""),
    ]);
    patches.merge(calc.apply(Source::ALL.map(Change::InSync)));
    assert!(patches.is_empty());
    assert!(!calc.is_complete());
    assert_eq!(calc.pod_network(), None);
}

#[test]
fn a_configuration_that_vanishes_is_not_a_wish_to_tear_down() {
    let mut calc = ready(config(0));
    calc.apply([upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1)]);
    let before = calc.tables();
    calc.apply([Change::Remove { id: FactId::Config }]);
    assert_eq!(calc.tables(), before);
    assert!(!calc.is_complete(), "nothing may be swept");
    assert_eq!(calc.refusals()[&FactId::Config], Fault::ConfigGone);
}

#[test]
fn a_network_that_overlaps_a_stranger_s_route_is_refused_by_name() {
    let held = NodeFact { foreign: vec![foreign_route("10.60.3.0/24", "eth1")], ..node() };
    let mut calc = ready(config(0));
    calc.apply([new_node(held.clone())]);
    let before = calc.tables();
    assert!(calc.apply([new_config(config(4))]).is_empty(), "half of it was applied");
    assert_eq!(calc.tables(), before);
    let told = calc.refusals()[&FactId::Config].to_string();
    assert!(told.contains("10.60.0.0/16 overlaps the route 10.60.3.0/24"), "{told}");

    let mut fresh = Calc::new(settings());
    fresh.apply([new_node(held), new_config(config(4)), own("10.60.7.0/24", "")]);
    assert!(fresh.tables().is_empty());
}

#[test]
fn a_stranger_s_route_that_comes_later_stops_nothing() {
    let mut calc = ready(config(0));
    let before = calc.tables();
    let held = NodeFact { foreign: vec![foreign_route("10.50.3.0/24", "eth1")], ..node() };
    calc.apply([new_node(held)]);
    assert_eq!(calc.tables(), before);
}

#[test]
fn what_a_predecessor_left_is_not_in_the_way() {
    let foreign = vec![
        foreign_route("10.50.1.0/24", "flannel.1"),
        foreign_route("10.50.7.0/24", "cni0"),
        foreign_route("10.50.2.0/24", "eth0"),
        foreign_route("0.0.0.0/0", "eth0"),
    ];
    let mut calc = Calc::new(settings());
    calc.apply([
        new_node(NodeFact { foreign, ..node() }),
        new_config(config(0)),
        own("10.50.7.0/24", ""),
    ]);
    assert!(calc.tables().is_empty(), "10.50.2.0/24 is nobody's yet");
    calc.apply([upsert_lease("10.50.2.0/24", vxlan_lease(77, 2), 1)]);
    assert!(!calc.tables().is_empty());
}

#[test]
fn a_network_that_holds_the_node_itself_is_refused() {
    let underlay = UnderlayFact { v4: Some([10, 50, 200, 1].into()), ..node().underlay };
    let mut calc = Calc::new(settings());
    calc.apply([
        new_node(NodeFact { underlay, ..node() }),
        new_config(config(0)),
        own("10.50.7.0/24", ""),
    ]);
    assert!(calc.tables().is_empty());
    assert!(calc.refusals()[&FactId::Config].to_string().contains("underlay address 10.50.200.1"));
}

#[test]
fn an_underlay_too_small_for_ipv6_is_refused_by_name() {
    let underlay = UnderlayFact { mtu: mtu(1_300), ..node().underlay };
    let mut calc = Calc::new(settings());
    calc.apply([
        new_node(NodeFact { underlay, ..node() }),
        new_config(config(3)),
        own("10.50.7.0/24", "fd00:50:0:7::/64"),
    ]);
    assert!(calc.tables().is_empty());
    let told = calc.refusals()[&FactId::Config].to_string();
    assert!(told.contains("MTU 1300") && told.contains("1280"), "{told}");
}

#[test]
fn an_underlay_that_loses_its_address_keeps_what_is_there() {
    let mut calc = ready(config(0));
    let before = calc.tables();
    let underlay = UnderlayFact { v4: None, ..node().underlay };
    calc.apply([new_node(NodeFact { underlay, ..node() })]);
    assert_eq!(calc.tables(), before);
    assert!(calc.refusals()[&FactId::Node].to_string().contains("eth0 has no IPv4 address"));
}

#[test]
fn a_node_whose_address_changes_is_followed() {
    let mut calc = ready(config(0));
    let underlay = UnderlayFact { v4: Some([192, 168, 77, 50].into()), ..node().underlay };
    calc.apply([new_node(NodeFact { underlay, ..node() })]);
    let tables = calc.tables();
    let LinkKind::Vxlan(spec) = tables.links[&name("flannel.1")].kind else { panic!("no vxlan") };
    assert_eq!(spec.local.to_string(), "192.168.77.50");
}

#[test]
fn a_lease_elsewhere_is_waited_for_before_the_network_moves() {
    let mut calc = ready(config(0));
    let before = calc.tables();
    calc.apply([new_config(config(4))]);
    assert_eq!(calc.tables(), before);
    assert_eq!(calc.world().lease_config(), Some(config(4)), "a lease there is what is wanting");

    calc.apply([own("10.60.7.0/24", "")]);
    assert_eq!(calc.pod_network().unwrap().subnets, ["10.60.7.0/24".parse().unwrap()]);
    assert!(calc.refusals().is_empty());
}

#[test]
fn a_lease_is_not_asked_for_in_a_network_that_cannot_be() {
    let mut calc = ready(config(0));
    let held = NodeFact { foreign: vec![foreign_route("10.60.3.0/24", "eth1")], ..node() };
    calc.apply([new_node(held), new_config(config(4))]);
    assert_eq!(calc.world().lease_config(), Some(config(0)));
}

// ---- pods

#[test]
fn pods_keep_their_mtu_and_new_ones_get_the_new() {
    let mut calc = ready(config(0));
    calc.apply([new_pod(1, 1_450)]);
    let patches = calc.apply([new_config(config(2))]);
    assert!(!patches.links.contains_key(&name("veth1")));
    assert_eq!(calc.tables().links[&name("veth1")].mtu, mtu(1_450));
    assert_eq!(calc.pod_network().unwrap().mtu, mtu(1_500));
}

#[test]
fn a_change_that_pods_are_too_large_for_waits_until_they_are_gone() {
    let mut calc = ready(config(2));
    calc.apply([new_pod(1, 1_500)]);
    let before = calc.tables();
    calc.apply([new_config(config(0))]);
    assert_eq!(calc.tables(), before);
    let told = calc.refusals()[&FactId::Config].to_string();
    assert!(told.contains("1 running pods have an MTU of up to 1500"), "{told}");

    calc.apply([Change::Remove { id: FactId::Pod(pod_id(1)) }]);
    assert!(calc.tables().links.contains_key(&name("flannel.1")));
    assert!(calc.refusals().is_empty());
}

#[test]
fn a_pod_is_a_port_of_the_bridge_and_its_own_cause() {
    let mut calc = ready(config(0));
    let patches = calc.apply([new_pod(1, 1_450)]);
    assert_eq!(patches.len(), 2);
    let link = patches.links[&name("veth1")].as_ref().unwrap();
    assert_eq!(link.master, Some(name("cni0")));
    assert!(patches.ports[&name("veth1")].unwrap().hairpin.is_on());
    assert_eq!(calc.cause_of(&Key::Link(name("veth1"))), Some(FactId::Pod(pod_id(1))));
    assert_eq!(calc.cause_of(&Key::Link(name("cni0"))), Some(FactId::Config));
    assert_eq!(calc.cause_of(&Key::Link(name("veth2"))), None);
}

#[test]
fn pods_of_a_subnet_that_was_lost_are_named_and_reach_their_node() {
    let mut calc = ready(config(0));
    calc.apply([new_pod(1, 1_450), new_pod(2, 1_450)]);
    assert!(calc.refusals().is_empty());
    let bridge = |calc: &Calc| calc.tables().links[&name("cni0")].mac;
    let before = bridge(&calc);
    calc.apply([own("10.50.8.0/24", ""), upsert_lease("10.50.7.0/24", vxlan_lease(77, 9), 1)]);
    assert_eq!(bridge(&calc), before, "they know the gateway by it");
    let told = calc.refusals()[&FactId::Pod(pod_id(1))].to_string();
    assert!(told.contains("10.50.7.3 is not in this node's subnet any more"), "{told}");
    let tables = calc.tables();
    assert_eq!(
        routes(&tables),
        [
            "10.50.7.0/24 via 10.50.7.0 dev flannel.1 onlink",
            "10.50.7.3/32 metric 1 dev cni0",
            "10.50.7.4/32 metric 1 dev cni0",
        ]
    );
    let addresses = keys(tables.addresses.keys());
    assert!(addresses.contains(&"10.50.7.1/32 dev cni0".to_owned()), "{addresses:?}");
    assert!(addresses.contains(&"10.50.8.1/24 dev cni0".to_owned()), "{addresses:?}");
}

#[test]
fn the_bridge_has_the_gateway_and_a_mac_that_follows_from_it() {
    let tables = ready(config(0)).tables();
    let bridge = &tables.links[&name("cni0")];
    assert_eq!(bridge.mac.unwrap().to_string(), "0a:58:0a:32:07:01");
    let own: Vec<_> = tables.addresses.keys().map(ToString::to_string).collect();
    assert_eq!(own, ["10.50.7.1/24 dev cni0", "10.50.7.0/32 dev flannel.1"]);
}

#[test]
fn a_link_that_spoils_checksums_is_left_none_of_the_tunnels() {
    let mut calc = ready(config(3));
    calc.apply([own("10.50.7.0/24", "fd00:50:0:7::/64")]);
    assert!(calc.tables().offloads.is_empty());
    let spoils_checksums = vec![name("flannel.1"), name("flannel-v6.1")];
    let underlay = UnderlayFact { spoils_checksums, ..node().underlay };
    let patches = calc.apply([new_node(NodeFact { underlay, ..node() })]);
    assert_eq!(patches.len(), 2, "{patches:?}");
    for link in ["flannel.1", "flannel-v6.1"] {
        assert!(!patches.offloads[&name(link)].unwrap().tx_checksum.is_on());
    }
    calc.apply([new_node(node())]);
    assert!(calc.tables().offloads.is_empty());
}

#[test]
fn ipv6_forwards_only_after_the_default_route_is_safe() {
    let underlay = UnderlayFact { router_advertised: true, ..node().underlay };
    let mut calc = ready(config(3));
    calc.apply([
        new_node(NodeFact { underlay, ..node() }),
        own("10.50.7.0/24", "fd00:50:0:7::/64"),
    ]);
    let tables = calc.tables();
    let place = |path: &str| tables.sysctls.keys().position(|key| key.path == path).unwrap();
    assert_eq!(sysctl(&tables, "net/ipv6/conf/eth0/accept_ra"), Some("2"));
    assert!(place("net/ipv6/conf/eth0/accept_ra") < place("net/ipv6/conf/all/forwarding"));
    let alone = ready(config(0)).tables();
    assert_eq!(sysctl(&alone, "net/ipv6/conf/all/forwarding"), None);
    assert_eq!(sysctl(&alone, "net/ipv4/ip_forward"), Some("1"));
}

// ---- policy

#[test]
fn masquerading_follows_the_six_rules() {
    let tables = ready(config(0)).tables();
    let (_, chain) = tables.chains.first_key_value().unwrap();
    let verdicts: Vec<_> = chain.rules.iter().map(|rule| rule.verdict).collect();
    let masquerade = Verdict::Masquerade { fully_random: Flag::On };
    let back = Verdict::Return;
    assert_eq!(verdicts, [back, back, back, back, masquerade, masquerade]);
    assert_eq!(chain.rules[0].matches, [Match::Mark { mask: 0x4000, value: 0x4000 }]);
    assert_eq!(
        keys(tables.elements.keys()),
        ["ip russet @local 10.50.7.0/24", "ip russet @network 10.50.0.0/16"]
    );
}

#[test]
fn the_sixth_rule_and_all_of_them_are_a_setting() {
    let rules = |settings: Settings| {
        let mut calc = Calc::new(settings);
        calc.apply([new_config(config(0)), new_node(node()), own("10.50.7.0/24", "")]);
        calc.tables().chains.values().map(|chain| chain.rules.len()).sum::<usize>()
    };
    assert_eq!(rules(settings()), 6);
    assert_eq!(rules(Settings { hide_client_source: Flag::Off, ..settings() }), 5);
    assert_eq!(rules(Settings { masquerade: Flag::Off, ..settings() }), 0);
}

#[test]
fn a_dual_network_has_rules_in_both_families() {
    let mut calc = ready(config(3));
    calc.apply([own("10.50.7.0/24", "fd00:50:0:7::/64")]);
    let tables = calc.tables();
    let families: Vec<_> = tables.chains.keys().map(|key| key.family).collect();
    assert_eq!(families, Family::BOTH);
    assert_eq!(keys(tables.foreign_accepts.keys()), ["10.50.0.0/16", "fd00:50::/48"]);
}

// ---- sources

#[test]
fn nothing_is_complete_before_every_source_is_in_sync() {
    let mut calc = ready(config(0));
    assert!(calc.is_complete());
    for source in Source::ALL {
        calc.apply([Change::Resync(source)]);
        assert!(!calc.is_complete());
        // What the source does not tell again is gone; tell it.
        calc.apply([new_config(config(0)), new_node(node()), Change::InSync(source)]);
        assert!(calc.is_complete());
    }
}

#[test]
fn what_a_resync_does_not_repeat_goes_when_it_ends_and_not_before() {
    let mut calc = ready(config(0));
    calc.apply([
        upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1),
        upsert_lease("10.50.2.0/24", vxlan_lease(77, 3), 2),
    ]);
    let patches = calc.apply([
        Change::Resync(Source::Store),
        new_config(config(0)),
        upsert_lease("10.50.2.0/24", vxlan_lease(77, 3), 2),
    ]);
    assert!(patches.is_empty());
    let patches = calc.apply([Change::InSync(Source::Store)]);
    let gone: Vec<_> =
        patches.routes.iter().map(|(key, v)| (key.to_string(), v.is_none())).collect();
    assert_eq!(gone, [("10.50.1.0/24".to_owned(), true)]);
}

#[test]
fn our_lease_gone_from_the_store_stops_no_forwarding() {
    let mut calc = ready(config(0));
    calc.apply([upsert_lease("10.50.7.0/24", vxlan_lease(77, 1), 1)]);
    let before = calc.tables();
    assert_eq!(calc.peers().next().unwrap().standing, Standing::Own);
    assert!(calc.apply([remove_lease("10.50.7.0/24")]).is_empty());
    assert_eq!(calc.tables(), before);
}

#[test]
fn ten_thousand_leases_are_one_patch_and_one_change_is_four_objects() {
    let mut calc = ready(large());
    let patches = calc.apply((0..10_000).map(|n| large_lease(n, 0)));
    assert_eq!(patches.len(), 40_000);
    assert!(calc.refusals().is_empty());

    let patches = calc.apply([large_lease(5_000, 1)]);
    let told: usize = patches.len();
    assert_eq!(told, 3, "a neighbour, an FDB entry that comes, one that goes");
    let small = std::mem::size_of::<(FactId, russet_core::world::Known)>();
    assert!(small <= 400, "{small} octets for each fact");
}

#[test]
fn a_picture_told_in_pieces_ends_as_one_told_at_once() {
    let network = new_config(large());
    let mut picture = vec![Change::Resync(Source::Store), network];
    picture.extend((0..3 * PIECE).filter_map(|n| u32::try_from(n).ok()).map(|n| large_lease(n, 0)));
    picture.push(Change::InSync(Source::Store));
    let (mut whole, mut parted) = (ready(large()), ready(large()));
    for calc in [&mut whole, &mut parted] {
        // It is not in the picture, so it goes.
        calc.apply([upsert_lease("10.50.1.0/24", vxlan_lease(99, 2), 1)]);
    }
    let mut told = parted.tables();

    whole.apply(picture.clone());
    let mut pieces = 0;
    parted.apply_in_pieces(picture, |patches| {
        pieces += 1;
        told.apply(patches);
    });

    assert_eq!(pieces, 4);
    assert_eq!(told, whole.tables());
    assert_eq!(parted.tables(), whole.tables());
    assert_eq!(parted.refusals(), whole.refusals());
    assert!(parted.is_complete());
}
// ---- helpers

fn large() -> NetworkConfig {
    let pool = russet_core::model::Pool::new("10.0.0.0/8".parse().unwrap(), None, None, None);
    let vxlan = TransportConfig::Vxlan(VxlanConfig::default());
    NetworkConfig::new(Some(pool.unwrap()), None, vxlan).unwrap()
}

fn large_lease(n: u32, generation: u8) -> Change {
    let [_, _, a, b] = n.to_be_bytes();
    let vtep = Vtep {
        vni: Vni::try_from(1).unwrap(),
        mac: russet_net::Mac::local([2, generation, 0, 0, a, b]),
    };
    let lease = Lease {
        public_ip: Some([172, 16, a, b].into()),
        public_ipv6: None,
        backend: Backend::Vxlan { v4: Some(vtep), v6: None },
    };
    upsert_lease(&format!("10.{}.{b}.0/24", 100 + a), lease, u64::from(n))
}

fn new_pod(n: u8, size: u32) -> Change {
    Change::Upsert { id: FactId::Pod(pod_id(n)), fact: Fact::Pod(Box::new(pod(n, size))), rev: 0 }
}

fn remove_lease(v4: &str) -> Change {
    Change::Remove { id: FactId::Lease(lease_key(v4, "")) }
}

fn torn() -> Fault {
    Fault::Unreadable { what: "lease", reason: "torn".to_owned() }
}
