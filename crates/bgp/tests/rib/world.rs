//! One RIB, its oracle, and peers that remember what they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use russet_bgp::{
    bestpath::MedRule,
    policy::{Edit, Lengths, Match, Operator, Policy, PrefixMatch, Rule, Then, Verdict},
    reflector::{Me, NextHopRule, Relation},
    rib::{Distance, Held, Neighbor, Oracle, Rib, RibConfig, RibEvent, Source, Watch},
    update::{Bounds, Piece},
    wire::{
        AsPath, AsWidth, Attributes, ClusterId, Community, Esi, EvpnKey, ExtCommunity, Family,
        FamilySet, Frame, Label, MessageLimit, NextHop, Nlri, NlriKey, PathId, Peering,
        RouteDistinguisher, RouterId, Sticky, Tail, Terms, Update, UpdateWriter,
    },
};
use russet_net::{Asn, Mac, Prefix};

pub const PEERS: usize = 8;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Op {
    Announce { peer: usize, keys: Vec<u8>, attributes: u16, id: u8 },
    Withdraw { peer: usize, keys: Vec<u8>, id: u8 },
    Originate { key: u8, attributes: u16 },
    WithdrawOurs { key: u8 },
    Up { peer: usize },
    Remove { peer: usize },
    Lose { peer: usize, keep: u8 },
    Sweep { peer: usize },
    Flush,
    Read { peer: usize, pieces: u8 },
    Refresh { peer: usize },
    Distance { hop: u8, distance: u8 },
    Cluster { number: u8 },
}

pub struct World {
    pub rib: Rib,
    oracle: Oracle,
    peers: Vec<Peer>,
    distances: BTreeMap<IpAddr, Distance>,
    /// How many peers were found to be too slow.
    pub too_slow: usize,
}

struct Peer {
    neighbor: Neighbor,
    state: State,
    holds: BTreeMap<(NlriKey, PathId), Held>,
    ended: BTreeSet<Family>,
    refreshes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Up(Source),
    Lost(Source),
}

pub fn bounds_generous() -> Bounds {
    Bounds::default()
}

pub fn bounds_tight(log_octets: usize, walk: usize, snapshot: usize, empty: usize) -> Bounds {
    Bounds { log_octets, walk, snapshot, empty }
}

