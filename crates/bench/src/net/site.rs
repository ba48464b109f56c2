//! Two nodes on one switch, and the same pods between them as a hand would connect them.
//!
//! ```text
//!   pod ─ eth0 ═ cni0 ─ node 1 ─ eth0 ═══ switch ═══ eth0 ─ node 2 ─ cni0 ═ eth0 ─ pod
//!                       192.168.77.1    192.168.77.254      192.168.77.2
//! ```
//!
//! The hand builds what `flanneld` leaves in the kernel (vectors/flannel/kernel), the masquerading rules
//! included: they cost a packet more than the encapsulation does.

use std::{
    io::Write,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use russet_net::Mac;

use super::{
    Namespace, Rtnl,
    rtnl::{PodWish, add_pod},
    wire::{Net, Veth, Via, Vxlan, mac_of},
};

/// A switch with nodes on it.
#[derive(Debug)]
pub struct Site {
    pub switch: Namespace,
    pub nodes: Vec<Node>,
}

#[derive(Debug)]
pub struct Node {
    pub namespace: Namespace,
    pub rtnl: Rtnl,
    /// Its underlay address, on `eth0`.
    pub address: Ipv4Addr,
    pub uplink: u32,
}

/// How packets cross the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Direct,
    Vxlan,
    /// By engines; only Russet's programs build it.
    Udp,
    /// The same, sealed.
    Wireguard,
}

impl Transport {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
            Self::Udp => "udp",
            Self::Wireguard => "wireguard",
        }
    }
}

impl Site {
    /// Joins that many nodes by a switch.
    pub fn new(nodes: u8) -> Result<Self> {
        let switch = Namespace::new()?;
        let mut rtnl = switch.rtnl()?;
        let bridge = rtnl.add_bridge("switch", Mac::local([2, 0, 0, 0, 77, 254]), UNDERLAY_MTU)?;
        rtnl.add_address(bridge, (SWITCH, UNDERLAY_LEN))?;
        let nodes = (1..=nodes).map(|n| Node::new(&mut rtnl, bridge, n)).collect::<Result<_>>()?;
        Ok(Self { switch, nodes })
    }
}

impl Node {
    fn new(switch: &mut Rtnl, bridge: u32, n: u8) -> Result<Self> {
        let namespace = Namespace::new()?;
        switch.add_veth(&Veth {
            name: &port(n),
            master: Some(bridge),
            mtu: UNDERLAY_MTU,
            peer: "eth0",
            peer_mac: Some(Mac::local([2, 0, 0, 0, 77, n])),
            peer_namespace: Some(namespace.as_fd()),
        })?;
        let mut rtnl = namespace.rtnl()?;
        let uplink = rtnl.index("eth0")?;
        let address = underlay(n);
        rtnl.up(uplink)?;
        rtnl.add_address(uplink, (address, UNDERLAY_LEN))?;
        rtnl.add_route((Ipv4Addr::UNSPECIFIED, 0), Via::Gateway(SWITCH, uplink))?;
        Ok(Self { namespace, rtnl, address, uplink })
    }

    /// Gives the node what flannel and the bridge plugin would, and one pod. `n` counts the nodes from 1.
    pub fn build_by_hand(&mut self, transport: Transport, n: u8, peer: u8) -> Result<Namespace> {
        self.namespace.sysctl("net/ipv4/ip_forward", "1")?;
        let mtu = match transport {
            Transport::Direct => UNDERLAY_MTU,
            Transport::Vxlan => UNDERLAY_MTU - VXLAN_OVERHEAD,
            Transport::Udp | Transport::Wireguard => {
                bail!("an engine is nothing that a hand builds")
            }
        };
        match transport {
            Transport::Direct => {
                let via = Via::Gateway(underlay(peer), self.uplink);
                self.rtnl.add_route(subnet(peer), via)?;
            }
            Transport::Vxlan => self.add_vtep(n, peer, mtu)?,
            Transport::Udp | Transport::Wireguard => {}
        }
        self.load_masquerade(n)?;
        self.add_bridge_and_pod(n, mtu)
    }

    fn add_vtep(&mut self, n: u8, peer: u8, mtu: u32) -> Result<()> {
        let vtep = self.rtnl.add_vxlan(&Vxlan {
            name: "flannel.1",
            mac: vtep_mac(n),
            mtu,
            vni: 1,
            local: self.address,
            underlay: self.uplink,
            port: 8_472,
        })?;
        let base = subnet(peer).0;
        self.rtnl.add_address(vtep, (subnet(n).0, 32))?;
        self.rtnl.add_neighbour(vtep, base, vtep_mac(peer))?;
        self.rtnl.add_fdb(vtep, vtep_mac(peer), underlay(peer))?;
        self.rtnl.add_route(subnet(peer), Via::Onlink(base, vtep))
    }

    /// Loads the six rules of flannel's.
    pub fn load_masquerade(&self, n: u8) -> Result<()> {
        self.load_rules(&masquerade(subnet(n)))
    }

