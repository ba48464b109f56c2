//! What a node is asked to report of itself, and what it reports.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32};

use russet_net::{IfName, Prefix};

use super::Name;

/// Somebody's wish for reports from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoNodeStatus {
    pub node: Name,
    pub classes: BTreeSet<ReportClass>,
    /// `None`: once, and never again.
    pub period_seconds: Option<NonZeroU32>,
}

impl CalicoNodeStatus {
    /// One day.
    pub const MOST_SECONDS: u32 = 86_400;
    /// Where it is not said.
    pub const USUAL_SECONDS: u32 = 10;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportClass {
    Agent,
    Bgp,
    Routes,
}

/// A report: the speaker, and its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// RFC 3339, in UTC.
    pub updated: String,
    /// Whether the speaker runs.
    pub ready: bool,
    pub version: String,
    pub router_id: String,
    pub peers: Vec<ReportedPeer>,
    pub routes: Vec<ReportedRoute>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedPeer {
    pub ip: IpAddr,
    pub kind: PeerKind,
    pub state: SessionState,
    /// When the session came into that state, for a reader.
    pub since: String,
}

/// A route of the speaker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRoute {
    pub dst: Prefix,
    pub via: Option<IpAddr>,
    pub link: Option<IfName>,
    pub used: RouteUse,
    pub source: RouteSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteUse {
    /// In the kernel.
    Forwarding,
    /// Known, and another is better.
    Known,
}

/// Who taught a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    Kernel,
    Static,
    Direct,
    NodeMesh(IpAddr),
    BgpPeer(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    NodeMesh,
    NodePeer,
    GlobalPeer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}
