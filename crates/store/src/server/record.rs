//! What the store writes to its file, as values: the parts of an image, then everything that was done.
//!
//! What is written is what was *decided* (which value, which lease), not what was asked, so reading it
//! back decides nothing: the same records make the same store, revision for revision. A payload of the
//! journal is a sequence of records, each with its length before it; they count together or not at all.

use std::{sync::Arc, time::Duration};

use prost::Message;

use super::{
    image::{Image, ImageVersion},
    mvcc::{KeyRange, What},
};
use crate::{
    contract::{KeyValue, LeaseId, Revision},
    proto::journal::{self as pb, op, record::Kind},
};

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Op(pb::Op);

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Base { cluster: u64, member: u64, revision: Revision, compacted: Revision },
    Version(ImageVersion),
    Commit { revision: Revision, ops: Vec<Change> },
    Grant { lease: LeaseId, ttl: Duration },
    Revoke { lease: LeaseId, revision: Revision },
    Compact { revision: Revision },
}

/// One change of a transaction that is done again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        lease: Option<LeaseId>,
    },
    /// The value that is there already, as one who renews a lease puts it.
    Again {
        key: Vec<u8>,
        lease: Option<LeaseId>,
    },
    Delete(KeyRange),
}

impl Op {
    pub(crate) fn put(key: &[u8], value: &[u8], lease: Option<LeaseId>) -> Self {
        let lease = lease.map_or(0, LeaseId::to_wire);
        let put = pb::Put { key: key.to_vec(), value: value.to_vec(), lease, again: false };
        Self(pb::Op { op: Some(op::Op::Put(put)) })
    }

    /// The value stays; also what keeps a request that asks for that from adding more than it says.
    pub(crate) fn again(key: &[u8], lease: Option<LeaseId>) -> Self {
        let lease = lease.map_or(0, LeaseId::to_wire);
        let put = pb::Put { key: key.to_vec(), value: Vec::new(), lease, again: true };
        Self(pb::Op { op: Some(op::Op::Put(put)) })
    }

    pub(crate) fn delete(range: &KeyRange) -> Self {
        let (key, range_end) = range.to_wire();
        Self(pb::Op { op: Some(op::Op::Delete(pb::Delete { key, range_end })) })
    }
}

/// Appends a transaction to a payload.
pub(crate) fn commit(revision: Revision, ops: Vec<Op>, payload: &mut Vec<u8>) {
    let ops = ops.into_iter().map(|op| op.0).collect();
    append(Kind::Commit(pb::Commit { revision: revision.get(), ops }), payload);
}

pub(crate) fn grant(lease: LeaseId, ttl: Duration, payload: &mut Vec<u8>) {
    append(Kind::Grant(pb::Grant { lease: lease.to_wire(), ttl_s: ttl.as_secs() }), payload);
}

pub(crate) fn revoke(lease: LeaseId, revision: Revision, payload: &mut Vec<u8>) {
    let revision = revision.get();
    append(Kind::Revoke(pb::Revoke { lease: lease.to_wire(), revision }), payload);
}

pub(crate) fn compact(revision: Revision, payload: &mut Vec<u8>) {
    append(Kind::Compact(pb::Compact { revision: revision.get() }), payload);
}

/// Returns the payloads that an image makes, each of a size that is easy to write.
pub(crate) fn payloads(image: &Image) -> impl Iterator<Item = Vec<u8>> + '_ {
    let base = pb::Base {
        cluster: image.cluster,
        member: image.member,
        revision: image.revision.get(),
        compacted: image.compacted.get(),
    };
    let leases = image
        .leases
        .iter()
        .map(|(lease, ttl)| pb::Grant { lease: lease.to_wire(), ttl_s: ttl.as_secs() });
    let mut kinds = std::iter::once(Kind::Base(base))
        .chain(leases.map(Kind::Grant))
        .chain(image.versions.iter().map(|version| Kind::Version(version_to_pb(version))));
    std::iter::from_fn(move || {
        let mut payload = Vec::with_capacity(PAYLOAD + PAYLOAD / 4);
        while payload.len() < PAYLOAD
            && let Some(kind) = kinds.next()
        {
            append(kind, &mut payload);
        }
        (!payload.is_empty()).then_some(payload)
    })
}

