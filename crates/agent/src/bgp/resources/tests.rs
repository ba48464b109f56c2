//! Resources as an operator writes them, and what becomes of them.

use std::net::{IpAddr, SocketAddr};

use russet_bgp::{
    fsm::RemoteAs,
    policy::{Judgement, Policy, RouteFacts},
    reflector::{NextHopRule, Relation},
    wire::{AsPath, Attributes, Community},
};
use russet_core::model::calico::{PeerKind, SecretRef};
use russet_net::{Asn, Prefix};
use serde_json::{Value, json};

use super::*;
use crate::bgp::config::{Hops, Password, PeerConfig};

#[test]
fn every_node_is_in_the_mesh_unless_it_is_a_reflector() {
    let wished = of("a", &[node("a", 1, &json!({})), node("b", 2, &json!({})), reflector("r", 9)]);
    assert_eq!(peers(&wished), ["10.0.0.2"]);
    let peer = peer(&wished, "10.0.0.2");
    assert_eq!(peer.session.remote, RemoteAs::Is(Asn::new(64_512)));
    assert_eq!((peer.settings.internal, peer.hops), (Relation::NonClient, Hops::Usual));
    assert_eq!(peer.source, Some(IpAddr::from([10, 0, 0, 1])));
    let origin = peer.origin.clone().unwrap();
    assert_eq!((origin.kind, origin.object), (PeerKind::NodeMesh, None));
    assert_eq!(peer.session.restart.as_ref().unwrap().time_s, 120);
    // A reflector takes no part.
    let wished = of("r", &[node("a", 1, &json!({})), reflector("r", 9)]);
    assert!(peers(&wished).is_empty());
    assert_eq!(wished.config.cluster.to_string(), "10.0.0.9");
}

#[test]
fn a_mesh_of_two_ases_is_external_and_dual_stack_is_two_sessions() {
    let two = json!({"asNumber": 64_513, "ipv6Address": "fd00::2/64"});
    let one = json!({"ipv6Address": "fd00::1/64"});
    let wished = of("a", &[node("a", 1, &one), node("b", 2, &two)]);
    assert_eq!(peers(&wished), ["10.0.0.2", "fd00::2"]);
    let peer = peer(&wished, "fd00::2");
    assert_eq!(peer.session.remote, RemoteAs::Is(Asn::new(64_513)));
    assert_eq!(peer.settings.next_hop, NextHopRule::Ours);
    assert_eq!(peer.source, Some("fd00::1".parse().unwrap()));
}

#[test]
fn what_the_cluster_s_settings_say_holds_and_a_node_s_own_go_before() {
    let documents = [
        node("a", 1, &json!({})),
        node("b", 2, &json!({})),
        object(
            "BGPConfiguration",
            "default",
            &json!({
                "asNumber": 65_001, "listenPort": 1790, "bindMode": "NodeIP",
                "nodeMeshMaxRestartTime": "45s",
                "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
                "communities": [{"name": "mark", "value": "65001:7"}],
                "prefixAdvertisements": [{"cidr": "10.96.0.0/12", "communities": ["mark", "1:2:3"]}],
            }),
        ),
        object("BGPConfiguration", "node.b", &json!({"listenPort": 1791})),
        object("BGPConfiguration", "mine", &json!({})),
    ];
    let wished = of("a", &documents);
    let config = &wished.config;
    assert_eq!(config.local.asn, Asn::new(65_001));
    assert_eq!(config.listen, [SocketAddr::from(([10, 0, 0, 1], 1790))]);
    let peer = peer(&wished, "10.0.0.2");
    assert_eq!((peer.port.get(), peer.session.restart.as_ref().unwrap().time_s), (1791, 45));
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.marks[0].communities, [Community::new(65_001 << 16 | 7)]);
    assert_eq!(config.marks[0].large.len(), 1);
    told(&wished, "BGPConfiguration mine: it is for nobody");
}

