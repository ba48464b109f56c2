//! Leases by their own number: what a move of a store to another needs, beside the contract.
//!
//! The contract's writes take a fresh lease each (see `kv.rs`); whoever copies a store wants the same numbers on
//! the other side, so that their owners go on renewing them there.

use std::time::Duration;

use super::{EtcdClient, call::Op};
use crate::{
    contract::LeaseId,
    error::StoreError,
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
        lease_client::LeaseClient,
    },
};

/// How long a lease was granted for, and what is left of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    pub granted: Duration,
    pub left: Duration,
}

impl EtcdClient {
    /// Asks how long a lease lives; `None` when there is no such lease (etcd API: `LeaseTimeToLive`).
    pub async fn lease_time(&self, lease: LeaseId) -> Result<Option<LeaseTime>, StoreError> {
        let op = Op::read("read lease", lease.to_string().as_bytes());
        let message = LeaseTimeToLiveRequest { id: lease.to_wire(), keys: false };
        let answer = self
            .call(&op, message, |channel, request| async move {
                LeaseClient::new(channel).lease_time_to_live(request).await
            })
            .await?;
        // A lease that is not there has neither; one that is past its end, and not removed yet, has -1 left.
        let there = answer.ttl >= 0 || answer.granted_ttl > 0;
        let time = LeaseTime { granted: seconds(answer.granted_ttl), left: seconds(answer.ttl) };
        Ok(there.then_some(time))
    }

    /// Grants a lease of a given number, unless there is one (etcd API: `LeaseGrant`). Returns the time for
    /// which it is granted now: the server may make it longer, and one that was there keeps its own.
    ///
    /// Doing it twice does no harm, so a caller whose answer was lost does it again.
    pub async fn grant_lease(
        &self,
        lease: LeaseId,
        time: Duration,
    ) -> Result<Duration, StoreError> {
        if let Some(there) = self.lease_time(lease).await? {
            return Ok(there.granted);
        }
        let op = Op::write("grant lease", lease.to_string().as_bytes());
        let ttl = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let message = LeaseGrantRequest { ttl, id: lease.to_wire() };
        let answer = self
            .call(&op, message, |channel, request| async move {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await?;
        Ok(seconds(answer.ttl))
    }

    /// Gives a lease its full time again; `None` when there is no such lease (etcd API: `LeaseKeepAlive`).
    pub async fn renew_lease(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        let op = Op::read("renew lease", lease.to_string().as_bytes());
        let message = LeaseKeepAliveRequest { id: lease.to_wire() };
        let answer = self
            .call(&op, message, |channel, request: tonic::Request<_>| async move {
                let (metadata, extensions, message) = request.into_parts();
                let one = tokio_stream::once(message);
                let request = tonic::Request::from_parts(metadata, extensions, one);
                let answers = LeaseClient::new(channel).lease_keep_alive(request).await?;
                let (metadata, mut answers, extensions) = answers.into_parts();
                let first = answers.message().await?;
                Ok(tonic::Response::from_parts(metadata, first, extensions))
            })
            .await?;
        let answer = answer.ok_or_else(|| op.unexpected("no renewal"))?;
        Ok((answer.ttl > 0).then(|| seconds(answer.ttl)))
    }

    /// Ends a lease and deletes its keys; one that is gone already is success (etcd API: `LeaseRevoke`).
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let op = Op::read("revoke lease", lease.to_string().as_bytes());
        let message = LeaseRevokeRequest { id: lease.to_wire() };
        let outcome = self
            .call(&op, message, |channel, request| async move {
                LeaseClient::new(channel).lease_revoke(request).await
            })
            .await;
        match outcome {
            Err(err) if !err.is_lease_not_found() => Err(err),
            _ => Ok(()),
        }
    }
}

fn seconds(raw: i64) -> Duration {
    Duration::from_secs(u64::try_from(raw).unwrap_or(0))
}
