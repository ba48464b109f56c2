//! Keys, their values and their history: pure, without clock, socket or thread.
//!
//! Every write transaction that changes something makes one [`Commit`] with the next revision, and
//! the commits since the last compaction are kept, one per revision without a gap. They are what
//! watchers read. Each key carries its versions since then, so that an older revision can be read
//! (etcd API: KV). Compaction forgets what etcd forgets: of the compacted revision itself the values
//! remain that are still there, without what was before them.

mod image;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::record::{self, Op};
use crate::contract::{KeyValue, LeaseId, Revision};

/// The keys of a store, now and back to the last compaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mvcc {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Commits from the compacted revision to the newest.
    log: VecDeque<Arc<Commit>>,
    revision: Revision,
    compacted: Revision,
    /// Keys and values that are held, history included.
    bytes: u64,
}

/// What a key was from one revision on: `None`, not there.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    from: Revision,
    /// The position in the transaction of that revision.
    sub: u32,
    kv: Option<Arc<KeyValue>>,
}

/// All changes of one revision, in the order in which they were made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) sub: u32,
    pub(crate) what: What,
    /// What was there before the transaction.
    pub(crate) prev: Option<Arc<KeyValue>>,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Put(Arc<KeyValue>),
    Delete(Vec<u8>),
}

/// A range as requests name it (etcd API: `key`, `range_end`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyRange {
    One(Vec<u8>),
    /// From this key to the end.
    From(Vec<u8>),
    /// From the first to before the second; empty when they are the wrong way round.
    Span(Vec<u8>, Vec<u8>),
}

/// Why a revision cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MvccError {
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted(Revision),
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
}

impl Mvcc {
    /// Creates an empty store. Its revision is 1, as an empty etcd's is.
    pub(crate) fn new() -> Self {
        let revision = Revision::new(1);
        let (keys, log, compacted) = Default::default();
        Self { keys, log, revision, compacted, bytes: 0 }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many keys there are, those included that only history knows.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Returns the revisions of history that are kept.
    pub(crate) fn history(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap_or(u64::MAX)
    }

    /// Returns a key as it is now.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<KeyValue>> {
        self.keys.get(key)?.last()?.kv.as_ref()
    }

    /// Returns what a range holds now, sorted by key.
    pub(crate) fn now<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = &'a Arc<KeyValue>> + use<'a> {
        self.versions(range).filter_map(|versions| versions.last()?.kv.as_ref())
    }

