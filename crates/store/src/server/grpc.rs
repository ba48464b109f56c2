//! The services of the API over the owner: unwrap, ask, wrap. No decision is made here.
//! What is about the server itself is in `maintenance.rs`.

mod maintenance;

pub(crate) use self::maintenance::API_VERSION;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    service::Routes,
    transport::{Server, server::Router},
};

use super::{
    Limits,
    mvcc::MvccError,
    news::News,
    owner::{Handle, STREAM_QUEUED, stopping},
    state::{Answer, Refused, State},
    watch,
};
use crate::{
    contract::{LeaseId, Revision},
    proto::etcdserverpb::{
        self as pb, auth_server, cluster_server, kv_server, lease_server, maintenance_server,
        watch_server,
    },
    random,
};

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) struct ServerIdentity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) url: String,
}

/// All services. One value serves every connection.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) owner: Handle,
    pub(crate) identity: Arc<ServerIdentity>,
    pub(crate) limits: Arc<Limits>,
    /// How many snapshots may be made at one time.
    snapshots: Arc<Semaphore>,
}

/// Adds the services to a server.
pub(crate) fn routes(
    mut server: Server,
    owner: &Handle,
    identity: ServerIdentity,
    limits: &Limits,
) -> Router {
    // etcd lets the message be a little larger than the request, so that its own error is seen.
    let largest = limits.request_bytes.saturating_add(512 << 10);
    let api = Api {
        owner: owner.clone(),
        identity: Arc::new(identity),
        limits: Arc::new(limits.clone()),
        snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
    };
    // As etcd: the whole server is one service, without a name, and serves while it runs.
    let (_, health) = tonic_health::server::health_reporter();
    let mut routes = Routes::new(health)
        .add_service(kv_server::KvServer::new(api.clone()).max_decoding_message_size(largest))
        .add_service(watch_server::WatchServer::new(api.clone()))
        .add_service(lease_server::LeaseServer::new(api.clone()))
        .add_service(cluster_server::ClusterServer::new(api.clone()))
        .add_service(maintenance_server::MaintenanceServer::new(api.clone()))
        .add_service(auth_server::AuthServer::new(api));
    let calls = std::mem::take(routes.axum_router_mut());
    *routes.axum_router_mut() = calls.reset_fallback().merge(super::http::routes(owner));
    server.add_routes(routes)
}

impl Api {
    pub(crate) fn header(&self, revision: Revision) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            revision: revision.to_wire(),
            raft_term: RAFT_TERM,
        }
    }

    /// Asks the owner for something that has a revision of its own and may add so many bytes.
    async fn ask<R: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut State) -> Answer<R> + Send + 'static,
    ) -> Result<(R, Option<pb::ResponseHeader>), Status> {
        let (answer, revision) = self.owner.ask_to_write(bytes, |state, _| work(state)).await??;
        Ok((answer, Some(self.header(revision))))
    }

    pub(crate) async fn current_header(&self) -> Result<pb::ResponseHeader, Status> {
        Ok(self.header(self.owner.ask(|state, _| state.revision()).await?))
    }
}

