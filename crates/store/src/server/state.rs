//! All that the store knows, and every request upon it.
//!
//! A write is checked whole before its first change, so it is done whole or not at all. What it changed
//! becomes records (`record.rs`) in [`State::take_done`]: a durable store writes them down before anyone
//! has an answer, and [`State::replay`] does the same again from what was written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;

use super::{
    Limits,
    image::Image,
    lease::{GrantError, LeaseStatus, Leases},
    mvcc::{Commit, KeyRange, Mvcc, MvccError, What, WriteTxn, Written},
    record::{self, Record},
    txn::{
        self, Plan, Step,
        check::{Needs, check_key, check_put_form, check_range, check_txn},
    },
};
use crate::{
    contract::{LeaseId, Revision},
    proto::etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, TxnRequest, TxnResponse,
    },
};

/// All that the store knows. Owned by one task.
#[derive(Debug)]
pub(crate) struct State {
    cluster: u64,
    member: u64,
    mvcc: Mvcc,
    leases: Leases,
    limits: Limits,
    disk: Disk,
    done: Done,
}

/// What was done since it was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Records for the journal.
    pub(crate) payload: Vec<u8>,
    /// News for watchers.
    pub(crate) commits: Vec<Arc<Commit>>,
}

/// Whether the disk takes more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disk {
    #[default]
    Room,
    /// Only what makes the store smaller.
    Full,
    /// Nothing at all.
    Exhausted,
}

/// Why a request is refused. The texts are etcd's: clients compare them (etcd API: `rpctypes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: invalid sort option")]
    InvalidSort,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: too many leases")]
    TooManyLeases,
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Mvcc(#[from] MvccError),
}

/// An answer and the revision of its header.
pub(crate) type Answer<R> = Result<(R, Revision), Refused>;

impl State {
    /// Starts from an image; every lease has its full time.
    ///
    /// # Errors
    ///
    /// When the image contradicts itself.
    pub(crate) fn new(image: Image, limits: Limits, now: Instant) -> Result<Self, String> {
        let mut leases = Leases::default();
        for (id, ttl) in &image.leases {
            let ttl_s = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
            leases.grant(*id, ttl_s, now).map_err(|err| format!("lease {id}: {err}"))?;
        }
        let (cluster, member) = (image.cluster, image.member);
        let mvcc = Mvcc::load(image)?;
        for kv in mvcc.now(&KeyRange::ALL) {
            if let Some(lease) = kv.lease {
                leases.attach(lease, &kv.key);
            }
        }
        let (disk, done) = Default::default();
        Ok(Self { cluster, member, mvcc, leases, limits, disk, done })
    }

    /// Does again what was written down.
    ///
    /// # Errors
    ///
    /// When it does not follow from what is there: the file holds something else than what was written.
    pub(crate) fn replay(&mut self, record: Record, now: Instant) -> Result<(), String> {
        match record {
            Record::Commit { revision, ops } => {
                let ((), made) = self.write(|txn| ops.into_iter().for_each(|op| txn.redo(op)));
                expect("transaction", revision, made)
            }
            Record::Grant { lease, ttl } => {
                let ttl_s = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
                let granted = self.leases.grant(lease, ttl_s, now);
                granted.map(drop).map_err(|err| format!("lease {lease}: {err}"))
            }
            Record::Revoke { lease, revision } => {
                let made = self.revoke(lease).map_err(|err| format!("lease {lease}: {err}"))?;
                expect("revocation", revision, made)
            }
            Record::Compact { revision } => {
                let done = self.mvcc.compact(revision);
                done.map_err(|err| format!("compact {revision}: {err}"))
            }
            Record::Base { .. } | Record::Version(_) => {
                Err("a part of the store's beginning comes after it".to_owned())
            }
        }
    }

    /// Gives every lease its full time, after a replay.
    pub(crate) fn restart_leases(&mut self, now: Instant) {
        for id in self.leases.ids().collect::<Vec<_>>() {
            self.leases.renew(id, now);
        }
        self.done = Done::default();
    }

    /// Returns all that is held, as it is now.
    pub(crate) fn image(&self) -> Image {
        Image {
            cluster: self.cluster,
            member: self.member,
            revision: self.mvcc.revision(),
            compacted: self.mvcc.compacted(),
            versions: self.mvcc.image_versions(),
            leases: self.leases.granted().collect(),
        }
    }

    /// Returns what was done since the last time.
    pub(crate) fn take_done(&mut self) -> Done {
        std::mem::take(&mut self.done)
    }

