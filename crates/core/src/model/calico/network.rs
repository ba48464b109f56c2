//! What pools, Felix' settings and nodes come to, in the words that every preset shares.
//!
//! | a pool says | its transport |
//! |---|---|
//! | `vxlanMode` | vxlan, by Felix' VNI and port |
//! | `ipipMode` | ipip |
//! | neither | direct; with BGP on the nodes, whatever routers lead to |
//!
//! With `wireguardEnabled` all that is wireguard's: whoever has no key is reached as before. `CrossSubnet` is a habit of the pool: a peer on a shared link is handed its packets as they are.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use russet_desired::Flag;
use russet_net::{Family, Mac, Mtu, Port, sha1};

use super::{Encapsulation, FelixConfiguration, IpPool, Name, Node, OnSubnet};
use crate::{
    choices::{Distribution, When},
    model::{
        Backend, Ends, IpipConfig, Lease, NetworkConfig, Pool, PoolHabits, TransportConfig,
        VxlanConfig, VxlanEnd, WireguardConfig, WireguardMode,
    },
};

/// The network that pools make. One that is disabled gives nothing out, and what was given out of it is still carried.
pub fn network(
    pools: &BTreeMap<Name, IpPool>,
    felix: &FelixConfiguration,
    distribution: Distribution,
) -> NetworkConfig {
    NetworkConfig::of_pools(pools.values().map(|pool| {
        let sealed = match pool.family() {
            Family::V4 => felix.wireguard,
            Family::V6 => felix.wireguard_v6,
        };
        let sealed = sealed == Some(Flag::On);
        // What is sealed is so over a shared link too.
        let when = when(pool.encapsulation()).filter(|_| !sealed);
        let habits = PoolHabits {
            direct_routing: Flag::from(when == Some(When::CrossSubnet)),
            nat_outgoing: Some(pool.nat_outgoing),
            bgp_export: pool.bgp_export,
        };
        let transport = if sealed {
            TransportConfig::Wireguard(wireguard(felix))
        } else {
            transport(pool.encapsulation(), felix, distribution)
        };
        (Pool::of_blocks(pool.cidr(), pool.block_len(), habits), transport)
    }))
}

const fn when(encapsulation: Encapsulation) -> Option<When> {
    match encapsulation {
        Encapsulation::None => None,
        Encapsulation::Ipip(when) | Encapsulation::Vxlan(when) => Some(when),
    }
}

fn transport(
    encapsulation: Encapsulation,
    felix: &FelixConfiguration,
    distribution: Distribution,
) -> TransportConfig {
    match encapsulation {
        Encapsulation::Vxlan(_) if felix.vxlan != Some(Flag::Off) => {
            TransportConfig::Vxlan(VxlanConfig {
                vni: felix.vxlan_vni(),
                port: felix.vxlan_port(),
                mtu: felix.vxlan_mtu.and_then(|inner| outer(inner, VXLAN_OVERHEAD)),
                mtu_v6: felix.vxlan_mtu_v6.and_then(|inner| outer(inner, VXLAN_OVERHEAD_V6)),
                ..VxlanConfig::default()
            })
        }
        Encapsulation::Ipip(_) if felix.ipip != Some(Flag::Off) => {
            let mtu = felix.ipip_mtu.and_then(|inner| outer(inner, IPIP_OVERHEAD));
            TransportConfig::Ipip(IpipConfig { direct_routing: Flag::Off, mtu })
        }
        Encapsulation::None | Encapsulation::Vxlan(_) | Encapsulation::Ipip(_) => {
            match distribution {
                Distribution::Bgp => TransportConfig::Unmanaged,
                Distribution::Store | Distribution::Evpn | Distribution::Flood => {
                    TransportConfig::Direct
                }
            }
        }
    }
}

fn wireguard(felix: &FelixConfiguration) -> WireguardConfig {
    // Both families' devices are as large as the smaller one may be.
    let sealed =
        [(felix.wireguard, felix.wireguard_mtu), (felix.wireguard_v6, felix.wireguard_mtu_v6)];
    let mtu = sealed.into_iter().filter(|(on, _)| *on == Some(Flag::On)).filter_map(|(_, mtu)| mtu);
    let mtu = mtu.min();
    WireguardConfig {
        mode: WireguardMode::Separate,
        port: felix.wireguard_port.unwrap_or(Port::FLANNEL_WIREGUARD),
        port_v6: felix.wireguard_port_v6.unwrap_or(Port::FLANNEL_WIREGUARD_V6),
        psk: None,
        keepalive: 0,
        mtu: mtu.and_then(|inner| outer(inner, WIREGUARD_OVERHEAD)),
    }
}

