//! Hands out a node's addresses: requests and the store's news in, compare-and-swap writes and answers out.
//!
//! Feed each [`Input`] with the time it happened, then drain [`BlockMachine::poll_output`] to `None`, then wait
//! until [`BlockMachine::poll_timeout`] or the next input. An outcome may come late, twice, or never.
//!
//! ```text
//!             place                count                      write
//!   Waiting ────────▶ Counting ─────────────▶ Ready ────────────────────▶ Given ──▶ answer
//!      ▲   a block      the handle's count      the block's compare-and-swap, one for all
//!      │                stands first            that wait for the same block
//!      └── the block is full, gone, or another's
//! ```
//!
//! For a handle that is new the two writes are one transaction.
//!
//! **Nothing is handed out on belief.** An address is answered only after the write that gave it: with
//! borrowing anyone may take from our block, and a restart knows nothing but the store. So that this costs
//! little, requests share a write, and a block is claimed before it is needed. A request that is made again
//! for the same handle and family gets the same address, by a write as well. What a node has claimed ahead
//! ([`HandleId::ahead`]) was given by a write too, and is passed on to whom it is wished for by name.
//!
//! **Nothing is remembered but what is wished.** Each pass looks at what is known of an object and what is
//! wanted of it, and writes the difference; at most one operation for an object is under way. An operation of
//! which nothing was heard is followed by a read, and the pass goes on from what it finds.
//!
//! `machine/slot` is what is known of one object, `view` what the watch tells, `request` who waits,
//! `place` chooses blocks, `claim` gets them, `count` writes handles, `write` writes blocks, `together` both.

mod claim;
mod count;
mod place;
mod request;
mod slot;
#[cfg(test)]
mod tests;
mod together;
mod view;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_net::{Family, Prefix};

pub(super) use self::place::low_water;
pub use self::view::Fill;
use self::{
    request::{Part, Request},
    slot::{BlockSlot, HandleSlot, Slot},
    view::Summary,
    write::Free,
};
use super::{
    affinity::AffinityState,
    block::{Claimant, Given, Release, ReleaseError, TakeError},
    name::{HandleId, Name, Timestamp},
    pool::{BlockPool, Reserved},
    store::{Key, Outcome, StoreOp, Value, Versioned},
};
use crate::addressing::node_subnet::Random;

/// The time, by the clock that only goes forward and by that which others share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub mono: Instant,
    pub wall: Timestamp,
}

/// What the operator wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// The enabled pools, those that are tried first in front.
    pub pools: Vec<BlockPool>,
    pub reserved: Reserved,
    pub borrowing: Borrowing,
    /// How many blocks a node claims at most ([`BLOCKS_PER_NODE`]).
    pub blocks_per_node: usize,
    /// How long an address rests after its release; zero for not at all.
    pub cooldown: Duration,
}

/// Whether a node without room of its own takes from others' blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Borrowing {
    Allowed,
    /// Strict affinity.
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Config(BlockConfig),
    /// Every block, and this node's affinities, at `rev`. What is not in it is gone.
    Snapshot {
        objects: Vec<(Key, Versioned)>,
        rev: u64,
    },
    /// What was written (none: deleted) since, in order.
    Changed(Vec<Change>),
    /// The store has another history: revisions say nothing any more. A snapshot follows.
    OtherHistory,
    Ask {
        request: u64,
        ask: Ask,
    },
    Wrote {
        op: u64,
        outcome: Outcome,
    },
    Timeout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub rev: u64,
    pub value: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// One address for each want, of which there is at most one for a family: all of them or none.
    Allocate {
        who: Claimant,
        wants: Vec<Want>,
    },
    /// Everything that a handle has, wherever it is. What is being allocated for it is called off.
    ReleaseHandle(HandleId),
    ReleaseAddress(Release),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub family: Family,
    /// The pools to take from, in order; empty for every enabled one.
    pub pools: Vec<Prefix>,
    pub wished: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Store {
        op: u64,
        what: StoreOp,
    },
    /// Swaps as one transaction: all of them, at one revision, or none. Each has its own outcome.
    Together(Vec<(u64, StoreOp)>),
    Answer {
        request: u64,
        answer: Result<Answer, Refusal>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In the order of the wants.
    Given(Vec<Given>),
    /// So many addresses are free now that were not.
    Released(u32),
}

