//! etcd's own database in its own file, from and to an [`Image`].
//!
//! ```text
//!  key     main ‖ '_' ‖ sub, 't' behind it for a key's end     mvccpb.KeyValue, or only its key
//!  lease   number                                              leasepb.Lease
//!  meta    consistent_index, finishedCompactRev, scheduledCompactRev
//!  cluster clusterVersion; and the other buckets that etcd expects to be there, empty
//! ```
//!
//! Numbers are big endian, eight bytes each. It is what `etcdctl snapshot save` writes and `etcdctl snapshot
//! restore` reads (etcd 3.4), and what a member keeps as `member/snap/db`.

mod read;
mod write;

use crate::bolt::BoltError;

pub(crate) use self::{
    read::{Contents, read},
    write::{key_of, lay_out, value_of, write},
};

/// Why a database of etcd's cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EtcdDbError {
    #[error(transparent)]
    Bolt(#[from] BoltError),
    #[error("snapshot file")]
    Io(#[from] std::io::Error),
    #[error("the snapshot's checksum is wrong: it is damaged, or was cut")]
    Checksum,
    #[error("not a database of etcd 3: it has no bucket named key")]
    NoKeys,
    #[error(
        "the database is cut: {bytes} bytes are no whole number of pages, with or without a checksum"
    )]
    Ragged { bytes: u64 },
    #[error("the database is damaged: bucket {bucket}: {what}")]
    Content { bucket: &'static str, what: String },
}

/// A lease as etcd keeps it (etcd: `leasepb.Lease`).
#[derive(Clone, PartialEq, prost::Message)]
struct LeasePb {
    #[prost(int64, tag = "1")]
    id: i64,
    /// What was granted, in seconds.
    #[prost(int64, tag = "2")]
    ttl: i64,
}

const KEY: &[u8] = b"key";
const LEASE: &[u8] = b"lease";
const META: &[u8] = b"meta";
const FINISHED: &[u8] = b"finishedCompactRev";
const SCHEDULED: &[u8] = b"scheduledCompactRev";
/// Bytes of a revision: main, an underscore, sub.
const REVISION: usize = 17;