impl World {
    pub fn new(seed: u64, bounds: Bounds) -> Self {
        let (me, med) = (me(), MedRule::SameNeighbor);
        let config = RibConfig { me, med, multipath: None, watch: Watch::On, seed, bounds };
        let peer = |neighbor| Peer {
            neighbor,
            state: State::Down,
            holds: BTreeMap::new(),
            ended: BTreeSet::new(),
            refreshes: 0,
        };
        let mut world = Self {
            rib: Rib::new(config),
            oracle: Oracle::new(me, med),
            peers: (0..PEERS).map(neighbor).map(peer).collect(),
            distances: BTreeMap::new(),
            too_slow: 0,
        };
        // Half of them are there from the beginning, or most operations would find nobody.
        (0..PEERS).step_by(2).for_each(|peer| world.up(peer));
        world
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Announce { peer, keys, attributes, id } => {
                self.announce(*peer, keys, *attributes, *id);
            }
            Op::Withdraw { peer, keys, id } => self.withdraw(*peer, keys, *id),
            Op::Originate { key, attributes } => self.originate(*key, *attributes),
            Op::WithdrawOurs { key } => {
                self.rib.withdraw(&self::key(*key));
                self.oracle.withdraw(Source::LOCAL, self::key(*key), PathId::NONE);
            }
            Op::Up { peer } => self.up(*peer),
            Op::Remove { peer } => self.remove(*peer),
            Op::Lose { peer, keep } => self.lose(*peer, *keep),
            Op::Sweep { peer } => self.sweep(*peer),
            Op::Flush => self.flush(),
            Op::Read { peer, pieces } => self.read(*peer, (*pieces).into()),
            Op::Refresh { peer } => {
                if let State::Up(source) = self.peers[*peer].state {
                    self.rib.refresh(source, Family::Ipv4Unicast);
                    self.expel_the_slow();
                }
            }
            Op::Distance { hop, distance } => self.set_distance(*hop, *distance),
            Op::Cluster { number } => self.set_cluster(*number),
        }
    }

    /// Lets everybody read all.
    pub fn settle(&mut self) {
        // A peer that is found to be too slow takes its routes with it, which others must read.
        while self.rib.has_changed() || self.anyone_has_more() {
            self.flush();
            for peer in 0..PEERS {
                self.read(peer, usize::MAX);
            }
        }
    }

    fn anyone_has_more(&self) -> bool {
        self.peers.iter().any(|peer| match peer.state {
            State::Up(source) => self.rib.has_more(source),
            State::Down | State::Lost(_) => false,
        })
    }

    /// Holds everybody to the oracle.
    pub fn check(&self) {
        let mut keys = self.oracle.keys();
        keys.extend(self.peers.iter().flat_map(|peer| peer.holds.keys().map(|(key, _)| *key)));
        for key in &keys {
            let best = self.rib.route(key).and_then(|route| {
                let best = route.paths.iter().find(|path| path.used)?;
                assert_eq!(best.lost_at, None);
                Some((best.source, best.path_id))
            });
            assert_eq!(best, self.oracle.best(key), "the best of {key}");
        }
        for (number, peer) in self.peers.iter().enumerate() {
            let State::Up(source) = peer.state else { continue };
            for key in keys.iter().filter(|key| peer.neighbor.terms.families.contains(key.family()))
            {
                let mut due = self.oracle.due(source, key);
                let mut holds = peer.holds_of(key);
                due.sort_by_key(order);
                holds.sort_by_key(order);
                assert_eq!(holds, due, "what peer {number} holds of {key}");
            }
            assert!(peer.neighbor.terms.families.iter().all(|family| peer.ended.contains(&family)));
        }
    }

    /// Whether a peer was told the end of a key's family, and whether it holds the key.
    pub fn heard(&self, peer: usize, number: u8) -> (bool, bool) {
        let (peer, key) = (&self.peers[peer], key(number));
        (peer.ended.contains(&key.family()), !peer.holds_of(&key).is_empty())
    }

    /// Takes everybody and everything away.
    pub fn remove_all(&mut self) {
        (0..PEERS).for_each(|peer| self.remove(peer));
        for key in (0..24).map(key) {
            self.rib.withdraw(&key);
            self.oracle.withdraw(Source::LOCAL, key, PathId::NONE);
        }
        self.rib.flush();
        assert!(self.oracle.keys().is_empty());
        for family in Family::ALL {
            assert_eq!(self.rib.count(family), 0);
        }
    }
}

// ---- what happens
impl World {
    fn announce(&mut self, peer: usize, keys: &[u8], attributes: u16, id: u8) {
        let State::Up(source) = self.peers[peer].state else { return };
        let terms = self.peers[peer].neighbor.terms;
        let attributes = self::attributes(attributes, terms.peering);
        let mut canonical = Vec::new();
        attributes.write(&mut canonical);
        for family in terms.families.iter() {
            let nlris = self.nlris(peer, family, keys, id);
            let mut octets = Vec::new();
            UpdateWriter::new(sender(terms), &mut octets)
                .announce(family, &canonical, next_hop(family, id), nlris)
                .unwrap();
            self.feed(peer, source, &octets);
        }
    }

    fn withdraw(&mut self, peer: usize, keys: &[u8], id: u8) {
        let State::Up(source) = self.peers[peer].state else { return };
        let terms = self.peers[peer].neighbor.terms;
        for family in terms.families.iter() {
            let nlris = self.nlris(peer, family, keys, id);
            let mut octets = Vec::new();
            UpdateWriter::new(sender(terms), &mut octets).withdraw(family, nlris);
            self.feed(peer, source, &octets);
        }
    }

    /// Gives the RIB octets, and the oracle what they mean.
    fn feed(&mut self, peer: usize, source: Source, octets: &[u8]) {
        let terms = self.peers[peer].neighbor.terms;
        for_each_update(octets, terms, |update| {
            self.rib.update(source, update);
            for nlri in update.withdrawn().flat_map(|nlris| nlris.iter()) {
                self.oracle.withdraw(source, nlri.key, nlri.path_id);
            }
            for (nlri, held) in announced(update) {
                self.oracle.announce(source, nlri.key, nlri.path_id, held);
            }
        });
    }

    fn nlris(&self, peer: usize, family: Family, keys: &[u8], id: u8) -> Vec<Nlri> {
        let ids = self.peers[peer].neighbor.terms.add_path_in.contains(family);
        let of_family = keys.iter().filter(|number| key(**number).family() == family);
        let nlri = |number: &u8| Nlri {
            path_id: if ids { PathId::new(u32::from(id) + 1) } else { PathId::NONE },
            key: key(*number),
            tail: tail(*number, id),
        };
        of_family.map(nlri).collect()
    }

