//! The BGP speaker's shell: sockets, tasks, the configuration, the admin socket. What BGP is, `russet_bgp` knows.
//!
//! ```text
//!                      accepted            octets of UPDATE (≤ 4 MiB in all)
//!   listeners ──▶ manager ──▶ peer task ◀──── reader ─────────────────────────▶ ┌────────┐
//!                   │  ▲      (session,        one a connection                 │ routes │  a thread
//!    admin, SIGHUP ─┘  │      timers)  ────▶ writer ◀── chunks, shared ──────── │ (RIB)  │
//!                      └─ asks ──────┘         one a connection    ── room ───▶ └────────┘
//! ```
//!
//! A peer's session and its timers live in the peer's task; the RIB has a thread of its own. A keepalive passes from
//! task to writer and never waits for the RIB; a reader that waits for the RIB says so, and its peer is not
//! held dead meanwhile. Each queue has a bound: a reader stops reading when the RIB is behind, a writer is
//! handed new chunks only as it gets rid of the old ones, and a connection is closed when its peer takes
//! nothing any more.
//!
//! `bgp/manager` has the peers, `bgp/peer` a session, `bgp/conn` reader and writer, `bgp/routes` the RIB's thread,
//! `bgp/bfd` and `bgp/discovery` a task each that peers are watched and found by, `bgp/socket` how sockets are made,
//! `bgp/config` what is told and `bgp/reload` what becomes of it later, `bgp/admin`, `bgp/show` and `bgp/metrics` what
//! is answered, `bgp/dump` the MRT file.

mod admin;
mod bfd;
pub mod config;
mod conn;
mod discovery;
mod dump;
pub mod handover;
mod join;
mod manager;
mod metrics;
mod own;
mod peer;
mod reload;
pub mod resources;
mod routes;
mod show;
mod socket;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::join::{Learned, Node};
use self::{
    config::BgpConfig,
    manager::Manager,
    resources::{AsNumbers, Base, Folder, Resources, Wished, derive},
};
use crate::config::ConfigFaults;

/// Why the speaker could not start.
#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    #[error("listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("serve metrics on {0}")]
    Http(SocketAddr, #[source] io::Error),
    #[error("sign connections with {0}")]
    Signature(std::net::IpAddr, #[source] io::Error),
    #[error("listen on {}", .0.display())]
    Admin(PathBuf, #[source] io::Error),
    #[error("start the thread of the routes")]
    Thread(#[source] io::Error),
    #[error("listen for SIGHUP")]
    Signal(#[source] io::Error),
}

/// Runs a speaker until `shutdown` is ready; the peers are told that it goes. SIGHUP has the configuration
/// read again by `read`; sessions that did not change stay.
///
/// # Errors
///
/// When it cannot start.
pub async fn run(
    config: BgpConfig,
    read: impl Fn() -> Result<BgpConfig, ConfigFaults> + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BgpError> {
    tracing::info!(op = "start", asn = %config.local.asn, version = env!("CARGO_PKG_VERSION"), "russet bgp");
    let read = Box::new(move |_| read().map(Wished::from));
    let manager = Manager::start(config.into(), read, None, None).await?;
    manager.run(shutdown).await;
    Ok(())
}

/// As [`run`], by resources instead of a file. `read` is told which AS numbers are in force.
///
/// # Errors
///
/// When it cannot start.
pub async fn run_by_resources(
    wished: Wished,
    read: impl Fn(Option<AsNumbers>) -> Result<Wished, ConfigFaults> + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BgpError> {
    let asn = wished.config.local.asn;
    tracing::info!(op = "start", %asn, version = env!("CARGO_PKG_VERSION"), "russet bgp");
    let manager = Manager::start(wished, Box::new(read), None, None).await?;
    manager.run(shutdown).await;
    Ok(())
}

/// Starts a speaker that is part of a node, from a file that SIGHUP has read again. It runs until it is dropped: what
/// it has taught stays with the node, and peers that restart gracefully keep what it told them.
///
/// # Errors
///
/// When it cannot start.
pub async fn join(
    config: BgpConfig,
    file: PathBuf,
    node: Node,
) -> Result<impl Future<Output = ()>, BgpError> {
    tracing::info!(op = "start", asn = %config.local.asn, "BGP speaker of this node");
    let read = move |_| BgpConfig::load(&file).map(Wished::from);
    let manager = Manager::start(config.into(), Box::new(read), None, Some(node)).await?;
    Ok(manager.run(std::future::pending()))
}

/// What a speaker that goes by resources is given.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Each time something of them has changed, all of them.
    pub resources: watch::Receiver<Arc<Resources>>,
    pub base: Base,
    pub secrets: Folder,
}

/// As [`join`], by resources instead of a file. It begins as soon as they say who this node is, and is tried again when it
/// cannot start; it ends when nobody says anything any more before that.
pub async fn join_by_resources(mut feed: Feed, node: Node) {
    let mut told = String::new();
    loop {
        let started = start_by_resources(&feed, &node).await;
        let fault = match started {
            Ok(manager) => return manager.run(std::future::pending()).await,
            Err(fault) => fault,
        };
        if fault != told {
            tracing::warn!(op = "start", error = fault, "no BGP speaker yet");
            told = fault;
        }
        // What is in the way may go by itself: an address in use, a file of a password.
        let changed = tokio::time::timeout(START_AGAIN, feed.resources.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

async fn start_by_resources(feed: &Feed, node: &Node) -> Result<Manager, String> {
    let (base, secrets) = (feed.base.clone(), feed.secrets.clone());
    let (resources, mut news) = (feed.resources.clone(), feed.resources.clone());
    let read = move |in_force| {
        let resources = Arc::clone(&resources.borrow());
        derive(&resources, &base, in_force, &secrets)
    };
    news.borrow_and_update();
    let wished = read(None).map_err(|faults| faults.to_string())?;
    tracing::info!(op = "start", asn = %wished.config.local.asn, "BGP speaker of this node, by resources");
    let node = Some(node.clone());
    let started = Manager::start(wished, Box::new(read), Some(news), node).await;
    started.map_err(|err| crate::one_line(&err))
}

const START_AGAIN: Duration = Duration::from_secs(5);
