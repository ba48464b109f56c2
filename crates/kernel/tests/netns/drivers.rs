//! Each kind: made, changed, removed, left alone when right, and found again after a restart.

use std::time::Instant;

use russet_desired::{
    FdbKey, FdbSpec, Flag, Item, Key, LinkKind, LinkSpec, NextHopKey, NextHopSpec, PortSpec,
    RouteKey, RouteSpec, SysctlKey, SysctlSpec,
};
use russet_kernel::{
    one_line,
    reconcile::{News, Path, Reconcilers},
};
use russet_net::{Mac, Mtu, Vni};
use serde_json::json as value;

use crate::support::*;

#[test]
fn a_vxlan_link_is_made_as_flannel_makes_it() {
    on_a_node(|| {
        settled(overlay(0));

        let link = link_json("flannel.1");
        assert_eq!(link["mtu"], 1_450);
        assert_eq!(link["address"], mac(0xa0).to_string());
        assert_eq!(link["group"], "21077");
        assert_eq!(link["ifalias"], "russet:vtep");
        assert!(link["flags"].as_array().unwrap().contains(&value!("UP")), "{link}");
        let data = &link["linkinfo"]["info_data"];
        for (field, wanted) in [
            ("id", value!(1)),
            ("local", value!("192.168.77.1")),
            ("link", value!("eth0")),
            ("port", value!(8_472)),
            ("port_range", value!({"low": 0, "high": 0})),
            ("learning", value!(false)),
            ("ttl", value!(0)),
            ("df", value!("unset")),
            ("ageing", value!(300)),
            ("udp_csum", value!(true)),
            ("udp_zero_csum6_tx", value!(false)),
            ("udp_zero_csum6_rx", value!(false)),
        ] {
            assert_eq!(data[field], wanted, "{field}");
        }
    });
}

#[test]
fn what_is_right_is_not_sent_again_and_a_restart_sends_nothing() {
    on_a_node(|| {
        let mut all = settled(overlay(50));
        let again = messages(&mut all, |all| {
            all.update(overlay(50));
            apply(all);
        });
        assert_eq!(again, 0, "the same wishes are no news");
        let before = dump();
        drop(all);

        let mut next = Reconcilers::open().unwrap();
        next.update(overlay(50));
        next.complete();
        let listed = messages(&mut next, apply);
        assert!(listed < 12, "a restart only lists: {listed} messages");
        assert_unchanged(&before);
    });
}

#[test]
fn what_a_predecessor_left_is_swept_once_all_is_told_and_not_before() {
    on_a_node(|| {
        drop(settled(overlay(20)));

        let mut next = Reconcilers::open().unwrap();
        next.update(overlay(5));
        apply(&mut next);
        assert_eq!(counts(), (20, 20, 20, 20), "it may yet be wished for");

        next.complete();
        apply(&mut next);
        assert_eq!(counts(), (5, 5, 5, 5));
    });
}

#[test]
fn everything_unwished_goes_in_the_end() {
    on_a_node(|| {
        let before = dump();
        let mut all = settled(overlay(20));
        let keys: Vec<Key> = items(20).iter().map(Item::key).collect();
        all.update(no_longer(keys));
        apply(&mut all);
        assert_unchanged(&before);
    });
}

#[test]
fn a_link_is_changed_in_place_where_the_kernel_can() {
    on_a_node(|| {
        let mut all = settled(overlay(3));
        let index = link_json("flannel.1")["ifindex"].clone();
        let spec = LinkSpec {
            mtu: Mtu::try_from(1_400).unwrap(),
            mac: Some(mac(7)),
            master: Some(name("cni0")),
            role: "segment",
            ..vxlan(1)
        };
        all.update(wish([Item::Link(name("flannel.1"), spec)]));
        apply(&mut all);

        let link = link_json("flannel.1");
        assert_eq!(link["ifindex"], index, "it is the same link");
        assert_eq!(link["mtu"], 1_400);
        assert_eq!(link["address"], mac(7).to_string());
        assert_eq!(link["master"], "cni0");
        assert_eq!(link["ifalias"], "russet:segment");
    });
}

