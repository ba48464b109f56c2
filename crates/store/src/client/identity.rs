//! The cluster's id: a key of ours that tells one datastore from another for good.
//!
//! The number in etcd's header is derived from the cluster's flags, so a wiped cluster that is
//! started again has the same one. A random value, written once, is not made twice.

use std::fmt;

use super::{EtcdClient, call::Op};
use crate::{
    contract::{Expect, KeyValue, WriteOutcome},
    error::StoreError,
    random,
};

/// The id in force: 32 hex digits when we made it, whatever is in the key otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(String);

impl ClusterId {
    /// Returns the key of the id under a prefix such as `/coreos.com/network`.
    #[must_use]
    pub fn key(prefix: &str) -> Vec<u8> {
        format!("{}/russet/cluster-id", prefix.trim_end_matches('/')).into_bytes()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<KeyValue> for ClusterId {
    fn from(kv: KeyValue) -> Self {
        Self(String::from_utf8_lossy(&kv.value).trim().to_owned())
    }
}

impl EtcdClient {
    /// Returns the cluster's id, creating it when there is none. However many nodes do so at once,
    /// all get the same.
    ///
    /// Call it only when the store is known to be the right one, by its network configuration: an
    /// id in an empty store would make that look like a cluster.
    pub async fn ensure_cluster_id(&self, prefix: &str) -> Result<ClusterId, StoreError> {
        let key = ClusterId::key(prefix);
        if let Some(existing) = self.get(&key).await? {
            return Ok(existing.into());
        }
        let fresh = format!("{:032x}", random::bits128());
        match self.put_if(&key, Expect::Absent, fresh.as_bytes()).await? {
            WriteOutcome::Done { .. } => Ok(ClusterId(fresh)),
            WriteOutcome::Conflict(Some(existing)) => Ok(existing.into()),
            WriteOutcome::Conflict(None) => {
                Err(Op::write("create", &key).unexpected("a conflict with nothing"))
            }
        }
    }

    /// Returns the cluster's id, if it has one.
    pub async fn cluster_id(&self, prefix: &str) -> Result<Option<ClusterId>, StoreError> {
        Ok(self.get(&ClusterId::key(prefix)).await?.map(ClusterId::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stands_under_the_prefix_with_or_without_its_slash() {
        assert_eq!(ClusterId::key("/coreos.com/network"), b"/coreos.com/network/russet/cluster-id");
        assert_eq!(ClusterId::key("/n/"), b"/n/russet/cluster-id");
    }
}
