//! What the API says of the server itself: the member, its status, snapshots of all that it holds.

mod hash;
mod snapshot;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{super::owner::STREAM_QUEUED, Api, RAFT_TERM};
use crate::{
    contract::Revision,
    proto::etcdserverpb::{self as pb, auth_server, cluster_server, maintenance_server},
    server::{image::Image, mvcc::MvccError},
};

#[tonic::async_trait]
impl cluster_server::Cluster for Api {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let us = pb::Member {
            id: self.identity.member,
            name: "russet".to_owned(),
            client_urls: vec![self.identity.url.clone()],
            ..pb::Member::default()
        };
        let header = Some(self.current_header().await?);
        Ok(Response::new(pb::MemberListResponse { header, members: vec![us] }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(alone())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(alone())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(alone())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(alone())
    }
}

#[tonic::async_trait]
impl maintenance_server::Maintenance for Api {
    /// The one alarm there is follows the space: it goes when there is room again, asked to or not.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let facts = self.owner.facts().await?;
        let header = Some(self.current_header().await?);
        let here = pb::AlarmMember { member_id: self.identity.member, alarm: ALARM_NOSPACE };
        // Deactivating answers with what was put out (as etcd); what is still so is not.
        let told = facts.full && request.into_inner().action != DEACTIVATE;
        let alarms = if told { vec![here] } else { Vec::new() };
        Ok(Response::new(pb::AlarmResponse { header, alarms }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let facts = self.owner.facts().await?;
        let header = self.current_header().await?;
        let revision = u64::try_from(header.revision).unwrap_or(0);
        let in_use = i64::try_from(facts.bytes).unwrap_or(i64::MAX);
        let size = i64::try_from(facts.file_bytes).unwrap_or(i64::MAX);
        let full = facts.full.then(|| "etcdserver: mvcc: database space exceeded".to_owned());
        Ok(Response::new(pb::StatusResponse {
            header: Some(header),
            version: API_VERSION.to_owned(),
            // In memory there is no file.
            db_size: if size == 0 { in_use } else { size },
            db_size_in_use: if size == 0 { in_use } else { in_use.min(size) },
            leader: self.identity.member,
            raft_index: revision,
            raft_applied_index: revision,
            raft_term: RAFT_TERM,
            errors: full.into_iter().collect(),
            ..pb::StatusResponse::default()
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.owner.defragment().await?;
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let image = self.owner.image().await?;
        let header = Some(self.header(image.revision));
        let hash = hash_of(image, Revision::ZERO).await?.hash;
        Ok(Response::new(pb::HashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let at = request.into_inner().revision;
        let image = self.owner.image().await?;
        let header = Some(self.header(image.revision));
        let answer = hash_of(image, Revision::from_wire(at)).await?;
        Ok(Response::new(pb::HashKvResponse { header, ..answer }))
    }

    type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let permit = Arc::clone(&self.snapshots).try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted(MANY_SNAPSHOTS))?;
        let image = self.owner.image().await?;
        let (sender, answers) = mpsc::channel(STREAM_QUEUED);
        tokio::task::spawn_blocking(move || {
            if let Err(err) = snapshot::send(&image, &sender) {
                // The client may have gone before us.
                let _ = sender.blocking_send(Err(Status::internal(err.to_string())));
            }
            drop(permit);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(alone())
    }
}

#[tonic::async_trait]
impl auth_server::Auth for Api {
    async fn authenticate(
        &self,
        _: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(Status::failed_precondition("etcdserver: authentication is not enabled"))
    }
}

/// One machine's store has nobody to share its work with.
fn alone() -> Status {
    Status::unimplemented("russet store is one machine's store: it has no other members")
}

/// Hashes on a thread that may take its time.
async fn hash_of(image: Image, at: Revision) -> Result<pb::HashKvResponse, Status> {
    let hashed = tokio::task::spawn_blocking(move || hash::hash_kv(&image, at)).await;
    let hashed: Result<_, MvccError> = hashed.map_err(|err| Status::internal(err.to_string()))?;
    Ok(hashed.map_err(super::super::state::Refused::from)?)
}

/// The version of etcd's API that is spoken, for clients that look before they ask.
pub(crate) const API_VERSION: &str = "3.4.0";
/// etcd API: `AlarmType`, `AlarmAction`.
const ALARM_NOSPACE: i32 = 1;
const DEACTIVATE: i32 = 2;
const MANY_SNAPSHOTS: &str = "etcdserver: too many snapshots at one time";
