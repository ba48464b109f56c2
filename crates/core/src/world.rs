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

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeBounds,
    sync::Arc,
};

use russet_net::{Family, Prefix, Router};

use crate::{
    change::{Change, Fact, FactId, Source},
    choices::Distribution,
    error::Fault,
    model::{
        Addressing, Attachment, Backend, Ends, ForeignRoute, Lease, LeaseKey, NetworkConfig,
        NodeFact, NodeName, Own, PodFact, PodId, Pool, Settings, Tunnel, UnderlayFact,
    },
    transport::{Footing, Me, Transport},
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

/// A lease, and how its holder is reached: as it says itself, or as the node that it names does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub lease: Lease,
    /// The lease's own create revision.
    pub rev: u64,
    pub holder: Option<Holder>,
    pub taught: Taught,
}

/// Whether some router teaches the way to what a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Taught {
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
    /// What is known to be held by whom, so that a node's change finds what it holds.
    held_by: BTreeMap<NodeName, BTreeSet<LeaseKey>>,
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
        if !touched.iter().all(is_others) || (!touched.is_empty() && self.waits_for_leases()) {
            self.settle();
        } else if self.settings.addressing == Addressing::Blocks && self.settle_blocks() {
            touched.push(FactId::Own);
        }
        self.retire();
        touched
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

    /// A lease that is readable, with its revision.
    pub fn lease(&self, key: LeaseKey) -> Option<Holding> {
        self.holding(key, self.good(&FactId::Lease(key))?)
    }

    /// Every readable lease, our own included.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseKey, Holding)> {
        self.leases_from(FactId::Lease(LeaseKey::LOWEST))
    }

    fn leases_from(&self, first: FactId) -> impl Iterator<Item = (LeaseKey, Holding)> {
        self.facts.range(first..).filter_map(|(id, known)| match (id, known.good.as_deref()) {
            (FactId::Lease(key), Some(good)) => Some((*key, self.holding(*key, good)?)),
            _ => None,
        })
    }

    fn holding(&self, key: LeaseKey, (fact, rev): &(Fact, u64)) -> Option<Holding> {
        let rev = *rev;
        match fact {
            Fact::Lease(lease) => {
                let (lease, holder, taught) = (lease.clone(), None, Taught::No);
                Some(Holding { lease, rev, holder, taught })
            }
            Fact::Held(name) => {
                let host = self.host(name);
                let holder = Some(Holder { name: name.clone(), rev: host.map(|(_, rev)| rev) });
                let lease = host.map_or_else(nowhere, |(lease, _)| lease.clone());
                Some(Holding { lease, rev, holder, taught: self.taught(key) })
            }
            _ => None,
        }
    }

    /// Whether a router teaches a block by itself, or more of its pool.
    fn taught(&self, key: LeaseKey) -> Taught {
        let (Some(footing), Some(subnet)) = (&self.in_force, key.subnets().next()) else {
            return Taught::No;
        };
        let pool = footing.config.pool_of(subnet).filter(|_| self.leaves_to_routers());
        let lengths = pool.into_iter().flat_map(|pool| pool.network().len()..=subnet.len());
        let mut around = lengths.filter_map(|len| Prefix::around(subnet.addr(), len).ok());
        if around.any(|dst| self.learned(dst).is_some()) { Taught::Yes } else { Taught::No }
    }

    /// What is held within what a router teaches.
    fn held_within(&self, dst: Prefix) -> impl Iterator<Item = LeaseKey> {
        let of = |family| (dst.family() == family).then_some(dst);
        let first = LeaseKey::new(of(Family::V4), of(Family::V6));
        // What is larger than a pool teaches nothing of its blocks.
        let in_a_pool =
            |footing: &Footing| footing.config.pools().any(|it| it.network().covers(dst));
        let heeded = self.leaves_to_routers() && self.in_force.as_ref().is_some_and(in_a_pool);
        let first = first.filter(|_| heeded).into_iter();
        let from = first.flat_map(|first| self.facts.range(FactId::Lease(first)..));
        let keys = from.map_while(|(id, _)| match id {
            FactId::Lease(key) => Some(*key),
            _ => None,
        });
        keys.take_while(move |key| key.subnets().all(|subnet| dst.covers(subnet)))
    }

    fn leaves_to_routers(&self) -> bool {
        self.settings.addressing == Addressing::Blocks
            && self.settings.distribution == Distribution::Bgp
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
                (FactId::Host(name), Some((Fact::Host(lease), _))) => Some(Some((name, lease))),
                (FactId::Host(_), _) => Some(None),
                _ => None,
            })
            .flatten()
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
            (FactId::Pod(id), Some((Fact::Pod(pod), _))) => Some((id, pod)),
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

    /// Keeps `held_by` as the facts are.
    fn note_holder(&mut self, id: &FactId, before: Option<&(Fact, u64)>) {
        let FactId::Lease(key) = id else { return };
        if let Some((Fact::Held(name), _)) = before
            && let Some(held) = self.held_by.get_mut(name)
        {
            held.remove(key);
            if held.is_empty() {
                self.held_by.remove(name);
            }
        }
        if let Some((Fact::Held(name), _)) = self.good(id) {
            let name = name.clone();
            self.held_by.entry(name).or_default().insert(*key);
        }
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

// ---- what is in force
impl World {
    /// Decides anew what is in force: the present configuration on the present node; else the one that
    /// was in force, on the present node; else all as it was.
    fn settle(&mut self) {
        self.held.clear();
        self.settle_footing();
        self.settle_own();
        self.settle_pods();
    }

    /// Lets a tunnel's end go that nobody sends to any more. Before all leases are known, nobody knows.
    fn retire(&mut self) {
        let retiring = self.in_force.iter().flat_map(Footing::retiring);
        let done: Vec<_> = retiring.map(|tunnel| !self.may_hear_by(tunnel)).collect();
        if !self.in_sync.contains(&Source::Store) || !done.contains(&true) {
            return;
        }
        if let Some(footing) = &mut self.in_force {
            let mut done = done.into_iter();
            footing.retire(|_| done.next().unwrap_or_default());
        }
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
        let is_behind = |lease: &Lease| match &lease.backend {
            Backend::Ends(ends) => !wanted.iter().all(|(t, family)| ends.has(*t, *family)),
            _ => false,
        };
        let behind: Vec<_> = self.other_hosts().filter(|lease| is_behind(lease)).collect();
        let left = footing.retiring_tunnels().into_iter();
        let left = left.filter(|(tunnel, family)| {
            behind.iter().any(|lease| match &lease.backend {
                Backend::Ends(ends) => ends.has(*tunnel, *family),
                _ => false,
            })
        });
        let left: Vec<_> = left.collect();
        wanted.extend(left);
        wanted.extend(self.sent_by(footing));
        wanted
    }

    /// The tunnels of before that this node still sends by: whoever takes packets by one is told to go on.
    fn sent_by(&self, footing: &Footing) -> BTreeSet<(Tunnel, Family)> {
        if footing.retiring().next().is_none() {
            return BTreeSet::new();
        }
        let is_own = |it: &Holding| {
            it.holder.as_ref().is_some_and(|holder| holder.name.as_str() == self.settings.node)
        };
        let sent = self.leases().filter(|(_, it)| !is_own(it)).filter_map(|(key, it)| {
            let subnet = key.subnets().next()?;
            Some((footing.not_taught_yet(&it, subnet)?, subnet.family()))
        });
        sent.collect()
    }

    /// A route that is in the way may yet turn out to lead to a lease's subnet.
    fn waits_for_leases(&self) -> bool {
        matches!(self.held.get(&FactId::Config), Some(Fault::NetworkHeld { .. }))
    }

    /// A lease that what is in force cannot serve does not replace one that it can.
    fn settle_own(&mut self) {
        if self.settings.addressing == Addressing::Blocks {
            self.settle_blocks();
            return;
        }
        let Some(own) = self.own() else {
            self.own_in_force = None;
            return;
        };
        let Some(footing) = &self.in_force else { return };
        match lies_within(own, &footing.config) {
            Ok(()) => {
                self.own_in_force = Some(Own::of_lease(own));
                self.first_own.get_or_insert(own);
            }
            Err(fault) => _ = self.held.insert(FactId::Own, fault),
        }
    }

    /// What is held in this node's name. Tells whether it is other than before.
    fn settle_blocks(&mut self) -> bool {
        let Ok(name) = self.settings.node.parse::<NodeName>() else { return false };
        let keys = self.held_by.get(&name).into_iter().flatten();
        // An address out of another's block has a route of its own, and is no subnet of ours.
        let (lone, blocks) = keys.flat_map(|key| key.subnets()).partition(|it| it.is_host());
        let ends = match self.host(&name) {
            Some((Lease { backend: Backend::Ends(ends), .. }, _)) => Arc::clone(ends),
            _ => Arc::new(Ends::default()),
        };
        let own = Some(Own::of_blocks(blocks, lone, ends));
        let moved = self.own_in_force != own;
        self.own_in_force = own;
        moved
    }

    /// Pods that were given an address before the node's lease was lost to another.
    fn settle_pods(&mut self) {
        let Some(own) = self.own_in_force.as_ref().filter(|own| own.lease().is_some()) else {
            return;
        };
        let outside = |(id, pod): (&PodId, &PodFact)| {
            let addr = *pod.addresses.iter().find(|addr| !own.contains(**addr))?;
            Some((FactId::Pod(id.clone()), Fault::PodOutside { addr }))
        };
        let outside: Vec<_> = self.pods().filter_map(outside).collect();
        self.held.extend(outside);
    }

    fn settle_footing(&mut self) {
        let (Some(config), Some(node)) = (self.config(), self.node()) else { return };
        let fault = match self.footing(config.clone(), node) {
            Ok(footing) => {
                self.in_force = Some(footing.after(self.in_force.as_ref()));
                return;
            }
            Err(fault) => fault,
        };
        if let Some(footing) = self.without_bad_pools(&config, node) {
            self.in_force = Some(footing.after(self.in_force.as_ref()));
            self.held.insert(FactId::Config, fault);
            return;
        }
        match self.in_force.as_ref().map(|old| self.still(old.config.clone(), &node.underlay)) {
            None => _ = self.held.insert(FactId::Config, fault),
            Some(Ok(mut footing)) => {
                if footing.config != config {
                    self.make_way(&mut footing, &fault);
                    self.held.insert(FactId::Config, fault);
                }
                self.in_force = Some(footing.after(self.in_force.as_ref()));
            }
            Some(Err(fault)) => _ = self.held.insert(FactId::Node, fault),
        }
    }

    /// Pods that come while others are too large for what is to come fit into it, so that it comes when the last of
    /// those has gone. Behind a bridge all are as large as it is.
    fn make_way(&self, footing: &mut Footing, fault: &Fault) {
        if let (Fault::PodsTooLarge { left, .. }, Attachment::Routed) =
            (fault, self.settings.attachment)
        {
            footing.pod_mtu = footing.pod_mtu.min(*left);
        }
    }

    /// One pool that does not hold here does not stop the others; but what of it was in force stays so, with all of them.
    fn without_bad_pools(&self, config: &NetworkConfig, node: &NodeFact) -> Option<Footing> {
        if self.settings.addressing != Addressing::Blocks {
            return None;
        }
        let was_in_force = |pool: Pool| {
            let old = self.in_force.as_ref().map(|footing| &footing.config);
            old.is_some_and(|old| old.pools().any(|other| other.network() == pool.network()))
        };
        let is_good = |pool: Pool| self.footing(config.only(|other| other == pool), node).is_ok();
        let rest = config.only(|pool| was_in_force(pool) || is_good(pool));
        let (left, all) = (rest.pools().count(), config.pools().count());
        (left > 0 && left < all).then(|| self.footing(rest, node).ok()).flatten()
    }

    /// A configuration on this node, if it may come into force.
    fn footing(&self, config: NetworkConfig, node: &NodeFact) -> Result<Footing, Fault> {
        let footing = self.still(config, &node.underlay)?;
        let config = &footing.config;
        if self.in_force.as_ref().is_some_and(|old| old.config == *config) {
            // What is in force has been let in before: a stranger's route that comes later is a matter
            // between that route and ours, not a reason to stop.
            return Ok(footing);
        }
        self.lies_free(config, node)?;
        self.leaves_pods_alone(&footing)?;
        // Last, so that this is the fault only when a lease elsewhere is all that is wanting.
        self.holds_own(config)?;
        Ok(footing)
    }

    fn still(&self, config: NetworkConfig, underlay: &UnderlayFact) -> Result<Footing, Fault> {
        Footing::new(&self.settings, config, underlay)
    }

    /// While our lease lies elsewhere, the machine is on its way to another; until then all stays.
    fn holds_own(&self, config: &NetworkConfig) -> Result<(), Fault> {
        self.own().map_or(Ok(()), |own| lies_within(own, config))
    }

    fn lies_free(&self, config: &NetworkConfig, node: &NodeFact) -> Result<(), Fault> {
        for pool in config.pools() {
            let network = pool.network();
            let underlay = node.underlay.addr(network.family());
            if let Some(addr) = underlay.filter(|addr| network.contains(*addr)) {
                return Err(Fault::NetworkHoldsNode { network, addr });
            }
            // Where others carry the packets, routes within the network are theirs to lay.
            let others = config.transport_of(pool).is_carried_by_others();
            let laid =
                |route: &ForeignRoute| others && route.dst != network && network.covers(route.dst);
            let held = |route: &&ForeignRoute| !laid(route) && self.is_in_the_way(route, network);
            let held = node.foreign.iter().find(held);
            if let Some(ForeignRoute { dst: route, .. }) = held {
                return Err(Fault::NetworkHeld { network, route: *route });
            }
        }
        Ok(())
    }

    /// Default routes overlap everything. A route through a device of ours, or to exactly the subnet of a
    /// lease, is what a predecessor of ours leaves; the driver adopts it or says who holds it.
    fn is_in_the_way(&self, route: &ForeignRoute, network: Prefix) -> bool {
        route.dst.len() > 0
            && route.dst.overlaps(network)
            && !route.link.is_some_and(|link| self.settings.is_ours(link))
            && !self.is_leased(route.dst)
    }

    fn is_leased(&self, subnet: Prefix) -> bool {
        let is_it = |(key, _): (LeaseKey, Holding)| key.of(subnet.family()) == Some(subnet);
        match LeaseKey::new(Some(subnet), None) {
            // Keys sort by their IPv4 subnet first, and one without a second family is the first of them.
            Some(first) => self.leases_from(FactId::Lease(first)).next().is_some_and(is_it),
            None => self.leases().any(is_it),
        }
    }

    /// Pods that run keep their MTU, so a change must not make it too large for the new path. At a start
    /// nothing better is in force, and the pods are not to blame.
    fn leaves_pods_alone(&self, footing: &Footing) -> Result<(), Fault> {
        let left = footing.pod_mtu;
        let large: Vec<_> = self.pods().map(|(_, pod)| pod.mtu).filter(|mtu| *mtu > left).collect();
        match large.iter().max() {
            Some(&have) if self.in_force.is_some() => {
                Err(Fault::PodsTooLarge { pods: large.len(), have, left })
            }
            _ => Ok(()),
        }
    }
}

fn lies_within(own: LeaseKey, config: &NetworkConfig) -> Result<(), Fault> {
    for pool in config.pools() {
        let (family, network) = (pool.family(), pool.network());
        let subnet = own.of(family).ok_or(Fault::FamilyMissing { family })?;
        if !network.covers(subnet) {
            return Err(Fault::OwnOutside { subnet, network });
        }
    }
    Ok(())
}
