//! The node agent: what the store declares and the node observes, made into this node's network.
//!
//! `tasks` draws who runs and what flows; `owner` is the one that knows; `config` is what it is told; `cni` serves
//! the container runtime; `disk` is what survives.

pub mod bgp;
pub mod cni;
pub mod config;
pub mod disk;
pub mod ipam;
pub mod resources;

mod admin;
mod calico;
mod endpoints;
mod errands;
mod http;
mod keeper;
mod lock;
mod metrics;
mod node;
mod notify;
mod owner;
mod pods;
mod prober;
pub mod register;
mod store_task;
mod tasks;

use std::{io, path::PathBuf, sync::Arc};

pub use lock::running_beside;
pub use node::{Found, OwnAddresses, look_for as look_for_uplink};
use russet_core::{
    Fault,
    model::{Preset, Sealer},
};
pub use russet_kernel::one_line;

use russet_net::IfName;

use crate::{config::Config, lock::LockError};

/// Why the agent could not start, or go on. A start that fails touches nothing of the node's network.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("take the node's lock")]
    Lock(#[from] LockError),
    #[error("{op} {}", path.display())]
    File { op: &'static str, path: PathBuf, source: io::Error },
    #[error("listen on {0}")]
    Listen(std::net::SocketAddr, #[source] io::Error),
    #[error("start the reconcile lane")]
    Lane(#[source] russet_kernel::KernelError),
    #[error("watch this node's links and routes")]
    Observe(#[source] russet_kernel::KernelError),
    #[error("use the node's name in Calico's keys")]
    NodeName(#[source] russet_net::ParseError),
    #[error("start the thread {0}")]
    Thread(&'static str, #[source] io::Error),
    #[error("start the BGP speaker")]
    Bgp(#[source] bgp::BgpError),
    /// A pod is what it was made; the node's end changed under it would cut it off.
    #[error(
        "attach pods as pods.attachment says: {pods} running pods of this node (the first on {first}) are attached \
         in the other way, and cannot change over; take them away first, or put the setting back"
    )]
    AttachedOtherwise { pods: usize, first: IfName },
    #[error("serve the CNI plugin")]
    Cni(#[source] cni::ServeError),
    #[error("serve the network in the store; as flanneld does, it is not waited for another")]
    Unspoken(#[source] Fault),
    #[error(
        "run the owner: its task ended by itself, as the log tells; the pods' network stays as it is"
    )]
    OwnerEnded,
}

/// Runs the agent until `shutdown` is ready. Nothing is removed from the kernel then.
///
/// # Errors
///
/// When it cannot start, or when the task that knows everything ends by itself: who supervises us starts us
/// anew then, which is better than to look alive.
pub async fn run(mut config: Config, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    config.settings.sealer = config.sealing.unwrap_or_else(usual_sealer);
    let seen = node::look().map_err(StartError::Observe)?;
    config.settings.macs = node::macs(&seen);
    let otherwise = node::attached_otherwise(&seen, config.settings.attachment);
    if let Some(first) = otherwise.first() {
        return Err(StartError::AttachedOtherwise { pods: otherwise.len(), first: *first });
    }
    say_what_is_left(&config);
    let config = Arc::new(config);
    let _lock = lock::NodeLock::take(&config.paths.lock())?;
    tracing::info!(op = "start", node = %config.settings.node, version = env!("CARGO_PKG_VERSION"), "russet agent");
    let mut running = tasks::start(&config).await?;
    tokio::select! {
        () = shutdown => {}
        error = running.owner_ended() => return Err(error),
    }
    tracing::info!(op = "stop", "the agent stops; the pods' network stays as it is");
    notify::notify("STOPPING=1");
    running.stop().await;
    Ok(())
}

/// What flannel left by `iptables-legacy` does no harm beside ours, and is not ours to remove.
fn say_what_is_left(config: &Config) {
    if config.settings.preset != Preset::Flannel {
        return;
    }
    match russet_kernel::legacy::flannel_chains() {
        Ok(chains) => chains.iter().for_each(|chain| {
            let removal = chain.removal();
            tracing::warn!(op = "start", %chain, %removal, "flannel left a chain that stays");
        }),
        Err(error) => {
            tracing::warn!(op = "start", %error, "iptables-legacy's tables could not be looked at");
        }
    }
}

/// The kernel where it can: it is faster, and no process of ours is in a packet's way.
fn usual_sealer() -> Sealer {
    if russet_kernel::wireguard::is_spoken() { Sealer::Kernel } else { Sealer::Engine }
}

/// Waits until then; for ever where there is nothing to wait for.
async fn until(at: Option<impl Into<tokio::time::Instant>>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Unknown to others, and another at each call.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
