//! Blocks that name their nodes: what reaches a node, and what holds while a pool turns to another tunnel.

mod common;

use common::{
    blocks::{
        by_routers, config, holds, host, ipip, is_at, key, name, pool, ready, ready_with, settings,
        upsert, vxlan,
    },
    foreign_route, node, routes,
};
use russet_core::{
    Calc, Change, Fact, FactId, Source,
    distribution::bgp,
    model::{NetworkConfig, NodeFact, PoolHabits, TransportConfig, Tunnel},
};
use russet_desired::{Flag, RouteVia};
use russet_net::{Dst, Family};

#[test]
fn all_blocks_of_a_node_share_its_neighbour_and_its_next_hop() {
    let mut calc = ready(config(0));
    calc.apply([is_at(2, host(77, 2, "v")), holds(2, "10.244.1.0/26"), holds(2, "10.244.1.64/26")]);
    assert_eq!(
        routes(&calc.tables()),
        [
            "10.244.1.0/26 via 10.244.200.2 dev vxlan.calico onlink",
            "10.244.1.64/26 via 10.244.200.2 dev vxlan.calico onlink",
            "10.244.7.0/26 blackhole",
        ]
    );
    let count = |calc: &Calc| {
        let tables = calc.tables();
        (tables.neighbours.len(), tables.fdb.len(), tables.next_hops.len())
    };
    assert_eq!(count(&calc), (1, 1, 1));
    calc.apply([gone("10.244.1.0/26")]);
    assert_eq!(count(&calc), (1, 1, 1), "the other block wants them");
    calc.apply([gone("10.244.1.64/26")]);
    assert_eq!(count(&calc), (0, 0, 0));
}

#[test]
fn a_node_that_moves_takes_its_blocks_along_and_one_that_nobody_knows_is_told() {
    let mut calc = ready(config(2));
    calc.apply([holds(2, "10.244.1.0/26")]);
    let fault = calc.refusals()[&FactId::Lease(key("10.244.1.0/26"))].to_string();
    assert!(fault.contains("no Node of that name") && fault.contains("n2"), "{fault}");
    calc.apply([is_at(2, host(77, 2, ""))]);
    assert_eq!(remote(&calc), ["10.244.1.0/26 via 192.168.77.2 dev eth0"]);
    calc.apply([is_at(2, host(77, 9, ""))]);
    assert_eq!(remote(&calc), ["10.244.1.0/26 via 192.168.77.9 dev eth0"]);
    calc.apply([Change::Remove { id: FactId::Host(name(2)) }]);
    assert!(remote(&calc).is_empty());
}

#[test]
fn an_address_out_of_anothers_block_has_a_route_of_its_own() {
    let mut calc = ready(config(2));
    calc.apply([is_at(2, host(77, 2, "")), is_at(3, host(77, 3, ""))]);
    calc.apply([holds(2, "10.244.1.0/26"), holds(3, "10.244.1.9/32"), holds(3, "10.244.7.5/32")]);
    assert_eq!(
        routes(&calc.tables()),
        [
            "10.244.1.0/26 via 192.168.77.2 dev eth0",
            "10.244.1.9/32 via 192.168.77.3 dev eth0",
            "10.244.7.0/26 blackhole",
            "10.244.7.5/32 via 192.168.77.3 dev eth0",
        ]
    );
}

#[test]
fn of_two_nodes_with_one_address_all_blocks_of_the_earlier_stand() {
    let mut calc = ready(config(2));
    calc.apply([is_at(2, host(77, 5, "")), is_at(3, host(77, 5, ""))]);
    calc.apply([holds(3, "10.244.1.0/26"), holds(2, "10.244.2.0/26"), holds(3, "10.244.3.0/26")]);
    assert_eq!(remote(&calc), ["10.244.2.0/26 via 192.168.77.5 dev eth0"]);
    calc.apply([Change::Remove { id: FactId::Host(name(2)) }]);
    assert_eq!(remote(&calc).len(), 2);
}

#[test]
fn each_pool_has_its_own_tunnel_and_across_subnets_alone_where_it_says_so() {
    let mut calc = ready(config(1));
    calc.apply([is_at(2, host(77, 2, "iv")), is_at(3, host(99, 3, "iv"))]);
    calc.apply([
        holds(2, "10.244.1.0/26"),
        holds(2, "10.245.1.0/26"),
        holds(3, "10.245.2.0/26"),
        holds(3, "10.247.2.0/26"),
    ]);
    assert_eq!(
        remote(&calc),
        [
            "10.244.1.0/26 via 10.244.200.2 dev vxlan.calico onlink",
            "10.245.1.0/26 via 192.168.77.2 dev eth0",
            "10.245.2.0/26 via 192.168.99.3 dev tunl0 onlink",
        ]
    );
    let fault = calc.refusals()[&FactId::Lease(key("10.247.2.0/26"))].to_string();
    assert!(fault.contains("is in no pool"), "{fault}");
    // The least that any pool leaves.
    assert_eq!(calc.pod_network().unwrap().mtu.get(), 1_450);
}

