//! What the calculation makes of a peer, by each transport.

mod common;

use common::{
    config, keys, lease_key, mac, mtu, name, new_config, new_node, node, own, public_key, ready,
    routes, settings, sysctl, told, upsert_lease, vxlan_lease,
};
use russet_core::{
    Calc, Change, Fact, FactId,
    model::{
        Backend, IpipConfig, Lease, NetworkConfig, Preset, Settings, TransportConfig, Vtep,
        VxlanConfig, WireguardEnd,
    },
};
use russet_desired::{Flag, LinkKind};
use russet_net::{Family, Vni};

#[test]
fn a_vxlan_peer_is_four_objects() {
    let mut calc = ready(config(0));
    let patches = calc.apply([upsert_lease("10.50.1.0/24", vxlan_lease(99, 2), 1)]);

    assert_eq!(patches.len(), 4);
    let tables = calc.tables();
    assert_eq!(routes(&tables), ["10.50.1.0/24 via 10.50.1.0 dev flannel.1 onlink"]);
    assert_eq!(keys(tables.neighbours.keys()), ["10.50.1.0 dev flannel.1"]);
    assert_eq!(keys(tables.fdb.keys()), ["02:00:00:00:00:02 dev flannel.1"]);
}

#[test]
fn a_peer_s_new_mac_takes_the_old_fdb_entry_away() {
    let mut calc = ready(config(0));
    calc.apply([upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1)]);
    let other = Vtep { vni: Vni::try_from(1).unwrap(), mac: mac(9) };
    let changed =
        Lease { backend: Backend::Vxlan { v4: Some(other), v6: None }, ..vxlan_lease(77, 2) };
    let patches = calc.apply([upsert_lease("10.50.1.0/24", changed, 1)]);

    let wanted: Vec<_> = patches.fdb.iter().map(|(k, v)| (k.mac, v.is_some())).collect();
    assert_eq!(wanted, [(mac(2), false), (mac(9), true)]);
    assert_eq!(patches.neighbours.len(), 1);
    assert!(patches.routes.is_empty() && patches.next_hops.is_empty());
}

#[test]
fn direct_routing_spares_the_tunnel_only_on_a_shared_link() {
    let mut calc = ready(config(1));
    calc.apply([
        upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1),
        upsert_lease("10.50.2.0/24", vxlan_lease(99, 3), 1),
    ]);
    let tables = calc.tables();
    assert_eq!(
        routes(&tables),
        [
            "10.50.1.0/24 via 192.168.77.2 dev eth0",
            "10.50.2.0/24 via 10.50.2.0 dev flannel.1 onlink",
        ]
    );
    assert_eq!(tables.fdb.len(), 1);
    assert_eq!(tables.neighbours.len(), 1);
}

#[test]
fn what_a_peer_says_of_itself_overrides_the_pool() {
    let host_gw = Lease { backend: Backend::HostGw, ..vxlan_lease(77, 3) };
    for (pool, peer, want) in [
        (0, host_gw.clone(), "10.50.1.0/24 via 192.168.77.3 dev eth0"),
        (2, host_gw, "10.50.1.0/24 via 192.168.77.3 dev eth0"),
        (2, vxlan_lease(77, 3), "10.50.1.0/24 via 192.168.77.3 dev eth0"),
        (0, vxlan_lease(77, 3), "10.50.1.0/24 via 10.50.1.0 dev flannel.1 onlink"),
    ] {
        let mut calc = ready(config(pool));
        calc.apply([upsert_lease("10.50.1.0/24", peer, 1)]);
        assert_eq!(routes(&calc.tables()), [want]);
    }
}

#[test]
fn a_pool_that_leaves_the_tunnel_receives_by_it_until_the_last_peer_has_left() {
    let mut calc = ready(config(0));
    let host_gw = |n| Lease { backend: Backend::HostGw, ..vxlan_lease(77, n) };
    calc.apply([
        upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1),
        upsert_lease("10.50.2.0/24", vxlan_lease(77, 3), 1),
    ]);

    calc.apply([new_config(config(2))]);
    let tables = calc.tables();
    assert!(tables.links.contains_key(&name("flannel.1")), "peers still send by it");
    assert!(tables.fdb.is_empty(), "and we do not");
    assert_eq!(routes(&tables).len(), 2);

    calc.apply([upsert_lease("10.50.1.0/24", host_gw(2), 1)]);
    assert!(calc.tables().links.contains_key(&name("flannel.1")));
    let patches = calc.apply([upsert_lease("10.50.2.0/24", host_gw(3), 1)]);
    assert_eq!(patches.links[&name("flannel.1")], None);
    assert!(patches.routes.is_empty(), "no route moved");
}

