//! Networks of hundreds of speakers on a virtual clock.
//!
//! Clients have two reflectors each, reflectors know each other. A line carries messages in order, with a delay that
//! changes, and a few at a time, so that readers are slow. For a while lines are cut, with graceful
//! restart or without, nodes lose all they know, and routes come, go and change. When the trouble is over and
//! nothing is under way any more, each node must have chosen what follows from who announces what alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use russet_bgp::{
    bestpath::MedRule,
    policy::Policy,
    reflector::{Me, NextHopRule, Relation},
    rib::{Neighbor, Rib, RibConfig, Source, Watch},
    update::{Bounds, Piece},
    wire::{
        AsWidth, Attributes, ClusterId, Family, FamilySet, NextHop, Nlri, NlriKey, Peering,
        RouterId, Terms,
    },
};
use russet_net::{Asn, Prefix};

use crate::world::for_each_update;

#[test]
fn small_networks_converge_after_any_trouble() {
    for seed in 0..15 {
        Network::new(seed, 3, 30, 40).live_and_check(120);
    }
}

#[test]
fn hundreds_of_speakers_converge_after_any_trouble() {
    Network::new(100, 4, 250, 100).live_and_check(80);
}

struct Network {
    nodes: Vec<Node>,
    links: Vec<Link>,
    keys: u32,
    events: BTreeMap<(u64, u64), Event>,
    now: u64,
    number: u64,
    random: u64,
}

struct Node {
    rib: Rib,
    number: u32,
    /// What it announces, with which preference.
    announces: BTreeMap<NlriKey, u32>,
    links: Vec<usize>,
    /// It is going to look for what it has to tell.
    pumps: bool,
}

struct Link {
    ends: [End; 2],
    /// Counts sessions: what was under way in one is not for the next.
    session: u64,
    up: bool,
}

struct End {
    node: usize,
    /// What the other end is to this one.
    relation: Relation,
    /// The other end's number in this node's RIB; with the line down, while its routes are kept.
    source: Option<Source>,
    /// When the last message towards this end arrives.
    arrives: u64,
    /// Messages on their way to this end.
    under_way: usize,
}

enum Event {
    Deliver { link: usize, session: u64, end: usize, octets: Arc<[u8]> },
    Pump { node: usize },
    Restore { link: usize },
    Trouble,
}

impl Network {
    fn new(seed: u64, reflectors: usize, clients: usize, keys: u32) -> Self {
        let mut network = Self {
            nodes: Vec::new(),
            links: Vec::new(),
            keys,
            events: BTreeMap::new(),
            now: 0,
            number: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        for number in 0..reflectors + clients {
            network.nodes.push(Node::new(u32::try_from(number).unwrap()));
        }
        for one in 0..reflectors {
            for other in one + 1..reflectors {
                network.join([one, other], [Relation::NonClient; 2]);
            }
        }
        for client in reflectors..reflectors + clients {
            let first = network.chance(reflectors as u64);
            let second = (first + 1 + network.chance(reflectors as u64 - 1)) % reflectors as u64;
            for reflector in [first, second] {
                let reflector = usize::try_from(reflector).unwrap();
                network.join([reflector, client], [Relation::Client, Relation::NonClient]);
            }
            for _ in 0..3 {
                network.announce(client);
            }
        }
        for link in 0..network.links.len() {
            network.restore(link);
        }
        network
    }

    fn live_and_check(mut self, troubles: u64) {
        for n in 0..troubles {
            let at = n * 100_000 + self.chance(100_000);
            self.at(at, Event::Trouble);
        }
        let mut steps = 0_u64;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.happen(event);
            steps += 1;
            assert!(steps < 20_000_000, "it does not come to rest");
        }
        self.check();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { link, session, end, octets } => {
                if self.links[link].session == session {
                    self.deliver(link, end, &octets);
                }
            }
            Event::Pump { node } => self.pump(node),
            Event::Restore { link } => self.restore(link),
            Event::Trouble => self.trouble(),
        }
    }

    /// Every node must have chosen the announcement with the highest preference; among equals its own, else
    /// that of the lowest identifier.
    fn check(&self) {
        let keys: BTreeSet<_> = (0..self.keys).map(key).collect();
        for node in &self.nodes {
            for key in &keys {
                let announcers = self.nodes.iter().filter_map(|other| {
                    let pref = other.announces.get(key)?;
                    Some((u32::MAX - pref, other.number != node.number, other.number))
                });
                let expected = announcers.min().map(|(.., number)| hop(number));
                let route = node.rib.route(key);
                let used = route.as_ref().and_then(|r| r.paths.iter().find(|path| path.used));
                let chosen = used.map(|path| path.attrs.next_hop);
                assert_eq!(chosen, expected, "{key} at node {}", node.number);
            }
        }
    }
}

