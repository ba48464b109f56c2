//! Many writes in one request, under conditions: all of them or none.

use super::{
    EtcdClient,
    batch::Write,
    call::Op,
    kv::{compare, status_of},
};
use crate::{
    contract::{Expect, Revision, prefix_end},
    error::StoreError,
    proto::etcdserverpb::{
        Compare, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
    },
};

/// What must be so for writes to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    Key {
        key: Vec<u8>,
        expect: Expect,
    },
    /// No key that begins so was written after this revision. That one was deleted does not show.
    Unwritten {
        prefix: Vec<u8>,
        since: Revision,
    },
}

impl Guard {
    fn into_compare(self) -> Compare {
        match self {
            Self::Key { key, expect } => compare(&key, expect),
            // A range without keys compares as one of revision zero (etcd API: `Compare`).
            Self::Unwritten { prefix, since } => Compare {
                result: CompareResult::Less.into(),
                target: CompareTarget::Mod.into(),
                range_end: prefix_end(&prefix),
                key: prefix,
                target_union: Some(TargetUnion::ModRevision(since.next().to_wire())),
            },
        }
    }
}

impl EtcdClient {
    /// Does all writes at one revision if every guard holds (etcd API: `Txn`); `None` when one does not, and
    /// then nothing is written. No key may be written twice.
    ///
    /// After an error with [`StoreError::is_outcome_unknown`] they may all be done, or none.
    pub async fn write_guarded(
        &self,
        guards: Vec<Guard>,
        writes: Vec<Write>,
    ) -> Result<Option<Revision>, StoreError> {
        let first = writes.first().map(|write| write.key().to_vec()).unwrap_or_default();
        let op = Op::write("write", &first);
        let message = TxnRequest {
            compare: guards.into_iter().map(Guard::into_compare).collect(),
            success: writes.into_iter().map(Write::into_op).collect(),
            failure: Vec::new(),
        };
        let answer: TxnResponse = self
            .call(&op, message, |channel, request| async move {
                KvClient::new(channel).txn(request).await
            })
            .await?;
        let revision = status_of(&op, answer.header)?.revision;
        Ok(answer.succeeded.then_some(revision))
    }
}