#[test]
fn a_link_that_cannot_be_changed_is_made_again_with_all_behind_it() {
    on_a_node(|| {
        let mut all = settled(overlay(10));
        let mut spec = vxlan(1);
        if let LinkKind::Vxlan(vxlan) = &mut spec.kind {
            vxlan.vni = Vni::try_from(7).unwrap();
            vxlan.gbp = Flag::On;
        }
        all.update(wish([Item::Link(name("flannel.1"), spec)]));
        apply(&mut all);

        let data = &link_json("flannel.1")["linkinfo"]["info_data"];
        assert_eq!((&data["id"], &data["gbp"]), (&value!(7), &value!(true)));
        assert_eq!(counts(), (10, 10, 10, 10));
        assert!(ip("addr show dev flannel.1").contains("10.50.67.0/32"));
    });
}

#[test]
fn a_device_of_our_name_that_is_not_ours_is_left_alone_and_named() {
    on_a_node(|| {
        ip("link add flannel.1 type vxlan id 9 dev eth0 dstport 4789");
        ip("link add cni0 type bridge");
        ip("link set cni0 alias docker");
        let before = dump();

        let mut all = Reconcilers::open().unwrap();
        all.update(overlay(2));
        all.complete();
        all.apply(Instant::now()).unwrap();

        assert_unchanged(&before);
        let failed = failures(&mut all);
        assert!(
            failed.contains(
                &"add link flannel.1: held by a vxlan in link group 0 with alias none".to_owned()
            ),
            "{failed:?}"
        );
        assert!(
            failed.contains(
                &"add link cni0: held by a bridge in link group 0 with alias docker".to_owned()
            ),
            "{failed:?}"
        );
    });
}

#[test]
fn a_link_that_was_made_but_not_yet_named_ours_is_finished() {
    on_a_node(|| {
        ip("link add cni0 group 21077 type bridge");
        settled(wish([cni0()]));
        assert_eq!(link_json("cni0")["ifalias"], "russet:bridge");
    });
}

#[test]
fn a_bridge_keeps_its_mtu_when_its_ports_come_and_go() {
    on_a_node(|| {
        let _all = settled(wish([cni0()]));

        ip("link add port0 mtu 1450 master cni0 type veth peer name port1");
        assert_eq!(link_json("cni0")["mtu"], 1_450);
        ip("link del port0");
        assert_eq!(link_json("cni0")["mtu"], 1_450, "the kernel fell back to its own");
    });
}

#[test]
fn a_bridge_port_turns_its_hairpin_on_and_off() {
    on_a_node(|| {
        ip("link add rst1 group 21077 type veth peer name podside");
        ip("link set rst1 alias russet:pod");
        let spec = LinkSpec {
            kind: LinkKind::PodVeth,
            role: "pod",
            mac: None,
            mtu: Mtu::try_from(1_450).unwrap(),
            master: Some(name("cni0")),
            inherits: Flag::Off,
        };
        let port = |hairpin| Item::Port(name("rst1"), PortSpec { hairpin });
        let mut all = settled(wish([cni0(), Item::Link(name("rst1"), spec), port(Flag::On)]));
        let hairpin = || link_json("rst1")["linkinfo"]["info_slave_data"]["hairpin"].clone();
        assert_eq!(link_json("rst1")["master"], "cni0");
        assert_eq!(link_json("rst1")["mtu"], 1_450);
        assert_eq!(hairpin(), true);

        all.update(wish([port(Flag::Off)]));
        apply(&mut all);
        assert_eq!(hairpin(), false);
    });
}

#[test]
fn a_pod_s_veth_that_is_gone_cannot_be_made_again_here() {
    on_a_node(|| {
        let spec = LinkSpec { kind: LinkKind::PodVeth, role: "pod", ..vxlan(1) };
        let mut all = Reconcilers::open().unwrap();
        all.update(wish([Item::Link(name("rst1"), spec)]));
        all.apply(Instant::now()).unwrap();
        let failed = failures(&mut all);
        assert!(failed[0].contains("only the pod's ADD can make"), "{failed:?}");
    });
}

