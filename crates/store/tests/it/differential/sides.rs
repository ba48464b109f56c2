//! The two servers, each asked the same.

use russet_store::{
    proto::etcdserverpb::{
        LeaseKeepAliveRequest, LeaseTimeToLiveRequest, ResponseHeader, ResponseOp, TxnResponse,
        kv_client::KvClient, lease_client::LeaseClient, response_op::Response as OpResponse,
    },
    server::{Keep, ServerConfig},
};
use tonic::{Status, transport::Channel};

use super::calls::Call;
use crate::backend::{Etcd, Ours, client_of, wait_ready};

pub(super) struct Sides {
    pub(super) ours: Side,
    pub(super) etcd: Side,
    running: Option<Ours>,
    process: Etcd,
    config: ServerConfig,
    _dir: tempfile::TempDir,
}

/// One server, by its clients.
#[derive(Clone)]
pub(super) struct Side {
    pub(super) channel: Channel,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

/// An answer without what differs by nature.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The revision, and the answer as text.
    Told(i64, String),
    Refused(tonic::Code, String),
}

impl Sides {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::File(dir.path().join("store.db"));
        let config = ServerConfig { keep, ..ServerConfig::default() };
        let ours = Ours::start(config.clone());
        let process = Etcd::start(&[]).await;
        let (left, right) = (Side::new(ours.address), Side::new(process.address));
        Self { ours: left, etcd: right, running: Some(ours), process, config, _dir: dir }
    }

    pub(super) async fn restart(&mut self) {
        let ours = self.running.take().unwrap();
        let address = ours.address;
        ours.stop().await;
        // Not killed: etcd would do even more again.
        self.process.restart_in_peace();
        self.running = Some(Ours::start_at(self.config.clone(), address));
        wait_ready(&client_of(self.process.address)).await;
        wait_ready(&client_of(address)).await;
        self.ours = Side::new(address);
        self.etcd = Side::new(self.process.address);
    }

    pub(super) async fn ask(&mut self, call: &Call) -> (Answer, Answer) {
        tokio::join!(self.ours.ask(call), self.etcd.ask(call))
    }

    pub(super) async fn lease_is_gone(&mut self, id: i64) -> bool {
        let (ours, etcd) = tokio::join!(self.ours.ttl(id), self.etcd.ttl(id));
        ours == -1 && etcd == -1
    }
}

impl Side {
    fn new(address: std::net::SocketAddr) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.unwrap().connect_lazy();
        let (kv, lease) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
        Self { channel, kv, lease }
    }

    async fn ttl(&mut self, id: i64) -> i64 {
        let request = LeaseTimeToLiveRequest { id, keys: false };
        self.lease.lease_time_to_live(request).await.unwrap().into_inner().ttl
    }

    async fn ask(&mut self, call: &Call) -> Answer {
        let answer = match call.clone() {
            Call::Range(request) => self.kv.range(request).await.map(|answer| {
                let mut answer = answer.into_inner();
                told(answer.header.take(), &answer)
            }),
            Call::Put(request) => self.kv.put(request).await.map(|answer| {
                let mut answer = answer.into_inner();
                told(answer.header.take(), &answer)
            }),
            Call::Delete(request) => self.kv.delete_range(request).await.map(|answer| {
                let mut answer = answer.into_inner();
                told(answer.header.take(), &answer)
            }),
            Call::Txn(request) => self.kv.txn(request).await.map(|answer| {
                let mut answer = answer.into_inner();
                bare(&mut answer);
                told(answer.header.take(), &answer)
            }),
            Call::Compact(request) => self.kv.compact(request).await.map(|answer| {
                let mut answer = answer.into_inner();
                told(answer.header.take(), &answer)
            }),
            call => self.ask_lease(call).await,
        };
        answer.unwrap_or_else(|status| refused(&status))
    }

    async fn ask_lease(&mut self, call: Call) -> Result<Answer, Status> {
        match call {
            Call::Grant(request) => {
                let mut answer = self.lease.lease_grant(request).await?.into_inner();
                Ok(told(answer.header.take(), &answer))
            }
            Call::Revoke(request) => {
                let mut answer = self.lease.lease_revoke(request).await?.into_inner();
                Ok(told(answer.header.take(), &answer))
            }
            Call::TimeToLive(request) => {
                let mut answer = self.lease.lease_time_to_live(request).await?.into_inner();
                // A second may pass between the two; and a restart gives ours its full time again.
                answer.ttl = answer.ttl.min(0);
                answer.keys.sort();
                Ok(told(answer.header.take(), &answer))
            }
            Call::Leases(request) => {
                let mut answer = self.lease.lease_leases(request).await?.into_inner();
                answer.leases.sort_by_key(|lease| lease.id);
                Ok(told(answer.header.take(), &answer))
            }
            Call::KeepAlive(id) => {
                let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
                let mut answers = self.lease.lease_keep_alive(requests).await?.into_inner();
                let mut answer = answers.message().await?.unwrap_or_default();
                Ok(told(answer.header.take(), &answer))
            }
            _ => unreachable!("not a call of one answer"),
        }
    }
}

fn told(header: Option<ResponseHeader>, answer: &impl std::fmt::Debug) -> Answer {
    Answer::Told(header.map_or(-1, |header| header.revision), format!("{answer:?}"))
}

fn refused(status: &Status) -> Answer {
    Answer::Refused(status.code(), status.message().to_owned())
}

/// Takes the headers within off: they name who answered.
fn bare(answer: &mut TxnResponse) {
    for ResponseOp { response } in &mut answer.responses {
        let header = match response {
            Some(OpResponse::ResponseRange(answer)) => &mut answer.header,
            Some(OpResponse::ResponsePut(answer)) => &mut answer.header,
            Some(OpResponse::ResponseDeleteRange(answer)) => &mut answer.header,
            Some(OpResponse::ResponseTxn(answer)) => {
                bare(answer);
                &mut answer.header
            }
            None => continue,
        };
        if let Some(header) = header {
            *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
        }
    }
}
