//! Requests upon the store: what etcd would answer, or why it would refuse.
//!
//! A write is checked whole before its first change, so it is done whole or not at all. What it
//! changed leaves through [`State::committed`], the one place where a revision becomes history: a
//! durable store writes it down there, before the owner answers.

mod check;

use std::{sync::Arc, time::Instant};

use prost::Message;

use self::check::{Needs, check_key, check_put_form, check_range, check_txn};
use super::{
    Limits,
    lease::{GrantError, LeaseStatus, Leases},
    mvcc::{Commit, KeyRange, Mvcc, MvccError, What, WriteTxn},
};
use crate::{
    contract::{KeyValue, LeaseId, Revision},
    proto::{
        etcdserverpb::{
            Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
            RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
            compare::{CompareResult, CompareTarget, TargetUnion},
            range_request::{SortOrder, SortTarget},
            request_op::Request,
            response_op::Response,
        },
        mvccpb,
    },
};

/// All that the store knows. Owned by one task.
#[derive(Debug)]
pub(crate) struct State {
    mvcc: Mvcc,
    leases: Leases,
    limits: Limits,
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
    pub(crate) fn new(limits: Limits) -> Self {
        Self { mvcc: Mvcc::new(), leases: Leases::default(), limits }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.mvcc.revision()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.mvcc.bytes()
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
        Ok((range(&self.mvcc, request)?, self.mvcc.revision()))
    }

    pub(crate) fn put(&mut self, request: PutRequest) -> Answer<PutResponse> {
        self.check_size(&request)?;
        self.check_space()?;
        self.check_put(&request)?;
        Ok(self.write(|txn| put(txn, request)))
    }

    pub(crate) fn delete(&mut self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
        check_key(&request.key)?;
        Ok(self.write(|txn| delete(txn, request)))
    }

    pub(crate) fn txn(&mut self, request: TxnRequest) -> Answer<TxnResponse> {
        self.check_size(&request)?;
        if check_txn(&request, self.limits.txn_ops)? == Needs::Space {
            self.check_space()?;
        }
        let plan = Plan::new(&self.mvcc, request);
        self.check_plan(&plan)?;
        Ok(self.write(|txn| plan.run(txn)))
    }

    pub(crate) fn compact(&mut self, revision: Revision) -> Result<Revision, Refused> {
        self.mvcc.compact(revision)?;
        Ok(self.mvcc.revision())
    }

    pub(crate) fn grant(
        &mut self,
        id: LeaseId,
        ttl_s: i64,
        now: Instant,
    ) -> Result<std::time::Duration, Refused> {
        if self.leases.len() >= self.limits.leases {
            return Err(Refused::TooManyLeases);
        }
        Ok(self.leases.grant(id, ttl_s, now)?)
    }

    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<std::time::Duration> {
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
        let keys = self.leases.end(id).ok_or(Refused::LeaseNotFound)?;
        let ((), revision) = self.write(|txn| {
            for key in keys {
                txn.delete(&KeyRange::One(key));
            }
        });
        Ok(revision)
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
        let (result, commit) = self.mvcc.write(work);
        if let Some(commit) = commit {
            self.committed(&commit);
        }
        (result, self.mvcc.revision())
    }

    /// Takes note of a new revision. Everything that outlives the request starts here.
    fn committed(&mut self, commit: &Commit) {
        for change in &commit.changes {
            if let Some(lease) = change.prev.as_ref().and_then(|prev| prev.lease) {
                self.leases.detach(lease, change.key());
            }
            if let What::Put(kv) = &change.what
                && let Some(lease) = kv.lease
            {
                self.leases.attach(lease, &kv.key);
            }
        }
        self.forget_history(commit.revision);
    }

