//! Looks after this node's own blocks: leaks, counts that a crash left, blocks that are not needed.
//!
//! The collector of `core` judges a picture of this node's blocks, in which others' addresses are those of nodes
//! that are silent. A handle that has addresses in somebody else's block as well is not judged by a part of it:
//! when it was nobody's for as long, it is released whole, through its index. Only the index of one that nobody seems to
//! have is read; what is in use is judged by nothing else, and its index is put right when it is released.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_api::calico::Stored;
use russet_core::{
    addressing::blocks::{
        AffinityState, Block, Collector, Handle, HandleId, Key, StoreOp, Value, Versioned,
        block::Given,
        gc::{Living, Picture, Report, Rules},
        machine::{BlockConfig, Now},
    },
    model::calico::{Affinity, IpamBlock, Name},
};
use russet_net::{Prefix, packed};

use super::{
    again::Recorded,
    documents::{Document, key_text},
    shelf::Shelf,
};
use crate::resources::{BlockNews, Object};

/// What the store said of handles: those that could be read; `None` does not exist.
pub(super) type Handles = BTreeMap<HandleId, Option<Versioned<Handle>>>;

/// Reads handles one by one. One that cannot be read is left out.
pub(super) async fn read(store: impl Shelf, wanted: BTreeSet<HandleId>) -> Handles {
    let mut handles = Handles::new();
    for id in wanted {
        let key = Key::Handle(id.clone());
        let Ok(found) = store.get(&key_text(&key)).await else { continue };
        let Some(kv) = found else {
            handles.insert(id, None);
            continue;
        };
        if let Ok(Value::Handle(value)) = Document::read(&key, &kv).map(|document| document.value())
        {
            handles.insert(id, Some(Versioned { rev: kv.modified.get(), value }));
        }
    }
    handles
}

/// What is known of this node's blocks, and whose all the others are.
#[derive(Debug, Default)]
pub(super) struct Local {
    own: BTreeMap<Prefix, (u64, Arc<Stored<IpamBlock>>)>,
    affinities: BTreeMap<Prefix, Versioned<AffinityState>>,
    /// This node's addresses in others' blocks, each with its handle.
    borrowed: BTreeMap<Prefix, Arc<[(IpAddr, HandleId)]>>,
    hosts: BTreeMap<Prefix, Name>,
    collector: Collector,
    strays: BTreeMap<HandleId, Instant>,
}

/// What an address is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) node: &'a Name,
    pub(super) handles: &'a Handles,
    pub(super) in_use: &'a BTreeSet<HandleId>,
    /// The addresses that the kernel leads to.
    pub(super) routed: &'a BTreeSet<IpAddr>,
}

/// What is to be freed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) ops: Vec<StoreOp>,
    /// To be released whole.
    pub(super) strays: Vec<HandleId>,
}

impl Local {
    pub(super) fn clear(&mut self) {
        *self = Self {
            collector: std::mem::take(&mut self.collector),
            strays: std::mem::take(&mut self.strays),
            ..Self::default()
        };
    }

    /// Has it take up no more than what is in it, when many blocks have come.
    pub(super) fn pack(&mut self) {
        packed::pack(&mut self.hosts);
    }

    /// Takes what is known of a block now. Tells whether this node has to do with it, or had.
    pub(super) fn block(&mut self, cidr: Prefix, revision: u64, value: Option<&Object>) -> bool {
        let was_ours = self.own.remove(&cidr).is_some() | self.borrowed.remove(&cidr).is_some();
        self.hosts.remove(&cidr);
        let Some(Object::Block(news)) = value else { return was_ours };
        if let Some(host) = news.affinity().and_then(Affinity::host) {
            self.hosts.insert(cidr, host.clone());
        }
        match news {
            BlockNews::Own(stored) => {
                self.own.insert(cidr, (revision, Arc::clone(stored)));
            }
            BlockNews::Other { ours, .. } if !ours.is_empty() => {
                self.borrowed.insert(cidr, Arc::clone(ours));
            }
            BlockNews::Other { .. } => {}
        }
        was_ours || self.own.contains_key(&cidr) || self.borrowed.contains_key(&cidr)
    }

    /// Every address of this node's blocks that a handle has.
    pub(super) fn held(&self) -> impl Iterator<Item = (Given, &HandleId)> {
        let held = self.own.values().flat_map(|(_, stored)| stored.value().held());
        held.filter_map(|(given, by)| Some((given, by?)))
    }

    /// Whether a handle has something, as far as has been told.
    pub(super) fn knows(&self, handle: &HandleId) -> bool {
        let mut own = self.own.values();
        own.any(|(_, stored)| stored.value().has(handle)) || self.lent().any(|(_, by)| by == handle)
    }