#[test]
fn a_running_speaker_keeps_its_as_and_follows_the_rest() {
    let in_force = of("a", &[node("a", 1, &json!({}))]).asns;
    assert_eq!(in_force, AsNumbers { ours: Asn::new(64_512), others: Asn::new(64_512) });
    let running = |documents: &[Value]| {
        let resources = resources("a", documents, None);
        derive(&resources, &base(), Some(in_force), &Echo).unwrap()
    };
    let remote = |wished: &Wished, addr: &str| peer(wished, addr).session.remote;
    let is = |asn| RemoteAs::Is(Asn::new(asn));

    // The cluster's AS is another: the nodes that have it keep theirs, too, and the sessions stay internal.
    let settings = json!({"asNumber": 65_001, "prefixAdvertisements": [{"cidr": "10.96.0.0/12"}]});
    let cluster = object("BGPConfiguration", "default", &settings);
    let other = node("c", 3, &json!({"asNumber": 65_003}));
    let wished = running(&[node("a", 1, &json!({})), node("b", 2, &json!({})), other, cluster]);
    assert_eq!((wished.config.local.asn, wished.asns), (Asn::new(64_512), in_force));
    assert_eq!(remote(&wished, "10.0.0.2"), is(64_512));
    assert_eq!(peer(&wished, "10.0.0.2").settings.next_hop, NextHopRule::Keep);
    assert_eq!(remote(&wished, "10.0.0.3"), is(65_003));
    assert_eq!(wished.config.marks.len(), 1);
    let fault = "BGPConfiguration default: asNumber 65001 needs a restart of the agent; AS 64512";
    told(&wished, fault);

    // This node's own is another; who has the cluster's stays internal.
    let wished = running(&[node("a", 1, &json!({"asNumber": 65_001})), node("b", 2, &json!({}))]);
    assert_eq!(
        (wished.config.local.asn, remote(&wished, "10.0.0.2")),
        (Asn::new(64_512), is(64_512))
    );
    told(&wished, "Node a: asNumber 65001 needs a restart of the agent");
    assert!(wished.reports.iter().any(|report| report.grade == Grade::Fault));

    // Ours is as it was, whoever says so.
    let wished = running(&[node("a", 1, &json!({"asNumber": 64_512}))]);
    assert!(wished.reports.is_empty(), "{:?}", wished.reports);
}

#[test]
fn a_peering_by_selectors_is_made_at_both_ends() {
    let to_reflectors = object(
        "BGPPeer",
        "rr",
        &json!({"nodeSelector": "all()", "peerSelector": "has(rr)", "keepaliveTime": "5s"}),
    );
    let off = object("BGPConfiguration", "default", &json!({"nodeToNodeMeshEnabled": false}));
    let documents = |more: &[Value]| {
        let mut all = vec![
            node("a", 1, &json!({})),
            node("b", 2, &json!({})),
            labelled(reflector("r", 8), "rr"),
            labelled(reflector("s", 9), "rr"),
            to_reflectors.clone(),
        ];
        all.extend_from_slice(more);
        all
    };
    let wished = of("a", &documents(std::slice::from_ref(&off)));
    assert_eq!(peers(&wished), ["10.0.0.8", "10.0.0.9"]);
    let one = peer(&wished, "10.0.0.8");
    assert_eq!((one.settings.internal, one.session.hold.get()), (Relation::NonClient, 15));
    assert_eq!(one.origin.clone().unwrap().kind, PeerKind::NodePeer);
    // The reflector has both nodes, and the other reflector; of another cluster each is the other's client.
    let wished = of("r", &documents(&[off]));
    assert_eq!(peers(&wished), ["10.0.0.1", "10.0.0.2", "10.0.0.9"]);
    assert_eq!(peer(&wished, "10.0.0.1").settings.internal, Relation::Client);
    assert_eq!(peer(&wished, "10.0.0.9").settings.internal, Relation::Client);
    // While the mesh is on, nodes keep each other.
    assert_eq!(peers(&of("a", &documents(&[]))), ["10.0.0.2", "10.0.0.8", "10.0.0.9"]);
}

