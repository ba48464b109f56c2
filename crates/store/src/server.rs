//! `russet store`: a small etcd v3 server in one process.
//!
//! ```text
//!  connections.rs ── grpc.rs, http.rs ── commands (bounded) ──▶ owner.rs: one task that owns everything
//!      ▲                                              │  state.rs  every request, upon the two below
//!      │                                              │  mvcc.rs   keys and their history (pure)
//!      │                                              │  lease.rs  who expires when (pure)
//!      │                            records, answers  ▼
//!      └── watch.rs ◀── news.rs ◀── writer.rs: one thread ──▶ journal.rs: the file
//! ```
//!
//! Nobody has an answer, and no watcher hears of a change, before it is on the disk.
//!
//! Nothing is pushed to a watcher: each stream pulls the history from where it stands when it has
//! room, so one that is slow holds nobody back and costs no memory. When the history it needs is
//! compacted it is told so, as by etcd.
//!
//! It is one machine's store and does not pretend to be more.

mod connections;
mod grpc;
mod http;
pub(crate) mod image;
mod journal;
mod lease;
pub(crate) mod mvcc;
mod news;
pub(crate) mod open;
mod owner;
mod record;
mod state;
pub(crate) mod txn;
mod watch;
mod writer;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::Router};

use self::connections::Connections;
pub use self::{journal::JournalError, open::FileError};
use crate::config::{ConfigFaults, read_certificates, read_key};

/// How the store is served.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    pub exposure: Exposure,
    pub limits: Limits,
    pub keep: Keep,
    /// The cluster number of a store that is new. Random unless told; a file brings its own.
    pub cluster: Option<u64>,
}

/// Where the store keeps what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nowhere: what it held is gone when it ends, and the next one is another cluster's.
    #[default]
    Memory,
    /// In this file, which is made when there is none.
    File(PathBuf),
}

/// Who can reach the store, and how they prove who they are.
#[derive(Clone, Debug, Default)]
pub enum Exposure {
    /// Plain text, on a loopback address only; any other is refused.
    #[default]
    Loopback,
    /// Plain text on any address: *whoever reaches the port reads and writes the whole network's
    /// configuration*. For network namespaces that nobody else can reach, such as the lab's.
    AllowPlaintext,
    /// TLS, and only clients whose certificate the authority signed.
    MutualTls(MutualTls),
}

/// The certificates of a server that asks its clients for theirs.
#[derive(Clone)]
pub struct MutualTls {
    identity: Identity,
    client_ca: Certificate,
}

/// What bounds the memory that clients can make the store use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one request (`--max-request-bytes` of etcd).
    pub request_bytes: usize,
    /// Compares, and operations of either branch, of one transaction (`--max-txn-ops`).
    pub txn_ops: usize,
    /// Bytes of keys and values, history included (`--quota-backend-bytes`).
    pub store_bytes: u64,
    /// Revisions of history that are kept; older ones are compacted on the way.
    pub history: u64,
    /// Leases that live at one time.
    pub leases: usize,
    /// Watchers on one stream.
    pub watchers_per_stream: usize,
    /// Streams and requests at one time on one connection.
    pub streams_per_connection: u32,
    /// Connections at one time; one more is closed.
    pub connections: usize,
    /// A connection that has said nothing for so long is closed.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1_536 * 1_024,
            txn_ops: 128,
            store_bytes: 512 << 20,
            history: 100_000,
            leases: 100_000,
            watchers_per_stream: 10_000,
            streams_per_connection: 1_024,
            connections: 8_192,
            silence: Duration::from_secs(10),
        }
    }
}

/// Why the store cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "listen on {0}: not a loopback address, and neither mutual TLS nor plain text is configured"
    )]
    Exposed(SocketAddr),
    #[error("listen address")]
    Listener(#[source] std::io::Error),
    #[error("serve the datastore")]
    Transport(#[source] tonic::transport::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
    /// A fault of ours, which was logged where it happened.
    #[error("the datastore ended by a fault of its own")]
    Panicked,
}

impl MutualTls {
    /// Reads the server's certificate and key and the authority of its clients, all PEM.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn read(cert: &Path, key: &Path, client_ca: &Path) -> Result<Self, ConfigFaults> {
        let mut faults = Vec::new();
        let cert = read_certificates(cert, &mut faults);
        let key = read_key(key, &mut faults);
        let client_ca = read_certificates(client_ca, &mut faults);
        match (cert, key, client_ca) {
            (Some(cert), Some(key), Some(ca)) => Ok(Self {
                identity: Identity::from_pem(cert, key),
                client_ca: Certificate::from_pem(ca),
            }),
            _ => Err(ConfigFaults(faults)),
        }
    }

    fn server(self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity)
            .client_ca_root(self.client_ca)
            .timeout(HANDSHAKE)
    }
}

