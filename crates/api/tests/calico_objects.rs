//! Calico's objects as they lie in etcd and in Kubernetes: read, checked, and written again byte for byte.
//!
//! `calico/etcd.txt` has a key and a value by turns, as calicoctl and calico/node leave them, with a few fields
//! in them that nobody knows.

use std::collections::BTreeMap;

use russet_api::calico::{
    Form, Group, Key, Kind, Layout, Meta, StoreKey, Stored, Written, node_annotations,
    read_kubernetes_node, write_report,
};
use russet_core::{
    addressing::blocks::{
        Block, Reserved, Timestamp,
        block::{Claimant, Release, Rest},
    },
    choices::When,
    model::calico::{
        Affinity, AffinityState, Between, BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity,
        CalicoNodeStatus, Claims, ClusterInformation, Encapsulation, FelixConfiguration, IpPool,
        IpReservation, IpamBlock, IpamConfiguration, IpamHandle, NextHopMode, Node, NodeReport,
        Operation, PeerKind, Remote, ReportedPeer, ReportedRoute, RouteSource, RouteUse,
        SessionState, Tag, Verdict, WorkloadEndpoint,
    },
};
use russet_net::Labels;

#[test]
fn every_key_and_every_value_is_written_as_it_was_read() {
    for (text, value) in rows() {
        let StoreKey::Known(key) = Key::read(text.as_bytes()) else { panic!("{text}") };
        assert_eq!(key.to_string(), text);
        let written = match key {
            Key::Resource(id) => match id.kind {
                Kind::IpPool => again::<IpPool>(value, Layout::Resource),
                Kind::IpReservation => kept::<IpReservation>(value),
                Kind::Node => again::<Node>(value, Layout::Resource),
                Kind::WorkloadEndpoint => again::<WorkloadEndpoint>(value, Layout::Resource),
                Kind::BgpConfiguration => kept::<BgpConfiguration>(value),
                Kind::BgpPeer => kept::<BgpPeer>(value),
                Kind::BgpFilter => kept::<BgpFilter>(value),
                Kind::FelixConfiguration => kept::<FelixConfiguration>(value),
                Kind::ClusterInformation => again::<ClusterInformation>(value, Layout::Resource),
                Kind::CalicoNodeStatus => kept::<CalicoNodeStatus>(value),
                other => panic!("{other}"),
            },
            Key::IpamConfig => again::<IpamConfiguration>(value, Layout::Bare),
            Key::Block(_) => again::<IpamBlock>(value, Layout::Bare),
            Key::BlockAffinity(..) => again::<BlockAffinity>(value, Layout::Bare),
            Key::Handle(_) => again::<IpamHandle>(value, Layout::Bare),
        };
        assert_eq!(written, value, "{text}");
    }
}

#[test]
fn a_pool_is_read_and_a_change_touches_its_own_fields_only() {
    let mut pool = resource::<IpPool>("ippools/default-ipv4-ippool");
    let value = pool.value().clone();
    assert_eq!(value.encapsulation(), Encapsulation::Vxlan(When::CrossSubnet));
    assert!(value.nat_outgoing.is_on() && value.gives() && value.bgp_export.is_on());
    assert!(!value.nodes.matches(&Labels::from_iter([("edge", "")])));
    assert_eq!(pool.unused(), ["zeal"]);
    assert_eq!(pool.meta().unwrap().name.as_str(), "default-ipv4-ippool");

    let before = pool.text();
    let mut change = value;
    change.nodes = "zone == 'west'".parse().unwrap();
    pool.set(change);
    let want = before.replace(r"all() \u0026\u0026 !has(edge)", r#"zone == \"west\""#);
    assert_eq!(pool.text(), want);
}

#[test]
fn a_pool_that_calico_s_controllers_withhold_gives_nothing() {
    let text = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"b","creationTimestamp":null},"spec":{"cidr":"10.244.128.0/20"},"status":{"conditions":[{"type":"Allocatable","status":"False","lastTransitionTime":"2026-03-01T08:00:00Z","reason":"CIDROverlap","message":""}]}}"#;
    let pool = Stored::<IpPool>::read(text.as_bytes(), Layout::Resource).unwrap();
    assert!(!pool.value().gives() && !pool.value().is_disabled());
    assert_eq!(pool.text(), text);
    let text = text.replace("False", "True");
    let pool = Stored::<IpPool>::read(text.as_bytes(), Layout::Resource).unwrap();
    assert!(pool.value().gives());
}

