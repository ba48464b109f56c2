//! Where something is, in the words that a lease, a block, BGP and EVPN share.
//!
//! A distribution learns and announces [`Reach`]; a transport turns it into kernel state. Neither needs
//! to know the other.

use std::net::IpAddr;

use crate::{IfName, Mac, Port, Prefix, PublicKey};

/// What can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dst {
    Prefix(Prefix),
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// On this node.
    Here,
    /// Behind a node whose underlay address is `ip`, and which takes packets in such a form.
    Node { ip: IpAddr, form: Form },
}

/// In what form a node takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// By VXLAN, for the VTEP with this MAC. What it has for an address within the network is the gateway; `None` is the
    /// base of the prefix, as flannel has it.
    Vtep { mac: Mac, inner: Option<IpAddr> },
    /// Bare, as the payload of IP (RFC 2003).
    Ipip,
    /// Bare, as the payload of UDP.
    Udp,
    /// Sealed by WireGuard for this key, at this port.
    Wireguard(PublicKey, Port),
    /// By commands of the operator's.
    Extension,
    /// By whatever somebody else has laid; nothing of ours is in the way.
    Foreign,
}

/// What a routing protocol says something is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Router {
    pub ip: IpAddr,
    /// Where the address holds, when it holds on one link only.
    pub link: Option<IfName>,
}

impl From<IpAddr> for Router {
    fn from(ip: IpAddr) -> Self {
        Self { ip, link: None }
    }
}

/// One thing that can be reached, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub dst: Dst,
    pub at: At,
}
