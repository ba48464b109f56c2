//! This node's lease: taken, kept, and taken again (flannel's etcd rules), without I/O.
//!
//! Feed each [`LeaseInput`] with the time it happened, then drain [`LeaseMachine::poll_output`] to `None`,
//! then wait until [`LeaseMachine::poll_timeout`] or the next input. Writes leave as values and their
//! outcome comes back as an input; an outcome may come late, twice, out of order, or never.
//!
//! ```text
//!             configuration, underlay, snapshot known
//!   Waiting ────────────────────────────────────────▶ Asking ── done ──▶ Held ──▶ renewed at expiry − margin
//!                                                      ▲  │               │
//!                                       back-off ──────┘  └── lost race   ├─ deleted, run out: asks for the same
//!                                                                         └─ taken by another: asks for a new one
//! ```
//!
//! Of two nodes with one address the one that came later finds the other's lease and takes it for its own of an earlier
//! life, as flannel does. The other sees that and writes it again; the later one then gives way, and asks for a new
//! subnet. Both say so, and so does everybody who sees two leases with one address.
//!
//! Forwarding does not wait for any of this: [`LeaseOutput::Lost`] is said when the subnet is somebody
//! else's, or not in the network any more, and the calculation keeps the old one until the next
//! [`LeaseOutput::Acquired`]. `addressing::node_subnet` has the choice of the subnet, `lease/machine` the
//! machine, `lease/view` what the store is known to hold.

mod machine;
#[cfg(test)]
mod simulation;
mod view;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

pub use self::machine::LeaseMachine;
use crate::{
    error::Fault,
    model::{Lease, LeaseKey, NetworkConfig, UnderlayFact},
};

/// How long a lease lives, and when it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    pub ttl: Duration,
    /// How long before its end a lease is renewed.
    pub margin: Duration,
}

impl Default for Term {
    /// flannel's: 24 hours, renewed an hour before.
    fn default() -> Self {
        Self { ttl: Duration::from_hours(24), margin: Duration::from_hours(1) }
    }
}

/// A key of the store that claims subnets, whoever holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseClaim {
    pub key: LeaseKey,
    /// `None` when the value is unreadable; the subnets are taken all the same.
    pub lease: Option<Lease>,
    pub create_rev: u64,
    pub mod_rev: u64,
    pub life: Life,
}

/// Whether a key of the store goes away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It hangs on a lease of the store.
    Leased,
    /// It hangs on none: a reservation that never runs out.
    Reserved,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseInput {
    Config(NetworkConfig),
    Underlay(UnderlayFact),
    /// Every claim of the store at `rev`. What is not in it is gone.
    Snapshot {
        claims: Vec<LeaseClaim>,
        rev: u64,
    },
    /// The store has another history than the one that was known: wiped, restored from a copy, or another
    /// cluster's. Its revisions say nothing about what was written before; a snapshot follows.
    OtherHistory,
    Claimed(LeaseClaim),
    /// The key was deleted, or ran out, at `rev`.
    Gone {
        key: LeaseKey,
        rev: u64,
    },
    /// What this node held in its earlier life (`subnet.env`, checkpoint).
    Previous(LeaseKey),
    Wrote {
        op: u64,
        outcome: WriteOutcome,
    },
    Timeout,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutput {
    Store {
        op: u64,
        write: StoreWrite,
    },
    /// The lease is ours until then, or for ever. Said again at each renewal.
    Acquired {
        key: LeaseKey,
        expires: Option<Instant>,
    },
    /// The subnets are ours no more; another lease is being asked for.
    Lost {
        key: LeaseKey,
        reason: LostReason,
    },
    /// Why there is no lease, or why the one there is may run out. For `status`.
    Pending(LeaseFault),
}

/// A write to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreWrite {
    /// Grant, then a transaction: if the key's version is 0, put. The grant is revoked when it fails.
    Create { key: LeaseKey, lease: Lease, ttl_s: u32 },
    /// A *new* grant and a plain put over the key; no keep-alive.
    Renew { key: LeaseKey, lease: Lease, ttl_s: u32 },
    /// A plain put without a grant: a reservation stays one.
    Update { key: LeaseKey, lease: Lease },
    /// Delete the key if it was last written at this revision.
    Release { key: LeaseKey, mod_rev: u64 },
}

impl StoreWrite {
    pub const fn key(&self) -> LeaseKey {
        match self {
            Self::Create { key, .. }
            | Self::Renew { key, .. }
            | Self::Update { key, .. }
            | Self::Release { key, .. } => *key,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is written, at this revision.
    Done { rev: u64 },
    /// The compare failed: somebody was faster.
    Exists,
    /// Nothing is known: it may or may not have been written.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    #[error("another node holds the subnet")]
    Taken,
    #[error("the network does not hold the subnet any more")]
    OutsideNetwork,
    #[error("its holder lives and has this node's address {0}; give one of the two another")]
    Shared(IpAddr),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseFault {
    #[error(
        "every subnet of the network is leased; make the network larger or its subnets smaller"
    )]
    Exhausted,
    #[error("another node was faster; asking again")]
    LostRace,
    #[error("write lease to the store: {0}")]
    Write(String),
    #[error("write lease to the store: no answer")]
    NoAnswer,
    #[error(
        "another node has this node's address {0} and writes its lease; give one of the two another"
    )]
    SharedAddress(IpAddr),
    #[error(
        "somebody else has written this node's lease; it is written again (by hand, or by another node with this \
         node's address {0}?)"
    )]
    Rewritten(IpAddr),
    #[error("the lease has run out while the store was away; forwarding goes on")]
    RunOut,
    #[error("this node cannot serve the network")]
    Footing(#[source] Fault),
}
