//! A node: where its tunnels end, and what it is to BGP.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use russet_net::{Asn, Family, Labels, Mac, ParseError, Prefix, PublicKey};
use sha2::{Digest, Sha256};

use super::Name;

/// What the store says of a node, be it Calico's object or a Kubernetes node's annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub labels: Labels,
    /// `None` where the node does not speak BGP; its addresses are then unknown too.
    pub bgp: Option<NodeBgp>,
    /// The address of `tunl0`.
    pub ipip: Option<Ipv4Addr>,
    pub vxlan_v4: VxlanEnd<Ipv4Addr>,
    pub vxlan_v6: VxlanEnd<Ipv6Addr>,
    pub wireguard_v4: WireguardAddr<Ipv4Addr>,
    pub wireguard_v6: WireguardAddr<Ipv6Addr>,
    pub addresses: Vec<NodeAddress>,
}

/// A node's VXLAN device in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanEnd<A> {
    pub addr: Option<A>,
    /// `None` is derived from the node's name.
    pub mac: Option<Mac>,
}

impl<A> Default for VxlanEnd<A> {
    fn default() -> Self {
        Self { addr: None, mac: None }
    }
}

/// A node's WireGuard device in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardAddr<A> {
    pub addr: Option<A>,
    pub key: Option<PublicKey>,
}

impl<A> Default for WireguardAddr<A> {
    fn default() -> Self {
        Self { addr: None, key: None }
    }
}

/// What a node is to BGP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeBgp {
    /// `None` is the cluster's.
    pub asn: Option<Asn>,
    pub v4: Option<OnSubnet>,
    pub v6: Option<OnSubnet>,
    /// Of a node that is a route reflector: it takes no part in the mesh.
    pub cluster_id: Option<Ipv4Addr>,
}

impl Node {
    /// The node's underlay address of a family, and the subnet that it shares with its neighbours.
    pub fn underlay(&self, family: Family) -> Option<OnSubnet> {
        let bgp = self.bgp.as_ref()?;
        match family {
            Family::V4 => bgp.v4,
            Family::V6 => bgp.v6,
        }
    }
}

/// The BGP identifier of a node that has no IPv4 address, as Calico derives it: the hash's first octets, out of the
/// range of multicast.
pub fn hashed_router_id(node: &Name) -> Ipv4Addr {
    let hash = Sha256::digest(node.as_str().as_bytes());
    let mut octets = [hash[0], hash[1], hash[2], hash[3]];
    if octets[0] > 223 {
        octets[0] -= 32;
    }
    octets.into()
}

/// An address together with its subnet: `192.168.77.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnSubnet {
    addr: IpAddr,
    subnet: Prefix,
}

impl OnSubnet {
    /// # Errors
    ///
    /// When the length does not fit the family.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, ParseError> {
        Ok(Self { addr, subnet: Prefix::around(addr, len)? })
    }

    pub const fn addr(self) -> IpAddr {
        self.addr
    }

    pub const fn subnet(self) -> Prefix {
        self.subnet
    }
}

impl FromStr for OnSubnet {
    type Err = ParseError;

    /// An address alone is on a subnet of its own, as Calico reads it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown: String = text.chars().take(60).collect();
        let fail = |reason| ParseError::new(&shown, "a node's address", reason);
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| fail("ADDRESS/LENGTH is wanted"))?;
        let len = match len {
            Some(len) => len.parse().map_err(|_| fail("the length is no number"))?,
            None => Family::of(addr).bits(),
        };
        Self::new(addr, len)
    }
}

impl fmt::Display for OnSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.subnet.len())
    }
}

impl fmt::Debug for OnSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    pub addr: OnSubnet,
    /// `CalicoNodeIP`, `InternalIP`, `ExternalIP`.
    pub kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_out_of_a_node_s_name_where_it_has_no_address() {
        let id = |node: &str| hashed_router_id(&node.parse().unwrap());
        assert_eq!(id("node-1"), Ipv4Addr::new(53, 151, 27, 230));
        // Its hash begins with 245.
        assert_eq!(id("node-18"), Ipv4Addr::new(213, 194, 139, 227));
    }

    #[test]
    fn an_address_keeps_its_subnet() {
        let addr: OnSubnet = "192.168.77.1/24".parse().unwrap();
        assert_eq!(addr.to_string(), "192.168.77.1/24");
        assert_eq!(addr.subnet().to_string(), "192.168.77.0/24");
        assert_eq!("fd00::1".parse::<OnSubnet>().unwrap().to_string(), "fd00::1/128");
        for bad in ["", "192.168.77.1/33", "192.168.77.1/", "192.168.77.1/x", "192.168.77/24"] {
            assert!(bad.parse::<OnSubnet>().is_err(), "{bad}");
        }
    }
}
