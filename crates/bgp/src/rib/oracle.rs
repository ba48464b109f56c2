//! The slow, obvious twin of the RIB: every route that was told, in one map, and everything from scratch.
//!
//! What each peer should hold follows from the map alone: no table, no groups, no log, no versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    attrs::Summary,
    neighbor::Neighbor,
    path::{Age, Source, Standing},
    rules::{Distance, Distances, is_reachable},
};
use crate::{
    bestpath::{Candidate, MedRule, best},
    policy::{Judgement, RouteFacts, edit},
    reflector::{Me, Origin, may_tell, pass_on, standing},
    update::learned,
    wire::{Attributes, ClusterId, Family, FamilySet, NextHop, NlriKey, PathId, RouterId, Tail},
};

/// A route as a peer is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub attributes: Attributes,
    pub next_hop: NextHop,
    pub tail: Tail,
}

/// All that was told, and by whom.
#[derive(Debug)]
pub struct Oracle {
    me: Me,
    med: MedRule,
    distances: Distances,
    neighbors: BTreeMap<Source, Neighbor>,
    told: BTreeMap<(NlriKey, Source, PathId), (Held, Age)>,
}

/// A route that passed import.
struct Known<'a> {
    source: Source,
    rx_id: PathId,
    held: Held,
    neighbor: Option<&'a Neighbor>,
    standing: Standing,
}

impl Oracle {
    pub fn new(me: Me, med: MedRule) -> Self {
        let (distances, neighbors, told) = Default::default();
        Self { me, med, distances, neighbors, told }
    }

    pub fn set_peer(&mut self, peer: Source, neighbor: Neighbor) {
        self.neighbors.insert(peer, neighbor);
    }

    pub fn announce(&mut self, peer: Source, key: NlriKey, rx_id: PathId, held: Held) {
        self.told.insert((key, peer, rx_id), (held, Age::Fresh));
    }

    pub fn withdraw(&mut self, peer: Source, key: NlriKey, rx_id: PathId) {
        self.told.remove(&(key, peer, rx_id));
    }

    pub fn lose_session(&mut self, peer: Source, keep: FamilySet) {
        self.told.retain(|(key, source, _), _| *source != peer || keep.contains(key.family()));
        for ((_, source, _), (_, age)) in &mut self.told {
            if *source == peer {
                *age = Age::Stale;
            }
        }
    }

    pub fn remove_peer(&mut self, peer: Source) {
        self.lose_session(peer, FamilySet::EMPTY);
        self.neighbors.remove(&peer);
    }

    pub fn sweep(&mut self, peer: Source, family: Family) {
        self.told.retain(|(key, source, _), (_, age)| {
            *source != peer || key.family() != family || *age == Age::Fresh
        });
    }

    pub fn set_distances(&mut self, distances: impl IntoIterator<Item = (IpAddr, Distance)>) {
        self.distances = distances.into_iter().collect();
    }

    pub fn set_cluster(&mut self, cluster: ClusterId) {
        self.me.cluster = cluster;
    }

    /// Every destination that somebody told.
    pub fn keys(&self) -> BTreeSet<NlriKey> {
        self.told.keys().map(|(key, ..)| *key).collect()
    }

    /// Whose path is the best, with its name.
    pub fn best(&self, key: &NlriKey) -> Option<(Source, PathId)> {
        let known = self.eligible(key);
        let place = self.place_of_best(&known)?;
        Some((known[place].source, known[place].rx_id))
    }

    /// What a peer should have been told of a destination: nothing, the best, or with add-path every path.
    pub fn due(&self, peer: Source, key: &NlriKey) -> Vec<Held> {
        let Some(to) = self.neighbors.get(&peer) else { return Vec::new() };
        let family = key.family();
        let known = self.eligible(key);
        let all = to.terms.add_path_out.contains(family);
        let best = self.place_of_best(&known);
        let chosen = known.iter().enumerate().filter(|(place, _)| all || Some(*place) == best);
        let others = chosen.map(|(_, known)| known).filter(|known| known.source != peer);
        others.filter_map(|known| self.pass(known, to, key)).collect()
    }

