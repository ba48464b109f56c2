//! Addresses out of small blocks that have an affinity to a node, as Calico keeps them.
//!
//! A pool is cut into blocks of equal size. A node claims a block, and hands out its addresses; the store
//! has one object per block, and each change of it is a compare-and-swap. So nothing is handed out on belief,
//! and anyone may borrow an address from anyone's block when his own are full.
//!
//! ```text
//!   pool ── walk ──▶ candidate ── affinity ──▶ block of ours ── block ──▶ address
//!                                                                 │
//!   machine: requests and the store's news in,                    └─ handle: which blocks hold addresses
//!            compare-and-swap writes and answers out                 of one owner, and how many
//!   gc:      what nobody owns any more, seen so twice
//! ```
//!
//! `name` has the words, `pool` what is cut, `block` the algebra of one block and `check` what makes a block
//! that was read a valid one; `affinity` decides the next write of a claim or a release, `walk` where to look
//! for a block, `handle` the index by owner, `store` the shape of what is written, `machine` the one part
//! with time, `gc` what is freed for others, `put_back` what a store that lost it is given back. All of it is pure.

pub mod affinity;
pub mod block;
pub mod check;
pub mod gc;
pub mod handle;
pub mod machine;
pub mod name;
pub mod pool;
pub mod put_back;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod walk;

pub use self::{
    affinity::AffinityState,
    block::{Attributes, Block, Claimant, Given},
    gc::Collector,
    handle::Handle,
    machine::BlockMachine,
    name::{Affinity, HandleId, Name, Timestamp},
    pool::{BlockPool, Reserved},
    store::{Key, Outcome, Outline, StoreOp, Value, Versioned},
};
