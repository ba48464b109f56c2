//! Many writes in one request, without a condition: for whoever is the only writer.

use super::{EtcdClient, call::Op, kv::status_of};
use crate::{
    contract::{LeaseId, Revision},
    error::StoreError,
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, TxnResponse, kv_client::KvClient,
        request_op::Request,
    },
};

/// One unconditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put { key: Vec<u8>, value: Vec<u8>, lease: Option<LeaseId> },
    Delete { key: Vec<u8> },
}

impl Write {
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// How much of a request it takes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let value = match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        };
        self.key().len().saturating_add(value).saturating_add(OVERHEAD)
    }

    pub(super) fn into_op(self) -> RequestOp {
        let request = match self {
            Self::Put { key, value, lease } => Request::RequestPut(PutRequest {
                key,
                value,
                lease: lease.map_or(0, LeaseId::to_wire),
                ..PutRequest::default()
            }),
            Self::Delete { key } => {
                Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })
            }
        };
        RequestOp { request: Some(request) }
    }
}

impl EtcdClient {
    /// Does all writes at one revision (etcd API: `Txn`). No key may be in it twice.
    ///
    /// After an error with [`StoreError::is_outcome_unknown`] they may all be done, or none.
    pub async fn write_batch(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let first = writes.first().map(|write| write.key().to_vec()).unwrap_or_default();
        let op = Op::write("write", &first);
        let message = TxnRequest {
            success: writes.into_iter().map(Write::into_op).collect(),
            ..TxnRequest::default()
        };
        let answer: TxnResponse = self
            .call(&op, message, |channel, request| async move {
                KvClient::new(channel).txn(request).await
            })
            .await?;
        Ok(status_of(&op, answer.header)?.revision)
    }
}

/// What frames a write in a message, at most.
const OVERHEAD: usize = 48;