/// Felix names the tunnel's MTU; ours is the underlay's.
fn outer(inner: Mtu, overhead: u32) -> Option<Mtu> {
    Mtu::try_from(inner.get() + overhead).ok()
}

const VXLAN_OVERHEAD: u32 = 50;
const VXLAN_OVERHEAD_V6: u32 = 70;
const IPIP_OVERHEAD: u32 = 20;
const WIREGUARD_OVERHEAD: u32 = 80;

/// How a node is reached, and where its tunnels end.
pub fn host(name: &Name, node: &Node) -> Lease {
    let at = |family| {
        let listed = || node.addresses.iter().filter(|listed| listed.kind == INTERNAL);
        let bgp = node.underlay(family).map(OnSubnet::addr);
        let mut others = listed().map(|listed| listed.addr.addr());
        bgp.or_else(|| others.find(|addr| Family::of(*addr) == family))
    };
    let end = |addr: Option<IpAddr>, mac: Option<Mac>, family| {
        let mac = mac.unwrap_or_else(|| vtep_mac(name.as_str(), family));
        addr.map(|addr| VxlanEnd { addr, mac })
    };
    let (v4, v6) = (node.vxlan_v4, node.vxlan_v6);
    let ends = Ends {
        ipip: node.ipip,
        vxlan_v4: end(v4.addr.map(IpAddr::V4), v4.mac, Family::V4),
        vxlan_v6: end(v6.addr.map(IpAddr::V6), v6.mac, Family::V6),
        wireguard_v4: node.wireguard_v4.key,
        wireguard_v6: node.wireguard_v6.key,
        wireguard_addr_v4: node.wireguard_v4.addr,
        wireguard_addr_v6: node.wireguard_v6.addr,
    };
    Lease {
        public_ip: match at(Family::V4) {
            Some(IpAddr::V4(addr)) => Some(addr),
            _ => None,
        },
        public_ipv6: match at(Family::V6) {
            Some(IpAddr::V6(addr)) => Some(addr),
            _ => None,
        },
        backend: Backend::Ends(Arc::new(ends)),
    }
}

const INTERNAL: &str = "InternalIP";

/// The MAC of a node's VTEP, as Calico derives it: one that is not announced is known by the node's name alone.
pub fn vtep_mac(node: &str, family: Family) -> Mac {
    let digest = match family {
        Family::V4 => sha1(node),
        Family::V6 => sha1(&format!("{node}-v6")),
    };
    let mut octets = [0x66; 6];
    for (octet, byte) in octets.iter_mut().skip(1).zip(digest.iter()) {
        *octet = *byte;
    }
    Mac::new(octets)
}

#[cfg(test)]
mod tests {
    use russet_net::Vni;

    use super::*;

    #[test]
    fn a_pool_s_mode_is_a_transport_and_a_habit() {
        let config = made(&[
            ("10.1.0.0/16", Encapsulation::Vxlan(When::Always)),
            ("10.2.0.0/16", Encapsulation::Vxlan(When::CrossSubnet)),
            ("10.3.0.0/16", Encapsulation::Ipip(When::CrossSubnet)),
            ("10.4.0.0/16", Encapsulation::None),
        ]);
        let of = |cidr: &str| {
            let pool = config.pool_of(cidr.parse().unwrap()).unwrap();
            (config.transport_of(pool).clone(), pool.habits.direct_routing.is_on())
        };
        let (always, direct) = of("10.1.0.0/26");
        let TransportConfig::Vxlan(vxlan) = &always else { panic!("{always:?}") };
        assert_eq!((vxlan.vni.get(), vxlan.port.get(), direct), (4_096, 4_789, false));
        assert_eq!(of("10.2.0.0/26"), (always, true));
        assert!(matches!(of("10.3.0.0/26"), (TransportConfig::Ipip(_), true)));
        assert_eq!(of("10.4.0.0/26"), (TransportConfig::Direct, false));
        assert_eq!(config.transports().len(), 3);
    }

    #[test]
    fn what_felix_turns_off_is_no_tunnel() {
        let felix = FelixConfiguration { ipip: Some(Flag::Off), ..FelixConfiguration::default() };
        let pools = pools(&[("10.3.0.0/16", Encapsulation::Ipip(When::Always))]);
        let config = network(&pools, &felix, Distribution::Bgp);
        assert_eq!(*config.transport(), TransportConfig::Unmanaged);
    }

