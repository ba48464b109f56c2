//! The words of the calculation: what a network, a lease, a node and a pod are to us.
//!
//! None of these types is serialised; `api` has the wire forms and converts them by hand. `model/config`
//! has the network's configuration, `model/lease` the leases, `model/ends` where tunnels end, `model/own` what this node has, `model/extension` commands of the operator's, `model/calico`
//! Calico's objects.

pub mod calico;
mod config;
mod ends;
mod extension;
mod lease;
mod own;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use russet_desired::Flag;
use russet_net::{Family, IfName, Mac, Mtu, Prefix, PublicKey};

pub use self::{
    calico::Name as NodeName,
    config::{
        IpipConfig, NetworkConfig, Pool, PoolHabits, TransportConfig, UdpConfig, VxlanConfig,
        WireguardConfig, WireguardMode,
    },
    ends::{Ends, Tunnel, VxlanEnd},
    extension::{ExtensionConfig, PRE_STARTUP, Prepared},
    lease::{Backend, Foreign, Lease, LeaseKey, Vtep, WireguardEnd},
    own::Own,
};
use crate::choices::Distribution;

/// Which system's habits this node follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// Names, keys and defaults as flannel has them.
    #[default]
    Flannel,
    /// Names and keys of our own where flannel has none or has a bad one.
    Russet,
    /// Names, keys and settings as Calico has them.
    Calico,
}

impl Preset {
    /// What the node's ends of pods' links begin with.
    pub const fn pod_links(self) -> &'static str {
        match self {
            Self::Flannel | Self::Russet => "rst",
            Self::Calico => "cali",
        }
    }
}

/// Who hands out pod addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// This node, out of the subnets that it leases.
    #[default]
    NodeSubnet,
    /// The store, out of blocks that have an affinity to a node.
    Blocks,
}

/// How pods meet this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// All on one bridge.
    #[default]
    Bridge,
    /// Each on a link of its own, with a route to each of its addresses.
    Routed,
}

/// This node's own settings, constant while the process lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This node's name; MAC addresses are derived from it, so it must be the cluster's only one.
    pub node: String,
    pub preset: Preset,
    pub addressing: Addressing,
    pub attachment: Attachment,
    /// How routes that no tunnel is for come to this node.
    pub distribution: Distribution,
    /// The bridge that pods are attached to, where they are.
    pub bridge: IfName,
    /// Whether packets that leave the network take the node's address (`-ip-masq`).
    pub masquerade: Flag,
    /// Whether masquerading picks source ports at random.
    pub fully_random: Flag,
    /// Whether a foreign forward chain that drops gets an accept for the network.
    pub forward_accept: Flag,
    /// Whether what is for an address of this node's subnet that no pod has goes nowhere (`-ip-blackhole-route`),
    /// also while there is no bridge.
    pub blackhole: Flag,
    /// Whether a pod may reach itself through a service.
    pub hairpin: Flag,
    /// What the node's ends of pods' links begin with.
    pub pod_links: &'static str,
    /// Whether routed pods ask for their gateway's MAC and the node answers for it, as with Calico. Else they have it as a
    /// neighbour for ever, which works on a node without a default route too.
    pub proxy_arp: Flag,
    /// Whether clients from outside are masqueraded on their way to a pod of another node (flannel's rule 6).
    pub hide_client_source: Flag,
    /// Whether the store's configuration may name programs that this node runs (flannel's `extension`).
    pub commands: Flag,
    /// This node's WireGuard key, where it has one.
    pub key: Option<PublicKey>,
    /// Who seals this node's packets.
    pub sealer: Sealer,
    /// The MAC addresses of links that were there before: peers and pods know them, so they stay.
    pub macs: BTreeMap<IfName, Mac>,
}

/// Who seals packets on a node: its peers see no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sealer {
    /// The kernel's own WireGuard.
    Kernel,
    /// A process of ours, where the kernel has none.
    #[default]
    Engine,
}

