//! Peers of every kind that say anything in any order: what the others are told stays well formed, and when
//! all are gone nothing is left.

use std::{net::IpAddr, sync::Arc};

use russet_bgp::{
    bestpath::MedRule,
    policy::Policy,
    reflector::{Me, NextHopRule, Relation},
    rib::{Neighbor, Rib, RibConfig, Source, Watch},
    update::{Bounds, Piece},
    wire::{ClusterId, Family, FamilySet, Frame, NextHop, Peering, RouterId, Terms, Update},
};
use russet_net::Asn;

use super::terms;

/// A sequence of steps: what, who, and for what a peer says its length in two octets, and the body of an UPDATE.
///
/// # Panics
///
/// When a peer is told what it cannot understand, or something is left in the end.
pub fn bgp_routes(bytes: &[u8]) {
    let mut table = Table::new();
    let mut rest = bytes;
    while let [what, who, after @ ..] = rest {
        rest = after;
        let peer = usize::from(*who) % PEERS;
        match what % 8 {
            0..3 => {
                let Some((len, after)) = rest.split_first_chunk() else { break };
                let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
                table.say(peer, &after[..len]);
                rest = &after[len..];
            }
            3 => table.up(peer),
            4 => table.lose(peer, *who),
            5 => table.sweep(peer),
            6 => table.rib.flush(),
            _ => table.read(peer, usize::from(*who >> 4)),
        }
    }
    table.end();
}

struct Table {
    rib: Rib,
    peers: [State; PEERS],
}

#[derive(Clone, Copy)]
enum State {
    Down,
    Up(Source),
    Lost(Source),
}

impl Table {
    fn new() -> Self {
        let id = RouterId::try_from(1).expect("not zero");
        let rib = Rib::new(RibConfig {
            me: Me { asn: Asn::new(65_000), id, cluster: ClusterId::new(1) },
            med: MedRule::SameNeighbor,
            multipath: None,
            watch: Watch::Off,
            seed: 1,
            bounds: Bounds { log_octets: 600, walk: 3, snapshot: 8, empty: 1 << 20 },
        });
        let mut table = Self { rib, peers: [State::Down; PEERS] };
        (0..PEERS).for_each(|peer| table.up(peer));
        table
    }

    fn say(&mut self, peer: usize, body: &[u8]) {
        if let State::Up(source) = self.peers[peer]
            && let Ok(update) = Update::parse(body, of(peer))
        {
            self.rib.update(source, &update);
        }
    }

    fn up(&mut self, peer: usize) {
        let neighbor = neighbor(peer);
        let source = match self.peers[peer] {
            State::Up(_) => return,
            State::Lost(source) => {
                self.rib.resume_peer(source, neighbor);
                source
            }
            State::Down => self.rib.add_peer(neighbor).expect("a number"),
        };
        for family in Family::ALL {
            self.rib.tell(source, family);
        }
        self.peers[peer] = State::Up(source);
    }

    fn lose(&mut self, peer: usize, keep: u8) {
        if let State::Up(source) = self.peers[peer] {
            let kept = |family: &Family| keep >> (5 + family.index()) & 1 == 1;
            let keep: FamilySet = Family::ALL.into_iter().filter(kept).collect();
            self.rib.lose_session(source, keep);
            self.peers[peer] = State::Lost(source);
        }
    }

    fn sweep(&mut self, peer: usize) {
        if let State::Up(source) | State::Lost(source) = self.peers[peer] {
            for family in Family::ALL {
                self.rib.sweep(source, family);
            }
        }
    }

    /// What a peer is told it must be able to understand, to the last attribute.
    fn read(&mut self, peer: usize, most: usize) {
        let State::Up(source) = self.peers[peer] else { return };
        let mut terms = of(peer);
        std::mem::swap(&mut terms.add_path_in, &mut terms.add_path_out);
        for _ in 0..most {
            let Some(Piece::Octets(octets)) = self.rib.next(source) else { return };
            let mut rest = &*octets;
            while let Some(frame) = Frame::read(rest, terms.limit).expect("a message") {
                let update = Update::parse(frame.body, terms).expect("an update");
                assert_eq!(update.faults(), []);
                rest = &rest[frame.len..];
            }
            assert!(rest.is_empty(), "half a message");
        }
    }

    fn end(mut self) {
        for peer in 0..PEERS {
            self.read(peer, usize::MAX);
        }
        for state in self.peers {
            if let State::Up(source) | State::Lost(source) = state {
                self.rib.remove_peer(source);
            }
        }
        self.rib.flush();
        assert_eq!(self.rib.attribute_sets(), 0);
    }
}

/// Two clients that are told alike, others with add-path, two octets, IPv6 next hops, and outside our AS.
fn of(peer: usize) -> Terms {
    terms([0, 0, 0b1_1100, 0b11, 0b10_0001][peer])
}

fn neighbor(peer: usize) -> Neighbor {
    let terms = of(peer);
    let number = u32::try_from(peer).expect("few peers") + 2;
    let next_hop = |addr: IpAddr| Some(NextHop::from(addr));
    Neighbor {
        addr: IpAddr::V4((0x0a00_0000 + number).into()),
        asn: Asn::new(if terms.peering == Peering::External { 65_000 + number } else { 65_000 }),
        id: RouterId::try_from(number).expect("not zero"),
        relation: match terms.peering {
            Peering::External => Relation::External,
            Peering::Internal if peer == 2 => Relation::NonClient,
            Peering::Internal => Relation::Client,
        },
        our_asn: Asn::new(65_000),
        own_as: 0,
        terms,
        import: Arc::new(Policy::accept_all()),
        export: Arc::new(Policy::accept_all()),
        next_hop_rule: NextHopRule::Ours,
        our_next_hop: [
            next_hop([10, 0, 0, 1].into()),
            next_hop([0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
            next_hop([10, 0, 0, 1].into()),
        ],
        limits: [None; 3],
    }
}

const PEERS: usize = 5;