#[test]
fn a_pool_turns_to_another_tunnel_node_by_node_and_the_old_end_goes_last() {
    let mut calc = ready(config(6));
    calc.apply([is_at(2, host(77, 2, "i")), holds(2, "10.244.1.0/26")]);
    let by_ipip = "10.244.1.0/26 via 192.168.77.2 dev tunl0 onlink";
    let by_vxlan = "10.244.1.0/26 via 10.244.200.2 dev vxlan.calico onlink";
    assert_eq!(remote(&calc), [by_ipip]);

    // The pool says vxlan: we are ready to take it at once, and the other is not yet.
    let vxlan = NetworkConfig::of_pools([pool("10.244.0.0/16", vxlan(), false)]);
    calc.apply([upsert(FactId::Config, Fact::Config(vxlan), 2)]);
    assert_eq!(remote(&calc), [by_ipip]);
    assert_eq!(links(&calc), ["tunl0", "vxlan.calico"]);
    let both = [(Tunnel::Ipip, Family::V4), (Tunnel::Vxlan, Family::V4)];
    assert_eq!(calc.world().tunnels().into_iter().collect::<Vec<_>>(), both);

    // The other is ready, and may still send by the old.
    calc.apply([is_at(2, host(77, 2, "iv"))]);
    assert_eq!(remote(&calc), [by_vxlan]);
    assert_eq!(links(&calc), ["tunl0", "vxlan.calico"]);
    assert_eq!(calc.world().tunnels().into_iter().collect::<Vec<_>>(), both[1..]);

    // It does not any more.
    calc.apply([is_at(2, host(77, 2, "v"))]);
    assert_eq!(remote(&calc), [by_vxlan]);
    assert_eq!(links(&calc), ["vxlan.calico"]);
}

#[test]
fn a_sealed_tunnel_is_sent_into_by_who_was_told_our_key_and_goes_last_too() {
    let mut calc = ready(config(9));
    calc.apply([is_at(2, host(77, 2, "vw")), holds(2, "10.244.1.0/26")]);
    let sealed = "10.244.1.0/26 via 10.244.1.0 dev wireguard.cali onlink";
    let bare = "10.244.1.0/26 via 192.168.77.2 dev eth0";
    // Until our own Node says our key, the other drops what we seal.
    assert_eq!(remote(&calc), [bare]);
    calc.apply([is_at(0, host(77, 1, "w"))]);
    assert_eq!(remote(&calc), [sealed]);

    let vxlan = NetworkConfig::of_pools([pool("10.244.0.0/16", vxlan(), false)]);
    calc.apply([is_at(2, host(77, 2, "w")), upsert(FactId::Config, Fact::Config(vxlan), 2)]);
    assert_eq!(remote(&calc), [sealed]);
    calc.apply([is_at(2, host(77, 2, "vw"))]);
    assert_eq!(remote(&calc), ["10.244.1.0/26 via 10.244.200.2 dev vxlan.calico onlink"]);
    assert_eq!(links(&calc), ["vxlan.calico", "wireguard.cali"]);
    calc.apply([is_at(2, host(77, 2, "v"))]);
    assert_eq!(links(&calc), ["vxlan.calico"]);
}

#[test]
fn a_family_that_leaves_vxlan_hears_by_it_while_a_node_has_the_end_and_the_other_family_stays() {
    let mut calc = ready(config(0));
    calc.apply([is_at(2, host(77, 2, "v6")), holds(2, "10.244.1.0/26")]);
    let six = config(0).pools().nth(1).unwrap().network().to_string();
    let pools = [pool("10.244.0.0/16", TransportConfig::Direct, false), pool(&six, vxlan(), false)];
    calc.apply([upsert(FactId::Config, Fact::Config(NetworkConfig::of_pools(pools)), 2)]);
    assert_eq!(remote(&calc), ["10.244.1.0/26 via 192.168.77.2 dev eth0"]);
    assert_eq!(links(&calc), ["vxlan-v6.calico", "vxlan.calico"]);
    calc.apply([is_at(2, host(77, 2, "6"))]);
    assert_eq!(links(&calc), ["vxlan-v6.calico"]);
}

