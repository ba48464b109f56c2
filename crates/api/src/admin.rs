//! The admin socket: what an operator's command asks of the agent, and what it answers.
//!
//! One request and one reply a connection, each a frame (see `frame`) that says the protocol's version.
//! Times are seconds; addresses and prefixes are text. A field may be added within a version, never
//! removed or given another meaning.

use serde::{Deserialize, Serialize};

/// The version that this program speaks.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub ask: Ask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    Status,
    /// Rows from the `from`-th on, at most [`PAGE`] of them.
    Leases {
        from: usize,
    },
    Routes {
        from: usize,
    },
    Pods {
        from: usize,
    },
    /// Take the store's present snapshot as the truth although it is empty, of another cluster or older
    /// than the checkpoint: what it does not have is then removed.
    AcceptStore,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub version: u32,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Status(Box<Status>),
    Leases(Page<LeaseRow>),
    Routes(Page<RouteRow>),
    Pods(Page<PodRow>),
    Done,
    Error(String),
}

/// Some rows of a list, since a frame has a bound and a cluster has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// How many there are in all.
    pub total: usize,
    pub rows: Vec<T>,
}

impl<T> Page<T> {
    /// The page of `rows` that begins at `from`.
    pub fn cut(rows: impl IntoIterator<Item = T>, from: usize) -> Self {
        let mut total = 0;
        let counted = rows.into_iter().inspect(|_| total += 1);
        let rows = counted
            .enumerate()
            .filter(|(n, _)| (from..from.saturating_add(PAGE)).contains(n))
            .map(|(_, row)| row)
            .collect();
        Self { total, rows }
    }
}

/// The most rows in one answer: with the longest of each they stay below a frame's bound.
pub const PAGE: usize = 1_000;
/// The most rows of one kind in a [`Status`].
pub const SHOWN: usize = 100;

/// How the node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub version: String,
    pub preset: String,
    pub ready: bool,
    /// Why not, each a sentence for a person.
    pub not_ready: Vec<String>,
    pub store: StoreStatus,
    /// The configuration in force, or `None` before the first good one.
    pub network: Option<NetworkStatus>,
    pub uplink: Option<UplinkStatus>,
    /// With preset calico: why this node's own object in the store is not as it should be.
    #[serde(default)]
    pub node_object: Option<String>,
    /// The first [`SHOWN`] nodes; `get leases` has all.
    pub peers: Vec<LeaseRow>,
    pub peers_total: usize,
    pub pods: usize,
    /// Facts that are left out, and why.
    pub refused: Vec<Refused>,
    /// Kernel objects that are not as they should be, and why.
    pub pending: Vec<Pending>,
    /// What somebody else changed and we set right, the newest last.
    pub repaired: Vec<Repaired>,
    /// Paths to other nodes that do not carry what is sent over them.
    #[serde(default)]
    pub paths: Vec<PathProblem>,
    /// Foreign forward chains that drop pod traffic.
    pub forward_drops: Vec<ForwardDrop>,
    /// What the system before us left and we do not remove.
    #[serde(default)]
    pub leftovers: Vec<Leftover>,
    pub counters: Counters,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub endpoints: Vec<String>,
    pub connected: bool,
    pub in_sync: bool,
    pub revision: u64,
    pub cluster_id: Option<String>,
    /// Why the store is not believed: then things are added and nothing is removed.
    pub doubt: Option<String>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// `vxlan`, `vxlan with direct routing`, `direct` or `udp`.
    pub transport: String,
    pub networks: Vec<String>,
    pub subnets: Vec<String>,
    pub pod_mtu: u32,
    /// Where pods are on one; else each is on a link of its own.
    pub bridge: Option<String>,
    /// Seconds until the lease runs out; `None` for one that never does, or before there is one.
    pub lease_expires_in_s: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    pub link: String,
    pub mtu: u32,
    pub addresses: Vec<String>,
}

/// One node's lease, as it is used here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    pub subnets: Vec<String>,
    pub public_ips: Vec<String>,
    /// The peer's own word: `vxlan`, `host-gw`…
    pub backend: String,
    /// How packets go there from here: `vxlan`, `udp`, `direct`, `here`, or `none`.
    pub transport: String,
    pub revision: u64,
    /// Why it is left out.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    pub dst: String,
    pub via: String,
    pub link: String,
    /// `in the kernel`, or why it is not.
    pub state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRow {
    pub container: String,
    pub interface: String,
    pub network: String,
    pub addresses: Vec<String>,
    pub host_link: String,
    pub mtu: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub fact: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub object: String,
    pub reason: String,
    /// The fact that wants the object.
    pub cause: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    pub object: String,
    pub what: String,
    /// The program that did it, where the kernel tells.
    pub by: Option<String>,
    pub times: u64,
    pub seconds_ago: u64,
    /// `event` when the kernel told of it at once, `sweep` when a read-back found it.
    pub found_by: String,
}

/// What is wrong with a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProblem {
    pub path: String,
    pub problem: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardDrop {
    pub chain: String,
    pub why: String,
    pub accepted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    pub what: String,
    /// The commands that remove it.
    pub removal: String,
}

/// What was done since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub kernel_events: u64,
    pub resyncs: u64,
    pub repairs_by_event: u64,
    pub repairs_by_sweep: u64,
    pub netlink_messages: u64,
    pub store_events: u64,
    pub cni_adds: u64,
    pub cni_dels: u64,
}

impl Request {
    pub fn new(ask: Ask) -> Self {
        Self { version: VERSION, ask }
    }
}

impl Reply {
    pub fn new(answer: Answer) -> Self {
        Self { version: VERSION, answer }
    }
}
