//! Where a node's tunnels end, when it says so tunnel by tunnel.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use russet_net::{Family, Mac, PublicKey};

/// Where the tunnels of a node end that says so tunnel by tunnel (Calico's Node). One that is not there is not ready to
/// take packets by that tunnel, or has no use for it any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    pub ipip: Option<Ipv4Addr>,
    pub vxlan_v4: Option<VxlanEnd>,
    pub vxlan_v6: Option<VxlanEnd>,
    pub wireguard_v4: Option<PublicKey>,
    pub wireguard_v6: Option<PublicKey>,
    /// What its WireGuard devices have as an address of their own.
    pub wireguard_addr_v4: Option<Ipv4Addr>,
    pub wireguard_addr_v6: Option<Ipv6Addr>,
}

/// A VTEP with an address within the network, which is the gateway to all that is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanEnd {
    pub addr: IpAddr,
    pub mac: Mac,
}

impl Ends {
    pub const fn vxlan(&self, family: Family) -> Option<VxlanEnd> {
        match family {
            Family::V4 => self.vxlan_v4,
            Family::V6 => self.vxlan_v6,
        }
    }

    pub const fn wireguard(&self, family: Family) -> Option<PublicKey> {
        match family {
            Family::V4 => self.wireguard_v4,
            Family::V6 => self.wireguard_v6,
        }
    }

    /// Whether packets of a family can be taken by a tunnel.
    pub fn has(&self, tunnel: Tunnel, family: Family) -> bool {
        match tunnel {
            Tunnel::Ipip => family == Family::V4 && self.ipip.is_some(),
            Tunnel::Vxlan => self.vxlan(family).is_some(),
            Tunnel::Wireguard => self.wireguard(family).is_some(),
        }
    }

    /// A tunnel's own address within the network.
    pub fn addr(&self, tunnel: Tunnel, family: Family) -> Option<IpAddr> {
        match (tunnel, family) {
            (Tunnel::Ipip, Family::V4) => self.ipip.map(IpAddr::V4),
            (Tunnel::Ipip, Family::V6) => None,
            (Tunnel::Vxlan, _) => self.vxlan(family).map(|end| end.addr),
            (Tunnel::Wireguard, Family::V4) => self.wireguard_addr_v4.map(IpAddr::V4),
            (Tunnel::Wireguard, Family::V6) => self.wireguard_addr_v6.map(IpAddr::V6),
        }
    }
}

/// A tunnel whose end has an address within the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tunnel {
    Ipip,
    Vxlan,
    Wireguard,
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipip => "ipip",
            Self::Vxlan => "vxlan",
            Self::Wireguard => "wireguard",
        })
    }
}
