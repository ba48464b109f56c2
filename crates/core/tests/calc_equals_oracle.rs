//! The incremental calculation equals its from-scratch twin after every change, in every order.

mod common;

use std::net::IpAddr;

use common::{
    config, foreign_route, lease_key, mac, mtu, node, one_each, pod, pod_id, public_key, settings,
    shuffle,
};
use proptest::{collection::vec, prelude::*};
use russet_core::{
    Calc, Change, Fact, FactId, Fault, Source,
    calc::{oracle, picture},
    model::{
        Backend, Foreign, GatewayRoute, Lease, LeaseKey, NodeFact, Sealer, Settings, UnderlayFact,
        Vtep, WireguardEnd,
    },
};
use russet_desired::{Key, Patches, RouteVia, Tables};
use russet_net::{Port, Prefix, Router, Vni};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn calc_equals_the_oracle_after_every_batch(
        batches in vec(vec(change(), 1..5), 1..24),
        sealer in prop_oneof![Just(Sealer::Kernel), Just(Sealer::Engine)],
    ) {
        let mut calc = Calc::new(Settings { sealer, ..settings() });
        let mut followed = Tables::default();
        for batch in prelude().into_iter().chain(batches) {
            let patches = calc.apply(batch);
            takes_back_only_what_was_told(&followed, &patches)?;
            followed.apply(patches);

            let picture = picture(calc.world());
            prop_assert_eq!(&followed, &picture.tables);
            prop_assert_eq!(&calc.tables(), &picture.tables);
            prop_assert_eq!(calc.refusals(), &picture.refusals);
            prop_assert_eq!(oracle(calc.world()), picture.tables);
            every_object_has_a_cause(&calc, &followed)?;
        }
    }

    #[test]
    fn leases_that_come_in_another_order_make_the_same_picture(
        changes in vec(lease_change(), 1..24).prop_map(one_each),
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

/// A node that has something to lose; without it most orders would do nothing at all.
fn prelude() -> Vec<Vec<Change>> {
    let upsert = |id, fact| Change::Upsert { id, fact, rev: 1 };
    vec![
        vec![upsert(FactId::Config, Fact::Config(config(0)))],
        vec![
            upsert(FactId::Node, Fact::Node(Box::new(node()))),
            upsert(FactId::Own, Fact::Own(own(0))),
        ],
    ]
}

fn takes_back_only_what_was_told(told: &Tables, patches: &Patches) -> Result<(), TestCaseError> {
    for (key, wanted) in &patches.routes {
        prop_assert!(wanted.is_some() || told.routes.contains_key(key), "{key}");
        prop_assert!(told.routes.get(key) != wanted.as_ref(), "{key} is told twice");
    }
    for (key, wanted) in &patches.fdb {
        prop_assert!(wanted.is_some() || told.fdb.contains_key(key), "{key}");
    }
    for (key, wanted) in &patches.engine_peers {
        prop_assert!(wanted.is_some() || told.engine_peers.contains_key(key), "{key}");
    }
    for (key, wanted) in &patches.wireguard_peers {
        prop_assert!(wanted.is_some() || told.wireguard_peers.contains_key(key), "{key}");
    }
    for (key, wanted) in &patches.links {
        prop_assert!(wanted.is_some() || told.links.contains_key(key), "{key}");
    }
    Ok(())
}

fn every_object_has_a_cause(calc: &Calc, tables: &Tables) -> Result<(), TestCaseError> {
    for (key, spec) in &tables.routes {
        let cause = calc.cause_of(&Key::Route(*key));
        let is_it = match cause {
            Some(FactId::Pod(_)) => matches!(spec.via, RouteVia::Link(_)),
            Some(FactId::Lease(lease)) => lease.subnets().any(|subnet| subnet == key.dst),
            Some(FactId::Learned(dst)) => dst == key.dst,
            _ => false,
        };
        prop_assert!(is_it, "{key}");
    }
    let fdb = tables.fdb.keys().map(|key| Key::Fdb(*key));
    let hops = tables.next_hops.keys().map(|key| Key::NextHop(*key));
    let engine_peers = tables.engine_peers.keys().map(|key| Key::EnginePeer(*key));
    let neighbours = tables.neighbours.keys().map(|key| Key::Neighbour(*key));
    let sealed = tables.wireguard_peers.keys().map(|key| Key::WireguardPeer(*key));
    for key in fdb.chain(hops).chain(neighbours).chain(engine_peers).chain(sealed) {
        let cause = calc.cause_of(&key);
        prop_assert!(matches!(cause, Some(FactId::Lease(_) | FactId::Learned(_))), "{key}");
    }
    for key in tables.links.keys() {
        prop_assert!(calc.cause_of(&Key::Link(*key)).is_some(), "{key}");
    }
    Ok(())
}

// ---- a small world, so that claims meet

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        10 => lease_change(),
        4 => (dst(), router())
            .prop_map(|(dst, router)| upsert(FactId::Learned(dst), Fact::Learned(router))),
        1 => (0..16_usize, 1..9_u64).prop_map(|(i, rev)| {
            Change::Upsert { id: FactId::Config, fact: Fact::Config(config(i)), rev }
        }),
        1 => node_fact().prop_map(|fact| upsert(FactId::Node, Fact::Node(Box::new(fact)))),
        1 => (0..3_usize).prop_map(|i| upsert(FactId::Own, Fact::Own(own(i)))),
        2 => (0..3_u8, prop_oneof![Just(1_400), Just(1_450), Just(1_500)])
            .prop_map(|(i, size)| upsert(FactId::Pod(pod_id(i)), Fact::Pod(Box::new(pod(i, size))))),
        2 => id().prop_map(|id| Change::Remove { id }),
        1 => id().prop_map(|id| Change::Bad { id, fault: fault() }),
        1 => source().prop_map(Change::Resync),
        1 => source().prop_map(Change::InSync),
        // A fact of the wrong kind is nobody's.
        1 => id().prop_map(|id| match id {
            FactId::Own => upsert(FactId::Config, Fact::Own(own(0))),
            id => upsert(id, Fact::Own(own(0))),
        }),
    ]
}