    /// Compacts the older half of the history when it is too long, or when the store would otherwise
    /// be full of it.
    fn forget_history(&mut self, newest: Revision) {
        let kept = self.mvcc.history();
        let crowded = self.mvcc.bytes() > self.limits.store_bytes / 4 * 3;
        if kept > 1 && (crowded || kept > self.limits.history) {
            // Refused only when that is compacted already.
            let _ = self.mvcc.compact(Revision::new(newest.get().saturating_sub(kept / 2)));
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
        if self.mvcc.bytes() > self.limits.store_bytes { Err(Refused::NoSpace) } else { Ok(()) }
    }

    fn check_plan(&self, plan: &Plan) -> Result<(), Refused> {
        for step in &plan.steps {
            match step {
                Step::Range(request) => check_range(request, &self.mvcc)?,
                Step::Put(request) => self.check_put(request)?,
                Step::Delete(_) => {}
                Step::Txn(nested) => self.check_plan(nested)?,
            }
        }
        Ok(())
    }

    fn check_put(&self, request: &PutRequest) -> Result<(), Refused> {
        check_put_form(request)?;
        if (request.ignore_value || request.ignore_lease) && self.mvcc.get(&request.key).is_none() {
            return Err(Refused::KeyNotFound);
        }
        match LeaseId::from_wire(request.lease) {
            Some(lease) if !self.leases.contains(lease) => Err(Refused::LeaseNotFound),
            _ => Ok(()),
        }
    }
}

/// A transaction whose comparisons are decided: they all look at the store as it was before.
#[derive(Debug)]
struct Plan {
    succeeded: bool,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(Plan),
}

impl Plan {
    fn new(mvcc: &Mvcc, request: TxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(mvcc, compare));
        let branch = if succeeded { request.success } else { request.failure };
        let steps = branch.into_iter().filter_map(|op| Step::new(mvcc, op)).collect();
        Self { succeeded, steps }
    }

    fn run(self, txn: &mut WriteTxn<'_>) -> TxnResponse {
        let succeeded = self.succeeded;
        let answers = self.steps.into_iter().map(|step| step.run(txn));
        let responses = answers.map(|answer| ResponseOp { response: Some(answer) }).collect();
        TxnResponse { header: None, succeeded, responses }
    }
}

impl Step {
    fn new(mvcc: &Mvcc, op: RequestOp) -> Option<Self> {
        Some(match op.request? {
            Request::RequestRange(request) => Self::Range(request),
            Request::RequestPut(request) => Self::Put(request),
            Request::RequestDeleteRange(request) => Self::Delete(request),
            Request::RequestTxn(request) => Self::Txn(Plan::new(mvcc, request)),
        })
    }

    fn run(self, txn: &mut WriteTxn<'_>) -> Response {
        match self {
            // It was checked; a revision that was readable then is readable now.
            Self::Range(request) => {
                let mut answer = range(txn.view(), &request).unwrap_or_default();
                answer.header = Some(super::grpc::bare_header(txn.revision()));
                Response::ResponseRange(answer)
            }
            Self::Put(request) => {
                let mut answer = put(txn, request);
                answer.header = Some(super::grpc::bare_header(txn.revision()));
                Response::ResponsePut(answer)
            }
            Self::Delete(request) => {
                let mut answer = delete(txn, request);
                answer.header = Some(super::grpc::bare_header(txn.revision()));
                Response::ResponseDeleteRange(answer)
            }
            Self::Txn(plan) => Response::ResponseTxn(plan.run(txn)),
        }
    }
}

fn put(txn: &mut WriteTxn<'_>, request: PutRequest) -> PutResponse {
    let current = txn.view().get(&request.key).cloned();
    let mut value = request.value;
    let mut lease = LeaseId::from_wire(request.lease);
    if let Some(current) = &current {
        if request.ignore_value {
            value.clone_from(&current.value);
        }
        if request.ignore_lease {
            lease = current.lease;
        }
    }
    let prev = txn.put(&request.key, value, lease);
    let prev_kv = prev.filter(|_| request.prev_kv).map(|kv| to_wire(&kv));
    PutResponse { header: None, prev_kv }
}

fn delete(txn: &mut WriteTxn<'_>, request: DeleteRangeRequest) -> DeleteRangeResponse {
    let gone = txn.delete(&KeyRange::from_wire(request.key, request.range_end));
    let told = gone.iter().filter(|_| request.prev_kv);
    DeleteRangeResponse {
        header: None,
        deleted: count(gone.len()),
        prev_kvs: told.map(|kv| to_wire(kv)).collect(),
    }
}

