//! The kinds of kernel object that netlink and sysctl carry, in the order in which they are made.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use russet_net::{Family, IfName, Mac, Mtu, Prefix, PresharedKey, PublicKey, Vni};

/// One kind of kernel object: what tells two of them apart, and what may be said of one.
pub trait Kind: 'static {
    type Key: Ord + Clone + fmt::Debug + fmt::Display + Send + 'static;
    type Value: Eq + Clone + fmt::Debug + Send + 'static;

    /// As an operator calls it: `next hop`.
    const NAME: &'static str;
}

/// On or off, for what the kernel keeps as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Off,
    On,
}

impl Flag {
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

impl From<bool> for Flag {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

// ---- links

/// A link of ours: made, kept up, and known again by its link group and alias.
#[derive(Debug)]
pub enum Link {}

impl Kind for Link {
    type Key = IfName;
    type Value = LinkSpec;
    const NAME: &'static str = "link";
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    pub kind: LinkKind,
    /// What the link is for; the alias is `russet:<role>`. Lower case, no blanks.
    pub role: &'static str,
    /// `None` leaves it to the kernel; a bridge should always have one, or it changes with its ports.
    pub mac: Option<Mac>,
    pub mtu: Mtu,
    pub master: Option<IfName>,
    /// Whether an unmarked link of this name and kind is what the system before us left, for us to take over as it
    /// is. Else it is somebody else's.
    pub inherits: Flag,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Bridge,
    Vxlan(VxlanSpec),
    /// IPv4 in IPv4; whoever a packet's next hop is gets it.
    Ipip(IpipSpec),
    /// The kernel's end of a userspace transport, persistent, with as many queues as its reader opens.
    Tun,
    /// The kernel's own WireGuard; its key, port and peers are kinds of their own.
    Wireguard,
    /// The host's end of a pod's veth. It is made with its peer by the attach lane and only kept here:
    /// a driver cannot make it again without the pod's namespace, and says so.
    PodVeth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanSpec {
    pub vni: Vni,
    /// Our VTEP's underlay address.
    pub local: IpAddr,
    pub underlay: IfName,
    pub port: russet_net::Port,
    pub learning: Flag,
    pub gbp: Flag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpipSpec {
    /// Our underlay address; `None` leaves it to the route, as the kernel's own device has it.
    pub local: Option<Ipv4Addr>,
}

// ---- bridge ports

/// What is particular to a link as a port of a bridge.
#[derive(Debug)]
pub enum Port {}

impl Kind for Port {
    type Key = IfName;
    type Value = PortSpec;
    const NAME: &'static str = "bridge port";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Whether a frame may leave by the port that it came in by.
    pub hairpin: Flag,
}

// ---- addresses

/// An address on a link of ours.
#[derive(Debug)]
pub enum Address {}

impl Kind for Address {
    type Key = AddressKey;
    type Value = AddressSpec;
    const NAME: &'static str = "address";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressKey {
    pub link: IfName,
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.addr, self.len, self.link)
    }
}

/// IPv6 addresses are always set without duplicate address detection: ours are unique by their lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpec {
    pub scope: AddressScope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressScope {
    Global,
    Link,
}

// ---- engines

/// A process that carries packets between a TUN link of ours and the underlay, and outlives who started it.
#[derive(Debug)]
pub enum Engine {}

impl Kind for Engine {
    type Key = IfName;
    type Value = EngineSpec;
    const NAME: &'static str = "engine";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSpec {
    pub wire: EngineWire,
    pub v4: Option<EngineEnd>,
    pub v6: Option<EngineEnd>,
}

/// How an engine puts packets on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineWire {
    /// Bare, as flannel's `udp`.
    Udp,
    Wireguard(WireguardSpec),
}

/// What all tunnels of a node have in common but for its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardSpec {
    pub psk: Option<PresharedKey>,
    /// Seconds between packets that keep a way open; zero is none.
    pub keepalive: u16,
}

/// An engine's own addresses in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineEnd {
    /// The underlay address and port that peers send to.
    pub listen: SocketAddr,
    /// The link's address, which the engine's own answers come from.
    pub inner: IpAddr,
}

/// Where an engine sends what is for a prefix, and from where it takes what comes from there.
#[derive(Debug)]
pub enum EnginePeer {}

impl Kind for EnginePeer {
    type Key = EnginePeerKey;
    type Value = EnginePeerSpec;
    const NAME: &'static str = "engine peer";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnginePeerKey {
    pub link: IfName,
    pub prefix: Prefix,
}

impl fmt::Display for EnginePeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.prefix, self.link)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginePeerSpec {
    pub endpoint: SocketAddr,
    /// The peer's key, where packets are sealed.
    pub key: Option<PublicKey>,
}

// ---- WireGuard in the kernel

/// What a WireGuard link of ours is by itself. Its private key is no wish: the driver takes it from the node's file.
#[derive(Debug)]
pub enum WireguardDevice {}

impl Kind for WireguardDevice {
    type Key = IfName;
    type Value = WireguardDeviceSpec;
    const NAME: &'static str = "WireGuard device";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardDeviceSpec {
    /// The public half of the node's key, by which the private one is told right.
    pub key: PublicKey,
    /// Where it listens, at every address of the node.
    pub port: russet_net::Port,
}

/// Whom a WireGuard link of ours takes for the holder of a prefix: what is for it is sealed for the holder, and what
/// comes from it is believed of nobody else (`AllowedIPs`).
#[derive(Debug)]
pub enum WireguardPeer {}