    /// Says whether what makes the store larger is to be refused because the disk is full.
    pub(crate) fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
    }

    pub(crate) fn disk(&self) -> Disk {
        self.disk
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.cluster
    }

    pub(crate) fn member(&self) -> u64 {
        self.member
    }

    pub(crate) fn revision(&self) -> Revision {
        self.mvcc.revision()
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.mvcc.compacted()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.mvcc.bytes()
    }

    pub(crate) fn keys(&self) -> usize {
        self.mvcc.keys()
    }

    /// Whether puts are refused: by the limit, or because the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        self.check_space().is_err()
    }

    /// Returns commits from a revision on, and the newest revision.
    pub(crate) fn since(
        &self,
        from: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Commit>>, Revision), MvccError> {
        Ok((self.mvcc.since(from, limit)?, self.mvcc.revision()))
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Answer<RangeResponse> {
        check_range(request, &self.mvcc)?;
        Ok((txn::range(&self.mvcc, request)?, self.mvcc.revision()))
    }

    pub(crate) fn put(&mut self, request: PutRequest) -> Answer<PutResponse> {
        self.check_size(&request)?;
        self.check_space()?;
        // Alone it is checked in the other order (as etcd).
        check_put_form(&request)?;
        self.check_lease(&request)?;
        self.check_kept(&request)?;
        Ok(self.write(|txn| txn::put(txn, request)))
    }

    pub(crate) fn delete(&mut self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
        self.check_disk()?;
        check_key(&request.key)?;
        Ok(self.write(|txn| txn::delete(txn, request)))
    }

    pub(crate) fn txn(&mut self, request: TxnRequest) -> Answer<TxnResponse> {
        self.check_size(&request)?;
        self.check_disk()?;
        if check_txn(&request, self.limits.txn_ops)? == Needs::Space {
            self.check_space()?;
        }
        let plan = Plan::new(&self.mvcc, request);
        self.check_plan(&plan)?;
        Ok(self.write(|txn| plan.run(txn)))
    }

    pub(crate) fn compact(&mut self, revision: Revision) -> Result<Revision, Refused> {
        self.check_disk()?;
        self.mvcc.compact(revision)?;
        record::compact(revision, &mut self.done.payload);
        Ok(self.mvcc.revision())
    }

    pub(crate) fn grant(
        &mut self,
        id: LeaseId,
        ttl_s: i64,
        now: Instant,
    ) -> Result<Duration, Refused> {
        if self.leases.len() >= self.limits.leases {
            return Err(Refused::TooManyLeases);
        }
        self.check_space()?;
        let ttl = self.leases.grant(id, ttl_s, now)?;
        record::grant(id, ttl, &mut self.done.payload);
        Ok(ttl)
    }

    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Duration> {
        self.leases.renew(id, now)
    }

    pub(crate) fn lease_status(&self, id: LeaseId, now: Instant) -> Option<LeaseStatus> {
        self.leases.status(id, now)
    }

    pub(crate) fn leases(&self) -> Vec<LeaseId> {
        self.leases.ids().collect()
    }

    /// Ends a lease and deletes its keys, in one revision.
    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<Revision, Refused> {
        self.check_disk()?;
        let keys = self.leases.end(id).ok_or(Refused::LeaseNotFound)?;
        let ((), written) = self.mvcc.write(|txn| {
            for key in keys {
                txn.delete(&KeyRange::One(key));
            }
        });
        // Written down as one record: the lease cannot end without its keys.
        record::revoke(id, self.mvcc.revision(), &mut self.done.payload);
        if let Some(Written { commit, .. }) = written {
            self.committed(commit);
        }
        Ok(self.mvcc.revision())
    }

    /// Ends every lease whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        for id in self.leases.due(now) {
            // It was listed a moment ago and nobody else is here.
            let _ = self.revoke(id);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.leases.next_deadline()
    }

    fn write<R>(&mut self, work: impl FnOnce(&mut WriteTxn<'_>) -> R) -> (R, Revision) {
        let (result, written) = self.mvcc.write(work);
        if let Some(Written { commit, ops }) = written {
            record::commit(commit.revision, ops, &mut self.done.payload);
            self.committed(commit);
        }
        (result, self.mvcc.revision())
    }

    /// Takes note of a new revision. Everything that outlives the request starts here.
    fn committed(&mut self, commit: Arc<Commit>) {
        // Leases that keys were given within the transaction itself, and may lose there again.
        let mut given: Vec<(&[u8], LeaseId)> = Vec::new();
        for change in &commit.changes {
            let key = change.key();
            let before = change.prev.as_ref().and_then(|prev| prev.lease);
            let within = given.iter().filter(|(given, _)| *given == key).map(|(_, lease)| *lease);
            for lease in before.into_iter().chain(within) {
                self.leases.detach(lease, key);
            }
            if let What::Put(kv) = &change.what
                && let Some(lease) = kv.lease
            {
                self.leases.attach(lease, key);
                given.push((key, lease));
            }
        }
        self.done.commits.push(commit);
    }

    /// Compacts the older half of the history when it is too long, or when the store would otherwise
    /// be full of it.
    pub(crate) fn forget_history(&mut self) {
        if self.disk == Disk::Exhausted {
            return;
        }
        let kept = self.mvcc.history();
        let crowded = self.mvcc.bytes() > self.limits.store_bytes / 4 * 3;
        if kept > 1 && (crowded || kept > self.limits.history) {
            let newest = self.mvcc.revision().get();
            // Refused only when that is compacted already.
            let _ = self.compact(Revision::new(newest.saturating_sub(kept / 2)));
        }
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Refused> {
        if request.encoded_len() > self.limits.request_bytes {
            return Err(Refused::TooLarge);
        }
        Ok(())
    }

    /// A full store still deletes, reads and compacts (as etcd).
    fn check_space(&self) -> Result<(), Refused> {
        if self.disk == Disk::Full || self.mvcc.bytes() > self.limits.store_bytes {
            return Err(Refused::NoSpace);
        }
        Ok(())
    }

    /// Some room is kept for what makes the store smaller; when that is used up, nothing goes on.
    fn check_disk(&self) -> Result<(), Refused> {
        if self.disk == Disk::Exhausted { Err(Refused::NoSpace) } else { Ok(()) }
    }

    /// All puts are checked, then all ranges (as etcd).
    fn check_plan(&self, plan: &Plan) -> Result<(), Refused> {
        let mut deleted: Vec<KeyRange> = Vec::new();
        plan.each(&mut |step| match step {
            Step::Put(request) => {
                self.check_put(request)?;
                // What an earlier step deletes is not there to be kept. etcd does not look, does the first
                // half, and panics; then again at each start.
                let gone = deleted.iter().any(|range| range.contains(&request.key));
                if keeps(request) && gone { Err(Refused::KeyNotFound) } else { Ok(()) }
            }
            Step::Delete(request) => {
                let (key, end) = (request.key.clone(), request.range_end.clone());
                deleted.push(KeyRange::from_wire(key, end));
                Ok(())
            }
            _ => Ok(()),
        })?;
        plan.each(&mut |step| match step {
            Step::Range(request) => self.check_range_within(request),
            _ => Ok(()),
        })
    }

    /// Within a transaction a negative revision is one before the beginning, elsewhere it is now (as etcd,
    /// which counts the beginning as -1 until something is compacted).
    fn check_range_within(&self, request: &RangeRequest) -> Result<(), Refused> {
        let compacted = self.mvcc.compacted();
        let first = if compacted == Revision::ZERO { -1 } else { compacted.to_wire() };
        if request.revision != 0 && request.revision < first {
            return Err(MvccError::Compacted(compacted).into());
        }
        check_range(request, &self.mvcc)
    }

    /// Checks a put of a transaction: the key, then the lease (as etcd).
    fn check_put(&self, request: &PutRequest) -> Result<(), Refused> {
        check_put_form(request)?;
        self.check_kept(request)?;
        self.check_lease(request)
    }

    /// What is to be kept must be there.
    fn check_kept(&self, request: &PutRequest) -> Result<(), Refused> {
        if keeps(request) && self.mvcc.get(&request.key).is_none() {
            return Err(Refused::KeyNotFound);
        }
        Ok(())
    }

    fn check_lease(&self, request: &PutRequest) -> Result<(), Refused> {
        match LeaseId::from_wire(request.lease) {
            Some(lease) if !self.leases.contains(lease) => Err(Refused::LeaseNotFound),
            _ => Ok(()),
        }
    }
}

/// Whether a put leaves something as it is.
fn keeps(request: &PutRequest) -> bool {
    request.ignore_value || request.ignore_lease
}

fn expect(what: &str, written: Revision, made: Revision) -> Result<(), String> {
    if written == made {
        return Ok(());
    }
    Err(format!("the {what} of revision {written} leads to revision {made}"))
}

#[cfg(test)]
mod tests;
