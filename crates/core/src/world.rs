//! All that is known now: facts by name, each with its last good value and its present fault.
//!
//! The calculation is a function of a [`World`] and of nothing else. What depends on history is therefore
//! part of it: the last good value of a fact, and the footing *in force*. A configuration that is right
//! by itself may still be wrong on this node (a route of somebody else lies in it, pods run that are too
//! large for it); then the footing that was in force stays, and the fault is held against the fact.
//!
//! ```text
//!   Change ─▶ facts ─▶ settle: does (configuration, node) hold here? ─ yes ─▶ in force
//!                                                                     └ no ──▶ held
//! ```
//!
//! `settle` decides what is in force; `held` says who holds what.

mod held;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeBounds,
};

use russet_net::{Prefix, Router, packed};

pub use self::held::{HasRouter, Holder, Holding};
use crate::{
    change::{Change, Fact, FactId, Source},
    error::Fault,
    model::{
        Addressing, LeaseKey, NetworkConfig, NodeFact, NodeName, Own, PodFact, PodId, Settings,
    },
    transport::{Footing, Me},
};

/// What is known of one fact. A map of many has room for as many again, so what is large stands beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The last good value, with the store's revision.
    pub good: Option<Box<(Fact, u64)>>,
    /// What is wrong with the present value.
    pub fault: Option<Box<Fault>>,
    told: Told,
}

/// Whether the picture that is being told has the fact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Now,
    /// A resync has begun and has not repeated it yet.
    Before,
}

/// Every fact, and what of it is in force.
#[derive(Clone, Debug)]
pub struct World {
    pub settings: Settings,
    pub facts: BTreeMap<FactId, Known>,
    pub in_sync: BTreeSet<Source>,
    in_force: Option<Footing>,
    /// What is known to be held by whom, sorted, so that a node's change finds what it holds.
    held_by: BTreeMap<NodeName, Vec<LeaseKey>>,
    /// What this node has: the lease that what is in force was last served with, or its blocks.
    own_in_force: Option<Own>,
    /// The first lease that was.
    first_own: Option<LeaseKey>,
    /// Why a good configuration or node is not in force.
    held: BTreeMap<FactId, Fault>,
}

impl World {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            facts: BTreeMap::new(),
            in_sync: BTreeSet::new(),
            in_force: None,
            held_by: BTreeMap::new(),
            own_in_force: None,
            first_own: None,
            held: BTreeMap::new(),
        }
    }

    /// Takes one change, and names the facts that are other than before.
    pub fn apply(&mut self, change: Change) -> Vec<FactId> {
        let mut touched = match change {
            Change::Upsert { id, fact, rev } => self.upsert(id, fact, rev),
            Change::Bad { id, fault } => self.spoil(id, fault),
            Change::Remove { id } => self.remove(id),
            Change::Resync(source) => self.resync(source),
            Change::InSync(source) => self.synced(source),
        };
        let hosts = touched.iter().filter_map(|id| match id {
            FactId::Host(name) => Some(name),
            _ => None,
        });
        // What a node holds is where the node is.
        let moved = hosts.filter_map(|name| self.held_by.get(name)).flatten();
        let mut moved: Vec<_> = moved.map(|key| FactId::Lease(*key)).collect();
        let learned = touched.iter().filter_map(|id| match id {
            FactId::Learned(dst) => Some(*dst),
            _ => None,
        });
        moved.extend(learned.flat_map(|dst| self.held_within(dst)).map(FactId::Lease));
        touched.extend(moved);
        // None of these says anything of this node.
        let is_others =
            |id: &FactId| matches!(id, FactId::Lease(_) | FactId::Host(_) | FactId::Learned(_));
        let is_own_moved =
            if !touched.iter().all(is_others) || (!touched.is_empty() && self.waits_for_leases()) {
                self.settle()
            } else {
                self.settings.addressing == Addressing::Blocks && self.settle_blocks()
            };
        if is_own_moved {
            touched.push(FactId::Own);
        }
        self.retire();
        touched
    }

    /// Has what has grown take up no more than what is in it.
    pub(crate) fn pack(&mut self) {
        packed::pack(&mut self.facts);
        packed::pack(&mut self.held_by);
    }

    /// What is in force on this node, with the lease that it holds.
    pub fn me(&self) -> Option<Me<'_>> {
        let footing = self.in_force.as_ref()?;
        let own = self.own_in_force.as_ref()?;
        let first = self.first_own.or(own.lease());
        Some(Me { settings: &self.settings, footing, own, first })
    }

    pub fn in_force(&self) -> Option<&Footing> {
        self.in_force.as_ref()
    }

    /// The configuration that this node should hold a lease of: the present one, when it can be in force
    /// here, or could if our lease lay in it; else the one that is in force.
    pub fn lease_config(&self) -> Option<NetworkConfig> {
        match self.held.get(&FactId::Config) {
            None | Some(Fault::OwnOutside { .. } | Fault::FamilyMissing { .. }) => self.config(),
            Some(_) => self.in_force.as_ref().map(|footing| footing.config.clone()),
        }
    }

    /// The lease that this node holds.
    pub fn own(&self) -> Option<LeaseKey> {
        match self.good(&FactId::Own)? {
            (Fact::Own(key), _) => Some(*key),
            _ => None,
        }
    }

    /// The router that a prefix is behind.
    pub fn learned(&self, dst: Prefix) -> Option<Router> {
        match self.good(&FactId::Learned(dst))? {
            (Fact::Learned(router), _) => Some(*router),
            _ => None,
        }
    }

    /// Everything learned within a prefix.
    pub fn learned_within(&self, around: Prefix) -> impl Iterator<Item = (Prefix, Router)> {
        let last = FactId::Learned(Prefix::host(around.last()));
        self.learned_from(FactId::Learned(around)..=last)
    }

    /// Everything learned.
    pub fn all_learned(&self) -> impl Iterator<Item = (Prefix, Router)> {
        self.learned_from(FactId::Own..FactId::Lease(LeaseKey::LOWEST))
    }

    fn learned_from(
        &self,
        range: impl RangeBounds<FactId>,
    ) -> impl Iterator<Item = (Prefix, Router)> {
        self.facts.range(range).filter_map(|(id, known)| match (id, known.good.as_deref()) {
            (FactId::Learned(dst), Some((Fact::Learned(router), _))) => Some((*dst, *router)),
            _ => None,
        })
    }

    /// Every pod of this node.
    pub fn pods(&self) -> impl Iterator<Item = (&PodId, &PodFact)> {
        self.facts.iter().filter_map(|(id, known)| match (id, known.good.as_deref()) {
            (FactId::Pod(id), Some((Fact::Pod(pod), _))) => Some((id, &**pod)),
            _ => None,
        })
    }

    /// The faults of what is not a lease: that its present value is bad, or does not hold on this node.
    pub fn other_faults(&self) -> impl Iterator<Item = (&FactId, &Fault)> {
        let fault = |(id, known)| fault_of(id, known);
        let singles = [FactId::Config, FactId::Node, FactId::Own];
        let single = singles.into_iter().filter_map(|id| self.facts.get_key_value(&id));
        // A present fault is said rather than why the last good value is held.
        self.held.iter().chain(single.chain(self.pod_facts()).filter_map(fault))
    }

    /// Pods sort behind everything else.
    fn pod_facts(&self) -> impl Iterator<Item = (&FactId, &Known)> {
        let is_pod = |(id, _): &(&FactId, &Known)| matches!(id, FactId::Pod(_));
        self.facts.iter().rev().take_while(is_pod)
    }

    /// The last good configuration, in force or not.
    pub fn config(&self) -> Option<NetworkConfig> {
        match self.good(&FactId::Config)? {
            (Fact::Config(config), _) => Some(config.clone()),
            _ => None,
        }
    }

    /// What this node last observed of itself.
    pub fn node(&self) -> Option<&NodeFact> {
        match self.good(&FactId::Node)? {
            (Fact::Node(node), _) => Some(node),
            _ => None,
        }
    }

    fn good(&self, id: &FactId) -> Option<&(Fact, u64)> {
        self.facts.get(id)?.good.as_deref()
    }
}