/// Reads a payload's records, in order.
///
/// # Errors
///
/// At a record that is none of ours, in words.
pub(crate) fn read(
    mut payload: &[u8],
    mut each: impl FnMut(Record) -> Result<(), String>,
) -> Result<(), String> {
    while !payload.is_empty() {
        let record = pb::Record::decode_length_delimited(&mut payload);
        let record = record.map_err(|err| format!("a record cannot be read: {err}"))?;
        each(Record::try_from(record)?)?;
    }
    Ok(())
}

fn append(kind: Kind, payload: &mut Vec<u8>) {
    // A vector grows as it must: this cannot fail.
    let _ = pb::Record { kind: Some(kind) }.encode_length_delimited(payload);
}

fn version_to_pb(version: &ImageVersion) -> pb::Version {
    let (modified, sub) = (version.revision.get(), version.sub);
    match &version.what {
        What::Put(kv) => pb::Version {
            modified,
            sub,
            key: kv.key.clone(),
            value: kv.value.clone(),
            created: kv.created.get(),
            version: kv.version,
            lease: kv.lease.map_or(0, LeaseId::to_wire),
        },
        What::Delete(key) => {
            pb::Version { modified, sub, key: key.clone(), ..pb::Version::default() }
        }
    }
}

impl TryFrom<pb::Record> for Record {
    type Error = String;

    fn try_from(record: pb::Record) -> Result<Self, String> {
        Ok(match record.kind.ok_or("a record is of a kind that is not known")? {
            Kind::Base(base) => Self::Base {
                cluster: base.cluster,
                member: base.member,
                revision: Revision::new(base.revision),
                compacted: Revision::new(base.compacted),
            },
            Kind::Version(version) => Self::Version(version_of(version)),
            Kind::Commit(commit) => Self::Commit {
                revision: Revision::new(commit.revision),
                ops: commit.ops.into_iter().map(Change::try_from).collect::<Result<_, _>>()?,
            },
            Kind::Grant(grant) => {
                Self::Grant { lease: lease(grant.lease)?, ttl: Duration::from_secs(grant.ttl_s) }
            }
            Kind::Revoke(revoke) => Self::Revoke {
                lease: lease(revoke.lease)?,
                revision: Revision::new(revoke.revision),
            },
            Kind::Compact(compact) => Self::Compact { revision: Revision::new(compact.revision) },
        })
    }
}

impl TryFrom<pb::Op> for Change {
    type Error = String;

    fn try_from(op: pb::Op) -> Result<Self, String> {
        Ok(match op.op.ok_or("a change is of a kind that is not known")? {
            op::Op::Put(put) => {
                let lease = LeaseId::from_wire(put.lease);
                if put.again {
                    Self::Again { key: put.key, lease }
                } else {
                    Self::Put { key: put.key, value: put.value, lease }
                }
            }
            op::Op::Delete(delete) => {
                Self::Delete(KeyRange::from_wire(delete.key, delete.range_end))
            }
        })
    }
}

fn version_of(version: pb::Version) -> ImageVersion {
    let revision = Revision::new(version.modified);
    let what = match version.version {
        0 => What::Delete(version.key),
        count => What::Put(Arc::new(KeyValue {
            key: version.key,
            value: version.value,
            created: Revision::new(version.created),
            modified: revision,
            version: count,
            lease: LeaseId::from_wire(version.lease),
        })),
    };
    ImageVersion { revision, sub: version.sub, what }
}

fn lease(raw: i64) -> Result<LeaseId, String> {
    LeaseId::from_wire(raw).ok_or_else(|| "a lease without a number".to_owned())
}

/// About the size of a payload of an image.
const PAYLOAD: usize = 256 << 10;
