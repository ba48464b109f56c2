//! What can be wrong with a fact, each by its name and with what would be right.
//!
//! A [`Fault`] is a value: it stays beside the fact it is about, and `status` prints it. Nothing here
//! stops the program, because one bad object does not stop the rest. A fault is said in one line, whole:
//! it is shown in lists, where a chain of causes has no place.

use std::{fmt, net::IpAddr};

use russet_net::{Family, IfName, Mac, Mtu, OutOfRange, ParseError, Prefix, PublicKey, Vni};

use crate::model::{Foreign, LeaseKey, NodeName, Tunnel};

/// Why a fact is not used, or not used in full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes are not the form that they should be.
    #[error("{what} is unreadable: {reason}")]
    Unreadable { what: &'static str, reason: String },

    /// Every fault of a network configuration, told at once.
    #[error("network configuration: {0}")]
    Config(ConfigFaults),

    #[error("the network configuration is gone from the store; the last one stays in force")]
    ConfigGone,

    // ---- a configuration that is right, but not on this node
    #[error(
        "network {network} overlaps the route {route} of this node; choose a network that no route of the nodes touches"
    )]
    NetworkHeld { network: Prefix, route: Prefix },

    #[error(
        "network {network} overlaps the underlay address {addr}; choose a network that holds no node"
    )]
    NetworkHoldsNode { network: Prefix, addr: IpAddr },

    #[error("underlay {link} has no {family} address, and the network has {family}")]
    NoUnderlayAddress { link: IfName, family: Family },

    #[error("underlay {link} with MTU {underlay} leaves too little for {family} pods: {fault}")]
    UnderlayMtu { link: IfName, underlay: Mtu, family: Family, fault: OutOfRange },

    #[error(
        "{pods} running pods have an MTU of up to {have}, and the change would leave {left}; remove them first or keep an MTU of {have}"
    )]
    PodsTooLarge { pods: usize, have: Mtu, left: Mtu },

    #[error("VNI {vni}: {fault}; choose a smaller one")]
    LinkName { vni: Vni, fault: ParseError },

    #[error(
        "its backend is extension: whoever may write it has every node run programs as root, which this node does not \
         unless `allow-commands = true` is in its agent's file"
    )]
    CommandsNotAllowed,

    #[error("{name} has not ended yet, and the lease says what it prints")]
    CommandRuns { name: &'static str },

    #[error("{name}: {reason}; it is tried again")]
    Command { name: &'static str, reason: String },

    #[error("this node's subnet {subnet} is not within the network {network}")]
    OwnOutside { subnet: Prefix, network: Prefix },

    #[error(
        "its address {addr} is not in this node's subnet any more: it reaches this node and its pods, and no other node; start it anew"
    )]
    PodOutside { addr: IpAddr },

    // ---- what a router teaches
    #[error("{dst} {why}")]
    NotTaught { dst: Prefix, why: &'static str },

    #[error("next hop {ip} {why}")]
    NoRouter { ip: IpAddr, why: &'static str },

    #[error("{dst} lies in the subnet of lease {other}, and a lease goes before what routers say")]
    Leased { dst: Prefix, other: LeaseKey },

    // ---- a peer's lease
    #[error("subnet {subnet} is not within the network {network}")]
    OutsideNetwork { subnet: Prefix, network: Prefix },

    #[error("block {subnet} is in no pool; make one around it, or release its addresses")]
    OutsidePools { subnet: Prefix },

    #[error(
        "the pool is gone from the store while {blocks} blocks of it are in use; they are carried as before, and none is given out: put it back, or release them"
    )]
    PoolInUse { blocks: usize },

    #[error("it has no {family} subnet, and the network has {family}")]
    FamilyMissing { family: Family },

    #[error("subnet {subnet} overlaps {other}, which was there first")]
    Overlaps { subnet: Prefix, other: LeaseKey },

    #[error("subnet {subnet} overlaps this node's own {other}")]
    OverlapsOurs { subnet: Prefix, other: Prefix },

    #[error("public address {ip} is also that of {other}, which was there first")]
    SameAddress { ip: IpAddr, other: LeaseKey },

    #[error("public address {ip} is this node's own")]
    OurAddress { ip: IpAddr },

    #[error("it names no {family} public address")]
    NoAddress { family: Family },

    #[error("public address {ip} is no node's address; a unicast address is wanted")]
    NotUnicast { ip: IpAddr },

    #[error("public address {ip} lies in the network {network}; a node's address must not")]
    InsideNetwork { ip: IpAddr, network: Prefix },

    #[error("its VNI is {got}, and this network's is {want}")]
    OtherVni { got: Vni, want: Vni },

    #[error("it names no {family} VTEP MAC")]
    NoMac { family: Family },

    #[error("VTEP MAC {mac} is no station's address; a unicast address is wanted")]
    NotStation { mac: Mac },

    #[error("VTEP MAC {mac} is also that of {other}, which was there first")]
    SameMac { mac: Mac, other: LeaseKey },

    #[error("tunnel address {ip} is also that of {other}, whose node was there first")]
    SameEnd { ip: IpAddr, other: LeaseKey },

    #[error("VTEP MAC {mac} is this node's own")]
    OurMac { mac: Mac },

    #[error("its backend {0} is not spoken by this version; {instead}", instead = .0.instead())]
    Backend(Foreign),

    #[error("its packets are not sealed, and this network's are; only wireguard peers are reached")]
    NotSealed,

    #[error("its backend is wireguard, and this network's is not")]
    NoWireguardHere,

    #[error("it names no {family} public key")]
    NoKey { family: Family },

    #[error("public key {key} is also that of {other}, which was there first")]
    SameKey { key: PublicKey, other: LeaseKey },

    #[error("public key {key} is this node's own")]
    OurKey { key: PublicKey },

    #[error(
        "this node has no WireGuard key: its file could not be read or made, see the agent's log"
    )]
    NoOwnKey,

    #[error("its backend is udp (or alloc, which looks the same), and this network's is not")]
    NoUdpHere,

    #[error("its backend is extension, and this network's is not")]
    NoExtensionHere,

    #[error("nobody says how its node {holder} is reached: there is no Node of that name")]
    HolderUnknown { holder: NodeName },

    #[error(
        "its node has no end of {tunnel} for {family} yet, and of no other tunnel that this node has"
    )]
    NoEnd { tunnel: Tunnel, family: Family },

    #[error(
        "{ip} is not on a link that this node shares ({link}); host-gw needs one, use vxlan between subnets"
    )]
    NotOnLink { ip: IpAddr, link: IfName },
}