#[test]
fn a_pool_that_is_left_to_routers_goes_by_its_tunnel_until_they_teach_the_way() {
    let mut calc = ready_with(by_routers(), config(6));
    let others = [holds(2, "10.244.1.0/26"), holds(2, "10.244.2.0/26")];
    calc.apply(others.into_iter().chain([is_at(2, host(77, 2, "i"))]));
    calc.apply([upsert(FactId::Config, Fact::Config(config(7)), 2)]);
    let by_ipip = |block: &str| format!("{block} via 192.168.77.2 dev tunl0 onlink");
    assert_eq!(remote(&calc), [by_ipip("10.244.1.0/26"), by_ipip("10.244.2.0/26")]);
    let ipip = (Tunnel::Ipip, Family::V4);
    assert_eq!(calc.world().tunnels().into_iter().collect::<Vec<_>>(), [ipip]);

    let learn = |dst: &str| {
        let router = std::net::IpAddr::from([192, 168, 77, 2]).into();
        upsert(FactId::Learned(dst.parse().unwrap()), Fact::Learned(router), 0)
    };
    calc.apply([learn("10.244.1.0/26")]);
    assert_eq!(
        remote(&calc),
        ["10.244.1.0/26 via 192.168.77.2 dev eth0".to_owned(), by_ipip("10.244.2.0/26")]
    );
    // What a rack's router teaches may be larger than a block, but not all there is.
    calc.apply([learn("0.0.0.0/0")]);
    assert!(remote(&calc).contains(&by_ipip("10.244.2.0/26")));
    calc.apply([learn("10.244.0.0/18")]);
    assert!(!remote(&calc).contains(&by_ipip("10.244.2.0/26")));
    assert!(calc.world().tunnels().is_empty());
    // It hears by the tunnel as long as the other has an end.
    assert_eq!(links(&calc), ["tunl0"]);
    calc.apply([is_at(2, host(77, 2, ""))]);
    assert!(links(&calc).is_empty());
}

#[test]
fn an_agent_that_starts_half_way_sends_by_the_tunnel_whose_end_is_there() {
    let mut calc = ready(config(1));
    calc.apply([is_at(2, host(77, 2, "i")), holds(2, "10.244.1.0/26")]);
    assert_eq!(remote(&calc), ["10.244.1.0/26 via 192.168.77.2 dev tunl0 onlink"]);
    calc.apply([is_at(3, host(99, 3, "")), holds(3, "10.244.2.0/26")]);
    let fault = calc.refusals()[&FactId::Lease(key("10.244.2.0/26"))].to_string();
    assert!(fault.contains("no end of vxlan for IPv4"), "{fault}");
}

#[test]
fn what_is_left_to_routers_is_taken_from_them_and_only_that() {
    let mut calc = ready(config(4));
    calc.apply([is_at(2, host(77, 2, "i"))]);
    calc.apply([holds(2, "10.244.1.0/26"), holds(2, "10.245.1.0/26")]);
    assert_eq!(remote(&calc), ["10.245.1.0/26 via 192.168.77.2 dev tunl0 onlink"]);
    let learn = |dst: &str| {
        let router = std::net::IpAddr::from([192, 168, 77, 2]).into();
        upsert(FactId::Learned(dst.parse().unwrap()), Fact::Learned(router), 0)
    };
    calc.apply([learn("10.244.1.0/26"), learn("10.245.1.0/26")]);
    assert_eq!(
        remote(&calc),
        [
            "10.244.1.0/26 via 192.168.77.2 dev eth0",
            "10.245.1.0/26 via 192.168.77.2 dev tunl0 onlink",
        ]
    );
}

#[test]
fn a_node_announces_its_blocks_and_what_it_borrowed_but_for_pools_that_are_not_exported() {
    let habits = PoolHabits { bgp_export: Flag::Off, ..PoolHabits::default() };
    let (mut hidden, _) = pool("10.245.0.0/16", TransportConfig::Direct, false);
    hidden.habits = habits;
    let shown = pool("10.244.0.0/16", TransportConfig::Direct, false);
    let mut calc = ready(NetworkConfig::of_pools([shown, (hidden, TransportConfig::Direct)]));
    calc.apply([holds(0, "10.245.7.0/26"), holds(0, "10.244.9.9/32")]);
    let me = calc.world().me().unwrap();
    let announced = bgp::announced(&me).map(|it| match it.dst {
        Dst::Prefix(prefix) => prefix.to_string(),
    });
    assert_eq!(announced.collect::<Vec<_>>(), ["10.244.7.0/26", "10.244.9.9/32"]);
}

