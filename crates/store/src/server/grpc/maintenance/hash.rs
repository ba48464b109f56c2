//! The hash by which two servers can be told to hold the same (etcd API: `HashKV`).
//!
//! CRC-32C over the name of the bucket, then over the revision and the value of each version: those after the
//! compacted revision, and of those before it what a compaction at the revision asked for would keep, since
//! a member may not have come to forgetting the others yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    contract::Revision,
    etcd_db,
    proto::etcdserverpb::HashKvResponse,
    server::{image::Image, mvcc::MvccError},
};

/// Hashes what is there up to a revision; zero is the newest.
pub(super) fn hash_kv(image: &Image, at: Revision) -> Result<HashKvResponse, MvccError> {
    let at = match at {
        Revision::ZERO => image.revision,
        at if at > image.revision => return Err(MvccError::Future),
        at if at <= image.compacted => return Err(MvccError::Compacted(image.compacted)),
        at => at,
    };
    let kept = kept(image, at);
    let mut crc = crc32c::crc32c(b"key");
    for version in image.versions.iter().filter(|version| version.revision <= at) {
        let place = (version.revision, version.sub);
        if version.revision > image.compacted || kept.is_empty() || kept.contains(&place) {
            crc = crc32c::crc32c_append(crc, &etcd_db::key_of(version));
            crc = crc32c::crc32c_append(crc, &etcd_db::value_of(version));
        }
    }
    let compact_revision = match image.compacted {
        Revision::ZERO => -1,
        compacted => compacted.to_wire(),
    };
    Ok(HashKvResponse { header: None, hash: crc, compact_revision })
}

/// Returns where each key's value stands that a compaction at this revision would keep.
fn kept(image: &Image, at: Revision) -> BTreeSet<(Revision, u32)> {
    let mut newest = BTreeMap::new();
    for version in image.versions.iter().filter(|version| version.revision <= at) {
        match version.kv() {
            Some(_) => newest.insert(version.key(), (version.revision, version.sub)),
            None => newest.remove(version.key()),
        };
    }
    newest.into_values().collect()
}
