//! TCP between routed pods of Calico's on two nodes: Russet's state of the kernel, the same built by hand, node to node.
//!
//! As `path` for flannel's pods, whose rounds these are.

use std::{net::Ipv4Addr, os::fd::AsFd};

use anyhow::{Context, Result};

use super::{
    Setup, calico,
    path::{differences, race},
};
use crate::{
    calico::{
        Cluster, Distribution, launch,
        objects::{Mode, POOL},
    },
    cluster::Agent,
    cni::Container,
    net::{
        Namespace,
        rtnl::{HOST_MAC, RoutedWish, add_routed_pod},
        site::{Node, Site, Transport, UNDERLAY_MTU, underlay},
        wire::{self, Via, Vxlan},
    },
    report::Figure,
    traffic::Path,
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "calico-path", rows: Vec::new(), notes: Vec::new() };
    for mode in [Mode::Direct, Mode::Vxlan] {
        let hand = Hand::build(mode)?;
        let ours = Ours::build(setup, mode).context("build with Russet")?;
        let transport = match mode {
            Mode::Direct => Transport::Direct,
            Mode::Vxlan => Transport::Vxlan,
        };
        let node = [&hand.site.nodes[0].namespace, &ours.site.nodes[0].namespace];
        let pod = [&hand.pods[0], &ours.pods[0].namespace];
        differences(&mut figure, transport, node, pod)?;
        let by_hand = || {
            let [client, server] = [0, 1].map(|n| &hand.pods[n]);
            Path { client, server, address: pod_address(2) }
        };
        let [client, server] = [0, 1].map(|n| &hand.site.nodes[n].namespace);
        let nodes = Path { client, server, address: underlay(2) };
        race(&mut figure, setup, transport, [by_hand(), ours.path(), by_hand(), nodes])?;
    }
    Ok(figure)
}

/// A site built by hand.
struct Hand {
    site: Site,
    pods: Vec<Namespace>,
}

impl Hand {
    fn build(mode: Mode) -> Result<Self> {
        let mut site = Site::new(2)?;
        let pods = site.nodes.iter_mut().zip([(1, 2), (2, 1)]);
        let pods =
            pods.map(|(node, (n, peer))| by_hand(node, mode, n, peer)).collect::<Result<_>>();
        Ok(Self { pods: pods?, site })
    }
}

/// Gives the node what Calico would, and one pod. `n` counts the nodes from 1.
fn by_hand(node: &mut Node, mode: Mode, n: u8, peer: u8) -> Result<Namespace> {
    node.namespace.sysctl("net/ipv4/ip_forward", "1")?;
    let mtu = match mode {
        Mode::Direct => {
            node.rtnl.add_route((block(peer), 26), Via::Gateway(underlay(peer), node.uplink))?;
            UNDERLAY_MTU
        }
        Mode::Vxlan => {
            let mtu = UNDERLAY_MTU - 50;
            let vtep = node.rtnl.add_vxlan(&Vxlan {
                name: "vxlan.calico",
                mac: wire::mac_of(block(n)),
                mtu,
                vni: 4_096,
                local: node.address,
                underlay: node.uplink,
                port: 4_789,
            })?;
            node.rtnl.add_address(vtep, (block(n), 32))?;
            let far = wire::mac_of(block(peer));
            node.rtnl.add_neighbour(vtep, block(peer), far)?;
            node.rtnl.add_fdb(vtep, far, underlay(peer))?;
            node.rtnl.add_route((block(peer), 26), Via::Onlink(block(peer), vtep))?;
            mtu
        }
    };
    node.load_rules(&rules())?;
    let pod = Namespace::new()?;
    let wish =
        RoutedWish { namespace: pod.as_fd(), host_link: "cali0", mtu, address: pod_address(n) };
    let near = add_routed_pod(&mut node.rtnl, &mut pod.rtnl()?, &wish)?;
    node.rtnl.send("set MAC address", |batch| wire::set_mac(batch, near, HOST_MAC))?;
    Ok(pod)
}

/// Masquerading out of the pool, and what keeps a pod from speaking for another.
fn rules() -> String {
    let spoofed = "type filter hook prerouting priority -300; iifname \"cali*\"";
    format!(
        "table ip hand {{ chain postrouting {{ type nat hook postrouting priority 100;
           meta mark & 0x4000 == 0x4000 return
           ip saddr {POOL} ip daddr != {POOL} ip daddr != 224.0.0.0/4 masquerade fully-random
         }}
         chain spoofed {{ {spoofed} fib saddr . iif oif 0 drop
         }}
         }}
         table ip6 hand {{ chain spoofed {{ {spoofed} ip6 saddr != fe80::/10 fib saddr . iif oif 0 drop
         }}
         }}"
    )
}

fn block(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, n, 0)
}

fn pod_address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 64, n, 2)
}

/// A site built by Russet's programs.
struct Ours {
    site: Site,
    pods: Vec<Container>,
    server: Ipv4Addr,
    _agents: Vec<Agent>,
    _cluster: Cluster,
}

impl Ours {
    fn build(setup: &Setup, mode: Mode) -> Result<Self> {
        let mut site = Site::new(2)?;
        let cluster = Cluster::start(&site, mode)?;
        let names = ["one", "two"];
        let agents = site.nodes.iter().zip(names);
        let agents = agents.map(|(node, name)| {
            let mut agent = launch(&setup.programs, node, name, Distribution::Store)?;
            agent.wait_until(|status| status.ready)?;
            anyhow::Ok(agent)
        });
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let pods = Container::many("path", 2)?;
        let mut server = None;
        for ((agent, node), pod) in agents.iter().zip(&site.nodes).zip(&pods) {
            server = Some(node.namespace.run(|| agent.plugin.add(pod))?.address()?);
        }
        let server = server.context("two pods")?;
        for node in &mut site.nodes {
            let by = match mode {
                Mode::Direct => None,
                Mode::Vxlan => Some(node.rtnl.index(calico::VTEP)?),
            };
            calico::until_block_routes_by(&mut node.rtnl, 1, by)?;
        }
        Ok(Self { site, pods, server, _agents: agents, _cluster: cluster })
    }

    fn path(&self) -> Path<'_> {
        let [client, server] = [0, 1].map(|n| &self.pods[n].namespace);
        Path { client, server, address: self.server }
    }
}
