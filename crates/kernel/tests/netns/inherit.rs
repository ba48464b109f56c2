//! What flannel left, unmarked, is taken over where that is wished, and nothing else is.

use std::time::Instant;

use russet_desired::{Flag, Item, LinkSpec, NextHopKey, NextHopSpec, RouteKey, RouteSpec};
use russet_kernel::reconcile::Reconcilers;

use crate::support::*;

#[test]
fn what_flannel_left_becomes_ours_as_it_is_and_what_it_forgot_goes() {
    on_a_node(|| {
        flannel_leaves();
        // Nobody's of the two, though it looks alike.
        ip("route add 10.99.0.0/24 via 192.168.77.9 dev eth0");
        ip("route add 10.98.0.0/24 dev flannel.1");
        let index = link_json("flannel.1")["ifindex"].clone();

        let own = [device(Flag::On), address("flannel.1", "10.50.67.0/32")];
        settled(wish(own.into_iter().chain(remote(0).map(inheriting))));

        let link = link_json("flannel.1");
        assert_eq!((&link["ifindex"], &link["ifalias"]), (&index, &"russet:vtep".into()));
        let routes = ip("route show");
        assert!(routes.contains("10.128.0.0/24 nhid") && routes.contains("proto 82"), "{routes}");
        assert!(!routes.contains("10.128.9.0/24"), "{routes}");
        assert!(routes.contains("10.99.0.0/24") && routes.contains("10.98.0.0/24"), "{routes}");
        assert!(!run("bridge", "fdb show dev flannel.1").contains("02:00:00:00:00:99"));
    });
}

#[test]
fn nothing_is_taken_over_unasked_or_from_under_another_s_mark() {
    on_a_node(|| {
        flannel_leaves();
        let before = dump();
        assert!(refuses(device(Flag::Off)).contains("held by"));
        assert_eq!(dump(), before);

        ip("link set flannel.1 alias theirs");
        let before = dump();
        assert!(refuses(device(Flag::On)).contains("alias theirs"));
        assert_eq!(dump(), before);
    });
}

/// An administrator's route may say just what a router teaches, and stays when the router has gone.
#[test]
fn a_route_that_does_the_same_is_taken_over_where_that_is_wished_only() {
    on_a_node(|| {
        let via = NextHopKey { via: [192, 168, 77, 9].into(), link: name("eth0") };
        let key = RouteKey::main("10.99.0.0/24".parse().unwrap());
        let items = |inherits| {
            let hop = Item::NextHop(via, NextHopSpec { onlink: Flag::Off });
            [hop, Item::Route(key, RouteSpec { via: via.into(), inherits })]
        };
        ip("route add 10.99.0.0/24 via 192.168.77.9 dev eth0");
        let mut all = Reconcilers::open().unwrap();
        all.update(wish(items(Flag::Off)));
        all.complete();
        all.apply(Instant::now()).unwrap();
        assert_eq!(all.refused(), 1);
        assert!(!ip("route show 10.99.0.0/24").contains("proto 82"), "it stays as it was");

        settled(wish(items(Flag::On)));
        assert!(ip("route show 10.99.0.0/24").contains("proto 82"));
    });
}

fn inheriting(item: Item) -> Item {
    match item {
        Item::Route(key, spec) => Item::Route(key, RouteSpec { inherits: Flag::On, ..spec }),
        other => other,
    }
}

/// `10.128.0.0/24` is the first remote's; `10.128.9.0/24` was one that has gone.
fn flannel_leaves() {
    ip("link add flannel.1 address 02:00:00:00:00:a0 mtu 1450 type vxlan id 1 local 192.168.77.1 \
        dev eth0 dstport 8472 nolearning");
    ip("link set flannel.1 up");
    ip("addr add 10.50.67.0/32 dev flannel.1");
    ip("route add 10.128.0.0/24 via 10.128.0.0 dev flannel.1 onlink");
    ip("route add 10.128.9.0/24 via 10.128.9.0 dev flannel.1 onlink");
    run("bridge", "fdb append 02:00:00:00:00:99 dev flannel.1 dst 192.168.78.9 self permanent");
}

fn device(inherits: Flag) -> Item {
    Item::Link(name("flannel.1"), LinkSpec { inherits, ..vxlan(1) })
}

/// Wishes for it, and returns why it is not to be had.
fn refuses(item: Item) -> String {
    let mut all = Reconcilers::open().unwrap();
    all.update(wish([item]));
    all.complete();
    all.apply(Instant::now()).unwrap();
    assert_eq!(all.refused(), 1);
    format!("{:?}", all.take_news()).replace("holder: \"", "held by \"")
}