    #[test]
    fn what_felix_says_of_a_tunnel_is_said_of_it() {
        let (mtu, port) = (|mtu| Mtu::try_from(mtu).ok(), |port: u32| Port::try_from(port).ok());
        let felix = FelixConfiguration {
            ipip_mtu: mtu(1_400),
            vxlan_mtu: mtu(1_401),
            vxlan_mtu_v6: mtu(1_402),
            vxlan_port: port(4_790),
            vxlan_vni: Vni::try_from(77).ok(),
            wireguard_port: port(5_000),
            wireguard_port_v6: port(5_001),
            ..FelixConfiguration::default()
        };
        let of = |felix: &FelixConfiguration, encapsulation| {
            let cidr =
                if encapsulation == Encapsulation::None { "fd00::/64" } else { "10.3.0.0/16" };
            let pools = pools(&[(cidr, encapsulation)]);
            network(&pools, felix, Distribution::Store).transport().clone()
        };
        let TransportConfig::Vxlan(vxlan) = of(&felix, Encapsulation::Vxlan(When::Always)) else {
            panic!("no VXLAN")
        };
        assert_eq!((vxlan.vni.get(), vxlan.port.get()), (77, 4_790));
        let outer = [Family::V4, Family::V6].map(|family| vxlan.mtu_of(family).map(Mtu::get));
        assert_eq!(outer, [Some(1_451), Some(1_472)]);
        let TransportConfig::Ipip(ipip) = of(&felix, Encapsulation::Ipip(When::Always)) else {
            panic!("no IPIP")
        };
        assert_eq!(ipip.mtu.map(Mtu::get), Some(1_420));
        // Each family is sealed by its own word.
        assert_eq!(of(&felix, Encapsulation::None), TransportConfig::Direct);
        let v4 = FelixConfiguration { wireguard: Some(Flag::On), ..felix.clone() };
        assert_eq!(of(&v4, Encapsulation::None), TransportConfig::Direct);
        let v6 = FelixConfiguration { wireguard_v6: Some(Flag::On), ..felix };
        let TransportConfig::Wireguard(sealed) = of(&v6, Encapsulation::None) else {
            panic!("not sealed")
        };
        assert_eq!((sealed.port.get(), sealed.port_v6.get()), (5_000, 5_001));
        assert!(matches!(of(&v6, Encapsulation::Vxlan(When::Always)), TransportConfig::Vxlan(_)));
        let off = FelixConfiguration { vxlan: Some(Flag::Off), ..v6 };
        assert_eq!(of(&off, Encapsulation::Vxlan(When::Always)), TransportConfig::Direct);
    }

    #[test]
    fn what_is_sealed_is_as_large_as_the_smaller_of_the_families_that_are() {
        let size = |mtu| Mtu::try_from(mtu).ok();
        let mut felix = FelixConfiguration {
            wireguard: Some(Flag::On),
            wireguard_mtu: size(1_400),
            wireguard_mtu_v6: size(1_300),
            ..FelixConfiguration::default()
        };
        let outer = |felix: &FelixConfiguration| wireguard(felix).mtu.map(Mtu::get);
        assert_eq!(outer(&felix), Some(1_480), "the other family is not sealed");
        felix.wireguard_v6 = Some(Flag::On);
        assert_eq!(outer(&felix), Some(1_380));
        felix.wireguard_mtu_v6 = None;
        assert_eq!(outer(&felix), Some(1_480));
    }

    #[test]
    fn a_node_s_mac_is_the_reference_s_unless_it_announces_one() {
        let name: Name = "node-1".parse().unwrap();
        let mac = |family| vtep_mac("node-1", family).to_string();
        assert_eq!(mac(Family::V4), "66:b3:68:28:39:8e");
        assert_eq!(mac(Family::V6), "66:24:ac:63:df:6c");
        let mut node = Node::default();
        node.vxlan_v4.addr = Some([10, 1, 0, 0].into());
        let Backend::Ends(ends) = host(&name, &node).backend else { panic!() };
        assert_eq!(ends.vxlan_v4.unwrap().mac.to_string(), "66:b3:68:28:39:8e");
        node.vxlan_v4.mac = Some(Mac::local([2, 0, 0, 0, 0, 1]));
        let Backend::Ends(ends) = host(&name, &node).backend else { panic!() };
        assert_eq!(ends.vxlan_v4.unwrap().mac, Mac::local([2, 0, 0, 0, 0, 1]));
    }

    fn made(all: &[(&str, Encapsulation)]) -> NetworkConfig {
        network(&pools(all), &FelixConfiguration::default(), Distribution::Store)
    }

    fn pools(all: &[(&str, Encapsulation)]) -> BTreeMap<Name, IpPool> {
        let pool = |(i, (cidr, mode)): (usize, &(&str, Encapsulation))| {
            let pool = IpPool::new(cidr.parse().unwrap(), None, *mode, Flag::Off).unwrap();
            (format!("p{i}").parse().unwrap(), pool)
        };
        all.iter().enumerate().map(pool).collect()
    }
}