#[test]
fn a_udp_peer_is_three_objects_behind_one_engine() {
    let mut calc = ready(config(5));
    let udp = Lease { backend: Backend::Udp, ..vxlan_lease(99, 2) };
    let patches = calc.apply([upsert_lease("10.50.2.0/24", udp, 5)]);
    assert_eq!(patches.len(), 3);
    let tables = calc.tables();
    assert_eq!(routes(&tables), ["10.50.2.0/24 via 10.50.2.0 dev flannel0 onlink"]);
    assert_eq!(keys(tables.engine_peers.keys()), ["10.50.2.0/24 dev flannel0"]);
    let peer = tables.engine_peers.values().next().unwrap();
    assert_eq!(peer.endpoint.to_string(), "192.168.99.2:8285");
    let end = tables.engines[&name("flannel0")].v4.unwrap();
    assert_eq!(end.listen.to_string(), "192.168.77.1:8285");
    assert_eq!(end.inner.to_string(), "10.50.7.0");
    let link = &tables.links[&name("flannel0")];
    assert_eq!((&link.kind, link.mtu.get()), (&LinkKind::Tun, 1_472));
    assert_eq!(sysctl(&tables, "net/ipv4/conf/flannel0/accept_local"), Some("1"));
}

#[test]
fn a_udp_pool_reaches_others_on_a_shared_link_only_and_the_last_tunnel_retires() {
    let mut calc = ready(config(0));
    let udp = Lease { backend: Backend::Udp, ..vxlan_lease(99, 4) };
    calc.apply([
        upsert_lease("10.50.2.0/24", vxlan_lease(77, 2), 5),
        upsert_lease("10.50.3.0/24", vxlan_lease(99, 3), 6),
        upsert_lease("10.50.4.0/24", udp, 7),
    ]);
    assert!(told(&calc, "10.50.4.0/24").contains("udp"));

    calc.apply([new_config(config(5))]);
    let tables = calc.tables();
    let wanted = [
        "10.50.2.0/24 via 192.168.77.2 dev eth0",
        "10.50.4.0/24 via 10.50.4.0 dev flannel0 onlink",
    ];
    assert_eq!(routes(&tables), wanted);
    assert!(told(&calc, "10.50.3.0/24").contains("not on a link"));
    assert_eq!(keys(tables.links.keys()), ["cni0", "flannel.1", "flannel0"], "it still receives");

    for (n, subnet) in [(2, "10.50.2.0/24"), (3, "10.50.3.0/24")] {
        let udp = Lease { backend: Backend::Udp, ..vxlan_lease(99, n) };
        calc.apply([upsert_lease(subnet, udp, 9)]);
    }
    assert_eq!(keys(calc.tables().links.keys()), ["cni0", "flannel0"]);
    assert_eq!(calc.tables().engine_peers.len(), 3);
}

#[test]
fn where_all_is_sealed_a_peer_has_a_key_of_its_own_and_nothing_goes_bare() {
    let mut calc = ready(config(7));
    let end = |n| Some(WireguardEnd { key: public_key(n), port: Some(4_000.try_into().unwrap()) });
    let sealed = |n, key| Lease {
        backend: Backend::Wireguard { v4: end(key), v6: None },
        ..vxlan_lease(77, n)
    };
    let none = Backend::Wireguard { v4: None, v6: end(5) };
    calc.apply([
        upsert_lease("10.50.2.0/24", sealed(2, 2), 5),
        upsert_lease("10.50.3.0/24", sealed(3, 2), 6),
        upsert_lease("10.50.4.0/24", sealed(4, 0), 7),
        upsert_lease("10.50.5.0/24", vxlan_lease(77, 5), 8),
        upsert_lease("10.50.6.0/24", Lease { backend: none, ..vxlan_lease(77, 6) }, 9),
    ]);
    let tables = calc.tables();
    assert_eq!(routes(&tables), ["10.50.2.0/24 via 10.50.2.0 dev flannel-wg onlink"]);
    let peer = tables.engine_peers.values().next().unwrap();
    assert_eq!(
        (peer.endpoint.to_string(), peer.key),
        ("192.168.77.2:4000".into(), Some(public_key(2)))
    );
    for (subnet, part) in [
        ("10.50.3.0/24", "also that of 10.50.2.0-24"),
        ("10.50.4.0/24", "this node's own"),
        ("10.50.5.0/24", "not sealed"),
        ("10.50.6.0/24", "no IPv4 public key"),
    ] {
        assert!(told(&calc, subnet).contains(part), "{subnet}: {}", told(&calc, subnet));
    }
    assert_eq!(tables.links[&name("flannel-wg")].mtu.get(), 1_420);
}