/// Why a request was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no enabled pool for {0} is among those asked for")]
    NoPool(Family),
    #[error("the pools have no free {0} address left for this node")]
    Exhausted(Family),
    #[error("this node has as many blocks as it may ({0}), and none has a free address")]
    BlockLimit(usize),
    #[error("address {0} is in no enabled pool")]
    NoPoolHas(IpAddr),
    #[error("address {addr} is in block {block} of another node, and borrowing is off")]
    Strict { addr: IpAddr, block: Prefix },
    #[error(
        "block {block} of address {addr} overlaps {other}, from when the pool was cut otherwise"
    )]
    Overlaps { addr: IpAddr, block: Prefix, other: Prefix },
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("handle {handle} has {has} addresses already")]
    HandleLimit { handle: HandleId, has: u32 },
    #[error("too many requests are waiting for addresses")]
    Busy,
    #[error("the store has not answered in time")]
    NoAnswer,
    #[error("the handle was released meanwhile")]
    CalledOff,
}

/// Hands out the addresses of one node.
#[derive(Debug)]
pub struct BlockMachine {
    node: Name,
    random: Random,
    config: Option<Arc<BlockConfig>>,
    synced: bool,

    // ---- what the store is known to have
    /// Every block there is, in a few words.
    index: BTreeMap<Prefix, Summary>,
    /// Others' blocks, and which handles have addresses in them: this node's at least.
    lent: BTreeMap<Prefix, Arc<[HandleId]>>,
    /// The blocks that are ours or in use here, whole.
    blocks: BTreeMap<Prefix, BlockSlot>,
    /// This node's affinities.
    affinities: BTreeMap<Prefix, Slot<AffinityState>>,
    /// The handles that are being changed here.
    handles: BTreeMap<HandleId, HandleSlot>,

    // ---- what is wished
    /// Blocks that are being claimed.
    claims: BTreeSet<Prefix>,
    /// Pools that were asked for: a block is claimed ahead in them.
    used_pools: BTreeSet<Prefix>,
    requests: BTreeMap<u64, Request>,
    parts: BTreeMap<u64, Part>,
    next_part: u64,
    frees: BTreeMap<Prefix, Vec<Free>>,

    // ---- what is under way
    ops: BTreeMap<u64, Key>,
    next_op: u64,
    /// The transaction that is being put together.
    together: Option<Vec<(u64, StoreOp)>>,
    /// Whether a pass has changed something that an earlier pass looks at.
    dirty: bool,
    outputs: VecDeque<Output>,
}

impl BlockMachine {
    /// Creates a machine that knows nothing yet. `seed` should differ from node to node and start to start.
    pub fn new(node: Name, seed: u64) -> Self {
        Self {
            node,
            random: Random::new(seed),
            config: None,
            synced: false,
            index: BTreeMap::new(),
            lent: BTreeMap::new(),
            blocks: BTreeMap::new(),
            affinities: BTreeMap::new(),
            handles: BTreeMap::new(),
            claims: BTreeSet::new(),
            used_pools: BTreeSet::new(),
            requests: BTreeMap::new(),
            parts: BTreeMap::new(),
            next_part: 0,
            frees: BTreeMap::new(),
            ops: BTreeMap::new(),
            next_op: 0,
            together: None,
            dirty: false,
            outputs: VecDeque::new(),
        }
    }

