//! The routing information base: every path that peers told and we have, which is the best, and who is told.
//!
//! ```text
//!   UPDATE ──import: loops, policy──▶ table ──bestpath──▶ changed ──flush──▶ update: groups ──next──▶ peers
//!                        │              │
//!                      attrs          peer down, restart, sweep
//! ```
//!
//! One owner drives a [`Rib`]: it feeds what peers say, calls [`Rib::flush`] when the input is drained (or
//! after a few milliseconds, or 64 kB: there is no timer in here that makes anybody wait), and fetches with
//! [`Rib::next`] what each peer is told, whenever that peer's socket has room.
//!
//! A peer has a number, its [`Source`], from [`Rib::add_peer`] until [`Rib::remove_peer`]. A session that is
//! lost while the peer restarts gracefully keeps it: see [`Rib::lose_session`] and [`crate::speaker`].

mod attrs;
mod bitmap;
mod family;
mod import;
mod neighbor;
mod oracle;
mod path;
mod rules;
mod table;
mod view;

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use self::{
    attrs::Pool,
    family::{FamilyRib, Routes, Sweep},
    import::Incoming,
    rules::{Distances, Rules},
    table::Notice,
};
pub(crate) use self::{attrs::Pool as AttrPool, neighbor::Neighbors};
pub use self::{
    attrs::{AttrId, AttrSet, Keyed, Scope, Summary, USUAL_LOCAL_PREF},
    neighbor::{Limit, LimitAction, Neighbor, RibEvent},
    oracle::{Held, Oracle},
    path::{Age, Path, Source, Standing},
    rules::Distance,
    table::{DestId, Key, Table, Version},
    view::{PathView, RouteView},
};
use crate::{
    bestpath::{MedRule, Multipath},
    reflector::Me,
    update::{Bounds, Piece, Scene, Treatment},
    wire::{
        Attributes, ClusterId, EvpnKey, Family, FamilySet, NextHop, Nlri, NlriKey, PathId, Update,
        V4Prefix, V6Prefix,
    },
};

/// How a RIB chooses, and who it is.
#[derive(Clone, Copy, Debug)]
pub struct RibConfig {
    pub me: Me,
    pub med: MedRule,
    /// Paths that are used beside the best; `None` when only the best is.
    pub multipath: Option<Multipath>,
    /// Whether somebody here wants to know what changes.
    pub watch: Watch,
    /// A key for hashing, unknown to peers.
    pub seed: u64,
    pub bounds: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// [`Rib::take_changed`] tells which destinations changed.
    On,
    Off,
}

/// All routes of all families.
#[derive(Debug)]
pub struct Rib {
    config: RibConfig,
    pool: Pool,
    neighbors: Neighbors,
    distances: Distances,
    families: [Box<dyn FamilyRib>; 3],
    events: VecDeque<RibEvent>,
    changed: Vec<NlriKey>,
    /// Octets of attributes, kept for their memory.
    scratch: Vec<u8>,
}

impl Rib {
    pub fn new(config: RibConfig) -> Self {
        let (keyed, bounds) = (Keyed(config.seed), config.bounds);
        let several = config.multipath.is_some_and(|multipath| multipath.most > 1);
        let notice = if several { Notice::AnyPath } else { Notice::Best };
        Self {
            config,
            pool: Pool::new(keyed),
            neighbors: Neighbors::default(),
            distances: Distances::new(),
            families: [
                Box::new(Routes::<V4Prefix>::new(Family::Ipv4Unicast, keyed, notice, bounds)),
                Box::new(Routes::<V6Prefix>::new(Family::Ipv6Unicast, keyed, notice, bounds)),
                Box::new(Routes::<EvpnKey>::new(Family::L2vpnEvpn, keyed, notice, bounds)),
            ],
            events: VecDeque::new(),
            changed: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub fn me(&self) -> &Me {
        &self.config.me
    }

    /// Returns the next thing to say of a peer. There are at most a few for each peer and session.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<RibEvent> {
        self.events.pop_front()
    }
}

// ---- peers
impl Rib {
    /// Takes in a peer whose session is established. It is told nothing before [`Self::tell`]. `None` when
    /// there are too many.
    pub fn add_peer(&mut self, neighbor: Neighbor) -> Option<Source> {
        // What was told of a peer that had the number before must be encoded before it is used again.
        self.flush();
        self.neighbors.add(neighbor)
    }