#[test]
fn both_families_go_by_one_engine_each_over_its_own() {
    let mut calc = ready(config(6));
    calc.apply([own("10.50.7.0/24", "fd00:50:0:7::/64")]);
    let lease = Lease {
        public_ipv6: Some("fd77::2".parse().unwrap()),
        backend: Backend::Udp,
        ..vxlan_lease(77, 2)
    };
    let key = lease_key("10.50.2.0/24", "fd00:50:0:2::/64");
    calc.apply([Change::Upsert {
        id: FactId::Lease(key),
        fact: Fact::Lease(Box::new(lease)),
        rev: 5,
    }]);
    let tables = calc.tables();
    let endpoints: Vec<_> = tables.engine_peers.values().map(|p| p.endpoint.to_string()).collect();
    assert_eq!(endpoints, ["192.168.77.2:8285", "[fd77::2]:8285"]);
    assert_eq!(tables.links[&name("flannel0")].mtu.get(), 1_452);
    assert_eq!(calc.pod_network().unwrap().mtu.get(), 1_452);
}

#[test]
fn an_ipv6_tunnel_is_70_smaller_and_so_are_the_pods() {
    let mut calc = ready(config(3));
    calc.apply([own("10.50.7.0/24", "fd00:50:0:7::/64")]);
    let tables = calc.tables();
    assert_eq!(tables.links[&name("flannel.1")].mtu, mtu(1_450));
    assert_eq!(tables.links[&name("flannel-v6.1")].mtu, mtu(1_430));
    assert_eq!(tables.links[&name("cni0")].mtu, mtu(1_430));
    assert_eq!(calc.pod_network().unwrap().mtu, mtu(1_430));
}

#[test]
fn a_configured_mtu_is_the_underlay_s() {
    let vxlan = VxlanConfig { mtu: Some(mtu(9_000)), ..VxlanConfig::default() };
    let calc = ready(vxlan_config(vxlan));
    assert_eq!(calc.tables().links[&name("flannel.1")].mtu, mtu(8_950));
    let ipip = IpipConfig { direct_routing: Flag::Off, mtu: Some(mtu(9_000)) };
    let calc = ready(of(TransportConfig::Ipip(ipip)));
    assert_eq!(calc.tables().links[&name("flannel.ipip")].mtu, mtu(8_980));
    assert_eq!(calc.pod_network().unwrap().mtu, mtu(8_980));
}

#[test]
fn the_device_says_what_the_configuration_says() {
    let vxlan = VxlanConfig {
        vni: Vni::try_from(42).unwrap(),
        port: russet_net::Port::VXLAN,
        gbp: Flag::On,
        learning: Flag::On,
        ..VxlanConfig::default()
    };
    let tables = ready(vxlan_config(vxlan)).tables();
    let LinkKind::Vxlan(spec) = tables.links[&name("flannel.42")].kind else { panic!("no vxlan") };
    assert_eq!(
        (spec.vni, spec.port, spec.gbp, spec.learning),
        (vxlan.vni, vxlan.port, Flag::On, Flag::On)
    );
    assert_eq!(spec.underlay, name("eth0"));
    assert_eq!(sysctl(&tables, "net/ipv6/conf/flannel.42/accept_ra"), Some("0"));
}

#[test]
fn a_new_vni_takes_the_old_device_and_all_behind_it_away() {
    let mut calc = ready(config(0));
    calc.apply([upsert_lease("10.50.1.0/24", vxlan_lease(77, 2), 1)]);
    let vni = Vni::try_from(2).unwrap();
    let patches =
        calc.apply([new_config(vxlan_config(VxlanConfig { vni, ..VxlanConfig::default() }))]);
    assert_eq!(patches.links[&name("flannel.1")], None);
    assert!(patches.links[&name("flannel.2")].is_some());
    assert!(patches.routes.values().all(Option::is_none));
    assert!(told(&calc, "10.50.1.0/24").contains("VNI is 1, and this network's is 2"));
}

#[test]
fn our_own_preset_has_names_of_its_own() {
    let settings = Settings { preset: Preset::Russet, ..settings() };
    let mut calc = Calc::new(settings);
    let vni = Vni::MAX;
    calc.apply([
        new_config(vxlan_config(VxlanConfig { vni, ..VxlanConfig::default() })),
        new_node(node()),
        own("10.50.7.0/24", ""),
    ]);
    assert!(calc.tables().links.contains_key(&name("rst.vx16777215")));
}

fn vxlan_config(vxlan: VxlanConfig) -> NetworkConfig {
    of(TransportConfig::Vxlan(vxlan))
}

fn of(transport: TransportConfig) -> NetworkConfig {
    NetworkConfig::new(config(0).pool(Family::V4), None, transport).unwrap()
}