    /// Returns what a range held at a revision, sorted by key.
    pub(crate) fn at<'a>(
        &'a self,
        range: &KeyRange,
        revision: Revision,
    ) -> Result<impl Iterator<Item = &'a Arc<KeyValue>> + use<'a>, MvccError> {
        self.check_readable(revision)?;
        Ok(self.versions(range).filter_map(move |versions| {
            let seen = versions.partition_point(|version| version.from <= revision);
            versions.get(seen.checked_sub(1)?)?.kv.as_ref()
        }))
    }

    /// Tells whether a revision can be read: the compacted one still can.
    pub(crate) fn check_readable(&self, revision: Revision) -> Result<(), MvccError> {
        if revision > self.revision {
            Err(MvccError::Future)
        } else if revision < self.compacted {
            Err(MvccError::Compacted(self.compacted))
        } else {
            Ok(())
        }
    }

    /// Returns up to `limit` commits from a revision on; none when it is still to come.
    pub(crate) fn since(
        &self,
        from: Revision,
        limit: usize,
    ) -> Result<Vec<Arc<Commit>>, MvccError> {
        if from < self.compacted {
            return Err(MvccError::Compacted(self.compacted));
        }
        let start = self.log.partition_point(|commit| commit.revision < from);
        Ok(self.log.iter().skip(start).take(limit).cloned().collect())
    }

    /// Runs a write transaction and commits it. The transaction cannot fail half way: whatever may
    /// be refused is checked before.
    pub(crate) fn write<R>(
        &mut self,
        work: impl FnOnce(&mut WriteTxn<'_>) -> R,
    ) -> (R, Option<Written>) {
        let revision = self.revision.next();
        let (changes, before, ops) = Default::default();
        let mut txn = WriteTxn { mvcc: self, revision, changes, before, ops };
        let result = work(&mut txn);
        let (mut changes, ops) = (txn.changes, txn.ops);
        if changes.is_empty() {
            return (result, None);
        }
        // Kept for long, and mostly of one change: the room for three more was a seventh of all memory.
        changes.shrink_to_fit();
        let commit = Arc::new(Commit { revision, changes });
        self.revision = revision;
        self.log.push_back(Arc::clone(&commit));
        (result, Some(Written { commit, ops }))
    }

    /// Forgets the history before `revision`, which itself stays readable.
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<(), MvccError> {
        if revision > self.revision {
            return Err(MvccError::Future);
        }
        if revision <= self.compacted {
            return Err(MvccError::Compacted(self.compacted));
        }
        self.compacted = revision;
        // A superseded version has a later commit of its key in the log, so only the keys of the
        // commits that go, and of the compacted revision itself, can have anything to drop.
        while let Some(oldest) = self.log.front().filter(|commit| commit.revision <= revision) {
            let oldest = Arc::clone(oldest);
            for change in &oldest.changes {
                self.trim(change.key());
            }
            self.log.pop_front();
            if oldest.revision == revision {
                if let Some(remains) = self.remains_of(&oldest) {
                    self.log.push_front(remains);
                }
                break;
            }
        }
        Ok(())
    }

    /// Returns what etcd still tells of the compacted revision: the values that it shows.
    fn remains_of(&self, oldest: &Commit) -> Option<Arc<Commit>> {
        let shown = |change: &&Change| match &change.what {
            What::Put(kv) => self.shows_at(&kv.key, oldest.revision),
            What::Delete(_) => false,
        };
        let kept = oldest.changes.iter().filter(shown);
        let changes: Vec<_> = kept.map(|one| Change { prev: None, ..one.clone() }).collect();
        let remains = Commit { revision: oldest.revision, changes };
        (!remains.changes.is_empty()).then(|| Arc::new(remains))
    }

    /// Whether a key has a version of exactly this revision.
    fn shows_at(&self, key: &[u8], revision: Revision) -> bool {
        let versions = self.keys.get(key);
        versions.is_some_and(|versions| versions.iter().any(|version| version.from == revision))
    }

    /// Drops the versions of a key that no readable revision shows.
    fn trim(&mut self, key: &[u8]) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let past = versions.partition_point(|version| version.from <= self.compacted);
        // The newest of the past is still shown, unless it shows that nothing is there.
        let shows = past.checked_sub(1).and_then(|newest| versions.get(newest)?.kv.as_ref());
        let gone = past - usize::from(shows.is_some());
        let dropped: u64 = versions.drain(..gone).map(|old| old.bytes()).sum();
        self.bytes = self.bytes.saturating_sub(dropped);
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }

    fn add(&mut self, key: &[u8], version: Version) {
        self.bytes = self.bytes.saturating_add(version.bytes());
        match self.keys.get_mut(key) {
            Some(versions) => versions.push(version),
            None => drop(self.keys.insert(key.to_vec(), vec![version])),
        }
    }

    fn versions<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = &'a Vec<Version>> + use<'a> {
        self.keys.range::<[u8], _>(range.bounds()).map(|(_, versions)| versions)
    }
}

/// A transaction at work: reads see its own writes.
#[derive(Debug)]
pub(crate) struct WriteTxn<'a> {
    mvcc: &'a mut Mvcc,
    revision: Revision,
    changes: Vec<Change>,
    before: Before,
    ops: Vec<Op>,
}

/// What a transaction changed, for watchers, and how, for the journal.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) commit: Arc<Commit>,
    pub(crate) ops: Vec<Op>,
}

impl WriteTxn<'_> {
    /// Returns the keys as this transaction sees them.
    pub(crate) fn view(&self) -> &Mvcc {
        self.mvcc
    }

    /// Returns the revision that readers of this transaction's own answers are told.
    pub(crate) fn revision(&self) -> Revision {
        if self.changes.is_empty() { self.mvcc.revision } else { self.revision }
    }

    /// Writes a key and returns what was there.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        lease: Option<LeaseId>,
    ) -> Option<Arc<KeyValue>> {
        self.before.note(&self.changes);
        let prev = self.mvcc.get(key).cloned();
        let (created, version) = match &prev {
            Some(prev) => (prev.created, prev.version.saturating_add(1)),
            None => (self.revision, 1),
        };
        let modified = self.revision;
        let same = prev.as_ref().is_some_and(|prev| prev.value == value);
        self.ops.push(if same { Op::again(key, lease) } else { Op::put(key, &value, lease) });
        let kv = Arc::new(KeyValue { key: key.to_vec(), value, created, modified, version, lease });
        self.record(What::Put(kv), prev.clone());
        prev
    }

    /// Deletes what a range holds and returns it.
    pub(crate) fn delete(&mut self, range: &KeyRange) -> Vec<Arc<KeyValue>> {
        self.before.note(&self.changes);
        let gone: Vec<_> = self.mvcc.now(range).cloned().collect();
        if !gone.is_empty() {
            self.ops.push(Op::delete(range));
        }
        for kv in &gone {
            self.record(What::Delete(kv.key.clone()), Some(Arc::clone(kv)));
        }
        gone
    }

    /// Does again what a record says.
    pub(crate) fn redo(&mut self, change: record::Change) {
        match change {
            record::Change::Put { key, value, lease } => drop(self.put(&key, value, lease)),
            record::Change::Again { key, lease } => {
                let value = self.view().get(&key).map(|kv| kv.value.clone());
                drop(self.put(&key, value.unwrap_or_default(), lease));
            }
            record::Change::Delete(range) => drop(self.delete(&range)),
        }
    }

    fn record(&mut self, what: What, prev: Option<Arc<KeyValue>>) {
        let sub = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        let kv = what.kv().cloned();
        let prev = self.before.prev(&self.changes, what.key(), prev);
        self.mvcc.add(what.key(), Version { from: self.revision, sub, kv });
        self.changes.push(Change { sub, what, prev });
    }
}

