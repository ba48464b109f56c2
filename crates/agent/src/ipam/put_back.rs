//! Puts back what a store has lost of this node's, while it is not believed: its blocks, with the addresses that live here.
//!
//! ```text
//!   Doubted, Aside ─▶ Lost ── wanted ─▶ register ─▶ the node's own object        (etcd)
//!     (what is there)   └── once that is there ───▶ handles, then block and claim (etcd)
//! ```
//!
//! When all nodes have done it the operator can accept the store without losing a packet: whoever accepts it first finds
//! the others' blocks there. It only adds, each write under the condition that nothing is at the key and that the cluster's
//! name is as it was read. The node comes first, for blocks of a node that is not there are collected. Nothing is given to
//! anybody meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_api::calico::{self, Kind, ResourceId, Stored};
use russet_core::{
    addressing::blocks::{
        AffinityState, BlockPool, Claimant, Handle, HandleId, Key, Timestamp, Value,
        block::TYPE,
        machine::Now,
        put_back::{Found, Lot, Tenant, counts, lots},
    },
    model::calico::{Affinity, IpamBlock, Name, Node},
};
use russet_net::Prefix;
use russet_store::Guard;
use tokio::sync::watch;

use super::{
    Done, Ipam,
    ask::tunnel_handle,
    documents::{Document, key_text},
    shelf::Shelf,
    wish::Tunnel,
};
use crate::{
    disk::checkpoint::Objects,
    one_line,
    resources::{self, Change, Doubt, Known, Object, Picture},
};

/// What this node had when the store was last believed.
#[derive(Clone, Debug, Default)]
pub struct Mine {
    /// Each as it was; `None` when that is not known any more.
    blocks: BTreeMap<Prefix, Option<Arc<Stored<IpamBlock>>>>,
    /// The addresses of tunnels that nobody holds in this life yet.
    tunnels: BTreeMap<Tunnel, IpAddr>,
}

impl Mine {
    /// What an earlier life kept.
    pub fn recalled(node: &Name, kept: &Objects) -> Self {
        let picture = resources::recalled(node, &kept.now);
        let tunnels = picture.resources(Kind::Node).filter(|(name, _)| *name == node);
        let tunnels = tunnels.flat_map(|(_, object)| match object {
            Object::Node(node) => tunnels_of(node),
            _ => Vec::new(),
        });
        let tunnels = tunnels.collect();
        Self { blocks: kept.blocks.iter().map(|cidr| (*cidr, None)).collect(), tunnels }
    }

    /// What is recorded beside an address that a handle has.
    fn attributes(&self, addr: IpAddr, handle: &HandleId) -> Option<BTreeMap<String, String>> {
        let (_, block) = self.blocks.iter().find(|(cidr, _)| cidr.contains(addr))?;
        let mut all = block.as_ref()?.value().allocated();
        let (_, of) =
            all.find(|(given, of)| given.addr == addr && of.handle.as_ref() == Some(handle))?;
        Some(of.secondary.clone())
    }
}

fn tunnels_of(node: &Node) -> Vec<(Tunnel, IpAddr)> {
    let v4 = [
        (Tunnel::Ipip, node.ipip),
        (Tunnel::Vxlan, node.vxlan_v4.addr),
        (Tunnel::Wireguard, node.wireguard_v4.addr),
    ];
    let v6 = [(Tunnel::VxlanV6, node.vxlan_v6.addr), (Tunnel::WireguardV6, node.wireguard_v6.addr)];
    let v4 = v4.into_iter().filter_map(|(tunnel, addr)| Some((tunnel, IpAddr::V4(addr?))));
    let v6 = v6.into_iter().filter_map(|(tunnel, addr)| Some((tunnel, IpAddr::V6(addr?))));
    v4.chain(v6).collect()
}

/// What is known of what was lost.
#[derive(Debug)]
pub(super) struct PutBack {
    mine: Mine,
    /// While the store is doubted because it has lost something.
    lost: Option<Lost>,
    /// Whether this node's own object is to be there.
    wanted: watch::Sender<bool>,
}

/// A store that has lost something, as far as it matters here.
#[derive(Debug, Default)]
struct Lost {
    pools: BTreeMap<Name, BlockPool>,
    /// Those that overlap this node's.
    blocks: BTreeSet<Prefix>,
    /// This node's claims.
    claimed: BTreeSet<Prefix>,
    /// Whether this node's own object is there.
    registered: bool,
    /// The revision of what the cluster says of itself.
    named: Option<u64>,
    /// When it is to be looked at.
    due: Option<Instant>,
    work: Work,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Work {
    #[default]
    Idle,
    UnderWay,
}

impl PutBack {
    pub(super) const fn new(mine: Mine, wanted: watch::Sender<bool>) -> Self {
        Self { mine, lost: None, wanted }
    }

