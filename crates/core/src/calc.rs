//! From what is known to what this node should look like.
//!
//! [`Calc`] keeps the wanted objects and moves them with each change; [`oracle()`] computes them from scratch,
//! slowly and obviously, and a property test holds the two equal for every order of changes.
//!
//! ```text
//!   a lease changes ─────────▶ peers: it and its rivals are judged anew   O(log n)
//!   a router teaches ────────▶ learned: it is judged anew                 O(log n)
//!   a pod comes or goes ─────▶ base: bridge, ports, policy                O(pods of this node)
//!   configuration, node ─────▶ both, from scratch                         O(n)
//! ```
//!
//! A patch says `None` only of what an earlier patch said to be wanted. What was there before this process
//! is the drivers' to sweep, and only when [`Calc::is_complete`].

mod base;
mod learned;
mod oracle;
mod peers;
mod seats;

use std::{collections::BTreeMap, ops::Bound};

use russet_desired::{Key, Patches, Tables};
use russet_net::{Family, Prefix};

pub use self::oracle::{Picture, oracle, picture};
use self::{base::Base, learned::Learned, peers::Peers};
use crate::{
    attachment,
    change::{Change, FactId, Source},
    error::Fault,
    model::{Lease, LeaseKey, PodNetwork, Settings, Tunnel},
    transport::{Footing, Me},
    world::World,
};

/// How many changes are calculated before what follows from them is passed on: few beside a large cluster, and
/// enough that a lane's round is worth its while.
pub const PIECE: usize = 512;

/// The incremental calculation, with the world that it is a function of.
#[derive(Debug)]
pub struct Calc {
    world: World,
    /// What `base` and `peers` were computed for.
    ground: Option<Ground>,
    base: Base,
    peers: Peers,
    /// What of the peers is wanted.
    remote: Tables,
    learned: Learned,
    /// What of the learned is wanted. It may share next hops with the peers.
    routed: Tables,
    refusals: BTreeMap<FactId, Fault>,
    generation: u64,
}

/// What of this node the way to every peer depends on.
#[derive(Debug)]
struct Ground {
    footing: Footing,
    own: Option<LeaseKey>,
    /// The families in which it has told its key.
    sealed: [bool; 2],
}

impl Ground {
    fn of(me: &Me<'_>) -> Self {
        let (footing, own) = (me.footing.clone(), me.own.lease());
        Self { footing, own, sealed: sealed(me) }
    }

    fn is_of(&self, me: &Me<'_>) -> bool {
        self.footing == *me.footing && self.own == me.own.lease() && self.sealed == sealed(me)
    }
}

fn sealed(me: &Me<'_>) -> [bool; 2] {
    Family::BOTH.map(|family| me.own.announces(Tunnel::Wireguard, family))
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The lease is this node's own.
    Own,
    Tunnel,
    Ipip,
    /// By an engine of our own, bare.
    Engine,
    /// Sealed, by the kernel or an engine of our own.
    Sealed,
    Direct,
    /// By commands of the operator's.
    Extension,
    /// By whatever somebody else has laid.
    Foreign,
    Refused(&'a Fault),
    /// Nothing is in force on this node yet.
    Unknown,
}

/// A lease as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView<'a> {
    pub key: LeaseKey,
    /// `None` when it is unreadable.
    pub lease: Option<Lease>,
    pub standing: Standing<'a>,
}

