//! Who holds what: leases that say themselves how their holder is reached, and blocks that name a node which does.

use std::{collections::BTreeSet, sync::Arc};

use russet_net::{Family, Prefix};

use super::World;
use crate::{
    change::{Fact, FactId, Source},
    model::{Addressing, Backend, Ends, Lease, LeaseKey, NodeName, Own, Tunnel},
    transport::{Footing, Transport},
};

/// A lease, and how its holder is reached: as it says itself, or as the node that it names does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub lease: Lease,
    /// The lease's own create revision.
    pub rev: u64,
    pub holder: Option<Holder>,
    pub has_router: HasRouter,
}

/// Whether some router teaches the way to what a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HasRouter {
    #[default]
    No,
    Yes,
}

/// A node that leases name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: NodeName,
    /// Its create revision; `None` when nobody says how it is reached.
    pub rev: Option<u64>,
}

/// The end of a node that nothing is known of.
fn nowhere() -> Lease {
    let backend = Backend::Ends(Arc::new(Ends::default()));
    Lease { public_ip: None, public_ipv6: None, backend }
}

impl World {
    /// A lease that is readable, with its revision.
    pub fn lease(&self, key: LeaseKey) -> Option<Holding> {
        self.holding(key, self.good(&FactId::Lease(key))?)
    }