// ---- facts
impl World {
    fn upsert(&mut self, id: FactId, fact: Fact, rev: u64) -> Vec<FactId> {
        if !fits(&id, &fact) {
            return Vec::new();
        }
        let good = Some(Box::new((fact, rev)));
        let known = self.facts.entry(id.clone()).or_default();
        known.told = Told::Now;
        if known.good == good && known.fault.is_none() {
            return Vec::new();
        }
        let before = std::mem::replace(&mut known.good, good);
        known.fault = None;
        self.note_holder(&id, before.as_deref());
        vec![id]
    }

    /// A peer that is bad is as if absent. Of everything else the last good value stays.
    fn spoil(&mut self, id: FactId, fault: Fault) -> Vec<FactId> {
        let known = self.facts.entry(id.clone()).or_default();
        known.told = Told::Now;
        known.fault = Some(Box::new(fault));
        if matches!(id, FactId::Lease(_)) {
            let before = known.good.take();
            self.note_holder(&id, before.as_deref());
        }
        vec![id]
    }

    /// A configuration that vanishes is a fault of the store, not a wish to tear the network down.
    fn remove(&mut self, id: FactId) -> Vec<FactId> {
        if id == FactId::Config && self.config().is_some() {
            return self.spoil(id, Fault::ConfigGone);
        }
        match self.facts.remove(&id) {
            Some(known) => {
                self.note_holder(&id, known.good.as_deref());
                vec![id]
            }
            None => Vec::new(),
        }
    }

    fn resync(&mut self, source: Source) -> Vec<FactId> {
        self.in_sync.remove(&source);
        for (_, known) in self.facts.iter_mut().filter(|(id, _)| id.source() == Some(source)) {
            known.told = Told::Before;
        }
        Vec::new()
    }

    fn synced(&mut self, source: Source) -> Vec<FactId> {
        self.in_sync.insert(source);
        let untold = |(id, known): (&FactId, &Known)| {
            (id.source() == Some(source) && known.told == Told::Before).then(|| id.clone())
        };
        let untold: Vec<_> = self.facts.iter().filter_map(untold).collect();
        untold.into_iter().flat_map(|id| self.remove(id)).collect()
    }
}

fn fault_of<'a>(id: &'a FactId, known: &'a Known) -> Option<(&'a FactId, &'a Fault)> {
    known.fault.as_deref().map(|fault| (id, fault))
}

fn fits(id: &FactId, fact: &Fact) -> bool {
    matches!(
        (id, fact),
        (FactId::Config, Fact::Config(_))
            | (FactId::Node, Fact::Node(_))
            | (FactId::Own, Fact::Own(_))
            | (FactId::Learned(_), Fact::Learned(_))
            | (FactId::Lease(_), Fact::Lease(_) | Fact::Held(_))
            | (FactId::Host(_), Fact::Host(_))
            | (FactId::Pod(_), Fact::Pod(_))
    )
}