#[test]
fn an_ipv6_address_is_usable_at_once_and_the_kernel_s_own_stays() {
    on_a_node(|| {
        let mut all = settled(overlay(0));
        let listed = ip("-6 addr show dev cni0");
        assert!(listed.contains("fd00:50::1/64") && listed.contains("nodad"), "{listed}");
        assert!(!listed.contains("tentative"), "{listed}");
        let own = ip("-6 addr show dev flannel.1 scope link");
        assert!(own.contains("fe80::"), "{own}");

        all.mark_stale(Path::Sweep);
        assert!(messages(&mut all, apply) < 12, "nothing but listing");
        assert_eq!(ip("-6 addr show dev flannel.1 scope link"), own);
    });
}

#[test]
fn a_foreign_route_at_our_key_stays_and_its_holder_is_named() {
    on_a_node(|| {
        ip("route add 10.128.1.0/24 via 192.168.77.9 proto bird");
        ip("route add 10.128.2.0/24 via 192.168.77.9 proto static");
        let mut all = Reconcilers::open().unwrap();
        all.update(overlay(5));
        all.complete();
        all.apply(Instant::now()).unwrap();

        let mut failed = failures(&mut all);
        failed.sort();
        assert_eq!(
            failed,
            [
                "set route 10.128.1.0/24: held by protocol bird",
                "set route 10.128.2.0/24: held by protocol static"
            ]
        );
        assert_eq!(json("ip", "route show proto 82").len(), 3);
        assert!(ip("route show 10.128.1.0/24").contains("proto bird"));

        ip("route del 10.128.1.0/24");
        all.retry();
        all.apply(Instant::now()).unwrap();
        assert_eq!(json("ip", "route show proto 82").len(), 4);
        assert_eq!(all.refused(), 1);
    });
}

#[test]
fn what_is_foreign_stays_exactly_as_it_was() {
    on_a_node(|| {
        ip("link add other0 type bridge");
        ip("link set other0 up");
        ip("addr add 10.99.0.1/24 dev other0");
        ip("route add 10.98.0.0/24 via 192.168.77.9 proto static metric 5");
        ip("route add 10.97.0.0/24 via 192.168.77.9 table 99");
        ip("-6 route add fd99::/64 dev other0");
        ip("nexthop add id 7 via 192.168.77.9 dev eth0");
        ip("route add 10.96.0.0/24 nhid 7");
        ip("neigh add 192.168.77.9 lladdr 02:00:00:00:99:99 dev eth0 nud permanent");
        ip("link add vx9 type vxlan id 99 dev eth0 dstport 4789");
        bridge("fdb add 02:00:00:00:99:98 dev vx9 dst 192.168.77.9");
        let before = dump();

        let mut all = settled(overlay(10));
        all.update(no_longer(items(10).iter().map(Item::key)));
        apply(&mut all);
        assert_unchanged(&before);
    });
}

#[test]
fn a_second_next_hop_for_one_key_is_swept_and_no_route_is_lost() {
    on_a_node(|| {
        drop(settled(overlay(3)));
        ip("nexthop add id 5 via 10.128.1.0 dev flannel.1 onlink proto 82");
        ip("route replace 10.128.1.0/24 nhid 5 proto 82");
        ip("nexthop add id 6 blackhole proto 82");

        let mut next = Reconcilers::open().unwrap();
        next.update(overlay(3));
        next.complete();
        apply(&mut next);
        assert_eq!(counts(), (3, 3, 3, 3));
        assert_eq!(json("ip", "route show 10.128.1.0/24").len(), 1);
    });
}

#[test]
fn a_next_hop_number_that_somebody_holds_is_passed_over() {
    on_a_node(|| {
        for id in [0x5200_0001_u32, 0x5200_0002] {
            ip(&format!("nexthop add id {id} via 192.168.77.9 dev eth0"));
        }
        settled(overlay(5));
        assert_eq!(json("ip", "nexthop").len(), 7);
        assert_eq!(json("ip", "route show proto 82").len(), 5);
    });
}

