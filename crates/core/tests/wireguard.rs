//! Who seals, by which devices, and by which family sealed packets cross.

mod common;

use common::{config, keys, lease_key, public_key, ready_with, routes, settings, vxlan_lease};
use russet_core::{
    Change, Fact, FactId,
    model::{Backend, Lease, Sealer, Settings, WireguardEnd},
};
use russet_desired::Tables;

#[test]
fn the_kernel_seals_by_a_device_for_each_family_or_by_one_for_both() {
    let (v4, v6) = ("192.168.77.2:51820", "[fd77::2]:51820");
    for (i, links, endpoints) in [
        (8, &["flannel-wg", "flannel-wg-v6"][..], [v4, "[fd77::2]:51821"]),
        (9, &["flannel-wg"], [v4, v4]),
        (10, &["flannel-wg"], [v4, v4]),
        (11, &["flannel-wg"], [v6, v6]),
    ] {
        let tables = sealed_by(Sealer::Kernel, i);
        assert_eq!(keys(tables.wireguard_devices.keys()), links, "{i}");
        assert_eq!(keys(tables.links.keys()), [&["cni0"], links].concat(), "{i}");
        let said = tables.wireguard_peers.values().map(|peer| peer.endpoint.to_string());
        assert_eq!(said.collect::<Vec<_>>(), endpoints, "{i}");
        assert!(tables.engines.is_empty() && tables.engine_peers.is_empty());
        let of_v6 =
            tables.addresses.keys().find(|key| key.len == 128).map(|key| key.link.to_string());
        assert_eq!(of_v6.as_deref(), links.last().copied(), "{i}");
    }
}

#[test]
fn the_way_into_the_device_waits_for_no_other_way_to_the_subnet() {
    for (sealer, links) in
        [(Sealer::Kernel, ["flannel-wg", "flannel-wg-v6"]), (Sealer::Engine, ["flannel-wg"; 2])]
    {
        let [v4, v6] = links;
        let ways = routes(&sealed_by(sealer, 8));
        assert_eq!(ways[0], format!("10.50.2.0/24 via 10.50.2.0 dev {v4} onlink"));
        let [before, after] =
            ["fd00:50:0:2::/64 via fe80::".to_owned(), format!(" dev {v6} onlink")];
        assert!(ways[1].starts_with(&before) && ways[1].ends_with(&after), "{ways:?}");
        assert_eq!(ways.len(), 2);
    }
}

#[test]
fn an_engine_listens_where_each_mode_has_packets_cross() {
    let listens = |i| {
        let tables = sealed_by(Sealer::Engine, i);
        assert!(tables.wireguard_devices.is_empty() && tables.wireguard_peers.is_empty());
        let engine = tables.engines.values().next().copied().unwrap();
        let ends = [engine.v4, engine.v6].into_iter().flatten();
        ends.map(|end| end.listen.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listens(8), ["192.168.77.1:51820", "[fd77::1]:51821"]);
    assert_eq!(listens(9), ["192.168.77.1:51820", "[fd77::1]:51820"]);
    assert_eq!(listens(10), ["192.168.77.1:51820"]);
    assert_eq!(listens(11), ["[fd77::1]:51820"]);
}

/// A node of both families with one peer that says no port.
fn sealed_by(sealer: Sealer, i: usize) -> Tables {
    let mut calc = ready_with(Settings { sealer, ..settings() }, config(i));
    let own = Fact::Own(lease_key("10.50.7.0/24", "fd00:50:0:7::/64"));
    calc.apply([Change::Upsert { id: FactId::Own, fact: own, rev: 1 }]);
    let end = Some(WireguardEnd { key: public_key(2), port: None });
    let lease = Lease {
        public_ipv6: Some("fd77::2".parse().unwrap()),
        backend: Backend::Wireguard { v4: end, v6: end },
        ..vxlan_lease(77, 2)
    };
    let key = lease_key("10.50.2.0/24", "fd00:50:0:2::/64");
    calc.apply([Change::Upsert {
        id: FactId::Lease(key),
        fact: Fact::Lease(Box::new(lease)),
        rev: 5,
    }]);
    calc.tables()
}
