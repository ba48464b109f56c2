//! How nodes behave: the part of Felix's settings that is heeded.
//!
//! Settings are the cluster's (`default`) or one node's (`node.<name>`), and the latter go first, one by one.
//! What is not here is kept by `api::calico` and told as not used.

use russet_desired::Flag;
use russet_net::{Mtu, Port, Vni};

/// Settings; `None` is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FelixConfiguration {
    /// Whether the device is made; where it is not said, the pools decide.
    pub ipip: Option<Flag>,
    /// A device's MTU, as all of them here.
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
}

impl FelixConfiguration {
    /// Calico's VNI.
    pub const USUAL_VNI: u32 = 4_096;

    /// A node's settings where it has them, and the cluster's where not.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "both become one")]
    pub fn over(self, cluster: Self) -> Self {
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
    }
}
