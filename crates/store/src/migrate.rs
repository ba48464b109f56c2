//! Copies a store's keys to another store while both are in use, and checks that they are there.
//!
//! ```text
//!            watch: a snapshot, then every change
//!   source ──────────────────────────────────────▶ copy.rs ── batches ──▶ target
//!      ▲                                              │                     ▲
//!      └── how long has it? ──── leases.rs ───────────┴── renewed there ────┘
//!      └───────── listed at one revision ── verify.rs ── listed ────────────┘
//! ```
//!
//! The source is only read. A lease has the same number on both sides and its full time on the target, so that
//! whoever renews it goes on there; while the copy runs the target's lease is kept alive as long as the
//! source's lives, and its keys go when the source says that they are gone.
//!
//! Nothing waits for ever: a side that is away for longer than [`Order::patience`] ends the copy, and so does
//! a source that starts over again and again.

mod copy;
mod leases;
mod report;
mod verify;

use std::{future::Future, time::Duration};

use self::{copy::Copy, verify::verify};
pub use self::{
    report::{Progress, Report, Side},
    verify::{Difference, Differs},
};
use crate::{
    client::EtcdClient,
    contract::{Revision, SnapshotReason},
    error::StoreError,
};

/// What is to be copied, and how carefully.
#[derive(Clone, Debug)]
pub struct Order {
    /// Keys that begin with this; empty for every key.
    pub prefix: Vec<u8>,
    pub existing: Existing,
    /// How long either side may be away before the copy is given up.
    pub patience: Duration,
}

/// What becomes of keys that the target has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: the copy is refused, and nothing was written.
    #[default]
    Refuse,
    /// They are replaced, and removed when the source has no such key.
    Overwrite,
}

/// Why a copy did not come to its end. The source is as it was; the target has what was copied until then.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("read the source")]
    Source(#[source] StoreError),
    #[error("write the target")]
    Target(#[source] StoreError),
    #[error("the source holds no key under {prefix}: there is nothing to copy")]
    NothingToCopy { prefix: String },
    #[error(
        "the target holds {keys} keys under {prefix} already, {first} first: give --overwrite to replace them, and to remove those that the source does not have"
    )]
    Occupied { keys: usize, prefix: String, first: String },
    #[error(
        "source and target are one store, or copies of one: they hold the same at the same revisions"
    )]
    SameStore,
    #[error(
        "the source is another store than a moment ago ({reason:?}); nothing was removed for that"
    )]
    SourceExchanged { reason: SnapshotReason },
    #[error(
        "the copy started over {times} times and did not come to an end: the source forgets its history faster than it is read, or the target forgets leases"
    )]
    StartedOverTooOften { times: usize },
    #[error("the source at revision {revision} has changes that its watch did not tell within {} s", within.as_secs())]
    Stalled { revision: Revision, within: Duration },
}

/// Copies until the target is what the source is. Without `stop` that is the end; with it, every change
/// follows until `stop` is ready. Then both are read and compared.
///
/// # Errors
///
/// See [`MigrateError`]. Differences are no error: they stand in the report.
pub async fn migrate(
    source: &EtcdClient,
    target: &EtcdClient,
    order: &Order,
    stop: Option<impl Future<Output = ()>>,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Report, MigrateError> {
    let from = source.status().await.map_err(MigrateError::Source)?;
    let to = target.status().await.map_err(MigrateError::Target)?;
    tell(&Progress::Reached { source: from, target: to });
    verify::check_target(source, target, order).await?;
    let mut copy = Copy::new(source.clone(), target.clone(), order.clone(), tell);
    let caught_up = copy.catch_up().await?.revision;
    copy.say(&Progress::CaughtUp { revision: caught_up });
    if let Some(stop) = stop {
        copy.follow(stop).await?;
    }
    let compared = verify(&mut copy).await?;
    Ok(copy.finish(compared))
}

impl MigrateError {
    /// Whether one of the two was out of reach: trying again later may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Source(err) | Self::Target(err) if err.is_unavailable())
    }
}