impl Settings {
    /// The preset's usual settings for a node.
    pub fn new(node: impl Into<String>, preset: Preset, bridge: IfName) -> Self {
        Self {
            node: node.into(),
            preset,
            addressing: match preset {
                Preset::Flannel | Preset::Russet => Addressing::NodeSubnet,
                Preset::Calico => Addressing::Blocks,
            },
            attachment: match preset {
                Preset::Flannel | Preset::Russet => Attachment::Bridge,
                Preset::Calico => Attachment::Routed,
            },
            bridge,
            distribution: Distribution::Store,
            masquerade: Flag::Off,
            commands: Flag::Off,
            fully_random: Flag::On,
            forward_accept: Flag::from(preset == Preset::Flannel),
            blackhole: Flag::Off,
            hairpin: Flag::On,
            pod_links: preset.pod_links(),
            proxy_arp: Flag::Off,
            hide_client_source: Flag::from(preset != Preset::Calico),
            key: None,
            sealer: Sealer::default(),
            macs: BTreeMap::new(),
        }
    }

    /// The MAC of a link that keeps what it has, if it had one.
    pub fn mac_of(&self, link: IfName) -> Option<Mac> {
        self.macs.get(&link).copied().filter(|mac| mac.is_unicast())
    }

    /// Whether what flannel left unmarked is ours to take over.
    pub fn inherits(&self) -> Flag {
        Flag::from(self.preset == Preset::Flannel)
    }

    /// Whether a device of the network that was left unmarked is ours to take over, when it is as it should be.
    pub fn inherits_devices(&self) -> Flag {
        Flag::from(matches!(self.preset, Preset::Flannel | Preset::Calico))
    }

    /// Whether a link bears a name that is ours to give: the bridge, a tunnel, the node's end of a veth.
    pub fn is_ours(&self, link: IfName) -> bool {
        let starts = |prefix| link.as_str().starts_with(prefix);
        link == self.bridge
            || starts("rst")
            || starts(self.pod_links)
            || match self.preset {
                Preset::Flannel => starts("flannel"),
                Preset::Calico => CALICO_TUNNELS.contains(&link.as_str()),
                Preset::Russet => false,
            }
    }
}

/// Calico's devices: VXLAN, IPIP and WireGuard, in each family.
const CALICO_TUNNELS: [&str; 5] =
    ["vxlan.calico", "vxlan-v6.calico", "tunl0", "wireguard.cali", "wg-v6.cali"];

/// What this node observes of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    pub underlay: UnderlayFact,
    /// Routes that are neither ours nor a default route.
    pub foreign: Vec<ForeignRoute>,
}

/// The link that reaches the other nodes, our addresses on it, and what is ready to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlayFact {
    pub link: IfName,
    pub mtu: Mtu,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Prefixes that are reached on this link without a gateway.
    pub onlink: Vec<Prefix>,
    /// What others' routes reach by a gateway on this link, each once; sorted.
    pub gateways: Vec<GatewayRoute>,
    /// Whether the link's IPv6 default route comes from router advertisements.
    pub router_advertised: bool,
    /// The tunnel devices whose checksums, left to the link, have been found not to come out right.
    pub spoils_checksums: Vec<IfName>,
    /// What the operator's commands have made ready here, where the transport is such commands.
    pub prepared: Prepared,
}

impl UnderlayFact {
    /// Our underlay address of a family.
    pub fn addr(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// Whether `ip` can be handed a packet without a router in between.
    pub fn shares_link_with(&self, ip: IpAddr) -> bool {
        self.onlink.iter().any(|prefix| prefix.contains(ip))
    }
}

/// A route of somebody else's by a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayRoute {
    pub dst: Prefix,
    pub via: IpAddr,
}

/// A route of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignRoute {
    pub dst: Prefix,
    pub link: Option<IfName>,
    /// `rtm_protocol`.
    pub protocol: u8,
}

/// One attachment of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    pub container: String,
    pub ifname: IfName,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.ifname)
    }
}

/// One of this node's own pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// The name of the CNI network that it is attached to.
    pub network: String,
    /// The node's end of the pod's veth.
    pub host_link: IfName,
    pub addresses: Vec<IpAddr>,
    /// What the pod was given; it keeps it while it runs.
    pub mtu: Mtu,
    /// What it may send from, besides its addresses.
    pub allowed_sources: Vec<Prefix>,
}

/// What the node's end of a pod's veth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSide {
    /// A port of this bridge.
    Bridge { bridge: IfName, hairpin: Flag },
    /// A link of its own, with a route to each address.
    Routed { proxy_arp: Flag },
}

/// What a pod that is added now is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    pub side: PodSide,
    /// What the node's ends of pods' links begin with.
    pub links: &'static str,
    pub mtu: Mtu,
    /// This node's subnets, IPv4 first; on a bridge the gateway is the address after the base, `nth(1)`.
    pub subnets: Vec<Prefix>,
}