    fn originate(&mut self, key: u8, attributes: u16) {
        let attributes = self::attributes(attributes, Peering::External);
        let nlri = Nlri { path_id: PathId::NONE, key: self::key(key), tail: tail(key, 0) };
        let next_hop = match nlri.key.family() {
            Family::Ipv6Unicast => NextHop::from(IpAddr::from(Ipv6Addr::UNSPECIFIED)),
            _ => NextHop::from(IpAddr::from([0; 4])),
        };
        self.rib.originate(&nlri, &attributes, next_hop);
        let held = Held { attributes, next_hop, tail: nlri.tail };
        self.oracle.announce(Source::LOCAL, nlri.key, PathId::NONE, held);
    }

    fn up(&mut self, peer: usize) {
        let neighbor = self.peers[peer].neighbor.clone();
        let source = match self.peers[peer].state {
            State::Up(_) => return,
            State::Lost(source) => {
                self.rib.resume_peer(source, neighbor.clone());
                source
            }
            State::Down => self.rib.add_peer(neighbor.clone()).unwrap(),
        };
        let families = neighbor.terms.families;
        self.oracle.set_peer(source, neighbor);
        self.peers[peer].begin(source);
        families.iter().for_each(|family| self.rib.tell(source, family));
        self.expel_the_slow();
    }

    fn remove(&mut self, peer: usize) {
        if let State::Up(source) | State::Lost(source) = self.peers[peer].state {
            self.rib.remove_peer(source);
            self.oracle.remove_peer(source);
            self.peers[peer].state = State::Down;
        }
    }

    fn lose(&mut self, peer: usize, keep: u8) {
        if let State::Up(source) = self.peers[peer].state {
            let kept = |family: &Family| keep >> family.index() & 1 == 1;
            let keep: FamilySet = Family::ALL.into_iter().filter(kept).collect();
            self.rib.lose_session(source, keep);
            self.oracle.lose_session(source, keep);
            self.peers[peer].state = State::Lost(source);
        }
    }

    fn sweep(&mut self, peer: usize) {
        if let State::Up(source) | State::Lost(source) = self.peers[peer].state {
            for family in Family::ALL {
                self.rib.sweep(source, family);
                self.oracle.sweep(source, family);
            }
        }
    }

    fn set_distance(&mut self, hop: u8, distance: u8) {
        let hop = next_hop(Family::Ipv4Unicast, hop).addr();
        let distance = match distance {
            0 => Distance::Unreachable,
            cost => Distance::Cost(cost.into()),
        };
        self.distances.insert(hop, distance);
        self.rib.set_distances(self.distances.clone());
        self.oracle.set_distances(self.distances.clone());
    }

    /// Ours, or one that others' routes came through.
    fn set_cluster(&mut self, number: u8) {
        let cluster = if number == 0 { me().cluster } else { ClusterId::new(number.into()) };
        self.rib.set_cluster(cluster);
        self.oracle.set_cluster(cluster);
        self.expel_the_slow();
    }

    fn flush(&mut self) {
        self.rib.flush();
        self.expel_the_slow();
    }

    fn read(&mut self, peer: usize, pieces: usize) {
        let State::Up(source) = self.peers[peer].state else { return };
        for _ in 0..pieces {
            let Some(piece) = self.rib.next(source) else { break };
            self.peers[peer].hear(&piece);
        }
        self.expel_the_slow();
    }

    /// Whoever is too slow loses the session.
    fn expel_the_slow(&mut self) {
        while let Some(event) = self.rib.poll_event() {
            let RibEvent::TooSlow { peer: slow, .. } = event else { panic!("{event:?}") };
            self.too_slow += 1;
            if let Some(peer) = self.peers.iter().position(|peer| peer.state == State::Up(slow)) {
                self.remove(peer);
            }
        }
    }
}

impl Peer {
    fn begin(&mut self, source: Source) {
        self.state = State::Up(source);
        self.holds.clear();
        self.ended.clear();
    }

    fn hear(&mut self, piece: &Piece) {
        let Piece::Octets(octets) = piece else {
            self.refreshes += 1;
            return;
        };
        let terms = sender(self.neighbor.terms);
        let holds = &mut self.holds;
        let ended = &mut self.ended;
        for_each_update(octets, terms, |update| {
            for nlri in update.withdrawn().flat_map(|nlris| nlris.iter()) {
                holds.remove(&(nlri.key, nlri.path_id));
            }
            for (nlri, held) in announced(update) {
                holds.insert((nlri.key, nlri.path_id), held);
            }
            ended.extend(update.end_of_rib());
        });
    }