#[test]
fn a_new_pool_is_written_as_calico_writes_one() {
    let value = IpPool::new(
        "fd00:10:244::/48".parse().unwrap(),
        None,
        Encapsulation::Vxlan(When::Always),
        false.into(),
    );
    let meta = Meta::named("default-ipv6-ippool".parse().unwrap());
    let pool = Stored::new(meta, value.unwrap(), Group::V3);
    assert_eq!(
        pool.text(),
        r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"default-ipv6-ippool","creationTimestamp":null},"spec":{"cidr":"fd00:10:244::/48","vxlanMode":"Always","ipipMode":"Never","blockSize":122,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#
    );
    let again = Stored::<IpPool>::read(pool.text().as_bytes(), Layout::Resource).unwrap();
    assert_eq!(again.value(), pool.value());
}

#[test]
fn a_block_that_changes_keeps_what_is_unknown_in_it() {
    let mut block = bare::<IpamBlock>("assignment/ipv4/block/10.244.3.64-30");
    let value = block.value();
    assert_eq!(value.affinity(), Some(&Affinity::Host("node-1".parse().unwrap())));
    let pods: Vec<_> = value.allocated().filter_map(|(_, attributes)| attributes.pod()).collect();
    assert_eq!(pods, ["web-7d4"]);
    assert_eq!(value.sequence(), u64::MAX);
    assert_eq!(value.lost().count(), 0);

    // The tunnel's address is given back, and another's is taken.
    let tunnel = "vxlan-tunnel-addr-node-1".parse().unwrap();
    let freed = value.release_handle(&tunnel, Rest::None).unwrap();
    let other =
        Claimant { handle: "k8s-pod-network.4d".parse().unwrap(), secondary: BTreeMap::new() };
    let (next, given) = freed.take(1, &other, &Reserved::default(), Timestamp::default());
    assert_eq!(given[0].addr.to_string(), "10.244.3.67");
    block.set(next);
    assert_eq!(
        block.text(),
        r#"{"cidr":"10.244.3.64/30","affinity":"host:node-1","affinity_claim_time":"2026-03-01T08:00:00Z","allocations":[null,null,0,1],"unallocated":[1,0],"attributes":[{"handle_id":"k8s-pod-network.0a1b2c3d","secondary":{"namespace":"default","node":"node-1","pod":"web-7d4","timestamp":"2026-03-01 08:01:02.3 +0000 UTC"},"alternate":{"pod":"web-6c3"}},{"handle_id":"k8s-pod-network.4d"}],"sequenceNumber":18446744073709551615,"sequenceNumberForAllocation":{"2":1734567890123456790,"3":18446744073709551615},"deleted":false,"whim":[1,{"a":1,"b":2}]}"#
    );
}

#[test]
fn an_address_that_cools_down_says_since_when() {
    let owner = Some("host:node-1".parse().unwrap());
    let block = Block::new("10.244.3.64/30".parse().unwrap(), owner, Timestamp::from_nanos(7));
    let who = Claimant {
        handle: "k8s-pod-network.4d".parse().unwrap(),
        secondary: BTreeMap::from([("pod".to_owned(), "web".to_owned())]),
    };
    let (block, given) = block.unwrap().take(2, &who, &Reserved::default(), Timestamp::default());
    let release = Release { addr: given[0].addr, sequence: None, handle: None };
    let at = Timestamp::from_nanos(1_772_352_062_000_000_000);
    let cooling = block.release(&release, Rest::From(at)).unwrap().unwrap();
    let stored = Stored::bare(cooling.clone());
    assert_eq!(
        stored.text(),
        r#"{"cidr":"10.244.3.64/30","affinity":"host:node-1","allocations":[1,0,null,null],"unallocated":[2,3],"attributes":[{"handle_id":"k8s-pod-network.4d","secondary":{"pod":"web"}},{"releasedAt":"2026-03-01T08:01:02Z"}],"sequenceNumber":9,"sequenceNumberForAllocation":{"0":7,"1":7},"deleted":false}"#
    );
    let again = Stored::<IpamBlock>::read(stored.text().as_bytes(), Layout::Bare).unwrap();
    assert_eq!(again.value(), &cooling);
    let bad = stored.text().replace("2026-03-01T08:01:02Z", "yesterday");
    let told = Stored::<IpamBlock>::read(bad.as_bytes(), Layout::Bare).unwrap_err().to_string();
    assert!(told.contains("attributes[1].releasedAt: "), "{told}");
}

