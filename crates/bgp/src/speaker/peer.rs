//! What the routes' side knows of a peer: its session, and what is kept while it restarts.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_net::Asn;

use super::PeerAddr;
use crate::{
    fsm::Negotiated,
    policy::Policy,
    reflector::{NextHopRule, Relation},
    rib::{Limit, Neighbor, Source},
    wire::{Family, FamilySet, NextHop, Peering},
};

/// How routes pass between us and a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// What an internal peer is to us.
    pub internal: Relation,
    pub import: Arc<Policy>,
    pub export: Arc<Policy>,
    pub next_hop: NextHopRule,
    /// How often our own AS may be in a path that it tells.
    pub own_as: u8,
    /// How many routes it may tell, by [`Family::index`].
    pub limits: [Option<Limit>; 3],
}

/// A session that is established.
#[derive(Clone, Debug)]
pub struct PeerUp {
    pub negotiated: Negotiated,
    /// The AS that we are in for it.
    pub our_asn: Asn,
    pub settings: PeerSettings,
    /// Our address towards the peer, by [`Family::index`].
    pub our_next_hop: [Option<NextHop>; 3],
}

impl PeerUp {
    pub(super) fn neighbor(&self, addr: PeerAddr) -> Neighbor {
        let (negotiated, settings) = (&self.negotiated, &self.settings);
        Neighbor {
            addr: addr.ip,
            asn: negotiated.peer_asn,
            id: negotiated.peer_id,
            relation: match negotiated.terms.peering {
                Peering::External => Relation::External,
                Peering::Internal => settings.internal,
            },
            our_asn: self.our_asn,
            own_as: settings.own_as,
            terms: negotiated.terms,
            import: Arc::clone(&settings.import),
            export: Arc::clone(&settings.export),
            next_hop_rule: settings.next_hop,
            our_next_hop: self.our_next_hop,
            limits: settings.limits,
        }
    }
}

/// What a peer said, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub updates: u64,
    /// UPDATEs of which attributes were left out.
    pub discarded: u64,
    /// UPDATEs whose routes count as withdrawn.
    pub treated_as_withdraw: u64,
    /// Times that it asked for everything again.
    pub refreshes: u64,
}

/// A peer that the RIB knows.
#[derive(Debug)]
pub(super) struct Peer {
    pub source: Source,
    pub stage: Stage,
    pub retained: Retained,
    /// Messages that go before the RIB's next.
    pub waiting: VecDeque<Arc<[u8]>>,
    pub told: FamilySet,
    pub counters: Counters,
}

#[derive(Debug)]
pub(super) enum Stage {
    Up(Box<PeerUp>),
    /// It restarts, and its routes are kept.
    Away,
}

impl Peer {
    pub fn new(source: Source, up: PeerUp, retained: Retained) -> Self {
        Self {
            source,
            stage: Stage::Up(Box::new(up)),
            retained,
            waiting: VecDeque::new(),
            told: FamilySet::EMPTY,
            counters: Counters::default(),
        }
    }

    /// Whether every family of the session has ended its first telling.
    pub fn has_told_all(&self) -> bool {
        match &self.stage {
            Stage::Up(up) => {
                let families = up.negotiated.terms.families;
                self.told.both(families) == families
            }
            Stage::Away => false,
        }
    }

    pub const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up(_))
    }
}

/// The families whose routes are kept for a peer's restart, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    families: FamilySet,
    until: Option<Instant>,
}

impl Retained {
    pub(super) const fn new(families: FamilySet, until: Instant) -> Self {
        Self { families, until: Some(until) }
    }

    pub const fn families(&self) -> FamilySet {
        self.families
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until.filter(|_| !self.families.is_empty())
    }

    /// Ends the family's; whether there was something to end.
    pub(super) fn take(&mut self, family: Family) -> bool {
        let had = self.families.contains(family);
        self.families = self.families.iter().filter(|other| *other != family).collect();
        had
    }

    /// What is left of it when the peer is back: families whose forwarding went on, as the peer itself says now
    /// (RFC 4724 §4.2).
    pub(super) fn still_valid(&self, up: &PeerUp, now: Instant) -> Self {
        let named = up.negotiated.restart.iter().flat_map(|restart| &restart.families);
        let forwarding: FamilySet = named
            .filter(|restart| restart.forwarding)
            .filter_map(|restart| restart.family.family())
            .collect();
        let families = self.families.both(forwarding).both(up.negotiated.terms.families);
        Self { families, until: Some(now + TELLING_TIME) }
    }
}

/// A peer that is back may take this long to tell its routes again.
const TELLING_TIME: Duration = Duration::from_mins(6);
