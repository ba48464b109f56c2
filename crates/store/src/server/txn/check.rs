//! What can be refused before anything is changed.

use std::collections::BTreeSet;

use super::Refused;
use crate::{
    contract::Revision,
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
    },
    server::mvcc::{KeyRange, Mvcc},
};

pub(in crate::server) fn check_key(key: &[u8]) -> Result<(), Refused> {
    if key.is_empty() { Err(Refused::EmptyKey) } else { Ok(()) }
}

pub(in crate::server) fn check_range(request: &RangeRequest, mvcc: &Mvcc) -> Result<(), Refused> {
    check_range_form(request)?;
    match Revision::from_wire(request.revision) {
        Revision::ZERO => Ok(()),
        revision => Ok(mvcc.check_readable(revision)?),
    }
}

fn check_range_form(request: &RangeRequest) -> Result<(), Refused> {
    check_key(&request.key)?;
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Refused::InvalidSort) }
}

pub(in crate::server) fn check_put_form(request: &PutRequest) -> Result<(), Refused> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refused::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refused::LeaseProvided);
    }
    Ok(())
}

/// Whether a transaction may make the store larger.
#[derive(PartialEq, Eq)]
pub(in crate::server) enum Needs {
    Nothing,
    Space,
}

/// Checks what does not depend on the store, both branches.
pub(in crate::server) fn check_txn(request: &TxnRequest, max_ops: usize) -> Result<Needs, Refused> {
    // A tree of transactions is bounded as a whole too: finding duplicates is quadratic.
    check_txn_form(request, max_ops, &mut max_ops.saturating_mul(MAX_NESTED))?;
    let (success, failure) = (Writes::of(&request.success)?, Writes::of(&request.failure)?);
    let puts = !success.puts.is_empty() || !failure.puts.is_empty();
    Ok(if puts { Needs::Space } else { Needs::Nothing })
}

fn check_txn_form(request: &TxnRequest, max_ops: usize, left: &mut usize) -> Result<(), Refused> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let all = request.compare.len() + request.success.len() + request.failure.len();
    *left = left.checked_sub(all).ok_or(Refused::TooManyOps)?;
    if longest > max_ops {
        return Err(Refused::TooManyOps);
    }
    request.compare.iter().try_for_each(|compare| check_key(&compare.key))?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range_form(range)?,
            Some(Request::RequestPut(put)) => check_put_form(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_key(&delete.key)?,
            Some(Request::RequestTxn(nested)) => check_txn_form(nested, max_ops, left)?,
            // etcd answers so to an empty operation.
            None => return Err(Refused::KeyNotFound),
        }
    }
    Ok(())
}

/// The keys that a branch may write. None may be put twice in one revision, nor put and deleted.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Vec<u8>>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    /// Looks in etcd's order: what a transaction within deletes is held only against what comes after it
    /// (etcd API: `checkIntervals`).
    fn of(ops: &[RequestOp]) -> Result<Self, Refused> {
        let requests = || ops.iter().filter_map(|op| op.request.as_ref());
        let mut writes = Self::default();
        for request in requests() {
            if let Request::RequestDeleteRange(delete) = request {
                writes.deletes.push(deleted(delete));
            }
        }
        for request in requests() {
            if let Request::RequestTxn(nested) = request {
                writes.add_either(Self::of(&nested.success)?, Self::of(&nested.failure)?)?;
            }
        }
        for request in requests() {
            if let Request::RequestPut(put) = request {
                writes.add_put(put.key.clone())?;
            }
        }
        Ok(writes)
    }

    /// One of the two is done, so they may write the same.
    fn add_either(&mut self, then: Self, otherwise: Self) -> Result<(), Refused> {
        let only: Vec<_> = otherwise.puts.difference(&then.puts).cloned().collect();
        if covers(&self.deletes, &otherwise.puts) {
            return Err(Refused::DuplicateKey);
        }
        for key in then.puts.into_iter().chain(only) {
            self.add_put(key)?;
        }
        self.deletes.extend(then.deletes);
        self.deletes.extend(otherwise.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: Vec<u8>) -> Result<(), Refused> {
        let deleted = self.deletes.iter().any(|range| range.contains(&key));
        if deleted || !self.puts.insert(key) {
            return Err(Refused::DuplicateKey);
        }
        Ok(())
    }
}

/// Returns what etcd takes a deletion for when it looks for duplicates: to the end (a zero byte) is
/// nothing at all.
fn deleted(delete: &DeleteRangeRequest) -> KeyRange {
    match delete.range_end.as_slice() {
        [] => KeyRange::One(delete.key.clone()),
        end => KeyRange::Span(delete.key.clone(), end.to_vec()),
    }
}

fn covers(ranges: &[KeyRange], keys: &BTreeSet<Vec<u8>>) -> bool {
    keys.iter().any(|key| ranges.iter().any(|range| range.contains(key)))
}

/// How many full lists of operations a transaction and those within it may have together.
const MAX_NESTED: usize = 16;