// ---- trouble
impl Network {
    fn trouble(&mut self) {
        match self.chance(10) {
            0..3 => {
                let link = self.pick(self.links.len());
                let keeps = self.chance(2) == 0;
                self.cut(link, [keeps, keeps]);
            }
            3 => {
                let node = self.pick(self.nodes.len());
                self.restart(node);
            }
            4..8 => {
                let node = self.pick(self.nodes.len());
                self.announce(node);
                self.pump_soon(node);
            }
            _ => {
                let node = self.pick(self.nodes.len());
                let own = self.nodes[node].announces.keys().next().copied();
                if let Some(key) = own {
                    self.nodes[node].announces.remove(&key);
                    self.nodes[node].rib.withdraw(&key);
                    self.pump_soon(node);
                }
            }
        }
    }

    /// Ends a session; an end that keeps expects the other one back.
    fn cut(&mut self, link: usize, keeps: [bool; 2]) {
        if !self.links[link].up {
            return;
        }
        self.links[link].up = false;
        self.links[link].session += 1;
        for (end, keeps) in self.links[link].ends.iter_mut().zip(keeps) {
            end.under_way = 0;
            let rib = &mut self.nodes[end.node].rib;
            let Some(source) = end.source else { continue };
            if keeps {
                rib.lose_session(source, v4());
            } else {
                rib.remove_peer(source);
                end.source = None;
            }
        }
        for end in 0..2 {
            self.pump_soon(self.links[link].ends[end].node);
        }
        let after = self.now + 10_000 + self.chance(3_000_000);
        self.at(after, Event::Restore { link });
    }

    /// A node forgets everything but what it announces. The others may keep its routes until it is back.
    fn restart(&mut self, node: usize) {
        let links = self.nodes[node].links.clone();
        for link in links {
            let keep = self.chance(2) == 0;
            let keeps = [0, 1].map(|end| keep && self.links[link].ends[end].node != node);
            self.cut(link, keeps);
            for end in self.links[link].ends.iter_mut().filter(|end| end.node == node) {
                end.source = None;
            }
        }
        let fresh = Node::new(self.nodes[node].number);
        self.nodes[node].rib = fresh.rib;
        let own: Vec<_> = self.nodes[node].announces.clone().into_iter().collect();
        for (key, pref) in own {
            self.nodes[node].originate(key, pref);
        }
    }

    fn restore(&mut self, link: usize) {
        if self.links[link].up {
            return;
        }
        let numbers = [0, 1].map(|end| self.nodes[self.links[link].ends[end].node].number);
        for end in 0..2 {
            let End { node, relation, source, .. } = self.links[link].ends[end];
            let neighbor = neighbor(numbers[1 - end], relation);
            let rib = &mut self.nodes[node].rib;
            let source = match source {
                Some(source) => {
                    rib.resume_peer(source, neighbor);
                    source
                }
                None => rib.add_peer(neighbor).unwrap(),
            };
            rib.tell(source, Family::Ipv4Unicast);
            self.links[link].ends[end].source = Some(source);
        }
        self.links[link].up = true;
        for end in 0..2 {
            self.pump_soon(self.links[link].ends[end].node);
        }
    }

    fn announce(&mut self, node: usize) {
        let key = key(u32::try_from(self.chance(self.keys.into())).unwrap());
        let pref = 100 + u32::try_from(self.chance(3)).unwrap();
        self.nodes[node].announces.insert(key, pref);
        self.nodes[node].originate(key, pref);
    }
}

// ---- lines
impl Network {
    fn join(&mut self, nodes: [usize; 2], relations: [Relation; 2]) {
        let end = |n: usize| End {
            node: nodes[n],
            relation: relations[n],
            source: None,
            arrives: 0,
            under_way: 0,
        };
        let number = self.links.len();
        self.links.push(Link { ends: [end(0), end(1)], session: 0, up: false });
        for node in nodes {
            self.nodes[node].links.push(number);
        }
    }

