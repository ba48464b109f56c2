//! Reads, compare-and-swap writes and leases.

use tonic::transport::Channel;

use super::{
    EtcdClient,
    call::{Op, printable},
};
use crate::{
    contract::{
        CreateOutcome, Expect, KeyValue, LeaseId, Revision, ServerRef, WriteOutcome, prefix_end,
    },
    error::StoreError,
    proto::{
        etcdserverpb::{
            CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
            PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
            TxnResponse,
            compare::{CompareResult, CompareTarget, TargetUnion},
            kv_client::KvClient,
            lease_client::LeaseClient,
            request_op, response_op,
        },
        mvccpb,
    },
};

/// Who answers, and how far its history has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    pub server: ServerRef,
    pub revision: Revision,
}

/// Every key under a prefix at one revision, sorted by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub revision: Revision,
    pub server: ServerRef,
    pub entries: Vec<KeyValue>,
}

impl EtcdClient {
    /// Asks who answers and at which revision it is. Goes through the cluster's consensus, so a
    /// member that lags does not answer with its own. A user that may read only some keys is refused
    /// and reads one of those instead.
    pub async fn status(&self) -> Result<ServerStatus, StoreError> {
        // The smallest key there can be; counted only.
        let key = vec![0];
        let op = Op::read("read", b"header");
        let message = RangeRequest { key, count_only: true, ..RangeRequest::default() };
        let answer = self.range(&op, message).await?;
        status_of(&op, answer.header)
    }

    /// Counts a key at a revision, to learn whether that is still kept.
    pub(crate) async fn check_readable(&self, key: &[u8], at: Revision) -> Result<(), StoreError> {
        let op = Op::read("read revision", at.to_string().as_bytes());
        let (key, revision) = (key.to_vec(), at.to_wire());
        let message = RangeRequest { key, revision, count_only: true, ..RangeRequest::default() };
        self.range(&op, message).await.map(drop)
    }