    /// The store was believed till now, and this node had these blocks.
    pub(super) fn note(&mut self, blocks: BTreeMap<Prefix, Arc<Stored<IpamBlock>>>) {
        let blocks = blocks.into_iter().map(|(cidr, block)| (cidr, Some(block))).collect();
        self.mine = Mine { blocks, tunnels: BTreeMap::new() };
    }

    /// The store is not believed, and this is what it has.
    pub(super) fn doubted(&mut self, node: &Name, doubt: &Doubt, picture: &Picture) {
        self.over();
        if doubt.is_loss() {
            let mut lost = Lost { due: Some(Instant::now()), ..Lost::default() };
            for (key, known) in picture.iter() {
                lost.put(&self.mine, node, key, Some(known));
            }
            self.lost = Some(lost);
        }
    }

    /// What changed in a store that is not believed.
    pub(super) fn aside(&mut self, node: &Name, changes: &[Change]) {
        let Some(lost) = &mut self.lost else { return };
        for Change { key, known, .. } in changes {
            if lost.put(&self.mine, node, key, known.as_ref()) {
                lost.due = Some(Instant::now());
            }
        }
    }

    /// The store is believed, or another's.
    pub(super) fn over(&mut self) {
        self.lost = None;
        self.want(false);
    }

    /// Something else has come that it waited for.
    pub(super) fn look_again(&mut self, at: Instant) {
        if let Some(lost) = &mut self.lost {
            lost.due = Some(at);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.lost.as_ref().filter(|lost| lost.work == Work::Idle)?.due
    }

    /// Whether it is to be looked at now; that is told once.
    fn is_due(&mut self, now: Instant) -> bool {
        let Some(lost) = &mut self.lost else { return false };
        lost.work == Work::Idle && lost.due.take_if(|at| *at <= now).is_some()
    }

    fn want(&self, wanted: bool) {
        self.wanted.send_if_modified(|before| std::mem::replace(before, wanted) != wanted);
    }

    /// What is to be written now, given who lives here.
    fn job(&mut self, node: &Name, tenants: &[Tenant], now: Timestamp) -> Option<Job> {
        let own: BTreeSet<Prefix> = self.mine.blocks.keys().copied().collect();
        let lost = self.lost.as_mut()?;
        let pools: Vec<_> = lost.pools.values().copied().collect();
        let found = Found { pools: &pools, blocks: &lost.blocks };
        let wanted = own.iter().any(|cidr| found.gives(*cidr));
        let lots = lots(&own, tenants, found);
        let registered = lost.registered;
        let guard = resources::same_cluster(lost.named);
        let claimed = lost.claimed.clone();
        self.want(wanted);
        let guard = guard.filter(|_| registered && !lots.is_empty())?;
        self.lost.as_mut()?.work = Work::UnderWay;
        Some(Job { node: node.clone(), guard, lots, counts: counts(&own, tenants), claimed, now })
    }
}

impl Lost {
    /// Takes one key. Returns whether it matters here.
    fn put(&mut self, mine: &Mine, node: &Name, key: &calico::Key, known: Option<&Known>) -> bool {
        let is_there = known.is_some();
        match key {
            calico::Key::Block(cidr) => {
                let matters = mine.blocks.keys().any(|own| own.overlaps(*cidr));
                matters && set(&mut self.blocks, *cidr, is_there)
            }
            calico::Key::BlockAffinity(Affinity::Host(host), cidr) if host == node => {
                set(&mut self.claimed, *cidr, is_there)
            }
            calico::Key::Resource(id) => self.resource(node, id, known),
            _ => false,
        }
    }

    fn resource(&mut self, node: &Name, id: &ResourceId, known: Option<&Known>) -> bool {
        match id.kind {
            Kind::IpPool => {
                self.pools.remove(&id.name);
                // What a pool was before its fault it was in a store that knew more.
                let known = known.filter(|known| known.fault.is_none());
                if let Some(Object::Pool(pool)) = known.and_then(|known| known.value.as_ref()) {
                    let cut = BlockPool::new(pool.cidr(), pool.block_len().get());
                    self.pools.extend(cut.ok().map(|cut| (id.name.clone(), cut)));
                }
                true
            }
            Kind::Node if id.name == *node => {
                std::mem::replace(&mut self.registered, known.is_some()) != known.is_some()
            }
            Kind::ClusterInformation => {
                self.named = known.map(|known| known.revision);
                true
            }
            _ => false,
        }
    }
}

/// Returns whether it was otherwise.
fn set(all: &mut BTreeSet<Prefix>, cidr: Prefix, is_there: bool) -> bool {
    if is_there { all.insert(cidr) } else { all.remove(&cidr) }
}

impl<S: Shelf> Ipam<S> {
    /// Begins to put back what the store lacks.
    pub(super) fn put_back(&mut self, now: Now) {
        if !self.put_back.is_due(now.mono) || self.away.is_some() || self.desk.recorded.is_none() {
            return;
        }
        let tenants = self.tenants(now);
        if let Some(job) = self.put_back.job(&self.settings.node, &tenants, now.wall) {
            let store = self.store.clone();
            self.work.spawn(async move { Done::PutBack(job.carry_out(&store).await) });
        }
    }