#[test]
fn a_route_whose_new_link_is_refused_leads_the_old_way_until_that_is_there() {
    on_a_node(|| {
        let old = NextHopKey { via: [192, 168, 77, 9].into(), link: name("eth0") };
        let [neighbour, fdb, hop, route] = remote(1);
        let Key::Route(key) = route.key() else { panic!() };
        let direct = RouteSpec { via: old.into(), inherits: Flag::Off };
        let old_hop = Item::NextHop(old, NextHopSpec { onlink: Flag::Off });
        let mut all = settled(wish([old_hop.clone(), Item::Route(key, direct)]));
        // Somebody else's device has the name, and is up.
        ip("link add flannel.1 type bridge");
        ip("link set flannel.1 up");
        let mut patches = wish([flannel1(), neighbour, fdb, hop, route]);
        patches.unset(old_hop.key());
        all.update(patches);
        let tried = |all: &mut Reconcilers| {
            all.mark_stale(Path::Sweep);
            all.retry();
            all.apply(Instant::now()).unwrap();
        };
        tried(&mut all);
        let shown = || ip("route show 10.128.1.0/24");
        assert!(shown().contains("via 192.168.77.9 dev eth0"), "{}", shown());
        assert_eq!(json("ip", "nexthop").len(), 1, "nothing of ours leads to theirs");
        tried(&mut all);
        assert!(shown().contains("via 192.168.77.9 dev eth0"), "{}", shown());
        assert!(all.refused() > 0);

        ip("link del flannel.1");
        tried(&mut all);
        assert!(shown().contains("dev flannel.1"), "{}", shown());
        tried(&mut all);
        assert_eq!(json("ip", "nexthop").len(), 1, "the old one is gone");
        assert_eq!(all.refused(), 0);
    });
}

#[test]
fn an_fdb_entry_to_several_vteps_becomes_one_again() {
    on_a_node(|| {
        let key = FdbKey { link: name("flannel.1"), mac: Mac::ZERO };
        let flood = Item::Fdb(key, FdbSpec { dst: [192, 168, 78, 1].into() });
        let mut all = settled(wish([flannel1(), flood]));
        bridge("fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.168.77.66 self permanent");
        assert_eq!(counts().1, 2);
        all.mark_stale(Path::Sweep);
        apply(&mut all);
        assert!(bridge("fdb show dev flannel.1").contains("dst 192.168.78.1"));
        assert_eq!(counts().1, 1);
    });
}

#[test]
fn ipv6_routes_take_the_kernel_s_metric_and_come_and_go() {
    on_a_node(|| {
        let before = dump();
        let link = name("flannel.1");
        let via = "fd00:50:1::".parse().unwrap();
        let hop = russet_desired::NextHopKey { via, link };
        let key = RouteKey::main(prefix("fd00:50:1::/64"));
        let items = [
            flannel1(),
            address("flannel.1", "fd00:50::/128"),
            Item::NextHop(hop, russet_desired::NextHopSpec { onlink: Flag::On }),
            Item::Route(key, russet_desired::RouteSpec { via: hop.into(), inherits: Flag::Off }),
        ];
        let mut all = settled(wish(items.clone()));
        let route = ip("-6 route show fd00:50:1::/64");
        assert!(route.contains("via fd00:50:1:: dev flannel.1"), "{route}");
        assert!(route.contains("metric 1024"), "{route}");

        all.mark_stale(Path::Sweep);
        assert!(messages(&mut all, apply) < 12);
        all.update(no_longer(items.iter().map(Item::key)));
        apply(&mut all);
        assert_unchanged(&before);
    });
}

