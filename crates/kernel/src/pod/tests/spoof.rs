//! Real packets of a pod that lies: about its address, its MAC, its neighbours, and that it is a router.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use russet_desired::{
    BaseChain, ChainKey, ChainSpec, ChainType, ElementKey, ElementSpec, Hook, Item, Match, Patches,
    Rule, SetKey, SetKind, SetSpec, Verdict,
};
use russet_net::Family;

use super::{Node, inside, ip, program, routed};
use crate::{netns::Namespace, nft::Nft};

/// A node with two routed pods, and the node's rules against lies.
struct Lab {
    node: Node,
    liar: Namespace,
    victim: Namespace,
    nft: Nft,
}

impl Lab {
    fn new() -> Self {
        let node = Node::new();
        let (liar, victim) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        for (n, pod) in [(8, &liar), (9, &victim)] {
            let link = format!("rst{n}");
            node.lane(|lane| lane.attach(&mut inside(pod), &routed(&link, n)).unwrap());
            ip(&node.netns, &format!("route add 10.50.7.{n} dev {link}"));
            ip(&node.netns, &format!("-6 route add fd00:50::{n} dev {link}"));
        }
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            write(&node, path, "1");
        }
        let mut nft = node.netns.run(|| Nft::open().unwrap()).unwrap();
        let rules = Family::BOTH.into_iter().flat_map(rules);
        apply(&mut nft, rules.collect());
        Self { node, liar, victim, nft }
    }

    /// Whether a datagram from an address that the liar has taken reaches the victim.
    fn is_heard(&self, from: &str, to: &str) -> bool {
        let to: SocketAddr = SocketAddr::new(to.parse().unwrap(), 0);
        let ear = self.victim.run(|| UdpSocket::bind(to).unwrap()).unwrap();
        ear.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        let mouth = self.liar.run(|| UdpSocket::bind(from).unwrap()).unwrap();
        mouth.send_to(b"it is me", ear.local_addr().unwrap()).unwrap();
        ear.recv_from(&mut [0; 16]).is_ok()
    }

    /// The same within 10 s: of IPv6 the node's own address on a new link is not usable at once.
    fn comes_to_be_heard(&self, from: &str, to: &str) -> bool {
        (0..20).any(|_| self.is_heard(from, to))
    }

    fn lie(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pod/tests/spoof.py");
        program(&self.liar, "python3", &format!("{script} eth0 10.50.7.9 fd00:50::9"));
    }

    fn neighbours(&self) -> String {
        ip(&self.node.netns, "neigh") + &ip(&self.node.netns, "-6 neigh")
    }
}

#[test]
fn a_source_is_heard_when_it_is_the_pod_s_own_or_allowed_and_never_else() {
    let mut lab = Lab::new();
    for (own, other, to) in [
        ("10.50.7.8", "192.0.2.5/32", "10.50.7.9"),
        ("fd00:50::8", "2001:db8::5/128", "fd00:50::9"),
    ] {
        let nodad = if other.contains(':') { " nodad" } else { "" };
        ip(&lab.liar, &format!("addr add {other} dev eth0{nodad}"));
        let (addr, _) = other.split_once('/').unwrap();
        assert!(lab.comes_to_be_heard(own, to), "{own}");
        assert!(!lab.is_heard(addr, to), "{addr}");
        // Of another link, it is allowed nothing.
        apply(&mut lab.nft, vec![allowed("rst9", addr)]);
        assert!(!lab.is_heard(addr, to), "{addr}");
        apply(&mut lab.nft, vec![allowed("rst8", addr)]);
        assert!(lab.is_heard(addr, to), "{addr}");
        let mut gone = Patches::default();
        gone.unset(allowed("rst8", addr).key());
        lab.nft.complete();
        lab.nft.update(&mut gone);
        assert_eq!(lab.nft.apply().unwrap(), []);
        assert!(!lab.is_heard(addr, to), "{addr}");
    }
}

