//! Blocks that name their nodes: the incremental calculation equals its from-scratch twin after every change.

mod common;

use common::{
    blocks::{by_routers, config, host, key, name, settings, upsert},
    foreign_route, node, one_each, shuffle,
};
use proptest::{collection::vec, prelude::*};
use russet_core::{
    Calc, Change, Fact, FactId, Fault, Source,
    calc::picture,
    model::{Lease, NodeFact, UnderlayFact},
};
use russet_desired::{Key, Tables};
use russet_net::Prefix;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn calc_equals_the_oracle_after_every_batch(
        batches in vec(vec(change(), 1..6), 1..24),
        settings in prop_oneof![Just(settings()), Just(by_routers())],
    ) {
        let mut calc = Calc::new(settings);
        let mut followed = Tables::default();
        for batch in prelude().into_iter().chain(batches) {
            followed.apply(calc.apply(batch));
            let picture = picture(calc.world());
            prop_assert_eq!(&followed, &picture.tables);
            prop_assert_eq!(&calc.tables(), &picture.tables);
            prop_assert_eq!(calc.refusals(), &picture.refusals);
            for key in followed.routes.keys().map(|key| Key::Route(*key)) {
                prop_assert!(calc.cause_of(&key).is_some(), "{key}");
            }
            for key in followed.next_hops.keys().map(|key| Key::NextHop(*key)) {
                prop_assert!(calc.cause_of(&key).is_some(), "{key}");
            }
        }
    }

    #[test]
    fn what_comes_in_another_order_makes_the_same_picture(
        changes in vec(held_or_host(), 1..24).prop_map(one_each),
        seed in any::<u64>(),
    ) {
        let mut shuffled = changes.clone();
        shuffle(&mut shuffled, seed);
        let picture = |changes: Vec<Change>| {
            let mut calc = Calc::new(settings());
            calc.apply(prelude().into_iter().flatten());
            for change in changes {
                calc.apply([change]);
            }
            (calc.tables(), calc.refusals().clone())
        };
        prop_assert_eq!(picture(changes), picture(shuffled));
    }
}

fn prelude() -> Vec<Vec<Change>> {
    vec![
        vec![upsert(FactId::Config, Fact::Config(config(0)), 1)],
        vec![upsert(FactId::Node, Fact::Node(Box::new(node())), 1)],
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        12 => held_or_host(),
        2 => (0..10_usize).prop_map(|i| upsert(FactId::Config, Fact::Config(config(i)), 2)),
        1 => node_fact().prop_map(|fact| upsert(FactId::Node, Fact::Node(Box::new(fact)), 2)),
        3 => (dst(), router())
            .prop_map(|(dst, router)| upsert(FactId::Learned(dst), Fact::Learned(router.into()), 0)),
        1 => dst().prop_map(|dst| Change::Remove { id: FactId::Learned(dst) }),
        1 => source().prop_map(Change::Resync),
        1 => source().prop_map(Change::InSync),
    ]
}

fn held_or_host() -> impl Strategy<Value = Change> {
    let of_key = (0..KEYS.len(), 0..5_u8, 0..4_u64, 0..8_u8).prop_map(|(i, holder, rev, kind)| {
        let id = FactId::Lease(key(KEYS[i]));
        match kind {
            0 => Change::Remove { id },
            1 => Change::Bad { id, fault: fault() },
            _ => upsert(id, Fact::Held(name(holder)), rev),
        }
    });
    let of_host = (0..5_u8, lease(), 0..4_u64, 0..8_u8).prop_map(|(n, lease, rev, kind)| {
        let id = FactId::Host(name(n));
        match kind {
            0 => Change::Remove { id },
            1 => Change::Bad { id, fault: fault() },
            _ => upsert(id, Fact::Host(Box::new(lease)), rev),
        }
    });
    prop_oneof![of_key, of_host]
}

/// Nodes may say the same of themselves.
fn lease() -> impl Strategy<Value = Lease> {
    let tunnels =
        prop_oneof![Just(""), Just("i"), Just("v"), Just("iv"), Just("iv6"), Just("w"), Just("vw")];
    let subnet = prop_oneof![3 => Just(77_u8), 1 => Just(99)];
    (subnet, 1..5_u8, tunnels).prop_map(|(subnet, n, tunnels)| host(subnet, n, tunnels))
}

fn node_fact() -> impl Strategy<Value = NodeFact> {
    let onlink = prop_oneof![Just("192.168.77.0/24"), Just("192.168.0.0/16")];
    let v6 = prop_oneof![3 => Just(Some("fd77::1".parse().unwrap())), 1 => Just(None)];
    // In the way of one pool and not of the others.
    let foreign =
        prop_oneof![2 => Just(vec![]), 1 => Just(vec![foreign_route("10.245.3.0/24", "eth0")])];
    (onlink, v6, foreign).prop_map(|(onlink, v6, foreign)| NodeFact {
        underlay: UnderlayFact {
            v6,
            onlink: vec![onlink.parse().unwrap(), "fd77::/64".parse().unwrap()],
            ..node().underlay
        },
        foreign,
    })
}

fn dst() -> impl Strategy<Value = Prefix> {
    let all = ["10.244.1.0/26", "10.244.1.9/32", "10.244.0.0/16", "10.99.0.0/16"];
    (0..all.len()).prop_map(move |i| all[i].parse().unwrap())
}

fn router() -> impl Strategy<Value = std::net::IpAddr> {
    let all = ["192.168.77.2", "192.168.77.3", "192.168.99.3"];
    (0..all.len()).prop_map(move |i| all[i].parse().unwrap())
}

fn source() -> impl Strategy<Value = Source> {
    (0..Source::ALL.len()).prop_map(|i| Source::ALL[i])
}

fn fault() -> Fault {
    Fault::Unreadable { what: "object", reason: "eof".to_owned() }
}

/// Blocks of several pools, one in none, and addresses out of blocks.
const KEYS: [&str; 9] = [
    "10.244.1.0/26",
    "10.244.1.64/26",
    "10.244.2.0/26",
    "10.244.1.9/32",
    "10.245.1.0/26",
    "10.245.2.0/24",
    "10.246.0.0/26",
    "fd00:10:244::40/122",
    "fd00:10:244::80/122",
];
