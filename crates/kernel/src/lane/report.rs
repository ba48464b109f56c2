//! What the lane tells of itself.

use std::time::Duration;

use russet_desired::Key;

use super::Generation;
use crate::{KernelError, nft::DroppingChain, reconcile::News};

/// What one round of the lane did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every patch up to this one is in the kernel, but for what is refused.
    pub generation: Generation,
    /// What changed for single keys. Of repairs at most [`MAX_REPAIRS`] are listed; all are counted.
    pub news: Vec<News<Key>>,
    /// Why the kernel could not be read back, if so. It is tried again.
    pub error: Option<KernelError>,
    /// Foreign forward chains that drop.
    pub drops: Vec<DroppingChain>,
    pub counters: Counters,
}

/// Numbers since the lane's start, but where they say `now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernel events that were looked at.
    pub events: u64,
    /// How often the kernel had more events than fit.
    pub overruns: u64,
    /// Kinds read back, each time counted.
    pub resyncs: u64,
    /// Objects repaired because an event told of them.
    pub repairs_by_event: u64,
    /// Objects repaired because the read-back on the deadline found them.
    pub repairs_by_sweep: u64,
    pub rounds: u64,
    pub messages: u64,
    pub datagrams: u64,
    /// How long the last round took.
    pub last_round: Duration,
    /// Objects refused now.
    pub refused: usize,
}

/// How many repairs one report lists.
pub const MAX_REPAIRS: usize = 256;