    pub(super) fn was_put_back(&mut self, done: Result<Vec<Prefix>, String>) {
        if let Some(lost) = &mut self.put_back.lost {
            lost.work = Work::Idle;
        }
        match done {
            Ok(blocks) if blocks.is_empty() => {}
            Ok(blocks) => {
                self.trouble = None;
                tracing::info!(
                    op = "put back blocks",
                    ?blocks,
                    "the store has what it lost of them"
                );
            }
            Err(reason) => {
                self.note_trouble(&reason);
                self.put_back.look_again(Instant::now() + RETRY);
            }
        }
    }

    /// Who lives here: pods that are not being removed, and this node's tunnels.
    fn tenants(&self, now: Now) -> Vec<Tenant> {
        let mine = &self.put_back.mine;
        let tenant = |addr, handle: HandleId, kind: Option<&str>| {
            let secondary = mine.attributes(addr, &handle).unwrap_or_else(|| {
                let kind = kind.map(|kind| (TYPE.to_owned(), kind.to_owned()));
                self.desk.attributes(now).into_iter().chain(kind).collect()
            });
            Tenant { addr, who: Claimant { handle, secondary } }
        };
        let recorded = self.desk.recorded.iter().flatten();
        let pods = recorded.filter(|(handle, _)| !self.desk.is_freeing(handle));
        let pods = pods.flat_map(|(handle, all)| all.iter().map(move |addr| (*addr, handle)));
        let pods = pods.map(|(addr, handle)| tenant(addr, handle.clone(), None));
        let mut tunnels = mine.tunnels.clone();
        tunnels.extend(self.desk.tunnels());
        let tunnels = tunnels.into_iter().filter_map(|(tunnel, addr)| {
            let handle = tunnel_handle(tunnel, &self.settings.node).ok()?;
            Some(tenant(addr, handle, Some(tunnel.kind())))
        });
        pods.chain(tunnels).collect()
    }
}

/// What is written beside the task.
struct Job {
    node: Name,
    /// That the store is the one that was looked at.
    guard: Guard,
    lots: Vec<Lot>,
    counts: BTreeMap<HandleId, Handle>,
    /// The claims that are there.
    claimed: BTreeSet<Prefix>,
    now: Timestamp,
}

impl Job {
    /// Creates what is not there, the handles first: a count is never too low. Returns the blocks that were created.
    async fn carry_out(&self, store: &impl Shelf) -> Result<Vec<Prefix>, String> {
        let mut counted = BTreeMap::new();
        for tenant in self.lots.iter().flat_map(|lot| &lot.tenants) {
            let handle = &tenant.who.handle;
            if !counted.contains_key(handle)
                && let Some(counts) = self.count(store, handle).await?
            {
                counted.insert(handle.clone(), counts);
            }
        }
        let mut created = Vec::new();
        for lot in &self.lots {
            if self.create(store, lot, &counted).await? {
                created.push(lot.cidr);
            }
        }
        Ok(created)
    }

    /// Creates a handle. Returns what it says now, also when somebody else wrote it; `None`: it could not be created.
    async fn count(&self, store: &impl Shelf, handle: &HandleId) -> Result<Option<Handle>, String> {
        let Some(counts) = self.counts.get(handle) else { return Ok(None) };
        let key = Key::Handle(handle.clone());
        if self.make(store, vec![(key.clone(), Value::Handle(counts.clone()))]).await? {
            return Ok(Some(counts.clone()));
        }
        let found = store.get(&key_text(&key)).await.map_err(|err| one_line(&err))?;
        let read = found.map(|kv| Document::read(&key, &kv)).transpose()?;
        Ok(read.and_then(|document| match document.value() {
            Value::Handle(counts) => Some(counts),
            _ => None,
        }))
    }

    /// Creates a block together with its claim.
    async fn create(
        &self,
        store: &impl Shelf,
        lot: &Lot,
        counted: &BTreeMap<HandleId, Handle>,
    ) -> Result<bool, String> {
        let Some(block) = lot.block(&self.node, counted, self.now) else { return Ok(false) };
        let mut keys = vec![(Key::Block(lot.cidr), Value::Block(Arc::new(block)))];
        if !self.claimed.contains(&lot.cidr) {
            let key = Key::Affinity(self.node.clone(), lot.cidr);
            keys.push((key, Value::Affinity(AffinityState::Confirmed)));
        }
        self.make(store, keys).await
    }

    async fn make(&self, store: &impl Shelf, keys: Vec<(Key, Value)>) -> Result<bool, String> {
        let text = |(key, value): (Key, Value)| {
            Some((key_text(&key), Document::new(&value)?.text().into_bytes()))
        };
        let keys = keys.into_iter().filter_map(text).collect();
        store.create(self.guard.clone(), keys).await.map_err(|err| one_line(&err))
    }
}

pub(super) const RETRY: Duration = Duration::from_secs(2);
