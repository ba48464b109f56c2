//! The slow, obvious twin of the calculation: everything from scratch, every pair of leases compared.

use std::collections::BTreeMap;

use super::{base::Base, learned, learned::verdict, peers::objects};
use crate::{
    change::FactId,
    distribution::store::{Candidate, Claim, lost_to},
    error::Fault,
    model::LeaseKey,
    transport::Me,
    world::World,
};
use russet_desired::Tables;

/// What is wanted, and which facts are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub tables: Tables,
    pub refusals: BTreeMap<FactId, Fault>,
}

/// What this node should look like, computed from scratch.
pub fn oracle(world: &World) -> Tables {
    picture(world).tables
}

/// [`oracle`], with the refusals.
pub fn picture(world: &World) -> Picture {
    let mut picture = Picture::default();
    if let Some(me) = world.me() {
        picture.peers(world, &me);
        // Of two who want one object this node's own go first.
        let base = Tables::default().patch_to(Base::of(world, &me).tables);
        picture.tables.apply(base);
    }
    for (id, known) in &world.facts {
        if let (FactId::Lease(_) | FactId::Host(_), Some(fault)) = (id, known.fault.as_deref()) {
            picture.refusals.insert(id.clone(), fault.clone());
        }
    }
    for (id, fault) in world.other_faults() {
        picture.refusals.insert(id.clone(), fault.clone());
    }
    picture
}

impl Picture {
    fn peers(&mut self, world: &World, me: &Me<'_>) {
        let mut candidates = Vec::new();
        for (key, holding) in world.leases().filter(|(key, it)| !me.holds(*key, it)) {
            match Candidate::new(me, key, holding) {
                Ok(candidate) => candidates.push((key, candidate)),
                Err(fault) => self.refuse(key, fault),
            }
        }
        for (key, candidate) in &candidates {
            match first_rival(candidate, &candidates) {
                Some(fault) => self.refuse(*key, fault),
                None => {
                    for item in objects(me, candidate.reaches()) {
                        self.tables.insert(item);
                    }
                }
            }
        }
        self.learned(world, me, &candidates);
    }

    fn learned(&mut self, world: &World, me: &Me<'_>, leases: &[(LeaseKey, Candidate)]) {
        for (dst, router) in world.all_learned() {
            let holds = |claim: Claim| matches!(claim, Claim::Subnet(it) if it.covers(dst));
            let holders = leases.iter().flat_map(|(_, candidate)| candidate.claims());
            let lease = holders.filter(|(claim, _)| holds(*claim)).map(|(_, who)| who).min();
            let known = |dst| world.learned(dst);
            match verdict(me, lease.map(|claimant| claimant.key), dst, router, &known) {
                Ok(taught) => {
                    for item in learned::objects(me, &taught) {
                        if !self.tables.contains(&item.key()) {
                            self.tables.insert(item);
                        }
                    }
                }
                Err(fault) => _ = self.refusals.insert(FactId::Learned(dst), fault),
            }
        }
    }

    fn refuse(&mut self, key: LeaseKey, fault: Fault) {
        self.refusals.insert(FactId::Lease(key), fault);
    }
}

/// The first claim that somebody earlier has too.
fn first_rival(ours: &Candidate, all: &[(LeaseKey, Candidate)]) -> Option<Fault> {
    ours.contested().find_map(|(claim, claimant)| {
        let others = all.iter().filter(|(_, other)| !ours.is_of_same_node(other));
        let theirs = others.flat_map(|(_, other)| other.claims());
        let first = theirs.filter(|(other, _)| clash(claim, *other)).map(|(_, who)| who).min();
        first.filter(|first| *first < claimant).map(|first| lost_to(claim, first.key))
    })
}

fn clash(one: Claim, other: Claim) -> bool {
    match (one, other) {
        (Claim::Subnet(one), Claim::Subnet(other)) => one.overlaps(other),
        (one, other) => one == other,
    }
}
