//! How nodes behave: the part of Felix's settings that concerns a network.
//!
//! Settings are the cluster's (`default`) or one node's (`node.<name>`), and the latter go first, one by one.
//! What is not here is kept by `api::calico` and told as not used.

use std::net::{Ipv4Addr, Ipv6Addr};

use russet_desired::Flag;
use russet_net::{IfName, Mtu, OutOfRange, Port, Vni};

/// Settings; `None` is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FelixConfiguration {
    /// Whether the device is made; where it is not said, the pools decide.
    pub ipip: Option<Flag>,
    pub ipip_mtu: Option<Mtu>,
    pub vxlan: Option<Flag>,
    pub vxlan_mtu: Option<Mtu>,
    pub vxlan_mtu_v6: Option<Mtu>,
    pub vxlan_port: Option<Port>,
    pub vxlan_vni: Option<Vni>,
    pub wireguard: Option<Flag>,
    pub wireguard_v6: Option<Flag>,
    pub wireguard_mtu: Option<Mtu>,
    pub wireguard_mtu_v6: Option<Mtu>,
    pub wireguard_port: Option<Port>,
    pub wireguard_port_v6: Option<Port>,
    pub wireguard_link: Option<IfName>,
    pub wireguard_link_v6: Option<IfName>,
    /// Which links are looked at for the underlay's MTU: a regular expression, as it is written.
    pub mtu_links: Option<String>,
    pub ipv6: Option<Flag>,
    /// Beginnings of the names of the pods' links.
    pub link_prefixes: Vec<String>,
    /// `rtm_protocol` of the routes to pods.
    pub route_protocol: Option<RouteProtocol>,
    pub route_source: Option<Ipv4Addr>,
    pub route_source_v6: Option<Ipv6Addr>,
    /// Whether routes to pods that somebody else made are removed.
    pub remove_external_routes: Option<Flag>,
    /// Whether IPIP's routes come from the store and not from BGP.
    pub cluster_routes: Option<Flag>,
    pub nat_outgoing_address: Option<Ipv4Addr>,
    pub ip_forwarding: Option<Flag>,
}

/// Who made a route, as the kernel keeps it: never `unspec`, which would be everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteProtocol(u8);

impl RouteProtocol {
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u32> for RouteProtocol {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        let fits = u8::try_from(raw).ok().filter(|raw| *raw > 0);
        fits.map(Self).ok_or(OutOfRange::new("route protocol", raw.into(), 1, 255))
    }
}

impl FelixConfiguration {
    /// Calico's VNI.
    pub const USUAL_VNI: u32 = 4_096;

    /// A node's settings where it has them, and the cluster's where not.
    #[must_use]
    pub fn over(self, cluster: Self) -> Self {
        let links = self.link_prefixes;
        Self {
            ipip: self.ipip.or(cluster.ipip),
            ipip_mtu: self.ipip_mtu.or(cluster.ipip_mtu),
            vxlan: self.vxlan.or(cluster.vxlan),
            vxlan_mtu: self.vxlan_mtu.or(cluster.vxlan_mtu),
            vxlan_mtu_v6: self.vxlan_mtu_v6.or(cluster.vxlan_mtu_v6),
            vxlan_port: self.vxlan_port.or(cluster.vxlan_port),
            vxlan_vni: self.vxlan_vni.or(cluster.vxlan_vni),
            wireguard: self.wireguard.or(cluster.wireguard),
            wireguard_v6: self.wireguard_v6.or(cluster.wireguard_v6),
            wireguard_mtu: self.wireguard_mtu.or(cluster.wireguard_mtu),
            wireguard_mtu_v6: self.wireguard_mtu_v6.or(cluster.wireguard_mtu_v6),
            wireguard_port: self.wireguard_port.or(cluster.wireguard_port),
            wireguard_port_v6: self.wireguard_port_v6.or(cluster.wireguard_port_v6),
            wireguard_link: self.wireguard_link.or(cluster.wireguard_link),
            wireguard_link_v6: self.wireguard_link_v6.or(cluster.wireguard_link_v6),
            mtu_links: self.mtu_links.or(cluster.mtu_links),
            ipv6: self.ipv6.or(cluster.ipv6),
            link_prefixes: if links.is_empty() { cluster.link_prefixes } else { links },
            route_protocol: self.route_protocol.or(cluster.route_protocol),
            route_source: self.route_source.or(cluster.route_source),
            route_source_v6: self.route_source_v6.or(cluster.route_source_v6),
            remove_external_routes: self.remove_external_routes.or(cluster.remove_external_routes),
            cluster_routes: self.cluster_routes.or(cluster.cluster_routes),
            nat_outgoing_address: self.nat_outgoing_address.or(cluster.nat_outgoing_address),
            ip_forwarding: self.ip_forwarding.or(cluster.ip_forwarding),
        }
    }

    pub fn vxlan_vni(&self) -> Vni {
        // A constant within range.
        self.vxlan_vni.unwrap_or_else(|| Vni::try_from(Self::USUAL_VNI).unwrap_or(Vni::MAX))
    }

    pub fn vxlan_port(&self) -> Port {
        self.vxlan_port.unwrap_or(Port::VXLAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_settings_go_before_the_cluster_s_one_by_one() {
        let cluster = FelixConfiguration {
            vxlan_mtu: Mtu::try_from(1_400).ok(),
            vxlan_vni: Vni::try_from(7).ok(),
            link_prefixes: vec!["cali".to_owned()],
            ..FelixConfiguration::default()
        };
        let node = FelixConfiguration {
            vxlan_mtu: Mtu::try_from(8_950).ok(),
            ..FelixConfiguration::default()
        };
        let both = node.over(cluster);
        assert_eq!(both.vxlan_mtu.unwrap().get(), 8_950);
        assert_eq!(both.vxlan_vni().get(), 7);
        assert_eq!(both.vxlan_port(), Port::VXLAN);
        assert_eq!(both.link_prefixes, ["cali"]);
    }
}