#[tonic::async_trait]
impl kv_server::Kv for Api {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        let (answer, header) = self.ask(0, move |state| state.range(&request)).await?;
        Ok(Response::new(pb::RangeResponse { header, ..answer }))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let (answer, header) = self.ask(bytes, |state| state.put(request)).await?;
        Ok(Response::new(pb::PutResponse { header, ..answer }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let (answer, header) = self.ask(bytes, |state| state.delete(request)).await?;
        Ok(Response::new(pb::DeleteRangeResponse { header, ..answer }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let (answer, header) = self.ask(bytes, |state| state.txn(request)).await?;
        Ok(Response::new(pb::TxnResponse { header, ..answer }))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let revision = Revision::from_wire(request.into_inner().revision);
        let revision =
            self.owner.ask_to_write(SMALL, move |state, _| state.compact(revision)).await??;
        Ok(Response::new(pb::CompactionResponse { header: Some(self.header(revision)) }))
    }
}

#[tonic::async_trait]
impl watch_server::Watch for Api {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, answers) = mpsc::channel(STREAM_QUEUED);
        tokio::spawn(watch::run(self.clone(), request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

#[tonic::async_trait]
impl lease_server::Lease for Api {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let id = LeaseId::from_wire(request.id).unwrap_or_else(fresh_lease_id);
        let ttl = self
            .owner
            .ask_to_write(SMALL, move |state, now| state.grant(id, request.ttl, now))
            .await??;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: Some(self.current_header().await?),
            id: id.to_wire(),
            ttl: seconds(ttl),
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let id = LeaseId::from_wire(request.into_inner().id).ok_or(Refused::LeaseNotFound)?;
        let revision = self.owner.ask_to_write(SMALL, move |state, _| state.revoke(id)).await??;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(self.header(revision)) }))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (sender, answers) = mpsc::channel(STREAM_QUEUED);
        tokio::spawn(keep_alive(self.clone(), request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let header = Some(self.current_header().await?);
        let status = match LeaseId::from_wire(request.id) {
            Some(id) => self.owner.ask(move |state, now| state.lease_status(id, now)).await?,
            None => None,
        };
        // A lease that does not exist has a time of -1, without an error (as etcd).
        let missing = pb::LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: -1,
            ..pb::LeaseTimeToLiveResponse::default()
        };
        Ok(Response::new(match status {
            None => missing,
            Some(status) => pb::LeaseTimeToLiveResponse {
                ttl: seconds(status.left),
                granted_ttl: seconds(status.granted),
                keys: if request.keys { status.keys } else { Vec::new() },
                ..missing
            },
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let ids = self.owner.ask(|state, _| state.leases()).await?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.to_wire() }).collect();
        let header = Some(self.current_header().await?);
        Ok(Response::new(pb::LeaseLeasesResponse { header, leases }))
    }
}

/// Renews whatever the client names until one of us goes.
async fn keep_alive(
    api: Api,
    mut requests: Streaming<pb::LeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<pb::LeaseKeepAliveResponse, Status>>,
) {
    let mut news = api.owner.news.clone();
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            () = gone(&mut news) => Err(stopping()),
        };
        let answer = match request {
            Ok(Some(request)) => renew(&api, request.id).await,
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let failed = answer.is_err();
        if answers.send(answer).await.is_err() || failed {
            return;
        }
    }
}

async fn renew(api: &Api, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let ttl = match LeaseId::from_wire(id) {
        Some(id) => api.owner.ask(move |state, now| state.renew(id, now)).await?,
        None => None,
    };
    // No time means that there is no such lease (as etcd).
    let ttl = ttl.map_or(0, seconds);
    Ok(pb::LeaseKeepAliveResponse { header: Some(api.current_header().await?), id, ttl })
}

/// Waits until the owner has gone.
async fn gone(news: &mut tokio::sync::watch::Receiver<News>) {
    while news.changed().await.is_ok() {}
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        Self::new(code(refused), refused.to_string())
    }
}

/// Returns the code that etcd has for a refusal (etcd API: `rpctypes`).
fn code(refused: Refused) -> Code {
    match refused {
        Refused::EmptyKey
        | Refused::KeyNotFound
        | Refused::ValueProvided
        | Refused::LeaseProvided
        | Refused::InvalidSort
        | Refused::TooManyOps
        | Refused::DuplicateKey
        | Refused::TooLarge => Code::InvalidArgument,
        Refused::NoSpace | Refused::TooManyLeases => Code::ResourceExhausted,
        Refused::LeaseNotFound => Code::NotFound,
        Refused::Grant(super::lease::GrantError::Exists) => Code::FailedPrecondition,
        Refused::Grant(super::lease::GrantError::TooLong)
        | Refused::Mvcc(MvccError::Compacted(_) | MvccError::Future) => Code::OutOfRange,
    }
}

/// The header of an answer inside a transaction: only the revision, as etcd's.
pub(crate) fn bare_header(revision: Revision) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: revision.to_wire(), ..pb::ResponseHeader::default() }
}

/// A lease's number is a positive one, so that it prints as 16 hex digits at most.
fn fresh_lease_id() -> LeaseId {
    let positive = i64::try_from(random::id64() >> 1).unwrap_or(i64::MAX);
    LeaseId::from_wire(positive.max(1)).unwrap_or_else(fresh_lease_id)
}

fn seconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// There is one member, elected once.
const RAFT_TERM: u64 = 1;
/// Bytes that a request without a value may add to the file.
const SMALL: usize = 64;
/// Each writes a file as large as the store.
const SNAPSHOTS: usize = 2;