impl Calc {
    pub fn new(settings: Settings) -> Self {
        Self {
            world: World::new(settings),
            ground: None,
            base: Base::default(),
            peers: Peers::default(),
            remote: Tables::default(),
            learned: Learned::default(),
            routed: Tables::default(),
            refusals: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Takes changes, and returns what is wanted otherwise than before.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Patches {
        let was_complete = self.is_complete();
        let mut all_told = false;
        let changes = changes.into_iter().inspect(|it| all_told |= matches!(it, Change::InSync(_)));
        let mut touched: Vec<_> = changes.flat_map(|change| self.world.apply(change)).collect();
        touched.sort_unstable();
        touched.dedup();
        let leases: Vec<_> = touched.iter().filter_map(lease_key).collect();
        let learned: Vec<_> = touched.iter().filter_map(learned_dst).collect();
        let is_local =
            |id: &FactId| !matches!(id, FactId::Lease(_) | FactId::Learned(_) | FactId::Host(_));
        let local = touched.iter().any(is_local);

        // Of three who want one object this node's own go first, and what leases say goes before what routers do.
        let moved = self.ground_has_moved();
        let mut patches = if moved {
            self.rebuild_remote()
        } else {
            let peers = self.update_peers(&leases);
            let routed = self.update_learned(&leases, learned);
            self.remote.absorb_both(&mut self.routed, peers, routed)
        };
        patches.hide_below(&self.base.tables);
        if local || moved {
            let mut base = self.rebuild_base();
            base.reveal([&self.remote, &self.routed]);
            patches.merge(base);
        }
        self.refresh_refusals(&touched);
        let of_network =
            |id: &FactId| matches!(id, FactId::Lease(_) | FactId::Host(_) | FactId::Config);
        if moved
            // A footing without a subnet is in force, or not any more, whatever brought that about.
            || self.ground.is_none()
            || was_complete != self.is_complete()
            || touched.iter().any(of_network)
        {
            self.generation += 1;
        }
        if all_told {
            self.pack();
        }
        patches
    }

    /// A whole picture has been told, in the order of its names, and most of it stays as it is.
    fn pack(&mut self) {
        self.world.pack();
        self.peers.pack();
        self.remote.pack();
        self.routed.pack();
    }

    /// Goes up whenever the configuration, what is in force, a lease, or [`Self::is_complete`] may be other than
    /// before. Pods come and go within one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// [`Calc::apply`] for a picture as large as a cluster: what follows from its beginning is passed on, and may
    /// be on its way to the kernel, while the rest is calculated.
    ///
    /// It ends as [`Calc::apply`] ends. What is passed on before that is right for what was told until then.
    pub fn apply_in_pieces(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        mut pass_on: impl FnMut(Patches),
    ) {
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            pass_on(self.apply(changes.by_ref().take(PIECE)));
        }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// The facts that are left out, or not in force, and why.
    pub fn refusals(&self) -> &BTreeMap<FactId, Fault> {
        &self.refusals
    }

    /// Which fact an object is wanted for, or `None` when it is not wanted.
    pub fn cause_of(&self, key: &Key) -> Option<FactId> {
        if self.base.tables.contains(key) {
            return Some(self.base.causes.get(key).cloned().unwrap_or(FactId::Config));
        }
        let peer = self.remote.contains(key).then(|| self.peers.holder_of(key)).flatten();
        peer.map(FactId::Lease).or_else(|| {
            let me = self.world.me().filter(|_| self.routed.contains(key))?;
            self.learned.holder_of(&me, key).map(FactId::Learned)
        })
    }

    /// What a pod that is added now is given; `None` while nothing is in force.
    pub fn pod_network(&self) -> Option<PodNetwork> {
        self.world.me().map(|me| attachment::pod_network(&me))
    }

    /// Whether all that is wanted has been told, so that what is ours and not wanted may go.
    ///
    /// A store without a configuration is not in sync, whatever it says: somebody emptied it.
    pub fn is_complete(&self) -> bool {
        let gone = self.world.facts.get(&FactId::Config).and_then(|known| known.fault.as_deref());
        self.world.me().is_some()
            && Source::ALL.iter().all(|source| self.world.in_sync.contains(source))
            && gone != Some(&Fault::ConfigGone)
    }

    /// Everything that is wanted now.
    pub fn tables(&self) -> Tables {
        let mut all = self.routed.clone();
        for more in [&self.remote, &self.base.tables] {
            all.apply(Tables::default().patch_to(more.clone()));
        }
        all
    }

    /// Every lease, with how its holder is reached.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.world.facts.keys().filter_map(lease_key).map(|key| self.peer(key))
    }

    /// [`Self::peers`], from the first whose key is behind this one.
    pub fn peers_after(&self, key: Option<LeaseKey>) -> impl Iterator<Item = PeerView<'_>> {
        let from = FactId::Lease(key.unwrap_or(LeaseKey::LOWEST));
        let behind = self.world.facts.range((Bound::Excluded(from), Bound::Unbounded));
        behind.map_while(|(id, _)| lease_key(id)).map(|key| self.peer(key))
    }

    fn peer(&self, key: LeaseKey) -> PeerView<'_> {
        PeerView {
            key,
            lease: self.world.lease(key).map(|holding| holding.lease),
            standing: self.standing(key),
        }
    }

    fn standing(&self, key: LeaseKey) -> Standing<'_> {
        let holds = |me: Me<'_>| self.world.lease(key).is_some_and(|it| me.holds(key, &it));
        if self.world.me().is_some_and(holds) {
            return Standing::Own;
        }
        match self.refusals.get(&FactId::Lease(key)) {
            Some(fault) => Standing::Refused(fault),
            None => self.peers.standing(key),
        }
    }
}

