//! All that a store holds at one moment, as a value.
//!
//! Cheap to take (the values are counted references), so that whoever writes it down does so in its own
//! time: the journal when it is rewritten, etcd's snapshot file, the hash of the whole. It holds what etcd's
//! own database holds: each live version at or before the compacted revision, and every change since.

use std::{sync::Arc, time::Duration};

use super::mvcc::What;
use crate::contract::{KeyValue, LeaseId, Revision};

/// A store at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The number of the cluster, by which clients tell one store's history from another's.
    pub cluster: u64,
    pub member: u64,
    /// The newest revision. What made it may be compacted, when it was a deletion.
    pub revision: Revision,
    /// Zero when nothing was compacted.
    pub compacted: Revision,
    /// What etcd's `key` bucket holds, sorted by revision and sub.
    pub versions: Vec<ImageVersion>,
    /// Every lease with the time it was granted, sorted.
    pub leases: Vec<(LeaseId, Duration)>,
}

/// One version of one key, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageVersion {
    pub revision: Revision,
    /// The position within the transaction of that revision.
    pub sub: u32,
    pub what: What,
}

impl Image {
    /// A store that holds nothing, as an empty etcd: at revision 1.
    pub(crate) fn empty(cluster: u64, member: u64) -> Self {
        Self {
            cluster,
            member,
            revision: Revision::new(1),
            compacted: Revision::ZERO,
            versions: Vec::new(),
            leases: Vec::new(),
        }
    }
}

impl ImageVersion {
    pub(crate) fn key(&self) -> &[u8] {
        self.what.key()
    }

    /// Returns the value, unless this is the key's end.
    pub(crate) fn kv(&self) -> Option<&Arc<KeyValue>> {
        self.what.kv()
    }
}