    fn holds_of(&self, key: &NlriKey) -> Vec<Held> {
        let of = self.holds.iter().filter(|((other, _), _)| other == key);
        of.map(|(_, held)| held.clone()).collect()
    }
}

// ---- octets
pub fn for_each_update(octets: &[u8], terms: Terms, mut each: impl FnMut(&Update<'_>)) {
    let mut rest = octets;
    while let Some(frame) = Frame::read(rest, terms.limit).expect("a message") {
        let update = Update::parse(frame.body, terms).expect("an update");
        assert_eq!(update.faults(), [], "{:02x?}", frame.body);
        each(&update);
        rest = &rest[frame.len..];
    }
    assert!(rest.is_empty(), "half a message");
}

pub fn announced(update: &Update<'_>) -> Vec<(Nlri, Held)> {
    let mut octets = Vec::new();
    update.write_attributes(&mut octets);
    let attributes = Attributes::read(&octets).expect("canonical");
    let each = |nlri: Nlri, next_hop| {
        (nlri, Held { attributes: attributes.clone(), next_hop, tail: nlri.tail })
    };
    let announced = update.announced();
    announced
        .flat_map(|some| some.nlris.iter().map(move |nlri| (nlri, some.next_hop)))
        .map(|(nlri, next_hop)| each(nlri, next_hop))
        .collect()
}

/// The terms as the other side sees them.
fn sender(terms: Terms) -> Terms {
    Terms { add_path_in: terms.add_path_out, add_path_out: terms.add_path_in, ..terms }
}

fn order(held: &Held) -> String {
    format!("{held:?}")
}

// ---- who and what there is
fn me() -> Me {
    let id = RouterId::try_from(0x0a00_00fe).unwrap();
    Me { asn: Asn::new(65_000), id, cluster: ClusterId::new(0x0a00_00fe) }
}

/// Peers of every kind; the first and the last are told alike.
fn neighbor(number: usize) -> Neighbor {
    let v4 = FamilySet::EMPTY.with(Family::Ipv4Unicast);
    let all: FamilySet = Family::ALL.into_iter().collect();
    let (relation, families) = match number {
        0 | 1 | 5 | 7 => (Relation::Client, all),
        2 | 6 => (Relation::NonClient, all),
        3 => (Relation::External, v4.with(Family::Ipv6Unicast)),
        _ => (Relation::External, v4),
    };
    let peering = match relation {
        Relation::External => Peering::External,
        _ => Peering::Internal,
    };
    let add_path = if number == 1 || number == 6 { all } else { FamilySet::EMPTY };
    let terms = Terms {
        as_width: if number == 3 { AsWidth::Two } else { AsWidth::Four },
        families,
        add_path_in: add_path,
        add_path_out: if number == 4 { v4 } else { add_path },
        limit: if number == 5 { MessageLimit::Extended } else { MessageLimit::Usual },
        ..Terms::plain(peering)
    };
    let n = u8::try_from(number).unwrap();
    Neighbor {
        addr: [192, 0, 2, n].into(),
        asn: Asn::new(if relation == Relation::External { 65_000 + u32::from(n) } else { 65_000 }),
        // Identifiers in another order than addresses and numbers.
        id: RouterId::try_from(0x0a00_0010 - u32::from(n)).unwrap(),
        relation,
        our_asn: Asn::new(65_000),
        own_as: u8::from(number == 4),
        terms,
        import: Arc::new(if number == 5 { import() } else { Policy::accept_all() }),
        export: Arc::new(if (2..=4).contains(&number) { export() } else { Policy::accept_all() }),
        next_hop_rule: match relation {
            Relation::External => NextHopRule::Ours,
            _ => NextHopRule::Keep,
        },
        our_next_hop: [
            Some(IpAddr::from([192, 0, 2, 254]).into()),
            Some(IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe)).into()),
            Some(IpAddr::from([192, 0, 2, 254]).into()),
        ],
        limits: [None; 3],
    }
}