// ---- how a change moves what is wanted
impl Calc {
    fn ground_has_moved(&mut self) -> bool {
        let now = self.world.me();
        let same = match (&self.ground, now) {
            (Some(ground), Some(me)) => ground.is_of(&me),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.ground = now.map(|me| Ground::of(&me));
        }
        !same
    }

    fn rebuild_remote(&mut self) -> Patches {
        self.learned.forget();
        let (mut peers, mut routed) = (Tables::default(), Tables::default());
        if let Some(me) = self.world.me() {
            peers = self.peers.rebuild(&me, self.world.leases());
            let all = self.world.all_learned().map(|(dst, router)| (dst, Some(router)));
            let known = |dst| self.world.learned(dst);
            routed.apply(self.learned.update(&me, self.peers.claims(), &known, all));
        } else {
            self.peers.forget();
        }
        let (peers, routed) = (self.remote.patch_to(peers), self.routed.patch_to(routed));
        self.remote.absorb_both(&mut self.routed, peers, routed)
    }

    fn update_peers(&mut self, leases: &[LeaseKey]) -> Patches {
        let Some(me) = self.world.me() else { return Patches::default() };
        let lease = |key: &LeaseKey| (*key, self.world.lease(*key));
        self.peers.update(&me, leases.iter().map(lease))
    }

    /// A lease that comes or goes may take, or leave, what was learned within its subnets; what leads to a router decides
    /// of what is behind it.
    fn update_learned(&mut self, leases: &[LeaseKey], mut learned: Vec<Prefix>) -> Patches {
        let Some(me) = self.world.me() else { return Patches::default() };
        let subnets = leases
            .iter()
            .flat_map(|key| Family::BOTH.into_iter().filter_map(|family| key.of(family)));
        let within = subnets.flat_map(|subnet| self.world.learned_within(subnet));
        learned.extend(within.map(|(dst, _)| dst));
        let learned = self.learned.with_those_behind(learned);
        let learned = learned.into_iter().map(|dst| (dst, self.world.learned(dst)));
        let known = |dst| self.world.learned(dst);
        self.learned.update(&me, self.peers.claims(), &known, learned)
    }

    fn rebuild_base(&mut self) -> Patches {
        let Base { tables, causes } =
            self.world.me().map_or_else(Base::default, |me| Base::of(&self.world, &me));
        self.base.causes = causes;
        let patches = self.base.tables.patch_to(tables);
        self.base.tables.absorb(patches)
    }

    /// Peers' refusals are few beside the peers, and other facts are few.
    fn refresh_refusals(&mut self, touched: &[FactId]) {
        let mut changed = self.peers.take_judged();
        changed.extend(touched.iter().filter_map(lease_key));
        changed.sort_unstable();
        changed.dedup();
        for key in changed {
            let id = FactId::Lease(key);
            match self.fault_of(&id, key) {
                Some(fault) => self.refusals.insert(id, fault),
                None => self.refusals.remove(&id),
            };
        }
        for dst in self.learned.take_judged() {
            match self.learned.fault(dst) {
                Some(fault) => self.refusals.insert(FactId::Learned(dst), fault.clone()),
                None => self.refusals.remove(&FactId::Learned(dst)),
            };
        }
        for id in touched.iter().filter(|id| matches!(id, FactId::Host(_))) {
            match self.world.facts.get(id).and_then(|known| known.fault.as_deref().cloned()) {
                Some(fault) => self.refusals.insert(id.clone(), fault),
                None => self.refusals.remove(id),
            };
        }
        let is_many =
            |id: &FactId| matches!(id, FactId::Lease(_) | FactId::Learned(_) | FactId::Host(_));
        self.refusals.retain(|id, _| is_many(id));
        let others = self.world.other_faults();
        self.refusals.extend(others.map(|(id, fault)| (id.clone(), fault.clone())));
    }

    fn fault_of(&self, id: &FactId, key: LeaseKey) -> Option<Fault> {
        let known = self.world.facts.get(id)?;
        known.fault.as_deref().cloned().or_else(|| self.peers.fault(key).cloned())
    }
}

fn learned_dst(id: &FactId) -> Option<Prefix> {
    match id {
        FactId::Learned(dst) => Some(*dst),
        _ => None,
    }
}

fn lease_key(id: &FactId) -> Option<LeaseKey> {
    match id {
        FactId::Lease(key) => Some(*key),
        _ => None,
    }
}
