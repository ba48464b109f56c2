//! Random calls out of a small world: few keys with prefixes in common, few leases, revisions near now.

use russet_store::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, compare::TargetUnion, request_op::Request,
};

use super::sides::Answer;

#[derive(Clone, Debug)]
pub(super) enum Call {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases(LeaseLeasesRequest),
    KeepAlive(i64),
    CreateWatch(WatchCreateRequest),
    CancelWatch(i64),
    /// A lease of this number runs out.
    Expire(i64),
    /// Both servers are stopped and started.
    Restart,
}

impl Call {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Put(_) => "put",
            Self::Delete(_) => "delete",
            Self::Txn(_) => "txn",
            Self::Compact(_) => "compact",
            Self::Grant(_) => "grant",
            Self::Revoke(_) => "revoke",
            Self::TimeToLive(_) => "time to live",
            Self::Leases(_) => "leases",
            Self::KeepAlive(_) => "keep alive",
            Self::CreateWatch(_) => "watch",
            Self::CancelWatch(_) => "cancel",
            Self::Expire(_) => "expire",
            Self::Restart => "restart",
        }
    }

    /// A lease that will run out, with keys.
    pub(super) fn short_lease(id: i64) -> Vec<Self> {
        let put = |key: &[u8]| {
            Self::Put(PutRequest { key: key.to_vec(), lease: id, ..PutRequest::default() })
        };
        vec![
            Self::Revoke(LeaseRevokeRequest { id }),
            Self::Grant(LeaseGrantRequest { id, ttl: 1 }),
            put(b"expires"),
            put(b"a"),
            put(b"ab"),
        ]
    }

    /// Something that one who is behind is told.
    pub(super) fn probe() -> Self {
        let key = super::watches::PROBE_KEY.to_vec();
        Self::Put(PutRequest { key, ..PutRequest::default() })
    }

    pub(super) fn everything() -> Self {
        let (key, range_end) = (vec![0], vec![0]);
        Self::Range(RangeRequest { key, range_end, ..RangeRequest::default() })
    }
}