fn import() -> Policy {
    let rule = |name: &str, prefixes: &[&str], matches: Vec<Match>, then| Rule {
        name: name.to_owned(),
        prefixes: prefixes.iter().map(|prefix| within(prefix)).collect(),
        matches,
        then,
    };
    Policy {
        name: "import".to_owned(),
        rules: vec![
            rule("marked", &[], vec![Match::Community(MARK)], Then::Reject),
            rule("prefer", &["10.0.0.0/14"], vec![], Then::Accept(vec![Edit::LocalPref(300)])),
        ],
        otherwise: Verdict::Accept,
    }
}

fn export() -> Policy {
    let rule = |name: &str, prefix: &str, then| Rule {
        name: name.to_owned(),
        prefixes: vec![within(prefix)],
        matches: Vec::new(),
        then,
    };
    Policy {
        name: "export".to_owned(),
        rules: vec![
            rule("hidden", "10.4.0.0/15", Then::Reject),
            rule("longer", "10.8.0.0/13", Then::Accept(vec![Edit::Med(Some(77))])),
        ],
        otherwise: Verdict::Accept,
    }
}

fn within(prefix: &str) -> PrefixMatch {
    let prefix = prefix.parse().unwrap();
    PrefixMatch { operator: Operator::In, prefix, lengths: Lengths::ANY }
}

/// Twelve destinations of IPv4, four of IPv6, eight of EVPN.
pub fn key(number: u8) -> NlriKey {
    let rd = RouteDistinguisher::new([0, 1, 10, 0, 0, 1, 0, 1]);
    match number {
        0..12 => Prefix::new([10, number, 0, 0].into(), 16).unwrap().into(),
        12..16 => {
            let addr = Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, 0);
            Prefix::new(addr.into(), 32).unwrap().into()
        }
        16..20 => {
            EvpnKey::MacIp { rd, tag: 0, mac: Mac::new([2, 0, 0, 0, 0, number]), ip: None }.into()
        }
        20..22 => EvpnKey::Multicast { rd, tag: 0, origin: [10, 0, 0, number].into() }.into(),
        _ => {
            let prefix = Prefix::new([10, number, 0, 0].into(), 16).unwrap();
            EvpnKey::Prefix { rd, tag: 0, prefix }.into()
        }
    }
}

/// What beside the attributes makes two routes to one destination differ.
fn tail(number: u8, id: u8) -> Tail {
    let label = Label::new([0, 1, id]);
    match number {
        16..20 => Tail::MacIp { esi: Esi::ZERO, label_1: label, label_2: None },
        22.. => Tail::Prefix { esi: Esi::ZERO, gateway: [0; 4].into(), label },
        _ => Tail::None,
    }
}

fn next_hop(family: Family, id: u8) -> NextHop {
    match family {
        Family::Ipv6Unicast => {
            IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(id) + 1)).into()
        }
        _ => IpAddr::from([192, 0, 2, 100 + id]).into(),
    }
}

/// One of many sets of attributes, made so that every step of the decision is met.
fn attributes(choice: u16, peering: Peering) -> Attributes {
    let pick = |shift: u16, of: u16| choice >> shift & (of - 1);
    let internal = peering == Peering::Internal;
    let path: &[u32] = match pick(0, 4) {
        0 if internal => &[],
        1 => &[65_010, 65_011],
        2 => &[65_012],
        3 if pick(14, 4) == 3 => &[65_010, 65_000],
        _ => &[65_010],
    };
    let communities = match pick(2, 8) {
        0 => vec![Community::NO_EXPORT],
        1 => vec![Community::NO_ADVERTISE],
        2 | 3 => vec![MARK],
        _ => Vec::new(),
    };
    let clusters = match pick(5, 4) {
        0 => vec![ClusterId::new(7)],
        1 if pick(14, 4) == 2 => vec![me().cluster],
        _ => Vec::new(),
    };
    let moved = (pick(7, 4) == 0).then(|| ExtCommunity::mac_mobility(Sticky::No, 5));
    Attributes {
        as_path: AsPath::sequence(path.iter().copied().map(Asn::new)),
        med: (pick(9, 2) == 1).then_some(u32::from(pick(10, 4))),
        local_pref: (internal && pick(12, 2) == 1).then_some(90 + u32::from(pick(12, 4))),
        communities,
        ext_communities: moved.into_iter().collect(),
        originator_id: (internal && pick(13, 2) == 1)
            .then(|| RouterId::try_from(0x0a00_0020 - u32::from(pick(10, 4))).unwrap()),
        cluster_list: if internal { clusters } else { Vec::new() },
        ..Attributes::default()
    }
}

const MARK: Community = Community::new(0xfde8_0001);