    fn pass(&self, known: &Known<'_>, to: &Neighbor, key: &NlriKey) -> Option<Held> {
        let origin = known.origin();
        let Held { mut attributes, next_hop, tail } = known.held.clone();
        if !may_tell(origin, to.relation, Summary::of(&attributes).scope) {
            return None;
        }
        let learned = learned(origin);
        let facts = RouteFacts { attributes: &attributes, next_hop, learned };
        let Judgement::Accepted(rule) = to.export.narrow(&facts).judge(key) else { return None };
        let towards = to.towards(key.family());
        let mut next_hop = pass_on(&mut attributes, next_hop, origin, &towards, &self.me)?;
        edit(to.export.edits(rule), &mut attributes, &mut next_hop);
        let understood = match (key.family(), next_hop) {
            (Family::Ipv4Unicast, NextHop::V6 { .. }) => {
                to.terms.extended_next_hop.contains(Family::Ipv4Unicast)
            }
            (Family::Ipv6Unicast, NextHop::V4(_)) => false,
            _ => true,
        };
        understood.then_some(Held { attributes, next_hop, tail })
    }

    fn eligible(&self, key: &NlriKey) -> Vec<Known<'_>> {
        let told = self.told.iter().filter(|((other, ..), _)| other == key);
        let known =
            told.map(|((_, source, rx_id), (held, _))| self.import(*source, *rx_id, key, held));
        known.filter(|known| known.standing == Standing::Eligible).collect()
    }

    fn import(&self, source: Source, rx_id: PathId, key: &NlriKey, told: &Held) -> Known<'_> {
        let neighbor = self.neighbors.get(&source);
        let mut held = told.clone();
        let mut known_standing = Standing::Eligible;
        if let Some(from) = neighbor {
            known_standing = standing(&held.attributes, from.whence(), &self.me);
            let origin = Origin::Peer { relation: from.relation, id: from.id };
            let learned = learned(origin);
            let (attributes, next_hop) = (&told.attributes, told.next_hop);
            let facts = RouteFacts { attributes, next_hop, learned };
            match from.import.narrow(&facts).judge(key) {
                Judgement::Accepted(rule) => {
                    let edits = from.import.edits(rule);
                    edit(edits, &mut held.attributes, &mut held.next_hop);
                }
                Judgement::Rejected(_) => known_standing = Standing::Policy,
            }
        }
        if !is_reachable(&self.distances, held.next_hop.addr()) {
            known_standing = known_standing.max(Standing::Unreachable);
        }
        Known { source, rx_id, held, neighbor, standing: known_standing }
    }

    fn place_of_best(&self, known: &[Known<'_>]) -> Option<usize> {
        let candidates: Vec<_> = known.iter().map(|known| self.candidate(known)).collect();
        best(&candidates, self.med)
    }

    fn candidate(&self, known: &Known<'_>) -> Candidate {
        let attributes = &known.held.attributes;
        let moved = attributes.ext_communities.iter().find_map(|one| one.as_mac_mobility());
        let peer_id = known.neighbor.map_or(0, |neighbor| neighbor.id.get());
        let cost = match self.distances.get(&known.held.next_hop.addr()) {
            Some(Distance::Cost(cost)) => *cost,
            _ => 0,
        };
        Candidate {
            mobility: moved.map(Into::into).unwrap_or_default(),
            local_pref: attributes.local_pref.unwrap_or(100),
            learned: learned(known.origin()),
            hops: u32::try_from(attributes.as_path.hops()).unwrap_or(u32::MAX),
            origin: attributes.origin,
            med: attributes.med.unwrap_or(0),
            neighbor: attributes.as_path.neighbor(),
            cost,
            id: attributes.originator_id.map_or(peer_id, RouterId::get),
            clusters: u32::try_from(attributes.cluster_list.len()).unwrap_or(u32::MAX),
            peer: known.neighbor.map_or([0; 4].into(), |neighbor| neighbor.addr),
            number: known.source.get(),
            path_id: known.rx_id,
        }
    }
}

impl Known<'_> {
    fn origin(&self) -> Origin {
        self.neighbor.map_or(Origin::Ourselves, |neighbor| Origin::Peer {
            relation: neighbor.relation,
            id: neighbor.id,
        })
    }
}
