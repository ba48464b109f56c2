//! The peers of the RIB: what it has to know of each, and their numbers.

use std::{net::IpAddr, sync::Arc};

use russet_net::Asn;

use super::path::Source;
use crate::{
    policy::Policy,
    reflector::{NextHopRule, Origin, Relation, Towards, Whence},
    wire::{Family, NextHop, RouterId, Terms},
};

/// A peer whose session is established.
#[derive(Clone, Debug)]
pub struct Neighbor {
    pub addr: IpAddr,
    pub asn: Asn,
    pub id: RouterId,
    pub relation: Relation,
    /// The AS that we are in for it.
    pub our_asn: Asn,
    /// How often that may be in a path that it tells.
    pub own_as: u8,
    pub terms: Terms,
    pub import: Arc<Policy>,
    pub export: Arc<Policy>,
    pub next_hop_rule: NextHopRule,
    /// Our address towards the peer, by [`Family::index`].
    pub our_next_hop: [Option<NextHop>; 3],
    /// How many routes it may tell, by [`Family::index`].
    pub limits: [Option<Limit>; 3],
}

/// How many routes of a family a peer may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub most: u32,
    /// From here on it is warned of.
    pub warn_at: u32,
    pub action: LimitAction,
}

/// What is done about routes beyond the limit. They are not kept in any case but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitAction {
    Warn,
    /// The session stays, what is beyond is left out.
    LeaveOut,
    /// The session is closed (RFC 4486: Cease, maximum number of prefixes reached).
    Close,
}

/// What the RIB has to say of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RibEvent {
    /// As many routes as the limit's warning wants, for the first time in this session.
    ManyRoutes { peer: Source, family: Family, routes: u32 },
    /// A route beyond the limit, for the first time in this session.
    TooManyRoutes { peer: Source, family: Family, action: LimitAction },
    /// The peer has not read for so long that what it missed is no longer known: close the session.
    TooSlow { peer: Source, family: Family },
}

/// The peers by number. The number of a peer that is gone goes to the next that comes.
#[derive(Debug, Default)]
pub struct Neighbors {
    all: Vec<Option<Neighbor>>,
}

impl Neighbors {
    /// Gives a peer a number; `None` when there are too many.
    pub fn add(&mut self, neighbor: Neighbor) -> Option<Source> {
        let free = self.all.iter().position(Option::is_none);
        let number = free.unwrap_or(self.all.len());
        let source = Source::peer(number)?;
        if number == self.all.len() {
            self.all.push(None);
        }
        self.all[number] = Some(neighbor);
        Some(source)
    }

    pub fn replace(&mut self, source: Source, neighbor: Neighbor) {
        if let Some(place) = self.all.get_mut(source.number()) {
            *place = Some(neighbor);
        }
    }

    pub fn remove(&mut self, source: Source) {
        if let Some(place) = self.all.get_mut(source.number()) {
            *place = None;
        }
    }

    /// `None` for a route of our own, and for a peer that is not there.
    pub fn get(&self, source: Source) -> Option<&Neighbor> {
        self.all.get(source.number())?.as_ref()
    }

    /// Those that are there.
    pub fn all(&self) -> Vec<Source> {
        let there = self.all.iter().enumerate().filter(|(_, neighbor)| neighbor.is_some());
        there.filter_map(|(number, _)| Source::peer(number)).collect()
    }

    /// Who a path is from.
    pub fn origin(&self, source: Source) -> Origin {
        self.get(source).map_or(Origin::Ourselves, |neighbor| Origin::Peer {
            relation: neighbor.relation,
            id: neighbor.id,
        })
    }
}

impl Neighbor {
    pub fn towards(&self, family: Family) -> Towards {
        Towards {
            relation: self.relation,
            asn: self.our_asn,
            rule: self.next_hop_rule,
            ours: self.our_next_hop[family.index()],
        }
    }

    /// How its routes come to us.
    pub fn whence(&self) -> Whence {
        Whence { relation: self.relation, asn: self.our_asn, own_as: self.own_as }
    }

    pub fn limit(&self, family: Family) -> Option<Limit> {
        self.limits[family.index()]
    }
}