/// Makes calls out of a seed and of what it learnt.
pub(super) struct Generator {
    random: u64,
    revision: i64,
    watch_id: i64,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1);
        Self { random, revision: 1, watch_id: 0 }
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn learn(&mut self, answer: &Answer) {
        if let Answer::Told(revision, _) = answer {
            self.revision = self.revision.max(*revision);
        }
    }

    pub(super) fn next_call(&mut self) -> Call {
        match self.below(10_000) {
            0 => Call::Restart,
            1..4 => Call::Expire(self.lease()),
            4..60 => Call::Compact(self.compaction()),
            60..250 => Call::CreateWatch(self.watch()),
            250..350 => Call::CancelWatch(self.watch_number()),
            350..1_000 => Call::Grant(LeaseGrantRequest { id: self.lease(), ttl: self.ttl() }),
            1_000..1_200 => Call::Revoke(LeaseRevokeRequest { id: self.lease_or_none() }),
            1_200..1_400 => {
                let keys = self.chance(2);
                Call::TimeToLive(LeaseTimeToLiveRequest { id: self.lease_or_none(), keys })
            }
            1_400..1_500 => Call::Leases(LeaseLeasesRequest {}),
            1_500..1_600 => Call::KeepAlive(self.lease_or_none()),
            1_600..4_000 => Call::Range(self.range()),
            4_000..7_000 => Call::Put(self.put()),
            7_000..8_000 => Call::Delete(self.delete()),
            _ => Call::Txn(self.txn(2)),
        }
    }

    /// Never of revision zero, which etcd accepts once (docs/store.md).
    fn compaction(&mut self) -> CompactionRequest {
        let revision = self.revision_near();
        let revision = if revision == 0 { -1 } else { revision };
        CompactionRequest { revision, physical: true }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.key_and_end();
        let sometimes =
            |generator: &mut Self| if generator.chance(4) { generator.revision_near() } else { 0 };
        RangeRequest {
            key,
            range_end,
            limit: [0, 0, 1, 3, -1][self.pick(5)],
            revision: sometimes(self),
            sort_order: [0, 0, 1, 2][self.pick(4)],
            sort_target: [0, 1, 2, 3, 4][self.pick(5)],
            serializable: self.chance(4),
            keys_only: self.chance(5),
            count_only: self.chance(6),
            min_mod_revision: if self.chance(8) { self.revision_near() } else { 0 },
            max_mod_revision: if self.chance(8) { self.revision_near() } else { 0 },
            min_create_revision: if self.chance(8) { self.revision_near() } else { 0 },
            max_create_revision: if self.chance(8) { self.revision_near() } else { 0 },
        }
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            key: self.key(),
            value: self.value(),
            lease: if self.chance(4) { self.lease() } else { 0 },
            prev_kv: self.chance(3),
            ignore_value: self.chance(10),
            ignore_lease: self.chance(10),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.key_and_end();
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(2) }
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let list = [0, 1, 1, 2, 3][self.pick(5)];
        let mut txn = TxnRequest {
            compare: (0..self.pick(3)).map(|_| self.compare()).collect(),
            success: (0..list).map(|_| self.op(depth)).collect(),
            failure: (0..self.pick(3)).map(|_| self.op(depth)).collect(),
        };
        // etcd panics when the key was deleted a step before, for good (docs/store.md).
        if deletes(&txn) {
            keep_nothing(&mut txn);
        }
        txn
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) = self.key_and_end();
        let number = if self.chance(2) { self.revision_near() } else { self.small() };
        let (target, union) = match self.pick(5) {
            0 => (0, TargetUnion::Version(self.small())),
            1 => (1, TargetUnion::CreateRevision(number)),
            2 => (2, TargetUnion::ModRevision(number)),
            3 => (3, TargetUnion::Value(self.value())),
            _ => (4, TargetUnion::Lease(self.small())),
        };
        let target_union = (!self.chance(20)).then_some(union);
        let result = i32::try_from(self.pick(4)).unwrap();
        let range_end = if self.chance(3) { range_end } else { Vec::new() };
        Compare { result, target, key, target_union, range_end }
    }

    fn op(&mut self, depth: usize) -> RequestOp {
        let request = match self.pick(12) {
            4..7 => Some(Request::RequestRange(self.range())),
            7..10 => Some(Request::RequestDeleteRange(self.delete())),
            10 if depth > 0 => Some(Request::RequestTxn(self.txn(depth - 1))),
            11 if self.chance(10) => None,
            _ => Some(Request::RequestPut(self.put())),
        };
        RequestOp { request }
    }

    fn watch(&mut self) -> WatchCreateRequest {
        let (key, range_end) = self.key_and_end();
        let watch_id = if self.chance(10) { self.watch_number() } else { self.next_watch() };
        WatchCreateRequest {
            key,
            range_end,
            // With a negative one etcd's watcher hears nothing (docs/store.md).
            start_revision: if self.chance(2) { self.revision_near().max(0) } else { 0 },
            progress_notify: false,
            filters: match self.pick(6) {
                0 => vec![0],
                1 => vec![1],
                2 => vec![0, 1],
                _ => Vec::new(),
            },
            prev_kv: self.chance(2),
            watch_id,
            fragment: self.chance(4),
        }
    }

    /// A number of its own for each, so that etcd and ours need not number alike.
    fn next_watch(&mut self) -> i64 {
        self.watch_id += 1;
        self.watch_id
    }

    fn watch_number(&mut self) -> i64 {
        let last = u64::try_from(self.watch_id + 2).unwrap();
        i64::try_from(self.below(last)).unwrap().max(1)
    }

    fn key_and_end(&mut self) -> (Vec<u8>, Vec<u8>) {
        let key = self.key();
        let end = match self.pick(8) {
            0 => vec![0],
            1..3 => russet_store::contract::prefix_end(&key),
            3 => self.key(),
            _ => Vec::new(),
        };
        (key, end)
    }

    fn key(&mut self) -> Vec<u8> {
        // With the one that expires they are twelve: etcd's sort leaves equal ones in order up to there.
        let keys: [&[u8]; 11] =
            [b"a", b"ab", b"abc", b"b", b"b/1", b"b/2", b"c", &[0], &[0, 1], &[0xff], b"a\0"];
        // The empty key now and then.
        if self.chance(50) { Vec::new() } else { keys[self.pick(keys.len())].to_vec() }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.pick(10) {
            0..3 => Vec::new(),
            3..9 => vec![b'v', b'0' + u8::try_from(self.pick(4)).unwrap()],
            _ => vec![7; 30],
        }
    }

    fn lease(&mut self) -> i64 {
        i64::try_from(self.below(5)).unwrap() + 1
    }

    fn lease_or_none(&mut self) -> i64 {
        [0, -3, 77][self.pick(3)].max(0) + if self.chance(3) { 0 } else { self.lease() }
    }

    /// Long enough for the whole run, or not to be granted.
    fn ttl(&mut self) -> i64 {
        [1_000_000, 2_000_000, 9_000_000_001, 900_000][self.pick(4)]
    }

    fn small(&mut self) -> i64 {
        i64::try_from(self.below(5)).unwrap() - 1
    }

    fn revision_near(&mut self) -> i64 {
        match self.pick(12) {
            0 => self.revision + 1,
            1 => -1,
            2 => 0,
            3 => 1,
            4 => self.revision,
            5 => self.revision + 100_000_000,
            _ => self.revision - i64::try_from(self.below(60)).unwrap(),
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn pick(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).unwrap();
        usize::try_from(self.below(count)).unwrap()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // The high bits are the better ones.
        (self.random >> 16) % bound
    }
}

fn deletes(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestDeleteRange(_)) => true,
        Some(Request::RequestTxn(nested)) => deletes(nested),
        _ => false,
    })
}

/// Has no put of a transaction keep what is there.
fn keep_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => (put.ignore_value, put.ignore_lease) = (false, false),
            Some(Request::RequestTxn(nested)) => keep_nothing(nested),
            _ => {}
        }
    }
}