#[test]
fn ipam_s_names_differ_between_etcd_and_the_two_groups() {
    let config = bare::<IpamConfiguration>("config");
    assert!(config.value().is_strict());
    assert_eq!(config.value().max_blocks(), 4);
    for (group, kind) in [(Group::V3, "IPAMConfiguration"), (Group::CrdV1, "IPAMConfig")] {
        let meta = Meta::named("default".parse().unwrap());
        let object = Stored::new(meta, *config.value(), group);
        let text = object.text();
        assert!(text.starts_with(&format!(r#"{{"kind":"{kind}""#)), "{text}");
        assert!(text.contains(r#""strictAffinity":true,"autoAllocateBlocks":true"#), "{text}");
        let again = Stored::<IpamConfiguration>::read(text.as_bytes(), Layout::Resource);
        assert_eq!(again.unwrap().value(), config.value());
    }
    let by_hand = IpamConfiguration { claims: Claims::ByHand, max_blocks: None };
    assert_eq!(Stored::bare(by_hand).text(), r#"{"strict_affinity":true}"#);
}

#[test]
fn what_etcd_s_key_says_kubernetes_object_says_itself() {
    let whose = Affinity::Host("node-1".parse().unwrap());
    let cidr = "10.244.3.64/26".parse().unwrap();
    let value = BlockAffinity { state: AffinityState::Pending, deleted: false };
    let meta = Meta::named("node-1-10-244-3-64-26".parse().unwrap());
    let affinity = Stored::claimed(meta, &whose, cidr, value, Group::CrdV1);
    assert_eq!(
        affinity.text(),
        r#"{"kind":"BlockAffinity","apiVersion":"crd.projectcalico.org/v1","metadata":{"name":"node-1-10-244-3-64-26","creationTimestamp":null},"spec":{"state":"pending","node":"node-1","type":"host","cidr":"10.244.3.64/26","deleted":"false"}}"#
    );
    let again = Stored::<BlockAffinity>::read(affinity.text().as_bytes(), Layout::Resource);
    assert_eq!(again.unwrap().claim(), Some((whose, cidr)));

    let handle = bare::<IpamHandle>("handle/k8s-pod-network.0a1b2c3d").value().clone();
    let id = "k8s-pod-network.0A1B".parse().unwrap();
    let meta = Meta::named("k8s-pod-network.0a1b".parse().unwrap());
    let handle = Stored::named(meta, &id, handle, Group::CrdV1);
    let again = Stored::<IpamHandle>::read(handle.text().as_bytes(), Layout::Resource).unwrap();
    assert_eq!(again.id(), Some(id));
    assert_eq!(again.value().counts.blocks().count(), 2);

    let block = bare::<IpamBlock>("assignment/ipv4/block/10.244.3.64-30").value().clone();
    let meta = Meta::named("10-244-3-64-30".parse().unwrap());
    let object = Stored::new(meta, block.clone(), Group::CrdV1);
    assert!(object.text().contains(r#""deleted":false,"strictAffinity":false"#));
    let again = Stored::<IpamBlock>::read(object.text().as_bytes(), Layout::Resource).unwrap();
    assert_eq!(again.value(), &block);
}

#[test]
fn a_node_is_the_same_in_etcd_and_in_kubernetes() {
    let stored = resource::<Node>("nodes/node-1");
    let node = stored.value();
    assert_eq!(node.bgp.unwrap().v4.unwrap().subnet().to_string(), "192.168.77.0/24");
    assert_eq!(node.labels.get("rack"), Some(""));
    let annotations: BTreeMap<_, _> =
        node_annotations(node).into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-1", "labels": {"rack": ""}, "annotations": annotations},
        "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.168.77.1"},
            {"type": "Hostname", "address": "node-1"},
        ]},
    });
    let read = read_kubernetes_node(text.to_string().as_bytes()).unwrap();
    assert_eq!(read.name.as_str(), "node-1");
    assert_eq!((read.node.bgp, read.node.ipip), (node.bgp, node.ipip));
    assert_eq!((read.node.vxlan_v4, read.node.vxlan_v6), (node.vxlan_v4, node.vxlan_v6));
    assert_eq!(read.node.wireguard_v4.key, node.wireguard_v4.key);
    assert_eq!(read.node.addresses.len(), 1);
}

#[test]
fn bgp_s_objects_say_what_they_mean() {
    let config = resource::<BgpConfiguration>("bgpconfigurations/default");
    let config = config.value();
    assert_eq!(config.asn().get(), 65_546);
    assert!(!config.has_mesh());
    assert_eq!(config.mesh_restart_time.unwrap().as_secs(), 120);
    let tags = &config.advertisements[0].communities;
    assert!(matches!(&tags[..], [Tag::Named(name), Tag::Value(_)] if name == "blackhole"));

    let peer = resource::<BgpPeer>("bgppeers/rack-1");
    let peer = peer.value();
    assert!(matches!(&peer.between, Between::Nodes(_)));
    let Remote::Router { ip, port, asn } = peer.remote else { panic!("{peer:?}") };
    assert_eq!(
        (ip.to_string().as_str(), port.unwrap().get(), asn.get()),
        ("2001:db8::1", 1_790, 64_600)
    );
    assert_eq!(peer.next_hop, NextHopMode::Own);
    assert_eq!(peer.password.as_ref().unwrap().key, "rack-1");

    let reflectors = resource::<BgpPeer>("bgppeers/reflectors");
    assert!(matches!(reflectors.value().remote, Remote::Nodes(_)));
    assert_eq!(reflectors.value().between, Between::EveryNode);

    let filter = resource::<BgpFilter>("bgpfilters/only-pods");
    let [first, second] = &filter.value().export_v4[..] else { panic!("{filter:?}") };
    assert!(first.prefix.unwrap().holds("10.244.3.64/26".parse().unwrap()));
    let Verdict::Accept(operations) = &first.verdict else { panic!("{first:?}") };
    assert!(matches!(&operations[1], Operation::PrependPath(path) if path.len() == 2));
    assert_eq!(second.verdict, Verdict::Reject);
    assert!(filter.value().import_v6[0].from_peers);
}

#[test]
fn what_felix_says_of_tunnels_is_read() {
    let spec = r#"{"ipipEnabled":true,"ipipMTU":1400,"vxlanEnabled":false,"vxlanMTU":1401,"vxlanMTUV6":1402,"vxlanPort":4790,
        "vxlanVNI":77,"wireguardEnabled":false,"wireguardEnabledV6":true,"wireguardMTU":1403,"wireguardMTUV6":1404,
        "wireguardListeningPort":5000,"wireguardListeningPortV6":5001}"#;
    let text = format!(
        r#"{{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default"}},"spec":{spec}}}"#
    );
    let felix = Stored::<FelixConfiguration>::read(text.as_bytes(), Layout::Resource).unwrap();
    let value = felix.value();
    let mtus = [value.ipip_mtu, value.vxlan_mtu, value.vxlan_mtu_v6];
    assert_eq!(mtus.map(|mtu| mtu.unwrap().get()), [1_400, 1_401, 1_402]);
    let mtus = [value.wireguard_mtu, value.wireguard_mtu_v6].map(|mtu| mtu.unwrap().get());
    assert_eq!(mtus, [1_403, 1_404]);
    let on = [value.ipip, value.vxlan, value.wireguard, value.wireguard_v6];
    assert_eq!(on.map(|flag| flag.unwrap().is_on()), [true, false, false, true]);
    let ports = [value.vxlan_port, value.wireguard_port, value.wireguard_port_v6];
    assert_eq!(ports.map(|port| port.unwrap().get()), [4_790, 5_000, 5_001]);
    assert_eq!(value.vxlan_vni().get(), 77);
    assert!(felix.unused().is_empty(), "{:?}", felix.unused());
}

#[test]
fn what_felix_alone_knows_is_kept_and_told() {
    let felix = resource::<FelixConfiguration>("felixconfigurations/default");
    let value = felix.value();
    assert_eq!((value.vxlan_mtu, value.vxlan_mtu_v6, value.ipip_mtu), (None, None, None));
    assert_eq!(value.vxlan_vni().get(), 4_096);
    assert!(!value.wireguard.unwrap().is_on());
    assert_eq!(
        felix.unused(),
        [
            "bpfLogLevel",
            "deviceRouteProtocol",
            "floatingIPs",
            "interfacePrefix",
            "logSeverityScreen",
            "mtuIfacePattern",
            "programClusterRoutes",
            "reportingInterval"
        ]
    );
}

#[test]
fn a_report_has_the_classes_that_are_asked_for() {
    let mut status = resource::<CalicoNodeStatus>("caliconodestatuses/node-1");
    assert_eq!(status.value().period_seconds.unwrap().get(), 10);
    let peer = |ip: &str, state| ReportedPeer {
        ip: ip.parse().unwrap(),
        kind: PeerKind::NodeMesh,
        state,
        since: "08:00:00".to_owned(),
    };
    let report = NodeReport {
        updated: "2026-03-01T08:00:00Z".to_owned(),
        ready: true,
        version: "0.1.0".to_owned(),
        router_id: "192.168.77.1".to_owned(),
        peers: vec![
            peer("192.168.77.2", SessionState::Established),
            peer("192.168.77.3", SessionState::Active),
        ],
        routes: vec![ReportedRoute {
            dst: "10.244.9.64/26".parse().unwrap(),
            via: Some([192, 168, 77, 2].into()),
            link: Some("eth0".parse().unwrap()),
            used: RouteUse::Forwarding,
            source: RouteSource::NodeMesh([192, 168, 77, 2].into()),
        }],
    };
    write_report(&mut status, &report);
    let text = status.text();
    assert!(
        text.contains(r#""bgp":{"numberEstablishedV4":1,"numberNotEstablishedV4":1,"#),
        "{text}"
    );
    assert!(
        text.contains(r#"{"peerIP":"192.168.77.3","type":"NodeMesh","state":"Active""#),
        "{text}"
    );
    assert!(text.ends_with(r#""routes":{}}}"#), "{text}");

    // As Calico's own: nodestatus.go has the fields in this order.
    let asked = row("/calico/resources/v3/projectcalico.org/caliconodestatuses/node-1")
        .replace(r#"["Agent","BGP"]"#, r#"["Routes"]"#);
    let mut status = Stored::<CalicoNodeStatus>::read(asked.as_bytes(), Layout::Resource).unwrap();
    write_report(&mut status, &report);
    let routes = r#""routes":{"routesV4":[{"type":"FIB","destination":"10.244.9.64/26","gateway":"192.168.77.2","interface":"eth0","learnedFrom":{"sourceType":"NodeMesh","peerIP":"192.168.77.2"}}]}"#;
    assert!(status.text().contains(routes), "{}", status.text());
}

#[test]
fn a_reservation_holds_prefixes_and_addresses() {
    let reservation = resource::<IpReservation>("ipreservations/printers");
    assert!(reservation.value().holds([10, 244, 9, 1].into()));
    assert!(!reservation.value().holds([10, 244, 9, 2].into()));
}

// ---- the rows

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut lines = include_str!("calico/etcd.txt").lines();
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?)))
}

fn row(key: &str) -> &'static str {
    rows().find(|(other, _)| *other == key).unwrap_or_else(|| panic!("{key}")).1
}

fn resource<T: Form>(name: &str) -> Stored<T> {
    let text = row(&format!("{}{name}", Key::RESOURCES));
    Stored::read(text.as_bytes(), Layout::Resource).unwrap()
}

fn bare<T: Form>(name: &str) -> Stored<T> {
    Stored::read(row(&format!("{}{name}", Key::IPAM)).as_bytes(), Layout::Bare).unwrap()
}

/// Written without a change, after its value was set to what it is.
fn again<T: Written + Clone>(text: &str, layout: Layout) -> String {
    let mut stored = Stored::<T>::read(text.as_bytes(), layout).unwrap();
    assert_eq!(stored.text(), text);
    stored.set(stored.value().clone());
    stored.text()
}

fn kept<T: Form>(text: &str) -> String {
    Stored::<T>::read(text.as_bytes(), Layout::Resource).unwrap().text()
}
