//! Who speaks BGP with whom, besides the mesh.

use std::{net::IpAddr, num::NonZeroU8, time::Duration};

use russet_net::{Asn, Port, Selector};

use super::{Name, SecretRef};

/// Peerings between some nodes and a router, or other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    pub between: Between,
    pub remote: Remote,
    pub next_hop: NextHopMode,
    pub password: Option<SecretRef>,
    pub source: SourceAddress,
    pub restart_time: Option<Duration>,
    pub keepalive: Option<Duration>,
    /// How often our own AS number may be in a path that is received.
    pub allowed_own_as: u8,
    /// How many hops a packet of the peer's may have taken (RFC 5082).
    pub ttl_hops: Option<NonZeroU8>,
    /// The gateway that leads to a peer on no link of ours.
    pub reachable_by: Option<IpAddr>,
    /// [`BgpFilter`](super::BgpFilter)s by name, in order.
    pub filters: Vec<Name>,
    pub local_asn: Option<Asn>,
    pub failure_detection: FailureDetection,
}

/// Our end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Between {
    EveryNode,
    Node(Name),
    Nodes(Selector),
}

/// Their end. A router has an address and an AS number; nodes have their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    Router {
        ip: IpAddr,
        port: Option<Port>,
        asn: Asn,
    },
    Nodes(Selector),
    /// Pods on the same node.
    Workloads {
        chosen: Selector,
        asn: Asn,
    },
}

/// The next hop of what is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHopMode {
    #[default]
    Auto,
    /// Always this node.
    Own,
    Keep,
}

/// How a peer that is silent is found, before its hold time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureDetection {
    #[default]
    None,
    /// By BFD over one hop, where the peer is on a subnet of this node.
    BfdIfDirectlyConnected,
}

/// The address that a session leaves from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceAddress {
    #[default]
    UseNodeIp,
    None,
}
