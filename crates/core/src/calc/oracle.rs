//! The slow, obvious twin of the calculation: everything from scratch, every pair of leases compared.

use std::collections::BTreeMap;

use russet_desired::Tables;
use russet_net::Dst;

use super::{base::Base, learned, learned::verdict, peers::objects};
use crate::{
    change::FactId,
    distribution::store::{Claim, Claimant, Reaches, claims, lost_to, reaches},
    error::Fault,
    model::LeaseKey,
    transport::Me,
    world::World,
};

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
        picture.tables = Base::of(world, &me).tables;
        picture.peers(world, &me);
    }
    for (id, known) in &world.facts {
        if let (FactId::Lease(_), Some(fault)) = (id, &known.fault) {
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
        for (key, lease, rev) in world.leases().filter(|(key, ..)| *key != me.own) {
            match reaches(me, key, &lease) {
                Ok(reaches) => candidates.push((Claimant { rev, key }, reaches)),
                Err(fault) => self.refuse(key, fault),
            }
        }
        candidates.sort_by_key(|(claimant, _)| *claimant);
        let mut earlier = Vec::new();
        for (claimant, reaches) in candidates {
            match first_rival(reaches, &earlier) {
                Some(fault) => self.refuse(claimant.key, fault),
                None => {
                    for item in objects(me, reaches) {
                        self.tables.insert(item);
                    }
                }
            }
            earlier.push((claimant, reaches));
        }
        self.learned(world, me, &earlier);
    }

    fn learned(&mut self, world: &World, me: &Me<'_>, leases: &[(Claimant, Reaches)]) {
        for (dst, router) in world.all_learned() {
            let holds = |(_, reaches): &&(Claimant, Reaches)| {
                reaches.iter().any(|reach| matches!(reach.dst, Dst::Prefix(it) if it.covers(dst)))
            };
            let lease = leases.iter().filter(holds).map(|(claimant, _)| *claimant).min();
            let known = |dst| world.learned(dst);
            match verdict(me, lease.map(|claimant| claimant.key), dst, router, &known) {
                Ok(taught) => {
                    for item in learned::objects(me, &taught) {
                        self.tables.insert(item);
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
fn first_rival(ours: Reaches, earlier: &[(Claimant, Reaches)]) -> Option<Fault> {
    claims(ours).find_map(|claim| {
        let rival =
            earlier.iter().find(|(_, theirs)| claims(*theirs).any(|other| clash(claim, other)));
        rival.map(|(claimant, _)| lost_to(claim, claimant.key))
    })
}

fn clash(one: Claim, other: Claim) -> bool {
    match (one, other) {
        (Claim::Subnet(one), Claim::Subnet(other)) => one.overlaps(other),
        (one, other) => one == other,
    }
}
