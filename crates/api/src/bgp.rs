//! The BGP speaker's admin socket: what `russet bgp status|routes|peer|dump` ask, and what is answered.
//!
//! The rules are those of `admin`: one request and one reply a connection, times are seconds, addresses are
//! text.

use serde::{Deserialize, Serialize};

use crate::admin::Page;

/// The version that this program speaks.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub ask: Ask,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// The speaker and its peers, from the `from`-th on.
    Status { from: usize },
    /// One peer, by its address.
    Peer { address: String },
    /// Routes of a family from a number on; the answer has the next.
    Routes { family: String, from: u32 },
    /// One route, by its prefix.
    Route { prefix: String },
    /// Write all routes into a file on the speaker's machine (MRT, RFC 6396).
    Dump { path: String },
    /// Read the configuration again.
    Reload,
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
    Peer(Box<PeerRow>),
    Routes(Routes),
    /// How many routes were written.
    Dumped(usize),
    Done,
    Error(String),
}

/// How the speaker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub asn: u32,
    pub router_id: String,
    pub cluster_id: String,
    pub listen: Vec<String>,
    pub families: Vec<FamilyCount>,
    /// How many different sets of attributes the routes have.
    pub attribute_sets: usize,
    pub peers: Page<PeerRow>,
    /// Connections from addresses that nobody has configured.
    pub strangers: u64,
    /// What is wrong with a configuration that was read and not taken.
    pub refused_configuration: Option<String>,
    /// What there is to tell of the resources that it goes by, and of sessions that do not stand at the objects that
    /// say them; on each page that of its peers.
    #[serde(default)]
    pub objects: Vec<ObjectRow>,
}

/// Something to tell of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// `BGPPeer`.
    pub kind: String,
    pub name: String,
    /// `fault`, `no effect` or `note`.
    pub grade: String,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyCount {
    pub family: String,
    pub destinations: usize,
}

/// A peer and its session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    pub address: String,
    pub description: Option<String>,
    /// As Calico calls it: `node-to-node mesh`, `node specific`, `global`; none of a file.
    #[serde(default)]
    pub kind: Option<String>,
    /// The `BGPPeer` that says it, and the node that it is.
    #[serde(default)]
    pub object: Option<String>,
    #[serde(default)]
    pub node: Option<String>,
    /// It is not wished any more, and goes when others carry its routes, or after so many seconds.
    #[serde(default)]
    pub leaves_in_s: Option<u64>,
    /// As configured: a number, `internal` or `external`; when the session stands, the number.
    pub asn: String,
    pub state: String,
    pub router_id: Option<String>,
    /// Who opened the connection.
    pub direction: Option<String>,
    /// Seconds that the session stands.
    pub up_s: Option<u64>,
    /// Why it ended last, with what the other side said.
    pub last_error: Option<String>,
    pub hold_time_s: Option<u16>,
    /// What both sides can do, each a word or two.
    pub capabilities: Vec<String>,
    pub families: Vec<PeerFamily>,
    pub messages_in: u64,
    pub messages_out: u64,
    pub octets_in: u64,
    pub octets_out: u64,
    /// UPDATEs of which attributes were left out, and UPDATEs whose routes count as withdrawn.
    pub discarded: u64,
    pub treated_as_withdraw: u64,
    pub refreshes: u64,
    pub times_up: u64,
    /// How the way to it is watched, while the session stands.
    pub bfd: Option<BfdRow>,
}

/// A BFD session (RFC 5880).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdRow {
    /// `AdminDown`, `Down`, `Init` or `Up`.
    pub state: String,
    /// Milliseconds of silence after which the peer is dead.
    pub detection_ms: Option<u64>,
    /// How often it was up and went down.
    pub downs: u64,
    /// Why it went down last, or cannot be.
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFamily {
    pub family: String,
    pub received: u32,
    /// It has told all that it had.
    pub end_of_rib: bool,
    /// Its routes are kept while it restarts.
    pub stale: bool,
}

/// Some routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub rows: Vec<RouteRow>,
    /// Where to go on; `None` at the end.
    pub next: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    pub prefix: String,
    pub paths: Vec<PathRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathRow {
    /// The peer's address, or `here`.
    pub from: String,
    pub path_id: Option<u32>,
    pub next_hop: String,
    pub as_path: String,
    pub origin: String,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    pub communities: Vec<String>,
    pub originator_id: Option<String>,
    pub cluster_list: Vec<String>,
    /// Labels and the like of an EVPN route.
    pub detail: Option<String>,
    pub best: bool,
    /// Why it is the best, why it lost, or what dropped it.
    pub why: String,
    pub stale: bool,
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