impl Fault {
    /// Whether a configuration names a backend that this version will never serve.
    pub fn is_unspoken(&self) -> bool {
        let is_it = |fault: &ConfigFault| {
            matches!(fault, ConfigFault::UnknownBackend { .. } | ConfigFault::Unspoken(_))
        };
        matches!(self, Self::Config(ConfigFaults(faults)) if faults.iter().any(is_it))
    }
}

/// All faults of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let sep = if i == 0 { "" } else { "; " };
            write!(f, "{sep}{fault}")?;
        }
        Ok(())
    }
}

impl From<Vec<ConfigFault>> for Fault {
    fn from(faults: Vec<ConfigFault>) -> Self {
        Self::Config(ConfigFaults(faults))
    }
}

/// One thing that is wrong with a network configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// A key whose value is not of its form. `key` is as flannel's documentation spells it.
    #[error("{key}: {reason}")]
    Value { key: &'static str, reason: String },

    #[error("{key} is missing, and {family} is enabled")]
    NoNetwork { key: &'static str, family: Family },

    #[error("EnableIPv4 and EnableIPv6 are both false; enable one")]
    NoFamily,

    #[error("IPv6 alone has no lease key in flannel; enable IPv4 too, or use the preset russet")]
    Ipv6Alone,

    #[error("{key}: {network} is too small; a network has at most {max} bits of prefix")]
    NetworkTooSmall { key: &'static str, network: Prefix, max: u8 },

    #[error("{key} {len} is not within {min} to {max} for the network {network}")]
    SubnetLen { key: &'static str, len: u64, min: u8, max: u8, network: Prefix },

    #[error("{key}: {subnet} is not within the network {network}")]
    OutsideNetwork { key: &'static str, subnet: Prefix, network: Prefix },

    #[error("{key}: {addr} is not on a boundary of /{len}; the subnet is {right}")]
    NotOnBoundary { key: &'static str, addr: IpAddr, len: u8, right: IpAddr },

    #[error("{min_key} {min} is above {max_key} {max}")]
    MinAboveMax { min_key: &'static str, min: IpAddr, max_key: &'static str, max: IpAddr },

    #[error(
        "Backend.Type is missing or empty; use vxlan, host-gw, udp, ipip, wireguard, alloc or extension"
    )]
    NoBackendType,

    #[error(
        "Backend.Type {name:?} is unknown; use vxlan, host-gw, udp, ipip, wireguard, alloc or extension"
    )]
    UnknownBackend { name: String },

    #[error("backend {0} is not spoken by this version; {instead}", instead = .0.instead())]
    Unspoken(Foreign),

    #[error("Backend.{key}: {fault}")]
    Range { key: &'static str, fault: OutOfRange },

    #[error("{0}")]
    Choice(#[from] crate::choices::Refusal),
}