#[test]
fn reflectors_of_one_cluster_are_not_each_other_s_clients() {
    let mesh =
        object("BGPPeer", "rrs", &json!({"nodeSelector": "has(rr)", "peerSelector": "has(rr)"}));
    let same = |name: &str, last: u8| {
        labelled(node(name, last, &json!({"routeReflectorClusterID": "1.1.1.1"})), "rr")
    };
    let wished = of("r", &[same("r", 8), same("s", 9), mesh]);
    assert_eq!(peer(&wished, "10.0.0.9").settings.internal, Relation::NonClient);
}

#[test]
fn one_address_has_one_session_by_the_most_specific_object() {
    let rack = |spec: Value| {
        let mut all = json!({"peerIP": "10.0.0.254", "asNumber": 65_000});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        all
    };
    let wished = of(
        "a",
        &[
            node("a", 1, &json!({})),
            node("b", 2, &json!({})),
            object("BGPPeer", "all", &rack(json!({}))),
            object("BGPPeer", "own", &rack(json!({"node": "a", "ttlSecurity": 1}))),
            object("BGPPeer", "some", &rack(json!({"nodeSelector": "all()"}))),
            object("BGPPeer", "to-b", &json!({"peerIP": "10.0.0.2", "asNumber": 64_512})),
        ],
    );
    assert_eq!(peers(&wished), ["10.0.0.2", "10.0.0.254"]);
    let rack = peer(&wished, "10.0.0.254");
    assert_eq!((rack.hops, rack.settings.next_hop), (Hops::Counted(1), NextHopRule::Ours));
    assert_eq!(rack.origin.clone().unwrap().object.unwrap().as_str(), "own");
    told(&wished, "BGPPeer all: 10.0.0.254: own is as specific or more so");
    told(&wished, "BGPPeer some: 10.0.0.254: own");
    told(&wished, "BGPPeer to-b: 10.0.0.2: it has the session in the place of the mesh");
}

#[test]
fn an_internal_peer_is_told_this_node_as_next_hop_where_its_object_says_so() {
    for (mode, rule) in [
        (json!({}), NextHopRule::Keep),
        (json!({"nextHopMode": "Auto"}), NextHopRule::Keep),
        (json!({"nextHopMode": "Self"}), NextHopRule::Ours),
    ] {
        let mut spec = json!({"peerIP": "10.0.0.254", "asNumber": 64_512});
        spec.as_object_mut().unwrap().extend(mode.as_object().unwrap().clone());
        let wished = of("a", &[node("a", 1, &json!({})), object("BGPPeer", "rack", &spec)]);
        assert_eq!(peer(&wished, "10.0.0.254").settings.next_hop, rule, "{mode}");
    }
}

#[test]
fn a_peer_has_all_that_its_object_says() {
    let wished = of(
        "a",
        &[
            node("a", 1, &json!({})),
            object(
                "BGPPeer",
                "rack",
                &json!({
                    "peerIP": "10.0.0.254:1790", "asNumber": 65_000, "localASNumber": 65_010,
                    "sourceAddress": "None", "maxRestartTime": "10s", "keepaliveTime": "1s",
                    "nextHopMode": "Keep", "numAllowedLocalASNumbers": 2, "reachableBy": "10.0.0.3",
                    "password": {"secretKeyRef": {"name": "bgp", "key": "rack"}},
                    "failureDetectionMode": "BFDIfDirectlyConnected",
                }),
            ),
        ],
    );
    let rack = peer(&wished, "10.0.0.254");
    assert_eq!((rack.port.get(), rack.source), (1790, None));
    assert_eq!(rack.session.local.asn, Asn::new(65_010));
    assert_eq!(rack.session.hold.get(), 3);
    assert_eq!(rack.session.restart.as_ref().unwrap().time_s, 10);
    assert_eq!((rack.settings.next_hop, rack.settings.own_as), (NextHopRule::Keep, 2));
    assert_eq!(rack.password.as_ref().unwrap().reveal(), "bgp/rack");
    assert!(rack.bfd.is_some());
    let gateway = ("10.0.0.254/32".parse().unwrap(), "10.0.0.3".parse().unwrap());
    assert_eq!(wished.config.gateways.into_iter().collect::<Vec<_>>(), [gateway]);
}

