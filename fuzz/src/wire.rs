//! Calls of etcd's API whose messages are any bytes: each is answered or refused, and the store goes on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::OnceLock,
    time::Duration,
};

use russet_store::server::{Keep, Limits, ServerConfig, serve};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::Code;

use crate::raw::RawClient;

/// A sequence of calls upon one store: `[which call, length, message…]` each.
///
/// # Panics
///
/// When the store does not answer any more, or says that a fault is its own.
pub fn store_wire(bytes: &[u8]) {
    let server = server();
    server.runtime.block_on(async {
        let mut rest = bytes;
        for _ in 0..CALLS {
            let [which, length, message @ ..] = rest else { break };
            let (message, after) = message.split_at(usize::from(*length).min(message.len()));
            server.call(*which, message).await;
            rest = after;
        }
        let alive = server.client.call(STATUS, Vec::new()).await;
        alive.expect("the store goes on");
    });
}

/// One for all inputs: it lives in memory, and bounds keep it small.
struct Server {
    runtime: Runtime,
    client: RawClient,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
            .expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let limits =
            Limits { store_bytes: 1 << 20, history: 1_000, leases: 100, ..Limits::default() };
        let config = ServerConfig { limits, keep: Keep::Memory, ..ServerConfig::default() };
        runtime.spawn(serve(config, listener, std::future::pending()));
        let client = runtime.block_on(async { RawClient::new(address) });
        Server { runtime, client }
    })
}

impl Server {
    async fn call(&self, which: u8, message: &[u8]) {
        let which = usize::from(which) % (UNARY.len() + STREAMS.len());
        let ended = match UNARY.get(which) {
            Some(path) => self.client.call(path, message.to_vec()).await.err(),
            None => self.stream(which - UNARY.len(), message).await,
        };
        if let Some(status) = ended {
            // tonic's own word for a message that is no message.
            let own_fault = status.code() == Code::Internal && !status.message().contains("decode");
            assert!(!own_fault && status.code() != Code::Unknown, "{status:?}");
        }
    }

    /// Opens a stream with one message and hears what comes at once.
    async fn stream(&self, which: usize, message: &[u8]) -> Option<tonic::Status> {
        let path = STREAMS.get(which)?;
        let messages = tokio_stream::iter([message.to_vec()]);
        let mut answers = match self.client.stream(path, messages).await {
            Ok(answers) => answers,
            Err(status) => return Some(status),
        };
        loop {
            match tokio::time::timeout(PATIENCE, answers.message()).await {
                Ok(Ok(Some(_))) => {}
                Ok(Err(status)) => return Some(status),
                Ok(Ok(None)) | Err(_) => return None,
            }
        }
    }
}

const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const UNARY: &[&str] = &[
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Cluster/MemberList",
];
const STREAMS: &[&str] = &["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];
/// Of one input.
const CALLS: usize = 64;
/// For what a stream says at once.
const PATIENCE: Duration = Duration::from_millis(5);
