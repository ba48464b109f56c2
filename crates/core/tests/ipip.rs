//! IPv4 in IPv4, and the network that is somebody else's to carry.

mod common;

use common::{config, ready, routes, told, upsert_lease, vxlan_lease};
use russet_core::{
    Change, Fact, FactId,
    calc::Standing,
    model::{Backend, Lease},
};
use russet_desired::LinkKind;

#[test]
fn a_peer_is_a_route_through_its_own_address_and_nothing_else() {
    let mut calc = ready(config(12));
    let patches = calc.apply([upsert_lease("10.50.1.0/24", ipip(99, 2), 1)]);
    assert_eq!(patches.len(), 2);
    let tables = calc.tables();
    assert_eq!(routes(&tables), ["10.50.1.0/24 via 192.168.99.2 dev flannel.ipip onlink"]);
    let device = &tables.links[&"flannel.ipip".parse().unwrap()];
    let LinkKind::Ipip(spec) = device.kind else { panic!("{device:?}") };
    assert_eq!((spec.local, device.mtu.get()), (Some([192, 168, 77, 1].into()), 1_480));
}

#[test]
fn with_direct_routing_a_peer_on_a_shared_link_is_reached_bare() {
    let leases = || [("10.50.1.0/24", ipip(99, 2)), ("10.50.2.0/24", ipip(77, 3))];
    for (i, near) in [(12, "dev flannel.ipip onlink"), (13, "dev eth0")] {
        let mut calc = ready(config(i));
        calc.apply(leases().map(|(subnet, lease)| upsert_lease(subnet, lease, 1)));
        let near = format!("10.50.2.0/24 via 192.168.77.3 {near}");
        let far = "10.50.1.0/24 via 192.168.99.2 dev flannel.ipip onlink".to_owned();
        assert_eq!(routes(&calc.tables()), [far, near]);
    }
}

#[test]
fn a_peer_of_another_backend_is_reached_bare_on_a_shared_link_or_refused_by_name() {
    for (i, near, far) in
        [(12, vxlan_lease(77, 3), vxlan_lease(99, 4)), (0, ipip(77, 3), ipip(99, 4))]
    {
        let mut calc = ready(config(i));
        calc.apply([upsert_lease("10.50.2.0/24", near, 1), upsert_lease("10.50.3.0/24", far, 2)]);
        assert_eq!(routes(&calc.tables()), ["10.50.2.0/24 via 192.168.77.3 dev eth0"]);
        assert!(told(&calc, "10.50.3.0/24").contains("not on a link"), "{i}");
    }
}

#[test]
fn a_tunnel_that_peers_still_send_into_is_kept_to_hear_by() {
    let mut calc = ready(config(12));
    calc.apply([upsert_lease("10.50.1.0/24", ipip(77, 2), 1)]);
    let change = |i| Change::Upsert { id: FactId::Config, fact: Fact::Config(config(i)), rev: 2 };
    calc.apply([change(2)]);
    assert!(calc.tables().links.contains_key(&"flannel.ipip".parse().unwrap()));
    assert_eq!(routes(&calc.tables()), ["10.50.1.0/24 via 192.168.77.2 dev eth0"]);

    let direct = Lease { backend: Backend::HostGw, ..ipip(77, 2) };
    calc.apply([upsert_lease("10.50.1.0/24", direct, 3)]);
    assert!(!calc.tables().links.contains_key(&"flannel.ipip".parse().unwrap()));
}

#[test]
fn where_somebody_else_carries_the_packets_there_is_neither_device_nor_route() {
    let mut calc = ready(config(14));
    let unnamed = Lease { backend: Backend::Udp, ..ipip(99, 2) };
    calc.apply([
        upsert_lease("10.50.1.0/24", unnamed, 1),
        upsert_lease("10.50.2.0/24", vxlan_lease(99, 3), 2),
    ]);
    let tables = calc.tables();
    assert!(tables.routes.is_empty() && tables.next_hops.is_empty());
    assert_eq!(tables.links.keys().map(ToString::to_string).collect::<Vec<_>>(), ["cni0"]);
    assert_eq!(calc.pod_network().unwrap().mtu.get(), 1_500);
    assert!(calc.peers().all(|peer| matches!(peer.standing, Standing::Foreign | Standing::Own)));
    assert_eq!(calc.refusals().len(), 0);
}

fn ipip(subnet: u8, n: u8) -> Lease {
    Lease { backend: Backend::Ipip, ..vxlan_lease(subnet, n) }
}
