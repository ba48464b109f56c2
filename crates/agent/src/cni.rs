//! The CNI server: what the plugin asks, done by one thread that owns pod records and pod links.
//!
//! ```text
//!  russet-cni ─▶ reader ×4 ─ Job (64) ─▶ lane ──▶ records (disk), pod links (kernel), core
//!            ◀──────── answer ──────────┘ │ ▲
//!                                         │ └─ Reaped ── reaper ─▶ removes marked links, forgets flows
//!                                         └───────────── syncer ─▶ makes records durable
//! ```
//!
//! A reader takes one connection at a time, sees that root is at its other end, and bounds how long a whole
//! request may take. The lane does one thing at a time, as the kernel does with its links; but of all ADDs
//! that wait it first reserves the addresses, so that one sync of the disk serves them all and runs while
//! the kernel is at work. `records` has the addresses, `note` and `link` what else a pod has and by which name,
//! `add` and `del` the two large calls, `reap` what is removed later, `blocks` what is asked where addresses are out
//! of blocks, `spool` the DELs that came while we were away.

mod add;
mod assign;
mod blocks;
mod check;
mod del;
pub mod fake;
mod lane;
mod link;
pub mod name;
mod note;
mod reap;
pub mod records;
mod server;
mod spool;
mod sync;

use std::{fmt, io, net::IpAddr, path::PathBuf};

use russet_core::model::{PodFact, PodId, PodNetwork};
use russet_kernel::netlink::NetlinkError;

pub use self::{blocks::Line, records::RecordError, server::Server};
use crate::one_line;

/// What the lane needs of the agent. It is called from the lane's and the reaper's thread and must not wait
/// for either.
pub trait Core: fmt::Debug + Send + Sync + 'static {
    /// What a pod that is added now is given.
    ///
    /// # Errors
    ///
    /// When no pod can be added now, and why.
    fn pod_network(&self) -> Result<PodNetwork, NotReady>;

    /// The pods of an earlier life: the whole picture, told once, before any other change.
    fn recovered(&self, pods: &[(PodId, PodFact)]);

    /// A pod was attached: its address is recorded and its link is up. Its link has no alias yet: whoever
    /// keeps links sets it.
    fn attached(&self, id: PodId, fact: PodFact);

    /// A pod is about to be detached. It may be one that nobody knows.
    fn detached(&self, id: &PodId);

    /// Removes what connection tracking remembers of addresses whose pod is gone.
    ///
    /// # Errors
    ///
    /// With the reason, for the log: an address is given back all the same.
    fn forget_flows(&self, addresses: &[IpAddr]) -> Result<(), String>;
}

/// Why no pod can be added now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    /// A sentence for a person.
    pub reason: String,
    pub existing: Existing,
}

/// How the pods that are there fare meanwhile (CNI: STATUS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Fine,
    /// They may have lost their connection.
    Limited,
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// The socket that the plugin connects to.
    pub socket: PathBuf,
    /// Where the plugin leaves DELs that nobody could take.
    pub spool: PathBuf,
    /// host-local's folder: `/var/lib/cni/networks`.
    pub records: PathBuf,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{op} {}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("start thread {0}")]
    Thread(&'static str, #[source] io::Error),
    #[error("pod links")]
    Kernel(#[from] NetlinkError),
    #[error("pod records")]
    Records(#[from] RecordError),
    #[error("read this boot's id")]
    Boot(#[source] io::Error),
}

/// An attachment, as everything here is keyed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) network: String,
    pub(crate) pod: PodId,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.pod)
    }
}