    /// Reads one key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.get_with_status(key).await?.1)
    }

    pub(crate) async fn get_with_status(
        &self,
        key: &[u8],
    ) -> Result<(ServerStatus, Option<KeyValue>), StoreError> {
        let op = Op::read("get", key);
        let answer =
            self.range(&op, RangeRequest { key: key.to_vec(), ..RangeRequest::default() }).await?;
        let status = status_of(&op, answer.header)?;
        Ok((status, answer.kvs.into_iter().next().map(KeyValue::from)))
    }

    /// Reads every key under a prefix, page by page, all at one revision: `at`, or the newest when
    /// the first page is read.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_compacted`] when that revision is compacted, before or meanwhile.
    pub async fn range_prefix(
        &self,
        prefix: &[u8],
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        let mut pages = self.pages(prefix, at, Pace::Keys);
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await? {
            entries.extend(page);
            if entries.len() > MAX_LISTED {
                return Err(pages.op.unexpected("more keys than a network can have"));
            }
        }
        let status = pages.status().ok_or_else(|| pages.op.unexpected("no page"))?;
        let ServerStatus { revision, server } = status;
        Ok(Listing { revision, server, entries })
    }

    /// Reads every key under a prefix as [`Self::range_prefix`] does, and hands each on: no more than a page of some MiB
    /// lies in memory, however many keys there are.
    ///
    /// # Errors
    ///
    /// As [`Self::range_prefix`]; some were handed on then.
    pub async fn visit_prefix(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(KeyValue),
    ) -> Result<(), StoreError> {
        let mut pages = self.pages(prefix, None, Pace::Bytes);
        while let Some(page) = pages.next().await? {
            page.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// [`Self::range_prefix`], page by page.
    pub(crate) fn pages(&self, prefix: &[u8], at: Option<Revision>, pace: Pace) -> Pages<'_> {
        let (op, page) = (Op::read("list", prefix), Page::first(prefix, at, pace));
        Pages { client: self, op, page, pace, end: End::Ahead }
    }

    /// Writes a key that never expires, whatever was there.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, StoreError> {
        self.put_plain(&Op::write("put", key), key, value, None).await
    }

    /// Creates a key that expires `ttl_s` seconds from now, unless it exists: grants a lease, then
    /// `Version(key) == 0 → Put`, and revokes the grant when the key was there.
    ///
    /// After an error with [`StoreError::is_outcome_unknown`] the key may exist with our value, and
    /// trying again answers [`CreateOutcome::Exists`] with it.
    pub async fn create_leased(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_s: u32,
    ) -> Result<CreateOutcome, StoreError> {
        match self.put_if_leased(key, Expect::Absent, value, ttl_s).await? {
            WriteOutcome::Done { revision } => Ok(CreateOutcome::Created { revision }),
            WriteOutcome::Conflict(Some(current)) => Ok(CreateOutcome::Exists(current)),
            WriteOutcome::Conflict(None) => {
                Err(Op::write("create", key).unexpected("a conflict with nothing"))
            }
        }
    }

    /// Writes a key under a *new* lease of `ttl_s` seconds, whatever was there. An older lease of
    /// the key runs out empty.
    pub async fn put_leased(
        &self,
        key: &[u8],
        value: &[u8],
        ttl_s: u32,
    ) -> Result<Revision, StoreError> {
        let lease = self.grant(key, ttl_s).await?;
        let outcome = self.put_plain(&Op::write("put", key), key, value, Some(lease)).await;
        self.revoke_if_refused(lease, &outcome).await;
        outcome
    }

    /// Writes a key that never expires, if it is as expected.
    pub async fn put_if(
        &self,
        key: &[u8],
        expect: Expect,
        value: &[u8],
    ) -> Result<WriteOutcome, StoreError> {
        let put = put_request(key, value, None);
        self.swap(key, expect, request_op::Request::RequestPut(put)).await
    }

    /// Writes a key under a *new* lease of `ttl_s` seconds, if it is as expected.
    pub async fn put_if_leased(
        &self,
        key: &[u8],
        expect: Expect,
        value: &[u8],
        ttl_s: u32,
    ) -> Result<WriteOutcome, StoreError> {
        let lease = self.grant(key, ttl_s).await?;
        let put = put_request(key, value, Some(lease));
        let outcome = self.swap(key, expect, request_op::Request::RequestPut(put)).await;
        match &outcome {
            Ok(WriteOutcome::Conflict(_)) => self.revoke(lease).await,
            _ => self.revoke_if_refused(lease, &outcome).await,
        }
        outcome
    }

    /// Deletes a key, if it was last written at `modified`. A key that is gone is a conflict with
    /// `None`.
    pub async fn delete_if(
        &self,
        key: &[u8],
        modified: Revision,
    ) -> Result<WriteOutcome, StoreError> {
        let delete = DeleteRangeRequest { key: key.to_vec(), ..DeleteRangeRequest::default() };
        let delete = request_op::Request::RequestDeleteRange(delete);
        self.swap(key, Expect::At(modified), delete).await
    }

    /// Forgets the history before `revision`.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let op = Op::write("compact", revision.to_string().as_bytes());
        let message = CompactionRequest { revision: revision.to_wire(), physical: false };
        self.call(&op, message, |channel, request| async move {
            KvClient::new(channel).compact(request).await
        })
        .await?;
        Ok(())
    }

    /// Does `write` if the key is as expected, else reads it, in one transaction.
    async fn swap(
        &self,
        key: &[u8],
        expect: Expect,
        write: request_op::Request,
    ) -> Result<WriteOutcome, StoreError> {
        let op = Op::write("write", key);
        let read = RangeRequest { key: key.to_vec(), ..RangeRequest::default() };
        let message = TxnRequest {
            compare: vec![compare(key, expect)],
            success: vec![RequestOp { request: Some(write) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(read)) }],
        };
        let answer: TxnResponse = self
            .call(&op, message, |channel, request| async move {
                KvClient::new(channel).txn(request).await
            })
            .await?;
        if answer.succeeded {
            return Ok(WriteOutcome::Done { revision: status_of(&op, answer.header)?.revision });
        }
        match answer.responses.into_iter().next().and_then(|answer| answer.response) {
            Some(response_op::Response::ResponseRange(range)) => {
                Ok(WriteOutcome::Conflict(range.kvs.into_iter().next().map(KeyValue::from)))
            }
            _ => Err(op.unexpected("no read")),
        }
    }

    async fn put_plain(
        &self,
        op: &Op,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<Revision, StoreError> {
        let answer = self
            .call(op, put_request(key, value, lease), |channel, request| async move {
                KvClient::new(channel).put(request).await
            })
            .await?;
        Ok(status_of(op, answer.header)?.revision)
    }

    async fn grant(&self, key: &[u8], ttl_s: u32) -> Result<LeaseId, StoreError> {
        // Repeating a grant whose answer was lost leaves a lease without keys, which runs out.
        let op = Op::read("grant lease for", key);
        let message = LeaseGrantRequest { ttl: i64::from(ttl_s), id: 0 };
        let answer = self
            .call(&op, message, |channel, request| async move {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await?;
        LeaseId::from_wire(answer.id).ok_or_else(|| op.unexpected("no lease"))
    }

    /// Revokes the grant of a write that certainly was not done. One whose outcome is unknown keeps
    /// it: revoking would delete the key that the write may have made.
    async fn revoke_if_refused<T>(&self, lease: LeaseId, outcome: &Result<T, StoreError>) {
        if outcome.as_ref().is_err_and(|err| !err.is_outcome_unknown()) {
            self.revoke(lease).await;
        }
    }

    /// Gives a lease back. Nothing is lost when that does not work: it runs out by itself.
    async fn revoke(&self, lease: LeaseId) {
        let op = Op::read("revoke lease", lease.to_string().as_bytes());
        let message = LeaseRevokeRequest { id: lease.to_wire() };
        let outcome = self
            .call(&op, message, |channel, request| async move {
                LeaseClient::new(channel).lease_revoke(request).await
            })
            .await;
        if let Err(err) = outcome {
            tracing::debug!(error = crate::error::one_line(&err), "lease is left to run out");
        }
    }

    pub(crate) async fn range(
        &self,
        op: &Op,
        message: RangeRequest,
    ) -> Result<RangeResponse, StoreError> {
        self.call(
            op,
            message,
            |channel, request| async move { reader(channel).range(request).await },
        )
        .await
    }
}

/// A listing that is read page by page, all at one revision.
pub(crate) struct Pages<'a> {
    client: &'a EtcdClient,
    pub(crate) op: Op,
    page: Page,
    pace: Pace,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Ahead,
    Reached,
}

/// How large pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As many keys as are worth a request.
    Keys,
    /// As many as come to [`PAGE_BYTES`] or so.
    Bytes,
}