    /// Begins to tell a peer a family: all that there is, then the end marker, then what changes.
    pub fn tell(&mut self, peer: Source, family: Family) {
        self.flush_family(family);
        let Some(neighbor) = self.neighbors.get(peer) else { return };
        let towards = neighbor.towards(family);
        let export = Arc::clone(&neighbor.export);
        let treatment = Treatment::new(family, towards, export, neighbor.terms);
        let (routes, scene) = self.scene(family);
        routes.join(peer, treatment, &scene);
    }

    /// Treats a peer otherwise from now on, whose session stands. What it is told follows at once; what it told is
    /// judged anew when it tells it again.
    pub fn set_neighbor(&mut self, peer: Source, neighbor: Neighbor) {
        // What changed before goes by how it was before.
        self.flush();
        let Some(before) = self.neighbors.get(peer) else { return };
        let moved = before.relation != neighbor.relation;
        for family in Family::ALL {
            let towards = neighbor.towards(family);
            let export = Arc::clone(&neighbor.export);
            let treatment = Treatment::new(family, towards, export, neighbor.terms);
            let (routes, scene) = self.scene(family);
            routes.treat_anew(peer, treatment, &scene);
        }
        self.neighbors.replace(peer, neighbor);
        if moved {
            self.tell_anew_from(peer);
        }
    }

    /// Has others be told anew what a peer told, for who is told of it has changed.
    fn tell_anew_from(&mut self, peer: Source) {
        for routes in &mut self.families {
            routes.note_all_of(peer);
        }
    }

    /// Reflects by the mark of another cluster from now on, what was reflected before too. What came through the one
    /// that was ours may be used now, and what came through the new one may not.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        if self.config.me.cluster == cluster {
            return;
        }
        self.flush();
        self.config.me.cluster = cluster;
        for family in Family::ALL {
            let (routes, mut rules) = self.rules(family);
            routes.judge_cluster(cluster, &mut rules);
        }
        for peer in self.neighbors.all() {
            self.tell_anew_from(peer);
        }
    }

    /// To how many destinations the way is lost when a peer goes, and `others` with it.
    pub fn lost_without(&self, peer: Source, others: &[Source]) -> usize {
        self.families.iter().map(|routes| routes.lost_without(peer, others)).sum()
    }

    /// Tells a peer a family once more (RFC 2918). [`Piece::Refreshed`] says when all has been.
    pub fn refresh(&mut self, peer: Source, family: Family) {
        self.flush_family(family);
        self.families[family.index()].refresh(peer);
    }

    /// The session is lost, but the peer is expected back: its routes of the families in `keep` stay, marked
    /// as stale, and the others go (RFC 4724 §4.2).
    pub fn lose_session(&mut self, peer: Source, keep: FamilySet) {
        for family in Family::ALL {
            self.families[family.index()].leave(peer);
            if keep.contains(family) {
                self.families[family.index()].make_stale(peer);
            } else {
                self.sweep_family(peer, family, Sweep::All);
            }
        }
    }

    /// The peer whose session was lost is back.
    pub fn resume_peer(&mut self, peer: Source, neighbor: Neighbor) {
        let facts = |neighbor: &Neighbor| (neighbor.addr, neighbor.id, neighbor.relation);
        let same = self.neighbors.get(peer).map(facts) == Some(facts(&neighbor));
        self.neighbors.replace(peer, neighbor);
        if !same {
            self.reassess();
        }
    }

    /// Forgets a peer and all that it told.
    pub fn remove_peer(&mut self, peer: Source) {
        self.lose_session(peer, FamilySet::EMPTY);
        self.neighbors.remove(peer);
        for routes in &mut self.families {
            routes.free_number();
        }
    }

    /// Marks all routes of a peer as told before now: a refresh begins (RFC 7313).
    pub fn make_stale(&mut self, peer: Source, family: Family) {
        self.families[family.index()].make_stale(peer);
    }

    /// Takes away what a peer has not told again.
    pub fn sweep(&mut self, peer: Source, family: Family) {
        self.sweep_family(peer, family, Sweep::Stale);
    }

    /// Takes away all that a peer told of a family.
    pub fn clear(&mut self, peer: Source, family: Family) {
        self.sweep_family(peer, family, Sweep::All);
    }

    fn sweep_family(&mut self, peer: Source, family: Family, which: Sweep) {
        let (routes, mut rules) = self.rules(family);
        routes.sweep(peer, which, &mut rules);
    }
}