    /// Advances the machine. `now` must never go backwards.
    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::Config(config) => {
                self.claims.retain(|cidr| config.pools.iter().any(|pool| pool.gives(*cidr)));
                self.config = Some(Arc::new(config));
            }
            Input::Snapshot { objects, rev } => self.snapshot(objects, rev, now),
            Input::Changed(changes) => {
                for change in changes {
                    self.changed(change, now);
                }
            }
            Input::OtherHistory => self.forget_history(),
            Input::Ask { request, ask } => self.ask(request, ask, now),
            Input::Wrote { op, outcome } => self.wrote(op, outcome, now),
            Input::Timeout => {}
        }
        self.expire(now);
        self.advance(now);
    }

    /// Returns the next thing to do, or `None` when all is done until the next input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Input::Timeout`] is next due. Changes after every [`Self::handle`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.values().map(|request| request.until);
        let blocks = self.blocks.values().filter_map(|block| block.slot.next_at());
        let affinities = self.affinities.values().filter_map(Slot::next_at);
        let handles = self.handles.values().filter_map(|handle| handle.slot.next_at());
        requests.chain(blocks).chain(affinities).chain(handles).min()
    }

    /// Passes until nothing more follows. One pass leaves to the next at most what its own writes change.
    fn advance(&mut self, now: Now) {
        let Some(config) = self.config.clone().filter(|_| self.synced) else { return };
        for _ in 0..MOST_PASSES {
            self.dirty = false;
            self.place(&config, now);
            self.claim(&config, now);
            self.look_up(now);
            self.write(&config, now);
            self.write_together(&config, now);
            self.count(now);
            self.write(&config, now);
            if !self.dirty {
                break;
            }
        }
        self.tidy();
    }

    /// What is answered late by the store, and who has waited too long.
    fn expire(&mut self, now: Now) {
        let late = |at: Option<Instant>| at.is_some_and(|at| at <= now.mono);
        let blocks = self.blocks.values().filter_map(|b| b.slot.late(now.mono));
        let affinities = self.affinities.values().filter_map(|a| a.late(now.mono));
        let handles = self.handles.values().filter_map(|h| h.slot.late(now.mono));
        let ops: Vec<_> = blocks.chain(affinities).chain(handles).collect();
        for op in ops {
            self.wrote(op, Outcome::Failed("no answer".to_owned()), now);
        }
        let requests = self.requests.iter().filter(|(_, request)| late(Some(request.until)));
        let requests: Vec<_> = requests.map(|(id, _)| *id).collect();
        for request in requests {
            self.refuse(request, Refusal::NoAnswer);
        }
        self.blocks.values_mut().for_each(|b| b.slot.end_pause(now.mono));
        self.affinities.values_mut().for_each(|a| a.end_pause(now.mono));
        self.handles.values_mut().for_each(|h| h.slot.end_pause(now.mono));
    }

    fn wrote(&mut self, op: u64, outcome: Outcome, now: Now) {
        // An outcome that is told twice, or after it was given up, is known no more.
        match self.ops.remove(&op) {
            Some(Key::Block(cidr)) => self.block_settled(cidr, outcome, now),
            Some(Key::Affinity(_, cidr)) => self.affinity_settled(cidr, outcome, now),
            Some(Key::Handle(handle)) => self.handle_settled(&handle, outcome, now),
            None => {}
        }
    }

    fn store(&mut self, what: StoreOp) -> u64 {
        let op = self.next_op;
        self.next_op += 1;
        self.ops.insert(op, what.key().clone());
        match &mut self.together {
            Some(ops) => ops.push((op, what)),
            None => self.outputs.push_back(Output::Store { op, what }),
        }
        op
    }

    fn answer(&mut self, request: u64, answer: Result<Answer, Refusal>) {
        self.outputs.push_back(Output::Answer { request, answer });
    }
}

/// How many blocks a node claims when nothing else is configured, as in Calico.
pub const BLOCKS_PER_NODE: usize = 20;
/// How many requests wait at most; one more is refused.
pub const MOST_WAITING: usize = 1_024;
/// How many addresses one handle has at most.
pub const MOST_PER_HANDLE: u32 = 64;
/// How long a request waits before it is refused: less than a container runtime does.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// After this long without an answer an operation is given up, though it may yet happen.
const NO_ANSWER: Duration = Duration::from_secs(10);
/// A pass settles what the one before has changed: place, count, write, and once more when a block is full.
const MOST_PASSES: usize = 16;