#[test]
fn a_pod_that_says_it_is_its_neighbour_or_a_router_changes_nothing() {
    let lab = Lab::new();
    // Without what is set of a pod's link the lie is believed: it is well told.
    write(&lab.node, "ipv6/conf/rst8/accept_ra", "2");
    lab.lie();
    assert!(ip(&lab.node.netns, "-6 route").contains("default via fe80::bad dev rst8"));
    ip(&lab.node.netns, "-6 route flush proto ra");
    write(&lab.node, "ipv6/conf/rst8/accept_ra", "0");

    for (from, to) in [("10.50.7.8", "10.50.7.9"), ("fd00:50::8", "fd00:50::9")] {
        assert!(lab.comes_to_be_heard(from, to));
    }
    let (routes, addresses) = (routes(&lab.node), addresses(&lab.node));
    let others = ip(&lab.victim, "neigh");
    lab.lie();
    assert_eq!(self::routes(&lab.node), routes);
    assert_eq!(self::addresses(&lab.node), addresses);
    assert!(!lab.neighbours().contains("02:de:ad:be:ef:01"), "{}", lab.neighbours());
    assert_eq!(ip(&lab.victim, "neigh"), others, "there is no neighbour but the node");
    for (from, to) in [("10.50.7.8", "10.50.7.9"), ("fd00:50::8", "fd00:50::9")] {
        assert!(lab.is_heard(from, to));
    }
    // The victim's MAC and address make it no victim.
    ip(&lab.liar, "link set eth0 address 02:00:00:00:00:09");
    assert!(!lab.is_heard_as_victim());
}

impl Lab {
    /// With the victim's MAC and the victim's address.
    fn is_heard_as_victim(&self) -> bool {
        ip(&self.liar, "addr add 10.50.7.9/32 dev eth0");
        ip(&self.node.netns, "addr add 192.0.2.1/32 dev lo");
        let ear = self.node.netns.run(|| UdpSocket::bind("192.0.2.1:0").unwrap()).unwrap();
        ear.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mouth = self.liar.run(|| UdpSocket::bind("10.50.7.9:0").unwrap()).unwrap();
        mouth.send_to(b"it is me", ear.local_addr().unwrap()).unwrap();
        ear.recv_from(&mut [0; 16]).is_ok()
    }
}

fn routes(node: &Node) -> String {
    ip(&node.netns, "route") + &ip(&node.netns, "-6 route")
}

fn addresses(node: &Node) -> String {
    ip(&node.netns, "-o addr show dev rst8 scope global")
}

fn write(node: &Node, path: &str, value: &str) {
    let path = format!("/proc/sys/net/{path}");
    node.netns.run(|| std::fs::write(path, value).unwrap()).unwrap();
}

/// As `core::attachment::routed` has them.
fn rules(family: Family) -> Vec<Item> {
    let base = BaseChain { kind: ChainType::Filter, hook: Hook::Prerouting, priority: -300 };
    let mut matches = vec![Match::InputLinkStarts("rst")];
    if family == Family::V6 {
        let prefix = "fe80::/10".parse().unwrap();
        let (field, negate) = (russet_desired::Field::Source, super::Flag::On);
        matches.push(Match::Within { field, prefix, negate });
    }
    matches.push(Match::Misplaced);
    matches.push(Match::InputLinkAndSource { set: ALLOWED, negate: super::Flag::On });
    let rules = vec![Rule { matches, verdict: Verdict::Drop }];
    let set = SetKey { family, name: ALLOWED };
    vec![
        Item::Set(set, SetSpec { kind: SetKind::LinkPrefixes }),
        Item::Chain(ChainKey { family, name: "spoofed" }, ChainSpec { base: Some(base), rules }),
    ]
}

fn allowed(link: &str, addr: &str) -> Item {
    let prefix = russet_net::Prefix::host(addr.parse().unwrap());
    let set = SetKey { family: prefix.family(), name: ALLOWED };
    Item::Element(ElementKey { set, link: Some(link.parse().unwrap()), prefix }, ElementSpec)
}

fn apply(nft: &mut Nft, items: Vec<Item>) {
    let mut patches = Patches::default();
    for item in items {
        patches.set(item);
    }
    nft.update(&mut patches);
    assert_eq!(nft.apply().unwrap(), []);
}

const ALLOWED: &str = "allowed-sources";