/// What keys were before a transaction that has changed them already: the same key can be written twice
/// in one revision, when one of the two is a deletion.
#[derive(Debug, Default)]
struct Before {
    first: BTreeMap<Vec<u8>, usize>,
    seen: usize,
}

impl Before {
    /// Takes note of the changes so far. Not within one deletion, which meets no key twice.
    fn note(&mut self, changes: &[Change]) {
        for (at, change) in changes.iter().enumerate().skip(self.seen) {
            self.first.entry(change.key().to_vec()).or_insert(at);
        }
        self.seen = changes.len();
    }

    /// Returns what the key was before the transaction, which is now `prev`.
    fn prev(
        &self,
        changes: &[Change],
        key: &[u8],
        prev: Option<Arc<KeyValue>>,
    ) -> Option<Arc<KeyValue>> {
        match self.first.get(key).and_then(|at| changes.get(*at)) {
            Some(first) => first.prev.clone(),
            None => prev,
        }
    }
}

impl Version {
    /// Returns about what it costs to hold; a tombstone is not free either.
    fn bytes(&self) -> u64 {
        let held = self.kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
        u64::try_from(held + OVERHEAD).unwrap_or(u64::MAX)
    }
}

impl Change {
    pub(crate) fn key(&self) -> &[u8] {
        self.what.key()
    }
}

impl What {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete(key) => key,
        }
    }

    /// Returns the value, unless this is the key's end.
    pub(crate) fn kv(&self) -> Option<&Arc<KeyValue>> {
        match self {
            Self::Put(kv) => Some(kv),
            Self::Delete(_) => None,
        }
    }
}

impl Commit {
    /// Returns about what it takes to tell it.
    pub(crate) fn bytes(&self) -> usize {
        let sizes = self.changes.iter().map(|change| match &change.what {
            What::Put(kv) => kv.key.len() + kv.value.len(),
            What::Delete(key) => key.len(),
        });
        sizes.sum::<usize>() + self.changes.len() * OVERHEAD
    }
}

impl KeyRange {
    /// Every key there can be.
    pub(crate) const ALL: Self = Self::From(Vec::new());

    /// Reads the wire's form: no end is one key, an end of one zero byte is everything from the key.
    pub(crate) fn from_wire(key: Vec<u8>, range_end: Vec<u8>) -> Self {
        match range_end.as_slice() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Span(key, range_end),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::From(start) => start.as_slice() <= key,
            Self::Span(start, end) => start.as_slice() <= key && key < end.as_slice(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Span(start, end) if start >= end)
    }

    /// Returns the wire's form (etcd API: `key`, `range_end`).
    pub(crate) fn to_wire(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::One(key) => (key.clone(), Vec::new()),
            Self::From(start) => (start.clone(), vec![0]),
            Self::Span(start, end) => (start.clone(), end.clone()),
        }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        match self {
            Self::One(key) => (Bound::Included(key), Bound::Included(key)),
            Self::From(start) => (Bound::Included(start), Bound::Unbounded),
            // A map's range panics when start is above end.
            Self::Span(start, end) if start > end => {
                (Bound::Included(start), Bound::Excluded(start))
            }
            Self::Span(start, end) => (Bound::Included(start), Bound::Excluded(end)),
        }
    }
}

/// Bytes counted for each version beside its key and value.
const OVERHEAD: usize = 160;

#[cfg(test)]
mod tests;