// ---- routes
impl Rib {
    /// Takes what a peer says. The end marker is the session's to see: [`Update::end_of_rib`].
    pub fn update(&mut self, peer: Source, update: &Update<'_>) {
        for nlris in update.withdrawn() {
            let (routes, mut rules) = self.rules(nlris.family());
            routes.withdraw(peer, &nlris, &mut rules);
        }
        let mut announced = update.announced().peekable();
        if announced.peek().is_none() {
            return;
        }
        let mut octets = std::mem::take(&mut self.scratch);
        update.write_attributes(&mut octets);
        // The view has looked at them, so they can be read.
        let attributes = Attributes::read(&octets).unwrap_or_default();
        for announced in announced {
            let Self { pool, neighbors, distances, families, events, .. } = self;
            let Some(from) = neighbors.get(peer) else { break };
            let family = announced.nlris.family();
            let next_hop = announced.next_hop;
            let me = &self.config.me;
            let mut incoming = Incoming::new(&octets, &attributes, next_hop, from, me, distances);
            let med = self.config.med;
            let mut rules = Rules { pool, neighbors, distances, med, events };
            let routes = &mut families[family.index()];
            routes.announce(peer, &announced.nlris, &mut incoming, &mut rules);
            incoming.finish(rules.pool);
        }
        octets.clear();
        self.scratch = octets;
    }

    /// Announces a route of our own. A next hop that is unspecified stands for ours in each session.
    pub fn originate(&mut self, nlri: &Nlri, attributes: &Attributes, next_hop: NextHop) {
        let mut octets = Vec::new();
        attributes.write(&mut octets);
        let (routes, mut rules) = self.rules(nlri.key.family());
        if let Some(attrs) = rules.pool.intern(&octets, next_hop, nlri.tail) {
            let path = Path::new(attrs, Source::LOCAL, PathId::NONE, Standing::Eligible);
            routes.put(nlri, path, &mut rules);
        }
    }

    /// Takes a route of our own away.
    pub fn withdraw(&mut self, key: &NlriKey) {
        let (routes, mut rules) = self.rules(key.family());
        routes.take(key, Source::LOCAL, &mut rules);
    }

    /// Says how far next hops are. Those that are not named any more are assumed to be near.
    pub fn set_distances(&mut self, distances: impl IntoIterator<Item = (IpAddr, Distance)>) {
        let distances = distances.into_iter().collect();
        if self.distances != distances {
            self.distances = distances;
            self.reassess();
        }
    }

    fn reassess(&mut self) {
        for family in Family::ALL {
            let (routes, mut rules) = self.rules(family);
            routes.reassess(&mut rules);
        }
    }
}

// ---- what is told
impl Rib {
    /// Whether a flush would have anything to do.
    pub fn has_changed(&self) -> bool {
        self.families.iter().any(|routes| routes.has_changed())
    }

    /// Encodes what has changed for all peers.
    pub fn flush(&mut self) {
        for family in Family::ALL {
            self.flush_family(family);
        }
    }

    /// The next thing to tell a peer; `None` when it has been told all.
    pub fn next(&mut self, peer: Source) -> Option<Piece> {
        Family::ALL.into_iter().find_map(|family| {
            if !self.families[family.index()].has_more(peer) {
                return None;
            }
            self.flush_family(family);
            let (routes, scene) = self.scene(family);
            routes.next(peer, &scene)
        })
    }

    /// Whether a peer has not been told all that is encoded.
    pub fn has_more(&self, peer: Source) -> bool {
        self.families.iter().any(|routes| routes.has_more(peer))
    }

    /// The destinations that changed since this was asked last; nothing unless the RIB is watched.
    pub fn take_changed(&mut self) -> Vec<NlriKey> {
        std::mem::take(&mut self.changed)
    }

    fn flush_family(&mut self, family: Family) {
        if !self.families[family.index()].has_changed() {
            return;
        }
        let mut changed = std::mem::take(&mut self.changed);
        let watch = self.config.watch;
        let (routes, scene) = self.scene(family);
        routes.flush(&scene, &mut |key| {
            if watch == Watch::On {
                changed.push(key);
            }
        });
        self.changed = changed;
        for peer in self.families[family.index()].too_slow() {
            self.families[family.index()].leave(peer);
            self.events.push_back(RibEvent::TooSlow { peer, family });
        }
    }
}

// ---- helpers
impl Rib {
    fn rules(&mut self, family: Family) -> (&mut dyn FamilyRib, Rules<'_>) {
        let Self { config, pool, neighbors, distances, families, events, .. } = self;
        let rules = Rules { pool, neighbors, distances, med: config.med, events };
        (&mut *families[family.index()], rules)
    }

    fn scene(&mut self, family: Family) -> (&mut dyn FamilyRib, Scene<'_>) {
        let Self { config, pool, neighbors, families, .. } = self;
        let scene = Scene { family, pool, neighbors, me: &config.me };
        (&mut *families[family.index()], scene)
    }
}