#[test]
fn a_peer_without_its_filter_or_its_password_stays_as_it_is_and_the_rest_goes_on() {
    let rack = |name: &str, last: u8, more: Value| {
        let mut spec = json!({"peerIP": format!("10.0.0.{last}"), "asNumber": 65_000});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object("BGPPeer", name, &spec)
    };
    let secret = json!({"password": {"secretKeyRef": {"name": "gone", "key": "k"}}});
    let wished = of(
        "a",
        &[
            node("a", 1, &json!({})),
            rack("one", 251, json!({"filters": ["gone"]})),
            rack("two", 252, secret),
            rack("three", 253, json!({})),
        ],
    );
    assert_eq!(peers(&wished), ["10.0.0.253"]);
    assert_eq!(wished.unsettled.len(), 2);
    told(&wished, "BGPPeer one: there is no BGPFilter gone");
    told(&wished, "BGPPeer two: password: ");
}

#[test]
fn blocks_of_pools_that_bgp_announces_go_out_and_nothing_else_does() {
    let wished = of(
        "a",
        &[
            node("a", 1, &json!({})),
            node("b", 2, &json!({})),
            object("IPPool", "open", &json!({"cidr": "10.1.0.0/16"})),
            object("IPPool", "shut", &json!({"cidr": "10.2.0.0/16", "disableBGPExport": true})),
            object("IPPool", "six", &json!({"cidr": "fd10::/64"})),
            object("IPPool", "tunnel", &json!({"cidr": "10.3.0.0/16", "vxlanMode": "Always"})),
            object(
                "BGPConfiguration",
                "default",
                &json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}]}),
            ),
        ],
    );
    let export = &peer(&wished, "10.0.0.2").settings.export;
    for (prefix, passes) in [
        ("10.1.0.64/26", true),
        ("10.1.0.65/32", true),
        ("10.2.0.64/26", false),
        ("10.3.0.0/26", true),
        ("0.0.0.0/0", false),
        ("10.96.0.0/12", true),
        ("192.0.2.0/24", false),
    ] {
        assert_eq!(accepts(export, prefix, &Attributes::default()), passes, "{prefix}");
    }
    assert!(peer(&wished, "10.0.0.2").settings.import.passes_all());
    // Who has what in there the store tells.
    assert_eq!(wished.config.withheld, ["10.3.0.0/16".parse::<Prefix>().unwrap()]);
}

