//! A client of etcd's v3 API: the part of it that the contract needs.
//!
//! - `client/call.rs`: one request - endpoint, token, time limit, what may be repeated;
//! - `client/kv.rs`: reads, compare-and-swap writes, leases;
//! - `client/batch.rs`, `client/lease.rs`: unconditional writes and leases by number, for copying a store;
//! - `client/guarded.rs`: many writes at once, under conditions;
//! - `client/maintenance.rs`: a server's own file: its size, its snapshot;
//! - `client/identity.rs`: the cluster's id;
//! - `client/watch.rs`: a snapshot, then every change, across breaks and compactions.
//!
//! A handle is cheap to clone and shares its connections. Creating one connects to nothing: the
//! first request does.

pub(crate) mod backoff;
mod batch;
mod call;
mod guarded;
mod identity;
mod kv;
mod lease;
mod maintenance;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch::{Receiver, Sender};
use tonic::transport::{Channel, Endpoint};

pub(crate) use self::call::printable;
pub use self::{
    batch::Write,
    guarded::Guard,
    identity::ClusterId,
    kv::{Listing, ServerStatus},
    lease::LeaseTime,
    maintenance::{MemberStatus, TransferError},
    watch::Watch,
};
use crate::{
    config::{ClientConfig, Login},
    contract::WatchRequest,
};

/// A handle on the datastore.
#[derive(Clone, Debug)]
pub struct EtcdClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoints: Vec<(Endpoint, String)>,
    /// One connection per endpoint, made when it is first needed and again after it broke. Replaced as a whole.
    channels: Sender<Vec<Channel>>,
    /// The endpoint that answered last; a failure moves it on.
    current: AtomicUsize,
    login: Option<Login>,
    token: tokio::sync::Mutex<call::Token>,
    request_timeout: std::time::Duration,
}

impl EtcdClient {
    /// Creates a handle. Must be called inside a tokio runtime, whose tasks drive the connections.
    #[must_use]
    pub fn new(config: &ClientConfig) -> Self {
        let endpoints = config.endpoints.iter().map(|endpoint| {
            let name = endpoint.uri().to_string();
            (endpoint.clone(), name.trim_end_matches('/').to_owned())
        });
        let endpoints: Vec<_> = endpoints.collect();
        let shared = Shared {
            channels: Sender::new(connections(&endpoints)),
            endpoints,
            current: AtomicUsize::new(0),
            login: config.login.clone(),
            token: tokio::sync::Mutex::default(),
            request_timeout: config.request_timeout,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Leaves every connection and makes others when they are needed. A watch goes on where it stands and tells
    /// nobody; a request that is under way is not repeated.
    ///
    /// For whoever knows that they lead nowhere, because this machine has another address now: pings take 10 s
    /// to find that out. Must be called inside a tokio runtime.
    pub fn reconnect(&self) {
        self.shared.channels.send_replace(connections(&self.shared.endpoints));
    }

    /// Hears of [`Self::reconnect`].
    fn reconnections(&self) -> Receiver<Vec<Channel>> {
        self.shared.channels.subscribe()
    }

    /// Returns the connection to use now, and its endpoint's name.
    fn endpoint(&self) -> (Channel, &str) {
        let at = self.shared.current.load(Ordering::Relaxed) % self.shared.endpoints.len().max(1);
        // `at` is below the length of both: a checked configuration has at least one endpoint.
        (self.shared.channels.borrow()[at].clone(), &self.shared.endpoints[at].1)
    }

    /// Lets the next request try another endpoint.
    fn next_endpoint(&self) {
        self.shared.current.fetch_add(1, Ordering::Relaxed);
    }

    /// Watches every key under the prefixes. Ends when the returned handle is dropped.
    ///
    /// The events wait in a bounded queue; a receiver that is slow slows the stream down, it loses
    /// nothing.
    #[must_use]
    pub fn watch(&self, request: WatchRequest) -> Watch {
        Watch::start(self.clone(), request)
    }
}

fn connections(endpoints: &[(Endpoint, String)]) -> Vec<Channel> {
    endpoints.iter().map(|(endpoint, _)| endpoint.connect_lazy()).collect()
}