impl Pages<'_> {
    /// Reads the next page; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, StoreError> {
        if self.end == End::Reached {
            return Ok(None);
        }
        let (op, page) = (&self.op, &mut self.page);
        let answer = loop {
            match self.client.range(op, page.request()).await {
                Err(err) if err.is_too_large() && page.shrink() => {}
                answer => break answer?,
            }
        };
        let status = status_of(op, answer.header)?;
        if page.server.is_some_and(|server| server.cluster != status.server.cluster) {
            return Err(op.unexpected("pages of two clusters"));
        }
        page.server = Some(status.server);
        page.at.get_or_insert(status.revision);
        let entries: Vec<_> = answer.kvs.into_iter().map(KeyValue::from).collect();
        match entries.last() {
            _ if !answer.more => self.end = End::Reached,
            Some(last) if last.key >= page.key => page.after(&last.key),
            _ => return Err(op.unexpected("a page that leads nowhere")),
        }
        if self.pace == Pace::Bytes {
            page.fit(&entries);
        }
        Ok(Some(entries))
    }

    /// Who answers, and at which revision; `None` before the first page.
    pub(crate) fn status(&self) -> Option<ServerStatus> {
        Some(ServerStatus { server: self.page.server?, revision: self.page.at? })
    }
}

/// Where a paged listing stands.
struct Page {
    key: Vec<u8>,
    end: Vec<u8>,
    at: Option<Revision>,
    limit: i64,
    server: Option<ServerRef>,
}