#[test]
fn filters_decide_before_what_every_node_announces() {
    let filter = json!({
        "exportV4": [
            {"action": "Reject", "matchOperator": "In", "cidr": "10.1.0.0/16", "prefixLength": {"min": 32}},
            {"action": "Accept", "matchOperator": "Equal", "cidr": "192.0.2.0/24",
             "operations": [{"addCommunity": {"value": "65000:1"}}, {"prependASPath": {"prefix": [7, 8]}}]},
            {"action": "Reject", "peerType": "eBGP", "matchOperator": "In", "cidr": "10.1.9.0/24"},
        ],
        "importV4": [
            {"action": "Accept", "communities": {"values": ["65000:2"]}},
            {"action": "Accept", "asPathPrefix": [7]},
            {"action": "Reject"},
        ],
    });
    let wished = of(
        "a",
        &[
            node("a", 1, &json!({})),
            object("IPPool", "open", &json!({"cidr": "10.1.0.0/16"})),
            object("BGPFilter", "f", &filter),
            object(
                "BGPPeer",
                "rack",
                &json!({"peerIP": "10.0.0.254", "asNumber": 65_000, "filters": ["f"]}),
            ),
            object(
                "BGPPeer",
                "inner",
                &json!({"peerIP": "10.0.0.253", "asNumber": 64_512, "filters": ["f"]}),
            ),
        ],
    );
    let rack = peer(&wished, "10.0.0.254").settings.clone();
    let plain = Attributes::default();
    for (prefix, passes) in [
        ("10.1.0.64/26", true),
        ("10.1.0.64/32", false),
        ("192.0.2.0/24", true),
        ("10.1.9.0/26", false),
    ] {
        assert_eq!(accepts(&rack.export, prefix, &plain), passes, "{prefix}");
    }
    // That rule is for external peers.
    assert!(accepts(&peer(&wished, "10.0.0.253").settings.export, "10.1.9.0/26", &plain));
    let edits = rack.export.rules.iter().find_map(|rule| match &rule.then {
        russet_bgp::policy::Then::Accept(edits) if !edits.is_empty() => Some(edits.clone()),
        _ => None,
    });
    let (mut attributes, mut hop) = (Attributes::default(), IpAddr::from([10, 0, 0, 1]).into());
    russet_bgp::policy::edit(&edits.unwrap(), &mut attributes, &mut hop);
    assert_eq!(attributes.as_path, AsPath::sequence([7, 8].map(Asn::new)));

    let marked =
        Attributes { communities: vec![Community::new(65_000 << 16 | 2)], ..Attributes::default() };
    let through =
        Attributes { as_path: AsPath::sequence([7, 9].map(Asn::new)), ..Attributes::default() };
    for (attributes, passes) in [(&plain, false), (&marked, true), (&through, true)] {
        assert_eq!(accepts(&rack.import, "198.51.100.0/24", attributes), passes);
    }
}

#[test]
fn a_filter_that_fits_nothing_is_told_so() {
    let wished = of(
        "a",
        &[
            node("a", 1, &json!({})),
            object("BGPFilter", "empty", &json!({})),
            object(
                "BGPFilter",
                "never",
                &json!({
                    "importV4": [
                        {"action": "Reject", "matchOperator": "Equal", "cidr": "10.0.0.0/8", "prefixLength": {"min": 9}},
                        {"action": "Reject", "interface": "*.calico"},
                        {"action": "Accept", "operations": [{"setPriority": {"value": 5}}]},
                    ],
                }),
            ),
        ],
    );
    told(&wished, "BGPFilter empty: it has no rule");
    told(&wished, "BGPFilter empty: no BGPPeer names it");
    told(&wished, "BGPFilter never: importV4[0]: 10.0.0.0/8 has none of lengths of 9 to 32");
    told(&wished, "BGPFilter never: importV4[1]: interface");
    told(&wished, "BGPFilter never: importV4[2]: setPriority");
}