    /// Every readable lease, our own included.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseKey, Holding)> {
        self.leases_from(FactId::Lease(LeaseKey::LOWEST))
    }

    pub(super) fn leases_from(&self, first: FactId) -> impl Iterator<Item = (LeaseKey, Holding)> {
        self.facts.range(first..).filter_map(|(id, known)| match (id, known.good.as_deref()) {
            (FactId::Lease(key), Some(good)) => Some((*key, self.holding(*key, good)?)),
            _ => None,
        })
    }

    fn holding(&self, key: LeaseKey, (fact, rev): &(Fact, u64)) -> Option<Holding> {
        let rev = *rev;
        match fact {
            Fact::Lease(lease) => {
                let (lease, holder, has_router) = (Lease::clone(lease), None, HasRouter::No);
                Some(Holding { lease, rev, holder, has_router })
            }
            Fact::Held(name) => {
                let host = self.host(name);
                let holder = Some(Holder { name: name.clone(), rev: host.map(|(_, rev)| rev) });
                let lease = host.map_or_else(nowhere, |(lease, _)| lease.clone());
                Some(Holding { lease, rev, holder, has_router: self.has_router(key) })
            }
            _ => None,
        }
    }

    /// Whether a router teaches a block by itself, or more of its pool; asked only where a tunnel of before may still be
    /// the way.
    fn has_router(&self, key: LeaseKey) -> HasRouter {
        let (Some(footing), Some(subnet)) = (&self.in_force, key.subnets().next()) else {
            return HasRouter::No;
        };
        let pool = footing.left_pool(subnet);
        let lengths = pool.into_iter().flat_map(|pool| pool.len()..=subnet.len());
        let mut around = lengths.filter_map(|len| Prefix::around(subnet.addr(), len).ok());
        if around.any(|dst| self.learned(dst).is_some()) { HasRouter::Yes } else { HasRouter::No }
    }

    /// What is held within what a router teaches.
    pub(super) fn held_within(&self, dst: Prefix) -> impl Iterator<Item = LeaseKey> {
        let of = |family| (dst.family() == family).then_some(dst);
        let first = LeaseKey::new(of(Family::V4), of(Family::V6));
        // What is larger than a pool teaches nothing of its blocks.
        let is_heeded = |footing: &Footing| footing.left_pool(dst).is_some();
        let heeded = self.in_force.as_ref().is_some_and(is_heeded);
        let first = first.filter(|_| heeded).into_iter();
        let from = first.flat_map(|first| self.facts.range(FactId::Lease(first)..));
        let keys = from.map_while(|(id, _)| match id {
            FactId::Lease(key) => Some(*key),
            _ => None,
        });
        keys.take_while(move |key| key.subnets().all(|subnet| dst.covers(subnet)))
    }

    /// How a node is reached, with its revision.
    pub fn host(&self, name: &NodeName) -> Option<(&Lease, u64)> {
        match self.good(&FactId::Host(name.clone()))? {
            (Fact::Host(lease), rev) => Some((lease, *rev)),
            _ => None,
        }
    }

    /// Every node that is known.
    pub fn hosts(&self) -> impl Iterator<Item = (&NodeName, &Lease)> {
        let first = FactId::Host(NodeName::lowest());
        self.facts
            .range(first..)
            .map_while(|(id, known)| match (id, known.good.as_deref()) {
                (FactId::Host(name), Some((Fact::Host(lease), _))) => Some(Some((name, &**lease))),
                (FactId::Host(_), _) => Some(None),
                _ => None,
            })
            .flatten()
    }

    fn other_hosts(&self) -> impl Iterator<Item = &Lease> {
        let others = self.hosts().filter(|(name, _)| name.as_str() != self.settings.node);
        others.map(|(_, lease)| lease)
    }

    /// The tunnels whose ends this node should announce: those of the pools, and while some node has no end of a new
    /// one yet, those that still reach it.
    pub fn tunnels(&self) -> BTreeSet<(Tunnel, Family)> {
        let Some(footing) = &self.in_force else { return BTreeSet::new() };
        let mut wanted = footing.tunnels();
        if footing.retiring_tunnels().is_empty() {
            return wanted;
        }
        let has = |lease: &Lease, (tunnel, family): (Tunnel, Family)| match &lease.backend {
            Backend::Ends(ends) => Some(ends.has(tunnel, family)),
            _ => None,
        };
        let lacks_one = |lease: &&Lease| wanted.iter().any(|end| has(lease, *end) == Some(false));
        let behind: Vec<_> = self.other_hosts().filter(lacks_one).collect();
        let mut left = footing.retiring_tunnels();
        left.retain(|end| behind.iter().any(|lease| has(lease, *end) == Some(true)));
        wanted.extend(left);
        wanted.extend(self.sent_by(footing));
        wanted
    }

    /// The tunnels of before that this node still sends by: whoever takes packets by one is told to go on.
    fn sent_by(&self, footing: &Footing) -> BTreeSet<(Tunnel, Family)> {
        let is_own = |it: &Holding| {
            it.holder.as_ref().is_some_and(|holder| holder.name.as_str() == self.settings.node)
        };
        let sent = self.leases().filter(|(_, it)| !is_own(it)).filter_map(|(key, it)| {
            let subnet = key.subnets().next()?;
            Some((footing.not_taught_yet(&it, subnet)?, subnet.family()))
        });
        sent.collect()
    }

    /// Whether somebody else may still send to us by a tunnel.
    fn may_hear_by(&self, tunnel: &dyn Transport) -> bool {
        match self.settings.addressing {
            Addressing::Blocks => self.other_hosts().any(|lease| tunnel.may_hear(lease)),
            Addressing::NodeSubnet => {
                let own = self.own_in_force.as_ref().and_then(Own::lease);
                self.leases().any(|(key, it)| Some(key) != own && tunnel.may_hear(&it.lease))
            }
        }
    }

    /// Lets a tunnel's end go that nobody sends to any more. Before all leases are known, nobody knows.
    pub(super) fn retire(&mut self) {
        if !self.in_sync.contains(&Source::Store) {
            return;
        }
        let Some(mut footing) = self.in_force.take() else { return };
        footing.retire(|tunnel| !self.may_hear_by(tunnel));
        self.in_force = Some(footing);
    }

    /// Keeps `held_by` as the facts are.
    pub(super) fn note_holder(&mut self, id: &FactId, before: Option<&(Fact, u64)>) {
        let FactId::Lease(key) = id else { return };
        if let Some((Fact::Held(name), _)) = before
            && let Some(held) = self.held_by.get_mut(name)
        {
            held.retain(|other| other != key);
            if held.is_empty() {
                self.held_by.remove(name);
            }
        }
        if let Some((Fact::Held(name), _)) = self.good(id) {
            let name = name.clone();
            let held = self.held_by.entry(name).or_default();
            if let Err(at) = held.binary_search(key) {
                held.insert(at, *key);
            }
        }
    }
}
