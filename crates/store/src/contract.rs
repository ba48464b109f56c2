//! The contract of the datastore: *a snapshot, then every change in order; compare-and-swap writes;
//! leases that expire*.
//!
//! These are values only. [`crate::client`] produces and consumes them; whoever receives a
//! [`WatchEvent`] needs nothing else to hold a true copy of the watched keys:
//!
//! - [`WatchEvent::Snapshot`] replaces everything: a key that it does not mention is gone.
//! - [`WatchEvent::Changes`] follow it, each key's in the order of their revisions, none twice and
//!   none left out, whatever broke in between.
//! - [`WatchEvent::Interrupted`] and [`WatchEvent::Resumed`] say whether the copy is being kept up.
//!
//! A snapshot carries the facts by which a receiver may refuse it (cluster, revision, why it was
//! taken). The judgement is the receiver's.

use std::fmt;

use crate::error::StoreError;

/// A point in the store's history: it grows by one with every transaction that changes a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first write. No store's own revision is zero.
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Reads the wire's signed form; what is negative there means nothing and becomes zero.
    #[must_use]
    pub fn from_wire(raw: i64) -> Self {
        Self(u64::try_from(raw).unwrap_or(0))
    }

    /// Returns the wire's signed form.
    #[must_use]
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease of the store: keys attached to it are deleted when it runs out. Printed in hex, as
/// `etcdctl` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(i64);

impl LeaseId {
    /// Returns `None` for zero, which on the wire means "no lease".
    #[must_use]
    pub fn from_wire(raw: i64) -> Option<Self> {
        (raw != 0).then_some(Self(raw))
    }

    #[must_use]
    pub const fn to_wire(self) -> i64 {
        self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A key with its value and its history in numbers (etcd API: `mvccpb.KeyValue`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// The revision that created the key (after its last deletion).
    pub created: Revision,
    /// The revision of the last write. What [`Expect::At`] compares.
    pub modified: Revision,
    /// The number of writes since the creation, from 1.
    pub version: u64,
    /// `None`: the key never expires.
    pub lease: Option<LeaseId>,
}

/// Who answered (etcd API: `ResponseHeader`). The cluster's number is the same on all its members
/// and tells one store from another, but two wiped etcd clusters with the same flags share it; see
/// [`crate::EtcdClient::ensure_cluster_id`] for an identity that does not survive a wipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRef {
    pub cluster: u64,
    pub member: u64,
}

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// Every key that begins with one of these, of which there must be one. What another covers is
    /// left out.
    pub prefixes: Vec<Vec<u8>>,
    /// A key whose disappearance or new creation means that the store's history is another one, so
    /// that resuming in it would be wrong even though its revision is high enough. Looked at each
    /// time the watch reconnects. The cluster's id is such a key.
    pub sentinel: Option<Vec<u8>>,
    /// How snapshots come.
    pub delivery: Delivery,
}

/// How a snapshot comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Everything at once.
    #[default]
    Whole,
    /// [`WatchEvent::Part`] by part, for a receiver that keeps little of what it is told: few of them wait at a time,
    /// however large the store is. [`WatchEvent::Snapshot`] then has the rest.
    Parts,
}

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// Some of what there is, before the [`Self::Snapshot`] that it belongs to; only with [`Delivery::Parts`].
    Part(Part),
    /// Everything there is. What is not in it is gone.
    Snapshot(Snapshot),
    /// What changed since, all of one prefix: `changes` is never empty, in order of revision, and a
    /// revision is never split over two events of a prefix.
    Changes { revision: Revision, changes: Vec<KeyChange> },
    /// The store cannot be read at present. Told once; attempts go on until [`Self::Resumed`] or
    /// [`Self::Snapshot`].
    Interrupted { cause: StoreError },
    /// The watch goes on where it stopped; nothing was lost.
    Resumed { revision: Revision },
}

/// Entries of a snapshot that is being read.
#[derive(Debug)]
pub struct Part {
    pub place: Place,
    /// Sorted by key within a prefix.
    pub entries: Vec<KeyValue>,
    /// Held until it is taken.
    pub(crate) _slot: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Part {
    /// A part that waits for nobody.
    #[must_use]
    pub const fn new(place: Place, entries: Vec<KeyValue>) -> Self {
        Self { place, entries, _slot: None }
    }
}

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The parts before it, if any, were of a snapshot that was not read to its end.
    First,
    Later,
}

/// Everything under the watched prefixes at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: Revision,
    pub server: ServerRef,
    pub reason: SnapshotReason,
    /// Prefix by prefix, sorted by key within. With [`Delivery::Parts`] what no part had.
    pub entries: Vec<KeyValue>,
}

/// Why a watch began with a snapshot, or began again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotReason {
    /// The first of this watch.
    First,
    /// The history between what we had seen and now is no longer kept.
    Compacted { seen: Revision, compacted: Revision },
    /// The store is younger than what we had seen of it: restored from a copy, or wiped.
    RevisionWentBack { seen: Revision },
    /// Another cluster answers at the endpoints.
    OtherCluster { before: ServerRef },
    /// Revision and cluster fit but the sentinel is not the one we knew.
    OtherHistory { seen: Revision },
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The key now has this value; `modified` is the revision of the change.
    Put(KeyValue),
    /// The key is gone: deleted, or its lease ran out.
    Delete { key: Vec<u8>, revision: Revision },
}

impl KeyChange {
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(kv) => kv.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What a compare-and-swap write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last written at this revision.
    At(Revision),
}

/// How an exclusive creation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    Created {
        revision: Revision,
    },
    /// Somebody has the key; perhaps we ourselves, by a request whose answer was lost.
    Exists(KeyValue),
}

/// How a compare-and-swap write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    Done {
        revision: Revision,
    },
    /// The key is not as expected; this is what is there, `None` when there is nothing.
    Conflict(Option<KeyValue>),
}

/// Returns the end of the range of all keys that begin with `prefix` (etcd API: `range_end`): the
/// prefix with its last byte that can grow grown by one, or a zero byte for "to the end".
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|&byte| byte < 0xff);
    let Some((last, head)) = kept.and_then(|at| prefix.get(..=at)).and_then(<[u8]>::split_last)
    else {
        return vec![0];
    };
    head.iter().copied().chain([last.saturating_add(1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_can_begin_with_it() {
        assert_eq!(prefix_end(b"/a/"), b"/a0");
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), [2]);
        assert_eq!(prefix_end(&[0xff]), [0]);
        assert_eq!(prefix_end(b""), [0]);
    }

    #[test]
    fn a_lease_of_zero_is_no_lease() {
        assert_eq!(LeaseId::from_wire(0), None);
        assert_eq!(LeaseId::from_wire(0x1f).map(|id| id.to_string()).as_deref(), Some("1f"));
    }

    #[test]
    fn a_negative_revision_on_the_wire_is_none() {
        assert_eq!(Revision::from_wire(-1), Revision::ZERO);
        assert_eq!(Revision::new(u64::MAX).to_wire(), i64::MAX);
    }
}