impl Page {
    fn first(prefix: &[u8], at: Option<Revision>, pace: Pace) -> Self {
        // The empty prefix is every key; the empty key would be refused.
        let key = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
        let limit = match pace {
            Pace::Keys => PAGE_KEYS,
            Pace::Bytes => FIRST_KEYS,
        };
        Self { key, end: prefix_end(prefix), at, limit, server: None }
    }

    /// Asks for as many keys next as would be [`PAGE_BYTES`] if they were as large as these.
    fn fit(&mut self, entries: &[KeyValue]) {
        let bytes: usize = entries.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        let keys = (entries.len() * PAGE_BYTES).checked_div(bytes).unwrap_or_default();
        self.limit = i64::try_from(keys).unwrap_or(PAGE_KEYS).clamp(1, PAGE_KEYS);
    }

    fn request(&self) -> RangeRequest {
        RangeRequest {
            key: self.key.clone(),
            range_end: self.end.clone(),
            limit: self.limit,
            revision: self.at.map_or(0, Revision::to_wire),
            ..RangeRequest::default()
        }
    }

    /// Goes on after `last`: the next possible key is it with a zero byte.
    fn after(&mut self, last: &[u8]) {
        self.key = [last, &[0]].concat();
    }

    /// Asks for fewer keys when their values made the message too large. False when it was one.
    fn shrink(&mut self) -> bool {
        let smaller = (self.limit / 8).max(1);
        std::mem::replace(&mut self.limit, smaller) > smaller
    }
}

/// Returns a client that accepts a page of keys.
fn reader(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_PAGE_BYTES)
}

fn put_request(key: &[u8], value: &[u8], lease: Option<LeaseId>) -> PutRequest {
    PutRequest {
        key: key.to_vec(),
        value: value.to_vec(),
        lease: lease.map_or(0, LeaseId::to_wire),
        ..PutRequest::default()
    }
}

pub(super) fn compare(key: &[u8], expect: Expect) -> Compare {
    let (target, union) = match expect {
        Expect::Absent => (CompareTarget::Version, TargetUnion::Version(0)),
        Expect::At(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(revision.to_wire())),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_vec(),
        target_union: Some(union),
        range_end: Vec::new(),
    }
}

pub(crate) fn status_of(
    op: &Op,
    header: Option<ResponseHeader>,
) -> Result<ServerStatus, StoreError> {
    let header = header.ok_or_else(|| op.unexpected("no header"))?;
    Ok(ServerStatus {
        server: ServerRef { cluster: header.cluster_id, member: header.member_id },
        revision: Revision::from_wire(header.revision),
    })
}

impl From<mvccpb::KeyValue> for KeyValue {
    fn from(raw: mvccpb::KeyValue) -> Self {
        Self {
            key: raw.key,
            value: raw.value,
            created: Revision::from_wire(raw.create_revision),
            modified: Revision::from_wire(raw.mod_revision),
            version: u64::try_from(raw.version).unwrap_or(0),
            lease: LeaseId::from_wire(raw.lease),
        }
    }
}

impl std::fmt::Display for KeyValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", printable(&self.key), self.modified)
    }
}

const PAGE_KEYS: i64 = 1_000;
/// Of a listing whose keys may be large: as many as fit whatever their size.
const FIRST_KEYS: i64 = 64;
/// What a reader that keeps little of it has room for, and large enough that etcd, which counts all that is behind a
/// page for each, is not kept busy with that.
const PAGE_BYTES: usize = 3 << 20;
/// A million nodes with a key each: where a listing that does not end is given up.
const MAX_LISTED: usize = 1_000_000;
/// Larger than the largest single value that a server takes (1.5 MiB), so a page of one key fits.
const MAX_PAGE_BYTES: usize = 16 << 20;