#[test]
fn a_node_without_a_block_is_in_force_and_gets_its_blackhole_with_its_first() {
    let mut calc = Calc::new(settings());
    calc.apply([
        upsert(FactId::Config, Fact::Config(config(0)), 1),
        upsert(FactId::Node, Fact::Node(Box::new(node())), 1),
    ]);
    calc.apply(Source::ALL.map(Change::InSync));
    assert!(calc.is_complete());
    assert!(calc.pod_network().is_some());
    assert!(routes(&calc.tables()).is_empty());
    calc.apply([holds(0, "10.244.7.0/26")]);
    assert_eq!(routes(&calc.tables()), ["10.244.7.0/26 blackhole"]);
    calc.apply([holds(2, "10.244.7.0/26"), is_at(2, host(77, 2, "v"))]);
    assert_eq!(routes(&calc.tables()), ["10.244.7.0/26 via 10.244.200.2 dev vxlan.calico onlink"]);
}

#[test]
fn only_pools_that_say_so_are_masqueraded_and_never_towards_a_pool() {
    let calc = ready(config(0));
    assert!(calc.tables().chains.keys().all(|chain| chain.name != "postrouting"));
    let says = |cidr, flag| {
        let (mut pool, transport) = pool(cidr, ipip(), false);
        pool.habits.nat_outgoing = Some(flag);
        (pool, transport)
    };
    let pools = [says("10.244.0.0/16", Flag::On), says("10.245.0.0/16", Flag::Off)];
    let tables = ready(NetworkConfig::of_pools(pools)).tables();
    let elements = |name: &str| tables.elements.keys().filter(|it| it.set.name == name).count();
    assert_eq!((elements("outgoing"), elements("network")), (1, 2));
    let chain = tables.chains.iter().find(|(chain, _)| chain.name == "postrouting").unwrap();
    assert_eq!(chain.1.rules.len(), 2);
}

#[test]
fn one_pool_that_does_not_hold_here_does_not_stop_the_others() {
    let six =
        || vec![pool("10.244.0.0/16", vxlan(), false), pool("fd00:10:244::/64", vxlan(), false)];
    let mut without = node();
    without.underlay.v6 = None;
    let fresh = |config| {
        let mut calc = Calc::new(settings());
        calc.apply([
            upsert(FactId::Config, Fact::Config(config), 1),
            upsert(FactId::Node, Fact::Node(Box::new(without.clone())), 1),
            is_at(2, host(77, 2, "v")),
            holds(2, "10.244.1.0/26"),
        ]);
        calc
    };
    // A node that starts, and one that has the good pool already.
    let mut later = fresh(NetworkConfig::of_pools([pool("10.244.0.0/16", vxlan(), false)]));
    later.apply([upsert(FactId::Config, Fact::Config(NetworkConfig::of_pools(six())), 2)]);
    for calc in [fresh(NetworkConfig::of_pools(six())), later] {
        assert_eq!(remote(&calc), ["10.244.1.0/26 via 10.244.200.2 dev vxlan.calico onlink"]);
        let fault = calc.refusals()[&FactId::Config].to_string();
        assert!(fault.contains("no IPv6 address"), "{fault}");
    }
}

#[test]
fn a_node_gets_its_blocks_also_while_a_pool_waits_for_a_stranger_s_route_to_go() {
    let mut calc = ready(config(0));
    let fact = NodeFact { foreign: vec![foreign_route("10.245.3.0/24", "eth0")], ..node() };
    calc.apply([
        upsert(FactId::Node, Fact::Node(Box::new(fact)), 2),
        upsert(FactId::Config, Fact::Config(config(1)), 2),
    ]);
    let fault = calc.refusals()[&FactId::Config].to_string();
    assert!(fault.contains("10.245.3.0/24"), "{fault}");
    let patches = calc.apply([holds(0, "10.244.8.0/26")]);
    assert_eq!(patches.routes.len(), 1, "its blackhole: {:?}", patches.routes);
    // It is another's from now on, and the way to it shows.
    calc.apply([is_at(2, host(77, 2, "v")), holds(2, "10.244.8.0/26")]);
    assert_eq!(remote(&calc), ["10.244.8.0/26 via 10.244.200.2 dev vxlan.calico onlink"]);
}

fn gone(prefix: &str) -> Change {
    Change::Remove { id: FactId::Lease(key(prefix)) }
}

/// Routes to others.
fn remote(calc: &Calc) -> Vec<String> {
    let tables = calc.tables();
    let own = |(_, spec): &(_, &russet_desired::RouteSpec)| spec.via == RouteVia::Blackhole;
    assert!(tables.routes.iter().filter(own).count() <= 2);
    routes(&tables).into_iter().filter(|route| !route.ends_with("blackhole")).collect()
}

fn links(calc: &Calc) -> Vec<String> {
    calc.tables().links.keys().map(ToString::to_string).collect()
}