    pub fn add_bridge_and_pod(&mut self, n: u8, mtu: u32) -> Result<Namespace> {
        let gateway = Ipv4Addr::from_bits(subnet(n).0.to_bits() + 1);
        let bridge = self.rtnl.add_bridge("cni0", mac_of(gateway), mtu)?;
        self.rtnl.add_address(bridge, (gateway, POD_LEN))?;
        let pod = Namespace::new()?;
        let wish = PodWish {
            namespace: pod.as_fd(),
            host_link: "veth0",
            bridge,
            mtu,
            address: (pod_address(n), POD_LEN),
            gateway,
        };
        add_pod(&mut self.rtnl, &mut pod.rtnl()?, &wish)?;
        Ok(pod)
    }

    /// Loads a ruleset with `nft`.
    pub fn load_rules(&self, rules: &str) -> Result<()> {
        self.namespace.run(|| {
            let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn();
            let nft = nft.as_mut().map_err(|err| anyhow::anyhow!("start nft: {err}"))?;
            nft.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
            ensure!(nft.wait()?.success(), "nft refused the rules:\n{rules}");
            Ok(())
        })
    }
}

/// The name of a node's port on the switch.
pub fn port(n: u8) -> String {
    format!("port{n}")
}

pub fn underlay(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, n)
}

pub fn subnet(n: u8) -> Net {
    (Ipv4Addr::new(10, 50, n, 0), POD_LEN)
}

/// The pod that is built by hand on a node.
pub fn pod_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 50, n, 2)
}

fn vtep_mac(n: u8) -> Mac {
    Mac::local([2, 0, 0, 0, 1, n])
}

/// The six rules of flannel's masquerading; the network is 10.50.0.0/16.
fn masquerade((base, len): Net) -> String {
    let (network, subnet) = ("10.50.0.0/16", format!("{base}/{len}"));
    format!(
        "table ip hand {{ chain postrouting {{ type nat hook postrouting priority 100;
           meta mark & 0x4000 == 0x4000 return
           ip saddr {subnet} ip daddr {network} return
           ip saddr {network} ip daddr {subnet} return
           ip saddr != {network} ip daddr {subnet} return
           ip saddr {network} ip daddr != 224.0.0.0/4 masquerade fully-random
           ip saddr != {network} ip daddr {network} masquerade fully-random
         }}
         }}"
    )
}

/// The switch's own address; the store listens there.
pub const SWITCH: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);
const UNDERLAY_LEN: u8 = 24;
pub const UNDERLAY_MTU: u32 = 1_500;
/// Outer Ethernet, IPv4, UDP and VXLAN headers (RFC 7348 §5).
const VXLAN_OVERHEAD: u32 = 50;
const POD_LEN: u8 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        net::{objects, state},
        traffic::Path,
    };

    #[test]
    fn pods_that_are_connected_by_hand_reach_each_other() {
        for transport in [Transport::Direct, Transport::Vxlan] {
            let (_site, pods) = by_hand(transport);
            let [client, server] = &pods[..] else { panic!("two pods") };
            let path = Path { client, server, address: pod_address(2) };
            let trip = path.round_trip(10).unwrap();
            assert!(trip > 0.0 && trip < 1.0, "{transport:?}: {trip}");
        }
    }

    #[test]
    fn two_sites_that_are_built_alike_show_no_difference_and_others_do() {
        let (vxlan, _pods) = by_hand(Transport::Vxlan);
        let (direct, _pods) = by_hand(Transport::Direct);
        let [first, second] = [0, 1].map(|n| state::read(&vxlan.nodes[n].namespace).unwrap());
        let other = state::read(&direct.nodes[0].namespace).unwrap();
        assert_eq!(state::differences(&first, &second), [""; 0]);
        let differences = state::differences(&first, &other);
        assert!(differences.iter().any(|line| line.starts_with("vxlan mtu:")), "{differences:?}");
    }

    #[test]
    fn every_kind_of_object_is_listed_and_missed_when_it_is_taken() {
        let (mut site, _pods) = by_hand(Transport::Vxlan);
        let node = &mut site.nodes[0];
        let whole = objects::list(&mut node.rtnl).unwrap();
        for kind in
            ["link flannel.1", "address 10.50.1.1/24", "route 10.50.2.0/24", "entry of family 7"]
        {
            assert!(whole.iter().any(|line| line.starts_with(kind)), "{kind} is not in {whole:#?}");
        }
        let vtep = node.rtnl.index("flannel.1").unwrap();
        node.rtnl.delete_link(vtep).unwrap();
        // The link, its address with its local route, the route, the neighbour and the FDB entry.
        assert_eq!(whole.len() - objects::list(&mut node.rtnl).unwrap().len(), 6);
    }

    fn by_hand(transport: Transport) -> (Site, Vec<Namespace>) {
        let mut site = Site::new(2).unwrap();
        let nodes = site.nodes.iter_mut().zip([(1, 2), (2, 1)]);
        let pods = nodes
            .map(|(node, (n, peer))| node.build_by_hand(transport, n, peer).unwrap())
            .collect();
        (site, pods)
    }
}