fn lease_change() -> impl Strategy<Value = Change> {
    let key = (0..KEYS.len()).prop_map(key);
    (key, lease(), 0..6_u64, 0..8_u8).prop_map(|(key, lease, rev, kind)| {
        let id = FactId::Lease(key);
        match kind {
            0 => Change::Remove { id },
            1 => Change::Bad { id, fault: fault() },
            _ => Change::Upsert { id, fact: Fact::Lease(Box::new(lease)), rev },
        }
    })
}

fn lease() -> impl Strategy<Value = Lease> {
    let ip = prop_oneof![
        6 => (1..6_u8).prop_map(|n| Some([192, 168, 77, n].into())),
        3 => (1..4_u8).prop_map(|n| Some([192, 168, 99, n].into())),
        1 => Just(Some([10, 50, 9, 9].into())),
        1 => Just(Some([224, 0, 0, 1].into())),
        1 => Just(None),
    ];
    let v6 = prop_oneof![
        Just(None),
        (1..5_u16).prop_map(|n| Some([0xfd77, 0, 0, 0, 0, 0, 0, n].into()))
    ];
    (ip, v6, backend()).prop_map(|(public_ip, public_ipv6, backend)| Lease {
        public_ip,
        public_ipv6,
        backend,
    })
}

fn backend() -> impl Strategy<Value = Backend> {
    prop_oneof![
        6 => (vtep(), vtep()).prop_map(|(v4, v6)| Backend::Vxlan { v4, v6 }),
        2 => Just(Backend::HostGw),
        3 => Just(Backend::Udp),
        3 => (wireguard_end(), wireguard_end()).prop_map(|(v4, v6)| Backend::Wireguard { v4, v6 }),
        2 => Just(Backend::Ipip),
        2 => Just(Backend::Extension(Some("x".into()))),
        1 => Just(Backend::Foreign(Foreign::Ipsec)),
    ]
}

fn wireguard_end() -> impl Strategy<Value = Option<WireguardEnd>> {
    let end = |n| WireguardEnd { key: public_key(n), port: Some(Port::FLANNEL_WIREGUARD) };
    prop_oneof![8 => (0..5_u8).prop_map(move |n| Some(end(n))), 1 => Just(None)]
}

fn vtep() -> impl Strategy<Value = Option<Vtep>> {
    let mac = prop_oneof![
        8 => (1..5_u8).prop_map(mac),
        1 => Just("01:00:5e:00:00:01".parse().unwrap()),
        1 => Just("00:00:00:00:00:00".parse().unwrap()),
    ];
    let vni = prop_oneof![6 => Just(1_u32), 1 => Just(2)].prop_map(|n| Vni::try_from(n).unwrap());
    prop_oneof![8 => (vni, mac).prop_map(|(vni, mac)| Some(Vtep { vni, mac })), 1 => Just(None)]
}

