//! What is seen of a node.

use std::sync::{Arc, Mutex};

use russet_desired::Flag;
use russet_kernel::{
    legacy::flannel_chains,
    observe::{NodeView, Observer, Scope, observe},
};
use russet_net::Family;

use crate::support::*;

#[test]
fn chains_that_flannel_left_by_iptables_legacy_are_found_and_their_removal_works() {
    on_a_node(|| {
        assert_eq!(flannel_chains().unwrap(), [], "and no table is brought into use");
        assert_eq!(
            std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default(),
            ""
        );
        for (program, table, from, chain) in [
            ("iptables-legacy", "nat", "POSTROUTING", "FLANNEL-POSTRTG"),
            ("iptables-legacy", "filter", "FORWARD", "FLANNEL-FWD"),
            ("ip6tables-legacy", "nat", "POSTROUTING", "FLANNEL-POSTRTG"),
        ] {
            let comment = if table == "nat" { "flanneld masq" } else { "flanneld forward" };
            sh(&format!(
                "{program} -t {table} -N {chain} && {program} -t {table} -A {from} -m comment --comment '{comment}' -j {chain} \
                 && {program} -t {table} -A {chain} -s 10.50.0.0/16 -j RETURN || {program} -t {table} -A {chain} -j RETURN"
            ));
        }
        let found = flannel_chains().unwrap();
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "chain FLANNEL-POSTRTG in table nat of iptables-legacy",
                "chain FLANNEL-FWD in table filter of iptables-legacy",
                "chain FLANNEL-POSTRTG in table nat of ip6tables-legacy",
            ]
        );
        for chain in &found {
            sh(&chain.removal());
        }
        assert_eq!(flannel_chains().unwrap(), []);
    });
}

fn sh(script: &str) {
    let done = std::process::Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(done.success(), "{script}");
}

#[test]
fn links_addresses_and_foreign_routes_are_seen() {
    on_a_node(|| {
        ip("route add default via 192.168.77.254 proto dhcp metric 100");
        ip("route add default via 192.168.77.253 metric 200");
        ip("route add 10.98.0.0/24 via 192.168.77.9 proto static");
        ip("route add 10.97.0.0/24 via 192.168.77.9 table 99");
        ip("addr add fd77::1/64 dev eth0 nodad");
        let _ours = settled(overlay(5));

        let view = observe().unwrap();
        let eth0 = view.default_link(Family::V4).unwrap();
        assert_eq!(eth0.name, name("eth0"));
        assert_eq!((eth0.mtu, eth0.up, eth0.carrier), (1_500, Flag::On, Flag::On));
        assert_eq!(eth0.kind, "veth");
        assert_eq!(eth0.router_advertised, Flag::Off);
        assert_eq!(eth0.best_address(Family::V4), Some([192, 168, 77, 1].into()));
        assert_eq!(eth0.best_address(Family::V6), Some("fd77::1".parse().unwrap()));
        let connected: Vec<_> = eth0.connected().collect();
        assert_eq!(connected, [prefix("192.168.77.0/24"), prefix("fd77::/64")]);
        assert!(view.default_link(Family::V6).is_none());

        let dsts: Vec<_> = view.routes.iter().map(|route| route.dst.to_string()).collect();
        assert_eq!(dsts, ["0.0.0.0/0", "0.0.0.0/0", "10.98.0.0/24"]);
        assert_eq!(view.routes[0].protocol, 16);
        let vtep = view.link(name("flannel.1")).unwrap();
        assert_eq!((vtep.kind.as_str(), vtep.alias.as_deref()), ("vxlan", Some("russet:vtep")));
        assert_eq!(vtep.group, russet_kernel::link::GROUP);
        let lo = view.link(name("lo")).unwrap();
        assert_eq!(lo.loopback, Flag::On);
        assert_eq!(lo.addresses[0].scope, Scope::Host);
    });
}

#[test]
fn a_link_that_lives_from_router_advertisements_is_known() {
    on_a_node(|| {
        ip("-6 route add default via fe80::1 dev eth0 proto ra");
        let view = observe().unwrap();
        assert_eq!(view.link(name("eth0")).unwrap().router_advertised, Flag::On);
        assert_eq!(view.link(name("switch0")).unwrap().router_advertised, Flag::Off);
    });
    on_a_node(|| {
        ip("addr add fd77::1/64 dev eth0 nodad valid_lft 1000 preferred_lft 1000");
        let view = observe().unwrap();
        assert_eq!(view.link(name("eth0")).unwrap().router_advertised, Flag::On);
    });
}

#[test]
fn every_change_of_the_node_is_told_and_ours_are_not() {
    on_a_node(|| {
        let views: Arc<Mutex<Vec<NodeView>>> = Arc::default();
        let inside = Arc::clone(&views);
        let observer = Observer::start(move |view| inside.lock().unwrap().push(view)).unwrap();
        let last = || views.lock().unwrap().last().cloned().unwrap_or_default();
        let eth0 = || last().link(name("eth0")).cloned();
        eventually("the first view", || eth0().is_some());

        ip("addr add 10.1.1.1/24 dev eth0");
        eventually("an address", || eth0().is_some_and(|eth0| eth0.connected().count() == 2));
        ip("route add default via 192.168.77.254");
        eventually("a route", || last().default_link(Family::V4).is_some());
        ip("link set switch0 down");
        eventually("the carrier", || eth0().is_some_and(|eth0| !eth0.carrier.is_on()));
        ip("link set eth0 down");
        eventually("the lost route", || last().default_link(Family::V4).is_none());

        let ours = settled(wish([flannel1()]));
        eventually("our link", || last().link(name("flannel.1")).is_some());
        let told = views.lock().unwrap().len();
        drop(ours);
        settled(overlay(100));
        ip("addr add 10.2.2.2/24 dev eth0");
        eventually("a mark", || eth0().is_some_and(|eth0| eth0.connected().count() == 3));
        let told = views.lock().unwrap().len() - told;
        assert!(told < 8, "told {told} times of 400 objects of ours");
        drop(observer);
    });
}