impl Kind for WireguardPeer {
    type Key = WireguardPeerKey;
    type Value = WireguardPeerSpec;
    const NAME: &'static str = "WireGuard peer";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireguardPeerKey {
    pub link: IfName,
    pub prefix: Prefix,
}

impl fmt::Display for WireguardPeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.prefix, self.link)
    }
}

/// Prefixes of one key on one link are one peer, and say the same of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardPeerSpec {
    pub key: PublicKey,
    pub endpoint: SocketAddr,
    pub shared: WireguardSpec,
}

// ---- next hops

/// A next-hop object, which routes share. Its number is the driver's business.
#[derive(Debug)]
pub enum NextHop {}

impl Kind for NextHop {
    type Key = NextHopKey;
    type Value = NextHopSpec;
    const NAME: &'static str = "next hop";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopKey {
    pub via: IpAddr,
    pub link: IfName,
}

impl fmt::Display for NextHopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "via {} dev {}", self.via, self.link)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopSpec {
    /// Whether the gateway is taken to be on the link although no route says so.
    pub onlink: Flag,
}

// ---- routes

/// A route of ours (protocol 82), through a next-hop object, onto a link, or into nowhere.
#[derive(Debug)]
pub enum Route {}

impl Kind for Route {
    type Key = RouteKey;
    type Value = RouteSpec;
    const NAME: &'static str = "route";
}

/// What the kernel tells one route from another by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    pub table: u32,
    pub dst: Prefix,
    /// As the kernel keeps it: an IPv6 route without one has [`ROUTE_METRIC_V6`].
    pub metric: u32,
}

impl RouteKey {
    /// The key of `dst` in the main table with the family's usual metric.
    pub fn main(dst: Prefix) -> Self {
        let metric = match dst.family() {
            Family::V4 => ROUTE_METRIC_V4,
            Family::V6 => ROUTE_METRIC_V6,
        };
        Self { table: TABLE_MAIN, dst, metric }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if self.table != TABLE_MAIN {
            write!(f, " table {}", self.table)?;
        }
        if *self != (Self { table: self.table, ..Self::main(self.dst) }) {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    pub via: RouteVia,
    /// Whether one that does the same and bears nobody's mark is taken over: a predecessor's.
    pub inherits: Flag,
}

/// Where a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteVia {
    Hop(NextHopKey),
    /// Whoever is on this link.
    Link(IfName),
    /// Nowhere: packets vanish without a word.
    Blackhole,
}

impl RouteVia {
    pub const fn hop(self) -> Option<NextHopKey> {
        match self {
            Self::Hop(hop) => Some(hop),
            Self::Link(_) | Self::Blackhole => None,
        }
    }
}

impl From<NextHopKey> for RouteVia {
    fn from(hop: NextHopKey) -> Self {
        Self::Hop(hop)
    }
}

impl fmt::Display for RouteVia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hop(hop) => hop.fmt(f),
            Self::Link(link) => write!(f, "dev {link}"),
            Self::Blackhole => f.write_str("blackhole"),
        }
    }
}

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
pub const ROUTE_METRIC_V4: u32 = 0;
/// `IP6_RT_PRIO_USER`: what the kernel puts in the place of no metric.
pub const ROUTE_METRIC_V6: u32 = 1_024;

// ---- neighbours

/// A permanent neighbour on a link of ours.
#[derive(Debug)]
pub enum Neighbour {}

impl Kind for Neighbour {
    type Key = NeighbourKey;
    type Value = NeighbourSpec;
    const NAME: &'static str = "neighbour";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourKey {
    pub link: IfName,
    pub ip: IpAddr,
}

impl fmt::Display for NeighbourKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.ip, self.link)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSpec {
    pub mac: Mac,
}

// ---- forwarding database

/// A `self` entry on a VXLAN link of ours: behind which VTEP a MAC is.
#[derive(Debug)]
pub enum Fdb {}

impl Kind for Fdb {
    type Key = FdbKey;
    type Value = FdbSpec;
    const NAME: &'static str = "FDB entry";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbKey {
    pub link: IfName,
    pub mac: Mac,
}

impl fmt::Display for FdbKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.mac, self.link)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbSpec {
    /// The remote VTEP's underlay address.
    pub dst: IpAddr,
}

// ---- offloads

/// What a link of ours leaves to the hardware. It is only required, and left as it is when no longer wanted.
#[derive(Debug)]
pub enum Offload {}

impl Kind for Offload {
    type Key = IfName;
    type Value = OffloadSpec;
    const NAME: &'static str = "offload";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadSpec {
    /// Whether checksums of what is sent may be left to a later link (`ethtool -K … tx`).
    pub tx_checksum: Flag,
}

// ---- sysctls

/// A kernel setting that we need and do not own: it is set, and reported when somebody sets it back.
#[derive(Debug)]
pub enum Sysctl {}

impl Kind for Sysctl {
    type Key = SysctlKey;
    type Value = SysctlSpec;
    const NAME: &'static str = "sysctl";
}

/// A path below `/proc/sys`, with slashes. Keys are set in their order: what must come first has the
/// lower rank (`accept_ra` before `forwarding`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlKey {
    pub rank: u8,
    pub path: String,
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysctlSpec {
    pub value: &'static str,
    /// Left alone where the kernel does not have it (`bridge-nf-call-iptables` without `br_netfilter`).
    pub optional: Flag,
}