fn range(mvcc: &Mvcc, request: &RangeRequest) -> Result<RangeResponse, MvccError> {
    let keys = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
    let found: Vec<&Arc<KeyValue>> = match Revision::from_wire(request.revision) {
        Revision::ZERO => mvcc.now(&keys).collect(),
        revision => mvcc.at(&keys, revision)?.collect(),
    };
    // The count is of the range, whatever is filtered or left out of the answer.
    let total = count(found.len());
    if request.count_only {
        return Ok(RangeResponse { count: total, ..RangeResponse::default() });
    }
    let mut kept: Vec<_> = found.into_iter().filter(|kv| passes(kv, request)).collect();
    sort(&mut kept, request);
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    let more = limit.is_some_and(|limit| kept.len() > limit);
    kept.truncate(limit.unwrap_or(usize::MAX));
    let kvs = kept.into_iter().map(|kv| shown(kv, request)).collect();
    Ok(RangeResponse { header: None, kvs, more, count: total })
}

/// Whether a key is within the revisions that the request names (zero: no bound).
fn passes(kv: &KeyValue, request: &RangeRequest) -> bool {
    let within = |revision: Revision, min: i64, max: i64| {
        let revision = revision.to_wire();
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    within(kv.modified, request.min_mod_revision, request.max_mod_revision)
        && within(kv.created, request.min_create_revision, request.max_create_revision)
}

fn sort(kvs: &mut [&Arc<KeyValue>], request: &RangeRequest) {
    let target = request.sort_target();
    match target {
        // Ranges come sorted by key.
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.created),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.modified),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if request.sort_order() == SortOrder::Descend {
        kvs.reverse();
    }
}

fn shown(kv: &KeyValue, request: &RangeRequest) -> mvccpb::KeyValue {
    let mut wire = to_wire(kv);
    if request.keys_only {
        wire.value.clear();
    }
    wire
}

/// Decides a comparison (etcd API: `Compare`). Over a range it must hold for every key; where there
/// is none it is made with a key of all zeros, except that a missing value equals nothing.
fn holds(mvcc: &Mvcc, compare: &Compare) -> bool {
    let keys = KeyRange::from_wire(compare.key.clone(), compare.range_end.clone());
    let mut found = mvcc.now(&keys).peekable();
    if found.peek().is_none() {
        return compare.target() != CompareTarget::Value && holds_for(None, compare);
    }
    found.all(|kv| holds_for(Some(kv), compare))
}

fn holds_for(kv: Option<&KeyValue>, compare: &Compare) -> bool {
    use CompareTarget as Target;
    let number = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
    let wanted = compare.target_union.as_ref();
    let order = match compare.target() {
        Target::Value => {
            let value = kv.map_or(&[][..], |kv| &kv.value);
            value.cmp(match wanted {
                Some(TargetUnion::Value(wanted)) => wanted,
                _ => &[],
            })
        }
        Target::Version => {
            number(|kv| i64::try_from(kv.version).unwrap_or(i64::MAX)).cmp(&wanted_number(wanted))
        }
        Target::Create => number(|kv| kv.created.to_wire()).cmp(&wanted_number(wanted)),
        Target::Mod => number(|kv| kv.modified.to_wire()).cmp(&wanted_number(wanted)),
        Target::Lease => {
            number(|kv| kv.lease.map_or(0, LeaseId::to_wire)).cmp(&wanted_number(wanted))
        }
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}

fn wanted_number(wanted: Option<&TargetUnion>) -> i64 {
    match wanted {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => *number,
        Some(TargetUnion::Value(_)) | None => 0,
    }
}

pub(crate) fn to_wire(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: kv.created.to_wire(),
        mod_revision: kv.modified.to_wire(),
        version: i64::try_from(kv.version).unwrap_or(i64::MAX),
        value: kv.value.clone(),
        lease: kv.lease.map_or(0, LeaseId::to_wire),
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