    /// Whether a handle has what it was given; `None` while nothing is told of the block since.
    pub(super) fn has(&self, given: &Given, handle: &HandleId) -> Option<bool> {
        let (cidr, (_, stored)) = self.own.range(..=Prefix::host(given.addr)).next_back()?;
        let block = stored.value();
        if !cidr.contains(given.addr) || block.sequence() <= given.sequence {
            return None;
        }
        Some(block.held().any(|(held, by)| held.addr == given.addr && by == Some(handle)))
    }

    /// What is recorded and in no block.
    pub(super) fn lacking<'a>(
        &self,
        recorded: impl Iterator<Item = (&'a HandleId, &'a Vec<IpAddr>)>,
    ) -> Recorded {
        let own = self.held().map(|(given, by)| (by, given.addr));
        let known: BTreeSet<_> = own.chain(self.lent().map(|(addr, by)| (by, addr))).collect();
        let lacks = |(handle, all): (&HandleId, &Vec<IpAddr>)| {
            let lost = all.iter().copied().filter(|addr| !known.contains(&(handle, *addr)));
            let lost: Vec<_> = lost.collect();
            (!lost.is_empty()).then(|| (handle.clone(), lost))
        };
        recorded.filter_map(lacks).collect()
    }

    pub(super) fn affinity(&mut self, cidr: Prefix, rev: u64, state: Option<AffinityState>) {
        match state {
            Some(value) => _ = self.affinities.insert(cidr, Versioned { rev, value }),
            None => _ = self.affinities.remove(&cidr),
        }
    }

    /// This node's blocks.
    pub(super) fn own(&self) -> BTreeMap<Prefix, Arc<Stored<IpamBlock>>> {
        self.own.iter().map(|(cidr, (_, stored))| (*cidr, Arc::clone(stored))).collect()
    }

    /// The nodes that have blocks.
    pub(super) fn hosts(&self) -> BTreeSet<&Name> {
        self.hosts.values().collect()
    }

    /// The handles with an address in a block of this node, whose ever they are.
    pub(super) fn handles(&self) -> BTreeSet<HandleId> {
        let blocks = self.own.values().map(|(_, stored)| stored.value());
        blocks.flat_map(Block::held).filter_map(|(_, handle)| handle.cloned()).collect()
    }

    /// Those that may be leaks: they are of this node, not in use, and no address of theirs is routed.
    pub(super) fn suspects(
        &self,
        node: &Name,
        in_use: &BTreeSet<HandleId>,
        routed: &BTreeSet<IpAddr>,
    ) -> BTreeSet<HandleId> {
        let blocks = || self.own.values().map(|(_, stored)| stored.value());
        let held = blocks().flat_map(Block::held).filter(|(given, _)| routed.contains(&given.addr));
        let alive: BTreeSet<&HandleId> = held.filter_map(|(_, handle)| handle).collect();
        let of =
            blocks().flat_map(Block::allocated).filter(|(_, of)| of.node() == Some(node.as_str()));
        let handles = of.filter_map(|(_, of)| of.handle.as_ref());
        handles.filter(|id| !in_use.contains(*id) && !alive.contains(*id)).cloned().collect()
    }

    /// Looks once. Nothing is freed that was not seen so before, a grace period ago.
    pub(super) fn look(
        &mut self,
        seen: &Seen<'_>,
        config: &BlockConfig,
        grace: Duration,
        now: Now,
    ) -> Found {
        let elsewhere = self.elsewhere(seen.handles);
        let strays = self.strays(seen, &elsewhere, grace, now.mono);
        let picture = self.picture(seen);
        let living = living(seen, &elsewhere, &picture, now.mono);
        let rules = Rules {
            grace,
            pools: config.pools.clone(),
            reserved: config.reserved.clone(),
            cooldown: config.cooldown,
        };
        let (next, mut ops) = self.collector.look(&picture, &living, &rules, now);
        self.collector = next;
        ops.retain(|op| self.may_write(op, seen, &elsewhere));
        Found { ops, strays }
    }

    /// The handles that have addresses in others' blocks, or may have: their index could not be read.
    fn elsewhere(&self, handles: &Handles) -> BTreeSet<HandleId> {
        let mut all: BTreeSet<HandleId> = self.lent().map(|(_, handle)| handle.clone()).collect();
        for id in self.handles() {
            let within = match handles.get(&id) {
                Some(Some(found)) => {
                    found.value.blocks().all(|(cidr, _)| self.own.contains_key(&cidr))
                }
                Some(None) => true,
                None => false,
            };
            if !within {
                all.insert(id);
            }
        }
        all
    }

    fn strays(
        &mut self,
        seen: &Seen<'_>,
        elsewhere: &BTreeSet<HandleId>,
        grace: Duration,
        now: Instant,
    ) -> Vec<HandleId> {
        let nobodys = |handle: &&HandleId| {
            let ours = self.lent().any(|(_, by)| by == *handle) || self.is_ours(handle, seen.node);
            ours && !seen.in_use.contains(*handle) && !self.is_routed(handle, seen.routed)
        };
        let nobodys: BTreeSet<HandleId> = elsewhere.iter().filter(nobodys).cloned().collect();
        let before = std::mem::take(&mut self.strays);
        let mut ripe = Vec::new();
        for handle in nobodys {
            let since = before.get(&handle).copied().unwrap_or(now);
            if since + grace <= now && before.contains_key(&handle) {
                ripe.push(handle.clone());
            }
            self.strays.insert(handle, since);
        }
        ripe
    }

    /// Whether a handle's addresses in our blocks are this node's pods', and no tunnel's.
    fn is_ours(&self, handle: &HandleId, node: &Name) -> bool {
        let blocks = self.own.values().map(|(_, stored)| stored.value());
        let mut of =
            blocks.flat_map(Block::allocated).filter(|(_, of)| of.handle.as_ref() == Some(handle));
        of.next().is_some_and(|(_, of)| of.node() == Some(node.as_str()))
    }

    /// Whether the kernel leads to an address of it, be it out of a block of ours or of another's.
    fn is_routed(&self, handle: &HandleId, routed: &BTreeSet<IpAddr>) -> bool {
        let blocks = self.own.values().map(|(_, stored)| stored.value());
        let held = blocks.flat_map(Block::held).filter(|(_, by)| *by == Some(handle));
        let lent = self.lent().filter(|(_, by)| *by == handle).map(|(addr, _)| addr);
        held.map(|(given, _)| given.addr).chain(lent).any(|addr| routed.contains(&addr))
    }

    /// What this node has out of others' blocks.
    fn lent(&self) -> impl Iterator<Item = (IpAddr, &HandleId)> {
        self.borrowed.values().flat_map(|ours| ours.iter()).map(|(addr, handle)| (*addr, handle))
    }

    fn picture(&self, seen: &Seen<'_>) -> Picture {
        let block = |(cidr, (rev, stored)): (&Prefix, &(u64, Arc<Stored<IpamBlock>>))| {
            (*cidr, Versioned { rev: *rev, value: Arc::new(stored.value().clone()) })
        };
        let affinity = |(cidr, state): (&Prefix, &Versioned<AffinityState>)| {
            ((seen.node.clone(), *cidr), state.clone())
        };
        let handle = |(id, found): (&HandleId, &Option<Versioned<Handle>>)| {
            Some((id.clone(), found.clone()?))
        };
        let mut handles: BTreeMap<_, _> = seen.handles.iter().filter_map(handle).collect();
        handles.extend(self.unread(seen.handles));
        Picture {
            blocks: self.own.iter().map(block).collect(),
            affinities: self.affinities.iter().map(affinity).collect(),
            handles,
        }
    }

    /// The indices that were not read, as the blocks say that they are: nothing is to be put right by them.
    fn unread(&self, read: &Handles) -> BTreeMap<HandleId, Versioned<Handle>> {
        let mut all: BTreeMap<HandleId, Versioned<Handle>> = BTreeMap::new();
        for (cidr, (_, stored)) in &self.own {
            let held = stored.value().held().filter_map(|(_, handle)| handle);
            for id in held.filter(|id| !read.contains_key(*id)) {
                let empty = || Versioned { rev: 0, value: Handle::default() };
                let index = &mut all.entry(id.clone()).or_insert_with(empty).value;
                *index = index.with(*cidr, index.count(*cidr).saturating_add(1));
            }
        }
        all
    }

    /// Our blocks and claims, and the indices that are known to be of our blocks only.
    fn may_write(&self, op: &StoreOp, seen: &Seen<'_>, elsewhere: &BTreeSet<HandleId>) -> bool {
        match op.key() {
            Key::Block(cidr) => self.own.contains_key(cidr),
            Key::Affinity(node, _) => node == seen.node,
            Key::Handle(id) => seen.handles.contains_key(id) && !elsewhere.contains(id),
        }
    }
}

/// Nobody speaks for other nodes here, so all that is theirs stays.
fn living(
    seen: &Seen<'_>,
    elsewhere: &BTreeSet<HandleId>,
    picture: &Picture,
    now: Instant,
) -> Living {
    let blocks = picture.blocks.values();
    let named = blocks
        .flat_map(|found| found.value.allocated().filter_map(|(_, of)| of.node()?.parse().ok()));
    let mut nodes: BTreeMap<Name, Report> = named.map(|node| (node, Report::Silent)).collect();
    let report = Report::Uses { handles: seen.in_use.clone(), at: now };
    nodes.insert(seen.node.clone(), report);
    // An address of no name that could be a node's is nobody's to free.
    let nameless = picture.blocks.values().flat_map(|found| found.value.allocated());
    let nameless = nameless
        .filter(|(_, of)| of.node().is_some_and(|node| node.parse::<Name>().is_err()))
        .map(|(given, _)| given.addr);
    let addrs = seen.routed.iter().copied().chain(nameless).collect();
    Living { nodes, handles: elsewhere.clone(), addrs }
}