fn node_fact() -> impl Strategy<Value = NodeFact> {
    let onlink = prop_oneof![Just("192.168.77.0/24"), Just("192.168.0.0/16")];
    let foreign = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec![foreign_route("10.50.64.0/18", "eth1")]),
        1 => Just(vec![foreign_route("10.60.0.0/16", "eth1")]),
        1 => Just(vec![foreign_route("0.0.0.0/0", "eth1"), foreign_route("10.50.1.0/24", "cni0")]),
    ];
    let v6 = prop_oneof![3 => Just(Some("fd77::1".parse().unwrap())), 1 => Just(None)];
    let size = prop_oneof![5 => Just(1_500), 1 => Just(1_300)];
    let laid = |dst: &str, via: &str| GatewayRoute {
        dst: dst.parse().unwrap(),
        via: via.parse().unwrap(),
    };
    let gateways = prop_oneof![
        2 => Just(vec![]),
        1 => Just(vec![laid("0.0.0.0/0", "192.168.77.2"), laid("fd99::/16", "fd77::2")]),
        1 => Just(vec![laid("172.16.0.0/16", "10.99.200.1")]),
    ];
    (onlink, foreign, v6, size, any::<bool>(), gateways).prop_map(
        |(onlink, foreign, v6, size, router_advertised, gateways)| NodeFact {
            underlay: UnderlayFact {
                gateways,
                v6,
                mtu: mtu(size),
                onlink: vec![onlink.parse().unwrap(), "fd77::/64".parse().unwrap()],
                router_advertised,
                ..node().underlay
            },
            foreign,
        },
    )
}

fn id() -> impl Strategy<Value = FactId> {
    prop_oneof![
        6 => (0..KEYS.len()).prop_map(|i| FactId::Lease(key(i))),
        1 => Just(FactId::Config),
        1 => Just(FactId::Node),
        1 => Just(FactId::Own),
        2 => (0..3_u8).prop_map(|i| FactId::Pod(pod_id(i))),
        3 => dst().prop_map(FactId::Learned),
    ]
}

/// Equal to leases, within them, around them, elsewhere.
fn dst() -> impl Strategy<Value = Prefix> {
    let all = [
        "10.50.1.0/24",
        "10.50.2.128/25",
        "10.50.2.64/26",
        "10.50.0.0/16",
        "10.50.7.9/32",
        "10.99.0.0/16",
        "10.99.128.0/17",
        "172.16.0.0/12",
        "0.0.0.0/0",
        "fd00:50:0:3::/64",
        "fd99::/32",
    ];
    (0..all.len()).prop_map(move |i| all[i].parse().unwrap())
}

/// On the link, in the pods' network, on one link only, and behind what is learned or laid: within `10.99.0.0/16`
/// and `172.16.0.0/12`, which are behind one another.
fn router() -> impl Strategy<Value = Router> {
    let all = [
        "192.168.77.1",
        "192.168.77.3",
        "192.168.77.4",
        "10.50.9.9",
        "10.99.0.1",
        "10.99.200.1",
        "172.16.0.1",
        "198.51.100.1",
        "fd77::3",
        "fd99::1",
        "fe80::1",
    ];
    let link = prop_oneof![3 => Just(None), 1 => Just(Some("eth1".parse().unwrap()))];
    (0..all.len(), link).prop_map(move |(i, link)| {
        let ip = all[i].parse().unwrap();
        let local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        Router { ip, link: link.filter(|_| local) }
    })
}

fn source() -> impl Strategy<Value = Source> {
    (0..Source::ALL.len()).prop_map(|i| Source::ALL[i])
}

/// Overlapping in many ways, outside the network, of one family and of two.
const KEYS: [(&str, &str); 12] = [
    ("10.50.1.0/24", ""),
    ("10.50.2.0/24", ""),
    ("10.50.2.128/25", ""),
    ("10.50.2.0/23", ""),
    ("10.50.3.0/24", "fd00:50:0:3::/64"),
    ("10.50.4.0/24", "fd00:50:0:3::/64"),
    ("10.50.5.0/24", "fd00:50:0:5::/64"),
    ("10.60.1.0/24", ""),
    ("", "fd00:50:0:5::/64"),
    ("10.50.0.0/16", ""),
    ("10.50.128.0/17", ""),
    ("10.50.200.0/24", ""),
];

fn key(i: usize) -> LeaseKey {
    let (v4, v6) = KEYS[i];
    lease_key(v4, v6)
}

/// Our own lease: one that is a claim of the store too, one of another network, one of both families.
fn own(i: usize) -> LeaseKey {
    [lease_key("10.50.7.0/24", ""), key(7), key(6)][i]
}

fn upsert(id: FactId, fact: Fact) -> Change {
    Change::Upsert { id, fact, rev: 1 }
}

fn fault() -> Fault {
    Fault::Unreadable { what: "lease", reason: "torn".to_owned() }
}
