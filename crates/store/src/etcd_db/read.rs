//! Reading a database of anybody's making: whatever does not fit is refused.

use std::{
    io::{Read, Seek, SeekFrom},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use sha2::{Digest, Sha256};

use super::{EtcdDbError, FINISHED, KEY, LEASE, LeasePb, META, REVISION, SCHEDULED};
use crate::{
    bolt::Database,
    contract::{KeyValue, LeaseId, Revision},
    proto::mvccpb,
    server::{
        image::{Image, ImageVersion},
        mvcc::What,
    },
};

/// What a database holds, and what etcd says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// With no cluster's number: whoever uses it makes another cluster of it.
    pub(crate) image: Image,
    /// CRC-32C over every bucket's name, keys and values (as `etcdctl snapshot status`).
    pub(crate) hash: u32,
    /// Of all buckets.
    pub(crate) keys: u64,
    /// Of the database, without a trailer.
    pub(crate) bytes: u64,
}

/// Reads a snapshot, or the database of a member: a snapshot has its SHA-256 behind it, which is checked.
pub(crate) fn read(mut file: impl Read + Seek) -> Result<Contents, EtcdDbError> {
    let bytes = check_trailer(&mut file)?;
    let mut database = Database::open(file, bytes)?;
    if bytes % SECTOR != 0 {
        return Err(EtcdDbError::Ragged { bytes });
    }
    let mut contents =
        Contents { image: Image::empty(0, 0), hash: 0, keys: 0, bytes: database.bytes() };
    let mut found = false;
    for bucket in database.buckets()? {
        contents.hash = crc32c::crc32c_append(contents.hash, &bucket.name);
        found |= bucket.name == KEY;
        database.items(&bucket, |key, value| contents.item(&bucket.name, key, value))?;
    }
    if !found {
        return Err(EtcdDbError::NoKeys);
    }
    contents.image.leases.sort_unstable();
    Ok(contents)
}

/// Returns the length of the database: pages, perhaps with a checksum behind them.
fn check_trailer(file: &mut (impl Read + Seek)) -> Result<u64, EtcdDbError> {
    let all = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    if all % SECTOR != TRAILER {
        return Ok(all);
    }
    let bytes = all - TRAILER;
    let mut hash = Sha256::new();
    let (mut left, mut block) = (bytes, vec![0; 64 << 10]);
    while left > 0 {
        let count = file.by_ref().take(left).read(&mut block)?;
        hash.update(block.get(..count).unwrap_or_default());
        left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX).max(1));
    }
    let mut trailer = Vec::new();
    file.take(TRAILER).read_to_end(&mut trailer)?;
    if hash.finalize().as_slice() != trailer {
        return Err(EtcdDbError::Checksum);
    }
    file.rewind()?;
    Ok(bytes)
}

impl Contents {
    fn item(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Result<(), EtcdDbError> {
        self.hash = crc32c::crc32c_append(crc32c::crc32c_append(self.hash, key), value);
        self.keys += 1;
        match bucket {
            KEY => self.version(key, value),
            LEASE => self.lease(value),
            META if key == FINISHED || key == SCHEDULED => {
                // One that was begun is finished by whoever reads it.
                let (compacted, _) = revision(value).ok_or_else(|| fault("meta", "a revision"))?;
                self.image.compacted = self.image.compacted.max(compacted);
                self.image.revision = self.image.revision.max(compacted);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn version(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdDbError> {
        let wrong = |what: &str| fault("key", what);
        let (revision, sub) = revision(key).ok_or_else(|| wrong("a revision"))?;
        let kv = mvccpb::KeyValue::decode(value);
        let kv = kv.map_err(|err| wrong(&format!("revision {revision}: {err}")))?;
        let what = match key.get(REVISION..) {
            Some([]) => What::Put(Arc::new(value_of(kv).ok_or_else(|| wrong("a value"))?)),
            Some(b"t") => What::Delete(kv.key),
            _ => return Err(wrong("a revision is longer than one")),
        };
        self.image.revision = self.image.revision.max(revision);
        self.image.versions.push(ImageVersion { revision, sub, what });
        Ok(())
    }

    fn lease(&mut self, value: &[u8]) -> Result<(), EtcdDbError> {
        let lease = LeasePb::decode(value).map_err(|err| fault("lease", &err.to_string()))?;
        let id = LeaseId::from_wire(lease.id).ok_or_else(|| fault("lease", "a number"))?;
        let ttl = Duration::from_secs(u64::try_from(lease.ttl).unwrap_or(0));
        self.image.leases.push((id, ttl));
        Ok(())
    }
}

fn value_of(kv: mvccpb::KeyValue) -> Option<KeyValue> {
    Some(KeyValue {
        key: kv.key,
        value: kv.value,
        created: Revision::new(u64::try_from(kv.create_revision).ok()?),
        modified: Revision::new(u64::try_from(kv.mod_revision).ok()?),
        version: u64::try_from(kv.version).ok()?,
        lease: LeaseId::from_wire(kv.lease),
    })
}

fn revision(bytes: &[u8]) -> Option<(Revision, u32)> {
    let (main, rest) = bytes.split_first_chunk::<8>()?;
    let (b'_', rest) = rest.split_first()? else { return None };
    let sub = u64::from_be_bytes(*rest.first_chunk()?);
    // The wire has signed numbers; what is negative there is no revision.
    let main = i64::from_be_bytes(*main);
    Some((Revision::new(u64::try_from(main).ok()?), u32::try_from(sub).ok()?))
}

fn fault(bucket: &'static str, what: &str) -> EtcdDbError {
    EtcdDbError::Content { bucket, what: format!("{what} cannot be read") }
}

/// A database is a whole number of these, and a snapshot has a checksum behind it (as etcdctl tells).
const SECTOR: u64 = 512;
const TRAILER: u64 = 32;