#[test]
fn a_password_is_read_once_however_many_sessions_have_it() {
    struct Counted(std::sync::atomic::AtomicUsize);

    impl Secrets for Counted {
        fn password(&self, secret: &SecretRef) -> Result<Password, NoSecret> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Echo.password(secret)
        }
    }

    let secret = json!({"nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}}});
    let mut documents = vec![object("BGPConfiguration", "default", &secret)];
    documents.extend((1..=9).map(|last| node(&format!("n{last}"), last, &json!({}))));
    let secrets = Counted(0.into());
    let wished = derive(&resources("n1", &documents, None), &base(), None, &secrets).unwrap();
    let passwords = wished.config.peers.iter().filter_map(|(_, peer)| peer.password.as_ref());
    assert_eq!(passwords.filter(|password| password.reveal() == "bgp/mesh").count(), 8);
    assert_eq!(secrets.0.into_inner(), 1);
}

#[test]
fn an_object_that_cannot_be_read_stays_what_it_was() {
    let rack = object("BGPPeer", "rack", &json!({"peerIP": "10.0.0.254", "asNumber": 65_000}));
    let before = resources("a", &[node("a", 1, &json!({})), rack], None);
    let bad = object("BGPPeer", "rack", &json!({"peerIP": "nowhere", "asNumber": 65_000}));
    let after = resources("a", &[node("a", 1, &json!({})), bad], Some(&before));
    assert_eq!(after.peers, before.peers);
    let wished = derive(&after, &base(), None, &Echo).unwrap();
    told(&wished, "BGPPeer rack: spec.peerIP");
    assert_eq!(peers(&wished), ["10.0.0.254"]);
}

#[test]
fn nobody_speaks_for_a_node_that_is_not_there_or_takes_no_part() {
    let none = resources("a", &[], None);
    assert!(
        derive(&none, &base(), None, &Echo).unwrap_err().to_string().contains("no such object")
    );
    let bare = resources("a", &[object("Node", "a", &json!({}))], None);
    assert!(derive(&bare, &base(), None, &Echo).unwrap_err().to_string().contains("spec.bgp"));
}

#[test]
fn a_node_without_ipv4_has_an_identifier_of_its_name() {
    let six = |name: &str, last: u8| {
        object("Node", name, &json!({"bgp": {"ipv6Address": format!("fd00::{last}/64")}}))
    };
    let wished = of("node-1", &[six("node-1", 1), six("b", 2)]);
    assert_eq!(wished.config.local.id.to_string(), "53.151.27.230");
    assert_eq!(peers(&wished), ["fd00::2"]);
}

/// A secret says where it lies.
struct Echo;

impl Secrets for Echo {
    fn password(&self, secret: &SecretRef) -> Result<Password, NoSecret> {
        let text = format!("{}/{}", secret.name, secret.key);
        if secret.name == "gone" {
            Err(NoSecret::NoFolder)
        } else {
            Ok(Password::new(text).unwrap())
        }
    }
}

fn of(node: &str, documents: &[Value]) -> Wished {
    derive(&resources(node, documents, None), &base(), None, &Echo).unwrap()
}

fn resources(node: &str, documents: &[Value], last: Option<&Resources>) -> Resources {
    let mut read = Documents::new(node.parse().unwrap(), last);
    for document in documents {
        read.read(document).unwrap();
    }
    read.done()
}

fn base() -> Base {
    Base { admin_socket: "/run/x".into(), http: None, announced: Vec::new() }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec,
    })
}

fn node(name: &str, last: u8, bgp: &Value) -> Value {
    let mut spec = json!({"bgp": {"ipv4Address": format!("10.0.0.{last}/24")}});
    spec["bgp"].as_object_mut().unwrap().extend(bgp.as_object().unwrap().clone());
    object("Node", name, &spec)
}

fn reflector(name: &str, last: u8) -> Value {
    node(name, last, &json!({"routeReflectorClusterID": format!("10.0.0.{last}")}))
}

fn labelled(mut object: Value, label: &str) -> Value {
    object["metadata"]["labels"] = json!({label: ""});
    object
}

fn peers(wished: &Wished) -> Vec<String> {
    wished.config.peers.iter().map(|(addr, _)| addr.to_string()).collect()
}

#[track_caller]
fn peer<'a>(wished: &'a Wished, addr: &str) -> &'a PeerConfig {
    wished.config.peer(addr.parse::<PeerAddr>().unwrap()).unwrap()
}

#[track_caller]
fn told(wished: &Wished, begin: &str) {
    let told: Vec<_> = wished.reports.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|line| line.starts_with(begin)), "{begin} is not in {told:#?}");
}

fn accepts(policy: &Policy, prefix: &str, attributes: &Attributes) -> bool {
    let learned = russet_bgp::bestpath::Learned::Local;
    let facts = RouteFacts { attributes, next_hop: IpAddr::from([10, 0, 0, 1]).into(), learned };
    let key = prefix.parse::<Prefix>().unwrap().into();
    matches!(policy.narrow(&facts).judge(&key), Judgement::Accepted(_))
}