#[test]
fn a_route_into_nowhere_stands_behind_the_others_is_repaired_and_goes() {
    on_a_node(|| {
        let before = dump();
        let nowhere = |dst| {
            let key = RouteKey { metric: 4_000_000_000, ..RouteKey::main(prefix(dst)) };
            let via = russet_desired::RouteVia::Blackhole;
            Item::Route(key, russet_desired::RouteSpec { via, inherits: Flag::Off })
        };
        let items = [nowhere("10.50.67.0/24"), nowhere("fd00:50::/64")];
        let mut all = settled(wish(items.clone()));
        for (family, dst) in [("-4", "10.50.67.0/24"), ("-6", "fd00:50::/64")] {
            let shown = ip(&format!("{family} route show type blackhole {dst}"));
            assert!(shown.contains("proto 82") && shown.contains("metric 4000000000"), "{shown}");
        }
        ip("route del blackhole 10.50.67.0/24 metric 4000000000");
        ip("route add 10.50.67.0/24 dev eth0 metric 4000000000 proto 82");
        all.mark_stale(Path::Sweep);
        apply(&mut all);
        assert!(
            ip("route show type blackhole").contains("10.50.67.0/24"),
            "what it leads to is set right"
        );
        all.mark_stale(Path::Sweep);
        assert!(messages(&mut all, apply) < 12);
        all.update(no_longer(items.iter().map(Item::key)));
        apply(&mut all);
        assert_unchanged(&before);
    });
}

#[test]
fn sysctls_are_set_in_their_order_and_what_they_were_is_told() {
    on_a_node(|| {
        let item = |rank, path: &str, value, optional| {
            let key = SysctlKey { rank, path: path.to_owned() };
            Item::Sysctl(key, SysctlSpec { value, optional })
        };
        let mut all = Reconcilers::open().unwrap();
        all.update(wish([
            item(1, "net/ipv4/conf/eth0/forwarding", "1", Flag::Off),
            item(0, "net/ipv6/conf/eth0/accept_ra", "2", Flag::Off),
            item(0, "net/no/such", "1", Flag::On),
            item(0, "net/no/other", "1", Flag::Off),
        ]));
        all.apply(Instant::now()).unwrap();

        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read("/proc/sys/net/ipv4/conf/eth0/forwarding"), "1\n");
        assert_eq!(read("/proc/sys/net/ipv6/conf/eth0/accept_ra"), "2\n");
        assert_eq!(all.sysctls_before()["net/ipv6/conf/eth0/accept_ra"], "1");
        let failed = failures(&mut all);
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].contains("net/no/other"), "{failed:?}");
    });
}

#[test]
fn thousands_of_objects_go_in_batches() {
    on_a_node(|| {
        let mut all = Reconcilers::open().unwrap();
        all.update(overlay(2_000));
        all.complete();
        let before = all.host().sent();
        apply(&mut all);
        let sent = all.host().sent();
        assert_eq!(counts(), (2_000, 2_000, 2_000, 2_000));
        let datagrams = sent.datagrams - before.datagrams;
        assert!(datagrams < 8_000 / 64 + 60, "{datagrams} datagrams for 8,000 objects");
    });
}

fn items(remotes: u16) -> Vec<Item> {
    let mut items = vec![
        cni0(),
        flannel1(),
        address("flannel.1", "10.50.67.0/32"),
        address("cni0", "10.50.67.1/24"),
        address("cni0", "fd00:50::1/64"),
    ];
    items.extend((0..remotes).flat_map(remote));
    items
}

/// Neighbours, FDB entries, next hops, routes behind `flannel.1`, by the programs' count.
pub(crate) fn counts() -> (usize, usize, usize, usize) {
    (
        json("ip", "neigh show dev flannel.1 nud permanent").len(),
        json("bridge", "fdb show dev flannel.1").len(),
        json("ip", "nexthop show protocol 82").len(),
        json("ip", "route show proto 82").len(),
    )
}

fn failures(all: &mut Reconcilers) -> Vec<String> {
    let news = all.take_news().into_iter();
    news.filter_map(|news| match news {
        News::Failed(_, err) => Some(one_line(&err)),
        _ => None,
    })
    .collect()
}
