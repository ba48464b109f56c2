//! What can be refused before anything is changed.

use std::collections::BTreeSet;

use super::Refused;
use crate::{
    contract::Revision,
    proto::etcdserverpb::{
        PutRequest, RangeRequest, RequestOp, TxnRequest,
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
    let puts = !Writes::of(&request.success)?.puts.is_empty()
        || !Writes::of(&request.failure)?.puts.is_empty();
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

/// The keys that a branch may write. None may be written twice in one revision.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Vec<u8>>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn of(ops: &[RequestOp]) -> Result<Self, Refused> {
        let mut writes = Self::default();
        for op in ops {
            match &op.request {
                Some(Request::RequestPut(put)) => {
                    let key = put.key.clone();
                    writes.add(Self { puts: [key].into(), deletes: Vec::new() })?;
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    let range = KeyRange::from_wire(delete.key.clone(), delete.range_end.clone());
                    writes.add(Self { puts: BTreeSet::new(), deletes: vec![range] })?;
                }
                Some(Request::RequestTxn(nested)) => {
                    // One of the two is done, so they may write the same.
                    let mut either = Self::of(&nested.success)?;
                    let other = Self::of(&nested.failure)?;
                    either.puts.extend(other.puts);
                    either.deletes.extend(other.deletes);
                    writes.add(either)?;
                }
                Some(Request::RequestRange(_)) | None => {}
            }
        }
        Ok(writes)
    }

    fn add(&mut self, other: Self) -> Result<(), Refused> {
        let twice = !self.puts.is_disjoint(&other.puts)
            || covers(&self.deletes, &other.puts)
            || covers(&other.deletes, &self.puts);
        if twice {
            return Err(Refused::DuplicateKey);
        }
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        Ok(())
    }
}

fn covers(ranges: &[KeyRange], keys: &BTreeSet<Vec<u8>>) -> bool {
    keys.iter().any(|key| ranges.iter().any(|range| range.contains(key)))
}

/// How many full lists of operations a transaction and those within it may have together.
const MAX_NESTED: usize = 16;
