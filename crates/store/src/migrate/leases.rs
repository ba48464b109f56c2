//! The copied leases: made on the target with their numbers, and kept alive there while the source has them.
//!
//! A lease is looked after each third of its time: is it still there in the source? Then it is renewed on the
//! target. When the source has none of that number any more it is left to run out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::MigrateError;
use crate::{client::EtcdClient, contract::LeaseId};

/// Who the leases are copied from and to, and which they are.
#[derive(Debug)]
pub(super) struct Leases {
    source: EtcdClient,
    target: EtcdClient,
    /// When each is to be looked after next.
    known: BTreeMap<LeaseId, Instant>,
}

/// How a lease stood when it was looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// It lives, and has its time on the target again.
    Kept(Duration),
    /// The source has it no more.
    Ended,
    /// The source has it, the target has lost it, and its keys with it.
    LostOnTarget,
}

/// What became of looking after all that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    All,
    /// Some have to be made again, with their keys.
    SomeLost,
}

impl Leases {
    pub(super) fn new(source: EtcdClient, target: EtcdClient) -> Self {
        Self { source, target, known: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn knows(&self, lease: LeaseId) -> bool {
        self.known.contains_key(&lease)
    }

    /// Forgets what is known, so that each is made again if it has to be.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Makes those leases on the target that are not known yet. One that the source has no more is left out:
    /// its keys are going.
    pub(super) async fn make(&mut self, wanted: &BTreeSet<LeaseId>) -> Result<(), MigrateError> {
        let new: Vec<_> = wanted.iter().copied().filter(|lease| !self.knows(*lease)).collect();
        for (lease, found) in self.each(&new, make_one).await? {
            self.note(lease, found);
        }
        Ok(())
    }

    /// Looks after every lease whose time has come.
    pub(super) async fn look_after(&mut self, now: Instant) -> Result<Kept, MigrateError> {
        let due = self.known.iter().filter(|(_, at)| **at <= now).map(|(lease, _)| *lease);
        let due: Vec<_> = due.collect();
        self.renew(&due).await
    }

    /// Gives every lease its full time on the target.
    pub(super) async fn renew_all(&mut self) -> Result<Kept, MigrateError> {
        let all: Vec<_> = self.known.keys().copied().collect();
        self.renew(&all).await
    }

    async fn renew(&mut self, leases: &[LeaseId]) -> Result<Kept, MigrateError> {
        let mut kept = Kept::All;
        for (lease, found) in self.each(leases, renew_one).await? {
            if found == Found::LostOnTarget {
                kept = Kept::SomeLost;
            }
            self.note(lease, found);
        }
        Ok(kept)
    }

    fn note(&mut self, lease: LeaseId, found: Found) {
        match found {
            Found::Kept(time) => {
                self.known.insert(lease, Instant::now() + (time / 3).max(SHORTEST));
            }
            Found::Ended | Found::LostOnTarget => {
                self.known.remove(&lease);
            }
        }
    }

    /// Asks about many leases at once, so many at a time.
    async fn each<F>(
        &self,
        leases: &[LeaseId],
        ask: fn(EtcdClient, EtcdClient, LeaseId) -> F,
    ) -> Result<Vec<(LeaseId, Found)>, MigrateError>
    where
        F: Future<Output = Result<Found, MigrateError>> + Send + 'static,
    {
        let mut all = Vec::new();
        for some in leases.chunks(AT_ONCE) {
            let mut asked = JoinSet::new();
            for &lease in some {
                let found = ask(self.source.clone(), self.target.clone(), lease);
                asked.spawn(async move { (lease, found.await) });
            }
            for (lease, found) in asked.join_all().await {
                all.push((lease, found?));
            }
        }
        Ok(all)
    }
}

async fn make_one(
    source: EtcdClient,
    target: EtcdClient,
    lease: LeaseId,
) -> Result<Found, MigrateError> {
    let time = source.lease_time(lease).await.map_err(MigrateError::Source)?;
    let Some(time) = time else { return Ok(Found::Ended) };
    let granted = target.grant_lease(lease, time.granted).await;
    Ok(Found::Kept(granted.map_err(MigrateError::Target)?))
}

async fn renew_one(
    source: EtcdClient,
    target: EtcdClient,
    lease: LeaseId,
) -> Result<Found, MigrateError> {
    match source.lease_time(lease).await {
        Ok(None) => return Ok(Found::Ended),
        Ok(Some(_)) => {}
        // Nobody can say, and what the owner renews when the source is back must not be gone by then.
        Err(err) if err.is_unavailable() => {}
        Err(err) => return Err(MigrateError::Source(err)),
    }
    let renewed = target.renew_lease(lease).await.map_err(MigrateError::Target)?;
    Ok(renewed.map_or(Found::LostOnTarget, Found::Kept))
}

const AT_ONCE: usize = 64;
/// A lease of a second or two is looked after this often.
const SHORTEST: Duration = Duration::from_millis(300);
