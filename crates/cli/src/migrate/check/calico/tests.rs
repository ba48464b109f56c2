use russet_core::model::Flag;
use russet_net::IfName;
use russet_store::{KeyValue, Revision};

use super::*;

#[test]
fn what_calico_has_is_taken_over_and_what_has_no_effect_is_named() {
    let report = report("node-1", &stored(), &OnNode::default());
    for line in [
        "pool default-ipv4-ippool, 10.244.0.0/16 in blocks of /26: VXLAN across subnets",
        "1 blocks of node node-1, with 2 addresses",
        "BGP of AS 65546 without a mesh, 2 peers, 1 filters",
    ] {
        assert!(report.takes.iter().any(|take| take == line), "{line}\n{report}");
    }
    let felix = report.notes.iter().find(|note| note.contains("felixconfigurations/default"));
    let felix = felix.unwrap_or_else(|| panic!("{report}"));
    assert!(felix.contains("bpfLogLevel") && !felix.contains("vxlanVNI"), "{felix}");
    assert_eq!(report.hinders, Vec::<String>::new(), "{report}");
}

#[test]
fn what_is_in_the_way_is_named() {
    let mut bad = stored();
    bad.bad.push("a pool".into());
    bad.unhandled = [(Kind::NetworkPolicy, 3), (Kind::Profile, 1)].into();
    let node = OnNode { running: vec![("bird".into(), 7)], ..OnNode::default() };
    let text = report("node-9", &bad, &node).to_string();
    for line in [
        "it cannot be read: a pool",
        "3 objects of kind NetworkPolicy",
        "bird runs (pid 7)",
        "the store has no node node-9",
        "not yet; nothing was changed",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(
        text.contains("TO KNOW\n") && text.contains("1 objects of kind Profile are not looked at")
    );
    let empty = report("n", &Stored::default(), &OnNode::default()).to_string();
    assert!(empty.contains("the store has no pool"), "{empty}");
}

#[test]
fn routes_are_calico_s_by_protocol_link_and_pool() {
    let route = |dst: &str, protocol, link: &str| RouteView {
        dst: dst.parse().unwrap(),
        metric: 0,
        protocol,
        link: Some(link.parse::<IfName>().unwrap()),
        via: None,
    };
    let routes = vec![
        route("192.0.2.0/24", 80, "eth0"),
        RouteView { via: "10.244.9.0".parse().ok(), ..route("10.244.9.0/26", 3, "vxlan.calico") },
        route("10.244.10.0/26", 3, "vxlan.calico"),
        route("10.244.3.70/32", 3, "cali0123"),
        route("10.244.8.0/26", 12, "eth0"),
        // Nobody's that Calico could have made.
        route("10.244.7.0/26", 3, "eth0"),
        route("192.0.2.0/25", 12, "eth0"),
    ];
    let node =
        OnNode { view: NodeView { routes: routes.into(), links: Vec::new() }, ..OnNode::default() };
    let text = report("node-1", &stored(), &node).to_string();
    for line in [
        "1 routes of Felix's own protocol",
        "1 routes through Calico's VXLAN devices",
        "1 routes through Calico's tunnels",
        "1 routes to pods that Calico made: they go with the pods",
        "1 routes of BIRD's within the pools",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for command in ["proto 80`", "proto boot dev vxlan.calico`", "root 10.244.0.0/16 proto bird`"] {
        assert!(text.contains(&format!("`ip route flush {command}")), "{command}\n{text}");
    }
    assert!(text.contains("not yet"), "{text}");
}

#[test]
fn of_calico_s_links_the_vxlan_devices_are_taken_over_and_what_would_be_held_is_in_the_way() {
    let link = |name: &str, kind: &str| LinkView {
        name: name.parse().unwrap(),
        index: 7,
        mtu: 1450,
        mac: None,
        kind: kind.into(),
        up: Flag::On,
        carrier: Flag::On,
        loopback: Flag::Off,
        group: 0,
        alias: None,
        master: None,
        addresses: Vec::new(),
        router_advertised: Flag::Off,
    };
    let links = vec![
        link("vxlan.calico", "vxlan"),
        link("vxlan-v6.calico", "dummy"),
        link("wireguard.cali", "wireguard"),
        link("cali0123", "veth"),
    ];
    let node = OnNode { view: NodeView { links, routes: Vec::new().into() }, ..OnNode::default() };
    let report = report("node-1", &stored(), &node);
    assert!(report.takes.contains(&"link vxlan.calico, a vxlan".to_owned()), "{report}");
    for line in
        ["link vxlan-v6.calico is a dummy", "`ip link del wireguard.cali`", "1 links of pods"]
    {
        assert!(report.hinders.iter().any(|it| it.contains(line)), "{line}\n{report}");
    }
}

#[test]
fn felix_chains_are_in_the_way_with_what_removes_them() {
    let chain = |family, table: &str| DroppingChain {
        family,
        table: table.to_owned(),
        chain: "FORWARD".to_owned(),
        why: Why::Felix,
        owner: None,
    };
    let node = OnNode {
        chains: vec![
            chain(ForeignFamily::Ip, "filter"),
            chain(ForeignFamily::Ip6, "filter"),
            chain(ForeignFamily::Ip, "calico"),
        ],
        legacy: vec![Family::V4],
        ..OnNode::default()
    };
    let report = report("node-1", &stored(), &node);
    let line = report.hinders.iter().find(|it| it.starts_with("Felix' chains")).unwrap();
    for command in [
        "`iptables-nft-save | grep -v -e ^:cali- -e cali: | iptables-nft-restore`",
        "`ip6tables-nft-save | grep -v -e ^:cali- -e cali: | ip6tables-nft-restore`",
        "`iptables-legacy-save | grep -v -e ^:cali- -e cali: | iptables-legacy-restore`",
        "`nft delete table ip calico`",
    ] {
        assert!(line.contains(command), "{command}\n{line}");
    }
}

/// What real components left.
fn stored() -> Stored {
    let mut stored = Stored::default();
    let lines: Vec<_> = include_str!("../../../../../api/tests/calico/etcd.txt").lines().collect();
    for pair in lines.chunks_exact(2) {
        let StoreKey::Known(key) = Key::read(pair[0].as_bytes()) else { panic!("{}", pair[0]) };
        let resource = Resource::at_key(&key, pair[1].as_bytes()).unwrap().unwrap();
        if let Resource::IpPool(pool) = &resource {
            stored.pools.insert(pool.meta().unwrap().name.clone(), pool.value().clone());
        }
        let entry = KeyValue {
            key: pair[0].into(),
            value: pair[1].into(),
            created: Revision::ZERO,
            modified: Revision::ZERO,
            version: 1,
            lease: None,
        };
        stored.found.push(Found { resource, key, entry });
    }
    stored
}
