//! What becomes of routes on their way in: loops, policy, whether the next hop can be reached.
//!
//! What does not depend on the destination is found once for all routes of a message that share attributes.

use super::{
    attrs::{AttrId, Pool},
    neighbor::Neighbor,
    path::Standing,
    rules::{Distances, is_reachable},
};
use crate::{
    policy::{Judgement, Narrowed, Policy, RouteFacts, edit},
    reflector::{Me, Origin, standing},
    update::learned,
    wire::{Attributes, NextHop, Nlri, Tail},
};

/// Routes that share attributes, on their way in.
#[derive(Debug)]
pub struct Incoming<'a> {
    octets: &'a [u8],
    next_hop: NextHop,
    attributes: &'a Attributes,
    policy: &'a Policy,
    /// `None` when everything passes.
    narrowed: Option<Narrowed<'a>>,
    loops: Standing,
    distances: &'a Distances,
    last: Option<Last>,
}

/// What the route before came to: mostly the next comes to the same.
#[derive(Clone, Copy, Debug)]
struct Last {
    tail: Tail,
    judgement: Judgement,
    attrs: AttrId,
    standing: Standing,
}

impl<'a> Incoming<'a> {
    pub fn new(
        octets: &'a [u8],
        attributes: &'a Attributes,
        next_hop: NextHop,
        from: &'a Neighbor,
        me: &Me,
        distances: &'a Distances,
    ) -> Self {
        let policy = &*from.import;
        let origin = Origin::Peer { relation: from.relation, id: from.id };
        let facts = RouteFacts { attributes, next_hop, learned: learned(origin) };
        let narrowed = (!policy.passes_all()).then(|| policy.narrow(&facts));
        let loops = standing(attributes, from.whence(), me);
        Self { octets, next_hop, attributes, policy, narrowed, loops, distances, last: None }
    }

    /// The attributes of a route, with one use of them counted, and how it stands. `None` when there are too
    /// many sets of attributes.
    pub fn take(&mut self, nlri: &Nlri, pool: &mut Pool) -> Option<(AttrId, Standing)> {
        let judgement = match &self.narrowed {
            Some(narrowed) => narrowed.judge(&nlri.key),
            None => Judgement::Accepted(None),
        };
        if let Some(last) = self.last
            && last.tail == nlri.tail
            && last.judgement == judgement
        {
            pool.retain(last.attrs, 1);
            return Some((last.attrs, last.standing));
        }
        let (attrs, standing) = self.intern(nlri.tail, judgement, pool)?;
        pool.retain(attrs, 1);
        let before = self.last.replace(Last { tail: nlri.tail, judgement, attrs, standing });
        if let Some(before) = before {
            pool.release(before.attrs);
        }
        Some((attrs, standing))
    }

    /// Lets go of what was kept for the next route.
    pub fn finish(self, pool: &mut Pool) {
        if let Some(last) = self.last {
            pool.release(last.attrs);
        }
    }

    fn intern(
        &self,
        tail: Tail,
        judgement: Judgement,
        pool: &mut Pool,
    ) -> Option<(AttrId, Standing)> {
        let edits = match judgement {
            Judgement::Accepted(rule) => self.policy.edits(rule),
            Judgement::Rejected(_) => &[],
        };
        let mut next_hop = self.next_hop;
        let attrs = if edits.is_empty() {
            pool.intern(self.octets, next_hop, tail)?
        } else {
            let mut attributes = self.attributes.clone();
            edit(edits, &mut attributes, &mut next_hop);
            let mut octets = Vec::with_capacity(self.octets.len() + 32);
            attributes.write(&mut octets);
            pool.intern(&octets, next_hop, tail)?
        };
        let reachable = is_reachable(self.distances, next_hop.addr());
        let standing = match (self.loops, judgement) {
            // Our cluster may become another, and then it has to be known what the policy said.
            (Standing::Eligible | Standing::ClusterLoop, Judgement::Rejected(_)) => {
                Standing::Policy
            }
            (Standing::Eligible, Judgement::Accepted(_)) if !reachable => Standing::Unreachable,
            (loops, _) => loops,
        };
        Some((attrs, standing))
    }
}