    /// Sends what a node has to tell, as far as its lines have room.
    fn pump(&mut self, node: usize) {
        self.nodes[node].pumps = false;
        self.nodes[node].rib.flush();
        assert_eq!(self.nodes[node].rib.poll_event(), None);
        for link in self.nodes[node].links.clone() {
            let from = usize::from(self.links[link].ends[1].node == node);
            while self.links[link].up && self.links[link].ends[1 - from].under_way < WINDOW {
                let source = self.links[link].ends[from].source;
                let piece = source.and_then(|source| self.nodes[node].rib.next(source));
                let Some(Piece::Octets(octets)) = piece else { break };
                let delay = 1_000 + self.chance(20_000);
                let session = self.links[link].session;
                let end = &mut self.links[link].ends[1 - from];
                end.under_way += 1;
                end.arrives = end.arrives.max(self.now + delay);
                let at = end.arrives;
                self.at(at, Event::Deliver { link, session, end: 1 - from, octets });
            }
        }
    }

    fn deliver(&mut self, link: usize, end: usize, octets: &[u8]) {
        let End { node, source, .. } = self.links[link].ends[end];
        self.links[link].ends[end].under_way -= 1;
        let source = source.expect("a session that is up");
        let rib = &mut self.nodes[node].rib;
        for_each_update(octets, terms(), |update| {
            rib.update(source, update);
            if let Some(family) = update.end_of_rib() {
                rib.sweep(source, family);
            }
        });
        self.pump_soon(node);
        self.pump_soon(self.links[link].ends[1 - end].node);
    }

    fn pump_soon(&mut self, node: usize) {
        if std::mem::replace(&mut self.nodes[node].pumps, true) {
            return;
        }
        let at = self.now + self.chance(2_000);
        self.at(at, Event::Pump { node });
    }

    fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    fn pick(&mut self, below: usize) -> usize {
        usize::try_from(self.chance(below as u64)).unwrap()
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below.max(1)
    }
}

impl Node {
    fn new(number: u32) -> Self {
        let id = id(number);
        let config = RibConfig {
            me: Me { asn: Asn::new(65_000), id, cluster: ClusterId::new(id.get()) },
            med: MedRule::SameNeighbor,
            multipath: None,
            watch: Watch::Off,
            seed: number.into(),
            bounds: Bounds { log_octets: 2_000, walk: 16, snapshot: 40, empty: 100_000 },
        };
        let (announces, links) = (BTreeMap::new(), Vec::new());
        Self { rib: Rib::new(config), number, announces, links, pumps: false }
    }

    fn originate(&mut self, key: NlriKey, pref: u32) {
        let attributes = Attributes { local_pref: Some(pref), ..Attributes::default() };
        self.rib.originate(&Nlri::plain(key), &attributes, hop(self.number));
    }
}

fn neighbor(number: u32, relation: Relation) -> Neighbor {
    Neighbor {
        addr: hop(number).addr(),
        asn: Asn::new(65_000),
        id: id(number),
        relation,
        our_asn: Asn::new(65_000),
        own_as: 0,
        terms: terms(),
        import: Arc::new(Policy::accept_all()),
        export: Arc::new(Policy::accept_all()),
        next_hop_rule: NextHopRule::Keep,
        our_next_hop: [None; 3],
        limits: [None; 3],
    }
}

fn terms() -> Terms {
    Terms { as_width: AsWidth::Four, ..Terms::plain(Peering::Internal) }
}

fn v4() -> FamilySet {
    FamilySet::EMPTY.with(Family::Ipv4Unicast)
}

fn key(number: u32) -> NlriKey {
    Prefix::new(IpAddr::V4((0x0a00_0000 + (number << 8)).into()), 24).unwrap().into()
}

fn id(number: u32) -> RouterId {
    RouterId::try_from(0x0a01_0001 + number).unwrap()
}

fn hop(number: u32) -> NextHop {
    IpAddr::V4((0x0a01_0001 + number).into()).into()
}

/// So many messages are on a line at a time.
const WINDOW: usize = 3;
