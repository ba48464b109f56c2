//! What a choice between paths depends on beside the paths.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use super::{
    attrs::Pool,
    neighbor::{Neighbors, RibEvent},
    path::{Path, Standing},
};
use crate::{
    bestpath::{Candidate, MedRule, best},
    reflector::Relation,
    update::learned,
    wire::{ClusterId, RouterId},
};

/// How far a next hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    Unreachable,
    Cost(u32),
}

/// The next hops of which anything is known. Of others it is assumed that they are near.
pub type Distances = BTreeMap<IpAddr, Distance>;

/// The parts of the RIB that its families share.
#[derive(Debug)]
pub struct Rules<'a> {
    pub pool: &'a mut Pool,
    pub neighbors: &'a Neighbors,
    pub distances: &'a Distances,
    pub med: MedRule,
    pub events: &'a mut VecDeque<RibEvent>,
}

impl Rules<'_> {
    /// The place of the best among paths.
    pub fn choose(&self, paths: &[Path]) -> Option<usize> {
        choose(self.pool, self.neighbors, self.distances, self.med, paths)
    }

    /// How a path stands that nothing but its next hop may keep back.
    pub fn reach(&self, path: &Path) -> Standing {
        let next_hop = self.pool.get(path.attrs).next_hop.addr();
        if is_reachable(self.distances, next_hop) {
            Standing::Eligible
        } else {
            Standing::Unreachable
        }
    }

    /// Whether an internal peer told a path that came through a cluster (RFC 4456 §8).
    pub fn came_through(&self, cluster: ClusterId, path: &Path) -> bool {
        let from = self.neighbors.get(path.source);
        let internal = from.is_some_and(|from| from.relation != Relation::External);
        // Most have come through none, and need not be read.
        internal
            && self.pool.summary(path.attrs).clusters > 0
            && self.pool.get(path.attrs).attributes().cluster_list.contains(&cluster)
    }
}

/// The place of the best among paths that may be it.
pub fn choose(
    pool: &Pool,
    neighbors: &Neighbors,
    distances: &Distances,
    med: MedRule,
    paths: &[Path],
) -> Option<usize> {
    let (places, candidates) = candidates(pool, neighbors, distances, paths);
    best(&candidates, med).and_then(|best| places.get(best).copied())
}

/// The paths that may be the best: their places, and what is compared of them.
pub fn candidates(
    pool: &Pool,
    neighbors: &Neighbors,
    distances: &Distances,
    paths: &[Path],
) -> (Vec<usize>, Vec<Candidate>) {
    let eligible = paths.iter().enumerate().filter(|(_, path)| path.standing == Standing::Eligible);
    eligible.map(|(place, path)| (place, candidate(pool, neighbors, distances, path))).unzip()
}

fn candidate(pool: &Pool, neighbors: &Neighbors, distances: &Distances, path: &Path) -> Candidate {
    let summary = pool.summary(path.attrs);
    let neighbor = neighbors.get(path.source);
    let peer_id = neighbor.map_or(0, |neighbor| neighbor.id.get());
    Candidate {
        mobility: summary.mobility,
        local_pref: summary.local_pref,
        learned: learned(neighbors.origin(path.source)),
        hops: summary.hops,
        origin: summary.origin,
        med: summary.med,
        neighbor: summary.neighbor,
        cost: cost(distances, pool.get(path.attrs).next_hop.addr()),
        id: summary.originator.map_or(peer_id, RouterId::get),
        clusters: summary.clusters,
        peer: neighbor.map_or(IpAddr::from([0; 4]), |neighbor| neighbor.addr),
        number: path.source.get(),
        path_id: path.rx_id,
    }
}

fn cost(distances: &Distances, next_hop: IpAddr) -> u32 {
    match distances.get(&next_hop) {
        Some(Distance::Cost(cost)) => *cost,
        Some(Distance::Unreachable) | None => 0,
    }
}

/// Whether a next hop can be reached, as far as is known.
pub fn is_reachable(distances: &Distances, next_hop: IpAddr) -> bool {
    distances.get(&next_hop) != Some(&Distance::Unreachable)
}
