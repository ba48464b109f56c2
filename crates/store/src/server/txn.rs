//! What a request does to the keys, and what etcd would answer.
//!
//! Whatever may be refused is refused before the first change ([`check`]), so a request is done whole or
//! not at all.

pub(super) mod check;

use std::sync::Arc;

use super::{
    mvcc::{KeyRange, Mvcc, MvccError, WriteTxn},
    state::Refused,
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

/// A transaction whose comparisons are decided: they all look at the store as it was before.
#[derive(Debug)]
pub(super) struct Plan {
    succeeded: bool,
    steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum Step {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(Plan),
}

impl Plan {
    pub(super) fn new(mvcc: &Mvcc, request: TxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(mvcc, compare));
        let branch = if succeeded { request.success } else { request.failure };
        let steps = branch.into_iter().filter_map(|op| Step::new(mvcc, op)).collect();
        Self { succeeded, steps }
    }

    /// Looks at every step, those of transactions within included.
    pub(super) fn each<E>(&self, look: &mut impl FnMut(&Step) -> Result<(), E>) -> Result<(), E> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Txn(nested) => nested.each(look),
            step => look(step),
        })
    }

    pub(super) fn run(self, txn: &mut WriteTxn<'_>) -> TxnResponse {
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
            Self::Txn(plan) => {
                let mut answer = plan.run(txn);
                // There, and empty (as etcd).
                answer.header = Some(super::grpc::bare_header(Revision::ZERO));
                Response::ResponseTxn(answer)
            }
        }
    }
}

pub(super) fn put(txn: &mut WriteTxn<'_>, request: PutRequest) -> PutResponse {
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

pub(super) fn delete(txn: &mut WriteTxn<'_>, request: DeleteRangeRequest) -> DeleteRangeResponse {
    let gone = txn.delete(&KeyRange::from_wire(request.key, request.range_end));
    let told = gone.iter().filter(|_| request.prev_kv);
    DeleteRangeResponse {
        header: None,
        deleted: count(gone.len()),
        prev_kvs: told.map(|kv| to_wire(kv)).collect(),
    }
}

pub(super) fn range(mvcc: &Mvcc, request: &RangeRequest) -> Result<RangeResponse, MvccError> {
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
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
    // Without an order only the first keys are looked at, and one more, before they are sorted (as etcd).
    if request.sort_order() == SortOrder::None && !filters(request) {
        kept.truncate(limit.map_or(usize::MAX, |limit| limit.saturating_add(1)));
    }
    sort(&mut kept, request);
    let more = limit.is_some_and(|limit| kept.len() > limit);
    kept.truncate(limit.unwrap_or(usize::MAX));
    let kvs = kept.into_iter().map(|kv| shown(kv, request)).collect();
    Ok(RangeResponse { header: None, kvs, more, count: total })
}

fn filters(request: &RangeRequest) -> bool {
    let bounds = [request.min_mod_revision, request.max_mod_revision];
    let created = [request.min_create_revision, request.max_create_revision];
    bounds.into_iter().chain(created).any(|bound| bound != 0)
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

/// Sorts what comes sorted by key. Equal ones stay in the order of their keys, whichever way round.
fn sort(kvs: &mut [&Arc<KeyValue>], request: &RangeRequest) {
    let compare = |a: &KeyValue, b: &KeyValue| match request.sort_target() {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.created.cmp(&b.created),
        SortTarget::Mod => a.modified.cmp(&b.modified),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    match (request.sort_order(), request.sort_target()) {
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
        (SortOrder::None | SortOrder::Ascend, _) => kvs.sort_by(|a, b| compare(a, b)),
        (SortOrder::Descend, _) => kvs.sort_by(|a, b| compare(b, a)),
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
