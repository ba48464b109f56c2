//! What is asked of the store: reads, and compare-and-swap writes as values.

use std::sync::Arc;

use russet_net::Prefix;

use super::{
    affinity::AffinityState,
    block::Block,
    handle::Handle,
    name::{Affinity, HandleId, Name, Timestamp},
    pool::Reserved,
};

/// An object of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Block(Prefix),
    /// A node's claim of a block.
    Affinity(Name, Prefix),
    Handle(HandleId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Block(Arc<Block>),
    /// A block of another's, as a watch tells it; never written.
    Outline {
        outline: Outline,
        /// The handles of the node that is told which have addresses in it.
        ours: Arc<[HandleId]>,
    },
    Affinity(AffinityState),
    Handle(Handle),
}

/// A block in a few words: all that a node needs of another's, of which there may be thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    pub affinity: Option<Affinity>,
    /// How many addresses could be taken when it was looked at. None can be taken of one that nobody can read.
    pub free: usize,
}

impl Outline {
    pub fn of(block: &Block, reserved: &Reserved, thawed: Timestamp) -> Self {
        Self { affinity: block.affinity().cloned(), free: block.free(reserved, thawed) }
    }
}

/// A value and the revision at which it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T = Value> {
    pub rev: u64,
    pub value: T,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOp {
    Read(Key),
    /// If the object was last written at `expect` (none: if it does not exist), set it (none: delete it).
    Swap {
        key: Key,
        expect: Option<u64>,
        value: Option<Value>,
    },
}

impl StoreOp {
    pub const fn key(&self) -> &Key {
        match self {
            Self::Read(key) | Self::Swap { key, .. } => key,
        }
    }
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is written or deleted, at this revision.
    Done { rev: u64 },
    /// The comparison failed, or it was a read: this is there. `at` is the store's revision when it was
    /// looked at, 0 when the store does not say.
    Present { at: u64, value: Option<Versioned> },
    /// Nothing is known: it may or may not have been written.
    Failed(String),
}