impl std::fmt::Debug for MutualTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MutualTls")
    }
}

/// Listens with as long a queue as the system allows: a crowd that connects at once, as all agents do when a
/// store comes back, overflows the usual 1,024, and the kernel then resets some of them.
///
/// # Errors
///
/// When the address cannot be had, or outside a runtime.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LONGEST_QUEUE)
}

/// Serves the store on `listener` until `shutdown` is ready, then ends every stream and waits a
/// little for the requests that run.
///
/// # Errors
///
/// When the address is exposed without protection, the certificates do not fit, or the file cannot be
/// used; also when the disk fails later.
pub async fn serve(
    config: ServerConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    let (server, scheme) = prepare(config.exposure.clone(), address)?;
    let (state, journal) = open_store(&config).await?;
    let identity = grpc::ServerIdentity {
        cluster: state.cluster(),
        member: state.member(),
        url: format!("{scheme}://{address}"),
    };
    let owner = owner::start(state, journal).map_err(ServeError::Thread)?;
    let router = server
        // Beside gRPC, for `/health` and `/version`.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(config.limits.streams_per_connection);
    let router = grpc::routes(router, &owner.handle, identity, &config.limits);
    let connections = Connections::new(listener, &config.limits);
    tracing::info!(via = %address, "datastore served");
    run(router, connections, owner, shutdown).await
}

/// Reads the file, which may take a moment, beside whatever else this runtime has to do.
async fn open_store(config: &ServerConfig) -> Result<open::Opened, ServeError> {
    let (keep, cluster, limits) = (config.keep.clone(), config.cluster, config.limits.clone());
    let opened = tokio::task::spawn_blocking(move || open::open(&keep, cluster, &limits)).await;
    Ok(opened.map_err(|_| ServeError::Panicked)??)
}

async fn run(
    router: Router,
    connections: Connections,
    mut owner: owner::Owner,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = router.serve_with_incoming_shutdown(connections, async move {
        // An error means that the other half is gone, which is a reason to stop as well.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServeError::Transport),
        // The disk failed: better no store than one that forgets.
        ended = &mut owner.task => {
            return Err(match ended {
                Ok(Err(err)) => ServeError::File(err.into()),
                Ok(Ok(())) | Err(_) => ServeError::Panicked,
            });
        }
        () = shutdown => {}
    }
    // Without an owner the streams end, and with them the connections.
    let closed = owner.stop().await;
    drop(stop);
    if let Ok(ended) = tokio::time::timeout(SHUTDOWN_GRACE, serving).await {
        ended.map_err(ServeError::Transport)?;
    }
    Ok(closed.map_err(FileError::from)?)
}

fn prepare(exposure: Exposure, address: SocketAddr) -> Result<(Server, &'static str), ServeError> {
    match exposure {
        Exposure::Loopback if !address.ip().is_loopback() => Err(ServeError::Exposed(address)),
        Exposure::Loopback | Exposure::AllowPlaintext => Ok((Server::builder(), "http")),
        Exposure::MutualTls(tls) => {
            let server = Server::builder().tls_config(tls.server());
            Ok((server.map_err(ServeError::Transport)?, "https"))
        }
    }
}

/// A client that says nothing for this long is asked whether it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not come to an end with TLS gives its place back.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The kernel takes less when `net.core.somaxconn` says so.
const LONGEST_QUEUE: u32 = 65_535;
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused_unless_told_otherwise() {
        let elsewhere: SocketAddr = "192.0.2.1:2379".parse().unwrap();
        let everywhere: SocketAddr = "[::]:2379".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:2379".parse().unwrap();
        for address in [elsewhere, everywhere] {
            let refused = prepare(Exposure::Loopback, address).map(drop).unwrap_err();
            assert!(matches!(refused, ServeError::Exposed(at) if at == address));
            assert!(prepare(Exposure::AllowPlaintext, address).is_ok());
        }
        assert!(prepare(Exposure::Loopback, here).is_ok());
    }
}
